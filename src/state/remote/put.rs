//! Servers that take a PUT and give a GET: presigned URLs of S3, and everything else that stores files over HTTP. The
//! query of such a URL is its signature, and is never shown.

use std::path::PathBuf;

use bytes::Bytes;
use hyper::{
    Method,
    header::{HeaderName, HeaderValue},
};
use tokio::sync::mpsc;

use super::{
    Io, Patience, Piece, Refusal, RemoteListed, STALL,
    spool::{Bounds, IN_MEMORY, Spool},
    xml,
};
use crate::{
    client::{
        Failure, Request,
        options::Options,
        transfer::{BROKE_OFF, Kept, Outgoing, Reply, Transfer, Wanted},
    },
    problem::Scope,
    state::{Trouble, name::SnapshotName},
    value::printable,
};

/// An URL for one snapshot, which each save replaces.
#[derive(Clone, Debug)]
pub struct PutUrl {
    request: Request,
    method: Method,
    /// Where a snapshot waits until its length is known.
    pub spool: Option<PathBuf>,
    pub stall: std::time::Duration,
}

/// Shorter values of a query are no secrets, and would blot out words.
const SHORTEST_SECRET: usize = 6;

impl PutUrl {
    /// Gives meaning to a URL and its options; `None` when at least one problem was noted.
    pub fn mean(key: &str, url: &str, options: Options, spool: Option<PathBuf>, scope: &mut Scope<'_>) -> Option<Self> {
        let before = scope.problems.len();
        let method = match options.method.as_deref() {
            None | Some("PUT") => Method::PUT,
            Some("POST") => Method::POST,
            Some(other) => {
                let what = format!("`{}` does not store anything", other.escape_default());
                scope.problem("method", what, Some("use PUT or POST".into()));
                Method::PUT
            }
        };
        if options.body.is_some() || options.body_file.is_some() {
            scope.problem("body", "the body is the snapshot", Some("leave it out".into()));
        }
        if let Some((_, query)) = url.split_once('?') {
            // The parts of a signature, as they stand in the URL and as a server may repeat them.
            scope.secrets.extend(secrets_of(query));
        }
        let mut request = Request::mean(key, url, Options { method: None, ..options }, scope)?;
        request.refuse_redirects();
        (scope.problems.len() == before).then_some(Self { request, method, spool, stall: STALL })
    }

    /// The URL without its query.
    pub fn show(&self) -> String {
        self.request.url.to_string()
    }

    /// What a GET would give.
    pub fn listed(&self) -> RemoteListed {
        let path = self.request.url.path.split('?').next().unwrap_or_default();
        let name = path.rsplit('/').next().map(decode).and_then(|name| SnapshotName::parse(&name));
        RemoteListed { name, key: String::new(), size: None }
    }

    /// Sends a snapshot; its bytes come through the channel. All of it is there before the first byte is sent: then its
    /// length can be said, which presigned URLs want, and it can be sent again.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn upload(&self, mut pieces: mpsc::Receiver<Piece>, io: &Io) -> Result<u64, Trouble> {
        let mut patience = Patience::new(self.show(), io);
        let bounds = Bounds { memory: IN_MEMORY, folder: self.spool.clone(), most: u64::MAX };
        let folder = bounds.folder();
        let mut spool = Spool::new(bounds);
        loop {
            match pieces.recv().await {
                Some(Piece::Bytes(bytes)) => {
                    let before = spool.size();
                    if let Err(trouble) = spool.push(&bytes).await {
                        if spool.has_file() {
                            return Err(patience.trouble(&trouble.reason, false));
                        }
                        let size = before + bytes.len() as u64;
                        return self.upload_in_chunks(spool.into_blocks(), size, pieces, &folder, &patience).await;
                    }
                    patience.progress.set(format!("{} bytes are ready to be sent to {}", spool.size(), self.show()));
                }
                Some(Piece::End) => break,
                None => return Err(patience.trouble(BROKE_OFF, true)),
            }
        }
        let stored = spool.into_stored().await.map_err(|trouble| patience.trouble(&trouble.reason, false))?;
        loop {
            let why = match Box::pin(self.put(stored.outgoing(), &patience)).await {
                Ok(reply) if matches!(reply.status, 200..=299) => return Ok(stored.size()),
                Ok(reply) => patience.judge(self.refusal(&reply).into())?,
                Err(failure) => patience.judge(failure)?,
            };
            patience.wait(&why).await;
        }
    }

    /// Without a place to collect it: as it comes, and only once.
    async fn upload_in_chunks(
        &self,
        first: Vec<Bytes>,
        size: u64,
        mut pieces: mpsc::Receiver<Piece>,
        folder: &std::path::Path,
        patience: &Patience,
    ) -> Result<u64, Trouble> {
        let (sender, receiver) = mpsc::channel(1);
        let mut sent = size;
        let forward = async move {
            while let Some(piece) = pieces.recv().await {
                if let Piece::Bytes(bytes) = &piece {
                    sent += bytes.len() as u64;
                }
                let ended = piece == Piece::End;
                if sender.send(piece).await.is_err() || ended {
                    break;
                }
            }
            sent
        };
        let put = Box::pin(self.put(Outgoing::channel(first, receiver, None), patience));
        let (reply, sent) = tokio::join!(put, forward);
        let reply = reply.map_err(|failure| patience.trouble(&failure.reason, failure.may_pass))?;
        match reply.status {
            200..=299 => Ok(sent),
            // RFC 9110 section 15.5.12, and what S3 says to a chunked body.
            411 | 501 => {
                let why = format!(
                    "status {}: the server wants to know the length beforehand, and {} takes no file: \
                     name a folder with room in `spool`",
                    reply.status,
                    folder.display()
                );
                Err(patience.trouble(&why, false))
            }
            _ => {
                let refusal = self.refusal(&reply);
                Err(patience.trouble(&refusal.reason, refusal.may_pass))
            }
        }
    }

    async fn put(&self, body: Outgoing, patience: &Patience) -> Result<Reply, Failure> {
        let transfer = Transfer {
            method: self.method.clone(),
            path: &self.request.url.path,
            headers: Vec::new(),
            body,
            wanted: Wanted::Start(crate::client::MOST_KEPT),
            stall: self.stall,
        };
        let tell = |text: &str| patience.tell(text);
        self.request.transfer(transfer, &mut Kept::default(), &patience.processes, &tell).await
    }

    /// Reads the URL once.
    pub(super) async fn get(
        &self,
        headers: Vec<(HeaderName, HeaderValue)>,
        wanted: Wanted<'_>,
        kept: &mut Kept,
        patience: &Patience,
    ) -> Result<Reply, Failure> {
        let transfer = Transfer {
            method: Method::GET,
            path: &self.request.url.path,
            headers,
            body: Outgoing::memory([]),
            wanted,
            stall: self.stall,
        };
        let tell = |text: &str| patience.tell(text);
        self.request.transfer(transfer, kept, &patience.processes, &tell).await
    }

    /// What a refusal means, and how to mend it.
    pub(super) fn refusal(&self, reply: &Reply) -> Refusal {
        let status = reply.status;
        let body = String::from_utf8_lossy(&reply.body);
        let code = printable(&xml::text(&body, "Code").unwrap_or_default(), 60);
        let message = xml::text(&body, "Message").filter(|_| !code.is_empty());
        let said = match message {
            Some(message) => message,
            // The long form of a store's answer repeats the signature.
            None if body.trim_start().starts_with('<') => String::new(),
            None => body.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_string(),
        };
        let help = match (code.as_str(), status) {
            ("AccessDenied", 403) if said.to_ascii_lowercase().contains("expire") => {
                "the URL has expired: give a new one".into()
            }
            ("SignatureDoesNotMatch", _) => {
                "the URL's signature is not for this request: it must be made for this method, and `headers` must be \
                 those that were signed"
                    .into()
            }
            ("RequestTimeTooSkewed", _) => "the URL is from the future: a clock is wrong".into(),
            (_, 411) => "the server wants to know the length".into(),
            _ => printable(&self.without_secrets(said, reply), 120),
        };
        let passes = ["SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout"];
        let may_pass =
            matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 520..=530) || passes.contains(&code.as_str());
        let mut reason = format!("status {status}");
        for (before, part) in [(" ", &code), (": ", &help)] {
            if !part.is_empty() {
                reason = format!("{reason}{before}{part}");
            }
        }
        Refusal { reason, may_pass, code }
    }

    fn without_secrets(&self, mut text: String, reply: &Reply) -> String {
        let query = self.request.url.path.split_once('?').map_or("", |(_, query)| query);
        for secret in secrets_of(query).iter().chain(&reply.secrets) {
            text = text.replace(secret.as_str(), "***");
        }
        text
    }
}

/// Values of a query that nobody else should see, as they stand in it and as they are meant: all but what only says how
/// and when it was signed.
fn secrets_of(query: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let secret = pairs.filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        let signing = name.starts_with("x-amz-") || name.starts_with("x-goog-");
        !signing || ["signature", "credential", "token"].iter().any(|word| name.contains(word))
    });
    let mut values: Vec<String> = secret.flat_map(|(_, value)| [value.to_string(), decode(value)]).collect();
    values.retain(|value| value.len() >= SHORTEST_SECRET);
    values.dedup();
    values
}

/// Undoes `%20`; what is no such escape stays.
fn decode(text: &str) -> String {
    let (mut rest, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
    while let [first, after @ ..] = rest {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        let escape = (*first == b'%').then(|| digit(0).zip(digit(1))).flatten();
        let (byte, after) = match escape {
            // Two digits are below 256.
            Some((high, low)) => (u8::try_from(high * 16 + low).unwrap_or_default(), &after[2..]),
            None => (*first, after),
        };
        out.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_is_secret_in_a_query() {
        let query =
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F2026&X-Amz-Signature=0123abcd&sig=a%2Bbcde&x=1";
        assert_eq!(secrets_of(query), ["AKID%2F2026", "AKID/2026", "0123abcd", "a%2Bbcde", "a+bcde"]);
        assert_eq!(secrets_of(""), [""; 0]);
    }

    #[test]
    fn decodes() {
        for (text, plain) in
            [("a%2Fb%3d", "a/b="), ("%", "%"), ("%2", "%2"), ("%zz%41", "%zzA"), ("%C3%BC", "ü"), ("", "")]
        {
            assert_eq!(decode(text), plain, "{text}");
        }
    }
}

//! S3-compatible stores: objects under a prefix of a bucket, large ones in parts, each request signed with the keys in
//! the environment. What is common to all stores is in the parent room.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use hyper::{
    Method,
    header::{ETAG, HeaderName, HeaderValue},
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    Io, Patience, Piece, Refusal, RemoteListed, STALL,
    sign::{Signed, Signer, encode, encode_query, hex},
    spool::{Bounds, IN_MEMORY, Spool, Stored},
    xml,
};
use crate::{
    client::{
        Failure, Request,
        options::Options,
        transfer::{BROKE_OFF, Kept, Outgoing, Reply, Transfer, Wanted},
        url::Url,
    },
    problem::Scope,
    state::{
        Trouble,
        name::{SnapshotName, is_unusable, show_time},
    },
    value::printable,
};

const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// Where everybody's tools look for a store that is not Amazon's.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// What stores that know no regions take.
const REGION: &str = "us-east-1";

/// A list of a thousand keys, each with its size and time, has half of this; more are not in one page.
const LONGEST_LIST: usize = 4 << 20;
/// So many pages of a thousand: more snapshots than anybody keeps.
const MOST_PAGES: usize = 1000;
/// Completing an upload may take minutes, though the store sends a blank now and then: "CompleteMultipartUpload" in the
/// API reference of Amazon S3.
const COMPLETING: Duration = Duration::from_secs(60);
/// For putting away an upload that failed: nobody waits for it.
const ABORTING: Duration = Duration::from_secs(3);
/// An unfinished upload that is older belongs to nobody any more.
const LEFT_AFTER: u64 = 24 * 60 * 60;
/// A store takes 10,000 parts. The first 8,000 of 8 MiB, from memory, hold 62 GiB; the rest, from a file, make it a
/// terabyte.
const PARTS_IN_MEMORY: u32 = 8000;
const LARGE_PART: u64 = 512 << 20;
const MOST_PARTS: u32 = 10_000;

/// Where the objects are, as typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct S3Options {
    /// The URL of the store; Amazon's for the region if not given.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// `http://store/bucket/key` instead of `http://bucket.store/key`.
    pub path_style: Option<bool>,
    /// Of its TLS and its headers.
    pub request: Options,
}

/// What comes from outside: the environment and the clock.
#[derive(Clone, Copy)]
pub struct World {
    pub variable: fn(&str) -> Option<String>,
    pub now: fn() -> SystemTime,
}

impl Default for World {
    fn default() -> Self {
        Self { variable: |name| std::env::var(name).ok().filter(|value| !value.is_empty()), now: SystemTime::now }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// A prefix of a bucket of a store.
#[derive(Clone, Debug)]
pub struct S3 {
    /// To the bucket; each question has a path of its own.
    request: Request,
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    region: String,
    /// What stands before a key in the path, encoded.
    base: String,
    pub world: World,
    pub stall: Duration,
    /// A folder for what has to wait until it is sent.
    pub spool: Option<PathBuf>,
}

/// Part of an object, or all of it.
struct Part {
    stored: Stored,
    hash: String,
    last: bool,
}

/// One question to the store.
struct Question<'a> {
    method: Method,
    key: &'a str,
    query: &'a [(&'a str, &'a str)],
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Outgoing,
    hash: &'a str,
    stall: Duration,
}

impl<'a> Question<'a> {
    fn new(method: Method, key: &'a str, query: &'a [(&'a str, &'a str)], stall: Duration) -> Self {
        Self { method, key, query, headers: Vec::new(), body: Outgoing::memory([]), hash: EMPTY, stall }
    }
}

/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl S3 {
    /// Gives meaning to `s3://bucket/prefix` and its options; `None` when at least one problem was noted.
    pub fn mean(target: &str, options: S3Options, world: World, scope: &mut Scope<'_>) -> Option<Self> {
        let before = scope.problems.len();
        let first = |names: &[&str]| names.iter().find_map(|name| (world.variable)(name));
        let rest = target.strip_prefix("s3://").unwrap_or(target);
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) {
            let what = format!("`{}` is not the name of a bucket", bucket.escape_default());
            scope.problem("", what, Some("write it as \"s3://bucket/prefix\"".into()));
        }
        if prefix.chars().any(char::is_control) || prefix.split('/').any(|part| matches!(part, "." | "..")) {
            scope.problem("", "the prefix holds `.`, `..` or a control character", None);
        }
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let region = options.region.or_else(|| first(&REGIONS)).unwrap_or_else(|| REGION.into());
        if region.is_empty() || !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            scope.problem("region", format!("`{}` is not a region", region.escape_default()), None);
        }
        let given = options.endpoint.or_else(|| first(&ENDPOINTS));
        // A bucket with a dot has no certificate of its own.
        let path_style = options.path_style.unwrap_or(given.is_some() || bucket.contains('.'));
        let endpoint = given.unwrap_or_else(|| {
            let china = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://s3.{region}.amazonaws.com{china}")
        });
        if options.request.method.is_some() || options.request.body.is_some() || options.request.body_file.is_some() {
            scope.problem("", "`method`, `body` and `body-file` are not for a store", Some("leave them out".into()));
        }
        let mut request = Request::mean("endpoint", &endpoint, options.request, scope)?;
        request.refuse_redirects();
        if request.url.path.contains('?') {
            scope.problem("endpoint", "it has a query", Some("write only \"https://host:port\"".into()));
        }
        let mut base = request.url.path.trim_end_matches('/').to_string();
        if path_style {
            base = format!("{base}/{}", encode(bucket, false));
        } else {
            match Url::parse(&format!("http://{bucket}.{}/", request.url.host)) {
                Ok(url) if request.url.host.parse::<std::net::IpAddr>().is_err() => request.url.host = url.host,
                _ => scope.problem("path-style", "the bucket cannot be a part of the endpoint's name", None),
            }
        }
        (scope.problems.len() == before).then(|| Self {
            request,
            bucket: bucket.into(),
            prefix,
            region,
            base,
            world,
            stall: STALL,
            spool: None,
        })
    }

    /// `s3://bucket/prefix`.
    pub fn show(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix.trim_end_matches('/'))
    }

    /// What is left of a key without the prefix.
    pub(super) fn leaf<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(self.prefix.as_str()).unwrap_or(key)
    }

    fn patience(&self, what: &str, io: &Io) -> Patience {
        Patience::new(format!("{}: {what}", self.show()), io)
    }

    fn now(&self) -> u64 {
        (self.world.now)().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Asks once.
    async fn ask(
        &self,
        question: Question<'_>,
        wanted: Wanted<'_>,
        kept: &mut Kept,
        patience: &Patience,
    ) -> Result<Reply, Failure> {
        let variable = |name: &str| {
            (self.world.variable)(name).ok_or_else(|| Failure {
                reason: format!("{name} is not in the environment; set {KEY_ID} and {SECRET}, from a Secret"),
                may_pass: false,
            })
        };
        let (key_id, secret, token) = (variable(KEY_ID)?, variable(SECRET)?, (self.world.variable)(TOKEN));
        let Question { method, key, query, mut headers, body, hash, stall } = question;
        let path = match (self.base.as_str(), key) {
            (base, "") if !base.is_empty() => base.to_string(),
            (base, key) => format!("{base}/{}", encode(key, true)),
        };
        let query = encode_query(query);
        let signer = Signer {
            key_id: &key_id,
            secret: &secret,
            token: token.as_deref(),
            region: &self.region,
            time: self.now(),
        };
        let host = self.request.url.authority();
        let signed = Signed { method: method.as_str(), host: &host, path: &path, query: &query, hash };
        headers.extend(signer.headers(&signed).ok_or_else(|| Failure {
            reason: format!("{KEY_ID} or {TOKEN} holds a line break or a control character"),
            may_pass: false,
        })?);
        let whole = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
        let transfer = Transfer { method, path: &whole, headers, body, wanted, stall };
        let tell = |text: &str| patience.tell(text);
        let mut reply = Box::pin(self.request.transfer(transfer, kept, &patience.processes, &tell)).await?;
        reply.secrets.push(secret);
        reply.secrets.extend(token);
        Ok(reply)
    }

    /// Asks until there is an answer that will not change.
    async fn insist<'a>(
        &self,
        make: impl Fn() -> Question<'a>,
        most: usize,
        kept: &mut Kept,
        patience: &mut Patience,
    ) -> Result<Result<Reply, Refusal>, Trouble> {
        loop {
            let stood = kept.stands();
            let why = match self.ask(make(), Wanted::Start(most), kept, patience).await {
                // Completing and copying may fail after the status has been sent.
                Ok(reply) if matches!(reply.status, 200..=299) && !starts_with_error(&reply.body) => {
                    return Ok(Ok(reply));
                }
                Ok(reply) => {
                    let refusal = self.refusal(&reply);
                    if !refusal.may_pass {
                        return Ok(Err(refusal));
                    }
                    refusal.reason
                }
                Err(failure) if !failure.may_pass => return Err(patience.trouble(&failure.reason, false)),
                Err(failure) if stood && !failure.reason.starts_with("stalled") => {
                    patience.again(&failure.reason);
                    continue;
                }
                Err(failure) => failure.reason,
            };
            patience.wait(&why).await;
        }
    }

    /// Stores an object; its bytes come through the channel.
    ///
    /// # Errors
    /// Why it is not there.
    pub async fn upload(&self, name: &SnapshotName, pieces: mpsc::Receiver<Piece>, io: &Io) -> Result<u64, Trouble> {
        let key = format!("{}{name}", self.prefix);
        let mut cut = Cut { pieces, rest: Bytes::new(), spool: self.spool.clone() };
        let first = cut.part(IN_MEMORY as u64).await.map_err(|why| self.patience("upload", io).trouble(&why, true))?;
        if first.last {
            return self.put(&key, &first, io).await;
        }
        self.upload_in_parts(&key, first, cut, io).await
    }

    /// Stores an object that is in memory.
    async fn put(&self, key: &str, whole: &Part, io: &Io) -> Result<u64, Trouble> {
        let mut patience = self.patience(self.leaf(key), io);
        let make = || Question {
            body: whole.stored.outgoing(),
            hash: &whole.hash,
            ..Question::new(Method::PUT, key, &[], self.stall)
        };
        let answer = self.insist(make, SHORT, &mut Kept::default(), &mut patience).await?;
        answer.map_err(|refusal| patience.trouble(&refusal.reason, false))?;
        Ok(whole.stored.size())
    }

    async fn upload_in_parts(&self, key: &str, first: Part, mut cut: Cut, io: &Io) -> Result<u64, Trouble> {
        let mut patience = self.patience("begin of the upload", io);
        let mut kept = Kept::default();
        let make = || Question::new(Method::POST, key, &[("uploads", "")], self.stall);
        let answer = self.insist(make, SHORT, &mut kept, &mut patience).await?;
        let reply = answer.map_err(|refusal| patience.trouble(&refusal.reason, false))?;
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        let id = xml::text(&body, "UploadId").filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| patience.trouble("the answer has no UploadId: is it an S3 store?", false))?;
        let mut unfinished =
            Unfinished { s3: self.clone(), key: key.into(), id: id.clone(), io: io.clone(), armed: true };

        let outcome = Box::pin(self.send_parts(key, &id, first, &mut cut, &mut kept, io)).await;
        if outcome.is_err() {
            unfinished.abort().await;
        }
        unfinished.armed = false;
        outcome
    }

    async fn send_parts(
        &self,
        key: &str,
        id: &str,
        first: Part,
        cut: &mut Cut,
        kept: &mut Kept,
        io: &Io,
    ) -> Result<u64, Trouble> {
        let (mut next, mut number, mut size, mut tags) = (Some(first), 0u32, 0, Vec::new());
        while let Some(part) = next.take() {
            number += 1;
            if number > MOST_PARTS {
                return Err(Trouble::for_good(format!("{}: it is larger than a terabyte", self.show())));
            }
            // The next part is filled while this one is sent.
            let fill = async {
                let length = if number < PARTS_IN_MEMORY { IN_MEMORY as u64 } else { LARGE_PART };
                if part.last {
                    return Ok(None);
                }
                cut.part(length).await.map(Some).map_err(|why| self.patience("upload", io).trouble(&why, true))
            };
            let send = Box::pin(self.send_part(key, id, number, &part, kept, io));
            let (tag, filled) = tokio::try_join!(send, fill)?;
            tags.push(tag);
            size += part.stored.size();
            next = filled;
        }
        self.complete(key, id, &tags, size, kept, io).await?;
        Ok(size)
    }

    async fn send_part(
        &self,
        key: &str,
        id: &str,
        number: u32,
        part: &Part,
        kept: &mut Kept,
        io: &Io,
    ) -> Result<String, Trouble> {
        let mut patience = self.patience(&format!("part {number}"), io);
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", id)];
        let make = || Question {
            body: part.stored.outgoing(),
            hash: &part.hash,
            ..Question::new(Method::PUT, key, &query, self.stall)
        };
        let answer = self.insist(make, SHORT, kept, &mut patience).await?;
        let reply = answer.map_err(|refusal| patience.trouble(&refusal.reason, false))?;
        let tag = reply.header(&ETAG).map(String::from);
        let tag = tag.ok_or_else(|| patience.trouble("the answer has no ETag: is it an S3 store?", false))?;
        // Until the next one is there.
        patience.tell("stored");
        Ok(tag)
    }

    async fn complete(
        &self,
        key: &str,
        id: &str,
        tags: &[String],
        size: u64,
        kept: &mut Kept,
        io: &Io,
    ) -> Result<(), Trouble> {
        let mut body = String::from("<CompleteMultipartUpload>");
        for (index, tag) in tags.iter().enumerate() {
            let (number, tag) = (index + 1, xml::escape(tag));
            body.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"));
        }
        body.push_str("</CompleteMultipartUpload>");
        let (hash, body) = (hex(&Sha256::digest(body.as_bytes())), Bytes::from(body));
        let mut patience = self.patience("end of the upload", io);
        let query = [("uploadId", id)];
        let make = || Question {
            body: Outgoing::memory([body.clone()]),
            hash: &hash,
            ..Question::new(Method::POST, key, &query, self.stall.max(COMPLETING))
        };
        match self.insist(make, SHORT, kept, &mut patience).await? {
            Ok(_) => Ok(()),
            // Perhaps the answer to an earlier attempt was lost, and the upload has become the object; stores differ in
            // what they say of an upload that is no more.
            Err(refusal) if patience.failures > 0 => {
                let found = self.list_keys(key, io).await?;
                let there = found.iter().any(|(found, length)| found == key && *length == size);
                if there { Ok(()) } else { Err(patience.trouble(&refusal.reason, refusal.code == "NoSuchUpload")) }
            }
            Err(refusal) => Err(patience.trouble(&refusal.reason, false)),
        }
    }

    /// The snapshots under the prefix, newest first.
    ///
    /// # Errors
    /// Why there is no list.
    pub async fn list(&self, state: Option<&str>, io: &Io) -> Result<Vec<RemoteListed>, Trouble> {
        let prefix = match state {
            Some(state) if is_unusable(state).is_none() => format!("{}{state}.", self.prefix),
            _ => self.prefix.clone(),
        };
        let mut listed = Vec::new();
        for (key, size) in self.list_keys(&prefix, io).await? {
            let name = key.strip_prefix(self.prefix.as_str()).and_then(SnapshotName::parse);
            // `a.b` begins with `a.`, and is another state.
            if let Some(name) = name.filter(|name| state.is_none_or(|state| name.state == state)) {
                listed.push((name, key, size));
            }
        }
        listed.sort_by(|(one, ..), (other, ..)| {
            one.state.cmp(&other.state).then_with(|| other.order().cmp(&one.order()))
        });
        Ok(listed
            .into_iter()
            .map(|(name, key, size)| RemoteListed { name: Some(name), key, size: Some(size) })
            .collect())
    }

    async fn list_keys(&self, prefix: &str, io: &Io) -> Result<Vec<(String, u64)>, Trouble> {
        let mut patience = self.patience("list", io);
        let (mut kept, mut keys, mut token) = (Kept::default(), Vec::new(), String::new());
        for _ in 0..MOST_PAGES {
            // Only what is directly under it, not in further folders.
            let mut query = vec![("list-type", "2"), ("delimiter", "/"), ("prefix", prefix)];
            if !token.is_empty() {
                query.push(("continuation-token", &token));
            }
            let make = || Question::new(Method::GET, "", &query, self.stall);
            let answer = self.insist(make, LONGEST_LIST, &mut kept, &mut patience).await?;
            let reply = answer.map_err(|refusal| patience.trouble(&refusal.reason, false))?;
            let body = String::from_utf8_lossy(&reply.body);
            if !body.contains("<ListBucketResult") {
                return Err(patience.trouble("the answer is no list of a bucket: is it an S3 store?", false));
            }
            for object in xml::elements(&body, "Contents") {
                let size = xml::text(object, "Size").and_then(|size| size.trim().parse().ok());
                if let (Some(key), Some(size)) = (xml::text(object, "Key"), size) {
                    keys.push((key, size));
                }
            }
            let next = xml::text(&body, "NextContinuationToken").filter(|next| !next.is_empty() && *next != token);
            match next {
                Some(next) if xml::text(&body, "IsTruncated").as_deref() == Some("true") => token = next,
                _ => return Ok(keys),
            }
        }
        Err(patience.trouble("it has more than a million objects: give the snapshots a prefix of their own", false))
    }

    /// Reads an object once.
    pub(super) async fn get(
        &self,
        key: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        wanted: Wanted<'_>,
        kept: &mut Kept,
        patience: &Patience,
    ) -> Result<Reply, Failure> {
        let question = Question { headers, ..Question::new(Method::GET, key, &[], self.stall) };
        self.ask(question, wanted, kept, patience).await
    }

    /// Deletes an object; one that is not there is deleted.
    ///
    /// # Errors
    /// Why it is still there.
    pub async fn delete(&self, key: &str, io: &Io) -> Result<(), Trouble> {
        let mut patience = self.patience(&format!("delete {}", self.leaf(key)), io);
        let make = || Question::new(Method::DELETE, key, &[], self.stall);
        match self.insist(make, SHORT, &mut Kept::default(), &mut patience).await? {
            Err(refusal) if refusal.code != "NoSuchKey" => Err(patience.trouble(&refusal.reason, false)),
            _ => Ok(()),
        }
    }

    /// Aborts uploads of this state that are older than a day, if the store tells of them. One attempt: a store that
    /// does not has rules for it ("AbortIncompleteMultipartUpload" in a lifecycle configuration).
    pub(super) async fn abort_left(&self, state: &str, io: &Io) {
        let quiet = Io { processes: io.processes.clone(), progress: crate::step::Progress::default() };
        let patience = self.patience("uploads", &quiet);
        let mut kept = Kept::default();
        let prefix = format!("{}{state}.", self.prefix);
        let query = [("uploads", ""), ("prefix", &prefix)];
        let question = Question::new(Method::GET, "", &query, self.stall);
        let Ok(reply) = self.ask(question, Wanted::Start(LONGEST_LIST), &mut kept, &patience).await else { return };
        if reply.status != 200 {
            return;
        }
        let before = show_time(self.now().saturating_sub(LEFT_AFTER));
        let body = String::from_utf8_lossy(&reply.body);
        for upload in xml::elements(&body, "Upload") {
            let [Some(key), Some(id), Some(begun)] =
                ["Key", "UploadId", "Initiated"].map(|name| xml::text(upload, name))
            else {
                continue;
            };
            let name = key.strip_prefix(self.prefix.as_str()).and_then(SnapshotName::parse);
            // Times of one form order as text does.
            if name.is_some_and(|name| name.state == state)
                && begun.len() >= 19
                && begun.as_bytes()[..19] < before.as_bytes()[..19]
            {
                let _ = self.abort(&key, &id, &mut Kept::default(), &patience).await;
            }
        }
    }

    async fn abort(&self, key: &str, id: &str, kept: &mut Kept, patience: &Patience) -> Result<Reply, Failure> {
        let query = [("uploadId", id)];
        let question = Question::new(Method::DELETE, key, &query, self.stall);
        self.ask(question, Wanted::Start(SHORT), kept, patience).await
    }

    /// What a refusal means, and how to mend it.
    pub(super) fn refusal(&self, reply: &Reply) -> Refusal {
        let body = String::from_utf8_lossy(&reply.body);
        let (status, code) = (reply.status, xml::text(&body, "Code").unwrap_or_default());
        let code = printable(&code, 60);
        let region = reply.header(&BUCKET_REGION).map(String::from).or_else(|| xml::text(&body, "Region"));
        let region = region.filter(|region| *region != self.region).map(|region| printable(&region, 40));
        let help = match (code.as_str(), status, region) {
            (_, 301 | 307 | 400, Some(region)) => format!("the bucket is in region {region}: set `region` to it"),
            ("NoSuchBucket", ..) => "there is no such bucket: create it, or correct its name or the endpoint".into(),
            ("InvalidAccessKeyId", ..) => format!("the store does not know this {KEY_ID}"),
            ("SignatureDoesNotMatch", ..) => {
                format!("{SECRET} does not belong to {KEY_ID}, or `region` ({}) is not the store's", self.region)
            }
            ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", ..) => {
                format!("{TOKEN} is not valid any more: renew it together with the keys")
            }
            ("RequestTimeTooSkewed" | "RequestExpired", ..) => {
                format!("the clock of this node is wrong: it says {}", show_time(self.now()))
            }
            ("AccessDenied" | "AllAccessDisabled", ..) | ("", 401 | 403, _) => {
                "the keys may not do this: they need s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, \
                 s3:DeleteObject and s3:AbortMultipartUpload on its objects"
                    .into()
            }
            ("PermanentRedirect" | "TemporaryRedirect", ..) | ("", 301 | 302 | 303 | 307 | 308, _) => {
                "the bucket is elsewhere: correct `endpoint` or `region`".into()
            }
            _ => {
                let mut message = xml::text(&body, "Message").unwrap_or_default();
                for secret in &reply.secrets {
                    message = message.replace(secret.as_str(), "***");
                }
                printable(&message, 120)
            }
        };
        let passes = ["SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"];
        // A 200 whose body is an error is what completing an upload gives when it failed on the way.
        let may_pass = matches!(status, 200..=299 | 408 | 425 | 429 | 500 | 502..=504 | 520..=530)
            || passes.contains(&code.as_str())
            || code.contains("Throttl");
        let mut reason = format!("status {status}");
        for (before, part) in [(" ", &code), (": ", &help)] {
            if !part.is_empty() {
                reason = format!("{reason}{before}{part}");
            }
        }
        // While it is tried again only what happened is of interest.
        if may_pass && !code.is_empty() {
            reason = format!("status {status} {code}");
        }
        Refusal { reason, may_pass, code }
    }
}

/// Of answers that say little.
const SHORT: usize = 64 << 10;

fn starts_with_error(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&body[..body.len().min(1024)]);
    let start = text.trim_start();
    let start = start.strip_prefix("<?xml").and_then(|rest| Some(rest.split_once("?>")?.1)).unwrap_or(start);
    start.trim_start().starts_with("<Error")
}

/// Cuts a stream into parts.
struct Cut {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    /// Where a part waits that is too large for memory.
    spool: Option<PathBuf>,
}

impl Cut {
    /// The next part, of this length unless it is the last. An end that falls on a border makes the part before it the
    /// last one.
    async fn part(&mut self, length: u64) -> Result<Part, String> {
        let memory = IN_MEMORY;
        let mut spool = Spool::new(Bounds { memory, folder: self.spool.clone(), most: u64::MAX });
        let mut hash = Sha256::new();
        let last = loop {
            if self.rest.is_empty() {
                match self.pieces.recv().await {
                    Some(Piece::Bytes(bytes)) => self.rest = bytes,
                    Some(Piece::End) => break true,
                    None => return Err(BROKE_OFF.into()),
                }
                continue;
            }
            let room = usize::try_from(length.saturating_sub(spool.size())).unwrap_or(usize::MAX);
            if room == 0 {
                break false;
            }
            let now = self.rest.split_to(self.rest.len().min(room));
            hash.update(&now);
            spool.push(&now).await.map_err(|trouble| trouble.reason)?;
        };
        let stored = spool.into_stored().await.map_err(|trouble| trouble.reason)?;
        Ok(Part { stored, hash: hex(&hash.finalize()), last })
    }
}

/// An upload that is not complete. Its parts cost money until it is aborted.
struct Unfinished {
    s3: S3,
    key: String,
    id: String,
    io: Io,
    armed: bool,
}

impl Unfinished {
    /// As well as can be, and not for long.
    async fn abort(&mut self) {
        self.armed = false;
        abort(self.s3.clone(), self.key.clone(), self.id.clone(), self.io.processes.clone()).await;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.armed && tokio::runtime::Handle::try_current().is_ok() {
            crate::task::spawn(abort(self.s3.clone(), self.key.clone(), self.id.clone(), self.io.processes.clone()));
        }
    }
}

async fn abort(s3: S3, key: String, id: String, processes: crate::process::Processes) {
    // The reason of the failure must stay in the step's own progress.
    let quiet = Io { processes, progress: crate::step::Progress::default() };
    let patience = s3.patience("abort", &quiet);
    let mut kept = Kept::default();
    let _ = tokio::time::timeout(ABORTING, Box::pin(s3.abort(&key, &id, &mut kept, &patience))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(target: &str, options: S3Options, variable: fn(&str) -> Option<String>) -> Result<S3, Vec<String>> {
        let (mut problems, mut secrets) = (Vec::new(), Vec::new());
        let mut scope = Scope::new("f", &mut secrets, &mut problems);
        let meant = S3::mean(target, options, World { variable, ..World::default() }, &mut scope);
        meant.ok_or_else(|| problems.iter().map(ToString::to_string).collect())
    }

    fn options(endpoint: &str, path_style: Option<bool>) -> S3Options {
        let endpoint = Some(endpoint).filter(|endpoint| !endpoint.is_empty()).map(String::from);
        S3Options { endpoint, path_style, ..S3Options::default() }
    }

    #[test]
    fn targets_and_where_they_are() {
        let environment: fn(&str) -> Option<String> = |name| match name {
            "AWS_ENDPOINT_URL" => Some("http://from-env:9000".into()),
            "AWS_DEFAULT_REGION" => Some("eu-central-1".into()),
            _ => None,
        };
        for (target, endpoint, path_style, shown, host, base, prefix) in [
            ("s3://b/p/q/", "http://store:9000", None, "s3://b/p/q", "store:9000", "/b", "p/q/"),
            ("s3://b", "http://store:9000/", None, "s3://b/", "store:9000", "/b", ""),
            ("s3://b/p", "http://store/s3/", None, "s3://b/p", "store", "/s3/b", "p/"),
            ("s3://b/p", "http://store:9000", Some(false), "s3://b/p", "b.store:9000", "", "p/"),
            ("s3://b.c/p", "", None, "s3://b.c/p", "from-env:9000", "/b.c", "p/"),
        ] {
            let s3 = mean(target, options(endpoint, path_style), environment).expect(target);
            assert_eq!(s3.show(), shown);
            assert_eq!((s3.request.url.authority().as_str(), s3.base.as_str()), (host, base), "{target}");
            assert_eq!((s3.prefix.as_str(), s3.region.as_str()), (prefix, "eu-central-1"));
        }
        let own = |region: &str| S3Options { region: Some(region.into()), ..options("http://a", None) };
        assert_eq!(mean("s3://b", own("x-1"), environment).expect("a region").region, "x-1");
        assert_eq!(mean("s3://b", options("http://a", None), |_| None).expect("a default").region, REGION);
        for (target, options, problem) in [
            (
                "s3://",
                options("http://a", None),
                "f: `` is not the name of a bucket\n  help: write it as \"s3://bucket/prefix\"",
            ),
            ("s3://b/../c", options("http://a", None), "f: the prefix holds `.`, `..` or a control character"),
            ("s3://b", own("x/y"), "f: region: `x/y` is not a region"),
            (
                "s3://b",
                options("a:9000", None),
                "f: endpoint: this URL cannot be used: it is not a URL; write it as \
             \"http://host:port/path\"",
            ),
            (
                "s3://b",
                options("http://10.0.0.1", Some(false)),
                "f: path-style: the bucket cannot be a part of the \
             endpoint's name",
            ),
        ] {
            assert_eq!(mean(target, options, |_| None).map(|s3| s3.show()), Err(vec![problem.into()]), "{target}");
        }
    }

    #[test]
    fn an_error_in_a_success_is_seen() {
        for (body, expected) in [
            ("<Error><Code>x</Code></Error>", true),
            ("<?xml version=\"1.0\"?>\n\n <Error>", true),
            ("<CompleteMultipartUploadResult><Key>Error</Key>", false),
            ("", false),
            ("<?xml", false),
        ] {
            assert_eq!(starts_with_error(body.as_bytes()), expected, "{body}");
        }
    }

    #[tokio::test]
    async fn parts_have_their_length_and_large_ones_are_files() {
        let (sender, pieces) = mpsc::channel(100);
        for _ in 0..30 {
            sender.send(Piece::Bytes(vec![7; 1 << 20].into())).await.expect("taken");
        }
        sender.send(Piece::End).await.expect("taken");
        let mut cut = Cut { pieces, rest: Bytes::new(), spool: None };
        let mut found = Vec::new();
        for length in [IN_MEMORY as u64, 20 << 20, 100 << 20] {
            let part = cut.part(length).await.expect("a part");
            found.push((part.stored.size() >> 20, matches!(part.stored, Stored::File(..)), part.last));
        }
        assert_eq!(found, [(8, false, false), (20, true, false), (2, false, true)]);
        // Nothing comes any more, and nobody said that this is the end.
        drop(sender);
        assert!(cut.part(1).await.is_err());
    }
}

//! Who may trigger a hook. An open `GET /shutdown` on the pod's network is how CVE-2020-15127 let anybody drain
//! Contour's Envoys. The decision itself is pure; around it stand the token file and the gateway, which may change.

use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use subtle::ConstantTimeEq;
use tokio::{
    sync::{Mutex, oneshot},
    time,
};

use crate::{net::route, sys::file::read_small_regular, task};

/// No real token is longer (a service account's JWT has about 1.3 KB).
const LONGEST_TOKEN: usize = 4096;
/// A token file is read at most this often: a rotated token counts a second later, and a flood of wrong ones costs
/// one read.
const FRESH: Duration = Duration::from_secs(1);
/// A read that takes longer hangs (a dead network file system): the token known so far decides.
const SLOWEST_READ: Duration = Duration::from_secs(2);

/// Who may trigger hooks over TCP. Token and addresses must both hold where both are set; with neither, only an
/// explicit permission or a listener on loopback lets anybody in.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    pub token: Option<TokenSource>,
    pub allow_from: Option<Vec<Source>>,
    pub allow_unauthenticated: bool,
    pub listener_is_loopback: bool,
}

/// Where the token comes from.
#[derive(Clone)]
pub enum TokenSource {
    Value(String),
    /// Read again when it is used, since mounted secrets rotate.
    File(TokenFile),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::File(file) => write!(f, "File({})", file.path.display()),
        }
    }
}

/// An entry of `allow-from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Network(IpNet),
    /// The default routes' gateways at the time of the call.
    Gateway,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "gateway" {
            return Ok(Self::Gateway);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical().into()));
        }
        let network = text.parse::<IpNet>().map_err(|_| {
            format!("`{text}` is not an address, a network (\"10.0.0.0/8\", \"fd00::/8\") or \"gateway\"")
        })?;
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8: peers are compared in their canonical form.
        Ok(Self::Network(match (network.addr().to_canonical(), network.prefix_len()) {
            (address @ IpAddr::V4(_), length) if length >= 96 && matches!(network, IpNet::V6(_)) => {
                IpNet::new(address, length - 96).unwrap_or(network)
            }
            _ => network,
        }))
    }
}

/// Why a trigger was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The peer is not in `allow-from`.
    Address,
    /// No right is configured that could admit anybody.
    NoRight,
    TokenMissing,
    TokenWrong,
    /// The agent does not know its own token.
    TokenUnknown(String),
}

impl Refusal {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Address | Self::NoRight => 403,
            Self::TokenMissing | Self::TokenWrong => 401,
            Self::TokenUnknown(_) => 503,
        }
    }
    /// What the caller is told: nothing that helps to guess.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Address => "this address may not trigger hooks",
            Self::NoRight => "nobody may trigger hooks here",
            Self::TokenMissing => "a bearer token is needed",
            Self::TokenWrong => "the bearer token is not the right one",
            Self::TokenUnknown(_) => "the token cannot be read now",
        }
    }
    /// What the log tells the operator to do.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Address => "if this is the kubelet, add its address to allow-from under [server]",
            Self::NoRight => "set token-file, token-env, allow-from or allow-unauthenticated under [server]",
            Self::TokenMissing => {
                "send `Authorization: Bearer …`; the kubelet does with httpHeaders in the hook's httpGet"
            }
            Self::TokenWrong => "give the hook's httpHeaders the same token as token-file or token-env",
            Self::TokenUnknown(_) => "token-file must be a readable regular file with the token in it, at most 4 KiB",
        }
    }
}

impl Rights {
    /// Decides on a call from `peer` with this `Authorization` header.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self, peer: IpAddr, authorization: Option<&[u8]>) -> Result<(), Refusal> {
        let presented = authorization.and_then(bearer);
        // The file is not even looked at for callers that present nothing.
        let expected = match (&self.token, presented) {
            (Some(TokenSource::Value(value)), Some(_)) => Some(Ok(value.as_bytes().into())),
            (Some(TokenSource::File(file)), Some(_)) => Some(file.current().await),
            (Some(_), None) | (None, _) => None,
        };
        self.decide(peer, presented, expected, route::default_gateways)
    }

    /// The decision, pure. `expected` is the token as far as it had to be known.
    fn decide(
        &self,
        peer: IpAddr,
        presented: Option<&[u8]>,
        expected: Option<Result<Arc<[u8]>, String>>,
        gateways: impl FnOnce() -> Vec<IpAddr>,
    ) -> Result<(), Refusal> {
        if self.token.is_none() && self.allow_from.is_none() {
            let open = self.allow_unauthenticated || self.listener_is_loopback;
            return if open { Ok(()) } else { Err(Refusal::NoRight) };
        }
        // The address first, so that a stranger learns nothing about the token.
        if let Some(sources) = &self.allow_from {
            // A dual-stack listener sees IPv4 peers as ::ffff:a.b.c.d.
            let peer = peer.to_canonical();
            let listed = |source: &Source| matches!(source, Source::Network(network) if network.contains(&peer));
            let is_gateway = || gateways().iter().any(|gateway| gateway.to_canonical() == peer);
            let admitted = sources.iter().any(listed) || sources.contains(&Source::Gateway) && is_gateway();
            if !admitted {
                return Err(Refusal::Address);
            }
        }
        if self.token.is_some() {
            let presented = presented.ok_or(Refusal::TokenMissing)?;
            let expected = expected.ok_or(Refusal::TokenMissing)?.map_err(Refusal::TokenUnknown)?;
            // Never true for an empty token: a file that was truncated must not open the door.
            if expected.is_empty() || !bool::from(presented.ct_eq(&expected)) {
                return Err(Refusal::TokenWrong);
            }
        }
        Ok(())
    }
}

/// The token in `Authorization: Bearer TOKEN`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// A file with a token in it; clones share what was read.
#[derive(Clone)]
pub struct TokenFile {
    path: PathBuf,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    token: Option<Result<Arc<[u8]>, String>>,
    /// When `token` was read, or given up.
    at: Option<Instant>,
    /// A read that hangs is waited for again, not started again: each holds a thread.
    reading: Option<oneshot::Receiver<io::Result<Vec<u8>>>>,
}

impl TokenFile {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), known: Arc::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token as it is in the file now, give or take a second.
    async fn current(&self) -> Result<Arc<[u8]>, String> {
        // One reader at a time: a flood must not start a thread for each of its requests.
        let mut known = self.known.lock().await;
        if let Some(token) = &known.token
            && known.at.is_some_and(|at| at.elapsed() < FRESH)
        {
            return token.clone();
        }
        let path = self.path.clone();
        let reading = known.reading.get_or_insert_with(|| task::blocking(move || read_token(&path)));
        let unreadable = |why: &dyn fmt::Display| Err(format!("{}: {why}", self.path.display()));
        let token = match time::timeout(SLOWEST_READ, reading).await {
            Ok(read) => {
                known.reading = None;
                match read {
                    Ok(Ok(token)) => Ok(token.into()),
                    Ok(Err(error)) => unreadable(&error),
                    Err(error) => unreadable(&error),
                }
            }
            Err(_) => match &known.token {
                Some(Ok(token)) => Ok(Arc::clone(token)),
                Some(Err(_)) | None => unreadable(&"reading it takes too long"),
            },
        };
        known.token = Some(token.clone());
        known.at = Some(Instant::now());
        token
    }
}

/// Reads a token: white space around it does not belong to it.
///
/// # Errors
/// Not a regular file, empty, longer than 4 KiB, or unreadable.
pub fn read_token(path: &Path) -> io::Result<Vec<u8>> {
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let text = read_small_regular(path, LONGEST_TOKEN)?;
    match text.trim_ascii() {
        [] => refuse("empty"),
        token => Ok(token.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rights(token: bool, from: Option<&[&str]>, unauthenticated: bool, loopback: bool) -> Rights {
        Rights {
            token: token.then(|| TokenSource::Value("secret".into())),
            allow_from: from.map(|list| list.iter().map(|text| text.parse().unwrap()).collect()),
            allow_unauthenticated: unauthenticated,
            listener_is_loopback: loopback,
        }
    }

    #[test]
    fn who_may_trigger() {
        use Refusal::{Address, NoRight, TokenMissing, TokenWrong};
        let token = || rights(true, None, false, false);
        let from = |list: &[&str]| rights(false, Some(list), false, false);
        let both = || rights(true, Some(&["10.0.0.0/8"]), false, false);
        for (name, rights, peer, header, expected) in [
            ("nothing set", rights(false, None, false, false), "10.0.0.1", None, Err(NoRight)),
            ("open on purpose", rights(false, None, true, false), "10.0.0.1", None, Ok(())),
            ("loopback", rights(false, None, false, true), "127.0.0.1", None, Ok(())),
            ("token on loopback all the same", rights(true, None, false, true), "127.0.0.1", None, Err(TokenMissing)),
            ("token though open", rights(true, None, true, false), "10.0.0.1", None, Err(TokenMissing)),
            ("right token", token(), "10.0.0.1", Some("Bearer secret"), Ok(())),
            ("scheme in any case", token(), "10.0.0.1", Some("bEARER  secret "), Ok(())),
            ("wrong token", token(), "10.0.0.1", Some("Bearer secreT"), Err(TokenWrong)),
            ("prefix of it", token(), "10.0.0.1", Some("Bearer secre"), Err(TokenWrong)),
            ("more than it", token(), "10.0.0.1", Some("Bearer secrets"), Err(TokenWrong)),
            ("empty", token(), "10.0.0.1", Some("Bearer "), Err(TokenWrong)),
            ("other scheme", token(), "10.0.0.1", Some("Basic secret"), Err(TokenMissing)),
            ("bare", token(), "10.0.0.1", Some("secret"), Err(TokenMissing)),
            ("no header", token(), "10.0.0.1", None, Err(TokenMissing)),
            ("listed network", from(&["10.0.0.0/8"]), "10.255.0.1", None, Ok(())),
            ("listed address", from(&["192.0.2.7"]), "192.0.2.7", None, Ok(())),
            ("its neighbour", from(&["192.0.2.7"]), "192.0.2.8", None, Err(Address)),
            ("mapped peer", from(&["10.0.0.0/8"]), "::ffff:10.0.0.1", None, Ok(())),
            ("mapped rule", from(&["::ffff:10.0.0.0/104"]), "10.9.9.9", None, Ok(())),
            ("mapped address", from(&["::ffff:10.0.0.9"]), "10.0.0.9", None, Ok(())),
            ("mapped stranger", from(&["10.0.0.0/8"]), "::ffff:11.0.0.1", None, Err(Address)),
            ("IPv6 network", from(&["fd00::/8"]), "fd12::1", None, Ok(())),
            ("all of IPv4 is not IPv6", from(&["0.0.0.0/0"]), "fd12::1", None, Err(Address)),
            ("gateway", from(&["gateway"]), "10.0.0.254", None, Ok(())),
            ("mapped gateway", from(&["gateway"]), "::ffff:10.0.0.254", None, Ok(())),
            ("IPv6 gateway", from(&["192.0.2.7", "gateway"]), "fd00::1", None, Ok(())),
            ("not the gateway", from(&["gateway"]), "10.0.0.253", None, Err(Address)),
            ("gateway not listed", from(&["192.0.2.7"]), "10.0.0.254", None, Err(Address)),
            ("empty list", from(&[]), "127.0.0.1", None, Err(Address)),
            ("empty list, though open", rights(false, Some(&[]), true, true), "127.0.0.1", None, Err(Address)),
            ("both hold", both(), "10.0.0.1", Some("Bearer secret"), Ok(())),
            ("address alone", both(), "10.0.0.1", None, Err(TokenMissing)),
            ("token alone", both(), "11.0.0.1", Some("Bearer secret"), Err(Address)),
        ] {
            let gateways = || vec!["10.0.0.254".parse().unwrap(), "fd00::1".parse().unwrap()];
            let presented = header.and_then(|header: &str| bearer(header.as_bytes()));
            let expected_token = rights.token.as_ref().map(|_| Ok(b"secret".as_slice().into()));
            let decided = rights.decide(peer.parse().unwrap(), presented, expected_token, gateways);
            assert_eq!(decided, expected, "{name}");
        }
    }

    #[test]
    fn an_empty_or_unknown_token_admits_nobody() {
        let rights = rights(true, None, true, true);
        let peer = "127.0.0.1".parse().unwrap();
        let decide = |expected| rights.decide(peer, Some(b""), expected, Vec::new);
        assert_eq!(decide(Some(Ok([].as_slice().into()))), Err(Refusal::TokenWrong));
        assert_eq!(decide(Some(Err("gone".into()))), Err(Refusal::TokenUnknown("gone".into())));
        assert_eq!(decide(None), Err(Refusal::TokenMissing));
    }

    #[test]
    fn a_wrong_source_is_explained() {
        for wrong in ["", "10.0.0.0/33", "gate way", "example.com", "10.0.0"] {
            let expected =
                format!("`{wrong}` is not an address, a network (\"10.0.0.0/8\", \"fd00::/8\") or \"gateway\"");
            assert_eq!(wrong.parse::<Source>(), Err(expected));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", TokenSource::Value("secret".into())), "Value(…)");
    }

    #[test]
    fn odd_token_files_are_refused_and_none_of_them_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = || read_token(&path).map_err(|error| error.to_string());
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(read(), Err("it is a FIFO, not a regular file".into()));
        fs::remove_file(&path).unwrap();
        for (text, expected) in [
            ("  secret\n", Ok(b"secret".to_vec())),
            (" \n", Err("empty".into())),
            (&"x".repeat(4097), Err("longer than 4096 bytes".into())),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(), expected);
        }
        assert_eq!(read_token(folder.path()).unwrap_err().to_string(), "it is a folder, not a regular file");
    }

    #[test]
    fn a_rotated_token_counts() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("token");
            let file = TokenFile::new(&path);
            let age = || async { file.known.lock().await.at = None };
            assert!(file.current().await.unwrap_err().contains("No such file"));
            fs::write(&path, "one\n").unwrap();
            age().await;
            assert_eq!(&*file.current().await.unwrap(), b"one");
            fs::write(&path, "two").unwrap();
            assert_eq!(&*file.current().await.unwrap(), b"one", "at most one read a second");
            age().await;
            assert_eq!(&*file.current().await.unwrap(), b"two");
        });
    }
}

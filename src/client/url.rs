//! Addresses of requests: `http://`, `https://` and `unix:///path/to.sock:/http/path` (also `http+unix://`). Pure.
//! A URL shows itself without its query, which may hold secrets, and never holds a user or a password.

use std::{fmt, net::Ipv6Addr, path::PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
    Unix,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub scheme: Scheme,
    /// A name or an address, IPv6 without its brackets; `localhost` for a Unix socket.
    pub host: String,
    pub port: u16,
    /// The socket, where the scheme is `Unix`.
    pub socket: PathBuf,
    /// Path and query, beginning with `/`.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Unix => write!(f, "unix://{}:", self.socket.display())?,
            Scheme::Http => write!(f, "http://{}", self.authority())?,
            Scheme::Https => write!(f, "https://{}", self.authority())?,
        }
        match self.path.split_once('?') {
            Some((path, _)) => write!(f, "{path}?…"),
            None => f.write_str(&self.path),
        }
    }
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating what may be secret in it.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("http+unix://")) {
            return parse_unix(rest);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
                return Err(format!("the scheme `{scheme}` is not one of http, https, unix"));
            }
            _ => return Err("it is not a URL; write it as \"http://host:port/path\"".into()),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("it holds a user or a password, which would end up in logs; use `basic` or `bearer`".into());
        }
        let (host, port) = split_host_port(authority)?;
        let port = port.unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
        Ok(Url { scheme, host, port, socket: PathBuf::new(), path: clean_path(path)? })
    }

    /// The value of the `Host` header, and what the scheme is followed by.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.scheme, self.port) {
            (Scheme::Unix, _) | (Scheme::Http, 80) | (Scheme::Https, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Whether both belong to the same server: what is secret for one may be sent to the other.
    pub fn same_origin(&self, other: &Url) -> bool {
        (self.scheme, self.port, &self.socket) == (other.scheme, other.port, &other.socket)
            && self.host.eq_ignore_ascii_case(&other.host)
    }

    /// What a `Location` header means here (RFC 3986 section 5, as far as servers use it).
    ///
    /// # Errors
    /// Says why it cannot be followed.
    pub fn join(&self, location: &str) -> Result<Url, String> {
        let location = location.trim();
        let leading = location.find([':', '/', '?', '#']).and_then(|at| location.as_bytes().get(at));
        if leading == Some(&b':') {
            return Url::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let own = self.path.split('?').next().unwrap_or("/");
        let path = match location.bytes().next() {
            None | Some(b'#') => self.path.clone(),
            Some(b'/') => clean_path(location)?,
            Some(b'?') => clean_path(&format!("{own}{location}"))?,
            Some(_) => {
                let folder = own.rsplit_once('/').map_or("", |(folder, _)| folder);
                clean_path(&format!("{folder}/{location}"))?
            }
        };
        Ok(Url { path: without_dots(&path), ..self.clone() })
    }
}

/// Reads `/path/to.sock:/http/path`; without a path after the socket, `/` is meant.
fn parse_unix(rest: &str) -> Result<Url, String> {
    let (socket, path) = match rest.find(":/") {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest.trim_end_matches(':'), "/"),
    };
    if !socket.starts_with('/') {
        return Err("the socket's path is not absolute; write \"unix:///run/app.sock:/path\"".into());
    }
    if socket.contains(['\0', '?', '#']) {
        return Err("the socket's path is no path; write \"unix:///run/app.sock:/path\"".into());
    }
    Ok(Url { scheme: Scheme::Unix, host: "localhost".into(), port: 0, socket: socket.into(), path: clean_path(path)? })
}

/// Reads `host`, `host:port`, `[::1]:port` or `::1`.
///
/// # Errors
/// Says what is wrong with it.
pub fn split_host_port(text: &str) -> Result<(String, Option<u16>), String> {
    let port_of = |port: &str| match port.parse::<u16>() {
        Ok(port) if port > 0 && !text.contains('+') => Ok(Some(port)),
        _ => Err(format!("`{port}` is not a port between 1 and 65535")),
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
        host.parse::<Ipv6Addr>().map_err(|_| format!("`{host}` is not an IPv6 address"))?;
        return match (rest.strip_prefix(':'), rest) {
            (Some(port), _) => Ok((host.into(), port_of(port)?)),
            (None, "") => Ok((host.into(), None)),
            (None, _) => Err("after the IPv6 address only `:port` may follow".into()),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text.into(), None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port_of(port)?),
        None => (text, None),
    };
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    // RFC 1123 names, and the underscore that Compose and Kubernetes names may carry.
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) || host.len() > 253 {
        return Err(format!("`{}` is not a host name", host.escape_default()));
    }
    Ok((host.into(), port))
}

/// Path and query as they are sent: from `/`, without the fragment, nothing in it that would end the request line.
fn clean_path(path: &str) -> Result<String, String> {
    let clean = clean(path.split('#').next().unwrap_or("").as_bytes())?;
    Ok(if clean.starts_with('/') { clean } else { format!("/{clean}") })
}

/// Bytes as they may stand in a path or a query: what is in no URL (RFC 3986 section 2) becomes `%XX`.
///
/// # Errors
/// They would end the request line.
pub fn clean(bytes: &[u8]) -> Result<String, String> {
    if bytes.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err("the path holds a space or a control character; write it as %20".into());
    }
    Ok(encode(bytes, &|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)))
}

/// Bytes as text, those that may not stand there as `%XX`. What may stand there is ASCII.
pub fn encode(bytes: &[u8], may_stand: &dyn Fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if may_stand(*byte) {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])));
        }
    }
    text
}

/// What stands for itself everywhere in a URL (RFC 3986 section 2.3).
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Takes `.` and `..` out of a path (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows() {
        for (text, shown, host, port, path) in [
            ("http://localhost:8080/healthz", "http://localhost:8080/healthz", "localhost", 8080, "/healthz"),
            ("http://a", "http://a/", "a", 80, "/"),
            ("HTTPS://A.example/x?token=1#top", "https://A.example/x?…", "A.example", 443, "/x?token=1"),
            ("http://[::1]:81?q", "http://[::1]:81/?…", "::1", 81, "/?q"),
            ("https://[fe80::1]/", "https://[fe80::1]/", "fe80::1", 443, "/"),
            ("unix:///run/a.sock:/x/y?z", "unix:///run/a.sock:/x/y?…", "localhost", 0, "/x/y?z"),
            ("http+unix:///run/a.sock", "unix:///run/a.sock:/", "localhost", 0, "/"),
            ("http://a/ü{x}", "http://a/%C3%BC%7Bx%7D", "a", 80, "/%C3%BC%7Bx%7D"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!((url.to_string().as_str(), &*url.host, url.port, &*url.path), (shown, host, port, path));
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for (text, why) in [
            ("", "it is not a URL; write it as \"http://host:port/path\""),
            ("localhost:80", "it is not a URL; write it as \"http://host:port/path\""),
            ("ftp://a/", "the scheme `ftp` is not one of http, https, unix"),
            ("http:///x", "the host is missing"),
            ("http://a:0/", "`0` is not a port between 1 and 65535"),
            ("http://a:99999/", "`99999` is not a port between 1 and 65535"),
            ("http://a:+80/", "`+80` is not a port between 1 and 65535"),
            ("http://a b/", "`a b` is not a host name"),
            ("http://a/x y", "the path holds a space or a control character; write it as %20"),
            ("http://[::1/", "the bracket of the IPv6 address is not closed"),
            ("http://[zz]/", "`zz` is not an IPv6 address"),
            ("unix://run/a.sock", "the socket's path is not absolute; write \"unix:///run/app.sock:/path\""),
        ] {
            assert_eq!(Url::parse(text), Err(why.into()), "{text}");
        }
        let refusal = Url::parse("http://me:hunter2@a/").expect_err("user info");
        assert!(refusal.contains("`basic`") && !refusal.contains("hunter2"), "{refusal}");
    }

    #[test]
    fn joins_what_servers_send() {
        let base = Url::parse("http://a:81/b/c/d?q").expect("a URL");
        for (location, path) in [
            ("/x", "http://a:81/x"),
            ("x", "http://a:81/b/c/x"),
            ("../x", "http://a:81/b/x"),
            ("../../../x/.", "http://a:81/x/"),
            ("?y", "http://a:81/b/c/d?…"),
            ("", "http://a:81/b/c/d?…"),
            ("//e/x", "http://e/x"),
            ("https://e/x", "https://e/x"),
        ] {
            assert_eq!(base.join(location).expect(location).to_string(), path, "{location}");
        }
    }

    #[test]
    fn knows_its_own_origin() {
        let url = |text: &str| Url::parse(text).expect(text);
        assert!(url("http://a/x").same_origin(&url("http://A:80/y")));
        for other in ["http://a:81/", "https://a/", "http://b/", "unix:///a.sock"] {
            assert!(!url("http://a/").same_origin(&url(other)), "{other}");
        }
    }
}

//! Where a request goes, as typed: a URL or a path alone, taken apart into the server, which is fixed, and path and
//! query, which may hold placeholders.

use bytes::Bytes;
use hyper::Uri;

use super::template::{Draw, Piece, Template};
use crate::{client::url::clean, value::printable};

/// Servers take 8 KiB in a request line by default (nginx, Apache, Tomcat, Node together with the headers).
pub const LONGEST: usize = 8 << 10;
/// Enough to recognise a request in a log line.
const LONGEST_SHOWN: usize = 100;

/// Where paths go.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// A URL without a path of its own: `http://host:port/`.
    pub server: String,
    /// What stands before each path; without a slash at its end.
    pub prefix: String,
}

/// Path and query.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Constant(Uri),
    Template(Template),
}

impl Base {
    /// # Errors
    /// Why paths cannot follow it; what is wrong with its server shows when that is used.
    pub fn read(text: &str) -> Result<Base, String> {
        let (server, path) = split(text)?;
        if path.contains(['?', '#']) {
            return Err("paths follow it, so it cannot hold a query or a fragment".into());
        }
        if path.contains("{{") {
            return Err(ELSEWHERE.into());
        }
        let mut prefix = clean(path.as_bytes())?;
        prefix.truncate(prefix.trim_end_matches('/').len());
        Ok(Base { server, prefix })
    }
}

const ELSEWHERE: &str = "a placeholder may stand in the path, the query, a header or the body";

/// `METHOD URL`, or a URL alone.
pub fn split_method(text: &str) -> (Option<&str>, &str) {
    let text = text.trim();
    match text.split_once([' ', '\t']) {
        Some((word, rest)) if !word.contains(['/', ':', '{', '?']) => (Some(word), rest.trim_start()),
        _ => (None, text),
    }
}

/// The URL of the server, and path and query as typed. A path alone goes to the base.
///
/// # Errors
/// Why it cannot be used.
pub fn aim(url: &str, base: Option<&Base>) -> Result<(String, String), String> {
    if url.len() > LONGEST {
        return Err("it is longer than 8 KiB".into());
    }
    if !url.starts_with('/') {
        return split(url).map(|(server, path)| (server, path.to_owned()));
    }
    match base {
        Some(base) => Ok((base.server.clone(), format!("{}{url}", base.prefix))),
        None => Err("a path alone goes to `base`, which is not given".into()),
    }
}

fn split(url: &str) -> Result<(String, &str), String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("it is not a URL; write it as \"http://host:port/path\"".into());
    };
    let is_unix = scheme == "unix" || scheme == "http+unix";
    let (server, path) = if is_unix {
        // Up to the colon before the path: `/run/app.sock:/path`.
        rest.find(":/").map_or((rest, ""), |at| rest.split_at(at + 1))
    } else {
        rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
    };
    if scheme.contains("{{") || server.contains("{{") {
        return Err(ELSEWHERE.into());
    }
    let slash = if is_unix && path.is_empty() { "" } else { "/" };
    Ok((format!("{scheme}://{server}{slash}"), path))
}

impl Target {
    /// Reads path and query as typed.
    ///
    /// # Errors
    /// Why they cannot be sent; whether that is about a placeholder.
    pub fn read(path: &str) -> Result<Target, (String, bool)> {
        let mut template = Template::read(path).map_err(|why| (why, true))?;
        let mut pieces = Vec::new();
        if !path.starts_with('/') {
            pieces.push(Piece::Text("/".into()));
        }
        for piece in template.0 {
            let Piece::Text(text) = piece else {
                pieces.push(piece);
                continue;
            };
            // A fragment is the browser's own; nobody sends it.
            let (text, ends) = text.split_once('#').map_or((&*text, false), |(text, _)| (text, true));
            let text = clean(text.as_bytes()).map_err(|why| (why, false))?;
            match pieces.last_mut() {
                Some(Piece::Text(before)) => before.push_str(&text),
                _ => pieces.push(Piece::Text(text)),
            }
            if ends {
                break;
            }
        }
        template = Template(pieces);
        match template.constant() {
            Some(text) => Target::constant(text).ok_or_else(|| ("the path cannot be sent".into(), false)),
            None => Ok(Target::Template(template)),
        }
    }

    /// Path and query as they are sent.
    pub fn constant(text: &str) -> Option<Target> {
        Uri::from_maybe_shared(Bytes::copy_from_slice(text.as_bytes())).ok().map(Target::Constant)
    }

    /// As they are sent this time.
    pub fn fill(&self, draw: &mut Draw<'_>) -> Option<Uri> {
        match self {
            Target::Constant(uri) => Some(uri.clone()),
            Target::Template(template) => Uri::from_maybe_shared(Bytes::from(template.fill(draw, true))).ok(),
        }
    }
}

/// A request as it is shown. The values of a query may be secrets: of one that was written only placeholders and short
/// numbers are shown, of a file's or a log's none.
pub fn show(method: &str, path: &str, is_written: bool) -> String {
    let path = path.split('#').next().unwrap_or("");
    let shown = match path.split_once('?') {
        None if path.starts_with('/') => format!("{method} {path}"),
        None => format!("{method} /{path}"),
        Some((path, query)) => {
            let mut shown = format!("{method} {}{path}?", if path.starts_with('/') { "" } else { "/" });
            if is_written {
                for (at, pair) in query.split('&').enumerate() {
                    if at > 0 {
                        shown.push('&');
                    }
                    match pair.split_once('=') {
                        Some((name, value)) => {
                            shown.push_str(name);
                            shown.push('=');
                            shown.push_str(if is_harmless(value) { value } else { "…" });
                        }
                        None => shown.push('…'),
                    }
                }
            } else {
                shown.push('…');
            }
            shown
        }
    };
    printable(&shown, LONGEST_SHOWN)
}

/// A limit or an offset has a few digits, and a placeholder was written to be seen.
fn is_harmless(value: &str) -> bool {
    let is_placeholder = value.starts_with("{{")
        && !value.starts_with("{{{")
        && value.find("}}").is_some_and(|at| at + 2 == value.len());
    is_placeholder || value.len() <= 3 && value.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{super::template::Chance, *};

    #[test]
    fn takes_urls_apart() {
        let base = Base::read("http://b:81/app/").expect("a base");
        for (text, method, server, path) in [
            ("http://a", None, "http://a/", ""),
            ("GET http://a:80/x?y#z", Some("GET"), "http://a:80/", "/x?y#z"),
            ("  POST\thttps://[::1]?q={{one-of:a b,c}} ", Some("POST"), "https://[::1]/", "?q={{one-of:a b,c}}"),
            ("http://a/?q={{one-of:a b,c}}", None, "http://a/", "/?q={{one-of:a b,c}}"),
            ("HEAD unix:///run/a.sock:/x", Some("HEAD"), "unix:///run/a.sock:/", "/x"),
            ("unix:///run/a.sock", None, "unix:///run/a.sock", ""),
            ("http+unix:///run/a.sock:", None, "http+unix:///run/a.sock:", ""),
            ("/x", None, "http://b:81/", "/app/x"),
            ("GET /", Some("GET"), "http://b:81/", "/app/"),
        ] {
            let (found, url) = split_method(text);
            assert_eq!((found, aim(url, Some(&base))), (method, Ok((server.into(), path.into()))), "{text}");
        }
        let placeholder = "a placeholder may stand in the path, the query, a header or the body";
        for (text, why) in [
            ("/x", "a path alone goes to `base`, which is not given"),
            ("localhost:8080/x", "it is not a URL; write it as \"http://host:port/path\""),
            ("http://a{{counter}}/", placeholder),
            ("http://a:{{random:1-9}}", placeholder),
            ("{{one-of:http,https}}://a/", placeholder),
            ("unix:///run/{{counter}}.sock:/", placeholder),
        ] {
            assert_eq!(aim(text, None), Err(why.into()), "{text}");
        }
        assert_eq!(aim(&format!("http://a/{}", "x".repeat(8192)), None), Err("it is longer than 8 KiB".into()));
        for (text, why) in [
            ("http://a/?x", "paths follow it, so it cannot hold a query or a fragment"),
            ("http://a/#x", "paths follow it, so it cannot hold a query or a fragment"),
            ("http://a/{{uuid}}", placeholder),
            ("http://a/b c", "the path holds a space or a control character; write it as %20"),
            ("a/b", "it is not a URL; write it as \"http://host:port/path\""),
        ] {
            assert_eq!(Base::read(text), Err(why.into()), "{text}");
        }
    }

    #[test]
    fn cleans_paths_and_fills_them() {
        for (text, sent) in [
            ("", "/"),
            ("?a=b", "/?a=b"),
            ("/ü{x}#top", "/%C3%BC%7Bx%7D"),
            ("//a//b", "//a//b"),
            ("/%20[x]'~", "/%20[x]'~"),
            ("/{{one-of:a b/c}}/é#{{uuid}}", "/a%20b%2Fc/%C3%A9"),
            ("{{one-of:x}}", "/x"),
            ("/{{{{x}}", "/%7B%7Bx%7D%7D"),
        ] {
            let target = Target::read(text).expect(text);
            let filled = target.fill(&mut Draw::new(&mut Chance::seeded(1))).expect(text);
            assert_eq!(filled.to_string(), sent, "{text}");
            assert_eq!(matches!(target, Target::Constant(_)), !text.contains("{{one"), "{text}");
        }
        for text in ["/a b", "/a\n", "/\u{7f}", "/{{uuid}}\r"] {
            let why = "the path holds a space or a control character; write it as %20";
            assert_eq!(Target::read(text), Err((why.into(), false)), "{text}");
        }
    }

    /// No URL of the longest kind is too long for `Uri` when its placeholders are filled in.
    #[test]
    fn the_longest_can_be_sent() {
        for piece in ["{{one-of:ü}}", "{{date:%T%T%T%T%T%T%T%T}}", "{{uuid}}", "{{counter}}", "ü", "{{date:%F}}"] {
            let text = format!("/{}", piece.repeat((LONGEST - 1) / piece.len()));
            let target = Target::read(&text).expect(piece);
            assert!(target.fill(&mut Draw::new(&mut Chance::seeded(1))).is_some(), "{piece}");
        }
        let text = format!("/{{{{date:{}}}}}", "%T".repeat(LONGEST / 2 - 8));
        assert!(Target::read(&text).expect("%T").fill(&mut Draw::new(&mut Chance::seeded(1))).is_some());
    }

    #[test]
    fn shows_no_secret() {
        for (path, written, other) in [
            ("/", "GET /", "GET /"),
            ("", "GET /", "GET /"),
            ("/x?limit=50&q={{one-of:a,b}}&token=hunter2", "GET /x?limit=50&q={{one-of:a,b}}&token=…", "GET /x?…"),
            ("?secret", "GET /?…", "GET /?…"),
            ("/x?pin=1234#y", "GET /x?pin=…", "GET /x?…"),
            ("/x?a={{{{secret}}", "GET /x?a=…", "GET /x?…"),
            ("/x?a={{uuid}}s{{uuid}}", "GET /x?a=…", "GET /x?…"),
        ] {
            assert_eq!((show("GET", path, true), show("GET", path, false)), (written.into(), other.into()), "{path}");
        }
        assert_eq!(show("GET", &"x".repeat(200), true), format!("GET /{}…", "x".repeat(95)));
    }
}

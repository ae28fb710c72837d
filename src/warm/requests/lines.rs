//! Lines of files that somebody else writes: read as a stream, each of bounded length. Access logs in the common and the
//! combined format, as nginx, Apache and others write them.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Take},
    path::Path,
};

use hyper::Method;

use super::target::LONGEST;
use crate::client::{files, url::clean};

/// A long line of an ordinary log: a request line of 8 KiB, and as much for what the client says of itself.
const LONGEST_LINE: usize = 2 * LONGEST;

/// Reads a file line by line.
pub struct Lines<'p> {
    path: &'p Path,
    reader: Take<BufReader<File>>,
    line: Vec<u8>,
    /// Bytes at the file's beginning that are left out.
    pub skipped: u64,
    is_first: bool,
}

/// One line.
pub enum Line<'l> {
    /// Without the newline.
    Whole(&'l [u8]),
    TooLong,
}

impl<'p> Lines<'p> {
    /// Opens a file, of which at most so many bytes are read, the last ones.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn open(path: &'p Path, most: u64) -> Result<Self, String> {
        let mut file = files::open(path)?;
        let why = |error: std::io::Error| reason(path, &error);
        let size = file.metadata().map_err(why)?.len();
        let skipped = size.saturating_sub(most);
        // With the byte before, a line that begins there is known for a whole one.
        file.seek(SeekFrom::Start(skipped.saturating_sub(1))).map_err(why)?;
        // What is written meanwhile is not read: there would be no end.
        let reader = BufReader::with_capacity(64 << 10, file).take(most.saturating_add(1));
        let mut lines = Lines { path, reader, line: Vec::new(), skipped, is_first: skipped == 0 };
        if skipped > 0 {
            lines.skip().map_err(why)?;
        }
        Ok(lines)
    }

    /// # Errors
    /// Why no more can be read.
    pub fn next(&mut self) -> Result<Option<Line<'_>>, String> {
        let path = self.path;
        self.read().map_err(|error| reason(path, &error))
    }

    fn read(&mut self) -> std::io::Result<Option<Line<'_>>> {
        self.line.clear();
        let most = LONGEST_LINE as u64 + 1;
        let read = (&mut self.reader).take(most).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        let is_first = std::mem::take(&mut self.is_first);
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LONGEST_LINE {
            self.skip()?;
            return Ok(Some(Line::TooLong));
        }
        let mut line = self.line.as_slice();
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if is_first {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        Ok(Some(Line::Whole(line)))
    }

    /// Passes over the rest of a line.
    fn skip(&mut self) -> std::io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let passed = end.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(passed);
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

fn reason(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {}", path.display(), files::reason(error))
}

/// What an access log says of a request.
#[derive(Debug, PartialEq)]
pub struct Logged {
    pub method: Method,
    /// Path and query, as they may be sent; without the server, which the client may have made up.
    pub path: String,
    pub status: u16,
}

/// Reads a line of an access log: `HOST IDENT USER [TIME] "REQUEST" STATUS …`, whatever stands before and behind.
pub fn read_log(line: &[u8]) -> Option<Logged> {
    let (request, rest) = read_quoted(&line[find_request(line)?..])?;
    let mut words = request.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with(b"HTTP/") || target.len() > LONGEST {
        return None;
    }
    let method = Method::from_bytes(method).ok()?;
    // A proxy is asked for a whole URL (RFC 9112 section 3.2.2).
    let path = match target.windows(3).position(|three| three == b"://") {
        Some(at) if target.first() != Some(&b'/') => {
            let rest = &target[at + 3..];
            rest.iter().position(|byte| *byte == b'/').map_or(&b"/"[..], |at| &rest[at..])
        }
        _ => target,
    };
    if path.first() != Some(&b'/') {
        return None;
    }
    let path = path.split(|byte| *byte == b'#').next()?;
    let status = rest.strip_prefix(b" ")?.split(|byte| *byte == b' ').next()?;
    let status = match status {
        [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
            status.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        _ => return None,
    };
    Some(Logged { method, path: clean(path).ok()?, status })
}

/// Where the quoted request begins: the first quote behind the time. Servers write quotes in a user's name as `\"` or
/// `\x22`, so that they cannot end up there.
fn find_request(line: &[u8]) -> Option<usize> {
    let close = line.windows(3).position(|three| three == b"] \"");
    close.map(|at| at + 2)
}

/// Reads a quoted text with nginx's and Apache's escapes, and what follows it.
fn read_quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut read = Vec::new();
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((read, rest)),
            b'\\' => {
                let (escaped, after) = rest.split_first()?;
                rest = after;
                read.push(match escaped {
                    b'x' | b'X' => {
                        let (digits, after) = rest.split_at_checked(2)?;
                        rest = after;
                        let digit = |at: usize| char::from(digits[at]).to_digit(16).and_then(|n| u8::try_from(n).ok());
                        digit(0)? << 4 | digit(1)?
                    }
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' => 8,
                    b'f' => 12,
                    b'v' => 11,
                    other => *other,
                });
            }
            byte => read.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<(String, String, u16)> {
        read_log(line.as_bytes()).map(|logged| (logged.method.to_string(), logged.path, logged.status))
    }

    #[test]
    fn reads_what_servers_write() {
        for (line, method, path, status) in [
            // Apache's manual, common and combined.
            (
                r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326"#,
                "GET",
                "/apache_pb.gif",
                200,
            ),
            (
                r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a?b=c&d HTTP/1.0" 304 - "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)""#,
                "GET",
                "/a?b=c&d",
                304,
            ),
            // Apache, vhost_combined.
            (
                r#"shop.example:443 ::1 - - [22/Nov/2026:17:00:00 +0000] "HEAD /x HTTP/2.0" 200 0 "-" "a \"quoted\" agent""#,
                "HEAD",
                "/x",
                200,
            ),
            // nginx, with its escapes and with more behind.
            (
                r#"2001:db8::1 - a\x22] \x22b [22/Nov/2026:17:00:00 +0000] "GET /s?q=\x22a\x5C\x22&u=\xC3\xBC HTTP/1.1" 200 5 "-" "x" "10.0.0.1" rt=0.003 uct="0.0""#,
                "GET",
                "/s?q=%22a%5C%22&u=%C3%BC",
                200,
            ),
            // Apache with a user that has quotes in it, and a quote in the path.
            (
                r#"10.0.0.7 - "" [22/Nov/2026:17:00:00 +0000] "GET /\"x\"\\y HTTP/1.1" 404 196"#,
                "GET",
                "/%22x%22%5Cy",
                404,
            ),
            // Traefik.
            (
                r#"10.0.0.1 - - [22/Nov/2026:17:00:00 +0000] "POST /cart HTTP/2.0" 201 12 "-" "-" 7 "web@docker" "http://10.0.0.9:80" 3ms"#,
                "POST",
                "/cart",
                201,
            ),
            // Forward proxies, and servers that were asked like one.
            (r#"a - - [t] "GET http://other.example:81/x?y=http://z HTTP/1.1" 200 1"#, "GET", "/x?y=http://z", 200),
            (r#"a - - [t] "GET http://other.example HTTP/1.1" 200 1"#, "GET", "/", 200),
            (r#"a - - [t] "GET /redirect?to=http://z/ HTTP/1.1" 200 1"#, "GET", "/redirect?to=http://z/", 200),
            (r#"a - - [t] "GET /x#y HTTP/1.1" 200 1"#, "GET", "/x", 200),
            (r#"a - - [t] "GET /{{random:1-5}} HTTP/1.1" 200"#, "GET", "/%7B%7Brandom:1-5%7D%7D", 200),
            (r#"a - - [t] "GET // HTTP/3.0" 500 0"#, "GET", "//", 500),
        ] {
            assert_eq!(read(line), Some((method.into(), path.into(), status)), "{line}");
        }
    }

    #[test]
    fn passes_over_what_is_no_request() {
        for line in [
            "",
            "-",
            "{\"method\":\"GET\"}",
            r#"a - - [t] "-" 408 0"#,
            r#"a - - [t] "" 400 0"#,
            // TLS on a plain port, as nginx and Apache write it.
            r#"a - - [t] "\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03" 400 157"#,
            r#"a - - [t] "\x16\x03\x01\x02\x00 /\x01 HTTP/" 400 157"#,
            r#"a - - [t] "GET /x" 200 1"#,
            r#"a - - [t] "GET /a b HTTP/1.1" 200 1"#,
            r#"a - - [t] "GET /a\r\nX:y HTTP/1.1" 200 1"#,
            r#"a - - [t] "GET /a\x00 HTTP/1.1" 200 1"#,
            r#"a - - [t] "OPTIONS * HTTP/1.1" 200 1"#,
            r#"a - - [t] "CONNECT other.example:443 HTTP/1.1" 200 1"#,
            r#"a - - [t] "PRI * HTTP/2.0" 400 0"#,
            r#"a - - [t] "G{T /x HTTP/1.1" 200 0"#,
            r#"a - - [t] "GET /x HTTP/1.1" 2000 0"#,
            r#"a - - [t] "GET /x HTTP/1.1" - 0"#,
            r#"a - - [t] "GET /x HTTP/1.1" 099 0"#,
            r#"a - - [t] "GET /x HTTP/1.1"200"#,
            r#"a - - [t] "GET /x HTTP/1.1""#,
            r#"a - - [t] "GET /x HTTP/1.1"#,
            r#"a - - [t] "GET /x HTTP/1.1\"#,
            r#"a - - [t] "GET /\x4"#,
            r#"a - - [t] "GET /\xüü HTTP/1.1" 200 0"#,
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    /// A linear congruential generator, so that a failure can be repeated.
    #[test]
    fn survives_noise() {
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let line = br#"a - - [t] "GET http://x/\x22y HTTP/1.1" 200 1"#;
        let mut read = 0;
        for _ in 0..100_000 {
            let mut noise = line.to_vec();
            for _ in 0..1 + next(4) {
                let at = next(noise.len());
                match next(3) {
                    0 => noise[at] = u8::try_from(next(256)).expect("a byte"),
                    1 => noise.truncate(at + 1),
                    _ => noise.insert(at, b"\"\\x/ []:"[next(8)]),
                }
            }
            if let Some(logged) = read_log(&noise) {
                assert!(logged.path.starts_with('/') && logged.path.bytes().all(|byte| byte.is_ascii_graphic()));
                read += 1;
            }
        }
        assert!(read > 1000, "{read}");
    }

    #[test]
    fn reads_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines");
        let all = |most: u64| {
            let mut lines = Lines::open(&path, most).expect("the file");
            let mut found = Vec::new();
            while let Some(line) = lines.next().expect("a line") {
                found.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong => "too long".into(),
                });
            }
            (lines.skipped, found)
        };
        let long = "x".repeat(LONGEST_LINE);
        for (text, most, skipped, found) in [
            ("", 99, 0, vec![]),
            ("\u{feff}a\r\n\nb\r\r\n\u{feff}c", 99, 0, vec!["a", "", "b\r", "\u{feff}c"]),
            ("aa\nbb\ncc\n", 6, 3, vec!["bb", "cc"]),
            ("aa\nbb\ncc\n", 5, 4, vec!["cc"]),
            ("aa\nbb\ncc\n", 0, 9, vec![]),
            ("aaaaaa", 3, 3, vec![]),
            (
                &format!("a\n{long}\n{long}y\n{long}{long}{long}\nb"),
                1 << 20,
                0,
                vec!["a", &long, "too long", "too long", "b"],
            ),
        ] {
            std::fs::write(&path, text).expect("a file");
            assert_eq!(all(most), (skipped, found.iter().map(ToString::to_string).collect()), "{text:.40}");
        }
        let absent = folder.path().join("absent");
        let why = Lines::open(&absent, 1).err();
        assert_eq!(why, Some(format!("{}: no such file or directory", absent.display())));
    }
}

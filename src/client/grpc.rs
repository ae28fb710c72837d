//! gRPC as far as a client of unary calls needs it: how a message is framed, what the statuses mean, and the standard
//! health check. The specification is "gRPC over HTTP/2" (PROTOCOL-HTTP2.md) and `grpc.health.v1`.

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Uri,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, TE},
};

use super::{
    Request,
    session::{Protocol, Told},
};
use crate::{process::Processes, step::Progress, value::printable};

/// Why a build without the feature `http2` cannot do what is asked of it, and what to do about it.
pub const NO_HTTP2: (&str, &str) = ("this build has no HTTP/2", "use the full boathook");

/// The names of the statuses, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A message as it is sent: not compressed, its length, the message.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(message.len() + 5);
    framed.push(0);
    // What is sent is a file or a text of the configuration, at most 16 MB.
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

/// Adds what a call needs besides its path and body.
pub fn add_headers(headers: &mut HeaderMap) {
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// `14 UNAVAILABLE: no upstream`.
pub fn show(code: u32, message: &str) -> String {
    let name = usize::try_from(code).ok().and_then(|code| CODES.get(code)).unwrap_or(&"(no known status)");
    match message {
        "" => format!("{code} {name}"),
        message => format!("{code} {name}: {message}"),
    }
}

/// The status and the message in the trailers, or in a head without a body.
pub fn read_status(headers: &HeaderMap) -> Option<(u32, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers.get(HeaderName::from_static("grpc-message"));
    Some((code, message.map(|message| decode(message.as_bytes())).unwrap_or_default()))
}

/// A percent-encoded message, as far as it can be shown.
fn decode(encoded: &[u8]) -> String {
    // Three bytes may stand for one, and what is shown is 120 characters at most.
    let encoded = &encoded[..encoded.len().min(2048)];
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, others @ ..] = rest {
        let digits = others.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        // `from_str_radix` takes a sign.
        let digits = digits.filter(|digits| !digits.starts_with('+'));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            // What is wrongly encoded is shown as it is: the specification wants no error.
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    printable(String::from_utf8_lossy(&bytes).trim(), 120)
}

/// Asks the standard health service of a server (`grpc.health.v1.Health/Check`): over https, or over http by prior
/// knowledge of HTTP/2. The path of the request is of no meaning. An empty service is the server as a whole.
///
/// # Errors
/// Why it does not serve: `NOT_SERVING`, `5 NOT_FOUND: unknown service`, or why there is no answer.
pub async fn check_health(
    request: &Request,
    service: &str,
    processes: &Processes,
    progress: &Progress,
) -> Result<(), String> {
    progress.set(format!("{}: not connected yet", request.url));
    let mut ready = request.make_ready(Protocol::Http2).await.map_err(|failure| failure.reason)?;
    ready.question.method = Method::POST;
    ready.question.path = Uri::from_static("/grpc.health.v1.Health/Check");
    ready.question.body = frame(&ask_for(service));
    add_headers(&mut ready.question.headers);
    let mut session = ready.route.connect(processes).await.map_err(|failure| failure.reason)?;
    progress.set(format!("{}: {}", request.url, session.standing()));
    let told = session.ask(&ready.question).await.map_err(|no_answer| no_answer.failure.reason)?;
    match judge(&told) {
        Ok(()) => Ok(()),
        Err(why) => Err(ready.secrets.iter().fold(why, |why, secret| why.replace(secret.as_str(), "***"))),
    }
}

/// `HealthCheckRequest`: the name of the service is field 1, a string.
fn ask_for(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length > 127 {
            message.push((length & 127) as u8 | 128);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    message
}

fn judge(told: &Told) -> Result<(), String> {
    match (&told.grpc, told.status) {
        (Some((0, _)), _) => {}
        (Some((12, _)), _) => return Err(show(12, "the server has no health service")),
        (Some((code, message)), _) => return Err(show(*code, message)),
        (None, 200) => return Err("the answer is not gRPC: it has no grpc-status".into()),
        (None, status) => return Err(format!("the answer is not gRPC: status {status}")),
    }
    // Not compressed, for we did not offer to read that, and of known length.
    let message = match told.beginning.as_slice() {
        [0, 0, 0, 0, length, message @ ..] => message.get(..usize::from(*length)),
        _ => None,
    };
    match message.and_then(read_serving) {
        Some(1) => Ok(()),
        Some(0) => Err("UNKNOWN".into()),
        Some(2) => Err("NOT_SERVING".into()),
        Some(3) => Err("SERVICE_UNKNOWN".into()),
        _ => Err("the answer is no HealthCheckResponse".into()),
    }
}

/// `HealthCheckResponse`: the status is field 1, an enum; 0 where it is left out. The last one counts, and what a later
/// version may add is passed over.
fn read_serving(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = read_number(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = read_number(&mut message)?,
            (_, 0) => drop(read_number(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(read_number(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// A number in base 128, the lowest digits first.
fn read_number(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for digit in 0..10 {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 127) << (7 * digit);
        if byte & 128 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_messages() {
        assert_eq!(frame(b""), &b"\0\0\0\0\0"[..]);
        assert_eq!(frame(&[7; 300])[..7], [0, 0, 0, 1, 44, 7, 7]);
    }

    #[test]
    fn reads_health() {
        let told = |status: u16, grpc: Option<(u32, &str)>, body: &[u8]| Told {
            status,
            beginning: body.to_vec(),
            grpc: grpc.map(|(code, message)| (code, message.into())),
            size: body.len() as u64,
        };
        let ok = Some((0, ""));
        let strange = "the answer is no HealthCheckResponse";
        for (told, result) in [
            (told(200, ok, b"\0\0\0\0\x02\x08\x01"), Ok(())),
            (told(200, ok, b"\0\0\0\0\x02\x08\x02"), Err("NOT_SERVING")),
            (told(200, ok, b"\0\0\0\0\x02\x08\x03"), Err("SERVICE_UNKNOWN")),
            (told(200, ok, b"\0\0\0\0\0"), Err("UNKNOWN")),
            (told(200, ok, b"\0\0\0\0\x0d\x12\x03abc\x08\x02\x1d1234\x08\x01"), Err(strange)),
            (told(200, ok, b"\0\0\0\0\x0e\x12\x03abc\x08\x02\x1d1234\x08\x01"), Ok(())),
            (told(200, ok, b"\0\0\0\0\x02\x08\xff"), Err(strange)),
            (told(200, ok, b"\0\0\0\0\x02\x08"), Err(strange)),
            (told(200, ok, b"\x01\0\0\0\x02\x08\x01"), Err(strange)),
            (told(200, ok, b"\0\0\0\0\x0c\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a"), Err(strange)),
            (told(200, ok, b""), Err(strange)),
            (told(200, Some((5, "unknown service")), b""), Err("5 NOT_FOUND: unknown service")),
            (
                told(200, Some((12, "Method not found!")), b""),
                Err("12 UNIMPLEMENTED: the server has no health service"),
            ),
            (told(200, None, b""), Err("the answer is not gRPC: it has no grpc-status")),
            (told(404, None, b"<html>"), Err("the answer is not gRPC: status 404")),
        ] {
            assert_eq!(judge(&told), result.map_err(String::from), "{told:?}");
        }
        assert_eq!(ask_for(""), b"");
        assert_eq!(ask_for("shop"), b"\x0a\x04shop");
        assert_eq!(ask_for(&"a".repeat(300))[..4], *b"\x0a\xac\x02a");
    }

    #[test]
    fn reads_statuses() {
        for (status, message, shown) in [
            ("0", None, "0 OK"),
            ("14", Some("no%20upstream"), "14 UNAVAILABLE: no upstream"),
            ("5", Some("caf%C3%A9 %zz %+1 %"), "5 NOT_FOUND: café %zz %+1 %"),
            ("2", Some("%1b[31mred%0d%0a"), "2 UNKNOWN: [31mred"),
            ("99", Some(""), "99 (no known status)"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static(status));
            if let Some(message) = message {
                headers.insert("grpc-message", HeaderValue::from_static(message));
            }
            let (code, message) = read_status(&headers).expect(status);
            assert_eq!(show(code, &message), shown);
        }
        let mut headers = HeaderMap::new();
        assert_eq!(read_status(&headers), None);
        for wrong in ["", "-1", "x", "99999999999"] {
            headers.insert("grpc-status", HeaderValue::from_static(wrong));
            assert_eq!(read_status(&headers), None, "{wrong}");
        }
        assert_eq!(decode(&[b'a'; 5000]).chars().count(), 121);
    }
}

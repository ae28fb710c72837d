//! Amazon's signature, version 4, in the headers of a request: what every S3-compatible store checks. Pure.
//!
//! The rules are those of "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)" in the
//! API reference of Amazon S3. Its examples are the tests.

use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::{
    client::url::{self, is_unreserved},
    state::name::show_time,
};

// As constants, so that they are not read when the program runs.
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Whose signature it is, where and when.
pub struct Signer<'a> {
    pub key_id: &'a str,
    pub secret: &'a str,
    pub token: Option<&'a str>,
    pub region: &'a str,
    /// Seconds since 1970, UTC.
    pub time: u64,
}

/// What is signed.
pub struct Signed<'a> {
    pub method: &'a str,
    /// As it is sent in the header.
    pub host: &'a str,
    /// Encoded, as it is sent.
    pub path: &'a str,
    /// Encoded and sorted, as it is sent.
    pub query: &'a str,
    /// SHA-256 of the body, in hexadecimal digits.
    pub hash: &'a str,
}

impl Signer<'_> {
    /// The headers that prove it; `None` when a part of them is no text.
    pub fn headers(&self, signed: &Signed<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
        // 20130524T000000Z
        let time = show_time(self.time).replace(['-', ':'], "");
        let day = time.get(..8)?;
        let Signed { method, host, path, query, hash } = signed;
        let mut lines = format!("host:{host}\nx-amz-content-sha256:{hash}\nx-amz-date:{time}\n");
        let mut names = "host;x-amz-content-sha256;x-amz-date".to_string();
        if let Some(token) = self.token {
            lines.push_str(&format!("x-amz-security-token:{token}\n"));
            names.push_str(";x-amz-security-token");
        }
        let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{hash}");
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
        let mut key = hmac(format!("AWS4{}", self.secret).as_bytes(), day.as_bytes());
        for part in [self.region, "s3", "aws4_request", &text] {
            key = hmac(&key, part.as_bytes());
        }
        let signature = hex(&key);
        let id = self.key_id;
        let proof = format!("AWS4-HMAC-SHA256 Credential={id}/{scope},SignedHeaders={names},Signature={signature}");
        let mut headers = vec![
            (AUTHORIZATION, HeaderValue::try_from(proof).ok()?),
            (CONTENT_HASH, HeaderValue::try_from(*hash).ok()?),
            (DATE, HeaderValue::try_from(time).ok()?),
        ];
        if let Some(token) = self.token {
            headers.push((TOKEN, HeaderValue::try_from(token).ok()?));
        }
        Some(headers)
    }
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Encodes what is not unreserved (RFC 3986 section 2.3), as the signature wants it.
pub fn encode(text: &str, slash: bool) -> String {
    url::encode(text.as_bytes(), &|byte| is_unreserved(byte) || slash && byte == b'/')
}

/// Encodes a query, sorted by name.
pub fn encode_query(pairs: &[(&str, &str)]) -> String {
    let mut pairs: Vec<[String; 2]> =
        pairs.iter().map(|(name, value)| [encode(name, false), encode(value, false)]).collect();
    pairs.sort();
    let encoded: Vec<String> = pairs.into_iter().map(|pair| pair.join("=")).collect();
    encoded.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn signs_as_amazons_examples() {
        let signer = Signer {
            key_id: "AKIAIOSFODNN7EXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            token: None,
            region: "us-east-1",
            time: 1_369_353_600,
        };
        for (query, signature) in [
            (&[("lifecycle", "")][..], "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            (&[("prefix", "J"), ("max-keys", "2")], "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let query = encode_query(query);
            let host = "examplebucket.s3.amazonaws.com";
            let headers = signer
                .headers(&Signed { method: "GET", host, path: "/", query: &query, hash: EMPTY })
                .expect("headers");
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                 SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={signature}"
            );
            assert_eq!(headers[0].1.to_str().expect("text"), expected);
            assert_eq!(headers[2].1, "20130524T000000Z");
        }
        assert_eq!(hex(&Sha256::digest(b"")), EMPTY);
    }

    #[test]
    fn encodes() {
        for (text, slash, expected) in
            [("a/b c", true, "a/b%20c"), ("a/b", false, "a%2Fb"), ("ü~+", true, "%C3%BC~%2B"), ("", true, "")]
        {
            assert_eq!(encode(text, slash), expected);
        }
        // By name: a name that begins another comes first.
        assert_eq!(encode_query(&[("b", "x=y"), ("a-b", ""), ("a", "2")]), "a=2&a-b=&b=x%3Dy");
    }
}

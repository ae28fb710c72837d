//! A request as typed: the keys that the `http` step, `wait = { http = … }` and a metric have in common.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess},
};

/// Everything about a request but its URL. Tables that hold it call [`Options::take`] for each key.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct Options {
    /// The method of the request.
    #[arg(long, value_name = "METHOD")]
    pub method: Option<String>,
    /// A header of the request; may be given more than once.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<Header>,
    /// The body of the request.
    #[arg(long, value_name = "TEXT")]
    pub body: Option<String>,
    /// A file with the body of the request.
    #[arg(long, value_name = "FILE")]
    pub body_file: Option<PathBuf>,
    /// A token, sent as "Authorization: Bearer TOKEN".
    #[arg(long, value_name = "TOKEN")]
    pub bearer: Option<String>,
    /// A file with the token.
    #[arg(long, value_name = "FILE")]
    pub bearer_file: Option<PathBuf>,
    /// User and password for basic authentication, or user and a file with the password as USER:@FILE.
    #[arg(long, value_name = "USER:PASSWORD")]
    pub basic: Option<Basic>,
    /// The client's certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// The client's private key (PEM: PKCS#8, PKCS#1 or SEC1).
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The authorities that may sign the server's certificate (PEM), instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Take any certificate of the server.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<Flag>,
    /// The name that the server's certificate must be for, instead of the URL's host.
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// How many redirects to follow.
    #[arg(long, value_name = "COUNT")]
    pub follow_redirects: Option<Count>,
    /// Connect to this Unix socket instead of the URL's host.
    #[arg(long, value_name = "PATH")]
    pub unix_socket: Option<PathBuf>,
}

impl Options {
    /// The keys, for the message about an unknown one.
    pub const KEYS: &'static str = "method, headers, body, body-file, bearer, bearer-file, basic, cert-file, \
         key-file, ca-file, insecure, server-name, follow-redirects, unix-socket";

    /// Takes the value of a key if it is one of these.
    ///
    /// # Errors
    /// The value is of the wrong kind.
    pub fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "method" => self.method = Some(map.next_value()?),
            "headers" => self.headers = map.next_value::<Headers>()?.0,
            "body" => self.body = Some(map.next_value()?),
            "body-file" => self.body_file = Some(map.next_value()?),
            "bearer" => self.bearer = Some(map.next_value()?),
            "bearer-file" => self.bearer_file = Some(map.next_value()?),
            "basic" => self.basic = Some(map.next_value()?),
            "cert-file" => self.cert_file = Some(map.next_value()?),
            "key-file" => self.key_file = Some(map.next_value()?),
            "ca-file" => self.ca_file = Some(map.next_value()?),
            "insecure" => self.insecure = Some(map.next_value()?),
            "server-name" => self.server_name = Some(map.next_value()?),
            "follow-redirects" => self.follow_redirects = Some(map.next_value()?),
            "unix-socket" => self.unix_socket = Some(map.next_value()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The error for a key that a table does not know.
pub fn unknown_key<'de, A: MapAccess<'de>>(key: &str, known: &str, map: &mut A) -> A::Error {
    let _ = map.next_value::<IgnoredAny>();
    // serde's own words, so that the message gets the same form as for every other table (`config/document.rs`).
    let known: Vec<String> = known.split(", ").map(|key| format!("`{key}`")).collect();
    de::Error::custom(format!("unknown field `{key}`, expected one of {}", known.join(", ")))
}

/// One header, `NAME: VALUE` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: String,
}

impl FromStr for Header {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("write it as \"NAME: VALUE\"")?;
        Ok(Header { name: name.trim().into(), value: value.trim().into() })
    }
}

/// A table of headers; a value may be a list, for a header that is sent more than once.
struct Headers(Vec<Header>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = BTreeMap::<String, Values>::deserialize(deserializer)?;
        let mut headers = Vec::new();
        for (name, Values(values)) in table {
            headers.extend(values.into_iter().map(|value| Header { name: name.clone(), value }));
        }
        Ok(Headers(headers))
    }
}

struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Values;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                Ok(Values(vec![text.into()]))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Values, E> {
                Ok(Values(vec![number.to_string()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// User and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Basic {
    pub user: String,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Basic")
    }
}

impl FromStr for Basic {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').ok_or("write it as USER:PASSWORD or USER:@FILE")?;
        Ok(match password.strip_prefix('@') {
            Some(file) => Basic { user: user.into(), password: None, password_file: Some(file.into()) },
            None => Basic { user: user.into(), password: Some(password.into()), password_file: None },
        })
    }
}

/// `true` or `false`, also in quotes, since `${NAME}` makes text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag(pub bool);

impl FromStr for Flag {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Flag).map_err(|_| format!("`{text}` is neither true nor false"))
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Flag;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Flag, E> {
                Ok(Flag(value))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Flag, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A whole number, also in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u32);

impl FromStr for Count {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse().map(Count).map_err(|_| format!("`{text}` is not a whole number from 0 to {}", u32::MAX))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Count, E> {
                number.to_string().parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Count, E> {
                number.to_string().parse().map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

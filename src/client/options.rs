//! A request as typed: the keys that the `http` step, `wait = { http = … }` and a metric have in common.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{
    keys::{Error, Node, Read, Shape, keys, list_of},
    number::Number,
};

keys! {
    /// Everything about a request but its URL; a part of the tables that hold a request.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Options {
        /// The method of the request.
        pub method: Option<String> = One("METHOD"),
        /// A header of the request; may be given more than once.
        pub headers: Vec<Header> = Many("NAME: VALUE", "header"),
        /// The body of the request.
        pub body: Option<String> = One("TEXT"),
        /// A file with the body of the request.
        pub body_file: Option<PathBuf> = One("FILE"),
        /// A token, sent as "Authorization: Bearer TOKEN".
        pub bearer: Option<String> = One("TOKEN"),
        /// A file with the token.
        pub bearer_file: Option<PathBuf> = One("FILE"),
        /// User and password for basic authentication, or user and a file with the password as USER:@FILE.
        pub basic: Option<Basic> = One("USER:PASSWORD"),
        /// The client's certificate chain (PEM).
        pub cert_file: Option<PathBuf> = One("FILE"),
        /// The client's private key (PEM: PKCS#8, PKCS#1 or SEC1).
        pub key_file: Option<PathBuf> = One("FILE"),
        /// The authorities that may sign the server's certificate (PEM), instead of the system's.
        pub ca_file: Option<PathBuf> = One("FILE"),
        /// Take any certificate of the server.
        pub insecure: Option<Flag> = Truth,
        /// The name that the server's certificate must be for, instead of the URL's host.
        pub server_name: Option<String> = One("NAME"),
        /// How many redirects to follow.
        pub follow_redirects: Option<Number<u32>> = One("COUNT"),
        /// Connect to this Unix socket instead of the URL's host.
        pub unix_socket: Option<PathBuf> = One("PATH"),
    }
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

impl Read for Header {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        value.parse(value.text("a string")?)
    }

    /// A table of headers; a value may be a list, for a header that is sent more than once.
    fn read_list(value: Node<'_>) -> Result<Vec<Self>, Error> {
        if value.by_hand {
            return list_of(value);
        }
        let mut headers = Vec::new();
        for (name, Values(values)) in Vec::<(String, Values)>::read(value)? {
            headers.extend(values.into_iter().map(|value| Header { name: name.clone(), value }));
        }
        Ok(headers)
    }
}

struct Values(Vec<String>);

impl Read for Values {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        match value.shape()? {
            Shape::List(_) => Vec::read(value).map(Values),
            _ => value.text_or_number("a text, or a list of texts").map(|text| Values(vec![text.into_owned()])),
        }
    }
}

keys! {
    /// User and password.
    #[derive(Clone, PartialEq, Eq)]
    pub struct Basic {
        pub user: String = Toml,
        pub password: Option<String> = Toml,
        pub password_file: Option<PathBuf> = Toml,
    }
    impl {
        fn needed(&self) -> &'static [&'static str] {
            &["user"]
        }
        fn short(&mut self, value: Node<'_>) -> Result<bool, Error> {
            if let (true, Shape::Text(text)) = (value.by_hand, value.shape()?) {
                *self = value.parse(text)?;
                return Ok(true);
            }
            Ok(false)
        }
    }
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

impl Read for Flag {
    fn read(value: Node<'_>) -> Result<Self, Error> {
        match value.shape()? {
            Shape::Truth(truth) => Ok(Flag(truth)),
            Shape::Text(text) => value.parse(text),
            _ => Err(value.wrong_type("true or false")),
        }
    }
}

//! Where a broker is, as a URL says it.
//!
//! | URL | WAMP | STOMP |
//! |---|---|---|
//! | `ws://host:port/path`, `wss://` | WebSocket | WebSocket |
//! | `tcp://host:port`, `tls://` | RawSocket | plain STOMP |
//! | `unix:/path/of/socket` | RawSocket | plain STOMP |
//! | `http://host:port/path`, `https://` | long-polling below `path` | the same |
//!
//! A port that is not said is 80 or 443 for WebSocket and HTTP; the others have no default.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a broker is, and what carries the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// WebSocket.
    WebSocket(Place),
    /// Bytes over TCP.
    Tcp(Place),
    /// Bytes over a Unix socket.
    Unix(PathBuf),
    /// Long-polling over HTTP.
    LongPoll(Place),
}

/// A host, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it is over TLS.
    pub tls: bool,
    /// A name or an IP address; of IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path and the query; begins with a slash.
    pub path: String,
}

impl Place {
    /// What a `Host` header says: without the port where it is the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

/// What is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url} is no address of a broker: {why}")]
pub struct AddressError {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Address, AddressError> {
        parse(url).map_err(|why| AddressError { url: url.to_owned(), why })
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(url: &str) -> Result<Address, AddressError> {
        url.parse()
    }
}

fn parse(url: &str) -> Result<Address, &'static str> {
    let (scheme, rest) = url.split_once(':').ok_or("it has no scheme, such as ws://")?;
    if scheme == "unix" {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        return if path.starts_with('/') {
            Ok(Address::Unix(path.into()))
        } else {
            Err("the path of a Unix socket begins with a slash")
        };
    }
    let rest = rest.strip_prefix("//").ok_or("after the scheme comes //")?;
    let place = |tls, port| place(rest, tls, port);
    match scheme {
        "ws" => Ok(Address::WebSocket(place(false, Some(80))?)),
        "wss" => Ok(Address::WebSocket(place(true, Some(443))?)),
        "http" => Ok(Address::LongPoll(place(false, Some(80))?)),
        "https" => Ok(Address::LongPoll(place(true, Some(443))?)),
        "tcp" => Ok(Address::Tcp(place(false, None)?)),
        "tls" => Ok(Address::Tcp(place(true, None)?)),
        _ => Err("the scheme is none of ws, wss, tcp, tls, unix, http, https"),
    }
}

fn place(rest: &str, tls: bool, default_port: Option<u16>) -> Result<Place, &'static str> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split('#').next().unwrap_or_default();
    if authority.contains('@') {
        return Err("a login is not part of it");
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    // They become parts of requests.
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("what is not a letter, a digit or punctuation of ASCII must be escaped");
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| "the port is no number up to 65535")?,
        None => default_port.ok_or("it names no port")?,
    };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Place { tls, host: host.to_owned(), port, path })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, place) = match self {
            Address::WebSocket(place) => (if place.tls { "wss" } else { "ws" }, place),
            Address::LongPoll(place) => (if place.tls { "https" } else { "http" }, place),
            Address::Tcp(place) => (if place.tls { "tls" } else { "tcp" }, place),
            Address::Unix(path) => return write!(f, "unix:{}", path.display()),
        };
        let host = if place.host.contains(':') { format!("[{}]", place.host) } else { place.host.clone() };
        let path = if place.path == "/" { "" } else { &place.path };
        write!(f, "{scheme}://{host}:{}{path}", place.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_its_url_says() {
        let place = |tls, host: &str, port, path: &str| Place {
            tls,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        };
        let cases = [
            ("ws://localhost:8080", Address::WebSocket(place(false, "localhost", 8080, "/"))),
            (
                "wss://broker.example/ws?x=1#y",
                Address::WebSocket(place(true, "broker.example", 443, "/ws?x=1")),
            ),
            ("ws://[::1]:8080/a", Address::WebSocket(place(false, "::1", 8080, "/a"))),
            ("tcp://127.0.0.1:61613", Address::Tcp(place(false, "127.0.0.1", 61613, "/"))),
            ("tls://h:1", Address::Tcp(place(true, "h", 1, "/"))),
            ("unix:/run/tandem/socket", Address::Unix("/run/tandem/socket".into())),
            ("https://h/lp", Address::LongPoll(place(true, "h", 443, "/lp"))),
        ];
        for (url, address) in cases {
            assert_eq!(url.parse(), Ok(address), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for url in [
            "",
            "localhost:8080",
            "ws:/h",
            "ws://",
            "ws://h:70000",
            "tcp://h",
            "ftp://h:1",
            "ws://a:b@h/",
            "unix:x",
            "ws://h/a b",
            "ws://h/\r\nx",
            "wss://höhe/",
        ] {
            assert!(url.parse::<Address>().is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for url in ["ws://h:80/a", "tls://[::1]:5", "unix:/a/b", "http://h:8080/lp"] {
            let address: Address = url.parse().unwrap();
            assert_eq!(address.to_string(), url);
        }
    }
}

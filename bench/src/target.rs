//! What is loaded: the broker's URL, and what is spoken there.

use std::fmt;

use http::Uri;

/// How bytes get to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// `ws://`
    WebSocket,
    /// `tcp://`, and by what is spoken `stomp://`, `nats://` or `mqtt://`
    Tcp,
    /// `rs://` or `rawsocket://`
    RawSocket,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How to connect.
    pub wire: Wire,
    /// Its name or address, and its port.
    pub authority: String,
    /// Of a WebSocket: what to ask for.
    pub path: String,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let (wire, port) = match uri.scheme_str() {
            Some("ws") => (Wire::WebSocket, 80),
            Some("tcp" | "stomp") => (Wire::Tcp, 61613),
            Some("nats") => (Wire::Tcp, 4222),
            Some("mqtt") => (Wire::Tcp, 1883),
            Some("rs" | "rawsocket") => (Wire::RawSocket, 8080),
            _ => return Err(format!("{url}: begins with none of ws://, tcp:// and rs://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| format!("{url}: no host"))?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(port));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { wire, authority, path })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wire {
            Wire::WebSocket => write!(f, "ws://{}{}", self.authority, self.path),
            Wire::Tcp => write!(f, "tcp://{}", self.authority),
            Wire::RawSocket => write!(f, "rs://{}", self.authority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_the_wire_the_address_and_the_path() {
        let parsed = |url| Target::parse(url).unwrap();
        assert_eq!(parsed("ws://127.0.0.1:15674/ws").to_string(), "ws://127.0.0.1:15674/ws");
        assert_eq!(parsed("ws://localhost").to_string(), "ws://localhost:80/");
        assert_eq!(parsed("tcp://[::1]:61613").authority, "[::1]:61613");
        assert_eq!(parsed("stomp://broker").to_string(), "tcp://broker:61613");
        assert_eq!(parsed("rawsocket://broker:9").wire, Wire::RawSocket);
    }

    #[test]
    fn what_is_no_url_of_a_broker_is_said_so() {
        for (url, part) in
            [("http://x", "none of"), ("x", "none of"), ("ws://", "ws://"), ("tcp://:1", "tcp://")]
        {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}

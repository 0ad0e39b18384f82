//! A peer that is not at the other end of its connection, but behind a proxy.

use std::fmt;
use std::net::SocketAddr;

use crate::core::secure::Secure;

/// Somebody behind a proxy. Wherever they are, they do not count as connecting from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// Where the peer is, as the proxy says; the proxy itself where it does not say. The port is 0 where it is not
    /// known.
    pub address: SocketAddr,
    /// Whether the proxy said so. If not, this is not the proxy either: what it says of others is not believed.
    pub is_known: bool,
    /// Who says so, as the log names them.
    pub proxy: String,
    /// TLS that goes through the proxy, from the peer to the broker.
    pub secure: Option<Secure>,
    /// Whether nobody on the way from the peer can read what it sends, as far as is known.
    pub is_private: bool,
}

impl Proxied {
    /// The same where the peer speaks over several connections.
    pub fn unbound(&self) -> Proxied {
        let secure = self.secure.as_ref().map(|secure| Secure { exporter: None, ..secure.clone() });
        Proxied { secure, ..self.clone() }
    }
}

impl fmt::Display for Proxied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.port() {
            0 => self.address.ip().fmt(f)?,
            _ => self.address.fmt(f)?,
        }
        write!(f, " by way of {}", self.proxy)
    }
}

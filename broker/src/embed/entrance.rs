//! Ways into a broker that do not lead by its listeners: from the same process, from an application's own listener, and
//! from its HTTP server.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Request;

use tandem_client::doorway::{ByteStream, Doorway};

use crate::core::access::Peer;
use crate::core::proxied::Proxied;
use crate::front::answer::Answer;
use crate::front::door::Door;
use crate::front::http;
use crate::front::wire::Foreign;

/// What is on its way within the process waits in so many bytes, in each direction.
const PIPE_BYTES: usize = 64 * 1024;

/// A way into a broker, which can be copied and handed around. When the broker has ended it leads nowhere.
#[derive(Clone)]
pub struct Entrance {
    door: Arc<Door>,
}

/// Where somebody comes from whom the application hands over.
///
/// An address of this machine counts as such: `anonymous = "loopback"` lets them in. It is the peer's, not that of a proxy
/// in front of the application, unless the configuration lists that proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    address: SocketAddr,
    is_private: bool,
}

impl Remote {
    /// The same over TLS, which the application has ended: passwords are taken where they must not be read on their way.
    /// Such a peer does not count as one of this machine, wherever it is.
    #[must_use]
    pub fn over_tls(self) -> Remote {
        Remote { is_private: true, ..self }
    }

    fn peer(self) -> Peer {
        let Remote { address, is_private } = self;
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if !is_private {
            return Peer::Socket(address);
        }
        let proxy = "the application".to_owned();
        Peer::Proxied(Arc::new(Proxied { address, is_known: true, proxy, secure: None, is_private }))
    }
}

impl From<SocketAddr> for Remote {
    fn from(address: SocketAddr) -> Remote {
        Remote { address, is_private: false }
    }
}

impl Entrance {
    pub(super) fn new(door: Arc<Door>) -> Entrance {
        Entrance { door }
    }

    /// Takes in a stream, as if a listener of the broker had accepted it: it may speak everything that is spoken at a
    /// port, in the clear. False when no more are taken. Must be called in a tokio runtime.
    pub fn take(&self, stream: impl Foreign, remote: impl Into<Remote>) -> bool {
        self.door.take_in(Box::new(stream), remote.into().peer())
    }

    /// Answers a request that came to the application's HTTP server, and is to become a WebSocket: the origin, the host,
    /// subprotocols and extensions are judged as at a port of the broker, by its configuration. The answer is to be sent
    /// as it is; if it is 101, the connection is the broker's from then on. Must be called in a tokio runtime.
    ///
    /// The request must be one of hyper's (version 1), or have its extensions, as those of axum do.
    pub fn upgrade<B>(&self, request: Request<B>, remote: impl Into<Remote>) -> Answer {
        http::answer_elsewhere(&self.door, &remote.into().peer(), request)
    }
}

impl Doorway for Entrance {
    fn open(&self) -> Result<Box<dyn ByteStream>, tandem_client::Error> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        if self.door.take_in(Box::new(ours), Peer::Local) {
            Ok(Box::new(theirs))
        } else {
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the broker takes nobody any more").into())
        }
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance")
            .field("is_open", &!self.door.shutdown.is_cancelled())
            .finish_non_exhaustive()
    }
}

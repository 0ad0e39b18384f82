//! What makes a client's connections.

use std::pin::Pin;

use tandem_protocols::stomp::frame::Version;

use crate::connector::Connector;
use crate::error::Error;
use crate::wire::Wire;

/// What comes of dialling: a wire, and the version that its subprotocol names, if it has one.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = Result<(Wire, Option<Version>), Error>> + Send + 'a>>;

/// Makes connections, each time that a client needs one. A [`Connector`] does so by addresses; an application that
/// has other ways to its broker brings its own.
pub trait Dial: Send + Sync + 'static {
    /// Connects, for one of these versions. Is cancelled when it takes too long.
    fn dial<'a>(&'a self, versions: &'a [Version]) -> Dialling<'a>;
}

impl Dial for Connector {
    fn dial<'a>(&'a self, versions: &'a [Version]) -> Dialling<'a> {
        Box::pin(self.stomp(versions))
    }
}

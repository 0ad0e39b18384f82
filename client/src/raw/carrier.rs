//! What a session of this module speaks over: one stream, or whatever an address leads to.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Error;
use crate::message::{Closed, Kind, Message};
use crate::raw::transport::Transport;

/// Carries messages: a [`Transport`], or a [`Wire`](crate::Wire), which may be long-polling as well. Each method is the
/// one of that name there.
#[allow(async_fn_in_trait, reason = "whoever spawns a session knows what carries it, and that it is Send")]
pub trait Carrier {
    /// Whether messages have a kind.
    fn has_kinds(&self) -> bool;

    /// How it ended, once all that came before was taken.
    fn closed(&self) -> Option<&Closed>;

    /// Bytes that were fed and are not written.
    fn output_bytes(&self) -> usize;

    /// Takes a message to be written with the next [`flush`](Self::flush) or [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// See [`Transport::feed`].
    fn feed(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error>;

    /// Writes all that was fed. May be cancelled.
    ///
    /// # Errors
    ///
    /// Those of the network.
    async fn flush(&mut self) -> Result<(), Error>;

    /// The next message; `None` once it has ended. Writes meanwhile. May be cancelled: nothing is lost.
    ///
    /// # Errors
    ///
    /// Those of the network, and what the server does against the rules.
    async fn next(&mut self) -> Result<Option<Message>, Error>;

    /// Ends it in good order.
    ///
    /// # Errors
    ///
    /// See [`Transport::close`].
    async fn close(&mut self) -> Result<Closed, Error>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier for Transport<S> {
    fn has_kinds(&self) -> bool {
        Transport::has_kinds(self)
    }

    fn closed(&self) -> Option<&Closed> {
        Transport::closed(self)
    }

    fn output_bytes(&self) -> usize {
        Transport::output_bytes(self)
    }

    fn feed(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        Transport::feed(self, kind, payload)
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Transport::flush(self).await
    }

    async fn next(&mut self) -> Result<Option<Message>, Error> {
        Transport::next(self).await
    }

    async fn close(&mut self) -> Result<Closed, Error> {
        Transport::close(self).await
    }
}

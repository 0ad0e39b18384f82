//! Messages of one connection, whatever carries it.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Error;
use crate::message::{Closed, Kind, Message};
use crate::raw::transport::Transport;

/// A stream of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// A connection that a session speaks over.
pub struct Wire {
    carrier: Carrier,
}

enum Carrier {
    Stream(Transport<Box<dyn ByteStream>>),
}

impl Wire {
    /// Over a stream on which both ends have agreed on what frames messages.
    pub fn new(transport: Transport<Box<dyn ByteStream>>) -> Wire {
        Wire { carrier: Carrier::Stream(transport) }
    }

    /// The WebSocket subprotocol that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        match &self.carrier {
            Carrier::Stream(transport) => transport.subprotocol(),
        }
    }

    /// Whether messages have a kind.
    pub fn has_kinds(&self) -> bool {
        match &self.carrier {
            Carrier::Stream(transport) => transport.has_kinds(),
        }
    }

    /// How it ended, once all that came before was taken.
    pub fn closed(&self) -> Option<&Closed> {
        match &self.carrier {
            Carrier::Stream(transport) => transport.closed(),
        }
    }

    /// Bytes that were fed and are not written.
    pub fn output_bytes(&self) -> usize {
        match &self.carrier {
            Carrier::Stream(transport) => transport.output_bytes(),
        }
    }

    /// Takes a message to be written with the next [`flush`](Self::flush) or [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// See [`Transport::feed`].
    pub fn feed(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        match &mut self.carrier {
            Carrier::Stream(transport) => transport.feed(kind, payload),
        }
    }

    /// Writes all that was fed. May be cancelled.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn flush(&mut self) -> Result<(), Error> {
        match &mut self.carrier {
            Carrier::Stream(transport) => transport.flush().await,
        }
    }

    /// The next message, or over plain TCP a piece of the stream; `None` once it has ended. Writes meanwhile. May be
    /// cancelled: nothing is lost.
    ///
    /// # Errors
    ///
    /// Those of the network, and what the server does against the rules.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        match &mut self.carrier {
            Carrier::Stream(transport) => transport.next().await,
        }
    }

    /// The next message if it is here already.
    pub fn try_next(&mut self) -> Option<Message> {
        match &mut self.carrier {
            Carrier::Stream(transport) => transport.try_next(),
        }
    }

    /// Ends the connection in good order.
    ///
    /// # Errors
    ///
    /// See [`Transport::close`].
    pub async fn close(&mut self) -> Result<Closed, Error> {
        match &mut self.carrier {
            Carrier::Stream(transport) => transport.close().await,
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("closed", &self.closed()).finish_non_exhaustive()
    }
}

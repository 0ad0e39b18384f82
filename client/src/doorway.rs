//! Streams of bytes, wherever they come from, and brokers that are reached without an address.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Error;

/// A stream of bytes.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// The way into a broker that has no address: one of this process, or behind something that the application knows how
/// to get through.
///
/// What is opened is spoken over as over TCP: RawSocket for WAMP, plain STOMP.
pub trait Doorway: Send + Sync + fmt::Debug {
    /// A fresh stream to the broker. Waits for nothing.
    ///
    /// # Errors
    ///
    /// Where the broker takes nobody any more. A client that connects again by itself tries again later.
    fn open(&self) -> Result<Box<dyn ByteStream>, Error>;
}

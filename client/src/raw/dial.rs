//! Connections: over TCP, or over any stream of bytes that is there already.
//!
//! `connect_*` dial, `open_*` shake hands over a given stream. All of them give up after
//! [`OPENING_TIMEOUT`].

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::rawsocket::Limit;

use crate::error::Error;
use crate::raw::rawsocket::RawSocket;
use crate::raw::transport::{Framing, Transport};
use crate::raw::websocket::WebSocket;

pub use crate::raw::websocket::WebSocketOptions;

/// How long connecting may take, and how long shaking hands may.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a WebSocket to `path`, offering `subprotocols`, best first.
///
/// # Errors
///
/// [`Error::Refused`] where the server answers with another status than 101, and what else can go wrong with
/// a network and a handshake. A server that chooses no subprotocol is none of these: see
/// [`Transport::subprotocol`].
pub async fn connect_websocket(
    addr: impl ToSocketAddrs,
    path: &str,
    subprotocols: &[&str],
    options: &WebSocketOptions,
) -> Result<Transport, Error> {
    let stream = connect(addr).await?;
    let host = stream.peer_addr()?.to_string();
    open_websocket(stream, &host, path, subprotocols, options).await
}

/// As [`connect_websocket`], over a stream. `host` is what `Host` says unless the options know better.
///
/// # Errors
///
/// See there.
pub async fn open_websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    path: &str,
    subprotocols: &[&str],
    options: &WebSocketOptions,
) -> Result<Transport<S>, Error> {
    within("answer to the handshake", shake_websocket(stream, host, path, subprotocols, options)).await
}

/// The same for whoever keeps the time.
pub(crate) async fn shake_websocket<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    host: &str,
    path: &str,
    subprotocols: &[&str],
    options: &WebSocketOptions,
) -> Result<Transport<S>, Error> {
    let (socket, rest) = WebSocket::open(&mut stream, host, path, subprotocols, options).await?;
    Ok(Transport::new(stream, Framing::WebSocket(socket), rest))
}

/// Opens a RawSocket for WAMP in `format`, on which the router may send `length_max` bytes at once.
///
/// # Errors
///
/// [`Error::RawSocketHandshake`] where the router refuses.
pub async fn connect_rawsocket(
    addr: impl ToSocketAddrs,
    format: Format,
    length_max: Limit,
) -> Result<Transport, Error> {
    open_rawsocket(connect(addr).await?, format, length_max).await
}

/// As [`connect_rawsocket`], over a stream.
///
/// # Errors
///
/// See there.
pub async fn open_rawsocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    format: Format,
    length_max: Limit,
) -> Result<Transport<S>, Error> {
    within("answer to the handshake", shake_rawsocket(stream, format, length_max)).await
}

/// The same for whoever keeps the time.
pub(crate) async fn shake_rawsocket<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    format: Format,
    length_max: Limit,
) -> Result<Transport<S>, Error> {
    let socket = RawSocket::open(&mut stream, format, length_max).await?;
    Ok(Transport::new(stream, Framing::RawSocket(socket), Vec::new()))
}

/// Connects without any framing, as STOMP does over TCP: its messages are pieces of the stream.
///
/// # Errors
///
/// Those of the network.
pub async fn connect_tcp(addr: impl ToSocketAddrs) -> Result<Transport, Error> {
    Ok(open_tcp(connect(addr).await?))
}

/// As [`connect_tcp`], over a stream.
pub fn open_tcp<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Transport<S> {
    Transport::new(stream, Framing::Stream, Vec::new())
}

async fn connect(addr: impl ToSocketAddrs) -> Result<TcpStream, Error> {
    let stream = within("connection", async { Ok(TcpStream::connect(addr).await?) }).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn within<T>(what: &'static str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(OPENING_TIMEOUT, work).await.map_err(|_| Error::Timeout(what))?
}

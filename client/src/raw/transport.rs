//! Messages over one connection, whatever frames them.
//!
//! One read of up to [`READ_BYTES_MAX`] is cut into all the messages it holds, and what is fed is written at
//! once, so that neither direction costs a system call for each message. The read buffer belongs to the
//! thread: an idle connection owns none.
//!
//! Both directions are moved by whatever is awaited. [`next`](Transport::next) writes what waits while it reads.
//! [`flush`](Transport::flush) reads while it cannot write, because a server that cannot get rid of its output
//! stops taking input; what it reads waits in the inbox, which has a limit.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use tandem_protocols::wamp::rawsocket::FrameType;
use tandem_protocols::websocket::extensions::Agreement;
use tandem_protocols::websocket::frame::{Header, Opcode, close};

use crate::error::Error;
use crate::message::Arrivals;
use crate::raw::rawsocket::RawSocket;
use crate::raw::websocket::{WebSocket, put_control, put_frame};

pub use crate::message::{Closed, Kind, Message};

/// How much is read at once.
pub const READ_BYTES_MAX: usize = 64 * 1024;

/// Where so much waits to be written, nothing more is fed. The message that goes beyond it is still taken.
pub const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// What the inbox may hold before [`flush`](Transport::flush) stops reading, unless it is set otherwise.
pub const INBOX_BYTES_MAX: usize = 4 << 20;

/// How long [`close`](Transport::close) waits for the peer.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// An output buffer that grew beyond this is not kept.
const OUTPUT_KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES_MAX].into());
}

/// A connection.
#[derive(Debug)]
pub struct Transport<S = TcpStream> {
    stream: S,
    framing: Framing,
    arrivals: Arrivals,
    /// How much of the output is written.
    written: usize,
    /// What was written may still be in the stream: TLS keeps what the socket does not take.
    is_unflushed: bool,
    /// Returned once the inbox is empty.
    failure: Option<Error>,
    inbox_bytes_max: usize,
    bytes_read: u64,
    bytes_written: u64,
}

/// What makes messages of bytes.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all connections are WebSockets")]
pub(crate) enum Framing {
    WebSocket(WebSocket),
    RawSocket(RawSocket),
    Stream,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Over a stream on which both ends have agreed on `framing`. `rest` is what was read beyond that.
    pub(crate) fn new(stream: S, framing: Framing, mut rest: Vec<u8>) -> Self {
        let mut transport = Self {
            stream,
            framing,
            arrivals: Arrivals::default(),
            written: 0,
            is_unflushed: false,
            failure: None,
            inbox_bytes_max: INBOX_BYTES_MAX,
            bytes_read: rest.len() as u64,
            bytes_written: 0,
        };
        if !rest.is_empty() {
            transport.receive(&mut rest);
        }
        transport
    }

    /// The WebSocket subprotocol that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.websocket()?.subprotocol.as_deref()
    }

    /// How a WebSocket compresses, if it does.
    pub fn compression(&self) -> Option<&Agreement> {
        self.websocket()?.agreement.as_ref()
    }

    /// Whether messages have a kind: that is, whether this is a WebSocket.
    pub fn has_kinds(&self) -> bool {
        self.websocket().is_some()
    }

    /// Whether a ping can be sent: not over plain TCP.
    pub fn has_pings(&self) -> bool {
        !matches!(self.framing, Framing::Stream)
    }

    /// How the connection ended, once all that came before was taken.
    pub fn closed(&self) -> Option<&Closed> {
        self.arrivals.closed.as_ref().filter(|_| self.arrivals.inbox.is_empty() && self.failure.is_none())
    }

    /// Bytes of frames and of the stream that were read; compressed ones as they came.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Bytes that were written, as they went.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Bytes that were fed and are not written.
    pub fn output_bytes(&self) -> usize {
        self.arrivals.output.len() - self.written
    }

    /// The payload of the last pong, once.
    pub fn take_pong(&mut self) -> Option<Bytes> {
        self.arrivals.pong.take()
    }

    /// The stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream, to do with as one likes. What is in the buffers is lost.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// How much [`flush`](Self::flush) may read while it cannot write; with 0 it never reads, so that the
    /// server's output is stuck.
    pub fn set_inbox_bytes_max(&mut self, bytes: usize) {
        self.inbox_bytes_max = bytes;
    }

    /// Whether pings are answered, as they must be.
    pub fn set_answers_pings(&mut self, answers: bool) {
        self.arrivals.ignores_pings = !answers;
    }

    /// Cuts WebSocket messages into fragments of this size from now on.
    pub fn set_fragment_bytes(&mut self, size: Option<usize>) {
        if let Framing::WebSocket(socket) = &mut self.framing {
            socket.fragment_bytes = size;
        }
    }

    /// Takes a message to be written with the next [`flush`](Self::flush) or [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// [`Error::OutputFull`], and [`Error::RawSocket`] for what is longer than the router takes.
    pub fn feed(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        self.make_room()?;
        let output = &mut self.arrivals.output;
        match &mut self.framing {
            Framing::WebSocket(socket) => socket.put(kind, payload, output),
            Framing::RawSocket(socket) => socket.put(FrameType::Message, payload, output)?,
            Framing::Stream => output.extend_from_slice(payload),
        }
        Ok(())
    }

    /// Takes a ping; on plain TCP there is none, and nothing happens.
    ///
    /// # Errors
    ///
    /// As [`feed`](Self::feed).
    pub fn feed_ping(&mut self, data: &[u8]) -> Result<(), Error> {
        self.make_room()?;
        match &self.framing {
            Framing::WebSocket(_) => put_control(Opcode::Ping, data, &mut self.arrivals.output),
            Framing::RawSocket(socket) => socket.put(FrameType::Ping, data, &mut self.arrivals.output)?,
            Framing::Stream => {}
        }
        Ok(())
    }

    /// Takes a WebSocket frame exactly as its header says, right or wrong; only masking is done here.
    ///
    /// # Errors
    ///
    /// [`Error::OutputFull`].
    pub fn feed_frame(&mut self, header: Header, payload: &[u8]) -> Result<(), Error> {
        self.make_room()?;
        put_frame(header, payload, &mut self.arrivals.output);
        Ok(())
    }

    /// Takes bytes to be written without any framing.
    ///
    /// # Errors
    ///
    /// [`Error::OutputFull`].
    pub fn feed_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.make_room()?;
        self.arrivals.output.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends a message now, with all that was fed before. Cancelled, it is fed nevertheless.
    ///
    /// # Errors
    ///
    /// Those of [`feed`](Self::feed) and [`flush`](Self::flush).
    pub async fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        self.feed(kind, payload)?;
        self.flush().await
    }

    /// Writes all that was fed. May be cancelled, and then goes on where it was.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// The next message; `None` once the connection has ended, and [`closed`](Self::closed) says how.
    ///
    /// May be cancelled: nothing is lost.
    ///
    /// # Errors
    ///
    /// Those of the network, and what the server does against the rules. All messages that came before are
    /// returned first, and nothing comes after.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        if let Some(message) = self.arrivals.take() {
            return Ok(Some(message));
        }
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next message if it has been read already, without waiting.
    pub fn try_next(&mut self) -> Option<Message> {
        self.arrivals.take()
    }

    /// Ends the connection: says goodbye with 1000 (on a WebSocket), and waits for the peer to do the same.
    ///
    /// What arrives in between is dropped. Gives how the peer ended it.
    ///
    /// # Errors
    ///
    /// Those of the network, and [`Error::Timeout`] after [`CLOSE_TIMEOUT`].
    pub async fn close(&mut self) -> Result<Closed, Error> {
        self.close_with(close::NORMAL, "").await
    }

    /// As [`close`](Self::close), with another code.
    ///
    /// # Errors
    ///
    /// See there.
    pub async fn close_with(&mut self, code: u16, reason: &str) -> Result<Closed, Error> {
        let closing = async {
            let closes_itself = match &mut self.framing {
                Framing::WebSocket(socket) => {
                    socket.put_close(code, reason, &mut self.arrivals.output);
                    true
                }
                Framing::RawSocket(_) | Framing::Stream => false,
            };
            self.flush().await?;
            if !closes_itself {
                self.stream.shutdown().await?;
            }
            while self.next().await?.is_some() {}
            let closed = self.arrivals.closed.clone().unwrap_or(Closed::Eof);
            if closes_itself && closed != Closed::Eof {
                self.stream.shutdown().await?;
            }
            Ok(closed)
        };
        timeout(CLOSE_TIMEOUT, closing).await.map_err(|_| Error::Timeout("end of the connection"))?
    }

    fn websocket(&self) -> Option<&WebSocket> {
        match &self.framing {
            Framing::WebSocket(socket) => Some(socket),
            Framing::RawSocket(_) | Framing::Stream => None,
        }
    }

    fn make_room(&self) -> Result<(), Error> {
        if self.output_bytes() >= OUTPUT_BYTES_MAX { Err(Error::OutputFull) } else { Ok(()) }
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        loop {
            // What cannot be written must not hide what the server said before it went.
            if let Poll::Ready(Err(_)) = self.poll_write(cx) {
                self.arrivals.output.clear();
                (self.written, self.is_unflushed) = (0, false);
            }
            if let Some(message) = self.arrivals.take() {
                return Poll::Ready(Ok(Some(message)));
            }
            if let Some(failure) = self.failure.take() {
                self.answer_violation(cx, &failure);
                return Poll::Ready(Err(failure));
            }
            if self.arrivals.closed.is_some() {
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_read(cx));
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.poll_write(cx)?.is_ready() {
                return Poll::Ready(Ok(()));
            }
            let is_full = self.arrivals.inbox_bytes >= self.inbox_bytes_max;
            if is_full || self.arrivals.closed.is_some() {
                return Poll::Pending;
            }
            ready!(self.poll_read(cx));
        }
    }

    /// Writes until all is on its way or the stream takes no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.arrivals.output.len() {
            let rest = &self.arrivals.output[self.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.bytes_written += count as u64;
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        self.written = 0;
        self.arrivals.output.clear();
        self.arrivals.output.shrink_to(OUTPUT_KEPT_BYTES);
        Poll::Ready(Ok(()))
    }

    /// Reads once. What comes is in the inbox then, or the connection has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Err(error) => self.fail(error.into()),
                Ok(()) if buffer.filled().is_empty() => self.end(),
                Ok(()) => {
                    self.bytes_read += buffer.filled().len() as u64;
                    self.receive(buffer.filled_mut());
                }
            }
            Poll::Ready(())
        })
    }

    fn receive(&mut self, data: &mut [u8]) {
        let arrivals = &mut self.arrivals;
        let received = match &mut self.framing {
            Framing::WebSocket(socket) => socket.receive(data, arrivals),
            Framing::RawSocket(socket) => socket.receive(data, arrivals),
            Framing::Stream => {
                arrivals.message(Message { kind: Kind::Binary, bytes: Bytes::copy_from_slice(data) });
                Ok(())
            }
        };
        let answered = self.answer_pings();
        if let Err(error) = received.and(answered) {
            self.fail(error);
        }
    }

    fn answer_pings(&mut self) -> Result<(), Error> {
        // A server that does not read the answers gets no more of them.
        let is_full = self.output_bytes() >= OUTPUT_BYTES_MAX;
        for data in std::mem::take(&mut self.arrivals.pings) {
            match &self.framing {
                _ if is_full => {}
                // Nothing may follow a close frame.
                Framing::WebSocket(socket) if socket.close_sent => {}
                Framing::WebSocket(_) => put_control(Opcode::Pong, &data, &mut self.arrivals.output),
                Framing::RawSocket(socket) => socket.put_pong(&data, &mut self.arrivals.output)?,
                Framing::Stream => {}
            }
        }
        Ok(())
    }

    /// Tells the server what it did wrong, behind all that was fed before.
    fn answer_violation(&mut self, cx: &mut Context<'_>, failure: &Error) {
        if let (Framing::WebSocket(socket), Error::WebSocket(violation)) = (&mut self.framing, failure) {
            socket.put_close(violation.code, violation.text, &mut self.arrivals.output);
            // What cannot be written now is by the next that is awaited. That it failed is said already.
            let _ = self.poll_write(cx);
        }
    }

    fn end(&mut self) {
        let is_incomplete = match &self.framing {
            Framing::WebSocket(socket) => socket.is_incomplete(),
            Framing::RawSocket(socket) => socket.is_incomplete(),
            Framing::Stream => false,
        };
        if is_incomplete {
            self.fail(Error::Io(io::ErrorKind::UnexpectedEof.into()));
        } else {
            self.arrivals.closed = Some(Closed::Eof);
        }
    }

    fn fail(&mut self, error: Error) {
        self.failure = Some(error);
        self.arrivals.closed = Some(Closed::Failed);
    }
}

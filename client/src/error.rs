//! What can go wrong, whoever's fault it is.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use tandem_protocols::stomp;
use tandem_protocols::stomp::frame::Frame;
use tandem_protocols::wamp;
use tandem_protocols::wamp::message::{Abort, Goodbye, Message};
use tandem_protocols::wamp::rawsocket;
use tandem_protocols::websocket::frame;
use tandem_protocols::websocket::handshake::AnswerError;

use crate::address::AddressError;
use crate::message::{Closed, Kind};
use crate::tls::TlsError;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network, or the address.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS cannot be spoken as it was asked for. A handshake that fails is [`Error::Io`].
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Nothing came in time.
    #[error("no {0} in time")]
    Timeout(&'static str),
    /// What was asked for cannot be done with these addresses and settings, or not with this server.
    #[error("not possible: {0}")]
    Unsupported(&'static str),
    /// What was given is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The connection was lost before there was an answer: whether it was done is not known. Of a delivery: it
    /// came before the connection was lost, cannot be settled any more, and is handed out again.
    #[error("the connection was lost, and with it whether this was done")]
    ConnectionLost,
    /// The client tries no more to connect, and this is why.
    #[error("the client gave up: {0}")]
    GaveUp(Arc<Error>),
    /// The client was disconnected by its owner.
    #[error("the client is disconnected")]
    Disconnected,
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Closed(Closed),
    /// More waits to be written than [`transport::OUTPUT_BYTES_MAX`](crate::raw::transport::OUTPUT_BYTES_MAX).
    #[error("too much waits to be written")]
    OutputFull,
    /// More arrived while a reply was awaited than the client may keep.
    #[error("too many messages arrived while a reply was awaited")]
    QueueFull,

    /// The server answered the WebSocket handshake with something else than 101, or a request of long-polling with
    /// something else than it should.
    #[error("the server answered {status}: {}", String::from_utf8_lossy(body))]
    Refused {
        /// The status code.
        status: u16,
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body, or the beginning of it.
        body: Bytes,
    },
    /// The answer to the WebSocket handshake is not one.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The answer to the WebSocket handshake is no HTTP.
    #[error(transparent)]
    Http(#[from] httparse::Error),
    /// The head of the answer to the WebSocket handshake does not end.
    #[error("the head of the answer is too long")]
    HeadTooLong,
    /// The server broke WebSocket.
    #[error("WebSocket: {0}")]
    WebSocket(#[from] frame::Violation),
    /// The router refused the RawSocket handshake, or answered with something else.
    #[error(transparent)]
    RawSocketHandshake(#[from] rawsocket::HandshakeError),
    /// A RawSocket frame breaks the rules, or is longer than its receiver takes.
    #[error(transparent)]
    RawSocket(#[from] rawsocket::FrameError),
    /// A message came as text where it should be binary, or the other way round.
    #[error("a message in a frame of kind {0:?}")]
    WrongKind(Kind),

    /// The router broke WAMP.
    #[error("WAMP: {0}")]
    Wamp(#[from] wamp::error::Violation),
    /// The message cannot be written.
    #[error(transparent)]
    Misuse(#[from] wamp::error::Misuse),
    /// The router answered a request with ERROR.
    #[error("{}", .0.error)]
    Reply(Box<wamp::message::Error>),
    /// The router aborted the session, or did not let it begin.
    #[error("the session was aborted: {}", .0.reason)]
    Abort(Box<Abort>),
    /// The router said goodbye.
    #[error("the session ended: {}", .0.reason)]
    Goodbye(Box<Goodbye>),
    /// A message that has no place here.
    #[error("{} has no place here", .0.name())]
    UnexpectedMessage(Box<Message>),
    /// A value has no form in the format, or is no list or dictionary.
    #[error("cannot encode: {0}")]
    Encode(String),
    /// The arguments are not of the type asked for.
    #[error("cannot decode: {0}")]
    Decode(String),

    /// The server broke STOMP.
    #[error("STOMP: {0}")]
    Stomp(#[from] stomp::error::Violation),
    /// The server sent ERROR.
    #[error("the server sent ERROR: {}", .0.headers.get("message").unwrap_or_default())]
    StompError(Box<Frame>),
    /// A call over STOMP was answered with an error; its URI is in the header `error`.
    #[error("{}", .0.headers.get("error").unwrap_or_default())]
    StompReply(Box<Frame>),
    /// A delivery is acknowledged, refused, or in a transaction already.
    #[error("the delivery is settled already")]
    Settled,
    /// A frame that has no place here.
    #[error("{} has no place here", .0.command)]
    UnexpectedFrame(Box<Frame>),
    /// A request of long-polling failed.
    #[error("HTTP: {0}")]
    LongPoll(#[from] hyper::Error),
    /// The server was silent for longer than the heart-beats agreed on allow, or did not answer a ping.
    #[error("the server is silent")]
    Silent,
}

impl Error {
    /// The URI by which the router said no, be it with ERROR, ABORT or GOODBYE.
    pub fn uri(&self) -> Option<&str> {
        match self {
            Self::Reply(error) => Some(&error.error),
            Self::Abort(abort) => Some(&abort.reason),
            Self::Goodbye(goodbye) => Some(&goodbye.reason),
            Self::StompReply(frame) => frame.headers.get("error"),
            _ => None,
        }
    }
}

/// For an address that is one already.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Error {
        match never {}
    }
}

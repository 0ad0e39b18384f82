//! How messages lie on a wire: WebSocket frames, RawSocket frames, or a plain stream.

use bytes::Bytes;

use crate::core::message::{Frame, Kind, SharedMessages};
use crate::core::protocol::{Close, Reason};
use crate::front::framing::{Arrival, Piece, put_bytes};
use crate::front::longpoll::lane::LongPoll;
use crate::front::rawsocket::RawSocket;
use crate::front::sockjs::socket::SockJsSocket;
use crate::front::websocket::WebSocket;

/// How messages lie on a wire.
#[derive(Debug)]
pub enum Transport {
    /// RFC 6455.
    WebSocket(WebSocket),
    /// RFC 6455 with SockJS's frames in it.
    SockJs(Box<SockJsSocket>),
    /// WAMP's frames for streams.
    RawSocket(RawSocket),
    /// Between the requests of HTTP.
    LongPoll(LongPoll),
    /// Nothing of the wire's own: the language has its frames in the stream.
    Stream,
}

impl Transport {
    /// Takes the next thing off what was read. Works in place; `None` means that all was taken.
    pub fn next(&mut self, data: &mut &mut [u8], established: bool) -> Result<Option<Arrival>, Close> {
        match self {
            Transport::WebSocket(websocket) => websocket.next(data, established),
            Transport::SockJs(socket) => socket.next(data, established),
            Transport::RawSocket(rawsocket) => rawsocket.next(data),
            Transport::LongPoll(longpoll) => Ok(longpoll.next(data)),
            Transport::Stream if data.is_empty() => Ok(None),
            Transport::Stream => {
                let piece = Bytes::copy_from_slice(data);
                *data = &mut [];
                Ok(Some(Arrival::Message(Kind::Raw, piece)))
            }
        }
    }

    /// Takes a message off what was read and gives it where it lies; `None` where that cannot be: that is for
    /// [`next`](Transport::next).
    #[inline]
    pub fn next_in_place<'a>(&mut self, data: &mut &'a mut [u8]) -> Option<Result<(Kind, &'a [u8]), Close>> {
        match self {
            Transport::WebSocket(websocket) => websocket.next_in_place(data),
            Transport::SockJs(_) | Transport::RawSocket(_) | Transport::LongPoll(_) | Transport::Stream => {
                None
            }
        }
    }

    /// True when there is more to take of what was read before.
    pub fn has_more(&self) -> bool {
        matches!(self, Transport::SockJs(socket) if socket.has_more())
    }

    /// What the wire begins with, before anything is said.
    pub fn greeting(&mut self) -> Option<Bytes> {
        let Transport::SockJs(socket) = self else { return None };
        Some(socket.greeting())
    }

    /// Why the session must end, once there was a message that cannot be put onto this wire.
    pub fn take_failure(&mut self) -> Option<Close> {
        match self {
            Transport::SockJs(socket) => socket.take_failure(),
            Transport::LongPoll(longpoll) => longpoll.take_failure(),
            Transport::WebSocket(_) | Transport::RawSocket(_) | Transport::Stream => None,
        }
    }

    /// The longest message that the peer takes, if it said one.
    pub fn peer_bytes_max(&self) -> Option<usize> {
        let Transport::RawSocket(rawsocket) = self else { return None };
        Some(rawsocket.peer_bytes_max())
    }

    /// Puts a message onto the wire: into `buffer`, or beside it.
    pub fn frame(&mut self, frame: &Frame, buffer: &mut Vec<u8>) -> Piece {
        match self {
            Transport::WebSocket(websocket) => websocket.frame(frame, buffer),
            Transport::SockJs(socket) => socket.frame(frame, buffer),
            Transport::RawSocket(rawsocket) => rawsocket.frame(frame, buffer),
            Transport::LongPoll(longpoll) => longpoll.frame(frame, buffer),
            Transport::Stream => put_bytes(&frame.message().head, &frame.message().body, buffer),
        }
    }

    /// Puts several messages onto the wire: into `buffer`, or beside it. None where it takes one at a time.
    pub fn frame_all(&mut self, messages: &SharedMessages, buffer: &mut Vec<u8>) -> Option<Piece> {
        match self {
            Transport::WebSocket(websocket) => websocket.frame_all(messages, buffer),
            Transport::SockJs(_) | Transport::RawSocket(_) | Transport::LongPoll(_) | Transport::Stream => {
                None
            }
        }
    }

    /// Appends the next fragment of a message; gives its bytes and what is left after it.
    pub fn continue_fragments(&mut self, mut rest: Bytes, buffer: &mut Vec<u8>) -> (Bytes, Bytes) {
        match self {
            Transport::WebSocket(websocket) => websocket.continue_fragments(rest, buffer),
            Transport::SockJs(socket) => socket.continue_fragments(rest, buffer),
            Transport::RawSocket(_) | Transport::LongPoll(_) | Transport::Stream => {
                (std::mem::take(&mut rest), rest)
            }
        }
    }

    /// Appends an answer to a ping.
    pub fn pong(&mut self, data: &Bytes, buffer: &mut Vec<u8>) {
        match self {
            Transport::WebSocket(websocket) => websocket.pong(data, buffer),
            Transport::SockJs(socket) => socket.websocket.pong(data, buffer),
            Transport::RawSocket(rawsocket) => rawsocket.pong(data, buffer),
            Transport::LongPoll(_) | Transport::Stream => {}
        }
    }

    /// Appends a question whether the peer is alive. False when this wire has none.
    pub fn ping(&mut self, buffer: &mut Vec<u8>) -> bool {
        match self {
            Transport::WebSocket(websocket) => websocket.ping(buffer),
            Transport::SockJs(socket) => socket.ping(buffer),
            Transport::RawSocket(rawsocket) => rawsocket.ping(buffer),
            // The door counts how long there was no request.
            Transport::LongPoll(_) | Transport::Stream => return false,
        }
        true
    }

    /// Appends the wire's own goodbye. True when the peer is expected to answer it.
    pub fn close(&mut self, reason: Option<Reason>, buffer: &mut Vec<u8>) -> bool {
        match self {
            Transport::WebSocket(websocket) => websocket.close(reason, buffer),
            Transport::SockJs(socket) => socket.close(reason, buffer),
            Transport::RawSocket(_) | Transport::Stream => false,
            Transport::LongPoll(longpoll) => {
                longpoll.close(reason);
                false
            }
        }
    }

    /// The peer was let in.
    pub fn note_established(&mut self) {
        match self {
            Transport::LongPoll(longpoll) => longpoll.note_established(),
            Transport::WebSocket(_) | Transport::SockJs(_) | Transport::RawSocket(_) | Transport::Stream => {}
        }
    }

    /// True when the peer is in the middle of a message.
    pub fn is_incomplete(&self) -> bool {
        match self {
            Transport::WebSocket(websocket) => websocket.is_incomplete(),
            Transport::SockJs(socket) => socket.websocket.is_incomplete(),
            Transport::RawSocket(rawsocket) => rawsocket.is_incomplete(),
            Transport::LongPoll(longpoll) => longpoll.is_incomplete(),
            Transport::Stream => false,
        }
    }
}

//! How messages lie on a wire: WebSocket frames, RawSocket frames, or a plain stream.

use bytes::Bytes;

use crate::core::message::{Frame, Kind};
use crate::core::protocol::{Close, Reason};
use crate::front::rawsocket::RawSocket;
use crate::front::websocket::WebSocket;

/// Something that came off a wire.
#[derive(Debug)]
pub enum Arrival {
    /// A message, or a piece of a stream.
    Message(Kind, Bytes),
    /// The peer wants this back.
    Ping(Bytes),
    /// The peer is alive.
    Pong,
    /// The peer ends the conversation.
    Close,
}

/// How messages lie on a wire.
#[derive(Debug)]
pub enum Framing {
    /// RFC 6455.
    WebSocket(WebSocket),
    /// WAMP's frames for streams.
    RawSocket(RawSocket),
    /// Nothing of the wire's own: the language has its frames in the stream.
    Stream,
}

/// A piece of output: small ones are copied together, large ones are written from where they lie.
#[derive(Debug)]
pub enum Piece {
    /// It was appended to the buffer, whole.
    Copied,
    /// Its head was appended to the buffer; these bytes come after it.
    Body(Bytes),
    /// The first fragment was appended like [`Piece::Body`]; the rest is to follow, with others' control
    /// frames between.
    Fragmented {
        /// The bytes of the first fragment.
        first: Bytes,
        /// The rest.
        rest: Bytes,
    },
}

/// Bodies from here on are written from where they lie.
pub const COPY_BYTES_MAX: usize = 8 * 1024;

impl Framing {
    /// Takes in what was read, and hands on what is in it. Works in place.
    pub fn receive(
        &mut self,
        data: &mut [u8],
        established: bool,
        arrive: &mut dyn FnMut(Arrival),
    ) -> Result<(), Close> {
        match self {
            Framing::WebSocket(websocket) => websocket.receive(data, established, arrive),
            Framing::RawSocket(rawsocket) => rawsocket.receive(data, arrive),
            Framing::Stream => {
                arrive(Arrival::Message(Kind::Raw, Bytes::copy_from_slice(data)));
                Ok(())
            }
        }
    }

    /// Puts a message onto the wire: into `buffer`, or beside it.
    pub fn frame(&mut self, frame: &Frame, buffer: &mut Vec<u8>) -> Piece {
        match self {
            Framing::WebSocket(websocket) => websocket.frame(frame, buffer),
            Framing::RawSocket(rawsocket) => rawsocket.frame(frame, buffer),
            Framing::Stream => put_bytes(&frame.message().head, &frame.message().body, buffer),
        }
    }

    /// Appends the next fragment of a message; gives its bytes and what is left after it.
    pub fn continue_fragments(&mut self, mut rest: Bytes, buffer: &mut Vec<u8>) -> (Bytes, Bytes) {
        match self {
            Framing::WebSocket(websocket) => websocket.continue_fragments(rest, buffer),
            Framing::RawSocket(_) | Framing::Stream => (std::mem::take(&mut rest), rest),
        }
    }

    /// Appends an answer to a ping.
    pub fn pong(&mut self, data: &Bytes, buffer: &mut Vec<u8>) {
        match self {
            Framing::WebSocket(websocket) => websocket.pong(data, buffer),
            Framing::RawSocket(rawsocket) => rawsocket.pong(data, buffer),
            Framing::Stream => {}
        }
    }

    /// Appends a question whether the peer is alive. False when this wire has none.
    pub fn ping(&mut self, buffer: &mut Vec<u8>) -> bool {
        match self {
            Framing::WebSocket(websocket) => websocket.ping(buffer),
            Framing::RawSocket(rawsocket) => rawsocket.ping(buffer),
            Framing::Stream => return false,
        }
        true
    }

    /// Appends the wire's own goodbye. True when the peer is expected to answer it.
    pub fn close(&mut self, reason: Option<Reason>, buffer: &mut Vec<u8>) -> bool {
        match self {
            Framing::WebSocket(websocket) => websocket.close(reason, buffer),
            Framing::RawSocket(_) | Framing::Stream => false,
        }
    }

    /// True when the peer is in the middle of a message.
    pub fn is_incomplete(&self) -> bool {
        match self {
            Framing::WebSocket(websocket) => websocket.is_incomplete(),
            Framing::RawSocket(rawsocket) => rawsocket.is_incomplete(),
            Framing::Stream => false,
        }
    }
}

/// Appends `head`, and `body` too unless it is large.
pub fn put_bytes(head: &Bytes, body: &Bytes, buffer: &mut Vec<u8>) -> Piece {
    if head.len() + body.len() <= COPY_BYTES_MAX {
        buffer.extend_from_slice(head);
        buffer.extend_from_slice(body);
        Piece::Copied
    } else if body.is_empty() {
        Piece::Body(head.clone())
    } else {
        buffer.extend_from_slice(head);
        Piece::Body(body.clone())
    }
}

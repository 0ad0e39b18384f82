//! What goes between the pump and a transport: what arrived, and pieces of what is to be sent.

use bytes::Bytes;

use crate::core::message::{Kind, Message};
use crate::core::protocol::{Close, Reason};

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

impl Arrival {
    /// The bytes in it.
    pub fn bytes(&self) -> usize {
        match self {
            Arrival::Message(_, bytes) | Arrival::Ping(bytes) => bytes.len(),
            Arrival::Pong | Arrival::Close => 0,
        }
    }
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

/// Whether what a session says fits a wire that takes only text. What does not cannot be sent, and is not left out
/// in silence either: the session ends, and says why.
#[derive(Debug, Default)]
pub struct Fitness {
    only_text: bool,
    failed: bool,
}

impl Fitness {
    /// Of a wire that takes only text.
    pub fn for_text() -> Fitness {
        Fitness { only_text: true, failed: false }
    }

    /// True when a message can be sent.
    pub fn judge(&mut self, message: &Message) -> bool {
        let is_text = |bytes: &Bytes| std::str::from_utf8(bytes).is_ok();
        let fits = !self.only_text
            || message.kind == Kind::Text
            || (is_text(&message.head) && is_text(&message.body));
        self.failed |= !fits;
        fits
    }

    /// Why the session must end, once there was a message that does not fit.
    pub fn take_failure(&mut self) -> Option<Close> {
        let failed = std::mem::take(&mut self.failed);
        failed.then(|| {
            Close::new(Reason::Refused, "this transport carries text, and a message for it is not UTF-8")
        })
    }
}

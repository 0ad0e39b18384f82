//! What comes over a connection, and how one ends.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

pub use tandem_protocols::websocket::message::Kind;

/// What arrives at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Text or binary. Without WebSocket, everything is binary.
    pub kind: Kind,
    /// A message, or over plain TCP a piece of the stream.
    pub bytes: Bytes,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The server sent a close frame.
    Frame {
        /// The status code, if there was one.
        code: Option<u16>,
        /// The reason; often empty.
        reason: String,
    },
    /// The stream ended between two messages.
    Eof,
    /// An error was returned before.
    Failed,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame { code: Some(code), reason } => write!(f, "closed with {code} {reason}"),
            Self::Frame { code: None, .. } => f.write_str("closed without a code"),
            Self::Eof => f.write_str("end of stream"),
            Self::Failed => f.write_str("it failed before"),
        }
    }
}

/// Pings of one read that are answered.
const PINGS_MAX: usize = 16;

/// What came, and what is to be written, some of it in answer.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) inbox: VecDeque<Message>,
    pub(crate) inbox_bytes: usize,
    pub(crate) output: Vec<u8>,
    pub(crate) closed: Option<Closed>,
    /// To be answered; of many in one read only the newest, as RFC 6455 section 5.5.3 allows.
    pub(crate) pings: VecDeque<Bytes>,
    pub(crate) pong: Option<Bytes>,
    pub(crate) ignores_pings: bool,
}

impl Arrivals {
    pub(crate) fn message(&mut self, message: Message) {
        self.inbox_bytes += message_bytes(&message);
        self.inbox.push_back(message);
    }

    pub(crate) fn ping(&mut self, data: Bytes) {
        if self.ignores_pings {
            return;
        }
        if self.pings.len() == PINGS_MAX {
            self.pings.pop_front();
        }
        self.pings.push_back(data);
    }

    pub(crate) fn pong(&mut self, data: Bytes) {
        self.pong = Some(data);
    }

    pub(crate) fn take(&mut self) -> Option<Message> {
        let message = self.inbox.pop_front()?;
        self.inbox_bytes -= message_bytes(&message);
        Some(message)
    }
}

/// What a message takes in the inbox, so that many empty ones count as well.
pub(crate) fn message_bytes(message: &Message) -> usize {
    message.bytes.len() + size_of::<Message>()
}

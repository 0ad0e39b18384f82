//! How a session speaks: in which version, and as which kind of message.
//!
//! Over a WebSocket a frame is a text message if the peer speaks in texts and the frame is one, and a binary
//! message otherwise. One frame is one message.

use bytes::Bytes;

use tandem_protocols::stomp::codec::{HEART_BEAT, encode};
use tandem_protocols::stomp::frame::{self, Command, Version};

use crate::core::message::{Frame, Kind, Message};
use crate::core::protocol::{Close, Output, Outputs};

/// What carries the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A stream of bytes.
    Stream,
    /// WebSocket messages, of a peer that speaks in texts.
    Text,
    /// WebSocket messages, of a peer that does not.
    Binary,
}

impl Carrier {
    /// That of a peer from which a message of this kind came.
    pub(super) fn of(kind: Kind) -> Carrier {
        match kind {
            Kind::Raw => Carrier::Stream,
            Kind::Text => Carrier::Text,
            Kind::Binary => Carrier::Binary,
        }
    }
}

/// What is to be said, and how.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) version: Version,
    pub(super) carrier: Carrier,
    /// Something was said since the flag was last taken.
    spoke: bool,
    outputs: Outputs,
}

impl Voice {
    /// Until a version is agreed on, 1.0 is spoken: it has no escapes.
    pub(super) fn new() -> Voice {
        let (version, carrier) = (Version::V10, Carrier::Stream);
        Voice { version, carrier, spoke: false, outputs: Outputs::default() }
    }

    /// The kind of a message whose bytes are text, or are not.
    pub(super) fn kind(&self, is_text: bool) -> Kind {
        match self.carrier {
            Carrier::Stream => Kind::Raw,
            Carrier::Text if is_text => Kind::Text,
            Carrier::Text | Carrier::Binary => Kind::Binary,
        }
    }

    /// What tells apart the encodings of a message for peers that are spoken to differently.
    pub(super) fn dialect(&self) -> &'static str {
        self.dialect_in(self.version)
    }

    /// The same, if this version is agreed on.
    pub(super) fn dialect_in(&self, version: Version) -> &'static str {
        match (version, self.carrier) {
            (Version::V10, Carrier::Stream) => "v10.stomp/stream",
            (Version::V10, Carrier::Text) => "v10.stomp/text",
            (Version::V10, Carrier::Binary) => "v10.stomp/binary",
            (Version::V11, Carrier::Stream) => "v11.stomp/stream",
            (Version::V11, Carrier::Text) => "v11.stomp/text",
            (Version::V11, Carrier::Binary) => "v11.stomp/binary",
            (Version::V12, Carrier::Stream) => "v12.stomp/stream",
            (Version::V12, Carrier::Text) => "v12.stomp/text",
            (Version::V12, Carrier::Binary) => "v12.stomp/binary",
        }
    }

    /// Says a frame that only this peer gets.
    pub(super) fn say(&mut self, frame: &frame::Frame) {
        let is_text = str::from_utf8(&frame.body).is_ok();
        let message = Message::new(self.kind(is_text), encode(self.version, frame));
        self.send(Frame::Own(message));
    }

    /// Says that a frame which asked for a receipt was processed.
    pub(super) fn receipt(&mut self, id: &str) {
        self.say(&frame::Frame::new(Command::Receipt).with("receipt-id", id));
    }

    /// Shows that this end is alive.
    pub(super) fn beat(&mut self) {
        self.send(Frame::Own(Message::new(self.kind(true), Bytes::from_static(HEART_BEAT))));
    }

    /// Says a frame that was encoded before.
    pub(super) fn send(&mut self, frame: Frame) {
        self.spoke = true;
        self.push(Output::Send(frame));
    }

    /// Asks for something else than to say a frame.
    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// Ends the wire once everything was said.
    pub(super) fn close(&mut self, close: Close) {
        self.push(Output::Close(close));
    }

    /// What is next.
    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.poll()
    }

    /// Holds no memory for what is to be said.
    pub(super) fn rest(&mut self) {
        self.outputs.rest();
    }

    /// Whether anything was said since this was last asked.
    pub(super) fn take_spoke(&mut self) -> bool {
        std::mem::take(&mut self.spoke)
    }
}

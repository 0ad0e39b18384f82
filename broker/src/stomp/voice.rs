//! How a session speaks: in which version, and as which kind of message.
//!
//! Over a WebSocket a frame is a text message if the peer speaks in texts and the frame is one, and a binary
//! message otherwise. One frame is one message.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use tandem_protocols::stomp::codec::{Encoder, HEART_BEAT, encode};
use tandem_protocols::stomp::frame::{self, Command, Version};
use tandem_protocols::stomp::headers::Headers;

use crate::core::message::{Frame, Kind, Message, SharedMessages};
use crate::core::protocol::{Close, Output};
use crate::stomp::destination::Target;
use crate::stomp::usual::Usual;

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
    /// While there is any.
    work: Option<Box<Work>>,
}

/// What is only needed while the session has something to do.
#[derive(Debug, Default)]
struct Work {
    outputs: VecDeque<Output>,
    last_target: Option<Target>,
    /// What it sends again and again.
    usual: Option<Usual>,
    /// How often something was thought to be that and was not, one after the other.
    in_vain: u8,
    /// What the next frame's headers can be read into.
    spare: Headers,
}

/// A peer each of whose messages has other headers, as far as so many in a row tell, is not expected to repeat itself until
/// it has paused.
const IN_VAIN_MAX: u8 = 4;

/// What of that may be kept, in bytes.
const SPARE_BYTES_MAX: usize = 1024;

impl Voice {
    /// Until a version is agreed on, 1.0 is spoken: it has no escapes.
    pub(super) fn new() -> Voice {
        let (version, carrier) = (Version::V10, Carrier::Stream);
        Voice { version, carrier, spoke: false, work: None }
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
        const ID: &str = "receipt-id:";
        let bytes = Encoder::command_bytes(Command::Receipt)
            + Encoder::known_bytes(ID, id.len())
            + Encoder::end_bytes(Command::Receipt, 0);
        let mut out = Vec::with_capacity(bytes);
        let mut encoder = Encoder::begin(&mut out, self.version, Command::Receipt);
        encoder.known(ID, id);
        encoder.finish(&[]);
        self.send(Frame::Own(Message::new(self.kind(true), out.into())));
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

    /// Says several frames that were encoded before.
    pub(super) fn send_all(&mut self, messages: Arc<SharedMessages>) {
        self.spoke = true;
        self.push(Output::SendAll(messages));
    }

    /// Asks for something else than to say a frame.
    pub(super) fn push(&mut self, output: Output) {
        self.work().outputs.push_back(output);
    }

    /// Ends the wire once everything was said.
    pub(super) fn close(&mut self, close: Close) {
        self.push(Output::Close(close));
    }

    /// What is next.
    pub(super) fn poll(&mut self) -> Option<Output> {
        self.work.as_mut()?.outputs.pop_front()
    }

    /// What the peer sent to last, while it does not pause.
    pub(super) fn last_target(&mut self) -> &mut Option<Target> {
        &mut self.work().last_target
    }

    /// What the peer sends again and again, while it does not pause.
    pub(super) fn usual(&mut self) -> Option<&mut Usual> {
        self.work.as_mut()?.usual.as_mut()
    }

    /// Notes that the peer may send this again and again, unless what was noted before did not come again too often.
    pub(super) fn note_usual(&mut self, make: impl FnOnce() -> Option<Usual>) {
        let work = self.work();
        match &work.usual {
            Some(usual) if usual.came() => work.in_vain = 0,
            Some(_) => work.in_vain = IN_VAIN_MAX.min(work.in_vain + 1),
            None => {}
        }
        if work.in_vain < IN_VAIN_MAX {
            work.usual = make();
        }
    }

    /// Headers whose memory may be used.
    pub(super) fn spare(&mut self) -> &mut Headers {
        &mut self.work().spare
    }

    /// Keeps headers that are not needed any more, for their memory.
    pub(super) fn recycle(&mut self, headers: Headers) {
        if headers.heap_bytes() <= SPARE_BYTES_MAX {
            *self.spare() = headers;
        }
    }

    /// Holds no memory for work, if there is none.
    pub(super) fn rest(&mut self) {
        self.work.take_if(|work| work.outputs.is_empty());
    }

    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// Whether anything was said since this was last asked.
    pub(super) fn take_spoke(&mut self) -> bool {
        std::mem::take(&mut self.spoke)
    }
}

#[cfg(test)]
mod tests {
    use tandem_protocols::payload::{Body, Content, Encoding, Payload, Shape};

    use super::*;
    use crate::core::message::{Attributes, Outgoing};
    use crate::core::name::Name;

    #[test]
    fn who_never_repeats_itself_is_not_expected_to() {
        let made = || {
            let (encoding, shape) = (Encoding::Binary, Shape::Value);
            let body = Body { content_type: None, encoding, shape, bytes: Bytes::new() };
            let payload = Payload::new(Content::Body(body));
            let outgoing =
                Outgoing { name: Name::parse("a").unwrap(), payload, attributes: Attributes::default() };
            Usual::of(&frame::Frame::new(Command::Send), &outgoing)
        };
        let mut voice = Voice::new();
        for _ in 0..2 {
            for _ in 0..IN_VAIN_MAX {
                voice.note_usual(made);
                assert!(voice.usual().is_some_and(|usual| !usual.came()));
            }
            voice.usual().unwrap().outgoing(Bytes::new());
            voice.note_usual(made);
        }
        (1..IN_VAIN_MAX).for_each(|_| voice.note_usual(made));
        (0..300).for_each(|_| voice.note_usual(|| panic!("it is not made")));
        voice.rest();
        voice.note_usual(made);
        assert!(voice.usual().is_some());
    }
}

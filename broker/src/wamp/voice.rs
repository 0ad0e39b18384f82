//! What a session says to its peer, in the peer's serialization, and what it wants done.

use std::collections::VecDeque;

use bytes::Bytes;

use tandem_protocols::payload::{Format, Unconvertible};
use tandem_protocols::wamp::batched::{self, Batch};
use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::Violation;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{self, Message, MessageType};

use crate::core::message::{Frame, Kind, Message as Bytestring};
use crate::core::parcel::Failure;
use crate::core::protocol::Output;
use crate::metrics;
use crate::wamp::luggage;

/// A batch of one is longer than its message by no more than this.
const BATCH_BYTES: usize = 4;

/// The way to the peer.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) format: Format,
    wrapping: Wrapping,
    /// The next thing to do. Most of the time there is at most one, and then it costs no allocation.
    next: Option<Output>,
    /// What comes after it. Empty, it holds no memory.
    more: VecDeque<Output>,
}

/// What is around the messages of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrapping {
    /// Each is a message of the wire's.
    None,
    /// The wire has no kinds: RawSocket.
    Raw,
    /// Each message of the wire's is a batch: of one that we say, as the pump writes what is ready together
    /// in any case. The separator is the peer's, once it is known.
    Batched(Option<u8>),
}

impl Voice {
    pub(super) fn new(format: Format) -> Voice {
        Voice { format, wrapping: Wrapping::None, next: None, more: VecDeque::new() }
    }

    /// For a subprotocol of batches.
    pub(super) fn batched(format: Format) -> Voice {
        Voice { wrapping: Wrapping::Batched(None), ..Voice::new(format) }
    }

    /// Whether a message may come as this kind. What came over a wire without kinds is answered so.
    pub(super) fn accepts(&mut self, kind: Kind) -> bool {
        match self.wrapping {
            Wrapping::Batched(_) => {}
            Wrapping::None | Wrapping::Raw if kind == Kind::Raw => self.wrapping = Wrapping::Raw,
            Wrapping::None | Wrapping::Raw => self.wrapping = Wrapping::None,
        }
        kind == self.kind()
    }

    /// The messages in what came, where it may be several. The peer is sent the separator that it sends.
    pub(super) fn batch(&mut self, bytes: &Bytes) -> Option<Result<Batch, Violation>> {
        let Wrapping::Batched(separator) = &mut self.wrapping else { return None };
        let batch = Batch::new(self.format, bytes.clone());
        if let Ok(batch) = &batch
            && self.format == Format::Json
            && separator.is_none()
        {
            *separator = batch.separator();
        }
        Some(batch)
    }

    fn kind(&self) -> Kind {
        match self.wrapping {
            Wrapping::Raw => Kind::Raw,
            Wrapping::None | Wrapping::Batched(_) if codec::is_text(self.format) => Kind::Text,
            Wrapping::None | Wrapping::Batched(_) => Kind::Binary,
        }
    }

    /// Tells apart encodings that peers cannot share.
    pub(super) fn dialect(&self) -> &'static str {
        match (self.wrapping, self.format) {
            (Wrapping::None, format) => codec::subprotocol(format),
            (Wrapping::Raw, Format::Json) => "wamp.2.json over RawSocket",
            (Wrapping::Raw, Format::MsgPack) => "wamp.2.msgpack over RawSocket",
            (Wrapping::Raw, Format::Cbor) => "wamp.2.cbor over RawSocket",
            (Wrapping::Batched(Some(batched::OCTAL_SEPARATOR)), Format::Json) => {
                "wamp.2.json.batched by the octal separator"
            }
            (Wrapping::Batched(_), format) => batched::subprotocol(format),
        }
    }

    pub(super) fn push(&mut self, output: Output) {
        if self.next.is_none() && self.more.is_empty() {
            self.next = Some(output);
        } else {
            self.more.push_back(output);
        }
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        let output = self.next.take().or_else(|| self.more.pop_front());
        if self.more.is_empty() && self.more.capacity() > 0 {
            self.more = VecDeque::new();
        }
        output
    }

    /// The bytes as a message of the wire's kind.
    pub(super) fn wrap(&self, bytes: Bytes) -> Bytestring {
        let Wrapping::Batched(separator) = self.wrapping else {
            return Bytestring::new(self.kind(), bytes);
        };
        let mut batch = Vec::with_capacity(bytes.len() + BATCH_BYTES);
        batched::append(self.format, separator.unwrap_or(batched::SEPARATOR), &bytes, &mut batch)
            .expect("an encoded message is below 4 GiB");
        Bytestring::new(self.kind(), batch.into())
    }

    /// Says something that is already encoded.
    pub(super) fn say_encoded(&mut self, bytes: Bytes) {
        let frame = Frame::Own(self.wrap(bytes));
        self.push(Output::Send(frame));
    }

    /// Says something whose payload, if it has any, is in the peer's format.
    pub(super) fn say(&mut self, message: impl Into<Message>) {
        let encoded = codec::encode(self.format, &message.into());
        self.say_encoded(encoded.expect("a payload was converted, and is below 4 GiB as its message was"));
    }

    /// Says that a request failed.
    pub(super) fn say_error(&mut self, request_type: MessageType, request: Id, failure: &Failure) {
        let mut details = Dict::new();
        luggage::unpack(&failure.attributes, &mut details);
        let payload = luggage::content(&failure.payload, self.format).unwrap_or_else(|why| {
            // The error itself says the most.
            note_unconvertible(why);
            message::nothing()
        });
        let error = failure.error.to_string();
        self.say(message::Error { request_type, request, details, error, payload });
    }
}

/// Notes that a payload has no form that its receiver could read.
pub(super) fn note_unconvertible(why: Unconvertible) {
    metrics::UNCONVERTIBLE.add(1);
    tracing::debug!(%why, "a payload has no form for a WAMP receiver");
}

/// A number of the house as an ID of the language.
pub(super) fn id(number: u64) -> Id {
    Id::new(number).expect("the house counts from 1, and its random numbers are at most 2^53")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::protocol::{Close, Reason};

    #[test]
    fn what_is_said_comes_in_order_and_leaves_no_memory_behind() {
        let mut voice = Voice::new(Format::Json);
        for round in 0..3 {
            for step in 0..=round {
                voice.push(Output::Close(Close::new(Reason::Done, step.to_string())));
            }
            let _first = voice.poll();
            voice.push(Output::Close(Close::new(Reason::Done, "last")));
            let mut details = Vec::new();
            while let Some(Output::Close(close)) = voice.poll() {
                details.push(close.detail);
            }
            let expected: Vec<_> =
                (1..=round).map(|step| step.to_string()).chain(["last".to_owned()]).collect();
            assert_eq!((details, voice.more.capacity()), (expected, 0));
        }
    }
}

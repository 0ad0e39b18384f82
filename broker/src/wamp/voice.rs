//! What a session says to its peer, in the peer's serialization, and what it wants done.

use bytes::Bytes;

use tandem_protocols::payload::{Format, Unconvertible};
use tandem_protocols::wamp::batched::{self, Batch};
use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{PAYLOAD_SIZE_EXCEEDED, Violation};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{self, Message, MessageType};

use crate::core::calls::failure;
use crate::core::message::{Frame, Kind, Message as Bytestring};
use crate::core::parcel::Failure;
use crate::core::protocol::{Close, Output, Outputs, Reason};
use crate::metrics;
use crate::wamp::luggage;

/// A batch of one is longer than its message by no more than this.
const BATCH_BYTES: usize = 4;

/// The way to the peer.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) format: Format,
    wrapping: Wrapping,
    /// The longest message that the peer takes.
    bytes_max: u32,
    outputs: Outputs,
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
        Voice { format, wrapping: Wrapping::None, bytes_max: u32::MAX, outputs: Outputs::default() }
    }

    /// For a subprotocol of batches.
    pub(super) fn batched(format: Format) -> Voice {
        Voice { wrapping: Wrapping::Batched(None), ..Voice::new(format) }
    }

    /// The peer takes no longer messages.
    pub(super) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
    }

    /// Whether the peer takes a message of so many bytes.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        u32::try_from(bytes).is_ok_and(|bytes| bytes <= self.bytes_max)
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

    /// Whether what comes as this kind is one message, as others were before it.
    pub(super) fn takes_as_it_is(&self, kind: Kind) -> bool {
        matches!(self.wrapping, Wrapping::None) && kind == self.kind()
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

    pub(super) fn kind(&self) -> Kind {
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
        self.outputs.push(output);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.poll()
    }

    /// Holds no memory for what is to be said.
    pub(super) fn rest(&mut self) {
        self.outputs.rest();
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

    /// Appends a message that `encode` appends, as one of the wire's kind.
    pub(super) fn append(&self, out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
        let Wrapping::Batched(_) = self.wrapping else { return encode(out) };
        let mut message = Vec::new();
        encode(&mut message);
        let wrapped = self.wrap(message.into());
        out.extend_from_slice(&wrapped.head);
    }

    /// Says something that is already encoded.
    pub(super) fn say_encoded(&mut self, bytes: Bytes) {
        let frame = Frame::Own(self.wrap(bytes));
        self.push(Output::Send(frame));
    }

    /// Says something whose payload, if it has any, is in the peer's format.
    pub(super) fn say(&mut self, message: impl Into<Message>) {
        let message = message.into();
        let encoded = codec::encode(self.format, &message);
        let encoded = encoded.expect("a payload was converted, and is below 4 GiB as its message was");
        if self.fits(encoded.len()) {
            self.say_encoded(encoded);
        } else {
            self.say_shorter(message, encoded.len());
        }
    }

    /// Says of a message that is too long for the peer what can be said of it.
    fn say_shorter(&mut self, message: Message, bytes: usize) {
        match message {
            Message::CallResult(result) => {
                note_too_long(bytes);
                self.say_error(MessageType::Call, result.request, &too_long("the result"));
            }
            // The URI says the most.
            Message::Error(error) if !error.details.is_empty() || error.payload != message::nothing() => {
                self.say(message::Error { details: Dict::new(), payload: message::nothing(), ..error });
            }
            Message::Abort(abort) if !abort.details.is_empty() => {
                self.say(message::Abort { details: Dict::new(), ..abort });
            }
            Message::Goodbye(goodbye) if !goodbye.details.is_empty() => {
                self.say(message::Goodbye { details: Dict::new(), ..goodbye });
            }
            // The peer would wait for it for ever.
            other => {
                note_too_long(bytes);
                let sentence = format!("{} is longer than the peer takes", other.name());
                if !matches!(other, Message::Abort(_)) {
                    let details = Dict::new().with("message", sentence.as_str());
                    let reason = PAYLOAD_SIZE_EXCEEDED.to_owned();
                    self.say(message::Abort { details, reason, payload: message::nothing() });
                }
                self.push(Output::Close(Close::new(Reason::Refused, sentence)));
            }
        }
    }

    /// Says that a request failed.
    pub(super) fn say_error(&mut self, request_type: MessageType, request: Id, failure: &Failure) {
        let error = self.error(request_type, request, failure);
        self.say(error);
    }

    /// The same, unless that is too long for the peer.
    pub(super) fn try_say_error(
        &mut self,
        request_type: MessageType,
        request: Id,
        failure: &Failure,
    ) -> bool {
        let error = self.error(request_type, request, failure);
        let encoded = codec::encode(self.format, &error.into());
        let encoded = encoded.expect("a payload was converted, and is below 4 GiB as its message was");
        let fits = self.fits(encoded.len());
        if fits {
            self.say_encoded(encoded);
        } else {
            note_too_long(encoded.len());
        }
        fits
    }

    fn error(&self, request_type: MessageType, request: Id, failure: &Failure) -> message::Error {
        let mut details = Dict::new();
        luggage::unpack(&failure.attributes, &mut details);
        let payload = luggage::content(&failure.payload, self.format).unwrap_or_else(|why| {
            // The error itself says the most.
            note_unconvertible(why);
            message::nothing()
        });
        let error = failure.error.to_string();
        message::Error { request_type, request, details, error, payload }
    }
}

/// Notes that a payload has no form that its receiver could read.
pub(super) fn note_unconvertible(why: Unconvertible) {
    metrics::UNCONVERTIBLE.add(1);
    tracing::debug!(%why, "a payload has no form for a WAMP receiver");
}

/// Notes that a message is longer than its receiver takes.
pub(super) fn note_too_long(bytes: usize) {
    metrics::UNDELIVERABLE.add(1);
    tracing::debug!(bytes, "a message is longer than its WAMP receiver takes");
}

/// Why there is no answer, or nobody is asked.
pub(super) fn too_long(what: &str) -> Failure {
    failure(
        PAYLOAD_SIZE_EXCEEDED,
        &format!("{what} would be in a message that is longer than its receiver takes"),
    )
}

/// A number of the house as an ID of the language.
pub(super) fn id(number: u64) -> Id {
    Id::new(number).expect("the house counts from 1, and its random numbers are at most 2^53")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            voice.rest();
            assert_eq!((details, voice.outputs.is_resting()), (expected, true));
        }
    }
}

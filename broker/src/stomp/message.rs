//! What a publication becomes: a MESSAGE.
//!
//! Its first lines differ from receiver to receiver: which subscription it is for, and how it is
//! acknowledged. The rest is the same for all of a version; where it is long it is made once, and shared. As of repeated headers the
//! first one counts, nothing that a publisher sent can override the first lines.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use tandem_protocols::payload::{Body, Payload, Shape, Unconvertible};
use tandem_protocols::stomp::codec::{Encoder, decimals};
use tandem_protocols::stomp::frame::{Command, Version};
use tandem_protocols::stomp::state::AckMode;

use crate::core::bundle::Bundle;
use crate::core::message::{Attributes, Frame, Kind, Message, Publication, SharedMessages, Variant};
use crate::core::parcel::{ConsumerId, Delivery};
use crate::metrics;
use crate::stomp::destination::{self, Place};
use crate::stomp::headers::{self, CALL_HEADERS};
use crate::stomp::voice::{Carrier, Voice};

// How lines begin.
const ACK: &str = "ack:";
const CONTENT_TYPE: &str = "content-type:";
const MESSAGE_ID: &str = "message-id:";
const SUBSCRIPTION: &str = "subscription:";
const REDELIVERED: &str = "redelivered:";
const DELIVERY_COUNT: &str = "x-delivery-count:";
const RETAINED: &str = "retained:";
const TRUE: &str = "true";

/// Names a delivery from a queue in this session: each time it is delivered it has another name.
///
/// `<consumer>-<sequence>-<redeliveries>`: nothing that would need an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryId {
    pub(super) consumer: ConsumerId,
    pub(super) sequence: u64,
    pub(super) redeliveries: u32,
}

impl DeliveryId {
    pub(super) fn of(delivery: &Delivery) -> DeliveryId {
        let Delivery { consumer, sequence, redeliveries, .. } = *delivery;
        DeliveryId { consumer, sequence, redeliveries }
    }

    /// Reads what was written; nothing else.
    pub(super) fn parse(text: &str) -> Option<DeliveryId> {
        let mut numbers = [None::<u64>; 3];
        let mut place = 0;
        for octet in text.bytes() {
            let number = numbers.get_mut(place)?;
            match (octet, *number) {
                (b'0'..=b'9', None) => *number = Some(u64::from(octet - b'0')),
                // No number begins with a zero but that.
                (b'0'..=b'9', Some(before)) if before > 0 => {
                    *number = Some(before.checked_mul(10)?.checked_add(u64::from(octet - b'0'))?);
                }
                (b'-', Some(_)) => place += 1,
                _ => return None,
            }
        }
        let [consumer, sequence, redeliveries] = Some(numbers).filter(|_| place == 2)?;
        let redeliveries = u32::try_from(redeliveries?).ok()?;
        Some(DeliveryId { consumer: ConsumerId(consumer?), sequence: sequence?, redeliveries })
    }

    /// What is written of it, with hyphens between.
    fn numbers(self) -> [u64; 3] {
        [self.consumer.0, self.sequence, self.redeliveries.into()]
    }
}

/// From so many bytes of a body on, what several receivers share is not copied for each name of a subscription.
const SHARED_BYTES_MIN: usize = 2048;

/// A message on a topic, for a subscription that does not acknowledge. In 1.0 one may have no name.
pub(super) fn event(
    voice: &Voice,
    publication: &Publication,
    subscription: Option<&str>,
) -> Result<Frame, Unconvertible> {
    let (dialect, variant) = (voice.dialect(), variant(subscription));
    if let Some(frame) = publication.encodings.get(dialect, variant) {
        return Ok(frame);
    }
    let tail = Tail::of(publication, Place::Topic)?;
    let kind = tail.kind(voice);
    let head = |tail_bytes| event_head(voice.version, publication.id, subscription, tail_bytes);
    if tail.body.bytes.len() < SHARED_BYTES_MIN {
        return publication.encodings.get_or_make(dialect, variant, || {
            let mut out = head(tail.bytes());
            tail.put(Encoder::resume(&mut out, voice.version, Command::Message));
            Ok(Message::new(kind, out.into()))
        });
    }
    let body = tail.shared(voice.version)?;
    publication.encodings.get_or_make(dialect, variant, || Ok(Message { kind, head: head(0).into(), body }))
}

/// Several messages on a topic, for one subscription. None where they are not all of one kind, or one of them has no form
/// that the receiver could read.
pub(super) fn events(
    voice: &Voice,
    bundle: &Bundle,
    subscription: Option<&str>,
) -> Option<Arc<SharedMessages>> {
    let encoded = || {
        let (mut bytes, mut ends) = (Vec::with_capacity(bundle.cost()), Vec::with_capacity(bundle.count()));
        // All are of one topic, so that these lines are the same.
        let (mut opening, mut destination) = (Vec::new(), Vec::new());
        put_opening(&mut opening, voice.version, subscription).pause();
        let (begin, name) = destination::header(Place::Topic, bundle.name());
        Encoder::resume(&mut destination, voice.version, Command::Message).known(begin, &name);
        let mut kinds = None;
        for publication in bundle.publications() {
            let body = publication.payload.body().map_err(drop)?;
            let kind = kind(voice, body);
            if *kinds.get_or_insert(kind) != kind {
                return Err(());
            }
            bytes.extend_from_slice(&opening);
            Encoder::resume(&mut bytes, voice.version, Command::Message).number(MESSAGE_ID, publication.id);
            bytes.extend_from_slice(&destination);
            put_rest_of(Encoder::resume(&mut bytes, voice.version, Command::Message), publication, body);
            ends.push(u32::try_from(bytes.len()).map_err(drop)?);
        }
        Ok(SharedMessages::new(kinds.ok_or(())?, bytes.into(), ends))
    };
    bundle.encodings.share(voice.dialect(), variant(subscription), encoded).ok()
}

/// Names up to seven bytes long, as most are, are told apart as numbers, which takes no memory.
fn variant(subscription: Option<&str>) -> Variant<'_> {
    let Some(name) = subscription else { return Variant::Number(0) };
    let mut bytes = [0; 8];
    match bytes.get_mut(1..=name.len()) {
        Some(place) => {
            place.copy_from_slice(name.as_bytes());
            // Unlike any other name, and unlike none.
            bytes[0] = name.len() as u8 + 1;
            Variant::Number(u64::from_le_bytes(bytes))
        }
        None => Variant::Text(name),
    }
}

/// The first lines of a message on a topic, with room for what follows.
fn event_head(version: Version, id: u64, subscription: Option<&str>, room: usize) -> Vec<u8> {
    let bytes = Encoder::command_bytes(Command::Message)
        + subscription.map_or(0, |name| Encoder::known_bytes(SUBSCRIPTION, name.len()))
        + Encoder::known_bytes(MESSAGE_ID, decimals(id));
    let mut out = Vec::with_capacity(bytes + room);
    put_event_head(&mut out, version, id, subscription);
    out
}

fn put_event_head(out: &mut Vec<u8>, version: Version, id: u64, subscription: Option<&str>) {
    let mut encoder = put_opening(out, version, subscription);
    encoder.number(MESSAGE_ID, id);
    encoder.pause();
}

fn put_opening<'a>(out: &'a mut Vec<u8>, version: Version, subscription: Option<&str>) -> Encoder<'a> {
    let mut encoder = Encoder::begin(out, version, Command::Message);
    if let Some(name) = subscription {
        encoder.known(SUBSCRIPTION, name);
    }
    encoder
}

/// The message that a topic had kept when it was subscribed to.
pub(super) fn retained(
    voice: &Voice,
    publication: &Publication,
    subscription: Option<&str>,
) -> Result<Frame, Unconvertible> {
    let tail = Tail::of(publication, Place::Topic)?;
    let room = Encoder::known_bytes(RETAINED, TRUE.len());
    let mut head = event_head(voice.version, publication.id, subscription, room);
    let mut encoder = Encoder::resume(&mut head, voice.version, Command::Message);
    encoder.known(RETAINED, TRUE);
    encoder.pause();
    let body = tail.shared(voice.version)?;
    Ok(Frame::Own(Message { kind: tail.kind(voice), head: head.into(), body }))
}

/// What of a subscription is in the messages from its queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) place: Place,
    pub(super) subscription: Option<&'a str>,
    pub(super) mode: AckMode,
    /// The header that tells the place in the queue.
    pub(super) include_sequence: Option<&'a str>,
}

/// A message from a queue.
pub(super) fn delivery(voice: &Voice, delivery: &Delivery, told: Told<'_>) -> Result<Frame, Unconvertible> {
    let place = if delivery.from_topic { Place::Topic } else { told.place };
    let tail = Tail::of(&delivery.publication, place)?;
    let kind = tail.kind(voice);
    // What a topic brought may lie in other queues, too.
    if delivery.from_topic || tail.body.bytes.len() >= SHARED_BYTES_MIN {
        let body = tail.shared(voice.version)?;
        let head = delivery_head(voice.version, delivery, told, 0).into();
        return Ok(Frame::Own(Message { kind, head, body }));
    }
    let mut out = delivery_head(voice.version, delivery, told, tail.bytes());
    tail.put(Encoder::resume(&mut out, voice.version, Command::Message));
    Ok(Frame::Own(Message::new(kind, out.into())))
}

/// The first lines of a message from a queue, with room for what follows.
fn delivery_head(version: Version, delivery: &Delivery, told: Told<'_>, room: usize) -> Vec<u8> {
    let Told { subscription, include_sequence, .. } = told;
    let (id, count) = (DeliveryId::of(delivery).numbers(), u64::from(delivery.redeliveries));
    let id_bytes = id.into_iter().map(decimals).sum::<usize>() + id.len() - 1;
    let is_acknowledged = version == Version::V12 && told.mode != AckMode::Auto;
    let mut bytes = Encoder::command_bytes(Command::Message)
        + subscription.map_or(0, |name| Encoder::known_bytes(SUBSCRIPTION, name.len()))
        + Encoder::known_bytes(MESSAGE_ID, id_bytes)
        + include_sequence.map_or(0, |name| Encoder::header_bytes(name, decimals(delivery.sequence)));
    if is_acknowledged {
        bytes += Encoder::known_bytes(ACK, id_bytes);
    }
    if count > 0 {
        bytes += Encoder::known_bytes(REDELIVERED, TRUE.len());
        bytes += Encoder::known_bytes(DELIVERY_COUNT, decimals(count));
    }
    let mut out = Vec::with_capacity(bytes + room);
    let mut encoder = Encoder::begin(&mut out, version, Command::Message);
    if let Some(name) = subscription {
        encoder.known(SUBSCRIPTION, name);
    }
    encoder.numbers(MESSAGE_ID, id);
    if is_acknowledged {
        encoder.numbers(ACK, id);
    }
    if count > 0 {
        encoder.known(REDELIVERED, TRUE);
        encoder.number(DELIVERY_COUNT, count);
    }
    if let Some(name) = include_sequence {
        encoder.header(name, itoa::Buffer::new().format(delivery.sequence));
    }
    encoder.pause();
    out
}

/// A call or an answer, which only this receiver gets. `first` are the headers that count; those of a call
/// are among them or nowhere, so that a result cannot pose as an error.
pub(super) fn direct(
    voice: &Voice,
    first: &[(&str, &str)],
    payload: &Payload,
    attributes: &Attributes,
) -> Result<Frame, Unconvertible> {
    let body = payload.body()?;
    let mut out = Vec::with_capacity(256 + attributes.bytes() + body.bytes.len());
    let mut encoder = Encoder::begin(&mut out, voice.version, Command::Message);
    for (name, value) in first {
        encoder.header(name, value);
    }
    put_rest(encoder, attributes.iter().filter(|(name, _)| !CALL_HEADERS.contains(name)), body);
    Ok(Frame::Own(Message::new(kind(voice, body), out.into())))
}

/// Notes that a message has no form that its receiver could read.
pub(super) fn note_unconvertible(why: Unconvertible) {
    metrics::UNCONVERTIBLE.add(1);
    tracing::debug!(%why, "a message has no form for a STOMP receiver");
}

/// The lines that all receivers of a version share, with the body.
struct Tail<'a> {
    publication: &'a Publication,
    body: &'a Body,
    destination: (&'static str, Cow<'a, str>),
}

impl<'a> Tail<'a> {
    fn of(publication: &'a Publication, place: Place) -> Result<Tail<'a>, Unconvertible> {
        let destination = destination::header(place, &publication.name);
        Ok(Tail { publication, body: publication.payload.body()?, destination })
    }

    fn kind(&self, voice: &Voice) -> Kind {
        kind(voice, self.body)
    }

    /// How long it is, if nothing in it needs an escape.
    fn bytes(&self) -> usize {
        let Publication { attributes, disclosed, trust, publisher, .. } = self.publication;
        let (line, known) = (Encoder::header_bytes, Encoder::known_bytes);
        let mut bytes = known(self.destination.0, self.destination.1.len())
            + self.body.content_type.as_ref().map_or(0, |text| known(CONTENT_TYPE, text.len()))
            + self.body.shape.word().map_or(0, |word| line(Shape::HEADER, word.len()))
            + attributes.iter().map(|(name, value)| line(name, value.len())).sum::<usize>()
            + Encoder::end_bytes(Command::Message, self.body.bytes.len());
        if let Some(who) = disclosed {
            bytes += line(headers::PUBLISHER, decimals(publisher.0));
            bytes += line(headers::PUBLISHER_AUTHID, who.id.len());
        }
        if let Some(level) = trust {
            bytes += line(headers::TRUST_LEVEL, decimals((*level).into()));
        }
        bytes
    }

    fn put(&self, mut encoder: Encoder<'_>) {
        encoder.known(self.destination.0, &self.destination.1);
        put_rest_of(encoder, self.publication, self.body);
    }

    /// Its bytes, made once for all receivers of a version.
    fn shared(&self, version: Version) -> Result<Bytes, Unconvertible> {
        let dialect = match version {
            Version::V10 => "v10.stomp/tail",
            Version::V11 => "v11.stomp/tail",
            Version::V12 => "v12.stomp/tail",
        };
        let made = self.publication.encodings.get_or_make(dialect, Variant::Number(0), || {
            let mut out = Vec::with_capacity(self.bytes());
            self.put(Encoder::resume(&mut out, version, Command::Message));
            Ok(Message::new(Kind::Raw, out.into()))
        })?;
        Ok(made.message().head.clone())
    }
}

/// What all receivers share of a publication, behind the destination.
fn put_rest_of(mut encoder: Encoder<'_>, publication: &Publication, body: &Body) {
    let Publication { attributes, disclosed, trust, publisher, .. } = publication;
    if let Some(who) = disclosed {
        encoder.header(headers::PUBLISHER, itoa::Buffer::new().format(publisher.0));
        encoder.header(headers::PUBLISHER_AUTHID, &who.id);
    }
    if let Some(level) = trust {
        encoder.header(headers::TRUST_LEVEL, itoa::Buffer::new().format(*level));
    }
    put_rest(encoder, attributes.iter(), body);
}

fn put_rest<'a>(mut encoder: Encoder<'_>, attributes: impl Iterator<Item = (&'a str, &'a str)>, body: &Body) {
    if let Some(content_type) = &body.content_type {
        encoder.known(CONTENT_TYPE, content_type);
    }
    if let Some(word) = body.shape.word() {
        encoder.header(Shape::HEADER, word);
    }
    for (name, value) in attributes.filter(|(name, _)| !headers::is_ours(name)) {
        encoder.header(name, value);
    }
    encoder.finish(&body.bytes);
}

/// The kind of a message with that body: it is text if the body is, as all else in it is.
fn kind(voice: &Voice, body: &Body) -> Kind {
    voice.kind(voice.carrier == Carrier::Text && is_text(&body.bytes))
}

/// Most text is ASCII, which is seen with fewer steps.
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || str::from_utf8(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_delivery_is_read_back_and_nothing_else_is() {
        let id = DeliveryId { consumer: ConsumerId(3), sequence: 70, redeliveries: 2 };
        let mut out = Vec::new();
        Encoder::resume(&mut out, Version::V12, Command::Message).numbers(MESSAGE_ID, id.numbers());
        assert_eq!(out, b"message-id:3-70-2\n");
        assert_eq!(DeliveryId::parse("3-70-2"), Some(id));
        assert_eq!(DeliveryId::parse("0-0-0").map(|id| id.sequence), Some(0));
        let no_number = "18446744073709551616-70-2";
        for other in
            ["", "3", "3-70", "3-70-2-1", "3-70-2-", "+3-70-2", "03-70-2", "00-70-2", "3-70-", "-70-2"]
                .into_iter()
                .chain(["a-b-c", "3-70-4294967296", "3--2", " 3-70-2", "3-70-2 ", no_number])
        {
            assert_eq!(DeliveryId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_subscriptions_are_told_apart() {
        let names = [
            None,
            Some(""),
            Some("\0"),
            Some("1"),
            Some("1\0"),
            Some("sub-0"),
            Some("seven-7"),
            Some("eight--8"),
        ];
        for (at, one) in names.iter().enumerate() {
            for (other_at, other) in names.iter().enumerate() {
                assert_eq!(variant(*one) == variant(*other), at == other_at, "{one:?} {other:?}");
            }
        }
        assert!(matches!(variant(Some("seven-7")), Variant::Number(_)));
    }
}

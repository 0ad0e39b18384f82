//! What a publication becomes: a MESSAGE.
//!
//! Its first lines differ from receiver to receiver: which subscription it is for, and how it is
//! acknowledged. The rest is made once per publication and version, and shared. As of repeated headers the
//! first one counts, nothing that a publisher sent can override the first lines.

use bytes::{Bytes, BytesMut};

use tandem_protocols::payload::{Body, Payload, Shape, Unconvertible};
use tandem_protocols::stomp::codec::Encoder;
use tandem_protocols::stomp::frame::{Command, Version};
use tandem_protocols::stomp::state::AckMode;

use crate::core::message::{Attributes, Frame, Kind, Message, Publication, Variant};
use crate::core::parcel::{ConsumerId, Delivery};
use crate::metrics;
use crate::stomp::destination::{self, Place};
use crate::stomp::headers::{self, CALL_HEADERS};
use crate::stomp::voice::Voice;

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
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.consumer.0, self.sequence, self.redeliveries)
    }
}

/// A message on a topic, for a subscription that does not acknowledge. In 1.0 one may have no name.
pub(super) fn event(
    voice: &Voice,
    publication: &Publication,
    subscription: Option<&str>,
) -> Result<Frame, Unconvertible> {
    let variant = subscription.map_or(Variant::Number(0), Variant::Text);
    if let Some(frame) = publication.encodings.get(voice.dialect(), variant) {
        return Ok(frame);
    }
    let (is_text, tail) = tail(voice.version, publication, Place::Topic)?;
    publication.encodings.get_or_make(voice.dialect(), variant, || {
        let head = head(voice.version, |encoder| {
            subscription.map(|id| encoder.header("subscription", id));
            encoder.header("message-id", &publication.id.to_string());
        });
        Ok(Message { kind: voice.kind(is_text), head, body: tail })
    })
}

/// The message that a topic had kept when it was subscribed to.
pub(super) fn retained(
    voice: &Voice,
    publication: &Publication,
    subscription: Option<&str>,
) -> Result<Frame, Unconvertible> {
    let (is_text, tail) = tail(voice.version, publication, Place::Topic)?;
    let head = head(voice.version, |encoder| {
        subscription.map(|id| encoder.header("subscription", id));
        encoder.header("message-id", &publication.id.to_string());
        encoder.header("retained", "true");
    });
    Ok(Frame::Own(Message { kind: voice.kind(is_text), head, body: tail }))
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
    let (is_text, tail) = tail(voice.version, &delivery.publication, place)?;
    let id = DeliveryId::of(delivery).to_string();
    let head = head(voice.version, |encoder| {
        told.subscription.map(|id| encoder.header("subscription", id));
        encoder.header("message-id", &id);
        if voice.version == Version::V12 && told.mode != AckMode::Auto {
            encoder.header("ack", &id);
        }
        if delivery.redeliveries > 0 {
            encoder.header("redelivered", "true");
            encoder.header("x-delivery-count", &delivery.redeliveries.to_string());
        }
        told.include_sequence.map(|name| encoder.header(name, &delivery.sequence.to_string()));
    });
    Ok(Frame::Own(Message { kind: voice.kind(is_text), head, body: tail }))
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
    let mut out = BytesMut::with_capacity(256 + attributes.bytes() + body.bytes.len());
    let mut encoder = Encoder::begin(&mut out, voice.version, Command::Message);
    for (name, value) in first {
        encoder.header(name, value);
    }
    put_rest(encoder, attributes.iter().filter(|(name, _)| !CALL_HEADERS.contains(name)), body);
    Ok(Frame::Own(Message::new(voice.kind(is_text(body)), out.freeze())))
}

/// Notes that a message has no form that its receiver could read.
pub(super) fn note_unconvertible(why: Unconvertible) {
    metrics::UNCONVERTIBLE.add(1);
    tracing::debug!(%why, "a message has no form for a STOMP receiver");
}

fn head(version: Version, write: impl FnOnce(&mut Encoder<'_>)) -> Bytes {
    let mut out = BytesMut::with_capacity(96);
    let mut encoder = Encoder::begin(&mut out, version, Command::Message);
    write(&mut encoder);
    encoder.pause();
    out.freeze()
}

/// The lines that all receivers of a version share, with the body; and whether that is text.
fn tail(version: Version, publication: &Publication, place: Place) -> Result<(bool, Bytes), Unconvertible> {
    let dialect = match version {
        Version::V10 => "v10.stomp/tail",
        Version::V11 => "v11.stomp/tail",
        Version::V12 => "v12.stomp/tail",
    };
    let made = publication.encodings.get_or_make(dialect, Variant::Number(0), || {
        let body = publication.payload.body()?;
        let Publication { attributes, name, .. } = publication;
        let mut out = BytesMut::with_capacity(128 + attributes.bytes() + body.bytes.len());
        let mut encoder = Encoder::resume(&mut out, version, Command::Message);
        encoder.header("destination", &destination::write(place, name));
        if let Some(who) = &publication.disclosed {
            encoder.header(headers::PUBLISHER, &publication.publisher.0.to_string());
            encoder.header(headers::PUBLISHER_AUTHID, &who.id);
        }
        if let Some(level) = publication.trust {
            encoder.header(headers::TRUST_LEVEL, &level.to_string());
        }
        put_rest(encoder, attributes.iter(), body);
        let kind = if is_text(body) { Kind::Text } else { Kind::Binary };
        Ok(Message::new(kind, out.freeze()))
    })?;
    let message = made.message();
    Ok((message.kind == Kind::Text, message.head.clone()))
}

fn put_rest<'a>(mut encoder: Encoder<'_>, attributes: impl Iterator<Item = (&'a str, &'a str)>, body: &Body) {
    if let Some(content_type) = &body.content_type {
        encoder.header("content-type", content_type);
    }
    if let Some(word) = body.shape.word() {
        encoder.header(Shape::HEADER, word);
    }
    for (name, value) in attributes.filter(|(name, _)| !headers::is_ours(name)) {
        encoder.header(name, value);
    }
    encoder.finish(&body.bytes);
}

/// Whether a frame with that body is text: all else in it is.
fn is_text(body: &Body) -> bool {
    str::from_utf8(&body.bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_delivery_is_read_back_and_nothing_else_is() {
        let id = DeliveryId { consumer: ConsumerId(3), sequence: 70, redeliveries: 2 };
        assert_eq!(id.to_string(), "3-70-2");
        assert_eq!(DeliveryId::parse("3-70-2"), Some(id));
        let no_number = "18446744073709551616-70-2";
        for other in
            ["", "3", "3-70", "3-70-2-1", "3-70-2-", "+3-70-2", "03-70-2", "00-70-2", "3-70-", "-70-2"]
                .into_iter()
                .chain(["a-b-c", "3-70-4294967296", "3--2", " 3-70-2", "3-70-2 ", no_number])
        {
            assert_eq!(DeliveryId::parse(other), None, "{other}");
        }
    }
}

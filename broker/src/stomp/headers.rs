//! Which headers are the peer's own, which are the broker's, and which ask for something that it cannot do.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use tandem_protocols::payload::{Body, Content, ContentType, Encoding, Payload, Shape};
use tandem_protocols::stomp::error::{Reason, Violation};
use tandem_protocols::stomp::headers::{Headers, Marks};

use crate::core::calls::Policy;
use crate::core::message::Attributes;
use crate::core::queues::DEATH_ATTRIBUTES;
use crate::core::topics::Retain;
use crate::stomp::fault::Fault;

/// Headers that no peer can put into another's MESSAGE: the broker writes them, or acts on them.
const OURS: [&str; 19] = [
    "ack",
    "content-length",
    "content-type",
    "destination",
    "login",
    "message-id",
    "passcode",
    "receipt",
    "receipt-id",
    "redelivered",
    "retain",
    "retained",
    "sender",
    "subscription",
    "transaction",
    "user-name",
    TRUST_LEVEL,
    "x-delivery-count",
    Shape::HEADER,
];

/// What belongs to a call or to its answer, and not to the arguments or the result.
pub(super) const CALL_HEADERS: [&str; 4] = ["correlation-id", "error", "reply-to", "x-timeout"];

/// The payload option by which WAMP marks bytes that stand in the place of all arguments.
const TRANSPARENT: &str = "enc_algo";

/// The publisher's identity, which only the broker may state.
const PUBLISHER_PREFIX: &str = "x-publisher";

/// The number of the publisher's session, where it lets itself be known.
pub(super) const PUBLISHER: &str = PUBLISHER_PREFIX;

/// The publisher's name.
pub(super) const PUBLISHER_AUTHID: &str = "x-publisher-authid";

/// The caller's identity, which only the broker may state either.
const CALLER_PREFIX: &str = "x-caller";

/// The number of the caller's session, where the callee is told.
pub(super) const CALLER: &str = CALLER_PREFIX;

/// The caller's name.
pub(super) const CALLER_AUTHID: &str = "x-caller-authid";
/// How far the operator trusts the sender.
pub(super) const TRUST_LEVEL: &str = "x-trust-level";

/// What a queue is to be like, in SEND and in SUBSCRIBE.
pub(super) const QUEUE_ARGUMENTS: [&str; 11] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-delivery-limit",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-redelivery-delay",
    "x-redelivery-delay-max",
];

/// What nobody can ask for, in SEND and in SUBSCRIBE: these are for streams, and for queues that are named apart
/// from their destination.
const UNBUILT_ARGUMENTS: [(&str, &str); 4] = [
    ("x-max-age", ""),
    ("x-queue-name", ""),
    ("x-queue-type", "classic"),
    ("x-single-active-consumer", "false"),
];

/// What a SEND may ask of other brokers, and the value that asks for nothing.
const UNBUILT_SEND_PROPERTIES: [(&str, &str); 4] = [
    ("AMQ_SCHEDULED_CRON", ""),
    ("AMQ_SCHEDULED_PERIOD", "0"),
    ("AMQ_SCHEDULED_REPEAT", "0"),
    ("transformation", ""),
];

/// What a SUBSCRIBE may ask of other brokers, and the value that asks for nothing.
const UNBUILT_SUBSCRIBE_PROPERTIES: [(&str, &str); 6] = [
    ("activemq.maximumPendingMessageLimit", "-1"),
    ("activemq.retroactive", "false"),
    ("transformation", ""),
    ("x-stream-filter", ""),
    ("x-stream-match-unfiltered", "false"),
    ("x-stream-offset", ""),
];

/// What a SEND is refused for, or for its value.
const REFUSED_IN_SEND: Marks =
    Marks::of(&["message-id"]).and(marks_of(&UNBUILT_ARGUMENTS)).and(marks_of(&UNBUILT_SEND_PROPERTIES));

/// A body that is shorter is copied sooner than shared.
const COPIED_BYTES_MAX: usize = 512;

/// The longest name of a header that a consumer wants the place of a message in.
const INCLUDED_BYTES_MAX: usize = 128;

/// Whether a header of that name in a MESSAGE is the broker's.
pub(super) fn is_ours(name: &str) -> bool {
    OURS.contains(&name) || name.starts_with(PUBLISHER_PREFIX) || name.starts_with(CALLER_PREFIX)
}

/// The marks of properties.
pub(super) const fn marks_of(properties: &[(&str, &str)]) -> Marks {
    let (mut marks, mut at) = (Marks::of(&[]), 0);
    while at < properties.len() {
        marks = marks.and(Marks::of(&[properties[at].0]));
        at += 1;
    }
    marks
}

/// Whether a header of that name in a SEND is the peer's own, for whoever gets the message.
fn is_theirs(name: &str) -> bool {
    // Those that nearly every SEND has are found out first.
    let is_usual =
        matches!(name.as_bytes(), b"destination" | b"content-type" | b"content-length" | b"receipt");
    !is_usual && !is_ours(name) && !QUEUE_ARGUMENTS.contains(&name) && !DEATH_ATTRIBUTES.contains(&name)
}

/// Refuses a SEND that asks for what is not there, rather than doing something else.
pub(super) fn check_send(headers: &Headers) -> Result<(), Fault> {
    if !headers.may_have(REFUSED_IN_SEND) {
        return Ok(());
    }
    if let Some(id) = headers.get("message-id") {
        return Err(Violation::invalid_header("message-id", id).into());
    }
    refuse(headers, &UNBUILT_ARGUMENTS)?;
    refuse(headers, &UNBUILT_SEND_PROPERTIES)
}

/// Refuses a SEND that says that somebody else sends it: as in RabbitMQ `user-id` is who logged in, or not there.
pub(super) fn check_user(headers: &Headers, id: &str) -> Result<(), Fault> {
    match headers.get("user-id") {
        Some(other) if other != id => Err(Violation::invalid_header("user-id", other).into()),
        _ => Ok(()),
    }
}

/// Refuses a SUBSCRIBE that asks for what is not there, rather than doing something else.
pub(super) fn check_subscribe(headers: &Headers) -> Result<(), Fault> {
    refuse(headers, &UNBUILT_ARGUMENTS)?;
    refuse(headers, &UNBUILT_SUBSCRIBE_PROPERTIES)
}

/// Refuses each of these headers that has another value than the one that asks for nothing.
pub(super) fn refuse(headers: &Headers, properties: &[(&str, &str)]) -> Result<(), Fault> {
    let asks = |(name, value): &(&str, &str)| {
        properties.iter().any(|(known, nothing)| known == name && nothing != value)
    };
    match headers.iter().find(asks) {
        Some((name, value)) => Err(Fault::unsupported(name, value)),
        None => Ok(()),
    }
}

/// The header that is to tell the place of each message in its queue.
pub(super) fn include_sequence(headers: &Headers) -> Result<Option<Box<str>>, Fault> {
    match headers.get("include-seq").filter(|name| !name.is_empty()) {
        Some(name) if is_ours(name) || name.len() > INCLUDED_BYTES_MAX => {
            Err(Violation::invalid_header("include-seq", name).into())
        }
        name => Ok(name.map(Box::from)),
    }
}

/// Whether a header is set: `true` or `false`, and `false` if it is not there.
pub(super) fn flag(headers: &Headers, name: &str) -> Result<bool, Fault> {
    match headers.get(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Violation::invalid_header(name, other).into()),
    }
}

/// How one of several callees is chosen; `None` if the header is not there.
pub(super) fn invoke(headers: &Headers) -> Result<Option<Policy>, Fault> {
    let Some(word) = headers.get("x-invoke") else { return Ok(None) };
    Ok(Some(match word {
        "single" => Policy::Single,
        "first" => Policy::First,
        "last" => Policy::Last,
        "roundrobin" => Policy::RoundRobin,
        "random" => Policy::Random,
        other => return Err(Violation::invalid_header("x-invoke", other).into()),
    }))
}

/// How long a caller waits for its answer: milliseconds; 0 is for ever.
pub(super) fn timeout(headers: &Headers) -> Result<Option<Duration>, Fault> {
    let Some(text) = headers.get("x-timeout") else { return Ok(None) };
    let number = text.parse::<u64>().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit()));
    let ms = number.ok_or_else(|| Violation::invalid_header("x-timeout", text))?;
    Ok(Some(Duration::from_millis(ms)).filter(|timeout| !timeout.is_zero()))
}

/// What a SEND means for what its topic keeps.
pub(super) fn retain(headers: &Headers) -> Result<Retain, Fault> {
    match headers.get("retain") {
        None => Ok(Retain::No),
        Some("set") => Ok(Retain::Set),
        Some("remove") => Ok(Retain::Remove),
        Some(other) => Err(Violation::invalid_header("retain", other).into()),
    }
}

/// The peer's own headers, without those in `without`.
pub(super) fn attributes(headers: &Headers, without: &[&str]) -> Attributes {
    let own = |(name, _): &(&str, &str)| is_theirs(name) && !without.contains(name);
    // Most have none.
    if !headers.iter().any(|header| own(&header)) {
        return Attributes::default();
    }
    headers.unique().filter(own).collect()
}

/// The peer's own headers, of which `reply-to` gets another value.
pub(super) fn attributes_answered_at(headers: &Headers, reply_to: &str) -> Attributes {
    let own = headers.unique().filter(|(name, _)| is_theirs(name));
    own.map(|(name, value)| (name, if name == "reply-to" { reply_to } else { value })).collect()
}

/// The body of a frame, with what the headers say of it. Bytes with WAMP's mark of a transparent payload are
/// one: so it came over the border, or is to go.
pub(super) fn payload(headers: &Headers, body: Bytes) -> Result<Payload, Fault> {
    let shape = match headers.get(Shape::HEADER) {
        None => Shape::Value,
        Some(word) => Shape::from_word(word).ok_or_else(|| {
            let detail = format!("header '{}' is args, kwargs or full", Shape::HEADER);
            Fault::new(Reason::InvalidHeader, detail)
        })?,
    };
    let content_type = headers.get("content-type");
    if headers.get(TRANSPARENT).is_some()
        && shape == Shape::Value
        && content_type.is_none_or(|content_type| content_type == "application/octet-stream")
    {
        return Ok(Payload::new(Content::Opaque(body)));
    }
    Ok(Payload::new(Content::Body(Body {
        content_type: content_type.map(ContentType::from),
        encoding: Encoding::from_content_type(content_type),
        shape,
        bytes: body,
    })))
}

/// Copies a body that would keep a much larger buffer in memory for as long as it lives.
pub(super) fn detach(body: &mut Bytes, buffer_bytes: usize) {
    if body.len() < buffer_bytes / 2 {
        *body = Bytes::copy_from_slice(body);
    }
}

/// A body that lies in what is left of a buffer: as a copy where that costs no more than to share the buffer, or where it
/// would keep a much larger one in memory.
pub(super) fn cut_out(rest: &Bytes, place: Range<usize>, buffer_bytes: usize) -> Bytes {
    if place.len() < COPIED_BYTES_MAX.max(buffer_bytes / 2) {
        Bytes::copy_from_slice(&rest[place])
    } else {
        rest.slice(place)
    }
}

//! Which headers are the peer's own, which are the broker's, and which ask for something that it cannot do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use tandem_protocols::payload::{Body, Content, Encoding, Payload, Shape};
use tandem_protocols::stomp::error::{Reason, Violation};
use tandem_protocols::stomp::frame::{Frame, Headers};

use crate::core::calls::Policy;
use crate::core::message::Attributes;
use crate::core::topics::Retain;
use crate::stomp::fault::Fault;

/// Headers that no peer can put into another's MESSAGE: the broker writes them, or acts on them.
const OURS: [&str; 18] = [
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

/// Arguments of a queue that is to be made, in SEND and in SUBSCRIBE.
const QUEUE_ARGUMENTS: [&str; 11] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-expires",
    "x-max-age",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-queue-name",
    "x-queue-type",
];

/// What a SEND may ask of other brokers, and the value that asks for nothing.
const SEND_PROPERTIES: [(&str, &str); 6] = [
    ("AMQ_SCHEDULED_CRON", ""),
    ("AMQ_SCHEDULED_DELAY", "0"),
    ("AMQ_SCHEDULED_PERIOD", "0"),
    ("AMQ_SCHEDULED_REPEAT", "0"),
    ("expiration", "0"),
    ("expires", "0"),
];

/// What a SUBSCRIBE may ask of other brokers, and the value that asks for nothing.
const SUBSCRIBE_PROPERTIES: [(&str, &str); 17] = [
    ("activemq.exclusive", "false"),
    ("activemq.retroactive", "false"),
    ("activemq.subscriptionName", ""),
    ("auto-delete", "true"),
    ("browser", "false"),
    ("credit", ""),
    ("durable", "false"),
    ("durable-subscription-name", ""),
    ("durable-subscriber-name", ""),
    ("exclusive", "false"),
    ("from-seq", ""),
    ("include-seq", ""),
    ("persistent", "false"),
    ("selector", ""),
    ("x-stream-filter", ""),
    ("x-stream-offset", ""),
    ("x-priority", "0"),
];

/// Whether a header of that name in a MESSAGE is the broker's.
pub(super) fn is_ours(name: &str) -> bool {
    OURS.contains(&name) || name.starts_with(PUBLISHER_PREFIX) || name.starts_with(CALLER_PREFIX)
}

/// Refuses a SEND that asks for what is not there, rather than doing something else.
pub(super) fn check_send(headers: &Headers) -> Result<(), Fault> {
    if let Some(id) = headers.get("message-id") {
        return Err(Violation::invalid_header("message-id", id).into());
    }
    check_properties(headers, &SEND_PROPERTIES)
}

/// Refuses a SUBSCRIBE that asks for what is not there, rather than doing something else.
pub(super) fn check_subscribe(headers: &Headers) -> Result<(), Fault> {
    check_properties(headers, &SUBSCRIBE_PROPERTIES)
}

fn check_properties(headers: &Headers, properties: &[(&str, &str)]) -> Result<(), Fault> {
    for (name, value) in headers.iter() {
        let asks = properties.iter().any(|(known, nothing)| *known == name && *nothing != value);
        if asks || QUEUE_ARGUMENTS.contains(&name) {
            return Err(Fault::unsupported(name, value));
        }
    }
    Ok(())
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
    let own = |(name, _): &(&str, &str)| !is_ours(name) && !without.contains(name);
    headers.unique().filter(own).collect()
}

/// The peer's own headers, of which `reply-to` gets another value.
pub(super) fn attributes_answered_at(headers: &Headers, reply_to: &str) -> Attributes {
    let own = headers.unique().filter(|(name, _)| !is_ours(name));
    own.map(|(name, value)| (name, if name == "reply-to" { reply_to } else { value })).collect()
}

/// The body of a frame, with what its headers say of it. Bytes with WAMP's mark of a transparent payload are
/// one: so it came over the border, or is to go.
pub(super) fn payload(frame: &Frame) -> Result<Payload, Fault> {
    let shape = match frame.headers.get(Shape::HEADER) {
        None => Shape::Value,
        Some(word) => Shape::from_word(word).ok_or_else(|| {
            let detail = format!("header '{}' is args, kwargs or full", Shape::HEADER);
            Fault::new(Reason::InvalidHeader, detail)
        })?,
    };
    let content_type = frame.headers.get("content-type");
    if frame.headers.get(TRANSPARENT).is_some()
        && shape == Shape::Value
        && content_type.is_none_or(|content_type| content_type == "application/octet-stream")
    {
        return Ok(Payload::new(Content::Opaque(frame.body.clone())));
    }
    Ok(Payload::new(Content::Body(Body {
        content_type: content_type.map(Arc::from),
        encoding: Encoding::from_content_type(content_type),
        shape,
        bytes: frame.body.clone(),
    })))
}

/// Copies a body that would keep a much larger buffer in memory for as long as it lives.
pub(super) fn detach(body: &mut Bytes, buffer_bytes: usize) {
    if body.len() < buffer_bytes / 2 {
        *body = Bytes::copy_from_slice(body);
    }
}

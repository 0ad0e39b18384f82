//! What headers ask of queues: what a queue is to be like, what it is to do with a message, and how somebody
//! consumes from it. They are RabbitMQ's, and where it has none, those of ActiveMQ, Artemis and Apollo.

use std::sync::Arc;

use tandem_protocols::stomp::error::Violation;
use tandem_protocols::stomp::headers::{Headers, Marks};

use crate::core::message::Handling;
use crate::core::name::Name;
use crate::core::queues::{Browse, ConsumeTerms, Credit, Filter, Properties, QueueTerms, WhenFull};
use crate::stomp::fault::Fault;
use crate::stomp::headers::{QUEUE_ARGUMENTS, flag, marks_of, refuse};
use crate::stomp::settings::Settings;

/// How somebody consumes from a queue, with the value that asks for nothing.
const CONSUMER_PROPERTIES: [(&str, &str); 7] = [
    ("activemq.exclusive", "false"),
    ("activemq.priority", "0"),
    ("browser", "false"),
    ("exclusive", "false"),
    ("from-seq", ""),
    ("include-seq", ""),
    ("x-priority", "0"),
];

/// What delays a message.
const DELAYS: [(&str, &str); 2] = [("AMQ_SCHEDULED_DELAY", "0"), ("AMQ_SCHEDULED_TIME", "0")];

/// Under which name a durable subscription is asked for by those that say one.
const DURABLE_NAMES: [&str; 3] =
    ["durable-subscription-name", "durable-subscriber-name", "activemq.subscriptionName"];

/// What a SEND says of how its message is to be handled.
const HANDLING: Marks = Marks::of(&[
    "AMQ_SCHEDULED_DELAY",
    "AMQ_SCHEDULED_TIME",
    "JMSXGroupID",
    "JMSXGroupSeq",
    "expiration",
    "expires",
    "message_group",
    "priority",
]);

/// Refuses what is said of a queue where there is none.
pub(super) fn refuse_queue_arguments(headers: &Headers) -> Result<(), Fault> {
    const MARKS: Marks = Marks::of(&QUEUE_ARGUMENTS);
    if !headers.may_have(MARKS) {
        return Ok(());
    }
    match headers.iter().find(|(name, _)| QUEUE_ARGUMENTS.contains(name)) {
        Some((name, value)) => Err(Fault::unsupported(name, value)),
        None => Ok(()),
    }
}

/// Refuses what only a queue can do for its consumers.
pub(super) fn refuse_consumer_properties(headers: &Headers) -> Result<(), Fault> {
    refuse(headers, &CONSUMER_PROPERTIES)
}

/// Refuses to send a message later.
pub(super) fn refuse_delays(headers: &Headers) -> Result<(), Fault> {
    const MARKS: Marks = marks_of(&DELAYS);
    if headers.may_have(MARKS) { refuse(headers, &DELAYS) } else { Ok(()) }
}

/// Refuses a destination of the other kind than Artemis' headers say that it is.
pub(super) fn check_kind(headers: &Headers, is_topic: bool) -> Result<(), Fault> {
    let right = if is_topic { "MULTICAST" } else { "ANYCAST" };
    for name in ["destination-type", "subscription-type"] {
        if let Some(other) = headers.get(name).filter(|kind| *kind != right) {
            return Err(Fault::unsupported(name, other));
        }
    }
    Ok(())
}

/// A number of decimal digits, and nothing else.
pub(super) fn number(headers: &Headers, name: &str) -> Result<Option<u64>, Fault> {
    headers.get(name).map(|text| parse_number(name, text)).transpose()
}

fn parse_number(name: &str, text: &str) -> Result<u64, Fault> {
    let number = text.parse().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit()));
    number.ok_or_else(|| Violation::invalid_header(name, text).into())
}

/// The same, where 0 asks for nothing.
fn positive(headers: &Headers, name: &str) -> Result<Option<u64>, Fault> {
    Ok(number(headers, name)?.filter(|number| *number > 0))
}

/// What a queue must be like.
pub(super) fn queue_terms(headers: &Headers, existing: bool) -> Result<QueueTerms, Fault> {
    let small = |name: &str| {
        let number = number(headers, name)?;
        let fits = |number: u64| {
            u32::try_from(number).map_err(|_| Violation::invalid_header(name, &number.to_string()))
        };
        Ok::<_, Fault>(number.map(fits).transpose()?)
    };
    let when_full = match headers.get("x-overflow") {
        None => None,
        Some("reject-publish") => Some(WhenFull::Reject),
        Some("drop-head") => Some(WhenFull::DropHead),
        Some(other) => return Err(Fault::unsupported("x-overflow", other)),
    };
    if let Some(exchange) = headers.get("x-dead-letter-exchange").filter(|name| !name.is_empty()) {
        // The one without a name leads to the queue that the routing key names; there are no others.
        return Err(Fault::unsupported("x-dead-letter-exchange", exchange));
    }
    let priority_max = match small("x-max-priority")? {
        Some(max) => Some(
            u8::try_from(max).map_err(|_| Violation::invalid_header("x-max-priority", &max.to_string()))?,
        ),
        None => None,
    };
    let properties = Properties {
        message_ttl_ms: number(headers, "x-message-ttl")?,
        messages_max: number(headers, "x-max-length")?,
        bytes_max: number(headers, "x-max-length-bytes")?,
        when_full,
        priority_max,
        unused_ms_max: number(headers, "x-expires")?,
        dead_letters: name(headers, "x-dead-letter-routing-key")?,
        delivery_limit: match headers.get("x-delivery-limit") {
            Some("-1") => Some(u32::MAX),
            _ => small("x-delivery-limit")?,
        },
        backoff_ms: number(headers, "x-redelivery-delay")?,
        backoff_ms_max: number(headers, "x-redelivery-delay-max")?,
        kept_max: None,
    };
    Ok(QueueTerms { properties, existing })
}

/// The name of a queue of the peer's.
fn name(headers: &Headers, header: &str) -> Result<Option<Name>, Fault> {
    let Some(text) = headers.get(header) else { return Ok(None) };
    let name =
        Name::parse(text).ok().filter(|name| !name.as_str().starts_with(crate::core::access::HOUSE_PREFIX));
    name.map(Some).ok_or_else(|| Violation::invalid_header(header, text).into())
}

/// What a queue is to do with a message.
pub(super) fn handling(headers: &Headers) -> Result<Option<Arc<Handling>>, Fault> {
    if !headers.may_have(HANDLING) {
        return Ok(None);
    }
    let priority = match number(headers, "priority")? {
        Some(number) => Some(
            u8::try_from(number).map_err(|_| Violation::invalid_header("priority", &number.to_string()))?,
        ),
        None => None,
    };
    let handling = Handling {
        priority,
        expires_at_ms: positive(headers, "expires")?,
        ttl_ms: positive(headers, "expiration")?,
        deliver_at_ms: positive(headers, "AMQ_SCHEDULED_TIME")?,
        delay_ms: positive(headers, "AMQ_SCHEDULED_DELAY")?,
        // ActiveMQ's and Artemis' name for it, and Apollo's.
        group: headers
            .get("JMSXGroupID")
            .or_else(|| headers.get("message_group"))
            .filter(|group| !group.is_empty())
            .map(Box::from),
        ends_group: headers.get("JMSXGroupSeq") == Some("-1"),
    };
    Ok((handling != Handling::default()).then(|| Arc::new(handling)))
}

/// How somebody consumes from a queue.
pub(super) fn consume_terms(
    headers: &Headers,
    filter: Option<Arc<dyn Filter>>,
) -> Result<ConsumeTerms, Fault> {
    let said =
        ["x-priority", "activemq.priority"].into_iter().find_map(|name| Some((name, headers.get(name)?)));
    let priority = match said {
        Some((name, text)) => text.parse().map_err(|_| Violation::invalid_header(name, text))?,
        None => 0,
    };
    let exclusive = flag(headers, "exclusive")? || flag(headers, "activemq.exclusive")?;
    Ok(ConsumeTerms { filter, priority, exclusive, browse: browse(headers)? })
}

/// Whether somebody only looks: with `browser:true` at what waits, with `from-seq` at what is kept.
fn browse(headers: &Headers) -> Result<Option<Browse>, Fault> {
    let browses = flag(headers, "browser")?;
    let ends = browses && headers.get("browser-end") != Some("false");
    match headers.get("from-seq").filter(|text| !text.is_empty()) {
        Some("-1") => Ok(Some(Browse::Kept { from: None, ends })),
        Some(text) => Ok(Some(Browse::Kept { from: Some(parse_number("from-seq", text)?), ends })),
        None => Ok(browses.then_some(Browse::Waiting { ends })),
    }
}

/// What a consumer may hold unsettled: what it asks for, within limits. 0 asks for nothing.
pub(super) fn credit(headers: &Headers, settings: &Settings) -> Result<Credit, Fault> {
    let (messages, bytes) = match headers.get("credit").filter(|text| !text.is_empty()) {
        None => (None, None),
        Some(text) => {
            let (messages, bytes) = text.split_once(',').map_or((text, None), |(m, b)| (m, Some(b)));
            let parse = |number: &str| parse_number("credit", number.trim());
            (Some(parse(messages)?), bytes.map(parse).transpose()?)
        }
    };
    let mut messages =
        [number(headers, "prefetch-count")?, number(headers, "activemq.prefetchSize")?, messages];
    // Artemis': bytes; 0 for one message at a time, -1 for what is usual.
    let window = match headers.get("consumer-window-size") {
        Some("-1") => None,
        _ => number(headers, "consumer-window-size")?,
    };
    if window == Some(0) {
        messages[0].get_or_insert(1);
    }
    let bytes = bytes.or(window);
    let least = |asked: Option<u64>, usual: usize, max: usize| match asked.filter(|number| *number > 0) {
        None => usual,
        Some(asked) => usize::try_from(asked).unwrap_or(usize::MAX).min(max),
    };
    Ok(Credit {
        messages: least(
            messages.into_iter().flatten().next(),
            settings.credit.messages,
            settings.prefetch_max,
        ),
        bytes: least(bytes, settings.credit.bytes, settings.credit.bytes),
    })
}

/// The name of the durable subscription that headers are about, if they are about one.
///
/// One that is asked for by `durable:true` is known by its id and its destination, as in RabbitMQ.
pub(super) fn durable_name(headers: &Headers) -> Result<Option<String>, Fault> {
    let named = DURABLE_NAMES.into_iter().find_map(|name| headers.get(name).filter(|name| !name.is_empty()));
    if let Some(name) = named {
        return Ok(Some(name.to_owned()));
    }
    if !flag(headers, "durable")? && !flag(headers, "persistent")? {
        return Ok(None);
    }
    if headers.get("auto-delete") == Some("true") {
        return Err(Fault::unsupported("auto-delete", "true"));
    }
    Ok(Some(format!("{} {}", headers.require("destination")?, headers.require("id")?)))
}

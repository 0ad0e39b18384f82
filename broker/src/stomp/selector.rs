//! A selector, as a queue and a subscription ask it about messages of the house.
//!
//! Its identifiers are the names of headers. Those that JMS defines are what they are in STOMP: `JMSPriority` and
//! `JMSExpiration` are numbers, also `JMSTimestamp` where the header `timestamp` is one; `JMSCorrelationID`,
//! `JMSReplyTo` and `JMSType` are the headers `correlation-id`, `reply-to` and `type`; `JMSDeliveryMode` is
//! `PERSISTENT` where the header `persistent` is `true`. Everything else is a string.

use std::sync::Arc;

use tandem_protocols::payload::Content;
use tandem_protocols::stomp::error::Reason;
use tandem_protocols::stomp::frame::Headers;
use tandem_protocols::stomp::selector::{Properties, Selector, Value};

use crate::core::message::Publication;
use crate::core::queues::{Filter, PRIORITY_USUAL};
use crate::stomp::fault::Fault;

/// What a SUBSCRIBE wants of all messages.
#[derive(Debug)]
struct Selection {
    text: Box<str>,
    selector: Selector,
}

/// Reads the header `selector`, if it is there and says anything.
pub(super) fn filter(headers: &Headers) -> Result<Option<Arc<dyn Filter>>, Fault> {
    let Some(text) = headers.get("selector").filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let selector = Selector::parse(text).map_err(|error| {
        Fault::new(Reason::InvalidHeader, format!("header 'selector' is not a selector: {error}"))
    })?;
    Ok(Some(Arc::new(Selection { text: text.into(), selector })))
}

/// The filter that was written so. `None` if it is none.
pub fn read_filter(text: &str) -> Option<Arc<dyn Filter>> {
    let selector = Selector::parse(text).ok()?;
    Some(Arc::new(Selection { text: text.into(), selector }))
}

impl Filter for Selection {
    fn admits(&self, publication: &Publication) -> bool {
        self.selector.selects(&Message(publication))
    }

    fn text(&self) -> &str {
        &self.text
    }
}

struct Message<'a>(&'a Publication);

impl Properties for Message<'_> {
    fn get(&self, name: &str) -> Option<Value<'_>> {
        let Publication { attributes, handling, payload, .. } = self.0;
        let header = |name| attributes.get(name).map(Value::Text);
        match name {
            "JMSPriority" => {
                let said = handling.as_ref().and_then(|handling| handling.priority);
                Some(Value::Integer(said.unwrap_or(PRIORITY_USUAL).into()))
            }
            "JMSExpiration" => {
                let said = handling.as_ref().and_then(|handling| handling.expires_at_ms);
                Some(Value::Integer(said.and_then(|at| at.try_into().ok()).unwrap_or(0)))
            }
            "JMSTimestamp" => attributes.get("timestamp")?.parse().ok().map(Value::Integer),
            "JMSCorrelationID" => header("correlation-id"),
            "JMSReplyTo" => header("reply-to"),
            "JMSType" => header("type"),
            "JMSDeliveryMode" => Some(Value::Text(match attributes.get("persistent") {
                Some("true") => "PERSISTENT",
                _ => "NON_PERSISTENT",
            })),
            "content-type" => match payload.content() {
                Content::Body(body) => body.content_type.as_deref().map(Value::Text),
                Content::Arguments(_) | Content::Opaque(_) => None,
            },
            name => header(name),
        }
    }
}

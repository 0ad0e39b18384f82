//! The history of events.
//!
//! ```text
//! wamp.subscription.get_events  [subscription] {reverse, limit, topic, from_time, ...}   -> [event, ...]
//! ```
//!
//! The bounds are `from_`, `after_`, `before_` and `until_`, each with `time` (text, see
//! [`timestamp`](crate::wamp::timestamp)) and with `publication`. An event is a dictionary of `timestamp`,
//! `subscription`, `publication`, `details` and, where there are any, `args` and `kwargs`.

use bytes::Bytes;

use tandem_protocols::payload::{Arguments, Content, encode_bytes};
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::Violation;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::list::{Element, encode_dict, encode_list};

use crate::core::history::{Past, Query, Span};
use crate::core::parcel::SubscriptionId;
use crate::core::realm::Outgoing;
use crate::wamp::arguments::keywords;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::dialogue::procedure::{arguments, first_arguments, say_list};
use crate::wamp::dialogue::pubsub::details;
use crate::wamp::fault::Fault;
use crate::wamp::luggage;
use crate::wamp::timestamp;
use crate::wamp::voice::{Voice, note_unconvertible};

impl Dialogue {
    pub(in crate::wamp) fn get_events(
        &mut self,
        request: Id,
        outgoing: &Outgoing,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        let first = first_arguments(outgoing)?;
        let subscription = first.first().and_then(Value::as_id);
        let subscription =
            subscription.ok_or_else(|| Fault::argument("the first argument is a subscription"))?;
        let query = query(&keywords(arguments(outgoing)?)?)?;
        let subscription = SubscriptionId(subscription.get());
        let events = self.member.history(subscription, &query)?;
        let encoded: Vec<_> = events.iter().filter_map(|past| encode(past, subscription, voice)).collect();
        let elements: Vec<_> = encoded.iter().map(|event| Element::Encoded(event)).collect();
        say_list(request, encode_list(voice.format, &elements), voice);
        Ok(())
    }
}

fn encode(past: &Past, subscription: SubscriptionId, voice: &Voice) -> Option<Bytes> {
    let publication = &past.publication;
    let content = luggage::content(&publication.payload, voice.format).map_err(note_unconvertible).ok()?;
    let details = Value::from(details(publication, Dict::new().with("topic", publication.name.as_str())));
    let timestamp = Value::from(timestamp::write(past.at_ms));
    let (subscription, number) = (Value::from(subscription.0), Value::from(publication.id));
    let mut entries = vec![
        ("timestamp", Element::Value(&timestamp)),
        ("subscription", Element::Value(&subscription)),
        ("publication", Element::Value(&number)),
        ("details", Element::Value(&details)),
    ];
    let opaque;
    match &content {
        Content::Arguments(Arguments { args, kwargs, .. }) => {
            entries.extend((!args.is_empty()).then_some(("args", Element::Encoded(args))));
            entries.extend((!kwargs.is_empty()).then_some(("kwargs", Element::Encoded(kwargs))));
        }
        Content::Opaque(bytes) => {
            opaque = encode_bytes(voice.format, bytes);
            entries.push(("args", Element::Encoded(&opaque)));
        }
        // Conversion left none.
        Content::Body(_) => {}
    }
    Some(encode_dict(voice.format, &entries))
}

fn query(keywords: &Dict) -> Result<Query, Fault> {
    let argument = |violation: Violation| Fault::argument(violation.message());
    let time = |key: &str| {
        let Some(text) = keywords.str(key).map_err(argument)? else { return Ok(None) };
        let time = timestamp::read(text);
        time.map(Some).ok_or_else(|| Fault::argument(&format!("{key} is not like 2013-12-21T13:43:11.000Z")))
    };
    let publication = |key: &str| Ok(keywords.id(key).map_err(argument)?.map(Id::get));
    let limit = keywords.uint("limit").map_err(argument)?;
    Ok(Query {
        reverse: keywords.bool("reverse").map_err(argument)?.unwrap_or(false),
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        topic: keywords.str("topic").map_err(argument)?.map(str::to_owned),
        time: span("time", time)?,
        publication: span("publication", publication)?,
    })
}

fn span(what: &str, read: impl Fn(&str) -> Result<Option<u64>, Fault>) -> Result<Span, Fault> {
    Ok(Span {
        from: read(&format!("from_{what}"))?,
        after: read(&format!("after_{what}"))?,
        before: read(&format!("before_{what}"))?,
        until: read(&format!("until_{what}"))?,
    })
}

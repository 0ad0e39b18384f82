//! What feeds a subscription: topics, a queue, a durable subscription, or the calls of a procedure; and what each
//! of them can do for whom. What one cannot do is refused by name.

use tandem_protocols::stomp::error::Violation;
use tandem_protocols::stomp::frame::Headers;
use tandem_protocols::stomp::state::AckMode;

use crate::core::calls::Offer;
use crate::core::durable::DurableTerms;
use crate::core::name::Pattern;
use crate::core::parcel::ConsumerId;
use crate::core::queues::durable::Progress;
use crate::core::queues::{Browse, ConsumeTerms, Credit};
use crate::core::realm::TakeTerms;
use crate::stomp::destination::{Place, Source};
use crate::stomp::dialogue::Dialogue;
use crate::stomp::dialogue::consumer::Consumer;
use crate::stomp::dialogue::subscription::{Extras, Feed};
use crate::stomp::fault::Fault;
use crate::stomp::headers;
use crate::stomp::selector;
use crate::stomp::settings::Settings;
use crate::stomp::terms;

/// What asks for a durable subscription, which only topics have.
const DURABLE: [(&str, &str); 2] = [("durable", "false"), ("persistent", "false")];

/// The same by a name. RabbitMQ's queues are durable, and clients say so; but they bear no other name.
const DURABLE_BY_NAME: [(&str, &str); 3] =
    [("durable-subscription-name", ""), ("durable-subscriber-name", ""), ("activemq.subscriptionName", "")];

/// What asks for something that only a subscription to topics can have.
const ONLY_TOPICS: [(&str, &str); 3] =
    [("no-local", "false"), ("activemq.noLocal", "false"), ("x-get-retained", "false")];

/// A SUBSCRIBE that is being done.
pub(in crate::stomp) struct Request<'a> {
    pub(in crate::stomp) headers: &'a Headers,
    pub(in crate::stomp) destination: &'a str,
    pub(in crate::stomp) mode: AckMode,
    /// Under which what the topics kept is wanted, if it is.
    pub(in crate::stomp) tag: Option<u64>,
    pub(in crate::stomp) extras: Extras,
    /// Under which the store's answer is known, if it must know.
    pub(in crate::stomp) ticket: u64,
    /// Whether it must.
    pub(in crate::stomp) progress: Progress,
}

impl Dialogue {
    /// Opens what a SUBSCRIBE wants its messages from.
    pub(in crate::stomp) fn feed(
        &mut self,
        source: Source,
        request: &mut Request<'_>,
        settings: &Settings,
    ) -> Result<Feed, Fault> {
        let Request { headers, mode, .. } = *request;
        terms::check_kind(headers, matches!(source, Source::Topic(_)))?;
        if !matches!(source, Source::Topic(_)) {
            headers::refuse(headers, &DURABLE_BY_NAME)?;
            // What ends with its consumers is a temporary queue, or says so with `x-expires`.
            headers::refuse(headers, &[("auto-delete", "false")])?;
        }
        if !matches!(source, Source::Topic(_) | Source::Queue(_) | Source::ExistingQueue(_)) {
            headers::refuse(headers, &DURABLE)?;
        }
        if !matches!(source, Source::Procedure(_)) && headers::invoke(headers)?.is_some() {
            return Err(Violation::invalid_header("x-invoke", request.destination).into());
        }
        let credit = terms::credit(headers, settings)?;
        let consumer =
            |id: ConsumerId, place: Place| Ok(Feed::Queue(Box::new(Consumer::new(id, place, mode))));
        match source {
            Source::Topic(pattern) => self.feed_of_topics(pattern, credit, request),
            Source::Queue(name) => {
                let terms = take_terms(request, false)?;
                consumer(self.member.consume_under(&name, credit, terms)?, Place::Queue)
            }
            Source::ExistingQueue(name) => {
                let terms = take_terms(request, true)?;
                consumer(self.member.consume_under(&name, credit, terms)?, Place::Queue)
            }
            Source::Durable(name) => {
                headers::refuse(headers, &ONLY_TOPICS)?;
                terms::refuse_queue_arguments(headers)?;
                let terms = consume_terms(request)?;
                consumer(self.member.consume_durable(&name, credit, terms)?, Place::Topic)
            }
            Source::Temp => {
                headers::refuse(headers, &ONLY_TOPICS)?;
                headers::refuse(headers, &[("selector", "")])?;
                terms::refuse_queue_arguments(headers)?;
                terms::refuse_consumer_properties(headers)?;
                consumer(self.temp_consumer(request.destination, credit)?, Place::Reply)
            }
            Source::Procedure(pattern) => self.feed_of_procedure(&pattern, request),
        }
    }

    fn feed_of_topics(
        &mut self,
        pattern: Pattern,
        credit: Credit,
        request: &mut Request<'_>,
    ) -> Result<Feed, Fault> {
        let Request { headers, mode, tag, .. } = *request;
        let filter = selector::filter(headers)?;
        if tag.is_some() && (mode != AckMode::Auto || terms::durable_name(headers)?.is_some()) {
            return Err(Fault::unsupported("x-get-retained", "true"));
        }
        if let Some(name) = terms::durable_name(headers)? {
            let properties = terms::queue_terms(headers, false)?.properties;
            let durable = DurableTerms { pattern, filter, properties };
            request.extras.durable = Some(name.as_str().into());
            let mut terms = consume_terms(request)?;
            // What comes in has passed it.
            terms.filter = None;
            let (id, progress) =
                self.member.subscribe_durably(&name, durable, credit, terms, request.ticket)?;
            request.progress = progress;
            return Ok(Feed::Queue(Box::new(Consumer::new(id, Place::Topic, mode))));
        }
        headers::refuse(headers, &[("auto-delete", "true")])?;
        terms::refuse_queue_arguments(headers)?;
        terms::refuse_consumer_properties(headers)?;
        if mode == AckMode::Auto {
            let id = self.member.subscribe_and_replay(&pattern, tag)?;
            request.extras.filter = filter;
            return Ok(Feed::Topics(id));
        }
        let id = self.member.bind_filtered(&pattern, credit, filter)?;
        Ok(Feed::Queue(Box::new(Consumer::new(id, Place::Topic, mode))))
    }

    fn feed_of_procedure(&mut self, pattern: &Pattern, request: &Request<'_>) -> Result<Feed, Fault> {
        let Request { headers, mode, .. } = *request;
        headers::refuse(headers, &ONLY_TOPICS)?;
        headers::refuse(headers, &[("selector", "")])?;
        terms::refuse_queue_arguments(headers)?;
        terms::refuse_consumer_properties(headers)?;
        if mode != AckMode::Auto {
            return Err(Violation::invalid_header("ack", mode.as_str()).into());
        }
        let policy = headers::invoke(headers)?.unwrap_or_default();
        Ok(Feed::Procedure(self.member.offer(pattern, Offer { policy, ..Offer::default() })?))
    }
}

/// How a queue is consumed from, and what it must be like.
fn take_terms(request: &mut Request<'_>, existing: bool) -> Result<TakeTerms, Fault> {
    headers::refuse(request.headers, &ONLY_TOPICS)?;
    let queue = terms::queue_terms(request.headers, existing)?;
    Ok(TakeTerms { consumer: consume_terms(request)?, queue })
}

fn consume_terms(request: &mut Request<'_>) -> Result<ConsumeTerms, Fault> {
    let headers = request.headers;
    let consumer = terms::consume_terms(headers, selector::filter(headers)?)?;
    request.extras.include_sequence = headers::include_sequence(headers)?;
    if let Some(Browse::Waiting { ends: true } | Browse::Kept { ends: true, .. }) = consumer.browse {
        request.extras.browsed = Some(request.destination.into());
    }
    Ok(consumer)
}

//! SUBSCRIBE and UNSUBSCRIBE, and what comes of them.
//!
//! A subscription to topics that does not acknowledge is one of the house; several of a session to the same
//! pattern share it. One that does is a queue bound to those topics. In 1.0 a subscription may have no id:
//! its destination is its name then, and its messages bear none.

use std::sync::Arc;

use tandem_protocols::stomp::error::{Reason, Violation};
use tandem_protocols::stomp::frame::{Frame, Headers, Version};
use tandem_protocols::stomp::state::AckMode;

use crate::core::access::Refusal;
use crate::core::calls::Offer;
use crate::core::message::Publication;
use crate::core::name::Name;
use crate::core::parcel::{ConsumerId, Delivery, RegistrationId, SubscriptionId};
use crate::core::queues::{Credit, Settlement};
use crate::stomp::destination::{self, Place, TEMP_QUEUE};
use crate::stomp::dialogue::consumer::{Closed, Consumer, Unsettled};
use crate::stomp::dialogue::{Dialogue, Receipt};
use crate::stomp::fault::Fault;
use crate::stomp::headers;
use crate::stomp::message;
use crate::stomp::settings::Settings;
use crate::stomp::voice::Voice;

/// A subscription, as its peer sees it.
#[derive(Debug)]
pub(in crate::stomp) struct Subscription {
    /// The peer's name for it, which is in its messages.
    pub(in crate::stomp) id: Option<Box<str>>,
    /// Kept in 1.0 only, where it can end the subscription.
    destination: Option<Box<str>>,
    /// Without what the session itself published.
    no_local: bool,
    /// Under which tag it wanted what its topics had kept; 0 if it did not.
    replay: u64,
    pub(in crate::stomp) feed: Feed,
}

/// Where its messages come from.
#[derive(Debug)]
pub(in crate::stomp) enum Feed {
    Topics(SubscriptionId),
    Queue(Consumer),
    Procedure(RegistrationId),
}

/// A queue for answers, which its owner calls `/temp-queue/...`.
#[derive(Debug)]
pub(in crate::stomp) struct Reply {
    pub(in crate::stomp) temp: Box<str>,
    pub(in crate::stomp) queue: Name,
    pub(in crate::stomp) consumer: ConsumerId,
}

impl Subscription {
    /// Whether it gets no acknowledgements.
    pub(in crate::stomp) fn is_auto(&self) -> bool {
        match &self.feed {
            Feed::Topics(_) | Feed::Procedure(_) => true,
            Feed::Queue(consumer) => consumer.mode == AckMode::Auto,
        }
    }
}

impl Dialogue {
    /// SUBSCRIBE.
    pub(in crate::stomp) fn subscribe(
        &mut self,
        frame: &Frame,
        version: Version,
        settings: &Settings,
    ) -> Result<Receipt, Fault> {
        let headers = &frame.headers;
        headers::check_subscribe(headers)?;
        let destination = headers.require("destination")?;
        let source = destination::source(destination)?;
        let id = self.new_id(headers, destination, version)?;
        if self.subscriptions.len() >= settings.subscriptions_max {
            return Err(Fault::too_many("subscriptions of a session", settings.subscriptions_max));
        }
        let mode = AckMode::parse(headers.get("ack"))?;
        let no_local = headers::flag(headers, "no-local")?;
        let credit = credit(headers, settings)?;
        let replay = self.replay(headers)?;
        let tag = Some(replay).filter(|tag| *tag > 0);
        let invoke = headers::invoke(headers)?;
        if invoke.is_some() && !matches!(source, destination::Source::Procedure(_)) {
            return Err(Violation::invalid_header("x-invoke", destination).into());
        }
        let feed = match source {
            destination::Source::Topic(pattern) if mode == AckMode::Auto => {
                Feed::Topics(self.member.subscribe_and_replay(&pattern, tag)?)
            }
            _ if tag.is_some() => return Err(Fault::unsupported("x-get-retained", "true")),
            destination::Source::Topic(pattern) => {
                Feed::Queue(Consumer::new(self.member.bind(&pattern, credit)?, Place::Topic, mode))
            }
            destination::Source::Queue(_) | destination::Source::Procedure(_) if no_local => {
                return Err(Fault::unsupported("no-local", "true"));
            }
            destination::Source::Queue(name) => {
                Feed::Queue(Consumer::new(self.member.consume(&name, credit)?, Place::Queue, mode))
            }
            destination::Source::Procedure(_) if mode != AckMode::Auto => {
                return Err(Violation::invalid_header("ack", mode.as_str()).into());
            }
            destination::Source::Procedure(pattern) => {
                let offer = Offer { policy: invoke.unwrap_or_default(), ..Offer::default() };
                Feed::Procedure(self.member.offer(&pattern, offer)?)
            }
        };
        let destination = (version == Version::V10).then(|| destination.into());
        if self.subscriptions.len() < 4 {
            // Most sessions have one or two, and room for four is 350 bytes.
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.push(Subscription { id, destination, no_local, replay, feed });
        Ok(Receipt::Due)
    }

    /// A tag for what the topics had kept, if the subscription wants it; else 0.
    fn replay(&mut self, headers: &Headers) -> Result<u64, Fault> {
        if !headers::flag(headers, "x-get-retained")? {
            return Ok(0);
        }
        self.rare().replays += 1;
        Ok(self.rare().replays)
    }

    /// The id of a subscription to be, which no other one has. `None` in 1.0 where there is none.
    fn new_id(
        &self,
        headers: &Headers,
        destination: &str,
        version: Version,
    ) -> Result<Option<Box<str>>, Fault> {
        let in_use =
            |what: &str| Fault::new(Reason::InvalidHeader, format!("'{what}' is subscribed already"));
        match headers.get("id") {
            Some(id) if id.starts_with(TEMP_QUEUE) => Err(Violation::invalid_header("id", id).into()),
            Some(id) if self.subscriptions.iter().any(|known| known.id.as_deref() == Some(id)) => {
                Err(in_use(id))
            }
            Some(id) => Ok(Some(id.into())),
            None if version > Version::V10 => Err(Violation::missing_header("id").into()),
            None if self.nameless(destination).is_some() => Err(in_use(destination)),
            None => Ok(None),
        }
    }

    fn nameless(&self, destination: &str) -> Option<usize> {
        self.subscriptions
            .iter()
            .position(|known| known.id.is_none() && known.destination.as_deref() == Some(destination))
    }

    /// UNSUBSCRIBE. What it holds unsettled may still be acknowledged.
    pub(in crate::stomp) fn unsubscribe(
        &mut self,
        frame: &Frame,
        version: Version,
    ) -> Result<Receipt, Fault> {
        let headers = &frame.headers;
        let place = match (headers.get("id"), headers.get("destination")) {
            (Some(id), _) => self.subscriptions.iter().position(|known| known.id.as_deref() == Some(id)),
            // One without a name first; a name need not be said if the destination tells enough.
            (None, Some(destination)) if version == Version::V10 => {
                self.nameless(destination).or_else(|| {
                    let is = |known: &Subscription| known.destination.as_deref() == Some(destination);
                    self.subscriptions.iter().position(is)
                })
            }
            (None, _) => return Err(Violation::missing_header("id").into()),
        };
        let place = place.ok_or_else(|| Fault::new(Reason::NotFound, "there is no such subscription"))?;
        let Subscription { id, feed, .. } = self.subscriptions.swap_remove(place);
        match feed {
            Feed::Topics(house) => {
                let shares = |other: &Subscription| matches!(&other.feed, Feed::Topics(id) if *id == house);
                if !self.subscriptions.iter().any(shares) {
                    self.member.unsubscribe(house)?;
                }
            }
            Feed::Queue(consumer) => {
                self.member.close_consumer(consumer.id)?;
                if !consumer.unsettled.is_empty() {
                    self.rare().closed.push(Closed { id, consumer });
                }
            }
            Feed::Procedure(house) => {
                let shares =
                    |other: &Subscription| matches!(&other.feed, Feed::Procedure(id) if *id == house);
                if !self.subscriptions.iter().any(shares) {
                    match self.member.unregister(house) {
                        // It was taken away before.
                        Ok(()) | Err(Refusal::NoSuchRegistration) => {}
                        Err(refusal) => return Err(refusal.into()),
                    }
                }
            }
        }
        Ok(Receipt::Due)
    }

    /// A message on a topic, for each of the session's subscriptions that share the house's.
    pub(in crate::stomp) fn tell_event(
        &mut self,
        publication: &Arc<Publication>,
        house: SubscriptionId,
        voice: &mut Voice,
    ) {
        let own = publication.publisher == self.member.id();
        for subscription in &self.subscriptions {
            match &subscription.feed {
                Feed::Topics(id) if *id == house && !(own && subscription.no_local) => {}
                _ => continue,
            }
            match message::event(voice, publication, subscription.id.as_deref()) {
                Ok(frame) => voice.send(frame),
                Err(why) => message::note_unconvertible(why),
            }
        }
    }

    /// What a topic had kept, for the one subscription that wanted it.
    pub(in crate::stomp) fn tell_retained(&self, publication: &Publication, tag: u64, voice: &mut Voice) {
        let Some(subscription) = self.subscriptions.iter().find(|known| known.replay == tag) else { return };
        match message::retained(voice, publication, subscription.id.as_deref()) {
            Ok(frame) => voice.send(frame),
            Err(why) => message::note_unconvertible(why),
        }
    }

    /// A message from a queue.
    pub(in crate::stomp) fn hand_over(&mut self, delivery: &Delivery, voice: &mut Voice) {
        let own = delivery.publication.publisher == self.member.id();
        for subscription in &mut self.subscriptions {
            let Feed::Queue(consumer) = &mut subscription.feed else { continue };
            if consumer.id != delivery.consumer {
                continue;
            }
            if own && subscription.no_local {
                return self.settle_delivery(delivery, Settlement::Accept);
            }
            let (id, mode) = (subscription.id.as_deref(), consumer.mode);
            let settlement = match message::delivery(voice, delivery, consumer.place, id, mode) {
                Ok(frame) => {
                    voice.send(frame);
                    Settlement::Accept
                }
                Err(why) => {
                    message::note_unconvertible(why);
                    Settlement::Reject
                }
            };
            if mode == AckMode::Auto || settlement == Settlement::Reject {
                self.settle_delivery(delivery, settlement);
            } else {
                consumer.unsettled.push_back(Unsettled::of(delivery));
            }
            return;
        }
        self.hand_over_reply(delivery, voice);
    }

    /// A message from a queue that was not subscribed to: for answers, or not any more.
    fn hand_over_reply(&mut self, delivery: &Delivery, voice: &mut Voice) {
        let replies = self.rare_if_any().map(|rare| &rare.replies[..]).unwrap_or_default();
        let Some(reply) = replies.iter().find(|reply| reply.consumer == delivery.consumer) else {
            self.settle_delivery(delivery, Settlement::Requeue);
            return self.member.release_if_settled(delivery.consumer);
        };
        match message::delivery(voice, delivery, Place::Reply, Some(&reply.temp), AckMode::Auto) {
            Ok(frame) => voice.send(frame),
            Err(why) => message::note_unconvertible(why),
        }
        self.settle_delivery(delivery, Settlement::Accept);
    }

    fn settle_delivery(&mut self, delivery: &Delivery, settlement: Settlement) {
        if let Err(refusal) = self.member.settle(delivery.consumer, delivery.sequence, settlement) {
            // Its consumer went while the delivery lay in the mailbox: it is back in its queue.
            tracing::debug!(%refusal, "a delivery could not be settled");
        }
    }
}

/// What a consumer may hold unsettled: in messages, what it asks for, within limits. 0 asks for nothing.
fn credit(headers: &Headers, settings: &Settings) -> Result<Credit, Fault> {
    let messages = match headers.get("prefetch-count") {
        None => settings.credit.messages,
        Some(text) => {
            let number = text.parse::<u32>().ok().filter(|_| text.bytes().all(|o| o.is_ascii_digit()));
            match number.ok_or_else(|| Violation::invalid_header("prefetch-count", text))? {
                0 => settings.credit.messages,
                number => (number as usize).min(settings.prefetch_max),
            }
        }
    };
    Ok(Credit { messages, ..settings.credit })
}

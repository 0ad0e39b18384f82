//! SUBSCRIBE and UNSUBSCRIBE, and what comes of them.
//!
//! A subscription to topics that does not acknowledge is one of the house; several of a session to the same
//! pattern share it. One that does is a queue bound to those topics. In 1.0 a subscription may have no id:
//! its destination is its name then, and its messages bear none.

use std::sync::Arc;

use tandem_protocols::stomp::error::{Reason, Violation};
use tandem_protocols::stomp::frame::{Command, Frame, Headers, Version};
use tandem_protocols::stomp::state::AckMode;

use crate::core::access::Refusal;
use crate::core::bundle::Bundle;
use crate::core::message::Publication;
use crate::core::name::Name;
use crate::core::parcel::{ConsumerId, Delivery, SubscriptionId};
use crate::core::queues::durable::Progress;
use crate::core::queues::{Credit, Settlement};
use crate::stomp::destination::{self, Place, TEMP_QUEUE};
use crate::stomp::dialogue::consumer::Closed;
use crate::stomp::dialogue::sources::Request;
use crate::stomp::dialogue::subscription::{Extras, Feed, Reply, Subscription};
use crate::stomp::dialogue::{Dialogue, Receipt};
use crate::stomp::fault::Fault;
use crate::stomp::headers;
use crate::stomp::message::{self, Told};
use crate::stomp::settings::Settings;
use crate::stomp::terms;
use crate::stomp::voice::Voice;

/// What says in an UNSUBSCRIBE that a durable subscription is to end, and not only this consumer of it.
const ENDS_DURABLE: [&str; 5] = [
    "durable",
    "persistent",
    "durable-subscription-name",
    "durable-subscriber-name",
    "activemq.subscriptionName",
];

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
        let no_local = headers::flag(headers, "no-local")? || headers::flag(headers, "activemq.noLocal")?;
        let replay = self.replay(headers)?;
        let tag = Some(replay).filter(|tag| *tag > 0);
        let (ticket, progress, extras) = (self.ticket(frame), Progress::Done, Extras::default());
        let mut request = Request { headers, destination, mode, tag, extras, ticket, progress };
        let feed = self.feed(source, &mut request, settings)?;
        let (mut extras, progress) = (request.extras, request.progress);
        extras.destination = (version == Version::V10).then(|| destination.into());
        extras.replay = replay;
        let extras = extras.boxed();
        if self.subscriptions.len() < 4 {
            // Most sessions have one or two, and room for four is 190 bytes.
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.push(Subscription { id, no_local, feed, extras });
        self.receipt_after(progress, ticket, frame, Vec::new())
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
            .position(|known| known.id.is_none() && known.destination() == Some(destination))
    }

    /// UNSUBSCRIBE. What it holds unsettled may still be acknowledged.
    pub(in crate::stomp) fn unsubscribe(
        &mut self,
        frame: &Frame,
        version: Version,
    ) -> Result<Receipt, Fault> {
        let headers = &frame.headers;
        let asks = |name: &&str| headers.get(name).is_some_and(|value| !matches!(value, "" | "false"));
        let ends_durable = ENDS_DURABLE.iter().any(asks);
        let place = match (headers.get("id"), headers.get("destination")) {
            (Some(id), _) => self.subscriptions.iter().position(|known| known.id.as_deref() == Some(id)),
            // One without a name first; a name need not be said if the destination tells enough.
            (None, Some(destination)) if version == Version::V10 => {
                self.nameless(destination).or_else(|| {
                    let is = |known: &Subscription| known.destination() == Some(destination);
                    self.subscriptions.iter().position(is)
                })
            }
            (None, _) if ends_durable => None,
            (None, _) => return Err(Violation::missing_header("id").into()),
        };
        let Some(place) = place else {
            if !ends_durable {
                return Err(Fault::new(Reason::NotFound, "there is no such subscription"));
            }
            // Nobody consumes from it in this session.
            return self.end_durable(&terms::durable_name(headers)?.unwrap_or_default(), frame);
        };
        let mut durable = None;
        if ends_durable {
            let extras = self.subscriptions[place].extras.as_ref();
            let name = match extras.and_then(|extras| extras.durable.clone()) {
                Some(name) => name.into_string(),
                None => terms::durable_name(headers)?.unwrap_or_default(),
            };
            // Whoever is to be asked is asked while everything is there still: the frame is taken again then.
            self.member.permit_end_of_durable(&name)?;
            durable = Some(name);
        }
        let subscription = self.subscriptions.swap_remove(place);
        self.end_feed(subscription)?;
        match durable {
            Some(name) => self.end_durable(&name, frame),
            None => Ok(Receipt::Due),
        }
    }

    fn end_durable(&mut self, name: &str, frame: &Frame) -> Result<Receipt, Fault> {
        let ticket = self.ticket(frame);
        let progress = self.member.end_durable(name, ticket)?;
        self.receipt_after(progress, ticket, frame, Vec::new())
    }

    fn end_feed(&mut self, subscription: Subscription) -> Result<(), Fault> {
        let Subscription { id, feed, .. } = subscription;
        match feed {
            Feed::Topics(house) => {
                let shares = |other: &Subscription| matches!(&other.feed, Feed::Topics(id) if *id == house);
                if !self.subscriptions.iter().any(shares) {
                    self.member.unsubscribe(house)?;
                }
            }
            Feed::Queue(consumer) => {
                // A queue for answers is gone with its consumer.
                if let Some(rare) = self.rare_if_any() {
                    rare.replies.retain(|reply| reply.consumer != consumer.id);
                }
                self.member.close_consumer(consumer.id)?;
                if !consumer.is_settled() {
                    self.rare().closed.push(Closed { id, consumer: *consumer });
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
        Ok(())
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
            if !subscription.wants(publication) {
                continue;
            }
            match message::event(voice, publication, subscription.id.as_deref()) {
                Ok(frame) => voice.send(frame),
                Err(why) => message::note_unconvertible(why),
            }
        }
    }

    /// Several messages on a topic.
    pub(in crate::stomp) fn tell_events(
        &mut self,
        bundle: &Bundle,
        house: SubscriptionId,
        voice: &mut Voice,
    ) {
        let own = bundle.publisher() == self.member.id();
        let mut takers = self.subscriptions.iter().filter(|subscription| {
            matches!(&subscription.feed, Feed::Topics(id) if *id == house) && !(own && subscription.no_local)
        });
        let Some(taker) = takers.next() else { return };
        // Where several take them, each gets a message before anybody gets the next.
        if takers.next().is_none()
            && !taker.is_selective()
            && let Some(messages) = message::events(voice, bundle, taker.id.as_deref())
        {
            return voice.send_all(messages);
        }
        bundle.singles().for_each(|publication| self.tell_event(&publication, house, voice));
    }

    /// What a topic had kept, for the one subscription that wanted it.
    pub(in crate::stomp) fn tell_retained(&self, publication: &Publication, tag: u64, voice: &mut Voice) {
        let Some(subscription) = self.subscriptions.iter().find(|known| known.is_replayed_as(tag)) else {
            return;
        };
        if !subscription.wants(publication) {
            return;
        }
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
            let mode = consumer.mode;
            let extras = subscription.extras.as_ref();
            let told = Told {
                place: consumer.place,
                subscription: subscription.id.as_deref(),
                mode,
                include_sequence: extras.and_then(|extras| extras.include_sequence.as_deref()),
            };
            let settlement = match message::delivery(voice, delivery, told) {
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
                consumer.hold(delivery);
            }
            return;
        }
        self.hand_over_reply(delivery, voice);
    }

    /// A consumer that only looks has seen everything, and wanted to know.
    pub(in crate::stomp) fn tell_end(&self, consumer: ConsumerId, voice: &mut Voice) {
        let is = |known: &&Subscription| matches!(&known.feed, Feed::Queue(own) if own.id == consumer);
        let Some(subscription) = self.subscriptions.iter().find(is) else { return };
        let destination = subscription.extras.as_ref().and_then(|extras| extras.browsed.as_deref());
        let mut end = Frame::new(Command::Message);
        if let Some(id) = &subscription.id {
            end = end.with("subscription", id);
        }
        let id = format!("end-{}", consumer.0);
        end = end.with("message-id", &id).with("destination", destination.unwrap_or_default());
        if voice.version == Version::V12 && !subscription.is_auto() {
            // Nobody waits for it to be acknowledged, but each MESSAGE has one there.
            end = end.with("ack", &id);
        }
        voice.say(&end.with("browser", "end"));
    }

    /// The queue behind a temporary one of this session, if a subscription of its own reads it.
    pub(in crate::stomp) fn subscribed_temp_queue(&self, temp: &str) -> Option<Name> {
        let reply = self.rare.as_ref()?.replies.iter().find(|reply| *reply.temp == *temp)?;
        let reads =
            |known: &Subscription| matches!(&known.feed, Feed::Queue(own) if own.id == reply.consumer);
        self.subscriptions.iter().any(reads).then(|| reply.queue.clone())
    }

    /// The consumer of a temporary queue of this session, which is made if need be.
    pub(in crate::stomp) fn temp_consumer(
        &mut self,
        temp: &str,
        credit: Credit,
    ) -> Result<ConsumerId, Fault> {
        let known = self.rare().replies.iter().find(|reply| *reply.temp == *temp).map(|reply| reply.consumer);
        if let Some(consumer) = known {
            let is_taken =
                |other: &Subscription| matches!(&other.feed, Feed::Queue(own) if own.id == consumer);
            if self.subscriptions.iter().any(is_taken) {
                return Err(Fault::new(Reason::InvalidHeader, format!("'{temp}' is subscribed already")));
            }
            return Ok(consumer);
        }
        let (queue, consumer) = self.member.reply_queue(credit)?;
        self.rare().replies.push(Reply { temp: temp.into(), queue, consumer });
        Ok(consumer)
    }

    /// A message from a queue that was not subscribed to: for answers, or not any more.
    fn hand_over_reply(&mut self, delivery: &Delivery, voice: &mut Voice) {
        let replies = self.rare_if_any().map(|rare| &rare.replies[..]).unwrap_or_default();
        let Some(reply) = replies.iter().find(|reply| reply.consumer == delivery.consumer) else {
            self.settle_delivery(delivery, Settlement::Requeue);
            return self.member.release_if_settled(delivery.consumer);
        };
        let told = Told {
            place: Place::Reply,
            subscription: Some(&reply.temp),
            mode: AckMode::Auto,
            include_sequence: None,
        };
        match message::delivery(voice, delivery, told) {
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

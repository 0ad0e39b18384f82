//! The dialogue with a peer that was let in: what each of its frames does, and what the house has for it.

mod acknowledgement;
mod calls;
mod consumer;
pub(super) mod receipts;
mod renewal;
mod sources;
mod subscription;
mod subscriptions;
mod transactions;

use std::cell::Cell;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use tandem_protocols::stomp::error::{Reason, Violation};
use tandem_protocols::stomp::frame::{Command, Frame};

use crate::core::access::Refusal;
use crate::core::lease::Lease;
use crate::core::name::Name;
use crate::core::parcel::Parcel;
use crate::core::queues::durable::Progress;
use crate::core::realm::{Member, Operation, Outgoing, SendTerms};
use crate::core::topics::{PublishTerms, Retain};
use crate::stomp::destination::{self, Place, TEMP_QUEUE, Target};
use crate::stomp::dialogue::calls::Calls;
use crate::stomp::dialogue::consumer::Closed;
use crate::stomp::dialogue::receipts::Receipts;
use crate::stomp::dialogue::subscription::{Reply, Subscription};
use crate::stomp::dialogue::transactions::Transaction;
use crate::stomp::fault::Fault;
use crate::stomp::headers;
use crate::stomp::settings::Settings;
use crate::stomp::terms;
use crate::stomp::usual::Usual;
use crate::stomp::voice::Voice;

/// Of what nobody waits for.
const NO_TICKET: u64 = 0;

/// Whether a frame that was processed is still owed the receipt that it may have asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// It is.
    Due,
    /// It got it, or gets it when its transaction is committed, or when the store has what it asked for.
    Settled,
}

/// A peer's place in the realm, and what it has under way.
pub(super) struct Dialogue {
    pub(super) member: Member,
    pub(super) subscriptions: Vec<Subscription>,
    /// It published since the realm was last found to have room.
    pub(super) published: Cell<bool>,
    /// It sent or settled something that is kept in a store.
    pub(super) stored: Cell<bool>,
    /// Of its requests that the store may have to answer.
    pub(super) last_ticket: u64,
    rare: Option<Box<Rare>>,
}

/// What most sessions never have.
#[derive(Default)]
pub(super) struct Rare {
    pub(super) transactions: Vec<Transaction>,
    pub(super) replies: Vec<Reply>,
    pub(super) closed: Vec<Closed>,
    pub(super) calls: Calls,
    pub(super) receipts: Receipts,
    /// Of one that came in by a token.
    lease: Option<Box<Lease>>,
    /// Counts the subscriptions that wanted what their topics had kept.
    pub(super) replays: u64,
}

impl Dialogue {
    /// A peer that was just let in.
    pub(super) fn new(member: Member) -> Dialogue {
        let (published, stored) = (Cell::new(false), Cell::new(false));
        Dialogue { member, subscriptions: Vec::new(), published, stored, last_ticket: 0, rare: None }
    }

    /// Whether the peer should not be read, because of what it and others published.
    pub(super) fn is_congested(&self, waker: &Waker) -> bool {
        let congested = self.published.get() && self.member.congested(waker);
        self.published.set(congested);
        congested
    }

    /// Until when the peer should not be read: it publishes faster than those read that it publishes to.
    pub(super) fn paced_until(&self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        self.member.paced_until(waker, now, time_max)
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Without making it.
    pub(super) fn rare_if_any(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    /// Does what a frame asks, with its body, which is gone then.
    pub(super) fn take(
        &mut self,
        frame: &mut Frame,
        voice: &mut Voice,
        settings: &Settings,
        now: Instant,
    ) -> Result<Receipt, Fault> {
        if frame.command != Command::Send {
            self.member.publish_gathered();
        }
        match frame.command {
            Command::Send => self.send(frame, voice, settings, now),
            Command::Subscribe => self.subscribe(frame, voice.version, settings),
            Command::Unsubscribe => self.unsubscribe(frame, voice.version),
            Command::Ack | Command::Nack => self.acknowledge(frame, voice.version, settings),
            Command::Begin => self.begin(frame, settings),
            Command::Commit => self.commit(frame, voice),
            Command::Abort => self.abort(frame),
            Command::Connect
            | Command::Stomp
            | Command::Disconnect
            | Command::Connected
            | Command::Message
            | Command::Receipt
            | Command::Error => {
                let detail = format!("{} cannot be said now", frame.command);
                Err(Fault::new(Reason::BadCommand, detail))
            }
        }
    }

    /// Tells the peer what the house has for it.
    pub(super) fn deliver(&mut self, parcel: Parcel, voice: &mut Voice) -> Result<(), Fault> {
        match parcel {
            Parcel::Event { publication, subscription } => {
                self.tell_event(&publication, subscription, voice);
            }
            Parcel::Events { bundle, subscription } => self.tell_events(&bundle, subscription, voice),
            Parcel::Retained { publication, tag, .. } => self.tell_retained(&publication, tag, voice),
            Parcel::Delivery(delivery) => self.hand_over(&delivery, voice),
            Parcel::Exhausted { consumer } => self.tell_end(consumer, voice),
            Parcel::Invocation(invocation) => self.invoke(&invocation, voice),
            Parcel::Outcome(outcome) => self.conclude(*outcome, voice),
            // There is no word for it in STOMP. An answer that comes all the same is ignored.
            Parcel::Interrupt { .. } => {}
            // Nor for this. It may unsubscribe from what it lost.
            Parcel::RegistrationRevoked { registration, .. } => {
                self.member.forget_registration(registration);
            }
            // The language has no other word for it.
            Parcel::SubscriptionRevoked { .. } => return Err(Refusal::Revoked.into()),
            Parcel::Farewell(farewell) => return Err(farewell.into()),
            // Nor for the end of one subscription to a queue.
            Parcel::RulesChanged => {
                if let Some((_, refusal)) = self.member.judge_consumers().pop() {
                    return Err(refusal.into());
                }
            }
            // Strangers ask for the first two, the session itself deals with the next, and only the house watches.
            Parcel::Authenticated(_)
            | Parcel::LookedUp(_)
            | Parcel::Authorized(_)
            | Parcel::Stored { .. }
            | Parcel::Notice(_) => {}
        }
        Ok(())
    }

    fn send(
        &mut self,
        frame: &mut Frame,
        voice: &mut Voice,
        settings: &Settings,
        now: Instant,
    ) -> Result<Receipt, Fault> {
        headers::check_send(&frame.headers)?;
        headers::check_user(&frame.headers, &self.member.principal().id)?;
        let destination = frame.headers.require("destination")?;
        let (target, again) = target(destination, voice.last_target())?;
        let to_topic = matches!(target, Target::Topic(_));
        if !to_topic {
            self.member.publish_gathered();
        }
        terms::check_kind(&frame.headers, to_topic)?;
        let operation = match target {
            Target::Topic(name) => {
                terms::refuse_queue_arguments(&frame.headers)?;
                terms::refuse_delays(&frame.headers)?;
                let handling = terms::handling(&frame.headers)?;
                let outgoing = self.outgoing(name, frame, settings)?;
                if again && handling.is_none() {
                    voice.note_usual(|| Usual::of(frame, &outgoing));
                }
                Operation::Publish(outgoing, handling)
            }
            Target::Queue(name) | Target::Reply(name) => self.enqueue(name, false, frame, settings)?,
            Target::ExistingQueue(name) => self.enqueue(name, true, frame, settings)?,
            Target::Temp => {
                let name = self.reply_queue(destination, settings)?;
                self.enqueue(name, false, frame, settings)?
            }
            Target::Call(procedure) => return self.call(procedure, frame, voice, settings, now),
            Target::Invocation(number) => return self.answer(number, frame),
            Target::Renewal => return self.renew(frame, now),
        };
        let retain = headers::retain(&frame.headers)?;
        if retain != Retain::No {
            return self.publish_and_retain(operation, retain, frame);
        }
        match frame.headers.get("transaction") {
            Some(transaction) => self.put_off(transaction, vec![operation], frame, settings),
            None => self.perform(operation, frame),
        }
    }

    fn enqueue(
        &mut self,
        name: Name,
        existing: bool,
        frame: &mut Frame,
        settings: &Settings,
    ) -> Result<Operation, Fault> {
        let handling = terms::handling(&frame.headers)?;
        let queue = terms::queue_terms(&frame.headers, existing)?;
        Ok(Operation::Send(self.outgoing(name, frame, settings)?, SendTerms { handling, queue }))
    }

    fn perform(&mut self, operation: Operation, frame: &Frame) -> Result<Receipt, Fault> {
        let ticket = self.ticket(frame);
        let progress = match operation {
            Operation::Publish(outgoing, handling) => {
                let terms = PublishTerms { handling, ..PublishTerms::default() };
                let (_, progress) = self.member.publish_soon(outgoing, terms, ticket)?;
                self.published.set(true);
                progress
            }
            Operation::Send(outgoing, terms) => {
                let (_, progress) = self.member.send_for(outgoing, terms, ticket)?;
                // What waits for the store slows those who send, as what is on its way does.
                self.published.set(self.published.get() || progress == Progress::Storing);
                progress
            }
            Operation::Settle(consumer, sequence, settlement) => {
                let ticket = Some(ticket).filter(|ticket| *ticket > 0);
                self.member.settle_for(consumer, sequence, settlement, ticket)?
            }
        };
        self.receipt_after(progress, ticket, frame, Vec::new())
    }

    /// Publishes what the peer sends again and again, with another body. If that is refused nothing was done.
    pub(super) fn send_usual(&mut self, usual: &mut Usual, body: Bytes) -> Result<(), Refusal> {
        let (_, progress) =
            self.member.publish_soon(usual.outgoing(body), PublishTerms::default(), NO_TICKET)?;
        self.published.set(true);
        // Who wants no receipt is told nothing, whatever waits.
        self.stored.set(self.stored.get() || progress != Progress::Done);
        Ok(())
    }

    /// Publishes to a topic that keeps the message, or none any more.
    fn publish_and_retain(
        &mut self,
        operation: Operation,
        retain: Retain,
        frame: &Frame,
    ) -> Result<Receipt, Fault> {
        let in_transaction = frame.headers.get("transaction").is_some();
        match operation {
            Operation::Publish(outgoing, handling) if !in_transaction => {
                let terms = PublishTerms { retain, handling, ..PublishTerms::default() };
                let ticket = self.ticket(frame);
                let (_, progress) = self.member.publish_for(outgoing, terms, ticket)?;
                self.published.set(true);
                self.receipt_after(progress, ticket, frame, Vec::new())
            }
            _ => {
                let detail = "only a topic retains a message, and not in a transaction";
                Err(Fault::new(Reason::InvalidHeader, detail))
            }
        }
    }

    fn outgoing(&mut self, name: Name, frame: &mut Frame, settings: &Settings) -> Result<Outgoing, Fault> {
        let payload = headers::payload(&frame.headers, std::mem::take(&mut frame.body))?;
        let attributes = match frame.headers.get("reply-to") {
            Some(reply_to) if reply_to.starts_with(TEMP_QUEUE) => {
                let queue = self.reply_queue(reply_to, settings)?;
                headers::attributes_answered_at(&frame.headers, &destination::write(Place::Reply, &queue))
            }
            _ => headers::attributes(&frame.headers, &[]),
        };
        Ok(Outgoing { name, payload, attributes })
    }

    /// The queue behind a `/temp-queue/` of this session, which is made when it is first named.
    fn reply_queue(&mut self, temp: &str, settings: &Settings) -> Result<Name, Fault> {
        check_temp_queue(temp)?;
        let known = self.rare().replies.iter().find(|reply| *reply.temp == *temp);
        if let Some(reply) = known {
            return Ok(reply.queue.clone());
        }
        let (queue, consumer) = self.member.reply_queue(settings.credit)?;
        self.rare().replies.push(Reply { temp: temp.into(), queue: queue.clone(), consumer });
        Ok(queue)
    }
}

/// What a destination means, and whether it is the last one again. Most who send, send to the same one again and again.
fn target(destination: &str, last: &mut Option<Target>) -> Result<(Target, bool), Fault> {
    match last {
        Some(last) if last.is_spelled(destination) => Ok((last.clone(), true)),
        _ => {
            let target = destination::target(destination)?;
            *last = target.is_spelled(destination).then(|| target.clone());
            Ok((target, false))
        }
    }
}

/// Whether what begins like a temporary queue is one.
pub(super) fn check_temp_queue(text: &str) -> Result<(), Fault> {
    match text.strip_prefix(TEMP_QUEUE) {
        Some(word) if !word.is_empty() && !word.contains('/') => Ok(()),
        _ => Err(Violation::invalid_header("reply-to", text).into()),
    }
}

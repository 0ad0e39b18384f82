//! What the messages of a peer that was let in ask for, and what the house has for it: who deals with what.

mod history;
mod open_calls;
mod procedure;
mod publishing;
mod pubsub;
mod queue;
mod renewal;
mod rpc;
mod testament;

use std::cell::Cell;
use std::task::Waker;
use std::time::{Duration, Instant};

use tandem_protocols::wamp::error::Violation;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{Incoming, Message, MessageType};
use tandem_protocols::wamp::options::{Feature, MatchPolicy, Role, Roles};
use tandem_protocols::wamp::uri::{Rule, check_pattern};

use crate::core::access::authorizer::Question;
use crate::core::calls::failure;
use crate::core::lease::Lease;
use crate::core::name::{Name, Pattern};
use crate::core::parcel::Parcel;
use crate::core::realm::Member;
use crate::wamp::dialogue::open_calls::OpenCalls;
use crate::wamp::dialogue::publishing::Publishing;
use crate::wamp::dialogue::queue::QueueCalls;
use crate::wamp::fault::Fault;
use crate::wamp::patterns::pattern;
use crate::wamp::settings::Strictness;
use crate::wamp::voice::Voice;

/// The conversation with a peer that is in a realm.
#[derive(Debug)]
pub(super) struct Dialogue {
    pub(super) member: Member,
    /// Calls of `tandem.queue.*` that wait, and what they brought until it is settled.
    pub(super) queue_calls: Option<Box<QueueCalls>>,
    /// Publications that wait for the store.
    publishing: Option<Box<Publishing>>,
    /// Calls that the house owes an answer. Most sessions never call.
    calls: Option<Box<OpenCalls>>,
    /// Of one that came in by a token.
    lease: Option<Box<Lease>>,
    abilities: Abilities,
    strictness: Strictness,
    /// The number of the last request, where they must be in order.
    last_request: Option<Id>,
    /// Something was published since the realm was last seen to have room.
    pub(super) has_published: Cell<bool>,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Taken {
    /// What it asks for was done, or refused.
    Whole,
    /// Nothing was done: this must be known first.
    Undecided(Box<Question>),
}

/// What the peer said in its HELLO that it can do.
#[derive(Clone, Copy, Debug)]
struct Abilities {
    /// As a callee, be told that nobody waits for its answer.
    takes_interrupts: bool,
    /// As a callee, take arguments as they come.
    takes_parts: bool,
    /// As a callee, be told that it lost a registration.
    hears_of_revocations: bool,
    /// As a caller, send arguments as they come.
    calls_in_parts: bool,
}

impl Abilities {
    fn new(roles: Roles) -> Abilities {
        Abilities {
            takes_interrupts: roles.announces(Role::Callee, Feature::CallCanceling),
            takes_parts: roles.announces(Role::Callee, Feature::ProgressiveCallInvocations),
            hears_of_revocations: roles.announces(Role::Callee, Feature::RegistrationRevocation),
            calls_in_parts: roles.announces(Role::Caller, Feature::ProgressiveCallInvocations),
        }
    }
}

impl Dialogue {
    pub(super) fn new(member: Member, roles: Roles, strictness: Strictness) -> Dialogue {
        Dialogue {
            member,
            queue_calls: None,
            publishing: None,
            calls: None,
            lease: None,
            abilities: Abilities::new(roles),
            strictness,
            last_request: None,
            has_published: Cell::new(false),
        }
    }

    /// Whether the peer should not be read: it publishes, and the realm has too much on its way.
    pub(super) fn is_congested(&self, waker: &Waker) -> bool {
        let congested = self.has_published.get() && self.member.congested(waker);
        self.has_published.set(congested);
        congested
    }

    /// Until when the peer should not be read: it publishes faster than those read that it publishes to.
    pub(super) fn paced_until(&self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        self.member.paced_until(waker, now, time_max)
    }

    /// The peer sent this, in a message of `received_bytes`.
    pub(super) fn take(
        &mut self,
        message: Incoming<'_>,
        received_bytes: usize,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<Taken, Violation> {
        let (request_type, request) = (message.message_type(), message.request());
        match (self.act(message, received_bytes, voice, now), request) {
            (Ok(()), _) => Ok(Taken::Whole),
            (Err(Fault::Undecided(question)), _) => Ok(Taken::Undecided(question)),
            (Err(Fault::Violation(violation)), _) => Err(violation),
            (Err(Fault::Refused(uri, sentence)), Some(request)) => {
                voice.say_error(request_type, request, &failure(uri, &sentence));
                Ok(Taken::Whole)
            }
            (Err(Fault::Refused(uri, sentence)), None) => Err(Violation::with_uri(uri, sentence)),
        }
    }

    /// Whether a message is to be followed where requests are numbered in order. More arguments of a call bear the
    /// call's number; once it ended they mean nothing.
    fn check_order(&mut self, message: &Incoming<'_>) -> Result<bool, Violation> {
        let request = match message {
            Message::Call(call) if self.last_request.is_some_and(|last| call.request <= last) => {
                return Ok(self.member.realm().calls().is_calling(self.member.id(), call.request.get()));
            }
            Message::Publish(_)
            | Message::Subscribe(_)
            | Message::Unsubscribe(_)
            | Message::Register(_)
            | Message::Unregister(_)
            | Message::Call(_) => message.request(),
            // What the router asked, and what refers to a request.
            _ => return Ok(true),
        };
        let expected = self.last_request.map_or(Id::FIRST, Id::next);
        if request != Some(expected) {
            return Err(Violation::new(format!("requests are in order: {} is due", expected.get())));
        }
        self.last_request = request;
        Ok(true)
    }

    /// What a topic or procedure of a message names.
    pub(super) fn name(&self, text: &str) -> Result<Name, Fault> {
        self.check_spelling(text)?;
        Ok(self.member.name(text)?)
    }

    /// What a SUBSCRIBE or REGISTER is for.
    pub(super) fn pattern(&self, text: &str, policy: MatchPolicy) -> Result<Pattern, Fault> {
        self.check_spelling(text)?;
        Ok(pattern(text, policy)?)
    }

    fn check_spelling(&self, text: &str) -> Result<(), Fault> {
        match self.strictness.uris {
            true => Ok(check_pattern(text, Rule::Strict)?),
            false => Ok(()),
        }
    }

    fn act(
        &mut self,
        message: Incoming<'_>,
        received_bytes: usize,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<(), Fault> {
        if self.strictness.request_ids && !self.check_order(&message)? {
            return Ok(());
        }
        if !matches!(message, Message::Publish(_)) {
            self.member.publish_gathered();
        }
        match message {
            Message::Publish(publish) => self.publish(publish, received_bytes, voice),
            Message::Subscribe(subscribe) => self.subscribe(&subscribe, voice),
            Message::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, voice),
            Message::Register(register) => self.register(&register, voice),
            Message::Unregister(unregister) => self.unregister(&unregister, voice),
            Message::Call(call) => self.call(call, received_bytes, voice, now),
            Message::Cancel(cancel) => self.cancel(&cancel, voice),
            Message::Yield(result) => self.give_result(result, received_bytes),
            Message::Error(error) => self.give_error(error, received_bytes),
            // An extension: nobody asks for acknowledgements of events, so there is nothing to do.
            Message::EventReceived(_) => Ok(()),
            Message::Hello(_) | Message::Authenticate(_) => Err(misplaced(message.message_type())),
            Message::Welcome(_)
            | Message::Challenge(_)
            | Message::Published(_)
            | Message::Subscribed(_)
            | Message::Unsubscribed(_)
            | Message::Event(_)
            | Message::CallResult(_)
            | Message::Registered(_)
            | Message::Unregistered(_)
            | Message::Invocation(_)
            | Message::Interrupt(_) => {
                let sentence = format!("{} is for a router to say", message.name());
                Err(Violation::new(sentence).into())
            }
            Message::Abort(_) | Message::Goodbye(_) => Err(misplaced(message.message_type())),
        }
    }

    /// The house has this for the peer.
    pub(super) fn deliver(&mut self, parcel: Parcel, voice: &mut Voice, now: Instant) {
        match parcel {
            Parcel::Event { publication, subscription } => {
                self.bring_event(&publication, subscription, voice)
            }
            Parcel::Events { bundle, subscription } => self.bring_events(&bundle, subscription, voice),
            Parcel::Retained { publication, subscription, .. } => {
                self.bring_retained(&publication, subscription, voice);
            }
            Parcel::SubscriptionRevoked { subscription, reason } => {
                self.bring_subscription_revocation(subscription, reason.as_deref(), voice)
            }
            Parcel::Delivery(delivery) => self.bring_delivery(&delivery, voice),
            // Nobody looks into a queue without taking, here.
            Parcel::Exhausted { .. } => {}
            Parcel::Invocation(invocation) => self.bring_invocation(&invocation, voice),
            Parcel::Interrupt { invocation, is_awaited, .. } => {
                self.bring_interrupt(invocation, is_awaited, voice);
            }
            Parcel::RegistrationRevoked { registration, reason } => {
                self.bring_registration_revocation(registration, reason.as_deref(), voice)
            }
            Parcel::Outcome(outcome) => self.bring_outcome(&outcome, voice, now),
            Parcel::Stored { ticket, outcome } => self.bring_stored(ticket, outcome, voice),
            Parcel::RulesChanged => self.stop_consumers(voice),
            // The session deals with these itself, and nobody tells it of changes.
            Parcel::Authenticated(_)
            | Parcel::LookedUp(_)
            | Parcel::Authorized(_)
            | Parcel::Farewell(_)
            | Parcel::Notice(_) => {}
        }
    }
}

fn misplaced(message_type: MessageType) -> Fault {
    Violation::new(format!("{} in an established session", message_type.name())).into()
}

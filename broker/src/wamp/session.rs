//! A session from HELLO to GOODBYE: reading messages, keeping time, and ending.
//!
//! Letting the peer in is the business of [`opening`](super::opening); what its messages mean then, that of
//! the [`Dialogue`]. The transport is closed after the exchange of GOODBYEs and after an ABORT, whoever
//! said it: a peer that wants another session opens another transport.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use tandem_protocols::wamp::batched::Batch;
use tandem_protocols::wamp::codec::decode_incoming;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{
    AUTHORIZATION_FAILED, CLOSE_TIMEOUT, GOODBYE_AND_OUT, PROTOCOL_VIOLATION, SYSTEM_SHUTDOWN, Violation,
};
use tandem_protocols::wamp::message::{Abort, Goodbye, Incoming, Message, nothing};
use tandem_protocols::wamp::options;

use crate::core::access::authorizer::{Decision, Question};
use crate::core::access::{Peer, Presented, Refusal};
use crate::core::mailbox::Mailbox;
use crate::core::message::Kind;
use crate::core::parcel::{Farewell, Parcel};
use crate::core::protocol::{Close, Output, Reason, Session};
use crate::wamp::dialogue::{Dialogue, Taken};
use crate::wamp::fault::{CLOSE_TOKEN_EXPIRED, SLOW_CONSUMER};
use crate::wamp::opening::{Opening, Step};
use crate::wamp::settings::WampSettings;
use crate::wamp::voice::Voice;

/// What may come of a peer while one of its messages is held, in bytes. The pump reads nothing more meanwhile: it is
/// the rest of what it had read.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// How long a peer may take to answer our GOODBYE.
pub(super) const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);

/// A conversation with one peer.
pub(super) struct WampSession {
    settings: Arc<WampSettings>,
    voice: Voice,
    stage: Stage,
    /// Few sessions have any.
    aside: Option<Box<Aside>>,
}

/// What was received and not taken yet.
#[derive(Default)]
struct Aside {
    /// The other messages of a batch.
    rest: Option<Batch>,
    held: Option<Held>,
}

/// A message that is taken again once it is known whether it is allowed, and what came after it.
struct Held {
    question: Question,
    message: Bytes,
    later: VecDeque<(Kind, Bytes)>,
    later_bytes: usize,
}

const _: () = assert!(
    size_of::<WampSession>() <= 48 && size_of::<Dialogue>() <= 128,
    "every idle session has both, beside its subscriptions and registrations: allocations of exactly that size"
);

/// Where a session is in its life.
enum Stage {
    /// The peer has not been let in.
    Opening(Box<Opening>),
    /// It has.
    Open(Box<Dialogue>),
    /// We said GOODBYE, left the realm, and wait for the peer's answer until then.
    Leaving(Instant),
    /// Nothing is read any more, and nothing more is said.
    Over,
}

impl WampSession {
    /// A session with a peer that has said nothing yet.
    pub(super) fn new(
        settings: Arc<WampSettings>,
        voice: Voice,
        peer: Peer,
        mailbox: Mailbox,
    ) -> WampSession {
        let stage = Stage::Opening(Box::new(Opening::new(peer, mailbox)));
        WampSession { settings, voice, stage, aside: None }
    }

    /// Takes one message.
    fn read(&mut self, bytes: &Bytes, now: Instant) {
        let may_ask = match &mut self.stage {
            Stage::Open(dialogue) => dialogue.member.may_ask(now),
            Stage::Opening(_) | Stage::Leaving(_) | Stage::Over => false,
        };
        let decoded = decode_incoming(self.voice.format, bytes);
        match decoded.and_then(|message| self.take(message, bytes.len(), now)) {
            Ok(Taken::Undecided(question)) if may_ask => self.hold(*question, bytes.clone()),
            // The house raises no questions that it did not announce.
            Ok(Taken::Undecided(_)) => {
                let sentence = "whether a message is allowed could not be found out";
                self.abort(AUTHORIZATION_FAILED, sentence, Reason::Refused);
            }
            Ok(Taken::Whole) if may_ask => {
                if let Stage::Open(dialogue) = &mut self.stage {
                    dialogue.member.forget_answers();
                }
            }
            Ok(Taken::Whole) => {}
            Err(violation) => self.refuse(violation),
        }
    }

    /// Ends because of what is wrong with a message: whatever the URI of a rule in detail, one that breaks it is a protocol
    /// violation. While we leave, nothing but GOODBYE matters, not even what is wrong.
    #[cold]
    fn refuse(&mut self, violation: Violation) {
        if !matches!(self.stage, Stage::Leaving(_)) {
            self.abort(PROTOCOL_VIOLATION, violation.into_message(), Reason::Violation);
        }
    }

    /// Keeps a message until it is known whether what it asks for is allowed.
    fn hold(&mut self, question: Question, message: Bytes) {
        let Stage::Open(dialogue) = &self.stage else { return };
        self.voice.push(Output::Authorize(dialogue.member.inquire(&question)));
        let held = Held { question, message, later: VecDeque::new(), later_bytes: 0 };
        self.aside.get_or_insert_default().held = Some(held);
    }

    /// Takes the message that was held, and what came after it.
    fn take_again(&mut self, answer: Result<Decision, Refusal>, now: Instant) {
        let held = self.aside.as_mut().and_then(|aside| aside.held.take());
        let (Stage::Open(dialogue), Some(held)) = (&mut self.stage, held) else { return };
        let Held { question, message, later, .. } = held;
        if !dialogue.member.note_answer(question, answer, now) {
            let sentence = "whether a message is allowed could not be found out";
            return self.abort(AUTHORIZATION_FAILED, sentence, Reason::Refused);
        }
        self.read(&message, now);
        if !later.is_empty() {
            // What came in one message with it goes before what came later.
            while self.proceed(now) {}
        }
        for (kind, bytes) in later {
            self.receive(kind, bytes, now);
        }
    }

    fn take(
        &mut self,
        message: Incoming<'_>,
        received_bytes: usize,
        now: Instant,
    ) -> Result<Taken, Violation> {
        match (&mut self.stage, message) {
            // Never answered.
            (_, Message::Abort(_)) => self.end(Close::new(Reason::Done, "the peer aborted")),
            (Stage::Over, _) => {}
            (Stage::Leaving(_), Message::Goodbye(_)) => self.end(Close::new(Reason::Shutdown, "")),
            (Stage::Leaving(_), _) => {}
            (Stage::Opening(opening), message) => {
                let step = opening.take(message, &self.settings, &mut self.voice, now)?;
                self.step(step);
            }
            (Stage::Open(_), Message::Goodbye(goodbye)) => {
                options::GoodbyeDetails::parse(&goodbye.details)?;
                self.voice.say(Goodbye { details: Dict::new(), reason: GOODBYE_AND_OUT.to_owned() });
                self.end(Close::new(Reason::Done, ""));
            }
            (Stage::Open(dialogue), message) => {
                return dialogue.take(message, received_bytes, &mut self.voice, now);
            }
        }
        Ok(Taken::Whole)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::Enter(dialogue) => self.stage = Stage::Open(dialogue),
            Step::Refuse(uri, sentence) => self.abort(uri, sentence, Reason::Refused),
        }
    }

    /// Says why there is no session, or no longer one, and ends.
    fn abort(&mut self, uri: &str, sentence: impl Into<String>, reason: Reason) {
        let sentence = sentence.into();
        self.say_abort(uri, &sentence);
        self.end(Close::new(reason, sentence));
    }

    fn say_abort(&mut self, uri: &str, sentence: &str) {
        let details = Dict::new().with("message", sentence);
        self.voice.say(Abort { details, reason: uri.to_owned(), payload: nothing() });
    }

    /// Leaves the realm, if the session was in one, and closes the wire.
    fn end(&mut self, close: Close) {
        self.stage = Stage::Over;
        self.aside = None;
        self.voice.push(Output::Close(close));
    }

    fn bid_farewell(&mut self, farewell: Farewell, now: Instant) {
        match (&self.stage, farewell) {
            (Stage::Leaving(_) | Stage::Over, _) => {}
            (Stage::Opening(_), Farewell::Shutdown) => {
                self.abort(SYSTEM_SHUTDOWN, "the router shuts down", Reason::Shutdown);
            }
            // Such a peer is in no realm where somebody could end its session.
            (Stage::Opening(_), Farewell::Killed(verdict)) => {
                let sentence = verdict.message.as_deref().unwrap_or("the session was killed");
                self.abort(&verdict.reason, sentence, Reason::Refused);
            }
            // It leaves the realm now: what it still asks for is not done.
            (Stage::Open(_), Farewell::Killed(verdict)) => {
                let mut details = Dict::new();
                if let Some(message) = &verdict.message {
                    details.insert("message", &**message);
                }
                self.voice.say(Goodbye { details, reason: verdict.reason.to_string() });
                self.stage = Stage::Leaving(now + GOODBYE_TIME_MAX);
            }
            (Stage::Open(_), Farewell::Shutdown) => {
                self.voice.say(Goodbye { details: Dict::new(), reason: SYSTEM_SHUTDOWN.to_owned() });
                self.stage = Stage::Leaving(now + GOODBYE_TIME_MAX);
            }
            // Who does not read will not answer either.
            (Stage::Opening(_) | Stage::Open(_), Farewell::SlowConsumer) => {
                let sentence = "the session leaves too much unread";
                let details = Dict::new().with("message", sentence);
                self.voice.say(Goodbye { details, reason: SLOW_CONSUMER.to_owned() });
                self.end(Close::new(Reason::SlowConsumer, sentence));
            }
        }
    }
}

impl Session for WampSession {
    fn introduce(&mut self, presented: Presented) {
        if let Stage::Opening(opening) = &mut self.stage {
            opening.introduce(presented);
        }
    }

    fn limit_messages(&mut self, bytes_max: usize) {
        self.voice.limit(bytes_max);
    }

    fn receive(&mut self, kind: Kind, bytes: Bytes, now: Instant) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        if let Some(held) = self.aside.as_mut().and_then(|aside| aside.held.as_mut()) {
            held.later_bytes += bytes.len() + size_of::<(Kind, Bytes)>();
            held.later.push_back((kind, bytes));
            if held.later_bytes > HELD_BYTES_MAX {
                let sentence = "too much was sent before it was known whether it is allowed";
                self.abort(PROTOCOL_VIOLATION, sentence, Reason::TooBig);
            }
            return;
        }
        if !self.voice.accepts(kind) {
            let sentence = "this serialization travels in the other kind of frames";
            return self.refuse(Violation::new(sentence));
        }
        match self.voice.batch(&bytes) {
            None => self.read(&bytes, now),
            Some(Ok(batch)) => {
                self.aside.get_or_insert_default().rest = Some(batch);
                self.proceed(now);
            }
            Some(Err(violation)) => self.refuse(violation),
        }
    }

    fn receive_in_place(&mut self, kind: Kind, octets: &[u8], now: Instant) -> bool {
        match &mut self.stage {
            Stage::Open(dialogue) if self.aside.is_none() && self.voice.takes_as_it_is(kind) => {
                !dialogue.member.may_ask(now) && dialogue.publish_in_place(octets, self.voice.format)
            }
            Stage::Opening(_) | Stage::Open(_) | Stage::Leaving(_) | Stage::Over => false,
        }
    }

    fn proceed(&mut self, now: Instant) -> bool {
        let Some(aside) = &mut self.aside else { return false };
        if aside.held.is_some() {
            return false;
        }
        let Some(message) = aside.rest.as_mut().and_then(|batch| batch.next()) else {
            self.aside = None;
            return false;
        };
        if !matches!(self.stage, Stage::Over) {
            match message {
                Ok(bytes) => self.read(&bytes, now),
                Err(violation) => self.refuse(violation),
            }
        }
        true
    }

    fn conclude(&mut self) {
        if let Stage::Open(dialogue) = &mut self.stage {
            dialogue.member.publish_gathered();
        }
    }

    fn deliver(&mut self, parcel: Parcel, now: Instant) {
        match (&mut self.stage, parcel) {
            (_, Parcel::Farewell(farewell)) => self.bid_farewell(farewell, now),
            (Stage::Opening(opening), Parcel::Authenticated(result)) => {
                let step = opening.authenticated(*result, &self.settings, &mut self.voice, now);
                self.step(step);
            }
            (Stage::Opening(opening), Parcel::LookedUp(result)) => {
                match opening.looked_up(*result, &self.settings, &mut self.voice, now) {
                    Ok(step) => self.step(step),
                    Err(violation) => {
                        self.abort(PROTOCOL_VIOLATION, violation.into_message(), Reason::Violation)
                    }
                }
            }
            (Stage::Open(_), Parcel::Authorized(answer)) => self.take_again(*answer, now),
            (Stage::Open(dialogue), parcel) => dialogue.deliver(parcel, &mut self.voice, now),
            // A session that is not in the realm gets nothing from it; one that left wants nothing.
            (Stage::Opening(_) | Stage::Leaving(_) | Stage::Over, _) => {}
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &mut self.stage {
            Stage::Opening(opening) => match opening.tick(&self.settings, &mut self.voice, now) {
                Ok(Some(step)) => self.step(step),
                Ok(None) => {
                    let sentence = "the challenge was not answered in time";
                    self.abort(CLOSE_TIMEOUT, sentence, Reason::Silent);
                }
                Err(violation) => self.abort(PROTOCOL_VIOLATION, violation.into_message(), Reason::Violation),
            },
            Stage::Leaving(_) => self.end(Close::new(Reason::Shutdown, "GOODBYE was not answered")),
            Stage::Open(dialogue) if dialogue.lease_until().is_some_and(|until| now >= until) => {
                let details = Dict::new().with("message", "the token of the session has expired");
                self.voice.say(Goodbye { details, reason: CLOSE_TOKEN_EXPIRED.to_owned() });
                self.stage = Stage::Leaving(now + GOODBYE_TIME_MAX);
            }
            Stage::Open(dialogue) => dialogue.tick(&mut self.voice, now),
            Stage::Over => {}
        }
    }

    fn pause(&mut self, _now: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Opening(opening) => opening.deadline(),
            Stage::Leaving(deadline) => Some(*deadline),
            Stage::Open(dialogue) => {
                [dialogue.deadline(), dialogue.lease_until()].into_iter().flatten().min()
            }
            Stage::Over => None,
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.voice.poll()
    }

    fn rest(&mut self) {
        self.voice.rest();
    }

    fn fail(&mut self, reason: &str, _now: Instant) {
        match self.stage {
            // The pump closes the wire, and knows why.
            Stage::Opening(_) | Stage::Open(_) => self.say_abort(PROTOCOL_VIOLATION, reason),
            Stage::Leaving(_) | Stage::Over => {}
        }
        self.stage = Stage::Over;
        self.aside = None;
    }

    fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Open(_) | Stage::Leaving(_))
    }

    fn is_congested(&self, waker: &Waker) -> bool {
        match &self.stage {
            Stage::Open(dialogue) => dialogue.is_congested(waker),
            Stage::Opening(_) | Stage::Leaving(_) | Stage::Over => false,
        }
    }

    fn paced_until(&self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        match &self.stage {
            Stage::Open(dialogue) => dialogue.paced_until(waker, now, time_max),
            Stage::Opening(_) | Stage::Leaving(_) | Stage::Over => None,
        }
    }
}

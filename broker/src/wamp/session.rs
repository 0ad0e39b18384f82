//! A session from HELLO to GOODBYE: reading messages, keeping time, and ending.
//!
//! Letting the peer in is the business of [`opening`](super::opening); what its messages mean then, that of
//! the [`Dialogue`]. The transport is closed after the exchange of GOODBYEs and after an ABORT, whoever
//! said it: a peer that wants another session opens another transport.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::codec::decode;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{
    CLOSE_TIMEOUT, GOODBYE_AND_OUT, PROTOCOL_VIOLATION, SYSTEM_SHUTDOWN, Violation,
};
use tandem_protocols::wamp::message::{Abort, Goodbye, Message, nothing};
use tandem_protocols::wamp::options;

use crate::core::access::Peer;
use crate::core::mailbox::Mailbox;
use crate::core::message::Kind;
use crate::core::parcel::{Farewell, Parcel};
use crate::core::protocol::{Close, Output, Reason, Session};
use crate::wamp::dialogue::Dialogue;
use crate::wamp::fault::SLOW_CONSUMER;
use crate::wamp::opening::{Opening, Step};
use crate::wamp::settings::WampSettings;
use crate::wamp::voice::Voice;

/// How long a peer may take to answer our GOODBYE.
pub(super) const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);

/// A conversation with one peer.
pub(super) struct WampSession {
    settings: Arc<WampSettings>,
    voice: Voice,
    stage: Stage,
}

const _: () = assert!(
    size_of::<WampSession>() <= 160 && size_of::<WampSession>() + size_of::<Dialogue>() <= 400,
    "this is what an idle session costs, beside its subscriptions and registrations"
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
        format: Format,
        peer: Peer,
        mailbox: Mailbox,
    ) -> WampSession {
        let stage = Stage::Opening(Box::new(Opening::new(peer, mailbox)));
        WampSession { settings, voice: Voice::new(format), stage }
    }

    fn take(&mut self, message: Message, received_bytes: usize, now: Instant) -> Result<(), Violation> {
        if let Message::Abort(_) = message {
            // Never answered.
            self.end(Close::new(Reason::Done, "the peer aborted"));
            return Ok(());
        }
        match (&mut self.stage, message) {
            (Stage::Over, _) => Ok(()),
            (Stage::Leaving(_), Message::Goodbye(_)) => {
                self.end(Close::new(Reason::Shutdown, ""));
                Ok(())
            }
            (Stage::Leaving(_), _) => Ok(()),
            (Stage::Opening(opening), message) => {
                let step = opening.take(message, &self.settings, &mut self.voice, now)?;
                self.step(step);
                Ok(())
            }
            (Stage::Open(_), Message::Goodbye(goodbye)) => {
                options::GoodbyeDetails::parse(&goodbye.details)?;
                self.voice.say(Goodbye { details: Dict::new(), reason: GOODBYE_AND_OUT.to_owned() });
                self.end(Close::new(Reason::Done, ""));
                Ok(())
            }
            (Stage::Open(dialogue), message) => dialogue.take(message, received_bytes, &mut self.voice, now),
        }
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
        self.voice.push(Output::Close(close));
    }

    fn bid_farewell(&mut self, farewell: Farewell, now: Instant) {
        match (&self.stage, farewell) {
            (Stage::Leaving(_) | Stage::Over, _) => {}
            (Stage::Opening(_), Farewell::Shutdown) => {
                self.abort(SYSTEM_SHUTDOWN, "the router shuts down", Reason::Shutdown);
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
    fn receive(&mut self, kind: Kind, bytes: Bytes, now: Instant) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        let decoded = if self.voice.accepts(kind) {
            decode(self.voice.format, &bytes)
        } else {
            Err(Violation::new("this serialization travels in the other kind of frames"))
        };
        // While we leave, nothing but GOODBYE matters, not even what is wrong.
        if decoded.is_err() && matches!(self.stage, Stage::Leaving(_)) {
            return;
        }
        let result = decoded.and_then(|message| self.take(message, bytes.len(), now));
        if let Err(violation) = result {
            // Whatever the URI of a rule in detail: a message that breaks it is a protocol violation.
            self.abort(PROTOCOL_VIOLATION, violation.message, Reason::Violation);
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
                    Err(violation) => self.abort(PROTOCOL_VIOLATION, violation.message, Reason::Violation),
                }
            }
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
                Err(violation) => self.abort(PROTOCOL_VIOLATION, violation.message, Reason::Violation),
            },
            Stage::Leaving(_) => self.end(Close::new(Reason::Shutdown, "GOODBYE was not answered")),
            Stage::Open(dialogue) => dialogue.tick(&mut self.voice, now),
            Stage::Over => {}
        }
    }

    fn pause(&mut self, _now: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Opening(opening) => opening.deadline(),
            Stage::Leaving(deadline) => Some(*deadline),
            Stage::Open(dialogue) => dialogue.deadline(),
            Stage::Over => None,
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.voice.poll()
    }

    fn fail(&mut self, reason: &str, _now: Instant) {
        match self.stage {
            // The pump closes the wire, and knows why.
            Stage::Opening(_) | Stage::Open(_) => self.say_abort(PROTOCOL_VIOLATION, reason),
            Stage::Leaving(_) | Stage::Over => {}
        }
        self.stage = Stage::Over;
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
}

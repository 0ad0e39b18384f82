//! Calls: a peer calls a procedure by a SEND to `/call/`, and serves one by a SUBSCRIBE to `/procedure/`.
//!
//! An answer is a MESSAGE to what the caller gave as `reply-to`, with the same `correlation-id`. An error is
//! such a MESSAGE with an `error` header: an ERROR frame would end the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tandem_protocols::stomp::error::{Reason, Violation};
use tandem_protocols::stomp::frame::Frame;

use crate::core::access::{Action, Refusal};
use crate::core::calls::{Answered, CANCELED, CallTerms, TIMEOUT, failure};
use crate::core::deadlines::Deadlines;
use crate::core::name::Name;
use crate::core::parcel::{Answer, Failure, Invocation, Outcome};
use crate::core::realm::Outgoing;
use crate::core::topics::PublishTerms;
use crate::stomp::destination::{self, Place, TEMP_QUEUE, Target};
use crate::stomp::dialogue::subscription::Feed;
use crate::stomp::dialogue::{Dialogue, Receipt, check_temp_queue};
use crate::stomp::fault::Fault;
use crate::stomp::headers::{self, CALL_HEADERS, CALLER, CALLER_AUTHID};
use crate::stomp::message;
use crate::stomp::settings::Settings;
use crate::stomp::voice::Voice;

const NO_SUCH_PROCEDURE: &str = "wamp.error.no_such_procedure";
const UNAVAILABLE: &str = "wamp.error.unavailable";
const MAX_CONCURRENCY_REACHED: &str = "crossbar.error.max_concurrency_reached";
const NOT_AUTHORIZED: &str = "wamp.error.not_authorized";
const AUTHORIZATION_FAILED: &str = "wamp.error.authorization_failed";
const INVALID_ARGUMENT: &str = "wamp.error.invalid_argument";
const INVALID_PAYLOAD: &str = "wamp.error.invalid_payload";

/// The calls of a session that were not answered yet.
#[derive(Debug, Default)]
pub(in crate::stomp) struct Calls {
    waiting: HashMap<u64, Waiting>,
    deadlines: Deadlines,
    last: u64,
}

/// What is to be done with an answer.
#[derive(Debug)]
struct Waiting {
    reply_to: ReplyTo,
    correlation_id: Option<Box<str>>,
}

#[derive(Debug)]
enum ReplyTo {
    /// Nobody wants to know.
    Nobody,
    /// The caller itself, under the name that it gave.
    Caller(Box<str>),
    Topic(Name),
    Queue(Name),
}

impl ReplyTo {
    fn parse(text: Option<&str>) -> Result<ReplyTo, Fault> {
        let Some(text) = text else { return Ok(ReplyTo::Nobody) };
        if text.starts_with(TEMP_QUEUE) {
            check_temp_queue(text)?;
            return Ok(ReplyTo::Caller(text.into()));
        }
        match destination::target(text)? {
            Target::Topic(name) => Ok(ReplyTo::Topic(name)),
            Target::Queue(name) | Target::Reply(name) => Ok(ReplyTo::Queue(name)),
            Target::ExistingQueue(_)
            | Target::Temp
            | Target::Call(_)
            | Target::Invocation(_)
            | Target::Renewal => Err(Violation::invalid_header("reply-to", text).into()),
        }
    }
}

impl Dialogue {
    /// SEND to `/call/`.
    pub(in crate::stomp) fn call(
        &mut self,
        procedure: Name,
        frame: &mut Frame,
        voice: &mut Voice,
        settings: &Settings,
        now: Instant,
    ) -> Result<Receipt, Fault> {
        refuse_transaction(frame)?;
        let headers = &frame.headers;
        let timeout = headers::timeout(headers)?;
        let reply_to = match ReplyTo::parse(headers.get("reply-to"))? {
            ReplyTo::Caller(temp) => match self.subscribed_temp_queue(&temp) {
                // It reads that queue under a name of its own, and acknowledges as it said there.
                Some(queue) => ReplyTo::Queue(queue),
                None => ReplyTo::Caller(temp),
            },
            ReplyTo::Nobody => ReplyTo::Nobody,
            ReplyTo::Topic(name) => {
                self.member.permit(Action::Publish, &name)?;
                ReplyTo::Topic(name)
            }
            ReplyTo::Queue(name) => {
                self.member.permit(Action::Send, &name)?;
                ReplyTo::Queue(name)
            }
        };
        let waiting = Waiting { reply_to, correlation_id: headers.get("correlation-id").map(Box::from) };
        let attributes = headers::attributes(headers, &CALL_HEADERS);
        let payload = headers::payload(headers, std::mem::take(&mut frame.body))?;
        let outgoing = Outgoing { name: procedure, payload, attributes };
        let calls = &mut self.rare().calls;
        calls.last += 1;
        let call = calls.last;
        let called = if calls.waiting.len() < settings.calls_max {
            self.member.call(call, outgoing, CallTerms { timeout, ..CallTerms::default() })
        } else {
            Err(Refusal::TooMany("unanswered calls of a session", settings.calls_max))
        };
        match called {
            Ok(()) => {
                let calls = &mut self.rare().calls;
                calls.waiting.insert(call, waiting);
                if let Some(timeout) = timeout {
                    calls.deadlines.start(call, timeout, now);
                }
                Ok(Receipt::Due)
            }
            Err(refusal @ Refusal::Undecided(_)) => Err(refusal.into()),
            Err(refusal) => {
                // The call was processed: its receipt comes before its answer.
                if let Some(receipt) = headers.get("receipt") {
                    voice.receipt(receipt);
                }
                let failure = failure(error_of(&refusal), &refusal.to_string());
                self.reply(call, waiting, Err(failure), voice);
                Ok(Receipt::Settled)
            }
        }
    }

    /// The answer to a call of the peer's.
    pub(in crate::stomp) fn conclude(&mut self, outcome: Outcome, voice: &mut Voice) {
        let Outcome { call, result, .. } = outcome;
        self.conclude_with(call, result, voice);
    }

    fn conclude_with(&mut self, call: u64, result: Result<Answer, Failure>, voice: &mut Voice) {
        let calls = &mut self.rare().calls;
        calls.deadlines.stop(call);
        if let Some(waiting) = calls.waiting.remove(&call) {
            self.reply(call, waiting, result, voice);
        }
    }

    /// When the next call has waited long enough.
    pub(in crate::stomp) fn deadline(&self) -> Option<Instant> {
        self.rare.as_ref()?.calls.deadlines.earliest()
    }

    /// Ends calls that waited long enough.
    pub(in crate::stomp) fn tick(&mut self, voice: &mut Voice, now: Instant) {
        while let Some(call) = self.rare_if_any().and_then(|rare| rare.calls.deadlines.expired(now)) {
            // Else the answer lies in the mailbox.
            if self.member.expire(call) {
                let late = failure(TIMEOUT, "the answer did not come in time");
                self.conclude_with(call, Err(late), voice);
            }
        }
    }

    fn reply(&mut self, call: u64, waiting: Waiting, result: Result<Answer, Failure>, voice: &mut Voice) {
        let Waiting { reply_to, correlation_id } = waiting;
        let sent = match reply_to {
            ReplyTo::Nobody => Ok(()),
            ReplyTo::Caller(temp) => {
                tell_caller(voice, call, &temp, correlation_id.as_deref(), result);
                Ok(())
            }
            ReplyTo::Topic(name) => {
                self.published.set(true);
                let outgoing = forwarded(name, correlation_id.as_deref(), result);
                self.member.publish_later(outgoing, PublishTerms::default()).map(|_| ())
            }
            ReplyTo::Queue(name) => {
                let outgoing = forwarded(name, correlation_id.as_deref(), result);
                self.member.send_later(outgoing, 0).map(|_| ())
            }
        };
        if let Err(refusal) = sent {
            tracing::debug!(%refusal, "an answer could not be sent to where its caller wanted it");
        }
    }

    /// A call that the peer is to answer.
    pub(in crate::stomp) fn invoke(&mut self, invocation: &Invocation, voice: &mut Voice) {
        let subscription = self
            .subscriptions
            .iter()
            .find(|known| matches!(known.feed, Feed::Procedure(id) if id == invocation.registration));
        let Some(subscription) = subscription else {
            // It lay in the mailbox while the peer unsubscribed.
            let failure = failure(CANCELED, "the callee does not serve the procedure any more");
            self.member.decline(invocation.id, failure);
            return;
        };
        let number = invocation.id.to_string();
        let (id, reply_to) = (format!("invocation-{number}"), format!("/invocation/{number}"));
        let destination = destination::write(Place::Procedure, &invocation.procedure);
        let caller = invocation.caller.as_ref().map(|(session, who)| (session.0.to_string(), &*who.id));
        let mut first = Vec::with_capacity(8);
        first.extend(subscription.id.as_deref().map(|id| ("subscription", id)));
        first.extend([
            ("message-id", &*id),
            ("destination", &*destination),
            ("reply-to", &*reply_to),
            ("correlation-id", &*number),
        ]);
        if let Some((session, authid)) = &caller {
            first.extend([(CALLER, &**session), (CALLER_AUTHID, authid)]);
        }
        let trust = invocation.trust.map(|level| level.to_string());
        first.extend(trust.as_deref().map(|level| (headers::TRUST_LEVEL, level)));
        match message::direct(voice, &first, &invocation.payload, &invocation.attributes) {
            Ok(frame) => voice.send(frame),
            Err(why) => {
                message::note_unconvertible(why);
                let said = format!("the callee cannot read the arguments: {why}");
                self.member.answer(invocation.id, Err(failure(INVALID_ARGUMENT, &said)));
            }
        }
    }

    /// SEND to `/invocation/`.
    pub(in crate::stomp) fn answer(&mut self, number: u64, frame: &mut Frame) -> Result<Receipt, Fault> {
        refuse_transaction(frame)?;
        let payload = headers::payload(&frame.headers, std::mem::take(&mut frame.body))?;
        let attributes = headers::attributes(&frame.headers, &CALL_HEADERS);
        let result = match frame.headers.get("error") {
            None => Ok(Answer { payload, attributes, is_progress: false }),
            Some(error) => {
                let error = Name::parse(error).map_err(|_| Violation::invalid_header("error", error))?;
                Err(Failure { error: Arc::from(error.as_str()), payload, attributes })
            }
        };
        match self.member.answer(number, result) {
            Answered::Delivered | Answered::Ignored => Ok(Receipt::Due),
            Answered::NeverInvoked => {
                Err(Fault::new(Reason::NotFound, format!("there was no invocation {number}")))
            }
        }
    }
}

/// An answer to the caller itself: it comes as if from the temporary queue that the caller named.
fn tell_caller(
    voice: &mut Voice,
    call: u64,
    temp: &str,
    correlation_id: Option<&str>,
    result: Result<Answer, Failure>,
) {
    let id = format!("call-{call}");
    let said = |voice: &Voice, result: &Result<Answer, Failure>| {
        let (error, payload, attributes) = match result {
            Ok(answer) => (None, &answer.payload, &answer.attributes),
            Err(failure) => (Some(&*failure.error), &failure.payload, &failure.attributes),
        };
        let mut first = vec![("subscription", temp), ("message-id", &*id), ("destination", temp)];
        first.extend(correlation_id.map(|id| ("correlation-id", id)));
        first.extend(error.map(|error| ("error", error)));
        message::direct(voice, &first, payload, attributes)
    };
    let frame = said(voice, &result).or_else(|why| {
        message::note_unconvertible(why);
        let sentence = format!("the answer has no form here: {why}");
        said(voice, &Err(failure(INVALID_PAYLOAD, &sentence)))
    });
    match frame {
        Ok(frame) => voice.send(frame),
        Err(why) => message::note_unconvertible(why),
    }
}

/// An answer to whoever reads the destination that the caller named.
fn forwarded(name: Name, correlation_id: Option<&str>, result: Result<Answer, Failure>) -> Outgoing {
    let (error, payload, attributes) = match result {
        Ok(Answer { payload, attributes, .. }) => (None, payload, attributes),
        Err(Failure { error, payload, attributes }) => (Some(error), payload, attributes),
    };
    let correlation = correlation_id.map(|id| ("correlation-id", id));
    let error = error.as_deref().map(|error| ("error", error));
    let others = attributes.iter().filter(|(name, _)| !CALL_HEADERS.contains(name));
    let attributes = correlation.into_iter().chain(error).chain(others).collect();
    Outgoing { name, payload, attributes }
}

fn refuse_transaction(frame: &Frame) -> Result<(), Fault> {
    if frame.headers.get("transaction").is_some() {
        let detail = "a call and its answer cannot be part of a transaction";
        return Err(Fault::new(Reason::InvalidHeader, detail));
    }
    Ok(())
}

/// The house's refusal of a call, as an error that callers of all languages know.
fn error_of(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NoSuchProcedure(_) => NO_SUCH_PROCEDURE,
        Refusal::Unavailable(_) | Refusal::TooMany(..) => UNAVAILABLE,
        Refusal::AuthorizationFailed => AUTHORIZATION_FAILED,
        Refusal::Busy(_) => MAX_CONCURRENCY_REACHED,
        _ => NOT_AUTHORIZED,
    }
}

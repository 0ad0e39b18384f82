//! REGISTER, UNREGISTER, CALL, CANCEL, INVOCATION, YIELD, ERROR, RESULT and INTERRUPT.
//!
//! A CALL under the number of one that announced more continues that one, and whatever else it says is not
//! read. The specification tells late parts from new calls by the order of their numbers; clients that
//! number their calls at random exist, so the numbers of calls that ended early are remembered instead.
//!
//! Sharded registrations are a sketch in the specification, whose intent is to route a call to a single shard of
//! what several callees offer. Here: of the callees that share a registration, under whatever policy, a call with
//! `runmode` `partition` goes to the one that its `rkey` belongs to, always the same one as long as the callees are
//! the same. If that one is busy or gone, the call fails: no other has the shard. What an `all` call is, and how the
//! answers of all become one, the specification leaves to be written: it is refused by its name. An `rkey`
//! without `runmode` means nothing.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::{
    CANCELED, INVALID_ARGUMENT, INVALID_PAYLOAD, INVALID_URI, NO_SUCH_PROCEDURE, Violation,
};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::list::{Element, encode_list};
use tandem_protocols::wamp::message::{
    Call, Cancel, Error, Interrupt, MessageType, Register, Registered, Unregister, Unregistered, Yield,
};
use tandem_protocols::wamp::options::{
    self, CallOptions, CancelOptions, ErrorDetails, InvokePolicy, RegisterOptions, WithdrawOptions,
    YieldOptions,
};
use tandem_protocols::wamp::uri::{Rule, is_uri};

use crate::core::access::Refusal;
use crate::core::calls::{Answered, CallTerms, CancelMode, Canceled, Offer, Policy, failure};
use crate::core::parcel::{Answer, Failure, Invocation, Outcome, RegistrationId};
use crate::core::realm::Outgoing;
use crate::core::shard::ShardKey;
use crate::wamp::dialogue::{Dialogue, queue};
use crate::wamp::fault::Fault;
use crate::wamp::luggage;
use crate::wamp::voice::{Voice, id, note_too_long, note_unconvertible, too_long};

/// Why a callee lost its registration: another one took it by `force_reregister`.
const REREGISTERED: &str = "tandem.reason.reregistered";

/// How many calls of a session may be under way.
pub(in crate::wamp) const CALLS_MAX: usize = 4096;

impl Dialogue {
    // ---- as a callee ---------------------------------------------------------------------------------

    pub(in crate::wamp) fn register(&mut self, register: &Register, voice: &mut Voice) -> Result<(), Fault> {
        let options = RegisterOptions::parse(&register.options)?;
        let pattern = self.pattern(&register.procedure, options.match_policy)?;
        let offer = Offer {
            policy: policy(options.invoke),
            concurrency: options.concurrency.filter(|limit| *limit > 0),
            force: options.force_reregister,
            takes_interrupts: self.abilities.takes_interrupts,
            takes_parts: self.abilities.takes_parts,
            forward_timeout: options.forward_timeout,
            wants_caller: options.disclose_caller == Some(true),
        };
        let registration = self.member.offer(&pattern, offer)?;
        voice.say(Registered { request: register.request, registration: id(registration.0) });
        Ok(())
    }

    pub(in crate::wamp) fn unregister(
        &mut self,
        unregister: &Unregister,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        unregister.options.as_ref().map(WithdrawOptions::parse).transpose()?;
        let registration = RegistrationId(unregister.registration.get());
        self.member.unregister(registration)?;
        voice.say(Unregistered { request: Some(unregister.request), details: None });
        Ok(())
    }

    pub(in crate::wamp) fn bring_registration_revocation(
        &mut self,
        registration: RegistrationId,
        reason: Option<&str>,
        voice: &mut Voice,
    ) {
        if !self.member.forget_registration(registration) {
            return;
        }
        if self.abilities.hears_of_revocations {
            let reason = reason.unwrap_or(REREGISTERED);
            let details = Dict::new().with("registration", registration.0).with("reason", reason);
            voice.say(Unregistered { request: None, details: Some(details) });
        }
    }

    pub(in crate::wamp) fn bring_invocation(&self, invocation: &Invocation, voice: &mut Voice) {
        let Invocation { id: request, registration, payload, attributes, .. } = invocation;
        if invocation.continues {
            // What came before these may have been refused, or given up.
            if !self.member.is_invoked(*request) {
                return;
            }
        } else if !self.member.has_registered(*registration) {
            // It ended while this was on its way, and clients close the session at what they do not know.
            let gone = failure(NO_SUCH_PROCEDURE, "the procedure was unregistered");
            self.member.decline(*request, gone);
            return;
        }
        let payload = match payload.arguments(voice.format) {
            Ok(payload) => payload,
            Err(why) => {
                note_unconvertible(why);
                let sentence = format!("the arguments have no form in the callee's encoding: {why}");
                return self.fail_invocation(invocation, failure(INVALID_ARGUMENT, &sentence), voice);
            }
        };
        let mut details = invocation_details(invocation);
        luggage::unpack(attributes, &mut details);
        let (number, registration) = (id(*request), id(registration.0));
        let bytes = codec::encode_invocation(voice.format, number, registration, &details, payload);
        let bytes = bytes.expect("the payload was converted, and is below 4 GiB");
        if voice.fits(bytes.len()) {
            return voice.say_encoded(bytes);
        }
        note_too_long(bytes.len());
        if invocation.continues {
            self.fail_invocation(invocation, too_long("the arguments"), voice);
        } else {
            // Another callee may take longer ones.
            self.member.decline(*request, too_long("the arguments"));
        }
    }

    /// Ends a call whose arguments cannot be brought.
    fn fail_invocation(&self, invocation: &Invocation, failure: Failure, voice: &mut Voice) {
        self.member.answer(invocation.id, Err(failure));
        if invocation.continues {
            self.bring_interrupt(invocation.id, false, voice);
        }
    }

    pub(in crate::wamp) fn bring_interrupt(&self, invocation: u64, is_awaited: bool, voice: &mut Voice) {
        let options = Dict::new().with("mode", if is_awaited { "kill" } else { "killnowait" });
        voice.say(Interrupt { request: id(invocation), options });
    }

    pub(in crate::wamp) fn give_result(&self, result: Yield, received_bytes: usize) -> Result<(), Fault> {
        let options = YieldOptions::parse(&result.options)?;
        let answer = match luggage::attributes(&result.options) {
            Ok(attributes) => Ok(Answer {
                payload: luggage::payload(result.payload, received_bytes),
                attributes,
                is_progress: options.progress,
            }),
            // It is the caller who waits to hear of it.
            Err(Fault::Refused(uri, sentence)) => Err(failure(uri, &sentence)),
            Err(fault) => return Err(fault),
        };
        self.answer(result.request, answer)
    }

    pub(in crate::wamp) fn give_error(&self, error: Error, received_bytes: usize) -> Result<(), Fault> {
        ErrorDetails::parse(&error.details)?;
        if error.request_type != MessageType::Invocation {
            let sentence = format!("ERROR for a {}", error.request_type.name());
            return Err(Violation::new(sentence).into());
        }
        // What is no URI cannot be passed on as one.
        let uri = if is_uri(&error.error, Rule::Loose) { &error.error } else { INVALID_URI };
        let answer = match luggage::attributes(&error.details) {
            Ok(attributes) => {
                let payload = luggage::payload(error.payload, received_bytes);
                Failure { error: uri.into(), payload, attributes }
            }
            Err(Fault::Refused(uri, sentence)) => failure(uri, &sentence),
            Err(fault) => return Err(fault),
        };
        self.answer(error.request, Err(answer))
    }

    fn answer(&self, invocation: Id, result: Result<Answer, Failure>) -> Result<(), Fault> {
        match self.member.answer(invocation.get(), result) {
            // The caller may have left, or given up.
            Answered::Delivered | Answered::Ignored => Ok(()),
            Answered::NeverInvoked => Err(Violation::new("an answer to an invocation that never was").into()),
        }
    }

    // ---- as a caller ---------------------------------------------------------------------------------

    pub(in crate::wamp) fn call(
        &mut self,
        call: Call<Cow<'_, str>>,
        received_bytes: usize,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<(), Fault> {
        let options = CallOptions::parse(&call.options)?;
        let request = call.request.get();
        if self.expects_part(request) {
            let more_follows = options.progress;
            return self.proceed(call, received_bytes, more_follows);
        }
        let waits = self.queue_calls.as_ref().is_some_and(|calls| calls.is_waiting(request));
        if waits || self.is_open(request) {
            return Err(Refusal::RequestInUse(request).into());
        }
        let shard = shard(&options)?;
        if options.progress && !self.abilities.calls_in_parts {
            let sentence = "a progressive call of a caller that did not announce the feature";
            return Err(Violation::new(sentence).into());
        }
        let mut attributes = luggage::attributes(&call.options)?;
        if call.procedure == queue::SEND {
            attributes = queue::with_persistence(attributes, &call.options)?;
        }
        let name = self.name(&call.procedure)?;
        let payload = luggage::payload(call.payload, received_bytes);
        let outgoing = Outgoing { name, payload, attributes };
        let timeout = options.timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis);
        if !options.progress && self.serve(call.request, &outgoing, voice, now)? {
            if !self.is_receiving(request) {
                return Ok(());
            }
        } else {
            if self.open_calls().open.count() >= CALLS_MAX {
                return Err(Refusal::TooMany("calls of a session under way", CALLS_MAX).into());
            }
            let terms = CallTerms {
                takes_progress: options.receive_progress,
                timeout,
                discloses: options.disclose_me == Some(true),
                more_follows: options.progress,
                shard,
            };
            if let Err(refusal) = self.member.call(request, outgoing, terms) {
                if options.progress && !matches!(refusal, Refusal::Undecided(_)) {
                    self.open_calls().remember_late(request);
                }
                return Err(refusal.into());
            }
            let calls = self.open_calls();
            calls.open.insert(request);
            if options.progress {
                calls.in_parts.insert(request);
            }
        }
        if let Some(timeout) = timeout {
            self.open_calls().deadlines.start(request, timeout, now);
        }
        Ok(())
    }

    /// More arguments of a call, or the last. What comes after its end is for nobody.
    fn proceed(
        &mut self,
        call: Call<Cow<'_, str>>,
        received_bytes: usize,
        more_follows: bool,
    ) -> Result<(), Fault> {
        let request = call.request.get();
        let attributes = luggage::attributes(&call.options)?;
        let payload = luggage::payload(call.payload, received_bytes);
        let is_open = self.is_open(request);
        if !more_follows {
            self.expect_no_part(request);
        }
        if is_open {
            let proceeded = self.member.proceed(request, (payload, attributes), more_follows);
            if let Err(refusal) = proceeded {
                self.close_call(request);
                return Err(refusal.into());
            }
        }
        Ok(())
    }

    pub(in crate::wamp) fn cancel(&mut self, cancel: &Cancel, voice: &mut Voice) -> Result<(), Fault> {
        let mode = match CancelOptions::parse(&cancel.options)?.mode {
            Some(options::CancelMode::Skip) => CancelMode::Skip,
            Some(options::CancelMode::Kill) => CancelMode::Kill,
            Some(options::CancelMode::KillNoWait) | None => CancelMode::KillNoWait,
        };
        let request = cancel.request.get();
        // If it is not under way, the answer is on its way already, or was never owed.
        if self.member.cancel(request, mode) == Canceled::Ended || self.stop_receiving(request) {
            self.close_call(request);
            let canceled = failure(CANCELED, "the caller canceled the call");
            voice.say_error(MessageType::Call, cancel.request, &canceled);
        }
        Ok(())
    }

    pub(in crate::wamp) fn bring_outcome(&mut self, outcome: &Outcome, voice: &mut Voice, now: Instant) {
        if !self.is_open(outcome.call) {
            // It lay in the mailbox when the call was ended here.
            return;
        }
        let request = id(outcome.call);
        let (said, is_progress) = match &outcome.result {
            Ok(answer) => (say_result(request, answer, voice), answer.is_progress),
            Err(failure) => {
                if !voice.try_say_error(MessageType::Call, request, failure) {
                    // Without its arguments it would be taken for another.
                    voice.say_error(MessageType::Call, request, &too_long("the error"));
                }
                (true, false)
            }
        };
        if said && is_progress {
            return self.open_calls().deadlines.restart(outcome.call, now);
        }
        if is_progress {
            // An ERROR is the end of the call, though its callee does not know yet.
            self.member.cancel(outcome.call, CancelMode::KillNoWait);
        }
        self.close_call(outcome.call);
    }
}

/// Says a RESULT; false where the caller's encoding has no form for it, or it is too long for the caller, which
/// it is told by an ERROR.
fn say_result(request: Id, answer: &Answer, voice: &mut Voice) -> bool {
    match answer.payload.arguments(voice.format) {
        Ok(payload) => {
            let mut details = Dict::new();
            if answer.is_progress {
                details.insert("progress", true);
            }
            luggage::unpack(&answer.attributes, &mut details);
            let bytes = codec::encode_result(voice.format, request, &details, payload);
            let bytes = bytes.expect("the payload was converted, and is below 4 GiB");
            if !voice.fits(bytes.len()) {
                note_too_long(bytes.len());
                voice.say_error(MessageType::Call, request, &too_long("the result"));
                return false;
            }
            voice.say_encoded(bytes);
            true
        }
        Err(why) => {
            note_unconvertible(why);
            let sentence = format!("the result has no form in the caller's encoding: {why}");
            voice.say_error(MessageType::Call, request, &failure(INVALID_PAYLOAD, &sentence));
            false
        }
    }
}

/// Which callee a caller asks for.
fn shard(options: &CallOptions<'_>) -> Result<Option<ShardKey>, Fault> {
    match options.runmode {
        None => Ok(None),
        Some("partition") => match options.rkey {
            None | Some(Value::Null) => Err(Fault::argument("with runmode partition a call needs an rkey")),
            Some(Value::Str(key)) => Ok(Some(ShardKey::of(key.as_bytes()))),
            // The same for every serialization.
            Some(key) => Ok(Some(ShardKey::of(&encode_list(Format::Cbor, &[Element::Value(key)])))),
        },
        Some("all") => Err(Fault::option("runmode all")),
        Some(_) => Err(Fault::argument("runmode is partition, or all, which is not supported")),
    }
}

fn policy(invoke: InvokePolicy) -> Policy {
    match invoke {
        InvokePolicy::Single => Policy::Single,
        InvokePolicy::First => Policy::First,
        InvokePolicy::Last => Policy::Last,
        InvokePolicy::RoundRobin => Policy::RoundRobin,
        InvokePolicy::Random => Policy::Random,
    }
}

/// What the callee is told beside the arguments.
fn invocation_details(invocation: &Invocation) -> Dict {
    let mut details = Dict::new();
    if invocation.by_pattern {
        details.insert("procedure", invocation.procedure.as_str());
    }
    if invocation.takes_progress {
        details.insert("receive_progress", true);
    }
    if invocation.more_follows {
        details.insert("progress", true);
    }
    if let Some(ms) = invocation.timeout.and_then(|timeout| u64::try_from(timeout.as_millis()).ok()) {
        details.insert("timeout", ms);
    }
    if let Some((session, principal)) = &invocation.caller {
        details.insert("caller", session.0);
        details.insert("caller_authid", &*principal.id);
        details.insert("caller_authrole", &*principal.role);
    }
    if let Some(level) = invocation.trust {
        details.insert("trustlevel", u64::from(level));
    }
    details
}

//! REGISTER, UNREGISTER, CALL, CANCEL, INVOCATION, YIELD, ERROR, RESULT and INTERRUPT.
//!
//! Options of REGISTER that would let others share or lose a procedure are refused as long as they are not
//! supported, and so is a CALL that announces more of itself. CANCEL is followed, always as `killnowait`,
//! but not announced: the other modes are missing.

use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{
    CANCELED, INVALID_ARGUMENT, INVALID_PAYLOAD, INVALID_URI, NO_SUCH_PROCEDURE, Violation,
};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{
    Call, Cancel, Error, Interrupt, MessageType, Register, Registered, Unregister, Unregistered, Yield,
};
use tandem_protocols::wamp::options::{
    CallOptions, CancelOptions, ErrorDetails, InvokePolicy, RegisterOptions, WithdrawOptions, YieldOptions,
};
use tandem_protocols::wamp::uri::{Rule, is_uri};

use crate::core::access::Refusal;
use crate::core::calls::{Answered, CallTerms, failure};
use crate::core::name::Name;
use crate::core::parcel::{Answer, Failure, Invocation, Outcome, RegistrationId};
use crate::core::realm::Outgoing;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::dialogue::pubsub;
use crate::wamp::fault::Fault;
use crate::wamp::luggage;
use crate::wamp::voice::{Voice, id, note_unconvertible};

/// How many calls of a session may be under way.
pub(in crate::wamp) const CALLS_MAX: usize = 4096;

impl Dialogue {
    // ---- as a callee ---------------------------------------------------------------------------------

    pub(in crate::wamp) fn register(&mut self, register: &Register, voice: &mut Voice) -> Result<(), Fault> {
        let options = RegisterOptions::parse(&register.options)?;
        if let Some(name) = sharing(&options) {
            return Err(Fault::option(name));
        }
        let pattern = pubsub::pattern(&register.procedure, options.match_policy)?;
        let registration = self.member.register(&pattern)?;
        self.registrations.push(registration);
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
        self.registrations.retain(|known| *known != registration);
        voice.say(Unregistered { request: Some(unregister.request), details: None });
        Ok(())
    }

    pub(in crate::wamp) fn bring_invocation(&self, invocation: &Invocation, voice: &mut Voice) {
        let Invocation { id: request, registration, payload, attributes, .. } = invocation;
        if self.registrations.binary_search(registration).is_err() {
            // It ended while this was on its way, and clients close the session at what they do not know.
            let gone = failure(NO_SUCH_PROCEDURE, "the procedure was unregistered");
            self.member.answer(*request, Err(gone));
            return;
        }
        let payload = match luggage::content(payload, voice.format) {
            Ok(payload) => payload,
            Err(why) => {
                note_unconvertible(why);
                let sentence = format!("the arguments have no form in the callee's encoding: {why}");
                self.member.answer(*request, Err(failure(INVALID_ARGUMENT, &sentence)));
                return;
            }
        };
        let mut details = Dict::new();
        if invocation.by_pattern {
            details.insert("procedure", invocation.procedure.as_str());
        }
        if invocation.takes_progress {
            details.insert("receive_progress", true);
        }
        luggage::unpack(attributes, &mut details);
        let (request, registration) = (id(*request), id(registration.0));
        let bytes = codec::encode_invocation(voice.format, request, registration, &details, &payload);
        voice.say_encoded(bytes.expect("the payload was converted, and is below 4 GiB"));
    }

    pub(in crate::wamp) fn bring_interrupt(&self, invocation: u64, voice: &mut Voice) {
        if self.is_interruptible {
            let options = Dict::new().with("mode", "killnowait");
            voice.say(Interrupt { request: id(invocation), options });
        }
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
        call: Call,
        received_bytes: usize,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        let options = CallOptions::parse(&call.options)?;
        let request = call.request.get();
        if self.receives.is_waiting(request) {
            return Err(Refusal::RequestInUse(request).into());
        }
        if options.progress || options.runmode.is_some() {
            return Err(Fault::option(if options.progress { "progress" } else { "runmode" }));
        }
        let attributes = luggage::attributes(&call.options)?;
        let name = Name::parse(&call.procedure)?;
        let payload = luggage::payload(call.payload, received_bytes);
        let outgoing = Outgoing { name, payload, attributes };
        if self.serve(call.request, &outgoing, voice)? {
            return Ok(());
        }
        if self.calls.len() >= CALLS_MAX {
            return Err(Refusal::TooMany("calls of a session under way", CALLS_MAX).into());
        }
        let terms = CallTerms { takes_progress: options.receive_progress };
        self.member.call(request, outgoing, terms)?;
        self.calls.insert(request);
        Ok(())
    }

    pub(in crate::wamp) fn cancel(&mut self, cancel: &Cancel, voice: &mut Voice) -> Result<(), Fault> {
        CancelOptions::parse(&cancel.options)?;
        let request = cancel.request.get();
        let was_called = self.member.abandon(request);
        if was_called {
            self.calls.remove(&request);
        }
        if was_called || self.stop_receiving(request) {
            let canceled = failure(CANCELED, "the caller canceled the call");
            voice.say_error(MessageType::Call, cancel.request, &canceled);
        }
        // Else the answer is on its way already, or was never owed.
        Ok(())
    }

    pub(in crate::wamp) fn bring_outcome(&mut self, outcome: &Outcome, voice: &mut Voice) {
        if !self.calls.contains(&outcome.call) {
            return;
        }
        let request = id(outcome.call);
        match &outcome.result {
            Ok(answer) => match (say_result(request, answer, voice), answer.is_progress) {
                (true, true) => return,
                // An ERROR is the end of the call, though its callee does not know yet.
                (false, true) => {
                    self.member.abandon(outcome.call);
                }
                (true | false, false) => {}
            },
            Err(failure) => voice.say_error(MessageType::Call, request, failure),
        }
        self.calls.remove(&outcome.call);
    }
}

/// Says a RESULT; false where the caller's encoding has no form for it, which it is told by an ERROR.
fn say_result(request: Id, answer: &Answer, voice: &mut Voice) -> bool {
    match luggage::content(&answer.payload, voice.format) {
        Ok(payload) => {
            let mut details = Dict::new();
            if answer.is_progress {
                details.insert("progress", true);
            }
            luggage::unpack(&answer.attributes, &mut details);
            let bytes = codec::encode_result(voice.format, request, &details, &payload);
            voice.say_encoded(bytes.expect("the payload was converted, and is below 4 GiB"));
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

/// The first option by which a callee would share its procedure, or take another's.
fn sharing(options: &RegisterOptions<'_>) -> Option<&'static str> {
    [
        ("invoke", options.invoke != InvokePolicy::Single),
        ("concurrency", options.concurrency.is_some_and(|limit| limit > 0)),
        ("force_reregister", options.force_reregister),
    ]
    .into_iter()
    .find_map(|(name, shares)| shares.then_some(name))
}

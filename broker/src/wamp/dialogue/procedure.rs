//! Procedures that the session itself serves: which there are, and what they share.

use std::time::Instant;

use bytes::Bytes;

use tandem_protocols::payload::{Arguments, Content};
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{CallResult, nothing};

use crate::core::access::{Action, Refusal};
use crate::core::realm::Outgoing;
use crate::core::reserved::is_reserved;
use crate::wamp::arguments::split;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::fault::Fault;
use crate::wamp::voice::Voice;

impl Dialogue {
    /// Serves a call of one of these procedures; false if it is of another.
    pub(in crate::wamp) fn serve(
        &mut self,
        request: Id,
        outgoing: &Outgoing,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<bool, Fault> {
        let procedure = outgoing.name.as_str();
        if !is_reserved(procedure) {
            return Ok(false);
        }
        // The answer to this call must not be taken for that to another.
        if self.member.realm().calls().is_calling(self.member.id(), request.get()) {
            return Err(Refusal::RequestInUse(request.get()).into());
        }
        if let Some(procedure) = procedure.strip_prefix("tandem.queue.") {
            return self.serve_queue(procedure, request, outgoing, voice);
        }
        if procedure == "tandem.session.renew" {
            return self.renew(request, outgoing, voice, now).map(|()| true);
        }
        self.member.permit(Action::Call, &outgoing.name)?;
        match procedure {
            "wamp.session.add_testament" => self.add_testament(request, outgoing, voice)?,
            "wamp.session.flush_testaments" => self.flush_testaments(request, outgoing, voice)?,
            "wamp.subscription.get_events" => self.get_events(request, outgoing, voice)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Answers a call with these values.
pub(in crate::wamp) fn say_list(request: Id, args: Bytes, voice: &mut Voice) {
    let arguments = Arguments { format: voice.format, args, kwargs: Default::default() };
    voice.say(CallResult { request, details: Dict::new(), payload: Content::Arguments(arguments) });
}

/// Answers a call with nothing.
pub(in crate::wamp) fn say_nothing(request: Id, voice: &mut Voice) {
    voice.say(CallResult { request, details: Dict::new(), payload: nothing() });
}

/// The arguments of a call.
pub(in crate::wamp) fn arguments(outgoing: &Outgoing) -> Result<&Arguments, Fault> {
    match outgoing.payload.content() {
        Content::Arguments(arguments) => Ok(arguments),
        Content::Opaque(_) | Content::Body(_) => Err(Fault::argument("the arguments are a list")),
    }
}

/// The first two arguments: none of these procedures has more of its own.
pub(in crate::wamp) fn first_arguments(outgoing: &Outgoing) -> Result<Vec<Value>, Fault> {
    Ok(split(arguments(outgoing)?, 2)?.0)
}

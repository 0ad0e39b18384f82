//! Calls: who registered what, and which answers are owed to whom.
//!
//! A call that is under way belongs to its callee's session, under a number that counts in that session:
//! nobody else can answer it. It ends exactly once: by an answer, by the end of its callee (the caller
//! gets an error) or by the end of its caller (the callee is told).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use tandem_protocols::payload::{Arguments, Content, Format, Payload};

use crate::core::access::Refusal;
use crate::core::index::Index;
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::message::{Attributes, SessionId};
use crate::core::name::{Name, Pattern};
use crate::core::parcel::{Answer, Failure, Invocation, Outcome, Parcel, RegistrationId};
use crate::metrics;

/// The error of a call whose callee left or whose caller gave up.
pub const CANCELED: &str = "wamp.error.canceled";

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The session.
    pub session: SessionId,
    /// The caller's own number for the call.
    pub call: u64,
    /// Where the answer goes.
    pub mailbox: Mailbox,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It went to the caller.
    Delivered,
    /// Nobody waits for it any more.
    Ignored,
    /// The callee never got such an invocation.
    NeverInvoked,
}

/// The calls of a realm.
#[derive(Debug, Default)]
pub struct Calls {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    index: Index<RegistrationId>,
    registrations: HashMap<RegistrationId, Registration>,
    last_registration: u64,
    callees: HashMap<SessionId, Callee>,
    /// For each caller, by its own numbers: who is to answer, and under which number.
    callers: HashMap<SessionId, HashMap<u64, (SessionId, u64)>>,
}

#[derive(Debug)]
struct Registration {
    pattern: Pattern,
    callee: SessionId,
}

#[derive(Debug)]
struct Callee {
    mailbox: Mailbox,
    registrations: Vec<RegistrationId>,
    last_invocation: u64,
    pending: HashMap<u64, Caller>,
}

impl Calls {
    /// Registers a procedure, or all that match a pattern.
    pub fn register(
        &self,
        pattern: &Pattern,
        session: SessionId,
        mailbox: &Mailbox,
    ) -> Result<RegistrationId, Refusal> {
        let mut state = self.state.lock();
        if state.index.get(pattern).is_some() {
            return Err(Refusal::ProcedureExists(pattern.to_string()));
        }
        let id = RegistrationId(state.last_registration + 1);
        state.index.insert(pattern, id)?;
        state.last_registration += 1;
        state.registrations.insert(id, Registration { pattern: pattern.clone(), callee: session });
        let callee = state.callees.entry(session).or_insert_with(|| Callee {
            mailbox: mailbox.clone(),
            registrations: Vec::new(),
            last_invocation: 0,
            pending: HashMap::new(),
        });
        callee.registrations.push(id);
        Ok(id)
    }

    /// Ends a registration. Calls that are under way are still answered.
    pub fn unregister(&self, id: RegistrationId, session: SessionId) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        match state.registrations.get(&id) {
            Some(registration) if registration.callee == session => {}
            _ => return Err(Refusal::NoSuchRegistration),
        }
        state.remove(id);
        Ok(())
    }

    /// How many registrations there are.
    pub fn registrations(&self) -> usize {
        self.state.lock().registrations.len()
    }

    /// How many calls are under way.
    pub fn pending(&self) -> usize {
        self.state.lock().callees.values().map(|callee| callee.pending.len()).sum()
    }

    /// Calls a procedure. The answer comes as an [`Outcome`] into the caller's mailbox.
    pub fn call(
        &self,
        caller: Caller,
        procedure: Name,
        payload: Payload,
        attributes: Attributes,
    ) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        let State { index, registrations, callees, callers, .. } = &mut *state;
        if callers.get(&caller.session).is_some_and(|calls| calls.contains_key(&caller.call)) {
            return Err(Refusal::RequestInUse(caller.call));
        }
        let no_such = || Refusal::NoSuchProcedure(procedure.clone());
        let id = *index.best_match(procedure.as_str()).ok_or_else(no_such)?;
        let registration = registrations.get(&id).ok_or_else(no_such)?;
        let callee = callees.get_mut(&registration.callee).ok_or_else(no_such)?;
        let invocation = callee.last_invocation + 1;
        let pushed = callee.mailbox.push(Parcel::Invocation(Box::new(Invocation {
            id: invocation,
            registration: id,
            procedure: procedure.clone(),
            by_pattern: registration.pattern.name().is_none(),
            caller: caller.session,
            payload,
            attributes,
        })));
        if pushed != Pushed::Queued {
            return Err(Refusal::Unavailable(procedure));
        }
        metrics::CALLS.add(1);
        callee.last_invocation = invocation;
        callers.entry(caller.session).or_default().insert(caller.call, (registration.callee, invocation));
        callee.pending.insert(invocation, caller);
        Ok(())
    }

    /// Whether a session waits for the answer to a call under that number of its own.
    pub fn is_calling(&self, session: SessionId, call: u64) -> bool {
        self.state.lock().callers.get(&session).is_some_and(|calls| calls.contains_key(&call))
    }

    /// Answers an invocation.
    pub fn answer(&self, session: SessionId, invocation: u64, result: Result<Answer, Failure>) -> Answered {
        let mut state = self.state.lock();
        let Some(callee) = state.callees.get_mut(&session) else { return Answered::NeverInvoked };
        let Some(caller) = callee.pending.remove(&invocation) else {
            let sent = (1..=callee.last_invocation).contains(&invocation);
            return if sent { Answered::Ignored } else { Answered::NeverInvoked };
        };
        state.forget_call(&caller);
        drop(state);
        caller.mailbox.push(Parcel::Outcome(Box::new(Outcome { call: caller.call, result })));
        Answered::Delivered
    }

    /// Ends a call whose caller no longer waits for it. True when it was under way.
    pub fn abandon(&self, session: SessionId, call: u64) -> bool {
        let mut state = self.state.lock();
        let State { callers, callees, .. } = &mut *state;
        let Some(calls) = callers.get_mut(&session) else { return false };
        let Some((callee, invocation)) = calls.remove(&call) else { return false };
        if calls.is_empty() {
            callers.remove(&session);
        }
        interrupt(callees, callee, invocation);
        true
    }

    /// Ends everything that a session has to do with.
    pub fn leave(&self, session: SessionId) {
        let mut state = self.state.lock();
        let (registrations, waiting) = match state.callees.remove(&session) {
            Some(callee) => (callee.registrations, callee.pending),
            None => Default::default(),
        };
        registrations.into_iter().for_each(|id| state.remove(id));
        for caller in waiting.values() {
            state.forget_call(caller);
        }
        let State { callers, callees, .. } = &mut *state;
        for (callee, invocation) in callers.remove(&session).unwrap_or_default().into_values() {
            interrupt(callees, callee, invocation);
        }
        drop(state);
        for caller in waiting.into_values().filter(|caller| caller.session != session) {
            let result = Err(failure(CANCELED, "the callee left"));
            caller.mailbox.push(Parcel::Outcome(Box::new(Outcome { call: caller.call, result })));
        }
    }
}

impl State {
    fn remove(&mut self, id: RegistrationId) {
        let Some(registration) = self.registrations.remove(&id) else { return };
        self.index.remove(&registration.pattern);
        if let Some(callee) = self.callees.get_mut(&registration.callee) {
            // The callee stays: its numbers go on, and calls may be under way.
            callee.registrations.retain(|known| *known != id);
        }
    }

    fn forget_call(&mut self, caller: &Caller) {
        if let Some(calls) = self.callers.get_mut(&caller.session) {
            calls.remove(&caller.call);
            if calls.is_empty() {
                self.callers.remove(&caller.session);
            }
        }
    }
}

fn interrupt(callees: &mut HashMap<SessionId, Callee>, callee: SessionId, invocation: u64) {
    if let Some(callee) = callees.get_mut(&callee) {
        callee.pending.remove(&invocation);
        callee.mailbox.push(Parcel::Interrupt { invocation });
    }
}

/// An error of the house, with one sentence for its reader.
pub fn failure(error: &str, sentence: &str) -> Failure {
    let quoted = format!("[\"{}\"]", sentence.replace(['"', '\\'], "'"));
    let args = Arguments { format: Format::Json, args: quoted.into(), kwargs: Default::default() };
    Failure {
        error: Arc::from(error),
        payload: Payload::new(Content::Arguments(args)),
        attributes: Attributes::default(),
    }
}

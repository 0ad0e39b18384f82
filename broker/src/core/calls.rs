//! Calls: who registered what, and which answers are owed to whom.
//!
//! A call that is under way belongs to its callee's session, under a number that counts in that session:
//! nobody else can answer it. It ends exactly once: by an answer, by the end of its callee (the caller
//! gets an error), or because its caller gave up, had waited long enough or ended (the callee is told, if it
//! can be). Time is the caller's session's business: it says when a call expires.

mod registrations;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use tandem_protocols::payload::{Arguments, Content, Format, Payload};

use crate::core::access::rules::{Rules, SharedRules};
use crate::core::access::{Principal, Refusal};
use crate::core::calls::registrations::{Added, Left, NoSeat, Registrations};
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::message::{Attributes, PUBLICATION_OVERHEAD, SessionId};
use crate::core::name::{Name, Pattern};
use crate::core::notice::{Notice, RegistrationFacts};
use crate::core::parcel::{Answer, Failure, Invocation, Outcome, Parcel, RegistrationId};
use crate::core::reserved::is_reserved;
use crate::core::shard::ShardKey;
use crate::core::watch::Watch;
use crate::metrics;

pub use crate::core::calls::registrations::{CALLEES_MAX, Offer, Policy};

/// The error of a call whose callee left or whose caller gave up.
pub const CANCELED: &str = "wamp.error.canceled";

/// The error of a call that took longer than its caller would wait.
pub const TIMEOUT: &str = "wamp.error.timeout";

/// The error by which a callee says that another one is to be asked.
pub const UNAVAILABLE: &str = "wamp.error.unavailable";

/// The error of a call that all callees of a shared procedure said that of.
pub const NO_AVAILABLE_CALLEE: &str = "wamp.error.no_available_callee";

/// How many calls of one session may be under way. More than that is no dialogue any more.
pub const CALLS_MAX: usize = 65_536;

/// How many bytes of arguments a realm keeps so that calls can go to another callee. Calls beyond that go to
/// one callee only.
pub const SPARE_BYTES_MAX: usize = 16 << 20;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The session.
    pub session: SessionId,
    /// Who that is.
    pub principal: Arc<Principal>,
    /// The caller's own number for the call.
    pub call: u64,
    /// Where the answer goes.
    pub mailbox: Mailbox,
    /// How it wants to be answered.
    pub terms: CallTerms,
}

/// How a caller wants its call to be dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTerms {
    /// It takes results as they come, before the last one.
    pub takes_progress: bool,
    /// How long it waits, from one result to the next.
    pub timeout: Option<Duration>,
    /// The callee may know who calls.
    pub discloses: bool,
    /// More arguments follow.
    pub more_follows: bool,
    /// Of the callees of a shared procedure the one is to be asked that this belongs to, and no other.
    pub shard: Option<ShardKey>,
}

/// How a caller gives a call up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelMode {
    /// The call ends now, and the callee hears nothing of it.
    Skip,
    /// The callee is told to stop; its answer ends the call.
    Kill,
    /// The callee is told to stop, and the call ends now.
    KillNoWait,
}

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceled {
    /// The call ended; its caller is to be told.
    Ended,
    /// The callee was told, now or before, and is waited for.
    Awaited,
    /// It was not under way. Its answer may be.
    NotUnderWay,
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
    watch: Arc<Watch>,
    rules: SharedRules,
}

#[derive(Debug, Default)]
struct State {
    registrations: Registrations,
    callees: HashMap<SessionId, Callee>,
    /// For each caller, by its own numbers: who is to answer, and under which number.
    callers: HashMap<SessionId, HashMap<u64, (SessionId, u64)>>,
    /// What the arguments that are kept for other callees cost.
    spare_bytes: usize,
}

#[derive(Debug)]
struct Callee {
    principal: Arc<Principal>,
    mailbox: Mailbox,
    registrations: Vec<RegistrationId>,
    takes_interrupts: bool,
    last_invocation: u64,
    pending: HashMap<u64, Pending>,
}

/// An invocation that is to be answered.
#[derive(Debug)]
struct Pending {
    caller: Caller,
    registration: RegistrationId,
    seat: u64,
    /// The callee was told to stop, and is waited for.
    is_canceled: bool,
    /// What the next part of the arguments needs, if one follows.
    parts: Option<Box<Parts>>,
    /// The call, as long as it may go to another callee.
    spare: Option<Box<Spare>>,
}

#[derive(Clone, Debug)]
struct Parts {
    procedure: Name,
    by_pattern: bool,
}

/// What another callee needs.
#[derive(Debug)]
struct Spare {
    request: Request,
    tried: Vec<SessionId>,
}

/// What is called, and with what.
#[derive(Clone, Debug)]
struct Request {
    registration: RegistrationId,
    procedure: Name,
    payload: Payload,
    attributes: Attributes,
}

impl Request {
    fn cost(&self) -> usize {
        self.payload.len() + self.attributes.bytes() + PUBLICATION_OVERHEAD
    }
}

impl Calls {
    /// Those of a realm without any. The seed decides whom calls of shared procedures go to at random.
    pub fn seeded(seed: u64) -> Calls {
        let registrations = Registrations::seeded(seed);
        let state = Mutex::new(State { registrations, ..State::default() });
        Calls { state, ..Calls::default() }
    }

    /// The same calls, of a realm that is watched so.
    pub fn watched(self, watch: Arc<Watch>) -> Calls {
        Calls { watch, ..self }
    }

    /// The same calls under these rules.
    pub fn under(self, rules: SharedRules) -> Calls {
        Calls { rules, ..self }
    }

    /// Registers a procedure, or all that match a pattern. A procedure that is taken by force is taken from
    /// all who serve it: they are told, and still answer what is under way.
    pub fn register(
        &self,
        pattern: &Pattern,
        session: SessionId,
        mailbox: &Mailbox,
        offer: Offer,
        principal: &Arc<Principal>,
    ) -> Result<RegistrationId, Refusal> {
        let mut state = self.state.lock();
        if offer.force {
            state.revoke(pattern, &self.watch);
        }
        let (id, added) = state.registrations.add(pattern, session, offer, self.watch.time_ms())?;
        if added == Added::Registration
            && let Some(registration) = state.registrations.get(id)
        {
            let created = || Notice::RegistrationCreated(session, registration.facts(id));
            self.watch.tell_about(pattern, created);
        }
        if added != Added::Nothing {
            self.watch.tell_about(pattern, || Notice::Registered(session, id));
        }
        let callee = state.callees.entry(session).or_insert_with(|| Callee {
            principal: principal.clone(),
            mailbox: mailbox.clone(),
            registrations: Vec::new(),
            takes_interrupts: offer.takes_interrupts,
            last_invocation: 0,
            pending: HashMap::new(),
        });
        if !callee.registrations.contains(&id) {
            callee.registrations.push(id);
        }
        Ok(id)
    }

    /// Ends a registration, or a callee's part in it. Calls that are under way are still answered.
    pub fn unregister(&self, id: RegistrationId, session: SessionId) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if !state.unseat(id, session, &self.watch) {
            return Err(Refusal::NoSuchRegistration);
        }
        if let Some(callee) = state.callees.get_mut(&session) {
            // The callee stays: its numbers go on, and calls may be under way.
            callee.registrations.retain(|known| *known != id);
        }
        Ok(())
    }

    /// Takes a callee's part in a registration away, and tells it. True when it had one.
    pub fn revoke(&self, id: RegistrationId, session: SessionId, reason: Arc<str>) -> bool {
        let mut state = self.state.lock();
        let revoked = state.unseat(id, session, &self.watch);
        if revoked && let Some(callee) = state.callees.get_mut(&session) {
            callee.registrations.retain(|known| *known != id);
            callee.mailbox.push(Parcel::RegistrationRevoked { registration: id, reason: Some(reason) });
        }
        revoked
    }

    /// What is known of a registration. Of the router's own nothing is.
    pub fn facts(&self, id: RegistrationId) -> Option<RegistrationFacts> {
        let state = self.state.lock();
        let registration = state.registrations.get(id).filter(|known| !known.is_the_house_s())?;
        Some(registration.facts(id))
    }

    /// The callees of a registration, in the order in which they registered. None of the router's own.
    pub fn callees(&self, id: RegistrationId) -> Vec<SessionId> {
        let state = self.state.lock();
        let registration = state.registrations.get(id).filter(|known| !known.is_the_house_s());
        let seats = registration.into_iter().flat_map(|known| &known.seats);
        seats.map(|seat| seat.session).collect()
    }

    /// All registrations but the router's own, sorted; `count_max` of them, and one more if there are more.
    pub fn list(&self, count_max: usize) -> Vec<(RegistrationId, Pattern)> {
        let mut list = self.state.lock().registrations.list(count_max);
        list.sort_unstable_by_key(|(id, _)| *id);
        list
    }

    /// The number of the registration of this very pattern, if there is one that is not the router's own.
    pub fn get(&self, pattern: &Pattern) -> Option<RegistrationId> {
        let id = self.state.lock().registrations.of(pattern)?;
        self.facts(id).map(|facts| facts.id)
    }

    /// The registration that calls of this procedure go to, if there is one that is not the router's own.
    pub fn best_match(&self, procedure: &str) -> Option<RegistrationId> {
        let id = self.state.lock().registrations.best_match(procedure)?;
        self.facts(id).map(|facts| facts.id)
    }

    /// How many registrations there are, the router's own not counted.
    pub fn registrations(&self) -> usize {
        self.state.lock().registrations.len()
    }

    /// How many calls are under way.
    pub fn pending(&self) -> usize {
        self.state.lock().callees.values().map(|callee| callee.pending.len()).sum()
    }

    /// Calls a procedure. The answer comes as an [`Outcome`] into the caller's mailbox. A callee of a shared
    /// procedure whose mailbox is full is passed over. One that may not serve the procedure is as if it were not
    /// there: its registration may be a pattern that means others too, or older than the rules.
    pub fn call(
        &self,
        caller: Caller,
        procedure: Name,
        payload: Payload,
        attributes: Attributes,
    ) -> Result<(), Refusal> {
        let rules = self.rules.load();
        let mut state = self.state.lock();
        if let Some(calls) = state.callers.get(&caller.session) {
            if calls.contains_key(&caller.call) {
                return Err(Refusal::RequestInUse(caller.call));
            }
            if calls.len() >= CALLS_MAX {
                return Err(Refusal::TooMany("calls of a session under way", CALLS_MAX));
            }
        }
        let Some((registration, passed_over)) = state.find(procedure.as_str(), &rules) else {
            return Err(Refusal::NoSuchProcedure(procedure));
        };
        state.invoke(caller, Request { registration, procedure, payload, attributes }, passed_over)?;
        metrics::CALLS.add(1);
        Ok(())
    }

    /// Passes on more arguments of a call that announced them. False when it is not under way any more. When
    /// the callee does not take them the call has ended.
    pub fn proceed(
        &self,
        session: SessionId,
        call: u64,
        (payload, attributes): (Payload, Attributes),
        more_follows: bool,
    ) -> Result<bool, Refusal> {
        let mut state = self.state.lock();
        let Some((callee, invocation)) = state.invocation_of(session, call) else { return Ok(false) };
        let Some(known) = state.callees.get_mut(&callee) else { return Ok(false) };
        let Some(pending) = known.pending.get_mut(&invocation) else { return Ok(false) };
        let parts = if more_follows { pending.parts.clone() } else { pending.parts.take() };
        let Some(parts) = parts else { return Err(Refusal::RequestInUse(call)) };
        let Parts { procedure, by_pattern } = *parts;
        let pushed = known.mailbox.push(Parcel::Invocation(Box::new(Invocation {
            id: invocation,
            sender: session,
            registration: pending.registration,
            procedure: procedure.clone(),
            by_pattern,
            caller: None,
            trust: pending.caller.principal.trust,
            payload,
            attributes,
            takes_progress: pending.caller.terms.takes_progress,
            timeout: None,
            more_follows,
            continues: true,
        })));
        if pushed != Pushed::Queued {
            state.abandon(callee, invocation);
            return Err(Refusal::Unavailable(procedure));
        }
        Ok(true)
    }

    /// Whether a session waits for the answer to a call under that number of its own.
    pub fn is_calling(&self, session: SessionId, call: u64) -> bool {
        self.state.lock().invocation_of(session, call).is_some()
    }

    /// Whether a session is to answer an invocation.
    pub fn is_invoked(&self, session: SessionId, invocation: u64) -> bool {
        let state = self.state.lock();
        state.callees.get(&session).is_some_and(|callee| callee.pending.contains_key(&invocation))
    }

    /// Answers an invocation. Progress is passed on to a caller that takes it, and does not end the call. One
    /// that the callee is unavailable for goes to another callee, if there is one that was not asked yet.
    pub fn answer(&self, session: SessionId, invocation: u64, result: Result<Answer, Failure>) -> Answered {
        let is_unavailable = result.as_ref().is_err_and(|failure| &*failure.error == UNAVAILABLE);
        self.conclude(session, invocation, result, is_unavailable)
    }

    /// Says that an invocation cannot be brought to its callee. It goes to another one, if there is one.
    pub fn decline(&self, session: SessionId, invocation: u64, failure: Failure) {
        self.conclude(session, invocation, Err(failure), true);
    }

    fn conclude(
        &self,
        session: SessionId,
        invocation: u64,
        mut result: Result<Answer, Failure>,
        declines: bool,
    ) -> Answered {
        let mut state = self.state.lock();
        let Some(callee) = state.callees.get_mut(&session) else { return Answered::NeverInvoked };
        let Some(pending) = callee.pending.get_mut(&invocation) else {
            let sent = (1..=callee.last_invocation).contains(&invocation);
            return if sent { Answered::Ignored } else { Answered::NeverInvoked };
        };
        let (call, mailbox) = (pending.caller.call, pending.caller.mailbox.clone());
        if result.as_ref().is_ok_and(|answer| answer.is_progress) {
            if !pending.caller.terms.takes_progress {
                return Answered::Ignored;
            }
            // Nobody else can go on from here.
            if let Some(spare) = pending.spare.take() {
                state.spare_bytes -= spare.request.cost();
            }
        } else if let Some(Pending { caller, spare, is_canceled, .. }) = state.end(session, invocation)
            && let Some(mut spare) = spare.filter(|_| declines && !is_canceled)
        {
            spare.tried.push(session);
            if state.invoke(caller, spare.request, spare.tried).is_ok() {
                return Answered::Delivered;
            }
            if result.as_ref().is_err_and(|failure| &*failure.error == UNAVAILABLE) {
                result = Err(failure(NO_AVAILABLE_CALLEE, "no callee takes calls at the moment"));
            }
        }
        drop(state);
        mailbox.push(Parcel::Outcome(Box::new(Outcome { call, callee: session, result })));
        Answered::Delivered
    }

    /// Gives a call up. A callee that cannot be told is not waited for either: then every mode is
    /// [`CancelMode::Skip`]. What was given up once is not given up in another way.
    pub fn cancel(&self, session: SessionId, call: u64, mode: CancelMode) -> Canceled {
        let mut state = self.state.lock();
        let Some((callee, invocation)) = state.invocation_of(session, call) else {
            return Canceled::NotUnderWay;
        };
        if state.is_canceled(callee, invocation) {
            return Canceled::Awaited;
        }
        match mode {
            CancelMode::Kill if state.interrupt(callee, invocation, true) => return Canceled::Awaited,
            CancelMode::Skip | CancelMode::Kill => {}
            CancelMode::KillNoWait => drop(state.interrupt(callee, invocation, false)),
        }
        state.end(callee, invocation);
        Canceled::Ended
    }

    /// Ends a call that took too long, also one whose callee was told to stop and is waited for. True when
    /// it was under way.
    pub fn expire(&self, session: SessionId, call: u64) -> bool {
        let mut state = self.state.lock();
        let Some((callee, invocation)) = state.invocation_of(session, call) else { return false };
        state.abandon(callee, invocation);
        true
    }

    /// Ends everything that a session has to do with.
    pub fn leave(&self, session: SessionId) {
        let mut state = self.state.lock();
        let (registrations, waiting) = match state.callees.remove(&session) {
            Some(callee) => (callee.registrations, callee.pending),
            None => Default::default(),
        };
        for id in registrations {
            state.unseat(id, session, &self.watch);
        }
        for pending in waiting.values() {
            state.forget(pending);
        }
        for (callee, invocation) in state.callers.get(&session).cloned().unwrap_or_default().into_values() {
            state.abandon(callee, invocation);
        }
        drop(state);
        for Pending { caller, .. } in waiting.into_values().filter(|known| known.caller.session != session) {
            let result = Err(failure(CANCELED, "the callee left"));
            let outcome = Outcome { call: caller.call, callee: session, result };
            caller.mailbox.push(Parcel::Outcome(Box::new(outcome)));
        }
    }
}

impl State {
    /// Ends a registration, and tells those who had it.
    fn revoke(&mut self, pattern: &Pattern, watch: &Watch) {
        let Some(id) = self.registrations.of(pattern) else { return };
        let mut last = None;
        for seat in self.registrations.end(id) {
            if let Some(callee) = self.callees.get_mut(&seat.session) {
                callee.registrations.retain(|known| *known != id);
                callee.mailbox.push(Parcel::RegistrationRevoked { registration: id, reason: None });
            }
            watch.tell_about(pattern, || Notice::Unregistered(seat.session, id));
            last = Some(seat.session);
        }
        if let Some(last) = last {
            watch.tell_about(pattern, || Notice::RegistrationDeleted(last, id));
        }
    }

    /// Takes a callee's seat away; false if it had none.
    fn unseat(&mut self, id: RegistrationId, session: SessionId, watch: &Watch) -> bool {
        let Some(registration) = self.registrations.get(id) else { return false };
        let pattern = registration.pattern.clone();
        let Some(left) = self.registrations.remove(id, session) else { return false };
        watch.tell_about(&pattern, || Notice::Unregistered(session, id));
        if left == Left::Nobody {
            watch.tell_about(&pattern, || Notice::RegistrationDeleted(session, id));
        }
        true
    }

    /// The registration that serves a procedure best, and which of its callees may not serve it.
    fn find(&self, procedure: &str, rules: &Rules) -> Option<(RegistrationId, Vec<SessionId>)> {
        if !rules.judges_registrations() && !is_reserved(procedure) {
            return Some((self.registrations.best_match(procedure)?, Vec::new()));
        }
        let may_not = |session: &SessionId| {
            self.callees.get(session).is_none_or(|callee| !rules.may_serve(&callee.principal, procedure))
        };
        self.registrations.matches(procedure).into_iter().find_map(|id| {
            let seats = &self.registrations.get(id)?.seats;
            let refused: Vec<_> = seats.iter().map(|seat| seat.session).filter(may_not).collect();
            (refused.len() < seats.len()).then_some((id, refused))
        })
    }

    /// Sends a call to a callee that was not tried yet.
    fn invoke(&mut self, caller: Caller, request: Request, mut tried: Vec<SessionId>) -> Result<(), Refusal> {
        let Request { registration, procedure, .. } = &request;
        let (session, seat, invocation) = loop {
            let CallTerms { more_follows, shard, .. } = caller.terms;
            let chosen = match shard {
                Some(shard) => self.registrations.holder(*registration, shard, &tried, more_follows),
                None => self.registrations.choose(*registration, &tried, more_follows),
            };
            let (session, number, offer) = match chosen {
                Ok(seat) => (seat.session, seat.number, seat.offer),
                Err(NoSeat::Busy) => return Err(Refusal::Busy(procedure.clone())),
                Err(NoSeat::Unfit) => return Err(Refusal::NotInParts(procedure.clone())),
                Err(NoSeat::Tried) => return Err(Refusal::Unavailable(procedure.clone())),
            };
            if let Some(invocation) = self.push_invocation(session, offer, &caller, &request) {
                break (session, number, invocation);
            }
            tried.push(session);
        };
        let registered = self.registrations.get(*registration);
        let by_pattern = registered.is_some_and(|registration| registration.is_pattern());
        let is_shared = registered.is_some_and(|registration| registration.is_shared());
        let more_follows = caller.terms.more_follows;
        let parts = more_follows.then(|| Box::new(Parts { procedure: procedure.clone(), by_pattern }));
        self.registrations.begin(*registration, seat);
        self.callers.entry(caller.session).or_default().insert(caller.call, (session, invocation));
        let registration = *registration;
        let fits = self.spare_bytes + request.cost() <= SPARE_BYTES_MAX;
        let may_move = is_shared && !more_follows && caller.terms.shard.is_none();
        let spare = (may_move && fits).then(|| Box::new(Spare { request, tried }));
        self.spare_bytes += spare.as_ref().map_or(0, |spare| spare.request.cost());
        let pending = Pending { caller, registration, seat, is_canceled: false, parts, spare };
        if let Some(callee) = self.callees.get_mut(&session) {
            callee.pending.insert(invocation, pending);
        }
        Ok(())
    }

    /// Puts an invocation into a callee's mailbox, if there is room for it, and gives its number.
    fn push_invocation(
        &mut self,
        session: SessionId,
        offer: Offer,
        caller: &Caller,
        request: &Request,
    ) -> Option<u64> {
        let terms = caller.terms;
        let registration = self.registrations.get(request.registration)?;
        let callee = self.callees.get_mut(&session)?;
        let is_known = terms.discloses || offer.wants_caller;
        let id = callee.last_invocation + 1;
        let pushed = callee.mailbox.push(Parcel::Invocation(Box::new(Invocation {
            id,
            sender: caller.session,
            registration: request.registration,
            procedure: request.procedure.clone(),
            by_pattern: registration.is_pattern(),
            caller: is_known.then(|| (caller.session, caller.principal.clone())),
            trust: caller.principal.trust,
            payload: request.payload.clone(),
            attributes: request.attributes.clone(),
            takes_progress: terms.takes_progress,
            timeout: terms.timeout.filter(|_| offer.forward_timeout),
            more_follows: terms.more_follows,
            continues: false,
        })));
        if pushed != Pushed::Queued {
            return None;
        }
        callee.last_invocation = id;
        Some(id)
    }

    /// Who is to answer a call, and under which number.
    fn invocation_of(&self, session: SessionId, call: u64) -> Option<(SessionId, u64)> {
        self.callers.get(&session)?.get(&call).copied()
    }

    fn is_canceled(&self, callee: SessionId, invocation: u64) -> bool {
        let pending = self.callees.get(&callee).and_then(|callee| callee.pending.get(&invocation));
        pending.is_some_and(|pending| pending.is_canceled)
    }

    /// Tells a callee to stop, if it can be told.
    fn interrupt(&mut self, callee: SessionId, invocation: u64, is_awaited: bool) -> bool {
        let Some(callee) = self.callees.get_mut(&callee).filter(|callee| callee.takes_interrupts) else {
            return false;
        };
        if let Some(pending) = callee.pending.get_mut(&invocation) {
            pending.is_canceled = true;
            let caller = pending.caller.session;
            callee.mailbox.push(Parcel::Interrupt { invocation, caller, is_awaited });
        }
        true
    }

    /// Ends an invocation that nobody waits for any more, and tells its callee, if it does not know.
    fn abandon(&mut self, callee: SessionId, invocation: u64) {
        if !self.is_canceled(callee, invocation) {
            self.interrupt(callee, invocation, false);
        }
        self.end(callee, invocation);
    }

    fn end(&mut self, callee: SessionId, invocation: u64) -> Option<Pending> {
        let pending = self.callees.get_mut(&callee)?.pending.remove(&invocation)?;
        self.forget(&pending);
        Some(pending)
    }

    /// Gives back what an invocation took.
    fn forget(&mut self, pending: &Pending) {
        self.forget_call(&pending.caller);
        self.registrations.finish(pending.registration, pending.seat);
        self.spare_bytes -= pending.spare.as_ref().map_or(0, |spare| spare.request.cost());
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::core::mailbox::{Bounds, Inbox, Overflow, mailbox};
    use crate::core::testing::{UNIT, exact, large_mailbox, name, payload, take};

    struct Peer {
        id: SessionId,
        mailbox: Mailbox,
        inbox: Inbox,
    }

    const OFFER: Offer = Offer {
        policy: Policy::Single,
        concurrency: None,
        force: false,
        takes_interrupts: true,
        takes_parts: false,
        forward_timeout: false,
        wants_caller: false,
    };

    /// What a peer was told.
    #[derive(Debug, PartialEq, Eq)]
    enum Told {
        Invoked(u64),
        Interrupted(u64, bool),
        Result(u64),
        Error(u64, String),
        Revoked(RegistrationId),
    }

    impl Peer {
        fn new(number: u64) -> Peer {
            let (mailbox, inbox) = large_mailbox();
            Peer { id: SessionId(number), mailbox, inbox }
        }

        fn register(&self, calls: &Calls, procedure: &str) -> Result<RegistrationId, Refusal> {
            calls.register(&exact(procedure), self.id, &self.mailbox, OFFER, &joe())
        }

        fn call(&self, calls: &Calls, call: u64, procedure: &str) -> Result<(), Refusal> {
            let terms = CallTerms { takes_progress: call >= TAKES_PROGRESS, ..CallTerms::default() };
            self.call_on(calls, call, procedure, terms)
        }

        fn call_on(
            &self,
            calls: &Calls,
            call: u64,
            procedure: &str,
            terms: CallTerms,
        ) -> Result<(), Refusal> {
            let caller =
                Caller { session: self.id, principal: joe(), call, mailbox: self.mailbox.clone(), terms };
            calls.call(caller, name(procedure), payload(), Attributes::default())
        }

        fn answer(&self, calls: &Calls, invocation: u64) -> Answered {
            calls.answer(self.id, invocation, Ok(answer()))
        }

        fn told(&mut self) -> Vec<Told> {
            let told = |parcel| match parcel {
                Parcel::Invocation(invocation) => Told::Invoked(invocation.id),
                Parcel::Interrupt { invocation, is_awaited, .. } => Told::Interrupted(invocation, is_awaited),
                Parcel::RegistrationRevoked { registration, .. } => Told::Revoked(registration),
                Parcel::Outcome(outcome) => match outcome.result {
                    Ok(_) => Told::Result(outcome.call),
                    Err(failure) => Told::Error(outcome.call, failure.error.to_string()),
                },
                other => panic!("unexpected: {other:?}"),
            };
            take(&mut self.inbox).into_iter().map(told).collect()
        }
    }

    fn joe() -> Arc<Principal> {
        Arc::new(Principal::new("joe", "user", "ticket"))
    }

    fn answer() -> Answer {
        Answer { payload: payload(), attributes: Attributes::default(), is_progress: false }
    }

    /// Calls of the tests from this number on take progress.
    const TAKES_PROGRESS: u64 = 1 << 60;

    #[test]
    fn progress_reaches_a_caller_that_takes_it_and_ends_nothing() {
        let calls = Calls::default();
        let (callee, mut caller) = (Peer::new(1), Peer::new(2));
        callee.register(&calls, "p").unwrap();
        let progress = || Ok(Answer { is_progress: true, ..answer() });
        caller.call(&calls, TAKES_PROGRESS, "p").unwrap();
        caller.call(&calls, 7, "p").unwrap();
        assert_eq!(calls.answer(callee.id, 1, progress()), Answered::Delivered);
        assert_eq!(calls.answer(callee.id, 2, progress()), Answered::Ignored);
        assert_eq!(calls.answer(callee.id, 1, progress()), Answered::Delivered);
        assert_eq!(callee.answer(&calls, 1), Answered::Delivered);
        assert_eq!(callee.answer(&calls, 2), Answered::Delivered);
        assert_eq!(calls.answer(callee.id, 1, progress()), Answered::Ignored);
        let results = [TAKES_PROGRESS, TAKES_PROGRESS, TAKES_PROGRESS, 7].map(Told::Result);
        assert_eq!(caller.told(), results);
        calls.leave(callee.id);
        assert_nothing_is_left(&calls);
    }

    fn canceled(call: u64) -> Told {
        Told::Error(call, CANCELED.into())
    }

    fn assert_nothing_is_left(calls: &Calls) {
        let state = calls.state.lock();
        assert!(state.registrations.is_empty());
        assert_eq!(state.spare_bytes, 0);
        assert!(state.callees.is_empty() && state.callers.is_empty());
    }

    /// A callee of `p` and a caller.
    fn pair() -> (Calls, Peer, Peer) {
        let (calls, callee, caller) = (Calls::default(), Peer::new(1), Peer::new(2));
        callee.register(&calls, "p").unwrap();
        (calls, callee, caller)
    }

    #[test]
    fn a_call_gets_one_answer() {
        let (calls, mut callee, mut caller) = pair();
        caller.call(&calls, 7, "p").unwrap();
        assert_eq!((callee.told(), calls.pending()), (vec![Told::Invoked(1)], 1));
        assert_eq!(callee.answer(&calls, 1), Answered::Delivered);
        assert_eq!(callee.answer(&calls, 1), Answered::Ignored);
        assert_eq!(caller.told(), [Told::Result(7)]);
        assert_eq!(calls.pending(), 0);
    }

    #[test]
    fn nobody_else_can_answer() {
        let (calls, mut callee, mut caller) = pair();
        let stranger = Peer::new(3);
        let rival = Peer::new(4);
        rival.register(&calls, "other").unwrap();
        caller.call(&calls, 7, "p").unwrap();
        assert_eq!(callee.told(), [Told::Invoked(1)]);
        for other in [&stranger, &rival, &caller] {
            assert_eq!(other.answer(&calls, 1), Answered::NeverInvoked);
        }
        assert_eq!(caller.told(), []);
        assert_eq!(callee.answer(&calls, 1), Answered::Delivered);
    }

    #[test]
    fn an_answer_to_what_was_never_asked_is_told_from_one_that_nobody_waits_for() {
        let (calls, callee, caller) = pair();
        assert_eq!(callee.answer(&calls, 1), Answered::NeverInvoked);
        caller.call(&calls, 7, "p").unwrap();
        assert!(calls.expire(caller.id, 7));
        assert_eq!(callee.answer(&calls, 1), Answered::Ignored);
        assert_eq!(callee.answer(&calls, 2), Answered::NeverInvoked);
    }

    #[test]
    fn a_call_whose_callee_leaves_is_canceled() {
        let (calls, callee, mut caller) = pair();
        caller.call(&calls, 7, "p").unwrap();
        caller.call(&calls, 8, "p").unwrap();
        calls.leave(callee.id);
        let mut told = caller.told();
        told.sort_by_key(|told| matches!(told, Told::Error(8, _)));
        assert_eq!(told, [canceled(7), canceled(8)]);
        assert_eq!(caller.call(&calls, 9, "p"), Err(Refusal::NoSuchProcedure(name("p"))));
        assert_nothing_is_left(&calls);
    }

    #[test]
    fn a_callee_is_told_when_its_caller_leaves_or_gives_up() {
        let (calls, mut callee, mut caller) = pair();
        caller.call(&calls, 7, "p").unwrap();
        caller.call(&calls, 8, "p").unwrap();
        assert!(calls.expire(caller.id, 7));
        assert!(!calls.expire(caller.id, 7));
        assert!(!calls.expire(callee.id, 8), "not its call");
        calls.leave(caller.id);
        let told =
            [Told::Invoked(1), Told::Invoked(2), Told::Interrupted(1, false), Told::Interrupted(2, false)];
        assert_eq!(callee.told(), told);
        assert_eq!(callee.answer(&calls, 2), Answered::Ignored);
        assert_eq!(caller.told(), []);
        calls.leave(callee.id);
        assert_nothing_is_left(&calls);
    }

    #[test]
    fn a_call_under_way_is_answered_after_its_registration_ended() {
        let (calls, callee, mut caller) = pair();
        let id = callee.register(&calls, "q").unwrap();
        caller.call(&calls, 7, "q").unwrap();
        assert_eq!(calls.unregister(id, caller.id), Err(Refusal::NoSuchRegistration));
        assert_eq!(calls.unregister(id, callee.id), Ok(()));
        assert_eq!(calls.unregister(id, callee.id), Err(Refusal::NoSuchRegistration));
        assert_eq!(calls.registrations(), 1);
        assert_eq!(caller.call(&calls, 8, "q"), Err(Refusal::NoSuchProcedure(name("q"))));
        assert_eq!(callee.answer(&calls, 1), Answered::Delivered);
        assert_eq!(caller.told(), [Told::Result(7)]);
        let next = caller.register(&calls, "q").unwrap();
        assert_ne!(next, id);
    }

    #[test]
    fn a_request_number_can_be_used_again_once_its_call_ended() {
        let (calls, mut callee, mut caller) = pair();
        caller.call(&calls, 7, "p").unwrap();
        assert_eq!(caller.call(&calls, 7, "p"), Err(Refusal::RequestInUse(7)));
        Peer::new(3).call(&calls, 7, "p").unwrap();
        assert!(calls.expire(caller.id, 7));
        caller.call(&calls, 7, "p").unwrap();
        let told =
            [1, 2].map(Told::Invoked).into_iter().chain([Told::Interrupted(1, false), Told::Invoked(3)]);
        assert_eq!(callee.told(), told.collect::<Vec<_>>());
        assert_eq!(callee.answer(&calls, 1), Answered::Ignored, "the number is the new call's");
        assert_eq!(callee.answer(&calls, 3), Answered::Delivered);
        assert_eq!(caller.told(), [Told::Result(7)]);
    }

    #[test]
    fn a_session_that_calls_itself_leaves_nothing_behind() {
        let (calls, mut callee, _) = pair();
        callee.call(&calls, 1, "p").unwrap();
        callee.call(&calls, 2, "p").unwrap();
        assert_eq!(callee.answer(&calls, 1), Answered::Delivered);
        calls.leave(callee.id);
        assert_eq!(callee.told(), [Told::Invoked(1), Told::Invoked(2), Told::Result(1)]);
        assert_nothing_is_left(&calls);
    }

    #[test]
    fn the_best_match_is_invoked() {
        let (calls, mut callee, caller) = pair();
        let mut other = Peer::new(3);
        calls.register(&Pattern::prefix("p").unwrap(), other.id, &other.mailbox, OFFER, &joe()).unwrap();
        let again = callee.register(&calls, "p");
        assert_eq!(again, Err(Refusal::ProcedureExists(exact("p").to_string())));
        caller.call(&calls, 1, "p").unwrap();
        caller.call(&calls, 2, "p.q").unwrap();
        assert_eq!((callee.told(), other.told()), (vec![Told::Invoked(1)], vec![Told::Invoked(1)]));
    }

    #[test]
    fn a_call_to_a_callee_that_does_not_read_fails_at_once() {
        let calls = Calls::default();
        let bounds = Bounds { bytes_soft_max: UNIT, bytes_max: UNIT, overflow: Overflow::Disconnect };
        let (full, inbox) = mailbox(bounds);
        calls.register(&exact("p"), SessionId(1), &full, OFFER, &joe()).unwrap();
        let caller = Peer::new(2);
        caller.call(&calls, 1, "p").unwrap();
        assert_eq!(caller.call(&calls, 2, "p"), Err(Refusal::Unavailable(name("p"))));
        drop(inbox);
        assert_eq!(caller.call(&calls, 3, "p"), Err(Refusal::Unavailable(name("p"))));
        assert_eq!(calls.pending(), 1);
        calls.leave(caller.id);
        calls.leave(SessionId(1));
        assert_nothing_is_left(&calls);
    }

    #[test]
    fn a_session_has_no_more_calls_under_way_than_it_may() {
        let (calls, mut callee, caller) = pair();
        for call in 0..CALLS_MAX as u64 {
            caller.call(&calls, call, "p").unwrap();
        }
        let refused = caller.call(&calls, u64::MAX, "p");
        assert_eq!(refused, Err(Refusal::TooMany("calls of a session under way", CALLS_MAX)));
        assert_eq!(callee.told().len(), CALLS_MAX);
        assert_eq!(callee.answer(&calls, 1), Answered::Delivered);
        caller.call(&calls, u64::MAX, "p").unwrap();
        calls.leave(callee.id);
        assert_nothing_is_left(&calls);
    }

    #[test]
    fn a_call_is_given_up_in_three_ways() {
        use CancelMode::{Kill, KillNoWait, Skip};
        let (calls, mut callee, mut caller) = pair();
        for (call, mode, canceled, told) in [
            (1, Skip, Canceled::Ended, None),
            (2, Kill, Canceled::Awaited, Some(Told::Interrupted(2, true))),
            (3, KillNoWait, Canceled::Ended, Some(Told::Interrupted(3, false))),
        ] {
            caller.call(&calls, call, "p").unwrap();
            assert_eq!(calls.cancel(callee.id, call, mode), Canceled::NotUnderWay, "not its call");
            assert_eq!(calls.cancel(caller.id, call, mode), canceled);
            let expected: Vec<_> = [Told::Invoked(call)].into_iter().chain(told).collect();
            assert_eq!(callee.told(), expected);
        }
        // Once is enough, and what ended cannot be given up.
        for mode in [Skip, Kill, KillNoWait] {
            assert_eq!(calls.cancel(caller.id, 2, mode), Canceled::Awaited);
            assert_eq!(calls.cancel(caller.id, 1, mode), Canceled::NotUnderWay);
        }
        let answered = [1, 2, 3].map(|invocation| callee.answer(&calls, invocation));
        assert_eq!(answered, [Answered::Ignored, Answered::Delivered, Answered::Ignored]);
        assert_eq!((caller.told(), callee.told()), (vec![Told::Result(2)], vec![]));
        calls.leave(callee.id);
        assert_nothing_is_left(&calls);
    }

    #[test]
    fn a_callee_that_cannot_be_told_is_not_waited_for() {
        let (calls, mut callee, caller) = (Calls::default(), Peer::new(1), Peer::new(2));
        calls.register(&exact("p"), callee.id, &callee.mailbox, Offer::default(), &joe()).unwrap();
        for (call, mode) in [(1, CancelMode::Skip), (2, CancelMode::Kill), (3, CancelMode::KillNoWait)] {
            caller.call(&calls, call, "p").unwrap();
            assert_eq!(calls.cancel(caller.id, call, mode), Canceled::Ended);
            assert_eq!(callee.told(), [Told::Invoked(call)]);
            assert_eq!(callee.answer(&calls, call), Answered::Ignored);
        }
        caller.call(&calls, 4, "p").unwrap();
        calls.leave(caller.id);
        assert_eq!(callee.told(), [Told::Invoked(4)]);
        calls.leave(callee.id);
        assert_nothing_is_left(&calls);
    }

    #[test]
    fn waiting_for_a_callee_that_was_told_ends_by_time_or_with_either_of_the_two() {
        let (calls, mut callee, mut caller) = pair();
        for call in [1, 2, 3] {
            caller.call(&calls, call, "p").unwrap();
            calls.cancel(caller.id, call, CancelMode::Kill);
        }
        let other = Peer::new(3);
        other.call(&calls, 1, "p").unwrap();
        calls.cancel(other.id, 1, CancelMode::Kill);
        callee.told();
        assert!(calls.expire(caller.id, 1));
        calls.leave(other.id);
        assert_eq!((callee.told(), calls.pending()), (vec![], 2), "it was told once");
        calls.leave(callee.id);
        assert_eq!(caller.told().len(), 2);
        assert_nothing_is_left(&calls);
    }

    const SHARED: Offer = Offer { policy: Policy::First, ..OFFER };

    #[test]
    fn no_more_callees_share_a_procedure_than_may() {
        let calls = Calls::default();
        let (mailbox, _inbox) = large_mailbox();
        let register = |number| calls.register(&exact("p"), SessionId(number), &mailbox, SHARED, &joe());
        for number in 1..=CALLEES_MAX as u64 {
            assert_eq!(register(number), Ok(RegistrationId(1)));
        }
        let refused = Err(Refusal::TooMany("callees of a procedure", CALLEES_MAX));
        assert_eq!(register(0), refused);
        assert_eq!(register(1), Ok(RegistrationId(1)), "it has its place");
        calls.leave(SessionId(7));
        assert_eq!(register(0), Ok(RegistrationId(1)));
        (0..=CALLEES_MAX as u64).for_each(|number| calls.leave(SessionId(number)));
        assert_nothing_is_left(&calls);
    }

    #[test]
    fn what_is_too_large_to_be_kept_goes_to_one_callee_only() {
        let (calls, mut caller) = (Calls::default(), Peer::new(1));
        let mut callees = [2, 3].map(Peer::new);
        for callee in &callees {
            calls.register(&exact("p"), callee.id, &callee.mailbox, SHARED, &joe()).unwrap();
        }
        let large = Payload::new(Content::Opaque(vec![0; SPARE_BYTES_MAX].into()));
        let unavailable = || Err(failure(UNAVAILABLE, ""));
        for (call, payload) in [(1, large), (2, payload())] {
            let principal = Arc::new(Principal::new("joe", "user", "ticket"));
            let (session, mailbox) = (caller.id, caller.mailbox.clone());
            let caller = Caller { session, principal, call, mailbox, terms: CallTerms::default() };
            calls.call(caller, name("p"), payload, Attributes::default()).unwrap();
            calls.answer(callees[0].id, call, unavailable());
        }
        assert_eq!(caller.told(), [Told::Error(1, UNAVAILABLE.into())]);
        assert_eq!(callees[1].told(), [Told::Invoked(1)]);
        calls.answer(callees[1].id, 1, unavailable());
        assert_eq!(caller.told(), [Told::Error(2, NO_AVAILABLE_CALLEE.into())]);
        callees.iter_mut().for_each(|callee| calls.leave(callee.id));
        assert_nothing_is_left(&calls);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Register,
        Unregister,
        Call,
        Answer,
        Expire,
        Cancel(CancelMode),
        Leave,
    }

    /// What a model expects of one peer.
    #[derive(Default)]
    struct Modelled {
        registrations: Vec<(RegistrationId, String)>,
        /// By number: the caller and its number.
        invoked: BTreeMap<u64, (usize, u64)>,
        /// Those of them that it was told to stop.
        stopped: BTreeSet<u64>,
        last_invocation: u64,
        last_call: u64,
        expected: Vec<Told>,
    }

    fn step(calls: &Calls, peers: &mut [(Peer, Modelled)], action: &Action, who: usize, any: usize) {
        let procedure = format!("p{}", any % 4);
        let owner = |peers: &[(Peer, Modelled)]| {
            peers.iter().position(|(_, known)| known.registrations.iter().any(|(_, p)| *p == procedure))
        };
        match action {
            Action::Register => {
                let free = owner(peers).is_none();
                let (peer, known) = &mut peers[who];
                let registered = peer.register(calls, &procedure);
                assert_eq!(registered.is_ok(), free);
                known.registrations.extend(registered.map(|id| (id, procedure)));
            }
            Action::Unregister => {
                let (peer, known) = &mut peers[who];
                if !known.registrations.is_empty() {
                    let place = any % known.registrations.len();
                    let (id, _) = known.registrations.swap_remove(place);
                    assert_eq!(calls.unregister(id, peer.id), Ok(()));
                }
            }
            Action::Call => {
                let callee = owner(peers);
                let (peer, known) = &mut peers[who];
                known.last_call += 1;
                let call = known.last_call;
                assert_eq!(peer.call(calls, call, &procedure).is_ok(), callee.is_some());
                if let Some(callee) = callee {
                    let known = &mut peers[callee].1;
                    known.last_invocation += 1;
                    known.invoked.insert(known.last_invocation, (who, call));
                    known.expected.push(Told::Invoked(known.last_invocation));
                }
            }
            Action::Answer => {
                let (peer, known) = &mut peers[who];
                let number = any as u64 % (known.last_invocation + 2);
                let answered = peer.answer(calls, number);
                if let Some((caller, call)) = known.invoked.remove(&number) {
                    assert_eq!(answered, Answered::Delivered);
                    peers[caller].1.expected.push(Told::Result(call));
                } else if (1..=known.last_invocation).contains(&number) {
                    assert_eq!(answered, Answered::Ignored);
                } else {
                    assert_eq!(answered, Answered::NeverInvoked);
                }
            }
            Action::Expire => {
                let call = any as u64 % (peers[who].1.last_call + 1);
                let under_way = interrupt_in(peers, |caller, number| caller == who && number == call);
                assert_eq!(calls.expire(peers[who].0.id, call), under_way);
            }
            Action::Cancel(mode) => {
                let call = any as u64 % (peers[who].1.last_call + 1);
                assert_eq!(calls.cancel(peers[who].0.id, call, *mode), cancel_in(peers, (who, call), *mode));
            }
            Action::Leave => {
                calls.leave(peers[who].0.id);
                let gone = std::mem::take(&mut peers[who].1);
                for (caller, call) in gone.invoked.into_values().filter(|(caller, _)| *caller != who) {
                    peers[caller].1.expected.push(canceled(call));
                }
                interrupt_in(peers, |caller, _| caller == who);
                take(&mut peers[who].0.inbox);
            }
        }
    }

    fn cancel_in(peers: &mut [(Peer, Modelled)], call: (usize, u64), mode: CancelMode) -> Canceled {
        let find = |(_, known): &&mut (Peer, Modelled)| known.invoked.values().any(|known| *known == call);
        let Some((_, known)) = peers.iter_mut().find(find) else { return Canceled::NotUnderWay };
        let number = known.invoked.iter().find(|(_, known)| **known == call).map(|(number, _)| *number);
        let number = number.unwrap();
        if known.stopped.contains(&number) {
            return Canceled::Awaited;
        }
        if mode != CancelMode::Skip {
            known.stopped.insert(number);
            known.expected.push(Told::Interrupted(number, mode == CancelMode::Kill));
        }
        if mode == CancelMode::Kill {
            return Canceled::Awaited;
        }
        known.invoked.remove(&number);
        Canceled::Ended
    }

    fn interrupt_in(peers: &mut [(Peer, Modelled)], is: impl Fn(usize, u64) -> bool) -> bool {
        let mut found = false;
        for (_, known) in peers {
            let gone = known.invoked.extract_if(.., |_, (caller, call)| is(*caller, *call));
            for (number, _) in gone {
                if !known.stopped.contains(&number) {
                    known.expected.push(Told::Interrupted(number, false));
                }
                found = true;
            }
        }
        found
    }

    fn compare(peers: &mut [(Peer, Modelled)]) {
        let key = |told: &Told| format!("{told:?}");
        for (peer, known) in peers {
            // Several calls that end together end in any order.
            let (mut told, mut expected) = (peer.told(), std::mem::take(&mut known.expected));
            told.sort_by_key(key);
            expected.sort_by_key(key);
            assert_eq!(told, expected);
        }
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            3 => Just(Action::Register),
            1 => Just(Action::Unregister),
            9 => Just(Action::Call),
            6 => Just(Action::Answer),
            1 => Just(Action::Expire),
            1 => Just(Action::Cancel(CancelMode::Skip)),
            2 => Just(Action::Cancel(CancelMode::Kill)),
            1 => Just(Action::Cancel(CancelMode::KillNoWait)),
            1 => Just(Action::Leave),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 1000, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_left_over_after_any_dialogue(
            steps in proptest::collection::vec((action(), 0..5_usize, any::<usize>()), 10_000)
        ) {
            let calls = Calls::default();
            let mut peers: Vec<_> = (1..=5).map(|n| (Peer::new(n), Modelled::default())).collect();
            for (action, who, any) in &steps {
                step(&calls, &mut peers, action, *who, *any);
                compare(&mut peers);
                let pending: usize = peers.iter().map(|(_, known)| known.invoked.len()).sum();
                assert_eq!(calls.pending(), pending);
            }
            for who in 0..5 {
                step(&calls, &mut peers, &Action::Leave, who, 0);
                compare(&mut peers);
            }
            assert_nothing_is_left(&calls);
        }
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Offer(Offer),
        Unregister,
        Call { more_follows: bool },
        Proceed { more_follows: bool },
        Answer(Option<&'static str>),
        Cancel(CancelMode),
        Expire,
        Leave,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let modes = prop_oneof![Just(CancelMode::Skip), Just(CancelMode::Kill), Just(CancelMode::KillNoWait)];
        let policies = prop_oneof![
            1 => Just(Policy::Single),
            3 => Just(Policy::First),
            3 => Just(Policy::RoundRobin),
            3 => Just(Policy::Random),
        ];
        let offer = (policies, 0..8_u8, any::<bool>()).prop_map(|(policy, dice, takes_parts)| Offer {
            policy,
            concurrency: Some(BUSY),
            force: dice == 0,
            takes_parts,
            ..OFFER
        });
        prop_oneof![
            5 => offer.prop_map(Deed::Offer),
            1 => Just(Deed::Unregister),
            9 => any::<bool>().prop_map(|more_follows| Deed::Call { more_follows }),
            3 => any::<bool>().prop_map(|more_follows| Deed::Proceed { more_follows }),
            4 => Just(Deed::Answer(None)),
            4 => Just(Deed::Answer(Some(UNAVAILABLE))),
            1 => Just(Deed::Answer(Some("x.error"))),
            2 => modes.prop_map(Deed::Cancel),
            1 => Just(Deed::Expire),
            1 => Just(Deed::Leave),
        ]
    }

    /// How many invocations a callee takes, in the tests of shared procedures.
    const BUSY: u64 = 2;

    /// Peers, the registrations and invocations that each was told of, and the calls that await their end.
    struct Crowd {
        calls: Calls,
        peers: Vec<(Peer, Vec<RegistrationId>, Vec<u64>)>,
        owed: BTreeSet<(usize, u64)>,
        last_call: u64,
    }

    impl Crowd {
        fn new() -> Crowd {
            let peers = (1..=5).map(|number| (Peer::new(number), Vec::new(), Vec::new())).collect();
            Crowd { calls: Calls::default(), peers, owed: BTreeSet::new(), last_call: 0 }
        }

        fn act(&mut self, deed: &Deed, who: usize, any: usize) {
            let procedure = format!("p{}", any % 3);
            let recent = self.last_call.saturating_sub(any as u64 % 16);
            let (peer, registrations, invoked) = &mut self.peers[who];
            match deed {
                Deed::Offer(offer) => {
                    let pattern = exact(&procedure);
                    let registered = self.calls.register(&pattern, peer.id, &peer.mailbox, *offer, &joe());
                    assert!(registered.is_ok() || !offer.force);
                    registrations.extend(registered);
                }
                Deed::Unregister => {
                    if let Some(id) = registrations.pop() {
                        let _known = self.calls.unregister(id, peer.id);
                    }
                }
                Deed::Call { more_follows } => {
                    self.last_call += 1;
                    let terms = CallTerms { more_follows: *more_follows, ..CallTerms::default() };
                    if peer.call_on(&self.calls, self.last_call, &procedure, terms).is_ok() {
                        self.owed.insert((who, self.last_call));
                    }
                }
                Deed::Proceed { more_follows } => {
                    let arguments = (payload(), Attributes::default());
                    let proceeded = self.calls.proceed(peer.id, recent, arguments, *more_follows);
                    assert_eq!(proceeded == Ok(false), !self.owed.contains(&(who, recent)));
                }
                Deed::Answer(error) => {
                    let Some(number) = invoked.get(any % invoked.len().max(1)) else { return };
                    let result = error.map_or(Ok(answer()), |error| Err(failure(error, "")));
                    assert_ne!(self.calls.answer(peer.id, *number, result), Answered::NeverInvoked);
                }
                Deed::Cancel(mode) => {
                    let canceled = self.calls.cancel(peer.id, recent, *mode);
                    let was_owed = match canceled {
                        Canceled::Ended => self.owed.remove(&(who, recent)),
                        Canceled::Awaited | Canceled::NotUnderWay => self.owed.contains(&(who, recent)),
                    };
                    assert_eq!(was_owed, canceled != Canceled::NotUnderWay);
                }
                Deed::Expire => {
                    assert_eq!(self.calls.expire(peer.id, recent), self.owed.remove(&(who, recent)));
                }
                Deed::Leave => {
                    self.calls.leave(peer.id);
                    take(&mut peer.inbox);
                    registrations.clear();
                    invoked.clear();
                    self.owed.retain(|(caller, _)| *caller != who);
                }
            }
        }

        fn check(&mut self) {
            for (who, (peer, _, invoked)) in self.peers.iter_mut().enumerate() {
                for told in peer.told() {
                    match told {
                        Told::Invoked(number) if invoked.contains(&number) => {}
                        Told::Invoked(number) => invoked.push(number),
                        Told::Result(call) | Told::Error(call, _) => assert!(self.owed.remove(&(who, call))),
                        Told::Interrupted(..) | Told::Revoked(_) => {}
                    }
                }
            }
            assert_eq!(self.calls.pending(), self.owed.len());
            let state = self.calls.state.lock();
            let mut seats: BTreeMap<u64, u64> = BTreeMap::new();
            for pending in state.callees.values().flat_map(|callee| callee.pending.values()) {
                *seats.entry(pending.seat).or_default() += 1;
            }
            assert!(seats.values().all(|under_way| *under_way <= BUSY));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 1000, ..ProptestConfig::default() })]

        #[test]
        fn every_call_of_a_shared_procedure_ends_once(
            deeds in proptest::collection::vec((deed(), 0..5_usize, any::<usize>()), 5_000)
        ) {
            let mut crowd = Crowd::new();
            for (deed, who, any) in &deeds {
                crowd.act(deed, *who, *any);
                crowd.check();
            }
            for who in 0..5 {
                crowd.act(&Deed::Leave, who, 0);
                crowd.check();
            }
            assert_nothing_is_left(&crowd.calls);
        }
    }
}

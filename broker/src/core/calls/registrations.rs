//! Who serves which procedure, and who of several callees is the next to be invoked.
//!
//! Callees that register under one policy share a registration. A callee that may have no more invocations
//! under way is passed over; so is one that was tried before for the same call.

use std::collections::HashMap;

use crate::core::access::Refusal;
use crate::core::index::Index;
use crate::core::message::SessionId;
use crate::core::name::{MatchKind, Pattern};
pub use crate::core::notice::Policy;
use crate::core::notice::RegistrationFacts;
use crate::core::parcel::RegistrationId;
use crate::core::reserved::{is_reserved, reaches};
use crate::core::shard::{ShardKey, mix};

/// How many callees may share a procedure. A call passes over all of them when all are busy.
pub const CALLEES_MAX: usize = 4096;

/// What a callee offers beside a procedure, and how it wants to be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Whether others may serve the procedure too.
    pub policy: Policy,
    /// How many invocations of the procedure it takes at a time. One counts until it is answered, or until
    /// its caller does not wait any more.
    pub concurrency: Option<u64>,
    /// It takes the procedure away from whoever serves it.
    pub force: bool,
    /// The session can be told that an invocation is not wanted any more.
    pub takes_interrupts: bool,
    /// The session takes arguments as they come, before the last ones.
    pub takes_parts: bool,
    /// The callee is told how long its callers wait.
    pub forward_timeout: bool,
    /// The callee is told who calls, whether callers like it or not.
    pub wants_caller: bool,
}

/// A callee's place in a registration.
#[derive(Debug)]
pub(super) struct Seat {
    /// Tells it apart from all others that ever were.
    pub(super) number: u64,
    pub(super) session: SessionId,
    pub(super) offer: Offer,
    under_way: u64,
}

#[derive(Debug)]
pub(super) struct Registration {
    pub(super) pattern: Pattern,
    policy: Policy,
    created_ms: u64,
    /// In the order of their registration; at least one.
    pub(super) seats: Vec<Seat>,
    /// Whose turn it is, under the policy of turns.
    next: usize,
}

/// What became of a callee that wanted a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It has one already.
    Nothing,
    /// It has one beside others.
    Seat,
    /// It has the first one.
    Registration,
}

/// What is left when a callee's seat was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Others.
    Some,
    /// Nothing: the registration ended.
    Nobody,
}

/// Why nobody can be invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// All were tried.
    Tried,
    /// All that were not tried have as much to do as they may.
    Busy,
    /// None takes arguments in parts.
    Unfit,
}

#[derive(Debug, Default)]
pub(super) struct Registrations {
    index: Index<RegistrationId>,
    by_id: HashMap<RegistrationId, Registration>,
    last: u64,
    last_seat: u64,
    /// The state of the dice.
    chance: u64,
}

impl Registrations {
    pub(super) fn seeded(seed: u64) -> Registrations {
        Registrations { chance: seed, ..Registrations::default() }
    }

    /// How many there are, the router's own not counted.
    pub(super) fn len(&self) -> usize {
        self.by_id.values().filter(|registration| !registration.is_the_house_s()).count()
    }

    /// Those that are not the router's own, in no order; `count_max` of them, and one more if there are more.
    pub(super) fn list(&self, count_max: usize) -> Vec<(RegistrationId, Pattern)> {
        let others = self.by_id.iter().filter(|(_, registration)| !registration.is_the_house_s());
        let all = others.map(|(id, registration)| (*id, registration.pattern.clone()));
        all.take(count_max.saturating_add(1)).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty() && self.by_id.is_empty()
    }

    pub(super) fn of(&self, pattern: &Pattern) -> Option<RegistrationId> {
        self.index.get(pattern).copied()
    }

    /// The registration that a call goes to. One of a reserved name goes only to who registered within that part
    /// of the address space.
    pub(super) fn best_match(&self, procedure: &str) -> Option<RegistrationId> {
        match is_reserved(procedure) {
            false => self.index.best_match(procedure).copied(),
            true => self.matches(procedure).first().copied(),
        }
    }

    /// All that match, the best first.
    pub(super) fn matches(&self, procedure: &str) -> Vec<RegistrationId> {
        let mut found = Vec::new();
        self.index.for_each_match(procedure, |id| {
            if self.by_id.get(id).is_some_and(|known| reaches(&known.pattern, procedure)) {
                found.push(*id);
            }
        });
        // The index goes from short prefixes to long ones.
        let is_prefix = |id: &RegistrationId| {
            self.by_id.get(id).is_some_and(|known| known.pattern.kind() == MatchKind::Prefix)
        };
        let start = found.iter().position(is_prefix).unwrap_or(found.len());
        let count = found[start..].iter().take_while(|id| is_prefix(id)).count();
        found[start..start + count].reverse();
        found
    }

    pub(super) fn get(&self, id: RegistrationId) -> Option<&Registration> {
        self.by_id.get(&id)
    }

    /// Gives a callee a seat. Where it has one already, nothing changes.
    pub(super) fn add(
        &mut self,
        pattern: &Pattern,
        session: SessionId,
        offer: Offer,
        created_ms: u64,
    ) -> Result<(RegistrationId, Added), Refusal> {
        let seat = Seat { number: self.last_seat + 1, session, offer, under_way: 0 };
        let Some(id) = self.of(pattern) else {
            let id = RegistrationId(self.last + 1);
            self.index.insert(pattern, id)?;
            self.last += 1;
            self.last_seat += 1;
            let policy = offer.policy;
            let (pattern, seats) = (pattern.clone(), vec![seat]);
            self.by_id.insert(id, Registration { pattern, policy, created_ms, seats, next: 0 });
            return Ok((id, Added::Registration));
        };
        let registration = self.by_id.get_mut(&id).expect("what the index has is registered");
        if registration.policy == Policy::Single {
            return Err(Refusal::ProcedureExists(pattern.to_string()));
        }
        if registration.policy != offer.policy {
            return Err(Refusal::OtherPolicy(pattern.to_string()));
        }
        if registration.seats.iter().any(|seat| seat.session == session) {
            return Ok((id, Added::Nothing));
        }
        if registration.seats.len() >= CALLEES_MAX {
            return Err(Refusal::TooMany("callees of a procedure", CALLEES_MAX));
        }
        registration.seats.push(seat);
        self.last_seat += 1;
        Ok((id, Added::Seat))
    }

    /// Takes a callee's seat away; with the last one the registration ends. `None` if it had none.
    pub(super) fn remove(&mut self, id: RegistrationId, session: SessionId) -> Option<Left> {
        let registration = self.by_id.get_mut(&id)?;
        let place = registration.seats.iter().position(|seat| seat.session == session)?;
        registration.seats.remove(place);
        if place < registration.next {
            registration.next -= 1;
        }
        if registration.seats.is_empty() {
            self.end(id);
            return Some(Left::Nobody);
        }
        Some(Left::Some)
    }

    /// Ends a registration, and gives those who had it.
    pub(super) fn end(&mut self, id: RegistrationId) -> Vec<Seat> {
        let Some(registration) = self.by_id.remove(&id) else { return Vec::new() };
        self.index.remove(&registration.pattern);
        registration.seats
    }

    /// The seat of the callee that is to be invoked next.
    pub(super) fn choose(
        &mut self,
        id: RegistrationId,
        tried: &[SessionId],
        in_parts: bool,
    ) -> Result<&Seat, NoSeat> {
        let dice = &mut self.chance;
        let registration = self.by_id.get_mut(&id).ok_or(NoSeat::Tried)?;
        let count = registration.seats.len();
        let judge = |place: usize| registration.seats[place].judge(tried, in_parts);
        let place = match registration.policy {
            Policy::Single | Policy::First => (0..count).find(|place| judge(*place).is_ok()),
            Policy::Last => (0..count).rev().find(|place| judge(*place).is_ok()),
            Policy::RoundRobin => {
                let turns = (0..count).map(|step| (registration.next + step) % count);
                turns.into_iter().find(|place| judge(*place).is_ok())
            }
            Policy::Random => {
                let free = (0..count).filter(|place| judge(*place).is_ok()).count();
                let nth = throw(dice, free);
                (0..count).filter(|place| judge(*place).is_ok()).nth(nth)
            }
        };
        let Some(place) = place else {
            let reasons = (0..count).filter_map(|place| judge(place).err());
            // The one that may pass says the most.
            let worst = |reason: &NoSeat| {
                [NoSeat::Tried, NoSeat::Unfit, NoSeat::Busy].iter().position(|r| r == reason)
            };
            return Err(reasons.max_by_key(worst).unwrap_or(NoSeat::Tried));
        };
        registration.next = (place + 1) % count;
        Ok(&registration.seats[place])
    }

    /// The seat of the callee that a key belongs to. Which that is does not depend on who is busy or was tried: what
    /// the others hold is not what the caller looks for.
    pub(super) fn holder(
        &self,
        id: RegistrationId,
        shard: ShardKey,
        tried: &[SessionId],
        in_parts: bool,
    ) -> Result<&Seat, NoSeat> {
        let seats = self.by_id.get(&id).map(|registration| registration.seats.iter());
        let seat = seats.into_iter().flatten().max_by_key(|seat| shard.weight(seat.number));
        let seat = seat.ok_or(NoSeat::Tried)?;
        seat.judge(tried, in_parts).map(|()| seat)
    }

    /// An invocation begins.
    pub(super) fn begin(&mut self, id: RegistrationId, seat: u64) {
        if let Some(seat) = self.seat_mut(id, seat) {
            seat.under_way += 1;
        }
    }

    /// An invocation ended. Its seat may be gone.
    pub(super) fn finish(&mut self, id: RegistrationId, seat: u64) {
        if let Some(seat) = self.seat_mut(id, seat) {
            seat.under_way -= 1;
        }
    }

    fn seat_mut(&mut self, id: RegistrationId, number: u64) -> Option<&mut Seat> {
        self.by_id.get_mut(&id)?.seats.iter_mut().find(|seat| seat.number == number)
    }
}

impl Registration {
    pub(super) fn is_pattern(&self) -> bool {
        self.pattern.name().is_none()
    }

    /// Nobody else registers in the reserved part of the address space.
    pub(super) fn is_the_house_s(&self) -> bool {
        is_reserved(self.pattern.as_str())
    }

    pub(super) fn facts(&self, id: RegistrationId) -> RegistrationFacts {
        let Registration { pattern, policy, created_ms, .. } = self;
        RegistrationFacts { id, pattern: pattern.clone(), policy: *policy, created_ms: *created_ms }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.seats.len() > 1
    }
}

impl Seat {
    fn judge(&self, tried: &[SessionId], in_parts: bool) -> Result<(), NoSeat> {
        if tried.contains(&self.session) {
            return Err(NoSeat::Tried);
        }
        // Who sends in parts must be able to end it.
        if in_parts && !(self.offer.takes_parts && self.offer.takes_interrupts) {
            return Err(NoSeat::Unfit);
        }
        if self.offer.concurrency.is_some_and(|limit| self.under_way >= limit) {
            return Err(NoSeat::Busy);
        }
        Ok(())
    }
}

/// A number below `bound`; 0 if there is none. The steps of `SplitMix64`: fair, and nobody has to be unable
/// to guess it.
fn throw(dice: &mut u64, bound: usize) -> usize {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mix(*dice) % (bound.max(1) as u64)).unwrap_or(0)
}

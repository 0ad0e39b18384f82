//! Who is in a realm. The house's own sessions are not guests: they are not counted, listed or ended by others, and
//! leave when the realm says farewell.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::access::{Peer, Principal, Refusal, SessionId};
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::notice::{Guest, Notice, Origin};
use crate::core::parcel::{Farewell, Parcel};
use crate::core::table::Table;
use crate::core::watch::Watch;
use crate::metrics;

/// The sessions of a realm.
#[derive(Debug)]
pub struct Guests {
    sessions_max: usize,
    state: Mutex<State>,
    watch: Arc<Watch>,
}

#[derive(Debug, Default)]
struct State {
    /// Boxed: the table is up to half empty.
    guests: Table<SessionId, Box<Seat>>,
    house: HashMap<SessionId, Mailbox>,
    /// Nobody is let in any more.
    retired: bool,
    /// All that were ever spoken here: there are as many as the languages have.
    dialects: Vec<&'static str>,
}

/// Every idle session has one.
#[derive(Debug)]
struct Seat {
    mailbox: Mailbox,
    principal: Arc<Principal>,
    whence: Whence,
}

const _: () = assert!(size_of::<Seat>() <= 32, "every idle session has one");

/// Where a session comes from, and the place of its dialect in the list, in as little room as most need.
#[derive(Debug)]
enum Whence {
    V4(Ipv4Addr, u16, u16),
    Other(Box<(Peer, u16)>),
}

impl Whence {
    fn new(peer: Peer, dialect: u16) -> Whence {
        match peer {
            Peer::Socket(SocketAddr::V4(address)) => Whence::V4(*address.ip(), address.port(), dialect),
            other => Whence::Other(Box::new((other, dialect))),
        }
    }

    fn peer(&self) -> Peer {
        match self {
            Whence::V4(ip, port, _) => Peer::Socket(SocketAddr::from((*ip, *port))),
            Whence::Other(other) => other.0.clone(),
        }
    }

    fn dialect(&self) -> usize {
        match self {
            Whence::V4(_, _, dialect) => usize::from(*dialect),
            Whence::Other(other) => usize::from(other.1),
        }
    }
}

impl State {
    fn dialect(&mut self, dialect: &'static str) -> u16 {
        let known = self.dialects.iter().position(|known| *known == dialect);
        let place = known.unwrap_or_else(|| {
            self.dialects.push(dialect);
            self.dialects.len() - 1
        });
        u16::try_from(place).expect("the languages have fewer dialects")
    }

    /// Those for whom most is waiting; see [`Guests::largest`].
    fn largest(&self, bytes_min: usize, count_max: usize) -> Vec<(usize, SessionId, &Seat)> {
        let mut largest: Vec<(usize, SessionId, &Seat)> = Vec::with_capacity(count_max + 1);
        for (session, seat) in self.guests.iter() {
            let bytes = seat.mailbox.bytes();
            let place = largest.partition_point(|(known, ..)| *known >= bytes);
            if bytes >= bytes_min && place < count_max {
                largest.insert(place, (bytes, *session, seat));
                largest.truncate(count_max);
            }
        }
        largest
    }

    fn guest(&self, session: SessionId, seat: &Seat) -> Guest {
        let dialect = self.dialects[seat.whence.dialect()];
        let origin = Origin { peer: seat.whence.peer(), dialect };
        Guest { session, principal: seat.principal.clone(), origin }
    }

    fn meant(
        &self,
        is_meant: impl Fn(SessionId, &Principal) -> bool,
    ) -> impl Iterator<Item = (SessionId, &Seat)> {
        let all = self.guests.iter().map(|(session, seat)| (*session, &**seat));
        all.filter(move |(session, seat)| is_meant(*session, &seat.principal))
    }
}

impl Guests {
    /// Nobody yet, and no more than that many.
    pub fn new(sessions_max: usize, watch: Arc<Watch>) -> Guests {
        Guests { sessions_max, state: Mutex::default(), watch }
    }

    /// Lets nobody in any more, if there is nobody, and if that holds while nobody comes. True when it is so.
    pub fn retire(&self, holds: impl FnOnce() -> bool) -> bool {
        let mut state = self.state.lock();
        state.retired = state.guests.is_empty() && holds();
        state.retired
    }

    /// Lets a session in, under the first of these numbers that none has. There are as many as it takes. `None` where
    /// nobody is let in any more.
    pub fn admit(
        &self,
        numbers: impl Iterator<Item = SessionId>,
        principal: &Arc<Principal>,
        origin: Origin,
        mailbox: &Mailbox,
    ) -> Option<Result<SessionId, Refusal>> {
        let mut state = self.state.lock();
        if state.retired {
            return None;
        }
        let is_free = |id: &SessionId| !state.guests.contains_key(id) && !state.house.contains_key(id);
        let mut numbers = numbers.filter(is_free);
        let session = numbers.next().expect("there are more numbers than sessions");
        drop(numbers);
        if principal.is_house() {
            state.house.insert(session, mailbox.clone());
            return Some(Ok(session));
        }
        if state.guests.len() >= self.sessions_max {
            return Some(Err(Refusal::TooMany("sessions", self.sessions_max)));
        }
        let dialect = state.dialect(origin.dialect);
        let (mailbox, principal) = (mailbox.clone(), principal.clone());
        let seat = Box::new(Seat { mailbox, principal, whence: Whence::new(origin.peer, dialect) });
        self.watch.tell(|| Notice::Joined(state.guest(session, &seat)));
        state.guests.get_or_insert_with(&session, || (session, seat));
        metrics::SESSIONS.add(1);
        Some(Ok(session))
    }

    /// A session left.
    pub fn leave(&self, session: SessionId) {
        let mut state = self.state.lock();
        if let Some(seat) = state.guests.remove(&session) {
            metrics::SESSIONS.add(-1);
            self.watch.tell(|| Notice::Left(state.guest(session, &seat)));
        } else {
            state.house.remove(&session);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state.lock().guests.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    pub fn get(&self, session: SessionId) -> Option<Guest> {
        let state = self.state.lock();
        state.guests.get(&session).map(|seat| state.guest(session, seat))
    }

    /// Where parcels for one of them go.
    pub fn mailbox(&self, session: SessionId) -> Option<Mailbox> {
        self.state.lock().guests.get(&session).map(|seat| seat.mailbox.clone())
    }

    /// How many are such guests.
    pub fn count(&self, is_meant: impl Fn(SessionId, &Principal) -> bool) -> usize {
        self.state.lock().meant(is_meant).count()
    }

    /// The numbers of such guests, in no order; those of `count_max` of them, and one more if there are more.
    pub fn list(&self, count_max: usize, is_meant: impl Fn(SessionId, &Principal) -> bool) -> Vec<SessionId> {
        let state = self.state.lock();
        let meant = state.meant(is_meant).map(|(session, _)| session);
        meant.take(count_max.saturating_add(1)).collect()
    }

    /// Ends the sessions of such guests at once: what they have not read is gone. Gives the numbers of those that
    /// were not ending already.
    pub fn end(
        &self,
        farewell: &Farewell,
        is_meant: impl Fn(SessionId, &Principal) -> bool,
    ) -> Vec<SessionId> {
        let meant: Vec<(SessionId, Mailbox)> = {
            let state = self.state.lock();
            state.meant(is_meant).map(|(session, seat)| (session, seat.mailbox.clone())).collect()
        };
        let ended = meant.into_iter().filter(|(_, mailbox)| mailbox.end(farewell.clone()) == Pushed::Queued);
        ended.map(|(session, _)| session).collect()
    }

    /// The same for one session. False if it is not here, or ending already.
    pub fn end_one(&self, session: SessionId, farewell: Farewell) -> bool {
        let mailbox = self.mailbox(session);
        mailbox.is_some_and(|mailbox| mailbox.end(farewell) == Pushed::Queued)
    }

    /// Asks one to leave.
    pub fn say_farewell_to(&self, session: SessionId, farewell: Farewell) {
        if let Some(mailbox) = self.mailbox(session) {
            mailbox.push(Parcel::Farewell(farewell));
        }
    }

    /// Those for whom most is waiting, at least so much; the largest first, no more than so many.
    pub fn largest(&self, bytes_min: usize, count_max: usize) -> Vec<(usize, Mailbox)> {
        let state = self.state.lock();
        let largest = state.largest(bytes_min, count_max).into_iter();
        largest.map(|(bytes, _, seat)| (bytes, seat.mailbox.clone())).collect()
    }

    /// The same, by who they are.
    pub fn slowest(&self, bytes_min: usize, count_max: usize) -> Vec<(usize, Guest)> {
        let state = self.state.lock();
        let slowest = state.largest(bytes_min, count_max).into_iter();
        slowest.map(|(bytes, session, seat)| (bytes, state.guest(session, seat))).collect()
    }

    /// Asks everybody to leave, the house's own sessions too.
    pub fn say_farewell(&self, farewell: &Farewell) {
        self.tell_all(|| Parcel::Farewell(farewell.clone()));
    }

    /// Tells everybody the same, the house's own sessions too.
    pub fn tell_all(&self, parcel: impl Fn() -> Parcel) {
        let mailboxes: Vec<Mailbox> = {
            let state = self.state.lock();
            let guests = state.guests.values().map(|seat| &seat.mailbox);
            guests.chain(state.house.values()).cloned().collect()
        };
        for mailbox in mailboxes {
            mailbox.push(parcel());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{exact, large_mailbox, outgoing, principal, realm, take};

    #[test]
    fn those_for_whom_most_is_waiting_are_found_the_largest_first() {
        let realm = realm("r");
        let mut all = Vec::new();
        for topic in ["a", "b", "c", "d"] {
            let (mailbox, inbox) = large_mailbox();
            let mut member = realm.join(principal("u", "r"), mailbox).unwrap();
            member.subscribe(&exact(topic)).unwrap();
            all.push((member, inbox));
        }
        for (topic, count) in [("a", 1), ("b", 5), ("c", 3)] {
            for _ in 0..count {
                all[3].0.publish(outgoing(topic), false).unwrap();
            }
        }
        let found = |bytes_min, count_max| {
            let largest = realm.guests().largest(bytes_min, count_max);
            largest.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>()
        };
        let all_found = found(1, 9);
        assert_eq!(all_found.len(), 3);
        assert!(all_found.is_sorted_by(|a, b| a > b), "{all_found:?}");
        assert_eq!(found(1, 2), all_found[..2]);
        assert_eq!(found(all_found[0], 9), all_found[..1]);
        realm.guests().largest(1, 1)[0].1.overflow();
        assert!(matches!(take(&mut all[1].1)[..], [Parcel::Farewell(Farewell::SlowConsumer)]));
    }
}

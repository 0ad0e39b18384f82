//! Who is in a realm. The house's own sessions are not guests: they are not counted, listed or ended by others, and
//! leave when the realm says farewell.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::access::{Principal, Refusal, SessionId};
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::notice::{Guest, Notice, Origin};
use crate::core::parcel::{Farewell, Parcel};
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
    guests: HashMap<SessionId, Seat>,
    house: HashMap<SessionId, Mailbox>,
}

#[derive(Debug)]
struct Seat {
    guest: Arc<Guest>,
    mailbox: Mailbox,
}

impl Guests {
    /// Nobody yet, and no more than that many.
    pub fn new(sessions_max: usize, watch: Arc<Watch>) -> Guests {
        Guests { sessions_max, state: Mutex::default(), watch }
    }

    /// Lets a session in, under the first of these numbers that none has. There are as many as it takes.
    pub fn admit(
        &self,
        numbers: impl Iterator<Item = SessionId>,
        principal: &Arc<Principal>,
        origin: Origin,
        mailbox: &Mailbox,
    ) -> Result<SessionId, Refusal> {
        let mut state = self.state.lock();
        let is_free = |id: &SessionId| !state.guests.contains_key(id) && !state.house.contains_key(id);
        let mut numbers = numbers.filter(is_free);
        let session = numbers.next().expect("there are more numbers than sessions");
        drop(numbers);
        if principal.is_house() {
            state.house.insert(session, mailbox.clone());
            return Ok(session);
        }
        if state.guests.len() >= self.sessions_max {
            return Err(Refusal::TooMany("sessions", self.sessions_max));
        }
        let guest = Arc::new(Guest { session, principal: principal.clone(), origin });
        state.guests.insert(session, Seat { guest: guest.clone(), mailbox: mailbox.clone() });
        metrics::SESSIONS.add(1);
        self.watch.tell(|| Notice::Joined(guest));
        Ok(session)
    }

    /// A session left.
    pub fn leave(&self, session: SessionId) {
        let mut state = self.state.lock();
        if let Some(Seat { guest, .. }) = state.guests.remove(&session) {
            metrics::SESSIONS.add(-1);
            self.watch.tell(|| Notice::Left(guest));
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
    pub fn get(&self, session: SessionId) -> Option<Arc<Guest>> {
        self.state.lock().guests.get(&session).map(|seat| seat.guest.clone())
    }

    /// Where parcels for one of them go.
    pub fn mailbox(&self, session: SessionId) -> Option<Mailbox> {
        self.state.lock().guests.get(&session).map(|seat| seat.mailbox.clone())
    }

    /// How many are such guests.
    pub fn count(&self, is_meant: impl Fn(&Guest) -> bool) -> usize {
        self.state.lock().guests.values().filter(|seat| is_meant(&seat.guest)).count()
    }

    /// The numbers of such guests, in no order; those of `count_max` of them, and one more if there are more.
    pub fn list(&self, count_max: usize, is_meant: impl Fn(&Guest) -> bool) -> Vec<SessionId> {
        let state = self.state.lock();
        let meant = state.guests.values().filter(|seat| is_meant(&seat.guest));
        meant.take(count_max.saturating_add(1)).map(|seat| seat.guest.session).collect()
    }

    /// Ends the sessions of such guests at once: what they have not read is gone. Gives the numbers of those that
    /// were not ending already.
    pub fn end(&self, farewell: &Farewell, is_meant: impl Fn(&Guest) -> bool) -> Vec<SessionId> {
        let meant: Vec<(SessionId, Mailbox)> = {
            let state = self.state.lock();
            let meant = state.guests.values().filter(|seat| is_meant(&seat.guest));
            meant.map(|seat| (seat.guest.session, seat.mailbox.clone())).collect()
        };
        let ended = meant.into_iter().filter(|(_, mailbox)| mailbox.end(farewell.clone()) == Pushed::Queued);
        ended.map(|(session, _)| session).collect()
    }

    /// The same for one session. False if it is not here, or ending already.
    pub fn end_one(&self, session: SessionId, farewell: Farewell) -> bool {
        let mailbox = self.mailbox(session);
        mailbox.is_some_and(|mailbox| mailbox.end(farewell) == Pushed::Queued)
    }

    /// Asks everybody to leave, the house's own sessions too.
    pub fn say_farewell(&self, farewell: &Farewell) {
        let mailboxes: Vec<Mailbox> = {
            let state = self.state.lock();
            let guests = state.guests.values().map(|seat| &seat.mailbox);
            guests.chain(state.house.values()).cloned().collect()
        };
        for mailbox in mailboxes {
            mailbox.push(Parcel::Farewell(farewell.clone()));
        }
    }
}

//! Publications whose PUBLISHED waits for the store, for what is retained or remembered of them is to outlive the
//! broker.

use std::collections::VecDeque;

use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{MessageType, Published};

use crate::core::access::Refusal;
use crate::core::calls::failure;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::fault::{self, Fault};
use crate::wamp::voice::{Voice, id};

/// How many publications of a session may wait for the store. What waits there is bounded before, in bytes.
const PUBLISHING_MAX: usize = 100_000;

/// Tells the tickets of publications from those of calls, which are numbers of requests, at most 2^53.
const PUBLICATION: u64 = 1 << 63;

/// Requests that wait, and the numbers of their publications, in the order in which the store answers.
#[derive(Debug, Default)]
pub(in crate::wamp) struct Publishing(VecDeque<(Id, u64)>);

impl Dialogue {
    /// The ticket of a publication that is to be acknowledged.
    pub(super) fn ticket_of_publication(&self, request: Id) -> Result<u64, Fault> {
        let waiting = self.publishing.as_ref().map_or(0, |publishing| publishing.0.len());
        if waiting >= PUBLISHING_MAX {
            return Err(Refusal::TooMany("publications that wait for the store", PUBLISHING_MAX).into());
        }
        Ok(PUBLICATION | request.get())
    }

    /// A publication with a ticket is yet to be stored.
    pub(super) fn await_store(&mut self, request: Id, publication: u64) {
        self.publishing.get_or_insert_default().0.push_back((request, publication));
    }

    /// The store has what was asked for under this ticket, or never will.
    pub(in crate::wamp) fn bring_stored(
        &mut self,
        ticket: u64,
        outcome: Result<(), Refusal>,
        voice: &mut Voice,
    ) {
        if ticket & PUBLICATION == 0 {
            return self.bring_stored_message(ticket, outcome, voice);
        }
        let Some(waiting) = self.publishing.as_mut().map(|publishing| &mut publishing.0) else { return };
        let place = waiting.iter().position(|(request, _)| PUBLICATION | request.get() == ticket);
        let Some((request, publication)) = place.and_then(|place| waiting.remove(place)) else { return };
        match outcome {
            Ok(()) => voice.say(Published { request, publication: id(publication) }),
            Err(refusal) => {
                let failed = failure(fault::uri(&refusal), &refusal.to_string());
                voice.say_error(MessageType::Publish, request, &failed);
            }
        }
    }
}

//! The calls that the house owes an answer, and until when.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use tandem_protocols::wamp::message::MessageType;

use crate::core::calls::{TIMEOUT, failure};
use crate::core::deadlines::Deadlines;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::voice::{Voice, id};

/// Memory for so many calls is kept when none is open.
const KEPT_CALLS: usize = 64;

/// Of so many calls that ended before their last arguments came the numbers are remembered.
pub(in crate::wamp) const LATE_CALLS_MAX: usize = 64;

/// The calls of a peer that are not answered.
#[derive(Debug, Default)]
pub(in crate::wamp) struct OpenCalls {
    pub(in crate::wamp) open: HashSet<u64>,
    /// Those whose last arguments have not come.
    pub(in crate::wamp) in_parts: HashSet<u64>,
    /// Calls that ended before their last arguments came, oldest first.
    late: VecDeque<u64>,
    pub(in crate::wamp) deadlines: Deadlines,
}

impl OpenCalls {
    /// The call ended, and arguments for it may still come.
    pub(in crate::wamp) fn remember_late(&mut self, call: u64) {
        if self.late.len() >= LATE_CALLS_MAX {
            self.late.pop_front();
        }
        self.late.push_back(call);
    }
}

impl Dialogue {
    pub(in crate::wamp) fn open_calls(&mut self) -> &mut OpenCalls {
        self.calls.get_or_insert_default()
    }

    /// Whether the peer waits for an answer under that number.
    pub(in crate::wamp) fn is_open(&self, call: u64) -> bool {
        self.calls.as_ref().is_some_and(|calls| calls.open.contains(&call))
    }

    /// Whether a CALL under that number is part of one from before.
    pub(in crate::wamp) fn expects_part(&self, call: u64) -> bool {
        let is_known = |calls: &OpenCalls| calls.in_parts.contains(&call) || calls.late.contains(&call);
        self.calls.as_deref().is_some_and(is_known)
    }

    /// Its last arguments came.
    pub(in crate::wamp) fn expect_no_part(&mut self, call: u64) {
        if let Some(calls) = &mut self.calls {
            calls.in_parts.remove(&call);
            calls.late.retain(|known| *known != call);
        }
    }

    /// The peer has its answer. False when it was not waiting for one.
    pub(in crate::wamp) fn close_call(&mut self, call: u64) -> bool {
        let Some(calls) = &mut self.calls else { return false };
        calls.deadlines.stop(call);
        let was_open = calls.open.remove(&call);
        if calls.in_parts.remove(&call) {
            calls.remember_late(call);
        }
        if calls.open.is_empty() && calls.open.capacity() > KEPT_CALLS {
            calls.open = HashSet::new();
        }
        was_open
    }

    /// When the next call has waited long enough.
    pub(in crate::wamp) fn deadline(&self) -> Option<Instant> {
        self.calls.as_ref()?.deadlines.earliest()
    }

    /// Ends calls that waited long enough.
    pub(in crate::wamp) fn tick(&mut self, voice: &mut Voice, now: Instant) {
        while let Some(call) = self.calls.as_mut().and_then(|calls| calls.deadlines.expired(now)) {
            // Else the answer lies in the mailbox.
            if self.member.expire(call) || self.stop_receiving(call) {
                self.close_call(call);
                let late = failure(TIMEOUT, "the answer did not come in time");
                voice.say_error(MessageType::Call, id(call), &late);
            }
        }
    }
}

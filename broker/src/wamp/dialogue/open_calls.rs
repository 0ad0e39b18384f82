//! The calls that the house owes an answer, and until when.

use std::collections::VecDeque;
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

/// Numbers of requests in order. As peers count them up, one that is added stands last, and those that are answered
/// are mostly among the first: neither moves many others, and of so few not even the worst does harm.
#[derive(Debug, Default)]
pub(in crate::wamp) struct Requests(VecDeque<u64>);

impl Requests {
    pub(in crate::wamp) fn count(&self) -> usize {
        self.0.len()
    }

    fn contains(&self, request: u64) -> bool {
        self.find(request).is_ok()
    }

    /// One more, unless it is there.
    pub(in crate::wamp) fn insert(&mut self, request: u64) {
        if let Err(place) = self.find(request) {
            self.0.insert(place, request);
        }
    }

    /// One less. False if it is not there.
    fn remove(&mut self, request: u64) -> bool {
        let place = self.find(request).ok();
        let removed = place.and_then(|place| self.0.remove(place)).is_some();
        if removed && self.0.is_empty() && self.0.capacity() > KEPT_CALLS {
            self.0 = VecDeque::new();
        }
        removed
    }

    fn find(&self, request: u64) -> Result<usize, usize> {
        match self.0.back() {
            Some(last) if *last < request => Err(self.0.len()),
            _ if self.0.front() == Some(&request) => Ok(0),
            _ => self.0.binary_search(&request),
        }
    }
}

/// The calls of a peer that are not answered.
#[derive(Debug, Default)]
pub(in crate::wamp) struct OpenCalls {
    /// At most [`CALLS_MAX`](super::rpc::CALLS_MAX).
    pub(in crate::wamp) open: Requests,
    /// Those whose last arguments have not come.
    pub(in crate::wamp) in_parts: Requests,
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
        self.calls.as_ref().is_some_and(|calls| calls.open.contains(call))
    }

    /// Whether a CALL under that number is part of one from before.
    pub(in crate::wamp) fn expects_part(&self, call: u64) -> bool {
        let is_known = |calls: &OpenCalls| calls.in_parts.contains(call) || calls.late.contains(&call);
        self.calls.as_deref().is_some_and(is_known)
    }

    /// Its last arguments came.
    pub(in crate::wamp) fn expect_no_part(&mut self, call: u64) {
        if let Some(calls) = &mut self.calls {
            calls.in_parts.remove(call);
            calls.late.retain(|known| *known != call);
        }
    }

    /// The peer has its answer. False when it was not waiting for one.
    pub(in crate::wamp) fn close_call(&mut self, call: u64) -> bool {
        let Some(calls) = &mut self.calls else { return false };
        // Few calls have any, and to look for one is not free.
        if calls.deadlines.earliest().is_some() {
            calls.deadlines.stop(call);
        }
        let was_open = calls.open.remove(call);
        if calls.in_parts.remove(call) {
            calls.remember_late(call);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_are_known_until_they_are_answered(
            deeds in prop::collection::vec((any::<bool>(), prop_oneof![0..20_u64, any::<u64>()]), 0..200),
        ) {
            let (mut requests, mut model) = (Requests::default(), BTreeSet::new());
            for (is_new, request) in deeds {
                if is_new {
                    requests.insert(request);
                    model.insert(request);
                } else {
                    prop_assert_eq!(requests.remove(request), model.remove(&request));
                }
                prop_assert_eq!(requests.contains(request), is_new);
                prop_assert_eq!(requests.count(), model.len());
            }
        }
    }

    #[test]
    fn memory_for_many_calls_is_given_back() {
        let mut requests = Requests::default();
        (0..1000).for_each(|request| requests.insert(request));
        (0..1000).for_each(|request| assert!(requests.remove(request)));
        assert!(requests.0.capacity() <= KEPT_CALLS);
    }
}

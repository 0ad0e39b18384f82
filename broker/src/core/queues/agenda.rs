//! When something is to be done in a queue though nobody comes to it: a message grows too old, a delayed one is
//! due, a queue is unused for too long. The house has no clock of its own: it is given one, and told to look.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::Waker;

use parking_lot::Mutex;

use crate::core::history::WallClock;

/// How many queues are looked at at once, before others may have the thread.
const QUEUES_AT_ONCE: usize = 64;

pub(super) struct Agenda<Q> {
    clock: WallClock,
    diary: Mutex<Diary<Q>>,
}

struct Diary<Q> {
    /// By time in milliseconds and the number of the queue.
    by_time: BTreeMap<(u64, u64), Weak<Q>>,
    waker: Option<Waker>,
}

impl<Q> fmt::Debug for Agenda<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agenda").finish_non_exhaustive()
    }
}

impl<Q> Agenda<Q> {
    pub(super) fn new(clock: WallClock) -> Agenda<Q> {
        Agenda { clock, diary: Mutex::new(Diary { by_time: BTreeMap::new(), waker: None }) }
    }

    pub(super) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Changes when a queue is to be looked at. The waker must be woken if that is earlier than anything else.
    pub(super) fn change(
        &self,
        queue: u64,
        handle: &Weak<Q>,
        old: Option<u64>,
        new: Option<u64>,
    ) -> Option<Waker> {
        let mut diary = self.diary.lock();
        if let Some(old) = old {
            diary.by_time.remove(&(old, queue));
        }
        let new = new?;
        let is_earliest = diary.by_time.first_key_value().is_none_or(|((first, _), _)| new < *first);
        diary.by_time.insert((new, queue), handle.clone());
        if is_earliest { diary.waker.take() } else { None }
    }

    /// The next time in milliseconds; `waker` is woken when there is an earlier one.
    pub(super) fn earliest(&self, waker: &Waker) -> Option<u64> {
        let mut diary = self.diary.lock();
        diary.waker = Some(waker.clone());
        diary.by_time.first_key_value().map(|((at, _), _)| *at)
    }

    /// Queues whose time has come, which must say again when the next time is.
    pub(super) fn due(&self) -> Vec<Arc<Q>> {
        let now = self.now_ms();
        let mut diary = self.diary.lock();
        let mut due = Vec::new();
        while due.len() < QUEUES_AT_ONCE
            && let Some(first) = diary.by_time.first_entry()
            && first.key().0 <= now
        {
            due.extend(first.remove().upgrade());
        }
        due
    }
}

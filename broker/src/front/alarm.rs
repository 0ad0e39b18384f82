//! Wakes tasks at times that are far away, roughly and a little early.
//!
//! A connection that waits half a minute for its next ping would own nothing larger than a timer of the runtime. Here it
//! has a waker in the slot of a second, and takes a timer once that second has come.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

/// What is nearer than this is not for an alarm.
pub const NEAR: Duration = Duration::from_secs(2);

/// How long a slot is.
const SLOT: Duration = Duration::from_secs(1);

/// The alarms of many connections.
#[derive(Debug)]
pub struct Alarms {
    start: Instant,
    slots: Mutex<Slots>,
    /// There is an alarm before all others, or there are none any more.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Slots {
    wakers: BTreeMap<u32, Slab<Waker>>,
    /// The last slot that was rung: what comes later is put into a later one.
    rung: u32,
}

/// An alarm that was set.
#[derive(Debug)]
pub struct Alarm {
    slot: NonZeroU32,
    key: u32,
}

impl Alarms {
    /// None yet. They are rung by a task of this runtime, for as long as anybody has them.
    pub fn start(now: Instant) -> Arc<Alarms> {
        let changed = Arc::new(Notify::new());
        let alarms = Arc::new(Alarms { start: now, slots: Mutex::default(), changed: changed.clone() });
        tokio::spawn(ring_in_time(Arc::downgrade(&alarms), changed));
        alarms
    }

    /// Wakes the task in the second before that time, or in its own. The time is further away than [`NEAR`].
    pub fn set(&self, time: Instant, waker: &Waker) -> Alarm {
        let seconds = time.saturating_duration_since(self.start).as_secs();
        let mut slots = self.slots.lock();
        let slot = u32::try_from(seconds).unwrap_or(u32::MAX).max(slots.rung.saturating_add(1));
        let slot = NonZeroU32::MIN.saturating_add(slot - 1);
        let is_first = slots.wakers.first_key_value().is_none_or(|(first, _)| slot.get() < *first);
        let key = slots.wakers.entry(slot.get()).or_default().insert(waker.clone());
        drop(slots);
        if is_first {
            self.changed.notify_one();
        }
        Alarm { slot, key: u32::try_from(key).expect("there are fewer connections") }
    }

    /// When an alarm rings, or rang.
    pub fn time(&self, alarm: &Alarm) -> Instant {
        self.slot_time(alarm.slot.get())
    }

    /// Forgets an alarm. It may have rung.
    pub fn clear(&self, alarm: Alarm) {
        let mut slots = self.slots.lock();
        let slot = alarm.slot.get();
        if let Some(wakers) = slots.wakers.get_mut(&slot) {
            let _waker = wakers.try_remove(alarm.key as usize);
            if wakers.is_empty() {
                slots.wakers.remove(&slot);
            }
        }
    }

    fn slot_time(&self, slot: u32) -> Instant {
        self.start + SLOT * slot
    }

    /// Rings what is due; says when the next one is.
    fn ring(&self, now: Instant) -> Option<Instant> {
        loop {
            let mut slots = self.slots.lock();
            let (first, time) = {
                let (first, _) = slots.wakers.first_key_value()?;
                (*first, self.slot_time(*first))
            };
            if time > now {
                return Some(time);
            }
            slots.rung = first;
            let due = slots.wakers.remove(&first);
            drop(slots);
            for (_, waker) in due.into_iter().flatten() {
                waker.wake();
            }
        }
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

async fn ring_in_time(alarms: Weak<Alarms>, changed: Arc<Notify>) {
    loop {
        let Some(next) = alarms.upgrade().map(|alarms| alarms.ring(tokio::time::Instant::now().into_std()))
        else {
            return;
        };
        match next {
            None => changed.notified().await,
            Some(time) => {
                let _elapsed_or_changed = tokio::time::timeout_at(time.into(), changed.notified()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::Count;
    use crate::front::connection::now;

    #[tokio::test(start_paused = true)]
    async fn each_alarm_rings_once_and_never_late() {
        let alarms = Alarms::start(now());
        let (count, waker) = Count::new();
        let start = now();
        for second in [30, 10, 20, 20] {
            let alarm = alarms.set(start + Duration::from_millis(second * 1000 + 900), &waker);
            assert_eq!(alarms.time(&alarm), start + Duration::from_secs(second));
        }
        for (second, rung) in [(9, 0), (10, 1), (19, 1), (20, 3), (29, 3), (30, 4), (90, 4)] {
            tokio::time::sleep_until((start + Duration::from_secs(second)).into()).await;
            tokio::task::yield_now().await;
            assert_eq!(count.get(), rung, "after {second} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_cleared_does_not_ring_and_is_forgotten() {
        let alarms = Alarms::start(now());
        let (count, waker) = Count::new();
        let set = |seconds| alarms.set(now() + Duration::from_secs(seconds), &waker);
        let (first, _second, third) = (set(5), set(5), set(6));
        alarms.clear(first);
        alarms.clear(third);
        assert_eq!(alarms.slots.lock().wakers.len(), 1);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((count.get(), alarms.slots.lock().wakers.len()), (1, 0));
        assert_eq!(Arc::strong_count(&count), 2, "no waker is left: ours, and the one that it was made of");
    }

    #[tokio::test(start_paused = true)]
    async fn who_rings_them_ends_with_them() {
        let alarms = Alarms::start(now());
        let changed = Arc::downgrade(&alarms.changed);
        let (_, waker) = Count::new();
        alarms.set(now() + Duration::from_secs(1000), &waker);
        drop(alarms);
        tokio::task::yield_now().await;
        assert!(changed.upgrade().is_none());
    }
}

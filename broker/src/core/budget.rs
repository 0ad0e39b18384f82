//! The memory that messages on their way may hold, in bytes, across a whole realm.
//!
//! A publication is charged once, however many mailboxes it lies in, and the charge ends with it. When the
//! budget is exceeded nothing is refused: the connections of those who publish are not read until it has
//! room again. That it gets room is certain, since no mailbox may stay full for long.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// Those who wait for something, each once, however often it asks.
#[derive(Debug, Default)]
pub struct Waiters(HashMap<(usize, usize), Waker>);

impl Waiters {
    /// Adds one, unless it is there.
    pub fn add(&mut self, waker: &Waker) {
        // The two pointers that a waker is.
        let key = (waker.data() as usize, std::ptr::from_ref(waker.vtable()) as usize);
        self.0.entry(key).or_insert_with(|| waker.clone());
    }

    /// Wakes all of them. For outside of locks.
    pub fn wake(self) {
        self.0.into_values().for_each(Waker::wake);
    }
}

/// The budget of a realm.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
    waiting: AtomicBool,
    /// Exceeded whatever is in use: memory is short elsewhere.
    squeezed: AtomicBool,
    waiters: Mutex<Waiters>,
}

impl Budget {
    /// A budget of that many bytes.
    pub fn new(bytes_max: usize) -> Arc<Budget> {
        Arc::new(Budget {
            bytes_max,
            bytes: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            squeezed: AtomicBool::new(false),
            waiters: Mutex::default(),
        })
    }

    /// Takes `bytes` from the budget until the charge is dropped.
    pub fn charge(self: &Arc<Budget>, bytes: usize) -> Charge {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Charge { budget: self.clone(), bytes }
    }

    /// The bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// True when more than the budget is in use; `waker` is then woken once that ends.
    pub fn exceeded(&self, waker: &Waker) -> bool {
        if self.bytes() <= self.bytes_max && !self.squeezed.load(Ordering::Relaxed) {
            return false;
        }
        let mut waiters = self.waiters.lock();
        waiters.add(waker);
        self.waiting.store(true, Ordering::SeqCst);
        // The last charge may have ended between the first look and the registration.
        self.bytes.load(Ordering::SeqCst) > self.bytes_max || self.squeezed.load(Ordering::SeqCst)
    }

    /// Counts as exceeded from now on, or no longer.
    pub fn squeeze(&self, squeezed: bool) {
        let was = self.squeezed.swap(squeezed, Ordering::SeqCst);
        if was && !squeezed && self.bytes() <= self.bytes_max {
            self.wake_all();
        }
    }

    fn release(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        if before - bytes <= self.bytes_max && self.waiting.load(Ordering::SeqCst) {
            // Who is woken while memory is short waits again.
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        let woken = {
            let mut waiters = self.waiters.lock();
            self.waiting.store(false, Ordering::SeqCst);
            std::mem::take(&mut *waiters)
        };
        woken.wake();
    }
}

/// A part of a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Another of the same budget.
    pub fn again(&self, bytes: usize) -> Charge {
        self.budget.charge(bytes)
    }

    /// How large it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::Count;

    #[test]
    fn a_waiter_is_woken_once_when_the_budget_has_room_again() {
        let (count, waker) = Count::new();
        let budget = Budget::new(100);
        let first = budget.charge(60);
        assert!(!budget.exceeded(&waker));
        let second = budget.charge(60);
        assert!(budget.exceeded(&waker));
        assert!(budget.exceeded(&waker));
        drop(second);
        assert_eq!(count.get(), 1);
        assert!(!budget.exceeded(&waker));
        drop(first);
        assert_eq!((budget.bytes(), count.get()), (0, 1));
    }

    #[test]
    fn while_memory_is_short_publishers_wait_whatever_they_use() {
        let (count, waker) = Count::new();
        let budget = Budget::new(100);
        budget.squeeze(true);
        assert!(budget.exceeded(&waker));
        drop(budget.charge(1));
        assert!(budget.exceeded(&waker), "who was woken waits again");
        let woken = count.get();
        budget.squeeze(true);
        budget.squeeze(false);
        assert_eq!(count.get(), woken + 1);
        assert!(!budget.exceeded(&waker));
    }

    #[test]
    fn all_waiters_are_woken_and_none_is_kept() {
        let counts: Vec<_> = (0..1000).map(|_| Count::new().0).collect();
        let budget = Budget::new(100);
        let charge = budget.charge(101);
        for count in &counts {
            assert!(budget.exceeded(&Waker::from(count.clone())));
        }
        drop(charge);
        assert!(counts.iter().all(|count| count.get() == 1));
        assert!(counts.iter().all(|count| Arc::strong_count(count) == 1));
        assert!(budget.waiters.lock().0.is_empty());
    }

    #[test]
    fn an_end_that_races_with_waiting_is_never_missed() {
        for _ in 0..200 {
            let (count, _) = Count::new();
            let budget = Budget::new(0);
            let charge = budget.charge(1);
            let releasing = std::thread::spawn(move || drop(charge));
            let waits = budget.exceeded(&Waker::from(count.clone()));
            releasing.join().unwrap();
            assert!(!waits || count.get() == 1);
        }
    }
}

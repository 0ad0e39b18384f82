//! Whether each delivery comes once, in order and none is missing.
//!
//! [`Order`] is for a subscriber, who gets everything: the next number of each sender is the one after the last.
//! [`Ledger`] is for queues, whose messages are shared out among consumers: each comes to somebody, once, and to
//! each consumer in rising order. What is wrong is written into [`Faults`], of which a few are kept and all are
//! counted.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use std::sync::{Mutex, PoisonError};

/// So many faults are kept to be shown.
pub const FAULTS_KEPT: usize = 8;

/// What was wrong, as far as it is kept, and how often something was.
#[derive(Debug, Default)]
pub struct Faults {
    count: AtomicU64,
    kept: Mutex<Vec<String>>,
}

impl Faults {
    /// Something is wrong, `count` times.
    pub fn note(&self, count: u64, what: fmt::Arguments<'_>) {
        self.count.fetch_add(count, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < FAULTS_KEPT {
            kept.push(what.to_string());
        }
    }

    /// How often something was wrong.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first of them.
    pub fn kept(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a delivery can be other than the one that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disorder {
    /// It, or a later one of its sender, came before.
    #[error("it comes again, or after a later one")]
    Again,
    /// So many before it are missing.
    #[error("{0} before it are missing")]
    Gap(u64),
    /// Nobody sent it.
    #[error("nobody sent it")]
    Unknown,
}

/// What one subscriber has got of each sender.
#[derive(Debug, Default)]
pub struct Order {
    last: HashMap<u16, u64>,
}

impl Order {
    /// A delivery to the subscriber.
    ///
    /// # Errors
    ///
    /// Where it is not the one that is due. After a gap, the one after it is due.
    pub fn note(&mut self, sender: u16, number: u64) -> Result<(), Disorder> {
        let last = self.last.entry(sender).or_default();
        if number <= *last {
            return Err(Disorder::Again);
        }
        let missing = number - *last - 1;
        *last = number;
        if missing > 0 { Err(Disorder::Gap(missing)) } else { Ok(()) }
    }

    /// The last that came of this sender.
    pub fn last(&self, sender: u16) -> u64 {
        self.last.get(&sender).copied().unwrap_or(0)
    }
}

/// What one consumer of a queue has got of each sender: rising, with gaps where others got some.
#[derive(Debug, Default)]
pub struct Share {
    last: HashMap<u16, u64>,
}

/// What of each sender's messages has come to anybody.
#[derive(Debug)]
pub struct Ledger {
    seen: Vec<Mutex<Seen>>,
}

/// Numbers that were seen: all up to `below`, and some beyond, a bit for each.
#[derive(Debug, Default)]
struct Seen {
    words: Vec<u64>,
    count: u64,
}

/// A sender may be at most so far: a bit for each is kept, 32 MiB for this many.
const NUMBER_MAX: u64 = 1 << 28;

impl Ledger {
    /// For senders 0 to `senders`.
    pub fn new(senders: usize) -> Self {
        Self { seen: (0..senders).map(|_| Mutex::default()).collect() }
    }

    /// A delivery to the consumer whose share this is.
    ///
    /// # Errors
    ///
    /// [`Disorder::Again`] where anybody got it before, or the consumer got a later one of that sender.
    pub fn note(&self, share: &mut Share, sender: u16, number: u64) -> Result<(), Disorder> {
        let Some(seen) = self.seen.get(usize::from(sender)) else { return Err(Disorder::Unknown) };
        if number == 0 || number > NUMBER_MAX {
            return Err(Disorder::Unknown);
        }
        if !seen.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
            return Err(Disorder::Again);
        }
        let last = share.last.insert(sender, number).unwrap_or(0);
        if number < last { Err(Disorder::Again) } else { Ok(()) }
    }

    /// How many of the first `sent` messages of this sender nobody got.
    pub fn missing(&self, sender: u16, sent: u64) -> u64 {
        let Some(seen) = self.seen.get(usize::from(sender)) else { return sent };
        sent.saturating_sub(seen.lock().unwrap_or_else(PoisonError::into_inner).count)
    }
}

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(is_new);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_once_and_in_order_is_fine_for_each_sender_alone() {
        let mut order = Order::default();
        for number in 1..=3 {
            assert_eq!(order.note(1, number), Ok(()));
            assert_eq!(order.note(2, number), Ok(()));
        }
        assert_eq!((order.last(1), order.last(9)), (3, 0));
    }

    #[test]
    fn a_subscriber_notices_what_comes_twice_too_late_or_not_at_all() {
        let mut order = Order::default();
        assert_eq!(order.note(1, 1), Ok(()));
        assert_eq!(order.note(1, 1), Err(Disorder::Again));
        assert_eq!(order.note(1, 4), Err(Disorder::Gap(2)));
        assert_eq!(order.note(1, 3), Err(Disorder::Again));
        assert_eq!(order.note(1, 5), Ok(()));
        assert_eq!(order.note(2, 2), Err(Disorder::Gap(1)), "the first of a sender is 1");
    }

    #[test]
    fn a_queue_may_share_out_but_not_repeat_reorder_or_invent() {
        let ledger = Ledger::new(1);
        let (mut one, mut other) = (Share::default(), Share::default());
        assert_eq!(ledger.note(&mut one, 0, 2), Ok(()));
        assert_eq!(ledger.note(&mut other, 0, 1), Ok(()), "others got later ones");
        assert_eq!(ledger.note(&mut other, 0, 2), Err(Disorder::Again));
        assert_eq!(ledger.note(&mut one, 0, 4), Ok(()));
        assert_eq!(ledger.note(&mut one, 0, 3), Err(Disorder::Again), "after a later one");
        assert_eq!(ledger.note(&mut one, 1, 1), Err(Disorder::Unknown));
        assert_eq!(ledger.note(&mut one, 0, 0), Err(Disorder::Unknown));
        assert_eq!(ledger.note(&mut one, 0, NUMBER_MAX + 1), Err(Disorder::Unknown));
        assert_eq!((ledger.missing(0, 4), ledger.missing(0, 6), ledger.missing(1, 5)), (0, 2, 5));
    }

    #[test]
    fn faults_are_all_counted_and_a_few_kept() {
        let faults = Faults::default();
        for number in 0..20 {
            faults.note(2, format_args!("fault {number}"));
        }
        assert_eq!(faults.count(), 40);
        assert_eq!(faults.kept().len(), FAULTS_KEPT);
        assert_eq!(faults.kept()[0], "fault 0");
    }
}

//! Until when a session waits for each of its calls.
//!
//! A session that calls keeps its own time: the house has no clock.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The deadlines of a session's calls.
#[derive(Debug, Default)]
pub struct Deadlines {
    by_call: HashMap<u64, (Instant, Duration)>,
    by_time: BTreeSet<(Instant, u64)>,
}

impl Deadlines {
    /// Lets a call wait for so long. What is beyond the end of time is not waited for.
    pub fn start(&mut self, call: u64, timeout: Duration, now: Instant) {
        self.stop(call);
        if let Some(deadline) = now.checked_add(timeout) {
            self.by_call.insert(call, (deadline, timeout));
            self.by_time.insert((deadline, call));
        }
    }

    /// Lets it wait as long again, if there is a limit.
    pub fn restart(&mut self, call: u64, now: Instant) {
        if let Some((_, timeout)) = self.by_call.get(&call) {
            self.start(call, *timeout, now);
        }
    }

    /// Forgets a call.
    pub fn stop(&mut self, call: u64) {
        if let Some((deadline, _)) = self.by_call.remove(&call) {
            self.by_time.remove(&(deadline, call));
        }
    }

    /// The next deadline.
    pub fn earliest(&self) -> Option<Instant> {
        self.by_time.first().map(|(deadline, _)| *deadline)
    }

    /// A call that is not to wait any longer; it is forgotten.
    pub fn expired(&mut self, now: Instant) -> Option<u64> {
        let (_, call) = *self.by_time.first().filter(|(deadline, _)| *deadline <= now)?;
        self.stop(call);
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_expire_in_the_order_of_their_deadlines() {
        let (mut deadlines, now) = (Deadlines::default(), Instant::now());
        let ms = Duration::from_millis;
        for (call, timeout) in [(1, 30), (2, 10), (3, 20), (4, 20)] {
            deadlines.start(call, ms(timeout), now);
        }
        deadlines.start(5, Duration::MAX, now);
        deadlines.stop(4);
        deadlines.restart(2, now + ms(15));
        deadlines.restart(6, now);
        assert_eq!(deadlines.earliest(), Some(now + ms(20)));
        assert_eq!(deadlines.expired(now + ms(19)), None);
        let mut all = Vec::new();
        while let Some(call) = deadlines.expired(now + ms(30)) {
            all.push(call);
        }
        assert_eq!(all, [3, 2, 1]);
        assert!(deadlines.by_call.is_empty() && deadlines.earliest().is_none());
    }
}

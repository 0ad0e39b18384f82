//! Whether the broker wants new clients: told by whoever looks after it, and asked by `/ready` and the doors.

use std::sync::atomic::{AtomicU8, Ordering};

/// Why there should come no new clients now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unready {
    /// The broker ends: nobody new is let in.
    Draining = 1,
    /// Its store failed.
    Store = 2,
    /// Too much memory is in use.
    Memory = 4,
    /// The broker is going to end, and takes whoever still comes: those who send clients elsewhere are told first.
    Leaving = 8,
}

const ALL: [Unready; 4] = [Unready::Draining, Unready::Leaving, Unready::Store, Unready::Memory];

/// All reasons that there are at the moment; mostly none.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Says that there is a reason, or is no longer.
    pub fn set(&self, reason: Unready, holds: bool) {
        match holds {
            true => self.0.fetch_or(reason as u8, Ordering::Relaxed),
            false => self.0.fetch_and(!(reason as u8), Ordering::Relaxed),
        };
    }

    /// Whether there is this one.
    pub fn is(&self, reason: Unready) -> bool {
        self.0.load(Ordering::Relaxed) & reason as u8 != 0
    }

    /// The first of the reasons.
    pub fn reason(&self) -> Option<Unready> {
        ALL.into_iter().find(|reason| self.is(*reason))
    }
}

impl Unready {
    /// In a line, as a page has it.
    pub fn line(self) -> &'static str {
        match self {
            Unready::Draining | Unready::Leaving => "shutting down\n",
            Unready::Store => "the store failed\n",
            Unready::Memory => "too much memory is in use\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_and_go_one_by_one() {
        let readiness = Readiness::default();
        assert_eq!(readiness.reason(), None);
        readiness.set(Unready::Memory, true);
        readiness.set(Unready::Draining, true);
        assert_eq!(readiness.reason(), Some(Unready::Draining));
        readiness.set(Unready::Draining, false);
        assert_eq!(readiness.reason(), Some(Unready::Memory));
        readiness.set(Unready::Memory, false);
        assert_eq!(readiness.reason(), None);
    }
}

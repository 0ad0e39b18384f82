//! How fast connections are taken in: so many in a second, and a few at once. Whoever comes faster waits.

use std::time::{Duration, Instant};

/// What may come at once counts as the connections of so much time.
const AT_ONCE: Duration = Duration::from_millis(250);

/// The pace of one listener.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// When all that came would have come, had it come evenly.
    even: Option<Instant>,
}

impl Pace {
    /// So many in a second, at least one.
    pub fn new(per_second_max: u32) -> Pace {
        Pace { interval: Duration::from_secs(1) / per_second_max.max(1), even: None }
    }

    /// Counts one, and says how long to wait before the next.
    pub fn take(&mut self, now: Instant) -> Duration {
        let even = self.even.map_or(now, |even| even.max(now)) + self.interval;
        self.even = Some(even);
        (even - now).saturating_sub(AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are taken in so much time when there are always more.
    fn taken(pace: &mut Pace, begin: Instant, time: Duration) -> u32 {
        let (mut now, mut count) = (begin, 0);
        while now <= begin + time {
            now += pace.take(now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_storm_is_taken_in_at_the_pace_and_a_few_wait_for_nobody() {
        let begin = Instant::now();
        let mut pace = Pace::new(2000);
        let count = taken(&mut pace, begin, Duration::from_secs(10));
        assert!((20_000..=20_600).contains(&count), "{count}");
        let rested = begin + Duration::from_secs(60);
        assert!((0..400).all(|_| pace.take(rested).is_zero()), "after a rest a few come at once");
        let mut slow = Pace::new(0);
        assert!(taken(&mut slow, begin, Duration::from_secs(5)) <= 6, "at least one comes");
    }
}

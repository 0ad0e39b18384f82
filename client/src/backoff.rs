//! How long to wait before each new attempt to connect.

use std::time::Duration;

/// Waiting that grows with each attempt that failed, each time by chance a little more or less, so that a thousand
/// clients of a broker that comes back do not come all at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Before the second attempt. The first is made at once.
    pub first: Duration,
    /// The longest.
    pub max: Duration,
    /// By how much each is longer than the one before.
    pub factor: f64,
    /// How much of each is left to chance: with 0.5 it is between half of it and all of it.
    pub jitter: f64,
    /// After so many attempts without success the client gives up; `None` is never.
    pub attempts_max: Option<u32>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.5,
            attempts_max: None,
        }
    }
}

impl Backoff {
    /// No attempt after the first.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts_max: Some(1), ..Self::default() }
    }

    /// How long to wait after `failed` attempts in a row without success; `None` gives up. `chance` is between 0 and 1.
    #[must_use]
    pub fn delay(&self, failed: u32, chance: f64) -> Option<Duration> {
        if failed == 0 {
            return Some(Duration::ZERO);
        }
        if self.attempts_max.is_some_and(|max| failed >= max) {
            return None;
        }
        let exponent = i32::try_from(failed - 1).unwrap_or(i32::MAX);
        let grown = self.first.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        let whole = grown.min(self.max.as_secs_f64());
        let jitter = self.jitter.clamp(0.0, 1.0);
        Some(Duration::from_secs_f64(whole * (1.0 - jitter * chance.clamp(0.0, 1.0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_up_to_a_limit_and_is_never_the_same_for_all() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, 0.0), Some(Duration::ZERO));
        assert_eq!(backoff.delay(1, 0.0), Some(Duration::from_millis(200)));
        assert_eq!(backoff.delay(1, 1.0), Some(Duration::from_millis(100)));
        assert_eq!(backoff.delay(3, 0.0), Some(Duration::from_millis(800)));
        assert_eq!(backoff.delay(1000, 0.0), Some(Duration::from_secs(30)));
        assert_eq!(backoff.delay(u32::MAX, 1.0), Some(Duration::from_secs(15)));
    }

    #[test]
    fn it_gives_up_after_so_many_attempts() {
        assert_eq!(Backoff::never().delay(1, 0.0), None);
        let thrice = Backoff { attempts_max: Some(3), ..Backoff::default() };
        assert!(thrice.delay(2, 0.0).is_some());
        assert_eq!(thrice.delay(3, 0.0), None);
    }
}

//! What is done while memory is short: publishers are slowed, nobody new is let in, the largest are ended.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::core::realms::Realms;
use crate::front::readiness::{Readiness, Unready};
use crate::memory::{self, Level, MemoryLimits};
use crate::metrics;

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(250);

/// Of whom less is waiting than this, nobody is ended: that would help nothing.
const LARGE_BYTES_MIN: usize = 64 * 1024;

/// So many are ended at a time, in each realm, before it is seen what that helped.
const ENDED_MAX: usize = 8;

/// Keeps an eye on memory.
pub(super) struct Pressure {
    limits: MemoryLimits,
    limit_bytes: u64,
    level: Level,
    realms: Arc<Realms>,
    readiness: Arc<Readiness>,
}

impl Pressure {
    /// Within these limits. `None` where nobody knows how much memory there is.
    pub(super) fn new(
        limits: MemoryLimits,
        realms: Arc<Realms>,
        readiness: Arc<Readiness>,
    ) -> Option<Pressure> {
        let Some(limit_bytes) = limits.limit() else {
            tracing::warn!(
                "it is not known how much memory there is: see memory.limit_bytes in the configuration"
            );
            return None;
        };
        Some(Pressure { limits, limit_bytes, level: Level::default(), realms, readiness })
    }

    /// Looks until the shutdown.
    pub(super) async fn watch(mut self, shutdown: CancellationToken) {
        loop {
            if let Some(used_bytes) = memory::resident_bytes() {
                self.note(used_bytes);
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// So much is in use now.
    fn note(&mut self, used_bytes: u64) {
        let level = self.limits.level(used_bytes, self.limit_bytes);
        metrics::MEMORY_BYTES.set(i64::try_from(used_bytes).unwrap_or(i64::MAX));
        metrics::MEMORY_LEVEL.set(level as i64);
        if level != self.level {
            let limit_bytes = self.limit_bytes;
            match level {
                Level::Ample => tracing::info!(used_bytes, limit_bytes, "there is memory enough again"),
                _ => tracing::warn!(used_bytes, limit_bytes, ?level, "memory is short"),
            }
            self.readiness.set(Unready::Memory, level >= Level::Refuse);
        }
        if level != Level::Ample || self.level != Level::Ample {
            for realm in self.realms.living() {
                realm.squeeze(level >= Level::Slow);
                if level == Level::Disconnect {
                    for (waiting_bytes, mailbox) in realm.guests().largest(LARGE_BYTES_MIN, ENDED_MAX) {
                        metrics::MEMORY_EVICTIONS.add(1);
                        tracing::warn!(
                            realm = &**realm.name(),
                            waiting_bytes,
                            "a session is ended: memory is short"
                        );
                        mailbox.overflow();
                    }
                }
            }
        }
        self.level = level;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::core::mailbox::Inbox;
    use crate::core::parcel::{Farewell, Parcel};
    use crate::core::realm::Member;
    use crate::core::testing::{exact, large_mailbox, outgoing, principal, realm, take};

    fn join(realms: &Realms) -> (Member, Inbox) {
        let (mailbox, inbox) = large_mailbox();
        (realms.default_realm().join(principal("u", "r"), mailbox).unwrap(), inbox)
    }

    #[test]
    fn as_memory_gets_short_publishers_wait_then_nobody_new_comes_then_the_largest_go() {
        let realms = Arc::new(Realms::fixed(vec![realm("r")]));
        let readiness = Arc::new(Readiness::default());
        let limits = MemoryLimits {
            limit_bytes: Some(1000),
            slow_percent: 60,
            refuse_percent: 75,
            disconnect_percent: 85,
        };
        let mut pressure = Pressure::new(limits, realms.clone(), readiness.clone()).unwrap();
        let (publisher, mut own) = join(&realms);
        let (mut large, mut inbox) = join(&realms);
        large.subscribe(&exact("t")).unwrap();
        for _ in 0..LARGE_BYTES_MIN / 900 {
            publisher.publish(outgoing("t"), false).unwrap();
        }
        let mut see = |used_bytes| {
            pressure.note(used_bytes);
            (publisher.congested(Waker::noop()), readiness.is(Unready::Memory))
        };
        assert_eq!(see(599), (false, false));
        assert_eq!(see(600), (true, false));
        assert_eq!(see(750), (true, true));
        assert_eq!(large.realm().guests().largest(LARGE_BYTES_MIN, 9).len(), 1);
        assert_eq!(see(850), (true, true));
        assert!(matches!(take(&mut inbox)[..], [Parcel::Farewell(Farewell::SlowConsumer)]));
        assert!(take(&mut own).is_empty(), "who has nothing waiting stays");
        assert_eq!(see(700), (true, false));
        assert_eq!(see(100), (false, false));
    }
}

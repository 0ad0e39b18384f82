//! Goodbyes that are spread over some time: who is sent away mostly comes back at once, and not all are to come back to
//! another broker in the same moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::core::access::SessionId;
use crate::core::parcel::Farewell;
use crate::core::realm::{Entropy, Realm};
use crate::core::realms::Realms;

/// So much time is taken for each session, up to the whole: few of them are no herd.
const EACH: Duration = Duration::from_millis(10);

/// Asks all sessions to end, each at some moment of this time; then the house's own. No realm is made meanwhile, and who
/// still comes in is asked at once.
pub(super) async fn say_farewells(realms: &Realms, spread: Duration, entropy: &Entropy) {
    realms.begin_to_end();
    let begin = Instant::now();
    let mut goodbyes = plan(realms, spread, entropy);
    goodbyes.sort_unstable_by_key(|(at, ..)| *at);
    for (at, realm, session) in goodbyes {
        sleep_until(begin + at).await;
        realm.guests().say_farewell_to(session, Farewell::Shutdown);
    }
    realms.say_farewell(Farewell::Shutdown);
}

fn plan(realms: &Realms, spread: Duration, entropy: &Entropy) -> Vec<(Duration, Arc<Realm>, SessionId)> {
    let mut sessions = Vec::new();
    for realm in realms.living() {
        let ids = realm.guests().list(usize::MAX, |_, _| true);
        sessions.extend(ids.into_iter().map(|session| (realm.clone(), session)));
    }
    let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
    let spread = spread.min(EACH * count);
    let spread_us = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX);
    // The remainder favours the beginning by less than one in 2^40.
    let moment = || Duration::from_micros(entropy() % spread_us.max(1));
    sessions.into_iter().map(|(realm, session)| (moment(), realm, session)).collect()
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::core::mailbox::Inbox;
    use crate::core::realm::{Member, RealmLimits};
    use crate::core::testing::{LIMITS, large_mailbox, principal};

    const SPREAD: Duration = Duration::from_secs(20);

    fn full_house(sessions: usize) -> (Realms, Vec<(Member, Inbox)>) {
        let limits = RealmLimits { sessions_max: sessions, ..LIMITS };
        let entropy: Entropy = Arc::new(rand::random);
        let realms = Realms::fixed(vec![Realm::new("r", limits, entropy)]);
        let join = |_| {
            let (mailbox, inbox) = large_mailbox();
            (realms.default_realm().join(principal("u", "r"), mailbox).unwrap(), inbox)
        };
        let members = (0..sessions).map(join).collect();
        (realms, members)
    }

    /// How many were told in each second, until all were.
    async fn told_by_second(sessions: usize) -> Vec<usize> {
        let (realms, members) = full_house(sessions);
        let entropy: Entropy = Arc::new(rand::random);
        let mut farewells = Box::pin(say_farewells(&realms, SPREAD, &entropy));
        let mut waiting: Vec<(Member, Inbox)> = members;
        let mut seconds = Vec::new();
        while !waiting.is_empty() {
            let _ = tokio::time::timeout(Duration::from_secs(1), farewells.as_mut()).await;
            let before = waiting.len();
            waiting.retain_mut(|(_, inbox)| {
                let mut taken = std::collections::VecDeque::new();
                inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut taken).is_pending()
            });
            seconds.push(before - waiting.len());
            assert!(seconds.len() < 60, "{seconds:?}");
        }
        seconds
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_sees_far_more_goodbyes_than_the_others() {
        let seconds = told_by_second(10_000).await;
        assert!((20..=21).contains(&seconds.len()), "{seconds:?}");
        let mean = 10_000 / 20;
        assert!(seconds.iter().all(|told| *told * 2 < mean * 5), "{seconds:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_do_not_wait_for_long() {
        assert!(told_by_second(100).await.len() <= 2);
        assert_eq!(told_by_second(1).await, [1]);
    }
}

//! Slows down those who guess secrets. Sessions ask before a secret or proof is judged, and tell how it ended.
//!
//! ```text
//! who failed                what happens to the next attempt
//! a user at an address      after 5 failures it is refused for 1 s, twice as long after each further one, up to 60 s
//! an address                the same, whatever the user: but for users who have logged in from there before
//! a user, from elsewhere    it is answered late, by at most 4 s: nobody can lock somebody out of other addresses
//! everybody                 above 50 failures in a second, attempts are refused until it is over, but for users who
//!                           have logged in from their address before
//! ```
//!
//! An attempt that is refused is not judged, and does not count as another failure. While somebody is slowed down
//! only one attempt is judged in the time of the delay, however many come at once. What is known of failures is
//! forgotten after 15 minutes without another one, and, beyond a number of entries, the oldest first: as failures
//! of a second are limited, nobody can push out what is known of them in less than minutes.
//!
//! Who names no user, as those need not who bring a token, is held up for what came from the same address only.
//!
//! An address of IPv6 stands for its network of 64 bits, which one customer has. This machine's own addresses
//! count like others: a proxy may stand in front.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::access::{Peer, Refusal};
use crate::metrics;

/// The delay after the first failure that is too many, and the longest one.
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(60);

/// How late an attempt is answered at most because others failed as the same user. Well below the time that a
/// stranger has.
pub const LATENESS_MAX: Duration = Duration::from_secs(4);

/// How long after the last failure it is forgotten.
const MEMORY: Duration = Duration::from_secs(15 * 60);

/// How much of a user's name is logged, in characters.
const LOGGED_MAX: usize = 64;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct ThrottleLimits {
    /// Failures before attempts are slowed down.
    pub failures_max: u32,
    /// Failures of everybody in a second.
    pub failures_per_second_max: u32,
    /// What is remembered: failures, and, beside them, successes.
    pub entries_max: usize,
}

impl Default for ThrottleLimits {
    fn default() -> ThrottleLimits {
        ThrottleLimits { failures_max: 5, failures_per_second_max: 50, entries_max: 65_536 }
    }
}

/// Who fails, and how often.
pub struct Throttle {
    limits: ThrottleLimits,
    hasher: RandomState,
    state: Mutex<State>,
}

/// Where attempts come from. `None` is this process, and wires without addresses.
type Origin = Option<IpAddr>;

/// Names are as long as their senders like, and are kept as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pair(Origin, u64),
    Address(Origin),
    User(u64),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
    /// Until when attempts are refused.
    until: Instant,
}

struct State {
    failures: Recent<Key, Failures>,
    /// Who logged in, from where.
    proven: Recent<(Origin, u64), ()>,
    /// When the second began of which the failures are counted, and how many there were.
    second: Option<(Instant, u32)>,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle::new(ThrottleLimits::default())
    }
}

impl Throttle {
    /// Of nobody yet.
    pub fn new(limits: ThrottleLimits) -> Throttle {
        let (failures, proven) = (Recent::new(limits.entries_max), Recent::new(limits.entries_max));
        let state = State { failures, proven, second: None };
        Throttle { limits, hasher: RandomState::new(), state: Mutex::new(state) }
    }

    /// Whether an attempt would be refused now. For before work is done that is not yet the judging.
    pub fn ask(&self, peer: &Peer, user: &str, now: Instant) -> Result<(), Refusal> {
        let (origin, user) = (origin(peer), self.hasher.hash_one(user));
        let refused = self.state.lock().refused(&self.limits, origin, user, now);
        refused.map_or(Ok(()), |left| Err(refusal(left)))
    }

    /// Lets an attempt be judged, once this time is over; or not at all.
    pub fn admit(&self, peer: &Peer, user: &str, now: Instant) -> Result<Duration, Refusal> {
        let is_named = !user.is_empty();
        let (origin, user) = (origin(peer), self.hasher.hash_one(user));
        let mut state = self.state.lock();
        if let Some(left) = state.refused(&self.limits, origin, user, now) {
            return Err(refusal(left));
        }
        let is_proven = state.proven.get(&(origin, user)).is_some();
        // Of those that come at once, the first.
        let keys = [Some(Key::Pair(origin, user)), (!is_proven).then_some(Key::Address(origin))];
        for key in keys.into_iter().flatten() {
            if let Some(failures) = state.failures.get_mut(&key)
                && let Some(delay) = failures.delay(&self.limits, now)
            {
                failures.until = now + delay;
            }
        }
        let own = state.failures.get(&Key::Pair(origin, user)).map_or(0, |failures| failures.count);
        let all = state.failures.get(&Key::User(user)).filter(|_| is_named && !is_proven);
        let elsewhere = all.map(|all| Failures { count: all.count.saturating_sub(own), ..*all });
        let lateness = elsewhere.and_then(|failures| failures.delay(&self.limits, now));
        Ok(lateness.unwrap_or_default().min(LATENESS_MAX))
    }

    /// An attempt proved who the user is.
    pub fn succeeded(&self, peer: &Peer, user: &str) {
        let (origin, user) = (origin(peer), self.hasher.hash_one(user));
        let mut state = self.state.lock();
        state.proven.set((origin, user), ());
        // Who mistyped before is no reason to slow down their neighbours.
        if let Some(own) = state.failures.remove(&Key::Pair(origin, user))
            && let Some(address) = state.failures.get_mut(&Key::Address(origin))
        {
            address.count = address.count.saturating_sub(own.count);
        }
    }

    /// An attempt did not. Says so in the log; a secret is never in it.
    pub fn failed(&self, peer: &Peer, user: &str, method: &str, now: Instant) {
        metrics::LOGINS_FAILED.add(1);
        let shown: String = user.chars().take(LOGGED_MAX).collect();
        tracing::warn!(%peer, user = ?shown, method, "login failed");
        let (origin, user) = (origin(peer), self.hasher.hash_one(user));
        let mut state = self.state.lock();
        state.count(now);
        for key in [Key::Pair(origin, user), Key::Address(origin), Key::User(user)] {
            let known = state.failures.remove(&key).filter(|failures| !failures.is_forgotten(now));
            let count = known.map_or(0, |failures| failures.count).saturating_add(1);
            let mut failures = Failures { count, last: now, until: now };
            failures.until = now + failures.delay(&self.limits, now).unwrap_or_default();
            state.failures.set(key, failures);
        }
    }
}

impl Failures {
    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= MEMORY
    }

    /// For how long one more attempt is put off; `None` while there were not too many.
    fn delay(&self, limits: &ThrottleLimits, now: Instant) -> Option<Duration> {
        let excess = self.count.checked_sub(limits.failures_max.max(1))?;
        let delay = DELAY_MIN.saturating_mul(2_u32.saturating_pow(excess));
        (!self.is_forgotten(now)).then_some(delay.min(DELAY_MAX))
    }
}

impl State {
    /// How long attempts of this user from there are refused still.
    fn refused(&self, limits: &ThrottleLimits, origin: Origin, user: u64, now: Instant) -> Option<Duration> {
        let left = |key| {
            let failures =
                self.failures.get(&key).filter(|failures| failures.delay(limits, now).is_some())?;
            failures.until.checked_duration_since(now)
        };
        let pair = left(Key::Pair(origin, user));
        let others = match self.proven.get(&(origin, user)) {
            Some(()) => None,
            None => left(Key::Address(origin)).max(self.ceiling(limits, now)),
        };
        pair.max(others).filter(|left| !left.is_zero())
    }

    /// How long until the second is over in which everybody failed too often.
    fn ceiling(&self, limits: &ThrottleLimits, now: Instant) -> Option<Duration> {
        let (since, count) = self.second?;
        let left = (since + Duration::from_secs(1)).checked_duration_since(now)?;
        (count >= limits.failures_per_second_max).then_some(left)
    }

    fn count(&mut self, now: Instant) {
        match &mut self.second {
            Some((since, count)) if now < *since + Duration::from_secs(1) => *count += 1,
            second => *second = Some((now, 1)),
        }
    }
}

fn refusal(left: Duration) -> Refusal {
    metrics::LOGINS_REFUSED.add(1);
    Refusal::TooManyFailures(left.as_secs() + u64::from(left.subsec_nanos() > 0))
}

fn origin(peer: &Peer) -> Origin {
    let address = peer.address()?;
    Some(match address.ip().to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    })
}

/// The values that were set last.
struct Recent<K, V> {
    max: usize,
    values: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    last: u64,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    fn new(max: usize) -> Recent<K, V> {
        Recent { max, values: HashMap::new(), order: BTreeMap::new(), last: 0 }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key).map(|(_, value)| value)
    }

    fn set(&mut self, key: K, value: V) {
        self.remove(&key);
        self.last += 1;
        self.values.insert(key, (self.last, value));
        self.order.insert(self.last, key);
        if self.values.len() > self.max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.values.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let (place, value) = self.values.remove(key)?;
        self.order.remove(&place);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::secure::Secure;

    fn peer(address: &str) -> Peer {
        Peer::Socket(address.parse().unwrap())
    }

    fn near() -> Peer {
        peer("192.0.2.1:5")
    }

    fn fail(throttle: &Throttle, peer: &Peer, user: &str, now: Instant, times: u32) {
        for _ in 0..times {
            throttle.failed(peer, user, "ticket", now);
        }
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn after_five_failures_each_further_one_doubles_the_delay_up_to_a_minute() {
        let (throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..4 {
            assert_eq!(throttle.admit(&near(), "alice", now), Ok(Duration::ZERO));
            fail(&throttle, &near(), "alice", now, 1);
        }
        assert_eq!(throttle.admit(&near(), "alice", now), Ok(Duration::ZERO));
        for delay in [1, 2, 4, 8, 16, 32, 60, 60] {
            fail(&throttle, &near(), "alice", now, 1);
            let refused = Err(Refusal::TooManyFailures(delay));
            assert_eq!(throttle.ask(&near(), "alice", now), refused.clone());
            assert_eq!(throttle.admit(&near(), "alice", now).map(drop), refused);
            now += seconds(delay) - Duration::from_millis(1);
            assert_eq!(throttle.ask(&near(), "alice", now), Err(Refusal::TooManyFailures(1)));
            now += Duration::from_millis(1);
            assert_eq!(throttle.ask(&near(), "alice", now), Ok(()));
            throttle.admit(&near(), "alice", now).unwrap();
        }
    }

    #[test]
    fn of_many_attempts_at_once_only_one_is_judged_in_the_time_of_a_delay() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, &near(), "alice", now, 7);
        let later = now + seconds(4);
        assert!(throttle.admit(&near(), "alice", later).is_ok());
        for _ in 0..10 {
            assert_eq!(throttle.ask(&near(), "alice", later), Err(Refusal::TooManyFailures(4)));
            assert!(throttle.admit(&near(), "alice", later).is_err());
        }
        assert!(throttle.admit(&near(), "alice", later + seconds(4)).is_ok());
    }

    #[test]
    fn an_address_is_slowed_down_whatever_name_it_tries_but_for_users_who_logged_in_from_there() {
        for address in ["192.0.2.1:5", "127.0.0.1:5", "[::1]:5"] {
            let (throttle, now, at) = (Throttle::default(), Instant::now(), peer(address));
            throttle.succeeded(&at, "alice");
            for user in ["a", "b", "c", "d", "e"] {
                fail(&throttle, &at, user, now, 1);
            }
            assert!(throttle.ask(&at, "f", now).is_err());
            assert_eq!(throttle.admit(&at, "alice", now), Ok(Duration::ZERO));
            assert_eq!(throttle.ask(&peer("192.0.2.2:5"), "f", now), Ok(()));
            // Their own failures count.
            fail(&throttle, &at, "alice", now, 5);
            assert!(throttle.ask(&at, "alice", now).is_err());
        }
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, &Peer::Local, "alice", now, 5);
        assert!(throttle.ask(&Peer::Local, "bob", now).is_err());
    }

    #[test]
    fn nobody_is_locked_out_of_other_addresses_only_slowed_down() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for last in 1..=100 {
            fail(&throttle, &peer(&format!("192.0.2.{last}:5")), "alice", now + seconds(last), 4);
        }
        let (elsewhere, now) = (peer("198.51.100.1:5"), now + seconds(101));
        assert_eq!(throttle.admit(&elsewhere, "alice", now), Ok(LATENESS_MAX));
        assert_eq!(throttle.admit(&elsewhere, "bob", now), Ok(Duration::ZERO));
        throttle.succeeded(&elsewhere, "alice");
        assert_eq!(throttle.admit(&elsewhere, "alice", now), Ok(Duration::ZERO));
    }

    #[test]
    fn who_names_no_user_is_not_slowed_down_by_what_nameless_others_do_elsewhere() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, &near(), "", now, 20);
        assert_eq!(throttle.admit(&peer("198.51.100.1:5"), "", now), Ok(Duration::ZERO));
        assert!(throttle.ask(&near(), "", now).is_err());
    }

    #[test]
    fn peers_over_tls_have_addresses_of_their_own() {
        let secure = |address: &str| {
            let address = address.parse().unwrap();
            Peer::Secure(Arc::new(Secure { address, exporter: None, certificate: None }))
        };
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, &secure("192.0.2.1:5"), "alice", now, 5);
        assert!(throttle.ask(&secure("192.0.2.1:6"), "bob", now).is_err());
        assert_eq!(throttle.ask(&secure("192.0.2.2:5"), "bob", now), Ok(()));
        assert!(throttle.ask(&near(), "bob", now).is_err(), "the same address, in the clear");
    }

    #[test]
    fn a_success_takes_back_ones_own_failures_only() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, &near(), "alice", now, 4);
        throttle.succeeded(&near(), "alice");
        fail(&throttle, &near(), "alice", now, 4);
        assert_eq!(throttle.ask(&near(), "alice", now), Ok(()));
        assert_eq!(throttle.ask(&near(), "bob", now), Ok(()));
        throttle.succeeded(&near(), "alice");
        fail(&throttle, &near(), "bob", now, 5);
        throttle.succeeded(&near(), "alice");
        assert!(throttle.ask(&near(), "carol", now).is_err());
    }

    #[test]
    fn everybody_together_fails_only_so_often_in_a_second() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded(&near(), "alice");
        for last in 0..50 {
            fail(&throttle, &peer(&format!("203.0.113.{last}:5")), &last.to_string(), now, 1);
        }
        assert_eq!(throttle.ask(&near(), "bob", now), Err(Refusal::TooManyFailures(1)));
        assert_eq!(throttle.ask(&near(), "alice", now), Ok(()));
        assert_eq!(throttle.ask(&near(), "bob", now + seconds(1)), Ok(()));
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        fail(&throttle, &near(), "alice", now, 20);
        fail(&throttle, &near(), "alice", now + MEMORY, 4);
        assert_eq!(throttle.ask(&near(), "alice", now + MEMORY), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let limits = ThrottleLimits { entries_max: 6, ..ThrottleLimits::default() };
        let (throttle, now) = (Throttle::new(limits), Instant::now());
        fail(&throttle, &near(), "alice", now, 5);
        fail(&throttle, &peer("192.0.2.2:5"), "bob", now, 5);
        assert!(throttle.ask(&near(), "alice", now).is_err());
        fail(&throttle, &peer("192.0.2.3:5"), "carol", now, 1);
        assert_eq!(throttle.ask(&near(), "alice", now), Ok(()));
        assert!(throttle.ask(&peer("192.0.2.2:5"), "bob", now).is_err());
        for user in 0..100 {
            throttle.succeeded(&near(), &user.to_string());
        }
        let state = throttle.state.lock();
        assert_eq!((state.failures.values.len(), state.failures.order.len()), (6, 6));
        assert_eq!((state.proven.values.len(), state.proven.order.len()), (6, 6));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_mapped_addresses_are_those_of_ipv4() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for last in 1..=5 {
            fail(&throttle, &peer(&format!("[2001:db8::{last}]:5")), &last.to_string(), now, 1);
        }
        assert!(throttle.ask(&peer("[2001:db8::ffff:1]:9"), "x", now).is_err());
        assert_eq!(throttle.ask(&peer("[2001:db8:0:1::1]:9"), "x", now), Ok(()));
        fail(&throttle, &near(), "x", now, 5);
        assert!(throttle.ask(&peer("[::ffff:192.0.2.1]:9"), "y", now).is_err());
    }
}

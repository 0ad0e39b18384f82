//! How many may stand at the door, and how many of those inside may come from one address.
//!
//! Strangers are connections whose peers were not let in yet. Over all of them the door waits: those in front get in
//! or their time is up. From one address no more are taken at a time than a few. This machine's own are not counted
//! so, since a test may be behind them, nor is a proxy that says whom it speaks for: they are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::core::access::Peer;

/// The door.
#[derive(Debug)]
pub struct Gate {
    places: Arc<Semaphore>,
    strangers: Arc<Crowd>,
}

impl Gate {
    /// A door with room for so many.
    pub fn new(strangers_max: usize, per_address_max: usize) -> Arc<Gate> {
        Arc::new(Gate {
            places: Arc::new(Semaphore::new(strangers_max.min(Semaphore::MAX_PERMITS))),
            strangers: Crowd::new(per_address_max),
        })
    }

    /// Waits until there is a place, and leaves it to others: who waits for somebody to come needs none yet.
    pub async fn has_place(self: &Arc<Gate>) {
        drop(self.place().await);
    }

    /// Waits for a place.
    pub async fn place(self: &Arc<Gate>) -> Place {
        let place = self.places.clone().acquire_owned().await;
        Place(place.expect("the semaphore is never closed"))
    }

    /// A place for somebody who does not wait for one; `None` when there is none.
    pub fn try_enter(self: &Arc<Gate>, peer: &Peer) -> Option<Permit> {
        let place = Place(self.places.clone().try_acquire_owned().ok()?);
        self.enter(place, peer)
    }

    /// Gives the place to somebody; `None` when too many come from there.
    pub fn enter(self: &Arc<Gate>, place: Place, peer: &Peer) -> Option<Permit> {
        Some(Permit { _place: place, counted: self.strangers.enter(peer)? })
    }

    /// Gives the place to a proxy, which is going to say who it is for.
    pub fn enter_proxy(&self, place: Place) -> Permit {
        Permit { _place: place, counted: None }
    }

    /// Counts the place as that of somebody else. False when too many come from there.
    pub fn account(&self, permit: &mut Permit, peer: &Peer) -> bool {
        let known = permit.counted.as_ref().map(|counted| counted.address);
        if known == counted_address(peer) {
            return true;
        }
        permit.counted = None;
        match self.strangers.enter(peer) {
            Some(counted) => {
                permit.counted = counted;
                true
            }
            None => false,
        }
    }
}

/// A place that nobody took yet.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// Somebody's place, until they are let in or go.
#[derive(Debug)]
pub struct Permit {
    _place: Place,
    counted: Option<Counted>,
}

/// How many there are of each address.
#[derive(Debug)]
pub struct Crowd {
    per_address_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Crowd {
    /// Nobody yet, and no more than so many of each.
    pub fn new(per_address_max: usize) -> Arc<Crowd> {
        Arc::new(Crowd { per_address_max, by_address: Mutex::default() })
    }

    /// Counts somebody, if they are counted by address at all; `None` when there are too many.
    pub fn enter(self: &Arc<Crowd>, peer: &Peer) -> Option<Option<Counted>> {
        let Some(address) = counted_address(peer) else { return Some(None) };
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.per_address_max {
            if *count == 0 {
                by_address.remove(&address);
            }
            return None;
        }
        *count += 1;
        Some(Some(Counted { crowd: self.clone(), address }))
    }

    /// Whether one more would be counted.
    pub fn has_room(&self, peer: &Peer) -> bool {
        counted_address(peer).is_none_or(|address| {
            self.by_address.lock().get(&address).copied().unwrap_or(0) < self.per_address_max
        })
    }
}

/// One of a crowd, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_address = self.crowd.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// What somebody is counted by. Of IPv6 the network, as everybody has 2^64 addresses in it.
fn counted_address(peer: &Peer) -> Option<IpAddr> {
    let address = match peer.address()?.ip().to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    };
    (!address.is_loopback()).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    fn peer(last: u8) -> Peer {
        Peer::Socket(SocketAddr::from(([192, 0, 2, last], 5)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_waits_until_somebody_was_let_in_or_went() {
        let gate = Gate::new(2, 9);
        let first = gate.enter(gate.place().await, &peer(1)).unwrap();
        let _second = gate.enter(gate.place().await, &peer(2)).unwrap();
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, gate.place()).await.is_err());
        drop(first);
        assert!(tokio::time::timeout(second, gate.place()).await.is_ok());
    }

    #[tokio::test]
    async fn of_one_address_only_a_few_are_taken_at_a_time_and_nothing_is_left_of_them() {
        let gate = Gate::new(100, 2);
        let mut permits = Vec::new();
        for _ in 0..2 {
            permits.push(gate.enter(gate.place().await, &peer(1)).unwrap());
        }
        assert!(gate.enter(gate.place().await, &peer(1)).is_none());
        let mapped = Peer::Socket("[::ffff:192.0.2.1]:7".parse().unwrap());
        assert!(gate.enter(gate.place().await, &mapped).is_none(), "the same, written as IPv6");
        permits.push(gate.enter(gate.place().await, &peer(2)).unwrap());
        permits.swap_remove(0);
        permits.push(gate.enter(gate.place().await, &peer(1)).unwrap());
        drop(permits);
        assert!(gate.strangers.by_address.lock().is_empty());
        assert_eq!(gate.places.available_permits(), 100);
    }

    #[tokio::test]
    async fn all_addresses_of_an_ipv6_network_are_one() {
        let gate = Gate::new(100, 1);
        let of = |text: &str| Peer::Socket(text.parse().unwrap());
        let _first = gate.enter(gate.place().await, &of("[2001:db8::1]:1")).unwrap();
        assert!(gate.enter(gate.place().await, &of("[2001:db8::ffff:1]:1")).is_none());
        assert!(gate.enter(gate.place().await, &of("[2001:db8:0:1::1]:1")).is_some());
    }

    #[tokio::test]
    async fn this_machines_own_are_not_counted_by_address() {
        let gate = Gate::new(10, 1);
        let own = Peer::Socket(SocketAddr::from(([127, 0, 0, 1], 5)));
        let mut permits = Vec::new();
        for _ in 0..10 {
            permits.push(gate.enter(gate.place().await, &own).unwrap());
        }
        assert!(gate.strangers.by_address.lock().is_empty());
    }

    #[tokio::test]
    async fn a_place_is_counted_for_whom_a_proxy_speaks() {
        let gate = Gate::new(10, 1);
        let mut permit = gate.enter_proxy(gate.place().await);
        assert!(gate.account(&mut permit, &peer(1)) && gate.account(&mut permit, &peer(1)));
        let mut other = gate.enter_proxy(gate.place().await);
        assert!(!gate.account(&mut other, &peer(1)), "there is one of that address already");
        assert!(gate.account(&mut permit, &peer(2)));
        assert!(gate.account(&mut other, &peer(1)));
    }
}

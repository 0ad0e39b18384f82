//! How many strangers may stand at the door: connections whose peers were not let in yet.
//!
//! Over all of them the door waits: those in front get in or their time is up. From one address no more
//! are taken at a time than a few; this machine's own are not counted so, since a proxy or a test may be
//! behind them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::core::access::Peer;

/// The door.
#[derive(Debug)]
pub struct Gate {
    places: Arc<Semaphore>,
    per_address_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Gate {
    /// A door with room for so many.
    pub fn new(strangers_max: usize, per_address_max: usize) -> Arc<Gate> {
        Arc::new(Gate {
            places: Arc::new(Semaphore::new(strangers_max)),
            per_address_max,
            by_address: Mutex::default(),
        })
    }

    /// Waits for a place.
    pub async fn place(self: &Arc<Gate>) -> Place {
        let place = self.places.clone().acquire_owned().await;
        Place(place.expect("the semaphore is never closed"))
    }

    /// A place for somebody who does not wait for one; `None` when there is none.
    pub fn try_enter(self: &Arc<Gate>, peer: &Peer) -> Option<Permit> {
        let place = Place(self.places.clone().try_acquire_owned().ok()?);
        match peer {
            Peer::Secure(secure) => self.enter(place, secure.address.ip()),
            Peer::Socket(address) => self.enter(place, address.ip()),
            Peer::Unix(_) | Peer::Local => Some(Permit { _place: place, counted: None }),
        }
    }

    /// Gives the place to somebody; `None` when too many come from there.
    pub fn enter(self: &Arc<Gate>, place: Place, address: IpAddr) -> Option<Permit> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Some(Permit { _place: place, counted: None });
        }
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        Some(Permit { _place: place, counted: Some((self.clone(), address)) })
    }
}

/// A place that nobody took yet.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// Somebody's place, until they are let in or go.
#[derive(Debug)]
pub struct Permit {
    _place: Place,
    counted: Option<(Arc<Gate>, IpAddr)>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((gate, address)) = &self.counted {
            let mut by_address = gate.by_address.lock();
            if let Some(count) = by_address.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_waits_until_somebody_was_let_in_or_went() {
        let gate = Gate::new(2, 9);
        let first = gate.enter(gate.place().await, address(1)).unwrap();
        let _second = gate.enter(gate.place().await, address(2)).unwrap();
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
            permits.push(gate.enter(gate.place().await, address(1)).unwrap());
        }
        assert!(gate.enter(gate.place().await, address(1)).is_none());
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xFFFF, 0xC000, 0x0201]);
        assert!(gate.enter(gate.place().await, mapped).is_none(), "the same, written as IPv6");
        permits.push(gate.enter(gate.place().await, address(2)).unwrap());
        permits.swap_remove(0);
        permits.push(gate.enter(gate.place().await, address(1)).unwrap());
        drop(permits);
        assert!(gate.by_address.lock().is_empty());
        assert_eq!(gate.places.available_permits(), 100);
    }

    #[tokio::test]
    async fn this_machines_own_are_not_counted_by_address() {
        let gate = Gate::new(10, 1);
        let own = IpAddr::from([127, 0, 0, 1]);
        let mut permits = Vec::new();
        for _ in 0..10 {
            permits.push(gate.enter(gate.place().await, own).unwrap());
        }
        assert!(gate.by_address.lock().is_empty());
    }
}

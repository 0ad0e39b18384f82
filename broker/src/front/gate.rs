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

//! A consumer of a queue, as its peer sees it: what it holds, and what an ACK is about.

use std::collections::VecDeque;

use tandem_protocols::stomp::state::AckMode;

use crate::core::parcel::{ConsumerId, Delivery};
use crate::stomp::destination::Place;
use crate::stomp::message::DeliveryId;

/// A consumer of a queue, and what it holds.
#[derive(Debug)]
pub(in crate::stomp) struct Consumer {
    pub(in crate::stomp) id: ConsumerId,
    pub(in crate::stomp) place: Place,
    pub(in crate::stomp) mode: AckMode,
    /// In the order in which the peer got them. No more than its credit.
    pub(in crate::stomp) unsettled: VecDeque<Unsettled>,
}

/// A delivery that the peer got and has not acknowledged.
#[derive(Debug)]
pub(in crate::stomp) struct Unsettled {
    pub(in crate::stomp) sequence: u64,
    pub(in crate::stomp) redeliveries: u32,
    /// A transaction decides about it.
    pub(in crate::stomp) claimed: bool,
}

/// What is left of a subscription until its last delivery is settled.
#[derive(Debug)]
pub(in crate::stomp) struct Closed {
    pub(in crate::stomp) id: Option<Box<str>>,
    pub(in crate::stomp) consumer: Consumer,
}

impl Unsettled {
    pub(in crate::stomp) fn of(delivery: &Delivery) -> Unsettled {
        let Delivery { sequence, redeliveries, .. } = *delivery;
        Unsettled { sequence, redeliveries, claimed: false }
    }
}

impl Consumer {
    pub(in crate::stomp) fn new(id: ConsumerId, place: Place, mode: AckMode) -> Consumer {
        Consumer { id, place, mode, unsettled: VecDeque::new() }
    }

    /// The deliveries that an ACK of this one is about, first to last; none if it is not to be acknowledged.
    pub(in crate::stomp) fn covered(&self, id: DeliveryId) -> Vec<u64> {
        let is = |held: &Unsettled| held.sequence == id.sequence && held.redeliveries == id.redeliveries;
        let Some(place) = self.unsettled.iter().position(|held| is(held) && !held.claimed) else {
            return Vec::new();
        };
        match self.mode {
            AckMode::Auto => Vec::new(),
            AckMode::ClientIndividual => vec![id.sequence],
            AckMode::Client => {
                let before = self.unsettled.range(..=place).filter(|held| !held.claimed);
                before.map(|held| held.sequence).collect()
            }
        }
    }
}

//! A consumer of a queue, as its peer sees it: what it holds, and what an ACK is about.

use std::collections::VecDeque;

use smallvec::SmallVec;

use tandem_protocols::stomp::state::AckMode;

use crate::core::parcel::{ConsumerId, Delivery};
use crate::core::queues::Outstanding;
use crate::stomp::destination::Place;
use crate::stomp::message::DeliveryId;

/// A consumer of a queue, and what it holds.
#[derive(Debug)]
pub(in crate::stomp) struct Consumer {
    pub(in crate::stomp) id: ConsumerId,
    pub(in crate::stomp) place: Place,
    pub(in crate::stomp) mode: AckMode,
    /// What the peer got and has not acknowledged, by its place in the queue. No more than its credit.
    unsettled: Outstanding<Unsettled>,
    /// Where an ACK is about all before it: those of them that no transaction decides about, as the peer got them.
    order: VecDeque<(u64, u64)>,
    /// Counts what the peer got.
    last: u64,
}

/// A delivery that the peer got and has not acknowledged.
#[derive(Debug)]
struct Unsettled {
    redeliveries: u32,
    /// A transaction decides about it.
    claimed: bool,
    /// When the peer got it.
    turn: u64,
}

/// Places in the queue. Mostly an ACK is about one.
pub(in crate::stomp) type Covered = SmallVec<[u64; 2]>;

/// What is left of a subscription until its last delivery is settled.
#[derive(Debug)]
pub(in crate::stomp) struct Closed {
    pub(in crate::stomp) id: Option<Box<str>>,
    pub(in crate::stomp) consumer: Consumer,
}

impl Consumer {
    pub(in crate::stomp) fn new(id: ConsumerId, place: Place, mode: AckMode) -> Consumer {
        let (unsettled, order) = (Outstanding::default(), VecDeque::new());
        Consumer { id, place, mode, unsettled, order, last: 0 }
    }

    /// True when there is nothing that the peer could acknowledge.
    pub(in crate::stomp) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// The peer gets a delivery.
    pub(in crate::stomp) fn hold(&mut self, delivery: &Delivery) {
        let Delivery { sequence, redeliveries, .. } = *delivery;
        self.last += 1;
        if self.mode == AckMode::Client {
            self.order.push_back((self.last, sequence));
        }
        self.unsettled.insert(sequence, Unsettled { redeliveries, claimed: false, turn: self.last });
    }

    /// Takes out the deliveries that an ACK of this one is about, first to last; none if it is not to be acknowledged.
    pub(in crate::stomp) fn take_covered(&mut self, id: DeliveryId) -> Covered {
        let covered = self.covered(id);
        for sequence in &covered {
            self.unsettled.remove(*sequence);
        }
        covered
    }

    /// The same for a transaction, which claims them until its end: no other ACK can be about them then.
    pub(in crate::stomp) fn claim_covered(&mut self, id: DeliveryId) -> Covered {
        let covered = self.covered(id);
        for sequence in &covered {
            if let Some(held) = self.unsettled.get_mut(*sequence) {
                held.claimed = true;
            }
        }
        covered
    }

    /// Gives back a delivery that was claimed. Of several the last one first, as they are before all others then.
    pub(in crate::stomp) fn give_back(&mut self, sequence: u64) {
        let Some(held) = self.unsettled.get_mut(sequence) else { return };
        held.claimed = false;
        if self.mode == AckMode::Client {
            let turn = held.turn;
            let place = self.order.partition_point(|(before, _)| *before < turn);
            self.order.insert(place, (turn, sequence));
        }
    }

    /// A delivery that was claimed is settled.
    pub(in crate::stomp) fn forget(&mut self, sequence: u64) {
        self.unsettled.remove(sequence);
    }

    /// What an ACK is about. What was before it in the order of an ACK about several is not there any more.
    fn covered(&mut self, id: DeliveryId) -> Covered {
        let held = self.unsettled.get(id.sequence);
        let Some(held) = held.filter(|held| held.redeliveries == id.redeliveries && !held.claimed) else {
            return Covered::new();
        };
        match self.mode {
            AckMode::Auto => Covered::new(),
            AckMode::ClientIndividual => Covered::from_slice(&[id.sequence]),
            AckMode::Client => {
                let count = self.order.partition_point(|(turn, _)| *turn <= held.turn);
                self.order.drain(..count).map(|(_, sequence)| sequence).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What the peer holds, in the order in which it got it: place, redeliveries, and whether that is claimed.
    #[derive(Default)]
    struct Model(Vec<(u64, u32, bool)>);

    impl Model {
        fn covered(&self, id: DeliveryId, mode: AckMode) -> Vec<u64> {
            let is = |held: &(u64, u32, bool)| *held == (id.sequence, id.redeliveries, false);
            let Some(place) = self.0.iter().position(is) else { return Vec::new() };
            match mode {
                AckMode::Auto => Vec::new(),
                AckMode::ClientIndividual => vec![id.sequence],
                AckMode::Client => {
                    self.0[..=place].iter().filter(|held| !held.2).map(|(sequence, ..)| *sequence).collect()
                }
            }
        }

        fn forget(&mut self, sequences: &[u64]) {
            self.0.retain(|(known, ..)| !sequences.contains(known));
        }

        fn claim(&mut self, sequences: &[u64], claimed: bool) {
            let is = |held: &&mut (u64, u32, bool)| sequences.contains(&held.0);
            self.0.iter_mut().filter(is).for_each(|held| held.2 = claimed);
        }
    }

    fn delivery(sequence: u64, redeliveries: u32) -> Delivery {
        let publication = crate::core::testing::publication("q", sequence);
        Delivery { publication, consumer: ConsumerId(1), sequence, redeliveries, from_topic: false }
    }

    fn check(mode: AckMode, actions: Vec<(u8, u64, u32)>) {
        let mut consumer = Consumer::new(ConsumerId(1), Place::Queue, mode);
        let mut model = Model::default();
        let mut transactions: Vec<Covered> = Vec::new();
        for (action, sequence, redeliveries) in actions {
            let id = DeliveryId { consumer: consumer.id, sequence, redeliveries };
            let is_held = model.0.iter().any(|(known, ..)| *known == sequence);
            match action {
                0..=3 if !is_held => {
                    consumer.hold(&delivery(sequence, redeliveries));
                    model.0.push((sequence, redeliveries, false));
                }
                0..=5 => {
                    let covered = model.covered(id, mode);
                    assert_eq!(consumer.take_covered(id)[..], covered);
                    model.forget(&covered);
                }
                6 => {
                    let covered = model.covered(id, mode);
                    model.claim(&covered, true);
                    transactions.push(consumer.claim_covered(id));
                    assert_eq!(transactions.last().unwrap()[..], covered);
                }
                _ if transactions.is_empty() => {}
                _ => {
                    let ends = transactions.swap_remove(sequence as usize % transactions.len());
                    if action == 7 {
                        ends.iter().rev().for_each(|sequence| consumer.give_back(*sequence));
                        model.claim(&ends, false);
                    } else {
                        ends.iter().for_each(|sequence| consumer.forget(*sequence));
                        model.forget(&ends);
                    }
                }
            }
            assert_eq!(consumer.is_settled(), model.0.is_empty());
        }
    }

    proptest! {
        #[test]
        fn an_ack_is_about_what_a_simple_model_says(
            actions in vec((0..9_u8, 0..24_u64, 0..2_u32), 0..300),
            mode in prop::sample::select(vec![AckMode::Client, AckMode::ClientIndividual]),
        ) {
            check(mode, actions);
        }
    }
}

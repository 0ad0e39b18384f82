//! Who is served next, of several who send to one receiver: by turns, fairly by bytes, and each of them in order.
//!
//! This is deficit round robin: in its turn a lane may have a quantum more, and what is longer waits until enough was
//! saved. A sender has a lane of its own as long as there are few of them. Those beyond share lanes, by chance, so that
//! no number of senders makes this large; among those who share one, first come is first served.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

/// What a lane gets more in each turn, in bytes. With many senders a newcomer waits for as much from each of them.
pub const QUANTUM_BYTES: usize = 16 * 1024;

/// Senders that have a lane of their own.
pub const OWN_LANES_MAX: usize = 32;

/// Lanes for all others.
pub const SHARED_LANES: u64 = 32;

/// What waits, by sender `F`. Empty, it should be dropped: it keeps what it allocated.
#[derive(Debug)]
pub struct Flows<F, T> {
    /// None of them is empty. The first has the turn.
    lanes: VecDeque<Lane<F, T>>,
    own_lanes: usize,
    /// The first one has got its quantum for this turn.
    is_granted: bool,
}

#[derive(Debug)]
struct Lane<F, T> {
    owner: Owner<F>,
    /// With what each costs.
    waiting: VecDeque<(usize, T)>,
    bytes: usize,
    /// What it may still have.
    deficit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner<F> {
    One(F),
    Several(u64),
}

impl<F, T> Default for Flows<F, T> {
    fn default() -> Flows<F, T> {
        Flows { lanes: VecDeque::new(), own_lanes: 0, is_granted: false }
    }
}

impl<F: Copy + Eq + Hash, T> Flows<F, T> {
    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Puts an item behind all others of its sender.
    pub fn push(&mut self, flow: F, cost: usize, item: T) {
        let lane = self.lane_of(flow);
        lane.bytes += cost;
        lane.waiting.push_back((cost, item));
    }

    /// Whoever shares a lane stays in it while anything is in it, also when a lane of its own becomes free: what it
    /// sends must not overtake what it sent.
    fn lane_of(&mut self, flow: F) -> &mut Lane<F, T> {
        let own = Owner::One(flow);
        let mut place = self.lanes.iter().position(|lane| lane.owner == own);
        if place.is_none() {
            let hasher = BuildHasherDefault::<DefaultHasher>::new();
            let shared = Owner::Several(hasher.hash_one(flow) % SHARED_LANES);
            let has_shared = self.lanes.len() > self.own_lanes;
            place = if has_shared { self.lanes.iter().position(|lane| lane.owner == shared) } else { None };
            if place.is_none() {
                let is_own = self.own_lanes < OWN_LANES_MAX;
                self.own_lanes += usize::from(is_own);
                let owner = if is_own { own } else { shared };
                self.lanes.push_back(Lane { owner, waiting: VecDeque::new(), bytes: 0, deficit: 0 });
            }
        }
        let place = place.unwrap_or(self.lanes.len() - 1);
        &mut self.lanes[place]
    }

    /// The next item, with its cost.
    pub fn pop(&mut self) -> Option<(usize, T)> {
        let mut passed_over = 0;
        loop {
            let is_alone = self.lanes.len() == 1;
            let lane = self.lanes.front_mut()?;
            if !self.is_granted {
                lane.deficit += QUANTUM_BYTES;
                self.is_granted = true;
            }
            let cost = lane.waiting.front().map_or(0, |(cost, _)| *cost);
            if is_alone || cost <= lane.deficit {
                // Who is alone owes nobody anything, and saves nothing.
                lane.deficit = if is_alone { 0 } else { lane.deficit - cost };
                let item = lane.waiting.pop_front();
                lane.bytes -= cost;
                if lane.waiting.is_empty() {
                    self.remove_lane(0);
                }
                return item;
            }
            self.lanes.rotate_left(1);
            self.is_granted = false;
            passed_over += 1;
            if passed_over == self.lanes.len() {
                self.skip_idle_rounds();
                passed_over = 0;
            }
        }
    }

    /// All are saving for something long: grants the rounds at once in which nothing would happen.
    fn skip_idle_rounds(&mut self) {
        let rounds = |lane: &Lane<F, T>| {
            let cost = lane.waiting.front().map_or(0, |(cost, _)| *cost);
            cost.saturating_sub(lane.deficit).div_ceil(QUANTUM_BYTES)
        };
        let idle = self.lanes.iter().map(rounds).min().unwrap_or(0).saturating_sub(1);
        for lane in &mut self.lanes {
            lane.deficit += idle * QUANTUM_BYTES;
        }
    }

    fn remove_lane(&mut self, place: usize) {
        if let Some(lane) = self.lanes.remove(place) {
            self.own_lanes -= usize::from(matches!(lane.owner, Owner::One(_)));
        }
        // Whoever comes first now has a turn of its own.
        self.is_granted &= place > 0;
    }

    /// All that waits; of each sender in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.lanes.iter().flat_map(|lane| lane.waiting.iter().map(|(_, item)| item))
    }

    /// Takes out the oldest of those that may go, of the lane that has most bytes waiting of those that have one.
    pub fn evict(&mut self, may_go: impl Fn(&T) -> bool) -> Option<(usize, T)> {
        let found = |lane: &Lane<F, T>| lane.waiting.iter().position(|(_, item)| may_go(item));
        let lanes = self.lanes.iter().enumerate();
        let candidates = lanes.filter_map(|(place, lane)| Some((lane.bytes, place, found(lane)?)));
        let (_, place, index) = candidates.max_by_key(|(bytes, ..)| *bytes)?;
        let lane = &mut self.lanes[place];
        let evicted = lane.waiting.remove(index);
        lane.bytes -= evicted.as_ref().map_or(0, |(cost, _)| *cost);
        if lane.waiting.is_empty() {
            self.remove_lane(place);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MIB: usize = 1 << 20;

    fn drain(flows: &mut Flows<u64, (u64, usize)>) -> Vec<(usize, (u64, usize))> {
        std::iter::from_fn(|| flows.pop()).collect()
    }

    #[test]
    fn alone_everything_comes_as_it_was_sent() {
        let mut flows = Flows::default();
        (0..100).for_each(|place| flows.push(1, place * 1000, (1, place)));
        let order: Vec<_> = drain(&mut flows).into_iter().map(|(_, (_, place))| place).collect();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
        assert!(flows.is_empty() && flows.own_lanes == 0);
    }

    #[test]
    fn two_get_the_same_bytes_whatever_the_size_of_their_messages_is() {
        let mut flows = Flows::default();
        (0..16).for_each(|place| flows.push(1, MIB, (1, place)));
        (0..16 * 1024).for_each(|place| flows.push(2, 1024, (2, place)));
        let mut bytes = [0; 3];
        for _ in 0..8 * 1024 {
            let (cost, (flow, _)) = flows.pop().unwrap();
            bytes[flow as usize] += cost;
            assert!(bytes[1].abs_diff(bytes[2]) <= MIB + QUANTUM_BYTES, "{bytes:?}");
        }
    }

    #[test]
    fn a_message_that_is_long_waits_for_its_share_and_no_longer() {
        let mut flows = Flows::default();
        for flow in 0..4 {
            (0..2).for_each(|place| flows.push(flow, 16 * MIB, (flow, place)));
        }
        let order: Vec<_> = drain(&mut flows).into_iter().map(|(_, item)| item).collect();
        assert_eq!(order, [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn a_thousand_senders_take_a_bounded_number_of_lanes_and_keep_their_order() {
        let mut flows = Flows::default();
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        let mut sent: BTreeMap<u64, usize> = BTreeMap::new();
        let mut check = |item: Option<(usize, (u64, usize))>| {
            let (_, (flow, place)) = item.unwrap();
            let seen = seen.entry(flow).or_default();
            assert_eq!(*seen, place, "of {flow}");
            *seen += 1;
        };
        for round in 0..20_u64 {
            for step in 0..1000 {
                let flow = (step * 7919 + round) % 1000;
                let place = sent.entry(flow).or_default();
                flows.push(flow, 1 + (step as usize * 37) % 5000, (flow, *place));
                *place += 1;
                assert!(flows.lanes.len() <= OWN_LANES_MAX + SHARED_LANES as usize);
                if step % 3 > 0 {
                    check(flows.pop());
                }
            }
            // Now and then lanes become free, while others still share.
            (0..round * 30).for_each(|_| check(flows.pop()));
        }
        while !flows.is_empty() {
            check(flows.pop());
        }
        assert_eq!(seen, sent);
    }

    #[test]
    fn who_has_most_waiting_loses_its_oldest() {
        let mut flows = Flows::default();
        (0..3).for_each(|place| flows.push(1, 10, (1, place)));
        (0..2).for_each(|place| flows.push(2, 100, (2, place)));
        let may_go = |item: &(u64, usize)| *item != (2, 0);
        assert_eq!(flows.evict(may_go), Some((100, (2, 1))));
        assert_eq!(flows.evict(may_go), Some((10, (1, 0))));
        assert_eq!(flows.evict(|item| item.0 == 2), Some((100, (2, 0))));
        assert_eq!(flows.evict(|item| item.0 == 2), None);
        assert_eq!(drain(&mut flows), [(10, (1, 1)), (10, (1, 2))]);
    }
}

//! The lanes that there are, by the number that only their client knows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::realm::Entropy;
use crate::front::longpoll::lane::{Lane, LaneWire};
use crate::metrics;

/// The number of a lane: 128 random bits. Who has it can read and send in the session's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId([u64; 2]);

/// Its digits, in hexadecimal.
const DIGITS: usize = 32;

impl LaneId {
    /// Reads what [`LaneId::secret`] wrote, and nothing that only means the same.
    pub fn parse(text: &str) -> Option<LaneId> {
        let legal = |octet: u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != DIGITS || !text.bytes().all(legal) {
            return None;
        }
        let (high, low) = text.split_at(DIGITS / 2);
        let half = |digits| u64::from_str_radix(digits, 16).ok();
        Some(LaneId([half(high)?, half(low)?]))
    }

    /// All of it, for its client and nobody else.
    pub fn secret(&self) -> String {
        format!("{:016x}{:016x}", self.0[0], self.0[1])
    }
}

/// Its beginning, for the log: to tell lanes apart, not to use one.
impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", self.0[0] >> 32)
    }
}

/// The lanes that there are. Their number is bounded by that of connections.
pub struct Lanes {
    by_id: Mutex<HashMap<LaneId, Arc<Lane>>>,
    entropy: Entropy,
}

/// The place of a lane. Dropping it ends the lane.
pub struct Listed {
    lanes: Arc<Lanes>,
    /// The lane's number.
    pub id: LaneId,
    /// The lane.
    pub lane: Arc<Lane>,
}

impl Lanes {
    /// None yet.
    pub fn new(entropy: Entropy) -> Arc<Lanes> {
        Arc::new(Lanes { by_id: Mutex::default(), entropy })
    }

    /// A new lane, and the pump's end of it. There is none if the entropy repeats itself.
    pub fn open(self: &Arc<Lanes>) -> Option<(Listed, LaneWire)> {
        let id = LaneId([(self.entropy)(), (self.entropy)()]);
        let (lane, wire) = Lane::new();
        match self.by_id.lock().entry(id) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => place.insert(lane.clone()),
        };
        metrics::LONG_POLLS.add(1);
        Some((Listed { lanes: self.clone(), id, lane }, wire))
    }

    /// The lane of that number.
    pub fn get(&self, id: LaneId) -> Option<Arc<Lane>> {
        self.by_id.lock().get(&id).cloned()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.lock().is_empty()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.lanes.by_id.lock().remove(&self.id);
        self.lane.end();
        metrics::LONG_POLLS.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_it_is_written_and_not_otherwise() {
        let id = LaneId([0x1234_5678_9abc_def0, 7]);
        assert_eq!(id.secret(), "123456789abcdef00000000000000007");
        assert_eq!(LaneId::parse(&id.secret()), Some(id));
        for other in
            ["", "123", "123456789ABCDEF00000000000000007", "+23456789abcdef00000000000000007", "../.."]
        {
            assert_eq!(LaneId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_log_gets_a_quarter_of_a_number() {
        assert_eq!(format!("{:?}", LaneId([0x1234_5678_9abc_def0, 7])), "12345678…");
    }

    #[test]
    fn entropy_that_repeats_itself_opens_no_lane_twice() {
        let lanes = Lanes::new(Arc::new(|| 4));
        let (listed, _wire) = lanes.open().unwrap();
        assert!(lanes.open().is_none());
        drop(listed);
        assert!(lanes.is_empty() && lanes.open().is_some());
    }
}

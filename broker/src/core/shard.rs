//! Shards: of several who share what there is to do, the one that a key belongs to.
//!
//! By rendezvous hashing: a key weighs each of the holders, and belongs to the one that weighs most. Everybody who
//! asks comes to the same holder as long as the holders are the same; when one comes or goes, only those keys
//! move that it gets or had.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// What belongs to one of the holders: a key of the application, or the name of a holder, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardKey(NonZeroU64);

impl ShardKey {
    /// The key of these bytes. Nobody has to be unable to find others of the same hash: who chooses keys chooses
    /// their holder in any case.
    pub fn of(bytes: &[u8]) -> ShardKey {
        // FNV-1a, whose high bits depend little on the last bytes: hence the mixing.
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold));
        ShardKey(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }

    /// The hash.
    pub fn number(self) -> u64 {
        self.0.get()
    }

    /// How much a holder of that number weighs for this key.
    pub fn weight(self, holder: u64) -> u64 {
        mix(self.number() ^ mix(holder.wrapping_add(0x9e37_79b9_7f4a_7c15)))
    }
}

/// The last steps of `SplitMix64`: each bit of the number counts for each bit of the result.
pub fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(key: u64, holders: &[u64]) -> u64 {
        let key = ShardKey::of(format!("key {key}").as_bytes());
        holders.iter().copied().max_by_key(|holder| key.weight(*holder)).unwrap()
    }

    #[test]
    fn keys_spread_evenly_and_only_those_of_a_holder_that_goes_move() {
        const KEYS: u64 = 10_000;
        let all: Vec<u64> = (1..=10).collect();
        let fewer: Vec<u64> = (1..=9).collect();
        let mut held = [0; 11];
        for key in 0..KEYS {
            let before = holder(key, &all);
            held[usize::try_from(before).unwrap()] += 1;
            if before != 10 {
                assert_eq!(holder(key, &fewer), before);
            }
        }
        assert!(held[1..].iter().all(|count| (800..1200).contains(count)), "{held:?}");
    }
}

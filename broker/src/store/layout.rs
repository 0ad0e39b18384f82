//! What the file holds.
//!
//! ```text
//! meta        "format"            the version of all this
//! queues      queue               realm, name and properties; queues_copy holds the same once more
//! totals      queue               the last place given, how many messages, and their bytes
//! blocks      queue, place / 256  of each message in it: place, cost, deliveries
//! records     queue, place        cost and message
//! notes       queue, place        what is to be known of a message at the start, beside that; of most nothing
//! aside       queue, place        what was left of a message that could not be read
//! ```
//!
//! The engine does not notice when the disk changes a bit, so that each row ends in a checksum over its table,
//! its key and itself. Rows that are lost are noticed as well: a block says which messages there are, the
//! totals how many, and a queue is written twice. The blocks are all that is read at the start: of a million
//! messages they are 9 MB.
//!
//! What topics keep are queues as well, marked by their properties: shelves. The format is 2 once there was one, for
//! a broker that knows none would let clients consume from them.

use std::collections::BTreeMap;

use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::core::store::Properties;

/// The version of the layout with shelves.
pub(super) const FORMAT: u64 = 2;

/// The version without: what a new file has, until something is put on a shelf.
pub(super) const FORMAT_OF_QUEUES: u64 = 1;

/// The key of the version.
pub(super) const FORMAT_KEY: &str = "format";

pub(super) type Key = (u64, u64);
pub(super) type ByQueue = TableDefinition<'static, u64, &'static [u8]>;
pub(super) type ByPlace = TableDefinition<'static, Key, &'static [u8]>;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const QUEUES: ByQueue = TableDefinition::new("queues");
pub(super) const QUEUES_COPY: ByQueue = TableDefinition::new("queues_copy");
pub(super) const TOTALS: ByQueue = TableDefinition::new("totals");
pub(super) const BLOCKS: ByPlace = TableDefinition::new("blocks");
pub(super) const RECORDS: ByPlace = TableDefinition::new("records");
pub(super) const NOTES: ByPlace = TableDefinition::new("notes");
pub(super) const ASIDE: ByPlace = TableDefinition::new("aside");

/// Places in a block.
const BLOCK_PLACES: u64 = 256;

/// Bytes of a checksum.
const SEAL_BYTES: usize = 8;

/// Which table a row belongs to, for its checksum.
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    Queues = 1,
    Totals = 2,
    Blocks = 3,
    Records = 4,
    Notes = 5,
}

fn checksum(table: Table, key: Key, bytes: &[u8]) -> [u8; SEAL_BYTES] {
    let mut place = [0; 17];
    place[0] = table as u8;
    place[1..9].copy_from_slice(&key.0.to_le_bytes());
    place[9..].copy_from_slice(&key.1.to_le_bytes());
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&place), bytes).to_le_bytes()
}

/// Ends a row with its checksum.
pub(super) fn seal(table: Table, key: Key, mut row: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(table, key, &row);
    row.extend_from_slice(&checksum);
    row
}

/// A row without its checksum, if that is right.
pub(super) fn unseal(table: Table, key: Key, row: &[u8]) -> Option<&[u8]> {
    let (row, found) = row.split_last_chunk::<SEAL_BYTES>()?;
    (checksum(table, key, row) == *found).then_some(row)
}

/// A queue, as it was made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct QueueRow {
    pub(super) realm: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) properties: Properties,
}

impl QueueRow {
    pub(super) fn encode(&self, queue: u64) -> Vec<u8> {
        let row = rmp_serde::to_vec_named(self).expect("text has a form, and memory takes it");
        seal(Table::Queues, (queue, 0), row)
    }

    pub(super) fn decode(queue: u64, row: &[u8]) -> Option<QueueRow> {
        rmp_serde::from_slice(unseal(Table::Queues, (queue, 0), row)?).ok()
    }
}

/// What there is of a queue, in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) last_sequence: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Totals {
    pub(super) fn encode(self, queue: u64) -> Vec<u8> {
        let numbers = [self.last_sequence, self.messages, self.bytes];
        let row = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        seal(Table::Totals, (queue, 0), row)
    }

    pub(super) fn decode(queue: u64, row: &[u8]) -> Option<Totals> {
        let row = unseal(Table::Totals, (queue, 0), row)?;
        let (numbers, []) = row.as_chunks::<8>() else { return None };
        let [last_sequence, messages, bytes] = *numbers else { return None };
        let [last_sequence, messages, bytes] = [last_sequence, messages, bytes].map(u64::from_le_bytes);
        Some(Totals { last_sequence, messages, bytes })
    }

    pub(super) fn add(&mut self, cost: u32) {
        self.messages += 1;
        self.bytes += u64::from(cost);
    }

    pub(super) fn subtract(&mut self, cost: u32) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(cost));
    }
}

/// What is known of a message without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cost: u32,
    pub(super) deliveries: u32,
}

/// The messages of a part of a queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block(pub(super) BTreeMap<u8, Entry>);

const ENTRY_BYTES: usize = 9;

impl Block {
    /// The key of the block that a place is in, and the place in it.
    pub(super) fn of(queue: u64, sequence: u64) -> (Key, u8) {
        ((queue, sequence / BLOCK_PLACES), (sequence % BLOCK_PLACES) as u8)
    }

    /// The place in the queue of a place in the block.
    pub(super) fn sequence(key: Key, place: u8) -> u64 {
        key.1 * BLOCK_PLACES + u64::from(place)
    }

    pub(super) fn encode(&self, key: Key) -> Vec<u8> {
        let mut row = Vec::with_capacity(self.0.len() * ENTRY_BYTES + SEAL_BYTES);
        for (place, Entry { cost, deliveries }) in &self.0 {
            row.push(*place);
            row.extend_from_slice(&cost.to_le_bytes());
            row.extend_from_slice(&deliveries.to_le_bytes());
        }
        seal(Table::Blocks, key, row)
    }

    pub(super) fn decode(key: Key, row: &[u8]) -> Option<Block> {
        // A queue has no place beyond what a u64 counts.
        key.1.checked_mul(BLOCK_PLACES)?;
        let (entries, []) = unseal(Table::Blocks, key, row)?.as_chunks::<ENTRY_BYTES>() else { return None };
        let entry = |[place, a, b, c, d, e, f, g, h]: &[u8; ENTRY_BYTES]| {
            let cost = u32::from_le_bytes([*a, *b, *c, *d]);
            let deliveries = u32::from_le_bytes([*e, *f, *g, *h]);
            (*place, Entry { cost, deliveries })
        };
        Some(Block(entries.iter().map(entry).collect()))
    }
}

/// The row of a message.
pub(super) fn encode_record(key: Key, cost: u32, record: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(4 + record.len() + SEAL_BYTES);
    row.extend_from_slice(&cost.to_le_bytes());
    row.extend_from_slice(record);
    seal(Table::Records, key, row)
}

/// What a message costs, and the message.
pub(super) fn decode_record(key: Key, row: &[u8]) -> Option<(u32, &[u8])> {
    let (cost, record) = unseal(Table::Records, key, row)?.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*cost), record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let entry = Entry { cost: 7, deliveries: u32::MAX };
        let block = Block([(0, entry), (255, entry)].into());
        let key = (3, 9);
        assert_eq!(Block::decode(key, &block.encode(key)), Some(block));
        assert_eq!((Block::of(3, 9 * 256 + 255), Block::sequence(key, 255)), ((key, 255), 9 * 256 + 255));
        let totals = Totals { last_sequence: 1, messages: 2, bytes: u64::MAX };
        assert_eq!(Totals::decode(3, &totals.encode(3)), Some(totals));
        assert_eq!(decode_record(key, &encode_record(key, 5, b"x")), Some((5, &b"x"[..])));
    }

    #[test]
    fn no_bit_of_a_row_nor_its_place_can_change_unnoticed() {
        let key = (3, 9);
        let row = encode_record(key, 5, b"message");
        for bit in 0..row.len() * 8 {
            let mut changed = row.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_record(key, &changed), None);
        }
        assert_eq!(decode_record((3, 8), &row), None);
        assert_eq!(decode_record((2, 9), &row), None);
        assert_eq!(unseal(Table::Blocks, key, &row), None);
        assert_eq!(decode_record(key, &row[..row.len() - 1]), None);
    }
}

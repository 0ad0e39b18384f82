//! A hash table that grows a part at a time: a million entries moved at once, under the lock that everybody who comes
//! needs, are a pause of hundreds of milliseconds.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// A map by keys that strangers may have chosen.
#[derive(Debug)]
pub struct Table<K, V> {
    /// One, or [`SHARDS`] of them if there are many entries; by the middle bits of the hash.
    shards: Box<[HashTable<(K, V)>]>,
    keys: RandomState,
    len: usize,
}

const SHARDS: usize = 256;

/// From how many entries on a table is in parts.
const UNSHARDED_MAX: usize = 4096;

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { shards: Box::new([HashTable::new()]), keys: RandomState::new(), len: 0 }
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// For how many entries it has memory.
    pub fn room(&self) -> usize {
        self.shards.iter().map(HashTable::capacity).sum()
    }

    /// The value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.keys.hash_one(key);
        let found = self.shards[self.shard(hash)].find(hash, |(known, _)| known.borrow() == key);
        found.map(|(_, value)| value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let hash = self.keys.hash_one(key);
        let found = self.shards[self.shard(hash)].find_mut(hash, |(known, _)| known.borrow() == key);
        found.map(|(_, value)| value)
    }

    /// Whether there is a value of a key.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The value of a key, which is made now, with the key to keep, if there is none.
    pub fn get_or_insert_with<Q: Hash + Eq + ?Sized>(
        &mut self,
        key: &Q,
        make: impl FnOnce() -> (K, V),
    ) -> &mut V
    where
        K: Borrow<Q>,
    {
        if self.len >= UNSHARDED_MAX && self.shards.len() == 1 {
            self.spread(SHARDS);
        }
        let hash = self.keys.hash_one(key);
        let shard = self.shard(hash);
        let rehash = |(known, _): &(K, V)| self.keys.hash_one(known);
        match self.shards[shard].entry(hash, |(known, _)| known.borrow() == key, rehash) {
            Entry::Occupied(entry) => &mut entry.into_mut().1,
            Entry::Vacant(entry) => {
                let entry = entry.insert(make());
                self.len += 1;
                &mut entry.into_mut().1
            }
        }
    }

    /// Forgets a key, and gives its value.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let hash = self.keys.hash_one(key);
        let at = self.shard(hash);
        let shard = &mut self.shards[at];
        let ((_, value), _) = shard.find_entry(hash, |(known, _)| known.borrow() == key).ok()?.remove();
        self.len -= 1;
        if shard.capacity() > 16 && shard.len() < shard.capacity() / 4 {
            shard.shrink_to(shard.len() * 2, |(known, _)| self.keys.hash_one(known));
        }
        if self.len < UNSHARDED_MAX / 4 && self.shards.len() > 1 {
            self.spread(1);
        }
        Some(value)
    }

    /// All entries, in no order to rely on.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flatten().map(|(key, value)| (key, value))
    }

    /// All values, in no order to rely on.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Takes all entries out.
    pub fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        self.len = 0;
        self.shards.iter_mut().flat_map(HashTable::drain)
    }

    fn shard(&self, hash: u64) -> usize {
        // A shard's own table uses the bits at both ends.
        (hash >> 32) as usize % self.shards.len()
    }

    /// Moves all entries to as many new shards. There are few entries when this is called.
    fn spread(&mut self, shards: usize) {
        let old = std::mem::replace(&mut self.shards, (0..shards).map(|_| HashTable::new()).collect());
        for (key, value) in old.into_iter().flatten() {
            let hash = self.keys.hash_one(&key);
            let shard = self.shard(hash);
            self.shards[shard].insert_unique(hash, (key, value), |(known, _)| self.keys.hash_one(known));
        }
    }
}

impl<V> FromIterator<(Box<str>, V)> for Table<Box<str>, V> {
    fn from_iter<I: IntoIterator<Item = (Box<str>, V)>>(entries: I) -> Self {
        let mut table = Self::default();
        for (key, value) in entries {
            let key_again = key.clone();
            table.get_or_insert_with(&*key_again, || (key, value));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_table_is_in_parts_that_grow_one_by_one() {
        let mut table = Table::default();
        let count = 100_000_u64;
        for n in 0..count {
            assert_eq!(*table.get_or_insert_with(&n, || (n, n)), n);
        }
        let most = table.shards.iter().map(HashTable::len).max();
        assert!(most < Some(2 * 100_000 / SHARDS), "{most:?}");
        assert_eq!((table.len(), table.iter().count()), (100_000, 100_000));
        assert_eq!(*table.get_or_insert_with(&7, || (7, 8)), 7, "it is there");
        for n in 0..count {
            assert_eq!(table.remove(&n), Some(n));
            assert_eq!(table.contains_key(&(count - 1)), n + 1 < count);
        }
        assert_eq!((table.shards.len(), table.len(), table.remove(&1)), (1, 0, None));
        assert!(table.room() <= UNSHARDED_MAX / 2);
    }
}

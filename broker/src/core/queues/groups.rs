//! Message groups: all messages of a group go to one consumer, for as long as it is there.

use std::collections::{BTreeMap, HashMap};

use crate::core::queues::consumer::ConsumerKey;

/// How many groups a queue remembers the consumers of. The one that was used longest ago is forgotten first,
/// and may then go to another.
pub const GROUPS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Groups {
    by_name: HashMap<Box<str>, Group>,
    by_use: BTreeMap<u64, Box<str>>,
    last_use: u64,
}

#[derive(Debug)]
struct Group {
    owner: ConsumerKey,
    used: u64,
}

impl Groups {
    pub(super) fn owner(&self, name: &str) -> Option<ConsumerKey> {
        self.by_name.get(name).map(|group| group.owner)
    }

    /// A consumer got a message of a group, which is its own from now on.
    pub(super) fn own(&mut self, name: &str, owner: ConsumerKey) {
        self.forget(name);
        if self.by_name.len() >= GROUPS_MAX
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_name.remove(&oldest);
        }
        self.last_use += 1;
        self.by_name.insert(name.into(), Group { owner, used: self.last_use });
        self.by_use.insert(self.last_use, name.into());
    }

    pub(super) fn forget(&mut self, name: &str) {
        if let Some(group) = self.by_name.remove(name) {
            self.by_use.remove(&group.used);
        }
    }

    /// A consumer takes nothing any more.
    pub(super) fn release(&mut self, owner: ConsumerKey) {
        let by_use = &mut self.by_use;
        self.by_name.retain(|_, group| {
            let keeps = group.owner != owner;
            if !keeps {
                by_use.remove(&group.used);
            }
            keeps
        });
    }

    pub(super) fn clear(&mut self) {
        *self = Groups::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::message::SessionId;
    use crate::core::parcel::ConsumerId;

    #[test]
    fn the_group_used_longest_ago_is_forgotten_first() {
        let key = |session| ConsumerKey { session: SessionId(session), consumer: ConsumerId(1) };
        let mut groups = Groups::default();
        (0..GROUPS_MAX).for_each(|n| groups.own(&n.to_string(), key(1)));
        groups.own("0", key(2));
        groups.own("new", key(3));
        assert_eq!(groups.owner("1"), None);
        assert_eq!((groups.owner("0"), groups.owner("new")), (Some(key(2)), Some(key(3))));
        assert_eq!((groups.by_name.len(), groups.by_use.len()), (GROUPS_MAX, GROUPS_MAX));
        groups.release(key(1));
        assert_eq!((groups.by_name.len(), groups.by_use.len()), (2, 2));
        groups.forget("0");
        groups.forget("new");
        assert_eq!((groups.by_name.len(), groups.by_use.len()), (0, 0));
    }
}

//! The last message of each topic that was published to be kept, for those who subscribe later.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::core::access::Refusal;
use crate::core::message::Publication;
use crate::core::name::{MatchKind, Name, Pattern};

/// What a realm keeps.
#[derive(Clone, Copy, Debug)]
pub struct RetainedLimits {
    /// In messages: one for each topic.
    pub messages_max: usize,
    /// In bytes.
    pub bytes_max: usize,
}

impl Default for RetainedLimits {
    fn default() -> RetainedLimits {
        RetainedLimits { messages_max: 10_000, bytes_max: 64 * 1024 * 1024 }
    }
}

/// The messages that are kept.
#[derive(Debug, Default)]
pub struct Retained {
    limits: RetainedLimits,
    messages: BTreeMap<Name, Arc<Publication>>,
    bytes: usize,
}

impl Retained {
    /// Nothing yet.
    pub fn new(limits: RetainedLimits) -> Retained {
        Retained { limits, ..Retained::default() }
    }

    /// Keeps a message in place of the one before it on its topic.
    pub fn set(&mut self, publication: &Publication) -> Result<(), Refusal> {
        let RetainedLimits { messages_max, bytes_max } = self.limits;
        let before = self.messages.get(&publication.name).map(|known| known.cost());
        if before.is_none() && self.messages.len() >= messages_max {
            return Err(Refusal::TooMany("retained messages of a realm", messages_max));
        }
        let bytes = self.bytes - before.unwrap_or(0) + publication.cost();
        if bytes > bytes_max {
            return Err(Refusal::TooMany("bytes of retained messages of a realm", bytes_max));
        }
        self.bytes = bytes;
        self.messages.insert(publication.name.clone(), Arc::new(publication.uncharged()));
        Ok(())
    }

    /// True when nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps nothing for a topic any more.
    pub fn remove(&mut self, name: &Name) {
        if let Some(known) = self.messages.remove(name) {
            self.bytes -= known.cost();
        }
    }

    /// What is kept for the topics that match, by their names. Looks only at names that begin as the
    /// pattern does.
    pub fn matching<'a>(&'a self, pattern: &'a Pattern) -> impl Iterator<Item = &'a Arc<Publication>> {
        let beginning = beginning(pattern);
        let end = pattern.name().map_or(Bound::Unbounded, |name| Bound::Included(name.as_str()));
        self.messages
            .range::<str, _>((Bound::Included(beginning.as_str()), end))
            .take_while(move |(name, _)| name.as_str().starts_with(&beginning))
            .filter(|(name, _)| pattern.matches(name.as_str()))
            .map(|(_, publication)| publication)
    }
}

/// What all names that match a pattern begin with.
fn beginning(pattern: &Pattern) -> String {
    match pattern.kind() {
        MatchKind::Exact | MatchKind::Prefix => pattern.as_str().to_owned(),
        MatchKind::Components => {
            let parts = pattern.parts().map(|(parts, _)| parts.map_while(|part| part).collect::<Vec<_>>());
            parts.unwrap_or_default().join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{exact, name, publication};

    fn kept(retained: &Retained, pattern: &Pattern) -> Vec<String> {
        retained.matching(pattern).map(|publication| publication.name.to_string()).collect()
    }

    #[test]
    fn the_last_message_of_each_topic_is_found_by_every_kind_of_pattern() {
        let mut retained = Retained::new(RetainedLimits::default());
        for topic in ["a", "a.b", "a.b.c", "a.bb", "b.b.c", "ab"] {
            retained.set(&publication(topic, 1)).unwrap();
            retained.set(&publication(topic, 2)).unwrap();
        }
        assert_eq!(kept(&retained, &exact("a.b")), ["a.b"]);
        assert_eq!(retained.matching(&exact("a.b")).next().unwrap().id, 2);
        assert_eq!(kept(&retained, &Pattern::prefix("a.b").unwrap()), ["a.b", "a.b.c", "a.bb"]);
        assert_eq!(kept(&retained, &Pattern::wildcard(".b.c").unwrap()), ["a.b.c", "b.b.c"]);
        assert_eq!(kept(&retained, &Pattern::wildcard("a.").unwrap()), ["a.b", "a.bb"]);
        let all_below = Pattern::components([Some("a")], true).unwrap();
        assert_eq!(kept(&retained, &all_below), ["a", "a.b", "a.b.c", "a.bb"]);
        retained.remove(&name("a.b"));
        assert!(kept(&retained, &exact("a.b")).is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_in_messages_and_bytes_and_comes_back() {
        let cost = publication("a", 1).cost();
        let limits = RetainedLimits { messages_max: 2, bytes_max: 10 * cost };
        let mut retained = Retained::new(limits);
        retained.set(&publication("a", 1)).unwrap();
        retained.set(&publication("b", 1)).unwrap();
        let refused = retained.set(&publication("c", 1));
        assert_eq!(refused, Err(Refusal::TooMany("retained messages of a realm", 2)));
        retained.set(&publication("a", 2)).unwrap();
        retained.remove(&name("a"));
        retained.remove(&name("a"));
        retained.remove(&name("b"));
        assert_eq!(retained.bytes, 0);
        let mut small = Retained::new(RetainedLimits { bytes_max: cost, ..limits });
        small.set(&publication("a", 1)).unwrap();
        let refused = small.set(&publication("b", 1));
        assert_eq!(refused, Err(Refusal::TooMany("bytes of retained messages of a realm", cost)));
    }
}

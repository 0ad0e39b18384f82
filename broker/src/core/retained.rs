//! The last message of each topic that was published to be kept, for those who subscribe later.
//!
//! All of them are in memory. Those that are to outlive the process are on a shelf of the store as well: what was said
//! of a topic last counts there too, so that one that is not to outlive it takes its predecessor off.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::core::access::Refusal;
use crate::core::message::Publication;
use crate::core::name::{MatchKind, Name, Pattern};
use crate::core::queues::durable::{Keeping, warn_once};
use crate::core::shelf::{FromShelf, Shelf};
use crate::core::store::{StoredShelf, Unstorable, kept};

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
    messages: BTreeMap<Name, Kept>,
    bytes: usize,
    shelf: Option<Shelf>,
    /// Whether messages are refused that are to outlive the process, for there is no store.
    refuses: bool,
    /// Topics whose messages are to outlive the process, whatever their publishers say.
    durable: Vec<Pattern>,
}

#[derive(Debug)]
struct Kept {
    publication: Arc<Publication>,
    /// Where it is on the shelf, if it is there.
    place: Option<u64>,
}

impl Retained {
    /// Nothing yet.
    pub fn new(limits: RetainedLimits) -> Retained {
        Retained { limits, ..Retained::default() }
    }

    /// The same where persistent messages are treated so, and those of these topics are all persistent.
    pub fn keeping(self, keeping: &Keeping, durable: Vec<Pattern>) -> Retained {
        let shelf = match keeping {
            Keeping::Stored(journal) => Some(Shelf::new(journal.clone(), kept::retained())),
            Keeping::InMemory | Keeping::Refused => None,
        };
        let refuses = matches!(keeping, Keeping::Refused);
        Retained { shelf, refuses, durable, ..self }
    }

    /// Keeps a message in place of the one before it on its topic. True if the store has to do with it.
    pub fn set(&mut self, publication: &Publication) -> Result<bool, Refusal> {
        let RetainedLimits { messages_max, bytes_max } = self.limits;
        let before = self.messages.get(&publication.name).map(|known| known.publication.cost());
        if before.is_none() && self.messages.len() >= messages_max {
            return Err(Refusal::TooMany("retained messages of a realm", messages_max));
        }
        let bytes = self.bytes - before.unwrap_or(0) + publication.cost();
        if bytes > bytes_max {
            return Err(Refusal::TooMany("bytes of retained messages of a realm", bytes_max));
        }
        let is_stored = self.is_stored(publication)?;
        self.admit_removal(&publication.name)?;
        let shelf = self.shelf.as_mut().filter(|_| is_stored);
        let place = shelf.map(|shelf| shelf.put(publication, 0));
        let kept = Kept { publication: Arc::new(publication.uncharged()), place };
        self.bytes = bytes;
        let before = self.messages.insert(publication.name.clone(), kept);
        Ok(self.take_off(before))
    }

    /// Whether a message is to be in the store, which may be refused.
    fn is_stored(&self, publication: &Publication) -> Result<bool, Refusal> {
        let name = publication.name.as_str();
        if !publication.is_persistent() && !self.durable.iter().any(|pattern| pattern.matches(name)) {
            return Ok(false);
        }
        match &self.shelf {
            Some(shelf) => shelf.admit().map(|()| true),
            None if self.refuses => Err(Refusal::Unstorable(Unstorable::NoStore)),
            None => {
                warn_once();
                Ok(false)
            }
        }
    }

    /// Takes what was kept before off the shelf, if it is there, and hands over what changed there.
    fn take_off(&mut self, before: Option<Kept>) -> bool {
        let Some(shelf) = &mut self.shelf else { return false };
        if let Some(place) = before.and_then(|kept| kept.place) {
            shelf.take_off(place);
        }
        shelf.submit()
    }

    /// True when nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether what is kept for a topic can go: not out of a store that failed, where it would be at the next start.
    fn admit_removal(&self, name: &Name) -> Result<(), Refusal> {
        let is_there = self.messages.get(name).is_some_and(|known| known.place.is_some());
        match self.shelf.as_ref().filter(|_| is_there).map(Shelf::admit) {
            Some(Err(Refusal::Unstorable(Unstorable::Failed))) => {
                Err(Refusal::Unstorable(Unstorable::Failed))
            }
            _ => Ok(()),
        }
    }

    /// Keeps nothing for a topic any more. True if the store has to do with it, which is refused once that failed.
    pub fn remove(&mut self, name: &Name) -> Result<bool, Refusal> {
        self.admit_removal(name)?;
        let known = self.messages.remove(name);
        self.bytes -= known.as_ref().map_or(0, |known| known.publication.cost());
        Ok(self.take_off(known))
    }

    /// Keeps what the store had of it. For the start, before there are sessions. Where there are lower limits now, all
    /// of it is kept, and nothing is taken beside it.
    pub fn restore(&mut self, found: StoredShelf) {
        let Some(shelf) = &mut self.shelf else { return };
        for FromShelf { place, publication, .. } in shelf.restore(found) {
            self.bytes += publication.cost();
            let name = publication.name.clone();
            let kept = Kept { publication: Arc::new(publication), place: Some(place) };
            // There is one of each topic. If there were two, the later one would count.
            if let Some(before) = self.messages.insert(name, kept) {
                self.bytes -= before.publication.cost();
                before.place.into_iter().for_each(|place| shelf.take_off(place));
            }
        }
        shelf.submit();
        let RetainedLimits { messages_max, bytes_max } = self.limits;
        if self.messages.len() > messages_max || self.bytes > bytes_max {
            let (messages, bytes) = (self.messages.len(), self.bytes);
            tracing::warn!(
                messages,
                bytes,
                "the store has more retained messages than limits.retained_max or retained_bytes_max allow"
            );
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
            .map(|(_, kept)| &kept.publication)
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

    fn names(retained: &Retained, pattern: &Pattern) -> Vec<String> {
        retained.matching(pattern).map(|publication| publication.name.to_string()).collect()
    }

    #[test]
    fn the_last_message_of_each_topic_is_found_by_every_kind_of_pattern() {
        let mut retained = Retained::new(RetainedLimits::default());
        for topic in ["a", "a.b", "a.b.c", "a.bb", "b.b.c", "ab"] {
            retained.set(&publication(topic, 1)).unwrap();
            retained.set(&publication(topic, 2)).unwrap();
        }
        assert_eq!(names(&retained, &exact("a.b")), ["a.b"]);
        assert_eq!(retained.matching(&exact("a.b")).next().unwrap().id, 2);
        assert_eq!(names(&retained, &Pattern::prefix("a.b").unwrap()), ["a.b", "a.b.c", "a.bb"]);
        assert_eq!(names(&retained, &Pattern::wildcard(".b.c").unwrap()), ["a.b.c", "b.b.c"]);
        assert_eq!(names(&retained, &Pattern::wildcard("a.").unwrap()), ["a.b", "a.bb"]);
        let all_below = Pattern::components([Some("a")], true).unwrap();
        assert_eq!(names(&retained, &all_below), ["a", "a.b", "a.b.c", "a.bb"]);
        retained.remove(&name("a.b")).unwrap();
        assert!(names(&retained, &exact("a.b")).is_empty());
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
        retained.remove(&name("a")).unwrap();
        retained.remove(&name("a")).unwrap();
        retained.remove(&name("b")).unwrap();
        assert_eq!(retained.bytes, 0);
        let mut small = Retained::new(RetainedLimits { bytes_max: cost, ..limits });
        small.set(&publication("a", 1)).unwrap();
        let refused = small.set(&publication("b", 1));
        assert_eq!(refused, Err(Refusal::TooMany("bytes of retained messages of a realm", cost)));
    }
}

//! Publications of one session to one topic, one right after the other: they go through the house together, so that each
//! receiver is found, locked and woken once for all of them, and each dialect encodes them into one piece.
//!
//! A session gathers while the pump takes in what it read at once ([`Gathered`]), and whatever else it does comes after
//! what it gathered; nothing waits for longer than that. Receivers see no difference: the order is the same, and a
//! mailbox without room for all of a bundle takes them one by one.

use std::sync::Arc;

use crate::core::message::{Encodings, Publication, SessionId, SharedMessages};

/// What a bundle may cost: about what one sender has in its turn where several share a mailbox
/// ([`flows`](crate::core::flows)), so that nobody waits for longer behind a bundle than behind one message.
pub const BUNDLE_BYTES_MAX: usize = 16 * 1024;

/// Two publications or more.
#[derive(Debug)]
pub struct Bundle {
    publications: Vec<Arc<Publication>>,
    cost: usize,
    /// What the dialects made of all of them.
    pub encodings: Encodings<SharedMessages>,
}

impl Bundle {
    /// Its publications, in order; never none.
    pub fn publications(&self) -> &[Arc<Publication>] {
        &self.publications
    }

    /// The first, which says of all of them who published what topic.
    pub fn first(&self) -> &Publication {
        self.publications.first().expect("a bundle is made of two publications or more")
    }

    /// Who published them.
    pub fn publisher(&self) -> SessionId {
        self.first().publisher
    }

    /// What it costs a mailbox that holds it, in bytes.
    pub fn cost(&self) -> usize {
        self.cost
    }
}

/// What was gathered and is to be published.
#[derive(Debug)]
pub enum Due {
    /// One publication, and whom not to.
    One(Arc<Publication>, Option<SessionId>),
    /// Several, and whom not to.
    Several(Arc<Bundle>, Option<SessionId>),
}

/// What a session has published and the house has not seen yet.
#[derive(Debug, Default)]
pub struct Gathered {
    publications: Vec<Arc<Publication>>,
    cost: usize,
    exclude: Option<SessionId>,
}

impl Gathered {
    /// One more, and whom not to. What was gathered is due first if this one cannot go with it.
    pub fn add(&mut self, publication: Arc<Publication>, exclude: Option<SessionId>) -> Option<Due> {
        let cost = publication.cost();
        let goes_along = self.publications.last().is_some_and(|last| last.name == publication.name)
            && self.exclude == exclude
            && self.cost + cost <= BUNDLE_BYTES_MAX;
        let due = if goes_along { None } else { self.take() };
        self.publications.push(publication);
        self.cost += cost;
        self.exclude = exclude;
        due
    }

    /// All that was gathered.
    pub fn take(&mut self) -> Option<Due> {
        let Gathered { publications, cost, exclude } = std::mem::take(self);
        let only = match &publications[..] {
            [] => return None,
            [only] => Some(only.clone()),
            _ => None,
        };
        Some(match only {
            Some(publication) => Due::One(publication, exclude),
            None => Due::Several(
                Arc::new(Bundle { publications, cost, encodings: Encodings::default() }),
                exclude,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{UNIT, publication};

    fn numbers(due: Option<Due>) -> Vec<u64> {
        match due {
            None => Vec::new(),
            Some(Due::One(publication, _)) => vec![publication.id],
            Some(Due::Several(bundle, _)) => {
                assert_eq!(bundle.cost(), bundle.publications().len() * UNIT);
                bundle.publications().iter().map(|publication| publication.id).collect()
            }
        }
    }

    #[test]
    fn what_goes_to_one_topic_is_gathered_and_another_topic_comes_after_it() {
        let mut gathered = Gathered::default();
        assert!(gathered.take().is_none());
        assert!((1..=3).all(|id| gathered.add(publication("a", id), None).is_none()));
        assert_eq!(numbers(gathered.add(publication("b", 4), None)), [1, 2, 3]);
        assert_eq!(numbers(gathered.add(publication("a", 5), None)), [4]);
        assert_eq!(numbers(gathered.take()), [5]);
        assert!(gathered.take().is_none());
    }

    #[test]
    fn what_is_kept_from_another_is_not_of_the_same_bundle() {
        let mut gathered = Gathered::default();
        assert!(gathered.add(publication("a", 1), Some(SessionId(1))).is_none());
        let due = gathered.add(publication("a", 2), None);
        assert!(matches!(due, Some(Due::One(_, Some(SessionId(1))))));
        assert!(matches!(gathered.take(), Some(Due::One(_, None))));
    }

    #[test]
    fn a_bundle_is_bounded_in_bytes() {
        let mut gathered = Gathered::default();
        let most = BUNDLE_BYTES_MAX / UNIT;
        let due: Vec<_> = (0..).map(|id| gathered.add(publication("a", id), None)).take(most + 1).collect();
        assert!(due[..most].iter().all(Option::is_none));
        assert_eq!(numbers(due.into_iter().next_back().flatten()).len(), most);
    }
}

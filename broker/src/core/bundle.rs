//! Publications of one session to one topic, one right after the other: they go through the house together, so that each
//! receiver is found, locked and woken once for all of them, and each dialect encodes them into one piece.
//!
//! A session gathers while the pump takes in what it read at once ([`Gathered`]), and whatever else it does comes after
//! what it gathered; nothing waits for longer than that. Receivers see no difference: the order is the same, and a
//! mailbox without room for all of a bundle takes them one by one.

use std::sync::{Arc, OnceLock};

use crate::core::budget::{Budget, Charge};
use crate::core::message::{Encodings, Publication, SessionId, SharedMessages};
use crate::core::name::Name;

/// What a bundle may cost: about what one sender has in its turn where several share a mailbox
/// ([`flows`](crate::core::flows)), so that nobody waits for longer behind a bundle than behind one message.
pub const BUNDLE_BYTES_MAX: usize = 16 * 1024;

/// Two publications or more.
#[derive(Debug)]
pub struct Bundle {
    publications: Vec<Publication>,
    /// What they cost together.
    charge: Charge,
    /// What the dialects made of all of them.
    pub encodings: Encodings<SharedMessages>,
    /// Each for itself, once somebody could not take them together: those who cannot share them, and so what they cost.
    singles: OnceLock<Box<[Arc<Publication>]>>,
}

impl Bundle {
    /// Its publications, in order; never none.
    pub fn publications(&self) -> &[Publication] {
        &self.publications
    }

    /// The same, each for itself, for who cannot take them together.
    pub fn singles(&self) -> impl Iterator<Item = Arc<Publication>> {
        let single = |publication: &Publication| {
            let charge = Some(self.charge.again(publication.cost()));
            Arc::new(Publication { charge, ..publication.uncharged() })
        };
        self.singles.get_or_init(|| self.publications.iter().map(single).collect()).iter().cloned()
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.publications.len()
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
        self.charge.bytes()
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
    publications: Vec<Publication>,
    cost: usize,
    exclude: Option<SessionId>,
    /// How many went together the last time: it may be as many again.
    last_count: usize,
}

impl Gathered {
    /// The topic of what was gathered, if there is anything.
    pub fn topic(&self) -> Option<&Name> {
        self.publications.last().map(|last| &last.name)
    }

    /// One more, and whom not to. What was gathered is due first if this one cannot go with it.
    pub fn add(
        &mut self,
        publication: Publication,
        exclude: Option<SessionId>,
        budget: &Arc<Budget>,
    ) -> Option<Due> {
        let cost = publication.cost();
        let goes_along = self.topic() == Some(&publication.name)
            && self.exclude == exclude
            && self.cost + cost <= BUNDLE_BYTES_MAX;
        let due = if goes_along { None } else { self.take(budget) };
        if self.publications.capacity() == 0 {
            self.publications.reserve_exact(self.last_count.max(1));
        }
        self.publications.push(publication);
        self.cost += cost;
        self.exclude = exclude;
        due
    }

    /// All that was gathered, now charged to the budget.
    pub fn take(&mut self, budget: &Arc<Budget>) -> Option<Due> {
        if self.publications.is_empty() {
            return None;
        }
        let last_count = self.publications.len();
        let taken = std::mem::replace(self, Gathered { last_count, ..Gathered::default() });
        let Gathered { mut publications, cost, exclude, .. } = taken;
        let charge = budget.charge(cost);
        if publications.len() > 1 {
            let (encodings, singles) = (Encodings::default(), OnceLock::new());
            let bundle = Bundle { publications, charge, encodings, singles };
            return Some(Due::Several(Arc::new(bundle), exclude));
        }
        let publication = publications.pop()?;
        Some(Due::One(Arc::new(Publication { charge: Some(charge), ..publication }), exclude))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{UNIT, publication as shared};

    fn publication(topic: &str, id: u64) -> Publication {
        Arc::into_inner(shared(topic, id)).unwrap()
    }

    fn numbers(due: Option<Due>) -> Vec<u64> {
        match due {
            None => Vec::new(),
            Some(Due::One(publication, _)) => vec![publication.id],
            Some(Due::Several(bundle, _)) => {
                assert_eq!(bundle.cost(), bundle.count() * UNIT);
                bundle.publications().iter().map(|publication| publication.id).collect()
            }
        }
    }

    #[test]
    fn what_goes_to_one_topic_is_gathered_and_another_topic_comes_after_it() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        assert!(gathered.take(&budget).is_none());
        assert!((1..=3).all(|id| gathered.add(publication("a", id), None, &budget).is_none()));
        assert_eq!(numbers(gathered.add(publication("b", 4), None, &budget)), [1, 2, 3]);
        assert_eq!(numbers(gathered.add(publication("a", 5), None, &budget)), [4]);
        assert_eq!(numbers(gathered.take(&budget)), [5]);
        assert_eq!(budget.bytes(), 0, "nobody holds them any more");
        assert!(gathered.take(&budget).is_none());
    }

    #[test]
    fn what_is_kept_from_another_is_not_of_the_same_bundle() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        assert!(gathered.add(publication("a", 1), Some(SessionId(1)), &budget).is_none());
        let due = gathered.add(publication("a", 2), None, &budget);
        assert!(matches!(due, Some(Due::One(_, Some(SessionId(1))))));
        assert!(matches!(gathered.take(&budget), Some(Due::One(_, None))));
    }

    #[test]
    fn what_is_taken_out_of_a_bundle_is_charged_for_as_long_as_it_lives() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        (1..=3).for_each(|id| drop(gathered.add(publication("a", id), None, &budget)));
        assert_eq!(budget.bytes(), 0);
        let Some(Due::Several(bundle, None)) = gathered.take(&budget) else { panic!() };
        assert_eq!(budget.bytes(), 3 * UNIT);
        let singles: Vec<_> = bundle.singles().collect();
        assert_eq!(budget.bytes(), 6 * UNIT);
        drop(bundle);
        assert_eq!(
            singles.iter().map(|single| (single.id, single.cost())).collect::<Vec<_>>(),
            [(1, UNIT), (2, UNIT), (3, UNIT)]
        );
        drop(singles);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_bundle_is_bounded_in_bytes() {
        let (mut gathered, budget) = (Gathered::default(), Budget::new(1 << 20));
        let most = BUNDLE_BYTES_MAX / UNIT;
        let due: Vec<_> =
            (0..).map(|id| gathered.add(publication("a", id), None, &budget)).take(most + 1).collect();
        assert!(due[..most].iter().all(Option::is_none));
        assert_eq!(numbers(due.into_iter().next_back().flatten()).len(), most);
    }
}

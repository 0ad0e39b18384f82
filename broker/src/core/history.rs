//! What was published in the past, for the patterns that are configured to have a history.
//!
//! Not what was published to or kept from sessions by their numbers: a session that asks has another number
//! than it had then. Lists of users and roles are judged when somebody asks.
//!
//! All of it is in memory. What is to outlive the process is on a shelf of the store as well, and falls off there with
//! what falls out here.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::access::{Principal, Refusal};
use crate::core::eligibility::Eligibility;
use crate::core::message::Publication;
use crate::core::name::{Name, Pattern};
use crate::core::queues::durable::Keeping;
use crate::core::reserved::reaches;
use crate::core::shelf::{FromShelf, Shelf};
use crate::core::store::{StoredShelf, kept};

/// The time of day, in milliseconds since 1970.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How many bytes the history of one pattern may hold.
pub const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many events one answer may have.
pub const ANSWER_EVENTS_MAX: usize = 1000;

/// How many bytes one answer may have, but for its first event.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// A pattern that has a history.
#[derive(Clone, Debug)]
pub struct HistoryRule {
    /// The pattern.
    pub pattern: Pattern,
    /// How many events are kept; the oldest go first.
    pub events_max: usize,
    /// Whether they outlive the process, in a realm with a store.
    pub durable: bool,
}

impl HistoryRule {
    fn means(&self, name: &Name) -> bool {
        self.pattern.matches(name.as_str()) && reaches(&self.pattern, name.as_str())
    }
}

/// The history of a realm.
pub struct History {
    clock: WallClock,
    logs: Vec<Log>,
}

struct Log {
    rule: HistoryRule,
    bytes_max: usize,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    ring: VecDeque<Past>,
    bytes: usize,
    shelf: Option<Shelf>,
    /// Of each event on the shelf, in the order of the ring; none without a shelf.
    places: VecDeque<u64>,
}

/// An event of the past.
#[derive(Clone, Debug)]
pub struct Past {
    /// What was published.
    pub publication: Arc<Publication>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What somebody asks for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The latest first.
    pub reverse: bool,
    /// How many at most; never more than [`ANSWER_EVENTS_MAX`].
    pub limit: Option<usize>,
    /// Only of this topic.
    pub topic: Option<String>,
    /// Bounds by the time in milliseconds.
    pub time: Span,
    /// Bounds by the number of a publication. One that is not known leaves nothing.
    pub publication: Span,
}

/// Bounds; the events at `from` and `until` are within, those at `after` and `before` are not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Not before.
    pub from: Option<u64>,
    /// Not before, and not this.
    pub after: Option<u64>,
    /// Not this, and not after.
    pub before: Option<u64>,
    /// Not after.
    pub until: Option<u64>,
}

impl Span {
    fn has(&self, place: u64) -> bool {
        self.from.is_none_or(|bound| place >= bound)
            && self.after.is_none_or(|bound| place > bound)
            && self.before.is_none_or(|bound| place < bound)
            && self.until.is_none_or(|bound| place <= bound)
    }

    /// Bounds by places in a ring rather than by numbers of publications. What is not in the ring leaves nothing.
    fn placed(&self, ring: &VecDeque<Past>) -> Option<Span> {
        let place = |id: Option<u64>| match id {
            None => Some(None),
            Some(id) => {
                ring.iter().position(|past| past.publication.id == id).map(|place| Some(place as u64))
            }
        };
        Some(Span {
            from: place(self.from)?,
            after: place(self.after)?,
            before: place(self.before)?,
            until: place(self.until)?,
        })
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("patterns", &self.logs.len()).finish_non_exhaustive()
    }
}

impl History {
    /// Nothing yet, for these patterns.
    pub fn new(rules: &[HistoryRule], clock: WallClock) -> History {
        let log = |rule: &HistoryRule| Log {
            rule: rule.clone(),
            bytes_max: HISTORY_BYTES_MAX,
            events: Mutex::default(),
        };
        History { clock, logs: rules.iter().map(log).collect() }
    }

    /// The patterns that have a history.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.logs.iter().map(|log| &log.rule.pattern)
    }

    /// Whether what is published under a name is kept.
    pub fn means(&self, name: &Name) -> bool {
        self.logs.iter().any(|log| log.rule.means(name))
    }

    /// The same, and what is to outlive the process does so if persistent messages do.
    pub fn keeping(mut self, keeping: &Keeping) -> History {
        let Keeping::Stored(journal) = keeping else { return self };
        for log in self.logs.iter_mut().filter(|log| log.rule.durable) {
            let shelf = Shelf::new(journal.clone(), kept::history(&log.rule.pattern));
            log.events.get_mut().shelf = Some(shelf);
        }
        self
    }

    /// Whether what is published under a name must be in the store; refused if that takes nothing now.
    pub fn admit(&self, name: &Name) -> Result<bool, Refusal> {
        let mut is_stored = false;
        for log in self.logs.iter().filter(|log| log.rule.durable && log.rule.means(name)) {
            if let Some(shelf) = &log.events.lock().shelf {
                shelf.admit()?;
                is_stored = true;
            }
        }
        Ok(is_stored)
    }

    /// Keeps a publication for each pattern that matches it. True if the store has to do with it.
    pub fn record(&self, publication: &Publication) -> bool {
        if !is_recorded(publication.eligibility.as_deref()) {
            return false;
        }
        let (mut past, mut is_stored) = (None, false);
        for log in self.logs.iter().filter(|log| log.rule.means(&publication.name)) {
            let past = past.get_or_insert_with(|| Past {
                publication: Arc::new(publication.uncharged()),
                at_ms: (self.clock)(),
            });
            is_stored |= log.push(past.clone());
        }
        is_stored
    }

    /// Takes what the store had of one of its patterns. For the start, before there are sessions. Gives back what is of
    /// no pattern that is to outlive the process.
    pub fn restore(&self, found: StoredShelf) -> Option<StoredShelf> {
        let is_its = |log: &&Log| {
            let events = log.events.lock();
            events.shelf.as_ref().is_some_and(|shelf| *shelf.properties() == found.queue.properties)
        };
        match self.logs.iter().find(is_its) {
            Some(log) => log.restore(found),
            None => return Some(found),
        }
        None
    }

    /// Whether it has events that outlive the process.
    pub fn stores_any(&self) -> bool {
        self.logs.iter().any(|log| log.events.lock().shelf.as_ref().is_some_and(|shelf| !shelf.is_empty()))
    }

    /// What somebody may see of the past of a subscription, of the topics that they may see. `None` where none is
    /// kept.
    pub fn query(
        &self,
        pattern: &Pattern,
        who: &Principal,
        query: &Query,
        may_see: impl Fn(&str) -> bool,
    ) -> Option<Vec<Past>> {
        let same = self.logs.iter().find(|log| log.rule.pattern == *pattern);
        let wider = || {
            let name = pattern.name()?;
            self.logs.iter().find(|log| log.rule.pattern.matches(name.as_str()))
        };
        same.or_else(wider).map(|log| log.query(pattern, who, query, may_see))
    }
}

/// Whether a publication that is narrowed so can be part of a past: not if it is by the numbers of sessions.
pub fn is_recorded(eligibility: Option<&Eligibility>) -> bool {
    eligibility.is_none_or(|lists| lists.sessions.is_empty())
}

impl Events {
    fn push(&mut self, past: Past) {
        self.bytes += past.publication.cost();
        self.ring.push_back(past);
    }

    fn shorten(&mut self, events_max: usize, bytes_max: usize) {
        while self.ring.len() > events_max || self.bytes > bytes_max {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.bytes -= oldest.publication.cost();
            if let (Some(shelf), Some(place)) = (&mut self.shelf, self.places.pop_front()) {
                shelf.take_off(place);
            }
        }
    }
}

impl Log {
    /// Keeps an event. True if the store has to do with it.
    fn push(&self, past: Past) -> bool {
        let mut events = self.events.lock();
        let Events { shelf, places, .. } = &mut *events;
        places.extend(shelf.as_mut().map(|shelf| shelf.put(&past.publication, past.at_ms)));
        events.push(past);
        events.shorten(self.rule.events_max, self.bytes_max);
        events.shelf.as_mut().is_some_and(Shelf::submit)
    }

    fn restore(&self, found: StoredShelf) {
        let mut events = self.events.lock();
        let found = events.shelf.as_mut().map(|shelf| shelf.restore(found)).unwrap_or_default();
        for FromShelf { place, publication, at_ms } in found {
            events.places.push_back(place);
            events.push(Past { publication: Arc::new(publication), at_ms });
        }
        // The limits may be lower than they were.
        events.shorten(self.rule.events_max, self.bytes_max);
        let _written = events.shelf.as_mut().is_some_and(Shelf::submit);
    }

    fn query(
        &self,
        pattern: &Pattern,
        who: &Principal,
        query: &Query,
        may_see: impl Fn(&str) -> bool,
    ) -> Vec<Past> {
        let events = self.events.lock();
        let Some(places) = query.publication.placed(&events.ring) else { return Vec::new() };
        let is_wanted = |place: usize, past: &Past| {
            let Publication { name, eligibility, .. } = &*past.publication;
            places.has(place as u64)
                && query.time.has(past.at_ms)
                && query.topic.as_ref().is_none_or(|topic| *topic == name.as_str())
                && pattern.matches(name.as_str())
                && may_see(name.as_str())
                && eligibility.as_ref().is_none_or(|lists| lists.admits_principal(who))
        };
        let wanted = |place: &usize| is_wanted(*place, &events.ring[*place]);
        let places = 0..events.ring.len();
        if query.reverse {
            answer(places.rev().filter(wanted).map(|place| &events.ring[place]), query.limit)
        } else {
            answer(places.filter(wanted).map(|place| &events.ring[place]), query.limit)
        }
    }
}

fn answer<'a>(events: impl Iterator<Item = &'a Past>, limit: Option<usize>) -> Vec<Past> {
    let limit = limit.unwrap_or(ANSWER_EVENTS_MAX).min(ANSWER_EVENTS_MAX);
    let mut bytes = 0;
    let fits = |past: &&Past| {
        let is_first = bytes == 0;
        bytes += past.publication.cost();
        is_first || bytes <= ANSWER_BYTES_MAX
    };
    events.take(limit).take_while(fits).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::core::access::SessionId;
    use crate::core::eligibility::{Eligibility, Lists};
    use crate::core::testing::{UNIT, exact, principal, publication};

    /// One event each 10 ms.
    fn history(rules: &[(Pattern, usize)]) -> History {
        let rules: Vec<_> = rules
            .iter()
            .map(|(pattern, events_max)| HistoryRule {
                pattern: pattern.clone(),
                events_max: *events_max,
                durable: false,
            })
            .collect();
        let now = AtomicU64::new(0);
        History::new(&rules, Arc::new(move || now.fetch_add(10, Ordering::Relaxed) + 10))
    }

    fn ids(history: &History, pattern: &Pattern, query: &Query) -> Vec<u64> {
        let past = history.query(pattern, &principal("joe", "user"), query, |_| true).unwrap();
        past.iter().map(|past| past.publication.id).collect()
    }

    #[test]
    fn a_subscription_sees_what_was_published_to_its_topics_within_the_bounds_that_it_names() {
        let below = Pattern::prefix("a.").unwrap();
        let history = history(&[(below.clone(), 100)]);
        for (number, topic) in [(1, "a.x"), (2, "a.y"), (3, "b.x"), (4, "a.x"), (5, "a.y")] {
            history.record(&publication(topic, number));
        }
        let all = Query::default();
        assert_eq!(ids(&history, &below, &all), [1, 2, 4, 5]);
        assert_eq!(ids(&history, &exact("a.x"), &all), [1, 4]);
        assert!(history.query(&exact("b.x"), &principal("joe", "user"), &all, |_| true).is_none());
        assert!(
            history
                .query(&Pattern::prefix("a").unwrap(), &principal("joe", "user"), &all, |_| true)
                .is_none()
        );
        let within = |time: Span, publication: Span| {
            ids(&history, &below, &Query { time, publication, ..Query::default() })
        };
        let none = Span::default();
        assert_eq!(within(Span { from: Some(20), before: Some(40), ..none }, none), [2, 4]);
        assert_eq!(within(Span { after: Some(20), until: Some(40), ..none }, none), [4, 5]);
        assert_eq!(within(none, Span { from: Some(2), until: Some(4), ..none }), [2, 4]);
        assert_eq!(within(none, Span { after: Some(1), before: Some(5), ..none }), [2, 4]);
        assert_eq!(within(none, Span { after: Some(99), ..none }), [0; 0]);
        let last = Query { reverse: true, limit: Some(2), ..Query::default() };
        assert_eq!(ids(&history, &below, &last), [5, 4]);
        let topic = Query { topic: Some("a.y".into()), limit: Some(1), ..Query::default() };
        assert_eq!(ids(&history, &below, &topic), [2]);
    }

    #[test]
    fn lists_hold_when_somebody_asks_and_those_of_sessions_keep_nothing() {
        let history = history(&[(exact("a"), 100)]);
        let narrow = |number, eligibility: Eligibility| {
            let mut publication = Arc::into_inner(publication("a", number)).unwrap();
            publication.eligibility = Some(Arc::new(eligibility));
            history.record(&publication);
        };
        let admins = Lists::new(Vec::new(), Some(vec!["admin".into()]));
        narrow(1, Eligibility { roles: admins, ..Eligibility::default() });
        narrow(2, Eligibility { ids: Lists::new(vec!["ann".into()], None), ..Eligibility::default() });
        let session = Lists::new(vec![SessionId(9)], None);
        narrow(3, Eligibility { sessions: session, ..Eligibility::default() });
        assert_eq!(ids(&history, &exact("a"), &Query::default()), [2]);
        let ann =
            history.query(&exact("a"), &principal("ann", "admin"), &Query::default(), |_| true).unwrap();
        assert_eq!(ann.iter().map(|past| past.publication.id).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_is_kept_is_bounded_in_events_and_in_bytes_and_so_is_an_answer() {
        let mut history = history(&[(exact("a"), 3)]);
        let record = |history: &History, count: u64| {
            (1..=count).for_each(|number| assert!(!history.record(&publication("a", number))));
        };
        record(&history, 5);
        assert_eq!(ids(&history, &exact("a"), &Query::default()), [3, 4, 5]);
        history.logs[0].bytes_max = 2 * UNIT;
        record(&history, 9);
        assert_eq!(ids(&history, &exact("a"), &Query::default()), [8, 9]);
        assert_eq!(history.logs[0].events.lock().bytes, 2 * UNIT);
        history.logs[0].bytes_max = HISTORY_BYTES_MAX;
        history.logs[0].rule.events_max = 2 * ANSWER_EVENTS_MAX;
        record(&history, 1500);
        assert_eq!(ids(&history, &exact("a"), &Query::default()).len(), ANSWER_BYTES_MAX / UNIT);
        let small = Past {
            publication: Arc::new(Publication {
                payload: tandem_protocols::payload::Payload::new(tandem_protocols::payload::Content::Opaque(
                    Default::default(),
                )),
                ..publication("a", 1).uncharged()
            }),
            at_ms: 0,
        };
        let many = vec![small; ANSWER_EVENTS_MAX + 1];
        assert_eq!(answer(many.iter(), Some(usize::MAX)).len(), ANSWER_EVENTS_MAX);
    }
}

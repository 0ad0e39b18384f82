//! Topics: who subscribes to what, and getting a publication to all of them.

use std::collections::hash_map::RandomState;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::core::access::gate::Gate;
use crate::core::access::rules::SharedRules;
use crate::core::access::{Principal, Refusal};
use crate::core::bundle::Bundle;
use crate::core::eligibility::Eligibility;
use crate::core::history::{History, is_recorded};
use crate::core::index::Index;
use crate::core::mailbox::{Mailbox, Pushed};
use crate::core::message::{Handling, Publication, SessionId};
use crate::core::name::{Name, Pattern};
use crate::core::notice::{Notice, SubscriptionFacts};
use crate::core::pacing::Reach;
use crate::core::parcel::{Parcel, SubscriptionId};
use crate::core::queues::Queue;
use crate::core::queues::durable::{Asker, Journal, Keeping, Progress};
use crate::core::reserved::{reaches, reserved_prefix};
use crate::core::retained::{Retained, RetainedLimits};
use crate::core::shard::ShardKey;
use crate::core::store::{StoredShelf, kept};
use crate::core::table::Table;
use crate::core::watch::Watch;
use crate::metrics;

/// Where the events of a subscription go.
#[derive(Clone, Debug)]
pub enum Sink {
    /// To a session.
    Mailbox(Mailbox),
    /// To a session that shares the shards of the subscription with all others of this kind. Boxed, as there are
    /// few, and every subscription has a sink.
    Node(Box<(Mailbox, ShardKey)>),
    /// To a queue that is bound to the topic.
    Queue(Arc<Queue>),
}

/// What takes the events of a subscription for somebody.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Whose session it is: a publisher may keep its events from some.
    pub principal: Arc<Principal>,
    /// Where the events go.
    pub sink: Sink,
}

impl Sink {
    /// The key of one that shares shards.
    fn node(&self) -> Option<ShardKey> {
        match self {
            Sink::Node(node) => Some(node.1),
            Sink::Mailbox(_) | Sink::Queue(_) => None,
        }
    }
}

const _: () = assert!(size_of::<Subscription>() <= 72, "most idle sessions have one or two of their own");

/// Who takes the events of a subscription: a session has one plain subscription to a pattern, and may have
/// any number of queues bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subscriber {
    /// The session.
    pub session: SessionId,
    /// Tells apart the bound queues of a session; 0 for its plain subscription.
    pub binding: u64,
}

/// The topics of a realm.
#[derive(Debug, Default)]
pub struct Topics {
    state: RwLock<State>,
    history: Option<History>,
    journal: Option<Arc<Journal>>,
    watch: Arc<Watch>,
    rules: SharedRules,
}

#[derive(Debug, Default)]
struct State {
    index: Index<SubscriptionId>,
    /// Boxed: the table is up to half empty.
    subscriptions: Table<SubscriptionId, Box<Subscription>>,
    last_id: u64,
    retained: Retained,
}

/// What a publication means for what is kept of its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    /// Nothing.
    #[default]
    No,
    /// It is kept in place of the one before, for those who subscribe later.
    Set,
    /// Nothing is kept any more.
    Remove,
}

/// How something is to be published, beyond what it is.
#[derive(Clone, Debug, Default)]
pub struct PublishTerms {
    /// The publisher itself gets nothing.
    pub exclude_me: bool,
    /// Receivers are told who published.
    pub disclose_me: bool,
    /// What it means for what is kept of its topic.
    pub retain: Retain,
    /// Who may get it, if not everybody who subscribed.
    pub eligibility: Option<Arc<Eligibility>>,
    /// What the queues that are bound to the topic are to do with it.
    pub handling: Option<Arc<Handling>>,
}

#[derive(Debug)]
struct Subscription {
    pattern: Pattern,
    created_ms: u64,
    subscribers: Subscribers,
}

/// Who subscribed to one pattern. Mostly that is one, and a map would take five times the memory of one.
#[derive(Debug)]
enum Subscribers {
    One(Subscriber, Receiver),
    /// Never empty.
    Many(Box<IndexMap<Subscriber, Receiver, RandomState>>),
}

/// What is left when a subscriber was taken out.
enum Removed {
    /// It was not there.
    Nothing,
    /// Others are left.
    Some(Receiver),
    /// It was the only one.
    Last,
}

impl Subscribers {
    /// Adds one, unless it is there: then false.
    fn insert(&mut self, subscriber: Subscriber, receiver: Receiver) -> bool {
        match self {
            Subscribers::One(known, _) if *known == subscriber => return false,
            Subscribers::One(known, known_receiver) => {
                let mut many = IndexMap::with_capacity_and_hasher(2, RandomState::new());
                many.insert(*known, known_receiver.clone());
                many.insert(subscriber, receiver);
                *self = Subscribers::Many(Box::new(many));
            }
            Subscribers::Many(many) => match many.entry(subscriber) {
                Entry::Occupied(_) => return false,
                Entry::Vacant(place) => drop(place.insert(receiver)),
            },
        }
        true
    }

    fn remove(&mut self, subscriber: Subscriber) -> Removed {
        match self {
            Subscribers::One(known, _) if *known == subscriber => Removed::Last,
            Subscribers::One(..) => Removed::Nothing,
            Subscribers::Many(many) if many.len() == 1 && many.contains_key(&subscriber) => Removed::Last,
            Subscribers::Many(many) => many.swap_remove(&subscriber).map_or(Removed::Nothing, Removed::Some),
        }
    }

    fn has(&self, subscriber: Subscriber) -> bool {
        match self {
            Subscribers::One(known, _) => *known == subscriber,
            Subscribers::Many(many) => many.contains_key(&subscriber),
        }
    }

    /// Who a key belongs to, of those that share shards. It is chosen before any list is looked at: a publisher that
    /// keeps its events from the holder does not thereby hand the shard to another. Of several with the same
    /// key of their own it is always the same one.
    fn holder(&self, shard: ShardKey) -> Option<Subscriber> {
        let mut heaviest = None;
        self.for_each(|subscriber, receiver| {
            if let Some(node) = receiver.sink.node() {
                let weight = (shard.weight(node.number()), subscriber.session, subscriber.binding);
                if heaviest.is_none_or(|(known, _)| weight > known) {
                    heaviest = Some((weight, subscriber));
                }
            }
        });
        heaviest.map(|(_, subscriber)| subscriber)
    }

    fn for_each(&self, mut visit: impl FnMut(Subscriber, &Receiver)) {
        match self {
            Subscribers::One(subscriber, receiver) => visit(*subscriber, receiver),
            Subscribers::Many(many) => {
                many.iter().for_each(|(subscriber, receiver)| visit(*subscriber, receiver))
            }
        }
    }
}

impl Topics {
    /// No subscriptions yet, and nothing kept.
    pub fn new(limits: RetainedLimits) -> Topics {
        let state = State { retained: Retained::new(limits), ..State::default() };
        Topics { state: RwLock::new(state), ..Topics::default() }
    }

    /// The same topics with a history.
    pub fn with_history(self, history: History) -> Topics {
        Topics { history: Some(history), ..self }
    }

    /// The same topics in a realm that treats persistent messages so; what these topics retain is persistent, too.
    pub fn keeping(self, keeping: &Keeping, retained_durably: Vec<Pattern>) -> Topics {
        let Topics { state, history, .. } = self;
        let mut state = state.into_inner();
        state.retained = state.retained.keeping(keeping, retained_durably);
        let journal = match keeping {
            Keeping::Stored(journal) => Some(journal.clone()),
            Keeping::InMemory | Keeping::Refused => None,
        };
        let history = history.map(|history| history.keeping(keeping));
        Topics { state: RwLock::new(state), history, journal, watch: self.watch, rules: self.rules }
    }

    /// Keeps what the store had of them. For the start, before there are sessions.
    pub fn restore(&self, shelves: Vec<StoredShelf>) {
        for found in shelves {
            let left = if found.queue.properties == kept::retained() {
                self.state.write().retained.restore(found);
                None
            } else {
                self.history.as_ref().map_or(Some(found.clone()), |history| history.restore(found))
            };
            if let Some(StoredShelf { queue, records }) = left {
                let (realm, events) = (&*queue.realm, records.len());
                tracing::warn!(
                    realm, shelf = ?queue.properties, events,
                    "the store has a history that the configuration does not: it rests there"
                );
            }
        }
    }

    /// The same topics, of a realm that is watched so.
    pub fn watched(self, watch: Arc<Watch>) -> Topics {
        // What is remembered is awaited, too.
        self.history.iter().flat_map(History::patterns).for_each(|pattern| watch.note_subscribed(pattern));
        Topics { watch, ..self }
    }

    /// The same topics under these rules.
    pub fn under(self, rules: SharedRules) -> Topics {
        Topics { rules, ..self }
    }

    /// The history, if one is kept of some.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// Adds a subscriber, as [`Topics::subscribe_and_replay`] does, without what was kept.
    pub fn subscribe(
        &self,
        pattern: &Pattern,
        subscriber: Subscriber,
        receiver: Receiver,
    ) -> Result<SubscriptionId, Refusal> {
        self.subscribe_and_replay(pattern, subscriber, receiver, None)
    }

    /// Adds a subscriber. All subscribers of one pattern share its subscription's number; subscribing
    /// again changes nothing and gives the same number. With a tag the receiver gets what is kept of the topics
    /// that match and is not kept from it, under that tag, before anything that is published after.
    pub fn subscribe_and_replay(
        &self,
        pattern: &Pattern,
        subscriber: Subscriber,
        receiver: Receiver,
        tag: Option<u64>,
    ) -> Result<SubscriptionId, Refusal> {
        let rules = self.rules.load();
        let mut state = self.state.write();
        let State { index, subscriptions, last_id, retained } = &mut *state;
        let (id, is_new) = match index.get(pattern) {
            Some(id) => {
                let subscription = subscriptions.get_mut(id);
                let subscription = subscription.expect("what the index has is subscribed to");
                (*id, subscription.subscribers.insert(subscriber, receiver.clone()))
            }
            None => {
                let id = SubscriptionId(*last_id + 1);
                index.insert(pattern, id)?;
                *last_id += 1;
                let (pattern, created_ms) = (pattern.clone(), self.watch.time_ms());
                self.watch.note_subscribed(&pattern);
                let facts = || SubscriptionFacts { id, pattern: pattern.clone(), created_ms };
                let created = || Notice::SubscriptionCreated(subscriber.session, facts());
                self.watch.tell_about(&pattern, created);
                let subscribers = Subscribers::One(subscriber, receiver.clone());
                let subscription = Box::new(Subscription { pattern, created_ms, subscribers });
                subscriptions.get_or_insert_with(&id, || (id, subscription));
                (id, true)
            }
        };
        if is_new {
            self.watch.tell_about(pattern, || Notice::Subscribed(subscriber.session, id));
        }
        if let Some(tag) = tag {
            let may_have = |publication: &&Arc<Publication>| {
                let eligibility = publication.eligibility.as_ref();
                let gate = Gate::new(&rules, publication.name.as_str());
                reaches(pattern, publication.name.as_str())
                    && eligibility.is_none_or(|list| list.admits(subscriber.session, &receiver.principal))
                    && gate.is_none_or(|mut gate| gate.admits(&receiver.principal))
            };
            for publication in retained.matching(pattern).filter(may_have).cloned() {
                match &receiver.sink {
                    Sink::Mailbox(mailbox) => {
                        mailbox.push(Parcel::Retained { publication, subscription: id, tag })
                    }
                    Sink::Node(node) => node.0.push(Parcel::Retained { publication, subscription: id, tag }),
                    Sink::Queue(queue) => queue.push_bound(publication),
                };
            }
        }
        Ok(id)
    }

    /// Removes a subscriber. True when it was there.
    pub fn unsubscribe(&self, id: SubscriptionId, subscriber: Subscriber) -> bool {
        let mut state = self.state.write();
        let State { index, subscriptions, .. } = &mut *state;
        let Some(subscription) = subscriptions.get_mut(&id) else { return false };
        let session = subscriber.session;
        // The sink may be the last that knows a queue: it goes after the lock.
        match subscription.subscribers.remove(subscriber) {
            Removed::Nothing => false,
            Removed::Some(receiver) => {
                let pattern = &subscription.pattern;
                self.watch.tell_about(pattern, || Notice::Unsubscribed(session, id));
                drop(state);
                drop(receiver);
                true
            }
            Removed::Last => {
                index.remove(&subscription.pattern);
                let subscription = subscriptions.remove(&id);
                if let Some(Subscription { pattern, .. }) = subscription.as_deref() {
                    self.watch.tell_about(pattern, || Notice::Unsubscribed(session, id));
                    self.watch.tell_about(pattern, || Notice::SubscriptionDeleted(session, id));
                    self.watch.note_unsubscribed(pattern);
                }
                drop(state);
                drop(subscription);
                true
            }
        }
    }

    /// Takes away whatever part a session has in a subscription: its plain one, and queues that are bound to it.
    /// True when it had one.
    pub fn remove_session(&self, id: SubscriptionId, session: SessionId) -> bool {
        let mut parts = Vec::new();
        self.visit_subscribers(id, |subscriber| {
            if subscriber.session == session {
                parts.push(subscriber);
            }
        });
        parts.into_iter().filter(|part| self.unsubscribe(id, *part)).count() > 0
    }

    fn visit_subscribers(&self, id: SubscriptionId, mut visit: impl FnMut(Subscriber)) {
        if let Some(subscription) = self.state.read().subscriptions.get(&id) {
            subscription.subscribers.for_each(|subscriber, _| visit(subscriber));
        }
    }

    /// How many sessions have a part in a subscription. Anybody may ask, so a million of them are not sorted for it.
    pub fn subscriber_count(&self, id: SubscriptionId) -> usize {
        let state = self.state.read();
        let Some(subscription) = state.subscriptions.get(&id) else { return 0 };
        let (mut plain, mut only_bound) = (0, Vec::new());
        subscription.subscribers.for_each(|Subscriber { session, binding }, _| match binding {
            0 => plain += 1,
            _ if subscription.subscribers.has(Subscriber { session, binding: 0 }) => {}
            _ => only_bound.push(session),
        });
        drop(state);
        only_bound.sort_unstable();
        only_bound.dedup();
        plain + only_bound.len()
    }

    /// The sessions that have a part in a subscription, sorted.
    pub fn subscribers(&self, id: SubscriptionId) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        self.visit_subscribers(id, |subscriber| sessions.push(subscriber.session));
        sessions.sort_unstable();
        sessions.dedup();
        sessions
    }

    /// What is known of a subscription.
    pub fn facts(&self, id: SubscriptionId) -> Option<SubscriptionFacts> {
        let state = self.state.read();
        let Subscription { pattern, created_ms, .. } = &**state.subscriptions.get(&id)?;
        Some(SubscriptionFacts { id, pattern: pattern.clone(), created_ms: *created_ms })
    }

    /// All subscriptions, sorted; `count_max` of them, and one more if there are more.
    pub fn list(&self, count_max: usize) -> Vec<(SubscriptionId, Pattern)> {
        let state = self.state.read();
        let all = state.subscriptions.iter().map(|(id, subscription)| (*id, subscription.pattern.clone()));
        let mut list: Vec<_> = all.take(count_max.saturating_add(1)).collect();
        drop(state);
        list.sort_unstable_by_key(|(id, _)| *id);
        list
    }

    /// Whether a publication of this name would reach anybody or be remembered.
    pub fn is_awaited(&self, name: &Name) -> bool {
        let mut awaited = self.history.as_ref().is_some_and(|history| history.means(name));
        if !awaited {
            self.state.read().for_each_match(name.as_str(), |_, _| awaited = true);
        }
        awaited
    }

    /// Whether a publication of this name goes to a queue that outlives its consumers.
    pub fn feeds_lasting_queue(&self, name: &Name) -> bool {
        let mut feeds = false;
        self.state.read().for_each_match(name.as_str(), |_, subscription| {
            subscription.subscribers.for_each(|_, receiver| {
                feeds |= matches!(&receiver.sink, Sink::Queue(queue) if queue.is_lasting());
            });
        });
        feeds
    }

    /// The subscriptions that a publication of this name goes to, in the order in which it does.
    pub fn matching(&self, name: &str) -> Vec<SubscriptionId> {
        let mut ids = Vec::new();
        self.state.read().for_each_match(name, |id, _| ids.push(id));
        ids
    }

    /// Whether what is published under a name must be in the store, for it is remembered there; refused if that takes
    /// nothing now.
    pub fn admit(&self, name: &Name) -> Result<bool, Refusal> {
        self.history.as_ref().map_or(Ok(false), |history| history.admit(name))
    }

    /// Hands a publication to every subscriber whose pattern matches its name, once per subscription:
    /// exact patterns first, then prefixes from short to long, then wildcards; not to who is excluded and
    /// not to whom its lists or the rules keep it from. Keeps it, or what was kept before it no more, as is said.
    /// Never waits. Says how many took it, and whether it is yet to be stored: who asks is told then.
    pub fn publish(
        &self,
        publication: &Arc<Publication>,
        exclude: Option<SessionId>,
        retain: Retain,
        asker: impl FnOnce() -> Option<Asker>,
    ) -> Result<(usize, Progress), Refusal> {
        if is_recorded(publication.eligibility.as_deref()) {
            self.admit(&publication.name)?;
        }
        let (reach, progress) = self.reach(publication, exclude, retain, asker)?;
        Ok((reach.taken, progress))
    }

    /// The same where the store was [asked](Topics::admit) before, and says what it met.
    pub fn reach(
        &self,
        publication: &Arc<Publication>,
        exclude: Option<SessionId>,
        retain: Retain,
        asker: impl FnOnce() -> Option<Asker>,
    ) -> Result<(Reach, Progress), Refusal> {
        let rules = self.rules.load();
        let gate = Gate::new(&rules, publication.name.as_str());
        if retain == Retain::No {
            let progress = self.record(publication, false, asker);
            return Ok((self.state.read().publish(publication, exclude, gate), progress));
        }
        let mut state = self.state.write();
        let is_stored = match retain {
            Retain::No => false,
            Retain::Set => state.retained.set(publication)?,
            Retain::Remove => state.retained.remove(&publication.name)?,
        };
        let progress = self.record(publication, is_stored, asker);
        // Whoever subscribes now gets it either from what is kept or as an event, not both.
        Ok((RwLockWriteGuard::downgrade(state).publish(publication, exclude, gate), progress))
    }

    /// Whether a publication may be remembered: what is, is not published in a bundle.
    pub fn may_remember(&self) -> bool {
        self.history.is_some()
    }

    /// Hands several publications at once to whom [`reach`](Topics::reach) would hand each of them. None where there are
    /// several subscriptions: who has two of them gets each publication by both before the next.
    pub fn reach_together(&self, bundle: &Arc<Bundle>, exclude: Option<SessionId>) -> Option<Reach> {
        let rules = self.rules.load();
        let gate = Gate::new(&rules, bundle.name().as_str());
        self.state.read().publish_together(bundle, exclude, gate)
    }

    /// Remembers a publication, if it is, and asks when all that the store has to do with it is safe.
    fn record(
        &self,
        publication: &Publication,
        is_stored: bool,
        asker: impl FnOnce() -> Option<Asker>,
    ) -> Progress {
        let is_stored = self.history.as_ref().is_some_and(|history| history.record(publication)) || is_stored;
        match &self.journal {
            Some(journal) if is_stored => {
                journal.conclude(publication.cost(), asker());
                Progress::Storing
            }
            _ => Progress::Done,
        }
    }

    /// The number of the subscription to this very pattern, if there is one.
    pub fn get(&self, pattern: &Pattern) -> Option<SubscriptionId> {
        self.state.read().index.get(pattern).copied()
    }

    /// The pattern of a subscription.
    pub fn pattern(&self, id: SubscriptionId) -> Option<Pattern> {
        self.state.read().subscriptions.get(&id).map(|subscription| subscription.pattern.clone())
    }

    /// Whether the last message of some topic is kept, or a past that outlives the process.
    pub fn retains_any(&self) -> bool {
        !self.state.read().retained.is_empty() || self.history.as_ref().is_some_and(History::stores_any)
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.state.read().subscriptions.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    /// Visits every subscription that a name goes to.
    fn for_each_match<'a>(&'a self, name: &str, mut visit: impl FnMut(SubscriptionId, &'a Subscription)) {
        let reserved = reserved_prefix(name);
        self.index.for_each_match(name, |id| {
            let Some(subscription) = self.subscriptions.get(id) else { return };
            if reserved.is_none_or(|prefix| subscription.pattern.as_str().starts_with(prefix)) {
                visit(*id, subscription);
            }
        });
    }

    fn publish(
        &self,
        publication: &Arc<Publication>,
        exclude: Option<SessionId>,
        mut gate: Option<Gate<'_>>,
    ) -> Reach {
        let mut reach = Reach::default();
        let mut for_queues = None;
        let eligibility = publication.eligibility.as_deref();
        let shard = eligibility.and_then(|lists| lists.shard);
        self.for_each_match(publication.name.as_str(), |id, subscription| {
            let holder = shard.and_then(|shard| subscription.subscribers.holder(shard));
            subscription.subscribers.for_each(|subscriber, Receiver { principal, sink }| {
                let Subscriber { session, .. } = subscriber;
                if shard.is_some() && sink.node().is_some() && holder != Some(subscriber) {
                    return;
                }
                if exclude == Some(session)
                    || eligibility.is_some_and(|list| !list.admits(session, principal))
                    || gate.as_mut().is_some_and(|gate| !gate.admits(principal))
                {
                    return;
                }
                let event = || Parcel::Event { publication: publication.clone(), subscription: id };
                let mut to_session = |mailbox: &Mailbox| {
                    let (pushed, behind) = mailbox.push_and_look(event());
                    reach.note(mailbox, usize::from(pushed == Pushed::Queued), behind);
                };
                match sink {
                    Sink::Mailbox(mailbox) => to_session(mailbox),
                    Sink::Node(node) => to_session(&node.0),
                    Sink::Queue(queue) => {
                        let shared = for_queues.get_or_insert_with(|| Arc::new(publication.uncharged()));
                        reach.note_other(queue.push_bound(shared.clone()));
                    }
                }
            });
        });
        metrics::EVENTS.add(reach.taken as i64);
        reach
    }

    fn publish_together(
        &self,
        bundle: &Arc<Bundle>,
        exclude: Option<SessionId>,
        mut gate: Option<Gate<'_>>,
    ) -> Option<Reach> {
        let (mut only, mut count) = (None, 0);
        self.for_each_match(bundle.name().as_str(), |id, subscription| {
            only = Some((id, subscription));
            count += 1;
        });
        if count > 1 {
            return None;
        }
        let mut reach = Reach::default();
        let Some((id, subscription)) = only else { return Some(reach) };
        let mut for_queues: Option<Vec<Arc<Publication>>> = None;
        subscription.subscribers.for_each(|Subscriber { session, .. }, Receiver { principal, sink }| {
            if exclude == Some(session) || gate.as_mut().is_some_and(|gate| !gate.admits(principal)) {
                return;
            }
            let mut to_session = |mailbox: &Mailbox| {
                let (taken, behind) = mailbox.push_events(bundle, id);
                reach.note(mailbox, taken, behind);
            };
            match sink {
                Sink::Mailbox(mailbox) => to_session(mailbox),
                Sink::Node(node) => to_session(&node.0),
                Sink::Queue(queue) => {
                    let shared = for_queues.get_or_insert_with(|| {
                        let publications = bundle.publications().iter();
                        publications.map(|publication| Arc::new(publication.uncharged())).collect()
                    });
                    for publication in shared {
                        reach.note_other(queue.push_bound(publication.clone()));
                    }
                }
            }
        });
        metrics::EVENTS.add(reach.taken as i64);
        Some(reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::budget::Budget;
    use crate::core::mailbox::Inbox;
    use crate::core::parcel::ConsumerId;
    use crate::core::queues::{ConsumerKey, Credit, QueueLimits, Queues};
    use crate::core::testing::{UNIT, exact, large_mailbox, name, principal, publication, take};

    fn session(number: u64) -> Subscriber {
        Subscriber { session: SessionId(number), binding: 0 }
    }

    fn receiver(sink: Sink) -> Receiver {
        Receiver { principal: Arc::new(principal("joe", "user")), sink }
    }

    fn subscribe(topics: &Topics, pattern: &Pattern, number: u64) -> (SubscriptionId, Inbox) {
        let (mailbox, inbox) = large_mailbox();
        (topics.subscribe(pattern, session(number), receiver(Sink::Mailbox(mailbox))).unwrap(), inbox)
    }

    fn publish(topics: &Topics, publication: &Arc<Publication>, exclude: Option<SessionId>) -> usize {
        topics.publish(publication, exclude, Retain::No, || None).unwrap().0
    }

    /// By the subscription that it came for, and the publication.
    fn events(inbox: &mut Inbox) -> Vec<(SubscriptionId, u64)> {
        let event = |parcel| match parcel {
            Parcel::Event { publication, subscription } => (subscription, publication.id),
            other => panic!("not an event: {other:?}"),
        };
        take(inbox).into_iter().map(event).collect()
    }

    #[test]
    fn all_subscribers_of_a_pattern_share_its_number() {
        let topics = Topics::default();
        let (first, mut inbox1) = subscribe(&topics, &exact("a.b"), 1);
        let (second, mut inbox2) = subscribe(&topics, &exact("a.b"), 2);
        let (other, mut inbox3) = subscribe(&topics, &Pattern::prefix("a.b").unwrap(), 3);
        assert_eq!(first, second);
        assert_ne!(first, other);
        assert_eq!(topics.get(&exact("a.b")), Some(first));
        assert_eq!(topics.pattern(first), Some(exact("a.b")));
        assert_eq!(publish(&topics, &publication("a.b", 7), None), 3);
        assert_eq!(events(&mut inbox1), [(first, 7)]);
        assert_eq!(events(&mut inbox2), [(first, 7)]);
        assert_eq!(events(&mut inbox3), [(other, 7)]);
    }

    #[test]
    fn subscribing_again_changes_nothing() {
        let topics = Topics::default();
        let (first, mut inbox) = subscribe(&topics, &exact("a.b"), 1);
        let (again, mut unused) = subscribe(&topics, &exact("a.b"), 1);
        assert_eq!(first, again);
        assert_eq!(publish(&topics, &publication("a.b", 1), None), 1);
        assert_eq!((events(&mut inbox).len(), events(&mut unused).len()), (1, 0));
    }

    #[test]
    fn a_publisher_can_be_left_out() {
        let topics = Topics::default();
        let (id, mut own) = subscribe(&topics, &exact("a.b"), 1);
        let (_, mut other) = subscribe(&topics, &exact("a.b"), 2);
        assert_eq!(publish(&topics, &publication("a.b", 1), Some(SessionId(1))), 1);
        assert_eq!(events(&mut own), []);
        assert_eq!(events(&mut other), [(id, 1)]);
    }

    #[test]
    fn what_is_kept_from_somebody_does_not_reach_a_session_nor_a_queue_nor_who_comes_later() {
        use crate::core::eligibility::Lists;
        let topics = Topics::default();
        let limits =
            QueueLimits { queues_max: 1, messages_max: 10, bytes_max: 1 << 20, total_bytes_max: 1 << 20 };
        let queues = Queues::new(limits);
        let (mailbox, mut plain) = large_mailbox();
        let key = ConsumerKey { session: SessionId(1), consumer: ConsumerId(1) };
        let credit = Credit { messages: 10, bytes: 1 << 20 };
        let queue = queues.unnamed(&name("tandem.bound.1"), key, mailbox.clone(), credit, None).unwrap();
        let bound = Subscriber { session: SessionId(1), binding: 1 };
        topics.subscribe(&exact("a.b"), session(1), receiver(Sink::Mailbox(mailbox))).unwrap();
        topics.subscribe(&exact("a.b"), bound, receiver(Sink::Queue(queue))).unwrap();
        let only = |sessions: Lists<SessionId>, roles: Lists<Box<str>>, number| {
            let eligibility = Eligibility { sessions, roles, ..Eligibility::default() };
            let mut narrow = Arc::into_inner(publication("a.b", number)).unwrap();
            narrow.eligibility = Some(Arc::new(eligibility));
            topics.publish(&Arc::new(narrow), None, Retain::Set, || None).unwrap().0
        };
        let replayed = |number| {
            let (mailbox, mut late) = large_mailbox();
            let receiver = receiver(Sink::Mailbox(mailbox));
            topics.subscribe_and_replay(&exact("a.b"), session(number), receiver, Some(0)).unwrap();
            take(&mut late).len()
        };
        let guests = || Lists::new(Vec::new(), Some(vec!["guest".into()]));
        assert_eq!(only(Lists::default(), guests(), 1), 0);
        assert_eq!((take(&mut plain).len(), replayed(2)), (0, 0));
        assert_eq!(
            only(Lists::new(vec![SessionId(1)], None), Lists::default(), 2),
            0,
            "not the queue either"
        );
        assert_eq!((take(&mut plain).len(), replayed(3)), (0, 1));
        assert_eq!(only(Lists::new(Vec::new(), Some(vec![SessionId(1)])), Lists::default(), 3), 2);
        assert_eq!((take(&mut plain).len(), replayed(4)), (2, 0));
    }

    #[test]
    fn events_come_for_exact_patterns_first_then_prefixes_from_short_to_long_then_wildcards() {
        let topics = Topics::default();
        let (mailbox, mut inbox) = large_mailbox();
        let patterns = [
            Pattern::wildcard("a..c").unwrap(),
            Pattern::prefix("a.b").unwrap(),
            exact("a.b.c"),
            Pattern::prefix("").unwrap(),
        ];
        let ids = patterns
            .map(|pattern| (pattern, receiver(Sink::Mailbox(mailbox.clone()))))
            .map(|(pattern, receiver)| topics.subscribe(&pattern, session(1), receiver).unwrap());
        assert_eq!(publish(&topics, &publication("a.b.c", 1), None), 4);
        let order: Vec<_> = events(&mut inbox).into_iter().map(|(id, _)| id).collect();
        assert_eq!(order, [ids[2], ids[3], ids[1], ids[0]]);
    }

    #[test]
    fn the_last_unsubscribe_frees_the_pattern_and_its_number_is_not_used_again() {
        let topics = Topics::default();
        let (first, _inbox) = subscribe(&topics, &exact("a.b"), 1);
        subscribe(&topics, &exact("a.b"), 2);
        assert!(!topics.unsubscribe(first, session(3)));
        assert!(topics.unsubscribe(first, session(1)));
        assert!(!topics.unsubscribe(first, session(1)));
        assert_eq!(topics.len(), 1);
        assert!(topics.unsubscribe(first, session(2)));
        assert!(topics.is_empty());
        assert_eq!((topics.get(&exact("a.b")), topics.pattern(first)), (None, None));
        assert_eq!(publish(&topics, &publication("a.b", 1), None), 0);
        assert_ne!(subscribe(&topics, &exact("a.b"), 1).0, first);
    }

    #[test]
    fn a_subscription_is_revoked_once_and_its_holder_is_told_after_its_last_event() {
        let topics = Topics::default();
        let (id, mut inbox) = subscribe(&topics, &exact("a.b"), 1);
        let (_, mut other) = subscribe(&topics, &exact("a.b"), 2);
        publish(&topics, &publication("a.b", 1), None);
        assert!(topics.remove_session(id, SessionId(1)));
        let unknown = SubscriptionId(99);
        assert!(!topics.remove_session(id, SessionId(1)) && !topics.remove_session(unknown, SessionId(2)));
        publish(&topics, &publication("a.b", 2), None);
        assert_eq!(events(&mut inbox), [(id, 1)]);
        assert_eq!(events(&mut other), [(id, 1), (id, 2)]);
        assert!(topics.remove_session(id, SessionId(2)) && topics.is_empty());
    }

    #[test]
    fn a_slow_subscriber_loses_only_its_own_events() {
        use crate::core::mailbox::{Bounds, Overflow, mailbox};
        let topics = Topics::default();
        let bounds = Bounds { bytes_soft_max: UNIT, bytes_max: UNIT, overflow: Overflow::DropNewest };
        let (slow, mut slow_inbox) = mailbox(bounds);
        let id = topics.subscribe(&exact("a.b"), session(1), receiver(Sink::Mailbox(slow))).unwrap();
        let (_, mut inbox) = subscribe(&topics, &exact("a.b"), 2);
        let taken: Vec<_> = (1..=3).map(|n| publish(&topics, &publication("a.b", n), None)).collect();
        assert_eq!(taken, [2, 1, 1]);
        assert_eq!(events(&mut slow_inbox), [(id, 1)]);
        assert_eq!(events(&mut inbox), [(id, 1), (id, 2), (id, 3)]);
    }

    #[test]
    fn what_a_bound_queue_keeps_does_not_hold_the_budget_of_publishers() {
        let topics = Topics::default();
        let limits =
            QueueLimits { queues_max: 1, messages_max: 10, bytes_max: 1 << 20, total_bytes_max: 1 << 20 };
        let queues = Queues::new(limits);
        let (mailbox, mut inbox) = large_mailbox();
        let key = ConsumerKey { session: SessionId(1), consumer: ConsumerId(1) };
        let credit = Credit { messages: 1, bytes: 1 << 20 };
        let queue = queues.unnamed(&name("tandem.bound.1"), key, mailbox, credit, None).unwrap();
        let subscriber = Subscriber { session: SessionId(1), binding: 1 };
        let id = topics.subscribe(&exact("a.b"), subscriber, receiver(Sink::Queue(queue.clone()))).unwrap();
        let (_, mut plain) = subscribe(&topics, &exact("a.b"), 2);
        let budget = Budget::new(1 << 20);
        for number in 1..=2 {
            let mut publication = Arc::into_inner(publication("a.b", number)).unwrap();
            publication.charge = Some(budget.charge(publication.cost()));
            assert_eq!(publish(&topics, &Arc::new(publication), None), 2);
        }
        assert_eq!((queue.len(), take(&mut inbox).len()), (2, 1));
        assert_eq!(budget.bytes(), 2 * UNIT, "a mailbox holds them");
        assert_eq!(events(&mut plain).len(), 2);
        assert_eq!((budget.bytes(), queues.bytes()), (0, 2 * UNIT));
        assert!(topics.unsubscribe(id, subscriber));
        queues.leave(&queue, key);
        assert_eq!((topics.len(), queues.bytes()), (1, 0));
    }
}

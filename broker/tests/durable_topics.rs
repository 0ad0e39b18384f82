//! What topics retain and remember, over a store: across crashes, on a disk that loses what was not synced, and that
//! changes bits.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod fake_disk;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use proptest::collection::vec;
use proptest::prelude::*;

use tandem_broker::core::access::rules::Rules;
use tandem_broker::core::access::{Principal, Refusal};
use tandem_broker::core::eligibility::{Eligibility, Lists};
use tandem_broker::core::history::{History, HistoryRule, Past, Query, Span};
use tandem_broker::core::mailbox::{Bounds, Inbox, Overflow, cost, mailbox};
use tandem_broker::core::message::{Publication, SessionId};
use tandem_broker::core::name::{Name, Pattern};
use tandem_broker::core::parcel::Parcel;
use tandem_broker::core::queues::QueueLimits;
use tandem_broker::core::queues::durable::{Journal, JournalLimits, Keeping, Progress};
use tandem_broker::core::realm::{Member, Memory, Operation, Outgoing, Realm, RealmLimits, SendTerms};
use tandem_broker::core::retained::RetainedLimits;
use tandem_broker::core::store::simulated::SimulatedStore;
use tandem_broker::core::store::{Store, StoredShelf, Unstorable};
use tandem_broker::core::topics::{PublishTerms, Retain};
use tandem_broker::store::disk::{OpenError, Opened};
use tandem_protocols::payload::{Content, Payload};

use fake_disk::{FakeFile, open};

const LIMITS: RealmLimits = RealmLimits {
    sessions_max: 100,
    subscriptions_max: 100,
    registrations_max: 100,
    consumers_max: 100,
    in_flight_bytes_max: 1 << 30,
    retained: RetainedLimits { messages_max: 20, bytes_max: 1 << 20 },
    queues: QueueLimits { queues_max: 9, messages_max: 10_000, bytes_max: 1 << 30, total_bytes_max: 1 << 30 },
};

const JOURNAL: JournalLimits =
    JournalLimits { backlog_bytes_max: 5000, window_bytes_max: 1 << 20, windows_bytes_max: 1 << 20 };

/// Events below this are remembered in the store: no more than five.
const PAST: &str = "h.";
const EVENTS_MAX: usize = 5;

/// What is retained below this is in the store, whatever its publisher says.
const DURABLE: &str = "d.";

fn rule(events_max: usize) -> HistoryRule {
    HistoryRule { pattern: Pattern::prefix(PAST).unwrap(), events_max, durable: true }
}

fn realm_on(keeping: Keeping, shelves: Vec<StoredShelf>, rules: &[HistoryRule]) -> Arc<Realm> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let time = AtomicU64::new(1000);
    let history = History::new(rules, Arc::new(move || time.fetch_add(10, Ordering::Relaxed)));
    let retained_durably = vec![Pattern::prefix(DURABLE).unwrap()];
    let memory = Memory { history: Some(history), keeping, retained_durably, ..Memory::default() };
    let entropy = Arc::new(|| LAST.fetch_add(1, Ordering::Relaxed));
    let realm = Realm::with_memory("test", LIMITS, entropy, memory);
    realm.topics().restore(shelves);
    realm
}

fn stored(store: Arc<dyn Store>) -> Keeping {
    Keeping::Stored(Journal::new(store, "test", JOURNAL))
}

/// A realm on a store that is simulated, until it crashes.
struct House {
    store: Arc<SimulatedStore>,
    realm: Arc<Realm>,
}

impl House {
    fn new() -> House {
        House::on(SimulatedStore::new(), &[rule(EVENTS_MAX)])
    }

    fn on(store: Arc<SimulatedStore>, rules: &[HistoryRule]) -> House {
        let realm = realm_on(stored(store.clone()), store.recovered_shelves(), rules);
        House { store, realm }
    }

    fn crash(self, kept: usize) -> House {
        House::on(self.store.crash(kept), &[rule(EVENTS_MAX)])
    }
}

struct Peer {
    member: Member,
    inbox: Inbox,
}

impl Peer {
    fn join(realm: &Arc<Realm>) -> Peer {
        Peer::join_as(realm, "joe", "user")
    }

    fn join_as(realm: &Arc<Realm>, id: &str, role: &str) -> Peer {
        let bounds = Bounds { bytes_soft_max: 1 << 30, bytes_max: 1 << 30, overflow: Overflow::Disconnect };
        let (mailbox, inbox) = mailbox(bounds);
        let member = realm.join(Principal::new(id, role, "test"), mailbox).unwrap();
        Peer { member, inbox }
    }

    fn publish(&self, outgoing: Outgoing, terms: PublishTerms, ticket: u64) -> Result<Progress, Refusal> {
        self.member.publish_for(outgoing, terms, ticket).map(|(_, progress)| progress)
    }

    fn retain(&self, topic: &str, body: u64) -> Progress {
        self.publish(message(topic, body, true), terms(Retain::Set), 0).unwrap()
    }

    fn remove(&self, topic: &str) -> Progress {
        self.publish(message(topic, 0, false), terms(Retain::Remove), 0).unwrap()
    }

    fn take(&mut self) -> Vec<Parcel> {
        let (mut all, mut batch) = (Vec::new(), VecDeque::new());
        while self.inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready() {
            self.inbox.settled(batch.iter().map(cost).sum());
            all.extend(batch.drain(..));
        }
        all
    }

    fn answers(&mut self) -> Vec<(u64, Result<(), Refusal>)> {
        let answer = |parcel| match parcel {
            Parcel::Stored { ticket, outcome } => Some((ticket, outcome)),
            _ => None,
        };
        self.take().into_iter().filter_map(answer).collect()
    }

    /// What it gets of what is retained.
    fn retained(&mut self, pattern: &Pattern) -> Vec<Arc<Publication>> {
        self.member.subscribe_and_replay(pattern, Some(1)).unwrap();
        let kept = |parcel| match parcel {
            Parcel::Retained { publication, .. } => Some(publication),
            _ => None,
        };
        self.take().into_iter().filter_map(kept).collect()
    }

    fn past(&mut self, query: &Query) -> Vec<Past> {
        let pattern = Pattern::prefix(PAST).unwrap();
        let subscription = self.member.subscribe(&pattern).unwrap();
        self.member.history(subscription, query).unwrap()
    }
}

fn terms(retain: Retain) -> PublishTerms {
    PublishTerms { retain, ..PublishTerms::default() }
}

fn message(topic: &str, body: u64, persistent: bool) -> Outgoing {
    let attributes: &[(&str, &str)] = if persistent { &[("persistent", "true"), ("k", "v")] } else { &[] };
    Outgoing {
        name: Name::parse(topic).unwrap(),
        payload: Payload::new(Content::Opaque(body.to_string().into())),
        attributes: attributes.iter().copied().collect(),
    }
}

fn body(publication: &Publication) -> u64 {
    let Content::Opaque(bytes) = publication.payload.content() else { panic!("changed") };
    str::from_utf8(bytes).unwrap().trim().parse().unwrap()
}

fn everything() -> Pattern {
    Pattern::prefix("").unwrap()
}

/// What a realm retains, by topic.
fn all_retained(realm: &Arc<Realm>) -> BTreeMap<String, u64> {
    let found = Peer::join(realm).retained(&everything());
    found.iter().map(|publication| (publication.name.to_string(), body(publication))).collect()
}

fn all_past(realm: &Arc<Realm>) -> Vec<u64> {
    let past = Peer::join(realm).past(&Query::default());
    past.iter().map(|past| body(&past.publication)).collect()
}

#[test]
fn what_is_retained_and_persistent_is_confirmed_after_the_sync_that_covers_it_and_survives() {
    let house = House::new();
    let mut peer = Peer::join(&house.realm);
    let progress = peer.publish(message("a", 1, true), terms(Retain::Set), 7);
    assert_eq!((progress, peer.answers()), (Ok(Progress::Storing), vec![]));
    assert_eq!(house.store.crash(0).recovered_shelves(), []);
    house.store.sync();
    assert_eq!(peer.answers(), [(7, Ok(()))]);
    // By configuration; and what is neither is in memory only.
    assert_eq!(peer.publish(message("d.x", 2, false), terms(Retain::Set), 0), Ok(Progress::Storing));
    assert_eq!(peer.publish(message("b", 3, false), terms(Retain::Set), 0), Ok(Progress::Done));
    assert_eq!(peer.publish(message("a", 4, true), terms(Retain::No), 0), Ok(Progress::Done));
    house.store.sync();
    let house = house.crash(0);
    assert_eq!(all_retained(&house.realm), [("a".to_owned(), 1), ("d.x".to_owned(), 2)].into());
    let peer = Peer::join(&house.realm);
    assert_eq!(peer.remove("a"), Progress::Storing);
    assert_eq!(peer.remove("b"), Progress::Done);
    assert_eq!(all_retained(&house.store_after(0)).len(), 2, "not yet");
    house.store.sync();
    // One that is not to outlive the process takes the one before it out of the store.
    assert_eq!(peer.publish(message("d.x", 0, false), terms(Retain::Remove), 0), Ok(Progress::Storing));
    house.store.sync();
    let house = house.crash(0);
    assert!(all_retained(&house.realm).is_empty());
    assert_eq!(house.store.recovered_shelves(), [], "an empty shelf is no more");
}

impl House {
    /// The realm as it would be after a crash now.
    fn store_after(&self, kept: usize) -> Arc<Realm> {
        let store = self.store.crash(kept);
        realm_on(stored(store.clone()), store.recovered_shelves(), &[rule(EVENTS_MAX)])
    }
}

#[test]
fn a_message_that_is_not_persistent_takes_its_persistent_predecessor_out_of_the_store() {
    let house = House::new();
    let peer = Peer::join(&house.realm);
    assert_eq!(peer.retain("a", 1), Progress::Storing);
    assert_eq!(peer.publish(message("a", 2, false), terms(Retain::Set), 0), Ok(Progress::Storing));
    house.store.sync();
    assert_eq!(all_retained(&house.realm), [("a".to_owned(), 2)].into());
    assert!(all_retained(&house.crash(0).realm).is_empty(), "what is outdated does not come back");
}

#[test]
fn everything_about_a_retained_message_holds_after_a_crash() {
    let house = House::new();
    let trusted = Principal { trust: Some(4), ..Principal::new("ann", "admin", "test") };
    let (mailbox, _inbox) =
        mailbox(Bounds { bytes_soft_max: 9999, bytes_max: 9999, overflow: Overflow::Disconnect });
    let ann = house.realm.join(trusted, mailbox).unwrap();
    let eligibility = Eligibility {
        sessions: Lists::new(vec![SessionId(1 << 50)], None),
        ids: Lists::new(vec!["eve".into()], None),
        roles: Lists::new(Vec::new(), Some(vec!["user".into()])),
        shard: None,
    };
    let eligibility = Some(Arc::new(eligibility));
    let terms = PublishTerms { disclose_me: true, eligibility, ..terms(Retain::Set) };
    let (id, _) = ann.publish_for(message("a", 1, true), terms, 0).unwrap();
    house.store.sync();
    let publisher = ann.id();
    let house = house.crash(0);
    let found = Peer::join(&house.realm).retained(&everything());
    let [publication] = &found[..] else { panic!("{found:?}") };
    assert_eq!((publication.id, publication.publisher, publication.trust), (id, publisher, Some(4)));
    let who = publication.disclosed.as_ref().unwrap();
    assert_eq!((&*who.id, &*who.role), ("ann", "admin"));
    let attributes: Vec<_> = publication.attributes.iter().collect();
    assert_eq!(attributes, [("persistent", "true"), ("k", "v")]);
    for (id, role) in [("eve", "user"), ("joe", "guest")] {
        assert!(Peer::join_as(&house.realm, id, role).retained(&everything()).is_empty(), "{id} {role}");
    }
}

#[test]
fn rules_hold_for_what_was_restored() {
    let house = House::new();
    let peer = Peer::join(&house.realm);
    let _ = (peer.retain("a.open", 1), peer.retain("a.secret", 2));
    peer.member.publish(message("h.open", 3, false), false).unwrap();
    peer.member.publish(message("h.secret", 4, false), false).unwrap();
    house.store.sync();
    let house = house.crash(0);
    house.realm.set_rules(no_secrets());
    let mut joe = Peer::join(&house.realm);
    let found = joe.retained(&Pattern::prefix("a.").unwrap());
    assert_eq!(found.iter().map(|publication| body(publication)).collect::<Vec<_>>(), [1]);
    let past = joe.past(&Query::default());
    assert_eq!(past.iter().map(|past| body(&past.publication)).collect::<Vec<_>>(), [3]);
}

fn no_secrets() -> Rules {
    use tandem_broker::config::Config;
    let text = "[[permissions]]\nrole = \"user\"\nactions = \"*\"\nname = \"\"\nmatch = \"prefix\"\nallow = true\n[[permissions]]\nrole = \"user\"\nname \
                = \".secret\"\nmatch = \"wildcard\"\nactions = [\"subscribe\"]\nallow = false\n";
    Config::parse(text).unwrap().rules("test").unwrap()
}

#[test]
fn a_history_is_as_it_was_after_a_crash_and_what_falls_out_of_it_leaves_the_store() {
    let house = House::new();
    let mut peer = Peer::join(&house.realm);
    for number in 1..=8 {
        let progress = peer.publish(message("h.x", number, false), terms(Retain::No), number);
        assert_eq!(progress, Ok(Progress::Storing));
    }
    assert!(peer.answers().is_empty());
    house.store.sync();
    assert_eq!(peer.answers(), (1..=8).map(|ticket| (ticket, Ok(()))).collect::<Vec<_>>());
    assert_eq!(peer.publish(message("other", 9, true), terms(Retain::No), 9), Ok(Progress::Done));
    let shelves = house.store.recovered_shelves();
    assert_eq!(shelves[0].queue.messages.len(), EVENTS_MAX);
    let told = |past: Vec<Past>| {
        past.into_iter()
            .map(|past| (body(&past.publication), past.publication.id, past.at_ms))
            .collect::<Vec<_>>()
    };
    let before = told(peer.past(&Query::default()));
    assert_eq!(before.iter().map(|(body, ..)| *body).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    let house = house.crash(0);
    let mut peer = Peer::join(&house.realm);
    assert_eq!(told(peer.past(&Query::default())), before);
    let publication = Span { after: Some(before[2].1), ..Span::default() };
    assert_eq!(told(peer.past(&Query { publication, ..Query::default() })), before[3..]);
    let time = Span { until: Some(before[0].2), ..Span::default() };
    assert_eq!(told(peer.past(&Query { time, ..Query::default() })), before[..1]);
    let _ = peer.publish(message("h.y", 9, false), terms(Retain::No), 0);
    house.store.sync();
    assert_eq!(all_past(&house.crash(0).realm), [5, 6, 7, 8, 9]);
}

#[test]
fn with_a_lower_limit_the_oldest_go_and_a_history_that_is_not_configured_rests() {
    let house = House::new();
    let peer = Peer::join(&house.realm);
    for number in 1..=5 {
        peer.member.publish(message("h.x", number, false), false).unwrap();
    }
    house.store.sync();
    let store = house.store.crash(0);
    let without = House::on(store.clone(), &[HistoryRule { durable: false, ..rule(9) }]);
    assert!(all_past(&without.realm).is_empty());
    drop(without);
    let fewer = House::on(store.crash(0), &[rule(2)]);
    assert_eq!(all_past(&fewer.realm), [4, 5]);
    fewer.store.sync();
    assert_eq!(fewer.store.recovered_shelves()[0].queue.messages.len(), 2);
}

#[test]
fn more_than_the_limits_allow_is_refused_and_nothing_of_it_is_in_the_store() {
    let house = House::new();
    let peer = Peer::join(&house.realm);
    (0..20).for_each(|number| assert_eq!(peer.retain(&format!("t{number}"), number), Progress::Storing));
    let refused = peer.publish(message("one.more", 1, true), terms(Retain::Set), 0);
    assert_eq!(refused, Err(Refusal::TooMany("retained messages of a realm", 20)));
    house.store.sync();
    assert_eq!(house.store.recovered_shelves()[0].queue.messages.len(), 20);
    (0..500).for_each(|number| assert_eq!(peer.retain("t1", number), Progress::Storing));
    house.store.sync();
    assert_eq!(house.store.recovered_shelves()[0].queue.messages.len(), 20, "one for each topic");
    // Lower limits do not throw away what was confirmed.
    let retained = RetainedLimits { messages_max: 3, ..LIMITS.retained };
    let keeping = stored(house.store.clone());
    let memory = Memory { keeping, ..Memory::default() };
    let realm = Realm::with_memory("test", RealmLimits { retained, ..LIMITS }, Arc::new(|| 1), memory);
    realm.topics().restore(house.store.recovered_shelves());
    assert_eq!(all_retained(&realm).len(), 20);
    let peer = Peer::join(&realm);
    assert!(peer.publish(message("one.more", 1, true), terms(Retain::Set), 0).is_err());
    let _ = peer.retain("t1", 5);
}

#[test]
fn who_retains_faster_than_the_disk_takes_is_slowed() {
    let house = House::new();
    let peer = Peer::join(&house.realm);
    assert!(!peer.member.congested(Waker::noop()));
    (0..40).for_each(|number| assert_eq!(peer.retain("a", number), Progress::Storing));
    assert!(peer.member.congested(Waker::noop()));
    house.store.sync();
    assert!(!peer.member.congested(Waker::noop()));
}

#[test]
fn on_a_disk_that_is_nearly_full_what_must_be_stored_is_refused_before_anybody_gets_it() {
    let house = House::new();
    let (peer, mut other) = (Peer::join(&house.realm), Peer::join(&house.realm));
    let _ = peer.retain("a", 1);
    house.store.sync();
    other.member.subscribe(&everything()).unwrap();
    house.store.set_nearly_full(true);
    let refused = Err(Refusal::Unstorable(Unstorable::NearlyFull));
    assert_eq!(peer.publish(message("a", 2, true), terms(Retain::Set), 0), refused);
    assert_eq!(peer.publish(message("h.x", 2, false), terms(Retain::No), 0), refused);
    assert!(other.take().is_empty());
    assert_eq!(peer.publish(message("b", 3, false), terms(Retain::Set), 0), Ok(Progress::Done));
    assert_eq!(other.take().len(), 1);
    assert_eq!(peer.remove("a"), Progress::Storing, "it makes room");
    house.store.set_nearly_full(false);
    assert_eq!(peer.retain("a", 4), Progress::Storing);
    house.store.sync();
    assert_eq!(all_retained(&house.crash(0).realm), [("a".to_owned(), 4)].into());
}

#[test]
fn once_the_store_failed_nothing_of_it_is_confirmed_or_taken_and_the_rest_goes_on() {
    let house = House::new();
    let mut peer = Peer::join(&house.realm);
    let _ = peer.retain("a", 1);
    house.store.sync();
    let _ = peer.publish(message("a", 2, true), terms(Retain::Set), 5);
    let _ = peer.publish(message("h.x", 3, false), terms(Retain::No), 6);
    house.store.fail_next_sync();
    house.store.sync();
    let failed = Refusal::Unstorable(Unstorable::Failed);
    assert_eq!(peer.answers(), [(5, Err(failed.clone())), (6, Err(failed.clone()))]);
    for retain in [Retain::Set, Retain::Remove] {
        assert_eq!(peer.publish(message("a", 4, true), terms(retain), 0), Err(failed.clone()));
    }
    let outdated = peer.publish(message("a", 4, false), terms(Retain::Set), 0);
    assert_eq!(outdated, Err(failed.clone()), "it could not replace the one in the store");
    assert_eq!(peer.publish(message("h.x", 4, false), terms(Retain::No), 0), Err(failed));
    assert_eq!(peer.publish(message("b", 5, false), terms(Retain::Set), 0), Ok(Progress::Done));
    assert_eq!(all_retained(&house.crash(0).realm), [("a".to_owned(), 1)].into());
}

#[test]
fn without_a_store_they_are_kept_in_memory_or_refused_as_persistent_messages_are() {
    let realm = realm_on(Keeping::InMemory, Vec::new(), &[]);
    let peer = Peer::join(&realm);
    assert_eq!(peer.retain("a", 1), Progress::Done);
    assert_eq!(all_retained(&realm).len(), 1);
    let peer = Peer::join(&realm_on(Keeping::Refused, Vec::new(), &[]));
    let refused = peer.publish(message("a", 1, true), terms(Retain::Set), 0);
    assert_eq!(refused, Err(Refusal::Unstorable(Unstorable::NoStore)));
    assert_eq!(peer.publish(message("a", 1, false), terms(Retain::Set), 0), Ok(Progress::Done));
}

#[test]
fn a_transaction_that_is_remembered_is_confirmed_once_when_all_of_it_is_safe() {
    let house = House::new();
    let mut peer = Peer::join(&house.realm);
    let operations = || {
        vec![
            Operation::Send(message("q", 1, true), SendTerms::default()),
            Operation::Publish(message("h.x", 2, false), None),
        ]
    };
    assert_eq!(peer.member.commit_for(operations(), 9), Ok(Progress::Storing));
    assert!(peer.answers().is_empty());
    house.store.sync();
    assert_eq!(peer.answers(), [(9, Ok(()))]);
    house.store.set_nearly_full(true);
    let refused = peer.member.commit_for(vec![operations().remove(1)], 10);
    assert_eq!(refused, Err(Refusal::Unstorable(Unstorable::NearlyFull)));
    house.store.set_nearly_full(false);
    assert_eq!(peer.member.commit_for(operations(), 11), Ok(Progress::Storing));
    house.store.fail_next_sync();
    house.store.sync();
    assert_eq!(peer.answers(), [(11, Err(Refusal::Unstorable(Unstorable::Failed)))]);
    assert_eq!(all_past(&house.crash(0).realm), [2]);
}

#[test]
fn what_is_damaged_is_put_aside_and_the_rest_is_there() {
    let house = House::new();
    let peer = Peer::join(&house.realm);
    for number in 1..=3 {
        assert_eq!(peer.retain(&format!("t{number}"), number), Progress::Storing);
    }
    house.store.sync();
    let shelf = house.store.recovered_shelves().remove(0);
    house.store.damage(shelf.queue.queue, 2);
    let house = house.crash(0);
    assert_eq!(all_retained(&house.realm), [("t1".to_owned(), 1), ("t3".to_owned(), 3)].into());
    let peer = Peer::join(&house.realm);
    let _ = peer.retain("t2", 9);
    house.store.sync();
    assert_eq!(all_retained(&house.crash(0).realm).len(), 3);
}

#[test]
fn a_realm_that_remembers_in_the_store_is_not_idle() {
    let house = House::new();
    let peer = Peer::join(&house.realm);
    peer.member.publish(message("h.x", 1, false), false).unwrap();
    drop(peer);
    assert!(!house.realm.is_idle());
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Set(usize, bool),
    Remove(usize),
    Remember,
    Sync,
}

const TOPICS: [&str; 5] = ["a", "b", "c", "d.a", "h.r"];

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..TOPICS.len(), any::<bool>()).prop_map(|(topic, persistent)| Act::Set(topic, persistent)),
        2 => (0..TOPICS.len()).prop_map(Act::Remove),
        2 => Just(Act::Remember),
        1 => Just(Act::Sync),
    ]
}

/// What the store should have: by topic, and of the past.
type State = (BTreeMap<String, u64>, Vec<u64>);

fn remember(past: &mut Vec<u64>, body: u64) {
    past.push(body);
    if past.len() > EVENTS_MAX {
        past.remove(0);
    }
}

/// What an act of this body makes of a state.
fn expected(state: &State, act: Act, body: u64) -> State {
    let (mut retained, mut past) = state.clone();
    let topic = match act {
        Act::Set(topic, _) | Act::Remove(topic) => TOPICS[topic],
        Act::Remember => "h.x",
        Act::Sync => return (retained, past),
    };
    match act {
        Act::Set(_, persistent) if persistent || topic.starts_with(DURABLE) => {
            retained.insert(topic.to_owned(), body);
        }
        Act::Set(..) | Act::Remove(_) => drop(retained.remove(topic)),
        Act::Remember | Act::Sync => {}
    }
    if topic.starts_with(PAST) {
        remember(&mut past, body);
    }
    (retained, past)
}

fn perform(peer: &Peer, act: Act, body: u64) -> Progress {
    let (topic, persistent, retain) = match act {
        Act::Set(topic, persistent) => (TOPICS[topic], persistent, Retain::Set),
        Act::Remove(topic) => (TOPICS[topic], false, Retain::Remove),
        Act::Remember | Act::Sync => ("h.x", false, Retain::No),
    };
    peer.publish(message(topic, body, persistent), terms(retain), body).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever of what was not synced reached the disk: what was confirmed is there, and nothing that never was.
    #[test]
    fn after_any_crash_there_is_what_was_confirmed_or_what_came_right_after(
        acts in vec(act(), 1..40), kept in 0_usize..20, rounds in 1_usize..4,
    ) {
        let (mut house, mut body) = (House::new(), 0);
        let mut state = State::default();
        for _ in 0..rounds {
            let mut peer = Peer::join(&house.realm);
            let mut states = vec![state];
            let mut confirmed = 0;
            for act in &acts {
                body += 1;
                if let Act::Sync = act {
                    house.store.sync();
                    prop_assert!(peer.answers().iter().all(|(_, outcome)| outcome.is_ok()));
                    confirmed = states.len() - 1;
                    continue;
                }
                let progress = perform(&peer, *act, body);
                let next = expected(states.last().unwrap(), *act, body);
                prop_assert!(progress == Progress::Storing || next == *states.last().unwrap());
                states.push(next);
            }
            house = house.crash(kept);
            state = (all_retained(&house.realm), all_past(&house.realm));
            // Of one publication what is retained may be there and what is remembered not yet, unconfirmed.
            let retained = states[confirmed..].iter().any(|(retained, _)| *retained == state.0);
            let past = states[confirmed..].iter().any(|(_, past)| *past == state.1);
            prop_assert!(retained && past, "{state:?} is none of {:?}", &states[confirmed..]);
        }
    }
}

// ---- on a disk --------------------------------------------------------------------------------------------------

fn realm_of(opened: &mut Opened) -> Arc<Realm> {
    let shelves = std::mem::take(&mut opened.shelves);
    realm_on(stored(opened.store.clone()), shelves, &[rule(EVENTS_MAX)])
}

/// Publishes, and waits for the answer.
fn confirmed(peer: &mut Peer, act: Act, body: u64) {
    if perform(peer, act, body) == Progress::Done {
        return;
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match &peer.answers()[..] {
            [] => assert!(std::time::Instant::now() < deadline, "the store answers"),
            [.., (ticket, Ok(()))] if *ticket == body => return,
            answers => assert!(answers.iter().all(|(_, outcome)| outcome.is_ok()), "{answers:?}"),
        }
        std::thread::yield_now();
    }
}

/// Numbers of a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn act(&mut self) -> Act {
        let topic = self.below(TOPICS.len() as u64) as usize;
        match self.below(8) {
            0 | 1 => Act::Remove(topic),
            2 | 3 => Act::Remember,
            kind => Act::Set(topic, kind > 4),
        }
    }
}

#[test]
fn what_was_confirmed_survives_on_a_disk_that_loses_what_was_not_synced() {
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let file = FakeFile::default();
        let mut opened = open(&file).unwrap();
        let realm = realm_of(&mut opened);
        let mut peer = Peer::join(&realm);
        let mut state = State::default();
        for body in 1..=chance.below(20) + 3 {
            let act = chance.act();
            confirmed(&mut peer, act, body);
            state = expected(&state, act, body);
        }
        // Not confirmed any more: each of it is there or not.
        let mut states = vec![state];
        for body in 100..100 + chance.below(6) {
            let act = chance.act();
            let _ = perform(&peer, act, body);
            states.push(expected(states.last().unwrap(), act, body));
        }
        let image = file.crash(|| chance.below(2) == 0);
        let mut found = open(&FakeFile::of(image)).unwrap();
        assert_eq!(found.complaints, []);
        let realm = realm_of(&mut found);
        let (retained, past) = (all_retained(&realm), all_past(&realm));
        let right =
            states.iter().any(|state| state.0 == retained) && states.iter().any(|state| state.1 == past);
        assert!(right, "seed {seed}: {retained:?} and {past:?} is none of {states:?}");
        found.store.close();
        opened.store.close();
    }
}

#[test]
fn of_changed_bits_none_makes_what_is_kept_silently_wrong_or_missing() {
    let file = FakeFile::default();
    let mut opened = open(&file).unwrap();
    {
        let realm = realm_of(&mut opened);
        let mut peer = Peer::join(&realm);
        // Mostly what is kept, and little of what was before.
        for (body, topic) in (1..).zip(TOPICS) {
            let large = Payload::new(Content::Opaque(format!("{body:<20000}").into()));
            let outgoing = Outgoing { payload: large, ..message(topic, 0, true) };
            let _ = peer.publish(outgoing, terms(Retain::Set), body).unwrap();
        }
        confirmed(&mut peer, Act::Remember, 6);
    }
    opened.store.close();
    let image = file.disk();
    let whole: BTreeMap<String, u64> = TOPICS.into_iter().map(str::to_owned).zip(1..).collect();
    let past = [5, 6];
    let (mut chance, mut affected) = (Chance(7), 0);
    // Most of the file is empty.
    let written: Vec<usize> = (0..image.len()).filter(|place| image[*place] != 0).collect();
    for _ in 0..400 {
        let bit = written[chance.below(written.len() as u64) as usize] * 8 + chance.below(8) as usize;
        let mut image = image.clone();
        image[bit / 8] ^= 1 << (bit % 8);
        let mut found = match open(&FakeFile::of(image)) {
            Ok(found) => found,
            Err(OpenError::Damaged(_) | OpenError::Newer { .. }) => {
                affected += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        let damaged = found.shelves.iter().flat_map(|shelf| &shelf.records).filter(|record| record.is_none());
        let reported = found.complaints.len() + damaged.count();
        let realm = realm_of(&mut found);
        let (now, now_past) = (all_retained(&realm), all_past(&realm));
        assert!(now.iter().all(|(topic, body)| whole[topic] == *body), "bit {bit}: wrong");
        assert!(now_past.iter().all(|body| past.contains(body)) && now_past.is_sorted(), "bit {bit}: wrong");
        let missing = now.len() < whole.len() || now_past.len() < past.len();
        assert!(!missing || reported > 0, "bit {bit}: something is missing, and nobody said so");
        affected += usize::from(reported > 0);
        found.store.close();
    }
    assert!(affected > 20, "the bits must hit something: {affected}");
}

#[test]
fn a_file_without_shelves_stays_as_older_brokers_know_it_and_one_with_them_does_not() {
    let format = |file: &FakeFile| {
        use redb::{Database, ReadableDatabase, TableDefinition};
        let database = Database::builder().create_with_backend(FakeFile::of(file.disk())).unwrap();
        let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
        let reading = database.begin_read().unwrap();
        reading.open_table(meta).unwrap().get("format").unwrap().unwrap().value()
    };
    let file = FakeFile::default();
    let mut opened = open(&file).unwrap();
    let realm = realm_of(&mut opened);
    let mut peer = Peer::join(&realm);
    fake_disk::write(&opened.store, vec![fake_disk::make(tandem_broker::core::store::QueueId(9), "q")])
        .unwrap();
    opened.store.close();
    assert_eq!(format(&file), 1);
    drop((peer.take(), peer));
    let mut opened = open(&file).unwrap();
    assert_eq!(opened.queues.len(), 1);
    let realm = realm_of(&mut opened);
    confirmed(&mut Peer::join(&realm), Act::Set(0, true), 1);
    opened.store.close();
    assert_eq!(format(&file), 2);
    let mut opened = open(&file).unwrap();
    assert_eq!((opened.queues.len(), opened.shelves.len()), (1, 1));
    assert_eq!(all_retained(&realm_of(&mut opened)).len(), 1);
    opened.store.close();
}

#[test]
fn the_first_confirmation_comes_after_a_sync_and_the_disk_then_has_it() {
    let file = FakeFile::default();
    let mut opened = open(&file).unwrap();
    let realm = realm_of(&mut opened);
    let mut peer = Peer::join(&realm);
    let before = file.sync_count();
    confirmed(&mut peer, Act::Set(0, true), 1);
    assert!(file.sync_count() > before, "no confirmation without a sync");
    // All that was not synced by now is lost.
    let mut found = open(&FakeFile::of(file.disk())).unwrap();
    assert_eq!(all_retained(&realm_of(&mut found)), [("a".to_owned(), 1)].into());
    found.store.close();
    opened.store.close();
}

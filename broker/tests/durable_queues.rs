//! Queues over a store that is simulated: a realm with its crashes, in one thread.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

#[path = "durable_queues/features.rs"]
mod features;
#[path = "durable_queues/random.rs"]
mod random;
#[path = "durable_queues/subscriptions.rs"]
mod subscriptions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use tandem_broker::core::access::{Principal, Refusal};
use tandem_broker::core::mailbox::{Bounds, Inbox, Overflow, cost, mailbox};
use tandem_broker::core::message::{Attributes, Publication};
use tandem_broker::core::name::Name;
use tandem_broker::core::parcel::{ConsumerId, Parcel};
use tandem_broker::core::queues::durable::{Journal, JournalLimits, Keeping, Progress};
use tandem_broker::core::queues::{Credit, Filter, QueueLimits, Settlement};
use tandem_broker::core::realm::{Member, Memory, Operation, Outgoing, Realm, RealmLimits, SendTerms};
use tandem_broker::core::retained::RetainedLimits;
use tandem_broker::core::store::simulated::SimulatedStore;
use tandem_broker::core::store::{QueueId, Unstorable};
use tandem_broker::metrics;
use tandem_protocols::payload::{Content, Payload};

const LIMITS: RealmLimits = RealmLimits {
    sessions_max: 100,
    subscriptions_max: 100,
    registrations_max: 100,
    consumers_max: 100,
    in_flight_bytes_max: 1 << 30,
    retained: RetainedLimits { messages_max: 1, bytes_max: 1 },
    queues: QueueLimits { queues_max: 9, messages_max: 10_000, bytes_max: 1 << 30, total_bytes_max: 1 << 30 },
};

/// A message costs a little more than 1000 bytes: five of them are in memory.
const JOURNAL: JournalLimits =
    JournalLimits { backlog_bytes_max: 1 << 20, window_bytes_max: 6000, windows_bytes_max: 1 << 20 };

const ENDLESS: Credit = Credit { messages: usize::MAX, bytes: usize::MAX };

fn few(messages: usize) -> Credit {
    Credit { messages, bytes: usize::MAX }
}

/// A realm on a store, until it crashes.
struct House {
    store: Arc<SimulatedStore>,
    realm: Arc<Realm>,
}

impl House {
    fn new() -> House {
        House::on(SimulatedStore::new(), JOURNAL)
    }

    fn on(store: Arc<SimulatedStore>, limits: JournalLimits) -> House {
        let keeping = Keeping::Stored(Journal::new(store.clone(), "test", limits));
        let realm = realm(keeping);
        realm.restore(store.recovered(), &read_filter);
        House { store, realm }
    }

    fn crash(self, kept: usize) -> House {
        House::on(self.store.crash(kept), JOURNAL)
    }

    fn join(&self) -> Peer {
        Peer::join(&self.realm)
    }

    /// Until nothing more comes of it.
    fn settle_down(&self) {
        for _ in 0..3 {
            self.store.sync();
        }
    }
}

/// Wants those whose number ends so.
#[derive(Debug)]
struct Ending(String);

impl Filter for Ending {
    fn admits(&self, publication: &Publication) -> bool {
        let Content::Opaque(bytes) = publication.payload.content() else { return false };
        u64::from_le_bytes(*bytes.first_chunk().unwrap()).to_string().ends_with(&self.0)
    }

    fn text(&self) -> &str {
        &self.0
    }
}

fn read_filter(text: &str) -> Option<Arc<dyn Filter>> {
    text.parse::<u64>().ok().map(|_| Arc::new(Ending(text.to_owned())) as Arc<dyn Filter>)
}

fn realm(keeping: Keeping) -> Arc<Realm> {
    let last = AtomicU64::new(0);
    let entropy = Arc::new(move || last.fetch_add(1, Ordering::Relaxed));
    Realm::with_memory("test", LIMITS, entropy, Memory { keeping, ..Memory::default() })
}

struct Peer {
    member: Member,
    inbox: Inbox,
    delivered: VecDeque<(u64, u64, u32)>,
    consumers: VecDeque<ConsumerId>,
    stored: Vec<(u64, Result<(), Refusal>)>,
}

impl Peer {
    fn join(realm: &Arc<Realm>) -> Peer {
        let bounds = Bounds { bytes_soft_max: 1 << 30, bytes_max: 1 << 30, overflow: Overflow::Disconnect };
        let (mailbox, inbox) = mailbox(bounds);
        let principal = Principal::new("u", "r", "test");
        let member = realm.join(principal, mailbox).unwrap();
        Peer { member, inbox, delivered: VecDeque::new(), consumers: VecDeque::new(), stored: Vec::new() }
    }

    fn send(&self, queue: &str, id: u64, ticket: u64) -> Progress {
        self.member.send_for(persistent(queue, id), SendTerms::default(), ticket).unwrap().1
    }

    /// Takes what lies in the mailbox.
    fn look(&mut self) {
        let mut batch = VecDeque::new();
        while self.inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready() {
            self.inbox.settled(batch.iter().map(cost).sum());
            for parcel in batch.drain(..) {
                match parcel {
                    Parcel::Delivery(d) => {
                        let Content::Opaque(bytes) = d.publication.payload.content() else {
                            panic!("changed")
                        };
                        let id = u64::from_le_bytes(*bytes.first_chunk().unwrap());
                        self.delivered.push_back((id, d.sequence, d.redeliveries));
                        self.consumers.push_back(d.consumer);
                    }
                    Parcel::Stored { ticket, outcome } => self.stored.push((ticket, outcome)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// What was delivered: numbers, and how often before.
    fn got(&mut self) -> Vec<(u64, u32)> {
        self.look();
        self.delivered.drain(..).map(|(id, _, redeliveries)| (id, redeliveries)).collect()
    }

    fn ids(&mut self) -> Vec<u64> {
        self.got().into_iter().map(|(id, _)| id).collect()
    }

    fn answers(&mut self) -> Vec<(u64, Result<(), Refusal>)> {
        self.look();
        std::mem::take(&mut self.stored)
    }
}

fn message(queue: &str, id: u64, attributes: &[(&str, &str)]) -> Outgoing {
    let mut bytes = vec![0; 700];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    Outgoing {
        name: Name::parse(queue).unwrap(),
        payload: Payload::new(Content::Opaque(Bytes::from(bytes))),
        attributes: attributes.iter().copied().collect::<Attributes>(),
    }
}

fn persistent(queue: &str, id: u64) -> Outgoing {
    message(queue, id, &[("persistent", "true"), ("priority", "4")])
}

fn transient(queue: &str, id: u64) -> Outgoing {
    message(queue, id, &[])
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn a_persistent_message_is_confirmed_and_delivered_after_the_sync_that_covers_it() {
    let house = House::new();
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    assert_eq!(peer.send("q", 1, 7), Progress::Storing);
    assert_eq!((peer.ids(), peer.answers()), (vec![], vec![]));
    house.store.sync();
    assert_eq!((peer.ids(), peer.answers()), (vec![1], vec![(7, Ok(()))]));
}

#[test]
fn nothing_overtakes_a_message_that_waits_for_the_store() {
    let house = House::new();
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    peer.member.send(transient("q", 1)).unwrap();
    let _ = peer.send("q", 2, 0);
    peer.member.send(transient("q", 3)).unwrap();
    assert_eq!(peer.ids(), [1]);
    house.store.sync();
    assert_eq!(peer.ids(), [2, 3]);
}

#[test]
fn after_a_crash_everything_confirmed_is_there_in_order_and_says_whether_it_was_delivered() {
    let house = House::new();
    let mut peer = house.join();
    (1..=8).for_each(|id| assert_eq!(peer.send("q", id, id), Progress::Storing));
    house.store.sync();
    assert_eq!(peer.answers().len(), 8);
    let consumer = peer.member.consume(&name("q"), few(3)).unwrap();
    assert_eq!(peer.got(), [(1, 0), (2, 0), (3, 0)]);
    let settled = peer.member.settle_for(consumer, 2, Settlement::Accept, Some(9)).unwrap();
    assert_eq!((settled, peer.answers()), (Progress::Storing, vec![]));
    house.settle_down();
    assert_eq!(peer.answers(), [(9, Ok(()))]);
    let _ = peer.send("q", 9, 0);
    let house = house.crash(0);
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    let _ = peer.send("q", 10, 0);
    house.settle_down();
    assert_eq!(peer.got(), [(1, 1), (3, 1), (4, 1), (5, 0), (6, 0), (7, 0), (8, 0), (10, 0)]);
    assert_eq!(house.realm.queues().len(), 1);
}

#[test]
fn all_attributes_survive_a_crash() {
    let house = House::new();
    let peer = house.join();
    let _ = peer.send("q", 1, 0);
    house.store.sync();
    let house = house.crash(0);
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    house.settle_down();
    let mut batch = VecDeque::new();
    assert!(peer.inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready());
    let Some(Parcel::Delivery(delivery)) = batch.pop_front() else { panic!("a delivery") };
    let attributes: Vec<_> = delivery.publication.attributes.iter().collect();
    assert_eq!(attributes, [("persistent", "true"), ("priority", "4")]);
}

#[test]
fn a_transaction_survives_whole_or_not_at_all() {
    for kept in 0..=3 {
        let house = House::new();
        let mut peer = house.join();
        let _ = peer.send("in", 1, 0);
        house.store.sync();
        let consumer = peer.member.consume(&name("in"), ENDLESS).unwrap();
        assert_eq!(peer.ids(), [1]);
        house.store.sync();
        let operations = vec![
            Operation::Settle(consumer, 1, Settlement::Accept),
            Operation::Send(persistent("out1", 2), SendTerms::default()),
            Operation::Send(transient("out1", 3), SendTerms::default()),
            Operation::Send(persistent("out2", 4), SendTerms::default()),
        ];
        let mut other = house.join();
        other.member.consume(&name("out1"), ENDLESS).unwrap();
        assert_eq!(peer.member.commit_for(operations, 5), Ok(Progress::Storing));
        assert_eq!((other.ids(), peer.answers()), (vec![], vec![]), "nothing of it happened yet");
        let house = house.crash(kept);
        let mut last = house.join();
        for queue in ["in", "out1", "out2"] {
            last.member.consume(&name(queue), ENDLESS).unwrap();
        }
        house.settle_down();
        let found: BTreeSet<u64> = last.ids().into_iter().collect();
        let (before, after) = (BTreeSet::from([1]), BTreeSet::from([2, 4]));
        assert!(found == before || found == after, "{kept} were kept: {found:?}");
        assert_eq!(found == after, kept > 0);
    }
}

#[test]
fn a_transaction_is_confirmed_and_delivered_together() {
    let house = House::new();
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    let operations = vec![
        Operation::Send(transient("q", 1), SendTerms::default()),
        Operation::Send(persistent("q", 2), SendTerms::default()),
    ];
    assert_eq!(peer.member.commit_for(operations, 5), Ok(Progress::Storing));
    assert_eq!(peer.ids(), Vec::<u64>::new());
    house.store.sync();
    assert_eq!((peer.ids(), peer.answers()), (vec![1, 2], vec![(5, Ok(()))]));
    let operations = vec![Operation::Send(transient("q", 3), SendTerms::default())];
    assert_eq!(peer.member.commit_for(operations, 6), Ok(Progress::Done));
    assert_eq!(peer.ids(), [3]);
}

#[test]
fn once_the_store_failed_nothing_persistent_is_confirmed_delivered_or_taken_and_the_rest_goes_on() {
    let house = House::new();
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    let _ = peer.send("q", 1, 7);
    let _ = peer.send("q", 2, 0);
    peer.member.send(transient("q", 3)).unwrap();
    house.store.fail_next_sync();
    house.store.sync();
    let failed = Refusal::Unstorable(Unstorable::Failed);
    assert_eq!(peer.answers(), [(7, Err(failed.clone())), (0, Err(failed.clone()))]);
    assert_eq!(peer.ids(), [3]);
    assert_eq!(peer.member.send(persistent("q", 4)), Err(failed.clone()));
    let operations = vec![
        Operation::Send(transient("q", 5), SendTerms::default()),
        Operation::Send(persistent("q", 6), SendTerms::default()),
    ];
    assert_eq!(peer.member.commit(operations), Err(failed));
    peer.member.send(transient("q", 7)).unwrap();
    assert_eq!(peer.ids(), [7]);
    assert_eq!(house.store.syncs(), 0);
}

#[test]
fn a_disk_that_is_nearly_full_refuses_persistent_messages_only_and_only_until_there_is_space() {
    let house = House::new();
    let mut peer = house.join();
    let consumer = peer.member.consume(&name("q"), ENDLESS).unwrap();
    let _ = peer.send("q", 1, 0);
    house.store.sync();
    house.store.set_nearly_full(true);
    let full = Refusal::Unstorable(Unstorable::NearlyFull);
    assert_eq!(peer.member.send(persistent("q", 2)), Err(full));
    peer.member.send(transient("q", 3)).unwrap();
    assert_eq!(peer.ids(), [1, 3]);
    assert_eq!(peer.member.settle_for(consumer, 1, Settlement::Accept, Some(1)), Ok(Progress::Storing));
    house.store.sync();
    assert_eq!(peer.answers(), [(1, Ok(()))]);
    house.store.set_nearly_full(false);
    let _ = peer.send("q", 4, 2);
    house.store.sync();
    assert_eq!(peer.ids(), [4]);
}

#[test]
fn of_a_deep_queue_only_a_window_is_in_memory_and_all_of_it_comes_in_order() {
    let house = House::new();
    let mut peer = house.join();
    (1..=500).for_each(|id| assert_eq!(peer.send("q", id, 0), Progress::Storing));
    house.store.sync();
    let consumer = peer.member.consume(&name("q"), few(3)).unwrap();
    let mut seen = Vec::new();
    let mut rounds = 0;
    while seen.len() < 500 {
        peer.look();
        let Some((id, sequence, redeliveries)) = peer.delivered.pop_front() else {
            house.store.sync();
            rounds += 1;
            assert!(rounds < 1000, "it goes on");
            continue;
        };
        assert_eq!(redeliveries, 0);
        seen.push(id);
        peer.member.settle(consumer, sequence, Settlement::Accept).unwrap();
        assert!(house.realm.queues().window_bytes() <= JOURNAL.window_bytes_max);
    }
    assert_eq!(seen, (1..=500).collect::<Vec<_>>());
    assert!(rounds >= 400 / 6, "the store was asked for the rest, a window at a time");
    assert_eq!((house.realm.queues().bytes(), house.realm.queues().window_bytes()), (0, 0));
    drop(peer);
    house.settle_down();
    assert_eq!((house.realm.queues().len(), house.store.recovered().len()), (0, 0));
}

#[test]
fn the_windows_of_all_queues_together_are_bounded_too() {
    let limits = JournalLimits { windows_bytes_max: 2500, ..JOURNAL };
    let house = House::on(SimulatedStore::new(), limits);
    let mut peer = house.join();
    for queue in ["q1", "q2", "q3"] {
        (1..=4).for_each(|id| assert_eq!(peer.send(queue, id, 0), Progress::Storing));
    }
    house.store.sync();
    assert!(house.realm.queues().window_bytes() <= 2500);
    peer.member.consume(&name("q3"), ENDLESS).unwrap();
    house.settle_down();
    assert_eq!(peer.ids(), [1, 2, 3, 4], "who has a consumer gets its messages all the same");
}

#[test]
fn a_damaged_message_is_put_aside_and_the_others_go_on() {
    let house = House::new();
    let peer = house.join();
    (1..=4).for_each(|id| assert_eq!(peer.send("q", id, 0), Progress::Storing));
    house.store.sync();
    house.store.damage(QueueId(1), 2);
    let house = house.crash(0);
    let before = metrics::STORE_UNREADABLE.get();
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    house.settle_down();
    assert_eq!(peer.ids(), [1, 3, 4]);
    assert!(metrics::STORE_UNREADABLE.get() > before);
    let left: Vec<u64> = house.store.recovered()[0].messages.iter().map(|message| message.sequence).collect();
    assert_eq!(left, [1, 3, 4]);
}

#[test]
fn without_a_store_a_persistent_message_is_kept_in_memory_or_refused() {
    let realm_in_memory = realm(Keeping::InMemory);
    let mut peer = Peer::join(&realm_in_memory);
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    assert_eq!(peer.send("q", 1, 7), Progress::Done);
    assert_eq!((peer.ids(), peer.member.flush(8)), (vec![1], Progress::Done));
    let realm_refusing = realm(Keeping::Refused);
    let mut peer = Peer::join(&realm_refusing);
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    let refused = Refusal::Unstorable(Unstorable::NoStore);
    assert_eq!(peer.member.send(persistent("q", 1)), Err(refused));
    peer.member.send(transient("q", 2)).unwrap();
    assert_eq!(peer.ids(), [2]);
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn who_sends_is_not_read_while_too_much_waits_for_the_store() {
    let house = House::new();
    let peer = house.join();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(count.clone());
    let mut sent = 0;
    while !peer.member.congested(&waker) {
        sent += 1;
        let _ = peer.send("q", sent, 0);
        assert!(sent < 10_000, "there is a limit");
    }
    house.store.sync();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert!(!peer.member.congested(&waker));
}

#[test]
fn a_flush_says_when_everything_before_it_is_safe() {
    let house = House::new();
    let mut peer = house.join();
    let _ = peer.send("q", 1, 0);
    assert_eq!(peer.member.flush(3), Progress::Storing);
    assert_eq!(peer.answers(), []);
    house.store.sync();
    assert_eq!(peer.answers(), [(3, Ok(()))]);
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Send { queue: usize, persistent: bool },
    Commit { first: usize, second: usize },
    Settle { which: usize, settlement: Settlement },
    Leave,
    Sync,
    Crash { kept: usize },
}

fn action() -> impl Strategy<Value = Action> {
    let settlement = prop_oneof![
        3 => Just(Settlement::Accept),
        1 => Just(Settlement::Requeue),
        1 => Just(Settlement::Reject),
    ];
    prop_oneof![
        8 => (0..2_usize, prop::bool::weighted(0.8))
            .prop_map(|(queue, persistent)| Action::Send { queue, persistent }),
        2 => (0..2_usize, 0..2_usize).prop_map(|(first, second)| Action::Commit { first, second }),
        6 => (0..50_usize, settlement).prop_map(|(which, settlement)| Action::Settle { which, settlement }),
        1 => Just(Action::Leave),
        6 => Just(Action::Sync),
        1 => (0..6_usize).prop_map(|kept| Action::Crash { kept }),
    ]
}

const QUEUES: [&str; 2] = ["q0", "q1"];

/// What is known of a message that was to survive.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Known {
    /// The store confirmed it.
    confirmed: bool,
    /// It was settled for good, and nobody was told yet.
    settled: bool,
    /// The same, and the store confirmed it.
    gone: bool,
}

/// A realm that crashes again and again, and what its clients know.
struct Simulation {
    house: House,
    peer: Peer,
    consumers: [ConsumerId; 2],
    known: BTreeMap<u64, Known>,
    held: Vec<(usize, u64, u64)>,
    /// What the tickets are about: sent, and settled.
    tickets: BTreeMap<u64, (Vec<u64>, Option<u64>)>,
    last: u64,
    delivered_since_crash: [u64; 2],
}

impl Simulation {
    fn on(house: House, known: BTreeMap<u64, Known>, last: u64) -> Simulation {
        let mut peer = house.join();
        let consumers = QUEUES.map(|queue| peer.member.consume(&name(queue), few(4)).unwrap());
        let (held, tickets) = (Vec::new(), BTreeMap::new());
        Simulation { house, peer, consumers, known, held, tickets, last, delivered_since_crash: [0; 2] }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn act(mut self, action: Action) -> Simulation {
        match action {
            Action::Send { queue, persistent: true } => {
                let id = self.next();
                self.known.insert(id, Known::default());
                self.tickets.insert(id, (vec![id], None));
                assert_eq!(self.peer.send(QUEUES[queue], id, id), Progress::Storing);
            }
            Action::Send { queue, persistent: false } => {
                let id = self.next();
                self.peer.member.send(transient(QUEUES[queue], id)).unwrap();
            }
            Action::Commit { first, second } => {
                let (one, two, ticket) = (self.next(), self.next(), self.next());
                let held = self.held.pop();
                let mut operations = vec![
                    Operation::Send(persistent(QUEUES[first], one), SendTerms::default()),
                    Operation::Send(persistent(QUEUES[second], two), SendTerms::default()),
                ];
                if let Some((queue, sequence, _)) = held {
                    operations.push(Operation::Settle(self.consumers[queue], sequence, Settlement::Accept));
                }
                let settled = held.map(|(_, _, id)| id);
                self.note_settled(settled);
                self.known.insert(one, Known::default());
                self.known.insert(two, Known::default());
                self.tickets.insert(ticket, (vec![one, two], settled));
                assert_eq!(self.peer.member.commit_for(operations, ticket), Ok(Progress::Storing));
            }
            Action::Settle { which, settlement } => {
                if !self.held.is_empty() {
                    let (queue, sequence, id) = self.held.remove(which % self.held.len());
                    let ticket = self.next();
                    let consumer = self.consumers[queue];
                    let settled =
                        self.peer.member.settle_for(consumer, sequence, settlement, Some(ticket)).unwrap();
                    if settlement != Settlement::Requeue && settled == Progress::Storing {
                        self.note_settled(Some(id));
                        self.tickets.insert(ticket, (vec![], Some(id)));
                    }
                    self.delivered_since_crash = [0; 2];
                }
            }
            Action::Leave => {
                let Simulation { house, peer, known, last, tickets, .. } = self;
                drop(peer);
                self = Simulation::on(house, known, last);
                self.tickets = tickets;
            }
            Action::Sync => self.house.store.sync(),
            Action::Crash { kept } => {
                let Simulation { house, known, last, .. } = self;
                self = Simulation::on(house.crash(kept), known, last);
            }
        }
        self.look();
        self
    }

    fn note_settled(&mut self, id: Option<u64>) {
        if let Some(known) = id.and_then(|id| self.known.get_mut(&id)) {
            known.settled = true;
        }
    }

    fn look(&mut self) {
        self.peer.look();
        for (ticket, outcome) in self.peer.answers() {
            outcome.unwrap();
            let Some((sent, settled)) = self.tickets.remove(&ticket) else { continue };
            sent.into_iter().for_each(|id| self.known.get_mut(&id).unwrap().confirmed = true);
            if let Some(known) = settled.and_then(|id| self.known.get_mut(&id)) {
                known.gone = true;
            }
        }
        while let Some((id, sequence, redeliveries)) = self.peer.delivered.pop_front() {
            let consumer = self.peer.consumers.pop_front();
            let queue = usize::from(consumer == Some(self.consumers[1]));
            if let Some(known) = self.known.get(&id) {
                assert!(!known.gone, "{id} came again although the store knew that it was gone");
            }
            let last = &mut self.delivered_since_crash[queue];
            assert!(redeliveries > 0 || id > *last, "{id} came after {last}");
            *last = (*last).max(id);
            self.held.push((queue, sequence, id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_confirmed_is_lost_and_nothing_gone_comes_back(
        actions in vec(action(), 1..120)
    ) {
        let mut simulation = Simulation::on(House::new(), BTreeMap::new(), 0);
        for action in actions {
            simulation = simulation.act(action);
        }
        // In the end the power fails once more, and somebody takes what is left.
        let Simulation { house, known, .. } = simulation;
        let house = house.crash(0);
        let mut last = house.join();
        for queue in QUEUES {
            last.member.consume(&name(queue), ENDLESS).unwrap();
        }
        for _ in 0..50 {
            house.store.sync();
        }
        let ids = last.ids();
        let found: BTreeSet<u64> = ids.iter().copied().collect();
        prop_assert_eq!(found.len(), ids.len(), "each once");
        for (id, known) in known {
            if known.confirmed && !known.settled {
                prop_assert!(found.contains(&id), "{} was confirmed and is lost", id);
            }
            if known.gone {
                prop_assert!(!found.contains(&id), "{} was gone and is back", id);
            }
        }
    }
}

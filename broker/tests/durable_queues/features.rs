//! What queues can do beyond holding messages, with messages that are kept: orders, times, limits, dead letters,
//! filters and browsers, across crashes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tandem_broker::core::history::WallClock;
use tandem_broker::core::message::Handling;
use tandem_broker::core::queues::{Browse, ConsumeTerms, Properties, QueueTerms, WhenFull};
use tandem_broker::core::realm::TakeTerms;

use super::*;

/// A realm on a store, and a clock.
pub struct Timed {
    pub store: Arc<SimulatedStore>,
    pub realm: Arc<Realm>,
    pub clock: Arc<AtomicU64>,
    /// What its configuration says, each time that it starts.
    declared: Vec<(Name, Properties)>,
}

impl Timed {
    pub fn new() -> Timed {
        Timed::on(SimulatedStore::new(), Arc::new(AtomicU64::new(1000)))
    }

    pub fn on(store: Arc<SimulatedStore>, clock: Arc<AtomicU64>) -> Timed {
        Timed::declaring(store, clock, Vec::new())
    }

    pub fn declaring(
        store: Arc<SimulatedStore>,
        clock: Arc<AtomicU64>,
        declared: Vec<(Name, Properties)>,
    ) -> Timed {
        let keeping = Keeping::Stored(Journal::new(store.clone(), "test", JOURNAL));
        let (last, time) = (AtomicU64::new(0), clock.clone());
        let entropy = Arc::new(move || last.fetch_add(1, Ordering::Relaxed));
        let told: WallClock = Arc::new(move || time.load(Ordering::Relaxed));
        let memory = Memory { keeping, clock: Some(told), ..Memory::default() };
        let realm = Realm::with_memory("test", LIMITS, entropy, memory);
        for (queue, properties) in &declared {
            realm.declare_queue(queue, properties.clone()).unwrap();
        }
        realm.restore(store.recovered(), &read_filter);
        Timed { store, realm, clock, declared }
    }

    pub fn crash(self, kept: usize) -> Timed {
        Timed::declaring(self.store.crash(kept), self.clock, self.declared)
    }

    pub fn join(&self) -> Peer {
        Peer::join(&self.realm)
    }

    /// Until nothing more comes of it.
    pub fn settle_down(&self) {
        for _ in 0..300 {
            self.store.sync();
            let queues = self.realm.queues();
            while queues.deadline_ms(Waker::noop()).is_some_and(|at| at <= queues.now_ms()) {
                queues.tick();
            }
        }
    }

    pub fn pass(&self, milliseconds: u64) {
        self.clock.fetch_add(milliseconds, Ordering::Relaxed);
        self.settle_down();
    }

    /// What the store has: queues, and how many messages are in each.
    fn stored(&self) -> Vec<(String, usize)> {
        let mut stored: Vec<_> = self
            .store
            .recovered()
            .into_iter()
            .map(|queue| (queue.name.to_string(), queue.messages.len()))
            .collect();
        stored.sort();
        stored
    }
}

pub fn put(peer: &Peer, queue: &str, id: u64, handling: Handling, properties: Properties) {
    let queue_terms = QueueTerms { properties, existing: false };
    let terms = SendTerms { handling: Some(Arc::new(handling)), queue: queue_terms };
    let _ = peer.member.send_for(persistent(queue, id), terms, 0).unwrap();
}

fn dying_to(queue: &str) -> Properties {
    Properties { dead_letters: Some(name(queue)), ..Properties::default() }
}

pub fn taking(consumer: ConsumeTerms) -> TakeTerms {
    TakeTerms { consumer, ..TakeTerms::default() }
}

#[test]
fn priorities_hold_across_a_crash_and_when_the_bodies_are_in_the_store_only() {
    let house = Timed::new();
    let peer = house.join();
    for id in 1..=40 {
        let priority = Some((id % 4) as u8);
        put(&peer, "q", id, Handling { priority, ..Handling::default() }, Properties::default());
    }
    house.settle_down();
    let house = house.crash(0);
    let mut peer = house.join();
    let consumer = peer.member.consume(&name("q"), few(1)).unwrap();
    let mut seen = Vec::new();
    for _ in 0..40 {
        house.settle_down();
        peer.look();
        let (id, sequence, _) = peer.delivered.pop_front().unwrap();
        seen.push(id);
        peer.member.settle(consumer, sequence, Settlement::Accept).unwrap();
        assert!(house.realm.queues().window_bytes() <= 8000);
    }
    let mut right: Vec<u64> = (1..=40).collect();
    right.sort_by_key(|id| (3 - id % 4, *id));
    assert_eq!(seen, right);
    house.settle_down();
    assert_eq!((house.stored(), house.realm.queues().bytes()), (vec![("q".into(), 0)], 0));
}

#[test]
fn what_grew_too_old_leaves_the_store_also_while_the_broker_was_away() {
    let house = Timed::new();
    let peer = house.join();
    let old = Handling { ttl_ms: Some(100), ..Handling::default() };
    (1..=20).for_each(|id| put(&peer, "q", id, old.clone(), Properties::default()));
    put(&peer, "q", 21, Handling::default(), Properties::default());
    house.settle_down();
    assert_eq!(house.stored(), [("q".into(), 21)]);
    let house = house.crash(0);
    house.pass(100);
    assert_eq!(house.stored(), [("q".into(), 1)]);
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    house.settle_down();
    assert_eq!(peer.ids(), [21]);
}

#[test]
fn what_grew_too_old_in_the_store_goes_to_the_dead_letters_that_the_queue_names_across_a_crash() {
    let house = Timed::new();
    let peer = house.join();
    let old = Handling { ttl_ms: Some(100), ..Handling::default() };
    (1..=20).for_each(|id| put(&peer, "q", id, old.clone(), dying_to("dead")));
    house.settle_down();
    let house = house.crash(0);
    house.pass(100);
    assert_eq!(house.stored(), [("dead".into(), 20)]);
    let house = house.crash(0);
    let mut peer = house.join();
    peer.member.consume(&name("dead"), ENDLESS).unwrap();
    house.settle_down();
    assert_eq!(peer.ids(), (1..=20).collect::<Vec<_>>());
    assert_eq!(house.realm.queues().len(), 1);
}

#[test]
fn a_dead_letter_is_in_one_queue_or_the_other_wherever_it_crashes() {
    let mut found = BTreeSet::new();
    for kept in 0..=6 {
        let house = Timed::new();
        let mut peer = house.join();
        put(&peer, "q", 1, Handling::default(), Properties::default());
        house.settle_down();
        let consumer = peer.member.consume(&name("q"), ENDLESS).unwrap();
        assert_eq!(peer.ids(), [1]);
        let progress = peer.member.settle_for(consumer, 1, Settlement::Reject, Some(5)).unwrap();
        assert_eq!((progress, peer.answers()), (Progress::Storing, vec![]));
        drop(peer);
        let house = house.crash(kept);
        let stored = house.stored();
        assert!(
            stored == [("q".into(), 1)]
                || stored == [("dlq.q".into(), 1)]
                || stored == [("dlq.q".into(), 1), ("q".into(), 0)],
            "{kept}: {stored:?}"
        );
        found.insert(stored[0].0.clone());
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn a_transaction_that_rejects_survives_whole_or_not_at_all() {
    for kept in 0..=6 {
        let house = Timed::new();
        let mut peer = house.join();
        put(&peer, "q", 1, Handling::default(), Properties::default());
        house.settle_down();
        let consumer = peer.member.consume(&name("q"), ENDLESS).unwrap();
        assert_eq!(peer.ids(), [1]);
        house.settle_down();
        let operations = vec![
            Operation::Settle(consumer, 1, Settlement::Reject),
            Operation::Send(persistent("out", 2), SendTerms::default()),
        ];
        assert_eq!(peer.member.commit_for(operations, 5), Ok(Progress::Storing));
        assert_eq!(peer.answers(), []);
        let live = house.store.crash(kept);
        let stored = Timed::on(live, house.clock.clone()).stored();
        let before = vec![("q".to_owned(), 1)];
        let after = vec![("dlq.q".to_owned(), 1), ("out".to_owned(), 1), ("q".to_owned(), 0)];
        assert_eq!(stored, if kept == 0 { before } else { after });
        house.settle_down();
        assert_eq!(peer.answers(), [(5, Ok(()))]);
        peer.member.consume(&name("dlq.q"), ENDLESS).unwrap();
        assert_eq!(peer.ids(), [1]);
    }
}

#[test]
fn a_reject_is_confirmed_when_the_dead_letter_is_safe() {
    let house = Timed::new();
    let mut peer = house.join();
    put(&peer, "q", 1, Handling::default(), Properties::default());
    house.settle_down();
    let consumer = peer.member.consume(&name("q"), ENDLESS).unwrap();
    peer.ids();
    assert_eq!(peer.member.settle_for(consumer, 1, Settlement::Reject, Some(5)), Ok(Progress::Storing));
    assert_eq!(peer.answers(), []);
    house.store.sync();
    assert_eq!(peer.answers(), [(5, Ok(()))]);
    assert_eq!(house.stored(), [("dlq.q".into(), 1), ("q".into(), 0)]);
}

#[test]
fn what_a_full_queue_drops_leaves_the_store() {
    let house = Timed::new();
    let peer = house.join();
    let short =
        Properties { messages_max: Some(3), when_full: Some(WhenFull::DropHead), ..Properties::default() };
    for id in 1..=9 {
        put(&peer, "q", id, Handling::default(), short.clone());
        house.settle_down();
    }
    assert_eq!(house.stored(), [("q".into(), 3)]);
    let house = house.crash(0);
    let mut peer = house.join();
    // It is as it was made.
    let queue = house.realm.queues().get(&name("q")).unwrap();
    assert!(queue.misfits(&short).is_empty());
    put(&peer, "q", 10, Handling::default(), short);
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    house.settle_down();
    assert_eq!(peer.ids(), [8, 9, 10]);
}

#[test]
fn a_delay_lasts_across_a_crash() {
    let house = Timed::new();
    let peer = house.join();
    let later = Handling { delay_ms: Some(1000), ..Handling::default() };
    put(&peer, "q", 1, later, Properties::default());
    put(&peer, "q", 2, Handling::default(), Properties::default());
    house.pass(400);
    let house = house.crash(0);
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    house.pass(500);
    assert_eq!(peer.ids(), [2]);
    house.pass(100);
    assert_eq!(peer.ids(), [1]);
}

#[test]
fn groups_stay_together_when_the_bodies_are_in_the_store_only() {
    let house = Timed::new();
    let peer = house.join();
    for id in 1..=40 {
        let group = Some(format!("g{}", id % 3).into());
        put(&peer, "q", id, Handling { group, ..Handling::default() }, Properties::default());
    }
    house.settle_down();
    let house = house.crash(0);
    let mut peers = [house.join(), house.join()];
    let consumers = [0, 1].map(|at: usize| peers[at].member.consume(&name("q"), few(2)).unwrap());
    let mut seen = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..60 {
        house.settle_down();
        for at in 0..2 {
            peers[at].look();
            for (id, sequence, _) in std::mem::take(&mut peers[at].delivered) {
                seen[at].entry(id % 3).or_insert_with(Vec::new).push(id);
                peers[at].member.settle(consumers[at], sequence, Settlement::Accept).unwrap();
            }
        }
        assert!(house.realm.queues().window_bytes() <= 9000);
    }
    for group in 0..3 {
        let ids: Vec<u64> = (1..=40).filter(|id| id % 3 == group).collect();
        let of = |at: usize| seen[at].get(&group).cloned();
        assert!(of(0).or(of(1)) == Some(ids), "group {group}: {:?} and {:?}", of(0), of(1));
        assert!(of(0).is_none() || of(1).is_none());
    }
    house.settle_down();
    assert_eq!(house.stored(), [("q".into(), 0)]);
}

#[test]
fn a_filter_finds_what_it_wants_in_a_deep_queue_and_memory_stays_bounded() {
    let house = Timed::new();
    let mut peer = house.join();
    (1..=300).for_each(|id| put(&peer, "q", id, Handling::default(), Properties::default()));
    house.store.sync();
    let terms = taking(ConsumeTerms { filter: read_filter("0"), ..ConsumeTerms::default() });
    let consumer = peer.member.consume_under(&name("q"), few(3), terms).unwrap();
    let mut seen = Vec::new();
    for _ in 0..400 {
        house.store.sync();
        assert!(house.realm.queues().window_bytes() <= 8000, "{}", house.realm.queues().window_bytes());
        let queues = house.realm.queues();
        if queues.deadline_ms(Waker::noop()).is_some_and(|at| at <= queues.now_ms()) {
            queues.tick();
        }
        peer.look();
        for (id, sequence, _) in std::mem::take(&mut peer.delivered) {
            seen.push(id);
            peer.member.settle(consumer, sequence, Settlement::Accept).unwrap();
        }
    }
    assert_eq!(seen, (1..=30).map(|n| 10 * n).collect::<Vec<_>>());
    assert_eq!(house.stored(), [("q".into(), 270)]);
}

#[test]
fn a_browser_sees_all_of_a_deep_queue_and_takes_nothing() {
    let house = Timed::new();
    let mut peer = house.join();
    (1..=100).for_each(|id| put(&peer, "q", id, Handling::default(), Properties::default()));
    house.store.sync();
    let browse = Some(Browse::Waiting { ends: false });
    let terms = taking(ConsumeTerms { browse, ..ConsumeTerms::default() });
    peer.member.consume_under(&name("q"), ENDLESS, terms).unwrap();
    for _ in 0..200 {
        house.store.sync();
        assert!(house.realm.queues().window_bytes() <= 8000);
    }
    assert_eq!(peer.ids(), (1..=100).collect::<Vec<_>>());
    assert_eq!(house.stored(), [("q".into(), 100)]);
}

#[test]
fn what_comes_back_too_often_is_counted_across_a_crash() {
    let house = Timed::new();
    let mut peer = house.join();
    let twice = Properties { delivery_limit: Some(2), ..Properties::default() };
    put(&peer, "q", 1, Handling::default(), twice);
    house.settle_down();
    let consumer = peer.member.consume(&name("q"), ENDLESS).unwrap();
    assert_eq!(peer.got(), [(1, 0)]);
    peer.member.settle(consumer, 1, Settlement::Requeue).unwrap();
    assert_eq!(peer.got(), [(1, 1)]);
    house.store.sync();
    let house = house.crash(0);
    let mut peer = house.join();
    let consumer = peer.member.consume(&name("q"), ENDLESS).unwrap();
    house.settle_down();
    assert_eq!(peer.got(), [(1, 2)]);
    peer.member.settle(consumer, 1, Settlement::Requeue).unwrap();
    house.settle_down();
    assert_eq!((peer.ids(), house.stored()), (vec![], vec![("dlq.q".into(), 1), ("q".into(), 0)]));
}

/// What somebody sees who reads a queue again from its beginning.
fn read_again(house: &Timed, queue: &str) -> Vec<u64> {
    let mut peer = house.join();
    let browse = Some(Browse::Kept { from: Some(0), ends: false });
    let terms = taking(ConsumeTerms { browse, ..ConsumeTerms::default() });
    peer.member.consume_under(&name(queue), ENDLESS, terms).unwrap();
    house.settle_down();
    peer.ids()
}

fn consume_all(house: &Timed, queue: &str, settlement: Settlement) -> Vec<u64> {
    let mut peer = house.join();
    let consumer = peer.member.consume(&name(queue), ENDLESS).unwrap();
    let mut seen = Vec::new();
    for _ in 0..20 {
        house.settle_down();
        peer.look();
        for (id, sequence, _) in std::mem::take(&mut peer.delivered) {
            seen.push(id);
            peer.member.settle(consumer, sequence, settlement).unwrap();
        }
    }
    house.settle_down();
    seen
}

#[test]
fn what_was_consumed_can_be_read_again_after_a_crash_until_it_falls_out() {
    let keeping = Properties { kept_max: Some(20), ..Properties::default() };
    let house = Timed::new();
    house.realm.declare_queue(&name("q"), keeping.clone()).unwrap();
    let peer = house.join();
    (1..=30).for_each(|id| put(&peer, "q", id, Handling::default(), Properties::default()));
    assert_eq!(consume_all(&house, "q", Settlement::Accept), (1..=30).collect::<Vec<_>>());
    assert_eq!(house.stored(), [("q".into(), 20)]);
    put(&peer, "q", 31, Handling::default(), Properties::default());
    house.settle_down();
    let mut house = house.crash(0);
    for _ in 0..2 {
        assert_eq!(read_again(&house, "q"), (12..=31).collect::<Vec<_>>());
        assert_eq!(house.realm.queues().get(&name("q")).unwrap().len(), 1, "only one was not consumed");
        house = house.crash(0);
    }
    assert_eq!(consume_all(&house, "q", Settlement::Accept), [31]);
    let peer = house.join();
    (32..=40).for_each(|id| put(&peer, "q", id, Handling::default(), Properties::default()));
    assert_eq!(consume_all(&house, "q", Settlement::Accept), (32..=40).collect::<Vec<_>>());
    assert_eq!((read_again(&house, "q"), house.stored()), ((21..=40).collect(), vec![("q".into(), 20)]));
    // What the configuration does not keep any more goes.
    let store = house.store.crash(0);
    let keeping_none = Keeping::Stored(Journal::new(store.clone(), "test", JOURNAL));
    let realm = realm(keeping_none);
    realm.declare_queue(&name("q"), Properties::default()).unwrap();
    realm.restore(store.recovered(), &read_filter);
    store.sync();
    assert_eq!((realm.queues().bytes(), store.recovered()[0].messages.len()), (0, 0));
}

#[test]
fn copies_are_read_from_the_store_a_window_at_a_time() {
    let house = Timed::new();
    let keeping = Properties { kept_max: Some(1000), ..Properties::default() };
    house.realm.declare_queue(&name("q"), keeping).unwrap();
    let peer = house.join();
    (1..=100).for_each(|id| put(&peer, "q", id, Handling::default(), Properties::default()));
    assert_eq!(consume_all(&house, "q", Settlement::Accept).len(), 100);
    let house = house.crash(0);
    assert_eq!(house.realm.queues().get(&name("q")).unwrap().len(), 0);
    assert_eq!(read_again(&house, "q"), (1..=100).collect::<Vec<_>>());
    assert_eq!(house.stored(), [("q".into(), 100)]);
}

#[test]
fn what_went_to_the_dead_letters_is_there_once_and_its_copy_ends_with_the_broker() {
    let house = Timed::new();
    let keeping = Properties { kept_max: Some(9), ..Properties::default() };
    house.realm.declare_queue(&name("q"), keeping).unwrap();
    let peer = house.join();
    (1..=3).for_each(|id| put(&peer, "q", id, Handling::default(), Properties::default()));
    assert_eq!(consume_all(&house, "q", Settlement::Reject), [1, 2, 3]);
    assert_eq!(house.stored(), [("dlq.q".into(), 3), ("q".into(), 0)]);
    assert_eq!(read_again(&house, "q"), [1, 2, 3]);
    let house = house.crash(0);
    let refused = house.realm.queues().get(&name("q"));
    assert!(refused.is_none_or(|queue| queue.is_empty()));
    assert_eq!(consume_all(&house, "dlq.q", Settlement::Accept), [1, 2, 3]);
}

#[test]
fn a_queue_that_is_declared_now_has_what_the_store_had_and_is_as_it_is_declared() {
    let house = Timed::new();
    let peer = house.join();
    (1..=9).for_each(|id| put(&peer, "q", id, Handling::default(), dying_to("other")));
    house.settle_down();
    let declared = Properties {
        messages_max: Some(4),
        when_full: Some(WhenFull::DropHead),
        dead_letters: Some(name("dead")),
        ..Properties::default()
    };
    let house = Timed::declaring(house.store.crash(0), house.clock, vec![(name("q"), declared.clone())]);
    house.settle_down();
    let queue = house.realm.queues().get(&name("q")).unwrap();
    assert!(queue.misfits(&declared).is_empty());
    assert_eq!(house.stored(), [("dead".into(), 5), ("q".into(), 4)], "it is not larger than it may be");
    assert_eq!(consume_all(&house, "q", Settlement::Accept), [6, 7, 8, 9]);
    put(&house.join(), "q", 10, Handling::default(), Properties::default());
    house.settle_down();
    let stored: Vec<_> = house.store.recovered();
    assert_eq!(stored.iter().filter(|queue| &*queue.name == "q").count(), 1);
}

#[test]
fn what_a_queue_gave_up_before_it_went_is_in_one_queue_or_the_other_wherever_it_crashes() {
    let expiring = Properties { unused_ms_max: Some(100), ..dying_to("dead") };
    let old = Handling { ttl_ms: Some(50), ..Handling::default() };
    let mut ended = BTreeSet::new();
    for steps in 0..30 {
        for kept in 0..3 {
            let house = Timed::new();
            let peer = house.join();
            (1..=10).for_each(|id| put(&peer, "q", id, old.clone(), expiring.clone()));
            house.store.sync();
            drop(peer);
            // So that all of it is in the store only.
            let house = house.crash(0);
            for step in 0..steps {
                // They grow too old, and while they are read the queue's time is over too.
                house.clock.fetch_add(if step < 2 { 50 } else { 1 }, Ordering::Relaxed);
                match step % 2 {
                    0 => house.realm.queues().tick(),
                    _ => house.store.sync(),
                }
            }
            let stored = house.crash(kept).stored();
            let total: usize = stored.iter().map(|(_, messages)| messages).sum();
            assert_eq!(total, 10, "after {steps} steps, {kept} kept: {stored:?}");
            ended.insert(stored);
        }
    }
    assert!(ended.contains(&vec![("dead".to_owned(), 10)]), "{ended:?}");
    assert!(ended.contains(&vec![("q".to_owned(), 10)]));
}

#[test]
fn what_is_given_up_when_the_store_failed_holds_no_memory_and_is_given_up_after_the_next_start() {
    let house = Timed::new();
    let peer = house.join();
    let old = Handling { ttl_ms: Some(100), ..Handling::default() };
    (1..=20).for_each(|id| put(&peer, "q", id, old.clone(), dying_to("dead")));
    house.settle_down();
    assert!(house.realm.queues().window_bytes() < 7000, "most are in the store only");
    house.store.fail_next_sync();
    assert_eq!(peer.member.flush(1), Progress::Storing);
    house.store.sync();
    house.pass(100);
    assert_eq!((house.realm.queues().bytes(), house.realm.queues().window_bytes()), (0, 0));
    // It is still a queue.
    let mut peer = house.join();
    peer.member.consume(&name("q"), ENDLESS).unwrap();
    peer.member.send(transient("q", 21)).unwrap();
    assert_eq!(peer.ids(), [21]);
    let house = house.crash(0);
    house.settle_down();
    assert_eq!(house.stored(), [("dead".into(), 20)]);
}

#[test]
fn what_comes_late_with_a_high_priority_is_before_all_that_fills_the_window() {
    let house = Timed::new();
    let mut peer = house.join();
    let with = |priority| Handling { priority: Some(priority), ..Handling::default() };
    (1..=60).for_each(|id| put(&peer, "q", id, with(1), Properties::default()));
    house.settle_down();
    (61..=90).for_each(|id| put(&peer, "q", id, with(5 + (id % 2) as u8), Properties::default()));
    house.settle_down();
    let consumer = peer.member.consume(&name("q"), few(2)).unwrap();
    let mut seen = Vec::new();
    for round in 0..400 {
        house.store.sync();
        assert!(house.realm.queues().window_bytes() <= JOURNAL.window_bytes_max + 2000);
        peer.look();
        for (id, sequence, _) in std::mem::take(&mut peer.delivered) {
            seen.push(id);
            peer.member.settle(consumer, sequence, Settlement::Accept).unwrap();
        }
        if round == 30 {
            // While the first are read.
            put(&peer, "q", 91, with(9), Properties::default());
        }
    }
    let place = seen.iter().position(|id| *id == 91).unwrap();
    seen.remove(place);
    assert!(place < 40, "it did not wait for all others: {place}");
    let mut right: Vec<u64> = (1..=90).collect();
    right.sort_by_key(|id| (if *id <= 60 { 2 } else { 1 - id % 2 }, *id));
    assert_eq!(seen, right);
}

#[test]
fn a_realm_that_goes_takes_its_empty_queues_out_of_the_store_for_the_next_of_its_name() {
    let house = Timed::new();
    house.realm.declare_queue(&name("q"), Properties::default()).unwrap();
    put(&house.join(), "q", 1, Handling::default(), Properties::default());
    assert_eq!(consume_all(&house, "q", Settlement::Accept), [1]);
    assert_eq!(house.stored(), [("q".into(), 0)]);
    assert!(house.realm.retire());
    let next = Timed::on(house.store.clone(), house.clock.clone());
    next.settle_down();
    assert_eq!(next.stored(), []);
    next.realm.declare_queue(&name("q"), Properties::default()).unwrap();
    put(&next.join(), "q", 2, Handling::default(), Properties::default());
    next.settle_down();
    assert_eq!(next.stored(), [("q".into(), 1)]);
    assert_eq!(consume_all(&next.crash(0), "q", Settlement::Accept), [2]);
}

#[test]
fn a_dead_letter_that_waits_is_not_lost_by_a_transaction_of_others() {
    let house = Timed::new();
    let mut peer = house.join();
    put(&peer, "q", 1, Handling::default(), dying_to("dead"));
    house.settle_down();
    let consumer = peer.member.consume(&name("q"), few(1)).unwrap();
    assert_eq!(peer.ids(), [1]);
    let old = Handling { ttl_ms: Some(50), ..Handling::default() };
    put(&peer, "q", 2, old, Properties::default());
    house.clock.fetch_add(50, Ordering::Relaxed);
    // It is too old when the store has it, and is not brought away before the queue is next looked at.
    house.store.sync();
    let operations = vec![Operation::Settle(consumer, 1, Settlement::Accept)];
    assert_eq!(peer.member.commit_for(operations, 5), Ok(Progress::Storing));
    house.settle_down();
    assert_eq!(house.stored(), [("dead".into(), 1), ("q".into(), 0)]);
}

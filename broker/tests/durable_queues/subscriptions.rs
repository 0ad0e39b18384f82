//! Durable subscriptions, and queues that are bound to topics, with messages that are kept.

use tandem_broker::core::durable::DurableTerms;
use tandem_broker::core::name::Pattern;
use tandem_broker::core::queues::{ConsumeTerms, Properties};
use tandem_broker::core::topics::PublishTerms;

use super::*;

fn topics(text: &str) -> Pattern {
    Pattern::components(text.split('.').map(|part| Some(part).filter(|part| *part != "*")), true).unwrap()
}

fn wanted(filter: Option<&str>, properties: Properties) -> DurableTerms {
    DurableTerms { pattern: topics("a"), filter: filter.and_then(read_filter), properties }
}

/// Subscribes, and says whether the store must know it first.
fn subscribe(peer: &mut Peer, subscription: &str, ticket: u64) -> (ConsumerId, Progress) {
    let terms = wanted(None, Properties::default());
    peer.member.subscribe_durably(subscription, terms, ENDLESS, ConsumeTerms::default(), ticket).unwrap()
}

fn publish(peer: &Peer, topic: &str, id: u64, ticket: u64) -> Progress {
    peer.member.publish_for(persistent(topic, id), PublishTerms::default(), ticket).unwrap().1
}

/// A house with durable subscriptions of these names, that nobody consumes from, and a queue that is bound to the
/// same topics.
fn house_with(subscriptions: &[&str]) -> House {
    let house = House::new();
    bind(&house);
    let mut peer = house.join();
    for name in subscriptions {
        let _ = subscribe(&mut peer, name, 0);
    }
    house.store.sync();
    house
}

/// What the configuration says.
fn bind(house: &House) {
    house.realm.bind_queue(&topics("a"), &name("bound")).unwrap();
}

/// What is in each of these.
fn contents(house: &House, subscriptions: &[&str]) -> Vec<Vec<u64>> {
    let of = |subscription: &&str| {
        let mut peer = house.join();
        peer.member.consume_durable(subscription, ENDLESS, ConsumeTerms::default()).unwrap();
        house.settle_down();
        peer.ids()
    };
    let mut all: Vec<_> = subscriptions.iter().map(of).collect();
    let mut peer = house.join();
    peer.member.consume(&name("bound"), ENDLESS).unwrap();
    house.settle_down();
    all.push(peer.ids());
    all
}

#[test]
fn a_durable_subscription_and_what_is_persistent_in_it_survive_a_crash() {
    let house = House::new();
    let mut peer = house.join();
    let properties = Properties { messages_max: Some(9), ..Properties::default() };
    let (consumer, _) = peer
        .member
        .subscribe_durably("d", wanted(Some("1"), properties.clone()), few(1), ConsumeTerms::default(), 1)
        .unwrap();
    house.store.sync();
    assert_eq!(peer.answers(), [(1, Ok(()))]);
    peer.member.close_consumer(consumer).unwrap();
    for id in [1, 2, 11, 12, 21] {
        assert_eq!(publish(&peer, "a.b", id, 0), Progress::Storing);
    }
    peer.member.publish(transient("a.b", 31), false).unwrap();
    let _ = publish(&peer, "b", 41, 0);
    house.store.sync();
    let house = house.crash(0);
    assert_eq!(house.realm.durable_subscriptions(), 1);
    let mut peer = house.join();
    // It is what it was, and known by its name.
    for other in [
        wanted(None, properties.clone()),
        wanted(Some("1"), Properties { messages_max: Some(8), ..Properties::default() }),
    ] {
        let refused = peer.member.subscribe_durably("d", other, ENDLESS, ConsumeTerms::default(), 0);
        assert!(matches!(refused, Err(Refusal::OtherProperties(..))));
    }
    let terms = wanted(Some("1"), properties);
    let (_, progress) =
        peer.member.subscribe_durably("d", terms, ENDLESS, ConsumeTerms::default(), 7).unwrap();
    assert_eq!(progress, Progress::Done);
    let _ = publish(&peer, "a", 51, 0);
    let _ = publish(&peer, "a", 52, 0);
    house.settle_down();
    let mut batch = VecDeque::new();
    assert!(peer.inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready());
    let mut got = Vec::new();
    for parcel in batch {
        if let Parcel::Delivery(delivery) = parcel {
            assert!(delivery.from_topic);
            got.push(delivery.publication.name.as_str().to_owned());
        }
    }
    assert_eq!(got, ["a.b", "a.b", "a.b", "a"], "they bear the names of their topics");
}

#[test]
fn who_subscribes_durably_is_told_when_the_store_knows_it_and_before_the_first_message() {
    let house = House::new();
    let mut peer = house.join();
    assert_eq!(subscribe(&mut peer, "d", 5).1, Progress::Storing);
    peer.member.publish(transient("a", 1), false).unwrap();
    let _ = publish(&peer, "a", 2, 6);
    assert_eq!((peer.ids(), peer.answers()), (vec![], vec![]));
    // A second one waits for the same.
    let mut second = house.join();
    assert_eq!(subscribe(&mut second, "d", 3).1, Progress::Storing);
    assert_eq!(house.store.crash(0).recovered().len(), 0);
    house.store.sync();
    let mut batch = VecDeque::new();
    assert!(peer.inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready());
    assert!(matches!(batch[0], Parcel::Stored { ticket: 5, outcome: Ok(()) }));
    assert_eq!(second.answers(), [(3, Ok(()))]);
    assert!(house.realm.queues().bytes() > 0);
    assert_eq!(subscribe(&mut second, "d", 4).1, Progress::Done);
}

#[test]
fn a_persistent_message_is_confirmed_when_all_queues_of_its_topic_have_it() {
    let names = ["d1", "d2", "d3"];
    for kept in 0..=5 {
        let house = house_with(&names);
        let mut publisher = house.join();
        assert_eq!(publish(&publisher, "a.b", 1, 5), Progress::Storing);
        assert_eq!((publisher.answers(), house.store.unsynced()), (vec![], 5), "four appends and a question");
        let after = House::on(house.store.crash(kept), JOURNAL);
        bind(&after);
        let found: usize = contents(&after, &names).iter().map(Vec::len).sum();
        assert_eq!(found, kept.min(4), "what was not confirmed is in as many as the disk has");
        house.store.sync();
        assert_eq!(publisher.answers(), [(5, Ok(()))]);
        let house = house.crash(0);
        bind(&house);
        assert_eq!(contents(&house, &names), vec![vec![1]; 4], "what was is in all");
    }
}

#[test]
fn a_transaction_that_publishes_to_durable_queues_is_confirmed_when_all_of_it_is_safe() {
    let house = house_with(&["d"]);
    let mut peer = house.join();
    let operations = vec![
        Operation::Publish(persistent("a", 1), None),
        Operation::Send(persistent("q", 2), SendTerms::default()),
        Operation::Publish(persistent("a", 3), None),
    ];
    assert_eq!(peer.member.commit_for(operations, 5), Ok(Progress::Storing));
    assert_eq!(peer.answers(), []);
    house.store.sync();
    assert_eq!(peer.answers(), [(5, Ok(()))]);
    let house = house.crash(0);
    bind(&house);
    assert_eq!(contents(&house, &["d"]), [[1, 3], [1, 3]]);
}

#[test]
fn what_a_durable_subscription_acknowledged_or_was_when_it_ended_is_gone_after_a_crash() {
    let house = house_with(&["d", "e"]);
    let mut peer = house.join();
    let (consumer, _) = subscribe(&mut peer, "d", 0);
    for id in 1..=3 {
        let _ = publish(&peer, "a", id, 0);
    }
    house.store.sync();
    assert_eq!(peer.ids(), [1, 2, 3]);
    assert_eq!(peer.member.settle_for(consumer, 1, Settlement::Accept, Some(7)), Ok(Progress::Storing));
    assert_eq!(peer.member.end_durable("e", 8), Ok(Progress::Storing));
    assert_eq!(peer.answers(), []);
    house.store.sync();
    assert_eq!(peer.answers(), [(7, Ok(())), (8, Ok(()))]);
    let house = house.crash(0);
    bind(&house);
    assert_eq!(house.realm.durable_subscriptions(), 1);
    assert_eq!(contents(&house, &["d"]), [vec![2, 3], vec![1, 2, 3]]);
    // One that ends before the store knew it, too.
    let mut peer = house.join();
    let _ = subscribe(&mut peer, "f", 0);
    assert_eq!(peer.member.end_durable("f", 9), Ok(Progress::Storing));
    house.store.sync();
    assert_eq!(house.crash(0).realm.durable_subscriptions(), 1);
}

#[test]
fn where_the_store_takes_nothing_a_persistent_message_for_durable_queues_is_refused_and_nobody_gets_it() {
    let house = house_with(&["d"]);
    let mut peer = house.join();
    let _ = subscribe(&mut peer, "d", 0);
    let mut plain = house.join();
    let subscription = plain.member.subscribe(&Pattern::exact(name("a"))).unwrap();
    house.store.set_nearly_full(true);
    let full = Refusal::Unstorable(Unstorable::NearlyFull);
    let refused = peer.member.publish_for(persistent("a", 1), PublishTerms::default(), 1);
    assert_eq!(refused.unwrap_err(), full);
    let operations = vec![Operation::Publish(persistent("a", 1), None)];
    assert_eq!(peer.member.commit_for(operations, 2), Err(full));
    // What no queue would keep, and what need not be kept, goes on.
    assert_eq!(publish(&peer, "b", 2, 3), Progress::Done);
    peer.member.publish(transient("a", 3), false).unwrap();
    assert_eq!((peer.ids(), peer.answers()), (vec![3], vec![]));
    let mut batch = VecDeque::new();
    assert!(plain.inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready());
    assert_eq!(batch.len(), 1);
    plain.member.unsubscribe(subscription).unwrap();
    house.store.set_nearly_full(false);

    let _ = publish(&peer, "a", 4, 4);
    house.store.fail_next_sync();
    house.store.sync();
    let failed = Refusal::Unstorable(Unstorable::Failed);
    let told = peer.answers();
    assert!(told.contains(&(4, Err(failed.clone()))), "{told:?}");
    assert_eq!(peer.ids(), Vec::<u64>::new());
    let terms = wanted(None, Properties::default());
    let refused = peer.member.subscribe_durably("new", terms, ENDLESS, ConsumeTerms::default(), 0);
    assert_eq!(refused.unwrap_err(), failed);
    peer.member.publish(transient("a", 5), false).unwrap();
    assert_eq!(peer.ids(), [5]);
}

#[test]
fn a_durable_subscription_that_cannot_be_made_again_is_left_in_the_store() {
    let house = House::new();
    let mut peer = house.join();
    let terms = wanted(Some("1"), Properties::default());
    let _ = peer.member.subscribe_durably("d", terms, ENDLESS, ConsumeTerms::default(), 0).unwrap();
    let _ = publish(&peer, "a", 1, 0);
    house.store.sync();
    let before = metrics::STORE_UNREADABLE.get();
    let after = realm(Keeping::Stored(Journal::new(house.store.clone(), "test", JOURNAL)));
    after.restore(house.store.recovered(), &|_| None);
    assert_eq!((after.durable_subscriptions(), after.queues().len()), (0, 0));
    assert!(metrics::STORE_UNREADABLE.get() > before);
    assert_eq!(house.store.recovered().len(), 1);
}

#[test]
fn a_durable_subscription_that_was_not_used_for_too_long_is_empty_and_still_there_after_a_crash() {
    let house = House::new();
    let mut peer = house.join();
    let properties = Properties { unused_ms_max: Some(0), ..Properties::default() };
    let terms = wanted(None, properties);
    let _ = peer.member.subscribe_durably("d", terms, ENDLESS, ConsumeTerms::default(), 0).unwrap();
    let _ = publish(&peer, "a", 1, 0);
    house.store.sync();
    drop(peer);
    house.realm.queues().tick();
    house.store.sync();
    assert_eq!(house.realm.queues().bytes(), 0);
    let publisher = house.join();
    let _ = publish(&publisher, "a", 2, 0);
    house.store.sync();
    let house = house.crash(0);
    assert_eq!(house.realm.durable_subscriptions(), 1);
    let mut peer = house.join();
    peer.member.consume_durable("d", ENDLESS, ConsumeTerms::default()).unwrap();
    house.settle_down();
    assert_eq!(peer.ids(), [2]);
}

#[test]
fn a_durable_subscription_that_expires_is_in_the_store_wherever_the_power_fails() {
    let house = House::new();
    let mut peer = house.join();
    let properties = Properties { unused_ms_max: Some(0), ..Properties::default() };
    let terms = wanted(None, properties);
    let _ = peer.member.subscribe_durably("d", terms, ENDLESS, ConsumeTerms::default(), 0).unwrap();
    let _ = publish(&peer, "a", 1, 0);
    house.store.sync();
    drop(peer);
    house.store.sync();
    house.realm.queues().tick();
    for kept in 0..=house.store.unsynced() {
        let after = House::on(house.store.crash(kept), JOURNAL);
        assert_eq!(after.realm.durable_subscriptions(), 1, "after {kept} submissions");
    }
}

#[test]
fn what_the_store_let_in_all_durable_queues_keep_though_it_is_busy_from_the_first_of_them_on() {
    let house = house_with(&["d", "e"]);
    let mut peer = house.join();
    house.store.set_waiting_max(1);
    assert_eq!(publish(&peer, "a", 1, 7), Progress::Storing);
    let refused = peer.member.publish_for(persistent("a", 2), PublishTerms::default(), 8);
    assert_eq!(refused.unwrap_err(), Refusal::Unstorable(Unstorable::Busy));
    house.store.sync();
    assert_eq!(peer.answers(), [(7, Ok(()))]);
    let house = house.crash(0);
    bind(&house);
    assert_eq!(contents(&house, &["d", "e"]), [[1], [1], [1]]);
}

#[test]
fn a_transaction_that_the_store_let_in_is_taken_whole_though_it_is_busy_from_its_first_step_on() {
    let house = house_with(&["d"]);
    let mut peer = house.join();
    house.store.set_waiting_max(1);
    let operations = vec![
        Operation::Send(persistent("q", 1), SendTerms::default()),
        Operation::Publish(persistent("a", 2), None),
        Operation::Publish(persistent("a", 3), None),
    ];
    assert_eq!(peer.member.commit_for(operations, 5), Ok(Progress::Storing));
    house.store.sync();
    assert_eq!(peer.answers(), [(5, Ok(()))]);
    let house = house.crash(0);
    bind(&house);
    assert_eq!(contents(&house, &["d"]), [[2, 3], [2, 3]]);
}

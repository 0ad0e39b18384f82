//! Subscriptions that outlive their sessions, and destinations that clients of other brokers know: exchanges,
//! queues that must exist, temporary queues, topics that are bound to queues.

mod stomp_harness;

use tandem_protocols::stomp::frame::{Command, Frame};

use tandem_broker::core::durable::DURABLE_NAME_BYTES_MAX;
use tandem_broker::core::name::Pattern;
use tandem_broker::core::queues::{Properties, WhenFull};
use tandem_broker::core::store::simulated::SimulatedStore;
use tandem_broker::stomp::read_filter;

use stomp_harness::*;

fn send(client: &mut Client, destination: &str, headers: &str, body: &str) {
    client.say(&format!("SEND\ndestination:{destination}\n{headers}\n{body}"));
}

fn subscribe(client: &mut Client, id: &str, destination: &str, headers: &str) {
    client.say(&format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\n{headers}\n"));
}

fn body(frame: &Frame) -> String {
    String::from_utf8_lossy(&frame.body).into_owned()
}

const DURABLE: &str = "durable:true\nauto-delete:false\n";

// ------------------------------------------------------------------------------------ durable subscriptions

#[test]
fn a_durable_subscription_gets_what_comes_while_nobody_is_there() {
    let house = House::new();
    let mut sender = house.connect("1.2");
    for (version, headers) in [("1.2", DURABLE), ("1.1", "persistent:true\n"), ("1.0", "durable:true\n")] {
        let mut client = house.connect(version);
        subscribe(&mut client, "d", "/topic/a.#", headers);
        send(&mut sender, "/topic/a.b", "", "1");
        let message =
            client.expect(Command::Message, &[("subscription", "d"), ("destination", "/topic/a.b")]);
        assert_eq!(body(&message), "1");
        client.say("DISCONNECT\n\n");
        drop(client);
        send(&mut sender, "/topic/a", "", "2");
        send(&mut sender, "/topic/b", "", "not wanted");
        let mut client = house.connect(version);
        subscribe(&mut client, "d", "/topic/a.#", headers);
        assert_eq!(client.bodies(), ["2"]);
        client.say(&format!("UNSUBSCRIBE\nid:d\ndestination:/topic/a.#\n{headers}receipt:u\n\n"));
        client.receipt("u");
        assert_eq!((house.realm.queues().len(), house.realm.durable_subscriptions()), (0, 0));
        assert!(house.realm.topics().is_empty());
    }
}

#[test]
fn what_is_not_acknowledged_comes_again_to_the_next_who_subscribes() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "d", "/topic/t", "durable:true\nack:client\n");
    send(&mut client, "/topic/t", "", "1");
    client.next();
    drop(client);
    let mut client = house.connect("1.2");
    subscribe(&mut client, "d", "/topic/t", "durable:true\nack:client\n");
    client.expect(Command::Message, &[("redelivered", "true"), ("x-delivery-count", "1")]);
}

#[test]
fn who_subscribes_with_the_same_id_to_the_same_topics_shares_it() {
    let house = House::new();
    let mut clients: Vec<Client> = (0..2).map(|_| house.connect("1.2")).collect();
    for client in &mut clients {
        subscribe(client, "d", "/topic/t", DURABLE);
    }
    let mut other = house.connect("1.2");
    subscribe(&mut other, "d", "/topic/#", DURABLE);
    for n in ["1", "2"] {
        send(&mut other, "/topic/t", "", n);
    }
    assert_eq!(clients[0].bodies(), ["1"]);
    assert_eq!(clients[1].bodies(), ["2"]);
    assert_eq!(other.bodies(), ["1", "2"], "those of the same id for other topics are others");
    assert_eq!(house.realm.durable_subscriptions(), 2);
}

#[test]
fn a_plain_unsubscribe_leaves_it_and_one_that_says_so_ends_it_unless_others_are_there() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "d", "/topic/t", DURABLE);
    client.say("UNSUBSCRIBE\nid:d\n\n");
    send(&mut client, "/topic/t", "", "1");
    assert_eq!((house.realm.durable_subscriptions(), house.realm.queues().bytes() > 0), (1, true));
    let mut other = house.connect("1.2");
    subscribe(&mut other, "d", "/topic/t", &format!("{DURABLE}ack:client\n"));
    other.next();
    // Not by somebody who is not alone with it, nor for other topics.
    let refused = "UNSUBSCRIBE\nid:d\ndestination:/topic/t\ndurable:true\n\n";
    client.refused(refused, "Access refused");
    let unknown = "UNSUBSCRIBE\nid:d\ndestination:/topic/x\ndurable:true\n\n";
    house.connect("1.2").refused(unknown, "not_found");
    drop(other);
    let mut client = house.connect("1.2");
    client.say("UNSUBSCRIBE\nid:d\ndestination:/topic/t\ndurable:true\nreceipt:u\n\n");
    client.receipt("u");
    assert_eq!((house.realm.durable_subscriptions(), house.realm.queues().bytes()), (0, 0));
}

#[test]
fn s7_an_ack_that_crosses_the_end_of_a_durable_subscription_is_taken() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "d", "/topic/t", "durable:true\nack:client-individual\n");
    send(&mut client, "/topic/t", "", "1");
    let message = client.next();
    client.say("UNSUBSCRIBE\nid:d\ndestination:/topic/t\ndurable:true\n\n");
    assert_eq!(house.realm.durable_subscriptions(), 0);
    client.say(&format!("ACK\nid:{}\nreceipt:a\n\n", header(&message, "ack")));
    client.receipt("a");
    assert_eq!((house.realm.queues().len(), house.realm.queues().bytes()), (0, 0));
}

#[test]
fn one_that_bears_a_name_has_its_topics_and_selector_and_can_be_consumed_by_its_name() {
    let house = House::new();
    let mut client = house.connect("1.2");
    let named = "durable-subscription-name:news\nselector:a = '1'\nx-max-length:2\n";
    subscribe(&mut client, "0", "/topic/t", named);
    client.say("UNSUBSCRIBE\nid:0\n\n");
    for (a, n) in [("1", "1"), ("2", "2"), ("1", "3"), ("1", "4")] {
        send(&mut client, "/topic/t", &format!("a:{a}\n"), n);
    }
    for (destination, headers, misfit) in [
        ("/topic/other", "selector:a = '1'\n", "destination"),
        ("/topic/t", "", "selector"),
        ("/topic/t", "selector:a = '1'\nx-max-length:3\n", "max-length"),
    ] {
        let frame = format!(
            "SUBSCRIBE\nid:0\ndestination:{destination}\ndurable-subscription-name:news\n{headers}\n"
        );
        let error = house.connect("1.2").refused(&frame, "Other properties");
        assert!(body(&error).ends_with(misfit), "{}", body(&error));
    }
    subscribe(&mut client, "1", "/dsub/news", "ack:client\n");
    let seen = client.hear();
    assert_eq!(seen.iter().map(body).collect::<Vec<_>>(), ["3", "4"]);
    assert_eq!(header(&seen[0], "destination"), "/topic/t");
    client.say("UNSUBSCRIBE\nid:1\n\n");
    client.say(&format!("ACK\nid:{}\n\n", header(&seen[1], "ack")));
    client.say("UNSUBSCRIBE\ndurable-subscription-name:news\nreceipt:u\n\n");
    client.receipt("u");
    assert_eq!(house.realm.durable_subscriptions(), 0);
    client.refused("SUBSCRIBE\nid:1\ndestination:/dsub/news\n\n", "not_found");
}

#[test]
fn what_a_durable_subscription_cannot_be_is_refused() {
    let house = House::new();
    let refused = |headers: &str, message: &str| {
        house.connect("1.2").refused(&format!("SUBSCRIBE\nid:0\ndestination:/topic/t\n{headers}\n"), message);
        assert_eq!((house.realm.queues().len(), house.realm.durable_subscriptions()), (0, 0));
    };
    refused("durable:true\nauto-delete:true\n", "Not supported");
    refused("durable:true\nx-get-retained:true\n", "Not supported");
    refused("durable:true\nfrom-seq:1\n", "Not supported");
    refused("durable:yes\n", "Invalid header");
    let long = "x".repeat(DURABLE_NAME_BYTES_MAX + 1);
    refused(&format!("durable-subscription-name:{long}\n"), "Limit reached");
    house.connect("1.2").refused("SEND\ndestination:/dsub/d\n\n", "Invalid destination");
    house.connect("1.0").refused("SUBSCRIBE\ndestination:/topic/t\ndurable:true\n\n", "Missing header");
}

#[test]
fn one_whose_queue_is_full_does_as_it_says_and_ends_nobody() {
    let house = House::new();
    let mut client = house.connect("1.2");
    let named = "durable-subscription-name:d\nack:client\nprefetch-count:1\nx-max-length:2\n";
    subscribe(&mut client, "0", "/topic/t", &format!("{named}x-overflow:reject-publish\n"));
    for n in ["1", "2", "3"] {
        send(&mut client, "/topic/t", "receipt:r\n", n);
        client.receipt("r");
    }
    assert_eq!(client.bodies(), ["1"]);
    assert!(client.close.is_none());
    client.say("UNSUBSCRIBE\nid:0\n\n");
    let mut other = house.connect("1.2");
    subscribe(&mut other, "0", "/dsub/d", "");
    assert_eq!(other.bodies(), ["2"], "3 had no room");
}

/// A house on what a store had when the power failed.
fn after_a_crash(store: &SimulatedStore) -> (House, std::sync::Arc<SimulatedStore>) {
    let store = store.crash(0);
    let house = House::with_store(store.clone(), LIMITS);
    house.realm.restore(store.recovered(), &read_filter);
    (house, store)
}

#[test]
fn p7_a_durable_subscription_and_its_persistent_messages_outlive_the_broker() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    let mut client = house.connect("1.2");
    let named = "durable-subscription-name:news\nselector:a = '1'\nack:client-individual\n";
    subscribe(&mut client, "0", "/topic/t.*", &format!("{named}receipt:s\n"));
    assert!(client.hear().is_empty());
    store.sync();
    client.receipt("s");
    client.say("UNSUBSCRIBE\nid:0\n\n");
    for (a, n) in [("1", "1"), ("2", "2"), ("1", "3")] {
        send(&mut client, "/topic/t.x", &format!("a:{a}\npersistent:true\nreceipt:{n}\n"), n);
    }
    send(&mut client, "/topic/t.x", "a:1\n", "not kept");
    // The selector is asked in the queue: who sends 2 waits for nothing that is written.
    assert!(client.hear().is_empty());
    store.sync();
    ["1", "2", "3"].into_iter().for_each(|receipt| client.receipt(receipt));

    let (house, store) = after_a_crash(&store);
    let mut client = house.connect("1.2");
    let other = "SUBSCRIBE\nid:0\ndestination:/topic/t.*\ndurable-subscription-name:news\n\n";
    house.connect("1.2").refused(other, "Other properties");
    subscribe(&mut client, "0", "/topic/t.*", named);
    store.sync();
    let message = client.expect(Command::Message, &[("destination", "/topic/t.x"), ("a", "1")]);
    assert_eq!((body(&message), client.bodies()), ("1".into(), vec!["3".into()]));
    client.say(&format!("ACK\nid:{}\nreceipt:a\n\n", header(&message, "ack")));
    send(&mut client, "/topic/t.y", "a:1\npersistent:true\nreceipt:4\n", "4");
    assert!(client.hear().is_empty());
    store.sync();
    client.receipt("a");
    // It is its own subscriber. All queues of the topic must have it before it is confirmed, and this one has.
    client.expect(Command::Message, &[("destination", "/topic/t.y")]);
    client.receipt("4");

    let (house, store) = after_a_crash(&store);
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", "/dsub/news", "");
    store.sync();
    assert_eq!(client.bodies(), ["3", "4"], "1 was acknowledged");
    client.say("UNSUBSCRIBE\nid:0\ndurable-subscription-name:news\nreceipt:u\n\n");
    assert!(client.hear().is_empty());
    store.sync();
    client.receipt("u");
    let (house, _) = after_a_crash(&store);
    assert_eq!((house.realm.durable_subscriptions(), house.realm.queues().len()), (0, 0));
}

#[test]
fn p8_what_a_transaction_publishes_to_a_durable_subscription_is_confirmed_when_the_store_has_it() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    let mut client = house.connect("1.2");
    subscribe(&mut client, "d", "/topic/t", DURABLE);
    store.sync();
    client.say("BEGIN\ntransaction:t\n\n");
    send(&mut client, "/topic/t", "transaction:t\npersistent:true\nreceipt:1\n", "1");
    client.say("COMMIT\ntransaction:t\nreceipt:2\n\n");
    assert!(client.hear().is_empty());
    store.sync();
    client.expect(Command::Message, &[("subscription", "d")]);
    client.receipt("1");
    client.receipt("2");
    // Where it cannot be kept nothing is committed.
    store.set_nearly_full(true);
    client.say("BEGIN\ntransaction:t\n\n");
    send(&mut client, "/queue/q", "transaction:t\n", "2");
    send(&mut client, "/topic/t", "transaction:t\npersistent:true\n", "3");
    client.refused("COMMIT\ntransaction:t\n\n", "Not stored");
    assert!(house.realm.queues().get(&name("q")).is_none());
}

// ---------------------------------------------------------------------------------------- other places

#[test]
fn what_clients_of_rabbitmq_and_artemis_say_of_queues_is_understood() {
    let house = House::new();
    let mut client = house.connect("1.2");
    let queue = "durable:true\nauto-delete:false\ndestination-type:ANYCAST\nconsumer-window-size:0\n";
    subscribe(&mut client, "0", "/queue/q", &format!("{queue}ack:client-individual\n"));
    subscribe(&mut client, "1", "/topic/t", "subscription-type:MULTICAST\nactivemq.noLocal:true\n");
    send(&mut client, "/topic/t", "destination-type:MULTICAST\n", "mine");
    for n in ["1", "2"] {
        send(&mut client, "/queue/q", "user-id:nobody\n", n);
    }
    let only = client.expect(Command::Message, &[("user-id", "nobody"), ("subscription", "0")]);
    assert!(client.hear().is_empty(), "one at a time");
    client.say(&format!("ACK\nid:{}\n\n", header(&only, "ack")));
    assert_eq!(client.bodies(), ["2"]);
    client.refused("SEND\ndestination:/queue/q\nuser-id:somebody\n\n", "Invalid header");
    house
        .connect("1.2")
        .refused("SUBSCRIBE\nid:0\ndestination:/queue/q\nconsumer-window-size:x\n\n", "Invalid header");
}

#[test]
fn the_exchanges_that_every_rabbitmq_has_are_topics() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "topic", "/exchange/amq.topic/a.*", "");
    subscribe(&mut client, "direct", "/exchange/amq.direct/a.*", "");
    subscribe(&mut client, "fanout", "/exchange/amq.fanout", "");
    for (destination, told) in [
        ("/exchange/amq.topic/a.b", Some(("topic", "/topic/a.b"))),
        ("/exchange/amq.direct/a.*", Some(("direct", "/exchange/amq.direct/a.%2A"))),
        ("/exchange/amq.direct/a.b", None),
        ("/exchange/amq.fanout/x/y", Some(("fanout", "/exchange/amq.fanout"))),
    ] {
        send(&mut client, destination, "", "1");
        if let Some((subscription, told)) = told {
            client.expect(Command::Message, &[("subscription", subscription), ("destination", told)]);
        }
        assert!(client.hear().is_empty(), "{destination}");
    }
    client.refused("SUBSCRIBE\nid:0\ndestination:/exchange/mine/a\n\n", "not_found");
}

#[test]
fn a_queue_that_must_exist_is_not_made() {
    let house = House::new();
    for frame in
        ["SUBSCRIBE\nid:0\ndestination:/amq/queue/q\n\n", "SEND\ndestination:/amq/queue/q\nreceipt:r\n\n"]
    {
        house.connect("1.2").refused(frame, "not_found");
    }
    let mut client = house.connect("1.2");
    client.say("BEGIN\ntransaction:t\n\n");
    client.say("SEND\ndestination:/queue/made\ntransaction:t\n\n");
    client.say("SEND\ndestination:/amq/queue/q\ntransaction:t\n\n");
    client.refused("COMMIT\ntransaction:t\n\n", "not_found");
    assert_eq!(house.realm.queues().len(), 0);
    house.realm.declare_queue(&name("q"), Properties::default()).expect("it may");
    let mut client = house.connect("1.2");
    send(&mut client, "/amq/queue/q", "", "1");
    subscribe(&mut client, "0", "/amq/queue/q", "");
    client.expect(Command::Message, &[("destination", "/queue/q")]);
}

#[test]
fn a_temporary_queue_can_be_subscribed_to_as_in_activemq() {
    let house = House::new();
    let mut server = house.connect("1.2");
    subscribe(&mut server, "0", "/queue/service", "");
    let mut client = house.connect("1.2");
    subscribe(&mut client, "answers", "/temp-queue/mine", "ack:client\n");
    send(&mut client, "/queue/service", "reply-to:/temp-queue/mine\n", "ask");
    let reply_to = header(&server.next(), "reply-to");
    send(&mut server, &reply_to, "", "answer");
    let answer = client.expect(Command::Message, &[("subscription", "answers")]);
    client.say(&format!("ACK\nid:{}\n\n", header(&answer, "ack")));
    send(&mut client, "/temp-queue/mine", "", "to myself");
    assert_eq!(client.bodies(), ["to myself"]);
    // Another's of the same name is another.
    let mut other = house.connect("1.2");
    subscribe(&mut other, "0", "/temp-queue/mine", "");
    send(&mut client, "/temp-queue/mine", "", "2");
    assert!(other.hear().is_empty());
    assert_eq!(client.bodies(), ["2"]);
    client.say("UNSUBSCRIBE\nid:answers\n\n");
    send(&mut server, &reply_to, "", "nobody waits for it");
    assert!(client.hear().is_empty());
    // One that a reply-to made is taken over.
    send(&mut client, "/queue/service", "reply-to:/temp-queue/auto\n", "ask");
    let reply_to = header(&server.next(), "reply-to");
    subscribe(&mut client, "own", "/temp-queue/auto", "");
    send(&mut server, &reply_to, "", "3");
    client.expect(Command::Message, &[("subscription", "own")]);
    client.refused("SUBSCRIBE\nid:again\ndestination:/temp-queue/auto\n\n", "Invalid header");
}

#[test]
fn answers_to_calls_come_to_the_subscription_that_reads_their_temporary_queue() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "own", "/temp-queue/mine", "ack:client\n");
    for (reply_to, subscription) in [("/temp-queue/mine", "own"), ("/temp-queue/other", "/temp-queue/other")]
    {
        let headers = format!("reply-to:{reply_to}\ncorrelation-id:7\n");
        send(&mut client, "/call/nobody.serves.it", &headers, "");
        let told = [("subscription", subscription), ("correlation-id", "7")];
        let answer = client.expect(Command::Message, &told);
        assert_eq!(header(&answer, "error"), "wamp.error.no_such_procedure");
        assert_eq!(answer.headers.get("ack").is_some(), subscription == "own");
    }
}

#[test]
fn a_queue_that_is_bound_gets_what_its_topics_bring() {
    let house = House::new();
    let limited =
        Properties { messages_max: Some(2), when_full: Some(WhenFull::Reject), ..Properties::default() };
    house.realm.declare_queue(&name("q"), limited).expect("it may");
    house.realm.bind_queue(&Pattern::prefix("a").expect("a pattern"), &name("q")).expect("it may");
    house.realm.bind_queue(&Pattern::exact(name("b")), &name("made")).expect("it may");
    let mut client = house.connect("1.2");
    for (topic, n) in [("a.1", "1"), ("a.2", "2"), ("a.3", "no room"), ("b", "3")] {
        send(&mut client, &format!("/topic/{topic}"), "priority:5\n", n);
    }
    subscribe(&mut client, "0", "/queue/q", "");
    client.expect(Command::Message, &[("destination", "/topic/a.1")]);
    client.expect(Command::Message, &[("destination", "/topic/a.2")]);
    send(&mut client, "/queue/q", "", "sent");
    client.expect(Command::Message, &[("destination", "/queue/q")]);
    client.say("UNSUBSCRIBE\nid:0\n\n");
    subscribe(&mut client, "1", "/queue/made", "");
    assert_eq!(client.bodies(), ["3"]);
    assert_eq!(house.realm.queues().len(), 2, "they stay");
}

#[test]
fn an_acknowledgement_of_several_has_its_receipt_when_all_of_them_are_safe() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    let mut client = house.connect("1.2");
    for number in 1..=3 {
        send(&mut client, "/queue/q", "persistent:true\n", &number.to_string());
    }
    store.sync();
    subscribe(&mut client, "1", "/queue/q", "ack:client\n");
    let last = (1..=3).map(|_| client.expect(Command::Message, &[])).last().unwrap();
    store.sync();
    client.say(&format!("ACK\nid:{}\nreceipt:r\n\n", header(&last, "ack")));
    while store.unsynced() > 0 {
        client.pump();
        assert!(client.heard.is_empty(), "{:?}, and {} wait", client.heard, store.unsynced());
        store.sync_first(1);
    }
    client.receipt("r");
    assert!(store.crash(0).recovered().iter().all(|queue| queue.messages.is_empty()));
}

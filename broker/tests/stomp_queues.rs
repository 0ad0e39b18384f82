//! What queues can do, as STOMP clients ask for it: each header by what it does.

mod stomp_harness;

use tandem_protocols::stomp::frame::{Command, Frame};

use tandem_broker::core::queues::{DEAD_LETTERS_MAX, DELIVERY_LIMIT, Properties, SCANNERS_MAX};

use stomp_harness::*;

/// A SEND to that destination.
fn send(client: &mut Client, destination: &str, headers: &str, body: &str) {
    client.say(&format!("SEND\ndestination:{destination}\n{headers}\n{body}"));
}

/// A SUBSCRIBE.
fn subscribe(client: &mut Client, id: &str, destination: &str, headers: &str) {
    client.say(&format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\n{headers}\n"));
}

fn body(frame: &Frame) -> String {
    String::from_utf8_lossy(&frame.body).into_owned()
}

fn ack(client: &mut Client, message: &Frame) {
    client.say(&format!("ACK\nid:{}\n\n", header(message, "ack")));
}

fn nack(client: &mut Client, message: &Frame, headers: &str) {
    client.say(&format!("NACK\nid:{}\n{headers}\n", header(message, "ack")));
}

/// What is in a queue, and takes it.
fn drain(house: &House, queue: &str) -> Vec<String> {
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", queue, "");
    client.bodies()
}

fn length(house: &House, queue: &str) -> usize {
    house.realm.queues().get(&name(queue)).map_or(0, |queue| queue.len())
}

// --------------------------------------------------------------------------------------------- selectors

#[test]
fn a_selector_chooses_among_the_messages_of_a_topic_in_every_mode() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "auto", "/topic/t", "selector:colour = 'red'\n");
    subscribe(&mut client, "all", "/topic/t", "selector:  \n");
    subscribe(&mut client, "bound", "/topic/t", "ack:client\nselector:colour <> 'red' AND JMSPriority > 4\n");
    send(&mut client, "/topic/t", "colour:red\n", "1");
    send(&mut client, "/topic/t", "colour:blue\npriority:5\n", "2");
    send(&mut client, "/topic/t", "colour:blue\n", "3");
    let mut got: Vec<String> = client
        .hear()
        .iter()
        .map(|frame| format!("{} {}", header(frame, "subscription"), body(frame)))
        .collect();
    got.sort();
    assert_eq!(got, ["all 1", "all 2", "all 3", "auto 1", "bound 2"]);
}

#[test]
fn a_selector_passes_over_what_others_get_in_order() {
    let house = House::new();
    let mut sender = house.connect("1.2");
    for n in 0..6 {
        send(&mut sender, "/queue/q", &format!("parity:{}\n", n % 2), &n.to_string());
    }
    let mut odd = house.connect("1.2");
    subscribe(&mut odd, "0", "/queue/q", "selector:parity = '1'\n");
    assert_eq!(odd.bodies(), ["1", "3", "5"]);
    send(&mut sender, "/queue/q", "parity:1\n", "7");
    send(&mut sender, "/queue/q", "parity:0\n", "8");
    assert_eq!(odd.bodies(), ["7"]);
    assert_eq!(drain(&house, "/queue/q"), ["0", "2", "4", "8"]);
}

#[test]
fn what_comes_back_is_offered_to_a_selector_again_in_its_place() {
    let house = House::new();
    let mut sender = house.connect("1.2");
    let mut picker = house.connect("1.2");
    subscribe(&mut picker, "0", "/queue/q", "ack:client-individual\nprefetch-count:1\nselector:a = '1'\n");
    for n in ["1", "2", "3"] {
        send(&mut sender, "/queue/q", "a:1\n", n);
    }
    let first = picker.next();
    nack(&mut picker, &first, "");
    let again = picker.expect(Command::Message, &[("redelivered", "true"), ("x-delivery-count", "1")]);
    assert_eq!((body(&first), body(&again)), ("1".into(), "1".into()));
    ack(&mut picker, &again);
    assert_eq!(picker.bodies(), ["2"]);
}

#[test]
fn a_selector_that_is_none_is_an_error_with_the_place() {
    let house = House::new();
    let frame = "SUBSCRIBE\nid:0\ndestination:/queue/q\nreceipt:r\nselector:a = \n\n";
    let error = house.connect("1.2").refused(frame, "Invalid header");
    assert_eq!(header(&error, "receipt-id"), "r");
    assert!(body(&error).contains("selector") && body(&error).contains("character 5"), "{}", body(&error));
}

#[test]
fn no_more_than_so_many_have_selectors_at_one_queue() {
    let house = House::new();
    let mut client = house.connect("1.2");
    for n in 0..SCANNERS_MAX {
        subscribe(&mut client, &n.to_string(), "/queue/q", "selector:a = '1'\n");
    }
    client.refused("SUBSCRIBE\nid:x\ndestination:/queue/q\nbrowser:true\n\n", "Limit reached");
}

// ------------------------------------------------------------------------------------------ time and room

#[test]
fn what_is_too_old_is_not_delivered() {
    let house = House::new();
    let mut client = house.connect("1.2");
    let now = house.realm.queues().now_ms();
    send(&mut client, "/queue/q", &format!("expires:{}\n", now + 100), "absolute");
    send(&mut client, "/queue/q", "expiration:100\n", "relative");
    send(&mut client, "/queue/q", "expiration:0\nexpires:0\n", "never");
    send(&mut client, "/queue/q", &format!("expires:{}\n", now - 1), "past");
    assert_eq!(length(&house, "q"), 3);
    house.pass(99);
    assert_eq!(length(&house, "q"), 3);
    house.pass(1);
    assert_eq!(length(&house, "q"), 1);
    assert_eq!(drain(&house, "/queue/q"), ["never"]);
    client.refused("SEND\ndestination:/queue/q\nexpiration:soon\n\n", "Invalid header");
}

#[test]
fn a_queue_says_how_long_messages_may_lie_in_it() {
    let house = House::new();
    let mut client = house.connect("1.2");
    let terms = "x-message-ttl:50\nx-dead-letter-routing-key:late\nx-dead-letter-exchange:\n";
    send(&mut client, "/queue/q", terms, "1");
    house.pass(50);
    assert_eq!(length(&house, "q"), 0);
    subscribe(&mut client, "0", "/queue/late", "");
    let headers = [
        ("destination", "/queue/late"),
        ("x-first-death-queue", "q"),
        ("x-first-death-reason", "expired"),
        ("x-death-count", "1"),
    ];
    client.expect(Command::Message, &headers);
}

#[test]
fn a_held_message_that_grew_too_old_does_not_come_back() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", "/queue/q", "ack:client\n");
    send(&mut client, "/queue/q", "expiration:10\n", "1");
    let held = client.next();
    house.pass(10);
    nack(&mut client, &held, "");
    assert!(client.hear().is_empty());
    assert_eq!((length(&house, "q"), length(&house, "dlq.q")), (0, 0));
}

#[test]
fn a_full_queue_refuses_with_the_receipt_id_or_drops_its_oldest() {
    let house = House::new();
    let mut client = house.connect("1.2");
    for n in ["1", "2"] {
        send(&mut client, "/queue/r", "x-max-length:2\nx-overflow:reject-publish\n", n);
    }
    let error = client.refused("SEND\ndestination:/queue/r\nreceipt:7\n\n3", "Queue full");
    assert_eq!(header(&error, "receipt-id"), "7");
    assert_eq!(drain(&house, "/queue/r"), ["1", "2"]);

    let mut client = house.connect("1.2");
    for n in ["1", "2", "3"] {
        send(&mut client, "/queue/d", "x-max-length:2\nx-dead-letter-routing-key:over\n", n);
    }
    assert_eq!(drain(&house, "/queue/d"), ["2", "3"]);
    assert_eq!(drain(&house, "/queue/over"), ["1"]);
    for n in ["1", "2", "3"] {
        send(&mut client, "/queue/b", "x-max-length-bytes:900\nx-overflow:drop-head\n", n);
    }
    assert_eq!(drain(&house, "/queue/b").last().map(String::as_str), Some("3"));
    assert!(length(&house, "b") < 3);
}

#[test]
fn a_queue_whose_messages_are_all_held_refuses_though_it_drops() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", "/queue/q", "ack:client\nx-max-length:1\nx-overflow:drop-head\n");
    send(&mut client, "/queue/q", "", "1");
    client.next();
    client.refused("SEND\ndestination:/queue/q\n\n2", "Queue full");
}

#[test]
fn properties_that_a_queue_does_not_have_are_named() {
    let house = House::new();
    let mut client = house.connect("1.2");
    send(&mut client, "/queue/q", "x-max-length:5\nx-message-ttl:1000\n", "1");
    send(&mut client, "/queue/q", "x-message-ttl:1000\n", "what is not said fits");
    let frame = "SUBSCRIBE\nid:0\ndestination:/queue/q\nx-max-length:6\nx-message-ttl:1000\nx-expires:1\n\n";
    let error = client.refused(frame, "Other properties");
    assert!(body(&error).ends_with("max-length, expires"), "{}", body(&error));
    house.connect("1.2").refused("SEND\ndestination:/queue/q\nx-max-length:x\n\n", "Invalid header");
    house.connect("1.2").refused("SEND\ndestination:/queue/q\nx-max-priority:256\n\n", "Invalid header");
}

#[test]
fn an_unused_queue_goes_away_with_its_messages_when_it_is_said_so() {
    let house = House::new();
    let mut client = house.connect("1.2");
    send(&mut client, "/queue/q", "x-expires:100\n", "1");
    house.pass(99);
    subscribe(&mut client, "0", "/queue/q", "ack:client\n");
    house.pass(500);
    assert_eq!(length(&house, "q"), 1, "somebody consumes");
    drop(client);
    house.pass(99);
    assert_eq!(length(&house, "q"), 1);
    house.pass(1);
    assert_eq!((house.realm.queues().len(), house.realm.queues().bytes()), (0, 0));
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", "/queue/q", "x-expires:100\n");
    client.say("UNSUBSCRIBE\nid:0\n\n");
    assert_eq!(house.realm.queues().len(), 1, "it waits, though it is empty");
    house.pass(100);
    assert_eq!(house.realm.queues().len(), 0);
}

#[test]
fn a_delayed_message_comes_when_its_time_has_come() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", "/queue/q", "");
    let at = house.realm.queues().now_ms() + 30;
    send(&mut client, "/queue/q", "AMQ_SCHEDULED_DELAY:50\n", "last");
    send(&mut client, "/queue/q", &format!("AMQ_SCHEDULED_TIME:{at}\n"), "middle");
    send(&mut client, "/queue/q", "", "first");
    assert_eq!(client.bodies(), ["first"]);
    house.pass(29);
    assert!(client.bodies().is_empty());
    house.pass(1);
    assert_eq!(client.bodies(), ["middle"]);
    house.pass(20);
    assert_eq!(client.bodies(), ["last"]);
}

// ------------------------------------------------------------------------------------- order and consumers

#[test]
fn higher_priorities_come_first_and_each_in_order() {
    let house = House::new();
    let mut client = house.connect("1.2");
    for (priority, body) in [("1", "a"), ("9", "b"), ("4", "c"), ("200", "e"), ("9", "f")] {
        send(&mut client, "/queue/q", &format!("priority:{priority}\n"), body);
    }
    send(&mut client, "/queue/q", "", "d");
    assert_eq!(drain(&house, "/queue/q"), ["b", "e", "f", "c", "d", "a"]);
    for (priority, body) in [("1", "a"), ("9", "b"), ("2", "c"), ("0", "d")] {
        send(&mut client, "/queue/p", &format!("priority:{priority}\nx-max-priority:2\n"), body);
    }
    assert_eq!(drain(&house, "/queue/p"), ["b", "c", "a", "d"]);
    send(&mut client, "/queue/n", "priority:1\nx-max-priority:0\n", "a");
    send(&mut client, "/queue/n", "priority:9\nx-max-priority:0\n", "b");
    assert_eq!(drain(&house, "/queue/n"), ["a", "b"]);
    client.refused("SEND\ndestination:/queue/q\npriority:high\n\n", "Invalid header");
}

#[test]
fn an_exclusive_consumer_gets_everything_and_the_next_takes_over() {
    let house = House::new();
    let mut sender = house.connect("1.2");
    let mut clients: Vec<Client> = (0..3).map(|_| house.connect("1.2")).collect();
    subscribe(&mut clients[0], "0", "/queue/q", "");
    subscribe(&mut clients[1], "0", "/queue/q", "exclusive:true\n");
    subscribe(&mut clients[2], "0", "/queue/q", "activemq.exclusive:true\nx-priority:1\n");
    for n in ["1", "2"] {
        send(&mut sender, "/queue/q", "", n);
    }
    assert_eq!(clients.iter_mut().map(Client::bodies).collect::<Vec<_>>()[2], ["1", "2"]);
    clients.pop();
    send(&mut sender, "/queue/q", "", "3");
    assert_eq!(clients[1].bodies(), ["3"]);
    clients[1].say("UNSUBSCRIBE\nid:0\n\n");
    send(&mut sender, "/queue/q", "", "4");
    assert_eq!(clients[0].bodies(), ["4"]);
}

#[test]
fn consumers_with_a_higher_priority_come_first_while_they_have_credit() {
    let house = House::new();
    let (mut low, mut high) = (house.connect("1.2"), house.connect("1.2"));
    subscribe(&mut low, "0", "/queue/q", "x-priority:-1\n");
    subscribe(&mut high, "0", "/queue/q", "x-priority:5\nack:client\nprefetch-count:2\n");
    for n in ["1", "2", "3"] {
        send(&mut low, "/queue/q", "", n);
    }
    assert_eq!((high.bodies(), low.bodies()), (vec!["1".to_owned(), "2".to_owned()], vec!["3".to_owned()]));
    low.refused("SUBSCRIBE\nid:1\ndestination:/queue/q\nx-priority:x\n\n", "Invalid header");
}

#[test]
fn a_group_stays_with_one_consumer_and_keeps_its_order() {
    let house = House::new();
    let mut sender = house.connect("1.2");
    let mut clients: Vec<Client> = (0..2).map(|_| house.connect("1.2")).collect();
    for client in &mut clients {
        subscribe(client, "0", "/queue/q", "ack:client-individual\nprefetch-count:2\n");
    }
    for n in 0..8 {
        let group = if n % 2 == 0 { "even" } else { "odd" };
        send(&mut sender, "/queue/q", &format!("JMSXGroupID:{group}\n"), &n.to_string());
    }
    let mut got = [Vec::new(), Vec::new()];
    for _ in 0..4 {
        for (client, got) in clients.iter_mut().zip(&mut got) {
            for message in client.hear() {
                got.push(body(&message));
                ack(client, &message);
            }
        }
    }
    assert_eq!(got, [["0", "2", "4", "6"], ["1", "3", "5", "7"]]);
    send(&mut sender, "/queue/q", "JMSXGroupID:even\n", "a");
    send(&mut sender, "/queue/q", "JMSXGroupID:even\n", "b");
    send(&mut sender, "/queue/q", "JMSXGroupID:even\n", "c");
    assert_eq!(clients[0].bodies(), ["a", "b"], "c waits for it, though the other has credit");
    assert!(clients[1].bodies().is_empty());
    clients.remove(0);
    assert_eq!(clients[0].bodies(), ["a", "b"], "the group goes over with its owner");
}

#[test]
fn the_last_of_a_group_lets_it_go() {
    let house = House::new();
    let mut sender = house.connect("1.2");
    let mut clients: Vec<Client> = (0..2).map(|_| house.connect("1.2")).collect();
    for client in &mut clients {
        subscribe(client, "0", "/queue/q", "");
    }
    for (sequence, n) in [("1", "1"), ("-1", "2"), ("1", "3")] {
        send(&mut sender, "/queue/q", &format!("JMSXGroupID:g\nJMSXGroupSeq:{sequence}\n"), n);
        let got: Vec<Vec<String>> = clients.iter_mut().map(Client::bodies).collect();
        assert_eq!(got[usize::from(n == "3")], [n]);
    }
}

#[test]
fn credit_is_asked_for_in_three_ways_and_in_bytes() {
    let house = House::new();
    let mut client = house.connect("1.2");
    for (queue, header, expected) in [
        ("a", "prefetch-count:3", 3),
        ("b", "activemq.prefetchSize:2", 2),
        ("c", "credit:4", 4),
        ("d", "credit:10,600", 3),
        ("e", "credit:0,0", 5),
        ("f", "prefetch-count:0", 5),
    ] {
        for n in 0..5 {
            send(&mut client, &format!("/queue/{queue}"), "", &n.to_string());
        }
        subscribe(&mut client, queue, &format!("/queue/{queue}"), &format!("ack:client\n{header}\n"));
        assert_eq!(client.hear().len(), expected, "{header}");
    }
    client.refused("SUBSCRIBE\nid:x\ndestination:/queue/x\ncredit:1,x\n\n", "Invalid header");
}

// ------------------------------------------------------------------------------------------ dead letters

#[test]
fn what_is_rejected_goes_to_the_queue_for_dead_letters() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", "/queue/q", "ack:client-individual\n");
    send(&mut client, "/queue/q", "foo:bar\npriority:9\ncontent-type:text/plain\n", "1");
    let message = client.next();
    nack(&mut client, &message, "requeue:false\n");
    assert_eq!(length(&house, "q"), 0);
    subscribe(&mut client, "1", "/queue/dlq.q", "ack:client-individual\n");
    let headers = [
        ("destination", "/queue/dlq.q"),
        ("foo", "bar"),
        ("content-type", "text/plain"),
        ("x-first-death-queue", "q"),
        ("x-first-death-reason", "rejected"),
    ];
    let dead = client.expect(Command::Message, &headers);
    assert_eq!((body(&dead), dead.headers.get("redelivered")), ("1".into(), None));
    nack(&mut client, &dead, "requeue:false\n");
    assert_eq!((house.realm.queues().len(), house.realm.queues().bytes()), (2, 0), "that was the last place");
    // Nobody can pretend that his message died.
    send(&mut client, "/queue/q", "x-death-count:15\nx-first-death-queue:z\n", "2");
    assert_eq!(client.next().headers.get("x-death-count"), None);
}

#[test]
fn who_says_where_dead_letters_go_must_be_allowed_to_send_there() {
    let house = House::new();
    let refused = |frame: &str| house.connect("1.2").refused(frame, "Access refused");
    let key = "x-dead-letter-routing-key:wamp.x";
    refused(&format!("SEND\ndestination:/queue/q\n{key}\n\n"));
    refused(&format!("SUBSCRIBE\nid:0\ndestination:/queue/q\n{key}\n\n"));
    refused(&format!("SUBSCRIBE\nid:0\ndestination:/topic/t\ndurable:true\n{key}\n\n"));
    let mut client = house.connect("1.2");
    client.say(&format!("BEGIN\ntransaction:t\n\n\0SEND\ndestination:/queue/q\ntransaction:t\n{key}\n\n"));
    client.refused("COMMIT\ntransaction:t\n\n", "Access refused");
    assert_eq!(house.realm.queues().len(), 0);
    let key = "x-dead-letter-routing-key:tandem.reply.x";
    house.connect("1.2").refused(&format!("SEND\ndestination:/queue/q\n{key}\n\n"), "Invalid header");
}

#[test]
fn a_message_that_comes_back_too_often_is_given_up() {
    let house = House::new();
    let mut client = house.connect("1.2");
    for (queue, header, limit) in [("a", "x-delivery-limit:2\n", 2), ("b", "", DELIVERY_LIMIT)] {
        let place = format!("/queue/{queue}");
        subscribe(&mut client, queue, &place, &format!("ack:client-individual\n{header}"));
        send(&mut client, &place, "", queue);
        for count in 0..=limit {
            let message = client.next();
            let told = message.headers.get("x-delivery-count").unwrap_or("0");
            assert_eq!(told, count.to_string());
            nack(&mut client, &message, "");
        }
        assert!(client.hear().is_empty());
        assert_eq!(length(&house, &format!("dlq.{queue}")), 1);
    }
}

#[test]
fn a_session_that_ends_counts_as_a_delivery_too() {
    let house = House::new();
    let mut sender = house.connect("1.2");
    send(&mut sender, "/queue/q", "x-delivery-limit:1\n", "poison");
    for _ in 0..2 {
        let mut client = house.connect("1.2");
        subscribe(&mut client, "0", "/queue/q", "ack:client\n");
        assert_eq!(client.bodies(), ["poison"]);
    }
    assert_eq!((length(&house, "q"), length(&house, "dlq.q")), (0, 1));
}

#[test]
fn a_message_rests_longer_each_time_it_comes_back() {
    let house = House::new();
    let mut client = house.connect("1.2");
    let terms = "ack:client-individual\nx-redelivery-delay:100\nx-redelivery-delay-max:250\n";
    subscribe(&mut client, "0", "/queue/q", terms);
    send(&mut client, "/queue/q", "", "1");
    for rest in [100, 200, 250, 250] {
        let message = client.next();
        nack(&mut client, &message, "");
        house.pass(rest - 1);
        assert!(client.hear().is_empty(), "before {rest}");
        house.pass(1);
    }
    send(&mut client, "/queue/q", "", "2");
    assert_eq!(client.bodies(), ["1", "2"]);
}

#[test]
fn a_queue_for_dead_letters_keeps_the_newest() {
    let house = House::new();
    let dead = house.realm.queues();
    house.realm.declare_queue(&name("dlq.q"), Properties::default()).expect("it may");
    let queue = dead.get(&name("dlq.q")).expect("it was made");
    let wanted = Properties { messages_max: Some(DEAD_LETTERS_MAX), ..Properties::default() };
    assert!(queue.misfits(&wanted).is_empty());
}

#[test]
fn dead_letters_that_go_round_end() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(
        &mut client,
        "a",
        "/queue/a",
        "x-dead-letter-routing-key:b\nx-message-ttl:1\nprefetch-count:1\nack:client\n",
    );
    subscribe(
        &mut client,
        "b",
        "/queue/b",
        "x-dead-letter-routing-key:a\nx-message-ttl:1\nprefetch-count:1\nack:client\n",
    );
    // These hold the only credit there is.
    send(&mut client, "/queue/a", "", "x");
    send(&mut client, "/queue/b", "", "x");
    assert_eq!(client.hear().len(), 2);
    send(&mut client, "/queue/a", "", "goes round");
    for _ in 0..100 {
        house.pass(1);
    }
    assert_eq!((length(&house, "a"), length(&house, "b")), (1, 1));
}

#[test]
fn a_transaction_rejects_into_the_queue_for_dead_letters() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", "/queue/q", "ack:client-individual\n");
    send(&mut client, "/queue/q", "", "1");
    let message = client.next();
    client.say("BEGIN\ntransaction:t\n\n");
    nack(&mut client, &message, "requeue:false\ntransaction:t\n");
    send(
        &mut client,
        "/queue/out",
        "transaction:t\npriority:7\nx-max-length:1\nx-overflow:reject-publish\n",
        "2",
    );
    assert_eq!((length(&house, "dlq.q"), length(&house, "out")), (0, 0));
    client.say("COMMIT\ntransaction:t\nreceipt:c\n\n");
    client.receipt("c");
    assert_eq!((length(&house, "q"), length(&house, "dlq.q"), length(&house, "out")), (0, 1, 1));
    client.say("BEGIN\ntransaction:t\n\n");
    send(&mut client, "/queue/other", "transaction:t\n", "3");
    send(&mut client, "/queue/out", "transaction:t\n", "4");
    let error = client.refused("COMMIT\ntransaction:t\nreceipt:d\n\n", "Queue full");
    assert_eq!(header(&error, "receipt-id"), "d");
    assert_eq!((length(&house, "other"), length(&house, "out")), (0, 1));
}

// ---------------------------------------------------------------------------------------------- looking

#[test]
fn a_browser_sees_what_waits_in_its_order_and_takes_nothing() {
    let house = House::new();
    let mut client = house.connect("1.2");
    for (priority, n) in [("4", "2"), ("4", "3"), ("9", "1")] {
        send(&mut client, "/queue/q", &format!("priority:{priority}\n"), n);
    }
    for mode in ["auto", "client"] {
        subscribe(&mut client, mode, "/queue/q", &format!("browser:true\nack:{mode}\nprefetch-count:10\n"));
        let seen = client.hear();
        let (end, messages) = seen.split_last().expect("an end");
        assert_eq!(messages.iter().map(body).collect::<Vec<_>>(), ["1", "2", "3"]);
        let told = ["browser", "subscription", "destination"].map(|name| header(end, name));
        assert_eq!(told, ["end", mode, "/queue/q"]);
        assert!(end.body.is_empty());
        client.say(&format!("UNSUBSCRIBE\nid:{mode}\n\n"));
    }
    assert_eq!(drain(&house, "/queue/q"), ["1", "2", "3"]);
}

#[test]
fn a_browser_is_held_to_its_credit_and_may_choose() {
    let house = House::new();
    let mut client = house.connect("1.2");
    for n in 0..4 {
        send(&mut client, "/queue/q", &format!("n:{n}\n"), &n.to_string());
    }
    let terms = "browser:true\nack:client-individual\nprefetch-count:1\nselector:n <> '1'\n";
    subscribe(&mut client, "0", "/queue/q", terms);
    for expected in ["0", "2", "3"] {
        let message = client.next();
        assert_eq!(body(&message), expected);
        assert!(client.hear().is_empty());
        ack(&mut client, &message);
    }
    client.expect(Command::Message, &[("browser", "end")]);
    assert_eq!(length(&house, "q"), 4);
}

#[test]
fn a_browser_without_end_sees_what_comes() {
    let house = House::new();
    let mut client = house.connect("1.2");
    send(&mut client, "/queue/q", "", "1");
    subscribe(&mut client, "0", "/queue/q", "browser:true\nbrowser-end:false\n");
    assert_eq!(client.bodies(), ["1"]);
    send(&mut client, "/queue/q", "", "2");
    assert_eq!(client.bodies(), ["2"]);
    assert_eq!(length(&house, "q"), 2);
}

#[test]
fn what_a_queue_keeps_can_be_read_again_from_a_place_on() {
    let house = House::new();
    let keeping = Properties { kept_max: Some(3), ..Properties::default() };
    house.realm.declare_queue(&name("q"), keeping).expect("it may");
    let mut client = house.connect("1.2");
    for n in 1..=5 {
        send(&mut client, "/queue/q", "", &n.to_string());
    }
    assert_eq!(drain(&house, "/queue/q"), ["1", "2", "3", "4", "5"]);
    subscribe(&mut client, "all", "/queue/q", "from-seq:0\ninclude-seq:seq\nbrowser:true\n");
    let seen: Vec<(String, String)> = client
        .hear()
        .iter()
        .filter(|frame| frame.headers.get("browser").is_none())
        .map(|frame| (body(frame), header(frame, "seq")))
        .collect();
    assert_eq!(seen, [("3", "3"), ("4", "4"), ("5", "5")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    subscribe(&mut client, "some", "/queue/q", "from-seq:5\n");
    subscribe(&mut client, "new", "/queue/q", "from-seq:-1\n");
    assert_eq!(client.bodies(), ["5"]);
    send(&mut client, "/queue/q", "", "6");
    assert_eq!(client.bodies(), ["6", "6"]);
    assert_eq!(length(&house, "q"), 1, "nobody consumed it");
    client.refused("SUBSCRIBE\nid:x\ndestination:/queue/other\nfrom-seq:1\n\n", "Not supported");
    assert!(house.realm.queues().get(&name("other")).is_none());
}

#[test]
fn the_place_of_a_message_is_told_to_who_wants_it() {
    let house = House::new();
    let mut client = house.connect("1.2");
    subscribe(&mut client, "0", "/queue/q", "include-seq:place\n");
    send(&mut client, "/queue/q", "", "1");
    client.expect(Command::Message, &[("place", "1")]);
    client.refused("SUBSCRIBE\nid:1\ndestination:/queue/q\ninclude-seq:message-id\n\n", "Invalid header");
}

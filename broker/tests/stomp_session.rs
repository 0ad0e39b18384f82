//! STOMP sessions face to face in memory: no sockets, no pump, and time that the tests make.

#[path = "stomp_session/authorization.rs"]
mod authorization;
#[path = "stomp_session/permission_matrix.rs"]
mod permission_matrix;
mod stomp_harness;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;

use tandem_broker::core::access::authorizer::Inquiry;
use tandem_broker::core::access::{Peer, Refusal};
use tandem_broker::core::calls::Offer;
use tandem_broker::core::eligibility::{Eligibility, Lists};
use tandem_broker::core::mailbox::Inbox;
use tandem_broker::core::message::{Attributes, Kind};
use tandem_broker::core::name::Pattern;
use tandem_broker::core::parcel::{Answer, Farewell, Parcel, Verdict};
use tandem_broker::core::protocol::{Output, Reason};
use tandem_broker::core::queues::QueueLimits;
use tandem_broker::core::realm::{Member, Outgoing, Realm, RealmLimits};
use tandem_broker::core::realms::Realms;
use tandem_broker::core::store::simulated::SimulatedStore;
use tandem_broker::core::topics::PublishTerms;
use tandem_protocols::payload::{Arguments, Content, Format, Payload};
use tandem_protocols::stomp::frame::{Command, Frame};

use stomp_harness::*;

// -------------------------------------------------------------------------------------------- connecting

#[test]
fn c1_only_connect_or_stomp_comes_first_and_only_once() {
    let house = House::new();
    for command in "SEND SUBSCRIBE UNSUBSCRIBE ACK NACK BEGIN COMMIT ABORT DISCONNECT MESSAGE x".split(' ') {
        let mut client = house.open();
        client.refused(&format!("{command}\ndestination:/queue/q\nreceipt:1\n\n"), "Bad command");
        assert_eq!((client.reason(), house.realm.queues().len()), (Some(Reason::Violation), 0));
    }
    let mut client = house.open();
    client.say("STOMP\naccept-version:1.2\nhost:h\n\n");
    client.expect(Command::Connected, &[("version", "1.2")]);
    assert!(client.session.is_established());
    client.refused("CONNECT\naccept-version:1.2\n\n", "Bad command");
}

#[test]
fn c2_the_best_version_is_chosen_and_none_is_an_error_that_lists_them() {
    let house = House::new();
    for (offered, chosen) in [("1.2,1.1,1.0", "1.2"), ("1.0,1.1", "1.1"), ("1.0", "1.0"), ("7,1.1", "1.1")] {
        let mut client = house.open();
        client.say(&format!("CONNECT\naccept-version:{offered}\nhost:h\n\n"));
        client.expect(Command::Connected, &[("version", chosen)]);
    }
    let mut client = house.open();
    client.say("CONNECT\n\n");
    client.expect(Command::Connected, &[("version", "1.0")]);
    let error = house.open().refused("CONNECT\naccept-version:2.0\nhost:h\n\n", "Version mismatch");
    assert_eq!(header(&error, "version"), "1.0,1.1,1.2");
}

#[test]
fn c3_any_host_or_none_leads_to_a_realm_and_a_known_one_to_its_own() {
    let other = Realm::new("other", LIMITS, Arc::new(|| 7));
    let known = other.clone();
    let house = House::with(|settings| {
        let realms = [settings.realms.always(), &[known]].concat();
        settings.realms = Arc::new(Realms::fixed(realms));
    });
    let mut clients = Vec::new();
    for host in ["host:127.0.0.1\n", "host:elsewhere\n", "", "host:other\n"] {
        let mut client = house.open();
        client.say(&format!("CONNECT\naccept-version:1.2\n{host}\n"));
        client.expect(Command::Connected, &[]);
        clients.push(client);
    }
    assert_eq!((house.realm.sessions(), other.sessions()), (3, 1));
}

#[test]
fn c4_a_wrong_passcode_is_an_error_and_the_end() {
    let house = House::new();
    let mut client = house.open();
    client.say("CONNECT\naccept-version:1.2\nlogin:ann\npasscode:wrong\n\n");
    let asked = client.credentials.take().expect("the pump is asked");
    assert_eq!((&*asked.applicant.user, &*asked.secret, asked.applicant.method), ("ann", "wrong", "stomp"));
    assert!(!client.session.is_established() && client.hear().is_empty());
    client.authenticated(Err(Refusal::WrongSecret));
    client.expect(Command::Error, &[("message", "Access refused")]);
    assert_eq!((client.reason(), house.realm.sessions()), (Some(Reason::Refused), 0));
}

#[test]
fn who_gives_wrong_passcodes_too_often_has_to_wait_and_others_as_the_same_user_a_little() {
    let house = House::new();
    let login = "CONNECT\naccept-version:1.2\nlogin:ann\npasscode:x\n\n";
    for _ in 0..5 {
        let mut client = house.open();
        client.say(login);
        client.authenticated(Err(Refusal::WrongSecret));
        client.expect(Command::Error, &[("message", "Access refused")]);
    }
    let mut client = house.open();
    client.say(login);
    assert!(client.credentials.is_none(), "it is not judged");
    let error = client.expect(Command::Error, &[("message", "Access refused")]);
    assert!(String::from_utf8_lossy(&error.body).contains("1 s"), "{error:?}");
    assert_eq!(client.reason(), Some(Reason::Refused));

    let mut client = house.open_from(&Peer::Socket(([192, 0, 2, 1], 5).into()));
    client.say(login);
    assert!(client.credentials.is_none() && client.heard.is_empty());
    client.say("SUBSCRIBE\nid:1\ndestination:/topic/a\nreceipt:r\n\n");
    client.now = client.session.deadline().expect("it is judged later");
    assert!(client.now <= house.start + Duration::from_secs(4));
    client.session.tick(client.now);
    client.poll();
    assert!(client.credentials.is_some() && client.session.deadline().is_none());
    client.authenticated(Ok(user("ann")));
    client.expect(Command::Connected, &[("user-name", "ann")]);
    client.expect(Command::Receipt, &[("receipt-id", "r")]);
}

#[test]
fn what_a_topic_retains_reaches_the_subscription_that_asks_for_it() {
    let house = House::new();
    let (mut sender, mut late) = (house.connect("1.2"), house.connect("1.1"));
    sender.say("SEND\ndestination:/topic/a.b\nretain:set\nk:v\n\nold");
    sender.say("SEND\ndestination:/topic/a.b\nretain:set\nk:v\n\nnew");
    late.say("SUBSCRIBE\nid:1\ndestination:/topic/a.*\n\n");
    late.say("SUBSCRIBE\nid:2\ndestination:/topic/a.*\nx-get-retained:true\nreceipt:r\n\n");
    late.expect(Command::Receipt, &[("receipt-id", "r")]);
    let kept = late.next();
    assert_eq!([header(&kept, "subscription"), header(&kept, "retained")], ["2", "true"]);
    assert_eq!((&*header(&kept, "k"), &kept.body[..]), ("v", &b"new"[..]));
    assert_eq!(kept.headers.get("retain"), None);
    assert!(late.hear().is_empty());
    sender.say("SEND\ndestination:/topic/a.b\nretain:remove\n\nlast");
    assert_eq!((&late.next().body[..], &late.next().body[..]), (&b"last"[..], &b"last"[..]));
    late.say("SUBSCRIBE\nid:3\ndestination:/topic/a.b\nx-get-retained:true\n\n");
    assert!(late.hear().is_empty());
    for wrong in ["retain:set\ntransaction:t", "retain:perhaps"] {
        let mut client = house.connect("1.2");
        client.say("BEGIN\ntransaction:t\n\n");
        client.refused(&format!("SEND\ndestination:/topic/a\n{wrong}\n\n"), "Invalid header");
    }
    house.connect("1.2").refused("SEND\ndestination:/queue/a\nretain:set\n\n", "Invalid header");
}

#[test]
fn c4_who_says_nothing_is_anonymous_or_refused() {
    let house = House::with(|settings| {
        settings.authenticator = Arc::new(Door { lets_anybody_in: false });
    });
    house.open().refused("CONNECT\naccept-version:1.2\nlogin:\npasscode:\n\n", "Access refused");
    let mut client = House::new().open();
    client.say("CONNECT\naccept-version:1.2\nlogin:\npasscode:\n\n");
    client.expect(Command::Connected, &[("user-name", "nobody")]);
}

#[test]
fn c6_connected_says_who_and_what_and_c5_gets_no_receipt() {
    let house = House::new();
    let mut client = house.open();
    client.say("CONNECT\naccept-version:1.2\nhost:h\nheart-beat:0,0\nreceipt:c\n\n");
    let connected = client.next();
    assert!(header(&connected, "server").starts_with("tandem/"));
    assert!(header(&connected, "session").parse::<u64>().is_ok());
    assert_eq!(header(&connected, "heart-beat"), "500,500");
    assert!(client.hear().is_empty());
}

#[test]
fn c7_frames_right_behind_connect_are_done_in_order_once_the_peer_is_let_in() {
    let house = House::new();
    let mut client = house.open();
    client.send(
        b"CONNECT\naccept-version:1.2\nlogin:a\n\n\0SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:1\n\n\0SEND\ndest",
    );
    client.send(b"ination:/topic/t\nreceipt:2\n\nhello\0");
    assert!(client.hear().is_empty());
    client.authenticated(Ok(user("a")));
    client.expect(Command::Connected, &[("user-name", "a")]);
    client.receipt("1");
    client.receipt("2");
    assert_eq!(client.expect(Command::Message, &[]).body, "hello");
}

#[test]
fn what_waits_for_authentication_is_bounded() {
    let house = House::new();
    let mut client = house.open();
    client.say("CONNECT\naccept-version:1.2\nlogin:a\n\n");
    for _ in 0..5 {
        client.send(&[b'\n'; 64 * 1024]);
    }
    client.expect(Command::Error, &[("message", "Frame too large")]);
    assert_eq!(client.reason(), Some(Reason::TooBig));
}

#[test]
fn d1_disconnect_gets_its_receipt_then_the_end_and_nothing_after_counts() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.send(
        b"SEND\ndestination:/queue/q\n\na\0DISCONNECT\nreceipt:77\n\n\0SEND\ndestination:/queue/q\n\nb\0rubbish",
    );
    client.receipt("77");
    assert_eq!((client.reason(), house.realm.sessions()), (Some(Reason::Done), 0));
    client.say("SEND\ndestination:/queue/q\n\nc");
    assert!(client.hear().is_empty());
    let mut other = house.connect("1.2");
    other.say("SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
    assert_eq!(other.bodies(), ["a"]);
}

// ------------------------------------------------------------------------------------------------- frames

#[test]
fn w3_several_frames_in_one_message_and_one_frame_over_several() {
    let house = House::new();
    let mut client = house.connect("1.2");
    let stream = "SUBSCRIBE\nid:0\ndestination:/topic/t\n\n\0\n\n\
                  SEND\ndestination:/topic/t\ncontent-length:4\n\n\u{e4}\u{e4}\0";
    for octet in stream.as_bytes() {
        client.send(&[*octet]);
    }
    client.send(b"SEND\ndestination:/topic/t\n\n1\0SEND\ndestination:/topic/t\n\n2\0");
    assert_eq!(client.bodies(), ["\u{e4}\u{e4}", "1", "2"]);
}

#[test]
fn w4_text_and_binary_are_chosen_frame_by_frame() {
    let house = House::new();
    for (kind, expected) in [
        (Kind::Text, [Kind::Text, Kind::Text, Kind::Binary]),
        (Kind::Binary, [Kind::Binary; 3]),
        (Kind::Raw, [Kind::Raw; 3]),
    ] {
        let mut client = house.open();
        client.kind = kind;
        client.say("CONNECT\naccept-version:1.2\n\n");
        client.say("SUBSCRIBE\nid:0\ndestination:/topic/t\n\n");
        client.say("SEND\ndestination:/topic/t\n\ntext");
        client.kind = if kind == Kind::Raw { kind } else { Kind::Binary };
        client.send(b"SEND\ndestination:/topic/t\n\n\xff\xfe\0");
        assert_eq!(client.hear().len(), 3);
        assert_eq!(client.kinds, expected);
    }
}

#[test]
fn s9_a_subscriber_gets_its_publishers_headers_but_none_that_are_the_brokers() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/topic/a.b\n\n");
    client.say(
        "SEND\ndestination:/topic/a.b\ncontent-type:text/plain\nfoo:1\nfoo:2\nb\\cr:x\\ny\nreceipt:r\nack:z\n\
         subscription:9\nredelivered:true\nuser-name:root\nsender:root\nx-publisher-authid:root\n\
         persistent:true\n\nhi",
    );
    client.receipt("r");
    let message = client.next();
    let id = header(&message, "message-id");
    assert!(id.parse::<u64>().is_ok(), "the number of the publication");
    let expected = [
        ("subscription", "0"),
        ("message-id", &id),
        ("destination", "/topic/a.b"),
        ("content-type", "text/plain"),
        ("foo", "1"),
        ("b:r", "x\ny"),
        ("persistent", "true"),
        ("content-length", "2"),
    ];
    assert!(message.headers.iter().eq(expected), "{message:?}");
    client.refused("SEND\ndestination:/topic/a.b\nmessage-id:1\nreceipt:e\n\n", "Invalid header");
}

#[test]
fn what_is_sent_again_and_again_is_each_time_what_it_says() {
    for version in ["1.0", "1.1", "1.2"] {
        let house = House::new();
        let mut client = house.connect(version);
        client.say("SUBSCRIBE\nid:0\ndestination:/topic/a\n\n");
        let long = "x".repeat(2000);
        let sent: Vec<(String, &str)> = [
            ("foo:1\n", "a"),
            ("foo:1\n", "b"),
            ("foo:1\n", ""),
            ("foo:1\n", &long),
            ("foo:2\n", "c"),
            ("foo:2\n", "d"),
            ("foo:2\nreceipt:r\n", "e"),
            ("foo:2\nreceipt:r\n", "f"),
            ("foo:2\nreceipt:r\n", "g"),
            ("content-length:2\nfoo:2\n", "h\0"),
            ("content-length:2\nfoo:2\n", "\0h"),
            ("content-length:1\nfoo:2\n", "\0"),
            ("content-length:3\nfoo:2\n", "hij"),
            ("content-length:2000\nfoo:2\n", &long),
            ("content-length:0\nfoo:2\n", ""),
            ("foo:2\npriority:3\n", "k"),
            ("foo:2\npriority:3\n", "l"),
            ("foo:2\npriority:3\n", "m"),
        ]
        .map(|(headers, body)| (headers.to_owned(), body))
        .into();
        for at_once in [true, false] {
            let frames = sent.iter().map(|(headers, body)| {
                format!("SEND\ndestination:/topic/a\ncontent-type:text/plain\n{headers}\n{body}\0")
                    .into_bytes()
            });
            match at_once {
                true => client.send(&frames.collect::<Vec<_>>().concat()),
                false => frames.for_each(|frame| client.send(&frame)),
            }
            let (messages, receipts): (Vec<_>, Vec<_>) =
                client.hear().into_iter().partition(|frame| frame.command == Command::Message);
            assert!(receipts.iter().all(|frame| frame.headers.get("receipt-id") == Some("r")));
            assert_eq!((messages.len(), receipts.len()), (sent.len(), 3));
            for (message, (headers, body)) in messages.iter().zip(&sent) {
                let foo = if headers.contains("foo:1") { "1" } else { "2" };
                assert_eq!((message.headers.get("foo"), &message.body[..]), (Some(foo), body.as_bytes()));
                assert_eq!(message.headers.get("content-type"), Some("text/plain"));
                assert_eq!(message.headers.get("destination"), Some("/topic/a"));
            }
        }
    }
}

#[test]
fn what_goes_wrong_with_what_is_sent_again_and_again_is_an_error_as_ever() {
    let usual = "SEND\ndestination:/topic/a\ncontent-length:1\n\n";
    for (frame, message) in [
        (format!("{usual}ab"), "Bad frame"),
        (usual.replace(":1", ":4294967295"), "Frame too large"),
        (usual.replace(":1", ":-1"), "Invalid header"),
        (usual.replace("\n\n", "\nmessage-id:1\n\na"), "Invalid header"),
        (usual.replace("\n\n", "\ntransaction:t\n\na"), "not_found"),
    ] {
        let mut client = House::new().connect("1.2");
        client.say("SUBSCRIBE\nid:0\ndestination:/topic/a\n\n");
        (0..4).for_each(|_| client.say(&format!("{usual}x")));
        assert_eq!(client.bodies(), ["x"; 4]);
        client.say(&frame);
        assert_eq!(header(&client.expect(Command::Error, &[]), "message"), message, "{frame:?}");
        assert!(client.close.is_some());
    }
}

#[test]
fn a_destination_that_means_nothing_is_an_error() {
    let house = House::new();
    for destination in ["/topic/a/b", "/topic/", "nowhere", "/amq/x", "/topic/a.*", "/temp-queue/"] {
        let frame = format!("SEND\ndestination:{destination}\nreceipt:1\n\n");
        let error = house.connect("1.2").refused(&frame, "Invalid destination");
        assert_eq!(header(&error, "receipt-id"), "1");
    }
    for destination in ["/temp-queue/", "/reply-queue/x", "/topic/a.#.b", "/call/p"] {
        let frame = format!("SUBSCRIBE\nid:0\ndestination:{destination}\n\n");
        house.connect("1.2").refused(&frame, "Invalid destination");
    }
    house.connect("1.2").refused("SEND\n\n", "Missing header");
    house.connect("1.2").refused("SUBSCRIBE\nid:0\n\n", "Missing header");
    house.connect("1.2").refused("SEND\ndestination:/topic/wamp.session.x\n\n", "Access refused");
}

#[test]
fn what_is_not_supported_is_named_and_not_ignored() {
    let house = House::new();
    for (place, property) in [
        ("/queue/q", "auto-delete:true"),
        ("/queue/q", "destination-type:MULTICAST"),
        ("/temp-queue/t", "durable:true"),
        ("/topic/t", "subscription-type:ANYCAST"),
        ("/topic/t", "activemq.maximumPendingMessageLimit:5"),
        ("/queue/q", "durable-subscription-name:d"),
        ("/queue/q", "x-dead-letter-exchange:d"),
        ("/queue/q", "x-overflow:reject-publish-dlx"),
        ("/queue/q", "x-queue-type:stream"),
        ("/queue/q", "x-queue-name:q"),
        ("/queue/q", "x-stream-offset:first"),
        ("/queue/q", "activemq.retroactive:true"),
        ("/queue/q", "no-local:true"),
        ("/queue/q", "from-seq:0"),
        ("/topic/t", "auto-delete:false"),
        ("/topic/t", "browser:true"),
        ("/topic/t", "exclusive:true"),
        ("/topic/t", "x-priority:1"),
        ("/topic/t", "x-max-length:3"),
        ("/topic/t", "from-seq:0"),
        ("/procedure/p", "selector:a=1"),
        ("/temp-queue/t", "selector:a=1"),
    ] {
        let frame = format!("SUBSCRIBE\nid:0\ndestination:{place}\n{property}\n\n");
        let error = house.connect("1.2").refused(&frame, "Not supported");
        let (name, _) = property.split_once(':').expect("a header");
        let body = String::from_utf8_lossy(&error.body).into_owned();
        assert!(body.contains(name) || name == "from-seq", "{body}");
    }
    for (place, property) in [
        ("/queue/q", "AMQ_SCHEDULED_CRON:0 * * * *"),
        ("/queue/q", "AMQ_SCHEDULED_PERIOD:5"),
        ("/topic/t", "AMQ_SCHEDULED_DELAY:5"),
        ("/topic/t", "x-max-length:5"),
        ("/queue/q", "x-max-age:5"),
        ("/queue/q", "transformation:jms-map-json"),
        ("/topic/t", "destination-type:ANYCAST"),
    ] {
        let frame = format!("SEND\ndestination:{place}\n{property}\n\n");
        house.connect("1.2").refused(&frame, "Not supported");
    }
    let mut client = house.connect("1.2");
    client.say(
        "SUBSCRIBE\nid:0\ndestination:/topic/q\ndurable:false\nauto-delete:true\nfoo:bar\nreceipt:1\n\n",
    );
    client.receipt("1");
}

#[test]
fn e2_an_error_gives_the_receipt_id_as_it_was_and_has_no_escapes_before_connected() {
    let house = House::new();
    let mut client = house.connect("1.1");
    let error = client.refused("SEND\ndestination:x\nreceipt:a\\cb\n\n", "Invalid destination");
    assert_eq!(
        (header(&error, "receipt-id"), header(&error, "content-type")),
        ("a:b".into(), "text/plain".into())
    );
    client.say("SEND\ndestination:/topic/t\nreceipt:1\n\n");
    assert!(client.hear().is_empty());
    let mut client = house.open();
    client.say("CONNECT\naccept-version:1.2\nheart-beat:a\\b\n\n");
    client.expect(Command::Error, &[("message", "Invalid header")]);
    assert!(client.raw[0].starts_with(b"ERROR\nmessage:Invalid header\ncontent-type:text/plain\n"));
}

#[test]
fn a_limit_of_the_reader_and_a_broken_wire_are_errors_that_say_so() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.send(b"SEND\ndestination:/topic/t\ncontent-length:1000000000\n\n");
    client.expect(Command::Error, &[("message", "Frame too large")]);
    assert_eq!(client.reason(), Some(Reason::TooBig));
    let mut client = house.connect("1.2");
    client.session.fail("the wire broke", client.now);
    client.poll();
    assert_eq!(client.expect(Command::Error, &[]).body, "the wire broke");
}

// ------------------------------------------------------------------------------------------ subscriptions

#[test]
fn s1_an_id_is_required_and_used_once() {
    let house = House::new();
    for version in ["1.1", "1.2"] {
        house.connect(version).refused("SUBSCRIBE\ndestination:/topic/a\n\n", "Missing header");
        let mut client = house.connect(version);
        client.say("SUBSCRIBE\nid:0\ndestination:/topic/a\n\n");
        let error = client.refused("SUBSCRIBE\nid:0\ndestination:/topic/b\nreceipt:2\n\n", "Invalid header");
        assert_eq!(header(&error, "receipt-id"), "2");
    }
}

#[test]
fn s2_in_1_0_a_destination_can_name_a_subscription() {
    let house = House::new();
    let mut client = house.connect("1.0");
    client.say("SUBSCRIBE\ndestination:/topic/a\n\n");
    client.say("SEND\ndestination:/topic/a\n\n1");
    assert_eq!(client.next().headers.get("subscription"), None);
    client.say("UNSUBSCRIBE\ndestination:/topic/a\n\n");
    client.say("SUBSCRIBE\nid:x\ndestination:/topic/a\n\n");
    client.say("SEND\ndestination:/topic/a\n\n2");
    client.expect(Command::Message, &[("subscription", "x")]);
    client.say("UNSUBSCRIBE\nid:x\n\n");
    client.say("SEND\ndestination:/topic/a\n\n3");
    assert!(client.hear().is_empty());
    client.say("SUBSCRIBE\ndestination:/topic/a\n\n");
    client.refused("SUBSCRIBE\ndestination:/topic/a\n\n", "Invalid header");
}

#[test]
fn s3_an_unknown_ack_mode_is_an_error() {
    let mut client = House::new().connect("1.2");
    client.refused("SUBSCRIBE\nid:0\ndestination:/queue/a\nack:maybe\n\n", "Invalid header");
}

#[test]
fn s8_unsubscribing_ends_deliveries_and_an_unknown_id_is_an_error() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/topic/a\n\n");
    client.say("SEND\ndestination:/topic/a\n\n1");
    client.say("UNSUBSCRIBE\nid:0\nreceipt:u\n\n");
    client.receipt("u");
    assert!(client.hear().is_empty(), "what lay in the mailbox is not for anybody any more");
    assert!(house.realm.topics().is_empty());
    client.refused("UNSUBSCRIBE\nid:0\n\n", "not_found");
}

#[test]
fn s10_a_receipt_comes_before_the_message_that_its_frame_causes() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SEND\ndestination:/queue/q\n\nwaiting");
    client.say("SUBSCRIBE\nid:0\ndestination:/queue/q\nreceipt:s\n\n");
    client.say("SEND\ndestination:/queue/q\nreceipt:r\n\nnew");
    let order: Vec<Command> = client.hear().into_iter().map(|frame| frame.command).collect();
    assert_eq!(order, [Command::Receipt, Command::Receipt, Command::Message, Command::Message]);
}

#[test]
fn two_subscriptions_to_one_topic_each_get_every_message_until_they_end() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:a\ndestination:/topic/t\n\n");
    client.say("SUBSCRIBE\nid:b\ndestination:/topic/t\n\n");
    assert_eq!(house.realm.topics().len(), 1, "the house has one");
    client.say("SEND\ndestination:/topic/t\n\n1");
    client.expect(Command::Message, &[("subscription", "a")]);
    client.expect(Command::Message, &[("subscription", "b")]);
    client.say("UNSUBSCRIBE\nid:a\n\n");
    client.say("SEND\ndestination:/topic/t\n\n2");
    client.expect(Command::Message, &[("subscription", "b")]);
    assert!(client.hear().is_empty());
}

#[test]
fn wildcards_and_no_local() {
    let house = House::new();
    let (mut client, mut other) = (house.connect("1.2"), house.connect("1.2"));
    client.say("SUBSCRIBE\nid:star\ndestination:/topic/a.*.c\n\n");
    client.say("SUBSCRIBE\nid:tail\ndestination:/topic/a.#\nno-local:true\n\n");
    client.say("SUBSCRIBE\nid:bound\ndestination:/topic/>\nno-local:true\nack:client\n\n");
    client.say("SEND\ndestination:/topic/a.b.c\n\nmine");
    client.expect(Command::Message, &[("subscription", "star"), ("destination", "/topic/a.b.c")]);
    assert!(client.hear().is_empty());
    other.say("SEND\ndestination:/topic/a\n\ntheirs");
    let mut told: Vec<String> = client.hear().iter().map(|frame| header(frame, "subscription")).collect();
    told.sort();
    assert_eq!(told, ["bound", "tail"]);
}

#[test]
fn one_publication_is_encoded_once_for_all_who_share_dialect_and_id() {
    let house = House::new();
    let mut clients: Vec<Client> = (0..4).map(|_| house.connect("1.2")).collect();
    for (client, id) in clients.iter_mut().zip(["same", "same", "same", "other"]) {
        client.say(&format!("SUBSCRIBE\nid:{id}\ndestination:/topic/t\n\n"));
    }
    clients[3].say("SEND\ndestination:/topic/t\nfoo:bar\n\nbody");
    let (mut heads, mut bodies) = (Vec::new(), Vec::new());
    let mut context = Context::from_waker(Waker::noop());
    for client in &mut clients {
        let mut batch = VecDeque::new();
        assert!(client.inbox.poll_take(&mut context, &mut batch).is_ready());
        client.session.deliver(batch.pop_front().expect("an event"), client.now);
        let Some(Output::Send(frame)) = client.session.poll() else { panic!("a frame") };
        heads.push(frame.message().head.as_ptr());
        bodies.push(frame.message().body.as_ptr());
    }
    assert!(heads[0] == heads[1] && heads[1] == heads[2] && heads[2] != heads[3]);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[test]
fn a_message_of_another_language_arrives_as_one_value() {
    let house = House::new();
    let (neighbour, _inbox) = house.neighbour();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/topic/#\n\n");
    for (args, content_type, shape, body) in [
        (r#"["hi"]"#, "text/plain", None, "hi"),
        (r#"[{"a":1}]"#, "application/json", None, r#"{"a":1}"#),
        ("[1,2]", "application/json", Some("full"), r#"{"args":[1,2],"kwargs":{}}"#),
    ] {
        neighbour.publish(outgoing("x.y", args), true).expect("it may");
        let headers = [("destination", "/topic/x.y"), ("content-type", content_type)];
        let message = client.expect(Command::Message, &headers);
        assert_eq!((message.headers.get("x-wamp-payload"), &message.body[..]), (shape, body.as_bytes()));
    }
}

#[test]
fn a_publisher_says_who_gets_a_message_and_lets_itself_be_known() {
    let house = House::new();
    let (neighbour, _inbox) = house.neighbour();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/topic/x\n\n");
    client.say("SUBSCRIBE\nid:1\ndestination:/topic/x\nack:client\n\n");
    let narrow = Lists::new(Vec::new(), Some(Vec::new()));
    let nobody = Eligibility { ids: narrow, ..Eligibility::default() };
    let terms = PublishTerms { eligibility: Some(nobody.into()), ..PublishTerms::default() };
    neighbour.publish_under(outgoing("x", "[1]"), terms).expect("it may");
    let terms = PublishTerms { disclose_me: true, ..PublishTerms::default() };
    neighbour.publish_under(outgoing("x", "[2]"), terms).expect("it may");
    let number = neighbour.id().0.to_string();
    for subscription in ["0", "1"] {
        let headers = [
            ("subscription", subscription),
            ("x-publisher", &number),
            ("x-publisher-authid", &*neighbour.principal().id),
        ];
        let message = client.expect(Command::Message, &headers);
        assert_eq!(&message.body[..], b"2");
    }
    // Nobody else can say so.
    client.say("SEND\ndestination:/topic/x\nx-publisher:5\nx-publisher-authid:root\n\n\0");
    let message = client.expect(Command::Message, &[("subscription", "0")]);
    assert!(message.headers.iter().all(|(name, _)| !name.starts_with("x-publisher")));
}

#[test]
fn what_has_no_form_here_is_dropped_and_rejected_and_the_session_goes_on() {
    let house = House::new();
    let (neighbour, _inbox) = house.neighbour();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/topic/t\n\n");
    client.say("SUBSCRIBE\nid:1\ndestination:/queue/t\nack:client\n\n");
    let bad = || Outgoing {
        payload: Payload::new(Content::Arguments(Arguments {
            format: Format::MsgPack,
            args: Bytes::from_static(b"\x91"),
            kwargs: Bytes::new(),
        })),
        ..outgoing("t", "[]")
    };
    neighbour.publish(bad(), true).expect("it may");
    neighbour.send(bad()).expect("it may");
    neighbour.publish(outgoing("t", r#"["good"]"#), true).expect("it may");
    assert_eq!(client.bodies(), ["good"]);
    client.say("UNSUBSCRIBE\nid:1\n\n");
    let dead = house.realm.queues().get(&name("dlq.t")).expect("what cannot be told is kept for others");
    assert_eq!((dead.len(), house.realm.queues().len()), (1, 1));
}

// --------------------------------------------------------------------------------------- acknowledgement

/// A client of that version with a subscription `s` to `/queue/q`, and the messages 1, 2 and 3 of it.
fn three_messages(house: &House, version: &str, mode: &str) -> (Client, Vec<Frame>) {
    let mut client = house.connect(version);
    client.say(&format!("SUBSCRIBE\nid:s\ndestination:/queue/q\nack:{mode}\n\n"));
    for body in ["1", "2", "3"] {
        client.say(&format!("SEND\ndestination:/queue/q\n\n{body}"));
    }
    let messages = client.hear();
    assert_eq!(messages.len(), 3);
    (client, messages)
}

/// What somebody else finds in `/queue/q`, with an asterisk if it was delivered before.
fn left_in_queue(house: &House) -> Vec<String> {
    let mut other = house.connect("1.2");
    other.say("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n");
    let left = other.hear();
    left.iter()
        .map(|frame| {
            let again = frame.headers.get("redelivered") == Some("true");
            format!("{}{}", String::from_utf8_lossy(&frame.body), if again { "*" } else { "" })
        })
        .collect()
}

#[test]
fn auto_takes_a_message_out_of_the_queue_when_it_is_told() {
    let house = House::new();
    let (client, messages) = three_messages(&house, "1.2", "auto");
    assert!(messages.iter().all(|frame| frame.headers.get("ack").is_none()));
    assert_ne!(header(&messages[0], "message-id"), header(&messages[1], "message-id"));
    drop(client);
    assert!(left_in_queue(&house).is_empty());
}

#[test]
fn s4_a_message_that_waits_for_an_ack_says_so_in_1_2() {
    let (_client, messages) = three_messages(&House::new(), "1.2", "client");
    assert!(messages.iter().all(|frame| frame.headers.get("ack").is_some()));
    let (_client, messages) = three_messages(&House::new(), "1.1", "client");
    for message in messages {
        assert_eq!(message.headers.get("ack"), None);
        assert!(!header(&message, "message-id").contains([':', '\\']), "G5");
    }
}

#[test]
fn client_individual_acknowledges_one_and_s11_the_rest_is_redelivered_to_others() {
    let house = House::new();
    let (mut client, messages) = three_messages(&house, "1.2", "client-individual");
    client.say(&format!("ACK\nid:{}\nreceipt:a\n\n", header(&messages[1], "ack")));
    client.receipt("a");
    drop(client);
    assert_eq!(left_in_queue(&house), ["1*", "3*"]);
}

#[test]
fn s3_client_acknowledges_all_before_on_its_own_subscription_only() {
    for version in ["1.0", "1.1", "1.2"] {
        let house = House::new();
        let (mut client, messages) = three_messages(&house, version, "client");
        client.say("SUBSCRIBE\nid:other\ndestination:/queue/other\nack:client\n\n");
        client.say("SEND\ndestination:/queue/other\n\nx");
        client.expect(Command::Message, &[]);
        let key = match version {
            "1.2" => format!("id:{}", header(&messages[1], "ack")),
            "1.1" => format!("message-id:{}\nsubscription:s", header(&messages[1], "message-id")),
            _ => format!("message-id:{}", header(&messages[1], "message-id")),
        };
        client.say(&format!("ACK\n{key}\nreceipt:r\n\n"));
        client.receipt("r");
        drop(client);
        assert_eq!(left_in_queue(&house), ["3*"], "{version}");
        let mut other = house.connect("1.2");
        other.say("SUBSCRIBE\nid:0\ndestination:/queue/other\n\n");
        assert_eq!(other.bodies(), ["x"]);
    }
}

#[test]
fn s5_an_ack_must_name_its_message_as_its_version_does() {
    let (mut client, messages) = three_messages(&House::new(), "1.2", "client");
    client.refused(&format!("ACK\nmessage-id:{}\n\n", header(&messages[0], "message-id")), "Missing header");
    let (mut client, messages) = three_messages(&House::new(), "1.1", "client");
    let id = header(&messages[0], "message-id");
    client.refused(&format!("ACK\nmessage-id:{id}\nsubscription:wrong\nreceipt:9\n\n"), "not_found");
}

#[test]
fn s6_a_nack_brings_the_message_back_or_throws_it_away() {
    let house = House::new();
    let (mut client, messages) = three_messages(&house, "1.2", "client-individual");
    client.say(&format!("NACK\nid:{}\nrequeue:false\n\n", header(&messages[0], "ack")));
    client.say(&format!("NACK\nid:{}\n\n", header(&messages[1], "ack")));
    let again = client.expect(Command::Message, &[("redelivered", "true")]);
    assert_eq!(again.body, "2");
    assert_ne!(header(&again, "message-id"), header(&messages[1], "message-id"));
    client.refused(&format!("ACK\nid:{}\n\n", header(&messages[1], "ack")), "not_found");
    drop(client);
    assert_eq!(left_in_queue(&house), ["2*", "3*"]);
}

#[test]
fn s7_an_ack_of_something_unknown_or_settled_is_an_error() {
    let house = House::new();
    for id in ["9-9-0", "nonsense", ""] {
        house.connect("1.2").refused(&format!("ACK\nid:{id}\n\n"), "not_found");
    }
    let (mut client, messages) = three_messages(&house, "1.2", "client-individual");
    client.say(&format!("ACK\nid:{}\n\n", header(&messages[0], "ack")));
    client.refused(&format!("ACK\nid:{}\n\n", header(&messages[0], "ack")), "not_found");
}

#[test]
fn s7_an_ack_of_something_unknown_is_an_error_where_acks_are_wanted_in_1_1_too() {
    let (mut client, _messages) = three_messages(&House::new(), "1.1", "client");
    client.refused("ACK\nmessage-id:nonsense\nsubscription:s\n\n", "not_found");
}

#[test]
fn s7_an_ack_where_none_is_wanted_is_an_error_in_1_2_only() {
    let (mut client, messages) = three_messages(&House::new(), "1.2", "auto");
    client.refused(&format!("ACK\nid:{}\n\n", header(&messages[0], "message-id")), "not_found");
    for version in ["1.0", "1.1"] {
        let (mut client, messages) = three_messages(&House::new(), version, "auto");
        let id = header(&messages[0], "message-id");
        client.say(&format!("ACK\nmessage-id:{id}\nsubscription:s\nreceipt:1\n\n"));
        client.receipt("1");
    }
}

#[test]
fn s7_an_ack_that_crosses_unsubscribe_is_taken() {
    let house = House::new();
    let (mut client, messages) = three_messages(&house, "1.1", "client-individual");
    client.say("UNSUBSCRIBE\nid:s\n\n");
    client.say("SEND\ndestination:/queue/q\n\n4");
    for message in &messages[..2] {
        let id = header(message, "message-id");
        client.say(&format!("ACK\nmessage-id:{id}\nsubscription:s\nreceipt:1\n\n"));
        client.receipt("1");
    }
    assert!(client.hear().is_empty(), "S8: nothing comes for it any more");
    assert_eq!(left_in_queue(&house), ["4"], "3 is still in its care");
    drop(client);
    assert_eq!(left_in_queue(&house), ["3*", "4*"]);
}

#[test]
fn s8_what_was_on_its_way_to_a_subscription_that_ended_goes_to_others() {
    let house = House::new();
    for mode in ["auto", "client"] {
        let mut client = house.connect("1.2");
        client.say(&format!("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:{mode}\n\n"));
        client.say("SEND\ndestination:/queue/q\n\n1");
        client.say("UNSUBSCRIBE\nid:0\n\n");
        assert!(client.hear().is_empty());
        let mut other = house.connect("1.2");
        other.say("SUBSCRIBE\nid:0\ndestination:/queue/q\n\n");
        assert_eq!(other.bodies(), ["1"]);
    }
}

#[test]
fn a_topic_can_be_acknowledged_and_redelivers() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/topic/a.*\nack:client-individual\nprefetch-count:1\n\n");
    client.say("SEND\ndestination:/topic/a.b\n\n1");
    client.say("SEND\ndestination:/topic/a.c\n\n2");
    let first = client.expect(Command::Message, &[("destination", "/topic/a.b")]);
    assert!(client.hear().is_empty(), "its credit is one message");
    client.say(&format!("NACK\nid:{}\n\n", header(&first, "ack")));
    let again = client.expect(Command::Message, &[("redelivered", "true")]);
    client.say(&format!("ACK\nid:{}\n\n", header(&again, "ack")));
    assert_eq!(client.bodies(), ["2"]);
}

#[test]
fn a_consumer_holds_no_more_than_its_credit() {
    let house = House::new();
    let mut sender = house.connect("1.2");
    for _ in 0..40 {
        sender.say("SEND\ndestination:/queue/q\n\nx");
    }
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\n\n");
    let messages = client.hear();
    assert_eq!(messages.len(), 32);
    client.say(&format!("ACK\nid:{}\n\n", header(&messages[31], "ack")));
    assert_eq!(client.hear().len(), 8);
    client.refused("SUBSCRIBE\nid:1\ndestination:/queue/q\nprefetch-count:many\n\n", "Invalid header");
}

// ------------------------------------------------------------------------------------------- transactions

#[test]
fn t1_a_transaction_has_a_name_that_is_used_once_at_a_time() {
    let house = House::new();
    house.connect("1.2").refused("BEGIN\n\n", "Missing header");
    let mut client = house.connect("1.2");
    for _ in 0..2 {
        client.say("BEGIN\ntransaction:t\n\n");
        client.say("COMMIT\ntransaction:t\nreceipt:c\n\n");
        client.receipt("c");
        client.say("BEGIN\ntransaction:t\n\n");
        client.say("ABORT\ntransaction:t\n\n");
    }
    client.say("BEGIN\ntransaction:t\n\n");
    client.refused("BEGIN\ntransaction:t\n\n", "Invalid header");
    for frame in
        ["COMMIT\ntransaction:u", "ABORT\ntransaction:u", "SEND\ndestination:/queue/q\ntransaction:u"]
    {
        house.connect("1.2").refused(&format!("{frame}\n\n"), "not_found");
    }
}

#[test]
fn r2_a_commit_does_all_at_once_and_then_gives_the_receipts_in_order() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:q\ndestination:/queue/q\n\n");
    client.say("SUBSCRIBE\nid:t\ndestination:/topic/t\n\n");
    client.say("BEGIN\ntransaction:x\nreceipt:b\n\n");
    client.receipt("b");
    client.say("SEND\ndestination:/queue/q\ntransaction:x\nreceipt:1\n\none");
    client.say("SEND\ndestination:/topic/t\ntransaction:x\nreceipt:2\n\ntwo");
    assert!(client.hear().is_empty());
    client.say("COMMIT\ntransaction:x\nreceipt:c\n\n");
    ["1", "2", "c"].into_iter().for_each(|receipt| client.receipt(receipt));
    let messages = client.hear();
    assert_eq!(messages.len(), 2);
    assert!(messages.iter().all(|message| message.headers.get("transaction").is_none()));
}

#[test]
fn t2_a_commit_that_is_refused_does_nothing_at_all() {
    let house = House::new();
    let (mut client, messages) = three_messages(&house, "1.2", "client-individual");
    let mut watcher = house.connect("1.2");
    watcher.say("SUBSCRIBE\nid:0\ndestination:/topic/t\n\n");
    client.say("BEGIN\ntransaction:x\n\n");
    client.say("SEND\ndestination:/topic/t\ntransaction:x\nreceipt:no\n\nlost");
    client.say(&format!("ACK\nid:{}\ntransaction:x\n\n", header(&messages[0], "ack")));
    for _ in 0..51 {
        client.say("SEND\ndestination:/queue/full\ntransaction:x\n\nx");
    }
    let error = client.refused("COMMIT\ntransaction:x\nreceipt:c\n\n", "Queue full");
    assert_eq!(header(&error, "receipt-id"), "c");
    assert!(watcher.hear().is_empty());
    assert_eq!(left_in_queue(&house), ["1*", "2*", "3*"]);
}

#[test]
fn t2_acks_of_a_committed_transaction_count_and_cannot_be_given_twice() {
    let house = House::new();
    let (mut client, messages) = three_messages(&house, "1.2", "client");
    client.say("BEGIN\ntransaction:x\n\n");
    client.say(&format!("ACK\nid:{}\ntransaction:x\nreceipt:a\n\n", header(&messages[0], "ack")));
    client.say(&format!("NACK\nid:{}\nrequeue:false\ntransaction:x\n\n", header(&messages[1], "ack")));
    assert!(client.hear().is_empty());
    client.say("COMMIT\ntransaction:x\n\n");
    client.receipt("a");
    client.say("BEGIN\ntransaction:y\n\n");
    client.say(&format!("ACK\nid:{}\ntransaction:y\n\n", header(&messages[2], "ack")));
    client.refused(&format!("ACK\nid:{}\n\n", header(&messages[2], "ack")), "not_found");
    assert_eq!(left_in_queue(&house), ["3*"], "an open transaction ends with its session");
}

#[test]
fn t2_what_a_transaction_decides_about_nobody_else_can_in_any_mode() {
    for mode in ["client", "client-individual"] {
        let (mut client, messages) = three_messages(&House::new(), "1.2", mode);
        client.say("BEGIN\ntransaction:x\n\n");
        client.say(&format!("ACK\nid:{}\ntransaction:x\n\n", header(&messages[0], "ack")));
        client.say("BEGIN\ntransaction:y\n\n");
        let again = format!("NACK\nid:{}\ntransaction:y\n\n", header(&messages[0], "ack"));
        client.refused(&again, "not_found");
    }
}

#[test]
fn a_subscription_that_ended_is_gone_once_a_transaction_settled_its_last_delivery() {
    let house = House::new();
    let (mut client, messages) = three_messages(&house, "1.2", "client");
    client.say("BEGIN\ntransaction:x\n\n");
    client.say("UNSUBSCRIBE\nid:s\n\n");
    client.say(&format!("ACK\nid:{}\ntransaction:x\n\n", header(&messages[2], "ack")));
    assert_eq!(house.realm.queues().len(), 1);
    client.say("COMMIT\ntransaction:x\n\n");
    assert!(house.realm.queues().is_empty());
}

#[test]
fn t3_abort_undoes_sends_and_acks_and_delivers_nothing_again() {
    let house = House::new();
    let (mut client, messages) = three_messages(&house, "1.2", "client");
    client.say("BEGIN\ntransaction:x\n\n");
    client.say(&format!("ACK\nid:{}\ntransaction:x\n\n", header(&messages[1], "ack")));
    client.say("SEND\ndestination:/queue/q\ntransaction:x\nreceipt:s\n\n4");
    client.say("ABORT\ntransaction:x\nreceipt:a\n\n");
    client.receipt("a");
    assert!(client.hear().is_empty());
    client.say(&format!("ACK\nid:{}\nreceipt:b\n\n", header(&messages[1], "ack")));
    client.receipt("b");
    drop(client);
    assert_eq!(left_in_queue(&house), ["3*"]);
}

#[test]
fn transactions_are_bounded_in_number_and_bytes() {
    let house = House::with(|settings| settings.transaction_bytes_max = 2000);
    let mut client = house.connect("1.2");
    for number in 0..16 {
        client.say(&format!("BEGIN\ntransaction:{number}\n\n"));
    }
    client.refused("BEGIN\ntransaction:16\n\n", "Limit reached");
    let mut client = house.connect("1.2");
    client.say("BEGIN\ntransaction:a\n\n");
    client.say("BEGIN\ntransaction:b\n\n");
    let body = "x".repeat(1000);
    client.say(&format!("SEND\ndestination:/queue/q\ntransaction:a\n\n{body}"));
    client.refused(&format!("SEND\ndestination:/queue/q\ntransaction:b\n\n{body}"), "Limit reached");
}

// -------------------------------------------------------------------------------------------------- calls

#[test]
fn a_reply_comes_to_the_temporary_queue_that_only_reply_to_named() {
    let house = House::new();
    let (mut asker, mut answerer) = (house.connect("1.2"), house.connect("1.1"));
    answerer.say("SUBSCRIBE\nid:0\ndestination:/queue/work\n\n");
    for question in ["1", "2"] {
        asker.say(&format!(
            "SEND\ndestination:/queue/work\nreply-to:/temp-queue/x\ncorrelation-id:{question}\n\n"
        ));
        let reply_to = header(&answerer.next(), "reply-to");
        assert!(reply_to.starts_with("/reply-queue/") && reply_to.len() > 40);
        answerer.say(&format!("SEND\ndestination:{reply_to}\ncorrelation-id:{question}\n\nanswer"));
        let headers = [("subscription", "/temp-queue/x"), ("correlation-id", question)];
        asker.expect(Command::Message, &headers);
    }
    assert_eq!(house.realm.queues().len(), 2, "one reply queue for one name");
    drop(asker);
    answerer.say("SEND\ndestination:/reply-queue/00\nreceipt:r\n\nnobody");
    answerer.receipt("r");
    answerer.say("BEGIN\ntransaction:t\n\n");
    answerer.say("SEND\ndestination:/reply-queue/00\ntransaction:t\n\nnobody");
    answerer.say("COMMIT\ntransaction:t\nreceipt:r\n\n");
    answerer.receipt("r");
    assert_eq!(house.realm.queues().len(), 1);
}

#[test]
fn nobody_consumes_from_anothers_reply_queue() {
    let house = House::new();
    let reply_queue = "SUBSCRIBE\nid:0\ndestination:/queue/tandem.reply.x\n\n";
    house.connect("1.2").refused(reply_queue, "Access refused");
    let id = "SUBSCRIBE\nid:/temp-queue/x\ndestination:/queue/q\n\n";
    house.connect("1.2").refused(id, "Invalid header");
}

/// Answers what lies in the inbox, which is one invocation; gives its header `foo`.
fn serve(callee: &Member, inbox: &mut Inbox, payload: Payload) -> Option<String> {
    let mut batch = VecDeque::new();
    assert!(inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch).is_ready());
    let Some(Parcel::Invocation(invocation)) = batch.pop_front() else { panic!("an invocation") };
    assert_eq!(invocation.attributes.get("reply-to"), None);
    callee
        .answer(invocation.id, Ok(Answer { payload, attributes: Attributes::default(), is_progress: false }));
    invocation.attributes.get("foo").map(str::to_owned)
}

#[test]
fn a_call_is_answered_where_its_caller_wants_it() {
    let house = House::new();
    let (mut callee, mut inbox) = house.neighbour();
    callee.register(&Pattern::exact(name("p.q"))).expect("it may");
    let mut caller = house.connect("1.2");
    caller.say("SUBSCRIBE\nid:t\ndestination:/topic/answers\n\n");
    caller.say("SUBSCRIBE\nid:q\ndestination:/queue/answers\n\n");
    for (reply_to, subscription) in
        [("/temp-queue/x", "/temp-queue/x"), ("/topic/answers", "t"), ("/queue/answers", "q")]
    {
        caller.say(&format!(
            "SEND\ndestination:/call/p.q\nreply-to:{reply_to}\ncorrelation-id:7\nfoo:bar\nreceipt:r\n\nhi"
        ));
        caller.receipt("r");
        assert_eq!(serve(&callee, &mut inbox, json(r#"["done"]"#)).as_deref(), Some("bar"));
        let headers = [("destination", reply_to), ("subscription", subscription), ("correlation-id", "7")];
        let answer = caller.expect(Command::Message, &headers);
        assert_eq!((&answer.body[..], answer.headers.get("error")), (&b"done"[..], None));
    }
    caller.say("SEND\ndestination:/call/p.q\n\n");
    serve(&callee, &mut inbox, json("[]"));
    assert!(caller.hear().is_empty(), "nobody asked for it");
    assert_eq!(house.realm.calls().pending(), 0);
}

#[test]
fn several_serve_one_procedure_in_turns() {
    let house = House::new();
    let (mut one, mut other) = (house.connect("1.2"), house.connect("1.2"));
    let mut caller = house.connect("1.2");
    // Twice in a session is once, until both are unsubscribed.
    for (of_one, id) in [(true, "0"), (true, "1"), (false, "0")] {
        let callee = if of_one { &mut one } else { &mut other };
        let subscribe = format!("SUBSCRIBE\nid:{id}\ndestination:/procedure/p\nx-invoke:roundrobin");
        callee.say(&format!("{subscribe}\nreceipt:r\n\n"));
        callee.receipt("r");
    }
    one.say("UNSUBSCRIBE\nid:0\n\n");
    for callee in [&mut one, &mut other] {
        caller.say("SEND\ndestination:/call/p\n\n");
        callee.expect(Command::Message, &[("destination", "/procedure/p")]);
    }
    let x_invoke = |destination: &str, word: &str| {
        format!("SUBSCRIBE\nid:9\ndestination:{destination}\nx-invoke:{word}\n\n")
    };
    house.connect("1.2").refused(&x_invoke("/procedure/p", "first"), "Access refused");
    house.connect("1.2").refused(&x_invoke("/procedure/q", "any"), "Invalid header");
    house.connect("1.2").refused(&x_invoke("/topic/t", "first"), "Invalid header");
}

#[test]
fn what_was_taken_away_can_still_be_unsubscribed_from() {
    let house = House::new();
    let mut callee = house.connect("1.2");
    callee.say("SUBSCRIBE\nid:0\ndestination:/procedure/p\n\n");
    let (mut rival, _inbox) = house.neighbour();
    let offer = Offer { force: true, ..Offer::default() };
    rival.offer(&Pattern::exact(name("p")), offer).expect("force is force");
    assert!(callee.hear().is_empty());
    callee.say("UNSUBSCRIBE\nid:0\nreceipt:r\n\n");
    callee.receipt("r");
}

#[test]
fn a_caller_waits_as_long_as_it_says() {
    let house = House::new();
    let (mut callee, mut inbox) = house.neighbour();
    callee.register(&Pattern::exact(name("p"))).expect("it may");
    let mut caller = house.connect("1.2");
    for timeout in ["0", "100"] {
        caller.say(&format!("SEND\ndestination:/call/p\nreply-to:/temp-queue/x\nx-timeout:{timeout}\n\n"));
    }
    caller.after(99);
    assert!(caller.hear().is_empty());
    caller.after(1);
    caller.expect(Command::Message, &[("error", "wamp.error.timeout")]);
    assert_eq!(house.realm.calls().pending(), 1);
    serve(&callee, &mut inbox, json("[]"));
    caller.expect(Command::Message, &[("subscription", "/temp-queue/x")]);
    caller.refused("SEND\ndestination:/call/p\nx-timeout:soon\n\n", "Invalid header");
}

#[test]
fn a_call_that_fails_is_a_message_and_not_the_end() {
    let house = House::new();
    let mut caller = house.connect("1.2");
    caller.say("SEND\ndestination:/call/nobody\nreply-to:/temp-queue/x\ncorrelation-id:1\nreceipt:r\n\n");
    caller.receipt("r");
    let headers = [
        ("error", "wamp.error.no_such_procedure"),
        ("correlation-id", "1"),
        ("subscription", "/temp-queue/x"),
    ];
    let error = caller.expect(Command::Message, &headers);
    assert!(String::from_utf8_lossy(&error.body).contains("nobody"));
    let (mut callee, mut inbox) = house.neighbour();
    callee.register(&Pattern::exact(name("p"))).expect("it may");
    caller.say("SEND\ndestination:/call/p\nreply-to:/temp-queue/x\n\n");
    serve(&callee, &mut inbox, json("[1,"));
    caller.expect(Command::Message, &[("error", "wamp.error.invalid_payload")]);
    caller.say("SEND\ndestination:/call/p\nreply-to:/temp-queue/x\n\n");
    drop(callee);
    caller.expect(Command::Message, &[("error", "wamp.error.canceled")]);
    caller.refused("SEND\ndestination:/call/p\nreply-to:/temp-queue/\n\n", "Invalid header");
}

#[test]
fn a_peer_serves_a_procedure() {
    let house = House::new();
    let (mut callee, mut caller) = (house.connect("1.1"), house.connect("1.2"));
    callee.say("SUBSCRIBE\nid:p\ndestination:/procedure/add.*\nreceipt:s\n\n");
    callee.receipt("s");
    for (error, body) in [("", "3"), ("error:com.example.bad\n", "why")] {
        caller.say(
            "SEND\ndestination:/call/add.two\nreply-to:/temp-queue/x\ncorrelation-id:c\nfoo:1\n\
             content-type:application/json\n\n[1,2]",
        );
        let headers = [
            ("subscription", "p"),
            ("destination", "/procedure/add.two"),
            ("foo", "1"),
            ("content-type", "application/json"),
        ];
        let asked = callee.expect(Command::Message, &headers);
        assert_eq!(asked.body, "[1,2]");
        let (reply_to, id) = (header(&asked, "reply-to"), header(&asked, "correlation-id"));
        assert_eq!(reply_to, format!("/invocation/{id}"));
        let answer = format!("SEND\ndestination:{reply_to}\ncorrelation-id:{id}\n{error}receipt:a\n\n{body}");
        callee.say(&answer);
        callee.receipt("a");
        let told = caller.expect(Command::Message, &[("correlation-id", "c")]);
        assert_eq!(told.body, body);
        assert_eq!(told.headers.get("error"), (!error.is_empty()).then_some("com.example.bad"));
        callee.say(&answer);
        callee.receipt("a");
    }
    callee.say("UNSUBSCRIBE\nid:p\n\n");
    assert_eq!(house.realm.calls().registrations(), 0);
    callee.refused("SEND\ndestination:/invocation/99\n\n", "not_found");
    let with_ack = "SUBSCRIBE\nid:p\ndestination:/procedure/p\nack:client\n\n";
    house.connect("1.2").refused(with_ack, "Invalid header");
}

#[test]
fn a_call_that_lay_in_the_mailbox_of_a_callee_that_went_is_answered() {
    let house = House::new();
    let (mut callee, mut caller) = (house.connect("1.2"), house.connect("1.2"));
    callee.say("SUBSCRIBE\nid:p\ndestination:/procedure/p\n\n");
    caller.say("SEND\ndestination:/call/p\nreply-to:/temp-queue/x\n\n");
    callee.say("UNSUBSCRIBE\nid:p\n\n");
    assert!(callee.hear().is_empty());
    caller.expect(Command::Message, &[("error", "wamp.error.canceled")]);
}

// --------------------------------------------------------------------------------------------------- time

/// A house that sends a beat at most every 1000 ms to a peer that does too, and that peer.
fn beating() -> (House, Client) {
    let house = House::with(|settings| {
        settings.heart_beat.sends_ms = 500;
        settings.heart_beat.wants_ms = 1000;
    });
    let mut client = house.open();
    client.say("CONNECT\naccept-version:1.2\nhost:h\nheart-beat:1000,1000\n\n");
    client.next();
    (house, client)
}

#[test]
fn h1_who_wants_no_heart_beats_has_none_and_what_is_no_number_is_an_error() {
    let house = House::new();
    assert_eq!(house.connect("1.2").session.deadline(), None);
    let mut old = house.open();
    old.say("CONNECT\nheart-beat:10,10\n\n");
    assert_eq!(old.next().headers.get("heart-beat"), None);
    assert_eq!(old.session.deadline(), None, "H2: none in 1.0");
    house.open().refused("CONNECT\naccept-version:1.2\nheart-beat:x,y\n\n", "Invalid header");
}

#[test]
fn h2_a_beat_is_sent_early_and_only_when_nothing_else_was() {
    let (_house, mut client) = beating();
    client.kinds.clear();
    client.after(699);
    assert_eq!(client.beats, 0);
    client.after(1);
    assert_eq!((client.beats, &client.kinds[..]), (1, &[Kind::Text][..]), "H7: a message of its own");
    client.after(600);
    client.say("SEND\ndestination:/topic/t\nreceipt:r\n\n");
    client.after(600);
    assert_eq!(client.beats, 1, "the receipt was as good");
    client.after(100);
    assert_eq!(client.beats, 2);
}

#[test]
fn h3_a_silent_peer_is_given_up_after_twice_the_interval_and_a_second() {
    let (house, mut client) = beating();
    client.after(2500);
    client.send(b"\n");
    client.after(2999);
    assert_eq!(client.reason(), None);
    client.after(1);
    assert_eq!((client.reason(), house.realm.sessions()), (Some(Reason::Silent), 0));
}

#[test]
fn h6_a_peer_that_is_not_read_is_not_silent() {
    let (_house, mut client) = beating();
    for _ in 0..5 {
        client.session.pause(client.now);
        client.after(3000);
        assert_eq!(client.reason(), None);
    }
    client.after(2999);
    assert_eq!(client.reason(), None, "it is read again, and has all its time");
    client.after(1);
    assert_eq!(client.reason(), Some(Reason::Silent));
}

// ------------------------------------------------------------------------------------------------ the end

#[test]
fn a_farewell_is_an_error_that_says_why() {
    let verdict = |message: Option<&str>| {
        let (reason, message) = ("com.app.bye".into(), message.map(Box::from));
        Farewell::Killed(Arc::new(Verdict { reason, message }))
    };
    for (farewell, message, reason) in [
        (Farewell::Shutdown, "broker is shutting down", Reason::Shutdown),
        (Farewell::SlowConsumer, "Slow consumer", Reason::SlowConsumer),
        (verdict(None), "Session killed", Reason::Refused),
        (verdict(Some("go away")), "Session killed", Reason::Refused),
    ] {
        let house = House::new();
        let mut client = house.connect("1.2");
        house.realm.say_farewell(farewell);
        client.expect(Command::Error, &[("message", message)]);
        assert_eq!(client.reason(), Some(reason));
    }
}

#[test]
fn only_who_published_is_held_up_while_too_much_is_on_its_way() {
    let house = House::new();
    let (mut publisher, mut reader) = (house.connect("1.2"), house.connect("1.2"));
    reader.say("SUBSCRIBE\nid:0\ndestination:/topic/t\n\n");
    publisher.say(&format!("SEND\ndestination:/topic/t\n\n{}", "x".repeat(20_000)));
    let waker = Waker::noop();
    assert!(publisher.session.is_congested(waker) && !reader.session.is_congested(waker));
    reader.hear();
    assert!(!publisher.session.is_congested(waker));
}

#[test]
fn the_end_of_a_session_undoes_what_it_did() {
    let house = House::new();
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:0\ndestination:/topic/t\n\n");
    client.say("SUBSCRIBE\nid:1\ndestination:/topic/t\nack:client\n\n");
    client.say("SUBSCRIBE\nid:2\ndestination:/procedure/p\n\n");
    client.say("SUBSCRIBE\nid:3\ndestination:/queue/q\n\n");
    client.say("SEND\ndestination:/topic/u\nreply-to:/temp-queue/x\n\n");
    client.say("DISCONNECT\n\n");
    assert_eq!((house.realm.topics().len(), house.realm.queues().len()), (0, 0));
    assert_eq!((house.realm.calls().registrations(), house.realm.sessions()), (0, 0));
}

// ------------------------------------------------------------------------------------------- persistence

const PERSISTENT: &str = "SEND\ndestination:/queue/q\npersistent:true\n";

#[test]
fn p1_a_receipt_for_what_is_kept_comes_when_the_store_has_it_and_others_at_once() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    let (mut client, mut worker) = (house.connect("1.2"), house.connect("1.2"));
    worker.say("SUBSCRIBE\nid:1\ndestination:/queue/q\nack:client\n\n");
    client.say(&format!("{PERSISTENT}receipt:1\n\nkept"));
    client.say("SEND\ndestination:/queue/q\nreceipt:2\n\nnot kept");
    client.receipt("2");
    assert!(client.hear().is_empty() && worker.hear().is_empty());
    store.sync();
    client.receipt("1");
    let message = worker.expect(Command::Message, &[("persistent", "true")]);
    worker.expect(Command::Message, &[]);
    let ack = format!("ACK\nid:{}\nreceipt:a\n\n", header(&message, "ack"));
    worker.say(&ack);
    assert!(worker.hear().is_empty());
    store.sync();
    worker.receipt("a");
    assert_eq!(store.recovered()[0].messages.len(), 0);
}

#[test]
fn p1_what_a_topic_is_to_keep_gets_its_receipt_when_the_store_has_it() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    let (mut client, mut worker) = (house.connect("1.2"), house.connect("1.2"));
    worker.say("SUBSCRIBE\nid:1\ndestination:/topic/t\n\n");
    client.say("SEND\ndestination:/topic/t\nretain:set\npersistent:true\nreceipt:1\n\nkept");
    client.say("SEND\ndestination:/topic/t\npersistent:true\nreceipt:2\n\nnot kept");
    client.receipt("2");
    assert!(client.hear().is_empty());
    assert_eq!(worker.bodies(), ["kept", "not kept"], "topics do not wait");
    store.sync();
    client.receipt("1");
    client.say("SEND\ndestination:/topic/t\nretain:remove\nreceipt:3\n\n");
    client.say("DISCONNECT\nreceipt:4\n\n");
    assert!(client.hear().is_empty());
    store.sync();
    ["3", "4"].into_iter().for_each(|receipt| client.receipt(receipt));
    let set = "SEND\ndestination:/topic/t\nretain:set\npersistent:true\nreceipt:5\n\n";
    store.set_nearly_full(true);
    let error = house.connect("1.2").refused(set, "Not stored");
    assert_eq!(header(&error, "receipt-id"), "5");
    store.set_nearly_full(false);
    let mut client = house.connect("1.2");
    client.say(set);
    store.fail_next_sync();
    store.sync();
    client.expect(Command::Error, &[("message", "Not stored"), ("receipt-id", "5")]);
}

#[test]
fn p2_the_receipts_of_a_transaction_come_when_the_store_has_all_of_it() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    let mut client = house.connect("1.2");
    client.say("BEGIN\ntransaction:t\n\n");
    client.say("SEND\ndestination:/queue/other\ntransaction:t\nreceipt:1\n\n");
    client.say(&format!("{PERSISTENT}transaction:t\nreceipt:2\n\n"));
    client.say("COMMIT\ntransaction:t\nreceipt:3\n\n");
    assert!(client.hear().is_empty());
    store.sync();
    ["1", "2", "3"].into_iter().for_each(|receipt| client.receipt(receipt));
}

#[test]
fn p3_what_is_not_taken_is_an_error_with_the_receipt_id() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    store.set_nearly_full(true);
    let error = house.connect("1.2").refused(&format!("{PERSISTENT}receipt:1\n\n"), "Not stored");
    assert_eq!(header(&error, "receipt-id"), "1");
    store.set_nearly_full(false);
    let (mut first, mut second) = (house.connect("1.2"), house.connect("1.2"));
    let mut bystander = house.connect("1.2");
    first.say(&format!("{PERSISTENT}receipt:7\n\n"));
    second.say(&format!("{PERSISTENT}\n"));
    store.fail_next_sync();
    store.sync();
    let error = first.expect(Command::Error, &[("message", "Not stored"), ("receipt-id", "7")]);
    assert!(String::from_utf8_lossy(&error.body).contains("failed"), "{error:?}");
    second.expect(Command::Error, &[("message", "Not stored")]);
    assert_eq!((first.reason(), second.reason()), (Some(Reason::Refused), Some(Reason::Refused)));
    bystander.say("SEND\ndestination:/queue/q\nreceipt:1\n\n");
    bystander.receipt("1");
}

#[test]
fn p4_a_disconnect_with_a_receipt_waits_for_all_that_was_sent() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    let mut client = house.connect("1.2");
    client.say(&format!("{PERSISTENT}\n"));
    client.say(&format!("{PERSISTENT}receipt:1\n\n"));
    client.say("SUBSCRIBE\nid:1\ndestination:/queue/q\n\n");
    client.say("DISCONNECT\nreceipt:bye\n\n");
    assert!(client.hear().is_empty() && client.close.is_none());
    store.sync();
    client.receipt("1");
    client.receipt("bye");
    assert_eq!((client.reason(), client.hear().len()), (Some(Reason::Done), 0));
    drop(client);
    store.sync();
    assert_eq!(store.recovered()[0].messages.len(), 2, "who has left gets nothing");
    let mut brief = house.connect("1.2");
    brief.say("DISCONNECT\nreceipt:bye\n\n");
    brief.receipt("bye");
}

#[test]
fn p5_a_receipt_for_what_is_kept_comes_before_the_message_that_its_frame_causes() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone(), LIMITS);
    let mut client = house.connect("1.2");
    client.say("SUBSCRIBE\nid:1\ndestination:/queue/q\n\n");
    client.say(&format!("{PERSISTENT}receipt:1\n\n"));
    store.sync();
    client.receipt("1");
    client.expect(Command::Message, &[]);
}

#[test]
fn p6_only_so_many_receipts_may_wait_for_the_store() {
    let queues =
        QueueLimits { queues_max: 9, messages_max: 1 << 20, bytes_max: 1 << 30, total_bytes_max: 1 << 30 };
    let house = House::with_store(SimulatedStore::new(), RealmLimits { queues, ..LIMITS });
    let mut client = house.connect("1.2");
    let frame = format!("{PERSISTENT}receipt:r\n\n\0");
    let hundred = frame.repeat(100);
    (0..1000).for_each(|_| client.send(hundred.as_bytes()));
    assert!(client.hear().is_empty() && client.close.is_none());
    client.refused(frame.trim_end_matches('\0'), "Limit reached");
}

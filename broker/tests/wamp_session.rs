//! WAMP sessions face to face.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod wamp_harness;

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use tandem_broker::core::message::{Frame, Kind};
use tandem_broker::core::name::Name;
use tandem_broker::core::parcel::{Farewell, Parcel};
use tandem_broker::core::protocol::{Output, Protocol, Reason};
use tandem_broker::core::realm::{Outgoing, RealmLimits};
use tandem_protocols::payload::{Body, Content, Encoding, Format, Limits, Payload, Shape, transcode};
use tandem_protocols::wamp::codec::{decode, subprotocol};

use wamp_harness::*;

#[path = "wamp_session/authorization.rs"]
mod authorization;
#[path = "wamp_session/batched.rs"]
mod batched;
#[path = "wamp_session/login.rs"]
mod login;
#[path = "wamp_session/oversize.rs"]
mod oversize;
#[path = "wamp_session/rpc.rs"]
mod rpc;
#[path = "wamp_session/shards.rs"]
mod shards;

// ---- HELLO to GOODBYE ------------------------------------------------------------------------------------

#[test]
fn welcome_says_who_the_client_is_and_what_the_router_can_do() {
    for format in FORMATS {
        let house = House::new();
        let mut client = house.connect(format);
        assert!(!client.session.is_established());
        let welcome = client.ask(hello(json!({"roles": {"caller": {}, "publisher": {}}})));
        assert!(client.session.is_established());
        let id = welcome[1].as_u64().unwrap();
        assert!((1..=1 << 53).contains(&id));
        assert_eq!(
            welcome[2],
            json!({
                "realm": "realm1", "authid": "guest", "authrole": "anonymous", "authmethod": "anonymous",
                "authprovider": "static", "agent": "tandem/test",
                "roles": {
                    "broker": {"features": {"subscriber_blackwhite_listing": true, "publisher_exclusion": true, "publisher_identification": true, "publication_trustlevels": true, "event_retention": true, "pattern_based_subscription": true, "sharded_subscription": true, "payload_passthru_mode": true}},
                    "dealer": {"features": {"pattern_based_registration": true, "progressive_call_results": true,
                                            "progressive_call_invocations": true,
                                            "call_canceling": true, "call_timeout": true,
                                            "shared_registration": true, "sharded_registration": true, "caller_identification": true, "call_trustlevels": true,
                                            "registration_revocation": true, "call_reroute": true,
                                            "testament_meta_api": true, "payload_passthru_mode": true}},
                },
            })
        );
        assert_eq!(house.realm.sessions(), 1);
    }
}

#[test]
fn goodbye_is_answered_and_ends_the_session() {
    let house = House::new();
    let mut client = house.join(Format::Json);
    assert_eq!(
        client.ask(json!([6, {}, "wamp.close.close_realm"])),
        json!([6, {}, "wamp.close.goodbye_and_out"])
    );
    assert_eq!(client.closed.as_ref().map(|close| close.reason), Some(Reason::Done));
    assert_eq!(house.realm.sessions(), 0);
}

#[test]
fn an_abort_of_the_peer_is_not_answered() {
    for joined in [false, true] {
        let house = House::new();
        let mut client = if joined { house.join(Format::Cbor) } else { house.connect(Format::Cbor) };
        client.say(json!([3, {}, "wamp.error.whatever"]));
        assert_eq!(client.try_hear(), None);
        assert_eq!(client.closed.as_ref().map(|close| close.reason), Some(Reason::Done));
        assert_eq!(house.realm.sessions(), 0);
    }
}

#[test]
fn hello_is_refused_for_its_realm_or_its_roles() {
    let roles = || json!({"roles": {"caller": {}}});
    for (message, uri, reason) in [
        (json!([1, "nowhere", roles()]), "wamp.error.no_such_realm", Reason::Refused),
        (json!([1, "", roles()]), "wamp.error.invalid_uri", Reason::Refused),
        (json!([1, "a b", roles()]), "wamp.error.invalid_uri", Reason::Refused),
        (json!([1, "a..b", roles()]), "wamp.error.invalid_uri", Reason::Refused),
        (hello(json!({})), VIOLATION, Reason::Violation),
        (hello(json!({"roles": {}})), VIOLATION, Reason::Violation),
        (hello(json!({"roles": {"king": {}}})), VIOLATION, Reason::Violation),
        (hello(json!({"roles": 1})), VIOLATION, Reason::Violation),
        (hello(json!({"roles": {"caller": {}}, "authmethods": "x"})), VIOLATION, Reason::Violation),
    ] {
        for format in FORMATS {
            let house = House::new();
            let mut client = house.connect(format);
            client.say(message.clone());
            client.is_aborted_with(uri, reason);
            assert_eq!(house.realm.sessions(), 0);
        }
    }
}

#[test]
fn a_realm_that_is_full_lets_nobody_in() {
    let house = House::with(RealmLimits { sessions_max: 1, ..limits() }, true);
    let _first = house.join(Format::Json);
    let mut second = house.connect(Format::Json);
    second.say(hello(json!({"roles": {"caller": {}}})));
    second.is_aborted_with("tandem.error.limit_reached", Reason::Refused);
}

#[test]
fn nothing_but_hello_comes_first_and_hello_comes_once() {
    for message in [
        json!([6, {}, "wamp.close.normal"]),
        json!([32, 1, {}, "a"]),
        json!([16, 1, {}, "a"]),
        json!([5, "secret", {}]),
        json!([2, 1, {"roles": {"broker": {}}}]),
        json!([4, "ticket", {}]),
    ] {
        let mut client = House::new().connect(Format::MsgPack);
        client.say(message);
        client.is_aborted();
    }
    let mut client = House::new().join(Format::MsgPack);
    client.say(hello(json!({"roles": {"caller": {}}})));
    client.is_aborted();
}

#[test]
fn what_only_a_router_says_is_a_violation() {
    for message in [
        json!([2, 1, {"roles": {"broker": {}}}]),
        json!([4, "ticket", {}]),
        json!([5, "secret", {}]),
        json!([17, 1, 1]),
        json!([33, 1, 1]),
        json!([35, 1]),
        json!([36, 1, 1, {}]),
        json!([50, 1, {}]),
        json!([65, 1, 1]),
        json!([67, 1]),
        json!([68, 1, 1, {}]),
        json!([69, 1, {}]),
        json!([8, 48, 1, {}, "a.b"]),
    ] {
        let house = House::new();
        let mut client = house.join(Format::Json);
        client.say(message.clone());
        client.is_aborted();
        assert_eq!(house.realm.sessions(), 0, "{message}");
    }
}

#[test]
fn what_is_no_message_is_a_violation() {
    let house = House::new();
    for bytes in ["", "{}", "[]", "[16", "[0]", "[999,1]", "[\"16\"]", "[16,0,{},\"a\"]", "[32,1,[],\"a\"]"] {
        for mut client in [house.connect(Format::Json), house.join(Format::Json)] {
            client.say_bytes(bytes.as_bytes().to_vec());
            client.is_aborted();
        }
    }
}

#[test]
fn a_serialization_keeps_to_its_kind_of_frames() {
    for (format, wrong) in
        [(Format::Json, Kind::Binary), (Format::MsgPack, Kind::Text), (Format::Cbor, Kind::Text)]
    {
        let mut client = House::new().connect(format);
        let bytes = client.encode(&hello(json!({"roles": {"caller": {}}})));
        client.session.receive(wrong, bytes.clone(), client.now);
        client.drain();
        client.is_aborted();
        // A wire without kinds is answered in kind.
        let mut client = House::new().connect(format);
        client.kind = Kind::Raw;
        client.say_bytes(bytes);
        assert_eq!(client.hear()[0], json!(2));
    }
}

#[test]
fn serializers_of_rawsocket_have_their_tokens() {
    let protocol = House::new().protocol;
    let tokens: Vec<_> = (0..5).map(|serializer| protocol.rawsocket(serializer)).collect();
    let [json, msgpack, cbor] = FORMATS.map(subprotocol).map(Some);
    assert_eq!(tokens, [None, json, msgpack, cbor, None]);
    let batched = FORMATS.map(tandem_protocols::wamp::batched::subprotocol);
    assert_eq!(protocol.tokens(), [FORMATS.map(subprotocol), batched].concat());
}

#[test]
fn a_ticket_is_asked_for_and_checked() {
    for format in FORMATS {
        let house = House::with(limits(), false);
        let details = json!({"roles": {"caller": {}}, "authmethods": ["wampcra", "ticket"], "authid": "joe"});
        let mut client = house.connect(format);
        assert_eq!(client.ask(hello(details.clone())), json!([4, "ticket", {}]));
        assert_eq!(house.realm.sessions(), 0);
        let welcome = client.ask(json!([5, "secret", {}]));
        assert_eq!((&welcome[0], &welcome[2]["authid"]), (&json!(2), &json!("joe")));
        assert_eq!((&welcome[2]["authmethod"], &welcome[2]["authrole"]), (&json!("ticket"), &json!("user")));

        let mut client = house.connect(format);
        client.ask(hello(details));
        client.say(json!([5, "wrong", {}]));
        client.is_aborted_with("wamp.error.authentication_denied", Reason::Refused);
    }
}

#[test]
fn authentication_methods_are_tried_in_the_clients_order() {
    let with = |methods: Value, authid: Option<&str>| {
        hello(json!({"roles": {"caller": {}}, "authmethods": methods, "authid": authid}))
    };
    let open = House::new();
    assert_eq!(
        open.connect(Format::Json).ask(with(json!(["anonymous", "ticket"]), Some("joe")))[0],
        json!(2)
    );
    assert_eq!(
        open.connect(Format::Json).ask(with(json!(["ticket", "anonymous"]), Some("joe")))[0],
        json!(4)
    );
    assert_eq!(open.connect(Format::Json).ask(with(json!(["ticket", "anonymous"]), None))[0], json!(2));
    assert_eq!(open.connect(Format::Json).ask(with(json!([]), None))[0], json!(2));
    assert_eq!(open.connect(Format::Json).ask(with(Value::Null, None))[0], json!(2));
    let strict = House::with(limits(), false);
    for (methods, authid, uri) in [
        (Value::Null, None, "wamp.error.authentication_required"),
        (json!(["anonymous"]), None, "wamp.error.authentication_required"),
        (json!(["ticket"]), None, "wamp.error.authentication_required"),
        (json!(["ticket"]), Some(""), "wamp.error.authentication_required"),
        (json!(["wampcra", "scram"]), Some("joe"), "wamp.error.no_matching_auth_method"),
    ] {
        let mut client = strict.connect(Format::Json);
        client.say(with(methods, authid));
        client.is_aborted_with(uri, Reason::Refused);
    }
    assert_eq!(
        strict.connect(Format::Json).ask(with(json!(["anonymous", "ticket"]), Some("joe")))[0],
        json!(4)
    );
}

#[test]
fn a_challenge_is_answered_by_authenticate_and_in_time() {
    let house = House::with(limits(), false);
    let challenge = || {
        let mut client = house.connect(Format::Json);
        client.ask(hello(json!({"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": "joe"})));
        client
    };
    for message in [hello(json!({"roles": {"caller": {}}})), json!([16, 1, {}, "a"]), json!([6, {}, "a.b"])] {
        let mut client = challenge();
        client.say(message);
        client.is_aborted();
    }
    let mut client = challenge();
    let deadline = client.session.deadline().unwrap();
    client.session.tick(deadline - Duration::from_millis(1));
    client.drain();
    client.hears_nothing();
    client.session.tick(deadline);
    client.drain();
    client.is_aborted_with("wamp.close.timeout", Reason::Silent);
}

#[test]
fn nothing_is_said_while_a_ticket_is_checked() {
    let house = House::with(limits(), false);
    let mut client = house.connect(Format::Json);
    client.ask(hello(json!({"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": "joe"})));
    for message in [json!([5, "secret", {}]), json!([16, 1, {}, "a"])] {
        let bytes = client.encode(&message);
        client.session.receive(Kind::Text, bytes, client.now);
    }
    assert!(matches!(client.session.poll(), Some(Output::Authenticate(_))));
    client.drain();
    client.is_aborted();
}

#[test]
fn a_router_that_shuts_down_says_goodbye_and_serves_no_more() {
    let house = House::new();
    let mut client = house.join(Format::Json);
    client.subscribe("a", "exact");
    house.realm.say_farewell(Farewell::Shutdown);
    assert_eq!(client.hear(), json!([6, {}, "wamp.close.system_shutdown"]));
    assert_eq!((house.realm.sessions(), house.realm.topics().len()), (0, 0));
    for message in [json!([32, 1, {}, "a"]), hello(json!({})), json!([17, 1, 1])] {
        client.say(message);
    }
    client.say_bytes(&b"nonsense"[..]);
    client.hears_nothing();
    // The answer to our GOODBYE is not answered.
    client.say(json!([6, {}, "wamp.close.goodbye_and_out"]));
    assert_eq!(client.try_hear(), None);
    assert_eq!(client.closed.as_ref().map(|close| close.reason), Some(Reason::Shutdown));
}

#[test]
fn a_goodbye_that_is_not_answered_is_not_waited_for_long() {
    let house = House::new();
    let mut client = house.join(Format::Json);
    assert_eq!(client.session.deadline(), None);
    house.realm.say_farewell(Farewell::Shutdown);
    client.hear();
    let deadline = client.session.deadline().unwrap();
    assert_eq!(deadline, client.now + Duration::from_secs(1));
    client.session.tick(deadline);
    client.drain();
    assert_eq!(client.closed.as_ref().map(|close| close.reason), Some(Reason::Shutdown));
}

#[test]
fn a_stranger_is_told_of_the_shutdown_too() {
    let mut client = House::new().connect(Format::Json);
    client.mailbox.push(Parcel::Farewell(Farewell::Shutdown));
    client.take_in();
    client.is_aborted_with("wamp.close.system_shutdown", Reason::Shutdown);
}

#[test]
fn a_slow_consumer_is_told_why_it_is_sent_away() {
    let house = House::new();
    let mut slow = house.join(Format::Json);
    slow.subscribe("a", "exact");
    slow.mailbox.overflow();
    let goodbye = slow.hear();
    assert_eq!((&goodbye[0], &goodbye[2]), (&json!(6), &json!("tandem.close.slow_consumer")));
    assert_eq!(slow.closed.as_ref().map(|close| close.reason), Some(Reason::SlowConsumer));
    assert_eq!((house.realm.sessions(), house.realm.topics().len()), (0, 0));
}

#[test]
fn a_wire_that_fails_is_told_in_wamp() {
    for joined in [false, true] {
        let house = House::new();
        let mut client = if joined { house.join(Format::Json) } else { house.connect(Format::Json) };
        client.session.fail("bad frame", client.now);
        client.drain();
        assert_eq!(client.hear(), json!([3, {"message": "bad frame"}, VIOLATION]));
        assert_eq!((house.realm.sessions(), client.closed.is_none()), (0, true));
    }
}

// ---- PUBLISH and SUBSCRIBE -------------------------------------------------------------------------------

#[test]
fn an_event_reaches_every_serialization() {
    for from in FORMATS {
        for to in FORMATS {
            let house = House::new();
            let (mut publisher, mut subscriber) = (house.join(from), house.join(to));
            let subscription = subscriber.subscribe("com.a", "exact");
            let args = json!(["x", 1, -1.5, null, [true], {"k": "\u{e4}"}]);
            publisher.say(json!([16, 1, {}, "com.a", args, {"k": [2]}]));
            publisher.hears_nothing();
            let event = subscriber.hear();
            assert_eq!(event, json!([36, subscription, event[2], {}, args, {"k": [2]}]));
            publisher.say(json!([16, 2, {}, "com.a"]));
            let event = subscriber.hear();
            assert_eq!(event, json!([36, subscription, event[2], {}]));
        }
    }
}

#[test]
fn bytes_keep_their_meaning_between_serializations() {
    let house = House::new();
    let (mut json, mut cbor) = (house.join(Format::Json), house.join(Format::Cbor));
    json.subscribe("a", "exact");
    cbor.say_bytes([&[0x85, 16, 1, 0xa0, 0x61, b'a', 0x81, 0x43][..], &[1, 2, 3]].concat());
    assert_eq!(json.hear()[4], json!(["\u{0}AQID"]));
}

#[test]
fn patterns_match_as_their_policy_says_and_events_of_patterns_say_their_topic() {
    let house = House::new();
    let (mut publisher, mut subscriber) = (house.join(Format::Json), house.join(Format::MsgPack));
    let exact = subscriber.subscribe("a.b.c", "exact");
    let all = subscriber.subscribe("", "prefix");
    let prefix = subscriber.subscribe("a.b.c", "prefix");
    let wildcard = subscriber.subscribe("a..c", "wildcard");
    assert_eq!(std::collections::HashSet::from([exact, all, prefix, wildcard]).len(), 4);
    let mut events_of = |topic: &str| {
        publisher.say(json!([16, 1, {}, topic]));
        let mut events = Vec::new();
        while let Some(event) = subscriber.try_hear() {
            let expected = if event[1] == json!(exact) { Value::Null } else { json!(topic) };
            assert_eq!(event[3]["topic"], expected);
            events.push(event[1].as_u64().unwrap());
        }
        events
    };
    assert_eq!(events_of("a.b.c"), [exact, all, prefix, wildcard]);
    assert_eq!(events_of("a.b.cd"), [all, prefix]);
    assert_eq!(events_of("a.x.c"), [all, wildcard]);
    assert_eq!(events_of("a.b.c.d"), [all, prefix]);
    assert_eq!(events_of("b"), [all]);
}

#[test]
fn subscribing_again_gives_the_same_subscription_and_no_second_event() {
    let house = House::new();
    let (mut publisher, mut first, mut second) =
        (house.join(Format::Json), house.join(Format::Json), house.join(Format::Cbor));
    let id = first.subscribe("a", "exact");
    assert_eq!((first.subscribe("a", "exact"), second.subscribe("a", "exact")), (id, id));
    let other = first.subscribe("a", "prefix");
    assert_ne!(other, id);
    first.say(json!([34, 9, other]));
    assert_eq!(first.hear(), json!([35, 9]));
    publisher.say(json!([16, 1, {}, "a"]));
    assert_eq!(first.hear()[0], json!(36));
    first.hears_nothing();
    // One UNSUBSCRIBE ends it, and an event that was on its way goes nowhere.
    publisher.say(json!([16, 2, {}, "a"]));
    let bytes = first.encode(&json!([34, 10, id]));
    first.session.receive(Kind::Text, bytes, first.now);
    first.drain();
    assert_eq!(first.hear(), json!([35, 10]));
    first.hears_nothing();
    assert_eq!((second.hear()[0].clone(), second.hear()[0].clone()), (json!(36), json!(36)));
}

#[test]
fn nobody_ends_a_subscription_that_is_not_theirs() {
    let house = House::new();
    let (mut owner, mut other) = (house.join(Format::Json), house.join(Format::Json));
    let id = owner.subscribe("a", "exact");
    for unknown in [id, id + 1] {
        let error = other.ask(json!([34, 3, unknown]));
        assert_eq!(error_of(&error), (34, 3, "wamp.error.no_such_subscription"));
    }
}

#[test]
fn a_publisher_gets_its_own_event_only_if_it_says_so() {
    let house = House::new();
    let mut client = house.join(Format::Json);
    let id = client.subscribe("com.myapp.topic1", "exact");
    client.say(json!([16, 789, {}, "com.myapp.topic1", [1]]));
    client.say(json!([16, 790, {"exclude_me": true}, "com.myapp.topic1", [2]]));
    client.hears_nothing();
    client.say(json!([16, 791, {"exclude_me": false, "acknowledge": true}, "com.myapp.topic1", [3]]));
    let published = client.hear();
    assert_eq!((&published[0], &published[1]), (&json!(17), &json!(791)));
    assert_eq!(client.hear(), json!([36, id, published[2], {}, [3]]));
}

#[test]
fn only_who_asks_is_told_what_became_of_a_publication() {
    let house = House::new();
    let (mut client, mut all) = (house.join(Format::Json), house.join(Format::Json));
    all.subscribe("", "prefix");
    for topic in ["", "a..b", "a b", "a#", ".", "wamp.a", "tandem.a"] {
        client.say(json!([16, 1, {}, topic]));
        client.hears_nothing();
        let error = client.ask(json!([16, 2, {"acknowledge": true}, topic]));
        assert_eq!(error_of(&error), (16, 2, "wamp.error.invalid_uri"), "{topic}");
    }
    all.hears_nothing();
    assert_eq!(client.ask(json!([16, 3, {"acknowledge": true}, "A-b.*"]))[0], json!(17));
}

#[test]
fn a_subscription_needs_a_uri_or_a_pattern() {
    let mut client = House::new().join(Format::Json);
    for (topic, policy) in [("", "exact"), ("a.", "exact"), ("a b", "prefix"), ("a#", "wildcard")] {
        let error = client.ask(json!([32, 1, {"match": policy}, topic]));
        assert_eq!(error_of(&error), (32, 1, "wamp.error.invalid_uri"));
    }
    for (topic, policy) in [("", "prefix"), ("a.", "prefix"), (".", "wildcard"), ("wamp.a", "exact")] {
        client.subscribe(topic, policy);
    }
}

#[test]
fn limits_of_the_realm_are_errors() {
    let house = House::with(RealmLimits { subscriptions_max: 1, registrations_max: 0, ..limits() }, true);
    let mut client = house.join(Format::Json);
    client.subscribe("a", "exact");
    let error = client.ask(json!([32, 1, {}, "b"]));
    assert_eq!(error_of(&error), (32, 1, "tandem.error.limit_reached"));
    let error = client.ask(json!([64, 1, {}, "b"]));
    assert_eq!(error_of(&error), (64, 1, "tandem.error.limit_reached"));
}

#[test]
fn a_known_option_of_a_wrong_type_is_a_violation_and_an_unknown_one_is_nothing() {
    for message in [
        json!([32, 1, {"match": "suffix"}, "a"]),
        json!([32, 1, {"match": 1}, "a"]),
        json!([16, 1, {"acknowledge": 1}, "a"]),
        json!([16, 1, {"exclude_me": "no"}, "a"]),
        json!([16, 1, {"x_headers": {"a": 1}}, "a"]),
        json!([48, 1, {"timeout": -1}, "a"]),
        json!([64, 1, {"invoke": "all"}, "a"]),
        json!([49, 1, {"mode": "gently"}]),
    ] {
        let mut client = House::new().join(Format::Cbor);
        client.say(message);
        client.is_aborted();
    }
    let mut client = House::new().join(Format::Cbor);
    let options = json!({"match": null, "get_retained": null, "whatever": {"a": [1]}});
    assert_eq!(client.ask(json!([32, 1, options, "a"]))[0], json!(33));
    assert_eq!(client.ask(json!([16, 1, {"acknowledge": true, "disclose_me": true}, "a"]))[0], json!(17));
}

#[test]
fn numbers_as_javascript_writes_them_are_understood() {
    let house = House::new();
    // UNSUBSCRIBE with the subscription as a double, and SUBSCRIBE with an undefined option.
    let mut client = house.join(Format::MsgPack);
    client.say_bytes(vec![0x94, 32, 1, 0x81, 0xa5, b'm', b'a', b't', b'c', b'h', 0xd4, 0, 0, 0xa1, b'a']);
    let id = client.hear()[2].as_u64().unwrap();
    client.say_bytes([&[0x93, 34, 2, 0xcb][..], &(id as f64).to_be_bytes()].concat());
    assert_eq!(client.hear(), json!([35, 2]));
    let mut client = house.join(Format::Cbor);
    client.say_bytes(vec![0x84, 0x18, 32, 1, 0xa1, 0x65, b'm', b'a', b't', b'c', b'h', 0xf7, 0x61, b'a']);
    let id = client.hear()[2].as_u64().unwrap();
    client.say_bytes([&[0x83, 0x18, 34, 2, 0xfb][..], &(id as f64).to_be_bytes()].concat());
    assert_eq!(client.hear(), json!([35, 2]));
}

#[test]
fn request_ids_need_not_be_in_order() {
    let mut client = House::new().join(Format::Json);
    for request in [9_007_199_254_740_992_u64, 5, 77, 5] {
        let subscribed = client.ask(json!([32, request, {}, format!("t{request}")]));
        assert_eq!(subscribed[1], json!(request));
    }
}

#[test]
fn a_strict_router_wants_requests_in_order_and_uris_in_lower_case() {
    let house = House::strict();
    let mut callee = house.join(Format::Json);
    assert_eq!(callee.ask(json!([64, 1, {}, "a.p"])), json!([65, 1, 1]));
    assert_eq!(error_of(&callee.ask(json!([64, 2, {}, "A.p"]))).2, "wamp.error.invalid_uri");
    assert_eq!(callee.ask(json!([64, 3, {"match": "prefix"}, "a."]))[0], json!(65));

    let mut client = house.connect(Format::Json);
    let caller = json!({"caller": {"features": {"progressive_call_invocations": true}}});
    client.say(hello(json!({"roles": caller})));
    assert_eq!(client.hear()[0], json!(2));
    assert_eq!(error_of(&client.ask(json!([32, 1, {}, "a-b"]))), (32, 1, "wamp.error.invalid_uri"));
    assert_eq!(error_of(&client.ask(json!([48, 2, {}, "a.\u{e4}"]))).2, "wamp.error.invalid_uri");
    client.say(json!([16, 3, {}, "A"]));
    client.say(json!([48, 4, {}, "a.p"]));
    let invocation = callee.hear();
    callee.say(json!([70, invocation[1], {}]));
    assert_eq!(client.hear(), json!([50, 4, {}]));
    // What comes late for a call that ended is for nobody, and a number is not used twice.
    client.say(json!([48, 4, {}, "a.p"]));
    client.hears_nothing();
    callee.hears_nothing();
    client.say(json!([48, 6, {}, "a.p"]));
    client.is_aborted();
    callee.hears_nothing();

    let mut other = house.join(Format::Cbor);
    other.say(json!([32, 2, {}, "a"]));
    other.is_aborted();
}

#[test]
fn what_hides_a_payload_travels_with_it() {
    let house = House::new();
    let (mut publisher, mut json, mut cbor) =
        (house.join(Format::MsgPack), house.join(Format::Json), house.join(Format::Cbor));
    for subscriber in [&mut json, &mut cbor] {
        subscriber.subscribe("a", "exact");
    }
    let ppt = json!({"ppt_scheme": "x_s", "ppt_serializer": "cbor", "ppt_cipher": "c", "ppt_keyid": "k"});
    publisher.say(json!([16, 1, ppt, "a", ["\u{0}AQID"]]));
    publisher.say(json!([16, 2, {"enc_algo": "cryptobox", "enc_key": "k"}, "a", "\u{0}AQID"]));
    for subscriber in [&mut json, &mut cbor] {
        let event = subscriber.hear();
        assert_eq!((&event[3], &event[4]), (&ppt, &json!(["\u{0}AQID"])));
        let event = subscriber.hear();
        assert_eq!(event[3], json!({"enc_algo": "cryptobox", "enc_key": "k"}));
        assert_eq!(event[4], json!("\u{0}AQID"));
    }
}

#[test]
fn headers_of_other_languages_come_as_x_headers_and_go_as_such() {
    let house = House::new();
    let (foreigner, _inbox) = house.foreigner();
    let mut client = house.join(Format::Json);
    client.subscribe("a", "exact");
    let body = Body {
        content_type: Some("text/plain".into()),
        encoding: Encoding::Text,
        shape: Shape::Value,
        bytes: Bytes::from_static(b"hi"),
    };
    let outgoing = Outgoing {
        name: Name::parse("a").unwrap(),
        payload: Payload::new(Content::Body(body)),
        attributes: [("priority", "4"), ("priority", "5"), ("k", "v")].into_iter().collect(),
    };
    foreigner.publish(outgoing, true).unwrap();
    let event = client.hear();
    assert_eq!((&event[3], &event[4]), (&json!({"x_headers": {"priority": "4", "k": "v"}}), &json!(["hi"])));
    client.say(json!([16, 1, {"exclude_me": false, "x_headers": {"k": "w"}}, "a"]));
    assert_eq!(client.hear()[3], json!({"x_headers": {"k": "w"}}));
}

#[test]
fn an_event_is_encoded_once_for_all_who_read_it_alike() {
    let house = House::new();
    let mut publisher = house.join(Format::Json);
    let mut subscribers: Vec<_> =
        [Format::Json, Format::Json, Format::Cbor, Format::Json].map(|format| house.join(format)).into();
    for (place, subscriber) in subscribers.iter_mut().enumerate() {
        subscriber.subscribe("a", if place == 3 { "prefix" } else { "exact" });
    }
    publisher.say(json!([16, 1, {}, "a", ["x"]]));
    let frames: Vec<_> = subscribers.iter_mut().map(|client| client.hear_frame().unwrap()).collect();
    let shared = |frame: &Frame| match frame {
        Frame::Shared(shared) => Arc::as_ptr(shared),
        Frame::Own(_) => panic!("an event is shared"),
    };
    assert_eq!(shared(&frames[0]), shared(&frames[1]));
    assert_ne!(shared(&frames[0]), shared(&frames[2]));
    assert_ne!(shared(&frames[0]), shared(&frames[3]));
}

#[test]
fn who_cannot_read_an_event_misses_only_that() {
    let house = House::new();
    let (mut publisher, mut json, mut cbor) =
        (house.join(Format::Cbor), house.join(Format::Json), house.join(Format::Cbor));
    for subscriber in [&mut json, &mut cbor] {
        subscriber.subscribe("a", "exact");
    }
    // A map whose key is a list has no form in JSON.
    publisher.say_bytes(vec![0x85, 16, 1, 0xa0, 0x61, b'a', 0x81, 0xa1, 0x81, 0x01, 0x02]);
    publisher.say(json!([16, 2, {}, "a", ["next"]]));
    assert_eq!(json.hear()[4], json!(["next"]));
    json.hears_nothing();
    assert!(cbor.hear_frame().is_some() && cbor.hear_frame().is_some());
}

#[test]
fn a_congested_realm_stops_those_who_publish_and_nobody_else() {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nobody));
    let house = House::with(RealmLimits { in_flight_bytes_max: 1000, ..limits() }, true);
    let (mut publisher, mut subscriber) = (house.join(Format::Json), house.join(Format::Json));
    subscriber.subscribe("a", "exact");
    publisher.say(json!([16, 1, {}, "a", ["x".repeat(2000)]]));
    assert!(publisher.session.is_congested(&waker));
    assert!(!subscriber.session.is_congested(&waker));
    subscriber.hear();
    assert!(!publisher.session.is_congested(&waker));
}

// ---- calls -----------------------------------------------------------------------------------------------

#[test]
fn a_call_reaches_its_callee_and_comes_back() {
    for from in FORMATS {
        for to in FORMATS {
            let house = House::new();
            let (mut caller, mut callee) = (house.join(from), house.join(to));
            let registration = callee.register("com.add", "exact");
            caller.say(json!([48, 5, {"ppt_scheme": "x_s"}, "com.add", [1, 2], {"k": "v"}]));
            let details = json!({"ppt_scheme": "x_s"});
            assert_eq!(callee.hear(), json!([68, 1, registration, details, [1, 2], {"k": "v"}]));
            callee.say(json!([70, 1, {"x_headers": {"a": "b"}}, [3], {"sum": 3}]));
            assert_eq!(caller.hear(), json!([50, 5, {"x_headers": {"a": "b"}}, [3], {"sum": 3}]));
            caller.say(json!([48, 6, {}, "com.add"]));
            assert_eq!(callee.hear(), json!([68, 2, registration, {}]));
            callee.say(json!([8, 68, 2, {"other": 1}, "com.error.bad", ["why"], {"n": 1}]));
            assert_eq!(caller.hear(), json!([8, 48, 6, {}, "com.error.bad", ["why"], {"n": 1}]));
        }
    }
}

#[test]
fn the_best_registration_is_called_and_a_pattern_is_told_the_procedure() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::MsgPack));
    let exact = callee.register("a.b.c", "exact");
    let short = callee.register("a", "prefix");
    let long = callee.register("a.b", "prefix");
    let wildcard = callee.register("x..z", "wildcard");
    for (procedure, registration) in [("a.b.c", exact), ("a.b.d", long), ("a.c", short), ("x.y.z", wildcard)]
    {
        caller.say(json!([48, 1, {}, procedure]));
        let invocation = callee.hear();
        assert_eq!(invocation[2], json!(registration));
        let told = if registration == exact { Value::Null } else { json!(procedure) };
        assert_eq!(invocation[3]["procedure"], told);
        callee.say(json!([70, invocation[1], {}]));
        assert_eq!(caller.hear(), json!([50, 1, {}]));
    }
}

#[test]
fn calls_that_nobody_can_answer_fail() {
    let mut caller = House::new().join(Format::Json);
    for (procedure, uri) in [
        ("a.b", "wamp.error.no_such_procedure"),
        ("wamp.session.nothing", "wamp.error.no_such_procedure"),
        ("tandem.queue.nothing", "wamp.error.no_such_procedure"),
        ("a..b", "wamp.error.invalid_uri"),
        ("", "wamp.error.invalid_uri"),
    ] {
        assert_eq!(error_of(&caller.ask(json!([48, 1, {}, procedure]))), (48, 1, uri));
    }
}

#[test]
fn a_callee_that_takes_no_more_is_unavailable() {
    let mut house = House::new();
    house.bounds.bytes_soft_max = 10;
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    let error = caller.ask(json!([48, 1, {}, "a"]));
    assert_eq!(error_of(&error), (48, 1, "wamp.error.unavailable"));
}

#[test]
fn a_procedure_is_registered_once_and_ended_by_its_owner() {
    let house = House::new();
    let (mut first, mut second) = (house.join(Format::Json), house.join(Format::Cbor));
    let id = first.register("a", "exact");
    for client in [&mut first, &mut second] {
        let error = client.ask(json!([64, 3, {}, "a"]));
        assert_eq!(error_of(&error), (64, 3, "wamp.error.procedure_already_exists"));
    }
    second.register("a", "prefix");
    let error = second.ask(json!([66, 4, id]));
    assert_eq!(error_of(&error), (66, 4, "wamp.error.no_such_registration"));
    assert_eq!(first.ask(json!([66, 5, id])), json!([67, 5]));
    let error = first.ask(json!([66, 6, id]));
    assert_eq!(error_of(&error), (66, 6, "wamp.error.no_such_registration"));
}

#[test]
fn what_cannot_be_registered_is_refused() {
    let mut client = House::new().join(Format::Json);
    for (procedure, policy) in [
        ("", "exact"),
        ("a.", "exact"),
        ("a b", "prefix"),
        ("wamp.a", "exact"),
        ("wamp.", "prefix"),
        ("wamp..a", "wildcard"),
        ("tandem.queue.send", "exact"),
        ("tandem.queue", "prefix"),
    ] {
        let error = client.ask(json!([64, 1, {"match": policy}, procedure]));
        assert_eq!(error_of(&error), (64, 1, "wamp.error.invalid_uri"), "{procedure}");
    }
    assert_eq!(client.ask(json!([64, 1, {"invoke": "single", "concurrency": 0}, "a"]))[0], json!(65));
}

#[test]
fn calls_under_way_outlive_their_registration() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    let id = callee.register("a", "exact");
    caller.say(json!([48, 1, {}, "a"]));
    assert_eq!(callee.hear()[0], json!(68));
    // This one the callee has not seen when it ends the registration, and never will.
    caller.say(json!([48, 2, {}, "a"]));
    let bytes = callee.encode(&json!([66, 2, id]));
    callee.session.receive(Kind::Text, bytes, callee.now);
    callee.drain();
    assert_eq!(callee.hear(), json!([67, 2]));
    callee.hears_nothing();
    let error = caller.hear();
    assert_eq!(error_of(&error), (48, 2, "wamp.error.no_such_procedure"));
    callee.say(json!([70, 1, {}, ["done"]]));
    assert_eq!(caller.hear(), json!([50, 1, {}, ["done"]]));
}

#[test]
fn nobody_answers_for_another() {
    let house = House::new();
    let (mut caller, mut callee, mut thief) =
        (house.join(Format::Json), house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    caller.say(json!([48, 1, {}, "a"]));
    assert_eq!(callee.hear()[1], json!(1));
    thief.say(json!([70, 1, {}, ["stolen"]]));
    thief.is_aborted();
    caller.hears_nothing();
    callee.say(json!([70, 1, {}, ["mine"]]));
    assert_eq!(caller.hear()[3], json!(["mine"]));
    // Answering twice is nothing; answering what never was is a violation.
    callee.say(json!([8, 68, 1, {}, "a.b"]));
    callee.hears_nothing();
    callee.say(json!([8, 68, 2, {}, "a.b"]));
    callee.is_aborted();
    caller.hears_nothing();
}

#[test]
fn part_of_a_result_is_not_taken_for_all_of_it() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    caller.say(json!([48, 1, {}, "a"]));
    callee.hear();
    callee.say(json!([70, 1, {"progress": true}, ["part"]]));
    caller.hears_nothing();
    callee.say(json!([70, 1, {}, ["all"]]));
    assert_eq!(caller.hear(), json!([50, 1, {}, ["all"]]));
}

#[test]
fn what_a_topic_keeps_reaches_whoever_asks_for_it_by_every_kind_of_pattern() {
    let house = House::new();
    let (mut publisher, mut late) = (house.join(Format::MsgPack), house.join(Format::Json));
    for (request, number) in [(1, "old"), (2, "new")] {
        publisher.say(json!([16, request, {"retain": true, "acknowledge": true}, "a.b.c", [number]]));
        publisher.hear();
    }
    for (request, (topic, policy)) in
        [("a.b.c", "exact"), ("a.b", "prefix"), ("a..c", "wildcard")].iter().enumerate()
    {
        let options = json!({"match": policy, "get_retained": true});
        let subscribed = late.ask(json!([32, request + 1, options, topic]));
        let event = late.hear();
        assert_eq!((&event[0], &event[1]), (&json!(36), &subscribed[2]));
        let topic = if *policy == "exact" { json!(null) } else { json!("a.b.c") };
        assert_eq!(
            (&event[3]["retained"], &event[3]["topic"], &event[4]),
            (&json!(true), &topic, &json!(["new"]))
        );
    }
    // Without asking there is nothing, and what is published now is not from before.
    late.ask(json!([32, 9, {}, "a.b.c"]));
    late.hears_nothing();
    publisher.say(json!([16, 3, {}, "a.b.c", ["now"]]));
    for _ in 0..3 {
        assert_eq!(late.hear()[3].get("retained"), None);
    }
}

#[test]
fn a_caller_that_takes_progress_gets_results_as_they_come() {
    for format in [Format::Json, Format::MsgPack, Format::Cbor] {
        let house = House::new();
        let (mut caller, mut callee) = (house.join(format), house.join(Format::Json));
        callee.register("a", "exact");
        caller.say(json!([48, 1, {"receive_progress": true}, "a"]));
        assert_eq!(callee.hear()[3], json!({"receive_progress": true}));
        callee.say(json!([70, 1, {"progress": true}, [1]]));
        callee.say(json!([70, 1, {"progress": true}, [2]]));
        callee.say(json!([70, 1, {}, [3]]));
        assert_eq!(caller.hear(), json!([50, 1, {"progress": true}, [1]]));
        assert_eq!(caller.hear(), json!([50, 1, {"progress": true}, [2]]));
        assert_eq!(caller.hear(), json!([50, 1, {}, [3]]));
        // After the last result there is no more.
        callee.say(json!([70, 1, {"progress": true}, [4]]));
        caller.hears_nothing();
    }
}

#[test]
fn progress_that_was_on_its_way_when_its_call_was_canceled_is_not_said() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    caller.say(json!([48, 1, {"receive_progress": true}, "a"]));
    callee.hear();
    callee.say(json!([70, 1, {"progress": true}, [1]]));
    let canceled = caller.ask(json!([49, 1, {}]));
    assert_eq!(canceled[4], "wamp.error.canceled");
    caller.hears_nothing();
}

#[test]
fn an_error_whose_name_is_no_uri_is_still_an_error() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    caller.say(json!([48, 1, {}, "a"]));
    callee.hear();
    callee.say(json!([8, 68, 1, {}, "not a uri", ["why"]]));
    assert_eq!(caller.hear(), json!([8, 48, 1, {}, "wamp.error.invalid_uri", ["why"]]));
}

#[test]
fn a_call_that_is_under_way_keeps_its_number() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    caller.say(json!([48, 1, {}, "a"]));
    callee.hear();
    callee.say(json!([70, 1, {}]));
    caller.hear();
    // Answered, it is free again.
    caller.say(json!([48, 1, {}, "a"]));
    caller.hears_nothing();
    caller.say(json!([48, 1, {}, "a"]));
    caller.is_aborted();
    for (first, second) in [
        (json!([48, 1, {}, "tandem.queue.receive", ["q"]]), json!([48, 1, {}, "a"])),
        (json!([48, 1, {}, "a"]), json!([48, 1, {}, "tandem.queue.receive", ["q"]])),
        (json!([48, 1, {}, "tandem.queue.receive", ["q"]]), json!([48, 1, {}, "tandem.queue.send", ["q"]])),
    ] {
        let mut caller = house.join(Format::Json);
        caller.say(first);
        caller.hears_nothing();
        caller.say(second);
        caller.is_aborted();
    }
}

#[test]
fn a_callee_that_leaves_cancels_its_calls() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    caller.say(json!([48, 1, {}, "a"]));
    callee.hear();
    callee.say(json!([6, {}, "wamp.close.close_realm"]));
    assert_eq!(error_of(&caller.hear()), (48, 1, "wamp.error.canceled"));
}

#[test]
fn a_callee_is_interrupted_if_it_can_be() {
    for can in [false, true] {
        let house = House::new();
        let mut caller = house.join(Format::Json);
        let mut callee = house.connect(Format::Json);
        callee.ask(hello(json!({"roles": {"callee": {"features": {"call_canceling": can}}}})));
        callee.register("a", "exact");
        for request in [1, 2] {
            caller.say(json!([48, request, {}, "a"]));
            callee.hear();
        }
        // By CANCEL, and by leaving.
        let error = caller.ask(json!([49, 1, {}]));
        assert_eq!(error_of(&error), (48, 1, "wamp.error.canceled"));
        caller.say(json!([49, 1, {}]));
        caller.say(json!([49, 99, {}]));
        caller.hears_nothing();
        drop(caller);
        if can {
            assert_eq!(callee.hear(), json!([69, 1, {"mode": "killnowait"}]));
            assert_eq!(callee.hear(), json!([69, 2, {"mode": "killnowait"}]));
        }
        callee.say(json!([70, 1, {}]));
        callee.say(json!([70, 2, {}]));
        callee.hears_nothing();
    }
}

#[test]
fn arguments_and_results_that_cannot_be_converted_are_errors() {
    let house = House::new();
    let (mut json, mut cbor) = (house.join(Format::Json), house.join(Format::Cbor));
    json.register("a", "exact");
    let id = cbor.register("b", "exact");
    // A map whose key is a list.
    let bad = [0x81, 0xa1, 0x81, 0x01, 0x02];
    cbor.say_bytes([&[0x85, 0x18, 48, 1, 0xa0, 0x61, b'a'][..], &bad].concat());
    json.hears_nothing();
    assert_eq!(error_of(&cbor.hear()), (48, 1, "wamp.error.invalid_argument"));
    json.say(json!([48, 1, {}, "b"]));
    assert_eq!(cbor.hear(), json!([68, 1, id, {}]));
    cbor.say_bytes([&[0x84, 0x18, 70, 1, 0xa0][..], &bad].concat());
    assert_eq!(error_of(&json.hear()), (48, 1, "wamp.error.invalid_payload"));
    json.say(json!([48, 2, {}, "b"]));
    cbor.hear();
    cbor.say_bytes([&[0x86, 8, 0x18, 68, 2, 0xa0, 0x63, b'a', b'.', b'b'][..], &bad].concat());
    assert_eq!(json.hear(), json!([8, 48, 2, {}, "a.b"]));
}

#[test]
fn calls_under_way_are_limited() {
    let house = House::new();
    let (mut caller, mut callee) = (house.join(Format::Json), house.join(Format::Json));
    callee.register("a", "exact");
    for request in 1..=4096 {
        caller.say(json!([48, request, {}, "a"]));
        callee.take_in();
    }
    caller.hears_nothing();
    let error = caller.ask(json!([48, 5000, {}, "a"]));
    assert_eq!(error_of(&error), (48, 5000, "tandem.error.limit_reached"));
    callee.say(json!([70, 1, {}]));
    assert_eq!(caller.hear(), json!([50, 1, {}]));
    caller.say(json!([48, 5000, {}, "a"]));
    caller.hears_nothing();
}

// ---- queues ----------------------------------------------------------------------------------------------

fn queue(request: u64, procedure: &str, args: Value) -> Value {
    json!([48, request, {}, format!("tandem.queue.{procedure}"), args])
}

#[test]
fn a_queue_keeps_a_message_until_it_is_acknowledged() {
    for from in FORMATS {
        for to in FORMATS {
            let house = House::new();
            let (mut sender, mut worker) = (house.join(from), house.join(to));
            let options = json!({"x_headers": {"k": "v"}});
            let send = json!([48, 1, options, "tandem.queue.send", ["q", "body", [1]], {"a": 1}]);
            let sent = sender.ask(send);
            assert_eq!((&sent[0], &sent[1]), (&json!(50), &json!(1)));
            assert!(sent[3][0].as_u64().is_some_and(|id| id > 0));
            let got = worker.ask(queue(1, "receive", json!(["q"])));
            let tag = got[3][0].clone();
            assert_eq!(got, json!([50, 1, options, [tag, 0, ["body", [1]], {"a": 1}]]));
            assert_eq!(worker.ask(queue(2, "ack", json!([tag]))), json!([50, 2, {}]));
            let error = worker.ask(queue(3, "ack", json!([tag])));
            assert_eq!(error_of(&error), (48, 3, "tandem.error.no_such_delivery"));
            assert_eq!(house.realm.queues().len(), 0);
        }
    }
}

#[test]
fn receiving_waits_for_the_next_message() {
    let house = House::new();
    let (mut sender, mut worker) = (house.join(Format::Json), house.join(Format::Cbor));
    worker.say(queue(1, "receive", json!(["q"])));
    worker.say(queue(2, "receive", json!(["q"])));
    worker.hears_nothing();
    for n in [1, 2, 3] {
        sender.ask(queue(n, "send", json!(["q", n])));
    }
    let (first, second) = (worker.hear(), worker.hear());
    assert_eq!((&first[1], &first[3][2]), (&json!(1), &json!([1])));
    assert_eq!((&second[1], &second[3][2]), (&json!(2), &json!([2])));
    // Who has one message gets no other for settling it.
    worker.ask(queue(3, "ack", json!([first[3][0]])));
    worker.hears_nothing();
    let third = worker.ask(queue(4, "receive", json!(["q"])));
    assert_eq!(third[3][2], json!([3]));
}

#[test]
fn a_message_that_is_refused_comes_again_or_goes_to_the_dead_letters() {
    let house = House::new();
    let mut client = house.join(Format::MsgPack);
    client.ask(queue(1, "send", json!(["q"])));
    let got = client.ask(queue(2, "receive", json!(["q"])));
    assert_eq!(got[3], json!([got[3][0], 0, [], {}]));
    assert_eq!(client.ask(queue(3, "nack", json!([got[3][0]]))), json!([50, 3, {}]));
    let again = client.ask(queue(4, "receive", json!(["q"])));
    assert_eq!(again[3][1], json!(1));
    assert_eq!(client.ask(queue(5, "nack", json!([again[3][0], false]))), json!([50, 5, {}]));
    let dead = client.ask(queue(6, "receive", json!(["dlq.q"])));
    assert_eq!(dead[3][1], json!(0));
    assert_eq!(client.ask(queue(7, "ack", json!([dead[3][0]]))), json!([50, 7, {}]));
    assert_eq!(house.realm.queues().len(), 0);
}

#[test]
fn what_a_session_holds_goes_back_when_it_ends() {
    let house = House::new();
    let (mut first, mut second) = (house.join(Format::Json), house.join(Format::Json));
    first.ask(queue(1, "send", json!(["q", "x"])));
    first.ask(queue(2, "receive", json!(["q"])));
    second.say(queue(1, "receive", json!(["q"])));
    second.hears_nothing();
    drop(first);
    assert_eq!(second.hear()[3][1], json!(1));
}

#[test]
fn receiving_can_be_canceled() {
    let house = House::new();
    let mut client = house.join(Format::Json);
    client.say(queue(1, "receive", json!(["q"])));
    assert_eq!(error_of(&client.ask(json!([49, 1, {}]))), (48, 1, "wamp.error.canceled"));
    assert_eq!(house.realm.queues().len(), 0);
    // The message is on its way when the call is canceled: it goes back.
    let (foreigner, _inbox) = house.foreigner();
    client.say(queue(2, "receive", json!(["q"])));
    let outgoing = Outgoing {
        name: Name::parse("q").unwrap(),
        payload: Payload::new(Content::Opaque(Bytes::from_static(&[1]))),
        attributes: Default::default(),
    };
    foreigner.send(outgoing).unwrap();
    let bytes = client.encode(&json!([49, 2, {}]));
    client.session.receive(Kind::Text, bytes, client.now);
    client.drain();
    assert_eq!(error_of(&client.hear()), (48, 2, "wamp.error.canceled"));
    client.hears_nothing();
    let got = client.ask(queue(3, "receive", json!(["q"])));
    assert_eq!((&got[3][1], &got[3][2]), (&json!(1), &json!("\u{0}AQ==")));
}

#[test]
fn a_message_that_cannot_be_read_stays_for_others() {
    let house = House::new();
    let (mut json, mut cbor) = (house.join(Format::Json), house.join(Format::Cbor));
    let mut send = vec![0x85, 0x18, 48, 1, 0xa0, 0x71];
    send.extend(b"tandem.queue.send");
    send.extend([0x82, 0x61, b'q', 0xa1, 0x81, 0x01, 0x02]);
    cbor.say_bytes(send);
    assert_eq!(cbor.hear()[0], json!(50));
    let error = json.ask(queue(1, "receive", json!(["q"])));
    assert_eq!(error_of(&error), (48, 1, "wamp.error.invalid_payload"));
    cbor.say(queue(2, "receive", json!(["q"])));
    assert!(cbor.hear_frame().is_some());
    json.hears_nothing();
}

#[test]
fn queue_procedures_say_what_is_wrong_with_their_arguments() {
    let house = House::new();
    let mut client = house.join(Format::Json);
    for (procedure, args, uri) in [
        ("send", json!([]), "wamp.error.invalid_argument"),
        ("send", json!([5]), "wamp.error.invalid_argument"),
        ("send", json!(["a b"]), "wamp.error.invalid_uri"),
        ("receive", json!([]), "wamp.error.invalid_argument"),
        ("receive", json!([""]), "wamp.error.invalid_uri"),
        ("ack", json!([]), "wamp.error.invalid_argument"),
        ("ack", json!(["x"]), "wamp.error.invalid_argument"),
        ("ack", json!([5]), "tandem.error.no_such_delivery"),
        ("nack", json!([5, 1]), "wamp.error.invalid_argument"),
    ] {
        let error = client.ask(queue(1, procedure, args));
        assert_eq!(error_of(&error), (48, 1, uri), "{procedure}");
    }
    for n in 1..=8 {
        client.say(queue(n, "receive", json!(["q"])));
    }
    let error = client.ask(queue(9, "receive", json!(["q"])));
    assert_eq!(error_of(&error), (48, 9, "tandem.error.limit_reached"));
    for n in 1..=8 {
        client.say(json!([49, n, {}]));
        client.hear();
    }
    for n in 1..=8 {
        client.ask(queue(n, "send", json!(["q"])));
    }
    let error = client.ask(queue(9, "send", json!(["q"])));
    assert_eq!(error_of(&error), (48, 9, "tandem.error.queue_full"));
}

// ---- anything at all -------------------------------------------------------------------------------------

/// A generator of numbers that need not be good, only the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

fn messages() -> Vec<Value> {
    vec![
        hello(json!({"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": "joe"})),
        hello(json!({"roles": {"caller": {}}})),
        json!([5, "secret", {}]),
        json!([6, {}, "wamp.close.normal"]),
        json!([3, {}, "a.b"]),
        json!([16, 1, {"acknowledge": true, "exclude_me": false, "x_headers": {"a": "b"}}, "a.b", [1], {"a": 2}]),
        json!([16, 2, {"ppt_scheme": "x_a"}, "a.b", ["\u{0}AQID"]]),
        json!([32, 3, {"match": "prefix"}, "a"]),
        json!([34, 4, 1]),
        json!([64, 5, {"match": "wildcard"}, "a..c"]),
        json!([64, 5, {}, "a.b"]),
        json!([66, 6, 1]),
        json!([48, 7, {}, "a.b", [1, [2, {"a": null}]], {"k": "v"}]),
        json!([49, 7, {"mode": "kill"}]),
        json!([70, 1, {}, [1]]),
        json!([8, 68, 1, {}, "a.b", ["x"]]),
        queue(8, "send", json!(["q", 1])),
        queue(9, "receive", json!(["q"])),
        queue(10, "ack", json!([1])),
        queue(11, "nack", json!([1, true])),
        json!([337, 1]),
    ]
}

#[test]
fn nothing_that_a_client_sends_breaks_the_router() {
    let mut chance = Chance(7);
    let messages = messages();
    for round in 0..4000 {
        let format = FORMATS[round % 3];
        let house = House::with(limits(), round % 2 == 0);
        let mut client = house.connect(format);
        if round % 4 < 2 {
            // Far more gets past the door than chance would let.
            let bytes = client.encode(&messages[round % 2]);
            client.say_bytes(bytes);
        }
        if round % 8 == 1 {
            client.say(json!([5, "secret", {}]));
        }
        for _ in 0..chance.below(12) {
            let mut bytes = client.encode(&messages[chance.below(messages.len())]).to_vec();
            if chance.below(3) == 0 {
                for _ in 0..=chance.below(3) {
                    let place = chance.below(bytes.len());
                    match chance.below(4) {
                        0 => bytes[place] = chance.below(256) as u8,
                        1 => bytes.insert(place, chance.below(256) as u8),
                        2 => bytes.truncate(place + 1),
                        _ => bytes[place] ^= 1 << chance.below(8),
                    }
                }
            }
            if chance.below(50) == 0 {
                house.realm.say_farewell(Farewell::Shutdown);
            }
            if client.closed.is_none() {
                client.say_bytes(bytes);
                client.take_in();
            }
        }
        let mut last = None;
        while let Some(frame) = client.said.pop_front() {
            let message = frame.message();
            assert_eq!(message.kind, client.kind);
            last = Some(decode(format, &message.head).expect("what the router says is WAMP"));
        }
        if client.closed.as_ref().is_some_and(|close| close.reason == Reason::Violation) {
            let Some(tandem_protocols::wamp::message::Message::Abort(abort)) = last else {
                panic!("a violation is answered by ABORT")
            };
            assert_eq!(abort.reason, VIOLATION);
        }
        drop(client);
        let (topics, calls) = (house.realm.topics().len(), house.realm.calls());
        assert_eq!((house.realm.sessions(), topics, calls.registrations(), calls.pending()), (0, 0, 0, 0));
    }
}

//! What WAMP's advanced profile adds to publishing and subscribing, face to face.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod wamp_harness;

use serde_json::{Value, json};

use tandem_broker::core::access::SessionId;
use tandem_broker::core::parcel::SubscriptionId;
use tandem_protocols::payload::Format;

use wamp_harness::*;

// ---- who gets an event -----------------------------------------------------------------------------------

/// Who of these hears of a publication to `a` with such options.
fn hearers(publisher: &mut Client, options: Value, clients: &mut [&mut Client]) -> Vec<usize> {
    publisher.say(json!([16, 1, options, "a"]));
    let hears =
        |client: &mut &mut Client| client.try_hear().inspect(|event| assert_eq!(event[0], 36)).is_some();
    let heard = clients.iter_mut().map(hears).enumerate();
    heard.filter_map(|(place, heard)| heard.then_some(place)).collect()
}

#[test]
fn a_publisher_says_who_gets_an_event_and_who_does_not() {
    for format in FORMATS {
        let house = House::new();
        let (mut joe, mut ann, mut root) =
            (house.login(format, "joe"), house.login(format, "ann"), house.login(format, "root"));
        let (joe_id, root_id) = (joe.id, root.id);
        let mut clients = [&mut joe, &mut ann, &mut root];
        for client in &mut clients {
            client.subscribe("a", "exact");
        }
        let mut publisher = house.join(format);
        for (options, expected) in [
            (json!({}), &[0, 1, 2][..]),
            (json!({"exclude": [joe_id, 77]}), &[1, 2]),
            (json!({"eligible": [joe_id, root_id]}), &[0, 2]),
            (json!({"exclude_authid": ["ann"]}), &[0, 2]),
            (json!({"eligible_authid": ["ann", "bob"]}), &[1]),
            (json!({"exclude_authrole": ["user"]}), &[2]),
            (json!({"eligible_authrole": ["user"]}), &[0, 1]),
            (json!({"eligible": []}), &[]),
            (json!({"eligible_authid": []}), &[]),
            (json!({"eligible_authrole": []}), &[]),
            (json!({"exclude": [], "exclude_authid": [], "exclude_authrole": []}), &[0, 1, 2]),
            (json!({"eligible_authrole": ["user"], "exclude_authid": ["ann"]}), &[0]),
            (json!({"eligible": [joe_id], "eligible_authrole": ["admin"]}), &[]),
            (json!({"eligible": [joe_id], "exclude": [joe_id]}), &[]),
            // As clients write numbers that are large, or nothing.
            (json!({"exclude": [joe_id as f64], "eligible": null}), &[1, 2]),
        ] {
            assert_eq!(hearers(&mut publisher, options.clone(), &mut clients), expected, "{options}");
        }
    }
}

#[test]
fn a_publisher_that_is_eligible_is_still_left_out_unless_it_says_so() {
    let house = House::new();
    let mut client = house.login(Format::Json, "joe");
    client.subscribe("a", "exact");
    client.say(json!([16, 1, {"eligible_authid": ["joe"]}, "a"]));
    client.hears_nothing();
    client.say(json!([16, 2, {"eligible_authid": ["joe"], "exclude_me": false}, "a"]));
    assert_eq!(client.hear()[0], json!(36));
    client.say(json!([16, 3, {"exclude_authid": ["joe"], "exclude_me": false}, "a"]));
    client.hears_nothing();
}

#[test]
fn what_a_topic_keeps_is_only_for_those_whom_it_was_published_to() {
    let house = House::new();
    let mut publisher = house.join(Format::Json);
    publisher.say(json!([16, 1, {"retain": true, "eligible_authrole": ["admin"]}, "a", [1]]));
    for (user, hears) in [("joe", false), ("root", true)] {
        let mut late = house.login(Format::Cbor, user);
        late.ask(json!([32, 1, {"get_retained": true}, "a"]));
        assert_eq!(late.try_hear().is_some(), hears, "{user}");
    }
}

#[test]
fn lists_of_a_wrong_type_are_a_violation() {
    for options in [
        json!({"exclude": ["x"]}),
        json!({"exclude": 1}),
        json!({"eligible": [-1]}),
        json!({"eligible": {}}),
        json!({"exclude_authid": [1]}),
        json!({"exclude_authrole": "x"}),
        json!({"eligible_authid": [null]}),
        json!({"eligible_authrole": [{}]}),
    ] {
        let mut client = House::new().join(Format::Json);
        client.say(json!([16, 1, options, "a"]));
        client.is_aborted();
    }
}

// ---- who published ---------------------------------------------------------------------------------------

#[test]
fn subscribers_are_told_who_published_if_the_publisher_says_so() {
    for format in FORMATS {
        let house = House::new();
        let (mut publisher, mut subscriber) = (house.login(format, "joe"), house.join(Format::Json));
        subscriber.subscribe("a", "prefix");
        for options in [json!({}), json!({"disclose_me": false}), json!({"disclose_me": null})] {
            publisher.say(json!([16, 1, options, "a"]));
            assert_eq!(subscriber.hear()[3], json!({"topic": "a"}));
        }
        publisher.say(json!([16, 2, {"disclose_me": true, "retain": true}, "a"]));
        let mut details = json!({
            "topic": "a", "publisher": publisher.id, "publisher_authid": "joe", "publisher_authrole": "user",
        });
        assert_eq!(subscriber.hear()[3], details);
        // The same for those who come later, when the publisher may be gone.
        drop(publisher);
        let mut late = house.join(format);
        late.ask(json!([32, 1, {"get_retained": true, "match": "prefix"}, "a"]));
        details["retained"] = json!(true);
        assert_eq!(late.hear()[3], details);
    }
}

#[test]
fn nobody_can_pose_as_another_publisher() {
    let house = House::new();
    let (mut publisher, mut subscriber) = (house.login(Format::Json, "joe"), house.join(Format::Json));
    subscriber.subscribe("a", "exact");
    let posing = json!({"publisher": 5, "publisher_authid": "root", "x_headers": {"publisher": "5"}});
    publisher.say(json!([16, 1, posing, "a"]));
    assert_eq!(subscriber.hear()[3], json!({"x_headers": {"publisher": "5"}}));
    publisher.say(json!([16, 2, {"disclose_me": "yes"}, "a"]));
    publisher.is_aborted();
}

// ---- payloads that the router does not read --------------------------------------------------------------

#[test]
fn what_hides_a_payload_passes_untouched_in_events_calls_and_results_also_if_it_is_not_text() {
    for (from, to) in FORMATS.iter().flat_map(|from| FORMATS.map(|to| (*from, to))) {
        let house = House::new();
        let (mut one, mut other) = (house.join(from), house.join(to));
        let options = json!({
            "ppt_scheme": "x_s", "ppt_cipher": "c", "ppt_hops": [1, -2, true, {"k": "v"}],
            "enc_algo": "cryptobox", "enc_key": "\u{0}AQID", "enc_n": 1,
        });
        let hidden = "\u{0}EOP/kFMHXFJvX8BtT+N82w==";
        other.subscribe("a", "exact");
        one.say(json!([16, 1, options, "a", [hidden]]));
        let event = other.hear();
        assert_eq!((&event[3], &event[4]), (&options, &json!([hidden])), "{from:?} {to:?}");
        other.register("p", "exact");
        one.say(json!([48, 2, options, "p", [hidden]]));
        let invocation = other.hear();
        assert_eq!((&invocation[3], &invocation[4]), (&options, &json!([hidden])));
        other.say(json!([70, invocation[1], options, [hidden]]));
        assert_eq!(one.hear(), json!([50, 2, options, [hidden]]));
        // The older form: bytes in the place of all arguments.
        one.say(json!([16, 3, {"enc_algo": "x_mine", "enc_key": "\u{0}/w=="}, "a", hidden]));
        let event = other.hear();
        assert_eq!((&event[3]["enc_key"], &event[4]), (&json!("\u{0}/w=="), &json!(hidden)));
    }
}

// ---- testaments ------------------------------------------------------------------------------------------

fn add_testament(client: &mut Client, args: Value, kwargs: Value) -> Value {
    client.ask(json!([48, 5, {}, "wamp.session.add_testament", args, kwargs]))
}

#[test]
fn testaments_are_published_when_a_session_ends_however_it_ends() {
    for format in FORMATS {
        for ends_well in [true, false] {
            let house = House::new();
            let (mut client, mut heir) = (house.login(format, "joe"), house.join(Format::Json));
            client.subscribe("", "prefix");
            heir.subscribe("", "prefix");
            let args = json!([1, {"k": [null]}]);
            let done = json!([50, 5, {}]);
            assert_eq!(add_testament(&mut client, json!(["a.b", args, {"x": 1}]), json!({})), done);
            let late =
                json!({"scope": "destroyed", "publish_options": {"disclose_me": true, "ppt_scheme": "x"}});
            assert_eq!(add_testament(&mut client, json!(["a.c", [], {}]), late), done);
            let first = json!({"scope": "detached", "publish_options": null});
            assert_eq!(add_testament(&mut client, json!(["a.d"]), first), done);
            heir.hears_nothing();
            if ends_well {
                client.say(json!([6, {}, "wamp.close.normal"]));
            }
            let id = client.id;
            drop(client);
            let event = heir.hear();
            assert_eq!((&event[3], event.get(4)), (&json!({"topic": "a.d"}), None));
            let event = heir.hear();
            assert_eq!(event.as_array().unwrap()[3..], [json!({"topic": "a.b"}), args, json!({"x": 1})]);
            let event = heir.hear();
            let details = json!({
                "topic": "a.c", "publisher": id, "publisher_authid": "joe", "publisher_authrole": "user",
                "ppt_scheme": "x",
            });
            assert_eq!((&event[3], event.get(4)), (&details, None));
            heir.hears_nothing();
        }
    }
}

#[test]
fn testaments_are_flushed_by_scope() {
    for (flushed, left) in [(json!({}), "detached"), (json!({"scope": "detached"}), "destroyed")] {
        let house = House::new();
        let (mut client, mut heir) = (house.join(Format::MsgPack), house.join(Format::Json));
        heir.subscribe("", "prefix");
        for scope in ["detached", "destroyed"] {
            add_testament(&mut client, json!([scope]), json!({"scope": scope}));
        }
        let flush = json!([48, 6, {}, "wamp.session.flush_testaments", [], flushed]);
        assert_eq!(client.ask(flush), json!([50, 6, {}]));
        drop(client);
        assert_eq!(heir.hear()[3]["topic"], json!(left));
        heir.hears_nothing();
    }
}

#[test]
fn a_testament_keeps_to_its_options() {
    let house = House::new();
    let (mut client, mut heir) = (house.join(Format::Json), house.join(Format::Json));
    heir.subscribe("a", "exact");
    let options = json!({"publish_options": {"retain": true, "eligible_authrole": ["admin"]}});
    add_testament(&mut client, json!(["a", ["bye"]]), options);
    drop(client);
    heir.hears_nothing();
    let mut root = house.login(Format::Json, "root");
    root.ask(json!([32, 1, {"get_retained": true}, "a"]));
    assert_eq!(root.hear()[4], json!(["bye"]));
}

#[test]
fn a_testament_that_could_not_be_published_is_refused_at_once() {
    let house = House::new();
    let mut client = house.join(Format::Cbor);
    let bad = "wamp.error.invalid_argument";
    for (args, kwargs, uri) in [
        (json!([]), json!({}), bad),
        (json!([1]), json!({}), bad),
        (json!(["a", 1]), json!({}), bad),
        (json!(["a", [], []]), json!({}), bad),
        (json!(["a", [], {}, 1]), json!({}), bad),
        (json!(["a"]), json!({"scope": "tomorrow"}), bad),
        (json!(["a"]), json!({"scope": 1}), bad),
        (json!(["a"]), json!({"publish_options": 1}), bad),
        (json!(["a"]), json!({"publish_options": {"eligible": "x"}}), bad),
        (json!(["a b"]), json!({}), "wamp.error.invalid_uri"),
        (json!(["wamp.a"]), json!({}), "wamp.error.invalid_uri"),
        (json!(["a", ["x".repeat(70_000)]]), json!({}), "tandem.error.limit_reached"),
    ] {
        let error = add_testament(&mut client, args.clone(), kwargs);
        assert_eq!(error_of(&error), (48, 5, uri), "{args}");
    }
    for _ in 0..16 {
        assert_eq!(add_testament(&mut client, json!(["a"]), json!({}))[0], json!(50));
    }
    let error = add_testament(&mut client, json!(["a"]), json!({}));
    assert_eq!(error_of(&error), (48, 5, "tandem.error.limit_reached"));
}

// ---- the history of events -------------------------------------------------------------------------------

fn get_events(client: &mut Client, subscription: u64, kwargs: Value) -> Value {
    client.ask(json!([48, 5, {}, "wamp.subscription.get_events", [subscription], kwargs]))
}

#[test]
fn a_subscription_can_be_asked_for_its_past() {
    for (from, to) in FORMATS.iter().flat_map(|from| FORMATS.map(|to| (*from, to))) {
        let house = House::with_history();
        let mut publisher = house.login(from, "joe");
        let publish = |publisher: &mut Client, options: Value, topic: &str, args: Value, kwargs: Value| {
            let mut options = options;
            options["acknowledge"] = json!(true);
            publisher.ask(json!([16, 1, options, topic, args, kwargs]))[2].as_u64().unwrap()
        };
        let one =
            publish(&mut publisher, json!({"disclose_me": true}), "h.a", json!([1, [2]]), json!({"k": 1}));
        let two = publish(&mut publisher, json!({}), "h.b", json!([]), json!({}));
        let three = publish(&mut publisher, json!({"exclude_authid": ["ann"]}), "h.a", json!([3]), json!({}));
        publish(&mut publisher, json!({"exclude": [5]}), "h.a", json!(["never"]), json!({}));
        publish(&mut publisher, json!({}), "g.a", json!(["elsewhere"]), json!({}));
        let mut client = house.join(to);
        let (all, exact) = (client.subscribe("h.", "prefix"), client.subscribe("h.a", "exact"));
        let details = json!({
            "topic": "h.a", "publisher": publisher.id, "publisher_authid": "joe", "publisher_authrole": "user",
        });
        assert_eq!(
            get_events(&mut client, all, json!({"limit": 2}))[3],
            json!([
                {"timestamp": "2000-01-01T00:00:00.000Z", "subscription": all, "publication": one,
                    "details": details, "args": [1, [2]], "kwargs": {"k": 1}},
                {"timestamp": "2000-01-01T00:00:01.000Z", "subscription": all, "publication": two,
                    "details": {"topic": "h.b"}},
            ])
        );
        let mut ids = |subscription, query| {
            let result = get_events(&mut client, subscription, query);
            let events = result.get(3).and_then(Value::as_array).cloned().unwrap_or_default();
            events.iter().map(|event| event["publication"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ids(exact, json!({})), [one, three]);
        assert_eq!(ids(all, json!({"reverse": true})), [three, two, one]);
        assert_eq!(ids(all, json!({"topic": "h.b", "limit": null})), [two]);
        assert_eq!(ids(all, json!({"after_time": "2000-01-01T00:00:00.000Z"})), [two, three]);
        assert_eq!(
            ids(all, json!({"from_time": "2000-01-01T00:00:01:000Z", "before_time": "2000-01-01T00:00:02Z"})),
            [two]
        );
        assert_eq!(ids(all, json!({"after_publication": one, "until_publication": two})), [two]);
        assert_eq!(ids(all, json!({"limit": 0})), [0; 0]);
        let mut ann = house.login(to, "ann");
        assert_eq!(get_events(&mut ann, exact, json!({}))[3].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_history_that_is_not_kept_or_is_asked_for_wrongly_is_an_error() {
    let house = House::with_history();
    let mut client = house.connect(Format::Json);
    let welcome = client.ask(hello(json!({"roles": {"caller": {}}})));
    assert_eq!(welcome[2]["roles"]["broker"]["features"]["event_history"], json!(true));
    let (kept, other) = (client.subscribe("h.a", "exact"), client.subscribe("g", "exact"));
    let wider = client.subscribe("h", "prefix");
    for (subscription, query, uri) in [
        (other, json!({}), "wamp.error.history_unavailable"),
        (wider, json!({}), "wamp.error.history_unavailable"),
        (99, json!({}), "wamp.error.no_such_subscription"),
        (0, json!({}), "wamp.error.invalid_argument"),
        (kept, json!({"limit": -1}), "wamp.error.invalid_argument"),
        (kept, json!({"reverse": 1}), "wamp.error.invalid_argument"),
        (kept, json!({"from_time": "yesterday"}), "wamp.error.invalid_argument"),
        (kept, json!({"until_publication": "x"}), "wamp.error.invalid_argument"),
        (kept, json!({"topic": 1}), "wamp.error.invalid_argument"),
    ] {
        let error = get_events(&mut client, subscription, query.clone());
        assert_eq!(error_of(&error), (48, 5, uri), "{subscription} {query}");
    }
    let mut client = House::new().join(Format::Json);
    let subscription = client.subscribe("h.a", "exact");
    let error = get_events(&mut client, subscription, json!({}));
    assert_eq!(error_of(&error), (48, 5, "wamp.error.history_unavailable"));
}

// ---- subscriptions that are taken away -------------------------------------------------------------------

#[test]
fn a_subscriber_is_told_that_its_subscription_was_revoked_and_may_subscribe_again() {
    for format in FORMATS {
        let house = House::new();
        let (mut client, mut publisher) = (house.join(format), house.join(Format::Json));
        let subscription = client.subscribe("a", "exact");
        assert!(house.realm.revoke_subscription(SubscriptionId(subscription), SessionId(client.id), None));
        publisher.say(json!([16, 1, {}, "a"]));
        let details = json!({"subscription": subscription, "reason": "wamp.subscription.revoked"});
        assert_eq!(client.hear(), json!([35, 0, details]));
        let error = client.ask(json!([34, 2, subscription]));
        assert_eq!(error_of(&error), (34, 2, "wamp.error.no_such_subscription"));
        let again = client.subscribe("a", "exact");
        // The peer ends it while it is taken away: it is told once.
        assert!(house.realm.revoke_subscription(SubscriptionId(again), SessionId(client.id), None));
        assert_eq!(client.ask(json!([34, 3, again])), json!([35, 3]));
        client.hears_nothing();
    }
}

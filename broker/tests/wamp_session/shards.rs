//! Sharded registrations and sharded subscriptions: who of several a key belongs to.

use std::collections::BTreeMap;

use super::*;

const KEYS: usize = 40;

fn callees(house: &House, count: usize, options: &Value) -> Vec<Client> {
    let register = |_| {
        let mut callee = house.join(Format::Json);
        assert_eq!(callee.ask(json!([64, 1, options, "p"]))[0], 65);
        callee
    };
    (0..count).map(register).collect()
}

/// Which callee is asked for a key; it answers.
fn asked(caller: &mut Client, callees: &mut [Client], request: usize, key: &Value) -> usize {
    caller.say(json!([48, request, {"runmode": "partition", "rkey": key}, "p", [key]]));
    let mut found = None;
    for (place, callee) in callees.iter_mut().enumerate() {
        if let Some(invocation) = callee.try_hear() {
            assert_eq!((&invocation[0], &invocation[4]), (&json!(68), &json!([key])));
            callee.say(json!([70, invocation[1], {}, [place]]));
            assert_eq!(found.replace(place), None, "one of them is asked");
        }
    }
    let place = found.expect("one of them is asked");
    assert_eq!(caller.hear(), json!([50, request, {}, [place]]));
    place
}

fn key(number: usize) -> Value {
    json!(format!("key {number}"))
}

#[test]
fn a_partitioned_call_goes_to_the_callee_of_its_key_and_always_to_the_same() {
    for policy in ["roundrobin", "random", "first", "last"] {
        let house = House::new();
        let mut callees = callees(&house, 4, &json!({"invoke": policy}));
        let mut caller = house.join(Format::Cbor);
        let mut holders = BTreeMap::new();
        for round in 0..3 {
            for number in 0..KEYS {
                let place = asked(&mut caller, &mut callees, 1 + round * KEYS + number, &key(number));
                assert_eq!(*holders.entry(number).or_insert(place), place, "{policy}");
            }
        }
        let held = |place| holders.values().filter(|holder| **holder == place).count();
        assert!((0..4).all(|place| held(place) > 0), "{policy}: {holders:?}");
    }
}

#[test]
fn when_a_callee_leaves_only_its_keys_move() {
    let house = House::new();
    let mut callees = callees(&house, 3, &json!({"invoke": "roundrobin"}));
    let mut caller = house.join(Format::Json);
    let before: Vec<_> =
        (0..KEYS).map(|number| asked(&mut caller, &mut callees, 1 + number, &key(number))).collect();
    drop(callees.pop());
    for (number, holder) in before.into_iter().enumerate() {
        let now = asked(&mut caller, &mut callees, 100 + number, &key(number));
        assert!(now == holder || holder == 2, "key {number} moved from {holder} to {now}");
    }
}

#[test]
fn a_key_is_any_value_and_the_same_in_every_serialization() {
    let house = House::new();
    let mut callees = callees(&house, 4, &json!({"invoke": "random"}));
    let mut callers = FORMATS.map(|format| house.join(format));
    let keys =
        [json!("s"), json!(7), json!(-1), json!(1_u64 << 40), json!(true), json!([1, "x"]), json!({"a": 1})];
    for (number, key) in keys.iter().enumerate() {
        let holders = callers.each_mut().map(|caller| asked(caller, &mut callees, 1 + number, key));
        assert!(holders.iter().all(|holder| *holder == holders[0]), "{key}: {holders:?}");
    }
}

#[test]
fn no_other_callee_is_asked_where_the_one_of_the_key_cannot_be() {
    let house = House::new();
    let mut callees = callees(&house, 3, &json!({"invoke": "roundrobin", "concurrency": 1}));
    let mut caller = house.join(Format::Json);
    let holder = asked(&mut caller, &mut callees, 1, &key(0));
    let partition = json!({"runmode": "partition", "rkey": key(0)});
    // It is busy.
    caller.say(json!([48, 2, partition, "p"]));
    let invocation = callees[holder].hear();
    let busy = caller.ask(json!([48, 3, partition, "p"]));
    assert_eq!(error_of(&busy), (48, 3, "crossbar.error.max_concurrency_reached"));
    // It says that another is to be asked: nobody else has the shard.
    callees[holder].say(json!([8, 68, invocation[1], {}, "wamp.error.unavailable"]));
    assert_eq!(error_of(&caller.hear()), (48, 2, "wamp.error.unavailable"));
    for callee in &mut callees {
        callee.hears_nothing();
    }
    // A call without a key goes to whoever is free.
    caller.say(json!([48, 4, {}, "p"]));
    assert_eq!(callees.iter_mut().filter_map(Client::try_hear).count(), 1);
}

#[test]
fn a_partitioned_call_needs_a_key_and_other_ways_are_refused_by_name() {
    let house = House::new();
    let _callees = callees(&house, 1, &json!({}));
    let mut caller = house.join(Format::Json);
    for (request, options, error) in [
        (1, json!({"runmode": "partition"}), "wamp.error.invalid_argument"),
        (2, json!({"runmode": "partition", "rkey": null}), "wamp.error.invalid_argument"),
        (3, json!({"runmode": "all"}), "wamp.error.option_not_allowed"),
        (4, json!({"runmode": "any", "rkey": 1}), "wamp.error.invalid_argument"),
    ] {
        let refused = caller.ask(json!([48, request, options, "p"]));
        assert_eq!(error_of(&refused), (48, request, error), "{options}");
        assert!(refused[5][0].as_str().is_some_and(|sentence| sentence.contains("runmode")), "{refused}");
    }
    let mut violator = house.join(Format::Json);
    violator.say(json!([48, 1, {"runmode": 1}, "p"]));
    violator.is_aborted();
}

// ---- subscriptions ---------------------------------------------------------------------------------------

fn node(house: &House, nkey: &str, pattern: &str, policy: &str) -> Client {
    let mut client = house.join(Format::MsgPack);
    assert_eq!(client.ask(json!([32, 1, {"match": policy, "nkey": nkey}, pattern]))[0], 33);
    client
}

/// Which of them get an event.
fn reached(clients: &mut [Client]) -> Vec<usize> {
    let heard = clients.iter_mut().enumerate().filter_map(|(place, client)| {
        let event = client.try_hear()?;
        assert_eq!((&event[0], client.try_hear()), (&json!(36), None));
        Some(place)
    });
    heard.collect()
}

#[test]
fn an_event_with_a_resource_key_reaches_one_node_and_always_the_same() {
    let house = House::new();
    let names = ["node1", "node2", "node3"];
    let mut nodes: Vec<_> = names.iter().map(|name| node(&house, name, "a", "exact")).collect();
    let mut everybody = house.join(Format::Json);
    everybody.subscribe("a", "exact");
    let mut publisher = house.join(Format::Json);
    let mut holders = Vec::new();
    for number in 0..KEYS {
        for _ in 0..2 {
            publisher.say(json!([16, 1, {"rkey": key(number)}, "a"]));
            holders.push(reached(&mut nodes));
            assert_eq!(everybody.hear()[0], 36, "who has no node key gets every event");
        }
    }
    assert!(holders.chunks(2).all(|pair| pair[0] == pair[1] && pair[0].len() == 1), "{holders:?}");
    assert!((0..3).all(|place| holders.contains(&vec![place])));
    // Without a resource key everybody gets it.
    publisher.say(json!([16, 1, {}, "a"]));
    assert_eq!(reached(&mut nodes), [0, 1, 2]);
    // Of a node that goes, the keys move.
    nodes.pop();
    for number in 0..KEYS {
        publisher.say(json!([16, 1, {"rkey": key(number)}, "a"]));
        let now = reached(&mut nodes);
        assert!(now == holders[2 * number] || (holders[2 * number] == [2] && now.len() == 1));
    }
}

#[test]
fn a_node_key_names_the_node_whatever_session_it_has() {
    let house = House::new();
    let mut publisher = house.join(Format::Json);
    let mut round = || {
        let names = ["node1", "node2", "node3"];
        let mut nodes: Vec<_> = names.iter().map(|name| node(&house, name, "a", "exact")).collect();
        let publish = |number| {
            publisher.say(json!([16, 1, {"rkey": key(number)}, "a"]));
            reached(&mut nodes)
        };
        (0..KEYS).map(publish).collect::<Vec<_>>()
    };
    // All of them come again, as other sessions.
    assert_eq!(round(), round());
}

#[test]
fn each_subscription_has_its_own_shards_and_of_two_sessions_of_a_node_one_gets_the_event() {
    let house = House::new();
    let mut exact = [node(&house, "n", "a.b", "exact"), node(&house, "n", "a.b", "exact")];
    let mut prefix = [node(&house, "m", "a", "prefix")];
    let mut publisher = house.join(Format::Json);
    let mut holders = Vec::new();
    for number in 0..KEYS {
        publisher.say(json!([16, 1, {"rkey": key(number)}, "a.b"]));
        holders.push(reached(&mut exact));
        assert_eq!(reached(&mut prefix), [0]);
    }
    assert!(holders.iter().all(|holder| *holder == holders[0] && holder.len() == 1));
}

#[test]
fn what_is_kept_from_the_node_of_a_key_goes_to_no_other() {
    let house = House::new();
    let mut nodes = [node(&house, "node1", "a", "exact"), node(&house, "node2", "a", "exact")];
    let mut publisher = house.join(Format::Json);
    for number in 0..KEYS {
        publisher.say(json!([16, 1, {"rkey": key(number)}, "a"]));
        let holder = reached(&mut nodes)[0];
        publisher.say(json!([16, 1, {"rkey": key(number), "exclude": [nodes[holder].id]}, "a"]));
        assert!(reached(&mut nodes).is_empty());
        // Its own publication comes to the holder no more than any other does.
        nodes[holder].say(json!([16, 1, {"rkey": key(number)}, "a"]));
        assert!(reached(&mut nodes).is_empty());
    }
}

#[test]
fn keys_of_subscriptions_are_text() {
    let house = House::new();
    for message in [json!([16, 1, {"rkey": 1}, "a"]), json!([32, 1, {"nkey": ["n"]}, "a"])] {
        let mut client = house.join(Format::Json);
        client.say(message);
        client.is_aborted();
    }
}

//! Messages that are longer than a peer takes: whoever waits for one is told.

use super::*;

const LIMIT: usize = 512;
const TOO_LONG: &str = "wamp.error.payload_size_exceeded";

/// A client that takes no longer messages.
fn join(house: &House, format: Format) -> Client {
    let mut client = house.join(format);
    client.session.limit_messages(LIMIT);
    client
}

fn long() -> String {
    "x".repeat(LIMIT)
}

/// The longest text that fits, where the message without it has that many bytes.
fn fill(client: &mut Client, message: impl Fn(&str) -> Value) -> String {
    let mut length = LIMIT;
    while client.encode(&message(&"x".repeat(length))).len() > LIMIT {
        length -= 1;
    }
    "x".repeat(length)
}

#[test]
fn a_peer_without_a_limit_takes_everything_and_one_with_it_all_that_fits() {
    for format in FORMATS {
        let house = House::new();
        let (mut open, mut limited) = (house.join(format), join(&house, format));
        let subscription = open.subscribe("a", "exact");
        assert_eq!(limited.subscribe("a", "exact"), subscription);
        let id = 1_u64 << 50;
        let fits = fill(&mut limited, |text| json!([36, subscription, id, {}, [text]]));
        let published = house.join(Format::Json).ask(json!([16, 1, {"acknowledge": true}, "a", [fits]]));
        assert!(published[2].as_u64().unwrap() < 1 << 53);
        for client in [&mut open, &mut limited] {
            assert_eq!(client.hear()[4], json!([fits]));
        }
        house.join(Format::Json).say(json!([16, 1, {}, "a", ["x".repeat(100_000)]]));
        assert_eq!(open.hear()[4][0].as_str().unwrap().len(), 100_000);
    }
}

#[test]
fn an_event_that_is_too_long_comes_without_its_payload_and_says_so() {
    for format in FORMATS {
        let house = House::new();
        let (mut exact, mut pattern) = (join(&house, format), join(&house, format));
        let (one, all) = (exact.subscribe("a.b", "exact"), pattern.subscribe("a", "prefix"));
        let mut publisher = house.join(Format::Json);
        let options = json!({"acknowledge": true, "disclose_me": true, "ppt_scheme": "x_s"});
        let publication = publisher.ask(json!([16, 1, options, "a.b", [long()], {"k": 1}]))[2].clone();
        let event = exact.hear();
        let told = json!({"payload_limit_exceeded": true, "publisher": publisher.id,
            "publisher_authid": "guest", "publisher_authrole": "anonymous"});
        assert_eq!(event, json!([36, one, publication, told]));
        let event = pattern.hear();
        assert_eq!((&event[1], &event[3]["topic"]), (&json!(all), &json!("a.b")));
        // What fits comes whole again.
        publisher.say(json!([16, 2, {}, "a.b", [1]]));
        assert_eq!(exact.hear()[4], json!([1]));
        // One that does not fit even so is left out.
        let topic = format!("a.{}", long());
        publisher.say(json!([16, 3, {}, topic, [long()]]));
        publisher.say(json!([16, 4, {}, "a.c", [2]]));
        pattern.hear();
        assert_eq!(pattern.hear()[4], json!([2]));
    }
}

#[test]
fn a_retained_event_that_is_too_long_comes_without_its_payload() {
    let house = House::new();
    house.join(Format::Json).say(json!([16, 1, {"retain": true}, "a", [long()]]));
    let mut client = join(&house, Format::Json);
    client.ask(json!([32, 1, {"get_retained": true}, "a"]));
    let event = client.hear();
    assert_eq!((&event[3], event.get(4)), (&json!({"payload_limit_exceeded": true}), None));
}

#[test]
fn a_result_that_is_too_long_is_an_error_of_its_call() {
    for format in FORMATS {
        let house = House::new();
        let (mut callee, mut caller) = (house.join(format), join(&house, format));
        callee.register("p", "exact");
        caller.say(json!([48, 1, {}, "p"]));
        let invocation = callee.hear();
        callee.say(json!([70, invocation[1], {}, [long()]]));
        assert_eq!(error_of(&caller.hear()), (48, 1, TOO_LONG));
        // The call is over, and its number free.
        caller.say(json!([48, 1, {}, "p"]));
        let invocation = callee.hear();
        callee.say(json!([70, invocation[1], {}, [1]]));
        assert_eq!(caller.hear(), json!([50, 1, {}, [1]]));
    }
}

#[test]
fn progress_that_is_too_long_ends_its_call_and_its_callee_is_told() {
    let house = House::new();
    let (mut callee, mut caller) = (house.join(Format::Cbor), join(&house, Format::Cbor));
    callee.register("p", "exact");
    caller.say(json!([48, 1, {"receive_progress": true}, "p"]));
    let invocation = callee.hear();
    callee.say(json!([70, invocation[1], {"progress": true}, [long()]]));
    assert_eq!(error_of(&caller.hear()), (48, 1, TOO_LONG));
    assert_eq!(callee.hear()[0], 69);
    callee.say(json!([70, invocation[1], {}, [1]]));
    caller.hears_nothing();
    assert_eq!(house.realm.calls().pending(), 0);
}

#[test]
fn an_error_that_is_too_long_is_another_one() {
    let house = House::new();
    let (mut callee, mut caller) = (house.join(Format::Json), join(&house, Format::Json));
    callee.register("p", "exact");
    let long_uri = format!("com.{}", long());
    for error in [json!(["com.example.error", [long()]]), json!([long_uri, []])] {
        caller.say(json!([48, 1, {}, "p"]));
        let invocation = callee.hear();
        callee.say(json!([8, 68, invocation[1], {}, error[0], error[1]]));
        assert_eq!(error_of(&caller.hear()), (48, 1, TOO_LONG));
    }
}

#[test]
fn an_invocation_that_is_too_long_is_an_error_of_its_call() {
    for format in FORMATS {
        let house = House::new();
        let (mut callee, mut caller) = (join(&house, format), house.join(format));
        callee.register("p", "exact");
        caller.say(json!([48, 1, {}, "p", [long()]]));
        callee.hears_nothing();
        assert_eq!(error_of(&caller.hear()), (48, 1, TOO_LONG));
        assert_eq!(house.realm.calls().pending(), 0);
        caller.say(json!([48, 2, {}, "p", [1]]));
        assert_eq!(callee.hear()[4], json!([1]));
    }
}

#[test]
fn an_invocation_that_is_too_long_goes_to_another_callee_that_takes_it() {
    let house = House::new();
    let (mut limited, mut open) = (join(&house, Format::Json), house.join(Format::Json));
    for callee in [&mut limited, &mut open] {
        assert_eq!(callee.ask(json!([64, 1, {"invoke": "first"}, "p"]))[0], 65);
    }
    let mut caller = house.join(Format::Json);
    caller.say(json!([48, 1, {}, "p", [long()]]));
    limited.hears_nothing();
    let invocation = open.hear();
    assert_eq!(invocation[4], json!([long()]));
    open.say(json!([70, invocation[1], {}]));
    assert_eq!(caller.hear(), json!([50, 1, {}]));
}

#[test]
fn arguments_that_follow_and_are_too_long_end_the_call_and_the_callee_is_told() {
    let house = House::new();
    let features = json!({"progressive_call_invocations": true, "call_canceling": true});
    let roles = json!({"roles": {"caller": {"features": features}, "callee": {"features": features}}});
    let mut callee = house.connect(Format::Json);
    callee.ask(hello(roles.clone()));
    callee.session.limit_messages(LIMIT);
    callee.register("p", "exact");
    let mut caller = house.connect(Format::Json);
    caller.ask(hello(roles));
    caller.say(json!([48, 1, {"progress": true}, "p", [1]]));
    let invocation = callee.hear();
    caller.say(json!([48, 1, {"progress": true}, "p", [long()]]));
    assert_eq!(callee.hear(), json!([69, invocation[1], {"mode": "killnowait"}]));
    assert_eq!(error_of(&caller.hear()), (48, 1, TOO_LONG));
    assert_eq!(house.realm.calls().pending(), 0);
}

#[test]
fn a_queued_message_that_is_too_long_goes_to_the_dead_letters_and_the_next_one_comes() {
    for format in FORMATS {
        let house = House::new();
        let (mut sender, mut receiver) = (house.join(format), join(&house, format));
        for (request, value) in [(1, json!(long())), (2, json!("next"))] {
            assert_eq!(sender.ask(json!([48, request, {}, "tandem.queue.send", ["q", value]]))[0], 50);
        }
        let answer = receiver.ask(json!([48, 1, {}, "tandem.queue.receive", ["q"]]));
        assert_eq!(error_of(&answer), (48, 1, TOO_LONG));
        let next = receiver.ask(json!([48, 2, {}, "tandem.queue.receive", ["q"]]));
        assert_eq!(next[3][2], json!(["next"]));
        assert_eq!(receiver.ask(json!([48, 3, {}, "tandem.queue.ack", [next[3][0]]]))[0], 50);
        let queues = house.realm.queues();
        let left = |name: &str| queues.get(&Name::parse(name).unwrap()).map(|queue| queue.len());
        assert_eq!((left("q"), left("dlq.q")), (None, Some(1)));
    }
}

#[test]
fn what_the_router_answers_itself_is_shortened_or_an_error() {
    let house = House::with_history();
    let mut client = join(&house, Format::Json);
    let subscription = client.ask(json!([32, 1, {"match": "prefix"}, "h."]))[2].clone();
    for _ in 0..9 {
        house.join(Format::Json).say(json!([16, 1, {}, "h.a", ["x".repeat(100)]]));
        client.hear();
    }
    let answer = client.ask(json!([48, 1, {}, "wamp.subscription.get_events", [subscription]]));
    assert_eq!(error_of(&answer), (48, 1, TOO_LONG));
    // Its sentence would name the procedure; the URI is what counts.
    let answer = client.ask(json!([48, 2, {}, long()]));
    assert_eq!(answer, json!([8, 48, 2, {}, "wamp.error.no_such_procedure"]));
}

#[test]
fn a_peer_that_does_not_even_take_welcome_is_told_by_abort() {
    let house = House::new();
    let mut client = house.connect(Format::Json);
    client.session.limit_messages(LIMIT);
    client.say(hello(json!({"roles": {"caller": {}}})));
    let abort = client.hear();
    assert_eq!((&abort[0], &abort[2]), (&json!(3), &json!(TOO_LONG)));
    assert_eq!(client.closed.as_ref().map(|close| close.reason), Some(Reason::Refused));
    drop(client);
    assert_eq!(house.realm.sessions(), 0);
}

//! Persistent messages of WAMP clients: the answer comes when they are safe.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod wamp_harness;

use serde_json::json;

use tandem_broker::core::store::simulated::SimulatedStore;
use tandem_protocols::payload::Format;

use wamp_harness::{House, error_of};

#[test]
fn a_persistent_message_and_its_acknowledgement_are_answered_when_the_store_has_them() {
    for options in [json!({"persistent": true}), json!({"x_headers": {"persistent": "true"}})] {
        let store = SimulatedStore::new();
        let house = House::with_store(store.clone());
        let (mut sender, mut worker) = (house.join(Format::Json), house.join(Format::Cbor));
        worker.say(json!([48, 1, {}, "tandem.queue.receive", ["q"]]));
        sender.say(json!([48, 1, options, "tandem.queue.send", ["q", "body"]]));
        sender.hears_nothing();
        worker.hears_nothing();
        store.sync();
        let sent = sender.hear();
        assert_eq!((&sent[0], &sent[1]), (&json!(50), &json!(1)));
        assert!(sent[3][0].as_u64().is_some_and(|id| id > 0));
        let got = worker.hear();
        let headers = json!({"x_headers": {"persistent": "true"}});
        let tag = got[3][0].clone();
        assert_eq!(got, json!([50, 1, headers, [tag, 0, ["body"], {}]]));
        worker.say(json!([48, 2, {}, "tandem.queue.ack", [tag]]));
        worker.hears_nothing();
        store.sync();
        assert_eq!(worker.hear(), json!([50, 2, {}]));
        assert_eq!(store.recovered().iter().map(|queue| queue.messages.len()).sum::<usize>(), 0);
    }
}

#[test]
fn what_the_store_does_not_take_is_an_error_of_its_call() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone());
    let mut client = house.join(Format::MsgPack);
    let send = |request: u64| json!([48, request, {"persistent": true}, "tandem.queue.send", ["q", 1]]);
    store.set_nearly_full(true);
    assert_eq!(error_of(&client.ask(send(1))), (48, 1, "tandem.error.not_stored"));
    store.set_nearly_full(false);
    client.say(send(2));
    store.fail_next_sync();
    store.sync();
    assert_eq!(error_of(&client.hear()), (48, 2, "tandem.error.not_stored"));
    let wrong = json!([48, 3, {"persistent": "yes"}, "tandem.queue.send", ["q", 1]]);
    assert_eq!(error_of(&client.ask(wrong)), (48, 3, "wamp.error.invalid_argument"));
}

#[test]
fn a_request_that_waits_for_the_store_is_in_flight() {
    let house = House::with_store(SimulatedStore::new());
    let mut client = house.join(Format::Json);
    let send = json!([48, 1, {"persistent": true}, "tandem.queue.send", ["q", 1]]);
    client.say(send.clone());
    client.say(send);
    client.is_aborted();
}

#[test]
fn what_a_topic_is_to_keep_is_acknowledged_when_the_store_has_it() {
    for persistent in [json!({"persistent": true}), json!({"x_headers": {"persistent": "true"}})] {
        let store = SimulatedStore::new();
        let house = House::with_store(store.clone());
        let (mut publisher, mut late) = (house.join(Format::Json), house.join(Format::Cbor));
        let with = |more: serde_json::Value| {
            let mut options = persistent.as_object().unwrap().clone();
            options.extend(more.as_object().unwrap().clone());
            serde_json::Value::from(options)
        };
        publisher.say(json!([16, 1, with(json!({"retain": true, "acknowledge": true})), "t", ["kept"]]));
        publisher.say(json!([16, 2, with(json!({"acknowledge": true})), "t", ["not kept"]]));
        let second = publisher.hear();
        assert_eq!((&second[0], &second[1]), (&json!(17), &json!(2)));
        publisher.hears_nothing();
        store.sync();
        let first = publisher.hear();
        assert_eq!((&first[0], &first[1]), (&json!(17), &json!(1)));
        late.say(json!([32, 1, {"get_retained": true}, "t"]));
        let subscribed = late.hear();
        let event = late.hear();
        assert_eq!((&event[1], &event[2], &event[4]), (&subscribed[2], &first[2], &json!(["kept"])));
        assert_eq!(store.recovered_shelves()[0].queue.messages.len(), 1);
        // Nobody wants to know.
        publisher.say(json!([16, 3, with(json!({"retain": true})), "t", ["later"]]));
        store.sync();
        publisher.hears_nothing();
    }
}

#[test]
fn what_the_store_does_not_keep_of_a_topic_is_an_error_of_its_publication() {
    let store = SimulatedStore::new();
    let house = House::with_store(store.clone());
    let mut client = house.join(Format::MsgPack);
    let publish = |request: u64| json!([16, request, {"persistent": true, "retain": true, "acknowledge": true}, "t", [1]]);
    store.set_nearly_full(true);
    assert_eq!(error_of(&client.ask(publish(1))), (16, 1, "tandem.error.not_stored"));
    store.set_nearly_full(false);
    client.say(publish(2));
    store.fail_next_sync();
    store.sync();
    assert_eq!(error_of(&client.hear()), (16, 2, "tandem.error.not_stored"));
    let wrong = json!([16, 3, {"persistent": 1, "acknowledge": true}, "t", [1]]);
    assert_eq!(error_of(&client.ask(wrong)), (16, 3, "wamp.error.invalid_argument"));
}

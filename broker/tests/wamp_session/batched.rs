//! The subprotocols of batches: several messages of the language in one of the wire's.

use tandem_protocols::wamp::batched::{OCTAL_SEPARATOR, SEPARATOR, append, subprotocol};

use super::*;

fn batch(client: &Client, separator: u8, messages: &[Value]) -> Vec<u8> {
    let mut batch = Vec::new();
    for message in messages {
        append(client.format, separator, &client.encode(message), &mut batch).unwrap();
    }
    batch
}

/// What is said in one message of the wire's must be a batch of one.
fn hear(client: &mut Client, separator: u8) -> Value {
    let frame = client.hear_frame().expect("the router says something");
    let message = frame.message();
    assert_eq!(message.kind, client.kind);
    let bytes = [&message.head[..], &message.body[..]].concat();
    let length = bytes.len();
    let inner = if client.format == Format::Json {
        assert_eq!(bytes[length - 1], separator);
        &bytes[..length - 1]
    } else {
        assert_eq!(bytes[..4], u32::try_from(length - 4).unwrap().to_be_bytes());
        &bytes[4..]
    };
    let json = transcode(client.format, Format::Json, inner, &Limits::DEFAULT).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn connect(house: &House, format: Format) -> Client {
    house.connect_under(subprotocol(format), format)
}

fn say(client: &mut Client, separator: u8, messages: &[Value]) {
    let batch = batch(client, separator, messages);
    client.say_bytes(batch);
}

fn join(house: &House, format: Format, separator: u8) -> Client {
    let mut client = connect(house, format);
    say(&mut client, separator, &[hello(json!({"roles": {"caller": {}}}))]);
    assert_eq!(hear(&mut client, separator)[0], 2);
    client
}

#[test]
fn every_message_of_a_batch_is_taken_in_order_and_answered_by_the_separator_that_it_used() {
    for (format, separator) in
        FORMATS.map(|format| (format, SEPARATOR)).into_iter().chain([(Format::Json, OCTAL_SEPARATOR)])
    {
        let house = House::new();
        let mut client = connect(&house, format);
        let hello = hello(json!({"roles": {"caller": {}}}));
        say(
            &mut client,
            separator,
            &[hello, json!([32, 1, {}, "a"]), json!([16, 2, {"exclude_me": false}, "a"])],
        );
        assert_eq!(hear(&mut client, separator)[0], 2);
        let subscribed = hear(&mut client, separator);
        assert_eq!(subscribed, json!([33, 1, subscribed[2]]));
        let event = hear(&mut client, separator);
        assert_eq!((&event[0], &event[1]), (&json!(36), &subscribed[2]));
        say(&mut client, separator, &[json!([6, {}, "wamp.close.normal"]), json!([32, 3, {}, "b"])]);
        assert_eq!(hear(&mut client, separator)[0], 6);
        assert!(client.hear_frame().is_none(), "after the end nothing is taken");
        assert_eq!(client.closed.map(|close| close.reason), Some(Reason::Done));
    }
}

#[test]
fn a_json_batch_may_end_without_a_separator_and_the_specifications_is_sent() {
    let house = House::new();
    let mut client = connect(&house, Format::Json);
    client.say_bytes(client.encode(&hello(json!({"roles": {"caller": {}}}))));
    assert_eq!(hear(&mut client, SEPARATOR)[0], 2);
    // Once it uses one, it is sent that.
    say(&mut client, OCTAL_SEPARATOR, &[json!([32, 1, {}, "a"])]);
    assert_eq!(hear(&mut client, OCTAL_SEPARATOR)[0], 33);
}

#[test]
fn subscribers_with_and_without_batches_get_each_their_form_of_an_event() {
    let house = House::new();
    for format in FORMATS {
        let mut plain = house.join(format);
        let mut spec = join(&house, format, SEPARATOR);
        let mut octal = join(&house, format, OCTAL_SEPARATOR);
        let subscription = plain.subscribe("a", "exact");
        for (client, separator) in [(&mut spec, SEPARATOR), (&mut octal, OCTAL_SEPARATOR)] {
            say(client, separator, &[json!([32, 1, {}, "a"])]);
            assert_eq!(hear(client, separator), json!([33, 1, subscription]));
        }
        house.join(Format::Json).say(json!([16, 1, {}, "a", [1]]));
        let event = plain.hear();
        assert_eq!((&event[0], &event[4]), (&json!(36), &json!([1])));
        assert_eq!(hear(&mut spec, SEPARATOR), event);
        assert_eq!(hear(&mut octal, OCTAL_SEPARATOR), event);
    }
}

#[test]
fn what_is_no_batch_aborts_the_session() {
    for (format, bytes) in [
        (Format::Json, &b""[..]),
        (Format::MsgPack, b""),
        (Format::Json, b"\x1e"),
        (Format::Json, b"[48,1,{},\"a\"]\x1e\x1e"),
        (Format::Json, b"[48,1,{},\"a\"]\n[48,2,{},\"a\"]"),
        (Format::MsgPack, b"\0\0\0"),
        (Format::Cbor, b"\0\0\0\x02\x80"),
        (Format::Cbor, b"\xff\xff\xff\xff"),
        (Format::MsgPack, b"\0\0\0\0"),
    ] {
        let house = House::new();
        let mut client = join(&house, format, SEPARATOR);
        client.say_bytes(bytes);
        let mut last = hear(&mut client, SEPARATOR);
        while let Some(frame) = client.said.pop_front() {
            client.said.push_front(frame);
            last = hear(&mut client, SEPARATOR);
        }
        assert_eq!((&last[0], &last[2]), (&json!(3), &json!(VIOLATION)), "{bytes:?}");
        assert_eq!(client.closed.map(|close| close.reason), Some(Reason::Violation));
        assert_eq!(house.realm.sessions(), 0);
    }
}

#[test]
fn a_violation_ends_the_session_and_what_follows_it_in_the_batch_is_not_taken() {
    let house = House::new();
    let mut witness = house.join(Format::Json);
    witness.subscribe("a", "exact");
    let mut client = join(&house, Format::Cbor, SEPARATOR);
    let messages = [json!([16, 1, {}, "a", [1]]), json!([17, 1, 1]), json!([16, 2, {}, "a", [2]])];
    say(&mut client, SEPARATOR, &messages);
    assert_eq!(hear(&mut client, SEPARATOR)[0], 3);
    assert_eq!(witness.hear()[4], json!([1]));
    witness.hears_nothing();
}

#[test]
fn batches_travel_in_the_frames_of_their_serialization() {
    for format in FORMATS {
        let house = House::new();
        let mut client = connect(&house, format);
        let bytes = batch(&client, SEPARATOR, &[hello(json!({"roles": {"caller": {}}}))]);
        let other = if format == Format::Json { Kind::Binary } else { Kind::Text };
        client.session.receive(other, bytes.into(), client.now);
        client.drain();
        assert_eq!(hear(&mut client, SEPARATOR)[0], 3);
    }
}

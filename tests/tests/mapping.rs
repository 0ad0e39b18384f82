//! One address space: each rule of `docs/mapping.md`, over real sockets. A test is named after its rule.
//!
//! That something does not arrive is seen by what is sent after it and arrives first.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ciborium::value::Value;
use serde_json::json;

use tandem_broker::metrics;
use tandem_broker::users::hash_password;
use tandem_client::Error;
use tandem_client::arguments::{arguments, decode_args, decode_kwargs};
use tandem_client::raw::dial::{WebSocketOptions, connect_rawsocket, connect_tcp, connect_websocket};
use tandem_client::raw::stomp::{self, AckMode, ConnectOptions};
use tandem_client::raw::transport;
use tandem_client::raw::wamp::{self, Login, MatchPolicy};
use tandem_protocols::payload::{Arguments, Content, Format};
use tandem_protocols::stomp::frame::{Command, Frame, Version};
use tandem_protocols::wamp::codec::subprotocol;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{self, Event, Invocation};
use tandem_protocols::wamp::rawsocket::Limit;
use tandem_tests::broker::{Broker, soon};

use Format::{Cbor, Json, MsgPack};

type Wamp = wamp::Client;
type Stomp = stomp::Client;

const FORMATS: [Format; 3] = [Json, MsgPack, Cbor];
const VERSIONS: [Version; 3] = [Version::V10, Version::V11, Version::V12];

// ------------------------------------------------------------------------------------------------ peers

/// MessagePack over RawSocket, the others over WebSocket.
async fn wamp_wire(broker: &Broker, format: Format) -> transport::Transport {
    match format {
        MsgPack => connect_rawsocket(broker.address(), format, Limit::MAX).await.unwrap(),
        Json | Cbor => {
            let options = WebSocketOptions::default();
            connect_websocket(broker.address(), "/", &[subprotocol(format)], &options).await.unwrap()
        }
    }
}

/// 1.2 over WebSocket, the others over TCP.
async fn stomp_wire(broker: &Broker, version: Version) -> transport::Transport {
    match version {
        Version::V10 | Version::V11 => connect_tcp(broker.address()).await.unwrap(),
        Version::V12 => {
            let options = WebSocketOptions::default();
            connect_websocket(broker.address(), "/", &["v12.stomp"], &options).await.unwrap()
        }
    }
}

async fn wamp_in(broker: &Broker, format: Format) -> Wamp {
    let wire = wamp_wire(broker, format).await;
    soon("WELCOME", Wamp::join(wire, format, "realm1", &Login::Anonymous)).await.unwrap()
}

async fn stomp_in(broker: &Broker, version: Version) -> Stomp {
    let wire = stomp_wire(broker, version).await;
    soon("CONNECTED", Stomp::connect(wire, version, &at_host("realm1"))).await.unwrap()
}

fn at_host(host: &str) -> ConnectOptions {
    ConnectOptions { host: host.to_owned(), ..ConnectOptions::default() }
}

/// A broker, and a peer of each language.
async fn house() -> (Broker, Stomp, Wamp) {
    let broker = Broker::start().await;
    let (stomp, wamp) = (stomp_in(&broker, Version::V12).await, wamp_in(&broker, Json).await);
    (broker, stomp, wamp)
}

// ------------------------------------------------------------------------------- what is said and heard

type Headers<'a> = &'a [(&'a str, &'a str)];

/// The headers and the body of a SEND, and what a WAMP peer is to get.
type Becoming<'a> = (Headers<'a>, &'a [u8], Said);

/// Arguments as a WAMP peer means them, whatever they are encoded in.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    args: Vec<Value>,
    kwargs: Vec<(Value, Value)>,
}

fn value(json: serde_json::Value) -> Value {
    Value::serialized(&json).unwrap()
}

fn said(args: serde_json::Value, kwargs: serde_json::Value) -> Said {
    let (Value::Array(args), Value::Map(kwargs)) = (value(args), value(kwargs)) else {
        panic!("no arguments")
    };
    Said { args, kwargs }
}

fn args(args: serde_json::Value) -> Said {
    said(args, json!({}))
}

fn only(value: impl Into<Value>) -> Said {
    Said { args: vec![value.into()], kwargs: Vec::new() }
}

/// Each scalar of a value made another.
fn mapped(value: Value, change: &impl Fn(Value) -> Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.into_iter().map(|value| mapped(value, change)).collect()),
        Value::Map(entries) => Value::Map(
            entries.into_iter().map(|(key, value)| (mapped(key, change), mapped(value, change))).collect(),
        ),
        scalar => change(scalar),
    }
}

/// Bytes as JSON has them in WAMP.
fn bytes_to_text(value: Value) -> Value {
    match value {
        Value::Bytes(bytes) => Value::Text(format!("\0{}", BASE64.encode(bytes))),
        other => other,
    }
}

fn text_to_bytes(value: Value) -> Value {
    match value {
        Value::Text(text) if text.starts_with('\0') => Value::Bytes(BASE64.decode(&text[1..]).unwrap()),
        other => other,
    }
}

impl Said {
    fn mapped(self, change: impl Fn(Value) -> Value) -> Said {
        let Value::Array(args) = mapped(Value::Array(self.args), &change) else { unreachable!() };
        let Value::Map(kwargs) = mapped(Value::Map(self.kwargs), &change) else { unreachable!() };
        Said { args, kwargs }
    }

    fn written(&self, format: Format) -> Arguments {
        let said = if format == Json { self.clone().mapped(bytes_to_text) } else { self.clone() };
        arguments(format, &said.args, &Value::Map(said.kwargs)).unwrap()
    }

    fn read(content: &Content) -> Said {
        let Content::Arguments(arguments) = content else { panic!("{content:?}") };
        let Value::Map(kwargs) = decode_kwargs(content).unwrap() else { panic!("{content:?}") };
        let said = Said { args: decode_args(content).unwrap(), kwargs };
        if arguments.format == Json { said.mapped(text_to_bytes) } else { said }
    }
}

async fn publish(wamp: &mut Wamp, topic: &str, options: Dict, said: &Said) -> Id {
    let arguments = said.written(wamp.format());
    soon("PUBLISHED", wamp.publish_acknowledged(topic, options, arguments)).await.unwrap()
}

async fn say(wamp: &mut Wamp, topic: &str, text: &str) -> Id {
    publish(wamp, topic, Dict::new(), &only(text)).await
}

async fn send(stomp: &mut Stomp, destination: &str, headers: &[(&str, &str)], body: &[u8]) {
    soon("RECEIPT", stomp.send_with_receipt(destination, headers, body.to_vec())).await.unwrap();
}

async fn send_text(stomp: &mut Stomp, destination: &str, text: &str) {
    send(stomp, destination, &[("content-type", "text/plain")], text.as_bytes()).await;
}

async fn listen(stomp: &mut Stomp, destination: &str, id: &str) {
    soon("RECEIPT", stomp.subscribe(destination, id, AckMode::Auto, &[])).await.unwrap();
}

async fn subscribe(wamp: &mut Wamp, topic: &str) -> Id {
    soon("SUBSCRIBED", wamp.subscribe(topic, MatchPolicy::Exact)).await.unwrap()
}

async fn event(wamp: &mut Wamp) -> Event {
    soon("an EVENT", wamp.next_event()).await.unwrap()
}

async fn message(stomp: &mut Stomp) -> Frame {
    soon("a MESSAGE", stomp.next_message()).await.unwrap()
}

async fn invocation(wamp: &mut Wamp) -> Invocation {
    soon("an INVOCATION", wamp.next_invocation()).await.unwrap()
}

async fn heard(wamp: &mut Wamp) -> Said {
    Said::read(&event(wamp).await.payload)
}

async fn read(stomp: &mut Stomp) -> String {
    text(&message(stomp).await)
}

fn text(frame: &Frame) -> String {
    String::from_utf8(frame.body.to_vec()).unwrap()
}

fn header<'a>(frame: &'a Frame, name: &str) -> Option<&'a str> {
    frame.headers.get(name)
}

fn x_headers(details: &Dict) -> Vec<(&str, &str)> {
    let headers = details.dict("x_headers").unwrap();
    headers.iter().flat_map(|dict| dict.iter()).map(|(name, value)| (name, value.as_str().unwrap())).collect()
}

fn with_headers(headers: &[(&str, &str)]) -> Dict {
    let dict = headers.iter().fold(Dict::new(), |dict, (name, value)| dict.with(*name, *value));
    Dict::new().with("x_headers", dict)
}

/// A call of one of the router's procedures, or of a peer that need not be driven.
async fn call(wamp: &mut Wamp, procedure: &str, said: &Said) -> Result<Said, Error> {
    let arguments = said.written(wamp.format());
    let outcome = soon("RESULT", wamp.call(procedure, arguments)).await?;
    Ok(Said::read(&outcome.payload))
}

async fn begin_call(wamp: &mut Wamp, procedure: &str, said: &Said) -> Id {
    let request = wamp.begin_call(procedure, Dict::new(), said.written(wamp.format())).await.unwrap();
    wamp.flush().await.unwrap();
    request
}

async fn end_call(wamp: &mut Wamp, request: Id) -> Result<Said, Error> {
    let outcome = soon("RESULT", wamp.end_call(request)).await?;
    Ok(Said::read(&outcome.payload))
}

async fn register(wamp: &mut Wamp, procedure: &str) {
    soon("REGISTERED", wamp.register(procedure, Dict::new())).await.unwrap();
}

async fn answer(wamp: &mut Wamp, invocation: &Invocation, options: Dict, said: &Said) {
    wamp.yield_(invocation.request, options, said.written(wamp.format())).await.unwrap();
    wamp.flush().await.unwrap();
}

const ANSWERS: (&str, &str) = ("reply-to", "/temp-queue/answers");

/// A call out of STOMP, in a text, answered at `/temp-queue/answers`.
async fn stomp_call(stomp: &mut Stomp, procedure: &str, correlation: &str, text: &str) {
    let headers = [ANSWERS, ("correlation-id", correlation), ("content-type", "text/plain")];
    send(stomp, &format!("/call/{procedure}"), &headers, text.as_bytes()).await;
}

// ----------------------------------------------------------------------------------------------- places

#[tokio::test]
async fn m1_the_host_names_a_realm_and_any_other_host_means_the_default_one() {
    let broker = Broker::start_with("realms = [\"first\", \"second\"]").await;
    let mut wamps = Vec::new();
    for realm in ["first", "second"] {
        let wire = wamp_wire(&broker, MsgPack).await;
        let mut wamp = Wamp::join(wire, MsgPack, realm, &Login::Anonymous).await.unwrap();
        subscribe(&mut wamp, "t").await;
        wamps.push(wamp);
    }
    for (host, realm) in [("first", 0), ("second", 1), ("example.com", 0), ("", 0)] {
        let version = if host.is_empty() { Version::V10 } else { Version::V12 };
        let wire = stomp_wire(&broker, version).await;
        let mut stomp = Stomp::connect(wire, version, &at_host(host)).await.unwrap();
        send_text(&mut stomp, "/topic/t", host).await;
        // Had it gone to the other one, the next would not be the first that arrives there.
        assert_eq!(heard(&mut wamps[realm]).await, only(host));
    }
    let wire = wamp_wire(&broker, Json).await;
    let unknown = Wamp::join(wire, Json, "example.com", &Login::Anonymous).await.unwrap_err();
    assert_eq!(unknown.uri(), Some("wamp.error.no_such_realm"));
}

#[tokio::test]
async fn m2_a_login_and_a_ticket_are_the_same_principal() {
    let hash = hash_password("wonderland").unwrap();
    let user = format!("[[users]]\nname = \"alice\"\npassword = \"{hash}\"\n");
    let broker = Broker::start_with(&format!("[authentication]\nanonymous = \"never\"\n{user}")).await;
    let login = |passcode: &str| ConnectOptions {
        login: Some("alice".to_owned()),
        passcode: Some(passcode.to_owned()),
        ..at_host("realm1")
    };
    let ticket = |ticket: &str| Login::Ticket { authid: "alice".to_owned(), ticket: ticket.to_owned() };

    let (wire, right) = (stomp_wire(&broker, Version::V12).await, login("wonderland"));
    let stomp = soon("CONNECTED", Stomp::connect(wire, Version::V12, &right)).await.unwrap();
    assert_eq!(stomp.connected().get("user-name"), Some("alice"));
    let (wire, right) = (wamp_wire(&broker, Cbor).await, ticket("wonderland"));
    let wamp = soon("WELCOME", Wamp::join(wire, Cbor, "realm1", &right)).await.unwrap();
    assert_eq!(wamp.welcome().str("authid"), Ok(Some("alice")));

    for options in [login("looking-glass"), at_host("realm1")] {
        let wire = stomp_wire(&broker, Version::V11).await;
        let refused = soon("ERROR", Stomp::connect(wire, Version::V11, &options)).await;
        assert!(matches!(refused, Err(Error::StompError(_))), "{refused:?}");
    }
    for login in [ticket("looking-glass"), Login::Anonymous] {
        let wire = wamp_wire(&broker, Json).await;
        let refused = soon("ABORT", Wamp::join(wire, Json, "realm1", &login)).await;
        assert!(matches!(refused, Err(Error::Abort(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn m2_without_a_login_a_peer_is_anonymous_in_both_languages() {
    let (_broker, stomp, wamp) = house().await;
    assert!(stomp.connected().get("user-name").unwrap().starts_with("anonymous"));
    assert!(wamp.welcome().str("authid").unwrap().unwrap().starts_with("anonymous"));
}

#[tokio::test]
async fn m3_a_topic_has_one_name_in_both_languages() {
    let (_broker, mut stomp, mut wamp) = house().await;
    let names = [
        ("/topic/a.b", "a.b"),
        ("/topic/a%2Fb", "a/b"),
        ("/topic/a.%2A", "a.*"),
        ("/topic/a.%3E", "a.>"),
        ("/topic/50%25", "50%"),
        ("/topic/café.a*b", "café.a*b"),
    ];
    for (destination, topic) in names {
        listen(&mut stomp, destination, destination).await;
        subscribe(&mut wamp, topic).await;
        say(&mut wamp, topic, "from WAMP").await;
        let heard_there = message(&mut stomp).await;
        assert_eq!(header(&heard_there, "destination"), Some(destination));
        assert_eq!(header(&heard_there, "subscription"), Some(destination));
        assert_eq!(text(&heard_there), "from WAMP");
        send_text(&mut stomp, destination, topic).await;
        assert_eq!(heard(&mut wamp).await, only(topic));
        // Its own.
        assert_eq!(read(&mut stomp).await, topic);
    }
}

#[tokio::test]
async fn m3_what_is_no_name_is_refused_in_both_languages() {
    let broker = Broker::start().await;
    let mut wamp = wamp_in(&broker, Json).await;
    for (destination, topic) in [
        ("/topic/a..b", "a..b"),
        ("/topic/a.", "a."),
        ("/topic/a b", "a b"),
        ("/topic/a%20b", "a b"),
        ("/topic/a%23b", "a#b"),
        ("/topic/a%01b", "a\u{1}b"),
        ("/topic/wamp.a", "wamp.a"),
        ("/topic/tandem.a", "tandem.a"),
    ] {
        let mut stomp = stomp_in(&broker, Version::V12).await;
        let refused = soon("ERROR", stomp.send_with_receipt(destination, &[], "")).await;
        assert!(matches!(refused, Err(Error::StompError(_))), "{destination}: {refused:?}");
        let publishing = wamp.publish_acknowledged(topic, Dict::new(), Said::default().written(Json));
        let refused = soon("ERROR", publishing).await.unwrap_err();
        assert_eq!(refused.uri(), Some("wamp.error.invalid_uri"), "{topic}");
    }
    let mut stomp = stomp_in(&broker, Version::V12).await;
    let deep = soon("ERROR", stomp.send_with_receipt("/topic/a/b", &[], "")).await;
    assert!(matches!(deep, Err(Error::StompError(_))), "{deep:?}");
}

#[tokio::test]
async fn m3_names_of_the_router_are_nobodys_to_serve_or_to_queue_at() {
    let broker = Broker::start().await;
    let mut wamp = wamp_in(&broker, MsgPack).await;
    for name in ["wamp.a", "tandem.a"] {
        for destination in ["/queue/", "/procedure/"] {
            let mut stomp = stomp_in(&broker, Version::V11).await;
            let destination = format!("{destination}{name}");
            let refused = soon("ERROR", stomp.subscribe(&destination, "1", AckMode::Auto, &[])).await;
            assert!(matches!(refused, Err(Error::StompError(_))), "{destination}: {refused:?}");
        }
        let refused = soon("ERROR", wamp.register(name, Dict::new())).await.unwrap_err();
        assert_eq!(refused.uri(), Some("wamp.error.invalid_uri"), "{name}");
        for procedure in ["tandem.queue.send", "tandem.queue.receive"] {
            let refused = call(&mut wamp, procedure, &only(name)).await.unwrap_err();
            assert_eq!(refused.uri(), Some("wamp.error.invalid_uri"), "{procedure} {name}");
        }
    }
    // Patterns of such names as well.
    let mut stomp = stomp_in(&broker, Version::V11).await;
    let refused = soon("ERROR", stomp.subscribe("/procedure/tandem.*", "1", AckMode::Auto, &[])).await;
    assert!(matches!(refused, Err(Error::StompError(_))), "{refused:?}");
    let refused = wamp.register("tandem.queue", Dict::new().with("match", "prefix")).await.unwrap_err();
    assert_eq!(refused.uri(), Some("wamp.error.invalid_uri"));
}

#[tokio::test]
async fn m4_a_star_is_a_hole() {
    let (_broker, mut stomp, mut wamp) = house().await;
    listen(&mut stomp, "/topic/a.*.c", "holes").await;
    soon("SUBSCRIBED", wamp.subscribe("a..c", MatchPolicy::Wildcard)).await.unwrap();
    for other in ["a.c", "a.b.d", "a.b.c.d"] {
        say(&mut wamp, other, "no").await;
        send_text(&mut stomp, &format!("/topic/{other}"), "no").await;
    }
    say(&mut wamp, "a.b.c", "from WAMP").await;
    send_text(&mut stomp, "/topic/a.x.c", "from STOMP").await;
    for (destination, body) in [("/topic/a.b.c", "from WAMP"), ("/topic/a.x.c", "from STOMP")] {
        let frame = message(&mut stomp).await;
        assert_eq!((header(&frame, "destination"), text(&frame).as_str()), (Some(destination), body));
        assert_eq!(header(&frame, "subscription"), Some("holes"));
    }
    let event = event(&mut wamp).await;
    assert_eq!(event.details.str("topic"), Ok(Some("a.x.c")));
    assert_eq!(Said::read(&event.payload), only("from STOMP"));
}

#[tokio::test]
async fn m5_a_hash_or_an_angle_is_all_below() {
    let (broker, mut stomp, mut wamp) = house().await;
    let mut angle = stomp_in(&broker, Version::V11).await;
    listen(&mut stomp, "/topic/a.#", "1").await;
    listen(&mut angle, "/topic/a.>", "1").await;
    for (topic, body) in [("ab", "no"), ("b.a", "no"), ("a", "one"), ("a.b", "two"), ("a.b.c", "three")] {
        say(&mut wamp, topic, body).await;
    }
    for body in ["one", "two", "three"] {
        assert_eq!(read(&mut stomp).await, body);
        assert_eq!(read(&mut angle).await, body);
    }
}

#[tokio::test]
async fn m6_a_prefix_is_one_of_characters() {
    let (_broker, mut stomp, mut wamp) = house().await;
    soon("SUBSCRIBED", wamp.subscribe("a", MatchPolicy::Prefix)).await.unwrap();
    for topic in ["b", "b.a", "a", "ab", "a.b"] {
        send_text(&mut stomp, &format!("/topic/{topic}"), topic).await;
    }
    for topic in ["a", "ab", "a.b"] {
        let event = event(&mut wamp).await;
        assert_eq!(event.details.str("topic"), Ok(Some(topic)));
        assert_eq!(Said::read(&event.payload), only(topic));
    }
}

// ----------------------------------------------------------------------------------------------- queues

/// What `tandem.queue.receive` brought.
struct Received {
    tag: Value,
    redeliveries: Value,
    said: Said,
}

async fn begin_receive(wamp: &mut Wamp, queue: &str) -> Id {
    begin_call(wamp, "tandem.queue.receive", &only(queue)).await
}

async fn end_receive(wamp: &mut Wamp, request: Id) -> Received {
    let result = end_call(wamp, request).await.unwrap();
    let [tag, redeliveries, Value::Array(args), Value::Map(kwargs)] = &result.args[..] else {
        panic!("{result:?}");
    };
    let said = Said { args: args.clone(), kwargs: kwargs.clone() };
    Received { tag: tag.clone(), redeliveries: redeliveries.clone(), said }
}

async fn receive(wamp: &mut Wamp, queue: &str) -> Received {
    let request = begin_receive(wamp, queue).await;
    end_receive(wamp, request).await
}

async fn settle(wamp: &mut Wamp, how: &str, received: Received) {
    call(wamp, how, &only(received.tag)).await.unwrap();
}

async fn consume(stomp: &mut Stomp, queue: &str, credit: &str) {
    let headers = [("prefetch-count", credit)];
    soon("RECEIPT", stomp.subscribe(queue, queue, AckMode::ClientIndividual, &headers)).await.unwrap();
}

#[tokio::test]
async fn m7_a_queue_gives_each_message_to_one_consumer_until_it_is_acknowledged() {
    let broker = Broker::start().await;
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut wamp, mut stomp) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        send_text(&mut stomp, "/queue/q", "work").await;
        let refused = receive(&mut wamp, "q").await;
        assert_eq!((&refused.said, &refused.redeliveries), (&only("work"), &Value::from(0)));
        settle(&mut wamp, "tandem.queue.nack", refused).await;

        consume(&mut stomp, "/queue/q", "1").await;
        let again = message(&mut stomp).await;
        assert_eq!((header(&again, "destination"), text(&again).as_str()), (Some("/queue/q"), "work"));
        assert_eq!(header(&again, "redelivered"), Some("true"));
        soon("NACK", stomp.nack(&again, None)).await.unwrap();
        stomp.unsubscribe("/queue/q").await.unwrap();
        let third = receive(&mut wamp, "q").await;
        assert_eq!(third.said, only("work"));
        settle(&mut wamp, "tandem.queue.ack", third).await;
        assert!(broker.server().realms()[0].queues().is_empty());
    }
}

#[tokio::test]
async fn m7_what_wamp_puts_into_a_queue_is_a_message_for_stomp() {
    let broker = Broker::start().await;
    let mut stomp = stomp_in(&broker, Version::V12).await;
    consume(&mut stomp, "/queue/q", "10").await;
    for format in FORMATS {
        let mut wamp = wamp_in(&broker, format).await;
        let options = with_headers(&[("colour", "blue")]);
        let arguments = args(json!(["q", "work"])).written(format);
        let sent = soon("RESULT", wamp.call_with("tandem.queue.send", options, arguments)).await.unwrap();
        assert!(matches!(Said::read(&sent.payload).args[..], [Value::Integer(_)]));
        let frame = message(&mut stomp).await;
        assert_eq!(header(&frame, "content-type"), Some("text/plain"));
        assert_eq!((header(&frame, "colour"), text(&frame).as_str()), (Some("blue"), "work"));
        stomp.ack(&frame, None).await.unwrap();
    }
}

#[tokio::test]
async fn m7_consumers_of_both_languages_compete() {
    let (broker, mut producer, mut wamp) = house().await;
    let mut stomp = stomp_in(&broker, Version::V11).await;
    consume(&mut stomp, "/queue/q", "1").await;
    let mut done = BTreeSet::new();
    for round in 0..20 {
        let waiting = begin_receive(&mut wamp, "q").await;
        for half in 0..2 {
            send_text(&mut producer, "/queue/q", &format!("{round} {half}")).await;
        }
        // Each has credit for one: both get one.
        let frame = message(&mut stomp).await;
        let received = end_receive(&mut wamp, waiting).await;
        let [Value::Text(other)] = &received.said.args[..] else { panic!("{:?}", received.said) };
        done.extend([text(&frame), other.clone()]);
        stomp.ack(&frame, None).await.unwrap();
        stomp.flush().await.unwrap();
        settle(&mut wamp, "tandem.queue.ack", received).await;
    }
    assert_eq!(done.len(), 40);
}

#[tokio::test]
async fn m7_what_a_consumer_held_goes_to_one_of_the_other_language() {
    let (broker, mut stomp, mut wamp) = house().await;
    send_text(&mut stomp, "/queue/q", "work").await;
    let mut first = stomp_in(&broker, Version::V10).await;
    consume(&mut first, "/queue/q", "1").await;
    assert_eq!(read(&mut first).await, "work");
    let waiting = begin_receive(&mut wamp, "q").await;
    drop(first);
    let received = end_receive(&mut wamp, waiting).await;
    assert_eq!((received.said, received.redeliveries), (only("work"), Value::from(1)));
    drop(wamp);
    consume(&mut stomp, "/queue/q", "1").await;
    let frame = message(&mut stomp).await;
    assert_eq!((text(&frame).as_str(), header(&frame, "redelivered")), ("work", Some("true")));
}

#[tokio::test]
async fn m8_a_topic_is_acknowledged_through_a_queue_of_the_sessions_own() {
    let (broker, mut plain, mut wamp) = house().await;
    listen(&mut plain, "/topic/t.#", "1").await;
    for mode in [AckMode::Client, AckMode::ClientIndividual] {
        let mut careful = stomp_in(&broker, Version::V11).await;
        soon("RECEIPT", careful.subscribe("/topic/t.#", "1", mode, &[])).await.unwrap();
        say(&mut wamp, "t.a", "one").await;
        let first = message(&mut careful).await;
        assert_eq!((header(&first, "destination"), text(&first).as_str()), (Some("/topic/t.a"), "one"));
        soon("NACK", careful.nack(&first, None)).await.unwrap();
        let again = message(&mut careful).await;
        assert_eq!((text(&again).as_str(), header(&again, "redelivered")), ("one", Some("true")));
        soon("ACK", careful.ack(&again, None)).await.unwrap();
        say(&mut wamp, "t.b", "two").await;
        assert_eq!(read(&mut careful).await, "two");
        // Nobody else noticed.
        assert_eq!((read(&mut plain).await, read(&mut plain).await), ("one".into(), "two".into()));
    }
}

// ------------------------------------------------------------------------------------------------ calls

#[tokio::test]
async fn m9_a_send_to_call_calls_a_procedure() {
    let broker = Broker::start().await;
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut callee, mut caller) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        register(&mut callee, "p").await;
        stomp_call(&mut caller, "p", "one", "question").await;
        let asked = invocation(&mut callee).await;
        assert_eq!(Said::read(&asked.payload), only("question"));
        assert!(x_headers(&asked.details).is_empty(), "{asked:?}");
        answer(&mut callee, &asked, with_headers(&[("colour", "blue")]), &args(json!([{"a": 1}]))).await;
        let answered = message(&mut caller).await;
        assert_eq!(header(&answered, "subscription"), Some("/temp-queue/answers"));
        assert_eq!(header(&answered, "correlation-id"), Some("one"));
        assert_eq!(header(&answered, "content-type"), Some("application/json"));
        assert_eq!(header(&answered, "colour"), Some("blue"));
        assert_eq!((header(&answered, "error"), text(&answered).as_str()), (None, "{\"a\":1}"));
    }
}

#[tokio::test]
async fn m9_calls_are_told_apart_by_their_correlation_ids() {
    let (_broker, mut caller, mut callee) = house().await;
    register(&mut callee, "p").await;
    let mut asked = Vec::new();
    for correlation in ["one", "two", "three"] {
        stomp_call(&mut caller, "p", correlation, correlation).await;
        asked.push(invocation(&mut callee).await);
    }
    for invocation in asked.iter().rev() {
        let said = Said::read(&invocation.payload);
        answer(&mut callee, invocation, Dict::new(), &said).await;
    }
    for correlation in ["three", "two", "one"] {
        let answered = message(&mut caller).await;
        assert_eq!(header(&answered, "correlation-id"), Some(correlation));
        assert_eq!(text(&answered), correlation);
    }
}

#[tokio::test]
async fn m9_an_answer_goes_where_its_caller_wants_it() {
    let (_broker, mut caller, mut callee) = house().await;
    register(&mut callee, "p").await;
    subscribe(&mut callee, "answers").await;
    for reply_to in ["/topic/answers", "/queue/answers"] {
        let headers = [("reply-to", reply_to), ("correlation-id", "one")];
        send(&mut caller, "/call/p", &headers, b"").await;
        let asked = invocation(&mut callee).await;
        assert_eq!(Said::read(&asked.payload), Said::default());
        answer(&mut callee, &asked, Dict::new(), &only("here")).await;
    }
    let event = event(&mut callee).await;
    assert_eq!(x_headers(&event.details), [("correlation-id", "one")]);
    assert_eq!(Said::read(&event.payload), only("here"));
    assert_eq!(receive(&mut callee, "answers").await.said, only("here"));
}

#[tokio::test]
async fn m9_arguments_are_those_of_a_body() {
    let (_broker, mut caller, mut callee) = house().await;
    register(&mut callee, "p").await;
    let cases: [Becoming<'_>; 5] = [
        (&[("content-type", "application/json")], b"[1,2]", args(json!([[1, 2]]))),
        (&[("content-type", "application/msgpack")], b"\x81\xa1a\x01", args(json!([{"a": 1}]))),
        (&[("content-type", "application/cbor"), ("x-wamp-payload", "args")], b"\x81\x01", args(json!([1]))),
        (&[], b"\xff", only(vec![0xff_u8].as_slice())),
        (&[], b"", Said::default()),
    ];
    for (headers, body, expected) in cases {
        send(&mut caller, "/call/p", headers, body).await;
        assert_eq!(Said::read(&invocation(&mut callee).await.payload), expected);
    }
}

#[tokio::test]
async fn m9_a_caller_waits_as_long_as_its_header_says() {
    let (_broker, mut caller, mut callee) = house().await;
    register(&mut callee, "p").await;
    let headers = [("reply-to", "/temp-queue/x"), ("x-timeout", "20")];
    send(&mut caller, "/call/p", &headers, b"").await;
    let late = message(&mut caller).await;
    assert_eq!(header(&late, "error"), Some("wamp.error.timeout"));
}

#[tokio::test]
async fn m10_both_languages_share_a_procedure() {
    let (broker, mut stomp, mut wamp) = house().await;
    soon("RECEIPT", stomp.subscribe("/procedure/p", "1", AckMode::Auto, &[("x-invoke", "roundrobin")]))
        .await
        .unwrap();
    let options = Dict::new().with("invoke", "roundrobin");
    soon("REGISTERED", wamp.register("p", options)).await.unwrap();
    let mut caller = wamp_in(&broker, Json).await;
    for _ in 0..2 {
        begin_call(&mut caller, "p", &Said::default()).await;
        begin_call(&mut caller, "p", &Said::default()).await;
        message(&mut stomp).await;
        invocation(&mut wamp).await;
    }
}

#[tokio::test]
async fn m10_a_subscription_to_procedure_serves_it() {
    let broker = Broker::start().await;
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut caller, mut callee) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        listen(&mut callee, "/procedure/p", "service").await;
        let request = begin_call(&mut caller, "p", &said(json!([1, 2]), json!({"a": null}))).await;
        let asked = message(&mut callee).await;
        assert_eq!(header(&asked, "subscription"), Some("service"));
        assert_eq!(header(&asked, "destination"), Some("/procedure/p"));
        assert_eq!(header(&asked, "x-wamp-payload"), Some("full"));
        assert_eq!(text(&asked), "{\"args\":[1,2],\"kwargs\":{\"a\":null}}");
        let reply_to = header(&asked, "reply-to").unwrap().to_owned();
        let headers = [("content-type", "application/json"), ("x-wamp-payload", "args")];
        send(&mut callee, &reply_to, &headers, b"[\"sum\",3]").await;
        assert_eq!(end_call(&mut caller, request).await.unwrap(), args(json!(["sum", 3])));
        callee.unsubscribe("service").await.unwrap();
        let gone = call(&mut caller, "p", &Said::default()).await.unwrap_err();
        assert_eq!(gone.uri(), Some("wamp.error.no_such_procedure"));
    }
}

#[tokio::test]
async fn m10_a_procedure_is_served_once_in_both_languages() {
    let (broker, mut stomp, mut wamp) = house().await;
    register(&mut wamp, "by.wamp").await;
    listen(&mut stomp, "/procedure/by.stomp", "1").await;
    let taken = soon("ERROR", wamp.register("by.stomp", Dict::new())).await.unwrap_err();
    assert_eq!(taken.uri(), Some("wamp.error.procedure_already_exists"));
    let mut other = stomp_in(&broker, Version::V11).await;
    let taken = soon("ERROR", other.subscribe("/procedure/by.wamp", "1", AckMode::Auto, &[])).await;
    assert!(matches!(taken, Err(Error::StompError(_))), "{taken:?}");
}

#[tokio::test]
async fn m10_a_callee_that_goes_away_cancels_its_calls() {
    let (broker, mut stomp, mut wamp) = house().await;
    let mut callee = stomp_in(&broker, Version::V10).await;
    listen(&mut callee, "/procedure/p", "1").await;
    let request = begin_call(&mut wamp, "p", &Said::default()).await;
    stomp_call(&mut stomp, "p", "one", "").await;
    message(&mut callee).await;
    message(&mut callee).await;
    drop(callee);
    let canceled = end_call(&mut wamp, request).await.unwrap_err();
    assert_eq!(canceled.uri(), Some("wamp.error.canceled"));
    let canceled = message(&mut stomp).await;
    assert_eq!(header(&canceled, "error"), Some("wamp.error.canceled"));
    assert_eq!(header(&canceled, "correlation-id"), Some("one"));
}

#[tokio::test]
async fn m10_stomp_serves_patterns_of_procedures() {
    let (_broker, mut callee, mut caller) = house().await;
    listen(&mut callee, "/procedure/p.*", "1").await;
    let request = begin_call(&mut caller, "p.x", &Said::default()).await;
    let asked = message(&mut callee).await;
    assert_eq!(header(&asked, "destination"), Some("/procedure/p.x"));
    let reply_to = header(&asked, "reply-to").unwrap().to_owned();
    send(&mut callee, &reply_to, &[], b"").await;
    assert_eq!(end_call(&mut caller, request).await.unwrap(), Said::default());
}

// ----------------------------------------------------------------------------------------- publications

#[tokio::test]
async fn m11_a_receipt_confirms_what_acknowledge_does() {
    let (_broker, mut stomp, mut wamp) = house().await;
    subscribe(&mut wamp, "t").await;
    listen(&mut stomp, "/topic/t", "1").await;
    // The helpers wait for RECEIPT and for PUBLISHED.
    send_text(&mut stomp, "/topic/t", "from STOMP").await;
    say(&mut wamp, "t", "from WAMP").await;
    assert_eq!(heard(&mut wamp).await, only("from STOMP"));
    assert_eq!((read(&mut stomp).await, read(&mut stomp).await), ("from STOMP".into(), "from WAMP".into()));
}

#[tokio::test]
async fn m12_a_publication_has_one_number() {
    let (broker, mut stomp, mut wamp) = house().await;
    let mut other = wamp_in(&broker, Cbor).await;
    subscribe(&mut other, "t").await;
    listen(&mut stomp, "/topic/t", "1").await;
    let published = say(&mut wamp, "t", "one").await;
    assert_eq!(event(&mut other).await.publication, published);
    let frame = message(&mut stomp).await;
    assert_eq!(header(&frame, "message-id"), Some(published.get().to_string().as_str()));
    send_text(&mut stomp, "/topic/t", "two").await;
    let publication = event(&mut other).await.publication.get().to_string();
    assert_eq!(header(&message(&mut stomp).await, "message-id"), Some(publication.as_str()));
}

#[tokio::test]
async fn m13_a_publisher_gets_its_own_in_stomp_and_does_not_in_wamp_unless_it_says_otherwise() {
    let (_broker, mut stomp, mut wamp) = house().await;
    subscribe(&mut wamp, "t").await;
    listen(&mut stomp, "/topic/t", "all").await;
    soon("RECEIPT", stomp.subscribe("/topic/t", "others", AckMode::Auto, &[("no-local", "true")]))
        .await
        .unwrap();
    let careful = stomp.subscribe("/topic/t", "careful", AckMode::Client, &[("no-local", "true")]);
    soon("RECEIPT", careful).await.unwrap();

    send_text(&mut stomp, "/topic/t", "from STOMP").await;
    let own = message(&mut stomp).await;
    assert_eq!((header(&own, "subscription"), text(&own).as_str()), (Some("all"), "from STOMP"));
    assert_eq!(heard(&mut wamp).await, only("from STOMP"));

    say(&mut wamp, "t", "excluded").await;
    publish(&mut wamp, "t", Dict::new().with("exclude_me", false), &only("included")).await;
    assert_eq!(heard(&mut wamp).await, only("included"));
    let mut got = BTreeSet::new();
    for _ in 0..6 {
        let frame = message(&mut stomp).await;
        got.insert((header(&frame, "subscription").unwrap().to_owned(), text(&frame)));
    }
    let ids = ["all", "others", "careful"];
    let expected = ids.iter().flat_map(|id| ["excluded", "included"].map(|body| (*id, body)));
    assert_eq!(got, expected.map(|(id, body)| (id.to_owned(), body.to_owned())).collect());
}

#[tokio::test]
async fn m14_a_temporary_queue_is_for_answers_to_its_session() {
    let (broker, mut asker, mut wamp) = house().await;
    let mut worker = stomp_in(&broker, Version::V11).await;
    listen(&mut worker, "/queue/work", "1").await;
    let headers = [("reply-to", "/temp-queue/x"), ("correlation-id", "7")];
    send(&mut asker, "/queue/work", &headers, b"question").await;
    let asked = message(&mut worker).await;
    let reply_to = header(&asked, "reply-to").unwrap().to_owned();
    let opaque = reply_to.strip_prefix("/reply-queue/").unwrap();
    send(&mut worker, &reply_to, &[("correlation-id", "7")], b"answer").await;
    let answered = message(&mut asker).await;
    assert_eq!(header(&answered, "subscription"), Some("/temp-queue/x"));
    assert_eq!((header(&answered, "correlation-id"), text(&answered).as_str()), (Some("7"), "answer"));

    // A WAMP peer answers by the queue's name, and cannot take from it.
    let queue = format!("tandem.reply.{opaque}");
    call(&mut wamp, "tandem.queue.send", &args(json!([queue, "too"]))).await.unwrap();
    assert_eq!(read(&mut asker).await, "too");
    assert!(call(&mut wamp, "tandem.queue.receive", &only(queue.as_str())).await.is_err());
    let taken = soon("ERROR", worker.subscribe(&reply_to, "2", AckMode::Auto, &[])).await;
    assert!(matches!(taken, Err(Error::StompError(_))), "{taken:?}");
}

#[tokio::test]
async fn m15_a_topic_keeps_its_last_message_for_both_languages() {
    let (broker, mut stomp, mut wamp) = house().await;
    publish(&mut wamp, "by.wamp", Dict::new().with("retain", true), &only("old")).await;
    publish(&mut wamp, "by.wamp", Dict::new().with("retain", true), &only("new")).await;
    let retain = [("retain", "set"), ("content-type", "text/plain"), ("colour", "blue")];
    send(&mut stomp, "/topic/by.stomp", &retain, b"kept").await;
    // It changes nothing.
    say(&mut wamp, "by.wamp", "in passing").await;

    let wanted = Dict::new().with("get_retained", true);
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut wamp, mut stomp) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        for (topic, kept) in [("by.wamp", "new"), ("by.stomp", "kept")] {
            soon("SUBSCRIBED", wamp.subscribe_with(topic, wanted.clone())).await.unwrap();
            let event = event(&mut wamp).await;
            assert_eq!(event.details.bool("retained"), Ok(Some(true)));
            assert_eq!(Said::read(&event.payload), only(kept));
            let (destination, headers) = (format!("/topic/{topic}"), [("x-get-retained", "true")]);
            soon("RECEIPT", stomp.subscribe(&destination, topic, AckMode::Auto, &headers)).await.unwrap();
            let frame = message(&mut stomp).await;
            assert_eq!((header(&frame, "retained"), text(&frame).as_str()), (Some("true"), kept));
            assert_eq!(header(&frame, "retain"), None);
        }
    }
    for topic in ["by.wamp", "by.stomp"] {
        send(&mut stomp, &format!("/topic/{topic}"), &[("retain", "remove")], b"").await;
        soon("SUBSCRIBED", wamp.subscribe_with(topic, wanted.clone())).await.unwrap();
        send_text(&mut stomp, &format!("/topic/{topic}"), "after it").await;
        assert_eq!(heard(&mut wamp).await, only("after it"));
    }
}

// --------------------------------------------------------------------------- bodies that become arguments

/// What these become, for a WAMP peer of each encoding.
async fn assert_become(cases: &[Becoming<'_>]) {
    let broker = Broker::start().await;
    let mut stomp = stomp_in(&broker, Version::V12).await;
    for format in FORMATS {
        let mut wamp = wamp_in(&broker, format).await;
        subscribe(&mut wamp, "t").await;
        for (headers, body, expected) in cases {
            send(&mut stomp, "/topic/t", headers, body).await;
            let event = event(&mut wamp).await;
            assert_eq!(&Said::read(&event.payload), expected, "{headers:?} {body:?} in {format}");
            assert!(x_headers(&event.details).is_empty(), "{event:?}");
        }
    }
}

#[tokio::test]
async fn m20_a_structured_body_is_the_only_argument() {
    assert_become(&[
        (&[("content-type", "application/json")], b" {\"a\": [1, 2.5]} ", args(json!([{"a": [1, 2.5]}]))),
        (&[("content-type", "application/problem+json;charset=utf-8")], b"\"text\"", only("text")),
        (&[("content-type", "application/cbor")], b"\xa1\x61a\xf6", args(json!([{"a": null}]))),
        (&[("content-type", "application/msgpack")], b"\x92\x01\xc3", args(json!([[1, true]]))),
        (&[("content-type", "application/x-msgpack")], b"\xc4\x01\xff", only(&[0xff_u8][..])),
    ])
    .await;
}

#[tokio::test]
async fn m21_a_text_is_a_string() {
    assert_become(&[
        (&[("content-type", "text/plain")], b"[1]", only("[1]")),
        (&[("content-type", "text/html; charset=utf-8")], "<é>\n".as_bytes(), only("<é>\n")),
        (&[("content-type", "text/plain")], b"", only("")),
    ])
    .await;
}

#[tokio::test]
async fn m22_anything_else_is_bytes() {
    assert_become(&[
        (&[("content-type", "image/png")], b"\x89PNG\0", only(&b"\x89PNG\0"[..])),
        (&[], b"text", only(&b"text"[..])),
        (&[("content-type", "application/octet-stream")], b"", only(&b""[..])),
    ])
    .await;
}

#[tokio::test]
async fn m23_an_array_is_spread() {
    let spread = ("x-wamp-payload", "args");
    assert_become(&[
        (&[("content-type", "application/json"), spread], b"[1, [2]]", args(json!([1, [2]]))),
        (&[("content-type", "application/cbor"), spread], b"\x81\x41\x01", only(&[1_u8][..])),
        (&[("content-type", "application/msgpack"), spread], b"\x90", Said::default()),
    ])
    .await;
}

#[tokio::test]
async fn m24_a_map_is_keywords() {
    let named = ("x-wamp-payload", "kwargs");
    assert_become(&[
        (
            &[("content-type", "application/json"), named],
            b"{\"a\":[],\"b\":1}",
            said(json!([]), json!({"a":[],"b":1})),
        ),
        (
            &[("content-type", "application/msgpack"), named],
            b"\x81\xa1a\xc0",
            said(json!([]), json!({"a": null})),
        ),
    ])
    .await;
}

#[tokio::test]
async fn m25_the_full_form_is_both() {
    let (json_type, full) = (("content-type", "application/json"), ("x-wamp-payload", "full"));
    assert_become(&[
        (&[json_type, full], br#"{"args":[1],"kwargs":{"a":2}}"#, said(json!([1]), json!({"a": 2}))),
        (&[json_type, full], br#"{"kwargs":{"a":2}}"#, said(json!([]), json!({"a": 2}))),
        (&[json_type, full], b"{}", Said::default()),
        (&[("content-type", "application/cbor"), full], b"\xa1\x64args\x81\x01", args(json!([1]))),
    ])
    .await;
}

#[tokio::test]
async fn m26_nothing_is_no_arguments() {
    assert_become(&[
        (&[], b"", Said::default()),
        (&[("content-type", "application/json")], b"", Said::default()),
    ])
    .await;
}

// --------------------------------------------------------------------------- arguments that become a body

/// What a body says it is, and what it is.
type Read<'a> = (Option<&'a str>, Option<&'a str>, &'a [u8]);

/// What these become, from a WAMP peer of each encoding.
async fn assert_read(cases: &[(Said, Read<'_>)]) {
    let broker = Broker::start().await;
    let mut stomp = stomp_in(&broker, Version::V12).await;
    listen(&mut stomp, "/topic/t", "1").await;
    for format in FORMATS {
        let mut wamp = wamp_in(&broker, format).await;
        for (said, expected) in cases {
            publish(&mut wamp, "t", Dict::new(), said).await;
            let frame = message(&mut stomp).await;
            let found = (header(&frame, "content-type"), header(&frame, "x-wamp-payload"), &frame.body[..]);
            assert_eq!(found, *expected, "{said:?} in {format}");
        }
    }
}

#[tokio::test]
async fn m30_a_string_is_a_text() {
    let plain = Some("text/plain");
    assert_read(&[
        (only("é\r\n\0"), (plain, None, "é\r\n\0".as_bytes())),
        (only("[1]"), (plain, None, b"[1]")),
        (only(""), (plain, None, b"")),
    ])
    .await;
}

#[tokio::test]
async fn m31_bytes_are_bytes() {
    let binary = Some("application/octet-stream");
    assert_read(&[(only(&b"\0\xff"[..]), (binary, None, b"\0\xff")), (only(&b""[..]), (binary, None, b""))])
        .await;
}

#[tokio::test]
async fn m32_another_only_argument_is_json() {
    let json = Some("application/json");
    assert_read(&[
        (args(json!([null])), (json, None, b"null")),
        (args(json!([true])), (json, None, b"true")),
        (args(json!([-1])), (json, None, b"-1")),
        (args(json!([0.5])), (json, None, b"0.5")),
        (args(json!([[1, "a"]])), (json, None, b"[1,\"a\"]")),
        (args(json!([{"a": {}}])), (json, None, b"{\"a\":{}}")),
    ])
    .await;
}

#[tokio::test]
async fn m33_no_arguments_are_no_body() {
    assert_read(&[(Said::default(), (None, None, b""))]).await;
}

#[tokio::test]
async fn m34_anything_else_is_the_full_form() {
    let (json, full) = (Some("application/json"), Some("full"));
    assert_read(&[
        (args(json!([1, "a"])), (json, full, br#"{"args":[1,"a"],"kwargs":{}}"#)),
        (said(json!([]), json!({"a": 1})), (json, full, br#"{"args":[],"kwargs":{"a":1}}"#)),
        (said(json!(["x"]), json!({"a": [1]})), (json, full, br#"{"args":["x"],"kwargs":{"a":[1]}}"#)),
    ])
    .await;
}

// ------------------------------------------------------------------------------------------ there and back

/// What can be said in all three encodings.
fn sayings() -> Vec<Said> {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let nested =
        Value::Map(vec![("bytes".into(), bytes(b"\0\xff")), ("list".into(), vec![bytes(b"")].into())]);
    let mut sayings = vec![
        Said::default(),
        only(""),
        only("plain"),
        only("{\"looks\": \"like JSON\"}"),
        only("é \u{1f980} \" \\ \u{7f} \u{2028} \r\n a\0b"),
        only(bytes(b"")),
        only(bytes(b"\0\x01\xfe\xff")),
        only(bytes(b"text in bytes")),
        only(nested.clone()),
        Said { args: vec![bytes(b"a"), "b".into()], kwargs: vec![("c".into(), nested)] },
        only(u64::MAX),
        only(i64::MIN),
        args(json!([9_007_199_254_740_993_u64, -1, 0, 1.0, -0.5, 1e300, 5e-324, 0.1])),
        args(json!([1.0])),
    ];
    for json in [
        json!([null]),
        json!([true]),
        json!([[]]),
        json!([{}]),
        json!([[1, [2, [3, {"a": [null, false]}]]]]),
        json!([{"args": [1], "kwargs": {"a": 2}}]),
        json!([1, 2]),
        json!(["a", "b"]),
        json!([[], []]),
    ] {
        sayings.extend([args(json.clone()), said(json, json!({"b": 1, "a": {"c": ["d", ""]}}))]);
    }
    sayings.push(said(json!([]), json!({"args": [], "": "empty"})));
    sayings
}

/// Sends a message on as it was received, less what a router answers for.
async fn forward(stomp: &mut Stomp, frame: &Frame, destination: &str) {
    let ours = ["destination", "message-id", "subscription", "content-length"];
    let headers: Vec<_> = frame.headers.iter().filter(|(name, _)| !ours.contains(name)).collect();
    send(stomp, destination, &headers, &frame.body).await;
}

#[tokio::test]
async fn m35_arguments_that_cross_twice_come_back() {
    let broker = Broker::start().await;
    let mut back = Vec::new();
    for format in FORMATS {
        let mut wamp = wamp_in(&broker, format).await;
        subscribe(&mut wamp, "back").await;
        back.push(wamp);
    }
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut wamp, mut stomp) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        listen(&mut stomp, "/topic/there", "1").await;
        for said in sayings() {
            publish(&mut wamp, "there", with_headers(&[("colour", "blue")]), &said).await;
            let frame = message(&mut stomp).await;
            forward(&mut stomp, &frame, "/topic/back").await;
            for back in &mut back {
                let event = event(back).await;
                assert_eq!(Said::read(&event.payload), said, "{format} to {}", back.format());
                assert_eq!(x_headers(&event.details), [("colour", "blue")]);
            }
        }
    }
}

#[tokio::test]
async fn m35_a_body_that_crosses_twice_comes_back_in_its_plainest_form() {
    let broker = Broker::start().await;
    let mut stomp = stomp_in(&broker, Version::V12).await;
    listen(&mut stomp, "/topic/back", "1").await;
    let (json, full) = (("content-type", "application/json"), ("x-wamp-payload", "full"));
    fn plainly<'a>(content_type: &'a str, body: &'a [u8]) -> Read<'a> {
        (Some(content_type), None, body)
    }
    let cases: [(Headers<'_>, &[u8], Read<'_>); 13] = [
        (&[], b"", (None, None, b"")),
        (&[], b"\0\xff", plainly("application/octet-stream", b"\0\xff")),
        (&[("content-type", "image/png")], b"PNG", plainly("application/octet-stream", b"PNG")),
        (&[("content-type", "text/plain")], "é\r\n".as_bytes(), plainly("text/plain", "é\r\n".as_bytes())),
        (&[("content-type", "text/plain")], b"", plainly("text/plain", b"")),
        (&[("content-type", "text/html")], b"<p>", plainly("text/plain", b"<p>")),
        (&[json], br#"{"a":[1,2.0,null]}"#, plainly("application/json", br#"{"a":[1,2.0,null]}"#)),
        (&[json], br#""text""#, plainly("text/plain", b"text")),
        (&[json], br#""\u0000/w==""#, plainly("application/octet-stream", b"\xff")),
        (&[("content-type", "application/cbor")], b"\x82\x01\xf4", plainly("application/json", b"[1,false]")),
        (&[json, ("x-wamp-payload", "args")], b"[5]", plainly("application/json", b"5")),
        (
            &[json, full],
            br#"{"kwargs":{"a":1},"args":["b"]}"#,
            (Some("application/json"), Some("full"), br#"{"args":["b"],"kwargs":{"a":1}}"#),
        ),
        (&[json, full], br#"{"args":[]}"#, (None, None, b"")),
    ];
    for format in FORMATS {
        let mut wamp = wamp_in(&broker, format).await;
        subscribe(&mut wamp, "there").await;
        for (headers, body, expected) in &cases {
            let marked: Vec<_> = headers.iter().copied().chain([("mark", "a: b\n\\c")]).collect();
            send(&mut stomp, "/topic/there", &marked, body).await;
            let event = event(&mut wamp).await;
            let options = with_headers(&x_headers(&event.details));
            publish(&mut wamp, "back", options, &Said::read(&event.payload)).await;
            let frame = message(&mut stomp).await;
            let found = (header(&frame, "content-type"), header(&frame, "x-wamp-payload"), &frame.body[..]);
            assert_eq!(found, *expected, "{headers:?} {body:?} by way of {format}");
            assert_eq!(header(&frame, "mark"), Some("a: b\n\\c"));
        }
    }
}

#[tokio::test]
async fn m35_a_message_in_a_queue_crosses_as_one_on_a_topic_does() {
    let broker = Broker::start().await;
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut wamp, mut stomp) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        listen(&mut stomp, "/queue/there", "1").await;
        for said in sayings() {
            let mut sent = said.clone();
            sent.args.insert(0, "there".into());
            call(&mut wamp, "tandem.queue.send", &sent).await.unwrap();
            let frame = message(&mut stomp).await;
            forward(&mut stomp, &frame, "/queue/back").await;
            let received = receive(&mut wamp, "back").await;
            assert_eq!(received.said, said, "{format}");
            settle(&mut wamp, "tandem.queue.ack", received).await;
        }
    }
}

#[tokio::test]
async fn m36_bytes_in_json_are_base64_after_a_nul() {
    let (broker, mut stomp, mut json) = house().await;
    subscribe(&mut json, "t").await;
    let raw = |content: &Content| match content {
        Content::Arguments(arguments) => arguments.args.clone(),
        other => panic!("{other:?}"),
    };
    for format in [MsgPack, Cbor] {
        let mut binary = wamp_in(&broker, format).await;
        subscribe(&mut binary, "t").await;
        let list = |byte| args(json!([])).with_list(Value::Bytes(vec![byte]));
        publish(&mut binary, "t", Dict::new(), &list(1)).await;
        assert_eq!(raw(&event(&mut json).await.payload), r#"[["\u0000AQ=="]]"#);
        publish(&mut json, "t", Dict::new(), &list(2)).await;
        assert_eq!(heard(&mut binary).await, list(2));
        let body = br#"["\u0000Aw=="]"#;
        send(&mut stomp, "/topic/t", &[("content-type", "application/json")], body).await;
        assert_eq!(heard(&mut binary).await, list(3));
        assert_eq!(heard(&mut json).await, list(3));
    }
}

impl Said {
    /// With one more argument, a list of one value.
    fn with_list(mut self, value: Value) -> Said {
        self.args.push(Value::Array(vec![value]));
        self
    }
}

#[tokio::test]
async fn m37_what_an_encoding_cannot_say_is_not_delivered_in_it() {
    let (broker, mut stomp, mut json) = house().await;
    let (mut msgpack, mut cbor) = (wamp_in(&broker, MsgPack).await, wamp_in(&broker, Cbor).await);
    listen(&mut stomp, "/topic/t", "1").await;
    subscribe(&mut json, "t").await;
    subscribe(&mut cbor, "t").await;
    let before = metrics::UNCONVERTIBLE.get();
    let keys = Value::Map(vec![(Value::from(1), Value::from(2))]);
    for unsayable in [Value::Float(f64::INFINITY), keys] {
        let said = only(unsayable);
        publish(&mut msgpack, "t", Dict::new(), &said).await;
        say(&mut msgpack, "t", "after it").await;
        assert_eq!((heard(&mut cbor).await, heard(&mut cbor).await), (said, only("after it")));
        assert_eq!(heard(&mut json).await, only("after it"));
        assert_eq!(read(&mut stomp).await, "after it");
    }
    assert!(metrics::UNCONVERTIBLE.get() >= before + 4);
}

#[tokio::test]
async fn m37_a_queue_keeps_it_for_others_if_wamp_asks_and_drops_it_if_stomp_does() {
    let (broker, mut stomp, mut json) = house().await;
    let mut cbor = wamp_in(&broker, Cbor).await;
    let unsayable = Said { args: vec!["q".into(), Value::Float(f64::INFINITY)], kwargs: Vec::new() };
    call(&mut cbor, "tandem.queue.send", &unsayable).await.unwrap();
    let refused = call(&mut json, "tandem.queue.receive", &only("q")).await.unwrap_err();
    assert_eq!(refused.uri(), Some("wamp.error.invalid_payload"));
    let received = receive(&mut cbor, "q").await;
    assert_eq!(received.said, only(f64::INFINITY));
    settle(&mut cbor, "tandem.queue.nack", received).await;
    consume(&mut stomp, "/queue/q", "1").await;
    call(&mut cbor, "tandem.queue.send", &args(json!(["q", "after it"]))).await.unwrap();
    assert_eq!(read(&mut stomp).await, "after it");
}

#[tokio::test]
async fn m37_a_body_that_is_not_what_it_claims_reaches_no_wamp_peer() {
    let (broker, mut stomp, mut wamp) = house().await;
    let mut other = stomp_in(&broker, Version::V11).await;
    listen(&mut other, "/topic/t", "1").await;
    subscribe(&mut wamp, "t").await;
    for (headers, body) in [
        (&[("content-type", "application/json")][..], &b"{"[..]),
        (&[("content-type", "text/plain")], b"\xff"),
        (&[("content-type", "application/json"), ("x-wamp-payload", "args")], b"{}"),
        (&[("x-wamp-payload", "args")], b"[]"),
    ] {
        send(&mut stomp, "/topic/t", headers, body).await;
        send_text(&mut stomp, "/topic/t", "after it").await;
        assert_eq!(heard(&mut wamp).await, only("after it"));
        // Within its own language it is only bytes.
        assert_eq!(message(&mut other).await.body, body);
        assert_eq!(read(&mut other).await, "after it");
    }
}

#[tokio::test]
async fn m37_a_caller_is_told() {
    let (broker, mut stomp, mut json) = house().await;
    let mut cbor = wamp_in(&broker, Cbor).await;
    let unsayable = only(Value::Float(f64::NAN));
    register(&mut cbor, "by.cbor").await;
    register(&mut json, "by.json").await;
    listen(&mut stomp, "/procedure/by.stomp", "1").await;
    for procedure in ["by.json", "by.stomp"] {
        // The callee need not be asked: its session reads no more than the router writes.
        let request = begin_call(&mut cbor, procedure, &unsayable).await;
        let refused = end_call(&mut cbor, request).await.unwrap_err();
        assert_eq!(refused.uri(), Some("wamp.error.invalid_argument"), "{procedure}");
    }
    let headers = [ANSWERS, ("content-type", "application/json")];
    send(&mut stomp, "/call/by.cbor", &headers, b"{").await;
    assert_eq!(header(&message(&mut stomp).await, "error"), Some("wamp.error.invalid_argument"));

    stomp_call(&mut stomp, "by.cbor", "1", "").await;
    let asked = invocation(&mut cbor).await;
    answer(&mut cbor, &asked, Dict::new(), &unsayable).await;
    assert_eq!(header(&message(&mut stomp).await, "error"), Some("wamp.error.invalid_payload"));
    let request = begin_call(&mut json, "by.cbor", &Said::default()).await;
    let asked = invocation(&mut cbor).await;
    answer(&mut cbor, &asked, Dict::new(), &unsayable).await;
    assert_eq!(end_call(&mut json, request).await.unwrap_err().uri(), Some("wamp.error.invalid_payload"));
}

#[tokio::test]
async fn m37_progress_that_its_caller_cannot_read_ends_the_call() {
    let broker = Broker::start().await;
    let (mut caller, mut callee) = (wamp_in(&broker, Json).await, wamp_in(&broker, Cbor).await);
    register(&mut callee, "p").await;
    let options = Dict::new().with("receive_progress", true);
    let request = caller.begin_call("p", options, Said::default().written(Json)).await.unwrap();
    caller.flush().await.unwrap();
    let asked = invocation(&mut callee).await;
    let progress = Dict::new().with("progress", true);
    // All that is in one write reaches the caller's session at once.
    for said in [only(Value::Float(f64::NAN)), only("further"), only(Value::Float(f64::NAN))] {
        callee.yield_(asked.request, progress.clone(), said.written(Cbor)).await.unwrap();
    }
    callee.flush().await.unwrap();
    let refused = end_call(&mut caller, request).await.unwrap_err();
    assert_eq!(refused.uri(), Some("wamp.error.invalid_payload"));
    // What the callee says after it is for nobody.
    answer(&mut callee, &asked, Dict::new(), &only("too late")).await;
    let request = begin_call(&mut caller, "p", &Said::default()).await;
    let asked = invocation(&mut callee).await;
    answer(&mut callee, &asked, Dict::new(), &only("in time")).await;
    assert_eq!(end_call(&mut caller, request).await.unwrap(), only("in time"));
    assert_eq!(caller.queued(), 0);
}

// ------------------------------------------------------------------------------------ what travels beside

#[tokio::test]
async fn m38_what_is_too_long_for_a_wamp_peer_is_said_to_be_so_to_whoever_waits_for_it() {
    const TOO_LONG: &str = "wamp.error.payload_size_exceeded";
    let (broker, mut stomp, _) = house().await;
    let long = "x".repeat(2048);
    let wire = connect_rawsocket(broker.address(), MsgPack, Limit::at_most(2048).unwrap()).await.unwrap();
    let mut small = soon("WELCOME", Wamp::join(wire, MsgPack, "realm1", &Login::Anonymous)).await.unwrap();
    subscribe(&mut small, "t").await;
    send(&mut stomp, "/topic/t", &[("colour", "red")], long.as_bytes()).await;
    send_text(&mut stomp, "/topic/t", "short").await;
    let event = event(&mut small).await;
    assert_eq!(event.details, Dict::new().with("payload_limit_exceeded", true));
    assert_eq!(heard(&mut small).await, only("short"));

    register(&mut small, "p").await;
    stomp_call(&mut stomp, "p", "1", &long).await;
    assert_eq!(header(&message(&mut stomp).await, "error"), Some(TOO_LONG));
    listen(&mut stomp, "/procedure/q", "1").await;
    let request = begin_call(&mut small, "q", &Said::default()).await;
    let asked = message(&mut stomp).await;
    send(&mut stomp, header(&asked, "reply-to").unwrap(), &[], long.as_bytes()).await;
    assert_eq!(end_call(&mut small, request).await.unwrap_err().uri(), Some(TOO_LONG));

    send(&mut stomp, "/queue/q", &[], long.as_bytes()).await;
    send_text(&mut stomp, "/queue/q", "short").await;
    let refused = call(&mut small, "tandem.queue.receive", &only("q")).await.unwrap_err();
    assert_eq!(refused.uri(), Some(TOO_LONG));
    assert_eq!(receive(&mut small, "q").await.said, only("short"));
}

#[tokio::test]
async fn m40_headers_are_x_headers() {
    let broker = Broker::start().await;
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut wamp, mut stomp) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        subscribe(&mut wamp, "t").await;
        listen(&mut stomp, "/topic/t", "1").await;
        let own = [("colour", "blue"), ("priority", "4"), ("correlation-id", "é"), ("empty", "")];
        let defined = [("content-type", "text/plain"), ("receipt", "r")];
        let frame = [&own[..], &defined[..]].concat();
        let frame =
            frame.iter().fold(Frame::new(Command::Send), |frame, (name, value)| frame.with(name, value));
        soon("SEND", stomp.send_frame(&frame.with("destination", "/topic/t"))).await.unwrap();
        let event = event(&mut wamp).await;
        assert_eq!(x_headers(&event.details).into_iter().collect::<BTreeSet<_>>(), own.into());
        message(&mut stomp).await;

        publish(&mut wamp, "t", with_headers(&own), &Said::default()).await;
        let frame = message(&mut stomp).await;
        for (name, value) in own {
            assert_eq!(header(&frame, name), Some(value));
        }
    }
}

#[tokio::test]
async fn m40_of_repeated_headers_the_first_counts() {
    let (_broker, mut stomp, mut wamp) = house().await;
    subscribe(&mut wamp, "t").await;
    send(&mut stomp, "/topic/t", &[("colour", "blue"), ("colour", "red")], b"").await;
    assert_eq!(x_headers(&event(&mut wamp).await.details), [("colour", "blue")]);
}

#[tokio::test]
async fn m41_payload_options_pass_untouched_and_are_headers_in_stomp() {
    let (broker, mut stomp, mut wamp) = house().await;
    let mut other = wamp_in(&broker, MsgPack).await;
    subscribe(&mut other, "t").await;
    listen(&mut stomp, "/topic/t", "1").await;
    let options = [("ppt_scheme", "x_mine"), ("ppt_serializer", "cbor"), ("ppt_keyid", "k")];
    let dict = options.iter().fold(Dict::new(), |dict, (name, value)| dict.with(*name, *value));
    publish(&mut wamp, "t", dict.clone(), &only(&b"\xff"[..])).await;
    let event_there = event(&mut other).await;
    assert_eq!((&event_there.details, Said::read(&event_there.payload)), (&dict, only(&b"\xff"[..])));
    let frame = message(&mut stomp).await;
    for (name, value) in options {
        assert_eq!(header(&frame, name), Some(value));
    }
    forward(&mut stomp, &frame, "/topic/t").await;
    let back = event(&mut other).await;
    assert_eq!((&back.details, Said::read(&back.payload)), (&dict, only(&b"\xff"[..])));
}

#[tokio::test]
async fn m41_a_transparent_payload_crosses_and_comes_back() {
    let (broker, mut stomp, mut wamp) = house().await;
    let mut others = vec![wamp_in(&broker, MsgPack).await, wamp_in(&broker, Cbor).await];
    listen(&mut stomp, "/topic/there", "1").await;
    for other in &mut others {
        subscribe(other, "there").await;
        subscribe(other, "back").await;
    }
    let (request, topic) = (wamp.take_request(), "there".to_owned());
    let options = Dict::new().with("enc_algo", "cryptobox");
    let payload = Content::Opaque(b"\x01\x02".as_slice().into());
    let publish = message::Publish { request, options: options.clone(), topic, payload: payload.clone() };
    wamp.send(publish).await.unwrap();
    let frame = message(&mut stomp).await;
    assert_eq!((header(&frame, "enc_algo"), &frame.body[..]), (Some("cryptobox"), &b"\x01\x02"[..]));
    forward(&mut stomp, &frame, "/topic/back").await;
    for other in &mut others {
        for _ in ["there", "back"] {
            let event = event(other).await;
            assert_eq!((event.details, event.payload), (options.clone(), payload.clone()));
        }
    }
}

/// Headers that only a router says.
const FORGED: [&str; 15] = [
    "ack",
    "content-length",
    "destination",
    "login",
    "passcode",
    "message-id",
    "receipt-id",
    "redelivered",
    "sender",
    "subscription",
    "transaction",
    "user-name",
    "x-publisher",
    "x-trust-level",
    "x-wamp-payload",
];

#[tokio::test]
async fn m42_a_publisher_cannot_speak_for_the_router() {
    let broker = Broker::start().await;
    let mut wamp = wamp_in(&broker, Cbor).await;
    let forged = FORGED.map(|name| (name, "forged"));
    for version in VERSIONS {
        let mut stomp = stomp_in(&broker, version).await;
        listen(&mut stomp, "/topic/t", "1").await;
        listen(&mut stomp, "/queue/q", "2").await;
        listen(&mut stomp, "/procedure/p", "3").await;
        let queued = args(json!(["q", "body"])).written(Cbor);
        publish(&mut wamp, "t", with_headers(&forged), &only("body")).await;
        soon("RESULT", wamp.call_with("tandem.queue.send", with_headers(&forged), queued)).await.unwrap();
        let called = wamp.begin_call("p", with_headers(&forged), only("body").written(Cbor)).await.unwrap();
        wamp.flush().await.unwrap();
        for _ in ["t", "q", "p"] {
            let frame = message(&mut stomp).await;
            assert_eq!(text(&frame), "body");
            assert!(frame.headers.iter().all(|(_, value)| value != "forged"), "{frame:?}");
            if let Some(reply_to) = header(&frame, "reply-to").map(str::to_owned) {
                send(&mut stomp, &reply_to, &[], b"").await;
            }
        }
        end_call(&mut wamp, called).await.unwrap();
    }
}

#[tokio::test]
async fn m42_a_sender_cannot_speak_for_the_router() {
    let broker = Broker::start().await;
    let mut wamp = wamp_in(&broker, Json).await;
    subscribe(&mut wamp, "t").await;
    let mut reader = stomp_in(&broker, Version::V12).await;
    listen(&mut reader, "/topic/t", "1").await;
    let mut stomp = stomp_in(&broker, Version::V11).await;
    let known = ["content-length", "destination", "message-id", "transaction", "x-wamp-payload"];
    let forged: Vec<_> =
        FORGED.iter().filter(|name| !known.contains(name)).map(|name| (*name, "forged")).collect();
    send(&mut stomp, "/topic/t", &forged, b"body").await;
    assert!(x_headers(&event(&mut wamp).await.details).is_empty());
    let frame = message(&mut reader).await;
    assert!(frame.headers.iter().all(|(_, value)| value != "forged"), "{frame:?}");
    let refused = soon("ERROR", stomp.send_with_receipt("/topic/t", &[("message-id", "1")], "")).await;
    assert!(matches!(refused, Err(Error::StompError(_))), "{refused:?}");
}

#[tokio::test]
async fn m42_nothing_gets_into_a_frame_by_way_of_a_header() {
    let broker = Broker::start().await;
    let mut wamp = wamp_in(&broker, MsgPack).await;
    for version in VERSIONS {
        let mut stomp = stomp_in(&broker, version).await;
        listen(&mut stomp, "/topic/t", "1").await;
        let injected =
            [("a", "b\nevil:1"), ("c\nevil", "1"), ("d:evil", "1"), ("e", "\r\nevil:1"), ("f", "\0")];
        publish(&mut wamp, "t", with_headers(&injected), &only("body")).await;
        let frame = message(&mut stomp).await;
        assert_eq!((header(&frame, "evil"), text(&frame).as_str()), (None, "body"));
        stomp.unsubscribe("1").await.unwrap();
    }
}

#[tokio::test]
async fn m42_only_an_error_of_the_callee_is_an_error() {
    let (_broker, mut caller, mut callee) = house().await;
    register(&mut callee, "p").await;
    let pretending = with_headers(&[("error", "a.b"), ("correlation-id", "x"), ("reply-to", "/topic/x")]);
    send(&mut caller, "/call/p", &[ANSWERS], b"").await;
    let asked = invocation(&mut callee).await;
    answer(&mut callee, &asked, pretending.clone(), &only("fine")).await;
    let answered = message(&mut caller).await;
    assert_eq!(text(&answered), "fine");
    for name in ["error", "correlation-id", "reply-to"] {
        assert_eq!(header(&answered, name), None, "{name}");
    }
    // Nor is a call one.
    listen(&mut caller, "/procedure/q", "1").await;
    callee.begin_call("q", pretending, Said::default().written(Json)).await.unwrap();
    callee.flush().await.unwrap();
    let asked = message(&mut caller).await;
    assert_eq!(header(&asked, "error"), None);
}

// ----------------------------------------------------------------------------------------------- errors

#[tokio::test]
async fn m43_a_stomp_subscriber_gets_the_events_of_all_keys_and_a_wamp_node_its_own() {
    let (broker, mut stomp, mut publisher) = house().await;
    listen(&mut stomp, "/topic/t", "1").await;
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        let mut node = wamp_in(&broker, Cbor).await;
        let options = Dict::new().with("nkey", name);
        soon("SUBSCRIBED", node.subscribe_with("t", options)).await.unwrap();
        nodes.push(node);
    }
    let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
    for key in &keys {
        publish(&mut publisher, "t", Dict::new().with("rkey", key.as_str()), &only(key.as_str())).await;
        assert_eq!(read(&mut stomp).await, *key);
    }
    // An event without a key comes last to all.
    say(&mut publisher, "t", "end").await;
    let mut all = BTreeSet::new();
    for node in &mut nodes {
        let before = all.len();
        loop {
            let Value::Text(key) = heard(node).await.args.remove(0) else { panic!("no key") };
            if key == "end" {
                break;
            }
            assert!(all.insert(key), "only one of them gets it");
        }
        assert!(all.len() > before, "each has some");
    }
    assert_eq!(all, keys.into_iter().collect());
}

#[tokio::test]
async fn m50_an_error_answers_a_stomp_caller_and_keeps_its_connection() {
    let broker = Broker::start().await;
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut callee, mut caller) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        register(&mut callee, "p").await;
        stomp_call(&mut caller, "p", "one", "").await;
        let asked = invocation(&mut callee).await;
        let why = said(json!(["too late"]), json!({"by": 5})).written(format);
        callee.error(asked.request, "com.example.late", why).await.unwrap();
        callee.flush().await.unwrap();
        let answered = message(&mut caller).await;
        assert_eq!(header(&answered, "error"), Some("com.example.late"));
        assert_eq!(header(&answered, "correlation-id"), Some("one"));
        assert_eq!(text(&answered), r#"{"args":["too late"],"kwargs":{"by":5}}"#);

        stomp_call(&mut caller, "nobody.serves", "two", "").await;
        let answered = message(&mut caller).await;
        assert_eq!(header(&answered, "error"), Some("wamp.error.no_such_procedure"));
        assert_eq!(header(&answered, "correlation-id"), Some("two"));
        assert_eq!(header(&answered, "content-type"), Some("text/plain"));
        assert!(!text(&answered).is_empty());
    }
}

#[tokio::test]
async fn m50_an_error_goes_where_its_caller_wants_it() {
    let (_broker, mut stomp, mut wamp) = house().await;
    subscribe(&mut wamp, "answers").await;
    send(&mut stomp, "/call/nobody", &[("reply-to", "/topic/answers"), ("correlation-id", "1")], b"").await;
    let event = event(&mut wamp).await;
    let headers: BTreeSet<_> = x_headers(&event.details).into_iter().collect();
    assert_eq!(headers, [("correlation-id", "1"), ("error", "wamp.error.no_such_procedure")].into());
}

#[tokio::test]
async fn m51_an_error_header_is_a_wamp_error() {
    let broker = Broker::start().await;
    for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
        let (mut caller, mut callee) = (wamp_in(&broker, format).await, stomp_in(&broker, version).await);
        listen(&mut callee, "/procedure/p", "1").await;
        let request = begin_call(&mut caller, "p", &Said::default()).await;
        let asked = message(&mut callee).await;
        let reply_to = header(&asked, "reply-to").unwrap().to_owned();
        let headers = [("error", "com.example.late"), ("content-type", "text/plain"), ("by", "5")];
        send(&mut callee, &reply_to, &headers, b"too late").await;
        let Error::Reply(error) = end_call(&mut caller, request).await.unwrap_err() else {
            panic!("no ERROR")
        };
        assert_eq!(error.error, "com.example.late");
        assert_eq!(Said::read(&error.payload), only("too late"));
        assert_eq!(x_headers(&error.details), [("by", "5")]);
    }
}

// ------------------------------------------------------------------------------------------------ order

const TOPICS: [&str; 4] = ["t.a", "t.b", "t.c", "u"];
const MESSAGES: usize = 2000;

/// Subscribers to all of the topics, in both languages and in every encoding.
struct Audience {
    wamps: Vec<Wamp>,
    stomps: Vec<Stomp>,
}

impl Audience {
    async fn at(broker: &Broker) -> Audience {
        let (mut wamps, mut stomps) = (Vec::new(), Vec::new());
        for (format, version) in FORMATS.into_iter().zip(VERSIONS) {
            let (mut wamp, mut stomp) = (wamp_in(broker, format).await, stomp_in(broker, version).await);
            soon("SUBSCRIBED", wamp.subscribe("t.", MatchPolicy::Wildcard)).await.unwrap();
            subscribe(&mut wamp, "u").await;
            listen(&mut stomp, "/topic/t.#", "1").await;
            listen(&mut stomp, "/topic/u", "2").await;
            wamps.push(wamp);
            stomps.push(stomp);
        }
        Audience { wamps, stomps }
    }

    async fn assert_heard_in_order(mut self) {
        for number in 0..MESSAGES {
            for wamp in &mut self.wamps {
                assert_eq!(heard(wamp).await, only(number.to_string()), "{}", wamp.format());
            }
            for stomp in &mut self.stomps {
                assert_eq!(read(stomp).await, number.to_string(), "{:?}", stomp.version());
            }
        }
    }
}

#[tokio::test]
async fn m60_what_a_wamp_peer_publishes_arrives_in_order() {
    let broker = Broker::start().await;
    let audience = Audience::at(&broker).await;
    let mut publisher = wamp_in(&broker, Cbor).await;
    for number in 0..MESSAGES {
        let arguments = only(number.to_string()).written(Cbor);
        publisher.publish(TOPICS[number % TOPICS.len()], Dict::new(), arguments).await.unwrap();
    }
    publisher.flush().await.unwrap();
    audience.assert_heard_in_order().await;
}

#[tokio::test]
async fn m60_what_a_stomp_peer_sends_arrives_in_order() {
    let broker = Broker::start().await;
    let audience = Audience::at(&broker).await;
    let mut publisher = stomp_in(&broker, Version::V11).await;
    for number in 0..MESSAGES {
        let destination = format!("/topic/{}", TOPICS[number % TOPICS.len()]);
        let headers = [("content-type", "text/plain")];
        publisher.send(&destination, &headers, number.to_string()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    audience.assert_heard_in_order().await;
}

#[tokio::test]
async fn m60_a_subscription_that_acknowledges_has_an_order_of_its_own() {
    let (broker, mut stomp, mut wamp) = house().await;
    let mut other = stomp_in(&broker, Version::V10).await;
    for (topic, mode) in [("t", AckMode::ClientIndividual), ("u", AckMode::Auto)] {
        let headers = [("prefetch-count", "1")];
        soon("RECEIPT", other.subscribe(&format!("/topic/{topic}"), topic, mode, &headers)).await.unwrap();
    }
    for text in ["one", "two"] {
        say(&mut wamp, "t", text).await;
    }
    send_text(&mut stomp, "/topic/u", "three").await;
    let one = message(&mut other).await;
    assert_eq!((text(&one).as_str(), read(&mut other).await.as_str()), ("one", "three"));
    other.ack(&one, None).await.unwrap();
    assert_eq!(read(&mut other).await, "two");
}

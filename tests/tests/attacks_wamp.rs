//! Attacks by WAMP, each named after the vulnerability that others had. The answer must be ERROR or ABORT, at
//! most the attacker's connection ends, and others do not notice.
//!
//! Not here, because there is nothing to attack yet: permissions and patterns with names of users in them
//! (CVE-2017-7650, NATS 2026-18), history and retained events (NATS 2026-26), `wamp.session.kill` and
//! testaments (there is no meta API), tokens and WAMP-CRA (only tickets), connections that the broker opens
//! (CVE-2026-27446: there are none).

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;

use tandem_client::raw::wamp::{Client, MatchPolicy};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::stomp::state::AckMode;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::Message;

use tandem_tests::attacker::{Bystanders, Raw, Watched, close_code, frame, frames, stomp, wamp};
use tandem_tests::broker::{Broker, eventually, soon};

const HELLO: &str = r#"[1,"realm1",{"roles":{"publisher":{},"subscriber":{},"caller":{},"callee":{}}}]"#;

/// What the broker answers in JSON, and the code that it closes with.
async fn answers(address: SocketAddr, messages: &[&str]) -> (Vec<String>, Option<u16>) {
    let socket = Raw::websocket(address, "wamp.2.json", "").await;
    let goodbye = [r#"[6,{},"wamp.close.normal"]"#];
    let said = messages.iter().chain(&goodbye).flat_map(|message| frame(0x81, message.as_bytes())).collect();
    let answer = socket.exchange(std::iter::once(said)).await;
    let texts = frames(&answer).into_iter().filter(|(first, _)| *first == 0x81);
    (texts.map(|(_, text)| String::from_utf8(text).unwrap()).collect(), close_code(&answer))
}

fn assert_abort((texts, code): &(Vec<String>, Option<u16>), what: &str) {
    let last = texts.last().map(String::as_str).unwrap_or_default();
    assert!(
        last.starts_with("[3,{") && last.ends_with(r#""wamp.error.protocol_violation"]"#),
        "{what}: {texts:?}"
    );
    assert_eq!(*code, Some(1002), "{what}");
}

/// CVE-2023-32081 (Vert.x), CVE-2021-28166 and CVE-2021-34432 (Mosquitto): what may not be said, or not yet.
#[tokio::test]
async fn messages_out_of_place_abort_the_session() {
    let broker = Broker::start().await;
    let address = broker.address();
    let mut bystanders = Bystanders::enter(address).await;
    for message in [
        r#"[2,1,{}]"#,
        r#"[4,"ticket",{}]"#,
        r#"[5,"",{}]"#,
        r#"[6,{},"wamp.close.normal"]"#,
        r#"[8,48,1,{},"a.b"]"#,
        r#"[16,1,{},"bystander.wamp",[0]]"#,
        r#"[17,1,1]"#,
        r#"[32,1,{},"a.b"]"#,
        r#"[33,1,1]"#,
        r#"[34,1,1]"#,
        r#"[35,1]"#,
        r#"[36,1,1,{}]"#,
        r#"[48,1,{},"a.b"]"#,
        r#"[49,1,{}]"#,
        r#"[50,1,{}]"#,
        r#"[64,1,{},"a.b"]"#,
        r#"[65,1,1]"#,
        r#"[66,1,1]"#,
        r#"[67,1]"#,
        r#"[68,1,1,{}]"#,
        r#"[69,1,{}]"#,
        r#"[70,1,{}]"#,
        "",
        "[]",
        "{}",
        "null",
        "[1",
        "[-1]",
        "[1.5]",
        "[18446744073709551617]",
        r#"["1","realm1",{}]"#,
        r#"[1,"realm1"]"#,
        r#"[1,"realm1",[]]"#,
        r#"[1,1,{}]"#,
        r#"[1,"realm1",{}] "#,
        r#"[1,"realm1",{}]x"#,
    ] {
        let first = answers(address, &[message]).await;
        let let_in = first.0.first().is_some_and(|text| text.starts_with("[2,"));
        // Blanks after a message are JSON's to allow; roles are not demanded of a client that uses none.
        if !(message.starts_with(r#"[1,"realm1",{}]"#) && let_in) {
            assert_abort(&first, message);
        }
        let then = matches!(
            message.get(..4),
            Some(
                "[2,1"
                    | "[4,\""
                    | "[5,\""
                    | "[17,"
                    | "[33,"
                    | "[35,"
                    | "[36,"
                    | "[50,"
                    | "[65,"
                    | "[67,"
                    | "[68,"
                    | "[69,"
            )
        );
        if then {
            assert_abort(&answers(address, &[HELLO, message]).await, message);
        }
    }
    assert_abort(&answers(address, &[HELLO, HELLO]).await, "HELLO twice");
    assert_abort(&answers(address, &[HELLO, r#"[8,48,1,{},"a.b"]"#]).await, "ERROR for a CALL");
    assert_abort(&answers(address, &[HELLO, r#"[70,7,{}]"#]).await, "YIELD out of nothing");
    bystanders.talk().await;
    eventually("all have gone", || broker.sessions() == 2).await;
}

/// Ids that are none: 0, negative, beyond 2^53, of other types.
#[tokio::test]
async fn ids_that_are_none_abort_the_session() {
    let broker = Broker::start().await;
    for id in [
        "0",
        "-1",
        "9007199254740993",
        "18446744073709551616",
        "1e400",
        "1.5",
        "true",
        "\"1\"",
        "null",
        "[1]",
        "{}",
    ] {
        for message in [
            format!(r#"[32,{id},{{}},"a.b"]"#),
            format!(r#"[16,{id},{{}},"a.b"]"#),
            format!(r#"[48,{id},{{}},"a.b"]"#),
            format!(r#"[64,{id},{{}},"a.b"]"#),
            format!(r#"[34,1,{id}]"#),
            format!(r#"[66,1,{id}]"#),
            format!(r#"[70,{id},{{}}]"#),
            format!(r#"[49,{id},{{}}]"#),
            format!(r#"[8,68,{id},{{}},"a.b"]"#),
        ] {
            assert_abort(&answers(broker.address(), &[HELLO, &message]).await, &message);
        }
    }
}

/// CVE-2021-34432 (Mosquitto): empty names; and names of any size and content.
#[tokio::test]
async fn names_that_are_none_are_refused() {
    let broker = Broker::start().await;
    let long = "a".repeat(513);
    let huge = "a.".repeat(200_000) + "a";
    let deep = "a.".repeat(64) + "a";
    for name in ["", ".", "a..b", "a b", "a\\nb", "a\\u0000b", "a#b", "\\ud800", &long, &huge, &deep] {
        for message in [
            format!(r#"[32,1,{{}},"{name}"]"#),
            format!(r#"[16,1,{{"acknowledge":true}},"{name}"]"#),
            format!(r#"[48,1,{{}},"{name}"]"#),
            format!(r#"[64,1,{{}},"{name}"]"#),
            format!(r#"[48,1,{{}},"tandem.queue.send",["{name}"]]"#),
        ] {
            let (texts, _) = answers(broker.address(), &[HELLO, &message]).await;
            let answer = &texts[1];
            assert!(answer.starts_with("[8,") || answer.starts_with("[3,"), "{:.80}: {answer:.200}", message);
            assert!(answer.len() < 2000, "an answer does not repeat a long name");
        }
    }
    for name in ["wamp.a", "wamp.session.on_join", "tandem.a"] {
        for message in
            [format!(r#"[16,1,{{"acknowledge":true}},"{name}"]"#), format!(r#"[64,1,{{}},"{name}"]"#)]
        {
            let (texts, _) = answers(broker.address(), &[HELLO, &message]).await;
            assert!(texts[1].contains("wamp.error.invalid_uri"), "{message}: {texts:?}");
        }
    }
    for pattern in ["wamp.", "tandem.", "tandem.queue", "wamp.session."] {
        for policy in ["prefix", "wildcard"] {
            let message = format!(r#"[64,1,{{"match":"{policy}"}},"{pattern}"]"#);
            let (texts, _) = answers(broker.address(), &[HELLO, &message]).await;
            assert!(texts[1].starts_with("[8,64,1,"), "{message}: {texts:?}");
        }
    }
}

/// A pattern that matches everything takes no call that the house answers itself, nor one of others.
#[tokio::test]
async fn patterns_capture_no_calls_of_the_house() {
    let broker = Broker::start().await;
    let mut thief = wamp(broker.address(), Format::Json).await;
    for pattern in ["", "..", ".queue.send", ".queue."] {
        let _ = thief.register(pattern, Dict::new().with("match", "wildcard")).await;
    }
    let _ = thief.register("t", Dict::new().with("match", "prefix")).await;
    let mut victim = wamp(broker.address(), Format::Json).await;
    let args = victim.args(&("q", "secret")).unwrap();
    victim.call("tandem.queue.send", args).await.unwrap();
    assert_eq!(broker.server().realms()[0].queues().len(), 1);
    assert_eq!(thief.queued(), 0);
}

/// x_headers beyond what a STOMP frame may hold would drive away every subscriber of that language.
#[tokio::test]
async fn headers_are_what_every_receiver_can_read() {
    let broker = Broker::start().await;
    let mut receiver = stomp(broker.address(), Version::V12).await;
    receiver.subscribe("/topic/a", "0", AckMode::Auto, &[]).await.unwrap();
    receiver.subscribe("/procedure/p", "1", AckMode::Auto, &[]).await.unwrap();
    let mut publisher = wamp(broker.address(), Format::Json).await;
    let many = (0..65).fold(Dict::new(), |headers, n| headers.with(format!("h{n}").as_str(), "x"));
    let long = Dict::new().with("h", "\n".repeat(4000).as_str());
    let large = (0..5)
        .fold(Dict::new(), |headers, n| headers.with(format!("h{n}").as_str(), "x".repeat(3900).as_str()));
    for headers in [many, long, large] {
        let options = Dict::new().with("x_headers", headers);
        let args = publisher.args(&(1,)).unwrap();
        let refused = publisher.publish_acknowledged("a", options.clone(), args.clone()).await.unwrap_err();
        assert_eq!(refused.uri(), Some("wamp.error.invalid_argument"));
        publisher.publish("a", options.clone(), args.clone()).await.unwrap();
        let refused = publisher.call_with("p", options.clone(), args.clone()).await.unwrap_err();
        assert_eq!(refused.uri(), Some("wamp.error.invalid_argument"));
        // A result or an error with them is one for the caller.
        let mut callee = wamp(broker.address(), Format::Json).await;
        callee.register("q", Dict::new()).await.unwrap();
        let call = publisher.begin_call("q", Dict::new(), args.clone()).await.unwrap();
        publisher.flush().await.unwrap();
        let invocation = soon("an invocation", callee.next_invocation()).await.unwrap();
        callee.yield_(invocation.request, options, args).await.unwrap();
        callee.flush().await.unwrap();
        let refused = soon("an answer", publisher.end_call(call)).await.unwrap_err();
        assert_eq!(refused.uri(), Some("wamp.error.invalid_argument"));
    }
    let most = (0..56)
        .fold(Dict::new(), |headers, n| headers.with(format!("h{n}").as_str(), "\n".repeat(200).as_str()));
    let args = publisher.args(&(1,)).unwrap();
    publisher.publish("a", Dict::new().with("x_headers", most), args).await.unwrap();
    publisher.flush().await.unwrap();
    let message = soon("the only message", receiver.next_message()).await.unwrap();
    assert_eq!(message.headers.get("h55").map(str::len), Some(200));
}

/// Patterns that would make the search slow are refused, and those that are given up leave nothing.
#[tokio::test]
async fn patterns_with_many_sets_of_holes_are_limited() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::enter(broker.address()).await;
    let topics = broker.server().realms()[0].topics();
    let mut attackers = Vec::new();
    let mut refused = 0;
    for round in 0..2 {
        let mut attacker = wamp(broker.address(), Format::Json).await;
        for holes in 0..600_u32 {
            let pattern = (0..10).map(|bit| if holes >> bit & 1 == 1 { "" } else { "a" });
            let pattern = pattern.collect::<Vec<_>>().join(".") + if round == 0 { ".x" } else { ".y" };
            match attacker.subscribe(&pattern, MatchPolicy::Wildcard).await {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.uri(), Some("tandem.error.limit_reached"));
                    refused += 1;
                }
            }
        }
        attackers.push(attacker);
    }
    assert!(refused > 500, "{refused}");
    bystanders.talk().await;
    drop(attackers);
    eventually("nothing is left", || topics.len() == 2).await;
    bystanders.talk().await;
}

/// Subscribing, registering and withdrawing without end leaves nothing.
#[tokio::test]
async fn churn_leaves_nothing() {
    let broker = Broker::start().await;
    let realm = &broker.server().realms()[0];
    let mut client = wamp(broker.address(), Format::Cbor).await;
    for number in 0..500 {
        let name = format!("churn.{number}");
        let subscription = client.subscribe(&name, MatchPolicy::Exact).await.unwrap();
        let registration = client.register(&name, Dict::new()).await.unwrap();
        let taken = client.register(&name, Dict::new()).await.unwrap_err();
        assert_eq!(taken.uri(), Some("wamp.error.procedure_already_exists"));
        client.unsubscribe(subscription).await.unwrap();
        client.unregister(registration).await.unwrap();
        let gone = client.unregister(registration).await.unwrap_err();
        assert_eq!(gone.uri(), Some("wamp.error.no_such_registration"));
        let args = client.args(&(name.as_str(), 1)).unwrap();
        client.call("tandem.queue.send", args.clone()).await.unwrap();
        let (tag, _, _, _): (u64, u32, (u32,), Nothing) =
            client.call("tandem.queue.receive", args).await.unwrap().args().unwrap();
        let args = client.args(&(tag,)).unwrap();
        client.call("tandem.queue.ack", args.clone()).await.unwrap();
        assert!(client.call("tandem.queue.ack", args).await.is_err(), "an acknowledgement counts once");
    }
    assert_eq!((realm.topics().len(), realm.calls().registrations(), realm.queues().len()), (0, 0, 0));
    assert_eq!(realm.queues().bytes(), 0);
}

/// What a map that must be empty is read into.
type Nothing = std::collections::BTreeMap<String, u8>;

/// Calls that nobody answers, are canceled, or whose callee or caller goes, leave nothing.
#[tokio::test]
async fn unfinished_calls_leave_nothing() {
    let broker = Broker::start().await;
    let realm = &broker.server().realms()[0];
    let mut bystanders = Bystanders::enter(broker.address()).await;
    for round in 0..8 {
        let mut callee = wamp(broker.address(), Format::Json).await;
        callee.register("slow", Dict::new()).await.unwrap();
        let mut caller: Client = wamp(broker.address(), Format::MsgPack).await;
        let mut calls = Vec::new();
        for _ in 0..200 {
            let args = caller.args(&(1,)).unwrap();
            calls.push(caller.begin_call("slow", Dict::new(), args).await.unwrap());
        }
        caller.flush().await.unwrap();
        let last = async { while callee.next_invocation().await.unwrap().request.get() < 200 {} };
        soon("all invocations", last).await;
        match round % 4 {
            0 => drop(callee),
            1 => drop(caller),
            2 => {
                for call in &calls {
                    caller.cancel(*call, Dict::new()).await.unwrap();
                }
                for call in calls {
                    let canceled = soon("an error", caller.end_call(call)).await.unwrap_err();
                    assert_eq!(canceled.uri(), Some("wamp.error.canceled"));
                }
                // Answers that come all the same are ignored.
                let args = callee.args(&(1,)).unwrap();
                callee.yield_(tandem_protocols::wamp::id::Id::FIRST, Dict::new(), args).await.unwrap();
                callee.flush().await.unwrap();
            }
            _ => {
                callee.into_link().into_transport().into_inner().set_zero_linger().unwrap();
            }
        }
        eventually("no call is under way", || realm.calls().pending() == 0).await;
        eventually("no procedure is left", || {
            round % 4 == 1 || round % 4 == 2 || realm.calls().registrations() == 0
        })
        .await;
        eventually("they have gone", || realm.sessions() <= 4).await;
    }
    eventually("all have gone", || realm.sessions() == 2).await;
    assert_eq!(realm.calls().registrations(), 0);
    bystanders.talk().await;
}

/// A number in flight may not be used again, of whatever kind its call is.
#[tokio::test]
async fn requests_in_flight_are_not_used_twice() {
    let broker = Broker::start().await;
    for first in [r#"[48,5,{},"a.b"]"#, r#"[48,5,{},"tandem.queue.receive",["q"]]"#] {
        for second in [first, r#"[48,5,{},"a.b"]"#, r#"[48,5,{},"tandem.queue.receive",["q"]]"#] {
            let (texts, code) =
                answers(broker.address(), &[HELLO, r#"[64,1,{},"a.b"]"#, first, second]).await;
            assert_eq!(code, Some(1002), "{texts:?}");
        }
    }
    let mut client = wamp(broker.address(), Format::Json).await;
    let args = client.args(&("q",)).unwrap();
    let call = client.begin_call("tandem.queue.receive", Dict::new(), args).await.unwrap();
    client.cancel(call, Dict::new()).await.unwrap();
    assert!(matches!(soon("an error", client.receive()).await.unwrap(), Message::Error(_)));
}

/// A batch is one message of the wire's: what it asks for is answered no faster than the answers are read.
#[tokio::test]
async fn a_batch_of_many_requests_is_no_way_to_fill_the_memory() {
    let mut watched = Watched::start().await;
    let mut bystanders = Bystanders::enter(watched.address()).await;
    let mut socket = Raw::websocket(watched.address(), "wamp.2.json.batched", "").await;
    socket.write(&frame(0x81, format!("{HELLO}\x18").as_bytes())).await;
    let welcome = socket.read_until(b"\x18").await;
    assert!(welcome.windows(3).any(|window| window == b"[2,"));
    watched.begin_anew();
    let calls: String =
        (1..=20_000).map(|n| format!("[48,{n},{{}},\"a.procedure.of.nobody\"]\x18")).collect();
    let is_taken = socket.write(&frame(0x81, calls.as_bytes())).await;
    assert!(is_taken);
    bystanders.talk().await;
    // The batch, and what the sockets and the pump hold of the answers, which are five times as long.
    watched.assert_growth_below(4.0).await;
    let mut answers = Vec::new();
    for _ in 0..20_000 {
        answers = socket.read_until(b"\x18").await;
    }
    let last = String::from_utf8_lossy(&answers);
    assert!(last.contains("[8,48,20000,{},\"wamp.error.no_such_procedure\""), "{last}");
}

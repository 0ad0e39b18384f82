//! A PUBLISH that is taken where it lies does what it does when it is received.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod rule_maker;
mod wamp_harness;

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use tandem_broker::core::mailbox::Batch;
use tandem_broker::core::message::Kind;
use tandem_protocols::payload::{Format, Limits, transcode};

use rule_maker::rules;
use wamp_harness::*;

#[derive(Clone, Debug)]
enum Step {
    Publish(&'static str, &'static str, String, &'static str),
    Say(&'static str),
    Bytes(&'static [u8]),
    Rules(u8),
    /// Of what came together.
    End,
}

const TOPICS: &[&str] =
    &["a", "a", "a", "a", "a", "b", "b", "a.b", "wamp.x", "", "a..b", "h.x", "\u{e9}", "q r", "n"];
const OPTIONS: &[&str] = &[
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    r#"{"exclude_me":false}"#,
    r#"{"acknowledge":true}"#,
    r#"{"retain":true}"#,
    r#"{"disclose_me":true}"#,
    r#"{"exclude":[1]}"#,
    r#"{"x_headers":{"a":"b"}}"#,
];
const SAID: &[&str] = &[
    r#"[32,1,{},"a"]"#,
    r#"[32,1,{"match":"prefix"},"a"]"#,
    r#"[48,1,{},"nothing",[1]]"#,
    r#"[16,0,{},"a",[1]]"#,
    r#"[16,9007199254740993,{},"a",[1]]"#,
    r#"[16,"1",{},"a",[1]]"#,
    r#"[6,{},"wamp.close.close_realm"]"#,
    r#"[64,5,{},"p"]"#,
    r#"[32,1,{"get_retained":true},"b"]"#,
    r#"[34,3,1099511627776]"#,
];
const RAW: &[&[u8]] = &[
    b"",
    b"[16,1,{},\"a\",[1]",
    b"[16,1,{},\"a\",[1]] ",
    b"[16,01,{},\"a\",[1]]",
    b"[16,1,{},\"\\u0061\",[1]]",
    b"[16,1,{},\"a\",[1],{}]",
    b"[16,1,{},\"a\",[1],[2]]",
    b"[16,1,{},\"a\",[1,]]",
    b"[16, 1,{},\"a\",[1]]",
    b"\x95\x10\x01\x80\xa1a\x91\x01",
    b"\x95\x10\x01\x80\xa1a\x90",
    b"\x95\x10\x01\x80\xa1a\x91",
    b"\x95\x10\x00\x80\xa1a\x91\x01",
    b"\x95\x10\x01\x80\xa1\xff\x91\x01",
    b"\x96\x10\x01\x80\xa1a\x91\x01\x80",
];

fn args() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(&["[1]", "[1]", "[]", "[ ]", "[ 1 , \"\u{e9}\"]", "[{\"a\":[1,2,{}]}]", "[null,\"\\u0001\\\"\"]", "[1.5e3]", "{}", "[[[[]]]]"]).prop_map(str::to_owned),
        1 => (0..40usize).prop_map(|n| format!("[\"{}\"]", "x".repeat(16384 - 256 - 20 + n))),
        1 => (0..40usize).prop_map(|n| format!("[\"{}\"]", "x".repeat(16384 - 20 + n))),
        2 => (0..9000usize).prop_map(|n| format!("[\"{}\"]", "y".repeat(n))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => (select(TOPICS), select(OPTIONS), args(), select(&["", "", "", "", "", "", ",{}", ",{\"k\":1}"][..]))
            .prop_map(|(a, b, c, d)| Step::Publish(a, b, c, d)),
        2 => select(SAID).prop_map(Step::Say),
        1 => select(RAW).prop_map(Step::Bytes),
        1 => (0..4u8).prop_map(Step::Rules),
        4 => Just(Step::End),
    ]
}

struct Heard {
    numbers: HashMap<u64, usize>,
    log: Vec<String>,
    taken: usize,
}

impl Heard {
    fn note(&mut self, who: usize, mut message: Value) {
        let place = match message[0].as_u64() {
            Some(17 | 36) => 2,
            _ => usize::MAX,
        };
        if let Some(number) = message.get(place).and_then(Value::as_u64) {
            let next = self.numbers.len();
            message[place] = json!(*self.numbers.entry(number).or_insert(next));
        }
        self.log.push(format!("{who}: {message}"));
    }
}

fn run(steps: &[Step], format: Format, history: bool, strict: bool, in_place: bool) -> Heard {
    let house = if history {
        House::with_history()
    } else if strict {
        House::strict()
    } else {
        House::new()
    };
    let mut publisher = house.join(format);
    let mut raw = house.connect(Format::Json);
    raw.kind = Kind::Raw;
    raw.say(hello(json!({"roles": {"callee": {}}})));
    raw.hear();
    let mut others = [
        house.join(Format::Json),
        house.join(Format::MsgPack),
        house.join(Format::Cbor),
        house.join(Format::Json),
        raw,
    ];
    for (at, other) in others.iter_mut().enumerate() {
        let mut request = 0;
        for (topic, policy) in [("a", "exact"), ("b", "exact"), ("h.x", "exact"), ("a", "prefix")] {
            if (policy == "prefix") == (at == 3) {
                request += 1;
                other.ask(json!([32, request, {"match": policy}, topic]));
            }
        }
    }
    let mut heard = Heard { numbers: HashMap::new(), log: Vec::new(), taken: 0 };
    let mut batch = Batch::begin();
    let mut request = 0;
    for step in steps.iter().chain([&Step::End]) {
        let bytes = match step {
            Step::Publish(topic, options, args, kwargs) => {
                request += 1;
                let text = format!("[16,{request},{options},\"{topic}\",{args}{kwargs}]");
                transcode(Format::Json, format, text.as_bytes(), &Limits::DEFAULT).unwrap()
            }
            Step::Say(text) => transcode(Format::Json, format, text.as_bytes(), &Limits::DEFAULT).unwrap(),
            Step::Bytes(bytes) => Bytes::from_static(bytes),
            Step::Rules(which) => {
                house.realm.set_rules(rules(*which, Some("a")));
                continue;
            }
            Step::End => {
                publisher.session.conclude();
                drop(batch.take());
                heard.log.push(format!(
                    "costs {:?}",
                    others.iter().map(|other| other.mailbox.bytes()).collect::<Vec<_>>()
                ));
                heard.log.push(format!(
                    "{} {:?}",
                    publisher.mailbox.bytes(),
                    publisher.closed.as_ref().map(|close| close.reason)
                ));
                while let Some(message) = publisher.try_hear() {
                    heard.note(9, message);
                }
                for (who, other) in others.iter_mut().enumerate() {
                    while let Some(message) = other.try_hear() {
                        heard.note(who, message);
                    }
                }
                batch = Batch::begin();
                continue;
            }
        };
        if publisher.closed.is_some() {
            continue;
        }
        if in_place && publisher.session.receive_in_place(publisher.kind, &bytes, publisher.now) {
            heard.taken += 1;
            assert!(publisher.session.poll().is_none(), "nothing is to be done for it");
        } else {
            publisher.say_bytes(bytes);
        }
        heard.log.push(format!("congested {}", publisher.session.is_congested(std::task::Waker::noop())));
    }
    heard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(std::env::var("CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(128)))]
    #[test]
    fn what_is_taken_in_place_is_as_what_is_received(
        steps in proptest::collection::vec(step(), 1..60),
        format in select(&FORMATS[..]),
        history in proptest::bool::weighted(0.1),
        strict in proptest::bool::weighted(0.1),
    ) {
        let (plain, in_place) = (run(&steps, format, history, strict, false), run(&steps, format, history, strict, true));
        for (left, right) in plain.log.iter().zip(&in_place.log) {
            prop_assert_eq!(left, right);
        }
        prop_assert_eq!(plain.log.len(), in_place.log.len());
        prop_assert!(plain.taken == 0 && (format != Format::Cbor || in_place.taken == 0));
    }
}

#[test]
fn what_is_usual_is_taken_in_place() {
    let usual = Step::Publish("a", "{}", "[1]".to_owned(), "");
    for format in [Format::Json, Format::MsgPack] {
        assert_eq!(run(&vec![usual.clone(); 3], format, false, false, true).taken, 3);
    }
}

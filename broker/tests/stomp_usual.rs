//! A SEND that is known by its octets does what it does when it is read.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod rule_maker;
mod stomp_harness;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use tandem_broker::core::mailbox::Batch;

use rule_maker::rules;
use stomp_harness::*;

#[derive(Clone, Debug)]
enum Then {
    Rules(u8),
    End,
}

const HEADS: &[&str] = &[
    "",
    "",
    "",
    "",
    "a:b\n",
    "a:b\n",
    "a:b\na:c\n",
    "content-type:text/plain\n",
    "content-type:application/json\n",
    "persistent:true\n",
    "priority:3\n",
    "expires:1\n",
    "receipt:r\n",
    "retain:set\n",
    "transaction:t\n",
    "user-id:nobody\n",
    "user-id:joe\n",
    "reply-to:/temp-queue/x\n",
    "message-id:1\n",
    "destination-type:ANYCAST\n",
    "ppt_scheme:x\n",
    "shape:args\n",
    "x-expires:3\n",
    "a: b\n",
    "a\\cb:c\n",
    "foo:1\r\n",
    "content-length:1\n",
    "destination:/topic/b\n",
];
const TO: &[&str] = &[
    "/topic/a",
    "/topic/a",
    "/topic/a",
    "/topic/a",
    "/topic/b",
    "/topic/a.%2A",
    "/queue/q",
    "/topic/wamp.x",
    "/call/p",
    "/topic/",
];
const OTHERS: &[&str] = &[
    "\n",
    "\n\n",
    "\r\n",
    "BEGIN\ntransaction:t\n\n\0",
    "COMMIT\ntransaction:t\nreceipt:c\n\n\0",
    "ABORT\ntransaction:t\n\n\0",
    "SUBSCRIBE\nid:9\ndestination:/topic/b\nreceipt:s\n\n\0",
    "UNSUBSCRIBE\nid:9\n\n\0",
    "DISCONNECT\nreceipt:d\n\n\0",
    "FOO\n\n\0",
    "SEND\n\n\0",
    "SUBSCRIBE\nid:8\ndestination:/topic/a\nack:client\n\n\0",
];

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let send = (
        select(TO),
        select(HEADS),
        select(HEADS),
        0..12u8,
        select(&["", "x", "y", "[1]", "a\0b", "\u{e9}", "\n\0"][..]),
        any::<bool>(),
    );
    prop_oneof![
        6 => send.prop_map(|(to, one, two, which, body, first)| {
            let (one, two) = if which < 8 { (one, "") } else { (one, two) };
            let body = if which == 0 { "z".repeat(700) } else { body.to_owned() };
            let length = if which == 1 { body.len() + 1 } else { body.len() };
            let length = match which { 2 | 3 => String::new(), 4 => format!("content-length:0{length}\n"), _ => format!("content-length:{length}\n") };
            let to = format!("destination:{to}\n");
            let head = if first { format!("{length}{to}{one}{two}") } else { format!("{to}{one}{two}{length}") };
            format!("SEND\n{head}\n{body}\0").into_bytes()
        }),
        20 => select(&["x", "yy", "zzz", "[1]"][..]).prop_map(|body| format!("SEND\ndestination:/topic/a\ncontent-length:{}\n\n{body}\0", body.len()).into_bytes()),
        20 => select(&["x", "yy", "zzz", "[1]"][..]).prop_map(|body| format!("SEND\ndestination:/topic/a\n\n{body}\0").into_bytes()),
        1 => select(OTHERS).prop_map(|text| text.as_bytes().to_vec()),
    ]
}

type Segment = (Vec<Vec<u8>>, Then, Vec<Index>);

fn run(segments: &[Segment], version: &str, together: bool) -> Vec<String> {
    let house = House::new();
    let mut publisher = house.connect(version);
    let mut others = ["1.0", "1.2", "1.2"].map(|version| house.connect(version));
    for (at, other) in others.iter_mut().enumerate() {
        let (one, two) = if at == 2 { ("/topic/#", "/queue/q") } else { ("/topic/a", "/topic/b") };
        other.say(&format!("SUBSCRIBE\nid:1\ndestination:{one}\n\n"));
        other.say(&format!("SUBSCRIBE\nid:2\ndestination:{two}\n\n"));
    }
    let mut log = Vec::new();
    let mut batch = Batch::begin();
    for (frames, then, cuts) in segments {
        if together {
            let all = frames.concat();
            let mut places: Vec<usize> =
                cuts.iter().map(|cut| cut.index(all.len() + 1)).chain([0, all.len()]).collect();
            places.sort();
            for pair in places.windows(2) {
                if publisher.close.is_none() && pair[0] < pair[1] {
                    publisher.send(&all[pair[0]..pair[1]]);
                }
            }
        } else {
            for frame in frames {
                if publisher.close.is_none() {
                    publisher.send(frame);
                    publisher.session.rest();
                }
            }
        }
        match then {
            Then::Rules(which) => house.realm.set_rules(rules(*which, None)),
            Then::End => {
                publisher.session.conclude();
                drop(batch.take());
                log.push(format!("{:?}", publisher.hear()));
                log.push(format!(
                    "{:?}",
                    publisher.close.as_ref().map(|close| (close.reason, close.detail.clone()))
                ));
                log.push(format!("congested {}", publisher.session.is_congested(std::task::Waker::noop())));
                for other in &mut others {
                    log.push(format!("{:?}", other.hear()));
                }
                batch = Batch::begin();
            }
        }
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(std::env::var("CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(128)))]
    #[test]
    fn what_is_known_by_its_octets_is_as_what_is_read(
        mut segments in proptest::collection::vec(
            (
                proptest::collection::vec(frame(), 0..16),
                prop_oneof![1 => (0..4u8).prop_map(Then::Rules), 4 => Just(Then::End)],
                proptest::collection::vec(any::<Index>(), 0..3),
            ),
            1..6,
        ),
        version in select(&["1.0", "1.1", "1.2"][..]),
    ) {
        segments.push((vec![], Then::End, vec![]));
        let (plain, usual) = (run(&segments, version, false), run(&segments, version, true));
        for (left, right) in plain.iter().zip(&usual) {
            prop_assert_eq!(left, right);
        }
    }
}

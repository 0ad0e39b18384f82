//! Ways from wire to wire: some peers of a house, and what they say in turn, burst after burst.
#![allow(dead_code, reason = "not all who share it use all of it")]
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use std::ops::Range;
use std::sync::Mutex;

use tandem_protocols::payload::Format;

use super::house::{Guest, House, Speaks};

/// Messages that a peer sends at once.
pub const BURST: u64 = 64;

/// The bytes of a payload.
pub const PAYLOAD_BYTES: usize = 128;

/// Who says what in one burst: its messages are those of these numbers, which begin with 1.
type Turn = (usize, Box<dyn Fn(Range<u64>, &mut Vec<u8>)>);

/// Some peers, and what they say in turn.
pub struct Way {
    _house: House,
    peers: Vec<Guest>,
    /// One burst, in order.
    script: Vec<Turn>,
    /// Messages that were sent.
    sent: u64,
    /// Messages of a burst.
    pub burst: u64,
    /// What each of them counts for.
    pub deliveries: u64,
}

fn payload() -> String {
    "x".repeat(PAYLOAD_BYTES)
}

impl Way {
    fn new(script: Vec<Turn>, house: House, peers: Vec<Guest>, deliveries: usize) -> Way {
        Way { _house: house, peers, script, sent: 0, burst: BURST, deliveries: deliveries as u64 }
    }

    /// Publications of WAMP to these.
    pub fn events(format: Format, receivers: &[Speaks]) -> Way {
        let house = House::new();
        let sender = Speaks::Wamp(format);
        let mut peers = vec![house.join(sender)];
        peers.extend(receivers.iter().map(|speaks| house.subscriber(*speaks)));
        let payload = payload();
        let say = move |numbers: Range<u64>, out: &mut Vec<u8>| {
            for request in numbers {
                sender.put(&format!(r#"[16,{request},{{}},"com.example.topic",["{payload}"]]"#), out);
            }
        };
        Way::new(vec![(0, Box::new(say))], house, peers, receivers.len())
    }

    /// Publications of STOMP to these.
    pub fn messages(receivers: &[Speaks]) -> Way {
        let house = House::new();
        let mut peers = vec![house.join(Speaks::Stomp)];
        peers.extend(receivers.iter().map(|speaks| house.subscriber(*speaks)));
        let frame = send("/topic/com.example.topic");
        let say = move |numbers: Range<u64>, out: &mut Vec<u8>| {
            numbers.for_each(|_| Speaks::Stomp.put(&frame, out));
        };
        Way::new(vec![(0, Box::new(say))], house, peers, receivers.len())
    }

    /// Calls of WAMP, and their results.
    pub fn calls(format: Format) -> Way {
        let house = House::new();
        let speaks = Speaks::Wamp(format);
        let (caller, mut callee) = (house.join(speaks), house.join(speaks));
        callee.say(|out| speaks.put(r#"[64,1,{},"com.example.procedure"]"#, out));
        let payload = payload();
        let question = payload.clone();
        let call = move |numbers: Range<u64>, out: &mut Vec<u8>| {
            for request in numbers {
                speaks.put(&format!(r#"[48,{request},{{}},"com.example.procedure",["{question}"]]"#), out);
            }
        };
        let answer = move |numbers: Range<u64>, out: &mut Vec<u8>| {
            for invocation in numbers {
                speaks.put(&format!(r#"[70,{invocation},{{}},["{payload}"]]"#), out);
            }
        };
        let script: Vec<Turn> = vec![(0, Box::new(call)), (1, Box::new(answer))];
        Way::new(script, house, vec![caller, callee], 1)
    }

    /// Messages of STOMP through a queue, each acknowledged by itself.
    pub fn queue() -> Way {
        let house = House::new();
        let (producer, mut consumer) = (house.join(Speaks::Stomp), house.join(Speaks::Stomp));
        let frame =
            "SUBSCRIBE\nid:1\ndestination:/queue/work\nack:client-individual\nprefetch-count:1000\n\n\0";
        consumer.say(|out| Speaks::Stomp.put(frame, out));
        let frame = send("/queue/work");
        let send = move |numbers: Range<u64>, out: &mut Vec<u8>| {
            numbers.for_each(|_| Speaks::Stomp.put(&frame, out));
        };
        // The name of the first delivery says how all of them are called.
        let named: Mutex<Option<(String, u64)>> = Mutex::default();
        let heard = consumer.wire.clone();
        let acknowledge = move |numbers: Range<u64>, out: &mut Vec<u8>| {
            let mut named = named.lock().unwrap();
            let (consumer, first) = named.get_or_insert_with(|| {
                let heard = heard.lock().unwrap();
                let text = String::from_utf8_lossy(&heard.written).into_owned();
                let id = text.split("ack:").nth(1).unwrap().lines().next().unwrap().to_owned();
                let mut parts = id.split('-');
                (parts.next().unwrap().to_owned(), parts.next().unwrap().parse().unwrap())
            });
            for number in numbers {
                let id = format!("{consumer}-{}-0", *first + number - 1);
                Speaks::Stomp.put(&format!("ACK\nid:{id}\n\n\0"), out);
            }
        };
        let script: Vec<Turn> = vec![(0, Box::new(send)), (1, Box::new(acknowledge))];
        Way::new(script, house, vec![producer, consumer], 1)
    }

    /// One burst. `measure` is to do what it is given: all that the broker does for it.
    pub fn burst(&mut self, mut measure: impl FnMut(&mut dyn FnMut())) {
        let numbers = self.sent + 1..self.sent + self.burst + 1;
        let heard_before = self.heard_bytes();
        for (peer, say) in &self.script {
            self.peers[*peer].prepare(|out| say(numbers.clone(), out));
            measure(&mut || {
                self.peers[*peer].pump();
                self.peers.iter_mut().for_each(Guest::pump);
            });
        }
        self.sent += self.burst;
        // A way that leads nowhere would be fast.
        let heard = self.heard_bytes() - heard_before;
        assert!(heard >= self.burst * PAYLOAD_BYTES as u64, "nothing arrives");
    }

    /// What the last of the peers got.
    fn heard_bytes(&self) -> u64 {
        self.peers.last().unwrap().wire.lock().unwrap().written_bytes
    }
}

/// A frame with a payload for this destination.
fn send(destination: &str) -> String {
    let payload = payload();
    let length = payload.len();
    format!(
        "SEND\ndestination:{destination}\ncontent-type:text/plain\ncontent-length:{length}\n\n{payload}\0"
    )
}

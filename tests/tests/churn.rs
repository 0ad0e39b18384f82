//! Register, call, cancel, crash and reconnect over real sockets, 10,000 times at random and at once: nothing is
//! left over. One after the other, with every answer counted, it is in `broker/tests/wamp_churn.rs`.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use tandem_client::raw::wamp::Client;
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{
    Call, Cancel, Error, Goodbye, Message, MessageType, Register, Subscribe, Unregister, Unsubscribe, Yield,
    nothing,
};

use tandem_tests::broker::{Broker, eventually};
use tandem_tests::peers;

const STEPS: usize = 10_000;
const CLIENTS: usize = 16;
const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];
const PATTERNS: [(&str, &str); 5] =
    [("p.a", "exact"), ("p.b", "exact"), ("p.", "prefix"), ("p..x", "wildcard"), ("q", "exact")];
const PROCEDURES: [&str; 5] = ["p.a", "p.b", "p.a.x", "q", "nobody.serves.this"];
const MODES: [&str; 3] = ["skip", "kill", "killnowait"];
const INVOKES: [&str; 4] = ["single", "roundrobin", "random", "last"];

/// What one client did, and what was answered.
#[derive(Default)]
struct Seen {
    calls: usize,
    answers: usize,
    crashes: usize,
}

/// A client of the churn, and what it may refer to.
struct Party {
    client: Client,
    calls: Vec<Id>,
    registrations: Vec<Id>,
    subscriptions: Vec<Id>,
    invocations: Vec<Id>,
}

impl Party {
    async fn enter(address: SocketAddr, rng: &mut StdRng) -> Party {
        let client = peers::wamp(address, *FORMATS.choose(rng).unwrap()).await;
        Party { client, calls: vec![], registrations: vec![], subscriptions: vec![], invocations: vec![] }
    }

    /// Takes what has arrived.
    async fn listen(&mut self, seen: &mut Seen) {
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(1), self.client.receive()).await {
            match message.unwrap() {
                Message::Invocation(invocation) => self.invocations.push(invocation.request),
                Message::Registered(registered) => self.registrations.push(registered.registration),
                Message::Subscribed(subscribed) => self.subscriptions.push(subscribed.subscription),
                Message::CallResult(result) => self.note_end(result.request, seen),
                Message::Error(error) if error.request_type == MessageType::Call => {
                    self.note_end(error.request, seen);
                }
                Message::Error(_) | Message::Unregistered(_) | Message::Unsubscribed(_) => {}
                Message::Interrupt(_) => {}
                other => panic!("not to be expected: {other:?}"),
            }
        }
    }

    fn note_end(&mut self, call: Id, seen: &mut Seen) {
        let place =
            self.calls.iter().position(|known| *known == call).expect("an answer to a call under way");
        self.calls.swap_remove(place);
        seen.answers += 1;
    }

    fn next(&mut self, rng: &mut StdRng, seen: &mut Seen) -> Option<Message> {
        let request = self.client.take_request();
        Some(match rng.random_range(0..10) {
            0 => {
                let (pattern, policy) = PATTERNS.choose(rng)?;
                let options = Dict::new().with("match", *policy).with("invoke", *INVOKES.choose(rng)?);
                Register { request, options, procedure: (*pattern).to_owned() }.into()
            }
            1 => {
                let (pattern, policy) = PATTERNS.choose(rng)?;
                let options = Dict::new().with("match", *policy);
                Subscribe { request, options, topic: (*pattern).to_owned() }.into()
            }
            2 => Unregister { request, registration: self.registrations.pop()?, options: None }.into(),
            3 => Unsubscribe { request, subscription: self.subscriptions.pop()?, options: None }.into(),
            4 => {
                let options = Dict::new().with("mode", *MODES.choose(rng)?);
                Cancel { request: *self.calls.choose(rng)?, options }.into()
            }
            5..8 => {
                let invocation = self.invocations.pop()?;
                match rng.random_bool(0.8) {
                    true => Yield { request: invocation, options: Dict::new(), payload: nothing() }.into(),
                    false => Error {
                        request_type: MessageType::Invocation,
                        request: invocation,
                        details: Dict::new(),
                        error: "a.error".to_owned(),
                        payload: nothing(),
                    }
                    .into(),
                }
            }
            _ => {
                self.calls.push(request);
                seen.calls += 1;
                let procedure = (*PROCEDURES.choose(rng)?).to_owned();
                Call { request, options: Dict::new(), procedure, payload: nothing() }.into()
            }
        })
    }
}

async fn churn(address: SocketAddr, seed: u64) -> Seen {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut seen = Seen::default();
    let mut party = Party::enter(address, &mut rng).await;
    for _ in 0..STEPS / CLIENTS {
        party.listen(&mut seen).await;
        if rng.random_bool(0.03) {
            // The connection breaks, with whatever was under way.
            seen.crashes += 1;
            party = Party::enter(address, &mut rng).await;
        } else if rng.random_bool(0.01) {
            let goodbye = Goodbye { details: Dict::new(), reason: "wamp.close.normal".to_owned() };
            party.client.send(goodbye).await.unwrap();
            party = Party::enter(address, &mut rng).await;
        } else if let Some(message) = party.next(&mut rng, &mut seen) {
            party.client.send(message).await.unwrap();
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn of_clients_that_come_and_go_nothing_is_left_over() {
    let seed = std::env::var("TANDEM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let broker = Broker::start().await;
    let address = broker.address();
    let tasks: Vec<_> = (0..CLIENTS as u64).map(|n| tokio::spawn(churn(address, seed * 1000 + n))).collect();
    let mut all = Seen::default();
    for task in tasks {
        let seen = task.await.unwrap();
        all.calls += seen.calls;
        all.answers += seen.answers;
        all.crashes += seen.crashes;
    }
    assert!(all.calls > 500 && all.answers > 300 && all.crashes > 100, "{} calls", all.calls);
    let realm = &broker.server().realms()[0];
    eventually("nothing is left", || {
        let (calls, topics) = (realm.calls(), realm.topics());
        (realm.sessions(), calls.registrations(), calls.pending(), topics.len()) == (0, 0, 0, 0)
    })
    .await;
    assert!(broker.shutdown().await);
}

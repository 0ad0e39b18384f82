//! Register, call, cancel, crash and reconnect, 10,000 times at random: every call of a session that stays is
//! answered once, and when all is said nothing is left over.
//!
//! The same steps each time; others with `TANDEM_SEED=7 cargo test -p tandem-broker --test wamp_churn`.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod wamp_harness;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use wamp_harness::{Client, FORMATS, House, hello};

const STEPS: usize = 10_000;

/// As many as the harness lets into its realm.
const PARTIES: usize = 8;

const PROCEDURES: [&str; 5] = ["p.a", "p.b", "p.a.x", "p.b.x", "q"];
const PATTERNS: [(&str, &str); 6] = [
    ("p.a", "exact"),
    ("p.b", "exact"),
    ("p.", "prefix"),
    ("p..x", "wildcard"),
    ("q", "exact"),
    ("", "prefix"),
];
const INVOKES: [&str; 5] = ["single", "roundrobin", "random", "first", "last"];
const MODES: [&str; 3] = ["skip", "kill", "killnowait"];

/// A client, and what it knows of its own business.
struct Party {
    client: Client,
    last_request: u64,
    registrations: BTreeSet<u64>,
    subscriptions: BTreeSet<u64>,
    /// Calls without an answer yet; true when more arguments were announced.
    calls: BTreeMap<u64, bool>,
    /// Invocations that it has not answered.
    invocations: BTreeSet<u64>,
    answered: usize,
}

impl Party {
    fn enter(house: &House, rng: &mut StdRng) -> Party {
        let mut client = house.connect(*FORMATS.choose(rng).unwrap());
        let both = json!({"call_canceling": rng.random_bool(0.8), "progressive_call_invocations": true,
            "progressive_call_results": true, "registration_revocation": true});
        let roles = json!({"caller": {"features": both}, "callee": {"features": both}, "subscriber": {}});
        assert_eq!(client.ask(hello(json!({"roles": roles})))[0], json!(2));
        Party {
            client,
            last_request: 0,
            registrations: BTreeSet::new(),
            subscriptions: BTreeSet::new(),
            calls: BTreeMap::new(),
            invocations: BTreeSet::new(),
            answered: 0,
        }
    }

    fn request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// Reads everything that there is for it.
    fn listen(&mut self) {
        while let Some(message) = self.client.try_hear() {
            self.hear(&message);
        }
        assert_eq!(self.client.closed, None);
    }

    fn hear(&mut self, message: &Value) {
        let number = |place: usize| message[place].as_u64().unwrap();
        match number(0) {
            50 => {
                assert!(
                    self.calls.contains_key(&number(1)),
                    "a result of no call of this session: {message}"
                );
                if message[2]["progress"] != json!(true) {
                    self.calls.remove(&number(1));
                    self.answered += 1;
                }
            }
            8 if number(1) == 48 => {
                assert!(self.calls.remove(&number(2)).is_some(), "an error of no call: {message}");
                self.answered += 1;
            }
            8 => {}
            33 => drop(self.subscriptions.insert(number(2))),
            65 => drop(self.registrations.insert(number(2))),
            67 if message[2]["registration"].is_u64() => {
                self.registrations.remove(&message[2]["registration"].as_u64().unwrap());
            }
            35 | 67 => {}
            68 => drop(self.invocations.insert(number(1))),
            // To be answered all the same, or not: what is said of it later means nothing.
            69 => {}
            other => panic!("{other} was not to be expected: {message}"),
        }
    }

    fn act(&mut self, rng: &mut StdRng) {
        let request = self.request();
        match rng.random_range(0..10) {
            0 => {
                let (pattern, policy) = PATTERNS.choose(rng).unwrap();
                let options = json!({"match": policy, "invoke": INVOKES.choose(rng).unwrap(),
                    "force_reregister": rng.random_bool(0.1), "concurrency": rng.random_range(0..3)});
                self.client.say(json!([64, request, options, pattern]));
            }
            1 => {
                let (pattern, policy) = PATTERNS.choose(rng).unwrap();
                self.client.say(json!([32, request, {"match": policy}, pattern]));
            }
            2 => {
                let (code, ids) = match rng.random_bool(0.5) {
                    true => (34, &mut self.subscriptions),
                    false => (66, &mut self.registrations),
                };
                let Some(id) = ids.pop_first() else { return };
                self.client.say(json!([code, request, id]));
            }
            3 => self.cancel(rng),
            4 => self.proceed(rng),
            5 | 6 => {
                let more = rng.random_bool(0.2);
                let options = json!({"receive_progress": rng.random_bool(0.3), "progress": more,
                    "timeout": if rng.random_bool(0.2) { 50 } else { 0 }});
                self.calls.insert(request, more);
                self.client.say(json!([48, request, options, PROCEDURES.choose(rng).unwrap(), [request]]));
            }
            _ => self.answer(rng),
        }
    }

    fn cancel(&mut self, rng: &mut StdRng) {
        let calls: Vec<u64> = self.calls.keys().copied().collect();
        let Some(call) = calls.choose(rng) else { return };
        self.client.say(json!([49, call, {"mode": MODES.choose(rng).unwrap()}]));
    }

    fn proceed(&mut self, rng: &mut StdRng) {
        let calls: Vec<u64> = self.calls.iter().filter(|(_, more)| **more).map(|(call, _)| *call).collect();
        let Some(call) = calls.choose(rng) else { return };
        let more = rng.random_bool(0.5);
        self.calls.insert(*call, more);
        self.client.say(json!([48, call, {"progress": more}, "q", ["more"]]));
    }

    fn answer(&mut self, rng: &mut StdRng) {
        let invocations: Vec<u64> = self.invocations.iter().copied().collect();
        let Some(invocation) = invocations.choose(rng) else { return };
        if rng.random_bool(0.2) {
            return self.client.say(json!([70, invocation, {"progress": true}, ["some"]]));
        }
        self.invocations.remove(invocation);
        let error = ["a.error", "wamp.error.unavailable", "wamp.error.canceled"].choose(rng).unwrap();
        match rng.random_bool(0.7) {
            true => self.client.say(json!([70, invocation, {}, ["done"]])),
            false => self.client.say(json!([8, 68, invocation, {}, error])),
        }
    }
}

#[test]
fn of_random_comings_and_goings_nothing_is_left_over() {
    let seed = std::env::var("TANDEM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut rng = StdRng::seed_from_u64(seed);
    let house = House::new();
    let mut parties: Vec<Party> = (0..PARTIES).map(|_| Party::enter(&house, &mut rng)).collect();
    let (mut answered, mut crashes) = (0, 0);
    for _ in 0..STEPS {
        let place = rng.random_range(0..PARTIES);
        match rng.random_range(0..40) {
            0 => {
                let mut gone = parties.swap_remove(place);
                if rng.random_bool(0.3) {
                    gone.client.say(json!([6, {}, "wamp.close.normal"]));
                }
                answered += gone.answered;
                crashes += 1;
                drop(gone);
                parties.push(Party::enter(&house, &mut rng));
            }
            1..10 => parties[place].listen(),
            10..12 => {
                let client = &mut parties[place].client;
                client.now += std::time::Duration::from_millis(60);
                client.session.tick(client.now);
                client.drain();
            }
            _ => parties[place].act(&mut rng),
        }
    }
    // Everybody announces no more, answers what is asked, and hears all answers.
    for _ in 0..PARTIES * 4 {
        for party in &mut parties {
            party.listen();
            let open: Vec<u64> =
                party.calls.iter().filter(|(_, more)| **more).map(|(call, _)| *call).collect();
            for call in open {
                party.calls.insert(call, false);
                party.client.say(json!([48, call, {}, "q", ["last"]]));
            }
            for invocation in std::mem::take(&mut party.invocations) {
                party.client.say(json!([70, invocation, {}]));
            }
        }
    }
    for party in &parties {
        assert!(party.calls.is_empty(), "seed {seed}: without an answer: {:?}", party.calls);
        answered += party.answered;
    }
    assert_eq!(house.realm.calls().pending(), 0, "seed {seed}");
    assert!(answered > 500 && crashes > 100, "{answered} answers, {crashes} crashes");
    drop(parties);
    let (calls, topics) = (house.realm.calls(), house.realm.topics());
    let left = (house.realm.sessions(), calls.registrations(), calls.pending(), topics.len());
    assert_eq!(left, (0, 0, 0, 0), "seed {seed}");
}

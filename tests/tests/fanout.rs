//! One publisher and a hundred subscribers: each message reaches each of them exactly once and in order.
//!
//! By default a thousand messages, a hundred thousand deliveries. The million, as it is promised:
//!
//! ```text
//! cargo test --release -p tandem-tests --test fanout -- --ignored --nocapture --test-threads 1
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use tandem_client::raw::stomp::AckMode;
use tandem_client::raw::wamp::MatchPolicy;
use tandem_client::raw::{stomp, wamp};
use tandem_protocols::payload::{Content, Format};
use tandem_protocols::stomp::frame::Command;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::Message;
use tandem_tests::broker::Broker;
use tandem_tests::peers;

const SUBSCRIBERS: usize = 100;
const MESSAGES: usize = 1_000;
const MESSAGES_OF_THE_MILLION: usize = 10_000;

/// Generous: what is held here is order, not speed.
const TIME_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Language {
    Wamp,
    Stomp,
}

use Language::{Stomp, Wamp};

/// The payload of a message: 128 bytes that say its place.
fn payload(place: usize) -> String {
    format!("{place:0128}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wamp_reaches_a_hundred_wamp_subscribers_once_and_in_order() {
    fan_out(Wamp, |_| Wamp, MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stomp_reaches_a_hundred_stomp_subscribers_once_and_in_order() {
    fan_out(Stomp, |_| Stomp, MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_language_reaches_subscribers_of_both_once_and_in_order() {
    fan_out(Wamp, alternating, MESSAGES).await;
    fan_out(Stomp, alternating, MESSAGES).await;
}

/// Where a router hands out events in chunks, a second topic overtakes the first for those behind (Crossbar does so
/// from 100 subscribers on).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_publishers_order_holds_across_topics_and_patterns() {
    const TOPICS: [&str; 3] = ["fan.first", "fan.second", "fan.third"];
    let broker = Broker::start().await;
    let address = broker.address();
    let mut subscribers = JoinSet::new();
    for place in 0..160 {
        let mut client = peers::wamp(address, Format::MsgPack).await;
        match place % 3 {
            0 => drop(client.subscribe("fan.", MatchPolicy::Prefix).await.unwrap()),
            1 => drop(client.subscribe("fan.", MatchPolicy::Wildcard).await.unwrap()),
            _ => {
                for topic in TOPICS {
                    client.subscribe(topic, MatchPolicy::Exact).await.unwrap();
                }
            }
        }
        subscribers.spawn(Subscriber::Wamp(Box::new(client)).expect_all(300));
    }
    let mut publisher = peers::wamp(address, Format::Json).await;
    for place in 0..=300 {
        let args = publisher.args(&(payload(place),)).unwrap();
        publisher.publish(TOPICS[place % 3], Dict::new(), args).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let all = async {
        while let Some(result) = subscribers.join_next().await {
            result.unwrap();
        }
    };
    timeout(TIME_MAX, all).await.expect("all messages arrive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a million deliveries, four times"]
async fn a_million_deliveries_in_every_mixture() {
    fan_out(Wamp, |_| Wamp, MESSAGES_OF_THE_MILLION).await;
    fan_out(Stomp, |_| Stomp, MESSAGES_OF_THE_MILLION).await;
    fan_out(Wamp, alternating, MESSAGES_OF_THE_MILLION).await;
    fan_out(Stomp, alternating, MESSAGES_OF_THE_MILLION).await;
}

fn alternating(place: usize) -> Language {
    if place.is_multiple_of(2) { Wamp } else { Stomp }
}

/// Publishes so many messages and one more, which nothing may be missing before.
async fn fan_out(publisher: Language, subscriber: fn(usize) -> Language, messages: usize) {
    let broker = Broker::start().await;
    let address = broker.address();
    let mut subscribers = JoinSet::new();
    let mut ready = Vec::new();
    for place in 0..SUBSCRIBERS {
        match subscriber(place) {
            Wamp => {
                let mut client = peers::wamp(address, Format::MsgPack).await;
                client.subscribe("fan.out", MatchPolicy::Exact).await.unwrap();
                ready.push(Subscriber::Wamp(Box::new(client)));
            }
            Stomp => {
                let mut client = peers::stomp(address).await;
                client.subscribe("/topic/fan.out", "0", AckMode::Auto, &[]).await.unwrap();
                ready.push(Subscriber::Stomp(Box::new(client)));
            }
        }
    }
    let began = Instant::now();
    for subscriber in ready {
        subscribers.spawn(subscriber.expect_all(messages));
    }
    let all = async {
        publish(address, publisher, messages).await;
        while let Some(result) = subscribers.join_next().await {
            result.unwrap();
        }
    };
    timeout(TIME_MAX, all).await.expect("all messages arrive");
    let mixture = (0..2).map(subscriber).collect::<Vec<_>>();
    let (deliveries, time) = (SUBSCRIBERS * (messages + 1), began.elapsed());
    let per_second = deliveries as f64 / time.as_secs_f64();
    println!("{publisher:?} to {mixture:?}: {deliveries} deliveries in {time:.2?}, {per_second:.0}/s");
}

async fn publish(address: SocketAddr, language: Language, messages: usize) {
    match language {
        Wamp => {
            let mut client = peers::wamp(address, Format::MsgPack).await;
            for place in 0..=messages {
                let args = client.args(&(payload(place),)).unwrap();
                client.publish("fan.out", Dict::new(), args).await.unwrap();
            }
            client.flush().await.unwrap();
            // It is still there, and was not cut off for being fast.
            client.publish_acknowledged("fan.done", Dict::new(), client.args(&()).unwrap()).await.unwrap();
        }
        Stomp => {
            let mut client = peers::stomp(address).await;
            for place in 0..=messages {
                let headers = [("content-type", "text/plain")];
                client.send("/topic/fan.out", &headers, payload(place)).await.unwrap();
            }
            client.flush().await.unwrap();
            client.send_with_receipt("/topic/fan.done", &[], "").await.unwrap();
        }
    }
}

enum Subscriber {
    Wamp(Box<wamp::Client>),
    Stomp(Box<stomp::Client>),
}

impl Subscriber {
    async fn expect_all(mut self, messages: usize) {
        for place in 0..=messages {
            let found = self.next().await;
            assert!(found.ends_with(payload(place).as_bytes()), "not the message {place}: {found:?}");
        }
    }

    /// What the next message carries, as it lies on the wire.
    async fn next(&mut self) -> bytes::Bytes {
        match self {
            Subscriber::Wamp(client) => match client.receive().await.unwrap() {
                Message::Event(event) => match event.payload {
                    Content::Arguments(arguments) => arguments.args,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            },
            Subscriber::Stomp(client) => {
                let frame = client.receive_frame().await.unwrap();
                assert_eq!(frame.command, Command::Message);
                frame.body
            }
        }
    }
}

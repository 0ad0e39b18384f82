//! What a publication costs the broker: one encoding for each serializer, whoever reads it, and one write for
//! each subscriber and batch, not for each message. Counted by a daemon of its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::time::Duration;

use tandem_client::raw::stomp::AckMode;
use tandem_client::raw::wamp::MatchPolicy;
use tandem_client::raw::{stomp, wamp};
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::dict::Dict;
use tandem_tests::broker::soon;
use tandem_tests::daemon::Daemon;
use tandem_tests::peers;

const ENCODINGS: &str = "tandem_encodings_total";
const WRITES: &str = "tandem_writes_total";
const EVENTS: &str = "tandem_events_total";

/// Nobody is pinged meanwhile: a ping is a write.
const QUIET: &str = "[websocket]\nping_interval_s = 3600\n";

const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

async fn subscribed(daemon: &Daemon, format: Format) -> wamp::Client {
    let mut client = peers::wamp(daemon.address(), format).await;
    client.subscribe("a.topic", MatchPolicy::Exact).await.unwrap();
    client
}

async fn subscribed_stomp(daemon: &Daemon) -> stomp::Client {
    let mut client = peers::stomp(daemon.address()).await;
    client.subscribe("/topic/a.topic", "0", AckMode::Auto, &[]).await.unwrap();
    client
}

/// Publishes so many messages with one write of the publisher.
async fn publish_at_once(client: &mut wamp::Client, messages: usize) {
    for place in 0..messages {
        let args = client.args(&(place,)).unwrap();
        client.publish("a.topic", Dict::new(), args).await.unwrap();
    }
    client.flush().await.unwrap();
}

async fn take_wamp(clients: &mut [wamp::Client], messages: usize) {
    for client in clients {
        for _ in 0..messages {
            soon("an event", client.next_event()).await.unwrap();
        }
    }
}

async fn take_stomp(clients: &mut [stomp::Client], messages: usize) {
    for client in clients {
        for _ in 0..messages {
            soon("a message", client.next_message()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_encoder_runs_once_for_each_serializer_and_publication() {
    const MESSAGES: usize = 20;
    let daemon = Daemon::start_with(QUIET);
    let mut wamp = Vec::new();
    let mut stomp = Vec::new();
    for _ in 0..10 {
        for format in FORMATS {
            wamp.push(subscribed(&daemon, format).await);
        }
        stomp.push(subscribed_stomp(&daemon).await);
    }
    let mut publisher = peers::wamp(daemon.address(), Format::Json).await;
    let before = daemon.metric(ENCODINGS);
    for _ in 0..MESSAGES {
        publish_at_once(&mut publisher, 1).await;
        take_wamp(&mut wamp, 1).await;
        take_stomp(&mut stomp, 1).await;
    }
    // JSON, MessagePack, CBOR, and STOMP 1.2, where all gave their subscriptions the same name: four, for forty
    // subscribers.
    assert_eq!(daemon.metric(ENCODINGS) - before, 4 * MESSAGES as i64);
    assert_eq!(daemon.metric(EVENTS), 40 * MESSAGES as i64);
}

#[tokio::test]
async fn a_burst_is_one_write_for_each_subscriber() {
    const SUBSCRIBERS: usize = 50;
    const BURST: usize = 16;
    const ROUNDS: usize = 10;
    for is_wamp in [true, false] {
        let daemon = Daemon::start_with(QUIET);
        let mut wamp = Vec::new();
        let mut stomp = Vec::new();
        for _ in 0..SUBSCRIBERS {
            if is_wamp {
                wamp.push(subscribed(&daemon, Format::MsgPack).await);
            } else {
                stomp.push(subscribed_stomp(&daemon).await);
            }
        }
        let mut publisher = peers::wamp(daemon.address(), Format::MsgPack).await;
        let before = daemon.metric(WRITES);
        for _ in 0..ROUNDS {
            publish_at_once(&mut publisher, BURST).await;
            take_wamp(&mut wamp, BURST).await;
            take_stomp(&mut stomp, BURST).await;
        }
        // The counter is behind the last write by a moment.
        let least = (SUBSCRIBERS * ROUNDS) as i64;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let mut writes = daemon.metric(WRITES) - before;
        while writes < least && tokio::time::Instant::now() < deadline {
            writes = daemon.metric(WRITES) - before;
        }
        let language = if is_wamp { "WAMP" } else { "STOMP" };
        let deliveries = least * BURST as i64;
        println!("{language}: {writes} writes for {deliveries} deliveries in {ROUNDS} bursts of {BURST}");
        // A read may end within a burst, so that it is two; but hardly ever.
        assert!((least..least * 2).contains(&writes), "{language}: {writes} writes, at best {least}");
    }
}

//! Peers that do not read: what they cost is bounded, others do not notice, and it comes back. Seen from
//! outside, by a daemon of its own: its counters and its memory.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use tandem_client::raw::stomp::{self, AckMode};
use tandem_client::raw::wamp::{self, MatchPolicy};
use tandem_protocols::payload::{Arguments, Format, encode_bytes};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::{Event, Message};
use tandem_tests::daemon::Daemon;
use tandem_tests::peers;

const MIB: usize = 1 << 20;

/// What the daemon itself may take, in any profile, beside what waits.
const BASE_BYTES_MAX: usize = 64 * MIB;

const SLOW_CONSUMERS: &str = "tandem_slow_consumers_total";
const EVENTS_DROPPED: &str = "tandem_events_dropped_total";
const PUBLICATIONS: &str = "tandem_publications_total";
const SESSIONS: &str = "tandem_sessions";

/// Generous: these tests are about what happens, not when.
const TIME_MAX: Duration = Duration::from_secs(120);

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIME_MAX, future).await.unwrap_or_else(|_| panic!("in time: {what}"))
}

/// Waits until one of the daemon's counters is what it should be; its memory is looked at meanwhile.
async fn until(daemon: &Daemon, metric: &str, holds: impl Fn(i64) -> bool) -> i64 {
    let wait = async {
        loop {
            check_memory(daemon);
            let value = daemon.metric(metric);
            if holds(value) {
                return value;
            }
            tokio::task::yield_now().await;
        }
    };
    in_time(metric, wait).await
}

fn check_memory(daemon: &Daemon) {
    let bytes = daemon.resident_bytes();
    assert!(bytes < BASE_BYTES_MAX, "the daemon takes {} MiB", bytes / MIB);
}

/// A payload of this size that begins with its place.
fn payload(place: usize, bytes: usize) -> Vec<u8> {
    let mut payload = vec![b'.'; bytes];
    payload[..8].copy_from_slice(&(place as u64).to_be_bytes());
    payload
}

fn place(payload: &[u8]) -> usize {
    u64::from_be_bytes(payload[..8].try_into().unwrap()) as usize
}

/// One positional argument of MessagePack: these bytes.
fn arguments(payload: &[u8]) -> Arguments {
    let mut args = vec![0x91];
    args.extend_from_slice(&encode_bytes(Format::MsgPack, payload));
    Arguments { format: Format::MsgPack, args: args.into(), kwargs: bytes::Bytes::new() }
}

/// The place of the message that an event carries.
fn event_place(event: &Event, bytes: usize) -> usize {
    let tandem_protocols::payload::Content::Arguments(arguments) = &event.payload else {
        panic!("{event:?}")
    };
    place(&arguments.args[arguments.args.len() - bytes..])
}

async fn subscriber(daemon: &Daemon) -> wamp::Client {
    let mut client = peers::wamp(daemon.address(), Format::MsgPack).await;
    client.subscribe("a.topic", MatchPolicy::Exact).await.unwrap();
    client
}

/// A subscriber that is not going to read.
async fn stalled_subscriber(daemon: &Daemon) -> wamp::Client {
    let transport = peers::lazy_websocket(daemon.address(), "wamp.2.msgpack").await;
    let mut client = peers::wamp_over(transport, Format::MsgPack).await;
    client.subscribe("a.topic", MatchPolicy::Exact).await.unwrap();
    client
}

async fn publish(client: &mut wamp::Client, place: usize, bytes: usize) {
    let arguments = arguments(&payload(place, bytes));
    client.publish("a.topic", Dict::new(), arguments).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_does_not_read_is_dropped_and_costs_the_others_nothing() {
    const BYTES: usize = 16 * 1024;
    const BATCH: usize = 32;
    const BATCHES: usize = 40;
    let daemon = Daemon::start(&[]);
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(subscriber(&daemon).await);
    }
    let mut stalled = stalled_subscriber(&daemon).await;
    let mut stalled_stomp =
        peers::stomp_over(peers::lazy_websocket(daemon.address(), "v12.stomp").await).await;
    stalled_stomp.subscribe("/topic/a.topic", "0", AckMode::Auto, &[]).await.unwrap();
    let mut publisher = peers::wamp(daemon.address(), Format::MsgPack).await;
    let publishes = async {
        for batch in 0..BATCHES {
            for place in batch * BATCH..(batch + 1) * BATCH {
                publish(&mut publisher, place, BYTES).await;
            }
            publisher.flush().await.unwrap();
            // At the pace of those who read.
            for other in &mut others {
                for expected in batch * BATCH..(batch + 1) * BATCH {
                    assert_eq!(event_place(&other.next_event().await.unwrap(), BYTES), expected);
                }
            }
            check_memory(&daemon);
        }
    };
    in_time("20 MiB to those who read", publishes).await;
    assert_eq!(until(&daemon, SLOW_CONSUMERS, |count| count >= 2).await, 2);
    assert!(daemon.metric(EVENTS_DROPPED) >= 2);
    // Others and the publisher are still there.
    assert_eq!(until(&daemon, SESSIONS, |count| count <= 6).await, 6);
    // They are told why, behind what was on the wire already; or, if they did not read in time, nothing.
    let ending = in_time("the end of the stalled session", async {
        loop {
            match stalled.receive().await {
                Ok(Message::Event(_)) => {}
                other => return other,
            }
        }
    });
    match ending.await {
        Ok(Message::Goodbye(goodbye)) => assert_eq!(goodbye.reason, "tandem.close.slow_consumer"),
        Ok(other) => panic!("{other:?}"),
        Err(_) => {}
    }
    let ended = in_time("the end of the stalled connection", async {
        while stalled_stomp.next_message().await.is_ok() {}
    });
    ended.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_drops_the_oldest_or_the_newest_and_keeps_the_session() {
    const BYTES: usize = 16 * 1024;
    const MESSAGES: usize = 400;
    for policy in ["drop-oldest", "drop-newest"] {
        // At once too long over the soft limit: this is no reason to go, as events are dropped instead.
        let limits = "mailbox_bytes_max = 262144\nmailbox_bytes_soft_max = 65536\nslow_time_s = 0";
        let daemon = Daemon::start_with(&format!("[limits]\nslow_subscriber = {policy:?}\n{limits}\n"));
        let mut stalled = stalled_subscriber(&daemon).await;
        let mut publisher = peers::wamp(daemon.address(), Format::MsgPack).await;
        for place in 0..MESSAGES {
            publish(&mut publisher, place, BYTES).await;
        }
        publisher.flush().await.unwrap();
        until(&daemon, PUBLICATIONS, |count| count == MESSAGES as i64).await;
        // It begins to read. When nothing more comes, a message that has room again says that this was all.
        let mut markers = 0;
        let reads = async {
            let mut places = Vec::new();
            loop {
                match timeout(Duration::from_millis(200), stalled.next_event()).await {
                    Ok(event) => match event_place(&event.unwrap(), BYTES) {
                        MESSAGES => return places,
                        place => places.push(place),
                    },
                    Err(_) => {
                        markers += 1;
                        publish(&mut publisher, MESSAGES, BYTES).await;
                        publisher.flush().await.unwrap();
                    }
                }
            }
        };
        let places = in_time("what was not dropped", reads).await;
        assert!(places.is_sorted_by(|a, b| a < b), "{policy}: {places:?}");
        assert!(places.len() < MESSAGES / 2, "{policy}: {} of {MESSAGES} were kept", places.len());
        let kept_last = places.last() == Some(&(MESSAGES - 1));
        assert_eq!(kept_last, policy == "drop-oldest", "{policy}: {places:?}");
        let dropped = daemon.metric(EVENTS_DROPPED) as usize;
        let least = MESSAGES - places.len();
        assert!((least..least + markers).contains(&dropped), "{policy}: {dropped} were dropped, not {least}");
        assert_eq!(daemon.metric(SLOW_CONSUMERS), 0, "{policy}");
        assert_eq!(daemon.metric(SESSIONS), 2, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_consumer_of_a_queue_keeps_its_credit_and_harms_nobody() {
    const BYTES: usize = 16 * 1024;
    const MESSAGES: usize = 1000;
    const CREDIT: usize = 32;
    let daemon = Daemon::start(&[]);
    let mut stalled = peers::stomp_over(peers::lazy_websocket(daemon.address(), "v12.stomp").await).await;
    stalled.subscribe("/queue/q", "0", AckMode::ClientIndividual, &[]).await.unwrap();
    let mut other = peers::stomp(daemon.address()).await;
    other.subscribe("/queue/q", "0", AckMode::ClientIndividual, &[]).await.unwrap();
    let mut producer = peers::stomp(daemon.address()).await;
    let mut seen = BTreeSet::new();
    let work = async {
        let produce = async {
            for place in 0..MESSAGES {
                producer.send("/queue/q", &[], payload(place, BYTES)).await.unwrap();
            }
            producer.flush().await.unwrap();
        };
        let consume = async {
            while seen.len() < MESSAGES - CREDIT {
                seen.insert(acknowledge_next(&mut other).await);
            }
        };
        tokio::join!(produce, consume);
        check_memory(&daemon);
        // The rest is held by the one that does not read, until it goes.
        drop(stalled);
        while seen.len() < MESSAGES {
            seen.insert(acknowledge_next(&mut other).await);
        }
    };
    in_time("all messages of the queue", work).await;
    assert_eq!(daemon.metric(SLOW_CONSUMERS), 0);
    other.disconnect().await.unwrap();
}

async fn acknowledge_next(client: &mut stomp::Client) -> usize {
    let message = client.next_message().await.unwrap();
    client.ack(&message, None).await.unwrap();
    client.flush().await.unwrap();
    place(&message.body)
}

/// So much, to subscribers that do not read.
const FLOOD_BYTES: usize = 100 * MIB;
const FLOOD_MESSAGE_BYTES: usize = 64 * 1024;
const FLOOD_MESSAGES: usize = FLOOD_BYTES / FLOOD_MESSAGE_BYTES;

async fn flood(mut publisher: wamp::Client) -> wamp::Client {
    for place in 0..FLOOD_MESSAGES {
        publish(&mut publisher, place, FLOOD_MESSAGE_BYTES).await;
    }
    publisher.flush().await.unwrap();
    publisher
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_reads_the_publisher_waits_and_nothing_is_lost() {
    // Less than a mailbox: the publisher has to wait before anybody overflows.
    let budget = 2 * MIB;
    let limits = format!("in_flight_bytes_max = {budget}\nslow_time_s = 3600\nmessage_time_s = 3600");
    let daemon = Daemon::start_with(&format!("[limits]\n{limits}\n[websocket]\nping_interval_s = 3600\n"));
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(stalled_subscriber(&daemon).await);
    }
    let publisher = peers::wamp(daemon.address(), Format::MsgPack).await;
    let publisher = tokio::spawn(flood(publisher));
    let reached = (budget / (FLOOD_MESSAGE_BYTES + 1024)) as i64;
    until(&daemon, PUBLICATIONS, |count| count >= reached).await;
    // It went over its budget by what one read holds, and not much further, however long it goes on.
    for _ in 0..100 {
        check_memory(&daemon);
        let published = daemon.metric(PUBLICATIONS);
        assert!(published < reached * 4, "{published} publications, though nobody reads");
        assert!(!publisher.is_finished());
        tokio::task::yield_now().await;
    }
    // They begin to read: everything goes on, and everybody gets everything.
    let readers: Vec<_> = stalled
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                for expected in 0..FLOOD_MESSAGES {
                    let event = client.next_event().await.unwrap();
                    assert_eq!(event_place(&event, FLOOD_MESSAGE_BYTES), expected);
                }
            })
        })
        .collect();
    in_time("100 MiB to 20 subscribers", async {
        for reader in readers {
            reader.await.unwrap();
        }
        publisher.await.unwrap();
    })
    .await;
    check_memory(&daemon);
    assert_eq!(daemon.metric(SLOW_CONSUMERS), 0);
    assert_eq!(daemon.metric(EVENTS_DROPPED), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_ever_reads_all_of_them_are_dropped_and_the_publisher_goes_on() {
    let daemon = Daemon::start(&[]);
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(stalled_subscriber(&daemon).await);
    }
    let publisher = peers::wamp(daemon.address(), Format::MsgPack).await;
    let publisher = tokio::spawn(flood(publisher));
    until(&daemon, PUBLICATIONS, |count| count == FLOOD_MESSAGES as i64).await;
    assert_eq!(until(&daemon, SLOW_CONSUMERS, |count| count >= 20).await, 20);
    // As before: whoever comes now is served.
    let mut publisher = in_time("100 MiB to nobody", publisher).await.unwrap();
    let mut reader = subscriber(&daemon).await;
    publish(&mut publisher, 7, FLOOD_MESSAGE_BYTES).await;
    publisher.flush().await.unwrap();
    let event = in_time("an event", reader.next_event()).await.unwrap();
    assert_eq!(event_place(&event, FLOOD_MESSAGE_BYTES), 7);
    assert_eq!(until(&daemon, SESSIONS, |count| count <= 2).await, 2);
}

/// Somebody who asks and reads no answers is no longer read: how much of `requests`, over and over, it got
/// rid of before.
async fn ask_without_reading(daemon: &Daemon, stream: &mut tokio::net::TcpStream, requests: &[u8]) -> usize {
    let mut sent = 0;
    loop {
        check_memory(daemon);
        assert!(sent < 256 * MIB, "the daemon reads on and on");
        // A second without any progress is a stall; if the daemon is just slow, this test sees less.
        match timeout(Duration::from_secs(1), stream.write(&requests[sent % requests.len()..])).await {
            Ok(count) => sent += count.unwrap(),
            Err(_) => return sent,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stomp_peer_that_reads_no_receipts_is_not_read_any_more() {
    let daemon = Daemon::start(&[]);
    let mut stream = tokio::net::TcpStream::connect(daemon.address()).await.unwrap();
    stream.write_all(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0").await.unwrap();
    let request = b"SEND\ndestination:/topic/nobody\nreceipt:a-receipt-with-a-rather-long-name\n\n\0";
    let requests = request.repeat(1000);
    let sent = ask_without_reading(&daemon, &mut stream, &requests).await;
    // It reads, and gets what is left: one receipt for each whole frame.
    let expected = sent / request.len();
    let read = async {
        let mut buffer = vec![0; 64 * 1024];
        let mut receipts = 0;
        while receipts < expected + 1 {
            let count = stream.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the connection ended after {receipts} of {expected}");
            receipts += buffer[..count].iter().filter(|octet| **octet == 0).count();
        }
        // And CONNECTED.
        assert_eq!(receipts, expected + 1);
    };
    in_time("all receipts", read).await;
    check_memory(&daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wamp_peer_that_reads_no_results_is_not_read_any_more() {
    let daemon = Daemon::start(&[]);
    let mut client = peers::wamp(daemon.address(), Format::MsgPack).await;
    client.link().transport().set_inbox_bytes_max(0);
    let mut calls = 0_usize;
    loop {
        check_memory(&daemon);
        assert!(calls < 2_000_000, "the daemon reads on and on");
        let args = client.args(&()).unwrap();
        // With what it gathered it flushes, and stands still with the daemon.
        match timeout(Duration::from_secs(1), client.begin_call("there.is.none", Dict::new(), args)).await {
            Ok(request) => {
                request.unwrap();
                calls += 1;
            }
            // The call itself is in the output.
            Err(_) => {
                calls += 1;
                break;
            }
        }
    }
    let read = async {
        for _ in 0..calls {
            let answer = client.receive().await.unwrap();
            assert!(matches!(answer, Message::Error(_)), "{answer:?}");
        }
    };
    in_time("all answers", read).await;
    check_memory(&daemon);
}

//! A publisher that is faster than those who read waits for them, and not for those who do not read. Seen from
//! outside, by a daemon of its own.
//!
//! A thousand subscribers that do not read, as `reliability.md` wants it, take a while:
//!
//! ```text
//! cargo test --release -p tandem-tests --test pacing -- --ignored --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use tandem_client::raw::stomp::AckMode;
use tandem_client::raw::wamp::{self, MatchPolicy};
use tandem_protocols::payload::{Arguments, Content, Format, encode_bytes};
use tandem_protocols::wamp::dict::Dict;
use tandem_tests::attacker::{Raw, frame};
use tandem_tests::daemon::Daemon;
use tandem_tests::peers;

const MIB: usize = 1 << 20;

const PACED: &str = "tandem_publishers_paced_total";
const SLOW_CONSUMERS: &str = "tandem_slow_consumers_total";
const PUBLICATIONS: &str = "tandem_publications_total";
const SESSIONS: &str = "tandem_sessions";

/// Generous: these tests are about what happens, not when.
const TIME_MAX: Duration = Duration::from_secs(240);

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIME_MAX, future).await.unwrap_or_else(|_| panic!("in time: {what}"))
}

async fn until(daemon: &Daemon, metric: &str, holds: impl Fn(i64) -> bool) -> i64 {
    let wait = async {
        loop {
            let value = daemon.metric(metric);
            if holds(value) {
                return value;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(metric, wait).await
}

/// One positional argument of MessagePack: so many bytes that begin with their place.
fn arguments(place: usize, bytes: usize) -> Arguments {
    let mut payload = vec![b'.'; bytes];
    payload[..8].copy_from_slice(&(place as u64).to_be_bytes());
    let mut args = vec![0x91];
    args.extend_from_slice(&encode_bytes(Format::MsgPack, &payload));
    Arguments { format: Format::MsgPack, args: args.into(), kwargs: bytes::Bytes::new() }
}

async fn next_place(client: &mut wamp::Client, bytes: usize) -> usize {
    let event = client.next_event().await.unwrap();
    let Content::Arguments(Arguments { args, .. }) = &event.payload else { panic!("{event:?}") };
    u64::from_be_bytes(args[args.len() - bytes..][..8].try_into().unwrap()) as usize
}

/// Publishes so many messages as fast as it can, and sees that it is still there.
async fn flood(daemon: &Daemon, messages: usize, bytes: usize) -> wamp::Client {
    let mut client = peers::wamp(daemon.address(), Format::MsgPack).await;
    for place in 0..messages {
        client.publish("a.topic", Dict::new(), arguments(place, bytes)).await.unwrap();
    }
    client.publish_acknowledged("done", Dict::new(), client.args(&()).unwrap()).await.unwrap();
    client
}

async fn subscriber(daemon: &Daemon) -> wamp::Client {
    let mut client = peers::wamp(daemon.address(), Format::MsgPack).await;
    client.subscribe("a.topic", MatchPolicy::Exact).await.unwrap();
    client
}

async fn stalled_subscriber(daemon: &Daemon) -> wamp::Client {
    let transport = peers::lazy_websocket(daemon.address(), "wamp.2.msgpack").await;
    let mut client = peers::wamp_over(transport, Format::MsgPack).await;
    client.subscribe("a.topic", MatchPolicy::Exact).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_at_full_speed_loses_none_of_ten_subscribers_that_read() {
    const BYTES: usize = 16 * 1024;
    // Six times what a mailbox holds: more says no more, and takes minutes where the machine is busy.
    const MESSAGES: usize = 1500;
    let daemon = Daemon::start(&[]);
    let mut readers = JoinSet::new();
    for place in 0..10 {
        // Most read STOMP, which takes them longer: a publisher waits for most of its subscribers, not for half of them.
        if place % 5 == 0 {
            let mut client = subscriber(&daemon).await;
            readers.spawn(async move {
                for expected in 0..MESSAGES {
                    assert_eq!(next_place(&mut client, BYTES).await, expected);
                }
            });
        } else {
            let mut client = peers::stomp(daemon.address()).await;
            client.subscribe("/topic/a.topic", "0", AckMode::Auto, &[]).await.unwrap();
            client.send_with_receipt("/topic/other", &[], "").await.unwrap();
            readers.spawn(async move {
                for expected in 0..MESSAGES {
                    let body = client.next_message().await.unwrap().body;
                    let body = &body[body.len() - BYTES..];
                    assert_eq!(u64::from_be_bytes(body[..8].try_into().unwrap()) as usize, expected);
                }
            });
        }
    }
    let _publisher = in_time("the publisher", flood(&daemon, MESSAGES, BYTES)).await;
    in_time("all readers", async {
        while let Some(read) = readers.join_next().await {
            read.unwrap();
        }
    })
    .await;
    assert_eq!(daemon.metric(SLOW_CONSUMERS), 0);
    println!("10 readers: the publisher waited {} times", daemon.metric(PACED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_only_subscriber_that_is_slow_but_reads_is_waited_for() {
    const BYTES: usize = 64 * 1024;
    const MESSAGES: usize = 400;
    let daemon = Daemon::start(&[]);
    let mut slow = subscriber(&daemon).await;
    let reader = tokio::spawn(async move {
        for expected in 0..MESSAGES {
            assert_eq!(next_place(&mut slow, BYTES).await, expected);
            // This is how slow it is: some 20 MB/s.
            sleep(Duration::from_millis(3)).await;
        }
    });
    let _publisher = in_time("the publisher", flood(&daemon, MESSAGES, BYTES)).await;
    in_time("the reader", reader).await.unwrap();
    assert!(daemon.metric(PACED) > 0);
    assert_eq!(daemon.metric(SLOW_CONSUMERS), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_do_not_read_hold_a_publisher_up_for_as_long_as_they_are_borne() {
    do_not_read(100, 100 * MIB, 192 * MIB, "[limits]\nslow_time_s = 1\npace_time_s = 2\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a thousand subscribers and 2 GiB"]
async fn a_thousand_subscribers_that_do_not_read_hold_a_publisher_up_for_as_long_as_they_are_borne() {
    do_not_read(1000, 2048 * MIB, 512 * MIB, "").await;
}

async fn do_not_read(subscribers: usize, bytes: usize, resident_bytes_max: usize, toml: &str) {
    const BYTES: usize = 64 * 1024;
    let daemon = Daemon::start_with(toml);
    let mut stalled = Vec::new();
    for _ in 0..subscribers {
        stalled.push(stalled_subscriber(&daemon).await);
    }
    let began = Instant::now();
    let watch = async {
        let (mut most, mut published_when_paced) = (0, 0);
        loop {
            most = most.max(daemon.resident_bytes());
            if published_when_paced == 0 && daemon.metric(PACED) > 0 {
                published_when_paced = daemon.metric(PUBLICATIONS);
            }
            if daemon.metric(SLOW_CONSUMERS) >= subscribers as i64 {
                return (most, published_when_paced, began.elapsed());
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let publishing = in_time("the flood", flood(&daemon, bytes / BYTES, BYTES));
    let ((most, published, dropped_after), mut publisher) =
        tokio::join!(in_time("all of them are dropped", watch), publishing);
    println!(
        "{subscribers} that do not read: held up after {published} of {}, all dropped after {dropped_after:.1?}, \
         at most {} MiB resident",
        bytes / BYTES,
        most / MIB
    );
    assert!(most < resident_bytes_max, "{} MiB", most / MIB);
    assert!(published > 0 && (published as usize) < bytes / BYTES, "it was held up after {published}");
    assert_eq!(daemon.metric(SLOW_CONSUMERS), subscribers as i64);
    // It goes on, and so does who comes now.
    let mut reader = subscriber(&daemon).await;
    publisher.publish("a.topic", Dict::new(), arguments(7, BYTES)).await.unwrap();
    publisher.flush().await.unwrap();
    assert_eq!(in_time("an event", next_place(&mut reader, BYTES)).await, 7);
    until(&daemon, SESSIONS, |count| count == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_subscriber_of_many_that_does_not_read_holds_nobody_up() {
    const BYTES: usize = 16 * 1024;
    const MESSAGES: usize = 640;
    let daemon = Daemon::start_with("[limits]\nslow_time_s = 1\npace_time_s = 3600\n");
    let _stalled = stalled_subscriber(&daemon).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(subscriber(&daemon).await);
    }
    let mut publisher = peers::wamp(daemon.address(), Format::MsgPack).await;
    for place in 0..MESSAGES {
        publisher.publish("a.topic", Dict::new(), arguments(place, BYTES)).await.unwrap();
        publisher.flush().await.unwrap();
        // At the pace of those who read.
        for other in &mut others {
            assert_eq!(in_time("an event", next_place(other, BYTES)).await, place);
        }
    }
    assert_eq!(until(&daemon, SLOW_CONSUMERS, |count| count > 0).await, 1);
    assert_eq!(daemon.metric(PACED), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heart_beats_go_both_ways_while_a_stomp_publisher_is_held_up() {
    const BYTES: usize = 16 * 1024;
    const BEAT: &[u8] = b"\x81\x01\n";
    let limits = "mailbox_bytes_soft_max = 65536\nmailbox_bytes_max = 268435456\nslow_time_s = 3600\n\
                  pace_time_s = 3600\nmessage_time_s = 3600";
    let toml =
        format!("[stomp]\nheart_beat_ms = 20\n[limits]\n{limits}\n[websocket]\nping_interval_s = 3600\n");
    let daemon = Daemon::start_with(&toml);
    let stalled = peers::lazy_websocket(daemon.address(), "v12.stomp").await;
    let mut stalled = peers::stomp_over(stalled).await;
    stalled.subscribe("/topic/t", "0", AckMode::Auto, &[]).await.unwrap();
    stalled.send_with_receipt("/topic/other", &[], "").await.unwrap();
    let before = daemon.metric(PUBLICATIONS);

    let mut publisher = Raw::websocket(daemon.address(), "v12.stomp", "").await;
    let connect = b"CONNECT\naccept-version:1.2\nhost:h\nheart-beat:20,20\n\n\0";
    assert!(publisher.write(&frame(0x81, connect)).await);
    publisher.read_until(b"\n\n\0").await;
    let mut message = format!("SEND\ndestination:/topic/t\ncontent-length:{BYTES}\n\n").into_bytes();
    message.extend(vec![b'x'; BYTES]);
    message.push(0);
    let message = frame(0x82, &message);
    let mut written = 0;
    in_time("the publisher is held up", async {
        while daemon.metric(PACED) == 0 {
            assert!(publisher.write(&message).await);
            written += 1;
            publisher.read_until(BEAT).await;
        }
    })
    .await;
    // For longer than silence is borne (a second, and twice what was agreed on) there are only heart-beats, and what
    // it sends is not taken in.
    assert!(publisher.write(&message).await);
    written += 1;
    let taken = daemon.metric(PUBLICATIONS);
    in_time("heart-beats", async {
        for _ in 0..150 {
            assert!(publisher.write(&frame(0x81, b"\n")).await);
            publisher.read_until(BEAT).await;
        }
    })
    .await;
    assert_eq!((daemon.metric(SESSIONS), daemon.metric(PACED)), (2, 1));
    assert_eq!(daemon.metric(PUBLICATIONS), taken);
    assert!(taken - before < written);
    // Once they are read everything goes on, and nothing is lost.
    in_time("all of them", async {
        for _ in 0..written {
            assert_eq!(stalled.next_message().await.unwrap().body.len(), BYTES);
        }
    })
    .await;
}

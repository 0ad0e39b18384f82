//! Those who take their time on purpose, byte by byte, and those who all come at once: reliability's R11 and R12.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use tandem_tests::attacker::{Bystanders, CONNECT, Raw, frame, upgrade};
use tandem_tests::broker::{Broker, eventually};
use tandem_tests::certificates::Authority;
use tandem_tests::daemon::Daemon;
use tandem_tests::poller::Poller;

const HELLO: &[u8] = br#"[1,"realm1",{"roles":{"subscriber":{}}}]"#;

/// What a stage begins with, and what is said in it for ever, a byte at a time.
#[derive(Clone)]
struct Stage {
    what: &'static str,
    first: Vec<u8>,
    then: Vec<u8>,
}

fn stages(address: SocketAddr) -> Vec<Stage> {
    let wamp = upgrade(address, "Sec-WebSocket-Protocol: wamp.2.json\r\n").into_bytes();
    let join = [&wamp[..], &frame(0x81, HELLO)].concat();
    let rawsocket = [&[0x7f, 0xf1, 0, 0, 0, 0, 0, HELLO.len() as u8][..], HELLO].concat();
    let stage = |what, first: &[u8], then: &[u8]| Stage { what, first: first.to_vec(), then: then.to_vec() };
    let fragment = frame(0x00, b" ");
    vec![
        stage("nothing", b"", b""),
        stage("the request line", b"GET /", b"a"),
        stage("the head of HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\na: ", b"a"),
        stage("headers of HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"a: b\r\n"),
        stage(
            "a body that nobody wants",
            b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n",
            b"a",
        ),
        stage(
            "a body for long-polling",
            b"POST /lp/open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n",
            b" ",
        ),
        stage("requests", b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        stage("a HELLO", &[&wamp[..], &frame(0x81, &[b' '; 9999])[..8]].concat(), b" "),
        stage("fragments of a HELLO", &[&wamp[..], &frame(0x01, b"[")].concat(), &fragment),
        stage("pings before a HELLO", &wamp, &frame(0x89, b"")),
        stage("a frame", &[&join[..], &frame(0x81, &[b' '; 9999])[..8]].concat(), b" "),
        stage("the head of a frame", &[&join[..], &[0x81]].concat(), b""),
        stage("fragments of a message", &[&join[..], &frame(0x01, b"[")].concat(), &fragment),
        stage("pings within a message", &[&join[..], &frame(0x01, b"[")].concat(), &frame(0x89, b"")),
        stage("a HELLO over RawSocket", &rawsocket[..8], b" "),
        stage("a message over RawSocket", &[&rawsocket[..], &[0, 0, 0x20, 0]].concat(), b" "),
        stage("a CONNECT", b"CONNECT\na:", b"a"),
        stage("line ends before a CONNECT", b"", b"\n"),
        stage("the head of a frame of STOMP", &[CONNECT, b"SEND\na:"].concat(), b"a"),
        stage("the body of a frame of STOMP", &[CONNECT, b"SEND\ndestination:/topic/a\n\n"].concat(), b"a"),
    ]
}

/// Says what a stage begins with, then a byte now and then, and reads; done when the broker closes.
async fn dribble(stream: TcpStream, first: &[u8], then: &[u8], pause: Duration) {
    let (mut reading, mut writing) = stream.into_split();
    let say = async {
        let _ = writing.write_all(first).await;
        for byte in then.iter().cycle() {
            tokio::time::sleep(pause).await;
            if writing.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let hear = async {
        let mut piece = [0; 4096];
        while let Ok(1..) = reading.read(&mut piece).await {}
    };
    tokio::select! {
        () = say => {}
        () = hear => {}
    }
}

const SHORT: &str = "[limits]\nstranger_time_s = 1\nmessage_time_s = 1\nclose_time_s = 1\n";

/// Each byte comes in time, and the whole never does.
#[tokio::test]
async fn whoever_says_a_byte_now_and_then_is_closed_in_every_stage() {
    let broker = Broker::start_with(SHORT).await;
    let address = broker.address();
    let poller = Poller::join(address).await;
    let mut stages = stages(address);
    stages.push(Stage {
        what: "a message of a session that polls",
        first: format!(
            "POST {}/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n",
            poller.path
        )
        .into(),
        then: b" ".to_vec(),
    });
    let mut slow = JoinSet::new();
    for Stage { what, first, then } in stages {
        slow.spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let dribbling = dribble(stream, &first, &then, Duration::from_millis(20));
            (what, tokio::time::timeout(Duration::from_secs(30), dribbling).await.is_ok())
        });
    }
    for (what, is_closed) in slow.join_all().await {
        assert!(is_closed, "{what}: not closed");
    }
    drop(poller);
    let mut bystanders = Bystanders::enter(address).await;
    bystanders.talk().await;
}

#[tokio::test]
async fn whoever_says_a_hello_of_tls_byte_by_byte_is_closed() {
    let authority = Authority::new();
    authority.renew();
    let broker = Broker::start_with(&(authority.config("off") + SHORT)).await;
    let address = broker.server().tls_addresses()[0];
    // A record of 16 KiB is announced.
    let hello = [0x16, 3, 1, 0x40, 0, 1, 0, 0x3F, 0xFC, 3, 3];
    let stream = TcpStream::connect(address).await.unwrap();
    let dribbling = dribble(stream, &hello[..1], &hello[1..], Duration::from_millis(20));
    assert!(tokio::time::timeout(Duration::from_secs(30), dribbling).await.is_ok());
}

/// Half-open connections: the peer is gone, and nobody told the kernel. Here it neither reads nor says anything.
#[tokio::test]
async fn who_is_gone_without_a_word_is_found_out_on_every_wire() {
    let broker = Broker::start_with(
        "[websocket]\nping_interval_s = 1\npong_timeout_s = 1\n[limits]\nclose_time_s = 1\n",
    )
    .await;
    let address = broker.address();
    let hello = frame(0x81, HELLO);
    let websocket = upgrade(address, "Sec-WebSocket-Protocol: wamp.2.json\r\n").into_bytes();
    let sockjs = upgrade(address, "").replace("GET /", "GET /sockjs/0/0/websocket").into_bytes();
    let connect = "CONNECT\\naccept-version:1.2\\nhost:/\\n\\n\\u0000";
    let beating = b"CONNECT\naccept-version:1.2\nhost:/\nheart-beat:1000,1000\n\n\0";
    let rawsocket = [&[0x7f, 0xf1, 0, 0, 0, 0, 0, HELLO.len() as u8][..], HELLO].concat();
    let mut gone = Vec::new();
    for (said, let_in) in [
        ([&websocket[..], &hello].concat(), "[2,"),
        ([&sockjs[..], &frame(0x81, format!("[\"{connect}\"]").as_bytes())].concat(), "CONNECTED"),
        (rawsocket, "[2,"),
        (beating.to_vec(), "CONNECTED"),
    ] {
        let mut raw = Raw::connect(address).await;
        raw.write(&said).await;
        raw.read_until(let_in.as_bytes()).await;
        gone.push(raw);
    }
    eventually("all are found out", || broker.sessions() == 0).await;
}

/// R12: this many at a time, each a byte in a second, with the default limits.
async fn slow_crowd(count: usize) {
    let daemon = Daemon::start_with("log = \"error\"\n[limits]\nstrangers_max = 10000\n");
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let before = daemon.resident_bytes();
    let mut slow = JoinSet::new();
    for (number, stage) in stages(address).into_iter().cycle().take(count).enumerate() {
        slow.spawn(async move {
            // Not all in the same millisecond: that is another test.
            tokio::time::sleep(Duration::from_millis(number as u64 / 2)).await;
            let stream = TcpStream::connect(address).await.unwrap();
            let dribbling = dribble(stream, &stage.first, &stage.then, Duration::from_secs(1));
            let closed = tokio::time::timeout(Duration::from_secs(60), dribbling).await;
            assert!(closed.is_ok(), "{}: not closed", stage.what);
        });
    }
    let mut grown = 0;
    while !slow.is_empty() {
        let done = tokio::time::timeout(Duration::from_millis(200), slow.join_next()).await;
        if let Ok(Some(done)) = done {
            done.unwrap();
        }
        grown = grown.max(daemon.resident_bytes().saturating_sub(before));
        bystanders.talk().await;
    }
    println!("{count} slow peers: the broker grew by {} KiB at most", grown / 1024);
    assert!(grown < 64 << 20, "it grew by {grown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test --release -p tandem-tests --test attacks_slow -- --ignored --nocapture"]
async fn five_thousand_slow_peers_are_closed_and_cost_little() {
    slow_crowd(5000).await;
}

/// R11: all connect, in either language, while two talk to each other.
async fn storm(count: usize) {
    let daemon = Daemon::start_with(
        "log = \"error\"\n[limits]\nstrangers_max = 256\n[websocket]\nping_interval_s = 600\n",
    );
    let address = daemon.address();
    let mut bystanders = Bystanders::enter(address).await;
    let begin = Instant::now();
    let mut storm = JoinSet::new();
    for number in 0..count {
        storm.spawn(async move {
            let mut raw = Raw::connect(address).await;
            match number % 2 {
                0 => {
                    let request = upgrade(address, "Sec-WebSocket-Protocol: wamp.2.json\r\n").into_bytes();
                    raw.write(&[&request[..], &frame(0x81, HELLO)].concat()).await;
                    raw.read_until(b"[2,").await;
                }
                _ => {
                    raw.write(CONNECT).await;
                    raw.read_until(b"CONNECTED").await;
                }
            }
            raw
        });
    }
    let mut waits = Vec::new();
    let mut connected = Vec::new();
    while connected.len() < count {
        let talk = Instant::now();
        bystanders.talk().await;
        waits.push(talk.elapsed());
        while let Some(done) = storm.try_join_next() {
            connected.push(done.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    waits.sort_unstable();
    println!(
        "{count} connections in {:?}; two who talked meanwhile waited {:?} (median) and {:?} (99 of 100)",
        begin.elapsed(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
    );
    assert_eq!(daemon.metric("tandem_sessions"), count as i64 + 2);
    drop(connected);
    eventually("they are gone", || daemon.metric("tandem_sessions") == 2).await;
    bystanders.talk().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_connections_is_let_in_and_who_was_there_talks_on() {
    storm(1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs 20,000 files: cargo test --release -p tandem-tests --test attacks_slow -- --ignored --nocapture"]
async fn a_storm_of_fifteen_thousand_connections() {
    storm(15_000).await;
}

//! The load generator against a broker in this process: each workload counts deliveries and finds none wrong, and
//! it notices a broker that does not deliver as it should.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use tandem_bench::error::Error;
use tandem_bench::options::Bench;
use tandem_bench::report::Report;
use tandem_bench::run::execute;
use tandem_tests::broker::Broker;
use tandem_tests::daemon::Daemon;
use tandem_tests::house::House;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bench: Bench,
}

/// Runs `tandem bench` with these words, briefly.
async fn bench(words: &str, url: &str) -> Result<Report, Error> {
    run(&format!("{words} --duration 0.4 --drain 10"), url).await
}

/// The same for as long as the words say.
async fn run(words: &str, url: &str) -> Result<Report, Error> {
    let words = format!("bench {words} --url {url} --warm-up 0.1");
    let arguments =
        Arguments::try_parse_from(words.split_whitespace()).unwrap_or_else(|error| panic!("{error}"));
    execute(&arguments.bench.workload).await
}

/// The same, against a broker of this process, of which nothing may be wrong.
async fn counts(words: &str, scheme: &str) -> Report {
    let broker = Broker::start().await;
    let url = format!("{scheme}://{}/", broker.address());
    let report = bench(words, &url).await.unwrap_or_else(|error| panic!("{words}: {error}"));
    assert_eq!((report.wrong, &*report.wrong_examples), (0, &[][..]), "{words}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_delivers_and_confirms_what_is_sent() {
    for (scheme, more) in [("tcp", ""), ("ws", "--persistent"), ("tcp", "--depth 20 --words")] {
        let report = counts(&format!("queue --producers 4 --window 4 --consumers 3 {more}"), scheme).await;
        assert!(report.delivered_in_all > 0 && report.receipt_us.is_some() && report.counted.confirmed > 0);
    }
    let report = counts("queue --producers 2 --consumers 0", "tcp").await;
    assert!(report.delivered_in_all == 0 && report.counted.confirmed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_comes_to_everybody_in_every_language_and_in_a_mixture() {
    for language in ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor", "stomp", "wamp.2.json,stomp"] {
        let report = counts(&format!("fanout --subscribers 4 --language {language}"), "ws").await;
        assert!(report.delivered_in_all > 0 && report.delivered_in_all % 4 == 0, "{language}: {report:?}");
    }
    counts("fanout --subscribers 3 --language wamp.2.cbor --size 16384", "tcp").await;
    counts("fanout --subscribers 3 --language stomp --size 1000 --words", "tcp").await;
    counts("fanout --subscribers 3 --size 1000 --words --compress", "ws").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_topics_a_fixed_rate_patterns_and_a_stalled_subscriber_are_counted() {
    let report = counts("topics --topics 10 --language wamp.2.msgpack", "ws").await;
    assert!(report.delivered_in_all >= 10);
    let report = counts("latency --rate 500 --subscribers 3 --language stomp,wamp.2.json", "ws").await;
    assert!(report.delivered_in_all > 0 && report.delivery_us.is_some());
    for kind in ["exact", "prefix", "wildcard"] {
        assert!(counts(&format!("patterns --patterns 1500 --kind {kind}"), "ws").await.delivered_in_all > 0);
    }
    assert!(counts("slow --subscribers 3 --stalled 1", "ws").await.delivered_in_all > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_in_every_format() {
    for (language, scheme) in [("wamp.2.json", "ws"), ("wamp.2.msgpack", "tcp"), ("wamp.2.cbor", "ws")] {
        let report = counts(&format!("calls --callers 3 --callees 2 --language {language}"), scheme).await;
        assert!(report.delivered_in_all > 0, "{language}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_weighed() {
    let pid = std::process::id();
    let report = counts(&format!("idle --connections 50 --server-pid {pid}"), "ws").await;
    assert!(report.bytes_per_connection.is_some() && report.broker.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_a_broker_can_be_loaded() {
    let house = House::open("");
    let ca = house.authority.path("ca.pem");
    for scheme in ["wss", "tls", "unix", "http", "https"] {
        for words in ["fanout --subscribers 3 --language wamp.2.msgpack,stomp", "calls --callers 2", "queue"]
        {
            let words = format!("{words} --ca {}", ca.display());
            let report = bench(&words, &house.address(scheme).to_string()).await;
            let report = report.unwrap_or_else(|error| panic!("{scheme}: {words}: {error}"));
            assert_eq!((report.wrong, &*report.wrong_examples), (0, &[][..]), "{scheme}: {words}");
            assert!(report.delivered_in_all > 0, "{scheme}: {words}");
        }
    }
    // Nobody is trusted for nothing.
    let distrusted = bench("fanout", &house.address("wss").to_string()).await;
    assert!(matches!(distrusted, Err(Error::Connect(_))), "{distrusted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_ends_meanwhile_is_something_wrong_and_not_a_wrong_command() {
    let measures = async |workload: &str, for_s: u64| {
        let daemon = Daemon::start(&[]);
        let (url, pid) = (format!("ws://{}/", daemon.address()), daemon.id());
        let words = format!("{workload} --server-pid {pid} --drain 1 --duration 5");
        let ending = async {
            tokio::time::sleep(Duration::from_secs(for_s)).await;
            drop(daemon);
        };
        let (report, ()) = tokio::join!(run(&words, &url), ending);
        let report = report.unwrap_or_else(|error| panic!("{words}: {error}"));
        assert!(report.wrong > 0 && report.broker.is_none(), "{words}: {report:?}");
        assert!(report.wrong_examples.iter().any(|what| what.contains("the broker is gone")), "{report:?}");
    };
    // Idle connections settle for two seconds before they are measured.
    tokio::join!(measures("fanout --subscribers 2", 2), measures("idle --connections 10", 4));
}

#[tokio::test]
async fn what_cannot_be_is_told_from_a_broker_that_is_not_there() {
    let broker = Broker::start().await;
    let polling = format!("http://{}/lp", broker.address());
    let pid = std::process::id();
    for words in ["fanout --language nats", &format!("idle --server-pid {pid}")] {
        let result = bench(words, &polling).await;
        assert!(matches!(result, Err(Error::Usage(_))), "{words}: {result:?}");
    }
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let gone = bench("fanout", &format!("ws://{address}/")).await;
    assert!(matches!(gone, Err(Error::Connect(_))), "{gone:?}");
}

/// A broker for NATS that forwards what is published to one subject, but not as it should.
async fn careless(carelessness: fn(usize, Vec<u8>) -> Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut subscriber, _) = listener.accept().await.unwrap();
        answer_pings(&mut subscriber, 2).await;
        let (mut publisher, _) = listener.accept().await.unwrap();
        answer_pings(&mut publisher, 1).await;
        let (mut input, mut count) = (Vec::new(), 0);
        while publisher.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
            while let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") {
                let line = str::from_utf8(&input[..end]).unwrap().to_owned();
                let length: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
                if input.len() < end + 4 + length {
                    break;
                }
                let payload = input[end + 2..end + 2 + length].to_vec();
                input.drain(..end + 4 + length);
                count += 1;
                for payload in carelessness(count, payload) {
                    let head = format!("MSG x 1 {}\r\n", payload.len());
                    let message = [head.as_bytes(), &payload, b"\r\n"].concat();
                    subscriber.write_all(&message).await.unwrap();
                }
            }
        }
        // The subscriber is to go first.
        let _ = subscriber.read_to_end(&mut Vec::new()).await;
    });
    address
}

async fn answer_pings(stream: &mut TcpStream, pings: usize) {
    let mut seen = Vec::new();
    let mut answered = 0;
    while answered < pings {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
        let found = seen.windows(6).filter(|bytes| *bytes == b"PING\r\n").count();
        for _ in answered..found {
            stream.write_all(b"PONG\r\n").await.unwrap();
        }
        answered = found;
    }
}

async fn careless_run(carelessness: fn(usize, Vec<u8>) -> Vec<Vec<u8>>) -> Report {
    let address = careless(carelessness).await;
    let words = "fanout --language nats --subscribers 1 --drain 0.2";
    let words = format!("bench {words} --url nats://{address} --warm-up 0.1 --duration 0.3");
    execute(&Arguments::try_parse_from(words.split_whitespace()).unwrap().bench.workload).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_loses_repeats_reorders_or_changes_messages_is_found_out() {
    let report = careless_run(|_, payload| vec![payload]).await;
    assert!(report.wrong == 0 && report.delivered_in_all > 0, "{report:?}");
    let loses = careless_run(|count, payload| if count == 7 { vec![] } else { vec![payload] }).await;
    assert_eq!(loses.wrong, 1, "{loses:?}");
    assert!(loses.wrong_examples[0].contains("1 before it are missing"), "{loses:?}");
    let repeats = careless_run(
        |count, payload| if count == 7 { vec![payload.clone(), payload] } else { vec![payload] },
    )
    .await;
    assert_eq!(repeats.wrong, 1, "{repeats:?}");
    assert!(repeats.wrong_examples[0].contains("again"), "{repeats:?}");
    let changes = careless_run(|count, mut payload| {
        if count == 7 {
            payload[80] ^= 1;
        }
        vec![payload]
    })
    .await;
    // The one that is changed is also missing before the next one.
    assert_eq!(changes.wrong, 2, "{changes:?}");
    assert!(changes.wrong_examples[0].contains("checksum"), "{changes:?}");
}

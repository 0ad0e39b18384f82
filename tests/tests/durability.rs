//! What got its receipt survives the death of the broker: the daemon is killed again and again at moments of
//! chance's choosing, under producers who wait for receipts and consumers who acknowledge one by one.
//!
//! By default a few rounds. All of them, and the figures:
//!
//! ```text
//! cargo test --release -p tandem-tests --test durability -- --ignored --nocapture --test-threads 1
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; figures are printed"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use tandem_broker::core::store::{Change, Store, Submission};
use tandem_broker::store::disk::{DiskStore, StoreLimits, StoreSettings};
use tandem_broker::store::space::SpaceLimits;
use tandem_client::raw::dial::connect_tcp;
use tandem_client::raw::stomp;
use tandem_protocols::stomp::frame::{Command, Frame};
use tandem_tests::broker::eventually;
use tandem_tests::daemon::{Daemon, executable};
use tandem_tests::peers;

const PRODUCERS: usize = 16;
const CONSUMERS: usize = 8;
const QUEUE: &str = "/queue/jobs";

/// What the first producer sends goes here as well, in one transaction.
const PAIRS: &str = "/queue/pairs";

/// Receipts that a producer waits for at a time.
const PIPELINE: usize = 4;

const ROUNDS: usize = 5;
const ROUNDS_OF_THE_RELEASE: usize = 200;

/// Generous: what is held here is what survives, not speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbers of a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A directory for a store, which goes with this.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tandem-{name}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }

    fn config(&self) -> String {
        format!(
            "[store]\npath = {:?}\nfree_bytes_min = 0\nfree_percent_min = 0\n[limits]\nqueue_bytes_max = \
             8589934592\nqueues_bytes_max = 8589934592\nqueue_messages_max = 10000000\n",
            self.0
        )
    }

    /// Puts so many messages of a kibibyte into a queue, and closes the store.
    fn fill(&self, queue: &str, messages: u64) {
        let space = SpaceLimits { free_bytes_min: 0, free_percent_min: 0, free_percent_bytes_max: 0 };
        let settings = StoreSettings { directory: self.0.clone(), limits: StoreLimits::new(space) };
        let opened = DiskStore::open(&settings).unwrap();
        let id = opened.store.next_queue();
        let (realm, name) = ("realm1".into(), queue.into());
        let mut changes = vec![Change::Make { queue: id, realm, name, properties: Vec::new() }];
        for sequence in 1..=messages {
            let record = filler(sequence);
            changes.push(Change::Append {
                queue: id,
                sequence,
                cost: record.len() as u32 + 256,
                note: Default::default(),
                record,
            });
            if changes.len() >= 1000 || sequence == messages {
                opened.store.submit(Submission { changes: std::mem::take(&mut changes), done: None });
                while opened.store.admit().is_err() {
                    std::thread::yield_now();
                }
            }
        }
        opened.store.close();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A message of a kibibyte, as the broker keeps it.
fn filler(number: u64) -> bytes::Bytes {
    use tandem_broker::core::message::{Publication, SessionId};
    use tandem_broker::core::name::Name;
    use tandem_broker::core::store::record;
    use tandem_protocols::payload::{Content, Payload};
    let mut bytes = vec![b'x'; 1024];
    bytes[..20].copy_from_slice(format!("{number:020}").as_bytes());
    let (name, payload) = (Name::parse("filler").unwrap(), Payload::new(Content::Opaque(bytes.into())));
    let attributes = [("persistent", "true")].into_iter().collect();
    record::encode(&Publication { attributes, ..Publication::new(number, name, SessionId(1), payload) })
}

/// A message: who sent it, and the how-manieth of theirs it is.
type Id = (usize, u64);

/// What the clients know, across all deaths of the broker.
#[derive(Default)]
struct Ledger {
    /// The last number of each producer.
    last: BTreeMap<usize, u64>,
    /// What got its receipt.
    confirmed: BTreeSet<Id>,
    /// What was acknowledged, as far as its consumer knows.
    acknowledged: BTreeSet<Id>,
    /// The same, with a receipt.
    settled: BTreeSet<Id>,
    delivered: BTreeSet<Id>,
    deliveries: usize,
    faults: Vec<String>,
}

type Shared = Arc<Mutex<Ledger>>;

fn open(ledger: &Shared) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap()
}

impl Ledger {
    /// A delivery on a connection, where the last of each producer was this.
    fn note_delivery(&mut self, id: Id, seen: &mut BTreeMap<usize, u64>) {
        self.deliveries += 1;
        if self.settled.contains(&id) {
            self.faults.push(format!("{id:?} came again although its ACK had got its receipt"));
        }
        self.delivered.insert(id);
        let last = seen.insert(id.0, id.1).unwrap_or(0);
        if id.1 <= last {
            self.faults.push(format!("{id:?} came after {last} of the same producer"));
        }
    }
}

fn id_of(frame: &Frame) -> Id {
    let text = str::from_utf8(&frame.body).unwrap();
    let (producer, number) = text.split_once(' ').unwrap();
    (producer.parse().unwrap(), number.split(' ').next().unwrap().parse().unwrap())
}

async fn connect(address: SocketAddr) -> Option<stomp::Client> {
    let transport = connect_tcp(address).await.ok()?;
    let options = stomp::ConnectOptions::default();
    let version = tandem_protocols::stomp::frame::Version::V12;
    stomp::Client::connect(transport, version, &options).await.ok()
}

fn send_frame(id: Id) -> Frame {
    send_to(QUEUE, id)
}

fn send_to(queue: &str, id: Id) -> Frame {
    let (producer, number) = id;
    Frame::new(Command::Send)
        .with("destination", queue)
        .with("persistent", "true")
        .with_body(format!("{producer} {number} {:0100}", 0))
}

/// The frames that send a message, the last of which asks for a receipt.
fn request(id: Id) -> Vec<Frame> {
    let number = id.1.to_string();
    if id.0 != 0 {
        return vec![send_frame(id).with("receipt", &number)];
    }
    let frame = |command| Frame::new(command).with("transaction", &number);
    vec![
        frame(Command::Begin),
        send_frame(id).with("transaction", &number),
        send_to(PAIRS, id).with("transaction", &number),
        frame(Command::Commit).with("receipt", &number),
    ]
}

/// Sends until the broker dies.
async fn produce(address: SocketAddr, producer: usize, ledger: Shared) {
    let Some(mut client) = connect(address).await else { return };
    let mut waiting = 0;
    loop {
        while waiting < PIPELINE {
            let number = {
                let mut ledger = open(&ledger);
                let last = ledger.last.entry(producer).or_default();
                *last += 1;
                *last
            };
            waiting += 1;
            for frame in request((producer, number)) {
                if client.send_frame(&frame).await.is_err() {
                    return;
                }
            }
        }
        if client.flush().await.is_err() {
            return;
        }
        let Ok(frame) = client.receive_frame().await else { return };
        if frame.command != Command::Receipt {
            open(&ledger).faults.push(format!("a producer got {frame:?}"));
            return;
        }
        let number = frame.headers.get("receipt-id").unwrap().parse().unwrap();
        open(&ledger).confirmed.insert((producer, number));
        waiting -= 1;
    }
}

fn subscribe_frame() -> Frame {
    subscribe_to(QUEUE)
}

fn subscribe_to(queue: &str) -> Frame {
    Frame::new(Command::Subscribe).with("destination", queue).with("id", "1").with("ack", "client-individual")
}

fn ack_frame(message: &Frame) -> Frame {
    let ack = message.headers.get("ack").unwrap();
    Frame::new(Command::Ack).with("id", ack)
}

/// Takes messages and acknowledges most of them, until the broker dies.
async fn consume(address: SocketAddr, seed: u64, ledger: Shared) {
    let Some(mut client) = connect(address).await else { return };
    if client.send_frame(&subscribe_frame()).await.is_err() || client.flush().await.is_err() {
        return;
    }
    let mut chance = Chance(seed);
    let mut seen = BTreeMap::new();
    while let Ok(frame) = client.receive_frame().await {
        match frame.command {
            Command::Message => {
                let id = id_of(&frame);
                open(&ledger).note_delivery(id, &mut seen);
                // Some are still unacknowledged when the broker dies.
                if chance.below(100) < 3 {
                    continue;
                }
                open(&ledger).acknowledged.insert(id);
                let ack = ack_frame(&frame).with("receipt", &format!("{}-{}", id.0, id.1));
                let sent = client.send_frame(&ack).await;
                if sent.is_err() || client.flush().await.is_err() {
                    return;
                }
            }
            Command::Receipt => {
                let (producer, number) = frame.headers.get("receipt-id").unwrap().split_once('-').unwrap();
                open(&ledger).settled.insert((producer.parse().unwrap(), number.parse().unwrap()));
            }
            _ => return open(&ledger).faults.push(format!("a consumer got {frame:?}")),
        }
    }
}

/// Takes everything that is left in a queue.
async fn drain(address: SocketAddr, queue: &str) -> Vec<Id> {
    let mut client = connect(address).await.expect("the broker runs");
    let marker = Frame::new(Command::Send).with("destination", queue).with_body("999999 1 ");
    client.send_frame(&marker).await.unwrap();
    client.send_frame(&subscribe_to(queue)).await.unwrap();
    client.flush().await.unwrap();
    let mut found = Vec::new();
    loop {
        let frame = timeout(PATIENCE, client.receive_frame()).await.expect("in time").unwrap();
        if frame.command != Command::Message {
            continue;
        }
        let id = id_of(&frame);
        client.send_frame(&ack_frame(&frame)).await.unwrap();
        client.flush().await.unwrap();
        if id.0 == 999_999 {
            return found;
        }
        found.push(id);
    }
}

async fn kill_again_and_again(rounds: usize, seed: u64) {
    executable();
    let directory = Directory::new("durability");
    let ledger: Shared = Arc::default();
    let mut chance = Chance(seed);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let begun = Instant::now();
        let daemon = Daemon::start_with(&directory.config());
        slowest = slowest.max(begun.elapsed());
        let address = daemon.address();
        let before = open(&ledger).confirmed.len();
        let mut clients = JoinSet::new();
        for producer in 0..PRODUCERS {
            clients.spawn(produce(address, producer, ledger.clone()));
        }
        for consumer in 0..CONSUMERS {
            clients.spawn(consume(address, (round * CONSUMERS + consumer) as u64, ledger.clone()));
        }
        // Chance decides when: after so many receipts, and a little later.
        let receipts = chance.below(2000) as usize;
        let died = timeout(PATIENCE, async {
            while open(&ledger).confirmed.len() < before + receipts {
                assert!(open(&ledger).faults.is_empty(), "{:?}", open(&ledger).faults);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_micros(chance.below(20_000))).await;
        });
        died.await.expect("receipts come");
        daemon.signal("KILL");
        drop(daemon);
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    }
    let daemon = Daemon::start_with(&directory.config());
    let mut seen = BTreeMap::new();
    let found = drain(daemon.address(), QUEUE).await;
    found.iter().for_each(|id| open(&ledger).note_delivery(*id, &mut seen));
    let found: BTreeSet<Id> = found.into_iter().collect();
    let pairs = drain(daemon.address(), PAIRS).await;
    let unreadable = daemon.metric("tandem_store_unreadable_total");
    let (log, well) = daemon.terminate();
    assert!(well, "{log}");
    let ledger = open(&ledger);
    assert_eq!(ledger.faults, Vec::<String>::new());
    let left: Vec<&Id> = ledger.confirmed.difference(&ledger.acknowledged).collect();
    let lost: Vec<_> = left.into_iter().filter(|id| !found.contains(id)).collect();
    assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
    let back: Vec<_> = found.intersection(&ledger.settled).collect();
    assert!(back.is_empty(), "settled and back: {back:?}");
    let never: Vec<_> = ledger.confirmed.difference(&ledger.delivered).collect();
    assert!(never.is_empty(), "confirmed and never delivered: {never:?}");
    assert_eq!(unreadable, 0);
    assert!(pairs.is_sorted(), "in order");
    let others: Vec<Id> = ledger.delivered.iter().copied().filter(|id| id.0 == 0).collect();
    assert_eq!(pairs, others, "both messages of a transaction or none");
    println!(
        "{rounds} rounds: {} confirmed, {} deliveries of {} messages, {} acknowledgements confirmed, {} left \
         at the end; slowest start {slowest:?}",
        ledger.confirmed.len(),
        ledger.deliveries,
        ledger.delivered.len(),
        ledger.settled.len(),
        found.len(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_loses_nothing_that_got_its_receipt() {
    kill_again_and_again(ROUNDS, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "two hundred rounds"]
async fn two_hundred_deaths() {
    kill_again_and_again(ROUNDS_OF_THE_RELEASE, 2).await;
}

/// How many receipts there are for each commit, when so many producers wait for each of theirs.
async fn receipts_per_commit(producers: usize, each: usize) -> (f64, f64) {
    executable();
    let directory = Directory::new("receipts");
    let daemon = Daemon::start_with(&directory.config());
    let address = daemon.address();
    let mut clients = JoinSet::new();
    let begun = Instant::now();
    for producer in 0..producers {
        clients.spawn(async move {
            let mut client = connect(address).await.expect("the broker runs");
            for number in 1..=each as u64 {
                client.request(send_frame((producer, number))).await.unwrap();
            }
        });
    }
    while let Some(ended) = timeout(PATIENCE, clients.join_next()).await.expect("in time") {
        ended.unwrap();
    }
    let rate = (producers * each) as f64 / begun.elapsed().as_secs_f64();
    let receipts = daemon.metric("tandem_store_waiters_total") as f64;
    let per_commit = receipts / daemon.metric("tandem_store_commits_total") as f64;
    (per_commit, rate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_receipts_share_a_commit() {
    let (per_commit, _) = receipts_per_commit(64, 20).await;
    assert!(per_commit > 4.0, "{per_commit} receipts for each commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure"]
async fn receipts_per_commit_and_per_second() {
    for producers in [1, 16, 64, 256] {
        let (per_commit, rate) = receipts_per_commit(producers, 20_000 / producers).await;
        let per_fsync = per_commit / 2.0;
        println!(
            "{producers} producers: {rate:.0} receipts per second, {per_commit:.1} per commit, {per_fsync:.1} per \
             fsync"
        );
        assert!(producers < 64 || per_fsync >= 20.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a gibibyte"]
async fn a_gibibyte_in_the_store_is_served_within_a_second() {
    executable();
    let directory = Directory::new("gibibyte");
    let begun = Instant::now();
    directory.fill("jobs", 1 << 20);
    println!("filled in {:?}", begun.elapsed());
    for (case, kills) in [("closed", true), ("killed", false)] {
        let begun = Instant::now();
        let daemon = Daemon::start_with(&directory.config());
        let mut client = connect(daemon.address()).await.expect("the broker runs");
        client.send_frame(&subscribe_frame()).await.unwrap();
        client.flush().await.unwrap();
        let frame = timeout(PATIENCE, client.receive_frame()).await.expect("in time").unwrap();
        let taken = begun.elapsed();
        assert_eq!(frame.command, Command::Message);
        println!("{case}: the first message after {taken:?}, {} MiB resident", daemon.resident_bytes() >> 20);
        assert!(taken < Duration::from_secs(1));
        if kills {
            daemon.signal("KILL");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_what_was_delivered_survive_an_orderly_end_too() {
    executable();
    let directory = Directory::new("orderly");
    let daemon = Daemon::start_with(&directory.config());
    let mut client = peers::stomp(daemon.address()).await;
    for number in 1..=3 {
        client.request(send_frame((7, number))).await.unwrap();
    }
    client.send_frame(&subscribe_frame()).await.unwrap();
    client.flush().await.unwrap();
    let first = client.next_message().await.unwrap();
    assert_eq!((id_of(&first), first.headers.get("redelivered")), ((7, 1), None));
    client.request(ack_frame(&first)).await.unwrap();
    let second = client.next_message().await.unwrap();
    assert_eq!(id_of(&second), (7, 2));
    let (log, well) = daemon.terminate();
    assert!(well, "{log}");
    let daemon = Daemon::start_with(&directory.config());
    let mut client = peers::stomp(daemon.address()).await;
    client.send_frame(&subscribe_frame()).await.unwrap();
    client.flush().await.unwrap();
    for number in [2, 3] {
        let message = client.next_message().await.unwrap();
        assert_eq!(id_of(&message), (7, number));
        assert_eq!(message.headers.get("redelivered"), Some("true"));
        assert_eq!(message.headers.get("persistent"), Some("true"));
    }
    assert!(daemon.metric("tandem_store_bytes") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_on_the_same_store_does_not_start() {
    let directory = Directory::new("second");
    let _daemon = Daemon::start_with(&directory.config());
    let config = tandem_tests::daemon::ConfigFile::new(&directory.config());
    let mut second = std::process::Command::new(executable());
    let output =
        second.args(["serve", "--listen", "127.0.0.1:0", "--config", config.path()]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("in use by another process"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_ends_durable_service_and_nothing_else() {
    executable();
    let directory = Directory::new("failing");
    let config = directory.config().replace("[limits]", "on_failure = \"serve\"\n[limits]");
    let daemon = Daemon::start_with_small_files(&config, 8 << 10);
    let mut client = connect(daemon.address()).await.expect("the broker runs");
    let mut confirmed = 0;
    let error = loop {
        let body = "x".repeat(100_000);
        let frame = Frame::new(Command::Send).with("destination", QUEUE).with("persistent", "true");
        let receipt = (confirmed + 1).to_string();
        client.send_frame(&frame.with("receipt", &receipt).with_body(body)).await.unwrap();
        client.flush().await.unwrap();
        let frame = timeout(PATIENCE, client.receive_frame()).await.expect("in time").unwrap();
        if frame.command == Command::Error {
            break frame;
        }
        confirmed += 1;
        assert!(confirmed < 1000, "the disk is not that large");
    };
    assert_eq!(error.headers.get("message"), Some("Not stored"));
    assert_eq!(error.headers.get("receipt-id"), Some(&*(confirmed + 1).to_string()));
    let mut client = connect(daemon.address()).await.expect("the broker runs");
    let transient = Frame::new(Command::Send).with("destination", "/queue/other").with_body("x");
    client.request(transient).await.unwrap();
    assert!(client.request(send_frame((1, 1))).await.is_err(), "nothing persistent is taken any more");
    assert_eq!(daemon.metric("tandem_store_failed"), 1);
    let unready = || daemon.page("/ready").ends_with("the store failed\n");
    eventually("whoever asks is told", unready).await;
    let (log, well) = daemon.terminate();
    assert!(!well && log.contains("the store failed"), "{log}");
    let daemon = Daemon::start_with(&directory.config());
    let mut client = connect(daemon.address()).await.expect("the broker runs");
    client.send_frame(&subscribe_frame()).await.unwrap();
    client.flush().await.unwrap();
    for _ in 0..confirmed {
        let message = timeout(PATIENCE, client.next_message()).await.expect("in time").unwrap();
        assert_eq!(message.body.len(), 100_000);
        client.send_frame(&ack_frame(&message)).await.unwrap();
        client.flush().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_that_is_nearly_full_a_broker_starts_and_refuses_persistent_messages_only() {
    executable();
    let directory = Directory::new("full");
    let config = directory.config().replace("free_percent_min = 0", "free_percent_min = 100");
    let daemon = Daemon::start_with(&config);
    let mut client = connect(daemon.address()).await.expect("the broker runs");
    let transient = Frame::new(Command::Send).with("destination", QUEUE).with_body("x");
    client.request(transient).await.unwrap();
    assert_eq!(daemon.metric("tandem_store_nearly_full"), 1);
    client.send_frame(&send_frame((1, 1)).with("receipt", "r")).await.unwrap();
    client.flush().await.unwrap();
    let error = timeout(PATIENCE, client.receive_frame()).await.expect("in time").unwrap();
    assert_eq!(error.command, Command::Error);
    assert_eq!(
        (error.headers.get("message"), error.headers.get("receipt-id")),
        (Some("Not stored"), Some("r"))
    );
    assert!(String::from_utf8_lossy(&error.body).contains("nearly full"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_faster_than_the_disk_is_slowed_and_refused_nothing() {
    executable();
    let directory = Directory::new("flood");
    let config = directory.config().replace("[limits]", "backlog_bytes_max = 100000\n[limits]");
    let daemon = Daemon::start_with(&config);
    let mut client = connect(daemon.address()).await.expect("the broker runs");
    for number in 1..=5000 {
        client.send_frame(&send_frame((1, number))).await.unwrap();
    }
    client.request(send_frame((1, 5001))).await.unwrap();
    assert_eq!(daemon.metric("tandem_store_messages_total"), 5001);
}

// ---- what topics keep --------------------------------------------------------------------------------------

const KEEPING_TOPICS: u64 = 5;

/// Of the events of a topic.
const REMEMBERED: u64 = 20;

/// Of each topic the last number that was sent, and those that were confirmed. Every fourth takes away what is retained.
type Kept = Arc<Mutex<BTreeMap<u64, (u64, BTreeSet<u64>)>>>;

fn is_removal(number: u64) -> bool {
    number.is_multiple_of(4)
}

/// Publishes to a topic until the broker dies.
async fn keep(address: SocketAddr, topic: u64, kept: Kept) {
    let Some(mut client) = connect(address).await else { return };
    loop {
        let number = {
            let mut kept = kept.lock().unwrap();
            let (sent, _) = kept.entry(topic).or_default();
            *sent += 1;
            *sent
        };
        let retain = if is_removal(number) { "remove" } else { "set" };
        // One topic says it itself, the others the configuration.
        let (name, persistent) =
            if topic == 0 { ("own".to_owned(), "true") } else { (format!("kept.{topic}"), "false") };
        let frame = Frame::new(Command::Send)
            .with("destination", &format!("/topic/{name}"))
            .with("content-type", "text/plain")
            .with("persistent", persistent)
            .with("retain", retain)
            .with_body(number.to_string());
        if client.request(frame).await.is_err() {
            return;
        }
        kept.lock().unwrap().entry(topic).or_default().1.insert(number);
    }
}

/// What a topic retains.
async fn retained(address: SocketAddr, topic: u64) -> Option<u64> {
    let name = if topic == 0 { "own".to_owned() } else { format!("kept.{topic}") };
    let mut client = connect(address).await.expect("the broker runs");
    let subscribe = Frame::new(Command::Subscribe).with("destination", &format!("/topic/{name}"));
    client.request(subscribe.with("id", "1").with("x-get-retained", "true")).await.unwrap();
    let end = Frame::new(Command::Send)
        .with("destination", &format!("/topic/{name}"))
        .with("content-type", "text/plain");
    client.request(end.with_body("0")).await.unwrap();
    let frame = timeout(PATIENCE, client.next_message()).await.expect("in time").unwrap();
    let number = str::from_utf8(&frame.body).unwrap().parse().unwrap();
    (number > 0).then_some(number)
}

/// The numbers that a topic remembers.
async fn remembered(address: SocketAddr, topic: u64) -> Vec<u64> {
    use tandem_client::raw::wamp::MatchPolicy;
    let mut client = peers::wamp(address, tandem_protocols::payload::Format::Json).await;
    let subscription = client.subscribe(&format!("kept.{topic}"), MatchPolicy::Exact).await.unwrap();
    let arguments = client.args(&[subscription.get()]).unwrap();
    let outcome = client.call("wamp.subscription.get_events", arguments).await.unwrap();
    let events: Vec<serde_json::Value> = outcome.args().unwrap();
    let number = |event: &serde_json::Value| event["args"][0].as_str().unwrap().parse().unwrap();
    events.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_topics_keep_survives_the_death_of_the_broker() {
    executable();
    let directory = Directory::new("topics");
    let more = format!(
        "[[store.retained]]\npattern = \"kept.\"\nmatch = \"prefix\"\n[[history]]\npattern = \
         \"kept.\"\nmatch = \"prefix\"\ndurable = true\nlimit = {}\n",
        REMEMBERED * KEEPING_TOPICS
    );
    let config = directory.config() + &more;
    let kept: Kept = Arc::default();
    let mut chance = Chance(3);
    for round in 0..ROUNDS {
        let daemon = Daemon::start_with(&config);
        let address = daemon.address();
        let confirmed = || kept.lock().unwrap().values().map(|(_, confirmed)| confirmed.len()).sum::<usize>();
        if round > 0 {
            judge_kept(address, &kept).await;
        }
        let mut clients = JoinSet::new();
        for topic in 0..KEEPING_TOPICS {
            clients.spawn(keep(address, topic, kept.clone()));
        }
        let enough = confirmed() + chance.below(300) as usize;
        let died = timeout(PATIENCE, async {
            while confirmed() < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_micros(chance.below(5000))).await;
        });
        died.await.expect("receipts come");
        daemon.signal("KILL");
        drop(daemon);
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    }
    let daemon = Daemon::start_with(&config);
    judge_kept(daemon.address(), &kept).await;
    assert_eq!(daemon.metric("tandem_store_unreadable_total"), 0);
    let (log, well) = daemon.terminate();
    assert!(well, "{log}");
}

/// What is kept is what was confirmed last, or what came after it and nobody was told of.
async fn judge_kept(address: SocketAddr, kept: &Kept) {
    let known = kept.lock().unwrap().clone();
    for (topic, (sent, confirmed)) in known {
        let last = confirmed.last().copied().unwrap_or(0);
        if topic > 0 {
            // The markers are 0. What was not confirmed may be missing.
            let past = remembered(address, topic).await;
            let past: Vec<u64> = past.into_iter().filter(|number| *number > 0).collect();
            assert!(past.is_sorted_by(|before, after| before < after), "in order, and none twice: {past:?}");
            let first = past.first().copied().unwrap_or(u64::MAX);
            let missing: Vec<&u64> =
                confirmed.range(first..).filter(|number| !past.contains(number)).collect();
            assert!(missing.is_empty(), "topic {topic} forgot {missing:?}, it has {past:?}");
            assert!(past.last().copied().unwrap_or(0) >= last, "topic {topic} has {past:?}");
        }
        let found = retained(address, topic).await;
        let possible = |number: u64| if is_removal(number) || number == 0 { None } else { Some(number) };
        let right = (last..=sent).any(|number| possible(number) == found);
        assert!(right, "topic {topic} retains {found:?}, of {last} to {sent}");
    }
}

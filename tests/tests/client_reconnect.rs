//! The broker dies and comes back under a hundred clients: all of them come back without help, know what they missed,
//! and nothing that was acknowledged is lost or done twice without their knowing.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinSet;

use tandem_client::stomp::{Client, Events, Mode, Subscription};
use tandem_client::{Backoff, ClientEvent, Error};
use tandem_tests::broker::{eventually, soon};
use tandem_tests::daemon::Daemon;

const SUBSCRIBERS: usize = 40;
const CONSUMERS: usize = 39;
const PRODUCERS: usize = 20;

/// So many messages are confirmed between two deaths.
const CONFIRMED: usize = 100;

/// Not the address of which outgoing connections are: none of them can take the broker's port while it is down.
const HOME: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2)), 0);

/// A directory for a store, which goes with this.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let path = std::env::temp_dir().join(format!("tandem-reconnect-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }

    fn config(&self) -> String {
        format!("[store]\npath = {:?}\nfree_bytes_min = 0\nfree_percent_min = 0\n", self.0)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a consumer did with one delivery.
#[derive(Debug)]
struct Handled {
    began: u64,
    ended: u64,
    is_confirmed: bool,
}

/// What the clients know, across the deaths of the broker.
#[derive(Default)]
struct Ledger {
    clock: AtomicU64,
    is_over: AtomicBool,
    /// What got its receipt.
    sent: Mutex<BTreeSet<String>>,
    handled: Mutex<BTreeMap<String, Vec<Handled>>>,
    faults: Mutex<Vec<String>>,
}

impl Ledger {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// What is in flight fails in one way only.
    fn judge(&self, what: &str, result: Result<(), Error>) -> bool {
        match result {
            Ok(()) => true,
            Err(Error::ConnectionLost) => false,
            Err(other) => {
                self.faults.lock().unwrap().push(format!("{what}: {other:?}"));
                false
            }
        }
    }
}

async fn connect(address: SocketAddr, number: usize) -> Client {
    let url = if number.is_multiple_of(2) { format!("ws://{address}/") } else { format!("tcp://{address}") };
    let soon_again =
        Backoff { first: Duration::from_millis(50), max: Duration::from_millis(500), ..Backoff::default() };
    soon("a connection", Client::builder(url.as_str()).reconnect(soon_again).connect()).await.unwrap()
}

async fn produce(client: Client, producer: usize, ledger: Arc<Ledger>) {
    for number in 0.. {
        if ledger.is_over.load(Ordering::SeqCst) {
            return;
        }
        let id = format!("{producer} {number}");
        let sent = client.send("/queue/jobs").text(id.as_str()).persistent().receipt().await;
        if ledger.judge("SEND", sent) {
            ledger.sent.lock().unwrap().insert(id);
        }
    }
}

async fn consume(mut jobs: Subscription<String>, ledger: Arc<Ledger>) {
    while let Some(job) = jobs.next().await {
        let job = match job {
            Ok(job) => job,
            Err(error) => return ledger.faults.lock().unwrap().push(format!("a consumer: {error:?}")),
        };
        let began = ledger.tick();
        let is_confirmed = ledger.judge("ACK", job.ack_confirmed().await);
        let handled = Handled { began, ended: ledger.tick(), is_confirmed };
        ledger.handled.lock().unwrap().entry(job.payload).or_default().push(handled);
    }
}

/// Waits until all of them are back.
async fn all_back(events: &mut [Events]) {
    for events in events {
        loop {
            match soon("an event", events.next()).await.expect("the client goes on") {
                ClientEvent::Resubscribed => break,
                ClientEvent::GaveUp(why) => panic!("it gave up: {why}"),
                _ => {}
            }
        }
    }
}

/// What is published now comes first, and with word of the gap before it where there was one.
async fn all_hear(publisher: &Client, subscribers: &mut [Subscription<String>], text: &str, has_gap: bool) {
    publisher.send("/topic/news").text(text).receipt().await.unwrap();
    for subscriber in subscribers {
        let news = soon("news", subscriber.next()).await.unwrap().unwrap();
        assert_eq!(news.payload, text);
        assert_eq!(news.gap.is_some_and(|gap| gap.reconnected), has_gap);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_come_back_and_nothing_acknowledged_is_lost_or_done_twice() {
    let directory = Directory::new();
    let mut daemon = Daemon::start_at(HOME, &directory.config());
    let address = daemon.address();
    let ledger = Arc::new(Ledger::default());
    let (mut events, mut subscribers, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
    let publisher = connect(address, 0).await;
    events.push(publisher.events());
    for number in 0..SUBSCRIBERS {
        let client = connect(address, number).await;
        events.push(client.events());
        subscribers
            .push(soon("a receipt", client.subscribe("/topic/news").text().into_future()).await.unwrap());
    }
    for number in 0..CONSUMERS {
        let client = connect(address, number).await;
        events.push(client.events());
        let jobs = client.subscribe("/queue/jobs").ack(Mode::ClientIndividual).prefetch(4).text();
        let jobs = soon("a receipt", jobs.into_future()).await.unwrap();
        tasks.spawn(consume(jobs, ledger.clone()));
    }
    let mut producing = JoinSet::new();
    for producer in 0..PRODUCERS {
        let client = connect(address, producer).await;
        events.push(client.events());
        producing.spawn(produce(client, producer, ledger.clone()));
    }
    assert_eq!(events.len(), 100);
    all_hear(&publisher, &mut subscribers, "before", false).await;

    for is_orderly in [false, true] {
        let so_far = ledger.sent();
        eventually("jobs are sent and done", || ledger.sent() >= so_far + CONFIRMED).await;
        // Something that nobody is going to answer.
        let silent = soon("a receipt", publisher.subscribe("/procedure/silent").into_future()).await.unwrap();
        let call = tokio::spawn(publisher.call("/call/silent").into_future());
        soon("the call", async { silent.take(1).collect::<Vec<_>>().await }).await;
        if is_orderly {
            daemon.terminate();
        } else {
            drop(daemon);
        }
        let lost = soon("an error", call).await.unwrap();
        assert!(matches!(lost, Err(Error::ConnectionLost | Error::StompReply(_))), "{lost:?}");
        daemon = Daemon::start_at(address, &directory.config());
        all_back(&mut events).await;
        all_hear(&publisher, &mut subscribers, "after", true).await;
    }

    ledger.is_over.store(true, Ordering::SeqCst);
    while let Some(ended) = soon("the producers", producing.join_next()).await {
        ended.unwrap();
    }
    // Of an acknowledgement whose receipt was lost with the connection nobody knows whether it counted. If it did, the
    // job does not come again.
    let is_done = |id: &String| ledger.handled.lock().unwrap().contains_key(id);
    eventually("every job that was confirmed is worked on", || {
        ledger.sent.lock().unwrap().iter().all(is_done)
    })
    .await;
    assert_eq!(*ledger.faults.lock().unwrap(), [""; 0]);
    for (id, handled) in &*ledger.handled.lock().unwrap() {
        let confirmed: Vec<_> = handled.iter().filter(|handled| handled.is_confirmed).collect();
        assert!(confirmed.len() <= 1, "{id} was done twice: {handled:?}");
        let done = confirmed.first().map_or(u64::MAX, |confirmed| confirmed.ended);
        assert!(handled.iter().all(|handled| handled.began < done), "{id} came again: {handled:?}");
    }
    tasks.shutdown().await;
}

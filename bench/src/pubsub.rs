//! Publish and subscribe: topics, each with one publisher and any number of subscribers.
//!
//! A publisher without a rate waits for the slowest of its subscribers, so that no more than a window of messages
//! is on its way: a broker may drop what a subscriber does not take, and what it drops is not to be measured. One
//! with a rate sends each message when it is due, or as soon after as it can, and the message says when it was
//! due: what it waited for in the load generator or in the broker's socket counts as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use tandem_client::Error as ClientError;

use crate::checker::Order;
use crate::course::{drained, measure, shared};
use crate::error::Error;
use crate::language::{Heard, Language, Publications};
use crate::options::{Common, Fanout, Latency, Patterns, Slow, Topics};
use crate::peer::Peer;
use crate::report::Report;
use crate::stage::{Shared, Stage, Times, times};

/// So many messages are written at once, at most.
const BATCH_MAX: u64 = 64;

/// How long a publisher waits for its subscribers before it looks for itself.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The bytes of a window, unless messages of a window are said: half of what Tandem keeps for a subscriber.
const WINDOW_BYTES: u64 = 512 << 10;

/// Who publishes what to whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is called in the report.
    pub workload: &'static str,
    /// How many topics.
    pub topics: u16,
    /// What is spoken: the publishers speak the first, the subscribers of a topic each in turn.
    pub languages: Vec<Language>,
    /// Subscribers of each topic.
    pub subscribers: u16,
    /// More subscribers of each topic, who never read.
    pub stalled: u16,
    /// Messages that may be on their way; by default what fits into half a mebibyte, and no more than 256.
    pub window: Option<u32>,
    /// Messages per second of each publisher; as many as there is room for by default.
    pub rate: Option<f64>,
}

impl Plan {
    fn new(workload: &'static str, languages: &[Language], subscribers: u16) -> Self {
        let languages = languages.to_vec();
        Self { workload, topics: 1, languages, subscribers, stalled: 0, window: None, rate: None }
    }
}

impl Fanout {
    /// What is to be done.
    pub fn plan(&self) -> Plan {
        Plan { window: self.window, ..Plan::new("fanout", &self.language, self.subscribers) }
    }
}

impl Topics {
    /// What is to be done.
    pub fn plan(&self) -> Plan {
        Plan { topics: self.topics, window: self.window, ..Plan::new("topics", &self.language, 1) }
    }
}

impl Latency {
    /// What is to be done.
    pub fn plan(&self) -> Plan {
        Plan { rate: Some(self.rate), ..Plan::new("latency", &self.language, self.subscribers) }
    }
}

impl Slow {
    /// What is to be done.
    pub fn plan(&self) -> Plan {
        let plan = Plan::new("slow", &self.language, self.subscribers);
        Plan { stalled: self.stalled, window: self.window, ..plan }
    }
}

impl Patterns {
    /// What is to be done, once the patterns are there.
    pub fn plan(&self) -> Plan {
        Plan { window: self.window, ..Plan::new("patterns", &self.language, 1) }
    }
}

/// A topic, and how far its subscribers are.
#[derive(Debug)]
struct Topic {
    received: Vec<AtomicU64>,
    /// The publisher waits until all have received this many; 0 while it does not wait.
    awaited: AtomicU64,
    moved: Notify,
    /// With a rate: how many messages are due.
    due: AtomicU64,
}

impl Topic {
    fn slowest(&self) -> u64 {
        self.received.iter().map(|received| received.load(Ordering::Acquire)).min().unwrap_or(u64::MAX)
    }
}

/// Runs the workload.
///
/// # Errors
///
/// Where somebody cannot connect or subscribe.
pub async fn run(common: &Common, plan: &Plan) -> Result<Report, Error> {
    let shared = shared(common);
    let Some(first) = plan.languages.first().copied() else { return Err(Error::Usage("no language".into())) };
    let unique = rand::random();
    let (mut publishers, mut subscribers, mut stalled) = (JoinSet::new(), JoinSet::new(), Vec::new());
    let mut topics = Vec::new();
    for number in 0..plan.topics {
        let topic = Arc::new(Topic {
            received: (0..plan.subscribers).map(|_| AtomicU64::new(0)).collect(),
            awaited: AtomicU64::new(0),
            moved: Notify::new(),
            due: AtomicU64::new(0),
        });
        topics.push(topic.clone());
        let spoken = plan.languages.iter().cycle();
        for (index, language) in (0..usize::from(plan.subscribers)).zip(spoken.clone()) {
            let name = language.topic(unique, usize::from(number));
            let peer = Peer::subscribed(common, *language, &name).await?;
            let (shared, topic) = (shared.clone(), topic.clone());
            subscribers.spawn(Subscriber { number, index, peer, shared, topic }.run());
        }
        for (_, language) in (0..plan.stalled).zip(spoken) {
            let name = language.topic(unique, usize::from(number));
            stalled.push(Peer::subscribed(common, *language, &name).await?);
        }
        let name = first.topic(unique, usize::from(number));
        let publisher = Publisher {
            number,
            peer: Peer::open(common, first).await?,
            publications: Publications::new(first, name, number, common.size as usize),
            shared: shared.clone(),
            topic,
            window: window(common, plan),
            rate: plan.rate,
            sent: 0,
        };
        publishers.spawn(publisher.run());
    }
    let measured = measure(&shared, common).await?;
    let sent = tokio::time::timeout(common.drain, publishers.join_all()).await.unwrap_or_default();
    if sent.len() < topics.len() {
        shared.faults.note(1, format_args!("{} publishers do not end", topics.len() - sent.len()));
    }
    let expected = |number: u16| sent.iter().find(|sent| sent.0 == number).map_or(0, |sent| sent.1);
    let is_all_there = || (0..).zip(&topics).all(|(number, topic)| topic.slowest() >= expected(number));
    drained(&shared, common, is_all_there).await;
    shared.enter(Stage::Over);
    let mut deliveries = times();
    for (number, index, order, times) in subscribers.join_all().await {
        let _ = deliveries.add(times);
        let missing = expected(number).saturating_sub(order.last(number));
        if missing > 0 {
            let what = format_args!("the last {missing} of topic {number} never came to subscriber {index}");
            shared.faults.note(missing, what);
        }
    }
    drop(stalled);
    let report = Report::new(plan.workload, common.url.to_string(), &measured).with_deliveries(&deliveries);
    Ok(report.with_faults(shared.counters.now().delivered, &shared.faults))
}

fn window(common: &Common, plan: &Plan) -> u64 {
    let fits = (WINDOW_BYTES / u64::from(common.size)).clamp(2, 256);
    plan.window.map_or(fits, |window| u64::from(window.max(1)))
}

struct Publisher {
    number: u16,
    peer: Peer,
    publications: Publications,
    shared: Arc<Shared>,
    topic: Arc<Topic>,
    window: u64,
    rate: Option<f64>,
    sent: u64,
}

impl Publisher {
    /// Gives its number, and how many messages it sent.
    async fn run(mut self) -> (u16, u64) {
        self.shared.reached(Stage::WarmUp).await;
        let ended = match self.rate {
            None => self.publish().await,
            Some(rate) => self.publish_at(rate).await,
        };
        if let Err(error) = ended {
            self.shared.faults.note(1, format_args!("publisher {}: {error}", self.number));
        }
        (self.number, self.sent)
    }

    /// As many as there is room for.
    async fn publish(&mut self) -> Result<(), ClientError> {
        while self.shared.may_send() {
            let room = self.window.saturating_sub(self.sent.saturating_sub(self.topic.slowest()));
            if room == 0 {
                self.wait_for_room().await?;
                continue;
            }
            let now = self.shared.now_ns();
            self.send(room.min(BATCH_MAX), |_| now).await?;
        }
        Ok(())
    }

    /// Waits until half of the window is free, so that subscribers need not tell each message.
    async fn wait_for_room(&mut self) -> Result<(), ClientError> {
        let awaited = self.sent - self.window / 2;
        self.topic.awaited.store(awaited, Ordering::SeqCst);
        if self.topic.slowest() < awaited {
            tokio::select! {
                () = self.topic.moved.notified() => {}
                // Whoever is gone does not tell; and it may be time to stop.
                () = tokio::time::sleep(LOOK_EVERY) => {}
                heard = self.peer.hear(|heard| odd(&self.shared, "a publisher", &heard)) => heard?,
            }
        }
        self.topic.awaited.store(0, Ordering::SeqCst);
        Ok(())
    }

    /// Each when it is due.
    async fn publish_at(&mut self, rate: f64) -> Result<(), ClientError> {
        let begun_ns = self.shared.now_ns();
        let due_ns = |number: u64| begun_ns + (number as f64 / rate * 1e9) as u64;
        let pacer = Pacer::start(self.topic.clone(), rate);
        while self.shared.may_send() {
            let due = self.topic.due.load(Ordering::Acquire).saturating_sub(self.sent);
            if due > 0 {
                self.send(due.min(BATCH_MAX), due_ns).await?;
                continue;
            }
            tokio::select! {
                () = self.topic.moved.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                heard = self.peer.hear(|heard| odd(&self.shared, "a publisher", &heard)) => heard?,
            }
        }
        drop(pacer);
        Ok(())
    }

    async fn send(&mut self, count: u64, due_ns: impl Fn(u64) -> u64) -> Result<(), ClientError> {
        let mut buffer = Vec::new();
        for number in self.sent + 1..=self.sent + count {
            buffer.clear();
            self.publications.put(number, due_ns(number), &self.shared.sealer, &mut buffer);
            self.peer.feed(&buffer)?;
        }
        self.sent += count;
        self.shared.counters.sent.fetch_add(count, Ordering::Relaxed);
        self.peer.flush().await
    }
}

/// A thread that tells a publisher when messages are due. A timer of the runtime is a millisecond late.
struct Pacer {
    ended: Arc<AtomicBool>,
}

impl Pacer {
    fn start(topic: Arc<Topic>, rate: f64) -> Pacer {
        let ended = Arc::new(AtomicBool::new(false));
        let (begun, ends) = (Instant::now(), ended.clone());
        std::thread::spawn(move || {
            for number in 1_u64.. {
                let due = begun + Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                topic.due.store(number, Ordering::Release);
                topic.moved.notify_one();
            }
        });
        Pacer { ended }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

struct Subscriber {
    /// The topic, which is also the number of its publisher.
    number: u16,
    index: usize,
    peer: Peer,
    shared: Arc<Shared>,
    topic: Arc<Topic>,
}

impl Subscriber {
    async fn run(mut self) -> (u16, usize, Order, Times) {
        let (mut order, mut times) = (Order::default(), times());
        let shared = self.shared.clone();
        tokio::select! {
            biased;
            () = shared.reached(Stage::Over) => {}
            ended = self.receive(&mut order, &mut times) => {
                if let Err(error) = ended {
                    let (number, index) = (self.number, self.index);
                    shared.faults.note(1, format_args!("subscriber {index} of topic {number}: {error}"));
                }
            }
        }
        (self.number, self.index, order, times)
    }

    async fn receive(&mut self, order: &mut Order, times: &mut Times) -> Result<(), ClientError> {
        let Self { number, index, peer, shared, topic } = self;
        loop {
            let mut right = 0;
            let heard = |heard: Heard| {
                let Heard::Delivery(message) = &heard else { return odd(shared, "a subscriber", &heard) };
                match shared.sealer.open(message) {
                    Err(flaw) => {
                        shared.faults.note(1, format_args!("subscriber {index} of topic {number}: {flaw}"))
                    }
                    Ok(stamp) if stamp.sender != *number => {
                        let sender = stamp.sender;
                        shared
                            .faults
                            .note(1, format_args!("a message of topic {sender} came to one of {number}"));
                    }
                    Ok(stamp) => match order.note(stamp.sender, stamp.number) {
                        Err(disorder) => {
                            let what =
                                format_args!("subscriber {index}: message {}: {disorder}", stamp.number);
                            shared.faults.note(1, what);
                        }
                        Ok(()) => {
                            right += 1;
                            if shared.is_measuring() {
                                times.saturating_record(shared.now_ns().saturating_sub(stamp.due_ns));
                            }
                        }
                    },
                }
            };
            peer.hear(heard).await?;
            shared.counters.delivered.fetch_add(right, Ordering::Relaxed);
            let last = order.last(*number);
            topic.received[*index].store(last, Ordering::SeqCst);
            let awaited = topic.awaited.load(Ordering::SeqCst);
            if awaited > 0 && last >= awaited {
                topic.moved.notify_one();
            }
        }
    }
}

/// Something came that should not.
fn odd(shared: &Shared, whom: &str, heard: &Heard) {
    if let Heard::Odd(bytes) = heard {
        let said = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
        shared.faults.note(1, format_args!("{whom} got {said}"));
    }
}

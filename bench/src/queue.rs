//! A work queue over STOMP: producers keep a window of sends whose receipts they wait for, consumers acknowledge
//! each message. Who is to be slowed down so that the queue stays shallow is the producers.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

use tandem_client::Error as ClientError;
use tandem_client::raw::stomp::AckMode;
use tandem_protocols::stomp::frame::{Command, Frame};

use crate::checker::{Ledger, Share};
use crate::course::{drained, measure, shared};
use crate::error::Error;
use crate::options::Queue;
use crate::payload::Stamp;
use crate::report::Report;
use crate::stage::{Shared, Stage, Times, times};
use crate::wire::StompWire;

/// How long a producer rests while the queue is too deep.
const REST: Duration = Duration::from_millis(1);

/// Runs the workload.
///
/// # Errors
///
/// Where somebody cannot connect.
pub async fn run(options: &Queue) -> Result<Report, Error> {
    let common = &options.common;
    let shared = shared(common);
    // A queue of this run's own: what others left behind is not ours to judge.
    let queue = format!("/queue/tandem-bench-{:08x}", rand::random::<u32>());
    let ledger = Arc::new(Ledger::new(usize::from(options.producers)));
    let mut consumers = JoinSet::new();
    for number in 0..options.consumers {
        let wire = subscribe(options, &queue).await?;
        consumers.spawn(Consumer { number, wire, shared: shared.clone(), ledger: ledger.clone() }.run());
    }
    let mut producers = JoinSet::new();
    for number in 0..options.producers {
        let wire = StompWire::new(StompWire::connect(common).await?);
        let producer = Producer::new(number, wire, shared.clone(), &queue, options);
        producers.spawn(producer.run());
    }
    let measured = measure(&shared, common).await?;
    let (mut receipts, mut deliveries, mut sent) = (times(), times(), Vec::new());
    let ended = tokio::time::timeout(common.drain, producers.join_all()).await;
    for (number, times, count) in ended.unwrap_or_default() {
        let _ = receipts.add(times);
        sent.push((number, count));
    }
    if sent.len() < usize::from(options.producers) {
        let late = usize::from(options.producers) - sent.len();
        shared
            .faults
            .note(late as u64, format_args!("{late} producers got not all of their receipts in time"));
    }
    if options.consumers > 0 {
        let counters = &shared.counters;
        let is_all_there = || {
            let now = counters.now();
            now.delivered >= now.sent
        };
        drained(&shared, common, is_all_there).await;
        for (number, count) in sent {
            let missing = ledger.missing(number, count);
            if missing > 0 {
                shared.faults.note(missing, format_args!("{missing} of producer {number} never came"));
            }
        }
    }
    shared.enter(Stage::Over);
    for times in consumers.join_all().await {
        let _ = deliveries.add(times);
    }
    let report = Report::new("queue", common.url.to_string(), &measured);
    let report = report.with_receipts(&receipts).with_deliveries(&deliveries);
    Ok(report.with_faults(shared.counters.now().delivered, &shared.faults))
}

async fn subscribe(options: &Queue, queue: &str) -> Result<StompWire, Error> {
    let mut client = StompWire::connect(&options.common).await?;
    let prefetch = options.prefetch.to_string();
    // RabbitMQ's name for it and ActiveMQ's; each ignores the other's.
    let headers = [("prefetch-count", &*prefetch), ("activemq.prefetchSize", &*prefetch)];
    let subscribed = client.subscribe(queue, "bench", AckMode::ClientIndividual, &headers).await;
    subscribed.map_err(|error| Error::connect(&format!("SUBSCRIBE at {}", options.common.url), error))?;
    Ok(StompWire::new(client))
}

/// Sends, and waits for receipts.
struct Producer {
    number: u16,
    wire: StompWire,
    shared: Arc<Shared>,
    /// A SEND up to the receipt, and from there up to the body.
    head: Vec<u8>,
    middle: Vec<u8>,
    buffer: Vec<u8>,
    window: usize,
    /// Messages that may be in the queue; with no consumer, any number.
    depth: u64,
    sent: u64,
    /// When what has no receipt was sent.
    waiting: HashMap<u64, u64>,
    times: Times,
}

impl Producer {
    fn new(number: u16, wire: StompWire, shared: Arc<Shared>, queue: &str, options: &Queue) -> Self {
        let persistent = if options.persistent { "persistent:true\n" } else { "" };
        Self {
            number,
            wire,
            shared,
            head: format!("SEND\ndestination:{queue}\n{persistent}receipt:").into(),
            middle: format!("\ncontent-length:{}\n\n", options.common.size).into(),
            buffer: Vec::new(),
            window: usize::from(options.window),
            depth: if options.consumers > 0 { options.depth } else { u64::MAX },
            sent: 0,
            waiting: HashMap::new(),
            times: times(),
        }
    }

    /// Gives its number, how long receipts took, and how many messages it sent.
    async fn run(mut self) -> (u16, Times, u64) {
        self.shared.reached(Stage::WarmUp).await;
        if let Err(error) = self.produce().await {
            self.shared.faults.note(1, format_args!("producer {}: {error}", self.number));
        }
        (self.number, self.times, self.sent)
    }

    async fn produce(&mut self) -> Result<(), ClientError> {
        let mut frames = Vec::new();
        loop {
            while self.waiting.len() < self.window && self.may_send() {
                self.send()?;
            }
            self.wire.flush().await?;
            if !self.waiting.is_empty() {
                self.wire.frames(&mut frames).await?;
            } else if !self.shared.may_send() {
                return Ok(());
            } else {
                tokio::time::sleep(REST).await;
            }
            for frame in frames.drain(..) {
                self.receive(&frame);
            }
        }
    }

    fn may_send(&self) -> bool {
        let now = self.shared.counters.now();
        self.shared.may_send() && now.sent.saturating_sub(now.delivered) < self.depth
    }

    fn send(&mut self) -> Result<(), ClientError> {
        self.sent += 1;
        let (number, now) = (self.sent, self.shared.now_ns());
        self.waiting.insert(number, now);
        self.shared.counters.sent.fetch_add(1, Ordering::Relaxed);
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.head);
        let _ = write!(self.buffer, "{number}");
        self.buffer.extend_from_slice(&self.middle);
        self.shared.sealer.seal(Stamp { sender: self.number, number, due_ns: now }, &mut self.buffer);
        self.buffer.push(0);
        self.wire.feed_encoded(&self.buffer)
    }

    fn receive(&mut self, frame: &Frame) {
        let receipt = frame.headers.get("receipt-id").and_then(|id| id.parse().ok());
        let sent = receipt.and_then(|id: u64| self.waiting.remove(&id));
        match (frame.command, sent) {
            (Command::Receipt, Some(sent)) => {
                self.shared.counters.confirmed.fetch_add(1, Ordering::Relaxed);
                if self.shared.is_measuring() {
                    self.times.saturating_record(self.shared.now_ns() - sent);
                }
            }
            _ => self.shared.faults.note(1, format_args!("producer {} got {}", self.number, said(frame))),
        }
    }
}

/// Takes messages, checks them and acknowledges them.
struct Consumer {
    number: u16,
    wire: StompWire,
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
}

impl Consumer {
    /// Gives how long deliveries took.
    async fn run(self) -> Times {
        let (shared, number) = (self.shared.clone(), self.number);
        let mut times = times();
        tokio::select! {
            biased;
            () = shared.reached(Stage::Over) => {}
            ended = self.consume(&mut times) => {
                if let Err(error) = ended {
                    shared.faults.note(1, format_args!("consumer {number}: {error}"));
                }
            }
        }
        times
    }

    async fn consume(mut self, times: &mut Times) -> Result<(), ClientError> {
        let (mut frames, mut share) = (Vec::new(), Share::default());
        loop {
            self.wire.frames(&mut frames).await?;
            for frame in frames.drain(..) {
                self.receive(&frame, &mut share, times)?;
            }
            self.wire.flush().await?;
        }
    }

    fn receive(&mut self, frame: &Frame, share: &mut Share, times: &mut Times) -> Result<(), ClientError> {
        let (shared, number) = (&self.shared, self.number);
        let Some(ack) = frame.headers.get("ack").filter(|_| frame.command == Command::Message) else {
            shared.faults.note(1, format_args!("consumer {number} got {}", said(frame)));
            return Ok(());
        };
        match shared.sealer.open(&frame.body) {
            Err(flaw) => shared.faults.note(1, format_args!("consumer {number}: {flaw}")),
            Ok(stamp) => match self.ledger.note(share, stamp.sender, stamp.number) {
                Err(disorder) => {
                    let (sender, count) = (stamp.sender, stamp.number);
                    let what =
                        format_args!("consumer {number}: message {count} of producer {sender}: {disorder}");
                    shared.faults.note(1, what);
                }
                Ok(()) => {
                    shared.counters.delivered.fetch_add(1, Ordering::Relaxed);
                    if shared.is_measuring() {
                        times.saturating_record(shared.now_ns().saturating_sub(stamp.due_ns));
                    }
                }
            },
        }
        self.wire.feed(&Frame::new(Command::Ack).with("id", ack))
    }
}

/// A frame that should not have come.
fn said(frame: &Frame) -> String {
    let message = frame.headers.get("message").unwrap_or_default();
    let body = String::from_utf8_lossy(&frame.body[..frame.body.len().min(200)]);
    format!("{} {message} {body}", frame.command)
}

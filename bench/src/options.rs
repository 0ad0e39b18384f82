//! The command line, as typed.

use std::time::Duration;

use clap::{Args, Subcommand};
use tandem_client::tls::{TlsError, TlsOptions};
use tandem_client::{Address, Connector};
use tandem_protocols::websocket::extensions::{Mode, Policy};

use crate::language::Language;
use crate::payload::{Filler, SIZE_MAX, SIZE_MIN};
use crate::target;

/// `tandem bench`.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// What to do.
    #[command(subcommand)]
    pub workload: Workload,
}

/// What to do with a broker.
#[derive(Clone, Debug, Subcommand)]
pub enum Workload {
    /// A work queue over STOMP: producers who wait for receipts, consumers who acknowledge one by one.
    Queue(Queue),
    /// One publisher, many subscribers.
    Fanout(Fanout),
    /// Many topics, each with one publisher and one subscriber.
    Topics(Topics),
    /// Messages at a fixed rate, and how long they take from when they were due.
    Latency(Latency),
    /// Fan-out while some subscribers never read.
    Slow(Slow),
    /// Publishing while many patterns are subscribed to that do not match.
    Patterns(Patterns),
    /// Remote procedure calls.
    Calls(Calls),
    /// Idle connections with a subscription each.
    Idle(Idle),
}

/// What all workloads ask for.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The broker: ws://, wss://, tcp://, tls://, http:// or https:// (long-polling) and HOST:PORT/PATH, or unix:/PATH. Of
    /// tcp, tls and unix, WAMP is RawSocket, and all else is spoken as it is.
    #[arg(long, default_value = "ws://127.0.0.1:8080/", value_parser = target::parse)]
    pub url: Address,
    /// Trust the authorities in this file, beside those of the system.
    #[arg(long, value_name = "FILE", value_parser = authorities)]
    pub ca: Option<TlsOptions>,
    /// Whom to trust without such a file. All connections share what is read.
    #[arg(skip)]
    system: TlsOptions,
    /// The user, for STOMP; for WAMP, the authid of a ticket.
    #[arg(long)]
    pub login: Option<String>,
    /// Their secret.
    #[arg(long)]
    pub passcode: Option<String>,
    /// The virtual host, for STOMP.
    #[arg(long, default_value = "")]
    pub host: String,
    /// The realm, for WAMP.
    #[arg(long, default_value = "realm1")]
    pub realm: String,
    /// Offer permessage-deflate on WebSockets.
    #[arg(long)]
    pub compress: bool,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(SIZE_MIN as i64..=SIZE_MAX as i64))]
    pub size: u32,
    /// Fill payloads with words, which can be compressed, instead of letters of chance's choosing.
    #[arg(long)]
    pub words: bool,
    /// Seconds before anything is counted.
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub warm_up: Duration,
    /// Seconds that are measured.
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub duration: Duration,
    /// Seconds to wait for what is on its way at the end.
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub drain: Duration,
    /// Report CPU time and memory of this process too; may be repeated.
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Write the result as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// What payloads are filled with.
    pub fn filler(&self) -> Filler {
        if self.words { Filler::Words } else { Filler::Random }
    }

    /// What makes connections. They ask nobody whether he is there: who is idle is to be idle.
    pub(crate) fn connector(&self) -> Connector {
        let mode = if self.compress { Mode::Offered } else { Mode::Off };
        Connector::new(self.url.clone())
            .tls(self.ca.as_ref().unwrap_or(&self.system).clone())
            .compression(Policy { mode, ..Policy::default() })
            .keep_alive(None)
    }
}

/// A queue.
#[derive(Args, Clone, Debug)]
pub struct Queue {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its fields are documented")]
    pub common: Common,
    /// Who send, each over a connection of its own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub producers: u16,
    /// Receipts that each of them waits for at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Who consume; with none, the queue only grows.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub consumers: u16,
    /// Messages that a consumer may hold unacknowledged.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub prefetch: u16,
    /// Ask the broker to keep messages on disk.
    #[arg(long)]
    pub persistent: bool,
    /// Producers pause while so many messages are in the queue.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub depth: u64,
}

/// One publisher, many subscribers.
#[derive(Args, Clone, Debug)]
pub struct Fanout {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its fields are documented")]
    pub common: Common,
    /// What is spoken; with several, subscribers take turns, and publishers speak the first.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "wamp.2.json")]
    pub language: Vec<Language>,
    /// Subscribers.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub subscribers: u16,
    /// Messages of a publisher that may be on their way; by default up to 256, and half a mebibyte.
    #[arg(long)]
    pub window: Option<u32>,
}

/// Many topics.
#[derive(Args, Clone, Debug)]
pub struct Topics {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its fields are documented")]
    pub common: Common,
    /// What is spoken; with several, subscribers take turns, and publishers speak the first.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "wamp.2.json")]
    pub language: Vec<Language>,
    /// How many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    pub topics: u16,
    /// Messages of a publisher that may be on their way; by default up to 256, and half a mebibyte.
    #[arg(long)]
    pub window: Option<u32>,
}

/// A fixed rate.
#[derive(Args, Clone, Debug)]
pub struct Latency {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its fields are documented")]
    pub common: Common,
    /// What is spoken; with several, subscribers take turns, and publishers speak the first.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "wamp.2.json")]
    pub language: Vec<Language>,
    /// Subscribers.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub subscribers: u16,
    /// Messages per second.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    pub rate: f64,
}

/// Fan-out while some do not read.
#[derive(Args, Clone, Debug)]
pub struct Slow {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its fields are documented")]
    pub common: Common,
    /// What is spoken; with several, subscribers take turns, and publishers speak the first.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "wamp.2.json")]
    pub language: Vec<Language>,
    /// Subscribers.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub subscribers: u16,
    /// More subscribers, who never read.
    #[arg(long, default_value_t = 1)]
    pub stalled: u16,
    /// Messages of a publisher that may be on their way; by default up to 256, and half a mebibyte.
    #[arg(long)]
    pub window: Option<u32>,
}

/// Publishing beside patterns.
#[derive(Args, Clone, Debug)]
pub struct Patterns {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its fields are documented")]
    pub common: Common,
    /// What is spoken; with several, subscribers take turns, and publishers speak the first.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "wamp.2.json")]
    pub language: Vec<Language>,
    /// What kind of subscriptions.
    #[arg(long, value_enum, default_value = "prefix")]
    pub kind: PatternKind,
    /// How many.
    #[arg(long, default_value_t = 1000)]
    pub patterns: u32,
    /// Messages of a publisher that may be on their way; by default up to 256, and half a mebibyte.
    #[arg(long)]
    pub window: Option<u32>,
}

/// How a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PatternKind {
    /// As it is.
    Exact,
    /// By its beginning.
    Prefix,
    /// With parts that match anything.
    Wildcard,
}

/// Calls.
#[derive(Args, Clone, Debug)]
pub struct Calls {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its fields are documented")]
    pub common: Common,
    /// What is spoken.
    #[arg(long, value_enum, default_value = "wamp.2.json")]
    pub language: Language,
    /// Who call.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub callers: u16,
    /// Who answer, each with a procedure of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub callees: u16,
    /// Calls that each caller has open at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub in_flight: u16,
}

/// Idle connections.
#[derive(Args, Clone, Debug)]
pub struct Idle {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its fields are documented")]
    pub common: Common,
    /// What is spoken.
    #[arg(long, value_enum, default_value = "wamp.2.json")]
    pub language: Language,
    /// How many.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
}

fn authorities(path: &str) -> Result<TlsOptions, TlsError> {
    TlsOptions::new().authorities_file(path)
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=1e6).contains(&rate) { Ok(rate) } else { Err("must be from 0.1 to a million".to_owned()) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| *time <= Duration::from_secs(3600))
        .ok_or_else(|| "must be at least 0 and at most an hour".to_owned())
}

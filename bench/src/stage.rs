//! The stages of a run, and what all its parts share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::sync::watch;

use crate::checker::Faults;
use crate::payload::Sealer;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connections are made, and nothing is sent.
    Opening,
    /// Messages flow, and are checked, but not counted.
    WarmUp,
    /// They are counted.
    Measuring,
    /// Nothing more is sent; what is on its way still comes.
    Draining,
    /// All is done, or was waited for long enough.
    Over,
}

/// What all parts of a run share.
#[derive(Debug)]
pub struct Shared {
    /// Makes and reads payloads.
    pub sealer: Sealer,
    /// What was wrong.
    pub faults: Faults,
    /// What was counted.
    pub counters: Counters,
    begun: Instant,
    stage: watch::Sender<Stage>,
    /// The same as a flag, which costs nothing to look at.
    is_measuring: AtomicBool,
    may_send: AtomicBool,
}

/// What is counted from the beginning on; what was counted while measuring is a difference.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that were sent.
    pub sent: AtomicU64,
    /// Messages whose receipt, or whose answer, has come.
    pub confirmed: AtomicU64,
    /// Deliveries that came once, in order and whole.
    pub delivered: AtomicU64,
}

/// The counters at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// See [`Counters::sent`].
    pub sent: u64,
    /// See [`Counters::confirmed`].
    pub confirmed: u64,
    /// See [`Counters::delivered`].
    pub delivered: u64,
}

impl Counters {
    /// What they are now.
    pub fn now(&self) -> Counts {
        Counts {
            sent: self.sent.load(Ordering::Relaxed),
            confirmed: self.confirmed.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
        }
    }
}

impl Counts {
    /// What came since.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            confirmed: self.confirmed - earlier.confirmed,
            delivered: self.delivered - earlier.delivered,
        }
    }
}

impl Shared {
    /// A run that is about to begin.
    pub fn new(sealer: Sealer) -> Arc<Self> {
        Arc::new(Self {
            sealer,
            faults: Faults::default(),
            counters: Counters::default(),
            begun: Instant::now(),
            stage: watch::Sender::new(Stage::Opening),
            is_measuring: AtomicBool::new(false),
            may_send: AtomicBool::new(false),
        })
    }

    /// Goes on to the next stage.
    pub fn enter(&self, stage: Stage) {
        self.is_measuring.store(stage == Stage::Measuring, Ordering::Relaxed);
        self.may_send.store(matches!(stage, Stage::WarmUp | Stage::Measuring), Ordering::Relaxed);
        self.stage.send_replace(stage);
    }

    /// Waits until the run has come that far.
    pub async fn reached(&self, stage: Stage) {
        // The sender is `self`, so that it cannot have gone.
        let _ = self.stage.subscribe().wait_for(|now| *now >= stage).await;
    }

    /// Whether what happens now is counted.
    pub fn is_measuring(&self) -> bool {
        self.is_measuring.load(Ordering::Relaxed)
    }

    /// Whether messages may be sent.
    pub fn may_send(&self) -> bool {
        self.may_send.load(Ordering::Relaxed)
    }

    /// Nanoseconds since the run began.
    pub fn now_ns(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }
}

/// Times in nanoseconds, to three digits and up to a minute; what took longer is a minute.
pub type Times = Histogram<u64>;

/// No times yet.
pub fn times() -> Times {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("the bounds are right")
}

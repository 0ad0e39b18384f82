//! What is owed for a delivery: an acknowledgement, or else it is given back when nobody holds it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tandem_protocols::stomp::frame::{Command, Frame, Headers, Version};
use tandem_protocols::stomp::state::AckMode;

use crate::error::Error;

/// Where a delivery is given back to. The session's outbox; a trait, because the outbox carries what arrives.
pub(super) trait Giveback: Send + Sync {
    /// Which connection is there: they are counted.
    fn epoch(&self) -> u64;

    /// Takes a frame for that connection, at once.
    fn give_back(&self, frame: Frame, epoch: u64);
}

/// What waits in a subscription's buffer.
#[derive(Debug)]
pub(super) struct Arrived {
    pub frame: Frame,
    /// The connection on which it came.
    pub epoch: u64,
    /// None where nothing is to be acknowledged.
    pub settlement: Option<Arc<Settlement>>,
}

/// What a server makes of a NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    /// The message is delivered again.
    Taken,
    /// The same, but only while the subscription is there: RabbitMQ answers any other with ERROR.
    WhileSubscribed,
    /// The message is put aside (ActiveMQ) or even dropped (Artemis): what was not acknowledged is delivered again
    /// when the subscription has ended, and until then nothing is said of it.
    Final,
}

impl Returns {
    /// By the `server` header of CONNECTED.
    pub(super) fn to(server: Option<&str>) -> Returns {
        match server.unwrap_or_default() {
            server if server.starts_with("RabbitMQ") => Returns::WhileSubscribed,
            server if server.starts_with("ActiveMQ") => Returns::Final,
            _ => Returns::Taken,
        }
    }
}

/// What the deliveries of one subscription on one connection have in common.
#[derive(Debug)]
pub(super) struct Course {
    pub mode: AckMode,
    pub version: Version,
    pub epoch: u64,
    returns: Returns,
    has_ended: AtomicBool,
    /// Acknowledged by the mode that acknowledges all before as well.
    through: AtomicU64,
}

impl Course {
    pub(super) fn new(mode: AckMode, version: Version, returns: Returns, epoch: u64) -> Arc<Course> {
        let (has_ended, through) = (AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Course { mode, version, epoch, returns, has_ended, through })
    }

    /// UNSUBSCRIBE is sent.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }
}

/// One delivery that is to be acknowledged.
pub(super) struct Settlement {
    course: Arc<Course>,
    outbox: Arc<dyn Giveback>,
    /// What names it in this version.
    key: Headers,
    /// Counted from 1.
    place: u64,
    is_settled: AtomicBool,
}

impl Settlement {
    /// None where the message lacks what names it.
    pub(super) fn new(
        course: Arc<Course>,
        outbox: Arc<dyn Giveback>,
        message: &Headers,
        place: u64,
    ) -> Option<Arc<Settlement>> {
        let mut key = Headers::new();
        match course.version {
            Version::V12 => key.push("id", message.get("ack")?),
            Version::V10 | Version::V11 => {
                key.push("message-id", message.get("message-id")?);
                if let Some(subscription) = message.get("subscription") {
                    key.push("subscription", subscription);
                }
            }
        }
        let is_settled = AtomicBool::new(false);
        Some(Arc::new(Settlement { course, outbox, key, place, is_settled }))
    }

    /// The connection on which it came.
    pub(super) fn epoch(&self) -> u64 {
        self.course.epoch
    }

    /// Whether its connection is gone.
    pub(super) fn is_stale(&self) -> bool {
        self.course.epoch != self.outbox.epoch()
    }

    /// Whether it is given back when the subscription ends.
    pub(super) fn is_returned(&self) -> bool {
        self.course.returns != Returns::Final && matches!(self.settle(Command::Nack), Ok(true))
    }

    /// Whether a frame for it may be sent: if so it counts as settled from here on.
    ///
    /// `Ok(false)` where an acknowledgement of a later one did it already.
    pub(super) fn settle(&self, command: Command) -> Result<bool, Error> {
        if self.is_stale() {
            return Err(Error::ConnectionLost);
        }
        if command == Command::Nack && self.course.version == Version::V10 {
            return Err(Error::Unsupported("there is no NACK in STOMP 1.0"));
        }
        if self.course.returns == Returns::WhileSubscribed && self.course.has_ended.load(Ordering::Acquire) {
            return Err(Error::Unsupported("RabbitMQ settles nothing of a subscription that has ended"));
        }
        if self.is_settled.swap(true, Ordering::AcqRel) {
            return Err(Error::Settled);
        }
        let is_one_of_many = self.course.mode == AckMode::Client;
        Ok(!(is_one_of_many && self.course.through.load(Ordering::Acquire) >= self.place))
    }

    /// As [`settle`](Self::settle), outside of any transaction.
    pub(super) fn settle_for_good(&self, command: Command) -> Result<bool, Error> {
        let is_owed = self.settle(command)?;
        self.conclude();
        Ok(is_owed)
    }

    /// It was settled for good, and with it, in one mode, all before it.
    pub(super) fn conclude(&self) {
        self.course.through.fetch_max(self.place, Ordering::AcqRel);
    }

    /// The transaction that settled it was aborted.
    pub(super) fn reopen(&self) {
        self.is_settled.store(false, Ordering::Release);
    }

    /// An ACK or a NACK of it.
    pub(super) fn frame(&self, command: Command) -> Frame {
        Frame { headers: self.key.clone(), ..Frame::new(command) }
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        // In the other mode a later acknowledgement is meant for this one as well.
        let is_alone = self.course.mode == AckMode::ClientIndividual;
        if is_alone && self.course.returns != Returns::Final && matches!(self.settle(Command::Nack), Ok(true))
        {
            self.outbox.give_back(self.frame(Command::Nack), self.course.epoch);
        }
    }
}

impl std::fmt::Debug for Settlement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settlement")
            .field("key", &self.key)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

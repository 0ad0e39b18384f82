//! What a session is subscribed to, and who gets what arrives for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use tandem_protocols::stomp::frame::{Command, Frame, Version};
use tandem_protocols::stomp::state::AckMode;

use crate::buffer::{Gap, Pushed, Sender};
use crate::error::Error;
use crate::stomp::outbox::{Outbox, Reply, Terms};
use crate::stomp::settlement::{Arrived, Course, Giveback, Returns, Settlement};

/// How many a session may have.
pub(super) const SUBSCRIPTIONS_MAX: usize = 16 * 1024;

/// So many connections may be lost before the first receipt of a SUBSCRIBE: then it may be the reason. RabbitMQ closes
/// some WebSockets without a word.
const LOST_MAX: u32 = 3;

#[derive(Debug)]
struct Entry {
    terms: Box<Terms>,
    sender: Sender<Result<Arrived, Error>>,
    /// Until the first receipt came.
    reply: Option<Reply>,
    /// How many connections were lost before that.
    lost: u32,
    course: Arc<Course>,
    /// How many came on this connection.
    count: u64,
    /// Where an acknowledgement means all before as well.
    last: Option<Arc<Settlement>>,
    /// UNSUBSCRIBE was sent; what comes before its receipt is given back.
    is_leaving: bool,
}

/// What a subscription has to know of the connection that it is on.
#[derive(Debug)]
pub(super) struct Connection {
    pub version: Version,
    pub returns: Returns,
    pub epoch: u64,
}

impl Connection {
    fn course(&self, mode: AckMode) -> Arc<Course> {
        Course::new(mode, self.version, self.returns, self.epoch)
    }
}

/// All subscriptions, by id.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    entries: BTreeMap<String, Entry>,
}

/// A message that found no room, and for whom it is.
#[derive(Debug)]
pub(super) struct Stuck {
    id: String,
    arrived: Arrived,
}

impl Subscriptions {
    /// Takes another one, and says whether it is to be asked for.
    pub(super) fn add(
        &mut self,
        terms: Box<Terms>,
        sender: Sender<Result<Arrived, Error>>,
        reply: Reply,
        connection: &Connection,
    ) -> bool {
        let refusal = if self.entries.len() >= SUBSCRIPTIONS_MAX {
            Some(Error::Unsupported("more subscriptions than a session may have"))
        } else if self.entries.contains_key(&terms.id) {
            Some(Error::Unsupported("two subscriptions with one id, or one durable name"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _ = reply.send(Err(refusal));
            return false;
        }
        let course = connection.course(terms.mode);
        let id = terms.id.clone();
        let reply = Some(reply);
        let entry = Entry { terms, sender, reply, lost: 0, course, count: 0, last: None, is_leaving: false };
        self.entries.insert(id, entry);
        true
    }

    /// The connection was lost, and this one is there: what is to be sent, for each by its id.
    pub(super) fn renew(&mut self, connection: &Connection) -> Vec<(String, Frame)> {
        self.entries.retain(|_, entry| !entry.is_leaving);
        let renewed = self.entries.iter_mut().map(|(id, entry)| {
            entry.course = connection.course(entry.terms.mode);
            entry.count = 0;
            entry.last = None;
            // Before there was a receipt nothing was promised.
            if !entry.terms.is_kept && entry.reply.is_none() {
                entry.sender.mark(Gap { dropped: 0, reconnected: true });
            }
            (id.clone(), entry.terms.frame.clone())
        });
        renewed.collect()
    }

    /// The connection was lost: what was never promised is given up after a few of these.
    pub(super) fn lose(&mut self) {
        self.entries.retain(|_, entry| {
            let Some(reply) = entry.reply.take() else { return true };
            entry.lost += 1;
            if entry.lost < LOST_MAX {
                entry.reply = Some(reply);
                return true;
            }
            let _ = reply.send(Err(Error::ConnectionLost));
            false
        });
    }

    /// The server has subscribed us.
    pub(super) fn confirm(&mut self, id: &str) {
        let reply = self.entries.get_mut(id).and_then(|entry| entry.reply.take());
        if let Some(reply) = reply {
            let _ = reply.send(Ok(()));
        }
    }

    /// The server does not want to: whoever reads sees the end, and whoever waits is told why.
    pub(super) fn refuse(&mut self, id: &str, why: Error) {
        if let Some(entry) = self.entries.remove(id) {
            match entry.reply {
                Some(reply) => drop(reply.send(Err(why))),
                None => {
                    tracing::warn!(%why, id, "the subscription could not be made again, and ends");
                    // Where there is no room for it, the end alone has to do.
                    let _ = entry.sender.push(Err(why));
                }
            }
        }
    }

    /// Nobody reads it any more: what to give back before the UNSUBSCRIBE. `None` where there is none.
    pub(super) fn leave(&mut self, id: &str) -> Option<Option<Frame>> {
        let entry = self.entries.get_mut(id).filter(|entry| !entry.is_leaving)?;
        entry.is_leaving = true;
        let last = entry.last.take();
        let is_owed = last.filter(|last| last.is_returned());
        entry.course.end();
        Some(is_owed.map(|last| last.frame(Command::Nack)))
    }

    /// The server has unsubscribed us.
    pub(super) fn remove(&mut self, id: &str) {
        self.entries.remove(id);
    }

    /// Hands a MESSAGE to whom it is for. Gives it back where its reader is to be waited for.
    pub(super) fn deliver(&mut self, frame: Frame, outbox: &Arc<Outbox>) -> Option<Stuck> {
        let id = match frame.headers.get("subscription") {
            Some(id) => id.to_owned(),
            // In 1.0 a server may leave it out.
            None => self.to_destination(&frame)?.to_owned(),
        };
        let entry = self.entries.get_mut(&id)?;
        let mut settlement = None;
        if entry.terms.mode != AckMode::Auto {
            entry.count += 1;
            settlement = Settlement::new(entry.course.clone(), outbox.clone(), &frame.headers, entry.count);
        }
        if entry.is_leaving {
            // Dropping it would give it back only where each is acknowledged by itself.
            if let Some(late) = settlement.filter(|late| late.is_returned()) {
                outbox.give_back(late.frame(Command::Nack), entry.course.epoch);
            }
            return None;
        }
        if entry.terms.mode == AckMode::Client {
            entry.last.clone_from(&settlement);
        }
        let epoch = entry.course.epoch;
        self.push(Stuck { id, arrived: Arrived { frame, epoch, settlement } })
    }

    /// Tries once more.
    pub(super) fn push(&mut self, Stuck { id, arrived }: Stuck) -> Option<Stuck> {
        match self.entries.get(&id)?.sender.push(Ok(arrived)) {
            Pushed::Done | Pushed::Closed(_) | Pushed::Full(Err(_)) => None,
            Pushed::Full(Ok(arrived)) => Some(Stuck { id, arrived }),
        }
    }

    /// Ready when it is worth trying once more.
    pub(super) fn poll_room(&self, stuck: &Stuck, cx: &mut Context<'_>) -> Poll<()> {
        self.entries.get(&stuck.id).map_or(Poll::Ready(()), |entry| entry.sender.poll_room(cx))
    }

    fn to_destination(&self, frame: &Frame) -> Option<&str> {
        let destination = frame.headers.get("destination")?;
        let is_for = |entry: &&Entry| entry.terms.frame.headers.get("destination") == Some(destination);
        self.entries.values().find(is_for).map(|entry| entry.terms.id.as_str())
    }
}

//! Receipts that a server owes.

use std::collections::BTreeMap;

use tandem_protocols::stomp::frame::Frame;

use crate::error::Error;
use crate::stomp::outbox::Reply;

/// How many are owed at most; until some came, nothing more is sent.
pub(super) const RECEIPTS_MAX: usize = 4096;

/// What a receipt is for.
#[derive(Debug)]
pub(super) enum Owed {
    /// Something that somebody waits for.
    Reply(Reply),
    /// A SUBSCRIBE, first or once more.
    Subscribe(String),
    /// An UNSUBSCRIBE.
    Unsubscribe(String, Option<Reply>),
    /// The DISCONNECT.
    Disconnect,
}

/// All of a connection, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    owed: BTreeMap<u64, Owed>,
    /// How many of them are of SUBSCRIBEs.
    subscribes: usize,
    last: u64,
}

impl Receipts {
    /// Whether as many are owed as may be.
    pub(super) fn is_full(&self) -> bool {
        self.owed.len() >= RECEIPTS_MAX
    }

    /// The frame, with a receipt asked for.
    pub(super) fn ask(&mut self, frame: Frame, owed: Owed) -> Frame {
        self.last += 1;
        self.subscribes += usize::from(matches!(owed, Owed::Subscribe(_)));
        self.owed.insert(self.last, owed);
        frame.with("receipt", &self.last.to_string())
    }

    /// What was asked for under this name.
    pub(super) fn take(&mut self, receipt_id: &str) -> Option<Owed> {
        self.remove(receipt_id.parse().ok()?)
    }

    /// Whether a SUBSCRIBE is without an answer.
    pub(super) fn has_subscribes(&self) -> bool {
        self.subscribes > 0
    }

    /// The first SUBSCRIBE that is without an answer.
    pub(super) fn take_subscribe(&mut self) -> Option<Owed> {
        let (&number, _) = self.owed.iter().find(|(_, owed)| matches!(owed, Owed::Subscribe(_)))?;
        self.remove(number)
    }

    fn remove(&mut self, number: u64) -> Option<Owed> {
        let owed = self.owed.remove(&number)?;
        self.subscribes -= usize::from(matches!(owed, Owed::Subscribe(_)));
        Some(owed)
    }

    /// None of them is going to come.
    pub(super) fn lose(&mut self) {
        self.subscribes = 0;
        for owed in std::mem::take(&mut self.owed).into_values() {
            match owed {
                Owed::Reply(reply) => drop(reply.send(Err(Error::ConnectionLost))),
                // There is nothing left of it to end.
                Owed::Unsubscribe(_, Some(reply)) => drop(reply.send(Ok(()))),
                Owed::Unsubscribe(_, None) | Owed::Subscribe(_) | Owed::Disconnect => {}
            }
        }
    }
}

//! Receipts that wait for the store, and a DISCONNECT that waits for them.
//!
//! Each request that the store must have first has a ticket: a number that comes back when it does.

use std::collections::VecDeque;

use tandem_protocols::stomp::frame::Frame;

use crate::core::access::Refusal;
use crate::core::queues::durable::Progress;
use crate::stomp::dialogue::{Dialogue, Receipt};
use crate::stomp::fault::Fault;
use crate::stomp::voice::Voice;

/// How many requests of a session may wait for their receipts. What waits for the store is bounded before, in
/// bytes, by no longer reading those who send.
const RECEIPTS_MAX: usize = 100_000;

/// What a session waits for.
#[derive(Debug, Default)]
pub(in crate::stomp) struct Receipts {
    /// In the order of their tickets, which is that in which the store answers.
    waiting: VecDeque<(u64, Vec<Box<str>>)>,
    /// The ticket of a DISCONNECT, and its receipt.
    leaving: Option<(u64, Option<Box<str>>)>,
}

/// What is to be done when the store has answered.
#[derive(Debug)]
pub(in crate::stomp) enum Answered {
    /// Nothing more.
    Said,
    /// The session is to end as its peer wished.
    Leave,
    /// The session is to end with this fault, which is about the frame of this receipt.
    Failed(Fault, Option<Box<str>>),
}

impl Dialogue {
    /// A ticket for a frame; 0 if it wants no receipt.
    pub(in crate::stomp) fn ticket(&mut self, frame: &Frame) -> u64 {
        if frame.headers.get("receipt").is_none() { 0 } else { self.next_ticket() }
    }

    pub(in crate::stomp) fn next_ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// The receipt of a frame that was given this ticket, now or when the store has answered.
    pub(in crate::stomp) fn receipt_after(
        &mut self,
        progress: Progress,
        ticket: u64,
        frame: &Frame,
        before: Vec<Box<str>>,
    ) -> Result<Receipt, Fault> {
        if progress == Progress::Done {
            return Ok(Receipt::Due);
        }
        self.stored.set(true);
        let mut all = before;
        all.extend(frame.headers.get("receipt").map(Box::from));
        if !all.is_empty() {
            let waiting = &mut self.rare().receipts.waiting;
            if waiting.len() >= RECEIPTS_MAX {
                return Err(Fault::too_many("receipts that wait for the store", RECEIPTS_MAX));
            }
            waiting.push_back((ticket, all));
        }
        Ok(Receipt::Settled)
    }

    /// DISCONNECT. True if it waits until the store has all that the peer sent.
    pub(in crate::stomp) fn leave(&mut self, receipt: Option<&str>) -> bool {
        let waits = self.rare_if_any().is_some_and(|rare| !rare.receipts.waiting.is_empty());
        if !waits && (receipt.is_none() || !self.stored.get()) {
            return false;
        }
        let ticket = self.next_ticket();
        if self.member.flush(ticket) == Progress::Done {
            return false;
        }
        self.rare().receipts.leaving = Some((ticket, receipt.map(Box::from)));
        true
    }

    /// Whether the peer said that it leaves: it says and gets nothing more but its receipts.
    pub(in crate::stomp) fn is_leaving(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.receipts.leaving.is_some())
    }

    /// The store has what was sent under this ticket, or never will.
    pub(in crate::stomp) fn answered(
        &mut self,
        ticket: u64,
        outcome: Result<(), Refusal>,
        voice: &mut Voice,
    ) -> Answered {
        let Some(rare) = self.rare_if_any() else {
            return outcome
                .map_or_else(|refusal| Answered::Failed(refusal.into(), None), |()| Answered::Said);
        };
        let receipts = &mut rare.receipts;
        let place = receipts.waiting.iter().position(|(known, _)| *known >= ticket);
        let found = place.filter(|place| receipts.waiting[*place].0 == ticket);
        let mut due =
            found.and_then(|place| receipts.waiting.remove(place)).map_or(Vec::new(), |(_, due)| due);
        let leaves = receipts.leaving.as_ref().is_some_and(|(leaving, _)| *leaving == ticket);
        if leaves {
            due.extend(receipts.leaving.take().and_then(|(_, receipt)| receipt));
        }
        if let Err(refusal) = outcome {
            return Answered::Failed(refusal.into(), due.pop());
        }
        due.iter().for_each(|receipt| voice.receipt(receipt));
        if leaves { Answered::Leave } else { Answered::Said }
    }
}

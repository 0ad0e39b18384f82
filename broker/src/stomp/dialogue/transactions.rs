//! BEGIN, COMMIT and ABORT. A transaction holds what is to be done; COMMIT does all of it or nothing.
//!
//! A frame in a transaction is processed when that is committed, hence gets its receipt then.

use tandem_protocols::stomp::error::Reason;
use tandem_protocols::stomp::frame::Frame;

use crate::core::access::Action;
use crate::core::message::PUBLICATION_OVERHEAD;
use crate::core::parcel::ConsumerId;
use crate::core::queues::durable::Progress;
use crate::core::realm::Operation;
use crate::stomp::dialogue::{Dialogue, Receipt};
use crate::stomp::fault::Fault;
use crate::stomp::settings::Settings;
use crate::stomp::voice::Voice;

/// A transaction that is open.
#[derive(Debug)]
pub(in crate::stomp) struct Transaction {
    id: Box<str>,
    operations: Vec<Operation>,
    /// Those that its frames asked for, in order.
    receipts: Vec<Box<str>>,
    bytes: usize,
}

/// What an acknowledgement or a receipt costs, roughly, in bytes.
const SMALL_BYTES: usize = 64;

impl Dialogue {
    /// BEGIN.
    pub(in crate::stomp) fn begin(&mut self, frame: &Frame, settings: &Settings) -> Result<Receipt, Fault> {
        let id = frame.headers.require("transaction")?;
        let transactions = &mut self.rare().transactions;
        if transactions.iter().any(|known| *known.id == *id) {
            return Err(Fault::new(Reason::InvalidHeader, format!("transaction '{id}' has begun already")));
        }
        if transactions.len() >= settings.transactions_max {
            return Err(Fault::too_many("open transactions", settings.transactions_max));
        }
        transactions.push(Transaction {
            id: id.into(),
            operations: Vec::new(),
            receipts: Vec::new(),
            bytes: 0,
        });
        Ok(Receipt::Due)
    }

    /// Keeps what a frame asks for until its transaction ends.
    pub(in crate::stomp) fn put_off(
        &mut self,
        id: &str,
        operations: Vec<Operation>,
        frame: &Frame,
        settings: &Settings,
    ) -> Result<Receipt, Fault> {
        for operation in &operations {
            match operation {
                // Whoever is to be asked is asked now; what is decided at once is decided again by COMMIT.
                Operation::Publish(outgoing, _) => drop(self.member.permit(Action::Publish, &outgoing.name)?),
                Operation::Send(outgoing, terms) => {
                    self.member.permit(Action::Send, &outgoing.name)?;
                    self.member.permit_dead_letters(&terms.queue.properties)?;
                }
                Operation::Settle(..) => {}
            }
        }
        let transactions = &mut self.rare().transactions;
        let held: usize = transactions.iter().map(|transaction| transaction.bytes).sum();
        let transaction =
            transactions.iter_mut().find(|known| *known.id == *id).ok_or_else(|| unknown(id))?;
        let receipt = frame.headers.get("receipt");
        let bytes = operations.iter().map(cost).sum::<usize>()
            + receipt.map_or(0, |receipt| receipt.len() + SMALL_BYTES);
        if held + bytes > settings.transaction_bytes_max {
            return Err(Fault::too_many("bytes in open transactions", settings.transaction_bytes_max));
        }
        transaction.bytes += bytes;
        transaction.operations.extend(operations);
        transaction.receipts.extend(receipt.map(Box::from));
        Ok(Receipt::Settled)
    }

    /// COMMIT.
    pub(in crate::stomp) fn commit(&mut self, frame: &Frame, voice: &mut Voice) -> Result<Receipt, Fault> {
        let transaction = self.end_transaction(frame)?;
        let settled = settlements(&transaction.operations);
        let publishes = transaction.operations.iter().any(|o| matches!(o, Operation::Publish(..)));
        let ticket = if transaction.receipts.is_empty() { self.ticket(frame) } else { self.next_ticket() };
        let progress = self.member.commit_for(transaction.operations, ticket)?;
        for (consumer, sequence) in settled {
            self.forget(consumer, sequence);
        }
        if publishes || progress == Progress::Storing {
            self.published.set(true);
        }
        if progress == Progress::Done {
            transaction.receipts.iter().for_each(|receipt| voice.receipt(receipt));
            return Ok(Receipt::Due);
        }
        self.receipt_after(progress, ticket, frame, transaction.receipts)
    }

    /// ABORT. What was acknowledged in it is held unsettled again, and not delivered again.
    pub(in crate::stomp) fn abort(&mut self, frame: &Frame) -> Result<Receipt, Fault> {
        let transaction = self.end_transaction(frame)?;
        for (consumer, sequence) in settlements(&transaction.operations).into_iter().rev() {
            self.give_back(consumer, sequence);
        }
        Ok(Receipt::Due)
    }

    fn end_transaction(&mut self, frame: &Frame) -> Result<Transaction, Fault> {
        let id = frame.headers.require("transaction")?;
        let transactions = &mut self.rare().transactions;
        let place = transactions.iter().position(|known| *known.id == *id).ok_or_else(|| unknown(id))?;
        Ok(transactions.swap_remove(place))
    }
}

fn settlements(operations: &[Operation]) -> Vec<(ConsumerId, u64)> {
    let settlement = |operation: &Operation| match operation {
        Operation::Settle(consumer, sequence, _) => Some((*consumer, *sequence)),
        Operation::Publish(..) | Operation::Send(..) => None,
    };
    operations.iter().filter_map(settlement).collect()
}

fn cost(operation: &Operation) -> usize {
    match operation {
        Operation::Publish(outgoing, _) | Operation::Send(outgoing, _) => {
            outgoing.payload.len() + outgoing.attributes.bytes() + PUBLICATION_OVERHEAD + SMALL_BYTES
        }
        Operation::Settle(..) => SMALL_BYTES,
    }
}

fn unknown(id: &str) -> Fault {
    Fault::new(Reason::NotFound, format!("there is no transaction '{id}'"))
}

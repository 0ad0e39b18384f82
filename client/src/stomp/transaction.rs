//! Several messages and acknowledgements that take effect together, or not at all.

use std::sync::Arc;

use tandem_protocols::stomp::frame::{Command, Frame};

use crate::error::Error;
use crate::stomp::delivery::Delivery;
use crate::stomp::outbox::{Alive, Request};
use crate::stomp::receipt::Receipt;
use crate::stomp::send::Sending;
use crate::stomp::settlement::Settlement;

/// A transaction; aborted when it is dropped.
///
/// It is one of its connection: when that is lost, so is the transaction, and all that is asked of it fails with
/// [`Error::ConnectionLost`]. If it is lost during the commit, nobody knows whether it took place.
#[derive(Debug)]
pub struct Transaction {
    alive: Arc<Alive>,
    name: String,
    epoch: u64,
    /// What becomes unsettled again if it is aborted.
    acknowledged: Vec<Arc<Settlement>>,
    is_over: bool,
}

impl Transaction {
    /// Begins one.
    pub(super) async fn begin(alive: Arc<Alive>) -> Result<Transaction, Error> {
        let name = format!("tandem-{}", alive.0.number());
        let (reply, begun) = Receipt::new(alive.0.clone());
        let frame = Frame::new(Command::Begin).with("transaction", &name);
        alive.0.enqueue(Request::Begin { frame, reply }).await?;
        let epoch = begun.await?;
        Ok(Transaction { alive, name, epoch, acknowledged: Vec::new(), is_over: false })
    }

    /// A message that is sent with the transaction. If a receipt is asked for, most brokers send it when the
    /// transaction is committed: enqueue it, and await the receipt after.
    pub fn send(&self, destination: &str) -> Sending {
        let sending = Sending::new(self.alive.clone(), destination, Some(self.epoch));
        sending.header("transaction", &self.name)
    }

    /// Acknowledges a delivery with the transaction. If that is aborted, the delivery can be settled again; where it
    /// was dropped meanwhile it is given back.
    ///
    /// # Errors
    ///
    /// See [`Delivery::ack`].
    pub async fn ack<T>(&mut self, delivery: &Delivery<T>) -> Result<(), Error> {
        self.settle(Command::Ack, delivery).await
    }

    /// Gives a delivery back with the transaction.
    ///
    /// # Errors
    ///
    /// See [`Delivery::ack`].
    pub async fn nack<T>(&mut self, delivery: &Delivery<T>) -> Result<(), Error> {
        self.settle(Command::Nack, delivery).await
    }

    /// All of it takes effect now. Waits until the server has said so.
    ///
    /// # Errors
    ///
    /// [`Error::StompError`] where the server refuses, and then nothing took effect; [`Error::ConnectionLost`].
    pub async fn commit(mut self) -> Result<(), Error> {
        self.end(Command::Commit).await?.await?;
        for settlement in std::mem::take(&mut self.acknowledged) {
            settlement.conclude();
        }
        Ok(())
    }

    /// None of it takes effect. Waits until the server has said so.
    ///
    /// # Errors
    ///
    /// See [`commit`](Self::commit).
    pub async fn abort(mut self) -> Result<(), Error> {
        let receipt = self.end(Command::Abort).await?;
        // What follows in the line is settled anew, whoever waits for the receipt.
        self.reopen();
        receipt.await
    }

    async fn settle<T>(&mut self, command: Command, delivery: &Delivery<T>) -> Result<(), Error> {
        let settlement = delivery.settlement()?;
        let frame = settlement.frame(command).with("transaction", &self.name);
        let request = Request::Frame { frame, epoch: Some(self.epoch), reply: None };
        let epoch = self.epoch;
        let wanted = || {
            if settlement.epoch() != epoch {
                return Err(Error::ConnectionLost);
            }
            settlement.settle(command)
        };
        if self.alive.0.enqueue_if(request, wanted).await? {
            self.acknowledged.push(settlement.clone());
        }
        Ok(())
    }

    async fn end(&mut self, command: Command) -> Result<Receipt, Error> {
        let (reply, receipt) = Receipt::new(self.alive.0.clone());
        let request =
            Request::Frame { frame: self.frame(command), epoch: Some(self.epoch), reply: Some(reply) };
        // From the moment on that it is in the line, dropping this must not abort.
        let is_over = &mut self.is_over;
        self.alive
            .0
            .enqueue_if(request, || {
                *is_over = true;
                Ok(true)
            })
            .await?;
        Ok(receipt)
    }

    fn frame(&self, command: Command) -> Frame {
        Frame::new(command).with("transaction", &self.name)
    }

    /// What was acknowledged is not, and what nobody holds any more is given back.
    fn reopen(&mut self) {
        for settlement in std::mem::take(&mut self.acknowledged) {
            settlement.reopen();
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.is_over {
            let (frame, epoch) = (self.frame(Command::Abort), Some(self.epoch));
            self.alive.0.undo(Request::Frame { frame, epoch, reply: None });
            self.reopen();
        }
    }
}

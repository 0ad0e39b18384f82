//! ACK and NACK: which deliveries they are about, and what becomes of those.
//!
//! What is acknowledged in a transaction is claimed by it until its end: no other ACK can be about it then.
//! A subscription that ended with deliveries unsettled stays until they are, so that an ACK which crosses
//! UNSUBSCRIBE is no error; what is left when the session ends is delivered again, to others.

use tandem_protocols::stomp::error::{Reason, Violation};
use tandem_protocols::stomp::frame::{Command, Frame, Headers, Version};
use tandem_protocols::stomp::state::{AckKey, AckMode};

use crate::core::parcel::ConsumerId;
use crate::core::queues::Settlement;
use crate::core::realm::Operation;
use crate::stomp::dialogue::consumer::Consumer;
use crate::stomp::dialogue::subscription::Feed;
use crate::stomp::dialogue::{Dialogue, Receipt};
use crate::stomp::fault::Fault;
use crate::stomp::message::DeliveryId;
use crate::stomp::settings::Settings;

impl Dialogue {
    /// ACK and NACK.
    pub(in crate::stomp) fn acknowledge(
        &mut self,
        frame: &Frame,
        version: Version,
        settings: &Settings,
    ) -> Result<Receipt, Fault> {
        let settlement = settlement(frame.command, &frame.headers)?;
        let (text, subscription) = match AckKey::read(version, &frame.headers)? {
            AckKey::Ack(id) => (id, None),
            AckKey::Message { message_id, subscription } => (message_id, subscription),
        };
        let id = DeliveryId::parse(text);
        let consumer = id.and_then(|id| self.consumer(id.consumer, subscription));
        let (Some(id), Some(consumer)) = (id, consumer) else {
            return self.overlook(text, subscription, version);
        };
        if consumer.mode == AckMode::Auto {
            return self.overlook(text, subscription, version);
        }
        if let Some(transaction) = frame.headers.get("transaction") {
            let covered = consumer.claim_covered(id);
            if covered.is_empty() {
                return Err(unknown(text));
            }
            let settle = |sequence: u64| Operation::Settle(id.consumer, sequence, settlement);
            return self.put_off(transaction, covered.into_iter().map(settle).collect(), frame, settings);
        }
        let covered = consumer.take_covered(id);
        if covered.is_empty() {
            return Err(unknown(text));
        }
        let ticket = self.ticket(frame);
        let wants = Some(ticket).filter(|ticket| *ticket > 0);
        let progress = self.member.settle_all_for(id.consumer, &covered, settlement, wants)?;
        self.release_if_settled(id.consumer);
        self.receipt_after(progress, ticket, frame, Vec::new())
    }

    /// An ACK of something that needs none: no harm before 1.2, where a MESSAGE says whether it needs one.
    fn overlook(&self, text: &str, subscription: Option<&str>, version: Version) -> Result<Receipt, Fault> {
        let is_auto = self
            .subscriptions
            .iter()
            .any(|known| known.is_auto() && (subscription.is_none() || known.id.as_deref() == subscription));
        if is_auto && version < Version::V12 { Ok(Receipt::Due) } else { Err(unknown(text)) }
    }

    /// A consumer of that number, whose subscription has that name if one is said.
    fn consumer(&mut self, id: ConsumerId, subscription: Option<&str>) -> Option<&mut Consumer> {
        let named = |name: &Option<Box<str>>| subscription.is_none() || name.as_deref() == subscription;
        let open = self.subscriptions.iter().position(
            |known| matches!(&known.feed, Feed::Queue(consumer) if consumer.id == id && named(&known.id)),
        );
        if let Some(place) = open {
            match &mut self.subscriptions[place].feed {
                Feed::Queue(consumer) => return Some(consumer),
                Feed::Topics(_) | Feed::Procedure(_) => return None,
            }
        }
        let closed = self.rare_if_any()?.closed.iter_mut();
        closed.filter(|closed| named(&closed.id)).map(|closed| &mut closed.consumer).find(|c| c.id == id)
    }

    /// Gives back a delivery that a transaction claimed. Of several the last one first.
    pub(in crate::stomp) fn give_back(&mut self, id: ConsumerId, sequence: u64) {
        if let Some(consumer) = self.consumer(id, None) {
            consumer.give_back(sequence);
        }
    }

    /// A delivery that a transaction claimed was settled.
    pub(in crate::stomp) fn forget(&mut self, id: ConsumerId, sequence: u64) {
        if let Some(consumer) = self.consumer(id, None) {
            consumer.forget(sequence);
            self.release_if_settled(id);
        }
    }

    /// With its last delivery a subscription that ended is gone.
    fn release_if_settled(&mut self, id: ConsumerId) {
        if let Some(rare) = self.rare_if_any()
            && let Some(place) = rare.closed.iter().position(|closed| closed.consumer.id == id)
            && rare.closed[place].consumer.is_settled()
        {
            rare.closed.swap_remove(place);
            self.member.release_if_settled(id);
        }
    }
}

fn settlement(command: Command, headers: &Headers) -> Result<Settlement, Fault> {
    if command != Command::Nack {
        return Ok(Settlement::Accept);
    }
    match headers.get("requeue") {
        None | Some("true") => Ok(Settlement::Requeue),
        Some("false") => Ok(Settlement::Reject),
        Some(other) => Err(Violation::invalid_header("requeue", other).into()),
    }
}

fn unknown(text: &str) -> Fault {
    Fault::new(Reason::NotFound, format!("no delivery '{text}' waits for an acknowledgement"))
}

//! Work queues for WAMP clients: procedures that the session itself serves.
//!
//! ```text
//! tandem.queue.send     [queue, args...] {kwargs}   puts a message into a queue   -> [message]
//! tandem.queue.receive  [queue]                     waits for the next message    -> [tag, redeliveries, args, kwargs]
//! tandem.queue.ack      [tag]                       it is done                    -> []
//! tandem.queue.nack     [tag, requeue = true]       it is not: once more, or dead -> []
//! ```
//!
//! What `send` gets beyond the queue's name is the message, as it came. With the option `persistent: true`, or the
//! entry `persistent: "true"` of `x_headers`, it outlives the broker, and the answer comes when it is safe; so
//! does that to the `ack` of such a message. `receive` stays pending until there
//! is a message; it may be canceled. What is dead goes to the queue `dlq.` and its name, if no other was said.
//! `args` is a list, or binary where the payload is opaque; `kwargs` is a
//! dictionary. The attributes of the message are in the details of the RESULT. What is neither acknowledged
//! nor refused when the session ends goes back to the queue.
//!
//! Each `receive` is a consumer of its own with credit for one message, which takes nothing more once it has
//! one and is forgotten when that is settled. Its number is the tag. So the limit of consumers of a session
//! is the limit of its calls of `receive` that wait and of its unsettled messages, together.

use std::collections::BTreeMap;

use bytes::Bytes;

use tandem_protocols::payload::{Arguments, Carried, Content, Format, Payload, encode_bytes};
use tandem_protocols::wamp::codec::encode_result;
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::INVALID_PAYLOAD;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::list::{Element, encode_list};
use tandem_protocols::wamp::message::MessageType;

use crate::core::access::Refusal;
use crate::core::calls::failure;
use crate::core::message::{Attribute, Attributes, PERSISTENT};
use crate::core::name::Name;
use crate::core::parcel::{ConsumerId, Delivery};
use crate::core::queues::durable::Progress;
use crate::core::queues::{Credit, Settlement};
use crate::core::realm::{Outgoing, SendTerms};
use crate::wamp::arguments::split;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::dialogue::procedure::{arguments, first_arguments, say_list, say_nothing};
use crate::wamp::fault::{self, Fault};
use crate::wamp::luggage;
use crate::wamp::voice::{Voice, id, note_too_long, note_unconvertible, too_long};

/// The procedure that puts a message into a queue.
pub(super) const SEND: &str = "tandem.queue.send";

/// How many calls of a session may wait for the store. What waits there is bounded before, in bytes.
const STORING_MAX: usize = 100_000;

/// Calls that wait for the store: each its own ticket, with the number of the message if it sent one.
#[derive(Debug, Default)]
struct Storing(BTreeMap<u64, Option<u64>>);

impl Storing {
    /// Whether that call waits for the store.
    fn is_waiting(&self, call: u64) -> bool {
        self.0.contains_key(&call)
    }

    /// Ends the wait of a call.
    fn take(&mut self, call: u64) -> Option<Option<u64>> {
        self.0.remove(&call)
    }
}

/// The attributes of a message, with what an option of its call says of it.
pub(super) fn with_persistence(attributes: Attributes, options: &Dict) -> Result<Attributes, Fault> {
    match options.get(PERSISTENT) {
        None | Some(Value::Null | Value::Bool(false)) => Ok(attributes),
        Some(Value::Bool(true)) => {
            let own = attributes.all().filter(|(name, _)| *name != PERSISTENT);
            let own = own.map(|(name, value)| (name, value.clone()));
            Ok(own.chain([(PERSISTENT, Attribute::from("true"))]).collect())
        }
        Some(_) => Err(Fault::argument("the option persistent is true or false")),
    }
}

/// One message at a time, whatever its size.
const ONE: Credit = Credit { messages: 1, bytes: usize::MAX };

/// What few sessions have to do with queues.
#[derive(Debug, Default)]
pub(in crate::wamp) struct QueueCalls {
    receives: Receives,
    storing: Storing,
}

impl QueueCalls {
    /// Whether that call waits for a message, or for the store.
    pub(in crate::wamp) fn is_waiting(&self, call: u64) -> bool {
        self.receives.is_waiting(call) || self.storing.is_waiting(call)
    }
}

/// The calls of `receive` that wait, and the messages that are not settled.
#[derive(Debug, Default)]
struct Receives(Vec<(ConsumerId, Receive)>);

#[derive(Clone, Copy, Debug)]
enum Receive {
    /// For this call.
    Waiting(u64),
    /// The place of the message in its queue.
    Unsettled(u64),
}

impl Receives {
    /// Whether that call waits for a message.
    fn is_waiting(&self, call: u64) -> bool {
        self.waiting(call).is_some()
    }

    fn waiting(&self, call: u64) -> Option<usize> {
        self.0.iter().position(|(_, receive)| matches!(receive, Receive::Waiting(known) if *known == call))
    }

    /// The call that a delivery answers; from now on the message is unsettled.
    fn answered(&mut self, delivery: &Delivery) -> Option<u64> {
        let (_, receive) = self.0.iter_mut().find(|(consumer, _)| *consumer == delivery.consumer)?;
        match std::mem::replace(receive, Receive::Unsettled(delivery.sequence)) {
            Receive::Waiting(call) => Some(call),
            Receive::Unsettled(_) => None,
        }
    }

    /// The unsettled message of a tag, which is settled now.
    fn settle(&mut self, tag: u64) -> Option<(ConsumerId, u64)> {
        let place = self.0.iter().position(|(consumer, _)| consumer.0 == tag)?;
        let (consumer, Receive::Unsettled(sequence)) = self.0[place] else { return None };
        self.0.swap_remove(place);
        Some((consumer, sequence))
    }
}

impl Dialogue {
    /// Serves a call of `tandem.queue.` and this; false if there is no such procedure.
    pub(in crate::wamp) fn serve_queue(
        &mut self,
        procedure: &str,
        request: Id,
        outgoing: &Outgoing,
        voice: &mut Voice,
    ) -> Result<bool, Fault> {
        match procedure {
            "send" => self.send(request, outgoing, voice)?,
            "receive" => self.receive(request, outgoing)?,
            "ack" => self.acknowledge(request, outgoing, voice)?,
            "nack" => self.refuse(request, outgoing, voice)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn send(&mut self, request: Id, outgoing: &Outgoing, voice: &mut Voice) -> Result<(), Fault> {
        let arguments = arguments(outgoing)?;
        let (first, args) = split(arguments, 1)?;
        let message = Arguments { format: arguments.format, args, kwargs: arguments.kwargs.clone() };
        self.check_storing()?;
        let outgoing = Outgoing {
            name: queue_name(&first)?,
            payload: Payload::new(Content::Arguments(message)),
            attributes: outgoing.attributes.clone(),
        };
        let (number, progress) = self.member.send_for(outgoing, SendTerms::default(), request.get())?;
        self.has_published.set(true);
        match progress {
            Progress::Done => say_number(request, number, voice),
            Progress::Storing => drop(self.queue_calls().storing.0.insert(request.get(), Some(number))),
        }
        Ok(())
    }

    fn queue_calls(&mut self) -> &mut QueueCalls {
        self.queue_calls.get_or_insert_default()
    }

    /// Whether that call waits for a message.
    pub(in crate::wamp) fn is_receiving(&self, call: u64) -> bool {
        self.queue_calls.as_ref().is_some_and(|calls| calls.receives.is_waiting(call))
    }

    fn check_storing(&self) -> Result<(), Fault> {
        let storing = self.queue_calls.as_ref().map_or(0, |calls| calls.storing.0.len());
        if storing < STORING_MAX {
            return Ok(());
        }
        Err(Refusal::TooMany("calls that wait for the store", STORING_MAX).into())
    }

    /// The store has what a call asked for, or never will.
    pub(super) fn bring_stored_message(
        &mut self,
        call: u64,
        outcome: Result<(), Refusal>,
        voice: &mut Voice,
    ) {
        let Some(message) = self.queue_calls().storing.take(call) else { return };
        match (outcome, message) {
            (Ok(()), Some(number)) => say_number(id(call), number, voice),
            (Ok(()), None) => say_nothing(id(call), voice),
            (Err(refusal), _) => {
                let failed = failure(fault::uri(&refusal), &refusal.to_string());
                voice.say_error(MessageType::Call, id(call), &failed);
            }
        }
    }

    fn receive(&mut self, request: Id, outgoing: &Outgoing) -> Result<(), Fault> {
        let queue = queue_name(&first_arguments(outgoing)?)?;
        let consumer = self.member.consume(&queue, ONE)?;
        self.queue_calls().receives.0.push((consumer, Receive::Waiting(request.get())));
        Ok(())
    }

    fn acknowledge(&mut self, request: Id, outgoing: &Outgoing, voice: &mut Voice) -> Result<(), Fault> {
        self.settle(request, &first_arguments(outgoing)?, Settlement::Accept, voice)
    }

    fn refuse(&mut self, request: Id, outgoing: &Outgoing, voice: &mut Voice) -> Result<(), Fault> {
        let first = first_arguments(outgoing)?;
        let settlement = match first.get(1) {
            None | Some(Value::Null | Value::Bool(true)) => Settlement::Requeue,
            Some(Value::Bool(false)) => Settlement::Reject,
            Some(_) => return Err(Fault::argument("requeue is true or false")),
        };
        self.settle(request, &first, settlement, voice)
    }

    fn settle(
        &mut self,
        request: Id,
        first: &[Value],
        settlement: Settlement,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        self.check_storing()?;
        let tag = first.first().and_then(Value::as_id);
        let tag = tag.ok_or_else(|| Fault::argument("the first argument is the tag of a message"))?;
        let (consumer, sequence) =
            self.queue_calls().receives.settle(tag.get()).ok_or(Refusal::NoSuchDelivery)?;
        let progress = self.member.settle_for(consumer, sequence, settlement, Some(request.get()))?;
        self.member.release_if_settled(consumer);
        match progress {
            Progress::Done => say_nothing(request, voice),
            Progress::Storing => drop(self.queue_calls().storing.0.insert(request.get(), None)),
        }
        Ok(())
    }

    /// Ends a call of `receive`; false if none waits under that number.
    pub(in crate::wamp) fn stop_receiving(&mut self, call: u64) -> bool {
        let Some(place) = self.queue_calls().receives.waiting(call) else { return false };
        let (consumer, _) = self.queue_calls().receives.0.swap_remove(place);
        // A message that is on its way is given back when it arrives.
        let closed = self.member.close_consumer(consumer);
        debug_assert!(closed.is_ok(), "a waiting call has a consumer");
        true
    }

    /// The rules changed: ends calls of `receive` that wait at queues that the session may not take from any more.
    pub(in crate::wamp) fn stop_consumers(&mut self, voice: &mut Voice) {
        for (consumer, refusal) in self.member.judge_consumers() {
            let is_waiting = |(known, receive): &(ConsumerId, Receive)| match receive {
                Receive::Waiting(call) if *known == consumer => Some(*call),
                Receive::Waiting(_) | Receive::Unsettled(_) => None,
            };
            let Some(call) = self.queue_calls().receives.0.iter().find_map(is_waiting) else { continue };
            self.stop_receiving(call);
            self.close_call(call);
            voice.say_error(
                MessageType::Call,
                id(call),
                &failure(fault::uri(&refusal), &refusal.to_string()),
            );
        }
    }

    pub(in crate::wamp) fn bring_delivery(&mut self, delivery: &Delivery, voice: &mut Voice) {
        let consumer = delivery.consumer;
        let call = self.queue_calls().receives.answered(delivery);
        if let Some(call) = call {
            self.close_call(call);
        }
        // It has its one message. If the call was canceled it is closed already, and that is no harm.
        let closed = self.member.close_consumer(consumer);
        debug_assert!(closed.is_ok(), "what was delivered has a consumer");
        // If nobody waits for it here, others may have it.
        let said = call.map_or(Err(Settlement::Requeue), |call| say_delivery(id(call), delivery, voice));
        if let Err(settlement) = said {
            self.queue_calls().receives.settle(consumer.0);
            let given_back = self.member.settle(consumer, delivery.sequence, settlement);
            debug_assert!(given_back.is_ok(), "what was delivered is held");
            self.member.release_if_settled(consumer);
        }
    }
}

fn say_number(request: Id, number: u64, voice: &mut Voice) {
    let number = Value::from(number);
    say_list(request, encode_list(voice.format, &[Element::Value(&number)]), voice);
}

/// Answers a call of `receive`. If the message has no form in the caller's encoding, or is too long for the caller,
/// that is told so, and the message is to be settled in this way: others may read it, or it is rejected, as
/// it would come again to whoever cannot take it and keep what is behind it from them.
fn say_delivery(request: Id, delivery: &Delivery, voice: &mut Voice) -> Result<(), Settlement> {
    let Delivery { publication, consumer, redeliveries, .. } = delivery;
    let content = match luggage::content(&publication.payload, voice.format) {
        Ok(content) => content,
        Err(why) => {
            note_unconvertible(why);
            let sentence = format!("the next message has no form in the caller's encoding: {why}");
            voice.say_error(MessageType::Call, request, &failure(INVALID_PAYLOAD, &sentence));
            return Err(Settlement::Requeue);
        }
    };
    let (tag, redeliveries) = (Value::from(consumer.0), Value::from(u64::from(*redeliveries)));
    let args = encode_message(voice.format, [&tag, &redeliveries], &content);
    let mut details = Dict::new();
    luggage::unpack(&publication.attributes, &mut details);
    let arguments = Arguments { format: voice.format, args, kwargs: Default::default() };
    let bytes = encode_result(voice.format, request, &details, Carried::Arguments(&arguments));
    let bytes = bytes.expect("the payload was converted, and is below 4 GiB");
    if !voice.fits(bytes.len()) {
        note_too_long(bytes.len());
        voice.say_error(MessageType::Call, request, &too_long("the next message, which is rejected,"));
        return Err(Settlement::Reject);
    }
    voice.say_encoded(bytes);
    Ok(())
}

fn encode_message(format: Format, first: [&Value; 2], content: &Content) -> Bytes {
    let (no_args, no_kwargs) = (Value::List(Vec::new()), Value::Dict(Dict::new()));
    let opaque;
    let (mut args, mut kwargs) = (Element::Value(&no_args), Element::Value(&no_kwargs));
    match content {
        Content::Arguments(arguments) => {
            if !arguments.args.is_empty() {
                args = Element::Encoded(&arguments.args);
            }
            if !arguments.kwargs.is_empty() {
                kwargs = Element::Encoded(&arguments.kwargs);
            }
        }
        Content::Opaque(bytes) => {
            opaque = encode_bytes(format, bytes);
            args = Element::Encoded(&opaque);
        }
        // Conversion left none.
        Content::Body(_) => {}
    }
    encode_list(format, &[Element::Value(first[0]), Element::Value(first[1]), args, kwargs])
}

fn queue_name(first: &[Value]) -> Result<Name, Fault> {
    let name = first.first().and_then(Value::as_str);
    let name = name.ok_or_else(|| Fault::argument("the first argument is the name of a queue"))?;
    Ok(Name::parse(name)?)
}

//! Work queues for WAMP clients: procedures that the session itself serves.
//!
//! ```text
//! tandem.queue.send     [queue, args...] {kwargs}   puts a message into a queue   -> [message]
//! tandem.queue.receive  [queue]                     waits for the next message    -> [tag, redeliveries, args, kwargs]
//! tandem.queue.ack      [tag]                       it is done                    -> []
//! tandem.queue.nack     [tag, requeue = true]       it is not: once more, or dead -> []
//! ```
//!
//! What `send` gets beyond the queue's name is the message, as it came. `receive` stays pending until there
//! is a message; it may be canceled. What is dead goes to the queue `dlq.` and its name, if no other was said. `args` is a list, or binary where the payload is opaque; `kwargs` is a
//! dictionary. The attributes of the message are in the details of the RESULT. What is neither acknowledged
//! nor refused when the session ends goes back to the queue.
//!
//! Each `receive` is a consumer of its own with credit for one message, which takes nothing more once it has
//! one and is forgotten when that is settled. Its number is the tag. So the limit of consumers of a session
//! is the limit of its calls of `receive` that wait and of its unsettled messages, together.

use bytes::Bytes;

use tandem_protocols::payload::{Arguments, Content, Format, Payload, encode_bytes};
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::INVALID_PAYLOAD;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::list::{Element, encode_list};
use tandem_protocols::wamp::message::{CallResult, MessageType};

use crate::core::access::Refusal;
use crate::core::calls::failure;
use crate::core::name::Name;
use crate::core::parcel::{ConsumerId, Delivery};
use crate::core::queues::{Credit, Settlement};
use crate::core::realm::Outgoing;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::dialogue::procedure::{arguments, first_arguments, say_list, say_nothing, split};
use crate::wamp::fault::Fault;
use crate::wamp::luggage;
use crate::wamp::voice::{Voice, id, note_unconvertible};

/// One message at a time, whatever its size.
const ONE: Credit = Credit { messages: 1, bytes: usize::MAX };

/// The calls of `receive` that wait, and the messages that are not settled.
#[derive(Debug, Default)]
pub(in crate::wamp) struct Receives(Vec<(ConsumerId, Receive)>);

#[derive(Clone, Copy, Debug)]
enum Receive {
    /// For this call.
    Waiting(u64),
    /// The place of the message in its queue.
    Unsettled(u64),
}

impl Receives {
    /// Whether that call waits for a message.
    pub(in crate::wamp) fn is_waiting(&self, call: u64) -> bool {
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
        let number = self.member.send(Outgoing {
            name: queue_name(&first)?,
            payload: Payload::new(Content::Arguments(message)),
            attributes: outgoing.attributes.clone(),
        })?;
        self.has_published.set(true);
        let number = Value::from(number);
        let args = encode_list(voice.format, &[Element::Value(&number)]);
        say_list(request, args, voice);
        Ok(())
    }

    fn receive(&mut self, request: Id, outgoing: &Outgoing) -> Result<(), Fault> {
        let queue = queue_name(&first_arguments(outgoing)?)?;
        let consumer = self.member.consume(&queue, ONE)?;
        self.receives.0.push((consumer, Receive::Waiting(request.get())));
        Ok(())
    }

    fn acknowledge(&mut self, request: Id, outgoing: &Outgoing, voice: &mut Voice) -> Result<(), Fault> {
        self.settle(&first_arguments(outgoing)?, Settlement::Accept)?;
        say_nothing(request, voice);
        Ok(())
    }

    fn refuse(&mut self, request: Id, outgoing: &Outgoing, voice: &mut Voice) -> Result<(), Fault> {
        let first = first_arguments(outgoing)?;
        let settlement = match first.get(1) {
            None | Some(Value::Null | Value::Bool(true)) => Settlement::Requeue,
            Some(Value::Bool(false)) => Settlement::Reject,
            Some(_) => return Err(Fault::argument("requeue is true or false")),
        };
        self.settle(&first, settlement)?;
        say_nothing(request, voice);
        Ok(())
    }

    fn settle(&mut self, first: &[Value], settlement: Settlement) -> Result<(), Fault> {
        let tag = first.first().and_then(Value::as_id);
        let tag = tag.ok_or_else(|| Fault::argument("the first argument is the tag of a message"))?;
        let (consumer, sequence) = self.receives.settle(tag.get()).ok_or(Refusal::NoSuchDelivery)?;
        self.member.settle(consumer, sequence, settlement)?;
        self.member.release_if_settled(consumer);
        Ok(())
    }

    /// Ends a call of `receive`; false if none waits under that number.
    pub(in crate::wamp) fn stop_receiving(&mut self, call: u64) -> bool {
        let Some(place) = self.receives.waiting(call) else { return false };
        let (consumer, _) = self.receives.0.swap_remove(place);
        // A message that is on its way is given back when it arrives.
        let closed = self.member.close_consumer(consumer);
        debug_assert!(closed.is_ok(), "a waiting call has a consumer");
        true
    }

    pub(in crate::wamp) fn bring_delivery(&mut self, delivery: &Delivery, voice: &mut Voice) {
        let consumer = delivery.consumer;
        let call = self.receives.answered(delivery);
        if let Some(call) = call {
            self.close_call(call);
        }
        // It has its one message. If the call was canceled it is closed already, and that is no harm.
        let closed = self.member.close_consumer(consumer);
        debug_assert!(closed.is_ok(), "what was delivered has a consumer");
        let said = call.is_some_and(|call| say_delivery(id(call), delivery, voice));
        if !said {
            // Nobody waits for it here, or its form is not for this session: others may have it.
            self.receives.settle(consumer.0);
            let given_back = self.member.settle(consumer, delivery.sequence, Settlement::Requeue);
            debug_assert!(given_back.is_ok(), "what was delivered is held");
            self.member.release_if_settled(consumer);
        }
    }
}

/// Answers a call of `receive`; false if the message has no form in the caller's encoding, which it is told.
fn say_delivery(request: Id, delivery: &Delivery, voice: &mut Voice) -> bool {
    let Delivery { publication, consumer, redeliveries, .. } = delivery;
    let content = match luggage::content(&publication.payload, voice.format) {
        Ok(content) => content,
        Err(why) => {
            note_unconvertible(why);
            let sentence = format!("the next message has no form in the caller's encoding: {why}");
            voice.say_error(MessageType::Call, request, &failure(INVALID_PAYLOAD, &sentence));
            return false;
        }
    };
    let (tag, redeliveries) = (Value::from(consumer.0), Value::from(u64::from(*redeliveries)));
    let args = encode_message(voice.format, [&tag, &redeliveries], &content);
    let mut details = Dict::new();
    luggage::unpack(&publication.attributes, &mut details);
    let arguments = Arguments { format: voice.format, args, kwargs: Default::default() };
    voice.say(CallResult { request, details, payload: Content::Arguments(arguments) });
    true
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

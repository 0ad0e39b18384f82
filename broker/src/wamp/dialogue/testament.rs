//! Testaments: what a session has published when it ends.
//!
//! ```text
//! wamp.session.add_testament     [topic, args, kwargs] {publish_options, scope}   -> []
//! wamp.session.flush_testaments  [] {scope}                                       -> []
//! ```
//!
//! `scope` is `detached` or `destroyed`, which it is if nothing is said; those of both are published when the
//! session ends, the detached first. A testament is read as the PUBLISH that it is to be, and judged at once: an
//! option of a wrong type, or a topic that may not be published to, is an error of the call.

use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::list::prepend_list;
use tandem_protocols::wamp::message::{Message, MessageType};
use tandem_protocols::wamp::options::PublishOptions;

use crate::core::name::Name;
use crate::core::realm::Outgoing;
use crate::core::testament::Scope;
use crate::wamp::arguments::{argument, keywords};
use crate::wamp::dialogue::Dialogue;
use crate::wamp::dialogue::procedure::{arguments, say_nothing};
use crate::wamp::dialogue::pubsub::{attributes, terms};
use crate::wamp::fault::Fault;
use crate::wamp::luggage;
use crate::wamp::voice::Voice;

impl Dialogue {
    pub(in crate::wamp) fn add_testament(
        &mut self,
        request: Id,
        outgoing: &Outgoing,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        let arguments = arguments(outgoing)?;
        let keywords = keywords(arguments)?;
        let scope = scope(&keywords)?;
        let options = keywords.dict("publish_options").map_err(argument)?.cloned().unwrap_or_default();
        let first = [Value::from(MessageType::Publish as u64), Value::from(1_u64), Value::from(options)];
        let message = prepend_list(arguments.format, &first, &arguments.args).map_err(argument)?;
        let Message::Publish(publish) = codec::decode(arguments.format, &message).map_err(argument)? else {
            return Err(Fault::argument("a testament is a publication"));
        };
        let terms = terms(&PublishOptions::parse(&publish.options).map_err(argument)?);
        let testament = Outgoing {
            name: Name::parse(&publish.topic)?,
            payload: luggage::payload(publish.payload, message.len()),
            attributes: attributes(&publish.options)?,
        };
        self.member.add_testament(scope, testament, terms)?;
        say_nothing(request, voice);
        Ok(())
    }

    pub(in crate::wamp) fn flush_testaments(
        &mut self,
        request: Id,
        outgoing: &Outgoing,
        voice: &mut Voice,
    ) -> Result<(), Fault> {
        let scope = scope(&keywords(arguments(outgoing)?)?)?;
        self.member.flush_testaments(scope);
        say_nothing(request, voice);
        Ok(())
    }
}

fn scope(keywords: &Dict) -> Result<Scope, Fault> {
    match keywords.str("scope").map_err(argument)? {
        None | Some("destroyed") => Ok(Scope::Destroyed),
        Some("detached") => Ok(Scope::Detached),
        Some(_) => Err(Fault::argument("scope is detached or destroyed")),
    }
}

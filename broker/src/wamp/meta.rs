//! WAMP's meta API: a member of the realm that answers questions about it, and publishes what changes.
//!
//! ```text
//! wamp.session.count             [[role, ...]?]                     -> number
//! wamp.session.list              [[role, ...]?]                     -> [session, ...]
//! wamp.session.get               [session]                          -> details
//! wamp.session.kill              [session] {reason, message}        -> nothing                          *
//! wamp.session.kill_by_authid    [authid] {reason, message}         -> [session, ...]                   *
//! wamp.session.kill_by_authrole  [authrole] {reason, message}       -> number                           *
//! wamp.session.kill_all          [] {reason, message}               -> number                           *
//! wamp.session.modify_details    [session, {key: value or null}]    -> nothing                          *
//! wamp.registration.list         []                                 -> {exact, prefix, wildcard}
//! wamp.registration.lookup       [procedure, {match}?]              -> registration or null
//! wamp.registration.match        [procedure]                        -> registration or null
//! wamp.registration.get          [registration]                     -> {id, created, uri, match, invoke}
//! wamp.registration.list_callees [registration]                     -> [session, ...]
//! wamp.registration.count_callees [registration]                    -> number
//! wamp.registration.remove_callee [registration, session, reason?]  -> nothing                          *
//! wamp.subscription.list         []                                 -> {exact, prefix, wildcard}
//! wamp.subscription.lookup       [topic, {match}?]                  -> subscription or null
//! wamp.subscription.match        [topic]                            -> [subscription, ...] or null
//! wamp.subscription.get          [subscription]                     -> {id, created, uri, match}
//! wamp.subscription.list_subscribers [subscription]                 -> [session, ...]
//! wamp.subscription.count_subscribers [subscription]                -> number
//! wamp.subscription.remove_subscriber [subscription, session, reason?] -> nothing                       *
//! tandem.session.list_waiting    [count?]                           -> [{session, authid, waiting_bytes, ...}, ...]
//! tandem.queue.list              [count?]                           -> [{queue, messages, consumers, ...}, ...]
//! ```
//!
//! What is marked changes what others have or are: see [`access`](crate::core::access) for who may. The caller's own
//! session is never killed. The last two begin with the worst: for whom most waits, and the deepest. What a caller of
//! the others learns is the same for everybody. Sessions that act on themselves (testaments, the history of events) are
//! served in their own [`dialogue`](super::dialogue).
//!
//! Of the reserved part of the address space there is little to see: the house's sessions and registrations are in no
//! list, and subscriptions to the topics below, which are, cause no events about themselves.

mod events;
mod listing;
mod queues;
mod registrations;
mod request;
mod sessions;
mod subscriptions;

use std::collections::HashMap;
use std::sync::Arc;

use tandem_protocols::payload::{Arguments, Carried, Content, Format, Payload};
use tandem_protocols::wamp::dict::Value;
use tandem_protocols::wamp::error::{AUTHORIZATION_FAILED, INVALID_ARGUMENT};
use tandem_protocols::wamp::list::{Element, encode_list};

use crate::core::access::{Principal, Refusal, SessionId};
use crate::core::calls::{Offer, failure};
use crate::core::history::WallClock;
use crate::core::mailbox::Mailbox;
use crate::core::message::Attributes;
use crate::core::name::{Name, Pattern};
use crate::core::parcel::{Answer, Invocation, Parcel, RegistrationId};
use crate::core::realm::{Member, Realm};
use crate::wamp::fault::Fault;
use crate::wamp::meta::request::Request;
use crate::wamp::meta::sessions::Details;

/// Serves one procedure. No value is no result.
type Serve = fn(&mut MetaApi, &Request) -> Result<Option<Value>, Fault>;

const PROCEDURES: &[(&str, Serve)] = &[
    ("wamp.session.count", MetaApi::count_sessions),
    ("wamp.session.list", MetaApi::list_sessions),
    ("wamp.session.get", MetaApi::get_session),
    ("wamp.session.kill", MetaApi::kill),
    ("wamp.session.kill_by_authid", MetaApi::kill_by_authid),
    ("wamp.session.kill_by_authrole", MetaApi::kill_by_authrole),
    ("wamp.session.kill_all", MetaApi::kill_all),
    ("wamp.session.modify_details", MetaApi::modify_details),
    ("wamp.registration.list", MetaApi::list_registrations),
    ("wamp.registration.lookup", MetaApi::look_up_registration),
    ("wamp.registration.match", MetaApi::match_registration),
    ("wamp.registration.get", MetaApi::get_registration),
    ("wamp.registration.list_callees", MetaApi::list_callees),
    ("wamp.registration.count_callees", MetaApi::count_callees),
    ("wamp.registration.remove_callee", MetaApi::remove_callee),
    ("wamp.subscription.list", MetaApi::list_subscriptions),
    ("wamp.subscription.lookup", MetaApi::look_up_subscription),
    ("wamp.subscription.match", MetaApi::match_subscriptions),
    ("wamp.subscription.get", MetaApi::get_subscription),
    ("wamp.subscription.list_subscribers", MetaApi::list_subscribers),
    ("wamp.subscription.count_subscribers", MetaApi::count_subscribers),
    ("wamp.subscription.remove_subscriber", MetaApi::remove_subscriber),
    ("tandem.session.list_waiting", MetaApi::list_waiting),
    ("tandem.queue.list", MetaApi::list_queues),
];

/// The meta API of one realm.
#[derive(Debug)]
pub struct MetaApi {
    member: Member,
    procedures: HashMap<RegistrationId, Serve>,
    details: Details,
}

impl MetaApi {
    /// Joins a realm as the house itself and serves it from then on: whatever comes into the mailbox is to be handed
    /// to [`receive`](MetaApi::receive). It leaves when it is dropped, which the realm's farewell is the time for.
    pub fn join(realm: &Arc<Realm>, mailbox: Mailbox, clock: WallClock) -> Result<MetaApi, Refusal> {
        let mut member = realm.join(Principal::house(), mailbox.clone())?;
        let offer = Offer { wants_caller: true, ..Offer::default() };
        let mut procedures = HashMap::with_capacity(PROCEDURES.len());
        for (procedure, serve) in PROCEDURES {
            let name = Name::parse(procedure).expect("the procedures have names");
            procedures.insert(member.offer(&Pattern::exact(name), offer)?, *serve);
        }
        // What was made before has no time, and nothing was told of it.
        realm.observe(mailbox, clock);
        Ok(MetaApi { member, procedures, details: Details::default() })
    }

    /// Answers a call, or tells of a change.
    pub fn receive(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Invocation(invocation) => self.answer(&invocation),
            Parcel::Notice(notice) => self.publish(&notice),
            // Nothing else is asked for, and nobody is owed an answer but by these.
            Parcel::Event { .. }
            | Parcel::Events { .. }
            | Parcel::Retained { .. }
            | Parcel::SubscriptionRevoked { .. }
            | Parcel::Delivery(_)
            | Parcel::Exhausted { .. }
            | Parcel::Interrupt { .. }
            | Parcel::RegistrationRevoked { .. }
            | Parcel::Outcome(_)
            | Parcel::Authenticated(_)
            | Parcel::LookedUp(_)
            | Parcel::Authorized(_)
            | Parcel::Stored { .. }
            | Parcel::RulesChanged
            | Parcel::Farewell(_) => {}
        }
    }

    fn answer(&mut self, invocation: &Invocation) {
        // In the words of the caller, as far as it has such.
        let format = match invocation.payload.content() {
            Content::Arguments(arguments) => arguments.format,
            Content::Body(_) | Content::Opaque(_) => Format::Json,
        };
        let result = match self.serve(invocation, format) {
            Ok(value) => {
                let payload = Payload::new(Content::Arguments(positional(format, value.as_slice())));
                Ok(Answer { payload, attributes: Attributes::default(), is_progress: false })
            }
            Err(Fault::Refused(uri, sentence)) => Err(failure(uri, &sentence)),
            Err(Fault::Violation(violation)) => Err(failure(INVALID_ARGUMENT, violation.message())),
            // Nobody is asked what the house may do.
            Err(Fault::Undecided(_)) => {
                Err(failure(AUTHORIZATION_FAILED, "it is not known whether this is allowed"))
            }
        };
        // The caller may have left, or given up.
        let _answered = self.member.answer(invocation.id, result);
    }

    fn serve(&mut self, invocation: &Invocation, format: Format) -> Result<Option<Value>, Fault> {
        let arguments = match invocation.payload.arguments(format) {
            Ok(Carried::Arguments(arguments)) => arguments,
            Ok(Carried::Opaque(_)) => return Err(Fault::argument("the arguments are a list")),
            Err(why) => return Err(Fault::argument(&format!("the arguments cannot be read: {why}"))),
        };
        let caller = invocation.caller.as_ref().map(|(session, _)| *session);
        let caller = caller.ok_or_else(|| Fault::argument("the caller is not known"))?;
        let request = Request::parse(caller, arguments)?;
        let serve = self.procedures.get(&invocation.registration).copied();
        let serve = serve.expect("what is invoked here was registered here");
        serve(self, &request)
    }

    fn realm(&self) -> &Realm {
        self.member.realm()
    }
}

/// These values as positional arguments.
fn positional(format: Format, values: &[Value]) -> Arguments {
    let elements: Vec<_> = values.iter().map(Element::Value).collect();
    let args = if elements.is_empty() { Default::default() } else { encode_list(format, &elements) };
    Arguments { format, args, kwargs: Default::default() }
}

fn session_value(session: &SessionId) -> Value {
    Value::from(session.0)
}

//! What the meta API publishes when something changes.
//!
//! ```text
//! wamp.session.on_join            [details]
//! wamp.session.on_leave           [session, authid, authrole]
//! wamp.subscription.on_create     [session, {id, created, uri, match}]
//! wamp.subscription.on_subscribe, on_unsubscribe, on_delete       [session, subscription]
//! wamp.registration.on_create     [session, {id, created, uri, match, invoke}]
//! wamp.registration.on_register, on_unregister, on_delete         [session, registration]
//! ```
//!
//! They come in the order of the changes, and soon after them: who subscribes to them right after a change may still
//! hear of it, though a session never hears that it joined itself.

use tandem_protocols::payload::{Content, Format, Payload};
use tandem_protocols::wamp::dict::Value;

use crate::core::message::Attributes;
use crate::core::name::Name;
use crate::core::notice::Notice;
use crate::core::realm::Outgoing;
use crate::wamp::meta::{MetaApi, positional, registrations, sessions, subscriptions};

impl MetaApi {
    /// Publishes what a notice says, if anybody wants to hear it.
    pub(super) fn publish(&self, notice: &Notice) {
        let name = Name::parse(topic(notice)).expect("the topics have names");
        if !self.realm().topics().is_awaited(&name) {
            return;
        }
        // All languages can read JSON, and it is converted once for each other format.
        let payload = Payload::new(Content::Arguments(positional(Format::Json, &arguments(notice))));
        let outgoing = Outgoing { name, payload, attributes: Attributes::default() };
        let published = match notice {
            Notice::Joined(guest) => self.member.publish_past(outgoing, guest.session),
            _ => self.member.publish(outgoing, true),
        };
        if let Err(refusal) = published {
            tracing::error!(%refusal, "a meta event was not published");
        }
    }
}

fn topic(notice: &Notice) -> &'static str {
    match notice {
        Notice::Joined(_) => "wamp.session.on_join",
        Notice::Left(_) => "wamp.session.on_leave",
        Notice::SubscriptionCreated(..) => "wamp.subscription.on_create",
        Notice::Subscribed(..) => "wamp.subscription.on_subscribe",
        Notice::Unsubscribed(..) => "wamp.subscription.on_unsubscribe",
        Notice::SubscriptionDeleted(..) => "wamp.subscription.on_delete",
        Notice::RegistrationCreated(..) => "wamp.registration.on_create",
        Notice::Registered(..) => "wamp.registration.on_register",
        Notice::Unregistered(..) => "wamp.registration.on_unregister",
        Notice::RegistrationDeleted(..) => "wamp.registration.on_delete",
    }
}

fn arguments(notice: &Notice) -> Vec<Value> {
    match notice {
        Notice::Joined(guest) => vec![sessions::details(guest).into()],
        Notice::Left(guest) => {
            let (authid, authrole) = (&*guest.principal.id, &*guest.principal.role);
            vec![guest.session.0.into(), authid.into(), authrole.into()]
        }
        Notice::SubscriptionCreated(session, facts) => {
            vec![session.0.into(), subscriptions::details(facts).into()]
        }
        Notice::RegistrationCreated(session, facts) => {
            vec![session.0.into(), registrations::details(facts).into()]
        }
        Notice::Subscribed(session, id)
        | Notice::Unsubscribed(session, id)
        | Notice::SubscriptionDeleted(session, id) => vec![session.0.into(), id.0.into()],
        Notice::Registered(session, id)
        | Notice::Unregistered(session, id)
        | Notice::RegistrationDeleted(session, id) => vec![session.0.into(), id.0.into()],
    }
}

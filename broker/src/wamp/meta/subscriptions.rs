//! `wamp.subscription.*`: who subscribes to what.

use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::{NO_SUCH_SESSION, NO_SUCH_SUBSCRIPTION};

use crate::core::name::Name;
use crate::core::notice::SubscriptionFacts;
use crate::core::parcel::SubscriptionId;
use crate::wamp::fault::Fault;
use crate::wamp::meta::listing::{LIST_MAX, by_policy, too_many, within_limit};
use crate::wamp::meta::request::Request;
use crate::wamp::meta::{MetaApi, session_value};
use crate::wamp::patterns::policy_word;
use crate::wamp::timestamp;

/// Why a subscription ends that its holder did not end, if nothing else was said.
const REVOKED: &str = "wamp.subscription.revoked";

/// What there is to say of a subscription.
pub(super) fn details(facts: &SubscriptionFacts) -> Dict {
    Dict::new()
        .with("id", facts.id.0)
        .with("created", timestamp::write(facts.created_ms))
        .with("uri", facts.pattern.as_str())
        .with("match", policy_word(&facts.pattern))
}

impl MetaApi {
    pub(super) fn list_subscriptions(&mut self, _request: &Request) -> Result<Option<Value>, Fault> {
        let list = self.realm().topics().list(LIST_MAX);
        let list = within_limit(list, "subscriptions", "look them up, or ask which match a topic")?;
        Ok(Some(by_policy(list.into_iter().map(|(id, pattern)| (id.0, pattern)))))
    }

    pub(super) fn look_up_subscription(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let id = self.realm().topics().get(&request.pattern()?);
        Ok(Some(id.map_or(Value::Null, |id| Value::from(id.0))))
    }

    /// In the order in which an event goes out.
    pub(super) fn match_subscriptions(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let topic = Name::parse(request.text(0, "a URI")?)?;
        let ids = self.realm().topics().matching(topic.as_str());
        Ok(Some(match ids.is_empty() {
            true => Value::Null,
            false => Value::List(ids.into_iter().map(|id| Value::from(id.0)).collect()),
        }))
    }

    pub(super) fn get_subscription(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        Ok(Some(details(&self.subscription(request)?).into()))
    }

    pub(super) fn list_subscribers(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let id = self.subscription(request)?.id;
        let topics = self.realm().topics();
        if topics.subscriber_count(id) > LIST_MAX {
            return Err(too_many("subscribers", "count them"));
        }
        let list = topics.subscribers(id);
        Ok(Some(Value::List(list.iter().map(session_value).collect())))
    }

    pub(super) fn count_subscribers(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let id = self.subscription(request)?.id;
        Ok(Some(Value::from(self.realm().topics().subscriber_count(id) as u64)))
    }

    pub(super) fn remove_subscriber(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let (id, session) = (self.subscription(request)?.id, request.session(1)?);
        let reason = request.reason_or(2, REVOKED)?;
        if !self.realm().revoke_subscription(id, session, Some(reason)) {
            let sentence = "the session does not hold the subscription".to_owned();
            return Err(Fault::Refused(NO_SUCH_SESSION, sentence));
        }
        Ok(None)
    }

    fn subscription(&self, request: &Request) -> Result<SubscriptionFacts, Fault> {
        let id = SubscriptionId(request.id(0, "subscription")?);
        let unknown = || Fault::Refused(NO_SUCH_SUBSCRIPTION, "there is no such subscription".to_owned());
        self.realm().topics().facts(id).ok_or_else(unknown)
    }
}

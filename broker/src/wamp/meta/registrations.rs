//! `wamp.registration.*`: who serves what.

use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::{NO_SUCH_REGISTRATION, NO_SUCH_SESSION};
use tandem_protocols::wamp::options::InvokePolicy;

use crate::core::calls::Policy;
use crate::core::name::Name;
use crate::core::notice::RegistrationFacts;
use crate::core::parcel::RegistrationId;
use crate::wamp::fault::Fault;
use crate::wamp::meta::listing::{LIST_MAX, by_policy, within_limit};
use crate::wamp::meta::request::Request;
use crate::wamp::meta::{MetaApi, session_value};
use crate::wamp::patterns::policy_word;
use crate::wamp::timestamp;

/// Why a registration ends that its callee did not end, if nothing else was said.
const REVOKED: &str = "wamp.registration.revoked";

/// What there is to say of a registration.
pub(super) fn details(facts: &RegistrationFacts) -> Dict {
    let invoke = match facts.policy {
        Policy::Single => InvokePolicy::Single,
        Policy::First => InvokePolicy::First,
        Policy::Last => InvokePolicy::Last,
        Policy::RoundRobin => InvokePolicy::RoundRobin,
        Policy::Random => InvokePolicy::Random,
    };
    Dict::new()
        .with("id", facts.id.0)
        .with("created", timestamp::write(facts.created_ms))
        .with("uri", facts.pattern.as_str())
        .with("match", policy_word(&facts.pattern))
        .with("invoke", invoke.as_str())
}

impl MetaApi {
    pub(super) fn list_registrations(&mut self, _request: &Request) -> Result<Option<Value>, Fault> {
        let list = self.realm().calls().list(LIST_MAX);
        let list = within_limit(list, "registrations", "look them up, or ask which one matches a procedure")?;
        Ok(Some(by_policy(list.into_iter().map(|(id, pattern)| (id.0, pattern)))))
    }

    pub(super) fn look_up_registration(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let id = self.realm().calls().get(&request.pattern()?);
        Ok(Some(id.map_or(Value::Null, |id| Value::from(id.0))))
    }

    pub(super) fn match_registration(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let procedure = Name::parse(request.text(0, "a URI")?)?;
        let id = self.realm().calls().best_match(procedure.as_str());
        Ok(Some(id.map_or(Value::Null, |id| Value::from(id.0))))
    }

    pub(super) fn get_registration(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        Ok(Some(details(&self.registration(request)?).into()))
    }

    /// No more than [`CALLEES_MAX`](crate::core::calls::CALLEES_MAX).
    pub(super) fn list_callees(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let list = self.realm().calls().callees(self.registration(request)?.id);
        Ok(Some(Value::List(list.iter().map(session_value).collect())))
    }

    pub(super) fn count_callees(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let list = self.realm().calls().callees(self.registration(request)?.id);
        Ok(Some(Value::from(list.len() as u64)))
    }

    pub(super) fn remove_callee(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let (id, session) = (self.registration(request)?.id, request.session(1)?);
        let reason = request.reason_or(2, REVOKED)?;
        if !self.realm().calls().revoke(id, session, reason) {
            let sentence = "the session does not serve the procedure".to_owned();
            return Err(Fault::Refused(NO_SUCH_SESSION, sentence));
        }
        Ok(None)
    }

    fn registration(&self, request: &Request) -> Result<RegistrationFacts, Fault> {
        let id = RegistrationId(request.id(0, "registration")?);
        let unknown = || Fault::Refused(NO_SUCH_REGISTRATION, "there is no such registration".to_owned());
        self.realm().calls().facts(id).ok_or_else(unknown)
    }
}

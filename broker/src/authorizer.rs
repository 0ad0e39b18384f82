//! An authorizer that is a procedure of the realm.
//!
//! ```text
//! authorizer  [session, name, action, options]  -> true, false, or {allow, disclose, cache}
//!
//! session     {session, realm, authid, authrole, authmethod}
//! action      publish, subscribe, call, register, send or consume
//! options     {match}: exact, prefix or wildcard. A wildcard that ends in "#" goes on below.
//! ```
//!
//! This is what Crossbar's dynamic authorizers get and give, with the actions of queues beside those of WAMP. What
//! is not an answer of that form counts as none.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use tandem_protocols::payload::{Arguments, Carried, Content, Format, Payload};
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::list::{Element, encode_list, split_list};

use crate::core::access::Refusal;
use crate::core::access::authorizer::{Authorizer, Authorizing, Decision, Question};
use crate::core::message::Attributes;
use crate::core::name::MatchKind;
use crate::core::parcel::Answer;
use crate::core::realm::Outgoing;
use crate::local::LocalCaller;

/// How long an authorizer may take.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Asks the procedure that the rule names.
#[derive(Debug)]
pub struct ProcedureAuthorizer {
    caller: Arc<LocalCaller>,
}

impl ProcedureAuthorizer {
    /// One that asks in the realm of this caller.
    pub fn new(caller: LocalCaller) -> ProcedureAuthorizer {
        ProcedureAuthorizer { caller: Arc::new(caller) }
    }
}

impl Authorizer for ProcedureAuthorizer {
    fn authorize(&self, question: Question) -> Authorizing {
        let caller = self.caller.clone();
        Box::pin(async move {
            let payload = Payload::new(Content::Arguments(arguments(&question)));
            let Question { authorizer: name, action, pattern, principal, .. } = question;
            let outgoing = Outgoing { name: name.clone(), payload, attributes: Attributes::default() };
            let answer = caller.call(outgoing, ANSWER_TIME_MAX).await.map_err(|error| error.to_string());
            answer.and_then(|answer| decision(&answer)).map_err(|error| {
                let user = &*principal.id;
                tracing::warn!(authorizer = %name, user, %action, name = %pattern, error, "no authorization");
                Refusal::AuthorizationFailed
            })
        })
    }
}

fn arguments(question: &Question) -> Arguments {
    let Question { realm, session, principal, action, pattern, .. } = question;
    let details = Dict::new()
        .with("session", session.0)
        .with("realm", &**realm)
        .with("authid", &*principal.id)
        .with("authrole", &*principal.role)
        .with("authmethod", principal.method);
    let policy = match pattern.kind() {
        MatchKind::Exact => "exact",
        MatchKind::Prefix => "prefix",
        MatchKind::Components => "wildcard",
    };
    let options = Dict::new().with("match", policy);
    let values = [details.into(), pattern.as_str().into(), action.as_str().into(), Value::from(options)];
    let args = encode_list(Format::Json, &values.each_ref().map(Element::Value));
    Arguments { format: Format::Json, args, kwargs: Bytes::new() }
}

/// What an answer says.
fn decision(answer: &Answer) -> Result<Decision, String> {
    let carried = answer.payload.arguments(Format::Json).map_err(|why| why.to_string())?;
    let Carried::Arguments(arguments) = carried else { return Err("the answer cannot be read".to_owned()) };
    let (first, _) = split_list(Format::Json, &arguments.args, 1).map_err(|why| why.to_string())?;
    match first.into_iter().next() {
        Some(Value::Bool(allow)) => Ok(Decision { allow, disclose: None, cache: None }),
        Some(Value::Dict(said)) => {
            let said = |key: &str| said.bool(key).map_err(|why| why.to_string());
            let allow = said("allow")?.ok_or("the answer does not say whether to allow")?;
            Ok(Decision { allow, disclose: said("disclose")?, cache: said("cache")? })
        }
        _ => Err("the answer is neither true, false nor a dictionary".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(args: &'static str) -> Result<Decision, String> {
        let args = Bytes::from_static(args.as_bytes());
        let arguments = Arguments { format: Format::Json, args, kwargs: Bytes::new() };
        let payload = Payload::new(Content::Arguments(arguments));
        decision(&Answer { payload, attributes: Attributes::default(), is_progress: false })
    }

    #[test]
    fn an_answer_is_a_word_or_a_dictionary_of_words() {
        let plain = |allow| Decision { allow, disclose: None, cache: None };
        assert_eq!(said("[true]"), Ok(plain(true)));
        assert_eq!(said("[false, 1]"), Ok(plain(false)));
        assert_eq!(said(r#"[{"allow": true, "more": 1}]"#), Ok(plain(true)));
        let all = Decision { allow: false, disclose: Some(true), cache: Some(false) };
        assert_eq!(said(r#"[{"allow": false, "disclose": true, "cache": false}]"#), Ok(all));
    }

    #[test]
    fn what_is_no_answer_allows_nothing() {
        for args in ["", "[]", "[null]", "[1]", "[\"true\"]", "[{}]", "[{\"allow\": 1}]", "[[true]]"] {
            assert!(said(args).is_err(), "{args}");
        }
        assert!(said("[{\"allow\": true, \"disclose\": \"yes\"}]").is_err());
    }
}

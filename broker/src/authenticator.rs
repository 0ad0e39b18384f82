//! Asks a procedure who somebody is: a dynamic authenticator, as Crossbar has it.
//!
//! ```text
//! call      [realm, authid or null, details]
//! details   {"authmethod", "authextra", "session", "transport": {"peer"}} and, by ticket, {"ticket"}
//! result    a role, or {"role", "authid", "realm", "extra"} with what the method is judged by, as in wamp/records
//! ```
//!
//! A login of STOMP is a ticket. An error of the application's own, and `wamp.error.not_authorized`,
//! `authorization_denied`, `authentication_denied`, `no_such_principal` and `no_such_role`, mean that the user is not
//! let in; any other one, like an answer that does not come in time or makes no sense, that it could not be found
//! out. That is logged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use tandem_protocols::payload::{Arguments, Carried, Content, Format, Payload};

use crate::core::access::{
    Applicant, Authenticating, Authenticator, Credentials, Grant, LookingUp, Peer, Principal, Provider,
    Record, Refusal,
};
use crate::core::message::{Attributes, Outgoing};
use crate::core::name::Name;
use crate::core::parcel::Answer;
use crate::local::{CallFailed, LocalCaller};

/// The method of a password, whatever a language calls it.
pub const TICKET: &str = "ticket";

/// The methods that an authenticator can serve.
pub const METHODS: [&str; 5] = [TICKET, "wampcra", "scram", "wamp-scram", "cryptosign"];

/// How long an answer may be.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long a name, role or realm may be that an authenticator gives.
const NAME_BYTES_MAX: usize = 256;

/// WAMP's errors that deny.
const DENIALS: [&str; 5] = [
    "wamp.error.not_authorized",
    "wamp.error.authorization_denied",
    "wamp.error.authentication_denied",
    "wamp.error.no_such_principal",
    "wamp.error.no_such_role",
];

/// What is asked, and about whom.
#[derive(Clone, Debug)]
pub struct ProcedureSettings {
    /// The procedure.
    pub procedure: Name,
    /// The realm that it is in, if it is not the one that the client wants.
    pub realm: Option<Arc<str>>,
    /// The methods that it serves, of [`METHODS`].
    pub methods: Vec<String>,
    /// How long it may take.
    pub time_max: Duration,
}

/// A procedure that finds out who somebody is.
pub struct ProcedureAuthenticator(Arc<Inner>);

struct Inner {
    settings: ProcedureSettings,
    /// By realm.
    callers: HashMap<Arc<str>, LocalCaller>,
}

impl ProcedureAuthenticator {
    /// Calls by these, each in its realm.
    pub fn new(
        settings: ProcedureSettings,
        callers: impl IntoIterator<Item = (Arc<str>, LocalCaller)>,
    ) -> ProcedureAuthenticator {
        let callers = callers.into_iter().collect();
        ProcedureAuthenticator(Arc::new(Inner { settings, callers }))
    }

    fn serves(&self, method: &str) -> bool {
        self.0.settings.methods.iter().any(|served| served == method)
    }
}

impl Authenticator for ProcedureAuthenticator {
    fn anonymous(&self, _peer: &Peer) -> Option<Principal> {
        None
    }

    fn authenticate(&self, credentials: Credentials, peer: &Peer) -> Authenticating {
        if !self.serves(TICKET) {
            return Box::pin(std::future::ready(Err(Refusal::WrongSecret)));
        }
        let (inner, peer) = (self.0.clone(), peer.clone());
        Box::pin(async move {
            let Credentials { applicant, secret } = credentials;
            let record = inner.ask(applicant, Some(&secret), &peer).await?;
            Ok(record.grant)
        })
    }

    fn looks_up(&self, method: &str) -> bool {
        method != TICKET && self.serves(method)
    }

    fn look_up(&self, applicant: Applicant, peer: &Peer) -> LookingUp {
        let (inner, peer) = (self.0.clone(), peer.clone());
        Box::pin(async move { inner.ask(applicant, None, &peer).await })
    }
}

impl Inner {
    async fn ask(&self, applicant: Applicant, ticket: Option<&str>, peer: &Peer) -> Result<Record, Refusal> {
        let failed = |why: String| {
            let (realm, procedure) = (&applicant.realm, &self.settings.procedure);
            tracing::warn!(%realm, procedure = procedure.as_str(), why, "the authenticator failed");
            Refusal::AuthenticationFailed
        };
        let realm = self.settings.realm.as_ref().unwrap_or(&applicant.realm);
        let caller = self.callers.get(realm).ok_or_else(|| failed("it is in another realm".into()))?;
        let outgoing = Outgoing {
            name: self.settings.procedure.clone(),
            payload: question(&applicant, ticket, peer),
            attributes: Attributes::default(),
        };
        match caller.call(outgoing, self.settings.time_max).await {
            Ok(answer) => {
                let value = first_value(&answer).map_err(&failed)?;
                record(value, &applicant).map_err(&failed)
            }
            Err(CallFailed::Failed(failure)) if denies(&failure.error) => Err(Refusal::WrongSecret),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

fn denies(error: &str) -> bool {
    DENIALS.contains(&error) || !error.starts_with("wamp.") && !error.starts_with("tandem.")
}

/// The arguments of the call.
fn question(applicant: &Applicant, ticket: Option<&str>, peer: &Peer) -> Payload {
    let Applicant { realm, user, method, session, extra } = applicant;
    let extra: Option<Value> = extra.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let peer = match peer.address() {
        Some(address) if address.is_ipv4() => format!("tcp4:{address}"),
        Some(address) => format!("tcp6:{address}"),
        None => peer.to_string(),
    };
    let mut details = json!({
        "authmethod": if ticket.is_some() { TICKET } else { *method },
        "authextra": extra,
        "session": session.map(|session| session.0),
        "transport": {"peer": peer},
    });
    if let Some(ticket) = ticket {
        details["ticket"] = ticket.into();
    }
    let user = Some(&**user).filter(|user| !user.is_empty());
    let args = Bytes::from(json!([&**realm, user, details]).to_string());
    Payload::new(Content::Arguments(Arguments { format: Format::Json, args, kwargs: Bytes::new() }))
}

/// What the procedure returned: its first result or, without any, those that have names.
fn first_value(answer: &Answer) -> Result<Value, String> {
    if answer.payload.len() > ANSWER_BYTES_MAX {
        return Err(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"));
    }
    let carried = answer.payload.arguments(Format::Json).map_err(|why| why.to_string())?;
    let Carried::Arguments(Arguments { args, kwargs, .. }) = carried else {
        return Err("its answer cannot be read".into());
    };
    let parsed = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_default();
    match parsed(args) {
        Value::Array(list) if !list.is_empty() => Ok(list.into_iter().next().unwrap_or_default()),
        _ => Ok(parsed(kwargs)),
    }
}

fn record(value: Value, applicant: &Applicant) -> Result<Record, String> {
    let mut map = match value {
        Value::String(role) => Map::from_iter([("role".to_owned(), role.into())]),
        Value::Object(map) => map,
        _ => return Err("it returned neither a role nor a dictionary".into()),
    };
    let user = Some(applicant.user.clone()).filter(|user| !user.is_empty());
    let id = take_name(&mut map, "authid")?.or(user).ok_or("it gave no authid")?;
    let role = take_name(&mut map, "role")?.ok_or("it gave no role")?;
    let realm = take_name(&mut map, "realm")?;
    let extra = match map.remove("extra") {
        None | Some(Value::Null) => None,
        Some(extra @ Value::Object(_)) => Some(extra.to_string().into()),
        Some(_) => return Err("extra is not a dictionary".into()),
    };
    let principal = Principal { provider: Provider::Dynamic, ..Principal::new(id, role, applicant.method) };
    let text = |(name, value)| match value {
        Value::String(text) => Some((name, text)),
        Value::Number(number) => Some((name, number.to_string())),
        _ => None,
    };
    Ok(Record {
        grant: Grant { principal, realm, extra, lifetime: None },
        fields: map.into_iter().filter_map(text).collect(),
    })
}

/// A text that names somebody or something, and can stand in a header.
fn take_name(map: &mut Map<String, Value>, key: &'static str) -> Result<Option<Arc<str>>, String> {
    match map.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text))
            if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            Ok(Some(text.into()))
        }
        Some(_) => Err(format!("{key} is no text of 1 to {NAME_BYTES_MAX} bytes without control characters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::SessionId;

    fn applicant() -> Applicant {
        Applicant {
            realm: "realm1".into(),
            user: "joe".into(),
            method: "wampcra",
            session: Some(SessionId(7)),
            extra: Some(r#"{"a":[1]}"#.into()),
        }
    }

    fn args(payload: &Payload) -> Value {
        let Content::Arguments(Arguments { args, .. }) = payload.content() else { unreachable!() };
        serde_json::from_slice(args).unwrap()
    }

    #[test]
    fn it_is_asked_as_crossbar_asks() {
        let peer = Peer::Socket("192.0.2.1:5".parse().unwrap());
        let asked = args(&question(&applicant(), None, &peer));
        let transport = json!({"peer": "tcp4:192.0.2.1:5"});
        let details =
            json!({"authmethod": "wampcra", "authextra": {"a": [1]}, "session": 7, "transport": transport});
        assert_eq!(asked, json!(["realm1", "joe", details]));
        let stomp = Applicant { user: "".into(), method: "stomp", session: None, extra: None, ..applicant() };
        let asked = args(&question(&stomp, Some("secret"), &Peer::Local));
        assert_eq!(asked[1], Value::Null);
        assert_eq!((&asked[2]["authmethod"], &asked[2]["ticket"]), (&json!("ticket"), &json!("secret")));
    }

    #[test]
    fn it_answers_with_a_role_or_a_dictionary() {
        let answered = |value| record(value, &applicant());
        let plain = answered(json!("user")).unwrap();
        let principal = Principal { provider: Provider::Dynamic, ..Principal::new("joe", "user", "wampcra") };
        assert_eq!(plain.grant, principal.into());
        let full = answered(json!({
            "role": "admin", "authid": "joseph", "realm": "other", "extra": {"x": 1}, "secret": "s",
            "iterations": 100, "salt": null, "other": [1],
        }))
        .unwrap();
        let Grant { principal, realm, extra, .. } = full.grant;
        assert_eq!((&*principal.id, &*principal.role, realm.as_deref()), ("joseph", "admin", Some("other")));
        assert_eq!(extra.as_deref(), Some(r#"{"x":1}"#));
        let fields = [("secret", "s"), ("iterations", "100")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(full.fields, HashMap::from(fields));
    }

    #[test]
    fn what_makes_no_sense_lets_nobody_in() {
        let long = "x".repeat(257);
        for value in [
            json!(null),
            json!(7),
            json!([]),
            json!({}),
            json!({"role": ""}),
            json!({"role": 7}),
            json!({"role": "a\nb"}),
            json!({"role": long}),
            json!({"role": "a", "authid": 1}),
            json!({"role": "a", "realm": ""}),
            json!({"role": "a", "extra": "text"}),
        ] {
            assert!(record(value.clone(), &applicant()).is_err(), "{value}");
        }
        let nobody = Applicant { user: "".into(), ..applicant() };
        assert!(record(json!("user"), &nobody).is_err(), "somebody must have a name");
    }

    #[test]
    fn errors_of_the_application_deny_and_those_of_the_router_do_not() {
        for error in ["wamp.error.not_authorized", "wamp.error.no_such_principal", "com.example.bad_ticket"] {
            assert!(denies(error), "{error}");
        }
        for error in ["wamp.error.runtime_error", "wamp.error.no_such_procedure", "wamp.error.canceled"] {
            assert!(!denies(error), "{error}");
        }
    }
}

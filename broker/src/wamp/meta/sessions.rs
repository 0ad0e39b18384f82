//! `wamp.session.*`: who is here, and ending their sessions.
//!
//! What [`modify_details`](MetaApi::modify_details) adds is kept here, not in the realm: few sessions have any. It is
//! forgotten when its session is gone, though not at once.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::{CLOSE_KILLED, NO_SUCH_SESSION};
use tandem_protocols::wamp::list::{Element, encode_list};

use crate::core::access::{Principal, SessionId};
use crate::core::guests::Guests;
use crate::core::notice::{Guest, Origin};
use crate::core::parcel::{Farewell, Verdict};
use crate::wamp::arguments::argument;
use crate::wamp::fault::{Fault, LIMIT_REACHED};
use crate::wamp::meta::listing::{LIST_MAX, within_limit, worst_wanted};
use crate::wamp::meta::request::Request;
use crate::wamp::meta::{MetaApi, session_value};

/// The longest message to somebody whose session is killed, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 4096;

/// What may be added to the details of one session, in bytes as JSON.
pub(super) const DETAILS_BYTES_MAX: usize = 16 * 1024;

/// The same of all sessions of a realm together.
pub(super) const DETAILS_TOTAL_BYTES_MAX: usize = 64 << 20;

/// What the house says of a session, and nobody else.
const RESERVED: &[&str] =
    &["session", "realm", "authid", "authrole", "authmethod", "authprovider", "authextra", "transport"];

/// From how many on those of sessions that are gone are looked for.
const FORGET_MIN: usize = 64;

/// What was added to the details of sessions.
#[derive(Debug, Default)]
pub(super) struct Details {
    by_session: HashMap<SessionId, (Dict, usize)>,
    bytes: usize,
    /// From so many on those of sessions that are gone are forgotten.
    forget_at: usize,
}

impl Details {
    fn of(&self, session: SessionId) -> Dict {
        self.by_session.get(&session).map(|(dict, _)| dict.clone()).unwrap_or_default()
    }

    fn set(&mut self, session: SessionId, details: Dict, guests: &Guests) -> Result<(), Fault> {
        let value = Value::from(details);
        let bytes = encode_list(Format::Json, &[Element::Value(&value)]).len();
        if bytes > DETAILS_BYTES_MAX {
            let sentence = format!("the details of a session have no more than {DETAILS_BYTES_MAX} bytes");
            return Err(Fault::argument(&sentence));
        }
        let Value::Dict(details) = value else { return Ok(()) };
        if self.by_session.len() >= self.forget_at.max(FORGET_MIN) || self.is_too_much(bytes) {
            self.forget_gone(guests);
        }
        if self.is_too_much(bytes) {
            return Err(Fault::Refused(LIMIT_REACHED, "no more can be added to details".to_owned()));
        }
        self.remove(session);
        if !details.is_empty() {
            self.bytes += bytes;
            self.by_session.insert(session, (details, bytes));
        }
        Ok(())
    }

    fn is_too_much(&self, bytes: usize) -> bool {
        self.bytes + bytes > DETAILS_TOTAL_BYTES_MAX
    }

    fn remove(&mut self, session: SessionId) {
        if let Some((_, bytes)) = self.by_session.remove(&session) {
            self.bytes -= bytes;
        }
    }

    fn forget_gone(&mut self, guests: &Guests) {
        self.by_session.retain(|session, _| guests.get(*session).is_some());
        self.bytes = self.by_session.values().map(|(_, bytes)| bytes).sum();
        self.forget_at = self.by_session.len() * 2;
    }
}

/// What the house knows of a session.
pub(super) fn details(guest: &Guest) -> Dict {
    let Guest { session, principal, origin } = guest;
    let Principal { id, role, method, provider, .. } = &**principal;
    let Origin { peer, dialect } = origin;
    let transport = Dict::new().with("peer", peer.to_string()).with("protocol", *dialect);
    Dict::new()
        .with("session", session.0)
        .with("authid", &**id)
        .with("authrole", &**role)
        .with("authmethod", *method)
        .with("authprovider", provider.as_str())
        .with("transport", transport)
}

fn no_such_session() -> Fault {
    Fault::Refused(NO_SUCH_SESSION, "there is no such session".to_owned())
}

/// What is said to those whose sessions are killed.
fn farewell(request: &Request, place: usize) -> Result<Farewell, Fault> {
    let reason = request.reason(place)?.unwrap_or(CLOSE_KILLED).into();
    let message = request.kwargs.str("message").map_err(argument)?;
    if message.is_some_and(|message| message.len() > MESSAGE_BYTES_MAX) {
        return Err(Fault::argument(&format!("the message has no more than {MESSAGE_BYTES_MAX} bytes")));
    }
    Ok(Farewell::Killed(Arc::new(Verdict { reason, message: message.map(Box::from) })))
}

impl MetaApi {
    pub(super) fn count_sessions(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let roles = request.texts(0, "a list of roles")?;
        let guests = self.realm().guests();
        let count = match roles {
            None => guests.len(),
            Some(roles) => guests.count(|_, principal| roles.contains(&&*principal.role)),
        };
        Ok(Some(Value::from(count as u64)))
    }

    pub(super) fn list_sessions(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let roles = request.texts(0, "a list of roles")?;
        let is_meant =
            |_, principal: &Principal| roles.as_ref().is_none_or(|roles| roles.contains(&&*principal.role));
        let list = self.realm().guests().list(LIST_MAX, is_meant);
        let instead = "count them, or ask for those of some roles only";
        let mut list = within_limit(list, "sessions", instead)?;
        list.sort_unstable();
        Ok(Some(Value::List(list.iter().map(session_value).collect())))
    }

    pub(super) fn get_session(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let session = request.session(0)?;
        let guest = self.realm().guests().get(session).ok_or_else(no_such_session)?;
        let mut details = details(&guest);
        for (key, value) in self.details.of(session).iter() {
            details.insert(key, value.clone());
        }
        Ok(Some(details.into()))
    }

    /// Those for whom anything waits.
    pub(super) fn list_waiting(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let slowest = self.realm().guests().slowest(1, worst_wanted(request)?);
        let list = slowest.iter().map(|(bytes, guest)| {
            let dict = Dict::new()
                .with("session", guest.session.0)
                .with("authid", &*guest.principal.id)
                .with("waiting_bytes", *bytes as u64)
                .with("protocol", guest.origin.dialect);
            Value::Dict(dict)
        });
        Ok(Some(Value::List(list.collect())))
    }

    pub(super) fn kill(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let session = request.session(0)?;
        let farewell = farewell(request, 1)?;
        if session == request.caller || !self.realm().guests().end_one(session, farewell) {
            return Err(no_such_session());
        }
        tracing::info!(by = request.caller.0, session = session.0, "a session was killed");
        Ok(None)
    }

    /// The answer names no more than [`LIST_MAX`] of them.
    pub(super) fn kill_by_authid(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let authid = request.text(0, "an authid")?;
        let mut killed = self.kill_such(request, 1, |principal| *principal.id == *authid)?;
        killed.truncate(LIST_MAX);
        killed.sort_unstable();
        Ok(Some(Value::List(killed.iter().map(session_value).collect())))
    }

    pub(super) fn kill_by_authrole(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let authrole = request.text(0, "an authrole")?;
        let killed = self.kill_such(request, 1, |principal| *principal.role == *authrole)?;
        Ok(Some(Value::from(killed.len() as u64)))
    }

    pub(super) fn kill_all(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let killed = self.kill_such(request, 0, |_| true)?;
        Ok(Some(Value::from(killed.len() as u64)))
    }

    /// Kills all such sessions but the caller's. The reason may stand at this place.
    fn kill_such(
        &self,
        request: &Request,
        place: usize,
        is_meant: impl Fn(&Principal) -> bool,
    ) -> Result<Vec<SessionId>, Fault> {
        let farewell = farewell(request, place)?;
        let spares_caller = |session, principal: &Principal| session != request.caller && is_meant(principal);
        let killed = self.realm().guests().end(&farewell, spares_caller);
        tracing::info!(by = request.caller.0, sessions = killed.len(), "sessions were killed");
        Ok(killed)
    }

    pub(super) fn modify_details(&mut self, request: &Request) -> Result<Option<Value>, Fault> {
        let session = request.session(0)?;
        let Some(Value::Dict(delta)) = request.value(1) else {
            return Err(Fault::argument("the second argument is a dictionary of details"));
        };
        // Also where it is null, which would remove it.
        if let Some((reserved, _)) = delta.iter().find(|(key, _)| RESERVED.contains(key)) {
            return Err(Fault::argument(&format!("{reserved} is not to be changed")));
        }
        self.realm().guests().get(session).ok_or_else(no_such_session)?;
        let mut details = self.details.of(session);
        for (key, value) in delta.iter() {
            match value {
                Value::Null => drop(details.remove(key)),
                value => details.insert(key, value.clone()),
            }
        }
        self.details.set(session, details, self.member.realm().guests())?;
        Ok(None)
    }
}

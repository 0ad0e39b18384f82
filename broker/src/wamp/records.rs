//! Challenges by records: what an application keeps of a user, and gives when it is asked.
//!
//! ```text
//! method               fields
//! wampcra              secret; of one that was derived, the key in base64, and salt, iterations, keylen
//! wamp-scram, scram    kdf, salt, iterations, memory, stored-key, server-key; salt and keys in hexadecimal
//! cryptosign           pubkey, in hexadecimal
//! ```
//!
//! These are the names that Crossbar's authenticators use. Other fields are ignored.

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::auth::cra::{self, CraCredential};
use tandem_protocols::wamp::auth::cryptosign::{self, CryptosignHello, PublicKey};
use tandem_protocols::wamp::auth::scram::{Dialect, ScramCredential, ScramHello};
use tandem_protocols::wamp::auth::{AuthError, ChannelBinding, InvalidCredential};
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::list::{Element, encode_list, split_list};
use tandem_protocols::wamp::message::Challenge;
use tandem_protocols::wamp::options::HelloDetails;

use crate::core::access::{Record, SessionId};
use crate::wamp::credentials::{Pending, Proof, WampCredentials};

/// Why there is no challenge.
pub(super) enum Unusable {
    /// The record is none.
    Record(InvalidCredential),
    /// What the client said is at fault.
    Client(AuthError),
}

impl From<InvalidCredential> for Unusable {
    fn from(invalid: InvalidCredential) -> Unusable {
        Unusable::Record(invalid)
    }
}

impl From<AuthError> for Unusable {
    fn from(error: AuthError) -> Unusable {
        Unusable::Client(error)
    }
}

/// The method of that name, if users are challenged by it.
pub(super) fn method(name: &str) -> Option<&'static str> {
    [cra::METHOD, cryptosign::METHOD].into_iter().find(|known| *known == name).or_else(|| {
        let dialect = Dialect::from_method(name)?;
        Some(dialect.method())
    })
}

/// Whether the client said all that the method needs, so that it is worth looking for the user.
pub(super) fn check(method: &str, details: &HelloDetails<'_>) -> Result<(), AuthError> {
    if method == cryptosign::METHOD {
        return CryptosignHello::parse(details).map(drop);
    }
    if details.authid.is_none_or(str::is_empty) {
        return Err(AuthError::Required("authid"));
    }
    match Dialect::from_method(method) {
        Some(dialect) => ScramHello::parse(dialect, details).map(drop),
        None => Ok(()),
    }
}

/// The CHALLENGE of a method, for the session that is to be.
pub(super) fn challenge(
    record: Record,
    method: &'static str,
    details: &HelloDetails<'_>,
    session: SessionId,
    bindings: &[ChannelBinding<'_>],
    credentials: &WampCredentials,
) -> Result<(Challenge, Pending), Unusable> {
    if method == cryptosign::METHOD {
        let hello = CryptosignHello::parse(details)?;
        let key: PublicKey = text(&record, "pubkey")?.parse()?;
        let (challenge, pending) = hello.challenge(credentials.random(), bindings, None);
        // Who has another key is challenged, and denied in the end.
        let grant = (key == hello.pubkey()).then_some(record.grant);
        return Ok((challenge, Pending::of(grant, method, Proof::Cryptosign(pending))));
    }
    if let Some(dialect) = Dialect::from_method(method) {
        let hello = ScramHello::parse(dialect, details)?;
        let iterations = number(&record, "iterations")?.ok_or(InvalidCredential("iterations are missing"))?;
        let credential = ScramCredential::from_hex(
            dialect,
            (text(&record, "kdf")?, iterations, number(&record, "memory")?),
            text(&record, "salt")?,
            text(&record, "stored-key")?,
            text(&record, "server-key")?,
        )?;
        let (challenge, pending) = hello.challenge(&credential, &credentials.random(), bindings)?;
        return Ok((challenge, Pending::of(Some(record.grant), method, Proof::Scram(pending))));
    }
    let secret = text(&record, "secret")?;
    let credential = match record.fields.get("salt") {
        None => CraCredential::from_secret(secret),
        Some(salt) => {
            let (iterations, keylen) = (number(&record, "iterations")?, number(&record, "keylen")?);
            CraCredential::from_derived(secret, salt, iterations, keylen)?
        }
    };
    let (challenge, pending) = credentials.challenge_by_cra(&credential, &record.grant.principal, session);
    Ok((challenge, Pending::of(Some(record.grant), method, Proof::Cra(pending))))
}

fn text<'a>(record: &'a Record, name: &'static str) -> Result<&'a str, InvalidCredential> {
    let missing = match name {
        "pubkey" => "pubkey is missing",
        "secret" => "secret is missing",
        "kdf" => "kdf is missing",
        "salt" => "salt is missing",
        _ => "stored-key or server-key is missing",
    };
    record
        .fields
        .get(name)
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .ok_or(InvalidCredential(missing))
}

fn number(record: &Record, name: &str) -> Result<Option<u32>, InvalidCredential> {
    let number = record.fields.get(name).map(|text| u32::from_str(text)).transpose();
    number.map_err(|_| InvalidCredential("iterations, keylen or memory is not a small number"))
}

/// A dictionary as JSON, which is how the house passes it on.
pub(super) fn to_json(dict: &Dict) -> Arc<str> {
    let list = encode_list(Format::Json, &[Element::Value(&Value::Dict(dict.clone()))]);
    let text = std::str::from_utf8(&list).unwrap_or_default().trim();
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or("{}").into()
}

/// And back. What is no object of JSON, or too large for a message, is nothing.
pub(super) fn from_json(text: &str) -> Dict {
    let list = Bytes::from(format!("[{text}]"));
    match split_list(Format::Json, &list, 1).unwrap_or_default().0.pop() {
        Some(Value::Dict(dict)) => dict,
        _ => Dict::new(),
    }
}

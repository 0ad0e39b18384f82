//! Who somebody is by a token: a JSON Web Token (RFC 7519) that is signed (RFC 7515).
//!
//! What a token says is believed where its signature is right, by a key that is here: nothing is ever fetched, whatever
//! a header asks for. It names its user and, where that is configured, the role and the realms. Who is in the
//! configuration as a user need not be, and is not more, by a token.
//!
//! Of why a token is refused the log has a sentence, and the peer none, but that one has expired: that is for its
//! client to mend, and nobody learns it who has no such token.

mod keys;
mod signatures;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use parking_lot::RwLock;
use serde_json::{Map, Value};

pub use jsonwebtoken::Algorithm;

use crate::core::access::{Applicant, Grant, Principal, Provider, Refusal};
use crate::core::history::WallClock;
use crate::tokens::keys::Keys;
pub use crate::tokens::keys::{KEYS_MAX, KeyPlace, KeySource};

/// How long the name of a user or role may be, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// However long a token is good for, after this time its session needs another.
pub const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is asked of tokens.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// How they may be signed.
    pub algorithms: Vec<Algorithm>,
    /// By whom.
    pub keys: Vec<KeySource>,
    /// Of whom one must be in `aud`; where there is none, `aud` must not be there at all.
    pub audience: Vec<String>,
    /// Of whom one must be in `iss`, if there is any.
    pub issuer: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Which claim has the user.
    pub user_claim: Claim,
    /// Which claim has roles, and those that a token may give, the one that is preferred first.
    pub roles: Option<(Claim, Vec<Arc<str>>)>,
    /// The role of whom a token gives none.
    pub role: Option<Arc<str>>,
    /// Which claim has the realms that it is good for, if it is not for all.
    pub realm_claim: Option<Claim>,
    /// The longest one.
    pub bytes_max: usize,
}

/// Where something is said in a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim(String);

impl Claim {
    /// The name of a claim, whatever is in it; or, where it begins with a slash, a JSON pointer (RFC 6901).
    pub fn new(text: impl Into<String>) -> Claim {
        Claim(text.into())
    }

    fn of<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let Some(path) = self.0.strip_prefix('/') else { return claims.get(&self.0) };
        let unescaped = |part: &str| part.replace("~1", "/").replace("~0", "~");
        match path.split_once('/') {
            None => claims.get(&unescaped(path)),
            Some((first, _)) => claims.get(&unescaped(first))?.pointer(&path[first.len()..]),
        }
    }
}

/// The algorithm that is called so.
pub fn algorithm(word: &str) -> Option<Algorithm> {
    word.parse().ok()
}

/// Whether a secret is meant to be a token, good or not: what no password looks like.
pub fn is_token(secret: &str) -> bool {
    let is_legal = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    // An object of JSON in base64.
    (secret.starts_with("ey") || secret.starts_with("ew"))
        && secret.bytes().all(is_legal)
        && secret.bytes().filter(|&octet| octet == b'.').count() == 2
}

/// Finds out who somebody is by their token.
pub struct Tokens {
    settings: TokenSettings,
    keys: RwLock<Arc<Keys>>,
    clock: WallClock,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// Why a token lets nobody in.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    /// It is not to be believed, or is for somebody else.
    Wrong(&'static str),
    /// It was good.
    Expired,
}

impl Tokens {
    /// Reads the keys. The error says what is wrong with them.
    pub fn new(settings: TokenSettings, clock: WallClock) -> Result<Tokens, String> {
        signatures::install();
        let keys = Keys::read(&settings.keys, &settings.algorithms)?;
        Ok(Tokens { settings, keys: RwLock::new(Arc::new(keys)), clock })
    }

    /// Reads the keys again, for who comes or renews from now on; returns how many there are. On an error the old
    /// ones stay.
    pub fn reload(&self) -> Result<usize, String> {
        let keys = Keys::read(&self.settings.keys, &self.settings.algorithms)?;
        let number = keys.len();
        *self.keys.write() = Arc::new(keys);
        Ok(number)
    }

    /// Who brings this token, if they say that they are nobody else.
    pub fn judge(&self, token: &str, applicant: &Applicant) -> Result<Grant, Refusal> {
        self.weigh(token, applicant).map_err(|flaw| match flaw {
            Flaw::Wrong(why) => {
                tracing::info!(why, "token refused");
                Refusal::WrongSecret
            }
            Flaw::Expired => Refusal::TokenExpired,
        })
    }

    fn weigh(&self, token: &str, applicant: &Applicant) -> Result<Grant, Flaw> {
        let claims = self.claims(token)?;
        let lifetime = self.lifetime(&claims)?;
        let user = self.settings.user_claim.of(&claims).and_then(Value::as_str);
        let user = user.filter(|user| is_name(user)).ok_or(Flaw::Wrong("it names no user"))?;
        if !applicant.user.is_empty() && *applicant.user != *user {
            return Err(Flaw::Wrong("it is another user's"));
        }
        if let Some(claim) = &self.settings.realm_claim
            && !texts(claim.of(&claims)).any(|realm| *realm == *applicant.realm)
        {
            return Err(Flaw::Wrong("it is for another realm"));
        }
        let role = self.role(&claims)?;
        let principal =
            Principal { provider: Provider::Token, ..Principal::new(user, role, applicant.method) };
        Ok(Grant { lifetime: Some(lifetime), ..principal.into() })
    }

    /// What a token says that is signed by a key of ours, comes from whom it should and is for us.
    fn claims(&self, token: &str) -> Result<Map<String, Value>, Flaw> {
        if token.len() > self.settings.bytes_max {
            return Err(Flaw::Wrong("it is too long"));
        }
        let header = decode_header(token)
            .map_err(|_| Flaw::Wrong("its header is malformed, or its algorithm unknown"))?;
        // RFC 7515, 4.1.11: what must be understood and is not.
        if header.crit.is_some() || header.zip.is_some() || header.enc.is_some() {
            return Err(Flaw::Wrong("it asks for an extension"));
        }
        if !self.settings.algorithms.contains(&header.alg) {
            return Err(Flaw::Wrong("its algorithm is not allowed"));
        }
        let keys = self.keys.read().clone();
        let key = keys.find(header.kid.as_deref(), header.alg);
        let key = key.ok_or(Flaw::Wrong("there is no key of its kid for its algorithm"))?;
        let mut validation = Validation::new(header.alg);
        // By our clock, below.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let mut required = vec!["exp"];
        if !self.settings.audience.is_empty() {
            validation.set_audience(&self.settings.audience);
            required.push("aud");
        }
        if !self.settings.issuer.is_empty() {
            validation.set_issuer(&self.settings.issuer);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let decoded = decode(token, &key.key, &validation);
        decoded.map(|data| data.claims).map_err(|error| Flaw::Wrong(sentence(error.kind())))
    }

    /// How long it is good for from now on.
    fn lifetime(&self, claims: &Map<String, Value>) -> Result<Duration, Flaw> {
        let now = Duration::from_millis((self.clock)());
        let leeway = self.settings.leeway;
        let ends = seconds(claims.get("exp")).ok_or(Flaw::Wrong("its exp is no time"))?;
        if let Some(nbf) = claims.get("nbf") {
            let begins = seconds(Some(nbf)).ok_or(Flaw::Wrong("its nbf is no time"))?;
            if begins > now.saturating_add(leeway) {
                return Err(Flaw::Wrong("it is not good yet"));
            }
        }
        let left = ends.saturating_add(leeway).saturating_sub(now);
        if left.is_zero() { Err(Flaw::Expired) } else { Ok(left.min(LIFETIME_MAX)) }
    }

    fn role(&self, claims: &Map<String, Value>) -> Result<Arc<str>, Flaw> {
        let given = self.settings.roles.as_ref().and_then(|(claim, roles)| {
            let said = claim.of(claims);
            roles.iter().find(|role| texts(said).any(|text| *text == ***role))
        });
        given.or(self.settings.role.as_ref()).cloned().ok_or(Flaw::Wrong("it gives none of the roles"))
    }
}

/// A claim that is one text, or several.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, several) = match value {
        Some(Value::Array(list)) => (None, list.as_slice()),
        Some(value) => (value.as_str(), &[][..]),
        None => (None, &[][..]),
    };
    one.into_iter().chain(several.iter().filter_map(Value::as_str))
}

/// A NumericDate (RFC 7519, 2). What is a text is none, nor what is before 1970.
fn seconds(value: Option<&Value>) -> Option<Duration> {
    let value = value?;
    match value.as_u64() {
        Some(whole) => Some(Duration::from_secs(whole)),
        None => {
            value.as_f64().filter(|number| *number < 1e15).and_then(|s| Duration::try_from_secs_f64(s).ok())
        }
    }
}

/// What can stand in a header and a list.
fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
}

fn sentence(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => "it has no exp that is a time",
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => "it has no aud",
        ErrorKind::MissingRequiredClaim(_) => "it has no iss",
        _ => "it is malformed",
    }
}

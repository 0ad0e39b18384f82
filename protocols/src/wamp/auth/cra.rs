//! WAMP-CRA: the client signs a text of the router's with a key that both know.
//!
//! ```text
//! CHALLENGE.Extra         {challenge: text, salt?: text, iterations?: int, keylen?: int}
//! AUTHENTICATE.Signature  base64(HMAC-SHA256(key, challenge))
//! key                     the secret, or, where there is a salt,
//!                         base64(PBKDF2-HMAC-SHA256(secret, salt, iterations, keylen))
//! credential              $wamp-cra$i=ITERATIONS,l=KEYLEN$base64(salt)$key
//!                         $wamp-cra$base64(secret)
//! ```
//!
//! That the base64 text is the key, not what it stands for, is not in the specification, but what peers do.
//! The challenge is signed as it came; nobody writes it anew.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::wamp::auth::crypto::{
    Hash, ROUNDS_MAX, base64, hmac, hmac_of_user, pbkdf2, same, unbase64, unbase64_array,
};
use crate::wamp::auth::error::{AuthError, InvalidCredential};
use crate::wamp::dict::Dict;
use crate::wamp::error::Violation;
use crate::wamp::id::Id;
use crate::wamp::message::{Authenticate, Challenge};

/// The name of the method.
pub const METHOD: &str = "wampcra";

/// How many bytes a derived key may have.
pub const KEYLEN_MAX: u32 = 128;

// What a client assumes where a salted challenge leaves them out, as autobahn does.
const ITERATIONS_DEFAULT: u64 = 1000;
const KEYLEN_DEFAULT: u64 = 32;

const PREFIX: &str = "$wamp-cra$";

/// How a key is made from a password.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Derivation {
    salt: String,
    iterations: u32,
    keylen: u32,
}

impl Derivation {
    fn new(salt: &str, iterations: u64, keylen: u64) -> Result<Self, InvalidCredential> {
        let (Ok(rounds), Ok(bytes)) = (u32::try_from(iterations), u32::try_from(keylen)) else {
            return Err(InvalidCredential("iterations or keylen is too large"));
        };
        if rounds == 0 || !(1..=KEYLEN_MAX).contains(&bytes) {
            return Err(InvalidCredential("iterations must be 1 or more, keylen from 1 to 128"));
        }
        if iterations * keylen.div_ceil(32) > ROUNDS_MAX {
            return Err(InvalidCredential("this many iterations take too long"));
        }
        Ok(Self { salt: salt.to_owned(), iterations: rounds, keylen: bytes })
    }

    /// The key as it is used: a base64 text.
    fn derive(&self, password: &str) -> Zeroizing<String> {
        let mut key = Zeroizing::new([0; KEYLEN_MAX as usize]);
        let key = &mut key[..self.keylen as usize];
        pbkdf2(password.as_bytes(), self.salt.as_bytes(), self.iterations, key);
        Zeroizing::new(base64(key))
    }
}

/// What a router keeps of a user. It is a secret: who has it can pass for the user.
#[derive(Clone, PartialEq, Eq)]
pub struct CraCredential {
    key: Zeroizing<String>,
    derivation: Option<Derivation>,
}

impl CraCredential {
    /// Of a secret that is used as it is. Where people chose it, [`derive`](Self::derive) is better.
    #[must_use]
    pub fn from_secret(secret: &str) -> Self {
        Self { key: Zeroizing::new(secret.to_owned()), derivation: None }
    }

    /// Of a password, which is not kept. Slow; `keylen` is in bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidCredential`] where the numbers are beyond their limits.
    pub fn derive(
        password: &str,
        salt: &str,
        iterations: u32,
        keylen: u32,
    ) -> Result<Self, InvalidCredential> {
        let derivation = Derivation::new(salt, iterations.into(), keylen.into())?;
        Ok(Self { key: derivation.derive(password), derivation: Some(derivation) })
    }

    /// Of a key that was derived elsewhere, as the text that is the key: base64. What is not said is what autobahn
    /// takes it to be, 1000 iterations and 32 bytes.
    ///
    /// # Errors
    ///
    /// See [`derive`](Self::derive).
    pub fn from_derived(
        key: &str,
        salt: &str,
        iterations: Option<u32>,
        keylen: Option<u32>,
    ) -> Result<Self, InvalidCredential> {
        let iterations = iterations.map_or(ITERATIONS_DEFAULT, u64::from);
        let derivation = Derivation::new(salt, iterations, keylen.map_or(KEYLEN_DEFAULT, u64::from))?;
        Ok(Self { key: Zeroizing::new(key.to_owned()), derivation: Some(derivation) })
    }

    /// The same, with a salt like those of [`fake`](Self::fake). `random` is this user's only.
    ///
    /// # Errors
    ///
    /// See [`derive`](Self::derive).
    pub fn derive_with(
        password: &str,
        random: &[u8; 16],
        iterations: u32,
        keylen: u32,
    ) -> Result<Self, InvalidCredential> {
        Self::derive(password, &base64(random), iterations, keylen)
    }

    /// Of a user that there is not, with the numbers of another, or without a salt as that one.
    #[must_use]
    pub fn fake_like(model: &Self, authid: &str, server_secret: &[u8]) -> Self {
        let key = base64(&hmac_of_user(server_secret, "wampcra key", authid));
        let derivation = model.derivation.as_ref().map(|Derivation { iterations, keylen, .. }| {
            let salt = base64(&hmac_of_user(server_secret, "wampcra salt", authid)[..16]);
            Derivation { salt, iterations: *iterations, keylen: *keylen }
        });
        Self { key: Zeroizing::new(key), derivation }
    }

    /// Of a user that there is not. Nothing matches it, and its salt is always the same for one `authid`.
    /// Fitting are the numbers of the other users and salts of 16 random bytes in base64.
    ///
    /// # Errors
    ///
    /// See [`derive`](Self::derive).
    pub fn fake(
        authid: &str,
        server_secret: &[u8],
        iterations: u32,
        keylen: u32,
    ) -> Result<Self, InvalidCredential> {
        let salt = base64(&hmac_of_user(server_secret, "wampcra salt", authid)[..16]);
        let derivation = Derivation::new(&salt, iterations.into(), keylen.into())?;
        let key = base64(&hmac_of_user(server_secret, "wampcra key", authid));
        Ok(Self { key: Zeroizing::new(key), derivation: Some(derivation) })
    }
}

/// As a configuration keeps it.
impl fmt::Display for CraCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.derivation {
            Some(Derivation { salt, iterations, keylen }) => {
                let salt = base64(salt.as_bytes());
                write!(f, "{PREFIX}i={iterations},l={keylen}${salt}${}", *self.key)
            }
            None => write!(f, "{PREFIX}{}", *Zeroizing::new(base64(self.key.as_bytes()))),
        }
    }
}

impl fmt::Debug for CraCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CraCredential").field("derivation", &self.derivation).finish_non_exhaustive()
    }
}

impl FromStr for CraCredential {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, InvalidCredential> {
        let malformed = InvalidCredential("not a WAMP-CRA credential: $wamp-cra$i=...,l=...$salt$key");
        let utf8 = |text| unbase64(text).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(malformed);
        let parts: Vec<&str> = text.strip_prefix(PREFIX).ok_or(malformed)?.split('$').collect();
        match parts[..] {
            [secret] => Ok(Self { key: Zeroizing::new(utf8(secret)?), derivation: None }),
            [numbers, salt, key] => {
                let numbers = numbers.strip_prefix("i=").and_then(|rest| rest.split_once(",l="));
                let (iterations, keylen) = numbers.ok_or(malformed)?;
                let number = |text: &str| text.parse::<u32>().map(u64::from).map_err(|_| malformed);
                let derivation = Derivation::new(&utf8(salt)?, number(iterations)?, number(keylen)?)?;
                let bytes = Zeroizing::new(unbase64(key).ok_or(malformed)?);
                if bytes.len() != derivation.keylen as usize {
                    return Err(InvalidCredential("the key is not as long as it says"));
                }
                Ok(Self { key: Zeroizing::new(key.to_owned()), derivation: Some(derivation) })
            }
            _ => Err(malformed),
        }
    }
}

/// Who is to prove what, which is what a challenge says.
#[derive(Clone, Copy, Debug)]
pub struct CraSubject<'a> {
    /// Who the client says it is.
    pub authid: &'a str,
    /// The role it will get.
    pub authrole: &'a str,
    /// Who vouches for it.
    pub authprovider: &'a str,
    /// Random, and never used before.
    pub nonce: &'a str,
    /// The time, in milliseconds since the beginning of 1970.
    pub unix_ms: u64,
    /// The session that the client will get.
    pub session: Id,
}

impl CraSubject<'_> {
    fn to_json(self) -> String {
        #[derive(Serialize)]
        struct Text<'a> {
            nonce: &'a str,
            authprovider: &'a str,
            authid: &'a str,
            timestamp: String,
            authrole: &'a str,
            authmethod: &'a str,
            session: u64,
        }
        let Self { authid, authrole, authprovider, nonce, unix_ms, session } = self;
        let (timestamp, session) = (timestamp(unix_ms), session.get());
        let text = Text { nonce, authprovider, authid, timestamp, authrole, authmethod: METHOD, session };
        serde_json::to_string(&text).expect("texts and a number can be written as JSON")
    }
}

/// ISO 8601 in UTC, as in `2014-06-22T16:36:25.448Z`.
fn timestamp(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Howard Hinnant's civil_from_days: years begin in March, eras of 400 years on 0000-03-01.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year + 400 * era + u64::from(month <= 2);
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The router's challenge, and what its answer must be.
#[must_use]
pub fn challenge(credential: &CraCredential, subject: &CraSubject<'_>) -> (Challenge, CraPending) {
    let text = subject.to_json();
    let pending = CraPending { signature: hmac(credential.key.as_bytes(), text.as_bytes()) };
    let mut extra = Dict::new().with("challenge", text);
    if let Some(Derivation { salt, iterations, keylen }) = &credential.derivation {
        extra.insert("salt", salt.as_str());
        extra.insert("keylen", u64::from(*keylen));
        extra.insert("iterations", u64::from(*iterations));
    }
    (Challenge { auth_method: METHOD.to_owned(), extra }, pending)
}

/// A challenge that has not been answered.
pub struct CraPending {
    signature: Hash,
}

impl CraPending {
    /// Judges the answer; gives WELCOME.Details.authextra.
    ///
    /// # Errors
    ///
    /// [`AuthError::Denied`].
    pub fn verify(self, authenticate: &Authenticate) -> Result<Dict, AuthError> {
        match unbase64_array::<32>(&authenticate.signature) {
            Some(signature) if same(&signature, &self.signature) => Ok(Dict::new()),
            _ => Err(AuthError::Denied),
        }
    }
}

/// The client's answer. Slow where the challenge is salted.
///
/// # Errors
///
/// [`AuthError::Violation`] where the challenge is none, [`AuthError::Failed`] where the router asks for more
/// work than we do for anybody.
pub fn respond(challenge: &Challenge, secret: &str) -> Result<Authenticate, AuthError> {
    let extra = &challenge.extra;
    let text = extra.str("challenge")?.ok_or_else(|| Violation::new("challenge is missing"))?;
    let signature = match extra.str("salt")? {
        Some(salt) => {
            let iterations = extra.uint("iterations")?.unwrap_or(ITERATIONS_DEFAULT);
            let keylen = extra.uint("keylen")?.unwrap_or(KEYLEN_DEFAULT);
            let derivation = Derivation::new(salt, iterations, keylen)
                .map_err(|InvalidCredential(why)| AuthError::Failed(why))?;
            hmac(derivation.derive(secret).as_bytes(), text.as_bytes())
        }
        None => hmac(secret.as_bytes(), text.as_bytes()),
    };
    Ok(Authenticate { signature: base64(&signature), extra: Dict::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"nonce":"LHRTC9zeOIrt_9U3","authprovider":"userdb","authid":"peter","timestamp":"2014-06-22T16:36:25.448Z","authrole":"user","authmethod":"wampcra","session":3251278072152162}"#;
    const SIGNATURE: &str = "j7afhMY2h5fpvcRkCqT6ZLq9A2GD3wfFh+ChVPAKZ44=";
    const SALTED_SIGNATURE: &str = "JcWFyCIjmeX4JsHIP4n/BcCvIp9lWfLwF/C2axg9U54=";
    const DERIVED: &str = "vHa23Jd8NbCNOP6Hp53ZpCNbc2ZjLRdfB3pY1ltlL4U=";

    fn subject() -> CraSubject<'static> {
        CraSubject {
            authid: "peter",
            authrole: "user",
            authprovider: "userdb",
            nonce: "LHRTC9zeOIrt_9U3",
            unix_ms: 1_403_454_985_448,
            session: Id::new(3_251_278_072_152_162).unwrap(),
        }
    }

    fn authenticate(signature: &str) -> Authenticate {
        Authenticate { signature: signature.to_owned(), extra: Dict::new() }
    }

    fn salted() -> CraCredential {
        CraCredential::derive("cra-salt-secret", "cra-salt", 1000, 32).unwrap()
    }

    #[test]
    fn a_plain_secret_signs_the_specifications_challenge() {
        let (challenge, pending) = super::challenge(&CraCredential::from_secret("cra-secret"), &subject());
        assert_eq!(challenge.auth_method, "wampcra");
        assert_eq!(challenge.extra, Dict::new().with("challenge", TEXT));
        assert_eq!(respond(&challenge, "cra-secret").unwrap(), authenticate(SIGNATURE));
        assert_eq!(pending.verify(&authenticate(SIGNATURE)), Ok(Dict::new()));
    }

    #[test]
    fn a_salted_secret_signs_with_the_text_of_its_key() {
        assert_eq!(*salted().key, DERIVED);
        let (challenge, pending) = super::challenge(&salted(), &subject());
        let numbers = ["salt", "keylen", "iterations"].map(|key| challenge.extra.get(key).cloned().unwrap());
        assert_eq!(numbers, ["cra-salt".into(), 32_u64.into(), 1000_u64.into()]);
        assert_eq!(respond(&challenge, "cra-salt-secret").unwrap().signature, SALTED_SIGNATURE);
        assert!(pending.verify(&authenticate(SALTED_SIGNATURE)).is_ok());
    }

    /// Made with `derive_key` of autobahn-python 26.10.2.
    #[test]
    fn keys_of_other_lengths_and_letters_are_autobahns() {
        let credential = CraCredential::derive("pw-ü", "sält", 1000, 20).unwrap();
        assert_eq!(*credential.key, "sFNDFzPCb9u8v4EKAGuN1Q0bVY8=");
    }

    #[test]
    fn a_wrong_signature_is_denied() {
        let altered = SIGNATURE.replace("j7", "j8");
        for signature in ["", "j7af", &altered, SALTED_SIGNATURE, &SIGNATURE[..43], &format!("{SIGNATURE}\n")]
        {
            let (_, pending) = challenge(&CraCredential::from_secret("cra-secret"), &subject());
            assert_eq!(pending.verify(&authenticate(signature)), Err(AuthError::Denied), "{signature:?}");
        }
    }

    #[test]
    fn credentials_are_written_and_read() {
        let text = salted().to_string();
        assert_eq!(text, format!("$wamp-cra$i=1000,l=32$Y3JhLXNhbHQ=${DERIVED}"));
        assert_eq!(text.parse(), Ok(salted()));
        let plain = CraCredential::from_secret("cra$secret");
        assert_eq!(plain.to_string().parse(), Ok(plain));
        assert!(!format!("{:?}", salted()).contains(DERIVED));
        for text in [
            "",
            "cra-secret",
            "$wamp-cra$cra-secret!",
            "$wamp-cra$i=0,l=32$Y3JhLXNhbHQ=$vHa23Jd8NbCNOP6Hp53ZpCNbc2ZjLRdfB3pY1ltlL4U=",
            "$wamp-cra$i=1000,l=31$Y3JhLXNhbHQ=$vHa23Jd8NbCNOP6Hp53ZpCNbc2ZjLRdfB3pY1ltlL4U=",
            "$wamp-cra$i=1000$Y3JhLXNhbHQ=$vHa23Jd8NbCNOP6Hp53ZpCNbc2ZjLRdfB3pY1ltlL4U=",
            "$wamp-cra$i=1000,l=32$Y3JhLXNhbHQ=$vHa23Jd8NbCNOP6Hp53ZpCNbc2ZjLRdfB3pY1ltlL4U=$",
        ] {
            assert!(text.parse::<CraCredential>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_user_that_there_is_not_is_challenged_like_any_other() {
        let fake = |authid| CraCredential::fake(authid, b"server", 1000, 32).unwrap();
        assert_eq!(fake("a"), fake("a"));
        assert_ne!(fake("a").derivation, fake("b").derivation);
        let (challenge, pending) = super::challenge(&fake("a"), &subject());
        assert_eq!(pending.verify(&respond(&challenge, "").unwrap()), Err(AuthError::Denied));
    }

    #[test]
    fn a_router_cannot_make_a_client_work_for_long() {
        let challenge = |iterations: u64, keylen: u64| Challenge {
            auth_method: METHOD.to_owned(),
            extra: Dict::new()
                .with("challenge", TEXT)
                .with("salt", "s")
                .with("iterations", iterations)
                .with("keylen", keylen),
        };
        assert!(respond(&challenge(1, 128), "").is_ok());
        for (iterations, keylen) in [
            (0, 32),
            (1, 0),
            (1, 129),
            (10_000_001, 32),
            (2_500_001, 128),
            (1 << 40, 32),
            (u64::MAX, u64::MAX),
        ] {
            let error = respond(&challenge(iterations, keylen), "").unwrap_err();
            assert!(matches!(error, AuthError::Failed(_)), "{iterations} {keylen}");
        }
    }

    #[test]
    fn a_salt_alone_means_the_usual_numbers() {
        let extra = Dict::new().with("challenge", TEXT).with("salt", "cra-salt");
        let challenge = Challenge { auth_method: METHOD.to_owned(), extra };
        assert_eq!(respond(&challenge, "cra-salt-secret").unwrap().signature, SALTED_SIGNATURE);
    }

    #[test]
    fn a_challenge_without_text_is_a_violation() {
        for extra in [Dict::new(), Dict::new().with("challenge", 1_u64)] {
            let error = respond(&Challenge { auth_method: METHOD.to_owned(), extra }, "").unwrap_err();
            assert_eq!(error.uri(), "wamp.error.protocol_violation");
        }
    }

    #[test]
    fn the_time_is_written_as_iso_8601() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (4_107_542_399_001, "2100-02-28T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_798_761_599_999, "2026-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(timestamp(unix_ms), text);
        }
    }
}

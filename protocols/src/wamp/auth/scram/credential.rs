//! What a router keeps of a user, and how it comes from a password.
//!
//! ```text
//! credential  $DIALECT$pbkdf2$i=ITERATIONS$salt$StoredKey$ServerKey          all in base64
//!             $DIALECT$argon2id$i=ITERATIONS,m=KIBIBYTES$salt$StoredKey$ServerKey
//! DIALECT     wamp-scram | scram
//!
//! SaltedPassword  KDF(password, salt), 32 bytes; ClientKey  HMAC(SaltedPassword, "Client Key")
//! StoredKey       SHA-256(ClientKey);            ServerKey  HMAC(SaltedPassword, "Server Key")
//! ```

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use crate::wamp::auth::crypto::{
    Hash, ROUNDS_MAX, base64, hmac, hmac_of_user, pbkdf2, sha256, unbase64, unbase64_array, unhex,
};
use crate::wamp::auth::error::InvalidCredential;

/// How many bytes a salt may have. Argon2 wants no fewer than the least.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=128;
/// How much memory Argon2 may take, in KiB: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// How much memory Argon2 may go through in all its iterations, in KiB: 16 GiB, which takes some seconds.
const ARGON2_WORK_MAX: u64 = 1 << 24;

/// Which of the two that go by the name of SCRAM. They share nothing on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `wamp-scram`, that of the specification.
    WampScram,
    /// `scram`, that of autobahn and Crossbar.
    Scram,
}

impl Dialect {
    /// The name of the method.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::WampScram => "wamp-scram",
            Self::Scram => "scram",
        }
    }

    /// The dialect of a method.
    #[must_use]
    pub fn from_method(method: &str) -> Option<Self> {
        [Self::WampScram, Self::Scram].into_iter().find(|dialect| dialect.method() == method)
    }

    /// What goes into the KDF. Only the specification normalizes passwords.
    fn normalized(self, password: &str) -> Result<Zeroizing<String>, InvalidCredential> {
        match self {
            Self::WampScram => match stringprep::saslprep(password) {
                Ok(password) => Ok(Zeroizing::new(password.into_owned())),
                Err(_) => Err(InvalidCredential("the password has characters that SASLprep forbids")),
            },
            Self::Scram => Ok(Zeroizing::new(password.to_owned())),
        }
    }
}

/// How a key is made from a password, within what we do for anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kdf {
    function: Function,
    iterations: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Pbkdf2,
    Argon2id { memory_kib: u32 },
}

impl Kdf {
    /// PBKDF2-HMAC-SHA256.
    ///
    /// # Errors
    ///
    /// [`InvalidCredential`] where it would take too long, or has no iteration at all.
    pub fn pbkdf2(iterations: u32) -> Result<Self, InvalidCredential> {
        if iterations == 0 || u64::from(iterations) > ROUNDS_MAX {
            return Err(InvalidCredential("PBKDF2 takes from 1 to 10 million iterations"));
        }
        Ok(Self { function: Function::Pbkdf2, iterations })
    }

    /// Argon2id, version 1.3, in one lane.
    ///
    /// # Errors
    ///
    /// [`InvalidCredential`] where it would take too long or too much memory, or too little of either.
    pub fn argon2id(iterations: u32, memory_kib: u32) -> Result<Self, InvalidCredential> {
        if iterations == 0 || !(Params::MIN_M_COST..=MEMORY_KIB_MAX).contains(&memory_kib) {
            return Err(InvalidCredential(
                "Argon2id takes 1 or more iterations and 8 KiB to 1 GiB of memory",
            ));
        }
        if u64::from(iterations) * u64::from(memory_kib) > ARGON2_WORK_MAX {
            return Err(InvalidCredential("Argon2id would go through more than 16 GiB of memory"));
        }
        Ok(Self { function: Function::Argon2id { memory_kib }, iterations })
    }

    /// Of a challenge.
    pub(super) fn from_wire(
        dialect: Dialect,
        name: &str,
        iterations: u64,
        memory_kib: Option<u64>,
    ) -> Result<Self, InvalidCredential> {
        let number = |n| u32::try_from(n).map_err(|_| InvalidCredential("the KDF costs too much"));
        match (dialect, name) {
            (_, "pbkdf2") => Self::pbkdf2(number(iterations)?),
            (Dialect::WampScram, "argon2id13") | (Dialect::Scram, "argon2id-13") => {
                let memory_kib = memory_kib.ok_or(InvalidCredential("Argon2id needs to know its memory"))?;
                Self::argon2id(number(iterations)?, number(memory_kib)?)
            }
            _ => Err(InvalidCredential("there is no such KDF")),
        }
    }

    /// Its name in a challenge.
    pub(super) fn name(self, dialect: Dialect) -> &'static str {
        match (self.function, dialect) {
            (Function::Pbkdf2, _) => "pbkdf2",
            (Function::Argon2id { .. }, Dialect::WampScram) => "argon2id13",
            (Function::Argon2id { .. }, Dialect::Scram) => "argon2id-13",
        }
    }

    /// How often it is repeated.
    #[must_use]
    pub fn iterations(self) -> u32 {
        self.iterations
    }

    /// How much memory it takes; none to speak of for PBKDF2.
    #[must_use]
    pub fn memory_kib(self) -> Option<u32> {
        match self.function {
            Function::Pbkdf2 => None,
            Function::Argon2id { memory_kib } => Some(memory_kib),
        }
    }

    /// Whether a password that is proven with it could be guessed by a router that only plays one: less than
    /// 4096 iterations (RFC 7677, section 4), or less than 4 MiB gone through.
    #[must_use]
    pub fn is_weak(self) -> bool {
        u64::from(self.iterations) * u64::from(self.memory_kib().unwrap_or(1)) < 4096
    }

    fn derive(self, password: &[u8], salt: &[u8]) -> Result<Zeroizing<Hash>, InvalidCredential> {
        let mut key = Zeroizing::new(Hash::default());
        match self.function {
            Function::Pbkdf2 => pbkdf2(password, salt, self.iterations, &mut *key),
            Function::Argon2id { memory_kib } => {
                let failed = |_| InvalidCredential("Argon2id cannot be computed here");
                let params = Params::new(memory_kib, self.iterations, 1, Some(key.len())).map_err(failed)?;
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(password, salt, &mut *key).map_err(failed)?;
            }
        }
        Ok(key)
    }
}

/// What a client has when it knows the password. Gone with zeros.
pub(super) struct Keys {
    pub(super) client_key: Zeroizing<Hash>,
    pub(super) stored_key: Hash,
    pub(super) server_key: Hash,
}

impl Keys {
    /// Slow.
    pub(super) fn derive(
        dialect: Dialect,
        kdf: Kdf,
        password: &str,
        salt: &[u8],
    ) -> Result<Self, InvalidCredential> {
        if !SALT_BYTES.contains(&salt.len()) {
            return Err(InvalidCredential("a salt has from 8 to 128 bytes"));
        }
        let password = dialect.normalized(password)?;
        let hash = kdf.derive(password.as_bytes(), salt)?;
        // autobahn takes the text of an Argon2 hash, without padding, for the hash.
        let text = Zeroizing::new(base64(&*hash));
        let salted = match (dialect, kdf.function) {
            (Dialect::Scram, Function::Argon2id { .. }) => text.trim_end_matches('=').as_bytes(),
            _ => &*hash,
        };
        let client_key = Zeroizing::new(hmac(salted, b"Client Key"));
        let stored_key = sha256(&*client_key);
        Ok(Self { client_key, stored_key, server_key: hmac(salted, b"Server Key") })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.server_key.zeroize();
    }
}

/// What a router keeps of a user. Who has it can pass for the router, not for the user.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    dialect: Dialect,
    kdf: Kdf,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Hash,
    pub(super) server_key: Hash,
}

impl ScramCredential {
    /// Of a password, which is not kept. Slow. `salt` is random and this user's only; 16 bytes are usual.
    ///
    /// # Errors
    ///
    /// [`InvalidCredential`] where the password or the salt cannot be used.
    pub fn derive(
        dialect: Dialect,
        kdf: Kdf,
        password: &str,
        salt: &[u8],
    ) -> Result<Self, InvalidCredential> {
        let keys = Keys::derive(dialect, kdf, password, salt)?;
        Self::from_keys(dialect, kdf, salt, keys.stored_key, keys.server_key)
    }

    /// Of keys that were derived elsewhere: Crossbar keeps them, and the salt, in hexadecimal.
    ///
    /// # Errors
    ///
    /// [`InvalidCredential`] where the salt is too short or too long.
    pub fn from_keys(
        dialect: Dialect,
        kdf: Kdf,
        salt: &[u8],
        stored_key: [u8; 32],
        server_key: [u8; 32],
    ) -> Result<Self, InvalidCredential> {
        if !SALT_BYTES.contains(&salt.len()) {
            return Err(InvalidCredential("a salt has from 8 to 128 bytes"));
        }
        Ok(Self { dialect, kdf, salt: salt.to_owned(), stored_key, server_key })
    }

    /// The same, as Crossbar's authenticators give them: the KDF by its name in this dialect, the salt and the keys
    /// in hexadecimal.
    ///
    /// # Errors
    ///
    /// [`InvalidCredential`] where something of it is none.
    pub fn from_hex(
        dialect: Dialect,
        kdf: (&str, u32, Option<u32>),
        salt: &str,
        stored_key: &str,
        server_key: &str,
    ) -> Result<Self, InvalidCredential> {
        let (name, iterations, memory_kib) = kdf;
        let kdf = Kdf::from_wire(dialect, name, iterations.into(), memory_kib.map(u64::from))?;
        let key = |text| unhex(text).ok_or(InvalidCredential("a key is not 64 hexadecimal digits"));
        let octets: Option<Vec<u8>> = (0..salt.len())
            .step_by(2)
            .map(|at| unhex::<1>(salt.get(at..at + 2)?).map(|[octet]| octet))
            .collect();
        let salt = octets.ok_or(InvalidCredential("the salt is not in hexadecimal"))?;
        Self::from_keys(dialect, kdf, &salt, key(stored_key)?, key(server_key)?)
    }

    /// Of a user that there is not. Nothing matches it, and its salt, of 16 bytes, is always the same for one
    /// `authid`. Fitting are the dialect and the KDF of the other users.
    #[must_use]
    pub fn fake(dialect: Dialect, kdf: Kdf, authid: &str, server_secret: &[u8]) -> Self {
        let secret = |purpose| hmac_of_user(server_secret, purpose, authid);
        let salt = secret("scram salt")[..16].to_owned();
        let (stored_key, server_key) = (secret("scram stored key"), secret("scram server key"));
        Self { dialect, kdf, salt, stored_key, server_key }
    }

    /// How the key was made.
    #[must_use]
    pub fn kdf(&self) -> Kdf {
        self.kdf
    }

    /// Whether the user can log in by this dialect: its own, and with PBKDF2 also by the other, where the
    /// password needed no normalizing.
    #[must_use]
    pub fn serves(&self, dialect: Dialect) -> bool {
        self.dialect == dialect || self.kdf.function == Function::Pbkdf2
    }
}

impl Drop for ScramCredential {
    fn drop(&mut self) {
        self.server_key.zeroize();
        self.stored_key.zeroize();
    }
}

/// As a configuration keeps it.
impl fmt::Display for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Cow<'_, str> = match self.kdf.function {
            Function::Pbkdf2 => format!("pbkdf2$i={}", self.kdf.iterations).into(),
            Function::Argon2id { memory_kib } => {
                format!("argon2id$i={},m={memory_kib}", self.kdf.iterations).into()
            }
        };
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|bytes| Zeroizing::new(base64(bytes)));
        write!(f, "${}${numbers}${}${}${}", self.dialect.method(), *salt, *stored, *server)
    }
}

impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ScramCredential");
        debug.field("dialect", &self.dialect).field("kdf", &self.kdf).finish_non_exhaustive()
    }
}

impl FromStr for ScramCredential {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, InvalidCredential> {
        let malformed = InvalidCredential(
            "not a SCRAM credential: $wamp-scram$argon2id$i=...,m=...$salt$stored key$server key",
        );
        let number = |text: &str| text.parse::<u32>().map_err(|_| malformed);
        let parts: Vec<&str> = text.split('$').collect();
        let ["", dialect, function, numbers, salt, stored_key, server_key] = parts[..] else {
            return Err(malformed);
        };
        let numbers = numbers.strip_prefix("i=").ok_or(malformed)?;
        let kdf = match (function, numbers.split_once(",m=")) {
            ("pbkdf2", None) => Kdf::pbkdf2(number(numbers)?)?,
            ("argon2id", Some((iterations, memory))) => Kdf::argon2id(number(iterations)?, number(memory)?)?,
            _ => return Err(malformed),
        };
        let key = |text| unbase64_array::<32>(text).ok_or(malformed);
        Self::from_keys(
            Dialect::from_method(dialect).ok_or(malformed)?,
            kdf,
            &unbase64(salt).ok_or(malformed)?,
            key(stored_key)?,
            key(server_key)?,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wamp::auth::crypto::{hex, unhex};

    /// Made with `AuthScram` of autobahn-python 26.10.2: the keys of the hash that its `on_challenge` left.
    #[test]
    fn argon2_keys_of_the_scram_dialect_are_autobahns() {
        let kdf = Kdf::argon2id(8, 512).unwrap();
        for (password, stored, server) in [
            (
                "pencil",
                "e32b466dff1dca77c32182c5243f0495b9e8bec341bb9eaadc9c1691804f600b",
                "ef9847a7f116609201cb1343ca1903691a42fc8ad9a1dce4cfe062cb2fcdd2a8",
            ),
            // Not normalized: U+00AD would vanish.
            (
                "pencil\u{ad}",
                "91427f286646d710e9f81d17a2e798dc192a01a7c540a34233ba1070f2f61f9f",
                "81c2d9c7f18ee591b5faf0c262092b71b2ab68e0276727c9e85af0888424342e",
            ),
        ] {
            let credential =
                ScramCredential::derive(Dialect::Scram, kdf, password, b"saltsaltsaltsalt").unwrap();
            assert_eq!(hex(&credential.stored_key), stored);
            assert_eq!(hex(&credential.server_key), server);
        }
    }

    /// Made with `derive_scram_credential("user@example.com", "pencil")` of autobahn-python 26.10.2. Going
    /// through 2 GiB of memory takes 20 seconds without optimizations.
    #[test]
    #[cfg_attr(debug_assertions, ignore = "slow without optimizations: run with --release")]
    fn derive_scram_credential_of_autobahn_gives_the_same() {
        let kdf = Kdf::argon2id(4096, 512).unwrap();
        let salt = &sha256(b"user@example.com")[..16];
        let credential = ScramCredential::derive(Dialect::Scram, kdf, "pencil", salt).unwrap();
        assert_eq!(hex(salt), "b4c9a289323b21a01c3e940f150eb9b8");
        let stored = unhex("790b5d2565f93f8d04d81ddfdd902247d35e3981f1cc73f7e7170990e8486a6a").unwrap();
        let server = unhex("45b01f496524cced5bf1cceda9846df0f3c2743d97ff17aef227135811c43a60").unwrap();
        assert_eq!(ScramCredential::from_keys(Dialect::Scram, kdf, salt, stored, server), Ok(credential));
    }

    #[test]
    fn a_password_is_normalized_by_the_specifications_dialect_only() {
        let kdf = Kdf::pbkdf2(1).unwrap();
        let key = |dialect, password| {
            ScramCredential::derive(dialect, kdf, password, b"saltsalt")
                .map(|credential| credential.stored_key)
        };
        assert_eq!(key(Dialect::WampScram, "p\u{2168}\u{ad}"), key(Dialect::WampScram, "pIX"));
        assert_ne!(key(Dialect::Scram, "p\u{2168}\u{ad}"), key(Dialect::Scram, "pIX"));
        assert!(key(Dialect::WampScram, "\u{7}").is_err() && key(Dialect::Scram, "\u{7}").is_ok());
    }

    #[test]
    fn credentials_are_written_and_read() {
        let salt = b"saltsaltsaltsalt";
        for (dialect, kdf, start) in [
            (
                Dialect::WampScram,
                Kdf::pbkdf2(4096).unwrap(),
                "$wamp-scram$pbkdf2$i=4096$c2FsdHNhbHRzYWx0c2FsdA==$",
            ),
            (
                Dialect::Scram,
                Kdf::argon2id(8, 64).unwrap(),
                "$scram$argon2id$i=8,m=64$c2FsdHNhbHRzYWx0c2FsdA==$",
            ),
        ] {
            let credential = ScramCredential::derive(dialect, kdf, "pencil", salt).unwrap();
            assert!(credential.to_string().starts_with(start), "{credential}");
            assert!(!format!("{credential:?}").contains(&base64(&credential.server_key)));
            assert_eq!(credential.to_string().parse(), Ok(credential));
        }
    }

    #[test]
    fn a_credential_is_made_of_what_crossbar_keeps() {
        let (salt, key) = ("73616c7473616c74", "0A".repeat(32));
        let made = |kdf, salt, stored| ScramCredential::from_hex(Dialect::Scram, kdf, salt, stored, &key);
        let kdf = ("argon2id-13", 8, Some(64));
        let right = Kdf::argon2id(8, 64).unwrap();
        let same = ScramCredential::from_keys(Dialect::Scram, right, b"saltsalt", [10; 32], [10; 32]);
        assert_eq!(made(kdf, salt, &key), same);
        for wrong in ["", "73616c7473616c7", "saltsaltsaltsalt", "736\u{e9}c7473616c74", "7361"] {
            assert!(made(kdf, wrong, &key).is_err(), "{wrong}");
        }
        assert!(made(kdf, salt, &key[1..]).is_err());
        for wrong in
            [("argon2id-13", 8, None), ("argon2id13", 8, Some(64)), ("pbkdf2", 0, None), ("x", 1, None)]
        {
            assert!(made(wrong, salt, &key).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_credential_is_refused() {
        let key = base64(&[1; 32]);
        for (start, salt, stored) in [
            ("$wamp-scram$pbkdf2$i=4096$", "c2FsdHNhbHQ=", &key[1..]),
            ("$wamp-scram$pbkdf2$i=4096$", "c2FsdA==", &key[..]),
            ("$wamp-scram$pbkdf2$i=4096,m=8$", "c2FsdHNhbHQ=", &key),
            ("$wamp-scram$pbkdf2$i=0$", "c2FsdHNhbHQ=", &key),
            ("$wamp-scram$pbkdf2$i=10000001$", "c2FsdHNhbHQ=", &key),
            ("$wamp-scram$argon2id$i=1$", "c2FsdHNhbHQ=", &key),
            ("$wamp-scram$argon2id$i=1,m=7$", "c2FsdHNhbHQ=", &key),
            ("$wamp-scram$argon2id$i=1,m=1048577$", "c2FsdHNhbHQ=", &key),
            ("$wamp-scram$argon2id$i=17,m=1048576$", "c2FsdHNhbHQ=", &key),
            ("$scram-sha-1$pbkdf2$i=4096$", "c2FsdHNhbHQ=", &key),
            ("wamp-scram$pbkdf2$i=4096$", "c2FsdHNhbHQ=", &key),
        ] {
            let text = format!("{start}{salt}${stored}${key}");
            assert!(text.parse::<ScramCredential>().is_err(), "{text}");
        }
        let text = format!("$wamp-scram$argon2id$i=16,m=1048576$c2FsdHNhbHQ=${key}${key}");
        assert!(text.parse::<ScramCredential>().is_ok());
    }
}

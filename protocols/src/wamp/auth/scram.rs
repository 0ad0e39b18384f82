//! SCRAM: the client proves that it knows a password, and the router that it knows of it. Neither is sent.
//!
//! ```text
//! HELLO.authextra         {nonce: text, channel_binding?: text}
//! CHALLENGE.Extra         {nonce: text, salt: base64, kdf: text, iterations: int, memory?: KiB,
//!                          channel_binding?: text}
//! AUTHENTICATE.Signature  base64(ClientProof)
//! AUTHENTICATE.Extra      {nonce: text, channel_binding?: text, cbind_data?: base64}
//! WELCOME.authextra       {verifier: "v=" base64(ServerSignature)}
//!
//! AuthMessage      n=USER,r=CLIENT-NONCE,r=NONCE,s=SALT,i=ITERATIONS,c=BINDING,r=NONCE
//! BINDING          base64("n,," | "p=" NAME ",," DATA)
//! ClientProof      ClientKey XOR HMAC(StoredKey, AuthMessage)
//! ServerSignature  HMAC(ServerKey, AuthMessage)
//! ```
//!
//! So the specification, by the name of `wamp-scram`. autobahn and Crossbar speak a [`Dialect`] of their own,
//! `scram`: the router's nonce is base64 of the client's bytes and its own; BINDING is nothing at all, and
//! no channel is ever bound; USER is not escaped; AUTHENTICATE.Extra is empty; the router proves itself as
//! `scram_server_signature`, without `v=`; an unknown key in CHALLENGE.Extra, or a null, is an error. With
//! PBKDF2 autobahn-python 26.10.2 fails before it answers, for it hands the salt on undecoded.
//!
//! Deviations: a nonce of `wamp-scram` may have all characters of RFC 5802, not only those of base64, and of
//! bindings there is also `tls-exporter`. Null keys are left out, as is `channel_binding` in a challenge that
//! has none.

mod credential;

use crate::wamp::auth::channel::ChannelBinding;
use crate::wamp::auth::crypto::{Hash, base64, hmac, same, sha256, unbase64, unbase64_array, xor};
use crate::wamp::auth::error::{AuthError, InvalidCredential};
use crate::wamp::dict::Dict;
use crate::wamp::error::Violation;
use crate::wamp::message::{Authenticate, Challenge};
use crate::wamp::options::HelloDetails;

use credential::Keys;
pub use credential::{Dialect, Kdf, ScramCredential};

/// How long a nonce may be, in bytes.
pub const NONCE_BYTES_MAX: usize = 256;

fn normalized_authid(authid: &str) -> Result<String, Violation> {
    match stringprep::saslprep(authid) {
        Ok(authid) => Ok(authid.into_owned()),
        Err(_) => Err(Violation::new("authid has characters that SASLprep forbids")),
    }
}

/// What the two proofs are about.
struct Exchange<'a> {
    dialect: Dialect,
    /// Normalized.
    authid: &'a str,
    client_nonce: &'a str,
    nonce: &'a str,
    salt: &'a str,
    iterations: u32,
    binding: Option<ChannelBinding<'a>>,
}

impl Exchange<'_> {
    /// RFC 5802, section 3.
    fn auth_message(&self) -> String {
        let Self { dialect, authid, client_nonce, nonce, salt, iterations, .. } = self;
        let (user, binding) = match dialect {
            Dialect::WampScram => (authid.replace('=', "=3D").replace(',', "=2C"), self.binding_input()),
            Dialect::Scram => ((*authid).to_owned(), String::new()),
        };
        format!("n={user},r={client_nonce},r={nonce},s={salt},i={iterations},c={binding},r={nonce}")
    }

    fn binding_input(&self) -> String {
        match self.binding {
            None => base64(b"n,,"),
            Some(ChannelBinding { kind, data }) => {
                base64(&[b"p=", kind.as_str().as_bytes(), b",,", data].concat())
            }
        }
    }
}

/// What a client says in HELLO.
#[derive(Clone, Debug)]
pub struct ScramHello<'a> {
    dialect: Dialect,
    authid: String,
    nonce: &'a str,
    /// The bytes of the nonce, where the dialect needs them.
    nonce_bytes: Vec<u8>,
    binding: Option<&'a str>,
}

impl<'a> ScramHello<'a> {
    /// Reads HELLO.Details, for the method that was chosen of those that the client can do.
    ///
    /// # Errors
    ///
    /// [`AuthError::Required`] where the authid or the nonce is missing, [`AuthError::Violation`] where one
    /// is malformed.
    pub fn parse(dialect: Dialect, details: &HelloDetails<'a>) -> Result<Self, AuthError> {
        let authid = normalized_authid(details.authid.unwrap_or_default())?;
        if authid.is_empty() {
            return Err(AuthError::Required("authid"));
        }
        let authextra = details.authextra.ok_or(AuthError::Required("authextra.nonce"))?;
        let nonce = authextra.str("nonce")?.ok_or(AuthError::Required("authextra.nonce"))?;
        let nonce_bytes = match dialect {
            Dialect::WampScram => Some(Vec::new()),
            Dialect::Scram => unbase64(nonce),
        };
        // A comma would let a nonce pass for what follows it.
        let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        match nonce_bytes {
            Some(nonce_bytes) if printable && (1..=NONCE_BYTES_MAX).contains(&nonce.len()) => {
                let binding = authextra.str("channel_binding")?;
                Ok(Self { dialect, authid, nonce, nonce_bytes, binding })
            }
            _ => Err(Violation::new("authextra.nonce is no nonce").into()),
        }
    }

    /// Who the client says it is, normalized: the name to look for.
    #[must_use]
    pub fn authid(&self) -> &str {
        &self.authid
    }

    /// The router's challenge, and what its answer must be. `random` is never to be used again; `available`
    /// is what the connection can be bound by. For an unknown user, and for one whose credential does not
    /// [serve](ScramCredential::serves) the dialect, take [`ScramCredential::fake`], lest the two differ.
    ///
    /// # Errors
    ///
    /// [`AuthError::Failed`] where the client asks for a binding that there is not, or where the credential
    /// does not serve this dialect.
    pub fn challenge(
        &self,
        credential: &ScramCredential,
        random: &[u8; 16],
        available: &[ChannelBinding<'_>],
    ) -> Result<(Challenge, ScramPending), AuthError> {
        let nonce = match self.dialect {
            Dialect::WampScram => format!("{}{}", self.nonce, base64(random)),
            Dialect::Scram => base64(&[&self.nonce_bytes[..], random].concat()),
        };
        self.challenge_with(credential, nonce, available)
    }

    fn challenge_with(
        &self,
        credential: &ScramCredential,
        nonce: String,
        available: &[ChannelBinding<'_>],
    ) -> Result<(Challenge, ScramPending), AuthError> {
        let dialect = self.dialect;
        if !credential.serves(dialect) {
            return Err(AuthError::Failed("the user cannot log in by this dialect of SCRAM"));
        }
        let binding = match (self.binding, dialect) {
            (None, _) => None,
            (Some(name), Dialect::WampScram) => ChannelBinding::find(available, name),
            (Some(_), Dialect::Scram) => None,
        };
        if self.binding.is_some() && binding.is_none() {
            return Err(AuthError::Failed("the channel binding is not available"));
        }
        let (kdf, salt) = (credential.kdf(), base64(&credential.salt));
        let mut extra = Dict::new()
            .with("nonce", nonce.as_str())
            .with("salt", salt.as_str())
            .with("kdf", kdf.name(dialect))
            .with("iterations", u64::from(kdf.iterations()));
        if let Some(memory) = kdf.memory_kib() {
            extra.insert("memory", u64::from(memory));
        }
        if let Some(binding) = binding {
            extra.insert("channel_binding", binding.kind.as_str());
        }
        let (authid, client_nonce) = (&self.authid, self.nonce);
        let iterations = kdf.iterations();
        let auth_message =
            Exchange { dialect, authid, client_nonce, nonce: &nonce, salt: &salt, iterations, binding }
                .auth_message();
        let pending = ScramPending {
            dialect,
            stored_key: credential.stored_key,
            client_signature: hmac(&credential.stored_key, auth_message.as_bytes()),
            server_signature: hmac(&credential.server_key, auth_message.as_bytes()),
            nonce,
            binding: binding.map(|binding| (binding.kind.as_str(), base64(binding.data))),
        };
        Ok((Challenge { auth_method: dialect.method().to_owned(), extra }, pending))
    }
}

/// A challenge that has not been answered.
pub struct ScramPending {
    dialect: Dialect,
    stored_key: Hash,
    client_signature: Hash,
    server_signature: Hash,
    nonce: String,
    /// Its name and its bytes in base64.
    binding: Option<(&'static str, String)>,
}

impl ScramPending {
    /// Judges the answer; gives WELCOME.Details.authextra, by which the router proves itself.
    ///
    /// # Errors
    ///
    /// [`AuthError::Denied`], or [`AuthError::Violation`] where a key of Extra has a wrong type.
    pub fn verify(self, authenticate: &Authenticate) -> Result<Dict, AuthError> {
        let extra = &authenticate.extra;
        let repeats = match self.dialect {
            Dialect::WampScram => {
                let binding = self.binding.as_ref().map(|(name, data)| (*name, data.as_str()));
                extra.str("nonce")? == Some(&self.nonce)
                    && extra.str("channel_binding")? == binding.map(|(name, _)| name)
                    && extra.str("cbind_data")? == binding.map(|(_, data)| data)
            }
            Dialect::Scram => true,
        };
        let proof = unbase64_array::<32>(&authenticate.signature).ok_or(AuthError::Denied)?;
        let stored_key = sha256(&xor(proof, &self.client_signature));
        if !repeats || !same(&stored_key, &self.stored_key) {
            return Err(AuthError::Denied);
        }
        let signature = base64(&self.server_signature);
        Ok(match self.dialect {
            Dialect::WampScram => Dict::new().with("verifier", format!("v={signature}")),
            Dialect::Scram => Dict::new().with("scram_server_signature", signature),
        })
    }
}

/// The client's side, from HELLO to AUTHENTICATE; the router's challenge tells the dialect.
#[derive(Clone, Debug)]
pub struct ScramClient<'a> {
    authid: String,
    nonce: String,
    binding: Option<ChannelBinding<'a>>,
}

impl<'a> ScramClient<'a> {
    /// A client that calls itself so. `random` is never to be used again.
    ///
    /// # Errors
    ///
    /// [`AuthError::Violation`] where SASLprep forbids the authid.
    pub fn new(authid: &str, random: &[u8; 16]) -> Result<Self, AuthError> {
        Ok(Self { authid: normalized_authid(authid)?, nonce: base64(random), binding: None })
    }

    /// The same, and its proof is bound to the connection. Of the dialects only `wamp-scram` can do that.
    #[must_use]
    pub fn with_binding(mut self, binding: ChannelBinding<'a>) -> Self {
        self.binding = Some(binding);
        self
    }

    /// HELLO.Details.authid.
    #[must_use]
    pub fn authid(&self) -> &str {
        &self.authid
    }

    /// HELLO.Details.authextra.
    #[must_use]
    pub fn authextra(&self) -> Dict {
        let mut authextra = Dict::new().with("nonce", self.nonce.as_str());
        if let Some(binding) = &self.binding {
            authextra.insert("channel_binding", binding.kind.as_str());
        }
        authextra
    }

    /// The client's answer, and what will tell a router that knows the user. Slow.
    ///
    /// # Errors
    ///
    /// [`AuthError::Violation`] where the challenge is none, [`AuthError::RouterDenied`] where it answers
    /// another HELLO, [`AuthError::Failed`] where the key would cost too much or so little that the router
    /// could guess the password ([`Kdf::is_weak`]), or where the channel is not bound as it was asked for.
    pub fn respond(
        &self,
        challenge: &Challenge,
        password: &str,
    ) -> Result<(Authenticate, ScramExpectation), AuthError> {
        let dialect = Dialect::from_method(&challenge.auth_method)
            .ok_or_else(|| Violation::new("the challenge is not one of SCRAM"))?;
        let text = |key| {
            let text = challenge.extra.str(key)?;
            text.ok_or_else(|| AuthError::from(Violation::new(format!("{key} is missing"))))
        };
        let (nonce, salt) = (text("nonce")?, text("salt")?);
        self.check_nonce(dialect, nonce)?;
        let kdf = read_kdf(dialect, text("kdf")?, &challenge.extra)?;
        match dialect {
            Dialect::WampScram => self.check_binding(&challenge.extra)?,
            Dialect::Scram => ChannelBinding::confirm(None, &self.authextra())?,
        }
        let salt_bytes = unbase64(salt).ok_or_else(|| Violation::new("salt is not base64"))?;
        let keys = Keys::derive(dialect, kdf, password, &salt_bytes)
            .map_err(|InvalidCredential(why)| AuthError::Failed(why))?;

        let (authid, client_nonce, binding) = (&*self.authid, &*self.nonce, self.binding);
        let iterations = kdf.iterations();
        let auth_message =
            Exchange { dialect, authid, client_nonce, nonce, salt, iterations, binding }.auth_message();
        let client_signature = hmac(&keys.stored_key, auth_message.as_bytes());
        let signature = base64(&xor(*keys.client_key, &client_signature));
        let server_signature = hmac(&keys.server_key, auth_message.as_bytes());
        let authenticate = Authenticate { signature, extra: self.answer_extra(dialect, nonce) };
        Ok((authenticate, ScramExpectation { dialect, server_signature }))
    }

    /// The router's nonce goes on from the client's: text from text, or bytes from bytes.
    fn check_nonce(&self, dialect: Dialect, nonce: &str) -> Result<(), AuthError> {
        let goes_on = match dialect {
            Dialect::WampScram => nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce),
            Dialect::Scram => match (unbase64(nonce), unbase64(&self.nonce)) {
                (Some(whole), Some(own)) => whole.len() > own.len() && whole.starts_with(&own),
                _ => false,
            },
        };
        if goes_on { Ok(()) } else { Err(AuthError::RouterDenied) }
    }

    /// The specification's challenge does not repeat the binding. Where a router does, it must be the same.
    fn check_binding(&self, extra: &Dict) -> Result<(), AuthError> {
        match extra.get("channel_binding") {
            Some(_) => ChannelBinding::confirm(self.binding, extra),
            None => Ok(()),
        }
    }

    fn answer_extra(&self, dialect: Dialect, nonce: &str) -> Dict {
        match (dialect, self.binding) {
            (Dialect::Scram, _) => Dict::new(),
            (Dialect::WampScram, None) => Dict::new().with("nonce", nonce),
            (Dialect::WampScram, Some(ChannelBinding { kind, data })) => Dict::new()
                .with("nonce", nonce)
                .with("channel_binding", kind.as_str())
                .with("cbind_data", base64(data)),
        }
    }
}

/// The KDF of a challenge, where it is one that a client does.
fn read_kdf(dialect: Dialect, name: &str, extra: &Dict) -> Result<Kdf, AuthError> {
    let iterations = extra.uint("iterations")?.ok_or_else(|| Violation::new("iterations is missing"))?;
    let kdf = Kdf::from_wire(dialect, name, iterations, extra.uint("memory")?)
        .map_err(|InvalidCredential(why)| AuthError::Failed(why))?;
    if kdf.is_weak() {
        return Err(AuthError::Failed("the router asks for so little work that it could guess the password"));
    }
    Ok(kdf)
}

/// What a router that knows the user says in WELCOME.
pub struct ScramExpectation {
    dialect: Dialect,
    server_signature: Hash,
}

impl ScramExpectation {
    /// Judges WELCOME.Details.authextra.
    ///
    /// # Errors
    ///
    /// [`AuthError::RouterDenied`], or [`AuthError::Violation`] where the proof is no text.
    pub fn verify(self, authextra: Option<&Dict>) -> Result<(), AuthError> {
        let authextra = authextra.ok_or(AuthError::RouterDenied)?;
        let signature = match self.dialect {
            Dialect::WampScram => authextra.str("verifier")?.and_then(|text| text.strip_prefix("v=")),
            Dialect::Scram => authextra.str("scram_server_signature")?,
        };
        match signature.and_then(unbase64_array::<32>) {
            Some(signature) if same(&signature, &self.server_signature) => Ok(()),
            _ => Err(AuthError::RouterDenied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wamp::auth::channel::BindingKind;
    use crate::wamp::dict::Value;

    const OWN: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const ROUTERS: [u8; 16] = [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];
    const SALT: &[u8] = b"saltsaltsaltsalt";
    const EXPORTED: [u8; 32] = {
        let mut bytes = [0; 32];
        let mut i = 0;
        while i < 32 {
            bytes[i] = i as u8;
            i += 1;
        }
        bytes
    };
    const EXPORTER: ChannelBinding<'static> =
        ChannelBinding { kind: BindingKind::TlsExporter, data: &EXPORTED };

    fn parse<'a>(
        dialect: Dialect,
        authid: &'a str,
        authextra: &'a Dict,
    ) -> Result<ScramHello<'a>, AuthError> {
        let (roles, authmethods, authrole, agent) = Default::default();
        let (authid, authextra) = (Some(authid), Some(authextra));
        ScramHello::parse(dialect, &HelloDetails { roles, authmethods, authid, authrole, authextra, agent })
    }

    /// Both kinds of key with each dialect, as cheap as clients take them.
    fn credentials() -> Vec<(Dialect, ScramCredential)> {
        let kdfs = [Kdf::pbkdf2(4096).unwrap(), Kdf::argon2id(8, 512).unwrap()];
        [Dialect::WampScram, Dialect::Scram]
            .into_iter()
            .flat_map(|dialect| kdfs.map(|kdf| (dialect, kdf)))
            .map(|(dialect, kdf)| (dialect, ScramCredential::derive(dialect, kdf, "pencil", SALT).unwrap()))
            .collect()
    }

    /// RFC 7677, section 3; then the nonces and the salt that the advanced profile prints, beside which it has
    /// the RFC's proof: the values here are of a SCRAM written with Python's hashlib.
    #[test]
    fn vectors_of_the_specification_hold() {
        for (own, routers, salt, proof, verifier) in [
            (
                "rOprNGfwEbeRWgbNEkqO",
                "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
            (
                "egVDf3DMJh0=",
                "egVDf3DMJh0=SBmkFIh7sSo=",
                "aBc+fx0NAVA=",
                "L1uwjEEL7BdbtlWMKxNcQ1A/CmNjct+7xdAguB/rpnA=",
                "v=AyTAljdPHv74Zx+gn+6DqiFnl4XOZUXpC7k/pSkjBOg=",
            ),
        ] {
            let kdf = Kdf::pbkdf2(4096).unwrap();
            let salt = unbase64(salt).unwrap();
            let credential = ScramCredential::derive(Dialect::WampScram, kdf, "pencil", &salt).unwrap();
            let client = ScramClient { authid: "user".to_owned(), nonce: own.to_owned(), binding: None };
            let authextra = client.authextra().with("channel_binding", Value::Null);
            let hello = parse(Dialect::WampScram, "user", &authextra).unwrap();
            let (challenge, pending) = hello.challenge_with(&credential, routers.to_owned(), &[]).unwrap();
            let (answer, expectation) = client.respond(&challenge, "pencil").unwrap();
            assert_eq!(answer.signature, proof);
            let nulls =
                answer.extra.clone().with("channel_binding", Value::Null).with("cbind_data", Value::Null);
            let welcome = pending.verify(&Authenticate { extra: nulls, ..answer }).unwrap();
            assert_eq!(welcome, Dict::new().with("verifier", verifier));
            assert_eq!(expectation.verify(Some(&welcome)), Ok(()));
        }
    }

    /// Names and passwords to be normalized and escaped, Argon2 and a binding; the values are of a SCRAM
    /// written with Python's hashlib, argon2-cffi's `hash_secret_raw` and passlib's `saslprep`.
    #[test]
    fn a_bound_proof_with_argon2_and_normalized_names_holds() {
        let kdf = Kdf::argon2id(8, 512).unwrap();
        let (authid, password) = ("I\u{ad}X, a=b", "p\u{2168}ncil\u{a0}x");
        let credential = ScramCredential::derive(Dialect::WampScram, kdf, password, SALT).unwrap();
        let client = ScramClient::new(authid, &OWN).unwrap().with_binding(EXPORTER);
        let authextra = client.authextra();
        let hello = parse(Dialect::WampScram, authid, &authextra).unwrap();
        assert_eq!((hello.authid(), client.authid()), ("IX, a=b", "IX, a=b"));
        let (challenge, pending) = hello.challenge(&credential, &ROUTERS, &[EXPORTER]).unwrap();
        let extra = Dict::new()
            .with("nonce", "AAECAwQFBgcICQoLDA0ODw==EBESExQVFhcYGRobHB0eHw==")
            .with("salt", "c2FsdHNhbHRzYWx0c2FsdA==")
            .with("kdf", "argon2id13")
            .with("iterations", 8_u64)
            .with("memory", 512_u64)
            .with("channel_binding", "tls-exporter");
        assert_eq!(challenge, Challenge { auth_method: "wamp-scram".to_owned(), extra });
        let (answer, expectation) = client.respond(&challenge, password).unwrap();
        assert_eq!(answer.signature, "3dI+jFFwsm0l8ErzHdX9cfLW60p0PDCgFPP6DG1zsKI=");
        let welcome = pending.verify(&answer).unwrap();
        assert_eq!(welcome.str("verifier"), Ok(Some("v=Qw13plKvlIZGgxDVixx2oe3ss2N7+i6lQlQPe2gv7Ao=")));
        assert_eq!(expectation.verify(Some(&welcome)), Ok(()));
    }

    /// Made with `AuthScram` of autobahn-python 26.10.2 itself, its nonce set to 0..16 and the challenge's to
    /// 0..32: `on_challenge` gave the proofs, and `on_welcome` accepted the signatures. For PBKDF2 its
    /// `_hash_pbkdf2_secret` had to be given the decoded salt, without which it raises.
    #[test]
    fn proofs_of_the_scram_dialect_are_autobahns() {
        let argon2 = Kdf::argon2id(8, 512).unwrap();
        for (kdf, password, proof, signature) in [
            (
                Kdf::pbkdf2(4096).unwrap(),
                "pencil",
                "hANvUK6ekc3TsiV5Ug52VWgwEWZR+vO8TklKkj+Uvhc=",
                "iMAdqswLoHe+YE4GRPEksre2m8rP4fDRFA5eMB5PTSk=",
            ),
            (
                argon2,
                "pencil",
                "iYUPExcQxonvzGP+V+el5K5qnXYFCG/rXpWRYzV2D2k=",
                "1j7q9+IVo9tsyjRZB0rE/2/NV2Dzmv/ROlicOEeid64=",
            ),
            (
                argon2,
                "pencil\u{ad}",
                "73zguz/3sscn2c0nYB64QRF9LiunWAslEXtNMTlGt/E=",
                "jTnNvQPHDmXqy1da/SXscyZNzqx79q0xo48vzDMmE3U=",
            ),
        ] {
            let credential = ScramCredential::derive(Dialect::Scram, kdf, password, SALT).unwrap();
            let client = ScramClient::new("u\u{ad}ser", &OWN).unwrap();
            let authextra = client.authextra();
            let hello = parse(Dialect::Scram, "u\u{ad}ser", &authextra).unwrap();
            let (challenge, pending) = hello.challenge(&credential, &ROUTERS, &[]).unwrap();
            let nonce = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
            assert_eq!(challenge.extra.str("nonce"), Ok(Some(nonce)));
            // autobahn refuses keys that it does not know, and nulls.
            assert!(challenge.extra.iter().all(|(key, value)| {
                ["nonce", "salt", "kdf", "iterations", "memory"].contains(&key) && *value != Value::Null
            }));
            let (answer, expectation) = client.respond(&challenge, password).unwrap();
            assert_eq!(answer, Authenticate { signature: proof.to_owned(), extra: Dict::new() });
            let welcome = pending.verify(&answer).unwrap();
            assert_eq!(welcome, Dict::new().with("scram_server_signature", signature));
            assert_eq!(expectation.verify(Some(&welcome)), Ok(()));
        }
    }

    #[test]
    fn a_wrong_password_is_denied_by_the_router_and_a_wrong_router_by_the_client() {
        for (dialect, credential) in credentials() {
            let client = ScramClient::new("user", &OWN).unwrap();
            let authextra = client.authextra();
            let hello = parse(dialect, "user", &authextra).unwrap();
            let (challenge, pending) = hello.challenge(&credential, &ROUTERS, &[]).unwrap();
            let (answer, expectation) = client.respond(&challenge, "Pencil").unwrap();
            assert_eq!(pending.verify(&answer), Err(AuthError::Denied));

            let (_, other) = hello.challenge(&credential, &ROUTERS, &[]).unwrap();
            let right = other.verify(&client.respond(&challenge, "pencil").unwrap().0).unwrap();
            assert_eq!(expectation.verify(Some(&right)), Err(AuthError::RouterDenied));
            for welcome in [None, Some(&Dict::new())] {
                let (_, expectation) = client.respond(&challenge, "pencil").unwrap();
                assert_eq!(expectation.verify(welcome), Err(AuthError::RouterDenied));
            }
        }
    }

    #[test]
    fn an_answer_to_another_challenge_is_denied() {
        for (dialect, credential) in credentials() {
            let client = ScramClient::new("user", &OWN).unwrap();
            let authextra = client.authextra();
            let hello = parse(dialect, "user", &authextra).unwrap();
            let (earlier, _) = hello.challenge(&credential, &[9; 16], &[]).unwrap();
            let (answer, _) = client.respond(&earlier, "pencil").unwrap();
            let (challenge, pending) = hello.challenge(&credential, &ROUTERS, &[]).unwrap();
            let nonce = challenge.extra.get("nonce").cloned().unwrap();
            let extra = answer.extra.clone().with("nonce", nonce);
            assert_eq!(pending.verify(&Authenticate { extra, ..answer.clone() }), Err(AuthError::Denied));
            for signature in ["", "AAAA", &answer.signature[1..]] {
                let (_, pending) = hello.challenge(&credential, &ROUTERS, &[]).unwrap();
                let answer = Authenticate { signature: signature.to_owned(), extra: answer.extra.clone() };
                assert_eq!(pending.verify(&answer), Err(AuthError::Denied));
            }
        }
    }

    #[test]
    fn an_answer_must_repeat_the_nonce_and_the_binding() {
        let (dialect, credential) = credentials().swap_remove(0);
        let client = ScramClient::new("user", &OWN).unwrap().with_binding(EXPORTER);
        let authextra = client.authextra();
        let hello = parse(dialect, "user", &authextra).unwrap();
        let (challenge, _) = hello.challenge(&credential, &ROUTERS, &[EXPORTER]).unwrap();
        let (answer, _) = client.respond(&challenge, "pencil").unwrap();
        let verify = |extra| {
            let (_, pending) = hello.challenge(&credential, &ROUTERS, &[EXPORTER]).unwrap();
            pending.verify(&Authenticate { signature: answer.signature.clone(), extra })
        };
        assert!(verify(answer.extra.clone()).is_ok());
        for (key, value) in [
            ("nonce", Value::Null),
            ("nonce", "AAECAwQFBgcICQoLDA0ODw==".into()),
            ("channel_binding", Value::Null),
            ("channel_binding", "tls-unique".into()),
            ("cbind_data", Value::Null),
            ("cbind_data", base64(&[0; 32]).into()),
        ] {
            assert_eq!(verify(answer.extra.clone().with(key, value)), Err(AuthError::Denied), "{key}");
        }
        let wrong = verify(answer.extra.clone().with("nonce", 1_u64)).unwrap_err();
        assert_eq!(wrong.uri(), "wamp.error.protocol_violation");
    }

    #[test]
    fn a_proof_that_was_bound_to_another_channel_is_denied() {
        let (dialect, credential) = credentials().swap_remove(0);
        let elsewhere = ChannelBinding { kind: BindingKind::TlsExporter, data: &[1; 32] };
        let client = ScramClient::new("user", &OWN).unwrap().with_binding(elsewhere);
        let authextra = client.authextra();
        let hello = parse(dialect, "user", &authextra).unwrap();
        let (challenge, pending) = hello.challenge(&credential, &ROUTERS, &[EXPORTER]).unwrap();
        let (answer, _) = client.respond(&challenge, "pencil").unwrap();
        // Somebody in the middle can repeat what the router wants to see, but not prove it.
        let extra = answer.extra.with("cbind_data", base64(&EXPORTED));
        assert_eq!(pending.verify(&Authenticate { extra, ..answer }), Err(AuthError::Denied));
    }

    #[test]
    fn a_binding_that_is_not_there_ends_the_matter() {
        for (dialect, credential) in credentials() {
            let unique = ChannelBinding { kind: BindingKind::TlsUnique, data: &[1; 12] };
            let client = ScramClient::new("user", &OWN).unwrap().with_binding(unique);
            let authextra = client.authextra();
            let hello = parse(dialect, "user", &authextra).unwrap();
            let error = hello.challenge(&credential, &ROUTERS, &[EXPORTER]).err().unwrap();
            assert_eq!(error.uri(), "wamp.error.authentication_failed");
            let bound = hello.challenge(&credential, &ROUTERS, &[EXPORTER, unique]);
            assert_eq!(bound.is_ok(), dialect == Dialect::WampScram);

            let plain = Dict::new().with("nonce", client.nonce.as_str());
            let hello = parse(dialect, "user", &plain).unwrap();
            let (challenge, _) = hello.challenge(&credential, &ROUTERS, &[unique]).unwrap();
            let extra = challenge.extra.with("channel_binding", "tls-exporter");
            let answer = client.respond(&Challenge { extra, ..challenge }, "pencil");
            assert!(matches!(answer, Err(AuthError::Failed(_))));
        }
    }

    #[test]
    fn a_user_that_there_is_not_is_challenged_like_any_other() {
        for (dialect, credential) in credentials() {
            let fake = |authid| ScramCredential::fake(dialect, credential.kdf(), authid, b"server");
            assert_eq!(fake("a"), fake("a"));
            assert_ne!(fake("a").salt, fake("b").salt);
            assert_ne!(fake("a").salt, ScramCredential::fake(dialect, credential.kdf(), "a", b"other").salt);

            let client = ScramClient::new("a", &OWN).unwrap();
            let authextra = client.authextra();
            let hello = parse(dialect, "a", &authextra).unwrap();
            let (challenge, pending) = hello.challenge(&fake("a"), &ROUTERS, &[]).unwrap();
            let (real, _) = hello.challenge(&credential, &ROUTERS, &[]).unwrap();
            let shape = |challenge: &Challenge| -> Vec<(String, usize)> {
                let size = |value: &Value| value.as_str().map_or(0, str::len);
                challenge.extra.iter().map(|(key, value)| (key.to_owned(), size(value))).collect()
            };
            assert_eq!(shape(&challenge), shape(&real));
            let (answer, _) = client.respond(&challenge, "").unwrap();
            assert_eq!(pending.verify(&answer), Err(AuthError::Denied));
        }
    }

    #[test]
    fn keys_of_pbkdf2_serve_both_dialects_and_those_of_argon2_one() {
        for (dialect, credential) in credentials() {
            let other = if dialect == Dialect::Scram { Dialect::WampScram } else { Dialect::Scram };
            let client = ScramClient::new("user", &OWN).unwrap();
            let authextra = client.authextra();
            let hello = parse(other, "user", &authextra).unwrap();
            match hello.challenge(&credential, &ROUTERS, &[]) {
                Ok((challenge, pending)) => {
                    assert!(credential.serves(other) && credential.kdf().memory_kib().is_none());
                    assert!(pending.verify(&client.respond(&challenge, "pencil").unwrap().0).is_ok());
                }
                Err(error) => {
                    assert!(!credential.serves(other) && credential.kdf().memory_kib().is_some());
                    assert!(matches!(error, AuthError::Failed(_)));
                }
            }
        }
    }

    #[test]
    fn a_client_neither_works_for_long_nor_for_too_little() {
        for (dialect, credential) in credentials() {
            let client = ScramClient::new("user", &OWN).unwrap();
            let authextra = client.authextra();
            let hello = parse(dialect, "user", &authextra).unwrap();
            let (challenge, _) = hello.challenge(&credential, &ROUTERS, &[]).unwrap();
            let argon2 = credential.kdf().memory_kib().is_some();
            for (key, value) in [
                ("iterations", Value::from(0_u64)),
                ("iterations", if argon2 { 7_u64 } else { 4095 }.into()),
                ("iterations", u64::MAX.into()),
                ("iterations", 10_000_001_u64.into()),
                ("memory", if argon2 { 1_u64 << 21 } else { 0 }.into()),
                ("kdf", "bcrypt".into()),
                ("kdf", if dialect == Dialect::Scram { "argon2id13" } else { "argon2id-13" }.into()),
                ("salt", "c2FsdA==".into()),
            ] {
                let passed_over = key == "memory" && !argon2;
                let extra = challenge.extra.clone().with(key, value);
                let answer = client.respond(&Challenge { extra, ..challenge.clone() }, "pencil");
                assert_eq!(matches!(answer, Err(AuthError::Failed(_))), !passed_over, "{key} {dialect:?}");
            }
        }
    }

    #[test]
    fn a_client_does_not_answer_what_is_no_challenge_to_it() {
        for (dialect, credential) in credentials() {
            let client = ScramClient::new("user", &OWN).unwrap();
            let authextra = client.authextra();
            let hello = parse(dialect, "user", &authextra).unwrap();
            let (challenge, _) = hello.challenge(&credential, &ROUTERS, &[]).unwrap();
            let respond = |extra: Dict| {
                client.respond(&Challenge { extra, ..challenge.clone() }, "pencil").map(|_| ()).unwrap_err()
            };
            for nonce in ["", "AAECAwQFBgcICQoLDA0ODw==", "BBECAwQFBgcICQoLDA0ODw==EBES"] {
                assert_eq!(respond(challenge.extra.clone().with("nonce", nonce)), AuthError::RouterDenied);
            }
            for key in ["nonce", "salt", "kdf", "iterations"] {
                let error = respond(challenge.extra.clone().with(key, Value::Null));
                assert_eq!(error.uri(), "wamp.error.protocol_violation", "{key}");
            }
            let method = Challenge { auth_method: "wampcra".to_owned(), ..challenge.clone() };
            assert!(matches!(client.respond(&method, "pencil"), Err(AuthError::Violation(_))));
        }
    }

    #[test]
    fn a_hello_needs_an_authid_and_a_nonce() {
        let with = |nonce: &str| Dict::new().with("nonce", nonce);
        let uri = |dialect, authid, authextra: Dict| {
            parse(dialect, authid, &authextra).map(|_| ()).unwrap_err().uri()
        };
        for dialect in [Dialect::WampScram, Dialect::Scram] {
            let required = "wamp.error.authentication_required";
            assert_eq!(uri(dialect, "", with("AAAA")), required);
            assert_eq!(uri(dialect, "\u{ad}", with("AAAA")), required);
            assert_eq!(uri(dialect, "user", Dict::new()), required);
            let violation = "wamp.error.protocol_violation";
            assert_eq!(uri(dialect, "us\u{7}er", with("AAAA")), violation);
            assert_eq!(uri(dialect, "user", Dict::new().with("nonce", 1_u64)), violation);
            for nonce in ["", "AAAA,r=", "AA AA", "AAAé", &"A".repeat(260)] {
                assert_eq!(uri(dialect, "user", with(nonce)), violation, "{nonce}");
            }
            assert!(parse(dialect, "user", &with(&"A".repeat(256))).is_ok());
        }
        assert_eq!(uri(Dialect::Scram, "user", with("no base64")), "wamp.error.protocol_violation");
    }
}

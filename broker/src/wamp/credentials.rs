//! How users prove who they are without sending a secret: WAMP-CRA, SCRAM and cryptosign.
//!
//! Judging a proof costs a few hashes or one signature, and is done where the session is. Whoever asks for
//! somebody that there is not gets a challenge like those of the others, and is denied in the end: it takes the
//! role and the numbers of a user, always of the same one for one name.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tandem_protocols::wamp::auth::cra::{self, CraCredential, CraPending, CraSubject};
use tandem_protocols::wamp::auth::cryptosign::{self, CryptosignHello, CryptosignPending, PublicKey};
use tandem_protocols::wamp::auth::scram::{Dialect, ScramCredential, ScramHello, ScramPending};
use tandem_protocols::wamp::auth::{AuthError, ChannelBinding, InvalidCredential};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::{Authenticate, Challenge};
use tandem_protocols::wamp::options::HelloDetails;

use crate::core::access::{Grant, Principal, SessionId};
use crate::core::realm::Entropy;
use crate::wamp::voice::id;

/// A user, as the configuration has it.
#[derive(Clone, Copy)]
pub struct WampUser<'a> {
    /// The authid.
    pub name: &'a str,
    /// The role.
    pub role: &'a str,
    /// For WAMP-CRA: `$wamp-cra$...`.
    pub wampcra: Option<&'a str>,
    /// For SCRAM, one for each dialect: `$wamp-scram$...`, `$scram$...`.
    pub scram: &'a [String],
    /// Public keys.
    pub cryptosign: &'a [String],
}

/// A credential of a user is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{method} of user {user:?}: {why}")]
pub struct InvalidUser {
    user: String,
    method: &'static str,
    why: InvalidCredential,
}

/// What there is to check proofs by.
pub struct WampCredentials {
    users: Vec<User>,
    by_name: HashMap<Arc<str>, usize>,
    by_key: HashMap<PublicKey, usize>,
    /// Who can use WAMP-CRA, in order.
    cra: Vec<usize>,
    /// And the dialects of SCRAM.
    wamp_scram: Vec<usize>,
    scram: Vec<usize>,
    /// What challenges for users that there are not are made of. The same after a restart, lest these differ.
    secret: Vec<u8>,
    entropy: Entropy,
    clock: fn() -> u64,
}

struct User {
    name: Arc<str>,
    role: Arc<str>,
    cra: Option<CraCredential>,
    scram: Vec<ScramCredential>,
}

impl User {
    fn scram(&self, dialect: Dialect) -> Option<&ScramCredential> {
        self.scram.iter().find(|credential| credential.serves(dialect))
    }
}

impl fmt::Debug for WampCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WampCredentials").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl WampCredentials {
    /// Of these users. `entropy` makes challenges that nobody can guess, and `clock` tells the time, in
    /// milliseconds since 1970.
    pub fn new<'a>(
        users: impl IntoIterator<Item = WampUser<'a>>,
        entropy: Entropy,
        clock: fn() -> u64,
    ) -> Result<WampCredentials, InvalidUser> {
        let mut all = WampCredentials { entropy, clock, ..WampCredentials::none() };
        for user in users {
            all.add(user)?;
        }
        Ok(all)
    }

    /// Of nobody: none of the methods is available.
    pub fn none() -> WampCredentials {
        WampCredentials {
            users: Vec::new(),
            by_name: HashMap::new(),
            by_key: HashMap::new(),
            cra: Vec::new(),
            wamp_scram: Vec::new(),
            scram: Vec::new(),
            secret: Vec::new(),
            entropy: Arc::new(|| 0),
            clock: || 0,
        }
    }

    fn add(&mut self, user: WampUser<'_>) -> Result<(), InvalidUser> {
        let WampUser { name, role, wampcra, scram, cryptosign } = user;
        let wrong = |method| move |why| InvalidUser { user: name.to_owned(), method, why };
        let place = self.users.len();
        for text in cryptosign {
            let key: PublicKey = text.parse().map_err(wrong("cryptosign"))?;
            if self.by_key.insert(key, place).is_some() {
                return Err(wrong("cryptosign")(InvalidCredential("the key is there twice")));
            }
        }
        for text in wampcra.into_iter().chain(scram.iter().map(String::as_str)) {
            self.secret.extend_from_slice(text.as_bytes());
        }
        let scram: Result<Vec<ScramCredential>, _> = scram.iter().map(|text| text.parse()).collect();
        let entry = User {
            name: name.into(),
            role: role.into(),
            cra: wampcra.map(str::parse).transpose().map_err(wrong("wampcra"))?,
            scram: scram.map_err(wrong("scram"))?,
        };
        self.by_name.insert(entry.name.clone(), place);
        for (able, can) in [
            (&mut self.cra, entry.cra.is_some()),
            (&mut self.wamp_scram, entry.scram(Dialect::WampScram).is_some()),
            (&mut self.scram, entry.scram(Dialect::Scram).is_some()),
        ] {
            able.extend(can.then_some(place));
        }
        self.users.push(entry);
        Ok(())
    }

    /// Whether the configuration has this user: then nobody else is asked, whatever the user can do.
    pub(super) fn knows(&self, method: &str, details: &HelloDetails<'_>) -> bool {
        let by_key = |hello: CryptosignHello<'_>| self.by_key.contains_key(&hello.pubkey());
        details.authid.is_some_and(|authid| self.by_name.contains_key(authid))
            || method == cryptosign::METHOD && CryptosignHello::parse(details).is_ok_and(by_key)
    }

    /// The CHALLENGE of a method, for the session that is to be. `None` when the method is not available here,
    /// because nobody could use it. `bindings` is what the connection can be bound by.
    pub(super) fn challenge(
        &self,
        method: &str,
        details: &HelloDetails<'_>,
        session: SessionId,
        bindings: &[ChannelBinding<'_>],
    ) -> Option<Result<(Challenge, Pending), AuthError>> {
        match method {
            cra::METHOD => self.challenge_cra(details, session),
            cryptosign::METHOD => self.challenge_cryptosign(details, bindings),
            _ => self.challenge_scram(Dialect::from_method(method)?, details, bindings),
        }
    }

    fn challenge_cra(
        &self,
        details: &HelloDetails<'_>,
        session: SessionId,
    ) -> Option<Result<(Challenge, Pending), AuthError>> {
        let authid = details.authid.unwrap_or_default();
        let (user, model) = self.find(authid, &self.cra)?;
        if authid.is_empty() {
            return Some(Err(AuthError::Required("authid")));
        }
        // Made for everybody, that it takes as long.
        let fake = CraCredential::fake_like(model.cra.as_ref()?, authid, &self.secret);
        let credential = user.and_then(|user| user.cra.as_ref()).unwrap_or(&fake);
        let claimed = Principal::new(authid, user.unwrap_or(model).role.clone(), cra::METHOD);
        let (challenge, pending) = self.challenge_by_cra(credential, &claimed, session);
        Some(Ok((challenge, Pending::of(granted(user, cra::METHOD), cra::METHOD, Proof::Cra(pending)))))
    }

    /// The CHALLENGE of WAMP-CRA for whoever is to prove that they are this one.
    pub(super) fn challenge_by_cra(
        &self,
        credential: &CraCredential,
        claimed: &Principal,
        session: SessionId,
    ) -> (Challenge, CraPending) {
        let nonce = format!("{:016x}{:016x}", (self.entropy)(), (self.entropy)());
        let subject = CraSubject {
            authid: &claimed.id,
            authrole: &claimed.role,
            authprovider: claimed.provider.as_str(),
            nonce: &nonce,
            unix_ms: (self.clock)(),
            session: id(session.0),
        };
        cra::challenge(credential, &subject)
    }

    fn challenge_scram(
        &self,
        dialect: Dialect,
        details: &HelloDetails<'_>,
        bindings: &[ChannelBinding<'_>],
    ) -> Option<Result<(Challenge, Pending), AuthError>> {
        let able = match dialect {
            Dialect::WampScram => &self.wamp_scram,
            Dialect::Scram => &self.scram,
        };
        if able.is_empty() {
            return None;
        }
        let hello = match ScramHello::parse(dialect, details) {
            Ok(hello) => hello,
            Err(error) => return Some(Err(error)),
        };
        let (user, model) = self.find(hello.authid(), able)?;
        let kdf = model.scram(dialect)?.kdf();
        let fake = ScramCredential::fake(dialect, kdf, hello.authid(), &self.secret);
        let credential = user.and_then(|user| user.scram(dialect)).unwrap_or(&fake);
        let challenge = hello.challenge(credential, &self.random(), bindings);
        Some(challenge.map(|(challenge, pending)| {
            let method = dialect.method();
            (challenge, Pending::of(granted(user, method), method, Proof::Scram(pending)))
        }))
    }

    fn challenge_cryptosign(
        &self,
        details: &HelloDetails<'_>,
        bindings: &[ChannelBinding<'_>],
    ) -> Option<Result<(Challenge, Pending), AuthError>> {
        if self.by_key.is_empty() {
            return None;
        }
        Some(CryptosignHello::parse(details).map(|hello| {
            let user = self.by_key.get(&hello.pubkey()).and_then(|place| self.users.get(*place));
            let authid = details.authid.filter(|authid| !authid.is_empty());
            let user = user.filter(|user| authid.is_none_or(|authid| *user.name == *authid));
            let (challenge, pending) = hello.challenge(self.random(), bindings, None);
            let method = cryptosign::METHOD;
            (challenge, Pending::of(granted(user, method), method, Proof::Cryptosign(pending)))
        }))
    }

    /// The user of that name, if it is among those who can use a method, and one to take for a model if not.
    /// `None` where nobody can use it.
    fn find(&self, name: &str, able: &[usize]) -> Option<(Option<&User>, &User)> {
        let mut hasher = DefaultHasher::new();
        (name, &self.secret).hash(&mut hasher);
        let chosen = hasher.finish().checked_rem(able.len() as u64)?;
        let model = self.users.get(*able.get(usize::try_from(chosen).ok()?)?)?;
        let user = self.by_name.get(name).filter(|place| able.binary_search(place).is_ok());
        Some((user.and_then(|place| self.users.get(*place)), model))
    }

    pub(super) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&(self.entropy)().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}

fn granted(user: Option<&User>, method: &'static str) -> Option<Grant> {
    user.map(|user| Principal::new(user.name.clone(), user.role.clone(), method).into())
}

/// A challenge that has not been answered.
pub(super) struct Pending {
    /// Who may answer it, if anybody.
    grant: Option<Grant>,
    method: &'static str,
    proof: Proof,
}

/// What the answer must be.
pub(super) enum Proof {
    Cra(CraPending),
    Scram(ScramPending),
    Cryptosign(CryptosignPending),
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl Pending {
    pub(super) fn of(grant: Option<Grant>, method: &'static str, proof: Proof) -> Pending {
        Pending { grant, method, proof }
    }

    /// How the answer proves something.
    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    /// Judges the answer: who it is, and what WELCOME says of it.
    pub(super) fn verify(self, answer: &Authenticate) -> Result<(Grant, Dict), AuthError> {
        let authextra = match self.proof {
            Proof::Cra(pending) => pending.verify(answer),
            Proof::Scram(pending) => pending.verify(answer),
            Proof::Cryptosign(pending) => pending.verify(answer),
        }?;
        // Who has a key, but not one of a user, gets so far.
        Ok((self.grant.ok_or(AuthError::Denied)?, authextra))
    }
}

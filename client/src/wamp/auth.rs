//! Logging in: HELLO, the router's challenge, and who the client can say it is.

use std::convert::identity;

use tandem_protocols::wamp::auth::cryptosign::{self, CryptosignClient, PrivateKey, PublicKey};
use tandem_protocols::wamp::auth::scram::{Dialect, ScramClient, ScramExpectation};
use tandem_protocols::wamp::auth::{AuthError, BindingKind, ChannelBinding, cra, ticket};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::Violation;
use tandem_protocols::wamp::message::{Authenticate, Challenge};

use crate::wamp::error::Error;

/// Nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anonymous;

/// A secret that is shown to the router: for connections that nobody else reads. Bearer tokens are shown so as well.
#[derive(Clone)]
pub struct Ticket {
    authid: String,
    ticket: String,
}

impl Ticket {
    /// Of this user.
    pub fn new(authid: impl Into<String>, ticket: impl Into<String>) -> Self {
        Self { authid: authid.into(), ticket: ticket.into() }
    }
}

/// WAMP-CRA: a password that is proven, not shown.
#[derive(Clone)]
pub struct Wampcra {
    authid: String,
    secret: String,
}

impl Wampcra {
    /// Of this user.
    pub fn new(authid: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { authid: authid.into(), secret: secret.into() }
    }
}

/// SCRAM: a password that is proven, by a router that must prove that it knows of it. Both that of the specification
/// and that of autobahn and Crossbar; the router chooses.
#[derive(Clone)]
pub struct Scram {
    authid: String,
    password: String,
    dialect: Option<Dialect>,
    is_bound: bool,
}

impl Scram {
    /// Of this user.
    pub fn new(authid: impl Into<String>, password: impl Into<String>) -> Self {
        Self { authid: authid.into(), password: password.into(), dialect: None, is_bound: false }
    }

    /// Only one of the two is offered: Crossbar refuses whoever offers a method that it does not know, as it does not
    /// know that of the specification.
    #[must_use]
    pub fn only(mut self, dialect: Dialect) -> Self {
        self.dialect = Some(dialect);
        self
    }

    /// The proof is good for this TLS connection only (`tls-exporter`). Not by default: routers that do not know of it
    /// refuse it, and only that of the specification can do it.
    #[must_use]
    pub fn bound(mut self) -> Self {
        self.is_bound = true;
        self
    }
}

/// Cryptosign: an Ed25519 key that is proven.
///
/// ```
/// use tandem_client::wamp::Cryptosign;
///
/// let seed = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// let login = Cryptosign::from_key(seed.parse()?).authid("joe");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Cryptosign {
    key: PrivateKey,
    authid: Option<String>,
    router: Option<PublicKey>,
    is_bound: bool,
}

impl Cryptosign {
    /// The key alone says who the client is, unless the router wants [more](Self::authid).
    pub fn from_key(key: PrivateKey) -> Self {
        Self { key, authid: None, router: None, is_bound: false }
    }

    /// Of this user.
    #[must_use]
    pub fn authid(mut self, authid: impl Into<String>) -> Self {
        self.authid = Some(authid.into());
        self
    }

    /// The proof is good for this TLS connection only (`tls-exporter`). Not by default: routers that do not know of it
    /// refuse it.
    #[must_use]
    pub fn bound(mut self) -> Self {
        self.is_bound = true;
        self
    }

    /// The router must prove first that it has the private key of this one.
    #[must_use]
    pub fn expecting_router(mut self, key: PublicKey) -> Self {
        self.router = Some(key);
        self
    }
}

/// One way to log in.
#[derive(Clone)]
#[non_exhaustive]
pub enum Auth {
    /// As nobody.
    Anonymous,
    /// With a secret that is shown.
    Ticket(Ticket),
    /// With WAMP-CRA.
    Wampcra(Wampcra),
    /// With SCRAM.
    Scram(Scram),
    /// With a key.
    Cryptosign(Box<Cryptosign>),
}

macro_rules! ways {
    ($($name:ident: $of:expr),*) => {$(
        impl From<$name> for Auth {
            fn from(way: $name) -> Self {
                Self::$name($of(way))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("authid", &self.authid).finish_non_exhaustive()
            }
        }
    )*};
}

ways!(Ticket: identity, Wampcra: identity, Scram: identity, Cryptosign: Box::new);

impl From<Anonymous> for Auth {
    fn from(_: Anonymous) -> Self {
        Self::Anonymous
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Ticket(way) => way.fmt(f),
            Self::Wampcra(way) => way.fmt(f),
            Self::Scram(way) => way.fmt(f),
            Self::Cryptosign(way) => way.fmt(f),
        }
    }
}

impl Auth {
    fn authid(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::Ticket(way) => Some(&way.authid),
            Self::Wampcra(way) => Some(&way.authid),
            Self::Scram(way) => Some(&way.authid),
            Self::Cryptosign(way) => way.authid.as_deref(),
        }
    }

    fn methods(&self) -> &[&'static str] {
        match self {
            Self::Anonymous => &["anonymous"],
            Self::Ticket(_) => &[ticket::METHOD],
            Self::Wampcra(_) => &[cra::METHOD],
            Self::Scram(Scram { dialect: None, .. }) => &["wamp-scram", "scram"],
            Self::Scram(Scram { dialect: Some(Dialect::WampScram), .. }) => &["wamp-scram"],
            Self::Scram(Scram { dialect: Some(Dialect::Scram), .. }) => &["scram"],
            Self::Cryptosign(_) => &[cryptosign::METHOD],
        }
    }
}

/// One login over one connection.
pub(super) struct Login<'a> {
    ways: &'a [Auth],
    /// What binds a proof to the connection.
    channel: Option<(BindingKind, Vec<u8>)>,
    scram_nonce: [u8; 16],
    router_challenge: [u8; 32],
    expectation: Option<ScramExpectation>,
}

impl<'a> Login<'a> {
    pub(super) fn new(ways: &'a [Auth], channel: Option<ChannelBinding<'_>>) -> Self {
        let channel = channel.map(|binding| (binding.kind, binding.data.to_vec()));
        let (scram_nonce, router_challenge) = (rand::random(), rand::random());
        Self { ways, channel, scram_nonce, router_challenge, expectation: None }
    }

    /// What HELLO says of it. There is one `authid` for all ways: that of the first that has one.
    pub(super) fn hello(&self, mut details: Dict) -> Result<Dict, Error> {
        let methods: Vec<&str> = self.ways.iter().flat_map(Auth::methods).copied().collect();
        if !methods.is_empty() {
            details.insert("authmethods", methods);
        }
        if let Some(authid) = self.ways.iter().find_map(Auth::authid) {
            details.insert("authid", authid);
        }
        let mut authextra = details.dict("authextra").ok().flatten().cloned().unwrap_or_default();
        for way in self.ways {
            let more = match way {
                Auth::Anonymous | Auth::Ticket(_) | Auth::Wampcra(_) => continue,
                Auth::Scram(way) => {
                    let client = scram(way, &self.scram_nonce, self.binding(way.is_bound)?)?;
                    details.insert("authid", client.authid());
                    client.authextra()
                }
                Auth::Cryptosign(way) => self.cryptosign(way)?.authextra(),
            };
            for (key, value) in more.iter() {
                authextra.insert(key, value.clone());
            }
        }
        if !authextra.is_empty() {
            details.insert("authextra", authextra);
        }
        Ok(details)
    }

    fn cryptosign(&self, way: &'a Cryptosign) -> Result<CryptosignClient<'_>, AuthError> {
        let mut client = CryptosignClient::new(&way.key);
        if let Some(binding) = self.binding(way.is_bound)? {
            client = client.with_binding(binding);
        }
        Ok(match way.router {
            Some(router) => client.expecting_router(router, self.router_challenge),
            None => client,
        })
    }

    /// What a proof is bound by that is to be bound.
    fn binding(&self, is_wanted: bool) -> Result<Option<ChannelBinding<'_>>, AuthError> {
        match &self.channel {
            _ if !is_wanted => Ok(None),
            Some((kind, data)) => Ok(Some(ChannelBinding { kind: *kind, data })),
            None => Err(AuthError::Failed("this connection has nothing to bind a proof by")),
        }
    }

    /// The answer to a challenge.
    pub(super) async fn respond(&mut self, challenge: Challenge) -> Result<Authenticate, Error> {
        let way = self.ways.iter().find(|way| way.methods().contains(&challenge.auth_method.as_str()));
        match way {
            None | Some(Auth::Anonymous) => {
                Err(AuthError::from(Violation::new("a challenge by a method that was not offered")).into())
            }
            Some(Auth::Ticket(way)) => Ok(Authenticate { signature: way.ticket.clone(), extra: Dict::new() }),
            Some(Auth::Wampcra(way)) => {
                let secret = way.secret.clone();
                Ok(slowly(move || cra::respond(&challenge, &secret)).await?)
            }
            Some(Auth::Scram(way)) => {
                let (way, nonce, channel) = (way.clone(), self.scram_nonce, self.channel.clone());
                let respond = move || {
                    let channel = channel.as_ref().filter(|_| way.is_bound);
                    let binding = channel.map(|(kind, data)| ChannelBinding { kind: *kind, data });
                    scram(&way, &nonce, binding)?.respond(&challenge, &way.password)
                };
                let (authenticate, expectation) = slowly(respond).await?;
                self.expectation = Some(expectation);
                Ok(authenticate)
            }
            Some(Auth::Cryptosign(way)) => Ok(self.cryptosign(way)?.respond(&challenge)?),
        }
    }

    /// Judges the router by its WELCOME.
    pub(super) fn welcomed(self, details: &Dict) -> Result<(), Error> {
        let authextra = details.dict("authextra").map_err(AuthError::from)?;
        if let Some(expectation) = self.expectation {
            return Ok(expectation.verify(authextra)?);
        }
        // A router that lets in whom it should have proven itself to first.
        let method = details.str("authmethod").map_err(AuthError::from)?.unwrap_or_default();
        let is_unproven = Dialect::from_method(method).is_some();
        if is_unproven { Err(AuthError::RouterDenied.into()) } else { Ok(()) }
    }
}

fn scram<'a>(
    way: &Scram,
    nonce: &[u8; 16],
    binding: Option<ChannelBinding<'a>>,
) -> Result<ScramClient<'a>, AuthError> {
    let client = ScramClient::new(&way.authid, nonce)?;
    Ok(match binding {
        Some(binding) => client.with_binding(binding),
        None => client,
    })
}

/// Deriving keys takes long, by design.
async fn slowly<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(AuthError::Failed("the proof could not be made").into()),
    }
}

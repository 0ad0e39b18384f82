//! What a client needs to know before it connects.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use tandem_protocols::payload::Format;

use crate::address::Address;
use crate::backoff::Backoff;
use crate::connector::Connector;
use crate::wamp::auth::Auth;
use crate::wamp::client::Client;
use crate::wamp::desk::Desk;
use crate::wamp::error::Error;
use crate::wamp::handle::{COMMANDS_MAX, ForsakenList, Handle, Patience};
use crate::wamp::status::{Status, Watchers};
use crate::wamp::task::{Plan, Task};

/// How long connecting and logging in may take, unless it is said otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for a connection where there is none, unless it is said otherwise.
pub const WAIT_FOR_CONNECTION: Duration = Duration::from_secs(5);

/// How long the answer to a request is awaited, calls excepted, unless it is said otherwise.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that has not connected yet.
#[derive(Debug)]
#[must_use = "nothing happens before connect"]
pub struct Builder {
    connector: Result<Connector, Error>,
    realm: String,
    formats: Vec<Format>,
    ways: Vec<Auth>,
    agent: String,
    backoff: Backoff,
    connect_timeout: Duration,
    is_patient: bool,
    patience: Patience,
}

fn address_of<A>(address: A) -> Result<Address, Error>
where
    A: TryInto<Address>,
    A::Error: std::fmt::Display,
{
    address.try_into().map_err(|error| Error::Address(error.to_string()))
}

impl Client {
    /// A client of the router at this address.
    pub fn builder<A>(address: A) -> Builder
    where
        A: TryInto<Address>,
        A::Error: std::fmt::Display,
    {
        Builder::new(address)
    }

    /// A client that connects so.
    pub fn builder_on(connector: Connector) -> Builder {
        Builder::on(connector)
    }
}

impl Builder {
    fn new<A>(address: A) -> Self
    where
        A: TryInto<Address>,
        A::Error: std::fmt::Display,
    {
        Self::with(address_of(address).map(Connector::new))
    }

    fn on(connector: Connector) -> Self {
        Self::with(Ok(connector))
    }

    fn with(connector: Result<Connector, Error>) -> Self {
        Self {
            connector,
            realm: "realm1".to_owned(),
            formats: vec![Format::Cbor, Format::MsgPack, Format::Json],
            ways: Vec::new(),
            agent: concat!("tandem-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            backoff: Backoff::default(),
            connect_timeout: CONNECT_TIMEOUT,
            is_patient: false,
            patience: Patience { connection: WAIT_FOR_CONNECTION, reply: REPLY_TIMEOUT, call: None },
        }
    }

    /// Where the addresses before lead to no connection, this one is tried.
    pub fn or<A>(mut self, address: A) -> Self
    where
        A: TryInto<Address>,
        A::Error: std::fmt::Display,
    {
        self.connector = match (self.connector, address_of(address)) {
            (Ok(connector), Ok(address)) => Ok(connector.or(address)),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        self
    }

    /// The realm: unless it is said, `realm1`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// The serializers that may be used, the best first: unless it is said, CBOR, MessagePack and JSON. A RawSocket has
    /// no choice, and takes the first.
    pub fn serializers(mut self, formats: impl IntoIterator<Item = Format>) -> Self {
        self.formats = formats.into_iter().collect();
        self
    }

    /// One more way to log in, of which the router chooses one. Without any, the client is nobody.
    pub fn auth(mut self, way: impl Into<Auth>) -> Self {
        self.ways.push(way.into());
        self
    }

    /// What the client calls itself.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = agent.into();
        self
    }

    /// When to try again after a connection is lost: unless it is said, [`Backoff::default`]; not at all with
    /// [`Backoff::never`]. A client that was refused never tries again.
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The first connection is tried for as often as a later one would be. Without this, the first failure is what
    /// [`connect`](Self::connect) comes to.
    pub fn patient(mut self) -> Self {
        self.is_patient = true;
        self
    }

    /// How long connecting and logging in may take, each time: unless it is said, [`CONNECT_TIMEOUT`]. Where there are
    /// several addresses, each may take as long.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a request that is made while there is no connection waits for one before it fails with
    /// [`Error::ConnectionLost`]: unless it is said, [`WAIT_FOR_CONNECTION`]; with zero it fails at once.
    pub fn wait_for_connection(mut self, longest: Duration) -> Self {
        self.patience.connection = longest;
        self
    }

    /// How long the answer to all requests but calls is awaited: unless it is said, [`REPLY_TIMEOUT`].
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.patience.reply = timeout;
        self
    }

    /// How long the result of a call is awaited that sets no time itself: unless it is said, for ever.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.patience.call = Some(timeout);
        self
    }

    /// Connects and logs in.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`] of the last address, [`Error::Refused`] where the router does not let the client in,
    /// [`Error::Authentication`] where the proof cannot be made, or that of the router is wrong, [`Error::Timeout`].
    pub async fn connect(self) -> Result<Client, Error> {
        let (connector, timeout) = self.connector?.each_within(self.connect_timeout);
        let plan = Plan {
            connector,
            realm: self.realm,
            formats: self.formats,
            ways: self.ways,
            agent: self.agent,
            backoff: self.backoff,
            timeout,
        };
        let mut failed = 0;
        let (session, info) = loop {
            match plan.establish(0).await {
                Ok(established) => break established,
                Err(error) if !self.is_patient || error.is_final() => return Err(error),
                Err(error) => {
                    failed += 1;
                    let Some(delay) = plan.backoff.delay(failed, rand::random()) else { return Err(error) };
                    tracing::debug!(%error, attempt = failed, "no session");
                    sleep(delay).await;
                }
            }
        };
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (status, watched) = watch::channel(Status::Connected(Arc::new(info)));
        let (watchers, forsaken) = (Arc::new(Watchers::default()), Arc::new(ForsakenList::default()));
        let desk = Desk::new();
        let task = Task {
            plan: Arc::new(plan),
            inbox,
            forsaken: forsaken.clone(),
            status,
            watchers: watchers.clone(),
            desk,
            failed: 0,
        };
        // Nobody joins it: it ends by itself when the last handle is gone.
        tokio::spawn(task.run(session));
        Ok(Client::of(Handle::new(commands, watched, watchers, forsaken, self.patience)))
    }
}

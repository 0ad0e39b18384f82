//! How to connect.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tandem_protocols::stomp::frame::{Headers, Version};
use tandem_protocols::stomp::state::HeartBeat;

use crate::address::Address;
use crate::backoff::Backoff;
use crate::connector::Connector;
use crate::error::Error;
use crate::stomp::client::Client;
use crate::stomp::dial::Dial;
use crate::stomp::link::Hello;
use crate::stomp::outbox::{Alive, Outbox};
use crate::stomp::session::{Plan, Session};

/// How much may wait to be sent, unless something else is said.
pub const OUTBOX_BYTES: u32 = 4 << 20;

/// How long one attempt to connect may take, unless something else is said.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How often either end says that it is alive, unless something else is said.
pub const HEART_BEAT: Duration = Duration::from_secs(10);

/// A client that is to be.
#[must_use = "nothing is connected before `connect`"]
pub struct Builder {
    way: Way,
    hello: Hello,
    backoff: Backoff,
    timeout: Duration,
    outbox_bytes: u32,
}

enum Way {
    Addresses(Result<Connector, Error>),
    Dial(Box<dyn Dial>),
}

impl Client {
    /// A client of the broker at an address, such as `ws://127.0.0.1:8080/` or `tcp://localhost:61613`. What is no
    /// address is told by [`Builder::connect`].
    pub fn builder<A>(address: A) -> Builder
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        Builder::new(Way::Addresses(address.try_into().map(Connector::new).map_err(Error::from)))
    }

    /// A client whose connections are made by a [`Connector`], or by whatever else makes them.
    pub fn builder_on(dial: impl Dial) -> Builder {
        Builder::new(Way::Dial(Box::new(dial)))
    }
}

impl Builder {
    fn new(way: Way) -> Builder {
        let beat = u32::try_from(HEART_BEAT.as_millis()).unwrap_or(u32::MAX);
        Builder {
            way,
            hello: Hello {
                versions: vec![Version::V12, Version::V11],
                // RabbitMQ's own virtual host; others do not mind.
                host: "/".to_owned(),
                login: None,
                passcode: None,
                heart_beat: HeartBeat { sends_ms: beat, wants_ms: beat },
                headers: Headers::new(),
            },
            backoff: Backoff::default(),
            timeout: CONNECT_TIMEOUT,
            outbox_bytes: OUTBOX_BYTES,
        }
    }

    /// Another address, where those before do not lead to a connection.
    pub fn or<A>(mut self, address: A) -> Builder
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        self.way = match (self.way, address.try_into().map_err(Error::from)) {
            (Way::Addresses(Ok(connector)), Ok(address)) => Way::Addresses(Ok(connector.or(address))),
            (Way::Addresses(Ok(_)), Err(error)) => Way::Addresses(Err(error)),
            (other, _) => other,
        };
        self
    }

    /// The virtual host: Tandem's realm. `/` unless something else is said.
    pub fn host(mut self, host: &str) -> Builder {
        self.hello.host = host.to_owned();
        self
    }

    /// Who we are.
    pub fn login(mut self, user: &str, passcode: &str) -> Builder {
        self.hello.login = Some(user.to_owned());
        self.hello.passcode = Some(passcode.to_owned());
        self
    }

    /// Who we are, by a token that says it.
    pub fn token(mut self, token: &str) -> Builder {
        self.hello.passcode = Some(token.to_owned());
        self
    }

    /// The longest silences: that which we promise, and that which we want of the server. Zero is any. A server is
    /// given up after twice as much and a second.
    pub fn heart_beats(mut self, ours: Duration, theirs: Duration) -> Builder {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        self.hello.heart_beat = HeartBeat { sends_ms: ms(ours), wants_ms: ms(theirs) };
        self
    }

    /// The versions that we speak, best first: 1.2 and 1.1 unless something else is said. In 1.0 nothing can be given
    /// back: a delivery that is dropped stays ours until the connection ends.
    pub fn versions(mut self, versions: &[Version]) -> Builder {
        self.hello.versions = versions.to_vec();
        self
    }

    /// One more header of CONNECT, such as `client-id`.
    pub fn header(mut self, name: &str, value: &str) -> Builder {
        self.hello.headers.push(name, value);
        self
    }

    /// How long to wait before each attempt to connect again; [`Backoff::never`] for none.
    pub fn reconnect(mut self, backoff: Backoff) -> Builder {
        self.backoff = backoff;
        self
    }

    /// How long one attempt to connect may take, with all that is said before the session begins. Where there are several
    /// addresses, each may take as long.
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.timeout = timeout;
        self
    }

    /// How many bytes may wait to be sent, before whoever sends waits.
    pub fn outbox_bytes(mut self, bytes: u32) -> Builder {
        self.outbox_bytes = bytes;
        self
    }

    /// Connects, once: only a connection that was there is made again when it is lost.
    ///
    /// # Errors
    ///
    /// [`Error::StompError`] where the server refuses the login, and what else can go wrong on the way.
    pub async fn connect(self) -> Result<Client, Error> {
        let (dial, timeout): (Box<dyn Dial>, Duration) = match self.way {
            Way::Addresses(connector) => {
                let (connector, timeout) = connector?.each_within(self.timeout);
                (Box::new(connector), timeout)
            }
            Way::Dial(dial) => (dial, self.timeout),
        };
        if self.hello.versions.is_empty() {
            return Err(Error::Unsupported("no version at all"));
        }
        let plan = Plan { dial, hello: self.hello, backoff: self.backoff, timeout };
        let link = plan.connect().await?;
        let outbox = Outbox::new(self.outbox_bytes);
        let session = Session::new(plan, outbox.clone(), &link);
        // It ends with the last handle.
        tokio::spawn(session.run(link));
        Ok(Client::new(Arc::new(Alive(outbox))))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("host", &self.hello.host)
            .field("login", &self.hello.login)
            .finish_non_exhaustive()
    }
}

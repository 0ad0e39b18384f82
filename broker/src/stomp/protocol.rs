//! STOMP as one of the languages that the house is spoken to in.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tandem_protocols::stomp::codec::Limits;
use tandem_protocols::stomp::state::HeartBeat;

use crate::core::access::{Authenticator, Peer};
use crate::core::mailbox::Mailbox;
use crate::core::protocol::{Protocol, Recognition, Session};
use crate::core::queues::Credit;
use crate::core::realm::Realm;
use crate::stomp::session::StompSession;

/// The token of a session over a plain stream, which has no subprotocols.
pub const STREAM: &str = "stomp";

/// Which realm the `host` header of CONNECT names. Clients write all kinds of things there: what is
/// unknown means the default realm.
pub type Realms = Arc<dyn Fn(Option<&str>) -> Arc<Realm> + Send + Sync>;

/// What all STOMP sessions have in common.
#[derive(Clone)]
pub struct Settings {
    /// The realms.
    pub realms: Realms,
    /// Says who a peer is that says nothing. The pump asks it about those that do.
    pub authenticator: Arc<dyn Authenticator>,
    /// What is read of a peer that was not let in yet.
    pub stranger: Limits,
    /// What is read of one that was.
    pub established: Limits,
    /// What the server can do and what it wants, in milliseconds.
    pub heart_beat: HeartBeat,
    /// The `server` header of CONNECTED.
    pub server: Arc<str>,
    /// What a consumer may hold unsettled if it does not say.
    pub credit: Credit,
    /// The largest `prefetch-count`, in messages.
    pub prefetch_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Calls of one session that were not answered yet.
    pub calls_max: usize,
    /// Transactions of one session that are open.
    pub transactions_max: usize,
    /// What the open transactions of one session may hold, in bytes.
    pub transaction_bytes_max: usize,
}

impl Settings {
    /// The defaults.
    pub fn new(realms: Realms, authenticator: Arc<dyn Authenticator>) -> Settings {
        Settings {
            realms,
            authenticator,
            stranger: Limits { body_bytes_max: 0, ..Limits::default() },
            established: Limits::default(),
            heart_beat: HeartBeat { sends_ms: 10_000, wants_ms: 10_000 },
            server: concat!("tandem/", env!("CARGO_PKG_VERSION")).into(),
            credit: Credit { messages: 32, bytes: 1 << 20 },
            prefetch_max: 1024,
            subscriptions_max: 1000,
            calls_max: 1000,
            transactions_max: 16,
            transaction_bytes_max: 1 << 20,
        }
    }
}

/// The language.
pub struct Stomp {
    settings: Arc<Settings>,
}

impl Stomp {
    /// The language, spoken with these settings.
    pub fn new(settings: Settings) -> Stomp {
        Stomp { settings: Arc::new(settings) }
    }
}

impl fmt::Debug for Stomp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stomp").finish_non_exhaustive()
    }
}

impl Protocol for Stomp {
    fn tokens(&self) -> &'static [&'static str] {
        &["v12.stomp", "v11.stomp", "v10.stomp"]
    }

    fn recognize(&self, first: &[u8]) -> Recognition {
        // HTTP has a method CONNECT too, but a blank follows it.
        let begins = [&b"CONNECT\n"[..], b"CONNECT\r", b"STOMP\n", b"STOMP\r", b"\n", b"\r"];
        if begins.iter().any(|begin| first.starts_with(begin)) {
            Recognition::Yes(STREAM)
        } else if begins.iter().any(|begin| begin.starts_with(first)) {
            Recognition::Maybe
        } else {
            Recognition::No
        }
    }

    fn speaks(&self, token: &str) -> bool {
        token == STREAM || self.tokens().contains(&token)
    }

    /// The token does not say the version: the peer's CONNECT does.
    fn open(&self, _token: &'static str, peer: &Peer, mailbox: Mailbox, _now: Instant) -> Box<dyn Session> {
        Box::new(StompSession::new(self.settings.clone(), peer.clone(), mailbox))
    }
}

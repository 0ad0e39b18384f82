//! What all STOMP sessions have in common.

use std::sync::Arc;
use std::time::Duration;

use tandem_protocols::stomp::codec::Limits;
use tandem_protocols::stomp::state::HeartBeat;

use crate::core::access::Authenticator;
use crate::core::queues::Credit;
use crate::core::realms::Realms;
use crate::core::throttle::Throttle;

/// What all STOMP sessions have in common.
#[derive(Clone)]
pub struct Settings {
    /// The realms. The `host` header of CONNECT names one of them. Clients write all kinds of things there: what is
    /// unknown means the default realm.
    pub realms: Arc<Realms>,
    /// Says who a peer is that says nothing. The pump asks it about those that do.
    pub authenticator: Arc<dyn Authenticator>,
    /// Slows down those who guess.
    pub throttle: Arc<Throttle>,
    /// What is read of a peer that was not let in yet.
    pub stranger: Arc<Limits>,
    /// What is read of one that was.
    pub established: Arc<Limits>,
    /// What the server can do and what it wants, in milliseconds.
    pub heart_beat: HeartBeat,
    /// How long a frame may take to arrive whole.
    pub frame_time_max: Duration,
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
    pub fn new(realms: Arc<Realms>, authenticator: Arc<dyn Authenticator>) -> Settings {
        Settings {
            realms,
            authenticator,
            throttle: Arc::default(),
            stranger: Arc::new(Limits { body_bytes_max: 0, ..Limits::default() }),
            established: Arc::default(),
            heart_beat: HeartBeat { sends_ms: 500, wants_ms: 500 },
            frame_time_max: Duration::from_secs(30),
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

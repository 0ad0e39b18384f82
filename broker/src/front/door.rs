//! The door: what it was told, the languages behind it, and the opening of connections.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use tandem_protocols::wamp::rawsocket::Limit;
use tandem_protocols::websocket::extensions::Policy;
use tandem_protocols::websocket::origin::OriginPolicy;

use crate::core::access::{Authenticator, Peer};
use crate::core::mailbox::{Bounds, mailbox};
use crate::core::protocol::Protocol;
use crate::core::realm::Entropy;
use crate::front::connection::{Connection, Parts, Pump, PumpLimits};
use crate::front::gate::{Gate, Permit};
use crate::front::longpoll::asked::LongPollSettings;
use crate::front::longpoll::lanes::Lanes;
use crate::front::transport::Transport;
use crate::front::websocket::WebSocketLimits;
use crate::front::wire::Wire;

/// What the door is told.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// Times and sizes of the pump.
    pub pump: PumpLimits,
    /// What mailboxes hold.
    pub bounds: Bounds,
    /// What WebSocket peers may send.
    pub websocket: WebSocketLimits,
    /// The largest message over RawSocket.
    pub rawsocket_limit: Limit,
    /// Whether to compress.
    pub compression: Policy,
    /// Whose pages may connect.
    pub origins: OriginPolicy,
    /// The token that a WebSocket peer gets that names no subprotocol, if such peers are taken at all.
    pub default_token: Option<&'static str>,
    /// The only path that WebSocket is at, if there is only one.
    pub path: Option<String>,
    /// How long-polling is done, if it is.
    pub longpoll: Option<LongPollSettings>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Connections of strangers at a time.
    pub strangers_max: usize,
    /// Connections of strangers from one address at a time.
    pub strangers_per_address_max: usize,
}

/// The door.
pub struct Door {
    /// What it was told.
    pub settings: DoorSettings,
    /// The subprotocols of all languages.
    pub tokens: Vec<&'static str>,
    /// Ends what waits for a peer that has said nothing yet.
    pub shutdown: CancellationToken,
    /// All connections.
    pub tasks: TaskTracker,
    /// The languages.
    pub protocols: Vec<Arc<dyn Protocol>>,
    authenticator: Arc<dyn Authenticator>,
    pump: Arc<Pump>,
    /// The strangers in door of it.
    pub gate: Arc<Gate>,
    /// The transports of those who poll.
    pub lanes: Arc<Lanes>,
}

impl Door {
    /// A door to these languages.
    pub fn new(
        settings: DoorSettings,
        protocols: Vec<Arc<dyn Protocol>>,
        authenticator: Arc<dyn Authenticator>,
        entropy: Entropy,
    ) -> Arc<Door> {
        Arc::new(Door {
            tokens: protocols.iter().flat_map(|protocol| protocol.tokens()).copied().collect(),
            gate: Gate::new(settings.strangers_max, settings.strangers_per_address_max),
            lanes: Lanes::new(entropy),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            pump: Pump::new(settings.pump.clone()),
            settings,
            protocols,
            authenticator,
        })
    }

    /// Starts the pump of a connection.
    pub fn open<W: Wire>(
        &self,
        token: &'static str,
        transport: Transport,
        wire: W,
        peer: Peer,
        stranger: Option<Permit>,
        opened: Instant,
    ) {
        if let Some(connection) = self.connect(token, transport, wire, peer, stranger, opened) {
            self.tasks.spawn(connection);
        }
    }

    /// Makes the pump of a connection, for whoever runs it.
    pub fn connect<W: Wire>(
        &self,
        token: &'static str,
        transport: Transport,
        wire: W,
        peer: Peer,
        stranger: Option<Permit>,
        opened: Instant,
    ) -> Option<Connection<W>> {
        let Some(protocol) = self.protocols.iter().find(|protocol| protocol.speaks(token)) else {
            tracing::error!(%peer, token, "no language has this token");
            return None;
        };
        let (mailbox, inbox) = mailbox(self.settings.bounds);
        let mut session = protocol.open(token, &peer, mailbox, opened);
        if let Some(bytes_max) = transport.peer_bytes_max() {
            session.limit_messages(bytes_max);
        }
        tracing::debug!(%peer, token, "connection opened");
        Some(Connection::new(Parts {
            wire,
            transport,
            session,
            inbox,
            peer,
            authenticator: self.authenticator.clone(),
            pump: self.pump.clone(),
            stranger,
            opened,
        }))
    }
}

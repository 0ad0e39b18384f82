//! The door: what it was told, the languages behind it, and the opening of connections.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use tandem_protocols::wamp::rawsocket::Limit;
use tandem_protocols::websocket::origin::OriginPolicy;

use crate::core::access::{Authenticator, Peer, Presented};
use crate::core::mailbox::{Bounds, Service, Terms, mailbox_under};
use crate::core::protocol::Protocol;
use crate::core::realm::Entropy;
use crate::front::answer::{Answer, last, later};
use crate::front::compression::{CompressionSettings, Contexts};
use crate::front::connection::{Connection, Parts, Pump, PumpLimits};
use crate::front::files::Files;
use crate::front::gate::{Crowd, Gate, Permit};
use crate::front::hosts::HostPolicy;
use crate::front::longpoll::asked::LongPollSettings;
use crate::front::longpoll::lanes::Lanes;
use crate::front::proxies::Proxies;
use crate::front::readiness::{Readiness, Unready};
use crate::front::sockjs::asked::SockJsSettings;
use crate::front::sockjs::sessions::Sessions;
use crate::front::transport::Transport;
use crate::front::websocket::WebSocketLimits;
use crate::front::wire::Wire;
use crate::metrics;

/// What the door is told.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// Times and sizes of the pump.
    pub pump: PumpLimits,
    /// What mailboxes hold.
    pub bounds: Bounds,
    /// Whose messages go first.
    pub service: Service,
    /// What WebSocket peers may send.
    pub websocket: WebSocketLimits,
    /// The largest message over RawSocket.
    pub rawsocket_limit: Limit,
    /// Whether and how to compress.
    pub compression: CompressionSettings,
    /// Whose pages may connect.
    pub origins: OriginPolicy,
    /// The token that a WebSocket peer gets that names no subprotocol, if such peers are taken at all.
    pub default_token: Option<&'static str>,
    /// What HTTP is like.
    pub http: HttpSettings,
    /// Who may say for whom they speak.
    pub proxies: Arc<Proxies>,
    /// How long-polling is done, if it is.
    pub longpoll: Option<LongPollSettings>,
    /// How SockJS is done, if it is.
    pub sockjs: Option<SockJsSettings>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Of those whose peers were let in or may be, from one address.
    pub connections_per_address_max: usize,
    /// Connections that a listener takes in, in a second.
    pub accepts_per_second_max: u32,
    /// Connections of strangers at a time.
    pub strangers_max: usize,
    /// Connections of strangers from one address at a time.
    pub strangers_per_address_max: usize,
    /// What the health page asks about.
    pub ailments: Vec<Ailment>,
}

/// Something that the broker may come to suffer from.
#[derive(Clone, Debug)]
pub struct Ailment {
    /// Cancelled when it does.
    pub token: CancellationToken,
    /// What the health page says then, in a sentence.
    pub sentence: &'static str,
}

/// Who stands at the door, and what their opening handshake said of who they are.
pub struct Visitor {
    /// Who.
    pub peer: Peer,
    /// What was said, if anything.
    pub presented: Option<Presented>,
}

impl From<Peer> for Visitor {
    fn from(peer: Peer) -> Visitor {
        Visitor { peer, presented: None }
    }
}

/// What the door is told of HTTP.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// What every path begins with.
    pub prefix: String,
    /// The paths that WebSocket is at; any, where there are none.
    pub paths: Vec<String>,
    /// Under which names the broker may be asked for.
    pub hosts: HostPolicy,
    /// What is at all other paths.
    pub files: Option<Arc<Files>>,
    /// Requests with longer heads are refused.
    pub head_bytes_max: usize,
    /// Requests with more headers are refused.
    pub headers_max: usize,
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
    mailboxes: Arc<Terms>,
    /// The strangers in door of it.
    pub gate: Arc<Gate>,
    /// Places for those who compress with a context.
    pub contexts: Contexts,
    /// Those behind it, by their addresses.
    pub crowd: Arc<Crowd>,
    /// Whether there should come more.
    pub readiness: Arc<Readiness>,
    /// The transports of those who poll.
    pub lanes: Arc<Lanes>,
    /// The sessions of SockJS.
    pub sockjs: Arc<Sessions>,
    /// Numbers that nobody can guess.
    pub entropy: Entropy,
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
            crowd: Crowd::new(settings.connections_per_address_max),
            readiness: Arc::default(),
            lanes: Lanes::new(entropy.clone()),
            sockjs: Sessions::new(),
            entropy,
            contexts: Contexts::new(settings.compression.takeover_connections_max),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            pump: Pump::new(settings.pump.clone()),
            mailboxes: Arc::new(Terms { bounds: settings.bounds, service: settings.service }),
            settings,
            protocols,
            authenticator,
        })
    }

    /// The subprotocols of the language that has this token.
    pub fn tokens_beside(&self, token: &str) -> &'static [&'static str] {
        let protocol = self.protocols.iter().find(|protocol| protocol.speaks(token));
        protocol.map_or(&[], |protocol| protocol.tokens())
    }

    /// What somebody new is answered over HTTP, while no more are taken.
    pub fn refuse_new(&self, peer: &Peer) -> Option<Answer> {
        let why = match self.refuses() {
            Some(reason) => reason.line(),
            None if self.crowd.has_room(peer) => return None,
            None => "too many connections from this address\n",
        };
        metrics::CONNECTIONS_REFUSED.add(1);
        tracing::info!(%peer, reason = why.trim_end(), "nobody new is let in");
        Some(last(later(why)))
    }

    /// Why no more are taken, if so. What cannot be kept is refused one by one: for that alone nobody is.
    pub fn refuses(&self) -> Option<Unready> {
        [Unready::Draining, Unready::Memory].into_iter().find(|reason| self.readiness.is(*reason))
    }

    /// Starts the pump of a connection.
    pub fn open<W: Wire>(
        &self,
        token: &'static str,
        transport: Transport,
        wire: W,
        visitor: impl Into<Visitor>,
        stranger: Option<Permit>,
        opened: Instant,
    ) {
        if let Some(connection) = self.connect(token, transport, wire, visitor, stranger, opened) {
            self.tasks.spawn(Box::new(connection));
        }
    }

    /// Makes the pump of a connection, for whoever runs it.
    pub fn connect<W: Wire>(
        &self,
        token: &'static str,
        transport: Transport,
        wire: W,
        visitor: impl Into<Visitor>,
        stranger: Option<Permit>,
        opened: Instant,
    ) -> Option<Connection<W>> {
        let Visitor { peer, presented } = visitor.into();
        let Some(protocol) = self.protocols.iter().find(|protocol| protocol.speaks(token)) else {
            tracing::error!(%peer, token, "no language has this token");
            return None;
        };
        let Some(counted) = self.crowd.enter(&peer) else {
            metrics::CONNECTIONS_REFUSED.add(1);
            tracing::warn!(%peer, max = self.settings.connections_per_address_max, "too many connections from this address");
            return None;
        };
        let (mailbox, inbox) = mailbox_under(self.mailboxes.clone());
        let mut session = protocol.open(token, &peer, mailbox, opened);
        if let Some(bytes_max) = transport.peer_bytes_max() {
            session.limit_messages(bytes_max);
        }
        if let Some(presented) = presented {
            session.introduce(presented);
        }
        tracing::debug!(%peer, token, "connection opened");
        let connection = Connection::new(Parts {
            wire,
            transport,
            session,
            inbox,
            peer,
            authenticator: self.authenticator.clone(),
            pump: self.pump.clone(),
            stranger,
            opened,
        });
        Some(connection.counted(counted))
    }
}

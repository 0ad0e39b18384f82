//! The door: what it was told, the languages behind it, and the opening of connections.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use tandem_protocols::wamp::rawsocket::Limit;
use tandem_protocols::websocket::origin::OriginPolicy;

use crate::core::access::{Authenticator, Peer, Presented};
use crate::core::mailbox::{Bounds, Service, Terms, mailbox_under};
use crate::core::protocol::{Output, Protocol};
use crate::core::realm::Entropy;
use crate::front::compression::{CompressionSettings, Contexts};
use crate::front::connection::{Connection, Parts, Pump, PumpLimits, now};
use crate::front::executor::Executor;
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
use crate::front::unwelcome::Unwelcome;
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
    /// Runs those with a wire of their own.
    executor: Executor,
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
            executor: Executor::start(),
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

    /// Whether somebody new is taken, as far as their connection has a place. What cannot be kept is refused message by
    /// message: for that alone nobody is sent away.
    pub fn judge_new(&self, peer: &Peer) -> Result<(), Unwelcome> {
        let reasons = [Unready::Draining, Unready::Memory];
        match reasons.into_iter().find(|reason| self.readiness.is(*reason)) {
            Some(reason) => Err(self.refuse(peer, Unwelcome::Unready(reason))),
            None if self.crowd.has_room(peer) => Ok(()),
            None => Err(self.refuse(peer, Unwelcome::Address)),
        }
    }

    /// A place for a session that comes by requests of HTTP, whose connections are counted for themselves.
    pub fn admit_new(&self, peer: &Peer) -> Result<Permit, Unwelcome> {
        self.judge_new(peer)?;
        if self.shutdown.is_cancelled() {
            return Err(self.refuse(peer, Unwelcome::Unready(Unready::Draining)));
        }
        if self.tasks.len() >= self.settings.connections_max {
            return Err(self.refuse(peer, Unwelcome::Full));
        }
        self.gate.try_enter(peer).ok_or_else(|| self.refuse(peer, Unwelcome::Strangers))
    }

    /// Counts and logs that somebody is not taken in.
    pub fn refuse(&self, peer: &Peer, why: Unwelcome) -> Unwelcome {
        metrics::CONNECTIONS_REFUSED.add(1);
        match why {
            Unwelcome::Unready(reason) => {
                tracing::info!(%peer, reason = reason.line().trim_end(), "nobody new is let in");
            }
            Unwelcome::Full => {
                tracing::warn!(%peer, max = self.settings.connections_max, "too many connections");
            }
            Unwelcome::Address => {
                let max = self.settings.connections_per_address_max;
                tracing::warn!(%peer, max, "too many connections from this address");
            }
            Unwelcome::Strangers => tracing::warn!(%peer, "too many wait to be let in"),
            Unwelcome::NoLanguage => {}
        }
        why
    }

    /// What somebody is told who speaks so, in their language: of a session that ends before it began.
    pub fn last_words(&self, token: &'static str, peer: &Peer, why: Unwelcome) -> Bytes {
        let Some(protocol) = self.protocols.iter().find(|protocol| protocol.speaks(token)) else {
            return Bytes::new();
        };
        let (mailbox, _inbox) = mailbox_under(self.mailboxes.clone());
        let mut session = protocol.open(token, peer, mailbox, now());
        session.fail(why.line().trim_end(), now());
        let mut words = Vec::new();
        while let Some(output) = session.poll() {
            if let Output::Send(frame) = output {
                words.extend_from_slice(&frame.message().head);
                words.extend_from_slice(&frame.message().body);
            }
        }
        words.into()
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
        if let Ok(connection) = self.connect(token, transport, wire, visitor, stranger, opened) {
            self.executor.spawn(&self.tasks, connection);
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
    ) -> Result<Connection<W>, Unwelcome> {
        let Visitor { peer, presented } = visitor.into();
        let Some(protocol) = self.protocols.iter().find(|protocol| protocol.speaks(token)) else {
            tracing::error!(%peer, token, "no language has this token");
            return Err(Unwelcome::NoLanguage);
        };
        let Some(counted) = self.crowd.enter(&peer) else {
            return Err(self.refuse(&peer, Unwelcome::Address));
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
        Ok(connection.counted(counted))
    }
}

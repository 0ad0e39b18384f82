//! The configuration: as written in TOML, then as meant.
//!
//! A key that is not known is an error, with the known one that looks most like it. What is not written
//! has a safe default: the broker listens on this machine only, and nothing is without a limit.

pub mod front;
pub mod permissions;
pub mod tokens;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use tandem_protocols::wamp::rawsocket::Limit;
use tandem_protocols::websocket::deflate::{COMPRESS_BYTES_MIN, WindowBits};
use tandem_protocols::websocket::extensions::{Mode, Policy};
use tandem_protocols::websocket::message::Limits as MessageLimits;
use tandem_protocols::websocket::origin::OriginPolicy;

use crate::authenticator::{METHODS, ProcedureSettings};
use crate::config::front::{HttpConfig, MemoryConfig, OneOrMore, ProxiesConfig};
use crate::config::permissions::Permission;
use crate::config::tokens::TokensConfig;
use crate::core::access::{HOUSE_PREFIX, WAMP_PREFIX};
use crate::core::history::HistoryRule;
use crate::core::mailbox::{Bounds, Overflow, Service};
use crate::core::name::{InvalidName, Name, Pattern};
use crate::core::queues::durable::JournalLimits;
use crate::core::queues::{Credit, Properties, QueueLimits, WhenFull};
use crate::core::realm::RealmLimits;
use crate::core::realms::RealmPattern;
use crate::core::retained::RetainedLimits;
use crate::core::throttle::ThrottleLimits;
use crate::core::trust::TrustLevels;
use crate::front::certificates::{ClientAuthority, TlsFiles};
use crate::front::compression::CompressionSettings;
use crate::front::connection::PumpLimits;
use crate::front::door::{DoorSettings, HttpSettings};
use crate::front::longpoll::asked::LongPollSettings;
use crate::front::sockjs::asked::{Iframe, SockJsSettings};
use crate::front::websocket::WebSocketLimits;
use crate::store::disk::{StoreLimits, StoreSettings};
use crate::store::space::SpaceLimits;

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses to listen at, in the clear. By default port 8080 of this machine only, or none where `listen_tls`
    /// or `listen_unix` has some.
    pub listen: Vec<SocketAddr>,
    /// Addresses to listen at with TLS only.
    pub listen_tls: Vec<SocketAddr>,
    /// What TLS is spoken with.
    pub tls: Option<TlsConfig>,
    /// Unix sockets to listen at: paths of files that are made, and taken away at the end.
    pub listen_unix: Vec<PathBuf>,
    /// The mode of those files, in octal digits. By default `0660`: for the broker's user and group.
    pub unix_mode: Option<String>,
    /// What to log: `info`, or a filter such as `tandem_broker=debug`.
    pub log: Option<String>,
    /// Realms. The first is where STOMP clients go that name none of them. By default `realm1`.
    pub realms: Vec<String>,
    /// Realms that are made when the first session enters them.
    pub realm_patterns: Vec<RealmPatternConfig>,
    /// Topics of which past events are kept, in each realm, for `wamp.subscription.get_events`.
    pub history: Vec<HistoryConfig>,
    /// Queues that are there from the start and stay, in each realm.
    pub queues: Vec<QueueConfig>,
    /// Topics whose messages queues get, in each realm.
    pub bindings: Vec<BindingConfig>,
    /// Who is let in.
    pub authentication: Authentication,
    /// Tokens that say who somebody is.
    pub tokens: Option<TokensConfig>,
    /// Users.
    pub users: Vec<User>,
    /// Roles.
    pub roles: Vec<Role>,
    /// Who may do what. Where there are none, everybody who is let in may do everything.
    pub permissions: Vec<Spanned<Permission>>,
    /// HTTP.
    pub http: HttpConfig,
    /// Proxies that may say for whom they speak.
    pub proxies: ProxiesConfig,
    /// How much memory may be in use.
    pub memory: MemoryConfig,
    /// WebSocket.
    pub websocket: WebSocketConfig,
    /// WAMP.
    pub wamp: WampConfig,
    /// Long-polling.
    pub longpoll: LongPollConfig,
    /// SockJS.
    pub sockjs: SockJsConfig,
    /// STOMP.
    pub stomp: StompConfig,
    /// Persistent messages.
    pub store: StoreConfig,
    /// Limits.
    pub limits: Limits,
    /// What an application says that the broker is part of. Not of the file.
    #[serde(skip)]
    pub embedding: Embedding,
}

/// What an application brings along that the broker is part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Embedding {
    /// It is part of one. Then it listens where it is told to, and nowhere else.
    pub is_embedded: bool,
    /// The application has a store.
    pub has_store: bool,
    /// It knows users.
    pub has_authenticator: bool,
    /// It decides what permissions leave to an authorizer, or everything where there are none.
    pub has_authorizer: bool,
    /// The role of its own clients that say no name. By default they are anonymous like others of this machine.
    pub own_role: Option<String>,
}

/// What TLS is spoken with. The files are PEM, and are read again at a SIGHUP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The broker's certificate, and the intermediate ones after it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose certificates clients may show.
    pub client_ca: Option<PathBuf>,
    /// Whether clients are asked for certificates.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    Off,
    /// They are, and may have none.
    Optional,
    /// Who has none is turned away.
    Required,
}

/// Realms that are made when the first session enters them, and go when they are empty.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealmPatternConfig {
    /// What their names are matched with.
    pub pattern: String,
    /// How: by `prefix` or `wildcard`.
    #[serde(rename = "match")]
    pub policy: Match,
    /// How many at a time. By default 1000.
    pub realms_max: Option<usize>,
    /// How long one may be empty, in seconds. By default 60.
    pub idle_s: Option<u64>,
}

/// Where persistent messages are kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// A directory of this broker's own, which is made if need be. By default persistent messages are kept in
    /// memory like others.
    pub path: Option<PathBuf>,
    /// Whether persistent messages are refused where there is no path.
    pub required: bool,
    /// Bytes that are left free on the disk: with less, persistent messages are refused. By default 1 GiB.
    pub free_bytes_min: Option<u64>,
    /// The same in percent of the disk; whichever is more counts. By default 5, but not more than 4 GiB.
    pub free_percent_min: Option<u64>,
    /// Bytes of messages that may wait for the disk before those who send are no longer read. By default 16 MiB.
    pub backlog_bytes_max: Option<usize>,
    /// Bytes of stored messages of one queue that are kept in memory as well. By default 1 MiB.
    pub window_bytes_max: Option<usize>,
    /// The same for all queues of a realm. By default 256 MiB.
    pub windows_bytes_max: Option<usize>,
    /// Topics whose retained messages are kept there too, whether their publishers say `persistent` or not.
    pub retained: Vec<TopicsConfig>,
    /// What the broker does when the store fails: end with an error, or go on without. By default it ends.
    pub on_failure: OnStoreFailure,
}

/// Topics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicsConfig {
    /// The topic, or what is matched.
    pub pattern: String,
    /// How topics are matched.
    #[serde(default, rename = "match")]
    pub policy: Match,
}

/// What the broker does when the store fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreFailure {
    /// Tell everybody, and end with an error.
    #[default]
    Exit,
    /// Go on with what needs no store, until it is told to end.
    Serve,
}

/// Topics that have a history.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryConfig {
    /// The topic, or what is matched.
    pub pattern: String,
    /// How topics are matched.
    #[serde(default, rename = "match")]
    pub policy: Match,
    /// How many events are kept; the oldest go first. By default 1000.
    #[serde(default = "default_history")]
    pub limit: usize,
    /// Whether they are kept in the store too. By default they are not.
    #[serde(default)]
    pub durable: bool,
}

fn default_history() -> usize {
    1000
}

/// How topics are matched.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// By their whole name.
    #[default]
    Exact,
    /// By how they begin.
    Prefix,
    /// By components, of which those that are empty may be anything.
    Wildcard,
}

/// A queue, with the words of STOMP's headers without their `x-`. Times are in milliseconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueConfig {
    /// Its name, as in `/queue/<name>`.
    pub name: String,
    /// How long a message may lie in it.
    pub message_ttl: Option<u64>,
    /// How many messages it may hold.
    pub max_length: Option<u64>,
    /// How many bytes it may hold.
    pub max_length_bytes: Option<u64>,
    /// What to do with a message that it has no room for. By default `reject-publish`.
    #[serde(default)]
    pub overflow: QueueOverflow,
    /// Its highest priority.
    pub max_priority: Option<u8>,
    /// The queue for what is rejected, comes back too often, is too old or has no room. By default what is
    /// rejected or comes back too often goes to the queue `dlq.<name>`.
    pub dead_letter_routing_key: Option<String>,
    /// How often a message may come back. By default 20.
    pub delivery_limit: Option<u32>,
    /// How long a message that comes back rests; twice as long each time. By default not at all.
    pub redelivery_delay: Option<u64>,
    /// How long at most. By default a minute.
    pub redelivery_delay_max: Option<u64>,
    /// How many of the last messages that it took it keeps for those who ask for them by `from-seq`. By default
    /// none.
    pub keep: Option<u64>,
}

/// What to do with a message that a queue has no room for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueOverflow {
    /// Refuse it.
    #[default]
    RejectPublish,
    /// Drop the oldest that nobody holds.
    DropHead,
}

/// Topics whose messages a queue gets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingConfig {
    /// The topic, or what is matched.
    pub topic: String,
    /// How topics are matched.
    #[serde(default, rename = "match")]
    pub policy: Match,
    /// The queue. If it is none of `[[queues]]`, it is made, and stays.
    pub queue: String,
}

/// Who is let in without saying who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Whoever connects from this machine.
    #[default]
    Loopback,
    /// Everybody.
    Everywhere,
    /// Nobody.
    Never,
}

/// Who is let in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authentication {
    /// Without saying who they are. To listen at other than loopback addresses this must be written.
    pub anonymous: Option<Anonymous>,
    /// Whether WAMP's tickets and STOMP's passcodes, which are sent as they are, are only taken over TLS and
    /// from this machine.
    pub tickets_need_tls: bool,
    /// A procedure that is asked about users that are not in this file.
    pub authenticator: Option<String>,
    /// The realm that it is in. By default the one that the client wants.
    pub authenticator_realm: Option<String>,
    /// The methods that it serves, STOMP's logins as `ticket`. By default `ticket`, `wampcra`, `scram`, `wamp-scram`
    /// and `cryptosign`.
    pub authenticator_methods: Option<Vec<String>>,
    /// How long it may take, in seconds. By default 5.
    pub authenticator_time_s: Option<u64>,
}

/// A user. Each has one way to prove who they are, or several.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name: WAMP's authid, STOMP's login.
    pub name: String,
    /// The role, for permissions.
    #[serde(default = "default_role")]
    pub role: String,
    /// The password, for WAMP's tickets and STOMP's logins, as `tandem hash-password` prints it.
    pub password: Option<String>,
    /// For WAMP-CRA, as `tandem hash-password --for wampcra` prints it. It is a secret: who has it can pass for
    /// the user.
    pub wampcra: Option<String>,
    /// For WAMP's SCRAM, as `tandem hash-password --for wamp-scram` prints it, and `--for scram` for clients of
    /// autobahn.
    #[serde(default)]
    pub scram: Vec<String>,
    /// Public keys for WAMP's cryptosign, of 64 hexadecimal digits each.
    #[serde(default)]
    pub cryptosign: Vec<String>,
    /// Certificates that the client may show: `sha256:` and the fingerprint, or `dns:` or `email:` and an
    /// alternative name of the subject, as it is in the certificate.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// How far the user is trusted: goes with what they publish and call. By default that of the role.
    pub trust_level: Option<u32>,
}

/// A role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// The name.
    pub name: String,
    /// How far those who have it are trusted. By default nothing is said of it.
    pub trust_level: Option<u32>,
}

impl User {
    /// A user of this name and role, who has no way yet to prove who they are.
    pub fn named(name: impl Into<String>, role: impl Into<String>) -> User {
        User {
            name: name.into(),
            role: role.into(),
            password: None,
            wampcra: None,
            scram: Vec::new(),
            cryptosign: Vec::new(),
            certificates: Vec::new(),
            trust_level: None,
        }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

fn default_role() -> String {
    "user".into()
}

/// WebSocket.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocketConfig {
    /// The only path to connect to, or a list of them; below `http.prefix`. By default any.
    pub path: Option<OneOrMore>,
    /// Whose pages may connect: `scheme://host[:port]`, `https://*.example.com`, `same-origin` or `*`. By
    /// default `same-origin`.
    pub allowed_origins: Option<Vec<String>>,
    /// Whether pages without an origin (sandboxed, from files) may connect.
    pub allow_null_origin: bool,
    /// Whether everybody must have an origin, as only browsers do.
    pub require_origin: bool,
    /// Whether a client must name a subprotocol. If not, one that names none is taken to speak STOMP, as
    /// stomp.py does; one that names only others is refused in any case.
    pub require_subprotocol: bool,
    /// permessage-deflate.
    pub compression: Compression,
    /// Shorter messages are not compressed. By default 256 bytes.
    pub compress_bytes_min: Option<usize>,
    /// Whether messages may refer to earlier ones of their connection.
    pub takeover: Takeover,
    /// Connections that do so at a time; with those beyond them it is not agreed on. By default 1000.
    pub takeover_connections_max: Option<usize>,
    /// The largest window to compress with, 9 to 15. By default 15.
    pub server_max_window_bits: Option<u8>,
    /// The largest window that clients are asked to compress with, as far as they can be asked, 9 to 15. By
    /// default 15.
    pub client_max_window_bits: Option<u8>,
    /// What a message of more than 64 KiB may measure over its compressed form. By default 1032, as much as DEFLATE can; of
    /// strangers 32 at most.
    pub inflate_ratio_max: Option<u32>,
    /// Whether Safari before 15 gets its `x-webkit-deflate-frame`.
    pub legacy_deflate_frame: bool,
    /// What in a `User-Agent` says that its compression and its fragments do not work: it gets neither. By
    /// default Safari 15.0 to 15.3, and what is built on it.
    pub no_compression_user_agents: Option<Vec<String>>,
    /// Silence after which a ping is sent, in seconds. By default 25.
    pub ping_interval_s: Option<u64>,
    /// Time to answer a ping, in seconds. By default 10.
    pub pong_timeout_s: Option<u64>,
    /// Fragments of one message. By default 1024.
    pub message_fragments_max: Option<u32>,
    /// Longer messages are sent in fragments of so many bytes, so that pings pass between them. By default 65,536.
    pub fragment_bytes: Option<u32>,
}

/// permessage-deflate.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Never.
    Off,
    /// With whoever offers it.
    #[default]
    Offered,
    /// Whoever does not offer it is refused.
    Required,
}

/// Context takeover.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Takeover {
    /// Each message is compressed by itself: once for all who get it.
    #[default]
    None,
    /// Each connection has contexts of its own: better for a few peers with small messages that are alike.
    PerConnection,
}

/// Of Safari 15.0 to 15.3, whose WebSockets break on compressed messages and on long ones in fragments, and of
/// the other browsers on iOS of that time, which are made of the same.
const PLAIN_AGENTS: [&str; 8] = [
    "Version/15.0",
    "Version/15.1",
    "Version/15.2",
    "Version/15.3",
    "OS 15_0",
    "OS 15_1",
    "OS 15_2",
    "OS 15_3",
];

/// WAMP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WampConfig {
    /// Whether a client must number its requests 1, 2, 3 and so on, as the specification says. Some clients in
    /// use do not.
    pub strict_request_ids: bool,
    /// Whether URIs must be of lower-case letters, digits and underscores, as the specification recommends.
    pub strict_uris: bool,
}

/// Long-polling over HTTP. Whose pages may do it, `websocket.allowed_origins` says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LongPollConfig {
    /// Whether there is any. By default there is.
    pub enabled: Option<bool>,
    /// What its paths begin with. By default `/lp`.
    pub path: Option<String>,
    /// How long a receive is held open, in seconds: shorter than any proxy or client on the way waits. By
    /// default 10, as autobahn waits 12.
    pub receive_time_s: Option<u64>,
    /// How long a session lives without a receive, in seconds. By default 30.
    pub session_time_s: Option<u64>,
}

/// SockJS, for STOMP. Whose pages may use it, `websocket.allowed_origins` says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SockJsConfig {
    /// Whether there is any. By default there is.
    pub enabled: Option<bool>,
    /// What its paths begin with: the address that sockjs-client is given. By default `/sockjs`.
    pub path: Option<String>,
    /// Silence after which a client gets a heart-beat, in seconds: shorter than any proxy on the way waits. By
    /// default 25. Over WebSocket, `websocket.ping_interval_s` says it.
    pub heart_beat_s: Option<u64>,
    /// How long a session lives while its client receives nothing, in seconds. By default 5.
    pub disconnect_delay_s: Option<u64>,
    /// Bytes of one response of the streaming transports; the client asks for another after that. By default 131072.
    pub stream_bytes_max: Option<usize>,
    /// Whether WebSocket is among its transports. By default it is.
    pub websocket: Option<bool>,
    /// Where `iframe.html` gets sockjs-client from. By default there is no such page: only browsers without CORS need
    /// one.
    pub client_url: Option<String>,
}

/// STOMP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StompConfig {
    /// The shortest interval between heart-beats, either way, in milliseconds: a client gets the interval
    /// that it asks for, or this. By default 500.
    pub heart_beat_ms: Option<u32>,
    /// Messages that a consumer may hold unacknowledged unless it says otherwise. By default 32.
    pub prefetch: Option<usize>,
}

/// What to do about a subscriber that does not keep up.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlowSubscriber {
    /// End its session.
    #[default]
    Disconnect,
    /// Drop its oldest events.
    DropOldest,
    /// Drop its newest events.
    DropNewest,
}

/// Limits. Sizes are in bytes, times in seconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time, and at most 64 more until they are told so or had one answer of HTTP. By default 1,000,000.
    pub connections_max: Option<usize>,
    /// Of those, from one address (of IPv6, one network of 64 bits) that is not this machine. By default 10,000.
    pub connections_per_address_max: Option<usize>,
    /// Connections that a listener takes in, in a second; those that come faster wait. By default 2000.
    pub accepts_per_second_max: Option<u32>,
    /// Connections of peers that were not let in yet. By default 4096.
    pub strangers_max: Option<usize>,
    /// Of those, from one address that is not this machine. By default 64.
    pub strangers_per_address_max: Option<usize>,
    /// Time to be let in. By default 10.
    pub stranger_time_s: Option<u64>,
    /// TLS handshakes that are computed at a time. By default four times the number of processors.
    pub tls_handshakes_max: Option<usize>,
    /// Bytes that a peer may send before it is let in. By default 65,536.
    pub stranger_bytes_max: Option<usize>,
    /// Fragments of one message of such a peer. By default 64.
    pub stranger_fragments_max: Option<u32>,
    /// The head of a request of HTTP. By default 16 KiB, and at least 8 KiB.
    pub head_bytes_max: Option<usize>,
    /// Headers in it. By default 64.
    pub headers_max: Option<usize>,
    /// The size of a message. By default 1 MiB.
    pub message_bytes_max: Option<usize>,
    /// Time for a message to arrive whole. By default 30.
    pub message_time_s: Option<u64>,
    /// Bytes of answers that a peer may leave unread before it is not read either. By default 256 KiB.
    pub owed_bytes_max: Option<usize>,
    /// How long a peer may take to answer a goodbye. By default 5.
    pub close_time_s: Option<u64>,
    /// How long is read on after that, so that the last words arrive. By default 1.
    pub linger_time_s: Option<u64>,
    /// Bytes waiting for a session that it may keep waiting only for `slow_time_s`. By default 1 MiB, and no more than a quarter of
    /// `mailbox_bytes_max`.
    pub mailbox_bytes_soft_max: Option<usize>,
    /// Bytes waiting for a session. By default 4 MiB.
    pub mailbox_bytes_max: Option<usize>,
    /// How long a mailbox may be over its soft limit. By default 5.
    pub slow_time_s: Option<u64>,
    /// How long a publisher waits at a time while most of those that it publishes to are over that limit; 0: it does
    /// not. By default 5.
    pub pace_time_s: Option<u64>,
    /// Whether senders take turns where much waits for a session. Off, it is first come, first served: to measure
    /// the difference. By default on.
    pub fair: Option<bool>,
    /// What to do when a mailbox is full.
    pub slow_subscriber: SlowSubscriber,
    /// Sessions in a realm. By default 1,000,000.
    pub sessions_max: Option<usize>,
    /// Subscriptions of a session. By default 1000.
    pub subscriptions_max: Option<usize>,
    /// Registrations of a session. By default 1000.
    pub registrations_max: Option<usize>,
    /// Consumers of a session. By default 1000.
    pub consumers_max: Option<usize>,
    /// Bytes of topic messages on their way in a realm, before publishers are slowed. By default 256 MiB.
    pub in_flight_bytes_max: Option<usize>,
    /// Topics of a realm that keep their last message. By default 10,000.
    pub retained_max: Option<usize>,
    /// Bytes that they keep. By default 64 MiB.
    pub retained_bytes_max: Option<usize>,
    /// Queues in a realm. By default 10,000.
    pub queues_max: Option<usize>,
    /// Messages in a queue. By default 1,000,000.
    pub queue_messages_max: Option<usize>,
    /// Bytes in a queue. By default 256 MiB.
    pub queue_bytes_max: Option<usize>,
    /// Bytes in all queues of a realm. By default 1 GiB.
    pub queues_bytes_max: Option<usize>,
    /// Time for a drain at shutdown. By default 30.
    pub drain_time_s: Option<u64>,
    /// The part of it over which the goodbyes are spread, so that not everybody comes back at once. By default 20, or half of
    /// `drain_time_s` where that is less; for less than 2000 sessions a hundredth of a second each.
    pub drain_spread_s: Option<u64>,
    /// How long before it `/ready` says that the broker is going to end, while all goes on and new clients are served. By
    /// default 0.
    pub drain_delay_s: Option<u64>,
    /// Failed logins of a user at an address, or of an address, before further ones have to wait. By default 5.
    pub login_failures_max: Option<u32>,
    /// Failed logins of everybody in a second. By default 50.
    pub login_failures_per_second_max: Option<u32>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is not what a configuration looks like.
    #[error("{0}")]
    Malformed(String),
    /// It is not safe, or not possible.
    #[error("{0}")]
    Refused(String),
}

/// How the broker ends.
#[derive(Clone, Copy, Debug)]
pub struct DrainSettings {
    /// How long it goes on as if nothing were, but for `/ready`.
    pub delay: Duration,
    /// How long goodbyes may take after that.
    pub time_max: Duration,
    /// The part of that over which they are spread.
    pub spread: Duration,
}

/// What the HTTP library reads a head with at least.
const HEAD_BYTES_LEAST: usize = 8 * 1024;

const MIB: usize = 1024 * 1024;

/// Shorter fragments would cost more than they are good for.
const FRAGMENT_BYTES_MIN: u32 = 1024;

/// The port of the default address.
const PORT: u16 = 8080;

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.display().to_string(), error })?;
        Config::parse(&text).map_err(|error| ConfigError::Malformed(format!("{}: {error}", path.display())))
    }

    /// Parses the text of a file.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let text = error.to_string();
            let hint = suggestion(error.message()).unwrap_or_default();
            ConfigError::Malformed(format!("{}{hint}", text.trim_end()))
        })
    }

    /// Checks what no single key can tell.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.authentication.anonymous == Some(Anonymous::Never)
            && self.users.is_empty()
            && self.tokens.is_none()
            && self.authentication.authenticator.is_none()
            && !self.embedding.has_authenticator
            && self.embedding.own_role.is_none()
        {
            return Err(ConfigError::Refused(
                "nobody could connect: anonymous = \"never\", and there are no [[users]] and no [tokens]"
                    .into(),
            ));
        }
        self.authenticator()?;
        self.tokens()?;
        self.realm_patterns()?;
        self.trust()?;
        self.origins()?;
        self.history()?;
        self.retained_durably()?;
        self.check_permissions()?;
        self.queues()?;
        self.bindings()?;
        self.unix_mode()?;
        self.longpoll()?;
        self.sockjs()?;
        self.tls()?;
        self.proxies()?;
        self.hosts()?;
        self.prefix()?;
        self.websocket_paths()?;
        self.files()?;
        self.memory()?;
        self.drain()?;
        let addresses = self.addresses().into_iter().chain(self.listen_tls.iter().copied());
        let open: Vec<_> = addresses.filter(|a| !a.ip().to_canonical().is_loopback()).collect();
        if !open.is_empty() && self.authentication.anonymous.is_none() {
            return Err(ConfigError::Refused(format!(
                "to listen at {}, which others can reach, say who is let in. In the configuration file:\n\n  \
                 [authentication]\n  anonymous = \"never\"       # or \"loopback\", or \"everywhere\" for a \
                 network that you trust\n\n  [[users]]\n  name = \"alice\"\n  password = \"...\"          # from \
                 `tandem hash-password`\n",
                open[0]
            )));
        }
        if self.store.path.is_some() && self.embedding.has_store {
            return Err(ConfigError::Refused("store.path: the application has a store of its own".into()));
        }
        if self.store.free_percent_min.is_some_and(|percent| percent > 100) {
            return Err(ConfigError::Refused("store.free_percent_min is a percentage: 0 to 100".into()));
        }
        Ok(())
    }

    /// The procedure that is asked about users that are not known here, if there is one.
    pub fn authenticator(&self) -> Result<Option<ProcedureSettings>, ConfigError> {
        let Authentication { authenticator, authenticator_realm: realm, .. } = &self.authentication;
        let refused = |why: String| Err(ConfigError::Refused(format!("authentication.{why}")));
        let Some(text) = authenticator else { return Ok(None) };
        let procedure = match Name::parse(text) {
            Ok(procedure) => procedure,
            Err(why) => return refused(format!("authenticator: {text:?} {why}")),
        };
        if let Some(realm) = realm
            && !self.realms().contains(realm)
        {
            return refused(format!("authenticator_realm: {realm:?} is not among the realms"));
        }
        if realm.is_none() && !self.realm_patterns.is_empty() {
            return refused("authenticator_realm: it must be in a realm that there always is".into());
        }
        let methods = self.authentication.authenticator_methods.clone();
        let methods = methods.unwrap_or_else(|| METHODS.map(str::to_owned).to_vec());
        if let Some(unknown) = methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return refused(format!(
                "authenticator_methods: there is no {unknown:?} among {}",
                METHODS.join(", ")
            ));
        }
        let time_max = Duration::from_secs(self.authentication.authenticator_time_s.unwrap_or(5).max(1));
        let realm = realm.as_deref().map(Arc::from);
        Ok(Some(ProcedureSettings { procedure, realm, methods, time_max }))
    }

    /// Where to listen in the clear.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let elsewhere = !self.listen_tls.is_empty() || !self.listen_unix.is_empty();
        if !self.listen.is_empty() || elsewhere || self.embedding.is_embedded {
            return self.listen.clone();
        }
        vec![SocketAddr::from(([127, 0, 0, 1], PORT))]
    }

    /// What to listen with at the addresses of TLS, if there are any.
    pub fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let refused = |text: String| Err(ConfigError::Refused(text));
        let files = match (&self.tls, self.listen_tls.is_empty()) {
            (None, true) => None,
            (None, false) => {
                return refused(format!(
                    "to listen with TLS at {}, say by which certificate. In the configuration file:\n\n  \
                     [tls]\n  certificate = \"...\"       # the chain, PEM\n  key = \"...\"               # \
                     PEM\n",
                    self.listen_tls[0]
                ));
            }
            (Some(_), true) => {
                return refused(
                    "there is a section [tls], but no address to use it at: listen_tls = [\"...\"]".into(),
                );
            }
            (Some(tls), false) => {
                let clients = tls.clients()?;
                Some(TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone(), clients })
            }
        };
        let asked = files.as_ref().is_some_and(|files| files.clients.is_some());
        match self.users.iter().find(|user| !user.certificates.is_empty()) {
            Some(user) if !asked => refused(format!(
                "user {:?} has certificates, but nobody is asked for one: tls.client_certificates and \
                 tls.client_ca",
                user.name
            )),
            _ => Ok(files),
        }
    }

    /// TLS handshakes that are computed at a time.
    pub fn tls_handshakes_max(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, |number| number.get());
        self.limits.tls_handshakes_max.unwrap_or(4 * processors)
    }

    /// An address where passwords or tokens are taken in the clear, and that others can reach.
    pub fn exposes_passwords(&self) -> Option<SocketAddr> {
        let has_secrets = self.tokens.is_some() || self.users.iter().any(|user| user.password.is_some());
        if self.authentication.tickets_need_tls || !has_secrets {
            return None;
        }
        self.addresses().into_iter().find(|address| !address.ip().to_canonical().is_loopback())
    }

    /// The mode of Unix sockets.
    pub fn unix_mode(&self) -> Result<u32, ConfigError> {
        let Some(text) = &self.unix_mode else { return Ok(0o660) };
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.filter(|_| !text.starts_with('+')).ok_or_else(|| {
            ConfigError::Refused(format!("unix_mode: {text:?} is not three octal digits, such as \"0660\""))
        })
    }

    /// The realms, the default first.
    pub fn realms(&self) -> Vec<String> {
        if self.realms.is_empty() { vec!["realm1".into()] } else { self.realms.clone() }
    }

    /// The realms that are made on first use.
    pub fn realm_patterns(&self) -> Result<Vec<RealmPattern>, ConfigError> {
        let refused = |text: &str, why: &str| {
            ConfigError::Refused(format!("realm_patterns: the pattern {text:?} {why}"))
        };
        let made = |written: &RealmPatternConfig| {
            let text = &written.pattern;
            let pattern = match written.policy {
                Match::Exact => return Err(refused(text, "is exact: name that realm in `realms`")),
                Match::Prefix => Pattern::prefix(text),
                Match::Wildcard => Pattern::wildcard(text),
            };
            Ok(RealmPattern {
                pattern: pattern.map_err(|why| refused(text, &why.to_string()))?,
                realms_max: written.realms_max.unwrap_or(1000),
                idle_time_max: Duration::from_secs(written.idle_s.unwrap_or(60)),
            })
        };
        self.realm_patterns.iter().map(made).collect()
    }

    /// How far users and roles are trusted.
    pub fn trust(&self) -> Result<TrustLevels, ConfigError> {
        let mut names: Vec<&str> = self.roles.iter().map(|role| role.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Refused(format!("role {:?} is there twice", twice[0])));
        }
        let users = self.users.iter().filter_map(|user| Some((user.name.clone(), user.trust_level?)));
        let roles = self.roles.iter().filter_map(|role| Some((role.name.clone(), role.trust_level?)));
        Ok(TrustLevels::new(users, roles))
    }

    /// The queues that are there from the start.
    pub fn queues(&self) -> Result<Vec<(Name, Properties)>, ConfigError> {
        let queue = |queue: &QueueConfig| {
            let dead_letters = queue.dead_letter_routing_key.as_deref().map(queue_name).transpose()?;
            let properties = Properties {
                message_ttl_ms: queue.message_ttl,
                messages_max: queue.max_length,
                bytes_max: queue.max_length_bytes,
                when_full: Some(match queue.overflow {
                    QueueOverflow::RejectPublish => WhenFull::Reject,
                    QueueOverflow::DropHead => WhenFull::DropHead,
                }),
                priority_max: queue.max_priority,
                unused_ms_max: None,
                dead_letters,
                delivery_limit: queue.delivery_limit,
                backoff_ms: queue.redelivery_delay,
                backoff_ms_max: queue.redelivery_delay_max,
                kept_max: queue.keep,
            };
            Ok((queue_name(&queue.name)?, properties))
        };
        let queues = self.queues.iter().map(queue).collect::<Result<Vec<_>, ConfigError>>()?;
        for (at, (name, _)) in queues.iter().enumerate() {
            if queues[..at].iter().any(|(known, _)| known == name) {
                let name = name.as_str();
                return Err(ConfigError::Refused(format!("queues: {name:?} is there twice")));
            }
        }
        Ok(queues)
    }

    /// Which topics' messages go into which queues.
    pub fn bindings(&self) -> Result<Vec<(Pattern, Name)>, ConfigError> {
        let binding = |BindingConfig { topic, policy, queue }: &BindingConfig| {
            let refused = |why| ConfigError::Refused(format!("bindings: the topic {topic:?}: {why}"));
            Ok((pattern(*policy, topic).map_err(refused)?, queue_name(queue)?))
        };
        self.bindings.iter().map(binding).collect()
    }

    /// What is kept of the past.
    pub fn history(&self) -> Result<Vec<HistoryRule>, ConfigError> {
        let rule = |HistoryConfig { pattern: text, policy, limit, durable }: &HistoryConfig| {
            let refused = |why| ConfigError::Refused(format!("history: the pattern {text:?}: {why}"));
            let (pattern, durable) = (pattern(*policy, text).map_err(refused)?, *durable);
            if durable && !self.has_store() {
                return Err(ConfigError::Refused(format!(
                    "history: the pattern {text:?}: durable = true needs a [store] with a path"
                )));
            }
            Ok(HistoryRule { pattern, events_max: *limit, durable })
        };
        let rules = self.history.iter().map(rule).collect::<Result<Vec<_>, ConfigError>>()?;
        for (at, HistoryRule { pattern, .. }) in rules.iter().enumerate().filter(|(_, rule)| rule.durable) {
            if rules[..at].iter().any(|other| other.durable && other.pattern == *pattern) {
                let text = pattern.as_str();
                return Err(ConfigError::Refused(format!("history: the pattern {text:?} is durable twice")));
            }
        }
        Ok(rules)
    }

    /// The topics whose retained messages are in the store, whatever their publishers say.
    pub fn retained_durably(&self) -> Result<Vec<Pattern>, ConfigError> {
        let refused = |text: &str, why: &str| {
            ConfigError::Refused(format!("store.retained: the pattern {text:?}: {why}"))
        };
        let one = |TopicsConfig { pattern: text, policy }: &TopicsConfig| {
            if !self.has_store() {
                return Err(refused(text, "the [store] needs a path"));
            }
            pattern(*policy, text).map_err(|why| refused(text, &why.to_string()))
        };
        self.store.retained.iter().map(one).collect()
    }

    /// The size of a message.
    pub fn message_bytes_max(&self) -> usize {
        self.limits.message_bytes_max.unwrap_or(MIB)
    }

    /// How long a message may take to arrive whole.
    pub fn message_time(&self) -> Duration {
        Duration::from_secs(self.limits.message_time_s.unwrap_or(30))
    }

    /// What a peer may send before it is let in.
    pub fn stranger_bytes_max(&self) -> usize {
        self.limits.stranger_bytes_max.unwrap_or(64 * 1024)
    }

    /// What a consumer may hold unless it says otherwise.
    pub fn credit(&self) -> Credit {
        Credit { messages: self.stomp.prefetch.unwrap_or(32).max(1), bytes: MIB }
    }

    /// How the broker ends.
    pub fn drain(&self) -> Result<DrainSettings, ConfigError> {
        let Limits { drain_time_s, drain_spread_s, drain_delay_s, .. } = self.limits;
        let time_s = drain_time_s.unwrap_or(30);
        if drain_spread_s.is_some_and(|spread_s| spread_s > time_s) {
            let why = "limits.drain_spread_s is a part of drain_time_s, and cannot be longer";
            return Err(ConfigError::Refused(why.into()));
        }
        let spread = Duration::from_secs(time_s) / 2;
        Ok(DrainSettings {
            delay: Duration::from_secs(drain_delay_s.unwrap_or(0)),
            time_max: Duration::from_secs(time_s),
            spread: drain_spread_s.map_or(spread.min(Duration::from_secs(20)), Duration::from_secs),
        })
    }

    /// When logins are slowed down.
    pub fn throttle(&self) -> ThrottleLimits {
        let default = ThrottleLimits::default();
        ThrottleLimits {
            failures_max: self.limits.login_failures_max.unwrap_or(default.failures_max),
            failures_per_second_max: self
                .limits
                .login_failures_per_second_max
                .unwrap_or(default.failures_per_second_max),
            ..default
        }
    }

    /// What a realm allows.
    pub fn realm_limits(&self) -> RealmLimits {
        let limits = &self.limits;
        RealmLimits {
            sessions_max: limits.sessions_max.unwrap_or(1_000_000),
            subscriptions_max: limits.subscriptions_max.unwrap_or(1000),
            registrations_max: limits.registrations_max.unwrap_or(1000),
            consumers_max: limits.consumers_max.unwrap_or(1000),
            in_flight_bytes_max: limits.in_flight_bytes_max.unwrap_or(256 * MIB),
            retained: RetainedLimits {
                messages_max: limits.retained_max.unwrap_or(10_000),
                bytes_max: limits.retained_bytes_max.unwrap_or(64 * MIB),
            },
            queues: QueueLimits {
                queues_max: limits.queues_max.unwrap_or(10_000),
                messages_max: limits.queue_messages_max.unwrap_or(1_000_000),
                bytes_max: limits.queue_bytes_max.unwrap_or(256 * MIB),
                total_bytes_max: limits.queues_bytes_max.unwrap_or(1024 * MIB),
            },
        }
    }

    /// What the store is opened with, if there is one.
    pub fn store(&self) -> Option<StoreSettings> {
        let space = SpaceLimits {
            free_bytes_min: self.store.free_bytes_min.unwrap_or(1024 * MIB as u64),
            free_percent_min: self.store.free_percent_min.unwrap_or(5),
            free_percent_bytes_max: self.store.free_percent_min.map_or(4096 * MIB as u64, |_| u64::MAX),
        };
        let limits = StoreLimits::new(space);
        self.store.path.clone().map(|directory| StoreSettings { directory, limits })
    }

    fn has_store(&self) -> bool {
        self.store.path.is_some() || self.embedding.has_store
    }

    /// How much of what is stored a realm has in memory.
    pub fn journal_limits(&self) -> JournalLimits {
        JournalLimits {
            backlog_bytes_max: self.store.backlog_bytes_max.unwrap_or(16 * MIB),
            window_bytes_max: self.store.window_bytes_max.unwrap_or(MIB),
            windows_bytes_max: self.store.windows_bytes_max.unwrap_or(256 * MIB),
        }
    }

    /// What the door is told.
    pub fn front(&self) -> Result<DoorSettings, ConfigError> {
        Ok(DoorSettings {
            pump: self.pump(),
            bounds: self.bounds(),
            service: self.service(),
            websocket: self.websocket_limits()?,
            rawsocket_limit: Limit::at_most(self.message_bytes_max().max(512)).unwrap_or(Limit::MAX),
            compression: self.compression()?,
            origins: self.origins()?,
            default_token: None,
            http: self.http_settings()?,
            proxies: Arc::new(self.proxies()?),
            longpoll: self.longpoll()?,
            sockjs: self.sockjs()?,
            connections_max: self.limits.connections_max.unwrap_or(1_000_000),
            connections_per_address_max: self.limits.connections_per_address_max.unwrap_or(10_000),
            accepts_per_second_max: self.limits.accepts_per_second_max.unwrap_or(2000),
            strangers_max: self.limits.strangers_max.unwrap_or(4096),
            strangers_per_address_max: self.limits.strangers_per_address_max.unwrap_or(64),
            ailments: Vec::new(),
        })
    }

    fn http_settings(&self) -> Result<HttpSettings, ConfigError> {
        Ok(HttpSettings {
            prefix: self.prefix()?,
            paths: self.websocket_paths()?,
            hosts: self.hosts()?,
            files: self.files()?,
            head_bytes_max: self.limits.head_bytes_max.unwrap_or(16 * 1024).max(HEAD_BYTES_LEAST),
            headers_max: self.limits.headers_max.unwrap_or(64),
        })
    }

    fn pump(&self) -> PumpLimits {
        let seconds = |written: Option<u64>, default| Duration::from_secs(written.unwrap_or(default));
        PumpLimits {
            establish_time_max: seconds(self.limits.stranger_time_s, 10),
            establish_bytes_max: self.stranger_bytes_max(),
            ping_interval: seconds(self.websocket.ping_interval_s, 25),
            pong_time_max: seconds(self.websocket.pong_timeout_s, 10),
            message_time_max: self.message_time(),
            slow_time_max: seconds(self.limits.slow_time_s, 5),
            pace_time_max: seconds(self.limits.pace_time_s, 5),
            close_time_max: seconds(self.limits.close_time_s, 5),
            linger_time_max: seconds(self.limits.linger_time_s, 1),
            owed_bytes_max: self.limits.owed_bytes_max.unwrap_or(256 * 1024),
        }
    }

    fn longpoll(&self) -> Result<Option<LongPollSettings>, ConfigError> {
        let LongPollConfig { enabled, path, receive_time_s, session_time_s } = &self.longpoll;
        if *enabled == Some(false) {
            return Ok(None);
        }
        let refused = |why: String| Err(ConfigError::Refused(format!("longpoll: {why}")));
        let path = path.as_deref().unwrap_or("/lp");
        if let Err(why) = self.check_path(path, "/lp") {
            return refused(why);
        }
        let seconds = |written: &Option<u64>, default| Duration::from_secs(written.unwrap_or(default));
        let (receive_time_max, silent_time_max) = (seconds(receive_time_s, 10), seconds(session_time_s, 30));
        if receive_time_max.is_zero() || silent_time_max.is_zero() {
            return refused("receive_time_s and session_time_s must be at least 1".into());
        }
        Ok(Some(LongPollSettings { path: path.to_owned(), receive_time_max, silent_time_max }))
    }

    fn sockjs(&self) -> Result<Option<SockJsSettings>, ConfigError> {
        let told = &self.sockjs;
        if told.enabled == Some(false) {
            return Ok(None);
        }
        let refused = |why: String| Err(ConfigError::Refused(format!("sockjs: {why}")));
        let path = told.path.as_deref().unwrap_or("/sockjs");
        if let Err(why) = self.check_path(path, "/sockjs") {
            return refused(why);
        }
        let other = self.longpoll()?.map(|longpoll| longpoll.path).unwrap_or_default();
        let lies_in = |one: &str, other: &str| format!("{one}/").starts_with(&format!("{other}/"));
        if !other.is_empty() && (lies_in(path, &other) || lies_in(&other, path)) {
            return refused(format!("the path {path:?} and longpoll.path {other:?} must lie apart"));
        }
        let seconds = |written: Option<u64>, default| Duration::from_secs(written.unwrap_or(default));
        let heart_beat_interval = seconds(told.heart_beat_s, 25);
        let disconnect_delay = seconds(told.disconnect_delay_s, 5);
        let stream_bytes_max = told.stream_bytes_max.unwrap_or(128 * 1024);
        if heart_beat_interval.is_zero() || disconnect_delay.is_zero() || stream_bytes_max == 0 {
            return refused(
                "heart_beat_s, disconnect_delay_s and stream_bytes_max must be at least 1".into(),
            );
        }
        let legal = |octet: u8| octet.is_ascii_graphic() && !b"\"'<>&;,".contains(&octet);
        if let Some(url) = told.client_url.as_deref().filter(|url| url.is_empty() || !url.bytes().all(legal))
        {
            return refused(format!("client_url {url:?} is no URL"));
        }
        let iframe = |client_url: String| Iframe { client_url, ancestors: self.frame_ancestors() };
        Ok(Some(SockJsSettings {
            path: path.to_owned(),
            token: "",
            heart_beat_interval,
            disconnect_delay,
            stream_bytes_max,
            websocket: told.websocket.unwrap_or(true),
            iframe: told.client_url.clone().map(iframe),
        }))
    }

    /// The allowed origins as `Content-Security-Policy` calls them.
    fn frame_ancestors(&self) -> String {
        let Some(origins) = &self.websocket.allowed_origins else { return "'self'".into() };
        let word = |origin: &String| if origin == "same-origin" { "'self'".into() } else { origin.clone() };
        let words: Vec<String> = origins.iter().map(word).collect();
        if words.is_empty() { "'none'".into() } else { words.join(" ") }
    }

    /// Whether paths may begin so.
    fn check_path(&self, path: &str, like: &str) -> Result<(), String> {
        let legal = |octet: u8| octet.is_ascii_alphanumeric() || b"/-._~".contains(&octet);
        if !path.starts_with('/') || path.ends_with('/') || !path.bytes().all(legal) {
            return Err(format!("the path {path:?} must be like {like:?}"));
        }
        let paths = self.websocket.path.as_ref().map(OneOrMore::all).unwrap_or_default();
        match paths.iter().find(|taken| taken.starts_with(&format!("{path}/"))) {
            Some(taken) => Err(format!("websocket.path {taken:?} lies below the path {path:?}")),
            None => Ok(()),
        }
    }

    fn bounds(&self) -> Bounds {
        let bytes_max = self.limits.mailbox_bytes_max.unwrap_or(4 * MIB);
        Bounds {
            bytes_soft_max: self
                .limits
                .mailbox_bytes_soft_max
                .unwrap_or(MIB.min(bytes_max / 4))
                .min(bytes_max),
            bytes_max,
            overflow: match self.limits.slow_subscriber {
                SlowSubscriber::Disconnect => Overflow::Disconnect,
                SlowSubscriber::DropOldest => Overflow::DropOldest,
                SlowSubscriber::DropNewest => Overflow::DropNewest,
            },
        }
    }

    fn service(&self) -> Service {
        if self.limits.fair == Some(false) { Service::InOrder } else { Service::Fair }
    }

    fn websocket_limits(&self) -> Result<WebSocketLimits, ConfigError> {
        let fragments_max = self.websocket.message_fragments_max.unwrap_or(1024);
        let inflate_ratio_max = self.websocket.inflate_ratio_max.unwrap_or(1032);
        let fragment_bytes = self.websocket.fragment_bytes.unwrap_or(64 * 1024);
        if fragment_bytes < FRAGMENT_BYTES_MIN {
            let why = format!("websocket.fragment_bytes must be at least {FRAGMENT_BYTES_MIN}");
            return Err(ConfigError::Refused(why));
        }
        Ok(WebSocketLimits {
            established: Arc::new(MessageLimits {
                message_bytes_max: self.message_bytes_max(),
                fragments_max,
                inflate_ratio_max,
            }),
            stranger: Arc::new(MessageLimits {
                message_bytes_max: self.stranger_bytes_max().min(self.message_bytes_max()),
                fragments_max: fragments_max.min(self.limits.stranger_fragments_max.unwrap_or(64)),
                inflate_ratio_max: inflate_ratio_max.min(32),
            }),
            fragment_bytes,
        })
    }

    fn compression(&self) -> Result<CompressionSettings, ConfigError> {
        let websocket = &self.websocket;
        let refused = |why: String| ConfigError::Refused(format!("websocket: {why}"));
        let mode = match websocket.compression {
            Compression::Off => Mode::Off,
            Compression::Offered => Mode::Offered,
            Compression::Required => Mode::Required,
        };
        let bits = |key: &str, written: Option<u8>| match written {
            None => Ok(WindowBits::MAX),
            Some(bits) => {
                WindowBits::new(bits).ok_or_else(|| refused(format!("{key} must be 9 to 15, not {bits}")))
            }
        };
        let alone = matches!(websocket.takeover, Takeover::None);
        let plain_agents = match &websocket.no_compression_user_agents {
            None => PLAIN_AGENTS.map(str::to_owned).to_vec(),
            Some(agents) if agents.iter().any(|agent| agent.is_empty()) => {
                return Err(refused(
                    "no_compression_user_agents: an empty text is in every User-Agent".into(),
                ));
            }
            Some(agents) => agents.clone(),
        };
        if websocket.inflate_ratio_max == Some(0) {
            return Err(refused("inflate_ratio_max must be at least 1".into()));
        }
        Ok(CompressionSettings {
            policy: Policy {
                mode,
                server_no_context_takeover: alone,
                client_no_context_takeover: alone,
                server_max_window_bits: bits("server_max_window_bits", websocket.server_max_window_bits)?,
                client_max_window_bits: bits("client_max_window_bits", websocket.client_max_window_bits)?,
                legacy_frames: websocket.legacy_deflate_frame,
            },
            bytes_min: websocket.compress_bytes_min.unwrap_or(COMPRESS_BYTES_MIN),
            takeover_connections_max: websocket.takeover_connections_max.unwrap_or(1000),
            plain_agents,
        })
    }

    fn origins(&self) -> Result<OriginPolicy, ConfigError> {
        let mut policy = match &self.websocket.allowed_origins {
            None => OriginPolicy::default(),
            Some(rules) => {
                let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
                OriginPolicy::new(&rules)
                    .map_err(|error| ConfigError::Refused(format!("websocket.allowed_origins: {error}")))?
            }
        };
        policy.allow_null = self.websocket.allow_null_origin;
        policy.require = self.websocket.require_origin;
        Ok(policy)
    }
}

impl TlsConfig {
    fn clients(&self) -> Result<Option<ClientAuthority>, ConfigError> {
        match (self.client_certificates, &self.client_ca) {
            (ClientCertificates::Off, None) => Ok(None),
            (ClientCertificates::Off, Some(_)) => Err(ConfigError::Refused(
                "tls.client_ca is of no use while nobody is asked for a certificate: \
                 client_certificates = \"optional\", or \"required\""
                    .into(),
            )),
            (_, None) => Err(ConfigError::Refused(
                "tls.client_certificates: say in client_ca whose certificates are trusted".into(),
            )),
            (asked, Some(file)) => {
                let required = asked == ClientCertificates::Required;
                Ok(Some(ClientAuthority { file: file.clone(), required }))
            }
        }
    }
}

fn pattern(policy: Match, text: &str) -> Result<Pattern, InvalidName> {
    match policy {
        Match::Exact => Name::parse(text).map(Pattern::exact),
        Match::Prefix => Pattern::prefix(text),
        Match::Wildcard => Pattern::wildcard(text),
    }
}

/// The name of a queue that is not the house's.
fn queue_name(text: &str) -> Result<Name, ConfigError> {
    let name = Name::parse(text).map_err(|why| ConfigError::Refused(format!("the queue {text:?}: {why}")))?;
    if [WAMP_PREFIX, HOUSE_PREFIX].iter().any(|prefix| text.starts_with(prefix)) {
        return Err(ConfigError::Refused(format!("the queue {text:?}: the name is reserved")));
    }
    Ok(name)
}

/// For an unknown key, the known one that looks most like it.
fn suggestion(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown").then(|| quoted.next())??;
    let similar = |known: &&str| strsim::jaro_winkler(unknown, known);
    let best = quoted.max_by(|a, b| similar(a).total_cmp(&similar(b)))?;
    (similar(&best) > 0.7).then(|| format!("\ndid you mean `{best}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_with_its_line_and_the_most_similar_known_one() {
        let error = Config::parse("[websocket]\nallowed_origin = []\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("did you mean `allowed_origins`?"), "{error}");
        let error = Config::parse("listne = []\n").unwrap_err().to_string();
        assert!(error.contains("did you mean `listen`?"), "{error}");
    }

    #[test]
    fn listening_to_others_needs_a_choice_of_who_is_let_in() {
        let config = Config::parse("listen = [\"0.0.0.0:8080\"]").unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("[authentication]") && error.contains("0.0.0.0:8080"), "{error}");
        let config =
            Config::parse("listen = [\"0.0.0.0:8080\"]\n[authentication]\nanonymous = \"everywhere\"\n");
        config.unwrap().check().unwrap();
        Config::parse("listen = [\"[::1]:1\", \"127.0.0.9:2\"]").unwrap().check().unwrap();
        let nobody = Config::parse("[authentication]\nanonymous = \"never\"\n").unwrap();
        assert!(nobody.check().is_err());
    }

    #[test]
    fn what_is_written_of_tls_makes_sense_together() {
        let tls = "listen_tls = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        let config = Config::parse(tls).unwrap();
        config.check().unwrap();
        assert!(config.addresses().is_empty(), "only what is written is listened at");
        let open = Config::parse(&tls.replace("127.0.0.1:0", "0.0.0.0:1")).unwrap();
        assert!(open.check().unwrap_err().to_string().contains("0.0.0.0:1"));
        let user = "[[users]]\nname = \"a\"\ncertificates = [\"dns:a\"]\n";
        for (text, said) in [
            ("listen_tls = [\"127.0.0.1:1\"]\n".to_owned(), "[tls]"),
            (tls.replace("listen_tls", "listen"), "listen_tls"),
            (format!("{tls}client_ca = \"ca\"\n"), "client_certificates"),
            (format!("{tls}client_certificates = \"required\"\n"), "client_ca"),
            (user.to_owned(), "user \"a\" has certificates"),
            (format!("{tls}{user}"), "user \"a\" has certificates"),
        ] {
            let error = Config::parse(&text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let asked = format!("{tls}client_ca = \"ca\"\nclient_certificates = \"optional\"\n{user}");
        assert!(Config::parse(&asked).unwrap().tls().unwrap().unwrap().clients.is_some());
    }

    #[test]
    fn passwords_in_the_clear_are_noticed_where_others_could_read_them() {
        let user = "[[users]]\nname = \"a\"\npassword = \"x\"\n";
        for (text, exposed) in [
            (format!("listen = [\"127.0.0.1:1\"]\n{user}"), false),
            (format!("listen_tls = [\"0.0.0.0:1\"]\n{user}"), false),
            (format!("listen = [\"0.0.0.0:1\"]\n{user}"), true),
            (format!("listen = [\"0.0.0.0:1\"]\n{}", user.replace("password", "wampcra")), false),
            (format!("listen = [\"0.0.0.0:1\"]\nauthentication.tickets_need_tls = true\n{user}"), false),
        ] {
            assert_eq!(Config::parse(&text).unwrap().exposes_passwords().is_some(), exposed, "{text}");
        }
    }

    #[test]
    fn with_unix_sockets_alone_there_is_no_port_and_their_mode_is_octal() {
        let config = Config::parse("listen_unix = [\"/run/tandem\"]\n").unwrap();
        config.check().unwrap();
        assert!(config.addresses().is_empty());
        assert_eq!(config.unix_mode().unwrap(), 0o660);
        for (text, mode) in
            [("0600", Some(0o600)), ("777", Some(0o777)), ("1777", None), ("rw-", None), ("+6", None)]
        {
            let config = Config::parse(&format!("unix_mode = {text:?}\n")).unwrap();
            assert_eq!(config.unix_mode().ok(), mode, "{text}");
            assert_eq!(config.check().is_ok(), mode.is_some());
        }
    }

    #[test]
    fn an_authenticator_is_a_procedure_in_a_realm_that_there_is_and_serves_known_methods() {
        let parse = |text: &str| Config::parse(&format!("[authentication]\nanonymous = \"never\"\n{text}"));
        let settings = parse("authenticator = \"a.b\"\n").unwrap();
        settings.check().unwrap();
        assert_eq!(settings.authenticator().unwrap().unwrap().methods, METHODS);
        for (wrong, said) in [
            ("authenticator = \"a..b\"", "authenticator: "),
            ("authenticator = \"a\"\nauthenticator_realm = \"x\"", "authenticator_realm"),
            ("authenticator = \"a\"\nauthenticator_methods = [\"tls\"]", "authenticator_methods"),
        ] {
            let error = parse(wrong).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn realms_are_made_by_prefix_or_wildcard() {
        let text = "[[realm_patterns]]\npattern = \"a.\"\nmatch = \"prefix\"\nrealms_max = 2\nidle_s = 5\n";
        let config = Config::parse(text).unwrap();
        config.check().unwrap();
        let [pattern] = &config.realm_patterns().unwrap()[..] else { panic!("one pattern") };
        assert!(pattern.pattern.matches("a.b") && !pattern.pattern.matches("b"));
        assert_eq!((pattern.realms_max, pattern.idle_time_max), (2, Duration::from_secs(5)));
        for wrong in [text.replace("prefix", "exact"), text.replace("a.", "a b")] {
            let error = Config::parse(&wrong).unwrap().check().unwrap_err().to_string();
            assert!(error.contains("realm_patterns"), "{error}");
        }
        let asking = format!("[authentication]\nauthenticator = \"x\"\n{text}");
        assert!(
            Config::parse(&asking).unwrap().check().is_err(),
            "an authenticator is in a realm that there is"
        );
    }

    #[test]
    fn a_history_has_a_pattern_and_a_limit() {
        let text =
            "[[history]]\npattern = \"a.\"\nmatch = \"prefix\"\nlimit = 5\n[[history]]\npattern = \"b\"\n";
        let rules = Config::parse(text).unwrap().history().unwrap();
        let told = |rule: &HistoryRule| (rule.pattern.as_str().to_owned(), rule.events_max);
        assert_eq!(
            rules.iter().map(told).collect::<Vec<_>>(),
            [("a.".to_owned(), 5), ("b".to_owned(), 1000)]
        );
        let error = Config::parse("[[history]]\npattern = \"a.\"\n").unwrap().check().unwrap_err();
        assert!(error.to_string().contains("history"), "{error}");
    }

    #[test]
    fn what_topics_keep_is_durable_where_there_is_a_store() {
        let store = "[store]\npath = \"/x\"\n";
        let retained = "[[store.retained]]\npattern = \"a.\"\nmatch = \"prefix\"\n";
        let history = "[[history]]\npattern = \"b\"\ndurable = true\n";
        let config = Config::parse(&format!("{store}{retained}{history}")).unwrap();
        config.check().unwrap();
        assert!(config.retained_durably().unwrap()[0].matches("a.b") && config.history().unwrap()[0].durable);
        assert_eq!(config.store.on_failure, OnStoreFailure::Exit);
        for (text, said) in [
            (history.to_owned(), "durable = true needs a [store] with a path"),
            (format!("[store]\nrequired = true\n{retained}"), "store.retained"),
            (format!("{store}{}", retained.replace("prefix", "exact")), "store.retained"),
            (format!("{store}{history}{history}"), "twice"),
        ] {
            let error = Config::parse(&text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(Config::parse("[store]\non_failure = \"hope\"\n").is_err());
    }

    #[test]
    fn a_store_has_a_path_and_leaves_a_part_of_the_disk() {
        let config = Config::parse("[store]\npath = \"/var/lib/tandem\"\nfree_percent_min = 10\n").unwrap();
        config.check().unwrap();
        let settings = config.store().unwrap();
        assert_eq!(settings.directory, Path::new("/var/lib/tandem"));
        assert_eq!(
            (settings.limits.space.free_bytes_min, settings.limits.space.free_percent_min),
            (1 << 30, 10)
        );
        assert_eq!(
            settings.limits.space.free_percent_bytes_max,
            u64::MAX,
            "what somebody asks for counts whole"
        );
        let by_default =
            Config::parse("[store]\npath = \"/var/lib/tandem\"\n").unwrap().store().unwrap().limits.space;
        assert_eq!((by_default.free_percent_min, by_default.free_percent_bytes_max), (5, 4 << 30));
        assert!(Config::default().store().is_none());
        let error = Config::parse("[store]\nfree_percent_min = 101\n").unwrap().check().unwrap_err();
        assert!(error.to_string().contains("free_percent_min"), "{error}");
    }

    #[test]
    fn queues_and_bindings_have_names_and_properties() {
        let text = "[[queues]]\nname = \"q\"\nmax-length = 5\noverflow = \"drop-head\"\nkeep = 9\n\
                    [[bindings]]\ntopic = \"a.\"\nmatch = \"prefix\"\nqueue = \"q\"\n";
        let config = Config::parse(text).unwrap();
        config.check().unwrap();
        let (name, properties) = &config.queues().unwrap()[0];
        assert_eq!((name.as_str(), properties.messages_max, properties.kept_max), ("q", Some(5), Some(9)));
        assert_eq!(properties.when_full, Some(WhenFull::DropHead));
        assert_eq!(config.bindings().unwrap()[0].0.as_str(), "a.");
        for (text, word) in [
            ("[[queues]]\nname = \"q\"\n[[queues]]\nname = \"q\"\n", "twice"),
            ("[[queues]]\nname = \"tandem.q\"\n", "reserved"),
            ("[[queues]]\nname = \"q q\"\n", "q q"),
            ("[[queues]]\nname = \"q\"\ndead-letter-routing-key = \"wamp.q\"\n", "reserved"),
            ("[[bindings]]\ntopic = \"a b\"\nqueue = \"q\"\n", "a b"),
        ] {
            let error = Config::parse(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_malformed_origin_is_refused_before_anything_starts() {
        let config = Config::parse("[websocket]\nallowed_origins = [\"example.com\"]\n").unwrap();
        assert!(config.check().unwrap_err().to_string().contains("allowed_origins"));
    }

    #[test]
    fn long_polling_has_a_path_of_its_own_and_some_time() {
        let told = |text: &str| Config::parse(text).unwrap().front().map(|settings| settings.longpoll);
        let path = |text: &str| told(text).unwrap().unwrap().path;
        assert_eq!(path(""), "/lp");
        assert_eq!(path("[longpoll]\npath = \"/a/poll\""), "/a/poll");
        assert!(told("[longpoll]\nenabled = false\npath = \"\"").unwrap().is_none());
        for wrong in [
            "path = \"\"",
            "path = \"/\"",
            "path = \"lp\"",
            "path = \"/lp/\"",
            "path = \"/l p\"",
            "receive_time_s = 0",
            "session_time_s = 0",
        ] {
            let error = told(&format!("[longpoll]\n{wrong}")).unwrap_err().to_string();
            assert!(error.starts_with("longpoll: "), "{error}");
        }
        assert!(told("[websocket]\npath = \"/lp/ws\"").is_err());
    }

    #[test]
    fn sockjs_has_a_path_of_its_own_and_limits() {
        let told = |text: &str| Config::parse(text).unwrap().front().map(|settings| settings.sockjs);
        assert_eq!(told("").unwrap().unwrap().path, "/sockjs");
        assert!(told("[sockjs]\nenabled = false\npath = \"\"").unwrap().is_none());
        for wrong in [
            "path = \"/\"",
            "path = \"/lp\"",
            "path = \"/lp/sockjs\"",
            "heart_beat_s = 0",
            "disconnect_delay_s = 0",
            "stream_bytes_max = 0",
            "client_url = \"\\\"><script>\"",
        ] {
            let error = told(&format!("[sockjs]\n{wrong}")).unwrap_err().to_string();
            assert!(error.starts_with("sockjs: "), "{error}");
        }
        assert!(told("[websocket]\npath = \"/sockjs/websocket\"").is_err());
        let text = "[sockjs]\nclient_url = \"/sockjs.min.js\"\n[websocket]\nallowed_origins = ";
        for (origins, words) in
            [("[]", "'none'"), ("[\"same-origin\", \"https://a.example\"]", "'self' https://a.example")]
        {
            let iframe = told(&format!("{text}{origins}")).unwrap().unwrap().iframe.unwrap();
            assert_eq!((&*iframe.client_url, &*iframe.ancestors), ("/sockjs.min.js", words));
        }
    }

    #[test]
    fn compression_is_configured_as_it_is_negotiated() {
        let told = |section: &str| Config::parse(&format!("[websocket]\n{section}")).unwrap().compression();
        let default = told("").unwrap();
        assert_eq!((default.policy, default.bytes_min), (Policy::default(), 256));
        let agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 15_3_1 like Mac OS X)";
        assert!(default.plain_agents.iter().any(|plain| agent.contains(plain)));
        let kept = told("takeover = \"per_connection\"\nserver_max_window_bits = 9").unwrap();
        assert!(kept.policy.allows_takeover());
        assert_eq!(kept.policy.server_max_window_bits.get(), 9);
        for (wrong, key) in [
            ("server_max_window_bits = 8", "server_max_window_bits"),
            ("client_max_window_bits = 16", "client_max_window_bits"),
            ("inflate_ratio_max = 0", "inflate_ratio_max"),
            ("no_compression_user_agents = [\"\"]", "no_compression_user_agents"),
        ] {
            let error = told(wrong).unwrap_err().to_string();
            assert!(error.starts_with("websocket: ") && error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_defaults_are_loopback_one_realm_and_no_compression_demanded() {
        let config = Config::parse("").unwrap();
        config.check().unwrap();
        assert!(config.addresses().iter().all(|address| address.ip().is_loopback()));
        assert_eq!(config.realms(), ["realm1"]);
        assert_eq!(config.front().unwrap().bounds.overflow, Overflow::Disconnect);
    }
}

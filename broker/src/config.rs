//! The configuration: as written in TOML, then as meant.
//!
//! A key that is not known is an error, with the known one that looks most like it. What is not written
//! has a safe default: the broker listens on this machine only, and nothing is without a limit.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use tandem_protocols::wamp::rawsocket::Limit;
use tandem_protocols::websocket::extensions::{Mode, Policy};
use tandem_protocols::websocket::message::Limits as MessageLimits;
use tandem_protocols::websocket::origin::OriginPolicy;

use crate::core::access::{HOUSE_PREFIX, WAMP_PREFIX};
use crate::core::history::HistoryRule;
use crate::core::mailbox::{Bounds, Overflow};
use crate::core::name::{InvalidName, Name, Pattern};
use crate::core::queues::{Credit, Properties, QueueLimits, WhenFull};
use crate::core::realm::RealmLimits;
use crate::core::retained::RetainedLimits;
use crate::front::connection::PumpLimits;
use crate::front::door::DoorSettings;
use crate::front::websocket::WebSocketLimits;

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses to listen at. By default port 8080 of this machine only.
    pub listen: Vec<SocketAddr>,
    /// What to log: `info`, or a filter such as `tandem_broker=debug`.
    pub log: Option<String>,
    /// Realms. The first is where STOMP clients go that name none of them. By default `realm1`.
    pub realms: Vec<String>,
    /// Topics of which past events are kept, in each realm, for `wamp.subscription.get_events`.
    pub history: Vec<HistoryConfig>,
    /// Queues that are there from the start and stay, in each realm.
    pub queues: Vec<QueueConfig>,
    /// Topics whose messages queues get, in each realm.
    pub bindings: Vec<BindingConfig>,
    /// Who is let in.
    pub authentication: Authentication,
    /// Users.
    pub users: Vec<User>,
    /// WebSocket.
    pub websocket: WebSocketConfig,
    /// STOMP.
    pub stomp: StompConfig,
    /// Limits.
    pub limits: Limits,
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
    /// The only path to connect to. By default any.
    pub path: Option<String>,
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
    /// Silence after which a ping is sent, in seconds. By default 25.
    pub ping_interval_s: Option<u64>,
    /// Time to answer a ping, in seconds. By default 10.
    pub pong_timeout_s: Option<u64>,
    /// Fragments of one message. By default 1024.
    pub message_fragments_max: Option<u32>,
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
    /// Connections at a time. By default 1,000,000.
    pub connections_max: Option<usize>,
    /// Connections of peers that were not let in yet. By default 4096.
    pub strangers_max: Option<usize>,
    /// Of those, from one address that is not this machine. By default 64.
    pub strangers_per_address_max: Option<usize>,
    /// Time to be let in. By default 10.
    pub stranger_time_s: Option<u64>,
    /// Bytes that a peer may send before it is let in. By default 65,536.
    pub stranger_bytes_max: Option<usize>,
    /// The size of a message. By default 1 MiB.
    pub message_bytes_max: Option<usize>,
    /// Time for a message to arrive whole. By default 30.
    pub message_time_s: Option<u64>,
    /// Bytes waiting for a session that it may keep waiting only for `slow_time_s`. By default 1 MiB.
    pub mailbox_bytes_soft_max: Option<usize>,
    /// Bytes waiting for a session. By default 4 MiB.
    pub mailbox_bytes_max: Option<usize>,
    /// How long a mailbox may be over its soft limit. By default 5.
    pub slow_time_s: Option<u64>,
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
    /// Time for a drain at shutdown. By default 10.
    pub drain_time_s: Option<u64>,
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

const MIB: usize = 1024 * 1024;

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
        self.origins()?;
        self.history()?;
        self.queues()?;
        self.bindings()?;
        let open: Vec<_> =
            self.addresses().into_iter().filter(|a| !a.ip().to_canonical().is_loopback()).collect();
        if !open.is_empty() && self.authentication.anonymous.is_none() {
            return Err(ConfigError::Refused(format!(
                "to listen at {}, which others can reach, say who is let in. In the configuration file:\n\n  \
                 [authentication]\n  anonymous = \"never\"       # or \"loopback\", or \"everywhere\" for a \
                 network that you trust\n\n  [[users]]\n  name = \"alice\"\n  password = \"...\"          # from \
                 `tandem hash-password`\n",
                open[0]
            )));
        }
        if self.authentication.anonymous == Some(Anonymous::Never) && self.users.is_empty() {
            return Err(ConfigError::Refused(
                "nobody could connect: anonymous = \"never\", and there are no [[users]]".into(),
            ));
        }
        Ok(())
    }

    /// Where to listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        if !self.listen.is_empty() {
            return self.listen.clone();
        }
        vec![SocketAddr::from(([127, 0, 0, 1], PORT))]
    }

    /// The realms, the default first.
    pub fn realms(&self) -> Vec<String> {
        if self.realms.is_empty() { vec!["realm1".into()] } else { self.realms.clone() }
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
        let rule = |HistoryConfig { pattern: text, policy, limit }: &HistoryConfig| {
            let refused = |why| ConfigError::Refused(format!("history: the pattern {text:?}: {why}"));
            Ok(HistoryRule { pattern: pattern(*policy, text).map_err(refused)?, events_max: *limit })
        };
        self.history.iter().map(rule).collect()
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

    /// How long a drain may take.
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.limits.drain_time_s.unwrap_or(10))
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

    /// What the door is told.
    pub fn front(&self) -> Result<DoorSettings, ConfigError> {
        Ok(DoorSettings {
            pump: Arc::new(self.pump()),
            bounds: self.bounds(),
            websocket: self.websocket_limits(),
            rawsocket_limit: Limit::at_most(self.message_bytes_max().max(512)).unwrap_or(Limit::MAX),
            compression: self.compression(),
            origins: self.origins()?,
            default_token: None,
            path: self.websocket.path.clone(),
            connections_max: self.limits.connections_max.unwrap_or(1_000_000),
            strangers_max: self.limits.strangers_max.unwrap_or(4096),
            strangers_per_address_max: self.limits.strangers_per_address_max.unwrap_or(64),
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
            close_time_max: Duration::from_secs(5),
            linger_time_max: Duration::from_secs(1),
            owed_bytes_max: 256 * 1024,
        }
    }

    fn bounds(&self) -> Bounds {
        let bytes_max = self.limits.mailbox_bytes_max.unwrap_or(4 * MIB);
        Bounds {
            bytes_soft_max: self.limits.mailbox_bytes_soft_max.unwrap_or(MIB).min(bytes_max),
            bytes_max,
            overflow: match self.limits.slow_subscriber {
                SlowSubscriber::Disconnect => Overflow::Disconnect,
                SlowSubscriber::DropOldest => Overflow::DropOldest,
                SlowSubscriber::DropNewest => Overflow::DropNewest,
            },
        }
    }

    fn websocket_limits(&self) -> WebSocketLimits {
        let fragments_max = self.websocket.message_fragments_max.unwrap_or(1024);
        WebSocketLimits {
            established: MessageLimits {
                message_bytes_max: self.message_bytes_max(),
                fragments_max,
                // As far as DEFLATE goes: the size alone decides.
                inflate_ratio_max: 1032,
            },
            stranger: MessageLimits {
                message_bytes_max: self.stranger_bytes_max().min(self.message_bytes_max()),
                fragments_max: fragments_max.min(64),
                inflate_ratio_max: 32,
            },
        }
    }

    fn compression(&self) -> Policy {
        let mode = match self.websocket.compression {
            Compression::Off => Mode::Off,
            Compression::Offered => Mode::Offered,
            Compression::Required => Mode::Required,
        };
        Policy { mode, ..Policy::default() }
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
    fn the_defaults_are_loopback_one_realm_and_no_compression_demanded() {
        let config = Config::parse("").unwrap();
        config.check().unwrap();
        assert!(config.addresses().iter().all(|address| address.ip().is_loopback()));
        assert_eq!(config.realms(), ["realm1"]);
        assert_eq!(config.front().unwrap().bounds.overflow, Overflow::Disconnect);
    }
}

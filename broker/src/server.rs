//! Builds the house, and closes it in order. The only place that knows everybody.

mod drain;
mod furniture;
mod keep;
mod pressure;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use tandem_protocols::stomp::state::HeartBeat;

use crate::authenticator::ProcedureAuthenticator;
use crate::config::{Config, ConfigError, DrainSettings, Embedding};
use crate::core::access::Authenticator;
use crate::core::access::authorizer::Authorizer;
use crate::core::history::{History, WallClock};
use crate::core::protocol::Protocol;
use crate::core::realm::{Entropy, Memory, Realm};
use crate::core::realms::Realms;
use crate::core::throttle::Throttle;
use crate::front::connection::now;
use crate::front::door::{Ailment, Door, HttpSettings};
use crate::front::listener::{Secured, Uses, bind};
use crate::front::readiness::{Readiness, Unready};
use crate::front::tls::Tls;
use crate::front::unix::UnixSocket;
use crate::local::LocalCaller;
use crate::server::furniture::Furniture;
use crate::server::keep::{Keep, keeping};
use crate::server::pressure::Pressure;
use crate::stomp;
use crate::store::disk::OpenError;
use crate::tokens::Tokens;
use crate::users::Users;
use crate::wamp::{Strictness, Wamp, WampCredentials, WampSettings, WampUser};

pub use crate::server::keep::ProvidedStore;

/// How often to look for realms that are empty.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(100);
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not allow it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// An address is not to be had.
    #[error("cannot listen at {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A Unix socket is not to be had.
    #[error("cannot listen at unix:{path}: {error}", path = path.display())]
    BindUnix {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What an application provides that the broker is part of.
#[derive(Default)]
pub struct Provided {
    /// Knows users: it is asked about those that are not in the configuration, before a procedure would be.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// Decides what rules leave open, in place of the procedures that they name.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// Keeps persistent messages, in place of a store of the configuration.
    pub store: Option<ProvidedStore>,
}

/// A broker that runs.
pub struct Server {
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    tls: Option<Arc<Tls>>,
    tokens: Option<Arc<Tokens>>,
    unix: Vec<PathBuf>,
    realms: Arc<Realms>,
    furniture: Arc<Furniture>,
    door: Arc<Door>,
    /// Of the members that live in the process.
    tasks: TaskTracker,
    keep: Option<Arc<Keep>>,
    drain: DrainSettings,
    entropy: Entropy,
    embedding: Embedding,
}

impl Server {
    /// Starts a broker. Must be called in a tokio runtime.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        Server::start_with(config, Provided::default())
    }

    /// The same in an application that provides some of it itself. Must be called in a tokio runtime.
    pub fn start_with(config: &Config, provided: Provided) -> Result<Server, StartError> {
        let embedding = Embedding {
            has_authenticator: provided.authenticator.is_some(),
            has_authorizer: provided.authorizer.is_some(),
            has_store: provided.store.is_some(),
            ..config.embedding.clone()
        };
        let config = &Config { embedding: embedding.clone(), ..config.clone() };
        config.check()?;
        let Provided { authenticator: embedded, authorizer, store } = provided;
        let tls = tls(config)?;
        if let Some(address) = config.exposes_passwords() {
            tracing::warn!(%address, "passwords and tokens are taken in the clear at an address that others can reach; \
                           see listen_tls and authentication.tickets_need_tls");
        }
        let entropy: Entropy = Arc::new(rand::random::<u64>);
        let limits = config.realm_limits();
        let (rules, retained_durably) = (config.history()?, config.retained_durably()?);
        let mut keep = Keep::open(config, store)?;
        let keeping = keeping(config, keep.as_ref());
        let chance = entropy.clone();
        let open = move |name: &str| {
            let clock: WallClock = Arc::new(wall_time_ms);
            let history = (!rules.is_empty()).then(|| History::new(&rules, clock.clone()));
            let (keeping, retained_durably) = (keeping(name), retained_durably.clone());
            let memory = Memory { history, keeping, retained_durably, clock: Some(clock) };
            Realm::with_memory(name, limits, chance.clone(), memory)
        };
        let always = config.realms().iter().map(|name| open(name)).collect();
        let realms = Realms::with_patterns(always, config.realm_patterns()?, Box::new(open));
        let realms = Arc::new(realms.trusting(config.trust()?));
        let tokens = tokens(config)?;
        let mut users = Users::new(config, entropy.clone())?.taking(tokens.clone());
        let tasks = TaskTracker::new();
        let other = match embedded {
            Some(embedded) => Some(embedded),
            None => procedure_authenticator(config, realms.always(), &tasks)?,
        };
        if let Some(other) = other {
            users = users.asking(other);
        }
        let users = Arc::new(users);
        let credentials = Arc::new(wamp_credentials(config, entropy.clone())?);
        let agent = concat!("tandem/", env!("CARGO_PKG_VERSION"));
        let throttle = Arc::new(Throttle::new(config.throttle()));
        // The languages: WAMP, then STOMP, which is what a WebSocket client speaks that does not say.
        let protocols: Vec<Arc<dyn Protocol>> = vec![
            Arc::new(Wamp::new(WampSettings {
                realms: realms.clone(),
                authenticator: users.clone(),
                credentials,
                throttle: throttle.clone(),
                agent,
                strictness: Strictness {
                    request_ids: config.wamp.strict_request_ids,
                    uris: config.wamp.strict_uris,
                },
            })),
            Arc::new(stomp::Stomp::new(stomp::Settings {
                throttle,
                ..stomp_settings(config, realms.clone(), users.clone())
            })),
        ];
        let mut settings = config.front()?;
        settings.ailments.extend(keep.as_ref().map(|keep| Ailment {
            token: keep.failure().clone(),
            sentence: "the store failed: nothing persistent is taken or confirmed",
        }));
        if !config.websocket.require_subprotocol {
            settings.default_token = protocols[1].tokens().first().copied();
        }
        if let Some(sockjs) = &mut settings.sockjs {
            // What those who come from Spring speak over it.
            sockjs.token = protocols[1].tokens().first().copied().unwrap_or_default();
        }
        let door = Door::new(settings, protocols, users, entropy.clone());
        if let Some(pressure) = Pressure::new(config.memory()?, realms.clone(), door.readiness.clone()) {
            tasks.spawn(pressure.watch(door.shutdown.clone()));
        }
        if let Some(interval) = sweep_interval(config)? {
            tasks.spawn(sweep(realms.clone(), interval, door.shutdown.clone()));
        }
        // Before anybody comes in, and before the house publishes.
        if let Some(keep) = &mut keep {
            keep.restore_shelves(&realms);
        }
        let furniture = Arc::new(Furniture::new(config, tasks.clone()).asking(authorizer));
        let furnish = furniture.clone();
        realms.watch(Box::new(move |realm| furnish.furnish(realm)));
        if let Some(keep) = &mut keep {
            keep.restore_queues(&realms);
        }
        let keep = keep.map(Arc::new);
        if let Some(keep) = keep.clone() {
            tasks.spawn(keep.watch(door.readiness.clone(), door.shutdown.clone()));
        }
        let drain = config.drain()?;
        let mut server = Server {
            addresses: Vec::new(),
            tls_addresses: Vec::new(),
            tls,
            tokens,
            unix: Vec::new(),
            realms,
            furniture,
            door,
            tasks,
            keep,
            drain,
            entropy,
            embedding,
        };
        if let Err(error) = server.listen(config) {
            // Who starts it may go on without it: what runs already ends, and gives back what it holds.
            server.door.shutdown.cancel();
            server.drain.delay = Duration::ZERO;
            tokio::spawn(server.shutdown());
            return Err(error);
        }
        Ok(server)
    }

    /// Listens wherever the configuration says.
    fn listen(&mut self, config: &Config) -> Result<(), StartError> {
        let sockets = unix_sockets(config)?;
        let listen = |address, secured| {
            let failed = |error| StartError::Bind { address, error };
            let listener = bind(address).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            let proxied = config.proxies.protocol.contains(&address);
            self.door.tasks.spawn(self.door.clone().listen(listener, Uses { secured, proxied }));
            Ok::<_, StartError>(bound)
        };
        let addresses = config.addresses().into_iter().map(|address| listen(address, Secured::No));
        let addresses = addresses.collect::<Result<_, _>>()?;
        let secured = || self.tls.clone().map_or(Secured::No, Secured::By);
        let tls_addresses = config.listen_tls.iter().map(|&address| listen(address, secured()));
        let tls_addresses = tls_addresses.collect::<Result<_, _>>()?;
        let unix = sockets.iter().map(|socket| socket.path().to_owned()).collect();
        for socket in sockets {
            self.door.tasks.spawn(self.door.clone().listen_unix(socket));
        }
        (self.addresses, self.tls_addresses, self.unix) = (addresses, tls_addresses, unix);
        Ok(())
    }

    /// A path where WebSockets are opened.
    pub fn websocket_path(&self) -> String {
        let HttpSettings { prefix, paths, .. } = &self.door.settings.http;
        format!("{prefix}{}", paths.first().map_or("/", String::as_str))
    }

    /// Where it listens in the clear.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it listens with TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// Reads the certificates again, for those who connect from now on; nobody else notices. Where they are of
    /// no use, the old ones stay, and the log says why.
    pub fn reload_certificates(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            None => tracing::info!("there are no certificates to read again"),
            Some(Ok(())) => tracing::info!("the certificates were read again"),
            Some(Err(error)) => tracing::error!(%error, "the certificates stay as they were"),
        }
    }

    /// Reads the keys of tokens again, for those who come or renew from now on. Where they are of no use, the old ones
    /// stay, and the log says why.
    pub fn reload_token_keys(&self) {
        match self.tokens.as_ref().map(|tokens| tokens.reload()) {
            None => tracing::debug!("there are no keys of tokens to read again"),
            Some(Ok(keys)) => tracing::info!(keys, "the keys of tokens were read again"),
            Some(Err(error)) => tracing::error!(%error, "the keys of tokens stay as they were"),
        }
    }

    /// The door, for connections that do not come by a listener.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// The Unix sockets at which it listens.
    pub fn unix_sockets(&self) -> &[PathBuf] {
        &self.unix
    }

    /// Whether it wants new clients.
    pub fn readiness(&self) -> &Readiness {
        &self.door.readiness
    }

    /// The realms that it always has, the default first.
    pub fn realms(&self) -> &[Arc<Realm>] {
        self.realms.always()
    }

    /// All its realms.
    pub fn all_realms(&self) -> &Arc<Realms> {
        &self.realms
    }

    /// Takes the permissions of another configuration, and nothing else of it. When they are not right nothing changes.
    /// Must be called in a tokio runtime.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        let config = Config { embedding: self.embedding.clone(), ..config.clone() };
        check(&config)?;
        self.furniture.reload(&config, &self.realms)
    }

    /// Waits until the store fails; for ever where there is none.
    pub async fn store_failure(&self) {
        match &self.keep {
            Some(keep) => keep.failure().cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the store failed: what was to be kept since then was refused.
    pub fn store_has_failed(&self) -> bool {
        self.keep.as_ref().is_some_and(|keep| keep.has_failed())
    }

    /// How long the shutdown takes at most, before what was to be kept is made safe.
    pub fn drain_time_max(&self) -> Duration {
        self.drain.delay + self.drain.time_max
    }

    /// The story of the end: `/ready` says so, for as long as those who look there may need, while whoever comes is served;
    /// then nobody new is let in; every
    /// session is told in its language, one after the other; what was said is still written; whoever takes longer than the
    /// drain may is cut off; what was to be kept is made safe, and the store is closed. True when nobody was cut off.
    pub async fn shutdown(self) -> bool {
        let DrainSettings { delay, time_max, spread } = self.drain;
        self.door.readiness.set(Unready::Leaving, true);
        tokio::time::sleep(delay).await;
        self.door.readiness.set(Unready::Draining, true);
        self.door.shutdown.cancel();
        let all = async {
            drain::say_farewells(&self.realms, spread, &self.entropy).await;
            self.door.tasks.close();
            self.tasks.close();
            self.door.tasks.wait().await;
            self.tasks.wait().await;
        };
        let drained = tokio::time::timeout(time_max, all).await.is_ok();
        if let Some(keep) = self.keep {
            keep.close().await;
        }
        drained
    }
}

fn unix_sockets(config: &Config) -> Result<Vec<UnixSocket>, StartError> {
    let mode = config.unix_mode()?;
    let bind = |path: &PathBuf| {
        UnixSocket::bind(path, mode).map_err(|error| StartError::BindUnix { path: path.clone(), error })
    };
    config.listen_unix.iter().map(bind).collect()
}

/// Calls the procedure that knows users, in each realm that it may be in.
fn procedure_authenticator(
    config: &Config,
    realms: &[Arc<Realm>],
    tasks: &TaskTracker,
) -> Result<Option<Arc<dyn Authenticator>>, ConfigError> {
    let Some(settings) = config.authenticator()? else { return Ok(None) };
    let mut callers = Vec::new();
    for realm in realms.iter().filter(|realm| settings.realm.as_ref().is_none_or(|name| name == realm.name()))
    {
        let refused =
            |why| ConfigError::Refused(format!("the authenticator of realm {}: {why}", realm.name()));
        let (caller, attending) = LocalCaller::join(realm).map_err(refused)?;
        tasks.spawn(attending);
        callers.push((realm.name().clone(), caller));
    }
    Ok(Some(Arc::new(ProcedureAuthenticator::new(settings, callers))))
}

/// Checks a configuration as [`Server::start`] does, and starts nothing.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    config.check()?;
    config.front()?;
    tls(config)?;
    tokens(config)?;
    let entropy: Entropy = Arc::new(|| 0);
    Users::new(config, entropy.clone())?;
    wamp_credentials(config, entropy).map(drop)
}

fn tokens(config: &Config) -> Result<Option<Arc<Tokens>>, ConfigError> {
    let Some(settings) = config.tokens()? else { return Ok(None) };
    let tokens = Tokens::new(settings, Arc::new(wall_time_ms));
    tokens
        .map(|tokens| Some(Arc::new(tokens)))
        .map_err(|error| ConfigError::Refused(format!("tokens: {error}")))
}

fn tls(config: &Config) -> Result<Option<Arc<Tls>>, ConfigError> {
    let Some(files) = config.tls()? else { return Ok(None) };
    let tls = Tls::new(files, config.tls_handshakes_max());
    tls.map(|tls| Some(Arc::new(tls))).map_err(|error| ConfigError::Refused(format!("tls: {error}")))
}

fn wamp_credentials(config: &Config, entropy: Entropy) -> Result<WampCredentials, ConfigError> {
    let users = config.users.iter().map(|user| WampUser {
        name: &user.name,
        role: &user.role,
        wampcra: user.wampcra.as_deref(),
        scram: &user.scram,
        cryptosign: &user.cryptosign,
    });
    WampCredentials::new(users, entropy, wall_time_ms)
        .map_err(|error| ConfigError::Refused(error.to_string()))
}

fn wall_time_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How often to look for realms that are empty; `None` where none are made.
fn sweep_interval(config: &Config) -> Result<Option<Duration>, ConfigError> {
    let shortest = config.realm_patterns()?.iter().map(|pattern| pattern.idle_time_max / 2).min();
    Ok(shortest.map(|interval| interval.clamp(SWEEP_INTERVAL_MIN, SWEEP_INTERVAL_MAX)))
}

async fn sweep(realms: Arc<Realms>, interval: Duration, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        realms.sweep(now());
    }
}

fn stomp_settings(
    config: &Config,
    realms: Arc<Realms>,
    authenticator: Arc<dyn Authenticator>,
) -> stomp::Settings {
    let mut settings = stomp::Settings::new(realms, authenticator);
    let established = Arc::make_mut(&mut settings.established);
    established.body_bytes_max = config.message_bytes_max().try_into().unwrap_or(u32::MAX);
    settings.frame_time_max = config.message_time();
    settings.credit = config.credit();
    settings.prefetch_max = settings.prefetch_max.max(settings.credit.messages);
    let beat_ms = config.stomp.heart_beat_ms.unwrap_or(500);
    settings.heart_beat = HeartBeat { sends_ms: beat_ms, wants_ms: beat_ms };
    settings
}

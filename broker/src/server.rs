//! Builds the house, and closes it in order. The only place that knows everybody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tandem_protocols::stomp::state::HeartBeat;

use crate::config::{Config, ConfigError};
use crate::core::access::{Authenticator, Refusal};
use crate::core::history::{History, WallClock};
use crate::core::parcel::Farewell;
use crate::core::protocol::Protocol;
use crate::core::realm::{Entropy, Furniture, Realm};
use crate::front::door::Door;
use crate::front::listener::bind;
use crate::local::tend_queues;
use crate::stomp;
use crate::users::Users;
use crate::wamp::{Wamp, WampCredentials, WampSettings, WampUser};

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not allow it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address is not to be had.
    #[error("cannot listen at {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// A broker that runs.
pub struct Server {
    addresses: Vec<SocketAddr>,
    realms: Vec<Arc<Realm>>,
    door: Arc<Door>,
    drain_time: std::time::Duration,
}

impl Server {
    /// Starts a broker. Must be called in a tokio runtime.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        config.check()?;
        let entropy: Entropy = Arc::new(rand::random::<u64>);
        let limits = config.realm_limits();
        let history = config.history()?;
        let open = |name: &String| {
            let clock: WallClock = Arc::new(wall_time_ms);
            let history = (!history.is_empty()).then(|| History::new(&history, clock.clone()));
            Realm::furnished(name, limits, entropy.clone(), Furniture { history, clock: Some(clock) })
        };
        let realms: Vec<Arc<Realm>> = config.realms().iter().map(open).collect();
        for realm in &realms {
            furnish(realm, config)?;
        }
        let users = Arc::new(Users::new(config, entropy.clone())?);
        let credentials = Arc::new(wamp_credentials(config, entropy)?);
        let agent = concat!("tandem/", env!("CARGO_PKG_VERSION"));
        // The languages: WAMP, then STOMP, which is what a WebSocket client speaks that does not say.
        let protocols: Vec<Arc<dyn Protocol>> = vec![
            Arc::new(Wamp::new(WampSettings {
                realms: realms.clone(),
                authenticator: users.clone(),
                credentials,
                agent,
            })),
            Arc::new(stomp::Stomp::new(stomp_settings(config, realms.clone(), users.clone()))),
        ];
        let mut settings = config.front()?;
        if !config.websocket.require_subprotocol {
            settings.default_token = protocols[1].tokens().first().copied();
        }
        let door = Door::new(settings, protocols, users);
        for realm in &realms {
            let (shutdown, tending) = (door.shutdown.clone(), tend_queues(realm.clone()));
            door.tasks.spawn(async move { shutdown.run_until_cancelled(tending).await });
        }
        let mut addresses = Vec::new();
        for address in config.addresses() {
            let listener = bind(address).map_err(|error| StartError::Bind { address, error })?;
            addresses.push(listener.local_addr().map_err(|error| StartError::Bind { address, error })?);
            door.tasks.spawn(door.clone().listen(listener));
        }
        Ok(Server { addresses, realms, door, drain_time: config.drain_time() })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its realms, the default first.
    pub fn realms(&self) -> &[Arc<Realm>] {
        &self.realms
    }

    /// The story of the end: nobody new is let in; every session is told in its language; what was said is
    /// still written; whoever takes longer than the drain may is cut off. True when nobody was.
    pub async fn shutdown(self) -> bool {
        self.door.shutdown.cancel();
        for realm in &self.realms {
            realm.say_farewell(Farewell::Shutdown);
        }
        self.door.tasks.close();
        tokio::time::timeout(self.drain_time, self.door.tasks.wait()).await.is_ok()
    }
}

/// Makes the queues that are there from the start, and binds them.
fn furnish(realm: &Realm, config: &Config) -> Result<(), ConfigError> {
    let refused = |refusal: Refusal| ConfigError::Refused(refusal.to_string());
    for (name, properties) in config.queues()? {
        realm.declare_queue(&name, properties).map_err(refused)?;
    }
    for (pattern, queue) in config.bindings()? {
        realm.bind_queue(&pattern, &queue).map_err(refused)?;
    }
    Ok(())
}

/// Checks a configuration as [`Server::start`] does, and starts nothing.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    config.check()?;
    config.front()?;
    let entropy: Entropy = Arc::new(|| 0);
    Users::new(config, entropy.clone())?;
    wamp_credentials(config, entropy).map(drop)
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

fn stomp_settings(
    config: &Config,
    realms: Vec<Arc<Realm>>,
    authenticator: Arc<dyn Authenticator>,
) -> stomp::Settings {
    let by_host: stomp::Realms = Arc::new(move |host: Option<&str>| {
        let named = realms.iter().find(|realm| Some(&**realm.name()) == host);
        named.unwrap_or(&realms[0]).clone()
    });
    let mut settings = stomp::Settings::new(by_host, authenticator);
    settings.established.body_bytes_max = config.message_bytes_max().try_into().unwrap_or(u32::MAX);
    settings.frame_time_max = config.message_time();
    settings.credit = config.credit();
    settings.prefetch_max = settings.prefetch_max.max(settings.credit.messages);
    let beat_ms = config.stomp.heart_beat_ms.unwrap_or(500);
    settings.heart_beat = HeartBeat { sends_ms: beat_ms, wants_ms: beat_ms };
    settings
}

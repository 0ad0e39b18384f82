//! Builds the house, and closes it in order. The only place that knows everybody.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tandem_protocols::stomp::state::HeartBeat;

use crate::authorizer::ProcedureAuthorizer;
use crate::config::{Config, ConfigError};
use crate::core::access::rules::Rules;
use crate::core::access::{Authenticator, Refusal};
use crate::core::history::History;
use crate::core::mailbox::mailbox;
use crate::core::parcel::Farewell;
use crate::core::protocol::Protocol;
use crate::core::realm::{Entropy, Realm};
use crate::front::door::Door;
use crate::front::listener::bind;
use crate::front::tls::Tls;
use crate::front::unix::UnixSocket;
use crate::local::{self, LocalCaller};
use crate::stomp;
use crate::users::Users;
use crate::wamp::{MetaApi, Strictness, Wamp, WampCredentials, WampSettings, WampUser};

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
    /// A Unix socket is not to be had.
    #[error("cannot listen at unix:{path}: {error}", path = path.display())]
    BindUnix {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A broker that runs.
pub struct Server {
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    tls: Option<Arc<Tls>>,
    unix: Vec<PathBuf>,
    realms: Vec<Arc<Realm>>,
    door: Arc<Door>,
    drain_time: std::time::Duration,
}

impl Server {
    /// Starts a broker. Must be called in a tokio runtime.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        config.check()?;
        let tls = tls(config)?;
        if let Some(address) = config.exposes_passwords() {
            tracing::warn!(%address, "passwords are taken in the clear at an address that others can reach; \
                           see listen_tls and authentication.tickets_need_tls");
        }
        let entropy: Entropy = Arc::new(rand::random::<u64>);
        let limits = config.realm_limits();
        let history = config.history()?;
        let open = |name: &String| match &history[..] {
            [] => Realm::new(name, limits, entropy.clone()),
            rules => {
                let history = History::new(rules, Arc::new(wall_time_ms));
                Realm::with_history(name, limits, entropy.clone(), history)
            }
        };
        let realms: Vec<Arc<Realm>> = config.realms().iter().map(open).collect();
        let permissions = permissions(config, &realms)?;
        let users = Arc::new(Users::new(config, entropy.clone())?);
        let credentials = Arc::new(wamp_credentials(config, entropy.clone())?);
        let agent = concat!("tandem/", env!("CARGO_PKG_VERSION"));
        // The languages: WAMP, then STOMP, which is what a WebSocket client speaks that does not say.
        let protocols: Vec<Arc<dyn Protocol>> = vec![
            Arc::new(Wamp::new(WampSettings {
                realms: realms.clone(),
                authenticator: users.clone(),
                credentials,
                agent,
                strictness: Strictness {
                    request_ids: config.wamp.strict_request_ids,
                    uris: config.wamp.strict_uris,
                },
            })),
            Arc::new(stomp::Stomp::new(stomp_settings(config, realms.clone(), users.clone()))),
        ];
        let mut settings = config.front()?;
        if !config.websocket.require_subprotocol {
            settings.default_token = protocols[1].tokens().first().copied();
        }
        let door = Door::new(settings, protocols, users, entropy);
        // Before anybody comes in.
        set_permissions(&realms, permissions, &door)?;
        for realm in &realms {
            let meta = serve_meta(realm).expect("a realm that nobody is in takes a member of the house");
            door.tasks.spawn(meta);
        }
        let sockets = unix_sockets(config)?;
        let listen = |address, tls| {
            let failed = |error| StartError::Bind { address, error };
            let listener = bind(address).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            door.tasks.spawn(door.clone().listen(listener, tls));
            Ok::<_, StartError>(bound)
        };
        let addresses = config.addresses().into_iter().map(|address| listen(address, None));
        let addresses = addresses.collect::<Result<_, _>>()?;
        let tls_addresses = config.listen_tls.iter().map(|&address| listen(address, tls.clone()));
        let tls_addresses = tls_addresses.collect::<Result<_, _>>()?;
        let unix = sockets.iter().map(|socket| socket.path().to_owned()).collect();
        for socket in sockets {
            door.tasks.spawn(door.clone().listen_unix(socket));
        }
        Ok(Server { addresses, tls_addresses, tls, unix, realms, door, drain_time: config.drain_time() })
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

    /// The Unix sockets at which it listens.
    pub fn unix_sockets(&self) -> &[PathBuf] {
        &self.unix
    }

    /// Its realms, the default first.
    pub fn realms(&self) -> &[Arc<Realm>] {
        &self.realms
    }

    /// Takes the permissions of another configuration, and nothing else of it. When they are not right nothing changes.
    /// Must be called in a tokio runtime.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        check(config)?;
        set_permissions(&self.realms, permissions(config, &self.realms)?, &self.door)
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

fn unix_sockets(config: &Config) -> Result<Vec<UnixSocket>, StartError> {
    let mode = config.unix_mode()?;
    let bind = |path: &PathBuf| {
        UnixSocket::bind(path, mode).map_err(|error| StartError::BindUnix { path: path.clone(), error })
    };
    config.listen_unix.iter().map(bind).collect()
}

/// The rules of each realm.
fn permissions(config: &Config, realms: &[Arc<Realm>]) -> Result<Vec<Rules>, ConfigError> {
    realms.iter().map(|realm| config.rules(realm.name())).collect()
}

/// Gives the realms their rules, and those that need one somebody to be asked.
fn set_permissions(realms: &[Arc<Realm>], permissions: Vec<Rules>, door: &Door) -> Result<(), ConfigError> {
    let need_one = |(realm, rules): &(&Arc<Realm>, &Rules)| rules.asks() && !realm.has_authorizer();
    for (realm, _) in realms.iter().zip(&permissions).filter(need_one) {
        let (caller, attending) =
            LocalCaller::join(realm).map_err(|refusal| ConfigError::Refused(refusal.to_string()))?;
        realm.set_authorizer(Some(Arc::new(ProcedureAuthorizer::new(caller))));
        let realm = realm.clone();
        door.tasks.spawn(async move {
            attending.await;
            // It holds the realm that holds it.
            realm.set_authorizer(None);
        });
    }
    for (realm, rules) in realms.iter().zip(permissions) {
        realm.set_rules(rules);
    }
    Ok(())
}

/// Checks a configuration as [`Server::start`] does, and starts nothing.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    config.check()?;
    config.front()?;
    tls(config)?;
    let entropy: Entropy = Arc::new(|| 0);
    Users::new(config, entropy.clone())?;
    wamp_credentials(config, entropy).map(drop)
}

fn tls(config: &Config) -> Result<Option<Arc<Tls>>, ConfigError> {
    let Some(files) = config.tls()? else { return Ok(None) };
    let tls = Tls::new(files, config.tls_handshakes_max());
    tls.map(|tls| Some(Arc::new(tls))).map_err(|error| ConfigError::Refused(format!("tls: {error}")))
}

/// WAMP's meta API in a realm: a member of this process, as long as the future is driven. It ends when the realm
/// says farewell, and until then holds the realm; it counts as no session.
fn serve_meta(realm: &Arc<Realm>) -> Result<impl Future<Output = ()> + Send + use<>, Refusal> {
    let (mailbox, inbox) = mailbox(local::BOUNDS);
    let mut meta = MetaApi::join(realm, mailbox, Arc::new(wall_time_ms))?;
    Ok(local::attend(inbox, move |parcel| meta.receive(parcel)))
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

//! A broker as a part of an application: [`Broker::builder`].
//!
//! `docs/embedding.md` shows how it is used. Nothing of it is another broker than the daemon's: the configuration is the
//! same, but that it listens only where it is told to.

pub mod entrance;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;

use tandem_client::{Connector, stomp, wamp};

use crate::config::{Anonymous, Config, ConfigError, TlsConfig, User};
use crate::core::access::Authenticator;
use crate::core::access::authorizer::Authorizer;
use crate::embed::entrance::Entrance;
use crate::server::{Provided, ProvidedStore, Server, StartError};

/// A broker that runs in this process, for as long as there is this. Dropped, it ends as with
/// [`shutdown`](Broker::shutdown), which nobody waits for then.
pub struct Broker {
    /// There until the end.
    server: Option<Server>,
    entrance: Entrance,
    runtime: Handle,
}

impl Broker {
    /// A broker to be: with one realm `realm1`, no listener, and everybody let in who is on this machine.
    #[must_use]
    pub fn builder() -> Builder {
        Builder { config: Config::default(), provided: Provided::default() }
    }

    /// Where it listens in the clear.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.server().addresses()
    }

    /// Where it listens with TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        self.server().tls_addresses()
    }

    /// The Unix sockets at which it listens.
    pub fn unix_sockets(&self) -> &[PathBuf] {
        self.server().unix_sockets()
    }

    /// For clients in this process, which count as being on this machine, and have the role of
    /// [`own_role`](Builder::own_role), if there is one. Nothing of it goes over a network.
    pub fn connector(&self) -> Connector {
        Connector::in_process(Arc::new(self.entrance.clone()))
    }

    /// A client of WAMP in this process, in the first realm unless it says otherwise: to publish, subscribe, call and
    /// register.
    pub fn wamp(&self) -> wamp::Builder {
        let client = wamp::Client::builder_on(self.connector());
        match self.server().realms().first() {
            Some(realm) => client.realm(&**realm.name()),
            None => client,
        }
    }

    /// A client of STOMP in this process, in the first realm unless it says otherwise: to send to queues, consume from
    /// them and acknowledge, in transactions or not.
    pub fn stomp(&self) -> stomp::Builder {
        stomp::Client::builder_on(self.connector())
    }

    /// The way in for what the application has accepted itself.
    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// Its parts: whether it is ready, its realms, reading certificates and permissions again.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it is taken only with all of this")
    }

    /// Ends it in good order, as the daemon does: nobody new is let in, every session is told and what was said is
    /// written, what was to be kept is made safe. Takes as long as `limits.drain_time_s` at most, and for the store what
    /// that takes. True when nobody was cut off. Who does not wait for it to the end does not keep it from ending.
    pub async fn shutdown(mut self) -> bool {
        match self.server.take() {
            Some(server) => self.runtime.spawn(server.shutdown()).await.unwrap_or(false),
            None => true,
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.door().shutdown.cancel();
            // Where the runtime is gone all tasks are, and what is left is dropped.
            self.runtime.spawn(server.shutdown());
        }
    }
}

/// Settings of a broker to be.
pub struct Builder {
    config: Config,
    provided: Provided,
}

impl Builder {
    /// All that a configuration file could say, in place of what was said before.
    #[must_use]
    pub fn config(mut self, config: Config) -> Builder {
        let embedding = std::mem::take(&mut self.config.embedding);
        self.config = Config { embedding, ..config };
        self
    }

    /// The same, as it stands in such a file.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn toml(self, text: &str) -> Result<Builder, ConfigError> {
        Ok(self.config(Config::parse(text)?))
    }

    /// One more realm. The first is where STOMP clients go that name none.
    #[must_use]
    pub fn realm(mut self, name: impl Into<String>) -> Builder {
        self.config.realms.push(name.into());
        self
    }

    /// Listens at one more address, in the clear. With port 0 the system chooses one: see [`Broker::addresses`].
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.config.listen.push(address);
        self
    }

    /// Listens at one more address with TLS only, by the certificates of [`tls`](Self::tls).
    #[must_use]
    pub fn listen_tls(mut self, address: SocketAddr) -> Builder {
        self.config.listen_tls.push(address);
        self
    }

    /// Listens at one more Unix socket.
    #[must_use]
    pub fn listen_unix(mut self, path: impl Into<PathBuf>) -> Builder {
        self.config.listen_unix.push(path.into());
        self
    }

    /// The certificate to show over TLS, and its key.
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Builder {
        self.config.tls = Some(tls);
        self
    }

    /// Who is let in without saying who they are. By default who is on this machine; to listen where others can reach it,
    /// this must be said.
    #[must_use]
    pub fn anonymous(mut self, anonymous: Anonymous) -> Builder {
        self.config.authentication.anonymous = Some(anonymous);
        self
    }

    /// The role of clients in this process ([`Broker::connector`]) that say no name: they are let in, whatever
    /// [`anonymous`](Self::anonymous) says, as the user `application`. Without this they are anonymous like others of this
    /// machine.
    #[must_use]
    pub fn own_role(mut self, role: impl Into<String>) -> Builder {
        self.config.embedding.own_role = Some(role.into());
        self
    }

    /// One more user.
    #[must_use]
    pub fn user(mut self, user: User) -> Builder {
        self.config.users.push(user);
        self
    }

    /// Asked about users that the configuration does not know.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Builder {
        self.provided.authenticator = Some(authenticator);
        self
    }

    /// Decides what the permissions leave to an authorizer, in place of the procedures that they name. Where there are
    /// no permissions it decides everything, about the application's own clients, too.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Builder {
        self.provided.authorizer = Some(authorizer);
        self
    }

    /// Keeps persistent messages in a directory of this broker's own, which is made if need be.
    #[must_use]
    pub fn store_path(mut self, path: impl AsRef<Path>) -> Builder {
        self.config.store.path = Some(path.as_ref().to_owned());
        self
    }

    /// Keeps persistent messages in a store of the application, which is to close it after the broker has ended.
    #[must_use]
    pub fn store(mut self, store: ProvidedStore) -> Builder {
        self.provided.store = Some(store);
        self
    }

    /// Starts it. Must be called in a tokio runtime, in which it runs.
    ///
    /// # Errors
    ///
    /// Where the configuration is not right, or what it asks for is not to be had.
    pub fn start(self) -> Result<Broker, StartError> {
        let Builder { mut config, provided } = self;
        config.embedding.is_embedded = true;
        let server = Server::start_with(&config, provided)?;
        let entrance = Entrance::new(server.door().clone());
        Ok(Broker { server: Some(server), entrance, runtime: Handle::current() })
    }
}

/// The snippets of the guide compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct Guide;

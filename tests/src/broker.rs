//! A broker in this process.

use std::net::SocketAddr;
use std::time::Duration;

use tandem_broker::config::Config;
use tandem_broker::server::Server;

/// A broker in this process, at a port of its own.
pub struct Broker {
    server: Server,
}

impl Broker {
    /// With the defaults.
    pub async fn start() -> Broker {
        Broker::start_with("").await
    }

    /// With this configuration.
    pub async fn start_with(toml: &str) -> Broker {
        let mut config = Config::parse(toml).unwrap_or_else(|error| panic!("{error}"));
        if config.listen.is_empty() {
            config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        }
        Broker { server: Server::start(&config).unwrap_or_else(|error| panic!("{error}")) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// Its parts.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// How many sessions are in its first realm.
    pub fn sessions(&self) -> usize {
        self.server.realms()[0].sessions()
    }

    /// Ends it, and says whether every connection closed by itself.
    pub async fn shutdown(self) -> bool {
        self.server.shutdown().await
    }
}

/// Waits until something holds, for at most ten seconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}

/// Waits for a future, for at most ten seconds.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(10), future).await {
        Ok(value) => value,
        Err(_) => panic!("not within ten seconds: {what}"),
    }
}

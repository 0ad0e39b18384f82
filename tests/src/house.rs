//! A broker that can be reached in every way, and who vouches for it.

use tandem_broker::Broker;
use tandem_client::{Address, Connector, TlsOptions};

use crate::certificates::Authority;

/// A broker, and the authority whose certificates it shows.
pub struct House {
    /// The broker.
    pub broker: Broker,
    /// Who vouches for it.
    pub authority: Authority,
}

impl House {
    /// One with this, too, in its configuration. It asks nobody for a certificate.
    pub fn open(more: &str) -> House {
        House::open_with("off", more)
    }

    /// The same, where certificates of clients are `off`, `optional` or `required`.
    pub fn open_with(clients: &str, more: &str) -> House {
        let authority = Authority::new();
        authority.renew();
        let broker = Broker::builder()
            .toml(&(authority.config(clients) + more))
            .unwrap()
            .listen("127.0.0.1:0".parse().unwrap())
            .listen_unix(authority.path("socket"))
            .start()
            .unwrap();
        House { broker, authority }
    }

    /// The way that a scheme stands for; `inside` is within the process.
    pub fn connector(&self, scheme: &str) -> Connector {
        match scheme {
            "inside" => self.broker.connector(),
            _ => Connector::new(self.address(scheme)).tls(self.trust()),
        }
    }

    /// What trusts the broker's authority, and no other.
    pub fn trust(&self) -> TlsOptions {
        let ca = self.authority.path("ca.pem");
        TlsOptions::new().without_system_authorities().authorities_file(ca).unwrap()
    }

    /// Where it is.
    pub fn address(&self, scheme: &str) -> Address {
        let (plain, tls) = (self.broker.addresses()[0], self.broker.tls_addresses()[0]);
        let url = match scheme {
            "unix" => format!("unix:{}", self.authority.path("socket").display()),
            "http" => format!("http://{plain}/lp"),
            "https" => format!("https://{tls}/lp"),
            "wss" | "tls" => format!("{scheme}://{tls}"),
            _ => format!("{scheme}://{plain}"),
        };
        url.parse().unwrap()
    }

    /// How many are in the first realm.
    pub fn sessions(&self) -> usize {
        self.broker.server().realms()[0].sessions()
    }
}

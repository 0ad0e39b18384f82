//! A broker that can be reached in every way, and who vouches for it.

use tandem_broker::Broker;
use tandem_client::{Connector, TlsOptions};

use crate::certificates::Authority;

/// A broker, and the authority whose certificates it shows.
pub struct House {
    /// The broker.
    pub broker: Broker,
    authority: Authority,
}

impl House {
    /// One with this, too, in its configuration.
    pub fn open(more: &str) -> House {
        let authority = Authority::new();
        authority.renew();
        let broker = Broker::builder()
            .toml(&(authority.config("off") + more))
            .unwrap()
            .listen("127.0.0.1:0".parse().unwrap())
            .listen_unix(authority.path("socket"))
            .start()
            .unwrap();
        House { broker, authority }
    }

    /// The way that a scheme stands for; `inside` is within the process.
    pub fn connector(&self, scheme: &str) -> Connector {
        let (plain, tls) = (self.broker.addresses()[0], self.broker.tls_addresses()[0]);
        let url = match scheme {
            "inside" => return self.broker.connector(),
            "unix" => format!("unix:{}", self.authority.path("socket").display()),
            "http" => format!("http://{plain}/lp"),
            "https" => format!("https://{tls}/lp"),
            "wss" | "tls" => format!("{scheme}://{tls}"),
            _ => format!("{scheme}://{plain}"),
        };
        let ca = self.authority.path("ca.pem");
        let trust = TlsOptions::new().without_system_authorities().authorities_file(ca).unwrap();
        Connector::new(url.parse().unwrap()).tls(trust)
    }

    /// How many are in the first realm.
    pub fn sessions(&self) -> usize {
        self.broker.server().realms()[0].sessions()
    }
}

//! Connecting to whatever an address names, again and again.
//!
//! ```no_run
//! use tandem_client::{Address, Connector, TlsOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connector = Connector::new("wss://broker.example/ws".parse()?)
//!     .or("https://broker.example/lp".parse()?)
//!     .tls(TlsOptions::new().authorities_file("/etc/ssl/our-ca.pem")?);
//! # let _: Connector = connector;
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::rawsocket::{HandshakeError, Limit};
use tandem_protocols::websocket::extensions::Policy;

use crate::address::{Address, Place};
use crate::dialer::{Dialer, Dialled, HTTP};
use crate::doorway::{ByteStream, Doorway};
use crate::error::Error;
use crate::longpoll::LongPoll;
use crate::longpoll::http::{Asking, HttpOptions};
use crate::raw::dial::{OPENING_TIMEOUT, WebSocketOptions, open_tcp, shake_rawsocket, shake_websocket};
use crate::tls::TlsOptions;
use crate::wire::Wire;

/// Silence after which a server is asked whether it is there, unless it is said otherwise.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How to connect. Each connection tries the addresses in their order, until one leads to a broker that speaks what is
/// asked for.
#[derive(Clone, Debug)]
pub struct Connector {
    targets: Vec<Target>,
    /// Boxed, as it is large.
    websocket: Box<WebSocketOptions>,
    dialer: Dialer,
    rawsocket_limit: Limit,
    opening_time_max: Duration,
    keep_alive: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Target {
    At(Address),
    Through(Arc<dyn Doorway>),
}

impl Connector {
    /// To one address.
    #[must_use]
    pub fn new(address: Address) -> Connector {
        Connector::to(Target::At(address))
    }

    /// To a broker that has no address: one of this process.
    #[must_use]
    pub fn in_process(doorway: Arc<dyn Doorway>) -> Connector {
        Connector::to(Target::Through(doorway))
    }

    fn to(target: Target) -> Connector {
        Connector {
            targets: vec![target],
            websocket: Box::new(WebSocketOptions { compression: Policy::default(), ..Default::default() }),
            dialer: Dialer::default(),
            rawsocket_limit: Limit::MAX,
            opening_time_max: OPENING_TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
        }
    }

    /// Where those before are not to be reached, or do not speak what is asked for, this one is tried.
    #[must_use]
    pub fn or(mut self, address: Address) -> Connector {
        self.targets.push(Target::At(address));
        self
    }

    /// Whom to trust over TLS, and what to show. By default, the authorities of the system, and nothing.
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Connector {
        self.dialer.tls = tls;
        self
    }

    /// Whether and how to compress over WebSocket. By default with servers that do, each message by itself.
    #[must_use]
    pub fn compression(mut self, compression: Policy) -> Connector {
        self.websocket.compression = compression;
        self
    }

    /// The origin to claim over WebSocket and long-polling, as browsers do. By default none.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Connector {
        self.websocket.origin = Some(origin.into());
        self
    }

    /// One more header of the opening handshake of WebSocket, and of the requests of long-polling: `Authorization`, for
    /// example.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Connector {
        self.websocket.headers.push((name.into(), value.into()));
        self
    }

    /// All that can be said about WebSockets; what it says of headers, the origin and limits is good for long-polling, too.
    #[must_use]
    pub fn websocket(mut self, options: WebSocketOptions) -> Connector {
        *self.websocket = options;
        self
    }

    /// The longest message that the broker may send over RawSocket. By default 16 MiB.
    #[must_use]
    pub fn rawsocket_limit(mut self, limit: Limit) -> Connector {
        self.rawsocket_limit = limit;
        self
    }

    /// How long each attempt may take: to find the address, to connect, and all handshakes. By default 10 s.
    #[must_use]
    pub fn opening_time(mut self, time_max: Duration) -> Connector {
        self.opening_time_max = time_max;
        self
    }

    /// After which silence the broker is asked whether it is there, over WebSocket and RawSocket; it is given up after
    /// twice as much. By default [`KEEP_ALIVE`]; with `None` it is not asked.
    #[must_use]
    pub fn keep_alive(mut self, silence: Option<Duration>) -> Connector {
        self.keep_alive = silence;
        self
    }

    /// No attempt takes longer than this, and how long all of them may take then: one address that does not answer must
    /// leave time for the others.
    pub(crate) fn each_within(mut self, time_max: Duration) -> (Connector, Duration) {
        self.opening_time_max = self.opening_time_max.min(time_max);
        let ways = u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        (self, time_max.saturating_mul(ways))
    }

    /// Connects for WAMP in one of `formats`, best first, and says which it is.
    ///
    /// # Errors
    ///
    /// That of the last address.
    pub async fn wamp(&self, formats: &[Format]) -> Result<(Wire, Format), Error> {
        if formats.is_empty() {
            return Err(Error::Unsupported("no serializer at all"));
        }
        let mut result = Err(Error::Unsupported("no address at all"));
        for target in &self.targets {
            result = self.attempt(target, self.wamp_at(target, formats)).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn wamp_at(&self, target: &Target, formats: &[Format]) -> Result<(Wire, Format), Error> {
        let offered: Vec<&str> = formats.iter().map(|format| codec::subprotocol(*format)).collect();
        let wire = match target {
            Target::At(Address::WebSocket(place)) => self.open_websocket(place, &offered).await?,
            Target::At(Address::LongPoll(place)) => self.open_longpoll(place, &offered).await?,
            Target::At(Address::Tcp(_) | Address::Unix(_)) | Target::Through(_) => {
                return self.rawsocket(target, formats).await;
            }
        };
        let format = wire.subprotocol().and_then(codec::format_of);
        Ok((wire, format.ok_or(Error::Unsupported("the server chose no subprotocol"))?))
    }

    /// A router that does not know a serializer says so, and hangs up.
    async fn rawsocket(&self, target: &Target, formats: &[Format]) -> Result<(Wire, Format), Error> {
        let mut result = Err(Error::Unsupported("no serializer at all"));
        for format in formats {
            let Dialled { stream, exporter } = self.stream(target).await?;
            result = shake_rawsocket(stream, *format, self.rawsocket_limit)
                .await
                .map(|transport| (self.watched(Wire::new(transport), target).bound_by(exporter), *format));
            if !matches!(result, Err(Error::RawSocketHandshake(HandshakeError::Serializer))) {
                break;
            }
        }
        result
    }

    /// Connects for STOMP, and says which version the subprotocol names, if there is one.
    ///
    /// # Errors
    ///
    /// That of the last address.
    pub async fn stomp(&self, versions: &[Version]) -> Result<(Wire, Option<Version>), Error> {
        let mut result = Err(Error::Unsupported("no address at all"));
        for target in &self.targets {
            result = self.attempt(target, self.stomp_at(target, versions)).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn stomp_at(
        &self,
        target: &Target,
        versions: &[Version],
    ) -> Result<(Wire, Option<Version>), Error> {
        let offered: Vec<&str> = versions.iter().map(|version| version.subprotocol()).collect();
        let wire = match target {
            Target::At(Address::WebSocket(place)) => self.open_websocket(place, &offered).await?,
            Target::At(Address::LongPoll(place)) => self.open_longpoll(place, &offered).await?,
            Target::At(Address::Tcp(_) | Address::Unix(_)) | Target::Through(_) => {
                let Dialled { stream, exporter } = self.stream(target).await?;
                Wire::new(open_tcp(stream)).bound_by(exporter)
            }
        };
        let chosen = wire.subprotocol();
        let version = versions.iter().copied().find(|version| chosen == Some(version.subprotocol()));
        Ok((wire, version))
    }

    /// Tries one way, for as long as that may take.
    async fn attempt<T>(
        &self,
        target: &Target,
        opening: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let opened = timeout(self.opening_time_max, opening).await;
        let result = opened.unwrap_or(Err(Error::Timeout("connection")));
        result.inspect_err(|error| tracing::debug!(?target, %error, "this way leads to no broker"))
    }

    async fn open_websocket(&self, place: &Place, subprotocols: &[&str]) -> Result<Wire, Error> {
        let Dialled { stream, exporter } = self.dialer.dial(place, Some(HTTP)).await?;
        let host = place.authority();
        let transport = shake_websocket(stream, &host, &place.path, subprotocols, &self.websocket).await?;
        let wire = Wire::new(transport).bound_by(exporter);
        Ok(match self.keep_alive {
            Some(silence) => wire.kept_alive(silence),
            None => wire,
        })
    }

    async fn open_longpoll(&self, place: &Place, protocols: &[&str]) -> Result<Wire, Error> {
        let WebSocketOptions { host, origin, headers, limits, .. } = &*self.websocket;
        let asking = Asking {
            dialer: self.dialer.clone(),
            place: place.clone(),
            host: host.clone(),
            origin: origin.clone(),
            headers: headers.clone(),
            body_bytes_max: limits.message_bytes_max,
        };
        Ok(Wire::polling(LongPoll::open(HttpOptions(Arc::new(asking)), protocols).await?))
    }

    /// Of a broker in this process it is noticed at once when it is gone.
    fn watched(&self, wire: Wire, target: &Target) -> Wire {
        match (self.keep_alive, target) {
            (Some(silence), Target::At(_)) => wire.kept_alive(silence),
            (Some(_), Target::Through(_)) | (None, _) => wire,
        }
    }

    async fn stream(&self, target: &Target) -> Result<Dialled, Error> {
        let stream: Box<dyn ByteStream> = match target {
            Target::At(Address::Unix(path)) => Box::new(tokio::net::UnixStream::connect(path).await?),
            Target::At(Address::WebSocket(place) | Address::Tcp(place) | Address::LongPoll(place)) => {
                return self.dialer.dial(place, None).await;
            }
            Target::Through(doorway) => doorway.open()?,
        };
        Ok(Dialled { stream, exporter: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(value: T) -> T {
        value
    }

    #[tokio::test]
    async fn connecting_can_be_left_to_a_task() {
        let (formats, versions) = ([Format::Json], [Version::V12]);
        let connector = Connector::new("unix:/there/is/nothing".parse().unwrap());
        let opening = is_send(async {
            let (mut wire, _) = connector.wamp(&formats).await?;
            wire.next().await
        });
        assert!(matches!(opening.await, Err(Error::Io(_))));
        assert!(matches!(is_send(connector.stomp(&versions)).await, Err(Error::Io(_))));
    }
}

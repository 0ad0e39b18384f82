//! Connecting to whatever an address names, again and again.

use tokio::net::TcpStream;

use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::rawsocket::Limit;

use crate::address::{Address, Place};
use crate::error::Error;
use crate::raw::dial::{WebSocketOptions, open_rawsocket, open_tcp, open_websocket};
use crate::wire::{ByteStream, Wire};

/// How to connect.
#[derive(Clone, Debug)]
pub struct Connector {
    addresses: Vec<Address>,
    websocket: WebSocketOptions,
}

impl Connector {
    /// To one address.
    pub fn new(address: Address) -> Connector {
        Connector { addresses: vec![address], websocket: WebSocketOptions::default() }
    }

    /// Where those before do not lead to a session, this one is tried.
    #[must_use]
    pub fn or(mut self, address: Address) -> Connector {
        self.addresses.push(address);
        self
    }

    /// Connects for WAMP in one of `formats`, best first, and says which it is.
    ///
    /// # Errors
    ///
    /// That of the last address.
    pub async fn wamp(&self, formats: &[Format]) -> Result<(Wire, Format), Error> {
        let mut result = Err(Error::Unsupported("no address at all"));
        for address in &self.addresses {
            result = self.wamp_at(address, formats).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn wamp_at(&self, address: &Address, formats: &[Format]) -> Result<(Wire, Format), Error> {
        let first = *formats.first().ok_or(Error::Unsupported("no serializer at all"))?;
        match address {
            Address::WebSocket(place) => {
                let offered: Vec<&str> = formats.iter().map(|format| codec::subprotocol(*format)).collect();
                let wire = self.websocket(place, &offered).await?;
                let format = wire.subprotocol().and_then(codec::format_of);
                Ok((wire, format.ok_or(Error::Unsupported("the server chose no subprotocol"))?))
            }
            Address::Tcp(_) | Address::Unix(_) => {
                let stream = stream(address).await?;
                Ok((Wire::new(open_rawsocket(stream, first, Limit::MAX).await?), first))
            }
            Address::LongPoll(_) => Err(Error::Unsupported("long-polling")),
        }
    }

    /// Connects for STOMP, and says which version the subprotocol names, if there is one.
    ///
    /// # Errors
    ///
    /// That of the last address.
    pub async fn stomp(&self, versions: &[Version]) -> Result<(Wire, Option<Version>), Error> {
        let mut result = Err(Error::Unsupported("no address at all"));
        for address in &self.addresses {
            result = self.stomp_at(address, versions).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn stomp_at(
        &self,
        address: &Address,
        versions: &[Version],
    ) -> Result<(Wire, Option<Version>), Error> {
        match address {
            Address::WebSocket(place) => {
                let offered: Vec<&str> = versions.iter().map(|version| version.subprotocol()).collect();
                let wire = self.websocket(place, &offered).await?;
                let chosen = wire.subprotocol();
                let version = versions.iter().copied().find(|version| chosen == Some(version.subprotocol()));
                Ok((wire, version))
            }
            Address::Tcp(_) | Address::Unix(_) => Ok((Wire::new(open_tcp(stream(address).await?)), None)),
            Address::LongPoll(_) => Err(Error::Unsupported("long-polling")),
        }
    }

    async fn websocket(&self, place: &Place, subprotocols: &[&str]) -> Result<Wire, Error> {
        let stream = tcp(place).await?;
        let host = place.authority();
        Ok(Wire::new(open_websocket(stream, &host, &place.path, subprotocols, &self.websocket).await?))
    }
}

async fn stream(address: &Address) -> Result<Box<dyn ByteStream>, Error> {
    match address {
        Address::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
        Address::WebSocket(place) | Address::Tcp(place) | Address::LongPoll(place) => tcp(place).await,
    }
}

async fn tcp(place: &Place) -> Result<Box<dyn ByteStream>, Error> {
    if place.tls {
        return Err(Error::Unsupported("TLS"));
    }
    let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

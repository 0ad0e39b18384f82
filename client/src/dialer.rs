//! Streams to places: TCP, and TLS over it.

use tokio::net::TcpStream;

use crate::address::Place;
use crate::doorway::ByteStream;
use crate::error::Error;
use crate::tls::{ConnectError, Exporter, TlsOptions};

/// What is asked for by ALPN where HTTP is spoken, be it for a WebSocket.
pub(crate) const HTTP: &[u8] = b"http/1.1";

/// Opens streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dialer {
    pub(crate) tls: TlsOptions,
}

/// A stream to a place.
pub(crate) struct Dialled {
    pub(crate) stream: Box<dyn ByteStream>,
    /// What it can be bound by.
    pub(crate) exporter: Option<Exporter>,
}

impl Dialer {
    /// Connects to a place, on which `alpn` is going to be spoken, if that has a name.
    pub(crate) async fn dial(&self, place: &Place, alpn: Option<&[u8]>) -> Result<Dialled, Error> {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
        stream.set_nodelay(true)?;
        if !place.tls {
            return Ok(Dialled { stream: Box::new(stream), exporter: None });
        }
        let (stream, exporter) = self.tls.connect(stream, &place.host, alpn).await?;
        Ok(Dialled { stream: Box::new(stream), exporter })
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Error {
        match error {
            ConnectError::Tls(error) => Error::Tls(error),
            ConnectError::Io(error) => Error::Io(error),
        }
    }
}

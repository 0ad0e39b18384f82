//! Connections to a broker, and what is written to them and read from them without more ado than is needed.

use bytes::Bytes;

use tandem_client::raw::stomp::{self, ConnectOptions};
use tandem_client::raw::transport::{Closed, Kind};
use tandem_client::{Error as ClientError, Wire};
use tandem_protocols::stomp::codec::{Decoder, Item, Limits, encode};
use tandem_protocols::stomp::frame::{Frame, Side, Version};

use crate::error::Error;
use crate::options::Common;

/// What a broker may send in a frame.
const LIMITS: Limits = Limits {
    headers_max: 256,
    opening_headers_max: 256,
    header_line_bytes_max: 64 << 10,
    header_block_bytes_max: 256 << 10,
    body_bytes_max: 32 << 20,
};

/// STOMP 1.2, many frames at a time.
#[derive(Debug)]
pub struct StompWire {
    wire: Wire,
    decoder: Decoder,
}

impl StompWire {
    /// A client that is connected.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`].
    pub async fn connect(common: &Common) -> Result<stomp::Client<Wire>, Error> {
        let failed = |error: ClientError| Error::connect(&format!("STOMP at {}", common.url), error);
        let (wire, _) = common.connector().stomp(&[Version::V12]).await.map_err(failed)?;
        let options = ConnectOptions {
            host: common.host.clone(),
            login: common.login.clone(),
            passcode: common.passcode.clone(),
            ..ConnectOptions::default()
        };
        stomp::Client::connect(wire, Version::V12, &options).await.map_err(failed)
    }

    /// Goes on with a client's connection. Nothing may be on its way from the broker.
    pub fn new(client: stomp::Client<Wire>) -> Self {
        let mut decoder = Decoder::new(Side::Client, LIMITS);
        decoder.set_version(Version::V12);
        Self { wire: client.into_link().into_transport(), decoder }
    }

    /// Takes a frame to be written.
    ///
    /// # Errors
    ///
    /// Those of [`Wire::feed`].
    pub fn feed(&mut self, frame: &Frame) -> Result<(), ClientError> {
        self.wire.feed(Kind::Text, &encode(Version::V12, frame))
    }

    /// Takes a frame to be written that is bytes already.
    ///
    /// # Errors
    ///
    /// Those of [`Wire::feed`].
    pub fn feed_encoded(&mut self, frame: &[u8]) -> Result<(), ClientError> {
        self.wire.feed(Kind::Text, frame)
    }

    /// Writes what waits.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.wire.flush().await
    }

    /// Waits until something comes, and takes all frames that have come. May be cancelled.
    ///
    /// # Errors
    ///
    /// Those of the network, and what is no STOMP.
    pub async fn frames(&mut self, frames: &mut Vec<Frame>) -> Result<(), ClientError> {
        let Some(message) = self.wire.next().await? else { return Err(ended(&self.wire)) };
        self.decode(message.bytes, frames)?;
        while let Some(message) = self.wire.try_next() {
            self.decode(message.bytes, frames)?;
        }
        Ok(())
    }

    fn decode(&mut self, mut input: Bytes, frames: &mut Vec<Frame>) -> Result<(), ClientError> {
        while let Some(item) = self.decoder.decode(&mut input)? {
            if let Item::Frame(frame) = item {
                frames.push(frame);
            }
        }
        Ok(())
    }
}

/// How a connection ended.
pub(crate) fn ended(wire: &Wire) -> ClientError {
    ClientError::Closed(wire.closed().cloned().unwrap_or(Closed::Failed))
}

//! Messages in RawSocket frames, WAMP's own for streams.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use tandem_protocols::wamp::rawsocket::{
    Decoder, FrameType, HEAD_BYTES, Handshake, HandshakeError, Limit, frame_head,
};

use crate::core::message::{Frame, Kind};
use crate::core::protocol::{Close, Reason};
use crate::front::framing::{Arrival, Piece, put_bytes};
use crate::front::wire::Wire;
use crate::metrics;

pub use tandem_protocols::wamp::rawsocket::{HandshakeError as Refused, MAGIC};

/// Why there is no RawSocket connection.
#[derive(Debug, thiserror::Error)]
pub enum NoHandshake {
    /// The wire broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer asked for something that is not to be had.
    #[error(transparent)]
    Refused(#[from] HandshakeError),
}

/// The frames of one connection.
#[derive(Debug)]
pub struct RawSocket {
    decoder: Decoder,
    /// What the peer is willing to receive.
    peer_limit: Limit,
}

/// A peer that takes no messages of so many bytes cannot even be welcomed.
const PEER_BYTES_MIN: usize = 2048;

/// Answers the peer's handshake; `token` says what a serializer is spoken under. Where there is none to be had,
/// `refusal` says so to whatever it asks.
pub async fn shake_hands<W: Wire>(
    wire: &mut W,
    limit: Limit,
    token: impl Fn(u8) -> Option<&'static str>,
    refusal: Option<HandshakeError>,
) -> Result<(&'static str, RawSocket), NoHandshake> {
    let mut bytes = [0; HEAD_BYTES];
    wire.read_exact(&mut bytes).await?;
    let serializer = bytes[1] & 0x0F;
    let asked = Handshake::parse_request(bytes)
        .and_then(|asked| token(serializer).map(|token| (asked, token)).ok_or(HandshakeError::Serializer));
    let is_short = |limit: Limit| limit.bytes() < PEER_BYTES_MIN;
    let asked = match (refusal, asked) {
        (Some(refusal), _) => Err(refusal),
        (None, Ok((asked, _))) if is_short(asked.limit) => Err(HandshakeError::Limit),
        (None, asked) => asked,
    };
    match asked {
        Ok((asked, token)) => {
            wire.write_all(&Handshake { limit, format: asked.format }.to_bytes()).await?;
            Ok((token, RawSocket { decoder: Decoder::new(limit), peer_limit: asked.limit }))
        }
        Err(error) => {
            if let Some(reply) = error.reply() {
                wire.write_all(&reply).await?;
                wire.shutdown().await?;
            }
            Err(error.into())
        }
    }
}

impl RawSocket {
    /// Takes the next frame off what was read.
    pub fn next(&mut self, data: &mut &mut [u8]) -> Result<Option<Arrival>, Close> {
        let mut rest: &[u8] = data;
        let frame = self.decoder.decode(&mut rest);
        let taken = data.len() - rest.len();
        *data = &mut std::mem::take(data)[taken..];
        let frame = frame.map_err(|error| Close::new(Reason::Violation, format!("RawSocket: {error}")))?;
        Ok(frame.map(|frame| match frame.frame_type {
            FrameType::Message => Arrival::Message(Kind::Raw, frame.payload),
            FrameType::Ping => Arrival::Ping(frame.payload),
            FrameType::Pong => Arrival::Pong,
        }))
    }

    /// The longest message that the peer takes.
    pub fn peer_bytes_max(&self) -> usize {
        self.peer_limit.bytes()
    }

    /// Frames a message. One that the peer will not take is left out, and counted: the session knows the limit.
    pub fn frame(&self, frame: &Frame, buffer: &mut Vec<u8>) -> Piece {
        let message = frame.message();
        match frame_head(FrameType::Message, message.len(), self.peer_limit) {
            Ok(head) => {
                buffer.extend_from_slice(&head);
                put_bytes(&message.head, &message.body, buffer)
            }
            Err(error) => {
                metrics::UNDELIVERABLE.add(1);
                tracing::warn!(%error, "a message is too long for its RawSocket peer");
                Piece::Copied
            }
        }
    }

    /// Answers a ping.
    pub fn pong(&self, data: &Bytes, buffer: &mut Vec<u8>) {
        self.put_control(FrameType::Pong, data, buffer);
    }

    /// Asks whether the peer is alive.
    pub fn ping(&self, buffer: &mut Vec<u8>) {
        self.put_control(FrameType::Ping, b"", buffer);
    }

    fn put_control(&self, kind: FrameType, data: &[u8], buffer: &mut Vec<u8>) {
        // A peer that cannot take back what it sent does not get it.
        if let Ok(head) = frame_head(kind, data.len(), self.peer_limit) {
            buffer.extend_from_slice(&head);
            buffer.extend_from_slice(data);
        }
    }

    /// True in the middle of a message.
    pub fn is_incomplete(&self) -> bool {
        !self.decoder.is_between_frames()
    }
}

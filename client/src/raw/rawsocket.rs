//! RawSocket, the client's side: the handshake, and messages as frames.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::rawsocket::{Decoder, FrameType, HEAD_BYTES, Handshake, Limit, frame_head};

use crate::error::Error;
use crate::message::{Arrivals, Kind, Message};

/// The frames of one connection.
#[derive(Debug)]
pub(crate) struct RawSocket {
    decoder: Decoder,
    peer_limit: Limit,
}

impl RawSocket {
    /// Shakes hands over a fresh stream.
    pub(crate) async fn open<S>(stream: &mut S, format: Format, limit: Limit) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        stream.write_all(&Handshake { limit, format }.to_bytes()).await?;
        stream.flush().await?;
        let mut reply = [0; HEAD_BYTES];
        stream.read_exact(&mut reply).await?;
        let reply = Handshake::parse_reply(reply, format)?;
        Ok(Self { decoder: Decoder::new(limit), peer_limit: reply.limit })
    }

    pub(crate) fn receive(&mut self, mut data: &[u8], arrivals: &mut Arrivals) -> Result<(), Error> {
        while let Some(frame) = self.decoder.decode(&mut data)? {
            match frame.frame_type {
                FrameType::Message => {
                    arrivals.message(Message { kind: Kind::Binary, bytes: frame.payload });
                }
                FrameType::Ping => arrivals.ping(frame.payload),
                FrameType::Pong => arrivals.pong(frame.payload),
            }
        }
        Ok(())
    }

    pub(crate) fn is_incomplete(&self) -> bool {
        !self.decoder.is_between_frames()
    }

    pub(crate) fn put(&self, frame_type: FrameType, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let head = frame_head(frame_type, payload.len(), self.peer_limit)?;
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
        Ok(())
    }

    pub(crate) fn put_pong(&self, data: &Bytes, out: &mut Vec<u8>) -> Result<(), Error> {
        self.put(FrameType::Pong, data, out)
    }
}

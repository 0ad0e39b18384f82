//! RawSocket: WAMP messages over a stream of bytes.
//!
//! ```text
//! handshake = %x7F ( length serializer ) %x00 %x00      ; length: 2^(9 + n) bytes are willingly received
//! refusal   = %x7F ( error %b0000 ) %x00 %x00
//! frame     = ( %b0000 X type ) length length length *byte
//! type      = 0 message, 1 ping, 2 pong                 ; X: exactly 2^24 bytes, and length is 0
//! ```
//!
//! A message of no bytes is a violation; pings and pongs may be empty. A ping is to be answered at once,
//! before HELLO as well. The limits of both directions come from the handshake.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::payload::Format;

/// The byte that a handshake begins with.
pub const MAGIC: u8 = 0x7f;
/// The length of a handshake, and of the head of a frame.
pub const HEAD_BYTES: usize = 4;
/// The largest message that there can be.
pub const MESSAGE_BYTES_MAX: usize = 1 << 24;

const SIXTEEN_MIB: u8 = 0b1000;

/// How many bytes a peer is willing to receive at once: a power of two from 2^9 to 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(u8);

impl Limit {
    /// 16 MiB.
    pub const MAX: Self = Self(15);

    /// The largest limit that is not above `bytes`; `None` below 512.
    #[must_use]
    pub fn at_most(bytes: usize) -> Option<Self> {
        let exponent = bytes.checked_ilog2()?.checked_sub(9)?;
        Some(Self(u8::try_from(exponent).map_or(15, |exponent| exponent.min(15))))
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        1 << (9 + self.0)
    }
}

/// What both peers send first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What its sender is willing to receive.
    pub limit: Limit,
    /// What is spoken; the router repeats the client's choice.
    pub format: Format,
}

impl Handshake {
    /// The bytes to send.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let serializer = match self.format {
            Format::Json => 1,
            Format::MsgPack => 2,
            Format::Cbor => 3,
        };
        [MAGIC, self.limit.0 << 4 | serializer, 0, 0]
    }

    /// Reads what a client sent.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]; where it has a [`reply`](HandshakeError::reply), that is sent before closing.
    pub fn parse_request(bytes: [u8; HEAD_BYTES]) -> Result<Self, HandshakeError> {
        let [magic, choice, reserved_1, reserved_2] = bytes;
        if magic != MAGIC {
            return Err(HandshakeError::NotRawSocket);
        }
        if (reserved_1, reserved_2) != (0, 0) {
            return Err(HandshakeError::ReservedBits);
        }
        let format = match choice & 0x0f {
            1 => Format::Json,
            2 => Format::MsgPack,
            3 => Format::Cbor,
            _ => return Err(HandshakeError::Serializer),
        };
        Ok(Self { limit: Limit(choice >> 4), format })
    }

    /// Reads what a router replied to a client that asked for `format`.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]: why the router refused, or that this is no reply.
    pub fn parse_reply(bytes: [u8; HEAD_BYTES], format: Format) -> Result<Self, HandshakeError> {
        if bytes[0] == MAGIC && bytes[1] & 0x0f == 0 {
            return Err(HandshakeError::from_code(bytes[1] >> 4));
        }
        let reply = Self::parse_request(bytes)?;
        if reply.format == format { Ok(reply) } else { Err(HandshakeError::Serializer) }
    }
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The first byte is something else's.
    #[error("not a RawSocket handshake")]
    NotRawSocket,
    /// Error 1.
    #[error("the serializer is not supported")]
    Serializer,
    /// Error 2.
    #[error("the maximum message length is not acceptable")]
    Limit,
    /// Error 3.
    #[error("reserved bits are used")]
    ReservedBits,
    /// Error 4.
    #[error("the maximum number of connections is reached")]
    Connections,
    /// An error that we do not know.
    #[error("the router refuses with error {0}")]
    Other(u8),
}

impl HandshakeError {
    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Serializer,
            2 => Self::Limit,
            3 => Self::ReservedBits,
            4 => Self::Connections,
            other => Self::Other(other),
        }
    }

    /// What a router sends before it closes; `None` where the peer does not speak RawSocket.
    #[must_use]
    pub fn reply(self) -> Option<[u8; HEAD_BYTES]> {
        let code = match self {
            Self::NotRawSocket => return None,
            Self::Serializer => 1,
            Self::Limit => 2,
            Self::ReservedBits => 3,
            Self::Connections => 4,
            Self::Other(code) => code & 0x0f,
        };
        Some([MAGIC, code << 4, 0, 0])
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// A WAMP message.
    Message,
    /// Bytes to be sent back.
    Ping,
    /// Bytes sent back.
    Pong,
}

/// A frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub frame_type: FrameType,
    /// What is in it.
    pub payload: Bytes,
}

/// What is wrong with a frame. The connection cannot go on after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Bits of the head that must be 0 are not.
    #[error("reserved bits are used")]
    ReservedBits,
    /// A type above 2.
    #[error("frames of type {0} mean nothing")]
    Type(u8),
    /// The bit for 16 MiB, and another length.
    #[error("two lengths in one head")]
    Length,
    /// It is longer than its receiver said it would take.
    #[error("a frame of {bytes} bytes, where {limit} are allowed")]
    TooLong {
        /// The length.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A message has at least one byte.
    #[error("a message without bytes")]
    Empty,
}

/// The head of a frame to be sent.
///
/// # Errors
///
/// [`FrameError::TooLong`] above the limit of the peer, and [`FrameError::Empty`].
pub fn frame_head(
    frame_type: FrameType,
    length: usize,
    peer_limit: Limit,
) -> Result<[u8; HEAD_BYTES], FrameError> {
    check_length(frame_type, length, peer_limit)?;
    let code = match frame_type {
        FrameType::Message => 0,
        FrameType::Ping => 1,
        FrameType::Pong => 2,
    };
    let length = u32::try_from(length).expect("no limit is above 2^24");
    let [high, a, b, c] = length.to_be_bytes();
    // 2^24 does not fit: its 25th bit becomes the X bit.
    Ok([if high == 0 { code } else { code | SIXTEEN_MIB }, a, b, c])
}

/// Reads the head of a frame: its type and its length.
///
/// # Errors
///
/// [`FrameError`], also for what is longer than our own limit.
pub fn parse_head(head: [u8; HEAD_BYTES], limit: Limit) -> Result<(FrameType, usize), FrameError> {
    let [first, a, b, c] = head;
    if first & 0xf0 != 0 {
        return Err(FrameError::ReservedBits);
    }
    let frame_type = match first & 0b111 {
        0 => FrameType::Message,
        1 => FrameType::Ping,
        2 => FrameType::Pong,
        other => return Err(FrameError::Type(other)),
    };
    let length = match (first & SIXTEEN_MIB != 0, u32::from_be_bytes([0, a, b, c])) {
        (true, 0) => MESSAGE_BYTES_MAX,
        (true, _) => return Err(FrameError::Length),
        (false, length) => usize::try_from(length).expect("24 bits"),
    };
    check_length(frame_type, length, limit)?;
    Ok((frame_type, length))
}

fn check_length(frame_type: FrameType, length: usize, limit: Limit) -> Result<(), FrameError> {
    if length > limit.bytes() {
        return Err(FrameError::TooLong { bytes: length, limit: limit.bytes() });
    }
    if length == 0 && frame_type == FrameType::Message {
        return Err(FrameError::Empty);
    }
    Ok(())
}

/// Cuts a stream into frames.
///
/// Between frames it owns nothing. Of a frame that has not arrived entirely it keeps what has arrived, and
/// its memory grows with that, not with what the head announces.
///
/// ```
/// use tandem_protocols::wamp::rawsocket::{Decoder, FrameType, Limit};
///
/// let mut decoder = Decoder::new(Limit::MAX);
/// let mut input = &b"\x00\x00\x00\x02[]\x01"[..];
/// assert_eq!(decoder.decode(&mut input).unwrap().unwrap().payload, "[]");
/// assert_eq!(decoder.decode(&mut input).unwrap(), None);
/// let mut input = &b"\x00\x00\x00"[..];
/// assert_eq!(decoder.decode(&mut input).unwrap().unwrap().frame_type, FrameType::Ping);
/// ```
#[derive(Debug)]
pub struct Decoder {
    limit: Limit,
    head: [u8; HEAD_BYTES],
    head_bytes: u8,
    body: BytesMut,
}

impl Decoder {
    /// With the limit that we announced.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        Self { limit, head: [0; HEAD_BYTES], head_bytes: 0, body: BytesMut::new() }
    }

    /// Whether the stream may end here.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.head_bytes == 0
    }

    /// The next frame, whose bytes are taken off `input`; `None` once all of `input` is taken.
    ///
    /// # Errors
    ///
    /// [`FrameError`] as soon as a head shows it. The decoder is of no use after that.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        while usize::from(self.head_bytes) < HEAD_BYTES {
            let Some((byte, rest)) = input.split_first() else { return Ok(None) };
            self.head[usize::from(self.head_bytes)] = *byte;
            self.head_bytes += 1;
            *input = rest;
        }
        let (frame_type, length) = parse_head(self.head, self.limit)?;
        let (taken, rest) = input.split_at((length - self.body.len()).min(input.len()));
        *input = rest;
        let payload = if taken.len() == length {
            Bytes::copy_from_slice(taken)
        } else {
            self.body.extend_from_slice(taken);
            if self.body.len() < length {
                return Ok(None);
            }
            std::mem::take(&mut self.body).freeze()
        };
        self.head_bytes = 0;
        Ok(Some(Frame { frame_type, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_names_limit_and_serializer() {
        let handshake = Handshake::parse_request([0x7f, 0xf1, 0, 0]).unwrap();
        assert_eq!(handshake, Handshake { limit: Limit::MAX, format: Format::Json });
        assert_eq!(handshake.limit.bytes(), MESSAGE_BYTES_MAX);
        let least = Handshake { limit: Limit::at_most(512).unwrap(), format: Format::Cbor };
        assert_eq!(least.to_bytes(), [0x7f, 0x03, 0, 0]);
        for serializer in 1..=3 {
            for length in 0..=15 {
                let bytes = [0x7f, length << 4 | serializer, 0, 0];
                let handshake = Handshake::parse_request(bytes).unwrap();
                assert_eq!(handshake.to_bytes(), bytes);
                assert_eq!(Handshake::parse_reply(bytes, handshake.format), Ok(handshake));
            }
        }
        assert_eq!(Limit::at_most(511), None);
        assert_eq!(Limit::at_most(0), None);
        assert_eq!(Limit::at_most(1_000_000).unwrap().bytes(), 1 << 19);
        assert_eq!(Limit::at_most(usize::MAX), Some(Limit::MAX));
    }

    #[test]
    fn a_refused_handshake_has_a_reply() {
        for (request, reply) in [
            ([0x7f, 0xf4, 0, 0], Some([0x7f, 0x10, 0, 0])),
            ([0x7f, 0xf0, 0, 0], Some([0x7f, 0x10, 0, 0])),
            ([0x7f, 0xf1, 0, 1], Some([0x7f, 0x30, 0, 0])),
            ([0x7f, 0xf1, 1, 0], Some([0x7f, 0x30, 0, 0])),
            (*b"GET ", None),
        ] {
            assert_eq!(Handshake::parse_request(request).unwrap_err().reply(), reply, "{request:x?}");
        }
        for error in [
            HandshakeError::Serializer,
            HandshakeError::Limit,
            HandshakeError::ReservedBits,
            HandshakeError::Connections,
            HandshakeError::Other(9),
        ] {
            assert_eq!(Handshake::parse_reply(error.reply().unwrap(), Format::Json), Err(error));
        }
        let other = Handshake::parse_reply([0x7f, 0xf2, 0, 0], Format::Json);
        assert_eq!(other, Err(HandshakeError::Serializer));
    }

    #[test]
    fn heads_say_type_and_length() {
        let small = Limit::at_most(512).unwrap();
        assert_eq!(frame_head(FrameType::Message, 512, small), Ok([0, 0, 2, 0]));
        assert_eq!(frame_head(FrameType::Ping, 0, small), Ok([1, 0, 0, 0]));
        assert_eq!(frame_head(FrameType::Pong, 1, small), Ok([2, 0, 0, 1]));
        assert_eq!(frame_head(FrameType::Message, 0, small), Err(FrameError::Empty));
        assert!(frame_head(FrameType::Message, 513, small).is_err());
        assert_eq!(frame_head(FrameType::Message, 1 << 24, Limit::MAX), Ok([8, 0, 0, 0]));
        assert!(frame_head(FrameType::Message, (1 << 24) + 1, Limit::MAX).is_err());
        assert_eq!(frame_head(FrameType::Message, (1 << 24) - 1, Limit::MAX), Ok([0, 255, 255, 255]));

        assert_eq!(parse_head([8, 0, 0, 0], Limit::MAX), Ok((FrameType::Message, 1 << 24)));
        assert_eq!(parse_head([8, 0, 0, 1], Limit::MAX), Err(FrameError::Length));
        assert!(matches!(parse_head([8, 0, 0, 0], small), Err(FrameError::TooLong { .. })));
        assert!(matches!(parse_head([1, 0, 2, 1], small), Err(FrameError::TooLong { .. })));
        assert_eq!(parse_head([3, 0, 0, 1], small), Err(FrameError::Type(3)));
        assert_eq!(parse_head([0x10, 0, 0, 1], small), Err(FrameError::ReservedBits));
        assert_eq!(parse_head([0, 0, 0, 0], small), Err(FrameError::Empty));
    }

    #[test]
    fn frames_arrive_in_any_pieces() {
        let stream = b"\0\0\0\x03abc\x01\0\0\0\x02\0\0\x02xy\0\0\0\x01z";
        for size in 1..=stream.len() {
            let mut decoder = Decoder::new(Limit::MAX);
            let mut frames = Vec::new();
            for mut piece in stream.chunks(size) {
                while let Some(frame) = decoder.decode(&mut piece).unwrap() {
                    frames.push((frame.frame_type, frame.payload));
                }
                assert!(piece.is_empty());
            }
            assert!(decoder.is_between_frames());
            let payloads: Vec<_> = frames.iter().map(|(_, payload)| &payload[..]).collect();
            assert_eq!(payloads, [&b"abc"[..], b"", b"xy", b"z"]);
            assert_eq!(frames[1].0, FrameType::Ping);
            assert_eq!(frames[2].0, FrameType::Pong);
        }
    }

    #[test]
    fn an_announced_length_is_not_allocated() {
        let mut decoder = Decoder::new(Limit::MAX);
        assert_eq!(decoder.decode(&mut &[8, 0, 0, 0, 1, 2][..]), Ok(None));
        assert!(decoder.body.capacity() < 1024);
        assert!(!decoder.is_between_frames());
        let rest = vec![0; (1 << 24) - 2];
        assert_eq!(decoder.decode(&mut &rest[..]).unwrap().unwrap().payload.len(), 1 << 24);
        assert_eq!(decoder.body.capacity(), 0);
    }
}

//! Frames of RFC 6455 section 5.2: their headers, read and written, and masking.
//!
//! ```text
//! frame   = FIN RSV1 RSV2 RSV3 opcode:4  MASK len:7  [len:16 | len:64]  [key:32]  payload
//! opcode  = 0 continuation | 1 text | 2 binary | 8 close | 9 ping | 10 pong ; the rest is reserved
//! RSV1    = compressed (RFC 7692), on the first frame of a data message only, and only if negotiated;
//!           where frames are compressed by themselves, on any of a data message's
//! control = 8 | 9 | 10 ; FIN set, at most 125 octets
//! ```
//!
//! Stricter than many: a length that is not written in its shortest form is refused (section 5.2 asks for
//! that), as is a mask bit that does not fit the peer's role (section 5.1). A header is refused at the first
//! octet that condemns it. Assembling messages is [`super::message`]'s work.

use std::ops::{Deref, Range};

use bytes::{BufMut, Bytes, BytesMut};

/// The longest header: 2 octets, a 64-bit length, a mask key.
pub const HEADER_BYTES_MAX: usize = 14;

/// The longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

/// Status codes of a close frame that this layer or its users send (RFC 6455 section 7.4.1 and IANA).
pub mod close {
    /// The purpose is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The endpoint goes away: a server shuts down.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// A payload is not what its type says, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// The peer broke a policy that has no code of its own.
    pub const POLICY: u16 = 1008;
    /// A message is too big.
    pub const TOO_BIG: u16 = 1009;
    /// Something unexpected happened here.
    pub const INTERNAL: u16 = 1011;
    /// Overloaded or restarting: come again later.
    pub const TRY_AGAIN_LATER: u16 = 1013;
}

/// What the peer did wrong, and how to tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({code})")]
pub struct Violation {
    /// The status code of the close frame to answer with.
    pub code: u16,
    /// The reason of that close frame; short enough for one.
    pub text: &'static str,
}

impl Violation {
    /// The peer broke the protocol: 1002.
    pub(super) const fn protocol(text: &'static str) -> Self {
        Self { code: close::PROTOCOL, text }
    }

    /// The payload is not what it says it is: 1007.
    pub(super) const fn payload(text: &'static str) -> Self {
        Self { code: close::INVALID_PAYLOAD, text }
    }

    /// More than we take: 1009.
    pub(super) const fn too_big(text: &'static str) -> Self {
        Self { code: close::TOO_BIG, text }
    }
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads masked frames, writes unmasked ones.
    Server,
    /// Reads unmasked frames, writes masked ones.
    Client,
}

/// The kinds of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of a data message.
    Continuation,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// The closing handshake.
    Close,
    /// Are you there?
    Ping,
    /// I am here.
    Pong,
}

impl Opcode {
    /// Whether the frame is about the connection, not about a message.
    pub fn is_control(self) -> bool {
        match self {
            Self::Continuation | Self::Text | Self::Binary => false,
            Self::Close | Self::Ping | Self::Pong => true,
        }
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// A frame without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// The message is compressed.
    pub compressed: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The key its payload is masked with: always from a client, never from a server.
    pub mask: Option<[u8; 4]>,
    /// How many octets of payload follow.
    pub len: u64,
}

/// What is compressed by itself, and marked as compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A message, by its first frame: permessage-deflate.
    Message,
    /// A frame: x-webkit-deflate-frame.
    Frame,
}

/// What a reader expects of the headers it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The role of the reader.
    pub role: Role,
    /// What may be compressed, if that was agreed on.
    pub compression: Option<Unit>,
}

impl Header {
    /// A header of a whole, unmasked, plain frame.
    pub fn whole(opcode: Opcode, len: usize) -> Self {
        Self { fin: true, compressed: false, opcode, mask: None, len: len as u64 }
    }

    /// Reads a header from the front of `bytes`, and says how long it was. `None` asks for more bytes.
    pub fn parse(expect: Expect, bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (fin, compressed, opcode) = first_octet(expect, first)?;
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let short = second_octet(expect.role, opcode, second)?;
        let Some((len, after)) = length(short, &bytes[2..])? else { return Ok(None) };
        let at = bytes.len() - after.len();
        let (mask, end) = match expect.role {
            Role::Client => (None, at),
            Role::Server => match after.first_chunk::<4>() {
                Some(key) => (Some(*key), at + 4),
                None => return Ok(None),
            },
        };
        Ok(Some((Self { fin, compressed, opcode, mask, len }, end)))
    }

    /// The header as it goes on the wire, its length in the shortest form.
    pub fn encode(&self) -> HeaderBytes {
        let mut header = HeaderBytes { bytes: [0; HEADER_BYTES_MAX], len: 0 };
        header.push(&[u8::from(self.fin) << 7 | u8::from(self.compressed) << 6 | self.opcode.bits()]);
        let masked = u8::from(self.mask.is_some()) << 7;
        match self.len {
            0..=125 => header.push(&[masked | self.len as u8]),
            126..=0xFFFF => {
                header.push(&[masked | 126]);
                header.push(&(self.len as u16).to_be_bytes());
            }
            _ => {
                header.push(&[masked | 127]);
                header.push(&self.len.to_be_bytes());
            }
        }
        if let Some(key) = self.mask {
            header.push(&key);
        }
        header
    }

    /// The whole frame: this header and `payload`, masked if the header has a key.
    ///
    /// The header's length is set to that of `payload`.
    pub fn with(mut self, payload: &[u8]) -> Bytes {
        self.len = payload.len() as u64;
        let header = self.encode();
        let mut frame = BytesMut::with_capacity(header.len() + payload.len());
        frame.put_slice(&header);
        frame.put_slice(payload);
        if let Some(key) = self.mask {
            mask(&mut frame[header.len()..], key, 0);
        }
        frame.freeze()
    }
}

/// A header on its way out, without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderBytes {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

impl HeaderBytes {
    fn push(&mut self, more: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + more.len()].copy_from_slice(more);
        self.len += more.len() as u8;
    }
}

impl Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A whole unmasked frame, as a server sends it: the same octets for every receiver.
///
/// ```
/// use tandem_protocols::websocket::frame::{Opcode, unmasked};
///
/// assert_eq!(unmasked(Opcode::Text, b"Hello"), &b"\x81\x05Hello"[..]);
/// ```
pub fn unmasked(opcode: Opcode, payload: &[u8]) -> Bytes {
    Header::whole(opcode, payload.len()).with(payload)
}

/// A whole masked frame, as a client sends it. The key must be fresh and unpredictable (section 10.3).
pub fn masked(opcode: Opcode, payload: &[u8], key: [u8; 4]) -> Bytes {
    Header { mask: Some(key), ..Header::whole(opcode, payload.len()) }.with(payload)
}

/// A whole unmasked data frame whose payload [`super::deflate::compress`] made.
pub fn unmasked_compressed(opcode: Opcode, compressed: &[u8]) -> Bytes {
    Header { compressed: true, ..Header::whole(opcode, compressed.len()) }.with(compressed)
}

/// The payload of a close frame. The reason is cut, between characters, to what a control frame takes.
pub fn close_payload(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    let mut payload = BytesMut::with_capacity(2 + reason.len());
    payload.put_u16(code);
    payload.put_slice(reason.as_bytes());
    payload.freeze()
}

/// Whether a close frame may carry this code (section 7.4, and the IANA registry).
pub fn close_code_may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Cuts a message into frames of at most `size` octets, so that control frames can pass between them.
///
/// `first` says what the message is; every item is a header to write and the part of the payload behind it.
/// A masking writer sets a fresh key on each header.
pub fn fragments(first: Header, size: usize) -> impl Iterator<Item = (Header, Range<usize>)> {
    let (len, size) = (first.len as usize, size.max(1));
    let count = len.div_ceil(size).max(1);
    (0..count).map(move |index| {
        let range = index * size..len.min((index + 1) * size);
        let opcode = if index == 0 { first.opcode } else { Opcode::Continuation };
        let fin = index + 1 == count;
        let compressed = first.compressed && index == 0;
        (Header { fin, compressed, opcode, len: range.len() as u64, ..first }, range)
    })
}

/// Masks or unmasks `data` in place. `offset` is where in the frame's payload `data` begins.
pub fn mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let octets: &mut [u8; 8] = chunk.try_into().expect("chunks of eight have eight octets");
        *octets = (u64::from_ne_bytes(*octets) ^ wide).to_ne_bytes();
    }
    for (octet, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *octet ^= key;
    }
}

fn first_octet(expect: Expect, octet: u8) -> Result<(bool, bool, Opcode), Violation> {
    let (fin, compressed) = (octet & 0x80 != 0, octet & 0x40 != 0);
    if octet & 0x30 != 0 {
        return Err(Violation::protocol("reserved bits are set"));
    }
    let opcode = Opcode::from_bits(octet & 0x0F).ok_or(Violation::protocol("reserved opcode"))?;
    match (expect.compression, opcode) {
        _ if !compressed => {}
        (None, _) => return Err(Violation::protocol("compressed, but no compression was agreed")),
        (Some(_), Opcode::Text | Opcode::Binary) | (Some(Unit::Frame), Opcode::Continuation) => {}
        (Some(Unit::Message), Opcode::Continuation) => {
            return Err(Violation::protocol("only the first frame of a message may be marked as compressed"));
        }
        (Some(_), Opcode::Close | Opcode::Ping | Opcode::Pong) => {
            return Err(Violation::protocol("a control frame must not be marked as compressed"));
        }
    }
    if opcode.is_control() && !fin {
        return Err(Violation::protocol("fragmented control frame"));
    }
    Ok((fin, compressed, opcode))
}

/// Judges the mask bit, and gives the short length.
fn second_octet(role: Role, opcode: Opcode, octet: u8) -> Result<u8, Violation> {
    let (masked, short) = (octet & 0x80 != 0, octet & 0x7F);
    match role {
        Role::Server if !masked => return Err(Violation::protocol("a client's frame must be masked")),
        Role::Client if masked => return Err(Violation::protocol("a server's frame must not be masked")),
        Role::Server | Role::Client => {}
    }
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::protocol("control frame of more than 125 octets"));
    }
    Ok(short)
}

/// Gives the length and what follows it; `None` asks for more.
fn length(short: u8, bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    const LONG: Violation = Violation::protocol("length is not in its shortest form");
    match short {
        126 => match bytes.split_first_chunk::<2>() {
            None => Ok(None),
            Some((len, rest)) => match u64::from(u16::from_be_bytes(*len)) {
                0..126 => Err(LONG),
                len => Ok(Some((len, rest))),
            },
        },
        127 => match bytes.split_first_chunk::<8>() {
            None => Ok(None),
            Some((len, rest)) => match u64::from_be_bytes(*len) {
                0..0x1_0000 => Err(LONG),
                len if len >> 63 != 0 => Err(Violation::protocol("length of more than 63 bits")),
                len => Ok(Some((len, rest))),
            },
        },
        short => Ok(Some((u64::from(short), bytes))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVER: Expect = Expect { role: Role::Server, compression: None };
    const CLIENT: Expect = Expect { role: Role::Client, compression: None };

    #[test]
    fn the_examples_of_section_5_7_are_read_and_written() {
        let table: &[(Expect, &[u8], Header)] = &[
            (CLIENT, b"\x81\x05Hello", Header::whole(Opcode::Text, 5)),
            (
                SERVER,
                b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
                Header { mask: Some([0x37, 0xfa, 0x21, 0x3d]), ..Header::whole(Opcode::Text, 5) },
            ),
            (CLIENT, b"\x01\x03Hel", Header { fin: false, ..Header::whole(Opcode::Text, 3) }),
            (CLIENT, b"\x80\x02lo", Header::whole(Opcode::Continuation, 2)),
            (CLIENT, b"\x89\x05Hello", Header::whole(Opcode::Ping, 5)),
            (CLIENT, b"\x82\x7E\x01\x00", Header::whole(Opcode::Binary, 256)),
            (CLIENT, b"\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00", Header::whole(Opcode::Binary, 65536)),
        ];
        for (expect, bytes, header) in table {
            let (read, at) = Header::parse(*expect, bytes).unwrap().unwrap();
            assert_eq!(read, *header);
            assert_eq!(&*header.encode(), &bytes[..at]);
            for cut in 0..at {
                assert_eq!(Header::parse(*expect, &bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
        assert_eq!(unmasked(Opcode::Text, b"Hello"), table[0].1);
        assert_eq!(masked(Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d]), table[1].1);
    }

    #[test]
    fn every_first_octet_is_judged_at_once() {
        for octet in 0..=u8::MAX {
            for compression in [None, Some(Unit::Message), Some(Unit::Frame)] {
                let expect = Expect { role: Role::Server, compression };
                let opcode = octet & 0x0F;
                let known = matches!(opcode, 0..=2 | 8..=10);
                let fin = octet & 0x80 != 0;
                let rsv1 = octet & 0x40 == 0
                    || compression.is_some() && matches!(opcode, 1 | 2)
                    || compression == Some(Unit::Frame) && opcode == 0;
                let legal = known && octet & 0x30 == 0 && rsv1 && (fin || opcode < 8);
                match Header::parse(expect, &[octet]) {
                    Ok(None) => assert!(legal, "{octet:#x}"),
                    Ok(Some(_)) => panic!("a header of one octet"),
                    Err(violation) => {
                        assert!(!legal, "{octet:#x}");
                        assert_eq!(violation.code, close::PROTOCOL);
                    }
                }
            }
        }
    }

    #[test]
    fn every_second_octet_is_judged_at_once() {
        for opcode in [1, 2, 8, 9, 10] {
            for second in 0..=u8::MAX {
                for (expect, wants_mask) in [(SERVER, true), (CLIENT, false)] {
                    let legal = (second & 0x80 != 0) == wants_mask && (opcode < 8 || second & 0x7F <= 125);
                    let read = Header::parse(expect, &[0x80 | opcode, second]);
                    assert_eq!(read.is_ok(), legal, "{opcode} {second:#x}");
                }
            }
        }
    }

    #[test]
    fn lengths_are_in_their_shortest_form_and_below_2_to_the_63() {
        type Case = (u8, &'static [u8], Result<Option<u64>, ()>);
        let cases: &[Case] = &[
            (126, &[0, 125], Err(())),
            (126, &[0, 126], Ok(Some(126))),
            (126, &[0xFF, 0xFF], Ok(Some(0xFFFF))),
            (126, &[0xFF], Ok(None)),
            (127, &[0, 0, 0, 0, 0, 0, 0, 5], Err(())),
            (127, &[0, 0, 0, 0, 0, 0, 0xFF, 0xFF], Err(())),
            (127, &[0, 0, 0, 0, 0, 1, 0, 0], Ok(Some(0x1_0000))),
            (127, &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], Ok(Some(u64::MAX >> 1))),
            (127, &[0x80, 0, 0, 0, 0, 0, 0, 0], Err(())),
            (127, &[0xFF; 8], Err(())),
            (127, &[0; 7], Ok(None)),
        ];
        for (short, bytes, expected) in cases {
            let mut frame = vec![0x82, *short];
            frame.extend_from_slice(bytes);
            let read = Header::parse(CLIENT, &frame);
            assert_eq!(read.map(|some| some.map(|(header, _)| header.len)).map_err(drop), *expected);
        }
    }

    #[test]
    fn close_codes_are_those_of_the_registry() {
        let legal: Vec<u16> = (0..=u16::MAX).filter(|code| close_code_may_be_sent(*code)).collect();
        assert_eq!(legal.len(), 4 + 8 + 2000);
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535] {
            assert!(!close_code_may_be_sent(code), "{code}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let payload = close_payload(1008, &"€".repeat(60));
        assert_eq!(payload.len(), 2 + 123);
        assert!(std::str::from_utf8(&payload[2..]).is_ok());
        assert_eq!(close_payload(1000, ""), &[0x03, 0xE8][..]);
        assert_eq!(close_payload(1000, &"é".repeat(62)).len(), 2 + 122);
    }

    #[test]
    fn fragments_cover_a_message_and_only_the_first_is_marked() {
        let first = Header { compressed: true, ..Header::whole(Opcode::Text, 10) };
        let cut: Vec<_> = fragments(first, 4).collect();
        assert_eq!(cut.iter().map(|(_, range)| range.clone()).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        let marks: Vec<_> = cut.iter().map(|(h, _)| (h.fin, h.compressed, h.opcode, h.len)).collect();
        assert_eq!(
            marks,
            [
                (false, true, Opcode::Text, 4),
                (false, false, Opcode::Continuation, 4),
                (true, false, Opcode::Continuation, 2)
            ]
        );
        assert_eq!(fragments(Header::whole(Opcode::Binary, 0), 4).count(), 1);
        assert_eq!(fragments(Header::whole(Opcode::Binary, 4), 4).count(), 1);
    }

    proptest! {
        #[test]
        fn masking_wide_equals_masking_octet_by_octet(
            data in proptest::collection::vec(any::<u8>(), 0..70), key: [u8; 4], offset in 0usize..9,
        ) {
            let slow: Vec<u8> = data.iter().enumerate().map(|(i, b)| b ^ key[(i + offset) % 4]).collect();
            let mut fast = data;
            mask(&mut fast, key, offset);
            prop_assert_eq!(fast, slow);
        }

        #[test]
        fn a_header_reads_as_it_was_written(
            fin: bool, compressed: bool, bits in 0u8..3, key: Option<[u8; 4]>, len in 0..u64::MAX >> 1, shift in 0u32..63,
        ) {
            let opcode = Opcode::from_bits(bits).unwrap();
            let compressed = compressed && bits != 0;
            let header = Header { fin, compressed, opcode, mask: key, len: len >> shift };
            let role = if key.is_some() { Role::Server } else { Role::Client };
            let bytes = header.encode();
            let read = Header::parse(Expect { role, compression: Some(Unit::Message) }, &bytes);
            prop_assert_eq!(read, Ok(Some((header, bytes.len()))));
        }
    }
}

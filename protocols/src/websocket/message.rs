//! Frames become messages (RFC 6455 sections 5.4 to 5.6, 7.1, 8.1).
//!
//! The caller reads into a scratch buffer of its own and hands the slice in; what is complete in it is
//! unmasked in place and copied once, into exactly its size. Only what is incomplete is kept, in one box
//! that grows with what has arrived, never with what was announced, and that is dropped with the message.
//! So an idle connection owns nothing here, unless its peer agreed to keep a compression context.
//!
//! Text is judged as it arrives, also within one frame. A compressed message is kept compressed until its
//! last octet is there, then inflated within its limits: what waits is never larger than what was sent. Where
//! frames are compressed by themselves, that holds for each frame.

use std::sync::Arc;

use bytes::Bytes;

use crate::websocket::deflate::{self, InflateLimits, Inflater};
use crate::websocket::extensions::{Agreement, Direction};
use crate::websocket::frame::{
    CONTROL_BYTES_MAX, Expect, HEADER_BYTES_MAX, Header, Opcode, Role, Unit, Violation,
    close_code_may_be_sent, mask,
};
use crate::websocket::utf8::{NotUtf8, Validator, is_utf8};

/// What a peer may send. It may be changed in mid-connection, say after authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size of a message, inflated.
    pub message_bytes_max: usize,
    /// The number of frames of a message. Autobahn's section 9 needs 65,537.
    pub fragments_max: u32,
    /// The size of a message over the size of its compressed form; looked at above 64 KiB.
    pub inflate_ratio_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message_bytes_max: 1 << 20, fragments_max: 1024, inflate_ratio_max: 256 }
    }
}

impl Limits {
    /// What a compressed message may measure: incompressible content grows a little.
    fn compressed_bytes_max(&self) -> usize {
        self.message_bytes_max.saturating_add(self.message_bytes_max / 16).saturating_add(64)
    }

    /// What is left for the rest of a message of which so much is there.
    fn inflating(&self, present: usize) -> InflateLimits {
        InflateLimits {
            bytes_max: self.message_bytes_max.saturating_sub(present),
            ratio_max: self.inflate_ratio_max,
        }
    }
}

/// The kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The payload is UTF-8, verified.
    Text,
    /// The payload is any octets.
    Binary,
}

/// What a peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Message {
        /// Text or binary.
        kind: Kind,
        /// All of its fragments, inflated.
        payload: Bytes,
    },
    /// To be answered by a pong with the same payload.
    Ping(Bytes),
    /// The answer to a ping, or unsolicited.
    Pong(Bytes),
    /// The peer sends nothing more; to be answered by a close frame, unless this end sent its own.
    Close {
        /// The status code, if there was one.
        code: Option<u16>,
        /// The reason; often empty.
        reason: String,
    },
}

/// Reads one direction of one connection.
///
/// ```
/// use tandem_protocols::websocket::frame::{Opcode, Role, masked};
/// use tandem_protocols::websocket::message::{Decoder, Event, Kind, Limits};
///
/// let mut decoder = Decoder::new(Role::Server, Limits::default(), None);
/// let mut scratch = masked(Opcode::Text, b"Hello", [1, 2, 3, 4]).to_vec();
/// let mut data = &mut scratch[..];
/// let event = decoder.next(&mut data).unwrap();
/// assert_eq!(event, Some(Event::Message { kind: Kind::Text, payload: "Hello".into() }));
/// assert_eq!(decoder.next(&mut data).unwrap(), None);
/// assert!(!decoder.incomplete());
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Arc<Limits>,
    partial: Option<Box<Partial>>,
    /// Only with context takeover, and only from the first compressed message on.
    inflater: Option<Box<Inflater>>,
    incoming: Option<Direction>,
    unit: Unit,
    role: Role,
    /// After a close frame or a violation: whatever follows is ignored.
    closed: bool,
}

/// What is there of a frame and of a message.
#[derive(Debug, Default)]
struct Partial {
    frame: Frame,
    control: Control,
    message: Option<Message>,
}

#[derive(Debug, Default)]
enum Frame {
    #[default]
    None,
    Head {
        bytes: [u8; HEADER_BYTES_MAX],
        len: u8,
    },
    Body {
        header: Header,
        received: usize,
    },
}

/// The payload of a control frame that arrives in pieces.
#[derive(Debug)]
struct Control {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

impl Default for Control {
    fn default() -> Self {
        Self { bytes: [0; CONTROL_BYTES_MAX], len: 0 }
    }
}

/// A message whose end has not arrived.
#[derive(Debug)]
struct Message {
    kind: Kind,
    /// The whole of it or, where frames are compressed by themselves, the frame that is arriving.
    compressed: bool,
    fragments: u32,
    text: Validator,
    payload: Vec<u8>,
    /// Where in the payload that frame begins.
    frame_at: usize,
}

impl Decoder {
    /// A decoder for the end with this role. `agreement` is what the handshake came to. Many may share their limits.
    pub fn new(role: Role, limits: impl Into<Arc<Limits>>, agreement: Option<&Agreement>) -> Self {
        let incoming = agreement.map(|agreement| agreement.incoming(role));
        let unit = agreement.map_or(Unit::Message, |agreement| agreement.unit);
        let limits = limits.into();
        Self { limits, partial: None, inflater: None, incoming, unit, role, closed: false }
    }

    /// Whether a frame or message has begun and not ended: then a deadline should run.
    pub fn incomplete(&self) -> bool {
        self.partial.is_some()
    }

    /// Whether the peer closed or broke the protocol: nothing more will come.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Changes what the peer may send from the next frame on.
    pub fn set_limits(&mut self, limits: impl Into<Arc<Limits>>) {
        self.limits = limits.into();
    }

    /// Takes octets from the front of `data` up to the end of an event, unmasking them in place.
    ///
    /// `None` means that all of `data` was taken. After a violation or a close frame the rest is ignored.
    pub fn next(&mut self, data: &mut &mut [u8]) -> Result<Option<Event>, Violation> {
        let outcome = if self.closed { Ok(None) } else { self.advance(data) };
        if matches!(outcome, Err(_) | Ok(Some(Event::Close { .. }))) {
            self.closed = true;
            self.partial = None;
            self.inflater = None;
        }
        if self.closed {
            *data = &mut [];
        }
        outcome
    }

    /// Takes a message that lies in front, whole and in one frame, masked and not compressed, as most do, and gives it where
    /// it lies; `None` where it is anything else, or too long, and nothing was taken: that is for [`next`](Decoder::next).
    ///
    /// ```
    /// use tandem_protocols::websocket::frame::{Opcode, Role, masked};
    /// use tandem_protocols::websocket::message::{Decoder, Kind, Limits};
    ///
    /// let mut decoder = Decoder::new(Role::Server, Limits::default(), None);
    /// let mut scratch = masked(Opcode::Text, b"Hello", [1, 2, 3, 4]).to_vec();
    /// let mut data = &mut scratch[..];
    /// assert_eq!(decoder.next_in_place(&mut data), Some(Ok((Kind::Text, &b"Hello"[..]))));
    /// assert_eq!(decoder.next_in_place(&mut data), None);
    /// ```
    pub fn next_in_place<'a>(
        &mut self,
        data: &mut &'a mut [u8],
    ) -> Option<Result<(Kind, &'a [u8]), Violation>> {
        if self.partial.is_some() || self.role != Role::Server || self.closed {
            return None;
        }
        let (kind, head, len) = match **data {
            [first @ (0x81 | 0x82), second @ 0x80..=0xfd, ..] => (first, 2, usize::from(second & 0x7f)),
            // A length in the longer form than it needs is for the others to refuse.
            [first @ (0x81 | 0x82), 0xfe, high, low, ..] if (high, low) >= (0, 126) => {
                (first, 4, usize::from(u16::from_be_bytes([high, low])))
            }
            _ => return None,
        };
        let end = head + 4 + len;
        if end > data.len() || len > self.limits.message_bytes_max {
            return None;
        }
        let (frame, after) = std::mem::take(data).split_at_mut(end);
        *data = after;
        let (key, octets) = frame[head..].split_first_chunk_mut::<4>()?;
        mask(octets, *key, 0);
        let kind = if kind == 0x81 { Kind::Text } else { Kind::Binary };
        if kind == Kind::Text && !is_utf8(octets) {
            self.closed = true;
            self.inflater = None;
            *data = &mut [];
            return Some(Err(NotUtf8.into()));
        }
        Some(Ok((kind, octets)))
    }

    fn advance(&mut self, data: &mut &mut [u8]) -> Result<Option<Event>, Violation> {
        if let Some(whole) = self.next_in_place(data) {
            let (kind, octets) = whole?;
            return Ok(Some(Event::Message { kind, payload: Bytes::copy_from_slice(octets) }));
        }
        loop {
            let (header, received) = match self.take_body() {
                Some(body) => body,
                None => match self.header(data)? {
                    Some(header) => (header, 0),
                    None => return Ok(None),
                },
            };
            // Admitted data is within the limit of a message, and control within 125: both are usizes.
            let rest = header.len as usize - received;
            let taken = rest.min(data.len());
            let (piece, after) = std::mem::take(data).split_at_mut(taken);
            *data = after;
            if let Some(key) = header.mask {
                mask(piece, key, received);
            }
            let piece = Piece { header, received, whole: taken == rest, octets: piece };
            let event = if header.opcode.is_control() { self.control(&piece)? } else { self.data(&piece)? };
            if !piece.whole {
                self.partial().frame = Frame::Body { header, received: received + taken };
                return Ok(None);
            }
            self.tidy();
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn partial(&mut self) -> &mut Partial {
        self.partial.get_or_insert_default()
    }

    /// Drops the box once nothing is incomplete.
    fn tidy(&mut self) {
        self.partial.take_if(|partial| partial.message.is_none() && matches!(partial.frame, Frame::None));
    }

    fn take_body(&mut self) -> Option<(Header, usize)> {
        let partial = self.partial.as_mut()?;
        match partial.frame {
            Frame::Body { header, received } => {
                partial.frame = Frame::None;
                Some((header, received))
            }
            Frame::None | Frame::Head { .. } => None,
        }
    }

    /// Reads the next header, perhaps from two reads; `None` once `data` is used up.
    fn header(&mut self, data: &mut &mut [u8]) -> Result<Option<Header>, Violation> {
        let expect = Expect { role: self.role, compression: self.incoming.map(|_| self.unit) };
        let (mut bytes, mut len) = match self.partial.as_ref().map(|partial| &partial.frame) {
            Some(Frame::Head { bytes, len }) => (*bytes, usize::from(*len)),
            _ => ([0; HEADER_BYTES_MAX], 0),
        };
        let taken = data.len().min(HEADER_BYTES_MAX - len);
        if taken == 0 {
            return Ok(None);
        }
        bytes[len..len + taken].copy_from_slice(&data[..taken]);
        let before = len;
        len += taken;
        let Some((header, end)) = Header::parse(expect, &bytes[..len])? else {
            self.partial().frame = Frame::Head { bytes, len: len as u8 };
            skip(data, taken);
            return Ok(None);
        };
        skip(data, end - before);
        if let Some(partial) = &mut self.partial {
            partial.frame = Frame::None;
        }
        self.admit(&header)?;
        Ok(Some(header))
    }

    /// Refuses a data frame that is out of order or too big, before any of its payload is taken.
    fn admit(&mut self, header: &Header) -> Result<(), Violation> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let (limits, unit) = (*self.limits, self.unit);
        let begun = self.partial.as_mut().and_then(|partial| partial.message.as_mut());
        let (compressed, received) = match (header.opcode, begun) {
            (Opcode::Continuation, None) => return Err(Violation::protocol("continuation of nothing")),
            (Opcode::Continuation, Some(message)) => {
                message.fragments += 1;
                if message.fragments > limits.fragments_max {
                    return Err(Violation::too_big("message of too many fragments"));
                }
                if unit == Unit::Frame {
                    message.compressed = header.compressed;
                    message.frame_at = message.payload.len();
                }
                (message.compressed, message.payload.len())
            }
            (_, Some(_)) => return Err(Violation::protocol("new message before the end of another")),
            (_, None) => (header.compressed, 0),
        };
        let bytes_max = if compressed { limits.compressed_bytes_max() } else { limits.message_bytes_max };
        if header.len.saturating_add(received as u64) > bytes_max as u64 {
            return Err(Violation::too_big("message is too big"));
        }
        Ok(())
    }

    fn control(&mut self, piece: &Piece<'_>) -> Result<Option<Event>, Violation> {
        let opcode = piece.header.opcode;
        if piece.received == 0 && piece.whole {
            return control_event(opcode, piece.octets).map(Some);
        }
        let control = &mut self.partial().control;
        let at = if piece.received == 0 { 0 } else { usize::from(control.len) };
        let end = at + piece.octets.len();
        control.bytes[at..end].copy_from_slice(piece.octets);
        control.len = end as u8;
        if !piece.whole {
            return Ok(None);
        }
        control_event(opcode, &control.bytes[..end]).map(Some)
    }

    fn data(&mut self, piece: &Piece<'_>) -> Result<Option<Event>, Violation> {
        let header = &piece.header;
        if let Some(kind) = kind(header.opcode).filter(|_| piece.received == 0 && piece.whole && header.fin) {
            return self.whole(kind, header.compressed, piece.octets).map(Some);
        }
        if piece.octets.is_empty() && !piece.whole {
            return Ok(None);
        }
        let (limits, unit) = (*self.limits, self.unit);
        let begin = || Message::new(kind(header.opcode).unwrap_or(Kind::Binary), header.compressed);
        let message = self.partial().message.get_or_insert_with(begin);
        message.append(piece, limits)?;
        if unit == Unit::Frame && piece.whole {
            message.inflate_frame(limits)?;
        }
        if !piece.whole || !header.fin {
            return Ok(None);
        }
        let Some(message) = self.partial().message.take() else { return Ok(None) };
        self.finish(message).map(Some)
    }

    /// A message that lies in one piece in the caller's scratch: one allocation, of its exact size.
    fn whole(&mut self, kind: Kind, compressed: bool, octets: &[u8]) -> Result<Event, Violation> {
        if compressed {
            return self.inflate(kind, octets);
        }
        if kind == Kind::Text && !is_utf8(octets) {
            return Err(NotUtf8.into());
        }
        Ok(Event::Message { kind, payload: Bytes::copy_from_slice(octets) })
    }

    fn finish(&mut self, message: Message) -> Result<Event, Violation> {
        if message.compressed {
            return self.inflate(message.kind, &message.payload);
        }
        message.text.finish()?;
        Ok(Event::Message { kind: message.kind, payload: Bytes::from(message.payload) })
    }

    fn inflate(&mut self, kind: Kind, octets: &[u8]) -> Result<Event, Violation> {
        let limits = self.limits.inflating(0);
        let payload = match self.incoming {
            Some(Direction { takeover: true, bits }) => {
                self.inflater.get_or_insert_with(|| Box::new(Inflater::new(bits))).inflate(octets, limits)?
            }
            Some(Direction { takeover: false, .. }) | None => deflate::inflate(octets, limits)?,
        };
        if kind == Kind::Text && !is_utf8(&payload) {
            return Err(NotUtf8.into());
        }
        Ok(Event::Message { kind, payload })
    }
}

/// What one read holds of one frame's payload, unmasked.
struct Piece<'a> {
    header: Header,
    /// How much of the payload came before.
    received: usize,
    /// Whether the frame ends here.
    whole: bool,
    octets: &'a [u8],
}

impl Message {
    fn new(kind: Kind, compressed: bool) -> Self {
        Self { kind, compressed, fragments: 1, text: Validator::default(), payload: Vec::new(), frame_at: 0 }
    }

    /// Puts what the last frame holds in its place, if it was compressed by itself.
    fn inflate_frame(&mut self, limits: Limits) -> Result<(), Violation> {
        if !std::mem::take(&mut self.compressed) {
            return Ok(());
        }
        let inflated = deflate::inflate(&self.payload[self.frame_at..], limits.inflating(self.frame_at))?;
        self.payload.truncate(self.frame_at);
        self.payload.extend_from_slice(&inflated);
        if self.kind == Kind::Text {
            self.text.feed(&inflated)?;
        }
        Ok(())
    }

    fn append(&mut self, piece: &Piece<'_>, limits: Limits) -> Result<(), Violation> {
        if self.kind == Kind::Text && !self.compressed {
            self.text.feed(piece.octets)?;
        }
        let needed = self.payload.len() + piece.octets.len();
        if needed > self.payload.capacity() {
            // Twice what has arrived, but not more than can still come.
            let missing = piece.header.len as usize - piece.received - piece.octets.len();
            let most = if piece.header.fin { needed + missing } else { limits.compressed_bytes_max() };
            let capacity = (needed * 2).min(most).max(needed);
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        self.payload.extend_from_slice(piece.octets);
        Ok(())
    }
}

impl From<NotUtf8> for Violation {
    fn from(_: NotUtf8) -> Self {
        Self::payload("text is not UTF-8")
    }
}

fn skip(data: &mut &mut [u8], count: usize) {
    let (_, rest) = std::mem::take(data).split_at_mut(count);
    *data = rest;
}

fn kind(opcode: Opcode) -> Option<Kind> {
    match opcode {
        Opcode::Text => Some(Kind::Text),
        Opcode::Binary => Some(Kind::Binary),
        Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
    }
}

fn control_event(opcode: Opcode, payload: &[u8]) -> Result<Event, Violation> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(Bytes::copy_from_slice(payload))),
        Opcode::Close => close_event(payload),
        Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => {
            Ok(Event::Pong(Bytes::copy_from_slice(payload)))
        }
    }
}

fn close_event(payload: &[u8]) -> Result<Event, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        if payload.is_empty() {
            return Ok(Event::Close { code: None, reason: String::new() });
        }
        return Err(Violation::protocol("close frame with half a code"));
    };
    let code = u16::from_be_bytes(*code);
    if !close_code_may_be_sent(code) {
        return Err(Violation::protocol("close code that may not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::payload("close reason is not UTF-8"))?;
    Ok(Event::Close { code: Some(code), reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::deflate::{Deflater, WindowBits, compress};
    use crate::websocket::frame::{close, close_payload, fragments, masked, unmasked};

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    const POOLED: Direction = Direction { takeover: false, bits: WindowBits::MAX };
    const KEPT: Direction = Direction { takeover: true, bits: WindowBits::MAX };

    fn server() -> Decoder {
        Decoder::new(Role::Server, Limits::default(), None)
    }

    #[test]
    fn what_lies_whole_is_given_in_place_and_all_else_is_left() {
        let mut both = [&masked(Opcode::Binary, b"\xff", KEY)[..], &masked(Opcode::Ping, b"", KEY)].concat();
        let (mut decoder, mut data) = (server(), &mut both[..]);
        assert_eq!(decoder.next_in_place(&mut data), Some(Ok((Kind::Binary, &b"\xff"[..]))));
        assert_eq!((decoder.next_in_place(&mut data), data.len()), (None, 6));
        assert_eq!(decoder.next(&mut data), Ok(Some(Event::Ping(Bytes::new()))));

        let mut begun = masked(Opcode::Text, b"Hello", KEY).to_vec();
        let (mut first, mut rest) = begun.split_at_mut(8);
        assert_eq!((decoder.next_in_place(&mut first), first.len()), (None, 8));
        assert_eq!(decoder.next(&mut first), Ok(None));
        assert_eq!((decoder.next_in_place(&mut rest), rest.len()), (None, 3), "it is the end of another");
        let hello = Event::Message { kind: Kind::Text, payload: "Hello".into() };
        assert_eq!(decoder.next(&mut rest), Ok(Some(hello)));

        let limits = Limits { message_bytes_max: 4, ..Limits::default() };
        let mut long = masked(Opcode::Text, b"Hello", KEY).to_vec();
        let mut data = &mut long[..];
        assert_eq!(Decoder::new(Role::Server, limits, None).next_in_place(&mut data), None);
        assert_eq!(data.len(), 11);

        let mut wrong = [masked(Opcode::Text, b"\xff", KEY), masked(Opcode::Text, b"a", KEY)].concat();
        let mut data = &mut wrong[..];
        assert_eq!(decoder.next_in_place(&mut data), Some(Err(NotUtf8.into())));
        assert!(decoder.is_closed() && data.is_empty());
        let mut more = masked(Opcode::Text, b"a", KEY).to_vec();
        assert_eq!(decoder.next_in_place(&mut &mut more[..]), None, "nothing is read after that");
    }

    fn compressing(direction: Direction) -> Decoder {
        let agreement = Agreement { server: direction, client: direction, unit: Unit::Message };
        Decoder::new(Role::Server, Limits::default(), Some(&agreement))
    }

    /// For a peer that compresses each frame by itself.
    fn per_frame(message_bytes_max: usize) -> Decoder {
        let agreement = Agreement { server: POOLED, client: POOLED, unit: Unit::Frame };
        let limits = Limits { message_bytes_max, ..Limits::default() };
        Decoder::new(Role::Server, limits, Some(&agreement))
    }

    fn text(payload: &str) -> Event {
        Event::Message { kind: Kind::Text, payload: Bytes::copy_from_slice(payload.as_bytes()) }
    }

    /// A client's frame: FIN and RSV1 are the upper bits of `first`, as on the wire.
    fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = masked(Opcode::Binary, payload, KEY).to_vec();
        frame[0] = first;
        frame
    }

    /// All that comes out when `bytes` are read in pieces of `size`, and how it ends.
    fn read(mut decoder: Decoder, bytes: &[u8], size: usize) -> (Vec<Event>, Option<Violation>, bool) {
        let mut events = Vec::new();
        for piece in bytes.to_vec().chunks_mut(size) {
            let mut data = piece;
            loop {
                match decoder.next(&mut data) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(violation) => {
                        assert!(decoder.is_closed() && !decoder.incomplete() && data.is_empty());
                        return (events, Some(violation), false);
                    }
                }
            }
            assert!(data.is_empty(), "none means that all was taken");
        }
        (events, None, decoder.incomplete())
    }

    /// Reads whole, octet by octet, and in threes; all must agree. Gives the events and the close code.
    fn judge(decoder: impl Fn() -> Decoder, bytes: &[u8]) -> (Vec<Event>, Option<u16>) {
        let (events, violation, incomplete) = read(decoder(), bytes, bytes.len().max(1));
        for size in [1, 3] {
            assert_eq!(read(decoder(), bytes, size), (events.clone(), violation, incomplete));
        }
        (events, violation.map(|violation| violation.code))
    }

    #[test]
    fn an_idle_decoder_is_small_and_owns_nothing() {
        assert!(size_of::<Decoder>() <= 64, "{}", size_of::<Decoder>());
        let mut decoder = compressing(POOLED);
        let payload = compress(b"Hello", WindowBits::MAX);
        for mut octet in [raw(0x01, b"Hel"), raw(0x80, b"lo"), raw(0x89, b"!"), raw(0xC2, &payload)].concat()
        {
            let mut data = std::slice::from_mut(&mut octet);
            let _ = decoder.next(&mut data).unwrap();
        }
        assert!(!decoder.incomplete());
        assert!(decoder.partial.is_none() && decoder.inflater.is_none());
    }

    #[test]
    fn the_examples_of_section_5_7_are_understood() {
        let client = || Decoder::new(Role::Client, Limits::default(), None);
        assert_eq!(judge(client, b"\x81\x05Hello"), (vec![text("Hello")], None));
        assert_eq!(judge(client, b"\x01\x03Hel\x80\x02lo"), (vec![text("Hello")], None));
        assert_eq!(judge(client, b"\x89\x05Hello"), (vec![Event::Ping("Hello".into())], None));
        let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(judge(server, pong), (vec![Event::Pong("Hello".into())], None));
        for len in [256, 65536] {
            let frame = unmasked(Opcode::Binary, &vec![7; len]);
            let binary = Event::Message { kind: Kind::Binary, payload: vec![7; len].into() };
            assert_eq!(judge(client, &frame), (vec![binary], None));
        }
    }

    #[test]
    fn control_frames_pass_between_fragments() {
        let bytes = [
            raw(0x01, b"a"),
            raw(0x89, b"ping"),
            raw(0x00, b""),
            raw(0x8A, &[b'p'; 125]),
            raw(0x80, b"b"),
            raw(0x81, b""),
            raw(0x88, &close_payload(1000, "bye")),
            raw(0x81, b"too late"),
            vec![0xFF; 40],
        ]
        .concat();
        let close = Event::Close { code: Some(1000), reason: "bye".into() };
        let pong = Event::Pong(vec![b'p'; 125].into());
        let events = vec![Event::Ping("ping".into()), pong, text("ab"), text(""), close];
        assert_eq!(judge(server, &bytes), (events, None));
    }

    #[test]
    fn frames_out_of_order_are_1002() {
        let table = [
            raw(0x80, b"continuation of nothing"),
            raw(0x00, b""),
            [raw(0x81, b"whole"), raw(0x80, b"continuation")].concat(),
            [raw(0x01, b"begun"), raw(0x81, b"another")].concat(),
            [raw(0x02, b"begun"), raw(0x02, b"another")].concat(),
            [raw(0x01, b"begun"), raw(0xC0, b"")].concat(),
            raw(0xC1, b"not agreed"),
            raw(0x83, b""),
            raw(0x8B, b""),
            raw(0x09, b"fragmented ping"),
            raw(0x89, &[0; 126]),
            raw(0x88, b"x"),
            b"\x81\x05Hello".to_vec(),
        ];
        for bytes in table {
            assert_eq!(judge(server, &bytes).1, Some(close::PROTOCOL), "{bytes:x?}");
        }
    }

    #[test]
    fn a_close_frame_is_judged_by_code_and_reason() {
        type Judged = Result<(Option<u16>, &'static str), u16>;
        let table: &[(&[u8], Judged)] = &[
            (b"", Ok((None, ""))),
            (b"\x03\xE8", Ok((Some(1000), ""))),
            (b"\x0F\xA0\xE2\x82\xAC", Ok((Some(4000), "€"))),
            (b"\x03", Err(1002)),
            (b"\x03\xED", Err(1002)),
            (b"\x00\x00", Err(1002)),
            (b"\xFF\xFF", Err(1002)),
            (b"\x03\xE8\xE2\x82", Err(1007)),
        ];
        for (payload, expected) in table {
            let found = judge(server, &raw(0x88, payload));
            match expected {
                Err(code) => assert_eq!(found, (vec![], Some(*code))),
                Ok((code, reason)) => {
                    let close = Event::Close { code: *code, reason: (*reason).to_owned() };
                    assert_eq!(found, (vec![close], None));
                }
            }
        }
    }

    #[test]
    fn text_is_refused_as_soon_as_it_cannot_become_utf_8() {
        let text = b"\xCE\xBA\xE1\xBD\xB9\xF4\x90\x80\x80edited";
        let frame = raw(0x81, text);
        let mut decoder = server();
        for (at, octet) in frame.clone().iter_mut().enumerate() {
            let mut data = std::slice::from_mut(octet);
            let refused = decoder.next(&mut data).is_err();
            assert_eq!(refused, at == 6 + 6, "at octet {at}");
            if refused {
                break;
            }
        }
        assert_eq!(judge(server, &frame), (vec![], Some(close::INVALID_PAYLOAD)));
        // The announced rest need not come, nor the end of the message.
        assert_eq!(judge(server, &frame[..14]), (vec![], Some(close::INVALID_PAYLOAD)));
        assert_eq!(judge(server, &raw(0x01, text)), (vec![], Some(close::INVALID_PAYLOAD)));
        // A character may be cut by a fragment, but not by the end.
        let cut = |last: &[u8]| [raw(0x01, b"\xE2\x82"), raw(0x80, last)].concat();
        assert_eq!(judge(server, &cut(b"\xAC")), (vec![super::tests::text("€")], None));
        assert_eq!(judge(server, &cut(b"")).1, Some(close::INVALID_PAYLOAD));
        assert_eq!(judge(server, &raw(0x82, text)).1, None, "binary may be anything");
    }

    #[test]
    fn what_is_too_big_is_1009_before_it_is_read() {
        let limits = Limits { message_bytes_max: 200, fragments_max: 3, inflate_ratio_max: 256 };
        let small = || Decoder::new(Role::Server, limits, None);
        assert_eq!(judge(small, &raw(0x82, &[0; 200])).1, None);
        assert_eq!(judge(small, &raw(0x82, &[0; 201])[..8]).1, Some(close::TOO_BIG));
        for announced in [[0x00, 0, 0, 0, 0, 1, 0, 0], [0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]] {
            let header = [&[0x82, 0xFF][..], &announced, &KEY].concat();
            assert_eq!(judge(small, &header).1, Some(close::TOO_BIG));
        }
        let begun = raw(0x02, &[0; 150]);
        assert_eq!(judge(small, &[begun.clone(), raw(0x80, &[0; 50])].concat()).1, None);
        assert_eq!(
            judge(small, &[begun.clone(), raw(0x80, &[0; 51])[..6].to_vec()].concat()).1,
            Some(close::TOO_BIG)
        );
        let huge = [&[0x80, 0xFF][..], &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], &KEY].concat();
        assert_eq!(judge(small, &[begun, huge].concat()).1, Some(close::TOO_BIG));
        let fragments =
            |count: usize| [raw(0x02, b""), raw(0x00, b"").repeat(count - 2), raw(0x80, b"")].concat();
        assert_eq!(judge(small, &fragments(3)).1, None);
        assert_eq!(judge(small, &fragments(4)).1, Some(close::TOO_BIG));
    }

    #[test]
    fn memory_follows_what_arrives_and_not_what_is_announced() {
        let mut decoder = server();
        let mut frame = raw(0x82, &vec![1; 1 << 20]);
        let mut data = &mut frame[..1014];
        assert_eq!(decoder.next(&mut data), Ok(None));
        let held = |decoder: &Decoder| {
            decoder.partial.as_ref().and_then(|p| p.message.as_ref()).unwrap().payload.capacity()
        };
        assert!(held(&decoder) <= 2 * 1014);
        let mut data = &mut frame[1014..(1 << 20)];
        assert_eq!(decoder.next(&mut data), Ok(None));
        assert_eq!(held(&decoder), 1 << 20, "and it ends at the exact size");
    }

    #[test]
    fn limits_can_be_raised_in_mid_connection() {
        let mut decoder =
            Decoder::new(Role::Server, Limits { message_bytes_max: 4, ..Limits::default() }, None);
        let mut frame = raw(0x81, b"four");
        assert!(decoder.next(&mut &mut frame[..]).unwrap().is_some());
        decoder.set_limits(Limits::default());
        let mut frame = raw(0x81, b"more than four");
        assert!(decoder.next(&mut &mut frame[..]).unwrap().is_some());
    }

    #[test]
    fn compressed_messages_are_inflated_with_and_without_context() {
        let words = "Hello, hello, hello, and again hello".repeat(30);
        let mut kept = Deflater::new(WindowBits::MAX);
        for direction in [POOLED, KEPT] {
            let mut bytes = Vec::new();
            for _ in 0..3 {
                let payload = match direction.takeover {
                    true => kept.compress(words.as_bytes()),
                    false => compress(words.as_bytes(), WindowBits::MAX),
                };
                bytes.extend(raw(0xC1, &payload));
                let first = Header {
                    compressed: true,
                    mask: Some(KEY),
                    ..Header::whole(Opcode::Text, payload.len())
                };
                if !direction.takeover {
                    for (header, range) in fragments(first, 7) {
                        bytes.extend_from_slice(&header.with(&payload[range]));
                        bytes.extend(raw(0x89, b""));
                    }
                }
                bytes.extend(raw(0x81, b"plain"));
            }
            let (events, code) = judge(|| compressing(direction), &bytes);
            assert_eq!(code, None);
            let messages: Vec<_> =
                events.into_iter().filter(|event| *event != Event::Ping(Bytes::new())).collect();
            let round = if direction.takeover {
                vec![text(&words), text("plain")]
            } else {
                vec![text(&words), text(&words), text("plain")]
            };
            assert_eq!(messages, vec![round; 3].concat());
        }
    }

    #[test]
    fn bad_compressed_messages_are_refused() {
        let decoder = || compressing(POOLED);
        assert_eq!(judge(decoder, &raw(0xC1, b"\xFF\xFF")).1, Some(close::INVALID_PAYLOAD));
        let latin = compress(b"caf\xE9", WindowBits::MAX);
        assert_eq!(judge(decoder, &raw(0xC1, &latin)).1, Some(close::INVALID_PAYLOAD));
        assert_eq!(judge(decoder, &raw(0xC2, &latin)).1, None);
        let bomb = compress(&vec![0; 20 << 20], WindowBits::MAX);
        assert_eq!(judge(decoder, &raw(0xC2, &bomb)).1, Some(close::TOO_BIG));
        for control in [0xC8, 0xC9, 0xCA] {
            assert_eq!(judge(decoder, &raw(control, b"")).1, Some(close::PROTOCOL));
            assert_eq!(judge(|| per_frame(9), &raw(control, b"")).1, Some(close::PROTOCOL));
        }
        assert_eq!(judge(decoder, &[raw(0x41, b""), raw(0xC0, b"")].concat()).1, Some(close::PROTOCOL));
        assert_eq!(judge(decoder, &[raw(0x01, b""), raw(0xC0, b"")].concat()).1, Some(close::PROTOCOL));
    }

    #[test]
    fn frames_may_be_compressed_one_by_one_where_that_was_agreed() {
        let alone = |text: &str| compress(text.as_bytes(), WindowBits::MAX);
        let bytes = [
            raw(0xC1, &alone("whole")),
            raw(0x41, &alone("a compressed ")),
            raw(0x89, b""),
            raw(0x00, "plain ".as_bytes()),
            raw(0x40, b""),
            raw(0xC0, &alone("and a compressed frame")),
            raw(0x01, "plain €".as_bytes()),
            raw(0xC0, &alone(" first")),
            raw(0x81, b"plain"),
        ]
        .concat();
        let (mut events, code) = judge(|| per_frame(1000), &bytes);
        events.remove(1);
        assert_eq!(code, None);
        let said = ["whole", "a compressed plain and a compressed frame", "plain € first", "plain"];
        assert_eq!(events, said.map(text));
        // A character may be cut by a frame; what is not UTF-8 is noticed at the frame's end.
        let cut = [
            raw(0x41, &compress(b"\xE2\x82", WindowBits::MAX)),
            raw(0xC0, &compress(b"\xAC", WindowBits::MAX)),
        ];
        assert_eq!(judge(|| per_frame(9), &cut.concat()), (vec![text("€")], None));
        let wrong = raw(0x41, &compress(b"\xE2\xFF", WindowBits::MAX));
        assert_eq!(judge(|| per_frame(9), &wrong).1, Some(close::INVALID_PAYLOAD));
        assert_eq!(judge(|| per_frame(9), &raw(0x41, b"\xFF\xFF")).1, Some(close::INVALID_PAYLOAD));
        // The limit is the message's, over all of its frames.
        let five = alone("12345");
        let parts = |last| [raw(0x41, &five), raw(0x80, last)].concat();
        assert_eq!(judge(|| per_frame(9), &parts(b"6789")).1, None);
        assert_eq!(judge(|| per_frame(9), &parts(b"67890")).1, Some(close::TOO_BIG));
        assert_eq!(
            judge(|| per_frame(9), &[raw(0x41, &five), raw(0xC0, &five)].concat()).1,
            Some(close::TOO_BIG)
        );
    }

    /// Frames that are mostly legal, so that more than the first is read.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            4 => Just(0x01u8), 4 => Just(0x02), 8 => Just(0x00), 8 => Just(0x80), 4 => Just(0x81), 4 => Just(0x82),
            4 => Just(0x89), 4 => Just(0x8A), 1 => Just(0x88), 3 => Just(0xC1), 2 => Just(0xC0), 1 => any::<u8>(),
        ];
        let payload = prop_oneof![
            "[a-zé€😀]{0,40}".prop_map(String::into_bytes),
            "[a-z]{0,40}".prop_map(|text| compress(text.as_bytes(), WindowBits::MAX).to_vec()),
            proptest::collection::vec(any::<u8>(), 0..4),
            proptest::collection::vec(Just(b'x'), 120..140),
        ];
        (first, payload).prop_map(|(first, payload)| raw(first, &payload))
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            frames in proptest::collection::vec(frame(), 0..12),
            flip in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
            size in 2usize..40,
            takeover: bool,
            per_frame: bool,
        ) {
            let mut bytes = frames.concat();
            if let Some((at, octet)) = flip.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = octet;
            }
            let decoder = || {
                let direction = Direction { takeover, ..POOLED };
                let unit = if per_frame && !takeover { Unit::Frame } else { Unit::Message };
                let agreement = Agreement { server: direction, client: direction, unit };
                let limits = Limits { message_bytes_max: 300, fragments_max: 4, inflate_ratio_max: 50 };
                Decoder::new(Role::Server, limits, Some(&agreement))
            };
            let whole = read(decoder(), &bytes, bytes.len().max(1));
            prop_assert_eq!(&read(decoder(), &bytes, 1), &whole);
            prop_assert_eq!(&read(decoder(), &bytes, size), &whole);
        }

        #[test]
        fn what_a_client_writes_a_server_reads(payload: Vec<u8>, key: [u8; 4], size in 1usize..50) {
            let first = Header { mask: Some(key), ..Header::whole(Opcode::Binary, payload.len()) };
            let mut bytes = Vec::new();
            for (header, range) in fragments(first, size) {
                bytes.extend_from_slice(&header.with(&payload[range]));
            }
            let message = Event::Message { kind: Kind::Binary, payload: payload.into() };
            let len = bytes.len();
            prop_assert_eq!(read(server(), &bytes, len), (vec![message], None, false));
        }
    }
}

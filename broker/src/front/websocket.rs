//! Messages as WebSocket frames (RFC 6455), the server's side.

use std::sync::Arc;

use bytes::Bytes;

use tandem_protocols::websocket::extensions::Agreement;
use tandem_protocols::websocket::frame::{Header, Opcode, Role, Violation, close, close_payload};
use tandem_protocols::websocket::message::{Decoder, Event, Kind as MessageKind, Limits};

use crate::core::message::{Frame, Kind, SharedMessages};
use crate::core::protocol::{Close, Reason};
use crate::front::compression::Compressor;
use crate::front::framing::{Arrival, Piece, put_bytes};

/// What may be received, and how long messages are sent.
#[derive(Clone, Debug)]
pub struct WebSocketLimits {
    /// From a peer that was let in.
    pub established: Arc<Limits>,
    /// From a stranger.
    pub stranger: Arc<Limits>,
    /// Longer messages are sent in fragments of so many bytes, so that pings and closes pass between them.
    pub fragment_bytes: u32,
}

/// The frames of one connection.
#[derive(Debug)]
pub struct WebSocket {
    decoder: Decoder,
    /// If compression was agreed on. Boxed, as it mostly was not.
    compressor: Option<Box<Compressor>>,
    /// What it may send once it is let in.
    established: Option<Arc<Limits>>,
    /// The code that the peer closed with, or that its breach is answered with.
    close_code: Option<u16>,
    /// Fragments are this long.
    fragment_bytes: u32,
}

impl WebSocket {
    /// A connection whose opening handshake came to this agreement.
    pub fn new(limits: WebSocketLimits, agreement: Option<&Agreement>) -> WebSocket {
        WebSocket {
            decoder: Decoder::new(Role::Server, limits.stranger, agreement),
            compressor: None,
            established: Some(limits.established),
            close_code: None,
            fragment_bytes: limits.fragment_bytes,
        }
    }

    /// The same, compressing what it sends with this, which goes by the same agreement.
    pub fn with_compressor(self, compressor: Compressor) -> WebSocket {
        WebSocket { compressor: Some(Box::new(compressor)), ..self }
    }

    /// The same for a peer that cannot put fragments together.
    pub fn without_fragments(self) -> WebSocket {
        WebSocket { fragment_bytes: u32::MAX, ..self }
    }

    /// Takes the next thing off what was read.
    pub fn next(&mut self, data: &mut &mut [u8], established: bool) -> Result<Option<Arrival>, Close> {
        if established && let Some(limits) = self.established.take() {
            self.decoder.set_limits(limits);
        }
        match self.decoder.next(data) {
            Ok(event) => Ok(event.map(|event| self.arrival(event))),
            Err(violation) => Err(self.refuse(violation)),
        }
    }

    /// Takes a message off what was read and gives it where it lies, if it is whole; `None` where there is none, or something
    /// else, or something is amiss: that is for [`next`](WebSocket::next).
    pub fn next_in_place<'a>(&mut self, data: &mut &'a mut [u8]) -> Option<Result<(Kind, &'a [u8]), Close>> {
        if self.established.is_some() {
            // Its limits are those of a stranger yet.
            return None;
        }
        Some(match self.decoder.next_in_place(data)? {
            Ok((MessageKind::Text, octets)) => Ok((Kind::Text, octets)),
            Ok((MessageKind::Binary, octets)) => Ok((Kind::Binary, octets)),
            Err(violation) => Err(self.refuse(violation)),
        })
    }

    #[cold]
    fn refuse(&mut self, violation: Violation) -> Close {
        let Violation { code, text } = violation;
        self.close_code = Some(code);
        let reason = if code == close::TOO_BIG { Reason::TooBig } else { Reason::Violation };
        Close::new(reason, format!("WebSocket: {text}"))
    }

    fn arrival(&mut self, event: Event) -> Arrival {
        match event {
            Event::Message { kind: MessageKind::Text, payload } => Arrival::Message(Kind::Text, payload),
            Event::Message { kind: MessageKind::Binary, payload } => Arrival::Message(Kind::Binary, payload),
            Event::Ping(data) => Arrival::Ping(data),
            Event::Pong(_) => Arrival::Pong,
            Event::Close { code, .. } => {
                self.close_code = Some(code.unwrap_or(close::NORMAL));
                Arrival::Close
            }
        }
    }

    /// Frames a message; compresses it if that was agreed on and is worth it.
    pub fn frame(&mut self, frame: &Frame, buffer: &mut Vec<u8>) -> Piece {
        let message = frame.message();
        let opcode = if message.kind == Kind::Text { Opcode::Text } else { Opcode::Binary };
        let whole = Header::whole(opcode, message.len());
        if let Some(compressor) = &mut self.compressor
            && let Some(compressed) = compressor.compress(frame)
        {
            let fragment_bytes = if compressor.is_per_frame() { u32::MAX } else { self.fragment_bytes };
            let whole = Header { compressed: true, ..whole };
            return put_frames(whole, fragment_bytes, &compressed, &Bytes::new(), buffer);
        }
        put_frames(whole, self.fragment_bytes, &message.head, &message.body, buffer)
    }

    /// Frames several messages, if none is to be cut, and none compressed for this connection alone. The frames are the same
    /// for all who get them.
    pub fn frame_all(&self, messages: &SharedMessages, buffer: &mut Vec<u8>) -> Option<Piece> {
        if messages.length_max() > self.fragment_bytes as usize {
            return None;
        }
        let framed = match &self.compressor {
            None => messages.framed(|messages| frames(messages, |_| None)).clone(),
            Some(compressor) => {
                let compress = |message: &[u8]| compressor.compress_shared(message);
                messages.compressed(compressor.shared()?, |messages| frames(messages, compress))
            }
        };
        if framed.len() < SHARED_BYTES_MIN {
            buffer.extend_from_slice(&framed);
            return Some(Piece::Copied);
        }
        Some(Piece::Body(framed))
    }

    /// The next fragment of a message.
    pub fn continue_fragments(&self, mut rest: Bytes, buffer: &mut Vec<u8>) -> (Bytes, Bytes) {
        let next = rest.split_to(rest.len().min(self.fragment_bytes as usize));
        let header = Header { fin: rest.is_empty(), ..Header::whole(Opcode::Continuation, next.len()) };
        buffer.extend_from_slice(&header.encode());
        (next, rest)
    }

    /// Answers a ping.
    pub fn pong(&self, data: &[u8], buffer: &mut Vec<u8>) {
        put_control(Opcode::Pong, data, buffer);
    }

    /// Asks whether the peer is alive.
    pub fn ping(&self, buffer: &mut Vec<u8>) {
        put_control(Opcode::Ping, b"", buffer);
    }

    /// Says goodbye. True when the peer has yet to do so.
    pub fn close(&self, reason: Option<Reason>, buffer: &mut Vec<u8>) -> bool {
        let code = self.close_code.unwrap_or(match reason {
            None | Some(Reason::Done) => close::NORMAL,
            Some(Reason::Violation) => close::PROTOCOL,
            Some(Reason::TooBig) => close::TOO_BIG,
            Some(Reason::Refused) => close::POLICY,
            Some(Reason::SlowConsumer) => close::TRY_AGAIN_LATER,
            Some(Reason::Silent) => CLOSE_SILENT,
            Some(Reason::Shutdown) => close::GOING_AWAY,
        });
        put_control(Opcode::Close, &close_payload(code, ""), buffer);
        self.close_code.is_none()
    }

    /// True in the middle of a message.
    pub fn is_incomplete(&self) -> bool {
        self.decoder.incomplete()
    }
}

/// From here on the frames of several messages, which others get too, are written from where they lie.
const SHARED_BYTES_MIN: usize = 1024;

/// The frames of several messages, compressed where that gives something.
fn frames(messages: &SharedMessages, compress: impl Fn(&[u8]) -> Option<Bytes>) -> Bytes {
    let opcode = if messages.kind() == Kind::Text { Opcode::Text } else { Opcode::Binary };
    let mut frames = Vec::with_capacity(messages.bytes() + messages.count() * HEADER_BYTES);
    for message in messages.iter() {
        let compressed = compress(message);
        let payload = compressed.as_deref().unwrap_or(message);
        let whole = Header::whole(opcode, payload.len());
        frames.extend_from_slice(&Header { compressed: compressed.is_some(), ..whole }.encode());
        frames.extend_from_slice(payload);
    }
    frames.into()
}

/// The header of a frame of some length, which nearly all of several messages have.
const HEADER_BYTES: usize = 4;

/// Closed because the peer was silent for too long: of the codes that applications may define.
const CLOSE_SILENT: u16 = 4000;

/// Puts a message that is `head` and `body`. Its first header says what it is.
fn put_frames(first: Header, fragment_bytes: u32, head: &Bytes, body: &Bytes, buffer: &mut Vec<u8>) -> Piece {
    let length = head.len() + body.len();
    let whole = Header { len: length as u64, ..first };
    if length <= fragment_bytes as usize {
        buffer.extend_from_slice(&whole.encode());
        return put_bytes(head, body, buffer);
    }
    // A head of its own is short: it goes with the first fragment.
    let (head, mut rest) = if body.is_empty() { (&[][..], head.clone()) } else { (&head[..], body.clone()) };
    let first = rest.split_to(rest.len().min(fragment_bytes as usize));
    let length = (head.len() + first.len()) as u64;
    buffer.extend_from_slice(&Header { fin: rest.is_empty(), len: length, ..whole }.encode());
    buffer.extend_from_slice(head);
    Piece::Fragmented { first, rest }
}

fn put_control(opcode: Opcode, data: &[u8], buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&Header::whole(opcode, data.len()).encode());
    buffer.extend_from_slice(data);
}

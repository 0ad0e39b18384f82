//! SockJS's frames in WebSocket messages.

use bytes::Bytes;

use crate::core::message::{Frame, Kind, Message};
use crate::core::protocol::{Close, Reason};
use crate::front::framing::{Arrival, Fitness, Piece};
use crate::front::longpoll::lane::take_framed;
use crate::front::sockjs::frames::{HEART_BEAT, Malformed, Messages, OPEN, close, read};
use crate::front::websocket::WebSocket;

/// SockJS on a WebSocket.
#[derive(Debug)]
pub struct SockJsSocket {
    /// What it lies on.
    pub websocket: WebSocket,
    /// Messages that came together and were not taken yet.
    pending: Bytes,
    fitness: Fitness,
    /// A message was begun whose other fragments are to follow: no other may come between them.
    is_within: bool,
}

impl SockJsSocket {
    /// On this WebSocket.
    pub fn new(websocket: WebSocket) -> SockJsSocket {
        SockJsSocket { websocket, pending: Bytes::new(), fitness: Fitness::for_text(), is_within: false }
    }

    /// What is said first.
    pub fn greeting(&mut self) -> Bytes {
        let mut buffer = Vec::new();
        self.say(OPEN, &mut buffer);
        buffer.into()
    }

    /// Takes the next thing off what was read.
    pub fn next(&mut self, data: &mut &mut [u8], established: bool) -> Result<Option<Arrival>, Close> {
        loop {
            if let Some((kind, message)) = take_framed(&mut self.pending) {
                return Ok(Some(Arrival::Message(kind, message)));
            }
            let Some(arrival) = self.websocket.next(data, established)? else { return Ok(None) };
            let Arrival::Message(_, sent) = arrival else { return Ok(Some(arrival)) };
            self.pending = match read(&sent, usize::MAX) {
                Ok(messages) => messages,
                Err(Malformed::Empty) => Bytes::new(),
                Err(Malformed::Broken | Malformed::TooLong) => {
                    return Err(Close::new(Reason::Violation, "SockJS: broken JSON encoding"));
                }
            };
        }
    }

    /// True when there are messages that came together with others and were not taken yet.
    pub fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Frames a message.
    pub fn frame(&mut self, frame: &Frame, buffer: &mut Vec<u8>) -> Piece {
        let message = frame.message();
        if !self.fitness.judge(message) {
            return Piece::Copied;
        }
        let framed = match frame {
            Frame::Own(message) => Frame::Own(framed(message)),
            Frame::Shared(shared) => Frame::Shared(shared.wrapped(framed)),
        };
        let piece = self.websocket.frame(&framed, buffer);
        self.is_within = matches!(piece, Piece::Fragmented { .. });
        piece
    }

    /// The next fragment of a message.
    pub fn continue_fragments(&mut self, rest: Bytes, buffer: &mut Vec<u8>) -> (Bytes, Bytes) {
        let (next, rest) = self.websocket.continue_fragments(rest, buffer);
        self.is_within = !rest.is_empty();
        (next, rest)
    }

    /// Why the session must end, once there was a message that is no text.
    pub fn take_failure(&mut self) -> Option<Close> {
        self.fitness.take_failure()
    }

    /// Asks whether the peer is alive; and says so, as SockJS does, unless a message that is under way says it.
    pub fn ping(&mut self, buffer: &mut Vec<u8>) {
        self.say(HEART_BEAT, buffer);
        self.websocket.ping(buffer);
    }

    /// Says goodbye. True when the peer has yet to do so.
    pub fn close(&mut self, reason: Option<Reason>, buffer: &mut Vec<u8>) -> bool {
        self.say(close(reason), buffer);
        self.websocket.close(reason, buffer)
    }

    fn say(&mut self, frame: &'static str, buffer: &mut Vec<u8>) {
        if self.is_within {
            return;
        }
        let message = Message::new(Kind::Text, Bytes::from_static(frame.as_bytes()));
        // It is short, and so is in the buffer.
        self.websocket.frame(&Frame::Own(message), buffer);
    }
}

/// A message in SockJS's frame, alone.
fn framed(message: &Message) -> Message {
    let mut messages = Messages::with_capacity(message.len());
    messages.begin();
    messages.put(&message.head);
    messages.put(&message.body);
    messages.end();
    Message::new(Kind::Text, messages.finish().into())
}

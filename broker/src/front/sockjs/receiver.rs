//! Who receives what a session says: one answer of polling, or the stream of answers that never ends.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};

use crate::front::answer::Pieces;
use crate::front::longpoll::Attendance;
use crate::front::longpoll::lane::{Receive, Received};
use crate::front::sockjs::asked::Verb;
use crate::front::sockjs::frames::{HEART_BEAT, Messages, OPEN, close};

/// Messages that are there are put into one frame, up to about this much.
const FRAME_BYTES: usize = 64 * 1024;

/// How frames lie in an answer.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The type of its content.
    pub content_type: &'static str,
    /// What it begins with.
    prelude: &'static str,
    before: &'static str,
    after: &'static str,
    /// sockjs-client takes what comes this way for a URI, and decodes its percent signs; SockJS does not say so.
    percents: bool,
}

const JAVASCRIPT: &str = "application/javascript; charset=UTF-8";

/// Browsers of old hand a page nothing of the first two kibibytes.
const PRELUDE: &str = {
    const BYTES: [u8; 2049] = {
        let mut bytes = [b'h'; 2049];
        bytes[2048] = b'\n';
        bytes
    };
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

impl Manner {
    /// That of a transport.
    pub fn of(verb: Verb) -> Manner {
        let script =
            Manner { content_type: JAVASCRIPT, prelude: "", before: "", after: "\n", percents: false };
        match verb {
            Verb::Xhr | Verb::Send => script,
            Verb::XhrStreaming => Manner { prelude: PRELUDE, ..script },
            Verb::EventSource => Manner {
                content_type: "text/event-stream; charset=UTF-8",
                prelude: "\r\n",
                before: "data: ",
                after: "\r\n\r\n",
                percents: true,
            },
        }
    }

    /// A frame as it lies there.
    pub fn dress(&self, frame: &str) -> Bytes {
        if self.percents && frame.contains('%') {
            return [self.before, &frame.replace('%', "%25"), self.after].concat().into();
        }
        [self.before, frame, self.after].concat().into()
    }
}

/// Says that its HTTP connection is no stranger's any more, once the session's peer was let in.
type Attending = Arc<Attendance>;

/// A receive of a session. To drop it before it is done ends the session: its client has gone, and what was on its
/// way may be lost. A stranger's session is left to its time, so that a place among strangers is not had by the
/// hundred.
pub struct Receiver {
    receive: Receive,
    heart_beat_interval: Duration,
    attending: Option<Attending>,
    greets: bool,
    done: bool,
}

/// What a receiver has for its client.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A frame.
    Frame(String),
    /// The last of all.
    Last(&'static str),
}

impl Receiver {
    /// One that begins with the news that the session is open, if `greets`.
    pub fn new(
        receive: Receive,
        heart_beat_interval: Duration,
        attending: Attending,
        greets: bool,
    ) -> Receiver {
        Receiver { receive, heart_beat_interval, attending: Some(attending), greets, done: false }
    }

    /// Waits for the next frame.
    pub async fn next(&mut self) -> Said {
        if std::mem::take(&mut self.greets) {
            return Said::Frame(OPEN.into());
        }
        let received = self.receive.next(self.heart_beat_interval).await;
        if let Some(attending) = self.attending.take_if(|_| self.receive.lane().is_established()) {
            attending.attend(self.receive.lane());
        }
        match received {
            Received::Message(_, message) => Said::Frame(self.frame(message)),
            Received::Nothing | Received::Gone if self.receive.lane().is_spent() => {
                self.done = true;
                self.receive.note_told();
                Said::Last(close(self.receive.lane().ended()))
            }
            Received::Nothing | Received::Gone => Said::Frame(HEART_BEAT.into()),
        }
    }

    fn frame(&self, first: Bytes) -> String {
        let mut frame = Messages::with_capacity(first.len());
        let mut next = Some(first);
        while let Some(message) = next {
            frame.begin();
            frame.put(&message);
            frame.end();
            if frame.bytes() >= FRAME_BYTES {
                break;
            }
            next = match self.receive.poll() {
                Some(Received::Message(_, message)) => Some(message),
                Some(Received::Nothing | Received::Gone) | None => None,
            };
        }
        frame.finish()
    }

    /// The answer is complete: the client comes again.
    pub fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.done && self.receive.lane().is_established() {
            self.receive.lane().hang_up();
        }
    }
}

// ---- a stream --------------------------------------------------------------------------------------------

/// An answer that goes on until it is long enough.
pub struct Stream {
    manner: Manner,
    has_begun: bool,
    /// What is said instead of what a receiver would say.
    only: Option<&'static str>,
    receiver: Option<Receiver>,
    /// How many bytes it may still have.
    room: usize,
}

impl Stream {
    /// Of what a receiver gets.
    pub fn new(manner: Manner, receiver: Receiver, bytes_max: usize) -> Stream {
        Stream { manner, has_begun: false, only: None, receiver: Some(receiver), room: bytes_max }
    }

    /// Of a single frame.
    pub fn only(manner: Manner, frame: &'static str) -> Stream {
        Stream { manner, has_begun: false, only: Some(frame), receiver: None, room: 0 }
    }

    /// As the body of an answer.
    pub fn into_body(self) -> Pieces {
        Streaming(Some(Box::pin(self.next()))).boxed_unsync()
    }

    async fn next(mut self) -> Option<(Bytes, Stream)> {
        if !std::mem::replace(&mut self.has_begun, true) && !self.manner.prelude.is_empty() {
            return Some((Bytes::from_static(self.manner.prelude.as_bytes()), self));
        }
        if let Some(only) = self.only.take() {
            return Some((self.manner.dress(only), self));
        }
        let mut receiver = self.receiver.take()?;
        if self.room == 0 {
            receiver.finish();
            return None;
        }
        let piece = match receiver.next().await {
            Said::Last(frame) => self.manner.dress(frame),
            Said::Frame(frame) => {
                self.receiver = Some(receiver);
                self.manner.dress(&frame)
            }
        };
        self.room = self.room.saturating_sub(piece.len());
        Some((piece, self))
    }
}

type Next = dyn Future<Output = Option<(Bytes, Stream)>> + Send;

/// The stream that is to come.
struct Streaming(Option<Pin<Box<Next>>>);

impl Body for Streaming {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        let Poll::Ready(said) = next.as_mut().poll(cx) else { return Poll::Pending };
        self.0 = None;
        Poll::Ready(said.map(|(piece, stream)| {
            self.0 = Some(Box::pin(stream.next()));
            Ok(Frame::data(piece))
        }))
    }
}

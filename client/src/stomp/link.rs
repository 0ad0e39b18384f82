//! Frames and heart-beats over a wire.

use std::time::Instant;

use bytes::Bytes;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tandem_protocols::stomp::codec::{Decoder, HEART_BEAT, Item, Limits, encode};
use tandem_protocols::stomp::frame::{Command, Frame, Headers, Side, Version};
use tandem_protocols::stomp::state::{HeartBeat, HeartBeats, chosen};

use crate::error::Error;
use crate::message::{Closed, Kind, Message};
use crate::stomp::dial::Dial;
use crate::wire::Wire;

/// So much output is gathered; while more waits to be written, nothing is taken up.
pub(super) const GATHERED_BYTES: usize = 64 * 1024;

/// What a server may send: more than servers usually take.
const LIMITS: Limits = Limits {
    headers_max: 1024,
    opening_headers_max: 1024,
    header_line_bytes_max: 1 << 20,
    header_block_bytes_max: 1 << 20,
    body_bytes_max: 64 << 20,
};

/// What a client says when it connects.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    /// Best first.
    pub versions: Vec<Version>,
    pub host: String,
    pub login: Option<String>,
    pub passcode: Option<String>,
    pub heart_beat: HeartBeat,
    pub headers: Headers,
}

impl Hello {
    fn frame(&self) -> Frame {
        let mut frame = Frame::new(Command::Connect);
        let headers = &mut frame.headers;
        // 1.0 knows neither, and who speaks only 1.0 sends neither.
        if self.versions != [Version::V10] {
            let names: Vec<&str> = self.versions.iter().map(|version| version.as_str()).collect();
            headers.push("accept-version", &names.join(","));
            headers.push("host", &self.host);
        }
        if let Some(login) = &self.login {
            headers.push("login", login);
        }
        if let Some(passcode) = &self.passcode {
            headers.push("passcode", passcode);
        }
        if self.heart_beat != HeartBeat::default() {
            headers.push("heart-beat", &self.heart_beat.to_string());
        }
        for (name, value) in self.headers.iter() {
            headers.push(name, value);
        }
        frame
    }
}

/// A connection on which CONNECTED was said.
#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
    version: Version,
    decoder: Decoder,
    /// What was read and not decoded.
    input: Bytes,
    beats: HeartBeats,
    connected: Headers,
}

impl Link {
    /// Connects, and says hello. May be cancelled, and then there is no connection.
    pub(super) async fn open(dial: &dyn Dial, hello: &Hello) -> Result<Link, Error> {
        // The versions offered as subprotocols do not bind: `accept-version` decides.
        let (wire, _) = dial.dial(&hello.versions).await?;
        let first = hello.versions.first().copied().unwrap_or(Version::V12);
        let mut link = Link {
            wire,
            version: first,
            decoder: Decoder::new(Side::Client, LIMITS),
            input: Bytes::new(),
            beats: HeartBeats::new(HeartBeat::default().agree(HeartBeat::default(), first), now()),
            connected: Headers::new(),
        };
        link.feed(&hello.frame())?;
        link.wire.flush().await?;
        let answer = link.receive().await?;
        let connected = match answer.command {
            Command::Connected => answer.headers,
            Command::Error => return Err(Error::StompError(Box::new(answer))),
            _ => return Err(Error::UnexpectedFrame(Box::new(answer))),
        };
        link.version = chosen(connected.get("version"))?;
        if !hello.versions.contains(&link.version) {
            return Err(Error::Unsupported("the server chose a version that was not offered"));
        }
        let theirs = HeartBeat::parse(connected.get("heart-beat"))?;
        link.beats = HeartBeats::new(hello.heart_beat.agree(theirs, link.version), now());
        link.decoder.set_version(link.version);
        link.connected = connected;
        Ok(link)
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The headers of CONNECTED.
    pub(super) fn connected(&self) -> &Headers {
        &self.connected
    }

    /// Whether so much waits to be written that nothing should be fed.
    pub(super) fn is_full(&self) -> bool {
        self.wire.output_bytes() >= GATHERED_BYTES
    }

    /// Takes a frame, to be written by whatever is awaited next.
    pub(super) fn feed(&mut self, frame: &Frame) -> Result<(), Error> {
        let bytes = encode(self.version, frame);
        let is_text = std::str::from_utf8(&bytes).is_ok();
        self.wire.feed(if is_text { Kind::Text } else { Kind::Binary }, &bytes)
    }

    /// Sends a heart-beat where one is due, and looks whether the server is alive.
    pub(super) fn tick(&mut self) -> Result<(), Error> {
        let now = now();
        if self.beats.is_peer_dead(now) {
            return Err(Error::Silent);
        }
        if self.beats.must_send(now) && self.wire.output_bytes() == 0 {
            self.wire.feed(Kind::Text, HEART_BEAT)?;
        }
        // Whatever waits is written while the wire is read.
        if self.wire.output_bytes() > 0 {
            self.beats.sent(now);
        }
        Ok(())
    }

    /// When to [`tick`](Self::tick) again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.beats.deadline()
    }

    /// Nothing is read for a while: then the server's silence is not its fault.
    pub(super) fn set_reading(&mut self, reads: bool) {
        if reads {
            self.beats.resume_reading(now());
        } else {
            self.beats.pause_reading();
        }
    }

    /// The next frame; `None` where all is written that was too much before. May be cancelled: nothing is lost.
    pub(super) async fn progress(&mut self) -> Result<Option<Frame>, Error> {
        if !self.is_full() {
            return self.receive().await.map(Some);
        }
        loop {
            if let Some(frame) = self.decoded()? {
                return Ok(Some(frame));
            }
            match self.flush_or_message().await? {
                None => return Ok(None),
                Some(message) => self.take(message),
            }
        }
    }

    /// Writes all that was fed, and then waits for ever. May be cancelled.
    pub(super) async fn write(&mut self) -> Result<(), Error> {
        self.wire.flush().await?;
        std::future::pending().await
    }

    /// Ends the connection in good order.
    pub(super) async fn close(&mut self) -> Result<(), Error> {
        self.wire.close().await.map(|_| ())
    }

    async fn receive(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.decoded()? {
                return Ok(frame);
            }
            match self.wire.next().await? {
                Some(message) => self.take(message),
                None => return Err(self.ended()),
            }
        }
    }

    fn decoded(&mut self) -> Result<Option<Frame>, Error> {
        while let Some(item) = self.decoder.decode(&mut self.input)? {
            match item {
                Item::Frame(frame) => return Ok(Some(frame)),
                Item::HeartBeats(_) => {}
            }
        }
        Ok(None)
    }

    fn take(&mut self, message: Message) {
        self.beats.received(now());
        self.input = message.bytes;
    }

    /// A server that cannot get rid of its output takes no input: what it says while we cannot write is taken, lest
    /// both wait for each other.
    async fn flush_or_message(&mut self) -> Result<Option<Message>, Error> {
        poll_fn(|cx| {
            let flushed = pin!(self.wire.flush()).poll(cx);
            match flushed {
                Poll::Ready(result) => Poll::Ready(result.map(|()| None)),
                Poll::Pending => match self.wire.try_next() {
                    Some(message) => Poll::Ready(Ok(Some(message))),
                    None => Poll::Pending,
                },
            }
        })
        .await
    }

    fn ended(&self) -> Error {
        if self.decoder.is_inside_frame() {
            return Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        }
        Error::Closed(self.wire.closed().cloned().unwrap_or(Closed::Failed))
    }
}

/// Time as tokio has it, so that a test can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

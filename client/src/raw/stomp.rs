//! STOMP 1.0 to 1.2: a [`Link`] moves frames, a [`Client`] is connected.
//!
//! Heart-beats are sent and expected while something is awaited here, and at no other time. While a client
//! awaits a receipt, it keeps the messages that arrive, up to a limit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{sleep_until, timeout};

use tandem_protocols::stomp::codec::{Decoder, HEART_BEAT, Item, Limits, encode};
use tandem_protocols::stomp::frame::{Command, Frame, Headers, Side, Version};
use tandem_protocols::stomp::state::{HeartBeats, Intervals, chosen};

use crate::error::Error;
use crate::raw::carrier::Carrier;
use crate::raw::transport::{Closed, Kind, Transport};

pub use tandem_protocols::stomp::state::{AckMode, HeartBeat};

/// How long a receipt is awaited, unless it is set otherwise.
pub const RECEIPT_TIMEOUT: Duration = Duration::from_secs(30);

/// How many messages are kept while a receipt is awaited, unless it is set otherwise.
pub const QUEUED_MAX: usize = 64 * 1024;

/// So much output is gathered before it is written without being asked for.
const GATHERED_BYTES: usize = 64 * 1024;

/// What a server may send: more than servers usually take.
const LIMITS: Limits = Limits {
    headers_max: 1024,
    opening_headers_max: 1024,
    header_line_bytes_max: 1 << 20,
    header_block_bytes_max: 1 << 20,
    body_bytes_max: 64 << 20,
};

/// STOMP frames over a transport, in any order.
#[derive(Debug)]
pub struct Link<T = Transport> {
    transport: T,
    kind: Kind,
    version: Version,
    decoder: Decoder,
    /// What was read and not decoded.
    input: Bytes,
    beats: Option<HeartBeats>,
}

impl<T: Carrier> Link<T> {
    /// Frames to be written in `version`, and read as a connection that is not open yet.
    pub fn new(transport: T, version: Version) -> Self {
        let decoder = Decoder::new(Side::Client, LIMITS);
        Self { transport, kind: Kind::Text, version, decoder, input: Bytes::new(), beats: None }
    }

    /// The version that frames are written in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What carries the frames.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The transport alone.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Which WebSocket frames to send from now on. What is not UTF-8 is sent as binary in any case.
    pub fn set_kind(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// The connection is open: this version holds both ways, and these silences.
    pub fn open(&mut self, version: Version, intervals: Intervals) {
        self.version = version;
        self.decoder.set_version(version);
        self.beats = Some(HeartBeats::new(intervals, now()));
    }

    /// Takes a frame to be written later.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::feed`].
    pub fn feed(&mut self, frame: &Frame) -> Result<(), Error> {
        self.feed_encoded(&encode(self.version, frame))
    }

    /// Takes bytes that are encoded already, or that are to be taken for a frame.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::feed`].
    pub fn feed_encoded(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let kind = match self.kind {
            Kind::Text if self.transport.has_kinds() && std::str::from_utf8(bytes).is_err() => Kind::Binary,
            kind => kind,
        };
        self.transport.feed(kind, bytes)
    }

    /// Writes all that waits.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.transport.flush().await?;
        if let Some(beats) = &mut self.beats {
            beats.sent(now());
        }
        Ok(())
    }

    /// Sends a frame now.
    ///
    /// # Errors
    ///
    /// Those of [`feed`](Self::feed) and [`flush`](Self::flush).
    pub async fn send(&mut self, frame: &Frame) -> Result<(), Error> {
        self.feed(frame)?;
        self.flush().await
    }

    /// The next frame; heart-beats are sent meanwhile. May be cancelled.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] at the end, [`Error::Stomp`] for what is no frame, [`Error::Silent`].
    pub async fn receive(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(Item::Frame(frame)) = self.receive_item().await? {
                return Ok(frame);
            }
        }
    }

    /// The next frame or heart-beats; `None` where a heart-beat of ours was due. May be cancelled.
    ///
    /// # Errors
    ///
    /// See [`receive`](Self::receive).
    pub async fn receive_item(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.decoder.decode(&mut self.input)? {
                return Ok(Some(item));
            }
            if let Some(beats) = &mut self.beats {
                // A server that never pauses must hear from us as well.
                if beats.must_send(now()) {
                    self.transport.feed(self.kind, HEART_BEAT)?;
                }
                // Whatever waits is written by the transport while it reads.
                if self.transport.output_bytes() > 0 {
                    beats.sent(now());
                }
            }
            let next = match self.beats.as_ref().and_then(HeartBeats::deadline) {
                None => self.transport.next().await?,
                Some(deadline) => tokio::select! {
                    biased;
                    next = self.transport.next() => next?,
                    () = sleep_until(deadline.into()) => {
                        self.beat().await?;
                        return Ok(None);
                    }
                },
            };
            let Some(message) = next else { return Err(self.ended()) };
            if let Some(beats) = &mut self.beats {
                beats.received(now());
            }
            self.input = message.bytes;
        }
    }

    /// Sends a heart-beat if one is due, and looks whether the server is alive.
    ///
    /// # Errors
    ///
    /// [`Error::Silent`], and those of the network.
    pub async fn beat(&mut self) -> Result<(), Error> {
        let Some(beats) = self.beats else { return Ok(()) };
        let now = now();
        if beats.is_peer_dead(now) {
            return Err(Error::Silent);
        }
        if beats.must_send(now) {
            self.feed_encoded(HEART_BEAT)?;
            self.flush().await?;
        }
        Ok(())
    }

    fn ended(&self) -> Error {
        if self.decoder.is_inside_frame() {
            return Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        }
        Error::Closed(self.transport.closed().cloned().unwrap_or(Closed::Failed))
    }
}

/// How to connect.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// The virtual host. An empty one is left out, as 1.0 does.
    pub host: String,
    /// The user.
    pub login: Option<String>,
    /// The user's secret.
    pub passcode: Option<String>,
    /// What this end can do and what it wants; by default nothing.
    pub heart_beat: HeartBeat,
    /// More headers.
    pub headers: Vec<(String, String)>,
}

/// A client that is connected.
#[derive(Debug)]
pub struct Client<T = Transport> {
    link: Link<T>,
    connected: Headers,
    receipts: u64,
    queue: VecDeque<Frame>,
    queued_max: usize,
    receipt_timeout: Duration,
}

impl<T: Carrier> Client<T> {
    /// Connects in exactly this version.
    ///
    /// # Errors
    ///
    /// [`Error::StompError`] where the server says no.
    pub async fn connect(transport: T, version: Version, options: &ConnectOptions) -> Result<Self, Error> {
        Self::connect_link(Link::new(transport, version), options).await
    }

    /// As [`connect`](Self::connect), with a link that was prepared.
    ///
    /// # Errors
    ///
    /// See there.
    pub async fn connect_link(mut link: Link<T>, options: &ConnectOptions) -> Result<Self, Error> {
        link.send(&connect_frame(link.version, options)).await?;
        let answer =
            timeout(RECEIPT_TIMEOUT, link.receive()).await.map_err(|_| Error::Timeout("CONNECTED"))??;
        let connected = match answer.command {
            Command::Connected => answer.headers,
            Command::Error => return Err(Error::StompError(Box::new(answer))),
            _ => return Err(Error::UnexpectedFrame(Box::new(answer))),
        };
        let version = chosen(connected.get("version"))?;
        let theirs = HeartBeat::parse(connected.get("heart-beat"))?;
        link.open(version, options.heart_beat.agree(theirs, version));
        Ok(Self {
            link,
            connected,
            receipts: 0,
            queue: VecDeque::new(),
            queued_max: QUEUED_MAX,
            receipt_timeout: RECEIPT_TIMEOUT,
        })
    }

    /// The headers of CONNECTED.
    pub fn connected(&self) -> &Headers {
        &self.connected
    }

    /// The version that both speak.
    pub fn version(&self) -> Version {
        self.link.version
    }

    /// The frames below.
    pub fn link(&mut self) -> &mut Link<T> {
        &mut self.link
    }

    /// The frames below, alone.
    pub fn into_link(self) -> Link<T> {
        self.link
    }

    /// How long a receipt is awaited from now on.
    pub fn set_receipt_timeout(&mut self, timeout: Duration) {
        self.receipt_timeout = timeout;
    }

    /// How many messages are kept while a receipt is awaited.
    pub fn set_queued_max(&mut self, messages: usize) {
        self.queued_max = messages;
    }

    /// How many messages are kept now.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Sends a message. It is written with the next [`flush`](Self::flush) or wait, or once enough is gathered.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn send(
        &mut self,
        destination: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<(), Error> {
        let frame = with(Frame::new(Command::Send).with("destination", destination), headers);
        self.feed(&frame.with_body(body)).await
    }

    /// Sends a message and waits until the server has it.
    ///
    /// # Errors
    ///
    /// As for all that waits for a receipt: [`Error::StompError`] where the server says no,
    /// [`Error::Timeout`], [`Error::QueueFull`], and those of the connection.
    pub async fn send_with_receipt(
        &mut self,
        destination: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<(), Error> {
        let frame = with(Frame::new(Command::Send).with("destination", destination), headers);
        self.request(frame.with_body(body)).await
    }

    /// Subscribes, and waits for the receipt, so that nothing sent after is missed.
    ///
    /// # Errors
    ///
    /// See [`send_with_receipt`](Self::send_with_receipt).
    pub async fn subscribe(
        &mut self,
        destination: &str,
        id: &str,
        ack: AckMode,
        headers: &[(&str, &str)],
    ) -> Result<(), Error> {
        let frame = Frame::new(Command::Subscribe).with("id", id).with("destination", destination);
        let frame = match ack {
            AckMode::Auto => frame,
            AckMode::Client | AckMode::ClientIndividual => frame.with("ack", ack.as_str()),
        };
        self.request(with(frame, headers)).await
    }

    /// Gives a subscription up, and waits for the receipt.
    ///
    /// # Errors
    ///
    /// See [`send_with_receipt`](Self::send_with_receipt).
    pub async fn unsubscribe(&mut self, id: &str) -> Result<(), Error> {
        self.request(Frame::new(Command::Unsubscribe).with("id", id)).await
    }

    /// Acknowledges a MESSAGE, perhaps in a transaction. Written like [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// [`Error::Stomp`] where the MESSAGE lacks what names it, and those of the connection.
    pub async fn ack(&mut self, message: &Frame, transaction: Option<&str>) -> Result<(), Error> {
        let frame = self.judgement(Command::Ack, message, transaction)?;
        self.feed(&frame).await
    }

    /// Refuses a MESSAGE, perhaps in a transaction. Written like [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// See [`ack`](Self::ack).
    pub async fn nack(&mut self, message: &Frame, transaction: Option<&str>) -> Result<(), Error> {
        let frame = self.judgement(Command::Nack, message, transaction)?;
        self.feed(&frame).await
    }

    /// Begins a transaction. Written like [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn begin(&mut self, transaction: &str) -> Result<(), Error> {
        self.feed(&Frame::new(Command::Begin).with("transaction", transaction)).await
    }

    /// Commits a transaction, and waits for the receipt.
    ///
    /// # Errors
    ///
    /// See [`send_with_receipt`](Self::send_with_receipt).
    pub async fn commit(&mut self, transaction: &str) -> Result<(), Error> {
        self.request(Frame::new(Command::Commit).with("transaction", transaction)).await
    }

    /// Aborts a transaction, and waits for the receipt.
    ///
    /// # Errors
    ///
    /// See [`send_with_receipt`](Self::send_with_receipt).
    pub async fn abort(&mut self, transaction: &str) -> Result<(), Error> {
        self.request(Frame::new(Command::Abort).with("transaction", transaction)).await
    }

    /// Disconnects with a receipt, so that everything sent has arrived, and closes the connection.
    ///
    /// # Errors
    ///
    /// See [`send_with_receipt`](Self::send_with_receipt).
    pub async fn disconnect(mut self) -> Result<(), Error> {
        self.request(Frame::new(Command::Disconnect)).await?;
        self.link.transport.close().await?;
        Ok(())
    }

    /// Sends a frame with a fresh receipt and waits for it; messages that arrive before are kept.
    ///
    /// # Errors
    ///
    /// See [`send_with_receipt`](Self::send_with_receipt).
    pub async fn request(&mut self, frame: Frame) -> Result<(), Error> {
        self.receipts += 1;
        let receipt = format!("tandem-{}", self.receipts);
        self.link.feed(&frame.with("receipt", &receipt))?;
        self.wait_receipt(&receipt).await
    }

    /// Waits for a receipt; messages and other receipts that arrive before are kept.
    ///
    /// # Errors
    ///
    /// See [`send_with_receipt`](Self::send_with_receipt).
    pub async fn wait_receipt(&mut self, receipt: &str) -> Result<(), Error> {
        let limit = self.receipt_timeout;
        let wanted = |frame: &Frame| {
            frame.command == Command::Receipt && frame.headers.get("receipt-id") == Some(receipt)
        };
        timeout(limit, self.wait(wanted)).await.map_err(|_| Error::Timeout("RECEIPT"))??;
        Ok(())
    }

    /// The next MESSAGE; receipts that arrive before are kept. Waits without a limit, and may be cancelled.
    ///
    /// # Errors
    ///
    /// [`Error::StompError`], and those of [`Link::receive`].
    pub async fn next_message(&mut self) -> Result<Frame, Error> {
        self.wait(|frame| frame.command == Command::Message).await
    }

    /// Writes all that waits.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.link.flush().await
    }

    /// Sends any frame now.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn send_frame(&mut self, frame: &Frame) -> Result<(), Error> {
        self.link.send(frame).await
    }

    /// The next frame, whatever it is: what was kept comes first. May be cancelled.
    ///
    /// # Errors
    ///
    /// See [`Link::receive`].
    pub async fn receive_frame(&mut self) -> Result<Frame, Error> {
        match self.queue.pop_front() {
            Some(frame) => Ok(frame),
            None => self.link.receive().await,
        }
    }

    async fn feed(&mut self, frame: &Frame) -> Result<(), Error> {
        self.link.feed(frame)?;
        if self.link.transport.output_bytes() < GATHERED_BYTES {
            return Ok(());
        }
        self.link.flush().await
    }

    /// The first frame that is wanted; others are kept. May be cancelled: what is kept stays kept.
    async fn wait(&mut self, wanted: impl Fn(&Frame) -> bool) -> Result<Frame, Error> {
        if let Some(at) = self.queue.iter().position(&wanted)
            && let Some(frame) = self.queue.remove(at)
        {
            return Ok(frame);
        }
        loop {
            match self.link.receive().await? {
                frame if wanted(&frame) => return Ok(frame),
                frame if frame.command == Command::Error => return Err(Error::StompError(Box::new(frame))),
                other if self.queue.len() < self.queued_max => self.queue.push_back(other),
                _ => return Err(Error::QueueFull),
            }
        }
    }

    /// An ACK or a NACK, with what names the message in this version.
    fn judgement(
        &self,
        command: Command,
        message: &Frame,
        transaction: Option<&str>,
    ) -> Result<Frame, Error> {
        let headers = &message.headers;
        let mut frame = Frame::new(command);
        match self.link.version {
            Version::V12 => frame.headers.push("id", headers.require("ack")?),
            Version::V10 | Version::V11 => {
                frame.headers.push("message-id", headers.require("message-id")?);
                if let Some(subscription) = headers.get("subscription") {
                    frame.headers.push("subscription", subscription);
                }
            }
        }
        if let Some(transaction) = transaction {
            frame.headers.push("transaction", transaction);
        }
        Ok(frame)
    }
}

/// The frame that connects. 1.0 knows neither `accept-version` nor `host`, and who speaks only 1.0 sends
/// neither.
fn connect_frame(version: Version, options: &ConnectOptions) -> Frame {
    let mut frame = Frame::new(Command::Connect);
    let headers = &mut frame.headers;
    if version != Version::V10 {
        headers.push("accept-version", version.as_str());
    }
    if !options.host.is_empty() {
        headers.push("host", &options.host);
    }
    if let Some(login) = &options.login {
        headers.push("login", login);
    }
    if let Some(passcode) = &options.passcode {
        headers.push("passcode", passcode);
    }
    if options.heart_beat != HeartBeat::default() {
        headers.push("heart-beat", &options.heart_beat.to_string());
    }
    for (name, value) in &options.headers {
        headers.push(name, value);
    }
    frame
}

fn with(mut frame: Frame, headers: &[(&str, &str)]) -> Frame {
    for (name, value) in headers {
        frame.headers.push(name, value);
    }
    frame
}

/// Time as tokio has it, so that a test can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

//! What lies between the pump of a session and the HTTP requests of its client: a wire in memory, of one
//! message at a time in and a bounded number of bytes out.
//!
//! On the wire a message has a head: one octet for its kind, eight for its length. The pump writes as much as
//! there is room for, so that what a client does not fetch stays in its session's mailbox. A message
//! leaves the lane in the moment in which it is the answer to a request, and not before: a client that goes
//! away while it waits loses nothing. What it does not get to see after that is lost, as on any wire.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::core::message::{Frame, Kind};
use crate::core::protocol::{Close, Reason};
use crate::front::framing::{Arrival, Fitness, Piece, put_bytes};

/// What the pump may write ahead of the client. One message may be longer.
pub const OUTBOUND_BYTES_MAX: usize = 64 * 1024;

/// A message's kind and length.
const HEAD_BYTES: usize = 9;

/// A lane. Requests hold it for as long as they last, the pump by its [`LaneWire`].
#[derive(Debug)]
pub struct Lane {
    state: Mutex<State>,
    /// Something changed that a request may wait for.
    changed: Notify,
    /// One message is taken in at a time, body and all: the others wait before they are read.
    sending: Semaphore,
}

#[derive(Debug)]
struct State {
    established: bool,
    /// What the pump is to read: at most one message.
    inbound: Bytes,
    /// Messages put into `inbound`, and those of them that the session has dealt with.
    sent: u64,
    taken: u64,
    /// What the client is to fetch.
    outbound: BytesMut,
    /// The pump's, where it waits.
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The newest receive.
    receive: u64,
    receiving: bool,
    /// When the last receive ended.
    received: Instant,
    /// Why the session ended.
    ended: Option<Reason>,
    /// The pump writes nothing more.
    shut: bool,
    /// The client said that it is done.
    hung_up: bool,
    /// A receive was told that there is nothing more.
    told: bool,
    /// It is over: there is nothing more to fetch, and nobody to read.
    over: bool,
}

/// What came of a receive.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(Kind, Bytes),
    /// Nothing: nothing came, a newer receive took over, or the session ended meanwhile.
    Nothing,
    /// The lane had ended before.
    Gone,
}

/// What came of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The session has it.
    Taken,
    /// The session ended over it.
    Broken,
    /// The session takes nothing at the moment, and has not got this.
    Busy,
    /// The session had ended before.
    Gone,
}

impl Lane {
    /// A lane with nothing in it, and the pump's end of it.
    pub fn new() -> (Arc<Lane>, LaneWire) {
        let state = State {
            established: false,
            inbound: Bytes::new(),
            sent: 0,
            taken: 0,
            outbound: BytesMut::new(),
            reader: None,
            writer: None,
            receive: 0,
            receiving: false,
            received: Instant::now(),
            ended: None,
            shut: false,
            hung_up: false,
            told: false,
            over: false,
        };
        let lane = Arc::new(Lane {
            state: Mutex::new(state),
            changed: Notify::new(),
            sending: Semaphore::const_new(1),
        });
        (lane.clone(), LaneWire(lane))
    }

    /// True when nothing more is to be fetched.
    pub fn is_spent(&self) -> bool {
        self.state.lock().is_spent()
    }

    /// True once the peer was let in.
    pub fn is_established(&self) -> bool {
        self.state.lock().established
    }

    /// True when nothing can be fetched or sent any more.
    pub fn is_over(&self) -> bool {
        self.state.lock().over
    }

    /// Waits for the turn to send.
    pub async fn turn_to_send(&self, time_max: Duration) -> Option<SemaphorePermit<'_>> {
        let permit = timeout(time_max, self.sending.acquire()).await.ok()?;
        Some(permit.expect("the semaphore is never closed"))
    }

    /// Gives the session a message, and waits until it has dealt with it.
    pub async fn send(&self, kind: Kind, message: &[u8], time_max: Duration) -> Sent {
        let mut framed = BytesMut::with_capacity(HEAD_BYTES + message.len());
        put_framed(kind, message, &mut framed);
        self.send_framed(framed.freeze(), time_max).await
    }

    /// Gives the session messages, as [`put_framed`] put them, and waits until it has dealt with them.
    pub async fn send_framed(&self, framed: Bytes, time_max: Duration) -> Sent {
        let deadline = Instant::now() + time_max;
        let number = loop {
            let changed = self.changed.notified();
            match self.put(&framed) {
                Ok(number) => break number,
                Err(Sent::Busy) => {}
                Err(why) => return why,
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Sent::Busy;
            }
        };
        loop {
            let changed = self.changed.notified();
            if let Some(sent) = self.fate(number) {
                return sent;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return self.take_back(framed.len());
            }
        }
    }

    /// Puts a message in, where there is none; gives its number.
    fn put(&self, framed: &Bytes) -> Result<u64, Sent> {
        let mut state = self.state.lock();
        if state.is_deaf() {
            return Err(Sent::Gone);
        }
        if state.sent != state.taken {
            // Of a send that was given up.
            return Err(Sent::Busy);
        }
        state.inbound = framed.clone();
        state.sent += 1;
        wake(&mut state.reader);
        Ok(state.sent)
    }

    fn fate(&self, number: u64) -> Option<Sent> {
        let state = self.state.lock();
        match state.ended {
            Some(Reason::Violation | Reason::TooBig) if state.inbound.is_empty() => Some(Sent::Broken),
            _ if state.taken >= number => Some(Sent::Taken),
            // What was read before the end is yet to be called taken.
            _ if state.shut || (state.is_deaf() && !state.inbound.is_empty()) => Some(Sent::Gone),
            _ => None,
        }
    }

    fn take_back(&self, length: usize) -> Sent {
        let mut state = self.state.lock();
        if state.inbound.len() < length {
            // The pump has begun to read it.
            return Sent::Taken;
        }
        state.inbound = Bytes::new();
        state.sent -= 1;
        Sent::Busy
    }

    /// Waits for a message. It is out of the lane only when this is ready; to drop it before loses nothing.
    pub async fn receive(self: &Arc<Lane>, time_max: Duration) -> Received {
        match Receive::begin(self, Rival::GivesWay) {
            Claim::Held(receive) => receive.next(time_max).await,
            Claim::Spent | Claim::Taken => Received::Gone,
        }
    }

    /// Begins a receive, unless there is another.
    pub fn claim(self: &Arc<Lane>) -> Claim {
        Receive::begin(self, Rival::Stays)
    }

    /// Why the session ended, if it did.
    pub fn ended(&self) -> Option<Reason> {
        self.state.lock().ended
    }

    /// Ready when the peer was let in.
    pub async fn until_established(&self) {
        self.until(|state| state.established).await;
    }

    /// The client is done: the session hears the end of the stream, what it still says is of no use.
    pub fn hang_up(&self) {
        let mut state = self.state.lock();
        state.hung_up = true;
        state.outbound = BytesMut::new();
        wake(&mut state.reader);
        wake(&mut state.writer);
        drop(state);
        self.changed.notify_waiters();
    }

    /// It is over: whoever waits is told.
    pub fn end(&self) {
        self.state.lock().over = true;
        self.changed.notify_waiters();
    }

    /// Ready when the lane is over.
    pub async fn until_over(&self) {
        self.until(|state| state.over).await;
    }

    /// Ready when the client is done.
    pub async fn until_hung_up(&self) {
        self.until(|state| state.hung_up).await;
    }

    /// Ready when the client has fetched all there was.
    pub async fn until_fetched(&self) {
        self.until(|state| state.hung_up || state.outbound.is_empty()).await;
    }

    /// Ready when the client knows that it is over: it said so itself, or was told.
    pub async fn until_known(&self) {
        self.until(|state| state.hung_up || state.told).await;
    }

    /// Ready when there was no receive for so long.
    pub async fn until_silent(&self, time_max: Duration) {
        loop {
            let now = Instant::now();
            let due = match &*self.state.lock() {
                State { receiving: true, .. } => now + time_max,
                State { received, .. } => *received + time_max,
            };
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if holds(&self.state.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl State {
    /// True when nothing more reaches the session.
    fn is_deaf(&self) -> bool {
        self.ended.is_some() || self.shut || self.hung_up || self.over
    }

    /// True when nothing more is to be fetched.
    fn is_spent(&self) -> bool {
        self.over || self.hung_up || (self.shut && self.outbound.is_empty())
    }

    /// What the pump read before, the session has dealt with: it came back to the wire.
    fn note_taken(&mut self) -> bool {
        let news = self.inbound.is_empty() && self.taken != self.sent;
        if news {
            self.taken = self.sent;
        }
        news
    }

    /// The kind and the length of the first message, once its head is there.
    fn first(&self) -> Option<(Kind, usize)> {
        let (head, _) = self.outbound.split_at_checked(HEAD_BYTES)?;
        Some(read_head(head))
    }

    fn room(&self) -> usize {
        let bytes_max = match self.first() {
            Some((_, length)) => OUTBOUND_BYTES_MAX.max(HEAD_BYTES + length),
            None => OUTBOUND_BYTES_MAX,
        };
        bytes_max.saturating_sub(self.outbound.len())
    }

    /// Takes the first message out, if it is there whole.
    fn take(&mut self) -> Option<(Kind, Bytes)> {
        let (kind, length) = self.first()?;
        if self.outbound.len() < HEAD_BYTES + length {
            return None;
        }
        let mut message = self.outbound.split_to(HEAD_BYTES + length).freeze();
        message.advance(HEAD_BYTES);
        if self.outbound.is_empty() {
            // Lets go of the buffer behind it: who waits holds none.
            self.outbound = BytesMut::new();
        }
        wake(&mut self.writer);
        Some((kind, message))
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// What came of a wish to be the only one who receives.
#[derive(Debug)]
pub enum Claim {
    /// Nobody else does while this is held.
    Held(Receive),
    /// Somebody else does.
    Taken,
    /// There is nothing more.
    Spent,
}

/// What becomes of a receive that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rival {
    /// It is answered with nothing.
    GivesWay,
    /// It goes on.
    Stays,
}

/// A receive, while it lasts.
#[derive(Debug)]
pub struct Receive {
    lane: Arc<Lane>,
    number: u64,
}

impl Receive {
    fn begin(lane: &Arc<Lane>, rival: Rival) -> Claim {
        let mut state = lane.state.lock();
        if state.is_spent() {
            state.told = true;
            drop(state);
            lane.changed.notify_waiters();
            return Claim::Spent;
        }
        if state.receiving && rival == Rival::Stays {
            return Claim::Taken;
        }
        state.receive += 1;
        state.receiving = true;
        let number = state.receive;
        drop(state);
        lane.changed.notify_waiters();
        Claim::Held(Receive { lane: lane.clone(), number })
    }

    /// Waits for the next message. It is out of the lane only when this is ready; to drop it before loses nothing.
    pub async fn next(&self, time_max: Duration) -> Received {
        let deadline = Instant::now() + time_max;
        loop {
            let changed = self.lane.changed.notified();
            if let Some(received) = self.poll() {
                return received;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Received::Nothing;
            }
        }
    }

    /// Of which lane it is.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// The client is being told that there is nothing more.
    pub fn note_told(&self) {
        self.lane.state.lock().told = true;
        self.lane.changed.notify_waiters();
    }

    /// What there is now: the next message, if it is there whole.
    pub fn poll(&self) -> Option<Received> {
        let mut state = self.lane.state.lock();
        if state.receive != self.number {
            return Some(Received::Nothing);
        }
        if let Some((kind, message)) = state.take() {
            let is_last = state.shut && state.outbound.is_empty();
            drop(state);
            if is_last {
                self.lane.changed.notify_waiters();
            }
            return Some(Received::Message(kind, message));
        }
        state.is_spent().then_some(Received::Nothing)
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        let mut state = self.lane.state.lock();
        if state.receive == self.number {
            state.receiving = false;
            state.received = Instant::now();
        }
    }
}

// ---- the pump's end --------------------------------------------------------------------------------------

/// The pump's end of a lane.
#[derive(Debug)]
pub struct LaneWire(Arc<Lane>);

impl LaneWire {
    /// How messages lie on it.
    pub fn transport(&self) -> LongPoll {
        LongPoll { lane: self.0.clone(), partial: BytesMut::new(), fitness: Fitness::default() }
    }

    /// The same where the client takes only text.
    pub fn text_transport(&self) -> LongPoll {
        LongPoll { fitness: Fitness::for_text(), ..self.transport() }
    }

    /// Changes the state, and tells those who wait if that is of interest to them.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> (T, bool)) -> T {
        let (value, news) = change(&mut self.0.state.lock());
        if news {
            self.0.changed.notify_waiters();
        }
        value
    }
}

impl AsyncRead for LaneWire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.change(|state| {
            let news = state.note_taken();
            if !state.inbound.is_empty() {
                let length = state.inbound.len().min(buffer.remaining());
                buffer.put_slice(&state.inbound[..length]);
                state.inbound.advance(length);
                if state.inbound.is_empty() {
                    state.inbound = Bytes::new();
                }
            } else if !state.hung_up && !state.shut {
                state.reader = Some(cx.waker().clone());
                return (Poll::Pending, news);
            }
            (Poll::Ready(Ok(())), news)
        })
    }
}

impl AsyncWrite for LaneWire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.change(|state| {
            if state.hung_up {
                return (Poll::Ready(Ok(data.len())), false);
            }
            let length = state.room().min(data.len());
            if length == 0 {
                state.writer = Some(cx.waker().clone());
                return (Poll::Pending, state.note_taken());
            }
            state.outbound.extend_from_slice(&data[..length]);
            (Poll::Ready(Ok(length)), true)
        })
    }

    /// All was written; what the session made of the last message is known.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.change(|state| (Poll::Ready(Ok(())), state.note_taken()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.change(|state| {
            state.shut = true;
            wake(&mut state.reader);
            (Poll::Ready(Ok(())), true)
        })
    }
}

impl Drop for LaneWire {
    fn drop(&mut self) {
        self.change(|state| {
            state.shut = true;
            ((), true)
        });
    }
}

/// Messages on a lane.
#[derive(Debug)]
pub struct LongPoll {
    lane: Arc<Lane>,
    /// The message that is being read.
    partial: BytesMut,
    fitness: Fitness,
}

impl LongPoll {
    /// Takes the next message off what was read.
    pub fn next(&mut self, data: &mut &mut [u8]) -> Option<Arrival> {
        let missing = |partial: &BytesMut| match partial.split_at_checked(HEAD_BYTES) {
            None => HEAD_BYTES - partial.len(),
            Some((head, rest)) => read_head(head).1 - rest.len(),
        };
        // First what is missing of the head, then of the rest.
        for _ in 0..2 {
            let length = missing(&self.partial).min(data.len());
            let (taken, left) = std::mem::take(data).split_at_mut(length);
            self.partial.extend_from_slice(taken);
            *data = left;
        }
        if self.partial.len() < HEAD_BYTES || missing(&self.partial) > 0 {
            return None;
        }
        let mut message = std::mem::take(&mut self.partial).freeze();
        let (kind, _) = read_head(&message.split_to(HEAD_BYTES));
        Some(Arrival::Message(kind, message))
    }

    /// Frames a message.
    pub fn frame(&mut self, frame: &Frame, buffer: &mut Vec<u8>) -> Piece {
        let message = frame.message();
        if !self.fitness.judge(message) {
            return Piece::Copied;
        }
        buffer.extend_from_slice(&head(message.kind, message.len()));
        put_bytes(&message.head, &message.body, buffer)
    }

    /// Why the session must end, once there was a message that the client cannot take.
    pub fn take_failure(&mut self) -> Option<Close> {
        self.fitness.take_failure()
    }

    /// The session ended; all that it said is on the wire.
    pub fn close(&self, reason: Option<Reason>) {
        self.lane.state.lock().ended = Some(reason.unwrap_or(Reason::Done));
    }

    /// The peer was let in.
    pub fn note_established(&self) {
        self.lane.state.lock().established = true;
        self.lane.changed.notify_waiters();
    }

    /// True in the middle of a message.
    pub fn is_incomplete(&self) -> bool {
        !self.partial.is_empty()
    }
}

/// Puts a message behind others as it lies on a lane.
pub fn put_framed(kind: Kind, message: &[u8], framed: &mut BytesMut) {
    framed.put_slice(&head(kind, message.len()));
    framed.put_slice(message);
}

/// Takes the first of the messages that [`put_framed`] put there.
pub fn take_framed(framed: &mut Bytes) -> Option<(Kind, Bytes)> {
    let (kind, length) = read_head(framed.split_at_checked(HEAD_BYTES)?.0);
    framed.advance(HEAD_BYTES);
    Some((kind, framed.split_to(length)))
}

fn head(kind: Kind, length: usize) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0] = match kind {
        Kind::Text => 1,
        Kind::Binary => 2,
        Kind::Raw => 3,
    };
    head[1..].copy_from_slice(&(length as u64).to_be_bytes());
    head
}

fn read_head(mut head: &[u8]) -> (Kind, usize) {
    let kind = match head.get_u8() {
        1 => Kind::Text,
        2 => Kind::Binary,
        _ => Kind::Raw,
    };
    (kind, head.get_u64() as usize)
}

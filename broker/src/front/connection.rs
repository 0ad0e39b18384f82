//! The pump: moves messages between a wire, a session and an inbox. One task per connection, and the only
//! place that waits.
//!
//! Writing pulls: parcels are taken from the inbox only when the wire takes bytes, so that what a slow
//! peer leaves unread stays in its mailbox, where it is bounded. What is ready is written at once, however
//! many messages it is. Reading goes on while there is nothing to write and stops while the peer leaves
//! too many answers unread, or the realm has too much on its way; timers run in any case.
//!
//! An idle connection holds no buffer: reading and composing use one of each per thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::ReadBuf;
use tokio::time::Sleep;

use crate::core::access::authorizer::{Authorizing, Inquiry};
use crate::core::access::{Authenticator, Peer, Refusal};
use crate::core::mailbox::{self, Batch, Inbox};
use crate::core::message::{Frame, Kind, SharedMessages};
use crate::core::parcel::Parcel;
use crate::core::protocol::{Close, Output, Reason, Session};
use crate::core::spare::Spare;
use crate::front::alarm::{self, Alarm, Alarms};
use crate::front::executor;
use crate::front::framing::{Arrival, Piece};
use crate::front::gate::{Counted, Permit};
use crate::front::transport::Transport;
use crate::front::wire::{Opened, Wire};
use crate::metrics;

/// What all connections of a door share.
#[derive(Debug)]
pub struct Pump {
    limits: PumpLimits,
    alarms: Arc<Alarms>,
}

impl Pump {
    /// For connections within these limits. It belongs to the runtime that it is made in.
    pub fn new(limits: PumpLimits) -> Arc<Pump> {
        Arc::new(Pump { limits, alarms: Alarms::start(now()) })
    }
}

/// Times and sizes of the pump.
#[derive(Clone, Debug)]
pub struct PumpLimits {
    /// How long a stranger may take to be let in.
    pub establish_time_max: Duration,
    /// How many bytes a stranger may send before.
    pub establish_bytes_max: usize,
    /// Silence after which a ping is sent.
    pub ping_interval: Duration,
    /// Silence after that which ends the connection.
    pub pong_time_max: Duration,
    /// How long a message may take to arrive whole.
    pub message_time_max: Duration,
    /// How long the inbox may stay over its soft limit.
    pub slow_time_max: Duration,
    /// How long a peer that publishes is not read because most of those that it publishes to do not keep up.
    pub pace_time_max: Duration,
    /// How long the peer may take to answer a close.
    pub close_time_max: Duration,
    /// How long to read on after the last byte was written, so that the peer gets to see it.
    pub linger_time_max: Duration,
    /// Unread answers, in bytes, from which on the peer is not read.
    pub owed_bytes_max: usize,
}

/// How long the answer may take to whether a message is allowed. Meanwhile the peer is not read.
const AUTHORIZE_TIME_MAX: Duration = Duration::from_secs(10);

/// One write is composed of about this much.
const COMPOSE_BYTES: usize = 64 * 1024;

/// One write is composed of no more pieces. A large message is two: what is before it, and itself.
const SLICES_MAX: usize = 16;

/// A list of frames that is larger than this is not kept for the next who needs one.
const SPARE_FRAMES_MAX: usize = 64;

/// Read at once.
const READ_BYTES: usize = 64 * 1024;

/// What is taken in before it is asked again whether the peer, or others, are to read first; and what a message counts
/// for beside its bytes.
const UNASKED_BYTES_MAX: usize = 16 * 1024;
const ARRIVAL_BYTES: usize = 64;

/// What one of several messages that came as one counts for: how long each of them is, is not known.
const PROCEEDED_BYTES: usize = 1024;

/// What is taken in before other tasks get their turn: of what was compressed, a single read may hold a thousand times as
/// much.
const TURN_BYTES_MAX: usize = LONG_BYTES;

/// Pings of a peer that does not read the answers; on a WebSocket each holds up to 125 bytes.
const PONGS_MAX: usize = 16;

/// What they may hold together, where RawSocket's are as long as messages. The newest one may be longer.
const PONGS_BYTES_MAX: usize = 64 * 1024;

/// Rounds of writing and reading before other tasks get their turn, and before they are run elsewhere meanwhile.
const ROUNDS_MAX: usize = 16;
const ROUNDS_SHORT: usize = 4;

/// Messages that are taken in, and parcels, between two looks at the clock: what each of them takes is not known before. One
/// may be for a thousand others, or be held against as many selectors.
const ARRIVALS_UNTIMED: usize = 16;
const PARCELS_UNTIMED: usize = 64;

/// What is larger takes long to convert or to compress: about a millisecond for each.
const LONG_BYTES: usize = 256 * 1024;

/// Writes before the peer is read again, and parcels that go into one of them. A peer that takes all it is
/// given is not to be unheard meanwhile, nor are parcels of which nothing is written to take for ever.
const WRITES_MAX: usize = 8;
const PARCELS_MAX: usize = 4096;

thread_local! {
    static READING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
    static COMPOSING: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(COMPOSE_BYTES * 2));
    /// Of those who have nothing under way any more.
    static RESTING: RefCell<Spare<Box<UnderWay>>> = const { RefCell::new(Spare::new()) };
}

/// Where a connection is in its life.
#[derive(Debug)]
enum Phase {
    Open,
    /// The session ended; what it still had to say is being written, then the wire's goodbye.
    Closing(Reason),
    /// Everything was written; the peer may answer the wire's goodbye.
    AwaitingClose,
    /// Nothing is expected any more. Our direction is closed, then read on until the peer is done, so that it
    /// sees what was written.
    Lingering {
        shut: bool,
    },
}

/// One connection.
pub struct Connection<W> {
    wire: W,
    transport: Transport,
    session: Option<Box<dyn Session>>,
    inbox: Inbox,
    peer: Peer,
    pump: Arc<Pump>,
    work: Work,
    phase: Phase,
    /// A ping is to be answered.
    is_pinged: bool,
    /// The wire took something in this turn.
    wrote: bool,
    /// The peer has closed its direction. What is owed may still reach it.
    ended: bool,
    /// When the phase began. While it is open, when the peer was last heard or, if it is to answer a ping, when that
    /// was sent.
    since: Instant,
    /// For what is near. What is far away has an alarm.
    timer: Option<Pin<Box<Sleep>>>,
    /// Held, and given back at the end. Boxed, as this machine's own are not counted.
    counted: Option<Box<Counted>>,
    alarm: Option<Alarm>,
}

const _: () =
    assert!(size_of::<Connection<Opened>>() <= 224, "every idle connection is one: its allocation has 224");

/// What a connection has under way. It is made when it is first needed in a turn and, when all of it is done,
/// given back at the end of the turn: an idle connection has none.
#[derive(Default)]
struct Work(Option<Box<UnderWay>>);

#[derive(Default)]
struct UnderWay {
    /// Taken from the inbox, not yet delivered.
    batch: VecDeque<Parcel>,
    /// Said by the session, not yet on the wire.
    owed: VecDeque<Owed>,
    owed_bytes: usize,
    /// Composed, not yet taken by the wire.
    backlog: VecDeque<Bytes>,
    /// The rest of a message of which fragments were sent.
    fragments: Bytes,
    /// Pings that were not answered yet, at most [`PONGS_MAX`].
    pings: Vec<Bytes>,
    /// Read, and not taken in before the peer has read what it was answered. Mostly empty.
    unread: Vec<u8>,
    /// The session waits for this answer, since then. Nobody else has the lock: it is for what is shared between
    /// threads by its type alone.
    authorizing: Option<(Mutex<Authorizing>, Instant)>,
    /// Since when the peer is in the middle of a message.
    incomplete_since: Option<Instant>,
    /// Since when the inbox is over its soft limit.
    slow_since: Option<Instant>,
    /// Since when the wire has taken nothing of what there is for it; none while there is nothing.
    blocked_since: Option<Instant>,
    /// Until when the peer is not read because others do not keep up with it.
    paced_until: Option<Instant>,
    /// Until the peer is let in.
    stranger: Option<Box<Stranger>>,
}

/// What the session said in one go.
enum Owed {
    One(Frame),
    All(Arc<SharedMessages>),
}

static NOTHING_UNDER_WAY: UnderWay = UnderWay {
    batch: VecDeque::new(),
    owed: VecDeque::new(),
    owed_bytes: 0,
    backlog: VecDeque::new(),
    fragments: Bytes::new(),
    pings: Vec::new(),
    unread: Vec::new(),
    authorizing: None,
    incomplete_since: None,
    slow_since: None,
    blocked_since: None,
    paced_until: None,
    stranger: None,
};

impl UnderWay {
    fn owe(&mut self, frame: Frame) {
        self.owed_bytes += frame.message().len();
        self.owed.push_back(Owed::One(frame));
    }

    fn owe_all(&mut self, messages: Arc<SharedMessages>) {
        self.owed_bytes += messages.bytes();
        self.owed.push_back(Owed::All(messages));
    }

    /// Whether more goes into the next write, of which so much is in the buffer.
    fn has_room(&self, buffer: &[u8]) -> bool {
        let aside: usize = self.backlog.iter().map(Bytes::len).sum();
        aside + buffer.len() < COMPOSE_BYTES && self.backlog.len() + 2 <= SLICES_MAX
    }
}

impl Work {
    /// Without making what is not there.
    fn stranger_mut(&mut self) -> Option<&mut Stranger> {
        self.0.as_mut()?.stranger.as_deref_mut()
    }

    /// Gives back what nothing needs any more, if that is all.
    fn rest(&mut self) {
        if !self.is_done() {
            return;
        }
        let Some(mut resting) = self.0.take() else { return };
        mailbox::give_back(std::mem::take(&mut resting.batch));
        let UnderWay { owed, owed_bytes, backlog, unread, pings, .. } = &*resting;
        let is_small = owed.capacity() <= SPARE_FRAMES_MAX && backlog.capacity() <= SPARE_FRAMES_MAX;
        if is_small && unread.capacity() + pings.capacity() + owed_bytes == 0 {
            RESTING.with_borrow_mut(|spare| spare.give(resting));
        }
    }

    fn is_done(&self) -> bool {
        let UnderWay { batch, owed, backlog, fragments, pings, unread, .. } = &**self;
        let nothing_to_write = owed.is_empty() && backlog.is_empty() && fragments.is_empty();
        let nothing_is_late = self.incomplete_since.or(self.slow_since).or(self.blocked_since).is_none();
        let nothing_is_asked = self.authorizing.is_none() && self.paced_until.is_none();
        nothing_to_write
            && nothing_is_asked
            && self.stranger.is_none()
            && batch.is_empty()
            && pings.is_empty()
            && unread.is_empty()
            && nothing_is_late
    }
}

impl Deref for Work {
    type Target = UnderWay;

    fn deref(&self) -> &UnderWay {
        self.0.as_deref().unwrap_or(&NOTHING_UNDER_WAY)
    }
}

impl DerefMut for Work {
    fn deref_mut(&mut self) -> &mut UnderWay {
        self.0.get_or_insert_with(|| RESTING.with_borrow_mut(Spare::take).unwrap_or_default())
    }
}

/// What matters of a peer until it is let in.
struct Stranger {
    /// Finds out who it is.
    authenticator: Arc<dyn Authenticator>,
    opened: Instant,
    received_bytes: usize,
    /// What the session waits for. Nobody else has the lock: as above.
    finding_out: Option<Mutex<Pin<Box<dyn Future<Output = Parcel> + Send>>>>,
    /// A place among those who were not let in yet.
    _permit: Option<Permit>,
}

/// What a connection is made of.
pub struct Parts<W> {
    /// Carries it.
    pub wire: W,
    /// How messages lie there.
    pub transport: Transport,
    /// The language.
    pub session: Box<dyn Session>,
    /// What the house has for it.
    pub inbox: Inbox,
    /// Who is at the other end.
    pub peer: Peer,
    /// Finds out who they are.
    pub authenticator: Arc<dyn Authenticator>,
    /// What it shares with others.
    pub pump: Arc<Pump>,
    /// A place among strangers.
    pub stranger: Option<Permit>,
    /// When the peer was accepted.
    pub opened: Instant,
}

/// Now, as the runtime's clock says: in tests it may be virtual.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl<W: Wire> Connection<W> {
    /// A connection that was just opened. Awaiting it runs it to its end. It is run as it is, in a box: an `async` function
    /// around it would hold it once more for each move, for as long as it lives.
    pub fn new(mut parts: Parts<W>) -> Connection<W> {
        let now = now();
        metrics::CONNECTIONS.add(1);
        let mut work = Work::default();
        if let Some(greeting) = parts.transport.greeting() {
            work.backlog.push_back(greeting);
        }
        work.stranger = Some(Box::new(Stranger {
            authenticator: parts.authenticator,
            opened: parts.opened,
            received_bytes: 0,
            finding_out: None,
            _permit: parts.stranger,
        }));
        Connection {
            wire: parts.wire,
            transport: parts.transport,
            session: Some(parts.session),
            inbox: parts.inbox,
            peer: parts.peer,
            pump: parts.pump,
            work,
            phase: Phase::Open,
            is_pinged: false,
            wrote: false,
            ended: false,
            since: now,
            timer: None,
            counted: None,
            alarm: None,
        }
    }

    /// The same, as one of those from its address.
    pub fn counted(mut self, counted: Option<Counted>) -> Connection<W> {
        self.counted = counted.map(Box::new);
        self
    }

    /// One turn of everything. Ready when the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = now();
        self.note_established();
        self.wrote = false;
        // What the peer takes or has sent counts first: whoever gets their turn late has not been silent.
        let mut is_due = self.deadline() <= now;
        let mut room = TURN_BYTES_MAX;
        for round in 0..ROUNDS_MAX {
            if round == ROUNDS_SHORT {
                executor::at_length();
            }
            self.poll_authentication(cx, now);
            self.poll_authorization(cx, now);
            let written = match self.poll_write(cx, now)? {
                Poll::Ready(written) => Some(written),
                Poll::Pending => None,
            };
            if self.is_over() {
                return Poll::Ready(Ok(()));
            }
            self.watch_slowness(cx, written.is_none(), now);
            let read = self.poll_read(cx, &mut room, now)?;
            if is_due {
                self.run_timers(now)?;
            }
            match read {
                Poll::Pending if is_due || written == Some(Written::Some) => {}
                Poll::Pending => {
                    self.shrink();
                    return Poll::Pending;
                }
                Poll::Ready(Read::Some) => {}
                Poll::Ready(Read::End) => self.note_end(now),
            }
            if room == 0 {
                executor::at_length();
                break;
            }
            if executor::is_over_time() {
                break;
            }
            is_due = false;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// True when nothing can come any more and everything was written.
    fn is_over(&self) -> bool {
        self.ended && matches!(self.phase, Phase::Lingering { shut: true })
    }

    /// The peer closed its direction: it may still read what it is owed.
    fn note_end(&mut self, now: Instant) {
        self.ended = true;
        self.end_session(Close::new(Reason::Done, "the peer ended the stream"), now);
        if matches!(self.phase, Phase::AwaitingClose) {
            self.linger(now);
        }
    }

    fn linger(&mut self, now: Instant) {
        self.phase = Phase::Lingering { shut: false };
        self.since = now;
    }

    // ---- the session ---------------------------------------------------------------------------------

    /// Does what the session wants done.
    fn drain_session(&mut self, now: Instant) {
        let Some(session) = &mut self.session else { return };
        while let Some(output) = session.poll() {
            match output {
                Output::Send(frame) => self.work.owe(frame),
                Output::SendAll(messages) => self.work.owe_all(messages),
                Output::Authenticate(credentials) => {
                    // A peer that was let in has been found out already.
                    if let Some(stranger) = self.work.stranger_mut() {
                        let finding = stranger.authenticator.authenticate(*credentials, &self.peer);
                        let answer = async { Parcel::Authenticated(Box::new(finding.await)) };
                        stranger.finding_out = Some(Mutex::new(Box::pin(answer)));
                    }
                }
                Output::LookUp(applicant) => {
                    if let Some(stranger) = self.work.stranger_mut() {
                        let finding = stranger.authenticator.look_up(*applicant, &self.peer);
                        let answer = async { Parcel::LookedUp(Box::new(finding.await)) };
                        stranger.finding_out = Some(Mutex::new(Box::pin(answer)));
                    }
                }
                Output::Authorize(Inquiry(answer)) => self.work.authorizing = Some((Mutex::new(answer), now)),
                Output::Close(close) => return self.end_session(close, now),
            }
        }
        self.note_established();
    }

    fn note_established(&mut self) {
        if self.work.stranger.is_some() && self.is_established() {
            self.transport.note_established();
            self.work.stranger = None;
        }
    }

    /// Leaves the realm at once; what was said is still written.
    fn end_session(&mut self, close: Close, now: Instant) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        match close.reason {
            Reason::Done | Reason::Shutdown => {
                tracing::debug!(peer = %self.peer, reason = ?close.reason, "connection closes");
            }
            reason => {
                if matches!(reason, Reason::Violation | Reason::TooBig) {
                    metrics::VIOLATIONS.add(1);
                }
                tracing::warn!(peer = %self.peer, ?reason, detail = %close.detail, "connection closed");
            }
        }
        self.session = None;
        self.inbox.close();
        self.work.stranger = None;
        self.work.batch.clear();
        if self.work.authorizing.is_some() {
            self.work.authorizing = None;
        }
        self.note_pace(None);
        self.phase = Phase::Closing(close.reason);
        (self.since, self.is_pinged) = (now, false);
    }

    /// The wire's own rules were broken, or one of the pump's limits was reached.
    fn fail(&mut self, close: Close, now: Instant) {
        if let Some(session) = &mut self.session {
            session.fail(&close.detail, now);
            while let Some(output) = session.poll() {
                match output {
                    Output::Send(frame) => self.work.owe(frame),
                    Output::SendAll(messages) => self.work.owe_all(messages),
                    Output::Authenticate(_) | Output::LookUp(_) | Output::Authorize(_) | Output::Close(_) => {
                    }
                }
            }
        }
        self.end_session(close, now);
    }

    fn poll_authentication(&mut self, cx: &mut Context<'_>, now: Instant) {
        while let Some(stranger) = self.work.stranger_mut()
            && let Some(finding_out) = &mut stranger.finding_out
        {
            let Poll::Ready(answer) = finding_out.get_mut().as_mut().poll(cx) else { return };
            stranger.finding_out = None;
            if let Some(session) = &mut self.session {
                session.deliver(answer, now);
            }
            self.drain_session(now);
        }
    }

    fn poll_authorization(&mut self, cx: &mut Context<'_>, now: Instant) {
        while self.work.authorizing.is_some()
            && let Some((authorizing, since)) = &mut self.work.authorizing
        {
            let answer = match authorizing.get_mut().as_mut().poll(cx) {
                Poll::Ready(answer) => answer,
                Poll::Pending if now >= *since + AUTHORIZE_TIME_MAX => Err(Refusal::AuthorizationFailed),
                Poll::Pending => return,
            };
            self.work.authorizing = None;
            let _batch = Batch::begin();
            if let Some(session) = &mut self.session {
                session.deliver(Parcel::Authorized(Box::new(answer)), now);
            }
            self.drain_session(now);
            self.conclude();
        }
    }

    // ---- writing -------------------------------------------------------------------------------------

    /// Writes until there is nothing more to write, the wire takes no more (pending), or it is others' turn.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<Poll<Written>> {
        let outcome = COMPOSING.with_borrow_mut(|buffer| {
            let mut composed = Written::All;
            for _ in 0..WRITES_MAX {
                if composed == Written::Some && executor::is_over_time() {
                    break;
                }
                ready!(self.poll_backlog(cx))?;
                buffer.clear();
                buffer.shrink_to(COMPOSE_BYTES * 2);
                composed = self.compose(cx, buffer, now);
                if buffer.is_empty() && self.work.backlog.is_empty() {
                    if composed == Written::Some {
                        continue;
                    }
                    ready!(self.poll_finished(cx, now))?;
                    return Poll::Ready(Ok(Written::All));
                }
                if self.work.backlog.is_empty() {
                    ready!(self.poll_buffer(cx, buffer))?;
                } else if !buffer.is_empty() {
                    self.work.backlog.push_back(Bytes::copy_from_slice(buffer));
                }
            }
            Poll::Ready(Ok(Written::Some))
        });
        if self.wrote && self.work.blocked_since.take().is_some() {
            // A ping may lie behind what the peer is taking in right now.
            if self.is_pinged {
                self.since = now;
            }
        }
        if outcome.is_pending() {
            self.work.blocked_since.get_or_insert(now);
        } else {
            self.work.blocked_since = None;
        }
        match outcome {
            Poll::Ready(result) => result.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll_backlog(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.work.backlog.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.work.backlog) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let mut written = ready!(Pin::new(&mut self.wire).poll_write_vectored(cx, &slices[..count]))?;
            metrics::WRITES.add(1);
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote = true;
            while let Some(first) = self.work.backlog.front_mut() {
                if written < first.len() {
                    first.advance(written);
                    break;
                }
                written -= first.len();
                self.work.backlog.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the buffer; what the wire does not take goes to the backlog.
    fn poll_buffer(&mut self, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<()>> {
        let written = match Pin::new(&mut self.wire).poll_write(cx, buffer) {
            Poll::Ready(result) => {
                metrics::WRITES.add(1);
                self.wrote = true;
                result?
            }
            Poll::Pending => 0,
        };
        if written < buffer.len() {
            self.work.backlog.push_back(Bytes::copy_from_slice(&buffer[written..]));
            return self.poll_backlog(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Composes the next write: into the buffer and, for what is large, into the backlog. Says whether that
    /// is all there is.
    fn compose(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>, now: Instant) -> Written {
        for data in std::mem::take(&mut self.work.pings) {
            // Nothing may follow the wire's goodbye (RFC 6455, 5.5.1).
            if matches!(self.phase, Phase::Open | Phase::Closing(_)) {
                self.transport.pong(&data, buffer);
            }
        }
        let (mut settled, mut parcels) = (0, 0);
        let mut composed = Written::Some;
        while self.work.has_room(buffer) {
            if !self.work.fragments.is_empty() {
                let rest = std::mem::take(&mut self.work.fragments);
                let (next, rest) = self.transport.continue_fragments(rest, buffer);
                self.work.fragments = rest;
                self.put_aside(buffer, next);
            } else if let Some(owed) = self.work.owed.pop_front() {
                self.frame(owed, buffer, now);
            } else if parcels == PARCELS_MAX
                || (parcels > 0 && parcels % PARCELS_UNTIMED == 0 && executor::is_over_time())
            {
                break;
            } else if let Some(parcel) = self.next_parcel(cx) {
                parcels += 1;
                let cost = mailbox::cost(&parcel);
                settled += cost;
                if cost >= LONG_BYTES {
                    executor::at_length();
                }
                if let Some(session) = &mut self.session {
                    session.deliver(parcel, now);
                }
                self.drain_session(now);
            } else {
                composed = Written::All;
                break;
            }
        }
        self.inbox.settled(settled);
        composed
    }

    fn frame(&mut self, owed: Owed, buffer: &mut Vec<u8>, now: Instant) {
        let (piece, count, bytes) = match &owed {
            Owed::One(frame) => (self.transport.frame(frame, buffer), 1, frame.message().len()),
            Owed::All(messages) => match self.transport.frame_all(messages, buffer) {
                Some(piece) => (piece, messages.count(), messages.bytes()),
                None => {
                    let singles = messages.singles().iter().rev();
                    singles.for_each(|single| {
                        self.work.owed.push_front(Owed::One(Frame::Shared(single.clone())))
                    });
                    return;
                }
            },
        };
        self.work.owed_bytes -= bytes;
        metrics::MESSAGES_OUT.add(count as i64);
        match piece {
            Piece::Copied => {}
            Piece::Body(body) => self.put_aside(buffer, body),
            Piece::Fragmented { first, rest } => {
                self.work.fragments = rest;
                self.put_aside(buffer, first);
            }
        }
        if let Some(close) = self.transport.take_failure() {
            self.fail(close, now);
        }
    }

    fn put_aside(&mut self, buffer: &mut Vec<u8>, body: Bytes) {
        if !buffer.is_empty() {
            self.work.backlog.push_back(Bytes::copy_from_slice(buffer));
            buffer.clear();
        }
        self.work.backlog.push_back(body);
    }

    fn next_parcel(&mut self, cx: &mut Context<'_>) -> Option<Parcel> {
        self.session.as_ref()?;
        if self.work.batch.is_empty() && self.inbox.poll_take(cx, &mut self.work.batch).is_pending() {
            return None;
        }
        self.work.batch.pop_front()
    }

    /// Everything was written: goes on with closing, if that is under way.
    fn poll_finished(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<()>> {
        if let Phase::Closing(reason) = self.phase {
            let mut goodbye = Vec::new();
            let awaits_answer = self.transport.close(Some(reason), &mut goodbye);
            self.phase = Phase::AwaitingClose;
            self.since = now;
            if !awaits_answer || self.ended {
                self.linger(now);
            }
            if !goodbye.is_empty() {
                self.work.backlog.push_back(goodbye.into());
                ready!(self.poll_backlog(cx))?;
            }
        }
        ready!(Pin::new(&mut self.wire).poll_flush(cx))?;
        if matches!(self.phase, Phase::Lingering { shut: false }) {
            ready!(Pin::new(&mut self.wire).poll_shutdown(cx))?;
            self.phase = Phase::Lingering { shut: true };
        }
        Poll::Ready(Ok(()))
    }

    // ---- reading -------------------------------------------------------------------------------------

    /// Reads once. Pending when there is nothing to read, or nothing should be read now. What is taken in leaves less room.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut usize, now: Instant) -> io::Result<Poll<Read>> {
        if self.ended {
            return Ok(Poll::Pending);
        }
        if self.reading_pauses(cx, now) {
            // What we do not read cannot count as the peer's silence; nor is a message late that we do not
            // let arrive.
            self.note_heard(now);
            self.work.incomplete_since = self.work.incomplete_since.map(|_| now);
            if let Some(session) = &mut self.session {
                session.pause(now);
            }
            return Ok(Poll::Pending);
        }
        if self.proceed(now) || !self.work.unread.is_empty() || self.transport.has_more() {
            // There is an end to it; until then nobody looks what else the peer has said.
            self.note_heard(now);
            let mut unread = std::mem::take(&mut self.work.unread);
            self.take_in(cx, &mut unread, room, now);
            return Ok(Poll::Ready(Read::Some));
        }
        READING.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.wire).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(result) => result?,
            }
            metrics::READS.add(1);
            let length = buffer.filled().len();
            if length == 0 {
                return Ok(Poll::Ready(Read::End));
            }
            self.note_heard(now);
            if self.is_sent_too_much(length) {
                let detail = "too much was sent before the session was established";
                self.fail(Close::new(Reason::TooBig, detail), now);
            } else {
                self.take_in(cx, &mut scratch[..length], room, now);
            }
            Ok(Poll::Ready(Read::Some))
        })
    }

    fn note_heard(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Open) {
            (self.since, self.is_pinged) = (now, false);
        }
    }

    fn reading_pauses(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let finding_out = self.work.stranger.as_ref().is_some_and(|stranger| stranger.finding_out.is_some());
        if finding_out || self.work.authorizing.is_some() {
            self.note_pace(None);
            return true;
        }
        self.is_sated(cx, now)
    }

    /// Whether the peer is not read, and until when, because others do not keep up with it.
    fn note_pace(&mut self, until: Option<Instant>) -> bool {
        // Looked at first: where nothing is under way, nothing is made for it.
        if self.work.paced_until != until {
            self.work.paced_until = until;
        }
        until.is_some()
    }

    /// Whether the peer, or the realm, or those that the peer publishes to, have to read before more is asked.
    fn is_sated(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(session) = &self.session else { return false };
        if self.work.owed_bytes > self.pump.limits.owed_bytes_max || session.is_congested(cx.waker()) {
            self.note_pace(None);
            return true;
        }
        let until = session.paced_until(cx.waker(), now, self.pump.limits.pace_time_max);
        self.note_pace(until)
    }

    fn is_established(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_established())
    }

    /// Counts what a stranger sends; true where it has sent too much.
    fn is_sent_too_much(&mut self, received_bytes: usize) -> bool {
        self.work.stranger_mut().is_some_and(|stranger| {
            stranger.received_bytes += received_bytes;
            stranger.received_bytes > self.pump.limits.establish_bytes_max
        })
    }

    /// Takes in what was read, message by message: compressed, a single read may hold more messages than
    /// there is room for answers, or time for. What is left is unread.
    fn take_in(&mut self, cx: &mut Context<'_>, mut data: &mut [u8], room: &mut usize, now: Instant) {
        if matches!(self.phase, Phase::Lingering { .. }) {
            return;
        }
        let batch = Batch::begin();
        let mut unasked = 0;
        for arrival in 1_usize.. {
            // What came in one message with others goes before what came after it.
            let proceeds = self.proceed(now);
            let taken = if proceeds {
                PROCEEDED_BYTES
            } else if let Some(whole) = self.transport.next_in_place(&mut data) {
                match whole {
                    Ok((kind, octets)) => {
                        let taken = octets.len();
                        if !self.take_in_place(kind, octets, now) {
                            let octets = Bytes::copy_from_slice(octets);
                            self.take_arrival(Arrival::Message(kind, octets), now);
                        }
                        taken
                    }
                    Err(close) => {
                        self.fail(close, now);
                        break;
                    }
                }
            } else {
                match self.transport.next(&mut data, self.is_established()) {
                    Ok(Some(Arrival::Message(kind, octets))) => {
                        let taken = octets.len();
                        if !self.take_in_place(kind, &octets, now) {
                            self.take_arrival(Arrival::Message(kind, octets), now);
                        }
                        taken
                    }
                    Ok(Some(arrival)) => {
                        let taken = arrival.bytes();
                        self.take_arrival(arrival, now);
                        taken
                    }
                    Ok(None) => break,
                    Err(close) => {
                        self.fail(close, now);
                        break;
                    }
                }
            };
            let taken = taken + ARRIVAL_BYTES;
            (unasked, *room) = (unasked + taken, room.saturating_sub(taken));
            let is_asked = self.work.authorizing.is_some();
            let is_full = self.work.owed_bytes > self.pump.limits.owed_bytes_max;
            let is_over_time = arrival % ARRIVALS_UNTIMED == 0 && executor::is_over_time();
            // Of several in one it is asked after each: they may be long.
            if proceeds || unasked >= UNASKED_BYTES_MAX || is_full || is_asked || is_over_time || *room == 0 {
                unasked = 0;
                if is_asked || is_over_time || *room == 0 || self.is_sated(cx, now) {
                    self.work.unread = data.to_vec();
                    break;
                }
            }
        }
        self.conclude();
        drop(batch);
        self.watch_completeness(now);
    }

    /// Nothing more comes of what was read together.
    fn conclude(&mut self) {
        if let Some(session) = &mut self.session {
            session.conclude();
        }
    }

    /// The next of several messages that came as one; false if there is none.
    fn proceed(&mut self, now: Instant) -> bool {
        let proceeded = self.session.as_mut().is_some_and(|session| session.proceed(now));
        if proceeded {
            metrics::MESSAGES_IN.add(1);
            self.drain_session(now);
        }
        proceeded
    }

    /// Takes a message that needs no memory of its own, as most do; false if it does, and nothing was done.
    fn take_in_place(&mut self, kind: Kind, octets: &[u8], now: Instant) -> bool {
        let is_taken =
            self.session.as_mut().is_some_and(|session| session.receive_in_place(kind, octets, now));
        if is_taken {
            metrics::MESSAGES_IN.add(1);
            self.work.incomplete_since = None;
        }
        is_taken
    }

    fn take_arrival(&mut self, arrival: Arrival, now: Instant) {
        match arrival {
            // Nothing may follow our own goodbye.
            Arrival::Ping(data) if matches!(self.phase, Phase::Open) => self.keep_ping(data),
            Arrival::Ping(_) | Arrival::Pong => {}
            Arrival::Close => self.peer_closes(now),
            Arrival::Message(kind, bytes) => {
                metrics::MESSAGES_IN.add(1);
                // Whatever is incomplete now began after this.
                self.work.incomplete_since = None;
                if bytes.len() >= LONG_BYTES {
                    executor::at_length();
                }
                if let Some(session) = &mut self.session {
                    session.receive(kind, bytes, now);
                }
                self.drain_session(now);
            }
        }
    }

    fn keep_ping(&mut self, data: Bytes) {
        // The newest are answered for those before them (RFC 6455, 5.5.3).
        let mut bytes: usize = self.work.pings.iter().map(Bytes::len).sum::<usize>() + data.len();
        while self.work.pings.len() >= PONGS_MAX || (bytes > PONGS_BYTES_MAX && !self.work.pings.is_empty()) {
            bytes -= self.work.pings.remove(0).len();
        }
        self.work.pings.push(data);
    }

    fn peer_closes(&mut self, now: Instant) {
        match self.phase {
            // Answered by the same goodbye, after what was said before.
            Phase::Open => {
                self.drop_unfinished();
                self.end_session(Close::new(Reason::Done, "the peer closed"), now);
            }
            Phase::AwaitingClose => self.linger(now),
            Phase::Closing(_) | Phase::Lingering { .. } => {}
        }
    }

    /// A peer that closed takes in nothing more: a long message that is under way need not be finished first
    /// (RFC 6455, 5.5.1), and without its end there is no place for others.
    fn drop_unfinished(&mut self) {
        if !self.work.fragments.is_empty() {
            self.work.fragments = Bytes::new();
            self.work.owed.clear();
            self.work.owed_bytes = 0;
        }
    }

    // ---- time ----------------------------------------------------------------------------------------

    /// After a read that brought so many messages: the one that is not whole yet began in it, unless it
    /// brought none.
    fn watch_completeness(&mut self, now: Instant) {
        self.work.incomplete_since =
            if self.transport.is_incomplete() { self.work.incomplete_since.or(Some(now)) } else { None };
    }

    /// While the wire is blocked, looks after the mailbox.
    fn watch_slowness(&mut self, cx: &mut Context<'_>, blocked: bool, now: Instant) {
        if !blocked || self.session.is_none() {
            self.work.slow_since = None;
            return;
        }
        if self.inbox.poll_ended(cx) {
            self.work.batch.clear();
            let mut last = VecDeque::new();
            // The farewell that ended it is all that the inbox holds now.
            if self.inbox.poll_take(cx, &mut last).is_ready() {
                for parcel in last {
                    if let Some(session) = &mut self.session {
                        session.deliver(parcel, now);
                    }
                }
                self.drain_session(now);
            }
        } else if self.inbox.over_soft_limit() {
            self.work.slow_since = self.work.slow_since.or(Some(now));
        } else {
            self.work.slow_since = None;
        }
    }

    fn run_timers(&mut self, now: Instant) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            let due = session.deadline().is_some_and(|deadline| deadline <= now);
            if due {
                session.tick(now);
                self.drain_session(now);
            }
        }
        let pump = self.pump.clone();
        let limits = &pump.limits;
        let passed = |since: Instant, time: Duration| now >= since + time;
        match &self.phase {
            Phase::Open => {
                if self.stranger_time_is_up(now) {
                    let detail = "the session was not established in time";
                    self.fail(Close::new(Reason::Silent, detail), now);
                } else if self
                    .work
                    .incomplete_since
                    .is_some_and(|since| passed(since, limits.message_time_max))
                {
                    let detail = "a message did not arrive whole in time";
                    self.fail(Close::new(Reason::Silent, detail), now);
                } else if self.work.slow_since.is_some_and(|since| passed(since, limits.slow_time_max)) {
                    self.work.slow_since = None;
                    self.inbox.overflow();
                } else if self.stall_deadline().is_some_and(|deadline| deadline <= now) {
                    self.fail(Close::new(Reason::Silent, "the peer took nothing for too long"), now);
                }
                self.run_pings(now);
            }
            Phase::Closing(_) | Phase::AwaitingClose if passed(self.since, limits.close_time_max) => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Phase::Lingering { .. } if passed(self.since, limits.linger_time_max) => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            _ => {}
        }
        Ok(())
    }

    fn stranger_time_is_up(&self, now: Instant) -> bool {
        let opened = self.work.stranger.as_ref().map(|stranger| stranger.opened);
        opened.is_some_and(|opened| now >= opened + self.pump.limits.establish_time_max)
    }

    /// When a peer that takes nothing of what there is for it counts as gone, however much it says.
    fn stall_deadline(&self) -> Option<Instant> {
        let PumpLimits { ping_interval, pong_time_max, .. } = self.pump.limits;
        self.work.blocked_since.map(|since| since + ping_interval + pong_time_max)
    }

    fn run_pings(&mut self, now: Instant) {
        match self.is_pinged {
            true if now >= self.since + self.pump.limits.pong_time_max => {
                self.fail(Close::new(Reason::Silent, "the peer did not answer a ping"), now);
            }
            false if now >= self.since + self.pump.limits.ping_interval && self.session.is_some() => {
                let mut ping = Vec::new();
                // A ping behind what the wire does not take would ask nothing.
                if self.work.blocked_since.is_none() && self.transport.ping(&mut ping) {
                    (self.since, self.is_pinged) = (now, true);
                    // Between messages, or between the fragments of one: both are whole in the backlog.
                    self.work.backlog.push_back(ping.into());
                } else {
                    self.since = now;
                }
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Instant {
        let limits = &self.pump.limits;
        match self.phase {
            Phase::Open => {
                let session = self.session.as_ref();
                let ping = match self.is_pinged {
                    true => self.since + limits.pong_time_max,
                    false => self.since + limits.ping_interval,
                };
                [
                    session.and_then(|session| session.deadline()),
                    self.work.stranger.as_ref().map(|stranger| stranger.opened + limits.establish_time_max),
                    self.work.incomplete_since.map(|since| since + limits.message_time_max),
                    self.work.slow_since.map(|since| since + limits.slow_time_max),
                    self.work.paced_until,
                    self.stall_deadline(),
                    self.work.authorizing.as_ref().map(|(_, since)| *since + AUTHORIZE_TIME_MAX),
                ]
                .into_iter()
                .flatten()
                .fold(ping, Instant::min)
            }
            Phase::Closing(_) | Phase::AwaitingClose => self.since + limits.close_time_max,
            Phase::Lingering { .. } => self.since + limits.linger_time_max,
        }
    }

    /// Arms a timer, or an alarm if there is much time. Either may ring early, never late. True when it rings at once.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let (now, deadline) = (now(), self.deadline());
        if deadline > now + alarm::NEAR {
            self.timer = None;
            let alarms = &self.pump.alarms;
            let rings = self.alarm.as_ref().map(|alarm| alarms.time(alarm));
            if rings.is_none_or(|time| time <= now || time > deadline) {
                if let Some(alarm) = self.alarm.take() {
                    alarms.clear(alarm);
                }
                self.alarm = Some(alarms.set(deadline, cx.waker()));
            }
            return false;
        }
        let deadline = tokio::time::Instant::from_std(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// Gives back what an idle connection does not need.
    fn shrink(&mut self) {
        self.work.rest();
        if let Some(session) = &mut self.session {
            session.rest();
        }
    }
}

/// What writing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// There is nothing more.
    All,
    /// There may be more.
    Some,
}

/// What reading once came to.
enum Read {
    Some,
    End,
}

impl<W: Wire> Future for Connection<W> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        loop {
            if let Poll::Ready(result) = connection.turn(cx) {
                let peer = &connection.peer;
                match &result {
                    Ok(()) => tracing::debug!(%peer, "connection ended"),
                    Err(error) => tracing::debug!(%peer, %error, "connection broke"),
                }
                return Poll::Ready(result);
            }
            if !connection.poll_timer(cx) {
                return Poll::Pending;
            }
        }
    }
}

impl<W> Drop for Connection<W> {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            self.pump.alarms.clear(alarm);
        }
        metrics::CONNECTIONS.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::core::access::{Authenticating, Credentials};
    use crate::core::mailbox::{Bounds, Mailbox, Overflow, mailbox};
    use crate::core::message::Message;
    use crate::core::parcel::Farewell;

    /// Says everything twice.
    #[derive(Default)]
    struct Echo(VecDeque<Output>);

    impl Session for Echo {
        fn receive(&mut self, kind: Kind, bytes: Bytes, _now: Instant) {
            for _ in 0..2 {
                let message = Message::new(kind, bytes.clone());
                self.0.push_back(Output::Send(Frame::Own(message)));
            }
        }

        fn deliver(&mut self, _parcel: Parcel, now: Instant) {
            self.receive(Kind::Raw, Bytes::from_static(b"parcel"), now);
        }

        fn tick(&mut self, _now: Instant) {}

        fn pause(&mut self, _now: Instant) {}

        fn deadline(&self) -> Option<Instant> {
            None
        }

        fn poll(&mut self) -> Option<Output> {
            self.0.pop_front()
        }

        fn fail(&mut self, _reason: &str, _now: Instant) {}

        fn is_established(&self) -> bool {
            true
        }

        fn is_congested(&self, _waker: &Waker) -> bool {
            false
        }
    }

    struct Nobody;

    impl Authenticator for Nobody {
        fn anonymous(&self, _peer: &Peer) -> Option<crate::core::access::Principal> {
            None
        }

        fn authenticate(&self, _credentials: Credentials, _peer: &Peer) -> Authenticating {
            Box::pin(std::future::pending())
        }
    }

    fn connection<W: Wire>(wire: W) -> (Mailbox, Pin<Box<Connection<W>>>) {
        let bytes_max = 1 << 20;
        let bounds = Bounds { bytes_soft_max: bytes_max, bytes_max, overflow: Overflow::Disconnect };
        let (mailbox, inbox) = mailbox(bounds);
        let second = Duration::from_secs(1);
        let limits = PumpLimits {
            establish_time_max: second,
            establish_bytes_max: 1000,
            ping_interval: second,
            pong_time_max: second,
            message_time_max: second,
            slow_time_max: second,
            pace_time_max: second,
            close_time_max: second,
            linger_time_max: second,
            owed_bytes_max: 1 << 20,
        };
        let parts = Parts {
            wire,
            transport: Transport::Stream,
            session: Box::new(Echo::default()),
            inbox,
            peer: Peer::Local,
            authenticator: Arc::new(Nobody),
            pump: Pump::new(limits),
            stranger: None,
            opened: now(),
        };
        (mailbox, Box::pin(Connection::new(parts)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_holds_no_buffers() {
        let (ours, mut theirs) = duplex(100);
        let (mailbox, mut connection) = connection(ours);
        let poll = |connection: &mut Pin<Box<Connection<_>>>| {
            assert!(connection.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        };
        for _ in 0..100 {
            mailbox.push(Parcel::Farewell(Farewell::Shutdown));
        }
        theirs.write_all(&[b'x'; 100]).await.unwrap();
        poll(&mut connection);
        assert!(!connection.work.backlog.is_empty(), "there is more than the wire takes");
        let mut answers = [0; 2 * 100 + 2 * 6 * 100];
        let mut length = 0;
        while length < answers.len() {
            length += theirs.read(&mut answers[length..]).await.unwrap();
            poll(&mut connection);
        }
        assert!(connection.work.0.is_none(), "nothing is under way");
    }
}

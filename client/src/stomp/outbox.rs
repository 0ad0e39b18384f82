//! What the handles of a client ask of its session: in one line, in order, with a limit.
//!
//! What undoes something (an UNSUBSCRIBE, a NACK or an ABORT because something was dropped) waits for no room, as
//! nobody could: there is at most one for each thing that was dropped, and those have limits of their own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tandem_protocols::stomp::frame::{Frame, Headers, Version};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::buffer::Overflow;
use crate::buffer::{Pushed, Receiver, Sender, buffer};
use crate::error::Error;
use crate::event::ClientEvent;
use crate::stomp::settlement::{Arrived, Giveback};

/// What a request takes of the outbox besides its frame.
const REQUEST_BYTES: usize = 256;

/// How many events wait for somebody who reads them; then the oldest are dropped.
const EVENTS_MAX: usize = 64;

/// Where answers to calls go to. Brokers make it when it is first named, and subscribe us to it.
pub(super) const REPLY_TO: &str = "/temp-queue/tandem-client";

/// How a request turned out.
pub(super) type Reply<T = ()> = oneshot::Sender<Result<T, Error>>;

/// How to subscribe, as often as is needed.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// SUBSCRIBE without its receipt.
    pub frame: Frame,
    pub id: String,
    pub mode: tandem_protocols::stomp::state::AckMode,
    /// Whether the broker keeps everything while the connection is lost.
    pub is_kept: bool,
}

/// Something asked of the session.
#[derive(Debug)]
pub(super) enum Request {
    /// Send it, on this connection or else not at all; a reply asks for a receipt.
    Frame { frame: Frame, epoch: Option<u64>, reply: Option<Reply> },
    /// Send it, and say on which connection.
    Begin { frame: Frame, reply: Reply<u64> },
    /// Subscribe, now and after each reconnect.
    Subscribe { terms: Box<Terms>, sender: Sender<Result<Arrived, Error>>, reply: Reply },
    /// Unsubscribe, with more headers than the id.
    Unsubscribe { id: String, headers: Headers, reply: Option<Reply> },
    /// Send it, and wait for what comes with its `correlation-id`.
    Call { frame: Frame, number: u64, reply: Reply<Frame> },
    /// Nobody waits for that any more.
    Forget { number: u64 },
    /// Disconnect in order.
    Disconnect { reply: Reply },
}

impl Request {
    /// The connection that it is for, if it is for one.
    fn epoch(&self) -> Option<u64> {
        match self {
            Request::Frame { epoch, .. } => *epoch,
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        let frame = match self {
            Request::Frame { frame, .. } | Request::Begin { frame, .. } | Request::Call { frame, .. } => {
                frame
            }
            Request::Subscribe { terms, .. } => &terms.frame,
            Request::Unsubscribe { .. } | Request::Forget { .. } | Request::Disconnect { .. } => {
                return REQUEST_BYTES;
            }
        };
        REQUEST_BYTES + frame.headers.text_bytes() + frame.body.len()
    }
}

/// What a server said of itself.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub version: Version,
    pub headers: Headers,
}

/// The line, and what all handles and the session have in common.
pub(super) struct Outbox {
    line: Mutex<Line>,
    room: Arc<Semaphore>,
    bytes_max: u32,
    came: Notify,
    left: Notify,
    /// Odd while a connection is there.
    epoch: AtomicU64,
    numbers: AtomicU64,
    listeners: Mutex<Vec<Sender<ClientEvent>>>,
    greeting: Mutex<Option<Greeting>>,
    end: OnceLock<End>,
}

#[derive(Debug, Default)]
struct Line {
    requests: VecDeque<(Request, Option<OwnedSemaphorePermit>)>,
    is_left: bool,
}

/// Why nothing is taken any more.
#[derive(Clone, Debug)]
pub(super) enum End {
    Disconnected,
    GaveUp(Arc<Error>),
}

impl End {
    fn error(&self) -> Error {
        match self {
            End::Disconnected => Error::Disconnected,
            End::GaveUp(why) => Error::GaveUp(why.clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks leaves anything half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    /// One in which so many bytes may wait.
    pub(super) fn new(bytes_max: u32) -> Arc<Outbox> {
        let bytes_max = bytes_max.max(1);
        Arc::new(Outbox {
            line: Mutex::default(),
            room: Arc::new(Semaphore::new(bytes_max as usize)),
            bytes_max,
            came: Notify::new(),
            left: Notify::new(),
            epoch: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            listeners: Mutex::default(),
            greeting: Mutex::default(),
            end: OnceLock::new(),
        })
    }

    /// A number that nobody else of this client has.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Why a request that nobody answered was not.
    pub(super) fn lost(&self) -> Error {
        self.end.get().map_or(Error::ConnectionLost, End::error)
    }

    /// Waits for room, and takes a request if `wanted` still says so then. Cancelled, nothing has happened.
    pub(super) async fn enqueue_if(
        &self,
        request: Request,
        wanted: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        // A request that is longer than the line may be is alone in it.
        let bytes = u32::try_from(request.bytes()).unwrap_or(u32::MAX).min(self.bytes_max);
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| self.lost())?;
        if request.epoch().is_some_and(|epoch| epoch != self.epoch()) {
            return Err(Error::ConnectionLost);
        }
        let is_wanted = wanted()?;
        if is_wanted {
            self.push(request, Some(room));
        }
        Ok(is_wanted)
    }

    /// Waits for room, and takes a request.
    pub(super) async fn enqueue(&self, request: Request) -> Result<(), Error> {
        self.enqueue_if(request, || Ok(true)).await.map(|_| ())
    }

    /// Takes a request that undoes something.
    pub(super) fn undo(&self, request: Request) {
        self.push(request, None);
    }

    fn push(&self, request: Request, room: Option<OwnedSemaphorePermit>) {
        let mut line = lock(&self.line);
        // Under the lock: what comes after the end would stay for ever, and what is for a connection that was lost
        // until the next is there.
        let is_late = request.epoch().is_some_and(|epoch| epoch != self.epoch());
        if self.end.get().is_none() && !is_late {
            line.requests.push_back((request, room));
        }
        drop(line);
        self.came.notify_one();
    }

    /// No handle is left, or somebody wants to disconnect.
    pub(super) fn leave(&self) {
        lock(&self.line).is_left = true;
        self.came.notify_one();
        self.left.notify_one();
    }

    /// The next event is told, and all that come after.
    pub(super) fn listen(&self) -> Receiver<ClientEvent> {
        let (sender, receiver) = buffer(EVENTS_MAX, Overflow::DropOldest);
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| !listener.is_closed());
        if self.end.get().is_none() {
            listeners.push(sender);
        }
        receiver
    }

    /// What the server said of itself when it was last connected to.
    pub(super) fn greeting(&self) -> Option<Greeting> {
        lock(&self.greeting).clone()
    }
}

/// For the session.
impl Outbox {
    /// The first in the line.
    pub(super) fn next(&self) -> Option<Request> {
        lock(&self.line).requests.pop_front().map(|(request, _room)| request)
    }

    /// Whether nobody is going to ask for anything more.
    pub(super) fn is_left(&self) -> bool {
        lock(&self.line).is_left
    }

    /// Ready when something came since it was last awaited. May be cancelled.
    pub(super) async fn came(&self) {
        self.came.notified().await;
    }

    /// Ready when nobody is going to ask for anything more. May be cancelled.
    pub(super) async fn left(&self) {
        while !self.is_left() {
            self.left.notified().await;
        }
    }

    /// What a server says of itself.
    pub(super) fn greet(&self, greeting: Greeting) {
        *lock(&self.greeting) = Some(greeting);
    }

    /// A connection is there.
    pub(super) fn begin(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// It is lost, and with it what was only for it.
    pub(super) fn lose(&self) {
        let mut line = lock(&self.line);
        self.epoch.fetch_add(1, Ordering::AcqRel);
        let requests = std::mem::take(&mut line.requests);
        let (lost, kept): (VecDeque<_>, _) =
            requests.into_iter().partition(|(request, _)| request.epoch().is_some());
        line.requests = kept;
        drop(line);
        // Whoever waits for one of them is told by its being dropped.
        drop(lost);
    }

    /// Tells whoever listens.
    pub(super) fn tell(&self, event: &ClientEvent) {
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| !matches!(listener.push(event.clone()), Pushed::Closed(_)));
    }

    /// Takes nothing any more, and gives back what waits.
    pub(super) fn end(&self, end: End) -> Vec<Request> {
        let _ = self.end.set(end);
        self.room.close();
        let requests = std::mem::take(&mut lock(&self.line).requests);
        lock(&self.listeners).clear();
        requests.into_iter().map(|(request, _room)| request).collect()
    }
}

impl Giveback for Outbox {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn give_back(&self, frame: Frame, epoch: u64) {
        self.undo(Request::Frame { frame, epoch: Some(epoch), reply: None });
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("epoch", &self.epoch).field("end", &self.end).finish_non_exhaustive()
    }
}

/// Keeps the session alive: it ends when the last of these is dropped.
#[derive(Debug)]
pub(super) struct Alive(pub Arc<Outbox>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.leave();
    }
}

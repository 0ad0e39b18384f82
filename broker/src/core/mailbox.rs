//! What the house has for a session and its pump has not yet taken: bounded in bytes.
//!
//! Pushing never waits. What happens at the limit depends on what is pushed: an event is dropped or ends
//! the session, as the policy says; an invocation is refused, so that its caller hears of it at once; an
//! answer is never dropped, but ends the session at the hard limit; a delivery from a queue is bounded by
//! its consumer's credit and always fits.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::core::message::PUBLICATION_OVERHEAD;
use crate::core::parcel::{Farewell, Parcel};
use crate::metrics;

/// What to do with an event that a mailbox has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// End the session.
    Disconnect,
    /// Make room by dropping the oldest events.
    DropOldest,
    /// Drop the event.
    DropNewest,
}

/// The bounds of a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From here on invocations are refused, and a session may stay only for a short time.
    pub bytes_soft_max: usize,
    /// From here on events overflow.
    pub bytes_max: usize,
    /// What overflowing means.
    pub overflow: Overflow,
}

/// What became of a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the mailbox.
    Queued,
    /// It is not: there is no room.
    Full,
    /// It is not: nobody will look into this mailbox again.
    Closed,
}

/// The side of the house.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Shared>);

/// The side of the pump. Dropping it closes the mailbox.
#[derive(Debug)]
pub struct Inbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parcels: VecDeque<Parcel>,
    /// What the parcels cost, and those that the pump took but has not yet framed.
    bytes: usize,
    waker: Option<Waker>,
    ended: bool,
}

/// A new mailbox and its inbox.
pub fn mailbox(bounds: Bounds) -> (Mailbox, Inbox) {
    let shared = Arc::new(Shared { bounds, state: Mutex::default() });
    (Mailbox(shared.clone()), Inbox(shared))
}

impl Mailbox {
    /// Puts a parcel in, if the bounds allow it.
    pub fn push(&self, parcel: Parcel) -> Pushed {
        let Bounds { bytes_soft_max, bytes_max, overflow } = self.0.bounds;
        let cost = cost(&parcel);
        let mut state = self.0.state.lock();
        if state.ended {
            return Pushed::Closed;
        }
        match parcel {
            Parcel::Event { .. } if state.bytes + cost > bytes_max => {
                metrics::EVENTS_DROPPED.add(1);
                match overflow {
                    Overflow::Disconnect => return state.overflow(),
                    Overflow::DropNewest => return Pushed::Full,
                    Overflow::DropOldest => {
                        let excess = state.bytes + cost - bytes_max;
                        state.drop_oldest(excess);
                    }
                }
            }
            Parcel::Invocation(_) if state.bytes + cost > bytes_soft_max => return Pushed::Full,
            Parcel::Outcome(_) if state.bytes + cost > bytes_max => return state.overflow(),
            _ => {}
        }
        let crosses_soft_limit = state.bytes <= bytes_soft_max && state.bytes + cost > bytes_soft_max;
        let was_empty = state.parcels.is_empty();
        state.bytes += cost;
        state.parcels.push_back(parcel);
        if was_empty || crosses_soft_limit {
            state.wake();
        }
        Pushed::Queued
    }

    /// Ends the session as if an event had found no room.
    pub fn overflow(&self) {
        let mut state = self.0.state.lock();
        if !state.ended {
            state.overflow();
        }
    }

    /// True when nobody will look into this mailbox again.
    pub fn is_closed(&self) -> bool {
        self.0.state.lock().ended
    }
}

impl State {
    /// Empties the mailbox, at once and for good; the session is left with the reason.
    fn overflow(&mut self) -> Pushed {
        metrics::SLOW_CONSUMERS.add(1);
        self.parcels = VecDeque::from([Parcel::Farewell(Farewell::SlowConsumer)]);
        self.ended = true;
        self.wake();
        Pushed::Closed
    }

    fn drop_oldest(&mut self, mut excess: usize) {
        let State { parcels, bytes, .. } = self;
        parcels.retain(|parcel| {
            let goes = excess > 0 && matches!(parcel, Parcel::Event { .. });
            if goes {
                excess = excess.saturating_sub(cost(parcel));
                *bytes -= cost(parcel);
            }
            !goes
        });
    }

    fn register(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            wake_after_batch(waker);
        }
    }
}

impl Inbox {
    /// Moves all parcels into `batch`, which must be empty. Pending when there are none.
    pub fn poll_take(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Parcel>) -> Poll<()> {
        let mut state = self.0.state.lock();
        if state.parcels.is_empty() {
            state.register(cx.waker());
            return Poll::Pending;
        }
        std::mem::swap(&mut state.parcels, batch);
        Poll::Ready(())
    }

    /// For a pump that cannot take more now: wakes it when the session is to end, and when it has lain
    /// over the soft limit. True when the session is to end.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let mut state = self.0.state.lock();
        state.register(cx.waker());
        state.ended
    }

    /// Says that parcels of this cost, which [`Inbox::poll_take`] handed out, hold no memory any more.
    pub fn settled(&mut self, bytes: usize) {
        if bytes > 0 {
            let mut state = self.0.state.lock();
            state.bytes = state.bytes.saturating_sub(bytes);
        }
    }

    /// True when more is waiting than a session may leave unread for long. Where events are dropped instead,
    /// a full mailbox is no reason to end it.
    pub fn over_soft_limit(&self) -> bool {
        let Bounds { bytes_soft_max, overflow, .. } = self.0.bounds;
        overflow == Overflow::Disconnect && self.0.state.lock().bytes > bytes_soft_max
    }

    /// Ends the session as if an event had found no room.
    pub fn overflow(&mut self) {
        Mailbox(self.0.clone()).overflow();
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let parcels = {
            let mut state = self.0.state.lock();
            state.ended = true;
            state.waker = None;
            std::mem::take(&mut state.parcels)
        };
        // Outside of the lock: dropping a parcel may run others' code.
        drop(parcels);
    }
}

/// What a parcel costs the mailbox that it lies in, in bytes.
pub fn cost(parcel: &Parcel) -> usize {
    match parcel {
        Parcel::Event { publication, .. } => publication.cost(),
        Parcel::Delivery(delivery) => delivery.publication.cost(),
        Parcel::Invocation(invocation) => {
            invocation.payload.len() + invocation.attributes.bytes() + PUBLICATION_OVERHEAD
        }
        Parcel::Outcome(outcome) => {
            PUBLICATION_OVERHEAD
                + match &outcome.result {
                    Ok(answer) => answer.payload.len() + answer.attributes.bytes(),
                    Err(failure) => failure.payload.len() + failure.attributes.bytes(),
                }
        }
        Parcel::Interrupt { .. } | Parcel::Authenticated(_) | Parcel::Farewell(_) => 64,
    }
}

thread_local! {
    /// The wakers of a batch under way on this thread, if one is.
    static BATCH: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
}

/// While this lives, mailboxes that are pushed to from this thread wake their pumps only at its end. One
/// read may hold many messages to the same receivers: they are then written at once, not one by one.
#[derive(Debug)]
pub struct Batch(());

impl Batch {
    /// Begins a batch. Batches do not nest: the outermost counts.
    pub fn begin() -> Option<Batch> {
        BATCH.with_borrow_mut(|batch| {
            if batch.is_some() {
                return None;
            }
            *batch = Some(Vec::new());
            Some(Batch(()))
        })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let wakers = BATCH.take().unwrap_or_default();
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn wake_after_batch(waker: Waker) {
    let now = BATCH.with_borrow_mut(|batch| match batch {
        Some(wakers) => {
            wakers.push(waker);
            None
        }
        None => Some(waker),
    });
    if let Some(waker) = now {
        waker.wake();
    }
}

//! What the house has for a session and its pump has not yet taken: bounded in bytes.
//!
//! Pushing never waits. What happens at the limit depends on what is pushed: an event is dropped or ends
//! the session, as the policy says; an invocation is refused, so that its caller hears of it at once; an
//! answer is never dropped, but ends the session at the hard limit; a delivery from a queue is bounded by
//! its consumer's credit and always fits, and so does word from the store, which is bounded by what waits there.
//!
//! What is taken out is in the order in which it came as long as there is little of it. When there is more, senders
//! take turns, fairly by bytes ([`Flows`]); what one of them sends stays in order ([`Parcel::flow`]). It is sorted when it
//! is taken, so that pushing costs nothing for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use crate::core::budget::Waiters;
use crate::core::bundle::Bundle;
use crate::core::flows::Flows;
use crate::core::message::PUBLICATION_OVERHEAD;
use crate::core::parcel::{Farewell, Flow, Parcel, SubscriptionId};
use crate::core::spare::Spare;
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

/// Who is served first when much is waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// Senders take turns.
    #[default]
    Fair,
    /// First come, first served. To measure what fairness gives and costs.
    InOrder,
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
    terms: Arc<Terms>,
    state: Mutex<State>,
}

/// What holds for a mailbox, and for many others.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What it holds.
    pub bounds: Bounds,
    /// Who is served first.
    pub service: Service,
}

#[derive(Debug, Default)]
struct State {
    /// What came last, in order: all there is, unless some was sorted.
    parcels: VecDeque<Parcel>,
    /// What the parcels cost, and those that the pump took but has not yet framed.
    bytes: usize,
    waker: Option<Waker>,
    /// None while all is well.
    strain: Option<Box<Strain>>,
}

const _: () =
    assert!(size_of::<Shared>() <= 80, "every idle connection has one, and two counts of who knows it");

/// What a mailbox has only while much is in it, and one that was ended.
#[derive(Debug, Default)]
struct Strain {
    /// What came before, by sender. Only while there is more than a pump takes at once.
    flows: Option<Flows<Flow, Parcel>>,
    /// Publishers that wait until there is room again, and how many bytes may be left for the first of them to go on.
    waiters: Option<(Waiters, usize)>,
    ended: bool,
}

/// What is dropped at once where the oldest events go is no more than this part of what may wait: a bundle that is more
/// would go whole where room for one event is wanted.
const DROPPED_PART: usize = 64;

/// How much a pump takes at once: about one write.
const TAKEN_BYTES: usize = 64 * 1024;

/// A new mailbox and its inbox.
pub fn mailbox(bounds: Bounds) -> (Mailbox, Inbox) {
    mailbox_served(bounds, Service::Fair)
}

/// The same, with a choice of who is served first.
pub fn mailbox_served(bounds: Bounds, service: Service) -> (Mailbox, Inbox) {
    mailbox_under(Arc::new(Terms { bounds, service }))
}

/// The same, on terms that it shares with others: every idle connection has a mailbox.
pub fn mailbox_under(terms: Arc<Terms>) -> (Mailbox, Inbox) {
    let shared = Arc::new(Shared { terms, state: Mutex::default() });
    (Mailbox(shared.clone()), Inbox(shared))
}

impl Mailbox {
    /// Puts a parcel in, if the bounds allow it.
    pub fn push(&self, parcel: Parcel) -> Pushed {
        self.push_and_look(parcel).0
    }

    /// The same, and says how many bytes wait if publishers should wait for that.
    pub fn push_and_look(&self, parcel: Parcel) -> (Pushed, Option<usize>) {
        let Bounds { bytes_soft_max, bytes_max, overflow } = self.0.terms.bounds;
        let cost = cost(&parcel);
        let mut state = self.0.state.lock();
        if state.is_ended() {
            return (Pushed::Closed, None);
        }
        match parcel {
            Parcel::Event { .. } if state.bytes + cost > bytes_max => match overflow {
                Overflow::Disconnect => {
                    metrics::EVENTS_DROPPED.add(1);
                    return (overflow_now(state), None);
                }
                Overflow::DropOldest if state.drop_oldest(bytes_max.saturating_sub(cost)) => {}
                // What is in the way cannot be dropped: then the oldest event is this one.
                Overflow::DropOldest | Overflow::DropNewest => {
                    metrics::EVENTS_DROPPED.add(1);
                    return (Pushed::Full, None);
                }
            },
            Parcel::Notice(_) if state.bytes + cost > bytes_max => {
                metrics::NOTICES_DROPPED.add(1);
                return (Pushed::Full, None);
            }
            Parcel::Invocation(_) if state.bytes + cost > bytes_soft_max => return (Pushed::Full, None),
            Parcel::Outcome(_) | Parcel::Retained { .. } if state.bytes + cost > bytes_max => {
                return (overflow_now(state), None);
            }
            Parcel::Event { .. }
            | Parcel::Events { .. }
            | Parcel::Retained { .. }
            | Parcel::Delivery(_)
            | Parcel::Invocation(_)
            | Parcel::SubscriptionRevoked { .. }
            | Parcel::Exhausted { .. }
            | Parcel::Interrupt { .. }
            | Parcel::RegistrationRevoked { .. }
            | Parcel::Outcome(_)
            | Parcel::Authenticated(_)
            | Parcel::Notice(_)
            | Parcel::Authorized(_)
            | Parcel::RulesChanged
            | Parcel::LookedUp(_)
            | Parcel::Stored { .. }
            | Parcel::Farewell(_) => {}
        }
        (Pushed::Queued, self.0.put(state, parcel, cost))
    }

    /// Puts several events in, as if one by one. Says how many it took, and how many bytes wait if publishers should wait
    /// for that.
    pub fn push_events(&self, bundle: &Arc<Bundle>, subscription: SubscriptionId) -> (usize, Option<usize>) {
        let state = self.0.state.lock();
        let count = bundle.count();
        let Bounds { bytes_max, overflow, .. } = self.0.terms.bounds;
        let may_go_whole = overflow != Overflow::DropOldest || bundle.cost() <= bytes_max / DROPPED_PART;
        if !state.is_ended() && may_go_whole && state.bytes + bundle.cost() <= bytes_max {
            let parcel = Parcel::Events { bundle: bundle.clone(), subscription };
            return (count, self.0.put(state, parcel, bundle.cost()));
        }
        drop(state);
        let (mut taken, mut behind) = (0, None);
        for publication in bundle.singles() {
            let event = Parcel::Event { publication, subscription };
            let (pushed, now_behind) = self.push_and_look(event);
            taken += usize::from(pushed == Pushed::Queued);
            behind = now_behind;
        }
        (taken, behind)
    }

    /// What waits in it, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.state.lock().bytes
    }

    /// Ends the session as if an event had found no room.
    pub fn overflow(&self) {
        let state = self.0.state.lock();
        if !state.is_ended() {
            overflow_now(state);
        }
    }

    /// Ends the session at once and for good: what it had not taken is dropped.
    pub fn end(&self, farewell: Farewell) -> Pushed {
        let state = self.0.state.lock();
        if state.is_ended() {
            return Pushed::Closed;
        }
        end_now(state, farewell);
        Pushed::Queued
    }

    /// True when nobody will look into this mailbox again.
    pub fn is_closed(&self) -> bool {
        self.0.state.lock().is_ended()
    }

    /// True until half of what may wait for long is left; `waker` is woken then, or when the mailbox is closed.
    pub fn waits_for_room(&self, waker: &Waker) -> bool {
        self.waits_until(self.0.terms.bounds.bytes_soft_max / 2, waker)
    }

    /// True until half of what may wait at all is left; `waker` is woken then, or when the mailbox is closed.
    pub fn waits_for_relief(&self, waker: &Waker) -> bool {
        self.waits_until(self.0.terms.bounds.bytes_max / 2, waker)
    }

    fn waits_until(&self, bytes: usize, waker: &Waker) -> bool {
        let mut state = self.0.state.lock();
        let waits = !state.is_ended() && state.bytes > bytes;
        if waits {
            let (waiters, most) = state.strain.get_or_insert_default().waiters.get_or_insert_default();
            *most = bytes.max(*most);
            waiters.add(waker);
        }
        waits
    }

    /// Whether so many bytes are nearly all that may wait.
    pub fn is_nearly_full(&self, bytes: usize) -> bool {
        bytes > nearly(self.0.terms.bounds.bytes_max)
    }

    /// True when more is waiting than a session may leave unread for long. Where events are dropped instead,
    /// a full mailbox is no reason to end it.
    pub fn is_over_soft_limit(&self) -> bool {
        self.0.is_over_soft_limit()
    }
}

/// Nearly so much.
fn nearly(bytes: usize) -> usize {
    bytes / 4 * 3
}

impl Shared {
    /// Puts in what there is room for, and says how many bytes wait if publishers should wait for that.
    fn put(&self, mut state: MutexGuard<'_, State>, parcel: Parcel, cost: usize) -> Option<usize> {
        let Bounds { bytes_soft_max, overflow, .. } = self.terms.bounds;
        let crosses_soft_limit = state.bytes <= bytes_soft_max && state.bytes + cost > bytes_soft_max;
        let was_empty = state.is_empty();
        state.bytes += cost;
        if state.parcels.capacity() == 0 {
            state.parcels = SPARE.with_borrow_mut(Spare::take).unwrap_or_default();
        }
        state.parcels.push_back(parcel);
        let waker = if was_empty || crosses_soft_limit { state.waker.take() } else { None };
        let is_behind = state.bytes > self.behind_bytes() && overflow == Overflow::Disconnect;
        let behind = is_behind.then_some(state.bytes);
        drop(state);
        wake_after_batch(waker);
        behind
    }

    /// Beyond so much publishers should wait: also where the soft limit is as high as the other, or higher.
    fn behind_bytes(&self) -> usize {
        let Bounds { bytes_soft_max, bytes_max, .. } = self.terms.bounds;
        bytes_soft_max.min(nearly(bytes_max))
    }

    fn is_over_soft_limit(&self) -> bool {
        let Bounds { bytes_soft_max, overflow, .. } = self.terms.bounds;
        let state = self.state.lock();
        overflow == Overflow::Disconnect && !state.is_ended() && state.bytes > bytes_soft_max
    }
}

fn overflow_now(state: MutexGuard<'_, State>) -> Pushed {
    metrics::SLOW_CONSUMERS.add(1);
    end_now(state, Farewell::SlowConsumer);
    Pushed::Closed
}

/// Empties the mailbox, at once and for good; the session is left with the reason.
fn end_now(mut state: MutexGuard<'_, State>, farewell: Farewell) {
    let farewell = VecDeque::from([Parcel::Farewell(farewell)]);
    let parcels = std::mem::replace(&mut state.parcels, farewell);
    let Strain { flows, waiters, .. } = state.end();
    let waker = state.waker.take();
    drop(state);
    wake_after_batch(waker);
    waiters.into_iter().for_each(|(waiters, _)| waiters.wake());
    // Outside of the lock: there may be megabytes of them.
    drop((parcels, flows));
}

impl State {
    fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.flows().is_none()
    }

    fn is_ended(&self) -> bool {
        self.strain.as_ref().is_some_and(|strain| strain.ended)
    }

    /// For good. Gives what there was to be given back outside of the lock.
    fn end(&mut self) -> Strain {
        let ended = Box::new(Strain { ended: true, ..Strain::default() });
        self.strain.replace(ended).map_or_else(Strain::default, |strain| *strain)
    }

    /// What was sorted, if anything was.
    fn flows(&self) -> Option<&Flows<Flow, Parcel>> {
        self.strain.as_ref()?.flows.as_ref()
    }

    fn flows_mut(&mut self) -> Option<&mut Flows<Flow, Parcel>> {
        self.strain.as_mut()?.flows.as_mut()
    }

    /// Gives back the memory that nothing needs any more.
    fn relax(&mut self) {
        if let Some(strain) = &mut self.strain {
            strain.flows.take_if(|flows| flows.is_empty());
        }
        self.strain.take_if(|strain| strain.flows.is_none() && strain.waiters.is_none() && !strain.ended);
    }

    /// Those who wait, if there is room for the first of them. The others wait anew.
    fn take_waiters(&mut self) -> Option<Waiters> {
        let bytes = self.bytes;
        let waiters = self.strain.as_mut()?.waiters.take_if(|(_, most)| bytes <= *most);
        self.relax();
        waiters.map(|(waiters, _)| waiters)
    }

    /// Takes out what is next.
    fn next(&mut self, service: Service) -> Option<Parcel> {
        if service == Service::Fair {
            // Up to the first that nothing may overtake: it comes when all before it did.
            while let Some(flow) = self.parcels.front().and_then(Parcel::flow)
                && let Some(parcel) = self.parcels.pop_front()
            {
                let strain = self.strain.get_or_insert_default();
                strain.flows.get_or_insert_default().push(flow, cost(&parcel), parcel);
            }
        }
        let Some(flows) = self.flows_mut() else { return self.parcels.pop_front() };
        let next = flows.pop().map(|(_, parcel)| parcel);
        self.relax();
        next
    }

    /// Drops the oldest events of who has most waiting until no more than `bytes_max` are left. False when that many
    /// cannot be dropped; then none is.
    fn drop_oldest(&mut self, bytes_max: usize) -> bool {
        if !self.has_droppable(self.bytes.saturating_sub(bytes_max)) {
            return false;
        }
        let mut place = 0;
        while self.bytes > bytes_max {
            let sorted = self.flows_mut().and_then(|flows| flows.evict(is_event));
            let dropped = sorted.map(|(_, parcel)| parcel).or_else(|| {
                // Mostly the first. Removing all at once would pass over the whole mailbox for each push.
                while self.parcels.get(place).is_some_and(|parcel| !is_event(parcel)) {
                    place += 1;
                }
                self.parcels.remove(place)
            });
            let Some(dropped) = dropped else { break };
            self.bytes -= cost(&dropped);
            metrics::EVENTS_DROPPED.add(events(&dropped) as i64);
        }
        self.relax();
        true
    }

    /// Whether there are events of so many bytes.
    fn has_droppable(&self, mut bytes: usize) -> bool {
        let sorted = self.flows().into_iter().flat_map(|flows| flows.iter());
        let mut events = sorted.chain(&self.parcels).filter(|parcel| is_event(parcel));
        while bytes > 0 {
            let Some(event) = events.next() else { return false };
            bytes = bytes.saturating_sub(cost(event));
        }
        true
    }

    fn register(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

impl Inbox {
    /// Moves parcels into `batch`, which must be empty: all of them, or the first 64 KiB. What is not taken
    /// is still the mailbox's to drop. Pending when there are none.
    pub fn poll_take(&mut self, cx: &mut Context<'_>, batch: &mut VecDeque<Parcel>) -> Poll<()> {
        let mut state = self.0.state.lock();
        if state.is_empty() {
            state.register(cx.waker());
            return Poll::Pending;
        }
        if state.bytes <= TAKEN_BYTES && state.flows().is_none() {
            // An idle mailbox keeps no room for parcels.
            let empty = std::mem::replace(batch, std::mem::take(&mut state.parcels));
            drop(state);
            give_back(empty);
            return Poll::Ready(());
        }
        let mut taken = 0;
        while taken < TAKEN_BYTES
            && let Some(parcel) = state.next(self.0.terms.service)
        {
            taken += cost(&parcel);
            batch.push_back(parcel);
        }
        if state.parcels.is_empty() {
            // It may have grown for many.
            state.parcels = VecDeque::new();
        }
        Poll::Ready(())
    }

    /// For a pump that cannot take more now: wakes it when the session is to end, and when it has lain
    /// over the soft limit. True when the session is to end.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let mut state = self.0.state.lock();
        state.register(cx.waker());
        state.is_ended()
    }

    /// Says that parcels of this cost, which [`Inbox::poll_take`] handed out, hold no memory any more.
    pub fn settled(&mut self, bytes: usize) {
        if bytes > 0 {
            let mut state = self.0.state.lock();
            state.bytes = state.bytes.saturating_sub(bytes);
            let waiters = state.take_waiters();
            drop(state);
            waiters.into_iter().for_each(Waiters::wake);
        }
    }

    /// As [`Mailbox::is_over_soft_limit`].
    pub fn over_soft_limit(&self) -> bool {
        self.0.is_over_soft_limit()
    }

    /// Ends the session as if an event had found no room.
    pub fn overflow(&mut self) {
        Mailbox(self.0.clone()).overflow();
    }

    /// Nobody looks into it any more: what there is, is dropped, and nothing is put in.
    pub fn close(&mut self) {
        let (parcels, Strain { flows, waiters, .. }) = {
            let mut state = self.0.state.lock();
            state.waker = None;
            (std::mem::take(&mut state.parcels), state.end())
        };
        waiters.into_iter().for_each(|(waiters, _)| waiters.wake());
        // Outside of the lock: dropping a parcel may run others' code.
        drop((parcels, flows));
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.close();
    }
}

fn is_event(parcel: &Parcel) -> bool {
    events(parcel) > 0
}

/// How many events a parcel is.
fn events(parcel: &Parcel) -> usize {
    match parcel {
        Parcel::Event { .. } => 1,
        Parcel::Events { bundle, .. } => bundle.count(),
        _ => 0,
    }
}

/// What a parcel costs the mailbox that it lies in, in bytes.
pub fn cost(parcel: &Parcel) -> usize {
    match parcel {
        Parcel::Event { publication, .. } => publication.cost(),
        Parcel::Events { bundle, .. } => bundle.cost(),
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
        Parcel::Notice(notice) => notice.cost(),
        // The message itself is kept by its topic in any case.
        Parcel::Retained { .. }
        | Parcel::SubscriptionRevoked { .. }
        | Parcel::Exhausted { .. }
        | Parcel::Interrupt { .. }
        | Parcel::RegistrationRevoked { .. }
        | Parcel::Authenticated(_)
        | Parcel::Authorized(_)
        | Parcel::RulesChanged
        | Parcel::LookedUp(_)
        | Parcel::Stored { .. }
        | Parcel::Farewell(_) => 64,
    }
}

/// A list for parcels that is larger than this is not kept.
const SPARE_PARCELS_MAX: usize = 128;

/// Keeps a list that [`Inbox::poll_take`] filled and that is empty again.
pub fn give_back(batch: VecDeque<Parcel>) {
    if batch.is_empty() && (1..=SPARE_PARCELS_MAX).contains(&batch.capacity()) {
        SPARE.with_borrow_mut(|spare| spare.give(batch));
    }
}

thread_local! {
    /// The wakers of a batch under way on this thread, if one is.
    static BATCH: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
    /// Lists of wakers that were woken.
    static WOKEN: RefCell<Spare<Vec<Waker>>> = const { RefCell::new(Spare::new()) };
    static SPARE: RefCell<Spare<VecDeque<Parcel>>> = const { RefCell::new(Spare::new()) };
}

/// A list for wakers that is larger than this is not kept.
const SPARE_WAKERS_MAX: usize = 4096;

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
            *batch = Some(WOKEN.with_borrow_mut(Spare::take).unwrap_or_default());
            Some(Batch(()))
        })
    }

    /// Whether one is under way on this thread.
    pub fn is_under_way() -> bool {
        BATCH.with_borrow(Option::is_some)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut wakers = BATCH.take().unwrap_or_default();
        wakers.drain(..).for_each(Waker::wake);
        if (1..=SPARE_WAKERS_MAX).contains(&wakers.capacity()) {
            WOKEN.with_borrow_mut(|woken| woken.give(wakers));
        }
    }
}

fn wake_after_batch(waker: Option<Waker>) {
    let Some(waker) = waker else { return };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::budget::Budget;
    use crate::core::bundle::{Due, Gathered};
    use crate::core::message::{Attributes, Publication, SessionId};
    use crate::core::name::{Name, Pattern};
    use crate::core::notice::{Notice, SubscriptionFacts};
    use crate::core::parcel::{
        Answer, ConsumerId, Delivery, Invocation, Outcome, RegistrationId, SubscriptionId,
    };
    use crate::core::testing::{self, Count, UNIT, name, payload};

    fn publication(id: u64) -> Arc<Publication> {
        testing::publication("a.b", id)
    }

    fn event(id: u64) -> Parcel {
        Parcel::Event { publication: publication(id), subscription: SubscriptionId(1) }
    }

    fn delivery(sequence: u64) -> Parcel {
        let publication = publication(sequence);
        Parcel::Delivery(Delivery {
            publication,
            consumer: ConsumerId(1),
            sequence,
            redeliveries: 0,
            from_topic: false,
        })
    }

    fn invocation() -> Parcel {
        Parcel::Invocation(Box::new(Invocation {
            id: 1,
            sender: SessionId(1),
            registration: RegistrationId(1),
            procedure: name("a.b"),
            by_pattern: false,
            caller: None,
            trust: None,
            payload: payload(),
            attributes: Attributes::default(),
            takes_progress: false,
            timeout: None,
            more_follows: false,
            continues: false,
        }))
    }

    fn outcome() -> Parcel {
        let result = Ok(Answer { payload: payload(), attributes: Attributes::default(), is_progress: false });
        Parcel::Outcome(Box::new(Outcome { call: 1, callee: SessionId(1), result }))
    }

    /// Room for four, two of them below the soft limit.
    fn of_four(overflow: Overflow) -> (Mailbox, Inbox) {
        mailbox(Bounds { bytes_soft_max: 2 * UNIT, bytes_max: 4 * UNIT, overflow })
    }

    fn take(inbox: &mut Inbox) -> Vec<Parcel> {
        let mut batch = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        let _ = inbox.poll_take(&mut context, &mut batch);
        batch.into()
    }

    fn events(parcels: &[Parcel]) -> Vec<u64> {
        let id = |parcel: &Parcel| match parcel {
            Parcel::Event { publication, .. } => Some(publication.id),
            _ => None,
        };
        parcels.iter().filter_map(id).collect()
    }

    #[test]
    fn every_class_of_parcel_costs_what_it_holds() {
        for parcel in [event(1), delivery(1), invocation(), outcome()] {
            assert_eq!(cost(&parcel), UNIT);
        }
    }

    #[test]
    fn what_was_pushed_is_taken_in_order() {
        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        for id in 1..=4 {
            assert_eq!(mailbox.push(event(id)), Pushed::Queued);
        }
        assert_eq!(events(&take(&mut inbox)), [1, 2, 3, 4]);
        assert!(take(&mut inbox).is_empty());
    }

    #[test]
    fn an_event_too_many_ends_the_session_at_once() {
        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        for id in 1..=4 {
            assert_eq!(mailbox.push(event(id)), Pushed::Queued);
        }
        assert_eq!(mailbox.push(event(5)), Pushed::Closed);
        assert!(mailbox.is_closed());
        assert_eq!(mailbox.push(outcome()), Pushed::Closed);
        let left = take(&mut inbox);
        assert!(matches!(left[..], [Parcel::Farewell(Farewell::SlowConsumer)]));
        assert!(take(&mut inbox).is_empty());
    }

    #[test]
    fn an_event_too_many_pushes_out_the_oldest_but_nothing_that_is_not_an_event() {
        let (mailbox, mut inbox) = of_four(Overflow::DropOldest);
        mailbox.push(delivery(1));
        for id in 1..=5 {
            assert_eq!(mailbox.push(event(id)), Pushed::Queued);
        }
        let left = take(&mut inbox);
        assert!(matches!(left[0], Parcel::Delivery(_)));
        assert_eq!(events(&left), [3, 4, 5]);
    }

    #[test]
    fn an_event_that_would_need_room_of_others_is_dropped_itself() {
        let (mailbox, mut inbox) = of_four(Overflow::DropOldest);
        mailbox.push(event(1));
        for sequence in 1..=5 {
            assert_eq!(mailbox.push(delivery(sequence)), Pushed::Queued, "within its consumer's credit");
        }
        assert_eq!(mailbox.push(event(2)), Pushed::Full);
        let left = take(&mut inbox);
        assert_eq!((left.len(), events(&left)), (6, vec![1]));
    }

    #[test]
    fn an_event_too_many_is_dropped_if_the_newest_are_to_go() {
        let (mailbox, mut inbox) = of_four(Overflow::DropNewest);
        for id in 1..=4 {
            assert_eq!(mailbox.push(event(id)), Pushed::Queued);
        }
        assert_eq!(mailbox.push(event(5)), Pushed::Full);
        assert_eq!(events(&take(&mut inbox)), [1, 2, 3, 4]);
        inbox.settled(UNIT);
        assert_eq!(mailbox.push(event(6)), Pushed::Queued);
    }

    fn bundle(ids: std::ops::RangeInclusive<u64>) -> Arc<Bundle> {
        bundle_charged(ids, &Budget::new(1 << 20))
    }

    fn bundle_charged(ids: std::ops::RangeInclusive<u64>, budget: &Arc<Budget>) -> Arc<Bundle> {
        let mut gathered = Gathered::default();
        let publication = |id| Arc::into_inner(publication(id)).unwrap();
        ids.for_each(|id| assert!(gathered.add(publication(id), None, budget).is_none()));
        match gathered.take(budget) {
            Some(Due::Several(bundle, None)) => bundle,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn events_that_are_taken_one_by_one_are_charged_once_however_many_mailboxes_hold_them() {
        let budget = Budget::new(1 << 20);
        let mailboxes: Vec<_> = (0..20).map(|_| of_four(Overflow::DropOldest)).collect();
        let bundle = bundle_charged(1..=5, &budget);
        for (mailbox, _) in &mailboxes {
            assert_eq!(mailbox.push_events(&bundle, SubscriptionId(1)), (5, None));
        }
        drop(bundle);
        assert_eq!(budget.bytes(), 4 * UNIT, "the slow must not hold up all who publish");
        drop(mailboxes);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn no_more_of_the_oldest_events_are_dropped_because_they_came_together() {
        let (mailbox, mut inbox) = of_four(Overflow::DropOldest);
        assert_eq!(mailbox.push_events(&bundle(1..=4), SubscriptionId(1)).0, 4);
        assert_eq!(mailbox.push(event(5)), Pushed::Queued);
        assert_eq!(events(&take(&mut inbox)), [2, 3, 4, 5]);
    }

    #[test]
    fn events_that_come_together_are_one_parcel_while_there_is_room_and_else_taken_one_by_one() {
        let subscription = SubscriptionId(1);
        let (mailbox, mut inbox) = of_four(Overflow::DropNewest);
        assert_eq!(mailbox.push_events(&bundle(1..=3), subscription), (3, None));
        assert_eq!(mailbox.push_events(&bundle(4..=6), subscription), (1, None));
        let taken = take(&mut inbox);
        assert!(matches!(&taken[0], Parcel::Events { bundle, .. } if bundle.count() == 3));
        assert_eq!(events(&taken), [4]);
        inbox.settled(taken.iter().map(cost).sum());
        assert_eq!(mailbox.bytes(), 0);

        let (mailbox, mut inbox) = of_four(Overflow::DropOldest);
        mailbox.push(event(1));
        assert_eq!(mailbox.push_events(&bundle(2..=3), subscription), (2, None));
        assert_eq!(mailbox.push_events(&bundle(4..=7), subscription), (4, None));
        assert_eq!(events(&take(&mut inbox)), [4, 5, 6, 7]);

        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        assert_eq!(mailbox.push_events(&bundle(1..=3), subscription), (3, Some(3 * UNIT)));
        assert_eq!(mailbox.push_events(&bundle(4..=6), subscription).0, 1, "and then the session ends");
        assert!(matches!(take(&mut inbox)[..], [Parcel::Farewell(Farewell::SlowConsumer)]));
        assert_eq!(mailbox.push_events(&bundle(7..=8), subscription), (0, None));
    }

    #[test]
    fn an_invocation_is_refused_from_the_soft_limit_on_and_taken_again_below_it() {
        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        assert_eq!(mailbox.push(invocation()), Pushed::Queued);
        assert_eq!(mailbox.push(invocation()), Pushed::Queued);
        assert_eq!(mailbox.push(invocation()), Pushed::Full);
        assert_eq!(mailbox.push(event(1)), Pushed::Queued);
        assert_eq!(take(&mut inbox).len(), 3);
        assert_eq!(mailbox.push(invocation()), Pushed::Full, "what was taken is not yet written");
        inbox.settled(3 * UNIT);
        assert_eq!(mailbox.push(invocation()), Pushed::Queued);
    }

    #[test]
    fn an_answer_without_room_ends_the_session_whatever_the_policy_for_events_is() {
        for overflow in [Overflow::Disconnect, Overflow::DropOldest, Overflow::DropNewest] {
            let (mailbox, mut inbox) = of_four(overflow);
            for _ in 1..=4 {
                assert_eq!(mailbox.push(outcome()), Pushed::Queued);
            }
            assert_eq!(mailbox.push(outcome()), Pushed::Closed);
            assert!(matches!(take(&mut inbox)[..], [Parcel::Farewell(Farewell::SlowConsumer)]));
        }
    }

    #[test]
    fn a_delivery_an_interrupt_and_a_farewell_always_fit() {
        let (mailbox, _inbox) = of_four(Overflow::DropNewest);
        (1..=4).for_each(|id| assert_eq!(mailbox.push(event(id)), Pushed::Queued));
        assert_eq!(mailbox.push(delivery(1)), Pushed::Queued);
        let interrupt = Parcel::Interrupt { invocation: 1, caller: SessionId(1), is_awaited: false };
        assert_eq!(mailbox.push(interrupt), Pushed::Queued);
        assert_eq!(mailbox.push(Parcel::Farewell(Farewell::Shutdown)), Pushed::Queued);
    }

    #[test]
    fn who_is_ended_finds_only_why_and_is_ended_once() {
        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        mailbox.push(outcome());
        let (count, waker) = Count::new();
        assert!(!inbox.poll_ended(&mut Context::from_waker(&waker)));
        assert_eq!(mailbox.end(Farewell::Shutdown), Pushed::Queued);
        assert_eq!(count.get(), 1);
        assert_eq!(mailbox.end(Farewell::SlowConsumer), Pushed::Closed);
        assert_eq!(mailbox.push(outcome()), Pushed::Closed);
        assert!(matches!(take(&mut inbox)[..], [Parcel::Farewell(Farewell::Shutdown)]));
    }

    #[test]
    fn a_notice_without_room_is_dropped_whatever_the_policy_for_events_is() {
        let notice = |n: usize| {
            let name = Name::parse(&"n".repeat(n)).unwrap();
            let facts =
                SubscriptionFacts { id: SubscriptionId(1), pattern: Pattern::exact(name), created_ms: 0 };
            Parcel::Notice(Box::new(Notice::SubscriptionCreated(SessionId(1), facts)))
        };
        assert_eq!(cost(&notice(372)), UNIT / 2);
        for overflow in [Overflow::Disconnect, Overflow::DropOldest, Overflow::DropNewest] {
            let (mailbox, mut inbox) = of_four(overflow);
            (0..8).for_each(|_| assert_eq!(mailbox.push(notice(372)), Pushed::Queued));
            assert_eq!(mailbox.push(notice(1)), Pushed::Full);
            assert_eq!(take(&mut inbox).len(), 8);
            inbox.settled(UNIT);
            assert_eq!(mailbox.push(notice(1)), Pushed::Queued);
        }
    }

    #[test]
    fn only_the_first_parcel_and_the_one_that_crosses_the_soft_limit_wake() {
        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        let (count, waker) = Count::new();
        let mut context = Context::from_waker(&waker);
        let mut batch = VecDeque::new();
        assert!(inbox.poll_take(&mut context, &mut batch).is_pending());
        mailbox.push(event(1));
        assert_eq!(count.get(), 1);
        // A pump that cannot write: it only wants to hear of trouble.
        assert!(!inbox.poll_ended(&mut context));
        mailbox.push(event(2));
        assert_eq!(count.get(), 1);
        assert!(!inbox.over_soft_limit());
        mailbox.push(event(3));
        assert_eq!(count.get(), 2);
        assert!(inbox.over_soft_limit());
        assert!(!inbox.poll_ended(&mut context));
        mailbox.push(event(4));
        assert_eq!(count.get(), 2);
        mailbox.push(event(5));
        assert_eq!(count.get(), 3, "the session is to end");
        assert!(inbox.poll_ended(&mut context));
    }

    #[test]
    fn a_pump_that_is_busy_is_not_woken() {
        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        let (count, waker) = Count::new();
        mailbox.push(event(1));
        let mut batch = VecDeque::new();
        assert!(inbox.poll_take(&mut Context::from_waker(&waker), &mut batch).is_ready());
        mailbox.push(event(2));
        assert_eq!(count.get(), 0, "it has not said that it waits");
        batch.clear();
        assert!(inbox.poll_take(&mut Context::from_waker(&waker), &mut batch).is_ready());
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn a_batch_wakes_at_its_end_and_batches_do_not_nest() {
        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        let (count, waker) = Count::new();
        assert!(inbox.poll_take(&mut Context::from_waker(&waker), &mut VecDeque::new()).is_pending());
        let batch = Batch::begin();
        assert!(batch.is_some());
        let inner = Batch::begin();
        assert!(inner.is_none());
        mailbox.push(event(1));
        drop(inner);
        mailbox.push(event(2));
        assert_eq!(count.get(), 0);
        drop(batch);
        assert_eq!(count.get(), 1);
        assert!(Batch::begin().is_some());
    }

    #[test]
    fn a_batch_that_ends_in_a_panic_still_wakes() {
        let (mailbox, mut inbox) = of_four(Overflow::Disconnect);
        let (count, waker) = Count::new();
        assert!(inbox.poll_take(&mut Context::from_waker(&waker), &mut VecDeque::new()).is_pending());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _batch = Batch::begin();
            mailbox.push(event(1));
            panic!("in a batch");
        }));
        assert!(result.is_err());
        assert_eq!(count.get(), 1);
        assert!(Batch::begin().is_some());
    }

    #[test]
    fn dropping_the_inbox_closes_the_mailbox_and_lets_go_of_what_is_in_it() {
        let (mailbox, inbox) = of_four(Overflow::Disconnect);
        let publication = publication(1);
        let subscription = SubscriptionId(1);
        mailbox.push(Parcel::Event { publication: publication.clone(), subscription });
        assert_eq!(Arc::strong_count(&publication), 2);
        drop(inbox);
        assert_eq!(Arc::strong_count(&publication), 1);
        assert!(mailbox.is_closed());
        assert_eq!(mailbox.push(event(2)), Pushed::Closed);
        mailbox.overflow();
    }

    #[test]
    fn a_pump_takes_about_one_write_and_the_rest_can_still_be_dropped() {
        let bounds =
            Bounds { bytes_soft_max: 200 * UNIT, bytes_max: 200 * UNIT, overflow: Overflow::DropOldest };
        let (mailbox, mut inbox) = mailbox(bounds);
        (1..=200).for_each(|id| assert_eq!(mailbox.push(event(id)), Pushed::Queued));
        let first = events(&take(&mut inbox));
        assert_eq!(first, (1..=first.len() as u64).collect::<Vec<_>>());
        assert!((TAKEN_BYTES..TAKEN_BYTES + UNIT).contains(&(first.len() * UNIT)));
        assert_eq!(mailbox.push(event(201)), Pushed::Queued);
        let second = events(&take(&mut inbox));
        assert_eq!(second[0], first.len() as u64 + 2, "one was pushed out");
    }

    #[test]
    fn a_full_mailbox_drops_the_oldest_without_passing_over_all_of_them() {
        let count = 20_000;
        let bounds =
            Bounds { bytes_soft_max: count * UNIT, bytes_max: count * UNIT, overflow: Overflow::DropOldest };
        let (mailbox, mut inbox) = mailbox(bounds);
        let publication = publication(1);
        // With a pass over all for each this would take minutes.
        for _ in 0..count * 10 {
            let (publication, subscription) = (publication.clone(), SubscriptionId(1));
            assert_eq!(mailbox.push(Parcel::Event { publication, subscription }), Pushed::Queued);
        }
        let mut left = 0;
        loop {
            match take(&mut inbox).len() {
                0 => break,
                some => left += some,
            }
        }
        assert_eq!(left, count);
    }
}

//! Members of a realm that live in this process: they take parcels without a wire, and call procedures. And what
//! looks after its queues when no session does.
//!
//! [`attend`] is for them what the pump is for a connection. What a member does with a parcel must not wait.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::core::access::{Principal, Refusal};
use crate::core::calls::{CallTerms, CancelMode};
use crate::core::mailbox::{Batch, Bounds, Inbox, Overflow, cost, mailbox};
use crate::core::parcel::{Answer, Failure, Parcel};
use crate::core::queues::Queues;
use crate::core::realm::{Member, Outgoing, Realm};

/// What may wait for a member of this process. Its events are dropped when that is too much, and counted: it
/// does not leave.
pub const BOUNDS: Bounds =
    Bounds { bytes_soft_max: 16 << 20, bytes_max: 64 << 20, overflow: Overflow::DropNewest };

/// Calls of one caller at a time.
const CALLS_MAX: usize = 10_000;

/// Hands a member all that comes into its mailbox, until it is told to leave.
pub async fn attend(mut inbox: Inbox, mut receive: impl FnMut(Parcel)) {
    let mut parcels = VecDeque::new();
    loop {
        poll_fn(|cx| inbox.poll_take(cx, &mut parcels)).await;
        let mut taken = 0;
        {
            let _batch = Batch::begin();
            for parcel in parcels.drain(..) {
                taken += cost(&parcel);
                if let Parcel::Farewell(_) = parcel {
                    return;
                }
                receive(parcel);
            }
        }
        inbox.settled(taken);
        // A member that always has something to do is not to hold up the other tasks of its thread.
        tokio::task::yield_now().await;
    }
}

/// Waits until a member of this process may publish on: its realm has room, and most of those that it published to last
/// keep up. At most so long; then it may in any case. For those who publish much, before each publication.
pub async fn room_to_publish(member: &Member, time_max: Duration) {
    let deadline = Instant::now() + time_max;
    let mut sleep = pin!(tokio::time::sleep_until(deadline));
    poll_fn(|cx| {
        loop {
            let now = Instant::now();
            let until = match member.congested(cx.waker()) {
                true => Some(deadline),
                false => member.paced_until(cx.waker(), now.into_std(), time_max).map(Instant::from_std),
            };
            let Some(until) = until.filter(|_| now < deadline) else { return Poll::Ready(()) };
            sleep.as_mut().reset(until.min(deadline));
            ready!(sleep.as_mut().poll(cx));
        }
    })
    .await;
}

/// How long the queues of a realm are not looked at at most: so long a clock that is set may go unnoticed.
const QUEUES_UNWATCHED_MAX: Duration = Duration::from_secs(60);

/// Looks after the queues of a realm: what grows old, what was to come later, and who is unused for too long. It
/// ends when the realm says farewell, and until then holds the realm; it counts as no session.
pub fn tend(realm: &Arc<Realm>) -> Result<impl Future<Output = ()> + Send + use<>, Refusal> {
    let (mailbox, inbox) = mailbox(BOUNDS);
    let member = realm.join(Principal::house(), mailbox)?;
    let realm = realm.clone();
    Ok(async move {
        tokio::select! {
            () = attend(inbox, |_| {}) => {}
            () = tend_queues(realm.queues()) => {}
        }
        drop(member);
    })
}

/// Never ends.
async fn tend_queues(queues: &Queues) {
    let mut sleep = pin!(tokio::time::sleep(QUEUES_UNWATCHED_MAX));
    loop {
        poll_fn(|cx| {
            // Asked again whenever it is woken: there is an earlier deadline, or the clock may have come to it.
            let deadline_ms = queues.deadline_ms(cx.waker());
            let rest_ms = deadline_ms.map_or(u64::MAX, |at| at.saturating_sub(queues.now_ms()));
            if rest_ms == 0 {
                return Poll::Ready(());
            }
            let rest = Duration::from_millis(rest_ms).min(QUEUES_UNWATCHED_MAX);
            sleep.as_mut().reset(Instant::now() + rest);
            sleep.as_mut().poll(cx)
        })
        .await;
        {
            let _batch = Batch::begin();
            queues.tick();
        }
        // More may be due already: others have their turn first.
        tokio::task::yield_now().await;
    }
}

/// Calls procedures for the broker itself.
#[derive(Debug)]
pub struct LocalCaller {
    member: Member,
    last: AtomicU64,
    waiting: Arc<Mutex<Waiting>>,
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Answer, Failure>>>;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallFailed {
    /// The house refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The callee answered with an error, or left.
    #[error("the callee answered {}", .0.error)]
    Failed(Box<Failure>),
    /// The callee took too long.
    #[error("the callee took too long")]
    TimedOut,
    /// The broker shuts down.
    #[error("the broker shuts down")]
    Closed,
}

impl LocalCaller {
    /// Joins the realm as the house itself. The future must be spawned: it takes in the answers, and ends with
    /// the realm.
    pub fn join(
        realm: &Arc<Realm>,
    ) -> Result<(LocalCaller, impl Future<Output = ()> + Send + use<>), Refusal> {
        let (mailbox, inbox) = mailbox(BOUNDS);
        let member = realm.join(Principal::house(), mailbox)?;
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let answered = waiting.clone();
        let attending = attend(inbox, move |parcel| {
            if let Parcel::Outcome(outcome) = parcel {
                let waiter = answered.lock().remove(&outcome.call);
                if let Some(waiter) = waiter {
                    // Who waited may have given up meanwhile.
                    let _given_up = waiter.send(outcome.result);
                }
            }
        });
        Ok((LocalCaller { member, last: AtomicU64::new(0), waiting }, attending))
    }

    /// Calls a procedure, and waits for its one result.
    pub async fn call(&self, outgoing: Outgoing, time_max: Duration) -> Result<Answer, CallFailed> {
        let call = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= CALLS_MAX {
                return Err(Refusal::TooMany("calls of the broker itself", CALLS_MAX).into());
            }
            waiting.insert(call, sender);
        }
        let _forget = Forget { caller: self, call };
        self.member.call(call, outgoing, CallTerms::default())?;
        match tokio::time::timeout(time_max, receiver).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(failure))) => Err(CallFailed::Failed(Box::new(failure))),
            Ok(Err(_)) => Err(CallFailed::Closed),
            Err(_) => Err(CallFailed::TimedOut),
        }
    }
}

/// Undoes a call that is not waited for any more.
struct Forget<'a> {
    caller: &'a LocalCaller,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if self.caller.waiting.lock().remove(&self.call).is_some() {
            // Nothing is told of it: nobody waits any more.
            let _canceled = self.caller.member.cancel(self.call, CancelMode::KillNoWait);
        }
    }
}

#[cfg(test)]
mod tests {
    use tandem_protocols::payload::{Content, Payload};

    use super::*;
    use crate::core::message::Attributes;
    use crate::core::parcel::Farewell;
    use crate::core::testing::{LIMITS, exact, large_mailbox, name, principal, realm, take};

    fn to(text: &str) -> Outgoing {
        let payload = Payload::new(Content::Opaque("x".into()));
        Outgoing { name: name(text), payload, attributes: Attributes::default() }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_its_answer_or_when_its_time_is_over() {
        let realm = realm("test");
        let (caller, attending) = LocalCaller::join(&realm).unwrap();
        let attending = tokio::spawn(attending);
        let refused = caller.call(to("p"), SECOND).await;
        assert!(matches!(refused, Err(CallFailed::Refused(Refusal::NoSuchProcedure(_)))));

        let (mailbox, mut inbox) = large_mailbox();
        let mut callee = realm.join(principal("callee", "user"), mailbox).unwrap();
        callee.register(&exact("p")).unwrap();
        let timed_out = caller.call(to("p"), SECOND).await;
        assert!(matches!(timed_out, Err(CallFailed::TimedOut)));
        assert_eq!((realm.calls().pending(), caller.waiting.lock().len()), (0, 0));

        take(&mut inbox);
        let outgoing = to("p");
        let (answer, ()) = tokio::join!(caller.call(outgoing, SECOND), async {
            let payload = Payload::new(Content::Opaque("y".into()));
            let answer = Answer { payload, attributes: Attributes::default(), is_progress: false };
            callee.answer(2, Ok(answer));
        });
        let answer = answer.unwrap();
        assert!(matches!(answer.payload.content(), Content::Opaque(bytes) if bytes == "y"));

        realm.say_farewell(Farewell::Shutdown);
        attending.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_publishes_waits_for_who_reads_and_not_for_ever() {
        let realm = realm("test");
        let bounds = Bounds { bytes_soft_max: 10_000, bytes_max: 1 << 20, overflow: Overflow::Disconnect };
        let (own, _own_inbox) = large_mailbox();
        let publisher = realm.join(principal("publisher", "user"), own).unwrap();
        let (theirs, mut inbox) = mailbox(bounds);
        let mut subscriber = realm.join(principal("subscriber", "user"), theirs).unwrap();
        subscriber.subscribe(&exact("t")).unwrap();
        let publish = async |count: usize| {
            for _ in 0..count {
                room_to_publish(&publisher, SECOND).await;
                publisher.publish(to("t"), true).unwrap();
            }
        };
        let began = Instant::now();
        publish(20).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        // Nobody reads: it waits once, in vain.
        publish(180).await;
        assert!((SECOND..SECOND + SECOND / 10).contains(&began.elapsed()));
        assert_eq!(take(&mut inbox).len(), 200);
        // Somebody reads.
        let began = Instant::now();
        let reading = async {
            let mut seen = 0;
            while seen < 200 {
                tokio::time::sleep(SECOND / 10).await;
                seen += take(&mut inbox).len();
            }
        };
        tokio::join!(publish(200), reading);
        assert!(began.elapsed() < SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn queues_are_looked_after_when_something_is_due_and_not_before() {
        use crate::core::history::WallClock;
        use crate::core::message::Handling;
        use crate::core::queues::Credit;
        use crate::core::realm::{Memory, SendTerms};

        let start = Instant::now();
        let clock: WallClock = Arc::new(move || start.elapsed().as_millis() as u64);
        let memory = Memory { clock: Some(clock), ..Memory::default() };
        let realm = Realm::with_memory("test", LIMITS, Arc::new(rand::random::<u64>), memory);
        let tending = tokio::spawn(tend(&realm).unwrap());
        let (mailbox, mut inbox) = large_mailbox();
        let mut member = realm.join(principal("joe", "user"), mailbox).unwrap();
        member.consume(&name("q"), Credit { messages: 9, bytes: 999 }).unwrap();
        let after = |seconds: u64| {
            let handling = Handling { delay_ms: Some(1000 * seconds), ..Handling::default() };
            SendTerms { handling: Some(Arc::new(handling)), ..SendTerms::default() }
        };
        // Also later than it sleeps at most, and an earlier one after a later one.
        for seconds in [200, 10, 20] {
            member.send_under(to("q"), after(seconds)).unwrap();
        }
        for (seconds, count) in [(9_u32, 0), (1, 1), (9, 0), (1, 1), (179, 0), (1, 1)] {
            tokio::time::sleep(seconds * SECOND).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(take(&mut inbox).len(), count, "after {seconds} more");
        }
        tending.abort();
    }
}

//! Runs connections. Each is a task, and those that are woken together are run one after the other by one worker of the
//! runtime: another is woken only where there is work for longer.
//!
//! As tasks of the runtime they would do as well, but it wakes a worker for whatever becomes ready second. Where messages
//! come one at a time, to ten subscribers each, workers then spend more on waking each other than a connection spends
//! on its message, and who waits for a worker that slept is late: `docs/performance.md` has figures. Under load all
//! workers are awake, and each runs what it ran before.
//!
//! A runner is a task of the runtime, of which there are as many as workers. It has a queue of those who are ready, takes
//! from others' when its own is empty, and after some turns lets the runtime have its own. What is woken comes into the
//! queue of the runner that ran it last, except where that one
//!
//! - sleeps, and a task woke it whose runner is not busy for longer: then it comes to the runner of that task;
//! - is awake for long, or has many ready: what the runtime wakes then comes to one that sleeps;
//! - is in a turn that takes long ([`at_length`]): then it comes to another.
//!
//! A runner that is busy for longer wakes another, which takes half of what is ready.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::{ControlFlow, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use async_task::{Runnable, ScheduleInfo, WithInfo};
use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use tokio::task::{unconstrained, yield_now};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Turns of tasks, and time, after which the runtime gets its turn: sockets are looked at, and others wake up who help.
const TURNS_MAX: u32 = 32;
const TIME_MAX: Duration = Duration::from_micros(500);

/// Turns between two looks at the clock, unless one says that it took long.
const TURNS_UNTIMED: u32 = 4;

/// A runner that was woken so long ago, or has so many waiting, is one that others help.
const ALONE_TIME_MAX: Duration = Duration::from_micros(500);
const ALONE_READY_MAX: usize = 32;

/// A turn that looks at the clock ends when it has taken so long.
const TURN_TIME_MAX: Duration = Duration::from_millis(2);

/// A queue with room for more is made smaller when it is empty.
const SPARE_READY_MAX: usize = 1024;

thread_local! {
    /// The runner that this thread runs.
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Runs tasks for as long as it is there, and then those that are left.
pub struct Executor(Arc<Shared>);

struct Shared {
    runners: Box<[Runner]>,
    started: Instant,
    /// Where the next task begins.
    next: AtomicU32,
    living: Mutex<Living>,
}

/// All tasks that have not ended.
#[derive(Default)]
struct Living {
    wakers: Slab<Waker>,
    /// There will be no more.
    is_last: bool,
}

/// A queue that is in no cache line of another.
#[derive(Default)]
#[repr(align(128))]
struct Runner {
    queue: Mutex<Queue>,
    /// As the queue says; for those who only choose.
    is_asleep: AtomicBool,
    ready: AtomicU32,
    /// In a turn that takes long.
    is_away: AtomicBool,
    /// Microseconds since the start.
    woken_us: AtomicU64,
}

#[derive(Default)]
struct Queue {
    /// Each task once at most.
    ready: VecDeque<Runnable<Seat>>,
    /// While the runner sleeps.
    waker: Option<Waker>,
    /// Nothing is run any more.
    is_closed: bool,
}

/// What is known of a task beside it.
struct Seat {
    shared: Arc<Shared>,
    /// Who ran it last.
    runner: AtomicU32,
}

struct Current {
    shared: Arc<Shared>,
    runner: usize,
    /// Since when it has had the worker.
    began: Instant,
    /// It has work for longer.
    is_busy: bool,
    /// It woke another.
    has_woken: Cell<bool>,
}

impl Executor {
    /// For the runtime that this is called in.
    pub fn start() -> Executor {
        let runners = tokio::runtime::Handle::current().metrics().num_workers();
        let shared = Arc::new(Shared {
            runners: (0..runners).map(|_| Runner::default()).collect(),
            started: Instant::now(),
            next: AtomicU32::new(0),
            living: Mutex::default(),
        });
        for own in 0..runners {
            // Tasks have bounds of their own for a turn; the runtime's, for all turns together, would stop them halfway.
            tokio::spawn(unconstrained(run(Closing(shared.clone()), own)));
        }
        Executor(shared)
    }

    /// Runs a task to its end, as one of those that are tracked. It lies in a box of its own.
    pub fn spawn<F>(&self, tracker: &TaskTracker, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let shared = self.0.clone();
        let runner =
            AtomicU32::new(shared.next.fetch_add(1, Ordering::Relaxed) % number(shared.runners.len()));
        let mut living = shared.living.lock();
        let place = living.wakers.vacant_entry();
        let task = Task {
            future: Some(Box::pin(future)),
            key: u32::try_from(place.key()).expect("there are fewer connections"),
            shared: shared.clone(),
            _token: tracker.token(),
        };
        let seat = Seat { shared: shared.clone(), runner };
        let (runnable, handle) =
            async_task::Builder::new().metadata(seat).spawn(|_| task, WithInfo(schedule));
        place.insert(runnable.waker());
        drop(living);
        handle.detach();
        runnable.schedule();
        if shared.is_closed() {
            shared.close();
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.0.living.lock().is_last = true;
        if self.0.is_closed() {
            self.0.close();
        } else {
            self.0.end_if_over();
        }
    }
}

/// A task while it lives.
struct Task<F> {
    /// Until it ended.
    future: Option<Pin<Box<F>>>,
    shared: Arc<Shared>,
    key: u32,
    _token: TaskTrackerToken,
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(future) = &mut self.future {
            let _output = ready!(future.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        // What panics while it is dropped would end the process here.
        let future = self.future.take();
        let _panic = catch_unwind(AssertUnwindSafe(|| drop(future)));
        let _waker = self.shared.living.lock().wakers.try_remove(self.key as usize);
        self.shared.end_if_over();
    }
}

/// Says that the turn that runs here will take long: what else is ready is run elsewhere meanwhile.
pub fn at_length() {
    CURRENT.with_borrow(|current| {
        let Some(Current { shared, runner, .. }) = current else { return };
        let queue = shared.runners[*runner].queue.lock();
        shared.runners[*runner].is_away.store(true, Ordering::Relaxed);
        let ready = queue.ready.len();
        drop(queue);
        if ready > 0 {
            shared.call_for_help(*runner);
        }
    });
}

/// Looks at the clock: true where the turn that runs here has taken so long that it is to end. Until then it is one that
/// takes long.
pub fn is_over_time() -> bool {
    let is_over = CURRENT.with_borrow(|current| {
        current.as_ref().is_some_and(|current| current.began.elapsed() >= TURN_TIME_MAX)
    });
    if is_over {
        at_length();
    }
    is_over
}

/// Puts a task that was woken into a queue.
fn schedule(task: Runnable<Seat>, info: ScheduleInfo) {
    let left = CURRENT.with_borrow(|current| match current {
        Some(current) if Arc::ptr_eq(&current.shared, &task.metadata().shared) => {
            // Who goes on stays where it is.
            let stays = info.woken_while_running;
            let runner =
                if stays { current.runner } else { current.shared.choose_inside(task.metadata(), current) };
            current.shared.push(runner, task, stays);
            None
        }
        _ => Some(task),
    });
    let Some(task) = left else { return };
    let shared = task.metadata().shared.clone();
    shared.push(shared.choose_outside(task.metadata()), task, false);
}

impl Shared {
    /// Where a task goes that was woken by one that runs.
    fn choose_inside(&self, seat: &Seat, current: &Current) -> usize {
        let last = seat.runner.load(Ordering::Relaxed) as usize;
        let stays = current.is_busy || !self.runners[last].is_asleep.load(Ordering::Relaxed);
        self.unless_away(if stays { last } else { current.runner })
    }

    /// Where a task goes that was woken by the runtime, or by a thread of others.
    fn choose_outside(&self, seat: &Seat) -> usize {
        let last = seat.runner.load(Ordering::Relaxed) as usize;
        let is_awake = !self.runners[last].is_asleep.load(Ordering::Relaxed);
        let needs_help = is_awake && self.needs_help(&self.runners[last]);
        self.unless_away(if needs_help { self.sleeping_beside(last).unwrap_or(last) } else { last })
    }

    /// This runner, or, where it is in a turn that takes long, another.
    fn unless_away(&self, runner: usize) -> usize {
        let is_here = |runner: usize| !self.runners[runner].is_away.load(Ordering::Relaxed);
        if is_here(runner) {
            return runner;
        }
        let other =
            self.sleeping_beside(runner).or_else(|| self.beside(runner).find(|other| is_here(*other)));
        other.unwrap_or(runner)
    }

    /// All other runners, the next one first.
    fn beside(&self, own: usize) -> impl Iterator<Item = usize> {
        let count = self.runners.len();
        (own + 1..count).chain(0..own)
    }

    fn sleeping_beside(&self, own: usize) -> Option<usize> {
        self.beside(own).find(|other| self.runners[*other].is_asleep.load(Ordering::Relaxed))
    }

    fn needs_help(&self, runner: &Runner) -> bool {
        let awake_us = self.now_us().saturating_sub(runner.woken_us.load(Ordering::Relaxed));
        Duration::from_micros(awake_us) > ALONE_TIME_MAX
            || runner.ready.load(Ordering::Relaxed) as usize > ALONE_READY_MAX
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn push(&self, runner: usize, task: Runnable<Seat>, goes_on: bool) {
        let Runner { queue, is_away, .. } = &self.runners[runner];
        let mut queue = queue.lock();
        queue.ready.push_back(task);
        if queue.is_closed {
            // It is dropped by who closes: not here, where somebody wakes it who may hold what it needs for that.
            return;
        }
        self.runners[runner].note(&queue);
        let waits_long = !goes_on && is_away.load(Ordering::Relaxed);
        self.wake(runner, queue);
        if waits_long {
            self.call_for_help(runner);
        }
    }

    /// Wakes a runner, if it sleeps.
    fn wake(&self, runner: usize, mut queue: MutexGuard<'_, Queue>) -> bool {
        let Some(waker) = queue.waker.take() else { return false };
        let Runner { is_asleep, woken_us, .. } = &self.runners[runner];
        woken_us.store(self.now_us(), Ordering::Relaxed);
        is_asleep.store(false, Ordering::Relaxed);
        drop(queue);
        let is_in_long_turn = CURRENT.with_borrow(|current| {
            current.as_ref().is_some_and(|current| {
                current.has_woken.set(true);
                current.shared.runners[current.runner].is_away.load(Ordering::Relaxed)
            })
        });
        if is_in_long_turn {
            // What a task wakes the runtime keeps for the worker that runs it, where no other gets it before it is done.
            tokio::task::spawn_blocking(|| waker.wake());
        } else {
            waker.wake();
        }
        true
    }

    /// The next task of a runner; one of another's, if it has none.
    fn take(&self, own: usize) -> Option<Runnable<Seat>> {
        let runner = &self.runners[own];
        let mut queue = runner.queue.lock();
        if queue.is_closed {
            return None;
        }
        if let Some(task) = queue.ready.pop_front() {
            runner.note(&queue);
            return Some(task);
        }
        if queue.ready.capacity() > SPARE_READY_MAX {
            queue.ready = VecDeque::new();
        }
        drop(queue);
        let mut taken = self.take_from_another(own)?;
        let task = taken.pop_front();
        let mut queue = runner.queue.lock();
        queue.ready.append(&mut taken);
        runner.note(&queue);
        task
    }

    /// The first half of what another runner has.
    fn take_from_another(&self, own: usize) -> Option<VecDeque<Runnable<Seat>>> {
        let others = self.beside(own).map(|other| &self.runners[other]);
        others.filter(|other| other.ready.load(Ordering::Relaxed) > 0).find_map(|other| {
            let mut queue = other.queue.lock();
            let half = queue.ready.len().div_ceil(2);
            let taken: VecDeque<_> = queue.ready.drain(..half).collect();
            other.note(&queue);
            (!taken.is_empty()).then_some(taken)
        })
    }

    /// Runs what is ready. Breaks when nothing is any more; goes on when it is the runtime's turn.
    fn work(&self, own: usize, began: Instant) -> ControlFlow<()> {
        for turn in 1..=TURNS_MAX {
            let Some(task) = self.take(own) else { return ControlFlow::Break(()) };
            task.metadata().runner.store(number(own), Ordering::Relaxed);
            // Who panics has said so, and was dropped: it disturbs nobody else.
            let _panic = catch_unwind(AssertUnwindSafe(|| task.run()));
            let was_long = self.runners[own].is_away.load(Ordering::Relaxed);
            self.runners[own].is_away.store(false, Ordering::Relaxed);
            if (was_long || turn % TURNS_UNTIMED == 0) && began.elapsed() > TIME_MAX {
                break;
            }
        }
        ControlFlow::Continue(())
    }

    /// Wakes a runner that sleeps, to take a part of what this one has; false where none does.
    fn call_for_help(&self, own: usize) -> bool {
        self.sleeping_beside(own).is_some_and(|other| self.wake(other, self.runners[other].queue.lock()))
    }

    /// Sleeps until a runner is woken, if nothing is ready. False when nothing ever will be again.
    async fn sleep(&self, own: usize) -> bool {
        let mut has_slept = false;
        poll_fn(|cx| {
            let runner = &self.runners[own];
            let mut queue = runner.queue.lock();
            if queue.is_closed {
                return Poll::Ready(false);
            }
            let is_woken = has_slept && queue.waker.is_none();
            if is_woken || !queue.ready.is_empty() {
                return Poll::Ready(true);
            }
            has_slept = true;
            queue.waker = Some(cx.waker().clone());
            runner.is_asleep.store(true, Ordering::Relaxed);
            Poll::Pending
        })
        .await
    }

    fn end_if_over(&self) {
        let living = self.living.lock();
        let is_over = living.is_last && living.wakers.is_empty();
        drop(living);
        if is_over {
            self.close();
        }
    }

    fn is_closed(&self) -> bool {
        self.runners[0].queue.lock().is_closed
    }

    /// Nothing is taken from queues any more: what is left is dropped. Who is in its turn, or about to be, is when the
    /// runner ends.
    fn close(&self) {
        for (number, runner) in self.runners.iter().enumerate() {
            let mut queue = runner.queue.lock();
            queue.is_closed = true;
            self.wake(number, queue);
        }
        loop {
            let wakers: Vec<_> = self.living.lock().wakers.iter().map(|(_, waker)| waker.clone()).collect();
            wakers.into_iter().for_each(Waker::wake);
            let queues = self.runners.iter().map(|runner| std::mem::take(&mut runner.queue.lock().ready));
            let left: Vec<_> = queues.flatten().collect();
            if left.is_empty() {
                return;
            }
            drop(left);
        }
    }
}

impl Runner {
    fn note(&self, queue: &Queue) {
        self.ready.store(number(queue.ready.len()), Ordering::Relaxed);
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A runner.
async fn run(closing: Closing, own: usize) {
    let shared = &closing.0;
    while shared.sleep(own).await {
        let (mut is_busy, mut has_stepped_back) = (false, false);
        loop {
            let began = Instant::now();
            let running = Running::enter(shared, own, began, is_busy);
            if running.work(own, began).is_break() {
                break;
            }
            is_busy = true;
            // One is only what goes on by itself.
            if shared.runners[own].ready.load(Ordering::Relaxed) > 1 {
                running.call_for_help(own);
            }
            // Not twice: what yields to all others waits until this worker has nothing that is ready.
            has_stepped_back = running.has_woken() && !has_stepped_back;
            drop(running);
            if has_stepped_back {
                step_back().await;
            } else {
                yield_now().await;
            }
        }
    }
}

/// Leaves this worker to the runner that was woken, which the runtime keeps for it; another worker goes on here.
async fn step_back() {
    let mut is_back = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_back, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Closes when it is dropped: also where the runtime ends before its tasks do, and before a runner ran.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Says for as long as it is there that a runner runs here.
struct Running<'a>(&'a Shared);

impl Running<'_> {
    fn enter(shared: &Arc<Shared>, runner: usize, began: Instant, is_busy: bool) -> Running<'_> {
        let has_woken = Cell::new(false);
        CURRENT.set(Some(Current { shared: shared.clone(), runner, began, is_busy, has_woken }));
        Running(shared)
    }

    /// Whether the runner woke another.
    fn has_woken(&self) -> bool {
        CURRENT.with_borrow(|current| current.as_ref().is_some_and(|current| current.has_woken.get()))
    }
}

impl Deref for Running<'_> {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        self.0
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::Notify;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn workers(count: usize) -> Runtime {
        Builder::new_multi_thread().worker_threads(count).enable_all().build().unwrap()
    }

    async fn all_end(tracker: &TaskTracker) {
        tracker.close();
        tokio::time::timeout(PATIENCE, tracker.wait()).await.expect("all tasks end");
    }

    /// Counts those that were dropped.
    struct Dropped(Arc<AtomicUsize>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn tasks_that_wake_each_other_all_come_to_their_end() {
        for count in [1, 2, 4] {
            workers(count).block_on(async {
                let (executor, tracker) = (Executor::start(), TaskTracker::new());
                let ring: Arc<Vec<Notify>> = Arc::new((0..100).map(|_| Notify::new()).collect());
                for place in 0..ring.len() {
                    let ring = ring.clone();
                    executor.spawn(&tracker, async move {
                        for _ in 0..200 {
                            ring[place].notified().await;
                            ring[(place + 1) % ring.len()].notify_one();
                        }
                    });
                }
                // Where one is told twice before it looks it hears it once: they are told until all are done.
                let telling = async {
                    loop {
                        ring.iter().for_each(Notify::notify_one);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::select! {
                    () = all_end(&tracker) => {}
                    () = telling => {}
                }
            });
        }
    }

    #[tokio::test]
    async fn who_always_has_something_to_do_lets_timers_ring() {
        let (executor, tracker) = (Executor::start(), TaskTracker::new());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        executor.spawn(
            &tracker,
            poll_fn(move |cx| {
                cx.waker().wake_by_ref();
                if over.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
            }),
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
        is_over.store(true, Ordering::Relaxed);
        all_end(&tracker).await;
    }

    #[test]
    fn who_panics_disturbs_nobody() {
        workers(1).block_on(async {
            let (executor, tracker) = (Executor::start(), TaskTracker::new());
            let dropped = Arc::new(AtomicUsize::new(0));
            let lost = Dropped(dropped.clone());
            executor.spawn(&tracker, async move {
                let _lost = lost;
                panic!("as it should");
            });
            executor.spawn(&tracker, async {});
            all_end(&tracker).await;
            assert_eq!(dropped.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn what_is_ready_does_not_wait_for_a_turn_that_takes_long() {
        workers(2).block_on(async {
            let (executor, tracker) = (Executor::start(), TaskTracker::new());
            // Both are told by one that runs, so that both are ready at the same runner.
            let (first, second) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (say, hear) = mpsc::sync_channel(1);
            let (heard, is_heard) = tokio::sync::oneshot::channel();
            let waiting = first.clone();
            executor.spawn(&tracker, async move {
                waiting.notified().await;
                at_length();
                let _told = heard.send(hear.recv_timeout(PATIENCE));
            });
            let waiting = second.clone();
            executor.spawn(&tracker, async move {
                waiting.notified().await;
                say.send(()).expect("it is waited for");
            });
            // Time for both to begin to wait, which they may as well do later.
            tokio::time::sleep(Duration::from_millis(20)).await;
            executor.spawn(&tracker, async move {
                first.notify_one();
                second.notify_one();
            });
            assert_eq!(is_heard.await, Ok(Ok(())));
            all_end(&tracker).await;
        });
    }

    #[test]
    fn a_turn_is_over_when_it_has_taken_long() {
        assert!(!is_over_time(), "nothing runs here");
        workers(1).block_on(async {
            let (executor, tracker) = (Executor::start(), TaskTracker::new());
            let (say, hear) = tokio::sync::oneshot::channel();
            executor.spawn(&tracker, async move {
                std::thread::sleep(TURN_TIME_MAX);
                let _told = say.send(is_over_time());
            });
            assert_eq!(hear.await, Ok(true));
            all_end(&tracker).await;
        });
    }

    #[test]
    fn what_becomes_ready_in_a_turn_that_takes_long_is_run_elsewhere() {
        workers(2).block_on(async {
            let (executor, tracker) = (Executor::start(), TaskTracker::new());
            let told = Arc::new(Notify::new());
            let (say, hear) = mpsc::sync_channel(1);
            let waiting = told.clone();
            executor.spawn(&tracker, async move {
                waiting.notified().await;
                say.send(()).expect("it is waited for");
            });
            let (heard, is_heard) = tokio::sync::oneshot::channel();
            tokio::time::sleep(Duration::from_millis(20)).await;
            executor.spawn(&tracker, async move {
                at_length();
                told.notify_one();
                let _told = heard.send(hear.recv_timeout(PATIENCE));
            });
            assert_eq!(is_heard.await, Ok(Ok(())));
            all_end(&tracker).await;
        });
    }

    #[test]
    fn tasks_are_dropped_where_the_runtime_ends_before_them() {
        for _ in 0..50 {
            let runtime = workers(2);
            let dropped = Arc::new(AtomicUsize::new(0));
            let (executor, tracker) = runtime.block_on(async {
                let (executor, tracker) = (Executor::start(), TaskTracker::new());
                for _ in 0..100 {
                    let held = Dropped(dropped.clone());
                    executor.spawn(&tracker, async move {
                        let _held = held;
                        std::future::pending::<()>().await;
                    });
                }
                (executor, tracker)
            });
            drop(runtime);
            assert_eq!((dropped.load(Ordering::Relaxed), tracker.len()), (100, 0));
            drop(executor);
        }
    }

    /// When it is dropped, wakes another while it holds what both need for that.
    struct Entangled {
        held: Arc<Mutex<usize>>,
        other: Arc<Notify>,
    }

    impl Drop for Entangled {
        fn drop(&mut self) {
            let mut held = self.held.lock();
            *held += 1;
            self.other.notify_one();
        }
    }

    #[test]
    fn who_is_woken_at_the_end_is_not_dropped_where_it_is_woken() {
        let runtime = workers(2);
        let held = Arc::new(Mutex::new(0));
        let _executor = runtime.block_on(async {
            let (executor, tracker) = (Executor::start(), TaskTracker::new());
            let (one, two) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            for (own, other) in [(one.clone(), two.clone()), (two, one)] {
                let entangled = Entangled { held: held.clone(), other };
                executor.spawn(&tracker, async move {
                    let _entangled = entangled;
                    own.notified().await;
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            executor
        });
        drop(runtime);
        assert_eq!(*held.lock(), 2);
    }

    /// Panics when it is dropped.
    struct Explosive;

    impl Drop for Explosive {
        fn drop(&mut self) {
            panic!("as it should");
        }
    }

    #[test]
    fn who_panics_while_it_is_dropped_disturbs_nobody() {
        workers(1).block_on(async {
            let (executor, tracker) = (Executor::start(), TaskTracker::new());
            let explosive = Explosive;
            executor.spawn(
                &tracker,
                poll_fn(move |_| {
                    let _held = &explosive;
                    Poll::Ready(())
                }),
            );
            all_end(&tracker).await;
        });
    }

    #[test]
    fn tasks_outlive_their_executor_and_runners_end_with_the_last() {
        let runtime = workers(2);
        runtime.block_on(async {
            let tracker = TaskTracker::new();
            let go = Arc::new(Notify::new());
            let executor = Executor::start();
            for _ in 0..10 {
                let go = go.clone();
                executor.spawn(&tracker, async move { go.notified().await });
            }
            drop(executor);
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(tracker.len(), 10);
            (0..10).for_each(|_| {
                go.notify_one();
                go.notify_waiters();
            });
            all_end(&tracker).await;
            let over = async {
                while runtime.metrics().num_alive_tasks() > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(PATIENCE, over).await.expect("runners end");
        });
    }
}

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
//! - sleeps, and a task woke it that has not been running for long: then it comes to the runner of that task;
//! - is awake for long: what the runtime wakes then comes to one that sleeps, and so does half of what is ready;
//! - is in a turn that takes long ([`at_length`]): then it comes to any other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::{ControlFlow, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_task::Runnable;
use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use tokio::task::{unconstrained, yield_now};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Turns of tasks, and time, after which the runtime gets its turn: sockets are looked at, and others wake up who help.
const TURNS_MAX: u32 = 32;
const TIME_MAX: Duration = Duration::from_micros(500);

/// Turns between two looks at the clock.
const TURNS_UNTIMED: u32 = 4;

/// A runner that was woken so long ago, or has so many waiting, is one that others help.
const ALONE_TIME_MAX: Duration = Duration::from_micros(500);
const ALONE_READY_MAX: usize = 32;

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
    /// Wakes a task that does nothing. What a task wakes last the runtime keeps for the worker that it runs on, where no
    /// other gets it: woken after a runner, this one takes that place.
    placeholder: Mutex<Option<Waker>>,
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
    is_awake: AtomicBool,
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
    /// It has work for longer.
    is_busy: bool,
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
            placeholder: Mutex::default(),
        });
        tokio::spawn(hold_place(shared.clone()));
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
            future: Box::pin(future),
            key: u32::try_from(place.key()).expect("there are fewer connections"),
            shared: shared.clone(),
            _token: tracker.token(),
        };
        let seat = Seat { shared: shared.clone(), runner };
        let (runnable, handle) = async_task::Builder::new().metadata(seat).spawn(|_| task, schedule);
        place.insert(runnable.waker());
        drop(living);
        handle.detach();
        runnable.schedule();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.0.living.lock().is_last = true;
        self.0.end_if_over();
    }
}

/// A task while it lives.
struct Task<F> {
    future: Pin<Box<F>>,
    shared: Arc<Shared>,
    key: u32,
    _token: TaskTrackerToken,
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.future.as_mut().poll(cx).map(drop)
    }
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        let _waker = self.shared.living.lock().wakers.try_remove(self.key as usize);
        self.shared.end_if_over();
    }
}

/// Says that the turn that runs here will take long: what else is ready is run elsewhere meanwhile.
pub fn at_length() {
    CURRENT.with_borrow(|current| {
        let Some(Current { shared, runner, .. }) = current else { return };
        shared.runners[*runner].is_away.store(true, Ordering::Relaxed);
        shared.call_for_help(*runner);
    });
}

/// Puts a task that was woken into a queue.
fn schedule(task: Runnable<Seat>) {
    let left = CURRENT.with_borrow(|current| match current {
        Some(current) if Arc::ptr_eq(&current.shared, &task.metadata().shared) => {
            current.shared.push(current.shared.choose_inside(task.metadata(), current), task);
            None
        }
        _ => Some(task),
    });
    let Some(task) = left else { return };
    let shared = task.metadata().shared.clone();
    shared.push(shared.choose_outside(task.metadata()), task);
}

impl Shared {
    /// Where a task goes that was woken by one that runs.
    fn choose_inside(&self, seat: &Seat, current: &Current) -> usize {
        let last = seat.runner.load(Ordering::Relaxed) as usize;
        let stays = current.is_busy || self.runners[last].is_awake.load(Ordering::Relaxed);
        self.unless_away(if stays { last } else { current.runner })
    }

    /// Where a task goes that was woken by the runtime, or by a thread of others.
    fn choose_outside(&self, seat: &Seat) -> usize {
        let last = seat.runner.load(Ordering::Relaxed) as usize;
        let is_awake = self.runners[last].is_awake.load(Ordering::Relaxed);
        let needs_help = is_awake && self.needs_help(&self.runners[last]);
        self.unless_away(if needs_help { self.sleeping().unwrap_or(last) } else { last })
    }

    /// This runner, or one that comes to it earlier.
    fn unless_away(&self, runner: usize) -> usize {
        let is_here = |runner: &Runner| !runner.is_away.load(Ordering::Relaxed);
        if is_here(&self.runners[runner]) {
            return runner;
        }
        self.sleeping().or_else(|| self.runners.iter().position(is_here)).unwrap_or(runner)
    }

    fn needs_help(&self, runner: &Runner) -> bool {
        let awake_us = self.now_us().saturating_sub(runner.woken_us.load(Ordering::Relaxed));
        Duration::from_micros(awake_us) > ALONE_TIME_MAX
            || runner.ready.load(Ordering::Relaxed) as usize > ALONE_READY_MAX
    }

    fn sleeping(&self) -> Option<usize> {
        self.runners.iter().position(|runner| !runner.is_awake.load(Ordering::Relaxed))
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn push(&self, runner: usize, task: Runnable<Seat>) {
        let mut queue = self.runners[runner].queue.lock();
        if queue.is_closed {
            drop(queue);
            drop(task);
            return;
        }
        queue.ready.push_back(task);
        self.runners[runner].note(&queue);
        self.wake(runner, queue);
    }

    /// Wakes a runner, if it sleeps.
    fn wake(&self, runner: usize, mut queue: MutexGuard<'_, Queue>) {
        let Some(waker) = queue.waker.take() else { return };
        let Runner { is_awake, woken_us, .. } = &self.runners[runner];
        woken_us.store(self.now_us(), Ordering::Relaxed);
        is_awake.store(true, Ordering::Relaxed);
        drop(queue);
        waker.wake();
        if CURRENT.with_borrow(Option::is_some) {
            let placeholder = self.placeholder.lock();
            placeholder.as_ref().inspect(|waker| waker.wake_by_ref());
        }
    }

    /// The next task of a runner; one of another's, if it has none.
    fn take(&self, own: usize) -> Option<Runnable<Seat>> {
        let runner = &self.runners[own];
        let mut queue = runner.queue.lock();
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
        let (before, from) = self.runners.split_at(own);
        from.iter().skip(1).chain(before).filter(|other| other.ready.load(Ordering::Relaxed) > 0).find_map(
            |other| {
                let mut queue = other.queue.lock();
                let half = queue.ready.len().div_ceil(2);
                let taken: VecDeque<_> = queue.ready.drain(..half).collect();
                other.note(&queue);
                (!taken.is_empty()).then_some(taken)
            },
        )
    }

    /// Runs what is ready. Breaks when nothing is any more; goes on when it is the runtime's turn.
    fn work(&self, own: usize) -> ControlFlow<()> {
        let began = Instant::now();
        for turn in 1..=TURNS_MAX {
            let Some(task) = self.take(own) else { return ControlFlow::Break(()) };
            task.metadata().runner.store(number(own), Ordering::Relaxed);
            // Who panics has said so, and was dropped: it disturbs nobody else.
            let _panic = catch_unwind(AssertUnwindSafe(|| task.run()));
            self.runners[own].is_away.store(false, Ordering::Relaxed);
            if turn % TURNS_UNTIMED == 0 && began.elapsed() > TIME_MAX {
                break;
            }
        }
        ControlFlow::Continue(())
    }

    /// Wakes a runner that sleeps, to take a part of what this one has.
    fn call_for_help(&self, own: usize) {
        if self.runners[own].ready.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(other) = self.sleeping() {
            self.wake(other, self.runners[other].queue.lock());
        }
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
            runner.is_awake.store(false, Ordering::Relaxed);
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

    /// Nothing is run any more: what is left is dropped.
    fn close(&self) {
        let mut left = Vec::new();
        for (number, runner) in self.runners.iter().enumerate() {
            let mut queue = runner.queue.lock();
            queue.is_closed = true;
            left.extend(queue.ready.drain(..));
            self.wake(number, queue);
        }
        drop(left);
        // Who is woken now is dropped, as no queue takes it; who is in its turn, or about to be, when the runner ends.
        let wakers: Vec<_> = self.living.lock().wakers.iter().map(|(_, waker)| waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
        let placeholder = self.placeholder.lock().take();
        placeholder.into_iter().for_each(Waker::wake);
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
        let mut is_busy = false;
        loop {
            let running = Running::enter(shared, own, is_busy);
            if running.work(own).is_break() {
                break;
            }
            is_busy = true;
            running.call_for_help(own);
            drop(running);
            yield_now().await;
        }
    }
}

/// Does nothing, until all is over.
async fn hold_place(shared: Arc<Shared>) {
    poll_fn(|cx| {
        let mut placeholder = shared.placeholder.lock();
        if shared.runners[0].queue.lock().is_closed {
            return Poll::Ready(());
        }
        *placeholder = Some(cx.waker().clone());
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
    fn enter(shared: &Arc<Shared>, runner: usize, is_busy: bool) -> Running<'_> {
        CURRENT.set(Some(Current { shared: shared.clone(), runner, is_busy }));
        Running(shared)
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

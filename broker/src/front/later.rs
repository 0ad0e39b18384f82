//! Wakes several tasks at once.
//!
//! The runtime tells another of its threads of each task that is woken, and each then runs for the little that is there.
//! Tasks that were put off it wakes together, once it has run what else was ready: they find more, and one thread is told
//! once. That is for bursts; a lone message is not to wait.

use std::pin::pin;
use std::task::{Context, Waker};

/// Wakes the task when this thread has nothing else to do, or after some tens of other tasks; at once if it is none of
/// the runtime's.
pub fn wake(waker: Waker) {
    let yielded = pin!(tokio::task::yield_now());
    // It is the waker that yields: pending, as it is to be woken.
    let _ = yielded.poll(&mut Context::from_waker(&waker));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_is_no_thread_of_the_runtime_wakes_at_once() {
        let count = Arc::new(Count::default());
        wake(Waker::from(count.clone()));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn several_are_woken_when_the_task_rests() {
        let counts: [Arc<Count>; 3] = Default::default();
        let woken = counts.clone();
        let woken_meanwhile = tokio::spawn(async move {
            woken.iter().for_each(|count| wake(Waker::from(count.clone())));
            woken.iter().map(|count| count.0.load(Ordering::SeqCst)).sum::<usize>()
        });
        assert_eq!(woken_meanwhile.await.unwrap(), 0);
        let deadline = Instant::now() + Duration::from_secs(10);
        while counts.iter().any(|count| count.0.load(Ordering::SeqCst) == 0) {
            assert!(Instant::now() < deadline, "they are woken");
            tokio::task::yield_now().await;
        }
    }
}

//! What waits between a session and whoever reads one of its streams: never more than was agreed on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

/// What happens when a stream is not read as fast as it fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest that waits is dropped, and the next that is read says that something is missing.
    #[default]
    DropOldest,
    /// What does not fit is dropped, and the next that does says that something is missing.
    DropNewest,
    /// The session reads no more until there is room: nothing is lost, and everything else of the session waits as
    /// well, until the broker's limits for slow consumers end it.
    ///
    /// Everything else are the answers, too: whoever reads such a stream must not wait for one (a call, an acknowledged
    /// publication, a receipt) before it reads on, as that would come behind what there is no room for. It is to be waited
    /// for in another task, or with a time limit.
    Wait,
}

/// Something is missing before this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// So many were dropped here, because the stream was full.
    pub dropped: u64,
    /// The connection was lost in between, so that there is no telling how many there were.
    pub reconnected: bool,
}

impl Gap {
    /// Both, one after the other.
    #[must_use]
    pub fn and(self, later: Gap) -> Gap {
        Gap { dropped: self.dropped + later.dropped, reconnected: self.reconnected || later.reconnected }
    }

    fn is_none(&self) -> bool {
        *self == Gap::default()
    }
}

#[derive(Debug)]
struct Shared<T> {
    items: VecDeque<(Option<Gap>, T)>,
    /// Goes with the next that is put in.
    gap: Gap,
    capacity: usize,
    overflow: Overflow,
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The end of the session.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Mutex<Shared<T>>>);

/// The end of whoever reads.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Mutex<Shared<T>>>);

/// What became of something that was pushed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<T> {
    /// It waits, or another was dropped for it, or it was dropped itself, as the policy says.
    Done,
    /// There is no room, and nothing is to be dropped: try again after [`Sender::poll_room`].
    Full(T),
    /// Nobody reads any more.
    Closed(T),
}

/// A stream that holds up to `capacity`, which is at least one.
pub(crate) fn buffer<T>(capacity: usize, overflow: Overflow) -> (Sender<T>, Receiver<T>) {
    let shared = Shared {
        items: VecDeque::new(),
        gap: Gap::default(),
        capacity: capacity.max(1),
        overflow,
        is_closed: false,
        reader: None,
        writer: None,
    };
    let shared = Arc::new(Mutex::new(shared));
    (Sender(shared.clone()), Receiver(shared))
}

fn lock<T>(shared: &Mutex<Shared<T>>) -> MutexGuard<'_, Shared<T>> {
    // Nothing that is done under the lock leaves it half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Sender<T> {
    /// Puts something in, as far as there is room.
    pub(crate) fn push(&self, item: T) -> Pushed<T> {
        let mut shared = lock(&self.0);
        if shared.is_closed {
            return Pushed::Closed(item);
        }
        if shared.items.len() == shared.capacity {
            match shared.overflow {
                Overflow::Wait => return Pushed::Full(item),
                Overflow::DropNewest => {
                    shared.gap.dropped += 1;
                    return Pushed::Done;
                }
                Overflow::DropOldest => {
                    let (gap, _dropped) =
                        shared.items.pop_front().unwrap_or_else(|| unreachable!("it is full"));
                    let lost = gap.unwrap_or_default().and(Gap { dropped: 1, reconnected: false });
                    match shared.items.front_mut() {
                        Some((gap, _)) => *gap = Some(lost.and(gap.unwrap_or_default())),
                        None => shared.gap = lost.and(shared.gap),
                    }
                }
            }
        }
        let gap = std::mem::take(&mut shared.gap);
        shared.items.push_back(((!gap.is_none()).then_some(gap), item));
        let reader = shared.reader.take();
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
        Pushed::Done
    }

    /// Ready when something would fit, or nobody reads any more.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = lock(&self.0);
        if shared.is_closed || shared.items.len() < shared.capacity {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What comes next is told to come after a gap.
    pub(crate) fn mark(&self, gap: Gap) {
        let mut shared = lock(&self.0);
        shared.gap = shared.gap.and(gap);
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.0).is_closed
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        shared.is_closed = true;
        let reader = shared.reader.take();
        drop(shared);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// What waits.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).items.len()
    }

    /// Drops what waits, and takes nothing any more.
    pub(crate) fn close(&mut self) {
        let mut shared = lock(&self.0);
        shared.is_closed = true;
        let items = std::mem::take(&mut shared.items);
        let writer = shared.writer.take();
        drop(shared);
        drop(items);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Takes the next, with what is missing before it; `None` once the session has ended and all was taken.
    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Option<Gap>, T)>> {
        let mut shared = lock(&self.0);
        let Some(item) = shared.items.pop_front() else {
            if shared.is_closed {
                return Poll::Ready(None);
            }
            shared.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let writer = shared.writer.take();
        drop(shared);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Some(item))
    }
}

impl<T> Stream for Receiver<T> {
    type Item = (Option<Gap>, T);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_take(cx)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn take<T>(receiver: &mut Receiver<T>) -> Option<(Option<Gap>, T)> {
        poll_fn(|cx| receiver.poll_take(cx)).await
    }

    fn dropped(dropped: u64) -> Option<Gap> {
        Some(Gap { dropped, reconnected: false })
    }

    #[tokio::test]
    async fn the_oldest_make_room_and_the_next_says_how_many() {
        let (sender, mut receiver) = buffer(2, Overflow::DropOldest);
        for item in 0..5 {
            assert_eq!(sender.push(item), Pushed::Done);
        }
        assert_eq!(take(&mut receiver).await, Some((dropped(3), 3)));
        assert_eq!(take(&mut receiver).await, Some((None, 4)));
        drop(sender);
        assert_eq!(take(&mut receiver).await, None);
    }

    #[tokio::test]
    async fn with_room_for_one_the_gap_is_not_lost() {
        let (sender, mut receiver) = buffer(1, Overflow::DropOldest);
        for item in 0..3 {
            sender.push(item);
        }
        assert_eq!(take(&mut receiver).await, Some((dropped(2), 2)));
    }

    #[tokio::test]
    async fn the_newest_are_dropped_where_that_is_asked_for() {
        let (sender, mut receiver) = buffer(1, Overflow::DropNewest);
        for item in 0..3 {
            sender.push(item);
        }
        assert_eq!(take(&mut receiver).await, Some((None, 0)));
        sender.mark(Gap { dropped: 0, reconnected: true });
        sender.push(3);
        assert_eq!(take(&mut receiver).await, Some((Some(Gap { dropped: 2, reconnected: true }), 3)));
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it() {
        let (sender, mut receiver) = buffer(1, Overflow::Wait);
        assert_eq!(sender.push(0), Pushed::Done);
        assert_eq!(sender.push(1), Pushed::Full(1));
        let waiting = tokio::spawn(async move {
            poll_fn(|cx| sender.poll_room(cx)).await;
            assert_eq!(sender.push(1), Pushed::Done);
        });
        assert_eq!(take(&mut receiver).await, Some((None, 0)));
        assert_eq!(take(&mut receiver).await, Some((None, 1)));
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn who_stops_reading_is_noticed() {
        let (sender, receiver) = buffer(1, Overflow::Wait);
        sender.push(0);
        drop(receiver);
        assert_eq!(sender.push(1), Pushed::Closed(1));
        assert!(sender.is_closed());
        poll_fn(|cx| sender.poll_room(cx)).await;
    }
}

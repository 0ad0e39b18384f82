//! What it costs to put something into a mailbox, and to take it out: per parcel, an event of 128 bytes.
//!
//! `cargo bench -p tandem-broker --bench mailbox`

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use tandem_broker::core::mailbox::{Bounds, Inbox, Mailbox, Overflow, Pushed, Service, cost, mailbox_served};
use tandem_broker::core::message::Publication;
use tandem_broker::core::parcel::{Parcel, SubscriptionId};

use self::support::harness::{self, Meter, Step};
use self::support::parcels::publication;

mod support {
    pub mod harness;
    pub mod parcels;
}

/// Parcels that a pump takes at once: below what is sorted by sender.
const BURST: u64 = 64;

/// Parcels that wait for a slow peer: far more than is taken at once.
const CROWD: u64 = 2048;

fn main() {
    harness::run(&[
        push(),
        take(),
        settle(),
        Step::plain("push, take and settle, one by one", || {
            let mut post = Post::new(Service::Fair);
            let event = publication(1);
            let mut batch = VecDeque::new();
            move || {
                post.push(&event);
                post.take(&mut batch);
                let cost = batch.drain(..).map(|parcel| cost(&parcel)).sum();
                post.inbox.settled(cost);
            }
        }),
        served("take of many, 1 sender, in order", Service::InOrder, 1),
        served("take of many, 1 sender, fair", Service::Fair, 1),
        served("take of many, 8 senders, fair", Service::Fair, 8),
        served("take of many, 32 senders, fair", Service::Fair, 32),
        served("take of many, 1,000 senders, fair", Service::Fair, 1_000),
    ]);
}

/// A mailbox with both of its sides.
struct Post {
    mailbox: Mailbox,
    inbox: Inbox,
}

impl Post {
    fn new(service: Service) -> Post {
        let bytes_max = 1 << 30;
        let bounds = Bounds { bytes_soft_max: bytes_max, bytes_max, overflow: Overflow::Disconnect };
        let (mailbox, inbox) = mailbox_served(bounds, service);
        Post { mailbox, inbox }
    }

    fn push(&self, publication: &Arc<Publication>) {
        let (publication, subscription) = (publication.clone(), SubscriptionId(1));
        let pushed = self.mailbox.push(Parcel::Event { publication, subscription });
        assert_eq!(pushed, Pushed::Queued);
    }

    fn take(&mut self, batch: &mut VecDeque<Parcel>) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.inbox.poll_take(&mut context, batch).is_ready());
    }

    /// Takes what there is, and gives up its cost, but does not say so to the inbox.
    fn empty(&mut self, batch: &mut VecDeque<Parcel>) -> usize {
        self.take(batch);
        assert_eq!(batch.len() as u64, BURST);
        batch.drain(..).map(|parcel| cost(&parcel)).sum()
    }
}

fn push() -> Step {
    Step::new("push", BURST, || {
        let mut post = Post::new(Service::Fair);
        let event = publication(1);
        let mut batch = VecDeque::new();
        move |meter: &mut Meter| {
            meter.measure(|| (0..BURST).for_each(|_| post.push(&event)));
            let cost = post.empty(&mut batch);
            post.inbox.settled(cost);
        }
    })
}

fn take() -> Step {
    Step::new("take, 64 at once", BURST, || {
        let mut post = Post::new(Service::Fair);
        let event = publication(1);
        let mut batch = VecDeque::new();
        move |meter: &mut Meter| {
            (0..BURST).for_each(|_| post.push(&event));
            let mut cost = 0;
            meter.measure(|| cost = post.empty(&mut batch));
            post.inbox.settled(cost);
        }
    })
}

fn settle() -> Step {
    Step::new("settle", BURST, || {
        let mut post = Post::new(Service::Fair);
        let event = publication(1);
        let mut batch = VecDeque::new();
        move |meter: &mut Meter| {
            (0..BURST).for_each(|_| post.push(&event));
            let each = post.empty(&mut batch) / BURST as usize;
            meter.measure(|| (0..BURST).for_each(|_| post.inbox.settled(each)));
        }
    })
}

/// What so many senders left for a peer that is slow, taken as the wire takes it.
fn served(name: &str, service: Service, senders: u64) -> Step {
    Step::new(name, CROWD, move || {
        let mut post = Post::new(service);
        let events: Vec<_> = (0..senders).map(publication).collect();
        let mut batch = VecDeque::new();
        move |meter: &mut Meter| {
            (0..CROWD).for_each(|n| post.push(&events[(n % senders) as usize]));
            meter.measure(|| {
                let mut left = CROWD;
                while left > 0 {
                    post.take(&mut batch);
                    left -= batch.len() as u64;
                    let cost = batch.drain(..).map(|parcel| cost(&parcel)).sum();
                    post.inbox.settled(cost);
                }
            });
        }
    })
}

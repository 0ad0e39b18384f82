//! What the pump costs by itself: a connection over WebSocket whose session does next to nothing, with a wire in memory.
//!
//! `cargo bench -p tandem-broker --bench pump`
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;

use tandem_broker::core::mailbox::{self, Batch, Bounds, Overflow, Pushed};
use tandem_broker::core::message::{Frame, Kind, Message, Publication, Variant};
use tandem_broker::core::parcel::{Parcel, SubscriptionId};
use tandem_broker::core::protocol::{Output, Outputs, Session};
use tandem_protocols::websocket::frame::{Opcode, masked};

use self::support::harness::{self, Meter, Step};
use self::support::house::House;
use self::support::parcels::publication;

mod support {
    pub mod harness;
    pub mod house;
    pub mod parcels;
}

/// Messages in one read.
const BURST: u64 = 64;

/// Events that are composed at once. They cost a mailbox more than it hands out at once, so that they are sorted by sender.
const SHARED: u64 = 256;

/// Pumps that are woken at the end of a batch.
const WOKEN: u64 = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    harness::run(&[
        read(),
        compose("a write of 256 shared events, event", SHARED),
        compose("a write of 64 shared events, event", BURST),
        compose("wake-up for 1 shared event", 1),
        Step::plain("wake-up for nothing", || {
            let house = House::new();
            let (mailbox, mut guest) = house.stranger(Box::new(Reciter::default()));
            guest.pump();
            move || {
                let _alive = &mailbox;
                guest.pump();
            }
        }),
        batch(),
    ]);
}

/// Takes all that comes to it for nothing, and says of each event what was made of it once.
#[derive(Default)]
struct Reciter(Outputs);

impl Session for Reciter {
    fn receive(&mut self, _kind: Kind, _bytes: Bytes, _now: Instant) {}

    fn deliver(&mut self, parcel: Parcel, _now: Instant) {
        let Parcel::Event { publication, .. } = parcel else { return };
        self.0.push(Output::Send(encoded(&publication)));
    }

    fn tick(&mut self, _now: Instant) {}

    fn pause(&mut self, _now: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn poll(&mut self) -> Option<Output> {
        self.0.poll()
    }

    fn rest(&mut self) {
        self.0.rest();
    }

    fn fail(&mut self, _reason: &str, _now: Instant) {}

    fn is_established(&self) -> bool {
        true
    }

    fn is_congested(&self, _waker: &Waker) -> bool {
        false
    }
}

fn encoded(publication: &Publication) -> Frame {
    let encode = || Ok::<_, Infallible>(Message::new(Kind::Text, vec![b'x'; 128].into()));
    let Ok(frame) = publication.encodings.get_or_make("bench", Variant::Number(1), encode);
    frame
}

/// A publication that was encoded for somebody else before.
fn shared() -> Arc<Publication> {
    let publication = publication(1);
    encoded(&publication);
    publication
}

fn event(publication: &Arc<Publication>) -> Parcel {
    Parcel::Event { publication: publication.clone(), subscription: SubscriptionId(1) }
}

fn read() -> Step {
    Step::new("a read of 64 messages, message", BURST, || {
        let house = House::new();
        let (mailbox, mut guest) = house.stranger(Box::new(Reciter::default()));
        let frame = masked(Opcode::Text, &[b'x'; 128], [1, 2, 3, 4]);
        move |meter: &mut Meter| {
            let _alive = &mailbox;
            guest.prepare(|out| (0..BURST).for_each(|_| out.extend_from_slice(&frame)));
            meter.measure(|| guest.pump());
        }
    })
}

fn compose(name: &str, count: u64) -> Step {
    Step::new(name, count, move || {
        let house = House::new();
        let (mailbox, mut guest) = house.stranger(Box::new(Reciter::default()));
        let events: Vec<_> = (0..count).map(|_| shared()).collect();
        guest.pump();
        move |meter: &mut Meter| {
            let written_before = guest.wire.lock().unwrap().written_bytes;
            for publication in &events {
                assert_eq!(mailbox.push(event(publication)), Pushed::Queued);
            }
            meter.measure(|| guest.pump());
            let written = guest.wire.lock().unwrap().written_bytes - written_before;
            assert_eq!(written, count * (128 + 4), "not all was written");
        }
    })
}

/// From the first parcel of a batch to the last waker, without what that one leads to.
fn batch() -> Step {
    Step::new("a batch of 1 event wakes 100 pumps, pump", WOKEN, || {
        let bytes_max = 1 << 20;
        let bounds = Bounds { bytes_soft_max: bytes_max, bytes_max, overflow: Overflow::Disconnect };
        let mut posts: Vec<_> = (0..WOKEN).map(|_| mailbox::mailbox(bounds)).collect();
        let publication = shared();
        let mut taken = VecDeque::new();
        move |meter: &mut Meter| {
            let mut context = Context::from_waker(Waker::noop());
            for (_, inbox) in &mut posts {
                while inbox.poll_take(&mut context, &mut taken).is_ready() {
                    let cost = taken.drain(..).map(|parcel| mailbox::cost(&parcel)).sum();
                    inbox.settled(cost);
                }
            }
            meter.measure(|| {
                let _batch = Batch::begin();
                for (mailbox, _) in &posts {
                    mailbox.push(event(&publication));
                }
            });
        }
    })
}

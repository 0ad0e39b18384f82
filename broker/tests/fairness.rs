//! Who is served first where much waits for one connection: counted in bytes, in memory, without a clock.

#![expect(clippy::unwrap_used, reason = "whatever fails here is to fail the test")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use tandem_broker::core::access::{Authenticating, Authenticator, Credentials, Peer, Principal};
use tandem_broker::core::flows::QUANTUM_BYTES;
use tandem_broker::core::mailbox::{
    Bounds, Inbox, Mailbox, Overflow, Pushed, Service, cost, mailbox, mailbox_served,
};
use tandem_broker::core::message::{
    Attributes, Frame, Kind, Message, PUBLICATION_OVERHEAD, Publication, SessionId,
};
use tandem_broker::core::name::Name;
use tandem_broker::core::parcel::{
    Answer, ConsumerId, Delivery, Invocation, Outcome, Parcel, RegistrationId, SubscriptionId,
};
use tandem_broker::core::protocol::{Output, Session};
use tandem_broker::front::connection::{Connection, Parts, Pump, PumpLimits, now};
use tandem_broker::front::transport::Transport;
use tandem_broker::front::websocket::{WebSocket, WebSocketLimits};
use tandem_protocols::payload::{Content, Payload};
use tandem_protocols::websocket::frame::Role;
use tandem_protocols::websocket::message::{Decoder, Event, Limits};

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

/// What a pump takes at once, and what one write is composed of.
const TAKEN_BYTES: usize = 64 * KIB;

const ROOMY: Bounds = Bounds { bytes_soft_max: 1 << 30, bytes_max: 1 << 30, overflow: Overflow::Disconnect };

/// A payload that says who sent it, and as its how manieth.
fn payload(sender: u64, place: u64, bytes: usize) -> Payload {
    let mut payload = vec![0; bytes.max(16)];
    payload[..8].copy_from_slice(&sender.to_be_bytes());
    payload[8..16].copy_from_slice(&place.to_be_bytes());
    Payload::new(Content::Opaque(payload.into()))
}

fn read(payload: &[u8]) -> (u64, u64) {
    let number = |range: std::ops::Range<usize>| u64::from_be_bytes(payload[range].try_into().unwrap());
    (number(0..8), number(8..16))
}

fn publication(sender: u64, place: u64, bytes: usize) -> Arc<Publication> {
    Arc::new(Publication::new(
        place,
        Name::parse("t").unwrap(),
        SessionId(sender),
        payload(sender, place, bytes),
    ))
}

fn event(sender: u64, place: u64, bytes: usize) -> Parcel {
    Parcel::Event { publication: publication(sender, place, bytes), subscription: SubscriptionId(1) }
}

fn outcome(callee: u64, place: u64) -> Parcel {
    let payload = payload(callee, place, 16);
    let result = Ok(Answer { payload, attributes: Attributes::default(), is_progress: true });
    Parcel::Outcome(Box::new(Outcome { call: 1, callee: SessionId(callee), result }))
}

fn invocation(sender: u64, place: u64) -> Parcel {
    Parcel::Invocation(Box::new(Invocation {
        id: place,
        sender: SessionId(sender),
        registration: RegistrationId(1),
        procedure: Name::parse("p").unwrap(),
        by_pattern: false,
        caller: None,
        trust: None,
        payload: payload(sender, place, 16),
        attributes: Attributes::default(),
        takes_progress: false,
        timeout: None,
        more_follows: false,
        continues: false,
    }))
}

fn delivery(consumer: u64, sequence: u64) -> Parcel {
    let publication = publication(0, sequence, 16);
    let consumer = ConsumerId(consumer);
    Parcel::Delivery(Delivery { publication, consumer, sequence, redeliveries: 0, from_topic: false })
}

fn take(inbox: &mut Inbox) -> Option<Vec<Parcel>> {
    let mut batch = VecDeque::new();
    let taken = inbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut batch);
    inbox.settled(batch.iter().map(cost).sum());
    matches!(taken, Poll::Ready(())).then(|| batch.into())
}

fn drain(inbox: &mut Inbox) -> Vec<Parcel> {
    std::iter::from_fn(|| take(inbox)).flatten().collect()
}

/// What a parcel is of, and its place there.
fn place(parcel: &Parcel) -> (&'static str, u64, u64) {
    let of = |payload: &Payload| match payload.content() {
        Content::Opaque(bytes) => read(bytes),
        other => panic!("{other:?}"),
    };
    match parcel {
        Parcel::Event { publication, .. } => {
            let (sender, place) = of(&publication.payload);
            ("event", sender, place)
        }
        Parcel::Retained { publication, .. } => ("retained", 0, publication.id),
        Parcel::Outcome(outcome) => {
            let (callee, place) = of(&outcome.result.as_ref().unwrap().payload);
            ("outcome", callee, place)
        }
        Parcel::Invocation(invocation) => ("invocation", invocation.sender.0, invocation.id),
        Parcel::Interrupt { invocation, caller, .. } => ("interrupt", caller.0, *invocation),
        Parcel::Delivery(delivery) => ("delivery", delivery.consumer.0, delivery.sequence),
        Parcel::Exhausted { consumer } => ("exhausted", consumer.0, 0),
        Parcel::SubscriptionRevoked { .. } => ("revoked", 0, 0),
        other => panic!("{other:?}"),
    }
}

// ---- the mailbox -----------------------------------------------------------------------------------------

#[test]
fn what_one_session_sends_stays_in_order_whatever_it_is() {
    let (mailbox, mut inbox) = mailbox(ROOMY);
    (0..8).for_each(|n| {
        mailbox.push(event(9, n, 100 * KIB));
    });
    let of_one: Vec<fn(u64) -> Parcel> = vec![
        |n| event(1, n, 16),
        |n| outcome(1, n),
        |n| invocation(1, n),
        |n| Parcel::Interrupt { invocation: n, caller: SessionId(1), is_awaited: false },
        |n| event(1, n, 100 * KIB),
    ];
    (0..100).for_each(|n| {
        mailbox.push(of_one[n as usize % of_one.len()](n));
    });
    let all = drain(&mut inbox);
    let seen: Vec<_> = all.iter().map(place).filter(|(_, of, _)| *of == 1).map(|(.., n)| n).collect();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    let first = all.iter().map(place).position(|(_, of, _)| of == 1).unwrap();
    assert!(first <= 1, "it overtook the others: {first}");
}

#[test]
fn a_queues_messages_stay_in_order_and_its_end_comes_after_them() {
    let (mailbox, mut inbox) = mailbox(ROOMY);
    for n in 0..100 {
        mailbox.push(event(9, n, 100 * KIB));
        mailbox.push(delivery(1 + n % 2, n));
    }
    mailbox.push(Parcel::Exhausted { consumer: ConsumerId(1) });
    let all = drain(&mut inbox);
    for consumer in [1, 2] {
        let of = |(kind, of, n)| {
            ((kind == "delivery" || kind == "exhausted") && of == consumer).then_some((kind, n))
        };
        let seen: Vec<_> = all.iter().map(place).filter_map(of).collect();
        let mut expected: Vec<_> =
            (0..100).filter(|n| 1 + n % 2 == consumer).map(|n| ("delivery", n)).collect();
        if consumer == 1 {
            expected.push(("exhausted", 0));
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn nothing_overtakes_what_was_kept_or_is_revoked() {
    let (mailbox, mut inbox) = mailbox(ROOMY);
    let retained =
        |n| Parcel::Retained { publication: publication(0, n, 16), subscription: SubscriptionId(1), tag: 1 };
    let revoked = || Parcel::SubscriptionRevoked { subscription: SubscriptionId(1), reason: None };
    (0..8).for_each(|n| {
        mailbox.push(event(1, n, 100 * KIB));
    });
    mailbox.push(event(2, 0, 16));
    mailbox.push(retained(7));
    mailbox.push(retained(8));
    (8..16).for_each(|n| {
        mailbox.push(event(1, n, 100 * KIB));
    });
    // Some of it was sorted already when the rest comes.
    let mut all = take(&mut inbox).unwrap();
    mailbox.push(event(2, 1, 16));
    mailbox.push(revoked());
    mailbox.push(event(2, 2, 16));
    all.extend(drain(&mut inbox));
    let places: Vec<_> = all.iter().map(place).collect();
    let at = |wanted| places.iter().position(|place| *place == wanted).unwrap();
    let parts = [at(("retained", 0, 7)), at(("retained", 0, 8)), at(("revoked", 0, 0))];
    assert_eq!(parts[1], parts[0] + 1);
    assert!((0..8).all(|n| at(("event", 1, n)) < parts[0]) && at(("event", 2, 0)) < parts[0]);
    assert!((8..16).all(|n| (parts[1]..parts[2]).contains(&at(("event", 1, n)))));
    assert!((parts[1]..parts[2]).contains(&at(("event", 2, 1))));
    assert!(at(("event", 2, 1)) < at(("event", 1, 10)), "between the two there are turns again");
    assert_eq!(at(("event", 2, 2)), places.len() - 1);
}

#[test]
fn who_has_most_waiting_loses_events_first() {
    let bounds = Bounds { bytes_soft_max: MIB, bytes_max: MIB, overflow: Overflow::DropOldest };
    let (mailbox, mut inbox) = mailbox(bounds);
    for n in 0..20 {
        mailbox.push(event(1, n, 50 * KIB));
        mailbox.push(event(2, n, 16));
    }
    // Now they are sorted.
    let mut all = take(&mut inbox).unwrap();
    (20..60).for_each(|n| assert_eq!(mailbox.push(event(1, n, 50 * KIB)), Pushed::Queued));
    all.extend(drain(&mut inbox));
    let of = |sender| all.iter().map(place).filter(move |(_, of, _)| *of == sender).map(|(.., n)| n);
    assert_eq!(of(2).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert!(of(1).is_sorted() && of(1).next_back() == Some(59) && of(1).count() < 30);
}

#[derive(Clone, Debug)]
enum Step {
    Push { sender: u64, bytes: usize },
    Barrier,
    Take,
}

fn steps(senders: u64) -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![4 => 16..2 * KIB, 2 => 2 * KIB..70 * KIB, 1 => 70 * KIB..300 * KIB];
    let step = prop_oneof![
        12 => (0..senders, bytes).prop_map(|(sender, bytes)| Step::Push { sender, bytes }),
        1 => Just(Step::Barrier),
        3 => Just(Step::Take),
    ];
    vec(step, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_sender_is_served_once_and_in_order_and_no_take_is_too_large(steps in steps(90)) {
        let (mailbox, mut inbox) = mailbox(ROOMY);
        let (mut sent, mut seen) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
        let (mut barriers, mut longest) = (VecDeque::new(), 0);
        let mut check = |batch: Vec<Parcel>, longest: usize, barriers: &mut VecDeque<BTreeMap<u64, u64>>| {
            let bytes: usize = batch.iter().map(cost).sum();
            assert!(bytes < TAKEN_BYTES + longest.max(1), "{bytes} at once");
            for (kind, sender, place) in batch.iter().map(place) {
                if kind == "revoked" {
                    // All that came before, and nothing that came after.
                    assert_eq!(seen, barriers.pop_front().unwrap());
                } else {
                    let next = seen.entry(sender).or_default();
                    assert_eq!(*next, place, "of {sender}");
                    *next += 1;
                }
            }
        };
        for step in steps {
            match step {
                Step::Push { sender, bytes } => {
                    let place = sent.entry(sender).or_default();
                    mailbox.push(event(sender, *place, bytes));
                    *place += 1;
                    longest = longest.max(bytes + PUBLICATION_OVERHEAD);
                }
                Step::Barrier => {
                    mailbox.push(Parcel::SubscriptionRevoked { subscription: SubscriptionId(1), reason: None });
                    barriers.push_back(sent.clone());
                }
                Step::Take => check(take(&mut inbox).unwrap_or_default(), longest, &mut barriers),
            }
        }
        while let Some(batch) = take(&mut inbox) {
            check(batch, longest, &mut barriers);
        }
        prop_assert_eq!(seen, sent);
    }

    #[test]
    fn those_who_always_have_something_waiting_get_the_same_within_one_message(
        sizes in vec(vec(16..200 * KIB, 1..60), 2..32)
    ) {
        let (mailbox, mut inbox) = mailbox(ROOMY);
        let mut left: Vec<usize> = sizes.iter().map(Vec::len).collect();
        let longest = sizes.iter().flatten().max().unwrap() + PUBLICATION_OVERHEAD;
        // One after the other: as unfair as it can be.
        for (sender, sizes) in sizes.iter().enumerate() {
            for (place, bytes) in sizes.iter().enumerate() {
                mailbox.push(event(sender as u64, place as u64, *bytes));
            }
        }
        let mut served = vec![0; sizes.len()];
        while left.iter().all(|left| *left > 0) {
            let Some(batch) = take(&mut inbox) else { break };
            for parcel in batch {
                let (_, sender, _) = place(&parcel);
                served[sender as usize] += cost(&parcel);
                left[sender as usize] -= 1;
            }
            let (least, most) = (*served.iter().min().unwrap(), *served.iter().max().unwrap());
            prop_assert!(
                left.contains(&0) || most - least <= longest + QUANTUM_BYTES + TAKEN_BYTES,
                "{served:?} with messages of {longest}"
            );
        }
    }
}

// ---- a connection ----------------------------------------------------------------------------------------

/// Says what is in each event.
#[derive(Default)]
struct Plain(VecDeque<Output>);

impl Session for Plain {
    fn receive(&mut self, _kind: Kind, _bytes: Bytes, _now: Instant) {}

    fn deliver(&mut self, parcel: Parcel, _now: Instant) {
        if let Parcel::Event { publication, .. } = parcel
            && let Content::Opaque(bytes) = publication.payload.content()
        {
            self.0.push_back(Output::Send(Frame::Own(Message::new(Kind::Binary, bytes.clone()))));
        }
    }

    fn tick(&mut self, _now: Instant) {}

    fn pause(&mut self, _now: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn poll(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    fn fail(&mut self, _reason: &str, _now: Instant) {}

    fn is_established(&self) -> bool {
        true
    }

    fn is_congested(&self, _waker: &Waker) -> bool {
        false
    }
}

struct Nobody;

impl Authenticator for Nobody {
    fn anonymous(&self, _peer: &Peer) -> Option<Principal> {
        None
    }

    fn authenticate(&self, _credentials: Credentials, _peer: &Peer) -> Authenticating {
        Box::pin(std::future::pending())
    }
}

/// What the kernel takes of us, so to say.
const WIRE_BYTES: usize = 4 * KIB;

struct Receiver {
    wire: DuplexStream,
    decoder: Decoder,
    /// What was read altogether.
    bytes: usize,
}

impl Receiver {
    fn connect(service: Service) -> (Mailbox, Receiver) {
        let second = Duration::from_secs(1);
        let limits = PumpLimits {
            establish_time_max: second,
            establish_bytes_max: 1000,
            ping_interval: 3600 * second,
            pong_time_max: 3600 * second,
            message_time_max: second,
            slow_time_max: second,
            pace_time_max: second,
            close_time_max: second,
            linger_time_max: second,
            owed_bytes_max: 1000,
        };
        let (mailbox, inbox) = mailbox_served(ROOMY, service);
        let all = Limits { message_bytes_max: 2 * MIB, fragments_max: 1000, inflate_ratio_max: 100 };
        let limits_of_frames =
            WebSocketLimits { established: all.into(), stranger: all.into(), fragment_bytes: 64 * 1024 };
        let (ours, wire) = duplex(WIRE_BYTES);
        let connection = Connection::new(Parts {
            wire: ours,
            transport: Transport::WebSocket(WebSocket::new(limits_of_frames, None)),
            session: Box::new(Plain::default()),
            inbox,
            peer: Peer::Local,
            authenticator: Arc::new(Nobody),
            pump: Pump::new(limits),
            stranger: None,
            opened: now(),
        });
        tokio::spawn(connection);
        (mailbox, Receiver { wire, decoder: Decoder::new(Role::Client, all, None), bytes: 0 })
    }

    /// Reads so much of what there is, and says whose messages became whole.
    async fn read(&mut self, bytes_max: usize) -> Vec<(u64, u64)> {
        let mut scratch = vec![0; bytes_max];
        let length = self.wire.read(&mut scratch).await.unwrap();
        self.bytes += length;
        let mut data = &mut scratch[..length];
        let mut whole = Vec::new();
        while let Some(event) = self.decoder.next(&mut data).unwrap() {
            let Event::Message { payload, .. } = event else { panic!("{event:?}") };
            whole.push(read(&payload));
        }
        whole
    }
}

/// Publisher 1 has sent 64 messages of 1 MiB, and publisher 2 sends a small one after each 300 KiB that arrived. Says
/// how many bytes the receiver got before each of those.
async fn bytes_before_small_ones(service: Service, large: u64) -> Vec<usize> {
    let (mailbox, mut receiver) = Receiver::connect(service);
    for place in 0..large {
        mailbox.push(event(1, place, MIB));
    }
    let (mut sent_at, mut waited) = (Vec::new(), Vec::new());
    let mut large_seen = 0;
    while large_seen < large || waited.len() < sent_at.len() {
        if receiver.bytes >= sent_at.len() * 300 * KIB && large_seen < large {
            mailbox.push(event(2, sent_at.len() as u64, 100));
            sent_at.push(receiver.bytes);
        }
        for (sender, place) in receiver.read(WIRE_BYTES).await {
            if sender == 1 {
                assert_eq!(place, large_seen);
                large_seen += 1;
            } else {
                assert_eq!(place, waited.len() as u64);
                waited.push(receiver.bytes - sent_at[waited.len()]);
            }
        }
    }
    waited
}

#[tokio::test(start_paused = true)]
async fn a_small_message_waits_for_the_large_one_under_way_and_for_no_other() {
    let waited = bytes_before_small_ones(Service::Fair, 64).await;
    assert!(waited.len() > 200);
    let most = *waited.iter().max().unwrap();
    // The rest of the one under way, what was composed, and what was on the wire.
    assert!(most <= MIB + TAKEN_BYTES + 2 * WIRE_BYTES, "{most} bytes came before one");
}

#[tokio::test(start_paused = true)]
async fn without_fairness_a_small_message_waits_for_all_large_ones() {
    let waited = bytes_before_small_ones(Service::InOrder, 8).await;
    assert!(*waited.iter().max().unwrap() > 7 * MIB);
}

//! The lane between the pump and a client that polls, under virtual time. The session follows a script.

#![expect(clippy::unwrap_used, reason = "whatever fails here is to fail the test")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;

use tandem_broker::core::access::{Applicant, Authenticating, Authenticator, Credentials, Peer, Principal};
use tandem_broker::core::mailbox::{Bounds, Mailbox, Overflow, Pushed, mailbox};
use tandem_broker::core::message::{Frame, Kind, Message, Publication, SessionId};
use tandem_broker::core::name::Name;
use tandem_broker::core::parcel::{Farewell, Parcel, SubscriptionId};
use tandem_broker::core::protocol::{Close, Output, Reason, Session};
use tandem_broker::front::connection::{Connection, Parts, Pump, PumpLimits, now};
use tandem_broker::front::longpoll::lane::{Lane, OUTBOUND_BYTES_MAX, Received, Sent};
use tandem_broker::front::transport::Transport;
use tandem_protocols::payload::{Content, Payload};

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> PumpLimits {
    PumpLimits {
        establish_time_max: 10 * SECOND,
        establish_bytes_max: 1000,
        ping_interval: 25 * SECOND,
        pong_time_max: 10 * SECOND,
        message_time_max: 30 * SECOND,
        slow_time_max: 5 * SECOND,
        pace_time_max: 5 * SECOND,
        close_time_max: 4 * SECOND,
        linger_time_max: SECOND,
        owed_bytes_max: 1000,
    }
}

// ---- the script ----------------------------------------------------------------------------------------

#[derive(Default)]
struct Stage {
    heard: Vec<(Kind, Bytes)>,
    outputs: VecDeque<Output>,
    established: bool,
    congested: bool,
    waker: Option<Waker>,
}

impl Stage {
    fn say(&mut self, kind: Kind, bytes: impl Into<Bytes>) {
        self.outputs.push_back(Output::Send(Frame::Own(Message::new(kind, bytes.into()))));
    }

    fn close(&mut self, reason: Reason) {
        self.outputs.push_back(Output::Close(Close::new(reason, "")));
    }
}

struct Script(Arc<Mutex<Stage>>);

impl Session for Script {
    fn receive(&mut self, kind: Kind, bytes: Bytes, _now: Instant) {
        let mut stage = self.0.lock().unwrap();
        match &bytes[..] {
            b"hello" => stage.established = true,
            b"auth" => {
                let applicant = Applicant {
                    realm: "r".into(),
                    user: "u".into(),
                    method: "test",
                    session: None,
                    extra: None,
                };
                let credentials = Credentials { applicant, secret: "s".into() };
                stage.outputs.push_back(Output::Authenticate(Box::new(credentials)));
            }
            b"break" => {
                stage.say(Kind::Text, "broken");
                stage.close(Reason::Violation);
            }
            b"bye" => {
                stage.say(Kind::Text, "goodbye");
                stage.close(Reason::Done);
            }
            b"echo" => stage.say(kind, bytes.clone()),
            _ => {}
        }
        stage.heard.push((kind, bytes));
    }

    fn deliver(&mut self, parcel: Parcel, _now: Instant) {
        let mut stage = self.0.lock().unwrap();
        match parcel {
            Parcel::Event { publication, .. } => {
                if let Content::Opaque(bytes) = publication.payload.content() {
                    stage.say(Kind::Binary, bytes.clone());
                }
            }
            Parcel::Authenticated(result) => {
                stage.established = result.is_ok();
                stage.say(Kind::Text, "welcome");
            }
            Parcel::Farewell(_) => {
                stage.say(Kind::Text, "farewell");
                stage.close(Reason::SlowConsumer);
            }
            other => panic!("not in the script: {other:?}"),
        }
    }

    fn tick(&mut self, _now: Instant) {}

    fn pause(&mut self, _now: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn poll(&mut self) -> Option<Output> {
        self.0.lock().unwrap().outputs.pop_front()
    }

    fn fail(&mut self, reason: &str, _now: Instant) {
        self.0.lock().unwrap().say(Kind::Text, format!("failed: {reason}"));
    }

    fn is_established(&self) -> bool {
        self.0.lock().unwrap().established
    }

    fn is_congested(&self, waker: &Waker) -> bool {
        let mut stage = self.0.lock().unwrap();
        stage.waker = Some(waker.clone());
        stage.congested
    }
}

/// Lets everybody in, after three seconds.
struct Slow;

impl Authenticator for Slow {
    fn anonymous(&self, _peer: &Peer) -> Option<Principal> {
        None
    }

    fn authenticate(&self, credentials: Credentials, _peer: &Peer) -> Authenticating {
        Box::pin(async move {
            tokio::time::sleep(3 * SECOND).await;
            Ok(Principal::new(credentials.applicant.user, "r", "test").into())
        })
    }
}

// ---- a house with a lane ---------------------------------------------------------------------------------

const ROOMY: Bounds = Bounds { bytes_soft_max: 1 << 30, bytes_max: 1 << 30, overflow: Overflow::Disconnect };

struct House {
    stage: Arc<Mutex<Stage>>,
    mailbox: Mailbox,
    lane: Arc<Lane>,
    pump: JoinHandle<std::io::Result<()>>,
}

impl House {
    /// A session with a stranger.
    fn open(bounds: Bounds) -> House {
        let (mailbox, inbox) = mailbox(bounds);
        let stage = Arc::new(Mutex::new(Stage::default()));
        let (lane, wire) = Lane::new();
        let connection = Connection::new(Parts {
            transport: Transport::LongPoll(wire.transport()),
            wire,
            session: Box::new(Script(stage.clone())),
            inbox,
            peer: Peer::Local,
            authenticator: Arc::new(Slow),
            pump: Pump::new(limits()),
            stranger: None,
            opened: now(),
        });
        House { stage, mailbox, lane, pump: tokio::spawn(connection) }
    }

    /// A session with somebody who was let in.
    async fn enter(bounds: Bounds) -> House {
        let house = House::open(bounds);
        assert_eq!(house.send("hello").await, Sent::Taken);
        house
    }

    async fn send(&self, message: &str) -> Sent {
        self.lane.send(Kind::Text, message.as_bytes(), 30 * SECOND).await
    }

    /// Puts an event of so many bytes into the mailbox.
    fn publish(&self, bytes: usize, first: u8) -> Pushed {
        let mut body = vec![b'e'; bytes];
        body[0] = first;
        let publication = Arc::new(Publication::new(
            1,
            Name::parse("t").unwrap(),
            SessionId(1),
            Payload::new(Content::Opaque(body.into())),
        ));
        self.mailbox.push(Parcel::Event { publication, subscription: SubscriptionId(1) })
    }

    async fn receive(&self) -> Received {
        self.lane.receive(10 * SECOND).await
    }

    /// The next message, which there must be.
    async fn hear(&self) -> (Kind, Bytes) {
        match self.lane.receive(60 * SECOND).await {
            Received::Message(kind, bytes) => (kind, bytes),
            other => panic!("not a message: {other:?}"),
        }
    }
}

/// Lets the pump do all that it can at this moment.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

fn text(message: &'static str) -> (Kind, Bytes) {
    (Kind::Text, Bytes::from_static(message.as_bytes()))
}

// ---- receiving -------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_receive_lasts_until_there_is_something_or_its_time_is_up() {
    let house = House::enter(ROOMY).await;
    let began = now();
    assert!(matches!(house.receive().await, Received::Nothing));
    assert_eq!(now() - began, 10 * SECOND);
    let (heard, ()) = tokio::join!(house.hear(), async {
        tokio::time::sleep(3 * SECOND).await;
        house.publish(1, b'1');
    });
    assert_eq!(heard, (Kind::Binary, Bytes::from_static(b"1")));
    assert_eq!(now() - began, 13 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_is_given_up_takes_nothing_with_it() {
    let house = House::enter(ROOMY).await;
    for number in 0..10 {
        let given_up = tokio::time::timeout(SECOND, house.receive()).await;
        assert!(given_up.is_err());
        house.publish(10, number);
        settle().await;
        let (_, bytes) = house.hear().await;
        assert_eq!(bytes[0], number);
    }
}

#[tokio::test(start_paused = true)]
async fn the_older_of_two_receives_is_answered_with_nothing_at_once() {
    let house = House::enter(ROOMY).await;
    let began = now();
    let older = async {
        assert!(matches!(house.receive().await, Received::Nothing));
        assert_eq!(now(), began);
    };
    let newer = async {
        settle().await;
        assert_eq!(house.hear().await.1, "1");
    };
    let publisher = async {
        tokio::time::sleep(SECOND).await;
        house.publish(1, b'1');
    };
    tokio::join!(older, newer, publisher);
}

#[tokio::test(start_paused = true)]
async fn messages_of_every_size_come_whole_and_in_order() {
    let house = House::enter(ROOMY).await;
    let sizes = [1, OUTBOUND_BYTES_MAX - 10, 3, 5 * OUTBOUND_BYTES_MAX, OUTBOUND_BYTES_MAX, 9000, 2];
    for (number, size) in (0..).zip(sizes) {
        house.publish(size, number);
    }
    for (number, size) in (0..).zip(sizes) {
        let (_, bytes) = house.hear().await;
        assert_eq!((bytes[0], bytes.len()), (number, size));
    }
}

// ---- back-pressure ---------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn what_is_not_fetched_stays_in_the_mailbox_until_it_overflows() {
    let bounds = Bounds { bytes_soft_max: 200_000, bytes_max: 200_000, overflow: Overflow::Disconnect };
    let house = House::enter(bounds).await;
    let mut pushed = 0;
    while house.publish(10_000, pushed) == Pushed::Queued {
        pushed += 1;
        settle().await;
    }
    // The lane, a write that the pump has at hand, and the mailbox.
    let most = (2 * OUTBOUND_BYTES_MAX + 10_000 + 200_000) / 10_000;
    assert!((20..=most).contains(&usize::from(pushed)), "{pushed}");
    let mut number = 0;
    while let (Kind::Binary, bytes) = house.hear().await {
        assert_eq!(bytes[0], number);
        number += 1;
    }
    assert!(number < pushed, "the mailbox was emptied");
    house.lane.until_fetched().await;
    house.pump.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_fetches_one_by_one_and_in_time_gets_all() {
    let bounds = Bounds { bytes_soft_max: 400_000, bytes_max: 400_000, overflow: Overflow::Disconnect };
    let house = House::enter(bounds).await;
    for number in 0..200 {
        assert_eq!(house.publish(10_000, number), Pushed::Queued);
        if number >= 20 {
            assert_eq!(house.hear().await.1[0], number - 20);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_gone_after_the_time_of_a_ping_and_its_answer() {
    let house = House::enter(ROOMY).await;
    let began = now();
    for number in 0..30 {
        house.publish(10_000, number);
    }
    // The pump gives up to say so, and then to say goodbye.
    assert!(house.pump.await.unwrap().is_err());
    assert_eq!(now() - began, (25 + 10 + 4) * SECOND);
}

// ---- sending ---------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn messages_reach_the_session_as_they_were_sent() {
    let house = House::enter(ROOMY).await;
    let large = vec![0xFF; 300_000];
    assert_eq!(house.lane.send(Kind::Binary, &large, SECOND).await, Sent::Taken);
    assert_eq!(house.lane.send(Kind::Text, b"", SECOND).await, Sent::Taken);
    assert_eq!(house.send("echo").await, Sent::Taken);
    assert_eq!(house.hear().await, text("echo"));
    let heard = house.stage.lock().unwrap().heard.clone();
    let lengths: Vec<_> = heard.iter().map(|(kind, bytes)| (*kind, bytes.len())).collect();
    assert_eq!(lengths, [(Kind::Text, 5), (Kind::Binary, 300_000), (Kind::Text, 0), (Kind::Text, 4)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_session_has_no_time_for_is_given_back() {
    let house = House::enter(ROOMY).await;
    house.stage.lock().unwrap().congested = true;
    let began = now();
    assert_eq!(house.lane.send(Kind::Text, b"first", 5 * SECOND).await, Sent::Busy);
    assert_eq!(now() - began, 5 * SECOND);
    let waker = {
        let mut stage = house.stage.lock().unwrap();
        stage.congested = false;
        stage.waker.take().unwrap()
    };
    waker.wake();
    assert_eq!(house.send("second").await, Sent::Taken);
    let heard = house.stage.lock().unwrap().heard.clone();
    assert!(heard.iter().all(|(_, bytes)| bytes != "first"), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn one_sends_at_a_time_and_the_others_wait_their_time() {
    let house = House::enter(ROOMY).await;
    let first = house.lane.turn_to_send(SECOND).await.unwrap();
    assert!(house.lane.turn_to_send(SECOND).await.is_none());
    drop(first);
    assert!(house.lane.turn_to_send(SECOND).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_message_over_which_the_session_ends_is_told_from_the_last_of_a_good_one() {
    let house = House::enter(ROOMY).await;
    assert_eq!(house.send("break").await, Sent::Broken);
    assert_eq!(house.hear().await, text("broken"));
    assert_eq!(house.send("more").await, Sent::Gone);
    let house = House::enter(ROOMY).await;
    assert_eq!(house.send("bye").await, Sent::Taken);
    assert_eq!(house.hear().await, text("goodbye"));
    assert_eq!(house.send("more").await, Sent::Gone);
    house.lane.end();
    assert!(matches!(house.receive().await, Received::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_may_take_its_time_to_be_found_out_but_not_say_too_much() {
    let house = House::open(ROOMY);
    assert_eq!(house.send("auth").await, Sent::Taken);
    assert!(!house.lane.is_established());
    assert_eq!(house.hear().await, text("welcome"));
    assert!(house.lane.is_established());
    let house = House::open(ROOMY);
    assert_eq!(house.send(&"x".repeat(1000)).await, Sent::Broken, "with its head it is too much");
    assert_eq!(house.hear().await, text("failed: too much was sent before the session was established"));
    let house = House::open(ROOMY);
    let began = now();
    assert_eq!(house.hear().await, text("failed: the session was not established in time"));
    assert_eq!(now() - began, 10 * SECOND);
}

// ---- the end ---------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn silence_counts_from_the_end_of_the_last_receive() {
    let house = House::enter(ROOMY).await;
    let began = now();
    let silence = house.lane.until_silent(30 * SECOND);
    let client = async {
        for _ in 0..5 {
            tokio::time::sleep(29 * SECOND).await;
            assert!(matches!(house.lane.receive(31 * SECOND).await, Received::Nothing));
        }
        assert_eq!(house.send("this is no receive").await, Sent::Taken);
    };
    tokio::join!(silence, client);
    assert_eq!(now() - began, (5 * 60 + 30) * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_ends_the_session_whatever_it_has_left_unread() {
    let house = House::enter(ROOMY).await;
    for number in 0..30 {
        house.publish(10_000, number);
    }
    settle().await;
    let began = now();
    house.lane.hang_up();
    house.pump.await.unwrap().unwrap();
    assert_eq!(now(), began);
    house.lane.until_fetched().await;
}

#[tokio::test(start_paused = true)]
async fn a_farewell_is_what_is_heard_last() {
    let house = House::enter(ROOMY).await;
    house.publish(1, b'1');
    house.mailbox.push(Parcel::Farewell(Farewell::Shutdown));
    assert_eq!(house.hear().await.1, "1");
    assert_eq!(house.hear().await, text("farewell"));
    house.lane.until_fetched().await;
    house.pump.await.unwrap().unwrap();
}

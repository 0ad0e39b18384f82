//! The pump, face to face with a peer in memory, under virtual time. The session follows a script.

#![expect(clippy::unwrap_used, reason = "whatever fails here is to fail the test")]

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;

use tandem_broker::core::access::authorizer::{Authorizing, Decision, Inquiry};
use tandem_broker::core::access::{Applicant, Authenticating, Authenticator, Credentials, Peer, Principal};
use tandem_broker::core::mailbox::{Bounds, Mailbox, Overflow, Pushed, mailbox};
use tandem_broker::core::message::{Frame, Kind, Message, Publication, SessionId};
use tandem_broker::core::name::Name;
use tandem_broker::core::parcel::{Farewell, Parcel, SubscriptionId};
use tandem_broker::core::protocol::{Close, Output, Reason, Session};
use tandem_broker::front::connection::{Connection, Parts, Pump, PumpLimits, now};
use tandem_broker::front::sockjs::socket::SockJsSocket;
use tandem_broker::front::transport::Transport;
use tandem_broker::front::websocket::{WebSocket, WebSocketLimits};
use tandem_broker::front::wire::Wire;
use tandem_protocols::payload::{Content, Payload};
use tandem_protocols::websocket::deflate::{WindowBits, compress};
use tandem_protocols::websocket::extensions::{Agreement, Direction};
use tandem_protocols::websocket::frame::{Opcode, Role, Unit, masked};
use tandem_protocols::websocket::message::{Decoder, Event, Limits};

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

/// What the test sees of a session, and tells it.
#[derive(Default)]
struct Stage {
    lines: Vec<String>,
    delivered: usize,
    outputs: VecDeque<Output>,
    established: bool,
    congested: bool,
    paced: bool,
    paced_since: Option<Instant>,
    waker: Option<Waker>,
    unfinished: String,
    /// Each event that is delivered puts another into the mailbox: `Some(true)` also says something.
    endless: Option<bool>,
    /// So many messages of what came as one were not taken yet; each is answered by 100 bytes.
    rest: usize,
    /// Each of them is more than the realm has room for.
    rest_congests: bool,
}

struct Script {
    stage: Arc<Mutex<Stage>>,
    mailbox: Mailbox,
}

impl Stage {
    fn say(&mut self, bytes: impl Into<Bytes>) {
        self.outputs.push_back(Output::Send(Frame::Own(Message::new(Kind::Binary, bytes.into()))));
    }

    fn close(&mut self, reason: Reason) {
        self.outputs.push_back(Output::Close(Close::new(reason, "")));
    }

    fn take(&mut self, line: &str) {
        self.lines.push(line.into());
        match line.split_once(' ') {
            Some(("say", length)) => self.say(vec![b'.'; length.parse().unwrap_or(0)]),
            _ => match line {
                "hello" => self.established = true,
                "auth" => {
                    let applicant = Applicant {
                        realm: "r".into(),
                        user: "u".into(),
                        method: "test",
                        session: None,
                        extra: None,
                    };
                    let credentials = Credentials { applicant, secret: "s".into() };
                    self.outputs.push_back(Output::Authenticate(Box::new(credentials)));
                }
                "ask" => {
                    let answer: Authorizing = Box::pin(async {
                        tokio::time::sleep(3 * SECOND).await;
                        Ok(Decision { allow: true, disclose: None, cache: None })
                    });
                    self.outputs.push_back(Output::Authorize(Inquiry(answer)));
                }
                "ask nobody" => {
                    let answer: Authorizing = Box::pin(std::future::pending());
                    self.outputs.push_back(Output::Authorize(Inquiry(answer)));
                }
                "bye" => {
                    self.say("goodbye");
                    self.close(Reason::Done);
                }
                "stop" => self.endless = None,
                "many" => self.rest = 100,
                "panic" => panic!("as the script says"),
                _ => {}
            },
        }
    }
}

impl Session for Script {
    fn receive(&mut self, _kind: Kind, bytes: Bytes, _now: Instant) {
        let mut stage = self.stage.lock().unwrap_or_else(|broken| broken.into_inner());
        stage.unfinished.push_str(std::str::from_utf8(&bytes).unwrap());
        while let Some((line, rest)) = stage.unfinished.clone().split_once('\n') {
            stage.unfinished = rest.into();
            stage.take(line);
        }
    }

    fn proceed(&mut self, _now: Instant) -> bool {
        let mut stage = self.stage.lock().unwrap_or_else(|broken| broken.into_inner());
        let is_left = stage.rest > 0;
        if is_left {
            stage.rest -= 1;
            stage.congested |= stage.rest_congests;
            stage.say(vec![b'.'; 100]);
        }
        is_left
    }

    fn deliver(&mut self, parcel: Parcel, _now: Instant) {
        let mut stage = self.stage.lock().unwrap();
        stage.delivered += 1;
        match parcel {
            Parcel::Event { publication, .. } => {
                let endless = stage.endless;
                if endless != Some(false)
                    && let Content::Opaque(bytes) = publication.payload.content()
                {
                    stage.say(bytes.clone());
                }
                if endless.is_some() {
                    self.mailbox.push(event(100));
                }
            }
            Parcel::Authenticated(result) => {
                stage.established = result.is_ok();
                stage.say("welcome");
            }
            Parcel::Authorized(answer) => stage.say(if answer.is_ok() { "allowed" } else { "unknown" }),
            Parcel::Farewell(_) => {
                stage.say("farewell");
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
        self.stage.lock().unwrap().outputs.pop_front()
    }

    fn fail(&mut self, _reason: &str, _now: Instant) {
        self.stage.lock().unwrap().say("failed");
    }

    fn is_established(&self) -> bool {
        self.stage.lock().unwrap_or_else(|broken| broken.into_inner()).established
    }

    fn is_congested(&self, waker: &Waker) -> bool {
        let mut stage = self.stage.lock().unwrap();
        stage.waker = Some(waker.clone());
        stage.congested
    }

    fn paced_until(&self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        let mut stage = self.stage.lock().unwrap();
        stage.waker = Some(waker.clone());
        let since =
            if stage.paced { *stage.paced_since.get_or_insert(now) } else { stage.paced_since.take()? };
        let until = since + time_max;
        stage.paced &= now < until;
        stage.paced.then_some(until)
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

fn event(bytes: usize) -> Parcel {
    let publication = Arc::new(Publication::new(
        1,
        Name::parse("t").unwrap(),
        SessionId(1),
        Payload::new(Content::Opaque(vec![b'e'; bytes].into())),
    ));
    Parcel::Event { publication, subscription: SubscriptionId(1) }
}

// ---- a connection --------------------------------------------------------------------------------------

const ROOMY: Bounds = Bounds { bytes_soft_max: 1 << 30, bytes_max: 1 << 30, overflow: Overflow::Disconnect };

struct House {
    stage: Arc<Mutex<Stage>>,
    mailbox: Mailbox,
    task: JoinHandle<io::Result<()>>,
}

fn connection<W: Wire>(
    transport: Transport,
    wire: W,
    bounds: Bounds,
) -> (Arc<Mutex<Stage>>, Mailbox, Connection<W>) {
    let (mailbox, inbox) = mailbox(bounds);
    let stage = Arc::new(Mutex::new(Stage::default()));
    let connection = Connection::new(Parts {
        wire,
        transport,
        session: Box::new(Script { stage: stage.clone(), mailbox: mailbox.clone() }),
        inbox,
        peer: Peer::Local,
        authenticator: Arc::new(Slow),
        pump: Pump::new(limits()),
        stranger: None,
        opened: now(),
    });
    (stage, mailbox, connection)
}

impl House {
    fn open(transport: Transport, wire: impl Wire, bounds: Bounds) -> House {
        let (stage, mailbox, connection) = connection(transport, wire, bounds);
        House { stage, mailbox, task: tokio::spawn(connection) }
    }

    /// A plain stream, whose peer was let in.
    fn stream(wire_bytes: usize, bounds: Bounds) -> (House, DuplexStream) {
        let (ours, theirs) = duplex(wire_bytes);
        let house = House::open(Transport::Stream, ours, bounds);
        house.stage.lock().unwrap().established = true;
        (house, theirs)
    }

    fn websocket(wire_bytes: usize) -> (House, Client) {
        let (ours, client) = Client::with_wire(wire_bytes);
        let house = House::open(websocket(None), ours, ROOMY);
        house.stage.lock().unwrap().established = true;
        (house, client)
    }

    /// The same with SockJS's frames in it.
    fn sockjs(wire_bytes: usize) -> (House, Client) {
        let (ours, theirs) = duplex(wire_bytes);
        let house = House::open(sockjs(), ours, ROOMY);
        house.stage.lock().unwrap().established = true;
        let decoder = Decoder::new(Role::Client, SOCKJS_LIMITS, None);
        (house, Client { wire: theirs, decoder, events: VecDeque::new() })
    }

    fn lines(&self) -> Vec<String> {
        self.stage.lock().unwrap().lines.clone()
    }

    fn delivered(&self) -> usize {
        self.stage.lock().unwrap().delivered
    }

    async fn end(self) -> io::Result<()> {
        self.task.await.unwrap()
    }
}

const WEBSOCKET_LIMITS: Limits =
    Limits { message_bytes_max: 1 << 20, fragments_max: 1000, inflate_ratio_max: 100 };

fn websocket(agreement: Option<&Agreement>) -> Transport {
    let (established, stranger) = (WEBSOCKET_LIMITS.into(), WEBSOCKET_LIMITS.into());
    let limits = WebSocketLimits { established, stranger, fragment_bytes: 64 * 1024 };
    Transport::WebSocket(WebSocket::new(limits, agreement))
}

/// One turn.
fn turn<W: Wire>(connection: &mut Connection<W>) {
    assert!(Pin::new(connection).poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// A WebSocket peer.
struct Client {
    wire: DuplexStream,
    decoder: Decoder,
    events: VecDeque<Event>,
}

impl Client {
    fn with_wire(wire_bytes: usize) -> (DuplexStream, Client) {
        let (ours, wire) = duplex(wire_bytes);
        let decoder = Decoder::new(Role::Client, WEBSOCKET_LIMITS, None);
        (ours, Client { wire, decoder, events: VecDeque::new() })
    }

    async fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.wire.write_all(&masked(opcode, payload, [1, 2, 3, 4])).await.unwrap();
    }

    /// What comes next; nothing at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let mut scratch = vec![0; 4096];
            let length = self.wire.read(&mut scratch).await.unwrap();
            if length == 0 {
                return None;
            }
            let mut data = &mut scratch[..length];
            while let Some(event) = self.decoder.next(&mut data).unwrap() {
                self.events.push_back(event);
            }
        }
    }

    async fn next_close(&mut self) -> Option<u16> {
        match self.next().await {
            Some(Event::Close { code, .. }) => code,
            other => panic!("not a close: {other:?}"),
        }
    }
}

/// Lets the pump do all that it can at this moment.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

async fn read_all(wire: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    wire.read_to_end(&mut all).await.unwrap();
    all
}

fn is_timeout(result: io::Result<()>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

// ---- permissions ---------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn while_a_question_is_open_nothing_more_is_read_and_the_peer_is_not_silent() {
    let (house, mut client) = House::websocket(1 << 16);
    let began = now();
    let both: Vec<u8> = [&b"ask\n"[..], b"say 5\n"]
        .iter()
        .flat_map(|line| masked(Opcode::Binary, line, [1, 2, 3, 4]))
        .collect();
    client.wire.write_all(&both).await.unwrap();
    client.send(Opcode::Binary, b"say 7\n").await;
    settle().await;
    assert_eq!(house.lines(), ["ask"]);
    house.mailbox.push(event(3));
    let mut said = Vec::new();
    while said.len() < 4 {
        match client.next().await {
            Some(Event::Message { payload, .. }) => said.push(payload),
            other => panic!("not a message: {other:?}"),
        }
    }
    assert_eq!(said, [&b"eee"[..], b"allowed", b".....", b"......."]);
    assert_eq!(now() - began, 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_answers_is_answered_in_time() {
    let (house, mut wire) = House::stream(4096, ROOMY);
    let began = now();
    wire.write_all(b"ask nobody\n").await.unwrap();
    let mut answer = [0; 7];
    wire.read_exact(&mut answer).await.unwrap();
    assert_eq!((&answer[..], now() - began), (&b"unknown"[..], 10 * SECOND));
    wire.write_all(b"bye\n").await.unwrap();
    assert_eq!(read_all(&mut wire).await, b"goodbye");
    drop(wire);
    house.end().await.unwrap();
}

// ---- strangers -----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_stranger_that_says_nothing_is_shown_out_in_time() {
    let (ours, mut wire) = duplex(4096);
    let house = House::open(Transport::Stream, ours, ROOMY);
    let began = now();
    assert_eq!(read_all(&mut wire).await, b"failed");
    assert_eq!(now() - began, Duration::from_millis(10_000));
    drop(wire);
    house.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_says_too_much_is_shown_out() {
    let (ours, mut wire) = duplex(4096);
    let house = House::open(Transport::Stream, ours, ROOMY);
    wire.write_all(&[b'x'; 1000]).await.unwrap();
    settle().await;
    assert!(!house.task.is_finished());
    wire.write_all(b"x").await.unwrap();
    assert_eq!(read_all(&mut wire).await, b"failed");
    drop(wire);
    house.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_was_let_in_may_be_silent_and_say_much() {
    let (ours, mut wire) = duplex(4096);
    let house = House::open(Transport::Stream, ours, ROOMY);
    wire.write_all(b"hello\n").await.unwrap();
    tokio::time::sleep(1000 * SECOND).await;
    for _ in 0..100 {
        wire.write_all(&[b'\n'; 100]).await.unwrap();
    }
    settle().await;
    assert_eq!(house.lines().len(), 1 + 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_authentication_and_keeps_what_was_pipelined() {
    let (ours, mut wire) = duplex(4096);
    let house = House::open(Transport::Stream, ours, ROOMY);
    wire.write_all(b"auth\nfirst\n").await.unwrap();
    settle().await;
    wire.write_all(b"second\n").await.unwrap();
    settle().await;
    assert_eq!(house.lines(), ["auth", "first"], "nothing is read meanwhile");
    let began = now();
    let mut welcome = [0; 7];
    wire.read_exact(&mut welcome).await.unwrap();
    assert_eq!((&welcome, now() - began), (b"welcome", 3 * SECOND));
    settle().await;
    assert_eq!(house.lines(), ["auth", "first", "second"]);
}

// ---- time ----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn silence_is_asked_about_and_ends_the_connection_if_it_goes_on() {
    let (house, mut client) = House::websocket(4096);
    let began = now();
    assert_eq!(client.next().await, Some(Event::Ping(Bytes::new())));
    assert_eq!((now() - began).as_secs(), 25);
    assert!(matches!(client.next().await, Some(Event::Message { payload, .. }) if payload == "failed"));
    assert_eq!(client.next_close().await, Some(4000));
    assert_eq!((now() - began).as_secs(), 35);
    assert!(is_timeout(house.end().await));
    assert_eq!((now() - began).as_secs(), 39);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_stays() {
    let (house, mut client) = House::websocket(4096);
    for _ in 0..10 {
        assert_eq!(client.next().await, Some(Event::Ping(Bytes::new())));
        client.send(Opcode::Pong, b"").await;
    }
    assert!(!house.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_spoke_in_time_was_not_silent_though_the_pumps_turn_comes_late() {
    let (ours, mut client) = Client::with_wire(4096);
    let (stage, _mailbox, mut connection) = connection(websocket(None), ours, ROOMY);
    stage.lock().unwrap().established = true;
    turn(&mut connection);
    tokio::time::advance(26 * SECOND).await;
    turn(&mut connection);
    assert_eq!(client.next().await, Some(Event::Ping(Bytes::new())));
    client.send(Opcode::Pong, b"").await;
    tokio::time::advance(11 * SECOND).await;
    turn(&mut connection);
    let message = masked(Opcode::Binary, b"say 3\n", [1, 2, 3, 4]);
    client.wire.write_all(&message[..5]).await.unwrap();
    turn(&mut connection);
    client.wire.write_all(&message[5..]).await.unwrap();
    tokio::time::advance(31 * SECOND).await;
    turn(&mut connection);
    assert!(matches!(client.next().await, Some(Event::Message { payload, .. }) if payload == "..."));
}

#[tokio::test(start_paused = true)]
async fn a_message_must_arrive_whole_in_time() {
    let (_house, mut client) = House::websocket(4096);
    let frame = masked(Opcode::Text, b"never to be finished", [1, 2, 3, 4]);
    let began = now();
    // Drop by drop: it is not silence that ends it.
    for byte in &frame[..12] {
        if client.wire.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(3 * SECOND).await;
    }
    assert!(matches!(client.next().await, Some(Event::Message { payload, .. }) if payload == "failed"));
    assert_eq!(client.next_close().await, Some(4000));
    assert!((30..=36).contains(&(now() - began).as_secs()));
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_one_after_the_other_are_in_time_though_each_read_ends_within_one() {
    let (house, mut client) = House::websocket(1 << 16);
    let frame = masked(Opcode::Text, b"line\n", [1, 2, 3, 4]);
    client.wire.write_all(&frame[..3]).await.unwrap();
    let rotated = [&frame[3..], &frame[..3]].concat();
    for _ in 0..100 {
        tokio::time::sleep(SECOND).await;
        client.wire.write_all(&rotated).await.unwrap();
    }
    settle().await;
    assert_eq!(house.lines().len(), 100);
    assert!(!house.task.is_finished());
}

// ---- slow peers ----------------------------------------------------------------------------------------

const SMALL: Bounds = Bounds { bytes_soft_max: 200_000, bytes_max: 400_000, overflow: Overflow::Disconnect };

#[tokio::test(start_paused = true)]
async fn what_a_peer_does_not_read_stays_in_its_mailbox_and_after_a_while_ends_it() {
    let (slow, mut wire) = House::stream(1000, SMALL);
    let (quick, mut reading) = House::stream(1000, SMALL);
    let reader = tokio::spawn(async move {
        let mut all = vec![0; 250_000];
        reading.read_exact(&mut all).await.unwrap();
        reading
    });
    for _ in 0..250 {
        for house in [&slow, &quick] {
            assert_eq!(house.mailbox.push(event(1000)), Pushed::Queued);
        }
    }
    let reading = reader.await.unwrap();
    assert!(slow.delivered() < 100, "the others are still in the mailbox");
    tokio::time::sleep(4 * SECOND).await;
    assert!(!slow.mailbox.is_closed());
    tokio::time::sleep(2 * SECOND).await;
    assert!(slow.mailbox.is_closed());
    let last = read_all(&mut wire).await;
    assert!(last.ends_with(b"efarewell"));
    assert!(last.len() < 100_000);
    drop(wire);
    slow.end().await.unwrap();
    assert!(!quick.mailbox.is_closed());
    assert_eq!(quick.delivered(), 250);
    drop(reading);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_catches_up_in_time_stays() {
    let (house, mut wire) = House::stream(1000, SMALL);
    for _ in 0..250 {
        house.mailbox.push(event(1000));
    }
    tokio::time::sleep(4 * SECOND).await;
    let mut all = vec![0; 250_000];
    wire.read_exact(&mut all).await.unwrap();
    tokio::time::sleep(20 * SECOND).await;
    assert!(!house.mailbox.is_closed());
}

#[tokio::test(start_paused = true)]
async fn over_the_hard_limit_a_session_ends_at_once() {
    let (house, mut wire) = House::stream(1000, SMALL);
    let began = now();
    settle().await;
    while house.mailbox.push(event(1000)) == Pushed::Queued {
        tokio::task::yield_now().await;
    }
    assert!(read_all(&mut wire).await.ends_with(b"efarewell"));
    assert_eq!(now() - began, Duration::ZERO);
    drop(wire);
    house.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn with_drop_oldest_a_peer_that_does_not_read_gets_the_newest_in_the_end() {
    let (house, mut wire) = House::stream(1000, Bounds { overflow: Overflow::DropOldest, ..SMALL });
    for _ in 0..1000 {
        assert_eq!(house.mailbox.push(event(1000)), Pushed::Queued);
        tokio::task::yield_now().await;
    }
    assert_eq!(house.mailbox.push(event(7)), Pushed::Queued);
    let mut count = 0;
    let mut scratch = vec![0; 1000];
    while let Ok(Ok(length)) = tokio::time::timeout(SECOND, wire.read(&mut scratch)).await {
        count += length;
    }
    assert_eq!(count % 1000, 7);
    assert!(count < 400_000);
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_not_read_while_it_leaves_answers_unread_and_then_is_again() {
    let (house, mut wire) = House::stream(100, ROOMY);
    let asking = async {
        for _ in 0..100 {
            let asked = tokio::time::timeout(SECOND, wire.write_all(b"say 500\n")).await;
            if asked.is_err() {
                break;
            }
        }
    };
    asking.await;
    let asked = house.lines().len();
    // Three answers are too many; behind them, what one read takes.
    assert!((3..30).contains(&asked), "{asked}");
    let mut answers = vec![0; asked * 500];
    wire.read_exact(&mut answers).await.unwrap();
    wire.write_all(b"\nmore\n").await.unwrap();
    settle().await;
    assert!(house.lines().contains(&"more".to_string()));
}

#[tokio::test(start_paused = true)]
async fn of_messages_that_came_as_one_no_more_are_taken_than_their_answers_are_read_and_nothing_before_them()
{
    let (house, mut wire) = House::stream(100, ROOMY);
    wire.write_all(b"many\n").await.unwrap();
    settle().await;
    wire.write_all(b"more\n").await.unwrap();
    settle().await;
    let left = house.stage.lock().unwrap().rest;
    // Eleven answers are too many; as many again are being written.
    assert_eq!(left, 100 - 2 * 11);
    assert_eq!(house.lines(), ["many"]);
    let mut answers = vec![0; 100 * 100];
    wire.read_exact(&mut answers).await.unwrap();
    settle().await;
    assert_eq!(house.stage.lock().unwrap().rest, 0);
    assert_eq!(house.lines(), ["many", "more"]);
}

#[tokio::test(start_paused = true)]
async fn of_messages_that_came_as_one_no_more_are_taken_while_the_realm_is_congested() {
    let (house, mut peer) = House::stream(64 * 1024, ROOMY);
    house.stage.lock().unwrap().rest_congests = true;
    peer.write_all(b"many\n").await.unwrap();
    // Woken, it takes one before it has looked at the rest of what was read, and then one.
    for left in [99, 97, 95] {
        settle().await;
        let waker = {
            let mut stage = house.stage.lock().unwrap();
            assert_eq!(stage.rest, left, "the realm is asked after each");
            stage.congested = false;
            stage.waker.take()
        };
        waker.expect("the connection waits").wake();
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_that_goes_on_reading_is_not_silent() {
    let (house, mut client) = House::websocket(100);
    for _ in 0..4 {
        client.send(Opcode::Text, b"say 500\n").await;
        settle().await;
    }
    let mut taken = 0;
    let mut byte = [0; 10];
    // Longer than ping and pong take together.
    for _ in 0..100 {
        taken += client.wire.read(&mut byte).await.unwrap();
        tokio::time::sleep(SECOND).await;
    }
    assert!(taken < 2000, "there was more all the time");
    assert!(!house.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_at_all_ends() {
    for transport in ["stream", "websocket"] {
        let began = now();
        let (house, wire) = if transport == "stream" {
            let (house, mut wire) = House::stream(100, ROOMY);
            wire.write_all(b"say 5000\n").await.unwrap();
            (house, wire)
        } else {
            let (house, mut client) = House::websocket(100);
            client.send(Opcode::Text, b"say 5000\n").await;
            (house, client.wire)
        };
        assert!(is_timeout(house.end().await), "{transport}");
        let seconds = (now() - began).as_secs();
        assert!((35..=65).contains(&seconds), "{transport}: {seconds}");
        drop(wire);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_faster_than_its_subscribers_is_not_read_for_a_time_and_no_longer() {
    let (house, mut client) = House::websocket(16 * 1024);
    let began = now();
    house.stage.lock().unwrap().paced = true;
    client.send(Opcode::Text, b"one\n").await;
    client.send(Opcode::Text, b"two\n").await;
    tokio::time::sleep(4 * SECOND).await;
    assert!(house.lines().len() <= 1, "it is not read");
    // What there is for it goes on meanwhile.
    house.mailbox.push(event(10));
    assert!(matches!(client.next().await, Some(Event::Message { .. })));
    assert!(now() < began + 5 * SECOND);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(house.lines(), ["one", "two"], "it is read again");
    // The next time it ends earlier.
    house.stage.lock().unwrap().paced = true;
    client.send(Opcode::Text, b"three\n").await;
    client.send(Opcode::Text, b"four\n").await;
    settle().await;
    assert!(house.lines().len() <= 3);
    let waker = {
        let mut stage = house.stage.lock().unwrap();
        stage.paced = false;
        stage.waker.take().unwrap()
    };
    waker.wake();
    settle().await;
    assert_eq!(house.lines(), ["one", "two", "three", "four"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_held_up_may_still_be_told_to_go() {
    let (house, mut client) = House::websocket(16 * 1024);
    house.stage.lock().unwrap().paced = true;
    client.send(Opcode::Text, b"one\n").await;
    settle().await;
    house.mailbox.end(Farewell::Shutdown);
    assert!(matches!(client.next().await, Some(Event::Message { payload, .. }) if payload == "farewell"));
    assert!(matches!(client.next().await, Some(Event::Close { .. })));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_not_waited_for_until_its_wire_is_gone() {
    let (house, mut client) = House::websocket(4096);
    house.mailbox.push(event(500_000));
    settle().await;
    assert!(!house.mailbox.is_closed());
    client.send(Opcode::Close, &[0x03, 0xe8]).await;
    settle().await;
    assert!(house.mailbox.is_closed(), "with most of the message still to be written");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_is_answered_between_the_fragments_of_a_large_message() {
    let (house, mut client) = House::websocket(16 * 1024);
    house.mailbox.push(event(500_000));
    settle().await;
    client.send(Opcode::Close, &[0x03, 0xe8]).await;
    settle().await;
    assert_eq!(client.next_close().await, Some(1000), "before the message is whole");
    drop(client);
    house.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_not_read_while_the_realm_is_congested_and_not_blamed_for_it() {
    let (house, mut client) = House::websocket(4096);
    // The ping of before is not answered when the pause begins.
    assert_eq!(client.next().await, Some(Event::Ping(Bytes::new())));
    house.stage.lock().unwrap().congested = true;
    let frame = masked(Opcode::Text, b"first\n", [1, 2, 3, 4]);
    client.wire.write_all(&frame[..4]).await.unwrap();
    settle().await;
    client.send(Opcode::Pong, b"").await;
    tokio::time::sleep(200 * SECOND).await;
    assert!(!house.task.is_finished());
    house.stage.lock().unwrap().congested = false;
    let waker = house.stage.lock().unwrap().waker.take().unwrap();
    waker.wake();
    settle().await;
    assert!(!house.task.is_finished());
}

// ---- closing -------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_peers_close_is_answered_after_what_was_said() {
    let (house, mut client) = House::websocket(4096);
    client.send(Opcode::Text, b"say 5\n").await;
    client.send(Opcode::Close, &1000_u16.to_be_bytes()).await;
    assert!(matches!(client.next().await, Some(Event::Message { payload, .. }) if payload == "....."));
    assert_eq!(client.next_close().await, Some(1000));
    assert_eq!(client.next().await, None);
    drop(client);
    house.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn our_close_comes_after_the_last_word_and_is_answered() {
    let (house, mut client) = House::websocket(4096);
    client.send(Opcode::Text, b"bye\n").await;
    assert!(matches!(client.next().await, Some(Event::Message { payload, .. }) if payload == "goodbye"));
    assert_eq!(client.next_close().await, Some(1000));
    client.send(Opcode::Ping, b"late").await;
    client.send(Opcode::Close, &1000_u16.to_be_bytes()).await;
    let mut rest = Vec::new();
    client.wire.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"", "nothing may follow a close");
    drop(client);
    house.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_or_not_followed_by_an_end_is_not_waited_for() {
    let (house, mut client) = House::websocket(4096);
    let began = now();
    client.send(Opcode::Text, b"bye\n").await;
    assert!(is_timeout(house.end().await));
    assert_eq!((now() - began).as_secs(), 4);

    let (house, mut client) = House::websocket(4096);
    let began = now();
    client.send(Opcode::Close, b"").await;
    assert!(is_timeout(house.end().await));
    assert_eq!((now() - began).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_breach_of_the_wires_rules_is_answered_in_both_languages() {
    let (_house, mut client) = House::websocket(4096);
    client.wire.write_all(&[0xFF, 0x80, 0, 0, 0, 0]).await.unwrap();
    assert!(matches!(client.next().await, Some(Event::Message { payload, .. }) if payload == "failed"));
    assert_eq!(client.next_close().await, Some(1002));
    assert_eq!(client.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_plain_stream_ends_after_the_last_word() {
    let (house, mut wire) = House::stream(10, ROOMY);
    wire.write_all(b"say 5000\nbye\n").await.unwrap();
    let all = read_all(&mut wire).await;
    assert_eq!(all.len(), 5007);
    assert!(all.ends_with(b".goodbye"));
    // It may have more to say, which nobody hears.
    wire.write_all(b"more\n").await.unwrap();
    drop(wire);
    house.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_only_its_own_direction_still_gets_its_answers() {
    for (asked, answers) in [(&b"say 5000\n"[..], 5000), (b"say 5000\nbye\n", 5007)] {
        let (house, mut wire) = House::stream(100, ROOMY);
        wire.write_all(asked).await.unwrap();
        wire.shutdown().await.unwrap();
        settle().await;
        assert_eq!(read_all(&mut wire).await.len(), answers);
        house.end().await.unwrap();
    }
}

// ---- writing -------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_pong_passes_between_the_fragments_of_a_large_message() {
    let (house, mut client) = House::websocket(16 * 1024);
    client.send(Opcode::Ping, b"first").await;
    assert_eq!(client.next().await, Some(Event::Pong("first".into())));
    house.mailbox.push(event(500_000));
    settle().await;
    client.send(Opcode::Ping, b"second").await;
    settle().await;
    assert_eq!(client.next().await, Some(Event::Pong("second".into())), "before the message is whole");
    assert!(matches!(client.next().await, Some(Event::Message { payload, .. }) if payload.len() == 500_000));
}

#[tokio::test(start_paused = true)]
async fn pings_of_a_peer_that_does_not_read_are_bounded_and_the_newest_answered() {
    let (_house, mut client) = House::websocket(400);
    client.send(Opcode::Text, b"say 900\n").await;
    settle().await;
    for number in 0..100_u8 {
        client.send(Opcode::Ping, &[number]).await;
        settle().await;
    }
    let mut last = Vec::new();
    assert!(matches!(client.next().await, Some(Event::Message { .. })));
    while let Ok(Some(Event::Pong(data))) = tokio::time::timeout(SECOND, client.next()).await {
        last.push(data[0]);
    }
    assert_eq!(last, (84..100).collect::<Vec<_>>());
}

/// Counts writes.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_at_once_is_one_write() {
    let (ours, mut wire) = duplex(1 << 20);
    let writes = Arc::new(AtomicUsize::new(0));
    let house = House::open(Transport::Stream, Counting(ours, writes.clone()), ROOMY);
    house.stage.lock().unwrap().established = true;
    settle().await;
    for _ in 0..100 {
        house.mailbox.push(event(100));
    }
    let mut all = vec![0; 10_000];
    wire.read_exact(&mut all).await.unwrap();
    settle().await;
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    wire.write_all(&b"say 10\n".repeat(50)).await.unwrap();
    wire.read_exact(&mut all[..500]).await.unwrap();
    settle().await;
    assert_eq!(writes.load(Ordering::Relaxed), 2, "so are the answers to what was read at once");
}

/// Takes all that it is given, and brings one thing.
struct Greedy(Option<Bytes>, Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Greedy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.take() {
            Some(bytes) => {
                buffer.put_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Greedy {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.1.lock().unwrap().extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_heard_and_others_have_their_turn_while_there_is_always_more_to_write() {
    for says_something in [true, false] {
        let house = House::open(Transport::Stream, Greedy(Some("stop\n".into()), Arc::default()), ROOMY);
        house.stage.lock().unwrap().established = true;
        house.stage.lock().unwrap().endless = Some(says_something);
        house.mailbox.push(event(100));
        settle().await;
        assert_eq!(house.lines(), ["stop"]);
    }
}

/// A peer that has sent a hundred messages, each of them small, and inflated 50 KB.
async fn inflating() -> (Arc<Mutex<Stage>>, Connection<DuplexStream>, Client) {
    let direction = Direction { takeover: false, bits: WindowBits::MAX };
    let agreement = Agreement { server: direction, client: direction, unit: Unit::Message };
    let (ours, mut client) = Client::with_wire(1 << 16);
    let (stage, _mailbox, connection) = connection(websocket(Some(&agreement)), ours, ROOMY);
    stage.lock().unwrap().established = true;
    let line = [&[b'.'; 50_000][..], b"\n"].concat();
    let mut frame = masked(Opcode::Binary, &compress(&line, WindowBits::MAX), [1, 2, 3, 4]).to_vec();
    frame[0] |= 0x40;
    client.wire.write_all(&frame.repeat(100)).await.unwrap();
    (stage, connection, client)
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_not_silent_while_there_is_something_of_it_that_was_not_taken_in() {
    let (stage, mut connection, client) = inflating().await;
    for _ in 0..10 {
        turn(&mut connection);
        tokio::time::advance(20 * SECOND).await;
    }
    assert!(stage.lock().unwrap().lines.len() < 100);
    tokio::spawn(connection);
    settle().await;
    assert_eq!(stage.lock().unwrap().lines.len(), 100);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn others_have_their_turn_before_all_is_taken_in_of_what_inflates_to_much() {
    let (stage, mut connection, _client) = inflating().await;
    turn(&mut connection);
    let taken = stage.lock().unwrap().lines.len();
    assert!((1..=10).contains(&taken), "all of it was read at once: {taken}");
    tokio::spawn(connection);
    settle().await;
    assert_eq!(stage.lock().unwrap().lines.len(), 100);
}

// ---- breakage ------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_session_ends_only_its_connection() {
    let (broken, mut wire) = House::stream(4096, ROOMY);
    let (whole, mut other) = House::stream(4096, ROOMY);
    wire.write_all(b"panic\n").await.unwrap();
    assert!(broken.task.await.is_err_and(|error| error.is_panic()));
    assert_eq!(broken.mailbox.push(event(1)), Pushed::Closed);
    assert_eq!(wire.read(&mut [0]).await.unwrap(), 0);
    for _ in 0..10 {
        other.write_all(b"say 3\n").await.unwrap();
        whole.mailbox.push(event(2));
        other.read_exact(&mut [0; 5]).await.unwrap();
    }
    assert!(!whole.task.is_finished());
}

// ---- SockJS ----------------------------------------------------------------------------------------------

const SOCKJS_LIMITS: Limits =
    Limits { message_bytes_max: 1 << 24, fragments_max: 1000, inflate_ratio_max: 100 };

fn sockjs() -> Transport {
    let (established, stranger) = (SOCKJS_LIMITS, SOCKJS_LIMITS);
    let limits = WebSocketLimits {
        established: established.into(),
        stranger: stranger.into(),
        fragment_bytes: 64 * 1024,
    };
    Transport::SockJs(Box::new(SockJsSocket::new(WebSocket::new(limits, None))))
}

fn is_text(event: Option<&Event>, begins: &str) -> bool {
    matches!(event, Some(Event::Message { payload, .. }) if payload.starts_with(begins.as_bytes()))
}

#[tokio::test(start_paused = true)]
async fn a_heart_beat_of_sockjs_does_not_come_between_the_fragments_of_a_message() {
    // Longer than what is written in one turn.
    let asked = masked(Opcode::Text, b"\"say 14000000\\n\"", [1, 2, 3, 4]);
    let wire = Greedy(Some(asked), Arc::default());
    let taken = wire.1.clone();
    let (stage, _mailbox, mut connection) = connection(sockjs(), wire, ROOMY);
    stage.lock().unwrap().established = true;
    let mut turn = async || {
        poll_fn(|cx| Poll::Ready(Pin::new(&mut connection).poll(cx).is_pending())).await;
    };
    turn().await;
    tokio::time::advance(26 * SECOND).await;
    turn().await;
    turn().await;
    let mut taken = std::mem::take(&mut *taken.lock().unwrap());
    let (mut taken, mut events) = (&mut taken[..], Vec::new());
    let mut decoder = Decoder::new(Role::Client, SOCKJS_LIMITS, None);
    while let Some(event) = decoder.next(&mut taken).unwrap() {
        events.push(event);
    }
    let [open, ping, message] = &events[..] else { panic!("{} events", events.len()) };
    assert!(is_text(Some(open), "o") && is_text(Some(message), "a[\"..."));
    assert!(matches!(ping, Event::Ping(_)), "it is asked all the same");
}

#[tokio::test(start_paused = true)]
async fn who_closes_in_the_middle_of_a_message_of_sockjs_is_answered_by_a_close_and_nothing_else() {
    let (house, mut client) = House::sockjs(1000);
    assert!(is_text(client.next().await.as_ref(), "o"));
    client.send(Opcode::Text, b"\"say 300000\\n\"").await;
    tokio::task::yield_now().await;
    client.send(Opcode::Close, &1000_u16.to_be_bytes()).await;
    assert!(matches!(client.next().await, Some(Event::Close { code: Some(1000), .. })));
    assert!(client.next().await.is_none());
    drop(client);
    let _ = house.end().await;
}

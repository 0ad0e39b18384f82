//! What receives of a SockJS session, under virtual time. The session is not there: the test writes what it would.

#![expect(clippy::unwrap_used, reason = "whatever fails here is to fail the test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use tandem_broker::core::access::Peer;
use tandem_broker::core::message::{Frame, Kind, Message};
use tandem_broker::core::protocol::Reason;
use tandem_broker::front::answer::Pieces;
use tandem_broker::front::connection::now;
use tandem_broker::front::gate::Gate;
use tandem_broker::front::longpoll::Attendance;
use tandem_broker::front::longpoll::lane::{Claim, Lane, LaneWire, LongPoll, put_framed};
use tandem_broker::front::sockjs::asked::Verb;
use tandem_broker::front::sockjs::receiver::{Manner, Receiver, Said, Stream};

const BEAT: Duration = Duration::from_secs(25);

struct Ends {
    lane: Arc<Lane>,
    wire: LaneWire,
    transport: LongPoll,
    gate: Arc<Gate>,
    attendance: Arc<Attendance>,
}

fn ends() -> Ends {
    let (lane, wire) = Lane::new();
    let gate = Gate::new(1, 1);
    let attendance = Attendance::new(gate.try_enter(&Peer::Local).unwrap(), now());
    Ends { lane, transport: wire.text_transport(), wire, gate, attendance }
}

impl Ends {
    async fn say(&mut self, text: &str) {
        let mut framed = BytesMut::new();
        put_framed(Kind::Text, text.as_bytes(), &mut framed);
        self.wire.write_all(&framed).await.unwrap();
    }

    fn receiver(&self, greets: bool) -> Receiver {
        let Claim::Held(receive) = self.lane.claim() else { panic!("somebody else receives") };
        Receiver::new(receive, BEAT, self.attendance.clone(), greets)
    }

    fn stream(&self, verb: Verb, bytes_max: usize) -> Pieces {
        Stream::new(Manner::of(verb), self.receiver(true), bytes_max).into_body()
    }
}

async fn piece(body: &mut Pieces) -> Option<Bytes> {
    Some(body.frame().await?.unwrap().into_data().unwrap())
}

async fn text(body: &mut Pieces) -> String {
    String::from_utf8(piece(body).await.unwrap().into()).unwrap()
}

fn frame(text: &str) -> Said {
    Said::Frame(text.into())
}

#[tokio::test(start_paused = true)]
async fn a_receiver_gets_what_is_there_in_one_frame_and_a_heart_beat_when_there_is_nothing() {
    let mut ends = ends();
    let mut receiver = ends.receiver(true);
    assert_eq!(receiver.next().await, frame("o"));
    ends.say("a").await;
    ends.say("é\n\"").await;
    assert_eq!(receiver.next().await, frame("a[\"a\",\"é\\n\\\"\"]"));
    let began = Instant::now();
    assert_eq!(receiver.next().await, frame("h"));
    assert_eq!(began.elapsed(), BEAT);
}

#[tokio::test(start_paused = true)]
async fn of_two_receivers_the_newer_gets_nothing() {
    let ends = ends();
    let first = ends.receiver(true);
    assert!(matches!(ends.lane.claim(), Claim::Taken));
    first.finish();
    assert!(matches!(ends.lane.claim(), Claim::Held(_)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_as_its_transport_wants() {
    for (verb, prelude, open, message) in [
        (Verb::XhrStreaming, "h".repeat(2048) + "\n", "o\n", "a[\"x\"]\n"),
        (Verb::EventSource, "\r\n".into(), "data: o\r\n\r\n", "data: a[\"x\"]\r\n\r\n"),
    ] {
        let mut ends = ends();
        let mut body = ends.stream(verb, 1000);
        assert_eq!(text(&mut body).await, prelude);
        assert_eq!(text(&mut body).await, open);
        ends.say("x").await;
        assert_eq!(text(&mut body).await, message);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_source_gets_percent_signs_as_a_uri_has_them() {
    for (verb, message) in
        [(Verb::XhrStreaming, "a[\"100 %41\"]\n"), (Verb::EventSource, "data: a[\"100 %2541\"]\r\n\r\n")]
    {
        let mut ends = ends();
        let mut body = ends.stream(verb, 1000);
        let _ = (piece(&mut body).await, piece(&mut body).await);
        ends.say("100 %41").await;
        assert_eq!(text(&mut body).await, message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_it_is_long_enough_and_the_session_goes_on() {
    let mut ends = ends();
    let mut body = ends.stream(Verb::XhrStreaming, 20);
    let _ = (piece(&mut body).await, piece(&mut body).await);
    for _ in 0..2 {
        // 9 bytes each, after 2.
        ends.say("1234").await;
        assert_eq!(text(&mut body).await, "a[\"1234\"]\n");
    }
    assert!(piece(&mut body).await.is_none());
    drop(body);
    ends.transport.note_established();
    assert_eq!(ends.receiver(true).next().await, frame("o"), "it was not hung up");
}

#[tokio::test(start_paused = true)]
async fn the_last_frame_says_why_and_is_said_again() {
    for (reason, last) in [
        (Reason::Done, "c[3000,\"Go away!\"]"),
        (Reason::Violation, "c[1002,\"protocol error\"]"),
        (Reason::Shutdown, "c[1001,\"shutting down\"]"),
    ] {
        let mut ends = ends();
        let mut body = ends.stream(Verb::XhrStreaming, 1000);
        let _ = (piece(&mut body).await, piece(&mut body).await);
        ends.say("ERROR").await;
        ends.transport.close(Some(reason));
        ends.wire.shutdown().await.unwrap();
        assert_eq!(text(&mut body).await, "a[\"ERROR\"]\n");
        assert_eq!(text(&mut body).await, format!("{last}\n"));
        assert!(piece(&mut body).await.is_none());
        timeout(BEAT, ends.lane.until_known()).await.unwrap();
        assert!(matches!(ends.lane.claim(), Claim::Spent));
        assert_eq!(ends.lane.ended(), Some(reason));
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_breaks_off_ends_the_session_unless_it_is_a_strangers() {
    let ends = ends();
    drop(ends.stream(Verb::XhrStreaming, 1000));
    assert!(timeout(BEAT, ends.lane.until_hung_up()).await.is_err(), "a stranger's has its time");
    ends.transport.note_established();
    let mut body = ends.stream(Verb::XhrStreaming, 1000);
    assert!(piece(&mut body).await.is_some());
    drop(body);
    timeout(BEAT, ends.lane.until_hung_up()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_no_place_among_strangers_once_its_session_was_let_in() {
    let mut ends = ends();
    let mut receiver = ends.receiver(true);
    assert_eq!(receiver.next().await, frame("o"));
    ends.say("who are you?").await;
    receiver.next().await;
    assert!(ends.gate.try_enter(&Peer::Local).is_none());
    ends.transport.note_established();
    ends.say("come in").await;
    receiver.next().await;
    assert!(ends.gate.try_enter(&Peer::Local).is_some());
}

#[tokio::test(start_paused = true)]
async fn frames_are_no_longer_than_what_is_there_and_a_bit() {
    let mut ends = ends();
    let mut receiver = ends.receiver(true);
    receiver.next().await;
    for _ in 0..3 {
        ends.say(&"x".repeat(20_000)).await;
    }
    let Said::Frame(all) = receiver.next().await else { panic!() };
    assert_eq!(all.len(), 3 * 20_002 + 2 + "a[]".len());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_text_is_not_put_onto_the_lane_and_ends_the_session() {
    let mut ends = ends();
    let mut buffer = Vec::new();
    let frame = |kind, bytes: &'static [u8]| Frame::Own(Message::new(kind, Bytes::from_static(bytes)));
    ends.transport.frame(&frame(Kind::Binary, "é".as_bytes()), &mut buffer);
    assert!(
        ends.transport.take_failure().is_none() && !buffer.is_empty(),
        "UTF-8 is text, whatever it is called"
    );
    buffer.clear();
    ends.transport.frame(&frame(Kind::Binary, b"\xff"), &mut buffer);
    let close = ends.transport.take_failure().unwrap();
    assert_eq!((buffer.len(), close.reason), (0, Reason::Refused));
    assert!(close.detail.contains("UTF-8"), "{}", close.detail);
    assert!(ends.transport.take_failure().is_none());
}

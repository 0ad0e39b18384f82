//! RawSocket over TCP, octet by octet: handshakes, pings at any time, and the lengths that both sides announce.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use tandem_broker::config::Config;
use tandem_broker::server::Server;
use tandem_tests::attacker::Bystanders;
use tandem_tests::broker::{Broker, eventually, soon};

const HELLO: &[u8] = br#"[1,"realm1",{"roles":{"caller":{},"callee":{},"publisher":{},"subscriber":{}}}]"#;

/// 2^(9 + n) bytes, of JSON.
const LARGEST: u8 = 0xf1;
const TWO_KIB: u8 = 0x21;

const MESSAGE: u8 = 0;
const PING: u8 = 1;
const PONG: u8 = 2;
/// The bit for exactly 16 MiB.
const X: u8 = 0b1000;

struct Peer(TcpStream);

impl Peer {
    async fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer(stream)
    }

    /// A peer whose handshake was answered; what the broker takes is 2^(9 + n) bytes.
    async fn shake_hands(address: SocketAddr, choice: u8) -> (Peer, u8) {
        let mut peer = Peer::connect(address).await;
        peer.write(&[0x7f, choice, 0, 0]).await;
        let answer: [u8; 4] = peer.read(4).await.try_into().unwrap();
        assert_eq!((answer[0], answer[1] & 0x0f, &answer[2..]), (0x7f, choice & 0x0f, &[0, 0][..]));
        (peer, answer[1] >> 4)
    }

    /// A peer that was let in.
    async fn join(address: SocketAddr, choice: u8) -> Peer {
        let (mut peer, _) = Peer::shake_hands(address, choice).await;
        peer.say(HELLO).await;
        let welcome = peer.hear().await;
        assert!(welcome.starts_with("[2,"), "{welcome}");
        peer
    }

    async fn write(&mut self, bytes: &[u8]) {
        soon("the broker reads", self.0.write_all(bytes)).await.unwrap();
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        soon("the broker writes", self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    async fn frame(&mut self, kind: u8, payload: &[u8]) {
        let [top, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let first = if top == 0 { kind } else { kind | X };
        self.write(&[first, a, b, c]).await;
        self.write(payload).await;
    }

    async fn next(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(4).await;
        let length = u32::from_be_bytes([head[0] >> 3 & 1, head[1], head[2], head[3]]);
        (head[0], self.read(length as usize).await)
    }

    async fn say(&mut self, message: impl AsRef<[u8]>) {
        self.frame(MESSAGE, message.as_ref()).await;
    }

    async fn hear(&mut self) -> String {
        let (kind, payload) = self.next().await;
        assert_eq!(kind & !X, MESSAGE);
        String::from_utf8(payload).unwrap()
    }

    async fn ask(&mut self, message: impl AsRef<[u8]>) -> String {
        self.say(message).await;
        self.hear().await
    }

    async fn is_answered(&mut self, payload: &[u8]) {
        self.frame(PING, payload).await;
        let (kind, answer) = self.next().await;
        assert_eq!((kind & !X, answer.len()), (PONG, payload.len()));
        assert!(answer == payload);
    }

    /// What comes until the end.
    async fn rest(mut self) -> String {
        let mut rest = Vec::new();
        let _end_or_reset = soon("the broker closes", self.0.read_to_end(&mut rest)).await;
        String::from_utf8_lossy(&rest).into_owned()
    }
}

fn arguments(length: usize) -> String {
    "x".repeat(length)
}

#[tokio::test]
async fn pings_are_answered_at_any_time_and_pongs_are_nothing() {
    let broker = Broker::start().await;
    let (mut peer, exponent) = Peer::shake_hands(broker.address(), LARGEST).await;
    assert_eq!(exponent, 11, "1 MiB by default");
    // Before HELLO; and what was not asked for is ignored.
    peer.frame(PONG, b"?").await;
    peer.frame(PONG, b"").await;
    peer.is_answered(b"").await;
    peer.is_answered(b"\0\xff").await;
    // Together with HELLO. The order of the two answers is the broker's.
    let both = [&[0, 0, 0, HELLO.len() as u8][..], HELLO, &[PING, 0, 0, 1, b'p']].concat();
    peer.write(&both).await;
    let mut kinds = [peer.next().await.0, peer.next().await.0];
    kinds.sort_unstable();
    assert_eq!(kinds, [MESSAGE, PONG]);
    // After, and as long as messages.
    peer.is_answered(b"").await;
    peer.is_answered(&vec![b'.'; 1 << 20]).await;
    peer.frame(PONG, &vec![b'.'; 1 << 20]).await;
    assert!(peer.ask(r#"[32,1,{},"a"]"#).await.starts_with("[33,1,"));
}

#[tokio::test]
async fn a_ping_between_the_octets_of_a_message_is_no_ping() {
    let broker = Broker::start().await;
    let mut peer = Peer::join(broker.address(), LARGEST).await;
    let message = br#"[32,1,{},"a"]"#;
    for byte in [&[0, 0, 0, message.len() as u8][..], message].concat() {
        peer.write(&[byte]).await;
    }
    assert!(peer.hear().await.starts_with("[33,1,"));
}

#[tokio::test]
async fn a_peer_that_takes_less_than_it_sends_in_a_ping_is_not_sent_it_back() {
    let broker = Broker::start().await;
    let mut peer = Peer::join(broker.address(), TWO_KIB).await;
    peer.is_answered(&[b'.'; 2048]).await;
    peer.frame(PING, &[b'.'; 2049]).await;
    peer.is_answered(b"next").await;
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection_and_nobody_elses() {
    let broker = Broker::start().await;
    let mut bystanders = Bystanders::enter(broker.address()).await;
    let mebibyte = [0x10, 0, 0];
    for (what, head) in [
        ("a reserved bit", [0x10, 0, 0, 1]),
        ("all of them", [0xf0, 0, 0, 1]),
        ("a type that is reserved", [3, 0, 0, 1]),
        ("the last of these", [7, 0, 0, 1]),
        ("a message without octets", [0, 0, 0, 0]),
        ("more than was announced, by one", [0, mebibyte[0], mebibyte[1], 1]),
        ("a ping of such a length", [PING, mebibyte[0], 0, 1]),
        ("a pong of such a length", [PONG, mebibyte[0], 0, 1]),
        ("16 MiB, which was not announced", [X, 0, 0, 0]),
        ("two lengths", [X, 0, 0, 1]),
    ] {
        for is_let_in in [false, true] {
            let mut peer = if is_let_in {
                Peer::join(broker.address(), LARGEST).await
            } else {
                Peer::shake_hands(broker.address(), LARGEST).await.0
            };
            peer.write(&head).await;
            let rest = peer.rest().await;
            assert!(rest.contains("wamp.error.protocol_violation"), "{what}: {rest}");
        }
    }
    bystanders.talk().await;
    eventually("all have gone", || broker.sessions() == 2).await;
}

#[tokio::test]
async fn of_16_mib_exactly_the_length_is_a_bit_of_its_own() {
    const WHOLE: usize = 1 << 24;
    let broker = Broker::start_with(
        "[limits]\nmessage_bytes_max = 16777216\nmailbox_bytes_max = 67108864\n\
         mailbox_bytes_soft_max = 67108864\n",
    )
    .await;
    let (mut peer, exponent) = Peer::shake_hands(broker.address(), LARGEST).await;
    assert_eq!(exponent, 15);
    assert!(peer.ask(HELLO).await.starts_with("[2,"));
    peer.is_answered(&vec![b'.'; WHOLE]).await;
    peer.is_answered(&vec![b'.'; WHOLE - 1]).await;
    let mut caller = Peer::join(broker.address(), LARGEST).await;
    assert!(peer.ask(r#"[64,1,{},"p"]"#).await.starts_with("[65,1,"));
    caller.say(r#"[48,1,{},"p"]"#).await;
    let invocation = peer.hear().await;
    assert!(invocation.starts_with("[68,1,"), "{invocation}");
    let result = format!("[70,1,{{}},[\"{}\"]]", arguments(WHOLE - r#"[70,1,{},[""]]"#.len()));
    assert_eq!(result.len(), WHOLE);
    peer.say(&result).await;
    let (head, answer) = caller.next().await;
    assert_eq!((head, answer.len()), (X, WHOLE));
    assert!(answer.starts_with(br#"[50,1,{},["x"#));
}

#[tokio::test]
async fn who_takes_less_than_others_send_is_told_so() {
    const TOO_LONG: &str = "wamp.error.payload_size_exceeded";
    let broker = Broker::start().await;
    let mut small = Peer::join(broker.address(), TWO_KIB).await;
    let mut large = Peer::join(broker.address(), LARGEST).await;
    let long = arguments(2048);
    assert!(small.ask(r#"[64,1,{},"small"]"#).await.starts_with("[65,1,"));
    assert!(large.ask(r#"[64,1,{},"large"]"#).await.starts_with("[65,1,"));
    // An INVOCATION.
    let answer = large.ask(format!("[48,2,{{}},\"small\",[\"{long}\"]]")).await;
    assert!(answer.starts_with("[8,48,2,") && answer.contains(TOO_LONG), "{answer}");
    // A RESULT.
    small.say(r#"[48,2,{},"large"]"#).await;
    assert!(large.hear().await.starts_with("[68,1,"));
    large.say(format!("[70,1,{{}},[\"{long}\"]]")).await;
    let answer = small.hear().await;
    assert!(answer.starts_with("[8,48,2,") && answer.contains(TOO_LONG), "{answer}");
    // An EVENT.
    assert!(small.ask(r#"[32,3,{},"a"]"#).await.starts_with("[33,3,"));
    large.say(format!("[16,3,{{}},\"a\",[\"{long}\"]]")).await;
    let event = small.hear().await;
    assert!(event.starts_with("[36,") && event.ends_with(r#"{"payload_limit_exceeded":true}]"#), "{event}");
    // A message of a queue.
    let sent = large.ask(format!("[48,4,{{}},\"tandem.queue.send\",[\"q\",\"{long}\"]]")).await;
    assert!(sent.starts_with("[50,4,"), "{sent}");
    let answer = small.ask(r#"[48,4,{},"tandem.queue.receive",["q"]]"#).await;
    assert!(answer.starts_with("[8,48,4,") && answer.contains(TOO_LONG), "{answer}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let toml = "listen = [\"127.0.0.1:0\"]\n[limits]\nconnections_max = 3\n";
    let server = Server::start(&Config::parse(toml).unwrap()).unwrap();
    let address = server.addresses()[0];
    // The listener counts as one.
    let _first = Peer::join(address, LARGEST).await;
    let second = Peer::join(address, LARGEST).await;
    let mut third = Peer::connect(address).await;
    third.write(&[0x7f, LARGEST, 0, 0]).await;
    assert_eq!(third.read(4).await, [0x7f, 0x40, 0, 0]);
    assert_eq!(third.rest().await, "");
    let mut stomp = Peer::connect(address).await;
    stomp.write(b"CONNECT\naccept-version:1.2\n\n\0").await;
    let error = stomp.rest().await;
    assert!(error.starts_with("ERROR\n") && error.contains("too many connections"), "{error:?}");
    drop(second);
    // Once the second one is gone, there is room again.
    let let_in = async {
        loop {
            let mut next = Peer::connect(address).await;
            next.write(&[0x7f, LARGEST, 0, 0]).await;
            if next.read(4).await[1] & 0x0f != 0 {
                return;
            }
        }
    };
    soon("there is room again", let_in).await;
}

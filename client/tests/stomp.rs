//! The STOMP client against a scripted server, over TCP and WebSocket.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod peer;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use tandem_client::Error;
use tandem_client::raw::dial::open_tcp;
use tandem_client::raw::stomp::{AckMode, Client, ConnectOptions, HeartBeat, Link};
use tandem_client::raw::transport::{Kind, Transport};
use tandem_protocols::stomp::frame::{Command, Frame, Version};

use peer::{PIPE_BYTES, plain};

/// The server's end of plain TCP.
struct Server(DuplexStream);

impl Server {
    /// The next frame as text, without its NUL.
    async fn frame(&mut self) -> String {
        let mut frame = Vec::new();
        loop {
            match self.0.read_u8().await.unwrap() {
                0 => return String::from_utf8(frame).unwrap(),
                octet => frame.push(octet),
            }
        }
    }

    async fn send(&mut self, frame: &str) {
        self.0.write_all(frame.as_bytes()).await.unwrap();
        self.0.write_u8(0).await.unwrap();
    }
}

async fn connected(
    version: Version,
    options: &ConnectOptions,
    heart_beat: &str,
) -> (Client<Transport<DuplexStream>>, Server) {
    let (near, far) = duplex(PIPE_BYTES);
    let mut server = Server(far);
    let script = async {
        let connect = server.frame().await;
        server.send(&format!("CONNECTED\nversion:{version}\nheart-beat:{heart_beat}\nsession:s\n\n")).await;
        connect
    };
    let (client, _connect) = tokio::join!(Client::connect(open_tcp(near), version, options), script);
    (client.unwrap(), server)
}

async fn plain_client(version: Version) -> (Client<Transport<DuplexStream>>, Server) {
    connected(version, &ConnectOptions::default(), "0,0").await
}

#[tokio::test]
async fn connect_says_what_the_options_say() {
    let (near, far) = duplex(PIPE_BYTES);
    let mut server = Server(far);
    let options = ConnectOptions {
        host: "realm1".to_owned(),
        login: Some("joe".to_owned()),
        passcode: Some("a:b".to_owned()),
        heart_beat: HeartBeat { sends_ms: 10, wants_ms: 20 },
        headers: vec![("x".to_owned(), "y".to_owned())],
    };
    let script = async {
        let connect = server.frame().await;
        assert_eq!(
            connect,
            "CONNECT\naccept-version:1.2\nhost:realm1\nlogin:joe\npasscode:a:b\nheart-beat:10,20\nx:y\n\n"
        );
        server.send("CONNECTED\nversion:1.2\nsession:s\n\n").await;
    };
    let (client, ()) = tokio::join!(Client::connect(open_tcp(near), Version::V12, &options), script);
    let client = client.unwrap();
    assert_eq!((client.version(), client.connected().get("session")), (Version::V12, Some("s")));
}

#[tokio::test]
async fn a_refused_client_gets_the_error_frame() {
    let (near, far) = duplex(PIPE_BYTES);
    let mut server = Server(far);
    let script = async {
        assert_eq!(server.frame().await, "CONNECT\n\n");
        server.send("ERROR\nmessage:Access refused\n\nno").await;
    };
    let options = ConnectOptions::default();
    let (refused, ()) = tokio::join!(Client::connect(open_tcp(near), Version::V10, &options), script);
    let Err(Error::StompError(frame)) = refused else { panic!() };
    assert_eq!((frame.headers.get("message"), &frame.body[..]), (Some("Access refused"), &b"no"[..]));
}

#[tokio::test]
async fn messages_that_arrive_before_a_receipt_are_kept() {
    let (mut client, mut server) = plain_client(Version::V12).await;
    let script = async {
        let subscribe = server.frame().await;
        assert_eq!(
            subscribe,
            "SUBSCRIBE\nid:0\ndestination:/queue/q\nack:client\nprefetch-count:1\nreceipt:tandem-1\n\n"
        );
        server.send("MESSAGE\nmessage-id:1\nack:a1\n\none").await;
        server.send("RECEIPT\nreceipt-id:tandem-1\n\n").await;
        server.send("MESSAGE\nmessage-id:2\nack:a2\n\ntwo").await;
        assert_eq!(server.frame().await, "ACK\nid:a1\n\n");
        assert_eq!(server.frame().await, "NACK\nid:a2\ntransaction:t\n\n");
        assert_eq!(server.frame().await, "SEND\ndestination:/queue/q\nx:y\\cz\ncontent-length:4\n\nbody");
        assert_eq!(
            server.frame().await,
            "SEND\ndestination:/queue/q\nreceipt:tandem-2\ncontent-length:3\n\nend"
        );
        server.send("RECEIPT\nreceipt-id:tandem-2\n\n").await;
    };
    let work = async {
        client.subscribe("/queue/q", "0", AckMode::Client, &[("prefetch-count", "1")]).await.unwrap();
        assert_eq!(client.queued(), 1);
        let first = client.next_message().await.unwrap();
        let second = client.next_message().await.unwrap();
        assert_eq!((&first.body[..], &second.body[..]), (&b"one"[..], &b"two"[..]));
        client.ack(&first, None).await.unwrap();
        client.nack(&second, Some("t")).await.unwrap();
        client.send("/queue/q", &[("x", "y:z")], "body").await.unwrap();
        client.send_with_receipt("/queue/q", &[], "end").await.unwrap();
    };
    tokio::join!(work, script);
}

#[tokio::test]
async fn each_version_names_the_acknowledged_message_its_way() {
    let message =
        Frame::new(Command::Message).with("subscription", "0").with("message-id", "m").with("ack", "a");
    for (version, expected) in [
        (Version::V12, "ACK\nid:a\n\n"),
        (Version::V11, "ACK\nmessage-id:m\nsubscription:0\n\n"),
        (Version::V10, "ACK\nmessage-id:m\nsubscription:0\n\n"),
    ] {
        let (mut client, mut server) = plain_client(version).await;
        client.ack(&message, None).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.frame().await, expected);
        let nameless = Frame::new(Command::Message);
        assert!(matches!(client.ack(&nameless, None).await, Err(Error::Stomp(_))));
    }
}

#[tokio::test]
async fn transactions_and_the_end_wait_for_receipts() {
    let (mut client, mut server) = plain_client(Version::V11).await;
    let script = async {
        assert_eq!(server.frame().await, "BEGIN\ntransaction:t\n\n");
        assert_eq!(server.frame().await, "COMMIT\ntransaction:t\nreceipt:tandem-1\n\n");
        server.send("RECEIPT\nreceipt-id:tandem-1\n\n").await;
        assert_eq!(server.frame().await, "ABORT\ntransaction:u\nreceipt:tandem-2\n\n");
        server.send("RECEIPT\nreceipt-id:tandem-2\n\n").await;
        assert_eq!(server.frame().await, "UNSUBSCRIBE\nid:0\nreceipt:tandem-3\n\n");
        server.send("RECEIPT\nreceipt-id:tandem-3\n\n").await;
        assert_eq!(server.frame().await, "DISCONNECT\nreceipt:tandem-4\n\n");
        server.send("RECEIPT\nreceipt-id:tandem-4\n\n").await;
        drop(server);
    };
    let work = tokio::spawn(async move {
        client.begin("t").await.unwrap();
        client.commit("t").await.unwrap();
        client.abort("u").await.unwrap();
        client.unsubscribe("0").await.unwrap();
        client.disconnect().await.unwrap();
    });
    script.await;
    work.await.unwrap();
}

#[tokio::test]
async fn an_error_ends_what_waits_and_what_is_kept_has_a_limit() {
    let (mut client, mut server) = plain_client(Version::V12).await;
    server.send("ERROR\nmessage:Bad command\n\n").await;
    assert!(matches!(client.next_message().await, Err(Error::StompError(_))));
    let (mut client, mut server) = plain_client(Version::V12).await;
    client.set_queued_max(1);
    server.send("MESSAGE\nmessage-id:1\n\n").await;
    server.send("MESSAGE\nmessage-id:2\n\n").await;
    assert!(matches!(client.unsubscribe("0").await, Err(Error::QueueFull)));
    assert_eq!(client.receive_frame().await.unwrap().headers.get("message-id"), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn heart_beats_go_out_while_waiting_and_a_silent_server_is_given_up() {
    let heart_beat = HeartBeat { sends_ms: 1000, wants_ms: 1000 };
    let options = ConnectOptions { heart_beat, ..ConnectOptions::default() };
    let (mut client, mut server) = connected(Version::V12, &options, "1000,1000").await;
    let begin = tokio::time::Instant::now();
    let (silent, beats) = tokio::join!(client.next_message(), async {
        let mut beats = 0;
        while beats < 3 {
            assert_eq!(server.0.read_u8().await.unwrap(), b'\n');
            beats += 1;
        }
        assert_eq!(begin.elapsed(), Duration::from_millis(2100));
        server.0.write_all(b"\n").await.unwrap();
        beats
    });
    assert_eq!(beats, 3);
    assert!(matches!(silent, Err(Error::Silent)));
    // Twice the interval and a second after the last life sign.
    assert_eq!(begin.elapsed(), Duration::from_millis(2100 + 3000));
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_not_awaited_for_ever() {
    let (mut client, _server) = plain_client(Version::V12).await;
    client.set_receipt_timeout(Duration::from_secs(2));
    assert!(matches!(client.commit("t").await, Err(Error::Timeout("RECEIPT"))));
}

#[tokio::test]
async fn over_websocket_a_frame_is_a_message_of_the_kind_asked_for() {
    let (transport, mut peer) = plain("v12.stomp").await;
    let script = async {
        assert!(peer.expect_text().await.starts_with("CONNECT\n"));
        peer.text("CONNECTED\nversion:1.2\n\n\0").await;
    };
    let options = ConnectOptions { host: "h".to_owned(), ..ConnectOptions::default() };
    let (client, ()) = tokio::join!(Client::connect(transport, Version::V12, &options), script);
    let mut client = client.unwrap();
    client.send("/topic/a", &[], "text").await.unwrap();
    client.send("/topic/a", &[], &b"\xFF"[..]).await.unwrap();
    client.link().set_kind(Kind::Binary);
    client.send("/topic/a", &[], "text").await.unwrap();
    client.flush().await.unwrap();
    for kind in [Kind::Text, Kind::Binary, Kind::Binary] {
        assert_eq!(peer.message().await.0, kind);
    }
    // A frame may be cut, and several may share a message.
    peer.binary(b"\nMESSAGE\nmessage-id:1\n\none\0MESSA").await;
    peer.text("GE\nmessage-id:2\n\ntwo\0").await;
    assert_eq!(client.next_message().await.unwrap().body, "one");
    assert_eq!(client.next_message().await.unwrap().body, "two");
}

#[tokio::test]
async fn a_link_says_anything_and_knows_how_the_stream_ended() {
    let (near, far) = duplex(PIPE_BYTES);
    let mut server = Server(far);
    let mut link = Link::new(open_tcp(near), Version::V12);
    link.feed_encoded(b"NONSENSE\n\n\0").unwrap();
    link.send(&Frame::new(Command::Message)).await.unwrap();
    assert_eq!(server.frame().await, "NONSENSE\n\n");
    assert_eq!(server.frame().await, "MESSAGE\ncontent-length:0\n\n");
    server.send("CONNECTED\nversion:1.2\n\n").await;
    assert_eq!(link.receive().await.unwrap().command, Command::Connected);
    server.0.write_all(b"ERR").await.unwrap();
    drop(server);
    assert!(matches!(link.receive().await, Err(Error::Io(_))));
}

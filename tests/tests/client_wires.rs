//! The client's connector: every way to a broker, in both languages, as far as the first answer; what it does where a way
//! leads nowhere.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use tandem_client::raw::transport::{Closed, Kind};
use tandem_client::tls::TlsError;
use tandem_client::{Address, Connector, Error, TlsOptions, Wire};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::wamp::auth::cryptosign::{CryptosignClient, PrivateKey};
use tandem_protocols::wamp::auth::{BindingKind, ChannelBinding};
use tandem_protocols::wamp::codec;
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{Goodbye, Hello, Message, Subscribe};
use tandem_protocols::websocket::extensions::{Mode, Policy};
use tandem_tests::broker::soon;
use tandem_tests::certificates::{Authority, dns};
use tandem_tests::house::House;

const FORMATS: [Format; 3] = [Format::Cbor, Format::MsgPack, Format::Json];

fn text(format: Format) -> Kind {
    if codec::is_text(format) { Kind::Text } else { Kind::Binary }
}

async fn say(wire: &mut Wire, format: Format, message: impl Into<Message>) {
    wire.feed(text(format), &codec::encode(format, &message.into()).unwrap()).unwrap();
    soon("the message is sent", wire.flush()).await.unwrap();
}

async fn hear(wire: &mut Wire, format: Format) -> Message {
    let message = soon("an answer", wire.next()).await.unwrap().expect("it is open");
    if wire.has_kinds() {
        assert_eq!(message.kind, text(format));
    }
    codec::decode(format, &message.bytes).unwrap()
}

fn hello(details: Dict) -> Hello {
    let role = || Dict::new();
    let roles = Dict::new().with("publisher", role()).with("subscriber", role());
    Hello { realm: "realm1".into(), details: details.with("roles", roles) }
}

/// A session of WAMP, as far as WELCOME.
async fn welcomed(connector: &Connector, formats: &[Format]) -> (Wire, Format) {
    let (mut wire, format) = soon("a connection", connector.wamp(formats)).await.unwrap();
    say(&mut wire, format, hello(Dict::new())).await;
    let answer = hear(&mut wire, format).await;
    assert!(matches!(answer, Message::Welcome(_)), "{answer:?}");
    (wire, format)
}

/// What comes until a frame of STOMP is whole.
async fn frame(wire: &mut Wire) -> String {
    let mut all = Vec::new();
    loop {
        let piece = soon("a frame", wire.next()).await.unwrap().expect("it is open");
        all.extend_from_slice(&piece.bytes);
        let text = String::from_utf8(all.clone()).unwrap();
        if let Some(frame) = text.trim_matches('\n').strip_suffix('\0') {
            return frame.to_owned();
        }
    }
}

/// A session of STOMP, as far as CONNECTED.
async fn connected(connector: &Connector) -> Wire {
    let (mut wire, version) =
        soon("a connection", connector.stomp(&[Version::V12, Version::V11])).await.unwrap();
    assert_eq!(version, wire.subprotocol().map(|_| Version::V12));
    wire.feed(Kind::Text, b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").unwrap();
    soon("CONNECT is sent", wire.flush()).await.unwrap();
    let answer = frame(&mut wire).await;
    assert!(answer.starts_with("CONNECTED\n"), "{answer}");
    wire
}

// ---- every way ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn both_languages_get_in_by_every_kind_of_address_and_leave_in_good_order() {
    let house = House::open("");
    let ways =
        ["ws", "wss", "tcp", "tls", "unix", "http", "https"].map(|scheme| (scheme, house.connector(scheme)));
    for (way, connector) in ways.into_iter().chain([("in process", house.broker.connector())]) {
        for format in FORMATS {
            let (mut wire, chosen) = welcomed(&connector, &[format]).await;
            assert_eq!(chosen, format, "{way}");
            assert_eq!((wire.output_bytes(), wire.closed()), (0, None), "{way}");
            let bound = wire.channel_binding().is_some();
            assert_eq!(bound, ["wss", "tls"].contains(&way), "{way}");
            soon(way, wire.close()).await.unwrap();
            assert!(wire.closed().is_some(), "{way}");
        }
        let mut wire = connected(&connector).await;
        soon(way, wire.close()).await.unwrap();
    }
    assert_eq!(house.sessions(), 0);
    assert!(house.broker.shutdown().await);
}

#[tokio::test]
async fn the_first_serializer_that_is_spoken_is_taken() {
    let house = House::open("");
    for (scheme, wanted) in [("ws", Format::Cbor), ("http", Format::Cbor), ("tcp", Format::Cbor)] {
        assert_eq!(welcomed(&house.connector(scheme), &FORMATS).await.1, wanted, "{scheme}");
    }
    // A router that knows only MessagePack, over RawSocket: it says so and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = Connector::new(format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap());
    let router = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).await.unwrap();
            if asked[1] & 0x0F == 2 {
                stream.write_all(&asked).await.unwrap();
                return stream;
            }
            stream.write_all(&[0x7F, 0x10, 0, 0]).await.unwrap();
        }
    };
    let (opened, _stream) = tokio::join!(soon("a connection", connector.wamp(&FORMATS)), router);
    assert_eq!(opened.unwrap().1, Format::MsgPack);
}

#[tokio::test]
async fn what_is_published_arrives_whole_and_in_order_by_every_way() {
    let house = House::open("");
    let mut stomps = Vec::new();
    for way in ["ws", "wss", "tcp", "tls", "unix", "http", "https"] {
        stomps.push((way, connected(&house.connector(way)).await));
    }
    stomps.push(("in process", connected(&house.broker.connector()).await));
    for (way, wire) in &mut stomps {
        wire.feed(Kind::Text, b"SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:r\n\n\0").unwrap();
        soon(way, wire.flush()).await.unwrap();
        assert!(frame(wire).await.starts_with("RECEIPT\n"), "{way}");
    }
    for sender in 0..stomps.len() {
        let (way, wire) = &mut stomps[sender];
        let body = format!("{way} {}", "x".repeat(200_000));
        for number in 0..3 {
            let send = format!("SEND\ndestination:/topic/t\ncontent-type:text/plain\n\n{number} {body}\0");
            wire.feed(Kind::Text, send.as_bytes()).unwrap();
        }
        soon(way, wire.flush()).await.unwrap();
        for (receiver, wire) in &mut stomps {
            let mut seen = String::new();
            while seen.matches('\0').count() < 3 {
                let piece = soon(receiver, wire.next()).await.unwrap().expect("it is open");
                seen.push_str(std::str::from_utf8(&piece.bytes).unwrap());
            }
            let bodies: Vec<&str> =
                seen.split('\0').filter_map(|frame| Some(frame.split_once("\n\n")?.1)).collect();
            let expected: Vec<String> = (0..3).map(|number| format!("{number} {body}")).collect();
            assert!(bodies == expected, "{receiver}");
        }
    }
}

// ---- TLS ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn only_who_is_vouched_for_is_spoken_to() {
    let house = House::open("");
    let refused = async |connector: Connector| match soon("a refusal", connector.wamp(&FORMATS)).await {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was trusted"),
    };
    let stranger = Authority::new();
    for scheme in ["wss", "tls", "https"] {
        let strange = TlsOptions::new().authorities_file(stranger.path("ca.pem")).unwrap();
        let why = refused(house.connector(scheme).tls(strange)).await;
        assert!(why.contains("UnknownIssuer"), "{scheme}: {why}");
        let why = refused(house.connector(scheme).tls(house.trust().server_name("other.example"))).await;
        assert!(why.contains("not valid for"), "{scheme}: {why}");
        let nobody = house.connector(scheme).tls(TlsOptions::new().without_system_authorities());
        let result = soon("a refusal", nobody.wamp(&FORMATS)).await;
        assert!(matches!(result, Err(Error::Tls(TlsError::NoRoots))), "{scheme}");
    }
}

#[tokio::test]
async fn a_broker_that_vouches_for_itself_is_trusted_where_its_certificate_is_named() {
    let house = House::open("");
    for (kind, is_trusted) in [(IsCa::ExplicitNoCa, true), (IsCa::Ca(BasicConstraints::Unconstrained), false)]
    {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = kind;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        house.authority.write("server.pem", &certificate.pem());
        house.authority.write("server.key", &key.serialize_pem());
        house.broker.server().reload_certificates();
        let named = TlsOptions::new().authorities_file(house.authority.path("server.pem")).unwrap();
        let opened = soon("an answer", house.connector("wss").tls(named).wamp(&FORMATS)).await;
        assert_eq!(opened.is_ok(), is_trusted, "{opened:?}");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_to_who_asks_for_one() {
    let users = "[[users]]\nname = \"alice\"\ncertificates = [\"dns:alice.example\"]\n";
    let house = House::open_with("required", users);
    let alice = house.authority.client("x", &[dns("alice.example")]);
    let (certificate, key) = alice.pem();
    let shown = house.trust().identity_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    for scheme in ["wss", "tls", "https"] {
        let (mut wire, format) =
            soon("a connection", house.connector(scheme).tls(shown.clone()).wamp(&FORMATS)).await.unwrap();
        say(&mut wire, format, hello(Dict::new().with("authmethods", vec![Value::from("tls")]))).await;
        let Message::Welcome(welcome) = hear(&mut wire, format).await else { panic!("no WELCOME") };
        assert_eq!(welcome.details.str("authid"), Ok(Some("alice")), "{scheme}");
        // In TLS 1.3 a refusal may come after the client's handshake is done, with what is read first.
        let bare = house.connector(scheme).wamp(&FORMATS).await;
        assert!(bare.is_err(), "{scheme}");
    }
}

#[tokio::test]
async fn a_login_is_bound_to_the_connection() {
    let key = PrivateKey::from_seed(&[5; 32]);
    let user = format!("[[users]]\nname = \"joe\"\ncryptosign = [\"{}\"]\n", key.public_key());
    let house = House::open_with("off", &user);
    for scheme in ["wss", "tls"] {
        let (wire, format) = soon("a connection", house.connector(scheme).wamp(&FORMATS)).await.unwrap();
        let (other, _) = soon("a connection", house.connector(scheme).wamp(&FORMATS)).await.unwrap();
        let data = wire.channel_binding().unwrap().data.to_vec();
        assert_ne!(Some(&*data), other.channel_binding().map(|binding| binding.data));
        let binding = ChannelBinding { kind: BindingKind::TlsExporter, data: &data };
        let client = CryptosignClient::new(&key).with_binding(binding);
        // Another connection's proof is none.
        for (mut wire, is_own) in [(other, false), (wire, true)] {
            let details = Dict::new()
                .with("authmethods", vec![Value::from("cryptosign")])
                .with("authid", "joe")
                .with("authextra", client.authextra());
            say(&mut wire, format, hello(details)).await;
            let Message::Challenge(challenge) = hear(&mut wire, format).await else { panic!("no CHALLENGE") };
            say(&mut wire, format, client.respond(&challenge).unwrap()).await;
            let answer = hear(&mut wire, format).await;
            assert_eq!(matches!(answer, Message::Welcome(_)), is_own, "{answer:?}");
        }
    }
}

// ---- WebSocket ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn compression_is_agreed_on_unless_it_is_not_wanted() {
    let house = House::open("");
    for scheme in ["ws", "wss"] {
        let (mut wire, _) = welcomed(&house.connector(scheme), &FORMATS).await;
        assert!(wire.compression().is_some(), "{scheme}");
        let topic = "SUBSCRIBE\nid:0\ndestination:/topic/t\n\n\0";
        let mut stomp = connected(&house.connector(scheme)).await;
        assert!(stomp.compression().is_some(), "{scheme}");
        let body = "all the same ".repeat(10_000);
        let frames = format!("{topic}SEND\ndestination:/topic/t\ncontent-type:text/plain\n\n{body}\0");
        stomp.feed(Kind::Text, frames.as_bytes()).unwrap();
        assert!(stomp.output_bytes() < 5000, "{}", stomp.output_bytes());
        assert!(frame(&mut stomp).await.ends_with(&body));
        let off = Policy { mode: Mode::Off, ..Policy::default() };
        let (plain, _) = welcomed(&house.connector(scheme).compression(off), &FORMATS).await;
        assert!(plain.compression().is_none(), "{scheme}");
        soon("the end", wire.close()).await.unwrap();
    }
}

#[tokio::test]
async fn headers_and_the_origin_go_along() {
    let hash = tandem_broker::users::hash_password("wonderland").unwrap();
    let more = format!(
        "[authentication]\nanonymous = \"never\"\n[websocket]\nallowed_origins = [\"https://a.example\"]\n\
         [[users]]\nname = \"alice\"\npassword = \"{hash}\"\n"
    );
    let house = House::open_with("off", &more);
    for scheme in ["wss", "https"] {
        let basic =
            |connector: Connector| connector.header("Authorization", "Basic YWxpY2U6d29uZGVybGFuZA==");
        connected(&basic(house.connector(scheme)).origin("https://a.example")).await;
        let strange = basic(house.connector(scheme)).origin("https://b.example");
        let refused = soon("a refusal", strange.stomp(&[Version::V12])).await;
        assert!(matches!(refused, Err(Error::Refused { status: 403, .. })), "{scheme}: {refused:?}");
    }
}

// ---- long-polling ------------------------------------------------------------------------------------------

#[tokio::test]
async fn who_gives_up_waiting_for_a_message_of_a_long_poll_loses_none() {
    let house = House::open("");
    let mut subscriber = connected(&house.connector("http")).await;
    subscriber.feed(Kind::Text, b"SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:r\n\n\0").unwrap();
    assert!(frame(&mut subscriber).await.starts_with("RECEIPT\n"));
    let mut publisher = connected(&house.broker.connector()).await;
    let (mut seen, mut gave_up) = (0, 0);
    for number in 0..200 {
        let send = format!("SEND\ndestination:/topic/t\ncontent-type:text/plain\n\n{number}\0");
        publisher.feed(Kind::Text, send.as_bytes()).unwrap();
        soon("it is sent", publisher.flush()).await.unwrap();
        while seen <= number {
            // Polled once, then dropped, wherever it is.
            tokio::select! {
                biased;
                message = subscriber.next() => {
                    let message = message.unwrap().unwrap();
                    let text = String::from_utf8(message.bytes.to_vec()).unwrap();
                    assert!(text.ends_with(&format!("\n\n{seen}\0")), "{text}");
                    seen += 1;
                }
                () = tokio::task::yield_now() => gave_up += 1,
            }
        }
    }
    assert!(gave_up > 0, "nobody ever waited");
}

#[tokio::test]
async fn a_session_that_ends_is_heard_of_over_a_long_poll() {
    let house = House::open("");
    // What the session says of its end comes before it.
    let mut broken = connected(&house.connector("http")).await;
    broken.feed(Kind::Text, b"BOGUS\n\n\0").unwrap();
    assert!(frame(&mut broken).await.starts_with("ERROR\n"));
    let end = soon("the end", broken.next()).await;
    assert!(matches!(end, Err(Error::Refused { status: 400, .. })), "{end:?}");
    assert_eq!(broken.closed(), Some(&Closed::Failed));

    let (mut wire, format) = welcomed(&house.connector("http"), &FORMATS).await;
    // The broker takes no new connections at its end: one that was used since WELCOME stays for the answer.
    let options = Dict::new();
    say(&mut wire, format, Subscribe { request: Id::FIRST, options, topic: "t".into() }).await;
    assert!(matches!(hear(&mut wire, format).await, Message::Subscribed(_)));
    let farewell = async {
        let goodbye = hear(&mut wire, format).await;
        assert!(matches!(goodbye, Message::Goodbye(_)), "{goodbye:?}");
        let reason = "wamp.close.goodbye_and_out".to_owned();
        say(&mut wire, format, Goodbye { details: Dict::new(), reason }).await;
        assert_eq!(soon("the end", wire.next()).await.unwrap(), None);
        assert_eq!(wire.closed(), Some(&Closed::Eof));
    };
    let House { broker, authority: _authority } = house;
    let (drained, ()) = tokio::join!(broker.shutdown(), farewell);
    assert!(drained);
}

/// Answers requests of HTTP, each over a connection of its own, as a proxy of old does; by path.
async fn old_proxy(answers: fn(&str) -> String) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap() == 0 {
                    break;
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            stream.write_all(answers(path).as_bytes()).await.unwrap();
        }
    });
    format!("http://{address}/lp").parse().unwrap()
}

fn answered(status: u16, body: &str) -> String {
    format!("HTTP/1.0 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_is_spoken_to_over_many_connections() {
    let address = old_proxy(|path| match path {
        "/lp/open" => answered(200, "{\"protocol\": \"v12.stomp\", \"transport\": \"abc\"}"),
        "/lp/abc/send" | "/lp/abc/close" => answered(202, ""),
        "/lp/abc/receive" => answered(200, "RECEIPT\n\n\0"),
        _ => answered(404, ""),
    });
    let (mut wire, _) = Connector::new(address.await).stomp(&[Version::V12]).await.unwrap();
    for _ in 0..20 {
        wire.feed(Kind::Text, b"SEND\n\n\0").unwrap();
        soon("it is sent", wire.flush()).await.unwrap();
        assert_eq!(soon("a message", wire.next()).await.unwrap().unwrap().bytes, "RECEIPT\n\n\0");
    }
    assert_eq!(soon("the end", wire.close()).await.unwrap(), Closed::Eof);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_meanwhile_is_replaced() {
    let (listener, gone) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Notify::new());
    let address = format!("http://{}/lp", listener.local_addr().unwrap()).parse().unwrap();
    // One answer for each connection, which says nothing of its end; a receive has none.
    let server = async {
        let mut receiving = Vec::new();
        let mut answers = vec!["", "", "{\"protocol\": \"v12.stomp\", \"transport\": \"abc\"}"];
        while let Some(body) = answers.last() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            if String::from_utf8_lossy(&head[..length]).contains("/receive ") {
                receiving.push(stream);
                continue;
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            drop(stream);
            answers.pop();
            gone.notify_one();
        }
    };
    let client = async {
        let (mut wire, _) = Connector::new(address).stomp(&[Version::V12]).await.unwrap();
        for _ in 0..2 {
            gone.notified().await;
            wire.feed(Kind::Text, b"SEND\n\n\0").unwrap();
            wire.flush().await.unwrap();
        }
    };
    soon("both", async { tokio::join!(server, client) }).await;
}

#[tokio::test]
async fn what_is_no_answer_to_a_long_poll_is_an_error() {
    let strange: [fn(&str) -> String; 6] = [
        |_| answered(200, "hello"),
        |_| answered(200, "{}"),
        |_| answered(200, "{\"protocol\": \"wamp.2.cbor\", \"transport\": \"../../x\"}"),
        |_| answered(200, "{\"protocol\": \"mqtt\", \"transport\": \"x\"}"),
        |_| answered(503, "later"),
        |_| "SSH-2.0-x\r\n\r\n".into(),
    ];
    for answers in strange {
        let connector = Connector::new(old_proxy(answers).await);
        assert!(soon("a refusal", connector.wamp(&FORMATS)).await.is_err());
    }
}

#[tokio::test]
async fn what_waits_to_be_sent_over_a_long_poll_has_a_limit() {
    let house = House::open("");
    let (mut wire, _) = welcomed(&house.connector("http"), &FORMATS).await;
    let mebibyte = Bytes::from(vec![0; 1 << 20]);
    let fed = (0..100).take_while(|_| wire.feed(Kind::Binary, &mebibyte).is_ok()).count();
    assert_eq!(fed, 16, "it is the same as that of other wires");
    assert!(matches!(wire.feed(Kind::Binary, b"x"), Err(Error::OutputFull)));
}

// ---- ways that lead nowhere --------------------------------------------------------------------------------

/// An address at which nobody listens.
async fn nowhere(scheme: &str) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    format!("{scheme}://{address}").parse().unwrap()
}

#[tokio::test]
async fn where_one_way_leads_nowhere_the_next_is_tried() {
    let house = House::open_with("off", "[websocket]\npath = \"/ws\"\n");
    // Nobody listens, then WebSocket is refused at this path, then a port that speaks TLS is spoken to in the clear.
    let in_the_clear = format!("ws://{}/ws", house.broker.tls_addresses()[0]).parse().unwrap();
    let connector = Connector::new(nowhere("tcp").await)
        .or("unix:/there/is/nothing".parse().unwrap())
        .or(house.address("ws"))
        .or(in_the_clear)
        .or(house.address("http"))
        .or(nowhere("tls").await);
    let (wire, _) = welcomed(&connector, &FORMATS).await;
    assert!(!wire.has_kinds() && wire.subprotocol().is_some(), "it is the long-poll");
    connected(&connector).await;
}

#[tokio::test]
async fn where_all_ways_lead_nowhere_the_last_says_why() {
    let house = House::open_with("off", "[websocket]\npath = \"/ws\"\n");
    let connector = Connector::new(nowhere("ws").await).or(house.address("ws"));
    let refused = soon("a refusal", connector.wamp(&FORMATS)).await;
    assert!(matches!(refused, Err(Error::Refused { status: 404, .. })), "{refused:?}");
    let connector = Connector::new(house.address("ws")).or(nowhere("ws").await);
    let refused = soon("a refusal", connector.stomp(&[Version::V12])).await;
    assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");
    let refused = soon("a refusal", house.connector("tcp").wamp(&[])).await;
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_left_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let house = House::open("");
    for url in ["ws", "wss", "tcp", "tls", "http", "https"].map(|scheme| format!("{scheme}://{address}/")) {
        let silent =
            Connector::new(url.parse().unwrap()).tls(house.trust()).opening_time(Duration::from_millis(50));
        let given_up = soon("an error", silent.wamp(&FORMATS)).await;
        assert!(matches!(given_up, Err(Error::Timeout(_))), "{url}: {given_up:?}");
        let silent = silent.or(house.address("ws")).opening_time(Duration::from_millis(500));
        welcomed(&silent, &FORMATS).await;
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connector = Connector::new(format!("tcp://{address}").parse().unwrap())
        .keep_alive(Some(Duration::from_millis(100)));
    let server = async {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [1, 0, 0, 0], "it is asked first");
        stream
    };
    let (opened, stream) = tokio::join!(
        async {
            let (mut wire, _) = connector.wamp(&FORMATS).await.unwrap();
            wire.next().await
        },
        server
    );
    assert!(matches!(opened, Err(Error::Silent)), "{opened:?}");
    drop(stream);
}

#[tokio::test]
async fn a_broker_in_the_process_that_has_ended_takes_nobody() {
    let house = House::open("");
    let (connector, entrance) = (house.broker.connector(), house.broker.entrance());
    let (mut wire, format) = welcomed(&connector, &FORMATS).await;
    drop(house);
    let goodbye = hear(&mut wire, format).await;
    assert!(matches!(goodbye, Message::Goodbye(_)), "dropping it says goodbye: {goodbye:?}");
    assert!(matches!(soon("a refusal", connector.wamp(&FORMATS)).await, Err(Error::Io(_))));
    let (ours, _theirs) = tokio::io::duplex(10);
    assert!(!entrance.take(ours, std::net::SocketAddr::from(([127, 0, 0, 1], 5))));
}

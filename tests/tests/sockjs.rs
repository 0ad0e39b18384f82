//! SockJS over real sockets: every transport, HTTP's refusals, clients that vanish, and names that are guessed.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tandem_tests::attacker::{self, Raw, frame};
use tandem_tests::broker::{Broker, eventually, soon};
use tandem_tests::daemon::Daemon;
use tandem_tests::poller::{Answer, Http, ask};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const CONNECT: &str = "CONNECT\naccept-version:1.2\nhost:/\n\n\0";
const SUBSCRIBE: &str = "SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:r\n\n\0";
const GO_AWAY: &str = "c[3000,\"Go away!\"]\n";

/// A session over several requests.
struct Session {
    address: SocketAddr,
    path: String,
    receiving: Http,
}

impl Session {
    async fn open(address: SocketAddr, name: &str) -> Session {
        let receiving = Http::connect(address).await;
        let mut session = Session { address, path: format!("/sockjs/000/{name}"), receiving };
        assert_eq!(session.receive().await, "o\n");
        session
    }

    /// One that was let in and subscribes to `t`.
    async fn subscriber(address: SocketAddr, name: &str) -> Session {
        let mut session = Session::open(address, name).await;
        session.say(CONNECT).await;
        assert!(session.hear().await.starts_with("CONNECTED\n"));
        session.say(SUBSCRIBE).await;
        assert!(session.hear().await.starts_with("RECEIPT\n"));
        session
    }

    async fn poll(&mut self) {
        self.receiving.ask("POST", &format!("{}/xhr", self.path), "", b"").await;
    }

    async fn receive(&mut self) -> String {
        self.poll().await;
        let answer = self.receiving.answer().await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().to_owned()
    }

    /// The next frame with one message in it.
    async fn hear(&mut self) -> String {
        message(&self.receive().await)
    }

    async fn send(&self, body: &str) -> Answer {
        ask(self.address, "POST", &format!("{}/xhr_send", self.path), "", body.as_bytes()).await
    }

    async fn say(&self, message: &str) {
        let answer = self.send(&json!([message]).to_string()).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

fn message(frame: &str) -> String {
    let array = frame.trim_end().strip_prefix('a').unwrap_or_else(|| panic!("no messages: {frame:?}"));
    let mut messages: Vec<String> = serde_json::from_str(array).unwrap();
    assert_eq!(messages.len(), 1, "{frame}");
    messages.remove(0)
}

fn send_frame(body: &str) -> String {
    format!("SEND\ndestination:/topic/t\n\n{body}\0")
}

async fn publish(broker: &Broker, bodies: &[&[u8]]) {
    let mut wire = tandem_tests::attacker::Raw::connect(broker.address()).await;
    let mut bytes = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0".to_vec();
    for body in bodies {
        bytes.extend(format!("SEND\ndestination:/topic/t\ncontent-length:{}\n\n", body.len()).bytes());
        bytes.extend(*body);
        bytes.push(0);
    }
    bytes.extend(b"DISCONNECT\nreceipt:bye\n\n\0");
    assert!(wire.write(&bytes).await);
    wire.read_until(b"receipt-id:bye").await;
}

// ---- conversations ---------------------------------------------------------------------------------------

#[tokio::test]
async fn by_polling_a_session_subscribes_hears_and_leaves() {
    let broker = Broker::start().await;
    let mut session = Session::subscriber(broker.address(), "polling").await;
    session.poll().await;
    publish(&broker, &["é \u{2028}\"".as_bytes()]).await;
    let answer = session.receiving.answer().await.unwrap();
    assert!(answer.text().contains("é \\u2028\\\""), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/javascript; charset=UTF-8"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    for word in ["no-store", "no-transform"] {
        assert!(answer.header("cache-control").unwrap().contains(word), "{answer:?}");
    }
    session.say("DISCONNECT\nreceipt:bye\n\n\0").await;
    assert!(session.hear().await.contains("receipt-id:bye"));
    // Whoever asks is told, and told again.
    assert_eq!([session.receive().await, session.receive().await], [GO_AWAY, GO_AWAY]);
    assert_eq!(broker.sessions(), 0);
    assert_eq!(session.send("[\"x\"]").await.status, 404);
    assert!(broker.shutdown().await);
}

#[tokio::test]
async fn by_streaming_a_session_hears_until_the_response_is_long_enough() {
    for (verb, method, prelude, before, after) in [
        ("xhr_streaming", "POST", "h".repeat(2048) + "\n", "", "\n"),
        ("eventsource", "GET", "\r\n".into(), "data: ", "\r\n\r\n"),
    ] {
        let broker = Broker::start_with("[sockjs]\nstream_bytes_max = 4096\n").await;
        let mut session = Session {
            address: broker.address(),
            path: "/sockjs/0/stream".into(),
            receiving: Http::connect(broker.address()).await,
        };
        let path = format!("{}/{verb}", session.path);
        session.receiving.ask(method, &path, "", b"").await;
        let head = session.receiving.head().await.unwrap();
        let kind = if verb == "eventsource" { "text/event-stream" } else { "application/javascript" };
        assert_eq!(head.header("content-type"), Some(&*format!("{kind}; charset=UTF-8")));
        assert_eq!(head.header("content-length"), None);
        assert_eq!(session.receiving.chunk().await.unwrap(), prelude);
        assert_eq!(session.receiving.chunk().await.unwrap(), format!("{before}o{after}"));
        session.say(CONNECT).await;
        assert!(session.receiving.chunk().await.unwrap().contains("CONNECTED\\n"));
        session.say(SUBSCRIBE).await;
        assert!(session.receiving.chunk().await.unwrap().contains("RECEIPT\\n"));
        session.say(&send_frame(&"x".repeat(4096))).await;
        let message = session.receiving.chunk().await.unwrap();
        assert!(
            message.starts_with(&format!("{before}a[\"MESSAGE")) && message.ends_with(after),
            "{message}"
        );
        assert_eq!(session.receiving.chunk().await, None, "it is long enough");
        session.say(&send_frame("next")).await;
        session.receiving.ask(method, &path, "", b"").await;
        session.receiving.head().await.unwrap();
        assert_eq!(session.receiving.chunk().await.unwrap(), prelude);
        assert!(session.receiving.chunk().await.unwrap().contains("next"));
        session.say("DISCONNECT\nreceipt:bye\n\n\0").await;
        assert!(session.receiving.chunk().await.unwrap().contains("bye"));
        let last = session.receiving.chunk().await.unwrap();
        assert_eq!(last, format!("{before}c[3000,\"Go away!\"]{after}"));
        assert_eq!(session.receiving.chunk().await, None);
        assert!(broker.shutdown().await);
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn socket(broker: &Broker, path: &str) -> Socket {
    connect_async(format!("ws://{}{path}", broker.address())).await.unwrap().0
}

async fn text(socket: &mut Socket) -> String {
    loop {
        match soon("a message", socket.next()).await {
            Some(Ok(Message::Text(text))) => return text.to_string(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(close))) => return format!("close {}", u16::from(close.unwrap().code)),
            other => panic!("{other:?}"),
        }
    }
}

async fn put(socket: &mut Socket, text: impl Into<String>) {
    socket.send(Message::text(text.into())).await.unwrap();
}

#[tokio::test]
async fn by_websocket_frames_lie_in_messages() {
    let broker = Broker::start().await;
    let mut socket = socket(&broker, "/sockjs/000/same/websocket").await;
    assert_eq!(text(&mut socket).await, "o");
    put(&mut socket, "").await;
    put(&mut socket, "[]").await;
    put(&mut socket, json!([CONNECT, "\n", SUBSCRIBE]).to_string()).await;
    assert!(message(&text(&mut socket).await).starts_with("CONNECTED"));
    assert!(message(&text(&mut socket).await).starts_with("RECEIPT"));
    put(&mut socket, json!(send_frame("one string")).to_string()).await;
    assert!(message(&text(&mut socket).await).contains("one string"));
    // A name means nothing here: it may be had twice.
    let mut other = self::socket(&broker, "/sockjs/000/same/websocket").await;
    assert_eq!(text(&mut other).await, "o");
    put(&mut socket, json!(["DISCONNECT\nreceipt:bye\n\n\0"]).to_string()).await;
    assert!(message(&text(&mut socket).await).starts_with("RECEIPT"));
    assert_eq!(text(&mut socket).await, "c[3000,\"Go away!\"]");
    assert_eq!(text(&mut socket).await, "close 1000");
    put(&mut other, "[\"a").await;
    assert!(message(&text(&mut other).await).starts_with("ERROR"));
    assert_eq!(text(&mut other).await, "c[1002,\"protocol error\"]");
    assert_eq!(text(&mut other).await, "close 1002");
}

#[tokio::test]
async fn messages_that_come_together_are_taken_in_order_though_the_pump_stops_between_them() {
    let broker = Broker::start().await;
    let mut socket = socket(&broker, "/sockjs/0/0/websocket").await;
    assert_eq!(text(&mut socket).await, "o");
    put(&mut socket, json!([CONNECT, SUBSCRIBE]).to_string()).await;
    let _ = (text(&mut socket).await, text(&mut socket).await);
    // More answers than the pump leaves unread: it has to stop and go on.
    let sent = |number| send_frame(&format!("{number} {}", "x".repeat(20_000)));
    put(&mut socket, json!((0..40).map(sent).collect::<Vec<_>>()).to_string()).await;
    for number in 0..40 {
        let heard = message(&text(&mut socket).await);
        assert!(heard.contains(&format!("\n\n{number} x")), "{number}: {}", &heard[..200]);
    }
}

/// Framed and compressed once for all who get the same, and not once for each.
#[tokio::test]
async fn what_several_get_by_websocket_is_framed_and_compressed_once() {
    let daemon = Daemon::start_with("[websocket]\nping_interval_s = 600\n");
    let address = daemon.address();
    let open = format!(
        "GET /sockjs/0/0/websocket HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    );
    let subscribe = "SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:r\n\n\0";
    let sent = json!(["CONNECT\naccept-version:1.2\nhost:/\n\n\0", subscribe]).to_string();
    let mut subscribers = Vec::new();
    for _ in 0..3 {
        let mut subscriber = Raw::connect(address).await;
        subscriber.write(&[open.as_bytes(), &frame(0x81, sent.as_bytes())].concat()).await;
        subscriber.read_until(b"RECEIPT").await;
        subscriber.read_until(b"\"]").await;
        subscribers.push(subscriber);
    }
    let mut publisher = Raw::connect(address).await;
    publisher.write(attacker::CONNECT).await;
    publisher.read_until(b"\0").await;
    let body = "words ".repeat(200);
    publisher.write(format!("SEND\ndestination:/topic/t\n\n{body}\0").as_bytes()).await;
    let mut heard = Vec::new();
    for subscriber in &mut subscribers {
        let head = subscriber.read(2).await;
        assert_eq!(head[0], 0xC1, "compressed");
        heard.push(subscriber.read((head[1] & 0x7f).into()).await);
    }
    assert!(heard[0] == heard[1] && heard[1] == heard[2]);
    assert_eq!(daemon.metric("tandem_compressions_total"), 1);
}

#[tokio::test]
async fn a_websocket_without_frames_is_there_for_other_programs() {
    let broker = Broker::start().await;
    for path in ["/sockjs/websocket", "/sockjs", "/sockjs/"] {
        let mut socket = socket(&broker, path).await;
        put(&mut socket, CONNECT).await;
        assert!(text(&mut socket).await.starts_with("CONNECTED\n"), "{path}");
    }
}

// ---- pages -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_base_greets_and_info_says_what_there_is() {
    let broker = Broker::start().await;
    let address = broker.address();
    for path in ["/sockjs", "/sockjs/"] {
        let greeting = ask(address, "GET", path, "", b"").await;
        assert_eq!((greeting.status, greeting.text()), (200, "Welcome to SockJS!\n"));
        assert_eq!(greeting.header("content-type"), Some("text/plain; charset=UTF-8"));
    }
    let info = ask(address, "GET", "/sockjs/info?t=123", "", b"").await;
    assert_eq!(info.header("content-type"), Some("application/json; charset=UTF-8"));
    assert!(info.header("cache-control").unwrap().contains("no-store"));
    let read = |answer: &Answer| serde_json::from_slice::<Value>(&answer.body).unwrap();
    let (one, other) = (read(&info), read(&ask(address, "GET", "/sockjs/info", "", b"").await));
    assert_eq!(one["websocket"], true);
    assert_eq!(one["cookie_needed"], false);
    assert_eq!(one["origins"], json!(["*:*"]));
    assert!(one["entropy"].as_u64().unwrap() < 1 << 32);
    assert_ne!(one["entropy"], other["entropy"]);
}

#[tokio::test]
async fn what_is_not_there_or_asked_otherwise_has_its_status() {
    let broker = Broker::start().await;
    for (method, path, headers, status) in [
        ("GET", "/sockjs/a", "", 404),
        ("GET", "/sockjs//", "", 404),
        ("GET", "/sockjs/a/a", "", 404),
        ("POST", "/sockjs/a./a/xhr", "", 404),
        ("GET", "/sockjs/iframe.html", "", 404),
        ("GET", "/sockjs/a/a/jsonp?c=x", "", 404),
        ("POST", "/sockjs/a/a/jsonp_send", "", 404),
        ("GET", "/sockjs/a/a/htmlfile?c=x", "", 404),
        ("GET", "/sockjs/a/a/xhr", "", 405),
        ("GET", "/sockjs/a/a/xhr_send", "", 405),
        ("POST", "/sockjs/a/a/eventsource", "", 405),
        ("POST", "/sockjs/a/a/websocket", "", 405),
        ("POST", "/sockjs/info", "", 405),
        ("GET", "/sockjs/0/0/websocket", "", 400),
        ("GET", "/sockjs/0/0/websocket", "Upgrade: WebSocket\r\nConnection: close\r\n", 400),
    ] {
        let answer = ask(broker.address(), method, path, headers, b"").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        if status == 405 {
            assert!(answer.header("allow").is_some() && answer.body.is_empty(), "{answer:?}");
        } else {
            assert!(answer.text().ends_with('\n'), "{answer:?}");
        }
    }
    let off = Broker::start_with("[sockjs]\nwebsocket = false\n").await;
    let info = ask(off.address(), "GET", "/sockjs/info", "", b"").await;
    assert!(info.text().contains("\"websocket\":false"), "{info:?}");
    assert!(connect_async(format!("ws://{}/sockjs/0/0/websocket", off.address())).await.is_err());
    let none = Broker::start_with("[sockjs]\nenabled = false\n").await;
    assert_ne!(ask(none.address(), "GET", "/sockjs/info", "", b"").await.status, 200);
}

#[tokio::test]
async fn the_page_for_a_hidden_frame_is_there_where_the_operator_says_so() {
    let config = "[sockjs]\nclient_url = \"https://cdn.example/sockjs.min.js\"\n\
                  [websocket]\nallowed_origins = [\"https://app.example.com\"]\n";
    let broker = Broker::start_with(config).await;
    let page = ask(broker.address(), "GET", "/sockjs/iframe-1.6.1.html?t=1", "", b"").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=UTF-8"));
    assert!(page.text().contains("<script src=\"https://cdn.example/sockjs.min.js\"></script>"));
    assert_eq!(page.header("content-security-policy"), Some("frame-ancestors https://app.example.com"));
    assert!(page.header("cache-control").unwrap().contains("max-age=31536000"));
    let known = format!("If-None-Match: {}\r\n", page.header("etag").unwrap());
    let again = ask(broker.address(), "GET", "/sockjs/iframe.html", &known, b"").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[tokio::test]
async fn pages_that_may_open_a_websocket_may_use_sockjs_and_others_may_not() {
    let broker = Broker::start_with("[websocket]\nallowed_origins = [\"https://a.example\"]\n").await;
    let address = broker.address();
    for (method, path, status) in [
        ("GET", "/sockjs/info", 200),
        ("OPTIONS", "/sockjs/info", 204),
        ("POST", "/sockjs/0/s/xhr", 200),
        ("OPTIONS", "/sockjs/0/s/xhr", 204),
        ("OPTIONS", "/sockjs/0/s/xhr_send", 204),
        ("OPTIONS", "/sockjs/0/s/xhr_streaming", 204),
    ] {
        let asks = "Access-Control-Request-Headers: x-a, x-b\r\n";
        let good = ask(address, method, path, &format!("Origin: https://a.example\r\n{asks}"), b"").await;
        assert_eq!(good.status, status, "{good:?}");
        assert_eq!(good.header("access-control-allow-origin"), Some("https://a.example"));
        assert_eq!(good.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(good.header("vary"), Some("Origin"));
        if method == "OPTIONS" {
            assert_eq!(good.header("access-control-allow-headers"), Some("x-a, x-b"));
            assert!(good.header("access-control-allow-methods").unwrap().starts_with("OPTIONS, "));
        }
        let bad = ask(address, method, path, "Origin: https://b.example\r\n", b"").await;
        assert_eq!((bad.status, bad.header("access-control-allow-origin")), (403, None), "{bad:?}");
        let none = ask(address, "GET", "/sockjs/info", "", b"").await;
        assert_eq!((none.status, none.header("access-control-allow-origin")), (200, None));
    }
}

// ---- what is sent ----------------------------------------------------------------------------------------

#[tokio::test]
async fn what_cannot_be_taken_is_refused_and_the_session_goes_on() {
    let broker = Broker::start_with("[limits]\nmessage_bytes_max = 10000\n").await;
    let mut session = Session::subscriber(broker.address(), "s").await;
    for (body, status, sentence) in [
        ("", 500, "Payload expected."),
        ("[\"x", 500, "Broken JSON encoding."),
        ("[1]", 500, "Broken JSON encoding."),
        ("[\"\\ud800\"]", 500, "Broken JSON encoding."),
    ] {
        let answer = session.send(body).await;
        assert_eq!((answer.status, answer.text()), (status, sentence), "{body}");
    }
    let long = json!(["x".repeat(10_001)]).to_string();
    assert_eq!(session.send(&long).await.status, 413);
    assert_eq!(
        session.send(&json!(vec!["x".repeat(9000); 5]).to_string()).await.status,
        413,
        "together too long"
    );
    // Several messages together may be longer than one.
    let several: Vec<String> =
        (0..3).map(|number| send_frame(&format!("{number}{}", "x".repeat(9000)))).collect();
    assert_eq!(session.send(&json!(several).to_string()).await.status, 204);
    let mut heard = String::new();
    while heard.matches("MESSAGE").count() < 3 {
        heard += &session.receive().await;
    }
    for headers in ["Content-Type: T\r\n", "Content-Type: application/xml\r\n", ""] {
        let path = format!("{}/xhr_send", session.path);
        let answer = ask(broker.address(), "POST", &path, headers, b"[\"\\n\"]").await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    }
    assert_eq!(broker.sessions(), 1);
}

#[tokio::test]
async fn what_breaks_the_language_is_taken_and_what_the_session_says_of_it_received() {
    let broker = Broker::start().await;
    let mut session = Session::subscriber(broker.address(), "s").await;
    session.say("BOGUS\n\n\0").await;
    assert!(session.hear().await.starts_with("ERROR\n"));
    assert_eq!(session.receive().await, "c[1002,\"protocol error\"]\n");
}

#[tokio::test]
async fn bytes_that_are_no_text_end_the_session_which_says_why() {
    let broker = Broker::start().await;
    let mut session = Session::subscriber(broker.address(), "s").await;
    let mut socket = socket(&broker, "/sockjs/0/0/websocket").await;
    put(&mut socket, json!([CONNECT, SUBSCRIBE]).to_string()).await;
    for _ in 0..3 {
        text(&mut socket).await;
    }
    publish(&broker, &[b"first", b"\xff\xfe"]).await;
    let mut heard = String::new();
    while !heard.ends_with("c[1008,\"refused\"]\n") {
        heard += &session.receive().await;
    }
    let (first, error) = heard.split_once("\"ERROR\\n").unwrap();
    assert!(first.contains("first") && error.contains("UTF-8"), "{heard}");
    assert!(message(&text(&mut socket).await).contains("first"));
    assert!(message(&text(&mut socket).await).contains("UTF-8"));
    assert_eq!(text(&mut socket).await, "c[1008,\"refused\"]");
    assert_eq!(text(&mut socket).await, "close 1008");
}

// ---- who comes, stays and goes ---------------------------------------------------------------------------

#[tokio::test]
async fn of_two_receivers_the_newer_is_sent_away() {
    let broker = Broker::start().await;
    let mut session = Session::subscriber(broker.address(), "s").await;
    session.poll().await;
    let mut other = Session {
        address: session.address,
        path: "/sockjs/999/s".into(),
        receiving: Http::connect(session.address).await,
    };
    let taken = "c[2010,\"Another connection still open\"]\n";
    assert_eq!(other.receive().await, taken);
    let path = format!("{}/xhr_streaming", other.path);
    other.receiving.ask("POST", &path, "", b"").await;
    other.receiving.head().await.unwrap();
    other.receiving.chunk().await.unwrap();
    assert_eq!(other.receiving.chunk().await.unwrap(), taken);
    assert_eq!(other.receiving.chunk().await, None);
    publish(&broker, &[b"mine"]).await;
    assert!(session.receiving.answer().await.unwrap().text().contains("mine"));
}

#[tokio::test]
async fn a_receiver_that_breaks_off_ends_the_session_at_once() {
    let broker = Broker::start_with("[sockjs]\ndisconnect_delay_s = 3600\n").await;
    for verb in ["xhr", "xhr_streaming"] {
        let mut session = Session::subscriber(broker.address(), verb).await;
        session.receiving.ask("POST", &format!("{}/{verb}", session.path), "", b"").await;
        if verb == "xhr_streaming" {
            session.receiving.head().await.unwrap();
        }
        // The broker has the request when it answers what came after it.
        for _ in 0..3 {
            assert_eq!(ask(broker.address(), "GET", "/health", "", b"").await.status, 200);
        }
        assert_eq!(broker.sessions(), 1);
        drop(session.receiving);
        eventually(verb, || broker.sessions() == 0).await;
    }
}

#[tokio::test]
async fn whoever_does_not_come_back_within_the_delay_has_left() {
    let broker = Broker::start_with("[sockjs]\ndisconnect_delay_s = 1\n").await;
    let mut session = Session::subscriber(broker.address(), "s").await;
    eventually("the session left", || broker.sessions() == 0).await;
    session.path = "/sockjs/0/s".into();
    // The name is a new session's.
    assert_eq!(session.receive().await, "o\n");
}

#[tokio::test]
async fn a_heart_beat_comes_when_nothing_else_does() {
    let broker = Broker::start_with("[sockjs]\nheart_beat_s = 1\n").await;
    let mut session = Session::subscriber(broker.address(), "s").await;
    assert_eq!(session.receive().await, "h\n");
    session.receiving.ask("GET", &format!("{}/eventsource", session.path), "", b"").await;
    session.receiving.head().await.unwrap();
    session.receiving.chunk().await.unwrap();
    for _ in 0..2 {
        assert_eq!(session.receiving.chunk().await.unwrap(), "data: h\r\n\r\n");
    }
    let beats = Broker::start_with("[websocket]\nping_interval_s = 1\n").await;
    let mut socket = socket(&beats, "/sockjs/0/0/websocket").await;
    assert_eq!(text(&mut socket).await, "o");
    assert_eq!(text(&mut socket).await, "h");
}

/// Browsers say no origin to their own server with the GET of an `EventSource`.
#[tokio::test]
async fn where_an_origin_is_required_an_eventsource_of_the_same_server_is_known_by_other_words() {
    let broker = Broker::start_with("[websocket]\nrequire_origin = true\n").await;
    let address = broker.address();
    let own = format!("http://{address}");
    for (number, (headers, expected)) in [
        (format!("Origin: {own}\r\n"), 200),
        ("Sec-Fetch-Site: same-origin\r\n".into(), 200),
        (format!("Referer: {own}/page\r\n"), 200),
        ("Sec-Fetch-Site: cross-site\r\n".into(), 403),
        ("Referer: http://evil.example/\r\n".into(), 403),
        (String::new(), 403),
    ]
    .into_iter()
    .enumerate()
    {
        let mut http = Http::connect(address).await;
        http.ask("GET", &format!("/sockjs/0/s{number}/eventsource"), &headers, b"").await;
        assert_eq!(http.head().await.unwrap().status, expected, "{headers:?}");
    }
}

#[tokio::test]
async fn one_more_session_than_its_address_may_have_is_told_so() {
    let toml = "[limits]\nconnections_per_address_max = 1\n[proxies]\ntrusted = [\"127.0.0.1\"]\n";
    let broker = Broker::start_with(toml).await;
    let from = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(ask(broker.address(), "POST", "/sockjs/0/a/xhr", from, b"").await.status, 200);
    let second = ask(broker.address(), "POST", "/sockjs/0/b/xhr", from, b"").await;
    assert_eq!((second.status, second.text()), (503, "too many connections from this address\n"));
    assert_eq!(ask(broker.address(), "POST", "/sockjs/0/a/xhr_send", from, b"[]").await.status, 204);
}

#[tokio::test]
async fn a_name_is_of_one_origin() {
    let config = "[websocket]\nallowed_origins = [\"https://a.example\", \"https://b.example\"]\n";
    let broker = Broker::start_with(config).await;
    let address = broker.address();
    let a = ask(address, "POST", "/sockjs/0/s/xhr", "Origin: https://a.example\r\n", b"").await;
    assert_eq!(a.text(), "o\n");
    let b = ask(address, "POST", "/sockjs/0/s/xhr_send", "Origin: https://b.example\r\n", b"[\"\\n\"]").await;
    assert_eq!(b.status, 404);
    let b = ask(address, "POST", "/sockjs/0/s/xhr", "Origin: https://b.example\r\n", b"").await;
    assert_eq!(b.status, 404, "{b:?}");
    let a = ask(address, "POST", "/sockjs/0/s/xhr_send", "Origin: https://a.example\r\n", b"[\"\\n\"]").await;
    assert_eq!(a.status, 204);
}

// ---- strangers and limits --------------------------------------------------------------------------------

#[tokio::test]
async fn a_stranger_is_shown_out_in_time() {
    let broker = Broker::start_with("[limits]\nstranger_time_s = 1\n").await;
    let mut session = Session::open(broker.address(), "s").await;
    assert!(session.hear().await.starts_with("ERROR\n"));
    assert_eq!(session.receive().await, "c[4000,\"silent for too long\"]\n");
}

#[tokio::test]
async fn names_are_not_had_by_the_hundred_by_those_who_were_not_let_in() {
    let config = "[limits]\nstrangers_max = 8\n[sockjs]\ndisconnect_delay_s = 3600\n";
    let broker = Broker::start_with(config).await;
    let mut http = Http::connect(broker.address()).await;
    let mut had = 0;
    loop {
        // A guess, and an attempt to be rid of it at once.
        http.ask("POST", &format!("/sockjs/0/{had}/xhr"), "", b"").await;
        match http.answer().await.unwrap().status {
            200 => had += 1,
            status => break assert_eq!(status, 503),
        }
        let path = format!("/sockjs/0/{}/xhr_send", had - 1);
        http.ask("POST", &path, "", b"[\"BOGUS\\n\\n\\u0000\"]").await;
        assert_eq!(http.answer().await.unwrap().status, 204);
    }
    assert!((1..8).contains(&had), "{had}");
}

#[tokio::test]
async fn a_stream_whose_session_was_let_in_takes_no_place_among_strangers() {
    let broker = Broker::start_with("[limits]\nstrangers_max = 4\n").await;
    let mut streams = Vec::new();
    for number in 0..6 {
        let mut http = Http::connect(broker.address()).await;
        let path = format!("/sockjs/0/{number}");
        http.ask("POST", &format!("{path}/xhr_streaming"), "", b"").await;
        http.head().await.unwrap();
        let _ = (http.chunk().await, http.chunk().await);
        let session = Session { address: broker.address(), path, receiving: http };
        session.say(CONNECT).await;
        streams.push(session);
        let heard = streams.last_mut().unwrap().receiving.chunk().await.unwrap();
        assert!(heard.contains("CONNECTED"), "{heard}");
    }
    assert_eq!(broker.sessions(), 6);
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let broker = Broker::start_with("[limits]\nconnections_max = 4\n").await;
    let mut statuses = Vec::new();
    for number in 0..4 {
        let path = format!("/sockjs/0/{number}/xhr");
        statuses.push(ask(broker.address(), "POST", &path, "", b"").await.status);
    }
    assert_eq!((statuses[0], statuses[3]), (200, 503), "{statuses:?}");
}

// ---- the end ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn at_shutdown_everybody_is_told_and_the_broker_ends_in_time() {
    let broker = Broker::start().await;
    let mut polling = Session::subscriber(broker.address(), "polling").await;
    polling.poll().await;
    let mut streaming = Session::subscriber(broker.address(), "streaming").await;
    streaming.receiving.ask("POST", "/sockjs/0/streaming/xhr_streaming", "", b"").await;
    streaming.receiving.head().await.unwrap();
    streaming.receiving.chunk().await.unwrap();
    let mut socket = socket(&broker, "/sockjs/0/0/websocket").await;
    put(&mut socket, json!([CONNECT]).to_string()).await;
    let _ = (text(&mut socket).await, text(&mut socket).await);
    let shutdown = tokio::spawn(broker.shutdown());
    assert!(polling.receiving.answer().await.unwrap().text().contains("ERROR"));
    let last = "c[1001,\"shutting down\"]";
    assert_eq!(polling.receive().await.trim_end(), last);
    assert!(streaming.receiving.chunk().await.unwrap().contains("ERROR"));
    assert_eq!(streaming.receiving.chunk().await.unwrap().trim_end(), last);
    assert!(message(&text(&mut socket).await).starts_with("ERROR"));
    assert_eq!(text(&mut socket).await, last);
    assert_eq!(text(&mut socket).await, "close 1001");
    drop(socket);
    assert!(soon("the end", shutdown).await.unwrap(), "nobody was cut off");
}

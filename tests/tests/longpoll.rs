//! Long-polling over real sockets: both languages, HTTP's refusals, and clients that vanish.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use serde_json::{Value, json};

use tandem_broker::users::hash_password;
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::dict::Dict;
use tandem_tests::broker::{Broker, eventually, soon};
use tandem_tests::daemon::Daemon;
use tandem_tests::peers;
use tandem_tests::poller::{Answer, Http, Poller, ask};

const SUBSCRIBE: fn() -> Value = || json!([32, 1, {}, "t"]);

async fn subscriber(broker: &Broker) -> Poller {
    let mut poller = Poller::join(broker.address()).await;
    assert_eq!(poller.say(SUBSCRIBE()).await, 204);
    assert_eq!(poller.hear().await[0], 33, "SUBSCRIBED");
    poller
}

/// Publishes numbers to `t` over WebSocket.
async fn publish(broker: &Broker, numbers: impl IntoIterator<Item = u64>) {
    let mut client = peers::wamp(broker.address(), Format::MsgPack).await;
    for number in numbers {
        let args = client.args(&(number,)).unwrap();
        client.publish("t", Dict::new(), args).await.unwrap();
    }
    client.flush().await.unwrap();
}

/// The first argument of an EVENT.
fn number(event: &Value) -> u64 {
    assert_eq!(event[0], 36, "{event}");
    event[4][0].as_u64().unwrap()
}

// ---- conversations ---------------------------------------------------------------------------------------

#[tokio::test]
async fn a_wamp_session_subscribes_publishes_and_says_goodbye() {
    let broker = Broker::start().await;
    let mut one = subscriber(&broker).await;
    let mut other = Poller::join(broker.address()).await;
    assert_eq!(broker.sessions(), 2);
    one.poll().await;
    assert_eq!(other.say(json!([16, 1, {"acknowledge": true}, "t", [7], {"a": "é"}])).await, 204);
    let answer = one.receiving.answer().await.unwrap();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    for word in ["no-store", "no-transform"] {
        assert!(answer.header("cache-control").unwrap().contains(word), "{answer:?}");
    }
    assert_eq!(answer.header("x-accel-buffering"), Some("no"), "{answer:?}");
    let event: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((number(&event), &event[5]), (7, &json!({"a": "é"})));
    assert_eq!(other.hear().await[0], 17, "PUBLISHED");
    assert_eq!(one.say(json!([6, {}, "wamp.close.normal"])).await, 204);
    assert_eq!(one.hear().await, json!([6, {}, "wamp.close.goodbye_and_out"]));
    let path = format!("{}/receive", one.path);
    eventually("the session left", || broker.sessions() == 1).await;
    one.receive().await;
    assert_eq!(ask(broker.address(), "POST", &path, "", b"").await.status, 404);
    assert_eq!(other.post("close", b"").await.status, 204);
    assert_eq!(broker.sessions(), 0, "close is answered when the session has left");
    assert_eq!(other.receive().await.status, 404);
    assert_eq!(other.post("close", b"").await.status, 404);
    assert!(broker.shutdown().await);
}

#[tokio::test]
async fn each_receive_has_one_message_in_order_however_large() {
    let broker = Broker::start().await;
    let mut poller = subscriber(&broker).await;
    let sizes = [1, 100_000, 0, 700_000, 8191, 65_536, 3];
    let mut publisher = Poller::join(broker.address()).await;
    for (request, size) in (1..).zip(sizes) {
        assert_eq!(publisher.say(json!([16, request, {}, "t", ["x".repeat(size)]])).await, 204);
    }
    for size in sizes {
        let event = poller.hear().await;
        assert_eq!(event[4][0].as_str().unwrap().len(), size);
    }
}

#[tokio::test]
async fn binary_serializers_come_as_bytes() {
    let broker = Broker::start().await;
    let mut poller = Poller::open(broker.address(), "wamp.2.msgpack").await;
    // [1, "realm1", {"roles": {"caller": {}}}]
    let hello = b"\x93\x01\xa6realm1\x81\xa5roles\x81\xa6caller\x80";
    assert_eq!(poller.send(hello).await, 204);
    let welcome = poller.receive().await;
    assert_eq!(welcome.header("content-type"), Some("application/octet-stream"));
    assert_eq!(welcome.body[..2], [0x93, 2], "{welcome:?}");
}

#[tokio::test]
async fn stomp_is_spoken_too_and_meets_wamp() {
    let broker = Broker::start().await;
    let mut wamp = subscriber(&broker).await;
    let mut stomp = Poller::open(broker.address(), "v12.stomp").await;
    assert_eq!(stomp.send(b"CONNECT\naccept-version:1.2\nhost:/\n\n\0").await, 204);
    let connected = stomp.receive().await;
    assert!(connected.text().starts_with("CONNECTED\n"), "{connected:?}");
    assert_eq!(connected.header("content-type"), Some("text/plain; charset=utf-8"));
    let frames = b"SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:r\n\n\0";
    assert_eq!(stomp.send(frames).await, 204);
    assert!(stomp.receive().await.text().starts_with("RECEIPT\n"));
    assert_eq!(stomp.send(b"SEND\ndestination:/topic/t\ncontent-type:application/json\n\n5\0").await, 204);
    assert!(stomp.receive().await.text().starts_with("MESSAGE\n"));
    assert_eq!(number(&wamp.hear().await), 5);
    // Bytes that are no text, each way.
    let body = b"SEND\ndestination:/topic/t\ncontent-length:2\n\n\xff\0\0";
    assert_eq!(stomp.send(body).await, 204);
    let message = stomp.receive().await;
    assert!(message.body.ends_with(b"\n\n\xff\0\0"), "{message:?}");
    assert_eq!(stomp.send(b"BOGUS\n\n\0").await, 400);
    assert!(stomp.receive().await.text().starts_with("ERROR\n"));
}

#[tokio::test]
async fn the_clients_first_choice_is_spoken() {
    let broker = Broker::start().await;
    for (asked, spoken) in [
        (json!(["mqtt", "v11.stomp", "wamp.2.json"]), "v11.stomp"),
        (json!(["wamp.2.cbor", "wamp.2.json"]), "wamp.2.cbor"),
        (json!(["WAMP.2.JSON", "wamp.2.json"]), "wamp.2.json"),
    ] {
        let body = json!({"protocols": asked, "more": 1}).to_string();
        let answer = ask(broker.address(), "POST", "/lp/open", "", body.as_bytes()).await;
        let opened: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(opened["protocol"], spoken);
        assert_eq!(opened["transport"].as_str().unwrap().len(), 32);
    }
}

// ---- logins ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_ticket_lets_in_and_a_wrong_one_is_told_before_the_transport_is_gone() {
    let hash = hash_password("wonderland").unwrap();
    let config = format!(
        "[authentication]\nanonymous = \"never\"\n[[users]]\nname = \"alice\"\npassword = \"{hash}\"\n\
         [limits]\nstranger_bytes_max = 400\n"
    );
    let broker = Broker::start_with(&config).await;
    for (ticket, answer) in [("wonderland", 2), ("looking-glass", 3)] {
        let mut poller = Poller::open(broker.address(), "wamp.2.json").await;
        let details = json!({"roles": {"subscriber": {}, "publisher": {}}, "authmethods": ["ticket"], "authid": "alice"});
        assert_eq!(poller.say(json!([1, "realm1", details])).await, 204);
        assert_eq!(poller.hear().await[0], 4, "CHALLENGE");
        assert_eq!(poller.say(json!([5, ticket, {}])).await, 204);
        assert_eq!(poller.hear().await[0], answer);
        if answer == 2 {
            // From now on the limit for strangers holds no longer.
            assert_eq!(poller.say(json!([16, 1, {}, "t", ["x".repeat(1000)]])).await, 204);
        } else {
            poller.receive().await;
            assert_eq!(poller.receive().await.status, 404);
        }
    }
    let mut stranger = Poller::open(broker.address(), "wamp.2.json").await;
    assert_eq!(stranger.send(&[b'x'; 401]).await, 413);
}

// ---- refusals --------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_cannot_be_done_has_its_status_and_a_sentence() {
    let broker = Broker::start_with("[limits]\nmessage_bytes_max = 10000\n").await;
    let address = broker.address();
    let id = "0".repeat(32);
    let unknown = |verb: &str| format!("/lp/{id}/{verb}");
    let table: &[(&str, String, &str, u16)] = &[
        ("GET", "/lp/open".into(), "", 405),
        ("PUT", "/lp/open".into(), "", 405),
        ("GET", unknown("receive"), "", 405),
        ("GET", unknown("send"), "", 405),
        ("DELETE", unknown("close"), "", 405),
        ("POST", unknown("receive"), "", 404),
        ("POST", unknown("send"), "[]", 404),
        ("POST", unknown("close"), "", 404),
        ("POST", "/lp/x/send".into(), "", 404),
        ("POST", unknown("other"), "", 404),
        ("POST", "/lp/".into(), "", 404),
        ("GET", "/lp/".into(), "", 404),
        ("POST", "/lp/open".into(), "", 400),
        ("POST", "/lp/open".into(), "{", 400),
        ("POST", "/lp/open".into(), "[]", 400),
        ("POST", "/lp/open".into(), "{}", 400),
        ("POST", "/lp/open".into(), "{\"protocols\": \"wamp.2.json\"}", 400),
        ("POST", "/lp/open".into(), "{\"protocols\": [1]}", 400),
        ("POST", "/lp/open".into(), "{\"protocols\": []}", 400),
    ];
    for (method, path, body, status) in table {
        let answer = ask(address, method, path, "", body.as_bytes()).await;
        assert_eq!(answer.status, *status, "{method} {path} {body}: {answer:?}");
        assert!(answer.text().ends_with('\n'), "{answer:?}");
        assert_eq!(answer.header("allow"), (*status == 405).then_some("POST, OPTIONS"));
    }
    let none = ask(address, "POST", "/lp/open", "", b"{\"protocols\": [\"mqtt\"]}").await;
    assert!(none.status == 400 && none.text().contains("wamp.2.json, "), "{none:?}");
    let long = ask(address, "POST", "/lp/open", "", &[b' '; 20_000]).await;
    assert_eq!(long.status, 413);
    // What is too long is not taken, with and without its length before; the session goes on.
    let mut poller = subscriber(&broker).await;
    let path = format!("{}/send", poller.path);
    assert_eq!(ask(address, "POST", &path, "", &[b' '; 10_001]).await.status, 413);
    let mut chunked = Http::connect(address).await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n");
    chunked.write(format!("{head}2711\r\n{}\r\n0\r\n\r\n", " ".repeat(10_001)).as_bytes()).await;
    assert_eq!(chunked.answer().await.unwrap().status, 413);
    publish(&broker, [1]).await;
    assert_eq!(number(&poller.hear().await), 1);
    assert_eq!(broker.sessions(), 1);
}

#[tokio::test]
async fn a_message_that_breaks_the_protocol_is_refused_and_the_session_says_why() {
    let broker = Broker::start().await;
    for message in [&b"{"[..], b"", b"[2, 1, {}]", b"\xff\xff"] {
        let mut poller = subscriber(&broker).await;
        let answer = poller.post("send", message).await;
        assert!(answer.status == 400 && answer.text().contains("session ended"), "{answer:?}");
        let abort = poller.hear().await;
        assert_eq!((&abort[0], &abort[2]), (&json!(3), &json!("wamp.error.protocol_violation")));
        poller.receive().await;
        assert_eq!(poller.send(b"[]").await, 404);
    }
    eventually("all have left", || broker.sessions() == 0).await;
}

#[tokio::test]
async fn other_paths_answer_as_ever_on_the_same_connection() {
    let broker = Broker::start().await;
    let mut poller = subscriber(&broker).await;
    poller.receiving.ask("GET", "/health", "", b"").await;
    assert_eq!(poller.receiving.answer().await.unwrap().text(), "ok\n");
    publish(&broker, [1]).await;
    assert_eq!(number(&poller.hear().await), 1);
    poller.receiving.ask("GET", "/", "", b"").await;
    assert_eq!(poller.receiving.answer().await.unwrap().status, 426);
    poller.receiving.ask("GET", "/metrics", "", b"").await;
    assert!(poller.receiving.answer().await.unwrap().text().contains("tandem_long_polls "));
}

#[tokio::test]
async fn it_can_be_elsewhere_or_nowhere() {
    let broker = Broker::start_with("[longpoll]\npath = \"/a/poll\"\n").await;
    let body = b"{\"protocols\": [\"wamp.2.json\"]}";
    assert_eq!(ask(broker.address(), "POST", "/a/poll/open", "", body).await.status, 200);
    assert_eq!(ask(broker.address(), "POST", "/lp/open", "", body).await.status, 405, "WebSocket's answer");
    let broker = Broker::start_with("[longpoll]\nenabled = false\n").await;
    assert_eq!(ask(broker.address(), "POST", "/lp/open", "", body).await.status, 405, "WebSocket's answer");
}

// ---- pages -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn pages_that_may_open_a_websocket_may_poll_and_others_may_not() {
    let broker = Broker::start_with("[websocket]\nallowed_origins = [\"https://app.example.com\"]\n").await;
    let address = broker.address();
    let body = b"{\"protocols\": [\"wamp.2.json\"]}";
    let origin = "Origin: https://app.example.com\r\n";
    let preflight = format!("{origin}Access-Control-Request-Method: POST\r\n");
    let allows = |answer: &Answer| {
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("vary"), Some("Origin"));
    };
    let asked = ask(address, "OPTIONS", "/lp/open", &preflight, b"").await;
    assert_eq!((asked.status, asked.header("access-control-allow-methods")), (204, Some("POST, OPTIONS")));
    assert_eq!(asked.header("access-control-allow-headers"), Some("content-type, authorization"));
    assert!(asked.header("access-control-max-age").is_some());
    allows(&asked);
    let opened = ask(address, "POST", "/lp/open", origin, body).await;
    assert_eq!(opened.status, 200);
    allows(&opened);
    let missing = ask(address, "POST", "/lp/x/send", origin, b"").await;
    assert_eq!(missing.status, 404);
    allows(&missing);
    for other in [
        "Origin: https://evil.com\r\n",
        "Origin: null\r\n",
        "Origin: \r\n",
        "Origin: https://app.example.com\r\nOrigin: https://evil.com\r\n",
    ] {
        for (method, path) in [("OPTIONS", "/lp/open"), ("POST", "/lp/open"), ("POST", "/lp/x/send")] {
            let answer = ask(address, method, path, other, body).await;
            assert_eq!(answer.status, 403, "{other}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let none = ask(address, "POST", "/lp/open", "", body).await;
    assert_eq!((none.status, none.header("access-control-allow-origin")), (200, None));
    assert_eq!(none.header("vary"), Some("Origin"));
}

// ---- waiting and vanishing -------------------------------------------------------------------------------

#[tokio::test]
async fn a_receive_for_which_nothing_comes_is_answered_with_nothing() {
    let broker = Broker::start_with("[longpoll]\nreceive_time_s = 1\n").await;
    let mut poller = subscriber(&broker).await;
    let answer = poller.receive().await;
    assert_eq!((answer.status, &answer.body[..]), (204, &b""[..]));
    publish(&broker, [1]).await;
    assert_eq!(number(&poller.hear().await), 1);
}

#[tokio::test]
async fn of_two_receives_the_older_is_answered_with_nothing() {
    let broker = Broker::start().await;
    let mut poller = subscriber(&broker).await;
    poller.poll().await;
    let path = format!("{}/receive", poller.path);
    let mut newer = Http::connect(broker.address()).await;
    newer.ask("POST", &path, "", b"").await;
    assert_eq!(poller.receiving.answer().await.unwrap().status, 204);
    publish(&broker, [1]).await;
    assert_eq!(newer.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn what_comes_while_a_client_vanishes_waits_for_its_next_receive() {
    let broker = Broker::start().await;
    let mut poller = subscriber(&broker).await;
    for round in 0..20 {
        poller.poll().await;
        // The broker has the receive, then it has the end, when it answers what came after it.
        poller.be_answered().await;
        drop(std::mem::replace(&mut poller.receiving, Http::connect(broker.address()).await));
        poller.be_answered().await;
        publish(&broker, [round]).await;
        assert_eq!(number(&poller.hear().await), round);
    }
}

#[tokio::test]
async fn whoever_does_not_poll_has_left() {
    let broker = Broker::start_with("[longpoll]\nsession_time_s = 1\nreceive_time_s = 3\n").await;
    let mut poller = subscriber(&broker).await;
    // A receive that lasts longer than that is no silence.
    assert_eq!(poller.receive().await.status, 204);
    assert_eq!(broker.sessions(), 1);
    eventually("the silent one left", || broker.sessions() == 0).await;
    assert_eq!(poller.receive().await.status, 404);
}

#[tokio::test]
async fn whoever_polls_too_slowly_overflows_like_anybody() {
    let broker = Broker::start_with("[limits]\nmailbox_bytes_max = 200000\n").await;
    let mut poller = subscriber(&broker).await;
    let mut publisher = peers::wamp(broker.address(), Format::Json).await;
    let args = publisher.args(&("x".repeat(10_000),)).unwrap();
    for _ in 0..100 {
        publisher.publish("t", Dict::new(), args.clone()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    eventually("the slow one left", || broker.sessions() == 1).await;
    // What was written ahead is still there, then the reason.
    let mut messages = 0;
    let last = loop {
        let message = poller.hear().await;
        if message[0] != 36 {
            break message;
        }
        messages += 1;
    };
    assert!(messages < 30, "{messages}");
    assert_eq!((&last[0], &last[2]), (&json!(6), &json!("tandem.close.slow_consumer")), "{last}");
}

#[tokio::test]
async fn a_body_that_dribbles_in_is_cut_and_the_session_goes_on() {
    let broker = Broker::start_with("[limits]\nmessage_time_s = 1\n").await;
    let mut poller = subscriber(&broker).await;
    let mut slow = Http::connect(broker.address()).await;
    let head =
        format!("POST {}/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n[", poller.path);
    slow.write(head.as_bytes()).await;
    assert_eq!(slow.answer().await.unwrap().status, 408);
    assert!(slow.is_closed().await);
    publish(&broker, [1]).await;
    assert_eq!(number(&poller.hear().await), 1);
}

#[tokio::test]
async fn a_send_that_breaks_off_is_not_taken() {
    let broker = Broker::start().await;
    let mut poller = subscriber(&broker).await;
    let mut broken = Http::connect(broker.address()).await;
    let head =
        format!("POST {}/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n[", poller.path);
    broken.write(head.as_bytes()).await;
    drop(broken);
    assert_eq!(poller.say(json!([16, 2, {"exclude_me": false}, "t", [3]])).await, 204);
    assert_eq!(number(&poller.hear().await), 3);
}

#[tokio::test]
async fn a_receive_ends_with_the_session_and_a_close_after_the_last_message_is_no_error() {
    let broker = Broker::start().await;
    let mut poller = subscriber(&broker).await;
    poller.poll().await;
    assert_eq!(poller.post("close", b"").await.status, 204);
    assert_eq!(poller.receiving.answer().await.unwrap().status, 204);
    assert_eq!(poller.receive().await.status, 404);
    // As AutobahnJS does, which waits for the answer.
    let mut poller = subscriber(&broker).await;
    poller.poll().await;
    assert_eq!(poller.say(json!([6, {}, "wamp.close.normal"])).await, 204);
    let goodbye = poller.receiving.answer().await.unwrap();
    assert_eq!((goodbye.status, &goodbye.body[..3]), (200, &b"[6,"[..]));
    assert_eq!(poller.post("close", b"").await.status, 204);
    assert_eq!(poller.post("close", b"").await.status, 404);
}

#[tokio::test]
async fn a_connection_between_two_requests_is_closed_in_time_and_its_session_is_not() {
    let broker = Broker::start_with("[limits]\nstranger_time_s = 1\n").await;
    let mut poller = subscriber(&broker).await;
    assert!(poller.receiving.is_closed().await);
    assert!(poller.sending.is_closed().await);
    poller.receiving = Http::connect(broker.address()).await;
    publish(&broker, [1]).await;
    assert_eq!(number(&poller.hear().await), 1);
}

#[tokio::test]
async fn the_log_does_not_tell_the_secret_of_a_transport() {
    let daemon = Daemon::start(&["--log", "trace"]);
    let mut poller = Poller::join(daemon.address()).await;
    assert_eq!(poller.say(SUBSCRIBE()).await, 204);
    assert_eq!(poller.hear().await[0], 33);
    assert_eq!(poller.send(b"{").await, 400);
    assert_eq!(poller.hear().await[0], 3);
    let id = poller.path.strip_prefix("/lp/").unwrap();
    let (log, _) = daemon.terminate();
    assert!(log.contains(&id[..8]), "{log}");
    assert!(!log.contains(&id[..9]), "{log}");
}

// ---- strangers and limits --------------------------------------------------------------------------------

#[tokio::test]
async fn a_stranger_is_shown_out_in_time() {
    let broker = Broker::start_with("[limits]\nstranger_time_s = 1\n").await;
    let mut poller = Poller::open(broker.address(), "wamp.2.json").await;
    let abort = poller.hear().await;
    assert_eq!(abort[0], 3, "{abort}");
    poller.receive().await;
    assert_eq!(ask(broker.address(), "POST", &format!("{}/receive", poller.path), "", b"").await.status, 404);
}

#[tokio::test]
async fn a_full_door_says_to_come_later_and_sessions_that_were_let_in_take_no_place_there() {
    let broker = Broker::start_with("[limits]\nstrangers_max = 4\n").await;
    let mut let_in = Vec::new();
    // Each has two connections that stay open, which together are more than there are places.
    for _ in 0..5 {
        let mut poller = subscriber(&broker).await;
        poller.poll().await;
        let_in.push(poller);
    }
    let body = b"{\"protocols\": [\"wamp.2.json\"]}";
    let mut http = Http::connect(broker.address()).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        http.ask("POST", "/lp/open", "", body).await;
        let answer = http.answer().await.unwrap();
        statuses.push(answer.status);
        assert_eq!(answer.header("retry-after"), (answer.status == 503).then_some("1"));
    }
    // One place is the connection's.
    assert_eq!(statuses[0], 200);
    assert_eq!(statuses[3], 503, "{statuses:?}");
    publish_through(&mut let_in[0], 9).await;
    for poller in &mut let_in[1..] {
        let answer = poller.receiving.answer().await.unwrap();
        assert_eq!(number(&serde_json::from_slice(&answer.body).unwrap()), 9);
    }
}

async fn publish_through(poller: &mut Poller, number: u64) {
    assert_eq!(poller.say(json!([16, 2, {}, "t", [number]])).await, 204);
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let broker = Broker::start_with("[limits]\nconnections_max = 4\n").await;
    let body = b"{\"protocols\": [\"wamp.2.json\"]}";
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(ask(broker.address(), "POST", "/lp/open", "", body).await.status);
    }
    assert_eq!((statuses[0], statuses[3]), (200, 503), "{statuses:?}");
}

// ---- the end ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn at_shutdown_everybody_is_told_and_the_broker_ends_in_time() {
    let broker = Broker::start().await;
    let mut idle = subscriber(&broker).await;
    idle.poll().await;
    let mut behind = subscriber(&broker).await;
    publish(&broker, 0..3).await;
    let _stranger = Poller::open(broker.address(), "wamp.2.json").await;
    assert_eq!(number(&behind.hear().await), 0);
    let event = idle.receiving.answer().await.unwrap();
    assert_eq!(number(&serde_json::from_slice(&event.body).unwrap()), 0);
    for expected in 1..3 {
        assert_eq!(number(&idle.hear().await), expected);
    }
    idle.poll().await;
    let address = broker.address();
    let shutdown = tokio::spawn(broker.shutdown());
    let goodbye = idle.receiving.answer().await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&goodbye.body).unwrap()[0], 6, "{goodbye:?}");
    assert_eq!(idle.say(json!([6, {}, "wamp.close.goodbye_and_out"])).await, 204);
    // Whoever is behind gets all that there was, on the connection that it has.
    for expected in 1..3 {
        assert_eq!(number(&behind.hear().await), expected);
    }
    assert_eq!(behind.hear().await[0], 6, "GOODBYE");
    assert!(soon("the end", shutdown).await.unwrap(), "nobody was cut off");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_connection_that_said_hello_is_its_sessions_at_once_and_may_say_goodbye() {
    let broker = Broker::start().await;
    let mut poller = Poller::open(broker.address(), "wamp.2.json").await;
    assert_eq!(poller.say(json!([1, "realm1", {"roles": {"subscriber": {}}}])).await, 204);
    assert_eq!(poller.hear().await[0], 2, "WELCOME");
    poller.poll().await;
    let shutdown = tokio::spawn(broker.shutdown());
    let goodbye = poller.receiving.answer().await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&goodbye.body).unwrap()[0], 6, "{goodbye:?}");
    assert_eq!(poller.say(json!([6, {}, "wamp.close.goodbye_and_out"])).await, 204);
    assert!(soon("the end", shutdown).await.unwrap(), "nobody was cut off");
}

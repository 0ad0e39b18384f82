//! The meta API over real sockets: who asks it in either language, and what those hear whose sessions are killed.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use serde_json::json;

use tandem_broker::users::hash_password;
use tandem_client::Error;
use tandem_client::raw::stomp;
use tandem_client::raw::stomp::{AckMode, ConnectOptions};
use tandem_client::raw::wamp::{self, Login, MatchPolicy};
use tandem_protocols::payload::{Content, Format};
use tandem_protocols::stomp::frame::{Command, Frame, Version};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::Message;
use tandem_tests::broker::{Broker, eventually, soon};
use tandem_tests::peers;

/// A broker with an administrator.
async fn start() -> Broker {
    let hash = hash_password("secret").unwrap();
    let root = format!("[[users]]\nname = \"root\"\nrole = \"admin\"\npassword = \"{hash}\"\n");
    Broker::start_with(&root).await
}

async fn wamp_root(broker: &Broker) -> wamp::Client {
    let login = Login::Ticket { authid: "root".to_owned(), ticket: "secret".to_owned() };
    let transport = peers::websocket(broker.address(), "wamp.2.json").await;
    soon("WELCOME", wamp::Client::join(transport, Format::Json, "realm1", &login)).await.unwrap()
}

/// Calls a procedure out of STOMP, and gives the answer.
async fn ask(client: &mut stomp::Client, procedure: &str, body: &str) -> Frame {
    let destination = format!("/call/{procedure}");
    let headers = [
        ("reply-to", "/temp-queue/answers"),
        ("content-type", "application/json"),
        ("x-wamp-payload", "full"),
    ];
    client.send(&destination, &headers, body.as_bytes().to_vec()).await.unwrap();
    client.flush().await.unwrap();
    soon("an answer", client.next_message()).await.unwrap()
}

fn body(frame: &Frame) -> String {
    String::from_utf8_lossy(&frame.body).into_owned()
}

#[tokio::test]
async fn both_languages_ask_the_meta_api() {
    let broker = start().await;
    let mut stomp = peers::stomp(broker.address()).await;
    let mut wamp = peers::wamp(broker.address(), Format::MsgPack).await;
    assert_eq!(body(&ask(&mut stomp, "wamp.session.count", "{}").await), "2");
    // As most would ask: with no body at all.
    let headers = [("reply-to", "/temp-queue/answers")];
    stomp.send("/call/wamp.session.count", &headers, Vec::new()).await.unwrap();
    assert_eq!(body(&soon("an answer", stomp.next_message()).await.unwrap()), "2");
    let args = wamp.args(&(vec!["admin"],)).unwrap();
    let outcome = soon("RESULT", wamp.call("wamp.session.count", args)).await.unwrap();
    assert_eq!(outcome.args::<(u64,)>().unwrap(), (0,));

    let asked = json!({"args": [wamp.session().get()]}).to_string();
    let details: serde_json::Value =
        serde_json::from_str(&body(&ask(&mut stomp, "wamp.session.get", &asked).await)).unwrap();
    assert_eq!(details["transport"]["protocol"], json!("wamp.2.msgpack"));
    assert!(details["transport"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let own: u64 = stomp.connected().get("session").unwrap().parse().unwrap();
    let args = wamp.args(&(own,)).unwrap();
    let outcome = soon("RESULT", wamp.call("wamp.session.get", args)).await.unwrap();
    let (details,): (serde_json::Value,) = outcome.args().unwrap();
    assert_eq!(details["transport"]["protocol"], json!("v12.stomp/text"));

    // Neither is an administrator.
    let refused = ask(&mut stomp, "wamp.session.kill_all", "{}").await;
    assert_eq!(refused.headers.get("error"), Some("wamp.error.not_authorized"));
    let args = wamp.args(&()).unwrap();
    let refused = soon("ERROR", wamp.call("wamp.session.kill_all", args)).await.unwrap_err();
    assert_eq!(refused.uri(), Some("wamp.error.not_authorized"));
    assert_eq!(broker.sessions(), 2);
}

#[tokio::test]
async fn a_stomp_client_hears_meta_events() {
    let broker = start().await;
    let mut stomp = peers::stomp(broker.address()).await;
    stomp.subscribe("/topic/wamp.session.on_leave", "0", AckMode::Auto, &[]).await.unwrap();
    let wamp = peers::wamp(broker.address(), Format::Cbor).await;
    let session = wamp.session().get();
    wamp.leave().await.unwrap();
    let event = soon("on_leave", stomp.next_message()).await.unwrap();
    let args: serde_json::Value = serde_json::from_str(&body(&event)).unwrap();
    let args = &args["args"];
    assert_eq!((&args[0], &args[2]), (&json!(session), &json!("anonymous")), "{event:?}");
    assert_eq!(args.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_killed_hear_why_in_their_language_and_are_closed() {
    let broker = start().await;
    let mut root = wamp_root(&broker).await;
    let mut watcher = peers::wamp(broker.address(), Format::Json).await;
    watcher.subscribe("wamp.session.on_leave", MatchPolicy::Exact).await.unwrap();
    let mut stomp = peers::stomp(broker.address()).await;
    let mut wamp = peers::wamp(broker.address(), Format::Cbor).await;
    stomp.subscribe("/topic/a", "0", AckMode::Auto, &[]).await.unwrap();

    let kwargs = json!({"reason": "com.app.maintenance", "message": "back at nine"});
    for session in [wamp.session().get(), stomp.connected().get("session").unwrap().parse().unwrap()] {
        let arguments = root.arguments(&(session,), &kwargs).unwrap();
        soon("RESULT", root.call("wamp.session.kill", arguments)).await.unwrap();
        let left = soon("on_leave", watcher.next_event()).await.unwrap();
        let Content::Arguments(arguments) = left.payload else { panic!("{left:?}") };
        let args: serde_json::Value = serde_json::from_slice(&arguments.args).unwrap();
        assert_eq!(args[0], json!(session));
    }
    let Message::Goodbye(goodbye) = soon("GOODBYE", wamp.receive()).await.unwrap() else {
        panic!("not a GOODBYE")
    };
    assert_eq!(goodbye.reason, "com.app.maintenance");
    assert_eq!(goodbye.details, Dict::new().with("message", "back at nine"));
    // It does not answer, and is closed when its time is over.
    let closed = soon("the end", wamp.receive()).await.unwrap_err();
    assert!(matches!(closed, Error::Closed(_) | Error::Io(_)), "{closed:?}");

    let error = match soon("ERROR", stomp.receive_frame()).await {
        Ok(frame) => frame,
        Err(Error::StompError(frame)) => *frame,
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!((error.command, error.headers.get("message")), (Command::Error, Some("Session killed")));
    assert_eq!(body(&error), "com.app.maintenance: back at nine");
    let closed = soon("the end", stomp.receive_frame()).await.unwrap_err();
    assert!(matches!(closed, Error::Closed(_) | Error::Io(_)), "{closed:?}");
    assert_eq!(broker.sessions(), 2);
}

#[tokio::test]
async fn who_does_not_read_is_killed_all_the_same() {
    // Its mailbox takes all of it for as long as it likes.
    const PAYLOAD_BYTES: usize = 64 * 1024;
    let hash = hash_password("secret").unwrap();
    let broker = Broker::start_with(&format!(
        "[[users]]\nname = \"root\"\nrole = \"admin\"\npassword = \"{hash}\"\n\
         [limits]\nmailbox_bytes_soft_max = 100_000_000\nmailbox_bytes_max = 100_000_000\n\
         in_flight_bytes_max = 100_000_000\n"
    ))
    .await;
    let mut root = wamp_root(&broker).await;
    let transport = peers::lazy_websocket(broker.address(), "wamp.2.json").await;
    let mut victim = peers::wamp_over(transport, Format::Json).await;
    victim.subscribe("a", MatchPolicy::Exact).await.unwrap();
    let text = "x".repeat(PAYLOAD_BYTES);
    for _ in 0..256 {
        let arguments = root.args(&(&text,)).unwrap();
        root.publish_acknowledged("a", Dict::new(), arguments).await.unwrap();
    }
    let arguments = root.args(&(victim.session().get(),)).unwrap();
    soon("RESULT", root.call("wamp.session.kill", arguments)).await.unwrap();
    eventually("it left the realm", || broker.sessions() == 1).await;
}

#[tokio::test]
async fn a_version_without_escapes_hears_why_too() {
    let broker = start().await;
    let mut root = wamp_root(&broker).await;
    let wire = tandem_client::raw::dial::connect_tcp(broker.address()).await.unwrap();
    let mut old = stomp::Client::connect(wire, Version::V10, &ConnectOptions::default()).await.unwrap();
    let arguments = root.args(&()).unwrap();
    let outcome = soon("RESULT", root.call("wamp.session.kill_all", arguments)).await.unwrap();
    assert_eq!(outcome.args::<(u64,)>().unwrap(), (1,));
    let error = match soon("ERROR", old.receive_frame()).await {
        Ok(frame) => frame,
        Err(Error::StompError(frame)) => *frame,
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(body(&error), "wamp.close.killed");
}

#[tokio::test]
async fn the_meta_api_does_not_hold_up_the_end() {
    let broker = start().await;
    let mut client = peers::wamp(broker.address(), Format::Json).await;
    client.subscribe("wamp.", MatchPolicy::Prefix).await.unwrap();
    drop(client);
    assert!(broker.shutdown().await);
}

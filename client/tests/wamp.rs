//! The WAMP client against a scripted router.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod peer;

use std::time::Duration;

use tokio::io::DuplexStream;

use tandem_client::Error;
use tandem_client::raw::transport::{Kind, Transport};
use tandem_client::raw::wamp::{Client, Link, Login, MatchPolicy};
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::codec::{decode, encode, subprotocol};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{Message, Welcome};
use tandem_protocols::websocket::message::Event;

use peer::{Peer, plain};

/// A client that was let in as session 7.
async fn joined() -> (Client<Transport<DuplexStream>>, Peer) {
    let (transport, mut peer) = plain("wamp.2.json").await;
    let server = async {
        assert!(peer.expect_text().await.starts_with(r#"[1,"realm1",{"#));
        peer.text(r#"[2,7,{"realm":"realm1","roles":{}}]"#).await;
    };
    let joining = Client::join(transport, Format::Json, "realm1", &Login::Anonymous);
    let (client, ()) = tokio::join!(joining, server);
    (client.unwrap(), peer)
}

fn id(value: u64) -> Id {
    Id::new(value).unwrap()
}

#[tokio::test]
async fn a_client_joins_in_every_format() {
    for format in [Format::Json, Format::MsgPack, Format::Cbor] {
        let (transport, mut peer) = plain(subprotocol(format)).await;
        let server = async {
            let (kind, hello) = peer.message().await;
            assert_eq!(kind == Kind::Text, format == Format::Json);
            let Message::Hello(hello) = decode(format, &hello).unwrap() else { panic!() };
            assert_eq!(hello.realm, "realm1");
            assert_eq!(hello.details.dict("roles").unwrap().unwrap().len(), 4);
            let welcome = Welcome { session: id(5), details: Dict::new().with("authrole", "x") };
            let welcome = encode(format, &welcome.into()).unwrap();
            match format {
                Format::Json => peer.text(std::str::from_utf8(&welcome).unwrap()).await,
                Format::MsgPack | Format::Cbor => peer.binary(&welcome).await,
            }
        };
        let joining = Client::join(transport, format, "realm1", &Login::Anonymous);
        let (client, ()) = tokio::join!(joining, server);
        let client = client.unwrap();
        assert_eq!((client.session(), client.format()), (id(5), format));
        assert_eq!(client.welcome().str("authrole").unwrap(), Some("x"));
    }
}

#[tokio::test]
async fn a_ticket_answers_a_challenge() {
    let (transport, mut peer) = plain("wamp.2.json").await;
    let server = async {
        let hello = peer.expect_text().await;
        assert!(hello.contains(r#""authmethods":["ticket"],"authid":"joe""#), "{hello}");
        peer.text(r#"[4,"ticket",{}]"#).await;
        assert_eq!(peer.expect_text().await, r#"[5,"secret",{}]"#);
        peer.text(r#"[3,{},"wamp.error.authentication_denied"]"#).await;
    };
    let login = Login::Ticket { authid: "joe".to_owned(), ticket: "secret".to_owned() };
    let (refused, ()) = tokio::join!(Client::join(transport, Format::Json, "r", &login), server);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Abort(_)));
    assert_eq!(refused.uri(), Some("wamp.error.authentication_denied"));
}

#[tokio::test]
async fn events_that_arrive_while_a_call_waits_are_kept_in_order() {
    let (mut client, mut peer) = joined().await;
    let server = async {
        assert_eq!(peer.expect_text().await, r#"[32,1,{"match":"prefix"},"com"]"#);
        peer.text(r#"[33,1,9]"#).await;
        assert_eq!(peer.expect_text().await, r#"[48,2,{},"com.add",[1,2]]"#);
        peer.text(r#"[36,9,100,{},["a"]]"#).await;
        peer.text(r#"[68,1,3,{}]"#).await;
        peer.text(r#"[50,2,{"progress":true},[0]]"#).await;
        peer.text(r#"[36,9,101,{},["b"],{"c":1}]"#).await;
        peer.text(r#"[50,2,{},[3],{"d":2}]"#).await;
        peer.text(r#"[36,9,102,{}]"#).await;
    };
    let work = async {
        assert_eq!(client.subscribe("com", MatchPolicy::Prefix).await.unwrap(), id(9));
        let outcome = client.call("com.add", client.args(&(1, 2)).unwrap()).await.unwrap();
        assert_eq!(outcome.args::<(u8,)>().unwrap(), (3,));
        assert_eq!(outcome.kwargs::<serde_json::Value>().unwrap()["d"], 2);
        assert_eq!(client.queued(), 4);
        for publication in 100..103 {
            assert_eq!(client.next_event().await.unwrap().publication, id(publication));
        }
        assert_eq!(client.next_invocation().await.unwrap().registration, id(3));
        assert_eq!(client.next_progress(id(2)).await.unwrap().args::<[u8; 1]>().unwrap(), [0]);
        assert_eq!(client.queued(), 0);
    };
    tokio::join!(work, server);
}

#[tokio::test]
async fn what_is_kept_has_a_limit() {
    let (mut client, mut peer) = joined().await;
    client.set_queued_max(2);
    for _ in 0..3 {
        peer.text(r#"[36,9,100,{}]"#).await;
    }
    let refused = client.call("a.b", client.args(&()).unwrap()).await;
    assert!(matches!(refused, Err(Error::QueueFull)));
    assert_eq!(client.queued(), 2);
}

#[tokio::test]
async fn open_calls_may_be_answered_in_any_order() {
    let (mut client, mut peer) = joined().await;
    let none = client.args(&()).unwrap();
    let first = client.begin_call("a.a", Dict::new(), none.clone()).await.unwrap();
    let second = client.begin_call("a.b", Dict::new().with("timeout", 5_u64), none).await.unwrap();
    let server = async {
        assert_eq!(peer.expect_text().await, r#"[48,1,{},"a.a"]"#);
        assert_eq!(peer.expect_text().await, r#"[48,2,{"timeout":5},"a.b"]"#);
        peer.text(r#"[50,2,{},["second"]]"#).await;
        peer.text(r#"[8,48,1,{},"a.error",["first"]]"#).await;
        assert_eq!(peer.expect_text().await, r#"[49,1,{}]"#);
    };
    let work = async {
        let Err(Error::Reply(error)) = client.end_call(first).await else { panic!() };
        assert_eq!(error.error, "a.error");
        assert_eq!(client.end_call(second).await.unwrap().args::<[String; 1]>().unwrap(), ["second"]);
        client.cancel(first, Dict::new()).await.unwrap();
    };
    tokio::join!(work, server);
}

#[tokio::test]
async fn every_request_has_its_message() {
    let (mut client, mut peer) = joined().await;
    let args = client.arguments(&["x"], &serde_json::json!({"k": 1})).unwrap();
    let none = client.args(&()).unwrap();
    let server = async {
        assert_eq!(peer.expect_text().await, r#"[16,1,{"exclude_me":false},"t",["x"],{"k":1}]"#);
        assert_eq!(peer.expect_text().await, r#"[16,2,{"acknowledge":true},"t"]"#);
        peer.text(r#"[17,2,55]"#).await;
        assert_eq!(peer.expect_text().await, r#"[64,3,{"invoke":"roundrobin"},"p"]"#);
        peer.text(r#"[65,3,77]"#).await;
        assert_eq!(peer.expect_text().await, r#"[70,1,{},["x"],{"k":1}]"#);
        assert_eq!(peer.expect_text().await, r#"[8,68,2,{},"no.way"]"#);
        assert_eq!(peer.expect_text().await, r#"[66,4,77]"#);
        peer.text(r#"[67,4]"#).await;
        assert_eq!(peer.expect_text().await, r#"[34,5,9]"#);
        peer.text(r#"[8,34,5,{},"wamp.error.no_such_subscription"]"#).await;
    };
    let work = async {
        client.publish("t", Dict::new().with("exclude_me", false), args.clone()).await.unwrap();
        assert_eq!(client.publish_acknowledged("t", Dict::new(), none.clone()).await.unwrap(), id(55));
        let invoke = Dict::new().with("invoke", "roundrobin");
        assert_eq!(client.register("p", invoke).await.unwrap(), id(77));
        client.yield_(id(1), Dict::new(), args).await.unwrap();
        client.error(id(2), "no.way", none).await.unwrap();
        client.unregister(id(77)).await.unwrap();
        let refused = client.unsubscribe(id(9)).await.unwrap_err();
        assert_eq!(refused.uri(), Some("wamp.error.no_such_subscription"));
    };
    tokio::join!(work, server);
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_not_awaited_for_ever() {
    let (mut client, mut peer) = joined().await;
    client.set_reply_timeout(Duration::from_secs(3));
    let begin = tokio::time::Instant::now();
    let late = client.subscribe("t", MatchPolicy::Exact).await;
    assert!(matches!(late, Err(Error::Timeout("SUBSCRIBE"))));
    assert_eq!(begin.elapsed().as_secs(), 3);
    // The late reply bothers nobody.
    peer.text(r#"[33,1,9]"#).await;
    peer.text(r#"[33,2,10]"#).await;
    assert_eq!(client.subscribe("u", MatchPolicy::Exact).await.unwrap(), id(10));
}

#[tokio::test]
async fn a_goodbye_ends_what_waits_and_is_answered() {
    let (mut client, mut peer) = joined().await;
    peer.text(r#"[36,9,100,{}]"#).await;
    peer.text(r#"[6,{},"wamp.close.system_shutdown"]"#).await;
    let ended = client.call("a.b", client.args(&()).unwrap()).await.unwrap_err();
    assert_eq!(ended.uri(), Some("wamp.close.system_shutdown"));
    assert_eq!(client.next_event().await.unwrap().publication, id(100), "what came before is there");
    client.flush().await.unwrap();
    assert_eq!(peer.expect_text().await, r#"[48,1,{},"a.b"]"#);
    assert_eq!(peer.expect_text().await, r#"[6,{},"wamp.close.goodbye_and_out"]"#);
}

#[tokio::test]
async fn a_client_leaves_politely() {
    let (client, mut peer) = joined().await;
    let server = async {
        assert_eq!(peer.expect_text().await, r#"[6,{},"wamp.close.normal"]"#);
        peer.text(r#"[36,9,100,{}]"#).await;
        peer.text(r#"[6,{},"wamp.close.goodbye_and_out"]"#).await;
        assert!(matches!(peer.event().await, Some(Event::Close { code: Some(1000), .. })));
        peer.close(1000, "").await;
    };
    let (left, ()) = tokio::join!(client.leave(), server);
    left.unwrap();
}

#[tokio::test]
async fn a_link_says_anything_and_is_strict_about_what_it_hears() {
    let (transport, mut peer) = plain("wamp.2.json").await;
    let mut link = Link::new(transport, Format::Json);
    link.feed_encoded(b"[999]").unwrap();
    link.transport().flush().await.unwrap();
    assert_eq!(peer.expect_text().await, "[999]");
    peer.text("[17,1,1]").await;
    assert_eq!(link.receive().await.unwrap().name(), "PUBLISHED");
    peer.text("[17]").await;
    assert!(matches!(link.receive().await, Err(Error::Wamp(_))));
    peer.binary(b"[17,1,1]").await;
    assert!(matches!(link.receive().await, Err(Error::WrongKind(Kind::Binary))));
    peer.close(1002, "").await;
    assert!(matches!(link.receive().await, Err(Error::Closed(_))));
}

#[tokio::test]
async fn publications_are_gathered_and_written_in_time() {
    let (mut client, mut peer) = joined().await;
    let args = client.args(&["x".repeat(1000)]).unwrap();
    let work = async {
        for _ in 0..200 {
            client.publish("t", Dict::new(), args.clone()).await.unwrap();
        }
        assert!(client.link().transport().output_bytes() > 0, "the rest waits");
        client.flush().await.unwrap();
    };
    let server = async {
        for request in 1..=200 {
            assert!(peer.expect_text().await.starts_with(&format!("[16,{request},")));
        }
    };
    tokio::join!(work, server);
}

#[tokio::test]
async fn a_client_may_live_in_a_task() {
    let (mut client, mut peer) = joined().await;
    let task = tokio::spawn(async move {
        let args = client.args(&()).unwrap();
        client.call("a.b", args).await.map(|outcome| outcome.details)
    });
    assert_eq!(peer.expect_text().await, r#"[48,1,{},"a.b"]"#);
    peer.text(r#"[50,1,{}]"#).await;
    assert_eq!(task.await.unwrap().unwrap(), Dict::new());
}

//! The WAMP client in one session, against a scripted router.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod router;

use std::future::IntoFuture;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use tandem_client::Overflow;
use tandem_client::wamp::{
    ApplicationError, Builder, Chunks, Client, Error, InvocationCtx, Progress, Raw, Subscription, Ticket,
};

use router::{Peer, Router};

async fn joined() -> (Router, Client, Peer) {
    let mut router = Router::new();
    let (client, peer) = router.client(router.builder()).await;
    (router, client, peer)
}

async fn subscribed(client: &Client, peer: &mut Peer, buffer: (usize, Overflow)) -> Subscription<u32> {
    let subscribing = client.subscribe::<u32>("t").buffer(buffer.0, buffer.1).into_future();
    let router = async {
        let request = peer.hear().await;
        peer.say(&json!([33, request[1], 9]).to_string()).await;
    };
    tokio::join!(subscribing, router).0.unwrap()
}

/// All that the router said before has been heard.
async fn passed(client: &Client, peer: &mut Peer) {
    let publishing = client.publish("t").acknowledge().into_future();
    let (published, ()) = tokio::join!(publishing, async {
        let request = peer.hear().await;
        peer.say(&json!([17, request[1], 55]).to_string()).await;
    });
    published.unwrap();
}

async fn refused(builder: Builder, router: &mut Router, script: &[(&str, &str)]) -> Error {
    let peer = async {
        let (mut peer, _) = router.accept().await;
        for (say, hear) in script {
            peer.say(say).await;
            if !hear.is_empty() {
                peer.expect(hear).await;
            }
        }
        peer
    };
    tokio::join!(builder.connect(), peer).0.unwrap_err()
}

#[tokio::test]
async fn every_role_and_feature_is_announced() {
    let mut router = Router::new();
    let builder = router.builder().realm("r").auth(Ticket::new("joe", "s"));
    let (_, (_, hello)) =
        tokio::join!(tokio::time::timeout(Duration::from_millis(10), builder.connect()), router.accept());
    assert_eq!(hello[1], "r");
    assert_eq!((&hello[2]["authmethods"], &hello[2]["authid"]), (&json!(["ticket"]), &json!("joe")));
    let roles = &hello[2]["roles"];
    for (role, feature) in [
        ("callee", "call_canceling"),
        ("callee", "progressive_call_invocations"),
        ("caller", "call_timeout"),
        ("publisher", "subscriber_blackwhite_listing"),
        ("subscriber", "pattern_based_subscription"),
    ] {
        assert_eq!(roles[role]["features"][feature], true, "{role} {feature}");
    }
}

#[tokio::test]
async fn a_refusal_names_its_reason_and_a_challenge_is_answered() {
    let mut router = Router::new();
    let builder = router.builder().auth(Ticket::new("joe", "secret"));
    let script = [
        (r#"[4,"ticket",{}]"#, r#"[5,"secret",{}]"#),
        (r#"[3,{"message":"no"},"wamp.error.authentication_denied"]"#, ""),
    ];
    let error = refused(builder, &mut router, &script).await;
    assert_eq!(error.uri(), Some("wamp.error.authentication_denied"));
    assert!(matches!(&error, Error::Refused { message, .. } if message == "no"));
    assert!(!error.is_transient());
    // A method that was not offered: the client does not go on.
    let script = [(r#"[4,"wampcra",{}]"#, r#"[3,{},"wamp.error.protocol_violation"]"#)];
    let error = refused(router.builder(), &mut router, &script).await;
    assert!(matches!(error, Error::Authentication(_)));
}

#[tokio::test]
async fn a_result_is_read_as_what_is_asked_for() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Row {
        name: String,
        count: u64,
    }
    let (_router, client, mut peer) = joined().await;
    let server = async {
        for (request, carried) in [
            r#","x"#,
            r#",[3.0]"#,
            r#",[1,2.0]"#,
            r#",[],{"name":"n","count":4.0}"#,
            r#",[{"name":"n","count":5}]"#,
            r#",["a","b"]"#,
            r#",["\u0000AQI="]"#,
        ]
        .into_iter()
        .enumerate()
        {
            let request = request + 1;
            peer.expect(&format!(r#"[48,{request},{{}},"p"]"#)).await;
            let carried = if request == 1 { "" } else { carried };
            peer.say(&format!("[50,{request},{{}}{carried}]")).await;
        }
        peer
    };
    let work = async {
        client.call::<()>("p").await.unwrap();
        assert_eq!(client.call::<u8>("p").await.unwrap(), 3);
        assert_eq!(client.call::<(i64, i64)>("p").await.unwrap(), (1, 2));
        assert_eq!(client.call::<Row>("p").await.unwrap(), Row { name: "n".to_owned(), count: 4 });
        assert_eq!(client.call::<Option<Row>>("p").await.unwrap().unwrap().count, 5);
        assert_eq!(client.call::<Vec<String>>("p").await.unwrap(), ["a", "b"]);
        let raw = client.call::<Raw>("p").await.unwrap();
        let bytes: (serde_bytes_like::Bytes,) = raw.args().unwrap();
        assert_eq!(bytes.0.0, [1, 2]);
    };
    tokio::join!(server, work);
}

/// Bytes as serde has them.
mod serde_bytes_like {
    pub struct Bytes(pub Vec<u8>);

    impl<'de> serde::Deserialize<'de> for Bytes {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl serde::de::Visitor<'_> for Visitor {
                type Value = Bytes;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                    Ok(Bytes(bytes.to_vec()))
                }
            }
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_given_up() {
    let (_router, client, mut peer) = joined().await;
    let subscription = subscribed(&client, &mut peer, (8, Overflow::DropOldest)).await;
    let call = tokio::spawn(client.call::<()>("p").args((1,)).into_future());
    peer.expect(r#"[48,2,{},"p",[1]]"#).await;
    call.abort();
    peer.expect(r#"[49,2,{"mode":"killnowait"}]"#).await;
    // What comes of it all the same bothers nobody.
    peer.say(r#"[50,2,{},["late"]]"#).await;
    let call = client.call::<()>("p").timeout(Duration::from_secs(3));
    let (ended, ()) = tokio::join!(call.into_future(), async {
        peer.expect(r#"[48,3,{"timeout":3000},"p"]"#).await;
        peer.expect(r#"[49,3,{"mode":"killnowait"}]"#).await;
    });
    assert!(matches!(ended, Err(Error::Timeout(_))));
    drop(subscription);
    peer.expect("[34,4,9]").await;
    peer.say("[35,4]").await;
    drop(client);
    peer.part().await;
}

#[tokio::test]
async fn a_subscription_keeps_the_client_and_a_detached_one_does_not() {
    let (_router, client, mut peer) = joined().await;
    let mut subscription = subscribed(&client, &mut peer, (8, Overflow::DropOldest)).await;
    drop(client);
    peer.say("[36,9,100,{},[1]]").await;
    assert_eq!(subscription.next().await.unwrap().unwrap().payload, 1);
    subscription.detach();
    peer.part().await;
}

#[tokio::test]
async fn whoever_subscribes_again_does_not_lose_it_to_whoever_gives_up() {
    let (_router, client, mut peer) = joined().await;
    let first = subscribed(&client, &mut peer, (8, Overflow::DropOldest)).await;
    let (again, ()) = tokio::join!(client.subscribe::<u32>("t").into_future(), async {
        peer.expect(r#"[32,2,{},"t"]"#).await;
        drop(first);
        // Nothing is unsubscribed between the question and its answer.
        tokio::task::yield_now().await;
        peer.say("[33,2,9]").await;
    });
    let mut again = again.unwrap();
    peer.say("[36,9,100,{},[5]]").await;
    assert_eq!(again.next().await.unwrap().unwrap().payload, 5);
    drop(again);
    peer.expect("[34,3,9]").await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_drops_the_oldest_and_says_how_many() {
    let (_router, client, mut peer) = joined().await;
    let mut events = subscribed(&client, &mut peer, (2, Overflow::DropOldest)).await;
    for number in 0..5 {
        peer.say(&format!("[36,9,{},{{}},[{number}]]", 100 + number)).await;
    }
    passed(&client, &mut peer).await;
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.payload, event.gap.unwrap().dropped), (3, 3));
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.payload, event.gap), (4, None));
}

#[tokio::test]
async fn a_stream_that_waits_loses_nothing_and_holds_up_the_session() {
    let (_router, client, mut peer) = joined().await;
    let mut events = subscribed(&client, &mut peer, (2, Overflow::Wait)).await;
    for number in 0..50 {
        peer.say(&format!("[36,9,{},{{}},[{number}]]", 100 + number)).await;
    }
    // Publishing goes on meanwhile.
    client.publish("t").args((1,)).await.unwrap();
    peer.expect(r#"[16,2,{},"t",[1]]"#).await;
    assert!(events.waiting() <= 2);
    for number in 0..50 {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!((event.payload, event.gap), (number, None));
    }
}

#[tokio::test]
async fn whoever_publishes_faster_than_the_router_takes_waits() {
    let (_router, client, mut peer) = joined().await;
    let text = "x".repeat(5000);
    let publisher = tokio::spawn(async move {
        for number in 0..2000 {
            client.publish("t").args((number, &text)).await.unwrap();
        }
    });
    // Until nothing moves any more.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert!(!publisher.is_finished(), "two megabytes are more than pipe, buffer and queue hold");
    for number in 0..2000 {
        assert_eq!(peer.hear().await[4][0], number);
    }
    publisher.await.unwrap();
    peer.part().await;
}

#[tokio::test]
async fn partial_results_that_are_missing_are_told() {
    let (_router, client, mut peer) = joined().await;
    let calling = client.call("p").buffer(1, Overflow::DropOldest).progressive::<u8, u8>();
    let mut parts = calling.await.unwrap();
    peer.expect(r#"[48,1,{"receive_progress":true},"p"]"#).await;
    for number in 0..3 {
        peer.say(&format!(r#"[50,1,{{"progress":true}},[{number}]]"#)).await;
    }
    peer.say("[50,1,{},[9]]").await;
    passed(&client, &mut peer).await;
    assert!(matches!(parts.next().await, Some(Err(Error::Missed(gap))) if gap.dropped == 2));
    assert_eq!(parts.next().await.unwrap().unwrap(), Progress::Partial(2));
    assert_eq!(parts.next().await.unwrap().unwrap(), Progress::Final(9));
    assert!(parts.next().await.is_none());
}

#[tokio::test]
async fn calls_beyond_what_runs_and_waits_are_answered_at_once() {
    let (_router, client, mut peer) = joined().await;
    let (go, gone) = tokio::sync::watch::channel(false);
    let registering = client.register("p").concurrency(1).waiting(1).handler(move |n: u8, _| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|go| *go).await.map_err(ApplicationError::runtime)?;
            Ok(n)
        }
    });
    let (registration, ()) = tokio::join!(registering, async {
        peer.expect(r#"[64,1,{"concurrency":1},"p"]"#).await;
        peer.say("[65,1,3]").await;
    });
    let _registration = registration.unwrap();
    for request in 1..=3 {
        peer.say(&format!("[68,{request},3,{{}},[{request}]]")).await;
    }
    peer.expect(r#"[8,68,3,{},"wamp.error.unavailable",["too many calls wait for the procedure"]]"#).await;
    go.send_replace(true);
    peer.expect("[70,1,{},[1]]").await;
    peer.expect("[70,2,{},[2]]").await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_handler_has_its_grace_only_if_it_asked_for_it() {
    let (_router, client, mut peer) = joined().await;
    let deaf = client
        .register("deaf")
        .handler(|(): (), _| async move { std::future::pending::<Result<(), _>>().await });
    let (deaf, ()) = tokio::join!(deaf, async {
        peer.hear().await;
        peer.say("[65,1,3]").await;
    });
    let grace = client.register("grace").grace(Duration::from_secs(9)).handler(
        |how: String, ctx: InvocationCtx| async move {
            ctx.cancelled().await;
            match how.as_str() {
                "tidy" => Ok("tidied"),
                _ => std::future::pending().await,
            }
        },
    );
    let (grace, ()) = tokio::join!(grace, async {
        peer.hear().await;
        peer.say("[65,2,4]").await;
    });
    let _both = (deaf.unwrap(), grace.unwrap());
    for (request, invocation) in
        [(1, r#"[68,1,3,{}]"#), (2, r#"[68,2,4,{},["tidy"]]"#), (3, r#"[68,3,4,{},["stays"]]"#)]
    {
        peer.say(invocation).await;
        // It runs, before it is interrupted.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let begin = tokio::time::Instant::now();
        peer.say(&format!(r#"[69,{request},{{"mode":"kill"}}]"#)).await;
        match request {
            1 => peer.expect(r#"[8,68,1,{},"wamp.error.canceled"]"#).await,
            2 => peer.expect(r#"[70,2,{},["tidied"]]"#).await,
            _ => peer.expect(r#"[8,68,3,{},"wamp.error.canceled"]"#).await,
        }
        assert_eq!(begin.elapsed().as_secs(), if request == 3 { 9 } else { 0 });
    }
}

#[tokio::test]
async fn pieces_are_for_handlers_that_take_them() {
    let (_router, client, mut peer) = joined().await;
    let whole = client.register("whole").handler(|n: u8, _| async move { Ok(n) });
    let (whole, ()) = tokio::join!(whole, async {
        peer.hear().await;
        peer.say("[65,1,3]").await;
    });
    let pieces = client.register("pieces").handler_stream(|mut pieces: Chunks<u8>, _| async move {
        match pieces.next().await {
            Some(Ok(0)) => Err(ApplicationError::new("a.zero")),
            _ => Ok(pieces.next().await.is_none()),
        }
    });
    let (pieces, ()) = tokio::join!(pieces, async {
        peer.hear().await;
        peer.say("[65,2,4]").await;
    });
    let _both = (whole.unwrap(), pieces.unwrap());
    peer.say(r#"[68,1,3,{"progress":true},[1]]"#).await;
    let why = "the procedure takes no arguments in pieces";
    peer.expect(&format!(r#"[8,68,1,{{}},"wamp.error.feature_not_supported",["{why}"]]"#)).await;
    // The rest of what was answered starts nothing.
    peer.say(r#"[68,1,3,{"progress":true},[2]]"#).await;
    peer.say("[68,1,3,{},[3]]").await;
    peer.say(r#"[68,2,4,{"progress":true},[0]]"#).await;
    peer.expect(r#"[8,68,2,{},"a.zero"]"#).await;
    peer.say(r#"[68,2,4,{},[1]]"#).await;
    peer.say(r#"[68,3,4,{"progress":true},[1]]"#).await;
    // What ends a call without arguments is no piece.
    peer.say("[68,3,4,{}]").await;
    peer.expect("[70,3,{},[true]]").await;
}

#[tokio::test]
async fn what_is_revoked_ends_with_its_reason() {
    let (_router, client, mut peer) = joined().await;
    let mut events = subscribed(&client, &mut peer, (8, Overflow::DropOldest)).await;
    let registering = client.register("p").handler(|(): (), _| async move { Ok(()) });
    let (registration, ()) = tokio::join!(registering, async {
        peer.hear().await;
        peer.say("[65,2,3]").await;
    });
    let mut registration = registration.unwrap();
    peer.say(r#"[35,0,{"subscription":9,"reason":"wamp.error.not_authorized"}]"#).await;
    peer.say(r#"[67,0,{"registration":3,"reason":"wamp.error.not_authorized"}]"#).await;
    assert!(
        matches!(events.next().await, Some(Err(Error::Revoked(reason))) if reason == "wamp.error.not_authorized")
    );
    assert!(events.next().await.is_none());
    assert!(matches!(registration.ended().await, Error::Revoked(_)));
}

#[tokio::test]
async fn closing_answers_what_runs_and_says_goodbye() {
    let (_router, client, mut peer) = joined().await;
    let registering = client
        .register("p")
        .handler(|(): (), _| async move { std::future::pending::<Result<(), _>>().await });
    let (registration, ()) = tokio::join!(registering, async {
        peer.hear().await;
        peer.say("[65,1,3]").await;
    });
    let _registration = registration.unwrap();
    peer.say("[68,1,3,{}]").await;
    let call = tokio::spawn(client.call::<Value>("q").into_future());
    peer.expect(r#"[48,2,{},"q"]"#).await;
    tokio::join!(client.clone().close(), async {
        peer.expect(r#"[8,68,1,{},"wamp.error.canceled"]"#).await;
        peer.part().await;
    });
    assert!(matches!(call.await.unwrap(), Err(Error::Closed)));
    assert!(matches!(client.call::<()>("q").await, Err(Error::Closed)));
}

#[tokio::test]
async fn what_cannot_be_encoded_is_not_sent() {
    let (_router, client, mut peer) = joined().await;
    for failed in [
        client.call::<()>("p").args("no list").await,
        client.call::<()>("p").kwargs([1]).await,
        client.call::<()>("p").args((f64::NAN,)).await,
    ] {
        assert!(matches!(failed, Err(Error::Encode(_))));
    }
    client.publish("t").args((1,)).await.unwrap();
    peer.expect(r#"[16,1,{},"t",[1]]"#).await;
}

#[tokio::test]
async fn what_is_longer_than_the_router_takes_fails_alone() {
    let mut router = Router::new();
    router.set_short();
    let (client, mut peer) = router.client(router.builder()).await;
    let long = "x".repeat(5000);
    let waiting = tokio::spawn(client.call::<u8>("short").into_future());
    peer.expect(r#"[48,1,{},"short"]"#).await;
    let too_long = client.call::<u8>("p").args((&long,)).idempotent().await.unwrap_err();
    assert!(too_long.to_string().contains("4096 are allowed"), "{too_long}");
    assert!(client.publish("t").args((&long,)).acknowledge().await.is_err());
    client.publish("t").args((&long,)).await.unwrap();
    assert!(client.subscribe::<u8>(long.clone()).await.is_err());
    assert!(client.register(long.clone()).handler(|(): (), _| async { Ok(()) }).await.is_err());
    // None of which is known to anybody else.
    peer.say("[50,1,{},[5]]").await;
    assert_eq!(waiting.await.unwrap().unwrap(), 5);
}

#[tokio::test]
async fn an_answer_that_is_longer_than_the_router_takes_is_an_error_to_its_caller() {
    let mut router = Router::new();
    router.set_short();
    let (client, mut peer) = router.client(router.builder()).await;
    let procedure = client.register("p").handler(|(): (), _| async { Ok("x".repeat(5000)) });
    let (registration, ()) = tokio::join!(procedure, async {
        peer.expect(r#"[64,1,{},"p"]"#).await;
        peer.say("[65,1,3]").await;
    });
    let _registration = registration.unwrap();
    peer.say("[68,1,3,{}]").await;
    peer.expect(r#"[8,68,1,{},"wamp.error.payload_size_exceeded"]"#).await;
}

#[tokio::test]
async fn a_piece_that_is_longer_than_the_router_takes_breaks_its_call_off() {
    let mut router = Router::new();
    router.set_short();
    let (client, mut peer) = router.client(router.builder()).await;
    let mut sink = client.call("p").sink::<String, u8>().await.unwrap();
    sink.send(&"a".to_owned()).await.unwrap();
    peer.expect(r#"[48,1,{"progress":true},"p",["a"]]"#).await;
    sink.send(&"x".repeat(5000)).await.unwrap();
    peer.expect(r#"[49,1,{"mode":"killnowait"}]"#).await;
    let error = sink.finish().await.unwrap_err();
    assert!(error.to_string().contains("4096 are allowed"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn pieces_that_were_too_many_do_not_look_whole() {
    let (_router, client, mut peer) = joined().await;
    let begin = std::sync::Arc::new(tokio::sync::Notify::new());
    let begun = begin.clone();
    let upload = client.register("p").handler_stream(move |mut pieces: Chunks<u32>, ctx| {
        let begin = begin.clone();
        async move {
            assert!(!ctx.is_cancelled());
            begin.notified().await;
            let mut sum = 0;
            while let Some(piece) = pieces.next().await {
                sum += piece?;
            }
            Ok(sum)
        }
    });
    let (registration, ()) = tokio::join!(upload, async {
        peer.expect(r#"[64,1,{},"p"]"#).await;
        peer.say("[65,1,3]").await;
    });
    let _registration = registration.unwrap();
    for _ in 0..1030 {
        peer.say(r#"[68,1,3,{"progress":true},[1]]"#).await;
    }
    peer.say("[68,1,3,{},[1]]").await;
    passed(&client, &mut peer).await;
    begun.notify_one();
    let answer = peer.hear().await;
    assert_eq!((&answer[0], &answer[4]), (&json!(8), &json!("wamp.error.unavailable")));
}

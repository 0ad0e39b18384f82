//! The WAMP client over lost connections, against a scripted router.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod router;

use std::future::IntoFuture;
use std::time::Duration;

use tandem_client::Backoff;
use tandem_client::wamp::{Builder, Chunks, ClientEvent, Error};

use router::Router;

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    max: Duration::from_secs(4),
    factor: 2.0,
    jitter: 0.0,
    attempts_max: None,
};

fn builder(router: &Router) -> Builder {
    router.builder().reconnect(BACKOFF)
}

#[tokio::test(start_paused = true)]
async fn subscriptions_and_registrations_come_back_and_streams_tell_of_the_gap() {
    let mut router = Router::new();
    let (client, mut peer) = router.client(builder(&router)).await;
    let mut events = client.events();
    assert!(matches!(events.next().await, Some(ClientEvent::Connected(_))));
    let (subscription, ()) = tokio::join!(client.subscribe::<u8>("t").prefix().into_future(), async {
        peer.expect(r#"[32,1,{"match":"prefix"},"t"]"#).await;
        peer.say("[33,1,9]").await;
    });
    let mut subscription = subscription.unwrap();
    let (registration, ()) =
        tokio::join!(client.register("p").handler(|n: u8, _| async move { Ok(n) }), async {
            peer.expect(r#"[64,2,{},"p"]"#).await;
            peer.say("[65,2,3]").await;
        });
    let _registration = registration.unwrap();
    drop(peer);
    assert!(matches!(events.next().await, Some(ClientEvent::Lost { .. })));
    let mut peer = router.welcome().await;
    assert!(matches!(events.next().await, Some(ClientEvent::Connected(_))));
    // Requests are counted from one again.
    peer.expect(r#"[32,1,{"match":"prefix"},"t"]"#).await;
    peer.expect(r#"[64,2,{},"p"]"#).await;
    peer.say("[33,1,19]").await;
    peer.say("[65,2,13]").await;
    let restored = ClientEvent::Resubscribed { subscriptions: 1, registrations: 1, refused: 0 };
    assert_eq!(events.next().await, Some(restored));
    peer.say(r#"[36,19,100,{"topic":"t.a"},[1]]"#).await;
    let event = subscription.next().await.unwrap().unwrap();
    assert!(event.gap.unwrap().reconnected);
    assert_eq!(&*event.topic, "t.a");
    peer.say("[68,1,13,{},[4]]").await;
    peer.expect("[70,1,{},[4]]").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_fails_unless_it_may_be_done_twice() {
    let mut router = Router::new();
    let (client, mut peer) = router.client(builder(&router)).await;
    let lost = tokio::spawn(client.call::<u8>("once").into_future());
    peer.expect(r#"[48,1,{},"once"]"#).await;
    let again = tokio::spawn(client.call::<u8>("again").args((1,)).idempotent().into_future());
    peer.expect(r#"[48,2,{},"again",[1]]"#).await;
    let published = tokio::spawn(client.publish("t").acknowledge().into_future());
    peer.expect(r#"[16,3,{"acknowledge":true},"t"]"#).await;
    let mut parts = client.call("parts").progressive::<u8, u8>().await.unwrap();
    peer.expect(r#"[48,4,{"receive_progress":true},"parts"]"#).await;
    drop(peer);
    assert!(matches!(lost.await.unwrap(), Err(Error::ConnectionLost)));
    assert!(matches!(published.await.unwrap(), Err(Error::ConnectionLost)));
    assert!(matches!(parts.next().await, Some(Err(Error::ConnectionLost))));
    assert!(parts.next().await.is_none());
    let mut peer = router.welcome().await;
    peer.expect(r#"[48,1,{},"again",[1]]"#).await;
    peer.say("[50,1,{},[5]]").await;
    assert_eq!(again.await.unwrap().unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_connection_waits_for_one_as_long_as_it_was_told() {
    let mut router = Router::new();
    let (client, peer) = router.client(builder(&router).wait_for_connection(Duration::from_secs(2))).await;
    let mut events = client.events();
    router.set_down(3);
    drop(peer);
    events.next().await;
    assert!(matches!(events.next().await, Some(ClientEvent::Lost { .. })));
    let begin = tokio::time::Instant::now();
    assert!(matches!(client.call::<u8>("p").await, Err(Error::ConnectionLost)));
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
    // Another one comes in time: after 1, 2 and 4 seconds the router is down, 4 later it is there.
    tokio::time::sleep_until(begin + Duration::from_secs(10)).await;
    let calling = client.call::<u8>("p").into_future();
    let (called, ()) = tokio::join!(calling, async {
        let mut peer = router.welcome().await;
        peer.expect(r#"[48,1,{},"p"]"#).await;
        peer.say("[50,1,{},[5]]").await;
    });
    assert_eq!(called.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_further_and_further_apart_until_the_client_gives_up() {
    let mut router = Router::new();
    let backoff = Backoff { attempts_max: Some(5), ..BACKOFF };
    let (client, mut peer) = router.client(router.builder().reconnect(backoff)).await;
    let (subscription, ()) = tokio::join!(client.subscribe::<u8>("t").into_future(), async {
        peer.hear().await;
        peer.say("[33,1,9]").await;
    });
    let mut subscription = subscription.unwrap();
    let mut events = client.events();
    // A session that lasts: the next attempts count from the beginning.
    tokio::time::sleep(Duration::from_secs(60)).await;
    router.set_down(usize::MAX);
    let lost = tokio::time::Instant::now();
    drop(peer);
    events.next().await;
    assert!(matches!(events.next().await, Some(ClientEvent::Lost { .. })));
    assert!(matches!(events.next().await, Some(ClientEvent::GaveUp { .. })));
    assert!(events.next().await.is_none());
    let attempts: Vec<u64> =
        router.opened()[1..].iter().map(|at| at.duration_since(lost).as_secs()).collect();
    assert_eq!(attempts, [1, 3, 7, 11]);
    assert!(matches!(subscription.next().await, Some(Err(Error::ConnectionLost))));
    assert!(subscription.next().await.is_none());
    assert!(matches!(client.publish("t").await, Err(Error::ConnectionLost)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_thrown_out_at_once_does_not_come_back_at_once() {
    let mut router = Router::new();
    let (_client, mut peer) = router.client(builder(&router)).await;
    let begin = tokio::time::Instant::now();
    for _ in 0..3 {
        peer.say(r#"[6,{},"wamp.close.system_shutdown"]"#).await;
        peer.expect(r#"[6,{},"wamp.close.goodbye_and_out"]"#).await;
        drop(peer);
        peer = router.welcome().await;
    }
    assert_eq!(begin.elapsed().as_secs(), 1 + 2 + 4);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_does_not_come_again() {
    let mut router = Router::new();
    let (client, mut peer) = router.client(builder(&router)).await;
    let (subscription, ()) = tokio::join!(client.subscribe::<u8>("t").into_future(), async {
        peer.hear().await;
        peer.say("[33,1,9]").await;
    });
    let mut subscription = subscription.unwrap();
    let mut events = client.events();
    drop(peer);
    let (mut peer, _) = router.accept().await;
    peer.say(r#"[3,{},"wamp.error.authorization_denied"]"#).await;
    events.next().await;
    assert!(matches!(events.next().await, Some(ClientEvent::Lost { .. })));
    assert!(matches!(events.next().await, Some(ClientEvent::GaveUp { .. })));
    let last = subscription.next().await.unwrap().unwrap_err();
    assert_eq!(last.uri(), Some("wamp.error.authorization_denied"));
    let refused = client.call::<()>("p").await.unwrap_err();
    assert_eq!(refused.uri(), Some("wamp.error.authorization_denied"));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(router.opened().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_new_session_does_not_get_again_ends_alone() {
    let mut router = Router::new();
    let (client, mut peer) = router.client(builder(&router)).await;
    let mut both = Vec::new();
    for (request, topic) in [(1, "a"), (2, "b")] {
        let (made, ()) = tokio::join!(client.subscribe::<u8>(topic).into_future(), async {
            peer.hear().await;
            peer.say(&format!("[33,{request},{}]", request + 10)).await;
        });
        both.push(made.unwrap());
    }
    drop(peer);
    let mut peer = router.welcome().await;
    peer.expect(r#"[32,1,{},"a"]"#).await;
    peer.say(r#"[8,32,1,{},"wamp.error.not_authorized"]"#).await;
    peer.expect(r#"[32,2,{},"b"]"#).await;
    peer.say("[33,2,12]").await;
    peer.say("[36,12,100,{},[1]]").await;
    let ended = both[0].next().await.unwrap().unwrap_err();
    assert_eq!(ended.uri(), Some("wamp.error.not_authorized"));
    assert!(both[0].next().await.is_none());
    assert_eq!(both[1].next().await.unwrap().unwrap().payload, 1);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_breaks_the_language_is_told_and_left() {
    let mut router = Router::new();
    let (_client, mut peer) = router.client(builder(&router)).await;
    peer.say("[17]").await;
    peer.expect(r#"[3,{},"wamp.error.protocol_violation"]"#).await;
    drop(peer);
    router.welcome().await;
}

#[tokio::test(start_paused = true)]
async fn handlers_of_a_lost_session_are_told_and_answer_nobody() {
    let mut router = Router::new();
    let (client, mut peer) = router.client(builder(&router)).await;
    let (told, mut hears) = tokio::sync::mpsc::channel(1);
    let registering =
        client.register("p").concurrency(1).handler(move |n: u8, ctx: tandem_client::wamp::InvocationCtx| {
            let told = told.clone();
            async move {
                if n == 1 {
                    ctx.cancelled().await;
                    told.send(()).await.map_err(tandem_client::wamp::ApplicationError::runtime)?;
                }
                Ok(n)
            }
        });
    let (registration, ()) = tokio::join!(registering, async {
        peer.hear().await;
        peer.say("[65,1,3]").await;
    });
    let _registration = registration.unwrap();
    peer.say("[68,1,3,{},[1]]").await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    drop(peer);
    hears.recv().await.unwrap();
    let mut peer = router.welcome().await;
    peer.hear().await;
    peer.say("[65,1,4]").await;
    peer.say("[68,1,4,{},[2]]").await;
    peer.expect("[70,1,{},[2]]").await;
}

#[tokio::test(start_paused = true)]
async fn a_patient_client_waits_for_its_first_router() {
    let mut router = Router::new();
    router.set_down(1);
    assert!(matches!(builder(&router).connect().await, Err(Error::Connection(_))));
    router.set_down(2);
    let (client, _peer) = router.client(builder(&router).patient()).await;
    assert!(client.session().is_some());
    assert_eq!(router.opened().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_client_can_be_closed_while_it_has_no_connection() {
    let mut router = Router::new();
    let (client, peer) = router.client(builder(&router)).await;
    router.set_down(usize::MAX);
    let mut events = client.events();
    drop(peer);
    events.next().await;
    assert!(matches!(events.next().await, Some(ClientEvent::Lost { .. })));
    client.clone().close().await;
    assert!(matches!(client.call::<()>("p").await, Err(Error::Closed)));
}

/// Says how a handler ended.
struct End(tokio::sync::mpsc::Sender<&'static str>, &'static str);

impl End {
    fn whole(&mut self) {
        self.1 = "whole";
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.try_send(self.1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_pieces_whose_connection_is_lost_does_not_look_whole() {
    let mut router = Router::new();
    let (client, mut peer) = router.client(builder(&router)).await;
    let (said, mut hears) = tokio::sync::mpsc::channel(8);
    let upload = client.register("p").handler_stream(move |mut pieces: Chunks<String>, ctx| {
        let mut end = End(said.clone(), "broken off");
        async move {
            assert!(!ctx.is_cancelled());
            while let Some(piece) = pieces.next().await {
                let _ = end.0.send("piece").await;
                piece?;
            }
            end.whole();
            Ok(())
        }
    });
    let (registration, ()) = tokio::join!(upload, async {
        peer.expect(r#"[64,1,{},"p"]"#).await;
        peer.say("[65,1,3]").await;
    });
    let _registration = registration.unwrap();
    peer.say(r#"[68,1,3,{"progress":true},["a"]]"#).await;
    assert_eq!(hears.recv().await, Some("piece"));
    drop(peer);
    assert_eq!(hears.recv().await, Some("broken off"));
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_made_again_wait_for_room() {
    const CALLS: usize = 20;
    let mut router = Router::new();
    let (client, mut peer) = router.client(builder(&router)).await;
    let long = "x".repeat(1 << 20);
    let calls: Vec<_> = (0..CALLS)
        .map(|_| tokio::spawn(client.call::<u8>("p").args((&long,)).idempotent().into_future()))
        .collect();
    for _ in 0..CALLS {
        peer.hear().await;
    }
    drop(peer);
    let mut peer = router.welcome().await;
    for _ in 0..CALLS {
        let call = peer.hear().await;
        peer.say(&format!("[50,{},{{}},[5]]", call[1])).await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 5);
    }
}

//! What the WAMP client must do, whatever the way to the router, and whichever the router is.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::time::Duration;

use serde_json::{Value, json};

use tandem_client::wamp::{
    ApplicationError, CallOutput, Chunks, Client, ClientEvent, Error, Format, InvocationCtx, InvokePolicy,
    Progress, Raw,
};
use tandem_client::{Connector, Overflow};
use tandem_tests::broker::soon;

/// A way to a router.
pub struct Way {
    pub connector: Connector,
    pub format: Format,
}

impl Way {
    pub async fn client(&self) -> Client {
        let connecting = Client::builder_on(self.connector.clone()).serializers([self.format]).connect();
        soon("a session", connecting).await.unwrap()
    }
}

/// What a router need not do.
fn announces(client: &Client, feature: &str) -> bool {
    let session = client.session().unwrap();
    let roles = session.details.dict("roles").unwrap().unwrap();
    let dealer = roles.dict("dealer").unwrap().unwrap().dict("features").unwrap();
    dealer.is_some_and(|features| features.bool(feature) == Ok(Some(true)))
}

/// All of the suite over one way.
pub async fn suite(way: &Way) {
    calls(way).await;
    events(way).await;
    progress(way).await;
    pieces(way).await;
    cancelling(way).await;
    typed_errors(way).await;
    sharing(way).await;
    leaving(way).await;
}

async fn calls(way: &Way) {
    let (callee, caller) = (way.client().await, way.client().await);
    let _add = callee
        .register("com.example.add")
        .invoke(InvokePolicy::RoundRobin)
        .handler(|(a, b): (i64, i64), _| async move { Ok(a + b) })
        .await
        .unwrap();
    let sum: i64 = soon("a result", caller.call("com.example.add").args((2, 3)).into_future()).await.unwrap();
    assert_eq!(sum, 5);

    let _echo =
        callee.register("com.example.echo").handler(|all: Raw, _| async move { Ok(all) }).await.unwrap();
    let kwargs = BTreeMap::from([("k", "v")]);
    let all: CallOutput<(u8, String), BTreeMap<String, String>> =
        caller.call("com.example.echo").args((1, "x")).kwargs(&kwargs).await.unwrap();
    assert_eq!((all.args.0, all.args.1.as_str(), all.kwargs["k"].as_str()), (1, "x", "v"));
    let nothing: Option<u8> = caller.call("com.example.echo").await.unwrap();
    assert_eq!(nothing, None);

    let _who = callee
        .register("com.example.who")
        .handler(|(): (), ctx: InvocationCtx| async move { Ok(ctx.caller().map(|id| id.get())) })
        .await
        .unwrap();
    let caller_id = caller.session().unwrap().id.get();
    let told: Option<u64> = caller.call("com.example.who").disclose_me().await.unwrap();
    assert_eq!(told, Some(caller_id));
}

async fn events(way: &Way) {
    let (subscriber, publisher) = (way.client().await, way.client().await);
    let mut exact = subscriber.subscribe::<(String, f64)>("com.example.price").await.unwrap();
    let mut prefix =
        subscriber.subscribe::<Value>("com.example").prefix().buffer(16, Overflow::DropOldest).await.unwrap();
    let publication =
        publisher.publish("com.example.price").args(("EUR", 1.0)).acknowledge().await.unwrap().unwrap();
    let event = soon("an event", exact.next()).await.unwrap().unwrap();
    assert_eq!(event.payload, ("EUR".to_owned(), 1.0));
    assert_eq!((event.publication, event.retained, event.gap), (publication, false, None));
    let event = soon("an event", prefix.next()).await.unwrap().unwrap();
    assert_eq!((&*event.topic, event.payload), ("com.example.price", json!(["EUR", 1.0])));

    // What does not decode is an error, and the stream goes on.
    publisher.publish("com.example.price").args(("no price",)).await.unwrap();
    publisher.publish("com.example.price").args(("CHF", 2)).await.unwrap();
    assert!(matches!(soon("an error", exact.next()).await, Some(Err(Error::Decode(_)))));
    assert_eq!(soon("an event", exact.next()).await.unwrap().unwrap().payload.0, "CHF");

    publisher.publish("com.example.kept").args((7,)).retain().acknowledge().await.unwrap();
    let mut kept = subscriber.subscribe::<u8>("com.example.kept").get_retained().await.unwrap();
    let event = soon("what was kept", kept.next()).await.unwrap().unwrap();
    assert_eq!((event.payload, event.retained), (7, true));
}

async fn progress(way: &Way) {
    let (callee, caller) = (way.client().await, way.client().await);
    let _count = callee
        .register("com.example.count")
        .handler(|to: u32, ctx: InvocationCtx| async move {
            for number in 0..to {
                ctx.progress(&number).await?;
            }
            Ok("done")
        })
        .await
        .unwrap();
    let mut counting =
        caller.call("com.example.count").args((100,)).progressive::<u32, String>().await.unwrap();
    let mut numbers = Vec::new();
    let last = loop {
        match soon("progress", counting.next()).await.unwrap().unwrap() {
            Progress::Partial(number) => numbers.push(number),
            Progress::Final(last) => break last,
        }
    };
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert_eq!(last, "done");
    assert!(counting.next().await.is_none());
    // Who wants none gets none.
    assert_eq!(caller.call::<String>("com.example.count").args((3,)).await.unwrap(), "done");
}

async fn pieces(way: &Way) {
    let (callee, caller) = (way.client().await, way.client().await);
    if !announces(&caller, "progressive_call_invocations") {
        eprintln!("no progressive call invocations here");
        return;
    }
    let _total = callee
        .register("com.example.total")
        .handler_stream(|mut numbers: Chunks<u64>, _| async move {
            let mut total = 0;
            while let Some(number) = numbers.next().await {
                total += number?;
            }
            Ok(total)
        })
        .await
        .unwrap();
    let mut sink = caller.call("com.example.total").sink::<u64, u64>().await.unwrap();
    for number in 1..=50 {
        sink.send(&number).await.unwrap();
    }
    assert_eq!(soon("a total", sink.finish()).await.unwrap(), 1275);
    let mut sink = caller.call("com.example.total").sink::<u64, u64>().await.unwrap();
    sink.send(&1).await.unwrap();
    assert_eq!(soon("a total", sink.finish_with(&2)).await.unwrap(), 3);
    let whole: u64 = caller.call("com.example.total").args((9,)).await.unwrap();
    assert_eq!(whole, 9);
}

async fn cancelling(way: &Way) {
    let (callee, caller) = (way.client().await, way.client().await);
    let (began, mut begun) = tokio::sync::mpsc::channel(1);
    let (told, mut hears) = tokio::sync::mpsc::channel(1);
    let _sleep = callee
        .register("com.example.sleep")
        .handler(move |(): (), ctx: InvocationCtx| {
            let (began, told) = (began.clone(), told.clone());
            async move {
                began.send(()).await.map_err(ApplicationError::runtime)?;
                ctx.cancelled().await;
                told.send(()).await.map_err(ApplicationError::runtime)?;
                Ok(())
            }
        })
        .await
        .unwrap();
    let call = tokio::spawn(caller.call::<()>("com.example.sleep").into_future());
    soon("the call", begun.recv()).await.unwrap();
    call.abort();
    soon("the interrupt", hears.recv()).await.unwrap();

    let call = caller.call::<()>("com.example.sleep").timeout(Duration::from_millis(50));
    assert!(matches!(soon("an end", call.into_future()).await, Err(Error::Timeout(_))));
    // Whether the callee is told depends on which of client and router looks at the clock first.
}

async fn typed_errors(way: &Way) {
    let (callee, caller) = (way.client().await, way.client().await);
    let _fails = callee
        .register("com.example.fails")
        .handler(|how: String, _| async move {
            match how.as_str() {
                "panic" => panic!("as it was asked to"),
                _ => Err::<(), _>(
                    ApplicationError::new("com.example.broken").args((how, 1)).kwargs(json!({"a": 2})),
                ),
            }
        })
        .await
        .unwrap();
    let failed = caller.call::<()>("com.example.fails").args(("so",)).await.unwrap_err();
    let error = failed.application().unwrap();
    assert_eq!(error.uri(), "com.example.broken");
    assert_eq!(error.decode_args::<(String, u8)>().unwrap(), ("so".to_owned(), 1));
    assert_eq!(error.decode_kwargs::<Value>().unwrap(), json!({"a": 2}));
    let failed = caller.call::<()>("com.example.fails").args(("panic",)).await.unwrap_err();
    assert_eq!(failed.uri(), Some("wamp.error.runtime_error"));
    let failed = caller.call::<()>("com.example.fails").args((1,)).await.unwrap_err();
    assert_eq!(failed.uri(), Some("wamp.error.invalid_argument"));
    let failed = caller.call::<()>("com.example.nobody").await.unwrap_err();
    assert_eq!(failed.uri(), Some("wamp.error.no_such_procedure"));
    let twice = callee.register("com.example.fails").handler(|(): (), _| async move { Ok(()) }).await;
    assert_eq!(twice.unwrap_err().uri(), Some("wamp.error.procedure_already_exists"));
}

/// Subscriptions to the same topic are one for the broker, which the last of them gives up.
async fn sharing(way: &Way) {
    let (subscriber, publisher) = (way.client().await, way.client().await);
    let mut first = subscriber.subscribe::<u8>("com.example.shared").await.unwrap();
    let mut second = subscriber.subscribe::<u8>("com.example.shared").await.unwrap();
    publisher.publish("com.example.shared").args((1,)).await.unwrap();
    assert_eq!(soon("an event", first.next()).await.unwrap().unwrap().payload, 1);
    assert_eq!(soon("an event", second.next()).await.unwrap().unwrap().payload, 1);
    drop(first);
    publisher.publish("com.example.shared").args((2,)).await.unwrap();
    assert_eq!(soon("an event", second.next()).await.unwrap().unwrap().payload, 2);
    second.unsubscribe().await.unwrap();
    let count: Option<Value> =
        publisher.call("wamp.subscription.lookup").args(("com.example.shared",)).await.unwrap();
    assert_eq!(count, None);
}

async fn leaving(way: &Way) {
    let client = way.client().await;
    let mut events = client.events();
    assert!(matches!(events.next().await, Some(ClientEvent::Connected(_))));
    let mut subscription = client.subscribe::<u8>("com.example.a").await.unwrap();
    let other = client.clone();
    soon("goodbye", client.close()).await;
    assert!(subscription.next().await.is_none());
    assert!(events.next().await.is_none());
    assert!(matches!(other.call::<()>("com.example.add").await, Err(Error::Closed)));
}

//! The WAMP client against our broker, over every wire and with every serializer: one suite, and a line for each way.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod wamp_suite;

use std::future::IntoFuture;
use std::time::Duration;

use tandem_broker::users::hash_password;
use tandem_client::Backoff;
use tandem_client::wamp::{
    Anonymous, Auth, Client, ClientEvent, Cryptosign, Error, Format, PrivateKey, Progress, Scram, Ticket,
    Wampcra,
};
use tandem_protocols::wamp::auth::cra::CraCredential;
use tandem_protocols::wamp::auth::scram::{Dialect, Kdf, ScramCredential};
use tandem_tests::broker::{Broker as TestBroker, eventually, soon};
use tandem_tests::house::House;

use wamp_suite::{Way, suite};

macro_rules! suites {
    ($($name:ident: $scheme:literal $format:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let house = House::open("");
            suite(&Way { connector: house.connector($scheme), format: Format::$format }).await;
            eventually("all have left", || house.sessions() == 0).await;
        }
    )*};
}

suites! {
    over_websocket_in_cbor: "ws" Cbor,
    over_websocket_in_messagepack: "ws" MsgPack,
    over_websocket_in_json: "ws" Json,
    over_rawsocket_in_cbor: "tcp" Cbor,
    over_rawsocket_in_messagepack: "tcp" MsgPack,
    over_rawsocket_in_json: "tcp" Json,
    over_a_unix_socket: "unix" Cbor,
    over_websocket_and_tls: "wss" MsgPack,
    over_rawsocket_and_tls: "tls" Json,
    over_long_polling_in_json: "http" Json,
    over_long_polling_in_cbor: "http" Cbor,
    over_long_polling_and_tls: "https" MsgPack,
    in_process: "inside" Cbor,
}

// ---- logging in --------------------------------------------------------------------------------------------

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A user who can log in by every method.
fn users() -> String {
    let password = hash_password("secret").unwrap();
    let cra = CraCredential::from_secret("secret");
    let scram = |dialect| {
        let kdf = Kdf::pbkdf2(4096).unwrap();
        ScramCredential::derive(dialect, kdf, "secret", &[7; 16]).unwrap().to_string()
    };
    let scrams = [scram(Dialect::WampScram), scram(Dialect::Scram)];
    let key = KEY.parse::<PrivateKey>().unwrap().public_key();
    format!(
        "\n[authentication]\nanonymous = \"never\"\n[[users]]\nname = \"joe\"\npassword = {password:?}\n\
         wampcra = \"{cra}\"\nscram = {scrams:?}\ncryptosign = [\"{key}\"]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_lets_in_and_a_wrong_secret_does_not() {
    let house = House::open(&users());
    let key: PrivateKey = KEY.parse().unwrap();
    let wrong: PrivateKey = KEY.replace('0', "1").parse().unwrap();
    let ways: [(&str, Auth, Auth); 5] = [
        ("ticket", Ticket::new("joe", "secret").into(), Ticket::new("joe", "wrong").into()),
        ("wampcra", Wampcra::new("joe", "secret").into(), Wampcra::new("joe", "wrong").into()),
        ("wamp-scram", Scram::new("joe", "secret").into(), Scram::new("joe", "wrong").into()),
        ("wamp-scram", Scram::new("joe", "secret").bound().into(), Scram::new("joe", "wrong").bound().into()),
        (
            "cryptosign",
            Cryptosign::from_key(key).authid("joe").bound().into(),
            Cryptosign::from_key(wrong).authid("joe").bound().into(),
        ),
    ];
    for (method, right, wrong) in ways {
        let builder = || Client::builder_on(house.connector("wss"));
        let client = soon("a session", builder().auth(right).connect()).await.unwrap();
        let session = client.session().unwrap();
        assert_eq!((session.authid(), session.authmethod()), (Some("joe"), Some(method)));
        client.close().await;
        let refused = soon("a refusal", builder().auth(wrong).connect()).await.unwrap_err();
        assert!(!refused.is_transient(), "{method}: {refused}");
        assert!(refused.uri().is_some_and(|uri| uri.contains("authentication")), "{method}: {refused}");
    }
    let nobody = Client::builder_on(house.connector("ws")).auth(Anonymous).connect();
    assert!(matches!(soon("a refusal", nobody).await, Err(Error::Refused { .. })));
    // Of several, the router takes the first that it does.
    let several =
        Client::builder_on(house.connector("ws")).auth(Anonymous).auth(Ticket::new("joe", "secret"));
    assert_eq!(several.connect().await.unwrap().session().unwrap().authid(), Some("joe"));
    // What there is nothing to bind to is not sent.
    let bound = Client::builder_on(house.connector("ws")).auth(Scram::new("joe", "secret").bound());
    assert!(matches!(soon("an error", bound.connect()).await, Err(Error::Authentication(_))));
}

// ---- lost connections --------------------------------------------------------------------------------------

#[tokio::test]
async fn a_client_comes_back_to_a_broker_that_was_restarted() {
    let broker = TestBroker::start().await;
    let address = broker.address();
    let backoff =
        Backoff { first: Duration::from_millis(20), max: Duration::from_millis(50), ..Backoff::default() };
    let client =
        Client::builder(format!("ws://{address}/").as_str()).reconnect(backoff).connect().await.unwrap();
    let mut events = client.events();
    assert!(matches!(events.next().await, Some(ClientEvent::Connected(_))));
    let mut subscription = client.subscribe::<u8>("com.example.topic").await.unwrap();
    let _add = client
        .register("com.example.add")
        .handler(|(a, b): (i64, i64), _| async move { Ok(a + b) })
        .await
        .unwrap();
    broker.shutdown().await;
    assert!(matches!(soon("the loss", events.next()).await, Some(ClientEvent::Lost { .. })));
    let broker = TestBroker::start_with(&format!("listen = [\"{address}\"]")).await;
    assert!(matches!(soon("a session", events.next()).await, Some(ClientEvent::Connected(_))));
    let restored = soon("all of it", events.next()).await.unwrap();
    assert_eq!(restored, ClientEvent::Resubscribed { subscriptions: 1, registrations: 1, refused: 0 });
    let other = Client::builder(format!("ws://{address}/").as_str()).connect().await.unwrap();
    other.publish("com.example.topic").args((1,)).await.unwrap();
    let event = soon("an event", subscription.next()).await.unwrap().unwrap();
    assert!(event.gap.unwrap().reconnected);
    assert_eq!(other.call::<i64>("com.example.add").args((1, 2)).await.unwrap(), 3);
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_come_back_to_a_broker_that_was_restarted() {
    const CLIENTS: u64 = 100;

    let broker = TestBroker::start().await;
    let url = format!("ws://{}/", broker.address());
    let backoff =
        Backoff { first: Duration::from_millis(20), max: Duration::from_millis(200), ..Backoff::default() };
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::builder(url.as_str()).reconnect(backoff).connect().await.unwrap();
        let subscription = client.subscribe::<u64>("com.example.all").await.unwrap();
        let procedure = format!("com.example.p{number}");
        let registration = client.register(procedure).handler(move |n: u64, _| async move { Ok(n + number) });
        let (registration, events) = (registration.await.unwrap(), client.events());
        clients.push((client, subscription, registration, events));
    }
    // Somebody waits for an answer that does not come.
    let silent = clients[0].0.register("com.example.silent");
    let _silent = silent.handler(|(): (), _| std::future::pending::<Result<(), _>>()).await.unwrap();
    let waiting = tokio::spawn(clients[1].0.call::<()>("com.example.silent").into_future());
    let address = broker.address();
    broker.shutdown().await;
    assert!(soon("an end", waiting).await.unwrap().is_err());
    let _broker = TestBroker::start_with(&format!("listen = [\"{address}\"]")).await;
    for (_, _, _, events) in &mut clients {
        while !matches!(
            soon("all of it", events.next()).await,
            Some(ClientEvent::Resubscribed { refused: 0, .. })
        ) {}
    }
    clients[0].0.publish("com.example.all").args((7,)).include_me().acknowledge().await.unwrap();
    for (number, (client, subscription, ..)) in clients.iter_mut().enumerate() {
        let event = soon("an event", subscription.next()).await.unwrap().unwrap();
        assert_eq!((event.payload, event.gap.map(|gap| gap.reconnected)), (7, Some(true)));
        let next = (number as u64 + 1) % CLIENTS;
        let sum: u64 = client.call(format!("com.example.p{next}")).args((1,)).await.unwrap();
        assert_eq!(sum, next + 1);
    }
}

// ---- examples ----------------------------------------------------------------------------------------------

#[allow(dead_code, reason = "an example is a program")]
#[path = "../../client/examples/publish_subscribe.rs"]
mod publish_subscribe;
#[allow(dead_code, reason = "an example is a program")]
#[path = "../../client/examples/serve_and_call.rs"]
mod serve_and_call;

#[tokio::test]
async fn the_examples_do_what_they_say() {
    let broker = TestBroker::start().await;
    let url = format!("ws://{}/", broker.address());
    let prices = soon("three prices", publish_subscribe::run(&url)).await.unwrap();
    assert_eq!(prices.iter().map(|price| price.value).collect::<Vec<_>>(), [1.05, 1.07, 1.0]);
    let (failed, steps) = soon("a division", serve_and_call::run(&url)).await.unwrap();
    assert!(matches!(failed, serve_and_call::DivideError::ByZero(1)));
    assert_eq!(steps, [Progress::Partial("thinking".to_owned()), Progress::Final(3)]);
}

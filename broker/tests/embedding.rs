//! A broker as a part of an application: what the application provides, what it hands over, and how it ends.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::any;
use tokio::net::{TcpListener, TcpStream};

use tandem_broker::config::{Anonymous, User};
use tandem_broker::core::access::authorizer::{Authorizer, Authorizing, Decision, Question};
use tandem_broker::core::access::{
    Action, Authenticating, Authenticator, Credentials, Peer, Principal, Refusal,
};
use tandem_broker::core::store::simulated::SimulatedStore;
use tandem_broker::embed::entrance::{Entrance, Remote};
use tandem_broker::server::ProvidedStore;
use tandem_broker::users::hash_password;
use tandem_broker::{Broker, Builder};
use tandem_client::raw::dial::{WebSocketOptions, connect_websocket, open_rawsocket, open_tcp};
use tandem_client::raw::stomp::{self, AckMode, ConnectOptions};
use tandem_client::raw::transport::Transport;
use tandem_client::raw::wamp::{Client, Login, MatchPolicy};
use tandem_client::wire::ByteStream;
use tandem_client::{Doorway, Error};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::rawsocket::Limit;

type Boxed = Box<dyn ByteStream>;

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("within ten seconds")
}

fn ticket(user: &str, secret: &str) -> Login {
    Login::Ticket { authid: user.into(), ticket: secret.into() }
}

/// A session of WAMP over a stream.
async fn join<S: ByteStream + 'static>(stream: S, login: &Login) -> Result<Client<Transport<Boxed>>, Error> {
    let stream: Boxed = Box::new(stream);
    let transport = soon(open_rawsocket(stream, Format::Json, Limit::MAX)).await?;
    soon(Client::join(transport, Format::Json, "realm1", login)).await
}

async fn join_within(broker: &Broker, login: &Login) -> Result<Client<Transport<Boxed>>, Error> {
    join(broker.entrance().open()?, login).await
}

async fn stomp_within(broker: &Broker) -> stomp::Client<Transport<Boxed>> {
    let transport = open_tcp(broker.entrance().open().unwrap());
    soon(stomp::Client::connect(transport, Version::V12, &ConnectOptions::default())).await.unwrap()
}

// ---- what the application provides -------------------------------------------------------------------------

/// Knows everybody who says `secret`.
struct Known;

impl Authenticator for Known {
    fn anonymous(&self, _peer: &Peer) -> Option<Principal> {
        None
    }

    fn authenticate(&self, credentials: Credentials, _peer: &Peer) -> Authenticating {
        let principal = Principal::new(credentials.applicant.user, "guest", credentials.applicant.method);
        let is_right = &*credentials.secret == "secret";
        Box::pin(async move { if is_right { Ok(principal.into()) } else { Err(Refusal::WrongSecret) } })
    }
}

#[tokio::test]
async fn the_application_says_who_somebody_is() {
    let builder = Broker::builder().anonymous(Anonymous::Never);
    assert!(builder.start().err().unwrap().to_string().contains("nobody could connect"));
    let broker =
        Broker::builder().anonymous(Anonymous::Never).authenticator(Arc::new(Known)).start().unwrap();
    let client = join_within(&broker, &ticket("dora", "secret")).await.unwrap();
    assert_eq!(client.welcome().str("authrole"), Ok(Some("guest")));
    assert!(matches!(join_within(&broker, &ticket("dora", "wrong")).await, Err(Error::Abort(_))));
    assert!(matches!(join_within(&broker, &Login::Anonymous).await, Err(Error::Abort(_))));
}

#[tokio::test]
async fn users_and_realms_need_no_file() {
    let carol = User { password: Some(hash_password("pass").unwrap()), ..User::named("carol", "admin") };
    let builder = Broker::builder().realm("realm1").realm("realm2").user(carol);
    let broker = builder.anonymous(Anonymous::Never).start().unwrap();
    assert_eq!(broker.server().realms().len(), 2);
    assert!(broker.addresses().is_empty() && broker.tls_addresses().is_empty(), "nobody asked for any");
    let client = join_within(&broker, &ticket("carol", "pass")).await.unwrap();
    assert_eq!(client.welcome().str("authrole"), Ok(Some("admin")));
}

#[tokio::test]
async fn the_applications_own_clients_have_its_role_and_nobody_else_has() {
    let rules = "[[permissions]]\nrole = \"backend\"\nactions = \"*\"\nname = \"\"\nmatch = \"prefix\"\nallow = true\n";
    let builder = Broker::builder().own_role("backend").toml(rules).unwrap().anonymous(Anonymous::Never);
    let broker = builder.start().unwrap();
    let mut own = join_within(&broker, &Login::Anonymous).await.unwrap();
    assert_eq!(own.welcome().str("authrole"), Ok(Some("backend")));
    soon(own.subscribe("t", MatchPolicy::Exact)).await.unwrap();
    let mut stomp = stomp_within(&broker).await;
    assert_eq!(stomp.connected().get("user-name"), Some("application"));
    soon(stomp.subscribe("/queue/q", "0", AckMode::Client, &[])).await.unwrap();
    let (ours, theirs) = tokio::io::duplex(4096);
    assert!(broker.entrance().take(theirs, SocketAddr::from(([127, 0, 0, 1], 5))));
    assert!(matches!(join(ours, &Login::Anonymous).await, Err(Error::Abort(_))));
}

/// Lets everybody do everything but with what begins with `secret`, for which there is a name.
struct Discreet;

impl Authorizer for Discreet {
    fn authorize(&self, question: Question) -> Authorizing {
        assert!(matches!(question.action, Action::Publish | Action::Subscribe), "{question:?}");
        let allow = !question.pattern.as_str().starts_with("secret");
        Box::pin(async move { Ok(Decision { allow, disclose: None, cache: None }) })
    }
}

#[tokio::test]
async fn the_application_decides_what_nobody_else_does() {
    let broker = Broker::builder().authorizer(Arc::new(Discreet)).start().unwrap();
    let decides = async |broker: &Broker| {
        let mut client = join_within(broker, &Login::Anonymous).await.unwrap();
        soon(client.subscribe("open.t", MatchPolicy::Exact)).await.unwrap();
        let refused = soon(client.subscribe("secret.t", MatchPolicy::Exact)).await;
        assert_eq!(refused.unwrap_err().uri(), Some("wamp.error.not_authorized"));
    };
    decides(&broker).await;
    // Other permissions, and none at all: it is never forgotten.
    broker.server().reload(&tandem_broker::config::Config::default()).unwrap();
    decides(&broker).await;
    let asking = "[[permissions]]\nrole = \"*\"\nactions = \"*\"\nname = \"\"\nmatch = \"prefix\"\n";
    let with = |effect: &str| {
        let builder = Broker::builder().toml(&format!("{asking}{effect}")).unwrap();
        builder.authorizer(Arc::new(Discreet)).start()
    };
    decides(&with("authorizer = \"whatever\"\n").unwrap()).await;
    let forgotten = with("allow = true\n").err().unwrap();
    assert!(forgotten.to_string().contains("authorizer"), "{forgotten}");
}

/// Waits for something while the store writes and reads what is asked of it.
async fn synced<T>(store: &SimulatedStore, future: impl Future<Output = T>) -> T {
    let syncing = async {
        loop {
            store.sync();
            tokio::task::yield_now().await;
        }
    };
    soon(async {
        tokio::select! {
            value = future => value,
            never = syncing => never,
        }
    })
    .await
}

#[tokio::test]
async fn the_application_keeps_what_is_persistent_and_a_later_broker_has_it_again() {
    let store = SimulatedStore::new();
    let with = |store: &Arc<SimulatedStore>| {
        Broker::builder().store(ProvidedStore {
            store: store.clone(),
            queues: store.recovered(),
            shelves: store.recovered_shelves(),
        })
    };
    let broker = with(&store).start().unwrap();
    let mut sender = stomp_within(&broker).await;
    synced(&store, sender.send_with_receipt("/queue/q", &[("persistent", "true")], "kept")).await.unwrap();
    drop(sender);
    soon(broker.shutdown()).await;

    let store = store.crash(0);
    let broker = with(&store).start().unwrap();
    let mut consumer = stomp_within(&broker).await;
    soon(consumer.subscribe("/queue/q", "0", AckMode::Client, &[])).await.unwrap();
    assert_eq!(synced(&store, consumer.next_message()).await.unwrap().body, "kept");
    let both = with(&store).store_path("/there/is/nothing").start().err().unwrap();
    assert!(both.to_string().contains("store of its own"), "{both}");
}

// ---- what it hands over ------------------------------------------------------------------------------------

#[tokio::test]
async fn clients_within_the_process_are_not_counted_by_address_and_end_at_the_limit_of_all() {
    let limits =
        "[limits]\nconnections_max = 4\nconnections_per_address_max = 1\nstrangers_per_address_max = 1\n";
    let broker = Broker::builder().toml(limits).unwrap().start().unwrap();
    let mut inside = Vec::new();
    for _ in 0..4 {
        inside.push(join_within(&broker, &Login::Anonymous).await.unwrap());
    }
    assert!(matches!(broker.entrance().open().map(drop), Err(Error::Io(_))), "it is full");
    inside.pop().unwrap().leave().await.unwrap();
    // Its task ends a moment after its goodbye.
    let again = async {
        while broker.entrance().open().is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(again).await;
}

#[tokio::test]
async fn what_the_application_accepts_counts_as_from_where_it_comes() {
    let broker = Broker::builder().start().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hand_over = async |remote: Remote| {
        let (ours, theirs) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        assert!(broker.entrance().take(theirs.unwrap().0, remote));
        join(ours.unwrap(), &Login::Anonymous).await
    };
    let here = SocketAddr::from(([127, 0, 0, 1], 5));
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 5));
    assert!(hand_over(here.into()).await.is_ok());
    assert!(hand_over("[::ffff:127.0.0.1]:5".parse::<SocketAddr>().unwrap().into()).await.is_ok());
    assert!(matches!(hand_over(elsewhere.into()).await, Err(Error::Abort(_))));
    assert!(matches!(hand_over(Remote::from(here).over_tls()).await, Err(Error::Abort(_))));
}

/// An application's HTTP server whose visitors come from `remote`.
async fn serve(builder: Builder, remote: Remote) -> (Broker, SocketAddr) {
    let broker = builder.start().unwrap();
    let answer = async move |State(entrance): State<Entrance>, request: Request| {
        entrance.upgrade(request, remote).into_response()
    };
    let application = Router::new().route("/deep/ws", any(answer)).with_state(broker.entrance());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, application).await });
    (broker, address)
}

#[tokio::test]
async fn a_password_that_must_not_be_read_on_its_way_is_taken_where_the_application_ends_tls() {
    let carol = || User { password: Some(hash_password("pass").unwrap()), ..User::named("carol", "user") };
    let elsewhere = Remote::from(SocketAddr::from(([192, 0, 2, 1], 5)));
    for (remote, is_let_in) in [(elsewhere, false), (elsewhere.over_tls(), true)] {
        let builder = Broker::builder().toml("[authentication]\ntickets_need_tls = true\n").unwrap();
        let (_broker, address) = serve(builder.user(carol()), remote).await;
        // Its name is a matter of configuration, for who comes from elsewhere.
        let options = WebSocketOptions { host: Some("localhost".into()), ..Default::default() };
        let opened = soon(connect_websocket(address, "/deep/ws", &["wamp.2.json"], &options)).await.unwrap();
        let joined = soon(Client::join(opened, Format::Json, "realm1", &ticket("carol", "pass"))).await;
        assert_eq!(joined.is_ok(), is_let_in, "{:?}", joined.err());
    }
}

#[tokio::test]
async fn what_is_no_opening_handshake_is_answered_and_so_is_what_comes_after_the_end() {
    let here = Remote::from(SocketAddr::from(([127, 0, 0, 1], 5)));
    let (broker, address) = serve(Broker::builder(), here).await;
    let status = async |subprotocols: &[&str]| {
        let options = WebSocketOptions::default();
        match soon(connect_websocket(address, "/deep/ws", subprotocols, &options)).await {
            Ok(_) => 101,
            Err(Error::Refused { status, .. }) => status,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(status(&["wamp.2.json"]).await, 101);
    assert_eq!(status(&["mqtt"]).await, 400);
    let plain = Request::get("/deep/ws").header("host", "localhost").body(axum::body::Body::empty()).unwrap();
    assert_eq!(broker.entrance().upgrade(plain, here).status(), 426);
    let entrance = broker.entrance();
    assert!(soon(broker.shutdown()).await);
    assert_eq!(status(&["wamp.2.json"]).await, 503);
    assert!(format!("{entrance:?}").contains("is_open: false"));
}

#[tokio::test]
async fn who_is_never_sent_the_answer_stands_at_the_door_no_longer_than_others() {
    let limits = "[limits]\nstrangers_max = 1\nstranger_time_s = 1\n";
    let broker = Broker::builder().toml(limits).unwrap().start().unwrap();
    let (entrance, here) = (broker.entrance(), SocketAddr::from(([127, 0, 0, 1], 5)));
    let (answered, mut answers) = tokio::sync::mpsc::channel(1);
    let keep = async move |request: Request| {
        let answer = entrance.upgrade(request, here);
        answered.send(answer.status().as_u16()).await.unwrap();
        std::future::pending::<()>().await;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/ws", any(keep))).await });
    let mut waiting = Vec::new();
    let mut status = async || {
        waiting.push(tokio::spawn(async move {
            connect_websocket(address, "/ws", &["wamp.2.json"], &WebSocketOptions::default()).await
        }));
        answers.recv().await.unwrap()
    };
    assert_eq!(soon(status()).await, 101);
    let again = async {
        while status().await != 101 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(again).await;
    assert!(soon(broker.shutdown()).await);
}

#[tokio::test]
async fn behind_a_proxy_the_host_is_what_the_proxy_says_and_of_a_whole_address_what_is_in_it() {
    let listed = "[proxies]\ntrusted = [\"192.0.2.1\"]\n[http]\nhosts = [\"a.example\"]\n";
    let broker = Broker::builder().toml(listed).unwrap().anonymous(Anonymous::Everywhere).start().unwrap();
    let proxy = Remote::from(SocketAddr::from(([192, 0, 2, 1], 5)));
    let status = |uri: &str, host: &str, origin: &str, forwarded_host: Option<&str>| {
        let mut request = Request::get(uri)
            .header("host", host)
            .header("origin", origin)
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "wamp.2.json")
            .header("x-forwarded-for", "203.0.113.7");
        if let Some(host) = forwarded_host {
            request = request.header("x-forwarded-host", host);
        }
        broker.entrance().upgrade(request.body(axum::body::Body::empty()).unwrap(), proxy).status().as_u16()
    };
    let (own, evil) = ("http://a.example", "http://evil.example");
    assert_eq!(status("/ws", "inner.example", own, Some("a.example")), 101);
    assert_eq!(status("/ws", "inner.example", evil, Some("a.example")), 403);
    assert_eq!(status("/ws", "a.example", evil, Some("evil.example")), 421);
    assert_eq!(status("/ws", "a.example", own, None), 101);
    assert_eq!(status("http://a.example/ws", "evil.example", evil, None), 403);
    assert_eq!(status("http://a.example/ws", "evil.example", own, None), 101);
}

// ---- the end -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_shutdown_ends_all_sessions_and_a_broker_that_is_dropped_ends_too() {
    for is_dropped in [false, true] {
        let broker = Broker::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0))).start().unwrap();
        let address = broker.addresses()[0];
        let mut inside = stomp_within(&broker).await;
        let mut outside = join(TcpStream::connect(address).await.unwrap(), &Login::Anonymous).await.unwrap();
        let ending = tokio::spawn(async move {
            match is_dropped {
                true => drop(broker),
                false => assert!(broker.shutdown().await, "nobody is cut off"),
            }
        });
        assert!(matches!(soon(inside.next_message()).await, Err(Error::StompError(_) | Error::Closed(_))));
        assert!(matches!(soon(outside.next_event()).await, Err(Error::Goodbye(_))));
        let reply = tandem_protocols::wamp::message::Goodbye {
            details: Dict::new(),
            reason: "wamp.close.goodbye_and_out".into(),
        };
        // The broker may have answered a goodbye that the client sent by itself.
        let _ = outside.link().send(reply).await;
        drop((inside, outside));
        soon(ending).await.unwrap();
        nobody_listens(address).await;
    }
}

/// Waits until nobody listens there.
async fn nobody_listens(address: SocketAddr) {
    let gone = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon(gone).await;
}

#[tokio::test]
async fn a_shutdown_that_nobody_waits_for_goes_on() {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let builder = Broker::builder().toml("[limits]\ndrain_delay_s = 1\ndrain_time_s = 2\n").unwrap();
    let broker = builder.listen(here).start().unwrap();
    let (address, entrance) = (broker.addresses()[0], broker.entrance());
    let shutdown = broker.shutdown();
    assert!(tokio::time::timeout(Duration::ZERO, shutdown).await.is_err(), "it has hardly begun");
    nobody_listens(address).await;
    assert!(entrance.open().is_err());
}

#[tokio::test]
async fn of_a_start_that_fails_nothing_is_left() {
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let free = TcpListener::bind(here).await.unwrap().local_addr().unwrap();
    let taken = TcpListener::bind(here).await.unwrap();
    let directory = std::env::temp_dir().join(format!("tandem-embedding-{}", std::process::id()));
    let builder = || Broker::builder().listen(free).store_path(&directory);
    let failed = builder().listen(taken.local_addr().unwrap()).start();
    assert!(failed.err().unwrap().to_string().contains("cannot listen"));
    nobody_listens(free).await;
    let again = async {
        loop {
            match builder().start() {
                Ok(broker) => return broker,
                // The one before still closes it.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    assert!(soon(soon(again).await.shutdown()).await);
    std::fs::remove_dir_all(&directory).unwrap();
}

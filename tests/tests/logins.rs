//! Who is let in, over real sockets: by an application that is asked, after too many failures, and not.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use tandem_broker::config::Config;
use tandem_broker::core::access::{
    Applicant, Authenticating, Authenticator, Credentials, Grant, LookingUp, Peer, Principal, Provider,
    Record, Refusal,
};
use tandem_broker::server::{Provided, Server};
use tandem_client::error::Error;
use tandem_client::raw::dial::connect_tcp;
use tandem_client::raw::stomp::{Client as Stomp, ConnectOptions};
use tandem_client::raw::wamp::{Client as Wamp, Link, Login, MatchPolicy};
use tandem_protocols::payload::Format::{self, Cbor, Json, MsgPack};
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::stomp::state::AckMode;
use tandem_protocols::wamp::auth::cra;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::{Hello, Message, Welcome};
use tandem_tests::attacker::PATIENCE;
use tandem_tests::broker::{Broker, eventually, soon};
use tandem_tests::peers::{subprotocol, websocket};

const PROCEDURE: &str = "com.example.authenticate";

/// One user, who is the application itself, and an authenticator.
fn configuration(more: &str) -> String {
    let hash = tandem_broker::users::hash_password("secret").unwrap();
    format!(
        "realms = [\"realm1\", \"auth\"]\n[authentication]\nanonymous = \"never\"\n\
         authenticator = \"{PROCEDURE}\"\n{more}\n[[users]]\nname = \"application\"\npassword = {hash:?}\n"
    )
}

async fn log_in(
    address: SocketAddr,
    format: Format,
    realm: &str,
    authid: &str,
    ticket: &str,
) -> Result<Wamp, Error> {
    let transport = websocket(address, subprotocol(format)).await;
    let login = Login::Ticket { authid: authid.to_owned(), ticket: ticket.to_owned() };
    soon("an answer", Wamp::join(transport, format, realm, &login)).await
}

async fn log_in_by_stomp(address: SocketAddr, login: &str, passcode: &str) -> Result<Stomp, Error> {
    let transport = connect_tcp(address).await.unwrap();
    let (login, passcode) = (Some(login.to_owned()), Some(passcode.to_owned()));
    let options = ConnectOptions { host: "realm1".into(), login, passcode, ..ConnectOptions::default() };
    soon("an answer", Stomp::connect(transport, Version::V12, &options)).await
}

async fn log_in_by_cra(address: SocketAddr, authid: &str, secret: &str) -> Result<Welcome, String> {
    let mut link = Link::new(websocket(address, "wamp.2.json").await, Json);
    let details = Dict::new()
        .with("roles", Dict::new().with("caller", Dict::new()))
        .with("authmethods", vec!["wampcra"])
        .with("authid", authid);
    link.send(Hello { realm: "realm1".to_owned(), details }).await.unwrap();
    loop {
        match soon("an answer", link.receive()).await.unwrap() {
            Message::Challenge(challenge) => {
                link.send(cra::respond(&challenge, secret).unwrap()).await.unwrap();
            }
            Message::Welcome(welcome) => return Ok(welcome),
            Message::Abort(abort) => return Err(abort.reason),
            other => panic!("{other:?}"),
        }
    }
}

/// An application that knows dora, and answers whoever asks until it is dropped. What it was asked comes out.
async fn application(
    address: SocketAddr,
    realm: &str,
) -> (tokio::task::JoinHandle<()>, tokio::sync::mpsc::Receiver<Value>) {
    let mut callee = log_in(address, MsgPack, realm, "application", "secret").await.unwrap();
    callee.register(PROCEDURE, Dict::new()).await.unwrap();
    let (asked, questions) = tokio::sync::mpsc::channel(100);
    let answering = tokio::spawn(async move {
        while let Ok(invocation) = callee.next_invocation().await {
            let args: (String, Option<String>, Value) =
                tandem_client::arguments::decode_args(&invocation.payload).unwrap();
            asked.send(json!([args.0, args.1, args.2])).await.unwrap();
            let request = invocation.request;
            let ticket = args.2["ticket"].as_str();
            let result = match (args.1.as_deref(), ticket) {
                (Some("dora"), Some("secret") | None) => json!({
                    "role": "guest", "authid": "theodora", "secret": "secret", "extra": {"color": "red"},
                }),
                (Some("plain"), Some("secret")) => json!("guest"),
                (Some("elsewhere"), _) => json!({"role": "guest", "realm": "auth"}),
                (Some("nowhere"), _) => json!({"role": "guest", "realm": "nowhere"}),
                (Some("senseless"), _) => json!(7),
                (Some("silent"), _) => continue,
                (user, _) => {
                    let uri = match user {
                        Some("crash") => "wamp.error.runtime_error",
                        Some("unknown") => "wamp.error.no_such_principal",
                        _ => "com.example.invalid_ticket",
                    };
                    let nothing = callee.args(&()).unwrap();
                    callee.error(request, uri, nothing).await.unwrap();
                    continue;
                }
            };
            let result = callee.args(&(result,)).unwrap();
            callee.yield_(request, Dict::new(), result).await.unwrap();
        }
    });
    (answering, questions)
}

fn reason(result: Result<Wamp, Error>) -> String {
    match result {
        Err(Error::Abort(abort)) => abort.reason,
        other => panic!("no ABORT but {other:?}"),
    }
}

fn told(welcome: &Dict) -> [&str; 5] {
    ["realm", "authid", "authrole", "authmethod", "authprovider"]
        .map(|key| welcome.str(key).unwrap().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_says_who_its_users_are_in_both_languages() {
    for realm in ["realm1", "auth"] {
        let more = if realm == "auth" { "authenticator_realm = \"auth\"" } else { "" };
        let broker = Broker::start_with(&configuration(more)).await;
        let address = broker.address();
        let (_answering, mut questions) = application(address, realm).await;

        for format in [Json, MsgPack, Cbor] {
            let client = log_in(address, format, "realm1", "dora", "secret").await.unwrap();
            assert_eq!(told(client.welcome()), ["realm1", "theodora", "guest", "ticket", "dynamic"]);
            let extra = client.welcome().dict("authextra").unwrap().unwrap();
            assert_eq!(extra.str("color"), Ok(Some("red")));
            let question = questions.recv().await.unwrap();
            assert_eq!((&question[0], &question[1]), (&json!("realm1"), &json!("dora")));
            assert_eq!(question[2]["ticket"], json!("secret"));
            assert_eq!(question[2]["session"], json!(client.session().get()));
            assert!(question[2]["transport"]["peer"].as_str().unwrap().starts_with("tcp4:127.0.0.1:"));
        }
        let plain = log_in(address, Json, "realm1", "plain", "secret").await.unwrap();
        assert_eq!(told(plain.welcome()), ["realm1", "plain", "guest", "ticket", "dynamic"]);
        let elsewhere = log_in(address, Json, "realm1", "elsewhere", "").await.unwrap();
        assert_eq!(told(elsewhere.welcome())[0], "auth");

        let welcome = log_in_by_cra(address, "dora", "secret").await.unwrap();
        assert_eq!(told(&welcome.details), ["realm1", "theodora", "guest", "wampcra", "dynamic"]);
        assert_eq!(log_in_by_cra(address, "dora", "Secret").await.unwrap_err(), DENIED);

        let stomp = log_in_by_stomp(address, "dora", "secret").await.unwrap();
        assert_eq!(stomp.connected().get("user-name"), Some("theodora"));
        assert!(matches!(log_in_by_stomp(address, "dora", "wrong").await, Err(Error::StompError(_))));

        // Who is in the configuration is not asked for.
        while questions.try_recv().is_ok() {}
        log_in(address, Json, "realm1", "application", "secret").await.unwrap();
        assert!(questions.try_recv().is_err());
        drop((plain, elsewhere, stomp));
        assert!(broker.shutdown().await);
    }
}

const DENIED: &str = "wamp.error.authentication_denied";
const TOO_MANY: &str = "tandem.error.too_many_failures";
const FAILED: &str = "wamp.error.authentication_failed";

#[tokio::test(flavor = "multi_thread")]
async fn what_an_application_does_not_say_lets_nobody_in() {
    let more = "authenticator_time_s = 1\nauthenticator_methods = [\"ticket\"]";
    let limits = "[limits]\nlogin_failures_max = 100\n";
    let broker = Broker::start_with(&format!("{}{limits}", configuration(more))).await;
    let address = broker.address();
    let nobody_there = log_in(address, Json, "realm1", "dora", "secret").await;
    assert_eq!(reason(nobody_there), FAILED);
    let (answering, _questions) = application(address, "realm1").await;
    for (user, expected) in [
        ("unknown", DENIED),
        ("somebody", DENIED),
        ("crash", FAILED),
        ("senseless", FAILED),
        ("silent", FAILED),
        ("nowhere", "wamp.error.no_such_realm"),
    ] {
        assert_eq!(reason(log_in(address, Json, "realm1", user, "x").await), expected, "{user}");
        assert!(log_in_by_stomp(address, user, "x").await.is_err(), "{user}");
    }
    let not_served = log_in_by_cra(address, "dora", "secret").await;
    assert_eq!(not_served.unwrap_err(), "wamp.error.no_matching_auth_method");
    log_in(address, Json, "realm1", "dora", "secret").await.unwrap();
    answering.abort();
    assert!(answering.await.unwrap_err().is_cancelled());
    assert_eq!(reason(log_in(address, Json, "realm1", "dora", "secret").await), FAILED);
    assert!(broker.shutdown().await);
}

/// An application that the broker is built into.
struct Embedded;

impl Authenticator for Embedded {
    fn anonymous(&self, _peer: &Peer) -> Option<Principal> {
        None
    }

    fn authenticate(&self, credentials: Credentials, _peer: &Peer) -> Authenticating {
        let Credentials { applicant, secret } = credentials;
        let principal = Principal {
            provider: Provider::Dynamic,
            ..Principal::new(applicant.user, "guest", applicant.method)
        };
        Box::pin(async move {
            if &*secret == "secret" { Ok(principal.into()) } else { Err(Refusal::WrongSecret) }
        })
    }

    fn looks_up(&self, method: &str) -> bool {
        method == "wampcra"
    }

    fn look_up(&self, applicant: Applicant, _peer: &Peer) -> LookingUp {
        let principal = Principal {
            provider: Provider::Dynamic,
            ..Principal::new(applicant.user, "guest", applicant.method)
        };
        let fields = [("secret".to_owned(), "secret".to_owned())].into();
        Box::pin(async move { Ok(Record { grant: Grant::from(principal), fields }) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_has_the_broker_inside_is_asked_without_a_call() {
    let text = "listen = [\"127.0.0.1:0\"]\n[authentication]\nanonymous = \"never\"\n";
    let provided = Provided { authenticator: Some(Arc::new(Embedded)), ..Provided::default() };
    let server = Server::start_with(&Config::parse(text).unwrap(), provided).unwrap();
    let address = server.addresses()[0];
    let client = log_in(address, Json, "realm1", "dora", "secret").await.unwrap();
    assert_eq!(told(client.welcome()), ["realm1", "dora", "guest", "ticket", "dynamic"]);
    drop(client);
    assert_eq!(reason(log_in(address, Json, "realm1", "dora", "wrong").await), DENIED);
    log_in_by_cra(address, "dora", "secret").await.unwrap();
    log_in_by_stomp(address, "dora", "secret").await.unwrap();
    assert!(server.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_too_often_has_to_wait_in_both_languages_and_others_who_were_there_before_do_not() {
    let hash = tandem_broker::users::hash_password("secret").unwrap();
    let user = |name| format!("[[users]]\nname = \"{name}\"\npassword = {hash:?}\n");
    let text = format!("[limits]\nlogin_failures_max = 3\n{}{}", user("alice"), user("bob"));
    let broker = Broker::start_with(&text).await;
    let address = broker.address();
    log_in(address, Json, "realm1", "bob", "secret").await.unwrap();
    for _ in 0..3 {
        assert_eq!(reason(log_in(address, Json, "realm1", "alice", "wrong").await), DENIED);
    }
    // However slow this machine is, the delays become longer than it takes to fail.
    for user in ["alice", "carol"] {
        let refused = async {
            loop {
                let reason = reason(log_in(address, Json, "realm1", user, "wrong").await);
                if reason != DENIED {
                    return reason;
                }
            }
        };
        let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
        assert_eq!(refused, TOO_MANY);
    }
    let refused = async {
        loop {
            let Err(Error::StompError(frame)) = log_in_by_stomp(address, "alice", "wrong").await else {
                panic!("no ERROR")
            };
            if String::from_utf8_lossy(&frame.body).contains("try again in ") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    log_in(address, Json, "realm1", "bob", "secret").await.unwrap();
    assert!(broker.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn realms_are_made_for_those_who_are_let_in_in_both_languages_and_go_when_they_are_empty() {
    let hash = tandem_broker::users::hash_password("secret").unwrap();
    let text = format!(
        "[authentication]\nanonymous = \"never\"\n[[users]]\nname = \"alice\"\npassword = {hash:?}\n\
         [[realm_patterns]]\npattern = \"tenant.\"\nmatch = \"prefix\"\nrealms_max = 2\nidle_s = 0\n"
    );
    let broker = Broker::start_with(&text).await;
    let (address, realms) = (broker.address(), broker.server().all_realms().clone());
    let denied = log_in(address, Json, "tenant.a", "alice", "wrong").await;
    assert_eq!((reason(denied), realms.living().len()), (DENIED.to_owned(), 1), "strangers make no realm");
    assert_eq!(reason(log_in(address, Json, "other", "alice", "secret").await), "wamp.error.no_such_realm");

    let mut wamp = log_in(address, Json, "tenant.a", "alice", "secret").await.unwrap();
    assert_eq!(told(wamp.welcome())[0], "tenant.a");
    let mut stomps = Vec::new();
    for host in ["tenant.a", "tenant.b", "other"] {
        let transport = connect_tcp(address).await.unwrap();
        let (login, passcode) = (Some("alice".to_owned()), Some("secret".to_owned()));
        let options = ConnectOptions { host: host.into(), login, passcode, ..ConnectOptions::default() };
        let mut stomp = Stomp::connect(transport, Version::V12, &options).await.unwrap();
        stomp.subscribe("/topic/t", "0", AckMode::Auto, &[]).await.unwrap();
        stomps.push(stomp);
    }
    let refused = log_in(address, Json, "tenant.c", "alice", "secret").await;
    assert_eq!(reason(refused), "tandem.error.limit_reached");
    let here = wamp.args(&("here",)).unwrap();
    wamp.publish_acknowledged("t", Dict::new(), here).await.unwrap();
    assert_eq!(soon("what is published here", stomps[0].next_message()).await.unwrap().body, "here");
    for stomp in &mut stomps[1..] {
        stomp.send_with_receipt("/topic/t", &[], "there").await.unwrap();
        assert_eq!(soon("what is published there", stomp.next_message()).await.unwrap().body, "there");
        assert_eq!(stomp.queued(), 0);
    }
    drop((wamp, stomps));
    eventually("empty realms are gone", || realms.living().len() == 1).await;
    let again = log_in(address, Json, "tenant.c", "alice", "secret").await.unwrap();
    drop(again);
    assert!(broker.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_sends_says_in_both_languages_how_far_they_are_trusted() {
    let hash = tandem_broker::users::hash_password("secret").unwrap();
    let user = |name, more| format!("[[users]]\nname = \"{name}\"\npassword = {hash:?}\n{more}\n");
    let text = [
        user("alice", "trust_level = 3"),
        user("root", "role = \"admin\""),
        user("eve", ""),
        "[[roles]]\nname = \"admin\"\ntrust_level = 9\n[[roles]]\nname = \"anonymous\"\ntrust_level = 0\n"
            .into(),
        "[[history]]\npattern = \"t\"\n".into(),
    ]
    .concat();
    let broker = Broker::start_with(&text).await;
    let address = broker.address();
    let mut wamp = tandem_tests::peers::wamp(address, Cbor).await;
    let subscription = wamp.subscribe("t", MatchPolicy::Exact).await.unwrap();
    wamp.register("p", Dict::new()).await.unwrap();
    let mut stomp = tandem_tests::peers::stomp(address).await;
    stomp.subscribe("/topic/t", "1", AckMode::Auto, &[]).await.unwrap();
    stomp.subscribe("/queue/q", "2", AckMode::Auto, &[]).await.unwrap();
    stomp.subscribe("/procedure/q", "3", AckMode::Auto, &[]).await.unwrap();

    for (user, level) in [("alice", Some(3)), ("root", Some(9)), ("eve", None)] {
        let text = level.map(|level: u64| level.to_string());
        let mut sender = log_in(address, Json, "realm1", user, "secret").await.unwrap();
        let args = sender.args(&(user,)).unwrap();
        let forged = Dict::new().with("trustlevel", 7_u64).with("retain", true);
        sender.publish_acknowledged("t", forged, args.clone()).await.unwrap();
        let mut by_stomp = log_in_by_stomp(address, user, "secret").await.unwrap();
        for destination in ["/topic/t", "/queue/q"] {
            by_stomp.send_with_receipt(destination, &[("x-trust-level", "7")], "x").await.unwrap();
        }
        for procedure in ["p", "q"] {
            sender.begin_call(procedure, Dict::new().with("trustlevel", 7_u64), args.clone()).await.unwrap();
        }
        sender.flush().await.unwrap();
        for _ in 0..2 {
            let event = soon("an EVENT", wamp.next_event()).await.unwrap();
            assert_eq!(event.details.uint("trustlevel"), Ok(level));
        }
        let invocation = soon("an INVOCATION", wamp.next_invocation()).await.unwrap();
        assert_eq!(invocation.details.uint("trustlevel"), Ok(level));
        for _ in 0..4 {
            let message = soon("a MESSAGE", stomp.next_message()).await.unwrap();
            assert_eq!(message.headers.get("x-trust-level"), text.as_deref(), "{message:?}");
        }
        // What is kept says so as well.
        let mut late = tandem_tests::peers::wamp(address, Json).await;
        let options = Dict::new().with("get_retained", true);
        late.subscribe_with("t", options).await.unwrap();
        let event = soon("an EVENT", late.next_event()).await.unwrap();
        assert_eq!(event.details.uint("trustlevel"), Ok(level));
        let asked = late.args(&(subscription.get(),)).unwrap();
        let past = late.call("wamp.subscription.get_events", asked).await.unwrap();
        let past: Vec<Value> = past.args().unwrap();
        let past: Vec<_> =
            past.iter().rev().take(2).map(|event| event["details"]["trustlevel"].as_u64()).collect();
        assert_eq!(past, [level; 2]);
    }
    // Who says nothing has a name that was made up, whatever they ask for, and the level of their role.
    let details = Dict::new().with("authid", "root").with("authrole", "admin");
    let link = Link::new(websocket(address, "wamp.2.json").await, Json);
    let mut nobody = Wamp::join_with(link, "realm1", &Login::Anonymous, details).await.unwrap();
    let [_, authid, told @ ..] = told(nobody.welcome());
    assert!(authid.starts_with("anonymous-"), "{authid}");
    assert_eq!(told, ["anonymous", "anonymous", "static"]);
    let args = nobody.args(&(1,)).unwrap();
    nobody.publish_acknowledged("t", Dict::new(), args).await.unwrap();
    let event = soon("an EVENT", wamp.next_event()).await.unwrap();
    assert_eq!(event.details.uint("trustlevel"), Ok(Some(0)));
}

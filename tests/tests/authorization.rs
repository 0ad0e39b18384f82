//! Permissions over real sockets: rules, a procedure that decides, reading them again, and explaining them.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use tandem_client::Error;
use tandem_client::raw::stomp::AckMode;
use tandem_client::raw::wamp::{self, MatchPolicy};
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::dict::Dict;
use tandem_tests::broker::{Broker, soon};
use tandem_tests::daemon::{ConfigFile, Daemon, executable};
use tandem_tests::peers;

/// Everybody is anonymous here. The authorizer itself needs rules that do not ask it.
const ASKING: &str = r#"
    [[permissions]]
    role = "*"
    actions = ["register"]
    name = "com.authorize"
    allow = true

    [[permissions]]
    role = "*"
    actions = "*"
    name = "open."
    match = "prefix"
    allow = true

    [[permissions]]
    role = "*"
    actions = "*"
    name = ""
    match = "prefix"
    authorizer = "com.authorize"
"#;

/// Answers each question by what its name says, and gives them all when it ends.
fn authorizer(mut client: wamp::Client) -> JoinHandle<Vec<Value>> {
    tokio::spawn(async move {
        client.register("com.authorize", Dict::new()).await.unwrap();
        let mut asked = Vec::new();
        while let Ok(invocation) = client.next_invocation().await {
            let question: Vec<Value> =
                wamp::Outcome { details: Dict::new(), payload: invocation.payload }.args().unwrap();
            let name = question[1].as_str().unwrap().to_owned();
            asked.push(Value::from(question));
            let answer = match name.rsplit('.').next().unwrap() {
                "end" => {
                    let arguments = client.args(&[true]).unwrap();
                    client.yield_(invocation.request, Dict::new(), arguments).await.unwrap();
                    client.flush().await.unwrap();
                    break;
                }
                "yes" => json!([true]),
                "dict" => json!([{"allow": true, "disclose": true, "cache": false}]),
                "nonsense" => json!(["perhaps"]),
                "error" => {
                    let arguments = client.args(&[0; 0]).unwrap();
                    client.error(invocation.request, "com.error.down", arguments).await.unwrap();
                    continue;
                }
                _ => json!([false]),
            };
            let arguments = client.args(&answer).unwrap();
            client.yield_(invocation.request, Dict::new(), arguments).await.unwrap();
        }
        asked
    })
}

/// The error of a request that a WAMP router refuses.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    error.uri().unwrap_or_else(|| panic!("not refused: {error}")).to_owned()
}

#[tokio::test]
async fn a_procedure_decides_for_wamp_and_stomp_clients() {
    let broker = Broker::start_with(ASKING).await;
    let decides = authorizer(peers::wamp(broker.address(), Format::MsgPack).await);
    let mut wamp = peers::wamp(broker.address(), Format::Json).await;
    // The first question may come before the authorizer is there.
    while wamp.subscribe("a.yes", MatchPolicy::Exact).await.is_err() {}
    wamp.subscribe("a.dict", MatchPolicy::Exact).await.unwrap();
    assert_eq!(refusal(wamp.subscribe("a.no", MatchPolicy::Exact).await), "wamp.error.not_authorized");
    assert_eq!(refusal(wamp.subscribe("a.", MatchPolicy::Prefix).await), "wamp.error.not_authorized");
    for name in ["a.nonsense", "a.error"] {
        let refused = wamp.subscribe(name, MatchPolicy::Exact).await;
        assert_eq!(refusal(refused), "wamp.error.authorization_failed");
    }
    wamp.subscribe("open.x", MatchPolicy::Exact).await.unwrap();

    let mut stomp = peers::stomp(broker.address()).await;
    stomp.subscribe("/queue/a.yes", "1", AckMode::Auto, &[]).await.unwrap();
    stomp.send_with_receipt("/queue/a.yes", &[], "kept").await.unwrap();
    assert_eq!(&stomp.next_message().await.unwrap().body[..], b"kept");
    for (destination, body) in [("/topic/a.yes", "one"), ("/topic/open.x", "two"), ("/topic/a.dict", "three")]
    {
        stomp.send(destination, &[("content-type", "text/plain")], body).await.unwrap();
    }
    stomp.flush().await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..3 {
        let event = soon("an event", wamp.next_event()).await.unwrap();
        let args: Vec<String> =
            wamp::Outcome { details: Dict::new(), payload: event.payload }.args().unwrap();
        heard.push((args[0].clone(), event.details.get("publisher").is_some()));
    }
    assert_eq!(heard, [("one".into(), false), ("two".into(), false), ("three".into(), true)]);

    let refused = stomp.send_with_receipt("/topic/a.no", &[], "no").await;
    assert!(refused.unwrap_err().to_string().contains("Access refused"));

    drop(wamp.subscribe("the.end", MatchPolicy::Exact).await);
    let asked = soon("the authorizer ends", decides).await.unwrap();
    let of_stomp: Vec<&Value> =
        asked.iter().filter(|question| question[2] == "send" || question[2] == "consume").collect();
    assert_eq!(of_stomp.len(), 2);
    for question in &asked {
        let session = &question[0];
        assert!(session["session"].is_u64() && session["authid"].as_str().unwrap().starts_with("anonymous-"));
        assert_eq!(
            (&session["authrole"], &session["authmethod"]),
            (&json!("anonymous"), &json!("anonymous"))
        );
        assert!(!question[1].as_str().unwrap().starts_with("open."), "rules decide without asking");
    }
    assert!(asked.iter().any(|q| q[1] == "a." && q[3] == json!({"match": "prefix"})));
}

#[tokio::test]
async fn an_authorizer_that_is_not_there_or_says_nothing_allows_nothing_and_harms_nobody_else() {
    let broker = Broker::start_with(ASKING).await;
    let mut wamp = peers::wamp(broker.address(), Format::Cbor).await;
    let missing = wamp.subscribe("a.yes", MatchPolicy::Exact).await;
    assert_eq!(refusal(missing), "wamp.error.authorization_failed");

    let mut mute = peers::wamp(broker.address(), Format::Json).await;
    mute.register("com.authorize", Dict::new()).await.unwrap();
    let waits = tokio::spawn(async move {
        let refused = wamp.subscribe("a.yes", MatchPolicy::Exact).await;
        (wamp, refused)
    });
    soon("the question", mute.next_invocation()).await.unwrap();
    let mut other = peers::wamp(broker.address(), Format::Json).await;
    soon("others go on", other.subscribe("open.x", MatchPolicy::Exact)).await.unwrap();
    let (mut wamp, refused) = soon("an answer in time", waits).await.unwrap();
    assert_eq!(refusal(refused), "wamp.error.authorization_failed");
    wamp.subscribe("open.x", MatchPolicy::Exact).await.unwrap();
    drop((wamp, mute, other));
    assert!(broker.shutdown().await);
}

#[tokio::test]
async fn an_authorizer_that_is_asked_goes_with_the_broker() {
    let broker = Broker::start_with(ASKING).await;
    let realm = broker.server().realms()[0].clone();
    assert!(realm.has_authorizer());
    assert_eq!(realm.sessions(), 0, "the house itself, which asks, is no session");
    assert!(broker.shutdown().await);
    assert!(!realm.has_authorizer(), "who is asked holds the realm that holds it");
}

// ---- reading again -----------------------------------------------------------------------------------------

fn permission(name: &str, allow: bool) -> String {
    format!(
        "[[permissions]]\nrole = \"*\"\nactions = \"*\"\nname = {name:?}\nmatch = \"prefix\"\nallow = {allow}\n"
    )
}

async fn may_subscribe(address: SocketAddr, topic: &str) -> bool {
    let mut client = peers::wamp(address, Format::Json).await;
    client.subscribe(topic, MatchPolicy::Exact).await.is_ok()
}

async fn becomes(address: SocketAddr, topic: &str, allowed: bool) {
    for _ in 0..1000 {
        if may_subscribe(address, topic).await == allowed {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {topic} {allowed}");
}

#[tokio::test]
async fn permissions_are_read_again_at_a_hangup_and_a_broken_file_changes_nothing() {
    let file = ConfigFile::new(&permission("a.", true));
    let mut daemon = Daemon::start(&["--config", file.path()]);
    let address = daemon.address();
    assert!(may_subscribe(address, "a.b").await && !may_subscribe(address, "c.d").await);
    let (mut subscriber, mut publisher) =
        (peers::wamp(address, Format::Json).await, peers::wamp(address, Format::Json).await);
    subscriber.subscribe("a.", MatchPolicy::Prefix).await.unwrap();

    fs::write(file.path(), permission("c.", true) + &permission("a.", true) + &permission("a.secret", false))
        .unwrap();
    daemon.signal("HUP");
    becomes(address, "c.d", true).await;
    for topic in ["a.secret", "a.b"] {
        let args = publisher.args(&[topic]).unwrap();
        let published = publisher.publish_acknowledged(topic, Dict::new(), args).await;
        assert_eq!(published.is_ok(), topic == "a.b");
    }
    let event = soon("an event", subscriber.next_event()).await.unwrap();
    assert_eq!(event.details.get("topic").and_then(|topic| topic.as_str()), Some("a.b"));

    for broken in ["[[permissions]]\n", "nonsense", &(permission("c.", false) + "[[users]]\nname = \"x\"\n")]
    {
        fs::write(file.path(), broken).unwrap();
        daemon.signal("HUP");
        daemon.until_logged("the permissions stay as they were");
        assert!(may_subscribe(address, "c.d").await && may_subscribe(address, "a.b").await);
    }
    let later = "[longpoll]\nenabled = false\n";
    fs::write(file.path(), permission("c.", true) + &permission("e.", true) + later).unwrap();
    daemon.signal("HUP");
    becomes(address, "e.f", true).await;
    daemon.until_logged("waits for the next start changed=\"longpoll\"");
    assert!(may_subscribe(address, "c.d").await);
    drop((subscriber, publisher));
    let (log, ended_well) = daemon.terminate();
    assert!(ended_well, "{log}");
}

#[tokio::test]
async fn rules_that_begin_to_ask_find_somebody_to_ask() {
    let file = ConfigFile::new("");
    let daemon = Daemon::start(&["--config", file.path()]);
    let decides = authorizer(peers::wamp(daemon.address(), Format::Json).await);
    fs::write(file.path(), ASKING).unwrap();
    daemon.signal("HUP");
    becomes(daemon.address(), "a.no", false).await;
    becomes(daemon.address(), "a.yes", true).await;
    becomes(daemon.address(), "the.end", true).await;
    soon("the authorizer ends", decides).await.unwrap();
}

// ---- explaining --------------------------------------------------------------------------------------------

fn explain(file: &ConfigFile, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(executable())
        .args(["permission", "explain"])
        .args(arguments)
        .args(["--config", file.path()])
        .output()
        .unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn the_rule_that_decides_is_explained() {
    let file = ConfigFile::new(
        r#"realms = ["realm1", "realm2"]

[[users]]
name = "alice"
role = "guest"
cryptosign = ["1adfc8bfe1d35616e64dffbd900096f23b066f914c8c2ffbb66f6075b96e116d"]

[[permissions]]
role = "guest"
realm = "realm1"
actions = ["publish", "subscribe"]
name = "a."
match = "prefix"
allow = true

[[permissions]]
role = "*"
realm = "realm1"
actions = "*"
name = "a.secret"
allow = false

[[permissions]]
role = "anonymous"
realm = "realm1"
actions = ["call"]
name = "b..d.#"
match = "wildcard"
authorizer = "com.authorize"
cache = true
"#,
    );
    let first = format!("by permission 1, at {}:8: role = \"guest\", realm = \"realm1\"", file.path());
    let second = format!("by permission 2, at {}:16: role = \"*\"", file.path());
    let third = format!("by permission 3, at {}:23: role = \"anonymous\"", file.path());
    for (question, code, said) in [
        ("alice publish a.b", 0, format!("allowed: {first}")),
        ("alice publish a.secret", 1, format!("refused: {second}")),
        ("alice call a.b", 1, "refused: no permission mentions it".into()),
        ("alice subscribe a. --match prefix", 0, format!("allowed: {first}")),
        ("alice subscribe a --match prefix", 1, "refused: no permission mentions it".into()),
        ("alice subscribe a..# --match wildcard", 0, format!("allowed: {first}")),
        ("anonymous call b.c.d", 3, format!("asked: {third}")),
        ("anonymous publish a.b", 1, "refused: no permission mentions it".into()),
        ("publish a.b --role guest", 0, format!("allowed: {first}")),
        ("alice publish wamp.x", 1, "refused: the name is reserved".into()),
        ("alice call wamp.session.kill", 1, "refused: the procedure is for the role admin".into()),
        ("alice send x --realm realm2", 0, "allowed: realm \"realm2\" has no permissions".into()),
        ("alice call wamp.session.kill --realm realm2", 1, "refused: the procedure is for".into()),
        ("alice send tandem.reply.x", 0, "allowed: whoever knows".into()),
        ("bob publish a.b", 2, "tandem: there is no user \"bob\"".into()),
        ("alice fly a.b", 2, "tandem: \"fly\" is no action".into()),
        ("alice publish a..b", 2, "tandem: the name \"a..b\" has an empty component".into()),
        ("alice publish a.b --realm realm3", 2, "tandem: there is no realm \"realm3\"".into()),
        ("alice publish a.b --role guest", 2, "tandem: say either a user or --role".into()),
        ("publish a.b", 2, "tandem: say a user, an action and a name".into()),
    ] {
        let (exit, told) = explain(&file, &question.split(' ').collect::<Vec<_>>());
        assert!(exit == Some(code) && told.starts_with(&said), "{question}: {exit:?} {told}");
    }
    let broken =
        ConfigFile::new("[[permissions]]\nrole = \"r\"\nactions = [\"fly\"]\nname = \"a\"\nallow = true\n");
    let (exit, told) = explain(&broken, &["anonymous", "call", "a"]);
    assert!(exit == Some(2) && told.contains("\"fly\" is no action"), "{told}");
    let checked = Command::new(executable()).args(["check-config", broken.path()]).output().unwrap();
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(said.contains("permission 1, for \"r\": \"fly\" is no action"), "{said}");
}

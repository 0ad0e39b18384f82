//! Sessions that come in by a token: at the door, when it ends, and when it is renewed. Time is made by the tests.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod stomp_harness;
mod token_maker;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use tandem_broker::config::Config;
use tandem_broker::core::access::{Authenticator, Credentials, Peer, Presented};
use tandem_broker::core::mailbox::mailbox;
use tandem_broker::core::message::Kind;
use tandem_broker::core::parcel::Parcel;
use tandem_broker::core::protocol::{Close, Output, Protocol, Reason, Session};
use tandem_broker::core::realm::Realm;
use tandem_broker::core::realms::Realms;
use tandem_broker::core::throttle::Throttle;
use tandem_broker::users::{Users, hash_password};
use tandem_broker::wamp::{Strictness, Wamp, WampCredentials, WampSettings};
use tandem_protocols::stomp::frame::{Command, Frame};

use stomp_harness::{BOUNDS, Client, House, LIMITS, header};
use token_maker::*;

const CONNECT: &str = "CONNECT\naccept-version:1.2\nhost:main\n";
const NEAR: &str = "192.0.2.1:5";

fn peer() -> Peer {
    Peer::Socket(NEAR.parse().unwrap())
}

/// Who tokens are of, and alice with a password.
fn users(bench: &Bench) -> Arc<Users> {
    let hash = hash_password("secret").unwrap();
    let config = format!(
        "authentication.anonymous = \"never\"\n[tokens]\n[[users]]\nname = \"alice\"\npassword = {hash:?}\n"
    );
    let users = Users::new(&Config::parse(&config).unwrap(), Arc::new(|| 7)).unwrap();
    Arc::new(users.taking(Some(bench.tokens.clone())))
}

/// Judges as the pump has it judged; a token, at once.
fn judged(users: &Users, credentials: Credentials) -> Parcel {
    let mut finding = users.authenticate(credentials, &peer());
    let Poll::Ready(result) = finding.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a token is judged at once")
    };
    Parcel::Authenticated(Box::new(result))
}

fn presented(user: Option<&str>, secret: &str) -> Presented {
    Presented { user: user.map(Into::into), secret: secret.into() }
}

// ---- STOMP -----------------------------------------------------------------------------------------------

struct Stomp {
    bench: Bench,
    users: Arc<Users>,
    house: House,
}

impl Stomp {
    fn new(more: &str) -> Stomp {
        let bench = by_secret(more);
        let users = users(&bench);
        let authenticator = users.clone();
        let house = House::with(|settings| settings.authenticator = authenticator);
        Stomp { bench, users, house }
    }

    /// A client that says this, after that handshake, and was judged, if it was to be.
    fn knock(&self, connect: &str, presented: Option<Presented>) -> Client {
        let mut client = self.house.open_from(&peer());
        if let Some(presented) = presented {
            client.session.introduce(presented);
        }
        client.say(&format!("{connect}\n"));
        self.judge(&mut client);
        client
    }

    fn judge(&self, client: &mut Client) {
        if let Some(credentials) = client.credentials.take() {
            client.session.deliver(judged(&self.users, credentials), client.now);
            client.poll();
        }
    }

    fn join(&self, user: &str, seconds: u64) -> Client {
        let mut client = self.knock(&format!("{CONNECT}passcode:{}\n", token_for(user, seconds)), None);
        client.expect(Command::Connected, &[("user-name", user)]);
        client
    }

    /// Time passes for clocks and sessions.
    fn pass(&self, client: &mut Client, seconds: u64) {
        self.bench.passes(seconds);
        client.after(seconds * 1000);
    }
}

fn body(frame: &Frame) -> String {
    String::from_utf8(frame.body.to_vec()).unwrap()
}

fn is_refused(mut client: Client) -> Frame {
    let error = client.expect(Command::Error, &[("message", "Access refused")]);
    assert_eq!(client.reason(), Some(Reason::Refused), "and closed at once");
    error
}

#[test]
fn a_token_in_the_passcode_says_who_a_stomp_client_is() {
    let stomp = Stomp::new("");
    for login in ["", "login:joe\n", "login:\n"] {
        let connect = format!("{CONNECT}{login}passcode:{}\n", token_for("joe", 600));
        stomp.knock(&connect, None).expect(Command::Connected, &[("user-name", "joe")]);
    }
    let others = format!("{CONNECT}login:ann\npasscode:{}\n", token_for("joe", 600));
    let error = is_refused(stomp.knock(&others, None));
    assert_eq!(body(&error), "the user is unknown or the secret is wrong");
}

#[test]
fn what_the_handshake_says_is_taken_where_connect_has_no_passcode() {
    let stomp = Stomp::new("");
    let good = token_for("joe", 600);
    for (connect, handshake) in [
        (CONNECT.to_owned(), presented(None, &good)),
        (format!("{CONNECT}login:joe\n"), presented(None, &good)),
        (CONNECT.to_owned(), presented(Some("joe"), &good)),
        (format!("{CONNECT}login:joe\npasscode:\n"), presented(Some("joe"), &good)),
        // A passcode of its own goes before it.
        (format!("{CONNECT}passcode:{good}\n"), presented(Some("ann"), "wrong")),
    ] {
        let mut client = stomp.knock(&connect, Some(handshake));
        client.expect(Command::Connected, &[("user-name", "joe")]);
    }
    for (connect, handshake) in [
        (format!("{CONNECT}login:ann\n"), presented(None, &good)),
        (format!("{CONNECT}login:ann\n"), presented(Some("joe"), &good)),
        (CONNECT.to_owned(), presented(Some("ann"), &good)),
        (CONNECT.to_owned(), presented(None, &token_for("joe", 600).replace("eyJ", "eyK"))),
    ] {
        is_refused(stomp.knock(&connect, Some(handshake)));
    }
    // Of whom nothing is known but what a cookie or the like may say, nothing is known.
    is_refused(stomp.knock(CONNECT, None));
}

#[test]
fn who_presents_something_that_is_wrong_is_not_let_in_as_nobody() {
    let bench = by_secret("");
    let config = Config::parse("authentication.anonymous = \"everywhere\"\n[tokens]\n").unwrap();
    let users = Users::new(&config, Arc::new(|| 7)).unwrap();
    let users = Arc::new(users.taking(Some(bench.tokens.clone())));
    let authenticator = users.clone();
    let house = House::with(|settings| settings.authenticator = authenticator);
    let stomp = Stomp { bench, users, house };
    stomp.knock(CONNECT, None).expect(Command::Connected, &[]);
    let expired = token_for("joe", 600).replacen('.', ".x", 1);
    is_refused(stomp.knock(CONNECT, Some(presented(None, &expired))));
}

#[test]
fn guesses_by_tokens_slow_down_like_those_by_passwords_and_expired_ones_are_no_guesses() {
    let stomp = Stomp::new("");
    let connect = |token: &str| format!("{CONNECT}login:joe\npasscode:{token}\n");
    let expired = token_for("joe", 0);
    stomp.bench.passes(600);
    for _ in 0..20 {
        let mut client = stomp.knock(&connect(&expired), None);
        let error = client.expect(Command::Error, &[("message", "Token expired")]);
        assert_eq!(
            (body(&error).as_str(), client.reason()),
            ("the token has expired", Some(Reason::Refused))
        );
    }
    let forged = format!("{expired}x");
    for _ in 0..5 {
        let error = is_refused(stomp.knock(&connect(&forged), None));
        assert!(body(&error).contains("unknown"), "{error:?}");
    }
    let error = is_refused(stomp.knock(&connect(&token_for("joe", 6000)), None));
    assert!(body(&error).contains("too many logins failed"), "{error:?}");
}

#[test]
fn a_stomp_session_ends_with_its_token() {
    let stomp = Stomp::new("");
    let mut client = stomp.join("joe", 600);
    assert_eq!(client.session.deadline(), Some(client.now + Duration::from_secs(660)));
    stomp.pass(&mut client, 659);
    client.say("SEND\ndestination:/topic/t\nreceipt:1\n\nx");
    client.receipt("1");
    stomp.pass(&mut client, 1);
    let error = client.expect(Command::Error, &[("message", "Token expired")]);
    assert_eq!(body(&error), "the token has expired");
    // Over WebSocket that is 1008.
    assert_eq!(client.reason(), Some(Reason::Refused));
    assert_eq!(stomp.house.realm.sessions(), 0);
}

#[test]
fn a_session_that_waits_for_an_authorizer_or_in_a_transaction_ends_all_the_same() {
    let stomp = Stomp::new("");
    let mut client = stomp.join("joe", 600);
    client.say("BEGIN\ntransaction:t\n\n");
    client.say("SEND\ndestination:/queue/q\ntransaction:t\n\nx");
    client.session.pause(client.now);
    stomp.pass(&mut client, 660);
    client.expect(Command::Error, &[("message", "Token expired")]);
    assert!(client.close.is_some());
}

#[test]
fn another_token_of_the_same_user_and_role_renews_a_stomp_session() {
    let stomp = Stomp::new("");
    let mut client = stomp.join("joe", 600);
    for (round, form) in ["body", "header"].into_iter().enumerate() {
        stomp.pass(&mut client, 600);
        let token = token_for("joe", 600 * (round as u64 + 2));
        client.say(&match form {
            "body" => format!("SEND\ndestination:/session/auth\nreceipt:{form}\n\n{token}\n"),
            _ => format!("SEND\ndestination:/session/auth\npasscode:{token}\nreceipt:{form}\n\n"),
        });
        client.receipt(form);
        assert_eq!(client.session.deadline(), Some(client.now + Duration::from_secs(660)));
    }
    // A token that ends sooner counts as well.
    client.say(&format!("SEND\ndestination:/session/auth\n\n{}", token_for("joe", 1210)));
    stomp.pass(&mut client, 70);
    client.expect(Command::Error, &[("message", "Token expired")]);
}

#[test]
fn a_session_whose_token_has_ended_is_not_renewed_though_its_end_was_not_noticed_yet() {
    let stomp = Stomp::new("");
    let mut client = stomp.join("joe", 600);
    stomp.bench.passes(660);
    client.now += Duration::from_secs(660);
    let frame = format!("SEND\ndestination:/session/auth\nreceipt:r\n\n{}", token_for("joe", 9000));
    client.refused(&frame, "Token expired");

    let house = WampHouse::new();
    let mut client = house.join("joe", 600);
    house.bench.passes(660);
    client.now += Duration::from_secs(660);
    let error = client.ask(json!([48, 1, {}, "tandem.session.renew", [token_for("joe", 9000)]]));
    assert_eq!(error[4], "tandem.error.token_expired");
    house.pass(&mut client, 0);
    assert_eq!(client.hear()[2], "tandem.close.token_expired");
}

#[test]
fn what_does_not_renew_a_stomp_session_ends_it() {
    let roles = "role_claim = \"role\"\nroles = [\"admin\"]\nrole = \"user\"\nrealm_claim = \"realm\"";
    let with = |user: &str, role: &str, realm: &str, exp: u64| {
        token(json!({"sub": user, "role": role, "realm": realm, "exp": exp}))
    };
    let good = with("joe", "", "main", NOW_S + 600);
    for (frame, message, said) in [
        (with("ann", "", "main", NOW_S + 900), "Access refused", "another user's"),
        (with("joe", "admin", "main", NOW_S + 900), "Access refused", "another role"),
        (with("joe", "", "other", NOW_S + 900), "Access refused", "the secret is wrong"),
        (with("joe", "", "main", NOW_S - 900), "Token expired", "has expired"),
        (format!("{good}x"), "Access refused", "the secret is wrong"),
        ("secret".into(), "Access refused", "the secret is wrong"),
        (String::new(), "Missing header", "a token is the body"),
    ] {
        let stomp = Stomp::new(roles);
        let mut client = stomp.knock(&format!("{CONNECT}passcode:{good}\n"), None);
        client.expect(Command::Connected, &[]);
        let frame = format!("SEND\ndestination:/session/auth\nreceipt:r\n\n{frame}");
        let error = client.refused(&frame, message);
        assert!(body(&error).contains(said), "{said}: {}", body(&error));
        assert_eq!(header(&error, "receipt-id"), "r");
    }
    let stomp = Stomp::new(roles);
    let mut client = stomp.knock(&format!("{CONNECT}passcode:{good}\n"), None);
    client.expect(Command::Connected, &[]);
    client.say("BEGIN\ntransaction:t\n\n");
    let frame = format!("SEND\ndestination:/session/auth\ntransaction:t\n\n{good}");
    client.refused(&frame, "Invalid header");
}

#[test]
fn a_session_without_a_token_has_no_end_and_nothing_to_renew() {
    let stomp = Stomp::new("");
    let mut client = stomp.house.open_from(&peer());
    client.say(&format!("{CONNECT}login:alice\npasscode:secret\n\n"));
    client.authenticated(Ok(stomp_harness::user("alice")));
    client.expect(Command::Connected, &[]);
    assert_eq!(client.session.deadline(), None);
    let frame = format!("SEND\ndestination:/session/auth\n\n{}", token_for("alice", 600));
    let error = client.refused(&frame, "Access refused");
    assert!(body(&error).contains("did not come in by a token"));
}

#[test]
fn guessing_in_renewals_is_slowed_down_across_sessions() {
    let stomp = Stomp::new("");
    for round in 0..6 {
        let connect = format!("{CONNECT}passcode:{}\n", token_for("joe", 600));
        let mut client = stomp.knock(&connect, None);
        client.expect(Command::Connected, &[]);
        client.say(&format!("SEND\ndestination:/session/auth\n\n{}x", token_for("joe", 900)));
        let error = client.expect(Command::Error, &[("message", "Access refused")]);
        assert_eq!(body(&error).contains("too many logins failed"), round == 5, "{round}: {}", body(&error));
    }
}

// ---- WAMP ------------------------------------------------------------------------------------------------

struct WampHouse {
    bench: Bench,
    users: Arc<Users>,
    realm: Arc<Realm>,
    protocol: Wamp,
}

struct WampClient {
    session: Box<dyn Session>,
    users: Arc<Users>,
    now: Instant,
    said: Vec<Value>,
    close: Option<Close>,
}

impl WampHouse {
    fn new() -> WampHouse {
        let bench = by_secret("");
        let users = users(&bench);
        let numbers = std::sync::atomic::AtomicU64::new(1000);
        let entropy = Arc::new(move || numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let realm = Realm::new("realm1", LIMITS, entropy);
        let protocol = Wamp::new(WampSettings {
            realms: Arc::new(Realms::fixed(vec![realm.clone()])),
            authenticator: users.clone(),
            credentials: Arc::new(WampCredentials::none()),
            throttle: Arc::new(Throttle::default()),
            agent: "tandem/test",
            strictness: Strictness::default(),
        });
        WampHouse { bench, users, realm, protocol }
    }

    fn open(&self, presented: Option<Presented>) -> WampClient {
        let now = Instant::now();
        let mut session = self.protocol.open("wamp.2.json", &peer(), mailbox(BOUNDS).0, now);
        if let Some(presented) = presented {
            session.introduce(presented);
        }
        WampClient { session, users: self.users.clone(), now, said: Vec::new(), close: None }
    }

    fn join(&self, user: &str, seconds: u64) -> WampClient {
        let mut client = self.open(None);
        assert_eq!(client.ask(hello(json!({"authmethods": ["ticket"]})))[0], 4);
        let welcome = client.ask(json!([5, token_for(user, seconds), {}]));
        assert_eq!((&welcome[0], &welcome[2]["authid"]), (&json!(2), &json!(user)));
        client
    }

    fn pass(&self, client: &mut WampClient, seconds: u64) {
        self.bench.passes(seconds);
        client.now += Duration::from_secs(seconds);
        client.session.tick(client.now);
        client.drain();
    }
}

fn hello(mut details: Value) -> Value {
    details["roles"] = json!({"caller": {}});
    json!([1, "realm1", details])
}

impl WampClient {
    fn say(&mut self, message: Value) {
        self.session.receive(Kind::Text, Bytes::from(message.to_string()), self.now);
        self.drain();
    }

    fn ask(&mut self, message: Value) -> Value {
        self.say(message);
        self.hear()
    }

    fn hear(&mut self) -> Value {
        assert!(!self.said.is_empty(), "the router says something");
        self.said.remove(0)
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(frame) => {
                    let message = frame.message();
                    let bytes = [&message.head[..], &message.body[..]].concat();
                    self.said.push(serde_json::from_slice(&bytes).unwrap());
                }
                Output::Authenticate(credentials) => {
                    self.session.deliver(judged(&self.users, *credentials), self.now);
                }
                Output::Close(close) => self.close = Some(close),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_ticket_that_is_a_token_says_who_a_wamp_client_is() {
    let house = WampHouse::new();
    for details in [json!({"authmethods": ["ticket"]}), json!({"authmethods": ["ticket"], "authid": "joe"})] {
        let mut client = house.open(None);
        assert_eq!(client.ask(hello(details)), json!([4, "ticket", {}]));
        let welcome = client.ask(json!([5, token_for("joe", 600), {}]));
        assert_eq!(welcome[0], 2);
        let said = ["authid", "authrole", "authmethod", "authprovider"].map(|key| welcome[2][key].clone());
        assert_eq!(said, ["joe", "user", "ticket", "token"].map(Value::from));
    }
    let mut other = house.open(None);
    other.ask(hello(json!({"authmethods": ["ticket"], "authid": "ann"})));
    assert_eq!(other.ask(json!([5, token_for("joe", 600), {}]))[2], "wamp.error.authentication_denied");
    let mut late = house.open(None);
    late.ask(hello(json!({"authmethods": ["ticket"]})));
    assert_eq!(
        late.ask(json!([5, token(json!({"sub": "joe", "exp": 1})), {}]))[2],
        "tandem.error.token_expired"
    );
    assert_eq!(late.close.map(|close| close.reason), Some(Reason::Refused));
}

#[test]
fn what_the_handshake_says_is_taken_for_wamp_clients_that_say_nothing() {
    let house = WampHouse::new();
    let good = token_for("joe", 600);
    for details in [json!({}), json!({"authmethods": ["anonymous"]}), json!({"authid": "joe"})] {
        for user in [None, Some("joe")] {
            let mut client = house.open(Some(presented(user, &good)));
            let welcome = client.ask(hello(details.clone()));
            assert_eq!((&welcome[0], &welcome[2]["authid"]), (&json!(2), &json!("joe")), "{welcome}");
        }
    }
    for (details, handshake) in [
        (json!({"authid": "ann"}), presented(None, &good)),
        (json!({"authid": "ann"}), presented(Some("joe"), &good)),
        (json!({}), presented(Some("ann"), &good)),
        (json!({}), presented(None, &format!("{good}x"))),
    ] {
        let mut client = house.open(Some(handshake));
        assert_eq!(client.ask(hello(details))[2], "wamp.error.authentication_denied");
    }
    // Who has a ticket to say is asked for it.
    let mut client = house.open(Some(presented(None, &format!("{good}x"))));
    assert_eq!(client.ask(hello(json!({"authmethods": ["ticket"], "authid": "joe"})))[0], 4);
    assert_eq!(client.ask(json!([5, good, {}]))[0], 2);
    assert_eq!(house.open(None).ask(hello(json!({})))[2], "wamp.error.authentication_required");
}

#[test]
fn a_wamp_session_ends_with_its_token() {
    let house = WampHouse::new();
    let mut client = house.join("joe", 600);
    assert_eq!(client.session.deadline(), Some(client.now + Duration::from_secs(660)));
    house.pass(&mut client, 659);
    assert_eq!(client.ask(json!([48, 1, {}, "no.such"]))[0], 8);
    house.pass(&mut client, 1);
    let goodbye = client.hear();
    assert_eq!((&goodbye[0], &goodbye[2]), (&json!(6), &json!("tandem.close.token_expired")));
    assert_eq!(goodbye[1]["message"], "the token of the session has expired");
    assert_eq!(house.realm.sessions(), 0, "it left the realm at once");
    client.say(json!([6, {}, "wamp.close.goodbye_and_out"]));
    assert!(client.close.is_some());
}

#[test]
fn another_token_renews_a_wamp_session_and_a_wrong_one_leaves_it_its_time() {
    let house = WampHouse::new();
    let mut client = house.join("joe", 600);
    let renew = |client: &mut WampClient, request: u64, args: Value| {
        client.ask(json!([48, request, {}, "tandem.session.renew", args]))
    };
    house.pass(&mut client, 600);
    assert_eq!(renew(&mut client, 1, json!([token_for("joe", 1200)])), json!([50, 1, {}, [660]]));
    for (args, uri) in [
        (json!([token_for("ann", 9000)]), "wamp.error.not_authorized"),
        (json!([format!("{}x", token_for("joe", 9000))]), "wamp.error.authentication_denied"),
        (json!([token_for("joe", 0)]), "tandem.error.token_expired"),
        (json!([]), "wamp.error.invalid_argument"),
        (json!([7]), "wamp.error.invalid_argument"),
    ] {
        let error = renew(&mut client, 2, args);
        assert_eq!((&error[0], &error[1], &error[4]), (&json!(8), &json!(48), &json!(uri)), "{error}");
    }
    house.pass(&mut client, 659);
    assert!(client.said.is_empty());
    house.pass(&mut client, 1);
    assert_eq!(client.hear()[2], "tandem.close.token_expired");
}

#[test]
fn a_wamp_session_that_guesses_tokens_is_refused_unheard() {
    let house = WampHouse::new();
    let mut client = house.join("joe", 600);
    for request in 1..=6 {
        let wrong = format!("{}x", token_for("joe", 900));
        let error = client.ask(json!([48, request, {}, "tandem.session.renew", [wrong]]));
        let uri =
            if request == 6 { "tandem.error.too_many_failures" } else { "wamp.error.authentication_denied" };
        assert_eq!(error[4], uri);
    }
}

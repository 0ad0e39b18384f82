//! Tokens over real sockets: in the handshake of WebSocket and of long-polling, and until they expire.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

use tandem_client::error::Error;
use tandem_client::raw::dial::{WebSocketOptions, connect_tcp, connect_websocket};
use tandem_client::raw::stomp::{Client as Stomp, ConnectOptions};
use tandem_client::raw::transport::{Closed, Transport};
use tandem_client::raw::wamp::{Client as Wamp, Login};
use tandem_protocols::payload::Format::Json;
use tandem_protocols::stomp::frame::{Frame, Version};
use tandem_tests::broker::{Broker, soon};
use tandem_tests::daemon::{ConfigFile, Daemon};
use tandem_tests::poller::{Http, Poller, ask};

fn token(secret: &str, claims: &Value) -> String {
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encoded(&json!({"alg": "HS256", "typ": "JWT"})), encoded(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

const SECRET: &str = "of thirty-two bytes or more than that";
const OTHER: &str = "another one of thirty-two bytes or more";

fn joes() -> String {
    token(SECRET, &json!({"sub": "joe", "exp": now_s() + 600}))
}

/// A broker that takes tokens, and alice's password.
struct House {
    broker: Broker,
    secret: PathBuf,
}

impl House {
    async fn start(name: &str) -> House {
        let secret = std::env::temp_dir().join(format!("tandem-tokens-{}-{name}", std::process::id()));
        fs::write(&secret, SECRET).unwrap();
        let hash = tandem_broker::users::hash_password("secret").unwrap();
        let configuration = format!(
            "[authentication]\nanonymous = \"never\"\n[tokens]\nalgorithms = [\"HS256\"]\nleeway_s = 0\n\
             keys = [{{ algorithm = \"HS256\", secret_file = {secret:?} }}]\n\
             [[users]]\nname = \"alice\"\npassword = {hash:?}\n"
        );
        House { broker: Broker::start_with(&configuration).await, secret }
    }

    fn address(&self) -> SocketAddr {
        self.broker.address()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.secret);
    }
}

fn with(headers: &[(&str, &str)]) -> WebSocketOptions {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    WebSocketOptions { headers: headers.collect(), ..WebSocketOptions::default() }
}

async fn open(
    address: SocketAddr,
    path: &str,
    token: &str,
    headers: &[(&str, &str)],
) -> Result<Transport, Error> {
    soon("an answer", connect_websocket(address, path, &[token], &with(headers))).await
}

async fn stomp(transport: Transport, passcode: Option<&str>) -> Result<Stomp, Error> {
    let options = ConnectOptions { passcode: passcode.map(Into::into), ..ConnectOptions::default() };
    soon("an answer", Stomp::connect(transport, Version::V12, &options)).await
}

fn error_of(result: Result<Stomp, Error>) -> String {
    match result {
        Err(Error::StompError(frame)) => frame.headers.get("message").unwrap().to_owned(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_of_the_handshake_lets_both_languages_in() {
    let house = House::start("handshake").await;
    let bearer = format!("Bearer {}", joes());
    let basic = format!("Basic {}", STANDARD.encode("alice:secret"));
    for (header, user) in [(&bearer, "joe"), (&basic, "alice")] {
        let headers = [("Authorization", header.as_str())];
        let client =
            stomp(open(house.address(), "/", "v12.stomp", &headers).await.unwrap(), None).await.unwrap();
        assert_eq!(client.connected().get("user-name"), Some(user));
        let transport = open(house.address(), "/", "wamp.2.json", &headers).await.unwrap();
        let client = soon("WELCOME", Wamp::join(transport, Json, "realm1", &Login::Anonymous)).await.unwrap();
        assert_eq!(client.welcome().str("authid"), Ok(Some(user)));
    }
    // In the languages themselves, over other wires too.
    let client = stomp(connect_tcp(house.address()).await.unwrap(), Some(&joes())).await.unwrap();
    assert_eq!(client.connected().get("user-name"), Some("joe"));
    let transport = open(house.address(), "/", "wamp.2.json", &[]).await.unwrap();
    let ticket = Login::Ticket { authid: "joe".into(), ticket: joes() };
    let client = soon("WELCOME", Wamp::join(transport, Json, "realm1", &ticket)).await.unwrap();
    assert_eq!(client.welcome().str("authprovider"), Ok(Some("token")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorization_that_cannot_be_read_is_refused_with_its_handshake_and_one_that_is_wrong_by_the_session()
 {
    let house = House::start("refused").await;
    let bearer = format!("Bearer {}", joes());
    let twice = [("Authorization", bearer.as_str()), ("Authorization", bearer.as_str())];
    for headers in [&[("Authorization", "Bearer")][..], &[("Authorization", "Basic !")], &twice] {
        match open(house.address(), "/", "v12.stomp", headers).await {
            Err(Error::Refused { status: 400, body, .. }) => {
                assert_eq!(body, "the header Authorization is malformed, or there twice\n");
            }
            other => panic!("{:?}", other.err()),
        }
    }
    for header in [format!("{bearer}x"), format!("Basic {}", STANDARD.encode("alice:Secret"))] {
        let transport = open(house.address(), "/", "v12.stomp", &[("Authorization", &header)]).await.unwrap();
        assert_eq!(error_of(stomp(transport, None).await), "Access refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_an_address_nor_a_cookie_says_who_somebody_is() {
    let house = House::start("ambient").await;
    let joe = joes();
    let (query, cookie) =
        (format!("/?access_token={joe}&token={joe}"), format!("Authorization={joe}; token={joe}"));
    let proxy = format!("Bearer {joe}");
    for (path, headers) in [
        (query.as_str(), &[][..]),
        ("/", &[("Cookie", cookie.as_str())]),
        ("/", &[("Proxy-Authorization", proxy.as_str())]),
        ("/", &[("Authorization", "Negotiate abc")]),
    ] {
        let transport = open(house.address(), path, "v12.stomp", headers).await.unwrap();
        assert_eq!(error_of(stomp(transport, None).await), "Access refused", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_a_long_poll_with_a_token_is_let_in_by_it() {
    let house = House::start("longpoll").await;
    let body = json!({"protocols": ["wamp.2.json"]}).to_string();
    let mut sending = Http::connect(house.address()).await;
    sending.ask("POST", "/lp/open", "Authorization: Bearer\r\n", body.as_bytes()).await;
    assert_eq!(sending.answer().await.unwrap().status, 400);
    let header = format!("Authorization: Bearer {}\r\n", joes());
    sending.ask("POST", "/lp/open", &header, body.as_bytes()).await;
    let opened: Value = serde_json::from_slice(&sending.answer().await.unwrap().body).unwrap();
    let path = format!("/lp/{}", opened["transport"].as_str().unwrap());
    let mut poller = Poller { receiving: Http::connect(house.address()).await, sending, path };
    // The requests after that need not say it again.
    assert_eq!(poller.say(json!([1, "realm1", {"roles": {"caller": {}}}])).await, 204);
    let welcome = poller.hear().await;
    assert_eq!((&welcome[0], &welcome[2]["authid"]), (&json!(2), &json!("joe")));
    // One that was opened by nobody does not become somebody's later.
    let mut nobody = Poller::open(house.address(), "wamp.2.json").await;
    let path = format!("{}/send", nobody.path);
    let hello = json!([1, "realm1", {"roles": {"caller": {}}}]).to_string();
    nobody.sending.ask("POST", &path, &header, hello.as_bytes()).await;
    nobody.sending.answer().await.unwrap();
    assert_eq!(nobody.hear().await[2], "wamp.error.authentication_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_over_websocket_ends_with_its_token_by_1008_unless_it_is_renewed() {
    let house = House::start("expiry").await;
    let short = token(SECRET, &json!({"sub": "joe", "exp": now_s() + 2}));
    let opened = open(house.address(), "/", "v12.stomp", &[]).await.unwrap();
    let mut renewed = stomp(opened, Some(&short)).await.unwrap();
    let opened = open(house.address(), "/", "v12.stomp", &[]).await.unwrap();
    let mut ending = stomp(opened, Some(&short)).await.unwrap();
    renewed.send_with_receipt("/session/auth", &[], joes()).await.unwrap();
    let ended = soon("the end", ending.receive_frame()).await;
    match ended {
        Err(Error::StompError(frame)) => assert_eq!(frame.headers.get("message"), Some("Token expired")),
        Ok(Frame { headers, .. }) => assert_eq!(headers.get("message"), Some("Token expired")),
        Err(error) => panic!("{error}"),
    }
    assert!(soon("the close", ending.receive_frame()).await.is_err());
    let closed = ending.link().transport().closed().cloned();
    assert!(matches!(&closed, Some(Closed::Frame { code: Some(1008), .. })), "{closed:?}");
    renewed.send_with_receipt("/topic/t", &[], "still here").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_read_again_count_for_those_who_come_then() {
    let house = House::start("keys").await;
    let (old, new) = (joes(), token(OTHER, &json!({"sub": "joe", "exp": now_s() + 600})));
    let come =
        async |token: &str| stomp(connect_tcp(house.address()).await.unwrap(), Some(token)).await.is_ok();
    assert!(come(&old).await && !come(&new).await);
    fs::write(&house.secret, "short").unwrap();
    house.broker.server().reload_token_keys();
    assert!(come(&old).await && !come(&new).await);
    fs::write(&house.secret, OTHER).unwrap();
    house.broker.server().reload_token_keys();
    assert!(!come(&old).await && come(&new).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_the_keys_again_and_no_secret_gets_into_the_log() {
    let secret = std::env::temp_dir().join(format!("tandem-tokens-{}-hangup", std::process::id()));
    fs::write(&secret, SECRET).unwrap();
    let file = ConfigFile::new(&format!(
        "[authentication]\nanonymous = \"never\"\n[tokens]\nalgorithms = [\"HS256\"]\n\
         keys = [{{ algorithm = \"HS256\", secret_file = {secret:?} }}]\n\
         [limits]\nlogin_failures_max = 1000\n"
    ));
    let daemon = Daemon::start(&["--log", "trace", "--config", file.path()]);
    let (old, new) = (joes(), token(OTHER, &json!({"sub": "joe", "exp": now_s() + 600})));
    let come =
        async |token: &str| stomp(connect_tcp(daemon.address()).await.unwrap(), Some(token)).await.is_ok();
    assert!(come(&old).await && !come(&new).await);
    let header = format!("Bearer {old}");
    let opened = open(daemon.address(), "/", "v12.stomp", &[("Authorization", &header)]).await.unwrap();
    let mut client = stomp(opened, None).await.unwrap();
    client.send_with_receipt("/session/auth", &[], old.clone()).await.unwrap();
    fs::write(&secret, OTHER).unwrap();
    daemon.signal("HUP");
    let mut tries = 0;
    while !come(&new).await {
        tries += 1;
        assert!(tries < 100, "the keys are not read again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!come(&old).await);
    let refused = client.send_with_receipt("/session/auth", &[], old.clone()).await;
    assert!(matches!(refused, Err(Error::StompError(_))), "an old key does not renew");
    drop(client);
    let (log, _) = daemon.terminate();
    let _ = fs::remove_file(&secret);
    for said in ["its signature is wrong", "login failed", "the keys of tokens were read again"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    for token in [&old, &new] {
        let (message, signature) = token.rsplit_once('.').unwrap();
        let claims = message.split_once('.').unwrap().1;
        assert!(!log.contains(signature) && !log.contains(claims), "{log}");
    }
    assert!(!log.contains(SECRET) && !log.contains(OTHER), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_of_the_request_that_opens_a_sockjs_session_lets_in() {
    let house = House::start("sockjs").await;
    let of = |name: &str| (format!("/sockjs/000/{name}/xhr"), format!("/sockjs/000/{name}/xhr_send"));
    let connect = json!(["CONNECT\naccept-version:1.2\nhost:/\n\n\0"]).to_string();
    let (receive, send) = of("joe");
    let bearer = format!("Authorization: Bearer {}\r\n", joes());
    let opened = soon("an answer", ask(house.address(), "POST", &receive, &bearer, b"")).await;
    assert_eq!((opened.status, opened.text()), (200, "o\n"));
    soon("an answer", ask(house.address(), "POST", &send, "", connect.as_bytes())).await;
    let heard = soon("an answer", ask(house.address(), "POST", &receive, "", b"")).await;
    assert!(heard.text().contains("CONNECTED") && heard.text().contains("user-name:joe"), "{heard:?}");
    // Who meant to be somebody does not get in as nobody.
    let (receive, _) = of("nobody");
    let refused = ask(house.address(), "POST", &receive, "Authorization: Bearer\r\n", b"");
    assert_eq!(soon("an answer", refused).await.status, 400);
}

//! TLS: the same port and languages inside it, who comes with a certificate, proofs that are bound to it,
//! certificates that change while it runs, and peers that do not finish their handshakes.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::net::SocketAddr;
use std::process::Command;

use bytes::Bytes;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use tandem_client::error::Error;
use tandem_client::raw::carrier::Carrier;
use tandem_client::raw::dial::{WebSocketOptions, open_rawsocket, open_tcp, open_websocket};
use tandem_client::raw::stomp::{self, ConnectOptions};
use tandem_client::raw::transport::Transport;
use tandem_client::raw::wamp::{self, Link, Login, MatchPolicy};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::stomp::state::AckMode;
use tandem_protocols::wamp::auth::cryptosign::{CryptosignClient, PrivateKey};
use tandem_protocols::wamp::auth::scram::{Dialect, Kdf, ScramClient, ScramCredential};
use tandem_protocols::wamp::auth::{BindingKind, ChannelBinding};
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::message::{Challenge, Hello, Message, Welcome};
use tandem_protocols::wamp::rawsocket::Limit;
use tandem_tests::attacker::{Bystanders, say};
use tandem_tests::broker::{Broker, eventually, soon};
use tandem_tests::certificates::{Authority, Issued, Peer, dns, email, exporter};
use tandem_tests::daemon::{ConfigFile, Daemon, executable};

type Tls = TlsStream<TcpStream>;

/// A broker with a certificate of this authority, and more configuration behind.
async fn start(authority: &Authority, clients: &str, more: &str) -> (Broker, SocketAddr) {
    authority.renew();
    let broker = Broker::start_with(&(authority.config(clients) + more)).await;
    let address = broker.server().tls_addresses()[0];
    (broker, address)
}

async fn websocket(stream: Tls, subprotocol: &str) -> Result<Transport<Tls>, Error> {
    open_websocket(stream, "localhost", "/", &[subprotocol], &WebSocketOptions::default()).await
}

async fn wamp(peer: Peer<'_>, address: SocketAddr) -> wamp::Client<Transport<Tls>> {
    let transport = websocket(peer.connect(address).await, "wamp.2.json").await.unwrap();
    wamp::Client::join(transport, Format::Json, "realm1", &Login::Anonymous).await.unwrap()
}

async fn stomp(peer: Peer<'_>, address: SocketAddr) -> Result<stomp::Client<Transport<Tls>>, Error> {
    let transport = open_tcp(peer.connect(address).await);
    stomp::Client::connect(transport, Version::V12, &ConnectOptions::default()).await
}

// ---- everything inside TLS ---------------------------------------------------------------------------------

#[tokio::test]
async fn websocket_rawsocket_and_stomp_meet_at_one_port_inside_tls_and_with_those_outside() {
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", "").await;
    for version in [&TLS12, &TLS13] {
        let peer = authority.peer().only(version);
        let mut json = wamp(peer, address).await;
        let rawsocket = open_rawsocket(peer.connect(address).await, Format::MsgPack, Limit::MAX);
        let mut msgpack =
            wamp::Client::join(rawsocket.await.unwrap(), Format::MsgPack, "realm1", &Login::Anonymous)
                .await
                .unwrap();
        let mut stream = stomp(peer, address).await.unwrap();
        let mut plain = tandem_tests::peers::stomp(broker.address()).await;
        json.subscribe("a", MatchPolicy::Exact).await.unwrap();
        msgpack.subscribe("a", MatchPolicy::Exact).await.unwrap();
        stream.subscribe("/topic/a", "0", AckMode::Auto, &[]).await.unwrap();
        // Larger than any buffer on the way, so that it comes in pieces.
        let text = "x".repeat(600_000);
        plain.send("/topic/a", &[("content-type", "text/plain")], text.clone()).await.unwrap();
        plain.flush().await.unwrap();
        for client in [&mut json, &mut msgpack] {
            // Over either transport the whole of it arrives.
            let event = soon("the event", client.next_event()).await.unwrap();
            let (heard,): (String,) = tandem_client::arguments::decode_args(&event.payload).unwrap();
            assert_eq!(heard, text);
        }
        let heard = soon("the message", stream.next_message()).await.unwrap();
        assert_eq!(heard.body, text);
        // And the other way.
        stream.send("/topic/a", &[("content-type", "text/plain")], text.clone()).await.unwrap();
        stream.flush().await.unwrap();
        let event = soon("the event", json.next_event()).await.unwrap();
        let (heard,): (String,) = tandem_client::arguments::decode_args(&event.payload).unwrap();
        assert_eq!(heard.len(), text.len());
        json.leave().await.unwrap();
        msgpack.leave().await.unwrap();
        stream.disconnect().await.unwrap();
    }
    assert!(broker.shutdown().await, "nobody is cut off");
}

#[tokio::test]
async fn who_does_not_read_inside_tls_is_let_go_and_holds_up_nobody() {
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", "").await;
    let mut lazy = wamp(authority.peer(), address).await;
    lazy.subscribe("a", MatchPolicy::Exact).await.unwrap();
    let mut eager = stomp(authority.peer(), address).await.unwrap();
    eager.subscribe("/topic/a", "0", AckMode::Auto, &[]).await.unwrap();
    let mut publisher = stomp(authority.peer(), address).await.unwrap();
    let text = "x".repeat(500_000);
    let mut published = 0;
    let flood = async {
        // More than its mailbox, rustls and the kernel hold.
        while broker.sessions() == 3 {
            publisher.send("/topic/a", &[("content-type", "text/plain")], text.clone()).await.unwrap();
            publisher.flush().await.unwrap();
            published += 1;
            let heard = soon("the message", eager.next_message()).await.unwrap();
            assert_eq!(heard.body.len(), text.len());
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), flood).await.expect("the lazy one is let go");
    assert!(published * text.len() > 4 << 20, "not before its mailbox was full: {published}");
}

#[tokio::test]
async fn a_shutdown_says_goodbye_inside_tls() {
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", "").await;
    let client = wamp(authority.peer(), address).await;
    let mut link = client.into_link();
    let end = async {
        let goodbye = link.receive().await.unwrap();
        assert!(matches!(goodbye, Message::Goodbye(_)), "{goodbye:?}");
        let reply = tandem_protocols::wamp::message::Goodbye {
            details: Dict::new(),
            reason: "wamp.close.goodbye_and_out".to_owned(),
        };
        link.send(reply).await.unwrap();
        link.transport().close().await.unwrap();
    };
    let (drained, ()) = tokio::join!(broker.shutdown(), soon("the goodbye", end));
    assert!(drained);
}

#[tokio::test]
async fn who_asks_by_alpn_is_told_http_and_who_asks_for_something_else_only_is_refused() {
    let authority = Authority::new();
    let (_broker, address) = start(&authority, "off", "").await;
    for (asked, told) in [
        (&[][..], None),
        (&[b"http/1.1".as_slice()], Some("http/1.1")),
        (&[b"h2", b"http/1.1"], Some("http/1.1")),
    ] {
        let stream = authority.peer().asking_for(asked).connect(address).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), told.map(str::as_bytes));
    }
    assert!(authority.peer().asking_for(&[b"h2"]).try_connect(address).await.is_err());
    let mut page = authority.peer().asking_for(&[b"http/1.1"]).connect(address).await;
    page.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the page", page.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
}

// ---- certificates of clients -------------------------------------------------------------------------------

const USERS: &str = "[authentication]\nanonymous = \"never\"\n\
    [[users]]\nname = \"alice\"\nrole = \"admin\"\ncertificates = [\"dns:alice.example\"]\n\
    [[users]]\nname = \"bob\"\ncertificates = [\"email:bob@example.com\"]\n";

/// Who a peer is after a HELLO that asks for `tls`, or why it is nobody.
async fn hello_tls(peer: Peer<'_>, address: SocketAddr, authid: Option<&str>) -> Result<[String; 3], String> {
    let transport = websocket(peer.connect(address).await, "wamp.2.cbor").await.unwrap();
    let mut details = Dict::new().with("authmethods", Value::List(vec!["tls".into()]));
    if let Some(authid) = authid {
        details.insert("authid", authid);
    }
    let link = Link::new(transport, Format::Cbor);
    match wamp::Client::join_with(link, "realm1", &Login::Anonymous, details).await {
        Ok(client) => {
            let told = ["authid", "authrole", "authmethod"];
            Ok(told.map(|key| client.welcome().str(key).unwrap().unwrap().to_owned()))
        }
        Err(Error::Abort(abort)) => Err(abort.reason),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn who_shows_a_certificate_of_a_user_is_that_user_and_nobody_else_is() {
    let authority = Authority::new();
    let known = authority.client("whoever", &[]);
    let fingerprint: String = {
        use std::fmt::Write;
        let digest = openssl_fingerprint(&known);
        digest.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02X}").unwrap();
            text
        })
    };
    let carol = format!("[[users]]\nname = \"carol\"\ncertificates = [\"sha256:{fingerprint}\"]\n");
    let (_broker, address) = start(&authority, "optional", &(USERS.to_owned() + &carol)).await;
    let alice = authority.client("x", &[dns("alice.example")]);
    let bob = authority.client("x", &[dns("bob.example"), email("bob@example.com")]);
    for version in [&TLS12, &TLS13] {
        let peer = authority.peer().only(version);
        let who = |issued| hello_tls(peer.showing(issued), address, None);
        assert_eq!(who(&alice).await.unwrap(), ["alice", "admin", "tls"]);
        assert_eq!(who(&bob).await.unwrap(), ["bob", "user", "tls"]);
        assert_eq!(who(&known).await.unwrap(), ["carol", "user", "tls"]);
        let stomp = stomp(peer.showing(&bob), address).await.unwrap();
        assert_eq!(stomp.connected().get("user-name"), Some("bob"));
    }
    let required = Err("wamp.error.authentication_required".to_owned());
    // A name that is said must be the right one.
    let as_bob = hello_tls(authority.peer().showing(&alice), address, Some("bob")).await;
    assert_eq!(as_bob, required);
    let as_alice = hello_tls(authority.peer().showing(&alice), address, Some("alice")).await;
    assert_eq!(as_alice.unwrap()[0], "alice");
    // A common name is no name, nor is a part of one; nor is a name of the other kind.
    for nobody in [
        authority.client("alice", &[]),
        authority.client("alice.example", &[dns("www.alice.example"), dns("example")]),
        authority.client("x", &[dns("*.example"), email("alice@alice.example"), dns("bob@example.com")]),
        authority.client("x", &[dns("alice.example"), email("bob@example.com")]),
    ] {
        assert_eq!(hello_tls(authority.peer().showing(&nobody), address, None).await, required);
        let refused = stomp(authority.peer().showing(&nobody), address).await;
        assert!(matches!(refused, Err(Error::StompError(_))));
    }
    assert_eq!(hello_tls(authority.peer(), address, None).await, required, "without any");
}

/// SHA-256, by other means than the broker's.
fn openssl_fingerprint(issued: &Issued) -> Vec<u8> {
    use rustls::crypto::hash::HashAlgorithm;
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite.tls13().unwrap().common.hash_provider;
    assert_eq!(hash.algorithm(), HashAlgorithm::SHA256);
    hash.hash(issued.der()).as_ref().to_vec()
}

/// Whether the broker lets this peer finish its handshake and say something.
async fn is_taken(peer: Peer<'_>, address: SocketAddr) -> bool {
    let Ok(mut stream) = peer.try_connect(address).await else { return false };
    let _ = stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = soon("an answer or the end", stream.read_to_end(&mut answer)).await;
    answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn a_certificate_of_somebody_else_ends_the_handshake_and_so_does_none_where_one_is_required() {
    let (authority, other) = (Authority::new(), Authority::new());
    let forged = other.client("x", &[dns("alice.example")]);
    let good = authority.client("x", &[dns("alice.example")]);
    for (clients, without) in [("optional", true), ("required", false)] {
        let (_broker, address) = start(&authority, clients, USERS).await;
        for version in [&TLS12, &TLS13] {
            let peer = authority.peer().only(version);
            assert!(!is_taken(peer.showing(&forged), address).await, "{clients}");
            // The broker's own certificate is of the authority, but not for clients.
            let server = authority.renew();
            assert!(!is_taken(peer.showing(&server), address).await, "{clients}");
            assert_eq!(is_taken(peer, address).await, without, "{clients}");
            assert!(is_taken(peer.showing(&good), address).await, "{clients}");
        }
    }
}

// ---- proofs that are bound to the connection ---------------------------------------------------------------

/// HELLO, and the CHALLENGE or what else comes.
async fn ask(link: &mut Link<impl Carrier>, method: &str, authid: &str, authextra: Dict) -> Message {
    let details = Dict::new()
        .with("roles", Dict::new().with("caller", Dict::new()))
        .with("authmethods", Value::List(vec![method.into()]))
        .with("authid", authid)
        .with("authextra", authextra);
    link.send(Hello { realm: "realm1".to_owned(), details }).await.unwrap();
    soon("an answer to HELLO", link.receive()).await.unwrap()
}

fn challenge(message: Message) -> Challenge {
    match message {
        Message::Challenge(challenge) => challenge,
        other => panic!("no challenge but {other:?}"),
    }
}

fn outcome(message: Message) -> Result<Welcome, String> {
    match message {
        Message::Welcome(welcome) => Ok(welcome),
        Message::Abort(abort) => Err(abort.reason),
        other => panic!("neither WELCOME nor ABORT but {other:?}"),
    }
}

async fn link(peer: Peer<'_>, address: SocketAddr) -> (Link<Transport<Tls>>, Option<[u8; 32]>) {
    let stream = peer.connect(address).await;
    let exporter = exporter(&stream);
    (Link::new(websocket(stream, "wamp.2.json").await.unwrap(), Format::Json), exporter)
}

fn bound(data: &[u8; 32]) -> ChannelBinding<'_> {
    ChannelBinding { kind: BindingKind::TlsExporter, data }
}

const DENIED: &str = "wamp.error.authentication_denied";

#[tokio::test]
async fn cryptosign_is_bound_to_the_connection_that_it_is_signed_for() {
    let key = PrivateKey::from_seed(&[5; 32]);
    let user = format!("[[users]]\nname = \"joe\"\ncryptosign = [\"{}\"]\n", key.public_key());
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", &user).await;

    let (mut own, exporter) = link(authority.peer(), address).await;
    let exporter = exporter.unwrap();
    let client = CryptosignClient::new(&key).with_binding(bound(&exporter));
    let told = challenge(ask(&mut own, "cryptosign", "joe", client.authextra()).await);
    assert_eq!(told.extra.str("channel_binding"), Ok(Some("tls-exporter")));
    own.send(client.respond(&told).unwrap()).await.unwrap();
    let welcome = outcome(own.receive().await.unwrap()).unwrap();
    assert_eq!(welcome.details.str("authmethod"), Ok(Some("cryptosign")));

    // Somebody between, who has a connection of its own to either side: the proof is that of another one.
    let (mut other, _) = link(authority.peer(), address).await;
    let told = challenge(ask(&mut other, "cryptosign", "joe", client.authextra()).await);
    other.send(client.respond(&told).unwrap()).await.unwrap();
    assert_eq!(outcome(other.receive().await.unwrap()).err().as_deref(), Some(DENIED));

    // A proof that is not bound is not one of what was asked for.
    let (mut other, _) = link(authority.peer(), address).await;
    let mut told = challenge(ask(&mut other, "cryptosign", "joe", client.authextra()).await);
    told.extra.remove("channel_binding");
    other.send(CryptosignClient::new(&key).respond(&told).unwrap()).await.unwrap();
    assert_eq!(outcome(other.receive().await.unwrap()).err().as_deref(), Some(DENIED));

    // Who does not ask is not bound.
    let (mut free, _) = link(authority.peer(), address).await;
    let client = CryptosignClient::new(&key);
    let told = challenge(ask(&mut free, "cryptosign", "joe", client.authextra()).await);
    assert_eq!(told.extra.str("channel_binding"), Ok(None));
    free.send(client.respond(&told).unwrap()).await.unwrap();
    assert!(outcome(free.receive().await.unwrap()).is_ok());
    drop(broker);
}

#[tokio::test]
async fn a_binding_that_there_is_not_is_left_out_by_cryptosign_and_ends_scram() {
    let key = PrivateKey::from_seed(&[5; 32]);
    let kdf = Kdf::pbkdf2(4096).unwrap();
    let scram = [Dialect::WampScram, Dialect::Scram]
        .map(|dialect| match dialect {
            Dialect::WampScram => ScramCredential::derive(dialect, kdf, "secret", &[7; 16]).unwrap(),
            Dialect::Scram => {
                let kdf = Kdf::argon2id(1, 64).unwrap();
                ScramCredential::derive(dialect, kdf, "secret", &[7; 16]).unwrap()
            }
        })
        .map(|credential| format!("{:?}", credential.to_string()));
    let user = format!(
        "[[users]]\nname = \"joe\"\ncryptosign = [\"{}\"]\nscram = [{}]\n",
        key.public_key(),
        scram.join(",")
    );
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", &user).await;
    let signed = |name: &str| CryptosignClient::new(&key).authextra().with("channel_binding", name);
    let nonce =
        |name: &str| ScramClient::new("joe", &[9; 16]).unwrap().authextra().with("channel_binding", name);
    let old = authority.peer().only(&TLS12);
    for (peer, name) in [(authority.peer(), "tls-unique"), (old, "tls-exporter"), (old, "tls-unique")] {
        let (mut link_, _) = link(peer, address).await;
        let told = challenge(ask(&mut link_, "cryptosign", "joe", signed(name)).await);
        assert_eq!(told.extra.str("channel_binding"), Ok(None), "{name}");
        link_.send(CryptosignClient::new(&key).respond(&told).unwrap()).await.unwrap();
        assert!(outcome(link_.receive().await.unwrap()).is_ok());
        for method in ["wamp-scram", "scram"] {
            let (mut link, _) = link(peer, address).await;
            let answer = outcome(ask(&mut link, method, "joe", nonce(name)).await);
            assert_eq!(answer.err().as_deref(), Some("wamp.error.authentication_failed"), "{method} {name}");
        }
    }
    // In the clear there is nothing to bind to.
    let transport = tandem_tests::peers::websocket(broker.address(), "wamp.2.json").await;
    let mut plain = Link::new(transport, Format::Json);
    let told = challenge(ask(&mut plain, "cryptosign", "joe", signed("tls-exporter")).await);
    assert_eq!(told.extra.str("channel_binding"), Ok(None));
    let transport = tandem_tests::peers::websocket(broker.address(), "wamp.2.json").await;
    let mut plain = Link::new(transport, Format::Json);
    let answer = outcome(ask(&mut plain, "wamp-scram", "joe", nonce("tls-exporter")).await);
    assert_eq!(answer.err().as_deref(), Some("wamp.error.authentication_failed"));
    // autobahn's dialect has no place for a binding.
    let (mut other, _) = link(authority.peer(), address).await;
    let answer = outcome(ask(&mut other, "scram", "joe", nonce("tls-exporter")).await);
    assert_eq!(answer.err().as_deref(), Some("wamp.error.authentication_failed"));
}

#[tokio::test]
async fn scram_is_bound_to_the_connection_that_it_is_made_for() {
    let kdf = Kdf::pbkdf2(4096).unwrap();
    let credential = ScramCredential::derive(Dialect::WampScram, kdf, "secret", &[7; 16]).unwrap();
    let user = format!("[[users]]\nname = \"joe\"\nscram = [{:?}]\n", credential.to_string());
    let authority = Authority::new();
    let (_broker, address) = start(&authority, "off", &user).await;
    for (foreign, right) in [(false, true), (true, false)] {
        let (mut link, exporter) = link(authority.peer(), address).await;
        let data = if foreign { [1; 32] } else { exporter.unwrap() };
        let client = ScramClient::new("joe", &[9; 16]).unwrap().with_binding(bound(&data));
        let told = challenge(ask(&mut link, "wamp-scram", "joe", client.authextra()).await);
        let (answer, expectation) = client.respond(&told, "secret").unwrap();
        link.send(answer).await.unwrap();
        let outcome = outcome(link.receive().await.unwrap());
        if right {
            let welcome = outcome.unwrap();
            expectation.verify(welcome.details.dict("authextra").unwrap()).unwrap();
        } else {
            assert_eq!(outcome.err().as_deref(), Some(DENIED));
        }
    }
}

// ---- certificates that change ------------------------------------------------------------------------------

fn shown(stream: &Tls) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn new_certificates_are_for_new_connections_and_broken_ones_for_nobody() {
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", "").await;
    let mut live = wamp(authority.peer(), address).await;
    live.subscribe("a", MatchPolicy::Exact).await.unwrap();
    let before = shown(&authority.peer().connect(address).await);

    let renewed = authority.renew();
    assert_eq!(shown(&authority.peer().connect(address).await), before, "nobody has said so yet");
    broker.server().reload_certificates();
    assert_eq!(shown(&authority.peer().connect(address).await), renewed.der());

    // Neither a key of another certificate nor what is no certificate is taken.
    let key = std::fs::read_to_string(authority.path("server.key")).unwrap();
    authority.renew();
    authority.write("server.key", &key);
    broker.server().reload_certificates();
    authority.write("server.pem", "nothing\n");
    broker.server().reload_certificates();
    std::fs::remove_file(authority.path("server.key")).unwrap();
    broker.server().reload_certificates();
    assert_eq!(shown(&authority.peer().connect(address).await), renewed.der());

    // Who was there from the beginning has noticed nothing.
    let mut other = wamp(authority.peer(), address).await;
    let args = other.args(&("still here",)).unwrap();
    other.publish_acknowledged("a", Dict::new(), args).await.unwrap();
    soon("the event", live.next_event()).await.unwrap();
}

/// R16: no handshake fails while certificates are read again and again, and nobody who is there notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_read_again_break_no_handshake() {
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", "").await;
    let mut live = wamp(authority.peer(), address).await;
    live.subscribe("a", MatchPolicy::Exact).await.unwrap();
    let config = std::sync::Arc::new(authority.peer().config());
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut shaking = tokio::task::JoinSet::new();
    for _ in 0..4 {
        // They resume each other's sessions, by tickets of whichever certificate was there before.
        let (config, done) = (config.clone(), done.clone());
        shaking.spawn(async move {
            let connector = tokio_rustls::TlsConnector::from(config);
            let mut count = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || count < 25 {
                let tcp = TcpStream::connect(address).await.unwrap();
                let name = rustls::pki_types::ServerName::from(address.ip());
                let mut stream = connector.connect(name, tcp).await.expect("no handshake fails");
                stream.write_all(b"CONNECT\naccept-version:1.2\n\n\0").await.unwrap();
                let mut answer = [0; 9];
                stream.read_exact(&mut answer).await.expect("nor what is said after it");
                assert_eq!(&answer, b"CONNECTED");
                count += 1;
            }
            count
        });
    }
    for _ in 0..30 {
        authority.renew();
        broker.server().reload_certificates();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let handshakes: usize = shaking.join_all().await.into_iter().sum();
    assert!(handshakes >= 100, "{handshakes}");
    let args = live.args(&("still here",)).unwrap();
    live.publish_acknowledged("b", Dict::new(), args).await.unwrap();
}

#[tokio::test]
async fn a_hangup_of_the_daemon_reads_its_certificates_again() {
    let authority = Authority::new();
    let first = authority.renew();
    let mut daemon = Daemon::start_with(&authority.config("off"));
    let address = daemon.tls_address();
    let mut live = wamp(authority.peer(), address).await;
    assert_eq!(shown(&authority.peer().connect(address).await), first.der());
    let second = authority.renew();
    daemon.signal("HUP");
    let renewed = async {
        while shown(&authority.peer().connect(address).await) != second.der() {
            tokio::task::yield_now().await;
        }
    };
    soon("the new certificate", renewed).await;
    live.subscribe("a", MatchPolicy::Exact).await.unwrap();
}

#[test]
fn files_that_are_of_no_use_are_named_before_anything_starts() {
    let authority = Authority::new();
    let check = |said: &[&str]| {
        let file = ConfigFile::new(&authority.config("optional"));
        for arguments in [&["check-config", file.path()][..], &["serve", "--config", file.path()]] {
            let output = Command::new(executable()).args(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(said.iter().all(|said| text.contains(said)), "{text}");
        }
    };
    check(&["cannot read", "server.pem", "No such file"]);
    authority.renew();
    let key = std::fs::read_to_string(authority.path("server.key")).unwrap();
    authority.write("server.key", "");
    check(&["server.key holds no private key", "BEGIN PRIVATE KEY"]);
    authority.renew();
    authority.write("server.key", &key);
    check(&["server.key does not go with the certificate in", "server.pem"]);
    authority.renew();
    authority.write("server.pem", &key);
    check(&["server.pem holds no certificate", "BEGIN CERTIFICATE"]);
    authority.renew();
    authority.write("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    check(&["ca.pem holds no certificate of an authority"]);
}

// ---- handshakes that fail ----------------------------------------------------------------------------------

#[tokio::test]
async fn who_does_not_finish_the_handshake_in_time_is_cut_off_and_nobody_waits_for_it() {
    let authority = Authority::new();
    let more = "[limits]\nstranger_time_s = 1\ntls_handshakes_max = 1\n";
    let (broker, address) = start(&authority, "off", more).await;
    // Nothing; the beginning of a record; a whole ClientHello, and nothing after it.
    let connection = rustls::ClientConnection::new(authority.peer().config().into(), address.ip().into());
    let mut hello = Vec::new();
    connection.unwrap().write_tls(&mut hello).unwrap();
    let mut slow = Vec::new();
    for said in [&[][..], &[0x16], &hello[..20], &hello] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        slow.push(stream);
    }
    // What the broker answered to the last one shows that it is in the middle.
    slow[3].readable().await.unwrap();
    let mut others = Bystanders::enter(broker.address()).await;
    drop(wamp(authority.peer(), address).await);
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    }
    others.talk().await;
}

#[tokio::test]
async fn garbage_ends_a_connection_and_disturbs_nobody() {
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", "").await;
    let mut others = Bystanders::enter(broker.address()).await;
    let inside = wamp(authority.peer(), address).await;
    for garbage in [
        // A record that says nothing, one that is too long, one that is no ClientHello, an alert.
        vec![0x16, 3, 1, 0, 0],
        [&[0x16, 3, 1, 0xFF, 0xFF][..], &[7; 0x1_0000]].concat(),
        [&[0x16, 3, 1, 0, 4][..], &[2, 0, 0, 0]].concat(),
        vec![0x15, 3, 1, 0, 2, 2, 40],
        vec![0x80; 100],
        b"CONNECT\naccept-version:1.2\n\n\0".to_vec(),
        vec![0x7F, 0xF1, 0, 0],
    ] {
        let answer = say(address, &garbage).await;
        assert!(!answer.contains("HTTP") && !answer.contains("CONNECTED"), "{garbage:?}: {answer}");
    }
    others.talk().await;
    eventually("only those who are let in are left", || broker.sessions() == 3).await;
    inside.leave().await.unwrap();
}

#[tokio::test]
async fn who_speaks_http_without_tls_is_told_what_to_do() {
    let authority = Authority::new();
    let (_broker, address) = start(&authority, "off", "").await;
    let answer = say(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.ends_with("connect with https:// or wss://\n"),
        "{answer}"
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
}

#[tokio::test]
async fn a_record_that_was_changed_on_its_way_ends_the_connection() {
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", "").await;
    let client = wamp(authority.peer(), address).await;
    assert_eq!(broker.sessions(), 1);
    let stream = client.into_link().into_transport().into_inner();
    let (mut tcp, _) = stream.into_inner();
    tcp.write_all(&Bytes::from_static(&[0x17, 3, 3, 0, 32])).await.unwrap();
    tcp.write_all(&[9; 32]).await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the end", tcp.read_to_end(&mut rest)).await;
    eventually("its session is gone", || broker.sessions() == 0).await;
}

#[tokio::test]
async fn who_does_nothing_but_change_keys_is_cut_off() {
    let authority = Authority::new();
    let (broker, address) = start(&authority, "off", "").await;
    let client = wamp(authority.peer().only(&TLS13), address).await;
    let mut stream = client.into_link().into_transport().into_inner();
    let flood = async {
        loop {
            stream.get_mut().1.refresh_traffic_keys().unwrap();
            if stream.flush().await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the end", flood).await;
    eventually("its session is gone", || broker.sessions() == 0).await;
}

// ---- behind a proxy ----------------------------------------------------------------------------------------

#[tokio::test]
async fn tls_may_begin_after_the_proxy_protocol_and_goes_through_the_proxy() {
    let authority = Authority::new();
    let more = "[proxies]\nprotocol = [\"127.0.0.1:0\"]\ntrusted = [\"127.0.0.1\"]\n\
                [authentication]\nanonymous = \"everywhere\"\n";
    authority.renew();
    let mut config = tandem_broker::config::Config::parse(&(authority.config("off") + more)).unwrap();
    config.listen_unix.clear();
    let server = tandem_broker::server::Server::start(&config).unwrap();
    let address = server.tls_addresses()[0];
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 443\r\n").await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(authority.peer().config()));
    let name = rustls::pki_types::ServerName::from(address.ip());
    let stream = connector.connect(name, tcp).await.unwrap();
    let transport = websocket(stream, "wamp.2.json").await.unwrap();
    let mut client = wamp::Client::join(transport, Format::Json, "realm1", &Login::Anonymous).await.unwrap();
    client.subscribe("a", MatchPolicy::Exact).await.unwrap();
    // Without the header there is no handshake.
    let refused = soon("the end", authority.peer().try_connect(address)).await;
    assert!(refused.is_err());
    server.shutdown().await;
}

#[tokio::test]
async fn who_comes_by_tls_through_a_proxy_of_this_machine_is_not_of_this_machine() {
    let authority = Authority::new();
    let more = "[proxies]\nprotocol = [\"127.0.0.1:0\"]\ntrusted = [\"127.0.0.1\"]\n";
    authority.renew();
    let mut config = tandem_broker::config::Config::parse(&(authority.config("off") + more)).unwrap();
    config.listen_unix.clear();
    let server = tandem_broker::server::Server::start(&config).unwrap();
    let address = server.tls_addresses()[0];
    // A proxy says the first of a client that it does not know, the second of its own.
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY TCP4 127.0.0.1 127.0.0.1 1234 443\r\n"] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(header).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(authority.peer().config()));
        let name = rustls::pki_types::ServerName::from(address.ip());
        let mut stream = connector.connect(name, tcp).await.unwrap();
        let ask = b"GET /metrics HTTP/1.1\r\nHost: broker.example\r\nConnection: close\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon("the answer", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 ") && !answer.contains("tandem_"),
            "metrics are for this machine: {answer}"
        );
        assert!(!answer.starts_with("HTTP/1.1 421"), "the certificate says which name is right: {answer}");
    }
    server.shutdown().await;
}

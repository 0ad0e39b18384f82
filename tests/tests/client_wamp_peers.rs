//! The WAMP client against routers of others, which `conformance/client_wamp.py` starts and names:
//!
//! ```text
//! TANDEM_WAMP_PEERS='ws://127.0.0.1:8080/ tcp://127.0.0.1:8081' TANDEM_WAMP_LOGINS=ws://127.0.0.1:8082/ \
//!     cargo test -p tandem-tests --test client_wamp_peers -- --ignored
//! ```

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod wamp_suite;

use tandem_client::Connector;
use tandem_client::wamp::{Auth, Client, Cryptosign, Dialect, Format, PrivateKey, Scram, Ticket, Wampcra};
use tandem_tests::broker::soon;

use wamp_suite::{Way, suite};

/// That of `conformance/client_wamp.py`.
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs routers of others"]
async fn the_suite_over_every_way_in_every_serializer() {
    let peers = std::env::var("TANDEM_WAMP_PEERS").expect("TANDEM_WAMP_PEERS names routers");
    for url in peers.split_whitespace() {
        for format in [Format::Cbor, Format::MsgPack, Format::Json] {
            eprintln!("{url} in {format}");
            suite(&Way { connector: Connector::new(url.parse().unwrap()), format }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs routers of others"]
async fn every_method_lets_in_and_a_wrong_secret_does_not() {
    let url = std::env::var("TANDEM_WAMP_LOGINS").expect("TANDEM_WAMP_LOGINS names a router");
    let key: PrivateKey = KEY.parse().unwrap();
    let wrong: PrivateKey = KEY.replace('0', "1").parse().unwrap();
    let scram = |password| Auth::from(Scram::new("joe", password).only(Dialect::Scram));
    let ways: [(&str, Auth, Auth); 4] = [
        ("ticket", Ticket::new("joe", "secret").into(), Ticket::new("joe", "wrong").into()),
        ("wampcra", Wampcra::new("joe", "secret").into(), Wampcra::new("joe", "wrong").into()),
        ("scram", scram("secret"), scram("wrong")),
        (
            "cryptosign",
            Cryptosign::from_key(key).authid("joe").into(),
            Cryptosign::from_key(wrong).authid("joe").into(),
        ),
    ];
    for (method, right, wrong) in ways {
        eprintln!("{method}");
        let client = soon("a session", Client::builder(url.as_str()).auth(right).connect()).await.unwrap();
        let session = client.session().unwrap();
        assert_eq!((session.authid(), session.authmethod()), (Some("joe"), Some(method)));
        client.close().await;
        let refused = soon("a refusal", Client::builder(url.as_str()).auth(wrong).connect()).await;
        assert!(!refused.unwrap_err().is_transient(), "{method}");
    }
}

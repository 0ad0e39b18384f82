//! Proofs that do not send a secret.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use tandem_broker::core::access::{Applicant, Grant, Peer, Principal, Record, Refusal};
use tandem_broker::core::protocol::{Output, Reason};
use tandem_broker::core::secure::{Certificate, Secure};
use tandem_broker::wamp::{WampCredentials, WampUser};
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::auth::cra::{self, CraCredential};
use tandem_protocols::wamp::auth::cryptosign::{CryptosignClient, PrivateKey};
use tandem_protocols::wamp::auth::scram::{Dialect, Kdf, ScramClient, ScramCredential};
use tandem_protocols::wamp::codec::{decode, encode};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::{Authenticate, Challenge, Message, Welcome};

use crate::wamp_harness::{Client, FORMATS, House, hello};

const DENIED: &str = "wamp.error.authentication_denied";

/// peter can do everything, mary has a key only.
struct Secrets {
    cra: String,
    scram: Vec<String>,
    peters: PrivateKey,
    marys: PrivateKey,
    keys: [Vec<String>; 2],
}

impl Secrets {
    fn new() -> Secrets {
        let kdf = Kdf::pbkdf2(4096).unwrap();
        let scram = ScramCredential::derive(Dialect::WampScram, kdf, "secret", &[7; 16]).unwrap();
        let [peters, marys] = [[1; 32], [2; 32]].map(|seed| PrivateKey::from_seed(&seed));
        Secrets {
            cra: CraCredential::derive_with("secret", &[7; 16], 100, 32).unwrap().to_string(),
            scram: vec![scram.to_string()],
            keys: [&peters, &marys].map(|key| vec![key.public_key().to_string()]),
            peters,
            marys,
        }
    }

    fn peter(&self) -> WampUser<'_> {
        WampUser {
            name: "peter",
            role: "user",
            wampcra: Some(&self.cra),
            scram: &self.scram,
            cryptosign: &self.keys[0],
        }
    }

    fn mary(&self) -> WampUser<'_> {
        WampUser { name: "mary", role: "admin", wampcra: None, scram: &[], cryptosign: &self.keys[1] }
    }

    fn house(&self) -> House {
        House::with_users(&[self.peter(), self.mary()])
    }
}

fn ask_for(methods: Value, authid: Option<&str>, authextra: Value) -> Value {
    let roles = json!({"caller": {}});
    hello(json!({"roles": roles, "authmethods": methods, "authid": authid, "authextra": authextra}))
}

fn heard(client: &mut Client) -> Message {
    let frame = client.hear_frame().expect("the router says something");
    let message = frame.message();
    decode(client.format, &Bytes::from([&message.head[..], &message.body[..]].concat())).unwrap()
}

fn challenged(client: &mut Client, hello: Value) -> Challenge {
    client.say(hello);
    match heard(client) {
        Message::Challenge(challenge) => challenge,
        other => panic!("no challenge but {other:?}"),
    }
}

fn answer(client: &mut Client, authenticate: Authenticate) {
    let bytes = encode(client.format, &authenticate.into()).unwrap();
    client.say_bytes(bytes);
}

fn welcomed(client: &mut Client) -> Welcome {
    match heard(client) {
        Message::Welcome(welcome) => welcome,
        other => panic!("no welcome but {other:?}"),
    }
}

fn is(welcome: &Welcome, authid: &str, authrole: &str, authmethod: &str) {
    let told = ["authid", "authrole", "authmethod", "authprovider"];
    let told = told.map(|key| welcome.details.str(key).unwrap().unwrap());
    assert_eq!(told, [authid, authrole, authmethod, "static"]);
}

/// What a dictionary of texts is in JSON.
fn texts(dict: &Dict, keys: &[&str]) -> Value {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), json!(dict.str(key).unwrap()?)))).collect()
}

#[test]
fn wampcra_lets_in_who_knows_the_password() {
    for format in FORMATS {
        let secrets = Secrets::new();
        let house = secrets.house();
        let hello = |authid| ask_for(json!(["wampcra"]), Some(authid), Value::Null);
        let mut client = house.connect(format);
        let challenge = challenged(&mut client, hello("peter"));
        let text = challenge.extra.str("challenge").unwrap().unwrap().to_owned();
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["timestamp"], json!("2014-06-22T16:36:25.448Z"));
        assert_eq!((&told["authid"], &told["authrole"]), (&json!("peter"), &json!("user")));
        assert_eq!(house.realm.sessions(), 0);
        answer(&mut client, cra::respond(&challenge, "secret").unwrap());
        let welcome = welcomed(&mut client);
        is(&welcome, "peter", "user", "wampcra");
        assert_eq!(told["session"], json!(welcome.session.get()), "the session is the one that was signed");

        // What answers one challenge answers no other; nor does another password.
        let old = cra::respond(&challenge, "secret").unwrap();
        for wrong in [Some(old), None] {
            let mut client = house.connect(format);
            let challenge = challenged(&mut client, hello("peter"));
            answer(&mut client, wrong.unwrap_or_else(|| cra::respond(&challenge, "Secret").unwrap()));
            client.is_aborted_with(DENIED, Reason::Refused);
        }
    }
}

#[test]
fn scram_lets_in_who_knows_the_password_and_proves_the_router() {
    for (dialect, format) in [(Dialect::WampScram, Format::Json), (Dialect::Scram, Format::Cbor)] {
        let secrets = Secrets::new();
        let house = secrets.house();
        for (password, right) in [("secret", true), ("Secret", false)] {
            let scram = ScramClient::new("peter", &[9; 16]).unwrap();
            let authextra = texts(&scram.authextra(), &["nonce"]);
            let mut client = house.connect(format);
            let hello = ask_for(json!([dialect.method()]), Some("peter"), authextra);
            let challenge = challenged(&mut client, hello);
            let (authenticate, expectation) = scram.respond(&challenge, password).unwrap();
            answer(&mut client, authenticate);
            if right {
                let welcome = welcomed(&mut client);
                is(&welcome, "peter", "user", dialect.method());
                expectation.verify(welcome.details.dict("authextra").unwrap()).unwrap();
            } else {
                client.is_aborted_with(DENIED, Reason::Refused);
            }
        }
    }
}

#[test]
fn cryptosign_lets_in_who_has_the_key_with_or_without_a_name() {
    let secrets = Secrets::new();
    let house = secrets.house();
    let stranger = PrivateKey::from_seed(&[3; 32]);
    for (key, authid, who) in [
        (&secrets.peters, Some("peter"), Some(("peter", "user"))),
        (&secrets.marys, None, Some(("mary", "admin"))),
        (&secrets.marys, Some(""), Some(("mary", "admin"))),
        (&secrets.marys, Some("peter"), None),
        (&stranger, Some("peter"), None),
        (&stranger, None, None),
    ] {
        let signer = CryptosignClient::new(key);
        let mut authextra = texts(&signer.authextra(), &["pubkey"]);
        authextra["channel_binding"] = Value::Null;
        let mut client = house.connect(Format::MsgPack);
        let challenge = challenged(&mut client, ask_for(json!(["cryptosign"]), authid, authextra));
        answer(&mut client, signer.respond(&challenge).unwrap());
        match who {
            Some((authid, authrole)) => is(&welcomed(&mut client), authid, authrole, "cryptosign"),
            None => client.is_aborted_with(DENIED, Reason::Refused),
        }
    }
    // The key of another does not help.
    let authextra = texts(&CryptosignClient::new(&secrets.peters).authextra(), &["pubkey"]);
    let mut client = house.connect(Format::Json);
    let challenge = challenged(&mut client, ask_for(json!(["cryptosign"]), None, authextra));
    answer(&mut client, CryptosignClient::new(&stranger).respond(&challenge).unwrap());
    client.is_aborted_with(DENIED, Reason::Refused);
}

/// A challenge without what differs each time.
fn shape(challenge: &Challenge) -> Vec<(String, usize)> {
    let keys = ["challenge", "salt", "nonce", "kdf"];
    let text = |key: &&str| challenge.extra.str(key).unwrap().map(|text| ((*key).to_owned(), text.len()));
    let number = |key: &&str| {
        let number = challenge.extra.uint(key).unwrap()?;
        Some(((*key).to_owned(), usize::try_from(number).unwrap()))
    };
    keys.iter().filter_map(text).chain(["iterations", "keylen", "memory"].iter().filter_map(number)).collect()
}

#[test]
fn a_user_that_there_is_not_looks_like_one_that_there_is() {
    let secrets = Secrets::new();
    let nonce = json!({"nonce": "bm9uY2U="});
    for method in ["wampcra", "wamp-scram", "scram"] {
        let house = secrets.house();
        let challenge = |authid| {
            let mut client = house.connect(Format::Json);
            let challenge = challenged(&mut client, ask_for(json!([method]), Some(authid), nonce.clone()));
            (client, challenge)
        };
        let (_, known) = challenge("peter");
        for authid in ["nobdy", "maria"] {
            let (mut client, unknown) = challenge(authid);
            assert_eq!(shape(&known), shape(&unknown), "{method}");
            let (_, again) = challenge(authid);
            assert_eq!(unknown.extra.str("salt"), again.extra.str("salt"), "the salt of a name stays");
            assert_ne!(unknown.extra.str("salt"), known.extra.str("salt"));
            let signature = "A".repeat(43) + "=";
            answer(&mut client, Authenticate { signature, extra: Dict::new() });
            client.is_aborted_with(DENIED, Reason::Refused);
        }
        // Nor is it told that somebody has a key only.
        let (mut client, _) = challenge("mary");
        answer(&mut client, Authenticate { signature: String::new(), extra: Dict::new() });
        client.is_aborted_with(DENIED, Reason::Refused);
    }
}

#[test]
fn the_first_method_that_is_available_and_has_what_it_needs_is_taken() {
    let secrets = Secrets::new();
    let house = secrets.house();
    let pubkey = json!({"pubkey": secrets.keys[0][0]});
    for (methods, authid, authextra, chosen) in [
        (json!(["cryptosign", "wampcra"]), Some("peter"), pubkey.clone(), "cryptosign"),
        (json!(["wampcra", "cryptosign"]), Some("peter"), pubkey.clone(), "wampcra"),
        (json!(["wampcra", "cryptosign"]), None, pubkey, "cryptosign"),
        (json!(["cryptosign", "scram", "wampcra"]), Some("peter"), Value::Null, "wampcra"),
        (json!(["anonymous", "x", "ticket", "wampcra"]), Some("peter"), Value::Null, "ticket"),
    ] {
        let mut client = house.connect(Format::Json);
        let challenge = challenged(&mut client, ask_for(methods, authid, authextra));
        assert_eq!(challenge.auth_method, chosen);
    }
    for method in ["wampcra", "scram", "wamp-scram", "cryptosign"] {
        let mut client = house.connect(Format::Json);
        client.say(ask_for(json!([method]), None, Value::Null));
        client.is_aborted_with("wamp.error.authentication_required", Reason::Refused);
    }
    // Where nobody has a credential for it, there is no such method.
    let house = House::with_users(&[secrets.mary()]);
    for method in ["wampcra", "scram", "wamp-scram"] {
        let mut client = house.connect(Format::Json);
        client.say(ask_for(json!([method]), Some("mary"), json!({"nonce": "bm9uY2U="})));
        client.is_aborted_with("wamp.error.no_matching_auth_method", Reason::Refused);
    }
}

fn over_tls(exporter: Option<[u8; 32]>, dns_names: &[&str]) -> Peer {
    let dns_names: Vec<String> = dns_names.iter().map(|&name| name.to_owned()).collect();
    let certificate = (!dns_names.is_empty()).then(|| Certificate { dns_names, ..Certificate::default() });
    Peer::Secure(Arc::new(Secure { address: "192.0.2.1:5".parse().unwrap(), exporter, certificate }))
}

#[test]
fn a_certificate_says_who_it_is_unless_the_peer_says_otherwise() {
    let secrets = Secrets::new();
    let house = secrets.house();
    for (names, authid, who) in [
        (&["joe"][..], None, Some("joe")),
        (&["joe", "ann"], Some("ann"), Some("ann")),
        (&["joe"], Some("ann"), None),
        (&[], None, None),
    ] {
        let mut client = house.connect_from(&over_tls(None, names), Format::Cbor);
        client.say(ask_for(json!(["tls"]), authid, Value::Null));
        match who {
            Some(who) => is(&welcomed(&mut client), who, "user", "tls"),
            None => client.is_aborted_with("wamp.error.authentication_required", Reason::Refused),
        }
    }
    // Who has none goes on to the next method.
    let mut client = house.connect(Format::Json);
    let challenge = challenged(&mut client, ask_for(json!(["tls", "ticket"]), Some("joe"), Value::Null));
    assert_eq!(challenge.auth_method, "ticket");
}

#[test]
fn who_would_send_a_ticket_in_the_clear_is_not_asked_for_it() {
    let secrets = Secrets::new();
    let house = secrets.house();
    let far = Peer::Socket("203.0.113.1:5".parse().unwrap());
    let mut client = house.connect_from(&far, Format::Json);
    client.say(ask_for(json!(["ticket"]), Some("joe"), Value::Null));
    client.is_aborted_with("wamp.error.no_matching_auth_method", Reason::Refused);
    for (peer, chosen) in [(far, "wampcra"), (over_tls(None, &[]), "ticket")] {
        let mut client = house.connect_from(&peer, Format::Json);
        let challenge =
            challenged(&mut client, ask_for(json!(["ticket", "wampcra"]), Some("peter"), Value::Null));
        assert_eq!(challenge.auth_method, chosen);
    }
}

#[test]
fn what_is_malformed_or_cannot_be_bound_is_refused() {
    let secrets = Secrets::new();
    let house = secrets.house();
    let mut client = house.connect(Format::Json);
    let bound = json!({"nonce": "bm9uY2U=", "channel_binding": "tls-unique"});
    client.say(ask_for(json!(["wamp-scram"]), Some("peter"), bound));
    client.is_aborted_with("wamp.error.authentication_failed", Reason::Refused);
    for (method, authextra) in [("scram", json!({"nonce": "?"})), ("cryptosign", json!({"pubkey": "00"}))] {
        let mut client = house.connect(Format::Json);
        client.say(ask_for(json!([method]), Some("peter"), authextra));
        client.is_aborted();
    }
    // Cryptosign goes on without a binding, and says so.
    let authextra = json!({"pubkey": secrets.keys[0][0], "channel_binding": "tls-unique"});
    let challenge =
        challenged(&mut house.connect(Format::Json), ask_for(json!(["cryptosign"]), None, authextra));
    assert!(challenge.extra.get("channel_binding").is_none());
}

#[test]
fn a_proof_comes_in_time_or_not_at_all() {
    let secrets = Secrets::new();
    let house = secrets.house();
    let mut client = house.connect(Format::Json);
    let challenge = challenged(&mut client, ask_for(json!(["wampcra"]), Some("peter"), Value::Null));
    let deadline = client.session.deadline().unwrap();
    assert!(deadline <= client.now + Duration::from_secs(10));
    client.session.tick(deadline);
    client.drain();
    client.is_aborted_with("wamp.close.timeout", Reason::Silent);
    let bytes = encode(client.format, &cra::respond(&challenge, "secret").unwrap().into()).unwrap();
    client.session.receive(client.kind, bytes, client.now);
    assert!(client.session.poll().is_none());
    assert_eq!(house.realm.sessions(), 0);
}

#[test]
fn a_credential_that_is_none_is_named_and_not_repeated() {
    let secrets = Secrets::new();
    let (scram, keys) = (["scram-in-plain".to_owned()], ["not-a-key".to_owned()]);
    let nothing = WampUser { name: "eve", role: "user", wampcra: None, scram: &[], cryptosign: &[] };
    for (user, method) in [
        (WampUser { wampcra: Some("in plain text"), ..nothing }, "wampcra"),
        (WampUser { scram: &scram, ..nothing }, "scram"),
        (WampUser { cryptosign: &keys, ..nothing }, "cryptosign"),
        // A key belongs to one user.
        (WampUser { cryptosign: &secrets.keys[0], ..nothing }, "cryptosign"),
    ] {
        let error =
            WampCredentials::new([secrets.peter(), user], std::sync::Arc::new(|| 0), || 0).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with(&format!("{method} of user \"eve\": ")), "{said}");
        assert!(!said.contains("plain") && !said.contains("not-a-key"), "{said}");
    }
}

const TOO_MANY: &str = "tandem.error.too_many_failures";

fn peer(last: u8) -> Peer {
    Peer::Socket(([192, 0, 2, last], 5).into())
}

/// Says a wrong ticket; false where none was asked for.
fn guesses(house: &House, user: &str, from: &Peer, now: Instant) -> bool {
    let mut client = house.connect_from(from, Format::Json);
    client.now = now;
    client.say(ask_for(json!(["ticket"]), Some(user), Value::Null));
    let Message::Challenge(_) = heard(&mut client) else { return false };
    client.say(json!([5, "wrong", {}]));
    // The sixth as one user is judged late.
    if client.said.is_empty() {
        client.session.tick(client.session.deadline().unwrap());
        client.drain();
    }
    client.is_aborted_with(DENIED, Reason::Refused);
    true
}

#[test]
fn who_fails_too_often_is_told_how_long_to_wait_whatever_the_method() {
    let secrets = Secrets::new();
    let house = secrets.house();
    let now = Instant::now();
    for round in 0..6 {
        assert_eq!(guesses(&house, "peter", &peer(1), now), round < 5);
    }
    let nonce = json!({"nonce": "bm9uY2U=", "pubkey": secrets.keys[0][0]});
    for method in ["ticket", "wampcra", "scram", "wamp-scram", "cryptosign"] {
        let hello = ask_for(json!([method]), Some("peter"), nonce.clone());
        let mut client = house.connect_from(&peer(1), Format::Cbor);
        client.now = now;
        client.say(hello.clone());
        let Message::Abort(abort) = heard(&mut client) else { panic!("no abort") };
        assert_eq!(abort.reason, TOO_MANY);
        let sentence = abort.details.str("message").unwrap().unwrap();
        assert!(sentence.contains("1 s"), "{sentence}");
        let mut elsewhere = house.connect_from(&peer(2), Format::Cbor);
        elsewhere.now = now;
        challenged(&mut elsewhere, hello);
    }
    // Once the time is over, who knows the secret is let in.
    let mut client = house.connect_from(&peer(1), Format::Cbor);
    client.now = now + Duration::from_secs(1);
    let challenge = challenged(&mut client, ask_for(json!(["wampcra"]), Some("peter"), Value::Null));
    answer(&mut client, cra::respond(&challenge, "secret").unwrap());
    is(&welcomed(&mut client), "peter", "user", "wampcra");
}

#[test]
fn wrong_proofs_count_like_wrong_tickets() {
    let secrets = Secrets::new();
    for (method, authextra) in [
        ("wampcra", Value::Null),
        ("wamp-scram", json!({"nonce": "bm9uY2U="})),
        ("cryptosign", json!({"pubkey": secrets.keys[0][0]})),
    ] {
        let house = secrets.house();
        let now = Instant::now();
        for user in ["peter", "nobody", "peter", "nobody", "mary"] {
            let mut client = house.connect(Format::Json);
            client.now = now;
            challenged(&mut client, ask_for(json!([method]), Some(user), authextra.clone()));
            client.say(json!([5, "wrong", {}]));
            client.is_aborted_with(DENIED, Reason::Refused);
        }
        assert!(!guesses(&house, "somebody", &Peer::Local, now), "{method}");
    }
}

#[test]
fn a_user_whom_others_pretend_to_be_is_let_in_late_and_not_shut_out() {
    let secrets = Secrets::new();
    let house = secrets.house();
    let start = Instant::now();
    for last in 1..=40 {
        assert!(guesses(&house, "joe", &peer(last), start));
    }
    let mut client = house.connect_from(&peer(200), Format::Json);
    client.now = start + Duration::from_secs(1);
    client.say(ask_for(json!(["ticket"]), Some("joe"), Value::Null));
    assert_eq!(client.hear()[0], json!(4));
    client.say(json!([5, "secret", {}]));
    let deadline = client.session.deadline().unwrap();
    assert!(deadline <= client.now + Duration::from_secs(4));
    assert!(client.said.is_empty());
    client.now = deadline;
    client.session.tick(deadline);
    client.drain();
    is(&welcomed(&mut client), "joe", "user", "ticket");

    // Not a second time.
    let mut client = house.connect_from(&peer(200), Format::Json);
    client.now = deadline;
    client.say(ask_for(json!(["ticket"]), Some("joe"), Value::Null));
    assert_eq!(client.hear()[0], json!(4));
    assert_eq!(client.ask(json!([5, "secret", {}]))[0], json!(2));

    // Who says more meanwhile breaks the language.
    let mut client = house.connect_from(&peer(201), Format::Json);
    client.now = deadline;
    client.say(ask_for(json!(["ticket"]), Some("joe"), Value::Null));
    assert_eq!(client.hear()[0], json!(4));
    client.say(json!([5, "secret", {}]));
    client.say(json!([5, "secret", {}]));
    client.is_aborted();
}

/// What an application keeps of dora, who is let in as theodora; of rita, whose record is of no use, and of
/// nobody else.
fn record(applicant: &Applicant) -> Result<Record, Refusal> {
    let kdf = Kdf::pbkdf2(4096).unwrap();
    let fields: Vec<(&str, String)> = match (&*applicant.user, applicant.method) {
        ("rita", _) => Vec::new(),
        ("broken", _) => return Err(Refusal::AuthenticationFailed),
        ("dora", "wampcra") => {
            let derived = CraCredential::derive("secret", "salt", 100, 32).unwrap().to_string();
            let key = derived.rsplit('$').next().unwrap().to_owned();
            vec![
                ("secret", key),
                ("salt", "salt".into()),
                ("iterations", "100".into()),
                ("keylen", "32".into()),
            ]
        }
        ("plain", "wampcra") => vec![("secret", "secret".into())],
        ("dora", "wamp-scram") => {
            let credential = ScramCredential::derive(Dialect::WampScram, kdf, "secret", &[7; 16]).unwrap();
            let text = credential.to_string();
            let parts: Vec<&str> = text.split('$').collect();
            let hex = |text: &str| -> String {
                let bytes = text.as_bytes().chunks(4).flat_map(base64).collect::<Vec<u8>>();
                bytes.iter().map(|byte| format!("{byte:02x}")).collect()
            };
            let [.., salt, stored, server] = parts[..] else { panic!("{text}") };
            vec![
                ("kdf", "pbkdf2".into()),
                ("iterations", "4096".into()),
                ("salt", hex(salt)),
                ("stored-key", hex(stored)),
                ("server-key", hex(server)),
            ]
        }
        ("dora" | "", "cryptosign") => {
            vec![("pubkey", PrivateKey::from_seed(&[4; 32]).public_key().to_string())]
        }
        _ => return Err(Refusal::WrongSecret),
    };
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let provider = tandem_broker::core::access::Provider::Dynamic;
    let principal = Principal { provider, ..Principal::new("theodora", "guest", applicant.method) };
    let extra = Some(r#"{"color":"red"}"#.into());
    Ok(Record { grant: Grant { extra, ..principal.into() }, fields })
}

/// The bytes of four digits of base64.
fn base64(digits: &[u8]) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |digit: &u8| alphabet.iter().position(|known| known == digit);
    let known: Vec<usize> = digits.iter().filter_map(value).collect();
    let bits = known.iter().fold(0, |bits, six| bits << 6 | six) << (6 * (4 - known.len()));
    (bits as u32).to_be_bytes()[1..known.len()].to_vec()
}

fn is_theodora(welcome: &Welcome, method: &str) {
    let told = ["authid", "authrole", "authmethod", "authprovider"];
    let told = told.map(|key| welcome.details.str(key).unwrap().unwrap());
    assert_eq!(told, ["theodora", "guest", method, "dynamic"]);
    let authextra = welcome.details.dict("authextra").unwrap().unwrap();
    assert_eq!(authextra.str("color"), Ok(Some("red")));
}

#[test]
fn users_of_an_application_are_challenged_by_what_it_keeps_of_them() {
    let secrets = Secrets::new();
    for (format, right) in FORMATS.into_iter().flat_map(|format| [(format, true), (format, false)]) {
        let house = House::with_records(&[secrets.peter()], record);
        let password = if right { "secret" } else { "Secret" };
        let end = |mut client: Client, method: &str| match right {
            true => is_theodora(&welcomed(&mut client), method),
            false => client.is_aborted_with(DENIED, Reason::Refused),
        };
        for user in ["dora", "plain"] {
            let mut client = house.connect(format);
            let challenge = challenged(&mut client, ask_for(json!(["wampcra"]), Some(user), Value::Null));
            let told: Value =
                serde_json::from_str(challenge.extra.str("challenge").unwrap().unwrap()).unwrap();
            let told = ["authid", "authrole", "authprovider"].map(|key| told[key].as_str().unwrap());
            assert_eq!(told, ["theodora", "guest", "dynamic"]);
            answer(&mut client, cra::respond(&challenge, password).unwrap());
            end(client, "wampcra");
        }

        let scram = ScramClient::new("dora", &[9; 16]).unwrap();
        let authextra = texts(&scram.authextra(), &["nonce"]);
        let mut client = house.connect(format);
        let challenge = challenged(&mut client, ask_for(json!(["wamp-scram"]), Some("dora"), authextra));
        answer(&mut client, scram.respond(&challenge, password).unwrap().0);
        end(client, "wamp-scram");

        let key = PrivateKey::from_seed(&[if right { 4 } else { 5 }; 32]);
        let signer = CryptosignClient::new(&key);
        let mut client = house.connect(format);
        let authextra = texts(&signer.authextra(), &["pubkey"]);
        let challenge = challenged(&mut client, ask_for(json!(["cryptosign"]), None, authextra));
        answer(&mut client, signer.respond(&challenge).unwrap());
        end(client, "cryptosign");
    }
}

#[test]
fn who_is_in_the_configuration_is_not_asked_for_elsewhere() {
    let secrets = Secrets::new();
    let house = House::with_records(&[secrets.peter(), secrets.mary()], |applicant| {
        panic!("nobody asks for {}", applicant.user)
    });
    let nonce = json!({"nonce": "bm9uY2U=", "pubkey": secrets.keys[1][0]});
    for (method, user) in
        [("wampcra", "peter"), ("wampcra", "mary"), ("scram", "mary"), ("cryptosign", "mary")]
    {
        challenged(&mut house.connect(Format::Json), ask_for(json!([method]), Some(user), nonce.clone()));
    }
    challenged(&mut house.connect(Format::Json), ask_for(json!(["cryptosign"]), None, nonce));
}

#[test]
fn an_application_that_has_no_such_user_or_no_answer_lets_nobody_in() {
    let secrets = Secrets::new();
    let house = House::with_records(&[secrets.peter()], record);
    for (user, uri) in [
        ("eve", DENIED),
        ("rita", "wamp.error.authentication_failed"),
        ("broken", "wamp.error.authentication_failed"),
    ] {
        let mut client = house.connect(Format::Json);
        client.say(ask_for(json!(["wampcra"]), Some(user), Value::Null));
        client.is_aborted_with(uri, Reason::Refused);
    }
    // It is not asked again and again about users that it does not have.
    for _ in 0..4 {
        let mut client = house.connect(Format::Json);
        client.say(ask_for(json!(["wampcra"]), Some("eve"), Value::Null));
        client.is_aborted_with(DENIED, Reason::Refused);
    }
    let mut client = house.connect(Format::Json);
    client.say(ask_for(json!(["wampcra"]), Some("dora"), Value::Null));
    client.is_aborted_with(TOO_MANY, Reason::Refused);
    // What the method needs is asked for first.
    let house = House::with_records(&[], |_| panic!("nothing is looked up"));
    for (methods, authid, authextra, uri) in [
        (
            json!(["wampcra", "scram"]),
            None,
            json!({"nonce": "bm9uY2U="}),
            "wamp.error.authentication_required",
        ),
        (json!(["scram"]), Some("dora"), Value::Null, "wamp.error.authentication_required"),
        (json!(["cryptosign"]), Some("dora"), Value::Null, "wamp.error.authentication_required"),
        (json!(["x"]), Some("dora"), Value::Null, "wamp.error.no_matching_auth_method"),
    ] {
        let mut client = house.connect(Format::Json);
        client.say(ask_for(methods, authid, authextra));
        client.is_aborted_with(uri, Reason::Refused);
    }
}

#[test]
fn who_does_not_wait_for_the_challenge_is_aborted() {
    let house = House::with_records(&[], record);
    let mut client = house.connect(Format::Json);
    let bytes = client.encode(&ask_for(json!(["wampcra"]), Some("dora"), Value::Null));
    client.session.receive(client.kind, bytes, client.now);
    assert!(matches!(client.session.poll(), Some(Output::LookUp(applicant)) if &*applicant.user == "dora"));
    assert_eq!((client.session.deadline(), client.session.poll().is_none()), (None, true));
    client.say(json!([5, "early", {}]));
    client.is_aborted();
}

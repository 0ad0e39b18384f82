//! Which tokens are believed, and which are not.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod token_maker;

use std::time::Duration;

use ring::hmac::{HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use serde_json::{Value, json};

use tandem_broker::core::access::{Provider, Refusal};
use tandem_broker::tokens::{KEYS_MAX, LIFETIME_MAX, is_token};

use token_maker::*;

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn named(user: &str, role: &str) -> Result<(String, String), Refusal> {
    Ok((user.to_owned(), role.to_owned()))
}

fn claims(user: &str) -> Value {
    json!({"sub": user, "exp": NOW_S + 60})
}

/// Signed rightly, whatever is in it.
fn signed(header: &str, claims: &str) -> String {
    sign(header, claims, hmac_by(HMAC_SHA256, SECRET.as_bytes()))
}

#[test]
fn a_token_is_believed_by_each_algorithm_that_is_allowed() {
    for (algorithm, hash) in [("HS256", HMAC_SHA256), ("HS384", HMAC_SHA384), ("HS512", HMAC_SHA512)] {
        let keys = format!(
            "algorithms = [{algorithm:?}]\nkeys = [{{ algorithm = {algorithm:?}, secret_file = \"{{0}}\" }}]"
        );
        let bench = bench(&keys, &[SECRET]);
        let header = json!({"alg": algorithm}).to_string();
        let good = sign(&header, &claims("joe").to_string(), hmac_by(hash, SECRET.as_bytes()));
        assert_eq!(bench.who(&good), named("joe", "user"), "{algorithm}");
    }
    for signer in [Signer::rsa(), Signer::ec(), Signer::ed()] {
        let algorithm = signer.algorithm();
        let keys = format!(
            "algorithms = [{algorithm:?}]\nkeys = [{{ algorithm = {algorithm:?}, file = \"{{0}}\", kid = \"k\" }}]"
        );
        let bench = bench(&keys, &[&signer.public()]);
        assert_eq!(bench.who(&signer.token(Some("k"), &claims("joe"))), named("joe", "user"), "{algorithm}");
        let grant = bench.judge(&signer.token(Some("k"), &claims("joe"))).unwrap();
        assert_eq!(grant.principal.provider, Provider::Token);
    }
}

#[test]
fn a_key_set_has_a_key_for_each_kid_and_passes_over_what_is_of_no_use() {
    let (rsa, ec, ed) = (Signer::rsa(), Signer::ec(), Signer::ed());
    let mut encryption = rsa.jwk(Some("r"));
    encryption["use"] = "enc".into();
    let set = json!({"keys": [
        rsa.jwk(Some("r")), encryption, ec.jwk(Some("e")), ed.jwk(Some("d")),
        {"kty": "unheard of", "kid": "x"},
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "p521"},
        {"kty": "oct", "k": base64(SECRET), "kid": "not allowed"},
    ]});
    let keys = "algorithms = [\"RS256\", \"ES256\", \"EdDSA\"]\njwks = \"{0}\"";
    let bench = bench(keys, &[&set.to_string()]);
    for (signer, kid) in [(&rsa, "r"), (&ec, "e"), (&ed, "d")] {
        assert_eq!(bench.who(&signer.token(Some(kid), &claims("joe"))), named("joe", "user"), "{kid}");
        for other in [None, Some("x"), Some("p521"), Some(""), Some("R")] {
            assert_eq!(bench.judge(&signer.token(other, &claims("joe"))), Err(Refusal::WrongSecret));
        }
    }
    // A good signature by another key of the set.
    assert_eq!(bench.judge(&rsa.token(Some("e"), &claims("joe"))), Err(Refusal::WrongSecret));
    assert_eq!(bench.judge(&Signer::ec().token(Some("e"), &claims("joe"))), Err(Refusal::WrongSecret));
}

#[test]
fn a_token_that_is_not_signed_or_signed_with_a_public_key_is_nobodys() {
    let keys = "algorithms = [\"RS256\", \"HS256\"]\nkeys = [\n  \
                { algorithm = \"RS256\", file = \"{0}\" },\n  { algorithm = \"HS256\", secret_file = \"{1}\" },\n]";
    let bench = bench(keys, &[RSA_PUBLIC, SECRET]);
    let joe = claims("joe").to_string();
    assert_eq!(bench.who(&Signer::rsa().token(None, &claims("joe"))), named("joe", "user"));
    for none in ["none", "None", "NONE", "nOnE", "", "RS256 "] {
        let header = json!({"alg": none}).to_string();
        for signature in [&b""[..], b"x"] {
            let token = sign(&header, &joe, |_| signature.to_vec());
            assert_eq!(bench.judge(&token), Err(Refusal::WrongSecret), "{none}");
        }
    }
    for header in [r#"{"typ":"JWT"}"#, r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, "[]", "x"] {
        assert_eq!(bench.judge(&signed(header, &joe)), Err(Refusal::WrongSecret), "{header}");
    }
    // The public key is no secret: nor is it one, in any of its forms.
    for secret in [RSA_PUBLIC, RSA_PUBLIC.trim_end(), ""] {
        let confused = sign(HS256, &joe, hmac_by(HMAC_SHA256, secret.as_bytes()));
        assert_eq!(bench.judge(&confused), Err(Refusal::WrongSecret));
    }
    // And an algorithm that a key could do, but that was not allowed for it.
    let header = json!({"alg": "RS512"}).to_string();
    let token = sign(&header, &joe, |message| Signer::rsa().signature(message));
    assert_eq!(bench.judge(&token), Err(Refusal::WrongSecret));
}

#[test]
fn keys_that_a_token_brings_or_points_to_are_not_used() {
    let mine = Signer::rsa();
    let keys = "algorithms = [\"ES256\", \"RS256\"]\nkeys = [{ algorithm = \"ES256\", file = \"{0}\" }]";
    let bench = bench(keys, &[&Signer::ec().public()]);
    let joe = claims("joe").to_string();
    for header in [
        json!({"alg": "RS256", "jwk": mine.jwk(None)}),
        json!({"alg": "RS256", "jku": "https://example.com/keys"}),
        json!({"alg": "RS256", "x5u": "file:///etc/passwd"}),
        json!({"alg": "RS256", "kid": "../../../../dev/null"}),
        json!({"alg": "RS256", "kid": "' OR 1=1 --"}),
    ] {
        let token = sign(&header.to_string(), &joe, |message| mine.signature(message));
        assert_eq!(bench.judge(&token), Err(Refusal::WrongSecret), "{header}");
    }
    // The zero signature, which some verifiers took for any message.
    let zero = sign(r#"{"alg":"ES256"}"#, &joe, |_| vec![0; 64]);
    assert_eq!(bench.judge(&zero), Err(Refusal::WrongSecret));
}

#[test]
fn extensions_that_must_be_understood_are_refused() {
    let bench = by_secret("");
    let joe = claims("joe").to_string();
    assert_eq!(bench.who(&signed(r#"{"alg":"HS256","whatever":1}"#, &joe)), named("joe", "user"));
    for header in [
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","enc":"A128GCM"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
    ] {
        assert_eq!(bench.judge(&signed(header, &joe)), Err(Refusal::WrongSecret), "{header}");
    }
}

#[test]
fn a_token_ends_and_says_when_in_numbers() {
    let bench = by_secret("leeway_s = 60");
    let at = |exp: Value| token(json!({"sub": "joe", "exp": exp}));
    let lifetime = |token: &str| bench.judge(token).map(|grant| grant.lifetime);
    assert_eq!(lifetime(&at(json!(NOW_S + 100))), Ok(Some(Duration::from_secs(160))));
    assert_eq!(lifetime(&at(json!(NOW_S as f64 + 0.5))), Ok(Some(Duration::from_millis(60_500))));
    // Clocks differ, but not by more.
    assert_eq!(lifetime(&at(json!(NOW_S - 59))), Ok(Some(Duration::from_secs(1))));
    for expired in [json!(NOW_S - 60), json!(NOW_S - 1_000_000), json!(0)] {
        assert_eq!(lifetime(&at(expired.clone())), Err(Refusal::TokenExpired), "{expired}");
    }
    assert_eq!(lifetime(&at(json!(u64::MAX))), Ok(Some(LIFETIME_MAX)));
    for wrong in [
        json!(null),
        json!((NOW_S + 100).to_string()),
        json!("never"),
        json!(true),
        json!([NOW_S + 100]),
        json!({}),
        json!(-1),
        json!(1e300),
    ] {
        assert_eq!(lifetime(&at(wrong.clone())), Err(Refusal::WrongSecret), "{wrong}");
    }
    assert_eq!(lifetime(&token(json!({"sub": "joe"}))), Err(Refusal::WrongSecret));
    let twice = format!(r#"{{"sub":"joe","exp":1,"exp":{}}}"#, NOW_S + 100);
    assert_eq!(lifetime(&signed(HS256, &twice)), Err(Refusal::WrongSecret));
}

#[test]
fn a_token_is_not_good_before_its_time() {
    let bench = by_secret("");
    let from = |nbf: Value| token(json!({"sub": "joe", "exp": NOW_S + 600, "nbf": nbf}));
    for good in [json!(0), json!(NOW_S), json!(NOW_S + 60)] {
        assert!(bench.judge(&from(good.clone())).is_ok(), "{good}");
    }
    for wrong in [json!(NOW_S + 61), json!(u64::MAX), json!(1e300), json!("0"), json!(null), json!(-1)] {
        assert_eq!(bench.judge(&from(wrong.clone())), Err(Refusal::WrongSecret), "{wrong}");
    }
}

#[test]
fn a_token_is_for_us_and_of_whom_we_believe() {
    let bench = by_secret("audience = [\"tandem\", \"other\"]\nissuer = [\"https://id.example.com\"]");
    let with = |aud: Value, iss: Value| {
        bench.judge(&token(json!({"sub": "joe", "exp": NOW_S + 60, "aud": aud, "iss": iss})))
    };
    let iss = json!("https://id.example.com");
    for aud in [json!("tandem"), json!(["x", "other"])] {
        assert!(with(aud.clone(), iss.clone()).is_ok(), "{aud}");
    }
    for aud in [json!("x"), json!([]), json!(["x"]), json!("Tandem"), json!(null), json!(7), json!({})] {
        assert_eq!(with(aud.clone(), iss.clone()), Err(Refusal::WrongSecret), "{aud}");
    }
    for iss in [json!("https://id.example.com/"), json!("x"), json!(null), json!(7)] {
        assert_eq!(with(json!("tandem"), iss.clone()), Err(Refusal::WrongSecret), "{iss}");
    }
    let only = |claims: Value| bench.judge(&token(claims));
    let missing = json!({"sub": "joe", "exp": NOW_S + 60, "aud": "tandem"});
    assert_eq!(only(missing), Err(Refusal::WrongSecret));
    let missing = json!({"sub": "joe", "exp": NOW_S + 60, "iss": "https://id.example.com"});
    assert_eq!(only(missing), Err(Refusal::WrongSecret));
    // RFC 7519, 4.1.3: who is not among those that it is for must refuse it.
    let for_others = token(json!({"sub": "joe", "exp": NOW_S + 60, "aud": "x"}));
    assert_eq!(by_secret("").judge(&for_others), Err(Refusal::WrongSecret));
}

#[test]
fn a_token_for_some_realms_is_good_in_no_other() {
    let bench = by_secret("realm_claim = \"realm\"");
    let in_realm = |realm: Value, wanted: &str| {
        let token = token(json!({"sub": "joe", "exp": NOW_S + 60, "realm": realm}));
        bench.tokens.judge(&token, &applicant(wanted, "")).is_ok()
    };
    assert!(in_realm(json!("a"), "a") && in_realm(json!(["a", "b"]), "b"));
    for realm in [json!("b"), json!("A"), json!("*"), json!(""), json!([]), json!(null), json!({"a": "a"})] {
        assert!(!in_realm(realm.clone(), "a"), "{realm}");
    }
    assert!(bench.tokens.judge(&token_for("joe", 60), &applicant("a", "")).is_err(), "it says none");
}

#[test]
fn the_user_is_who_the_token_says_and_nobody_else() {
    let bench = by_secret("");
    let asked = |user: &str| bench.tokens.judge(&token_for("joe", 60), &applicant("realm1", user));
    assert!(asked("").is_ok() && asked("joe").is_ok());
    for other in ["Joe", "ann", "joe ", "jo"] {
        assert_eq!(asked(other), Err(Refusal::WrongSecret), "{other}");
    }
    let long = "x".repeat(257);
    for user in [json!(""), json!(null), json!(7), json!(["joe"]), json!("a\nb"), json!("a\0"), json!(long)] {
        let token = token(json!({"sub": user, "exp": NOW_S + 60}));
        assert_eq!(bench.judge(&token), Err(Refusal::WrongSecret), "{user}");
    }
    for (claim, claims) in [
        ("preferred_username", json!({"preferred_username": "joe", "sub": "7"})),
        ("https://example.com/user", json!({"https://example.com/user": "joe"})),
        ("/user/name", json!({"user": {"name": "joe"}})),
        ("/a~1b/0", json!({"a/b": ["joe"]})),
    ] {
        let bench = by_secret(&format!("user_claim = {claim:?}"));
        let mut claims = claims;
        claims["exp"] = json!(NOW_S + 60);
        assert_eq!(bench.who(&token(claims)), named("joe", "user"), "{claim}");
    }
}

#[test]
fn the_role_is_the_first_of_ours_that_the_token_has() {
    let roles = "role_claim = \"/realm_access/roles\"\nroles = [\"operator\", \"sensor\"]\n";
    let with = |more: &str, roles_said: Value| {
        let claims = json!({"sub": "joe", "exp": NOW_S + 60, "realm_access": {"roles": roles_said}});
        by_secret(&format!("{roles}{more}")).who(&token(claims))
    };
    assert_eq!(with("", json!(["sensor", "x", "operator"])), named("joe", "operator"));
    assert_eq!(with("", json!("sensor")), named("joe", "sensor"));
    // Nobody is an administrator because a token says so that was not to.
    for said in [json!(["admin"]), json!([]), json!(null), json!("operator,sensor"), json!([["operator"]])] {
        assert_eq!(with("", said.clone()), Err(Refusal::WrongSecret), "{said}");
        assert_eq!(with("role = \"guest\"", said), named("joe", "guest"));
    }
    let admin = token(json!({"sub": "joe", "exp": NOW_S + 60, "role": "admin", "roles": ["admin"]}));
    assert_eq!(by_secret("").who(&admin), named("joe", "user"));
    assert_eq!(by_secret("role = \"device\"").who(&admin), named("joe", "device"));
}

#[test]
fn a_token_that_is_too_long_or_not_whole_is_not_looked_into() {
    let bench = by_secret("bytes_max = 300");
    let padded = |length: usize| token(json!({"sub": "joe", "exp": NOW_S + 60, "pad": "x".repeat(length)}));
    assert!(bench.judge(&padded(0)).is_ok());
    let long = padded(300);
    assert!(long.len() > 300);
    assert_eq!(bench.judge(&long), Err(Refusal::WrongSecret));
    let good = token_for("joe", 60);
    let other = token_for("ann", 60);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let forged = base64(claims("root").to_string());
    for wrong in [
        format!("{message}."),
        message.to_owned(),
        format!("{good}.x"),
        format!("{good}="),
        format!("{header}..{signature}"),
        format!("{header}.{forged}.{signature}"),
        format!("{message}.{}", other.rsplit_once('.').unwrap().1),
        format!("{message}.{}", &signature[..signature.len() - 4]),
        String::new(),
        "..".into(),
        "eyJ".into(),
    ] {
        assert_eq!(bench.judge(&wrong), Err(Refusal::WrongSecret), "{wrong}");
    }
    let nested =
        format!(r#"{{"sub":"joe","exp":{},"x":{}1{}}}"#, NOW_S + 60, "[".repeat(200), "]".repeat(200));
    assert_eq!(by_secret("").judge(&signed(HS256, &nested)), Err(Refusal::WrongSecret));
}

#[test]
fn what_is_no_token_is_taken_for_a_password() {
    for token in [token_for("joe", 1), "eyJhbGciOiJub25lIn0.e30.".into(), "ey..".into()] {
        assert!(is_token(&token), "{token}");
    }
    for password in ["", "secret", "a.b.c", "ey.b", "ey.b.c.d", "ey a.b.c", "eyJ.b.c!", "éy.b.c"] {
        assert!(!is_token(password), "{password}");
    }
}

#[test]
fn keys_are_read_again_and_on_an_error_the_old_ones_stay() {
    let (old, new) = (Signer::ec(), Signer::ec());
    let file = Scrap::new(&old.public());
    let path = file.0.to_str().unwrap();
    let keys = format!("algorithms = [\"ES256\"]\nkeys = [{{ algorithm = \"ES256\", file = {path:?} }}]");
    let bench = bench(&keys, &[]);
    let good = |signer: &Signer| bench.judge(&signer.token(None, &claims("joe"))).is_ok();
    assert!(good(&old) && !good(&new));
    std::fs::write(&file.0, "not a key").unwrap();
    let error = bench.tokens.reload().unwrap_err();
    assert!(error.contains(path) && error.contains("no public key"), "{error}");
    assert!(good(&old) && !good(&new));
    std::fs::write(&file.0, new.public()).unwrap();
    assert_eq!(bench.tokens.reload(), Ok(1));
    assert!(!good(&old) && good(&new));
}

#[test]
fn what_is_no_good_key_is_said_at_the_start_and_no_secret_with_it() {
    let one = |algorithm: &str, key: &str| {
        format!("algorithms = [{algorithm:?}]\nkeys = [{{ algorithm = {algorithm:?}, {key} = \"{{0}}\" }}]")
    };
    let set = "algorithms = [\"RS256\", \"HS256\"]\njwks = \"{0}\"".to_owned();
    let ec = Signer::ec().public();
    let twice = json!({"keys": [Signer::rsa().jwk(Some("k")), Signer::rsa().jwk(Some("k"))]}).to_string();
    let short = json!({"keys": [{"kty": "oct", "k": base64("hunter2"), "kid": "s"}]}).to_string();
    let many: Vec<Value> =
        (0..=KEYS_MAX).map(|number| Signer::rsa().jwk(Some(&number.to_string()))).collect();
    let many = json!({"keys": many}).to_string();
    for (configuration, content, said) in [
        (one("RS256", "file"), "", "no public key"),
        (one("RS256", "file"), RSA_PRIVATE, "no public key"),
        (one("RS256", "file"), RSA_SHORT, "2048 bits"),
        (one("RS256", "file"), &ec, "no key for RS256"),
        (one("ES384", "file"), &ec, "no key for ES384"),
        (one("EdDSA", "file"), RSA_PUBLIC, "no key for EdDSA"),
        (one("HS256", "file"), RSA_PUBLIC, "no key for HS256"),
        (one("RS256", "secret_file"), SECRET, "takes a public key"),
        (one("HS256", "secret_file"), "hunter2", "32 bytes or more"),
        (one("HS512", "secret_file"), &SECRET[..63], "64 bytes or more"),
        (one("HS256", "secret_env"), "", "is not set"),
        (set.clone(), "{}", "no JWK set"),
        (set.clone(), r#"{"keys": []}"#, "no key for any"),
        (set.clone(), &twice, "the same kid"),
        (set.clone(), &short, "32 bytes or more"),
        (set, &many, "more than 64 keys"),
    ] {
        let error = try_bench(&configuration, &[content]).err().unwrap_or_default();
        assert!(error.contains(said), "{configuration}: {error:?}");
        assert!(!error.contains("hunter2") && !error.contains(&base64("hunter2")), "{error}");
    }
    let missing = try_bench(&one("RS256", "file").replace("{0}", "/nowhere/key.pem"), &[]).err().unwrap();
    assert!(missing.contains("/nowhere/key.pem"), "{missing}");
}

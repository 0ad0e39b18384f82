//! Makes tokens, good ones and others, and the files of their keys.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use tandem_broker::config::Config;
use tandem_broker::core::access::{Applicant, Grant, Refusal};
use tandem_broker::tokens::Tokens;

/// Seconds since 1970, when tests begin.
pub const NOW_S: u64 = 1_800_000_000;

/// Of 64 bytes: good for all of HS256, HS384 and HS512.
pub const SECRET: &str = "a secret of sixty-four bytes, which is as long as the longest one";

pub const RSA_PRIVATE: &str = include_str!("rsa_test_only.pem");
pub const RSA_PUBLIC: &str = include_str!("rsa_test_only.pub.pem");
pub const RSA_SHORT: &str = include_str!("rsa_1024.pub.pem");

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with any header and claims, signed in any way.
pub fn sign(header: &str, claims: &str, signed: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let signature = signed(message.as_bytes());
    format!("{message}.{}", base64(signature))
}

pub fn hmac_by(algorithm: hmac::Algorithm, secret: &[u8]) -> impl FnOnce(&[u8]) -> Vec<u8> {
    move |message| hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
}

/// Signed with HS256 by the secret, without a kid.
pub fn token(claims: Value) -> String {
    sign(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), hmac_by(hmac::HMAC_SHA256, SECRET.as_bytes()))
}

/// Good for somebody, for so many seconds from the beginning.
pub fn token_for(user: &str, seconds: u64) -> String {
    token(json!({"sub": user, "exp": NOW_S + seconds}))
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

/// A private key of each kind.
pub enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub fn rsa() -> Signer {
        let body: String = RSA_PRIVATE.lines().filter(|line| !line.starts_with('-')).collect();
        Signer::Rsa(RsaKeyPair::from_pkcs8(&STANDARD.decode(body).unwrap()).unwrap())
    }

    pub fn ec() -> Signer {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Signer::Ec(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    pub fn ed() -> Signer {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Signer::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Signer::Rsa(_) => "RS256",
            Signer::Ec(_) => "ES256",
            Signer::Ed(_) => "EdDSA",
        }
    }

    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Signer::Ec(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Signer::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    pub fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        sign(&header.to_string(), &claims.to_string(), |message| self.signature(message))
    }

    /// The public key, PEM.
    pub fn public(&self) -> String {
        let prefixed = |prefix: &[u8], key: &[u8]| pem(&[prefix, key].concat());
        match self {
            Signer::Rsa(_) => RSA_PUBLIC.to_owned(),
            Signer::Ec(key) => prefixed(
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
                key.public_key().as_ref(),
            ),
            Signer::Ed(key) => {
                prefixed(b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", key.public_key().as_ref())
            }
        }
    }

    /// The public key as RFC 7517 has it.
    pub fn jwk(&self, kid: Option<&str>) -> Value {
        let mut jwk = match self {
            Signer::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "use": "sig", "n": base64(n), "e": base64(e)})
            }
            Signer::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": base64(&point[1..33]), "y": base64(&point[33..])})
            }
            Signer::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64(key.public_key().as_ref())})
            }
        };
        if let Some(kid) = kid {
            jwk["kid"] = kid.into();
        }
        jwk
    }
}

/// A file that goes when this does.
pub struct Scrap(pub PathBuf);

impl Scrap {
    pub fn new(content: &str) -> Scrap {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tandem-tokens-{}-{number}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Scrap(path)
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What judges tokens, and a clock that tests set.
pub struct Bench {
    pub tokens: Arc<Tokens>,
    /// Seconds since 1970.
    pub clock: Arc<AtomicU64>,
    _scraps: Vec<Scrap>,
}

/// Configured so, where `{0}`, `{1}` and so on are files with those contents.
pub fn try_bench(configuration: &str, files: &[&str]) -> Result<Bench, String> {
    let scraps: Vec<Scrap> = files.iter().map(|content| Scrap::new(content)).collect();
    let mut text = format!("[tokens]\n{configuration}\n");
    for (number, scrap) in scraps.iter().enumerate() {
        text = text.replace(&format!("{{{number}}}"), scrap.0.to_str().unwrap());
    }
    let settings = Config::parse(&text).unwrap().tokens().map_err(|error| error.to_string())?.unwrap();
    let clock = Arc::new(AtomicU64::new(NOW_S));
    let time = clock.clone();
    let tokens = Tokens::new(settings, Arc::new(move || time.load(Ordering::Relaxed) * 1000))?;
    Ok(Bench { tokens: Arc::new(tokens), clock, _scraps: scraps })
}

pub fn bench(configuration: &str, files: &[&str]) -> Bench {
    try_bench(configuration, files).unwrap_or_else(|error| panic!("{error}"))
}

/// Tokens that the secret signs, and what is said besides.
pub fn by_secret(more: &str) -> Bench {
    let keys = "algorithms = [\"HS256\"]\nkeys = [{ algorithm = \"HS256\", secret_file = \"{0}\" }]";
    bench(&format!("{keys}\n{more}"), &[&format!("{SECRET}\n")])
}

pub fn applicant(realm: &str, user: &str) -> Applicant {
    Applicant { realm: realm.into(), user: user.into(), method: "ticket", session: None, extra: None }
}

impl Bench {
    pub fn judge(&self, token: &str) -> Result<Grant, Refusal> {
        self.tokens.judge(token, &applicant("realm1", ""))
    }

    /// Who it is, and by which role.
    pub fn who(&self, token: &str) -> Result<(String, String), Refusal> {
        let told = |grant: Grant| (grant.principal.id.to_string(), grant.principal.role.to_string());
        self.judge(token).map(told)
    }

    pub fn passes(&self, seconds: u64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }
}

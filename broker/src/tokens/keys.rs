//! The keys that tokens are signed with: where they are, and what each is good for.
//!
//! A key is good for the algorithms that its place says and its kind allows, and for no others: what the header of a
//! token says chooses among them and adds none. A key that has a `kid` is for tokens that name it; one that has none, for
//! tokens that name none. Two keys are never for the same token.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// How long a file of keys may be.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// How many keys there may be.
pub const KEYS_MAX: usize = 64;

/// Shorter RSA keys are not taken: 2048 bits.
const RSA_BYTES_MIN: usize = 256;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Where keys are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// One key.
    One {
        /// Its name, if it has one.
        kid: Option<String>,
        /// What it is for.
        algorithm: Algorithm,
        /// Where it is.
        place: KeyPlace,
    },
    /// A file with a JSON Web Key Set (RFC 7517).
    Set(PathBuf),
}

/// Where one key is.
#[derive(Clone, Debug)]
pub enum KeyPlace {
    /// A public key: a file, PEM.
    Public(PathBuf),
    /// A secret: all of a file but the end of its last line.
    SecretFile(PathBuf),
    /// A secret: a variable of the environment.
    SecretVariable(String),
}

/// A key, and what it is good for.
pub(super) struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// All of them.
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// Reads them. The error says what is wrong, and nothing of a secret.
    pub(super) fn read(sources: &[KeySource], allowed: &[Algorithm]) -> Result<Keys, String> {
        let mut keys = Vec::new();
        for source in sources {
            match source {
                KeySource::One { kid, algorithm, place } => {
                    let key = one(*algorithm, place)?;
                    keys.push(Key { kid: kid.clone(), algorithms: vec![*algorithm], key });
                }
                KeySource::Set(path) => {
                    set(path, allowed, &mut keys).map_err(|why| format!("{}: {why}", path.display()))?;
                }
            }
        }
        if keys.is_empty() {
            return Err("there is no key for any of the algorithms".into());
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("there are more than {KEYS_MAX} keys"));
        }
        for (at, key) in keys.iter().enumerate() {
            let is_same = |other: &&Key| {
                other.kid == key.kid && other.algorithms.iter().any(|one| key.algorithms.contains(one))
            };
            if keys[..at].iter().any(|other| is_same(&other)) {
                let kid = key.kid.as_deref().map_or("none".to_owned(), |kid| format!("{kid:?}"));
                return Err(format!("two keys are for the same algorithm and have the same kid ({kid})"));
            }
        }
        Ok(Keys(keys))
    }

    /// The key for a token that says this.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        self.0.iter().find(|key| key.kid.as_deref() == kid && key.algorithms.contains(&algorithm))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    let result: io::Result<usize> =
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match result {
        Err(error) => Err(error.to_string()),
        Ok(_) if bytes.len() > FILE_BYTES_MAX => Err(format!("longer than {FILE_BYTES_MAX} bytes")),
        Ok(_) => Ok(bytes),
    }
}

fn one(algorithm: Algorithm, place: &KeyPlace) -> Result<DecodingKey, String> {
    match place {
        KeyPlace::Public(path) => {
            let key = read(path).and_then(|pem| public(algorithm, &pem));
            key.map_err(|why| format!("{}: {why}", path.display()))
        }
        KeyPlace::SecretFile(path) => {
            let trimmed = |bytes: &[u8]| {
                let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                bytes.strip_suffix(b"\r").unwrap_or(bytes).to_vec()
            };
            let key = read(path).and_then(|bytes| secret(algorithm, &trimmed(&bytes)));
            key.map_err(|why| format!("{}: {why}", path.display()))
        }
        KeyPlace::SecretVariable(name) => match std::env::var(name) {
            Ok(value) => secret(algorithm, value.as_bytes()).map_err(|why| format!("${name}: {why}")),
            Err(_) => Err(format!("${name} is not set, or not text")),
        },
    }
}

/// RFC 7518, 3.2: as long as the hash at least.
fn secret(algorithm: Algorithm, bytes: &[u8]) -> Result<DecodingKey, String> {
    let bytes_min = match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => return Err(format!("{algorithm:?} takes a public key, not a secret")),
    };
    if bytes.len() < bytes_min {
        return Err(format!("a secret for {algorithm:?} has {bytes_min} bytes or more"));
    }
    Ok(DecodingKey::from_secret(bytes))
}

/// A public key as `openssl pkey -pubout` writes it. Private keys and certificates are called otherwise, and are none.
fn public(algorithm: Algorithm, pem: &[u8]) -> Result<DecodingKey, String> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .map_err(|_| "it is no public key in PEM (BEGIN PUBLIC KEY)".to_owned())?;
    let info = SubjectPublicKeyInfoRef::from_der(&der).map_err(|_| "it is no public key".to_owned())?;
    let bits = info.subject_public_key.as_bytes().ok_or_else(|| "it is no public key".to_owned())?;
    let curve = info.algorithm.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    match (algorithm.family(), info.algorithm.oid) {
        (AlgorithmFamily::Rsa, RSA) if bits.len() < RSA_BYTES_MIN => Err(too_short()),
        (AlgorithmFamily::Rsa, RSA) => Ok(DecodingKey::from_rsa_der(bits)),
        (AlgorithmFamily::Ec, EC) if curve == curve_of(algorithm) => Ok(DecodingKey::from_ec_der(bits)),
        (AlgorithmFamily::Ed, ED25519) => Ok(DecodingKey::from_ed_der(bits)),
        _ => Err(format!("it is no key for {algorithm:?}")),
    }
}

fn curve_of(algorithm: Algorithm) -> Option<ObjectIdentifier> {
    match algorithm {
        Algorithm::ES256 => Some(P256),
        Algorithm::ES384 => Some(P384),
        _ => None,
    }
}

fn too_short() -> String {
    format!("RSA keys have {} bits or more", RSA_BYTES_MIN * 8)
}

/// Takes the keys of a set that are for signatures and one of the algorithms; others are passed over, as RFC 7517
/// (section 5) wants.
fn set(path: &Path, allowed: &[Algorithm], keys: &mut Vec<Key>) -> Result<(), String> {
    let set: JwkSet =
        serde_json::from_slice(&read(path)?).map_err(|error| format!("it is no JWK set: {error}"))?;
    for jwk in set.keys {
        let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let good_for = good_for(&jwk);
        let algorithms: Vec<Algorithm> =
            allowed.iter().copied().filter(|algorithm| good_for.contains(algorithm)).collect();
        if !is_for_signatures || algorithms.is_empty() {
            continue;
        }
        let kid = jwk.common.key_id.clone();
        let name = kid.as_deref().unwrap_or("without kid");
        let refused = |why: String| format!("the key {name:?}: {why}");
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| refused("it is not whole".into()))?;
        check(&jwk, &key, &algorithms).map_err(refused)?;
        keys.push(Key { kid, algorithms, key });
    }
    Ok(())
}

/// What a key can verify: what it says, if its kind allows it.
fn good_for(jwk: &Jwk) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    let by_kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => &[ES256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => &[ES384],
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => &[EdDSA],
        AlgorithmParameters::OctetKey(_) => &[HS256, HS384, HS512],
        _ => &[],
    };
    match jwk.common.key_algorithm {
        None => by_kind.to_vec(),
        Some(said) => match Algorithm::try_from(said) {
            Ok(said) if by_kind.contains(&said) => vec![said],
            Ok(_) | Err(_) => Vec::new(),
        },
    }
}

/// What the set does not make sure of.
fn check(jwk: &Jwk, key: &DecodingKey, algorithms: &[Algorithm]) -> Result<(), String> {
    match &jwk.algorithm {
        // In base64, without leading zeros (RFC 7518, 6.3.1.1).
        AlgorithmParameters::RSA(rsa) if rsa.n.len() < RSA_BYTES_MIN * 4 / 3 => Err(too_short()),
        AlgorithmParameters::OctetKey(_) => {
            let bytes = key.try_get_as_bytes().unwrap_or_default();
            algorithms.iter().try_for_each(|algorithm| secret(*algorithm, bytes).map(drop))
        }
        _ => Ok(()),
    }
}

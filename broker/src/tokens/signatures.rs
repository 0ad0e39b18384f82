//! The signatures of tokens, by the cryptography that TLS is spoken with here.
//!
//! jsonwebtoken brings none of its own: it is told once for the process what to verify with. Where a program that has
//! the broker inside told it before, that stays. Nothing is ever signed.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature as asymmetric;
use ring::signature::{RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes tokens verifiable in this process.
pub(super) fn install() {
    // It fails where somebody did before.
    let _ = PROVIDER.install_default();
}

/// How a signature is judged.
enum Way {
    Hmac(hmac::Algorithm),
    Rsa(&'static RsaParameters),
    Other(&'static dyn VerificationAlgorithm),
}

impl Way {
    fn of(algorithm: Algorithm) -> Option<Way> {
        Some(match algorithm {
            Algorithm::HS256 => Way::Hmac(hmac::HMAC_SHA256),
            Algorithm::HS384 => Way::Hmac(hmac::HMAC_SHA384),
            Algorithm::HS512 => Way::Hmac(hmac::HMAC_SHA512),
            Algorithm::RS256 => Way::Rsa(&asymmetric::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Way::Rsa(&asymmetric::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Way::Rsa(&asymmetric::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Way::Rsa(&asymmetric::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Way::Rsa(&asymmetric::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Way::Rsa(&asymmetric::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => Way::Other(&asymmetric::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Way::Other(&asymmetric::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => Way::Other(&asymmetric::ED25519),
            // One that jsonwebtoken learned since.
            _ => return None,
        })
    }
}

struct Judge {
    algorithm: Algorithm,
    way: Way,
    key: DecodingKey,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // A public key is never taken for a secret.
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    let way = Way::of(*algorithm).ok_or(ErrorKind::InvalidAlgorithm)?;
    Ok(Box::new(Judge { algorithm: *algorithm, way, key: key.clone() }))
}

impl JwtVerifier for Judge {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Judge {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let judged = match (&self.way, self.key.kind()) {
            // In constant time.
            (Way::Hmac(algorithm), DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(*algorithm, secret), message, signature)
            }
            (Way::Rsa(algorithm), DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(*algorithm, key).verify(message, signature)
            }
            (Way::Rsa(algorithm), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature)
            }
            (Way::Other(algorithm), DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(*algorithm, key).verify(message, signature)
            }
            (Way::Hmac(_) | Way::Other(_), DecodingKeyKind::RsaModulusExponent { .. }) => {
                Err(ring::error::Unspecified)
            }
        };
        judged.map_err(|_| signature::Error::new())
    }
}

//! The few functions of cryptography and the notations that several methods share.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How many rounds of PBKDF2 a key may cost, over all its blocks: some seconds.
pub(super) const ROUNDS_MAX: u64 = 10_000_000;

/// What SHA-256 gives.
pub(super) type Hash = [u8; 32];

/// HMAC-SHA256.
pub(super) fn hmac(key: &[u8], message: &[u8]) -> Hash {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// HMAC-SHA256 of something about a user, which is no other user's and no other thing's.
pub(super) fn hmac_of_user(server_secret: &[u8], purpose: &str, authid: &str) -> Hash {
    // No purpose has a zero in it, so that no two pairs are the same bytes.
    hmac(server_secret, [purpose.as_bytes(), b"\0", authid.as_bytes()].concat().as_slice())
}

/// SHA-256.
pub(super) fn sha256(message: &[u8]) -> Hash {
    Sha256::digest(message).into()
}

/// Fills `key` with PBKDF2-HMAC-SHA256.
pub(super) fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
    pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, key);
}

/// Whether two are the same, in a time that tells nothing but their lengths.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// One XOR the other.
pub(super) fn xor(mut a: Hash, b: &Hash) -> Hash {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

/// Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Of base64 in its canonical form.
pub(super) fn unbase64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Of base64 that stands for this many bytes.
pub(super) fn unbase64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    unbase64(text)?.try_into().ok()
}

/// Hexadecimal in small letters.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Of as much hexadecimal, in any letters, as stands for this many bytes.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_there_and_back() {
        assert_eq!(hex(&[0, 0x9f, 0xa0, 255]), "009fa0ff");
        assert_eq!(unhex("009fA0FF"), Some([0, 0x9f, 0xa0, 255]));
        assert!(unhex::<2>("009").is_none() && unhex::<2>("00ffa").is_none() && unhex::<2>("00fg").is_none());
        assert!(unhex::<2>("+0+1").is_none() && unhex::<2>("é00").is_none());
    }

    #[test]
    fn base64_is_canonical_or_nothing() {
        assert_eq!(unbase64("AAE="), Some(vec![0, 1]));
        for text in ["AAE", "AAF=", "AA E=", "AAE=\n", "AA_="] {
            assert_eq!(unbase64(text), None, "{text:?}");
        }
    }

    /// RFC 7914, section 11.
    #[test]
    fn pbkdf2_is_that_of_the_rfc() {
        let mut key = [0; 64];
        pbkdf2(b"passwd", b"salt", 1, &mut key);
        assert!(hex(&key).starts_with("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"));
    }
}

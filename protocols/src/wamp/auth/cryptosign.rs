//! Cryptosign: the client signs what the router chose, with an Ed25519 key.
//!
//! ```text
//! HELLO.authextra         {pubkey: hex(32), channel_binding?: text, challenge?: hex(32)}
//! CHALLENGE.Extra         {challenge: hex(32), channel_binding?: text, pubkey?: hex(32),
//!                          signature?: hex(96)}
//! AUTHENTICATE.Signature  hex(signature || message), 64 and 32 bytes
//! message                 the challenge, XOR the 32 bytes of the channel where it is bound
//! ```
//!
//! Where HELLO has a challenge too, the router signs that one in the same way, and so proves itself first.
//!
//! A binding that the connection does not have is left out of the CHALLENGE, as the specification allows, and
//! it is for the client to go on or not; ours does not. A router that has no key leaves its own proof out
//! likewise. Certificates and trust roots are passed over.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::wamp::auth::channel::ChannelBinding;
use crate::wamp::auth::crypto::{Hash, hex, same, unhex, xor};
use crate::wamp::auth::error::{AuthError, InvalidCredential};
use crate::wamp::dict::Dict;
use crate::wamp::error::Violation;
use crate::wamp::message::{Authenticate, Challenge};
use crate::wamp::options::HelloDetails;

/// The name of the method.
pub const METHOD: &str = "cryptosign";

/// A public key: what a client is found by. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `proof` is a signature of exactly this message, followed by the message.
    fn proves(&self, proof: &str, message: &Hash) -> bool {
        let Some(proof) = unhex::<96>(proof) else { return false };
        let (signature, signed) = proof.split_at(64);
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        same(signed, message) && key.verify_strict(message, &signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, InvalidCredential> {
        let bytes = unhex(text).ok_or(InvalidCredential("a public key is 64 hexadecimal digits"))?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err(InvalidCredential("these digits are no public key of Ed25519")),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A private key. Read from 64 hexadecimal digits, the seed, and forgotten with zeros.
#[derive(Clone)]
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Of 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// As it is read: 64 hexadecimal digits. Not `Display`, lest it be printed by mistake.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(self.0.as_bytes()))
    }

    /// The key by which others check what this one signs.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The signature and the message.
    fn prove(&self, message: &Hash) -> String {
        hex(&self.0.sign(message).to_bytes()) + &hex(message)
    }
}

impl FromStr for PrivateKey {
    type Err = InvalidCredential;

    fn from_str(text: &str) -> Result<Self, InvalidCredential> {
        let seed = unhex(text).map(Zeroizing::new);
        let seed = seed.ok_or(InvalidCredential("a private key is 64 hexadecimal digits"))?;
        Ok(Self::from_seed(&seed))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&self.public_key()).finish()
    }
}

/// What is signed for a challenge.
fn message(challenge: Hash, channel: Option<&Hash>) -> Hash {
    channel.map_or(challenge, |channel| xor(challenge, channel))
}

/// The bytes of a binding, where they are as many as a challenge has.
fn channel_id(binding: ChannelBinding<'_>) -> Option<&Hash> {
    binding.data.try_into().ok()
}

/// 32 bytes of a dictionary, in hexadecimal.
fn hash(dict: &Dict, key: &str) -> Result<Option<Hash>, Violation> {
    dict.read(key, "64 hexadecimal digits", |value| unhex(value.as_str()?))
}

/// What a client says in HELLO.
#[derive(Clone, Debug)]
pub struct CryptosignHello<'a> {
    pubkey: PublicKey,
    binding: Option<&'a str>,
    challenge: Option<Hash>,
}

impl<'a> CryptosignHello<'a> {
    /// Reads HELLO.Details. Whether there is an authid is all one; without, the key alone says who it is.
    ///
    /// # Errors
    ///
    /// [`AuthError::Required`] where there is no key, [`AuthError::Violation`] where something is malformed.
    pub fn parse(details: &HelloDetails<'a>) -> Result<Self, AuthError> {
        let authextra = details.authextra.ok_or(AuthError::Required("authextra.pubkey"))?;
        let pubkey = authextra.str("pubkey")?.ok_or(AuthError::Required("authextra.pubkey"))?;
        let pubkey = pubkey.parse().map_err(|InvalidCredential(why)| Violation::new(why))?;
        let challenge = hash(authextra, "challenge")?;
        Ok(Self { pubkey, binding: authextra.str("channel_binding")?, challenge })
    }

    /// The key, by which the client is to be found. Nothing is proven yet.
    #[must_use]
    pub fn pubkey(&self) -> PublicKey {
        self.pubkey
    }

    /// The router's challenge, and what its answer must be. `random` is never to be used again; `available`
    /// is what the connection can be bound by; `key` is the router's own.
    #[must_use]
    pub fn challenge(
        &self,
        random: [u8; 32],
        available: &[ChannelBinding<'_>],
        key: Option<&PrivateKey>,
    ) -> (Challenge, CryptosignPending) {
        let mut extra = Dict::new().with("challenge", hex(&random));
        let binding = self.binding.and_then(|name| ChannelBinding::find(available, name));
        let bound = binding.and_then(|binding| Some((binding.kind, channel_id(binding)?)));
        if let Some((kind, _)) = bound {
            extra.insert("channel_binding", kind.as_str());
        }
        let channel = bound.map(|(_, channel)| channel);
        if let (Some(challenge), Some(key)) = (self.challenge, key) {
            extra.insert("pubkey", key.public_key().to_string());
            extra.insert("signature", key.prove(&message(challenge, channel)));
        }
        let pending = CryptosignPending { pubkey: self.pubkey, message: message(random, channel) };
        (Challenge { auth_method: METHOD.to_owned(), extra }, pending)
    }
}

/// A challenge that has not been answered.
pub struct CryptosignPending {
    pubkey: PublicKey,
    message: Hash,
}

impl CryptosignPending {
    /// Judges the answer; gives WELCOME.Details.authextra.
    ///
    /// # Errors
    ///
    /// [`AuthError::Denied`].
    pub fn verify(self, authenticate: &Authenticate) -> Result<Dict, AuthError> {
        if self.pubkey.proves(&authenticate.signature, &self.message) {
            Ok(Dict::new())
        } else {
            Err(AuthError::Denied)
        }
    }
}

/// The client's side, from HELLO to AUTHENTICATE.
#[derive(Clone, Debug)]
pub struct CryptosignClient<'a> {
    key: &'a PrivateKey,
    binding: Option<ChannelBinding<'a>>,
    router: Option<(PublicKey, Hash)>,
}

impl<'a> CryptosignClient<'a> {
    /// A client that has this key, and takes the router for what it is.
    #[must_use]
    pub fn new(key: &'a PrivateKey) -> Self {
        Self { key, binding: None, router: None }
    }

    /// The same, and what it signs is bound to the connection. The bytes must be 32.
    #[must_use]
    pub fn with_binding(mut self, binding: ChannelBinding<'a>) -> Self {
        self.binding = Some(binding);
        self
    }

    /// The same, and the router must prove that it has the private key of this one first. `random` is never
    /// to be used again.
    #[must_use]
    pub fn expecting_router(mut self, pubkey: PublicKey, random: [u8; 32]) -> Self {
        self.router = Some((pubkey, random));
        self
    }

    /// HELLO.Details.authextra.
    #[must_use]
    pub fn authextra(&self) -> Dict {
        let mut authextra = Dict::new().with("pubkey", self.key.public_key().to_string());
        if let Some(binding) = &self.binding {
            authextra.insert("channel_binding", binding.kind.as_str());
        }
        if let Some((_, challenge)) = &self.router {
            authextra.insert("challenge", hex(challenge));
        }
        authextra
    }

    /// The client's answer.
    ///
    /// # Errors
    ///
    /// [`AuthError::Violation`] where the challenge is none, [`AuthError::Failed`] where the channel is not
    /// bound as it was asked for, [`AuthError::RouterDenied`] where the router does not prove itself.
    pub fn respond(&self, challenge: &Challenge) -> Result<Authenticate, AuthError> {
        let extra = &challenge.extra;
        let random = hash(extra, "challenge")?.ok_or_else(|| Violation::new("challenge is missing"))?;
        ChannelBinding::confirm(self.binding, extra)?;
        let channel = match self.binding {
            Some(binding) => {
                let unfit = AuthError::Failed("a channel is bound by 32 bytes, and here are others");
                Some(channel_id(binding).ok_or(unfit)?)
            }
            None => None,
        };
        if let Some((pubkey, own)) = self.router {
            let proof = extra.str("signature")?.ok_or(AuthError::RouterDenied)?;
            let named = extra.str("pubkey")?.and_then(unhex);
            if named != Some(pubkey.0) || !pubkey.proves(proof, &message(own, channel)) {
                return Err(AuthError::RouterDenied);
            }
        }
        Ok(Authenticate { signature: self.key.prove(&message(random, channel)), extra: Dict::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wamp::auth::channel::BindingKind;
    use crate::wamp::dict::Value;

    const CHANNEL: &str = "62e935ae755f3d48f80d4d59f6121358c435722a67e859cc0caa8b539027f2ff";

    // Advanced profile, cryptosign, "Test Vectors": whether bound, private key, challenge, signature.
    const VECTORS: [(bool, &str, &str, &str); 6] = [
        (
            false,
            "4d57d97a68f555696620a6d849c0ce582568518d729eb753dc7c732de2804510",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "b32675b221f08593213737bef8240e7c15228b07028e19595294678c90d11c0cae80a357331bfc5cc9fb71081464e6e75013517c2cf067ad566a6b7b728e5d03ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ),
        (
            false,
            "d511fe78e23934b3dadb52fcd022974b80bd92bccc7c5cf404e46cc0a8a2f5cd",
            "b26c1f87c13fc1da14997f1b5a71995dff8fbe0a62fae8473c7bdbd05bfb607d",
            "d4209ad10d5aff6bfbc009d7e924795de138a63515efc7afc6b01b7fe5201372190374886a70207b042294af5bd64ce725cd8dceb344e6d11c09d1aaaf4d660fb26c1f87c13fc1da14997f1b5a71995dff8fbe0a62fae8473c7bdbd05bfb607d",
        ),
        (
            false,
            "6e1fde9cf9e2359a87420b65a87dc0c66136e66945196ba2475990d8a0c3a25b",
            "b05e6b8ad4d69abf74aa3be3c0ee40ae07d66e1895b9ab09285a2f1192d562d2",
            "7beb282184baadd08f166f16dd683b39cab53816ed81e6955def951cb2ddad1ec184e206746fd82bda075af03711d3d5658fc84a76196b0fa8d1ebc92ef9f30bb05e6b8ad4d69abf74aa3be3c0ee40ae07d66e1895b9ab09285a2f1192d562d2",
        ),
        (
            true,
            "4d57d97a68f555696620a6d849c0ce582568518d729eb753dc7c732de2804510",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "9b6f41540c9b95b4b7b281c3042fa9c54cef43c842d62ea3fd6030fcb66e70b3e80d49d44c29d1635da9348d02ec93f3ed1ef227dfb59a07b580095c2b82f80f9d16ca518aa0c2b707f2b2a609edeca73bca8dd59817a633f35574ac6fd80d00",
        ),
        (
            true,
            "d511fe78e23934b3dadb52fcd022974b80bd92bccc7c5cf404e46cc0a8a2f5cd",
            "b26c1f87c13fc1da14997f1b5a71995dff8fbe0a62fae8473c7bdbd05bfb607d",
            "305aaa3ac25e98f651427688b3fc43fe7d8a68a7ec1d7d61c61517c519bd4a427c3015599d83ca28b4c652333920223844ef0725eb5dc2febfd6af7677b73f01d0852a29b460fc92ec943242ac638a053bbacc200512b18b30d15083cbdc9282",
        ),
        (
            true,
            "6e1fde9cf9e2359a87420b65a87dc0c66136e66945196ba2475990d8a0c3a25b",
            "b05e6b8ad4d69abf74aa3be3c0ee40ae07d66e1895b9ab09285a2f1192d562d2",
            "ee3c7644fd8070532bc1fde3d70d742267da545d8c8f03e63bda63f1ad4214f4d2c4bfdb4eb9526def42deeb7e31602a6ff99eba893e0a4ad4d45892ca75e608d2b75e24a189a7f78ca776ba36fc53f6c3e31c32f251f2c524f0a44202f2902d",
        ),
    ];

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32])
    }

    fn channel(data: &[u8]) -> ChannelBinding<'_> {
        ChannelBinding { kind: BindingKind::TlsUnique, data }
    }

    fn hello(authextra: &Dict) -> Result<CryptosignHello<'_>, AuthError> {
        let roles = Default::default();
        let (authmethods, authid, authrole, agent) = (None, None, None, None);
        let authextra = Some(authextra);
        CryptosignHello::parse(&HelloDetails { roles, authmethods, authid, authrole, authextra, agent })
    }

    fn authenticate(signature: &str) -> Authenticate {
        Authenticate { signature: signature.to_owned(), extra: Dict::new() }
    }

    #[test]
    fn the_specifications_vectors_are_signed_and_verified() {
        let data = unhex::<32>(CHANNEL).unwrap();
        for (bound, private, random, signature) in VECTORS {
            let private: PrivateKey = private.parse().unwrap();
            let client = CryptosignClient::new(&private);
            let client = if bound { client.with_binding(channel(&data)) } else { client };
            let authextra = client.authextra();
            let hello = hello(&authextra).unwrap();
            assert_eq!(hello.pubkey(), private.public_key());
            let (challenge, pending) = hello.challenge(unhex(random).unwrap(), &[channel(&data)], None);
            assert_eq!(challenge.extra.str("challenge"), Ok(Some(random)));
            assert_eq!(challenge.extra.str("channel_binding"), Ok(bound.then_some("tls-unique")));
            let answer = client.respond(&challenge).unwrap();
            assert_eq!(answer.signature, signature);
            assert_eq!(pending.verify(&answer), Ok(Dict::new()));
        }
    }

    /// Advanced profile, cryptosign, "Example Message Flow", of which the private key is not known.
    #[test]
    fn the_specifications_client_is_let_in() {
        let pubkey = "545efb0a2192db8d43f118e9bf9aee081466e1ef36c708b96ee6f62dddad9122";
        let random = "fa034062ad76352b53a25358854577730db82f367aa439709c91296d04a5716c";
        let signature = "e2f0297a193b63b7a4a92028e9e2e6107f82730560d54a657bd982cb4b3151490399debbbde998e494d3c3b2a5e2e91271291e10dee85a6cfaa127885ddd8b0afa034062ad76352b53a25358854577730db82f367aa439709c91296d04a5716c";
        let authextra = Dict::new().with("pubkey", pubkey).with("channel_binding", Value::Null);
        let (_, pending) = hello(&authextra).unwrap().challenge(unhex(random).unwrap(), &[], None);
        assert_eq!(pending.verify(&authenticate(signature)), Ok(Dict::new()));
    }

    /// Advanced profile, cryptosign, "Router Authentication".
    #[test]
    fn the_specifications_router_is_believed() {
        let own = unhex("bbae60ea44cdd7b20dc7010a618b0f0803fab25a817520b4b7f057299b524deb").unwrap();
        let router = "4a3838f6fe75251e613329d53fc69b262d5eac97fb1d73bebbaed4015b53c862";
        let random = "0e9192bc08512c8198da159c1ae600ba91729215f35d56102ee318558e773537";
        let signature = "fd5128d2d207ba58a9d1d6f41b72c747964ad9d1294077b3b1eee6130b05843ab12c53c7f2519f73d4feb82db19d8ca0fc26b62bde6518e79a882f5795bc9f00bbae60ea44cdd7b20dc7010a618b0f0803fab25a817520b4b7f057299b524deb";
        let extra = Dict::new().with("challenge", random).with("pubkey", router).with("signature", signature);
        let challenge = Challenge { auth_method: METHOD.to_owned(), extra };
        let key = key(1);
        let client = CryptosignClient::new(&key).expecting_router(router.parse().unwrap(), own);
        assert!(client.respond(&challenge).is_ok());

        let another = CryptosignClient::new(&key).expecting_router(router.parse().unwrap(), [0; 32]);
        assert_eq!(another.respond(&challenge), Err(AuthError::RouterDenied));
    }

    #[test]
    fn both_prove_themselves_on_a_bound_channel() {
        let (key, router, data) = (key(1), key(2), [7; 32]);
        let client = CryptosignClient::new(&key)
            .with_binding(channel(&data))
            .expecting_router(router.public_key(), [3; 32]);
        let authextra = client.authextra();
        let (challenge, pending) =
            hello(&authextra).unwrap().challenge([4; 32], &[channel(&data)], Some(&router));
        assert_eq!(&challenge.extra.str("signature").unwrap().unwrap()[128..], hex(&[3 ^ 7; 32]));
        let answer = client.respond(&challenge).unwrap();
        assert_eq!(&answer.signature[128..], hex(&[4 ^ 7; 32]));
        assert!(pending.verify(&answer).is_ok());

        for (router, signs) in [(&key, true), (&router, false)] {
            let (challenge, _) =
                hello(&authextra).unwrap().challenge([4; 32], &[channel(&data)], signs.then_some(router));
            assert_eq!(client.respond(&challenge), Err(AuthError::RouterDenied));
        }
    }

    #[test]
    fn a_signature_of_another_message_or_key_is_denied() {
        let (own, other, random) = (key(1), key(2), [4; 32]);
        let good = own.prove(&random);
        for signature in [
            "".to_owned(),
            good[..128].to_owned(),
            own.prove(&[5; 32]),
            other.prove(&random),
            good[..128].to_owned() + &hex(&[5; 32]),
            own.prove(&[5; 32])[..128].to_owned() + &hex(&random),
            good.clone() + "00",
            "é".repeat(96),
        ] {
            let authextra = CryptosignClient::new(&own).authextra();
            let (_, pending) = hello(&authextra).unwrap().challenge(random, &[], None);
            assert_eq!(pending.verify(&authenticate(&signature)), Err(AuthError::Denied), "{signature}");
        }
        let authextra = CryptosignClient::new(&own).authextra();
        let (_, pending) = hello(&authextra).unwrap().challenge(random, &[], None);
        assert!(pending.verify(&authenticate(&good.to_uppercase())).is_ok());
    }

    #[test]
    fn a_binding_that_is_not_there_is_left_out_and_our_client_gives_up() {
        let (key, data) = (key(1), [7; 32]);
        let client = CryptosignClient::new(&key).with_binding(channel(&data));
        let authextra = client.authextra();
        let exporter = ChannelBinding { kind: BindingKind::TlsExporter, data: &data };
        for available in [&[][..], &[exporter], &[channel(&data[1..])]] {
            let (challenge, _) = hello(&authextra).unwrap().challenge([4; 32], available, None);
            assert_eq!(challenge.extra.len(), 1);
            assert!(matches!(client.respond(&challenge), Err(AuthError::Failed(_))));
        }
        let unbound = CryptosignClient::new(&key);
        let extra = Dict::new().with("challenge", hex(&data)).with("channel_binding", "tls-unique");
        let challenge = Challenge { auth_method: METHOD.to_owned(), extra };
        assert!(matches!(unbound.respond(&challenge), Err(AuthError::Failed(_))));
    }

    #[test]
    fn a_hello_without_a_good_key_is_refused() {
        let missing = AuthError::Required("authextra.pubkey");
        assert_eq!(hello(&Dict::new()).unwrap_err(), missing);
        assert_eq!(hello(&Dict::new().with("pubkey", Value::Null)).unwrap_err(), missing);
        let good = key(1).public_key().to_string();
        for authextra in [
            Dict::new().with("pubkey", 1_u64),
            Dict::new().with("pubkey", &good[1..]),
            // Of small order: a signature by it would prove nothing.
            Dict::new().with("pubkey", format!("01{}", "0".repeat(62))),
            // On no curve.
            Dict::new().with("pubkey", format!("02{}", "0".repeat(62))),
            Dict::new().with("pubkey", good.as_str()).with("challenge", "00"),
            Dict::new().with("pubkey", good.as_str()).with("channel_binding", true),
        ] {
            assert!(matches!(hello(&authextra), Err(AuthError::Violation(_))), "{authextra:?}");
        }
    }

    #[test]
    fn keys_are_written_and_read() {
        let private = key(9);
        assert_eq!(private.to_hex().parse::<PrivateKey>().unwrap().public_key(), private.public_key());
        assert_eq!(private.public_key().to_string().parse(), Ok(private.public_key()));
        assert!(!format!("{private:?}").contains(&**private.to_hex()));
        assert!("00".parse::<PrivateKey>().is_err());
    }
}

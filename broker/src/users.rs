//! The users of the configuration who have a password, those who bring a token, and who is let in without being one.
//!
//! Passwords are kept as Argon2id hashes. Checking one takes as long for a user that does not exist, and no
//! more checks run at a time than there are processors: a flood of logins cannot take the memory or the time
//! of everybody else.

use std::collections::HashMap;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::config::{Anonymous, Config, ConfigError};
use crate::core::access::{
    Applicant, Authenticating, Authenticator, Credentials, Grant, LookingUp, Peer, Principal, Refusal,
};
use crate::core::realm::Entropy;
use crate::core::secure::CertificateName;
use crate::tokens::{Tokens, is_token};

/// Finds out who somebody is by the configuration.
pub struct Users {
    anonymous: Anonymous,
    /// The role of those who do not say who they are, shared by all of them.
    anonymous_role: Arc<str>,
    /// The role of clients in this process that do not say who they are, if the application has one for them.
    own_role: Option<Arc<str>>,
    by_name: HashMap<String, User>,
    /// Checked in place of a user that does not exist, whatever comes of it: the hash of one that does, if there
    /// is one, since how long a check takes is written in the hash.
    nobody: Arc<str>,
    checks: Arc<Semaphore>,
    tickets_need_tls: bool,
    /// Whose certificate it is that has this fingerprint or name.
    by_certificate: HashMap<CertificateName, Arc<str>>,
    entropy: Entropy,
    /// Judges secrets that are tokens, whoever is named with them.
    tokens: Option<Arc<Tokens>>,
    /// Asked about users that are not in the configuration.
    other: Option<Arc<dyn Authenticator>>,
}

struct User {
    role: Arc<str>,
    /// None for one that proves otherwise who they are.
    hash: Option<Arc<str>>,
}

/// Hashes a password for the configuration.
pub fn hash_password(password: &str) -> Result<String, ConfigError> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|error| ConfigError::Refused(format!("cannot hash this password: {error}")))
}

impl Users {
    /// The users of a configuration. Fails on a password that is not a hash.
    pub fn new(config: &Config, entropy: Entropy) -> Result<Users, ConfigError> {
        let mut by_name = HashMap::new();
        let mut by_certificate = HashMap::new();
        for user in &config.users {
            if user.password.as_deref().is_some_and(|hash| PasswordHash::new(hash).is_err()) {
                let text = format!(
                    "the password of user {:?} is not a hash; make one with `tandem hash-password`",
                    user.name
                );
                return Err(ConfigError::Refused(text));
            }
            for text in &user.certificates {
                let refused = |why| {
                    Err(ConfigError::Refused(format!(
                        "the certificate {text:?} of user {:?} {why}",
                        user.name
                    )))
                };
                let Some(name) = CertificateName::parse(text) else {
                    return refused("is none: write sha256:, dns: or email:, and what is in the certificate");
                };
                if by_certificate.insert(name, user.name.as_str().into()).is_some() {
                    return refused("is there twice");
                }
            }
            let others = user.wampcra.is_some()
                || [&user.scram, &user.cryptosign, &user.certificates].iter().any(|list| !list.is_empty());
            if user.password.is_none() && !others {
                let text = format!("user {:?} has neither a password nor another credential", user.name);
                return Err(ConfigError::Refused(text));
            }
            let hash = user.password.as_deref().map(Arc::from);
            let entry = User { role: user.role.as_str().into(), hash };
            if by_name.insert(user.name.clone(), entry).is_some() {
                return Err(ConfigError::Refused(format!("user {:?} is there twice", user.name)));
            }
        }
        let processors = std::thread::available_parallelism().map_or(1, |number| number.get());
        Ok(Users {
            anonymous: config.authentication.anonymous.unwrap_or_default(),
            anonymous_role: "anonymous".into(),
            own_role: config.embedding.own_role.as_deref().map(Arc::from),
            nobody: match config.users.iter().find_map(|user| user.password.as_deref()) {
                Some(hash) => hash.into(),
                None if by_name.is_empty() && config.tokens.is_none() => "".into(),
                None => hash_password("nobody")?.into(),
            },
            by_name,
            checks: Arc::new(Semaphore::new(processors)),
            tickets_need_tls: config.authentication.tickets_need_tls,
            by_certificate,
            entropy,
            tokens: None,
            other: None,
        })
    }

    /// The same, and tokens are judged by these.
    pub fn taking(self, tokens: Option<Arc<Tokens>>) -> Users {
        Users { tokens, ..self }
    }

    /// The same, and another authenticator is asked about users that are not in the configuration.
    pub fn asking(self, other: Arc<dyn Authenticator>) -> Users {
        Users { other: Some(other), ..self }
    }
}

impl Authenticator for Users {
    fn anonymous(&self, peer: &Peer) -> Option<Principal> {
        if let (Some(role), Peer::Local) = (&self.own_role, peer) {
            return Some(Principal::new("application", role.clone(), "anonymous"));
        }
        let allowed = match self.anonymous {
            Anonymous::Loopback => peer.is_loopback(),
            Anonymous::Everywhere => true,
            Anonymous::Never => false,
        };
        allowed.then(|| {
            let id = format!("anonymous-{:016x}", (self.entropy)());
            Principal::new(id, self.anonymous_role.clone(), "anonymous")
        })
    }

    fn recognize(&self, peer: &Peer, user: Option<&str>) -> Option<Principal> {
        let mut found = peer
            .certificate()?
            .names()
            .filter_map(|name| self.by_certificate.get(&name))
            .filter(|name| user.is_none_or(|user| ***name == *user));
        let name = found.next()?;
        // One that is good for several must be told whom it is meant for.
        if found.any(|other| other != name) {
            return None;
        }
        let role = self.by_name.get(&**name)?.role.clone();
        Some(Principal::new(name.clone(), role, "tls"))
    }

    fn takes_secrets(&self, peer: &Peer) -> bool {
        !self.tickets_need_tls || peer.is_private()
    }

    fn authenticate(&self, credentials: Credentials, peer: &Peer) -> Authenticating {
        if !self.takes_secrets(peer) {
            return Box::pin(std::future::ready(Err(Refusal::NotPrivate)));
        }
        if let Some(tokens) = &self.tokens
            && is_token(&credentials.secret)
        {
            let judged = tokens.judge(&credentials.secret, &credentials.applicant);
            return Box::pin(std::future::ready(judged));
        }
        if let Some(other) = &self.other
            && !self.by_name.contains_key(&*credentials.applicant.user)
        {
            return other.authenticate(credentials, peer);
        }
        let Credentials { applicant: Applicant { user, method, .. }, secret } = credentials;
        if self.by_name.is_empty() && self.tokens.is_none() {
            // Clients that must always send some login get in like those who send none.
            let principal = self.anonymous(peer).map(Grant::from).ok_or(Refusal::WrongSecret);
            return Box::pin(async move { principal });
        }
        let known = self.by_name.get(&*user).and_then(|known| Some((&known.role, known.hash.as_ref()?)));
        let hash = known.map_or(&self.nobody, |(_, hash)| hash).clone();
        let role = known.map(|(role, _)| role.clone());
        let checks = self.checks.clone();
        Box::pin(async move {
            let permit = checks.acquire_owned().await.map_err(|_| Refusal::AuthenticationFailed)?;
            let check = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let hash = PasswordHash::new(&hash).map_err(|_| Refusal::AuthenticationFailed)?;
                let right = Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok();
                if right { Ok(()) } else { Err(Refusal::WrongSecret) }
            });
            check.await.map_err(|_| Refusal::AuthenticationFailed)??;
            Ok(Principal::new(user, role.ok_or(Refusal::WrongSecret)?, method).into())
        })
    }

    fn takes_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    fn renew(&self, credentials: &Credentials, peer: &Peer) -> Result<Grant, Refusal> {
        if !self.takes_secrets(peer) {
            return Err(Refusal::NotPrivate);
        }
        let tokens = self.tokens.as_ref().ok_or(Refusal::WrongSecret)?;
        tokens.judge(&credentials.secret, &credentials.applicant)
    }

    fn looks_up(&self, method: &str) -> bool {
        self.other.as_ref().is_some_and(|other| other.looks_up(method))
    }

    fn look_up(&self, applicant: Applicant, peer: &Peer) -> LookingUp {
        match &self.other {
            Some(other) => other.look_up(applicant, peer),
            None => Box::pin(std::future::ready(Err(Refusal::WrongSecret))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::secure::{Certificate, Secure};

    fn users(anonymous: &str) -> Users {
        let hash = hash_password("secret").unwrap();
        let text = format!(
            "[authentication]\nanonymous = {anonymous:?}\n[[users]]\nname = \"alice\"\npassword = {hash:?}\n"
        );
        Users::new(&Config::parse(&text).unwrap(), Arc::new(|| 7)).unwrap()
    }

    async fn login(users: &Users, user: &str, secret: &str) -> Result<Principal, Refusal> {
        let applicant = Applicant {
            realm: "realm1".into(),
            user: user.into(),
            method: "ticket",
            session: None,
            extra: None,
        };
        let credentials = Credentials { applicant, secret: secret.into() };
        users.authenticate(credentials, &Peer::Local).await.map(|grant| grant.principal)
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_lets_in() {
        let users = users("never");
        assert_eq!(&*login(&users, "alice", "secret").await.unwrap().id, "alice");
        assert_eq!(login(&users, "alice", "Secret").await, Err(Refusal::WrongSecret));
        assert_eq!(login(&users, "bob", "nobody").await, Err(Refusal::WrongSecret));
        assert!(users.anonymous(&Peer::Local).is_none());
    }

    #[test]
    fn anonymous_is_for_this_machine_unless_it_is_for_everybody() {
        let far = Peer::Socket("192.0.2.1:5".parse().unwrap());
        let near = Peer::Socket("[::ffff:127.0.0.1]:5".parse().unwrap());
        assert!(users("loopback").anonymous(&far).is_none());
        assert!(users("loopback").anonymous(&near).is_some());
        assert!(users("everywhere").anonymous(&far).is_some());
    }

    #[tokio::test]
    async fn a_user_may_have_no_password_but_must_have_something() {
        let user = "[authentication]\nanonymous = \"never\"\n[[users]]\nname = \"alice\"\n";
        let users = |text: &str| Users::new(&Config::parse(text).unwrap(), Arc::new(|| 7));
        assert!(users(user).is_err());
        let users = users(&format!("{user}cryptosign = [\"00\"]\n")).unwrap();
        for secret in ["nobody", ""] {
            assert_eq!(login(&users, "alice", secret).await, Err(Refusal::WrongSecret));
        }
    }

    fn with_certificates(text: &str) -> Result<Users, ConfigError> {
        let user =
            |name, certificates| format!("[[users]]\nname = {name:?}\ncertificates = [{certificates}]\n");
        let all = user("alice", "\"dns:Alice.example\", \"email:alice@example.com\"") + &user("bob", text);
        Users::new(&Config::parse(&all).unwrap(), Arc::new(|| 7))
    }

    fn showing(dns_names: &[&str], emails: &[&str]) -> Peer {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let certificate = Certificate {
            fingerprint: [0xAB; 32],
            dns_names: owned(dns_names),
            emails: owned(emails),
            common_name: Some("bob".to_owned()),
        };
        let address = "192.0.2.1:5".parse().unwrap();
        Peer::Secure(Arc::new(Secure { address, exporter: None, certificate: Some(certificate) }))
    }

    #[test]
    fn a_certificate_is_that_of_whom_one_of_its_names_is_of_exactly() {
        let users = with_certificates("\"dns:bob.example\"").unwrap();
        let who = |peer: &Peer, user| users.recognize(peer, user).map(|principal| principal.id.to_string());
        assert_eq!(who(&showing(&["alice.EXAMPLE"], &[]), None).unwrap(), "alice");
        assert_eq!(who(&showing(&["x.example"], &["alice@example.com"]), Some("alice")).unwrap(), "alice");
        for (dns_names, emails) in [
            (&[][..], &[][..]),
            (&["*.example", "www.alice.example", "alice.example.", "alice.example\0.evil", "bob"], &[]),
            (&["alice@example.com"], &["alice.example", "Alice@example.com"]),
        ] {
            assert_eq!(who(&showing(dns_names, emails), None), None);
        }
        assert_eq!(who(&showing(&["alice.example"], &[]), Some("bob")), None);
        assert!(users.recognize(&Peer::Local, None).is_none());
        // Good for two: it must be said which.
        let both = showing(&["alice.example", "bob.example"], &[]);
        assert_eq!(who(&both, None), None);
        assert_eq!(who(&both, Some("bob")).unwrap(), "bob");
        assert_eq!(users.recognize(&both, Some("bob")).unwrap().method, "tls");
    }

    #[test]
    fn a_fingerprint_is_read_as_openssl_writes_it() {
        for text in ["ab".repeat(32), ["AB"; 32].join(":")] {
            let users = with_certificates(&format!("\"sha256:{text}\"")).unwrap();
            assert_eq!(&*users.recognize(&showing(&[], &[]), None).unwrap().id, "bob");
        }
    }

    #[test]
    fn what_names_no_certificate_or_that_of_another_is_refused() {
        let short = format!("sha256:{}", "ab".repeat(31));
        for text in
            ["bob", "cn:bob", "dns:", "sha256:00", &short, "email:alice@example.com", "dns:ALICE.example"]
        {
            let error = with_certificates(&format!("{text:?}")).err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains("bob")), "{text}: {error:?}");
        }
    }

    #[tokio::test]
    async fn where_tickets_need_tls_they_are_not_even_looked_at_in_the_clear() {
        let mut users = users("never");
        users.tickets_need_tls = true;
        let login = async |peer: &Peer| {
            let applicant = Applicant {
                realm: "realm1".into(),
                user: "alice".into(),
                method: "ticket",
                session: None,
                extra: None,
            };
            let credentials = Credentials { applicant, secret: "secret".into() };
            users.authenticate(credentials, peer).await.map(|grant| grant.principal.id.to_string())
        };
        let far = Peer::Socket("192.0.2.1:5".parse().unwrap());
        assert_eq!(login(&far).await, Err(Refusal::NotPrivate));
        assert_eq!(login(&showing(&[], &[])).await.unwrap(), "alice");
        assert_eq!(login(&Peer::Local).await.unwrap(), "alice");
        users.tickets_need_tls = false;
        assert!(users.takes_secrets(&far));
    }

    #[test]
    fn a_password_in_plain_text_is_refused() {
        let config = Config::parse("[[users]]\nname = \"alice\"\npassword = \"secret\"\n").unwrap();
        assert!(Users::new(&config, Arc::new(|| 7)).is_err());
    }
}

//! `[tokens]`: whose tokens are believed, as written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{Config, ConfigError};
use crate::core::access::ADMIN_ROLE;
use crate::tokens::{Algorithm, Claim, KeyPlace, KeySource, TokenSettings, algorithm};

/// The most that clocks may be said to differ, in seconds.
const LEEWAY_S_MAX: u64 = 600;

/// The longest token that may be allowed: what fits into an opening handshake.
const BYTES_MAX: usize = 15 * 1024;

/// Tokens (JWT) that say who somebody is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokensConfig {
    /// How they may be signed: `HS256`, `HS384`, `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`,
    /// `ES256`, `ES384`, `EdDSA`.
    pub algorithms: Vec<String>,
    /// The keys that they are signed with. All are read again at a SIGHUP.
    pub keys: Vec<TokenKeyConfig>,
    /// A file with more of them: a JSON Web Key Set.
    pub jwks: Option<PathBuf>,
    /// Whom they are for: one of these is in `aud`. By default they may have no `aud`.
    pub audience: Vec<String>,
    /// Who may make them: one of these is in `iss`. By default whoever has a key.
    pub issuer: Vec<String>,
    /// How far clocks may differ, in seconds. By default 60.
    pub leeway_s: Option<u64>,
    /// The claim that has the user. By default `sub`. Where it begins with `/`, it is a JSON pointer.
    pub user_claim: Option<String>,
    /// The claim that has the role, or a list of them; or a JSON pointer.
    pub role_claim: Option<String>,
    /// The roles that tokens can give. Of several in one token, the first of this list is the user's.
    pub roles: Vec<String>,
    /// The role of whom a token gives none. By default they are refused, or, without `role_claim`, `user`.
    pub role: Option<String>,
    /// The claim that has the realm, or a list of them, that a token is good for; or a JSON pointer. By default they
    /// are good for all.
    pub realm_claim: Option<String>,
    /// The longest token, in bytes. By default 8192.
    pub bytes_max: Option<usize>,
}

/// A key that tokens are signed with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKeyConfig {
    /// Its name: it is for tokens that have this `kid`. Without it, for those that have none.
    pub kid: Option<String>,
    /// The algorithm, one of `algorithms`.
    pub algorithm: String,
    /// The file of a public key, PEM.
    pub file: Option<PathBuf>,
    /// The file of a secret, for `HS256` and its like.
    pub secret_file: Option<PathBuf>,
    /// The variable of the environment that has a secret.
    pub secret_env: Option<String>,
}

fn refused<T>(why: impl std::fmt::Display) -> Result<T, ConfigError> {
    Err(ConfigError::Refused(format!("tokens.{why}")))
}

impl TokensConfig {
    fn algorithms(&self) -> Result<Vec<Algorithm>, ConfigError> {
        let known = |word: &String| match algorithm(word) {
            Some(algorithm) => Ok(algorithm),
            None => {
                refused(format!("algorithms: there is no {word:?}, but HS256, RS256, ES256, EdDSA and so on"))
            }
        };
        if self.algorithms.is_empty() {
            return refused("algorithms: say how tokens may be signed, as in [\"RS256\"]");
        }
        self.algorithms.iter().map(known).collect()
    }

    fn keys(&self, algorithms: &[Algorithm]) -> Result<Vec<KeySource>, ConfigError> {
        let one =
            |TokenKeyConfig { kid, algorithm: word, file, secret_file, secret_env }: &TokenKeyConfig| {
                let known = algorithm(word).filter(|algorithm| algorithms.contains(algorithm));
                let Some(algorithm) = known else {
                    return refused(format!("keys: the algorithm {word:?} is not among tokens.algorithms"));
                };
                let place = match (file, secret_file, secret_env) {
                    (Some(file), None, None) => KeyPlace::Public(file.clone()),
                    (None, Some(file), None) => KeyPlace::SecretFile(file.clone()),
                    (None, None, Some(name)) => KeyPlace::SecretVariable(name.clone()),
                    _ => return refused("keys: each has one of file, secret_file and secret_env"),
                };
                Ok(KeySource::One { kid: kid.clone(), algorithm, place })
            };
        let mut keys = self.keys.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        keys.extend(self.jwks.clone().map(KeySource::Set));
        if keys.is_empty() {
            return refused("keys: say whose tokens are believed, in [[tokens.keys]] or tokens.jwks");
        }
        Ok(keys)
    }

    fn settings(&self) -> Result<TokenSettings, ConfigError> {
        let algorithms = self.algorithms()?;
        let keys = self.keys(&algorithms)?;
        let roles: Vec<Arc<str>> = self.roles.iter().map(|role| role.as_str().into()).collect();
        let roles = match &self.role_claim {
            Some(_) if roles.is_empty() => {
                return refused(format!(
                    "roles: say which roles a token may give by role_claim ({ADMIN_ROLE:?} only if it may)"
                ));
            }
            None if !roles.is_empty() => return refused("roles: they are of no use without role_claim"),
            claim => claim.clone().map(|claim| (Claim::new(claim), roles)),
        };
        let role = self.role.clone().or_else(|| roles.is_none().then(super::default_role));
        let leeway_s = self.leeway_s.unwrap_or(60);
        if leeway_s > LEEWAY_S_MAX {
            return refused(format!("leeway_s: at most {LEEWAY_S_MAX}"));
        }
        let bytes_max = self.bytes_max.unwrap_or(8192);
        if !(64..=BYTES_MAX).contains(&bytes_max) {
            return refused(format!("bytes_max: from 64 to {BYTES_MAX}"));
        }
        let claims = [&self.user_claim, &self.role_claim, &self.realm_claim];
        if claims.into_iter().flatten().any(|claim| matches!(claim.as_str(), "" | "/")) {
            return refused("user_claim, role_claim and realm_claim: an empty one names nothing");
        }
        Ok(TokenSettings {
            algorithms,
            keys,
            audience: self.audience.clone(),
            issuer: self.issuer.clone(),
            leeway: Duration::from_secs(leeway_s),
            user_claim: Claim::new(self.user_claim.as_deref().unwrap_or("sub")),
            roles,
            role: role.map(Arc::from),
            realm_claim: self.realm_claim.clone().map(Claim::new),
            bytes_max,
        })
    }
}

impl Config {
    /// Whose tokens are believed, if any are.
    pub fn tokens(&self) -> Result<Option<TokenSettings>, ConfigError> {
        self.tokens.as_ref().map(TokensConfig::settings).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "[tokens]\nalgorithms = [\"HS256\"]\n\
                          keys = [{ algorithm = \"HS256\", secret_env = \"SECRET\" }]\n";

    #[test]
    fn what_is_not_said_of_tokens_has_a_default() {
        let settings = Config::parse(SECRET).unwrap().tokens().unwrap().unwrap();
        assert_eq!(settings.user_claim, Claim::new("sub"));
        assert_eq!((settings.leeway, settings.bytes_max), (Duration::from_secs(60), 8192));
        assert_eq!((settings.role.as_deref(), settings.roles.is_none()), (Some("user"), true));
        assert!(Config::default().tokens().unwrap().is_none());
        // They are enough to let somebody in.
        let nobody = format!("authentication.anonymous = \"never\"\n{SECRET}");
        Config::parse(&nobody).unwrap().check().unwrap();
        let claim = format!("{SECRET}role_claim = \"roles\"\nroles = [\"a\"]\n");
        assert!(Config::parse(&claim).unwrap().tokens().unwrap().unwrap().role.is_none());
    }

    #[test]
    fn what_is_wrong_with_tokens_is_said_by_its_key() {
        for (text, said) in [
            ("[tokens]\n".to_owned(), "tokens.algorithms"),
            (SECRET.replace("[\"HS256\"]", "[\"none\"]"), "tokens.algorithms: there is no \"none\""),
            (SECRET.replace("[\"HS256\"]", "[\"RS256\"]"), "tokens.keys: the algorithm \"HS256\""),
            ("[tokens]\nalgorithms = [\"RS256\"]\n".to_owned(), "tokens.keys: say whose"),
            (SECRET.replace("secret_env", "file = \"f\", secret_env"), "tokens.keys: each has one"),
            (format!("{SECRET}role_claim = \"roles\"\n"), "tokens.roles: say which"),
            (format!("{SECRET}roles = [\"a\"]\n"), "tokens.roles: they are of no use"),
            (format!("{SECRET}leeway_s = 601\n"), "tokens.leeway_s"),
            (format!("{SECRET}bytes_max = 1000000\n"), "tokens.bytes_max"),
            (format!("{SECRET}user_claim = \"\"\n"), "tokens.user_claim"),
        ] {
            let error = Config::parse(&text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}

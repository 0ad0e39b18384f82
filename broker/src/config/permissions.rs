//! `[[permissions]]`: who may do what, as written.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::{Config, ConfigError, Match};
use crate::core::access::Action;
use crate::core::access::rules::{Effect, InvalidRules, Rule, Rules};
use crate::core::name::{InvalidName, Name, Pattern};

/// How long an authorizer's answer is kept where it is kept and nothing is said, in seconds.
const CACHE_S: u64 = 60;

/// The longest that may be said.
const CACHE_S_MAX: u64 = 24 * 60 * 60;

/// A permission, or a prohibition.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// The role that it is for, or `*` for all.
    pub role: String,
    /// The realm that it is for. By default all.
    pub realm: Option<String>,
    /// What may be done: a list of `publish`, `subscribe`, `call`, `register`, `send` and `consume`, or `*`.
    pub actions: Actions,
    /// With which topic, procedure or queue, or with what is matched.
    pub name: String,
    /// How names are matched. In a wildcard a last component `#` stands for any number of components.
    #[serde(default, rename = "match")]
    pub policy: Match,
    /// Whether it may be done.
    pub allow: Option<bool>,
    /// Whether subscribers and callees are told who publishes and calls. By default as whoever does it wishes.
    pub disclose: Option<bool>,
    /// In place of `allow`: the procedure that decides.
    pub authorizer: Option<String>,
    /// Whether what the authorizer says is kept. By default not.
    pub cache: Option<bool>,
    /// How long, in seconds. By default 60.
    pub cache_s: Option<u64>,
}

/// `"*"`, or words.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Actions {
    /// One word.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Config {
    /// The rules of a realm.
    pub fn rules(&self, realm: &str) -> Result<Rules, ConfigError> {
        self.rules_where(|permission| permission.realm.as_deref().is_none_or(|own| own == realm))
    }

    fn rules_where(&self, is_meant: impl Fn(&Permission) -> bool) -> Result<Rules, ConfigError> {
        let numbered = self.permissions.iter().map(Spanned::get_ref).zip(1..);
        let own = numbered.filter(|(permission, _)| is_meant(permission));
        let mut rules: Vec<Rule> =
            own.map(|(permission, number)| permission.rule(number)).collect::<Result<_, _>>()?;
        if self.permissions.is_empty() && self.embedding.has_authorizer {
            rules.push(ask_always());
        }
        let rules = Rules::new(rules);
        rules.map_err(|error: InvalidRules| ConfigError::Refused(format!("permissions: {error}")))
    }

    /// Checks all permissions, also those for realms that are not there.
    pub(super) fn check_permissions(&self) -> Result<(), ConfigError> {
        let asks = self.permissions.iter().any(|permission| permission.get_ref().authorizer.is_some());
        if self.embedding.has_authorizer && !self.permissions.is_empty() && !asks {
            let why = "permissions: none of them leaves anything to the application's authorizer";
            return Err(ConfigError::Refused(why.into()));
        }
        for (permission, number) in self.permissions.iter().map(Spanned::get_ref).zip(1..) {
            permission.rule(number)?;
            let may_be = |realm: &String| {
                let made = self
                    .realm_patterns()
                    .is_ok_and(|patterns| patterns.iter().any(|known| known.pattern.matches(realm)));
                made || self.realms().contains(realm)
            };
            if let Some(realm) = permission.realm.as_ref().filter(|realm| !may_be(realm)) {
                return Err(permission.refused(number, format!("there is no realm {realm:?}")));
            }
        }
        // What holds of all rules together holds of those of any realm.
        self.rules_where(|_| true).map(drop)
    }

    /// The line on which a permission begins, in the text that the configuration was parsed from.
    pub fn line_of_permission(&self, number: usize, text: &str) -> Option<usize> {
        let start = self.permissions.get(number.checked_sub(1)?)?.span().start;
        Some(text.as_bytes().get(..start)?.iter().filter(|byte| **byte == b'\n').count() + 1)
    }
}

/// Where an application decides and nothing is written, it decides everything.
fn ask_always() -> Rule {
    let authorizer = Name::parse("application").expect("it is a word");
    let pattern = Pattern::prefix("").expect("every name begins with nothing");
    let effect = Effect::Ask { authorizer, keep: None };
    Rule { number: 1, role: None, actions: Action::ALL.to_vec(), pattern, effect }
}

impl Permission {
    fn rule(&self, number: usize) -> Result<Rule, ConfigError> {
        let refused = |why: String| self.refused(number, why);
        if self.role.is_empty() {
            return Err(refused("the role is empty".into()));
        }
        let actions = self.actions.parse().map_err(refused)?;
        let pattern = pattern(&self.name, self.policy);
        let pattern = pattern.map_err(|why| refused(format!("the name {:?} {why}", self.name)))?;
        let effect = self.effect().map_err(refused)?;
        if self.disclose.is_some() && !actions.iter().any(|a| matches!(a, Action::Publish | Action::Call)) {
            return Err(refused("disclose is about those who publish and call".into()));
        }
        let role = (self.role != "*").then(|| self.role.as_str().into());
        Ok(Rule { number, role, actions, pattern, effect })
    }

    fn effect(&self) -> Result<Effect, String> {
        let Permission { allow, disclose, authorizer, cache, cache_s, .. } = self;
        if authorizer.is_none() && (cache.is_some() || cache_s.is_some()) {
            return Err("cache and cache_s are about what an authorizer says".into());
        }
        match (allow, authorizer) {
            (None, None) => Err("it says neither allow nor authorizer".into()),
            (Some(_), Some(_)) => Err("it says both allow and authorizer".into()),
            (Some(false), None) if disclose.is_some() => {
                Err("what is not allowed cannot be disclosed".into())
            }
            (Some(false), None) => Ok(Effect::Deny),
            (Some(true), None) => Ok(Effect::Allow { disclose: *disclose }),
            (None, Some(_)) if disclose.is_some() => Err("the authorizer says what is disclosed".into()),
            (None, Some(authorizer)) => {
                let why = |why| format!("the authorizer {authorizer:?} {why}");
                let seconds = cache_s.unwrap_or(CACHE_S);
                if seconds == 0 || seconds > CACHE_S_MAX {
                    return Err(format!("cache_s is from 1 to {CACHE_S_MAX}"));
                }
                let keep = (*cache == Some(true)).then(|| Duration::from_secs(seconds));
                if cache_s.is_some() && keep.is_none() {
                    return Err("cache_s needs cache = true".into());
                }
                Ok(Effect::Ask { authorizer: Name::parse(authorizer).map_err(why)?, keep })
            }
        }
    }

    fn refused(&self, number: usize, why: String) -> ConfigError {
        ConfigError::Refused(format!("permission {number}, for {:?}: {why}", self.role))
    }
}

impl fmt::Display for Permission {
    /// As it is written, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "role = {:?}", self.role)?;
        if let Some(realm) = &self.realm {
            write!(f, ", realm = {realm:?}")?;
        }
        match &self.actions {
            Actions::One(word) => write!(f, ", actions = {word:?}")?,
            Actions::Many(words) => write!(f, ", actions = {words:?}")?,
        }
        write!(f, ", name = {:?}", self.name)?;
        match self.policy {
            Match::Exact => {}
            Match::Prefix => f.write_str(", match = \"prefix\"")?,
            Match::Wildcard => f.write_str(", match = \"wildcard\"")?,
        }
        let said = [("allow", self.allow), ("disclose", self.disclose), ("cache", self.cache)];
        for (key, value) in said {
            if let Some(value) = value {
                write!(f, ", {key} = {value}")?;
            }
        }
        if let Some(authorizer) = &self.authorizer {
            write!(f, ", authorizer = {authorizer:?}")?;
        }
        self.cache_s.map_or(Ok(()), |seconds| write!(f, ", cache_s = {seconds}"))
    }
}

impl Actions {
    fn parse(&self) -> Result<Vec<Action>, String> {
        let words = match self {
            Actions::One(word) => std::slice::from_ref(word),
            Actions::Many(words) => words,
        };
        if words.is_empty() {
            return Err("it is for no action".into());
        }
        if words.iter().any(|word| word == "*") {
            return Ok(Action::ALL.into());
        }
        let known = Action::ALL.map(Action::as_str).join(", ");
        let parse = |word: &String| {
            Action::from_word(word).ok_or_else(|| format!("{word:?} is no action: there are {known}, and *"))
        };
        let mut actions = words.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        actions.sort_by_key(|action| *action as usize);
        actions.dedup();
        Ok(actions)
    }
}

/// What a name means under a policy. A wildcard may end in `#`, as destinations of STOMP do.
pub fn pattern(text: &str, policy: Match) -> Result<Pattern, InvalidName> {
    match (policy, text.strip_suffix('#')) {
        (Match::Exact, _) => Name::parse(text).map(Pattern::exact),
        (Match::Prefix, _) => Pattern::prefix(text),
        (Match::Wildcard, Some("")) => Pattern::components([], true),
        (Match::Wildcard, Some(parts)) if parts.ends_with('.') => {
            let parts = parts[..parts.len() - 1].split('.').map(|part| (!part.is_empty()).then_some(part));
            Pattern::components(parts, true)
        }
        (Match::Wildcard, _) => Pattern::wildcard(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::Principal;
    use crate::core::access::rules::Judgement;

    fn config(rule: &str) -> Config {
        Config::parse(&format!("[[permissions]]\n{rule}\n")).unwrap()
    }

    #[test]
    fn a_malformed_permission_is_refused_with_what_is_wrong() {
        for (rule, said) in [
            (
                "role = \"r\"\nactions = [\"fly\"]\nname = \"a\"\nallow = true",
                "\"fly\" is no action: there are publish,",
            ),
            ("role = \"r\"\nactions = []\nname = \"a\"\nallow = true", "for no action"),
            ("role = \"\"\nactions = \"*\"\nname = \"a\"\nallow = true", "the role is empty"),
            ("role = \"r\"\nactions = \"*\"\nname = \"\"\nallow = true", "the name \"\" is empty"),
            ("role = \"r\"\nactions = \"*\"\nname = \"a..b\"\nallow = true", "has an empty component"),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a.#\"\nmatch = \"prefix\"\nallow = true",
                "contains '#'",
            ),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a.#.b\"\nmatch = \"wildcard\"\nallow = true",
                "contains '#'",
            ),
            ("role = \"r\"\nactions = \"*\"\nname = \"a\"", "neither allow nor authorizer"),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a\"\nallow = true\nauthorizer = \"x\"",
                "both allow and authorizer",
            ),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a\"\nallow = false\ndisclose = true",
                "cannot be disclosed",
            ),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a\"\nauthorizer = \"x..y\"",
                "the authorizer \"x..y\" has an",
            ),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a\"\nauthorizer = \"x\"\ndisclose = true",
                "the authorizer says",
            ),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a\"\nallow = true\ncache = true",
                "about what an authorizer says",
            ),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a\"\nauthorizer = \"x\"\ncache_s = 5",
                "needs cache = true",
            ),
            (
                "role = \"r\"\nactions = \"*\"\nname = \"a\"\nauthorizer = \"x\"\ncache = true\ncache_s = 0",
                "from 1 to",
            ),
            (
                "role = \"r\"\nactions = \"send\"\nname = \"a\"\nallow = true\ndisclose = true",
                "publish and call",
            ),
            (
                "role = \"r\"\nrealm = \"other\"\nactions = \"*\"\nname = \"a\"\nallow = true",
                "no realm \"other\"",
            ),
        ] {
            let error = config(rule).check().unwrap_err().to_string();
            assert!(error.starts_with("permission 1, for ") && error.contains(said), "{rule}\n{error}");
        }
        let error =
            Config::parse("[[permissions]]\nrole = \"r\"\nactions = \"*\"\nname = \"a\"\nallowed = true\n");
        assert!(error.unwrap_err().to_string().contains("did you mean `allow`?"));
    }

    #[test]
    fn a_permission_for_a_realm_says_nothing_in_others() {
        let text = "realms = [\"one\", \"two\"]\n[[permissions]]\nrole = \"*\"\nrealm = \"two\"\nactions = \"*\"\n\
                    name = \"a.#\"\nmatch = \"wildcard\"\nallow = true\n";
        let config = Config::parse(text).unwrap();
        config.check().unwrap();
        assert!(config.rules("one").unwrap().is_open());
        let rules = config.rules("two").unwrap();
        let who = Principal::new("joe", "user", "test");
        for (name, allowed) in [("a", true), ("a.b.c", true), ("ab", false)] {
            let judgement = rules.judge(&who, Action::Call, name);
            assert_eq!(matches!(judgement, Judgement::Allowed { .. }), allowed, "{name}");
        }
    }

    #[test]
    fn a_permission_knows_its_line_and_is_written_as_it_was() {
        let text = "listen = []\n\n[[permissions]]\nrole = \"*\"\nactions = \"*\"\nname = \"a\"\nallow = true\n\n# more\n\
                    [[permissions]]\nrole = \"r\"\nactions = [\"call\"]\nname = \"b.\"\nmatch = \"prefix\"\n\
                    authorizer = \"x\"\ncache = true\ncache_s = 5\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(
            [1, 2, 3, 0].map(|number| config.line_of_permission(number, text)),
            [Some(3), Some(10), None, None]
        );
        let written = "role = \"r\", actions = [\"call\"], name = \"b.\", match = \"prefix\", cache = true, \
                       authorizer = \"x\", cache_s = 5";
        assert_eq!(config.permissions[1].get_ref().to_string(), written);
    }
}

//! How the language spells patterns: a text and a match policy.

use tandem_protocols::wamp::options::MatchPolicy;

use crate::core::name::{InvalidName, MatchKind, Name, Pattern};

/// What stands in the place of a match policy for patterns that the language has none for: components with a tail,
/// as STOMP's `a.#`.
pub(super) const TAIL: &str = "tail";

/// What a topic or procedure means under a match policy.
pub(super) fn pattern(text: &str, policy: MatchPolicy) -> Result<Pattern, InvalidName> {
    match policy {
        MatchPolicy::Exact => Name::parse(text).map(Pattern::exact),
        MatchPolicy::Prefix => Pattern::prefix(text),
        MatchPolicy::Wildcard => Pattern::wildcard(text),
    }
}

/// The word for a pattern's match policy.
pub(super) fn policy_word(pattern: &Pattern) -> &'static str {
    let has_tail = pattern.parts().is_some_and(|(_, has_tail)| has_tail);
    match pattern.kind() {
        MatchKind::Exact => MatchPolicy::Exact.as_str(),
        MatchKind::Prefix => MatchPolicy::Prefix.as_str(),
        MatchKind::Components if has_tail => TAIL,
        MatchKind::Components => MatchPolicy::Wildcard.as_str(),
    }
}

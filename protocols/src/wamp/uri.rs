//! URIs: names of realms, topics, procedures and errors.
//!
//! ```text
//! uri       = component *( "." component )
//! pattern   = [ component ] *( "." [ component ] )      ; for prefix and wildcard only, may be empty
//! component = 1*char
//! char      = loose:  any but whitespace, ".", "#"
//!             strict: "0" to "9", "a" to "z", "_"
//! ```
//!
//! Whitespace is Unicode's. Beyond the specification, loose components have no control characters either:
//! they have been used to smuggle commands into what a name is passed on to (CVE-2026-58213).

use crate::wamp::error::{INVALID_URI, Violation};

/// Which characters a component may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Rule {
    /// Nearly all.
    #[default]
    Loose,
    /// Digits, lower case ASCII letters and the underscore.
    Strict,
}

impl Rule {
    fn admits(self, component: &str) -> bool {
        match self {
            Self::Loose => component.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '#'),
            Self::Strict => component.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'_')),
        }
    }
}

/// Whether `text` is a URI: at least one component, and none empty.
#[must_use]
pub fn is_uri(text: &str, rule: Rule) -> bool {
    text.split('.').all(|component| !component.is_empty() && rule.admits(component))
}

/// Whether `text` is a pattern for the match policies prefix and wildcard: components may be empty.
#[must_use]
pub fn is_pattern(text: &str, rule: Rule) -> bool {
    text.split('.').all(|component| rule.admits(component))
}

/// Accepts a URI.
///
/// # Errors
///
/// A [`Violation`] with `wamp.error.invalid_uri`.
pub fn check_uri(text: &str, rule: Rule) -> Result<(), Violation> {
    if is_uri(text, rule) { Ok(()) } else { Err(Violation::with_uri(INVALID_URI, "invalid URI")) }
}

/// Accepts a pattern.
///
/// # Errors
///
/// A [`Violation`] with `wamp.error.invalid_uri`.
pub fn check_pattern(text: &str, rule: Rule) -> Result<(), Violation> {
    if is_pattern(text, rule) { Ok(()) } else { Err(Violation::with_uri(INVALID_URI, "invalid URI pattern")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loose URI, strict URI, loose pattern, strict pattern.
    const TABLE: &[(&str, [bool; 4])] = &[
        ("", [false, false, true, true]),
        (".", [false, false, true, true]),
        ("..", [false, false, true, true]),
        (".a", [false, false, true, true]),
        ("a.", [false, false, true, true]),
        ("a..b", [false, false, true, true]),
        ("a.b.", [false, false, true, true]),
        (".A", [false, false, true, false]),
        ("A..B", [false, false, true, false]),
        ("a", [true, true, true, true]),
        ("a.b", [true, true, true, true]),
        ("a.b.c", [true, true, true, true]),
        ("0", [true, true, true, true]),
        ("_", [true, true, true, true]),
        ("a1.b_2.3c", [true, true, true, true]),
        ("com.myapp.mytopic1", [true, true, true, true]),
        ("A", [true, false, true, false]),
        ("A.B.C", [true, false, true, false]),
        ("aB", [true, false, true, false]),
        ("*", [true, false, true, false]),
        ("a.*", [true, false, true, false]),
        ("a-b", [true, false, true, false]),
        ("a/b", [true, false, true, false]),
        ("a:b", [true, false, true, false]),
        ("http://example", [true, false, true, false]),
        ("\u{e4}.\u{4e2d}", [true, false, true, false]),
        ("#", [false, false, false, false]),
        ("a#b", [false, false, false, false]),
        ("a.#", [false, false, false, false]),
        (" ", [false, false, false, false]),
        (" a", [false, false, false, false]),
        ("a ", [false, false, false, false]),
        ("a b", [false, false, false, false]),
        ("a. .b", [false, false, false, false]),
        ("a\t", [false, false, false, false]),
        ("a\n", [false, false, false, false]),
        ("a\u{a0}b", [false, false, false, false]),
        ("a\u{3000}b", [false, false, false, false]),
        ("a\u{2028}b", [false, false, false, false]),
        ("a\0b", [false, false, false, false]),
        ("a\u{1b}b", [false, false, false, false]),
    ];

    #[test]
    fn what_is_a_uri_and_what_a_pattern() {
        for (text, expected) in TABLE {
            let found = [
                is_uri(text, Rule::Loose),
                is_uri(text, Rule::Strict),
                is_pattern(text, Rule::Loose),
                is_pattern(text, Rule::Strict),
            ];
            assert_eq!(found, *expected, "{text:?}");
            assert_eq!(check_uri(text, Rule::Loose).is_ok(), expected[0]);
            assert_eq!(check_pattern(text, Rule::Strict).is_ok(), expected[3]);
        }
        assert_eq!(check_uri("", Rule::Loose).unwrap_err().uri(), INVALID_URI);
    }
}

//! Names and patterns: what a topic, a queue or a procedure is called, and how many of them are meant at once.
//!
//! ```text
//! name      = component *( "." component )          at most 64 components and 512 bytes
//! component = 1*( any character but "." "#", whitespace and controls )
//! exact     = name
//! prefix    = any beginning of a name, character by character; may be empty, may end in "."
//! parts     = part *( "." part ) [ ".#" ] / "#"     part: a component, or nothing, which is a hole
//! ```
//!
//! The rule for names is WAMP's loose one, less control characters, which no peer needs in an address and which
//! have been smuggled through addresses into other protocols. `*` and `>` are ordinary characters here: how a
//! language spells its holes and tails is known in its wing, not in the house.

mod covers;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest name or pattern, in bytes.
pub const NAME_BYTES_MAX: usize = 512;

/// The most components a name or pattern may have. A set of holes is a `u64` because of it.
pub const COMPONENTS_MAX: usize = 64;

const _: () = assert!(COMPONENTS_MAX <= u64::BITS as usize);

/// Why a string is not a name, or not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing at all: a name, or a list of parts, without one component.
    #[error("is empty")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`COMPONENTS_MAX`] components.
    #[error("has more than {COMPONENTS_MAX} components")]
    TooManyComponents,
    /// Two dots side by side, or a dot at either end.
    #[error("has an empty component")]
    EmptyComponent,
    /// Whitespace, in Unicode's sense.
    #[error("contains whitespace")]
    Whitespace,
    /// A control character.
    #[error("contains a control character")]
    Control,
    /// A `#`, which every language here keeps for itself.
    #[error("contains '#'")]
    Hash,
    /// A part handed over as one component is really several.
    #[error("has a component that contains '.'")]
    Dot,
}

/// The concrete name of a topic, a queue or a procedure. Cheap to clone.
///
/// ```
/// use tandem_broker::core::name::{InvalidName, Name};
///
/// let name = Name::parse("com.example.topic")?;
/// assert_eq!(name.components().collect::<Vec<_>>(), ["com", "example", "topic"]);
/// assert_eq!(Name::parse("com..topic"), Err(InvalidName::EmptyComponent));
/// # Ok::<(), InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes a string for a name, if it is one.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the string.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        // Each publication comes by here: what nearly all names are like is seen in one pass.
        if !is_plain(text.as_bytes()) {
            check_name(text)?;
        }
        Ok(Self(text.into()))
    }

    /// The name as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands between the dots, first to last.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The three ways in which a pattern means names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchKind {
    /// The one name that is spelled so.
    Exact,
    /// Every name that begins with these characters.
    Prefix,
    /// Every name that has these components, holes filled as it likes, and with a tail any more below.
    Components,
}

impl fmt::Display for MatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Components => "components",
        })
    }
}

/// A set of names. Cheap to clone; equal when kind and spelling are.
///
/// ```
/// use tandem_broker::core::name::{InvalidName, Pattern};
///
/// assert!(Pattern::prefix("com.ex")?.matches("com.example.topic"));
/// assert!(Pattern::wildcard("com..topic")?.matches("com.example.topic"));
/// assert!(Pattern::components([Some("com")], true)?.matches("com.example.topic"));
/// # Ok::<(), InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Form);

/// What is inside a pattern, for those who must tell the kinds apart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Exact(Name),
    Prefix(Arc<str>),
    Components(Parts),
}

/// Components with holes and perhaps a tail, kept as their one spelling: no character of a component is `.` or `#`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Parts(Arc<str>);

impl Pattern {
    /// The pattern that means one name.
    #[must_use]
    pub fn exact(name: Name) -> Self {
        Self(Form::Exact(name))
    }

    /// The pattern that means every name beginning with `text`, character by character: `a.b` means `a.bc` too.
    ///
    /// # Errors
    ///
    /// If no name could contain `text` for its length or its characters. Empty components are allowed.
    pub fn prefix(text: &str) -> Result<Self, InvalidName> {
        check_extent(text)?;
        check_characters(text)?;
        Ok(Self(Form::Prefix(text.into())))
    }

    /// The pattern that means every name with the components of `text`, of which the empty ones are holes.
    /// Without a hole it means one name, and yet is another pattern than the exact one.
    ///
    /// # Errors
    ///
    /// If no name could be like `text` for its length or its characters.
    pub fn wildcard(text: &str) -> Result<Self, InvalidName> {
        check_extent(text)?;
        check_characters(text)?;
        Ok(Self(Form::Components(Parts(text.into()))))
    }

    /// The pattern made of `parts`, of which `None` is a hole. With a tail it also means everything below:
    /// `a` with a tail means `a`, `a.b` and `a.b.c`; no part at all with a tail means every name.
    ///
    /// # Errors
    ///
    /// If a part is not one component, or there are too many of them, or there is neither part nor tail.
    pub fn components<'a>(
        parts: impl IntoIterator<Item = Option<&'a str>>,
        tail: bool,
    ) -> Result<Self, InvalidName> {
        let mut text = String::new();
        let mut count = 0;
        for part in parts {
            match part {
                Some("") => return Err(InvalidName::EmptyComponent),
                Some(part) if part.contains('.') => return Err(InvalidName::Dot),
                Some(part) => check_characters(part)?,
                None => {}
            }
            if count > 0 {
                text.push('.');
            }
            text.push_str(part.unwrap_or_default());
            count += 1;
            check_extent(&text)?;
        }
        match (count, tail) {
            (0, false) => return Err(InvalidName::Empty),
            (0, true) => text.push('#'),
            (_, true) => text.push_str(".#"),
            (_, false) => {}
        }
        Ok(Self(Form::Components(Parts(text.into()))))
    }

    /// In which way it means names.
    #[must_use]
    pub fn kind(&self) -> MatchKind {
        match &self.0 {
            Form::Exact(_) => MatchKind::Exact,
            Form::Prefix(_) => MatchKind::Prefix,
            Form::Components(_) => MatchKind::Components,
        }
    }

    /// How it was spelled: the name, the prefix, or the components with nothing in each hole, and `#` for a tail.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Exact(name) => name.as_str(),
            Form::Prefix(text) | Form::Components(Parts(text)) => text,
        }
    }

    /// The one name of an exact pattern.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match &self.0 {
            Form::Exact(name) => Some(name),
            Form::Prefix(_) | Form::Components(_) => None,
        }
    }

    /// The parts of a pattern of components, `None` for a hole, and whether there is a tail.
    /// Other kinds have no parts.
    #[must_use]
    pub fn parts(&self) -> Option<(impl Iterator<Item = Option<&str>>, bool)> {
        match &self.0 {
            Form::Components(parts) => Some((parts.iter(), parts.has_tail())),
            Form::Exact(_) | Form::Prefix(_) => None,
        }
    }

    /// Whether `name` is one of those that are meant. This is the rule itself; to ask many patterns at once, see
    /// [`Index`](super::index::Index), which must agree with it.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.0 {
            Form::Exact(exact) => exact.as_str() == name,
            Form::Prefix(text) => name.starts_with(&**text),
            Form::Components(parts) => {
                let mut components = name.split('.');
                parts.iter().all(|part| match (part, components.next()) {
                    (_, None) => false,
                    (None, Some(_)) => true,
                    (Some(part), Some(component)) => part == component,
                }) && (parts.has_tail() || components.next().is_none())
            }
        }
    }

    pub(super) fn form(&self) -> &Form {
        &self.0
    }

    /// The pattern of `text`, a spelling that came out of a prefix pattern.
    pub(super) fn prefix_again(text: &str) -> Self {
        Self(Form::Prefix(text.into()))
    }

    /// The pattern of `text`, a spelling that came out of a pattern of components.
    pub(super) fn components_again(text: &str) -> Self {
        Self(Form::Components(Parts(text.into())))
    }
}

impl fmt::Display for Pattern {
    /// As for a log: `a.b`, `a.b (prefix)`, `a..b (components)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            MatchKind::Exact => f.write_str(self.as_str()),
            kind @ (MatchKind::Prefix | MatchKind::Components) => {
                write!(f, "{} ({kind})", self.as_str())
            }
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

impl Parts {
    /// The parts, first to last; `None` is a hole.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        let parts = match self.0.strip_suffix('#') {
            None => Some(&*self.0),
            Some("") => None,
            Some(with_dot) => with_dot.strip_suffix('.'),
        };
        parts
            .into_iter()
            .flat_map(|parts| parts.split('.'))
            .map(|part| if part.is_empty() { None } else { Some(part) })
    }

    pub(super) fn has_tail(&self) -> bool {
        self.0.ends_with('#')
    }

    /// Where the holes are: bit `n` for part `n`.
    pub(super) fn holes(&self) -> u64 {
        self.iter().enumerate().filter(|(_, part)| part.is_none()).fold(0, |holes, (n, _)| holes | 1 << n)
    }
}

/// Whether this is a name of visible ASCII. False says nothing.
fn is_plain(text: &[u8]) -> bool {
    let (mut dots, mut last) = (0, b'.');
    for &byte in text {
        match byte {
            b'.' if last == b'.' => return false,
            b'.' => dots += 1,
            b'#' => return false,
            b'!'..=b'~' => {}
            _ => return false,
        }
        last = byte;
    }
    last != b'.' && dots < COMPONENTS_MAX && text.len() <= NAME_BYTES_MAX
}

/// The long way, which says what is wrong.
fn check_name(text: &str) -> Result<(), InvalidName> {
    check_extent(text)?;
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    check_characters(text)?;
    if text.split('.').any(str::is_empty) {
        return Err(InvalidName::EmptyComponent);
    }
    Ok(())
}

fn check_extent(text: &str) -> Result<(), InvalidName> {
    if text.len() > NAME_BYTES_MAX {
        return Err(InvalidName::TooLong);
    }
    if text.bytes().filter(|&byte| byte == b'.').count() >= COMPONENTS_MAX {
        return Err(InvalidName::TooManyComponents);
    }
    Ok(())
}

fn check_characters(text: &str) -> Result<(), InvalidName> {
    for character in text.chars() {
        if character == '#' {
            return Err(InvalidName::Hash);
        }
        // Tabs and line ends are both; whitespace is the clearer thing to be told.
        if character.is_whitespace() {
            return Err(InvalidName::Whitespace);
        }
        if character.is_control() {
            return Err(InvalidName::Control);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(pattern: &Pattern) -> (Vec<Option<&str>>, bool) {
        let (parts, tail) = pattern.parts().expect("a pattern of components");
        (parts.collect(), tail)
    }

    #[test]
    fn both_ways_to_look_at_a_name_agree() {
        use proptest::test_runner::{Config, TestRunner};
        let text = proptest::string::string_regex(
            "([a.#*> \\n\\x00\\x7f!~é\u{3000}-]|[ -~]){0,12}|(a\\.){60,68}a?|a{508,516}",
        );
        let mut runner =
            TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
        let agree = runner.run(&text.unwrap(), |text| {
            if is_plain(text.as_bytes()) {
                proptest::prop_assert_eq!(check_name(&text), Ok(()));
            }
            let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
            proptest::prop_assert!(!is_visible || is_plain(text.as_bytes()) == check_name(&text).is_ok());
            Ok(())
        });
        agree.unwrap();
    }

    #[test]
    fn names_are_the_loose_uris_of_wamp_without_control_characters() {
        for valid in ["a", "a.b", "A.B.C", "*", "a.>", "größe.日本", "a-b_c/d:e", "com.myapp.topic1"] {
            assert_eq!(Name::parse(valid).map(|name| name.to_string()).as_deref(), Ok(valid));
        }
        let invalid = [
            ("", InvalidName::Empty),
            (".", InvalidName::EmptyComponent),
            ("a.", InvalidName::EmptyComponent),
            (".a", InvalidName::EmptyComponent),
            ("a..b", InvalidName::EmptyComponent),
            (" a", InvalidName::Whitespace),
            ("a.b\n", InvalidName::Whitespace),
            ("a\u{3000}b", InvalidName::Whitespace),
            ("a\0", InvalidName::Control),
            ("a\u{7f}", InvalidName::Control),
            ("a\u{9b}b", InvalidName::Control),
            ("a.#", InvalidName::Hash),
        ];
        for (text, error) in invalid {
            assert_eq!(Name::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_name_has_at_most_512_bytes_and_64_components() {
        assert!(Name::parse(&"n".repeat(512)).is_ok());
        assert_eq!(Name::parse(&"n".repeat(513)), Err(InvalidName::TooLong));
        assert!(Name::parse(&vec!["n"; 64].join(".")).is_ok());
        assert_eq!(Name::parse(&vec!["n"; 65].join(".")), Err(InvalidName::TooManyComponents));
    }

    #[test]
    fn a_pattern_has_the_same_limits() {
        assert!(Pattern::prefix(&"n".repeat(512)).is_ok());
        assert_eq!(Pattern::prefix(&"n".repeat(513)), Err(InvalidName::TooLong));
        assert!(Pattern::wildcard(&".".repeat(63)).is_ok());
        assert_eq!(Pattern::wildcard(&".".repeat(64)), Err(InvalidName::TooManyComponents));
        assert!(Pattern::components([None; 64], true).is_ok());
        assert_eq!(Pattern::components([None; 65], true), Err(InvalidName::TooManyComponents));
        let endless = std::iter::repeat(Some("part"));
        assert_eq!(Pattern::components(endless, true), Err(InvalidName::TooManyComponents));
    }

    #[test]
    fn patterns_may_have_empty_components_but_no_forbidden_characters() {
        for text in ["", ".", "com.", "com..", "com", ".com"] {
            assert_eq!(Pattern::prefix(text).map(|p| p.as_str().to_owned()).as_deref(), Ok(text));
            assert_eq!(Pattern::wildcard(text).map(|p| p.as_str().to_owned()).as_deref(), Ok(text));
        }
        for (text, error) in
            [("a b", InvalidName::Whitespace), ("a.#", InvalidName::Hash), ("a\0", InvalidName::Control)]
        {
            assert_eq!(Pattern::prefix(text), Err(error));
            assert_eq!(Pattern::wildcard(text), Err(error));
        }
        assert_eq!(Pattern::components([Some("")], true), Err(InvalidName::EmptyComponent));
        assert_eq!(Pattern::components([Some("a.b")], true), Err(InvalidName::Dot));
        assert_eq!(Pattern::components([Some("#")], true), Err(InvalidName::Hash));
        assert_eq!(Pattern::components([], false), Err(InvalidName::Empty));
    }

    #[test]
    fn parts_come_back_as_they_went_in() {
        let cases: [(&[Option<&str>], bool, &str); 7] = [
            (&[], true, "#"),
            (&[None], false, ""),
            (&[None], true, ".#"),
            (&[Some("a")], true, "a.#"),
            (&[None, None], false, "."),
            (&[Some("a"), None, Some("c")], false, "a..c"),
            (&[Some("a"), None], true, "a..#"),
        ];
        for (given, tail, spelling) in cases {
            let pattern = Pattern::components(given.iter().copied(), tail).expect("valid parts");
            assert_eq!(pattern.as_str(), spelling);
            assert_eq!(parts(&pattern), (given.to_vec(), tail));
        }
        let wildcard = Pattern::wildcard("a..c").expect("valid");
        assert_eq!(wildcard, Pattern::components([Some("a"), None, Some("c")], false).expect("valid"));
    }

    #[test]
    fn patterns_of_one_spelling_differ_by_kind() {
        let exact = Pattern::exact(Name::parse("a.b").expect("valid"));
        let prefix = Pattern::prefix("a.b").expect("valid");
        let wildcard = Pattern::wildcard("a.b").expect("valid");
        assert!(exact != prefix && prefix != wildcard && wildcard != exact);
        assert_eq!(
            [exact.kind(), prefix.kind(), wildcard.kind()],
            [MatchKind::Exact, MatchKind::Prefix, MatchKind::Components]
        );
        assert_eq!(format!("{exact}, {prefix}, {wildcard}"), "a.b, a.b (prefix), a.b (components)");
    }

    #[test]
    fn a_prefix_counts_characters_and_a_wildcard_components() {
        let prefix = |text| Pattern::prefix(text).expect("valid");
        let wildcard = |text| Pattern::wildcard(text).expect("valid");
        let tail = |parts: &[_]| Pattern::components(parts.iter().copied(), true).expect("valid");
        let cases = [
            (prefix("com.myapp.topic.emergency"), "com.myapp.topic.emergency", true),
            (prefix("com.myapp.topic.emergency"), "com.myapp.topic.emergency-low", true),
            (prefix("com.myapp.topic.emergency"), "com.myapp.topic.emergency.low", true),
            (prefix("com.myapp.topic.emergency"), "com.myapp.topic.emerge", false),
            (prefix("a."), "a", false),
            (prefix(""), "a.b", true),
            (wildcard("com.myapp..userevent"), "com.myapp.foo.userevent", true),
            (wildcard("com.myapp..userevent"), "com.myapp.foo.bar.userevent", false),
            (wildcard("com.myapp..userevent"), "com.myapp.foo.user", false),
            (wildcard("com.myapp..userevent"), "com.myapp.userevent", false),
            (wildcard(""), "a", true),
            (wildcard(""), "a.b", false),
            (wildcard("."), "a.b", true),
            (wildcard("a."), "a.b", true),
            (wildcard("a.b"), "a.b", true),
            (tail(&[Some("a")]), "a", true),
            (tail(&[Some("a")]), "a.b.c", true),
            (tail(&[Some("a")]), "ab", false),
            (tail(&[Some("a"), None]), "a", false),
            (tail(&[Some("a"), None]), "a.b", true),
            (tail(&[]), "a.b", true),
        ];
        for (pattern, name, matches) in cases {
            assert_eq!(pattern.matches(name), matches, "{pattern} and {name}");
        }
    }
}

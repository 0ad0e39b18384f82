//! The headers of a frame: what is asked of them is mostly whether one is there that is not.

use std::fmt;

use smallvec::SmallVec;

use crate::stomp::error::Violation;

/// Headers that need no memory beside that of their text.
const ENDS_INLINE: usize = 6;

/// Names and values in their order, without escapes.
///
/// A name may be repeated; then the first one counts. All text lies in one piece, so that the headers of a
/// frame cost one allocation, few as they mostly are, and hold on to no buffer of a connection.
#[derive(Clone, Default)]
pub struct Headers {
    /// As in a frame, with an octet after each name and each value.
    text: String,
    ends: SmallVec<[Ends; ENDS_INLINE]>,
    marks: Marks,
    /// Two names have the same mark, and may be the same.
    may_repeat: bool,
}

/// Where a name and its value end in the text. The value begins behind the octet after its name, and the next header
/// behind the one after its value.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) name: u32,
    pub(super) value: u32,
}

/// Some names of headers, as one bit of 64 for each of them, so that of most names it is known at once that they are
/// not among those of a frame.
///
/// ```
/// use tandem_protocols::stomp::headers::{Headers, Marks};
///
/// const QUEUE_ARGUMENTS: Marks = Marks::of(&["x-expires", "x-max-length"]);
/// let headers: Headers = [("destination", "/queue/a"), ("x-expires", "10")].into_iter().collect();
/// assert!(headers.may_have(QUEUE_ARGUMENTS));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u64);

impl Marks {
    /// Those of all these names.
    pub const fn of(names: &[&str]) -> Self {
        let (mut marks, mut at) = (0, 0);
        while at < names.len() {
            marks |= Self::mark(names[at].as_bytes()).0;
            at += 1;
        }
        Self(marks)
    }

    /// That of one name. The names that are in nearly every frame share theirs with none that the broker asks for.
    #[inline]
    pub(super) const fn mark(name: &[u8]) -> Self {
        let Some(last) = name.len().checked_sub(1) else { return Self(1) };
        let (first, middle, last) = (name[0] as u32, name[last / 2] as u32, name[last] as u32);
        let sum = (name.len() as u32).wrapping_mul(MARK_FACTORS[0])
            ^ first.wrapping_mul(MARK_FACTORS[1])
            ^ middle.wrapping_mul(MARK_FACTORS[2])
            ^ last.wrapping_mul(MARK_FACTORS[3]);
        Self(1 << (sum >> 26))
    }

    /// Those of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether some name may be in both.
    #[inline]
    pub const fn meet(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Odd numbers, of a few thousand that were tried those that keep the marks of most names apart.
const MARK_FACTORS: [u32; 4] = [0x4D33_44C1, 0x69FE_92F3, 0xCE9E_8AB7, 0xAF0C_BF4F];

impl Headers {
    /// No headers. Allocates nothing.
    pub const fn new() -> Self {
        Self { text: String::new(), ends: SmallVec::new_const(), marks: Marks(0), may_repeat: false }
    }

    /// No headers, with room for `count` of them with `bytes` octets of text.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        let text = String::with_capacity(bytes + 2 * count);
        Self { text, ends: SmallVec::with_capacity(count), ..Self::new() }
    }

    /// Appends a header. If the name is there already, the older one goes on to count.
    ///
    /// # Panics
    ///
    /// When there are 4 GiB of headers.
    pub fn push(&mut self, name: &str, value: &str) {
        let end = |text: &String| u32::try_from(text.len()).expect("headers take less than 4 GiB");
        self.text.push_str(name);
        let name_end = end(&self.text);
        self.text.push(':');
        self.text.push_str(value);
        let ends = Ends { name: name_end, value: end(&self.text) };
        self.text.push('\n');
        self.note(name.as_bytes(), ends);
    }

    /// Notes where a header lies in the text that the rest of it is to be given, by [`lay`](Self::lay).
    #[inline]
    pub(super) fn note(&mut self, name: &[u8], ends: Ends) {
        let mark = Marks::mark(name);
        self.may_repeat |= self.marks.meet(mark);
        self.marks = self.marks.and(mark);
        self.ends.push(ends);
    }

    /// Gives headers that were noted their text.
    pub(super) fn lay(&mut self, text: &str) {
        self.text.clear();
        self.text.push_str(text);
    }

    /// Forgets all of them, and keeps their memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        (self.marks, self.may_repeat) = (Marks(0), false);
    }

    /// Octets of heap that their text has.
    pub const fn heap_bytes(&self) -> usize {
        self.text.capacity()
    }

    /// Whether some header may have one of these names. If not, none has.
    #[inline]
    pub const fn may_have(&self, names: Marks) -> bool {
        self.marks.meet(names)
    }

    /// The value of the first header of that name.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&str> {
        // A reader asks for many that are not there.
        if self.may_have(Marks::mark(name.as_bytes())) { self.find(name) } else { None }
    }

    fn find(&self, name: &str) -> Option<&str> {
        let text = self.text.as_bytes();
        let mut start = 0;
        for ends in &self.ends {
            let end = ends.name as usize;
            if end - start == name.len() && &text[start..end] == name.as_bytes() {
                return Some(&self.text[end + 1..ends.value as usize]);
            }
            start = ends.value as usize + 1;
        }
        None
    }

    /// The value of the first header of that name, which the frame must have.
    #[inline]
    pub fn require(&self, name: &str) -> Result<&str, Violation> {
        self.get(name).ok_or_else(|| Violation::missing_header(name))
    }

    /// All headers in their order, with the repeated ones that do not count.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |ends| {
            let (name, value) = (ends.name as usize, ends.value as usize);
            let header = (&self.text[start..name], &self.text[name + 1..value]);
            start = value + 1;
            header
        })
    }

    /// The headers that count: the first one of each name.
    ///
    /// Compares names with those before them, if any two may be the same, which the reader's limit on headers makes
    /// bearable.
    pub fn unique(&self) -> impl Iterator<Item = (&str, &str)> {
        let before = self.iter();
        let repeats = move |(at, header): &(usize, (&str, &str))| {
            self.may_repeat && before.clone().take(*at).any(|other| other.0 == header.0)
        };
        self.iter().enumerate().filter(move |header| !repeats(header)).map(|(_, header)| header)
    }

    /// How many headers there are, repeated ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Octets of all names and values.
    pub fn text_bytes(&self) -> usize {
        self.text.len() - 2 * self.ends.len()
    }

    /// Drops the blanks with which 1.0 pads values, as in `login: guest`.
    pub fn trim_values(&mut self) {
        if self.iter().all(|header| trimmed(header.1) == header.1) {
            return;
        }
        *self = self.iter().map(|(name, value)| (name, trimmed(value))).collect();
    }
}

/// A value without leading blanks.
pub(super) fn trimmed(value: &str) -> &str {
    value.trim_start_matches([' ', '\t'])
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut all = Self::new();
        for (name, value) in headers {
            all.push(name.as_ref(), value.as_ref());
        }
        all
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

/// Shows everything but passwords.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| (name, if name == "passcode" { "***" } else { value }));
        f.debug_list().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_repeated_headers_counts() {
        let headers: Headers = [("foo", "1"), ("bar", ""), ("foo", "2")].into_iter().collect();
        assert_eq!(headers.get("foo"), Some("1"), "G7");
        assert_eq!(headers.get("bar"), Some(""));
        assert_eq!(headers.get("Foo"), None, "G1: case matters");
        assert_eq!(headers.len(), 3);
        assert!(headers.unique().eq([("foo", "1"), ("bar", "")]));
        assert_eq!(headers.require("id").unwrap_err(), Violation::missing_header("id"));
    }

    #[test]
    fn padding_is_trimmed_at_the_start_of_values_only() {
        let mut headers: Headers = [(" a", " \tb "), ("c", "d")].into_iter().collect();
        headers.trim_values();
        assert!(headers.iter().eq([(" a", "b "), ("c", "d")]));
    }

    #[test]
    fn names_with_the_same_mark_are_told_apart() {
        // Length, first, middle and last octet are the same.
        let headers: Headers = [("abcd", "1"), ("abxd", "2"), ("", "3")].into_iter().collect();
        assert_eq!(
            ["abcd", "abxd", "abyd", ""].map(|name| headers.get(name)),
            [Some("1"), Some("2"), None, Some("3")]
        );
        assert_eq!(headers.unique().count(), 3);
        assert_eq!(headers.text_bytes(), 11);
    }

    #[test]
    fn marks_say_what_is_not_there() {
        let headers: Headers = [("destination", "a"), ("content-type", "b")].into_iter().collect();
        assert!(headers.may_have(Marks::of(&["other", "content-type"])));
        assert!(!Headers::new().may_have(Marks::of(&["destination"])));
        assert!(!headers.may_have(Marks::of(&["transaction", "receipt"])));
    }

    #[test]
    fn more_headers_than_have_room_inline_are_headers_like_others() {
        let names: Vec<String> = (0..3 * ENDS_INLINE).map(|number| format!("name-{number}")).collect();
        let headers: Headers = names.iter().map(|name| (name, name)).collect();
        assert!(names.iter().all(|name| headers.get(name) == Some(name)));
        assert!(headers.unique().eq(headers.iter()));
    }
}

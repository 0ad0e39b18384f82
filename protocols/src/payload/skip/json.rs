//! The extent of a JSON value of the usual kind.
//!
//! Each byte is looked at once, and nothing is built. What is nested deeper than a word has bits, and what is not
//! JSON, is left to serde_json, which has an error for it.

use memchr::memchr2;

/// The length of the value that `input` begins with; `None` leaves it to serde_json. Bytes beyond ASCII may be
/// anything: whether they are UTF-8 is known already, or to be found out.
pub(super) fn usual(input: &[u8]) -> Option<usize> {
    let mut scan = Scan { input, at: 0 };
    scan.value()?;
    Some(scan.at)
}

/// Whether there is a control character, which JSON has only in escapes.
#[inline]
pub(crate) fn has_control(text: &[u8]) -> bool {
    // No early end, so that it is done for many bytes at once.
    text.iter().fold(false, |found, byte| found | (*byte < 0x20))
}

/// What closes the containers that are open. Of each there is a bit: whether it is an object.
struct Open {
    objects: u64,
    count: u32,
}

impl Open {
    fn push(&mut self, is_object: bool) -> Option<()> {
        if self.count == u64::BITS {
            return None;
        }
        self.objects = self.objects << 1 | u64::from(is_object);
        self.count += 1;
        Some(())
    }

    fn pop(&mut self) {
        self.objects >>= 1;
        self.count -= 1;
    }

    /// Whether the innermost is an object; `None` where nothing is open.
    fn innermost(&self) -> Option<bool> {
        (self.count > 0).then_some(self.objects & 1 == 1)
    }
}

struct Scan<'a> {
    input: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn value(&mut self) -> Option<()> {
        let mut open = Open { objects: 0, count: 0 };
        loop {
            match self.ahead()? {
                b'"' => self.string()?,
                mark @ (b'[' | b'{') => {
                    let is_object = mark == b'{';
                    self.at += 1;
                    if self.ahead()? == closing(is_object) {
                        self.at += 1;
                    } else {
                        open.push(is_object)?;
                        self.begin_entry(is_object)?;
                        continue;
                    }
                }
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return None,
            }
            // A value ended, and what is around it may end with it.
            loop {
                let Some(is_object) = open.innermost() else { return Some(()) };
                let mark = self.ahead()?;
                self.at += 1;
                if mark == b',' {
                    self.begin_entry(is_object)?;
                    break;
                }
                if mark != closing(is_object) {
                    return None;
                }
                open.pop();
            }
        }
    }

    /// Up to the value of an entry.
    fn begin_entry(&mut self, is_object: bool) -> Option<()> {
        if is_object {
            if self.ahead()? != b'"' {
                return None;
            }
            self.string()?;
            if self.ahead()? != b':' {
                return None;
            }
            self.at += 1;
        }
        Some(())
    }

    /// The next byte that is no whitespace.
    #[inline]
    fn ahead(&mut self) -> Option<u8> {
        loop {
            let byte = *self.input.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Passes a string, at whose quotation mark we stand.
    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let rest = self.input.get(self.at..)?;
            let plain = memchr2(b'"', b'\\', rest)?;
            if has_control(&rest[..plain]) {
                return None;
            }
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Some(());
            }
            match self.input.get(self.at)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                b'u' => {
                    let digits = self.input.get(self.at + 1..self.at + 5)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    self.at += 5;
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        self.pass(b"-");
        if self.pass(b"0") {
            // No other digit may follow.
            if self.input.get(self.at).is_some_and(u8::is_ascii_digit) {
                return None;
            }
        } else {
            self.digits()?;
        }
        if self.pass(b".") {
            self.digits()?;
        }
        if self.pass(b"eE") {
            self.pass(b"+-");
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.input[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    fn pass(&mut self, bytes: &[u8]) -> bool {
        let found = self.input.get(self.at).is_some_and(|byte| bytes.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        let found = self.input[self.at..].starts_with(literal);
        self.at += literal.len();
        found.then_some(())
    }
}

fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::payload::skip::measure_json;

    /// What serde_json says.
    fn theirs(text: &str) -> Option<usize> {
        measure_json(&mut serde_json::Deserializer::from_str(text)).ok()
    }

    /// Pieces of JSON, of which values come out often enough, and nearly values.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[\\[\\]{}:,]",
            1 => "[\\[{]{1,3}[\\]}]{1,3}",
            2 => "\"[a-z\u{e4}\u{1F600} ]{0,40}\"(:[0-9\"])?",
            2 => "\"(\\\\[\"\\\\/bfnrtuxN]|\\\\u[0-9a-fA-Fg]{3,4}|[a\n\u{7f}\t]){0,3}\"",
            2 => "-?[0-9]{1,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
            1 => "true|false|null|nul|NaN",
            1 => "[ \t\r\n\u{a0}\0]",
        ];
        prop_oneof![
            vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
            whole().prop_map(|whole| whole + " ,")
        ]
    }

    /// A value.
    fn whole() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "\"([a-z\u{e4}]|\\\\[nt\"]|\\\\u00e4){0,30}\"",
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
            "true|false|null",
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                (vec(inner.clone(), 0..5), "[ \n]?")
                    .prop_map(|(all, space)| format!("[{space}{}{space}]", all.join(&format!(",{space}")))),
                (vec(("\"[a-z\\\\]?\\\\n\"", inner), 0..4), "[ \n]?").prop_map(|(all, space)| {
                    let all: Vec<_> =
                        all.iter().map(|(key, value)| format!("{key}{space}:{value}")).collect();
                    format!("{{{}{space}}}", all.join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_usual_is_what_serde_json_takes(text in text()) {
            // A byte of whitespace at the beginning is passed by whoever asks.
            prop_assert_eq!(usual(text.trim_start().as_bytes()), theirs(text.trim_start()), "{:?}", text);
        }
    }

    #[test]
    fn what_is_nested_deeper_than_a_word_has_bits_is_left_to_serde_json() {
        let nested =
            |levels: usize| format!("{}{}", "[{\"a\":".repeat(levels), "1}]".repeat(levels).replace("1", ""));
        let of = |levels: usize| nested(levels).replacen(":}", ":1}", 1);
        let (word, more) = (of(32), of(33));
        assert_eq!(usual(word.as_bytes()), Some(word.len()));
        assert_eq!(usual(more.as_bytes()), None);
        assert_eq!(theirs(&more), Some(more.len()));
    }

    #[test]
    fn a_control_character_is_found_wherever_it_is() {
        for length in 0..70 {
            let mut text = vec![b' '; length];
            assert!(!has_control(&text));
            for place in 0..length {
                text[place] = 0x1f;
                assert!(has_control(&text));
                text[place] = 0xff;
            }
        }
    }
}

//! UTF-8 that arrives in pieces, refused at the first octet that no continuation could make valid.
//!
//! The work is `std::str::from_utf8`, which is fast on whole slices; this file only carries the up to three
//! octets of a character that a border cuts. It is deliberately no decoder: it yields no characters.

use std::str;

/// The text so far cannot become valid UTF-8, whatever follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not UTF-8")]
pub struct NotUtf8;

/// Whether a text in one piece is valid. What has nothing beyond ASCII, as most have, is known soonest.
#[inline]
pub fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || str::from_utf8(text).is_ok()
}

/// Validates one text, piece by piece.
///
/// ```
/// use tandem_protocols::websocket::utf8::Validator;
///
/// let mut text = Validator::default();
/// text.feed(b"\xE2\x82").unwrap();
/// assert!(text.finish().is_err(), "a cut character is no end");
/// text.feed(b"\xAC").unwrap();
/// assert!(text.finish().is_ok());
/// assert!(text.feed(b"\xF4\x90").is_err(), "beyond U+10FFFF already at the second octet");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validator {
    /// The beginning of a character whose end has not arrived.
    begun: [u8; 4],
    begun_len: u8,
}

impl Validator {
    /// Takes the next piece. Once it failed, the validator is of no further use.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), NotUtf8> {
        let mut rest = piece;
        while self.begun_len > 0 {
            let Some((first, after)) = rest.split_first() else { return Ok(()) };
            rest = after;
            self.complete(*first)?;
        }
        let Err(error) = str::from_utf8(rest) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let tail = &rest[error.valid_up_to()..];
        self.begun[..tail.len()].copy_from_slice(tail);
        self.begun_len = tail.len() as u8;
        Ok(())
    }

    /// Whether the text may end here.
    pub fn finish(&self) -> Result<(), NotUtf8> {
        if self.begun_len == 0 { Ok(()) } else { Err(NotUtf8) }
    }

    /// Adds one octet to the begun character. A valid beginning has at most three octets, so four suffice.
    fn complete(&mut self, octet: u8) -> Result<(), NotUtf8> {
        let len = usize::from(self.begun_len);
        self.begun[len] = octet;
        match str::from_utf8(&self.begun[..=len]) {
            Ok(_) => self.begun_len = 0,
            Err(error) if error.error_len().is_none() => self.begun_len += 1,
            Err(_) => return Err(NotUtf8),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many octets are taken before the refusal, fed one by one; `None` where none is refused.
    fn refused_after(text: &[u8]) -> Option<usize> {
        let mut validator = Validator::default();
        text.iter().position(|octet| validator.feed(&[*octet]).is_err())
    }

    #[test]
    fn a_text_is_refused_at_its_first_impossible_octet() {
        let table: &[(&[u8], Option<usize>)] = &[
            (b"", None),
            (b"plain", None),
            ("κόσμε €😀".as_bytes(), None),
            (b"\x80", Some(0)),
            (b"\xC0\xAF", Some(0)),
            (b"\xC1\xBF", Some(0)),
            (b"\xE0\x9F\xBF", Some(1)),
            (b"\xED\xA0\x80", Some(1)),
            (b"\xF0\x8F\xBF\xBF", Some(1)),
            (b"\xF4\x8F\xBF\xBF", None),
            (b"\xF4\x90\x80\x80", Some(1)),
            (b"\xF5", Some(0)),
            (b"\xF8\x88\x80\x80\x80", Some(0)),
            (b"\xE2\x82A", Some(2)),
            (b"\xEF\xBF\xBF", None),
        ];
        for (text, expected) in table {
            assert_eq!(refused_after(text), *expected, "{text:x?}");
        }
    }

    #[test]
    fn a_cut_character_is_no_end() {
        for text in ["é", "€", "😀"] {
            for cut in 1..text.len() {
                let mut validator = Validator::default();
                validator.feed(&text.as_bytes()[..cut]).unwrap();
                assert_eq!(validator.finish(), Err(NotUtf8));
                validator.feed(&text.as_bytes()[cut..]).unwrap();
                assert_eq!(validator.finish(), Ok(()));
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole_is(
            text in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..24),
                ".{0,12}".prop_map(String::into_bytes),
                ".{0,8}".prop_flat_map(|text| (Just(text.into_bytes()), any::<u8>(), any::<prop::sample::Index>()))
                    .prop_map(|(mut text, octet, at)| {
                        if !text.is_empty() { let at = at.index(text.len()); text[at] = octet; }
                        text
                    }),
            ],
            size in 1usize..7,
        ) {
            let mut validator = Validator::default();
            let judged = text.chunks(size).try_for_each(|piece| validator.feed(piece))
                .and_then(|()| validator.finish());
            prop_assert_eq!(judged.is_ok(), str::from_utf8(&text).is_ok());
        }
    }
}

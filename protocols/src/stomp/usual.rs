//! Heads that come again and again: who sends much, mostly says the same of each message, but for the length of its body.
//! Such a head is known by its octets and not read again. Whatever differs from it, or is wrong, is for the reader of all
//! frames, the [`codec`](crate::stomp::codec).

use std::ops::Range;

use memchr::memchr;

use crate::stomp::codec::{Decoder, is_plain};
use crate::stomp::frame::{Command, Headers};

/// Digits of a length that are counted without a look at what the number can hold.
const DIGITS_MAX: usize = 9;

/// The head of a frame that was read, from its command to the empty line.
///
/// ```
/// use bytes::Bytes;
/// use tandem_protocols::stomp::codec::{Decoder, Item, Limits};
/// use tandem_protocols::stomp::frame::{Side, Version};
/// use tandem_protocols::stomp::usual::UsualHead;
///
/// let mut decoder = Decoder::new(Side::Server, Limits::default());
/// decoder.set_version(Version::V12);
/// let mut input = Bytes::from_static(b"SEND\ndestination:/topic/a\n\nhello\0SEND\ndestination:/topic/a\n\nyou\0");
/// let Some(Item::Frame(frame)) = decoder.decode(&mut input)? else { panic!() };
/// let head = UsualHead::of(frame.command, &frame.headers).unwrap();
/// assert_eq!(&input[head.body(&decoder, &input).unwrap()], b"you");
/// # Ok::<(), tandem_protocols::stomp::error::Violation>(())
/// ```
#[derive(Debug)]
pub struct UsualHead {
    /// Without the digits of a length.
    octets: Box<[u8]>,
    digits: Option<Digits>,
}

/// Those of a length.
#[derive(Debug)]
struct Digits {
    /// Where in the head they are.
    at: usize,
    /// Not more than they were, so that no line is longer than one that was within the limits.
    count_max: usize,
}

impl UsualHead {
    /// That of a frame that was read. None if it is not one that is to be read by its octets: if there can be no body,
    /// or a header may be written in more than one way.
    pub fn of(command: Command, headers: &Headers) -> Option<Self> {
        if !command.may_have_body() {
            return None;
        }
        let room = command.as_str().len() + headers.text_bytes() + 2 * headers.len() + 2;
        let mut octets = Vec::with_capacity(room);
        let mut digits = None;
        octets.extend_from_slice(command.as_str().as_bytes());
        octets.push(b'\n');
        for (name, value) in headers.iter() {
            if !(is_plain(name) && is_plain(value)) {
                return None;
            }
            octets.extend_from_slice(name.as_bytes());
            octets.push(b':');
            if name != "content-length" {
                octets.extend_from_slice(value.as_bytes());
            } else if digits.is_none() {
                digits = Some(Digits { at: octets.len(), count_max: value.len().min(DIGITS_MAX) });
            } else {
                return None;
            }
            octets.push(b'\n');
        }
        octets.push(b'\n');
        Some(Self { octets: octets.into(), digits })
    }

    /// Where the body of a frame is that lies whole at the beginning of what a decoder is to read, and has this head but
    /// for the length. The frame ends with the NUL behind it. The head must have been read by that decoder, in the same
    /// version and with the same limits.
    pub fn body(&self, decoder: &Decoder, input: &[u8]) -> Option<Range<usize>> {
        self.body_within(decoder.next_body_bytes_max()?, input)
    }

    fn body_within(&self, bytes_max: usize, input: &[u8]) -> Option<Range<usize>> {
        let (rest, length) = match &self.digits {
            None => {
                let rest = input.strip_prefix(&*self.octets)?;
                (rest, memchr(0, rest)?)
            }
            Some(digits) => {
                let (before, after) = self.octets.split_at(digits.at);
                let (length, rest) = number(input.strip_prefix(before)?, digits.count_max)?;
                (rest.strip_prefix(after)?, length)
            }
        };
        let start = input.len() - rest.len();
        (length <= bytes_max && rest.get(length) == Some(&0)).then(|| start..start + length)
    }
}

/// Digits at the beginning of a text, as a number, and what is behind them. None if they are none, or too many.
fn number(text: &[u8], count_max: usize) -> Option<(usize, &[u8])> {
    let (mut number, mut count) = (0, 0);
    while let Some(digit @ b'0'..=b'9') = text.get(count) {
        if count == count_max {
            return None;
        }
        (number, count) = (number * 10 + usize::from(digit - b'0'), count + 1);
    }
    (count > 0).then(|| (number, &text[count..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> Option<UsualHead> {
        UsualHead::of(Command::Send, &headers.iter().copied().collect())
    }

    #[test]
    fn a_body_is_found_behind_the_same_head_whatever_its_length() {
        let sized = head(&[("destination", "/topic/a"), ("content-length", "10"), ("b", "")]).unwrap();
        let body = |length: &str, rest: &str| {
            let input = format!("SEND\ndestination:/topic/a\ncontent-length:{length}\nb:\n\n{rest}");
            let body = sized.body_within(12, input.as_bytes())?;
            Some(input[body].to_owned())
        };
        assert_eq!(body("3", "a\0b\0SEND"), Some("a\0b".to_owned()));
        assert_eq!(body("00", "\0"), Some(String::new()));
        assert_eq!(body("12", "123456789012\0"), Some("123456789012".to_owned()));
        for (length, rest) in [
            ("003", "abc\0"),
            ("", "\0"),
            ("+1", "a\0"),
            ("3", "abc"),
            ("3", "abcd\0"),
            ("13", "1234567890123\0"),
            ("3\r", "abc\0"),
        ] {
            assert_eq!(body(length, rest), None, "{length:?} {rest:?}");
        }
        let endless = head(&[("a", "b")]).unwrap();
        assert_eq!(endless.body_within(3, b"SEND\na:b\n\nabc\0SEND"), Some(10..13));
        for other in ["SEND\na:b\n\nabcd\0", "SEND\na:b\n\nabc", "SEND\na:c\n\nabc\0", "SEND\na:b\n", "SEN"] {
            assert_eq!(endless.body_within(3, other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn a_head_that_may_be_written_otherwise_is_not_known_by_its_octets() {
        assert!(head(&[]).is_some());
        for other in ["a:b", "a\\b", "a\nb", "a\rb"] {
            assert!(head(&[("a", other)]).is_none() && head(&[(other, "a")]).is_none(), "{other:?}");
        }
        assert!(head(&[("content-length", "1"), ("content-length", "2")]).is_none());
        assert!(UsualHead::of(Command::Ack, &Headers::new()).is_none());
    }
}

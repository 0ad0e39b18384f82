//! The extent of one encoded value, found without decoding it.
//!
//! This is what lets arguments pass through the house as they came, however deep or large. Nothing here
//! recurses, and no announced length leads to an allocation: MessagePack needs one counter, CBOR a counter
//! and a bounded stack for containers of indefinite length, JSON a bit per open bracket, or (by serde_json) a byte.
//!
//! What is checked is that the value is well-formed. JSON is checked entirely, its UTF-8 included, because
//! it travels in text frames. The text of MessagePack and CBOR strings is not: MessagePack written before it
//! had a binary type keeps bytes there, and passing them on harms no one in between.

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::payload::Format;

pub(crate) use self::json::has_control;

mod json;

/// How many CBOR containers of indefinite length may be open in each other.
///
/// Each costs 16 bytes while a value is skipped, so a hostile message pins 256 KiB for its own duration.
pub const INDEFINITE_DEPTH_MAX: usize = 16 * 1024;

/// Why bytes are not one value of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The value is longer than the bytes.
    #[error("the value ends early")]
    Truncated,
    /// The byte at this offset, or the construct that ends there, is not of the format.
    #[error("not a value at byte {0}")]
    Invalid(usize),
    /// More than [`INDEFINITE_DEPTH_MAX`] containers of indefinite length are open.
    #[error("more than {INDEFINITE_DEPTH_MAX} open containers of indefinite length")]
    TooDeep,
}

/// The length of the first value in `input`, with the whitespace before it where the format has any.
///
/// ```
/// use tandem_protocols::payload::{Format, skip::skip};
///
/// assert_eq!(skip(Format::Json, b" [1, [2]], 3"), Ok(9));
/// assert_eq!(skip(Format::MsgPack, &[0x92, 0x01, 0x02, 0x03]), Ok(3));
/// assert!(skip(Format::Cbor, &[0x82, 0x01]).is_err());
/// ```
///
/// # Errors
///
/// [`Malformed`] where `input` does not begin with a whole value.
pub fn skip(format: Format, input: &[u8]) -> Result<usize, Malformed> {
    match format {
        Format::Json => json_bytes(input),
        Format::MsgPack => msgpack(input),
        Format::Cbor => cbor(input),
    }
}

fn json_bytes(input: &[u8]) -> Result<usize, Malformed> {
    let space = input.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    let value = &input[space..];
    // That is known soonest of what has nothing beyond ASCII.
    let is_text = |text: &[u8]| text.is_ascii() || std::str::from_utf8(text).is_ok();
    let length = match json::usual(value).filter(|length| is_text(&value[..*length])) {
        Some(length) => length,
        None => measure_json(&mut serde_json::Deserializer::from_slice(value))?,
    };
    Ok(space + length)
}

/// Like [`skip`] of JSON that is known to be UTF-8 and to begin with no whitespace.
pub(crate) fn json_str(input: &str) -> Result<usize, Malformed> {
    match json::usual(input.as_bytes()) {
        Some(length) => Ok(length),
        None => measure_json(&mut serde_json::Deserializer::from_str(input)),
    }
}

fn measure_json<'a, R: serde_json::de::Read<'a>>(
    source: &mut serde_json::Deserializer<R>,
) -> Result<usize, Malformed> {
    match <&RawValue>::deserialize(source) {
        Ok(raw) => Ok(raw.get().len()),
        Err(error) if error.is_eof() => Err(Malformed::Truncated),
        // A message is one line as a rule, so the column is the offset; it serves only a human.
        Err(error) => Err(Malformed::Invalid(error.column().saturating_sub(1))),
    }
}

fn msgpack(input: &[u8]) -> Result<usize, Malformed> {
    let mut cursor = Cursor::new(input);
    // Values still due, the one at hand included. Each needs at least a byte, which bounds the counter.
    let mut due: u64 = 1;
    while due > 0 {
        due -= 1;
        let marker = cursor.byte()?;
        match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => {}
            0x80..=0x8f => due += 2 * u64::from(marker & 0x0f),
            0x90..=0x9f => due += u64::from(marker & 0x0f),
            0xa0..=0xbf => cursor.pass(u64::from(marker & 0x1f))?,
            0xc1 => return Err(Malformed::Invalid(cursor.position() - 1)),
            0xc4 | 0xd9 => cursor.pass_counted(1, 0)?,
            0xc5 | 0xda => cursor.pass_counted(2, 0)?,
            0xc6 | 0xdb => cursor.pass_counted(4, 0)?,
            0xc7 => cursor.pass_counted(1, 1)?,
            0xc8 => cursor.pass_counted(2, 1)?,
            0xc9 => cursor.pass_counted(4, 1)?,
            0xca | 0xce | 0xd2 => cursor.pass(4)?,
            0xcb | 0xcf | 0xd3 => cursor.pass(8)?,
            0xcc | 0xd0 => cursor.pass(1)?,
            0xcd | 0xd1 => cursor.pass(2)?,
            0xd4..=0xd8 => cursor.pass(1 + (1 << (marker - 0xd4)))?,
            0xdc => due += cursor.uint(2)?,
            0xdd => due += cursor.uint(4)?,
            0xde => due += 2 * cursor.uint(2)?,
            0xdf => due += 2 * cursor.uint(4)?,
        }
        if due > cursor.left() {
            return Err(Malformed::Truncated);
        }
    }
    Ok(cursor.position())
}

/// A CBOR container of indefinite length that has not been closed.
struct Open {
    /// Values of definite containers around it that are still due after it.
    outer: u64,
    map: bool,
    /// A key has been read whose value has not.
    odd: bool,
}

fn cbor(input: &[u8]) -> Result<usize, Malformed> {
    let mut cursor = Cursor::new(input);
    let mut open: Vec<Open> = Vec::new();
    // Values due in definite containers, counted within the innermost indefinite one.
    let mut due: u64 = 1;
    loop {
        if due > 0 {
            due -= 1;
        } else if let Some(innermost) = open.last_mut() {
            if cursor.peek()? == BREAK {
                if innermost.map && innermost.odd {
                    return Err(Malformed::Invalid(cursor.position()));
                }
                cursor.byte()?;
                due = innermost.outer;
                open.pop();
                if due == 0 && open.is_empty() {
                    return Ok(cursor.position());
                }
                continue;
            }
            innermost.odd = !innermost.odd;
        } else {
            return Ok(cursor.position());
        }
        let head = cursor.head()?;
        match (head.major, head.argument) {
            (0 | 1, Some(_)) => {}
            (2 | 3, Some(length)) => cursor.pass(length)?,
            (2 | 3, None) => while cursor.chunk(head.major)?.is_some() {},
            (4, Some(length)) => due = due.checked_add(length).ok_or(Malformed::Truncated)?,
            (5, Some(length)) => {
                due = length.checked_mul(2).and_then(|n| n.checked_add(due)).ok_or(Malformed::Truncated)?;
            }
            (4 | 5, None) => {
                if open.len() == INDEFINITE_DEPTH_MAX {
                    return Err(Malformed::TooDeep);
                }
                open.push(Open { outer: due, map: head.major == 5, odd: false });
                due = 0;
            }
            (6, Some(_)) => due += 1,
            (7, Some(_)) => {}
            _ => return Err(Malformed::Invalid(cursor.position() - 1)),
        }
        if due > cursor.left() {
            return Err(Malformed::Truncated);
        }
        if due == 0 && open.is_empty() {
            return Ok(cursor.position());
        }
    }
}

/// What ends a CBOR item of indefinite length.
pub(crate) const BREAK: u8 = 0xff;

/// The first bytes of a CBOR item (RFC 8949, section 3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// 0 to 7.
    pub(crate) major: u8,
    /// The low five bits of the first byte: for major type 7, what the argument means.
    pub(crate) info: u8,
    /// `None` where the length is indefinite.
    pub(crate) argument: Option<u64>,
}

/// A position in bytes, every step of which is checked against their end.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    #[inline]
    pub(crate) fn rewind(&mut self, position: usize) {
        self.at = position;
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.input[self.at..]
    }

    #[inline]
    fn left(&self) -> u64 {
        (self.input.len() - self.at) as u64
    }

    #[inline]
    pub(crate) fn peek(&self) -> Result<u8, Malformed> {
        self.input.get(self.at).copied().ok_or(Malformed::Truncated)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        let taken = self.rest().get(..length).ok_or(Malformed::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.rest().first_chunk().ok_or(Malformed::Truncated)?;
        self.at += N;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn pass(&mut self, length: u64) -> Result<(), Malformed> {
        self.take(length).map(drop)
    }

    /// A big-endian integer of `width` bytes: 1, 2, 4 or 8.
    #[inline]
    pub(crate) fn uint(&mut self, width: u8) -> Result<u64, Malformed> {
        Ok(match width {
            1 => self.byte()?.into(),
            2 => u16::from_be_bytes(self.array()?).into(),
            4 => u32::from_be_bytes(self.array()?).into(),
            _ => u64::from_be_bytes(self.array()?),
        })
    }

    /// Passes a length of `width` bytes, and as many bytes as it says and `extra` more.
    fn pass_counted(&mut self, width: u8, extra: u64) -> Result<(), Malformed> {
        let length = self.uint(width)?;
        self.pass(length + extra)
    }

    pub(crate) fn head(&mut self) -> Result<Head, Malformed> {
        let initial = self.byte()?;
        let (major, info) = (initial >> 5, initial & 0x1f);
        let argument = match info {
            0..=23 => Some(u64::from(info)),
            24..=27 => Some(self.uint(1 << (info - 24))?),
            31 if matches!(major, 2..=5) => None,
            _ => return Err(Malformed::Invalid(self.at - 1)),
        };
        // A simple value below 32 has one encoding only, in the first byte.
        if major == 7 && info == 24 && argument < Some(32) {
            return Err(Malformed::Invalid(self.at - 1));
        }
        Ok(Head { major, info, argument })
    }

    /// The next chunk of a string of indefinite length; `None` after the last.
    pub(crate) fn chunk(&mut self, major: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.peek()? == BREAK {
            self.at += 1;
            return Ok(None);
        }
        match self.head()? {
            Head { major: found, argument: Some(length), .. } if found == major => {
                self.take(length).map(Some)
            }
            _ => Err(Malformed::Invalid(self.at - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

    #[test]
    fn the_extent_ends_with_the_value() {
        let whole: [(Format, &[u8]); 24] = [
            (Format::Json, b"0"),
            (Format::Json, b"-1.5e3"),
            (Format::Json, b"\t\n\r []"),
            (Format::Json, br#"{"a":"\"]\\","b":[null,true,{}]}"#),
            (Format::Json, "\"\u{e4}\\ud800\"".as_bytes()),
            (Format::MsgPack, &[0xc0]),
            (Format::MsgPack, &[0x81, 0xa1, b'a', 0x92, 0xff, 0x7f]),
            (Format::MsgPack, &[0xde, 0, 1, 0xd9, 1, b'a', 0xdc, 0, 1, 0xcd, 1, 2]),
            (Format::MsgPack, &[0xd8, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            (Format::MsgPack, &[0xd4, 0, 0]),
            (Format::MsgPack, &[0xc7, 2, 5, 0, 1]),
            (Format::MsgPack, &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Format::Cbor, &[0xf7]),
            (Format::Cbor, &[0x9f, 0xff]),
            (Format::Cbor, &[0xbf, 0x01, 0x9f, 0x02, 0xff, 0xff]),
            (Format::Cbor, &[0x82, 0x9f, 0x82, 0x01, 0x02, 0xff, 0x03]),
            (Format::Cbor, &[0x82, 0x9f, 0x81, 0x9f, 0xff, 0xff, 0x03]),
            (Format::Cbor, &[0x5f, 0x41, 1, 0x40, 0xff]),
            (Format::Cbor, &[0xd8, 0x40, 0x43, 1, 2, 3]),
            (Format::Cbor, &[0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Format::Cbor, &[0xf9, 0x3c, 0]),
            (Format::Cbor, &[0xf8, 0xff]),
            (Format::Cbor, &[0xb9, 0, 1, 0x61, b'a', 0xf5]),
            (Format::Cbor, &[0x3b, 255, 255, 255, 255, 255, 255, 255, 255]),
        ];
        for (format, bytes) in whole {
            assert_eq!(skip(format, bytes), Ok(bytes.len()), "{format:?} {bytes:x?}");
            let mut longer = bytes.to_vec();
            longer.extend_from_slice(b" 1");
            assert_eq!(skip(format, &longer), Ok(bytes.len()), "{format:?} {bytes:x?} and more");
            if bytes != b"0" && bytes != b"-1.5e3" {
                for length in 0..bytes.len() {
                    assert_eq!(skip(format, &bytes[..length]), Err(Malformed::Truncated), "{bytes:x?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_of_the_format_is_refused() {
        let bad: [(Format, &[u8]); 18] = [
            (Format::Json, b"]"),
            (Format::Json, b"[1,]"),
            (Format::Json, b"[01]"),
            (Format::Json, b"{\"a\" 1}"),
            (Format::Json, b"[\"\xff\"]"),
            (Format::Json, b"\"\n\""),
            (Format::Json, b"[1}"),
            (Format::Json, b"NaN"),
            (Format::MsgPack, &[0xc1]),
            (Format::MsgPack, &[0x91, 0xc1]),
            (Format::Cbor, &[0xff]),
            (Format::Cbor, &[0x1c]),
            (Format::Cbor, &[0x1f]),
            (Format::Cbor, &[0xdf]),
            (Format::Cbor, &[0x9f, 0x81, 0xff, 0xff]),
            (Format::Cbor, &[0xbf, 0x01, 0xff, 0xff]),
            (Format::Cbor, &[0x5f, 0x61, b'a', 0xff]),
            (Format::Cbor, &[0xf8, 0x1f]),
        ];
        for (format, bytes) in bad {
            assert!(matches!(skip(format, bytes), Err(Malformed::Invalid(_))), "{format:?} {bytes:x?}");
        }
    }

    #[test]
    fn two_hundred_thousand_levels_need_no_stack() {
        const LEVELS: usize = 200_000;
        let work = || {
            for (format, open) in [
                (Format::Json, &b"["[..]),
                (Format::Json, b"{\"a\":"),
                (Format::MsgPack, &[0x91]),
                (Format::MsgPack, &[0x81, 0x01]),
                (Format::Cbor, &[0x81]),
                (Format::Cbor, &[0xa1, 0x01]),
                (Format::Cbor, &[0xc1]),
            ] {
                assert_eq!(skip(format, &open.repeat(LEVELS)), Err(Malformed::Truncated));
            }
            for open in [&[0x9f][..], &[0xbf, 0x01]] {
                assert_eq!(skip(Format::Cbor, &open.repeat(LEVELS)), Err(Malformed::TooDeep));
            }
            let mut closed = b"[".repeat(LEVELS);
            closed.extend(b"]".repeat(LEVELS));
            assert_eq!(skip(Format::Json, &closed), Ok(2 * LEVELS));
            let mut closed = vec![0x91; LEVELS];
            closed.push(0xc0);
            assert_eq!(skip(Format::MsgPack, &closed), Ok(LEVELS + 1));
            let mut closed = vec![0x9f; INDEFINITE_DEPTH_MAX];
            closed.extend([BREAK; INDEFINITE_DEPTH_MAX]);
            assert_eq!(skip(Format::Cbor, &closed), Ok(2 * INDEFINITE_DEPTH_MAX));
        };
        let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(work).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn announced_lengths_are_not_believed() {
        let announced: [(Format, &[u8]); 14] = [
            (Format::MsgPack, &[0xdd, 255, 255, 255, 255]),
            (Format::MsgPack, &[0xdf, 255, 255, 255, 255]),
            (Format::MsgPack, &[0xc6, 255, 255, 255, 255]),
            (Format::MsgPack, &[0xdb, 255, 255, 255, 255]),
            (Format::MsgPack, &[0xc9, 255, 255, 255, 255, 1]),
            (Format::Cbor, &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]),
            (Format::Cbor, &[0xbb, 255, 255, 255, 255, 255, 255, 255, 255]),
            (Format::Cbor, &[0xbb, 128, 0, 0, 0, 0, 0, 0, 0]),
            (Format::Cbor, &[0x82, 0x9b, 255, 255, 255, 255, 255, 255, 255, 255]),
            (Format::Cbor, &[0x5b, 255, 255, 255, 255, 255, 255, 255, 255]),
            (Format::Cbor, &[0x7b, 255, 255, 255, 255, 255, 255, 255, 255]),
            (Format::Cbor, &[0x5f, 0x5b, 255, 255, 255, 255, 255, 255, 255, 255]),
            (Format::Cbor, &[0x5a, 255, 255, 255, 255]),
            (Format::Cbor, &[0x9a, 255, 255, 255, 255]),
        ];
        for (format, bytes) in announced {
            assert_eq!(skip(format, bytes), Err(Malformed::Truncated), "{bytes:x?}");
        }
        for format in FORMATS {
            assert_eq!(skip(format, b""), Err(Malformed::Truncated));
        }
    }
}

//! CBOR (RFC 8949).
//!
//! Written deterministically but for the order of keys, read in any form. Tags say nothing to us: a tagged
//! value is read as the value, and where it is part of the arguments it stays as it is.

use std::borrow::Cow;

use crate::payload::Format;
use crate::payload::skip::{self, BREAK, Cursor, Head};
use crate::wamp::error::Violation;
use crate::wamp::wire::{Reader, Seq, Shape, Token, Writer, length_u32, text};

/// Reads CBOR.
pub(in crate::wamp) struct CborReader<'a> {
    cursor: Cursor<'a>,
}

impl<'a> CborReader<'a> {
    pub(in crate::wamp) fn new(input: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(input) }
    }

    /// The first head that is not a tag's.
    fn untagged(&mut self) -> Result<Head, Violation> {
        loop {
            let head = self.cursor.head()?;
            if head.major != 6 {
                return Ok(head);
            }
        }
    }

    fn string(&mut self, head: Head) -> Result<Cow<'a, [u8]>, Violation> {
        if let Some(length) = head.argument {
            return Ok(Cow::Borrowed(self.cursor.take(length)?));
        }
        let mut joined = Vec::new();
        while let Some(chunk) = self.cursor.chunk(head.major)? {
            joined.extend_from_slice(chunk);
        }
        Ok(Cow::Owned(joined))
    }

    fn text(&mut self, head: Head) -> Result<Cow<'a, str>, Violation> {
        Ok(match self.string(head)? {
            Cow::Borrowed(bytes) => Cow::Borrowed(text(bytes)?),
            Cow::Owned(bytes) => Cow::Owned(
                String::from_utf8(bytes).map_err(|_| Violation::new("a string that is not UTF-8"))?,
            ),
        })
    }

    /// The token that begins with `head`.
    fn begun(&mut self, head: Head) -> Result<Token<'a>, Violation> {
        match (head.major, head.info, head.argument) {
            (0, _, Some(value)) => Ok(Token::Uint(value)),
            (1, _, Some(value)) => Ok(negative(value)),
            (2, ..) => self.string(head).map(Token::Bytes),
            (3, ..) => self.text(head).map(Token::Str),
            (4, ..) => Ok(Token::List(Self::seq(head))),
            (5, ..) => Ok(Token::Dict(Self::seq(head))),
            (7, 20 | 21, _) => Ok(Token::Bool(head.info == 21)),
            (7, 22 | 23, _) => Ok(Token::Null),
            (7, 25, Some(bits)) => Ok(Token::Float(half(bits))),
            (7, 26, Some(bits)) => {
                let bits = u32::try_from(bits).expect("an argument of four bytes");
                Ok(Token::Float(f32::from_bits(bits).into()))
            }
            (7, 27, Some(bits)) => Ok(Token::Float(f64::from_bits(bits))),
            _ => Err(Violation::new("a CBOR simple value that means nothing")),
        }
    }

    fn seq(head: Head) -> Seq {
        head.argument.map_or(Seq::until(BREAK), Seq::counted)
    }
}

impl<'a> Reader<'a> for CborReader<'a> {
    fn token(&mut self) -> Result<Token<'a>, Violation> {
        let head = self.untagged()?;
        self.begun(head)
    }

    #[inline]
    fn uint(&mut self) -> Result<Option<u64>, Violation> {
        Ok(self.token()?.uint())
    }

    #[inline]
    fn str(&mut self) -> Result<Option<Cow<'a, str>>, Violation> {
        let head = self.untagged()?;
        if head.major == 3 { self.text(head).map(Some) } else { self.begun(head).map(|_| None) }
    }

    #[inline]
    fn pass_empty_dict(&mut self) -> bool {
        self.cursor.peek() == Ok(0xa0) && self.cursor.pass(1).is_ok()
    }

    fn next(&mut self, seq: &mut Seq) -> Result<bool, Violation> {
        match &mut seq.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.cursor.peek()? == seq.close => {
                self.cursor.byte()?;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>, Violation> {
        let head = self.untagged()?;
        if head.major == 3 {
            self.text(head)
        } else {
            Err(Violation::new("a key of a dictionary is not a string"))
        }
    }

    fn peek(&mut self) -> Result<Shape, Violation> {
        let start = self.cursor.position();
        let head = self.untagged()?;
        self.cursor.rewind(start);
        Ok(match (head.major, head.info) {
            (4, _) => Shape::List,
            (5, _) => Shape::Dict,
            (7, 22 | 23) => Shape::Null,
            _ => Shape::Other,
        })
    }

    fn skip(&mut self) -> Result<usize, Violation> {
        let length = skip::skip(Format::Cbor, self.cursor.rest())?;
        self.cursor.pass(length as u64)?;
        Ok(self.cursor.position())
    }

    fn position(&mut self) -> usize {
        self.cursor.position()
    }

    fn rewind(&mut self, position: usize) {
        self.cursor.rewind(position);
    }

    fn is_at_end(&mut self) -> bool {
        self.cursor.rest().is_empty()
    }
}

/// -1 - `value`: a double where 64 bits do not hold it.
fn negative(value: u64) -> Token<'static> {
    match i64::try_from(value) {
        Ok(value) => Token::Negative(-1 - value),
        Err(_) => Token::Float((-1 - i128::from(value)) as f64),
    }
}

/// A number of 16 bits (RFC 8949, appendix D).
fn half(bits: u64) -> f64 {
    let exponent = i32::try_from((bits >> 10) & 0x1f).expect("five bits");
    let fraction = (bits & 0x3ff) as f64;
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// Writes CBOR.
pub(in crate::wamp) struct CborWriter(Vec<u8>);

impl CborWriter {
    pub(in crate::wamp) fn new(out: Vec<u8>) -> Self {
        Self(out)
    }

    pub(in crate::wamp) fn into_inner(self) -> Vec<u8> {
        self.0
    }

    fn head(&mut self, major: u8, argument: u64) {
        let major = major << 5;
        if let Ok(argument) = u8::try_from(argument) {
            if argument < 24 { self.0.push(major | argument) } else { self.0.extend([major | 24, argument]) }
        } else if let Ok(argument) = u16::try_from(argument) {
            self.0.push(major | 25);
            self.0.extend(argument.to_be_bytes());
        } else if let Ok(argument) = u32::try_from(argument) {
            self.0.push(major | 26);
            self.0.extend(argument.to_be_bytes());
        } else {
            self.0.push(major | 27);
            self.0.extend(argument.to_be_bytes());
        }
    }

    fn length(&mut self, major: u8, length: usize) {
        self.head(major, length_u32(length).into());
    }
}

impl Writer for CborWriter {
    fn null(&mut self) {
        self.0.push(0xf6);
    }

    fn bool(&mut self, value: bool) {
        self.0.push(0xf4 + u8::from(value));
    }

    #[inline]
    fn uint(&mut self, value: u64) {
        self.head(0, value);
    }

    /// What has no 64 bits is written as the double next to it.
    fn int(&mut self, value: i128) {
        match (u64::try_from(value), u64::try_from(-1 - value)) {
            (Ok(value), _) => self.head(0, value),
            (_, Ok(value)) => self.head(1, value),
            _ => self.float(value as f64),
        }
    }

    fn float(&mut self, value: f64) {
        self.0.push(0xfb);
        self.0.extend(value.to_be_bytes());
    }

    fn str(&mut self, value: &str) {
        self.length(3, value.len());
        self.0.extend_from_slice(value.as_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.length(2, value.len());
        self.0.extend_from_slice(value);
    }

    fn list(&mut self, length: usize) {
        self.length(4, length);
    }

    fn end_list(&mut self) {}

    fn dict(&mut self, length: usize) {
        self.length(5, length);
    }

    fn key(&mut self, key: &str) {
        self.str(key);
    }

    fn end_dict(&mut self) {}

    fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }
}

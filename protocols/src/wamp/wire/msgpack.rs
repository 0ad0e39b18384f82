//! MessagePack.
//!
//! Written as short as can be, read in any length. Extension type 0 is JavaScript's `undefined` (msgpackr),
//! hence null. Other extensions are read as their bytes: nothing in a dictionary we know is one.

use std::borrow::Cow;

use crate::payload::Format;
use crate::payload::skip::{self, Cursor};
use crate::wamp::error::Violation;
use crate::wamp::wire::{Reader, Seq, Shape, Token, Writer, length_u32, text};

/// Reads MessagePack.
pub(in crate::wamp) struct MsgPackReader<'a> {
    cursor: Cursor<'a>,
}

impl<'a> MsgPackReader<'a> {
    pub(in crate::wamp) fn new(input: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(input) }
    }

    fn str(&mut self, length: u64) -> Result<Token<'a>, Violation> {
        Ok(Token::Str(Cow::Borrowed(text(self.cursor.take(length)?)?)))
    }

    fn bytes(&mut self, length: u64) -> Result<Token<'a>, Violation> {
        Ok(Token::Bytes(Cow::Borrowed(self.cursor.take(length)?)))
    }

    fn extension(&mut self, length: u64) -> Result<Token<'a>, Violation> {
        let kind = self.cursor.byte()?;
        let token = self.bytes(length)?;
        Ok(if kind == 0 { Token::Null } else { token })
    }

    fn uint(&mut self, width: u8) -> Result<Token<'a>, Violation> {
        Ok(Token::Uint(self.cursor.uint(width)?))
    }

    fn int(&mut self, width: u8) -> Result<Token<'a>, Violation> {
        let unused = 64 - 8 * u32::from(width);
        // The shift to and fro extends the sign.
        let value = (self.cursor.uint(width)? << unused).cast_signed() >> unused;
        Ok(u64::try_from(value).map_or(Token::Negative(value), Token::Uint))
    }

    fn seq(length: u64) -> Seq {
        Seq::counted(length)
    }
}

impl<'a> Reader<'a> for MsgPackReader<'a> {
    fn token(&mut self) -> Result<Token<'a>, Violation> {
        let marker = self.cursor.byte()?;
        match marker {
            0x00..=0x7f => Ok(Token::Uint(marker.into())),
            0x80..=0x8f => Ok(Token::Dict(Self::seq((marker & 0x0f).into()))),
            0x90..=0x9f => Ok(Token::List(Self::seq((marker & 0x0f).into()))),
            0xa0..=0xbf => self.str((marker & 0x1f).into()),
            0xc0 => Ok(Token::Null),
            0xc1 => Err(Violation::new("the byte 0xc1 is not MessagePack")),
            0xc2 | 0xc3 => Ok(Token::Bool(marker == 0xc3)),
            0xc4..=0xc6 => {
                let length = self.cursor.uint(1 << (marker - 0xc4))?;
                self.bytes(length)
            }
            0xc7..=0xc9 => {
                let length = self.cursor.uint(1 << (marker - 0xc7))?;
                self.extension(length)
            }
            0xca => {
                let bits = self.cursor.take(4)?.try_into().expect("four bytes were taken");
                Ok(Token::Float(f32::from_be_bytes(bits).into()))
            }
            0xcb => Ok(Token::Float(f64::from_bits(self.cursor.uint(8)?))),
            0xcc..=0xcf => self.uint(1 << (marker - 0xcc)),
            0xd0..=0xd3 => self.int(1 << (marker - 0xd0)),
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4)),
            0xd9..=0xdb => {
                let length = self.cursor.uint(1 << (marker - 0xd9))?;
                self.str(length)
            }
            0xdc | 0xdd => Ok(Token::List(Self::seq(self.cursor.uint(2 << (marker - 0xdc))?))),
            0xde | 0xdf => Ok(Token::Dict(Self::seq(self.cursor.uint(2 << (marker - 0xde))?))),
            0xe0..=0xff => Ok(Token::Negative(marker.cast_signed().into())),
        }
    }

    #[inline]
    fn uint(&mut self) -> Result<Option<u64>, Violation> {
        let marker = self.cursor.peek()?;
        match marker {
            0x00..=0x7f => {
                self.cursor.byte()?;
                Ok(Some(marker.into()))
            }
            0xcc..=0xcf => {
                self.cursor.byte()?;
                Ok(Some(self.cursor.uint(1 << (marker - 0xcc))?))
            }
            _ => Ok(self.token()?.uint()),
        }
    }

    #[inline]
    fn str(&mut self) -> Result<Option<Cow<'a, str>>, Violation> {
        let marker = self.cursor.peek()?;
        if let 0xa0..=0xbf = marker {
            self.cursor.byte()?;
            let text = text(self.cursor.take((marker & 0x1f).into())?)?;
            return Ok(Some(Cow::Borrowed(text)));
        }
        Ok(if let Token::Str(text) = self.token()? { Some(text) } else { None })
    }

    #[inline]
    fn pass_empty_dict(&mut self) -> bool {
        self.cursor.peek() == Ok(0x80) && self.cursor.pass(1).is_ok()
    }

    #[inline]
    fn next(&mut self, seq: &mut Seq) -> Result<bool, Violation> {
        Ok(match seq.left {
            None | Some(0) => false,
            Some(left) => {
                seq.left = Some(left - 1);
                true
            }
        })
    }

    fn key(&mut self) -> Result<Cow<'a, str>, Violation> {
        match self.token()? {
            Token::Str(key) => Ok(key),
            _ => Err(Violation::new("a key of a dictionary is not a string")),
        }
    }

    fn peek(&mut self) -> Result<Shape, Violation> {
        let type_at = match self.cursor.peek()? {
            0xc0 => return Ok(Shape::Null),
            0x90..=0x9f | 0xdc | 0xdd => return Ok(Shape::List),
            0x80..=0x8f | 0xde | 0xdf => return Ok(Shape::Dict),
            0xd4..=0xd8 => 1,
            0xc7 => 2,
            0xc8 => 3,
            0xc9 => 5,
            _ => return Ok(Shape::Other),
        };
        let is_undefined = self.cursor.rest().get(type_at) == Some(&0);
        Ok(if is_undefined { Shape::Null } else { Shape::Other })
    }

    fn skip(&mut self) -> Result<usize, Violation> {
        let length = skip::skip(Format::MsgPack, self.cursor.rest())?;
        self.cursor.pass(length as u64)?;
        Ok(self.cursor.position())
    }

    #[inline]
    fn container(&mut self) -> Result<Option<(usize, usize)>, Violation> {
        let (start, marker) = (self.cursor.position(), self.cursor.peek()?);
        let end = self.skip()?;
        // One that is empty is its head alone.
        let head = match marker {
            0x80..=0x9f => 1,
            0xdc | 0xde => 3,
            _ => 5,
        };
        Ok((end - start > head).then_some((start, end)))
    }

    #[inline]
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

/// Writes MessagePack.
pub(in crate::wamp) struct MsgPackWriter(Vec<u8>);

impl MsgPackWriter {
    pub(in crate::wamp) fn new(out: Vec<u8>) -> Self {
        Self(out)
    }

    pub(in crate::wamp) fn into_inner(self) -> Vec<u8> {
        self.0
    }

    fn put<const N: usize>(&mut self, marker: u8, bytes: [u8; N]) {
        self.0.push(marker);
        self.0.extend_from_slice(&bytes);
    }

    /// A length behind the shortest of the markers for 8 (if there is one), 16 and 32 bits.
    fn length(&mut self, length: usize, of_8: Option<u8>, of_16: u8) {
        let length = length_u32(length);
        match (u8::try_from(length), u16::try_from(length), of_8) {
            (Ok(length), _, Some(marker)) => self.put(marker, [length]),
            (_, Ok(length), _) => self.put(of_16, length.to_be_bytes()),
            _ => self.put(of_16 + 1, length.to_be_bytes()),
        }
    }

    #[inline]
    fn unsigned(&mut self, value: u64) {
        if let Ok(value) = u8::try_from(value) {
            if value < 0x80 { self.0.push(value) } else { self.put(0xcc, [value]) }
        } else if let Ok(value) = u16::try_from(value) {
            self.put(0xcd, value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.put(0xce, value.to_be_bytes());
        } else {
            self.put(0xcf, value.to_be_bytes());
        }
    }

    fn negative(&mut self, value: i64) {
        if let Ok(value) = i8::try_from(value) {
            if value >= -32 {
                self.0.push(value.cast_unsigned())
            } else {
                self.put(0xd0, value.to_be_bytes())
            }
        } else if let Ok(value) = i16::try_from(value) {
            self.put(0xd1, value.to_be_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.put(0xd2, value.to_be_bytes());
        } else {
            self.put(0xd3, value.to_be_bytes());
        }
    }
}

impl Writer for MsgPackWriter {
    fn null(&mut self) {
        self.0.push(0xc0);
    }

    fn bool(&mut self, value: bool) {
        self.0.push(0xc2 + u8::from(value));
    }

    #[inline]
    fn uint(&mut self, value: u64) {
        self.unsigned(value);
    }

    /// What has no 64 bits is written as the double next to it.
    fn int(&mut self, value: i128) {
        match (u64::try_from(value), i64::try_from(value)) {
            (Ok(value), _) => self.unsigned(value),
            (_, Ok(value)) => self.negative(value),
            _ => self.float(value as f64),
        }
    }

    fn float(&mut self, value: f64) {
        self.put(0xcb, value.to_be_bytes());
    }

    fn str(&mut self, value: &str) {
        match u8::try_from(value.len()) {
            Ok(length @ 0..=31) => self.0.push(0xa0 | length),
            _ => self.length(value.len(), Some(0xd9), 0xda),
        }
        self.0.extend_from_slice(value.as_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.length(value.len(), Some(0xc4), 0xc5);
        self.0.extend_from_slice(value);
    }

    fn list(&mut self, length: usize) {
        match u8::try_from(length) {
            Ok(length @ 0..=15) => self.0.push(0x90 | length),
            _ => self.length(length, None, 0xdc),
        }
    }

    fn end_list(&mut self) {}

    fn dict(&mut self, length: usize) {
        match u8::try_from(length) {
            Ok(length @ 0..=15) => self.0.push(0x80 | length),
            _ => self.length(length, None, 0xde),
        }
    }

    fn key(&mut self, key: &str) {
        self.str(key);
    }

    fn end_dict(&mut self) {}

    fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }
}

//! JSON (RFC 8259), with bytes as strings of U+0000 followed by base64.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memchr2;

use crate::payload::skip::{self, has_control};
use crate::wamp::error::Violation;
use crate::wamp::wire::{Reader, Seq, Shape, Token, Writer};

/// The standard alphabet. The padding is written, as the specification wants, and not insisted on.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// So many digits fit into 64 bits, whatever they are.
const DIGITS: usize = 19;

/// Reads JSON.
pub(in crate::wamp) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> JsonReader<'a> {
    pub(in crate::wamp) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no whitespace.
    #[inline]
    fn ahead(&mut self) -> Result<u8, Violation> {
        self.space();
        self.text.as_bytes().get(self.at).copied().ok_or_else(ends_early)
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Violation> {
        if self.ahead()? != byte {
            return Err(self.syntax());
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, literal: &str, token: Token<'a>) -> Result<Token<'a>, Violation> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.syntax());
        }
        self.at += literal.len();
        Ok(token)
    }

    #[cold]
    fn syntax(&self) -> Violation {
        Violation::new(format!("not JSON at byte {}", self.at))
    }

    /// A string, at whose quotation mark we stand.
    fn string(&mut self) -> Result<Cow<'a, str>, Violation> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        let mut escaped = false;
        loop {
            let rest = bytes.get(end..).unwrap_or_default();
            let plain = memchr2(b'"', b'\\', rest).ok_or_else(ends_early)?;
            if has_control(&rest[..plain]) {
                return Err(Violation::new("a control character in a JSON string"));
            }
            end += plain;
            if bytes[end] == b'"' {
                break;
            }
            // Whatever follows is passed as well, so that an escaped mark does not end the string.
            escaped = true;
            end += 2;
        }
        self.at = end + 1;
        if escaped {
            let string = serde_json::from_str::<String>(&self.text[start..=end]);
            return string.map(Cow::Owned).map_err(|_| Violation::new("an invalid escape in a JSON string"));
        }
        Ok(Cow::Borrowed(&self.text[start + 1..end]))
    }

    fn digits(&mut self) -> Result<(), Violation> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.syntax()) } else { Ok(()) }
    }

    fn pass(&mut self, bytes: &[u8]) -> bool {
        let found = self.text.as_bytes().get(self.at).is_some_and(|byte| bytes.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn number(&mut self) -> Result<Token<'a>, Violation> {
        let start = self.at;
        self.pass(b"-");
        if !self.pass(b"0") {
            self.digits()?;
        }
        let mut integer = true;
        if self.pass(b".") {
            integer = false;
            self.digits()?;
        }
        if self.pass(b"eE") {
            integer = false;
            self.pass(b"+-");
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        if integer {
            if let Ok(value) = text.parse::<u64>() {
                return Ok(Token::Uint(value));
            }
            if let Ok(value) = text.parse::<i64>() {
                return Ok(u64::try_from(value).map_or(Token::Negative(value), Token::Uint));
            }
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Token::Float(value)),
            _ => Err(Violation::new("a number that is too large")),
        }
    }
}

impl<'a> Reader<'a> for JsonReader<'a> {
    fn token(&mut self) -> Result<Token<'a>, Violation> {
        match self.ahead()? {
            b'"' => bytes_or_str(self.string()?),
            b'[' => {
                self.at += 1;
                Ok(Token::List(Seq::until(b']')))
            }
            b'{' => {
                self.at += 1;
                Ok(Token::Dict(Seq::until(b'}')))
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true", Token::Bool(true)),
            b'f' => self.literal("false", Token::Bool(false)),
            b'n' => self.literal("null", Token::Null),
            _ => Err(self.syntax()),
        }
    }

    #[inline]
    fn uint(&mut self) -> Result<Option<u64>, Violation> {
        self.space();
        let rest = &self.text.as_bytes()[self.at..];
        let mut value = 0;
        for (count, byte) in rest.iter().take(DIGITS + 1).enumerate() {
            match byte {
                b'0'..=b'9' if count < DIGITS => value = value * 10 + u64::from(byte - b'0'),
                // A number that begins with 0 is that alone, or no integer.
                b',' | b']' | b'}' if count > 0 && (rest[0] != b'0' || count == 1) => {
                    self.at += count;
                    return Ok(Some(value));
                }
                _ => break,
            }
        }
        Ok(self.token()?.uint())
    }

    #[inline]
    fn str(&mut self) -> Result<Option<Cow<'a, str>>, Violation> {
        if self.ahead()? != b'"' {
            self.token()?;
            return Ok(None);
        }
        // Names are short: to look at each byte once is faster than to search for many at a time.
        let start = self.at + 1;
        let rest = &self.text.as_bytes()[start..];
        let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        if let Some(length) = plain.filter(|length| rest[*length] == b'"') {
            self.at = start + length + 1;
            return Ok(Some(Cow::Borrowed(&self.text[start..start + length])));
        }
        Ok(if let Token::Str(text) = bytes_or_str(self.string()?)? { Some(text) } else { None })
    }

    #[inline]
    fn pass_empty_dict(&mut self) -> bool {
        self.space();
        let is_empty = self.text.as_bytes()[self.at..].starts_with(b"{}");
        self.at += if is_empty { 2 } else { 0 };
        is_empty
    }

    #[inline]
    fn next(&mut self, seq: &mut Seq) -> Result<bool, Violation> {
        if self.ahead()? == seq.close {
            self.at += 1;
            return Ok(false);
        }
        if !seq.first {
            self.expect(b',')?;
        }
        seq.first = false;
        Ok(true)
    }

    fn key(&mut self) -> Result<Cow<'a, str>, Violation> {
        if self.ahead()? != b'"' {
            return Err(self.syntax());
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    fn peek(&mut self) -> Result<Shape, Violation> {
        Ok(match self.ahead()? {
            b'n' => Shape::Null,
            b'[' => Shape::List,
            b'{' => Shape::Dict,
            _ => Shape::Other,
        })
    }

    fn skip(&mut self) -> Result<usize, Violation> {
        self.space();
        self.at += skip::json_str(&self.text[self.at..])?;
        Ok(self.at)
    }

    #[inline]
    fn container(&mut self) -> Result<Option<(usize, usize)>, Violation> {
        self.space();
        let start = self.at;
        let end = self.skip()?;
        let inside = self.text.as_bytes().get(start + 1..end - 1).unwrap_or_default();
        let is_empty = inside.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        Ok((!is_empty).then_some((start, end)))
    }

    #[inline]
    fn position(&mut self) -> usize {
        self.space();
        self.at
    }

    fn rewind(&mut self, position: usize) {
        self.at = position;
    }

    fn is_at_end(&mut self) -> bool {
        self.space();
        self.at == self.text.len()
    }
}

#[cold]
fn ends_early() -> Violation {
    Violation::new("the message ends early")
}

fn bytes_or_str(string: Cow<'_, str>) -> Result<Token<'_>, Violation> {
    let Some(base64) = string.strip_prefix('\0') else { return Ok(Token::Str(string)) };
    match BASE64.decode(base64) {
        Ok(bytes) => Ok(Token::Bytes(Cow::Owned(bytes))),
        Err(_) => Err(Violation::new("a binary string that is not base64")),
    }
}

/// Writes JSON without any whitespace.
///
/// It needs no stack: whether a comma is due shows in the last byte that was written.
pub(in crate::wamp) struct JsonWriter(Vec<u8>);

impl JsonWriter {
    pub(in crate::wamp) fn new(out: Vec<u8>) -> Self {
        Self(out)
    }

    pub(in crate::wamp) fn into_inner(self) -> Vec<u8> {
        self.0
    }

    #[inline]
    fn comma(&mut self) {
        if !matches!(self.0.last(), None | Some(b'[' | b'{' | b':')) {
            self.0.push(b',');
        }
    }

    fn display(&mut self, value: &impl serde::Serialize) {
        self.comma();
        serde_json::to_writer(&mut self.0, value).expect("strings and numbers go into a vector as JSON");
    }
}

impl Writer for JsonWriter {
    fn null(&mut self) {
        self.raw(b"null");
    }

    fn bool(&mut self, value: bool) {
        self.raw(if value { b"true" } else { b"false" });
    }

    #[inline]
    fn uint(&mut self, value: u64) {
        self.display(&value);
    }

    fn int(&mut self, value: i128) {
        match u64::try_from(value) {
            Ok(value) => self.display(&value),
            Err(_) => self.display(&value),
        }
    }

    /// What JSON has no number for is written as null, as JavaScript does.
    fn float(&mut self, value: f64) {
        self.display(&value);
    }

    fn str(&mut self, value: &str) {
        self.display(&value);
    }

    fn bytes(&mut self, value: &[u8]) {
        self.comma();
        self.0.extend_from_slice(b"\"\\u0000");
        let start = self.0.len();
        self.0.resize(start + value.len().div_ceil(3) * 4, 0);
        let written = BASE64.encode_slice(value, &mut self.0[start..]);
        self.0.truncate(start + written.expect("four characters stand for three bytes"));
        self.0.push(b'"');
    }

    fn list(&mut self, _length: usize) {
        self.comma();
        self.0.push(b'[');
    }

    fn end_list(&mut self) {
        self.0.push(b']');
    }

    fn dict(&mut self, _length: usize) {
        self.comma();
        self.0.push(b'{');
    }

    fn key(&mut self, key: &str) {
        self.str(key);
        self.0.push(b':');
    }

    fn end_dict(&mut self) {
        self.0.push(b'}');
    }

    fn raw(&mut self, value: &[u8]) {
        self.comma();
        self.0.extend_from_slice(value);
    }
}

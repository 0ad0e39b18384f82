//! What the three encodings have in common: one value after the other, read and written by hand.
//!
//! A [`Reader`] yields tokens without building trees, and a [`Writer`] takes them. Neither keeps a stack: who
//! reads a list or dictionary holds its [`Seq`]. Only [`read_dict`] recurses, to a fixed depth.

use std::borrow::Cow;

use crate::payload::Format;
use crate::wamp::dict::{DEPTH_MAX, Dict, ENTRIES_MAX, Value};
use crate::wamp::error::Violation;

pub(super) mod cbor;
pub(super) mod json;
pub(super) mod msgpack;

/// The beginning of a value, or all of it where it has no parts.
#[derive(Debug)]
pub(super) enum Token<'a> {
    /// Null and all that stands for it: CBOR's undefined, MessagePack's extension type 0.
    Null,
    Bool(bool),
    Uint(u64),
    /// One that is negative.
    Negative(i64),
    Float(f64),
    Str(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Seq),
    Dict(Seq),
}

/// A list or dictionary that is being read.
#[derive(Debug)]
pub(super) struct Seq {
    /// Entries still due; `None` where only the end will tell.
    left: Option<u64>,
    /// No entry has been read yet.
    first: bool,
    /// What ends it, where `left` is `None`.
    close: u8,
}

impl Seq {
    fn counted(length: u64) -> Self {
        Self { left: Some(length), first: true, close: 0 }
    }

    fn until(close: u8) -> Self {
        Self { left: None, first: true, close }
    }
}

/// What a value looks like before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    List,
    Dict,
    Other,
}

/// Reads one encoding.
pub(super) trait Reader<'a> {
    /// Reads a value that has no parts, or enters one that has.
    fn token(&mut self) -> Result<Token<'a>, Violation>;

    /// Reads a value; `None` where it is no integer that is not negative. As [`token`](Self::token), but for the shorter
    /// way to what it mostly is; the same holds for the next two.
    fn uint(&mut self) -> Result<Option<u64>, Violation>;

    /// Reads a value; `None` where it is no string.
    fn str(&mut self) -> Result<Option<Cow<'a, str>>, Violation>;

    /// Passes a dictionary without entries, if that is what comes next and is written as most write it.
    fn pass_empty_dict(&mut self) -> bool;

    /// Whether `seq` has another entry; passes what separates or ends them.
    fn next(&mut self, seq: &mut Seq) -> Result<bool, Violation>;

    /// Reads a key, and what stands between it and its value.
    fn key(&mut self) -> Result<Cow<'a, str>, Violation>;

    /// What comes next.
    fn peek(&mut self) -> Result<Shape, Violation>;

    /// Passes one value without reading it, and says where it ended.
    fn skip(&mut self) -> Result<usize, Violation>;

    /// Passes the list or dictionary that comes next, and says where it begins and ends; `None` where it is empty.
    #[inline]
    fn container(&mut self) -> Result<Option<(usize, usize)>, Violation> {
        let start = self.position();
        if let Token::List(mut seq) | Token::Dict(mut seq) = self.token()?
            && !self.next(&mut seq)?
        {
            return Ok(None);
        }
        self.rewind(start);
        Ok(Some((start, self.skip()?)))
    }

    /// Where the next value begins.
    fn position(&mut self) -> usize;

    /// Goes back to where a value began.
    fn rewind(&mut self, position: usize);

    /// Whether nothing follows but what may follow any message.
    fn is_at_end(&mut self) -> bool;
}

/// Writes one encoding.
pub(super) trait Writer {
    fn null(&mut self);
    fn bool(&mut self, value: bool);
    fn uint(&mut self, value: u64);
    fn int(&mut self, value: i128);
    fn float(&mut self, value: f64);
    fn str(&mut self, value: &str);
    fn bytes(&mut self, value: &[u8]);
    fn list(&mut self, length: usize);
    fn end_list(&mut self);
    fn dict(&mut self, length: usize);
    fn key(&mut self, key: &str);
    fn end_dict(&mut self);
    /// A value that is encoded already.
    fn raw(&mut self, value: &[u8]);
}

/// Reads the dictionary that was entered as `seq`.
pub(super) fn read_dict<'a, R: Reader<'a>>(reader: &mut R, seq: Seq) -> Result<Dict, Violation> {
    Budget { entries: ENTRIES_MAX }.dict(reader, seq, DEPTH_MAX)
}

/// Reads one value, within the bounds of a dictionary.
pub(super) fn read_value<'a, R: Reader<'a>>(reader: &mut R) -> Result<Value, Violation> {
    Budget { entries: ENTRIES_MAX }.value(reader, DEPTH_MAX)
}

/// What a message may still cost us.
struct Budget {
    entries: usize,
}

impl Budget {
    fn spend(&mut self) -> Result<(), Violation> {
        match self.entries.checked_sub(1) {
            Some(left) => self.entries = left,
            None => return Err(Violation::new(format!("more than {ENTRIES_MAX} entries in a dictionary"))),
        }
        Ok(())
    }

    fn dict<'a, R: Reader<'a>>(
        &mut self,
        reader: &mut R,
        mut seq: Seq,
        depth: usize,
    ) -> Result<Dict, Violation> {
        let mut entries = Vec::new();
        while reader.next(&mut seq)? {
            self.spend()?;
            let key = reader.key()?.into_owned();
            entries.push((key, self.value(reader, depth - 1)?));
        }
        Dict::from_entries(entries)
    }

    fn list<'a, R: Reader<'a>>(
        &mut self,
        reader: &mut R,
        mut seq: Seq,
        depth: usize,
    ) -> Result<Vec<Value>, Violation> {
        let mut values = Vec::new();
        while reader.next(&mut seq)? {
            self.spend()?;
            values.push(self.value(reader, depth - 1)?);
        }
        Ok(values)
    }

    /// `depth` is how many levels of containers may still be entered.
    fn value<'a, R: Reader<'a>>(&mut self, reader: &mut R, depth: usize) -> Result<Value, Violation> {
        Ok(match reader.token()? {
            Token::Null => Value::Null,
            Token::Bool(value) => Value::Bool(value),
            Token::Uint(value) => Value::Int(value.into()),
            Token::Negative(value) => Value::Int(value.into()),
            Token::Float(value) => Value::Float(value),
            Token::Str(value) => Value::Str(value.into_owned()),
            Token::Bytes(value) => Value::Bytes(value.into_owned()),
            Token::List(_) | Token::Dict(_) if depth == 0 => {
                return Err(Violation::new(format!("dictionaries nested more than {DEPTH_MAX} deep")));
            }
            Token::List(seq) => Value::List(self.list(reader, seq, depth)?),
            Token::Dict(seq) => Value::Dict(self.dict(reader, seq, depth)?),
        })
    }
}

/// Writes a dictionary.
pub(super) fn write_dict<W: Writer>(writer: &mut W, dict: &Dict) {
    writer.dict(dict.len());
    for (key, value) in dict.iter() {
        writer.key(key);
        write_value(writer, value);
    }
    writer.end_dict();
}

/// Writes a value. It recurses as deep as the value is, which only we or [`read_dict`] can have made.
pub(super) fn write_value<W: Writer>(writer: &mut W, value: &Value) {
    match value {
        Value::Null => writer.null(),
        Value::Bool(value) => writer.bool(*value),
        Value::Int(value) => writer.int(*value),
        Value::Float(value) => writer.float(*value),
        Value::Str(value) => writer.str(value),
        Value::Bytes(value) => writer.bytes(value),
        Value::List(values) => {
            writer.list(values.len());
            for value in values {
                write_value(writer, value);
            }
            writer.end_list();
        }
        Value::Dict(dict) => write_dict(writer, dict),
    }
}

/// What stands before an element that is not the first.
#[inline]
pub(super) fn comma_size(format: Format) -> usize {
    usize::from(format == Format::Json)
}

/// How many bytes an integer takes.
#[inline]
pub(super) fn uint_size(format: Format, value: u64) -> usize {
    // What fits into the first byte.
    let small = match format {
        Format::Json => return value.checked_ilog10().map_or(1, |log| 1 + log as usize),
        Format::MsgPack => 0x7f,
        Format::Cbor => 23,
    };
    match value {
        _ if value <= small => 1,
        0..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// How many bytes a string takes, but for what JSON must escape.
#[inline]
pub(super) fn str_size(format: Format, text: &str) -> usize {
    let length = text.len();
    length
        + match format {
            Format::Json => 2,
            Format::MsgPack if length <= 31 => 1,
            Format::MsgPack | Format::Cbor => uint_size(Format::Cbor, length as u64),
        }
}

/// How many bytes a binary takes.
pub(super) fn bytes_size(format: Format, bytes: &[u8]) -> usize {
    let length = bytes.len();
    match format {
        Format::Json => 8 + length.div_ceil(3) * 4,
        Format::MsgPack => length + uint_size(Format::Cbor, length as u64).max(2),
        Format::Cbor => length + uint_size(Format::Cbor, length as u64),
    }
}

/// How many bytes a dictionary takes at most, but for what JSON must escape: exactly so many where all in it are texts
/// and truth values, and integers that are not negative.
#[inline]
pub(super) fn dict_size(format: Format, dict: &Dict) -> usize {
    if dict.is_empty() { 1 + comma_size(format) } else { entries_size(format, dict) }
}

fn entries_size(format: Format, dict: &Dict) -> usize {
    // In JSON a colon and a comma each; the comma that the last has not stands for the second brace.
    let entry = |(key, value)| str_size(format, key) + value_size(format, value) + 2 * comma_size(format);
    container_size(format, dict.len()) + dict.iter().map(entry).sum::<usize>()
}

fn container_size(format: Format, length: usize) -> usize {
    match format {
        Format::Json => 1,
        Format::MsgPack if length <= 15 => 1,
        Format::MsgPack => uint_size(Format::Cbor, length as u64).max(3),
        Format::Cbor => uint_size(Format::Cbor, length as u64),
    }
}

fn value_size(format: Format, value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(true) if format == Format::Json => 4,
        Value::Bool(false) if format == Format::Json => 5,
        Value::Null | Value::Bool(_) => 1,
        Value::Int(value) => u64::try_from(*value).map_or(21, |value| uint_size(format, value)),
        Value::Float(_) if format == Format::Json => 25,
        Value::Float(_) => 9,
        Value::Str(value) => str_size(format, value),
        Value::Bytes(value) => bytes_size(format, value),
        Value::List(values) if values.is_empty() => 1 + comma_size(format),
        Value::List(values) => {
            let elements = values.iter().map(|value| value_size(format, value) + comma_size(format));
            container_size(format, values.len()) + elements.sum::<usize>()
        }
        Value::Dict(dict) => dict_size(format, dict),
    }
}

impl Token<'_> {
    /// The integer, also from a double.
    pub(super) fn uint(&self) -> Option<u64> {
        match self {
            Self::Uint(value) => Some(*value),
            Self::Float(value) => u64::try_from(Value::Float(*value).as_int()?).ok(),
            _ => None,
        }
    }
}

/// A length as the 32 bits that the binary encodings have room for.
#[inline]
fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("encoding refuses messages above 4 GiB before it writes")
}

fn text(bytes: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(bytes).map_err(|_| Violation::new("a string that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wamp::wire::cbor::CborReader;
    use crate::wamp::wire::json::JsonReader;
    use crate::wamp::wire::msgpack::MsgPackReader;

    /// Holds the short ways to the long one: they read the same, fail where it fails, and stop where it stops.
    fn check<'a, R: Reader<'a>>(reader: impl Fn() -> R) {
        let (mut long, mut short) = (reader(), reader());
        let ends = |long: &mut R, short: &mut R| assert_eq!(long.position(), short.position());
        match (long.token(), short.uint()) {
            (Ok(token), Ok(value)) => {
                assert_eq!(token.uint(), value);
                ends(&mut long, &mut short);
            }
            (token, value) => assert_eq!(token.err(), value.err()),
        }
        let (mut long, mut short) = (reader(), reader());
        match (long.token(), short.str()) {
            (Ok(token), Ok(value)) => {
                assert_eq!(if let Token::Str(text) = token { Some(text) } else { None }, value);
                ends(&mut long, &mut short);
            }
            (token, value) => assert_eq!(token.err(), value.err()),
        }
        let (mut long, mut short) = (reader(), reader());
        if short.pass_empty_dict() {
            let Ok(Token::Dict(mut seq)) = long.token() else { panic!("no dictionary was passed") };
            assert_eq!(long.next(&mut seq), Ok(false));
        }
        ends(&mut long, &mut short);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn the_short_ways_are_as_the_long_one(marker in any::<u8>(), bytes in vec(any::<u8>(), 0..40)) {
            let bytes = [&[marker][..], &bytes].concat();
            check(|| MsgPackReader::new(&bytes));
            check(|| CborReader::new(&bytes));
        }

        #[test]
        fn the_short_ways_are_as_the_long_one_in_json(
            text in "[ \n]{0,2}(-?[0-9]{0,25}|[0-9]\\.0|\"([a-z\n]|\\\\[nx\"]|\\\\u0000){0,20}\"?|\\{ ?\\}?|tru|null)[ ,\\]}eE.0a]{0,2}",
        ) {
            check(|| JsonReader::new(&text));
        }
    }

    #[test]
    fn most_of_what_comes_takes_the_short_ways() {
        let wide: &[&[u8]] = &[
            &[0x80],
            &[0x7f],
            &[0xcc, 0xff],
            &[0xcf, 0, 0, 0, 0, 0, 0, 1, 2],
            &[0xa1, b'a'],
            &[0xd9, 1, b'a'],
        ];
        for bytes in wide {
            check(|| MsgPackReader::new(bytes));
        }
        for text in [
            "0,",
            "1]",
            "18446744073709551615,",
            "9007199254740992,",
            "00,",
            "-0,",
            "{},",
            "{ },",
            "\"a\"",
            "",
        ] {
            check(|| JsonReader::new(text));
        }
    }
}

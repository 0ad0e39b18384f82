//! What the three encodings have in common: one value after the other, read and written by hand.
//!
//! A [`Reader`] yields tokens without building trees, and a [`Writer`] takes them. Neither keeps a stack: who
//! reads a list or dictionary holds its [`Seq`]. Only [`read_dict`] recurses, to a fixed depth.

use std::borrow::Cow;

use crate::wamp::dict::{DEPTH_MAX, Dict, ENTRIES_MAX, Value};
use crate::wamp::error::Violation;
use crate::wamp::id::Id;

pub(super) mod cbor;
pub(super) mod json;
pub(super) mod msgpack;

/// The beginning of a value, or all of it where it has no parts.
#[derive(Debug)]
pub(super) enum Token<'a> {
    /// Null and all that stands for it: CBOR's undefined, MessagePack's extension type 0.
    Null,
    Bool(bool),
    Int(i128),
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

    /// Whether `seq` has another entry; passes what separates or ends them.
    fn next(&mut self, seq: &mut Seq) -> Result<bool, Violation>;

    /// Reads a key, and what stands between it and its value.
    fn key(&mut self) -> Result<Cow<'a, str>, Violation>;

    /// What comes next.
    fn peek(&mut self) -> Result<Shape, Violation>;

    /// Passes one value without reading it, and says where it ended.
    fn skip(&mut self) -> Result<usize, Violation>;

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
            Token::Int(value) => Value::Int(value),
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

/// How many bytes a dictionary takes at most, but for what JSON must escape.
pub(super) fn dict_size(dict: &Dict) -> usize {
    dict.iter().map(|(key, value)| key.len() + 6 + value_size(value)).sum::<usize>() + 5
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 6,
        Value::Int(_) | Value::Float(_) => 21,
        Value::Str(value) => value.len() + 6,
        Value::Bytes(value) => value.len() / 3 * 4 + 14,
        Value::List(values) => values.iter().map(value_size).sum::<usize>() + 5,
        Value::Dict(dict) => dict_size(dict),
    }
}

impl Token<'_> {
    /// The ID, also from a double.
    pub(super) fn id(&self) -> Option<Id> {
        match self {
            Self::Int(value) => Value::Int(*value).as_id(),
            Self::Float(value) => Value::Float(*value).as_id(),
            _ => None,
        }
    }

    /// The integer, also from a double.
    pub(super) fn uint(&self) -> Option<u64> {
        let value = match self {
            Self::Int(value) => *value,
            Self::Float(value) => Value::Float(*value).as_int()?,
            _ => return None,
        };
        u64::try_from(value).ok()
    }
}

/// A length as the 32 bits that the binary encodings have room for.
fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("encoding refuses messages above 4 GiB before it writes")
}

fn text(bytes: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(bytes).map_err(|_| Violation::new("a string that is not UTF-8"))
}

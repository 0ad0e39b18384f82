//! MessagePack, read and written in parts.
//!
//! Texts must be UTF-8. Extension type 0 is read as null, because that is how JavaScript's libraries
//! write `undefined`; the other extensions mean nothing in another encoding. Lengths and integers are
//! written in their shortest form.

use rmp::{Marker, encode};

use super::stream::{Buffer, Head, Heads, Kind, Nest, Place, Reader, Scalar, Sink};
use super::{Format, Limits, Unconvertible};

const MALFORMED: Unconvertible = Unconvertible::Malformed { format: Format::MsgPack };

/// Reads values one after the other.
pub(super) struct MsgPackReader<'a> {
    rest: &'a [u8],
}

/// One value, or the head of a container.
enum Item<'a> {
    Scalar(Scalar<'a>),
    Container(Kind, u64),
}

impl<'a> MsgPackReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        MsgPackReader { rest: bytes }
    }

    fn item(&mut self) -> Result<Item<'a>, Unconvertible> {
        let [marker] = self.array()?;
        Ok(match Marker::from_u8(marker) {
            Marker::FixArray(entries) => Item::Container(Kind::Array, entries.into()),
            Marker::Array16 => Item::Container(Kind::Array, self.length(2)? as u64),
            Marker::Array32 => Item::Container(Kind::Array, self.length(4)? as u64),
            Marker::FixMap(entries) => Item::Container(Kind::Map, entries.into()),
            Marker::Map16 => Item::Container(Kind::Map, self.length(2)? as u64),
            Marker::Map32 => Item::Container(Kind::Map, self.length(4)? as u64),
            marker => Item::Scalar(self.scalar(marker)?),
        })
    }

    fn scalar(&mut self, marker: Marker) -> Result<Scalar<'a>, Unconvertible> {
        Ok(match marker {
            Marker::Null => Scalar::Null,
            Marker::False => Scalar::Bool(false),
            Marker::True => Scalar::Bool(true),
            Marker::FixPos(number) => Scalar::Unsigned(number.into()),
            Marker::U8 => Scalar::Unsigned(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Scalar::Unsigned(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Scalar::Unsigned(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Scalar::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::FixNeg(number) => signed(number.into()),
            Marker::I8 => signed(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Scalar::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Scalar::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(len) => self.text(len.into())?,
            Marker::Str8 => self.length(1).and_then(|len| self.text(len))?,
            Marker::Str16 => self.length(2).and_then(|len| self.text(len))?,
            Marker::Str32 => self.length(4).and_then(|len| self.text(len))?,
            Marker::Bin8 => self.length(1).and_then(|len| self.bytes(len))?,
            Marker::Bin16 => self.length(2).and_then(|len| self.bytes(len))?,
            Marker::Bin32 => self.length(4).and_then(|len| self.bytes(len))?,
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => self.length(1).and_then(|len| self.extension(len))?,
            Marker::Ext16 => self.length(2).and_then(|len| self.extension(len))?,
            Marker::Ext32 => self.length(4).and_then(|len| self.extension(len))?,
            Marker::Reserved
            | Marker::FixArray(_)
            | Marker::Array16
            | Marker::Array32
            | Marker::FixMap(_)
            | Marker::Map16
            | Marker::Map32 => return Err(MALFORMED),
        })
    }

    fn text(&mut self, len: usize) -> Result<Scalar<'a>, Unconvertible> {
        let text = str::from_utf8(self.take(len)?).map_err(|_| Unconvertible::NotUtf8)?;
        Ok(Scalar::Text(text))
    }

    fn bytes(&mut self, len: usize) -> Result<Scalar<'a>, Unconvertible> {
        Ok(Scalar::Bytes(self.take(len)?))
    }

    fn extension(&mut self, len: usize) -> Result<Scalar<'a>, Unconvertible> {
        let [kind] = self.array()?;
        self.take(len)?;
        Ok(match kind {
            0 => Scalar::Null,
            _ => Scalar::Foreign(Unconvertible::NoCounterpart { what: "a MessagePack extension" }),
        })
    }

    /// An unsigned number of `width` bytes: 1, 2 or 4.
    fn length(&mut self, width: usize) -> Result<usize, Unconvertible> {
        let digits = self.take(width)?;
        Ok(digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Unconvertible> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unconvertible> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(*taken)
    }
}

fn signed<'a>(number: i64) -> Scalar<'a> {
    match u64::try_from(number) {
        Ok(number) => Scalar::Unsigned(number),
        Err(_) => Scalar::Negative(number),
    }
}

impl<'a> Reader<'a> for MsgPackReader<'a> {
    fn value(&mut self, sink: &mut dyn Sink, limits: &Limits) -> Result<(), Unconvertible> {
        let mut nest = Nest::new(Format::MsgPack, limits);
        loop {
            let place = nest.take()?;
            match self.item()? {
                Item::Scalar(scalar) => sink.scalar(place, scalar)?,
                Item::Container(kind, entries) => {
                    nest.open(kind, Some(entries), self.rest.len())?;
                    sink.begin(place, kind, Some(entries))?;
                }
            }
            while let Some((kind, entries)) = nest.close_complete() {
                sink.end(kind, entries)?;
            }
            if nest.is_empty() {
                return Ok(());
            }
        }
    }

    fn container(&mut self) -> Result<Option<(Kind, Option<u64>)>, Unconvertible> {
        match self.item()? {
            Item::Scalar(_) => Ok(None),
            Item::Container(kind, entries) => Ok(Some((kind, Some(entries)))),
        }
    }

    fn take_break(&mut self) -> bool {
        false
    }

    fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Writes one value.
pub(super) struct MsgPackWriter {
    out: Buffer,
    heads: Heads,
}

impl MsgPackWriter {
    pub(super) fn new(out: Buffer) -> Self {
        MsgPackWriter { out, heads: Heads::default() }
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Unconvertible> {
        self.heads.finish(self.out)
    }

    fn len_u32(&self, len: usize) -> Result<u32, Unconvertible> {
        u32::try_from(len).map_err(|_| self.out.full())
    }
}

impl Sink for MsgPackWriter {
    fn scalar(&mut self, _: Place, scalar: Scalar<'_>) -> Result<(), Unconvertible> {
        let written = match scalar {
            Scalar::Null => encode::write_nil(&mut self.out).is_ok(),
            Scalar::Bool(value) => encode::write_bool(&mut self.out, value).is_ok(),
            Scalar::Unsigned(number) => encode::write_uint(&mut self.out, number).is_ok(),
            Scalar::Negative(number) => encode::write_sint(&mut self.out, number).is_ok(),
            Scalar::Float(number) => encode::write_f64(&mut self.out, number).is_ok(),
            Scalar::Text(text) => {
                let len = self.len_u32(text.len())?;
                encode::write_str_len(&mut self.out, len).is_ok() && self.out.put(text.as_bytes()).is_ok()
            }
            Scalar::Bytes(bytes) => {
                let len = self.len_u32(bytes.len())?;
                encode::write_bin_len(&mut self.out, len).is_ok() && self.out.put(bytes).is_ok()
            }
            Scalar::Foreign(why) => return Err(why),
        };
        if written { Ok(()) } else { Err(self.out.full()) }
    }

    fn begin(&mut self, _: Place, kind: Kind, entries: Option<u64>) -> Result<(), Unconvertible> {
        let head = entries.map(|entries| head(kind, entries)).transpose()?;
        self.heads.begin(&mut self.out, head)
    }

    fn end(&mut self, kind: Kind, entries: u64) -> Result<(), Unconvertible> {
        self.heads.end(&mut self.out, || head(kind, entries))
    }
}

fn head(kind: Kind, entries: u64) -> Result<Head, Unconvertible> {
    let max = u32::MAX;
    let entries = u32::try_from(entries).map_err(|_| Unconvertible::TooMany { max: max as usize })?;
    let (fix, wide) = match kind {
        Kind::Array => (0x90, 0xdc),
        Kind::Map => (0x80, 0xde),
    };
    let digits = entries.to_be_bytes();
    Ok(match entries {
        0..=15 => Head::new(&[fix | digits[3]]),
        16..=0xffff => Head::new(&[wide, digits[2], digits[3]]),
        _ => Head::new(&[wide + 1, digits[0], digits[1], digits[2], digits[3]]),
    })
}

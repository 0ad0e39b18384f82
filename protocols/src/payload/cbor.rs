//! CBOR (RFC 8949), read and written in parts.
//!
//! Tags are passed over and the value inside them taken, except that tags 2 and 3 (big integers) are
//! numbers where 64 bits hold them. `undefined` is read as null; the other simple values mean nothing
//! in another encoding. Indefinite lengths are read, and never written; lengths and integers are
//! written in their shortest form, floating point in eight bytes.

use std::borrow::Cow;

use super::stream::{Buffer, Head, Heads, Kind, Nest, Place, Reader, Scalar, Sink};
use super::{Format, Limits, Unconvertible};

const MALFORMED: Unconvertible = Unconvertible::Malformed { format: Format::Cbor };

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const INDEFINITE: u8 = 31;
const BREAK: u8 = 0xff;

/// Reads values one after the other.
pub(super) struct CborReader<'a> {
    rest: &'a [u8],
}

/// The first byte of an item, and the number that belongs to it.
struct Initial {
    major: u8,
    info: u8,
    argument: u64,
}

impl<'a> CborReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        CborReader { rest: bytes }
    }

    fn initial(&mut self) -> Result<Initial, Unconvertible> {
        let [first] = self.array()?;
        let (major, info) = (first >> 5, first & 0x1f);
        let argument = match info {
            0..=23 => info.into(),
            24 => u8::from_be_bytes(self.array()?).into(),
            25 => u16::from_be_bytes(self.array()?).into(),
            26 => u32::from_be_bytes(self.array()?).into(),
            27 => u64::from_be_bytes(self.array()?),
            INDEFINITE if (BYTES..=MAP).contains(&major) => 0,
            _ => return Err(MALFORMED),
        };
        Ok(Initial { major, info, argument })
    }

    /// The next item that is not a tag, and the number of the last tag before it.
    fn untagged(&mut self) -> Result<(Initial, Option<u64>), Unconvertible> {
        let mut tag = None;
        loop {
            let initial = self.initial()?;
            if initial.major != TAG {
                return Ok((initial, tag));
            }
            tag = Some(initial.argument);
        }
    }

    fn item(&mut self, nest: &mut Nest, sink: &mut dyn Sink) -> Result<(), Unconvertible> {
        let place = nest.take()?;
        let (initial, tag) = self.untagged()?;
        if let Some((kind, entries)) = initial.container() {
            if is_bignum(tag) {
                return Err(MALFORMED);
            }
            nest.open(kind, entries, self.rest.len())?;
            return sink.begin(place, kind, entries);
        }
        match initial.major {
            BYTES => {
                let bytes = self.string(&initial)?;
                match tag {
                    Some(2) => sink.scalar(place, big(&bytes, unsigned)),
                    Some(3) => sink.scalar(place, big(&bytes, negative)),
                    _ => sink.scalar(place, Scalar::Bytes(&bytes)),
                }
            }
            _ if is_bignum(tag) => Err(MALFORMED),
            TEXT => {
                let bytes = self.string(&initial)?;
                let text = str::from_utf8(&bytes).map_err(|_| Unconvertible::NotUtf8)?;
                sink.scalar(place, Scalar::Text(text))
            }
            UNSIGNED => sink.scalar(place, unsigned(initial.argument)),
            NEGATIVE => sink.scalar(place, negative(initial.argument)),
            _ => sink.scalar(place, simple(&initial)?),
        }
    }

    /// The content of a string; joined, where it comes in chunks.
    fn string(&mut self, initial: &Initial) -> Result<Cow<'a, [u8]>, Unconvertible> {
        if initial.info != INDEFINITE {
            return self.take(initial.argument).map(Cow::Borrowed);
        }
        let mut joined = Vec::new();
        while !self.take_break() {
            let chunk = self.initial()?;
            if chunk.major != initial.major || chunk.info == INDEFINITE {
                return Err(MALFORMED);
            }
            let bytes = self.take(chunk.argument)?;
            // RFC 8949, 3.2.3: no character may be split between chunks.
            if chunk.major == TEXT && str::from_utf8(bytes).is_err() {
                return Err(Unconvertible::NotUtf8);
            }
            joined.extend_from_slice(bytes);
        }
        Ok(Cow::Owned(joined))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Unconvertible> {
        let len = usize::try_from(len).map_err(|_| MALFORMED)?;
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

impl Initial {
    fn container(&self) -> Option<(Kind, Option<u64>)> {
        let kind = match self.major {
            ARRAY => Kind::Array,
            MAP => Kind::Map,
            _ => return None,
        };
        Some((kind, (self.info != INDEFINITE).then_some(self.argument)))
    }
}

fn is_bignum(tag: Option<u64>) -> bool {
    matches!(tag, Some(2 | 3))
}

fn unsigned<'a>(number: u64) -> Scalar<'a> {
    Scalar::Unsigned(number)
}

/// CBOR's negative numbers are -1 - `number`.
fn negative<'a>(number: u64) -> Scalar<'a> {
    match i64::try_from(number) {
        Ok(number) => Scalar::Negative(-1 - number),
        Err(_) => Scalar::Foreign(Unconvertible::NumberTooLarge),
    }
}

/// The number whose big-endian digits are `bytes`, if 64 bits hold it.
fn big<'a>(bytes: &[u8], number: fn(u64) -> Scalar<'a>) -> Scalar<'a> {
    let zeros = bytes.iter().take_while(|digit| **digit == 0).count();
    let digits = &bytes[zeros..];
    if digits.len() > 8 {
        return Scalar::Foreign(Unconvertible::NumberTooLarge);
    }
    number(digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)))
}

/// Major type 7: `false` and its like, and floating point.
fn simple<'a>(initial: &Initial) -> Result<Scalar<'a>, Unconvertible> {
    Ok(match (initial.info, initial.argument) {
        (20, _) => Scalar::Bool(false),
        (21, _) => Scalar::Bool(true),
        (22 | 23, _) => Scalar::Null,
        (25, bits) => Scalar::Float(half(bits as u16)),
        (26, bits) => Scalar::Float(f32::from_bits(bits as u32).into()),
        (27, bits) => Scalar::Float(f64::from_bits(bits)),
        // RFC 8949, 3.3: below 32 the two-byte form is not well-formed.
        (24, 0..32) => return Err(MALFORMED),
        _ => Scalar::Foreign(Unconvertible::NoCounterpart { what: "a CBOR simple value" }),
    })
}

/// RFC 8949, appendix D.
fn half(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 0x1f);
    let mantissa = f64::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

impl<'a> Reader<'a> for CborReader<'a> {
    fn value(&mut self, sink: &mut dyn Sink, limits: &Limits) -> Result<(), Unconvertible> {
        let mut nest = Nest::new(Format::Cbor, limits);
        loop {
            if nest.awaits_break() && self.take_break() {
                let (kind, entries) = nest.break_off()?;
                sink.end(kind, entries)?;
            } else {
                self.item(&mut nest, sink)?;
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
        let (initial, tag) = self.untagged()?;
        Ok(if is_bignum(tag) { None } else { initial.container() })
    }

    fn take_break(&mut self) -> bool {
        match self.rest.split_first() {
            Some((&BREAK, rest)) => {
                self.rest = rest;
                true
            }
            Some(_) | None => false,
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// `bytes` without the tags before its value.
pub(super) fn without_tags(bytes: &[u8]) -> Result<&[u8], Unconvertible> {
    let mut reader = CborReader::new(bytes);
    loop {
        let rest = reader.rest;
        if reader.initial()?.major != TAG {
            return Ok(rest);
        }
    }
}

/// Writes one value.
pub(super) struct CborWriter {
    out: Buffer,
    heads: Heads,
}

impl CborWriter {
    pub(super) fn new(out: Buffer) -> Self {
        CborWriter { out, heads: Heads::default() }
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Unconvertible> {
        self.heads.finish(self.out)
    }

    fn put_head(&mut self, major: u8, argument: u64) -> Result<(), Unconvertible> {
        let mut bytes = [0; 9];
        let len = encode_head(&mut bytes, major, argument);
        self.out.put(&bytes[..len])
    }
}

impl Sink for CborWriter {
    fn scalar(&mut self, _: Place, scalar: Scalar<'_>) -> Result<(), Unconvertible> {
        match scalar {
            Scalar::Null => self.put_head(SIMPLE, 22),
            Scalar::Bool(false) => self.put_head(SIMPLE, 20),
            Scalar::Bool(true) => self.put_head(SIMPLE, 21),
            Scalar::Unsigned(number) => self.put_head(UNSIGNED, number),
            Scalar::Negative(number) => self.put_head(NEGATIVE, !number as u64),
            Scalar::Float(number) => {
                self.out.put(&[SIMPLE << 5 | 27])?;
                self.out.put(&number.to_be_bytes())
            }
            Scalar::Text(text) => {
                self.put_head(TEXT, text.len() as u64)?;
                self.out.put(text.as_bytes())
            }
            Scalar::Bytes(bytes) => {
                self.put_head(BYTES, bytes.len() as u64)?;
                self.out.put(bytes)
            }
            Scalar::Foreign(why) => Err(why),
        }
    }

    fn begin(&mut self, _: Place, kind: Kind, entries: Option<u64>) -> Result<(), Unconvertible> {
        self.heads.begin(&mut self.out, entries.map(|entries| head(kind, entries)))
    }

    fn end(&mut self, kind: Kind, entries: u64) -> Result<(), Unconvertible> {
        self.heads.end(&mut self.out, || Ok(head(kind, entries)))
    }
}

fn head(kind: Kind, entries: u64) -> Head {
    let major = match kind {
        Kind::Array => ARRAY,
        Kind::Map => MAP,
    };
    let mut bytes = [0; 9];
    let len = encode_head(&mut bytes, major, entries);
    Head::new(&bytes[..len])
}

/// Writes the shortest head and returns its length.
fn encode_head(bytes: &mut [u8; 9], major: u8, argument: u64) -> usize {
    let (info, width) = match argument {
        0..=23 => (argument as u8, 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    bytes[0] = major << 5 | info;
    bytes[1..=width].copy_from_slice(&argument.to_be_bytes()[8 - width..]);
    1 + width
}

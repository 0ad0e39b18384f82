//! JSON (RFC 8259), read and written in parts.
//!
//! WAMP's binary rule: a string of U+0000 and padded standard base64 stands for bytes. So a text that
//! begins with U+0000 has no form of its own here. Keys are outside that rule: they are always text.
//!
//! Integers keep 64 bits; beyond that, and with a fraction or an exponent, a number is floating point.

use std::fmt;
use std::io::Write;

use base64::display::Base64Display;
use base64::engine::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::stream::{Budget, Buffer, Kind, Place, Scalar, Sink};
use super::{Format, Limits, Unconvertible};

const MALFORMED: Unconvertible = Unconvertible::Malformed { format: Format::Json };

/// Reads the one value that `bytes` is.
///
/// serde_json recurses, at most 127 levels; [`Limits::depth_max`] ends that earlier.
pub(super) fn read(bytes: &[u8], sink: &mut dyn Sink, limits: &Limits) -> Result<(), Unconvertible> {
    let mut feed = Feed { sink, budget: Budget::new(limits), depth: 0, failure: None };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Node { feed: &mut feed, place: Place::Root }.deserialize(&mut deserializer);
    match read.and_then(|()| deserializer.end()) {
        Ok(()) => Ok(()),
        Err(_) => Err(feed.failure.unwrap_or(MALFORMED)),
    }
}

struct Feed<'s> {
    sink: &'s mut dyn Sink,
    budget: Budget,
    depth: usize,
    /// Why the reading ended, because serde's errors cannot carry it.
    failure: Option<Unconvertible>,
}

/// The next value.
struct Node<'f, 's> {
    feed: &'f mut Feed<'s>,
    place: Place,
}

impl Node<'_, '_> {
    fn scalar<E: Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        let passed = self.feed.sink.scalar(self.place, scalar);
        self.feed.keep(passed)
    }

    fn begin<E: Error>(&mut self, kind: Kind) -> Result<(), E> {
        let begun = self.feed.budget.descend(self.feed.depth);
        let begun = begun.and_then(|()| self.feed.sink.begin(self.place, kind, None));
        self.feed.depth += 1;
        self.feed.keep(begun)
    }

    fn end<E: Error>(self, kind: Kind, entries: u64) -> Result<(), E> {
        self.feed.depth -= 1;
        let ended = self.feed.sink.end(kind, entries);
        self.feed.keep(ended)
    }
}

impl Feed<'_> {
    fn keep<E: Error>(&mut self, result: Result<(), Unconvertible>) -> Result<(), E> {
        result.map_err(|failure| {
            self.failure = Some(failure);
            E::custom("")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let spent = self.feed.budget.spend(self.place);
        self.feed.keep(spent)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.scalar(Scalar::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.scalar(Scalar::Negative(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.scalar(Scalar::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match text.strip_prefix('\0') {
            Some(base64) if !self.place.is_key() => match STANDARD.decode(base64) {
                Ok(bytes) => self.scalar(Scalar::Bytes(&bytes)),
                Err(_) => self.scalar(Scalar::Foreign(Unconvertible::NotBase64)),
            },
            Some(_) | None => self.scalar(Scalar::Text(text)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.begin(Kind::Array)?;
        let mut count = 0;
        let feed = &mut *self.feed;
        while elements.next_element_seed(Node { feed, place: Place::element(count) })?.is_some() {
            count += 1;
        }
        self.end(Kind::Array, count)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.begin(Kind::Map)?;
        let mut count = 0;
        let feed = &mut *self.feed;
        while members.next_key_seed(Node { feed, place: Place::key(count) })?.is_some() {
            members.next_value_seed(Node { feed, place: Place::MapValue })?;
            count += 1;
        }
        self.end(Kind::Map, count)
    }
}

/// Writes one value, without any white space.
pub(super) struct JsonWriter {
    out: Buffer,
}

impl JsonWriter {
    pub(super) fn new(out: Buffer) -> Self {
        JsonWriter { out }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out.bytes
    }

    fn separate(&mut self, place: Place) -> Result<(), Unconvertible> {
        match place {
            Place::Root | Place::FirstElement | Place::FirstKey => Ok(()),
            Place::NextElement | Place::NextKey => self.out.put(b","),
            Place::MapValue => self.out.put(b":"),
        }
    }
}

impl Sink for JsonWriter {
    fn scalar(&mut self, place: Place, scalar: Scalar<'_>) -> Result<(), Unconvertible> {
        self.separate(place)?;
        if place.is_key() && !matches!(scalar, Scalar::Text(_)) {
            return Err(Unconvertible::KeyNotText);
        }
        let written = match scalar {
            Scalar::Null => self.out.put(b"null").is_ok(),
            Scalar::Bool(false) => self.out.put(b"false").is_ok(),
            Scalar::Bool(true) => self.out.put(b"true").is_ok(),
            Scalar::Unsigned(number) => write!(self.out, "{number}").is_ok(),
            Scalar::Negative(number) => write!(self.out, "{number}").is_ok(),
            // serde_json would write null.
            Scalar::Float(number) if !number.is_finite() => return Err(Unconvertible::NotFinite),
            Scalar::Float(number) => serde_json::to_writer(&mut self.out, &number).is_ok(),
            Scalar::Text(text) if text.starts_with('\0') && !place.is_key() => {
                return Err(Unconvertible::TextLikeBytes);
            }
            Scalar::Text(text) => serde_json::to_writer(&mut self.out, text).is_ok(),
            Scalar::Bytes(bytes) => {
                write!(self.out, "\"\\u0000{}\"", Base64Display::new(bytes, &STANDARD)).is_ok()
            }
            Scalar::Foreign(why) => return Err(why),
        };
        if written { Ok(()) } else { Err(self.out.full()) }
    }

    fn begin(&mut self, place: Place, kind: Kind, _: Option<u64>) -> Result<(), Unconvertible> {
        if place.is_key() {
            return Err(Unconvertible::KeyNotText);
        }
        self.separate(place)?;
        self.out.put(match kind {
            Kind::Array => b"[",
            Kind::Map => b"{",
        })
    }

    fn end(&mut self, kind: Kind, _: u64) -> Result<(), Unconvertible> {
        self.out.put(match kind {
            Kind::Array => b"]",
            Kind::Map => b"}",
        })
    }
}

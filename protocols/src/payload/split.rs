//! Arguments and the full form, taken apart into slices without reading what is in them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::cbor::CborReader;
use super::msgpack::MsgPackReader;
use super::stream::{Discard, Kind, Place, Reader, Scalar, Sink};
use super::{Format, Limits, Unconvertible};

/// How many entries a container has, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entries<'a> {
    None,
    /// The element; of a map, the value.
    One(&'a [u8]),
    More,
}

/// The members of the full form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Members<'a> {
    pub(super) args: Option<&'a [u8]>,
    pub(super) kwargs: Option<&'a [u8]>,
}

impl<'a> Members<'a> {
    fn set(&mut self, key: Key, value: &'a [u8]) -> Result<(), Unconvertible> {
        let (slot, member) = match key {
            Key::Args => (&mut self.args, "args"),
            Key::Kwargs => (&mut self.kwargs, "kwargs"),
            Key::Other => return Err(Unconvertible::UnknownMember),
        };
        if slot.replace(value).is_some() {
            return Err(Unconvertible::TwiceTheMember { member });
        }
        Ok(())
    }
}

/// Counts the entries of a container, or of nothing at all. What is in them is not checked.
pub(super) fn entries(format: Format, bytes: &[u8]) -> Result<Entries<'_>, Unconvertible> {
    if bytes.is_empty() {
        return Ok(Entries::None);
    }
    match format {
        Format::Json => match serde_json::from_slice(bytes) {
            Ok(JsonEntries(entries)) => Ok(entries),
            Err(_) => Err(Unconvertible::Malformed { format }),
        },
        Format::MsgPack => binary_entries(format, MsgPackReader::new(bytes)),
        Format::Cbor => binary_entries(format, CborReader::new(bytes)),
    }
}

/// Finds the members of the full form. What is in them is not checked.
pub(super) fn members<'a>(
    format: Format,
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<Members<'a>, Unconvertible> {
    match format {
        Format::Json if bytes.trim_ascii_start().first() != Some(&b'{') => Err(Unconvertible::NotAMap),
        Format::Json => match serde_json::from_slice(bytes) {
            Ok(JsonMembers(members)) => members,
            Err(_) => Err(Unconvertible::Malformed { format }),
        },
        Format::MsgPack => binary_members(format, MsgPackReader::new(bytes), limits),
        Format::Cbor => binary_members(format, CborReader::new(bytes), limits),
    }
}

fn binary_entries<'a>(format: Format, mut reader: impl Reader<'a>) -> Result<Entries<'a>, Unconvertible> {
    let malformed = Unconvertible::Malformed { format };
    let (kind, announced) = reader.container()?.ok_or(malformed)?;
    match announced {
        Some(0) => return Ok(Entries::None),
        None if reader.take_break() => return Ok(Entries::None),
        Some(1) | None => {}
        Some(_) => return Ok(Entries::More),
    }
    if kind == Kind::Map {
        reader.value(&mut Discard, &Limits::DEFAULT)?;
    }
    let from = reader.rest();
    if announced.is_some() {
        return Ok(Entries::One(from));
    }
    // Where there are more, it does not matter what they are.
    let limits = Limits { elements_max: usize::MAX, ..Limits::DEFAULT };
    reader.value(&mut Discard, &limits)?;
    let first = &from[..from.len() - reader.rest().len()];
    Ok(if reader.take_break() { Entries::One(first) } else { Entries::More })
}

fn binary_members<'a>(
    format: Format,
    mut reader: impl Reader<'a>,
    limits: &Limits,
) -> Result<Members<'a>, Unconvertible> {
    let Some((Kind::Map, announced)) = reader.container()? else {
        return Err(Unconvertible::NotAMap);
    };
    let limits = Limits { elements_max: usize::MAX, ..*limits };
    let mut members = Members::default();
    let mut left = announced;
    // At most three rounds: a third key is unknown, or there twice.
    while left != Some(0) && !(left.is_none() && reader.take_break()) {
        let mut key = Key::Other;
        reader.value(&mut key, &limits)?;
        let from = reader.rest();
        reader.value(&mut Discard, &limits)?;
        members.set(key, &from[..from.len() - reader.rest().len()])?;
        left = left.map(|left| left - 1);
    }
    if reader.rest().is_empty() { Ok(members) } else { Err(Unconvertible::Malformed { format }) }
}

/// Which member a key names.
#[derive(Clone, Copy)]
enum Key {
    Args,
    Kwargs,
    Other,
}

impl Key {
    fn named(name: &str) -> Key {
        match name {
            "args" => Key::Args,
            "kwargs" => Key::Kwargs,
            _ => Key::Other,
        }
    }
}

impl Sink for Key {
    fn scalar(&mut self, place: Place, scalar: Scalar<'_>) -> Result<(), Unconvertible> {
        if let (Place::Root, Scalar::Text(name)) = (place, scalar) {
            *self = Key::named(name);
        }
        Ok(())
    }

    fn begin(&mut self, _: Place, _: Kind, _: Option<u64>) -> Result<(), Unconvertible> {
        Ok(())
    }

    fn end(&mut self, _: Kind, _: u64) -> Result<(), Unconvertible> {
        Ok(())
    }
}

struct JsonEntries<'a>(Entries<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonEntries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonEntries(Entries::None))
    }
}

impl<'a> JsonEntries<'a> {
    fn add(&mut self, value: &'a RawValue) {
        self.0 = match self.0 {
            Entries::None => Entries::One(value.get().as_bytes()),
            Entries::One(_) | Entries::More => Entries::More,
        };
    }
}

impl<'de: 'a, 'a> Visitor<'de> for JsonEntries<'a> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or a map")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Self, A::Error> {
        if let Some(first) = elements.next_element()? {
            self.add(first);
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {
            self.0 = Entries::More;
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        while members.next_key::<IgnoredAny>()?.is_some() {
            self.add(members.next_value()?);
        }
        Ok(self)
    }
}

struct JsonMembers<'a>(Result<Members<'a>, Unconvertible>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(JsonMembers(Ok(Members::default())))
    }
}

impl<'de: 'a, 'a> Visitor<'de> for JsonMembers<'a> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Self, A::Error> {
        // A wrong member does not end the reading, so that what is not JSON is called that.
        while let Some(JsonKey(key)) = entries.next_key()? {
            let value: &'a RawValue = entries.next_value()?;
            if let Ok(members) = &mut self.0
                && let Err(wrong) = members.set(Key::named(&key), value.get().as_bytes())
            {
                self.0 = Err(wrong);
            }
        }
        Ok(self)
    }
}

/// A key, owned only where it has escapes.
struct JsonKey<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonKey<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = JsonKey<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<JsonKey<'de>, E> {
                Ok(JsonKey(Cow::Borrowed(key)))
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<JsonKey<'de>, E> {
                Ok(JsonKey(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

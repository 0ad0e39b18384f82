//! Values as arguments, and arguments as values.
//!
//! A value becomes one positional argument, and `()` or `None` none at all; [`CallOutput`] and [`Raw`] say all of it.
//! The other way round, what a message carries is read by what is asked for:
//!
//! | asked for | there are | it is |
//! |---|---|---|
//! | a tuple | as many positional arguments | the arguments |
//! | a list, a tuple, a struct, a map, any value | one positional argument | that argument, or, asked for a list of which it is none, the list of it |
//! | a list, any value | several | the list of them |
//! | a struct, a map, any value | only keyword arguments | the dictionary of them |
//! | a number, a text, … | one | that argument |
//! | an `Option` | none | `None` |
//! | `()` | anything | nothing |
//!
//! Values have the same form in every serializer, that of serde's human-readable formats; bytes are bytes also in
//! JSON. Where an integer is wanted, a number that some JSON or JavaScript wrote as `3.0` is one.

use bytes::Bytes;
use rmp_serde::decode;
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

use tandem_protocols::payload::{Arguments, Content, Format, Limits, transcode};
use tandem_protocols::wamp::dict::Dict;

use crate::error::Error;

/// A value may be as large as a message; only its depth is bounded.
const LIMITS: Limits = Limits {
    depth_max: 100,
    elements_max: usize::MAX,
    expansion_max: 16,
    expansion_free_bytes: Limits::DEFAULT.expansion_free_bytes,
};

const EMPTY_LIST: &[u8] = &[0x90];
const EMPTY_MAP: &[u8] = &[0x80];
const NIL: &[u8] = &[0xc0];

/// What a message can be read into: everything that serde can, [`CallOutput`] and [`Raw`].
pub trait FromPayload: Sized {
    /// Reads what a message carries.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`](crate::Error::Decode) where it is no such value.
    fn from_payload(payload: Content, details: Dict) -> Result<Self, Error>;
}

/// What a message can be made of: everything that serde can, [`CallOutput`] and [`Raw`].
pub trait ToPayload {
    /// Makes what a message carries.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`](crate::Error::Encode) where the value has no form on the wire.
    fn to_payload(&self) -> Result<Content, Error>;
}

impl<T: DeserializeOwned> FromPayload for T {
    fn from_payload(payload: Content, _: Dict) -> Result<Self, Error> {
        read(&payload, |args, kwargs| T::deserialize(Carried::new(args, kwargs)?))
    }
}

impl<T: Serialize> ToPayload for T {
    fn to_payload(&self) -> Result<Content, Error> {
        let value = encode(self)?;
        let args = if value == NIL { Vec::new() } else { [&[0x91], &value[..]].concat() };
        Ok(Content::Arguments(Arguments { format: Format::MsgPack, args: args.into(), kwargs: Bytes::new() }))
    }
}

/// Positional and keyword arguments, each as a type.
///
/// ```no_run
/// # async fn run(client: tandem_client::wamp::Client) -> Result<(), tandem_client::wamp::Error> {
/// use std::collections::BTreeMap;
/// use tandem_client::wamp::CallOutput;
///
/// let all: CallOutput<(u64, u64), BTreeMap<String, String>> = client.call("com.example.split").await?;
/// let (left, right) = all.args;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallOutput<A, K = ()> {
    /// The positional arguments: a tuple or a list.
    pub args: A,
    /// The keyword arguments: a struct or a map; `()` for whatever there is.
    pub kwargs: K,
}

impl<A: DeserializeOwned, K: DeserializeOwned> FromPayload for CallOutput<A, K> {
    fn from_payload(payload: Content, _: Dict) -> Result<Self, Error> {
        Ok(Self { args: decode_args(&payload)?, kwargs: decode_kwargs(&payload)? })
    }
}

impl<A: Serialize, K: Serialize> ToPayload for CallOutput<A, K> {
    fn to_payload(&self) -> Result<Content, Error> {
        let (args, kwargs) = (positional(&self.args)?, keyword(&self.kwargs)?);
        Ok(Content::Arguments(Arguments { format: Format::MsgPack, args, kwargs }))
    }
}

/// What a message carries, as it came, and what it says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    /// Details, or Options.
    pub details: Dict,
    /// The arguments, still encoded.
    pub payload: Content,
}

impl Raw {
    /// Of positional and keyword arguments.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`](crate::Error::Encode) where the one is no list, or the other no dictionary.
    pub fn new<A: Serialize, K: Serialize>(args: &A, kwargs: &K) -> Result<Self, Error> {
        let payload =
            Arguments { format: Format::MsgPack, args: positional(args)?, kwargs: keyword(kwargs)? };
        Ok(Self { details: Dict::new(), payload: Content::Arguments(payload) })
    }

    /// The positional arguments; none are an empty list.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`](crate::Error::Decode) where they are no `T`.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode_args(&self.payload)
    }

    /// The keyword arguments; none are an empty dictionary.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`](crate::Error::Decode) where they are no `T`.
    pub fn kwargs<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode_kwargs(&self.payload)
    }

    /// All of it as one value, as if `T` had been asked for at once.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`](crate::Error::Decode) where it is no `T`.
    pub fn value<T: FromPayload>(&self) -> Result<T, Error> {
        T::from_payload(self.payload.clone(), self.details.clone())
    }
}

impl FromPayload for Raw {
    fn from_payload(payload: Content, details: Dict) -> Result<Self, Error> {
        Ok(Self { details, payload })
    }
}

impl ToPayload for Raw {
    fn to_payload(&self) -> Result<Content, Error> {
        Ok(self.payload.clone())
    }
}

fn decode_args<T: DeserializeOwned>(payload: &Content) -> Result<T, Error> {
    read(payload, |args, _| T::deserialize(Whole(args)))
}

fn decode_kwargs<T: DeserializeOwned>(payload: &Content) -> Result<T, Error> {
    read(payload, |_, kwargs| T::deserialize(Whole(kwargs)))
}

/// Positional arguments in MessagePack, from which every other format is made; no bytes where there are none.
pub(super) fn positional<A: Serialize>(args: &A) -> Result<Bytes, Error> {
    let bytes = encode(args)?;
    match bytes.first() {
        Some(0x90 | 0xc0) => Ok(Bytes::new()),
        Some(0x91..=0x9f | 0xdc | 0xdd) => Ok(bytes.into()),
        _ => Err(Error::Encode("positional arguments are a tuple or a list".to_owned())),
    }
}

/// Keyword arguments, likewise.
pub(super) fn keyword<K: Serialize>(kwargs: &K) -> Result<Bytes, Error> {
    let bytes = encode(kwargs)?;
    match bytes.first() {
        Some(0x80 | 0xc0) => Ok(Bytes::new()),
        Some(0x81..=0x8f | 0xde | 0xdf) => Ok(bytes.into()),
        _ => Err(Error::Encode("keyword arguments are a struct or a map".to_owned())),
    }
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable();
    value.serialize(&mut serializer).map_err(|error| Error::Encode(error.to_string()))?;
    Ok(bytes)
}

/// The same arguments in the format of a session.
pub(super) fn in_format(payload: Content, format: Format) -> Result<Content, Error> {
    let Content::Arguments(arguments) = payload else { return Ok(payload) };
    if arguments.format == format {
        return Ok(Content::Arguments(arguments));
    }
    let convert = |bytes: &Bytes| match bytes.is_empty() {
        true => Ok(Bytes::new()),
        false => transcode(arguments.format, format, bytes, &LIMITS)
            .map_err(|error| Error::Encode(error.to_string())),
    };
    let (args, kwargs) = (convert(&arguments.args)?, convert(&arguments.kwargs)?);
    Ok(Content::Arguments(Arguments { format, args, kwargs }))
}

/// Hands positional and keyword arguments to `decode`, as MessagePack and never empty.
fn read<T>(payload: &Content, decode: impl Fn(&[u8], &[u8]) -> Result<T, decode::Error>) -> Result<T, Error> {
    let Content::Arguments(arguments) = payload else {
        return Err(Error::Decode("the payload is opaque".to_owned()));
    };
    let read = |bytes: &Bytes, empty: &'static [u8]| match (bytes.is_empty(), arguments.format) {
        (true, _) => Ok(Bytes::from_static(empty)),
        (false, Format::MsgPack) => Ok(bytes.clone()),
        (false, format) => transcode(format, Format::MsgPack, bytes, &LIMITS)
            .map_err(|error| Error::Decode(error.to_string())),
    };
    let (args, kwargs) = (read(&arguments.args, EMPTY_LIST)?, read(&arguments.kwargs, EMPTY_MAP)?);
    decode(&args, &kwargs).or_else(|error| {
        // Only where it does not work as it is: for almost nobody.
        match (with_integers(&args), with_integers(&kwargs)) {
            (Some(args), Some(kwargs)) => {
                decode(&args, &kwargs).map_err(|_| Error::Decode(error.to_string()))
            }
            _ => Err(Error::Decode(error.to_string())),
        }
    })
}

/// The same, with integers for the doubles that are integral.
fn with_integers(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let value = rmpv::decode::read_value(&mut bytes).ok()?;
    let mut written = Vec::new();
    rmpv::encode::write_value(&mut written, &integral(value)).ok()?;
    Some(written)
}

fn integral(value: rmpv::Value) -> rmpv::Value {
    use rmpv::Value;

    // Beyond 2^53 a double does not tell which integer was meant.
    let is_exact = |float: f64| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
    match value {
        Value::F64(float) if is_exact(float) => Value::from(float as i64),
        Value::F32(float) if is_exact(float.into()) => Value::from(float as i64),
        Value::Array(values) => Value::Array(values.into_iter().map(integral).collect()),
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (key, integral(value))).collect())
        }
        other => other,
    }
}

fn reader(
    bytes: &[u8],
) -> decode::Deserializer<
    decode::ReadRefReader<'_, [u8]>,
    rmp_serde::config::HumanReadableConfig<rmp_serde::config::DefaultConfig>,
> {
    decode::Deserializer::from_read_ref(bytes).with_human_readable()
}

/// A list or a dictionary as it is, except that `()` takes any.
struct Whole<'a>(&'a [u8]);

/// Hands a call on to the reader of some bytes.
macro_rules! hand_on {
    ($given:ident, $visitor:ident: $($method:ident $(($($name:ident: $type:ty),*))? => $bytes:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self $($(, $name: $type)*)?, $visitor: V) -> Result<V::Value, Self::Error> {
            let $given = self;
            (&mut reader($bytes)).$method($($($name,)*)? $visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Whole<'de> {
    type Error = decode::Error;

    hand_on! { given, visitor:
        deserialize_any => given.0;
        deserialize_newtype_struct(name: &'static str) => given.0;
        deserialize_seq => given.0;
        deserialize_tuple(len: usize) => given.0;
        deserialize_tuple_struct(name: &'static str, len: usize) => given.0;
        deserialize_map => given.0;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) => given.0;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) => given.0;
        deserialize_option => given.0;
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        true
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf identifier ignored_any
    }
}

/// Positional and keyword arguments, read by what is asked for: see the table of this file.
struct Carried<'a> {
    /// How many positional arguments there are.
    count: usize,
    /// The list of them.
    list: &'a [u8],
    /// The same without its head: the only one, where there is one.
    items: &'a [u8],
    kwargs: &'a [u8],
}

impl<'a> Carried<'a> {
    fn new(list: &'a [u8], kwargs: &'a [u8]) -> Result<Self, decode::Error> {
        let mut items = list;
        let count = rmp::decode::read_array_len(&mut items)?;
        Ok(Self { count: count as usize, list, items, kwargs })
    }

    fn has_kwargs(&self) -> bool {
        self.kwargs != EMPTY_MAP
    }

    /// One value.
    fn one(&self) -> Result<&'a [u8], decode::Error> {
        match self.count {
            0 => Ok(NIL),
            1 => Ok(self.items),
            count => Err(decode::Error::custom(format!("{count} positional arguments in the place of one"))),
        }
    }

    /// Any value.
    fn any(&self) -> &'a [u8] {
        match self.count {
            0 if self.has_kwargs() => self.kwargs,
            0 => NIL,
            1 => self.items,
            _ => self.list,
        }
    }

    /// A struct or a map.
    fn fields(&self) -> &'a [u8] {
        match self.count {
            0 => self.kwargs,
            1 => self.items,
            _ => self.list,
        }
    }

    fn elements(&self) -> &'a [u8] {
        let is_list = |bytes: &[u8]| matches!(bytes.first(), Some(0x90..=0x9f | 0xdc | 0xdd));
        if self.count == 1 && is_list(self.items) { self.items } else { self.list }
    }

    fn tuple(&self, len: usize) -> &'a [u8] {
        if self.count == len || self.count != 1 { self.list } else { self.items }
    }
}

impl<'de> Deserializer<'de> for Carried<'de> {
    type Error = decode::Error;

    hand_on! { given, visitor:
        deserialize_any => given.any();
        deserialize_bool => given.one()?;
        deserialize_i8 => given.one()?;
        deserialize_i16 => given.one()?;
        deserialize_i32 => given.one()?;
        deserialize_i64 => given.one()?;
        deserialize_i128 => given.one()?;
        deserialize_u8 => given.one()?;
        deserialize_u16 => given.one()?;
        deserialize_u32 => given.one()?;
        deserialize_u64 => given.one()?;
        deserialize_u128 => given.one()?;
        deserialize_f32 => given.one()?;
        deserialize_f64 => given.one()?;
        deserialize_char => given.one()?;
        deserialize_str => given.one()?;
        deserialize_string => given.one()?;
        deserialize_bytes => given.one()?;
        deserialize_byte_buf => given.one()?;
        deserialize_identifier => given.one()?;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) => given.one()?;
        deserialize_seq => given.elements();
        deserialize_tuple(len: usize) => given.tuple(len);
        deserialize_tuple_struct(name: &'static str, len: usize) => given.tuple(len);
        deserialize_map => given.fields();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) => given.fields();
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.any() == NIL { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        true
    }
}

/// Arguments as a request gathers them; what cannot be encoded is told when it is sent.
#[derive(Debug)]
pub(super) struct Draft {
    made: Result<Content, Error>,
}

impl Default for Draft {
    fn default() -> Self {
        Self { made: Ok(Content::Arguments(none())) }
    }
}

fn none() -> Arguments {
    Arguments { format: Format::MsgPack, args: Bytes::new(), kwargs: Bytes::new() }
}

impl Draft {
    pub(super) fn args<A: Serialize>(&mut self, args: &A) {
        self.change(|arguments| {
            arguments.args = positional(args)?;
            Ok(())
        });
    }

    pub(super) fn kwargs<K: Serialize>(&mut self, kwargs: &K) {
        self.change(|arguments| {
            arguments.kwargs = keyword(kwargs)?;
            Ok(())
        });
    }

    pub(super) fn payload<T: ToPayload>(&mut self, payload: &T) {
        self.made = payload.to_payload();
    }

    fn change(&mut self, change: impl FnOnce(&mut Arguments) -> Result<(), Error>) {
        let mut arguments = match &mut self.made {
            Err(_) => return,
            Ok(Content::Arguments(made)) if made.format == Format::MsgPack => made.clone(),
            Ok(_) => none(),
        };
        self.made = change(&mut arguments).map(|()| Content::Arguments(arguments));
    }

    pub(super) fn finish(self) -> Result<Content, Error> {
        self.made
    }
}

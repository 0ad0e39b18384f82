//! Arguments of WAMP messages, made from values and read into values.
//!
//! Positional arguments are a tuple, an array or a vector, keyword arguments a struct or a map; `()` is none of
//! either. Binary values are whatever serde makes of them, which in JSON is not what WAMP defines; for those
//! there is [`encode_bytes`](tandem_protocols::payload::encode_bytes).
//!
//! ```
//! use tandem_client::arguments::{arguments, decode_args, positional};
//! use tandem_protocols::payload::{Content, Format};
//!
//! let greeting = positional(Format::Json, &("hello", 3))?;
//! assert_eq!(greeting.args, r#"["hello",3]"#);
//! let (text, count): (String, u8) = decode_args(&Content::Arguments(greeting))?;
//! assert_eq!((text.as_str(), count), ("hello", 3));
//! assert!(positional(Format::Json, &"no list").is_err());
//! # Ok::<(), tandem_client::Error>(())
//! ```

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use tandem_protocols::payload::{Arguments, Content, Format};

use crate::error::Error;

/// Positional arguments.
///
/// # Errors
///
/// [`Error::Encode`] where `args` is no list.
pub fn positional<A: Serialize + ?Sized>(format: Format, args: &A) -> Result<Arguments, Error> {
    Ok(Arguments { format, args: encode(format, args, Container::List)?, kwargs: Bytes::new() })
}

/// Positional and keyword arguments.
///
/// # Errors
///
/// [`Error::Encode`] where `args` is no list, or `kwargs` no dictionary.
pub fn arguments<A, K>(format: Format, args: &A, kwargs: &K) -> Result<Arguments, Error>
where
    A: Serialize + ?Sized,
    K: Serialize + ?Sized,
{
    let kwargs = encode(format, kwargs, Container::Dict)?;
    Ok(Arguments { format, args: encode(format, args, Container::List)?, kwargs })
}

/// The positional arguments that a message carries; where it carries none, an empty list.
///
/// # Errors
///
/// [`Error::Decode`] where they are no `T`, or where the payload is opaque.
pub fn decode_args<T: DeserializeOwned>(content: &Content) -> Result<T, Error> {
    let arguments = carried(content)?;
    decode(arguments.format, &arguments.args, Container::List)
}

/// The keyword arguments that a message carries; where it carries none, an empty dictionary.
///
/// # Errors
///
/// See [`decode_args`].
pub fn decode_kwargs<T: DeserializeOwned>(content: &Content) -> Result<T, Error> {
    let arguments = carried(content)?;
    decode(arguments.format, &arguments.kwargs, Container::Dict)
}

/// What arguments must be.
#[derive(Clone, Copy, Debug)]
enum Container {
    List,
    Dict,
}

impl Container {
    /// Whether a value begins like this; one that we encoded has no tags and no blanks.
    fn begins(self, format: Format, first: u8) -> bool {
        match (self, format) {
            (Self::List, Format::Json) => first == b'[',
            (Self::Dict, Format::Json) => first == b'{',
            (Self::List, Format::MsgPack) => matches!(first, 0x90..=0x9f | 0xdc | 0xdd),
            (Self::Dict, Format::MsgPack) => matches!(first, 0x80..=0x8f | 0xde | 0xdf),
            (Self::List, Format::Cbor) => matches!(first, 0x80..=0x9f),
            (Self::Dict, Format::Cbor) => matches!(first, 0xa0..=0xbf),
        }
    }

    fn empty(self, format: Format) -> &'static [u8] {
        match (self, format) {
            (Self::List, Format::Json) => b"[]",
            (Self::Dict, Format::Json) => b"{}",
            (Self::List, Format::MsgPack) => b"\x90",
            (Self::Dict, Format::MsgPack) | (Self::List, Format::Cbor) => b"\x80",
            (Self::Dict, Format::Cbor) => b"\xa0",
        }
    }
}

fn carried(content: &Content) -> Result<&Arguments, Error> {
    match content {
        Content::Arguments(arguments) => Ok(arguments),
        Content::Opaque(_) | Content::Body(_) => Err(Error::Decode("the payload is opaque".to_owned())),
    }
}

/// No bytes where the container is empty, as everywhere in [`Arguments`].
fn encode<T>(format: Format, value: &T, container: Container) -> Result<Bytes, Error>
where
    T: Serialize + ?Sized,
{
    let failed = |error: &dyn std::fmt::Display| Error::Encode(error.to_string());
    let bytes = match format {
        Format::Json => serde_json::to_vec(value).map_err(|error| failed(&error))?,
        Format::MsgPack => rmp_serde::to_vec_named(value).map_err(|error| failed(&error))?,
        Format::Cbor => {
            let mut bytes = Vec::new();
            ciborium::into_writer(value, &mut bytes).map_err(|error| failed(&error))?;
            bytes
        }
    };
    let is_null = matches!((format, &bytes[..]), (Format::Json, b"null") | (Format::MsgPack, b"\xc0"))
        || (format == Format::Cbor && bytes == b"\xf6");
    if is_null || bytes == container.empty(format) {
        return Ok(Bytes::new());
    }
    if !bytes.first().is_some_and(|first| container.begins(format, *first)) {
        return Err(Error::Encode(format!("arguments must be a {container:?}")));
    }
    Ok(bytes.into())
}

fn decode<T: DeserializeOwned>(format: Format, bytes: &[u8], container: Container) -> Result<T, Error> {
    let bytes = if bytes.is_empty() { container.empty(format) } else { bytes };
    let failed = |error: &dyn std::fmt::Display| Error::Decode(error.to_string());
    match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|error| failed(&error)),
        Format::MsgPack => rmp_serde::from_slice(bytes).map_err(|error| failed(&error)),
        Format::Cbor => ciborium::from_reader(bytes).map_err(|error| failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

    #[test]
    fn values_come_back_as_they_went_in_every_format() {
        let kwargs = BTreeMap::from([("a".to_owned(), 1.5), ("b".to_owned(), -2.0)]);
        for format in FORMATS {
            let made = Content::Arguments(arguments(format, &("x", [1, 2], None::<u8>), &kwargs).unwrap());
            let (text, list, none): (String, Vec<u64>, Option<u8>) = decode_args(&made).unwrap();
            assert_eq!((text.as_str(), &list[..], none), ("x", &[1, 2][..], None));
            assert_eq!(decode_kwargs::<BTreeMap<String, f64>>(&made).unwrap(), kwargs);
        }
    }

    #[test]
    fn nothing_is_no_bytes_and_reads_as_empty() {
        for format in FORMATS {
            let none = arguments(format, &(), &()).unwrap();
            assert!(none.args.is_empty() && none.kwargs.is_empty(), "{format}");
            let empty = arguments(format, &[0; 0], &BTreeMap::<String, u8>::new()).unwrap();
            assert_eq!(empty, none);
            let content = Content::Arguments(empty);
            assert_eq!(decode_args::<Vec<u8>>(&content).unwrap(), [0; 0]);
            assert!(decode_kwargs::<BTreeMap<String, u8>>(&content).unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_no_list_or_dictionary_is_refused() {
        for format in FORMATS {
            assert!(positional(format, "text").is_err());
            assert!(positional(format, &5).is_err());
            assert!(positional(format, &BTreeMap::from([("a", 1)])).is_err());
            assert!(arguments(format, &[1], &[1]).is_err());
        }
        let opaque = Content::Opaque(Bytes::from_static(b"x"));
        assert!(matches!(decode_args::<Vec<u8>>(&opaque), Err(Error::Decode(_))));
    }
}

//! Encoded lists, taken apart and put together without decoding what only passes through: the arguments of
//! procedures that the router itself serves.

use bytes::Bytes;

use crate::payload::Format;
use crate::wamp::dict::Value;
use crate::wamp::error::Violation;
use crate::wamp::wire::cbor::{CborReader, CborWriter};
use crate::wamp::wire::json::{JsonReader, JsonWriter};
use crate::wamp::wire::msgpack::{MsgPackReader, MsgPackWriter};
use crate::wamp::wire::{Reader, Token, Writer, read_value, write_value};

/// Decodes at most `count` elements from the beginning of an encoded list, and gives the others as a list of
/// their own, still encoded. No bytes stand for a list without elements, on either side.
///
/// ```
/// use bytes::Bytes;
/// use tandem_protocols::payload::Format;
/// use tandem_protocols::wamp::{dict::Value, list::split_list};
///
/// let (first, rest) = split_list(Format::Json, &Bytes::from_static(br#"["q", 1, [2]]"#), 1)?;
/// assert_eq!((first, &rest[..]), (vec![Value::from("q")], &b"[1, [2]]"[..]));
/// # Ok::<(), tandem_protocols::wamp::error::Violation>(())
/// ```
///
/// # Errors
///
/// A [`Violation`] where `list` is no list, or a decoded element is too deep or has too many entries.
pub fn split_list(format: Format, list: &Bytes, count: usize) -> Result<(Vec<Value>, Bytes), Violation> {
    if list.is_empty() {
        return Ok((Vec::new(), Bytes::new()));
    }
    let (first, others, tail) = match format {
        Format::Json => {
            let text = std::str::from_utf8(list).map_err(|_| Violation::new("a list that is not UTF-8"))?;
            split(JsonReader::new(text), list, count)?
        }
        Format::MsgPack => split(MsgPackReader::new(list), list, count)?,
        Format::Cbor => split(CborReader::new(list), list, count)?,
    };
    let rest = if others == 0 {
        Bytes::new()
    } else {
        // What separates the elements in between is part of the tail.
        write(format, tail.len() + 8, others, |writer| writer.raw(tail))
    };
    Ok((first, rest))
}

fn split<'a, R: Reader<'a>>(
    mut reader: R,
    list: &'a [u8],
    count: usize,
) -> Result<(Vec<Value>, usize, &'a [u8]), Violation> {
    let Token::List(mut seq) = reader.token()? else { return Err(Violation::new("not a list")) };
    let mut first = Vec::new();
    while first.len() < count {
        if !reader.next(&mut seq)? {
            return Ok((first, 0, &[]));
        }
        first.push(read_value(&mut reader)?);
    }
    let mut others = 0;
    let (mut start, mut end) = (0, 0);
    while reader.next(&mut seq)? {
        if others == 0 {
            start = reader.position();
        }
        end = reader.skip()?;
        others += 1;
    }
    Ok((first, others, &list[start..end]))
}

/// A list that begins with these values and goes on with the elements of an encoded one, which are not decoded.
///
/// # Errors
///
/// A [`Violation`] where `list` is no list.
pub fn prepend_list(format: Format, values: &[Value], list: &Bytes) -> Result<Bytes, Violation> {
    let (_, others, tail) = match format {
        _ if list.is_empty() => (Vec::new(), 0, &[][..]),
        Format::Json => {
            let text = std::str::from_utf8(list).map_err(|_| Violation::new("a list that is not UTF-8"))?;
            split(JsonReader::new(text), list, 0)?
        }
        Format::MsgPack => split(MsgPackReader::new(list), list, 0)?,
        Format::Cbor => split(CborReader::new(list), list, 0)?,
    };
    Ok(write(format, tail.len() + values.len() * 32 + 8, values.len() + others, |writer| {
        values.iter().for_each(|value| writer.value(value));
        if others > 0 {
            writer.raw(tail);
        }
    }))
}

/// An element of a list that is to be written.
#[derive(Clone, Copy, Debug)]
pub enum Element<'a> {
    /// A value.
    Value(&'a Value),
    /// One that is encoded already, in the format of the list.
    Encoded(&'a [u8]),
}

/// Writes a list.
pub fn encode_list(format: Format, elements: &[Element<'_>]) -> Bytes {
    let encoded = elements.iter().map(|element| match element {
        Element::Value(_) => 32,
        Element::Encoded(bytes) => bytes.len() + 1,
    });
    write(format, encoded.sum::<usize>() + 8, elements.len(), |writer| {
        for element in elements {
            match element {
                Element::Value(value) => writer.value(value),
                Element::Encoded(bytes) => writer.raw(bytes),
            }
        }
    })
}

/// Writes a dictionary.
pub fn encode_dict(format: Format, entries: &[(&str, Element<'_>)]) -> Bytes {
    match format {
        Format::Json => fill_dict(JsonWriter::new(Vec::new()), entries).into_inner(),
        Format::MsgPack => fill_dict(MsgPackWriter::new(Vec::new()), entries).into_inner(),
        Format::Cbor => fill_dict(CborWriter::new(Vec::new()), entries).into_inner(),
    }
    .into()
}

fn fill_dict<W: Writer>(mut writer: W, entries: &[(&str, Element<'_>)]) -> W {
    writer.dict(entries.len());
    for (key, element) in entries {
        writer.key(key);
        match element {
            Element::Value(value) => write_value(&mut writer, value),
            Element::Encoded(bytes) => Writer::raw(&mut writer, bytes),
        }
    }
    writer.end_dict();
    writer
}

/// What a list is filled with, whatever its format.
trait Fill {
    fn value(&mut self, value: &Value);
    fn raw(&mut self, bytes: &[u8]);
}

impl<W: Writer> Fill for W {
    fn value(&mut self, value: &Value) {
        write_value(self, value);
    }

    fn raw(&mut self, bytes: &[u8]) {
        Writer::raw(self, bytes);
    }
}

fn write(format: Format, size: usize, length: usize, fill: impl FnOnce(&mut dyn Fill)) -> Bytes {
    let out = Vec::with_capacity(size);
    match format {
        Format::Json => fill_list(JsonWriter::new(out), length, fill).into_inner(),
        Format::MsgPack => fill_list(MsgPackWriter::new(out), length, fill).into_inner(),
        Format::Cbor => fill_list(CborWriter::new(out), length, fill).into_inner(),
    }
    .into()
}

fn fill_list<W: Writer>(mut writer: W, length: usize, fill: impl FnOnce(&mut dyn Fill)) -> W {
    writer.list(length);
    fill(&mut writer);
    writer.end_list();
    writer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Limits, transcode};

    const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

    fn in_format(format: Format, json: &str) -> Bytes {
        transcode(Format::Json, format, json.as_bytes(), &Limits::DEFAULT).unwrap()
    }

    #[test]
    fn a_dictionary_holds_values_and_what_is_encoded_already() {
        for format in FORMATS {
            let (number, list) = (Value::from(7_u64), in_format(format, "[1,{}]"));
            let entries = [
                ("a", Element::Value(&number)),
                ("b", Element::Encoded(&list)),
                ("c", Element::Value(&number)),
            ];
            assert_eq!(encode_dict(format, &entries), in_format(format, r#"{"a":7,"b":[1,{}],"c":7}"#));
            assert_eq!(encode_dict(format, &[]), in_format(format, "{}"));
        }
    }

    #[test]
    fn values_go_before_what_is_not_decoded() {
        for format in FORMATS {
            let list = in_format(format, r#"["q",[1,{"a":2}]]"#);
            let more = prepend_list(format, &[Value::from(7_u64), Value::Null], &list).unwrap();
            assert_eq!(more, in_format(format, r#"[7,null,"q",[1,{"a":2}]]"#));
            for nothing in [Bytes::new(), in_format(format, "[]")] {
                let alone = prepend_list(format, &[Value::Bool(true)], &nothing).unwrap();
                assert_eq!(alone, in_format(format, "[true]"));
            }
            assert!(prepend_list(format, &[], &in_format(format, "{}")).is_err());
        }
    }

    #[test]
    fn what_is_not_decoded_stays_as_it_was() {
        for format in FORMATS {
            let list = in_format(format, r#"["q",7,[1,{"a":2}],"x"]"#);
            for (count, rest) in
                [(0, r#"["q",7,[1,{"a":2}],"x"]"#), (1, r#"[7,[1,{"a":2}],"x"]"#), (3, r#"["x"]"#)]
            {
                let (first, others) = split_list(format, &list, count).unwrap();
                assert_eq!((first.len(), others), (count, in_format(format, rest)), "{format}");
            }
            for count in [4, 5, usize::MAX] {
                let (first, others) = split_list(format, &list, count).unwrap();
                assert_eq!((first.len(), others), (4, Bytes::new()));
            }
            assert_eq!(split_list(format, &Bytes::new(), 2).unwrap(), (vec![], Bytes::new()));
        }
        let indefinite = Bytes::from_static(&[0x9f, 0x01, 0x9f, 0x02, 0xff, 0x03, 0xff]);
        let (first, rest) = split_list(Format::Cbor, &indefinite, 1).unwrap();
        assert_eq!((first, &rest[..]), (vec![Value::Int(1)], &[0x82, 0x9f, 0x02, 0xff, 0x03][..]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (format, bytes) in [
            (Format::Json, &b"{}"[..]),
            (Format::Json, b"[1"),
            (Format::Json, b"[\"\xff\"]"),
            (Format::MsgPack, &[0x80]),
            (Format::MsgPack, &[0x92, 1]),
            (Format::Cbor, &[0xa0]),
            (Format::Cbor, &[0x9f, 1]),
        ] {
            assert!(split_list(format, &Bytes::copy_from_slice(bytes), 1).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_list_of_values_and_encoded_parts_is_one_list() {
        for format in FORMATS {
            let part = in_format(format, r#"[1,"a"]"#);
            let number = Value::from(5_u64);
            let elements = [Element::Value(&number), Element::Encoded(&part), Element::Value(&Value::Null)];
            assert_eq!(encode_list(format, &elements), in_format(format, r#"[5,[1,"a"],null]"#));
            assert_eq!(encode_list(format, &[]), in_format(format, "[]"));
        }
    }
}

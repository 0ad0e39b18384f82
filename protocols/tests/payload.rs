//! Conversion of payloads against other people's libraries, and against hostile input.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use tandem_protocols::payload::{
    Arguments, Body, Carried, Content, Encoding, Format, Limits, Payload, Shape, Unconvertible, transcode,
};

const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

/// A value that every encoding can say.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(|number| Value::Integer(number.into())),
        any::<i64>().prop_map(|number| Value::Integer(number.into())),
        (-300i128..300).prop_map(Value::Integer),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Float),
        any::<f32>().prop_filter("finite", |number| number.is_finite()).prop_map(|n| Value::Float(n.into())),
        (-20i32..20).prop_map(|number| Value::Float(number.into())),
        text().prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ];
    scalar.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            map(inner).prop_map(Value::Map),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    let kinds = prop_oneof!["[ -~]{0,40}", any::<String>(), "[\\x00-\\x1f\"\\\\/]{0,8}"];
    kinds.prop_filter("U+0000 at the beginning is bytes in JSON", |text| !text.starts_with('\0'))
}

fn map(value: impl Strategy<Value = Value>) -> impl Strategy<Value = BTreeMap<String, Value>> {
    prop::collection::btree_map(any::<String>(), value, 0..20)
}

fn encode(format: Format, value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    match format {
        Format::Json => serde_json::to_writer(&mut bytes, &to_json(value)).unwrap(),
        Format::MsgPack => rmpv::encode::write_value(&mut bytes, &to_msgpack(value)).unwrap(),
        Format::Cbor => ciborium::into_writer(&to_cbor(value), &mut bytes).unwrap(),
    }
    bytes
}

fn decode(format: Format, mut bytes: &[u8]) -> Value {
    match format {
        Format::Json => of_json(serde_json::from_slice(bytes).unwrap()),
        Format::MsgPack => {
            let value = of_msgpack(rmpv::decode::read_value(&mut bytes).unwrap());
            assert!(bytes.is_empty());
            value
        }
        Format::Cbor => {
            let value = of_cbor(ciborium::from_reader(&mut bytes).unwrap());
            assert!(bytes.is_empty());
            value
        }
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(number) => match u64::try_from(*number) {
            Ok(number) => number.into(),
            Err(_) => i64::try_from(*number).unwrap().into(),
        },
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => format!("\0{}", STANDARD.encode(bytes)).into(),
        Value::Array(elements) => elements.iter().map(to_json).collect::<Vec<_>>().into(),
        Value::Map(entries) => serde_json::Value::Object(
            entries.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
        ),
    }
}

fn of_json(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match number.as_i128() {
            Some(number) => Value::Integer(number),
            None => Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => match text.strip_prefix('\0') {
            Some(base64) => Value::Bytes(STANDARD.decode(base64).unwrap()),
            None => Value::Text(text),
        },
        Json::Array(elements) => Value::Array(elements.into_iter().map(of_json).collect()),
        Json::Object(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (key, of_json(value))).collect())
        }
    }
}

fn to_msgpack(value: &Value) -> rmpv::Value {
    match value {
        Value::Null => rmpv::Value::Nil,
        Value::Bool(value) => (*value).into(),
        Value::Integer(number) => match u64::try_from(*number) {
            Ok(number) => number.into(),
            Err(_) => i64::try_from(*number).unwrap().into(),
        },
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => bytes.as_slice().into(),
        Value::Array(elements) => rmpv::Value::Array(elements.iter().map(to_msgpack).collect()),
        Value::Map(entries) => rmpv::Value::Map(
            entries.iter().map(|(key, value)| (key.as_str().into(), to_msgpack(value))).collect(),
        ),
    }
}

fn of_msgpack(value: rmpv::Value) -> Value {
    use rmpv::Value as MsgPack;
    match value {
        MsgPack::Nil => Value::Null,
        MsgPack::Boolean(value) => Value::Bool(value),
        MsgPack::Integer(number) => {
            Value::Integer(number.as_u64().map(i128::from).or(number.as_i64().map(i128::from)).unwrap())
        }
        MsgPack::F32(number) => Value::Float(number.into()),
        MsgPack::F64(number) => Value::Float(number),
        MsgPack::String(text) => Value::Text(text.into_str().unwrap()),
        MsgPack::Binary(bytes) => Value::Bytes(bytes),
        MsgPack::Array(elements) => Value::Array(elements.into_iter().map(of_msgpack).collect()),
        MsgPack::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key.as_str().unwrap().to_owned(), of_msgpack(value)))
                .collect(),
        ),
        MsgPack::Ext(..) => panic!("no extension was written"),
    }
}

fn to_cbor(value: &Value) -> ciborium::Value {
    use ciborium::Value as Cbor;
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(value) => Cbor::Bool(*value),
        Value::Integer(number) => Cbor::Integer((*number).try_into().unwrap()),
        Value::Float(number) => Cbor::Float(*number),
        Value::Text(text) => Cbor::Text(text.clone()),
        Value::Bytes(bytes) => Cbor::Bytes(bytes.clone()),
        Value::Array(elements) => Cbor::Array(elements.iter().map(to_cbor).collect()),
        Value::Map(entries) => {
            Cbor::Map(entries.iter().map(|(key, value)| (Cbor::Text(key.clone()), to_cbor(value))).collect())
        }
    }
}

fn of_cbor(value: ciborium::Value) -> Value {
    use ciborium::Value as Cbor;
    match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(value) => Value::Bool(value),
        Cbor::Integer(number) => Value::Integer(number.into()),
        Cbor::Float(number) => Value::Float(number),
        Cbor::Text(text) => Value::Text(text),
        Cbor::Bytes(bytes) => Value::Bytes(bytes),
        Cbor::Array(elements) => Value::Array(elements.into_iter().map(of_cbor).collect()),
        Cbor::Map(entries) => Value::Map(
            entries.into_iter().map(|(key, value)| (key.into_text().unwrap(), of_cbor(value))).collect(),
        ),
        other => panic!("{other:?} was not written"),
    }
}

/// CBOR as streaming encoders write it: no container and no string says its length at its beginning.
fn encode_indefinite(value: &Value, out: &mut Vec<u8>) {
    let mut chunk = |head: u8, chunk: &Value| {
        out.push(head);
        out.extend(encode(Format::Cbor, chunk));
        out.push(0xff);
    };
    match value {
        Value::Text(_) => chunk(0x7f, value),
        Value::Bytes(_) => chunk(0x5f, value),
        Value::Array(elements) => {
            out.push(0x9f);
            elements.iter().for_each(|element| encode_indefinite(element, out));
            out.push(0xff);
        }
        Value::Map(entries) => {
            out.push(0xbf);
            for (key, value) in entries {
                encode_indefinite(&Value::Text(key.clone()), out);
                encode_indefinite(value, out);
            }
            out.push(0xff);
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
            out.extend(encode(Format::Cbor, value));
        }
    }
}

fn arguments(payload: &Payload, format: Format) -> Result<Arguments, Unconvertible> {
    match payload.arguments(format) {
        Ok(Carried::Arguments(arguments)) => Ok(arguments.clone()),
        Ok(Carried::Opaque(_)) => panic!("nothing opaque went in"),
        Err(why) => Err(why),
    }
}

/// Both as values, so that an absent list is an empty one.
fn meaning(arguments: &Arguments) -> (Value, Value) {
    let decode_or = |bytes: &Bytes, none| {
        if bytes.is_empty() { none } else { decode(arguments.format, bytes) }
    };
    let args = decode_or(&arguments.args, Value::Array(Vec::new()));
    (args, decode_or(&arguments.kwargs, Value::Map(BTreeMap::new())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_value_is_the_same_in_every_encoding(value in value()) {
        for from in FORMATS {
            let encoded = encode(from, &value);
            for to in FORMATS {
                let converted = transcode(from, to, &encoded, &Limits::DEFAULT).unwrap();
                prop_assert_eq!(&decode(to, &converted), &value, "{} to {}", from, to);
                if to != Format::Cbor {
                    // ciborium writes short floats; the other two have one shortest form.
                    prop_assert_eq!(&converted[..], &encode(to, &value)[..], "{} to {}", from, to);
                }
            }
        }
    }

    #[test]
    fn lengths_that_come_late_are_written_first(value in value()) {
        let mut indefinite = Vec::new();
        encode_indefinite(&value, &mut indefinite);
        for to in [Format::Json, Format::MsgPack] {
            let converted = transcode(Format::Cbor, to, &indefinite, &Limits::DEFAULT).unwrap();
            prop_assert_eq!(&converted[..], &encode(to, &value)[..]);
        }
    }

    #[test]
    fn what_crosses_the_border_twice_means_what_it_meant(
        args in prop_oneof![
            Just(None),
            prop::collection::vec(value(), 0..4).prop_map(Some),
            value().prop_map(|only| Some(vec![only])),
        ],
        kwargs in prop_oneof![Just(None), map(value()).prop_map(Some)],
    ) {
        for format in FORMATS {
            let encoded = |value: &Option<Value>| match value {
                Some(value) => Bytes::from(encode(format, value)),
                None => Bytes::new(),
            };
            let sent = Arguments {
                format,
                args: encoded(&args.clone().map(Value::Array)),
                kwargs: encoded(&kwargs.clone().map(Value::Map)),
            };
            let payload = Payload::new(Content::Arguments(sent.clone()));
            let body = payload.body().unwrap().clone();
            let back = Payload::new(Content::Body(body.clone()));
            for to in FORMATS {
                prop_assert_eq!(meaning(&arguments(&back, to).unwrap()), meaning(&sent));
            }
            // The encoding and the shape can be told from the headers alone.
            prop_assert_eq!(Encoding::from_content_type(body.content_type.as_deref()), body.encoding);
        }
    }

    #[test]
    fn a_body_that_crosses_twice_is_the_body_it_was(text in text(), bytes: Vec<u8>, value in value()) {
        let body = |content_type: &str, encoding, bytes: Vec<u8>| Body {
            content_type: Some(content_type.into()),
            encoding,
            shape: Shape::Value,
            bytes: bytes.into(),
        };
        let json = match &value {
            Value::Text(_) | Value::Bytes(_) => Value::Array(vec![value]),
            _ => value,
        };
        for sent in [
            body("text/plain", Encoding::Text, text.into_bytes()),
            body("application/octet-stream", Encoding::Binary, bytes),
            body("application/json", Encoding::Structured(Format::Json), encode(Format::Json, &json)),
        ] {
            let payload = Payload::new(Content::Body(sent.clone()));
            for through in FORMATS {
                let arguments = arguments(&payload, through).unwrap();
                let back = Payload::new(Content::Arguments(arguments));
                prop_assert_eq!(back.body().unwrap(), &sent, "through {}", through);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in hostile()) {
        for from in FORMATS {
            for to in FORMATS.into_iter().filter(|to| *to != from) {
                if let Ok(converted) = transcode(from, to, &bytes, &Limits::DEFAULT) {
                    let back = transcode(to, from, &converted, &Limits::DEFAULT);
                    prop_assert!(back.is_ok(), "{} to {}: {:?}", from, to, back);
                }
            }
            let bytes = Bytes::from(bytes.clone());
            let same = Arguments { format: from, args: bytes.clone(), kwargs: bytes.clone() };
            let _ = Payload::new(Content::Arguments(same)).body();
            for shape in [Shape::Value, Shape::Args, Shape::Kwargs, Shape::Full] {
                let encoding = Encoding::Structured(from);
                let body = Body { content_type: None, encoding, shape, bytes: bytes.clone() };
                let payload = Payload::new(Content::Body(body));
                for to in FORMATS {
                    if let Ok(arguments) = arguments(&payload, to) {
                        // What was let through, anything of ours can read.
                        let again = Payload::new(Content::Arguments(arguments));
                        for other in FORMATS {
                            let failure = again.arguments(other).err();
                            let unread = matches!(failure, Some(Unconvertible::Malformed { .. }));
                            prop_assert!(!unread, "{} of {:?} to {}", shape.word().unwrap_or("value"), bytes, other);
                        }
                    }
                }
            }
        }
    }
}

/// Random bytes are rarely more than one token; damaged values go deeper.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (value(), 0usize..3, any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    let damaged = damaged.prop_map(|(value, format, at, byte, cut)| {
        let mut bytes = encode(FORMATS[format], &value);
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        bytes
    });
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(prop::sample::select(&b"[]{}\",:01.-e\\u n"[..]), 0..32),
        prop::collection::vec(
            prop::sample::select(
                &b"\x9f\xbf\xff\x7f\x5f\x61a\x41\x81\xa1\xc2\xd8\x40\x80\x9b\xdc\xdd\x91"[..]
            ),
            0..32
        ),
        damaged,
    ]
}

/// On a stack of 2 MiB, as a broker's threads have.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

fn convert_everywhere(from: Format, bytes: Vec<u8>, check: impl Fn(Result<Bytes, Unconvertible>)) {
    let bytes = Bytes::from(bytes);
    for to in FORMATS.into_iter().filter(|to| *to != from) {
        check(transcode(from, to, &bytes, &Limits::DEFAULT));
    }
    for shape in [Shape::Value, Shape::Args, Shape::Kwargs, Shape::Full] {
        let encoding = Encoding::Structured(from);
        let body = Body { content_type: None, encoding, shape, bytes: bytes.clone() };
        let payload = Payload::new(Content::Body(body));
        let _ = FORMATS.map(|to| payload.arguments(to).is_ok());
    }
    let sent = Arguments { format: from, args: bytes.clone(), kwargs: bytes };
    let _ = Payload::new(Content::Arguments(sent)).body();
}

#[test]
fn nesting_ends_at_the_limit_and_not_at_the_stack() {
    on_a_small_stack(|| {
        let nests: [(Format, &[u8]); 9] = [
            (Format::Json, b"["),
            (Format::Json, b"{\"a\":"),
            (Format::MsgPack, b"\x91"),
            (Format::MsgPack, b"\x81\xa1a"),
            (Format::MsgPack, b"\x81"),
            (Format::Cbor, b"\x81"),
            (Format::Cbor, b"\x9f"),
            (Format::Cbor, b"\xa1\x61a"),
            (Format::Cbor, b"\xbf\x61a"),
        ];
        for (from, nest) in nests {
            convert_everywhere(from, nest.repeat(200_000), |converted| {
                let ends = [Unconvertible::TooDeep { max: 64 }, Unconvertible::KeyNotText];
                assert!(ends.contains(&converted.unwrap_err()));
            });
        }
        // Whole, so that nothing but its depth is wrong; and tags, which nest without containing.
        let whole = [b"[".repeat(200_000), b"]".repeat(200_000)].concat();
        convert_everywhere(Format::Json, whole, |converted| {
            assert_eq!(converted, Err(Unconvertible::TooDeep { max: 64 }));
        });
        let tags = [b"\xc0".repeat(200_000), b"\x01".to_vec()].concat();
        convert_everywhere(Format::Cbor, tags, |converted| assert_eq!(converted.unwrap().len(), 1));
    });
}

#[test]
fn the_deepest_allowed_nesting_passes() {
    on_a_small_stack(|| {
        for from in FORMATS {
            let value = (1..64).fold(Value::Array(Vec::new()), |inner, _| Value::Array(vec![inner]));
            convert_everywhere(from, encode(from, &value), |converted| assert!(converted.is_ok()));
        }
    });
}

#[test]
fn many_small_values_end_at_the_limit() {
    on_a_small_stack(|| {
        let many = |element: &[u8], count: u32, head: u8| {
            [&[head][..], &count.to_be_bytes(), &element.repeat(count as usize)].concat()
        };
        let bombs = [
            (Format::MsgPack, many(b"\x81\xa1a\0", 200_000, 0xdd)),
            (Format::MsgPack, many(b"\xc0", 1 << 20, 0xdd)),
            (Format::MsgPack, many(b"\x90", 1 << 20, 0xdd)),
            (Format::Cbor, many(b"\xa1\x61a\0", 200_000, 0x9a)),
            (Format::Cbor, many(b"\xf6", 1 << 20, 0x9a)),
            (Format::Json, format!("[{}0]", "{\"a\":0},".repeat(200_000)).into_bytes()),
            (Format::Json, format!("[{}0]", "0,".repeat(1 << 20)).into_bytes()),
        ];
        for (from, bomb) in bombs {
            convert_everywhere(from, bomb, |converted| {
                assert_eq!(converted, Err(Unconvertible::TooMany { max: 100_000 }));
            });
        }
    });
}

#[test]
fn what_grows_too_much_ends_at_the_limit() {
    // A control character is one byte, and six in JSON.
    let text = vec![0x01; 1 << 20];
    let msgpack = [&b"\xdb\0\x10\0\0"[..], &text].concat();
    let max = 4 * msgpack.len() + 64 * 1024;
    let converted = transcode(Format::MsgPack, Format::Json, &msgpack, &Limits::DEFAULT);
    assert_eq!(converted, Err(Unconvertible::TooLarge { max }));
}

#[test]
fn an_announced_length_without_its_data_is_malformed_at_once() {
    let lies: [(Format, &[u8]); 11] = [
        (Format::MsgPack, b"\xdd\xff\xff\xff\xff"),
        (Format::MsgPack, b"\xdf\xff\xff\xff\xff\x01"),
        (Format::MsgPack, b"\xdb\xff\xff\xff\xff"),
        (Format::MsgPack, b"\xc6\xff\xff\xff\xff\0"),
        (Format::MsgPack, b"\xc9\xff\xff\xff\xff\0"),
        (Format::Cbor, b"\x9a\xff\xff\xff\xff"),
        (Format::Cbor, b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (Format::Cbor, b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (Format::Cbor, b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (Format::Cbor, b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (Format::Cbor, b"\x7f\x7b\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ];
    for (format, lie) in lies {
        convert_everywhere(format, lie.to_vec(), |converted| {
            assert_eq!(converted, Err(Unconvertible::Malformed { format }));
        });
    }
}

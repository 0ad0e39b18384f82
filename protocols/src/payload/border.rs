//! Arguments into a body and back: what a message becomes where it changes its language.
//!
//! | body | arguments |
//! |---|---|
//! | structured, shape value | `[value]` |
//! | structured, shape args | the array |
//! | structured, shape kwargs | the map, and no positional ones |
//! | structured, shape full | its members `args` and `kwargs`, each of which may be missing |
//! | text, binary | `[text]`, `[bytes]` |
//! | empty, with a content type that is text or binary | `[""]`, `[bytes]` of no length |
//! | empty, otherwise | none |
//!
//! | arguments | body |
//! |---|---|
//! | none | empty, without a content type |
//! | `[text]`, `[bytes]` | the text as `text/plain`, the bytes as `application/octet-stream` |
//! | one other value | the value as `application/json` |
//! | anything else | the full form as `application/json` |
//!
//! So what crosses twice means what it meant. A keyword map without entries counts as none, and so does
//! an empty array of arguments.
//!
//! A body is foreign input that is about to be part of a WAMP message: it is read through, even where
//! its encoding stays. Arguments were part of one already.

use bytes::Bytes;

use super::split::{self, Entries};
use super::stream::{Expect, Kind, Place, Scalar, Sink};
use super::transcode::{Writer, admit, read, transcode};
use super::{Arguments, Body, Encoding, Format, Limits, Shape, Unconvertible};

/// One encoded value that is `bytes`: a WAMP transparent payload, or what is to become an argument.
///
/// ```
/// use tandem_protocols::payload::{Format, encode_bytes};
///
/// assert_eq!(encode_bytes(Format::MsgPack, b"\x01"), &b"\xc4\x01\x01"[..]);
/// assert_eq!(encode_bytes(Format::Json, b"\x01"), &br#""\u0000AQ==""#[..]);
/// ```
pub fn encode_bytes(format: Format, bytes: &[u8]) -> Bytes {
    let mut writer = Writer::new(format, bytes.len(), &Limits::DEFAULT);
    let written = writer.sink().scalar(Place::Root, Scalar::Bytes(bytes));
    written
        .and_then(|()| writer.finish())
        .expect("bytes below 4 GiB have a form in each encoding, and base64 is within limits")
}

/// Arguments in another encoding.
pub(super) fn convert_arguments(
    arguments: &Arguments,
    to: Format,
    limits: &Limits,
) -> Result<Arguments, Unconvertible> {
    let convert = |bytes: &Bytes| match bytes.is_empty() {
        true => Ok(Bytes::new()),
        false => transcode(arguments.format, to, bytes, limits),
    };
    Ok(Arguments { format: to, args: convert(&arguments.args)?, kwargs: convert(&arguments.kwargs)? })
}

/// A body as arguments.
pub(super) fn arguments_of(body: &Body, to: Format, limits: &Limits) -> Result<Arguments, Unconvertible> {
    let args = |args| Arguments { format: to, args, kwargs: Bytes::new() };
    let unsaid = body.content_type.is_none() || matches!(body.encoding, Encoding::Structured(_));
    if body.bytes.is_empty() && unsaid {
        return Ok(args(Bytes::new()));
    }
    let from = match (body.encoding, body.shape) {
        (Encoding::Structured(from), _) => from,
        (Encoding::Text, Shape::Value) => {
            let text = str::from_utf8(&body.bytes).map_err(|_| Unconvertible::NotUtf8)?;
            return list_of_scalar(to, Scalar::Text(text), body.bytes.len(), limits).map(args);
        }
        (Encoding::Binary, Shape::Value) => {
            return list_of_scalar(to, Scalar::Bytes(&body.bytes), body.bytes.len(), limits).map(args);
        }
        (Encoding::Text | Encoding::Binary, Shape::Args) => return Err(Unconvertible::NotAnArray),
        (Encoding::Text | Encoding::Binary, Shape::Kwargs | Shape::Full) => {
            return Err(Unconvertible::NotAMap);
        }
    };
    let admit = |bytes: &Bytes, expect| admit(from, to, bytes, expect, limits);
    match body.shape {
        Shape::Value => Ok(args(list_of_encoded(to, &admit(&body.bytes, Expect::Any)?))),
        Shape::Args => admit(&body.bytes, Expect::Array).map(args),
        Shape::Kwargs => {
            Ok(Arguments { format: to, args: Bytes::new(), kwargs: admit(&body.bytes, Expect::TextMap)? })
        }
        Shape::Full => {
            let members = split::members(from, &body.bytes, limits)?;
            let member = |slice: Option<&[u8]>, expect| match slice {
                Some(slice) => admit(&body.bytes.slice_ref(slice), expect),
                None => Ok(Bytes::new()),
            };
            Ok(Arguments {
                format: to,
                args: member(members.args, Expect::Array)?,
                kwargs: member(members.kwargs, Expect::TextMap)?,
            })
        }
    }
}

/// Arguments as a body.
pub(super) fn body_of(arguments: &Arguments, limits: &Limits) -> Result<Body, Unconvertible> {
    let from = arguments.format;
    let has_kwargs = split::entries(from, &arguments.kwargs)? != Entries::None;
    match split::entries(from, &arguments.args)? {
        Entries::None if !has_kwargs => Ok(Body {
            content_type: None,
            encoding: Encoding::Binary,
            shape: Shape::Value,
            bytes: Bytes::new(),
        }),
        Entries::One(only) if !has_kwargs => body_of_one(from, &arguments.args.slice_ref(only), limits),
        Entries::None | Entries::One(_) | Entries::More => {
            let arguments = convert_arguments(arguments, Format::Json, limits)?;
            Ok(json_body(full_form(&arguments), Shape::Full))
        }
    }
}

/// A transparent payload as a body. What it is for is said beside it.
pub(super) fn body_of_opaque(bytes: &Bytes) -> Body {
    binary_body(bytes.clone())
}

fn body_of_one(from: Format, value: &Bytes, limits: &Limits) -> Result<Body, Unconvertible> {
    if from == Format::Json && value.trim_ascii_start().first() != Some(&b'"') {
        return Ok(json_body(value.clone(), Shape::Value));
    }
    let mut lone = Lone { json: Writer::new(Format::Json, value.len(), limits), found: Found::Other };
    read(from, value, &mut lone, limits)?;
    Ok(match lone.found {
        Found::Text(text) => Body {
            content_type: Some("text/plain".into()),
            encoding: Encoding::Text,
            shape: Shape::Value,
            bytes: text.into(),
        },
        Found::Bytes(bytes) => binary_body(bytes.into()),
        Found::Other => json_body(lone.json.finish()?, Shape::Value),
    })
}

/// Keeps a lone text or lone bytes as they are, and writes anything else as JSON.
struct Lone {
    json: Writer,
    found: Found,
}

enum Found {
    Text(String),
    Bytes(Vec<u8>),
    Other,
}

impl Sink for Lone {
    fn scalar(&mut self, place: Place, scalar: Scalar<'_>) -> Result<(), Unconvertible> {
        match (place, scalar) {
            (Place::Root, Scalar::Text(text)) => self.found = Found::Text(text.to_owned()),
            (Place::Root, Scalar::Bytes(bytes)) => self.found = Found::Bytes(bytes.to_owned()),
            (place, scalar) => self.json.sink().scalar(place, scalar)?,
        }
        Ok(())
    }

    fn begin(&mut self, place: Place, kind: Kind, entries: Option<u64>) -> Result<(), Unconvertible> {
        self.json.sink().begin(place, kind, entries)
    }

    fn end(&mut self, kind: Kind, entries: u64) -> Result<(), Unconvertible> {
        self.json.sink().end(kind, entries)
    }
}

fn json_body(bytes: Bytes, shape: Shape) -> Body {
    let encoding = Encoding::Structured(Format::Json);
    Body { content_type: Some("application/json".into()), encoding, shape, bytes }
}

fn binary_body(bytes: Bytes) -> Body {
    Body {
        content_type: Some("application/octet-stream".into()),
        encoding: Encoding::Binary,
        shape: Shape::Value,
        bytes,
    }
}

/// `{"args":[],"kwargs":{}}` of JSON arguments.
fn full_form(arguments: &Arguments) -> Bytes {
    let or = |bytes: &Bytes, none: &'static [u8]| match bytes.is_empty() {
        true => Bytes::from_static(none),
        false => bytes.clone(),
    };
    let parts: [&[u8]; 5] =
        [b"{\"args\":", &or(&arguments.args, b"[]"), b",\"kwargs\":", &or(&arguments.kwargs, b"{}"), b"}"];
    parts.concat().into()
}

/// An array of one encoded value.
fn list_of_encoded(format: Format, value: &[u8]) -> Bytes {
    let (before, after): (&[u8], &[u8]) = match format {
        Format::Json => (b"[", b"]"),
        Format::MsgPack => (b"\x91", b""),
        Format::Cbor => (b"\x81", b""),
    };
    [before, value, after].concat().into()
}

/// An array of one scalar.
fn list_of_scalar(
    format: Format,
    scalar: Scalar<'_>,
    input_bytes: usize,
    limits: &Limits,
) -> Result<Bytes, Unconvertible> {
    let mut writer = Writer::new(format, input_bytes, limits);
    let sink = writer.sink();
    sink.begin(Place::Root, Kind::Array, Some(1))?;
    sink.scalar(Place::FirstElement, scalar)?;
    sink.end(Kind::Array, 1)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Format::{Cbor, Json, MsgPack};

    const JSON: Encoding = Encoding::Structured(Json);
    const MSGPACK: Encoding = Encoding::Structured(MsgPack);
    const CBOR: Encoding = Encoding::Structured(Cbor);

    fn body(content_type: &str, encoding: Encoding, shape: Shape, bytes: &'static [u8]) -> Body {
        let content_type = (!content_type.is_empty()).then(|| content_type.into());
        Body { content_type, encoding, shape, bytes: Bytes::from_static(bytes) }
    }

    fn arguments(format: Format, args: &'static [u8], kwargs: &'static [u8]) -> Arguments {
        Arguments { format, args: Bytes::from_static(args), kwargs: Bytes::from_static(kwargs) }
    }

    /// What a body is, and the format, `args` and `kwargs` that it becomes.
    type Becoming = (Encoding, Shape, &'static [u8], Format, &'static [u8], &'static [u8]);

    #[test]
    fn a_body_becomes_arguments_by_its_encoding_and_shape() {
        let cases: &[Becoming] = &[
            (JSON, Shape::Value, b" {\"a\":1}\n", Json, b"[{\"a\":1}]", b""),
            (JSON, Shape::Value, b"[1]", MsgPack, b"\x91\x91\x01", b""),
            (MSGPACK, Shape::Value, b"\x91\x01", Cbor, b"\x81\x81\x01", b""),
            (MSGPACK, Shape::Value, b"\x81\x01\x02", MsgPack, b"\x91\x81\x01\x02", b""),
            (CBOR, Shape::Value, b"\xd9\xd9\xf7\x01", Cbor, b"\x81\xd9\xd9\xf7\x01", b""),
            // What only its own encoding can say stays as it is there.
            (
                CBOR,
                Shape::Value,
                b"\xc2\x49\x01\0\0\0\0\0\0\0\0",
                Cbor,
                b"\x81\xc2\x49\x01\0\0\0\0\0\0\0\0",
                b"",
            ),
            (MSGPACK, Shape::Value, b"\xd6\xff\0\0\0\0", MsgPack, b"\x91\xd6\xff\0\0\0\0", b""),
            (JSON, Shape::Args, b" [1, 2]", Json, b"[1, 2]", b""),
            (JSON, Shape::Args, b"[1, 2]", Cbor, b"\x82\x01\x02", b""),
            (CBOR, Shape::Args, b"\xd9\xd9\xf7\x81\x01", Cbor, b"\x81\x01", b""),
            (CBOR, Shape::Args, b"\xd9\xd9\xf7\x9f\x01\xff", Json, b"[1]", b""),
            (JSON, Shape::Kwargs, b"{\"a\":1}", Json, b"", b"{\"a\":1}"),
            (MSGPACK, Shape::Kwargs, b"\x81\xa1a\x81\x01\x02", Cbor, b"", b"\xa1\x61a\xa1\x01\x02"),
            (JSON, Shape::Full, b"{}", Json, b"", b""),
            (
                JSON,
                Shape::Full,
                b"{ \"kwargs\" : {\"a\": 1} , \"args\" : [ 2 ] }",
                Json,
                b"[ 2 ]",
                b"{\"a\": 1}",
            ),
            (JSON, Shape::Full, b"{\"\\u0061rgs\":[1]}", MsgPack, b"\x91\x01", b""),
            (
                MSGPACK,
                Shape::Full,
                b"\x82\xa4args\x91\x01\xa6kwargs\x81\xa1a\x02",
                Json,
                b"[1]",
                b"{\"a\":2}",
            ),
            (MSGPACK, Shape::Full, b"\x81\xa6kwargs\x81\xa1a\x02", MsgPack, b"", b"\x81\xa1a\x02"),
            (CBOR, Shape::Full, b"\xd9\xd9\xf7\xbf\x64args\x9f\x01\xff\xff", Cbor, b"\x9f\x01\xff", b""),
            (Encoding::Text, Shape::Value, b"\"hi\"", Json, b"[\"\\\"hi\\\"\"]", b""),
            (Encoding::Text, Shape::Value, b"hi", MsgPack, b"\x91\xa2hi", b""),
            (Encoding::Text, Shape::Value, b"\0hi", Cbor, b"\x81\x63\0hi", b""),
            (Encoding::Binary, Shape::Value, b"\xff", Json, br#"["\u0000/w=="]"#, b""),
            (Encoding::Binary, Shape::Value, b"\xff", MsgPack, b"\x91\xc4\x01\xff", b""),
            (Encoding::Binary, Shape::Value, b"\xff", Cbor, b"\x81\x41\xff", b""),
        ];
        for (encoding, shape, bytes, to, args, kwargs) in cases {
            let converted = arguments_of(&body("x/y", *encoding, *shape, bytes), *to, &Limits::DEFAULT);
            assert_eq!(
                converted,
                Ok(arguments(*to, args, kwargs)),
                "{encoding:?} {shape:?} {bytes:02x?} to {to}"
            );
        }
    }

    #[test]
    fn an_empty_body_is_a_value_only_where_its_type_says_so() {
        let cases: &[(&str, Encoding, &'static [u8])] = &[
            ("", Encoding::Binary, b""),
            ("text/plain", Encoding::Text, b"[\"\"]"),
            ("image/png", Encoding::Binary, br#"["\u0000"]"#),
            ("application/json", JSON, b""),
            ("application/cbor", CBOR, b""),
        ];
        for (content_type, encoding, args) in cases {
            let empty = body(content_type, *encoding, Shape::Value, b"");
            assert_eq!(
                arguments_of(&empty, Json, &Limits::DEFAULT),
                Ok(arguments(Json, args, b"")),
                "{content_type}"
            );
        }
    }

    #[test]
    fn a_body_that_is_not_what_it_claims_enters_no_message() {
        use Unconvertible as U;
        let malformed = |format| U::Malformed { format };
        let cases: &[(Encoding, Shape, &'static [u8], Unconvertible)] = &[
            (JSON, Shape::Value, b"1],[2", malformed(Json)),
            (JSON, Shape::Value, b"1 2", malformed(Json)),
            (JSON, Shape::Value, b" ", malformed(Json)),
            (JSON, Shape::Value, b"\"\xff\"", malformed(Json)),
            (MSGPACK, Shape::Value, b"\x01\x02", malformed(MsgPack)),
            (MSGPACK, Shape::Value, b"\x92\x01", malformed(MsgPack)),
            (MSGPACK, Shape::Value, b"\xa1\xff", U::NotUtf8),
            (CBOR, Shape::Value, b"\xff", malformed(Cbor)),
            (CBOR, Shape::Value, b"\x9f", malformed(Cbor)),
            (JSON, Shape::Args, b"{}", U::NotAnArray),
            (MSGPACK, Shape::Args, b"\xc0", U::NotAnArray),
            (CBOR, Shape::Args, b"\xd9\xd9\xf7\xa0", U::NotAnArray),
            (JSON, Shape::Kwargs, b"[]", U::NotAMap),
            (JSON, Shape::Kwargs, b"1", U::NotAMap),
            (MSGPACK, Shape::Kwargs, b"\x81\x01\x02", U::KeyNotText),
            (CBOR, Shape::Kwargs, b"\xa1\x80\x02", U::KeyNotText),
            (JSON, Shape::Full, b"[]", U::NotAMap),
            (JSON, Shape::Full, b"{\"args\":[]", malformed(Json)),
            (JSON, Shape::Full, b"{\"args\":[]}]", malformed(Json)),
            (JSON, Shape::Full, b"{\"args\":{}}", U::NotAnArray),
            (JSON, Shape::Full, b"{\"kwargs\":null}", U::NotAMap),
            (JSON, Shape::Full, b"{\"other\":1}", U::UnknownMember),
            (JSON, Shape::Full, b"{\"args\":[],\"args\":[]}", U::TwiceTheMember { member: "args" }),
            (MSGPACK, Shape::Full, b"\x90", U::NotAMap),
            (MSGPACK, Shape::Full, b"\x81\xa4args\x80", U::NotAnArray),
            (MSGPACK, Shape::Full, b"\x81\xa4args\x90\x90", malformed(MsgPack)),
            (MSGPACK, Shape::Full, b"\xdf\xff\xff\xff\xff\xa4args\x90", malformed(MsgPack)),
            (MSGPACK, Shape::Full, b"\x82\xa4args\x90\xa4args\x90", U::TwiceTheMember { member: "args" }),
            (MSGPACK, Shape::Full, b"\x81\x01\x90", U::UnknownMember),
            (CBOR, Shape::Full, b"\x80", U::NotAMap),
            (CBOR, Shape::Full, b"\xa1\x64args\xf6", U::NotAnArray),
            (CBOR, Shape::Full, b"\xbf\x64args\x80", malformed(Cbor)),
            (Encoding::Text, Shape::Value, b"\xff", U::NotUtf8),
            (Encoding::Text, Shape::Args, b"[]", U::NotAnArray),
            (Encoding::Binary, Shape::Kwargs, b"{}", U::NotAMap),
        ];
        for (encoding, shape, bytes, expected) in cases {
            for to in [Json, MsgPack, Cbor] {
                let converted = arguments_of(&body("x/y", *encoding, *shape, bytes), to, &Limits::DEFAULT);
                assert_eq!(converted, Err(*expected), "{encoding:?} {shape:?} {bytes:02x?} to {to}");
            }
        }
        let deep = "[".repeat(65) + &"]".repeat(65);
        let deep = Body { bytes: deep.into(), ..body("application/json", JSON, Shape::Value, b"") };
        assert_eq!(arguments_of(&deep, Json, &Limits::DEFAULT), Err(U::TooDeep { max: 64 }));
    }

    #[test]
    fn arguments_become_the_plainest_body_there_is() {
        let none = body("", Encoding::Binary, Shape::Value, b"");
        let text = |bytes| body("text/plain", Encoding::Text, Shape::Value, bytes);
        let binary = |bytes| body("application/octet-stream", Encoding::Binary, Shape::Value, bytes);
        let json = |bytes| body("application/json", JSON, Shape::Value, bytes);
        let full = |bytes| body("application/json", JSON, Shape::Full, bytes);
        let cases: &[(Format, &'static [u8], &'static [u8], Body)] = &[
            (Json, b"", b"", none.clone()),
            (Json, b"[]", b"{}", none.clone()),
            (MsgPack, b"\x90", b"", none.clone()),
            (Cbor, b"\x9f\xff", b"\xbf\xff", none.clone()),
            (Json, b"[\"a\\n\"]", b"", text(b"a\n")),
            (Json, b" [ \"\" ] ", b" { } ", text(b"")),
            (MsgPack, b"\x91\xa2\0a", b"\x80", text(b"\0a")),
            (Cbor, b"\x9f\x7f\x61a\x61b\xff\xff", b"", text(b"ab")),
            (Json, br#"["\u0000AQ=="]"#, b"", binary(b"\x01")),
            (MsgPack, b"\x91\xc4\x00", b"", binary(b"")),
            (Cbor, b"\x81\x41\x01", b"", binary(b"\x01")),
            (Json, b"[ {\"a\": 1} ]", b"", json(b"{\"a\": 1}")),
            (MsgPack, b"\x91\x92\xa1a\xc0", b"", json(b"[\"a\",null]")),
            (Cbor, b"\x9f\xf5\xff", b"", json(b"true")),
            (Json, b"[1, 2]", b"", full(b"{\"args\":[1, 2],\"kwargs\":{}}")),
            (MsgPack, b"", b"\x81\xa1a\x01", full(b"{\"args\":[],\"kwargs\":{\"a\":1}}")),
            (MsgPack, b"\x91\x01", b"\x81\xa1a\x01", full(b"{\"args\":[1],\"kwargs\":{\"a\":1}}")),
            (Cbor, b"\x9f\x01\x02\xff", b"", full(b"{\"args\":[1,2],\"kwargs\":{}}")),
        ];
        for (format, args, kwargs, expected) in cases {
            let made = body_of(&arguments(*format, args, kwargs), &Limits::DEFAULT);
            assert_eq!(made.as_ref(), Ok(expected), "{format}: {args:02x?} {kwargs:02x?}");
        }
    }

    #[test]
    fn arguments_that_json_cannot_say_have_no_body() {
        let cases: &[(Format, &'static [u8], &'static [u8], Unconvertible)] = &[
            (Json, br#"["\u0000?"]"#, b"", Unconvertible::NotBase64),
            (MsgPack, b"\x91\x81\x01\x02", b"", Unconvertible::KeyNotText),
            (MsgPack, b"\x92\xa1\0\x01", b"", Unconvertible::TextLikeBytes),
            (MsgPack, b"\x91", b"", Unconvertible::Malformed { format: MsgPack }),
            (MsgPack, b"\x91\x01\x01", b"", Unconvertible::Malformed { format: MsgPack }),
            (Cbor, b"\x01", b"", Unconvertible::Malformed { format: Cbor }),
            (Json, b"[1", b"", Unconvertible::Malformed { format: Json }),
        ];
        for (format, args, kwargs, expected) in cases {
            let made = body_of(&arguments(*format, args, kwargs), &Limits::DEFAULT);
            assert_eq!(made, Err(*expected), "{format}: {args:02x?} {kwargs:02x?}");
        }
    }
}

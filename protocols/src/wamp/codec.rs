//! Bytes to messages and back.
//!
//! ```
//! use bytes::Bytes;
//! use tandem_protocols::payload::Format;
//! use tandem_protocols::wamp::codec::{decode, encode};
//!
//! let bytes = Bytes::from_static(br#"[16, 1, {}, "com.example.topic", ["hello"]]"#);
//! let message = decode(Format::Json, &bytes).unwrap();
//! assert_eq!(message.name(), "PUBLISH");
//! assert_eq!(encode(Format::Json, &message).unwrap(), br#"[16,1,{},"com.example.topic",["hello"]]"#[..]);
//! ```
//!
//! Arguments are sliced out of the bytes and stay encoded, so what they hold is not looked at, and memory for
//! a message is bounded by its own size and [`ENTRIES_MAX`](crate::wamp::dict::ENTRIES_MAX). The codec knows
//! no session: request IDs need not be sequential here, URIs may be anything, and either peer may send all.

use bytes::Bytes;

use crate::payload::{Carried, Content, Format};
use crate::wamp::dict::Dict;
use crate::wamp::error::{Misuse, Violation};
use crate::wamp::field::{Elements, Get, Put};
use crate::wamp::id::Id;
use crate::wamp::message::{Incoming, Message, MessageType};
use crate::wamp::usual;
pub use crate::wamp::usual::UsualPublish;
use crate::wamp::wire::cbor::{CborReader, CborWriter};
use crate::wamp::wire::json::{JsonReader, JsonWriter};
use crate::wamp::wire::msgpack::{MsgPackReader, MsgPackWriter};
use crate::wamp::wire::{Reader, Writer, uint_size};

/// The WebSocket subprotocol, or identifier in a long-poll, of a format.
#[must_use]
#[inline]
pub fn subprotocol(format: Format) -> &'static str {
    match format {
        Format::Json => "wamp.2.json",
        Format::MsgPack => "wamp.2.msgpack",
        Format::Cbor => "wamp.2.cbor",
    }
}

/// The format of a subprotocol, whose name is case-sensitive.
#[must_use]
pub fn format_of(subprotocol: &str) -> Option<Format> {
    match subprotocol {
        "wamp.2.json" => Some(Format::Json),
        "wamp.2.msgpack" => Some(Format::MsgPack),
        "wamp.2.cbor" => Some(Format::Cbor),
        _ => None,
    }
}

/// Whether messages of a format travel in text frames; else in binary ones.
#[must_use]
#[inline]
pub fn is_text(format: Format) -> bool {
    format == Format::Json
}

/// Reads one message, which `bytes` must be exactly.
///
/// # Errors
///
/// A [`Violation`] where `bytes` is not well-formed, no message, or a message with a field of a wrong type.
/// What dictionaries say is judged in [`options`](crate::wamp::options).
pub fn decode(format: Format, bytes: &Bytes) -> Result<Message, Violation> {
    read_as(format, bytes)
}

/// The same, without copying the names of what comes most.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_incoming(format: Format, bytes: &Bytes) -> Result<Incoming<'_>, Violation> {
    usual::read(format, bytes).map_or_else(|| read_as(format, bytes), Ok)
}

/// A PUBLISH as nearly all of them come: without options, with a list of arguments and nothing after it, written as short
/// as can be. `None` for all else, also what is wrong: that is for [`decode_incoming`].
pub fn decode_usual_publish(format: Format, bytes: &[u8]) -> Option<UsualPublish<'_>> {
    usual::publish(format, bytes)
}

fn read_as<'a, Text: Get<'a>>(format: Format, bytes: &'a Bytes) -> Result<Message<Text>, Violation> {
    match format {
        Format::Json => {
            let text = std::str::from_utf8(bytes).map_err(|_| Violation::new("the message is not UTF-8"))?;
            read(Elements::enter(JsonReader::new(text), bytes, format)?)
        }
        Format::MsgPack => read(Elements::enter(MsgPackReader::new(bytes), bytes, format)?),
        Format::Cbor => read(Elements::enter(CborReader::new(bytes), bytes, format)?),
    }
}

fn read<'a, R: Reader<'a>, Text: Get<'a>>(mut elements: Elements<'a, R>) -> Result<Message<Text>, Violation> {
    let message_type = MessageType::read_from(&mut elements, "the type of the message")?;
    let message = Message::read_from(message_type, &mut elements)?;
    elements.finish().map_err(|violation| violation.within(message_type.name()))?;
    Ok(message)
}

/// Writes a message.
///
/// Integers are as short as can be, keys keep their order, and empty arguments at the end are left out.
///
/// # Errors
///
/// A [`Misuse`] where the payload is in another format than the message; it is converted elsewhere.
pub fn encode(format: Format, message: &Message) -> Result<Bytes, Misuse> {
    write(format, message.message_type(), message)
}

/// Writes an EVENT from its parts.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_event(
    format: Format,
    subscription: Id,
    publication: Id,
    details: &Dict,
    payload: Carried<'_>,
) -> Result<Bytes, Misuse> {
    let mut out = Vec::new();
    append_event(format, subscription, publication, details, payload, &mut out)?;
    Ok(out.into())
}

/// Writes an EVENT from its parts to the end of `out`, which is made larger by no more than that takes.
///
/// # Errors
///
/// As [`encode`]. Then `out` is as it was.
pub fn append_event(
    format: Format,
    subscription: Id,
    publication: Id,
    details: &Dict,
    payload: Carried<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Misuse> {
    if !usual(format, MessageType::Event, &[subscription, publication], details, payload, out) {
        let fields = &(&subscription, &publication, details, &payload);
        let written = write(format, MessageType::Event, fields)?;
        match out.is_empty() {
            true => *out = written.into(),
            false => out.extend_from_slice(&written),
        }
    }
    Ok(())
}

/// Writes an EVENT without details and with a list of arguments, which is in that format and not empty, to the end of `out`.
pub fn append_usual_event(format: Format, subscription: Id, publication: Id, args: &[u8], out: &mut Vec<u8>) {
    append_usual(format, MessageType::Event, &[subscription, publication], args, out);
}

/// Writes an INVOCATION from its parts.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_invocation(
    format: Format,
    request: Id,
    registration: Id,
    details: &Dict,
    payload: Carried<'_>,
) -> Result<Bytes, Misuse> {
    let mut out = Vec::new();
    if usual(format, MessageType::Invocation, &[request, registration], details, payload, &mut out) {
        return Ok(out.into());
    }
    write(format, MessageType::Invocation, &(&request, &registration, details, &payload))
}

/// Writes a RESULT from its parts.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_result(
    format: Format,
    request: Id,
    details: &Dict,
    payload: Carried<'_>,
) -> Result<Bytes, Misuse> {
    let mut out = Vec::new();
    if usual(format, MessageType::CallResult, &[request], details, payload, &mut out) {
        return Ok(out.into());
    }
    write(format, MessageType::CallResult, &(&request, details, &payload))
}

/// Writes a PUBLISH from its parts.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_publish(
    format: Format,
    request: Id,
    options: &Dict,
    topic: &str,
    payload: &Content,
) -> Result<Bytes, Misuse> {
    write(format, MessageType::Publish, &(&request, options, topic, payload))
}

/// Writes a CALL from its parts.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_call(
    format: Format,
    request: Id,
    options: &Dict,
    procedure: &str,
    payload: &Content,
) -> Result<Bytes, Misuse> {
    write(format, MessageType::Call, &(&request, options, procedure, payload))
}

/// Writes what a router mostly says, numbers, no details and a list of arguments, the short way to the end of `out`; false
/// where it is more than that. What stands before the arguments is made beside, so that it is known how much there is.
fn usual(
    format: Format,
    message_type: MessageType,
    numbers: &[Id],
    details: &Dict,
    payload: Carried<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let Carried::Arguments(arguments) = payload else { return false };
    let args = &arguments.args[..];
    let is_usual = details.is_empty()
        && arguments.format == format
        && arguments.kwargs.is_empty()
        && !args.is_empty()
        && u32::try_from(args.len() + Head::BYTES_MAX).is_ok();
    if is_usual {
        append_usual(format, message_type, numbers, args, out);
    }
    is_usual
}

fn append_usual(format: Format, message_type: MessageType, numbers: &[Id], args: &[u8], out: &mut Vec<u8>) {
    let mut head = Head { bytes: [0; Head::BYTES_MAX], length: 0 };
    // The numbers, and the type, the details and the arguments.
    let elements = numbers.len() as u8 + 3;
    let numbers =
        std::iter::once(message_type.code().into()).chain(numbers.iter().map(|number| number.get()));
    match format {
        Format::Json => {
            head.byte(b'[');
            for number in numbers {
                head.digits(number);
                head.byte(b',');
            }
            head.slice(*b"{},");
        }
        Format::MsgPack => {
            head.byte(0x90 | elements);
            numbers.for_each(|number| head.binary(number, 0x7f, 0xcc));
            head.byte(0x80);
        }
        Format::Cbor => {
            head.byte(0x80 | elements);
            numbers.for_each(|number| head.binary(number, 23, 24));
            head.byte(0xa0);
        }
    }
    let head = &head.bytes[..head.length];
    out.reserve_exact(head.len() + args.len() + usize::from(format == Format::Json));
    out.extend_from_slice(head);
    out.extend_from_slice(args);
    if format == Format::Json {
        out.push(b']');
    }
}

/// The beginning of a message, while it is made.
struct Head {
    bytes: [u8; Head::BYTES_MAX],
    length: usize,
}

impl Head {
    /// The code, two numbers and what is around them take at most 44, in JSON.
    const BYTES_MAX: usize = 48;

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    #[inline]
    fn slice<const N: usize>(&mut self, bytes: [u8; N]) {
        *self.bytes[self.length..].first_chunk_mut().expect("the head has room for all of it") = bytes;
        self.length += N;
    }

    #[inline]
    fn digits(&mut self, mut number: u64) {
        let end = self.length + uint_size(Format::Json, number);
        let mut at = end;
        while number >= 10 {
            let pair = (number % 100) as u8;
            number /= 100;
            at -= 2;
            self.bytes[at] = b'0' + pair / 10;
            self.bytes[at + 1] = b'0' + pair % 10;
        }
        if at > self.length {
            self.bytes[self.length] = b'0' + number as u8;
        }
        self.length = end;
    }

    /// As MessagePack and CBOR write an integer: up to `small` it is a byte alone, and beyond, its bytes come after a marker
    /// that is the higher the more they are.
    #[inline]
    fn binary(&mut self, number: u64, small: u8, marker: u8) {
        if number <= small.into() {
            self.byte(number as u8);
        } else if let Ok(number) = u8::try_from(number) {
            self.slice([marker, number]);
        } else if let Ok(number) = u16::try_from(number) {
            self.byte(marker + 1);
            self.slice(number.to_be_bytes());
        } else if let Ok(number) = u32::try_from(number) {
            self.byte(marker + 2);
            self.slice(number.to_be_bytes());
        } else {
            self.byte(marker + 3);
            self.slice(number.to_be_bytes());
        }
    }
}

fn write(format: Format, message_type: MessageType, fields: &impl Put) -> Result<Bytes, Misuse> {
    let size = size(format, message_type, fields);
    if u32::try_from(size).is_err() {
        return Err(Misuse::TooLarge);
    }
    let out = Vec::with_capacity(size);
    Ok(match format {
        Format::Json => {
            let mut writer = JsonWriter::new(out);
            write_list(&mut writer, format, message_type, fields)?;
            writer.into_inner()
        }
        Format::MsgPack => {
            let mut writer = MsgPackWriter::new(out);
            write_list(&mut writer, format, message_type, fields)?;
            writer.into_inner()
        }
        Format::Cbor => {
            let mut writer = CborWriter::new(out);
            write_list(&mut writer, format, message_type, fields)?;
            writer.into_inner()
        }
    }
    .into())
}

/// How many bytes a message takes, as far as that is known before: see [`Put::size`].
fn size(format: Format, message_type: MessageType, fields: &impl Put) -> usize {
    // No message has so many elements that their number took more than a byte. In JSON the first has no comma before it.
    1 + message_type.size(format) + fields.size(format)
}

fn write_list<W: Writer>(
    writer: &mut W,
    format: Format,
    message_type: MessageType,
    fields: &impl Put,
) -> Result<(), Misuse> {
    writer.list(1 + fields.count());
    message_type.put(writer, format)?;
    fields.put(writer, format)?;
    writer.end_list();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::payload::{Arguments, Body, Encoding, Shape};
    use crate::wamp::dict::Value;
    use crate::wamp::error::PROTOCOL_VIOLATION;
    use crate::wamp::list::{Element, encode_list};
    use crate::wamp::message::{Event, Publish, Unregistered, nothing};

    const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

    fn json(text: &str) -> Result<Message, Violation> {
        decode(Format::Json, &Bytes::copy_from_slice(text.as_bytes()))
    }

    fn binary(format: Format, bytes: &[u8]) -> Result<Message, Violation> {
        decode(format, &Bytes::copy_from_slice(bytes))
    }

    fn arguments(message: &Message) -> (&[u8], &[u8]) {
        match message.payload() {
            Some(Content::Arguments(arguments)) => (&arguments.args, &arguments.kwargs),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_are_slices_of_the_message() {
        let bytes = Bytes::from_static(br#" [ 48 , 1 , { } , "a" , [1, {"b": [ ]}] , { "c" : "]" } ] "#);
        let message = decode(Format::Json, &bytes).unwrap();
        let (args, kwargs) = arguments(&message);
        assert_eq!((args, kwargs), (&br#"[1, {"b": [ ]}]"#[..], &br#"{ "c" : "]" }"#[..]));
        assert!(bytes.as_ptr_range().contains(&args.as_ptr()));
    }

    #[test]
    fn empty_arguments_and_null_are_none() {
        for text in [
            r#"[16,1,{},"a"]"#,
            r#"[16,1,{},"a",[]]"#,
            r#"[16,1,{},"a",[ ],{ }]"#,
            r#"[16,1,{},"a",null]"#,
            r#"[16,1,{},"a",null,null]"#,
            r#"[16,1,{},"a",[],null]"#,
        ] {
            let message = json(text).unwrap();
            assert_eq!(arguments(&message), (&b""[..], &b""[..]), "{text}");
            assert_eq!(encode(Format::Json, &message).unwrap(), br#"[16,1,{},"a"]"#[..]);
        }
        let kwargs_only = json(r#"[16,1,{},"a",null,{"b":1}]"#).unwrap();
        assert_eq!(encode(Format::Json, &kwargs_only).unwrap(), br#"[16,1,{},"a",[],{"b":1}]"#[..]);
        for args in [&[0x90][..], &[0xdc, 0, 0], &[0xdd, 0, 0, 0, 0], &[0xc0], &[0xd4, 0, 0], &[0xc7, 0, 0]] {
            let message =
                binary(Format::MsgPack, &[&[0x95, 16, 1, 0x80, 0xa1, b'a'], args].concat()).unwrap();
            assert_eq!(arguments(&message), (&b""[..], &b""[..]), "{args:x?}");
        }
        for kwargs in [&[0x80][..], &[0xde, 0, 0], &[0xdf, 0, 0, 0, 0], &[0xc0], &[0xd4, 0, 0]] {
            let head = [0x96, 16, 1, 0x80, 0xa1, b'a', 0x90];
            let message = binary(Format::MsgPack, &[&head, kwargs].concat()).unwrap();
            assert_eq!(arguments(&message), (&b""[..], &b""[..]), "{kwargs:x?}");
        }
        for (args, kwargs) in
            [(&[0x91, 1][..], &[0x81, 1, 1][..]), (&[0xdd, 0, 0, 0, 1, 1], &[0xdf, 0, 0, 0, 1, 1, 1])]
        {
            let head = [0x96, 16, 1, 0x80, 0xa1, b'a'];
            let message = binary(Format::MsgPack, &[&head, args, kwargs].concat()).unwrap();
            assert_eq!(arguments(&message), (args, kwargs));
        }
        for args in [&[0x80][..], &[0x98, 0], &[0x9f, 0xff], &[0xf6], &[0xf7], &[0xd9, 1, 2, 0x80]] {
            let message = binary(Format::Cbor, &[&[0x85, 16, 1, 0xa0, 0x61, b'a'], args].concat()).unwrap();
            assert_eq!(arguments(&message), (&b""[..], &b""[..]), "{args:x?}");
        }
    }

    #[test]
    fn ids_are_checked_and_may_be_doubles() {
        for id in ["1", "1.0", "9007199254740992", "9007199254740992.0", "9.007199254740992e15", "1E0"] {
            assert!(json(&format!("[17,1,{id}]")).is_ok(), "{id}");
        }
        for id in
            ["0", "-1", "0.5", "9007199254740993", "1e300", "1e999", "true", "\"1\"", "null", "[]", "-0"]
        {
            let violation = json(&format!("[17,1,{id}]")).unwrap_err();
            assert_eq!(violation.uri(), PROTOCOL_VIOLATION, "{id}");
        }
        let double = (1_u64 << 53) as f64;
        let with = |format, head: &[u8]| binary(format, &[head, &double.to_be_bytes()].concat());
        let expected = json("[17,1,9007199254740992]").unwrap();
        assert_eq!(with(Format::MsgPack, &[0x93, 17, 1, 0xcb]).unwrap(), expected);
        assert_eq!(with(Format::Cbor, &[0x83, 17, 1, 0xfb]).unwrap(), expected);
        // Half and single precision; integers longer than they need be.
        let expected = json("[17,1,2]").unwrap();
        assert_eq!(binary(Format::Cbor, &[0x83, 17, 1, 0xf9, 0x40, 0]).unwrap(), expected);
        assert_eq!(binary(Format::Cbor, &[0x83, 17, 1, 0xfa, 0x40, 0, 0, 0]).unwrap(), expected);
        assert_eq!(binary(Format::Cbor, &[0x83, 0x18, 17, 0x19, 0, 1, 0x1a, 0, 0, 0, 2]).unwrap(), expected);
        assert_eq!(
            binary(Format::MsgPack, &[0x93, 0xcc, 17, 0xd1, 0, 1, 0xd3, 0, 0, 0, 0, 0, 0, 0, 2]),
            Ok(expected)
        );
        assert!(binary(Format::MsgPack, &[0x93, 17, 1, 0xff]).is_err());
        assert!(binary(Format::MsgPack, &[0x93, 17, 1, 0xd1, 0xff, 0]).is_err());
    }

    #[test]
    fn a_revocation_has_request_zero() {
        let message = json(r#"[67,0,{"registration":7}]"#).unwrap();
        let details = Some(Dict::new().with("registration", 7_u64));
        assert_eq!(message, Unregistered { request: None, details }.into());
        assert_eq!(message.request(), None);
        assert_eq!(encode(Format::Json, &message).unwrap(), br#"[67,0,{"registration":7}]"#[..]);
        assert!(json("[67,5]").unwrap().request().is_some());
        assert!(json("[67,true]").is_err());
    }

    #[test]
    fn undefined_and_wide_encodings_of_options_are_read() {
        // {"match": undefined} with a length of 16 bits, as msgpackr and cbor-x write it.
        let options = [0xde, 0, 1, 0xa5, b'm', b'a', b't', b'c', b'h', 0xd4, 0, 0];
        let message =
            binary(Format::MsgPack, &[&[0x94, 32, 1][..], &options, &[0xa1, b'a']].concat()).unwrap();
        let Message::Subscribe(subscribe) = message else { panic!() };
        assert_eq!((subscribe.options.get("match"), subscribe.options.len()), (None, 1));
        let options = [0xb9, 0, 1, 0x65, b'm', b'a', b't', b'c', b'h', 0xf7];
        let message =
            binary(Format::Cbor, &[&[0x84, 0x18, 32, 1][..], &options, &[0x61, b'a']].concat()).unwrap();
        let Message::Subscribe(subscribe) = message else { panic!() };
        assert_eq!((subscribe.options.get("match"), subscribe.options.len()), (None, 1));
    }

    #[test]
    fn indefinite_lengths_and_tags_are_read() {
        let bytes = [
            &[
                0xd9, 0xd9, 0xf7, 0x9f, 16, 1, 0xbf, 0x7f, 0x61, b'k', 0x60, 0xff, 0xd8, 0x40, 0x42, 1, 2,
                0xff,
            ][..],
            &[0x7f, 0x61, b'a', 0x61, b'b', 0xff],
            &[0x9f, 0xc2, 0x41, 1, 0xff],
            &[0xff],
        ]
        .concat();
        let message = binary(Format::Cbor, &bytes).unwrap();
        assert_eq!(arguments(&message).0, [0x9f, 0xc2, 0x41, 1, 0xff]);
        let Message::Publish(publish) = message else { panic!() };
        assert_eq!(publish.topic, "ab");
        assert_eq!(publish.options.get("k"), Some(&Value::Bytes(vec![1, 2])));
    }

    #[test]
    fn a_binary_in_the_place_of_the_arguments_is_opaque() {
        let expected = Some(Content::Opaque(Bytes::from_static(&[1, 2, 3])));
        for (format, bytes) in [
            (Format::Json, &br#"[16,1,{},"a","\u0000AQID"]"#[..]),
            (Format::MsgPack, &[0x95, 16, 1, 0x80, 0xa1, b'a', 0xc4, 3, 1, 2, 3]),
            (Format::Cbor, &[0x85, 16, 1, 0xa0, 0x61, b'a', 0x43, 1, 2, 3]),
        ] {
            let message = binary(format, bytes).unwrap();
            assert_eq!(message.payload(), expected.as_ref());
            assert_eq!(encode(format, &message).unwrap(), bytes);
        }
        // cbor-x tags it.
        let tagged = [0x85, 16, 1, 0xa0, 0x61, b'a', 0xd8, 0x40, 0x43, 1, 2, 3];
        assert_eq!(binary(Format::Cbor, &tagged).unwrap().payload(), expected.as_ref());

        let text = json(r#"[16,1,{"enc_algo":"cryptobox"},"a","xyz"]"#).unwrap();
        assert_eq!(text.payload(), Some(&Content::Opaque(Bytes::from_static(b"xyz"))));
        for bad in [
            r#"[16,1,{},"a","xyz"]"#,
            r#"[16,1,{"enc_algo":null},"a","xyz"]"#,
            r#"[16,1,{},"a","\u0000AQID",{}]"#,
            r#"[16,1,{},"a","\u0000*"]"#,
            r#"[16,1,{},"a",{}]"#,
            r#"[16,1,{},"a",5]"#,
            r#"[16,1,{},"a",[],[]]"#,
        ] {
            assert!(json(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_message_is_a_violation() {
        for bad in [
            "",
            " ",
            "{}",
            "[]",
            "[",
            "1",
            "\"a\"",
            "[0]",
            "[7]",
            "[999,1]",
            "[\"16\"]",
            "[16]",
            "[16,1]",
            "[16,1,{}]",
            "[16,1,{},1]",
            "[16,1,[],\"a\"]",
            "[16,1,{},\"a\"",
            "[16,1,{},\"a\"]]",
            "[17,1,1,1]",
            "[16,1,{},\"a\",[],{},1]",
            "[17,1,1] x",
            "[17,1,1][17,1,1]",
            "[17,1,1,]",
            "[17 1,1]",
            "[,17,1,1]",
            "[17,01,1]",
            "[17,1,1}",
            "[16,1,{\"a\"},\"a\"]",
            "[16,1,{\"a\":1,},\"a\"]",
            "[16,1,{1:1},\"a\"]",
            "[16,1,{\"a\":1,\"a\":1},\"a\"]",
            "[16,1,{},\"\\x\"]",
            "[16,1,{},\"\n\"]",
            "[16,1,{},\"a\",[NaN]]",
            "[16,1,{},\"a\",[1}]",
            "[8,5000,1,{},\"a\"]",
            "[16,1,{},\"\\ud800\"]",
            "[16,1,nul,\"a\"]",
            "[16.5,1,{},\"a\"]",
            "[-16,1,{},\"a\"]",
            "[16,+1,{},\"a\"]",
            "[16,1.,{},\"a\"]",
            "[16,1e,{},\"a\"]",
        ] {
            let violation = json(bad).expect_err(bad);
            assert_eq!(violation.uri(), PROTOCOL_VIOLATION, "{bad}");
        }
        assert!(binary(Format::Json, b"[16,1,{},\"\xff\"]").is_err());
        for bad in [&[][..], &[0xc0], &[0x90], &[0x93, 17, 1, 1, 0], &[0x92, 17, 1], &[0x93, 17, 1], &[0xc1]]
        {
            assert!(binary(Format::MsgPack, bad).is_err(), "{bad:x?}");
        }
        for bad in
            [&[][..], &[0xf6], &[0x80], &[0x83, 17, 1, 1, 0], &[0x82, 17, 1], &[0x9f, 17, 1, 1], &[0xff]]
        {
            assert!(binary(Format::Cbor, bad).is_err(), "{bad:x?}");
        }
        // Keys that are no strings, text that is not UTF-8.
        assert!(binary(Format::MsgPack, &[0x94, 16, 1, 0x81, 1, 1, 0xa1, b'a']).is_err());
        assert!(binary(Format::Cbor, &[0x84, 16, 1, 0xa1, 1, 1, 0x61, b'a']).is_err());
        assert!(binary(Format::MsgPack, &[0x94, 16, 1, 0x80, 0xa1, 0xff]).is_err());
        assert!(binary(Format::Cbor, &[0x84, 16, 1, 0xa0, 0x61, 0xff]).is_err());
    }

    #[test]
    fn a_violation_names_the_field() {
        for (text, name) in [
            ("[16,0,{},\"a\"]", "PUBLISH.Request"),
            ("[16,1,1,\"a\"]", "PUBLISH.Options"),
            ("[16,1,{},1]", "PUBLISH.Topic"),
            ("[48,1,{}]", "CALL.Procedure"),
            ("[8,9,1,{},\"a\"]", "ERROR.REQUEST.Type"),
        ] {
            let violation = json(text).unwrap_err();
            assert!(violation.message().contains(name), "{text}: {violation}");
        }
    }

    #[test]
    fn dictionaries_are_bounded_and_arguments_are_not() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(json(&format!("[16,1,{},\"a\"]", nested(32))).is_ok());
        assert!(json(&format!("[16,1,{},\"a\"]", nested(33))).is_err());
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(json(&format!("[16,1,{{\"exclude\":{}}},\"a\"]", list(4095))).is_ok());
        assert!(json(&format!("[16,1,{{\"exclude\":{}}},\"a\"]", list(4096))).is_err());
        assert!(json(&format!("[16,1,{{}},\"a\",{}]", list(100_000))).is_ok());

        const LEVELS: usize = 200_000;
        let work = || {
            let deep = format!("[16,1,{{}},\"a\",{}{}]", "[".repeat(LEVELS), "]".repeat(LEVELS));
            let message = json(&deep).unwrap();
            assert_eq!(arguments(&message).0.len(), 2 * LEVELS);
            assert_eq!(encode(Format::Json, &message).unwrap(), deep.as_bytes());
            assert!(json(&format!("[16,1,{}", "{\"a\":".repeat(LEVELS))).is_err());
            for (format, head, open) in [
                (Format::MsgPack, &[0x95, 16, 1, 0x80, 0xa1, b'a'][..], 0x91),
                (Format::Cbor, &[0x85, 16, 1, 0xa0, 0x61, b'a'], 0x81),
            ] {
                let mut bytes = [head, &vec![open; LEVELS]].concat();
                assert!(binary(format, &bytes).is_err());
                bytes.push(1);
                assert_eq!(arguments(&binary(format, &bytes).unwrap()).0.len(), LEVELS + 1);
            }
            assert!(
                binary(Format::MsgPack, &[&[0x94, 16, 1][..], &b"\x81\xa1a".repeat(LEVELS)].concat())
                    .is_err()
            );
            assert!(
                binary(Format::Cbor, &[&[0x84, 16, 1][..], &b"\xbf\x61a".repeat(LEVELS)].concat()).is_err()
            );
            assert!(binary(Format::Cbor, &[0xc1; LEVELS]).is_err());
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
    }

    #[test]
    fn announced_lengths_cost_nothing() {
        for bad in [
            &[0xdd, 255, 255, 255, 255, 17][..],
            &[0x94, 16, 1, 0xdf, 255, 255, 255, 255],
            &[0x94, 16, 1, 0x80, 0xdb, 255, 255, 255, 255],
            &[0x95, 16, 1, 0x80, 0xa0, 0xdd, 255, 255, 255, 255],
            &[0x95, 16, 1, 0x80, 0xa0, 0xc6, 255, 255, 255, 255],
        ] {
            assert!(binary(Format::MsgPack, bad).is_err(), "{bad:x?}");
        }
        for major in [0x40, 0x60, 0x80, 0xa0_u8] {
            for length in [[255; 8], [128, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0]] {
                let bomb = [&[major | 27][..], &length].concat();
                for head in [&[][..], &[0x84, 16, 1], &[0x84, 16, 1, 0xa0], &[0x85, 16, 1, 0xa0, 0x60]] {
                    assert!(binary(Format::Cbor, &[head, &bomb].concat()).is_err());
                }
            }
        }
    }

    /// Else the bytes would be moved, or given an allocation that says how many there could be.
    #[test]
    fn a_message_takes_one_allocation_of_its_size() {
        let (long, wide) = ("x".repeat(300), (0..20_u64).collect::<Vec<_>>());
        let entries = wide.iter().fold(Dict::new(), |dict, n| dict.with(n.to_string(), *n << (3 * n)));
        for details in [
            Dict::new(),
            Dict::new().with("publisher", Id::MAX).with("topic", "com.example.topic"),
            Dict::new()
                .with("progress", true)
                .with("no", false)
                .with("timeout", 1500_u64)
                .with(long.as_str(), ""),
            Dict::new()
                .with("x_headers", entries)
                .with("long", long.as_str())
                .with("empty", Vec::<Value>::new()),
            Dict::new().with("wide", wide).with("null", Value::Null).with("bytes", Value::Bytes(vec![7; 31])),
        ] {
            for (format, number) in
                FORMATS.into_iter().flat_map(|format| (0..54).map(move |bits| (format, 1_u64 << bits)))
            {
                let id = Id::new(number).unwrap();
                let opaque = Bytes::from(vec![7; usize::try_from(number % 70_000).unwrap()]);
                let args = encode_list(format, &[Element::Value(&Value::from(number))]);
                let kwargs = encode_list(format, &[]);
                for payload in [
                    Content::Opaque(opaque),
                    Content::Arguments(Arguments { format, args: args.clone(), kwargs: Bytes::new() }),
                    Content::Arguments(Arguments { format, args, kwargs }),
                    nothing(),
                ] {
                    let fields = (&id, &id, &details, &payload);
                    let encoded = encode_event(format, id, id, &details, payload.carried().unwrap()).unwrap();
                    assert_eq!(
                        encoded.len(),
                        size(format, MessageType::Event, &fields),
                        "{format:?} {encoded:?}"
                    );
                    let event =
                        Event { subscription: id, publication: id, details: details.clone(), payload };
                    assert_eq!(encode(format, &event.into()).unwrap(), encoded);
                }
            }
        }
        // What is seldom takes no more than was made room for.
        let details = Dict::new().with("a", -1_i64).with("b", f64::MIN).with("c", i64::MIN).with("d", 0.5);
        for format in FORMATS {
            let fields = (&Id::MAX, &Id::MAX, &details, &Carried::nothing());
            let encoded = encode_event(format, Id::MAX, Id::MAX, &details, Carried::nothing()).unwrap();
            assert!(encoded.len() <= size(format, MessageType::Event, &fields), "{format:?}");
        }
    }

    /// The short way writes what the long one writes.
    #[test]
    fn what_is_usual_is_written_as_all_is() {
        let numbers = (0..54).flat_map(|bits| [1_u64 << bits, (1 << bits) - 1, (1 << bits) / 3 * 2]);
        let numbers: Vec<_> = numbers.filter_map(Id::new).collect();
        let none = Dict::new();
        for (place, (format, one)) in
            FORMATS.into_iter().flat_map(|format| numbers.iter().map(move |one| (format, *one))).enumerate()
        {
            let other = numbers[place * 7 % numbers.len()];
            let args = encode_list(format, &[Element::Value(&Value::from("x".repeat(place)))]);
            let content = Content::Arguments(Arguments { format, args, kwargs: Bytes::new() });
            let payload = content.carried().unwrap();
            for message_type in [MessageType::Event, MessageType::Invocation] {
                let mut short = Vec::new();
                assert!(usual(format, message_type, &[one, other], &none, payload, &mut short));
                assert_eq!(Ok(short.into()), write(format, message_type, &(&one, &other, &none, &payload)));
            }
            let mut short = Vec::new();
            assert!(usual(format, MessageType::CallResult, &[one], &none, payload, &mut short));
            assert_eq!(Ok(short.into()), write(format, MessageType::CallResult, &(&one, &none, &payload)));
            let mut events = b"before".to_vec();
            append_event(format, one, other, &none, payload, &mut events).unwrap();
            let event = encode_event(format, one, other, &none, payload).unwrap();
            assert_eq!(events.strip_prefix(b"before"), Some(&event[..]));
        }
        let other =
            Arguments { format: Format::Cbor, args: Bytes::from_static(&[0x80]), kwargs: Bytes::new() };
        for payload in [Carried::nothing(), Carried::Arguments(&other), Carried::Opaque(&other.args)] {
            let mut out = Vec::new();
            let numbers = [Id::MAX, Id::MAX];
            assert!(!usual(Format::Json, MessageType::Event, &numbers, &none, payload, &mut out));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn names_of_publish_and_call_are_borrowed() {
        let bytes = Bytes::from_static(br#"[16,1,{},"com.example.topic"]"#);
        let Incoming::Publish(publish) = decode_incoming(Format::Json, &bytes).unwrap() else { panic!() };
        assert!(matches!(publish.topic, Cow::Borrowed("com.example.topic")));
        let bytes = Bytes::from_static(&[0x94, 48, 1, 0x80, 0xa1, b'a']);
        let Incoming::Call(call) = decode_incoming(Format::MsgPack, &bytes).unwrap() else { panic!() };
        assert!(matches!(call.procedure, Cow::Borrowed("a")));
    }

    #[test]
    fn a_payload_in_another_form_is_misuse() {
        let publish = |payload| {
            let topic = "a".to_owned();
            Message::from(Publish { request: Id::FIRST, options: Dict::new(), topic, payload })
        };
        let args = Bytes::from_static(b"[1]");
        let message =
            publish(Content::Arguments(Arguments { format: Format::Json, args, kwargs: Bytes::new() }));
        let expected = Misuse::OtherFormat { expected: Format::Cbor, found: Format::Json };
        assert_eq!(encode(Format::Cbor, &message), Err(expected));
        let body =
            Body { content_type: None, encoding: Encoding::Text, shape: Shape::Value, bytes: Bytes::new() };
        assert_eq!(encode(Format::Json, &publish(Content::Body(body))), Err(Misuse::Body));
        for format in FORMATS {
            assert!(encode(format, &publish(nothing())).is_ok());
            assert_eq!(format_of(subprotocol(format)), Some(format));
        }
        assert_eq!(format_of("WAMP.2.JSON"), None);
    }
}

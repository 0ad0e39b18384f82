//! PUBLISH and CALL as nearly all of them come: as short as can be, without options, with a list of arguments and nothing
//! after it. They are read in one look; whatever is not of that form, or wrong, is for the reader of all messages.
//!
//! ```text
//! JSON:        "[" code "," digits ",{},\"" name "\"," list "]"       no whitespace around these, no escape in the name
//! MessagePack: 95 code uint 80 str list                             a list of up to 15
//! ```

use std::borrow::Cow;
use std::str::from_utf8;

use bytes::Bytes;
use memchr::memchr2;

use crate::payload::skip::{has_control, skip};
use crate::payload::{Arguments, Content, Format};
use crate::wamp::dict::Dict;
use crate::wamp::id::Id;
use crate::wamp::message::{Call, Incoming, MessageType, Publish};

/// As many digits as the largest ID has.
const DIGITS_MAX: usize = 16;

/// A PUBLISH of that form, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsualPublish<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The arguments: a list that is not empty.
    pub args: &'a [u8],
}

/// The PUBLISH that `bytes` are, if it is of that form.
pub(super) fn publish(format: Format, bytes: &[u8]) -> Option<UsualPublish<'_>> {
    let Usual { code: MessageType::Publish, name, args, .. } = usual(format, bytes)? else { return None };
    Some(UsualPublish { topic: name, args })
}

/// The message, if it is of that form.
pub(super) fn read(format: Format, bytes: &Bytes) -> Option<Incoming<'_>> {
    let Usual { code, request, name, args } = usual(format, bytes)?;
    let (name, options) = (Cow::Borrowed(name), Dict::new());
    let payload = Content::Arguments(Arguments { format, args: bytes.slice_ref(args), kwargs: Bytes::new() });
    Some(match code {
        MessageType::Call => Incoming::Call(Call { request, options, procedure: name, payload }),
        _ => Incoming::Publish(Publish { request, options, topic: name, payload }),
    })
}

/// What is in one of that form.
struct Usual<'a> {
    code: MessageType,
    request: Id,
    name: &'a str,
    args: &'a [u8],
}

fn usual(format: Format, bytes: &[u8]) -> Option<Usual<'_>> {
    match format {
        Format::Json => json(bytes),
        Format::MsgPack => msgpack(bytes),
        Format::Cbor => None,
    }
}

fn json(bytes: &[u8]) -> Option<Usual<'_>> {
    let (code, rest) = match bytes.split_first_chunk::<4>()? {
        (b"[16,", rest) => (MessageType::Publish, rest),
        (b"[48,", rest) => (MessageType::Call, rest),
        _ => return None,
    };
    let digits = rest.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > DIGITS_MAX || rest[0] == b'0' {
        return None;
    }
    let (digits, rest) = rest.split_at(digits);
    let request = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    let rest = rest.strip_prefix(b",{},\"")?;
    let end = memchr2(b'"', b'\\', rest)?;
    let (name, rest) = rest.split_at(end);
    let args = rest.strip_prefix(b"\",")?.strip_suffix(b"]")?;
    if has_control(name) || args.first() != Some(&b'[') {
        return None;
    }
    let first = args[1..].iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
    if *first == b']' || skip(Format::Json, args) != Ok(args.len()) {
        return None;
    }
    Some(Usual { code, request: Id::new(request)?, name: from_utf8(name).ok()?, args })
}

fn msgpack(bytes: &[u8]) -> Option<Usual<'_>> {
    let (code, rest) = match bytes.split_first_chunk::<2>()? {
        ([0x95, 16], rest) => (MessageType::Publish, rest),
        ([0x95, 48], rest) => (MessageType::Call, rest),
        _ => return None,
    };
    let (request, rest) = match rest {
        [number @ 0..=0x7f, rest @ ..] => (u64::from(*number), rest),
        [0xcc, number, rest @ ..] => (u64::from(*number), rest),
        [0xcd, a, b, rest @ ..] => (u64::from(u16::from_be_bytes([*a, *b])), rest),
        [0xce, a, b, c, d, rest @ ..] => (u64::from(u32::from_be_bytes([*a, *b, *c, *d])), rest),
        [0xcf, rest @ ..] => {
            let (number, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*number), rest)
        }
        _ => return None,
    };
    let (length, rest) = match rest {
        [0x80, marker @ 0xa0..=0xbf, rest @ ..] => (usize::from(marker & 0x1f), rest),
        [0x80, 0xd9, length, rest @ ..] => (usize::from(*length), rest),
        _ => return None,
    };
    let (name, args) = rest.split_at_checked(length)?;
    if !matches!(args.first(), Some(0x91..=0x9f)) || skip(Format::MsgPack, args) != Ok(args.len()) {
        return None;
    }
    Some(Usual { code, request: Id::new(request)?, name: from_utf8(name).ok()?, args })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wamp::codec::decode;

    fn read_and_owned(format: Format, bytes: &Bytes) -> Option<Vec<String>> {
        let message = read(format, bytes)?;
        let (name, payload) = match &message {
            Incoming::Publish(publish) => (publish.topic.to_string(), &publish.payload),
            Incoming::Call(call) => (call.procedure.to_string(), &call.payload),
            other => panic!("{other:?}"),
        };
        Some(vec![
            message.name().to_owned(),
            format!("{:?}", message.request()),
            name,
            format!("{payload:?}"),
        ])
    }

    fn as_all(format: Format, bytes: &Bytes) -> Option<Vec<String>> {
        let message = decode(format, bytes).ok()?;
        let name = match &message {
            crate::wamp::message::Message::Publish(publish) => publish.topic.clone(),
            crate::wamp::message::Message::Call(call) => call.procedure.clone(),
            other => panic!("{other:?}"),
        };
        let payload = message.payload()?;
        Some(vec![
            message.name().to_owned(),
            format!("{:?}", message.request()),
            name,
            format!("{payload:?}"),
        ])
    }

    #[test]
    fn the_usual_form_is_read_and_others_are_not() {
        let json = |text: &'static str| read(Format::Json, &Bytes::from_static(text.as_bytes())).is_some();
        assert!(json(r#"[16,1,{},"a",[1]]"#) && json(r#"[48,9007199254740992,{},"",[ "]",{}]]"#));
        for other in [
            r#"[16,1,{},"a"]"#,
            r#"[16,1,{},"a",[]]"#,
            r#"[16,1,{},"a",[ ]]"#,
            r#"[16,1,{},"a",[1],{"b":1}]"#,
            r#"[16,1,{},"a",[1]],[2]]"#,
            r#"[16,01,{},"a",[1]]"#,
            r#"[16,0,{},"a",[1]]"#,
            r#"[16,9007199254740993,{},"a",[1]]"#,
            r#"[16,1,{},"\u0061",[1]]"#,
            r#"[16,1,{"b":1},"a",[1]]"#,
            r#"[17,1,{},"a",[1]]"#,
            r#"[16,1,{},"a",[1}]"#,
            r#"[16,1,{},"a",[1]] "#,
            "[16,1,{},\"\u{1}\",[1]]",
        ] {
            assert!(!json(other), "{other}");
        }
        let binary = |list: &[u8]| {
            let bytes = [&[0x95, 16, 1, 0x80, 0xa1, b'a'], list].concat();
            read(Format::MsgPack, &bytes.into()).is_some()
        };
        assert!(binary(&[0x91, 1]));
        assert!([&[][..], &[0x90], &[0x91], &[0x91, 1, 1], &[0x81, 1, 1]].iter().all(|list| !binary(list)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever is read here is what the reader of all messages makes of it.
        #[test]
        fn what_is_read_in_one_look_is_what_all_is_read_as(
            code in prop::sample::select(vec!["16", "48"]),
            number in prop::sample::select(vec![0, 1, 127, 128, 255, 256, 65_536, 1 << 32, 1 << 53, (1 << 53) + 1]),
            name in prop::sample::select(vec!["", "a", "com.example.topic", "\u{e4}", "\\u0061", "a\"", "\u{0}"]),
            list in prop::sample::select(vec!["[1]", "[]", "[ ]", "[[],{}]", "[\"]\\\"\"]", "[1],{}", "[1", "[1]]", "[\u{7}]"]),
            change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let text = format!("[{code},{number},{{}},\"{name}\",{list}]");
            let mut head = vec![0x95, code.parse::<u8>().unwrap(), 0xcf];
            head.extend_from_slice(&u64::to_be_bytes(number));
            head.extend_from_slice(&[0x80, 0xa0 | name.len() as u8]);
            head.extend_from_slice(name.as_bytes());
            let lists: [&[u8]; 4] = [&[0x91, 1], &[0x90], &[0x92, 0x80, 0xc0], &[0x91, 0x91]];
            head.extend_from_slice(lists[list.len() % lists.len()]);
            for (format, mut bytes) in [(Format::Json, text.into_bytes()), (Format::MsgPack, head)] {
                if let Some((place, byte)) = &change {
                    let place = place.index(bytes.len());
                    bytes[place] = *byte;
                }
                let bytes = Bytes::from(bytes);
                let published = publish(format, &bytes);
                prop_assert_eq!(published.is_some(), matches!(read(format, &bytes), Some(Incoming::Publish(_))));
                if let (Some(here), Some(Incoming::Publish(there))) = (published, read(format, &bytes)) {
                    let Content::Arguments(arguments) = &there.payload else { panic!() };
                    prop_assert_eq!((here.topic, here.args), (&*there.topic, &arguments.args[..]));
                }
                if let Some(found) = read_and_owned(format, &bytes) {
                    prop_assert_eq!(Some(found), as_all(format, &bytes));
                }
            }
        }
    }
}

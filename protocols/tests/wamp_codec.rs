//! Properties of the codec: what is written is read again as it was, extents agree with other libraries, and
//! nothing that a peer may send makes it panic.

// A test that cannot go on has failed; helpers are tests as well.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use tandem_protocols::payload::skip::skip;
use tandem_protocols::payload::{Arguments, Content, Format};
use tandem_protocols::wamp::codec::{decode, encode};
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{
    Abort, Authenticate, Call, CallResult, Cancel, Challenge, Error, Event, EventReceived, Goodbye, Hello,
    Interrupt, Invocation, Message, MessageType, Publish, Published, Register, Registered, Subscribe,
    Subscribed, Unregister, Unregistered, Unsubscribe, Unsubscribed, Welcome, Yield,
};
use tandem_protocols::wamp::options;

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Json), Just(Format::MsgPack), Just(Format::Cbor)]
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![1..300_u64, 1..=Id::MAX.get()].prop_map(|id| Id::new(id).unwrap())
}

/// Text that does not begin with U+0000, which would make it bytes in JSON.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,40}", "\\PC{0,40}", "[a\"\\\\\n\u{7f}\u{1F600}][\\x00-\\x20]{0,3}"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(|value| Value::Int(value.into())),
        any::<i64>().prop_map(|value| Value::Int(value.into())),
        (-300..300_i64).prop_map(|value| Value::Int(value.into())),
        any::<f64>().prop_filter("JSON has no other", |value| value.is_finite()).prop_map(Value::Float),
        text().prop_map(Value::Str),
        vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(4, 40, 20, |inner| {
        prop_oneof![vec(inner.clone(), 0..20).prop_map(Value::List), entries(inner).prop_map(Value::Dict)]
    })
}

fn entries(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Dict> {
    vec((text(), value), 0..18)
        .prop_map(|entries| entries.into_iter().fold(Dict::new(), |dict, (key, value)| dict.with(key, value)))
}

/// Without `enc_algo`, which would give strings another meaning.
fn dict() -> impl Strategy<Value = Dict> {
    prop_oneof![2 => Just(Dict::new()), 3 => entries(value())]
}

fn payload(format: Format) -> impl Strategy<Value = Content> {
    let (list, map): (&[&[u8]], &[&[u8]]) = match format {
        Format::Json => (&[b"", b"[1]", b"[ \"]\\\"\" ,[{}]]"], &[b"", b"{\"a\":[]}"]),
        Format::MsgPack => (&[b"", &[0x91, 1], &[0xdc, 0, 1, 0x90]], &[b"", &[0x81, 0xa1, b'a', 0xd4, 0, 0]]),
        Format::Cbor => (&[b"", &[0x81, 1], &[0x9f, 0xa0, 0xff]], &[b"", &[0xbf, 0x61, b'a', 0xf7, 0xff]]),
    };
    let pick = |from: &[&[u8]]| {
        let from: Vec<Bytes> = from.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
        proptest::sample::select(from)
    };
    prop_oneof![
        3 => (pick(list), pick(map))
            .prop_map(move |(args, kwargs)| Content::Arguments(Arguments { format, args, kwargs })),
        1 => vec(any::<u8>(), 0..300).prop_map(|bytes| Content::Opaque(bytes.into())),
    ]
}

fn message(format: Format) -> impl Strategy<Value = Message> {
    let parts = (proptest::sample::select(MessageType::ALL), id(), id(), dict(), text(), payload(format));
    (parts, proptest::option::of(id()), proptest::option::of(dict())).prop_map(
        |((message_type, request, other, details, name, payload), answered, optional)| {
            build(message_type, Parts { request, other, details, name, payload, answered, optional })
        },
    )
}

struct Parts {
    request: Id,
    other: Id,
    details: Dict,
    name: String,
    payload: Content,
    answered: Option<Id>,
    optional: Option<Dict>,
}

/// One arm for each type, so that a new one must be added here.
fn build(message_type: MessageType, parts: Parts) -> Message {
    let Parts { request, other, details, name, payload, answered, optional } = parts;
    let options = details.clone();
    match message_type {
        MessageType::Hello => Hello { realm: name, details }.into(),
        MessageType::Welcome => Welcome { session: other, details }.into(),
        MessageType::Abort => Abort { details, reason: name, payload }.into(),
        MessageType::Challenge => Challenge { auth_method: name, extra: details }.into(),
        MessageType::Authenticate => Authenticate { signature: name, extra: details }.into(),
        MessageType::Goodbye => Goodbye { details, reason: name }.into(),
        MessageType::Error => {
            Error { request_type: MessageType::Call, request, details, error: name, payload }.into()
        }
        MessageType::Publish => Publish { request, options, topic: name, payload }.into(),
        MessageType::Published => Published { request, publication: other }.into(),
        MessageType::Subscribe => Subscribe { request, options, topic: name }.into(),
        MessageType::Subscribed => Subscribed { request, subscription: other }.into(),
        MessageType::Unsubscribe => Unsubscribe { request, subscription: other, options: optional }.into(),
        MessageType::Unsubscribed => Unsubscribed { request: answered, details: optional }.into(),
        MessageType::Event => Event { subscription: request, publication: other, details, payload }.into(),
        MessageType::Call => Call { request, options, procedure: name, payload }.into(),
        MessageType::Cancel => Cancel { request, options }.into(),
        MessageType::CallResult => CallResult { request, details, payload }.into(),
        MessageType::Register => Register { request, options, procedure: name }.into(),
        MessageType::Registered => Registered { request, registration: other }.into(),
        MessageType::Unregister => Unregister { request, registration: other, options: optional }.into(),
        MessageType::Unregistered => Unregistered { request: answered, details: optional }.into(),
        MessageType::Invocation => Invocation { request, registration: other, details, payload }.into(),
        MessageType::Interrupt => Interrupt { request, options }.into(),
        MessageType::Yield => Yield { request, options, payload }.into(),
        MessageType::EventReceived => EventReceived { publication: other }.into(),
    }
}

/// Where the first value ends, by another library; `None` where there is none.
fn oracle(format: Format, input: &[u8]) -> Option<usize> {
    match format {
        Format::Json => {
            let mut values = serde_json::Deserializer::from_slice(input).into_iter::<serde_json::Value>();
            values.next()?.ok()?;
            Some(values.byte_offset())
        }
        Format::MsgPack => {
            let mut rest = input;
            rmpv::decode::read_value_ref(&mut rest).ok()?;
            Some(input.len() - rest.len())
        }
        Format::Cbor => {
            let mut rest = input;
            ciborium::from_reader::<ciborium::Value, _>(&mut rest).ok()?;
            Some(input.len() - rest.len())
        }
    }
}

proptest! {
    // A failure prints its input, which becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again(
        (format, message) in format().prop_flat_map(|format| (Just(format), message(format))),
    ) {
        let bytes = encode(format, &message).unwrap();
        prop_assert_eq!(skip(format, &bytes), Ok(bytes.len()));
        prop_assert_eq!(oracle(format, &bytes), Some(bytes.len()));
        prop_assert_eq!(&decode(format, &bytes).unwrap(), &message);
        prop_assert!(decode(format, &bytes.slice(..bytes.len() - 1)).is_err());
        let _ = options::check(&message);
    }

    #[test]
    fn flipped_bits_do_no_harm(
        (format, message) in format().prop_flat_map(|format| (Just(format), message(format))),
        flips in vec((any::<prop::sample::Index>(), 0..8_u8), 1..4),
    ) {
        let mut bytes = encode(format, &message).unwrap().to_vec();
        for (index, bit) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Ok(message) = decode(format, &bytes.into()) {
            let _ = options::check(&message);
            let again = encode(format, &message).unwrap();
            prop_assert_eq!(encode(format, &decode(format, &again).unwrap()).unwrap(), again);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(format in format(), bytes in vec(any::<u8>(), 0..64)) {
        let _ = decode(format, &Bytes::from(bytes.clone()));
        if let Ok(length) = skip(format, &bytes) {
            prop_assert!(0 < length && length <= bytes.len());
        }
    }

    /// The other libraries refuse some values that are well-formed (strings that are not UTF-8, unassigned
    /// simple values, negative integers below 64 bits), so it is they whose word must be ours.
    #[test]
    fn extents_agree_with_other_libraries(format in format(), bytes in vec(any::<u8>(), 0..48)) {
        // rmpv reads the reserved byte as nil, and ciborium simple values below 32 in two bytes, which are not
        // well-formed (RFC 8949, 3.3).
        prop_assume!(format != Format::MsgPack || !bytes.contains(&0xc1));
        prop_assume!(format != Format::Cbor || !bytes.windows(2).any(|pair| pair[0] == 0xf8 && pair[1] < 32));
        if let Some(length) = oracle(format, &bytes) {
            prop_assert_eq!(skip(format, &bytes), Ok(length), "{:x?}", bytes);
        }
    }

    #[test]
    fn extents_of_json_agree_both_ways(text in "[\\[\\]{}:,\"a0-2.eE\\\\untrfalse \\-+]{0,24}") {
        let ours = skip(Format::Json, text.as_bytes());
        let mut source = serde_json::Deserializer::from_str(&text);
        let theirs = <serde_json::Value as serde::Deserialize>::deserialize(&mut source);
        // A number may be too large for a value, and a lone surrogate is a valid escape.
        if theirs.is_ok() {
            prop_assert!(ours.is_ok());
        } else if let Ok(length) = ours {
            let value = &text[..length];
            prop_assert!(value.contains(['e', 'E']) || value.contains("\\u"), "{:?}", value);
        }
    }
}

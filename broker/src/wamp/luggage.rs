//! What travels with a payload: options on one side, details on the other, attributes in between.
//!
//! ```text
//! ppt_*, enc_*    attributes of the same names; nobody in between reads them
//! x_headers       a dictionary of text: all other attributes, which are the user headers of STOMP
//! ```
//!
//! They are held to what the headers of a STOMP frame may be: its readers end the connection at more, so that a
//! single message would drive away all subscribers of that language. A payload option that is not text (some
//! write the bytes of a key) is a CBOR list of one value in between.
//!
//! Payloads that are a small part of a large message are copied, so that what they are charged for is what
//! they hold in memory.

use bytes::Bytes;

use tandem_protocols::payload::{Arguments, Carried, Content, Format, Payload, Unconvertible};
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::Violation;
use tandem_protocols::wamp::list::{Element, encode_list, split_list};

use crate::core::message::{Attribute, Attributes};
use crate::wamp::fault::Fault;

/// The option and detail that holds what STOMP has as headers.
const HEADERS: &str = "x_headers";

/// Attributes of a message.
const ATTRIBUTES_MAX: usize = 64;
/// Bytes of one, name and value; escapes may double them.
const ATTRIBUTE_BYTES_MAX: usize = 4000;
/// Bytes of all of them.
const ATTRIBUTES_BYTES_MAX: usize = 15_000;

/// A message up to this size may be kept for the sake of its payload: what a publication is charged beyond
/// its payload covers it, roughly.
const SLACK_BYTES: usize = 512;

/// Whether only sender and receiver know what a key means.
fn is_passed_through(key: &str) -> bool {
    key.starts_with("ppt_") || key.starts_with("enc_")
}

/// What the options of a message say for its receivers.
pub(super) fn attributes(options: &Dict) -> Result<Attributes, Fault> {
    if options.is_empty() {
        return Ok(Attributes::default());
    }
    let mut pairs: Vec<(&str, Attribute)> = Vec::new();
    for (key, value) in options.iter().filter(|(key, _)| is_passed_through(key)) {
        match value {
            Value::Null => {}
            Value::Str(text) => pairs.push((key, Attribute::from(text.as_str()))),
            value => {
                pairs.push((key, Attribute::Foreign(encode_list(Format::Cbor, &[Element::Value(value)]))))
            }
        }
    }
    if let Some(headers) = options.dict(HEADERS)? {
        for (key, value) in headers.iter() {
            let Some(text) = value.as_str() else {
                return Err(Violation::new("x_headers is not a dictionary of strings").into());
            };
            if !is_passed_through(key) {
                pairs.push((key, text.into()));
            }
        }
    }
    let bytes = |(name, value): &(&str, Attribute)| name.len() + value.len();
    if pairs.len() > ATTRIBUTES_MAX
        || pairs.iter().any(|pair| bytes(pair) > ATTRIBUTE_BYTES_MAX)
        || pairs.iter().map(bytes).sum::<usize>() > ATTRIBUTES_BYTES_MAX
    {
        return Err(Fault::argument("there are too many headers, or they are too long"));
    }
    Ok(pairs.into_iter().collect())
}

/// Writes attributes into the details of a message.
pub(super) fn unpack(attributes: &Attributes, details: &mut Dict) {
    if attributes.is_empty() {
        return;
    }
    let mut headers = Dict::new();
    for (name, value) in attributes.all() {
        let target = if is_passed_through(name) { &mut *details } else { &mut headers };
        // The first of two equal names counts.
        if target.get(name).is_some() {
            continue;
        }
        match value {
            Attribute::Text(text) => target.insert(name, &**text),
            Attribute::Foreign(bytes) => {
                let (mut values, _) = split_list(Format::Cbor, bytes, 1).unwrap_or_default();
                if let Some(value) = values.pop() {
                    target.insert(name, value);
                }
            }
        }
    }
    if !headers.is_empty() {
        details.insert(HEADERS, headers);
    }
}

/// What a message carries that was `received_bytes` long.
pub(super) fn payload(content: Content, received_bytes: usize) -> Payload {
    let is_small = |bytes: usize| bytes * 2 + SLACK_BYTES < received_bytes;
    Payload::new(match content {
        Content::Arguments(Arguments { format, args, kwargs }) if is_small(args.len() + kwargs.len()) => {
            let (args, kwargs) = (Bytes::copy_from_slice(&args), Bytes::copy_from_slice(&kwargs));
            Content::Arguments(Arguments { format, args, kwargs })
        }
        Content::Opaque(bytes) if is_small(bytes.len()) => Content::Opaque(Bytes::copy_from_slice(&bytes)),
        content => content,
    })
}

/// What a receiver that reads `format` gets.
pub(super) fn content(payload: &Payload, format: Format) -> Result<Content, Unconvertible> {
    Ok(match payload.arguments(format)? {
        Carried::Arguments(arguments) => Content::Arguments(arguments.clone()),
        Carried::Opaque(bytes) => Content::Opaque(bytes.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_out_as_they_went_in() {
        let headers = Dict::new().with("b", "1").with("a", "2");
        let options = Dict::new().with("ppt_scheme", "x_s").with("acknowledge", true).with(HEADERS, headers);
        let packed = attributes(&options).unwrap();
        assert_eq!(packed.iter().collect::<Vec<_>>(), [("ppt_scheme", "x_s"), ("b", "1"), ("a", "2")]);
        let mut details = Dict::new();
        unpack(&packed, &mut details);
        assert_eq!(details, {
            let mut options = options;
            options.remove("acknowledge");
            options
        });
    }

    #[test]
    fn payload_options_that_are_not_text_come_out_as_they_went_in() {
        let inner = Dict::new().with("n", -1_i64).with("null", Value::Null);
        let list = vec![Value::Bool(true), Value::Float(0.5), Value::Bytes(vec![0, 255]), Value::Null];
        let options = Dict::new()
            .with("enc_key", Value::Bytes(vec![1, 2]))
            .with("ppt_x", Value::List(list))
            .with("enc_y", inner)
            .with("ppt_n", u64::MAX);
        let packed = attributes(&options).unwrap();
        assert_eq!(packed.iter().count(), 0, "they are for WAMP only");
        assert!(packed.bytes() > 0);
        let mut details = Dict::new();
        unpack(&packed, &mut details);
        assert_eq!(details, options);
        let absent = attributes(&Dict::new().with("ppt_x", Value::Null)).unwrap();
        assert!(absent.is_empty());
    }

    #[test]
    fn headers_are_text_and_cannot_pose_as_payload_options() {
        let with = |headers: Dict| attributes(&Dict::new().with(HEADERS, headers));
        assert!(with(Dict::new().with("a", 1_u64)).is_err());
        assert!(attributes(&Dict::new().with(HEADERS, "a")).is_err());
        assert!(with(Dict::new().with("ppt_scheme", "x")).unwrap().is_empty());
    }

    #[test]
    fn a_small_payload_does_not_keep_a_large_message() {
        let message = Bytes::from(vec![b' '; 10_000]);
        let small = payload(Content::Opaque(message.slice(..100)), message.len());
        let large = payload(Content::Opaque(message.slice(..9_000)), message.len());
        let is_slice = |payload: &Payload| match payload.content() {
            Content::Opaque(bytes) => message.as_ptr_range().contains(&bytes.as_ptr()),
            _ => false,
        };
        assert!(!is_slice(&small) && is_slice(&large));
    }
}

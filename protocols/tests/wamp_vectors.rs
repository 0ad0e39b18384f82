//! The official test vectors: every variant in JSON, MessagePack and CBOR decodes to the same message, says
//! what it is expected to say, and is written again byte for byte as one of the variants.
//!
//! They are read from the folder in `WAMP_VECTORS`, else from `../shared/vectors/wamp` beside the workspace.

// A test that cannot go on has failed; helpers are tests as well.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use tandem_protocols::payload::{Content, Format};
use tandem_protocols::wamp::codec::{decode, encode};
use tandem_protocols::wamp::error::PROTOCOL_VIOLATION;
use tandem_protocols::wamp::message::Message;
use tandem_protocols::wamp::options;

const FORMATS: [(Format, &str); 3] =
    [(Format::Json, "json"), (Format::MsgPack, "msgpack"), (Format::Cbor, "cbor")];

#[test]
fn the_official_vectors() {
    let Some(folder) = folder() else {
        println!("skipped: there are no vectors in ../shared/vectors/wamp, and WAMP_VECTORS is not set");
        return;
    };
    let mut ran = Ran::default();
    for part in ["basic", "advanced"] {
        for entry in std::fs::read_dir(folder.join("singlemessage").join(part)).unwrap() {
            let path = entry.unwrap().path();
            let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            ran.files += 1;
            for (number, sample) in file["samples"].as_array().unwrap().iter().enumerate() {
                let name = format!("{} {number}", path.display());
                match sample.get("wmsg") {
                    Some(message) => ran.validation(&name, message, sample.get("expected_error")),
                    None => ran.serialization(&name, sample),
                }
            }
        }
    }
    let expected = Ran { files: 26, serializations: 35, variants: [59, 35, 35], accepted: 39, refused: 28 };
    assert_eq!(ran, expected);
}

fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("WAMP_VECTORS") {
        return Some(folder.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let folder = workspace.parent()?.join("shared/vectors/wamp");
    folder.is_dir().then_some(folder)
}

/// How much was tested, so that nothing is not mistaken for all.
#[derive(Debug, Default, PartialEq)]
struct Ran {
    files: usize,
    serializations: usize,
    variants: [usize; 3],
    accepted: usize,
    refused: usize,
}

impl Ran {
    fn serialization(&mut self, name: &str, sample: &Value) {
        self.serializations += 1;
        for (index, (format, key)) in FORMATS.into_iter().enumerate() {
            let variants = sample["serializers"][key].as_array().unwrap();
            let forms: Vec<Vec<u8>> =
                variants.iter().map(|variant| hex(variant["bytes_hex"].as_str().unwrap())).collect();
            for form in &forms {
                let message = decode(format, &Bytes::copy_from_slice(form))
                    .unwrap_or_else(|violation| panic!("{name} {key}: {violation}"));
                options::check(&message).unwrap_or_else(|violation| panic!("{name}: {violation}"));
                let encoded = encode(format, &message).unwrap();
                assert!(forms.contains(&encoded.to_vec()), "{name} {key}: {encoded:?}");
                self.variants[index] += 1;

                let said = attributes(format, &encoded, &message);
                for (attribute, expected) in sample["expected_attributes"].as_object().unwrap() {
                    let said = said.get(attribute).unwrap_or(&Value::Null);
                    assert_eq!(said, expected, "{name} {key} {attribute}");
                }
            }
        }
    }

    fn validation(&mut self, name: &str, message: &Value, error: Option<&Value>) {
        let bytes = Bytes::from(serde_json::to_vec(message).unwrap());
        let judged = decode(Format::Json, &bytes).and_then(|message| options::check(&message));
        match error {
            None => {
                judged.unwrap_or_else(|violation| panic!("{name}: {violation}"));
                self.accepted += 1;
            }
            Some(error) => {
                let violation = judged.expect_err(name);
                assert_eq!(error["type"], "protocol_violation", "{name}");
                assert_eq!(violation.uri(), PROTOCOL_VIOLATION, "{name}");
                let key = error["contains"].as_str().unwrap();
                assert!(violation.message().contains(key), "{name}: {violation}");
                self.refused += 1;
            }
        }
    }
}

/// What a message says, by the attribute names of the vectors. The elements are read by other libraries than
/// ours; that the types agree with the elements is the codec's round trip.
fn attributes(format: Format, encoded: &[u8], message: &Message) -> Map<String, Value> {
    let elements = match format {
        Format::Json => serde_json::from_slice(encoded).unwrap(),
        Format::MsgPack => from_msgpack(&rmpv::decode::read_value(&mut &encoded[..]).unwrap()),
        Format::Cbor => from_cbor(&ciborium::from_reader(encoded).unwrap()),
    };
    let elements: &Vec<Value> = elements.as_array().unwrap();
    assert_eq!(elements[0], message.message_type().code());
    let names: &[&str] = match message.name() {
        "HELLO" => &["realm", "details"],
        "WELCOME" => &["session_id", "details"],
        "ABORT" | "GOODBYE" => &["details", "reason"],
        "CHALLENGE" => &["method", "extra"],
        "AUTHENTICATE" => &["signature", "extra"],
        "ERROR" => &["request_type", "request_id", "details", "error", "args", "kwargs"],
        "PUBLISH" => &["request_id", "options", "topic", "args", "kwargs"],
        "PUBLISHED" => &["request_id", "publication_id"],
        "SUBSCRIBE" => &["request_id", "options", "topic"],
        "SUBSCRIBED" | "UNSUBSCRIBE" => &["request_id", "subscription_id"],
        "EVENT" => &["subscription", "publication", "details", "args", "kwargs"],
        "CALL" => &["request_id", "options", "procedure", "args", "kwargs"],
        "RESULT" => &["request_id", "details", "args", "kwargs"],
        "REGISTER" => &["request_id", "options", "procedure"],
        "REGISTERED" | "UNREGISTER" => &["request_id", "registration_id"],
        "INVOCATION" => &["request_id", "registration_id", "details", "args", "kwargs"],
        "CANCEL" | "INTERRUPT" | "YIELD" => &["request_id", "options"],
        "UNSUBSCRIBED" | "UNREGISTERED" => &["request_id"],
        "EVENT_RECEIVED" => &["publication_id"],
        other => panic!("{other}"),
    };
    let mut said: Map<String, Value> =
        names.iter().map(|name| (*name).to_owned()).zip(elements[1..].iter().cloned()).collect();
    assert!(elements.len() <= names.len() + 1);
    said.insert("message_type".into(), elements[0].clone());
    if let Some(roles) = said.get("details").and_then(|details| details.get("roles")).cloned() {
        said.insert("roles".into(), roles);
    }
    if let Some(request) = message.request() {
        assert_eq!(said["request_id"], request.get());
    }
    if let Some(Content::Opaque(bytes)) = message.payload() {
        let payload: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        said.insert("payload".into(), payload.into());
        said.remove("args");
    }
    said
}

fn from_msgpack(value: &rmpv::Value) -> Value {
    match value {
        rmpv::Value::Array(values) => values.iter().map(from_msgpack).collect(),
        rmpv::Value::Map(entries) => Value::Object(
            entries.iter().map(|(key, value)| (key.as_str().unwrap().into(), from_msgpack(value))).collect(),
        ),
        rmpv::Value::Boolean(value) => json!(value),
        rmpv::Value::Integer(value) => json!(value.as_u64().unwrap()),
        rmpv::Value::String(value) => json!(value.as_str().unwrap()),
        // Compared as the payload of the message.
        rmpv::Value::Binary(_) => Value::Null,
        other => panic!("{other}"),
    }
}

fn from_cbor(value: &ciborium::Value) -> Value {
    match value {
        ciborium::Value::Array(values) => values.iter().map(from_cbor).collect(),
        ciborium::Value::Map(entries) => Value::Object(
            entries.iter().map(|(key, value)| (key.as_text().unwrap().into(), from_cbor(value))).collect(),
        ),
        ciborium::Value::Bool(value) => json!(value),
        ciborium::Value::Integer(value) => json!(u64::try_from(*value).unwrap()),
        ciborium::Value::Text(value) => json!(value),
        ciborium::Value::Bytes(_) => Value::Null,
        other => panic!("{other:?}"),
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

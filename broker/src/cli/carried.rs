//! What messages carried, as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use tandem_client::stomp;
use tandem_protocols::payload::{Content, Format, Limits, transcode};

/// Positional and keyword arguments as JSON. Bytes are texts that begin with a NUL, as WAMP has it.
pub(super) fn arguments(content: &Content) -> (Value, Value) {
    let (args, kwargs) = match content {
        Content::Arguments(arguments) => {
            let json = |bytes: &[u8]| json_of(arguments.format, bytes);
            (json(&arguments.args), json(&arguments.kwargs))
        }
        Content::Opaque(bytes) => (Some(Value::from(vec![format!("\0{}", STANDARD.encode(bytes))])), None),
        Content::Body(_) => (None, None),
    };
    (args.unwrap_or_else(|| Value::Array(Vec::new())), kwargs.unwrap_or_else(|| Value::Object(Map::new())))
}

fn json_of(format: Format, bytes: &[u8]) -> Option<Value> {
    // It came in one message, and is one value; its size is bounded by that.
    let limits = Limits { elements_max: usize::MAX, expansion_max: 16, ..Limits::DEFAULT };
    let json = transcode(format, Format::Json, bytes, &limits).ok()?;
    serde_json::from_slice(&json).ok()
}

/// A body of STOMP as JSON, and under which name: a value, `text`, or `base64`.
pub(super) fn body(headers: &stomp::Headers, body: &[u8]) -> (&'static str, Value) {
    let kind = headers.get("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let value = match kind.as_str() {
        "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
            json_of(Format::MsgPack, body)
        }
        "application/cbor" => json_of(Format::Cbor, body),
        kind if kind.ends_with("/json") || kind.ends_with("+json") => serde_json::from_slice(body).ok(),
        _ => None,
    };
    match (value, str::from_utf8(body)) {
        (Some(value), _) => ("body", value),
        (None, Ok(text)) => ("text", text.into()),
        (None, Err(_)) => ("base64", STANDARD.encode(body).into()),
    }
}

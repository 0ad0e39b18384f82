//! Values as the bodies of messages, and back, by `content-type`.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Headers;

use crate::error::Error;

/// A value in a format, as bytes.
pub(super) fn write<T: Serialize + ?Sized>(format: Format, value: &T) -> Result<Bytes, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Encode(error.to_string());
    match format {
        Format::Json => serde_json::to_vec(value).map(Bytes::from).map_err(|error| failed(&error)),
        Format::MsgPack => rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|error| failed(&error)),
        Format::Cbor => {
            let mut bytes = Vec::new();
            ciborium::into_writer(value, &mut bytes).map_err(|error| failed(&error))?;
            Ok(bytes.into())
        }
    }
}

/// What a format is called in `content-type`.
pub(super) fn content_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::MsgPack => "application/msgpack",
        Format::Cbor => "application/cbor",
    }
}

/// The value that a body is, by what its `content-type` says. Text is a string; what says nothing is taken for
/// JSON.
pub(super) fn read<T: DeserializeOwned>(headers: &Headers, body: &Bytes) -> Result<T, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Decode(error.to_string());
    let kind = headers.get("content-type").unwrap_or("application/json");
    // What comes after the name, such as a charset, changes nothing: JSON and text are UTF-8.
    let name = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match name.as_str() {
        "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
            rmp_serde::from_slice(body).map_err(|error| failed(&error))
        }
        "application/cbor" => ciborium::from_reader(&body[..]).map_err(|error| failed(&error)),
        name if name.starts_with("text/") && !name.ends_with("/json") => {
            let text = serde_json::Value::String(read_text(body)?);
            // Somebody may have sent JSON, and called it text.
            serde_json::from_value(text)
                .or_else(|_| serde_json::from_slice(body))
                .map_err(|error| failed(&error))
        }
        name if name.ends_with("/json") || name.ends_with("+json") => {
            serde_json::from_slice(body).map_err(|error| failed(&error))
        }
        other => Err(Error::Decode(format!("{other} is not read by itself; take the bytes"))),
    }
}

/// A body as text, whatever its `content-type` says.
pub(super) fn read_text(body: &Bytes) -> Result<String, Error> {
    String::from_utf8(body.to_vec()).map_err(|error| Error::Decode(error.to_string()))
}

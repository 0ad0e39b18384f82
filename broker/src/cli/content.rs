//! What messages are to carry, as a shell says it: words, files and standard input.

use std::fs::File;
use std::io::Read;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tandem_client::wamp;

use crate::cli::failure::Failure;

/// The longest payload that is read from a file or from standard input.
pub(super) const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// How payloads are read.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Reading {
    /// Payloads are text or bytes as they are: what looks like JSON is not read as such.
    #[arg(long)]
    pub(super) raw: bool,
    /// What payloads are, for STOMP. By default application/json for what is JSON, text/plain for other text, and
    /// application/octet-stream for bytes.
    #[arg(long, value_name = "TYPE")]
    pub(super) content_type: Option<String>,
    /// One message for each line of standard input, as long as it lasts.
    #[arg(long)]
    pub(super) lines: bool,
}

/// A payload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Payload {
    bytes: Vec<u8>,
    /// What it is as JSON.
    json: Option<Value>,
}

impl Payload {
    /// A word of the command line: JSON or text, `@file`, `-` for standard input, `@@…` for what begins with an `@`.
    pub(super) fn read(word: &str, reading: &Reading) -> Result<Payload, Failure> {
        let bytes = match (word.strip_prefix('@'), word) {
            (Some(text), _) if text.starts_with('@') => text.as_bytes().to_vec(),
            (Some(path), _) => {
                let failed = |error| Failure::usage(format!("{path}: {error}"));
                bounded(&mut File::open(path).map_err(failed)?, path)?
            }
            (None, "-") => bounded(&mut std::io::stdin().lock(), "standard input")?,
            (None, word) => word.as_bytes().to_vec(),
        };
        Ok(Payload::new(bytes, reading))
    }

    pub(super) fn new(bytes: Vec<u8>, reading: &Reading) -> Payload {
        let json = (!reading.raw).then(|| serde_json::from_slice(&bytes).ok()).flatten();
        Payload { bytes, json }
    }

    fn text(&self) -> Option<&str> {
        str::from_utf8(&self.bytes).ok()
    }

    /// What it is in STOMP.
    pub(super) fn content_type<'a>(&self, reading: &'a Reading) -> &'a str {
        match (&reading.content_type, &self.json, self.text()) {
            (Some(said), _, _) => said,
            (None, Some(_), _) => "application/json",
            (None, None, Some(_)) => "text/plain",
            (None, None, None) => "application/octet-stream",
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// As an argument of WAMP: a value, a text, or bytes.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.json, self.text()) {
            (Some(value), _) => value.serialize(serializer),
            (None, Some(text)) => serializer.serialize_str(text),
            (None, None) => serializer.serialize_bytes(&self.bytes),
        }
    }
}

fn bounded(source: &mut impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let failed = |error| Failure::usage(format!("{name}: {error}"));
    source.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > PAYLOAD_BYTES_MAX {
        true => Err(Failure::usage(format!("{name} is longer than {PAYLOAD_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// Keyword arguments: an object of JSON, and single ones.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Keywords {
    /// Keyword arguments, as an object of JSON; or @file, or - for standard input.
    #[arg(long, value_name = "JSON")]
    kwargs: Option<String>,
    /// A keyword argument; may be repeated.
    #[arg(short = 'k', long = "kwarg", value_name = "NAME=VALUE")]
    kwarg: Vec<String>,
}

impl Keywords {
    pub(super) fn read(&self, reading: &Reading) -> Result<Map<String, Value>, Failure> {
        let mut all = match &self.kwargs {
            None => Map::new(),
            Some(word) => match Payload::read(word, &Reading::default())?.json {
                Some(Value::Object(all)) => all,
                _ => return Err(Failure::usage("--kwargs: keyword arguments are an object of JSON")),
            },
        };
        for pair in &self.kwarg {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("--kwarg {pair}: there is no = in it")))?;
            let value = Payload::read(value, reading)?;
            let text = || value.text().map(Value::from);
            let value = value.json.clone().or_else(text);
            let value = value
                .ok_or_else(|| Failure::usage(format!("--kwarg {name}: bytes are no keyword argument")))?;
            all.insert(name.to_owned(), value);
        }
        Ok(all)
    }
}

/// An option of WAMP, as it is written: a name, and JSON or text.
pub(super) fn option(pair: &str) -> Result<(String, wamp::Value), String> {
    let (name, value) = pair.split_once('=').ok_or("there is no = in it")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), of_json(value)))
}

fn of_json(value: Value) -> wamp::Value {
    match value {
        Value::Null => wamp::Value::Null,
        Value::Bool(value) => wamp::Value::Bool(value),
        Value::Number(number) => {
            let integer = number.as_u64().map(i128::from).or(number.as_i64().map(i128::from));
            let float = || wamp::Value::Float(number.as_f64().unwrap_or_default());
            integer.map_or_else(float, wamp::Value::Int)
        }
        Value::String(text) => wamp::Value::Str(text),
        Value::Array(values) => wamp::Value::List(values.into_iter().map(of_json).collect()),
        Value::Object(entries) => {
            let mut dict = wamp::Dict::new();
            for (key, value) in entries {
                dict.insert(key, of_json(value));
            }
            wamp::Value::Dict(dict)
        }
    }
}

/// A header of STOMP, as it is written.
pub(super) fn header(pair: &str) -> Result<(String, String), String> {
    let (name, value) = pair.split_once(':').ok_or("there is no : in it")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_is_a_value_and_everything_else_is_text() {
        let reading = Reading::default();
        let json = |word: &str| serde_json::to_value(Payload::read(word, &reading).unwrap()).unwrap();
        assert_eq!(json("5"), 5);
        assert_eq!(json("{\"a\": [1]}"), serde_json::json!({"a": [1]}));
        assert_eq!(json("hello"), "hello");
        assert_eq!(json("007"), "007");
        assert_eq!(json("@@peter"), "@peter");
        let raw = Reading { raw: true, ..Reading::default() };
        assert_eq!(serde_json::to_value(Payload::read("5", &raw).unwrap()).unwrap(), "5");
    }

    #[test]
    fn a_payload_is_called_what_it_is() {
        let reading = Reading::default();
        let kind = |bytes: &[u8]| Payload::new(bytes.to_vec(), &reading).content_type(&reading).to_owned();
        assert_eq!(kind(b"{}"), "application/json");
        assert_eq!(kind(b"{"), "text/plain");
        assert_eq!(kind(b"\xff"), "application/octet-stream");
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let error = bounded(&mut std::io::repeat(b'x'), "it").unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}

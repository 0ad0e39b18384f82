//! What a verb says: lines for people, or lines of JSON for programs; and remarks, which are no output.

use std::io::{IsTerminal, Write};

use serde_json::{Map, Value, json};

use crate::cli::carried;
use crate::cli::failure::{Code, Failure};

/// How to say it.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Output {
    /// Write one object of JSON for each event, message, result and error, one on a line.
    #[arg(long)]
    pub(super) json: bool,
    /// Say nothing but what was asked for, and what went wrong.
    #[arg(short, long)]
    quiet: bool,
}

/// How bright: names beside their payloads.
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// Whether a stream is a terminal that is to have colours: <https://no-color.org>.
pub(super) fn has_colours(stream: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl Output {
    /// One object of JSON, if that is wanted.
    pub(super) fn object(self, value: &Value) -> Result<(), Failure> {
        if self.json { line(value.to_string().as_bytes()) } else { Ok(()) }
    }

    /// An event, or a result: what it is called, what it carries, and what JSON says besides.
    pub(super) fn arguments(
        self,
        kind: &str,
        name: Option<&str>,
        payload: (Value, Value),
        more: Map<String, Value>,
    ) -> Result<(), Failure> {
        let (args, kwargs) = payload;
        if !self.json {
            return labelled(name, people(&args, &kwargs).as_bytes());
        }
        let mut object = json!({"kind": kind, "args": args, "kwargs": kwargs});
        if let Some(object) = object.as_object_mut() {
            object.extend(more);
        }
        self.object(&object)
    }

    /// A message of STOMP.
    pub(super) fn message(
        self,
        name: Option<&str>,
        headers: &tandem_client::stomp::Headers,
        body: &[u8],
        more: Map<String, Value>,
    ) -> Result<(), Failure> {
        if !self.json {
            return labelled(name, body);
        }
        let (key, value) = carried::body(headers, body);
        let get = |name| headers.get(name);
        let all: Map<String, Value> =
            headers.unique().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let mut object = json!({
            "kind": "message",
            "destination": get("destination"),
            "message_id": get("message-id"),
            "headers": all,
        });
        if let Some(object) = object.as_object_mut() {
            object.insert(key.to_owned(), value);
            object.extend(more);
        }
        self.object(&object)
    }

    /// Something that is not output: for people, on standard error.
    pub(super) fn remark(self, text: &str) {
        if !self.quiet {
            // Over the progress, if there is such a line.
            let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
            eprintln!("{clear}tandem: {text}");
        }
    }

    /// How far long work is: on a terminal only, on the same line each time.
    pub(super) fn progress(self, text: &str) {
        if !self.quiet && std::io::stderr().is_terminal() {
            // What cannot be shown is not missed.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }

    /// Says what went wrong, and gives its exit code.
    pub(super) fn failure(self, failure: &Failure) -> Code {
        if failure.code != Code::Quiet {
            // Nobody is left to tell that telling failed.
            let _ = self.object(&failure.to_json());
            let _ = writeln!(std::io::stderr(), "tandem: {failure}");
        }
        failure.code
    }
}

/// A payload for people: what is one value is that value, a text without its quotes.
fn people(args: &Value, kwargs: &Value) -> String {
    let has_kwargs = kwargs.as_object().is_some_and(|kwargs| !kwargs.is_empty());
    match (args.as_array().map(Vec::as_slice), has_kwargs) {
        (Some([]), true) => kwargs.to_string(),
        (Some([]) | None, _) => String::new(),
        (Some([Value::String(text)]), false) => text.clone(),
        (Some([value]), false) => value.to_string(),
        (Some(_), false) => args.to_string(),
        (Some(_), true) => json!({"args": args, "kwargs": kwargs}).to_string(),
    }
}

fn labelled(name: Option<&str>, payload: &[u8]) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    let shown = if is_terminal { shown(payload).into_bytes() } else { payload.to_vec() };
    let Some(name) = name else { return line(&shown) };
    let name = if is_terminal { self::shown(name.as_bytes()) } else { name.to_owned() };
    let (dim, reset) = if has_colours(&std::io::stdout()) { (DIM, RESET) } else { ("", "") };
    line(&[dim.as_bytes(), name.as_bytes(), reset.as_bytes(), b" ", &shown].concat())
}

/// As a terminal may have it: what others sent must not move its cursor, nor do worse.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '\n' | '\t' => text.push(c),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

/// One line of output, which is seen at once.
pub(super) fn line(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_shown_as_it_is_and_more_as_json() {
        let shown = |args: Value, kwargs: Value| people(&args, &kwargs);
        assert_eq!(shown(json!(["text"]), json!({})), "text");
        assert_eq!(shown(json!([{"a": 1}]), json!({})), "{\"a\":1}");
        assert_eq!(shown(json!([1, "two"]), json!({})), "[1,\"two\"]");
        assert_eq!(shown(json!([]), json!({"a": 1})), "{\"a\":1}");
        assert_eq!(shown(json!([]), json!({})), "");
        assert_eq!(shown(json!([1]), json!({"a": 1})), "{\"args\":[1],\"kwargs\":{\"a\":1}}");
    }

    #[test]
    fn a_terminal_is_not_controlled_by_what_others_sent() {
        assert_eq!(shown(b"a\x1b[2Jb\n\tc\x07"), "a\\u{1b}[2Jb\n\tc\\u{7}");
    }
}

//! SockJS's frames, and what clients send.
//!
//! ```text
//! to the client    o                        it is open
//!                  h                        a heart-beat
//!                  a["…","…"]               messages
//!                  c[code,"reason"]         it is closed
//! from the client  ["…","…"]  or  "…"       messages
//! ```
//!
//! Of what is legal in JSON, characters that browsers were seen to mangle are escaped (SockJS 0.3.3, "JSON Unicode
//! Encoding"). Surrogates that are no pair are no text here, and broken JSON.

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::core::message::Kind;
use crate::core::protocol::Reason;
use crate::front::longpoll::lane::put_framed;

/// It is open.
pub const OPEN: &str = "o";

/// A heart-beat.
pub const HEART_BEAT: &str = "h";

/// Somebody else receives.
pub const TAKEN: &str = "c[2010,\"Another connection still open\"]";

/// It is closed, and why.
pub fn close(reason: Option<Reason>) -> &'static str {
    match reason {
        None | Some(Reason::Done) => "c[3000,\"Go away!\"]",
        Some(Reason::Violation) => "c[1002,\"protocol error\"]",
        Some(Reason::TooBig) => "c[1009,\"too big\"]",
        Some(Reason::Refused) => "c[1008,\"refused\"]",
        Some(Reason::SlowConsumer) => "c[1013,\"too slow\"]",
        Some(Reason::Silent) => "c[4000,\"silent for too long\"]",
        Some(Reason::Shutdown) => "c[1001,\"shutting down\"]",
    }
}

// ---- to the client ---------------------------------------------------------------------------------------

/// A frame of messages that is being made.
#[derive(Debug)]
pub struct Messages(String);

impl Messages {
    /// One with nothing in it, for about so many bytes.
    pub fn with_capacity(bytes: usize) -> Messages {
        let mut text = String::with_capacity(bytes + bytes / 8 + 8);
        text.push_str("a[");
        Messages(text)
    }

    /// Begins a message.
    pub fn begin(&mut self) {
        self.0.push_str(if self.0.ends_with('[') { "\"" } else { ",\"" });
    }

    /// Puts a part of a message in. Bytes that are no text do not come here.
    pub fn put(&mut self, part: &[u8]) {
        escape(&String::from_utf8_lossy(part), &mut self.0);
    }

    /// Ends a message.
    pub fn end(&mut self) {
        self.0.push('"');
    }

    /// How long it is so far.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The frame.
    pub fn finish(mut self) -> String {
        self.0.push(']');
        self.0
    }
}

fn escape(text: &str, into: &mut String) {
    let mut done = 0;
    for (at, c) in text.char_indices() {
        let short = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\0'..='\u{1f}'
            | '\u{200c}'..='\u{200f}'
            | '\u{2028}'..='\u{202f}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff0}'..='\u{ffff}' => "",
            _ => continue,
        };
        into.push_str(&text[done..at]);
        into.push_str(short);
        if short.is_empty() {
            let _ = fmt::Write::write_fmt(into, format_args!("\\u{:04x}", u32::from(c)));
        }
        done = at + c.len_utf8();
    }
    into.push_str(&text[done..]);
}

// ---- from the client -------------------------------------------------------------------------------------

/// Why what a client sent is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Nothing is in it.
    Empty,
    /// It is not JSON, or something else than strings.
    Broken,
    /// A message in it is too long.
    TooLong,
}

/// Reads messages, all or none, and puts them together as they lie on a lane. Those with nothing in them are left
/// out: so the result is at most two and a half times as long as what was sent.
pub fn read(sent: &[u8], message_bytes_max: usize) -> Result<Bytes, Malformed> {
    if sent.is_empty() {
        return Err(Malformed::Empty);
    }
    let mut reader = Reader { framed: BytesMut::new(), message_bytes_max, too_long: false };
    let mut json = serde_json::Deserializer::from_slice(sent);
    let result = json.deserialize_any(&mut reader).and_then(|()| json.end());
    match result {
        Ok(()) => Ok(reader.framed.freeze()),
        Err(_) if reader.too_long => Err(Malformed::TooLong),
        Err(_) => Err(Malformed::Broken),
    }
}

struct Reader {
    framed: BytesMut,
    message_bytes_max: usize,
    too_long: bool,
}

/// A string, where it lies if nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for &mut Reader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strings")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if text.len() > self.message_bytes_max {
            self.too_long = true;
            return Err(E::custom("too long"));
        }
        if !text.is_empty() {
            put_framed(Kind::Text, text.as_bytes(), &mut self.framed);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while let Some(Text(text)) = sequence.next_element()? {
            self.visit_str(&text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::longpoll::lane::take_framed;

    fn framed(messages: &[&str]) -> String {
        let mut frame = Messages::with_capacity(0);
        for message in messages {
            frame.begin();
            frame.put(message.as_bytes());
            frame.end();
        }
        frame.finish()
    }

    fn texts(sent: &str) -> Result<Vec<String>, Malformed> {
        let mut framed = read(sent.as_bytes(), 10)?;
        let next = || take_framed(&mut framed).map(|(_, text)| String::from_utf8(text.into()).unwrap());
        Ok(std::iter::from_fn(next).collect())
    }

    #[test]
    fn messages_are_strings_in_an_array() {
        assert_eq!(framed(&[]), "a[]");
        assert_eq!(framed(&["x"]), r#"a["x"]"#);
        assert_eq!(framed(&["a\nb", "", "é \"c\" \\"]), r#"a["a\nb","","é \"c\" \\"]"#);
    }

    #[test]
    fn what_browsers_mangle_is_escaped_and_reads_the_same() {
        let is_escaped = |c: char| {
            let c = u32::from(c);
            let ranges = [(0, 0x1f), (0x200c, 0x200f), (0x2028, 0x202f), (0x2060, 0x206f), (0xfff0, 0xffff)];
            ranges.iter().any(|&(first, last)| (first..=last).contains(&c))
        };
        for c in ('\0'..='\u{ffff}').chain(['\u{10000}', '\u{1f600}', '\u{10ffff}']) {
            let text = format!("<{c}>");
            let frame = framed(&[&text]);
            assert_eq!(
                frame.contains(c) && !"\"\\".contains(c),
                !is_escaped(c) && !"\"\\".contains(c),
                "{c:?}"
            );
            let read: Vec<String> = serde_json::from_str(&frame[1..]).unwrap();
            assert_eq!(read, [text]);
        }
        assert_eq!(framed(&["\0\n\r\u{2028}\u{ffff}"]), r#"a["\u0000\n\r\u2028\uffff"]"#);
    }

    #[test]
    fn clients_send_an_array_of_strings_or_one() {
        assert_eq!(texts(r#"["a"]"#), Ok(vec!["a".into()]));
        assert_eq!(
            texts(r#" [ "a\u0000\u2028" , "" , "é😀" ] "#),
            Ok(vec!["a\0\u{2028}".into(), "é😀".into()])
        );
        assert_eq!(texts(r#""a""#), Ok(vec!["a".into()]));
        assert_eq!(texts(r#""😀""#), Ok(vec!["😀".into()]));
        assert_eq!(texts("[]"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_json_of_strings_is_refused_whole() {
        for broken in
            [r#"["a"#, r#"["a",]"#, r#"["a" "b"]"#, r#"["a"]x"#, "[1]", "null", "1", "{}", r#"[["a"]]"#]
        {
            assert_eq!(texts(broken), Err(Malformed::Broken), "{broken}");
        }
        assert_eq!(texts(r#"["\ud800"]"#), Err(Malformed::Broken), "a surrogate alone");
        assert_eq!(read(b"[\"\xff\"]", 10), Err(Malformed::Broken));
        assert_eq!(texts(""), Err(Malformed::Empty));
        assert_eq!(texts(r#"["a","0123456789"]"#).unwrap().len(), 2);
        assert_eq!(texts(r#"["a","0123456789x"]"#), Err(Malformed::TooLong));
    }

    #[test]
    fn what_was_read_is_at_most_two_and_a_half_times_as_long() {
        for sent in [
            r#"["a"#.to_owned() + &r#"","a"#.repeat(10_000) + "\"]",
            format!("[{}\"\"]", "\"\",".repeat(10_000)),
        ] {
            let framed = read(sent.as_bytes(), 10).unwrap();
            assert!(framed.len() * 2 <= sent.len() * 5, "{} of {}", framed.len(), sent.len());
        }
    }
}

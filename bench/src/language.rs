//! What is spoken to a broker: publications written, and deliveries read, with as little work as can be.
//!
//! Nothing is decoded that need not be: of what comes, it is only told what it is and where it ends. That the
//! payload in it is right is for [`payload`](crate::payload) to say.

use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use tandem_protocols::payload::Format;

use crate::payload::{Sealer, Stamp};

/// A language, and how its messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// WAMP in JSON.
    #[value(name = "wamp.2.json")]
    WampJson,
    /// WAMP in MessagePack.
    #[value(name = "wamp.2.msgpack")]
    WampMsgpack,
    /// WAMP in CBOR.
    #[value(name = "wamp.2.cbor")]
    WampCbor,
    /// STOMP 1.2.
    #[value(name = "stomp", alias = "v12.stomp")]
    Stomp,
    /// NATS.
    #[value(name = "nats")]
    Nats,
    /// MQTT 3.1.1, at most once.
    #[value(name = "mqtt")]
    Mqtt,
}

impl Language {
    /// The format of WAMP's messages, if this is WAMP.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::WampJson => Some(Format::Json),
            Self::WampMsgpack => Some(Format::MsgPack),
            Self::WampCbor => Some(Format::Cbor),
            Self::Stomp | Self::Nats | Self::Mqtt => None,
        }
    }

    /// The topic of that number, as this language names it. `unique` keeps runs apart.
    pub fn topic(self, unique: u32, number: usize) -> String {
        match self {
            Self::WampJson | Self::WampMsgpack | Self::WampCbor | Self::Nats => {
                format!("bench.t{unique:08x}.n{number}")
            }
            Self::Stomp => format!("/topic/bench.t{unique:08x}.n{number}"),
            Self::Mqtt => format!("bench/t{unique:08x}/n{number}"),
        }
    }
}

/// Writes the publications of one publisher to one topic.
#[derive(Debug)]
pub struct Publications {
    language: Language,
    topic: String,
    sender: u16,
    size: usize,
    head: Vec<u8>,
}

impl Publications {
    /// To this topic, as [`Language::topic`] names it, with payloads of `size` bytes.
    pub fn new(language: Language, topic: String, sender: u16, size: usize) -> Self {
        let head = match language {
            Language::Stomp => {
                format!("SEND\ndestination:{topic}\ncontent-type:text/plain\ncontent-length:{size}\n\n")
                    .into_bytes()
            }
            Language::Nats => format!("PUB {topic} {size}\r\n").into_bytes(),
            Language::Mqtt => mqtt_publish_head(&topic, size),
            Language::WampJson | Language::WampMsgpack | Language::WampCbor => Vec::new(),
        };
        Self { language, topic, sender, size, head }
    }

    /// Writes one to the end of `out`.
    pub fn put(&self, number: u64, due_ns: u64, sealer: &Sealer, out: &mut Vec<u8>) {
        let stamp = Stamp { sender: self.sender, number, due_ns };
        match self.language {
            Language::WampJson => {
                let _ = write!(out, "[16,{number},{{}},\"{}\",[\"", self.topic);
                sealer.seal(stamp, out);
                out.extend_from_slice(b"\"]]");
            }
            Language::WampMsgpack => {
                out.extend_from_slice(&[0x95, 16, 0xcf]);
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&[0x80, 0xd9, self.topic.len() as u8]);
                out.extend_from_slice(self.topic.as_bytes());
                out.extend_from_slice(&[0x91, 0xdb]);
                out.extend_from_slice(&(self.size as u32).to_be_bytes());
                sealer.seal(stamp, out);
            }
            Language::WampCbor => {
                out.extend_from_slice(&[0x85, 0x10, 0x1b]);
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&[0xa0, 0x78, self.topic.len() as u8]);
                out.extend_from_slice(self.topic.as_bytes());
                out.extend_from_slice(&[0x81, 0x7a]);
                out.extend_from_slice(&(self.size as u32).to_be_bytes());
                sealer.seal(stamp, out);
            }
            Language::Stomp => {
                out.extend_from_slice(&self.head);
                sealer.seal(stamp, out);
                out.push(0);
            }
            Language::Nats => {
                out.extend_from_slice(&self.head);
                sealer.seal(stamp, out);
                out.extend_from_slice(b"\r\n");
            }
            Language::Mqtt => {
                out.extend_from_slice(&self.head);
                sealer.seal(stamp, out);
            }
        }
    }
}

/// A piece of what a broker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A delivery, with all that is around its payload.
    Delivery(Bytes),
    /// Whether somebody is there; to be answered with this.
    Ping(&'static [u8]),
    /// Nothing of interest.
    Chatter,
    /// What should not come.
    Odd(Bytes),
}

/// Cuts what a broker sends.
///
/// On a WebSocket and a RawSocket each message of WAMP and STOMP is one of the wire's; the other languages, and
/// STOMP over TCP, are streams, whatever carries them.
#[derive(Debug)]
pub struct Ear {
    language: Language,
    is_stream: bool,
    rest: BytesMut,
    input: Bytes,
}

/// More than so many bytes are no message of this load generator's.
const HEARD_BYTES_MAX: usize = 32 << 20;

impl Ear {
    /// For a connection that keeps messages apart, or does not.
    pub fn new(language: Language, wire_has_messages: bool) -> Self {
        let is_stream = match language {
            Language::Nats | Language::Mqtt => true,
            Language::Stomp => !wire_has_messages,
            Language::WampJson | Language::WampMsgpack | Language::WampCbor => false,
        };
        Self { language, is_stream, rest: BytesMut::new(), input: Bytes::new() }
    }

    /// Takes what came. All that is in it is to be taken with [`next`](Self::next) before more is fed.
    pub fn feed(&mut self, bytes: Bytes) {
        if self.rest.is_empty() {
            self.input = bytes;
        } else {
            self.rest.extend_from_slice(&bytes);
            self.input = self.rest.split().freeze();
        }
    }

    /// The next piece; `None` once more must be fed.
    #[allow(clippy::should_implement_trait, reason = "it goes on after `None`")]
    pub fn next(&mut self) -> Option<Heard> {
        if self.input.is_empty() {
            return None;
        }
        if !self.is_stream {
            return Some(self.whole());
        }
        let cut = match self.language {
            Language::Nats => nats(&self.input),
            Language::Mqtt => mqtt(&self.input),
            _ => stomp(&self.input),
        };
        let Some((length, kind)) = cut else {
            if self.input.len() > HEARD_BYTES_MAX {
                return Some(Heard::Odd(std::mem::take(&mut self.input)));
            }
            self.rest.extend_from_slice(&self.input);
            self.input = Bytes::new();
            return None;
        };
        let piece = self.input.split_to(length);
        Some(match kind {
            Kind::Delivery => Heard::Delivery(piece),
            Kind::Ping(answer) => Heard::Ping(answer),
            Kind::Chatter => Heard::Chatter,
            Kind::Odd => Heard::Odd(piece),
        })
    }

    fn whole(&mut self) -> Heard {
        let message = std::mem::take(&mut self.input);
        let is_delivery = match self.language {
            Language::WampJson => message.starts_with(b"[36,"),
            // EVENT is 36: a small number in MessagePack, in CBOR one with a byte of its own. Both may be lists
            // of four to six.
            Language::WampMsgpack => message.get(1) == Some(&36),
            Language::WampCbor => message.get(1..3) == Some(&[0x18, 36]),
            _ => message.starts_with(b"MESSAGE\n") || message.starts_with(b"MESSAGE\r\n"),
        };
        if is_delivery {
            Heard::Delivery(message)
        } else if message.chunk().iter().all(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
            Heard::Chatter
        } else {
            Heard::Odd(message)
        }
    }
}

/// What a piece of a stream is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Delivery,
    Ping(&'static [u8]),
    Chatter,
    Odd,
}

/// A frame, whose body may hold no NUL: ours hold none.
fn stomp(input: &[u8]) -> Option<(usize, Kind)> {
    if matches!(input[0], b'\n' | b'\r' | 0) {
        return Some((1, Kind::Chatter));
    }
    let end = memchr(0, input)? + 1;
    Some((end, if input.starts_with(b"MESSAGE") { Kind::Delivery } else { Kind::Odd }))
}

fn nats(input: &[u8]) -> Option<(usize, Kind)> {
    let line = memchr(b'\n', input)? + 1;
    let words = &input[..line];
    if words.starts_with(b"MSG ") {
        let text = std::str::from_utf8(words).ok().and_then(|text| text.split_ascii_whitespace().next_back());
        let Some(length) = text.and_then(|length| length.parse::<usize>().ok()) else {
            return Some((line, Kind::Odd));
        };
        let end = line.checked_add(length)?.checked_add(2)?;
        return (input.len() >= end).then_some((end, Kind::Delivery));
    }
    let kind = match words {
        _ if words.starts_with(b"PING") => Kind::Ping(b"PONG\r\n"),
        _ if words.starts_with(b"-ERR") => Kind::Odd,
        _ => Kind::Chatter,
    };
    Some((line, kind))
}

/// A packet: its kind in the upper half of the first byte, then its length in up to four bytes of seven bits.
fn mqtt(input: &[u8]) -> Option<(usize, Kind)> {
    let mut length = 0;
    for (at, byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 != 0 {
            continue;
        }
        let end = 2 + at + length;
        let kind = match input[0] >> 4 {
            3 => Kind::Delivery,
            2 | 9 | 13 => Kind::Chatter,
            _ => Kind::Odd,
        };
        return (input.len() >= end).then_some((end, kind));
    }
    (input.len() >= 5).then_some((input.len(), Kind::Odd))
}

/// A PUBLISH up to its payload.
fn mqtt_publish_head(topic: &str, size: usize) -> Vec<u8> {
    let mut head = vec![0x30];
    mqtt_length(2 + topic.len() + size, &mut head);
    mqtt_text(topic, &mut head);
    head
}

/// A text as MQTT writes it.
pub(crate) fn mqtt_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A length as MQTT writes it.
pub(crate) fn mqtt_length(mut length: usize, out: &mut Vec<u8>) {
    while length > 0x7f {
        out.push(length as u8 & 0x7f | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Filler;

    const STAMP: Stamp = Stamp { sender: 5, number: 70_000, due_ns: 8 };

    fn sealer() -> Sealer {
        Sealer::new(1, 300, Filler::Random)
    }

    fn publication(language: Language) -> Vec<u8> {
        let mut out = Vec::new();
        let publications = Publications::new(language, language.topic(1, 2), STAMP.sender, 300);
        publications.put(STAMP.number, STAMP.due_ns, &sealer(), &mut out);
        out
    }

    #[test]
    fn publications_of_wamp_are_what_the_codec_reads() {
        use tandem_protocols::wamp::codec::decode;
        use tandem_protocols::wamp::message::Message;
        for language in [Language::WampJson, Language::WampMsgpack, Language::WampCbor] {
            let format = language.format().unwrap();
            let bytes = Bytes::from(publication(language));
            let Ok(Message::Publish(publish)) = decode(format, &bytes) else { panic!("{language:?}") };
            assert_eq!(publish.topic, language.topic(1, 2));
            assert_eq!(sealer().open(&bytes), Ok(STAMP));
        }
    }

    /// What a broker would deliver, and what says so.
    fn delivered(language: Language) -> Vec<u8> {
        let mut payload = Vec::new();
        sealer().seal(STAMP, &mut payload);
        let text = String::from_utf8(payload).unwrap();
        match language {
            Language::Stomp => format!("MESSAGE\nmessage-id:1\n\n{text}\0\n").into_bytes(),
            Language::Nats => format!("PING\r\nMSG bench.t1.n2 1 300\r\n{text}\r\n").into_bytes(),
            _ => [&[0xd0, 0][..], &publication(Language::Mqtt)].concat(),
        }
    }

    #[test]
    fn streams_are_cut_right_wherever_they_arrive_in_pieces() {
        for language in [Language::Stomp, Language::Nats, Language::Mqtt] {
            let stream = [delivered(language), delivered(language)].concat();
            for size in [1, 7, 100, 10_000] {
                let mut ear = Ear::new(language, false);
                let mut stamps = Vec::new();
                for piece in stream.chunks(size) {
                    ear.feed(Bytes::copy_from_slice(piece));
                    while let Some(heard) = ear.next() {
                        match heard {
                            Heard::Delivery(message) => stamps.push(sealer().open(&message)),
                            Heard::Odd(what) => panic!("{what:?}"),
                            Heard::Ping(_) | Heard::Chatter => {}
                        }
                    }
                }
                assert_eq!(stamps, [Ok(STAMP), Ok(STAMP)], "{language:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_no_delivery_is_not_taken_for_one() {
        let heard = |language, message: &'static [u8]| {
            let mut ear = Ear::new(language, true);
            ear.feed(Bytes::from_static(message));
            ear.next()
        };
        let is_odd = |heard| matches!(heard, Some(Heard::Odd(_)));
        assert!(is_odd(heard(Language::WampJson, b"[8,32,1,{},\"wamp.error.x\"]")));
        assert!(is_odd(heard(Language::WampCbor, &[0x83, 0x03, 0xa0])));
        assert!(is_odd(heard(Language::Stomp, b"ERROR\n\n\0")));
        assert!(is_odd(heard(Language::Nats, b"-ERR 'no'\r\n")));
        assert!(is_odd(heard(Language::Mqtt, &[0xff, 0])));
        assert_eq!(heard(Language::Stomp, b"\n"), Some(Heard::Chatter));
        assert_eq!(heard(Language::Nats, b"PING\r\n"), Some(Heard::Ping(b"PONG\r\n")));
    }
}

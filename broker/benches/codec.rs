//! What it costs to read and write one message, of 128 bytes of payload where nothing else is said.
//!
//! `cargo bench -p tandem-broker --bench codec`
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use bytes::Bytes;

use tandem_protocols::payload::{Format, Limits, transcode};
use tandem_protocols::stomp::codec::{self as stomp, Encoder, Item};
use tandem_protocols::stomp::frame::{Command, Side, Version};
use tandem_protocols::wamp::codec::{decode, encode};
use tandem_protocols::websocket::deflate::{InflateLimits, WindowBits, compress, inflate};
use tandem_protocols::websocket::frame::{Header, Opcode, Role, mask, masked};
use tandem_protocols::websocket::message::{self as websocket, Decoder, Event};

use self::support::harness::{self, Meter, Step};
use self::support::text::words;

mod support {
    pub mod harness;
    pub mod text;
}

/// Frames that come in one read.
const BURST: usize = 64;

fn main() {
    let payload = "x".repeat(128);
    let publish = format!(r#"[16,1234,{{}},"com.example.topic",["{payload}"]]"#);
    let event = format!(r#"[36,77,1234567890123,{{}},["{payload}"]]"#);
    let call = format!(r#"[48,1234,{{}},"com.example.procedure",["{payload}"]]"#);
    let mut steps = Vec::new();
    for format in [Format::Json, Format::MsgPack, Format::Cbor] {
        for (name, message) in [("PUBLISH", &publish), ("EVENT", &event), ("CALL", &call)] {
            let bytes = transcode(Format::Json, format, message.as_bytes(), &Limits::DEFAULT).unwrap();
            steps.push(decode_wamp(name, format, bytes.clone()));
            steps.push(encode_wamp(name, format, bytes));
        }
    }
    steps.push(decode_send(&payload));
    steps.push(encode_message(payload.clone()));
    steps.push(decode_frames("decode and unmask WebSocket, 128 B", 128));
    steps.push(decode_frames("decode and unmask WebSocket, 16 KiB", 16 * 1024));
    steps.push(unmask(16 * 1024));
    steps.push(Step::plain("encode WebSocket header", || {
        let mut buffer = Vec::with_capacity(64);
        move || {
            buffer.clear();
            buffer.extend_from_slice(&Header::whole(Opcode::Text, 1234).encode());
            buffer.len()
        }
    }));
    steps.push(Step::plain("compress 1 KiB of words", || {
        let text = words(1024);
        move || compress(&text, WindowBits::MAX)
    }));
    steps.push(Step::plain("inflate 1 KiB of words", || {
        let text = words(1024);
        let compressed = compress(&text, WindowBits::MAX);
        let limits = InflateLimits { bytes_max: 64 * 1024, ratio_max: 100 };
        assert_eq!(inflate(&compressed, limits).unwrap(), text);
        move || inflate(&compressed, limits).unwrap()
    }));
    harness::run(&steps);
}

fn decode_wamp(name: &str, format: Format, bytes: Bytes) -> Step {
    Step::plain(format!("decode {name}, {format}"), move || {
        let bytes = bytes.clone();
        move || decode(format, &bytes).unwrap()
    })
}

fn encode_wamp(name: &str, format: Format, bytes: Bytes) -> Step {
    Step::plain(format!("encode {name}, {format}"), move || {
        let message = decode(format, &bytes).unwrap();
        assert_eq!(encode(format, &message).unwrap(), bytes);
        move || encode(format, &message).unwrap()
    })
}

fn decode_send(payload: &str) -> Step {
    let length = payload.len();
    let frame = format!(
        "SEND\ndestination:/topic/com.example.topic\ncontent-type:text/plain\ncontent-length:{length}\n\n{payload}\0"
    );
    let bytes = Bytes::from(frame);
    Step::plain("decode SEND, STOMP", move || {
        let mut decoder = stomp::Decoder::new(Side::Server, stomp::Limits::default());
        decoder.set_version(Version::V12);
        let bytes = bytes.clone();
        move || {
            let mut input = bytes.clone();
            let item = decoder.decode(&mut input).unwrap().unwrap();
            assert!(matches!(item, Item::Frame(_)));
            item
        }
    })
}

fn encode_message(payload: String) -> Step {
    Step::plain("encode MESSAGE, STOMP", move || {
        let payload = payload.clone();
        move || {
            let mut out = Vec::with_capacity(128 + payload.len());
            let mut encoder = Encoder::begin(&mut out, Version::V12, Command::Message);
            encoder.header("subscription", "1");
            encoder.header("message-id", "1234567890123");
            encoder.header("destination", "/topic/com.example.topic");
            encoder.header("content-type", "text/plain");
            encoder.finish(payload.as_bytes());
            out
        }
    })
}

/// Reads what a peer sent, as it lies in the buffer of a read. Unmasking writes there, so each round has a copy.
fn decode_frames(name: &str, length: usize) -> Step {
    Step::new(name, BURST as u64, move || {
        let frame = masked(Opcode::Text, &vec![b'x'; length], [1, 2, 3, 4]);
        let read = frame.repeat(BURST);
        let mut scratch = Vec::new();
        let mut decoder = Decoder::new(Role::Server, websocket::Limits::default(), None);
        move |meter: &mut Meter| {
            scratch.clone_from(&read);
            meter.measure(|| {
                let mut data = &mut scratch[..];
                for _ in 0..BURST {
                    let event = decoder.next(&mut data).unwrap();
                    assert!(matches!(event, Some(Event::Message { .. })));
                }
            });
        }
    })
}

fn unmask(length: usize) -> Step {
    Step::plain(format!("unmask {} KiB", length / 1024), move || {
        let mut data = vec![b'x'; length];
        move || {
            mask(&mut data, [1, 2, 3, 4], 0);
            data[0]
        }
    })
}

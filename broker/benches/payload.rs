//! What it costs to convert a payload for a receiver who reads another encoding than its sender wrote: readings of
//! devices, of 128 bytes, 1 KiB and 16 KiB as JSON.
//!
//! `cargo bench -p tandem-broker --bench payload`
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use tandem_protocols::payload::{Arguments, Content, Format, Limits, Payload, transcode};

use self::support::harness::{self, Step};
use self::support::text::records;

mod support {
    pub mod harness;
    pub mod text;
}

const SIZES: [(&str, usize); 3] = [("128 B", 128), ("1 KiB", 1024), ("16 KiB", 16 * 1024)];

const CONVERSIONS: [(Format, Format); 4] = [
    (Format::Json, Format::MsgPack),
    (Format::Json, Format::Cbor),
    (Format::MsgPack, Format::Json),
    (Format::Cbor, Format::Json),
];

fn main() {
    let mut steps = Vec::new();
    for (size, length) in SIZES {
        for (from, to) in CONVERSIONS {
            steps.push(Step::plain(format!("{from} to {to}, {size}"), move || {
                let json = records(length);
                let bytes = transcode(Format::Json, from, json.as_bytes(), &Limits::DEFAULT).unwrap();
                move || transcode(from, to, &bytes, &Limits::DEFAULT).unwrap()
            }));
        }
        // As a delivery does it: with what is kept of the conversion for other receivers.
        steps.push(Step::plain(format!("a payload's JSON as MessagePack, {size}"), move || {
            let arguments =
                Arguments { format: Format::Json, args: records(length).into(), kwargs: Default::default() };
            let content = Content::Arguments(arguments);
            move || {
                let payload = Payload::new(content.clone());
                assert!(payload.arguments(Format::MsgPack).is_ok());
                payload
            }
        }));
        steps.push(Step::plain(format!("a payload's JSON as a body, {size}"), move || {
            let arguments =
                Arguments { format: Format::Json, args: records(length).into(), kwargs: Default::default() };
            let content = Content::Arguments(arguments);
            move || {
                let payload = Payload::new(content.clone());
                assert!(payload.body().is_ok());
                payload
            }
        }));
    }
    harness::run(&steps);
}

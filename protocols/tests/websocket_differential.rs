//! Our decoder against tungstenite: the same octets, cut anywhere, must mean the same.
//!
//! The octets are sequences of frames, most of them legal, some mutated, from a seeded generator, so that a
//! failure can be repeated by its seed. Compared are the events before the end, and whether the end is a
//! refusal.
//!
//! Differences that are right:
//!
//! * A length that is not in its shortest form: tungstenite takes it, section 5.2 does not.
//! * When a refusal comes: we refuse text at its first impossible octet and a header at its first wrong
//!   octet; tungstenite waits for the frame. So where our refusal comes before the data ends, tungstenite
//!   may still be waiting, but must not have delivered more than we did.
//! * Close codes that may not be sent: tungstenite hands some over, with a code of its own in their place,
//!   and then closes; we refuse with 1002.
//! * The number of fragments: tungstenite has no limit; ours is out of reach here.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tandem_protocols::websocket::frame::{Header, Opcode, Role, Unit, close, close_payload};
use tandem_protocols::websocket::message::{Decoder, Event, Kind, Limits};
use tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const MESSAGE_BYTES_MAX: usize = 2000;

/// SplitMix64: small, seeded, and good enough to pick frames.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// What a reader made of the octets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    events: Vec<Event>,
    refused: bool,
}

/// Octets that arrive in pieces, and a place to write that forgets.
struct Wire<'a> {
    bytes: &'a [u8],
    sizes: Chance,
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = (1 + self.sizes.below(40)).min(self.bytes.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        Ok(count)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ours(role: Role, bytes: &[u8], sizes: &mut Chance) -> (Reading, Option<u16>) {
    let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
    let mut decoder = Decoder::new(role, limits, None);
    let mut events = Vec::new();
    let mut bytes = bytes.to_vec();
    let mut rest = &mut bytes[..];
    while !rest.is_empty() {
        let size = (1 + sizes.below(40)).min(rest.len());
        let (mut data, after) = rest.split_at_mut(size);
        rest = after;
        loop {
            match decoder.next(&mut data) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(violation) => return (Reading { events, refused: true }, Some(violation.code)),
            }
        }
    }
    (Reading { events, refused: false }, None)
}

fn theirs(role: Role, bytes: &[u8], sizes: Chance) -> Reading {
    let role = match role {
        Role::Server => TheirRole::Server,
        Role::Client => TheirRole::Client,
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(512);
    let mut socket = WebSocket::from_raw_socket(Wire { bytes, sizes }, role, Some(config));
    let mut events = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => events.push(event(message)),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Reading { events, refused: false };
            }
            // After the closing handshake; it is no refusal.
            Err(Error::ConnectionClosed) => return Reading { events, refused: false },
            Err(_) => return Reading { events, refused: true },
        }
        if matches!(events.last(), Some(Event::Close { .. })) {
            return Reading { events, refused: false };
        }
    }
}

fn event(message: Message) -> Event {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    match message {
        Message::Text(text) => Event::Message { kind: Kind::Text, payload: bytes(text.as_bytes()) },
        Message::Binary(binary) => Event::Message { kind: Kind::Binary, payload: bytes(&binary) },
        Message::Ping(payload) => Event::Ping(bytes(&payload)),
        Message::Pong(payload) => Event::Pong(bytes(&payload)),
        Message::Close(None) => Event::Close { code: None, reason: String::new() },
        Message::Close(Some(frame)) => {
            Event::Close { code: Some(frame.code.into()), reason: frame.reason.as_str().to_owned() }
        }
        Message::Frame(_) => panic!("reading gives no raw frames"),
    }
}

fn payload(chance: &mut Chance) -> Vec<u8> {
    let len = match chance.below(8) {
        0 => 0,
        1 => 120 + chance.below(12),
        2 => 1980 + chance.below(22),
        _ => chance.below(30),
    };
    match chance.below(6) {
        0 => (0..len).map(|_| chance.next() as u8).collect(),
        1 => {
            b"\xE2\x82\xAC\xF0\x9F\x98\x80".iter().copied().cycle().skip(chance.below(7)).take(len).collect()
        }
        _ => vec![b'a' + chance.below(26) as u8; len],
    }
}

/// A sequence of frames of which most are legal, so that a reader gets further than the first.
fn stream(role: Role, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut open = false;
    for _ in 0..=chance.below(8) {
        let payload = match chance.below(20) {
            0 => close_payload([1000, 1001, 1003, 1005, 2999, 3000, 4999][chance.below(7)], "bye").to_vec(),
            _ => payload(chance),
        };
        let in_order = !chance.one_in(15);
        let opcode = match chance.below(8) {
            0 => Opcode::Ping,
            1 => Opcode::Pong,
            2 if chance.one_in(3) => Opcode::Close,
            _ if open == in_order => Opcode::Continuation,
            3..6 => Opcode::Text,
            _ => Opcode::Binary,
        };
        let fin = opcode.is_control() && !chance.one_in(30) || chance.one_in(2);
        if !opcode.is_control() {
            open = !fin;
        }
        let payload = if opcode.is_control() && !chance.one_in(20) {
            payload[..payload.len().min(125)].to_vec()
        } else {
            payload
        };
        let mask = (role == Role::Server).then(|| (chance.next() as u32).to_ne_bytes());
        bytes.extend_from_slice(&Header { fin, mask, ..Header::whole(opcode, 0) }.with(&payload));
    }
    if chance.one_in(3) {
        let at = chance.below(bytes.len());
        bytes[at] = chance.next() as u8;
    }
    if chance.one_in(8) {
        bytes.truncate(chance.below(bytes.len()));
    }
    bytes
}

/// Whether a difference is one of those that the head of this file lists.
fn justified(bytes: &[u8], ours: &Reading, code: Option<u16>, theirs: &Reading) -> bool {
    if !ours.refused {
        return false;
    }
    let common = ours.events.len().min(theirs.events.len());
    if ours.events[..common] != theirs.events[..common] {
        return false;
    }
    let more = &theirs.events[common..];
    match more {
        // We refused earlier than they did, or they still wait for what they refuse.
        [] if ours.events.len() == common => !theirs.refused,
        [Event::Close { code: Some(close::PROTOCOL), reason }] if reason == "Protocol violation" => {
            code == Some(close::PROTOCOL)
        }
        // They took a length that is not in its shortest form, and went on from there.
        _ => code == Some(close::PROTOCOL) && has_long_length(bytes),
    }
}

/// Whether the octets have, anywhere, what could be a length in too long a form.
fn has_long_length(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|window| match window[1] & 0x7F {
        126 => window[2] == 0 && window[3] < 126,
        127 => window[2..4] == [0, 0],
        _ => false,
    })
}

#[test]
fn random_streams_mean_the_same_to_tungstenite() {
    let until = Instant::now() + Duration::from_secs(5);
    let (mut seed, mut agreed, mut refused) = (0, 0, 0);
    while Instant::now() < until {
        seed += 1;
        let role = if seed % 2 == 0 { Role::Server } else { Role::Client };
        let mut chance = Chance(seed);
        let bytes = stream(role, &mut chance);
        let (ours, code) = ours(role, &bytes, &mut chance);
        let theirs = theirs(role, &bytes, chance);
        if ours == theirs {
            agreed += 1;
            refused += u64::from(ours.refused);
            continue;
        }
        let right = justified(&bytes, &ours, code, &theirs);
        assert!(right, "seed {seed}: {bytes:x?}\nours {code:?} {ours:?}\ntheirs {theirs:?}");
    }
    println!("{seed} streams: {agreed} with the same outcome, {refused} of them refused");
    assert!(seed > 500, "the time was too short to mean anything");
    assert!(agreed * 10 > seed * 8, "most streams must not need an excuse: {agreed} of {seed}");
    assert!(refused > 0 && refused < agreed);
}

#[test]
fn noise_is_judged_without_a_panic_whatever_was_agreed() {
    use tandem_protocols::websocket::deflate::WindowBits;
    use tandem_protocols::websocket::extensions::{Agreement, Direction};

    let until = Instant::now() + Duration::from_secs(3);
    let mut seed = 0;
    while Instant::now() < until {
        seed += 1;
        let mut chance = Chance(seed << 20);
        let role = if chance.one_in(2) { Role::Server } else { Role::Client };
        let bits = WindowBits::new(9 + chance.below(7) as u8).expect("9 to 15");
        let direction = Direction { takeover: chance.one_in(2), bits };
        let unit = if chance.one_in(3) { Unit::Frame } else { Unit::Message };
        let agreement = Agreement { server: direction, client: direction, unit };
        let limits = Limits { message_bytes_max: 500, fragments_max: 5, inflate_ratio_max: 20 };
        let mut decoder = Decoder::new(role, limits, Some(&agreement));
        let mut bytes = stream(role, &mut chance);
        for octet in &mut bytes {
            match chance.below(60) {
                0 => *octet = chance.next() as u8,
                1 => *octet ^= 0x40,
                _ => {}
            }
        }
        while !bytes.is_empty() && !decoder.is_closed() {
            let mut piece: Vec<u8> = bytes.drain(..bytes.len().min(1 + chance.below(100))).collect();
            let mut data = &mut piece[..];
            while let Ok(Some(event)) = decoder.next(&mut data) {
                if let Event::Message { payload, .. } = event {
                    assert!(payload.len() <= 500);
                }
            }
            assert!(data.is_empty());
        }
        assert!(!(decoder.is_closed() && decoder.incomplete()));
    }
    assert!(seed > 500, "the time was too short to mean anything");
}

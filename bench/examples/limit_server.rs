//! What the kernel allows: a server that does for a fan-out the least that can be done.
//!
//! It is no broker. It takes the opening handshakes of the load generator, answers HELLO and SUBSCRIBE, or CONNECT and
//! SUBSCRIBE, and from then on sends the payload of each publication to everybody who subscribed to anything, in the
//! frames of one subscription. One thread, no tasks, no queues, no names, no limits: one system call says who is to be
//! read, one reads all that a publisher sent, and one for each subscriber writes all that came of it. What a broker
//! costs beyond this is its own doing.
//!
//! `cargo run --release -p tandem-bench --example limit_server -- 127.0.0.1:9090`, then `tandem bench fanout --url
//! ws://127.0.0.1:9090/`; `benches/peers/run.py` does both.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::Bytes;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::codec::{decode, encode, format_of};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{Goodbye, Message, Subscribed, Unsubscribed, Welcome};
use tandem_protocols::websocket::extensions::{Mode, Policy};
use tandem_protocols::websocket::frame::{Expect, Header, Opcode, Role, mask};
use tandem_protocols::websocket::handshake::{Field, Request, Rules, check};
use tandem_protocols::websocket::origin::OriginPolicy;

/// Read at once.
const READ_BYTES: usize = 64 * 1024;

/// What it is connected under.
const SUBPROTOCOLS: &[&str] = &["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor", "v12.stomp"];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Somebody who connected.
struct Peer {
    stream: TcpStream,
    /// WAMP's encoding, or STOMP.
    format: Option<Format>,
    is_open: bool,
    is_subscriber: bool,
    /// The beginning of a frame, or of the handshake.
    rest: Vec<u8>,
}

fn main() -> Outcome<()> {
    let address = std::env::args().nth(1).ok_or("give an address, such as 127.0.0.1:9090")?;
    let listener = TcpListener::bind(address)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(0), EventFlags::IN)?;
    let mut peers: HashMap<u64, Peer> = HashMap::new();
    let (mut last, mut scratch, mut output) = (0, vec![0; READ_BYTES], Vec::new());
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        for event in &events {
            let number = event.data.u64();
            if number == 0 {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                last += 1;
                epoll::add(&epoll, &stream, EventData::new_u64(last), EventFlags::IN)?;
                let peer =
                    Peer { stream, format: None, is_open: false, is_subscriber: false, rest: Vec::new() };
                peers.insert(last, peer);
                continue;
            }
            let Some(peer) = peers.get_mut(&number) else { continue };
            output.clear();
            match peer.read(&mut scratch, &mut output) {
                Ok(true) if output.is_empty() => {}
                Ok(true) => deliver(&mut peers, &output),
                // Whoever is wrong about something is gone: the load generator is not.
                Ok(false) | Err(_) => drop(peers.remove(&number)),
            }
        }
    }
}

/// Writes to everybody who subscribed. Who does not read is waited for: nobody here needs more.
fn deliver(peers: &mut HashMap<u64, Peer>, output: &[u8]) {
    peers.retain(|_, peer| !peer.is_subscriber || peer.stream.write_all(output).is_ok());
}

impl Peer {
    /// Reads once, and puts what is to be delivered at the end of `output`. False at the end of the stream.
    fn read(&mut self, scratch: &mut [u8], output: &mut Vec<u8>) -> Outcome<bool> {
        let length = self.stream.read(scratch)?;
        if length == 0 {
            return Ok(false);
        }
        if self.rest.is_empty() && self.is_open {
            let left = self.take_frames(&mut scratch[..length], output)?;
            self.rest.extend_from_slice(&scratch[length - left..length]);
        } else {
            self.rest.extend_from_slice(&scratch[..length]);
            let mut rest = std::mem::take(&mut self.rest);
            let left = match self.is_open {
                true => self.take_frames(&mut rest, output)?,
                false => self.shake_hands(&rest)?,
            };
            rest.drain(..rest.len() - left);
            self.rest = rest;
        }
        Ok(true)
    }

    /// How much is left of the request.
    fn shake_hands(&mut self, request: &[u8]) -> Outcome<usize> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(end) = parsed.parse(request)? else { return Ok(request.len()) };
        let headers: Vec<Field<'_>> = parsed.headers.iter().map(|field| (field.name, field.value)).collect();
        let request_ = Request { method: "GET", version: (1, 1), headers: &headers, forwarded_host: None };
        let origins = OriginPolicy::default();
        let rules = Rules {
            subprotocols: SUBPROTOCOLS,
            allow_no_subprotocol: false,
            compression: Policy { mode: Mode::Off, ..Policy::default() },
            plain_agents: &[],
            origins: &origins,
        };
        let accept = check(&request_, &rules).map_err(|rejection| format!("{rejection:?}"))?;
        self.format = accept.subprotocol.and_then(|index| format_of(SUBPROTOCOLS[index]));
        self.stream.write_all(accept.response.encode().as_bytes())?;
        self.is_open = true;
        Ok(request.len() - end)
    }

    /// How much is left of the input.
    fn take_frames(&mut self, mut input: &mut [u8], output: &mut Vec<u8>) -> Outcome<usize> {
        let expect = Expect { role: Role::Server, compression: None };
        while let Some((header, begin)) = Header::parse(expect, input)? {
            let end = begin + usize::try_from(header.len)?;
            if input.len() < end {
                break;
            }
            let (frame, rest) = input.split_at_mut(end);
            let payload = &mut frame[begin..];
            mask(payload, header.mask.unwrap_or_default(), 0);
            input = rest;
            match header.opcode {
                Opcode::Text | Opcode::Binary => self.take(payload, output)?,
                Opcode::Close => return Err("the peer closed".into()),
                _ => {}
            }
        }
        Ok(input.len())
    }

    fn take(&mut self, message: &[u8], output: &mut Vec<u8>) -> Outcome<()> {
        match self.format {
            Some(Format::Json) if message.starts_with(b"[16,") => {
                let payload = find(message, b"\",[").ok_or("no arguments")? + 2;
                let (head, payload) = (b"[36,1,1234567890123456,{},", &message[payload..]);
                put(Opcode::Text, &[head, payload], output);
            }
            Some(Format::MsgPack) if message.get(1) == Some(&16) => {
                // Type, a request of nine octets, no options, a topic with an octet for its length.
                let payload = 14 + usize::from(*message.get(13).ok_or("no topic")?);
                let head = [0x95, 36, 1, 0xcf, 0, 4, 0x62, 0xd5, 0x3c, 0x8a, 0xba, 0xc0, 0x80];
                put(Opcode::Binary, &[&head, message.get(payload..).ok_or("no arguments")?], output);
            }
            None if message.starts_with(b"SEND\n") => {
                let body = find(message, b"\n\n").ok_or("no body")?;
                let lines = find(message, b"\ndestination:").ok_or("no destination")?;
                let head = b"MESSAGE\nsubscription:1\nmessage-id:1234567890123456";
                put(Opcode::Text, &[head, &message[lines..body], &message[body..]], output);
            }
            Some(format) => self.answer(format, message)?,
            None => self.answer_stomp(message)?,
        }
        Ok(())
    }

    fn answer(&mut self, format: Format, message: &[u8]) -> Outcome<()> {
        let subscription = Id::new(1).ok_or("one is a number")?;
        let answer: Message = match decode(format, &Bytes::copy_from_slice(message))? {
            Message::Hello(_) => {
                let roles = Dict::new().with("broker", Dict::new());
                Welcome { session: subscription, details: Dict::new().with("roles", roles) }.into()
            }
            Message::Subscribe(subscribe) => {
                self.is_subscriber = true;
                Subscribed { request: subscribe.request, subscription }.into()
            }
            Message::Unsubscribe(unsubscribe) => {
                self.is_subscriber = false;
                Unsubscribed { request: Some(unsubscribe.request), details: None }.into()
            }
            Message::Goodbye(goodbye) => Goodbye { details: Dict::new(), reason: goodbye.reason }.into(),
            other => return Err(format!("{} is not for here", other.message_type().name()).into()),
        };
        let opcode = if format == Format::Json { Opcode::Text } else { Opcode::Binary };
        self.say(opcode, &encode(format, &answer)?)
    }

    fn answer_stomp(&mut self, frame: &[u8]) -> Outcome<()> {
        let text = std::str::from_utf8(frame)?;
        if text.starts_with("CONNECT") || text.starts_with("STOMP") {
            return self.say(Opcode::Text, b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0");
        }
        self.is_subscriber |= text.starts_with("SUBSCRIBE");
        let receipt = text.lines().find_map(|line| line.strip_prefix("receipt:"));
        match receipt {
            Some(receipt) => {
                self.say(Opcode::Text, format!("RECEIPT\nreceipt-id:{receipt}\n\n\0").as_bytes())
            }
            None => Ok(()),
        }
    }

    fn say(&mut self, opcode: Opcode, message: &[u8]) -> Outcome<()> {
        let mut frame = Vec::new();
        put(opcode, &[message], &mut frame);
        Ok(self.stream.write_all(&frame)?)
    }
}

/// Puts a message into a frame at the end of `output`.
fn put(opcode: Opcode, parts: &[&[u8]], output: &mut Vec<u8>) {
    let length = parts.iter().map(|part| part.len()).sum();
    output.extend_from_slice(&Header::whole(opcode, length).encode());
    parts.iter().for_each(|part| output.extend_from_slice(part));
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

//! The other end: a WebSocket server in memory, driven line by line by a test.

#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use tandem_client::Error;
use tandem_client::raw::dial::{WebSocketOptions, open_websocket};
use tandem_client::raw::transport::Transport;
use tandem_protocols::websocket::extensions::{Agreement, Policy};
use tandem_protocols::websocket::frame::{Header, Opcode, Role, Unit, close_payload, unmasked};
use tandem_protocols::websocket::handshake::{Request, Rules, check};
use tandem_protocols::websocket::message::{Decoder, Event, Kind, Limits};
use tandem_protocols::websocket::origin::OriginPolicy;

/// What a pipe holds before writing to it waits.
pub const PIPE_BYTES: usize = 64 * 1024;

pub const SUBPROTOCOLS: &[&str] = &["wamp.2.json", "wamp.2.cbor", "wamp.2.msgpack", "v12.stomp"];

pub struct Peer {
    pub stream: DuplexStream,
    pub agreement: Option<Agreement>,
    /// The request's header lines.
    pub request: Vec<(String, String)>,
    decoder: Decoder,
    events: VecDeque<Event>,
    /// Opcode and compression of every frame that arrived whole in one read.
    pub frames: Vec<Header>,
}

/// Both ends of a WebSocket.
pub async fn websocket(
    subprotocols: &[&str],
    options: &WebSocketOptions,
    compression: Policy,
) -> (Transport<DuplexStream>, Peer) {
    let (near, far) = duplex(PIPE_BYTES);
    let (transport, peer) = tokio::join!(
        open_websocket(near, "server.test", "/ws", subprotocols, options),
        Peer::accept(far, compression, b"")
    );
    (transport.unwrap(), peer)
}

/// A plain WebSocket for one subprotocol.
pub async fn plain(subprotocol: &str) -> (Transport<DuplexStream>, Peer) {
    websocket(&[subprotocol], &WebSocketOptions::default(), Policy::default()).await
}

/// What a client makes of a server that answers with these bytes.
pub async fn answered(answer: &[u8]) -> Result<Transport<DuplexStream>, Error> {
    let (near, mut far) = duplex(PIPE_BYTES);
    far.write_all(answer).await.unwrap();
    let options = WebSocketOptions::default();
    let opening = open_websocket(near, "server.test", "/", &["wamp.2.json"], &options);
    let (opened, ()) = tokio::join!(opening, async {
        read_head(&mut far).await;
        drop(far);
    });
    opened
}

async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

impl Peer {
    /// Answers the handshake, and sends `first` in the same write.
    pub async fn accept(mut stream: DuplexStream, compression: Policy, first: &[u8]) -> Self {
        let head = read_head(&mut stream).await;
        let mut lines = head.trim_end().lines();
        assert_eq!(lines.next().unwrap().split(' ').next(), Some("GET"));
        let request: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let headers: Vec<(&str, &[u8])> =
            request.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let rules = Rules {
            subprotocols: SUBPROTOCOLS,
            allow_no_subprotocol: true,
            compression,
            plain_agents: &[],
            origins: &OriginPolicy::default(),
        };
        let judged = Request { method: "GET", version: (1, 1), headers: &headers, forwarded_host: None };
        let accept = check(&judged, &rules).unwrap();
        let answer = [accept.response.encode().as_bytes(), first].concat();
        stream.write_all(&answer).await.unwrap();
        let decoder = Decoder::new(Role::Server, Limits::default(), accept.compression.as_ref());
        let agreement = accept.compression;
        Self { stream, agreement, request, decoder, events: VecDeque::new(), frames: Vec::new() }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub async fn text(&mut self, payload: &str) {
        self.write(&unmasked(Opcode::Text, payload.as_bytes())).await;
    }

    pub async fn binary(&mut self, payload: &[u8]) {
        self.write(&unmasked(Opcode::Binary, payload)).await;
    }

    pub async fn close(&mut self, code: u16, reason: &str) {
        self.write(&unmasked(Opcode::Close, &close_payload(code, reason))).await;
    }

    /// What the client says next; `None` at the end of the stream.
    pub async fn event(&mut self) -> Option<Event> {
        let mut scratch = vec![0; PIPE_BYTES];
        while self.events.is_empty() {
            let count = self.stream.read(&mut scratch).await.unwrap();
            if count == 0 {
                return None;
            }
            let mut data = &mut scratch[..count];
            self.frames.extend(frames(data));
            while let Some(event) = self.decoder.next(&mut data).unwrap() {
                self.events.push_back(event);
            }
        }
        self.events.pop_front()
    }

    pub async fn message(&mut self) -> (Kind, Bytes) {
        match self.event().await {
            Some(Event::Message { kind, payload }) => (kind, payload),
            other => panic!("{other:?}"),
        }
    }

    pub async fn expect_text(&mut self) -> String {
        let (kind, payload) = self.message().await;
        assert_eq!(kind, Kind::Text);
        String::from_utf8(payload.to_vec()).unwrap()
    }
}

fn frames(mut data: &[u8]) -> Vec<Header> {
    let expect =
        tandem_protocols::websocket::frame::Expect { role: Role::Server, compression: Some(Unit::Message) };
    let mut found = Vec::new();
    while let Ok(Some((header, at))) = Header::parse(expect, data) {
        let Some(rest) = data.get(at + header.len as usize..) else { break };
        found.push(header);
        data = rest;
    }
    found
}

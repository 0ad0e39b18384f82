//! WebSocket, the client's side: the opening handshake over HTTP/1.1, and messages as masked frames.

use std::fmt;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use tandem_protocols::websocket::deflate::{COMPRESS_BYTES_MIN, Deflater, compress};
use tandem_protocols::websocket::extensions::{Agreement, Direction, Mode, Policy};
use tandem_protocols::websocket::frame::{Header, Opcode, Role, close, close_payload, fragments, mask};
use tandem_protocols::websocket::handshake::{Field, Opening};
use tandem_protocols::websocket::message::{Decoder, Event, Limits};

use crate::error::Error;
use crate::message::{Arrivals, Closed, Kind, Message};

/// How to open a WebSocket, and how to use it.
#[derive(Clone)]
pub struct WebSocketOptions {
    /// Whether and how to compress. Off by default, so that a test or measurement asks for it.
    pub compression: Policy,
    /// Shorter messages are not compressed.
    pub compress_bytes_min: usize,
    /// Cuts longer messages into fragments of this size.
    pub fragment_bytes: Option<usize>,
    /// The value of `Host`; by default the peer's address.
    pub host: Option<String>,
    /// The origin to claim.
    pub origin: Option<String>,
    /// More headers. One that stands in the request already is sent twice.
    pub headers: Vec<(String, String)>,
    /// What the server may send.
    pub limits: Limits,
}

/// Shows of other headers only their names: one of them may be `Authorization`.
impl fmt::Debug for WebSocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compression, compress_bytes_min, fragment_bytes, host, origin, headers, limits } = self;
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("WebSocketOptions")
            .field("compression", compression)
            .field("compress_bytes_min", compress_bytes_min)
            .field("fragment_bytes", fragment_bytes)
            .field("host", host)
            .field("origin", origin)
            .field("headers", &names)
            .field("limits", limits)
            .finish()
    }
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            compression: Policy { mode: Mode::Off, ..Policy::default() },
            compress_bytes_min: COMPRESS_BYTES_MIN,
            fragment_bytes: None,
            host: None,
            origin: None,
            headers: Vec::new(),
            limits: Limits {
                message_bytes_max: 64 << 20,
                fragments_max: 1 << 16,
                inflate_ratio_max: 1 << 10,
            },
        }
    }
}

/// The longest head of an answer, and the most of a refusal's body that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The most headers of an answer.
const HEADERS_MAX: usize = 64;

/// What a server speaks when it switches protocols.
const SWITCHING_PROTOCOLS: u16 = 101;

/// The frames of one connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    decoder: Decoder,
    outgoing: Option<Outgoing>,
    compress_bytes_min: usize,
    pub(crate) fragment_bytes: Option<usize>,
    pub(crate) subprotocol: Option<String>,
    pub(crate) agreement: Option<Agreement>,
    /// A close frame was written.
    pub(crate) close_sent: bool,
}

/// How messages are compressed.
#[derive(Debug)]
enum Outgoing {
    Alone(Direction),
    WithContext(Box<Deflater>),
}

impl WebSocket {
    /// Shakes hands over a fresh stream. Gives also what was read beyond the answer.
    pub(crate) async fn open<S>(
        stream: &mut S,
        host: &str,
        path: &str,
        subprotocols: &[&str],
        options: &WebSocketOptions,
    ) -> Result<(Self, Vec<u8>), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let opening = Opening {
            host: options.host.as_deref().unwrap_or(host),
            nonce: rand::random(),
            subprotocols,
            compression: options.compression,
            origin: options.origin.as_deref(),
        };
        let mut request = format!("GET {path} HTTP/1.1\r\n");
        let own = opening.headers().into_iter().map(|(name, value)| (name.to_owned(), value));
        for (name, value) in own.chain(options.headers.iter().cloned()) {
            request.extend([&name, ": ", &value, "\r\n"]);
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;

        let (answer, rest) = Answer::read(stream).await?;
        if answer.status != SWITCHING_PROTOCOLS {
            return Err(answer.refusal(stream, rest).await);
        }
        let fields: Vec<Field<'_>> =
            answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let agreed = opening.check(answer.status, &fields)?;
        let outgoing = agreed.compression.map(|agreement| agreement.outgoing(Role::Client));
        let outgoing = outgoing.filter(|direction| direction.bits.compresses()).map(Outgoing::new);
        let socket = Self {
            decoder: Decoder::new(Role::Client, options.limits, agreed.compression.as_ref()),
            outgoing,
            compress_bytes_min: options.compress_bytes_min,
            fragment_bytes: options.fragment_bytes,
            subprotocol: agreed.subprotocol.map(|index| subprotocols[index].to_owned()),
            agreement: agreed.compression,
            close_sent: false,
        };
        Ok((socket, rest))
    }

    pub(crate) fn receive(&mut self, mut data: &mut [u8], arrivals: &mut Arrivals) -> Result<(), Error> {
        loop {
            match self.decoder.next(&mut data) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Message { kind, payload })) => {
                    arrivals.message(Message { kind, bytes: payload });
                }
                Ok(Some(Event::Ping(data))) => arrivals.ping(data),
                Ok(Some(Event::Pong(data))) => arrivals.pong(data),
                Ok(Some(Event::Close { code, reason })) => {
                    self.put_close(code.unwrap_or(close::NORMAL), "", &mut arrivals.output);
                    arrivals.closed = Some(Closed::Frame { code, reason });
                }
                // Answered when whoever uses this hears of it: what came before may still be answered.
                Err(violation) => return Err(violation.into()),
            }
        }
    }

    pub(crate) fn is_incomplete(&self) -> bool {
        self.decoder.incomplete()
    }

    /// Frames a message; compresses it where that was agreed on, and cuts it where the options say so.
    pub(crate) fn put(&mut self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
        let opcode = match kind {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        };
        let compressed = match &mut self.outgoing {
            Some(outgoing) if payload.len() >= self.compress_bytes_min => Some(outgoing.compress(payload)),
            Some(_) | None => None,
        };
        let payload = compressed.as_deref().unwrap_or(payload);
        let first = Header { compressed: compressed.is_some(), ..Header::whole(opcode, payload.len()) };
        match self.fragment_bytes {
            None => put_masked(first, payload, out),
            Some(size) => {
                for (header, range) in fragments(first, size) {
                    put_masked(header, &payload[range], out);
                }
            }
        }
    }

    /// Says goodbye, once.
    pub(crate) fn put_close(&mut self, code: u16, reason: &str, out: &mut Vec<u8>) {
        if !self.close_sent {
            self.close_sent = true;
            put_control(Opcode::Close, &close_payload(code, reason), out);
        }
    }
}

impl Outgoing {
    fn new(direction: Direction) -> Self {
        match direction.takeover {
            true => Self::WithContext(Box::new(Deflater::new(direction.bits))),
            false => Self::Alone(direction),
        }
    }

    fn compress(&mut self, payload: &[u8]) -> Bytes {
        match self {
            Self::Alone(direction) => compress(payload, direction.bits),
            Self::WithContext(deflater) => deflater.compress(payload),
        }
    }
}

/// A control frame.
pub(crate) fn put_control(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    put_masked(Header::whole(opcode, payload.len()), payload, out);
}

/// A frame with a fresh key.
fn put_masked(header: Header, payload: &[u8], out: &mut Vec<u8>) {
    put_frame(Header { mask: Some(rand::random()), ..header }, payload, out);
}

/// A frame exactly as its header says.
pub(crate) fn put_frame(header: Header, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header.encode());
    let begin = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = header.mask {
        mask(&mut out[begin..], key, 0);
    }
}

/// What the server answered.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Answer {
    /// Reads up to the empty line, and perhaps beyond.
    async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Self, Vec<u8>), Error> {
        let mut bytes = Vec::with_capacity(1024);
        loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(Error::Closed(Closed::Eof));
            }
            if let Some((answer, end)) = Self::parse(&bytes)? {
                return Ok((answer, bytes.split_off(end)));
            }
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Error::HeadTooLong);
            }
        }
    }

    /// The answer and where it ends; `None` asks for more.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = response.parse(bytes)? else { return Ok(None) };
        let text = |value| String::from_utf8_lossy(value).into_owned();
        let headers =
            response.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
        Ok(Some((Self { status: response.code.unwrap_or_default(), headers }, end)))
    }

    /// Reads the body, as far as it comes, for whoever wants to know why.
    async fn refusal<S: AsyncRead + Unpin>(self, stream: &mut S, mut body: Vec<u8>) -> Error {
        let length = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(ANSWER_BYTES_MAX);
        let length = length.min(ANSWER_BYTES_MAX);
        // Whatever keeps the body from coming, the refusal is the news.
        while body.len() < length && stream.read_buf(&mut body).await.is_ok_and(|count| count > 0) {}
        body.truncate(length);
        Error::Refused { status: self.status, headers: self.headers, body: body.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_says_is_not_shown() {
        let headers = vec![("Authorization".to_owned(), "Bearer secret".to_owned())];
        let shown = format!("{:?}", WebSocketOptions { headers, ..WebSocketOptions::default() });
        assert!(shown.contains("Authorization") && !shown.contains("secret"), "{shown}");
    }
}

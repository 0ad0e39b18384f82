//! HTTP/1.1 by hand, and a client of the long-poll transport over it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::broker::soon;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A connection that carries one request after the other.
#[derive(Debug)]
pub struct Http {
    stream: TcpStream,
    address: SocketAddr,
    unread: Vec<u8>,
}

impl Http {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Http {
        Http { stream: TcpStream::connect(address).await.unwrap(), address, unread: Vec::new() }
    }

    /// Sends a request; the answer is still to be read.
    pub async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len()
        );
        self.write(&[head.as_bytes(), body].concat()).await;
    }

    /// Sends any bytes, as far as they are taken.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads the head of an answer whose body comes in chunks; none if the connection ends before.
    pub async fn head(&mut self) -> Option<Answer> {
        soon("the head of an answer", async {
            let head = self.until(b"\r\n\r\n").await?;
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            Some(Answer { status, head, body: Vec::new() })
        })
        .await
    }

    /// Reads the next chunk of a body; none at its end.
    pub async fn chunk(&mut self) -> Option<String> {
        soon("a chunk", async {
            let length = self.until(b"\r\n").await.expect("a chunk's length");
            let length = usize::from_str_radix(length.trim_end(), 16).unwrap();
            while self.unread.len() < length + 2 {
                self.read().await.expect("the rest of the chunk");
            }
            let chunk = self.unread.drain(..length).collect();
            self.unread.drain(..2);
            (length > 0).then(|| String::from_utf8(chunk).unwrap())
        })
        .await
    }

    async fn until(&mut self, end: &[u8]) -> Option<String> {
        let length = loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                break at + end.len();
            }
            self.read().await?;
        };
        Some(String::from_utf8(self.unread.drain(..length).collect()).unwrap())
    }

    /// Reads an answer; none if the connection ends before.
    pub async fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head().await?;
        soon("a body", async {
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            while self.unread.len() < length {
                self.read().await?;
            }
            answer.body = self.unread.drain(..length).collect();
            Some(answer)
        })
        .await
    }

    /// True when the broker closes without another word.
    pub async fn is_closed(&mut self) -> bool {
        soon("the end", self.read()).await.is_none()
    }

    async fn read(&mut self) -> Option<()> {
        let mut piece = [0; 16 * 1024];
        let length = self.stream.read(&mut piece).await.unwrap_or(0);
        self.unread.extend_from_slice(&piece[..length]);
        (length > 0).then_some(())
    }
}

/// Asks once, on a connection of its own.
pub async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut http = Http::connect(address).await;
    http.ask(method, path, headers, body).await;
    http.answer().await.expect("an answer")
}

/// A client of the long-poll transport.
#[derive(Debug)]
pub struct Poller {
    /// The connection for what is received.
    pub receiving: Http,
    /// The connection for the rest.
    pub sending: Http,
    /// The path of the transport.
    pub path: String,
}

impl Poller {
    /// Opens a transport.
    pub async fn open(address: SocketAddr, protocol: &str) -> Poller {
        let mut sending = Http::connect(address).await;
        let body = json!({ "protocols": [protocol] }).to_string();
        sending.ask("POST", "/lp/open", "Content-Type: application/json\r\n", body.as_bytes()).await;
        let answer = sending.answer().await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let opened: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(opened["protocol"], protocol);
        let path = format!("/lp/{}", opened["transport"].as_str().unwrap());
        Poller { receiving: Http::connect(address).await, sending, path }
    }

    /// A WAMP session in JSON, anonymous.
    pub async fn join(address: SocketAddr) -> Poller {
        let mut poller = Poller::open(address, "wamp.2.json").await;
        let roles = json!({"publisher": {}, "subscriber": {}, "caller": {}, "callee": {}});
        assert_eq!(poller.say(json!([1, "realm1", { "roles": roles }])).await, 204);
        assert_eq!(poller.hear().await[0], 2, "WELCOME");
        poller
    }

    /// Asks for something of the transport on the connection for what is sent.
    pub async fn post(&mut self, verb: &str, body: &[u8]) -> Answer {
        let path = format!("{}/{verb}", self.path);
        self.sending.ask("POST", &path, "", body).await;
        self.sending.answer().await.expect("an answer")
    }

    /// Asks for the health of the broker, some times: it has met what was there before.
    pub async fn be_answered(&mut self) {
        for _ in 0..3 {
            self.sending.ask("GET", "/health", "", b"").await;
            assert_eq!(self.sending.answer().await.expect("an answer").status, 200);
        }
    }

    /// Sends a message; gives the status.
    pub async fn send(&mut self, message: &[u8]) -> u16 {
        self.post("send", message).await.status
    }

    /// Sends a message of WAMP in JSON.
    pub async fn say(&mut self, message: Value) -> u16 {
        self.send(message.to_string().as_bytes()).await
    }

    /// Asks for the next message.
    pub async fn poll(&mut self) {
        let path = format!("{}/receive", self.path);
        self.receiving.ask("POST", &path, "", b"").await;
    }

    /// Asks for the next message, and waits for what comes of it.
    pub async fn receive(&mut self) -> Answer {
        self.poll().await;
        self.receiving.answer().await.expect("an answer")
    }

    /// The next message of WAMP in JSON.
    pub async fn hear(&mut self) -> Value {
        loop {
            let answer = self.receive().await;
            match answer.status {
                204 => {}
                200 => return serde_json::from_slice(&answer.body).unwrap(),
                _ => panic!("{answer:?}"),
            }
        }
    }
}

//! A STOMP server in memory, driven line by line by a test, to which a client connects as often as it likes.

#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::Instant;

use tandem_client::Error;
use tandem_client::raw::dial::open_tcp;
use tandem_client::stomp::{Builder, Client, Dial, Dialling, Version};
use tandem_client::wire::{ByteStream, Wire};

/// What a pipe holds before writing to it waits.
pub const PIPE_BYTES: usize = 64 * 1024;

/// How many connections wait for the test.
const ACCEPTED_MAX: usize = 16;

/// Where the client dials.
#[derive(Clone)]
pub struct Line {
    accepted: mpsc::Sender<DuplexStream>,
    /// So many more attempts fail.
    down: Arc<AtomicUsize>,
    dialled: Arc<std::sync::Mutex<Vec<Instant>>>,
    pipe_bytes: usize,
}

/// Where the test waits for connections.
pub struct Listener {
    accepted: mpsc::Receiver<DuplexStream>,
    pub line: Line,
}

/// One connection, at the server's end.
pub struct Server(pub DuplexStream);

impl Dial for Line {
    fn dial<'a>(&'a self, _: &'a [Version]) -> Dialling<'a> {
        Box::pin(async {
            self.dialled.lock().unwrap().push(Instant::now());
            let down = self.down.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if down.is_ok() {
                return Err(Error::Io(std::io::ErrorKind::ConnectionRefused.into()));
            }
            let (near, far) = duplex(self.pipe_bytes);
            self.accepted.send(far).await.expect("the test listens");
            let near: Box<dyn ByteStream> = Box::new(near);
            Ok((Wire::new(open_tcp(near)), None))
        })
    }
}

impl Listener {
    pub fn new() -> Listener {
        Listener::with_pipe(PIPE_BYTES)
    }

    /// One whose connections hold less before writing to them waits.
    pub fn with_pipe(pipe_bytes: usize) -> Listener {
        let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
        let line = Line { accepted: sender, down: Arc::default(), dialled: Arc::default(), pipe_bytes };
        Listener { accepted, line }
    }

    pub fn builder(&self) -> Builder {
        Client::builder_on(self.line.clone())
    }

    /// So many more attempts to connect fail.
    pub fn set_down(&self, attempts: usize) {
        self.line.down.store(attempts, Ordering::SeqCst);
    }

    /// When there were attempts to connect.
    pub fn dialled(&self) -> Vec<Instant> {
        self.line.dialled.lock().unwrap().clone()
    }

    /// The next connection, and what it begins with.
    pub async fn accept(&mut self) -> (Server, String) {
        let mut server = Server(self.accepted.recv().await.expect("somebody dials"));
        let connect = server.frame().await;
        (server, connect)
    }

    /// The next connection, which is answered with CONNECTED in 1.2, and with these heart-beats.
    pub async fn connect(&mut self, heart_beat: &str) -> Server {
        let (mut server, _) = self.accept().await;
        server.send(&format!("CONNECTED\nversion:1.2\nheart-beat:{heart_beat}\nserver:scripted/1\n\n")).await;
        server
    }

    /// A client without heart-beats, and the server's end of its first connection.
    pub async fn client(&mut self) -> (Client, Server) {
        self.client_of(self.builder()).await
    }

    /// A client that is made like this, and the server's end of its first connection.
    pub async fn client_of(&mut self, builder: Builder) -> (Client, Server) {
        let (client, server) = tokio::join!(builder.connect(), self.connect("0,0"));
        (client.unwrap(), server)
    }
}

impl Server {
    /// The next frame as text, without its NUL and without heart-beats before it.
    pub async fn frame(&mut self) -> String {
        let mut frame = Vec::new();
        loop {
            match self.0.read_u8().await.unwrap() {
                0 => return String::from_utf8(frame).unwrap(),
                b'\n' if frame.is_empty() => {}
                octet => frame.push(octet),
            }
        }
    }

    /// Whether the client has ended the connection; what it said before is passed over.
    pub async fn is_over(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.is_ok()
    }

    pub async fn send(&mut self, frame: &str) {
        self.0.write_all(frame.as_bytes()).await.unwrap();
        self.0.write_u8(0).await.unwrap();
    }

    /// A MESSAGE for this subscription, with an `ack` header that is its id.
    pub async fn message(&mut self, subscription: &str, id: &str, body: &str) {
        let headers = format!("subscription:{subscription}\nmessage-id:{id}\nack:{id}\ndestination:/x");
        self.send(&format!("MESSAGE\n{headers}\n\n{body}")).await;
    }

    /// The next frame, which is to begin like this, and is answered with the RECEIPT that it asks for.
    pub async fn expect(&mut self, beginning: &str) -> String {
        let frame = self.frame().await;
        assert!(frame.starts_with(beginning), "{frame}");
        if let Some(receipt) = header(&frame, "receipt") {
            self.send(&format!("RECEIPT\nreceipt-id:{receipt}\n\n")).await;
        }
        frame
    }
}

/// A header of a frame.
pub fn header<'a>(frame: &'a str, name: &str) -> Option<&'a str> {
    let lines = frame.lines().take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split_once(':')).find(|header| header.0 == name).map(|header| header.1)
}

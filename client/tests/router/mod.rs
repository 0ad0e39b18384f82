//! A router in memory, driven line by line by a test, to which a client connects as often as it likes. It speaks JSON
//! over RawSocket.

#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::Instant;

use tandem_client::doorway::ByteStream;
use tandem_client::wamp::{Builder, Client, Format};
use tandem_client::{Connector, Doorway, Error};

/// What a pipe holds before writing to it waits.
const PIPE_BYTES: usize = 64 * 1024;

/// How many connections wait for the test.
const ACCEPTED_MAX: usize = 16;

#[derive(Debug)]
struct Door {
    accepted: mpsc::Sender<DuplexStream>,
    down: AtomicUsize,
    opened: std::sync::Mutex<Vec<Instant>>,
}

impl Doorway for Door {
    fn open(&self) -> Result<Box<dyn ByteStream>, Error> {
        self.opened.lock().unwrap().push(Instant::now());
        let is_down = self.down.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if is_down.is_ok() {
            return Err(Error::Io(std::io::ErrorKind::ConnectionRefused.into()));
        }
        let (near, far) = duplex(PIPE_BYTES);
        self.accepted.try_send(far).expect("the test accepts");
        Ok(Box::new(near))
    }
}

/// The router.
pub struct Router {
    door: Arc<Door>,
    accepted: mpsc::Receiver<DuplexStream>,
    /// How long messages may be: 2^(9+n) bytes.
    limit: u8,
}

/// One connection to it.
pub struct Peer {
    stream: DuplexStream,
}

impl Router {
    pub fn new() -> Router {
        let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
        let door = Door { accepted: sender, down: AtomicUsize::new(0), opened: std::sync::Mutex::default() };
        Router { door: Arc::new(door), accepted, limit: 15 }
    }

    pub fn builder(&self) -> Builder {
        let connector = Connector::in_process(self.door.clone()).keep_alive(None);
        Client::builder_on(connector).serializers([Format::Json])
    }

    /// So many more attempts to connect fail.
    pub fn set_down(&self, attempts: usize) {
        self.door.down.store(attempts, Ordering::SeqCst);
    }

    /// Takes messages of 4096 bytes, and no longer ones.
    pub fn set_short(&mut self) {
        self.limit = 3;
    }

    /// When there were attempts to connect.
    pub fn opened(&self) -> Vec<Instant> {
        self.door.opened.lock().unwrap().clone()
    }

    /// The next connection, as far as HELLO, which is given.
    pub async fn accept(&mut self) -> (Peer, Value) {
        let stream = self.accepted.recv().await.unwrap();
        let mut peer = Peer { stream };
        let mut asked = [0; 4];
        peer.stream.read_exact(&mut asked).await.unwrap();
        peer.stream.write_all(&[0x7f, self.limit << 4 | 1, 0, 0]).await.unwrap();
        let hello = peer.hear().await;
        assert_eq!(hello[0], 1);
        (peer, hello)
    }

    /// The next connection, that is let in as session 7.
    pub async fn welcome(&mut self) -> Peer {
        let (mut peer, _) = self.accept().await;
        peer.say(r#"[2,7,{"realm":"realm1","roles":{}}]"#).await;
        peer
    }

    /// A client that is let in.
    pub async fn client(&mut self, builder: Builder) -> (Client, Peer) {
        let (client, peer) = tokio::join!(builder.connect(), self.welcome());
        (client.unwrap(), peer)
    }
}

impl Peer {
    pub async fn say(&mut self, message: &str) {
        let len = u32::try_from(message.len()).unwrap();
        self.stream.write_all(&len.to_be_bytes()).await.unwrap();
        self.stream.write_all(message.as_bytes()).await.unwrap();
    }

    pub async fn hear(&mut self) -> Value {
        let message = self.next().await.expect("it is open");
        serde_json::from_str(&message).unwrap()
    }

    /// The next message as it is written; `None` at the end.
    pub async fn next(&mut self) -> Option<String> {
        let len = self.stream.read_u32().await.ok()?;
        let mut message = vec![0; len as usize];
        self.stream.read_exact(&mut message).await.ok()?;
        Some(String::from_utf8(message).unwrap())
    }

    pub async fn expect(&mut self, message: &str) {
        assert_eq!(self.next().await.as_deref(), Some(message));
    }

    /// Answers GOODBYE, and waits for the end.
    pub async fn part(&mut self) {
        self.expect(r#"[6,{},"wamp.close.normal"]"#).await;
        self.say(r#"[6,{},"wamp.close.goodbye_and_out"]"#).await;
        assert_eq!(self.next().await, None);
        self.stream.shutdown().await.unwrap();
    }
}

//! Unix sockets: everything that is spoken at a port, a file whose mode says who may connect, and which is there
//! as long as somebody listens.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use tandem_broker::config::Config;
use tandem_broker::server::{Server, StartError};
use tandem_client::raw::dial::{WebSocketOptions, open_rawsocket, open_tcp, open_websocket};
use tandem_client::raw::stomp::{AckMode, Client as Stomp, ConnectOptions};
use tandem_client::raw::wamp::{Client as Wamp, Login, MatchPolicy};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::rawsocket::Limit;
use tandem_tests::broker::{Broker, eventually, soon};
use tandem_tests::daemon::Daemon;

/// A folder for sockets, which goes with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tandem-unix-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(path: &Path) -> Config {
    Config::parse(&format!("listen_unix = [{path:?}]\n")).unwrap()
}

fn start(path: &Path) -> Server {
    Server::start(&config(path)).unwrap()
}

fn refusal(path: &Path) -> String {
    match Server::start(&config(path)) {
        Err(error @ StartError::BindUnix { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it starts"),
    }
}

async fn connect(path: &Path) -> UnixStream {
    UnixStream::connect(path).await.unwrap()
}

#[tokio::test]
async fn all_languages_and_framings_are_told_apart_and_meet() {
    let folder = Folder::new();
    let path = folder.socket();
    let server = start(&path);
    assert!(server.addresses().is_empty(), "a Unix socket alone opens no port");
    let raw = open_rawsocket(connect(&path).await, Format::Cbor, Limit::MAX).await.unwrap();
    let mut raw = Wamp::join(raw, Format::Cbor, "realm1", &Login::Anonymous).await.unwrap();
    let options = WebSocketOptions::default();
    let web =
        open_websocket(connect(&path).await, "localhost", "/", &["wamp.2.json"], &options).await.unwrap();
    let mut web = Wamp::join(web, Format::Json, "realm1", &Login::Anonymous).await.unwrap();
    let plain = open_tcp(connect(&path).await);
    let mut plain = Stomp::connect(plain, Version::V12, &ConnectOptions::default()).await.unwrap();
    web.subscribe("a.b", MatchPolicy::Exact).await.unwrap();
    plain.subscribe("/topic/a.b", "0", AckMode::Auto, &[]).await.unwrap();
    let args = raw.args(&("x",)).unwrap();
    raw.publish("a.b", Dict::new(), args).await.unwrap();
    raw.flush().await.unwrap();
    assert_eq!(soon("a message", plain.next_message()).await.unwrap().body, "x");
    soon("an event", web.next_event()).await.unwrap();

    let mut health = connect(&path).await;
    health.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    soon("a page", health.read_to_string(&mut page)).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    drop((raw, web, plain));
    assert!(server.shutdown().await);
}

#[tokio::test]
async fn the_file_has_its_mode_and_is_gone_at_the_end() {
    for (line, mode) in [("", 0o660), ("unix_mode = \"0600\"\n", 0o600), ("unix_mode = \"666\"\n", 0o666)] {
        let folder = Folder::new();
        let path = folder.socket();
        let toml = format!("listen_unix = [{path:?}]\n{line}");
        let broker = Broker::start_with(&toml).await;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        assert_eq!(broker.server().unix_sockets(), std::slice::from_ref(&path));
        assert!(broker.shutdown().await);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn what_a_killed_broker_left_is_taken_away_and_nothing_else() {
    let folder = Folder::new();
    let path = folder.socket();
    // The listener is gone, its file is not.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = start(&path);
    let said = refusal(&path);
    assert!(
        said.contains("listens there already") && said.contains(&format!("unix:{}", path.display())),
        "{said}"
    );
    // Who was refused left the file to the first.
    connect(&path).await;
    assert!(first.shutdown().await);
    fs::write(&path, "mine").unwrap();
    let said = refusal(&path);
    assert!(said.contains("no socket"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    let link = folder.0.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(refusal(&link).contains("no socket"));
    let nowhere = folder.0.join("no/such/folder");
    assert!(refusal(&nowhere).contains("No such file"), "{}", refusal(&nowhere));
    let long = folder.0.join("x".repeat(200));
    assert!(refusal(&long).contains(&"x".repeat(200)));
}

#[tokio::test]
async fn a_broker_that_does_not_start_leaves_no_file() {
    let folder = Folder::new();
    let (first, second) = (folder.0.join("first"), folder.0.join("second"));
    fs::write(&second, "").unwrap();
    let config = Config::parse(&format!("listen_unix = [{first:?}, {second:?}]\n")).unwrap();
    assert!(Server::start(&config).is_err());
    assert!(!first.exists());
}

#[tokio::test]
async fn a_file_that_took_the_place_of_ours_stays() {
    let folder = Folder::new();
    let path = folder.socket();
    let server = start(&path);
    fs::remove_file(&path).unwrap();
    let _successor = UnixListener::bind(&path).unwrap();
    assert!(server.shutdown().await);
    assert!(path.exists());
}

#[tokio::test]
async fn who_connects_counts_as_of_this_machine_and_only_that_much() {
    for (anonymous, is_let_in) in [("loopback", true), ("never", false)] {
        let folder = Folder::new();
        let path = folder.socket();
        let user = "[[users]]\nname = \"alice\"\n";
        let user = format!(
            "{user}cryptosign = [\"{}\"]\n",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        let toml = format!("listen_unix = [{path:?}]\n[authentication]\nanonymous = {anonymous:?}\n{user}");
        let _broker = Broker::start_with(&toml).await;
        let raw = open_rawsocket(connect(&path).await, Format::Json, Limit::MAX).await.unwrap();
        let joined = Wamp::join(raw, Format::Json, "realm1", &Login::Anonymous).await;
        assert_eq!(joined.is_ok(), is_let_in);
    }
}

#[tokio::test]
async fn strangers_have_their_limits_here_too() {
    let folder = Folder::new();
    let path = folder.socket();
    let limits = "[limits]\nstrangers_max = 2\nstranger_time_s = 1\nstranger_bytes_max = 1000\n";
    let _broker = Broker::start_with(&format!("listen_unix = [{path:?}]\n{limits}")).await;
    // Says too much before it is let in.
    let mut loud = connect(&path).await;
    loud.write_all(&[0x7f, 0xf1, 0, 0, 0, 1, 0, 0]).await.unwrap();
    let _broken = loud.write_all(&[b' '; 5000]).await;
    let mut heard = Vec::new();
    let _end_or_reset = soon("the end", loud.read_to_end(&mut heard)).await;
    // These two fill the door; the third is greeted once their time is up.
    let (mut first, mut second) = (connect(&path).await, connect(&path).await);
    let raw = open_rawsocket(connect(&path).await, Format::Json, Limit::MAX).await.unwrap();
    Wamp::join(raw, Format::Json, "realm1", &Login::Anonymous).await.unwrap();
    for silent in [&mut first, &mut second] {
        assert_eq!(soon("the end", silent.read(&mut [0; 9])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn the_daemon_listens_where_it_is_told_says_so_and_names_its_peers_in_the_log() {
    let folder = Folder::new();
    let path = folder.socket();
    let at = format!("unix:{}", path.display());
    let daemon = Daemon::start(&["--listen", &at, "--log", "debug"]);
    let mut peer = connect(&path).await;
    // No serializer.
    peer.write_all(&[0x7f, 0xff, 0, 0]).await.unwrap();
    let mut answer = Vec::new();
    soon("a refusal", peer.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, [0x7f, 0x10, 0, 0]);
    let (log, ended) = daemon.terminate();
    let refused = log.lines().find(|line| line.contains("RawSocket handshake refused")).unwrap();
    assert!(
        refused.contains(&at) && refused.contains(&format!("process {}", std::process::id())),
        "{refused}"
    );
    assert!(ended);
    eventually("the file is gone", || !path.exists()).await;
}

//! The store as the operator of a daemon meets it: what it says when it cannot open it, when its disk fails, and when
//! its disk is full.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here fails a test; skips are printed"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use tandem_broker::store::disk::{DiskStore, StoreLimits, StoreSettings};
use tandem_broker::store::space::SpaceLimits;
use tandem_client::Error;
use tandem_client::raw::dial::connect_tcp;
use tandem_client::raw::stomp;
use tandem_client::raw::wamp::MatchPolicy;
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::{Command, Frame, Version};
use tandem_protocols::wamp::dict::Dict;
use tandem_tests::broker::{Broker, eventually};
use tandem_tests::daemon::{ConfigFile, Daemon, executable};
use tandem_tests::disk::SmallDisk;
use tandem_tests::peers;

/// Generous: what is held here is what happens, not speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory, which goes with this.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tandem-store-met-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store there, that takes nothing when less than so many bytes are free.
fn config(directory: &Path, free_bytes_min: u64, more: &str) -> String {
    format!(
        "[store]\npath = {directory:?}\nfree_bytes_min = {free_bytes_min}\nfree_percent_min = 0\n{more}\n"
    )
}

async fn connect(address: SocketAddr) -> stomp::Client {
    let transport = connect_tcp(address).await.unwrap();
    stomp::Client::connect(transport, Version::V12, &stomp::ConnectOptions::default()).await.unwrap()
}

async fn next_frame(client: &mut stomp::Client) -> Frame {
    timeout(PATIENCE, client.receive_frame()).await.expect("in time").unwrap()
}

fn persistent(number: usize, bytes: usize) -> Frame {
    let receipt = number.to_string();
    let frame = Frame::new(Command::Send).with("destination", "/queue/jobs").with("persistent", "true");
    frame.with("receipt", &receipt).with_body(format!("{number} {}", "x".repeat(bytes)))
}

/// Sends persistent messages one by one, from this number on, until one is refused; gives its number and the ERROR.
async fn send_until_refused(client: &mut stomp::Client, mut number: usize, bytes: usize) -> (usize, Frame) {
    loop {
        client.send_frame(&persistent(number, bytes)).await.unwrap();
        client.flush().await.unwrap();
        let frame = next_frame(client).await;
        if frame.command == Command::Error {
            assert_eq!(frame.headers.get("receipt-id"), Some(&*number.to_string()));
            assert_eq!(frame.headers.get("message"), Some("Not stored"));
            return (number, frame);
        }
        assert_eq!(frame.headers.get("receipt-id"), Some(&*number.to_string()));
        number += 1;
        assert!(number < 100_000, "it is never refused");
    }
}

/// Takes all that is in the queue.
async fn drain(client: &mut stomp::Client) -> BTreeSet<usize> {
    let marker = Frame::new(Command::Send).with("destination", "/queue/jobs").with_body("0 ");
    client.request(marker).await.unwrap();
    let subscribe = Frame::new(Command::Subscribe).with("destination", "/queue/jobs").with("id", "1");
    client.send_frame(&subscribe.with("ack", "client-individual")).await.unwrap();
    client.flush().await.unwrap();
    let mut found = BTreeSet::new();
    loop {
        let frame = timeout(PATIENCE, client.next_message()).await.expect("in time").unwrap();
        let text = str::from_utf8(&frame.body).unwrap();
        let number = text.split(' ').next().unwrap().parse().unwrap();
        client.request(Frame::new(Command::Ack).with("id", frame.headers.get("ack").unwrap())).await.unwrap();
        if number == 0 {
            return found;
        }
        found.insert(number);
    }
}

// ---- opening -----------------------------------------------------------------------------------------------

/// What it says when it does not start.
fn refusal(mut by: Program, config: &str) -> String {
    let file = ConfigFile::new(config);
    let output =
        by.args(["serve", "--listen", "127.0.0.1:0", "--config", file.path()]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, b"", "it listens nowhere");
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("tandem: "), "{said}");
    last
}

fn refused(config: &str) -> String {
    refusal(Program::new(executable()), config)
}

/// An empty store, closed.
fn make_store(directory: &Path) {
    let limits =
        StoreLimits::new(SpaceLimits { free_bytes_min: 0, free_percent_min: 0, free_percent_bytes_max: 0 });
    let settings = StoreSettings { directory: directory.to_owned(), limits };
    DiskStore::open(&settings).unwrap().store.close();
}

#[test]
fn a_path_that_cannot_be_a_store_is_named() {
    let directory = Directory::new();
    let file = directory.0.join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let said = refused(&config(&path, 0, ""));
        assert!(said.contains(&format!("cannot use the store at {}", path.display())), "{said}");
    }
    let taken = directory.0.join("taken");
    std::fs::create_dir_all(taken.join("queues.redb")).unwrap();
    let said = refused(&config(&taken, 0, ""));
    assert!(said.contains("queues.redb") && said.contains("directory"), "{said}");
    let foreign = directory.0.join("foreign");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("queues.redb"), "this is no store at all".repeat(1000)).unwrap();
    let said = refused(&config(&foreign, 0, ""));
    assert!(said.contains("the store is damaged") && said.contains("foreign/queues.redb"), "{said}");
    assert!(said.contains("Restore it from a copy"), "{said}");
}

#[test]
fn a_store_that_it_may_not_use_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new();
    let path = directory.0.join("private");
    make_store(&path);
    for (what, mode) in [(path.clone(), 0o500), (path.join("queues.redb"), 0o400)] {
        let before = std::fs::metadata(&what).unwrap().permissions();
        std::fs::set_permissions(&what, PermissionsExt::from_mode(mode)).unwrap();
        // Who may do everything is not kept out by permissions.
        let mut by = Program::new("setpriv");
        by.args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]).arg(executable());
        if mode == 0o500 {
            std::fs::remove_file(path.join("lock")).unwrap();
        }
        match Program::new("setpriv").args(["--bounding-set=-all", "true"]).status() {
            Ok(status) if status.success() => {}
            _ => return println!("skipped: setpriv cannot give up what root may do"),
        }
        let said = refusal(by, &config(&path, 0, ""));
        assert!(said.contains(&format!("cannot use the store at {}", path.display())), "{said}");
        assert!(said.contains("Permission denied"), "{said}");
        std::fs::set_permissions(&what, before).unwrap();
    }
}

#[test]
fn a_store_in_use_and_one_of_a_newer_broker_are_left_alone() {
    let directory = Directory::new();
    let daemon = Daemon::start_with(&config(&directory.0, 0, ""));
    let said = refused(&config(&directory.0, 0, ""));
    assert!(said.contains(&format!("the store at {} is in use by another process", directory.0.display())));
    assert!(daemon.terminate().1);
    let file = directory.0.join("queues.redb");
    {
        let database = redb::Database::open(&file).unwrap();
        let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
        let writing = database.begin_write().unwrap();
        writing.open_table(meta).unwrap().insert("format", 99).unwrap();
        writing.commit().unwrap();
    }
    let said = refused(&config(&directory.0, 0, ""));
    assert!(said.contains("the store has format 99") && said.contains("or a newer one"), "{said}");
}

/// Also in realms that are made on first use: they are there before anybody uses them.
#[tokio::test]
async fn each_realm_gets_back_what_its_topics_kept() {
    let directory = Directory::new();
    let patterns = "[[realm_patterns]]\npattern = \"tenant.\"\nmatch = \"prefix\"\nidle_s = 1\n";
    let config = config(&directory.0, 0, patterns);
    let broker = Broker::start_with(&config).await;
    for (realm, body) in [("realm1", "one"), ("tenant.a", "two")] {
        let transport = connect_tcp(broker.address()).await.unwrap();
        let options = stomp::ConnectOptions { host: realm.into(), ..stomp::ConnectOptions::default() };
        let mut client = stomp::Client::connect(transport, Version::V12, &options).await.unwrap();
        let frame = Frame::new(Command::Send).with("destination", "/topic/t").with("retain", "set");
        client.request(frame.with("persistent", "true").with_body(body)).await.unwrap();
    }
    broker.shutdown().await;
    let broker = Broker::start_with(&config).await;
    for realm in ["realm1", "tenant.a"] {
        let found = broker.server().all_realms().get(realm).expect("it is made again");
        assert!(found.topics().retains_any(), "{realm}");
    }
    assert!(broker.server().all_realms().get("tenant.b").is_none());
    broker.shutdown().await;
}

// ---- failing -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn when_its_store_fails_the_broker_tells_and_ends_with_an_error() {
    let directory = Directory::new();
    let daemon = Daemon::start_with_small_files(&config(&directory.0, 0, ""), 4 << 10);
    let mut client = connect(daemon.address()).await;
    let (refused, error) = send_until_refused(&mut client, 1, 100_000).await;
    assert!(String::from_utf8_lossy(&error.body).contains("the store failed"));
    let begun = Instant::now();
    let (log, ended_well) = tokio::task::spawn_blocking(|| daemon.wait()).await.unwrap();
    assert!(!ended_well && begun.elapsed() < PATIENCE, "{log}");
    assert!(log.contains("the store failed: nothing persistent is taken or acknowledged"), "{log}");
    assert!(log.contains("the broker ends, for its store failed"), "{log}");
    assert!(log.contains("tandem: the store failed while the broker ran"), "{log}");
    let daemon = Daemon::start_with(&config(&directory.0, 0, ""));
    let found = drain(&mut connect(daemon.address()).await).await;
    assert!((1..refused).all(|number| found.contains(&number)), "{found:?}, and {refused} was refused");
}

#[tokio::test]
async fn told_to_go_on_without_its_store_it_does_and_is_not_well() {
    let directory = Directory::new();
    let config = config(&directory.0, 0, "on_failure = \"serve\"");
    let daemon = Daemon::start_with_small_files(&config, 4 << 10);
    let health = daemon.page("/health");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    send_until_refused(&mut connect(daemon.address()).await, 1, 100_000).await;
    let health = daemon.page("/health");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("the store failed"), "{health}");
    assert_eq!(daemon.metric("tandem_store_failed"), 1);
    let mut subscriber = peers::wamp(daemon.address(), Format::Json).await;
    subscriber.subscribe("t", MatchPolicy::Exact).await.unwrap();
    let mut client = connect(daemon.address()).await;
    let retained = Frame::new(Command::Send).with("destination", "/topic/t").with("retain", "set");
    client.request(retained.clone().with_body("x")).await.unwrap();
    timeout(PATIENCE, subscriber.next_event()).await.expect("in time").unwrap();
    let refused = client.request(retained.with("persistent", "true").with_body("x")).await.unwrap_err();
    assert!(matches!(refused, Error::StompError(_)), "{refused:?}");
    let (log, ended_well) = daemon.terminate();
    assert!(!ended_well && log.contains("the store failed while the broker ran"), "{log}");
}

/// A way to run the daemon under `strace` with these arguments; `None` where that is not possible, which is said.
fn traced(arguments: &[&str]) -> Option<Program> {
    let probe = Program::new("strace").args(["-D", "-f", "-qq", "-o", "/dev/null", "true"]).output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            println!("skipped: strace says {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) => {
            println!("skipped: no strace: {error}");
            return None;
        }
    }
    let mut strace = Program::new("strace");
    strace.args(["-D", "-f", "-qq", "-s", "200"]).args(arguments);
    Some(strace)
}

#[tokio::test]
async fn an_fsync_that_fails_once_ends_durable_service() {
    let directory = Directory::new();
    let inject = "inject=fdatasync,fsync:error=EIO:when=40";
    let Some(by) = traced(&["-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", inject]) else { return };
    let daemon = Daemon::start_by(by, &config(&directory.0, 0, ""));
    let (refused, _) = send_until_refused(&mut connect(daemon.address()).await, 1, 10).await;
    let (log, ended_well) = tokio::task::spawn_blocking(|| daemon.wait()).await.unwrap();
    assert!(!ended_well && log.contains("the broker ends, for its store failed"), "{log}");
    let daemon = Daemon::start_with(&config(&directory.0, 0, ""));
    let found = drain(&mut connect(daemon.address()).await).await;
    assert!((1..refused).all(|number| found.contains(&number)), "{found:?}, and {refused} was refused");
}

#[tokio::test]
async fn the_kernel_is_asked_to_sync_before_the_first_receipt() {
    let directory = Directory::new();
    let trace = directory.0.join("trace");
    let calls = "trace=fdatasync,fsync,write,writev,sendto,sendmsg";
    let Some(by) = traced(&["-o", trace.to_str().unwrap(), "-e", calls]) else { return };
    let daemon = Daemon::start_by(by, &config(&directory.0.join("store"), 0, ""));
    let mut client = connect(daemon.address()).await;
    for (destination, header) in
        [("/queue/jobs", "persistent:true"), ("/topic/t", "retain:set\npersistent:true")]
    {
        let receipt = format!("after-{}", destination.len());
        let mut frame = Frame::new(Command::Send).with("destination", destination).with("receipt", &receipt);
        for pair in header.lines() {
            let (key, value) = pair.split_once(':').unwrap();
            frame = frame.with(key, value);
        }
        client.send_frame(&frame).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(next_frame(&mut client).await.headers.get("receipt-id"), Some(&*receipt));
    }
    assert!(daemon.terminate().1);
    let trace = std::fs::read_to_string(trace).unwrap();
    let place = |text: &str| trace.lines().position(|line| line.contains(text)).expect(text);
    for (from, to) in [("CONNECTED", "after-11"), ("after-11", "after-8")] {
        let between = trace.lines().skip(place(from)).take(place(to) - place(from));
        let syncs = between.filter(|line| line.contains("sync") && line.trim_end().ends_with("= 0")).count();
        assert!(syncs > 0, "nothing was synced between {from} and {to}: {trace}");
    }
}

// ---- full --------------------------------------------------------------------------------------------------

const MIB: u64 = 1 << 20;

/// While the disk fills nobody is told that something is safe that is not, and nobody's messages in memory suffer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_persistent_messages_are_refused_and_taken_again_when_there_is_space() {
    executable();
    let disk = match SmallDisk::mount(96) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no disk of its own: {why}"),
    };
    let config = config(&disk.path().join("store"), 24 * MIB, "");
    let daemon = Daemon::start_by(disk.enter("env"), &config);
    let mut client = connect(daemon.address()).await;
    let (mut next, error) = send_until_refused(&mut client, 1, 50_000).await;
    assert!(String::from_utf8_lossy(&error.body).contains("nearly full"));
    assert!(next > 200, "there is room for more than {next}");
    assert_eq!(daemon.metric("tandem_store_nearly_full"), 1);
    let health = daemon.page("/health");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");

    let mut wamp = peers::wamp(daemon.address(), Format::Json).await;
    let arguments = wamp.args(&("jobs", "x")).unwrap();
    let refused = wamp.call_with("tandem.queue.send", Dict::new().with("persistent", true), arguments).await;
    assert!(format!("{:?}", refused.unwrap_err()).contains("tandem.error.not_stored"));
    let retained = Dict::new().with("persistent", true).with("retain", true);
    let arguments = wamp.args(&["x"]).unwrap();
    let refused = wamp.publish_acknowledged("t", retained, arguments).await;
    assert!(format!("{:?}", refused.unwrap_err()).contains("tandem.error.not_stored"));
    wamp.subscribe("t", MatchPolicy::Exact).await.unwrap();
    let mut client = connect(daemon.address()).await;
    for destination in ["/topic/t", "/queue/other"] {
        client
            .request(Frame::new(Command::Send).with("destination", destination).with_body("x"))
            .await
            .unwrap();
    }
    timeout(PATIENCE, wamp.next_event()).await.expect("in time").unwrap();

    // All is there, also after a death on the full disk; and what is taken out makes room.
    daemon.signal("KILL");
    drop(daemon);
    let daemon = Daemon::start_by(disk.enter("env"), &config);
    assert_eq!(daemon.metric("tandem_store_nearly_full"), 1);
    let found = drain(&mut connect(daemon.address()).await).await;
    assert!((1..next).all(|number| found.contains(&number)), "{next} was refused, and there is {found:?}");
    next += 1;
    take_again(daemon.address(), next).await;

    // The same when others fill the disk, and go.
    let filler = disk.path().join("filler");
    let fill = format!("head -c 96M /dev/zero > {} 2> /dev/null; true", filler.display());
    assert!(disk.enter("sh").args(["-c", &fill]).status().unwrap().success());
    eventually("it sees that its disk is full", || daemon.metric("tandem_store_nearly_full") == 1).await;
    let (refused, _) = send_until_refused(&mut connect(daemon.address()).await, next + 1, 50_000).await;
    assert_eq!(refused, next + 1);
    assert!(disk.enter("rm").arg(&filler).status().unwrap().success());
    take_again(daemon.address(), refused + 1).await;
    assert_eq!(daemon.metric("tandem_store_failed"), 0);
    let (log, ended_well) = daemon.terminate();
    assert!(ended_well && log.contains("has space again"), "{log}");
}

/// Waits until a persistent message is taken.
async fn take_again(address: SocketAddr, number: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = connect(address).await;
        client.send_frame(&persistent(number, 10)).await.unwrap();
        client.flush().await.unwrap();
        if next_frame(&mut client).await.command == Command::Receipt {
            return;
        }
        assert!(Instant::now() < deadline, "it is taken again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

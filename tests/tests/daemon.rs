//! The daemon as its operator meets it: what it prints and refuses, whom it lets in, how it ends, what it logs.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tandem_client::Error;
use tandem_client::raw::dial::connect_tcp;
use tandem_client::raw::stomp::{self, ConnectOptions};
use tandem_client::raw::wamp::{self, Login, MatchPolicy};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::message::{Goodbye, Message};
use tandem_tests::attacker::{CONNECT, Raw, close_code, frame, upgrade};
use tandem_tests::broker::soon;
use tandem_tests::daemon::{ConfigFile, Daemon, executable};
use tandem_tests::peers;

const NO_LANGUAGE: &str = "Sec-WebSocket-Protocol: nobody-speaks-this\r\n";

/// Runs the command line to its end, which must come by itself.
fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(executable())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs what must fail, and gives what it says.
fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments, "");
    assert_eq!(output.status.code(), Some(1), "{arguments:?} {output:?}");
    assert_eq!(output.stdout, b"", "{arguments:?} {output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("tandem: "), "{said}");
    said
}

/// A configuration with one user, alice, whose password is `wonderland`, and nobody else.
fn with_alice() -> String {
    let output = run(&["hash-password"], "wonderland\n");
    assert!(output.status.success(), "{output:?}");
    let hash = String::from_utf8(output.stdout).unwrap();
    let hash = hash.trim();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    format!(
        "[authentication]\nanonymous = \"never\"\n\n[[users]]\nname = \"alice\"\nrole = \"guest\"\n\
         password = \"{hash}\"\n"
    )
}

// ---- starting ----------------------------------------------------------------------------------------------

/// Without a configuration it listens at port 8080, which may be taken here: then it must say so, and nothing
/// else is to be seen. With a port of its own, by nothing but `--listen`, all is as without.
#[test]
fn by_default_it_listens_at_this_machine_only() {
    let mut child = Command::new(executable())
        .arg("serve")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut first).unwrap();
    if first.is_empty() {
        let mut said = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut said).unwrap();
        assert!(said.contains("cannot listen at 127.0.0.1:8080"), "{said}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
        return;
    }
    assert!(first.contains("ws://127.0.0.1:8080/"), "{first}");
    let listening = listening(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(listening, ["0100007F:1F90"], "as /proc/net/tcp writes 127.0.0.1:8080");
}

/// The addresses that a process listens at, as `/proc` writes them.
fn listening(process: u32) -> Vec<String> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let Ok(table) = std::fs::read_to_string(format!("/proc/{process}/net/{table}")) else { continue };
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            const LISTEN: &str = "0A";
            if fields[3] == LISTEN && sockets.iter().any(|socket| socket == fields[9]) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

#[test]
fn the_lines_that_it_prints_can_be_copied() {
    let mut child = Command::new(executable())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let address = first.split("ws://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
    let copied: Vec<String> = lines.by_ref().take(5).collect();
    assert!(copied.iter().any(|line| line.contains("autobahn.Connection") && line.contains(&address)));
    assert!(copied.iter().any(|line| line.contains("StompJs.Client") && line.contains(&address)));
    let command = copied.iter().find_map(|line| line.trim().strip_prefix("shell")).unwrap().trim();
    let command = command.strip_prefix("tandem ").unwrap().split(' ');
    let output = Command::new("timeout").arg("30").arg(executable()).args(command).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn to_be_reached_by_others_it_must_be_told_who_is_let_in() {
    let said = refusal(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("[authentication]") && said.contains("anonymous"), "{said}");
    assert!(said.contains("tandem hash-password"), "{said}");
    let allowed = ConfigFile::new("[authentication]\nanonymous = \"loopback\"\n");
    let mut child = Command::new(executable())
        .args(["serve", "--listen", "0.0.0.0:0", "--config", allowed.path()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.contains("ws://0.0.0.0:"), "{first}");
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line_and_what_was_meant() {
    let file = ConfigFile::new("realms = [\"a\"]\n\n[limits]\nsession_max = 5\n");
    for verb in [&["check-config", file.path()][..], &["serve", "--config", file.path()]] {
        let said = refusal(verb);
        assert!(said.contains("line 4"), "{said}");
        assert!(said.contains("did you mean `sessions_max`?"), "{said}");
        assert!(said.contains(file.path()), "{said}");
    }
    let said = refusal(&["serve", "--config", "/there/is/none.toml"]);
    assert!(said.contains("/there/is/none.toml"), "{said}");
    let plain = ConfigFile::new("[[users]]\nname = \"bob\"\npassword = \"in plain text\"\n");
    let said = refusal(&["check-config", plain.path()]);
    assert!(said.contains("bob") && said.contains("tandem hash-password"), "{said}");
    assert!(!said.contains("in plain text"), "a secret is not repeated: {said}");
}

#[test]
fn check_config_says_what_is_fine() {
    let file = ConfigFile::new(&with_alice());
    let output = run(&["check-config", file.path()], "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{} is fine\n", file.path()));
}

/// What `hash-password` makes for each method is what the configuration takes.
#[test]
fn credentials_of_every_method_are_made_and_taken() {
    let made = |method: &str, prefix: &str| {
        let output = run(&["hash-password", "--for", method], "wonderland\n");
        let made = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(made.starts_with(prefix) && !made.contains("wonderland"), "{method}: {made}");
        made
    };
    let wampcra = made("wampcra", "$wamp-cra$i=");
    let scram = [made("wamp-scram", "$wamp-scram$argon2id$"), made("scram", "$scram$argon2id$")];
    let user = |wampcra: &str| {
        format!("[[users]]\nname = \"alice\"\nwampcra = \"{wampcra}\"\nscram = {scram:?}\ncryptosign = []\n")
    };
    let file = ConfigFile::new(&user(&wampcra));
    let output = run(&["check-config", file.path()], "");
    assert!(output.status.success(), "{output:?}");
    let said = refusal(&["check-config", ConfigFile::new(&user("wonderland")).path()]);
    assert!(said.contains("wampcra of user \"alice\"") && !said.contains("wonderland"), "{said}");
}

#[test]
fn no_password_is_no_hash() {
    let output = run(&["hash-password"], "\n");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_bad_log_filter_and_a_port_in_use_are_refused_in_a_sentence() {
    let said = refusal(&["serve", "--listen", "127.0.0.1:0", "--log", "tandem=loud"]);
    assert!(said.contains("--log tandem=loud"), "{said}");
    for silent in ["verbose", "Tandem=info"] {
        let said = refusal(&["serve", "--listen", "127.0.0.1:0", "--log", silent]);
        assert!(said.contains(&format!("--log {silent}: neither a level")), "{said}");
    }
    let config = ConfigFile::new("log = \"verbose\"\n");
    let said = refusal(&["check-config", config.path()]);
    assert!(said.contains("log = \"verbose\""), "{said}");
    let daemon = Daemon::start(&[]);
    let said = refusal(&["serve", "--listen", &daemon.address().to_string()]);
    assert!(said.contains(&format!("cannot listen at {}", daemon.address())), "{said}");
}

// ---- letting in --------------------------------------------------------------------------------------------

async fn join_by_ticket(daemon: &Daemon, authid: &str, ticket: &str) -> Result<wamp::Client, Error> {
    let transport = peers::websocket(daemon.address(), "wamp.2.json").await;
    let login = Login::Ticket { authid: authid.to_owned(), ticket: ticket.to_owned() };
    soon("WELCOME", wamp::Client::join(transport, Format::Json, "realm1", &login)).await
}

async fn connect_by_login(daemon: &Daemon, login: &str, passcode: &str) -> Result<stomp::Client, Error> {
    let options = ConnectOptions {
        login: Some(login.to_owned()),
        passcode: Some(passcode.to_owned()),
        ..ConnectOptions::default()
    };
    let transport = connect_tcp(daemon.address()).await.unwrap();
    soon("CONNECTED", stomp::Client::connect(transport, Version::V12, &options)).await
}

#[tokio::test]
async fn the_right_secret_opens_the_door_in_either_language_and_no_other_does() {
    let daemon = Daemon::start_with(&with_alice());
    let client = join_by_ticket(&daemon, "alice", "wonderland").await.unwrap();
    assert_eq!(client.welcome().get("authid").and_then(|id| id.as_str()), Some("alice"));
    assert_eq!(client.welcome().get("authrole").and_then(|role| role.as_str()), Some("guest"));
    let client = connect_by_login(&daemon, "alice", "wonderland").await.unwrap();
    assert_eq!(client.connected().get("user-name"), Some("alice"));

    for (name, secret) in [("alice", "looking-glass"), ("bob", "wonderland"), ("alice", "")] {
        let error = join_by_ticket(&daemon, name, secret).await.unwrap_err();
        assert!(matches!(error, Error::Abort(_)), "{error:?}");
        let error = connect_by_login(&daemon, name, secret).await.unwrap_err();
        assert!(matches!(error, Error::StompError(_)), "{error:?}");
    }
    let transport = peers::websocket(daemon.address(), "wamp.2.json").await;
    let error = wamp::Client::join(transport, Format::Json, "realm1", &Login::Anonymous).await.unwrap_err();
    assert!(matches!(error, Error::Abort(_)), "{error:?}");
    let transport = connect_tcp(daemon.address()).await.unwrap();
    let error =
        stomp::Client::connect(transport, Version::V12, &ConnectOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::StompError(_)), "{error:?}");

    let (log, _) = daemon.terminate();
    for secret in ["wonderland", "looking-glass"] {
        assert!(!log.contains(secret), "a secret is in the log: {log}");
    }
}

// ---- pages -------------------------------------------------------------------------------------------------

#[test]
fn its_pages_say_whether_it_is_well_what_it_counts_and_where_websocket_is() {
    let daemon = Daemon::start_with("[websocket]\npath = \"/broker\"\n");
    let health = daemon.page("/health");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("\r\n\r\nok\n"), "{health}");
    assert!(daemon.metric("tandem_connections_accepted_total") >= 1);
    let elsewhere = daemon.page("/elsewhere");
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    assert!(elsewhere.ends_with("nothing is here; WebSocket is at /broker\n"), "{elsewhere}");
    let no_upgrade = daemon.page("/broker");
    assert!(no_upgrade.starts_with("HTTP/1.1 4") && !no_upgrade.starts_with("HTTP/1.1 404"), "{no_upgrade}");
}

// ---- its log -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_violation_is_one_line_of_the_log_and_payloads_are_none() {
    let daemon = Daemon::start(&["--log", "debug"]);
    let mut subscriber = peers::wamp(daemon.address(), Format::Json).await;
    subscriber.subscribe("a.topic", MatchPolicy::Exact).await.unwrap();
    let mut client = peers::stomp(daemon.address()).await;
    let headers = [("content-type", "text/plain")];
    client.send_with_receipt("/topic/a.topic", &headers, "a secret of the application").await.unwrap();
    soon("an event", subscriber.next_event()).await.unwrap();
    client.link().feed_encoded(b"NONSENSE\n\nmore of that secret\0").unwrap();
    client.flush().await.unwrap();
    let error = soon("ERROR", client.next_message()).await.unwrap_err();
    assert!(matches!(error, Error::StompError(_)), "{error:?}");
    let violations = daemon.metric("tandem_violations_total");
    let (log, ended_well) = daemon.terminate();
    assert!(ended_well && violations == 1, "{violations} {log}");
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("Violation") && warnings[0].contains("127.0.0.1:"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

// ---- ending ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn told_to_terminate_it_says_goodbye_in_both_languages_and_ends_well() {
    let daemon = Daemon::start(&[]);
    let mut wamp = peers::wamp(daemon.address(), Format::Cbor).await;
    let mut over_websocket = peers::stomp(daemon.address()).await;
    let mut over_tcp = peers::stomp_over(connect_tcp(daemon.address()).await.unwrap()).await;
    let silent = TcpStream::connect(daemon.address()).unwrap();
    let ending = tokio::task::spawn_blocking(move || daemon.terminate());
    match soon("GOODBYE", wamp.receive()).await.unwrap() {
        Message::Goodbye(goodbye) => assert_eq!(goodbye.reason, "wamp.close.system_shutdown"),
        other => panic!("{other:?}"),
    }
    let reason = "wamp.close.goodbye_and_out".to_owned();
    wamp.send(Goodbye { details: Dict::new(), reason }).await.unwrap();
    let error = soon("the end", wamp.receive()).await.unwrap_err();
    assert!(matches!(error, Error::Closed(_)), "{error:?}");
    for client in [&mut over_websocket, &mut over_tcp] {
        let error = soon("ERROR", client.next_message()).await.unwrap_err();
        assert!(matches!(error, Error::StompError(_)), "{error:?}");
        let error = soon("the end", client.receive_frame()).await.unwrap_err();
        assert!(matches!(error, Error::Closed(_)), "{error:?}");
    }
    let (log, ended_well) = ending.await.unwrap();
    assert!(ended_well, "{log}");
    assert!(log.contains("told to terminate: saying goodbye"), "{log}");
    assert!(log.contains("all connections closed"), "{log}");
    drop(silent);
}

/// First `/ready` says so while all goes on, then everybody is told, at some moment each, and closed with 1001.
#[tokio::test]
async fn before_it_ends_it_is_unready_and_then_everybody_is_told() {
    let limits = "[limits]\ndrain_delay_s = 1\ndrain_spread_s = 1\ndrain_time_s = 20\n";
    let daemon = Daemon::start_with(limits);
    let address = daemon.address();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(peers::wamp(address, Format::Json).await);
    }
    let mut stomp = Raw::websocket(address, "v12.stomp", "").await;
    stomp.write(&frame(0x81, CONNECT)).await;
    stomp.read_until(b"CONNECTED").await;
    assert!(daemon.page("/ready").starts_with("HTTP/1.1 200"));
    daemon.signal("TERM");
    let unready = loop {
        let page = daemon.page("/ready");
        if !page.starts_with("HTTP/1.1 200") {
            break page;
        }
    };
    assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("shutting down\n"), "{unready}");
    assert!(daemon.page("/health").starts_with("HTTP/1.1 200"));
    // Whoever was sent here before that was seen is served.
    let mut late = Raw::websocket(address, "v12.stomp", "").await;
    late.write(&frame(0x81, CONNECT)).await;
    late.read_until(b"CONNECTED").await;
    let mut stream = Raw::connect(address).await;
    stream.write(CONNECT).await;
    assert!(stream.read_until(b"\0").await.starts_with(b"CONNECTED"));
    // And so are the others.
    soon("an answer", clients[0].subscribe("a.b", MatchPolicy::Exact)).await.unwrap();
    for client in &mut clients {
        match soon("GOODBYE", client.receive()).await.unwrap() {
            Message::Goodbye(goodbye) => assert_eq!(goodbye.reason, "wamp.close.system_shutdown"),
            other => panic!("{other:?}"),
        }
    }
    drop(clients);
    assert!(String::from_utf8_lossy(&stream.read_to_end().await).contains("ERROR"));
    let last = stomp.read_to_end().await;
    assert!(String::from_utf8_lossy(&last).contains("ERROR"), "{last:?}");
    assert_eq!(close_code(&last[last.len() - 4..]), Some(1001));
    let (log, ended_well) = daemon.wait();
    assert!(ended_well && log.contains("all connections closed"), "{log}");
}

#[test]
fn systemd_is_told_when_it_is_ready_when_it_reads_anew_and_when_it_ends() {
    let path = std::env::temp_dir().join(format!("tandem-notify-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut said = [0; 1024];
        let length = manager.recv(&mut said).unwrap();
        String::from_utf8_lossy(&said[..length]).into_owned()
    };
    let mut child = Command::new(executable())
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let signal = |name: &str| {
        Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    };
    assert!(hear().contains("READY=1"));
    signal("HUP");
    let reloading = hear();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(hear().contains("READY=1"));
    signal("TERM");
    let stopping = hear();
    assert!(stopping.contains("STOPPING=1") && stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
    assert!(child.wait().unwrap().success());
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn a_second_signal_cuts_the_goodbyes_short() {
    // Somebody who reads nothing and answers nothing, and an hour to wait for him.
    let daemon = Daemon::start_with("[limits]\ndrain_time_s = 3600\n");
    let address = daemon.address();
    let transport = peers::lazy_websocket(address, "v12.stomp").await;
    let mut stalled = peers::stomp_over(transport).await;
    stalled.subscribe("/topic/a", "0", stomp::AckMode::Auto, &[]).await.unwrap();
    let mut publisher = peers::stomp(address).await;
    for _ in 0..8 {
        publisher.send_with_receipt("/topic/a", &[], vec![b'.'; 256 * 1024]).await.unwrap();
    }
    daemon.signal("TERM");
    // It has heard it when it has said goodbye.
    let error = soon("ERROR", publisher.next_message()).await.unwrap_err();
    assert!(matches!(error, Error::StompError(_)), "{error:?}");
    let ending = tokio::task::spawn_blocking(move || {
        daemon.signal("TERM");
        daemon.wait()
    });
    let (log, ended_well) = tokio::time::timeout(Duration::from_secs(60), ending).await.unwrap().unwrap();
    assert!(log.contains("told to terminate: saying goodbye"), "{log}");
    assert!(log.contains("some connections were cut off"), "{log}");
    assert!(ended_well, "{log}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let daemon = Daemon::start(&["--listen", "127.0.0.1:0"]);
    let address = daemon.address();
    // Each is a line of the log, and a pipe holds 64 KiB.
    for _ in 0..1500 {
        let mut stranger = Raw::connect(address).await;
        stranger.write(upgrade(address, NO_LANGUAGE).as_bytes()).await;
        let refused = soon("an answer", stranger.read_until(b"\r\n\r\n")).await;
        assert!(refused.starts_with(b"HTTP/1.1 400"));
    }
    let mut client = soon("a session", peers::wamp(address, Format::Json)).await;
    soon("an answer", client.subscribe("a.b", MatchPolicy::Exact)).await.unwrap();
}

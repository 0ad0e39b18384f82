//! The broker beside other services: behind proxies, under names, below a prefix, with pages of its own, and asked how it
//! is.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tandem_broker::front::readiness::Unready;
use tandem_tests::attacker::{CONNECT, Raw, frame, say};
use tandem_tests::broker::{Broker, eventually, soon};
use tandem_tests::poller::{Answer, Http, ask};

const HELLO: &[u8] = br#"[1,"realm1",{"roles":{"subscriber":{}}}]"#;

/// A request that opens a WebSocket for WAMP, with any path, host and other headers.
fn upgrade(path: &str, host: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: wamp.2.json\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// The head of the answer to these bytes, and the connection.
async fn head(address: SocketAddr, said: &[u8]) -> (String, Raw) {
    let mut raw = Raw::connect(address).await;
    raw.write(said).await;
    let head = raw.read_until(b"\r\n\r\n").await;
    (String::from_utf8(head).unwrap(), raw)
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head:?}"))
}

/// What a WAMP session over WebSocket is answered when it comes with these headers: `[2,` lets it in, `[3,` does not.
async fn welcome(address: SocketAddr, headers: &str) -> bool {
    let (head, mut raw) = head(address, &upgrade("/", &address.to_string(), headers)).await;
    assert_eq!(status(&head), 101, "{head}");
    raw.write(&frame(0x81, HELLO)).await;
    let answer = raw.read_until(b",").await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("[2,") || answer.contains("[3,"), "{answer}");
    answer.contains("[2,")
}

// ---- the PROXY protocol ------------------------------------------------------------------------------------

const FROM: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\r\n";
const FROM_ANOTHER: &[u8] = b"PROXY TCP4 192.0.2.2 10.0.0.1 1234 80\r\n";

/// A broker that listens without the PROXY protocol first, and with it second.
async fn proxied(more: &str) -> (Broker, SocketAddr) {
    let toml = format!(
        "listen = [\"127.0.0.1:0\", \"127.0.0.2:0\"]\n{more}\n[proxies]\nprotocol = [\"127.0.0.2:0\"]\n\
         protocol_time_s = 1\n"
    );
    let toml = if toml.contains("#trusted") {
        toml.replace("#trusted", "") + "trusted = [\"192.0.2.0/24\"]\n"
    } else {
        toml + "trusted = [\"127.0.0.0/8\"]\n"
    };
    let broker = Broker::start_with(&toml).await;
    let address = broker.server().addresses()[1];
    (broker, address)
}

#[tokio::test]
async fn who_comes_by_the_proxy_protocol_is_who_the_proxy_says_and_not_of_this_machine() {
    let (broker, address) = proxied("").await;
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11"[..],
        &[192, 0, 2, 1, 10, 0, 0, 1, 4, 0, 0, 80],
        &[0xEE, 0, 2, 1, 2],
    ];
    let local = b"PROXY TCP4 127.0.0.1 127.0.0.1 1234 80\r\n";
    for header in [FROM, local, b"PROXY UNKNOWN\r\n", &v2.concat()] {
        let answer = say(address, &[header, CONNECT].concat()).await;
        assert!(answer.starts_with("ERROR"), "anonymous on this machine only: {answer:?}");
    }
    let answer = say(broker.address(), &[FROM, CONNECT].concat()).await;
    assert!(!answer.contains("CONNECTED") && !answer.contains("ERROR"), "no header is read there: {answer}");
    let mut near = Raw::connect(broker.address()).await;
    near.write(CONNECT).await;
    assert!(near.read_until(b"\0").await.starts_with(b"CONNECTED"));

    let (_broker, address) = proxied("[authentication]\nanonymous = \"everywhere\"\n").await;
    for header in [FROM, &v2.concat()] {
        let mut far = Raw::connect(address).await;
        far.write(&[header, CONNECT].concat()).await;
        assert!(far.read_until(b"\0").await.starts_with(b"CONNECTED"));
    }
    let (head, _) = head(address, &[FROM, &upgrade("/", "127.0.0.1", "")].concat()).await;
    assert_eq!(status(&head), 101, "{head}");
}

#[tokio::test]
async fn where_the_proxy_protocol_is_spoken_nothing_else_is_and_not_for_long() {
    let (_broker, address) = proxied("[limits]\nstranger_time_s = 60\n").await;
    for said in [CONNECT, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"PROXY TCP4 a b c d\r\n"] {
        assert_eq!(say(address, said).await, "");
    }
    // Nothing, and a header that does not end.
    for said in [&b""[..], b"PROXY TCP4 192.0.2.1 "] {
        assert_eq!(soon("the end", say(address, said)).await, "");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_listed_is_not_heard() {
    let (_broker, address) = proxied("#trusted").await;
    let answer = say(address, &[FROM, CONNECT].concat()).await;
    assert_eq!(answer, "", "192.0.2.0/24 may speak the PROXY protocol, and 127.0.0.1 does");
}

#[tokio::test]
async fn limits_by_address_are_those_of_the_address_behind_the_proxy() {
    let more = "[authentication]\nanonymous = \"everywhere\"\n[limits]\nstrangers_per_address_max = 1\n\
                connections_per_address_max = 1\n";
    let (_broker, address) = proxied(more).await;
    let mut first = Raw::connect(address).await;
    first.write(&[FROM, b"CONN"].concat()).await;
    let second = [FROM, CONNECT].concat();
    assert_eq!(say(address, &second).await, "", "there is a stranger of that address");
    let mut other = Raw::connect(address).await;
    other.write(&[FROM_ANOTHER, CONNECT].concat()).await;
    assert!(other.read_until(b"\0").await.starts_with(b"CONNECTED"));
    // Once let in it counts as a connection.
    first.write(&CONNECT[4..]).await;
    assert!(first.read_until(b"\0").await.starts_with(b"CONNECTED"));
    let full = "too many connections from this address";
    let error = say(address, &second).await;
    assert!(
        error.starts_with("ERROR\n") && error.contains(full),
        "there is a connection of that address: {error:?}"
    );
    let mut rawsocket = Raw::connect(address).await;
    rawsocket.write(&[FROM, &[0x7f, 0xf1, 0, 0]].concat()).await;
    assert_eq!(rawsocket.read_to_end().await, [0x7f, 0x40, 0, 0], "maximum connection count reached");
    let (head, _) = head(address, &[FROM, &upgrade("/", "127.0.0.1", "")].concat()).await;
    assert_eq!(status(&head), 503, "{head}");
    assert!(head.to_lowercase().contains("retry-after: "), "{head}");
    drop(first);
    let again = async {
        loop {
            let mut again = Raw::connect(address).await;
            again.write(&second).await;
            again.write(b"DISCONNECT\nreceipt:r\n\n\0").await;
            if again.read_to_end().await.starts_with(b"CONNECTED") {
                return;
            }
        }
    };
    soon("room again", again).await;
}

/// `UNKNOWN` is said of clients as well: what such a one writes into headers is not what the proxy says.
#[tokio::test]
async fn headers_are_believed_of_a_listed_address_only_where_the_proxy_protocol_says_it() {
    let (_broker, address) =
        proxied("[http]\nhosts = [\"a.example\"]\n[authentication]\nanonymous = \"everywhere\"\n").await;
    let headers =
        "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Host: a.example\r\nOrigin: https://a.example\r\n";
    let request = upgrade("/", "127.0.0.1", headers);
    let another_proxy = b"PROXY TCP4 127.0.0.9 10.0.0.1 1234 80\r\n";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
    for (header, expected) in
        [(&another_proxy[..], 101), (FROM, 403), (b"PROXY UNKNOWN\r\n", 403), (local, 403)]
    {
        let (head, _) = head(address, &[header, &request].concat()).await;
        assert_eq!(status(&head), expected, "{}", String::from_utf8_lossy(header));
    }
}

// ---- headers of proxies ------------------------------------------------------------------------------------

#[tokio::test]
async fn who_comes_through_a_proxy_over_http_is_not_of_this_machine_whether_it_is_listed_or_not() {
    let listed = Broker::start_with("[proxies]\ntrusted = [\"127.0.0.1\"]\n").await;
    let unlisted = Broker::start().await;
    for broker in [&listed, &unlisted] {
        let address = broker.address();
        assert!(welcome(address, "").await, "without a proxy");
        for header in [
            "X-Forwarded-For: 192.0.2.1\r\n",
            "X-Forwarded-For: 127.0.0.1\r\n",
            "Forwarded: for=127.0.0.1\r\n",
            "X-Real-IP: 127.0.0.1\r\n",
            "Via: 1.1 a\r\n",
        ] {
            assert!(!welcome(address, header).await, "{header}");
            let metrics = ask(address, "GET", "/metrics", header, b"").await;
            assert_ne!(metrics.status, 200, "{header}");
        }
        let open = ask(
            address,
            "POST",
            "/lp/open",
            "X-Forwarded-For: 192.0.2.1\r\n",
            br#"{"protocols":["wamp.2.json"]}"#,
        );
        let open: serde_json::Value = serde_json::from_slice(&open.await.body).unwrap();
        let path = format!("/lp/{}", open["transport"].as_str().unwrap());
        ask(address, "POST", &format!("{path}/send"), "", HELLO).await;
        let answer = ask(address, "POST", &format!("{path}/receive"), "", b"").await;
        assert!(answer.text().starts_with("[3,"), "{answer:?}");
    }
}

#[tokio::test]
async fn strangers_behind_a_listed_proxy_are_counted_by_their_own_addresses() {
    let more = "[limits]\nstrangers_per_address_max = 1\n[proxies]\ntrusted = [\"127.0.0.1\"]\n";
    let broker = Broker::start_with(more).await;
    let address = broker.address();
    let from = |client: u8| format!("X-Forwarded-For: 203.0.113.66, 192.0.2.{client}\r\n");
    let (first, _stranger) = head(address, &upgrade("/", "127.0.0.1", &from(1))).await;
    assert_eq!(status(&first), 101, "{first}");
    let (second, _) = head(address, &upgrade("/", "127.0.0.1", &from(1))).await;
    assert_eq!(status(&second), 503, "{second}");
    let (other, _other) = head(address, &upgrade("/", "127.0.0.1", &from(2))).await;
    assert_eq!(status(&other), 101, "{other}");
    // One connection of a proxy carries requests of many clients.
    let mut shared = Http::connect(address).await;
    for (client, expected) in [(3, 200), (1, 503)] {
        shared.ask("GET", "/health", &from(client), b"").await;
        assert_eq!(shared.answer().await.unwrap().status, expected);
    }
}

/// The connection is older than a stranger may be; who comes over it has done nothing yet.
#[tokio::test]
async fn over_an_old_connection_of_a_listed_proxy_a_stranger_has_the_whole_time() {
    let more = "[limits]\nstranger_time_s = 1\n[proxies]\ntrusted = [\"127.0.0.1\"]\n[authentication]\n\
                anonymous = \"everywhere\"\n";
    let broker = Broker::start_with(more).await;
    let address = broker.address();
    let mut proxy = Raw::connect(address).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        proxy.write(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n").await;
        proxy.read_until(b"ok\n").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.write(&upgrade("/", &address.to_string(), "X-Forwarded-For: 192.0.2.2\r\n")).await;
    let head = proxy.read_until(b"\r\n\r\n").await;
    assert_eq!(status(&String::from_utf8_lossy(&head)), 101);
    proxy.write(&frame(0x81, HELLO)).await;
    proxy.read_until(b"[2,").await;
}

#[tokio::test]
async fn the_page_is_of_the_same_origin_as_what_the_proxy_was_asked_for() {
    let broker = Broker::start_with(
        "[http]\nhosts = [\"a.example\"]\n[proxies]\ntrusted = [\"127.0.0.1\"]\n[authentication]\n\
         anonymous = \"everywhere\"\n",
    )
    .await;
    let address = broker.address();
    let page = "X-Forwarded-For: 192.0.2.1\r\nOrigin: https://a.example\r\n";
    for (headers, expected) in [
        (format!("{page}X-Forwarded-Host: a.example\r\n"), 101),
        (format!("{page}X-Forwarded-Host: b.example\r\n"), 421),
        (page.to_owned(), 403),
    ] {
        let (head, _) = head(address, &upgrade("/", "127.0.0.1", &headers)).await;
        assert_eq!(status(&head), expected, "{headers}");
    }
    let unlisted = Broker::start_with("[http]\nhosts = [\"a.example\"]\n").await;
    let forged = format!("{page}X-Forwarded-Host: a.example\r\n");
    let (head, _) = head(unlisted.address(), &upgrade("/", "127.0.0.1", &forged)).await;
    assert_eq!(status(&head), 403, "{head}");
}

// ---- names -------------------------------------------------------------------------------------------------

/// DNS rebinding: the page of `evil.example` believes that the broker is `evil.example`, and says so.
#[tokio::test]
async fn a_page_whose_name_points_here_does_not_reach_the_broker() {
    let broker = Broker::start().await;
    let address = broker.address();
    let port = address.port();
    for host in ["evil.example".to_owned(), format!("evil.example:{port}"), "127.0.0.1.evil.example".into()] {
        let origin = format!("Origin: http://{host}\r\n");
        let (head, _) = head(address, &upgrade("/", &host, &origin)).await;
        assert_eq!(status(&head), 421, "{head}");
        for (method, path) in
            [("POST", "/lp/open"), ("OPTIONS", "/lp/open"), ("GET", "/metrics"), ("GET", "/")]
        {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Length: 0\r\n\r\n");
            let answer = say(address, request.as_bytes()).await;
            assert_eq!(status(&answer), 421, "{path}: {answer}");
            assert!(answer.contains("http.hosts") && !answer.contains("tandem_"), "{answer}");
        }
        let absolute = format!("GET http://{host}/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status(&say(address, absolute.as_bytes()).await), 421);
    }
    let twice = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n";
    assert_ne!(status(&say(address, twice.as_bytes()).await), 200);
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), "[::1]".into(), "192.0.2.1".into()]
    {
        let (head, _) = head(address, &upgrade("/", &host, "")).await;
        assert_eq!(status(&head), 101, "{host}: {head}");
    }
    let named = Broker::start_with("[websocket]\nallowed_origins = [\"https://a.example\"]\n").await;
    let (head, _) = head(named.address(), &upgrade("/", "a.example", "")).await;
    assert_eq!(status(&head), 101, "{head}");
}

// ---- paths and files ---------------------------------------------------------------------------------------

#[tokio::test]
async fn below_a_prefix_is_everything_and_beside_it_nothing() {
    let toml = "[http]\nprefix = \"/broker\"\n[websocket]\npath = [\"/ws\", \"/stomp\"]\n";
    let broker = Broker::start_with(toml).await;
    let address = broker.address();
    for (path, expected) in [
        ("/broker/ws", 101),
        ("/broker/stomp?token=1", 101),
        ("/broker/ws/", 404),
        ("/broker", 404),
        ("/broker/", 404),
        ("/ws", 404),
        ("/brokerws", 404),
        ("/brokerx/ws", 404),
        ("/", 404),
    ] {
        let (head, _) = head(address, &upgrade(path, "localhost", "")).await;
        assert_eq!(status(&head), expected, "{path}: {head}");
    }
    let open = br#"{"protocols":["wamp.2.json"]}"#;
    for (method, path, expected) in [
        ("GET", "/broker/health", 200),
        ("GET", "/broker/ready", 200),
        ("GET", "/broker/metrics", 200),
        ("POST", "/broker/lp/open", 200),
        ("GET", "/health", 404),
        ("GET", "/metrics", 404),
        ("POST", "/lp/open", 404),
    ] {
        assert_eq!(ask(address, method, path, "", open).await.status, expected, "{path}");
    }
    let elsewhere = ask(address, "GET", "/broker/x", "", b"").await;
    assert_eq!(elsewhere.text(), "nothing is here; WebSocket is at /broker/ws, /broker/stomp\n");
}

/// A folder of files for one test, beside which there is one that nobody is to see.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let root = std::env::temp_dir().join(format!("tandem-files-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let site = root.join("site");
        fs::create_dir_all(site.join("sub")).unwrap();
        fs::create_dir_all(site.join("empty")).unwrap();
        fs::create_dir_all(root.join("site-secret")).unwrap();
        for (name, text) in [
            ("secret.txt", "nobody's"),
            ("site-secret/a.txt", "nobody's"),
            ("site/index.html", "<p>home"),
            ("site/app.js", "let a"),
            ("site/a b.unknown", "?"),
            ("site/.hidden", "nobody's"),
            ("site/sub/index.html", "<p>sub"),
            ("site/ws", "in the way"),
        ] {
            fs::write(root.join(name), text).unwrap();
        }
        for (link, target) in
            [("out", "../secret.txt"), ("outside", "../site-secret"), ("inside", "app.js"), ("loop", "loop")]
        {
            std::os::unix::fs::symlink(target, site.join(link)).unwrap();
        }
        Folder(root)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_folder_is_served_at_all_other_paths_and_nothing_outside_of_it() {
    let folder = Folder::new();
    let site = folder.0.join("site");
    let toml = format!("[http]\nfiles = {:?}\n[websocket]\npath = \"/ws\"\n", site.display().to_string());
    let broker = Broker::start_with(&toml).await;
    let address = broker.address();
    let get = async |path: &str, headers: &str| ask(address, "GET", path, headers, b"").await;
    for (path, kind, body) in [
        ("/", "text/html; charset=utf-8", "<p>home"),
        ("/index.html", "text/html; charset=utf-8", "<p>home"),
        ("/app.js?v=1", "text/javascript; charset=utf-8", "let a"),
        ("/inside", "text/javascript; charset=utf-8", "let a"),
        ("/a%20b.unknown", "application/octet-stream", "?"),
        ("/sub/", "text/html; charset=utf-8", "<p>sub"),
    ] {
        let answer = get(path, "").await;
        assert_eq!((answer.status, answer.text()), (200, body), "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    for path in [
        "/out",
        "/outside/a.txt",
        "/outside/",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/sub/../../secret.txt",
        "/.hidden",
        "/loop",
        "/empty/",
        "/empty",
        "/none",
        "/app.js/",
        "/app.js/x",
        "//etc/passwd",
        "/%00",
        "/%2fetc%2fpasswd",
    ] {
        let answer = get(path, "").await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    let moved = get("/sub", "").await;
    assert_eq!((moved.status, moved.header("location")), (301, Some("/sub/")));
    assert_eq!(get("/ws", "").await.status, 426, "WebSocket is there, whatever the folder holds");
    assert_eq!(ask(address, "POST", "/app.js", "", b"x").await.status, 404);

    let first = get("/app.js", "").await;
    let (tag, date) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    let known = |answer: Answer| {
        assert_eq!((answer.status, answer.header("etag")), (304, Some(tag)), "{answer:?}");
    };
    known(get("/app.js", &format!("If-None-Match: \"x\", W/{tag}\r\n")).await);
    known(get("/app.js", &format!("If-Modified-Since: {date}\r\n")).await);
    let other = format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n");
    assert_eq!(get("/app.js", &other).await.status, 200, "the tag counts for more");
    fs::write(site.join("app.js"), "let another").unwrap();
    let changed = get("/app.js", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((changed.status, changed.text()), (200, "let another"));

    let request = "HEAD /app.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let head = say(address, request.as_bytes()).await.to_lowercase();
    assert!(head.contains("content-length: 11\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn files_on_their_way_have_a_limit() {
    let root = std::env::temp_dir().join(format!("tandem-large-files-{}", std::process::id()));
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("large"), vec![b'.'; 12 << 20]).unwrap();
    fs::write(root.join("larger"), vec![b'.'; 17 << 20]).unwrap();
    let toml = format!("[http]\nfiles = {:?}\nfiles_bytes_max = 16777216\n", root.display().to_string());
    let broker = Broker::start_with(&toml).await;
    let address = broker.address();
    let request = b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (head, lazy) = head(address, request).await;
    assert_eq!(status(&head), 200, "{head}");
    // More of it than sockets hold is in memory while that one does not read.
    assert_eq!(ask(address, "GET", "/large", "", b"").await.status, 503);
    assert_eq!(ask(address, "GET", "/larger", "", b"").await.status, 500);
    drop(lazy);
    let served = async {
        while ask(address, "GET", "/large", "", b"").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    soon("room again", served).await;
    fs::remove_dir_all(&root).unwrap();
}

// ---- how it is ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn when_memory_is_short_nobody_new_comes_in_and_who_asks_is_told() {
    let broker = Broker::start_with("[memory]\nlimit_bytes = 1\n").await;
    let address = broker.address();
    eventually("it is noticed", || broker.server().readiness().reason().is_some()).await;
    assert_eq!(ask(address, "GET", "/health", "", b"").await.status, 200);
    let open = br#"{"protocols":["wamp.2.json"]}"#;
    for (method, path) in [("GET", "/ready"), ("POST", "/lp/open")] {
        let answer = ask(address, method, path, "", open).await;
        assert_eq!((answer.status, answer.text()), (503, "too much memory is in use\n"), "{path}");
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    let (head, _) = head(address, &upgrade("/", "localhost", "")).await;
    assert_eq!(status(&head), 503, "{head}");
    let error = say(address, CONNECT).await;
    assert!(error.starts_with("ERROR\n") && error.contains("too much memory"), "{error:?}");
    assert_eq!(say(address, &[0x7f, 0xf1, 0, 0]).await.len(), 4, "RawSocket has a word for it");
}

#[tokio::test]
async fn when_there_is_no_room_for_another_connection_who_asks_is_told_and_its_pages_are_there() {
    // The listener counts as one.
    let broker = Broker::start_with("[limits]\nconnections_max = 3\n").await;
    let address = broker.address();
    let mut inside = Vec::new();
    for _ in 0..2 {
        let (head, mut raw) = head(address, &upgrade("/", &address.to_string(), "")).await;
        assert_eq!(status(&head), 101, "{head}");
        raw.write(&frame(0x81, HELLO)).await;
        raw.read_until(b"[2,").await;
        inside.push(raw);
    }
    let open = br#"{"protocols":["wamp.2.json"]}"#;
    for (method, path, expected) in [
        ("GET", "/health", 200),
        ("GET", "/ready", 200),
        ("POST", "/health", 405),
        ("GET", "/", 503),
        ("GET", "/metrics", 503),
        ("POST", "/lp/open", 503),
        ("POST", "/sockjs/0/a/xhr", 503),
    ] {
        let mut http = Http::connect(address).await;
        http.ask(method, path, "", if method == "POST" { open } else { b"" }).await;
        let answer = http.answer().await.unwrap();
        assert_eq!(answer.status, expected, "{method} {path}");
        assert_eq!(answer.header("connection"), Some("close"), "one answer is all");
        if expected == 503 {
            assert_eq!(answer.text(), "too many connections\n");
            assert!(answer.header("retry-after").is_some());
        }
        assert!(http.is_closed().await);
    }
    let (full, _) = head(address, &upgrade("/", "localhost", "")).await;
    assert_eq!(status(&full), 503, "{full}");
    let error = say(address, CONNECT).await;
    assert!(error.starts_with("ERROR\n") && error.contains("too many connections"), "{error:?}");
    drop(inside);
    let let_in = async { while say_upgrade(address).await != 101 {} };
    soon("room again", let_in).await;
}

async fn say_upgrade(address: SocketAddr) -> u16 {
    status(&head(address, &upgrade("/", "localhost", "")).await.0)
}

/// Each listener used to keep a place for whoever would come to it next.
#[tokio::test]
async fn of_the_places_for_strangers_none_is_kept_for_those_who_did_not_come() {
    let toml = "listen = [\"127.0.0.1:0\", \"127.0.0.2:0\", \"127.0.0.3:0\"]\n[limits]\nstrangers_max = 1\n";
    let broker = Broker::start_with(toml).await;
    for &address in [0, 2, 1, 2, 0].map(|place| &broker.server().addresses()[place]) {
        let mut raw = Raw::connect(address).await;
        raw.write(CONNECT).await;
        let connected = soon("CONNECTED", raw.read_until(b"\0")).await;
        assert!(connected.starts_with(b"CONNECTED"));
    }
    let mut first = Raw::connect(broker.address()).await;
    first.write(b"CONN").await;
    let mut second = Raw::connect(broker.server().addresses()[1]).await;
    second.write(CONNECT).await;
    first.write(&CONNECT[4..]).await;
    first.read_until(b"\0").await;
    soon("the other's turn", second.read_until(b"\0")).await;
}

#[tokio::test]
async fn strangers_are_not_told_which_version_this_is() {
    let broker =
        Broker::start_with("[authentication]\nanonymous = \"never\"\nauthenticator = \"a.b\"\n").await;
    let address = broker.address();
    let version = env!("CARGO_PKG_VERSION");
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let abort = frame(0x81, br#"[1,"realm1",{"roles":{"subscriber":{}}}]"#);
    for said in [
        get("/health"),
        get("/ready"),
        get("/none"),
        b"NONSENSE\r\n\r\n".to_vec(),
        b"CONNECT\naccept-version:9.9\n\n\0".to_vec(),
        b"CONNECT\naccept-version:1.2\nhost:/\nlogin:a\npasscode:b\n\n\0".to_vec(),
        [upgrade("/", "localhost", ""), abort].concat(),
    ] {
        let answer = say(address, &said).await;
        assert!(!answer.is_empty() && !answer.contains(version), "{answer}");
    }
}

/// A page that is asked for again and again leads to no session, and holds a place among strangers.
#[tokio::test]
async fn an_http_connection_that_goes_on_asking_is_not_kept_for_ever() {
    let broker = Broker::start_with("[limits]\nstranger_time_s = 1\n").await;
    let mut http = Http::connect(broker.address()).await;
    let asking = async {
        loop {
            http.ask("GET", "/health", "", b"").await;
            let Some(answer) = http.answer().await else { break };
            assert_eq!(answer.status, 200);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the end", asking).await;
}

#[tokio::test]
async fn who_asks_for_a_long_poll_slowly_is_not_let_in_when_nobody_new_is_any_more() {
    let broker = Broker::start().await;
    let body = br#"{"protocols": ["wamp.2.json"]}"#;
    let mut http = Http::connect(broker.address()).await;
    let (address, length) = (broker.address(), body.len());
    let head = format!(
        "POST /lp/open HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    http.write(head.as_bytes()).await;
    assert_eq!(http.head().await.unwrap().status, 100, "it is being read");
    broker.server().readiness().set(Unready::Draining, true);
    http.write(body).await;
    let answer = http.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (503, "shutting down\n"));
}

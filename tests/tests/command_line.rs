//! The verbs of `tandem`, as a shell runs them: what they write, what they leave, and how they end.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use tandem_tests::daemon::{ConfigFile, Daemon, executable};

/// Longer than anything takes that does not hang, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

/// A user at a shell, with a configuration of their own.
struct Shell {
    folder: PathBuf,
    url: String,
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a verb came to.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The lines of JSON that it wrote.
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    #[track_caller]
    fn well(self) -> Ran {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    #[track_caller]
    fn with(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl Shell {
    fn at(url: impl Into<String>) -> Shell {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tandem-shell-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Shell { folder, url: url.into() }
    }

    fn of(daemon: &Daemon) -> Shell {
        Shell::at(format!("ws://{}/", daemon.address()))
    }

    /// A file with this in it.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(executable());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TANDEM_")) {
            command.env_remove(name);
        }
        command.args(words).env("XDG_CONFIG_HOME", &self.folder).env("TANDEM_URL", &self.url);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, words: &[&str]) -> Ran {
        finish(self.command(words).spawn().unwrap(), words).await
    }

    /// With this as standard input.
    async fn feed(&self, words: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        soon("standard input", stdin.write_all(input)).await.unwrap();
        drop(stdin);
        finish(child, words).await
    }

    /// Leaves it running once it says that it is ready.
    async fn start(&self, words: &[&str], ready: &str) -> Running {
        let mut child = self.command(words).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        let mut running = Running { child, out, err };
        running.says(ready).await;
        running
    }
}

async fn finish(child: Child, words: &[&str]) -> Ran {
    let output = soon(&words.join(" "), child.wait_with_output()).await.unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Running {
    /// Waits for a line on standard error.
    async fn says(&mut self, text: &str) {
        let mut all = String::new();
        while !all.contains(text) {
            let mut line = String::new();
            let count = soon(text, self.err.read_line(&mut line)).await.unwrap();
            assert!(count > 0, "it ended without {text:?}: {all}");
            all += &line;
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        soon("a line", self.out.read_line(&mut line)).await.unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.unwrap().success());
    }

    async fn end(mut self) -> Ran {
        let status = soon("the end", self.child.wait()).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        soon("its output", self.out.read_to_string(&mut out)).await.unwrap();
        soon("its remarks", self.err.read_to_string(&mut err)).await.unwrap();
        Ran { code: status.code().unwrap_or(-1), out, err }
    }
}

#[tokio::test]
async fn what_is_published_is_seen_by_who_subscribed_in_either_language() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    for language in ["wamp", "stomp"] {
        let sub = ["sub", "com.example.news", "--count", "2", "--language", language];
        let sub = shell.start(&sub, "subscribed").await;
        shell.run(&["pub", "com.example.news", "Hello", "--language", language]).await.well();
        shell.run(&["pub", "com.example.news", "{\"a\":1}", "--language", language]).await.well();
        assert_eq!(sub.end().await.well().out, "Hello\n{\"a\":1}\n", "{language}");
    }
}

#[tokio::test]
async fn events_are_lines_of_json_and_a_pattern_is_known_by_its_look() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    for (pattern, format) in
        [("com.example.", "json"), ("com..price", "msgpack"), ("com.example.price", "cbor")]
    {
        let words = ["sub", pattern, "--count", "1", "--json", "--serializer", format];
        let sub = shell.start(&words, "subscribed").await;
        let published = shell
            .run(&[
                "pub",
                "com.example.price",
                "1.5",
                "text",
                "-k",
                "at=noon",
                "--kwargs",
                "{\"n\":1}",
                "--json",
            ])
            .await
            .well();
        let events = sub.end().await.well().json();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["kind"], "event");
        assert_eq!(events[0]["topic"], "com.example.price");
        assert_eq!(events[0]["args"], json!([1.5, "text"]));
        assert_eq!(events[0]["kwargs"], json!({"at": "noon", "n": 1}));
        assert_eq!(events[0]["publication"], published.json()[0]["publication"]);
    }
}

#[tokio::test]
async fn payloads_come_from_words_files_and_standard_input() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    let text = format!("@{}", shell.file("text", "from a file"));
    let bytes = format!("@{}", shell.file("bytes", [0xff, 0x00, 0x01]));
    let sub = shell.start(&["sub", "com.example.t", "--count", "7", "--json"], "subscribed").await;
    shell.run(&["pub", "com.example.t", &text, "@@literal", "-5"]).await.well();
    shell.run(&["pub", "com.example.t", &bytes]).await.well();
    shell.feed(&["pub", "com.example.t", "-"], b"{\"from\": \"stdin\"}").await.well();
    shell.run(&["pub", "com.example.t", "5", "--raw"]).await.well();
    shell.run(&["pub", "com.example.t"]).await.well();
    shell.feed(&["pub", "com.example.t", "--lines"], b"1\r\nlast").await.well();
    let args: Vec<Value> =
        sub.end().await.well().json().into_iter().map(|event| event["args"].clone()).collect();
    let expected = json!([
        ["from a file", "@literal", -5], ["\u{0}/wAB"], [{"from": "stdin"}], ["5"], [], [1], ["last"]
    ]);
    assert_eq!(json!(args), expected);
    let missing = shell.run(&["pub", "com.example.t", "@/there/is/nothing"]).await.with(2);
    assert!(missing.err.contains("/there/is/nothing"), "{missing:?}");
}

#[tokio::test]
async fn a_command_serves_a_procedure_and_its_failure_is_an_error() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    let script = "read line; case \"$line\" in *bad*) echo because >&2; exit 7;; *) echo \"$line\";; esac";
    let register = ["register", "com.example.show", "--exec", script, "--count", "3", "--json"];
    let register = shell.start(&register, "registered").await;
    let result =
        shell.run(&["call", "com.example.show", "2", "three", "-k", "four=4", "--json"]).await.well();
    let expected = json!({"procedure": "com.example.show", "args": [2, "three"], "kwargs": {"four": 4}});
    assert_eq!(result.json(), [json!({"kind": "result", "args": [expected], "kwargs": {}})]);
    let failed = shell.run(&["call", "com.example.show", "bad", "--json"]).await.with(1);
    assert_eq!(failed.json()[0]["error"], "wamp.error.runtime_error");
    assert_eq!(failed.json()[0]["args"], json!(["because"]));
    assert_eq!(failed.json()[0]["kwargs"], json!({"exit": 7}));
    assert!(failed.err.contains("because"), "{failed:?}");
    // In the other language, too.
    let called = shell.run(&["call", "com.example.show", "5", "--language", "stomp"]).await.well();
    assert!(called.out.contains("\"args\":[5]"), "{called:?}");
    let told = register.end().await.well().json();
    let outcomes: Vec<&str> = told.iter().map(|call| call["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["answered", "wamp.error.runtime_error: because", "answered"]);
}

#[tokio::test]
async fn a_procedure_may_echo_or_reply_and_is_withdrawn_at_the_end() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    let echo = shell.start(&["register", "com.example.echo.", "--echo"], "registered").await;
    let reply = ["register", "com.example.version", "--reply", "\"1.0\"", "--count", "1"];
    let reply = shell.start(&reply, "registered").await;
    assert_eq!(shell.run(&["call", "com.example.echo.x", "1", "2"]).await.well().out, "[1,2]\n");
    assert_eq!(shell.run(&["call", "com.example.version"]).await.well().out, "1.0\n");
    reply.end().await.well();
    shell.run(&["call", "com.example.version"]).await.with(1);
    echo.signal("INT");
    echo.end().await.well();
    shell.run(&["call", "com.example.echo.x"]).await.with(1);
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_with_5_and_its_command_with_it() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    let mark = shell.folder.join("ended").to_str().unwrap().to_owned();
    let script = format!("trap 'touch {mark}; exit' TERM; echo begun >&2; sleep 1000 & wait");
    let mut register = shell.start(&["register", "com.example.slow", "--exec", &script], "registered").await;
    shell.run(&["call", "com.example.slow", "--timeout", "0.5"]).await.with(5);
    register.says("begun").await;
    tandem_tests::broker::eventually("the command is told to end", || fs::exists(&mark).unwrap()).await;
    let call = shell.command(&["call", "com.example.slow"]).spawn().unwrap();
    register.says("begun").await;
    let id = call.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    finish(call, &["call"]).await.with(130);
}

#[tokio::test]
async fn what_is_sent_is_consumed_and_then_gone_in_either_language() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    for language in ["stomp", "wamp"] {
        let sent = ["send", "orders", "{\"number\":1}", "--persistent", "--json", "--language", language];
        let sent = shell.run(&sent).await.well();
        assert_eq!((&sent.json()[0]["kind"], &sent.json()[0]["confirmed"]), (&json!("sent"), &json!(true)));
        let consume = ["consume", "orders", "--count", "1", "--json", "--language", language];
        let consumed = shell.run(&consume).await.well().json();
        let body = if language == "stomp" { &consumed[0]["body"] } else { &consumed[0]["args"][0] };
        assert_eq!((&consumed[0]["kind"], body), (&json!("message"), &json!({"number": 1})), "{consumed:?}");
        let empty = ["consume", "orders", "--timeout", "0.3", "--language", language];
        shell.run(&empty).await.with(5);
    }
}

#[tokio::test]
async fn lines_become_messages_and_each_is_counted() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    let input: String = (0..300).map(|number| format!("{number}\n")).collect();
    let sent = shell.feed(&["send", "numbers", "--lines", "--json"], input.as_bytes()).await.well();
    assert_eq!(sent.json()[0]["count"], 300);
    assert!(sent.err.contains("300 sent"), "{sent:?}");
    assert_eq!(shell.run(&["consume", "numbers", "--count", "300"]).await.well().out, input);
}

#[tokio::test]
async fn a_message_that_a_command_fails_at_is_given_back() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    for language in ["stomp", "wamp"] {
        shell.run(&["send", "orders", "one"]).await.well();
        let consume = |script: &'static str| {
            ["consume", "orders", "--exec", script, "--count", "1", "--json", "--language", language]
        };
        let failed = shell.run(&consume("exit 3")).await.with(1);
        assert_eq!((&failed.json()[0]["done"], &failed.json()[0]["exit"]), (&json!(false), &json!(3)));
        // That is nothing against the message, and would be nothing against the next.
        shell.run(&consume("no-such-command")).await.with(2);
        shell.run(&consume("/")).await.with(2);
        let worked =
            shell.run(&consume("cat; echo; echo $TANDEM_REDELIVERED $TANDEM_DESTINATION")).await.well();
        let output = worked.json()[0]["output"].as_str().unwrap().to_owned();
        let destination = if language == "stomp" { "/queue/orders" } else { "orders" };
        assert!(output.contains("one") && output.contains(&format!("true {destination}")), "{output}");
        shell.run(&["consume", "orders", "--timeout", "0.3", "--language", language]).await.with(5);
    }
}

#[tokio::test]
async fn a_message_in_work_is_given_back_when_its_worker_is_interrupted() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    shell.run(&["send", "orders", "one"]).await.well();
    for signal in ["INT", "TERM"] {
        let worker = ["consume", "orders", "--exec", "echo begun >&2; sleep 1000"];
        let worker = shell.start(&worker, "begun").await;
        worker.signal(signal);
        worker.end().await.well();
    }
    assert_eq!(shell.run(&["consume", "orders", "--count", "1"]).await.well().out, "one\n");
}

#[tokio::test]
async fn a_worker_outlives_its_broker() {
    let (daemon, address) = {
        let daemon = Daemon::start(&[]);
        let address = daemon.address().to_string();
        (daemon, address)
    };
    let shell = Shell::at(format!("tcp://{address}"));
    let mut worker = shell.start(&["consume", "orders", "--exec", "cat; echo"], "consuming").await;
    drop(daemon);
    worker.says("the connection was lost").await;
    let again = Command::new(executable())
        .args(["serve", "--listen", &address, "--log", "error"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    worker.says("connected again").await;
    shell.run(&["send", "orders", "after"]).await.well();
    assert_eq!(worker.line().await, "after");
    worker.signal("INT");
    worker.end().await.well();
    drop(again);
}

#[tokio::test]
async fn tail_shows_topics_and_queues_and_takes_nothing() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    shell.run(&["send", "orders", "waits"]).await.well();
    let mut tail =
        shell.start(&["tail", "news", "/queue/orders", "--count", "3"], "following /queue/orders").await;
    assert_eq!(tail.line().await, "/queue/orders waits");
    shell.run(&["pub", "news", "Hello"]).await.well();
    assert_eq!(tail.line().await, "/topic/news Hello");
    shell.run(&["send", "orders", "comes"]).await.well();
    assert_eq!(tail.line().await, "/queue/orders comes");
    tail.end().await.well();
    assert_eq!(shell.run(&["consume", "orders", "--count", "2"]).await.well().out, "waits\ncomes\n");
}

#[tokio::test]
async fn ping_measures_round_trips_in_either_language_over_any_wire() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    for scheme in ["ws", "tcp", "http"] {
        let path = if scheme == "http" { "/lp" } else { "" };
        let url = format!("{scheme}://{}{path}", daemon.address());
        for language in ["wamp", "stomp"] {
            let words = [
                "ping",
                "--url",
                &url,
                "--language",
                language,
                "--count",
                "3",
                "--interval",
                "0.01",
                "--json",
            ];
            let pinged = shell.run(&words).await.well().json();
            assert_eq!((&pinged[0]["kind"], &pinged[0]["count"]), (&json!("ping"), &json!(3)), "{url}");
            assert!(pinged[0]["p50_ms"].as_f64().unwrap() <= pinged[0]["p99_ms"].as_f64().unwrap());
        }
    }
}

#[tokio::test]
async fn top_samples_sessions_topics_procedures_queues_and_rates() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    let _sub = shell.start(&["sub", "com.example.news"], "subscribed").await;
    let _register = shell.start(&["register", "com.example.echo", "--echo"], "registered").await;
    shell.run(&["send", "orders", "one"]).await.well();
    let sample = shell.run(&["top", "--json"]).await.well().json().remove(0);
    assert_eq!((&sample["kind"], &sample["sessions"]), (&json!("sample"), &json!(3)), "{sample}");
    assert_eq!(
        sample["topics"]["some"][0],
        json!({"topic": "com.example.news", "match": "exact", "subscribers": 1})
    );
    assert_eq!(sample["procedures"]["some"][0]["procedure"], "com.example.echo");
    assert_eq!(
        (&sample["queues"][0]["queue"], &sample["queues"][0]["messages"]),
        (&json!("orders"), &json!(1))
    );
    assert!(sample["rates"]["messages_in"].as_f64().unwrap() > 0.0, "{sample}");
    assert!(sample["waiting"].is_array() && sample["metrics"]["tandem_sessions"].is_number());
    // Without a terminal it is one sample as text.
    let text = shell.run(&["top"]).await.well().out;
    for part in
        ["sessions of the realm 3", "orders", "com.example.news", "com.example.echo", "messages in", "SLOW"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
}

#[tokio::test]
async fn exit_codes_tell_what_went_wrong() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    shell.run(&["call", "com.example.nobody"]).await.with(1);
    shell.run(&["call"]).await.with(2);
    shell.run(&["pub", "a", "--url", "nonsense"]).await.with(2);
    shell.run(&["pub", "a", "--language", "stomp", "one", "two"]).await.with(2);
    shell.run(&["tail", "a", "--language", "wamp"]).await.with(2);
    for url in ["ws://127.0.0.1:1/", "tcp://127.0.0.1:1", "unix:/there/is/nothing"] {
        let words = ["call", "com.example.add", "--url", url, "--json"];
        let failed = shell.run(&words).await.with(3);
        assert_eq!(
            (&failed.json()[0]["kind"], &failed.json()[0]["exit"]),
            (&json!("error"), &json!(3)),
            "{url}"
        );
        shell.run(&["send", "orders", "1", "--url", url]).await.with(3);
    }
    shell.run(&["pub", "a", "--realm", "nowhere"]).await.with(4);
    shell.run(&["sub", "a", "--timeout", "0.2"]).await.with(5);
    shell.run(&["consume", "a", "--timeout", "0.2"]).await.with(5);
}

#[tokio::test]
async fn whoever_logs_in_has_a_secret_that_is_no_argument() {
    let setup = Shell::at("");
    let hash = setup.feed(&["hash-password"], b"wonderland\n").await.well().out;
    let cra = setup.feed(&["hash-password", "--for", "wampcra"], b"wonderland\n").await.well().out;
    let config = format!(
        "[authentication]\nanonymous = \"never\"\n\n[[users]]\nname = \"alice\"\npassword = \"{}\"\nwampcra = \"{}\"\n\n\
         [[permissions]]\nrole = \"user\"\nactions = [\"publish\", \"send\", \"call\"]\nname = \"app.\"\nmatch = \"prefix\"\nallow = true\n",
        hash.trim(),
        cra.trim()
    );
    let file = ConfigFile::new(&config);
    let daemon = Daemon::start(&["--config", file.path()]);
    let shell = Shell::of(&daemon);
    let good = shell.file("good", "wonderland\n");
    let wrong = shell.file("wrong", "looking-glass\n");
    for (verb, language) in [("pub", "wamp"), ("pub", "stomp"), ("send", "stomp")] {
        let with = |more: &[&str]| {
            let mut words = vec![verb.to_owned(), "app.news".to_owned(), "Hello".to_owned()];
            words.extend(["--language".to_owned(), language.to_owned()]);
            words.extend(more.iter().map(|&word| word.to_owned()));
            words
        };
        let run = async |more: &[&str]| {
            let words = with(more);
            shell.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        run(&[]).await.with(4);
        run(&["--user", "alice", "--password-file", &wrong]).await.with(4);
        run(&["--user", "alice", "--password-file", &good]).await.well();
        let refused = run(&["--user", "alice", "--password", "wonderland"]).await.with(2);
        assert!(refused.err.contains("--password-file"), "{refused:?}");
        // Nobody can be asked.
        run(&["--user", "alice"]).await.with(2);
        let words = with(&["--user", "alice"]);
        let mut command = shell.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        finish(command.env("TANDEM_PASSWORD", "wonderland").spawn().unwrap(), &["TANDEM_PASSWORD"])
            .await
            .well();
    }
    for method in ["ticket", "wampcra"] {
        let words = ["pub", "app.news", "1", "--user", "alice", "--password-file", &good, "--auth", method];
        shell.run(&words).await.well();
    }
    // What is let in may not do everything.
    for language in ["wamp", "stomp"] {
        let words =
            ["pub", "other", "1", "--user", "alice", "--password-file", &good, "--language", language];
        let refused = shell.run(&words).await.with(4);
        assert_eq!(refused.err.lines().count(), 1, "it is said once: {refused:?}");
    }
}

#[tokio::test]
async fn contexts_say_where_and_who_below_the_environment_and_flags() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    let without_url = |words: &[&str]| {
        let mut command = shell.command(words);
        command.env_remove("TANDEM_URL");
        command.spawn().unwrap()
    };
    let run = async |words: &[&str]| finish(without_url(words), words).await;
    run(&["context", "show"]).await.with(2);
    run(&["context", "add", "here", "--url", &shell.url]).await.well();
    run(&["context", "add", "gone", "--url", "ws://127.0.0.1:1/", "--realm", "realm1"]).await.well();
    let listed = run(&["context", "list", "--json"]).await.well().json();
    assert_eq!((listed.len(), &listed[1]["name"], &listed[1]["current"]), (2, &json!("here"), &json!(true)));
    run(&["pub", "a", "1"]).await.well();
    run(&["pub", "a", "1", "--context", "gone"]).await.with(3);
    run(&["context", "use", "gone"]).await.well();
    run(&["pub", "a", "1"]).await.with(3);
    // The environment counts more, and a flag more than that.
    shell.run(&["pub", "a", "1"]).await.well();
    shell.run(&["pub", "a", "1", "--url", "ws://127.0.0.1:1/"]).await.with(3);
    run(&["pub", "a", "1", "--url", &shell.url]).await.well();
    let unknown = run(&["pub", "a", "--context", "nothing"]).await.with(2);
    assert!(unknown.err.contains("gone, here"), "{unknown:?}");
    assert!(run(&["context", "show", "gone"]).await.well().out.contains("127.0.0.1:1"));
    run(&["context", "remove", "gone"]).await.well();
    run(&["context", "use", "gone"]).await.with(2);
    run(&["context", "add", "bad", "--url", "nonsense"]).await.with(2);
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(shell.folder.join("tandem/contexts.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_login_of_a_context_is_shown_to_its_broker_alone() {
    let hash = Shell::at("").feed(&["hash-password"], b"wonderland\n").await.well().out;
    let config = format!("[[users]]\nname = \"alice\"\npassword = \"{}\"\n", hash.trim());
    let daemon = Daemon::start_with(&config);
    let shell = Shell::of(&daemon);
    let secret = shell.file("secret", "looking-glass\n");
    let add = |url: &str| {
        ["context", "add", "shop", "--url", url, "--user", "alice", "--password-file", &secret]
            .map(str::to_owned)
    };
    let run = async |words: &[String]| shell.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    run(&add("ws://127.0.0.1:1/")).await.well();
    shell.run(&["ping", "--count", "1"]).await.well();
    // Of this broker it is, and wrong.
    run(&add(&shell.url)).await.well();
    shell.run(&["ping", "--count", "1"]).await.with(4);
    // And somebody else's is not ours.
    shell.run(&["ping", "--count", "1", "--user", "bob"]).await.with(2);
}

#[tokio::test]
async fn shells_are_completed_and_every_verb_has_a_manual_page() {
    let shell = Shell::at("");
    for name in ["bash", "zsh", "fish"] {
        let script = shell.run(&["completions", name]).await.well().out;
        assert!(script.contains("consume") && script.contains("password-file"), "{name}");
    }
    let folder = shell.folder.join("man");
    shell.run(&["man", folder.to_str().unwrap()]).await.well();
    for verb in ["", "-pub", "-consume", "-top", "-context-add"] {
        let page = fs::read_to_string(folder.join(format!("tandem{verb}.1"))).unwrap();
        assert!(page.contains(".SH") && page.len() > 500, "tandem{verb}.1: {page}");
    }
}

#[tokio::test]
async fn the_help_of_each_verb_has_an_example_and_no_colour_without_a_terminal() {
    let shell = Shell::at("");
    let verbs = [
        "serve",
        "check-config",
        "permission",
        "hash-password",
        "bench",
        "pub",
        "sub",
        "call",
        "register",
        "send",
        "consume",
        "tail",
        "ping",
        "top",
        "context",
        "completions",
        "man",
    ];
    let all = shell.run(&["--help"]).await.well().out;
    assert!(all.contains("Exit codes:"), "{all}");
    for verb in verbs {
        assert!(all.contains(&format!("  {verb} ")), "{verb}: {all}");
        let help = shell.run(&[verb, "--help"]).await.well().out;
        assert!(help.contains("Examples:") && help.contains(&format!("tandem {verb}")), "{verb}: {help}");
        assert!(!help.contains('\x1b'), "{help}");
    }
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_a_subscription_quietly() {
    let daemon = Daemon::start(&[]);
    let shell = Shell::of(&daemon);
    let mut sub = shell.start(&["sub", "a"], "subscribed").await;
    shell.run(&["pub", "a", "one"]).await.well();
    assert_eq!(sub.line().await, "one");
    let Running { mut child, out, mut err } = sub;
    drop(out);
    shell.run(&["pub", "a", "two"]).await.well();
    assert!(soon("the end", child.wait()).await.unwrap().success());
    let mut said = String::new();
    soon("its remarks", err.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "");
}

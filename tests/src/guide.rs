//! Pages that say how something is done, and their snippets as whoever follows them runs them.
//!
//! What is done with a fenced block, the words after its backticks say:
//!
//! | words | |
//! |---|---|
//! | `sh` | run to its end, which must be a good one |
//! | `sh stays` | run until the page ends, or until a broker is started in its place |
//! | `js console` | typed into the console of a browser that shows the page `/health`, or the one that was last opened |
//! | `js node`, `js node stays` | run by node, with the packages of `conformance/` |
//! | `py`, `py stays` | the same in Python |
//! | `text prints` | what the block before it writes: line by line, `…` standing for anything |
//! | `text console` | what the console shows from the beginning to the end of the page, in this order; other lines may be between |
//! | `… file=NAME` | written to that file |
//! | `rust example=PATH` | the text of that file |
//! | `toml` | read as a configuration |
//! | `json`, `text`, `nginx`, … | shown |
//!
//! `npm install` and `pip install` take the packages of `conformance/`. One that begins with `<!-- shown: REASON -->` on the line before it
//! is not looked at. The port 8080 of a page is another one here, and a release build this one.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tandem_broker::config::Config;

use crate::daemon::executable;

/// How long anything may take that does not hang, on a machine that does much else; `cargo run` builds first.
const PATIENCE: Duration = Duration::from_secs(90);
const PATIENCE_TO_BUILD: Duration = Duration::from_secs(900);

/// Where Debian has its browser.
const CHROMIUM: &str = "/usr/bin/chromium";

/// Why something is left out.
pub const NO_PACKAGES: &str = "conformance/setup has installed no packages";
const NO_CONSOLE: &str = "what would be shown in a console was left out";

/// The folder of all of it.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in a folder")
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The line of its fence, counted from 1.
    pub line: usize,
    /// What is behind the backticks.
    pub words: Vec<String>,
    /// What is in it.
    pub text: String,
    /// Why it is only shown.
    pub shown: Option<String>,
}

impl Block {
    fn is(&self, words: &[&str]) -> bool {
        self.words.iter().map(String::as_str).eq(words.iter().copied())
    }

    /// What is behind `key=`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// The blocks of a page.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut shown = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text = format!("{}{line}\n", block.text),
            (None, Some(words)) => {
                let words = words.split_whitespace().map(str::to_owned).collect();
                open = Some(Block { line: number + 1, words, text: String::new(), shown: shown.take() });
            }
            (None, None) => {
                let reason = line.strip_prefix("<!-- shown: ").and_then(|rest| rest.strip_suffix(" -->"));
                shown = reason.map(str::to_owned);
            }
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    blocks
}

/// Something that was started, with all that it started itself.
struct Running {
    what: String,
    child: Child,
    written: PathBuf,
    remarks: PathBuf,
    is_broker: bool,
    /// What it is to have written by the end of the page.
    expected: Option<String>,
}

impl Running {
    fn out(&self) -> String {
        fs::read_to_string(&self.written).unwrap_or_default()
    }

    fn err(&self) -> String {
        fs::read_to_string(&self.remarks).unwrap_or_default()
    }

    fn end(mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).stderr(Stdio::null()).status();
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// What the block before was.
enum Last {
    /// It has ended, and has written this.
    Ended(String),
    /// The last of those that run.
    Stays,
    LeftOut,
    Nothing,
}

/// A console of a browser.
struct Console {
    running: Running,
    typed: ChildStdin,
}

/// Somebody who follows a page, in a folder of their own.
pub struct Reader {
    page: String,
    folder: PathBuf,
    port: u16,
    files: usize,
    running: Vec<Running>,
    console: Option<Console>,
    /// Who writes what the next block expects.
    last: Last,
    /// What was left out, and why.
    pub skipped: Vec<String>,
    /// The text of all that.
    left_out: String,
}

impl Reader {
    /// Follows a page from its beginning to its end. With a broker, if none of its blocks starts one first.
    pub fn follow(page: &str, with_broker: bool) -> Reader {
        let text = fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        let folder =
            std::env::temp_dir().join(format!("tandem-{}-{}", std::process::id(), page.replace('/', "-")));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("there is a place for temporary files");
        let mut reader = Reader {
            page: page.to_owned(),
            folder,
            port: free_port(),
            files: 0,
            running: Vec::new(),
            console: None,
            last: Last::Nothing,
            skipped: Vec::new(),
            left_out: String::new(),
        };
        if with_broker {
            reader.shell("tandem serve", true, "the broker of the page");
        }
        for block in blocks(&text) {
            reader.do_block(&block);
        }
        reader.finish();
        reader
    }

    fn do_block(&mut self, block: &Block) {
        let place = format!("{}:{}", self.page, block.line);
        if let Some(reason) = &block.shown {
            self.skipped.push(format!("{place}: {reason}"));
            return;
        }
        if let Some(name) = block.value("file") {
            let path = self.folder.join(name);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("folders can be made");
            fs::write(&path, self.adapt(&block.text)).expect("files can be written");
        }
        if let Some(path) = block.value("example") {
            let text = fs::read_to_string(root().join(path))
                .unwrap_or_else(|error| panic!("{place}: {path}: {error}"));
            assert_eq!(text, block.text, "{place} is not {path} any more: TANDEM_BLESS=1 writes it anew");
        }
        let kind = block.words.first().map_or("", String::as_str);
        match kind {
            _ if block.value("file").is_some() && kind != "toml" => {}
            // Of a program's Cargo.toml.
            "toml" if block.is(&["toml", "dependencies"]) => {}
            "toml" => drop(Config::parse(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"))),
            "sh" if block.is(&["sh"]) => self.shell(&block.text, false, &place),
            "sh" if block.is(&["sh", "stays"]) => self.shell(&block.text, true, &place),
            "js" if block.is(&["js", "console"]) => self.type_into_console(&block.text, &place),
            "js" if block.is(&["js", "node"]) => self.node(&block.text, false, &place),
            "js" if block.is(&["js", "node", "stays"]) => self.node(&block.text, true, &place),
            "py" if block.is(&["py"]) => self.python(&block.text, false, &place),
            "py" if block.is(&["py", "stays"]) => self.python(&block.text, true, &place),
            "text" if block.is(&["text", "prints"]) => self.expect(&block.text, &place),
            "text" if block.is(&["text", "console"]) => match &mut self.console {
                Some(console) => {
                    let expected = console.running.expected.get_or_insert_default();
                    expected.push_str(&block.text);
                }
                None => self.skipped.push(format!("{place}: {NO_CONSOLE}")),
            },
            "rust" => assert!(block.value("example").is_some(), "{place}: nobody compiles this"),
            "sh" | "js" | "py" => panic!("{place}: nobody runs this: {:?}", block.words),
            _ => {}
        }
    }

    /// As it is typed here.
    fn adapt(&self, text: &str) -> String {
        let address = format!("127.0.0.1:{}", self.port);
        let mut adapted = String::new();
        for line in text.lines() {
            let mut line = line
                .replace("127.0.0.1:8080", &address)
                .replace("127.0.0.1/8080", &address.replace(':', "/"))
                .replace("'127.0.0.1', 8080", &format!("'127.0.0.1', {}", self.port));
            line = line.replace("cargo run --release -- ", "tandem ");
            if line.starts_with("npm install ") {
                line =
                    format!("ln -sfn '{}' node_modules", root().join("conformance/node_modules").display());
            }
            // Here it is the interpreter that has them.
            if line.starts_with("pip install ") || line.starts_with("python3 -m venv ") {
                line = "true".to_owned();
            }
            if let Some(rest) = line.strip_prefix("tandem serve") {
                line = format!("exec tandem serve --listen {address}{rest}");
            }
            if line.starts_with("cargo run --release -p tandem-client --example ") {
                let manifest = root().join("Cargo.toml");
                let command = format!("cargo run --quiet --manifest-path '{}'", manifest.display());
                line = line.replace("cargo run --release", &command);
                let (command, remark) = line.split_once('#').unwrap_or((&line, ""));
                line = format!("{} ws://{address}/ #{remark}", command.trim_end());
            }
            adapted += &line;
            adapted.push('\n');
        }
        adapted
    }

    fn shell(&mut self, text: &str, stays: bool, place: &str) {
        if text.contains("npm install ") && modules().is_none() {
            return self.leave_out(text, place, NO_PACKAGES);
        }
        let script = self.adapt(text);
        let is_broker = script.contains("exec tandem serve");
        if is_broker {
            // Ctrl-C, and another one.
            let (brokers, others) = self.running.drain(..).partition(|running| running.is_broker);
            self.running = others;
            let brokers: Vec<Running> = brokers;
            brokers.into_iter().for_each(Running::end);
        }
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script]);
        self.run(command, stays || is_broker, is_broker, place);
    }

    fn node(&mut self, text: &str, stays: bool, place: &str) {
        let Some(modules) = modules() else { return self.leave_out(text, place, NO_PACKAGES) };
        let link = self.folder.join("node_modules");
        if !link.exists() {
            std::os::unix::fs::symlink(modules, &link).expect("links can be made");
        }
        let file = self.snippet(text, "mjs");
        let mut command = Command::new("node");
        command.arg(file);
        self.run(command, stays, false, place);
    }

    fn python(&mut self, text: &str, stays: bool, place: &str) {
        let file = self.snippet(text, "py");
        let mut command = Command::new(python().unwrap_or_else(|| panic!("{place}: {NO_PACKAGES}")));
        command.arg(file);
        self.run(command, stays, false, place);
    }

    /// A program in a file of its own.
    fn snippet(&mut self, text: &str, extension: &str) -> PathBuf {
        self.files += 1;
        let file = self.folder.join(format!("snippet-{}.{extension}", self.files));
        fs::write(&file, self.adapt(text)).expect("files can be written");
        file
    }

    /// What it would have written is not expected.
    fn leave_out(&mut self, text: &str, place: &str, reason: &str) {
        self.skipped.push(format!("{place}: {reason}"));
        self.left_out.push_str(text);
        self.last = Last::LeftOut;
    }

    fn start(&mut self, mut command: Command, is_broker: bool, place: &str) -> Running {
        self.files += 1;
        let written = self.folder.join(format!(".out-{}", self.files));
        let remarks = self.folder.join(format!(".err-{}", self.files));
        let mut path = std::ffi::OsString::from(executable().parent().expect("it is in a folder"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let version = Command::new("node").arg("--version").output().ok();
        if version.is_some_and(|version| version.stdout.starts_with(b"v20.")) {
            // What newer ones have without being asked.
            command.env("NODE_OPTIONS", "--experimental-websocket");
        }
        let child = command
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("TANDEM_URL", format!("ws://127.0.0.1:{}/", self.port))
            .env("XDG_CONFIG_HOME", &self.folder)
            .env("NO_COLOR", "1")
            .process_group(0)
            .stdout(File::create(&written).expect("files can be made"))
            .stderr(File::create(&remarks).expect("files can be made"))
            .spawn()
            .unwrap_or_else(|error| panic!("{place}: {error}"));
        Running { what: place.to_owned(), child, written, remarks, is_broker, expected: None }
    }

    fn run(&mut self, mut command: Command, stays: bool, is_broker: bool, place: &str) {
        command.stdin(Stdio::null());
        let mut running = self.start(command, is_broker, place);
        if stays {
            // It says so when it is ready: a broker by taking connections, others by a first word.
            let port = self.port;
            wait(&format!("{place} is ready"), PATIENCE_TO_BUILD, || {
                let ended = running.child.try_wait().expect("it is ours");
                assert!(ended.is_none(), "{place}: {ended:?}: {}", running.err());
                match is_broker {
                    true => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
                    false => !running.err().is_empty() || !running.out().is_empty(),
                }
            });
            self.running.push(running);
            self.last = Last::Stays;
            return;
        }
        let mut ended = None;
        wait(&format!("{place} ends"), PATIENCE_TO_BUILD, || {
            ended = running.child.try_wait().expect("it is ours");
            ended.is_some()
        });
        let ended = ended.expect("it was waited for");
        assert!(ended.success(), "{place}: {ended}\n{}\n{}", running.out(), running.err());
        // What examples have to say they write to standard error.
        let written = running.out();
        self.last = Last::Ended(if written.is_empty() { running.err() } else { written });
    }

    fn type_into_console(&mut self, text: &str, place: &str) {
        if self.console.is_none() {
            if modules().is_none() {
                return self.leave_out(text, place, NO_PACKAGES);
            }
            if !Path::new(CHROMIUM).exists() {
                return self.leave_out(text, place, &format!("there is no {CHROMIUM}"));
            }
            self.console = Some(self.open_console(place));
        }
        let line = serde_json::to_string(&self.adapt(text)).expect("text is JSON");
        let console = self.console.as_mut().expect("it was opened");
        let before = console.running.out().matches("\u{4}").count();
        writeln!(console.typed, "{line}").expect("the browser listens");
        // Each line that was typed is answered by one that only says so.
        wait(&format!("{place} is done"), PATIENCE, || {
            console.running.out().matches("\u{4}").count() > before
        });
        self.last = Last::Nothing;
    }

    fn open_console(&mut self, place: &str) -> Console {
        let has_page = self.folder.join("www/index.html").exists();
        let page = if has_page { "" } else { "health" };
        let mut command = Command::new("node");
        command.arg(root().join("conformance/clients/console.mjs"));
        command.arg(format!("http://127.0.0.1:{}/{page}", self.port)).stdin(Stdio::piped());
        let mut running = self.start(command, false, place);
        let typed = running.child.stdin.take().expect("it is piped");
        wait(&format!("{place}: a browser"), PATIENCE, || {
            let ended = running.child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "{place}: {ended:?}: {}", running.err());
            running.out().contains('\u{4}')
        });
        Console { running, typed }
    }

    fn expect(&mut self, text: &str, place: &str) {
        match std::mem::replace(&mut self.last, Last::Nothing) {
            Last::Ended(last) => {
                assert!(is_like(&last, text), "{place}: expected\n{text}\nand it was\n{last}");
            }
            Last::Stays => {
                let running = self.running.last_mut().expect("it was started");
                running.expected = Some(text.to_owned());
            }
            Last::LeftOut => self.skipped.push(format!("{place}: what would write it was left out")),
            Last::Nothing => panic!("{place}: nothing writes this"),
        }
    }

    fn finish(&mut self) {
        if let Some(console) = self.console.take() {
            if let Some(expected) = &console.running.expected {
                let what = format!("{}: in the console\n{expected}", console.running.what);
                wait_or(&what, || has_in_order(&console.running.out(), expected), || console.running.out());
            }
            drop(console.typed);
            console.running.end();
        }
        for running in &self.running {
            if let Some(expected) = &running.expected {
                let expected = without(expected, &self.left_out);
                let what = format!("{} writes\n{expected}", running.what);
                wait_or(&what, || is_like(&running.out(), &expected), || running.out() + &running.err());
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.running.drain(..).for_each(Running::end);
        if let Some(console) = self.console.take() {
            drop(console.typed);
            console.running.end();
        }
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A port below those that the system gives to whoever asks for any, so that nobody has it a moment later.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 8000).expect("it is less");
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The packages of `conformance/`, where they are installed.
fn modules() -> Option<PathBuf> {
    let modules = root().join("conformance/node_modules");
    modules.exists().then_some(modules)
}

/// The interpreter that has the packages of `conformance/`, where they are installed.
pub fn python() -> Option<PathBuf> {
    let interpreter = root().join("conformance/.venv/bin/python");
    interpreter.exists().then_some(interpreter)
}

fn wait(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < patience, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn wait_or(what: &str, holds: impl Fn() -> bool, instead: impl Fn() -> String) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}\ninstead:\n{}", instead());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a line is what is expected, in which `…` is anything.
fn is_line(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let Some(last) = expected.split('…').nth(1).and_then(|_| expected.rsplit('…').next()) else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    line.ends_with(last)
}

fn is_like(text: &str, expected: &str) -> bool {
    let (lines, expected): (Vec<&str>, Vec<&str>) = (text.lines().collect(), expected.lines().collect());
    lines.len() == expected.len()
        && lines.iter().zip(&expected).all(|(line, expected)| is_line(line, expected))
}

/// What is expected without the lines of which another text tells.
fn without(expected: &str, other: &str) -> String {
    let is_left = |line: &&str| line.is_empty() || !other.contains(line);
    expected.lines().filter(is_left).map(|line| format!("{line}\n")).collect()
}

fn has_in_order(text: &str, expected: &str) -> bool {
    let mut lines = text.lines();
    expected.lines().all(|expected| lines.any(|line| is_line(line.trim_matches('\0'), expected)))
}

#[cfg(test)]
mod tests {
    use super::{blocks, has_in_order, is_like, is_line, without};

    #[test]
    fn blocks_have_words_and_reasons() {
        let page = "text\n```sh stays\na\n```\n<!-- shown: why -->\n```toml file=x\nb\n\nc\n```\n";
        let blocks = blocks(page);
        assert_eq!((blocks[0].line, blocks[0].text.as_str()), (2, "a\n"));
        assert!(blocks[0].is(&["sh", "stays"]) && blocks[0].shown.is_none());
        assert_eq!((blocks[1].value("file"), blocks[1].shown.as_deref()), (Some("x"), Some("why")));
        assert_eq!(blocks[1].text, "b\n\nc\n");
    }

    #[test]
    fn what_is_left_open_is_anything() {
        assert!(is_line("message-id:17", "message-id:…"));
        assert!(is_line("a 1 b", "a … b") && !is_line("a 1 c", "a … b"));
        assert!(is_line("a", "a") && !is_line("ab", "a"));
        assert!(is_like("a\nb\n", "a\nb\n") && !is_like("a\nb\nc\n", "a\nb\n"));
        assert!(has_in_order("x\na\ny\nb\n", "a\nb\n") && !has_in_order("b\na\n", "a\nb\n"));
    }

    #[test]
    fn what_was_left_out_is_not_expected() {
        assert_eq!(without("from here\n\nfrom there\n", "say('from there')"), "from here\n\n");
        assert_eq!(without("a\n\nb\n", ""), "a\n\nb\n");
    }
}

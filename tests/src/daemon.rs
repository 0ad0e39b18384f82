//! The daemon `tandem` as a process of its own, for what can only be seen from outside: its memory, its log,
//! its exit.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running daemon, which ends with this.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    said: BufReader<ChildStdout>,
    address: SocketAddr,
    log: Log,
}

/// What a daemon logs. It is read until the daemon ends, however much that has to say.
#[derive(Debug)]
struct Log {
    text: Arc<(Mutex<String>, Condvar)>,
    reader: Option<JoinHandle<()>>,
    /// Somebody has waited for what is before.
    seen: usize,
}

impl Log {
    fn read(stderr: ChildStderr) -> Log {
        let text = Arc::<(Mutex<String>, Condvar)>::default();
        let reader = std::thread::spawn({
            let text = text.clone();
            move || {
                let mut stderr = BufReader::new(stderr);
                let mut line = String::new();
                while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                    text.0.lock().unwrap().push_str(&line);
                    text.1.notify_all();
                    line.clear();
                }
            }
        });
        Log { text, reader: Some(reader), seen: 0 }
    }

    fn until(&mut self, sentence: &str) {
        let (text, grown) = &*self.text;
        let find = |text: &str| text[self.seen..].find(sentence);
        let unheard = |text: &mut String| find(text).is_none();
        let waited = grown.wait_timeout_while(text.lock().unwrap(), Duration::from_secs(60), unheard);
        let text = waited.unwrap().0;
        let place = find(&text).unwrap_or_else(|| panic!("no {sentence:?} in {text}"));
        self.seen += place + sentence.len();
    }

    fn until_its_end(&mut self) -> String {
        self.reader.take().expect("it is waited for once").join().unwrap();
        std::mem::take(&mut self.text.0.lock().unwrap())
    }
}

impl Daemon {
    /// Starts it at a port of its own, with more arguments.
    pub fn start(arguments: &[&str]) -> Daemon {
        Daemon::run(Command::new(executable()), arguments)
    }

    /// Starts it with this configuration where no file can be longer than so many KiB: writing beyond fails.
    pub fn start_with_small_files(toml: &str, file_kib_max: usize) -> Daemon {
        let file = ConfigFile::new(toml);
        let mut shell = Command::new("bash");
        // What a shell ignores, the program that it becomes ignores as well.
        let script = format!("trap '' XFSZ; ulimit -f {file_kib_max}; exec \"$0\" \"$@\"");
        shell.arg("-c").arg(script).arg(executable());
        Daemon::run(shell, &["--config", file.path()])
    }

    /// Starts it with this configuration by a program that becomes or runs the one that it is given.
    pub fn start_by(mut by: Command, toml: &str) -> Daemon {
        let file = ConfigFile::new(toml);
        by.arg(executable());
        Daemon::run(by, &["--config", file.path()])
    }

    /// Starts it with this configuration where another one listened before, or at any port of that address.
    pub fn start_at(listen: SocketAddr, toml: &str) -> Daemon {
        let file = ConfigFile::new(toml);
        Daemon::run_at(Command::new(executable()), listen, &["--config", file.path()])
    }

    fn run(command: Command, arguments: &[&str]) -> Daemon {
        Daemon::run_at(command, SocketAddr::from(([127, 0, 0, 1], 0)), arguments)
    }

    fn run_at(mut command: Command, listen: SocketAddr, arguments: &[&str]) -> Daemon {
        let mut child = command
            .args(["serve", "--listen", &listen.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let log = Log::read(child.stderr.take().expect("it is piped"));
        let address = next_address(&mut said, "ws://");
        Daemon { child, said, address, log }
    }

    /// Starts it at a port of its own, with this configuration.
    pub fn start_with(toml: &str) -> Daemon {
        let file = ConfigFile::new(toml);
        Daemon::start(&["--config", file.path()])
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens with TLS. To be asked once.
    pub fn tls_address(&mut self) -> SocketAddr {
        next_address(&mut self.said, "wss://")
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it has, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
        let kib: usize = line.split_whitespace().nth(1).expect("a number").parse().unwrap();
        kib * 1024
    }

    /// What it answers to a request for this path: status line, headers and body.
    pub fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// One of its counters, such as `tandem_writes_total`.
    pub fn metric(&self, name: &str) -> i64 {
        let page = self.page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no {name} in {page}"));
        value.trim().parse().unwrap()
    }

    /// Waits until its log says this, after what was waited for before.
    pub fn until_logged(&mut self, sentence: &str) {
        self.log.until(sentence);
    }

    /// Asks it to end, waits, and gives its log and whether it ended well.
    pub fn terminate(self) -> (String, bool) {
        self.signal("TERM");
        self.wait()
    }

    /// Waits until it ends, and gives its log and whether it ended well.
    pub fn wait(mut self) -> (String, bool) {
        let ended = self.child.wait().unwrap();
        (self.log.until_its_end(), ended.success())
    }

    /// Sends it a signal, such as `INT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address of this scheme that is in the next line.
fn next_address(said: &mut BufReader<ChildStdout>, scheme: &str) -> SocketAddr {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.split(scheme).nth(1).and_then(|rest| rest.split('/').next());
    let address = address.and_then(|address| address.parse().ok());
    address.unwrap_or_else(|| panic!("the daemon says {line:?}"))
}

/// A configuration in a file, which goes with this.
#[derive(Debug)]
pub struct ConfigFile(PathBuf);

impl ConfigFile {
    /// Writes it.
    pub fn new(toml: &str) -> ConfigFile {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tandem-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, toml).unwrap();
        ConfigFile(path)
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        self.0.to_str().expect("the path is text")
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The daemon of this build, made anew where its sources have changed: cargo builds it with no test.
pub fn executable() -> &'static Path {
    static EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();
    EXECUTABLE.get_or_init(|| {
        let own = std::env::current_exe().expect("a test has a path");
        let folder = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--bin", "tandem", "--package", "tandem-broker"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the daemon does not build");
        folder.join("tandem")
    })
}

//! The daemon `tandem` as a process of its own, for what can only be seen from outside: its memory, its log,
//! its exit.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running daemon, which ends with this.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    /// Starts it at a port of its own, with more arguments.
    pub fn start(arguments: &[&str]) -> Daemon {
        let mut child = Command::new(executable())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut first).unwrap();
        let address = first.split("ws://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.and_then(|address| address.parse().ok());
        Daemon { child, address: address.unwrap_or_else(|| panic!("the daemon says {first:?}")) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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

    /// Asks it to end, waits, and gives its log and whether it ended well.
    pub fn terminate(mut self) -> (String, bool) {
        let id = self.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().unwrap();
        let mut log = String::new();
        let ended = self.child.wait().unwrap();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut log).unwrap();
        (log, ended.success())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon of this build, made if it is not there yet.
fn executable() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let folder = own.parent().and_then(|deps| deps.parent()).expect("tests lie in target/<profile>/deps");
    let path = folder.join("tandem");
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--bin", "tandem", "--package", "tandem-broker"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the daemon does not build");
    }
    path
}

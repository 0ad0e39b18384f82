//! A small disk of its own for a daemon, that can be filled up: a tmpfs in a mount namespace that nobody else sees.
//!
//! It lives as long as the process that holds the namespace, hence longer than the daemons on it. Where the kernel
//! allows no such thing, it says why.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The disk, which goes with this.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many MiB.
    pub fn mount(mib: usize) -> Result<SmallDisk, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tandem-disk-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        let script = format!("mount -t tmpfs -o size={mib}m tmpfs \"$0\" && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        let out = holder.stdout.take().expect("it is piped");
        let read = BufReader::new(out).read_line(&mut said);
        if read.is_err() || said.trim() != "mounted" {
            let _ = holder.kill();
            let output = holder.wait_with_output().map_err(|error| error.to_string())?;
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let disk = SmallDisk { holder, path };
        let entered = disk.enter("true").status().map_err(|error| format!("nsenter: {error}"))?;
        if entered.success() { Ok(disk) } else { Err("nsenter may not enter the namespace".into()) }
    }

    /// Where it is mounted, for those who run on it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A program that sees it.
    pub fn enter(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--preserve-credentials", "--target"]);
        command.arg(self.holder.id().to_string()).arg(program);
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = std::fs::remove_dir(&self.path);
    }
}

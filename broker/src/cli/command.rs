//! Commands of `--exec`: given a payload, asked for an answer.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::cli::content::PAYLOAD_BYTES_MAX;
use crate::cli::failure::Failure;

/// What is kept of what a command says on standard error: the end of it is what it failed for.
const COMPLAINT_BYTES_MAX: usize = 4096;

/// What becomes of what a command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// It is our output.
    Passed,
    /// It is the answer.
    Kept,
}

/// What a command came to.
pub(super) struct Outcome {
    status: ExitStatus,
    /// What it wrote, if that was to be kept.
    pub(super) answer: Vec<u8>,
    /// The end of what it said on standard error, if that was to be kept.
    pub(super) complaint: String,
}

impl Outcome {
    pub(super) fn is_success(&self) -> bool {
        self.status.success()
    }

    /// False where the shell found no such command, or none that can be run.
    pub(super) fn was_found(&self) -> bool {
        !matches!(self.code(), Some(126 | 127))
    }

    /// How it ended, in words.
    pub(super) fn ending(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("the command ended with {code}"),
            (None, Some(signal)) => format!("the command was ended by signal {signal}"),
            (None, None) => "the command ended".to_owned(),
        }
    }

    pub(super) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// A command that runs, with all that it started; ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Where it was waited for it has no number any more.
        let group =
            self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // It is gone already where this fails.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
    }
}

/// Runs a command of the shell to its end. Dropped before, the command is told to terminate.
pub(super) async fn run(
    command: &str,
    input: &[u8],
    environment: &[(&str, String)],
    speech: Speech,
) -> Result<Outcome, Failure> {
    let kept = || if speech == Speech::Kept { Stdio::piped() } else { Stdio::inherit() };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(kept()).stderr(kept());
    // A group of its own: Ctrl-C is for us, and what the shell started ends with it.
    shell.process_group(0);
    for (name, value) in environment {
        shell.env(name, value.replace('\0', ""));
    }
    let failed = |error: std::io::Error| Failure::usage(format!("--exec {command}: {error}"));
    let mut running = Running(shell.spawn().map_err(failed)?);
    let (stdin, stdout, stderr) = (running.0.stdin.take(), running.0.stdout.take(), running.0.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command that does not want to know is free to close it.
            let _ = stdin.write_all(input).await;
            let _ = stdin.shutdown().await;
        }
    };
    let (status, (), answer, complaint) =
        tokio::join!(running.0.wait(), write, answer(stdout), complaint(stderr));
    let outcome = Outcome { status: status.map_err(failed)?, answer: answer.map_err(failed)?, complaint };
    match outcome.answer.len() as u64 > PAYLOAD_BYTES_MAX {
        true => Err(Failure::usage(format!("the command wrote more than {PAYLOAD_BYTES_MAX} bytes"))),
        false => Ok(outcome),
    }
}

async fn answer(stdout: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    if let Some(stdout) = stdout {
        // Once it is closed a command that writes on ends by that.
        stdout.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut answer).await?;
    }
    Ok(answer)
}

/// Passes on what is said, and keeps the end of it.
async fn complaint(stderr: Option<impl AsyncRead + Unpin>) -> String {
    let (mut end, mut piece) = (Vec::new(), [0; COMPLAINT_BYTES_MAX]);
    if let Some(mut stderr) = stderr {
        while let Ok(count @ 1..) = stderr.read(&mut piece).await {
            let said = &piece[..count];
            // Nobody is left to tell that telling failed.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), said);
            end.extend_from_slice(said);
            let over = end.len().saturating_sub(COMPLAINT_BYTES_MAX);
            end.drain(..over);
        }
    }
    String::from_utf8_lossy(&end).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_given_a_payload_and_answers() {
        let environment = [("A", "b".to_owned())];
        let script = "cat; echo \"$A\" >&2; exit 3";
        let outcome = run(script, b"hello", &environment, Speech::Kept).await.unwrap();
        assert_eq!((outcome.answer.as_slice(), outcome.complaint.as_str()), (&b"hello"[..], "b"));
        assert_eq!((outcome.is_success(), outcome.code()), (false, Some(3)));
    }

    #[tokio::test]
    async fn of_a_long_complaint_the_end_is_kept() {
        let outcome = run("yes x | head -c 100000 >&2; echo end >&2", b"", &[], Speech::Kept).await.unwrap();
        assert!(outcome.complaint.ends_with("end") && outcome.complaint.len() <= COMPLAINT_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_command_that_writes_without_end_is_not_read_without_end() {
        let failure = run("yes", b"", &[], Speech::Kept).await.err().unwrap();
        assert!(failure.to_string().contains("more than"), "{failure}");
    }
}

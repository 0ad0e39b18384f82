//! Standard input, line by line.

use std::io::{BufRead, Read};

use tokio::sync::mpsc;

use crate::cli::content::PAYLOAD_BYTES_MAX;
use crate::cli::failure::Failure;

/// Lines that are read ahead.
const LINES_MAX: usize = 64;

/// The lines, as they come.
pub(super) struct Lines(mpsc::Receiver<Result<Vec<u8>, Failure>>);

impl Lines {
    /// Those of standard input, which a thread of its own reads: nothing can be done about one that waits for it.
    pub(super) fn of_stdin() -> Lines {
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            while let Some(line) = line(&mut stdin).transpose() {
                let is_over = line.is_err();
                if sender.blocking_send(line).is_err() || is_over {
                    return;
                }
            }
        });
        Lines(receiver)
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        self.0.recv().await.transpose()
    }
}

/// The next line, without its end.
fn line(source: &mut impl BufRead) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let read = source.take(PAYLOAD_BYTES_MAX + 1).read_until(b'\n', &mut line);
    let count = read.map_err(|error| Failure::usage(format!("standard input: {error}")))?;
    if count == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if count as u64 > PAYLOAD_BYTES_MAX {
        return Err(Failure::usage(format!("a line is longer than {PAYLOAD_BYTES_MAX} bytes")));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn lines_come_without_their_ends_and_the_last_without_one() {
        let mut source = &b"one\r\n\ntwo"[..];
        let mut all = Vec::new();
        while let Some(line) = line(&mut source).unwrap() {
            all.push(line);
        }
        assert_eq!(all, [&b"one"[..], b"", b"two"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut endless = BufReader::new(std::io::repeat(b'x'));
        assert!(line(&mut endless).unwrap_err().to_string().contains("longer than"));
    }
}

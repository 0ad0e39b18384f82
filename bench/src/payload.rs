//! What a message carries: who sent it and when, and proof that it came whole.
//!
//! ```text
//! payload  = "~tb" run sender number due length filler checksum
//! run      = 4 digits        which run of the load generator it belongs to
//! sender   = 4 digits
//! number   = 10 digits       from 1, without a gap
//! due      = 12 digits       nanoseconds since the run began
//! length   = 6 digits        of the whole payload, in bytes
//! checksum = 16 digits       XXH3 of all that stands before it
//! ```
//!
//! Digits are hexadecimal. All of it is ASCII that no language escapes, so that the same bytes are in every
//! message, whatever the language around them, and are found there without decoding it.

use memchr::memmem::Finder;
use rand::{RngExt, SeedableRng};
use twox_hash::XxHash3_64;

const MARK: &[u8; 3] = b"~tb";
const HEAD_BYTES: usize = MARK.len() + 4 + 4 + 10 + 12 + 6;
const CHECKSUM_BYTES: usize = 16;

/// The shortest payload.
pub const SIZE_MIN: usize = HEAD_BYTES + CHECKSUM_BYTES;

/// The longest one.
pub const SIZE_MAX: usize = (1 << 24) - 1;

/// Where fillers begin differs from message to message, within so many bytes.
const FILLER_STEPS: usize = 4096;

/// Who sent a message, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The publisher.
    pub sender: u16,
    /// The how-manieth of theirs it is, from 1.
    pub number: u64,
    /// When it was to be sent, in nanoseconds since the run began.
    pub due_ns: u64,
}

/// Why a message is not one of ours, or not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There is no payload in it.
    #[error("no payload of ours in it")]
    NoMark,
    /// A part of it is missing.
    #[error("it is cut off")]
    CutOff,
    /// A byte is not what it was.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is of another run.
    #[error("it belongs to another run")]
    OtherRun,
}

/// Makes payloads of one run, and reads them.
#[derive(Clone, Debug)]
pub struct Sealer {
    run: u16,
    size: usize,
    filler: std::sync::Arc<[u8]>,
    finder: Finder<'static>,
}

/// What a payload is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filler {
    /// Letters of chance's choosing.
    Random,
    /// Words, as a text has them, which can be compressed.
    Words,
}

impl Sealer {
    /// Payloads of `size` bytes, at least [`SIZE_MIN`] and at most [`SIZE_MAX`].
    pub fn new(run: u16, size: usize, filler: Filler) -> Self {
        let size = size.clamp(SIZE_MIN, SIZE_MAX);
        let length = size - SIZE_MIN + FILLER_STEPS;
        let filler = match filler {
            Filler::Random => random_letters(run, length),
            Filler::Words => words(run, length),
        };
        Self { run, size, filler: filler.into(), finder: Finder::new(MARK) }
    }

    /// Writes a payload to the end of `out`.
    pub fn seal(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(MARK);
        put(out, u64::from(self.run), 4);
        put(out, u64::from(stamp.sender), 4);
        put(out, stamp.number, 10);
        put(out, stamp.due_ns, 12);
        put(out, self.size as u64, 6);
        let at = stamp.number as usize * 61 % FILLER_STEPS;
        out.extend_from_slice(&self.filler[at..at + self.size - SIZE_MIN]);
        let checksum = XxHash3_64::oneshot(&out[start..]);
        put(out, checksum, CHECKSUM_BYTES);
    }

    /// The stamp of the payload that is somewhere in a message.
    ///
    /// # Errors
    ///
    /// A [`Flaw`] where there is none that came whole.
    pub fn open(&self, message: &[u8]) -> Result<Stamp, Flaw> {
        // What stands before the payload may look like the mark: a random number in binary does, once in millions.
        let mut flaw = Flaw::NoMark;
        for start in self.finder.find_iter(message) {
            match self.open_at(&message[start..]) {
                Ok(stamp) => return Ok(stamp),
                Err(what) => flaw = what,
            }
        }
        Err(flaw)
    }

    /// The stamp of the payload that a message begins with.
    fn open_at(&self, message: &[u8]) -> Result<Stamp, Flaw> {
        let (head, _) = message.split_at_checked(HEAD_BYTES).ok_or(Flaw::CutOff)?;
        let mut digits = Digits(&head[MARK.len()..]);
        let run = digits.take(4)?;
        let stamp =
            Stamp { sender: digits.take(4)? as u16, number: digits.take(10)?, due_ns: digits.take(12)? };
        let length = digits.take(6)? as usize;
        if length < SIZE_MIN {
            return Err(Flaw::Checksum);
        }
        let payload = message.get(..length).ok_or(Flaw::CutOff)?;
        let (sealed, checksum) = payload.split_at(length - CHECKSUM_BYTES);
        if Digits(checksum).take(CHECKSUM_BYTES)? != XxHash3_64::oneshot(sealed) {
            return Err(Flaw::Checksum);
        }
        if run != u64::from(self.run) { Err(Flaw::OtherRun) } else { Ok(stamp) }
    }
}

fn put(out: &mut Vec<u8>, value: u64, digits: usize) {
    for at in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * at)) as usize & 15]);
    }
}

/// Digits that are still to be read.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn take(&mut self, count: usize) -> Result<u64, Flaw> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Flaw::CutOff)?;
        self.0 = rest;
        taken.iter().try_fold(0, |value, digit| {
            let digit = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(Flaw::Checksum),
            };
            Ok(value << 4 | u64::from(digit))
        })
    }
}

fn random_letters(seed: u16, length: usize) -> Vec<u8> {
    let mut chance = rand::rngs::StdRng::seed_from_u64(u64::from(seed));
    (0..length).map(|_| b'a' + chance.random_range(0..26)).collect()
}

fn words(seed: u16, length: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "order",
        "price",
        "market",
        "limit",
        "account",
        "currency",
        "session",
        "volume",
        "instrument",
        "trade",
        "status",
        "pending",
        "filled",
        "cancelled",
        "open",
        "close",
    ];
    let mut chance = rand::rngs::StdRng::seed_from_u64(u64::from(seed));
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        text.extend_from_slice(WORDS[chance.random_range(0..WORDS.len())].as_bytes());
        text.push(b' ');
    }
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sender: 7, number: 0x12_3456_789a, due_ns: 99 };

    fn sealed(size: usize) -> (Sealer, Vec<u8>) {
        let sealer = Sealer::new(3, size, Filler::Words);
        let mut message = b"[36,1,2,{},[\"".to_vec();
        sealer.seal(STAMP, &mut message);
        message.extend_from_slice(b"\"]]");
        (sealer, message)
    }

    #[test]
    fn a_payload_is_found_in_any_message_and_has_its_size() {
        for size in [SIZE_MIN, 128, 16 * 1024] {
            let (sealer, message) = sealed(size);
            assert_eq!(sealer.open(&message), Ok(STAMP));
            assert_eq!(message.len(), 13 + size + 3);
        }
    }

    #[test]
    fn every_changed_byte_of_a_payload_is_noticed() {
        let (sealer, message) = sealed(200);
        for at in 13..message.len() - 3 {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert!(sealer.open(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_payload_that_is_cut_off_is_noticed_wherever_it_is_cut() {
        let (sealer, message) = sealed(200);
        for end in 0..message.len() - 3 {
            assert!(sealer.open(&message[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn what_only_looks_like_the_mark_before_a_payload_does_no_harm() {
        let (sealer, message) = sealed(200);
        let id = [0xcf, 0x00, 0x1f, 0x7e, 0x74, 0x62, 0x00, 0x01, 0x02];
        let message = [&id, message.as_slice()].concat();
        assert_eq!(sealer.open(&message), Ok(STAMP));
        let mut changed = message;
        changed[100] ^= 1;
        assert_eq!(sealer.open(&changed), Err(Flaw::Checksum));
    }

    #[test]
    fn a_payload_of_another_run_is_not_ours() {
        let (_, message) = sealed(200);
        assert_eq!(Sealer::new(4, 200, Filler::Words).open(&message), Err(Flaw::OtherRun));
    }
}

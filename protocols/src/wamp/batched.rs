//! Several messages in one transport message: the subprotocols whose names end in `.batched`.
//!
//! ```text
//! json            = 1*( message RS )        ; RS: %x1E; also read: %x18, and none after the last message
//! msgpack, cbor   = 1*( length message )    ; length: 32 bits, big-endian
//! ```
//!
//! The specification writes the separator as `\30`, meaning decimal; autobahn-python reads that as octal and
//! sends 0x18. Neither byte can occur in JSON, so both are read, and what the peer sent is what it is sent. Each
//! message is followed by one, because autobahn drops what follows the last. An empty batch is a violation.

use bytes::{BufMut, Bytes};

use crate::payload::Format;
use crate::wamp::codec;
use crate::wamp::error::{Misuse, Violation};

/// What follows a JSON message, unless the peer uses [`OCTAL_SEPARATOR`].
pub const SEPARATOR: u8 = 0x1e;
/// What autobahn-python takes the separator for.
pub const OCTAL_SEPARATOR: u8 = 0x18;

/// The WebSocket subprotocol of a format, batched.
#[must_use]
pub fn subprotocol(format: Format) -> &'static str {
    match format {
        Format::Json => "wamp.2.json.batched",
        Format::MsgPack => "wamp.2.msgpack.batched",
        Format::Cbor => "wamp.2.cbor.batched",
    }
}

/// The format of a batched subprotocol.
#[must_use]
pub fn format_of(subprotocol: &str) -> Option<Format> {
    codec::format_of(subprotocol.strip_suffix(".batched")?)
}

/// The messages of one batch, in order; each is a slice of it.
///
/// ```
/// use bytes::Bytes;
/// use tandem_protocols::{payload::Format, wamp::batched::Batch};
///
/// let batch = Batch::new(Format::Json, Bytes::from_static(b"[17,1,2]\x1e[17,2,3]\x1e")).unwrap();
/// assert_eq!(batch.map(Result::unwrap).collect::<Vec<_>>(), ["[17,1,2]", "[17,2,3]"]);
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    format: Format,
    rest: Bytes,
}

impl Batch {
    /// Of the bytes of a transport message.
    ///
    /// # Errors
    ///
    /// A [`Violation`] where there are none.
    pub fn new(format: Format, bytes: Bytes) -> Result<Self, Violation> {
        if bytes.is_empty() {
            return Err(Violation::new("a batch without messages"));
        }
        Ok(Self { format, rest: bytes })
    }

    /// The separator that a batch in JSON uses; `None` where it has none.
    #[must_use]
    pub fn separator(&self) -> Option<u8> {
        self.rest.iter().copied().find(is_separator)
    }

    fn split(&mut self) -> Result<Bytes, Violation> {
        if self.format == Format::Json {
            let end = self.rest.iter().position(is_separator).unwrap_or(self.rest.len());
            let message = self.rest.split_to(end);
            let _separator = self.rest.split_to(self.rest.len().min(1));
            return Ok(message);
        }
        let length = self.rest.first_chunk().map(|length| u32::from_be_bytes(*length));
        let end = length.and_then(|length| usize::try_from(length).ok()?.checked_add(4));
        match end.filter(|end| *end <= self.rest.len()) {
            Some(end) => Ok(self.rest.split_to(end).slice(4..)),
            None => Err(Violation::new("a batch that ends within a message")),
        }
    }
}

fn is_separator(byte: &u8) -> bool {
    matches!(*byte, SEPARATOR | OCTAL_SEPARATOR)
}

impl Iterator for Batch {
    type Item = Result<Bytes, Violation>;

    /// After a violation there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.split();
        if message.is_err() {
            self.rest.clear();
        }
        Some(message)
    }
}

/// Adds an encoded message to a batch that is to be sent.
///
/// # Errors
///
/// [`Misuse::TooLarge`] above 4 GiB.
pub fn append(format: Format, separator: u8, message: &[u8], batch: &mut Vec<u8>) -> Result<(), Misuse> {
    if format == Format::Json {
        batch.extend_from_slice(message);
        batch.push(separator);
    } else {
        batch.put_u32(u32::try_from(message.len()).map_err(|_| Misuse::TooLarge)?);
        batch.extend_from_slice(message);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(format: Format, bytes: &'static [u8]) -> Vec<Result<Bytes, Violation>> {
        Batch::new(format, Bytes::from_static(bytes)).unwrap().collect()
    }

    #[test]
    fn what_is_appended_is_split() {
        for format in [Format::Json, Format::MsgPack, Format::Cbor] {
            for separator in [SEPARATOR, OCTAL_SEPARATOR] {
                let mut batch = Vec::new();
                for message in [&b"[1]"[..], b"[2,3]"] {
                    append(format, separator, message, &mut batch).unwrap();
                }
                let batch = Batch::new(format, batch.into()).unwrap();
                if format == Format::Json {
                    assert_eq!(batch.separator(), Some(separator));
                }
                let messages: Vec<_> = batch.map(Result::unwrap).collect();
                assert_eq!(messages, ["[1]", "[2,3]"]);
            }
            assert_eq!(format_of(subprotocol(format)), Some(format));
        }
        assert_eq!(format_of("wamp.2.json"), None);
    }

    #[test]
    fn the_last_separator_may_be_missing() {
        assert_eq!(split(Format::Json, b"[1]\x1e[2]"), split(Format::Json, b"[1]\x18[2]\x18"));
    }

    #[test]
    fn a_batch_that_is_empty_or_cut_is_a_violation() {
        assert!(Batch::new(Format::Json, Bytes::new()).is_err());
        for bytes in [&[0, 0, 0][..], &[0, 0, 0, 2, 1], &[255, 255, 255, 255, 1]] {
            let messages = split(Format::Cbor, bytes);
            assert!(messages.len() == 1 && messages[0].is_err(), "{bytes:x?}");
        }
    }
}

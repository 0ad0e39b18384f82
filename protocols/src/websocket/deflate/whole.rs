//! Inflates a payload of up to 64 KiB in one go.
//!
//! libdeflate takes 0.6 of the time of zlib, which can stop and go on anywhere (measured on 300 octets to 8 KiB of
//! words; where the codes are the message's own, 0.9 to 0.5). It wants all of a stream that ends: a payload becomes one
//! by a final block behind it, with octets that are known here. Where they come out, and not as what a block of the
//! payload's own copied with all that stands before them, all of it was read.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use libdeflater::Decompressor;

use super::{RATIO_FREE_BYTES, TAIL};

/// A longer payload is not looked at, nor a longer message made: here nobody asks for a ratio.
const BYTES_MAX: usize = RATIO_FREE_BYTES;

/// What a final block holds, and that stored block without it.
const MARK_BYTES: usize = 8;
const FINAL: [u8; 5] = [0x01, 0x08, 0x00, 0xF7, 0xFF];

/// Inflates one payload after another, each by itself.
pub(super) struct Inflater {
    stream: Decompressor,
    /// The payload, and what makes a stream of it.
    input: Vec<u8>,
    output: Box<[u8]>,
    /// What the final block holds: nobody else knows it, who may have ended the stream before.
    mark: [u8; MARK_BYTES],
}

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater {
            stream: Decompressor::new(),
            input: Vec::new(),
            output: vec![0; BYTES_MAX + MARK_BYTES].into(),
            mark: RandomState::new().hash_one(()).to_le_bytes(),
        }
    }

    /// None where the message is longer than is done here, or than is allowed, where there is a final block in the payload,
    /// where the message may end with ours, or where it is no payload: who looks again finds out which.
    pub(super) fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Option<Bytes> {
        if payload.len() > BYTES_MAX {
            return None;
        }
        self.input.clear();
        for part in [payload, &TAIL, &FINAL, &self.mark] {
            self.input.extend_from_slice(part);
        }
        let output = &mut self.output[..bytes_max.min(BYTES_MAX) + MARK_BYTES];
        let length = self.stream.deflate_decompress(&self.input, output).ok()?;
        let message = output[..length].strip_suffix(&self.mark)?;
        (!message.ends_with(&FINAL)).then(|| Bytes::copy_from_slice(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::deflate::{Context, Deflater, InflateLimits, WindowBits, compress};

    const LIMITS: InflateLimits = InflateLimits { bytes_max: 1 << 20, ratio_max: 2000 };

    /// As zlib does it.
    fn by_zlib(payload: &[u8]) -> Option<Bytes> {
        crate::websocket::deflate::Inflater::new(WindowBits::MAX).run(payload, LIMITS, Context::Dropped).ok()
    }

    #[test]
    fn a_message_of_up_to_64_kib_is_inflated() {
        let mut inflater = Inflater::new();
        for length in [0, 1, 1000, BYTES_MAX] {
            let message: Vec<u8> = (0..length).map(|place| (place / 3) as u8).collect();
            let payload = compress(&message, WindowBits::MAX);
            assert_eq!(inflater.inflate(&payload, length).unwrap(), message);
            assert_eq!(length.checked_sub(1).and_then(|less| inflater.inflate(&payload, less)), None);
        }
        assert_eq!(inflater.inflate(&compress(&vec![0; BYTES_MAX + 1], WindowBits::MAX), usize::MAX), None);
    }

    #[test]
    fn what_is_not_read_to_its_end_is_left() {
        let mut inflater = Inflater::new();
        let whole = compress(&b"The quick brown fox jumps over the lazy dog".repeat(5), WindowBits::MAX);
        for cut in 0..whole.len() - 1 {
            assert_eq!(inflater.inflate(&whole[..cut], usize::MAX), None, "{cut}");
        }
        // A final block, and what may stand behind one.
        for payload in [&b"\x03\x00"[..], b"\xf3\x48\xcd\xc9\xc9\x07\x00", b"\x03\x00\xff\xff\xff"] {
            assert_eq!(inflater.inflate(payload, usize::MAX), None, "{payload:x?}");
        }
    }

    #[test]
    fn what_stands_behind_a_payload_is_no_part_of_a_message() {
        // Blocks that say that they are longer than the payload is. As long as what RFC 7692 puts behind it is allowed.
        for stored in (1..40_u16).filter(|length| usize::from(*length) != TAIL.len()) {
            for begin in [b"\x00", b"\x01"] {
                let length = stored.to_le_bytes();
                let payload = [&begin[..], &length, &length.map(|octet| !octet)].concat();
                assert_eq!(Inflater::new().inflate(&payload, usize::MAX), None, "{payload:x?}");
                assert_eq!(by_zlib(&payload), None, "{payload:x?}");
            }
        }
        let (mut inflater, message) = (Inflater::new(), [b'a', 0x01, 0x08, 0x00, 0xF7, 0xFF]);
        assert_eq!(inflater.inflate(&compress(&message, WindowBits::MAX), usize::MAX), None, "who knows");
        assert_eq!(by_zlib(&compress(&message, WindowBits::MAX)).unwrap(), &message[..]);
    }

    proptest! {
        #[test]
        fn what_both_inflate_is_the_same_message(
            words in vec(0..50_u8, 0..400), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let message: Vec<u8> = words.iter().flat_map(|word| [b' ', b'a' + word % 26, word / 26]).collect();
            let mut inflater = Inflater::new();
            for payload in [compress(&message, WindowBits::MAX), Deflater::new(WindowBits::MAX).compress(&message)] {
                let mut payload = payload.to_vec();
                for (place, octet) in &changes {
                    let place = place.index(payload.len());
                    payload[place] ^= octet;
                }
                let (whole, theirs) = (inflater.inflate(&payload, usize::MAX), by_zlib(&payload));
                if changes.iter().all(|(_, octet)| *octet == 0) {
                    prop_assert!(whole.is_some());
                }
                if let (Some(message), Some(theirs)) = (whole, theirs) {
                    prop_assert_eq!(message, theirs);
                }
            }
        }
    }
}

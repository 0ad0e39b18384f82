//! The payloads of permessage-deflate (RFC 7692 section 7.2), made and read.
//!
//! ```text
//! payload = DEFLATE blocks of the message, ended by a sync flush, without its last octets 00 00 FF FF
//! empty   = 00
//! ```
//!
//! Without context takeover a message of up to 16 KiB is compressed in `deflate/short.rs`, and one of up to 64 KiB is
//! inflated in `deflate/whole.rs`; longer ones are zlib's. Streams are pooled per thread, one compressor per window size
//! (310 KB) and two decompressors (some 40 KB, and up to 200 KB with its buffers): such a connection owns none.
//! [`Deflater`] and [`Inflater`] are for one that keeps its context.
//!
//! Deviations. A payload that ends with a final block (BFINAL) is taken without what section 7.2.3.5 wants
//! behind it, and an empty payload is an empty message: both are met in the wild. The context does not
//! survive a final block, as zlib offers no way to keep it. A message that zlib inflates
//! fails by codes that RFC 1951 reserves; libdeflate reads those of lengths and distances as the highest that mean
//! something, a distance without a code as 1, and lets a header name more distances than there are.

mod short;
mod whole;

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::websocket::frame::Violation;

/// Below this, compressing costs more than it saves: measured on JSON, 128 octets shrink by 6 %.
pub const COMPRESS_BYTES_MIN: usize = 256;

/// How much is inflated before the limits are looked at.
const STEP_BYTES: usize = 16 * 1024;

/// Up to this size a message may have any ratio: a small bomb is none.
const RATIO_FREE_BYTES: usize = 64 * 1024;

/// How many times a message may end its DEFLATE stream and begin another.
const FINAL_BLOCKS_MAX: u32 = 64;

/// What a sync flush ends with, and a payload leaves out.
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// An empty final block: it ends a stream that stands between two blocks, and no other.
const PROBE: [u8; 5] = [0x01, 0x00, 0x00, 0xFF, 0xFF];

/// The fastest level: the best ratio of size to time for messages (level 6 takes 2.5 times as long).
const LEVEL: u32 = 1;

thread_local! {
    static SHORT: RefCell<Option<short::Compressor>> = const { RefCell::new(None) };
    static COMPRESSORS: RefCell<[Option<Deflater>; WindowBits::COUNT]> =
        const { RefCell::new([const { None }; WindowBits::COUNT]) };
    static WHOLE: RefCell<Option<whole::Inflater>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Inflater>> = const { RefCell::new(None) };
    static STEP: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The base-2 logarithm of an LZ77 window that zlib can compress with: 9 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowBits(u8);

impl WindowBits {
    /// The smallest window, of 512 octets. RFC 7692 allows 8, which zlib cannot do on a raw stream.
    pub const MIN: Self = Self(9);
    /// The largest window, of 32 KiB, which is also what holds where nothing was agreed.
    pub const MAX: Self = Self(15);

    /// 8 bits, which a server may ask of a client, and which no payload of ours needs: what is made for it is
    /// stored, not compressed. Whoever has to send with it had better send plain.
    pub(super) const TOO_SMALL: Self = Self(8);

    const COUNT: usize = 8;

    /// `None` outside 9 to 15.
    pub fn new(bits: u8) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&bits).then_some(Self(bits))
    }

    /// The number itself.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Whether anything gets shorter with it.
    pub fn compresses(self) -> bool {
        self >= Self::MIN
    }

    fn index(self) -> usize {
        usize::from(self.0 - Self::TOO_SMALL.0)
    }
}

/// How far a payload may be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflateLimits {
    /// The size of the message.
    pub bytes_max: usize,
    /// The size of the message over the size of the payload; looked at above 64 KiB.
    pub ratio_max: u32,
}

/// Compresses one message without context: the same payload serves every receiver that agreed to `bits`.
///
/// ```
/// use tandem_protocols::websocket::deflate::{WindowBits, compress};
///
/// let message = b"tick ".repeat(100);
/// assert!(compress(&message, WindowBits::MAX).len() < 20);
/// assert_eq!(compress(b"", WindowBits::MIN), &[0][..]);
/// ```
pub fn compress(message: &[u8], bits: WindowBits) -> Bytes {
    if message.len() <= short::BYTES_MAX && !message.is_empty() && bits.compresses() {
        return SHORT.with_borrow_mut(|compressor| {
            compressor.get_or_insert_with(short::Compressor::new).compress(message, 1 << bits.get())
        });
    }
    COMPRESSORS.with_borrow_mut(|pool| {
        let deflater = pool[bits.index()].get_or_insert_with(|| Deflater::new(bits));
        deflater.stream.reset();
        deflater.compress(message)
    })
}

/// Inflates one payload without context, whatever window it was made with.
///
/// Fails with 1007 on what is not DEFLATE, and with 1009 beyond the limits.
pub fn inflate(payload: &[u8], limits: InflateLimits) -> Result<Bytes, Violation> {
    let whole = WHOLE.with_borrow_mut(|whole| {
        whole.get_or_insert_with(whole::Inflater::new).inflate(payload, limits.bytes_max)
    });
    if let Some(message) = whole {
        return Ok(message);
    }
    DECOMPRESSOR.with_borrow_mut(|pool| {
        let inflater = pool.get_or_insert_with(|| Inflater::new(WindowBits::MAX));
        inflater.stream.reset(false);
        inflater.run(payload, limits, Context::Dropped)
    })
}

/// A compressor that keeps its context from message to message.
pub struct Deflater {
    stream: Compress,
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}

impl Deflater {
    /// A compressor with an empty context.
    pub fn new(bits: WindowBits) -> Self {
        let level = if bits.compresses() { LEVEL } else { 0 };
        let bits = bits.max(WindowBits::MIN);
        Self { stream: Compress::new_with_window_bits(Compression::new(level), false, bits.0) }
    }

    /// Compresses the next message of the connection.
    pub fn compress(&mut self, message: &[u8]) -> Bytes {
        // A second flush without input makes zlib emit nothing at all, so this case is written by hand.
        if message.is_empty() {
            return Bytes::from_static(&[0]);
        }
        let mut payload = Vec::with_capacity(message.len() / 2 + 64);
        let mut rest = message;
        loop {
            let before = self.stream.total_in();
            self.stream
                .compress_vec(rest, &mut payload, FlushCompress::Sync)
                .expect("a stream that is never finished takes input");
            rest = &rest[(self.stream.total_in() - before) as usize..];
            if rest.is_empty() && payload.len() < payload.capacity() {
                break;
            }
            payload.reserve(payload.capacity());
        }
        debug_assert!(payload.ends_with(&TAIL), "a sync flush ends with an empty stored block");
        payload.truncate(payload.len() - TAIL.len());
        Bytes::from(payload)
    }
}

/// A decompressor that keeps its context from message to message.
pub struct Inflater {
    stream: Decompress,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

/// Whether the next message may refer to this one. If not, its end can be verified.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Kept,
    Dropped,
}

/// Where a piece of input left the DEFLATE stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// It goes on.
    Open,
    /// The last octet ended a final block.
    Ended,
}

impl Inflater {
    /// A decompressor with an empty context.
    pub fn new(bits: WindowBits) -> Self {
        Self { stream: Decompress::new_with_window_bits(false, bits.max(WindowBits::MIN).0) }
    }

    /// Inflates the next payload of the connection. After an error the connection cannot go on.
    ///
    /// Fails with 1007 on what is not DEFLATE, and with 1009 beyond the limits.
    pub fn inflate(&mut self, payload: &[u8], limits: InflateLimits) -> Result<Bytes, Violation> {
        self.run(payload, limits, Context::Kept)
    }

    fn run(&mut self, payload: &[u8], limits: InflateLimits, context: Context) -> Result<Bytes, Violation> {
        if payload.is_empty() {
            return Ok(Bytes::new());
        }
        STEP.with_borrow_mut(|step| {
            step.resize(STEP_BYTES, 0);
            let ratio_bytes = payload.len().saturating_mul(limits.ratio_max as usize).max(RATIO_FREE_BYTES);
            let bytes_max = limits.bytes_max.min(ratio_bytes);
            let mut output = Output { step, filled: 0, spilled: Vec::new(), bytes_max };
            let mut ends = 0;
            if self.feed(payload, &mut output, &mut ends)? == Stream::Open {
                self.feed(&TAIL, &mut output, &mut ends)?;
                let made = output.len();
                let is_cut = context == Context::Dropped
                    && (self.feed(&PROBE, &mut output, &mut ends)? == Stream::Open || output.len() > made);
                if is_cut {
                    return Err(Violation::payload("compressed message is cut short"));
                }
            }
            output.finish()
        })
    }

    /// Inflates all of `input`. Every turn takes input or makes output, or is the last.
    fn feed(&mut self, input: &[u8], output: &mut Output<'_>, ends: &mut u32) -> Result<Stream, Violation> {
        const INVALID: Violation = Violation::payload("compressed message is not DEFLATE");
        let mut rest = input;
        loop {
            let (taken, made) = (self.stream.total_in(), self.stream.total_out());
            let status = self.stream.decompress(rest, output.space()?, FlushDecompress::Sync);
            let status = status.map_err(|_| INVALID)?;
            let taken = (self.stream.total_in() - taken) as usize;
            let made = (self.stream.total_out() - made) as usize;
            rest = &rest[taken..];
            output.filled += made;
            match status {
                Status::StreamEnd => {
                    *ends += 1;
                    if *ends > FINAL_BLOCKS_MAX {
                        return Err(INVALID);
                    }
                    self.stream.reset(false);
                    if rest.is_empty() {
                        return Ok(Stream::Ended);
                    }
                }
                Status::Ok | Status::BufError if rest.is_empty() && output.filled < output.step.len() => {
                    return Ok(Stream::Open);
                }
                Status::Ok | Status::BufError if taken == 0 && made == 0 => return Err(INVALID),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

/// Collects what is inflated. A message that fits one step is copied once, into its exact size.
struct Output<'a> {
    step: &'a mut [u8],
    filled: usize,
    spilled: Vec<u8>,
    bytes_max: usize,
}

impl Output<'_> {
    /// Room for at least one octet, if the limit allows what is there already.
    fn space(&mut self) -> Result<&mut [u8], Violation> {
        self.check()?;
        if self.filled == self.step.len() {
            self.spilled.extend_from_slice(self.step);
            self.filled = 0;
        }
        Ok(&mut self.step[self.filled..])
    }

    fn len(&self) -> usize {
        self.spilled.len() + self.filled
    }

    fn check(&self) -> Result<(), Violation> {
        if self.len() > self.bytes_max {
            return Err(Violation::too_big("message inflates beyond the limit"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Bytes, Violation> {
        self.check()?;
        let last = &self.step[..self.filled];
        if self.spilled.is_empty() {
            return Ok(Bytes::copy_from_slice(last));
        }
        self.spilled.extend_from_slice(last);
        Ok(Bytes::from(self.spilled))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::frame::close;

    const LIMITS: InflateLimits = InflateLimits { bytes_max: 1 << 20, ratio_max: 2000 };

    fn all_bits() -> impl Iterator<Item = WindowBits> {
        (0..=u8::MAX).filter_map(WindowBits::new)
    }

    #[test]
    fn the_examples_of_section_7_2_3_are_read() {
        let hello: &[&[u8]] = &[
            b"\xf2\x48\xcd\xc9\xc9\x07\x00",
            // No compression.
            b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
            // BFINAL, with and without the octet that section 7.2.3.5 wants behind it.
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00",
            // Two blocks.
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        ];
        for payload in hello {
            assert_eq!(inflate(payload, LIMITS).unwrap(), "Hello", "{payload:x?}");
            assert_eq!(Inflater::new(WindowBits::MAX).inflate(payload, LIMITS).unwrap(), "Hello");
        }
        let mut kept = Inflater::new(WindowBits::MAX);
        assert_eq!(kept.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", LIMITS).unwrap(), "Hello");
        assert_eq!(kept.inflate(b"\xf2\x00\x11\x00\x00", LIMITS).unwrap(), "Hello");
    }

    #[test]
    fn nothing_is_a_message_too() {
        for payload in [&b"\x00"[..], b"", b"\x02\x00", b"\x03\x00"] {
            assert_eq!(inflate(payload, LIMITS).unwrap(), "");
        }
        let mut deflater = Deflater::new(WindowBits::MAX);
        let mut inflater = Inflater::new(WindowBits::MAX);
        for message in ["", "a", "", "", "a", ""] {
            assert_eq!(inflater.inflate(&deflater.compress(message.as_bytes()), LIMITS).unwrap(), message);
        }
    }

    #[test]
    fn what_is_no_deflate_or_is_cut_short_is_1007() {
        let whole = compress(&b"The quick brown fox jumps over the lazy dog".repeat(5), WindowBits::MAX);
        for cut in 1..whole.len() - 1 {
            let refused = inflate(&whole[..cut], LIMITS);
            assert_eq!(refused.map_err(|violation| violation.code), Err(close::INVALID_PAYLOAD), "{cut}");
        }
        for payload in [&b"\xff\xff\xff"[..], b"\x07", b"\x00\x05\x00\x00\x00", b"\xf2\x00\x11\x00\x00"] {
            assert_eq!(inflate(payload, LIMITS).unwrap_err().code, close::INVALID_PAYLOAD);
        }
    }

    #[test]
    fn final_blocks_neither_spin_nor_pass_without_end() {
        let finals = |count: usize| b"\x03\x00".repeat(count);
        assert_eq!(inflate(&finals(60), LIMITS).unwrap(), "");
        for mut inflater in [Inflater::new(WindowBits::MAX), Inflater::new(WindowBits::MIN)] {
            assert_eq!(inflater.inflate(&finals(60), LIMITS).unwrap(), "");
            assert_eq!(inflater.inflate(&finals(100_000), LIMITS).unwrap_err().code, close::INVALID_PAYLOAD);
        }
        let mut garbage = finals(1);
        garbage.extend_from_slice(&[0xFF; 100]);
        assert_eq!(inflate(&garbage, LIMITS).unwrap_err().code, close::INVALID_PAYLOAD);
    }

    #[test]
    fn a_bomb_is_1009_at_the_limit_of_bytes_or_of_ratio() {
        let zeros = vec![0; 1 << 20];
        let bomb = compress(&zeros, WindowBits::MAX);
        assert_eq!(inflate(&bomb, LIMITS).unwrap().len(), zeros.len());
        for (bytes_max, ratio_max) in
            [((1 << 20) - 1, 2000), (0, 2000), (100, 2000), (16384, 2000), (1 << 20, 100)]
        {
            let refused = inflate(&bomb, InflateLimits { bytes_max, ratio_max });
            assert_eq!(refused.unwrap_err().code, close::TOO_BIG, "{bytes_max} {ratio_max}");
        }
        let small = compress(&zeros[..RATIO_FREE_BYTES], WindowBits::MAX);
        assert!(inflate(&small, InflateLimits { bytes_max: 1 << 20, ratio_max: 1 }).is_ok());
    }

    #[test]
    fn sizes_around_the_step_are_whole() {
        for size in [1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 2 * STEP_BYTES, 3 * STEP_BYTES + 7] {
            let message: Vec<u8> = (0..size).map(|i| (i * i / 7) as u8).collect();
            for bits in all_bits() {
                let exact = InflateLimits { bytes_max: size, ratio_max: 2000 };
                assert_eq!(inflate(&compress(&message, bits), exact).unwrap(), message);
            }
        }
    }

    #[test]
    fn a_small_window_is_honoured() {
        let message: Vec<u8> = (0..8000u32).flat_map(|i| (i % 700).to_le_bytes()).collect();
        for bits in all_bits() {
            for message in [&message[..], &message[..short::BYTES_MAX]] {
                let payload = compress(message, bits);
                assert_eq!(Inflater::new(bits).inflate(&payload, LIMITS).unwrap(), message, "{bits:?}");
            }
        }
        // For 8 bits nothing refers back at all.
        let stored = compress(&message, WindowBits::TOO_SMALL);
        assert!(stored.len() > message.len() && !WindowBits::TOO_SMALL.compresses());
        assert_eq!(Inflater::new(WindowBits::TOO_SMALL).inflate(&stored, LIMITS).unwrap(), message);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn messages_come_back_with_and_without_context(
            messages in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..3000), 1..5), bits in 9u8..=15,
        ) {
            let bits = WindowBits::new(bits).unwrap();
            let (mut deflater, mut inflater) = (Deflater::new(bits), Inflater::new(bits));
            for message in messages {
                prop_assert_eq!(&inflate(&compress(&message, bits), LIMITS).unwrap(), &message);
                let payload = deflater.compress(&message);
                prop_assert_eq!(&inflater.inflate(&payload, LIMITS).unwrap(), &message);
            }
        }

        #[test]
        fn noise_ends_within_the_limits(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let limits = InflateLimits { bytes_max: 1000, ratio_max: 100 };
            if let Ok(message) = inflate(&payload, limits) {
                prop_assert!(message.len() <= 1000);
            }
        }
    }
}

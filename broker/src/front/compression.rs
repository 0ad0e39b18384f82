//! Compression as this door does it: what it was told, the places for those who keep a context, and what one
//! connection's messages are compressed with.
//!
//! Without context takeover a connection owns nothing: compressors belong to threads, and what several peers
//! get is compressed once for all that agreed to the same window. With takeover each connection has a context
//! of its own, of some 300 KiB, and each message is compressed for it alone; so there are only so many of them.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use tandem_protocols::websocket::deflate::{Deflater, WindowBits, compress};
use tandem_protocols::websocket::extensions::{Agreement, Policy};
use tandem_protocols::websocket::frame::{Role, Unit};

use crate::core::message::{Frame, Message};
use crate::metrics;

/// What the door is told of compression.
#[derive(Clone, Debug)]
pub struct CompressionSettings {
    /// What is agreed on.
    pub policy: Policy,
    /// Shorter messages are sent as they are.
    pub bytes_min: usize,
    /// Connections that keep a context, at a time. To those beyond them it is agreed that none is kept.
    pub takeover_connections_max: usize,
    /// What in a `User-Agent` says that its compression does not work.
    pub plain_agents: Vec<String>,
}

/// The places for connections that keep a context.
#[derive(Debug)]
pub struct Contexts(Arc<Semaphore>);

/// Somebody's place among them.
#[derive(Debug)]
pub struct ContextPermit(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl Contexts {
    /// So many places.
    pub fn new(connections_max: usize) -> Contexts {
        Contexts(Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))))
    }

    /// What is to be agreed on with the next one; and a place, if that may need one.
    pub fn policy(&self, settings: &CompressionSettings) -> (Policy, Option<ContextPermit>) {
        if !settings.policy.allows_takeover() {
            return (settings.policy, None);
        }
        match self.0.clone().try_acquire_owned() {
            Ok(permit) => (settings.policy, Some(ContextPermit(permit))),
            Err(_) => (settings.policy.without_takeover(), None),
        }
    }
}

/// What a connection that agreed on compression compresses with.
pub struct Compressor {
    bits: WindowBits,
    /// Each frame is compressed by itself, so a message has to be one.
    per_frame: bool,
    bytes_min: u32,
    context: Option<Box<Context>>,
}

/// What a connection with context takeover keeps.
struct Context {
    /// If it is the server that keeps one; from the first message on that is compressed.
    deflater: Option<Deflater>,
    is_server: bool,
    _permit: Option<ContextPermit>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("bits", &self.bits).finish_non_exhaustive()
    }
}

impl Compressor {
    /// For a connection that agreed on this. The place is given back if it turns out that none is needed.
    pub fn new(agreement: &Agreement, bytes_min: usize, permit: Option<ContextPermit>) -> Compressor {
        let outgoing = agreement.outgoing(Role::Server);
        let context = || Box::new(Context { deflater: None, is_server: outgoing.takeover, _permit: permit });
        Compressor {
            bits: outgoing.bits,
            per_frame: agreement.unit == Unit::Frame,
            bytes_min: u32::try_from(bytes_min).unwrap_or(u32::MAX),
            context: agreement.has_takeover().then(context),
        }
    }

    /// Whether what it makes must not be cut into fragments.
    pub fn is_per_frame(&self) -> bool {
        self.per_frame
    }

    /// What tells apart what several connections make of the same messages; `None` where each is compressed for this one
    /// alone, or by itself.
    pub fn shared(&self) -> Option<(u8, u32)> {
        let has_context = self.context.as_deref().is_some_and(|context| context.is_server);
        (!has_context && !self.per_frame).then_some((self.bits.get(), self.bytes_min))
    }

    /// One of several messages compressed for all who agreed to the same; `None` if it is not worth it.
    pub fn compress_shared(&self, message: &[u8]) -> Option<Bytes> {
        if message.len() < self.bytes_min as usize {
            return None;
        }
        metrics::COMPRESSIONS.add(1);
        Some(compress(message, self.bits))
    }

    /// The message compressed; `None` if it is not worth it. To be called in the order of sending.
    pub fn compress(&mut self, frame: &Frame) -> Option<Bytes> {
        let bits = self.bits;
        if frame.message().len() < self.bytes_min as usize {
            return None;
        }
        if let Some(context) = self.context.as_deref_mut().filter(|context| context.is_server) {
            let deflater = context.deflater.get_or_insert_with(|| Deflater::new(bits));
            return Some(compressed(frame.message(), |bytes| deflater.compress(bytes)));
        }
        let alone = |message: &Message| compressed(message, |bytes| compress(bytes, bits));
        Some(match frame {
            Frame::Own(message) => alone(message),
            Frame::Shared(shared) => shared.compressed(bits.get(), alone),
        })
    }
}

fn compressed(message: &Message, compress: impl FnOnce(&[u8]) -> Bytes) -> Bytes {
    metrics::COMPRESSIONS.add(1);
    if message.body.is_empty() {
        return compress(&message.head);
    }
    let mut whole = BytesMut::with_capacity(message.len());
    whole.extend_from_slice(&message.head);
    whole.extend_from_slice(&message.body);
    compress(&whole)
}

//! Application data, in the encoding it arrived in.
//!
//! A payload is never decoded to be passed on. It is converted only where its receiver reads another
//! encoding than its sender wrote, and then once per encoding, however many receivers there are.

use std::sync::Arc;

use bytes::Bytes;

pub mod skip;

/// A self-describing encoding of structured values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// RFC 8259. Binary values are strings of U+0000 followed by base64, as WAMP defines.
    Json,
    /// MessagePack.
    MsgPack,
    /// RFC 8949.
    Cbor,
}

/// How the bytes of a [`Body`] are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One structured value.
    Structured(Format),
    /// UTF-8 text.
    Text,
    /// Bytes that mean nothing to the house.
    Binary,
}

/// What one value stands for when its reader has positional and keyword arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// The first and only positional argument.
    Value,
    /// An array: the positional arguments.
    Args,
    /// A map: the keyword arguments.
    Kwargs,
    /// `{"args": [], "kwargs": {}}`: both.
    Full,
}

/// Positional and keyword arguments, each still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The encoding of both.
    pub format: Format,
    /// One encoded array; empty bytes where there is none.
    pub args: Bytes,
    /// One encoded map; empty bytes where there is none.
    pub kwargs: Bytes,
}

/// One value, with what is known of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The media type as its sender wrote it, if at all.
    pub content_type: Option<Arc<str>>,
    /// How to read `bytes`.
    pub encoding: Encoding,
    /// What the value stands for.
    pub shape: Shape,
    /// The value.
    pub bytes: Bytes,
}

/// What a sender handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// As WAMP carries it.
    Arguments(Arguments),
    /// As STOMP carries it.
    Body(Body),
    /// One binary value in the place of the arguments, which only sender and receiver can read
    /// (WAMP's transparent payload).
    Opaque(Bytes),
}

//! A frame as it is meant: a command, headers, a body. Its bytes are the business of `codec`.

use std::fmt;

use bytes::Bytes;

pub use crate::stomp::headers::Headers;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// STOMP 1.0.
    V10,
    /// STOMP 1.1.
    V11,
    /// STOMP 1.2.
    V12,
}

impl Version {
    /// All versions, the best one first.
    pub const ALL: [Self; 3] = [Self::V12, Self::V11, Self::V10];

    /// As in the `version` and `accept-version` headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The version that a header names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == name)
    }

    /// The name in `Sec-WebSocket-Protocol`, as registered with IANA.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::V10 => "v10.stomp",
            Self::V11 => "v11.stomp",
            Self::V12 => "v12.stomp",
        }
    }

    /// The version that a WebSocket subprotocol names. It does not bind: `accept-version` decides.
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.subprotocol() == name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that connects.
    Client,
    /// The one that is connected to.
    Server,
}

/// The first line of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the specification")]
pub enum Command {
    Connect,
    Stomp,
    Send,
    Subscribe,
    Unsubscribe,
    Begin,
    Commit,
    Abort,
    Ack,
    Nack,
    Disconnect,
    Connected,
    Message,
    Receipt,
    Error,
}

impl Command {
    /// All commands.
    pub const ALL: [Self; 15] = [
        Self::Send,
        Self::Message,
        Self::Ack,
        Self::Nack,
        Self::Receipt,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::Connect,
        Self::Stomp,
        Self::Connected,
        Self::Disconnect,
        Self::Error,
    ];

    /// As it stands in a frame.
    #[inline]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Stomp => "STOMP",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Disconnect => "DISCONNECT",
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    /// The command that a line names; case matters.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"SEND" => Self::Send,
            b"MESSAGE" => Self::Message,
            b"ACK" => Self::Ack,
            b"NACK" => Self::Nack,
            b"RECEIPT" => Self::Receipt,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UNSUBSCRIBE" => Self::Unsubscribe,
            b"BEGIN" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ABORT" => Self::Abort,
            b"CONNECT" => Self::Connect,
            b"STOMP" => Self::Stomp,
            b"CONNECTED" => Self::Connected,
            b"DISCONNECT" => Self::Disconnect,
            b"ERROR" => Self::Error,
            _ => return None,
        })
    }

    /// Who sends it.
    pub const fn sender(self) -> Side {
        match self {
            Self::Connected | Self::Message | Self::Receipt | Self::Error => Side::Server,
            Self::Connect
            | Self::Stomp
            | Self::Send
            | Self::Subscribe
            | Self::Unsubscribe
            | Self::Begin
            | Self::Commit
            | Self::Abort
            | Self::Ack
            | Self::Nack
            | Self::Disconnect => Side::Client,
        }
    }

    /// Whether it opens a connection. Such frames are written without escapes, and in no version yet.
    #[inline]
    pub const fn is_opening(self) -> bool {
        matches!(self, Self::Connect | Self::Stomp | Self::Connected)
    }

    /// Whether a frame with this command may carry a body.
    #[inline]
    pub const fn may_have_body(self) -> bool {
        matches!(self, Self::Send | Self::Message | Self::Error)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One frame.
///
/// ```
/// use tandem_protocols::stomp::frame::{Command, Frame};
///
/// let frame = Frame::new(Command::Send).with("destination", "/topic/a").with_body("hello");
/// assert_eq!(frame.headers.get("destination"), Some("/topic/a"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What is asked or said.
    pub command: Command,
    /// The details.
    pub headers: Headers,
    /// The data. One that was read may be a slice of the input and then keeps the whole input in memory.
    pub body: Bytes,
}

impl Frame {
    /// A frame without headers and body.
    pub const fn new(command: Command) -> Self {
        Self { command, headers: Headers::new(), body: Bytes::new() }
    }

    /// The frame with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push(name, value);
        self
    }

    /// The frame with that body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_versions_and_commands_come_back() {
        for version in Version::ALL {
            assert_eq!(Version::from_name(version.as_str()), Some(version));
            assert_eq!(Version::from_subprotocol(version.subprotocol()), Some(version));
        }
        for command in Command::ALL {
            assert_eq!(Command::from_name(command.as_str().as_bytes()), Some(command));
        }
        assert_eq!(Command::from_name(b"send"), None, "G1: case matters");
        assert_eq!(Version::from_subprotocol("stomp"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let frame = Frame::new(Command::Connect).with("login", "guest").with("passcode", "secret");
        let shown = format!("{frame:?}");
        assert!(shown.contains("guest") && !shown.contains("secret"));
    }
}

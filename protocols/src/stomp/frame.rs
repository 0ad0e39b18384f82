//! A frame as it is meant: a command, headers, a body. Its bytes are the business of `codec`.

use std::fmt;

use bytes::Bytes;

use crate::stomp::error::Violation;

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
        Self::ALL.into_iter().find(|command| command.as_str().as_bytes() == name)
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
    pub const fn is_opening(self) -> bool {
        matches!(self, Self::Connect | Self::Stomp | Self::Connected)
    }

    /// Whether a frame with this command may carry a body.
    pub const fn may_have_body(self) -> bool {
        matches!(self, Self::Send | Self::Message | Self::Error)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names and values in their order, without escapes.
///
/// A name may be repeated; then the first one counts. All text lies in one piece, so that the headers of a
/// frame cost two allocations, however many they are, and hold on to no buffer of a connection.
#[derive(Clone, Default)]
pub struct Headers {
    text: String,
    ends: Vec<Ends>,
}

/// Where a name and its value end in the text. A header begins where the one before it ended.
#[derive(Clone, Copy)]
struct Ends {
    name: usize,
    value: usize,
}

impl Headers {
    /// No headers. Allocates nothing.
    pub const fn new() -> Self {
        Self { text: String::new(), ends: Vec::new() }
    }

    /// No headers, with room for `count` of them with `bytes` octets of text.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// Appends a header. If the name is there already, the older one goes on to count.
    pub fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let name = self.text.len();
        self.text.push_str(value);
        self.ends.push(Ends { name, value: self.text.len() });
    }

    /// The value of the first header of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        // A reader asks for many that are not there: by octets, and the length first.
        let text = self.text.as_bytes();
        let mut start = 0;
        for ends in &self.ends {
            if ends.name - start == name.len() && &text[start..ends.name] == name.as_bytes() {
                return Some(&self.text[ends.name..ends.value]);
            }
            start = ends.value;
        }
        None
    }

    /// The value of the first header of that name, which the frame must have.
    pub fn require(&self, name: &str) -> Result<&str, Violation> {
        self.get(name).ok_or_else(|| Violation::missing_header(name))
    }

    /// All headers in their order, with the repeated ones that do not count.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |ends| {
            let header = (&self.text[start..ends.name], &self.text[ends.name..ends.value]);
            start = ends.value;
            header
        })
    }

    /// The headers that count: the first one of each name.
    ///
    /// Compares every name with those before it, which the reader's limit on headers makes bearable.
    pub fn unique(&self) -> impl Iterator<Item = (&str, &str)> {
        let before = self.iter();
        self.iter()
            .enumerate()
            .filter(move |(at, header)| !before.clone().take(*at).any(|other| other.0 == header.0))
            .map(|(_, header)| header)
    }

    /// How many headers there are, repeated ones included.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Octets of all names and values.
    pub const fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Drops the blanks with which 1.0 pads values, as in `login: guest`.
    pub fn trim_values(&mut self) {
        if self.iter().all(|header| trimmed(header.1) == header.1) {
            return;
        }
        *self = self.iter().map(|(name, value)| (name, trimmed(value))).collect();
    }
}

/// A value without leading blanks.
pub(super) fn trimmed(value: &str) -> &str {
    value.trim_start_matches([' ', '\t'])
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut all = Self::new();
        for (name, value) in headers {
            all.push(name.as_ref(), value.as_ref());
        }
        all
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

/// Shows everything but passwords.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| (name, if name == "passcode" { "***" } else { value }));
        f.debug_list().entries(shown).finish()
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
    fn the_first_of_repeated_headers_counts() {
        let headers: Headers = [("foo", "1"), ("bar", ""), ("foo", "2")].into_iter().collect();
        assert_eq!(headers.get("foo"), Some("1"), "G7");
        assert_eq!(headers.get("bar"), Some(""));
        assert_eq!(headers.get("Foo"), None, "G1: case matters");
        assert_eq!(headers.len(), 3);
        assert!(headers.unique().eq([("foo", "1"), ("bar", "")]));
        assert_eq!(headers.require("id").unwrap_err(), Violation::missing_header("id"));
    }

    #[test]
    fn padding_is_trimmed_at_the_start_of_values_only() {
        let mut headers: Headers = [(" a", " \tb "), ("c", "d")].into_iter().collect();
        headers.trim_values();
        assert!(headers.iter().eq([(" a", "b "), ("c", "d")]));
    }

    #[test]
    fn a_password_is_not_shown() {
        let frame = Frame::new(Command::Connect).with("login", "guest").with("passcode", "secret");
        let shown = format!("{frame:?}");
        assert!(shown.contains("guest") && !shown.contains("secret"));
    }
}

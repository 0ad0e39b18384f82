//! How a peer can break the language.
//!
//! This is not where an error becomes an ERROR frame, nor where the house refuses something that was said
//! correctly; but a refusal takes its text from [`Reason`] too, so that all texts stand in one list.

use std::borrow::Cow;
use std::fmt;

/// Octets of a peer's text that a detail quotes at most.
const QUOTED_BYTES_MAX: usize = 64;

/// What went wrong, in the few words that clients match on.
///
/// Where RabbitMQ has a text for the case, it is the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The octets are not a frame: the stream cannot be read any further.
    BadFrame,
    /// A limit of the reader was passed.
    FrameTooLarge,
    /// An unknown command, or one that is not allowed from this side or at this time.
    BadCommand,
    /// A header that the command needs is absent.
    MissingHeader,
    /// A header has a value that it may not have, or may not be there.
    InvalidHeader,
    /// No version is spoken by both.
    VersionMismatch,
    /// The destination has no meaning here.
    InvalidDestination,
    /// Something named by the peer does not exist.
    NotFound,
    /// The peer may not do this.
    AccessRefused,
}

impl Reason {
    /// The text of an ERROR frame's `message` header. It holds no character that needs escaping.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadFrame => "Bad frame",
            Self::FrameTooLarge => "Frame too large",
            Self::BadCommand => "Bad command",
            Self::MissingHeader => "Missing header",
            Self::InvalidHeader => "Invalid header",
            Self::VersionMismatch => "Version mismatch",
            Self::InvalidDestination => "Invalid destination",
            Self::NotFound => "not_found",
            Self::AccessRefused => "Access refused",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The peer broke the language. What it sends after that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Violation {
    /// Which rule was broken.
    pub reason: Reason,
    /// A sentence for the body of an ERROR frame. It may quote the peer, hence belongs in no header.
    pub detail: Cow<'static, str>,
}

impl Violation {
    /// A violation with a sentence that says more.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The short text, safe in a header of every version.
    pub const fn message(&self) -> &'static str {
        self.reason.as_str()
    }

    /// A header that must be there is not.
    pub fn missing_header(name: &str) -> Self {
        Self::new(Reason::MissingHeader, format!("header '{name}' is required"))
    }

    /// A header has a value that it may not have.
    pub fn invalid_header(name: &str, value: &str) -> Self {
        let value = quote(value.as_bytes());
        Self::new(Reason::InvalidHeader, format!("header '{name}' cannot be {value}"))
    }
}

/// The beginning of what a peer sent, printable and short.
pub(super) fn quote(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(QUOTED_BYTES_MAX)];
    let dots = if short.len() < bytes.len() { "..." } else { "" };
    format!("'{}{dots}'", short.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_short_and_printable() {
        assert_eq!(quote(b"a\n\0\xff"), r"'a\n\x00\xff'");
        assert_eq!(quote(&[b'a'; 1000]).len(), QUOTED_BYTES_MAX + 5);
    }

    #[test]
    fn a_violation_displays_both_texts() {
        let violation = Violation::missing_header("id");
        assert_eq!(violation.to_string(), "Missing header: header 'id' is required");
    }
}

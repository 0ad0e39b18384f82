//! What binds a proof to the TLS connection that it is sent over.
//!
//! Where the bytes come from is the transport's business; here they are only named and looked up.

use crate::wamp::auth::error::AuthError;
use crate::wamp::dict::Dict;

/// How the bytes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindingKind {
    /// The first Finished message; RFC 5929. Not defined for TLS 1.3.
    TlsUnique,
    /// A hash of the server's certificate; RFC 5929.
    TlsServerEndPoint,
    /// Exported keying material; RFC 9266.
    TlsExporter,
}

impl BindingKind {
    /// Its registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsUnique => "tls-unique",
            Self::TlsServerEndPoint => "tls-server-end-point",
            Self::TlsExporter => "tls-exporter",
        }
    }
}

/// What one connection can be bound by. Both peers see the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelBinding<'a> {
    /// How the bytes are made.
    pub kind: BindingKind,
    /// The bytes.
    pub data: &'a [u8],
}

impl<'a> ChannelBinding<'a> {
    /// The one that is called `name`.
    pub(super) fn find(available: &[Self], name: &str) -> Option<Self> {
        available.iter().find(|binding| binding.kind.as_str() == name).copied()
    }

    /// Checks that a CHALLENGE says of the binding what was requested.
    pub(super) fn confirm(requested: Option<Self>, extra: &Dict) -> Result<(), AuthError> {
        if extra.str("channel_binding")? == requested.map(|binding| binding.kind.as_str()) {
            Ok(())
        } else {
            Err(AuthError::Failed("the router does not bind the channel as it was asked to"))
        }
    }
}

//! STOMP as one of the languages that the house is spoken to in.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::core::access::Peer;
use crate::core::mailbox::Mailbox;
use crate::core::protocol::{Protocol, Recognition, Session};
use crate::stomp::session::StompSession;
use crate::stomp::settings::Settings;

/// The token of a session over a plain stream, which has no subprotocols.
pub const STREAM: &str = "stomp";

/// The language.
pub struct Stomp {
    settings: Arc<Settings>,
}

impl Stomp {
    /// The language, spoken with these settings.
    pub fn new(settings: Settings) -> Stomp {
        Stomp { settings: Arc::new(settings) }
    }
}

impl fmt::Debug for Stomp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stomp").finish_non_exhaustive()
    }
}

impl Protocol for Stomp {
    fn tokens(&self) -> &'static [&'static str] {
        &["v12.stomp", "v11.stomp", "v10.stomp"]
    }

    fn recognize(&self, first: &[u8]) -> Recognition {
        // HTTP has a method CONNECT too, but a blank follows it.
        let begins = [&b"CONNECT\n"[..], b"CONNECT\r", b"STOMP\n", b"STOMP\r", b"\n", b"\r"];
        if begins.iter().any(|begin| first.starts_with(begin)) {
            Recognition::Yes(STREAM)
        } else if begins.iter().any(|begin| begin.starts_with(first)) {
            Recognition::Maybe
        } else {
            Recognition::No
        }
    }

    fn speaks(&self, token: &str) -> bool {
        token == STREAM || self.tokens().contains(&token)
    }

    /// The token does not say the version: the peer's CONNECT does.
    fn open(&self, _token: &'static str, peer: &Peer, mailbox: Mailbox, _now: Instant) -> Box<dyn Session> {
        Box::new(StompSession::new(self.settings.clone(), peer.clone(), mailbox))
    }
}

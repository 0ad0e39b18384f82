//! WAMP as one of the languages that the house is spoken to in.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::batched;
use tandem_protocols::wamp::codec::{format_of, subprotocol};

use crate::core::access::Peer;
use crate::core::mailbox::Mailbox;
use crate::core::protocol::{Protocol, Session};
use crate::wamp::session::WampSession;
use crate::wamp::settings::WampSettings;
use crate::wamp::voice::Voice;

/// The language.
pub struct Wamp {
    settings: Arc<WampSettings>,
}

impl Wamp {
    /// The language, spoken with these settings.
    pub fn new(settings: WampSettings) -> Wamp {
        Wamp { settings: Arc::new(settings) }
    }
}

impl fmt::Debug for Wamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wamp").finish_non_exhaustive()
    }
}

impl Protocol for Wamp {
    fn tokens(&self) -> &'static [&'static str] {
        &[
            "wamp.2.json",
            "wamp.2.msgpack",
            "wamp.2.cbor",
            "wamp.2.json.batched",
            "wamp.2.msgpack.batched",
            "wamp.2.cbor.batched",
        ]
    }

    fn rawsocket(&self, serializer: u8) -> Option<&'static str> {
        match serializer {
            1 => Some(subprotocol(Format::Json)),
            2 => Some(subprotocol(Format::MsgPack)),
            3 => Some(subprotocol(Format::Cbor)),
            _ => None,
        }
    }

    fn open(&self, token: &'static str, peer: &Peer, mailbox: Mailbox, _now: Instant) -> Box<dyn Session> {
        let voice = format_of(token).map(Voice::new).or(batched::format_of(token).map(Voice::batched));
        let voice = voice.expect("a session is opened with one of the tokens that we gave");
        Box::new(WampSession::new(self.settings.clone(), voice, peer.clone(), mailbox))
    }
}

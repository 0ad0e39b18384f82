//! Publications that no session sent.
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use std::sync::Arc;

use tandem_broker::core::message::{Publication, SessionId};
use tandem_broker::core::name::Name;
use tandem_protocols::payload::{Content, Payload};

/// A publication of 128 bytes by this sender.
pub fn publication(sender: u64) -> Arc<Publication> {
    Arc::new(Publication::new(
        1,
        Name::parse("com.example.topic").unwrap(),
        SessionId(sender),
        Payload::new(Content::Opaque(vec![b'x'; 128].into())),
    ))
}

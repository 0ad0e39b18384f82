//! What a peer sends again and again: nearly always to the same topic, with the same headers. What those mean is found out
//! once, and then only the body of each frame is looked at.

use bytes::Bytes;

use tandem_protocols::payload::{Body, Content, Payload};
use tandem_protocols::stomp::frame::Frame;
use tandem_protocols::stomp::headers::Marks;
use tandem_protocols::stomp::usual::UsualHead;

use crate::core::message::{Attributes, Outgoing};
use crate::core::name::Name;

/// What concerns more than the message: what a frame with one of these does is not known from the one before it.
const ASKS_FOR_MORE: Marks = Marks::of(&["receipt", "reply-to", "retain", "transaction", "user-id"]);

/// Longer headers are not kept, in bytes.
const HEADERS_BYTES_MAX: usize = 1024;

/// A SEND to a topic that asks for nothing but that.
#[derive(Debug)]
pub(super) struct Usual {
    pub(super) head: UsualHead,
    name: Name,
    /// Without its bytes.
    body: Body,
    attributes: Attributes,
    /// It came again.
    came: bool,
}

impl Usual {
    /// What a frame was that publishes this, without more handling. None if another with this head may be something else.
    pub(super) fn of(frame: &Frame, published: &Outgoing) -> Option<Usual> {
        if frame.headers.may_have(ASKS_FOR_MORE) || frame.headers.text_bytes() > HEADERS_BYTES_MAX {
            return None;
        }
        let Content::Body(body) = published.payload.content() else { return None };
        Some(Usual {
            head: UsualHead::of(frame.command, &frame.headers)?,
            name: published.name.clone(),
            body: Body { bytes: Bytes::new(), ..body.clone() },
            attributes: published.attributes.clone(),
            came: false,
        })
    }

    /// Whether another came.
    pub(super) fn came(&self) -> bool {
        self.came
    }

    /// What another publishes, which came with this body.
    pub(super) fn outgoing(&mut self, bytes: Bytes) -> Outgoing {
        self.came = true;
        let Body { content_type, encoding, shape, .. } = &self.body;
        let body = Body { content_type: content_type.clone(), encoding: *encoding, shape: *shape, bytes };
        Outgoing {
            name: self.name.clone(),
            payload: Payload::new(Content::Body(body)),
            attributes: self.attributes.clone(),
        }
    }
}

//! What a subscription brings.

use std::sync::Arc;

use tandem_protocols::payload::Content;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;

use crate::buffer::Gap;
use crate::wamp::error::Error;
use crate::wamp::value::FromPayload;

/// An event of a subscription.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event<T> {
    /// What was published.
    pub payload: T,
    /// The topic that it was published to.
    pub topic: Arc<str>,
    /// The publication.
    pub publication: Id,
    /// The session that published it, if the router tells.
    pub publisher: Option<Id>,
    /// Whether it was published before the subscription, and kept.
    pub retained: bool,
    /// What is missing before it, if anything is.
    pub gap: Option<Gap>,
    /// All that the router says of it.
    pub details: Dict,
}

impl<T> Event<T> {
    /// Who published it, if the router tells.
    pub fn publisher_authid(&self) -> Option<&str> {
        self.details.str("publisher_authid").ok().flatten()
    }

    /// What who published it may do, if the router tells.
    pub fn publisher_authrole(&self) -> Option<&str> {
        self.details.str("publisher_authrole").ok().flatten()
    }
}

impl<T: FromPayload> Event<T> {
    pub(super) fn of(raw: RawEvent, gap: Option<Gap>) -> Result<Self, Error> {
        let RawEvent { topic, publication, details, payload } = raw;
        let publisher = details.id("publisher").ok().flatten();
        let retained = details.bool("retained").ok().flatten().unwrap_or(false);
        let payload = T::from_payload(payload, details.clone())?;
        Ok(Self { payload, topic, publication, publisher, retained, gap, details })
    }
}

/// An event that nobody has looked into yet.
#[derive(Clone, Debug)]
pub(super) struct RawEvent {
    pub(super) topic: Arc<str>,
    pub(super) publication: Id,
    pub(super) details: Dict,
    pub(super) payload: Content,
}

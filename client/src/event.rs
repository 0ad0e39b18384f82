//! What becomes of a STOMP client's connection, for whoever wants to show or log it. WAMP clients have more to tell:
//! [`wamp::ClientEvent`](crate::wamp::ClientEvent).

use std::sync::Arc;

use crate::error::Error;

/// Something happened to the connection of a STOMP client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// It is there again.
    Connected,
    /// It was lost, and this is why. The client tries to connect again.
    Lost(Arc<Error>),
    /// After a reconnect, all that was subscribed to and served before is so again.
    Resubscribed,
    /// The client tries no more, and this is why.
    GaveUp(Arc<Error>),
}

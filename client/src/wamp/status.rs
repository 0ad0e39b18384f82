//! Whether there is a session, and what becomes of it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use tandem_protocols::payload::Format;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;

use crate::buffer::{self, Gap, Overflow, Pushed};
use crate::wamp::error::Error;

/// What the stream of a client's events holds; the oldest make room.
const EVENTS_MAX: usize = 64;

/// What the router said when it let the client in.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionInfo {
    /// The session.
    pub id: Id,
    /// The realm.
    pub realm: String,
    /// The serializer.
    pub format: Format,
    /// The details of WELCOME: the router's roles and features, and who the client is.
    pub details: Dict,
}

impl SessionInfo {
    /// Who the client is.
    pub fn authid(&self) -> Option<&str> {
        self.details.str("authid").ok().flatten()
    }

    /// What the client may do.
    pub fn authrole(&self) -> Option<&str> {
        self.details.str("authrole").ok().flatten()
    }

    /// How the client showed who it is.
    pub fn authmethod(&self) -> Option<&str> {
        self.details.str("authmethod").ok().flatten()
    }
}

/// Why there will be no other session.
#[derive(Debug)]
pub(super) enum End {
    Closed,
    GaveUp,
    Refused { uri: String, message: String },
}

impl End {
    pub(super) fn to_error(&self) -> Error {
        match self {
            Self::Closed => Error::Closed,
            Self::GaveUp => Error::ConnectionLost,
            Self::Refused { uri, message } => Error::Refused { uri: uri.clone(), message: message.clone() },
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Status {
    Connecting,
    Connected(Arc<SessionInfo>),
    Ended(Arc<End>),
}

/// What becomes of a client's connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// There is a session. Subscriptions and registrations of the one before are not in it yet.
    Connected(Arc<SessionInfo>),
    /// The session has ended. Another one is on its way, unless [`GaveUp`](Self::GaveUp) follows.
    Lost {
        /// For humans.
        reason: String,
    },
    /// All that could be is in the new session: only now is nothing missed any more.
    Resubscribed {
        /// So many subscriptions.
        subscriptions: usize,
        /// So many registrations.
        registrations: usize,
        /// So many of either that the router did not want again; their streams have ended.
        refused: usize,
    },
    /// There will be no other session.
    GaveUp {
        /// For humans.
        reason: String,
    },
}

/// Everybody who listens to what becomes of the connection.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<Vec<buffer::Sender<ClientEvent>>>);

impl Watchers {
    pub(super) fn add(&self, first: Option<ClientEvent>) -> ClientEvents {
        let (sender, receiver) = buffer::buffer(EVENTS_MAX, Overflow::DropOldest);
        if let Some(first) = first {
            sender.push(first);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        ClientEvents { receiver }
    }

    pub(super) fn tell(&self, event: &ClientEvent) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.push(event.clone()) == Pushed::Done);
    }

    /// No more will come.
    pub(super) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What becomes of a client's connection, as it happens; made by [`Client::events`](super::Client::events). Of what is
/// not read, the newest 64 are kept.
#[derive(Debug)]
pub struct ClientEvents {
    receiver: buffer::Receiver<ClientEvent>,
}

impl ClientEvents {
    /// The next; `None` once the client is closed or has given up.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for ClientEvents {
    type Item = ClientEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        let taken: Option<(Option<Gap>, ClientEvent)> = ready!(self.receiver.poll_take(cx));
        Poll::Ready(taken.map(|(_, event)| event))
    }
}

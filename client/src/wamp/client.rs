//! The client: a handle of a session that goes on.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::wamp::call::Call;
use crate::wamp::handle::{Command, Handle};
use crate::wamp::publication::Publication;
use crate::wamp::registration::Register;
use crate::wamp::status::{ClientEvent, ClientEvents, SessionInfo, Status};
use crate::wamp::subscription::Subscribe;

/// A client in a realm. Clones are handles of the same.
///
/// One task owns the connection. It ends, after a GOODBYE, when the last handle is dropped: clients, subscriptions,
/// registrations and calls are handles.
///
/// ```no_run
/// use tandem_client::Backoff;
/// use tandem_client::wamp::{Client, Format, Ticket};
///
/// # async fn run() -> Result<(), tandem_client::wamp::Error> {
/// let client = Client::builder("ws://127.0.0.1:8080/")
///     .realm("realm1")
///     .serializers([Format::Cbor, Format::MsgPack, Format::Json])
///     .auth(Ticket::new("joe", "secret"))
///     .reconnect(Backoff::default())
///     .connect()
///     .await?;
/// let sum: i64 = client.call("com.example.add").args((2, 3)).await?;
/// client.publish("com.example.sum").args((sum,)).await?;
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
}

impl Client {
    pub(super) fn of(handle: Handle) -> Self {
        Self { handle: Arc::new(handle) }
    }

    /// Calls a procedure; see [`Call`]. The type is what its result is read into: see [`FromPayload`](super::FromPayload).
    pub fn call<R>(&self, procedure: impl Into<String>) -> Call<R> {
        Call::new(self.handle.clone(), procedure.into())
    }

    /// Publishes to a topic; see [`Publication`].
    pub fn publish(&self, topic: impl Into<String>) -> Publication {
        Publication::new(self.handle.clone(), topic.into())
    }

    /// Subscribes to a topic; see [`Subscribe`]. The type is what events are read into: see
    /// [`FromPayload`](super::FromPayload).
    pub fn subscribe<T>(&self, topic: impl Into<String>) -> Subscribe<T> {
        Subscribe::new(self.handle.clone(), topic.into())
    }

    /// Offers a procedure; see [`Register`].
    pub fn register(&self, procedure: impl Into<String>) -> Register {
        Register::new(self.handle.clone(), procedure.into())
    }

    /// What becomes of the connection from now on. Where there is a session, the first event is that it is
    /// [`Connected`](ClientEvent::Connected).
    pub fn events(&self) -> ClientEvents {
        self.handle.watchers.add(self.session().map(ClientEvent::Connected))
    }

    /// The session, if there is one now.
    pub fn session(&self) -> Option<Arc<SessionInfo>> {
        match &*self.handle.status.borrow() {
            Status::Connected(info) => Some(info.clone()),
            Status::Connecting | Status::Ended(_) => None,
        }
    }

    /// Ends the session in good order, and waits for it: what was asked before is sent, handlers that run are dropped
    /// and their calls answered, and the router's GOODBYE is awaited, for at most five seconds. All other handles then
    /// give [`Error::Closed`](super::Error::Closed), and streams end.
    pub async fn close(self) {
        let (reply, done) = oneshot::channel();
        if self.handle.hand_in(Command::Close(reply)).await.is_ok() {
            // An error is that it was over already.
            let _ = done.await;
        }
    }
}

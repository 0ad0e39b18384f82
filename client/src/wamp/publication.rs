//! Publishing.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::id::Id;

use crate::wamp::error::Error;
use crate::wamp::handle::{Command, Handle};
use crate::wamp::value::{Draft, ToPayload};

/// Something to be published: await it.
///
/// Without [`acknowledge`](Self::acknowledge) it has been taken into the queue of what is to be sent then, which has a
/// limit: whoever publishes faster than the router takes waits. What is in that queue when the connection is lost is
/// lost with it. With an acknowledgement the router has it, or it is an error: [`Error::ConnectionLost`] where that
/// is not known.
///
/// ```no_run
/// # async fn run(client: tandem_client::wamp::Client) -> Result<(), tandem_client::wamp::Error> {
/// client.publish("com.example.price").args(("EUR", 1.07)).retain().await?;
/// let publication = client.publish("com.example.price").args(("CHF", 1.01)).acknowledge().await?;
/// assert!(publication.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is published before it is awaited"]
pub struct Publication {
    handle: Arc<Handle>,
    topic: String,
    options: Dict,
    draft: Draft,
    is_acknowledged: bool,
}

impl Publication {
    pub(super) fn new(handle: Arc<Handle>, topic: String) -> Self {
        Self { handle, topic, options: Dict::new(), draft: Draft::default(), is_acknowledged: false }
    }

    /// Positional arguments: a tuple or a list.
    pub fn args<A: Serialize>(mut self, args: A) -> Self {
        self.draft.args(&args);
        self
    }

    /// Keyword arguments: a struct or a map.
    pub fn kwargs<K: Serialize>(mut self, kwargs: K) -> Self {
        self.draft.kwargs(&kwargs);
        self
    }

    /// All of it at once: a [`Raw`](super::Raw), a [`CallOutput`](super::CallOutput), or a value that is the only
    /// positional argument.
    pub fn payload<T: ToPayload>(mut self, payload: &T) -> Self {
        self.draft.payload(payload);
        self
    }

    /// Waits until the router has it; gives the publication.
    pub fn acknowledge(mut self) -> Self {
        self.is_acknowledged = true;
        self.option("acknowledge", true)
    }

    /// This session gets it as well, if it is subscribed.
    pub fn include_me(self) -> Self {
        self.option("exclude_me", false)
    }

    /// Subscribers are told who publishes.
    pub fn disclose_me(self) -> Self {
        self.option("disclose_me", true)
    }

    /// The router keeps it for those who subscribe later.
    pub fn retain(self) -> Self {
        self.option("retain", true)
    }

    /// These sessions do not get it.
    pub fn exclude(self, sessions: impl IntoIterator<Item = Id>) -> Self {
        self.list("exclude", sessions)
    }

    /// Those who are called so do not get it.
    pub fn exclude_authid<S: Into<String>>(self, authids: impl IntoIterator<Item = S>) -> Self {
        self.list("exclude_authid", authids.into_iter().map(Into::into))
    }

    /// Those in these roles do not get it.
    pub fn exclude_authrole<S: Into<String>>(self, authroles: impl IntoIterator<Item = S>) -> Self {
        self.list("exclude_authrole", authroles.into_iter().map(Into::into))
    }

    /// Only these sessions get it.
    pub fn eligible(self, sessions: impl IntoIterator<Item = Id>) -> Self {
        self.list("eligible", sessions)
    }

    /// Only those who are called so get it.
    pub fn eligible_authid<S: Into<String>>(self, authids: impl IntoIterator<Item = S>) -> Self {
        self.list("eligible_authid", authids.into_iter().map(Into::into))
    }

    /// Only those in these roles get it.
    pub fn eligible_authrole<S: Into<String>>(self, authroles: impl IntoIterator<Item = S>) -> Self {
        self.list("eligible_authrole", authroles.into_iter().map(Into::into))
    }

    fn list<T: Into<Value>>(self, key: &str, values: impl IntoIterator<Item = T>) -> Self {
        self.option(key, values.into_iter().map(Into::into).collect::<Vec<Value>>())
    }

    /// Any option of PUBLISH.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(key, value);
        self
    }

    /// Any options of PUBLISH. To have it acknowledged there is [`acknowledge`](Self::acknowledge).
    pub fn options(mut self, options: &Dict) -> Self {
        for (key, value) in options.iter().filter(|(key, _)| *key != "acknowledge") {
            self.options.insert(key, value.clone());
        }
        self
    }
}

impl IntoFuture for Publication {
    type Output = Result<Option<Id>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { handle, topic, options, draft, is_acknowledged } = self;
            let payload = draft.finish()?;
            if !is_acknowledged {
                handle.send(Command::Publish { topic, options, payload, reply: None }).await?;
                return Ok(None);
            }
            let permit = handle.permit().await?;
            let (reply, answer) = oneshot::channel();
            let reply = Some((reply, permit));
            handle.send(Command::Publish { topic, options, payload, reply }).await?;
            handle.reply(answer, "PUBLISHED").await.map(Some)
        })
    }
}

//! Calls of procedures, and of whoever answers messages of a queue.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::{Command, Frame, Headers};

use crate::error::Error;
use crate::stomp::body;
use crate::stomp::outbox::{Alive, REPLY_TO, Request};
use crate::stomp::receipt::Receipt;

/// A call that is made when this is awaited, and is then ready when it was answered.
///
/// Dropped before, nobody waits for the answer any more; whoever answers is not told.
#[derive(Debug)]
#[must_use = "nothing is called before it is awaited"]
pub struct Call {
    alive: Arc<Alive>,
    frame: Frame,
    timeout: Option<Duration>,
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Answer {
    frame: Frame,
}

impl Call {
    pub(super) fn new(alive: Arc<Alive>, destination: &str) -> Call {
        let frame = Frame::new(Command::Send).with("destination", destination);
        Call { alive, frame, timeout: None }
    }

    /// A header. The first of a name counts.
    pub fn header(mut self, name: &str, value: &str) -> Call {
        self.frame.headers.push(name, value);
        self
    }

    /// A value as JSON: to a procedure, its only argument.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] where it has no such form.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Call, Error> {
        let bytes = body::write(Format::Json, value)?;
        Ok(self.bytes(body::content_type(Format::Json), bytes))
    }

    /// The positional arguments of a procedure, as JSON: a tuple, an array or a vector.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] where they have no such form.
    pub fn args<T: Serialize + ?Sized>(self, args: &T) -> Result<Call, Error> {
        Ok(self.json(args)?.header("x-wamp-payload", "args"))
    }

    /// Text.
    pub fn text(self, text: impl Into<String>) -> Call {
        self.bytes("text/plain", text.into())
    }

    /// Bytes of any type; of none where `content_type` is empty.
    pub fn bytes(mut self, content_type: &str, bytes: impl Into<Bytes>) -> Call {
        if !content_type.is_empty() {
            self.frame.headers.push("content-type", content_type);
        }
        self.frame.body = bytes.into();
        self
    }

    /// How long to wait for the answer. Tandem ends the call then; where the answer is not there a second later, this
    /// ends with [`Error::Timeout`].
    pub fn timeout(mut self, timeout: Duration) -> Call {
        self.timeout = Some(timeout);
        self
    }

    async fn run(mut self) -> Result<Answer, Error> {
        let number = self.alive.0.number();
        self.frame.headers.push("reply-to", REPLY_TO);
        self.frame.headers.push("correlation-id", &number.to_string());
        if let Some(timeout) = self.timeout {
            self.frame.headers.push("x-timeout", &timeout.as_millis().to_string());
        }
        let (reply, receipt) = Receipt::new(self.alive.0.clone());
        self.alive.0.enqueue(Request::Call { frame: self.frame, number, reply }).await?;
        let waiting = Waiting { alive: &self.alive, number };
        let frame = match self.timeout {
            None => receipt.await?,
            Some(limit) => {
                let limit = limit.saturating_add(Duration::from_secs(1));
                tokio::time::timeout(limit, receipt).await.map_err(|_| Error::Timeout("answer"))??
            }
        };
        std::mem::forget(waiting);
        Ok(Answer { frame })
    }
}

/// Somebody waits for the answer, until this is dropped.
struct Waiting<'a> {
    alive: &'a Alive,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.alive.0.undo(Request::Forget { number: self.number });
    }
}

impl IntoFuture for Call {
    type Output = Result<Answer, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl Answer {
    /// All headers.
    pub fn headers(&self) -> &Headers {
        &self.frame.headers
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.frame.body
    }

    /// The value that the body is, by its `content-type`.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] where it is none, or no `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        body::read(self.headers(), self.body())
    }
}

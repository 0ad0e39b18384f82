//! Calls: a request, and the one result that it comes to.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use tandem_protocols::wamp::dict::{Dict, Value};

use crate::buffer::{self, Overflow};
use crate::wamp::error::Error;
use crate::wamp::handle::{BUFFERED, Handle};
use crate::wamp::progress::{CallSink, Progressive};
use crate::wamp::running::{Answer, Pieces, Running, bounded, timed_out};
use crate::wamp::value::{Draft, FromPayload, Raw, ToPayload};

/// A call that is not made yet: await it, or go on with [`progressive`](Self::progressive) or [`sink`](Self::sink).
///
/// Dropped before its result is there, the call is cancelled: the router is told, and the callee by it. Where the
/// connection is lost meanwhile it fails with [`Error::ConnectionLost`], unless it is
/// [`idempotent`](Self::idempotent).
///
/// ```no_run
/// use std::time::Duration;
///
/// # async fn run(client: tandem_client::wamp::Client) -> Result<(), tandem_client::wamp::Error> {
/// let sum: i64 = client.call("com.example.add").args((2, 3)).timeout(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is called before it is awaited"]
pub struct Call<R> {
    handle: Arc<Handle>,
    procedure: String,
    options: Dict,
    draft: Draft,
    timeout: Option<Duration>,
    is_idempotent: bool,
    buffer: (usize, Overflow),
    result: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    pub(super) fn new(handle: Arc<Handle>, procedure: String) -> Self {
        let timeout = handle.patience.call;
        Self {
            handle,
            procedure,
            options: Dict::new(),
            draft: Draft::default(),
            timeout,
            is_idempotent: false,
            buffer: BUFFERED,
            result: PhantomData,
        }
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

    /// All arguments at once: a [`Raw`], a [`CallOutput`](super::CallOutput), or a value that is the only one.
    pub fn payload<T: ToPayload>(mut self, payload: &T) -> Self {
        self.draft.payload(payload);
        self
    }

    /// After so long the call fails with [`Error::Timeout`] and is cancelled. The router is told as well. It counts from
    /// the beginning, waiting for a connection included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 53);
        self.option("timeout", timeout_ms)
    }

    /// The callee is told who calls.
    pub fn disclose_me(self) -> Self {
        self.option("disclose_me", true)
    }

    /// Any option of CALL.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(key, value);
        self
    }

    /// Any options of CALL.
    pub fn options(mut self, options: &Dict) -> Self {
        for (key, value) in options.iter() {
            self.options.insert(key, value.clone());
        }
        self
    }

    /// The procedure may be run twice: where the connection is lost, it is called again over the next. Not for
    /// [`progressive`](Self::progressive) calls and [`sink`](Self::sink)s.
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// How many partial results of a [`progressive`](Self::progressive) call may wait to be read, and what happens to
    /// more: unless it is said, 1024, and the oldest are dropped, which is told by [`Error::Missed`].
    pub fn buffer(mut self, capacity: usize, overflow: Overflow) -> Self {
        self.buffer = (capacity, overflow);
        self
    }

    /// Makes the call, whose partial results are wanted as they come.
    ///
    /// ```no_run
    /// # use serde::Deserialize;
    /// # #[derive(Deserialize)] struct Row;
    /// # #[derive(Deserialize)] struct Summary;
    /// # async fn run(client: tandem_client::wamp::Client) -> Result<(), tandem_client::wamp::Error> {
    /// use tandem_client::wamp::Progress;
    ///
    /// let mut report = client.call("com.example.report").progressive::<Row, Summary>().await?;
    /// while let Some(progress) = report.next().await {
    ///     match progress? {
    ///         Progress::Partial(row) => { /* one of many */ }
    ///         Progress::Final(summary) => { /* the last thing that comes */ }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of encoding, and [`Error::ConnectionLost`] where there is no connection.
    pub async fn progressive<P: FromPayload, F: FromPayload + Is<R>>(
        self,
    ) -> Result<Progressive<P, F>, Error> {
        let (partials, receiver) = buffer::buffer(self.buffer.0, self.buffer.1);
        let timeout = self.timeout;
        let call = self.option("receive_progress", true).begin(Some(partials));
        let (running, answer) = bounded(timeout, call).await?;
        Ok(Progressive::new(running, receiver, answer, timeout))
    }

    /// A call whose arguments are sent in pieces, each of which is one positional argument. It begins with the first.
    ///
    /// ```no_run
    /// # async fn run(client: tandem_client::wamp::Client) -> Result<(), tandem_client::wamp::Error> {
    /// let mut upload = client.call("com.example.upload").sink::<String, u64>().await?;
    /// for line in ["first", "second"] {
    ///     upload.send(&line.to_owned()).await?;
    /// }
    /// let lines = upload.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] where there is no connection.
    pub async fn sink<C: ToPayload, F: FromPayload + Is<R>>(self) -> Result<CallSink<C, F>, Error> {
        self.handle.connected().await?;
        let Self { handle, procedure, options, timeout, .. } = self;
        Ok(CallSink::new(Pieces { handle, procedure, options }, timeout))
    }

    async fn begin(self, partials: Option<buffer::Sender<Raw>>) -> Result<(Running, Answer), Error> {
        let payload = self.draft.finish()?;
        let pieces = Pieces { handle: self.handle, procedure: self.procedure, options: self.options };
        pieces.begin(payload, partials, self.is_idempotent).await
    }
}

impl<R: FromPayload + Send + 'static> IntoFuture for Call<R> {
    type Output = Result<R, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let limit = self.timeout;
            let result = bounded(limit, async {
                let (mut running, answer) = self.begin(None).await?;
                let answer = answer.await;
                running.has_ended = true;
                answer.unwrap_or_else(|_| Err(running.handle.ended()))
            });
            let Raw { details, payload } = result.await.map_err(|error| timed_out(error, limit))?;
            Ok(R::from_payload(payload, details)?)
        })
    }
}

/// That two types are the same one, so that the result of a call is said once: with
/// [`progressive`](Call::progressive), or before.
pub trait Is<T>: sealed::Sealed<T> {}

impl<T> Is<T> for T {}

mod sealed {
    pub trait Sealed<T> {}

    impl<T> Sealed<T> for T {}
}

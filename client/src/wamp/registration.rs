//! Offering a procedure.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::options::{InvokePolicy, MatchPolicy};

use crate::wamp::error::{ApplicationError, Error};
use crate::wamp::handle::{Command, Forsaken, Handle, RegisterCommand, Token};
use crate::wamp::invocation::{Arguments, Chunks, Handler, Invocation, InvocationCtx};
use crate::wamp::value::{FromPayload, ToPayload};

/// How many invocations of a registration run at once, unless it is said otherwise.
pub const CONCURRENCY: usize = 16;

/// How many more wait for their turn, unless it is said otherwise; beyond, calls are answered with
/// `wamp.error.unavailable`.
pub const WAITING_MAX: usize = 256;

/// How long a handler that has asked for [`InvocationCtx::cancelled`] may go on after it, unless it is said otherwise.
pub const GRACE: Duration = Duration::from_secs(5);

/// A procedure that is not offered yet: [`handler`](Self::handler) does it.
///
/// ```no_run
/// # async fn run(client: tandem_client::wamp::Client) -> Result<(), tandem_client::wamp::Error> {
/// use tandem_client::wamp::{InvocationCtx, InvokePolicy};
///
/// let add = client
///     .register("com.example.add")
///     .invoke(InvokePolicy::RoundRobin)
///     .concurrency(8)
///     .handler(|(a, b): (i64, i64), ctx: InvocationCtx| async move {
///         ctx.progress(&"nearly").await?;
///         Ok(a + b)
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is registered without a handler"]
pub struct Register {
    handle: Arc<Handle>,
    procedure: String,
    options: Dict,
    concurrency: usize,
    waiting_max: usize,
    grace: Duration,
}

impl Register {
    pub(super) fn new(handle: Arc<Handle>, procedure: String) -> Self {
        let (options, concurrency, waiting_max) = (Dict::new(), CONCURRENCY, WAITING_MAX);
        Self { handle, procedure, options, concurrency, waiting_max, grace: GRACE }
    }

    /// All procedures that begin so; [`InvocationCtx::procedure`] tells which was called.
    pub fn prefix(self) -> Self {
        self.matching(MatchPolicy::Prefix)
    }

    /// All procedures that are so, where an empty component stands for any one.
    pub fn wildcard(self) -> Self {
        self.matching(MatchPolicy::Wildcard)
    }

    /// However the procedure is to be matched.
    pub fn matching(self, policy: MatchPolicy) -> Self {
        match policy {
            MatchPolicy::Exact => self,
            MatchPolicy::Prefix | MatchPolicy::Wildcard => self.option("match", policy.as_str()),
        }
    }

    /// How one of several callees of the procedure is chosen.
    pub fn invoke(self, policy: InvokePolicy) -> Self {
        self.option("invoke", policy.as_str())
    }

    /// How many invocations run at once, at least one: unless it is said, [`CONCURRENCY`]. The router is told, and may
    /// call others meanwhile.
    pub fn concurrency(mut self, invocations: usize) -> Self {
        self.concurrency = invocations.max(1);
        let told = u64::try_from(self.concurrency).unwrap_or(u64::MAX);
        self.option("concurrency", told.min(1 << 53))
    }

    /// How many more wait for their turn: unless it is said, [`WAITING_MAX`]. A call beyond that is answered with
    /// `wamp.error.unavailable`.
    pub fn waiting(mut self, invocations: usize) -> Self {
        self.waiting_max = invocations;
        self
    }

    /// How long a handler that has asked for [`InvocationCtx::cancelled`] may go on after it: unless it is said,
    /// [`GRACE`].
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Whoever has registered the procedure before loses it.
    pub fn force(self) -> Self {
        self.option("force_reregister", true)
    }

    /// Any option of REGISTER.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.insert(key, value);
        self
    }

    /// Offers the procedure: for each call the handler is called, with its arguments, and its future is run in a task of
    /// its own. `Ok` is the result, `Err` the error; what the arguments do not decode to is answered with
    /// `wamp.error.invalid_argument`, and a panic with `wamp.error.runtime_error`.
    ///
    /// # Errors
    ///
    /// [`Error::Application`] where the router says no, [`Error::ConnectionLost`], [`Error::Timeout`].
    pub async fn handler<A, R, H, F>(self, handler: H) -> Result<Registration, Error>
    where
        A: FromPayload + Send + 'static,
        R: ToPayload,
        H: Fn(A, InvocationCtx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, ApplicationError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.offer(
            false,
            Arc::new(move |invocation: Invocation| {
                let handler = handler.clone();
                Box::pin(async move {
                    let Invocation { arguments, ctx } = invocation;
                    let Arguments::Whole(payload) = arguments else {
                        return Err(ApplicationError::runtime("arguments in pieces"));
                    };
                    let arguments = A::from_payload(payload, ctx.details().clone())?;
                    Ok(handler(arguments, ctx).await?.to_payload()?)
                })
            }),
        )
        .await
    }

    /// The same for calls whose arguments come in pieces, as a stream. One that has all its arguments at once is a
    /// stream of one.
    ///
    /// ```no_run
    /// # async fn run(client: tandem_client::wamp::Client) -> Result<(), tandem_client::wamp::Error> {
    /// use tandem_client::wamp::Chunks;
    ///
    /// let count = client
    ///     .register("com.example.upload")
    ///     .handler_stream(|mut lines: Chunks<String>, ctx| async move {
    ///         let mut bytes = 0;
    ///         while let Some(line) = lines.next().await {
    ///             bytes += line?.len();
    ///         }
    ///         Ok(bytes)
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// See [`handler`](Self::handler).
    pub async fn handler_stream<C, R, H, F>(self, handler: H) -> Result<Registration, Error>
    where
        C: FromPayload + 'static,
        R: ToPayload,
        H: Fn(Chunks<C>, InvocationCtx) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, ApplicationError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.offer(
            true,
            Arc::new(move |invocation: Invocation| {
                let handler = handler.clone();
                Box::pin(async move {
                    let Invocation { arguments, ctx } = invocation;
                    let Arguments::Pieces(receiver) = arguments else {
                        return Err(ApplicationError::runtime("arguments in one piece"));
                    };
                    Ok(handler(Chunks::new(receiver), ctx).await?.to_payload()?)
                })
            }),
        )
        .await
    }

    async fn offer(self, takes_pieces: bool, handler: Handler) -> Result<Registration, Error> {
        let Self { handle, procedure, options, concurrency, waiting_max, grace } = self;
        let permit = handle.permit().await?;
        let token = handle.token();
        let ((end, ended), (reply, answer)) = (oneshot::channel(), oneshot::channel());
        // Made before it is sent: from then on, whoever lets go of it unregisters.
        let registration = Registration { handle, token, ended: Some(ended), is_kept: false };
        let command = RegisterCommand {
            token,
            procedure,
            options,
            takes_pieces,
            handler,
            concurrency,
            waiting_max,
            grace,
            end,
            reply,
            permit,
        };
        registration.handle.send(Command::Register(Box::new(command))).await?;
        registration.handle.reply(answer, "REGISTERED").await?;
        Ok(registration)
    }
}

/// A procedure that is offered, in this session and those that follow. Dropped, it is withdrawn; what runs then comes
/// to its end.
#[derive(Debug)]
#[must_use = "what is dropped is unregistered"]
pub struct Registration {
    handle: Arc<Handle>,
    token: Token,
    ended: Option<oneshot::Receiver<Result<(), Error>>>,
    is_kept: bool,
}

impl Registration {
    /// Offers the procedure until the client is closed.
    pub fn detach(mut self) {
        self.is_kept = true;
    }

    /// Withdraws the procedure, and waits until the router has done so.
    ///
    /// # Errors
    ///
    /// [`Error::Application`] where the router knows of no such registration.
    pub async fn unregister(mut self) -> Result<(), Error> {
        self.is_kept = true;
        let (reply, answer) = oneshot::channel();
        self.handle.hand_in(Command::Unregister(self.token, reply)).await?;
        self.handle.reply(answer, "UNREGISTERED").await
    }

    /// Waits until the procedure is not offered any more, and says why: because the router took it away or did not want
    /// it again, or because the client is closed.
    pub async fn ended(&mut self) -> Error {
        let Some(ended) = &mut self.ended else { return self.handle.ended() };
        let why = ended.await;
        self.ended = None;
        match why {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => self.handle.ended(),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.is_kept {
            self.handle.forsake(Forsaken::Registration(self.token));
        }
    }
}

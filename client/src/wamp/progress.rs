//! Calls in parts: results as a stream, arguments as a sink.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, Sleep, sleep_until};

use tandem_protocols::payload::{Arguments, Content, Format};

use crate::buffer;
use crate::wamp::error::Error;
use crate::wamp::handle::{Command, Forsaken};
use crate::wamp::running::{Answer, Pieces, RESULT, Running, bounded, timed_out};
use crate::wamp::value::{FromPayload, Raw, ToPayload};

/// A part of what a call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<P, F> {
    /// A partial result.
    Partial(P),
    /// The result, after which nothing comes.
    Final(F),
}

/// The results of a call as they come: any number of partial ones, and a final one or an error. A partial result that
/// does not decode is an error, and others follow. Dropped before the end, the call is cancelled.
#[derive(Debug)]
#[must_use = "what is dropped is cancelled"]
pub struct Progressive<P, F> {
    partials: buffer::Receiver<Raw>,
    /// Dropped before the call is forsaken: one that was not made yet is then known to be unwanted.
    answer: Answer,
    running: Running,
    deadline: Option<Pin<Box<Sleep>>>,
    timeout: Option<Duration>,
    /// What was read beyond a gap.
    ahead: VecDeque<Raw>,
    types: PhantomData<fn() -> (P, F)>,
}

impl<P: FromPayload, F: FromPayload> Progressive<P, F> {
    pub(super) fn new(
        running: Running,
        partials: buffer::Receiver<Raw>,
        answer: Answer,
        timeout: Option<Duration>,
    ) -> Self {
        let deadline = timeout.map(|timeout| Box::pin(sleep_until(Instant::now() + timeout)));
        Self { running, partials, answer, deadline, timeout, ahead: VecDeque::new(), types: PhantomData }
    }

    /// The next part; `None` after the final one.
    pub async fn next(&mut self) -> Option<Result<Progress<P, F>, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Waits for the final result; what comes before it is passed over.
    ///
    /// # Errors
    ///
    /// Those of the call.
    pub async fn finish(mut self) -> Result<F, Error> {
        loop {
            match self.next().await {
                Some(Ok(Progress::Final(result))) => return Ok(result),
                Some(Ok(Progress::Partial(_)) | Err(Error::Missed(_))) => {}
                Some(Err(Error::Decode(_))) if !self.running.has_ended => {}
                Some(Err(error)) => return Err(error),
                None => return Err(Error::Closed),
            }
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Progress<P, F>, Error>>> {
        let partial = |Raw { details, payload }| Ok(Progress::Partial(P::from_payload(payload, details)?));
        if let Some(raw) = self.ahead.pop_front() {
            return Poll::Ready(Some(partial(raw)));
        }
        match self.partials.poll_take(cx) {
            Poll::Ready(Some((None, raw))) => return Poll::Ready(Some(partial(raw))),
            Poll::Ready(Some((Some(gap), raw))) => {
                self.ahead.push_back(raw);
                return Poll::Ready(Some(Err(Error::Missed(gap))));
            }
            // The session lets go of it together with the call.
            Poll::Ready(None) => {
                let answer = ready!(Pin::new(&mut self.answer).poll(cx));
                self.running.has_ended = true;
                let answer = answer.unwrap_or_else(|_| Err(self.running.handle.ended()));
                let result = answer
                    .map_err(|error| timed_out(error, self.timeout))
                    .and_then(|Raw { details, payload }| Ok(F::from_payload(payload, details)?));
                return Poll::Ready(Some(result.map(Progress::Final)));
            }
            Poll::Pending => {}
        }
        if let Some(deadline) = &mut self.deadline {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Error::Timeout(RESULT))));
        }
        Poll::Pending
    }
}

impl<P: FromPayload, F: FromPayload> Stream for Progressive<P, F> {
    type Item = Result<Progress<P, F>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.running.has_ended {
            return Poll::Ready(None);
        }
        let part = ready!(self.poll_part(cx));
        if matches!(part, Some(Err(Error::Timeout(_)))) {
            // Ended here, but not for the router.
            self.running.has_ended = true;
            let token = self.running.token;
            self.running.handle.forsake(Forsaken::Call(token));
        }
        Poll::Ready(part)
    }
}

/// The arguments of a call in pieces, and in the end its result. Dropped before the end, the call is cancelled.
#[derive(Debug)]
#[must_use = "what is dropped is cancelled"]
pub struct CallSink<C, R> {
    stage: Stage,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    types: PhantomData<fn(C) -> R>,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was sent.
    New(Option<Pieces>),
    /// In this order, as in [`Progressive`].
    Begun(Answer, Running),
    /// The callee did not wait for all of it.
    Answered(Raw),
}

impl<C: ToPayload, R: FromPayload> CallSink<C, R> {
    pub(super) fn new(pieces: Pieces, timeout: Option<Duration>) -> Self {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        Self { stage: Stage::New(Some(pieces)), timeout, deadline, types: PhantomData }
    }

    /// Sends a piece; waits while there is no room. Where the callee has given its result already, the piece is
    /// dropped.
    ///
    /// # Errors
    ///
    /// That of the call, where it has failed already.
    pub async fn send(&mut self, piece: &C) -> Result<(), Error> {
        self.put(piece.to_payload()?, false).await
    }

    /// Says that there is no more, and waits for the result.
    ///
    /// # Errors
    ///
    /// Those of the call.
    pub async fn finish(mut self) -> Result<R, Error> {
        let none =
            Arguments { format: Format::MsgPack, args: Default::default(), kwargs: Default::default() };
        self.put(Content::Arguments(none), true).await?;
        self.result().await
    }

    /// Sends the last piece, and waits for the result.
    ///
    /// # Errors
    ///
    /// Those of the call.
    pub async fn finish_with(mut self, last: &C) -> Result<R, Error> {
        self.put(last.to_payload()?, true).await?;
        self.result().await
    }

    async fn put(&mut self, payload: Content, is_last: bool) -> Result<(), Error> {
        match &mut self.stage {
            Stage::New(pieces) => {
                let Some(mut pieces) = pieces.take() else { return Err(Error::ConnectionLost) };
                if !is_last {
                    pieces.options.insert("progress", true);
                }
                let (running, answer) = pieces.begin(payload, None, false).await?;
                self.stage = Stage::Begun(answer, running);
            }
            Stage::Begun(answer, running) => match answer.try_recv() {
                Err(TryRecvError::Empty) => {
                    let call = running.token;
                    running.handle.hand_in(Command::Chunk { call, payload, is_last }).await?;
                }
                Err(TryRecvError::Closed) => return Err(running.handle.ended()),
                Ok(answered) => {
                    running.has_ended = true;
                    self.stage = Stage::Answered(answered?);
                }
            },
            Stage::Answered(_) => {}
        }
        Ok(())
    }

    async fn result(self) -> Result<R, Error> {
        let Raw { details, payload } = match self.stage {
            Stage::Answered(raw) => raw,
            Stage::New(_) => return Err(Error::ConnectionLost),
            Stage::Begun(answer, mut running) => {
                let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                let raw = bounded(left, async {
                    let answer = answer.await;
                    running.has_ended = true;
                    answer.unwrap_or_else(|_| Err(running.handle.ended()))
                });
                raw.await.map_err(|error| timed_out(error, self.timeout))?
            }
        };
        Ok(R::from_payload(payload, details)?)
    }
}

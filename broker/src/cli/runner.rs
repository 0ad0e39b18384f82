//! How a verb runs: its session, its end in good order, and Ctrl-C.

use std::fmt::Display;
use std::process::ExitCode;

use futures_util::{Stream, StreamExt};
use tandem_client::{ClientEvent, stomp, wamp};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::connection::{Patience, Settings};
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// What it means to be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It goes on until then, and has done what was asked. It outlives lost connections.
    Endless,
    /// It is not done.
    Whole,
}

impl Ending {
    fn patience(self) -> Patience {
        match self {
            Ending::Endless => Patience::Reconnects,
            Ending::Whole => Patience::Once,
        }
    }

    fn interrupted(self) -> Result<(), Failure> {
        match self {
            Ending::Endless => Ok(()),
            Ending::Whole => Err(Failure::interrupted()),
        }
    }
}

/// Runs a verb to its end, and says how that was.
pub(super) fn run(output: Output, work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(work);
            // Somebody may still read standard input, which nothing but input can end.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure).into(),
    }
}

/// Ctrl-C, and being told to terminate.
struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    fn new() -> Result<Interrupt, Failure> {
        Ok(Interrupt {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn came(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Does something with a session of WAMP, as [`session`] says.
pub(super) async fn wamp(
    settings: &Settings,
    output: Output,
    ending: Ending,
    work: impl AsyncFnOnce(&wamp::Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let remarks = |client: &wamp::Client| {
        client.events().map(|event| match event {
            wamp::ClientEvent::Lost { reason } => Some(lost(reason)),
            wamp::ClientEvent::Resubscribed { .. } => Some(CONNECTED_AGAIN.to_owned()),
            _ => None,
        })
    };
    let close = async |client: wamp::Client| {
        client.close().await;
        Ok(())
    };
    session(settings.wamp(ending.patience()), output, ending, remarks, work, close).await
}

/// Does something with a session of STOMP, likewise.
pub(super) async fn stomp(
    settings: &Settings,
    output: Output,
    ending: Ending,
    work: impl AsyncFnOnce(&stomp::Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let remarks = |client: &stomp::Client| {
        client.events().map(|event| match event {
            ClientEvent::Lost(reason) => Some(lost(reason)),
            ClientEvent::Resubscribed => Some(CONNECTED_AGAIN.to_owned()),
            _ => None,
        })
    };
    let close = async |client: stomp::Client| Ok(client.disconnect().await?);
    session(settings.stomp(ending.patience()), output, ending, remarks, work, close).await
}

const CONNECTED_AGAIN: &str = "connected again";

fn lost(reason: impl Display) -> String {
    format!("the connection was lost: {reason}")
}

/// Connects, says what becomes of the connection, and works. When it is interrupted the work is dropped, which undoes what
/// is to be undone; the session then ends in good order, unless somebody interrupts that, too.
async fn session<C, R: Stream<Item = Option<String>> + Send + 'static>(
    connecting: impl Future<Output = Result<C, Failure>>,
    output: Output,
    ending: Ending,
    remarks: impl FnOnce(&C) -> R,
    work: impl AsyncFnOnce(&C) -> Result<(), Failure>,
    close: impl AsyncFnOnce(C) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    let client = tokio::select! {
        client = connecting => client?,
        () = interrupt.came() => return Err(Failure::interrupted()),
    };
    let mut remarks = Box::pin(remarks(&client));
    let remarking = tokio::spawn(async move {
        // Whoever does not connect again fails, and that is said below.
        while ending == Ending::Endless
            && let Some(remark) = remarks.next().await
        {
            remark.into_iter().for_each(|remark| output.remark(&remark));
        }
    });
    let result = tokio::select! {
        result = work(&client) => result,
        () = interrupt.came() => ending.interrupted(),
    };
    // What becomes of the session from here on is meant.
    remarking.abort();
    tokio::select! {
        closed = close(client) => match closed {
            Err(failure) if result.is_ok() && ending == Ending::Whole => Err(failure),
            _ => result,
        },
        () = interrupt.came() => Err(Failure::interrupted()),
    }
}

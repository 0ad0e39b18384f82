//! How a verb runs: its session, its end in good order, and Ctrl-C.

use std::process::ExitCode;

use futures_util::StreamExt;
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

/// Does something with a session of WAMP. When it is interrupted the work is dropped, which undoes what is to be
/// undone; the session then ends in good order, unless somebody interrupts that, too.
pub(super) async fn wamp(
    settings: &Settings,
    output: Output,
    ending: Ending,
    work: impl AsyncFnOnce(&wamp::Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    let client = tokio::select! {
        client = settings.wamp(ending.patience()) => client?,
        () = interrupt.came() => return Err(Failure::interrupted()),
    };
    let mut events = client.events();
    let remarks = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                wamp::ClientEvent::Lost { reason } => {
                    output.remark(&format!("the connection was lost: {reason}"))
                }
                wamp::ClientEvent::Resubscribed { .. } => output.remark("connected again"),
                _ => {}
            }
        }
    });
    let result = tokio::select! {
        result = work(&client) => result,
        () = interrupt.came() => ending.interrupted(),
    };
    // What becomes of the session from here on is meant.
    remarks.abort();
    tokio::select! {
        () = client.close() => result,
        () = interrupt.came() => Err(Failure::interrupted()),
    }
}

/// Does something with a session of STOMP, likewise.
pub(super) async fn stomp(
    settings: &Settings,
    output: Output,
    ending: Ending,
    work: impl AsyncFnOnce(&stomp::Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut interrupt = Interrupt::new()?;
    let client = tokio::select! {
        client = settings.stomp(ending.patience()) => client?,
        () = interrupt.came() => return Err(Failure::interrupted()),
    };
    let mut events = client.events();
    let remarks = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                ClientEvent::Lost(reason) => output.remark(&format!("the connection was lost: {reason}")),
                ClientEvent::Resubscribed => output.remark("connected again"),
                _ => {}
            }
        }
    });
    let result = tokio::select! {
        result = work(&client) => result,
        () = interrupt.came() => ending.interrupted(),
    };
    remarks.abort();
    tokio::select! {
        left = client.disconnect() => match left {
            Err(error) if result.is_ok() && ending == Ending::Whole => Err(error.into()),
            _ => result,
        },
        () = interrupt.came() => Err(Failure::interrupted()),
    }
}

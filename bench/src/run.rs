//! A run from beginning to end: the stages in their time, and the report.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::options::{Bench, Common, Workload};
use crate::payload::Sealer;
use crate::process::{self, Cost};
use crate::report::{Measured, Report};
use crate::stage::{Shared, Stage};
use crate::{calls, idle, patterns, progress, pubsub, queue};

/// How often it is looked whether all has come.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// `tandem bench`: does what was asked for, writes what it found, and says how it went: 0 where all deliveries were
/// right, 1 where some were not, 2 for a wrong command, 3 where the broker cannot be reached.
pub fn run(bench: Bench) -> ExitCode {
    let common = bench.workload.common().clone();
    let threads = usize::from(common.threads);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let report = runtime.map_err(|error| Error::Usage(error.to_string())).and_then(|runtime| {
        let report = runtime.block_on(execute(&bench.workload));
        runtime.shutdown_background();
        report
    });
    progress::clear();
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tandem bench: {error}");
            return error.exit_code();
        }
    };
    let text = match serde_json::to_string(&report) {
        Ok(json) if common.json => json + "\n",
        _ => report.text(),
    };
    // Who closed the pipe does not want to know.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a workload.
///
/// # Errors
///
/// Where nothing could be measured.
pub async fn execute(workload: &Workload) -> Result<Report, Error> {
    match workload {
        Workload::Queue(options) => queue::run(options).await,
        Workload::Fanout(options) => pubsub::run(&options.common, &options.plan()).await,
        Workload::Topics(options) => pubsub::run(&options.common, &options.plan()).await,
        Workload::Latency(options) => pubsub::run(&options.common, &options.plan()).await,
        Workload::Slow(options) => pubsub::run(&options.common, &options.plan()).await,
        Workload::Patterns(options) => {
            let _kept = patterns::register(&options.common, options.kind, options.patterns).await?;
            pubsub::run(&options.common, &options.plan()).await
        }
        Workload::Calls(options) => calls::run(options).await,
        Workload::Idle(options) => idle::run(options).await,
    }
}

impl Workload {
    fn common(&self) -> &Common {
        match self {
            Self::Queue(options) => &options.common,
            Self::Fanout(options) => &options.common,
            Self::Topics(options) => &options.common,
            Self::Latency(options) => &options.common,
            Self::Slow(options) => &options.common,
            Self::Patterns(options) => &options.common,
            Self::Calls(options) => &options.common,
            Self::Idle(options) => &options.common,
        }
    }
}

/// A run that is about to begin.
pub(crate) fn shared(common: &Common) -> Arc<Shared> {
    Shared::new(Sealer::new(rand::random(), common.size as usize, common.filler()))
}

/// Lets the warm-up and the measured time pass.
pub(crate) async fn measure(shared: &Shared, common: &Common) -> Result<Measured, Error> {
    pass(shared, Stage::WarmUp, common.warm_up).await;
    let broker =
        || process::cost(&common.server_pid).map_err(|error| Error::Usage(format!("--server-pid: {error}")));
    let own = || process::cost(&[std::process::id()]).map_err(Error::Usage);
    let before = (broker()?, own()?, shared.counters.now());
    let begun = Instant::now();
    pass(shared, Stage::Measuring, common.duration).await;
    let counts = shared.counters.now().since(before.2);
    let seconds = begun.elapsed().as_secs_f64();
    let since = |now: Cost, then: Cost| Cost { cpu_s: now.cpu_s - then.cpu_s, ..now };
    let (broker, generator) = (since(broker()?, before.0), since(own()?, before.1));
    shared.enter(Stage::Draining);
    let broker = Some(broker).filter(|_| !common.server_pid.is_empty());
    Ok(Measured { seconds, counts, broker, generator })
}

async fn pass(shared: &Shared, stage: Stage, time: Duration) {
    shared.enter(stage);
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = progress::show(shared, stage) => {}
    }
}

/// Waits until something holds, but no longer than the end of a run may take. Says whether it does.
pub(crate) async fn drained(shared: &Shared, common: &Common, holds: impl Fn() -> bool) -> bool {
    let until = async {
        while !holds() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(common.drain, until) => ended.is_ok(),
        () = progress::show(shared, Stage::Draining) => false,
    }
}

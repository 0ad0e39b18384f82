//! The command: which workload is run, how its report is written, and what the exit code says.

use std::io::Write;
use std::process::ExitCode;

use crate::error::Error;
use crate::options::{Bench, Common, Workload};
use crate::report::Report;
use crate::{calls, idle, patterns, progress, pubsub, queue};

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

//! The course of a run: its stages in their time, and what is measured in one of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::options::Common;
use crate::payload::Sealer;
use crate::process::{self, Cost};
use crate::progress;
use crate::report::{Measured, Spent};
use crate::stage::{Shared, Stage};

/// How often it is looked whether all has come.
const LOOK_EVERY: Duration = Duration::from_millis(5);

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
    let since =
        |now: Cost, then: Cost| Spent { cpu_s: now.cpu_s_since(&then), resident_bytes: now.resident_bytes };
    // That it ended meanwhile is a part of what was found.
    let broker =
        broker().inspect_err(|error| shared.faults.note(1, format_args!("the broker is gone: {error}")));
    let (broker, generator) = (broker.ok().map(|now| since(now, before.0)), since(own()?, before.1));
    shared.enter(Stage::Draining);
    let broker = broker.filter(|_| !common.server_pid.is_empty());
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

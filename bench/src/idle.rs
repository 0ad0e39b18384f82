//! Idle connections with a subscription each: what each of them costs the broker in memory.

use std::time::Duration;

use tandem_client::Address;

use crate::course::{measure, shared};
use crate::error::Error;
use crate::options::Idle;
use crate::peer::Peer;
use crate::process;
use crate::report::Report;
use crate::stage::Stage;

/// So long the broker may put in order what connecting took, before memory is read.
const SETTLING: Duration = Duration::from_secs(1);

/// Runs the workload. Nothing is sent; what is measured is memory, and CPU time spent on nothing.
///
/// # Errors
///
/// Where somebody cannot connect or subscribe, where no process is named, and over long-polling.
pub async fn run(options: &Idle) -> Result<Report, Error> {
    let common = &options.common;
    if common.server_pid.is_empty() {
        return Err(Error::Usage("idle connections are measured by the memory of --server-pid".into()));
    }
    if let Address::LongPoll(_) = common.url {
        return Err(Error::Usage("over long-polling nobody is idle, but asks for messages".into()));
    }
    let shared = shared(common);
    let language = options.language;
    // What the first of them costs, the others do not.
    let _first = Peer::subscribed(common, language, &language.topic(rand::random(), 0)).await?;
    tokio::time::sleep(SETTLING).await;
    let cost = process::cost(&common.server_pid);
    let before = cost.map_err(|error| Error::Usage(format!("--server-pid: {error}")))?.resident_bytes;
    let unique = rand::random();
    let mut peers = Vec::new();
    for number in 0..options.connections as usize {
        peers.push(Peer::subscribed(common, language, &language.topic(unique, number)).await?);
    }
    tokio::time::sleep(SETTLING).await;
    let measured = measure(&shared, common).await?;
    shared.enter(Stage::Over);
    let mut report = Report::new("idle", common.url.to_string(), &measured);
    report.bytes_per_connection = measured
        .broker
        .map(|broker| broker.resident_bytes.saturating_sub(before) as f64 / f64::from(options.connections));
    for (number, peer) in peers.iter_mut().enumerate() {
        if let Some(error) = peer.has_ended().await {
            shared.faults.note(1, format_args!("connection {number} ended while it was idle: {error}"));
        }
    }
    Ok(report.with_faults(0, &shared.faults))
}

//! A line on the terminal that says how far a run is.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::stage::{Shared, Stage};

/// How often it is written anew.
const EVERY: Duration = Duration::from_millis(500);

/// Writes the line until it is cancelled. Does nothing where standard error is no terminal.
pub async fn show(shared: &Shared, stage: Stage) {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let (begun, mut last, mut counts) = (Instant::now(), Instant::now(), shared.counters.now());
    loop {
        tokio::time::sleep(EVERY).await;
        let now = shared.counters.now();
        let rate = now.since(counts).delivered as f64 / last.elapsed().as_secs_f64();
        (last, counts) = (Instant::now(), now);
        let stage = match stage {
            Stage::Opening => "opening",
            Stage::WarmUp => "warm-up",
            Stage::Measuring => "measuring",
            Stage::Draining | Stage::Over => "draining",
        };
        let faults = shared.faults.count();
        let mut terminal = std::io::stderr().lock();
        let _ = write!(
            terminal,
            "\r\x1b[K{stage} {:.0} s: {rate:.0} deliveries/s, {} in all, {faults} wrong",
            begun.elapsed().as_secs_f64(),
            now.delivered
        );
        let _ = terminal.flush();
    }
}

/// Takes the line away.
pub fn clear() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

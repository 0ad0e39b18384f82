//! `tandem ping`: whether a broker is there, lets us in, and how long it takes to answer.

use std::time::{Duration, Instant};

use serde_json::json;
use tandem_client::{stomp, wamp};
use tokio::time::{sleep, timeout};

use crate::cli::choices::Language;
use crate::cli::connection::{Connection, Settings, seconds};
use crate::cli::failure::{Code, Failure};
use crate::cli::output::{self, Output};
use crate::cli::runner::{self, Ending};

const EXAMPLES: &str = "\
Examples:
  tandem ping
  tandem ping --url wss://broker.example/ --user alice --count 100 --interval 0.01
  tandem ping --language stomp --url tcp://rabbit:61613
  until tandem ping --quiet --count 1; do sleep 1; done

In WAMP, a round trip is a call of wamp.session.count, whatever the answer is; in STOMP, a transaction that is begun
and aborted.";

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ping {
    /// Round trips.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Seconds between them.
    #[arg(long, default_value = "0.2", value_parser = seconds, value_name = "SECONDS")]
    interval: Duration,
    /// Seconds that one may take: then the exit code is 5.
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    timeout: Duration,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Ping {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        let begun = Instant::now();
        match settings.language(Language::Wamp) {
            Language::Wamp => {
                let work = async |client: &wamp::Client| {
                    let opened = begun.elapsed();
                    self.trips(&settings, opened, async || {
                        let call = client.call::<wamp::Raw>("wamp.session.count");
                        match call.await {
                            // That the router says no says that it is there.
                            Ok(_) | Err(wamp::Error::Application(_)) => Ok(()),
                            Err(error) => Err(error.into()),
                        }
                    })
                    .await
                };
                runner::wamp(&settings, self.output, Ending::Whole, work).await
            }
            Language::Stomp => {
                let work = async |client: &stomp::Client| {
                    let opened = begun.elapsed();
                    let trip = async || client.begin().await?.abort().await.map_err(Failure::from);
                    self.trips(&settings, opened, trip).await
                };
                runner::stomp(&settings, self.output, Ending::Whole, work).await
            }
        }
    }

    async fn trips(
        &self,
        settings: &Settings,
        opened: Duration,
        trip: impl AsyncFn() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut times = Vec::new();
        for number in 1..=self.count {
            let begun = Instant::now();
            let answered = timeout(self.timeout, trip()).await;
            answered.map_err(|_| {
                let why = format!("{}: no answer in {} s", settings.address, self.timeout.as_secs_f64());
                Failure::new(Code::Timeout, why)
            })??;
            let time = begun.elapsed();
            times.push(time);
            if !self.output.json {
                self.output.remark(&format!("round trip {number}: {} ms", ms(time)));
            }
            if number < self.count {
                sleep(self.interval).await;
            }
        }
        times.sort_unstable();
        self.report(settings, opened, &times)
    }

    fn report(&self, settings: &Settings, opened: Duration, times: &[Duration]) -> Result<(), Failure> {
        let url = settings.address.to_string();
        let [p0, p50, p90, p99, p100] = [0, 50, 90, 99, 100].map(|percent| ms(percentile(times, percent)));
        if self.output.json {
            return self.output.object(&json!({
                "kind": "ping", "url": url, "count": times.len(), "opened_ms": ms(opened),
                "min_ms": p0, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": p100,
            }));
        }
        let count = times.len();
        let said = format!(
            "{url}: open after {} ms; {count} round trips: min {p0}, p50 {p50}, p90 {p90}, p99 {p99}, max {p100} ms",
            ms(opened)
        );
        output::line(said.as_bytes())
    }
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The nearest rank.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<Duration> = (1..=10).map(Duration::from_millis).collect();
        let at = |percent| percentile(&times, percent).as_millis();
        assert_eq!([at(0), at(50), at(90), at(99), at(100)], [1, 5, 9, 10, 10]);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}

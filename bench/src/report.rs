//! What a run found, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::checker::Faults;
use crate::stage::{Counts, Times};

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The workload.
    pub workload: &'static str,
    /// The broker.
    pub target: String,
    /// How long it was measured.
    pub seconds: f64,
    /// What was counted in that time.
    pub counted: Counts,
    /// Verified deliveries; of calls, verified answers.
    pub deliveries_per_second: f64,
    /// Receipts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts_per_second: Option<f64>,
    /// The same for each second of CPU time of the broker, and what else its processes cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<Broker>,
    /// CPU time of the load generator in that time.
    pub generator_cpu_s: f64,
    /// From when a message was due until it was there, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_us: Option<Quantiles>,
    /// From when a message was sent until its receipt was there, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_us: Option<Quantiles>,
    /// What each idle connection takes of the broker's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection: Option<f64>,
    /// Deliveries of the whole run, with warm-up and end.
    pub delivered_in_all: u64,
    /// What did not come once, in order and whole.
    pub wrong: u64,
    /// The first of these.
    pub wrong_examples: Vec<String>,
}

/// What the broker's processes cost.
#[derive(Clone, Debug, Serialize)]
pub struct Broker {
    /// CPU time while it was measured.
    pub cpu_s: f64,
    /// Deliveries for each second of that.
    pub deliveries_per_cpu_second: f64,
    /// Resident memory at the end.
    pub resident_bytes: u64,
}

/// What was measured between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// How long.
    pub seconds: f64,
    /// What was counted.
    pub counts: Counts,
    /// Of the broker, where its process is known.
    pub broker: Option<Spent>,
    /// Of this process.
    pub generator: Spent,
}

/// What processes cost between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// CPU time, in seconds.
    pub cpu_s: f64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
}

/// How long things took, in microseconds.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are the quantiles")]
pub struct Quantiles {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

impl Quantiles {
    /// Of these times, unless there are none.
    pub fn of(times: &Times) -> Option<Self> {
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile| us(times.value_at_quantile(quantile));
        (!times.is_empty()).then(|| Self {
            count: times.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: us(times.max()),
        })
    }
}

impl Report {
    /// What was measured, without times and receipts.
    pub fn new(workload: &'static str, target: String, measured: &Measured) -> Self {
        let deliveries = measured.counts.delivered as f64;
        let broker = measured.broker.map(|cost| Broker {
            cpu_s: cost.cpu_s,
            // A tick of the clock at least, so that this is a number.
            deliveries_per_cpu_second: deliveries / cost.cpu_s.max(0.01),
            resident_bytes: cost.resident_bytes,
        });
        Self {
            workload,
            target,
            seconds: measured.seconds,
            counted: measured.counts,
            deliveries_per_second: deliveries / measured.seconds,
            receipts_per_second: None,
            broker,
            generator_cpu_s: measured.generator.cpu_s,
            delivery_us: None,
            receipt_us: None,
            bytes_per_connection: None,
            delivered_in_all: 0,
            wrong: 0,
            wrong_examples: Vec::new(),
        }
    }

    /// With what was wrong, once the run is over.
    #[must_use]
    pub fn with_faults(mut self, delivered_in_all: u64, faults: &Faults) -> Self {
        self.delivered_in_all = delivered_in_all;
        self.wrong = faults.count();
        self.wrong_examples = faults.kept();
        self
    }

    /// With the time that receipts took.
    #[must_use]
    pub fn with_receipts(mut self, times: &Times) -> Self {
        self.receipts_per_second = Some(self.counted.confirmed as f64 / self.seconds);
        self.receipt_us = Quantiles::of(times);
        self
    }

    /// With the time that deliveries took.
    #[must_use]
    pub fn with_deliveries(mut self, times: &Times) -> Self {
        self.delivery_us = Quantiles::of(times);
        self
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{} at {}, {:.1} s\n", self.workload, self.target, self.seconds);
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<22} {value}");
        };
        line(
            "deliveries",
            format!("{:.0}/s, {} counted", self.deliveries_per_second, self.counted.delivered),
        );
        if let Some(rate) = self.receipts_per_second {
            line("receipts", format!("{rate:.0}/s"));
        }
        if let Some(broker) = &self.broker {
            line("per CPU-second", format!("{:.0} deliveries", broker.deliveries_per_cpu_second));
            let share = 100.0 * broker.cpu_s / self.seconds;
            let mib = broker.resident_bytes as f64 / f64::from(1 << 20);
            line("broker", format!("{share:.0} % of a core, {mib:.1} MiB"));
        }
        if let Some(bytes) = self.bytes_per_connection {
            line("memory", format!("{bytes:.0} bytes for each connection"));
        }
        line("load generator", format!("{:.0} % of a core", 100.0 * self.generator_cpu_s / self.seconds));
        for (name, times) in [("delivered after", &self.delivery_us), ("receipt after", &self.receipt_us)] {
            if let Some(times) = times {
                let Quantiles { p50, p90, p99, p99_9, max, .. } = times;
                let times = format!(
                    "p50 {p50:.0} us, p90 {p90:.0} us, p99 {p99:.0} us, p99.9 {p99_9:.0} us, max {max:.0} us"
                );
                line(name, times);
            }
        }
        line("wrong", format!("{} of {}", self.wrong, self.delivered_in_all));
        for example in &self.wrong_examples {
            let _ = writeln!(text, "    {example}");
        }
        text
    }
}

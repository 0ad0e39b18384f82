//! Measures steps: in time, in allocations and their bytes, and in instructions.
//!
//! A [`Step`] is a name, and how to set it up; what that gives is done in rounds. Of a round only what goes through
//! [`Meter::measure`] counts. Instructions are those of one function that is not inlined, as valgrind counts them when it
//! runs this program again for one step; without valgrind there are none. `-- --only NAME` takes those steps whose name
//! begins so. Without `--bench`, which `cargo bench` adds, nothing is measured: each step is done once, to see that it
//! still works.
#![allow(dead_code, reason = "not all who share it use all of it")]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]
#![allow(clippy::unwrap_used, reason = "whatever fails here is to end it")]

use std::hint::black_box;
use std::ops::RangeInclusive;
use std::process::Command;
use std::time::{Duration, Instant};

/// One round of something that is set up.
pub type Round = Box<dyn FnMut(&mut Meter)>;

/// Rounds before anything is measured.
const WARM_UP: u64 = 50;

/// What is counted is so many rounds: those that fit into this time, as it takes fifty times as long under valgrind. As
/// many go before them there.
const COUNTED_ROUNDS: RangeInclusive<u64> = 5..=20;
const COUNTED_TIME: Duration = Duration::from_millis(20);

/// The best of so many passes is the time. Each takes at least this long, so that reading the clock costs nothing.
const PASSES: usize = 10;
const PASS_TIME_MIN: Duration = Duration::from_millis(10);

/// How often a round does what is too short to be measured once.
const EACH: u64 = 64;

/// Something to measure.
pub struct Step {
    name: String,
    /// How many of what the name says are in one round.
    per_round: u64,
    set_up: Box<dyn Fn() -> Round>,
}

impl Step {
    /// A step whose rounds are of so many, and say themselves what of them counts.
    pub fn new<R>(name: impl Into<String>, per_round: u64, set_up: impl Fn() -> R + 'static) -> Step
    where
        R: FnMut(&mut Meter) + 'static,
    {
        Step { name: name.into(), per_round, set_up: Box::new(move || Box::new(set_up())) }
    }

    /// A step that is nothing but some work, all of which counts.
    pub fn plain<T, W>(name: impl Into<String>, set_up: impl Fn() -> W + 'static) -> Step
    where
        W: FnMut() -> T + 'static,
    {
        Step::new(name, EACH, move || {
            let mut work = set_up();
            move |meter: &mut Meter| {
                meter.measure(|| {
                    for _ in 0..EACH {
                        black_box(work());
                    }
                });
            }
        })
    }
}

/// What of a round counts.
pub struct Meter {
    what: What,
    time: Duration,
    allocations: u64,
    bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Nothing,
    Time,
    Allocations,
    Instructions,
}

impl Meter {
    fn of(what: What) -> Meter {
        Meter { what, time: Duration::ZERO, allocations: 0, bytes: 0 }
    }

    /// Does some work that counts.
    pub fn measure(&mut self, mut work: impl FnMut()) {
        match self.what {
            What::Nothing => work(),
            What::Instructions => counted(&mut work),
            What::Time => {
                let start = Instant::now();
                counted(&mut work);
                self.time += start.elapsed();
            }
            What::Allocations => {
                let made = allocation_counter::measure(work);
                self.allocations += made.count_total;
                self.bytes += made.bytes_total;
            }
        }
    }

    fn run(what: What, rounds: u64, round: &mut Round) -> Meter {
        let mut meter = Meter::of(what);
        (0..rounds).for_each(|_| round(&mut meter));
        meter
    }
}

/// What instructions are counted of.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Does what the command line says with these steps.
pub fn run(steps: &[Step]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| {
        let place = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(place + 1).cloned()
    };
    if let Some(name) = after("--instructions-of") {
        let step = steps.iter().find(|step| step.name == name).unwrap();
        let rounds = after("--rounds").map_or(*COUNTED_ROUNDS.end(), |rounds| rounds.parse().unwrap());
        let mut round = (step.set_up)();
        Meter::run(What::Nothing, rounds, &mut round);
        Meter::run(What::Instructions, rounds, &mut round);
        return;
    }
    let only = after("--only").unwrap_or_default();
    let steps: Vec<_> = steps.iter().filter(|step| step.name.starts_with(&only)).collect();
    if is_trial() {
        steps.iter().for_each(|step| (step.set_up)()(&mut Meter::of(What::Nothing)));
        println!("{} steps still work", steps.len());
        return;
    }
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or_default().max(32);
    println!("{:width$}{:>10}{:>14}{:>12}{:>14}", "", "ns", "allocations", "bytes", "instructions");
    for step in steps {
        print_row(step, width);
    }
}

/// True unless something is to be measured: what is large may then be small.
pub fn is_trial() -> bool {
    !std::env::args().any(|argument| argument == "--bench" || argument == "--instructions-of")
}

fn print_row(step: &Step, width: usize) {
    let mut round = (step.set_up)();
    Meter::run(What::Nothing, WARM_UP, &mut round);
    let once = Meter::run(What::Time, 10, &mut round).time / 10;
    let fitting = |time: Duration| (time.as_nanos() / once.as_nanos().max(1)) as u64;
    let rounds = fitting(PASS_TIME_MIN).clamp(10, 100_000);
    let passes = (0..PASSES).map(|_| Meter::run(What::Time, rounds, &mut round).time);
    let nanoseconds = passes.min().unwrap().as_nanos() as f64 / (rounds * step.per_round) as f64;

    let rounds = fitting(COUNTED_TIME).clamp(*COUNTED_ROUNDS.start(), *COUNTED_ROUNDS.end());
    let each = |count: u64| count as f64 / (rounds * step.per_round) as f64;
    let Meter { allocations, bytes, .. } = Meter::run(What::Allocations, rounds, &mut round);
    drop(round);
    let (allocations, bytes) = (each(allocations), each(bytes));
    let instructions = instructions(&step.name, rounds).map(each);
    let instructions = instructions.map_or("no valgrind".to_owned(), |count| format!("{count:.0}"));
    println!("{:width$}{nanoseconds:10.0}{allocations:14.2}{bytes:12.0}{instructions:>14}", step.name);
}

/// What a run of its own counts for so many rounds. `None` without valgrind.
fn instructions(name: &str, rounds: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*harness*counted*"])
        .arg(std::env::current_exe().unwrap())
        .args(["--instructions-of", name, "--rounds", &rounds.to_string()])
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = told.lines().find_map(|line| line.split_once("Collected :"))?.1;
    collected.trim().replace(',', "").parse().ok()
}

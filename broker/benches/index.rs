//! What a match costs, and what a pattern weighs, by the number of patterns.
//!
//! `cargo bench -p tandem-broker --bench index` prints the steps, a match of a name that one pattern of each kind means, and
//! then the table; `-- --only NAME` leaves that out. Each of its rows is made in a process of its own, so that the bytes
//! per pattern are what the process grew by; they include everything but the caller's own values.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use tandem_broker::core::index::{HOLE_SETS_MAX, Index};
use tandem_broker::core::name::{COMPONENTS_MAX, Name, Pattern};

use self::support::harness::{self, Step};

mod support {
    pub mod harness;
}

const KINDS: [&str; 6] = ["exact", "prefix", "wildcard", "tail", "mixed", "siblings"];
const COUNTS: [u64; 3] = [1_000, 100_000, 1_000_000];

/// Names asked for in turn: enough that a large index does not fit a cache.
const NAMES: usize = 1 << 14;

fn main() {
    let row: Vec<_> = std::env::args().skip_while(|argument| argument != "--row").skip(1).collect();
    match row.as_slice() {
        [kind, _] if kind == "hostile" => hostile(),
        [kind, count] => measure(kind, count.parse().expect("a number")),
        _ => steps_and_table(),
    }
}

fn steps_and_table() {
    let mut steps = Vec::new();
    for kind in ["exact", "prefix", "wildcard"] {
        steps.push(matching(format!("match, 1,000 {kind}"), kind, 1_000));
        steps.push(matching(format!("match, 1,000,000 {kind}"), kind, 1_000_000));
    }
    harness::run(&steps);
    if harness::is_trial() {
        measure("mixed", 1_000);
        hostile();
    } else if !std::env::args().any(|argument| argument == "--only" || argument == "--instructions-of") {
        table();
    }
}

/// A match, where there are so many patterns of a kind.
fn matching(step: String, kind: &'static str, count: u64) -> Step {
    Step::plain(step, move || {
        let count = if harness::is_trial() { count.min(1_000) } else { count };
        let mut index = Index::new();
        for n in 0..count {
            index.insert(&pattern(kind, n), n).expect("few sets of holes");
        }
        let hits: Vec<_> = (0..NAMES).map(|n| name(spread(n, count))).collect();
        let mut place = 0;
        move || {
            place = (place + 1) % NAMES;
            let mut matched = 0;
            index.for_each_match(black_box(&hits[place]), |_| matched += 1);
            assert!(matched > 0, "a hit misses");
        }
    })
}

/// One of so many, far from those before it.
fn spread(n: usize, count: u64) -> u64 {
    (n as u64).wrapping_mul(0x9e37_79b9) % count
}

fn table() {
    println!(
        "kind         patterns   ns/hit  ns/miss  ns/best  ns/insert  slowest us  ns/remove  bytes/pattern"
    );
    for kind in KINDS {
        for count in COUNTS {
            row(kind, count);
        }
    }
    row("hostile", 0);
}

fn row(kind: &str, count: u64) {
    let program = std::env::current_exe().expect("this program");
    let status = Command::new(program).args(["--row", kind, &count.to_string()]).status();
    assert!(status.expect("it can be started").success(), "{kind} {count}");
}

/// Three levels of topics under `com.example`, as of plants, their devices and what these report.
fn name(n: u64) -> String {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    format!("com.example.plant{}.device{n}.value{}", mixed % 100, mixed % 7)
}

/// A pattern that means `name(n)`, and only few others.
fn pattern(kind: &str, n: u64) -> Pattern {
    let name = name(n);
    let parts: Vec<_> = name.split('.').collect();
    let pattern = match kind {
        "exact" => Name::parse(&name).map(Pattern::exact),
        "prefix" => Pattern::prefix(&parts[..4].join(".")),
        "wildcard" => Pattern::wildcard(&format!("com.example..{}.{}", parts[3], parts[4])),
        "tail" => Pattern::components(parts[..4].iter().copied().map(Some), true),
        "mixed" => return self::pattern(KINDS[usize::try_from(n % 4).expect("below 4")], n),
        // As many branches as there can be, at each of the first bytes.
        "siblings" => {
            let mut text = String::new();
            for shift in [0, 7, 14] {
                let letter = u32::try_from(n >> shift & 0x7f).expect("7 bits");
                text.push(char::from_u32(0x4e00 + letter).expect("a letter"));
            }
            Pattern::prefix(&text)
        }
        _ => unreachable!("not a kind"),
    };
    pattern.expect("valid")
}

fn measure(kind: &str, count: u64) {
    let before = resident_bytes();
    let mut index = Index::new();
    let (mut inserting, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for n in 0..count {
        let pattern = pattern(kind, n);
        let start = Instant::now();
        index.insert(&pattern, n).expect("few sets of holes");
        let took = start.elapsed();
        inserting += took;
        slowest = slowest.max(took);
    }
    let grown = resident_bytes() - before;

    let spread = |n: usize| spread(n, count);
    let hits: Vec<_> = (0..NAMES)
        .map(|n| match kind {
            "siblings" => format!("{}.below", pattern(kind, spread(n)).as_str()),
            _ => name(spread(n)),
        })
        .collect();
    // They part from what is known in the last component but one.
    let misses: Vec<_> = (0..NAMES).map(|n| name(count + spread(n)).replace("device", "devicf")).collect();
    let matched = |name: &str| {
        let mut sum = 0;
        index.for_each_match(name, |value| sum += 1 + value);
        sum
    };
    assert!(hits.iter().all(|name| matched(name) > 0), "a hit misses");
    assert!(misses.iter().all(|name| matched(name) == 0), "a miss hits");

    let hit = nanoseconds_each(&hits, matched);
    let miss = nanoseconds_each(&misses, matched);
    let best = nanoseconds_each(&hits, |name| index.best_match(name).copied().unwrap_or_default());

    let mut removing = Duration::ZERO;
    for n in 0..count {
        let pattern = pattern(kind, n);
        let start = Instant::now();
        index.remove(&pattern);
        removing += start.elapsed();
    }
    let each = |time: Duration| time.as_nanos() / u128::from(count);
    let mut line = String::new();
    let _ = write!(line, "{kind:<10} {count:>10} {hit:>8} {miss:>8} {best:>8}");
    let _ = write!(line, " {:>10} {:>11} {:>10}", each(inserting), slowest.as_micros(), each(removing));
    // Pages are too coarse for a thousand patterns.
    if count >= 100_000 {
        let _ = write!(line, " {:>14}", grown / count);
    }
    println!("{line}");
}

/// The worst that patterns and a name can do together: all sets of holes, each along the whole name, none matching.
fn hostile() {
    let mut index = Index::new();
    for tail in [false, true] {
        for holes in 0..HOLE_SETS_MAX as u64 {
            let parts = (0..COMPONENTS_MAX - 1).map(|n| (holes >> n & 1 == 0).then_some("n"));
            let pattern = Pattern::components(parts.chain([Some("end")]), tail).expect("valid");
            index.insert(&pattern, 0).expect("just as many as there may be");
        }
    }
    let name = ["n"; COMPONENTS_MAX].join(".");
    let nanoseconds = nanoseconds_each(&[name], |name| index.best_match(name).copied().unwrap_or_default());
    println!("hostile: {} patterns with {HOLE_SETS_MAX} sets of holes: {nanoseconds} ns/match", index.len());
}

/// The best of five passes over all names.
fn nanoseconds_each(names: &[String], work: impl Fn(&str) -> u64) -> u128 {
    let pass = || {
        let start = Instant::now();
        for name in names {
            black_box(work(black_box(name)));
        }
        start.elapsed().as_nanos() / names.len() as u128
    };
    (0..5).map(|_| pass()).min().expect("five passes")
}

/// The memory of this process, as Linux counts it; 0 elsewhere.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

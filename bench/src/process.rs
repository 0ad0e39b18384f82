//! What the broker's processes cost, as `/proc` tells.

use std::fs;

/// Ticks of `utime` and `stime` in a second: `USER_HZ`, which is 100 on Linux everywhere.
const TICKS_PER_SECOND: f64 = 100.0;

/// A difference of `utime` and `stime` may be so much too large, as each of them is rounded down to a tick.
const TICKS_OFF_S: f64 = 2.0 / TICKS_PER_SECOND;

/// What processes have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// User and system time of all threads that they ever had, in seconds, to a tick each.
    pub ticks_s: f64,
    /// The time of the threads that they have now, in seconds, to the nanosecond.
    pub threads_s: f64,
    /// Their resident memory, in bytes.
    pub resident_bytes: u64,
}

impl Cost {
    /// The CPU time since then, in seconds. Ticks are too coarse for a broker that has little to do, and a sum over threads
    /// lacks those that have ended: where it is less than the ticks allow, the ticks count.
    pub fn cpu_s_since(&self, then: &Cost) -> f64 {
        let (ticks, threads) = (self.ticks_s - then.ticks_s, self.threads_s - then.threads_s);
        if threads + TICKS_OFF_S >= ticks { threads } else { ticks }
    }
}

/// What these processes have cost so far, together.
///
/// # Errors
///
/// Where one of them is not there, or its files cannot be read.
pub fn cost(pids: &[u32]) -> Result<Cost, String> {
    let mut all = Cost::default();
    for pid in pids {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
        };
        let odd = || format!("/proc/{pid}: not as Linux has it");
        all.ticks_s += ticks(&read("stat")?).ok_or_else(odd)? as f64 / TICKS_PER_SECOND;
        all.threads_s += threads_ns(*pid) as f64 / 1e9;
        all.resident_bytes += resident_kib(&read("status")?).ok_or_else(odd)? * 1024;
    }
    Ok(all)
}

/// `utime` and `stime`, the 14th and 15th field. The second one, the name, may hold blanks and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Nanoseconds that its threads have run; 0 on a kernel that does not tell.
fn threads_ns(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    // One may end while this reads.
    let run = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(run).sum()
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_be_anything() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 700 80 9 9 20 0 1";
        assert_eq!(ticks(stat), Some(780));
        assert_eq!(ticks("12 (a) S 1"), None);
    }

    #[test]
    fn time_is_that_of_the_threads_unless_some_of_them_have_ended() {
        let cost = |ticks_s, threads_s| Cost { ticks_s, threads_s, resident_bytes: 0 };
        let then = cost(1.0, 1.0);
        assert!((cost(1.10, 1.111).cpu_s_since(&then) - 0.111).abs() < 1e-9, "finer than ticks");
        assert!((cost(1.10, 1.085).cpu_s_since(&then) - 0.085).abs() < 1e-9, "ticks are not exact");
        assert!((cost(3.0, 1.5).cpu_s_since(&then) - 2.0).abs() < 1e-9, "threads have ended");
        assert!((cost(3.0, 0.5).cpu_s_since(&then) - 2.0).abs() < 1e-9, "with more than was added");
    }

    #[test]
    fn this_process_has_memory_and_none_that_is_not_there_has() {
        assert!(cost(&[std::process::id()]).unwrap().resident_bytes > 0);
        assert!(cost(&[u32::MAX]).unwrap_err().contains("/proc/4294967295"));
    }
}

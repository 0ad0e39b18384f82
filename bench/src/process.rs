//! What the broker's processes cost, as `/proc` tells.

use std::fs;

/// Ticks of `utime` and `stime` in a second: `USER_HZ`, which is 100 on Linux everywhere.
const TICKS_PER_SECOND: f64 = 100.0;

/// What processes have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// User and system time of all their threads, in seconds.
    pub cpu_s: f64,
    /// Their resident memory, in bytes.
    pub resident_bytes: u64,
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
        all.cpu_s += ticks(&read("stat")?).ok_or_else(odd)? as f64 / TICKS_PER_SECOND;
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
    fn this_process_has_memory_and_none_that_is_not_there_has() {
        assert!(cost(&[std::process::id()]).unwrap().resident_bytes > 0);
        assert!(cost(&[u32::MAX]).unwrap_err().contains("/proc/4294967295"));
    }
}

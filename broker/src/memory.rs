//! How much memory the process uses, and how much it may: looked up four times in a second, and a [`Level`] made of it.
//!
//! What the process holds is what the kernel says (resident bytes), for that is what the kernel kills it for. What it may
//! hold is the smallest limit of its control groups, or what the machine has.

use std::fs;
use std::path::{Path, PathBuf};

/// What memory may be in use.
#[derive(Clone, Debug)]
pub struct MemoryLimits {
    /// All that there is; what the system says, where it is not written.
    pub limit_bytes: Option<u64>,
    /// From this part of it on publishers are slowed.
    pub slow_percent: u64,
    /// From this part on nobody new is let in.
    pub refuse_percent: u64,
    /// From this part on the largest are ended.
    pub disconnect_percent: u64,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All is well.
    #[default]
    Ample,
    /// Publishers are slowed.
    Slow,
    /// Nobody new is let in.
    Refuse,
    /// Those of whom most is waiting are ended.
    Disconnect,
}

impl MemoryLimits {
    /// What it means that so many of so many bytes are in use.
    pub fn level(&self, used_bytes: u64, limit_bytes: u64) -> Level {
        let percent = u128::from(used_bytes) * 100 / u128::from(limit_bytes.max(1));
        let reached = |from: u64| percent >= u128::from(from);
        match () {
            () if reached(self.disconnect_percent) => Level::Disconnect,
            () if reached(self.refuse_percent) => Level::Refuse,
            () if reached(self.slow_percent) => Level::Slow,
            () => Level::Ample,
        }
    }

    /// The limit that counts; `None` where the system does not tell and nothing is written.
    pub fn limit(&self) -> Option<u64> {
        self.limit_bytes.or_else(|| {
            let group = control_group().and_then(|group| group_limit(&group));
            let machine = machine_bytes();
            group.into_iter().chain(machine).min()
        })
    }
}

/// What the process holds.
pub fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn machine_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The folder of the process's control group: of version 2, or of version 1's memory.
fn control_group() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let (root, path) = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        match (fields.next()?, fields.next()?) {
            ("", path) => Some(("/sys/fs/cgroup", path)),
            (controllers, path) if controllers.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", path))
            }
            _ => None,
        }
    })?;
    let folder = Path::new(root).join(path.trim_start_matches('/'));
    // In a container the path may be as the host sees it, and what is seen is the root.
    Some(if folder.is_dir() { folder } else { root.into() })
}

/// The smallest limit of a group and those around it.
fn group_limit(group: &Path) -> Option<u64> {
    let around = group.ancestors().take_while(|folder| folder.starts_with("/sys/fs/cgroup"));
    let limits =
        around.flat_map(|folder| ["memory.max", "memory.limit_in_bytes"].map(|name| folder.join(name)));
    // `max` is no number.
    limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_parts_of_the_limit() {
        let limits = MemoryLimits {
            limit_bytes: Some(1000),
            slow_percent: 60,
            refuse_percent: 75,
            disconnect_percent: 85,
        };
        for (used, level) in [
            (0, Level::Ample),
            (599, Level::Ample),
            (600, Level::Slow),
            (750, Level::Refuse),
            (849, Level::Refuse),
            (850, Level::Disconnect),
            (u64::MAX, Level::Disconnect),
        ] {
            assert_eq!(limits.level(used, 1000), level, "{used}");
        }
        assert_eq!(limits.limit(), Some(1000));
        assert!(Level::Slow < Level::Refuse && Level::Refuse < Level::Disconnect);
    }

    #[test]
    fn the_system_tells_what_is_used_and_what_there_is() {
        let unwritten =
            MemoryLimits { limit_bytes: None, slow_percent: 60, refuse_percent: 75, disconnect_percent: 85 };
        let (used, limit) = (resident_bytes().unwrap(), unwritten.limit().unwrap());
        assert!(used > 100 * 1024 && limit > used, "{used} of {limit}");
    }
}

//! How much space there is for the store.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Below how much space persistent messages are refused: at whichever is more.
#[derive(Clone, Copy, Debug)]
pub struct SpaceLimits {
    /// In bytes.
    pub free_bytes_min: u64,
    /// In percent of the disk.
    pub free_percent_min: u64,
    /// How many bytes these percent come to at most: of a large disk a small part is plenty.
    pub free_percent_bytes_max: u64,
}

/// Space, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// What the store can still use.
    pub free: u64,
    /// The whole disk.
    pub total: u64,
}

/// Where the store is told how much space there is.
pub trait Gauge: Send {
    /// The space now, when the messages in the store are of so many bytes.
    fn space(&self, live_bytes: u64) -> io::Result<Space>;
}

impl SpaceLimits {
    /// Whether so little is left that nothing more is to be appended.
    pub fn is_nearly_full(&self, space: Space) -> bool {
        let percent = u128::from(space.total) * u128::from(self.free_percent_min) / 100;
        let percent = percent.min(u128::from(self.free_percent_bytes_max));
        u128::from(space.free) < percent.max(u128::from(self.free_bytes_min))
    }
}

/// The disk that a file is on.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) file: PathBuf,
}

impl Gauge for Disk {
    fn space(&self, live_bytes: u64) -> io::Result<Space> {
        let found = rustix::fs::statvfs(&self.file)?;
        let (available, total) = (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize);
        let allocated = std::fs::metadata(&self.file)?.blocks() * 512;
        Ok(Space { free: free(available, allocated, live_bytes), total })
    }
}

/// Of so much that is available on the disk, how much slack in the file counts beside it: a disk that others filled is
/// full, for a commit writes beside what is there, and perhaps where the file has holes.
const SLACK_PER_AVAILABLE: u64 = 3;

/// The file does not shrink at once when messages go: what they leave is used again. Half of it, for rows and pages are
/// larger than what is in them.
fn free(available: u64, allocated: u64, live_bytes: u64) -> u64 {
    let slack = allocated.saturating_sub(live_bytes.saturating_mul(2));
    available.saturating_add(slack.min(available.saturating_mul(SLACK_PER_AVAILABLE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_limit_counts() {
        let limits = SpaceLimits { free_bytes_min: 100, free_percent_min: 5, free_percent_bytes_max: 2000 };
        let full = |free, total| limits.is_nearly_full(Space { free, total });
        assert!(full(99, 1000) && !full(100, 1000));
        assert!(full(499, 10_000) && !full(500, 10_000));
        assert!(full(1999, u64::MAX) && !full(2000, u64::MAX));
    }

    #[test]
    fn slack_in_the_file_counts_while_the_disk_is_not_full() {
        assert_eq!(free(100, 90, 10), 170);
        assert_eq!(free(100, 90, 80), 100);
        assert_eq!(free(10, 1000, 0), 40);
        assert_eq!(free(0, 1000, 0), 0);
    }

    #[test]
    fn a_file_has_a_disk() {
        let file = std::env::current_exe().unwrap();
        let space = Disk { file }.space(0).unwrap();
        assert!(space.total > 0 && space.free > 0);
    }
}

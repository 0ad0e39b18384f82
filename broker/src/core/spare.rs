//! Lists that are empty but keep their memory, for whoever of this thread needs one next: what is idle holds none, and what
//! becomes busy need not ask the allocator.

/// A few of a kind. One for each thread.
#[derive(Debug)]
pub struct Spare<T>(Vec<T>);

/// How many are kept.
const SPARE_MAX: usize = 32;

impl<T> Spare<T> {
    /// None yet.
    pub const fn new() -> Spare<T> {
        Spare(Vec::new())
    }

    /// One that was given back, if there is one.
    pub fn take(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Keeps one, if there is room. It must be as good as new, and not large.
    pub fn give(&mut self, spare: T) {
        if self.0.len() < SPARE_MAX {
            self.0.push(spare);
        }
    }
}

impl<T> Default for Spare<T> {
    fn default() -> Spare<T> {
        Spare::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_kept_and_those_beyond_are_not() {
        let mut spare = Spare::new();
        assert_eq!(spare.take(), None);
        (0..2 * SPARE_MAX).for_each(|number| spare.give(number));
        assert_eq!(std::iter::from_fn(|| spare.take()).count(), SPARE_MAX);
    }
}

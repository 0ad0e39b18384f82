//! IDs: of sessions, publications, subscriptions, registrations and requests.

use std::fmt;
use std::num::NonZeroU64;

/// An integer from 1 to 2^53, both included, so that a double holds it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(NonZeroU64);

impl Id {
    /// The first of a sequence.
    pub const FIRST: Self = Self(NonZeroU64::MIN);
    /// 2^53.
    pub const MAX: Self = Self(NonZeroU64::MIN.saturating_add((1 << 53) - 1));

    /// `None` outside the range.
    ///
    /// ```
    /// use tandem_protocols::wamp::id::Id;
    ///
    /// assert_eq!(Id::new(1 << 53), Some(Id::MAX));
    /// assert_eq!(Id::new(0), None);
    /// assert_eq!(Id::new((1 << 53) + 1), None);
    /// ```
    #[must_use]
    #[inline]
    pub fn new(value: u64) -> Option<Self> {
        NonZeroU64::new(value).map(Self).filter(|id| *id <= Self::MAX)
    }

    /// The integer.
    #[must_use]
    #[inline]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The next of a sequence; after the last comes the first.
    #[must_use]
    #[inline]
    pub fn next(self) -> Self {
        if self == Self::MAX { Self::FIRST } else { Self(self.0.saturating_add(1)) }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Id> for u64 {
    fn from(id: Id) -> Self {
        id.get()
    }
}

impl TryFrom<u64> for Id {
    type Error = OutOfRange;

    fn try_from(value: u64) -> Result<Self, OutOfRange> {
        Self::new(value).ok_or(OutOfRange)
    }
}

/// The integer is no [`Id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an ID is an integer from 1 to 2^53")]
pub struct OutOfRange;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_wraps_after_two_to_the_53() {
        assert_eq!(Id::MAX.get(), 9_007_199_254_740_992);
        assert_eq!(Id::MAX.next(), Id::FIRST);
        assert_eq!(Id::FIRST.next().get(), 2);
    }

    #[test]
    fn an_optional_id_takes_no_more_room() {
        assert_eq!(size_of::<Option<Id>>(), 8);
    }
}

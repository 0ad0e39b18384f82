//! What a session has under way that publishes: what it gathered, and whether others keep up with it.

use once_cell::race::OnceBox;
use parking_lot::Mutex;

use crate::core::bundle::Gathered;
use crate::core::pacing::Pace;

/// What a session has that publishes. Who never published has none, and then it is one word.
#[derive(Debug, Default)]
pub struct Publishing(OnceBox<UnderWay>);

/// What is under way of it.
#[derive(Debug, Default)]
pub struct UnderWay {
    /// What it gathered.
    pub gathered: Mutex<Gathered>,
    /// Whether others keep up.
    pub pace: Pace,
}

impl Publishing {
    /// What is under way, if it ever published.
    pub fn get(&self) -> Option<&UnderWay> {
        self.0.get()
    }

    /// The same for one that publishes.
    pub fn get_or_begin(&self) -> &UnderWay {
        self.0.get_or_init(Box::default)
    }
}

//! The one who watches a realm, if somebody wants to hear of it.
//!
//! Notices are pushed under the lock that orders the change, so that they come in the order of the changes. They
//! cost nothing while nobody subscribes to what only the house publishes.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::core::history::WallClock;
use crate::core::mailbox::Mailbox;
use crate::core::name::Pattern;
use crate::core::notice::Notice;
use crate::core::parcel::Parcel;
use crate::core::reserved::is_reserved;

/// Who watches a realm.
#[derive(Default)]
pub struct Watch {
    observer: OnceLock<(Mailbox, WallClock)>,
    /// How many subscriptions there are that could bring somebody what the observer makes of a notice.
    interest: AtomicUsize,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("interest", &self.interest).finish_non_exhaustive()
    }
}

impl Watch {
    /// From now on notices go to this mailbox, and what is made bears the time. False if somebody else watches.
    pub fn observe(&self, mailbox: Mailbox, clock: WallClock) -> bool {
        self.observer.set((mailbox, clock)).is_ok()
    }

    /// Whether somebody watches.
    pub fn is_observed(&self) -> bool {
        self.observer.get().is_some()
    }

    /// The time of day in milliseconds since 1970; 0 where nobody watches.
    pub fn time_ms(&self) -> u64 {
        self.observer.get().map_or(0, |(_, clock)| clock())
    }

    /// There is a subscription more to such topics, if they are the house's.
    pub fn note_subscribed(&self, pattern: &Pattern) {
        if is_reserved(pattern.as_str()) {
            self.interest.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// There is one less.
    pub fn note_unsubscribed(&self, pattern: &Pattern) {
        if is_reserved(pattern.as_str()) {
            self.interest.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Tells the observer, if anybody wants to hear of it. If its mailbox is full the notice is dropped, and
    /// counted there.
    pub fn tell(&self, notice: impl FnOnce() -> Notice) {
        if self.interest.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some((mailbox, _)) = self.observer.get() {
            mailbox.push(Parcel::Notice(Box::new(notice())));
        }
    }

    /// The same about something with a pattern; not if the house itself is what it is about.
    pub fn tell_about(&self, pattern: &Pattern, notice: impl FnOnce() -> Notice) {
        if !is_reserved(pattern.as_str()) {
            self.tell(notice);
        }
    }
}

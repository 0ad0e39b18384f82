//! Whether a publisher is faster than those it publishes to, and whom it then waits for.
//!
//! A publisher that could go on for ever would push each of its subscribers over the limits of its mailbox, also those
//! that read as fast as they can. So it is to wait while more than half of those that its last publications came to
//! are behind; for the one among them that is the least behind. A few that are slow are not waited for: they are dropped,
//! as their policy says. Where the policy is to drop events instead of sessions, nobody is waited for. Who sends little waits
//! seldom: a small message is not to be held up because another's large ones fill the mailbox that it goes to.
//!
//! Nothing waits here: the publisher's pump asks, and bounds how long it does what it is told.

use std::task::Waker;

use parking_lot::Mutex;

use crate::core::mailbox::{Mailbox, Pushed};

/// The last publications are those of so many bytes, or the very last.
const RECENT_BYTES: usize = 32 * 1024;

/// So much a publisher may send to those who are behind before it is to wait: they may be behind because of another, who
/// sends more. What senders may bring into a mailbox over its soft limit is bounded by that, and by its hard one.
const LIGHT_BYTES: usize = 8 * 1024;

/// What one publication met, or several together.
#[derive(Debug, Default)]
pub struct Reach {
    /// How many receivers took it.
    pub taken: usize,
    /// The sessions among them.
    sessions: usize,
    /// Those of them that are behind.
    behind: usize,
    /// The one that is the least behind, and by how many bytes.
    least: Option<(usize, Mailbox)>,
}

impl Reach {
    /// It came to a session, which took so many, and whose mailbox now has so much waiting if that is too much.
    pub fn note(&mut self, mailbox: &Mailbox, taken: usize, behind: Option<usize>) {
        if taken == 0 {
            return;
        }
        self.taken += taken;
        self.sessions += 1;
        if let Some(bytes) = behind {
            self.behind += 1;
            if self.least.as_ref().is_none_or(|(least, _)| bytes < *least) {
                self.least = Some((bytes, mailbox.clone()));
            }
        }
    }

    /// It came to something that is not waited for.
    pub fn note_other(&mut self, pushed: Pushed) {
        self.taken += usize::from(pushed == Pushed::Queued);
    }
}

/// What a publisher's last publications met.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Recent>);

/// Receivers count by the bytes that came to them.
#[derive(Debug, Default)]
struct Recent {
    bytes: usize,
    to_sessions: u64,
    to_those_behind: u64,
    /// What came to a majority that was behind, since it last waited or met one that keeps up.
    unpaid: usize,
    waits_for: Option<Mailbox>,
    /// It waited in vain, and does not wait again before it met a majority that keeps up.
    has_given_up: bool,
}

impl Pace {
    /// A publication of this cost met this, or several that cost it together.
    pub fn note(&self, cost: usize, reach: Reach) {
        if reach.sessions == 0 {
            return;
        }
        let mut recent = self.0.lock();
        if cost >= RECENT_BYTES {
            (recent.bytes, recent.to_sessions, recent.to_those_behind) = (0, 0, 0);
        } else if recent.bytes + cost > RECENT_BYTES {
            recent.bytes /= 2;
            recent.to_sessions /= 2;
            recent.to_those_behind /= 2;
        }
        recent.bytes += cost;
        recent.to_sessions += (cost * reach.sessions) as u64;
        recent.to_those_behind += (cost * reach.behind) as u64;
        if 2 * recent.to_those_behind <= recent.to_sessions {
            (recent.waits_for, recent.has_given_up, recent.unpaid) = (None, false, 0);
        } else if let Some((_, mailbox)) = reach.least
            && !recent.has_given_up
        {
            recent.unpaid = recent.unpaid.saturating_add(cost);
            if recent.unpaid >= LIGHT_BYTES {
                recent.waits_for = Some(mailbox);
            }
        }
    }

    /// True while the publisher is to wait; `waker` is woken when that ends.
    pub fn waits(&self, waker: &Waker) -> bool {
        let mut recent = self.0.lock();
        let waits = recent.waits_for.as_ref().is_some_and(|mailbox| mailbox.waits_for_room(waker));
        if !waits && recent.waits_for.take().is_some() {
            recent.unpaid = 0;
        }
        waits
    }

    /// The publisher waited for long enough.
    pub fn give_up(&self) {
        let mut recent = self.0.lock();
        if let Some(mailbox) = recent.waits_for.take() {
            // If it got below the limit at least, it is slow, but it reads: it is worth waiting for again.
            let has_given_up = mailbox.is_over_soft_limit();
            *recent = Recent { has_given_up, ..Recent::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mailbox::{Bounds, Inbox, Overflow, mailbox};
    use crate::core::parcel::{Parcel, SubscriptionId};
    use crate::core::testing::{UNIT, publication, take};

    fn of_a_hundred(overflow: Overflow) -> (Mailbox, Inbox) {
        mailbox(Bounds { bytes_soft_max: 100 * UNIT, bytes_max: 1000 * UNIT, overflow })
    }

    /// Publishes to them, as topics do, and says whether the publisher is to wait then.
    fn publish(pace: &Pace, to: &[&Mailbox]) -> bool {
        let publication = publication("a.b", 1);
        let mut reach = Reach::default();
        for mailbox in to {
            let event = Parcel::Event { publication: publication.clone(), subscription: SubscriptionId(1) };
            let (pushed, behind) = mailbox.push_and_look(event);
            reach.note(mailbox, usize::from(pushed == Pushed::Queued), behind);
        }
        pace.note(publication.cost(), reach);
        pace.waits(Waker::noop())
    }

    #[test]
    fn a_publisher_waits_for_its_only_subscriber_until_half_of_what_may_wait_is_read() {
        let pace = Pace::default();
        let (mailbox, mut inbox) = of_a_hundred(Overflow::Disconnect);
        let waits: Vec<bool> = (0..200).map(|_| publish(&pace, &[&mailbox])).collect();
        let first = waits.iter().position(|waits| *waits).unwrap();
        assert!((100..140).contains(&first), "{waits:?}");
        assert!(waits[first..].iter().all(|waits| *waits));
        let all = take(&mut inbox);
        assert_eq!(all.len(), 200);
        assert!(!pace.waits(Waker::noop()));
    }

    #[test]
    fn half_of_the_subscribers_or_fewer_are_not_waited_for() {
        let pace = Pace::default();
        let (slow, _stalled) = of_a_hundred(Overflow::Disconnect);
        let (quick, mut inbox) = of_a_hundred(Overflow::Disconnect);
        for _ in 0..190 {
            assert!(!publish(&pace, &[&slow, &quick]));
            take(&mut inbox);
        }
        // Nor when they are met one after the other.
        for _ in 0..3 {
            assert!(!publish(&pace, &[&quick]) && !publish(&pace, &[&slow]));
            take(&mut inbox);
        }
    }

    #[test]
    fn of_several_the_least_behind_is_waited_for() {
        let pace = Pace::default();
        let (more, mut more_inbox) = of_a_hundred(Overflow::Disconnect);
        let (less, mut less_inbox) = of_a_hundred(Overflow::Disconnect);
        (0..200).for_each(|_| {
            publish(&pace, &[&more]);
        });
        (0..150).for_each(|_| {
            publish(&pace, &[&more, &less]);
        });
        assert!(pace.waits(Waker::noop()));
        take(&mut more_inbox);
        assert!(pace.waits(Waker::noop()), "that is not the one");
        take(&mut less_inbox);
        assert!(!pace.waits(Waker::noop()));
    }

    #[test]
    fn who_waited_in_vain_does_not_wait_again_before_somebody_keeps_up() {
        let pace = Pace::default();
        let (mailbox, mut inbox) = of_a_hundred(Overflow::Disconnect);
        (0..150).for_each(|_| {
            publish(&pace, &[&mailbox]);
        });
        assert!(pace.waits(Waker::noop()));
        pace.give_up();
        (0..40).for_each(|_| assert!(!publish(&pace, &[&mailbox])));
        take(&mut inbox);
        let again = (0..300).any(|_| publish(&pace, &[&mailbox]));
        assert!(again, "it reads again, and is waited for again");
        drop(inbox);
        assert!(!pace.waits(Waker::noop()), "who is gone is not waited for");
    }

    #[test]
    fn who_sends_little_to_somebody_whom_another_fills_up_seldom_waits() {
        let (filler, light) = (Pace::default(), Pace::default());
        let (mailbox, mut inbox) = of_a_hundred(Overflow::Disconnect);
        (0..200).for_each(|_| {
            publish(&filler, &[&mailbox]);
        });
        assert!(filler.waits(Waker::noop()));
        let free = (0..).take_while(|_| !publish(&light, &[&mailbox])).count();
        assert_eq!(free, (LIGHT_BYTES - 1) / UNIT, "then it does");
        take(&mut inbox);
        assert!(!light.waits(Waker::noop()), "there is room");
        (0..200).for_each(|_| {
            publish(&filler, &[&mailbox]);
        });
        assert!(!publish(&light, &[&mailbox]), "and it begins anew");
    }

    #[test]
    fn a_subscriber_whose_events_are_dropped_is_not_waited_for() {
        for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
            let pace = Pace::default();
            let (mailbox, _inbox) = of_a_hundred(overflow);
            assert!((0..2000).all(|_| !publish(&pace, &[&mailbox])));
        }
    }
}

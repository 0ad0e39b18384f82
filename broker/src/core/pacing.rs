//! Whether a publisher is faster than those it publishes to, and whom it then waits for.
//!
//! A publisher that could go on for ever would push each of its subscribers over the limits of its mailbox, also those
//! that read as fast as they can. So it is to wait while more than half of those that its last publications came to
//! are behind; for the one among them that is the least behind. A few that are slow are not waited for: they are dropped,
//! as their policy says. But who reads as fast as the others may still pause for a moment, and is not to be dropped for that: for
//! those whose mailbox is nearly full a publisher has a little patience, which is a small part of its time, however many they
//! are. Where the policy is to drop events instead of sessions, nobody is waited for. Who sends little waits
//! seldom: a small message is not to be held up because another's large ones fill the mailbox that it goes to.
//!
//! Nothing waits here: the publisher's pump asks until when it is to wait.

use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::mailbox::{Mailbox, Pushed};
use crate::metrics;

/// The last publications are those of so many bytes, or the very last.
const RECENT_BYTES: usize = 32 * 1024;

/// So much a publisher may send to those who are behind before it is to wait: they may be behind because of another, who
/// sends more. What senders may bring into a mailbox over its soft limit is bounded by that, and by its hard one.
const LIGHT_BYTES: usize = 8 * 1024;

/// So long a publisher waits at a time for a few that are nearly full, ...
const PATIENCE: Duration = Duration::from_millis(100);

/// ... and for so small a part of its time in the long run.
const PATIENCE_PART: u32 = 20;

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
    /// The one that is the most behind of those that are nearly full, and by how many bytes.
    fullest: Option<(usize, Mailbox)>,
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
            if mailbox.is_nearly_full(bytes) && self.fullest.as_ref().is_none_or(|(most, _)| bytes > *most) {
                self.fullest = Some((bytes, mailbox.clone()));
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
    waits_for: Option<Wait>,
    /// It waited in vain, and does not wait again before it met a majority that keeps up.
    has_given_up: bool,
    /// What came to some that were nearly full, since it last waited for one of them.
    unpaid_to_few: usize,
    bears_with: Option<Wait>,
    patience: Patience,
}

/// For somebody to read.
#[derive(Debug)]
struct Wait {
    mailbox: Mailbox,
    /// When it began, if it did.
    since: Option<Instant>,
}

impl Wait {
    /// As it was, but for another.
    fn turn_to(wait: &mut Option<Wait>, mailbox: Mailbox) {
        let since = wait.take().and_then(|wait| wait.since);
        *wait = Some(Wait { mailbox, since });
    }
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
                Wait::turn_to(&mut recent.waits_for, mailbox);
            }
        }
        if let Some((_, mailbox)) = reach.fullest {
            recent.unpaid_to_few = recent.unpaid_to_few.saturating_add(cost);
            if recent.unpaid_to_few >= LIGHT_BYTES {
                Wait::turn_to(&mut recent.bears_with, mailbox);
            }
        }
    }

    /// Until when the publisher is to wait, if it is: for most no longer than `time_max`, and no longer than it has patience for a
    /// few. `waker` is woken when that ends before.
    pub fn waits(&self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        let mut recent = self.0.lock();
        if let Some(until) = recent.waits_for_most(waker, now, time_max) {
            recent.stop_bearing(now);
            return Some(until);
        }
        recent.waits_for_few(waker, now, time_max)
    }
}

impl Recent {
    fn waits_for_most(&mut self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        let Wait { mailbox, since } = self.waits_for.as_mut()?;
        if mailbox.waits_for_room(waker) {
            if since.is_none() {
                metrics::PUBLISHERS_PACED.add(1);
            }
            let until = *since.get_or_insert(now) + time_max;
            if now < until {
                return Some(until);
            }
            // If it got below the limit at least, it is slow, but it reads: it is worth waiting for again.
            self.has_given_up = mailbox.is_over_soft_limit();
            (self.bytes, self.to_sessions, self.to_those_behind) = (0, 0, 0);
        }
        (self.waits_for, self.unpaid) = (None, 0);
        None
    }

    fn waits_for_few(&mut self, waker: &Waker, now: Instant, time_max: Duration) -> Option<Instant> {
        let Wait { mailbox, since } = self.bears_with.as_mut()?;
        let began = since.is_some();
        let since = *since.get_or_insert(now);
        if mailbox.waits_for_relief(waker) {
            let until = since + self.patience.left(since).min(time_max);
            if now < until {
                metrics::SUBSCRIBERS_BORNE.add(i64::from(!began));
                return Some(until);
            }
        }
        self.stop_bearing(now);
        (self.bears_with, self.unpaid_to_few) = (None, 0);
        None
    }

    /// It does not wait for a few any more, or for others as well.
    fn stop_bearing(&mut self, now: Instant) {
        if let Some(since) = self.bears_with.as_mut().and_then(|wait| wait.since.take()) {
            self.patience.spend(since, now);
        }
    }
}

/// What of [`PATIENCE`] is spent. It comes back with the time.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    spent: Duration,
    /// When that was so.
    as_of: Option<Instant>,
}

impl Patience {
    fn spent(&self, now: Instant) -> Duration {
        let passed = self.as_of.map_or(Duration::ZERO, |as_of| now.saturating_duration_since(as_of));
        self.spent.saturating_sub(passed / PATIENCE_PART)
    }

    fn left(&self, now: Instant) -> Duration {
        PATIENCE.saturating_sub(self.spent(now))
    }

    /// What was left at the begin, or a part of it: whoever takes longer to ask again has waited for something else.
    fn spend(&mut self, since: Instant, until: Instant) {
        let waited = until.saturating_duration_since(since);
        self.spent = self.spent(since) + waited.min(self.left(since));
        self.as_of = Some(since + waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mailbox::{Bounds, Inbox, Overflow, mailbox};
    use crate::core::parcel::{Parcel, SubscriptionId};
    use crate::core::testing::{UNIT, publication, take};

    const TIME_MAX: Duration = Duration::from_secs(5);

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
        waits(pace)
    }

    /// At once.
    fn waits(pace: &Pace) -> bool {
        waits_at(pace, Instant::now())
    }

    fn waits_at(pace: &Pace, now: Instant) -> bool {
        pace.waits(Waker::noop(), now, TIME_MAX).is_some()
    }

    #[test]
    fn a_publisher_waits_for_its_only_subscriber_until_half_of_what_may_wait_is_read() {
        let pace = Pace::default();
        let (mailbox, mut inbox) = of_a_hundred(Overflow::Disconnect);
        let waited: Vec<bool> = (0..200).map(|_| publish(&pace, &[&mailbox])).collect();
        let first = waited.iter().position(|waits| *waits).unwrap();
        assert!((100..140).contains(&first), "{waited:?}");
        assert!(waited[first..].iter().all(|waits| *waits));
        let all = take(&mut inbox);
        assert_eq!(all.len(), 200);
        assert!(!waits(&pace));
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
        assert!(waits(&pace));
        take(&mut more_inbox);
        assert!(waits(&pace), "that is not the one");
        take(&mut less_inbox);
        assert!(!waits(&pace));
    }

    #[test]
    fn who_waited_in_vain_does_not_wait_again_before_somebody_keeps_up() {
        let pace = Pace::default();
        let (mailbox, mut inbox) = of_a_hundred(Overflow::Disconnect);
        (0..150).for_each(|_| {
            publish(&pace, &[&mailbox]);
        });
        assert!(waits(&pace));
        assert!(!waits_at(&pace, Instant::now() + TIME_MAX));
        (0..40).for_each(|_| assert!(!publish(&pace, &[&mailbox])));
        take(&mut inbox);
        let again = (0..300).any(|_| publish(&pace, &[&mailbox]));
        assert!(again, "it reads again, and is waited for again");
        drop(inbox);
        assert!(!waits(&pace), "who is gone is not waited for");
    }

    #[test]
    fn who_sends_little_to_somebody_whom_another_fills_up_seldom_waits() {
        let (filler, light) = (Pace::default(), Pace::default());
        let (mailbox, mut inbox) = of_a_hundred(Overflow::Disconnect);
        (0..200).for_each(|_| {
            publish(&filler, &[&mailbox]);
        });
        assert!(waits(&filler));
        let free = (0..).take_while(|_| !publish(&light, &[&mailbox])).count();
        assert_eq!(free, (LIGHT_BYTES - 1) / UNIT, "then it does");
        take(&mut inbox);
        assert!(!waits(&light), "there is room");
        (0..200).for_each(|_| {
            publish(&filler, &[&mailbox]);
        });
        assert!(!publish(&light, &[&mailbox]), "and it begins anew");
    }

    /// One of three, who reads nothing; the others read all. How many messages until the publisher waits.
    fn until_one_of_three_is_waited_for(pace: &Pace, of_three: &Mailbox) -> usize {
        let (one, mut one_inbox) = of_a_hundred(Overflow::Disconnect);
        let (other, mut other_inbox) = of_a_hundred(Overflow::Disconnect);
        let keeps_up = |_: &usize| {
            let waits = publish(pace, &[&one, of_three, &other]);
            take(&mut one_inbox);
            take(&mut other_inbox);
            !waits
        };
        (0..10_000).take_while(keeps_up).count()
    }

    #[test]
    fn who_pauses_for_a_moment_is_waited_for_before_it_is_dropped() {
        let pace = Pace::default();
        let (pauses, mut inbox) = of_a_hundred(Overflow::Disconnect);
        let sent = until_one_of_three_is_waited_for(&pace, &pauses);
        assert!((750..1000).contains(&sent), "{sent} of the 1000 that it may have waiting");
        assert!(waits(&pace));
        take(&mut inbox);
        assert!(!waits(&pace) && !pauses.is_closed());
    }

    #[test]
    fn who_alternates_between_topics_has_patience_as_well() {
        let pace = Pace::default();
        let (pauses, _inbox) = of_a_hundred(Overflow::Disconnect);
        let (keeps_up, mut inbox) = of_a_hundred(Overflow::Disconnect);
        let waited = (0..999).any(|_| {
            publish(&pace, &[&keeps_up]);
            take(&mut inbox);
            publish(&pace, &[&pauses])
        });
        assert!(waited && !pauses.is_closed());
    }

    #[test]
    fn who_asks_late_has_not_spent_more_patience_than_there_was() {
        let (began, mut patience) = (Instant::now(), Patience::default());
        let late = began + Duration::from_secs(3600);
        patience.spend(began, late);
        assert_eq!(patience.left(late), Duration::ZERO);
        assert_eq!(patience.left(late + PATIENCE * PATIENCE_PART), PATIENCE);
    }

    #[test]
    fn there_is_patience_for_a_small_part_of_the_time_however_many_want_it() {
        let pace = Pace::default();
        let began = Instant::now();
        let (mut now, mut waited) = (began, Duration::ZERO);
        for _ in 0..50 {
            // None of them reads.
            let (stalled, _inbox) = of_a_hundred(Overflow::Disconnect);
            let publication = publication("a.b", 1);
            while !stalled.is_closed() {
                let mut reach = Reach::default();
                let event =
                    Parcel::Event { publication: publication.clone(), subscription: SubscriptionId(1) };
                let (pushed, behind) = stalled.push_and_look(event);
                reach.note(&stalled, usize::from(pushed == Pushed::Queued), behind);
                // There are others, who keep up.
                reach.sessions += 2;
                pace.note(publication.cost(), reach);
                if let Some(until) = pace.waits(Waker::noop(), now, TIME_MAX) {
                    assert!(until > now && until <= now + PATIENCE);
                    waited += until - now;
                    now = until;
                    assert!(!waits_at(&pace, now));
                }
            }
            now += Duration::from_millis(200);
        }
        let bound = PATIENCE + (now - began) / PATIENCE_PART;
        assert!(waited > PATIENCE && waited <= bound, "{waited:?} of {:?}", now - began);
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

//! Looking at messages without taking them: at those that wait, and at copies of those that were there.

use crate::core::parcel::Parcel;
use crate::core::queues::consumer::{Browse, Consumer, ConsumerKey};
use crate::core::queues::dispatch::deliver;
use crate::core::queues::state::State;

impl State {
    pub(super) fn serve_browsers(&mut self, now_ms: u64) {
        let browsers: Vec<ConsumerKey> = self.browsers.iter().copied().collect();
        for key in browsers {
            while self.scans_left > 0 && self.show_next(key, now_ms) {}
        }
    }

    /// Shows a browser one more message. False if it gets no more now.
    pub(super) fn show_next(&mut self, key: ConsumerKey, now_ms: u64) -> bool {
        let Some(browser) = self.consumers.get_mut(&key) else { return false };
        if browser.exhausted || !browser.has_credit() {
            return false;
        }
        let is_of_past = matches!(browser.terms.browse, Some(Browse::Kept { .. }));
        let next = if is_of_past {
            self.kept.range(browser.next_kept..).next().map(|(sequence, item)| (*sequence, item))
        } else {
            self.ready.range(browser.cursor..).next().map(|(rank, item)| (rank.sequence(), item))
        };
        let Some((sequence, item)) = next else {
            finish_browsing(browser, key);
            return false;
        };
        let rank = item.rank(sequence);
        let has_expired = item.has_expired(now_ms);
        if item.is_away() && !has_expired {
            self.durable.looked_for.get_or_insert(sequence);
            return false;
        }
        match is_of_past {
            true => browser.next_kept = sequence + 1,
            false => browser.cursor = rank.after(),
        }
        self.scans_left -= 1;
        if !has_expired && browser.admits_item(item) {
            if deliver(browser, key, sequence, item) {
                browser.held.insert(sequence, item.clone());
            } else {
                browser.open = false;
            }
        }
        match is_of_past {
            true => self.relax_copy(sequence),
            false => self.relax(rank),
        }
        true
    }

    /// Whether somebody has credit who was not shown everything, though it was shown as much as may be at once.
    pub(super) fn has_more_to_scan(&self) -> bool {
        let behind = |key: &ConsumerKey| {
            let Some(consumer) = self.consumers.get(key) else { return false };
            let more = match consumer.terms.browse {
                Some(Browse::Kept { .. }) => self.kept.range(consumer.next_kept..).next().is_some(),
                Some(Browse::Waiting { .. }) | None => self.ready.range(consumer.cursor..).next().is_some(),
            };
            let active = consumer.turn.is_some() || consumer.terms.browse.is_some() && !consumer.exhausted;
            active && consumer.has_credit() && more
        };
        self.pickers.iter().chain(&self.browsers).any(behind)
    }
}

/// There is nothing more to look at: who wanted to know is told.
fn finish_browsing(browser: &mut Consumer, key: ConsumerKey) {
    if let Some(Browse::Waiting { ends: true } | Browse::Kept { ends: true, .. }) = browser.terms.browse {
        browser.exhausted = true;
        browser.mailbox.push(Parcel::Exhausted { consumer: key.consumer });
    }
}

//! What a queue is like, as far as somebody said so: its operator, or who first used it.

use crate::core::name::Name;

/// What the names of queues begin with that take what another queue could not get rid of.
pub const DEAD_LETTER_PREFIX: &str = "dlq.";

/// How many messages a dead-letter queue holds unless it is said otherwise. The oldest go first.
pub const DEAD_LETTERS_MAX: u64 = 10_000;

/// How many bytes it holds unless it is said otherwise.
pub const DEAD_LETTER_BYTES_MAX: u64 = 16 << 20;

/// How often a message may come back before it is given up, unless it is said otherwise.
pub const DELIVERY_LIMIT: u32 = 20;

/// The longest back-off between two deliveries of a message, unless it is said otherwise.
pub const BACKOFF_MS_MAX: u64 = 60_000;

/// The highest priority of a message, unless it is said otherwise.
pub const PRIORITY_MAX: u8 = 9;

/// The priority of a message that says none, where nobody said how many priorities there are. It is JMS's.
pub const PRIORITY_USUAL: u8 = 4;

/// What queues may hold.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// How many queues a realm may have.
    pub queues_max: usize,
    /// How many messages one queue may hold.
    pub messages_max: usize,
    /// How many bytes one queue may hold.
    pub bytes_max: usize,
    /// How many bytes all queues of the realm may hold.
    pub total_bytes_max: usize,
}

/// What to do with a message that a queue has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuse it.
    Reject,
    /// Make room: of those with the lowest priority that no consumer holds, the oldest go.
    DropHead,
}

impl WhenFull {
    fn as_str(self) -> &'static str {
        match self {
            WhenFull::Reject => "reject-publish",
            WhenFull::DropHead => "drop-head",
        }
    }

    fn parse(text: &str) -> Option<WhenFull> {
        [WhenFull::Reject, WhenFull::DropHead].into_iter().find(|policy| policy.as_str() == text)
    }
}

/// What somebody said of a queue. What was not said has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// How long a message may lie in it, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// How many messages it may hold.
    pub messages_max: Option<u64>,
    /// How many bytes it may hold.
    pub bytes_max: Option<u64>,
    /// What to do when it is full.
    pub when_full: Option<WhenFull>,
    /// Its highest priority; 0 for none.
    pub priority_max: Option<u8>,
    /// After how long without consumers it goes, with all that is in it, in milliseconds.
    pub unused_ms_max: Option<u64>,
    /// The queue for what is rejected, comes back too often, is too old or has no room.
    pub dead_letters: Option<Name>,
    /// How often a message may come back.
    pub delivery_limit: Option<u32>,
    /// How long a message that comes back rests, in milliseconds: twice as long each time.
    pub backoff_ms: Option<u64>,
    /// How long at most.
    pub backoff_ms_max: Option<u64>,
    /// How many of the messages that it took it keeps for who wants to read them again.
    pub kept_max: Option<u64>,
}

impl Properties {
    /// True when nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Properties::default()
    }

    /// As a store keeps them: what was said, by the names that [`misfits`](Properties::misfits) has.
    pub(super) fn written(&self) -> Vec<(String, String)> {
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let when_full = self.when_full.map(|policy| policy.as_str().to_owned());
        let all = [
            ("message-ttl", number(self.message_ttl_ms)),
            ("max-length", number(self.messages_max)),
            ("max-length-bytes", number(self.bytes_max)),
            ("overflow", when_full),
            ("max-priority", number(self.priority_max.map(u64::from))),
            ("expires", number(self.unused_ms_max)),
            ("dead-letter-routing-key", self.dead_letters.as_ref().map(|name| name.as_str().to_owned())),
            ("delivery-limit", number(self.delivery_limit.map(u64::from))),
            ("redelivery-delay", number(self.backoff_ms)),
            ("redelivery-delay-max", number(self.backoff_ms_max)),
            ("keep", number(self.kept_max)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// As `written`. What a later version wrote, or nobody did, is passed over.
    pub fn read(written: &[(String, String)]) -> Properties {
        fn value<T: std::str::FromStr>(written: &[(String, String)], name: &str) -> Option<T> {
            written.iter().find(|(known, _)| known == name)?.1.parse().ok()
        }
        let text =
            |name: &str| written.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        Properties {
            message_ttl_ms: value(written, "message-ttl"),
            messages_max: value(written, "max-length"),
            bytes_max: value(written, "max-length-bytes"),
            when_full: text("overflow").and_then(WhenFull::parse),
            priority_max: value(written, "max-priority"),
            unused_ms_max: value(written, "expires"),
            dead_letters: text("dead-letter-routing-key").and_then(|name| Name::parse(name).ok()),
            delivery_limit: value(written, "delivery-limit"),
            backoff_ms: value(written, "redelivery-delay"),
            backoff_ms_max: value(written, "redelivery-delay-max"),
            kept_max: value(written, "keep"),
        }
    }

    /// Which of these are not true of a queue with the properties `known`. What is not said fits everything.
    pub fn misfits(&self, known: &Properties) -> Vec<&'static str> {
        fn differs<T: PartialEq>(wanted: &Option<T>, known: &Option<T>) -> bool {
            wanted.is_some() && wanted != known
        }
        let all = [
            ("message-ttl", differs(&self.message_ttl_ms, &known.message_ttl_ms)),
            ("max-length", differs(&self.messages_max, &known.messages_max)),
            ("max-length-bytes", differs(&self.bytes_max, &known.bytes_max)),
            ("overflow", differs(&self.when_full, &known.when_full)),
            ("max-priority", differs(&self.priority_max, &known.priority_max)),
            ("expires", differs(&self.unused_ms_max, &known.unused_ms_max)),
            ("dead-letter-routing-key", differs(&self.dead_letters, &known.dead_letters)),
            ("delivery-limit", differs(&self.delivery_limit, &known.delivery_limit)),
            ("redelivery-delay", differs(&self.backoff_ms, &known.backoff_ms)),
            ("redelivery-delay-max", differs(&self.backoff_ms_max, &known.backoff_ms_max)),
            ("keep", differs(&self.kept_max, &known.kept_max)),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// The same, with what follows from it for a queue of that name.
    pub(super) fn completed(mut self, name: &Name) -> Properties {
        if is_for_dead_letters(name) {
            self.messages_max.get_or_insert(DEAD_LETTERS_MAX);
            self.bytes_max.get_or_insert(DEAD_LETTER_BYTES_MAX);
            // It is the last place to go.
            self.delivery_limit.get_or_insert(u32::MAX);
        }
        if self.messages_max.is_some() || self.bytes_max.is_some() {
            // As in RabbitMQ, for who says how long it may grow and not what then.
            self.when_full.get_or_insert(WhenFull::DropHead);
        }
        self
    }

    pub(super) fn priority(&self, said: Option<u8>) -> u8 {
        match self.priority_max {
            Some(max) => said.unwrap_or(0).min(max),
            None => said.unwrap_or(PRIORITY_USUAL).min(PRIORITY_MAX),
        }
    }

    /// How long a message rests that comes back for the `count`th time.
    pub(super) fn backoff(&self, count: u32) -> Option<u64> {
        let first = self.backoff_ms.filter(|ms| *ms > 0)?;
        let longest = self.backoff_ms_max.unwrap_or(BACKOFF_MS_MAX).max(first);
        let doubled = 1_u64.checked_shl(count.saturating_sub(1)).unwrap_or(u64::MAX);
        Some(first.saturating_mul(doubled).min(longest))
    }
}

/// Whether a queue of that name takes what others could not get rid of.
pub fn is_for_dead_letters(name: &Name) -> bool {
    name.as_str().starts_with(DEAD_LETTER_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_they_were_written() {
        let all = Properties {
            message_ttl_ms: Some(1),
            messages_max: Some(u64::MAX),
            bytes_max: Some(3),
            when_full: Some(WhenFull::Reject),
            priority_max: Some(4),
            unused_ms_max: Some(5),
            dead_letters: Name::parse("a.b").ok(),
            delivery_limit: Some(u32::MAX),
            backoff_ms: Some(7),
            backoff_ms_max: Some(8),
            kept_max: Some(9),
        };
        assert_eq!(Properties::read(&all.written()), all);
        assert_eq!(Properties::default().written(), []);
        let strange = [("max-length".to_owned(), "x".to_owned()), ("colour".to_owned(), "red".to_owned())];
        assert_eq!(Properties::read(&strange), Properties::default());
    }
}

//! Every counter of the process, named once, in the text format that Prometheus reads.

use std::cell::Cell;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// Threads add to different parts of a number, so that they need not wait for each other's cores. Each of the first has
/// one of its own, to which nobody else adds; those beyond share the last.
const PARTS: usize = 16;
const SHARED_PART: usize = PARTS - 1;

/// A number that goes up, or up and down.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    parts: [Part; PARTS],
}

/// Fills what processors pass around as a whole.
#[derive(Debug)]
#[repr(align(64))]
struct Part(AtomicI64);

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// None before it adds for the first time.
    static PART: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The part of this thread.
#[inline]
fn own_part() -> usize {
    PART.get().unwrap_or_else(|| {
        let part = THREADS.fetch_add(1, Ordering::Relaxed).min(SHARED_PART);
        PART.set(Some(part));
        part
    })
}

impl Metric {
    const fn counter(name: &'static str, help: &'static str) -> Metric {
        Metric::new(name, "counter", help)
    }

    const fn gauge(name: &'static str, help: &'static str) -> Metric {
        Metric::new(name, "gauge", help)
    }

    const fn new(name: &'static str, kind: &'static str, help: &'static str) -> Metric {
        Metric { name, kind, help, parts: [const { Part(AtomicI64::new(0)) }; PARTS] }
    }

    /// Adds to it.
    #[inline]
    pub fn add(&self, amount: i64) {
        let part = own_part();
        let number = &self.parts[part].0;
        if part == SHARED_PART {
            number.fetch_add(amount, Ordering::Relaxed);
        } else {
            // Nobody else writes here: there is no need to lock out who does.
            number.store(number.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// Makes it this. Nothing is added to a number that is set.
    pub fn set(&self, value: i64) {
        self.parts[0].0.store(value, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> i64 {
        self.parts.iter().map(|part| part.0.load(Ordering::Relaxed)).sum()
    }
}

macro_rules! metrics {
    ($($kind:ident $ident:ident $name:literal $help:literal;)*) => {
        $(#[doc = $help] pub static $ident: Metric = Metric::$kind($name, $help);)*
        static ALL: &[&Metric] = &[$(&$ident),*];
    };
}

metrics! {
    gauge CONNECTIONS "tandem_connections" "Connections open, whatever they speak.";
    gauge SESSIONS "tandem_sessions" "Sessions that joined a realm.";
    gauge LONG_POLLS "tandem_long_polls" "Long-poll transports open.";
    gauge SOCKJS_SESSIONS "tandem_sockjs_sessions" "Sessions of SockJS over several requests.";
    counter LONG_POLLS_SILENT "tandem_long_polls_silent_total" "Long-poll transports ended because their client did not poll.";
    counter CONNECTIONS_ACCEPTED "tandem_connections_accepted_total" "Connections accepted.";
    counter CONNECTIONS_REFUSED "tandem_connections_refused_total" "Connections refused at a limit.";
    counter HANDSHAKES_REFUSED "tandem_handshakes_refused_total" "Opening handshakes refused.";
    counter HOSTS_REFUSED "tandem_hosts_refused_total" "Requests of HTTP for a name that is not the broker's.";
    gauge MEMORY_BYTES "tandem_memory_bytes" "Bytes that the process holds.";
    gauge MEMORY_LEVEL "tandem_memory_level" "0 while memory is ample, 1 while publishers are slowed, 2 while nobody new is let in, 3 while the largest are ended.";
    counter MEMORY_EVICTIONS "tandem_memory_evictions_total" "Sessions ended because memory was short and most was waiting for them.";
    counter TLS_HANDSHAKES_FAILED "tandem_tls_handshakes_failed_total" "Handshakes of TLS that failed.";
    counter FORBIDDEN "tandem_forbidden_total" "Requests refused because there was no permission for them.";
    counter LOGINS_FAILED "tandem_logins_failed_total" "Logins with a wrong secret or proof, or of an unknown user.";
    counter LOGINS_REFUSED "tandem_logins_refused_total" "Logins that were not judged, because too many failed before.";
    counter VIOLATIONS "tandem_violations_total" "Connections closed because their peer broke its protocol.";
    counter PUBLICATIONS "tandem_publications_total" "Messages published to topics.";
    counter EVENTS "tandem_events_total" "Messages put into the mailboxes of subscribers.";
    counter EVENTS_DROPPED "tandem_events_dropped_total" "Messages that a full mailbox did not take.";
    counter NOTICES_DROPPED "tandem_meta_events_dropped_total" "Changes of a realm that its meta API was too busy to tell of.";
    counter SLOW_CONSUMERS "tandem_slow_consumers_total" "Sessions closed because their mailbox was full.";
    counter PUBLISHERS_PACED "tandem_publishers_paced_total" "Times that a publisher was not read because most of its subscribers did not keep up.";
    counter SUBSCRIBERS_BORNE "tandem_subscribers_waited_for_total" "Times that a publisher was not read for a moment because a subscriber was about to be dropped.";
    counter ENQUEUED "tandem_queue_messages_total" "Messages put into queues.";
    counter STORE_COMMITS "tandem_store_commits_total" "Times that changes were made safe on disk, each with two calls of fsync.";
    counter STORE_MESSAGES "tandem_store_messages_total" "Messages made safe on disk.";
    counter STORE_WAITERS "tandem_store_waiters_total" "Requests that were answered once they were safe on disk.";
    counter STORE_UNREADABLE "tandem_store_unreadable_total" "Stored messages that were found damaged or missing, and put aside.";
    gauge STORE_BYTES "tandem_store_bytes" "Bytes of messages on disk.";
    gauge STORE_NEARLY_FULL "tandem_store_nearly_full" "1 while persistent messages are refused for want of space.";
    gauge STORE_FAILED "tandem_store_failed" "1 once the store failed.";
    counter QUEUE_EXPIRED "tandem_queue_expired_total" "Messages that grew too old in a queue.";
    counter QUEUE_DROPPED "tandem_queue_dropped_total" "Messages that a full queue dropped to make room.";
    counter DEAD_LETTERS_LOST "tandem_dead_letters_lost_total" "Messages that a queue gave up and that found no room elsewhere.";
    counter CALLS "tandem_calls_total" "Calls routed to a callee.";
    counter ENCODINGS "tandem_encodings_total" "Times an encoder ran for a publication, or for several that go together: once per dialect and subscription.";
    counter UNCONVERTIBLE "tandem_unconvertible_total" "Deliveries dropped because the receiver's encoding cannot express them.";
    counter UNDELIVERABLE "tandem_undeliverable_total" "Messages left out because they are longer than their receiver takes.";
    counter COMPRESSIONS "tandem_compressions_total" "Messages compressed.";
    counter WRITES "tandem_writes_total" "System calls that wrote to connections.";
    counter READS "tandem_reads_total" "System calls that read from connections.";
    counter MESSAGES_OUT "tandem_messages_out_total" "Messages written to connections.";
    counter MESSAGES_IN "tandem_messages_in_total" "Messages read from connections.";
}

/// All of them, as Prometheus reads them.
pub fn render() -> String {
    let mut text = String::new();
    for metric in ALL {
        let Metric { name, kind, help, .. } = metric;
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", metric.get());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_add_at_once_is_all_counted() {
        static NUMBER: Metric = Metric::counter("number", "A number.");
        let threads: Vec<_> =
            (0..2 * PARTS).map(|_| std::thread::spawn(|| (0..10_000).for_each(|_| NUMBER.add(1)))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(NUMBER.get(), 2 * PARTS as i64 * 10_000);
    }
}

//! A sample of `tandem top` as lines of text.

use serde_json::{Map, Value};

use crate::cli::output::shown;
use crate::cli::sample::{Offers, RATES, Sample};

const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// The longest name that is shown whole.
const NAME_CHARS_MAX: usize = 48;

/// What is shown of a sample.
pub(super) fn lines(sample: &Sample, rows: usize, colours: bool) -> Vec<String> {
    let mut page = Page { lines: Vec::new(), colours };
    let reading = &sample.reading;
    let number = |count: Option<i64>| count.map_or("-".to_owned(), |count| count.to_string());
    page.head(&format!("tandem top - {}", sample.url));
    let connections = number(sample.metric("tandem_connections"));
    let memory = sample.metric("tandem_memory_bytes").filter(|bytes| *bytes > 0);
    let memory =
        memory.map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
    let sessions = number(reading.sessions.and_then(|count| i64::try_from(count).ok()));
    page.say(format!("connections {connections}   sessions of the realm {sessions}   memory {memory}"));
    match &reading.metrics {
        None => page.say("rates: Tandem shows its counters to its own machine, in the clear".to_owned()),
        Some(_) => {
            let rate =
                |name: &str| format!("{name} {:.1}/s", sample.rates.get(name).copied().unwrap_or_default());
            page.say(RATES.map(|(name, _)| rate(name)).join("   ").replace('_', " "));
        }
    }
    page.queues(reading.queues.as_deref(), rows);
    page.waiting(reading.waiting.as_deref(), rows, sample.metric("tandem_slow_consumers_total"));
    page.offers("topics", "subscribers", reading.topics.as_ref(), rows);
    page.offers("procedures", "callees", reading.procedures.as_ref(), rows);
    page.lines
}

/// A line as far as it fits; escapes take no room.
pub(super) fn cut(line: &str, columns: usize) -> String {
    let (mut text, mut width, mut escape) = (String::new(), 0, false);
    for c in line.chars() {
        match (escape, c) {
            (true, c) => escape = c != 'm',
            (false, '\x1b') => escape = true,
            (false, _) if width == columns => return text,
            (false, _) => width += 1,
        }
        text.push(c);
    }
    text
}

struct Page {
    lines: Vec<String>,
    colours: bool,
}

impl Page {
    fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    fn head(&mut self, line: &str) {
        let (bold, reset) = if self.colours { (BOLD, RESET) } else { ("", "") };
        self.say(format!("{bold}{line}{reset}"));
    }

    /// A table of names and numbers: none at all where nothing is known.
    fn table(&mut self, title: &str, columns: &[&str], rows: Vec<(String, Vec<String>)>) {
        self.say(String::new());
        let head: String = columns.iter().map(|column| format!(" {column:>14}")).collect();
        self.head(&format!("{title:<width$}{head}", width = NAME_CHARS_MAX));
        if rows.is_empty() {
            self.say("  none".to_owned());
        }
        for (name, numbers) in rows {
            let numbers: String = numbers.iter().map(|number| format!(" {number:>14}")).collect();
            self.say(format!("{:<width$}{numbers}", abridged(&name), width = NAME_CHARS_MAX));
        }
    }

    fn queues(&mut self, queues: Option<&[Map<String, Value>]>, rows: usize) {
        let Some(queues) = queues else { return };
        let columns = ["messages", "unacknowledged", "consumers", "in_per_s", "out_per_s"];
        let row =
            |queue: &Map<String, Value>| (text(queue, "queue"), columns.map(|key| text(queue, key)).to_vec());
        let table = queues.iter().take(rows).map(row).collect();
        self.table(
            "QUEUES, the deepest first",
            &["messages", "unacknowledged", "consumers", "in/s", "out/s"],
            table,
        );
    }

    fn waiting(&mut self, waiting: Option<&[Map<String, Value>]>, rows: usize, ended: Option<i64>) {
        let Some(waiting) = waiting else { return };
        let row = |session: &Map<String, Value>| {
            let name = format!("{} {}", text(session, "session"), text(session, "authid"));
            (name, vec![text(session, "waiting_bytes"), text(session, "protocol")])
        };
        let table = waiting.iter().take(rows).map(row).collect();
        let ended = ended.map_or(String::new(), |ended| format!(" ({ended} were ended)"));
        self.table(&format!("SLOW CONSUMERS{ended}"), &["waiting bytes", "protocol"], table);
    }

    fn offers(&mut self, noun: &str, members: &str, offers: Option<&Offers>, rows: usize) {
        let Some(offers) = offers else { return };
        let row = |offer: &crate::cli::sample::Offer| {
            (offer.uri.clone(), vec![offer.members.to_string(), offer.policy.clone()])
        };
        let table = offers.some.iter().take(rows).map(row).collect();
        self.table(&format!("{} {}", offers.count, noun.to_uppercase()), &[members, "match"], table);
    }
}

fn text(row: &Map<String, Value>, key: &str) -> String {
    match row.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "-".to_owned(),
    }
}

/// A name as a terminal may have it, in the room that there is.
fn abridged(name: &str) -> String {
    let name = shown(name.as_bytes()).replace(['\n', '\t'], " ");
    if name.chars().count() <= NAME_CHARS_MAX {
        return name;
    }
    let kept: String = name.chars().take(NAME_CHARS_MAX - 1).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_the_terminal_ends_and_escapes_take_no_room() {
        assert_eq!(cut("abcdef", 4), "abcd");
        assert_eq!(cut("\x1b[1mab\x1b[0mcd", 3), "\x1b[1mab\x1b[0mc");
    }

    #[test]
    fn a_long_name_says_that_it_is_longer() {
        let name = "x".repeat(100);
        assert_eq!(abridged(&name).chars().count(), NAME_CHARS_MAX);
        assert!(abridged(&name).ends_with('…'));
        assert_eq!(abridged("a\x1b[2J"), "a\\u{1b}[2J");
    }
}

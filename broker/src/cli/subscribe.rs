//! `tandem sub`: what is said on a topic, as it is said.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use tandem_client::{Gap, stomp, wamp};
use tokio::time::timeout;

use crate::cli::carried;
use crate::cli::choices::Language;
use crate::cli::connection::{Connection, seconds};
use crate::cli::content;
use crate::cli::failure::{Code, Failure};
use crate::cli::output::Output;
use crate::cli::publish::destination;
use crate::cli::runner::{self, Ending};

const EXAMPLES: &str = "\
Examples:
  tandem sub com.example.price
  tandem sub com.example.              # all that begins so
  tandem sub com.example..temperature  # of any one between the dots
  tandem sub com.example.order --count 1 --timeout 30 --json | jq .args
  tandem sub '/topic/news.*' --language stomp";

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Subscribe {
    /// The topic. In WAMP, what ends with a dot is a prefix, and what has nothing between two dots a wildcard,
    /// unless --match says otherwise. In STOMP, a destination; without a slash before it, one below /topic/.
    topic: String,
    /// How the topic is meant, in WAMP.
    #[arg(long = "match", value_enum, value_name = "MATCH")]
    policy: Option<Match>,
    /// What the broker kept of the topic comes first.
    #[arg(long)]
    retained: bool,
    /// End after so many events.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End when nothing came for so many seconds: with 5, unless there is no --count and something came before.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// An option of SUBSCRIBE; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = content::option)]
    option: Vec<(String, wamp::Value)>,
    /// A header of SUBSCRIBE; may be repeated.
    #[arg(long, value_name = "NAME:VALUE", value_parser = content::header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// How a name is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Match {
    /// It is the name.
    Exact,
    /// All that begins so.
    Prefix,
    /// All of these components, of which those that are empty may be anything.
    Wildcard,
}

impl Match {
    /// How a name is meant that looks so: no name of its own has empty components.
    pub(super) fn of(name: &str) -> Match {
        match name {
            name if name.starts_with('.') || name.contains("..") => Match::Wildcard,
            name if name.ends_with('.') || name.is_empty() => Match::Prefix,
            _ => Match::Exact,
        }
    }
}

impl From<Match> for wamp::MatchPolicy {
    fn from(policy: Match) -> wamp::MatchPolicy {
        match policy {
            Match::Exact => wamp::MatchPolicy::Exact,
            Match::Prefix => wamp::MatchPolicy::Prefix,
            Match::Wildcard => wamp::MatchPolicy::Wildcard,
        }
    }
}

/// How much is wanted, and until when: of events and of messages.
pub(super) struct Wanted {
    count: Option<u64>,
    timeout: Option<Duration>,
    came: u64,
}

impl Wanted {
    pub(super) fn new(count: Option<u64>, timeout: Option<Duration>) -> Wanted {
        Wanted { count, timeout, came: 0 }
    }

    /// The next item, if another one is wanted. What does not come in time is an error, unless any number was enough.
    pub(super) async fn next<T>(
        &mut self,
        next: impl Future<Output = Option<T>>,
    ) -> Result<Option<T>, Failure> {
        if self.count.is_some_and(|count| self.came >= count) {
            return Ok(None);
        }
        let item = match self.timeout {
            None => next.await,
            Some(limit) => match timeout(limit, next).await {
                Ok(item) => item,
                Err(_) if self.count.is_none() && self.came > 0 => return Ok(None),
                Err(_) => {
                    let why = format!("nothing came for {} s", limit.as_secs_f64());
                    return Err(Failure::new(Code::Timeout, why));
                }
            },
        };
        // A stream ends by itself only where the client has ended.
        let item = item.ok_or_else(|| Failure::new(Code::Lost, "the session ended"))?;
        self.came += 1;
        Ok(Some(item))
    }

    /// What came last was nothing.
    pub(super) fn forget(&mut self) {
        self.came = self.came.saturating_sub(1);
    }
}

/// What is missing before an event, for a line of JSON; and a remark about it.
pub(super) fn gap(output: Output, gap: Option<Gap>, more: &mut Map<String, Value>) {
    let Some(Gap { dropped, reconnected }) = gap else { return };
    more.insert("gap".to_owned(), json!({"dropped": dropped, "reconnected": reconnected}));
    if dropped > 0 {
        output.remark(&format!("{dropped} are missing before this: they came faster than they were read"));
    }
    if reconnected {
        output.remark("some may be missing before this: the connection was lost");
    }
}

impl Subscribe {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        match settings.language(Language::Wamp) {
            Language::Wamp => {
                let work = async |client: &wamp::Client| self.wamp(client).await;
                runner::wamp(&settings, self.output, Ending::Endless, work).await
            }
            Language::Stomp => {
                let work = async |client: &stomp::Client| self.stomp(client).await;
                runner::stomp(&settings, self.output, Ending::Endless, work).await
            }
        }
    }

    async fn wamp(&self, client: &wamp::Client) -> Result<(), Failure> {
        let policy = self.policy.unwrap_or_else(|| Match::of(&self.topic));
        let mut subscribe = client.subscribe::<wamp::Raw>(&self.topic).matching(policy.into());
        if self.retained {
            subscribe = subscribe.get_retained();
        }
        for (name, value) in &self.option {
            subscribe = subscribe.option(name, value.clone());
        }
        let mut events = subscribe.await?;
        self.output.remark(&format!("subscribed to {}", self.topic));
        let mut wanted = Wanted::new(self.count, self.timeout);
        while let Some(event) = wanted.next(events.next()).await? {
            let event = event?;
            let mut more = Map::new();
            gap(self.output, event.gap, &mut more);
            more.insert("topic".to_owned(), (*event.topic).into());
            more.insert("publication".to_owned(), event.publication.get().into());
            more.insert("publisher".to_owned(), event.publisher.map(wamp::Id::get).into());
            more.insert("publisher_authid".to_owned(), event.publisher_authid().into());
            more.insert("retained".to_owned(), event.retained.into());
            let name = (policy != Match::Exact).then_some(&*event.topic);
            self.output.arguments("event", name, carried::arguments(&event.payload.payload), more)?;
        }
        events.unsubscribe().await.map_err(Failure::from)
    }

    async fn stomp(&self, client: &stomp::Client) -> Result<(), Failure> {
        let destination = destination("topic", &self.topic);
        let mut subscribe = client.subscribe(&destination);
        for (name, value) in &self.header {
            subscribe = subscribe.header(name, value);
        }
        if self.retained {
            subscribe = subscribe.header("x-get-retained", "true");
        }
        let mut messages = subscribe.await?;
        self.output.remark(&format!("subscribed to {destination}"));
        let mut wanted = Wanted::new(self.count, self.timeout);
        while let Some(message) = wanted.next(messages.next()).await? {
            let message = message?;
            let mut more = Map::new();
            gap(self.output, message.gap, &mut more);
            let name = (message.destination() != destination).then_some(message.destination());
            self.output.message(name, message.headers(), message.body(), more)?;
        }
        messages.unsubscribe().await.map_err(Failure::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_known_by_its_empty_components() {
        assert_eq!(Match::of("com.example.price"), Match::Exact);
        assert_eq!(Match::of("com.example."), Match::Prefix);
        assert_eq!(Match::of("com..price"), Match::Wildcard);
        assert_eq!(Match::of("com..price."), Match::Wildcard);
        assert_eq!(Match::of(".example"), Match::Wildcard);
    }
}

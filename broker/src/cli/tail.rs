//! `tandem tail`: what goes by at several places, without taking any of it.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::select_all;
use serde_json::Map;
use tandem_client::stomp;

use crate::cli::choices::Language;
use crate::cli::connection::{Connection, seconds};
use crate::cli::content;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::publish::destination;
use crate::cli::runner::{self, Ending};
use crate::cli::subscribe::{Wanted, gap};

const EXAMPLES: &str = "\
Examples:
  tandem tail news                          # a topic
  tandem tail /queue/orders                 # what waits there, and what comes
  tandem tail '/topic/news.*' /queue/orders /queue/dlq.orders --json
  tandem tail /queue/orders --timeout 1     # what waits there, and no more

It speaks STOMP. Queues are browsed, which takes nothing from them; of brokers that cannot be browsed only topics are
followed. With --language wamp, use `tandem sub`.";

/// Brokers, as they call themselves, whose queues can be looked at without taking anything.
const BROWSABLE: [&str; 2] = ["tandem/", "activemq/"];

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tail {
    /// Topics and queues: destinations; without a slash before it, one below /topic/.
    #[arg(required = true)]
    destination: Vec<String>,
    /// End after so many messages.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End when nothing came for so many seconds: with 5, unless there is no --count and something came before.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// A header of SUBSCRIBE; may be repeated.
    #[arg(long, value_name = "NAME:VALUE", value_parser = content::header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// Whether what is read there is gone for others.
fn is_queue(destination: &str) -> bool {
    !destination.starts_with("/topic/") && !destination.starts_with("/exchange/")
}

impl Tail {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        if settings.language(Language::Stomp) == Language::Wamp {
            return Err(Failure::usage("tail speaks STOMP: with WAMP, `tandem sub` follows topics"));
        }
        let work = async |client: &stomp::Client| self.follow(client).await;
        runner::stomp(&settings, self.output, Ending::Endless, work).await
    }

    async fn follow(&self, client: &stomp::Client) -> Result<(), Failure> {
        // What the server calls itself is known once it has answered something.
        client.begin().await?.abort().await?;
        let server = client.connected().get("server").unwrap_or_default().to_ascii_lowercase();
        let can_browse = BROWSABLE.iter().any(|name| server.starts_with(name));
        let mut streams = Vec::new();
        for name in &self.destination {
            let destination = destination("topic", name);
            let mut subscribe = client.subscribe(&destination);
            for (name, value) in &self.header {
                subscribe = subscribe.header(name, value);
            }
            if is_queue(&destination) {
                if !can_browse {
                    let why = format!(
                        "{destination}: to read it here would take its messages; use `tandem consume`"
                    );
                    return Err(Failure::usage(why));
                }
                subscribe = subscribe.header("browser", "true").header("browser-end", "false");
            }
            streams.push(subscribe.await?);
            self.output.remark(&format!("following {destination}"));
        }
        let mut messages = select_all(streams);
        let mut wanted = Wanted::new(self.count, self.timeout);
        while let Some(message) = wanted.next(messages.next()).await? {
            let message = message?;
            // A mark of ActiveMQ: all that waited has come.
            if message.header("browser") == Some("end") {
                wanted.forget();
                continue;
            }
            let mut more = Map::new();
            gap(self.output, message.gap, &mut more);
            self.output.message(Some(message.destination()), message.headers(), message.body(), more)?;
        }
        Ok(())
    }
}

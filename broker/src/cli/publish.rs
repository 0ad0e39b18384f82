//! `tandem pub`: says something on a topic.

use serde_json::{Map, Value, json};
use tandem_client::{stomp, wamp};

use crate::cli::choices::Language;
use crate::cli::connection::Connection;
use crate::cli::content::{self, Keywords, Payload, Reading};
use crate::cli::failure::Failure;
use crate::cli::lines::Lines;
use crate::cli::output::Output;
use crate::cli::runner::{self, Ending};

const EXAMPLES: &str = "\
Examples:
  tandem pub com.example.price 1.07
  tandem pub com.example.price '{\"EUR\": 1.07}' -k at=noon
  tandem pub com.example.photo @photo.jpg
  tail -f access.log | tandem pub com.example.log --lines --raw
  tandem pub /topic/news 'Hello' --language stomp --url tcp://rabbit:61613";

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Publish {
    /// The topic. In STOMP, a destination; without a slash before it, one below /topic/.
    topic: String,
    /// Positional arguments: JSON or text; @FILE, or - for standard input. In STOMP, no more than one.
    #[arg(allow_negative_numbers = true)]
    payload: Vec<String>,
    #[command(flatten)]
    keywords: Keywords,
    #[command(flatten)]
    reading: Reading,
    /// The broker keeps it for those who subscribe later.
    #[arg(long)]
    retain: bool,
    /// Do not wait until the broker says that it has it.
    #[arg(long)]
    unacknowledged: bool,
    /// An option of PUBLISH; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = content::option)]
    option: Vec<(String, wamp::Value)>,
    /// A header of SEND; may be repeated.
    #[arg(long, value_name = "NAME:VALUE", value_parser = content::header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// A name as a destination of STOMP.
pub(super) fn destination(place: &str, name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/{place}/{name}") }
}

impl Publish {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        if self.reading.lines && !self.payload.is_empty() {
            return Err(Failure::usage("with --lines payloads come from standard input alone"));
        }
        match settings.language(Language::Wamp) {
            Language::Wamp => {
                let kwargs = self.keywords.read(&self.reading)?;
                let payload = self.payload()?;
                let work = async |client: &wamp::Client| self.wamp(client, payload, &kwargs).await;
                runner::wamp(&settings, self.output, Ending::Whole, work).await
            }
            Language::Stomp => {
                let mut payload = self.payload()?;
                if payload.len() > 1 || !self.keywords.read(&self.reading)?.is_empty() {
                    return Err(Failure::usage("a message of STOMP has one body"));
                }
                let payload = payload.pop();
                let work = async |client: &stomp::Client| self.stomp(client, payload).await;
                runner::stomp(&settings, self.output, Ending::Whole, work).await
            }
        }
    }

    fn payload(&self) -> Result<Vec<Payload>, Failure> {
        self.payload.iter().map(|word| Payload::read(word, &self.reading)).collect()
    }

    async fn wamp(
        &self,
        client: &wamp::Client,
        payload: Vec<Payload>,
        kwargs: &Map<String, Value>,
    ) -> Result<(), Failure> {
        if !self.reading.lines {
            return self.publish(client, &payload, kwargs).await;
        }
        let (mut lines, mut count) = (Lines::of_stdin(), 0_u64);
        while let Some(line) = lines.next().await? {
            self.publish(client, &[Payload::new(line, &self.reading)], kwargs).await?;
            count += 1;
            self.output.progress(&format!("{count} published"));
        }
        self.output.remark(&format!("{count} published"));
        Ok(())
    }

    async fn publish(
        &self,
        client: &wamp::Client,
        args: &[Payload],
        kwargs: &Map<String, Value>,
    ) -> Result<(), Failure> {
        let mut publication = client.publish(&self.topic).args(args).kwargs(kwargs);
        if self.retain {
            publication = publication.retain();
        }
        for (name, value) in &self.option {
            publication = publication.option(name, value.clone());
        }
        if !self.unacknowledged {
            publication = publication.acknowledge();
        }
        let publication = publication.await?;
        let id = publication.map(wamp::Id::get);
        self.output.object(&json!({"kind": "published", "topic": self.topic, "publication": id}))
    }

    async fn stomp(&self, client: &stomp::Client, payload: Option<Payload>) -> Result<(), Failure> {
        if !self.reading.lines {
            let payload = payload.unwrap_or_else(|| Payload::new(Vec::new(), &self.reading));
            return self.send(client, payload).await;
        }
        let (mut lines, mut count) = (Lines::of_stdin(), 0_u64);
        while let Some(line) = lines.next().await? {
            self.send(client, Payload::new(line, &self.reading)).await?;
            count += 1;
            self.output.progress(&format!("{count} published"));
        }
        self.output.remark(&format!("{count} published"));
        Ok(())
    }

    async fn send(&self, client: &stomp::Client, payload: Payload) -> Result<(), Failure> {
        let destination = destination("topic", &self.topic);
        let kind = payload.content_type(&self.reading).to_owned();
        let mut sending = client.send(&destination).bytes(&kind, payload.into_bytes());
        for (name, value) in &self.header {
            sending = sending.header(name, value);
        }
        if self.retain {
            sending = sending.header("retain", "set");
        }
        if self.unacknowledged {
            sending.await?;
        } else {
            sending.receipt().await?;
        }
        self.output.object(&json!({"kind": "published", "destination": destination}))
    }
}

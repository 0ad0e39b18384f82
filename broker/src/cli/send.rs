//! `tandem send`: puts messages into a queue, or sends them to any destination.

use std::collections::VecDeque;

use serde_json::json;
use tandem_client::stomp::{self, Receipt};
use tandem_client::wamp;

use crate::cli::choices::Language;
use crate::cli::connection::Connection;
use crate::cli::content::{self, Payload, Reading};
use crate::cli::failure::Failure;
use crate::cli::lines::Lines;
use crate::cli::output::Output;
use crate::cli::publish::destination;
use crate::cli::runner::{self, Ending};

/// Messages of `--lines` whose receipts are awaited at once.
const RECEIPTS_MAX: usize = 64;

const EXAMPLES: &str = "\
Examples:
  tandem send orders '{\"number\": 1}' --persistent
  tandem send orders @order.json --header x-delay:5000
  tandem send orders --lines --persistent < orders.jsonl
  tandem send /topic/news Hello
  tandem send orders 1 --url tcp://rabbit:61613 --user guest";

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Send {
    /// A queue; or a destination, which begins with a slash.
    queue: String,
    /// The message: JSON or text; @FILE, or - for standard input. Without it, an empty one.
    #[arg(allow_negative_numbers = true)]
    payload: Option<String>,
    #[command(flatten)]
    reading: Reading,
    /// The broker keeps it on disk, and confirms it when it is there.
    #[arg(long)]
    persistent: bool,
    /// The higher, the earlier it is delivered.
    #[arg(long)]
    priority: Option<u8>,
    /// Do not wait until the broker says that it has it.
    #[arg(long)]
    no_receipt: bool,
    /// A header of SEND; may be repeated.
    #[arg(long, value_name = "NAME:VALUE", value_parser = content::header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Send {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        let payload = match (&self.payload, self.reading.lines) {
            (Some(_), true) => {
                return Err(Failure::usage("with --lines messages come from standard input alone"));
            }
            (Some(word), false) => Some(Payload::read(word, &self.reading)?),
            (None, true) => None,
            (None, false) => Some(Payload::new(Vec::new(), &Reading { raw: true, ..self.reading.clone() })),
        };
        match settings.language(Language::Stomp) {
            Language::Stomp => {
                let work = async |client: &stomp::Client| match payload {
                    Some(payload) => self.one(client, payload).await,
                    None => self.lines(client).await,
                };
                runner::stomp(&settings, self.output, Ending::Whole, work).await
            }
            Language::Wamp => {
                let work = async |client: &wamp::Client| self.wamp(client, payload).await;
                runner::wamp(&settings, self.output, Ending::Whole, work).await
            }
        }
    }

    fn sending(&self, client: &stomp::Client, payload: Payload) -> stomp::Sending {
        let kind = payload.content_type(&self.reading).to_owned();
        let mut sending = client.send(&destination("queue", &self.queue)).bytes(&kind, payload.into_bytes());
        if self.persistent {
            sending = sending.persistent();
        }
        if let Some(priority) = self.priority {
            sending = sending.priority(priority);
        }
        for (name, value) in &self.header {
            sending = sending.header(name, value);
        }
        sending
    }

    async fn one(&self, client: &stomp::Client, payload: Payload) -> Result<(), Failure> {
        let sending = self.sending(client, payload);
        if self.no_receipt {
            sending.await?;
        } else {
            sending.receipt().await?;
        }
        self.sent(1)
    }

    async fn lines(&self, client: &stomp::Client) -> Result<(), Failure> {
        let (mut lines, mut receipts) = (Lines::of_stdin(), VecDeque::<Receipt>::new());
        let mut count = 0_u64;
        while let Some(line) = lines.next().await? {
            let sending = self.sending(client, Payload::new(line, &self.reading));
            if self.no_receipt {
                sending.await?;
                count += 1;
            } else {
                receipts.push_back(sending.receipt().enqueue().await?);
            }
            if receipts.len() >= RECEIPTS_MAX
                && let Some(oldest) = receipts.pop_front()
            {
                oldest.await.map_err(|error| self.after(count, error))?;
                count += 1;
            }
            self.output.progress(&format!("{count} sent"));
        }
        for receipt in receipts {
            receipt.await.map_err(|error| self.after(count, error))?;
            count += 1;
        }
        self.sent(count)
    }

    /// What went wrong, and how many are safe.
    fn after(&self, count: u64, error: tandem_client::Error) -> Failure {
        self.output.remark(&format!("{count} were sent before"));
        error.into()
    }

    /// To a queue of Tandem, by its procedure.
    async fn wamp(&self, client: &wamp::Client, payload: Option<Payload>) -> Result<(), Failure> {
        if self.queue.starts_with('/') {
            return Err(Failure::usage(
                "over WAMP messages go to queues of Tandem, which are names without a slash",
            ));
        }
        if let Some(payload) = payload {
            self.call(client, &payload).await?;
            return self.sent(1);
        }
        let (mut lines, mut count) = (Lines::of_stdin(), 0_u64);
        while let Some(line) = lines.next().await? {
            self.call(client, &Payload::new(line, &self.reading)).await?;
            count += 1;
            self.output.progress(&format!("{count} sent"));
        }
        self.sent(count)
    }

    async fn call(&self, client: &wamp::Client, payload: &Payload) -> Result<(), Failure> {
        let mut headers = wamp::Dict::new();
        for (name, value) in &self.header {
            headers.insert(name, value.as_str());
        }
        if let Some(priority) = self.priority {
            headers.insert("priority", priority.to_string());
        }
        let mut call = client.call::<()>("tandem.queue.send").args((&self.queue, payload));
        if !headers.is_empty() {
            call = call.option("x_headers", headers);
        }
        if self.persistent {
            call = call.option("persistent", true);
        }
        Ok(call.await?)
    }

    fn sent(&self, count: u64) -> Result<(), Failure> {
        if self.reading.lines {
            self.output.remark(&format!("{count} sent"));
        }
        self.output.object(&json!({
            "kind": "sent", "destination": self.queue, "count": count, "confirmed": !self.no_receipt,
        }))
    }
}

//! `tandem consume`: takes messages of a queue, and acknowledges what was dealt with.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use tandem_client::stomp::{self, Delivery, Mode};
use tandem_client::wamp;
use tokio::time::sleep;

use crate::cli::carried;
use crate::cli::choices::Language;
use crate::cli::command::{self, Speech};
use crate::cli::connection::{Connection, seconds};
use crate::cli::content;
use crate::cli::failure::{Code, Failure};
use crate::cli::output::Output;
use crate::cli::publish::destination;
use crate::cli::runner::{self, Ending};
use crate::cli::subscribe::{Wanted, gap};

/// How long a command that fails again and again is left alone, at most.
const PAUSE_MAX: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  tandem consume orders --exec ./work.sh          # a durable worker
  tandem consume orders --count 1 --timeout 5 --json | jq .body
  tandem consume orders --selector \"country = 'DE'\"
  tandem consume orders --url tcp://rabbit:61613 --user guest

The command reads the message from standard input; TANDEM_DESTINATION, TANDEM_MESSAGE_ID, TANDEM_CONTENT_TYPE,
TANDEM_REDELIVERED (true or false) and TANDEM_HEADERS (an object of JSON) say the rest. With exit code 0 it has dealt with
it; with any other the message is given back, to be delivered again as the queue will have it. A command that the shell
cannot run (126, 127) ends this with 2.";

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Consume {
    /// A queue; or a destination, which begins with a slash.
    queue: String,
    /// Run this command of the shell for each message: where it ends well the message is acknowledged, else given back.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// What a command could not deal with is rejected for good, instead of given back.
    #[arg(long, requires = "exec")]
    reject: bool,
    /// End after so many messages: with 1 if a command failed.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End when nothing came for so many seconds: with 5, unless there is no --count and something came before.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Messages that the broker may deliver ahead. By default 1.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    prefetch: Option<u16>,
    /// Only the messages that this selects.
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// A header of SUBSCRIBE; may be repeated.
    #[arg(long, value_name = "NAME:VALUE", value_parser = content::header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    GivenBack,
}

/// How commands fare.
#[derive(Default)]
struct Record {
    failed: u64,
    in_a_row: u32,
}

impl Record {
    /// A command that cannot work is not asked as fast as it fails: whatever is wrong may go by.
    async fn note(&mut self, verdict: Verdict) {
        if verdict == Verdict::Done {
            self.in_a_row = 0;
            return;
        }
        self.failed += 1;
        let pause = Duration::from_millis(50) * 2_u32.saturating_pow(self.in_a_row.min(16));
        self.in_a_row += 1;
        sleep(pause.min(PAUSE_MAX)).await;
    }

    fn end(&self) -> Result<(), Failure> {
        match self.failed {
            0 => Ok(()),
            failed => Err(Failure::new(Code::Failed, format!("{failed} were not dealt with"))),
        }
    }
}

impl Consume {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        match settings.language(Language::Stomp) {
            Language::Stomp => {
                let work = async |client: &stomp::Client| self.stomp(client).await;
                runner::stomp(&settings, self.output, Ending::Endless, work).await
            }
            Language::Wamp
                if self.selector.is_some() || !self.header.is_empty() || self.prefetch.is_some() =>
            {
                Err(Failure::usage("over WAMP messages are taken one by one, whatever they are"))
            }
            Language::Wamp => {
                let work = async |client: &wamp::Client| self.wamp(client).await;
                runner::wamp(&settings, self.output, Ending::Endless, work).await
            }
        }
    }

    async fn stomp(&self, client: &stomp::Client) -> Result<(), Failure> {
        let destination = destination("queue", &self.queue);
        let mut subscribe = client
            .subscribe(&destination)
            .ack(Mode::ClientIndividual)
            .prefetch(self.prefetch.unwrap_or(1).into());
        if let Some(selector) = &self.selector {
            subscribe = subscribe.selector(selector);
        }
        for (name, value) in &self.header {
            subscribe = subscribe.header(name, value);
        }
        let mut messages = subscribe.await?;
        self.output.remark(&format!("consuming from {destination}"));
        let (mut wanted, mut record) = (Wanted::new(self.count, self.timeout), Record::default());
        while let Some(message) = wanted.next(messages.next()).await? {
            let message = message?;
            let verdict = self.deal_with(&message).await?;
            let settled = match (verdict, self.reject) {
                (Verdict::Done, _) => message.ack().await,
                (Verdict::GivenBack, false) => message.nack().await,
                (Verdict::GivenBack, true) => message.reject().await,
            };
            match settled {
                // The broker delivers it again: a worker is ready for that.
                Err(tandem_client::Error::ConnectionLost) => {
                    self.output
                        .remark("the connection was lost before this was acknowledged: it comes again");
                }
                settled => settled?,
            }
            record.note(verdict).await;
        }
        messages.unsubscribe().await?;
        record.end()
    }

    async fn deal_with(&self, message: &Delivery) -> Result<Verdict, Failure> {
        let mut more = Map::new();
        gap(self.output, message.gap, &mut more);
        if self.exec.is_none() {
            more.insert("redelivered".to_owned(), message.is_redelivered().into());
            self.output.message(None, message.headers(), message.body(), more)?;
            return Ok(Verdict::Done);
        }
        let headers: Map<String, Value> =
            message.headers().unique().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let work = Work {
            input: message.body().to_vec(),
            id: message.message_id().to_owned(),
            destination: message.destination().to_owned(),
            content_type: message.header("content-type").unwrap_or_default().to_owned(),
            is_redelivered: message.is_redelivered(),
            headers,
        };
        self.exec(work).await
    }

    /// Has a command deal with it.
    async fn exec(&self, work: Work) -> Result<Verdict, Failure> {
        let command = self.exec.as_deref().unwrap_or_default();
        let environment = [
            ("TANDEM_DESTINATION", work.destination.clone()),
            ("TANDEM_MESSAGE_ID", work.id.clone()),
            ("TANDEM_CONTENT_TYPE", work.content_type),
            ("TANDEM_REDELIVERED", work.is_redelivered.to_string()),
            ("TANDEM_HEADERS", Value::Object(work.headers).to_string()),
        ];
        // With JSON, our output is ours alone.
        let speech = if self.output.json { Speech::Kept } else { Speech::Passed };
        let outcome = command::run(command, &work.input, &environment, speech).await?;
        // No message is to blame for that, and none would fare better.
        if !outcome.was_found() {
            let ending = outcome.ending();
            let id = work.id;
            return Err(Failure::usage(format!(
                "{ending}: it cannot be run, so nothing is taken; {id} comes again"
            )));
        }
        let verdict = if outcome.is_success() { Verdict::Done } else { Verdict::GivenBack };
        if verdict == Verdict::GivenBack {
            let fate = if self.reject { "rejected" } else { "given back" };
            self.output.remark(&format!("{}: {} is {fate}", outcome.ending(), work.id));
        }
        self.output.object(&json!({
            "kind": "handled", "destination": work.destination, "message_id": work.id,
            "done": verdict == Verdict::Done, "exit": outcome.code(),
            "output": String::from_utf8_lossy(&outcome.answer),
        }))?;
        Ok(verdict)
    }

    /// From a queue of Tandem, by its procedures.
    async fn wamp(&self, client: &wamp::Client) -> Result<(), Failure> {
        if self.queue.starts_with('/') {
            return Err(Failure::usage(
                "over WAMP messages come from queues of Tandem, which are names without a slash",
            ));
        }
        let (mut wanted, mut record) = (Wanted::new(self.count, self.timeout), Record::default());
        self.output.remark(&format!("consuming from {}", self.queue));
        loop {
            let next =
                async { Some(client.call::<wamp::Raw>("tandem.queue.receive").args((&self.queue,)).await) };
            let Some(message) = wanted.next(next).await? else { break };
            let message = match message {
                // It is asked for again over the next connection.
                Err(wamp::Error::ConnectionLost) => {
                    wanted.forget();
                    continue;
                }
                message => message?,
            };
            let (args, _) = carried::arguments(&message.payload);
            let part = |place: usize| args.get(place).cloned().unwrap_or_default();
            let tag = part(0);
            let redeliveries = part(1).as_u64().unwrap_or_default();
            let verdict = match &self.exec {
                None => {
                    let more = json!({"queue": self.queue, "redelivered": redeliveries > 0});
                    let more = more.as_object().cloned().unwrap_or_default();
                    self.output.arguments("message", None, (part(2), part(3)), more)?;
                    Verdict::Done
                }
                Some(_) => {
                    let mut input = json!({"args": part(2), "kwargs": part(3)}).to_string();
                    input.push('\n');
                    let work = Work {
                        input: input.into_bytes(),
                        id: tag.to_string(),
                        destination: self.queue.clone(),
                        content_type: "application/json".to_owned(),
                        is_redelivered: redeliveries > 0,
                        headers: Map::new(),
                    };
                    self.exec(work).await?
                }
            };
            let settled = match verdict {
                Verdict::Done => client.call::<()>("tandem.queue.ack").args((&tag,)).await,
                Verdict::GivenBack => client.call::<()>("tandem.queue.nack").args((&tag, !self.reject)).await,
            };
            match settled {
                Err(wamp::Error::ConnectionLost) => {
                    self.output
                        .remark("the connection was lost before this was acknowledged: it comes again");
                }
                settled => settled?,
            }
            record.note(verdict).await;
        }
        record.end()
    }
}

/// What a command is given.
struct Work {
    input: Vec<u8>,
    id: String,
    destination: String,
    content_type: String,
    is_redelivered: bool,
    headers: Map<String, Value>,
}

//! `tandem call`: calls a procedure, and says what came of it.

use std::time::Duration;

use serde_json::Map;
use tandem_client::wamp::Progress;
use tandem_client::{stomp, wamp};

use crate::cli::carried;
use crate::cli::choices::Language;
use crate::cli::connection::{Connection, seconds};
use crate::cli::content::{self, Keywords, Payload, Reading};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::publish::destination;
use crate::cli::runner::{self, Ending};

const EXAMPLES: &str = "\
Examples:
  tandem call com.example.add 2 3
  tandem call com.example.find '{\"name\": \"alice\"}' -k limit=10 --timeout 5
  tandem call com.example.report --progress --json | jq .args
  tandem call wamp.session.count
  tandem call com.example.add 2 3 --language stomp";

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Call {
    /// The procedure. In STOMP, a destination; without a slash before it, one below /call/.
    procedure: String,
    /// Positional arguments: JSON or text; @FILE, or - for standard input.
    #[arg(allow_negative_numbers = true)]
    payload: Vec<String>,
    #[command(flatten)]
    keywords: Keywords,
    /// Arguments are text or bytes as they are: what looks like JSON is not read as such.
    #[arg(long)]
    raw: bool,
    /// Write partial results as they come.
    #[arg(long)]
    progress: bool,
    /// Seconds to wait for the result: then the call is cancelled, and the exit code is 5.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// An option of CALL; may be repeated.
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

impl Call {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        let reading = Reading { raw: self.raw, ..Reading::default() };
        let read = |word: &String| Payload::read(word, &reading);
        let args = self.payload.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let kwargs = self.keywords.read(&reading)?;
        match settings.language(Language::Wamp) {
            Language::Wamp => {
                let work = async |client: &wamp::Client| {
                    let mut call = client.call(&self.procedure).args(&args).kwargs(&kwargs);
                    if let Some(timeout) = self.timeout {
                        call = call.timeout(timeout);
                    }
                    for (name, value) in &self.option {
                        call = call.option(name, value.clone());
                    }
                    self.wamp(call).await
                };
                runner::wamp(&settings, self.output, Ending::Whole, work).await
            }
            Language::Stomp if !kwargs.is_empty() || self.progress => {
                Err(Failure::usage("a call over STOMP has neither keyword arguments nor partial results"))
            }
            Language::Stomp => {
                let work = async |client: &stomp::Client| self.stomp(client, args).await;
                runner::stomp(&settings, self.output, Ending::Whole, work).await
            }
        }
    }

    async fn wamp(&self, call: wamp::Call<wamp::Raw>) -> Result<(), Failure> {
        let say = |kind, raw: &wamp::Raw| {
            let payload = carried::arguments(&raw.payload);
            // Whoever asks for nothing and gets nothing need not read an empty line.
            match (self.output.json, payload.0.as_array().is_some_and(Vec::is_empty), &payload.1) {
                (false, true, kwargs) if kwargs.as_object().is_some_and(Map::is_empty) => Ok(()),
                _ => self.output.arguments(kind, None, payload, Map::new()),
            }
        };
        if !self.progress {
            return say("result", &call.await?);
        }
        let mut results = call.progressive::<wamp::Raw, wamp::Raw>().await?;
        while let Some(result) = results.next().await {
            match result {
                Ok(Progress::Partial(raw)) => say("progress", &raw)?,
                Ok(Progress::Final(raw)) => say("result", &raw)?,
                Err(error @ wamp::Error::Missed(_)) => self.output.remark(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn stomp(&self, client: &stomp::Client, args: Vec<Payload>) -> Result<(), Failure> {
        let mut call = client.call(&destination("call", &self.procedure)).args(&args)?;
        if let Some(timeout) = self.timeout {
            call = call.timeout(timeout);
        }
        for (name, value) in &self.header {
            call = call.header(name, value);
        }
        let answer = call.await?;
        self.output.message(
            None,
            answer.headers(),
            answer.body(),
            Map::from_iter([("kind".to_owned(), "result".into())]),
        )
    }
}

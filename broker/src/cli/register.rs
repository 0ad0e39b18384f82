//! `tandem register`: offers a procedure that a command carries out.

use std::sync::Arc;

use serde_json::{Value, json};
use tandem_client::wamp::{self, ApplicationError, InvocationCtx, Raw};
use tokio::sync::mpsc;

use crate::cli::carried;
use crate::cli::command::{self, Speech};
use crate::cli::connection::Connection;
use crate::cli::content::{self, Payload, Reading};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::runner::{self, Ending};
use crate::cli::subscribe::Match;

/// Calls that were answered and not yet told of.
const TOLD_MAX: usize = 64;

const EXAMPLES: &str = "\
Examples:
  tandem register com.example.add --exec 'jq \".args | add\"'
  tandem register com.example.resize --exec ./resize.sh --concurrency 4 --invoke roundrobin
  tandem register com.example.echo --echo
  tandem register com.example.version --reply '\"1.0\"' --count 1

The command reads {\"procedure\": ..., \"args\": [...], \"kwargs\": {...}} from standard input, as one line. What it
writes is the result: JSON or text. Where it ends with another code than 0, the caller gets wamp.error.runtime_error
with what it said on standard error.";

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("how").required(true))]
pub(super) struct Register {
    /// The procedure. What ends with a dot is a prefix, and what has nothing between two dots a wildcard, unless
    /// --match says otherwise.
    procedure: String,
    /// Run this command of the shell for each call.
    #[arg(long, value_name = "COMMAND", group = "how")]
    exec: Option<String>,
    /// Give back the arguments.
    #[arg(long, group = "how")]
    echo: bool,
    /// Give back this: JSON or text; or @FILE.
    #[arg(long, value_name = "PAYLOAD", group = "how")]
    reply: Option<String>,
    /// What the command writes is text, also where it looks like JSON.
    #[arg(long)]
    raw: bool,
    /// How the name is meant.
    #[arg(long = "match", value_enum, value_name = "MATCH")]
    policy: Option<Match>,
    /// How one of several who offer the procedure is chosen: all of them must say the same.
    #[arg(long, value_enum, value_name = "POLICY")]
    invoke: Option<Invoke>,
    /// Calls that are carried out at once; others wait.
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Take the procedure from whoever has it.
    #[arg(long)]
    force: bool,
    /// End after so many calls.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// An option of REGISTER; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = content::option)]
    option: Vec<(String, wamp::Value)>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// How one of several is chosen.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Invoke {
    /// There is only one.
    Single,
    /// One after the other.
    Roundrobin,
    /// Any.
    Random,
    /// The one that came first.
    First,
    /// The one that came last.
    Last,
}

impl From<Invoke> for wamp::InvokePolicy {
    fn from(policy: Invoke) -> wamp::InvokePolicy {
        match policy {
            Invoke::Single => wamp::InvokePolicy::Single,
            Invoke::Roundrobin => wamp::InvokePolicy::RoundRobin,
            Invoke::Random => wamp::InvokePolicy::Random,
            Invoke::First => wamp::InvokePolicy::First,
            Invoke::Last => wamp::InvokePolicy::Last,
        }
    }
}

/// What is done for each call.
enum Deed {
    Exec { command: String, reading: Reading },
    Echo,
    Reply(Payload),
}

impl Register {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    fn deed(&self) -> Result<Deed, Failure> {
        let reading = Reading { raw: self.raw, ..Reading::default() };
        Ok(match (&self.exec, &self.reply) {
            (Some(command), _) => Deed::Exec { command: command.clone(), reading },
            (None, Some(word)) => Deed::Reply(Payload::read(word, &reading)?),
            (None, None) => Deed::Echo,
        })
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        let deed = self.deed()?;
        let work = async |client: &wamp::Client| self.serve(client, deed).await;
        runner::wamp(&settings, self.output, Ending::Endless, work).await
    }

    async fn serve(&self, client: &wamp::Client, deed: Deed) -> Result<(), Failure> {
        let policy = self.policy.unwrap_or_else(|| Match::of(&self.procedure));
        let mut register =
            client.register(&self.procedure).matching(policy.into()).concurrency(self.concurrency.into());
        if let Some(invoke) = self.invoke {
            register = register.invoke(invoke.into());
        }
        if self.force {
            register = register.force();
        }
        for (name, value) in &self.option {
            register = register.option(name, value.clone());
        }
        let deed = Arc::new(deed);
        let (told, mut calls) = mpsc::channel(TOLD_MAX);
        let mut registration = register
            .handler(move |raw: Raw, ctx: InvocationCtx| {
                let (deed, told) = (deed.clone(), told.clone());
                async move {
                    let result = deed.carry_out(&raw, &ctx).await;
                    let call = Call::new(&raw, &ctx, &result);
                    // Whoever would be told has ended.
                    let _ = told.send(call).await;
                    result
                }
            })
            .await?;
        self.output.remark(&format!("registered {}", self.procedure));
        let mut left = self.count;
        while left != Some(0) {
            tokio::select! {
                Some(call) = calls.recv() => {
                    self.tell(call)?;
                    left = left.map(|left| left - 1);
                }
                why = registration.ended() => return Err(why.into()),
            }
        }
        // The answer goes out before the end: the client finishes what runs.
        registration.unregister().await.map_err(Failure::from)
    }

    fn tell(&self, call: Call) -> Result<(), Failure> {
        if self.output.json {
            return self.output.object(&call.0);
        }
        self.output.remark(&format!(
            "{}: {}",
            call.0["procedure"].as_str().unwrap_or_default(),
            call.0["outcome"].as_str().unwrap_or_default()
        ));
        Ok(())
    }
}

/// What is told of a call.
struct Call(Value);

impl Call {
    fn new(raw: &Raw, ctx: &InvocationCtx, result: &Result<Raw, ApplicationError>) -> Call {
        let (args, kwargs) = carried::arguments(&raw.payload);
        let outcome = match result {
            Ok(_) => "answered".to_owned(),
            Err(error) => error.to_string(),
        };
        Call(json!({
            "kind": "call", "procedure": ctx.procedure(), "args": args, "kwargs": kwargs,
            "caller": ctx.caller().map(wamp::Id::get), "outcome": outcome,
        }))
    }
}

impl Deed {
    async fn carry_out(&self, raw: &Raw, ctx: &InvocationCtx) -> Result<Raw, ApplicationError> {
        let (command, reading) = match self {
            Deed::Echo => return Ok(Raw { details: wamp::Dict::new(), payload: raw.payload.clone() }),
            Deed::Reply(payload) => return Ok(Raw::new(&[payload], &())?),
            Deed::Exec { command, reading } => (command, reading),
        };
        let (args, kwargs) = carried::arguments(&raw.payload);
        let mut input = json!({"procedure": ctx.procedure(), "args": args, "kwargs": kwargs}).to_string();
        input.push('\n');
        let environment = [
            ("TANDEM_PROCEDURE", ctx.procedure().to_owned()),
            ("TANDEM_CALLER", ctx.caller().map(|id| id.get().to_string()).unwrap_or_default()),
            ("TANDEM_CALLER_AUTHID", ctx.caller_authid().unwrap_or_default().to_owned()),
        ];
        let outcome = command::run(command, input.as_bytes(), &environment, Speech::Kept).await;
        let outcome = outcome.map_err(ApplicationError::runtime)?;
        if !outcome.is_success() {
            let said =
                if outcome.complaint.is_empty() { outcome.ending() } else { outcome.complaint.clone() };
            return Err(ApplicationError::runtime(said).kwargs(
                [("exit", outcome.code())].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            ));
        }
        let mut answer = outcome.answer;
        if answer.last() == Some(&b'\n') {
            answer.pop();
        }
        if answer.is_empty() {
            return Ok(Raw::new(&(), &())?);
        }
        Ok(Raw::new(&[Payload::new(answer, reading)], &())?)
    }
}

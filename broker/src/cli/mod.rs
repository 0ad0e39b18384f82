//! The command line: its arguments, and a file for each verb that is more than a few lines.

mod call;
mod carried;
mod choices;
mod command;
mod connection;
mod consume;
mod content;
mod contexts;
mod failure;
mod lines;
mod manual;
mod output;
mod permission;
mod ping;
mod publish;
mod register;
mod runner;
mod sample;
mod screen;
mod send;
mod serve;
mod subscribe;
mod tail;
mod top;

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use tandem_protocols::wamp::auth::cra::CraCredential;
use tandem_protocols::wamp::auth::scram::{Dialect, Kdf, ScramCredential};

use crate::config::Config;
use crate::{server, users};

const EXAMPLES: &str = "\
Examples:
  tandem serve                          # a broker, at ws://127.0.0.1:8080/
  tandem sub com.example.news           # in another shell
  tandem pub com.example.news Hello
  tandem consume orders --exec ./work.sh

Exit codes: 0 done, 1 refused or failed by the other side, 2 wrong command, 3 no connection, 4 login or permission
refused, 5 not in time, 6 connection lost, 130 interrupted.";

/// A message broker that speaks WAMP and STOMP, over WebSocket and plain TCP, in one address space; and a client, for
/// this broker and others.
#[derive(Parser)]
#[command(name = "tandem", version, about, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the broker.
    ///
    /// Without any argument it listens at port 8080 of this machine only, with one realm, realm1, and lets
    /// in whoever connects from this machine.
    #[command(
        after_help = "Examples:\n  tandem serve\n  tandem serve --listen 0.0.0.0:8080 --config tandem.toml"
    )]
    Serve(Serve),
    /// Check a configuration file, and say what is wrong with it.
    #[command(after_help = "Examples:\n  tandem check-config tandem.toml")]
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Permissions of a configuration file.
    #[command(
        after_help = "Examples:\n  tandem permission explain alice publish com.example.news --config tandem.toml"
    )]
    Permission {
        #[command(subcommand)]
        verb: permission::Verb,
    },
    /// Hash a password, read from standard input, for the users of the configuration.
    #[command(
        after_help = "Examples:\n  tandem hash-password < password.txt\n  tandem hash-password --for wampcra < password.txt"
    )]
    HashPassword {
        /// What it is for: a ticket or STOMP's login, or one of WAMP's methods that do not send it.
        #[arg(long = "for", value_enum, default_value_t = Purpose::Password, value_name = "METHOD")]
        purpose: Purpose,
    },
    /// Publish to a topic.
    Pub(publish::Publish),
    /// Subscribe to a topic, and write what comes.
    Sub(subscribe::Subscribe),
    /// Call a procedure, and write its result.
    Call(call::Call),
    /// Offer a procedure, carried out by a command.
    Register(register::Register),
    /// Put messages into a queue, and wait until the broker has them.
    Send(send::Send),
    /// Take messages of a queue, and acknowledge what was dealt with.
    Consume(consume::Consume),
    /// Follow topics and queues, without taking anything.
    Tail(tail::Tail),
    /// Open a session, and measure round trips.
    Ping(ping::Ping),
    /// Watch a broker at work: rates, sessions, topics, procedures, queues, slow consumers.
    Top(top::Top),
    /// Named contexts: which broker, which realm, and who we are there.
    #[command(after_help = contexts::EXAMPLES)]
    Context {
        #[command(subcommand)]
        verb: contexts::Verb,
    },
    /// Write what a shell needs to complete commands.
    Completions(manual::Completions),
    /// Write manual pages into a folder.
    Man(manual::Man),
    /// Load a broker, this one or another, and check what it delivers.
    ///
    /// Ends with 0 where every delivery came once, in order and whole, with 1 where not, with 2 where the command is
    /// wrong, and with 3 where the broker cannot be reached.
    #[command(
        after_help = "Examples:\n  tandem bench fanout --subscribers 100\n  tandem bench queue --url tcp://127.0.0.1:61613 --persistent --json"
    )]
    Bench(tandem_bench::options::Bench),
}

/// What a hash is for: the keys of a user in the configuration.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Purpose {
    /// `password`.
    Password,
    /// `wampcra`.
    Wampcra,
    /// `scram`, as the specification has it.
    WampScram,
    /// `scram`, for clients of autobahn.
    Scram,
}

#[derive(clap::Args)]
struct Serve {
    /// Listen at this address, or at unix: and a path, instead; may be repeated. Port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = Listen::parse)]
    listen: Vec<Listen>,
    /// Read this configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// Where to listen.
#[derive(Clone)]
enum Listen {
    Address(SocketAddr),
    Unix(PathBuf),
}

impl Listen {
    fn parse(text: &str) -> Result<Listen, std::net::AddrParseError> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Listen::Unix(path.into())),
            None => text.parse().map(Listen::Address),
        }
    }
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Serve(arguments) => serve::run(arguments),
        Verb::CheckConfig { file } => check_config(&file),
        Verb::Permission { verb } => return permission::run(verb),
        Verb::HashPassword { purpose } => hash_password(purpose),
        Verb::Bench(bench) => return tandem_bench::run::run(bench),
        Verb::Pub(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Sub(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Call(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Register(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Send(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Consume(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Tail(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Top(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Completions(verb) => return verb.run(Arguments::command()),
        Verb::Man(verb) => return verb.run(Arguments::command()),
        Verb::Ping(verb) => return runner::run(verb.output(), verb.run()),
        Verb::Context { verb } => return contexts::run(verb),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandem: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn check_config(file: &std::path::Path) -> Outcome {
    let config = Config::read(file)?;
    serve::configured_log_filter(&config)?;
    server::check(&config)?;
    say(&format!("{} is fine", file.display()))
}

fn hash_password(purpose: Purpose) -> Outcome {
    let mut password = String::new();
    std::io::stdin().lock().read_line(&mut password)?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("write the password to standard input, as one line".into());
    }
    let scram = |dialect| ScramCredential::derive(dialect, Kdf::argon2id(2, 19 * 1024)?, password, &salt());
    say(&match purpose {
        Purpose::Password => users::hash_password(password)?,
        // As many iterations as browsers do in a moment.
        Purpose::Wampcra => CraCredential::derive_with(password, &salt(), 10_000, 32)?.to_string(),
        Purpose::WampScram => scram(Dialect::WampScram)?.to_string(),
        Purpose::Scram => scram(Dialect::Scram)?.to_string(),
    })
}

fn salt() -> [u8; 16] {
    rand::random()
}

fn say(line: &str) -> Outcome {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

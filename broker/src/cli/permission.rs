//! `tandem permission explain`: which rule decides, without running anything.

use std::path::PathBuf;
use std::process::ExitCode;

use toml::Spanned;

use crate::cli::say;
use crate::config::permissions::{Permission, pattern};
use crate::config::{Config, Match};
use crate::core::access::rules::{Judgement, Rules, Why};
use crate::core::access::{Action, Principal};

/// The exit code for what is refused.
const REFUSED: u8 = 1;
/// For what cannot be told.
const USAGE: u8 = 2;
/// For what an authorizer decides, once somebody asks.
const ASKED: u8 = 3;

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Say whether somebody may do something, and which rule of the configuration decides.
    ///
    /// The exit code is 0 if they may, 1 if not, 2 if the question makes no sense, and 3 if a dynamic authorizer
    /// decides.
    #[command(
        after_help = "Examples:\n  tandem permission explain alice publish com.example.news --config tandem.toml\n  tandem permission explain --role user subscribe com. --match prefix --config tandem.toml"
    )]
    Explain(Explain),
}

#[derive(clap::Args)]
pub(super) struct Explain {
    /// A name of [[users]], or `anonymous` (left out with --role); publish, subscribe, call, register, send or
    /// consume; and the name of a topic, procedure or queue.
    #[arg(num_args = 2..=3, required = true, value_names = ["USER", "ACTION", "NAME"])]
    question: Vec<String>,
    /// Any user of this role.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// The name is a pattern: prefix or wildcard.
    #[arg(long = "match", value_enum, default_value_t = Policy::Exact, value_name = "MATCH")]
    policy: Policy,
    /// In this realm. By default in the first.
    #[arg(long, value_name = "REALM")]
    realm: Option<String>,
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Policy {
    /// A name.
    Exact,
    /// All names that begin so.
    Prefix,
    /// All names of these components, of which those that are empty may be anything; a last `#` is any number more.
    Wildcard,
}

pub(super) fn run(verb: Verb) -> ExitCode {
    let Verb::Explain(arguments) = verb;
    match explain(&arguments).and_then(|(said, code)| say(&said).map(|()| code)) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("tandem: {error}");
            USAGE.into()
        }
    }
}

fn explain(arguments: &Explain) -> Result<(String, u8), Box<dyn std::error::Error>> {
    let config = Config::read(&arguments.config)?;
    config.check()?;
    let (who, action, name) = match (&arguments.question[..], &arguments.role) {
        ([action, name], Some(role)) => (role.clone(), action, name),
        ([user, action, name], None) => (role_of(&config, user)?, action, name),
        ([_, _, _], Some(_)) => return Err("say either a user or --role".into()),
        _ => return Err("say a user, an action and a name".into()),
    };
    let action = Action::from_word(action).ok_or_else(|| {
        format!("{action:?} is no action: there are {}", Action::ALL.map(Action::as_str).join(", "))
    })?;
    let policy = match arguments.policy {
        Policy::Exact => Match::Exact,
        Policy::Prefix => Match::Prefix,
        Policy::Wildcard => Match::Wildcard,
    };
    let pattern = pattern(name, policy).map_err(|why| format!("the name {name:?} {why}"))?;
    let realm = match &arguments.realm {
        Some(realm) if !config.realms().contains(realm) => {
            return Err(format!("there is no realm {realm:?}").into());
        }
        Some(realm) => realm.clone(),
        None => config.realms().remove(0),
    };
    let rules = config.rules(&realm)?;
    let who = Principal::new(who.clone(), who, "explained");
    let (verdict, why, code) = match rules.judge_pattern(&who, action, &pattern) {
        Judgement::Allowed { rule: Some(rule), .. } => {
            ("allowed", written(&config, &rules, rule, arguments), 0)
        }
        Judgement::Allowed { rule: None, .. } if rules.is_open() => {
            ("allowed", format!("realm {realm:?} has no permissions: everybody may do everything"), 0)
        }
        Judgement::Allowed { rule: None, .. } => {
            ("allowed", "whoever knows a queue for answers may send there".into(), 0)
        }
        Judgement::Asked(rule) => ("asked", written(&config, &rules, rule, arguments), ASKED),
        Judgement::Refused(Why::Denied(rule)) => {
            ("refused", written(&config, &rules, rule, arguments), REFUSED)
        }
        Judgement::Refused(Why::Unmentioned) => ("refused", "no permission mentions it".into(), REFUSED),
        Judgement::Refused(Why::Reserved) => {
            ("refused", "the name is reserved, whatever the permissions say".into(), REFUSED)
        }
        Judgement::Refused(Why::Guarded) => {
            let why = "the procedure is for the role admin, unless a permission for it, exact or by a prefix, begins with \"wamp.\"";
            ("refused", why.into(), REFUSED)
        }
    };
    Ok((format!("{verdict}: {why}"), code))
}

fn role_of(config: &Config, user: &str) -> Result<String, String> {
    if user == "anonymous" {
        return Ok("anonymous".into());
    }
    let known = config.users.iter().find(|known| known.name == *user);
    known
        .map(|known| known.role.clone())
        .ok_or_else(|| format!("there is no user {user:?}; a role is said by --role"))
}

/// A rule as it is in the file.
fn written(config: &Config, rules: &Rules, place: usize, arguments: &Explain) -> String {
    let number = rules.get(place).map_or(0, |rule| rule.number);
    let permission =
        number.checked_sub(1).and_then(|place| config.permissions.get(place)).map(Spanned::get_ref);
    let permission = permission.map(Permission::to_string).unwrap_or_default();
    // The file was read a moment ago.
    let text = std::fs::read_to_string(&arguments.config).unwrap_or_default();
    let line = config.line_of_permission(number, &text).unwrap_or_default();
    format!("by permission {number}, at {}:{line}: {permission}", arguments.config.display())
}

//! Named contexts: which broker, which realm, and who we are there, in `$XDG_CONFIG_HOME/tandem/contexts.toml`.
//!
//! ```toml
//! current = "shop"
//!
//! [contexts.shop]
//! url = "wss://broker.example/"
//! realm = "shop"
//! user = "alice"
//! password-file = "/home/alice/.secrets/shop"
//! ```
//!
//! Secrets are not in it, only where they are; it is for its owner alone to read all the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::choices::{Language, Method, Serializer};
use crate::cli::failure::{Code, Failure};
use crate::cli::output::{self, Output};

pub(super) const EXAMPLES: &str = "\
Examples:
  tandem context add local --url ws://127.0.0.1:8080/
  tandem context add shop --url wss://broker.example/ --realm shop --user alice --password-file ~/.secrets/shop
  tandem context use shop
  tandem pub com.example.news Hello --context local

They are in $XDG_CONFIG_HOME/tandem/contexts.toml, with the paths of secrets, and not the secrets.";

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is known by a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Context {
    /// The broker: ws://, wss://, tcp://, tls://, http:// or https:// and HOST:PORT/PATH, or unix:/PATH.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// The realm; for STOMP, the virtual host.
    #[arg(long, value_name = "REALM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) realm: Option<String>,
    /// Who we are.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    /// Our password is the first line of this file.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<PathBuf>,
    /// A token that says who we are is in this file.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// Our private key for cryptosign is in this file: 64 hexadecimal digits.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_file: Option<PathBuf>,
    /// How we log in over WAMP.
    #[arg(long, value_enum, value_name = "METHOD")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth: Option<Method>,
    /// Trust the authorities in this file, beside those of the system.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    /// Our certificate, and those that lead to its authority.
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cert: Option<PathBuf>,
    /// The private key of our certificate.
    #[arg(long, value_name = "FILE", requires = "cert")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cert_key: Option<PathBuf>,
    /// What WAMP messages are written in.
    #[arg(long, value_enum, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serializer: Option<Serializer>,
    /// What is spoken where a verb can be said in both languages.
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) language: Option<Language>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// Where they are.
fn file() -> Result<PathBuf, Failure> {
    let is_said = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = is_said("XDG_CONFIG_HOME").or_else(|| Some(is_said("HOME")?.join(".config")));
    let base =
        base.ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME says where contexts are"))?;
    Ok(base.join("tandem/contexts.toml"))
}

impl Contexts {
    fn read() -> Result<Contexts, Failure> {
        let path = file()?;
        let failed = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
        match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => return Err(failed(&error)),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                return Err(failed(&format_args!("longer than {FILE_BYTES_MAX} bytes")));
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        toml::from_str(&text).map_err(|error| failed(&error))
    }

    /// All or nothing: another process may read it meanwhile.
    fn write(&self) -> Result<(), Failure> {
        let path = file()?;
        let failed =
            |why: &dyn std::fmt::Display| Failure::new(Code::Failed, format!("{}: {why}", path.display()));
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(&error))?;
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
        fs::rename(&new, &path).map_err(|error| failed(&error))
    }

    fn get(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            Failure::usage(format!("there is no context {name:?}; there are: {known}"))
        })
    }

    /// The one of this name, or the one in use. An empty name is none.
    pub(super) fn named(name: Option<&str>) -> Result<Context, Failure> {
        if name == Some("") {
            return Ok(Context::default());
        }
        let all = Contexts::read()?;
        match name.or(all.current.as_deref()) {
            None => Ok(Context::default()),
            Some(name) => all.get(name).cloned(),
        }
    }
}

#[derive(clap::Subcommand)]
pub(super) enum Verb {
    /// Keep a context under a name; one that is there already is replaced.
    #[command(
        after_help = "Examples:\n  tandem context add shop --url wss://broker.example/ --user alice --password-file ~/.secrets/shop"
    )]
    Add {
        /// Its name.
        name: String,
        #[command(flatten)]
        context: Box<Context>,
    },
    /// List all of them; the one in use has a star.
    #[command(after_help = "Examples:\n  tandem context list --json")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Use one from now on, wherever no other is said.
    #[command(after_help = "Examples:\n  tandem context use shop")]
    Use {
        /// Its name; with "" none is used.
        name: String,
    },
    /// Forget one.
    #[command(after_help = "Examples:\n  tandem context remove shop")]
    Remove {
        /// Its name.
        name: String,
    },
    /// Show one: by default the one in use.
    #[command(after_help = "Examples:\n  tandem context show shop")]
    Show {
        /// Its name.
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(verb: Verb) -> ExitCode {
    let output = match &verb {
        Verb::List { output } | Verb::Show { output, .. } => *output,
        _ => Output::default(),
    };
    match carry_out(verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure).into(),
    }
}

fn carry_out(verb: Verb) -> Result<(), Failure> {
    let mut all = Contexts::read()?;
    match verb {
        Verb::Add { name, context } => {
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(Failure::usage("a context has a name, without control characters"));
            }
            let context = context.made_absolute()?;
            context.check()?;
            // The first is the one that is meant.
            if all.contexts.is_empty() {
                all.current = Some(name.clone());
            }
            all.contexts.insert(name, context);
            all.write()
        }
        Verb::List { output } => {
            for (name, context) in &all.contexts {
                let is_current = all.current.as_deref() == Some(name);
                let url = context.url.as_deref().unwrap_or_default();
                if output.json {
                    output.object(&json!({
                        "kind": "context", "name": name, "current": is_current, "url": context.url,
                        "realm": context.realm, "user": context.user,
                    }))?;
                } else {
                    let star = if is_current { "*" } else { " " };
                    output::line(format!("{star} {name} {url}").trim_end().as_bytes())?;
                }
            }
            Ok(())
        }
        Verb::Use { name } => {
            all.current = match name.as_str() {
                "" => None,
                name => all.get(name).map(|_| Some(name.to_owned()))?,
            };
            all.write()
        }
        Verb::Remove { name } => {
            all.get(&name)?;
            all.contexts.remove(&name);
            all.current = all.current.filter(|current| *current != name);
            all.write()
        }
        Verb::Show { name, output } => {
            let name = name.or(all.current.clone());
            let name = name.ok_or_else(|| Failure::usage("no context is in use; say which one"))?;
            let context = all.get(&name)?;
            if output.json {
                let mut object =
                    serde_json::to_value(context).map_err(|error| Failure::usage(error.to_string()))?;
                if let Some(object) = object.as_object_mut() {
                    object.insert("kind".to_owned(), "context".into());
                    object.insert("name".to_owned(), name.into());
                }
                return output.object(&object);
            }
            let text = toml::to_string(context).map_err(|error| Failure::usage(error.to_string()))?;
            output::line(text.trim_end().as_bytes())
        }
    }
}

impl Context {
    /// Paths hold wherever the context is used.
    fn made_absolute(mut self) -> Result<Context, Failure> {
        let files = [
            &mut self.password_file,
            &mut self.token_file,
            &mut self.key_file,
            &mut self.ca,
            &mut self.cert,
            &mut self.cert_key,
        ];
        for file in files.into_iter().flatten() {
            *file = std::path::absolute(&*file)?;
        }
        Ok(self)
    }

    fn check(&self) -> Result<(), Failure> {
        if let Some(url) = &self.url {
            url.parse::<tandem_client::Address>().map_err(|error| Failure::usage(error.to_string()))?;
        }
        Ok(())
    }
}

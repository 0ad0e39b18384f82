//! How every verb finds its broker, and says who we are there.
//!
//! What a flag says counts, then the environment, then the context, then the default. A context's login is for the
//! context's broker: where a flag or the environment names another URL, or another user, it is not used.

use std::fmt;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tandem_client::address::{Address, Place};
use tandem_client::{Backoff, Connector, TlsOptions, stomp, wamp};

use crate::cli::choices::{Language, Method, Serializer};
use crate::cli::contexts::{Context, Contexts};
use crate::cli::failure::Failure;

/// The broker of whoever says nothing else.
const URL: &str = "ws://127.0.0.1:8080/";

/// The longest secret in a file.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Which broker, and who we are.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// The broker: ws://, wss://, tcp://, tls://, http:// or https:// and HOST:PORT/PATH, or unix:/PATH.
    /// By default ws://127.0.0.1:8080/.
    #[arg(long, env = "TANDEM_URL", hide_env_values = true, value_name = "URL")]
    url: Option<String>,
    /// The realm, by default realm1; for STOMP, the virtual host, by default /.
    #[arg(long, env = "TANDEM_REALM", hide_env_values = true, value_name = "REALM")]
    realm: Option<String>,
    /// Who we are. The password is in --password-file or TANDEM_PASSWORD, or is asked for.
    #[arg(long, env = "TANDEM_USER", hide_env_values = true, value_name = "NAME")]
    user: Option<String>,
    /// The password is the first line of this file.
    #[arg(long, env = "TANDEM_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Not here: everybody on this machine can read it.
    #[arg(long, hide = true, value_name = "PASSWORD")]
    password: Option<String>,
    /// A token that says who we are is in this file.
    #[arg(
        long,
        env = "TANDEM_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE",
        conflicts_with = "password_file"
    )]
    token_file: Option<PathBuf>,
    /// The private key for cryptosign is in this file: 64 hexadecimal digits.
    #[arg(long, env = "TANDEM_KEY_FILE", hide_env_values = true, value_name = "FILE", conflicts_with_all = ["password_file", "token_file"])]
    key_file: Option<PathBuf>,
    /// How to log in over WAMP. By default with whatever there is a secret for; a password is shown to the router
    /// only over TLS and on this machine, unless `ticket` is said.
    #[arg(long, value_enum, env = "TANDEM_AUTH", hide_env_values = true, value_name = "METHOD")]
    auth: Option<Method>,
    /// Trust the authorities in this file, beside those of the system.
    #[arg(long, env = "TANDEM_CA", hide_env_values = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate, and those that lead to its authority.
    #[arg(long, env = "TANDEM_CERT", hide_env_values = true, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key of our certificate.
    #[arg(long, env = "TANDEM_CERT_KEY", hide_env_values = true, value_name = "FILE")]
    cert_key: Option<PathBuf>,
    /// What WAMP messages are written in; by default what the router likes best.
    #[arg(long, value_enum, env = "TANDEM_SERIALIZER", hide_env_values = true, value_name = "FORMAT")]
    serializer: Option<Serializer>,
    /// What is spoken, where the verb can be said in both languages.
    #[arg(long, value_enum, env = "TANDEM_LANGUAGE", hide_env_values = true, value_name = "LANGUAGE")]
    language: Option<Language>,
    /// What is not said here or in the environment is said by this context; with "" by none. By default by the
    /// one in use: see `tandem context`.
    #[arg(long, env = "TANDEM_CONTEXT", hide_env_values = true, value_name = "NAME")]
    context: Option<String>,
    /// Seconds to wait for a session.
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    connect_timeout: Duration,
    /// Tell of what the client does, on standard error.
    #[arg(short, long)]
    verbose: bool,
}

/// A number of seconds, as it is typed.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time.as_secs() <= 365 * 24 * 3600 && !time.is_zero() => Ok(time),
        _ => Err("more than 0 seconds, and no more than a year".to_owned()),
    }
}

/// What becomes of a client that loses its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It has failed.
    Once,
    /// It connects again.
    Reconnects,
}

/// A broker, and who we are there, all files read.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) address: Address,
    connector: Connector,
    realm: Option<String>,
    login: Login,
    method: Option<Method>,
    serializer: Option<Serializer>,
    language: Option<Language>,
    timeout: Duration,
}

/// Who we are.
#[derive(Clone)]
enum Login {
    Nobody,
    Password { user: String, password: String },
    Token { user: Option<String>, token: String },
    Key { user: Option<String>, key: Box<wamp::PrivateKey> },
}

/// Without what nobody may see.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Login::Nobody => "Nobody",
            Login::Password { .. } => "Password",
            Login::Token { .. } => "Token",
            Login::Key { .. } => "Key",
        })
    }
}

/// What an empty variable of the environment says is nothing.
fn text(value: &Option<String>) -> Option<String> {
    value.clone().filter(|text| !text.is_empty())
}

fn path(value: &Option<PathBuf>) -> Option<PathBuf> {
    value.clone().filter(|path| !path.as_os_str().is_empty())
}

impl Connection {
    /// All that was said, wherever it was.
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        if self.password.is_some() {
            let why = "a password on the command line can be read by everybody on this machine: write it to a file for \
                       --password-file, set TANDEM_PASSWORD, or leave it out to be asked for it";
            return Err(Failure::usage(why));
        }
        if self.verbose {
            // A second subscriber cannot be, and would not matter.
            let _ = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_writer(std::io::stderr)
                .with_ansi(crate::cli::output::has_colours(&std::io::stderr()))
                .try_init();
        }
        let context = Contexts::named(self.context.as_deref())?;
        let url = text(&self.url).or_else(|| context.url.clone()).unwrap_or_else(|| URL.to_owned());
        let address: Address = url.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let context_address = context.url.as_deref().unwrap_or(URL).parse::<Address>().ok();
        let is_its_broker = context_address.as_ref() == Some(&address);
        let nothing = Context::default();
        let login = self.login(if is_its_broker { &context } else { &nothing })?;
        let tls = self.tls(&context, is_its_broker)?;
        Ok(Settings {
            connector: Connector::new(address.clone()).tls(tls).opening_time(self.connect_timeout),
            address,
            realm: text(&self.realm).or(context.realm),
            login,
            method: self.auth.or(context.auth.filter(|_| is_its_broker)),
            serializer: self.serializer.or(context.serializer),
            language: self.language.or(context.language),
            timeout: self.connect_timeout,
        })
    }

    fn login(&self, context: &Context) -> Result<Login, Failure> {
        let own_user = text(&self.user);
        let is_its_user = own_user.is_none() || own_user == context.user;
        let user = own_user.or_else(|| context.user.clone());
        if self.auth == Some(Method::Anonymous) {
            return Ok(Login::Nobody);
        }
        let asked = (path(&self.key_file), path(&self.token_file), path(&self.password_file));
        let password = std::env::var("TANDEM_PASSWORD").ok().filter(|password| !password.is_empty());
        let is_asked = asked != (None, None, None) || (password.is_some() && user.is_some());
        let (key, token, password_file) = match (is_asked, is_its_user) {
            (false, true) => {
                (context.key_file.clone(), context.token_file.clone(), context.password_file.clone())
            }
            _ => asked,
        };
        if let Some(file) = key {
            let key = secret(&file)?
                .parse()
                .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
            return Ok(Login::Key { user, key: Box::new(key) });
        }
        if let Some(file) = token {
            return Ok(Login::Token { user, token: secret(&file)? });
        }
        let Some(user) = user else {
            return match password_file {
                Some(_) => Err(Failure::usage("a password is somebody's: say whose with --user")),
                None => Ok(Login::Nobody),
            };
        };
        let password = match (password_file, password) {
            (Some(file), _) => secret(&file)?,
            (None, Some(password)) => password,
            (None, None) => ask(&user)?,
        };
        Ok(Login::Password { user, password })
    }

    fn tls(&self, context: &Context, is_its_broker: bool) -> Result<TlsOptions, Failure> {
        let usage = |error: tandem_client::tls::TlsError| Failure::usage(error.to_string());
        let mut tls = TlsOptions::new();
        if let Some(file) = path(&self.ca).or_else(|| context.ca.clone()) {
            tls = tls.authorities_file(file).map_err(usage)?;
        }
        let own = (path(&self.cert), path(&self.cert_key));
        let identity = match own {
            (None, None) if is_its_broker => (context.cert.clone(), context.cert_key.clone()),
            own => own,
        };
        match identity {
            (None, None) => Ok(tls),
            (Some(certificate), Some(key)) => tls.identity_files(certificate, key).map_err(usage),
            _ => Err(Failure::usage("a certificate needs its key: --cert and --cert-key go together")),
        }
    }
}

/// A secret in a file: its first line.
fn secret(file: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn fmt::Display| Failure::usage(format!("{}: {why}", file.display()));
    let bytes = fs::metadata(file).map_err(|error| failed(&error))?.len();
    if bytes > SECRET_BYTES_MAX {
        return Err(failed(&"too long for a secret"));
    }
    let text = fs::read_to_string(file).map_err(|error| failed(&error))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(failed(&"its first line is empty")),
    }
}

fn ask(user: &str) -> Result<String, Failure> {
    if !std::io::stderr().is_terminal() {
        let why = "no password: say it with --password-file or TANDEM_PASSWORD";
        return Err(Failure::usage(why));
    }
    let asked = rpassword::prompt_password(format!("Password of {user}: "));
    asked.map_err(|error| Failure::usage(format!("the password cannot be asked for: {error}")))
}

/// Whether what is said over it is heard by this machine, or by whoever has the certificate, alone.
fn is_private(address: &Address) -> bool {
    let is_loopback = |host: &str| {
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    match address {
        Address::Unix(_) => true,
        Address::WebSocket(Place { tls, host, .. })
        | Address::Tcp(Place { tls, host, .. })
        | Address::LongPoll(Place { tls, host, .. }) => *tls || is_loopback(host),
    }
}

impl Settings {
    /// What is to be spoken, for a verb that usually is said in this language.
    pub(super) fn language(&self, usual: Language) -> Language {
        self.language.unwrap_or(usual)
    }

    /// A session of WAMP.
    pub(super) async fn wamp(&self, patience: Patience) -> Result<wamp::Client, Failure> {
        let mut builder = wamp::Client::builder_on(self.connector.clone())
            .agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
            .reconnect(patience.backoff())
            .connect_timeout(self.timeout);
        if let Some(realm) = &self.realm {
            builder = builder.realm(realm);
        }
        if let Some(serializer) = self.serializer {
            builder = builder.serializers([serializer.into()]);
        }
        for way in self.ways()? {
            builder = builder.auth(way);
        }
        builder.connect().await.map_err(|error| Failure::from(error).while_connecting(&self.address))
    }

    fn ways(&self) -> Result<Vec<wamp::Auth>, Failure> {
        let impossible = |why| Err(Failure::usage(why));
        Ok(match (&self.login, self.method) {
            (_, Some(Method::Anonymous)) => vec![wamp::Anonymous.into()],
            (Login::Nobody, None) => Vec::new(),
            (Login::Nobody, Some(_)) => return impossible("--auth: there is neither a user nor a secret"),
            (Login::Key { user, key }, None | Some(Method::Cryptosign)) => {
                let way = wamp::Cryptosign::from_key((**key).clone());
                vec![match user {
                    Some(user) => way.authid(user).into(),
                    None => way.into(),
                }]
            }
            (Login::Key { .. }, Some(_)) => return impossible("--auth: a key is for cryptosign"),
            (Login::Token { user, token }, None | Some(Method::Ticket)) => {
                vec![wamp::Ticket::new(user.clone().unwrap_or_default(), token).into()]
            }
            (Login::Token { .. }, Some(_)) => return impossible("--auth: a token is a ticket"),
            (Login::Password { .. }, Some(Method::Cryptosign)) => {
                return impossible("--auth: cryptosign needs --key-file");
            }
            (Login::Password { user, password }, method) => {
                let is = |way, by_itself| method == Some(way) || (method.is_none() && by_itself);
                let mut ways: Vec<wamp::Auth> = Vec::new();
                if is(Method::Scram, true) {
                    ways.push(wamp::Scram::new(user, password).into());
                }
                if is(Method::Wampcra, true) {
                    ways.push(wamp::Wampcra::new(user, password).into());
                }
                if is(Method::Ticket, is_private(&self.address)) {
                    ways.push(wamp::Ticket::new(user, password).into());
                }
                ways
            }
        })
    }

    /// A session of STOMP.
    pub(super) async fn stomp(&self, patience: Patience) -> Result<stomp::Client, Failure> {
        let mut builder = stomp::Client::builder_on(self.connector.clone())
            .reconnect(patience.backoff())
            .connect_timeout(self.timeout);
        if let Some(realm) = &self.realm {
            builder = builder.host(realm);
        }
        builder = match &self.login {
            Login::Nobody => builder,
            Login::Password { user, password } => builder.login(user, password),
            Login::Token { user: Some(user), token } => builder.login(user, token),
            Login::Token { user: None, token } => builder.token(token),
            Login::Key { .. } => {
                return Err(Failure::usage("STOMP logs in with a password or a token, not with a key"));
            }
        };
        builder.connect().await.map_err(|error| Failure::from(error).while_connecting(&self.address))
    }
}

impl Patience {
    fn backoff(self) -> Backoff {
        match self {
            Patience::Once => Backoff::never(),
            Patience::Reconnects => Backoff::default(),
        }
    }
}

//! `tandem serve`: runs the broker until it is told to stop.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Targets;

use crate::cli::{Listen, Outcome, Serve, say};
use crate::config::{Config, OnStoreFailure};
use crate::server::Server;

/// Time that the store may take to close, beyond that of the drain.
const STORE_TIME: Duration = Duration::from_secs(10);

/// Lines of the log that may wait to be read.
const LOG_LINES_MAX: usize = 16 * 1024;

pub(super) fn run(arguments: Serve) -> Outcome {
    let mut config = match &arguments.config {
        Some(file) => Config::read(file)?,
        None => Config::default(),
    };
    if !arguments.listen.is_empty() {
        (config.listen, config.listen_unix) = (Vec::new(), Vec::new());
        for listen in arguments.listen {
            match listen {
                Listen::Address(address) => config.listen.push(address),
                Listen::Unix(path) => config.listen_unix.push(path),
            }
        }
    }
    let filter = match &arguments.log {
        Some(filter) => log_filter(filter).map_err(|error| format!("--log {filter}: {error}"))?,
        None => configured_log_filter(&config)?,
    };
    // A thread of its own writes it: whoever reads the log too slowly loses lines, and does not stop the broker.
    let (log, _written_at_the_end) =
        NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES_MAX).finish(std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(log)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(&config, arguments.config.as_deref()));
    runtime.shutdown_background();
    outcome
}

/// What the configuration says is to be logged.
pub(super) fn configured_log_filter(config: &Config) -> Result<EnvFilter, String> {
    let filter = config.log.as_deref().unwrap_or("info");
    log_filter(filter).map_err(|error| format!("log = {filter:?}: {error}"))
}

/// A word that is no level is the name of a module: where none is the broker's, it would say nothing at all.
fn log_filter(filter: &str) -> Result<EnvFilter, String> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let says_nothing = filter.parse::<Targets>().is_ok_and(|targets| {
        targets.default_level().is_none() && !targets.iter().any(|(module, _)| module.starts_with("tandem"))
    });
    match says_nothing {
        true => {
            Err("neither a level (error, warn, info, debug, trace, off) nor one for modules of tandem".into())
        }
        false => Ok(parsed),
    }
}

async fn serve(config: &Config, file: Option<&Path>) -> Outcome {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let at_start = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let server = Server::start(config)?;
    greet(&server)?;
    let exits = config.store.on_failure == OnStoreFailure::Exit;
    tell_manager(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            () = server.store_failure(), if exits => {
                tracing::error!("the broker ends, for its store failed: see on_failure in [store]");
            }
            _ = interrupt.recv() => tracing::info!("interrupted: saying goodbye"),
            _ = terminate.recv() => tracing::info!("told to terminate: saying goodbye"),
            _ = hangup.recv() => {
                let reloading = NotifyState::monotonic_usec_now().ok();
                tell_manager(&[&[NotifyState::Reloading][..], reloading.as_slice()].concat());
                server.reload_certificates();
                server.reload_token_keys();
                reload(&server, file, &at_start);
                tell_manager(&[NotifyState::Ready]);
                continue;
            }
        }
        break;
    }
    let store_failed = server.store_has_failed();
    let time_us = u32::try_from((server.drain_time_max() + STORE_TIME).as_micros()).unwrap_or(u32::MAX);
    tell_manager(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(time_us)]);
    let stopped = tokio::select! {
        drained = server.shutdown() => drained,
        // Whoever asks twice has no time.
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
    };
    if stopped {
        tracing::info!("all connections closed");
    } else {
        tracing::warn!("some connections were cut off");
    }
    if store_failed {
        return Err("the store failed while the broker ran".into());
    }
    Ok(())
}

/// Tells systemd, if it is that which started the broker.
fn tell_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// Reads the permissions again, and says what else is another than at the start. What is wrong with the file leaves
/// everything as it was.
fn reload(server: &Server, file: Option<&Path>, at_start: &str) {
    let Some(file) = file else { return tracing::warn!("there is no configuration file to read again") };
    let read = Config::read(file).and_then(|config| server.reload(&config));
    match read {
        Ok(()) => {
            tracing::info!(file = %file.display(), "permissions read again");
            let changed = differences(at_start, &std::fs::read_to_string(file).unwrap_or_default());
            if !changed.is_empty() {
                let changed = changed.join(", ");
                tracing::warn!(changed, "what else has changed in the file waits for the next start");
            }
        }
        Err(error) => tracing::error!(%error, "the permissions stay as they were"),
    }
}

/// In what two configurations that are right differ, permissions aside.
fn differences(one: &str, other: &str) -> Vec<String> {
    let parse = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let (one, other) = (parse(one), parse(other));
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ = |key: &&String| *key != "permissions" && one.get(*key) != other.get(*key);
    keys.into_iter().filter(differ).cloned().collect()
}

/// Says where the broker listens, and what a first client could do.
fn greet(server: &Server) -> Outcome {
    let realm = server.realms().first().map(|realm| realm.name().to_string()).unwrap_or_default();
    let path = server.websocket_path();
    for address in server.addresses() {
        say(&format!(
            "tandem listens at ws://{address}{path} (WAMP and STOMP), tcp://{address} (STOMP, RawSocket)"
        ))?;
    }
    for address in server.tls_addresses() {
        say(&format!(
            "tandem listens at wss://{address}{path} (WAMP and STOMP), tls://{address} (STOMP, RawSocket)"
        ))?;
    }
    for path in server.unix_sockets() {
        say(&format!("tandem listens at unix:{} (STOMP, RawSocket, WebSocket)", path.display()))?;
    }
    let Some(address) = server.addresses().first() else { return Ok(()) };
    say(&format!(
        "
A first client, in a browser's console or in Node:
  WAMP   new autobahn.Connection({{url: 'ws://{address}{path}', realm: '{realm}'}})
  STOMP  new StompJs.Client({{brokerURL: 'ws://{address}{path}'}})
  shell  tandem pub hello Hello --url ws://{address}{path} --realm {realm}
"
    ))
}

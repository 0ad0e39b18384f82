//! `tandem serve`: runs the broker until it is told to stop.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_subscriber::EnvFilter;

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
    let filter = arguments.log.or(config.log.clone()).unwrap_or_else(|| "info".into());
    let filter = EnvFilter::try_new(&filter).map_err(|error| format!("--log {filter}: {error}"))?;
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

async fn serve(config: &Config, file: Option<&Path>) -> Outcome {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
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
                reload(&server, file);
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

/// Reads the permissions again. What is wrong with the file leaves everything as it was.
fn reload(server: &Server, file: Option<&Path>) {
    let Some(file) = file else { return tracing::warn!("there is no configuration file to read again") };
    let read = Config::read(file).and_then(|config| server.reload(&config));
    match read {
        Ok(()) => tracing::info!(file = %file.display(), "permissions read again"),
        Err(error) => tracing::error!(%error, "the permissions stay as they were"),
    }
}

/// Says where the broker listens, and what a first client could do.
fn greet(server: &Server) -> Outcome {
    let realm = server.realms().first().map(|realm| realm.name().to_string()).unwrap_or_default();
    for address in server.addresses() {
        say(&format!(
            "tandem listens at ws://{address}/ (WAMP and STOMP), tcp://{address} (STOMP, RawSocket)"
        ))?;
    }
    for address in server.tls_addresses() {
        say(&format!(
            "tandem listens at wss://{address}/ (WAMP and STOMP), tls://{address} (STOMP, RawSocket)"
        ))?;
    }
    for path in server.unix_sockets() {
        say(&format!("tandem listens at unix:{} (STOMP, RawSocket, WebSocket)", path.display()))?;
    }
    let Some(address) = server.addresses().first() else { return Ok(()) };
    say(&format!(
        "
A first client, in a browser's console or in Node:
  WAMP   new autobahn.Connection({{url: 'ws://{address}/', realm: '{realm}'}})
  STOMP  new StompJs.Client({{brokerURL: 'ws://{address}/'}})
  shell  tandem pub hello Hello --url ws://{address}/ --realm {realm}
"
    ))
}

//! Runs all cases of a fuzzing server of the Autobahn|Testsuite, as a client that says back what it is told.
//!
//! ```text
//! cargo run --release -p tandem-client --example websocket_cases -- 127.0.0.1:9001
//! ```
//!
//! It offers permessage-deflate as it can be agreed on at all: with context takeover, and any window. Everything
//! that is agreed on is compressed, however short. `conformance/autobahn.py --client` starts the server, and
//! judges the report.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use tandem_client::Error;
use tandem_client::raw::dial::{WebSocketOptions, connect_websocket};
use tandem_client::raw::transport::Transport;
use tandem_protocols::websocket::extensions::{Mode, Policy};

/// By this name the report knows us.
const AGENT: &str = "tandem-client";

/// The longest case: a thousand messages of 128 KiB.
const CASE_TIME_MAX: Duration = Duration::from_secs(300);

/// How long the server may take to end a connection that is over.
const END_TIME_MAX: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::args().nth(1).ok_or("give the address of the server")?.parse()?;
    let count: usize = std::str::from_utf8(&ask(address, "/getCaseCount").await?)?.parse()?;
    for case in 1..=count {
        let path = format!("/runCase?case={case}&agent={AGENT}");
        if timeout(CASE_TIME_MAX, run(address, &path)).await.is_err() {
            return Err(format!("case {case} of {count} does not end").into());
        }
    }
    ask(address, &format!("/updateReports?agent={AGENT}")).await?;
    Ok(())
}

/// The only message that comes of this, if any comes.
async fn ask(address: SocketAddr, path: &str) -> Result<Bytes, Error> {
    let mut transport = connect_websocket(address, path, &[], &WebSocketOptions::default()).await?;
    let answer = transport.next().await?.map(|message| message.bytes);
    end(transport).await;
    Ok(answer.unwrap_or_default())
}

/// Says back what comes, until the server has enough. What goes wrong is in its report: it is often what it wants.
async fn run(address: SocketAddr, path: &str) {
    let policy = Policy {
        mode: Mode::Offered,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        ..Policy::default()
    };
    let mut options =
        WebSocketOptions { compression: policy, compress_bytes_min: 0, ..WebSocketOptions::default() };
    // 4 MiB in frames of 64 octets, and one that is empty.
    options.limits.fragments_max = (1 << 16) + 1;
    let Ok(mut transport) = connect_websocket(address, path, &[], &options).await else { return };
    while let Ok(Some(message)) = transport.next().await {
        if transport.send(message.kind, &message.bytes).await.is_err() {
            break;
        }
    }
    end(transport).await;
}

/// Says goodbye, unless that is done, and waits for the server to end the connection, as it is to be the first.
async fn end(mut transport: Transport) {
    let _ = transport.close().await;
    let mut stream = transport.into_inner();
    let mut rest = [0; 4096];
    let drain = async { while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let _ = timeout(END_TIME_MAX, drain).await;
}

//! A broker as a route of an axum application: pages and WebSockets at one port, which is the application's.
//!
//! `cargo run -p tandem-broker --example axum`, then in a browser's console at the page that it names:
//! `new WebSocket('ws://127.0.0.1:3000/ws', 'v12.stomp')`

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tokio::net::TcpListener;

use tandem_broker::Broker;
use tandem_broker::embed::entrance::Entrance;

/// The application: a page, and the broker at `/ws`.
pub fn application(broker: &Broker) -> Router {
    Router::new()
        .route("/", get(|| async { "the broker is at /ws\n" }))
        .route("/ws", any(socket))
        .with_state(broker.entrance())
}

async fn socket(
    State(entrance): State<Entrance>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    entrance.upgrade(request, remote).into_response()
}

/// Serves the application until `end`, and ends the broker then.
pub async fn serve(
    listener: TcpListener,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().realm("app").start()?;
    let service = application(&broker).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(end).await?;
    broker.shutdown().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    let interrupted = async {
        // Where nobody can interrupt it, it ends at once.
        let _ = tokio::signal::ctrl_c().await;
    };
    serve(listener, interrupted).await
}

//! Peers of a broker, connected in one line: for tests that are not about connecting.

use std::net::SocketAddr;

use tandem_client::raw::dial::{WebSocketOptions, connect_websocket, open_websocket};
use tandem_client::raw::stomp::{self, ConnectOptions};
use tandem_client::raw::transport::Transport;
use tandem_client::raw::wamp::{self, Login};
use tandem_protocols::payload::Format;
use tandem_protocols::stomp::frame::Version;
use tokio::net::TcpSocket;

/// What a socket of somebody who does not read is given, so that the kernel keeps little for it.
const LAZY_BUFFER_BYTES: u32 = 4096;

/// A WebSocket with this subprotocol.
pub async fn websocket(address: SocketAddr, subprotocol: &str) -> Transport {
    let options = WebSocketOptions::default();
    connect_websocket(address, "/", &[subprotocol], &options).await.unwrap()
}

/// A WebSocket with this subprotocol, of somebody who is not going to read: the kernel keeps little for it.
pub async fn lazy_websocket(address: SocketAddr, subprotocol: &str) -> Transport {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(LAZY_BUFFER_BYTES).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let options = WebSocketOptions::default();
    open_websocket(stream, &address.to_string(), "/", &[subprotocol], &options).await.unwrap()
}

/// The subprotocol of a format.
pub fn subprotocol(format: Format) -> &'static str {
    match format {
        Format::Json => "wamp.2.json",
        Format::MsgPack => "wamp.2.msgpack",
        Format::Cbor => "wamp.2.cbor",
    }
}

/// A WAMP session over WebSocket.
pub async fn wamp(address: SocketAddr, format: Format) -> wamp::Client {
    wamp_over(websocket(address, subprotocol(format)).await, format).await
}

/// A WAMP session over this transport.
pub async fn wamp_over(transport: Transport, format: Format) -> wamp::Client {
    wamp::Client::join(transport, format, "realm1", &Login::Anonymous).await.unwrap()
}

/// A STOMP 1.2 session over WebSocket, without heart-beats.
pub async fn stomp(address: SocketAddr) -> stomp::Client {
    stomp_over(websocket(address, "v12.stomp").await).await
}

/// A STOMP 1.2 session over this transport, without heart-beats.
pub async fn stomp_over(transport: Transport) -> stomp::Client {
    stomp::Client::connect(transport, Version::V12, &ConnectOptions::default()).await.unwrap()
}

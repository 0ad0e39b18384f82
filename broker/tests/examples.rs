//! The examples of embedding do what they say.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use tandem_client::raw::dial::{WebSocketOptions, connect_websocket};
use tandem_client::raw::wamp::{Client, Login, MatchPolicy};
use tandem_client::{Connector, Error};
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::dict::Dict;

#[allow(dead_code, reason = "an example is a program")]
#[path = "../examples/axum.rs"]
mod axum;
#[allow(dead_code, reason = "an example is a program")]
#[path = "../examples/embedded.rs"]
mod embedded;

#[tokio::test]
async fn a_broker_without_a_listener_carries_events_calls_and_messages_within_the_process() {
    let heard = embedded::run().await.unwrap();
    assert_eq!(heard, ("hello".into(), 5, "a coffee".into()));
}

#[tokio::test]
async fn an_axum_application_serves_pages_and_the_broker_at_one_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let serving = async {
        let end = async {
            let _ = ended.await;
        };
        axum::serve(listener, end).await.unwrap();
    };
    let using = async {
        let mut page = TcpStream::connect(address).await.unwrap();
        page.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        page.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("the broker is at /ws"), "{text}");

        let options = WebSocketOptions::default();
        let transport = connect_websocket(address, "/ws", &["wamp.2.cbor"], &options).await.unwrap();
        let mut client = Client::join(transport, Format::Cbor, "app", &Login::Anonymous).await.unwrap();
        client.subscribe("t", MatchPolicy::Exact).await.unwrap();
        let connector = Connector::new(format!("ws://{address}/ws").parse().unwrap());
        let (wire, format) = connector.wamp(&[Format::Json]).await.unwrap();
        assert_eq!((wire.compression().is_some(), format), (true, Format::Json));

        // Larger than what an upgrade could bring along.
        let text = "x".repeat(500_000);
        let transport = connect_websocket(address, "/ws", &["wamp.2.json"], &options).await.unwrap();
        let mut publisher = Client::join(transport, Format::Json, "app", &Login::Anonymous).await.unwrap();
        let args = publisher.args(&(&text,)).unwrap();
        publisher.publish("t", Dict::new(), args).await.unwrap();
        publisher.flush().await.unwrap();
        let event = client.next_event().await.unwrap();
        let (heard,): (String,) = tandem_client::arguments::decode_args(&event.payload).unwrap();
        assert_eq!(heard, text);

        let elsewhere = |options| async move {
            match connect_websocket(address, "/ws", &["wamp.2.json"], &options).await {
                Err(Error::Refused { status, .. }) => status,
                other => panic!("{other:?}"),
            }
        };
        let strange = WebSocketOptions { origin: Some("https://evil.example".into()), ..Default::default() };
        assert_eq!(elsewhere(strange).await, 403, "the origin is judged");
        let rebound = WebSocketOptions { host: Some("evil.example".into()), ..Default::default() };
        assert_eq!(elsewhere(rebound).await, 421, "the host is judged");
        publisher.leave().await.unwrap();
        client.leave().await.unwrap();
        drop(wire);
        end.send(()).unwrap();
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), async { tokio::join!(serving, using) })
        .await
        .unwrap();
}

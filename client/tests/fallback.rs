//! Where the first of several addresses takes connections and says nothing, the next is tried all the same.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use tandem_client::{stomp, wamp};

/// Two listeners of which neither says anything, and their addresses.
async fn mute() -> ([TcpListener; 2], [String; 2]) {
    let listeners =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let addresses = listeners.each_ref().map(|listener| format!("ws://{}/", listener.local_addr().unwrap()));
    (listeners, addresses)
}

#[tokio::test]
async fn a_wamp_client_goes_on_to_the_next_address() {
    let (listeners, [first, second]) = mute().await;
    let builder = wamp::Client::builder(&*first).or(&*second).connect_timeout(Duration::from_millis(200));
    let connecting = tokio::spawn(builder.connect());
    timeout(Duration::from_secs(10), listeners[1].accept()).await.expect("it is tried").unwrap();
    assert!(connecting.await.unwrap().is_err());
}

#[tokio::test]
async fn a_stomp_client_goes_on_to_the_next_address() {
    let (listeners, [first, second]) = mute().await;
    let builder = stomp::Client::builder(&*first).or(&*second).connect_timeout(Duration::from_millis(200));
    let connecting = tokio::spawn(builder.connect());
    timeout(Duration::from_secs(10), listeners[1].accept()).await.expect("it is tried").unwrap();
    assert!(connecting.await.unwrap().is_err());
}

//! A broker in a program: no listener, and a publisher and a subscriber of the same process.
//!
//! `cargo run -p tandem-broker --example embedded`

use tandem_broker::Broker;
use tandem_client::raw::dial::open_rawsocket;
use tandem_client::raw::wamp::{Client, Login, MatchPolicy};
use tandem_client::wire::ByteStream;
use tandem_client::{Doorway, Error};
use tandem_protocols::payload::Format;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::rawsocket::Limit;

/// A client of this process.
async fn join(broker: &Broker) -> Result<Client<Box<dyn ByteStream>>, Error> {
    let stream = broker.entrance().open()?;
    let transport = open_rawsocket(stream, Format::MsgPack, Limit::MAX).await?;
    Client::join(transport, Format::MsgPack, "app", &Login::Anonymous).await
}

/// Publishes a greeting, and gives it back as it was received.
pub async fn run() -> Result<String, Box<dyn std::error::Error>> {
    let broker = Broker::builder().realm("app").start()?;
    let mut subscriber = join(&broker).await?;
    subscriber.subscribe("com.example.greeting", MatchPolicy::Exact).await?;
    let mut publisher = join(&broker).await?;
    let args = publisher.args(&("hello",))?;
    publisher.publish("com.example.greeting", Dict::new(), args).await?;
    publisher.flush().await?;
    let event = subscriber.next_event().await?;
    let (greeting,): (String,) = tandem_client::arguments::decode_args(&event.payload)?;
    publisher.leave().await?;
    subscriber.leave().await?;
    broker.shutdown().await;
    Ok(greeting)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let greeting = run().await?;
    tracing::info!(greeting);
    assert_eq!(greeting, "hello");
    Ok(())
}

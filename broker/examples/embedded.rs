//! A broker in a program: no listener; events, a procedure and a queue of the same process.
//!
//! `cargo run -p tandem-broker --example embedded`

use futures_util::StreamExt;
use tandem_broker::Broker;
use tandem_client::stomp::Mode;

/// What was heard: an event, an answer and a message of a queue.
pub async fn run() -> Result<(String, i64, String), Box<dyn std::error::Error>> {
    let broker = Broker::builder().realm("app").start()?;
    let client = broker.wamp().connect().await?;

    let mut greetings = client.subscribe::<(String,)>("com.example.greeting").await?;
    client.publish("com.example.greeting").args(("hello",)).include_me().acknowledge().await?;
    let event = greetings.next().await.ok_or("no event")??;

    let adding = client.register("com.example.add").handler(|(a, b): (i64, i64), _| async move { Ok(a + b) });
    let _registration = adding.await?;
    let sum: i64 = client.call("com.example.add").args((2, 3)).await?;

    let worker = broker.stomp().connect().await?;
    let mut orders = worker.subscribe("/queue/orders").ack(Mode::ClientIndividual).text().await?;
    worker.send("/queue/orders").text("a coffee").receipt().await?;
    let order = orders.next().await.ok_or("no order")??;
    order.ack_confirmed().await?;
    let order = order.payload.clone();

    broker.shutdown().await;
    Ok((event.payload.0, sum, order))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let heard = run().await?;
    assert_eq!(heard, ("hello".into(), 5, "a coffee".into()));
    Ok(())
}

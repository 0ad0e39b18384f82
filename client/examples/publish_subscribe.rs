//! Publishes prices, and prints them as they come: `cargo run --example publish_subscribe [ws://127.0.0.1:8080/]`.

use serde::{Deserialize, Serialize};
use tandem_client::Overflow;
use tandem_client::wamp::{Client, Error};

#[derive(Debug, Deserialize, Serialize)]
struct Price {
    currency: String,
    value: f64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:8080/".to_owned());
    let client = Client::builder(url.as_str()).realm("realm1").connect().await?;

    let mut prices =
        client.subscribe::<Price>("com.example.price").prefix().buffer(64, Overflow::DropOldest).await?;
    for value in [1.05, 1.07, 1.01] {
        let price = Price { currency: "EUR".to_owned(), value };
        client.publish("com.example.price.eur").kwargs(&price).include_me().acknowledge().await?;
    }
    for _ in 0..3 {
        let Some(event) = prices.next().await else { break };
        let event = event?;
        eprintln!("{}: {:?}", event.topic, event.payload);
    }
    client.close().await;
    Ok(())
}

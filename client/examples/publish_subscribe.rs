//! Publishes prices, and prints them as they come: `cargo run -p tandem-client --example publish_subscribe [URL]`

use serde::{Deserialize, Serialize};
use tandem_client::Overflow;
use tandem_client::wamp::{Client, Error};

/// What is published.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Price {
    /// Of which currency.
    pub currency: String,
    /// In dollars.
    pub value: f64,
}

/// Gives the prices as they came.
pub async fn run(url: &str) -> Result<Vec<Price>, Error> {
    let client = Client::builder(url).realm("realm1").connect().await?;
    let prices = client.subscribe::<Price>("com.example.price").prefix();
    let mut prices = prices.buffer(64, Overflow::DropOldest).await?;
    for value in [1.05, 1.07, 1.0] {
        let price = Price { currency: "EUR".to_owned(), value };
        client.publish("com.example.price.eur").kwargs(&price).include_me().acknowledge().await?;
    }
    let mut heard = Vec::new();
    while heard.len() < 3
        && let Some(event) = prices.next().await
    {
        heard.push(event?.payload);
    }
    client.close().await;
    Ok(heard)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:8080/".to_owned());
    eprintln!("{:?}", run(&url).await?);
    Ok(())
}

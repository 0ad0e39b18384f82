//! A durable worker: orders are taken from a queue that outlives it and its broker, and each is acknowledged when it is
//! done. One that is not, because this died on the way, is handed out again.
//!
//! ```text
//! cargo run --example durable_worker -- ws://127.0.0.1:8080/ 3
//! ```

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tandem_client::Error;
use tandem_client::stomp::{Client, Mode};

#[derive(Serialize, Deserialize)]
struct Order {
    number: u64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:8080/".to_owned());
    let count: u64 = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(3);
    let client = Client::builder(url.as_str()).connect().await?;
    for number in 1..=count {
        client.send("/queue/orders").json(&Order { number })?.persistent().receipt().await?;
    }
    let mut orders = client.subscribe("/queue/orders").ack(Mode::ClientIndividual).typed::<Order>().await?;
    for _ in 1..=count {
        let Some(order) = orders.next().await.transpose()? else { break };
        let again = if order.is_redelivered() { ", perhaps for the second time" } else { "" };
        eprintln!("order {} is being worked on{again}", order.payload.number);
        order.ack_confirmed().await?;
    }
    client.disconnect().await
}

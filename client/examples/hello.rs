//! Publishes a greeting, and prints it as it comes back: `cargo run -p tandem-client --example hello [URL]`

use tandem_client::wamp::{Client, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:8080/".to_owned());
    let client = Client::builder(url.as_str()).realm("realm1").connect().await?;

    let mut greetings = client.subscribe::<String>("hello").await?;
    client.publish("hello").args(("Hello from Rust",)).include_me().await?;
    if let Some(greeting) = greetings.next().await {
        eprintln!("{}", greeting?.payload);
    }

    client.close().await;
    Ok(())
}

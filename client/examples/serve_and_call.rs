//! Offers a procedure, and calls it: `cargo run --example serve_and_call [ws://127.0.0.1:8080/]`.

use tandem_client::wamp::{ApplicationError, Client, Error, InvocationCtx, InvokePolicy, Progress};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:8080/".to_owned());
    let callee = Client::builder(url.as_str()).realm("realm1").connect().await?;
    let divide = callee.register("com.example.divide").invoke(InvokePolicy::RoundRobin).concurrency(8);
    let _divide = divide
        .handler(|(a, b): (i64, i64), ctx: InvocationCtx| async move {
            ctx.progress(&"thinking").await?;
            a.checked_div(b).ok_or_else(|| ApplicationError::new("com.example.by_zero").args((a,)))
        })
        .await?;

    let caller = Client::builder(url.as_str()).realm("realm1").connect().await?;
    let quotient: i64 = caller.call("com.example.divide").args((12, 4)).await?;
    eprintln!("12 / 4 = {quotient}");
    let failed = caller.call::<i64>("com.example.divide").args((1, 0)).await;
    eprintln!("1 / 0: {:?}", failed.map_err(|error| error.uri().map(str::to_owned)));
    let mut parts = caller.call("com.example.divide").args((9, 3)).progressive::<String, i64>().await?;
    while let Some(Ok(part)) = parts.next().await {
        match part {
            Progress::Partial(note) => eprintln!("{note}"),
            Progress::Final(quotient) => eprintln!("9 / 3 = {quotient}"),
        }
    }
    caller.close().await;
    Ok(())
}

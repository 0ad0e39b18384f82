//! Offers a procedure, and calls it: `cargo run -p tandem-client --example serve_and_call [URL]`

use tandem_client::wamp::{Client, Error, InvocationCtx, InvokePolicy, Progress, WampError};

/// Why a division fails.
#[derive(Debug, WampError)]
pub enum DivideError {
    /// It is by zero.
    #[wamp("com.example.by_zero")]
    ByZero(i64),
}

/// Gives what a division by zero came to, and the steps of another.
pub async fn run(url: &str) -> Result<(DivideError, Vec<Progress<String, i64>>), Error> {
    let callee = Client::builder(url).realm("realm1").connect().await?;
    let divide = callee.register("com.example.divide").invoke(InvokePolicy::RoundRobin).concurrency(8);
    let divide = divide.handler(|(a, b): (i64, i64), ctx: InvocationCtx| async move {
        ctx.progress(&"thinking").await?;
        Ok(a.checked_div(b).ok_or(DivideError::ByZero(a))?)
    });
    let _registration = divide.await?;

    let caller = Client::builder(url).realm("realm1").connect().await?;
    let failed = match caller.call::<i64>("com.example.divide").args((1, 0)).await {
        Ok(quotient) => DivideError::ByZero(quotient),
        Err(error) => DivideError::try_from(error)?,
    };
    let mut division = caller.call("com.example.divide").args((12, 4)).progressive().await?;
    let mut steps = Vec::new();
    while let Some(step) = division.next().await {
        steps.push(step?);
    }
    caller.close().await;
    Ok((failed, steps))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:8080/".to_owned());
    eprintln!("{:?}", run(&url).await?);
    Ok(())
}

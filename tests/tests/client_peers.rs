//! The clients against brokers of others, which `conformance/client.py` starts and names:
//!
//! ```text
//! TANDEM_STOMP_PEERS='tcp://127.0.0.1:61613 ws://127.0.0.1:15674/ws' cargo test -p tandem-tests --test client_peers -- --ignored
//! ```

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::future::IntoFuture;

use futures_util::StreamExt;
use serde_json::{Value, json};

use tandem_client::Error;
use tandem_client::stomp::{Client, Delivery, Mode, Subscription, Version};
use tandem_tests::broker::soon;

async fn next<T>(subscription: &mut Subscription<T>) -> Delivery<T> {
    soon("a message", subscription.next()).await.expect("the stream goes on").unwrap()
}

/// All clients of all brokers that are named. Names are those of this run.
async fn each(test: &str, run: impl AsyncFn(&dyn Fn(Option<Version>) -> Opening, String)) {
    let peers = std::env::var("TANDEM_STOMP_PEERS").expect("TANDEM_STOMP_PEERS names brokers");
    for (number, url) in peers.split_whitespace().enumerate() {
        eprintln!("{test}: {url}");
        let name = format!("tandem-{test}-{number}-{}", std::process::id());
        let client_id = (test == "durable").then(|| name.clone());
        run(&|version| Box::pin(connect(url.to_owned(), version, client_id.clone())), name.clone()).await;
    }
}

type Opening = std::pin::Pin<Box<dyn Future<Output = Client>>>;

async fn connect(url: String, version: Option<Version>, client_id: Option<String>) -> Client {
    let mut builder = Client::builder(url.as_str()).login("guest", "guest");
    if let Some(client_id) = client_id {
        builder = builder.header("client-id", &client_id);
    }
    let builder = match version {
        Some(version) => builder.versions(&[version]),
        None => builder,
    };
    soon("a connection", builder.connect()).await.unwrap()
}

fn is_activemq(client: &Client) -> bool {
    client.connected().get("server").is_some_and(|server| server.starts_with("ActiveMQ"))
}

#[tokio::test]
#[ignore = "needs brokers of others"]
async fn what_is_sent_arrives_as_what_it_was() {
    each("values", async |connect, name| {
        for version in [None, Some(Version::V11), Some(Version::V10)] {
            let client = connect(version).await;
            assert_eq!(client.version(), version.unwrap_or(Version::V12));
            for destination in [format!("/queue/{name}"), format!("/topic/{name}")] {
                let mut values = client.subscribe(&destination).typed::<Value>().await.unwrap();
                for value in [json!({"a": [1, 2.5, null]}), json!("text ü")] {
                    client
                        .send(&destination)
                        .json(&value)
                        .unwrap()
                        .header("own", "x")
                        .receipt()
                        .await
                        .unwrap();
                    let delivery = next(&mut values).await;
                    assert_eq!((&delivery.payload, delivery.header("own")), (&value, Some("x")));
                }
                soon("the end", values.unsubscribe()).await.unwrap();
            }
            soon("goodbye", client.disconnect()).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs brokers of others"]
async fn what_is_not_acknowledged_comes_again() {
    each("again", async |connect, name| {
        let client = connect(None).await;
        let destination = format!("/queue/{name}");
        for number in 0..20_u32 {
            client.send(&destination).json(&number).unwrap().persistent().receipt().await.unwrap();
        }
        let subscribe =
            || client.subscribe(&destination).ack(Mode::ClientIndividual).prefetch(5).typed::<u32>();
        let mut work = subscribe().await.unwrap();
        let first = next(&mut work).await;
        soon("a receipt", first.ack_confirmed()).await.unwrap();
        next(&mut work).await.ack().await.unwrap();
        drop(next(&mut work).await);
        assert!(work.waiting() <= 5, "{} are delivered ahead", work.waiting());
        soon("the end", work.unsubscribe()).await.unwrap();
        let mut work = subscribe().await.unwrap();
        let mut numbers = Vec::new();
        while numbers.len() < 18 {
            let delivery = next(&mut work).await;
            delivery.ack().await.unwrap();
            numbers.push(delivery.payload);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (2..20).collect::<Vec<u32>>());
        soon("goodbye", client.clone().disconnect()).await.unwrap();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs brokers of others"]
async fn one_acknowledgement_does_for_all_before_it() {
    each("cumulative", async |connect, name| {
        let client = connect(None).await;
        let destination = format!("/queue/{name}");
        let mut work =
            client.subscribe(&destination).ack(Mode::Client).prefetch(4).typed::<u32>().await.unwrap();
        for number in 0..8_u32 {
            client.send(&destination).json(&number).unwrap().await.unwrap();
        }
        for number in 0..8 {
            let delivery = next(&mut work).await;
            assert_eq!(delivery.payload, number);
            if number % 4 == 3 {
                soon("a receipt", delivery.ack_confirmed()).await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs brokers of others"]
async fn a_transaction_takes_effect_or_not() {
    each("transaction", async |connect, name| {
        let client = connect(None).await;
        let (inbox, outbox) = (format!("/queue/{name}-in"), format!("/queue/{name}-out"));
        let mut orders = client.subscribe(&inbox).ack(Mode::ClientIndividual).text().await.unwrap();
        let mut shipped = client.subscribe(&outbox).text().await.unwrap();
        client.send(&inbox).text("order").await.unwrap();
        let order = next(&mut orders).await;
        let aborted = client.begin().await.unwrap();
        aborted.send(&outbox).text("never").await.unwrap();
        soon("the abort", aborted.abort()).await.unwrap();
        let mut committed = client.begin().await.unwrap();
        committed.send(&outbox).text("shipped").await.unwrap();
        committed.ack(&order).await.unwrap();
        soon("the commit", committed.commit()).await.unwrap();
        assert_eq!(next(&mut shipped).await.payload, "shipped");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs brokers of others"]
async fn a_durable_subscription_gathers_while_nobody_is_there() {
    each("durable", async |connect, name| {
        let destination = format!("/topic/{name}");
        let subscribe = |client: &Client| {
            client.subscribe(&destination).durable(&name).ack(Mode::ClientIndividual).text()
        };
        let client = connect(None).await;
        drop(subscribe(&client).await.unwrap());
        soon("goodbye", client.disconnect()).await.unwrap();
        let client = connect(None).await;
        client.send(&destination).text("gathered").persistent().receipt().await.unwrap();
        let mut reader = subscribe(&client).await.unwrap();
        let gathered = next(&mut reader).await;
        assert_eq!(gathered.payload, "gathered");
        gathered.ack_confirmed().await.unwrap();
        soon("the end", reader.delete()).await.unwrap();
        soon("goodbye", client.disconnect()).await.unwrap();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs brokers of others"]
async fn a_question_over_a_queue_is_answered() {
    each("call", async |connect, name| {
        let (client, other) = (connect(None).await, connect(Some(Version::V11)).await);
        if is_activemq(&client) {
            return eprintln!("  not with ActiveMQ: who is to get the answer must subscribe before");
        }
        let destination = format!("/queue/{name}");
        let mut asked = other.subscribe(&destination).typed::<u32>().await.unwrap();
        let call = tokio::spawn(client.call(&destination).json(&5).unwrap().into_future());
        let question = next(&mut asked).await;
        question.reply().unwrap().json(&(question.payload + 1)).unwrap().await.unwrap();
        assert_eq!(soon("an answer", call).await.unwrap().unwrap().decode::<u32>().unwrap(), 6);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs brokers of others"]
async fn what_is_refused_is_said_and_the_client_goes_on() {
    each("refused", async |connect, name| {
        let client = connect(None).await;
        // RabbitMQ names no receipt in its ERROR, ActiveMQ subscribes to anything.
        if !is_activemq(&client) {
            let refused =
                soon("an error", client.subscribe(&format!("/exchange/{name}")).into_future()).await;
            // Over WebSocket RabbitMQ 3.10 closes without a word.
            assert!(matches!(refused, Err(Error::StompError(_) | Error::ConnectionLost)), "{refused:?}");
        }
        let destination = format!("/queue/{name}");
        let mut again = soon("a receipt", client.subscribe(&destination).text().into_future()).await.unwrap();
        client.send(&destination).text("after").await.unwrap();
        assert_eq!(next(&mut again).await.payload, "after");
    })
    .await;
}

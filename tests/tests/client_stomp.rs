//! The STOMP client against the broker: one suite, the same over whatever carries it.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::future::IntoFuture;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use tandem_client::stomp::{Client, Delivery, Failure, Mode, Subscription, Version};
use tandem_client::{Error, Overflow};
use tandem_protocols::payload::Format;
use tandem_tests::broker::{eventually, soon};
use tandem_tests::house::House;

/// How the broker is reached: WebSocket, plain STOMP, long-polling, and within the process.
const WAYS: [&str; 8] = ["ws", "wss", "tcp", "tls", "unix", "http", "https", "inside"];

async fn connect(house: &House, way: &str) -> Client {
    soon("a connection", Client::builder_on(house.connector(way)).connect()).await.unwrap()
}

fn url(house: &House, scheme: &str) -> String {
    format!("{scheme}://{}", house.broker.addresses()[0])
}

async fn next<T>(subscription: &mut Subscription<T>) -> Delivery<T> {
    soon("a message", subscription.next()).await.expect("the stream goes on").unwrap()
}

/// Nothing is there: what is sent now comes first.
async fn nothing_before<T>(client: &Client, subscription: &mut Subscription<T>, destination: &str) {
    client.send(destination).header("last", "true").text("1").receipt().await.unwrap();
    let last = next(subscription).await;
    assert_eq!(last.header("last"), Some("true"));
    last.ack_confirmed().await.unwrap();
}

#[tokio::test]
async fn what_is_sent_arrives_as_what_it_was() {
    let house = House::open("");
    for way in WAYS {
        let client = connect(&house, way).await;
        assert_eq!(client.version(), Version::V12);
        let mut values = client.subscribe("/topic/t").typed::<Value>().await.unwrap();
        let value = json!({"a": [1, 2.5, null], "b": "c"});
        for format in [Format::Json, Format::Cbor, Format::MsgPack] {
            client.send("/topic/t").value(format, &value).unwrap().await.unwrap();
            assert_eq!(next(&mut values).await.payload, value, "{way:?} {format}");
        }
        client.send("/topic/t").text("text: ü\u{0}").header("colour", "a:b\\\n").await.unwrap();
        let delivery = next(&mut values).await;
        assert_eq!(
            (delivery.payload.as_str(), delivery.header("colour")),
            (Some("text: ü\u{0}"), Some("a:b\\\n"))
        );
        assert_eq!((delivery.destination(), delivery.gap), ("/topic/t", None));
        client.send("/topic/t").bytes("", Bytes::from_static(b"\xff\0")).await.unwrap();
        let unread = soon("an error", values.next()).await.unwrap();
        assert!(matches!(unread, Err(Error::Decode(_))), "bytes are no value: {unread:?}");
        let mut raw = client.subscribe("/topic/raw").await.unwrap();
        client.send("/topic/raw").bytes("", Bytes::from_static(b"\xff\0")).await.unwrap();
        assert_eq!(next(&mut raw).await.payload, b"\xff\0"[..]);
        soon("goodbye", client.disconnect()).await.unwrap();
    }
}

#[tokio::test]
async fn receipts_are_awaited_whenever_one_likes() {
    let house = House::open("");
    for way in WAYS {
        let client = connect(&house, way).await;
        let mut receipts = Vec::new();
        for number in 0..100_u32 {
            receipts.push(client.send("/queue/r").json(&number).unwrap().receipt().enqueue().await.unwrap());
        }
        for receipt in receipts.into_iter().rev() {
            soon("a receipt", receipt).await.unwrap();
        }
        let mut numbers =
            client.subscribe("/queue/r").typed::<u32>().buffer(100, Overflow::Wait).await.unwrap();
        for number in 0..100 {
            assert_eq!(next(&mut numbers).await.payload, number);
        }
    }
}

#[tokio::test]
async fn a_refused_message_fails_its_receipt_with_the_servers_words() {
    let house = House::open("[[queues]]\nname = \"q\"\nmax-length = 1\n");
    for way in WAYS {
        let client = connect(&house, way).await;
        client.send("/queue/q").text("1").receipt().await.unwrap();
        let refused = client.send("/queue/q").text("2").receipt().await;
        assert!(matches!(refused, Err(Error::StompError(_))), "{refused:?}");
        assert_eq!(refused.unwrap_err().to_string(), "the server sent ERROR: Queue full");
        // An ERROR ends the connection, and the client makes another.
        let mut waiting = client.subscribe("/queue/q").await.unwrap();
        assert_eq!(next(&mut waiting).await.payload, "1");
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_is_given_back() {
    let house = House::open("");
    for way in WAYS {
        let client = connect(&house, way).await;
        let mut work = client.subscribe("/queue/w").ack(Mode::ClientIndividual).text().await.unwrap();
        for text in ["dropped", "refused", "done", "confirmed"] {
            client.send("/queue/w").text(text).await.unwrap();
        }
        let dropped = next(&mut work).await;
        assert!(!dropped.is_redelivered() && dropped.redeliveries().is_none());
        drop(dropped);
        for _ in 0..4 {
            let delivery = next(&mut work).await;
            match delivery.payload.as_str() {
                "refused" => delivery.reject().await.unwrap(),
                "done" => delivery.ack().await.unwrap(),
                "confirmed" => soon("a receipt", delivery.ack_confirmed()).await.unwrap(),
                "dropped" => {
                    assert!(delivery.is_redelivered() && delivery.redeliveries() == Some(1));
                    delivery.ack().await.unwrap();
                    assert!(matches!(delivery.ack().await, Err(Error::Settled)));
                }
                other => panic!("{other}"),
            }
        }
        nothing_before(&client, &mut work, "/queue/w").await;
        drop(work);
        let mut dead = client.subscribe("/queue/dlq.w").text().await.unwrap();
        assert_eq!(next(&mut dead).await.payload, "refused");
    }
}

#[tokio::test]
async fn one_acknowledgement_does_for_all_before_it_where_that_is_asked_for() {
    let house = House::open("");
    for way in WAYS {
        let client = connect(&house, way).await;
        let mut work =
            client.subscribe("/queue/c").ack(Mode::Client).prefetch(3).typed::<u32>().await.unwrap();
        for number in 0..6_u32 {
            client.send("/queue/c").json(&number).unwrap().await.unwrap();
        }
        for number in 0..3 {
            let delivery = next(&mut work).await;
            assert_eq!(delivery.payload, number);
            if number == 2 {
                delivery.ack().await.unwrap();
            }
        }
        // What was not acknowledged comes back when nobody is subscribed any more.
        assert_eq!(next(&mut work).await.payload, 3);
        soon("the end", work.unsubscribe()).await.unwrap();
        let mut work = client.subscribe("/queue/c").typed::<u32>().await.unwrap();
        let mut left =
            [next(&mut work).await, next(&mut work).await, next(&mut work).await].map(|d| d.payload);
        left.sort_unstable();
        assert_eq!(left, [3, 4, 5]);
    }
}

#[tokio::test]
async fn who_drops_a_subscription_gives_back_what_was_not_read() {
    let house = House::open("");
    for way in WAYS {
        let client = connect(&house, way).await;
        for number in 0..10_u32 {
            client.send("/queue/d").json(&number).unwrap().receipt().await.unwrap();
        }
        let mut first = client
            .subscribe("/queue/d")
            .ack(Mode::ClientIndividual)
            .prefetch(10)
            .typed::<u32>()
            .await
            .unwrap();
        eventually("all are delivered ahead", || first.waiting() == 10).await;
        next(&mut first).await.ack().await.unwrap();
        drop(first);
        let mut second = client.subscribe("/queue/d").typed::<u32>().await.unwrap();
        let mut numbers = Vec::new();
        for _ in 1..10 {
            numbers.push(next(&mut second).await.payload);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (1..10).collect::<Vec<u32>>());
    }
}

#[tokio::test]
async fn a_transaction_takes_effect_as_one_or_not_at_all() {
    let house = House::open("");
    for way in WAYS {
        let client = connect(&house, way).await;
        let mut inbox = client.subscribe("/queue/in").ack(Mode::ClientIndividual).text().await.unwrap();
        let mut outbox = client.subscribe("/queue/out").text().await.unwrap();
        client.send("/queue/in").text("order").await.unwrap();
        let order = next(&mut inbox).await;

        let mut aborted = client.begin().await.unwrap();
        aborted.send("/queue/out").text("never").await.unwrap();
        aborted.ack(&order).await.unwrap();
        assert!(matches!(order.ack().await, Err(Error::Settled)), "it is in the transaction");
        drop(aborted);

        let mut committed = client.begin().await.unwrap();
        let sent = committed.send("/queue/out").text("shipped").receipt().enqueue().await.unwrap();
        committed.ack(&order).await.unwrap();
        drop(order);
        soon("the commit", committed.commit()).await.unwrap();
        soon("the receipt", sent).await.unwrap();
        assert_eq!(next(&mut outbox).await.payload, "shipped");
        nothing_before(&client, &mut inbox, "/queue/in").await;

        // What was dropped in a transaction that comes to nothing is given back.
        client.send("/queue/in").text("another").await.unwrap();
        let mut aborted = client.begin().await.unwrap();
        aborted.ack(&next(&mut inbox).await).await.unwrap();
        soon("the abort", aborted.abort()).await.unwrap();
        let another = next(&mut inbox).await;
        assert_eq!((another.payload.as_str(), another.is_redelivered()), ("another", true));
        another.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_selector_and_a_durable_name_are_as_in_the_header() {
    let house = House::open("");
    for way in WAYS {
        let client = connect(&house, way).await;
        let subscribe = |client: &Client| {
            let subscription = client.subscribe("/topic/news").durable("reader").selector("colour = 'red'");
            subscription.ack(Mode::ClientIndividual).text()
        };
        drop(subscribe(&client).await.unwrap());
        client.disconnect().await.unwrap();
        let client = connect(&house, way).await;
        client.send("/topic/news").header("colour", "blue").text("unwanted").receipt().await.unwrap();
        client.send("/topic/news").header("colour", "red").text("gathered").receipt().await.unwrap();
        let mut reader = subscribe(&client).await.unwrap();
        let gathered = next(&mut reader).await;
        assert_eq!(gathered.payload, "gathered");
        gathered.ack().await.unwrap();
        soon("the end", reader.delete()).await.unwrap();
        client.send("/topic/news").header("colour", "red").text("for nobody").receipt().await.unwrap();
        let mut reader = subscribe(&client).await.unwrap();
        client.send("/topic/news").header("colour", "red").text("anew").receipt().await.unwrap();
        assert_eq!(next(&mut reader).await.payload, "anew");
        soon("the end", reader.delete()).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_is_answered_or_fails_with_a_uri() {
    let house = House::open("");
    for way in WAYS {
        let (callee, client) = (connect(&house, way).await, connect(&house, way).await);
        let twice = |number: i64, call: Delivery| async move {
            match call.header("refuse") {
                Some(why) => Err(Failure::new("com.example.refused", why)),
                None if number < 0 => panic!("a handler that fails"),
                None => Ok(2 * number),
            }
        };
        let serving =
            soon("a registration", callee.serve("/procedure/twice", twice).into_future()).await.unwrap();
        let calls = [3, 4].map(|number| client.call("/call/twice").json(&number).unwrap().into_future());
        for (call, expected) in calls.into_iter().zip([6, 8]) {
            assert_eq!(soon("an answer", call).await.unwrap().decode::<i64>().unwrap(), expected);
        }
        let failures = [
            (client.call("/call/twice").json(&1).unwrap().header("refuse", "because"), "com.example.refused"),
            (client.call("/call/twice").text("no number"), "wamp.error.invalid_argument"),
            (client.call("/call/twice").json(&-1).unwrap(), "wamp.error.canceled"),
        ];
        for (call, uri) in failures {
            assert_eq!(soon("an error", call.into_future()).await.unwrap_err().uri(), Some(uri));
        }
        drop(serving);
        soon("a receipt", callee.send("/topic/after").receipt().into_future()).await.unwrap();
        // The same by hand, as it is done with other brokers.
        let mut asked = callee.subscribe("/queue/asked").typed::<i64>().await.unwrap();
        let call = tokio::spawn(client.call("/queue/asked").json(&5).unwrap().into_future());
        let question = next(&mut asked).await;
        question.reply().unwrap().json(&(question.payload + 1)).unwrap().await.unwrap();
        assert_eq!(soon("an answer", call).await.unwrap().unwrap().decode::<i64>().unwrap(), 6);
        let gone = soon("an error", client.call("/call/twice").into_future()).await;
        assert_eq!(gone.unwrap_err().uri(), Some("wamp.error.no_such_procedure"));
    }
}

#[tokio::test]
async fn the_session_ends_with_the_last_handle() {
    let house = House::open("");
    for way in WAYS {
        let client = connect(&house, way).await;
        let subscription = client.subscribe("/topic/t").await.unwrap();
        client.clone().send("/queue/last").text("words").await.unwrap();
        drop(client);
        assert_eq!(house.sessions(), 1, "a subscription is a handle");
        drop(subscription);
        eventually("it has left", || house.sessions() == 0).await;
        // What was taken up before was sent.
        let other = connect(&house, way).await;
        let mut last = other.subscribe("/queue/last").await.unwrap();
        assert_eq!(next(&mut last).await.payload, "words");
        soon("goodbye", other.clone().disconnect()).await.unwrap();
        let refused = other.send("/queue/last").text("too late").await;
        assert!(matches!(refused, Err(Error::Disconnected)), "{refused:?}");
        assert!(soon("the end", last.next()).await.is_none());
        eventually("it has left", || house.sessions() == 0).await;
    }
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_passed_over() {
    let house = House::open("");
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("tcp://{refused}");
    let nowhere = Client::builder(refused.as_str());
    assert!(matches!(nowhere.connect().await, Err(Error::Io(_))));
    let client = Client::builder(refused.as_str()).or(url(&house, "ws").as_str());
    soon("a connection", client.connect()).await.unwrap().disconnect().await.unwrap();
    let nonsense = Client::builder("nonsense").connect().await;
    assert!(matches!(nonsense, Err(Error::Address(_))), "{nonsense:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_a_durable_worker_does_its_work() {
    let house = House::open("");
    let url = url(&house, "ws");
    let mut example = tokio::process::Command::new(env!("CARGO"));
    example.args([
        "run",
        "--quiet",
        "--package",
        "tandem-client",
        "--example",
        "durable_worker",
        "--",
        &url,
        "3",
    ]);
    let output = example.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("order 3 is being worked on"), "{said}");
}

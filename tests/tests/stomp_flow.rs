//! What STOMP clients see of time and of limits over real sockets: a publisher that is held up while heart-beats
//! go on, a full queue that says so, and queues that do what is due when nobody comes.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use tandem_client::Error;
use tandem_client::raw::stomp::{AckMode, Client};
use tandem_tests::attacker::{Raw, frame};
use tandem_tests::broker::{Broker, soon};
use tandem_tests::peers;

const MESSAGE_BYTES: usize = 16 * 1024;

fn body(message: &tandem_protocols::stomp::frame::Frame) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_over_websocket_is_held_up_while_heart_beats_go_on() {
    let limits = "in_flight_bytes_max = 1048576\nmailbox_bytes_soft_max = 268435456\nmailbox_bytes_max = 268435456\n\
                  slow_time_s = 3600\nmessage_time_s = 3600";
    let toml =
        format!("[stomp]\nheart_beat_ms = 20\n[limits]\n{limits}\n[websocket]\nping_interval_s = 3600\n");
    let broker = Broker::start_with(&toml).await;
    let stalled = peers::lazy_websocket(broker.address(), "v12.stomp").await;
    let mut stalled = peers::stomp_over(stalled).await;
    stalled.subscribe("/topic/t", "0", AckMode::Auto, &[]).await.unwrap();
    // A receipt: so that the subscription is there before anything is published.
    stalled.send_with_receipt("/topic/other", &[], "").await.unwrap();

    let mut publisher = Raw::websocket(broker.address(), "v12.stomp", "").await;
    // It sends no heart-beats of its own that could get lost between its messages.
    let connect = b"CONNECT\naccept-version:1.2\nhost:h\nheart-beat:0,20\n\n\0";
    assert!(publisher.write(&frame(0x81, connect)).await);
    publisher.read_until(b"\n\n\0").await;
    let mut message = format!("SEND\ndestination:/topic/t\ncontent-length:{MESSAGE_BYTES}\n\n").into_bytes();
    message.extend(vec![b'x'; MESSAGE_BYTES]);
    message.push(0);
    let message = frame(0x82, &message);
    // Until the broker takes nothing more for a hundred of its heart-beats.
    let (mut written, mut pending, mut refused_in_a_row) = (0, Vec::new(), 0);
    soon("the publisher is held up", async {
        while refused_in_a_row < 100 {
            if pending.is_empty() {
                pending.clone_from(&message);
                written += 1;
            }
            let count = publisher.try_write(&pending);
            pending.drain(..count);
            refused_in_a_row = if count > 0 { 0 } else { refused_in_a_row + 1 };
            if count == 0 {
                // A heart-beat in a text message: the broker is alive, and thinks the same of the publisher.
                publisher.read_until(b"\x81\x01\n").await;
            }
        }
    })
    .await;
    assert!(written > 10, "{written} messages were taken");
    assert_eq!(broker.sessions(), 2);
    // Once they are read everything goes on, and nothing is lost.
    let reading = tokio::spawn(async move {
        for _ in 0..written {
            assert_eq!(stalled.next_message().await.unwrap().body.len(), MESSAGE_BYTES);
        }
    });
    assert!(publisher.write(&pending).await);
    soon("all of them", reading).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_says_so_with_the_receipt_id() {
    let broker = Broker::start_with("[[queues]]\nname = \"q\"\nmax-length = 2\n").await;
    let mut client = peers::stomp(broker.address()).await;
    for _ in 0..2 {
        client.send_with_receipt("/queue/q", &[], "1").await.unwrap();
    }
    let Err(Error::StompError(error)) = client.send_with_receipt("/queue/q", &[], "2").await else {
        panic!("it should be refused")
    };
    assert_eq!(error.headers.get("message"), Some("Queue full"));
    assert!(error.headers.get("receipt-id").is_some());
}

#[tokio::test]
async fn what_is_due_is_done_though_nobody_comes() {
    let toml = "[[queues]]\nname = \"q\"\nmessage-ttl = 20\ndead-letter-routing-key = \"late\"\n\
                [[bindings]]\ntopic = \"news.\"\nmatch = \"prefix\"\nqueue = \"archive\"\n";
    let broker = Broker::start_with(toml).await;
    let mut client = peers::stomp(broker.address()).await;
    client.subscribe("/queue/late", "late", AckMode::Auto, &[]).await.unwrap();
    client.subscribe("/queue/soon", "soon", AckMode::Auto, &[]).await.unwrap();
    client.subscribe("/queue/archive", "archive", AckMode::Auto, &[]).await.unwrap();
    client.send("/queue/q", &[], "grows old").await.unwrap();
    client.send("/queue/soon", &[("AMQ_SCHEDULED_DELAY", "40")], "comes later").await.unwrap();
    client.send("/topic/news.today", &[], "is bound").await.unwrap();
    client.flush().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(body(&soon("all three", client.next_message()).await.unwrap()));
    }
    seen.sort();
    assert_eq!(seen, ["comes later", "grows old", "is bound"]);
    assert!(broker.shutdown().await, "nobody who looks after queues keeps it from ending");
}

#[tokio::test]
async fn a_durable_subscription_survives_a_reconnect() {
    let broker = Broker::start().await;
    let mut sender = peers::stomp(broker.address()).await;
    let durable = [("durable", "true"), ("auto-delete", "false")];
    let subscribed = async || -> Client {
        let mut client = peers::stomp(broker.address()).await;
        client.subscribe("/topic/t", "d", AckMode::Auto, &durable).await.unwrap();
        client.send_with_receipt("/topic/other", &[], "").await.unwrap();
        client
    };
    subscribed().await.disconnect().await.unwrap();
    sender.send_with_receipt("/topic/t", &[], "while nobody was there").await.unwrap();
    let mut client = subscribed().await;
    assert_eq!(body(&soon("it comes", client.next_message()).await.unwrap()), "while nobody was there");
}

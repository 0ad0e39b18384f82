//! The STOMP client against a scripted server: what it says, what it is told, and what it makes of an ERROR.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod scripted;

use std::future::IntoFuture;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::{FutureExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use tandem_client::stomp::{Client, Mode, Subscribe, Subscription, Version};
use tandem_client::{Error, Gap, Overflow};

use scripted::{Listener, Server, header};

/// Long enough for everything that may happen to have happened, in time that stands still.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Subscribes, as the server wants it. Gives its id.
async fn subscribed<T: 'static>(how: Subscribe<T>, server: &mut Server) -> (Subscription<T>, String) {
    let (subscription, frame) = tokio::join!(how.into_future(), server.expect("SUBSCRIBE\n"));
    (subscription.unwrap(), header(&frame, "id").unwrap().to_owned())
}

async fn worker(client: &Client, server: &mut Server) -> (Subscription<String>, String) {
    subscribed(client.subscribe("/queue/q").ack(Mode::ClientIndividual).text(), server).await
}

#[tokio::test(start_paused = true)]
async fn connect_says_what_the_builder_says() {
    let mut listener = Listener::new();
    let builder = listener
        .builder()
        .host("realm1")
        .login("joe", "secret")
        .heart_beats(Duration::from_millis(500), Duration::ZERO)
        .versions(&[Version::V12, Version::V10])
        .header("client-id", "me");
    let connecting = tokio::spawn(builder.connect());
    let (mut server, connect) = listener.accept().await;
    let expected = "CONNECT\naccept-version:1.2,1.0\nhost:realm1\nlogin:joe\npasscode:secret\nheart-beat:500,0\n\
                    client-id:me\n\n";
    assert_eq!(connect, expected);
    server.send("CONNECTED\nversion:1.0\nserver:x\nunknown:header\n\n").await;
    let client = connecting.await.unwrap().unwrap();
    assert_eq!((client.version(), client.connected().get("server")), (Version::V10, Some("x")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_rules_while_connecting_is_no_server() {
    for answer in [
        "CONNECTED\nversion:1.0\n\n",
        "CONNECTED\nversion:7\n\n",
        "CONNECTED\nversion:1.2\nheart-beat:x\n\n",
        "RECEIPT\nreceipt-id:1\n\n",
        "what\n\n",
    ] {
        let mut listener = Listener::new();
        let connecting = tokio::spawn(listener.builder().connect());
        let (mut server, _) = listener.accept().await;
        server.send(answer).await;
        assert!(connecting.await.unwrap().is_err(), "{answer}");
        assert!(server.is_over().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_waited_for_no_longer_than_said() {
    let listener = Listener::new();
    let start = Instant::now();
    let late = listener.builder().connect_timeout(Duration::from_secs(3)).connect().await;
    assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_message_goes_out_with_its_headers() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let sending = client
        .send("/queue/q")
        .json(&[1, 2])
        .unwrap()
        .header("a", "b")
        .persistent()
        .expires(UNIX_EPOCH + Duration::from_millis(7))
        .time_to_live(Duration::from_secs(2))
        .priority(3);
    sending.await.unwrap();
    let expected = "SEND\ndestination:/queue/q\ncontent-type:application/json\na:b\npersistent:true\nexpires:7\n\
                    expiration:2000\npriority:3\ncontent-length:5\n\n[1,2]";
    assert_eq!(server.frame().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_says_what_each_broker_wants_to_hear() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let plain = client.subscribe("/topic/t").into_future();
    let (plain, frame) = tokio::join!(plain, server.expect("SUBSCRIBE\n"));
    let id = plain.unwrap().id().to_owned();
    assert_eq!(frame, format!("SUBSCRIBE\nid:{id}\ndestination:/topic/t\nreceipt:1\n\n"));
    server.expect("UNSUBSCRIBE\n").await;
    let full = client
        .subscribe("/topic/t")
        .ack(Mode::ClientIndividual)
        .prefetch(5)
        .selector("a = 'b'")
        .durable("name")
        .header("x", "y");
    let (full, frame) = tokio::join!(full.into_future(), server.expect("SUBSCRIBE\n"));
    let durable =
        "durable:true\nauto-delete:false\ndurable-subscription-name:name\nactivemq.subscriptionName:name\n";
    let expected = format!(
        "SUBSCRIBE\nid:name\ndestination:/topic/t\nselector:a = 'b'\nx:y\nack:client-individual\n\
         prefetch-count:5\nactivemq.prefetchSize:5\n{durable}receipt:3\n\n"
    );
    assert_eq!(frame, expected);
    let second = client.subscribe("/topic/u").durable("name").await;
    assert!(matches!(second, Err(Error::Unsupported(_))), "one name at a time: {second:?}");
    let (ended, frame) = tokio::join!(full.unwrap().delete(), server.expect("UNSUBSCRIBE\n"));
    ended.unwrap();
    assert_eq!(frame, format!("UNSUBSCRIBE\nid:name\ndestination:/topic/t\n{durable}receipt:4\n\n"));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_name_the_message_as_the_version_does() {
    for (version, key) in
        [("1.2", "id:m"), ("1.1", "message-id:m\nsubscription:S"), ("1.0", "message-id:m\nsubscription:S")]
    {
        let mut listener = Listener::new();
        let connecting = tokio::spawn(listener.builder().versions(&Version::ALL).connect());
        let (mut server, _) = listener.accept().await;
        server.send(&format!("CONNECTED\nversion:{version}\n\n")).await;
        let client = connecting.await.unwrap().unwrap();
        let (mut work, id) = worker(&client, &mut server).await;
        let key = key.replace('S', &id);
        server.message(&id, "m", "").await;
        let delivery = work.next().await.unwrap().unwrap();
        delivery.ack().await.unwrap();
        assert_eq!(server.frame().await, format!("ACK\n{key}\n\n"));
        server.message(&id, "m", "").await;
        let delivery = work.next().await.unwrap().unwrap();
        if version == "1.0" {
            assert!(matches!(delivery.reject().await, Err(Error::Unsupported(_))), "there is no NACK");
            continue;
        }
        delivery.reject().await.unwrap();
        assert_eq!(server.frame().await, format!("NACK\n{key}\nrequeue:false\n\n"));
        server.message(&id, "m", "").await;
        drop(work.next().await);
        assert_eq!(server.frame().await, format!("NACK\n{key}\n\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_acknowledged_says_so() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let (mut auto, id) = subscribed(client.subscribe("/queue/q"), &mut server).await;
    server.message(&id, "m", "").await;
    let delivery = auto.next().await.unwrap().unwrap();
    assert!(matches!(delivery.ack().await, Err(Error::Unsupported(_))));
    drop(delivery);
    client.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
}

#[tokio::test(start_paused = true)]
async fn receipts_come_in_any_order() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let mut receipts = Vec::new();
    for _ in 0..3 {
        receipts.push(client.send("/queue/q").receipt().enqueue().await.unwrap());
    }
    for receipt in [2, 3, 1, 9] {
        server.send(&format!("RECEIPT\nreceipt-id:{receipt}\n\n")).await;
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_fails_the_receipt_that_it_names_and_loses_the_others() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let named = client.send("/queue/q").receipt().enqueue().await.unwrap();
    let other = client.send("/queue/q").receipt().enqueue().await.unwrap();
    server.send("ERROR\nreceipt-id:1\nmessage:no\n\nbecause").await;
    match named.await {
        Err(Error::StompError(frame)) => {
            assert_eq!((frame.headers.get("message"), &frame.body[..]), (Some("no"), &b"because"[..]))
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(other.await, Err(Error::ConnectionLost)));
    assert!(server.is_over().await, "an ERROR ends the connection");
}

#[tokio::test(start_paused = true)]
async fn an_error_that_names_nobody_is_blamed_on_a_subscribe_that_was_not_answered() {
    // RabbitMQ names nobody. If nobody was to blame, the next connection would end like this one.
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let subscribing = tokio::spawn(client.subscribe("/exchange/none").into_future());
    assert!(server.frame().await.starts_with("SUBSCRIBE\n"));
    server.send("ERROR\nmessage:not_found\n\n").await;
    assert!(matches!(subscribing.await.unwrap(), Err(Error::StompError(_))));
    let mut server = listener.connect("0,0").await;
    client.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_subscribing_is_unsubscribed() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let subscribing = timeout(Duration::from_secs(1), client.subscribe("/topic/t").into_future());
    assert!(subscribing.await.is_err());
    server.expect("SUBSCRIBE\n").await;
    server.expect("UNSUBSCRIBE\n").await;
}

#[tokio::test(start_paused = true)]
async fn what_arrives_after_unsubscribing_is_given_back() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let (work, id) = worker(&client, &mut server).await;
    server.message(&id, "1", "").await;
    settled().await;
    drop(work);
    assert_eq!(server.frame().await, "NACK\nid:1\n\n");
    let unsubscribe = server.frame().await;
    assert!(unsubscribe.starts_with("UNSUBSCRIBE\n"));
    server.message(&id, "2", "").await;
    assert_eq!(server.frame().await, "NACK\nid:2\n\n");
    server.send(&format!("RECEIPT\nreceipt-id:{}\n\n", header(&unsubscribe, "receipt").unwrap())).await;
    // From here on nothing of it is known any more.
    server.message(&id, "3", "").await;
    client.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_back_where_that_would_do_harm() {
    // ActiveMQ puts aside what is given back; RabbitMQ wants to hear nothing of a subscription that has ended.
    for server_name in ["ActiveMQ/5.17.2", "RabbitMQ/3.10.8"] {
        let mut listener = Listener::new();
        let connecting = tokio::spawn(listener.builder().connect());
        let (mut server, _) = listener.accept().await;
        server.send(&format!("CONNECTED\nversion:1.2\nserver:{server_name}\n\n")).await;
        let client = connecting.await.unwrap().unwrap();
        let (mut work, id) = worker(&client, &mut server).await;
        for number in 1..=3 {
            server.message(&id, &number.to_string(), "").await;
        }
        let held = work.next().await.unwrap().unwrap();
        drop(work.next().await);
        settled().await;
        drop(work);
        if server_name.starts_with("RabbitMQ") {
            assert_eq!(server.frame().await, "NACK\nid:2\n\n");
            assert_eq!(server.frame().await, "NACK\nid:3\n\n");
        }
        assert!(server.frame().await.starts_with("UNSUBSCRIBE\n"));
        server.message(&id, "4", "").await;
        settled().await;
        if server_name.starts_with("RabbitMQ") {
            assert!(matches!(held.ack().await, Err(Error::Unsupported(_))));
        }
        drop(held);
        client.send("/queue/q").await.unwrap();
        server.expect("SEND\n").await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_one_acknowledgement_does_for_many_dropping_gives_back_only_at_the_end() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let how = client.subscribe("/queue/q").ack(Mode::Client).text();
    let (mut work, id) = subscribed(how, &mut server).await;
    for number in 1..=4 {
        server.message(&id, &number.to_string(), "").await;
    }
    let first = work.next().await.unwrap().unwrap();
    let second = work.next().await.unwrap().unwrap();
    second.ack().await.unwrap();
    first.ack().await.unwrap();
    drop(work.next().await);
    assert_eq!(server.frame().await, "ACK\nid:2\n\n", "that did for the first");
    drop(work);
    assert_eq!(server.frame().await, "NACK\nid:4\n\n", "that does for the third");
    server.expect("UNSUBSCRIBE\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_full_subscription_loses_its_oldest_and_says_so() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let how = client.subscribe("/topic/t").buffer(2, Overflow::DropOldest).text();
    let (mut news, id) = subscribed(how, &mut server).await;
    for number in 0..5 {
        server.message(&id, "m", &number.to_string()).await;
    }
    settled().await;
    let third = news.next().await.unwrap().unwrap();
    assert_eq!((third.payload.as_str(), third.gap), ("3", Some(Gap { dropped: 3, reconnected: false })));
    let fourth = news.next().await.unwrap().unwrap();
    assert_eq!((fourth.payload.as_str(), fourth.gap), ("4", None));
}

#[tokio::test(start_paused = true)]
async fn a_full_subscription_that_is_to_lose_nothing_holds_the_server_up() {
    let mut listener = Listener::with_pipe(1024);
    let builder = listener.builder().heart_beats(Duration::from_secs(10), Duration::from_secs(10));
    let (client, mut server) = tokio::join!(builder.connect(), listener.connect("10000,10000"));
    let client = client.unwrap();
    let how = client.subscribe("/topic/t").buffer(1, Overflow::Wait).text();
    let (mut news, id) = subscribed(how, &mut server).await;
    let (mut reading, mut writing) = tokio::io::split(server.0);
    let flood = tokio::spawn(async move {
        for number in 0..500 {
            let frame = format!("MESSAGE\nsubscription:{id}\nmessage-id:m\ndestination:/x\n\n{number}\0");
            tokio::io::AsyncWriteExt::write_all(&mut writing, frame.as_bytes()).await.unwrap();
        }
        writing
    });
    // Nobody reads for an hour. The server is not taken for dead meanwhile, and hears that we are not either.
    let mut beats = 0;
    let deadline = Instant::now() + Duration::from_secs(3600);
    while let Ok(octet) = tokio::time::timeout_at(deadline, reading.read_u8()).await {
        assert_eq!(octet.unwrap(), b'\n');
        beats += 1;
    }
    assert_eq!(beats, 3600 / 7);
    assert!(!flood.is_finished(), "the server is held up");
    for number in 0..500 {
        let delivery = news.next().await.unwrap().unwrap();
        assert_eq!((delivery.payload, delivery.gap), (number.to_string(), None));
    }
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_sends_waits_for_room_when_the_server_does_not_read() {
    let mut listener = Listener::with_pipe(1024);
    let (client, mut server) = listener.client_of(listener.builder().outbox_bytes(64 * 1024)).await;
    let mut sent = 0;
    while timeout(Duration::from_secs(1), client.send("/queue/q").bytes("", vec![b'x'; 1000]).into_future())
        .await
        .is_ok()
    {
        sent += 1;
    }
    // The outbox, what is gathered for one write, and the pipe.
    assert!((100..140).contains(&sent), "{sent} were taken up");
    let reading = tokio::spawn(async move {
        for _ in 0..=sent {
            server.expect("SEND\n").await;
        }
    });
    client.send("/queue/q").await.unwrap();
    reading.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_receipts_are_owed() {
    let mut listener = Listener::with_pipe(1 << 20);
    let (client, mut server) = listener.client().await;
    let mut receipts = Vec::new();
    for _ in 0..5000 {
        receipts.push(client.send("/q").receipt().enqueue().await.unwrap());
    }
    for _ in 0..4096 {
        assert!(server.frame().await.starts_with("SEND\n"));
    }
    assert!(timeout(Duration::from_secs(1), server.frame()).await.is_err(), "the others wait");
    server.send("RECEIPT\nreceipt-id:1\n\n").await;
    assert!(server.frame().await.starts_with("SEND\n"));
    assert!(receipts.swap_remove(0).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn disconnecting_waits_for_the_receipt_but_not_for_ever() {
    for answers in [true, false] {
        let mut listener = Listener::new();
        let (client, mut server) = listener.client().await;
        client.send("/queue/q").await.unwrap();
        let start = Instant::now();
        let leaving = tokio::spawn(client.disconnect());
        server.expect("SEND\n").await;
        if answers {
            server.expect("DISCONNECT\n").await;
            assert!(server.is_over().await);
            drop(server);
            leaving.await.unwrap().unwrap();
            assert_eq!(start.elapsed(), Duration::ZERO);
        } else {
            assert!(matches!(leaving.await.unwrap(), Err(Error::Timeout(_))));
            assert_eq!(start.elapsed(), Duration::from_secs(5));
            assert!(server.is_over().await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_leaves_nothing_behind() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let late = client.call("/call/p").text("?").timeout(Duration::from_secs(1)).await;
    assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
    let call = server.frame().await;
    assert_eq!((header(&call, "x-timeout"), header(&call, "destination")), (Some("1000"), Some("/call/p")));
    let (reply_to, number) = (header(&call, "reply-to").unwrap(), header(&call, "correlation-id").unwrap());
    let answer =
        format!("MESSAGE\nsubscription:{reply_to}\nmessage-id:1\ndestination:x\ncorrelation-id:{number}");
    server.send(&format!("{answer}\n\ntoo late")).await;
    let again = tokio::spawn(client.call("/call/p").args(&(1, "a")).unwrap().into_future());
    let call = server.frame().await;
    assert_eq!(header(&call, "x-wamp-payload"), Some("args"));
    let number = header(&call, "correlation-id").unwrap();
    let answer =
        format!("MESSAGE\nsubscription:{reply_to}\nmessage-id:1\ndestination:x\ncorrelation-id:{number}");
    server.send(&format!("{answer}\ncontent-type:application/json\n\n[2]")).await;
    assert_eq!(again.await.unwrap().unwrap().decode::<[u8; 1]>().unwrap(), [2]);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_calls_are_unanswered() {
    let mut listener = Listener::with_pipe(1 << 20);
    let (client, mut server) = listener.client().await;
    let calls: Vec<_> = (0..4096).map(|_| tokio::spawn(client.call("/call/p").into_future())).collect();
    for _ in 0..4096 {
        server.expect("SEND\n").await;
    }
    let one_more = client.call("/call/p").await;
    assert!(matches!(one_more, Err(Error::Unsupported(_))), "{one_more:?}");
    // Whoever gives up makes room.
    for call in calls {
        call.abort();
    }
    settled().await;
    let again = tokio::spawn(client.call("/call/p").into_future());
    server.expect("SEND\n").await;
    again.abort();
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_subscriptions_are_made() {
    let mut listener = Listener::with_pipe(1 << 20);
    let (client, mut server) = listener.client().await;
    let answering = tokio::spawn(async move {
        for _ in 0..16 * 1024 {
            server.expect("SUBSCRIBE\n").await;
        }
        server
    });
    let mut subscriptions = Vec::new();
    for _ in 0..16 * 1024 {
        subscriptions.push(client.subscribe("/topic/t").buffer(1, Overflow::DropOldest).await.unwrap());
    }
    let one_more = client.subscribe("/topic/t").await;
    assert!(matches!(one_more, Err(Error::Unsupported(_))), "{one_more:?}");
    drop(answering.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_abort_that_nobody_waits_for_leaves_nothing_settled() {
    let mut listener = Listener::new();
    let (client, mut server) = listener.client().await;
    let (mut jobs, id) = worker(&client, &mut server).await;
    server
        .send(&format!("MESSAGE\nsubscription:{id}\nmessage-id:1\nack:a1\ndestination:/queue/q\n\nx\0"))
        .await;
    let delivery = jobs.next().await.unwrap().unwrap();
    let mut transaction = client.begin().await.unwrap();
    transaction.ack(&delivery).await.unwrap();
    assert!(transaction.abort().now_or_never().is_none());
    drop(delivery);
    for expected in ["BEGIN\n", "ACK\n", "ABORT\n", "NACK\nid:a1\n"] {
        server.expect(expected).await;
    }
}

//! The STOMP client when connections are lost, against a scripted server and in time that stands still.

#![allow(clippy::unwrap_used, reason = "the helpers of a test are its test")]

mod scripted;

use std::future::IntoFuture;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use tandem_client::stomp::{Client, Events, Mode, Subscribe, Subscription};
use tandem_client::{Backoff, ClientEvent, Error, Gap};

use scripted::{Listener, Server, header};

const SECOND: Duration = Duration::from_secs(1);

/// Waits that are known beforehand.
fn steady() -> Backoff {
    Backoff { first: SECOND, factor: 2.0, jitter: 0.0, ..Backoff::default() }
}

async fn client(listener: &mut Listener) -> (Client, Server) {
    listener.client_of(listener.builder().reconnect(steady())).await
}

async fn subscribed<T: 'static>(how: Subscribe<T>, server: &mut Server) -> (Subscription<T>, String) {
    let (subscription, frame) = tokio::join!(how.into_future(), server.expect("SUBSCRIBE\n"));
    (subscription.unwrap(), header(&frame, "id").unwrap().to_owned())
}

/// What an event is called, and why.
async fn event(events: &mut Events) -> String {
    match events.next().await.expect("the client goes on") {
        ClientEvent::Lost(why) => format!("lost: {why}"),
        ClientEvent::GaveUp(why) => format!("gave up: {why}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[tokio::test(start_paused = true)]
async fn heart_beats_go_both_ways_and_silence_is_the_end() {
    let mut listener = Listener::new();
    let builder = listener.builder().heart_beats(10 * SECOND, 5 * SECOND).reconnect(steady());
    let (client, mut server) = tokio::join!(builder.connect(), listener.connect("3000,8000"));
    let mut events = client.as_ref().unwrap().events();
    // We promised ten seconds, it wants eight: ten. It promises three, we want five: five, twice, and a second.
    let start = Instant::now();
    assert_eq!((server.0.read_u8().await.unwrap(), start.elapsed()), (b'\n', 7 * SECOND));
    let alive = start + 10 * SECOND;
    tokio::time::sleep_until(alive).await;
    server.send("\n").await;
    assert_eq!(event(&mut events).await, "lost: the server is silent");
    assert_eq!(alive.elapsed(), 11 * SECOND);
    assert!(server.is_over().await);
    listener.connect("0,0").await;
    assert_eq!(event(&mut events).await, "connected");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_is_made_again_after_longer_and_longer() {
    let mut listener = Listener::new();
    let (client, server) = client(&mut listener).await;
    let mut events = client.events();
    tokio::time::sleep(60 * SECOND).await;
    listener.set_down(4);
    let start = Instant::now();
    drop(server);
    let mut server = listener.connect("0,0").await;
    let waits: Vec<Duration> = listener.dialled()[1..].iter().map(|at| *at - start).collect();
    assert_eq!(waits, [1, 3, 7, 15, 31].map(Duration::from_secs));
    assert_eq!(event(&mut events).await, "lost: the connection ended: end of stream");
    assert_eq!(event(&mut events).await, "connected");
    assert_eq!(event(&mut events).await, "resubscribed");
    client.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
    // One that holds for a while, and the next is made as soon as the first.
    tokio::time::sleep(60 * SECOND).await;
    let start = Instant::now();
    drop(server);
    listener.connect("0,0").await;
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_connections_and_drops_them_is_not_stormed() {
    let mut listener = Listener::new();
    let (_client, server) = client(&mut listener).await;
    let start = Instant::now();
    drop(server);
    for expected in [1, 3, 7, 15] {
        drop(listener.connect("0,0").await);
        assert_eq!(start.elapsed().as_secs(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_gives_up_where_that_was_agreed_on() {
    let mut listener = Listener::new();
    let backoff = Backoff { attempts_max: Some(3), ..steady() };
    let (client, server) = listener.client_of(listener.builder().reconnect(backoff)).await;
    let mut events = client.events();
    tokio::time::sleep(60 * SECOND).await;
    listener.set_down(usize::MAX);
    drop(server);
    assert_eq!(event(&mut events).await, "lost: the connection ended: end of stream");
    // Asked for while there is no connection: it waits for the next.
    let receipt = client.send("/queue/q").receipt().enqueue().await;
    assert_eq!(event(&mut events).await, "gave up: connection refused");
    assert!(events.next().await.is_none());
    assert_eq!(listener.dialled().len(), 3);
    assert!(matches!(receipt.unwrap().await, Err(Error::GaveUp(_))));
    let refused = client.send("/queue/q").await;
    assert_eq!(refused.unwrap_err().to_string(), "the client gave up: connection refused");
    assert!(matches!(client.begin().await, Err(Error::GaveUp(_))));
    assert!(matches!(client.disconnect().await, Err(Error::GaveUp(_))));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_to_reconnect_does_not() {
    let mut listener = Listener::new();
    let (client, server) = listener.client_of(listener.builder().reconnect(Backoff::never())).await;
    let mut events = client.events();
    drop(server);
    assert!(event(&mut events).await.starts_with("lost"));
    assert!(event(&mut events).await.starts_with("gave up"));
    assert_eq!(listener.dialled().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_not_tried_again() {
    let mut listener = Listener::new();
    let connecting = tokio::spawn(listener.builder().connect());
    let (mut server, _) = listener.accept().await;
    server.send("ERROR\nmessage:Access refused\n\n").await;
    assert!(matches!(connecting.await.unwrap(), Err(Error::StompError(_))));
    // Nor when it was good once, as a token is.
    let (client, server) = client(&mut listener).await;
    let mut stream = client.subscribe("/topic/t");
    let mut events = client.events();
    stream = stream.header("x", "y");
    let waiting = tokio::spawn(stream.into_future());
    drop(server);
    let (mut server, _) = listener.accept().await;
    server.send("ERROR\nmessage:Token expired\n\n").await;
    assert!(event(&mut events).await.starts_with("lost"));
    assert_eq!(event(&mut events).await, "gave up: the server sent ERROR: Token expired");
    assert!(matches!(waiting.await.unwrap(), Err(Error::GaveUp(_))));
    assert_eq!(listener.dialled().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_about_to_end_refuses_nobodys_login() {
    let mut listener = Listener::new();
    let (client, server) = client(&mut listener).await;
    drop(server);
    for why in
        ["broker is shutting down", "Limit reached", "Broker: b - Client: c already connected from tcp://d"]
    {
        let (mut server, _) = listener.accept().await;
        server.send(&format!("ERROR\nmessage:{}\n\n", why.replace(':', "\\c"))).await;
    }
    let mut server = listener.connect("0,0").await;
    client.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_fails_and_what_was_not_sent_is_sent_on_the_next() {
    let mut listener = Listener::new();
    let (client, mut server) = client(&mut listener).await;
    let in_flight = client.send("/queue/q").text("in flight").receipt().enqueue().await.unwrap();
    let call = tokio::spawn(client.call("/call/p").into_future());
    for _ in 0..2 {
        assert!(server.frame().await.starts_with("SEND\n"));
    }
    drop(server);
    assert!(matches!(in_flight.await, Err(Error::ConnectionLost)));
    assert!(matches!(call.await.unwrap(), Err(Error::ConnectionLost)));
    let waiting = client.send("/queue/q").text("waiting").receipt().enqueue().await.unwrap();
    let mut server = listener.connect("0,0").await;
    assert!(server.expect("SEND\n").await.ends_with("waiting"));
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_subscribed_to_is_so_again_and_a_gap_is_marked_where_there_may_be_one() {
    let mut listener = Listener::new();
    let (client, mut server) = client(&mut listener).await;
    let mut events = client.events();
    let (mut topic, topic_id) = subscribed(client.subscribe("/topic/t").text(), &mut server).await;
    let how = client.subscribe("/queue/q").ack(Mode::ClientIndividual).text();
    let (mut queue, queue_id) = subscribed(how, &mut server).await;
    let how = client.subscribe("/topic/t").ack(Mode::Client).durable("d").text();
    let (mut durable, durable_id) = subscribed(how, &mut server).await;
    let (gone, _) = subscribed(client.subscribe("/topic/gone"), &mut server).await;
    drop(gone);
    server.expect("UNSUBSCRIBE\n").await;
    server.message(&topic_id, "1", "before").await;
    server.message(&queue_id, "2", "held").await;
    server.message(&queue_id, "3", "unread").await;
    let held = queue.next().await.unwrap().unwrap();
    drop(server);

    let mut server = listener.connect("0,0").await;
    for id in [&durable_id, &topic_id, &queue_id] {
        assert_eq!(header(&server.expect("SUBSCRIBE\n").await, "id"), Some(id.as_str()));
    }
    assert!(event(&mut events).await.starts_with("lost"));
    assert_eq!(event(&mut events).await, "connected");
    assert_eq!(event(&mut events).await, "resubscribed");
    server.message(&topic_id, "1", "after").await;
    server.message(&queue_id, "2", "held").await;
    server.message(&durable_id, "1", "gathered").await;

    // What a topic brought can be read. What it did not bring is missing.
    let before = topic.next().await.unwrap().unwrap();
    assert_eq!((before.payload.as_str(), before.gap), ("before", None));
    let after = topic.next().await.unwrap().unwrap();
    assert_eq!((after.payload.as_str(), after.gap), ("after", Some(Gap { dropped: 0, reconnected: true })));
    // What a queue brought comes again: it is neither missing nor handed out twice without notice.
    let again = queue.next().await.unwrap().unwrap();
    assert_eq!((again.payload.as_str(), again.gap), ("held", None));
    assert!(matches!(held.ack().await, Err(Error::ConnectionLost)));
    assert!(matches!(held.ack_confirmed().await, Err(Error::ConnectionLost)));
    drop(held);
    again.ack().await.unwrap();
    assert_eq!(durable.next().await.unwrap().unwrap().gap, None);
    assert_eq!(server.frame().await, "ACK\nid:2\n\n", "and nothing is said of what came before");
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_was_not_sent_is_not_sent_on_the_next() {
    let mut listener = Listener::new();
    let (client, mut server) = client(&mut listener).await;
    let how = client.subscribe("/queue/q").ack(Mode::ClientIndividual);
    let (mut queue, id) = subscribed(how, &mut server).await;
    server.message(&id, "1", "").await;
    server.message(&id, "2", "").await;
    let (first, second) = (queue.next().await.unwrap().unwrap(), queue.next().await.unwrap().unwrap());
    // The client has not noticed yet.
    drop(server);
    first.ack().await.unwrap();
    let confirmed = second.ack_confirmed().await;
    assert!(matches!(confirmed, Err(Error::ConnectionLost)), "{confirmed:?}");
    let mut server = listener.connect("0,0").await;
    server.expect("SUBSCRIBE\n").await;
    client.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_lost_with_its_connection() {
    let mut listener = Listener::new();
    let (client, mut server) = client(&mut listener).await;
    let begun = client.begin().await.unwrap();
    server.expect("BEGIN\n").await;
    let other = client.begin().await.unwrap();
    server.expect("BEGIN\n").await;
    drop(server);
    let mut server = listener.connect("0,0").await;
    assert!(matches!(begun.send("/queue/q").await, Err(Error::ConnectionLost)));
    let lost = begun.commit().await;
    assert!(matches!(lost, Err(Error::ConnectionLost)), "{lost:?}");
    drop(other);
    client.send("/queue/q").text("outside").await.unwrap();
    assert!(server.expect("SEND\n").await.ends_with("outside"), "nothing of it is sent");
    // A new one is one of the new connection.
    let begun = client.begin().await.unwrap();
    server.expect("BEGIN\n").await;
    begun.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
    let (committed, _) = tokio::join!(begun.commit(), server.expect("COMMIT\n"));
    committed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_refused_later_ends_with_the_servers_words() {
    let mut listener = Listener::new();
    let (client, mut server) = client(&mut listener).await;
    let (mut refused, id) = subscribed(client.subscribe("/topic/t"), &mut server).await;
    drop(server);
    let mut server = listener.connect("0,0").await;
    let frame = server.frame().await;
    assert_eq!(header(&frame, "id"), Some(id.as_str()));
    server
        .send(&format!(
            "ERROR\nreceipt-id:{}\nmessage:Access refused\n\n",
            header(&frame, "receipt").unwrap()
        ))
        .await;
    assert!(matches!(refused.next().await, Some(Err(Error::StompError(_)))));
    assert!(refused.next().await.is_none());
    // It does not end the next connection as well.
    let mut server = listener.connect("0,0").await;
    client.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_subscription_gets_it_on_the_next_connection() {
    let mut listener = Listener::new();
    let (client, mut server) = client(&mut listener).await;
    let waiting = tokio::spawn(client.subscribe("/topic/t").text().into_future());
    assert!(server.frame().await.starts_with("SUBSCRIBE\n"));
    drop(server);
    let mut server = listener.connect("0,0").await;
    let id = header(&server.expect("SUBSCRIBE\n").await, "id").unwrap().to_owned();
    let mut subscription = waiting.await.unwrap().unwrap();
    server.message(&id, "1", "first").await;
    assert_eq!(subscription.next().await.unwrap().unwrap().gap, None, "nothing was promised before");
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_at_which_connection_after_connection_is_lost_is_given_up() {
    // RabbitMQ closes WebSockets so where an exchange does not exist.
    let mut listener = Listener::new();
    let (client, mut server) = client(&mut listener).await;
    let waiting = tokio::spawn(client.subscribe("/exchange/none").into_future());
    for _ in 0..3 {
        assert!(server.frame().await.starts_with("SUBSCRIBE\n"));
        drop(server);
        server = listener.connect("0,0").await;
    }
    assert!(matches!(waiting.await.unwrap(), Err(Error::ConnectionLost)));
    client.send("/queue/q").await.unwrap();
    server.expect("SEND\n").await;
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_while_there_is_no_connection_leaves_at_once() {
    for explicitly in [true, false] {
        let mut listener = Listener::new();
        let (client, server) = client(&mut listener).await;
        let mut events = client.events();
        listener.set_down(usize::MAX);
        drop(server);
        assert!(event(&mut events).await.starts_with("lost"));
        let start = Instant::now();
        if explicitly {
            assert!(matches!(client.disconnect().await, Err(Error::ConnectionLost)));
        } else {
            drop(client);
        }
        assert!(timeout(SECOND, events.next()).await.unwrap().is_none());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_nobody_reads_are_dropped() {
    let mut listener = Listener::new();
    let backoff = Backoff { first: Duration::from_millis(1), factor: 1.0, ..steady() };
    let (client, mut server) = listener.client_of(listener.builder().reconnect(backoff)).await;
    let mut events = client.events();
    for _ in 0..100 {
        drop(server);
        server = listener.connect("0,0").await;
    }
    client.disconnect().await.unwrap_err();
    let mut count = 0;
    while events.next().await.is_some() {
        count += 1;
    }
    assert_eq!(count, 64);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_given_up_before_there_was_a_connection_is_not_made() {
    let mut listener = Listener::new();
    let (client, server) = client(&mut listener).await;
    let mut events = client.events();
    drop(server);
    assert!(event(&mut events).await.starts_with("lost"));
    let call = timeout(SECOND / 10, client.call("/call/p").into_future());
    assert!(call.await.is_err());
    let mut server = listener.connect("0,0").await;
    client.send("/queue/q").await.unwrap();
    let first = server.expect("SEND\n").await;
    assert_eq!(header(&first, "destination"), Some("/queue/q"));
}

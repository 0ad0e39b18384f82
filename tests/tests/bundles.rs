//! A publisher that writes many messages at once: they go through the broker together, and nobody who gets them can tell.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails a test")]

use tandem_client::raw::dial::{WebSocketOptions, connect_rawsocket, connect_tcp, connect_websocket};
use tandem_client::raw::stomp::AckMode;
use tandem_client::raw::wamp::MatchPolicy;
use tandem_client::raw::{stomp, wamp};
use tandem_protocols::payload::{Content, Format};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::GOODBYE_AND_OUT;
use tandem_protocols::wamp::message::{Goodbye, Message, Publish, Subscribe};
use tandem_protocols::wamp::rawsocket::Limit;
use tandem_protocols::websocket::extensions::{Mode, Policy};
use tandem_tests::broker::{Broker, soon};
use tandem_tests::daemon::Daemon;
use tandem_tests::peers;

/// More than one bundle holds.
const BURST: usize = 200;

const FORMATS: [Format; 3] = [Format::Json, Format::MsgPack, Format::Cbor];

fn text(place: usize) -> String {
    format!("{place:0100}")
}

/// To be written with others.
fn feed_publish(client: &mut wamp::Client, topic: &str, place: usize, options: Dict) {
    let payload = Content::Arguments(client.args(&(text(place),)).unwrap());
    let publish = Publish { request: client.take_request(), options, topic: topic.to_owned(), payload };
    client.link().feed(publish).unwrap();
}

enum Receiver {
    Wamp(Box<wamp::Client>),
    Stomp(Box<stomp::Client>),
}

impl Receiver {
    async fn expect(&mut self, what: &str, places: std::ops::Range<usize>) {
        for place in places {
            let found = soon(what, self.next()).await;
            let found = String::from_utf8_lossy(&found).into_owned();
            assert!(found.contains(&text(place)), "{what}: not {place}: {found}");
        }
    }

    async fn next(&mut self) -> bytes::Bytes {
        match self {
            Receiver::Wamp(client) => match client.receive().await.unwrap() {
                Message::Event(event) => match event.payload {
                    Content::Arguments(arguments) => arguments.args,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            },
            Receiver::Stomp(client) => client.receive_frame().await.unwrap().body,
        }
    }
}

#[tokio::test]
async fn a_burst_comes_whole_and_in_order_to_whoever_subscribed_by_whatever_way() {
    let daemon = Daemon::start(&[]);
    let address = daemon.address();
    let authority = address.to_string();
    let mut receivers: Vec<(&str, Receiver)> = Vec::new();
    for (what, format) in [("JSON", Format::Json), ("MessagePack", Format::MsgPack), ("CBOR", Format::Cbor)] {
        // Two each: the second gets what was made for the first.
        for _ in 0..2 {
            receivers.push((what, Receiver::Wamp(Box::new(peers::wamp(address, format).await))));
        }
    }
    let compression = Policy { mode: Mode::Offered, ..Policy::default() };
    let options = WebSocketOptions { compression, ..WebSocketOptions::default() };
    for _ in 0..2 {
        let transport = connect_websocket(address, "/", &["wamp.2.json"], &options).await.unwrap();
        assert!(transport.compression().is_some());
        let client = peers::wamp_over(transport, Format::Json).await;
        receivers.push(("compressed", Receiver::Wamp(Box::new(client))));
    }
    let raw = connect_rawsocket(&authority, Format::MsgPack, Limit::MAX).await.unwrap();
    let client = peers::wamp_over(raw, Format::MsgPack).await;
    receivers.push(("RawSocket", Receiver::Wamp(Box::new(client))));
    for _ in 0..2 {
        receivers.push(("STOMP", Receiver::Stomp(Box::new(peers::stomp(address).await))));
    }
    let client = peers::stomp_over(connect_tcp(&authority).await.unwrap()).await;
    receivers.push(("STOMP over TCP", Receiver::Stomp(Box::new(client))));
    for (place, (_, receiver)) in receivers.iter_mut().enumerate() {
        match receiver {
            Receiver::Wamp(client) => drop(client.subscribe("burst", MatchPolicy::Exact).await.unwrap()),
            Receiver::Stomp(client) => {
                let id = format!("mine-{}", place % 2);
                client.subscribe("/topic/burst", &id, AckMode::Auto, &[]).await.unwrap();
            }
        }
    }

    let encodings = daemon.metric("tandem_encodings_total");
    let mut publisher = peers::wamp(address, Format::Json).await;
    (0..BURST).for_each(|place| feed_publish(&mut publisher, "burst", place, Dict::new()));
    publisher.flush().await.unwrap();
    for (what, receiver) in &mut receivers {
        receiver.expect(what, 0..BURST).await;
    }
    // One for each dialect and message it would be, if they did not go together.
    let encodings = daemon.metric("tandem_encodings_total") - encodings;
    assert!(encodings < BURST as i64, "{encodings} encodings");

    let mut publisher = peers::stomp(address).await;
    for place in 0..BURST {
        publisher.send("/topic/burst", &[("content-type", "text/plain")], text(place)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    for (what, receiver) in &mut receivers {
        receiver.expect(what, 0..BURST).await;
    }
}

#[tokio::test]
async fn what_is_but_arguments_and_what_is_more_keep_their_order_in_one_write() {
    let broker = Broker::start().await;
    for format in FORMATS {
        let mut receivers = Vec::new();
        for reads in FORMATS {
            let mut client = peers::wamp(broker.address(), reads).await;
            client.subscribe("mixed", MatchPolicy::Exact).await.unwrap();
            receivers.push(Receiver::Wamp(Box::new(client)));
        }
        let mut stomp = peers::stomp(broker.address()).await;
        stomp.subscribe("/topic/mixed", "1", AckMode::Auto, &[]).await.unwrap();
        receivers.push(Receiver::Stomp(Box::new(stomp)));
        let mut publisher = peers::wamp(broker.address(), format).await;
        for place in 0..BURST {
            let options = match place % 7 {
                3 => Dict::new().with("x_headers", Dict::new().with("a", "1")),
                5 => Dict::new().with("disclose_me", true),
                _ => Dict::new(),
            };
            feed_publish(&mut publisher, "mixed", place, options);
        }
        // What is no name is refused to nobody who did not ask, and changes nothing.
        feed_publish(&mut publisher, "mixed..up", BURST, Dict::new());
        publisher.flush().await.unwrap();
        for receiver in &mut receivers {
            receiver.expect("mixed", 0..BURST).await;
        }
    }
}

#[tokio::test]
async fn what_else_a_session_does_comes_after_what_it_published_before_in_the_same_write() {
    let broker = Broker::start().await;
    for format in FORMATS {
        let mut client = peers::wamp(broker.address(), format).await;
        let to_me_too = || Dict::new().with("exclude_me", false);
        (0..3).for_each(|place| feed_publish(&mut client, "own", place, to_me_too()));
        let (request, options) = (client.take_request(), Dict::new());
        client.link().feed(Subscribe { request, options, topic: "own".to_owned() }).unwrap();
        (3..6).for_each(|place| feed_publish(&mut client, "own", place, to_me_too()));
        client.flush().await.unwrap();
        assert!(matches!(soon("SUBSCRIBED", client.receive()).await.unwrap(), Message::Subscribed(_)));
        Receiver::Wamp(Box::new(client)).expect("its own", 3..6).await;
    }
}

#[tokio::test]
async fn each_publication_of_a_burst_is_acknowledged_and_the_last_before_the_goodbye_arrives() {
    let broker = Broker::start().await;
    let mut subscriber = peers::wamp(broker.address(), Format::Json).await;
    subscriber.subscribe("last", MatchPolicy::Exact).await.unwrap();
    let mut client = peers::wamp(broker.address(), Format::MsgPack).await;
    let acknowledged = || Dict::new().with("acknowledge", true);
    (0..BURST).for_each(|place| feed_publish(&mut client, "last", place, acknowledged()));
    client.link().feed(Goodbye { details: Dict::new(), reason: GOODBYE_AND_OUT.to_owned() }).unwrap();
    client.flush().await.unwrap();
    let mut last = None;
    for _ in 0..BURST {
        let Message::Published(published) = soon("PUBLISHED", client.receive()).await.unwrap() else {
            panic!()
        };
        assert_eq!(
            Some(published.request),
            last.map_or(Some(published.request), |last: tandem_protocols::wamp::id::Id| last.next().into())
        );
        last = Some(published.request);
    }
    Receiver::Wamp(Box::new(subscriber)).expect("before the goodbye", 0..BURST).await;
}

//! A WebSocket echo server built from the front end, for test suites of the protocol itself.
//!
//! `cargo run --release --example websocket_echo -- 127.0.0.1:9001`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use tandem_broker::config::Config;
use tandem_broker::core::access::{Authenticating, Authenticator, Credentials, Peer, Principal, Refusal};
use tandem_broker::core::mailbox::Mailbox;
use tandem_broker::core::message::{Frame, Kind, Message};
use tandem_broker::core::parcel::Parcel;
use tandem_broker::core::protocol::{Output, Protocol, Session};
use tandem_broker::front::door::Door;
use tandem_broker::front::listener::{Secured, Uses, bind};

struct Echo;

struct EchoSession {
    answers: std::collections::VecDeque<Message>,
}

impl Protocol for Echo {
    fn tokens(&self) -> &'static [&'static str] {
        &["echo"]
    }

    fn open(&self, _: &'static str, _: &Peer, _: Mailbox, _: Instant) -> Box<dyn Session> {
        Box::new(EchoSession { answers: Default::default() })
    }
}

impl Session for EchoSession {
    fn receive(&mut self, kind: Kind, bytes: Bytes, _: Instant) {
        self.answers.push_back(Message::new(kind, bytes));
    }

    fn poll(&mut self) -> Option<Output> {
        self.answers.pop_front().map(|answer| Output::Send(Frame::Own(answer)))
    }

    fn deliver(&mut self, _: Parcel, _: Instant) {}

    fn tick(&mut self, _: Instant) {}

    fn pause(&mut self, _: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn fail(&mut self, _: &str, _: Instant) {}

    fn is_established(&self) -> bool {
        true
    }

    fn is_congested(&self, _: &std::task::Waker) -> bool {
        false
    }
}

struct Everybody;

impl Authenticator for Everybody {
    fn anonymous(&self, _: &Peer) -> Option<Principal> {
        None
    }

    fn authenticate(&self, _: Credentials, _: &Peer) -> Authenticating {
        Box::pin(async { Err(Refusal::WrongSecret) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::args().nth(1).ok_or("give an address to listen at")?.parse()?;
    let mut settings = Config::default().front()?;
    settings.default_token = Some("echo");
    // The suite sends messages of 16 MiB, some of them octet by octet.
    let established = Arc::make_mut(&mut settings.websocket.established);
    established.message_bytes_max = 64 * 1024 * 1024;
    established.fragments_max = 1 << 20;
    established.inflate_ratio_max = u32::MAX;
    settings.pump.owed_bytes_max = 64 * 1024 * 1024;
    settings.pump.message_time_max = Duration::from_secs(120);
    let door = Door::new(settings, vec![Arc::new(Echo)], Arc::new(Everybody), Arc::new(rand::random::<u64>));
    door.clone().listen(bind(address)?, Uses { secured: Secured::No, proxied: false }).await;
    Ok(())
}

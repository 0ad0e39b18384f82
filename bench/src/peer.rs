//! A connection to a broker in any language: opened, logged in, subscribed. What flows after that is bytes.

use bytes::Bytes;

use tandem_client::raw::stomp::AckMode;
use tandem_client::raw::transport::Kind;
use tandem_client::raw::wamp::{self, Login, MatchPolicy};
use tandem_client::{Address, Error as ClientError, Wire};
use tandem_protocols::wamp::codec;

use crate::error::Error;
use crate::language::{Ear, Heard, Language, mqtt_length, mqtt_text};
use crate::options::Common;
use crate::wire::{StompWire, ended};

/// Somebody who is connected.
#[derive(Debug)]
pub struct Peer {
    wire: Wire,
    ear: Ear,
    kind: Kind,
}

impl Peer {
    /// Connects, and logs in.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`], and [`Error::Usage`] where the URL does not carry the language.
    pub async fn open(common: &Common, language: Language) -> Result<Self, Error> {
        let wire = match language {
            Language::Stomp => StompWire::connect(common).await?.into_link().into_transport(),
            Language::Nats => greet_nats(stream(common).await?, common).await?,
            Language::Mqtt => greet_mqtt(stream(common).await?, common).await?,
            Language::WampJson | Language::WampMsgpack | Language::WampCbor => {
                join(common, language).await?.into_link().into_transport()
            }
        };
        Ok(Self::over(wire, language))
    }

    /// Connects, logs in and subscribes to the topic. What is published from now on comes.
    ///
    /// # Errors
    ///
    /// See [`open`](Self::open).
    pub async fn subscribed(common: &Common, language: Language, topic: &str) -> Result<Self, Error> {
        let failed = |error: ClientError| Error::connect(&format!("SUBSCRIBE at {}", common.url), error);
        match language {
            Language::Stomp => {
                let mut client = StompWire::connect(common).await?;
                client.subscribe(topic, "bench", AckMode::Auto, &[]).await.map_err(failed)?;
                Ok(Self::over(client.into_link().into_transport(), language))
            }
            Language::Nats => {
                let mut peer = Self::open(common, language).await?;
                let asked = format!("SUB {topic} 1\r\nPING\r\n");
                peer.ask(asked.as_bytes(), b"PONG").await.map_err(failed)?;
                Ok(peer)
            }
            Language::Mqtt => {
                let mut peer = Self::open(common, language).await?;
                let mut asked = vec![0x82];
                mqtt_length(2 + 2 + topic.len() + 1, &mut asked);
                asked.extend_from_slice(&[0, 1]);
                mqtt_text(topic, &mut asked);
                asked.push(0);
                peer.ask(&asked, &[0x90]).await.map_err(failed)?;
                Ok(peer)
            }
            Language::WampJson | Language::WampMsgpack | Language::WampCbor => {
                let mut client = join(common, language).await?;
                client.subscribe(topic, MatchPolicy::Exact).await.map_err(failed)?;
                Ok(Self::over(client.into_link().into_transport(), language))
            }
        }
    }

    fn over(wire: Wire, language: Language) -> Self {
        let kind = match language {
            Language::WampJson | Language::Stomp => Kind::Text,
            _ => Kind::Binary,
        };
        // A RawSocket keeps messages apart as a WebSocket does, and carries nothing but WAMP.
        let ear = Ear::new(language, wire.has_kinds());
        Self { wire, ear, kind }
    }

    /// Takes a message to be written.
    ///
    /// # Errors
    ///
    /// Those of [`Wire::feed`].
    pub fn feed(&mut self, message: &[u8]) -> Result<(), ClientError> {
        self.wire.feed(self.kind, message)
    }

    /// Writes what waits.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.wire.flush().await
    }

    /// Waits until something comes, and shows all that has come. Pings are answered. May be cancelled.
    ///
    /// # Errors
    ///
    /// Those of the network.
    pub async fn hear(&mut self, mut heard: impl FnMut(Heard)) -> Result<(), ClientError> {
        let Some(message) = self.wire.next().await? else { return Err(ended(&self.wire)) };
        self.take(message.bytes, &mut heard)?;
        while let Some(message) = self.wire.try_next() {
            self.take(message.bytes, &mut heard)?;
        }
        Ok(())
    }

    /// Why the connection has ended, if it has.
    pub async fn has_ended(&mut self) -> Option<ClientError> {
        tokio::select! {
            biased;
            heard = self.hear(|_| ()) => heard.err(),
            () = std::future::ready(()) => None,
        }
    }

    fn take(&mut self, bytes: Bytes, heard: &mut impl FnMut(Heard)) -> Result<(), ClientError> {
        self.ear.feed(bytes);
        while let Some(piece) = self.ear.next() {
            match piece {
                // Written with the next wait.
                Heard::Ping(answer) => self.wire.feed(self.kind, answer)?,
                Heard::Chatter => {}
                piece => heard(piece),
            }
        }
        Ok(())
    }

    /// Asks, and waits for an answer that begins like this.
    async fn ask(&mut self, question: &[u8], answer: &[u8]) -> Result<(), ClientError> {
        self.wire.feed(self.kind, question)?;
        expect(&mut self.wire, answer).await
    }
}

/// Waits for something that begins like this, or has a line that does.
async fn expect(wire: &mut Wire, answer: &[u8]) -> Result<(), ClientError> {
    let answered = async {
        while let Some(message) = wire.next().await? {
            if message.bytes.starts_with(answer)
                || message.bytes.split(|byte| *byte == b'\n').any(|line| line.starts_with(answer))
            {
                return Ok(());
            }
        }
        Err(ended(wire))
    };
    tokio::time::timeout(wamp::REPLY_TIMEOUT, answered).await.map_err(|_| ClientError::Timeout("answer"))?
}

/// Somebody who has joined the realm.
pub(crate) async fn join(common: &Common, language: Language) -> Result<wamp::Client<Wire>, Error> {
    let Some(format) = language.format() else { return Err(Error::Usage("this is not WAMP".into())) };
    let failed = |error: ClientError| {
        Error::connect(&format!("{} at {}", codec::subprotocol(format), common.url), error)
    };
    let (wire, format) = common.connector().wamp(&[format]).await.map_err(failed)?;
    let login = match (&common.login, &common.passcode) {
        (Some(authid), Some(ticket)) => Login::Ticket { authid: authid.clone(), ticket: ticket.clone() },
        _ => Login::Anonymous,
    };
    wamp::Client::join(wire, format, &common.realm, &login).await.map_err(failed)
}

/// A stream of bytes, in whatever it is wrapped: as of STOMP, but no subprotocol is offered.
async fn stream(common: &Common) -> Result<Wire, Error> {
    if let Address::LongPoll(_) = common.url {
        return Err(Error::Usage(format!("{}: long-polling carries WAMP and STOMP only", common.url)));
    }
    let opened = common.connector().stomp(&[]).await;
    opened.map(|(wire, _)| wire).map_err(|error| Error::connect(&common.url.to_string(), error))
}

async fn greet_nats(mut wire: Wire, common: &Common) -> Result<Wire, Error> {
    let greeting = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"tandem-bench\"}\r\nPING\r\n";
    let greeted = async {
        wire.feed(Kind::Binary, greeting)?;
        expect(&mut wire, b"PONG").await
    };
    greeted.await.map_err(|error| Error::connect(&format!("NATS at {}", common.url), error))?;
    Ok(wire)
}

async fn greet_mqtt(mut wire: Wire, common: &Common) -> Result<Wire, Error> {
    let mut greeting = vec![0x10];
    let name = format!("tandem-bench-{:016x}", rand::random::<u64>());
    mqtt_length(10 + 2 + name.len(), &mut greeting);
    mqtt_text("MQTT", &mut greeting);
    // 3.1.1, a clean session, no heart-beats.
    greeting.extend_from_slice(&[4, 2, 0, 0]);
    mqtt_text(&name, &mut greeting);
    let greeted = async {
        wire.feed(Kind::Binary, &greeting)?;
        expect(&mut wire, &[0x20, 2, 0, 0]).await
    };
    greeted.await.map_err(|error| Error::connect(&format!("MQTT at {}", common.url), error))?;
    Ok(wire)
}

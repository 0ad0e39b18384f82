//! Messages of one connection, whatever carries it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use tandem_protocols::wamp::auth::{BindingKind, ChannelBinding};
use tandem_protocols::websocket::extensions::Agreement;

use crate::error::Error;
use crate::longpoll::LongPoll;
use crate::message::{Closed, Kind, Message};
use crate::raw::carrier::Carrier;
use crate::raw::transport::Transport;
use crate::tls::Exporter;

pub use crate::doorway::ByteStream;

/// A connection that a session speaks over.
pub struct Wire {
    medium: Medium,
    keep_alive: Option<KeepAlive>,
    /// What the connection can be bound by.
    exporter: Option<Box<Exporter>>,
}

enum Medium {
    Stream(Box<Transport<Box<dyn ByteStream>>>),
    LongPoll(Box<LongPoll>),
}

impl Wire {
    /// Over a stream on which both ends have agreed on what frames messages.
    pub fn new(transport: Transport<Box<dyn ByteStream>>) -> Wire {
        Wire { medium: Medium::Stream(Box::new(transport)), keep_alive: None, exporter: None }
    }

    /// Over requests of HTTP.
    pub(crate) fn polling(longpoll: LongPoll) -> Wire {
        Wire { medium: Medium::LongPoll(Box::new(longpoll)), keep_alive: None, exporter: None }
    }

    /// The same, which asks after `silence` whether the server is there, and ends with [`Error::Silent`] when that has
    /// been quiet for twice as long. Not over plain TCP, which has no pings, nor over long-polling, where the server
    /// must answer anyway. Must be called in a tokio runtime.
    #[must_use]
    pub fn kept_alive(mut self, silence: Duration) -> Wire {
        let has_pings = matches!(&self.medium, Medium::Stream(transport) if transport.has_pings());
        self.keep_alive = has_pings.then(|| KeepAlive::new(silence));
        self
    }

    /// The same over TLS, bound by this.
    pub(crate) fn bound_by(mut self, exporter: Option<Exporter>) -> Wire {
        self.exporter = exporter.map(Box::new);
        self
    }

    /// What binds a proof of WAMP's cryptosign or SCRAM to this connection: `tls-exporter`, which there is over TLS 1.3
    /// and not over long-polling, where each request may go over another connection.
    pub fn channel_binding(&self) -> Option<ChannelBinding<'_>> {
        let exporter = self.exporter.as_deref()?;
        Some(ChannelBinding { kind: BindingKind::TlsExporter, data: exporter })
    }

    /// The subprotocol that the server chose, of WebSocket or of long-polling.
    pub fn subprotocol(&self) -> Option<&str> {
        match &self.medium {
            Medium::Stream(transport) => transport.subprotocol(),
            Medium::LongPoll(longpoll) => Some(longpoll.protocol()),
        }
    }

    /// How a WebSocket compresses, if it does.
    pub fn compression(&self) -> Option<&Agreement> {
        match &self.medium {
            Medium::Stream(transport) => transport.compression(),
            Medium::LongPoll(_) => None,
        }
    }

    /// Whether messages have a kind.
    pub fn has_kinds(&self) -> bool {
        match &self.medium {
            Medium::Stream(transport) => transport.has_kinds(),
            Medium::LongPoll(_) => false,
        }
    }

    /// How it ended, once all that came before was taken.
    pub fn closed(&self) -> Option<&Closed> {
        match &self.medium {
            Medium::Stream(transport) => transport.closed(),
            Medium::LongPoll(longpoll) => longpoll.closed(),
        }
    }

    /// Bytes that were fed and are not written.
    pub fn output_bytes(&self) -> usize {
        match &self.medium {
            Medium::Stream(transport) => transport.output_bytes(),
            Medium::LongPoll(longpoll) => longpoll.output_bytes(),
        }
    }

    /// Takes a message to be written with the next [`flush`](Self::flush) or [`next`](Self::next).
    ///
    /// # Errors
    ///
    /// See [`Transport::feed`].
    pub fn feed(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        match &mut self.medium {
            Medium::Stream(transport) => transport.feed(kind, payload),
            Medium::LongPoll(longpoll) => longpoll.feed(payload),
        }
    }

    /// Writes all that was fed. May be cancelled.
    ///
    /// # Errors
    ///
    /// Those of the network, and [`Error::Silent`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        let Wire { medium, keep_alive, .. } = self;
        match medium {
            Medium::Stream(transport) => {
                poll_fn(|cx| poll_alive(keep_alive, transport, cx, Transport::poll_flush)).await
            }
            Medium::LongPoll(longpoll) => poll_fn(|cx| longpoll.poll_flush(cx)).await,
        }
    }

    /// The next message, or over plain TCP a piece of the stream; `None` once it has ended. Writes meanwhile. May be
    /// cancelled: nothing is lost.
    ///
    /// # Errors
    ///
    /// Those of the network, what the server does against the rules, and [`Error::Silent`].
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        if let Some(message) = self.try_next() {
            return Ok(Some(message));
        }
        let Wire { medium, keep_alive, .. } = self;
        match medium {
            Medium::Stream(transport) => {
                poll_fn(|cx| poll_alive(keep_alive, transport, cx, Transport::poll_next)).await
            }
            Medium::LongPoll(longpoll) => poll_fn(|cx| longpoll.poll_next(cx)).await,
        }
    }

    /// The next message if it is here already.
    pub fn try_next(&mut self) -> Option<Message> {
        match &mut self.medium {
            Medium::Stream(transport) => transport.try_next(),
            Medium::LongPoll(longpoll) => longpoll.try_next(),
        }
    }

    /// Ends the connection in good order. One that is dropped ends, too, but over long-polling the broker notices only
    /// when nobody has asked for messages for a while.
    ///
    /// # Errors
    ///
    /// See [`Transport::close`].
    pub async fn close(&mut self) -> Result<Closed, Error> {
        match &mut self.medium {
            Medium::Stream(transport) => transport.close().await,
            Medium::LongPoll(longpoll) => longpoll.close().await,
        }
    }
}

impl Carrier for Wire {
    fn has_kinds(&self) -> bool {
        Wire::has_kinds(self)
    }

    fn closed(&self) -> Option<&Closed> {
        Wire::closed(self)
    }

    fn output_bytes(&self) -> usize {
        Wire::output_bytes(self)
    }

    fn feed(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        Wire::feed(self, kind, payload)
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Wire::flush(self).await
    }

    async fn next(&mut self) -> Result<Option<Message>, Error> {
        Wire::next(self).await
    }

    async fn close(&mut self) -> Result<Closed, Error> {
        Wire::close(self).await
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("closed", &self.closed()).finish_non_exhaustive()
    }
}

/// Watches over silence. The timer runs at its own pace and looks what came meanwhile, so that messages cost it nothing.
struct KeepAlive {
    /// Between two looks.
    pace: Duration,
    timer: Pin<Box<Sleep>>,
    /// Looks in a row at which nothing had come.
    quiet: u32,
    bytes_read: u64,
    bytes_written: u64,
}

/// Looks without anything before a ping, and before the end.
const QUIET_BEFORE_PING: u32 = 2;
const QUIET_MAX: u32 = 2 * QUIET_BEFORE_PING;

impl KeepAlive {
    fn new(silence: Duration) -> KeepAlive {
        let pace = (silence / QUIET_BEFORE_PING).max(Duration::from_millis(1));
        KeepAlive { pace, timer: Box::pin(sleep(pace)), quiet: 0, bytes_read: 0, bytes_written: 0 }
    }

    /// Ready with an error after too much silence, and without one when there is a ping to be written.
    fn poll<S: ByteStream>(
        &mut self,
        transport: &mut Transport<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        while self.timer.as_mut().poll(cx).is_ready() {
            self.timer.as_mut().reset(Instant::now() + self.pace);
            let (read, written) = (transport.bytes_read(), transport.bytes_written());
            // Who takes what there is for it, however slowly, is there.
            let takes = transport.output_bytes() > 0 && written != self.bytes_written;
            let is_quiet = read == self.bytes_read && !takes;
            self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
            (self.bytes_read, self.bytes_written) = (read, written);
            if self.quiet >= QUIET_MAX {
                return Poll::Ready(Err(Error::Silent));
            }
            // Where no more is to be fed the ping would only wait, too.
            if self.quiet == QUIET_BEFORE_PING && transport.feed_ping(b"").is_ok() {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

type PollFn<S, T> = fn(&mut Transport<S>, &mut Context<'_>) -> Poll<Result<T, Error>>;

/// Polls a transport, and watches over it where it waits.
fn poll_alive<S: ByteStream, T>(
    keep_alive: &mut Option<KeepAlive>,
    transport: &mut Transport<S>,
    cx: &mut Context<'_>,
    poll: PollFn<S, T>,
) -> Poll<Result<T, Error>> {
    loop {
        if let Poll::Ready(result) = poll(transport, cx) {
            return Poll::Ready(result);
        }
        let Some(keep_alive) = keep_alive else { return Poll::Pending };
        match keep_alive.poll(transport, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use tandem_protocols::payload::Format;
    use tandem_protocols::wamp::rawsocket::Limit;

    use super::*;
    use crate::raw::dial::open_rawsocket;

    const SILENCE: Duration = Duration::from_secs(20);

    /// A RawSocket that is kept alive, and the server's end.
    async fn rawsocket(bytes: usize) -> (Wire, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(bytes);
        let ours: Box<dyn ByteStream> = Box::new(ours);
        let server = async {
            let mut asked = [0; 4];
            theirs.read_exact(&mut asked).await.unwrap();
            theirs.write_all(&asked).await.unwrap();
        };
        let (transport, ()) = tokio::join!(open_rawsocket(ours, Format::Json, Limit::MAX), server);
        (Wire::new(transport.unwrap()).kept_alive(SILENCE), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_asked_and_then_given_up() {
        let (mut wire, mut server) = rawsocket(64).await;
        let begin = Instant::now();
        let silent = tokio::spawn(async move { wire.next().await });
        let mut ping = [0; 4];
        server.read_exact(&mut ping).await.unwrap();
        assert_eq!((ping, begin.elapsed().as_secs()), ([1, 0, 0, 0], SILENCE.as_secs()));
        assert!(matches!(silent.await.unwrap(), Err(Error::Silent)));
        assert_eq!(begin.elapsed().as_secs(), 2 * SILENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_pings_or_says_something_is_there() {
        let (mut wire, mut server) = rawsocket(64).await;
        let answering = tokio::spawn(async move {
            let mut ping = [0; 4];
            for _ in 0..100 {
                server.read_exact(&mut ping).await.unwrap();
                assert_eq!(ping, [1, 0, 0, 0]);
                server.write_all(&[2, 0, 0, 0]).await.unwrap();
            }
            server.write_all(&[0, 0, 0, 1, b'x']).await.unwrap();
            server
        });
        assert_eq!(wire.next().await.unwrap().unwrap().bytes, "x");
        let mut server = answering.await.unwrap();
        // Who always says something in time is not even asked.
        let talking = tokio::spawn(async move {
            for _ in 0..100 {
                tokio::time::sleep(SILENCE / 2).await;
                server.write_all(&[0, 0, 0, 1, b'x']).await.unwrap();
            }
            server
        });
        for _ in 0..100 {
            wire.next().await.unwrap().unwrap();
        }
        let mut server = talking.await.unwrap();
        drop(wire);
        let mut asked = Vec::new();
        server.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (mut wire, mut server) = rawsocket(1).await;
        wire.feed(Kind::Binary, &[7; 100]).unwrap();
        let taking = tokio::spawn(async move {
            for _ in 0..104 {
                tokio::time::sleep(SILENCE / 3).await;
                server.read_u8().await.unwrap();
            }
            server
        });
        wire.flush().await.unwrap();
        let _server = taking.await.unwrap();
        wire.feed(Kind::Binary, &[7; 100]).unwrap();
        assert!(matches!(wire.flush().await, Err(Error::Silent)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_unread_counts_when_it_is_read() {
        let (mut wire, mut server) = rawsocket(64).await;
        server.write_all(&[0, 0, 0, 1, b'x']).await.unwrap();
        tokio::time::sleep(10 * SILENCE).await;
        assert_eq!(wire.next().await.unwrap().unwrap().bytes, "x");
        let answer = tokio::time::timeout(SILENCE / 4, wire.next()).await;
        assert!(answer.is_err(), "its owner was silent, not the server");
    }
}

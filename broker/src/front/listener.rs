//! Accepting connections, and telling by their first bytes what they speak.
//!
//! One port takes everything. A first octet of 7F is RawSocket; what a language recognises as its own is a
//! plain stream of it; anything else is HTTP, which has answers for what it does not understand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol as SocketProtocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::core::access::Peer;
use crate::core::protocol::Recognition;
use crate::core::proxied::Proxied;
use crate::front::connection::now;
use crate::front::door::Door;
use crate::front::gate::{Permit, Place};
use crate::front::http;
use crate::front::pace::Pace;
use crate::front::proxy_protocol;
use crate::front::rawsocket::{self, Refused};
use crate::front::tls::{self, Tls};
use crate::front::transport::Transport;
use crate::front::unwelcome::Unwelcome;
use crate::front::wire::{Foreign, Opened, Stream};
use crate::metrics;

/// The longest beginning that is looked at to tell what a peer speaks.
const FIRST_BYTES_MAX: usize = 64;

/// Pending connections that the kernel keeps.
pub(super) const BACKLOG: i32 = 4096;

/// So many connections beyond the maximum are kept until they were told, or had one answer of HTTP: who asks whether the
/// broker is well is to hear that also when it is full.
const TOLD_MAX: usize = 64;

/// What the kernel takes of output beyond what the peer has room for. What is queued here and not there can
/// still be put in order, and a peer that does not read costs the kernel no more than this.
const NOTSENT_LOWAT_BYTES: u32 = 64 * 1024;

/// A peer that acknowledges nothing for so long is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Silence after which the kernel asks whether a peer is there. Those of WebSocket are pinged before.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);

/// Up to so much is added, for each connection something else: when thousands are asked at the same moment,
/// most of the questions get lost.
const KEEPALIVE_SPREAD: Duration = Duration::from_secs(15);

/// The time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

const _: () = assert!(
    KEEPALIVE_TIME.as_secs() + KEEPALIVE_SPREAD.as_secs() + 2 * KEEPALIVE_INTERVAL.as_secs()
        < TCP_USER_TIMEOUT.as_secs(),
    "Linux counts the timeout from the last that was heard: of three questions two may get lost"
);

impl Door {
    /// Accepts connections until the shutdown, as the listener is to be used.
    pub async fn listen(self: Arc<Door>, listener: TcpListener, uses: Uses) {
        let mut pace = Pace::new(self.settings.accepts_per_second_max);
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = self.accept(&listener, uses.proxied) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            let (door, uses) = (self.clone(), uses.clone());
            self.tasks.spawn(async move {
                match uses.proxied {
                    // Boxed: most have none.
                    true => Box::pin(door.greet_proxy(stream, peer, permit, uses.secured)).await,
                    false => door.greet(stream, peer, permit, uses.secured).await,
                }
            });
            self.rest(&mut pace).await;
        }
    }

    /// Takes in a stream that is there already, as if it had been accepted. False when no more are taken. Must be called in
    /// a tokio runtime.
    pub fn take_in(self: &Arc<Door>, stream: Box<dyn Foreign>, peer: Peer) -> bool {
        if self.tasks.len() >= self.settings.connections_max {
            self.refuse(&peer, Unwelcome::Full);
            return false;
        }
        if self.shutdown.is_cancelled() || self.judge_new(&peer).is_err() {
            return false;
        }
        let door = self.clone();
        self.tasks.spawn(async move {
            let place = tokio::select! {
                () = door.shutdown.cancelled() => return,
                place = door.gate.place() => place,
            };
            let Some(permit) = door.admit(place, &peer) else { return };
            door.greet(Stream::Foreign(stream), peer, permit, Secured::No).await;
        });
        true
    }

    /// Waits until the next connection may be taken in; those that come meanwhile are kept by the kernel.
    pub(super) async fn rest(&self, pace: &mut Pace) {
        let wait = pace.take(now());
        if !wait.is_zero() {
            self.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }

    async fn accept(
        self: &Arc<Door>,
        listener: &TcpListener,
        only_proxies: bool,
    ) -> Option<(Stream, Peer, Permit)> {
        self.gate.has_place().await;
        let (stream, address) = accepted(listener.accept().await).await?;
        let place = self.gate.place().await;
        if only_proxies && !self.settings.proxies.trusts(&Peer::Socket(address)) {
            metrics::CONNECTIONS_REFUSED.add(1);
            tracing::warn!(peer = %address, "only listed proxies may connect where the PROXY protocol is spoken");
            return None;
        }
        let permit = self.admit(place, &Peer::Socket(address))?;
        if let Err(error) = set_options(&stream) {
            tracing::debug!(peer = %address, %error, "cannot set the options of a socket");
        }
        Some((Stream::Tcp(stream), Peer::Socket(address), permit))
    }

    /// Gives somebody from there a place at the door, unless there are too many.
    pub(super) fn admit(self: &Arc<Door>, place: Place, peer: &Peer) -> Option<Permit> {
        metrics::CONNECTIONS_ACCEPTED.add(1);
        if self.tasks.len() >= self.settings.connections_max.saturating_add(TOLD_MAX) {
            self.refuse(peer, Unwelcome::Full);
            return None;
        }
        let permit = match self.settings.proxies.trusts(peer) {
            true => Some(self.gate.enter_proxy(place)),
            false => self.gate.enter(place, peer),
        };
        if permit.is_none() {
            self.refuse(peer, Unwelcome::Strangers);
        }
        permit
    }

    /// Hears from a proxy whom it speaks for, and goes on with that one.
    async fn greet_proxy(self: Arc<Door>, stream: Stream, proxy: Peer, mut permit: Permit, secured: Secured) {
        let Stream::Tcp(mut stream) = stream else {
            return tracing::error!(peer = %proxy, "the PROXY protocol is for TCP");
        };
        let said =
            tokio::time::timeout(self.settings.proxies.protocol_time_max, proxy_protocol::read(&mut stream));
        let said = tokio::select! {
            () = self.shutdown.cancelled() => return,
            said = said => said,
        };
        let address = match said {
            Ok(Ok(address)) => address,
            Ok(Err(error)) => return tracing::info!(peer = %proxy, %error, "no header of the PROXY protocol"),
            Err(_) => return tracing::info!(peer = %proxy, "no header of the PROXY protocol in time"),
        };
        let is_known = address.is_some();
        let Some(address) = address.or(proxy.address()) else { return };
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let proxied =
            Proxied { address, is_known, proxy: proxy.to_string(), secure: None, is_private: false };
        let peer = Peer::Proxied(Arc::new(proxied));
        if !self.gate.account(&mut permit, &peer) {
            self.refuse(&peer, Unwelcome::Strangers);
            return;
        }
        self.greet(Stream::Tcp(stream), peer, permit, secured).await;
    }

    /// Finds out what a peer speaks, and hands it on.
    pub(super) async fn greet(self: Arc<Door>, stream: Stream, peer: Peer, permit: Permit, secured: Secured) {
        let opened = now();
        let time_max = self.settings.pump.establish_time_max;
        let first = async {
            let (mut stream, peer) = match (stream, &secured) {
                // Boxed, as it is large, and a stranger in the clear has none.
                (Stream::Tcp(stream), Secured::By(tls)) => Box::pin(self.secure(tls, stream, &peer)).await?,
                (stream, _) => (stream, peer.clone()),
            };
            let (first, spoken) = self.first_bytes(&mut stream).await?;
            Ok::<_, io::Error>((stream, peer, first, spoken))
        };
        let first = tokio::select! {
            () = self.shutdown.cancelled() => return,
            first = tokio::time::timeout(time_max, first) => first,
        };
        let (stream, peer, first, spoken) = match first {
            Ok(Ok(known)) => known,
            Ok(Err(error)) => {
                return tracing::debug!(%peer, %error, "closed before it said anything");
            }
            Err(_) => return tracing::info!(%peer, "said nothing in time"),
        };
        let wire = Opened::new(first, stream);
        // This one counts itself.
        let is_full = self.tasks.len() > self.settings.connections_max;
        let welcome = match spoken {
            Spoken::Tls => return tracing::info!(%peer, "tried TLS, which is not spoken on this port"),
            _ if is_full => Err(self.refuse(&peer, Unwelcome::Full)),
            // That has answers of its own for all else, and pages for those who look after the broker.
            Spoken::Http => Ok(()),
            Spoken::RawSocket | Spoken::Stream(_) => self.judge_new(&peer),
        };
        match (spoken, welcome) {
            (Spoken::Http, welcome) => http::serve(self, wire, peer, permit, opened, welcome).await,
            (Spoken::RawSocket, welcome) => {
                let refusal = welcome.err().map(|_| Refused::Connections);
                self.greet_rawsocket(wire, peer, permit, opened, refusal).await;
            }
            (Spoken::Stream(token), Ok(())) => {
                self.open(token, Transport::Stream, wire, peer, Some(permit), opened);
            }
            (Spoken::Stream(token), Err(why)) => self.send_away(wire, token, &peer, why).await,
            (Spoken::Tls, _) => {}
        }
    }

    /// Tells somebody why they are not taken in, and reads on for a moment, so that they get to see it.
    async fn send_away(&self, mut wire: Opened, token: &'static str, peer: &Peer, why: Unwelcome) {
        let words = self.last_words(token, peer, why);
        let tell = async {
            wire.write_all(&words).await?;
            wire.shutdown().await?;
            tokio::io::copy(&mut wire, &mut tokio::io::sink()).await
        };
        let told = tokio::time::timeout(self.settings.pump.linger_time_max, tell).await;
        if let Ok(Err(error)) = told {
            tracing::debug!(%peer, %error, "left before it was told");
        }
    }

    /// Goes over to TLS, if that is what the peer speaks.
    async fn secure(&self, tls: &Tls, mut stream: TcpStream, peer: &Peer) -> io::Result<(Stream, Peer)> {
        let Some(address) = peer.address() else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut first = [0; FIRST_BYTES_MAX];
        let first = match stream.peek(&mut first).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => &first[..length],
        };
        if first[0] != tls::HANDSHAKE {
            let error = io::Error::new(io::ErrorKind::InvalidData, "TLS is all that is spoken on this port");
            tls.complain(address, &error);
            // Anything may be HTTP, but not all of it is a method.
            if first[0].is_ascii_uppercase() && matches!(self.recognize(first), Some(Spoken::Http)) {
                tls::refuse_plain(&mut stream).await?;
            }
            return Err(error);
        }
        let shaken = tls.shake_hands(stream, address).await;
        let (stream, secure) = shaken.inspect_err(|error| tls.complain(address, error))?;
        if let Some(certificate) = &secure.certificate {
            tracing::debug!(peer = %address, %certificate, "the peer has a certificate");
        }
        let peer = match peer {
            // Whom a proxy speaks for is not of this machine, however near the proxy is.
            Peer::Proxied(proxied) => {
                let proxied = Proxied { secure: Some(secure), is_private: true, ..Proxied::clone(proxied) };
                Peer::Proxied(Arc::new(proxied))
            }
            _ => Peer::Secure(Arc::new(secure)),
        };
        Ok((Stream::Tls(Box::new(stream)), peer))
    }

    async fn first_bytes(&self, stream: &mut Stream) -> io::Result<(Bytes, Spoken)> {
        let mut first = BytesMut::with_capacity(FIRST_BYTES_MAX);
        loop {
            if stream.read_buf(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(spoken) = self.recognize(&first) {
                return Ok((first.freeze(), spoken));
            }
        }
    }

    fn recognize(&self, first: &[u8]) -> Option<Spoken> {
        match first.first() {
            Some(&rawsocket::MAGIC) => return Some(Spoken::RawSocket),
            Some(&tls::HANDSHAKE) => return Some(Spoken::Tls),
            _ => {}
        }
        let mut undecided = false;
        for protocol in &self.protocols {
            match protocol.recognize(first) {
                Recognition::Yes(token) => return Some(Spoken::Stream(token)),
                Recognition::Maybe => undecided = true,
                Recognition::No => {}
            }
        }
        (!undecided || first.len() >= FIRST_BYTES_MAX).then_some(Spoken::Http)
    }

    async fn greet_rawsocket(
        self: Arc<Door>,
        mut wire: Opened,
        peer: Peer,
        permit: Permit,
        opened: Instant,
        refusal: Option<Refused>,
    ) {
        let time_max = self.settings.pump.establish_time_max;
        let token = |serializer| self.protocols.iter().find_map(|protocol| protocol.rawsocket(serializer));
        let shake = rawsocket::shake_hands(&mut wire, self.settings.rawsocket_limit, token, refusal);
        // All that a stranger does together has this time.
        match tokio::time::timeout_at((opened + time_max).into(), shake).await {
            Ok(Ok((token, transport))) => {
                self.open(token, Transport::RawSocket(transport), wire, peer, Some(permit), opened);
            }
            Ok(Err(error)) => {
                metrics::HANDSHAKES_REFUSED.add(1);
                tracing::info!(%peer, reason = %error, "RawSocket handshake refused");
            }
            Err(_) => tracing::info!(%peer, "did not finish its RawSocket handshake in time"),
        }
    }
}

/// Who was accepted; if nobody was, after a while.
pub(super) async fn accepted<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            // Most likely out of files; the backlog keeps those who come meanwhile.
            tracing::warn!(%error, "cannot accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// What a listener is used for.
#[derive(Clone)]
pub struct Uses {
    /// How those are secured who connect there.
    pub secured: Secured,
    /// Whether only proxies connect there, and say by the PROXY protocol whom they speak for.
    pub proxied: bool,
}

/// How a connection is secured.
#[derive(Clone)]
pub enum Secured {
    /// It is in the clear.
    No,
    /// By TLS, and not otherwise.
    By(Arc<Tls>),
}

/// What a peer speaks.
enum Spoken {
    Http,
    RawSocket,
    Stream(&'static str),
    Tls,
}

/// Listens at an address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let time = KEEPALIVE_TIME + KEEPALIVE_SPREAD.mul_f32(rand::random());
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    }
    Ok(())
}

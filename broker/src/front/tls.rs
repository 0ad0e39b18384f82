//! TLS at the door: its handshake, and certificates that are read anew while connections go on.
//!
//! A peer that says something else than TLS is told so, if it speaks HTTP. What a handshake may take of time
//! and of places is decided by the [`listener`](super::listener), as for every stranger.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::core::secure::Secure;
use crate::front::certificates::{TlsError, TlsFiles, identify};
use crate::front::connection::now;
use crate::metrics;

/// The first octet of a TLS handshake.
pub const HANDSHAKE: u8 = 0x16;

/// What rustls keeps of output that the socket does not take. What waits in our own queues can still be put in
/// order.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// Failed handshakes are counted, and the log has a line for one of them in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The label of keying material that binds a proof to a connection (RFC 9266).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Read of a peer that does not speak TLS, so that it gets to see the answer.
const PLAIN_BYTES_MAX: u64 = 64 * 1024;

/// What it is told.
const PLAIN_ANSWER: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
                            Content-Length: 54\r\nConnection: close\r\n\r\n\
                            this port speaks TLS: connect with https:// or wss://\n";

/// The broker's side of TLS.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
    /// Handshakes whose signatures may be computed at a time.
    handshakes: Semaphore,
    complaints: Mutex<Complaints>,
}

#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    since: u64,
}

impl Tls {
    /// With the certificates of these files, and so many handshakes at a time.
    pub fn new(files: TlsFiles, handshakes_max: usize) -> Result<Tls, TlsError> {
        Ok(Tls {
            config: RwLock::new(Arc::new(files.read()?)),
            files,
            handshakes: Semaphore::new(handshakes_max.clamp(1, Semaphore::MAX_PERMITS)),
            complaints: Mutex::default(),
        })
    }

    /// Reads the files again, for those who connect from now on. Where they are of no use the old ones stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(self.files.read()?);
        *self.config.write() = config;
        Ok(())
    }

    /// The handshake, and what is known of the peer after it.
    ///
    /// Its expensive part is the answer to the peer's first message. Only that is counted: a peer may take its
    /// time before and after without being in others' way, while of many that come at once a few are answered
    /// at a time, and those who are connected already get their turns between them.
    pub async fn shake_hands<S>(&self, stream: S, address: SocketAddr) -> io::Result<(TlsStream<S>, Secure)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let place = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let config = self.config.read().clone();
        let limit = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        let mut rest = hello.into_stream_with(config, limit);
        let answered = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut rest).poll(cx))).await;
        drop(place);
        let stream = match answered {
            Poll::Ready(done) => done?,
            Poll::Pending => rest.await?,
        };
        let secure = secure(stream.get_ref().1, address);
        Ok((stream, secure))
    }

    /// A handshake failed.
    pub fn complain(&self, peer: SocketAddr, error: &io::Error) {
        metrics::TLS_HANDSHAKES_FAILED.add(1);
        tracing::debug!(%peer, %error, "the TLS handshake failed");
        if let Some(others) = self.complaints.lock().count(now()) {
            tracing::warn!(%peer, %error, others, "the TLS handshake failed, as did others since this was said");
        }
    }
}

impl Complaints {
    /// Counts one. If it is to be said, how many there were since the last that was.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + COMPLAINT_INTERVAL) {
            self.since += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

fn secure(connection: &ServerConnection, address: SocketAddr) -> Secure {
    // Before TLS 1.3 the material is that of one connection only where the master secret is the extended one
    // (RFC 7627), which rustls does not tell.
    let exporter = (connection.protocol_version() == Some(ProtocolVersion::TLSv1_3))
        .then(|| connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).ok())
        .flatten();
    let chain = connection.peer_certificates().unwrap_or_default();
    Secure { address, exporter, certificate: chain.first().map(identify) }
}

/// Tells a peer that speaks HTTP without TLS what to do instead, and reads on until it has seen that.
pub async fn refuse_plain<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(PLAIN_ANSWER.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(PLAIN_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// The broker's side with room for one handshake, and a peer that trusts it.
    fn both() -> (Arc<Tls>, TlsConnector) {
        let folder = std::env::temp_dir().join(format!("tandem-front-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a".into()]).unwrap().self_signed(&key).unwrap();
        let (certificate_path, key_path) = (folder.join("certificate.pem"), folder.join("key.pem"));
        std::fs::write(&certificate_path, certificate.pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        let files = TlsFiles { certificate: certificate_path, key: key_path, clients: None };
        let tls = Tls::new(files, 1).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        (Arc::new(tls), TlsConnector::from(Arc::new(client)))
    }

    #[tokio::test(start_paused = true)]
    async fn while_as_many_handshakes_are_computed_as_may_be_the_next_one_waits() {
        let (tls, connector) = both();
        let address = "192.0.2.1:5".parse().unwrap();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let connecting =
            tokio::spawn(async move { connector.connect(ServerName::try_from("a").unwrap(), theirs).await });
        let place = tls.handshakes.acquire().await.unwrap();
        let mut shaking = std::pin::pin!(tls.shake_hands(ours, address));
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, shaking.as_mut()).await.is_err());
        assert!(!connecting.is_finished());
        drop(place);
        let (_ours, secure) = tokio::time::timeout(minute, shaking).await.unwrap().unwrap();
        let _theirs = connecting.await.unwrap().unwrap();
        assert_eq!((secure.address, secure.certificate), (address, None));
        assert!(secure.exporter.is_some());
        assert_eq!(tls.handshakes.available_permits(), 1);
    }

    #[test]
    fn of_many_failures_one_is_said_and_the_others_are_counted() {
        let mut complaints = Complaints::default();
        let begin = now();
        assert_eq!(complaints.count(begin), Some(0));
        for _ in 0..1000 {
            assert_eq!(complaints.count(begin + COMPLAINT_INTERVAL / 2), None);
        }
        assert_eq!(complaints.count(begin + COMPLAINT_INTERVAL), Some(1000));
        assert_eq!(complaints.count(begin + COMPLAINT_INTERVAL * 2), Some(0));
    }
}

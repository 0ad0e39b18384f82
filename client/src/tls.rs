//! TLS: whom to trust, and what to show.
//!
//! Without a word about it the authorities of the system are trusted. There is no way to trust everybody: who has a
//! broker with a certificate of their own making names it, or the authority that signed it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The label of keying material that binds a proof to a connection (RFC 9266).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// What binds a proof to a connection over TLS 1.3.
pub(crate) type Exporter = [u8; 32];

/// Why TLS cannot be spoken as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What should be PEM holds nothing of the kind.
    #[error("there is no {what}: {why}")]
    Malformed {
        /// What is looked for.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The system has no authorities, and none were named.
    #[error("the system trusts no authority; name the certificate of one")]
    NoRoots,
    /// Key and certificate do not go together, or are of a kind that is not supported.
    #[error("the client's certificate cannot be shown: {0}")]
    Identity(rustls::Error),
    /// The name of the server is none.
    #[error("the server cannot be verified by this name: {0}")]
    ServerName(#[from] InvalidDnsNameError),
}

/// Whom to trust, and what to show them. Copies share what was read.
#[derive(Clone)]
pub struct TlsOptions {
    trusts_system: bool,
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Arc<Identity>>,
    server_name: Option<String>,
    /// Made once, when it is first needed: the system's authorities are in files.
    config: Arc<OnceCell<Arc<ClientConfig>>>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        TlsOptions {
            trusts_system: true,
            authorities: Vec::new(),
            identity: None,
            server_name: None,
            config: Arc::default(),
        }
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("trusts_system", &self.trusts_system)
            .field("authorities", &self.authorities.len())
            .field("has_identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl TlsOptions {
    /// Trusts the authorities of the system, and shows nothing.
    #[must_use]
    pub fn new() -> TlsOptions {
        TlsOptions::default()
    }

    /// Trusts only what is named here, not the system's authorities.
    #[must_use]
    pub fn without_system_authorities(mut self) -> TlsOptions {
        self.trusts_system = false;
        self.changed()
    }

    /// Trusts the authorities of this file too, or the one server whose certificate it holds, if that signed it itself and
    /// does not say that it is an authority. It is read now.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or holds no certificate in PEM.
    pub fn authorities_file(self, path: impl AsRef<Path>) -> Result<TlsOptions, TlsError> {
        self.authorities_pem(&read(path.as_ref())?)
    }

    /// As [`authorities_file`](Self::authorities_file), of what such a file would hold.
    ///
    /// # Errors
    ///
    /// Where there is no certificate in it.
    pub fn authorities_pem(mut self, pem: &[u8]) -> Result<TlsOptions, TlsError> {
        self.authorities.extend(certificates(pem)?);
        Ok(self.changed())
    }

    /// Shows the certificate of this file, which the intermediate ones follow, to servers that ask for one. Both files
    /// are read now.
    ///
    /// # Errors
    ///
    /// Where one cannot be read, or does not hold what it should, in PEM.
    pub fn identity_files(
        self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<TlsOptions, TlsError> {
        self.identity_pem(&read(certificate.as_ref())?, &read(key.as_ref())?)
    }

    /// As [`identity_files`](Self::identity_files), of what such files would hold.
    ///
    /// # Errors
    ///
    /// Where one of them does not hold what it should.
    pub fn identity_pem(mut self, certificate: &[u8], key: &[u8]) -> Result<TlsOptions, TlsError> {
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsError::Malformed { what: "private key", why: error.to_string() })?;
        self.identity = Some(Arc::new(Identity { chain, key }));
        Ok(self.changed())
    }

    /// The server must have a certificate for this name or IP address, not for the one it is connected to by.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> TlsOptions {
        self.server_name = Some(name.into());
        self
    }

    /// What was made of the options before is not shared any more.
    fn changed(mut self) -> TlsOptions {
        self.config = Arc::default();
        self
    }

    /// Shakes hands over a fresh stream to `host`, asking for `alpn`, if that is something. Gives also what the connection
    /// can be bound by.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &str,
        alpn: Option<&[u8]>,
    ) -> Result<(TlsStream<S>, Option<Exporter>), ConnectError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(TlsError::from)?;
        let mut config = self.config.get_or_try_init(|| self.configure()).await?.clone();
        if let Some(alpn) = alpn {
            // Sessions that can be resumed stay shared.
            Arc::make_mut(&mut config).alpn_protocols = vec![alpn.to_vec()];
        }
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let connection = stream.get_ref().1;
        // Before TLS 1.3 the material is that of one connection only where the master secret is the extended one.
        let exporter = (connection.protocol_version() == Some(ProtocolVersion::TLSv1_3))
            .then(|| connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).ok())
            .flatten();
        Ok((stream, exporter))
    }

    async fn configure(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            let added = roots.add(authority.clone());
            added.map_err(|error| TlsError::Malformed {
                what: "certificate of an authority",
                why: error.to_string(),
            })?;
        }
        if self.trusts_system {
            // Files are read: other tasks of this thread are not to wait for that.
            let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
            let (added, ignored) = match loaded {
                Ok(loaded) => roots.add_parsable_certificates(loaded.certs),
                Err(_) => (0, 0),
            };
            tracing::debug!(added, ignored, "the system's authorities are read");
        }
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Identity)?
            .with_root_certificates(roots);
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some(identity) => config
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(TlsError::Identity)?,
        };
        Ok(Arc::new(config))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), error })
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let malformed = |why: String| TlsError::Malformed { what: "certificate", why };
    match found {
        Ok(found) if found.is_empty() => {
            Err(malformed("a section that begins with BEGIN CERTIFICATE is missing".into()))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(malformed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_and_no_key_is_refused_at_once() {
        let missing = TlsOptions::new().authorities_file("/there/is/nothing").unwrap_err();
        assert!(matches!(missing, TlsError::Unreadable { .. }), "{missing}");
        let empty = TlsOptions::new().authorities_pem(b"nothing").unwrap_err();
        assert!(empty.to_string().contains("BEGIN CERTIFICATE"), "{empty}");
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(TlsOptions::new().authorities_pem(broken), Err(TlsError::Malformed { .. })));
        assert!(matches!(TlsOptions::new().identity_pem(b"", b""), Err(TlsError::Malformed { .. })));
    }

    #[tokio::test]
    async fn with_nobody_to_trust_there_is_no_connection_and_a_reason() {
        let nobody = TlsOptions::new().without_system_authorities();
        let (ours, _theirs) = tokio::io::duplex(1);
        let error = nobody.connect(ours, "localhost", None).await.map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::Tls(TlsError::NoRoots)), "{error}");
        let (ours, _theirs) = tokio::io::duplex(1);
        let error = nobody.connect(ours, "not a name", None).await.map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::Tls(TlsError::ServerName(_))), "{error}");
    }
}

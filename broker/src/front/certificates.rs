//! Certificates: those of the broker, from files; those of peers, as the house knows them.
//!
//! Files are PEM. A chain begins with the broker's own certificate, and the intermediate ones follow.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use x509_cert::der::Decode;
use x509_cert::der::asn1::Ia5String;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::core::secure::Certificate;

/// The protocol that peers who ask by ALPN are told: what a WebSocket begins with. Who does not ask may speak
/// anything that the port does.
const ALPN: &[u8] = b"http/1.1";

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The broker's own chain.
    pub certificate: PathBuf,
    /// The key of the first of it.
    pub key: PathBuf,
    /// Whether peers are asked for theirs, and who vouches for them.
    pub clients: Option<ClientAuthority>,
}

/// Who vouches for peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthority {
    /// The certificates of the authorities.
    pub file: PathBuf,
    /// Whether who has no certificate is turned away.
    pub required: bool,
}

/// Why certificates are of no use.
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
    /// A file does not hold what it should.
    #[error("{path} holds no {what}: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is looked for in it.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The key is that of another certificate, or of a kind that is not supported.
    #[error("the key in {key} does not go with the certificate in {certificate}: {why}")]
    Mismatched {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        why: String,
    },
}

impl TlsError {
    fn malformed(path: &Path, what: &'static str, why: impl ToString) -> TlsError {
        TlsError::Malformed { path: path.to_owned(), what, why: why.to_string() }
    }
}

impl TlsFiles {
    /// Reads them, and makes of them what a handshake needs.
    pub fn read(&self) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|error| {
            let why = why(&error, "a section that begins with BEGIN PRIVATE KEY");
            TlsError::malformed(&self.key, "private key", why)
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ClientCertVerifier> = match &self.clients {
            None => Arc::new(NoClientAuth),
            Some(authority) => {
                let roots = Arc::new(authority.roots()?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                let verifier = if authority.required { verifier } else { verifier.allow_unauthenticated() };
                verifier.build().map_err(|error| {
                    TlsError::malformed(&authority.file, "certificate of an authority", error)
                })?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_client_cert_verifier(verifier).with_single_cert(chain, key))
            .map_err(|error| TlsError::Mismatched {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                why: error.to_string(),
            })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        match (&self.clients, rustls::crypto::ring::Ticketer::new()) {
            // Sessions are resumed by tickets, which cost no memory here.
            (None, Ok(ticketer)) => config.ticketer = ticketer,
            // Who is known by a certificate shows it each time: it may have expired since.
            _ => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        Ok(config)
    }
}

impl ClientAuthority {
    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.file)? {
            let added = roots.add(certificate);
            added.map_err(|error| TlsError::malformed(&self.file, "certificate of an authority", error))?;
        }
        Ok(roots)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), error })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const MISSING: &str = "a section that begins with BEGIN CERTIFICATE";
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain =
        chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
    chain.map_err(|error| TlsError::malformed(path, "certificate", why(&error, MISSING)))
}

fn why(error: &pem::Error, missing: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("{missing} is missing"),
        error => error.to_string(),
    }
}

/// Whom a certificate was made out to. Names that cannot be read are left out, all of them: nobody is
/// recognized by some of what is malformed.
pub fn identify(certificate: &CertificateDer<'_>) -> Certificate {
    let fingerprint = Sha256::digest(certificate).into();
    let mut identity = Certificate { fingerprint, ..Certificate::default() };
    let Ok(parsed) = x509_cert::Certificate::from_der(certificate) else { return identity };
    let parsed = parsed.tbs_certificate();
    if let Ok(Some(name)) = parsed.subject().common_name() {
        identity.common_name = Some(name.value().into_owned());
    }
    if let Ok(Some((_, SubjectAltName(names)))) = parsed.get_extension() {
        let text = |name: &Ia5String| name.as_str().to_owned();
        for name in &names {
            match name {
                GeneralName::DnsName(name) => identity.dns_names.push(text(name)),
                GeneralName::Rfc822Name(name) => identity.emails.push(text(name)),
                _ => {}
            }
        }
    }
    identity
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_tells_its_names_and_its_fingerprint() {
        let mut params =
            CertificateParams::new(vec!["a.example".to_owned(), "B.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::Rfc822Name("me@example.com".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "somebody");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let identity = identify(certificate.der());
        assert_eq!(identity.fingerprint, *Sha256::digest(certificate.der()));
        assert_eq!(identity.dns_names, ["a.example", "B.example"]);
        assert_eq!(identity.emails, ["me@example.com"]);
        assert!(identity.to_string().starts_with("\"somebody\" sha256:"), "{identity}");
    }

    #[test]
    fn of_what_is_no_certificate_only_the_fingerprint_is_known() {
        let identity = identify(&CertificateDer::from(b"\x30\x03abc".to_vec()));
        assert_eq!((identity.dns_names.len(), identity.emails.len()), (0, 0));
        assert_ne!(identity.fingerprint, [0; 32]);
    }
}

//! Certificates that a test makes for itself, in a folder that goes with them, and peers that speak TLS.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority, and a folder for what it makes.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate and its key.
pub struct Issued {
    certificate: Certificate,
    key: KeyPair,
}

impl Issued {
    /// As bytes.
    pub fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// The certificate and its key, in PEM.
    pub fn pem(&self) -> (String, String) {
        (self.certificate.pem(), self.key.serialize_pem())
    }
}

/// An alternative name of machines.
pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// An alternative name that is an address of mail.
pub fn email(name: &str) -> SanType {
    SanType::Rfc822Name(name.try_into().unwrap())
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tandem-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    /// A certificate for a client, with these alternative names.
    pub fn client(&self, common_name: &str, names: &[SanType]) -> Issued {
        self.issue(common_name, names, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, common_name: &str, names: &[SanType], usage: ExtendedKeyUsagePurpose) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names.to_vec();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Issued { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// Makes a certificate for the broker and puts it where [`config`](Self::config) says, in place of one
    /// that may be there.
    pub fn renew(&self) -> Issued {
        let names = [SanType::IpAddress([127, 0, 0, 1].into())];
        let issued = self.issue("broker", &names, ExtendedKeyUsagePurpose::ServerAuth);
        self.write("server.pem", &issued.certificate.pem());
        self.write("server.key", &issued.key.serialize_pem());
        issued
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).unwrap();
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A broker with TLS, in TOML; `clients` is what `client_certificates` says.
    pub fn config(&self, clients: &str) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        let ca = if clients == "off" { String::new() } else { format!("client_ca = {:?}\n", path("ca.pem")) };
        format!(
            "listen_tls = [\"127.0.0.1:0\"]\n[tls]\ncertificate = {:?}\nkey = {:?}\n{ca}\
             client_certificates = {clients:?}\n",
            path("server.pem"),
            path("server.key")
        )
    }

    /// A peer that trusts this authority.
    pub fn peer(&self) -> Peer<'_> {
        Peer { authority: self, certificate: None, alpn: &[], version: None }
    }
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all::<&Path>(&self.folder);
    }
}

/// A peer that speaks TLS.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    authority: &'a Authority,
    certificate: Option<&'a Issued>,
    alpn: &'a [&'a [u8]],
    version: Option<&'static rustls::SupportedProtocolVersion>,
}

impl<'a> Peer<'a> {
    /// With a certificate.
    pub fn showing(self, issued: &'a Issued) -> Peer<'a> {
        Peer { certificate: Some(issued), ..self }
    }

    /// Asking for these protocols.
    pub fn asking_for(self, alpn: &'a [&'a [u8]]) -> Peer<'a> {
        Peer { alpn, ..self }
    }

    /// Only in this version.
    pub fn only(self, version: &'static rustls::SupportedProtocolVersion) -> Peer<'a> {
        Peer { version: Some(version), ..self }
    }

    /// What it is configured with.
    pub fn config(self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.issuer.der().clone()).unwrap();
        let versions = self.version.map_or(rustls::ALL_VERSIONS.to_vec(), |version| vec![version]);
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.certificate {
            None => config.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
                config.with_client_auth_cert(vec![issued.certificate.der().clone()], key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|&name| name.to_vec()).collect();
        config
    }

    /// Connects. What the broker finds wrong with a certificate shows with the first read, in TLS 1.3.
    pub async fn try_connect(self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        TlsConnector::from(Arc::new(self.config())).connect(name, stream).await
    }

    /// Connects, which must work.
    pub async fn connect(self, address: SocketAddr) -> TlsStream<TcpStream> {
        self.try_connect(address).await.unwrap()
    }
}

/// What binds a proof to a connection (RFC 9266), where its version of TLS makes sure of it.
pub fn exporter(stream: &TlsStream<TcpStream>) -> Option<[u8; 32]> {
    let connection = stream.get_ref().1;
    let material = || connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]));
    (connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)).then(|| material().unwrap())
}

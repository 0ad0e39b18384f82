//! What a secure connection tells of the peer at its other end.

use std::fmt;
use std::net::SocketAddr;

/// A connection over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secure {
    /// Where the peer connects from.
    pub address: SocketAddr,
    /// Bytes that both ends of this connection know, and of no other: keying material by RFC 9266. None where
    /// the version of TLS does not make sure of that.
    pub exporter: Option<[u8; 32]>,
    /// The peer's certificate, if it has shown one: of an authority that is trusted, valid, and its own.
    pub certificate: Option<Certificate>,
}

/// Whom a certificate was made out to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of all of it.
    pub fingerprint: [u8; 32],
    /// The alternative names of the subject that are names of machines.
    pub dns_names: Vec<String>,
    /// Those that are addresses of mail.
    pub emails: Vec<String>,
    /// The subject's common name: to be shown, for nobody says what may be in it.
    pub common_name: Option<String>,
}

impl Certificate {
    /// All that it can be recognized by.
    pub fn names(&self) -> impl Iterator<Item = CertificateName> {
        let dns_names = self.dns_names.iter().map(|name| name.to_ascii_lowercase());
        std::iter::once(CertificateName::Fingerprint(self.fingerprint))
            .chain(dns_names.map(CertificateName::Dns))
            .chain(self.emails.iter().cloned().map(CertificateName::Email))
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.common_name {
            write!(f, "{name:?} ")?;
        }
        f.write_str("sha256:")?;
        self.fingerprint.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a certificate is recognized by: the whole of a name, never a part or a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// SHA-256 of all of it.
    Fingerprint([u8; 32]),
    /// The name of a machine, in small letters.
    Dns(String),
    /// An address of mail.
    Email(String),
}

impl CertificateName {
    /// As configurations have it: `sha256:`, `dns:` or `email:`, and the name.
    pub fn parse(text: &str) -> Option<CertificateName> {
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty())?;
        match kind {
            "sha256" => parse_fingerprint(name).map(CertificateName::Fingerprint),
            "dns" => Some(CertificateName::Dns(name.to_ascii_lowercase())),
            "email" => Some(CertificateName::Email(name.to_owned())),
            _ => None,
        }
    }
}

/// 64 hexadecimal digits. openssl writes colons between the bytes.
fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits = text.chars().filter(|&c| c != ':');
    let digits: Option<Vec<u8>> = digits.map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
    let digits: [u8; 64] = digits?.try_into().ok()?;
    let mut fingerprint = [0; 32];
    for (byte, digits) in fingerprint.iter_mut().zip(digits.chunks(2)) {
        *byte = digits[0] << 4 | digits[1];
    }
    Some(fingerprint)
}

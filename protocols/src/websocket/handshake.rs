//! The opening handshake (RFC 6455 section 4), both ends, as data: nothing here speaks HTTP.
//!
//! ```text
//! Upgrade, Connection       token lists over all lines, without case: "websocket", "upgrade"
//! Host, Origin              once; at most once
//! Sec-WebSocket-Version     once, "13"
//! Sec-WebSocket-Key         once, base64 of 16 octets
//! Sec-WebSocket-Protocol    1#token over all lines, with case, at most 16
//! Sec-WebSocket-Extensions  see super::extensions
//! ```
//!
//! Deviations. The server chooses the first name in the client's order that it speaks, where section 4.2.2
//! leaves the choice to it. Without a common subprotocol the answer is 400, where the RFC would go on without
//! one: client libraries take that as a reason to try their next transport. Every header read here must be
//! ASCII.

use std::fmt::Write;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};
use sha1::{Digest, Sha1};

use crate::websocket::extensions::{self, Agreement, ExtensionError, Mode, Policy, skip_space, token};
use crate::websocket::origin::{OriginPolicy, OriginRefused};

/// The most names a client may offer.
pub const SUBPROTOCOLS_MAX: usize = 16;

const UPGRADE: &str = "Upgrade";
const CONNECTION: &str = "Connection";
const KEY: &str = "Sec-WebSocket-Key";
const ACCEPT: &str = "Sec-WebSocket-Accept";
const VERSION: &str = "Sec-WebSocket-Version";
const PROTOCOL: &str = "Sec-WebSocket-Protocol";

/// A key's last character may carry bits that mean nothing: some clients write 24 characters at random.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A header as it came: its name and value.
pub type Field<'a> = (&'a str, &'a [u8]);

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method, as it came.
    pub method: &'a str,
    /// The version of HTTP, major and minor.
    pub version: (u8, u8),
    /// All headers, line by line.
    pub headers: &'a [Field<'a>],
    /// The host that a trusted proxy was asked for, where it is not in `Host`. Nobody else may set it.
    pub forwarded_host: Option<&'a str>,
}

/// What the server asks of its clients.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The subprotocols spoken here.
    pub subprotocols: &'a [&'a str],
    /// Takes a client that names no subprotocol. One that names only unknown ones is refused all the same.
    pub allow_no_subprotocol: bool,
    /// Whether and how to compress.
    pub compression: Policy,
    /// Clients whose `User-Agent` contains one of these offer compression and cannot do it: they are declined.
    pub plain_agents: &'a [String],
    /// Which web pages may connect.
    pub origins: &'a OriginPolicy,
}

/// A handshake that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Which of [`Rules::subprotocols`] was chosen.
    pub subprotocol: Option<usize>,
    /// How to compress, if at all.
    pub compression: Option<Agreement>,
    /// Whether the client is one of [`Rules::plain_agents`].
    pub is_plain_agent: bool,
    /// What to answer.
    pub response: Response,
}

/// An answer to be written as HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, but for those that describe the body.
    pub headers: Vec<(&'static str, String)>,
    /// Plain text for a human; empty with 101.
    pub body: String,
}

/// Why a handshake was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// An ordinary request, or an upgrade to something else.
    #[error("this is a WebSocket endpoint")]
    NotAnUpgrade,
    /// It asks otherwise than by GET.
    #[error("the method must be GET")]
    Method,
    /// `Sec-WebSocket-Version` is not 13.
    #[error("WebSocket version 13 is spoken here")]
    Version,
    /// The request breaks RFC 6455 or HTTP; the text says where.
    #[error("{0}")]
    Malformed(&'static str),
    /// A header that may come once came again.
    #[error("{0} must not come more than once")]
    Doubled(&'static str),
    /// A header has octets outside of ASCII.
    #[error("{0} must be ASCII")]
    NotAscii(&'static str),
    /// The origin policy said no.
    #[error(transparent)]
    Origin(#[from] OriginRefused),
    /// There is no common subprotocol. The list is what is spoken here.
    #[error("no common subprotocol; spoken here: {}", .0.join(", "))]
    Subprotocol(Vec<String>),
    /// Compression is required, and nothing acceptable was offered.
    #[error(
        "compression is required here; offer permessage-deflate (with server_max_window_bits of 9 or more)"
    )]
    CompressionRequired,
    /// Compression is required, and this client's does not work.
    #[error("compression is required here, and that of this browser does not work")]
    PlainAgent,
    /// `Sec-WebSocket-Extensions` cannot be read.
    #[error(transparent)]
    Extensions(#[from] ExtensionError),
}

impl Rejection {
    /// The answer to write.
    pub fn response(&self) -> Response {
        let (status, headers) = match self {
            Self::NotAnUpgrade => {
                (426, vec![(UPGRADE, "websocket".to_owned()), (CONNECTION, "Upgrade".to_owned())])
            }
            Self::Method => (405, vec![("Allow", "GET".to_owned())]),
            Self::Version => (426, vec![(VERSION, "13".to_owned())]),
            Self::Origin(_) => (403, Vec::new()),
            Self::Malformed(_)
            | Self::Doubled(_)
            | Self::NotAscii(_)
            | Self::Subprotocol(_)
            | Self::CompressionRequired
            | Self::PlainAgent
            | Self::Extensions(_) => (400, Vec::new()),
        };
        Response { status, headers, body: format!("{self}\n") }
    }
}

/// The server's side: judges a request, before anything else is done for it.
///
/// ```
/// use tandem_protocols::websocket::handshake::{Request, Rules, check};
/// use tandem_protocols::websocket::{extensions::Policy, origin::OriginPolicy};
///
/// let headers: &[(&str, &[u8])] = &[
///     ("Host", b"server.example.com"),
///     ("Upgrade", b"websocket"),
///     ("Connection", b"Upgrade"),
///     ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
///     ("Sec-WebSocket-Protocol", b"wamp.2.json, wamp.2.cbor"),
///     ("Sec-WebSocket-Version", b"13"),
/// ];
/// let request = Request { method: "GET", version: (1, 1), headers, forwarded_host: None };
/// let rules = Rules {
///     subprotocols: &["wamp.2.cbor", "v12.stomp"],
///     allow_no_subprotocol: false,
///     compression: Policy::default(),
///     plain_agents: &[],
///     origins: &OriginPolicy::default(),
/// };
/// let accept = check(&request, &rules).unwrap();
/// assert_eq!(accept.subprotocol, Some(0));
/// assert_eq!(accept.response.status, 101);
/// ```
pub fn check(request: &Request<'_>, rules: &Rules<'_>) -> Result<Accept, Rejection> {
    let headers = Headers(request.headers);
    let key = opening(request, &headers)?;
    let host = headers.one("Host")?.ok_or(Rejection::Malformed("Host is missing"))?;
    rules.origins.judge(headers.one("Origin")?, request.forwarded_host.unwrap_or(host))?;
    let subprotocol = choose(&headers, rules)?;
    let is_plain_agent = headers.contains_any("User-Agent", rules.plain_agents);
    let policy = match is_plain_agent {
        true => Policy { mode: Mode::Off, ..rules.compression },
        false => rules.compression,
    };
    let compression = extensions::negotiate(&policy, &headers.all(extensions::HEADER)?)?;
    if compression.is_none() && rules.compression.mode == Mode::Required {
        return Err(if is_plain_agent { Rejection::PlainAgent } else { Rejection::CompressionRequired });
    }
    let mut answer = vec![
        (UPGRADE, "websocket".to_owned()),
        (CONNECTION, "Upgrade".to_owned()),
        (ACCEPT, accept_key(key)),
    ];
    if let Some(index) = subprotocol {
        answer.push((PROTOCOL, rules.subprotocols[index].to_owned()));
    }
    let compression = compression.map(|(agreement, value)| {
        answer.push((extensions::HEADER, value));
        agreement
    });
    Ok(Accept {
        subprotocol,
        compression,
        is_plain_agent,
        response: Response { status: 101, headers: answer, body: String::new() },
    })
}

/// What makes a request an opening handshake (section 4.2.1); gives its key.
fn opening<'a>(request: &Request<'_>, headers: &Headers<'a>) -> Result<&'a str, Rejection> {
    if request.method != "GET" {
        return Err(Rejection::Method);
    }
    if request.version != (1, 1) {
        return Err(Rejection::Malformed("the version of HTTP must be 1.1"));
    }
    if !headers.has_token(UPGRADE, "websocket")? {
        return Err(Rejection::NotAnUpgrade);
    }
    if !headers.has_token(CONNECTION, "upgrade")? {
        return Err(Rejection::Malformed("Connection must have the token Upgrade"));
    }
    if headers.one("Content-Length")?.is_some_and(|length| length != "0")
        || !headers.all("Transfer-Encoding")?.is_empty()
    {
        return Err(Rejection::Malformed("an opening handshake has no body"));
    }
    if headers.all(VERSION)? != ["13"] {
        return Err(Rejection::Version);
    }
    let key = headers.one(KEY)?.ok_or(Rejection::Malformed("Sec-WebSocket-Key is missing"))?;
    if KEY_BASE64.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(Rejection::Malformed("Sec-WebSocket-Key must be base64 of 16 octets"));
    }
    Ok(key)
}

/// Chooses the first name in the client's order that is spoken here.
fn choose(headers: &Headers<'_>, rules: &Rules<'_>) -> Result<Option<usize>, Rejection> {
    let mut offered = 0;
    let mut chosen = None;
    for line in headers.all(PROTOCOL)? {
        for name in line.split(',').map(trim).filter(|name| !name.is_empty()) {
            offered += 1;
            if offered > SUBPROTOCOLS_MAX {
                return Err(Rejection::Malformed("Sec-WebSocket-Protocol has more than 16 names"));
            }
            if token(name).is_none_or(|(_, rest)| !rest.is_empty()) {
                return Err(Rejection::Malformed("Sec-WebSocket-Protocol must be a list of tokens"));
            }
            if chosen.is_none() {
                chosen = rules.subprotocols.iter().position(|spoken| *spoken == name);
            }
        }
    }
    if chosen.is_none() && !(offered == 0 && rules.allow_no_subprotocol) {
        let spoken = rules.subprotocols.iter().map(|name| (*name).to_owned()).collect();
        return Err(Rejection::Subprotocol(spoken));
    }
    Ok(chosen)
}

/// `Sec-WebSocket-Accept` for a key (section 4.2.2, step 5).
fn accept_key(key: &str) -> String {
    let hash = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(hash)
}

/// The client's side: what it asks for, and so what it may be answered.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The value of `Host`: a port only where it is not the scheme's default.
    pub host: &'a str,
    /// 16 fresh random octets.
    pub nonce: [u8; 16],
    /// The subprotocols to offer, best first.
    pub subprotocols: &'a [&'a str],
    /// Whether and how to compress.
    pub compression: Policy,
    /// The origin to claim, if any.
    pub origin: Option<&'a str>,
}

/// What the server agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Which of [`Opening::subprotocols`] it chose, if any.
    pub subprotocol: Option<usize>,
    /// How to compress, if at all.
    pub compression: Option<Agreement>,
}

/// Why an answer is no agreement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The server refused, or wants something else done first.
    #[error("the server answered {0} instead of 101")]
    Status(u16),
    /// The answer is not that of a WebSocket server to this request; the text says where.
    #[error("{0}")]
    Malformed(&'static str),
    /// The answer is malformed in the way a request can be.
    #[error("{0}")]
    Headers(Rejection),
    /// The server chose a subprotocol that was not offered.
    #[error("the server chose a subprotocol that was not offered")]
    Subprotocol,
    /// The server answered the offer of compression against the rules.
    #[error(transparent)]
    Extensions(#[from] ExtensionError),
    /// The server does not compress, and the policy requires it.
    #[error("the server does not compress")]
    CompressionRequired,
}

impl Opening<'_> {
    /// The headers of the request, to be written behind `GET <target> HTTP/1.1`.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("Host", self.host.to_owned()),
            (UPGRADE, "websocket".to_owned()),
            (CONNECTION, "Upgrade".to_owned()),
            (KEY, self.key()),
            (VERSION, "13".to_owned()),
        ];
        if !self.subprotocols.is_empty() {
            headers.push((PROTOCOL, self.subprotocols.join(", ")));
        }
        if let Some(offer) = extensions::offer(&self.compression) {
            headers.push((extensions::HEADER, offer));
        }
        if let Some(origin) = self.origin {
            headers.push(("Origin", origin.to_owned()));
        }
        headers
    }

    /// Judges the answer (section 4.1, the list after "the client MUST validate").
    ///
    /// An answer without a subprotocol is legal; a client that cannot do without one must look.
    pub fn check(&self, status: u16, headers: &[Field<'_>]) -> Result<Agreed, AnswerError> {
        if status != 101 {
            return Err(AnswerError::Status(status));
        }
        let headers = Headers(headers);
        if !headers.has_token(UPGRADE, "websocket")? || !headers.has_token(CONNECTION, "upgrade")? {
            return Err(AnswerError::Malformed("the server did not upgrade to websocket"));
        }
        if headers.one(ACCEPT)? != Some(&accept_key(&self.key())) {
            return Err(AnswerError::Malformed("Sec-WebSocket-Accept does not fit the key"));
        }
        let offered = |name| self.subprotocols.iter().position(|offered| *offered == name);
        let subprotocol = match headers.one(PROTOCOL)? {
            None => None,
            Some(name) => Some(offered(name).ok_or(AnswerError::Subprotocol)?),
        };
        let compression = extensions::accept_answer(&self.compression, &headers.all(extensions::HEADER)?)?;
        if compression.is_none() && self.compression.mode == Mode::Required {
            return Err(AnswerError::CompressionRequired);
        }
        Ok(Agreed { subprotocol, compression })
    }

    fn key(&self) -> String {
        STANDARD.encode(self.nonce)
    }
}

impl From<Rejection> for AnswerError {
    fn from(rejection: Rejection) -> Self {
        Self::Headers(rejection)
    }
}

impl Response {
    /// The answer as HTTP/1.1 writes it, for those who have no HTTP library at hand.
    pub fn encode(&self) -> String {
        let reason = match self.status {
            101 => "Switching Protocols",
            403 => "Forbidden",
            426 => "Upgrade Required",
            _ => "Bad Request",
        };
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if self.status != 101 {
            let length = self.body.len();
            let _ = write!(head, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n");
        }
        head + "\r\n" + &self.body
    }
}

/// The headers of one message, read by name.
struct Headers<'a>(&'a [Field<'a>]);

impl<'a> Headers<'a> {
    /// The values of all lines with this name, in order.
    fn all(&self, name: &'static str) -> Result<Vec<&'a str>, Rejection> {
        let lines = self.0.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| text(value).ok_or(Rejection::NotAscii(name))).collect()
    }

    /// The value of the only line with this name, if there is one.
    fn one(&self, name: &'static str) -> Result<Option<&'a str>, Rejection> {
        match self.all(name)?[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            [_, _, ..] => Err(Rejection::Doubled(name)),
        }
    }

    /// Whether a list has this token, on whatever line and in whatever case.
    fn has_token(&self, name: &'static str, token: &str) -> Result<bool, Rejection> {
        let lines = self.all(name)?;
        Ok(lines.iter().flat_map(|line| line.split(',')).any(|found| trim(found).eq_ignore_ascii_case(token)))
    }

    /// Whether a line with this name contains one of these texts. What is no text contains none.
    fn contains_any(&self, name: &'static str, texts: &[String]) -> bool {
        let mut lines = self.0.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        lines.any(|(_, value)| {
            let value = str::from_utf8(value).unwrap_or_default();
            texts.iter().any(|text| value.contains(text.as_str()))
        })
    }
}

/// Visible ASCII, spaces and tabs, without those around it.
fn text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|octet| matches!(octet, b'\t' | b' '..=b'~')).then(|| trim(text))
}

fn trim(text: &str) -> &str {
    skip_space(text).trim_end_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[(&str, &str)] = &[
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", "http://server.example.com"),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn ask(
        method: &str,
        version: (u8, u8),
        headers: &[(&str, &[u8])],
        rules: &Rules<'_>,
    ) -> Result<Accept, Rejection> {
        check(&Request { method, version, headers, forwarded_host: None }, rules)
    }

    fn rules(origins: &OriginPolicy) -> Rules<'_> {
        Rules {
            subprotocols: &["superchat", "chat"],
            allow_no_subprotocol: false,
            compression: Policy::default(),
            plain_agents: &[],
            origins,
        }
    }

    /// The sample, with every line of that name replaced by these.
    fn with<'a>(name: &'a str, values: &'a [&'a str]) -> Vec<(&'a str, &'a [u8])> {
        let kept =
            SAMPLE.iter().filter(|(found, _)| *found != name).map(|(name, value)| (*name, value.as_bytes()));
        kept.chain(values.iter().map(|value| (name, value.as_bytes()))).collect()
    }

    fn status(headers: &[(&str, &[u8])]) -> u16 {
        let origins = OriginPolicy::default();
        match ask("GET", (1, 1), headers, &rules(&origins)) {
            Ok(accept) => accept.response.status,
            Err(rejection) => rejection.response().status,
        }
    }

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        response.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_example_of_section_1_3_is_answered_as_there() {
        let origins = OriginPolicy::default();
        let accept = ask("GET", (1, 1), &with("", &[]), &rules(&origins)).unwrap();
        assert_eq!(accept.subprotocol, Some(1), "the client's first, our second");
        assert_eq!(accept.compression, None);
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        assert_eq!(accept.response.encode(), head);
    }

    #[test]
    fn every_header_is_judged() {
        let table: &[(&str, &[&str], u16)] = &[
            ("Host", &[], 400),
            ("Host", &["server.example.com", "server.example.com"], 400),
            ("Host", &[" server.example.com:80\t"], 101),
            ("Upgrade", &[], 426),
            ("Upgrade", &["h2c"], 426),
            ("Upgrade", &["h2c, WebSocket"], 101),
            ("Upgrade", &["h2c", "websocket"], 101),
            ("Upgrade", &["websockets"], 426),
            ("Connection", &[], 400),
            ("Connection", &["keep-alive"], 400),
            ("Connection", &["keep-alive, UPGRADE"], 101),
            ("Connection", &["keep-alive", "upgrade"], 101),
            ("Sec-WebSocket-Version", &[], 426),
            ("Sec-WebSocket-Version", &["8"], 426),
            ("Sec-WebSocket-Version", &["13, 8"], 426),
            ("Sec-WebSocket-Version", &["13", "13"], 426),
            ("Sec-WebSocket-Version", &["013"], 426),
            ("Sec-WebSocket-Key", &[], 400),
            ("Sec-WebSocket-Key", &[""], 400),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], 400),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ"], 400),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZR=="], 101),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25j"], 400),
            ("Sec-WebSocket-Key", &["AAAAAAAAAAAAAAAAAAAAAAAA"], 400),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZ===", "!"], 400),
            ("Origin", &[], 101),
            ("Origin", &["null"], 403),
            ("Origin", &["http://evil.com"], 403),
            ("Origin", &["http://server.example.com", "http://server.example.com"], 400),
            ("Content-Length", &["0"], 101),
            ("Content-Length", &["1"], 400),
            ("Content-Length", &["0", "0"], 400),
            ("Transfer-Encoding", &["chunked"], 400),
            ("Sec-WebSocket-Protocol", &[], 400),
            ("Sec-WebSocket-Protocol", &["Chat"], 400),
            ("Sec-WebSocket-Protocol", &["x", " , chat,"], 101),
            ("Sec-WebSocket-Protocol", &["chat chat"], 400),
            ("Sec-WebSocket-Protocol", &["chat, a/b"], 400),
            ("Sec-WebSocket-Protocol", &["chat, ché"], 400),
            ("Sec-WebSocket-Protocol", &["chat,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o"], 101),
            ("Sec-WebSocket-Protocol", &["chat,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o", "p"], 400),
            ("Sec-WebSocket-Extensions", &["permessage-deflate"], 101),
            ("Sec-WebSocket-Extensions", &["permessage-deflate; server_max_window_bits=8"], 101),
            ("Sec-WebSocket-Extensions", &["permessage-deflate;;"], 400),
            ("Sec-WebSocket-Extensions", &["é"], 400),
            ("Cookie", &["é"], 101),
        ];
        for (name, values, expected) in table {
            assert_eq!(status(&with(name, values)), *expected, "{name}: {values:?}");
        }
        assert_eq!(status(&[&with("Upgrade", &[])[..], &[("upgrade", b"web\xFFsocket")]].concat()), 400);
    }

    #[test]
    fn only_get_over_http_1_1_opens() {
        let origins = OriginPolicy::default();
        for (method, version, status) in
            [("POST", (1, 1), 405), ("get", (1, 1), 405), ("GET", (1, 0), 400), ("GET", (2, 0), 400)]
        {
            let refused = ask(method, version, &with("", &[]), &rules(&origins)).unwrap_err().response();
            assert_eq!(refused.status, status, "{method} {version:?}");
            assert_eq!(header(&refused, "Allow"), (status == 405).then_some("GET"));
        }
    }

    #[test]
    fn a_rejection_says_what_would_do() {
        let origins = OriginPolicy::default();
        let rules =
            Rules { compression: Policy { mode: Mode::Required, ..Policy::default() }, ..rules(&origins) };
        let refused = |headers: &[(&str, &[u8])]| ask("GET", (1, 1), headers, &rules).unwrap_err().response();
        assert_eq!(header(&refused(&with(VERSION, &["8"])), VERSION), Some("13"));
        assert_eq!(header(&refused(&with(UPGRADE, &[])), UPGRADE), Some("websocket"));
        let body = "no common subprotocol; spoken here: superchat, chat\n";
        assert_eq!(refused(&with(PROTOCOL, &["mqtt"])).body, body);
        assert!(
            refused(&with(PROTOCOL, &["mqtt"]))
                .encode()
                .ends_with(&format!("Content-Length: 52\r\n\r\n{body}"))
        );
        assert!(refused(&with("", &[])).body.contains("offer permessage-deflate"));
        let eight = ["permessage-deflate; server_max_window_bits=8", "x-webkit-deflate-frame"];
        assert_eq!(refused(&with(extensions::HEADER, &eight)).status, 400);
        assert!(ask("GET", (1, 1), &with(extensions::HEADER, &["permessage-deflate"]), &rules).is_ok());
    }

    #[test]
    fn a_client_without_subprotocol_may_be_allowed() {
        let origins = OriginPolicy::default();
        let rules = Rules { allow_no_subprotocol: true, ..rules(&origins) };
        let accept = ask("GET", (1, 1), &with(PROTOCOL, &[]), &rules).unwrap();
        assert_eq!((accept.subprotocol, header(&accept.response, PROTOCOL)), (None, None));
        assert!(ask("GET", (1, 1), &with(PROTOCOL, &["mqtt"]), &rules).is_err());
    }

    #[test]
    fn compression_is_declined_to_those_who_offer_it_and_cannot_do_it() {
        let origins = OriginPolicy::default();
        let plain_agents = ["Version/15.1".to_owned(), "OS 15_1".to_owned()];
        let rules = Rules { plain_agents: &plain_agents, ..rules(&origins) };
        let asked = |agent: &str, rules: &Rules<'_>| {
            let offer =
                [("Sec-WebSocket-Extensions", &b"permessage-deflate"[..]), ("User-Agent", agent.as_bytes())];
            ask("GET", (1, 1), &[&with("", &[])[..], &offer].concat(), rules)
        };
        let webkit = "AppleWebKit/605.1.15 (KHTML, like Gecko)";
        for (agent, plain) in [
            (
                format!(
                    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {webkit} Version/15.1 Safari/605.1.15"
                ),
                true,
            ),
            (format!("Mozilla/5.0 (iPhone; CPU iPhone OS 15_1_1 like Mac OS X) {webkit} CriOS/99.0"), true),
            (
                format!(
                    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {webkit} Version/15.4 Safari/605.1.15"
                ),
                false,
            ),
            ("\u{e9} Version/15.1".to_owned(), true),
            (String::new(), false),
        ] {
            let accept = asked(&agent, &rules).unwrap();
            assert_eq!((accept.compression.is_none(), accept.is_plain_agent), (plain, plain), "{agent}");
            let required = Policy { mode: Mode::Required, ..Policy::default() };
            let required = asked(&agent, &Rules { compression: required, ..rules });
            assert_eq!(
                required.map(drop),
                if plain { Err(Rejection::PlainAgent) } else { Ok(()) },
                "{agent}"
            );
        }
    }

    #[test]
    fn a_trusted_proxy_says_which_host_was_asked_for() {
        let origins = OriginPolicy::default();
        let headers = with("Origin", &["https://public.example"]);
        let mut request = Request { method: "GET", version: (1, 1), headers: &headers, forwarded_host: None };
        assert_eq!(check(&request, &rules(&origins)), Err(Rejection::Origin(OriginRefused::NotAllowed)));
        request.forwarded_host = Some("public.example");
        assert!(check(&request, &rules(&origins)).is_ok());
    }

    #[test]
    fn a_long_list_of_names_costs_no_time() {
        let long = "a,".repeat(1 << 19);
        assert_eq!(status(&with(PROTOCOL, &[&long])), 400);
        assert_eq!(status(&with(extensions::HEADER, &[&"a;".repeat(1 << 19)])), 400);
    }

    fn opening() -> Opening<'static> {
        Opening {
            host: "server.example.com",
            nonce: *b"the sample nonce",
            subprotocols: &["mqtt", "chat"],
            compression: Policy::default(),
            origin: Some("http://server.example.com"),
        }
    }

    #[test]
    fn our_client_and_our_server_agree() {
        let origins = OriginPolicy::default();
        let headers = opening().headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let accept = ask("GET", (1, 1), &headers, &rules(&origins)).unwrap();
        let answer: Vec<_> =
            accept.response.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let agreed = opening().check(101, &answer).unwrap();
        assert_eq!(agreed.subprotocol, Some(1));
        assert_eq!(agreed.compression, accept.compression);
        assert!(agreed.compression.is_some());
    }

    #[test]
    fn a_client_refuses_what_it_did_not_ask_for() {
        let good: &[(&str, &[u8])] = &[
            ("upgrade", b"WebSocket"),
            ("connection", b"upgrade"),
            ("sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ];
        assert_eq!(opening().check(101, good), Ok(Agreed { subprotocol: None, compression: None }));
        assert_eq!(opening().check(200, good), Err(AnswerError::Status(200)));
        let replaced = |at: usize, value: &'static [u8]| {
            let mut headers = good.to_vec();
            headers[at].1 = value;
            opening().check(101, &headers)
        };
        assert!(matches!(replaced(0, b"h2c"), Err(AnswerError::Malformed(_))));
        assert!(matches!(replaced(1, b"close"), Err(AnswerError::Malformed(_))));
        assert!(matches!(replaced(2, b"S3pPLMBiTxaQ9kYGzzhZRbK+xOo="), Err(AnswerError::Malformed(_))));
        assert!(matches!(replaced(2, b"\xFF"), Err(AnswerError::Headers(_))));
        let added = |name: &'static str, value: &'static [u8]| {
            opening().check(101, &[good, &[(name, value)]].concat())
        };
        assert_eq!(added(PROTOCOL, b"superchat"), Err(AnswerError::Subprotocol));
        assert_eq!(added(PROTOCOL, b"mqtt, chat"), Err(AnswerError::Subprotocol));
        assert_eq!(
            added(extensions::HEADER, b"foo"),
            Err(AnswerError::Extensions(ExtensionError::NotOffered))
        );
        let required =
            Opening { compression: Policy { mode: Mode::Required, ..Policy::default() }, ..opening() };
        assert_eq!(required.check(101, good), Err(AnswerError::CompressionRequired));
    }
}

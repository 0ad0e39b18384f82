//! The negotiation of permessage-deflate (RFC 7692 section 7.1) in `Sec-WebSocket-Extensions`.
//!
//! ```text
//! extensions = [ extension ] *( "," [ extension ] )           over all lines of the header, in order
//! extension  = token *( ";" parameter )
//! parameter  = token [ "=" ( token / quoted-string ) ]
//!
//! server_no_context_takeover     no value
//! client_no_context_takeover     no value
//! server_max_window_bits  = 8-15
//! client_max_window_bits [= 8-15]                             the value is optional in an offer only
//! ```
//!
//! An offer that breaks the second table is skipped, as if it had not been made; a header that breaks the
//! first is refused. `server_max_window_bits=8` is skipped too, as zlib cannot compress with it; a client that is
//! answered `client_max_window_bits=8` compresses nothing, which it need not.
//!
//! `x-webkit-deflate-frame` (Safari before 15; draft-tyoshino-hybi-websocket-perframe-deflate) has
//! `no_context_takeover` and `max_window_bits=8-15`, each about what the other end sends. A server takes it where
//! the policy says so and nothing better is offered, always without context takeover; else it declines it, as
//! it does all that it does not know.

use crate::websocket::deflate::WindowBits;
use crate::websocket::frame::{Role, Unit};

/// The name of the header.
pub const HEADER: &str = "Sec-WebSocket-Extensions";

const NAME: &str = "permessage-deflate";
const SERVER_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_BITS: &str = "server_max_window_bits";
const CLIENT_BITS: &str = "client_max_window_bits";

const LEGACY_NAME: &str = "x-webkit-deflate-frame";
const LEGACY_TAKEOVER: &str = "no_context_takeover";
const LEGACY_BITS: &str = "max_window_bits";

/// Whether to compress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Decline every offer.
    Off,
    /// Take an offer where one is made.
    #[default]
    Offered,
    /// Refuse a peer that makes no acceptable offer.
    Required,
}

/// What an end of the connection wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether at all.
    pub mode: Mode,
    /// The server compresses each message by itself, so that one payload serves many receivers.
    pub server_no_context_takeover: bool,
    /// The client compresses each message by itself, so that the server keeps no state for it.
    pub client_no_context_takeover: bool,
    /// The largest window the server compresses with.
    pub server_max_window_bits: WindowBits,
    /// The largest window the client compresses with. A server can ask that only of a client that offers it.
    pub client_max_window_bits: WindowBits,
    /// A server takes `x-webkit-deflate-frame`, where nothing better is offered.
    pub legacy_frames: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Offered,
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: WindowBits::MAX,
            client_max_window_bits: WindowBits::MAX,
            legacy_frames: false,
        }
    }
}

impl Policy {
    /// The same, but for contexts: neither end keeps one.
    pub fn without_takeover(self) -> Self {
        Self { server_no_context_takeover: true, client_no_context_takeover: true, ..self }
    }

    /// Whether an end may have to keep a context.
    pub fn allows_takeover(&self) -> bool {
        self.mode != Mode::Off && !(self.server_no_context_takeover && self.client_no_context_takeover)
    }
}

/// How one end compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Messages may refer to earlier ones: both ends keep a context.
    pub takeover: bool,
    /// The window.
    pub bits: WindowBits,
}

/// What both ends agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// What the server sends.
    pub server: Direction,
    /// What the client sends.
    pub client: Direction,
    /// What is compressed by itself: with permessage-deflate, a message.
    pub unit: Unit,
}

impl Agreement {
    /// Whether an end keeps a context.
    pub fn has_takeover(&self) -> bool {
        self.server.takeover || self.client.takeover
    }

    /// How the end with this role compresses what it sends.
    pub fn outgoing(&self, role: Role) -> Direction {
        match role {
            Role::Server => self.server,
            Role::Client => self.client,
        }
    }

    /// How the peer of the end with this role compresses.
    pub fn incoming(&self, role: Role) -> Direction {
        match role {
            Role::Server => self.client,
            Role::Client => self.server,
        }
    }
}

/// Why extensions could not be agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// The header is not a list of extensions.
    #[error("Sec-WebSocket-Extensions is malformed")]
    Malformed,
    /// The answer has an extension that was not offered, or more than one.
    #[error("the server chose an extension that was not offered")]
    NotOffered,
    /// The answer has a parameter that is unknown, doubled, out of range, or goes beyond the offer.
    #[error("the server answered permessage-deflate with parameters that were not offered")]
    BadAnswer,
}

/// The server's side: takes the first acceptable offer, and gives the value of the answer's header.
///
/// ```
/// use tandem_protocols::websocket::extensions::{Policy, negotiate};
///
/// let offers = ["permessage-deflate; client_max_window_bits"];
/// let (agreement, answer) = negotiate(&Policy::default(), &offers).unwrap().unwrap();
/// assert_eq!(answer, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
/// assert!(!agreement.server.takeover);
/// ```
pub fn negotiate(policy: &Policy, lines: &[&str]) -> Result<Option<(Agreement, String)>, ExtensionError> {
    let (mut taken, mut legacy) = (None, None);
    // All lines are read even after a choice, so that what is malformed is refused wherever it stands.
    for line in lines {
        for extension in Extensions(Some(line)) {
            let extension = extension?;
            if taken.is_none() && policy.mode != Mode::Off {
                taken = Parameters::of_offer(&extension).and_then(|offer| accept(policy, &offer));
            }
            if legacy.is_none() && policy.mode != Mode::Off && policy.legacy_frames {
                legacy = accept_legacy(policy, &extension);
            }
        }
    }
    Ok(taken.or(legacy))
}

/// The client's side: the value of the header that offers compression; `None` if the policy says no.
pub fn offer(policy: &Policy) -> Option<String> {
    if policy.mode == Mode::Off {
        return None;
    }
    let mut offer = NAME.to_owned();
    let client_bits = policy.client_max_window_bits;
    push(&mut offer, CLIENT_BITS, (client_bits < WindowBits::MAX).then_some(client_bits.get()));
    if policy.server_max_window_bits < WindowBits::MAX {
        push(&mut offer, SERVER_BITS, Some(policy.server_max_window_bits.get()));
    }
    if policy.server_no_context_takeover {
        push(&mut offer, SERVER_TAKEOVER, None);
    }
    if policy.client_no_context_takeover {
        push(&mut offer, CLIENT_TAKEOVER, None);
    }
    Some(offer)
}

/// The client's side: judges the server's answer to [`offer`]; `None` where it declined.
pub fn accept_answer(policy: &Policy, lines: &[&str]) -> Result<Option<Agreement>, ExtensionError> {
    let mut answers = lines.iter().flat_map(|line| Extensions(Some(line)));
    let Some(answer) = answers.next().transpose()? else { return Ok(None) };
    if let Some(second) = answers.next() {
        return Err(second.err().unwrap_or(ExtensionError::NotOffered));
    }
    if policy.mode == Mode::Off || !answer.name.eq_ignore_ascii_case(NAME) {
        return Err(ExtensionError::NotOffered);
    }
    let answer = Parameters::of_answer(&answer).ok_or(ExtensionError::BadAnswer)?;
    let server_bits = answer.server_bits.unwrap_or(15);
    if server_bits > policy.server_max_window_bits.get()
        || policy.server_no_context_takeover && !answer.server_alone
    {
        return Err(ExtensionError::BadAnswer);
    }
    // Not answered, our offer binds us as we said (section 7.1.2.2).
    let client_bits = answer.client_bits.flatten().unwrap_or(policy.client_max_window_bits.get());
    if client_bits > policy.client_max_window_bits.get() {
        return Err(ExtensionError::BadAnswer);
    }
    Ok(Some(Agreement {
        // A window of 8 bits is inflated with one of 9.
        server: Direction { takeover: !answer.server_alone, bits: at_least_min(server_bits) },
        client: Direction {
            takeover: !answer.client_alone && !policy.client_no_context_takeover,
            bits: WindowBits::new(client_bits).unwrap_or(WindowBits::TOO_SMALL),
        },
        unit: Unit::Message,
    }))
}

fn accept(policy: &Policy, offer: &Parameters) -> Option<(Agreement, String)> {
    let server_bits = match offer.server_bits {
        Some(bits) => WindowBits::new(bits)?.min(policy.server_max_window_bits),
        None => policy.server_max_window_bits,
    };
    let server_alone = offer.server_alone || policy.server_no_context_takeover;
    let client_alone = offer.client_alone || policy.client_no_context_takeover;
    let mut answer = NAME.to_owned();
    if server_alone {
        push(&mut answer, SERVER_TAKEOVER, None);
    }
    if client_alone {
        push(&mut answer, CLIENT_TAKEOVER, None);
    }
    if offer.server_bits.is_some() || server_bits < WindowBits::MAX {
        push(&mut answer, SERVER_BITS, Some(server_bits.get()));
    }
    // What a client that is not answered says of its window, nothing here depends on: we inflate with the
    // largest. One that did not say that it can limit it must not be answered.
    let mut client_bits = WindowBits::MAX;
    if let Some(offered) = offer.client_bits
        && policy.client_max_window_bits < WindowBits::MAX
    {
        let bits = policy.client_max_window_bits.get().min(offered.unwrap_or(15));
        push(&mut answer, CLIENT_BITS, Some(bits));
        client_bits = at_least_min(bits);
    }
    let agreement = Agreement {
        server: Direction { takeover: !server_alone, bits: server_bits },
        client: Direction { takeover: !client_alone, bits: client_bits },
        unit: Unit::Message,
    };
    Some((agreement, answer))
}

/// Takes an offer of `x-webkit-deflate-frame`. What it says is about what the server sends.
fn accept_legacy(policy: &Policy, extension: &Extension<'_>) -> Option<(Agreement, String)> {
    if !extension.name.eq_ignore_ascii_case(LEGACY_NAME) {
        return None;
    }
    let (mut alone, mut server_bits) = (false, None);
    for parameter in &extension.parameters {
        let fresh = match (parameter.name.to_ascii_lowercase().as_str(), parameter.value.as_deref()) {
            (LEGACY_TAKEOVER, None) => !std::mem::replace(&mut alone, true),
            (LEGACY_BITS, Some(value)) => server_bits.replace(WindowBits::new(bits(value)?)?).is_none(),
            _ => false,
        };
        if !fresh {
            return None;
        }
    }
    let bits = server_bits.unwrap_or(WindowBits::MAX).min(policy.server_max_window_bits);
    let agreement = Agreement {
        server: Direction { takeover: false, bits },
        client: Direction { takeover: false, bits: WindowBits::MAX },
        unit: Unit::Frame,
    };
    Some((agreement, format!("{LEGACY_NAME}; {LEGACY_TAKEOVER}")))
}

fn push(header: &mut String, name: &str, bits: Option<u8>) {
    header.push_str("; ");
    header.push_str(name);
    if let Some(bits) = bits {
        header.push('=');
        header.push_str(&bits.to_string());
    }
}

fn at_least_min(bits: u8) -> WindowBits {
    WindowBits::new(bits).unwrap_or(WindowBits::MIN)
}

/// The parameters of one permessage-deflate.
#[derive(Debug, Default)]
struct Parameters {
    server_alone: bool,
    client_alone: bool,
    server_bits: Option<u8>,
    /// Whether it was there, and with which value.
    client_bits: Option<Option<u8>>,
}

impl Parameters {
    /// `None` where the offer is to be skipped.
    fn of_offer(extension: &Extension<'_>) -> Option<Self> {
        if !extension.name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut read = Self::default();
        for parameter in &extension.parameters {
            let (name, value) = (parameter.name, parameter.value.as_deref());
            let fresh = match (name.to_ascii_lowercase().as_str(), value) {
                (SERVER_TAKEOVER, None) => !std::mem::replace(&mut read.server_alone, true),
                (CLIENT_TAKEOVER, None) => !std::mem::replace(&mut read.client_alone, true),
                (SERVER_BITS, Some(value)) => read.server_bits.replace(bits(value)?).is_none(),
                (CLIENT_BITS, Some(value)) => read.client_bits.replace(Some(bits(value)?)).is_none(),
                (CLIENT_BITS, None) => read.client_bits.replace(None).is_none(),
                _ => false,
            };
            if !fresh {
                return None;
            }
        }
        Some(read)
    }

    /// `None` where the answer breaks the rules. It must give a value where an offer need not.
    fn of_answer(extension: &Extension<'_>) -> Option<Self> {
        Self::of_offer(extension).filter(|answer| answer.client_bits != Some(None))
    }
}

/// `8` to `15`, without a leading zero or sign.
fn bits(value: &str) -> Option<u8> {
    ["8", "9", "10", "11", "12", "13", "14", "15"]
        .iter()
        .position(|bits| *bits == value)
        .map(|at| at as u8 + 8)
}

/// One element of the header.
#[derive(Debug)]
struct Extension<'a> {
    name: &'a str,
    parameters: Vec<Parameter<'a>>,
}

#[derive(Debug)]
struct Parameter<'a> {
    name: &'a str,
    /// Without its quotes.
    value: Option<String>,
}

/// Walks the elements of one line. It ends after an error.
struct Extensions<'a>(Option<&'a str>);

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<Extension<'a>, ExtensionError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.0.take()?;
        // An empty element is legal (RFC 9110 section 5.6.1), and means nothing.
        loop {
            rest = skip_space(rest);
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.is_empty() => return None,
                None => break,
            }
        }
        match extension(rest) {
            Some((extension, after)) => {
                self.0 = Some(after);
                Some(Ok(extension))
            }
            None => Some(Err(ExtensionError::Malformed)),
        }
    }
}

/// Reads one extension, and the comma or the end behind it.
fn extension(text: &str) -> Option<(Extension<'_>, &str)> {
    let (name, mut rest) = token(text)?;
    let mut parameters = Vec::new();
    loop {
        rest = skip_space(rest);
        if rest.is_empty() {
            return Some((Extension { name, parameters }, rest));
        }
        if let Some(after) = rest.strip_prefix(',') {
            return Some((Extension { name, parameters }, after));
        }
        let (name, after) = token(skip_space(rest.strip_prefix(';')?))?;
        rest = skip_space(after);
        let mut value = None;
        if let Some(after) = rest.strip_prefix('=') {
            let (text, after) = token_or_quoted(skip_space(after))?;
            (value, rest) = (Some(text), after);
        }
        parameters.push(Parameter { name, value });
    }
}

fn token_or_quoted(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(token, rest)| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            char => value.push(char),
        }
    }
    None
}

/// A token of RFC 9110 section 5.6.2, and what follows it.
pub(super) fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|octet| !is_token(octet)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

pub(super) fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `p-d` and `nct` stand for what they do in the table of measured answers.
    fn long(text: &str) -> String {
        text.replace("p-d", NAME).replace("nct", "no_context_takeover").replace("bits", "max_window_bits")
    }

    fn answer(policy: &Policy, lines: &[&str]) -> Option<String> {
        let lines: Vec<String> = lines.iter().map(|line| long(line)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        negotiate(policy, &lines).unwrap().map(|(_, answer)| answer)
    }

    #[test]
    fn the_default_policy_answers_like_this() {
        let both = "p-d; server_nct; client_nct";
        let ten = "p-d; server_nct; client_nct; server_bits=10";
        let table: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["", " , ,"], None),
            (&["p-d"], Some(both)),
            (&["Permessage-Deflate"], Some(both)),
            (&["p-d; client_bits"], Some(both)),
            (&["p-d; client_bits=8"], Some(both)),
            (&["p-d;client_bits=15"], Some(both)),
            (&["p-d ; client_nct ;\tserver_nct"], Some(both)),
            (&["p-d; server_bits=8"], None),
            (&["p-d; server_bits=9"], Some("p-d; server_nct; client_nct; server_bits=9")),
            (&["p-d; server_bits=10"], Some(ten)),
            (&["p-d; server_bits=\"10\""], Some(ten)),
            (&["p-d; server_bits=\"1\\0\""], Some(ten)),
            (&["p-d; server_bits = 10"], Some(ten)),
            (&["p-d; SERVER_MAX_WINDOW_BITS=10"], Some(ten)),
            (&["p-d; server_bits=15"], Some("p-d; server_nct; client_nct; server_bits=15")),
            (&["p-d; server_bits"], None),
            (&["p-d; server_bits=7"], None),
            (&["p-d; server_bits=16"], None),
            (&["p-d; server_bits=99"], None),
            (&["p-d; server_bits=010"], None),
            (&["p-d; server_bits=+9"], None),
            (&["p-d; server_bits=\"\""], None),
            (&["p-d; client_bits=7"], None),
            (&["p-d; client_bits=08"], None),
            (&["p-d; client_bits=99999999999999999999"], None),
            (&["p-d; server_nct=1"], None),
            (&["p-d; client_nct=\"true\""], None),
            (&["p-d; server_nct; server_nct"], None),
            (&["p-d; client_bits; client_bits=9"], None),
            (&["p-d; server_bits=9; server_bits=9"], None),
            (&["p-d; unknown"], None),
            (&["p-d; unknown=\"a,b;c\", p-d"], Some(both)),
            (&["p-d; server_bits=8, p-d"], Some(both)),
            (&["p-d; server_bits=10, p-d"], Some(ten)),
            (&["p-d; server_bits=8", "foo", "p-d; server_bits=10"], Some(ten)),
            (&["foo, p-d"], Some(both)),
            (&["x-webkit-deflate-frame, p-d"], Some(both)),
            (&["x-webkit-deflate-frame"], None),
        ];
        for (lines, expected) in table {
            assert_eq!(answer(&Policy::default(), lines), expected.map(long), "{lines:?}");
        }
    }

    #[test]
    fn a_malformed_header_is_refused_wherever_it_is_malformed() {
        for line in [
            ";",
            "=",
            "p-d;",
            "p-d; =1",
            "p-d; a=",
            "p-d; a=\"",
            "p-d; a=\"\\",
            "p-d p-d",
            "p-d, é",
            "p-d; a=b c",
            "(p)",
        ] {
            let refused = negotiate(&Policy::default(), &[NAME, line]);
            assert_eq!(refused, Err(ExtensionError::Malformed), "{line}");
            let off = Policy { mode: Mode::Off, ..Policy::default() };
            assert_eq!(negotiate(&off, &[line]), Err(ExtensionError::Malformed), "{line}");
        }
    }

    #[test]
    fn a_policy_with_takeover_or_a_small_window_says_so() {
        let kept = Policy {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: WindowBits::new(12).unwrap(),
            ..Policy::default()
        };
        let table = [
            ("p-d", "p-d; server_bits=12"),
            ("p-d; server_bits=15", "p-d; server_bits=12"),
            ("p-d; server_bits=9", "p-d; server_bits=9"),
            ("p-d; server_nct", "p-d; server_nct; server_bits=12"),
            ("p-d; client_nct; client_bits", "p-d; client_nct; server_bits=12"),
        ];
        for (offer, expected) in table {
            assert_eq!(answer(&kept, &[offer]), Some(long(expected)), "{offer}");
        }
        let (agreement, _) = negotiate(&kept, &[&long("p-d; server_nct")]).unwrap().unwrap();
        assert!(!agreement.outgoing(Role::Server).takeover);
        assert!(agreement.incoming(Role::Server).takeover);
        assert_eq!(agreement.server.bits.get(), 12);
        assert_eq!(agreement.client.bits, WindowBits::MAX);
        assert_eq!(agreement.incoming(Role::Client), agreement.server);
        assert_eq!(agreement.outgoing(Role::Client), agreement.client);
        assert_eq!(answer(&Policy { mode: Mode::Off, ..kept }, &["p-d"]), None);
    }

    #[test]
    fn a_client_judges_the_answer() {
        let policy = Policy { client_no_context_takeover: false, ..Policy::default() };
        let offer = long("p-d; client_bits; server_nct");
        assert_eq!(super::offer(&policy), Some(offer));
        assert_eq!(super::offer(&Policy { mode: Mode::Off, ..policy }), None);
        let agreed = |server: u8, client_takeover: bool, client: u8| {
            Ok(Some(Agreement {
                server: Direction { takeover: false, bits: WindowBits::new(server).unwrap() },
                client: Direction {
                    takeover: client_takeover,
                    bits: WindowBits::new(client).unwrap_or(WindowBits::TOO_SMALL),
                },
                unit: Unit::Message,
            }))
        };
        let table = [
            ("", Ok(None)),
            ("p-d; server_nct", agreed(15, true, 15)),
            ("p-d; server_nct; client_nct", agreed(15, false, 15)),
            ("p-d; server_nct; client_bits=10; server_bits=12", agreed(12, true, 10)),
            ("p-d; server_nct; server_bits=8", agreed(9, true, 15)),
            ("p-d; server_nct; client_bits=8", agreed(15, true, 8)),
            ("p-d; server_nct; client_bits=\"9\"", agreed(15, true, 9)),
            ("p-d; server_nct; client_bits=7", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct; client_bits=09", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct; client_bits=9; client_bits=9", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct; server_bits", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct; server_bits=16", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct=1", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct; client_nct=0", Err(ExtensionError::BadAnswer)),
            ("x-webkit-deflate-frame; no_context_takeover", Err(ExtensionError::NotOffered)),
            ("p-d; server_nct; client_bits", Err(ExtensionError::BadAnswer)),
            ("p-d", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct; foo", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct; server_nct", Err(ExtensionError::BadAnswer)),
            ("p-d; server_nct, p-d; server_nct", Err(ExtensionError::NotOffered)),
            ("foo", Err(ExtensionError::NotOffered)),
            ("p-d; server_nct, ;", Err(ExtensionError::Malformed)),
        ];
        for (answer, expected) in table {
            assert_eq!(accept_answer(&policy, &[&long(answer)]), expected, "{answer}");
        }
        let off = Policy { mode: Mode::Off, ..policy };
        assert_eq!(accept_answer(&off, &[NAME]), Err(ExtensionError::NotOffered));
        let small = Policy { server_max_window_bits: WindowBits::new(10).unwrap(), ..policy };
        assert_eq!(accept_answer(&small, &[&long("p-d; server_nct")]), Err(ExtensionError::BadAnswer));
        let narrow = Policy { client_max_window_bits: WindowBits::new(10).unwrap(), ..policy };
        assert_eq!(super::offer(&narrow), Some(long("p-d; client_bits=10; server_nct")));
        let table = [
            ("p-d; server_nct", agreed(15, true, 10)),
            ("p-d; server_nct; client_bits=9", agreed(15, true, 9)),
            ("p-d; server_nct; client_bits=10", agreed(15, true, 10)),
            ("p-d; server_nct; client_bits=11", Err(ExtensionError::BadAnswer)),
        ];
        for (answer, expected) in table {
            assert_eq!(accept_answer(&narrow, &[&long(answer)]), expected, "{answer}");
        }
    }

    #[test]
    fn a_server_limits_the_window_of_a_client_that_can_limit_it() {
        let policy = Policy { client_max_window_bits: WindowBits::new(11).unwrap(), ..Policy::default() };
        let both = "p-d; server_nct; client_nct";
        for (offer, bits, kept) in
            [("", None, 15), ("; client_bits", Some(11), 11), ("; client_bits=15", Some(11), 11)]
                .into_iter()
                .chain([("; client_bits=10", Some(10), 10), ("; client_bits=8", Some(8), 9)])
        {
            let (agreement, answer) = negotiate(&policy, &[&long(&format!("p-d{offer}"))]).unwrap().unwrap();
            let expected = bits.map_or(both.to_owned(), |bits| format!("{both}; client_bits={bits}"));
            assert_eq!(answer, long(&expected));
            assert_eq!(agreement.client.bits.get(), kept, "{offer}");
        }
    }

    #[test]
    fn old_safaris_are_answered_where_the_policy_says_so() {
        let policy = Policy {
            legacy_frames: true,
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            ..Policy::default()
        };
        let webkit = "x-webkit-deflate-frame; no_context_takeover";
        let table = [
            ("x-webkit-deflate-frame", Some((webkit, 15))),
            ("X-WebKit-Deflate-Frame; no_context_takeover", Some((webkit, 15))),
            ("x-webkit-deflate-frame; bits=10", Some((webkit, 10))),
            ("x-webkit-deflate-frame; bits=8", None),
            ("x-webkit-deflate-frame; bits", None),
            ("x-webkit-deflate-frame; bits=9; bits=9", None),
            ("x-webkit-deflate-frame; no_context_takeover=1", None),
            ("x-webkit-deflate-frame; server_no_context_takeover", None),
            ("x-webkit-deflate-frame; bits=8, x-webkit-deflate-frame", Some((webkit, 15))),
            ("x-webkit-deflate-frame, p-d", Some((NAME, 15))),
        ];
        for (offer, expected) in table {
            let taken = negotiate(&policy, &[&long(offer)]).unwrap();
            let found =
                taken.as_ref().map(|(agreement, answer)| (answer.as_str(), agreement.server.bits.get()));
            assert_eq!(found, expected, "{offer}");
            let unit =
                if expected.is_some_and(|(name, _)| name == NAME) { Unit::Message } else { Unit::Frame };
            assert!(taken.is_none_or(|(agreement, _)| agreement.unit == unit
                && agreement.has_takeover() == (unit == Unit::Message)));
        }
        assert_eq!(answer(&Policy { mode: Mode::Off, ..policy }, &["x-webkit-deflate-frame"]), None);
    }

    proptest! {
        #[test]
        fn what_we_offer_we_accept_and_what_we_answer_the_client_takes(
            server: (bool, bool, u8, u8), client: (bool, bool, u8, u8),
        ) {
            let window = |bits: u8| WindowBits::new(9 + bits % 7).unwrap();
            let policy = |(server, client, server_bits, client_bits): (bool, bool, u8, u8)| Policy {
                mode: Mode::Offered,
                server_no_context_takeover: server,
                client_no_context_takeover: client,
                server_max_window_bits: window(server_bits),
                client_max_window_bits: window(client_bits),
                legacy_frames: true,
            };
            let (server, client) = (policy(server), policy(client));
            let offer = offer(&client).unwrap();
            let (agreement, answer) = negotiate(&server, &[&offer]).unwrap().unwrap();
            let taken = accept_answer(&client, &[&answer]).unwrap().unwrap();
            prop_assert_eq!((taken.server, taken.client.takeover), (agreement.server, agreement.client.takeover));
            // The client may bind itself more than it is bound.
            prop_assert!(taken.client.bits <= agreement.client.bits);
        }

        #[test]
        fn no_header_panics(line in "[a-z;=,\" \\\\é0-9_-]{0,40}") {
            let _ = negotiate(&Policy::default(), &[&line]);
            let _ = accept_answer(&Policy::default(), &[&line]);
        }
    }
}

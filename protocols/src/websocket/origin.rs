//! Which web pages may connect: the policy for `Origin` (RFC 6454), against cross-site hijacking.
//!
//! ```text
//! rule      = "*" / "same-origin" / scheme "://" [ "*." ] authority
//! origin    = "null" / scheme "://" authority          nothing before, behind, or twice
//! authority = host [ ":" port ]
//! host      = 1*label-with-dots [ "." ] / "[" IPv6 "]"
//! ```
//!
//! Hosts compare without case and without a final dot, ports with their scheme's default filled in.
//! `https://*.example.com` stands for exactly one label, and at least two must follow it. Same-origin
//! compares host and port, and takes `http` for `https`: TLS often ends in a proxy, where this end does not
//! see it. Other schemes have hosts that mean something else, such as `capacitor://localhost`.
//!
//! Only browsers send an origin, and only there does it protect anyone: other clients write what they like.

use std::net::Ipv6Addr;

/// A rule of the allow-list that means nothing. A broker with one does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an origin to allow: {0:?} (write scheme://host[:port], https://*.example.com, same-origin or *)"
)]
pub struct BadRule(pub String);

/// Why an origin was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginRefused {
    /// There was none, and the policy wants one.
    #[error("an Origin is required here")]
    Missing,
    /// `null`, from a sandboxed page or a file, and the policy does not allow it.
    #[error("the origin null is not allowed here")]
    Null,
    /// It is not an origin.
    #[error("the Origin is malformed")]
    Malformed,
    /// No rule allows it.
    #[error("this origin is not allowed here")]
    NotAllowed,
}

/// An allow-list of origins.
///
/// ```
/// use tandem_protocols::websocket::origin::OriginPolicy;
///
/// let policy = OriginPolicy::new(&["same-origin", "https://*.example.com"]).unwrap();
/// assert!(policy.judge(Some("https://app.example.com"), "broker.example.net").is_ok());
/// assert!(policy.judge(Some("https://broker.example.net"), "broker.example.net").is_ok());
/// assert!(policy.judge(Some("https://evil.example"), "broker.example.net").is_err());
/// assert!(policy.judge(None, "broker.example.net").is_ok(), "not a browser");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPolicy {
    rules: Vec<Rule>,
    /// Allows `Origin: null`, which any page can send by framing itself in a sandbox.
    pub allow_null: bool,
    /// Refuses those without an origin: all clients that are not browsers.
    pub require: bool,
}

impl Default for OriginPolicy {
    /// Same origin, and clients that are not browsers.
    fn default() -> Self {
        Self { rules: vec![Rule::SameOrigin], allow_null: false, require: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Any,
    SameOrigin,
    Exact(Origin),
    /// Any one label below this one.
    Below(Origin),
}

/// Normalised, so that equal means the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl OriginPolicy {
    /// Builds the policy; an empty list allows no page at all.
    pub fn new(allowed: &[impl AsRef<str>]) -> Result<Self, BadRule> {
        let rule = |text: &str| Rule::read(text).ok_or_else(|| BadRule(text.to_owned()));
        let rules = allowed.iter().map(|text| rule(text.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { rules, allow_null: false, require: false })
    }

    /// Judges the `Origin` of a request to `host`: its `Host`, or that which a trusted proxy was asked for.
    pub fn judge(&self, origin: Option<&str>, host: &str) -> Result<(), OriginRefused> {
        let origin = match origin {
            None if self.require => return Err(OriginRefused::Missing),
            None => return Ok(()),
            Some("null") if self.allow_null => return Ok(()),
            Some("null") => return Err(OriginRefused::Null),
            Some(origin) => Origin::read(origin).ok_or(OriginRefused::Malformed)?,
        };
        if self.rules.iter().any(|rule| rule.allows(&origin, host)) {
            return Ok(());
        }
        Err(OriginRefused::NotAllowed)
    }
}

impl Rule {
    fn read(text: &str) -> Option<Self> {
        match text {
            "*" => return Some(Self::Any),
            "same-origin" => return Some(Self::SameOrigin),
            _ => {}
        }
        let (scheme, rest) = text.split_once("://")?;
        let Some(below) = rest.strip_prefix("*.") else { return Origin::read(text).map(Self::Exact) };
        let origin = Origin::read(&format!("{scheme}://{below}"))?;
        (origin.host.contains('.') && !origin.host.starts_with('[')).then_some(Self::Below(origin))
    }

    fn allows(&self, origin: &Origin, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin == exact,
            Self::Below(below) => {
                let parent = origin.host.split_once('.').map(|(_, parent)| parent);
                parent == Some(&below.host) && origin.scheme == below.scheme && origin.port == below.port
            }
            Self::SameOrigin => authority(host).is_some_and(|(host, port)| {
                matches!(&*origin.scheme, "http" | "https")
                    && host == origin.host
                    && port.or(default_port(&origin.scheme)) == origin.port
            }),
        }
    }
}

impl Origin {
    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let legal = |octet: u8| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(legal) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = authority(rest)?;
        let port = port.or(default_port(&scheme));
        Some(Self { scheme, host, port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Reads `host[:port]`, and normalises the host.
fn authority(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (name(host)?, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return None,
        Some(digits) if digits.bytes().all(|octet| octet.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    Some((host, port))
}

fn name(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let legal = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
    let label = |label: &str| !label.is_empty() && label.bytes().all(legal);
    host.split('.').all(label).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_same_host_and_port() {
        let policy = OriginPolicy::default();
        let table: &[(&str, &str, bool)] = &[
            ("https://example.com", "example.com", true),
            ("https://example.com", "example.com:443", true),
            ("https://example.com:443", "example.com", true),
            ("http://example.com", "example.com:80", true),
            ("http://example.com:8080", "example.com:8080", true),
            ("http://EXAMPLE.com", "example.COM", true),
            ("HTTPS://example.com", "example.com", true),
            ("https://example.com.", "example.com", true),
            ("https://example.com", "example.com.:443", true),
            ("http://[::1]:80", "[0:0::1]", true),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("http://example.com", "example.com:443", false),
            ("https://example.com:8443", "example.com", false),
            ("https://evil.com", "example.com", false),
            ("https://example.com.evil.com", "example.com", false),
            ("https://evil-example.com", "example.com", false),
            ("https://a.example.com", "example.com", false),
            ("https://example.com", "", false),
            ("https://example.com", "example.com, evil.com", false),
            ("app://example.com", "example.com", false),
        ];
        for (origin, host, allowed) in table {
            assert_eq!(policy.judge(Some(origin), host).is_ok(), *allowed, "{origin} at {host}");
        }
        assert_eq!(policy.judge(None, "example.com"), Ok(()));
        assert_eq!(policy.judge(Some("null"), "null"), Err(OriginRefused::Null));
    }

    #[test]
    fn what_is_no_origin_is_refused_even_by_the_star() {
        let policy = OriginPolicy::new(&["*"]).unwrap();
        assert_eq!(policy.judge(Some("https://anything.at.all:1"), "example.com"), Ok(()));
        for origin in [
            "",
            "example.com",
            "https://",
            "https://example.com/",
            "https://a b",
            "https://user@example.com",
            "https://example.com https://evil.com",
            "https://a..b",
            "https://.",
            "https://a:",
            "https://a:+1",
            "https://a:65536",
            "https://a:80:80",
            "https://[::1",
            "https://[::g]",
            "https://[::1]x",
            "://a",
            "1http://a",
            "https://é.com",
            "Null",
            "https://*.example.com",
        ] {
            assert_eq!(policy.judge(Some(origin), "a"), Err(OriginRefused::Malformed), "{origin:?}");
        }
    }

    #[test]
    fn null_and_none_are_switches() {
        let policy = OriginPolicy { allow_null: true, require: true, ..OriginPolicy::default() };
        assert_eq!(policy.judge(Some("null"), "example.com"), Ok(()));
        assert_eq!(policy.judge(None, "example.com"), Err(OriginRefused::Missing));
        assert_eq!(OriginPolicy::new(&["*"]).unwrap().judge(Some("null"), "a"), Err(OriginRefused::Null));
    }

    #[test]
    fn a_list_allows_what_it_names_and_one_label_for_a_star() {
        let policy =
            OriginPolicy::new(&["https://shop.example:8443", "https://*.example.com", "app://x"]).unwrap();
        let table = [
            ("https://shop.example:8443", true),
            ("https://SHOP.example.:8443", true),
            ("https://shop.example", false),
            ("http://shop.example:8443", false),
            ("https://a.example.com", true),
            ("https://a.example.com:443", true),
            ("https://a.example.com:8443", false),
            ("http://a.example.com", false),
            ("https://example.com", false),
            ("https://a.b.example.com", false),
            ("https://aexample.com", false),
            ("https://a.example.com.evil.com", false),
            ("app://x", true),
        ];
        for (origin, allowed) in table {
            // The host is the origin's own: same-origin is not on this list.
            let host = origin.split_once("://").unwrap().1;
            assert_eq!(policy.judge(Some(origin), host).is_ok(), allowed, "{origin}");
        }
        let none: &[&str] = &[];
        assert!(OriginPolicy::new(none).unwrap().judge(Some("https://a"), "a").is_err());
    }

    #[test]
    fn a_malformed_list_is_no_policy() {
        for rule in [
            "",
            "example.com",
            "null",
            "https://a, https://b",
            "https://a https://b",
            "*.example.com",
            "https://*",
            "https://*.com",
            "https://a.*.com",
            "https://*a.example.com",
            "https://example.com/",
            "https://*.[::1]",
            "same-Origin",
            "https://example.com:port",
        ] {
            let list = ["https://good.example", rule];
            assert_eq!(OriginPolicy::new(&list), Err(BadRule(rule.to_owned())));
        }
    }
}

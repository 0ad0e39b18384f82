//! Who is behind a proxy, as far as the operator trusts it to say so.
//!
//! Over HTTP the proxy says it in `X-Forwarded-For`, `-Proto` and `-Host`, or in `Forwarded` (RFC 7239), whichever the
//! operator names: a proxy that sets one passes the other on as the client wrote it. Each proxy on the way adds to the
//! right of the list, so from there the first address that is no proxy of ours is the peer's; what is left of it anybody
//! may have written. Over anything else it is the PROXY protocol, in [`proxy_protocol`](super::proxy_protocol).
//!
//! What of this comes from somebody who is not listed is not believed. It shows all the same that there is a proxy: who
//! comes so does not count as of this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue, VIA};
use ipnet::IpNet;

use crate::core::access::Peer;
use crate::core::proxied::Proxied;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What the word for Unix sockets is in the list.
const UNIX: &str = "unix";

/// In which headers proxies say for whom they speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// `X-Forwarded-For` and its companions.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Forwarded,
}

/// The proxies that are believed. By default none.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    networks: Vec<IpNet>,
    unix: bool,
    forwarding: Forwarding,
    /// How long one may take to say by the PROXY protocol for whom it speaks.
    pub protocol_time_max: Duration,
}

/// What was made of a request's headers.
#[derive(Debug, PartialEq, Eq)]
pub struct Asker {
    /// Who asks.
    pub peer: Peer,
    /// The host that they asked for, where a proxy says so.
    pub host: Option<HeaderValue>,
}

/// One stretch of the way, as a proxy tells it.
#[derive(Debug, Default)]
struct Hop<'a> {
    address: Option<SocketAddr>,
    proto: Option<&'a str>,
    host: Option<&'a str>,
}

impl Proxies {
    /// Those at these addresses and networks; `unix` for whoever connects over a Unix socket. Gives back what is none.
    pub fn new(
        list: &[String],
        forwarding: Forwarding,
        protocol_time_max: Duration,
    ) -> Result<Proxies, &str> {
        let mut proxies = Proxies { forwarding, protocol_time_max, ..Proxies::default() };
        for written in list {
            if written == UNIX {
                proxies.unix = true;
                continue;
            }
            let network = written.parse().ok().or_else(|| written.parse::<IpAddr>().ok().map(IpNet::from));
            proxies.networks.push(network.ok_or(written.as_str())?);
        }
        Ok(proxies)
    }

    /// Whether somebody is one of them. For whom a proxy speaks without saying so may be anybody.
    pub fn trusts(&self, peer: &Peer) -> bool {
        if let Peer::Proxied(proxied) = peer
            && !proxied.is_known
        {
            return false;
        }
        match peer.address() {
            Some(address) => self.trusts_address(address.ip()),
            None => self.unix && matches!(peer, Peer::Unix(_)),
        }
    }

    fn trusts_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Who asks, of a request that this peer sent.
    pub fn asker(&self, peer: &Peer, headers: &HeaderMap) -> Asker {
        let mentioned = [X_FORWARDED_FOR, FORWARDED, X_REAL_IP, VIA];
        let forwarded = mentioned.iter().any(|name| headers.contains_key(name));
        if !self.trusts(peer) {
            let peer = match peer.is_loopback() && forwarded {
                true => behind(peer, None, false),
                false => peer.clone(),
            };
            return Asker { peer, host: None };
        }
        let hop = match self.forwarding {
            Forwarding::XForwarded => self.x_forwarded(headers),
            Forwarding::Forwarded => self.forwarded(headers),
        };
        let host = hop.host.and_then(|host| HeaderValue::from_str(host).ok());
        if hop.address.is_none() && !forwarded {
            // It speaks for itself.
            return Asker { peer: peer.clone(), host };
        }
        let is_private = hop.proto.is_some_and(|proto| matches!(proto, "https" | "wss"));
        Asker { peer: behind(peer, hop.address, is_private), host }
    }

    fn x_forwarded<'a>(&self, headers: &'a HeaderMap) -> Hop<'a> {
        let mut nearest = None;
        for text in from_the_right(headers, &X_FORWARDED_FOR) {
            let Some(address) = address(text) else { break };
            nearest = Some(address);
            if !self.trusts_address(address.ip()) {
                break;
            }
        }
        Hop {
            address: nearest,
            proto: from_the_right(headers, &X_FORWARDED_PROTO).next(),
            host: from_the_right(headers, &X_FORWARDED_HOST).next(),
        }
    }

    fn forwarded<'a>(&self, headers: &'a HeaderMap) -> Hop<'a> {
        let mut nearest = Hop::default();
        for element in from_the_right(headers, &FORWARDED) {
            let mut hop = Hop::default();
            for pair in element.split(';') {
                let Some((name, value)) = pair.split_once('=') else { continue };
                let value = value.trim().trim_matches('"');
                match name.trim() {
                    name if name.eq_ignore_ascii_case("for") => hop.address = address(value),
                    name if name.eq_ignore_ascii_case("proto") => hop.proto = Some(value),
                    name if name.eq_ignore_ascii_case("host") => hop.host = Some(value),
                    _ => {}
                }
            }
            let Some(address) = hop.address else { break };
            nearest = hop;
            if !self.trusts_address(address.ip()) {
                break;
            }
        }
        nearest
    }
}

/// Somebody behind this peer.
fn behind(proxy: &Peer, address: Option<SocketAddr>, is_private: bool) -> Peer {
    let is_known = address.is_some();
    let own = proxy.address().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let address = address.unwrap_or(own);
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    Peer::Proxied(Arc::new(Proxied { address, is_known, proxy: proxy.to_string(), secure: None, is_private }))
}

/// The elements of a list that may lie on several lines, the last one first. What is not ASCII ends it.
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    let lines = lines.into_iter().rev().map_while(|line| line.to_str().ok());
    lines.flat_map(|line| line.rsplit(',').map(str::trim)).filter(|element| !element.is_empty())
}

/// An address, with a port or without.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::UnixPeer;

    fn proxies(forwarding: Forwarding) -> Proxies {
        let list = ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32", "unix"].map(str::to_owned);
        Proxies::new(&list, forwarding, Duration::from_secs(3)).unwrap()
    }

    fn peer(address: &str) -> Peer {
        Peer::Socket(address.parse().unwrap())
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        lines.iter().map(pair).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    /// The address that this comes from, and whether that counts as private.
    fn asker(forwarding: Forwarding, from: &str, lines: &[(&'static str, &str)]) -> (String, bool) {
        let Asker { peer, .. } = proxies(forwarding).asker(&peer(from), &headers(lines));
        assert!(lines.is_empty() || !peer.is_loopback(), "behind a proxy nobody is of this machine");
        (peer.address().unwrap().ip().to_string(), peer.is_private())
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_of_ours_counts() {
        let asker = |lines: &[(&'static str, &str)]| asker(Forwarding::XForwarded, "127.0.0.1:9", lines).0;
        for (list, counts) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:1234", "192.0.2.1"),
            ("203.0.113.66, 192.0.2.1", "192.0.2.1"),
            ("203.0.113.66, 192.0.2.1, 10.1.2.3 , 2001:db8::7", "192.0.2.1"),
            ("[2001:dead::1]:80", "2001:dead::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("10.0.0.9", "10.0.0.9"),
            ("127.0.0.1", "127.0.0.1"),
            ("192.0.2.1, nonsense, 10.0.0.9", "10.0.0.9"),
            ("192.0.2.1, nonsense", "127.0.0.1"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(asker(&[("x-forwarded-for", list)]), counts, "{list}");
        }
        let lines = [("x-forwarded-for", "203.0.113.66"), ("x-forwarded-for", "192.0.2.1, 10.0.0.1")];
        assert_eq!(asker(&lines), "192.0.2.1", "lines are one list");
    }

    #[test]
    fn what_somebody_else_claims_is_not_believed_but_shows_that_there_is_a_proxy() {
        let forged = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")];
        let far = asker(Forwarding::XForwarded, "203.0.113.5:1", &forged);
        assert_eq!(far, ("203.0.113.5".to_owned(), false));
        let none = Proxies::default();
        for name in ["x-forwarded-for", "forwarded", "x-real-ip", "via"] {
            let asker = none.asker(&peer("127.0.0.1:1"), &headers(&[(name, "for=127.0.0.1")]));
            assert!(!asker.peer.is_loopback() && !asker.peer.is_private(), "{name}");
            assert_eq!(asker.peer.address(), peer("127.0.0.1:1").address());
        }
        assert_eq!(none.asker(&peer("127.0.0.1:1"), &HeaderMap::new()).peer, peer("127.0.0.1:1"));
    }

    #[test]
    fn the_header_that_the_operator_did_not_name_is_as_the_client_wrote_it() {
        let both = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=203.0.113.66")];
        assert_eq!(asker(Forwarding::XForwarded, "10.0.0.1:1", &both).0, "192.0.2.1");
        assert_eq!(asker(Forwarding::Forwarded, "10.0.0.1:1", &both).0, "203.0.113.66");
        assert_eq!(asker(Forwarding::Forwarded, "10.0.0.1:1", &both[..1]).0, "10.0.0.1");
    }

    #[test]
    fn forwarded_tells_address_host_and_proto_of_the_same_stretch() {
        let line = "for=203.0.113.66;host=evil.example;proto=https, \
                    For=\"[2001:dead::1]:4711\";HOST=a.example;proto=https, for=10.0.0.2;host=inner";
        let told =
            proxies(Forwarding::Forwarded).asker(&peer("10.0.0.1:1"), &headers(&[("forwarded", line)]));
        assert_eq!(told.peer.address(), Some("[2001:dead::1]:4711".parse().unwrap()));
        assert_eq!(told.host.unwrap(), "a.example");
        assert!(told.peer.is_private());
    }

    #[test]
    fn what_was_asked_for_and_how_is_what_the_last_proxy_says() {
        let lines = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "evil.example, a.example"),
            ("x-forwarded-proto", "https"),
        ];
        let told = proxies(Forwarding::XForwarded).asker(&peer("10.0.0.1:1"), &headers(&lines));
        assert_eq!(told.host.unwrap(), "a.example");
        assert!(told.peer.is_private());
        let plain = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https, http")];
        assert!(!asker(Forwarding::XForwarded, "10.0.0.1:1", &plain).1);
    }

    /// The PROXY protocol's `UNKNOWN`, `LOCAL` and families without addresses.
    #[test]
    fn for_whom_a_listed_proxy_speaks_without_saying_so_is_not_believed() {
        let lines = headers(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-host", "a.example")]);
        let told = |is_known| {
            let (address, proxy) = ("10.0.0.1:1".parse().unwrap(), String::new());
            let behind = Proxied { address, is_known, proxy, secure: None, is_private: false };
            proxies(Forwarding::XForwarded).asker(&Peer::Proxied(Arc::new(behind)), &lines)
        };
        assert_eq!(told(false).peer.address(), Some("10.0.0.1:1".parse().unwrap()));
        assert_eq!(told(false).host, None);
        assert_eq!(
            told(true).peer.address(),
            Some("192.0.2.1:0".parse().unwrap()),
            "one proxy behind another"
        );
    }

    #[test]
    fn a_proxy_may_come_over_a_unix_socket_and_a_list_is_of_networks() {
        let socket = Peer::Unix(Arc::new(UnixPeer { path: "/run/x".into(), user: 1, process: None }));
        let lines = headers(&[("x-forwarded-for", "192.0.2.1")]);
        let told = proxies(Forwarding::XForwarded).asker(&socket, &lines);
        assert_eq!(told.peer.address(), Some("192.0.2.1:0".parse().unwrap()));
        assert_eq!(told.peer.to_string(), "192.0.2.1 by way of unix:/run/x, user 1");
        for wrong in ["10.0.0.0/33", "example.com", "*", ""] {
            let list = [wrong.to_owned()];
            assert_eq!(Proxies::new(&list, Forwarding::XForwarded, Duration::ZERO).err(), Some(wrong));
        }
    }
}

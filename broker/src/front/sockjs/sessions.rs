//! The sessions of SockJS that go over several requests, by the name that their client gave them.
//!
//! The name is all that the requests of a session have in common, and its client chose it: sockjs-client takes 40
//! random bits. Who knows it can send in the session's name. So a request is only taken for one if nothing speaks
//! against it: another origin, another certificate.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use hyper::header::HeaderValue;
use parking_lot::Mutex;

use crate::core::access::Peer;
use crate::front::longpoll::lane::{Claim, Lane, LaneWire, Receive};
use crate::metrics;

/// What a session was opened by.
#[derive(Clone, Debug)]
pub struct Opener {
    /// The origin, if a page said one.
    origin: Option<HeaderValue>,
    /// The fingerprint of the certificate that was shown, if any.
    certificate: Option<[u8; 32]>,
}

impl Opener {
    /// Of a request.
    pub fn new(origin: Option<&HeaderValue>, peer: &Peer) -> Opener {
        let certificate = peer.certificate().map(|certificate| certificate.fingerprint);
        Opener { origin: origin.cloned(), certificate }
    }

    /// True when a request like `other` may belong to the same client. Browsers say no origin where they read from
    /// their own.
    fn may_be(&self, other: &Opener) -> bool {
        let same_origin = match (&self.origin, &other.origin) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        same_origin && self.certificate == other.certificate
    }
}

/// The sessions that there are. Their number is bounded by that of connections.
#[derive(Debug, Default)]
pub struct Sessions {
    by_name: Mutex<HashMap<Box<str>, Session>>,
}

#[derive(Debug)]
struct Session {
    lane: Arc<Lane>,
    opener: Opener,
}

/// What there is by a name.
pub enum Found {
    /// A session that was there.
    Known(Arc<Lane>),
    /// A new one, and its first receive.
    New(Listed, LaneWire, Receive),
    /// A session that is somebody else's.
    Foreign,
}

/// The place of a session. Dropping it ends the session and frees its name.
#[derive(Debug)]
pub struct Listed {
    sessions: Arc<Sessions>,
    name: Box<str>,
    /// What lies between its requests and its pump.
    pub lane: Arc<Lane>,
}

impl Sessions {
    /// None yet.
    pub fn new() -> Arc<Sessions> {
        Arc::default()
    }

    /// The session of that name, if it can be that of this client.
    pub fn get(&self, name: &str, opener: &Opener) -> Option<Arc<Lane>> {
        let by_name = self.by_name.lock();
        let session = by_name.get(name)?;
        session.opener.may_be(opener).then(|| session.lane.clone())
    }

    /// The session of that name, or a new one.
    pub fn get_or_open(self: &Arc<Sessions>, name: &str, opener: Opener) -> Found {
        let mut by_name = self.by_name.lock();
        let place = match by_name.entry(name.into()) {
            Entry::Occupied(place) if place.get().opener.may_be(&opener) => {
                return Found::Known(place.get().lane.clone());
            }
            Entry::Occupied(_) => return Found::Foreign,
            Entry::Vacant(place) => place,
        };
        let (lane, wire) = Lane::new();
        let Claim::Held(receive) = lane.claim() else { return Found::Foreign };
        place.insert(Session { lane: lane.clone(), opener });
        metrics::SOCKJS_SESSIONS.add(1);
        Found::New(Listed { sessions: self.clone(), name: name.into(), lane }, wire, receive)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.sessions.by_name.lock().remove(&self.name);
        self.lane.end();
        metrics::SOCKJS_SESSIONS.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opener(origin: Option<&'static str>, certificate: Option<u8>) -> Opener {
        Opener {
            origin: origin.map(HeaderValue::from_static),
            certificate: certificate.map(|octet| [octet; 32]),
        }
    }

    #[test]
    fn a_name_is_taken_until_its_session_is_over() {
        let sessions = Sessions::new();
        let nobody = opener(None, None);
        assert!(sessions.get("s", &nobody).is_none());
        let Found::New(listed, _wire, _receive) = sessions.get_or_open("s", nobody.clone()) else { panic!() };
        assert!(matches!(sessions.get_or_open("s", nobody.clone()), Found::Known(_)));
        assert!(sessions.get("s", &nobody).is_some() && sessions.get("S", &nobody).is_none());
        let lane = listed.lane.clone();
        drop(listed);
        assert!(lane.is_over() && sessions.get("s", &nobody).is_none());
    }

    #[test]
    fn a_session_is_not_anothers_whose_origin_or_certificate_differs() {
        let sessions = Sessions::new();
        let mine = opener(Some("https://a.example"), Some(1));
        let Found::New(_listed, _wire, _receive) = sessions.get_or_open("s", mine) else { panic!() };
        for (origin, certificate, may) in [
            (Some("https://a.example"), Some(1), true),
            (None, Some(1), true),
            (Some("https://b.example"), Some(1), false),
            (Some("https://a.example"), Some(2), false),
            (Some("https://a.example"), None, false),
        ] {
            let other = opener(origin, certificate);
            assert_eq!(sessions.get("s", &other).is_some(), may, "{other:?}");
            assert_eq!(matches!(sessions.get_or_open("s", other), Found::Known(_)), may);
        }
    }
}

//! Which pages may read the answers of HTTP (Fetch, "CORS protocol"): those that may open a WebSocket.
//!
//! Credentials are allowed, since clients that always send them (autobahn's) would else not get to see an
//! answer. Nothing here is decided by a cookie.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HOST, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{StatusCode, Uri};

use tandem_protocols::websocket::origin::{OriginPolicy, OriginRefused};

use crate::front::answer::{Answer, empty};

/// How long a browser need not ask again, in seconds; two hours are the most that Chromium takes.
const PREFLIGHT_AGE_S: &str = "7200";

/// What a request of a page that is allowed here is answered with.
#[derive(Debug, Default)]
pub struct Cors {
    /// The page's origin; none where no browser asks.
    origin: Option<HeaderValue>,
}

impl Cors {
    /// Judges the origin of a request, as the opening handshake of WebSocket does.
    pub fn judge(policy: &OriginPolicy, headers: &HeaderMap, uri: &Uri) -> Result<Cors, OriginRefused> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next();
        if origins.next().is_some() {
            return Err(OriginRefused::Malformed);
        }
        let text = origin.map(|origin| origin.to_str().map_err(|_| OriginRefused::Malformed)).transpose()?;
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => headers.get(HOST).and_then(|host| host.to_str().ok()),
        };
        policy.judge(text, host.unwrap_or_default())?;
        Ok(Cors { origin: origin.cloned() })
    }

    /// Answers the question that a browser asks before it sends what a form could not.
    pub fn preflight(methods: &'static str) -> Answer {
        let mut answer = empty(StatusCode::NO_CONTENT);
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        let allowed = HeaderValue::from_static("content-type, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE_S));
        answer
    }

    /// The same where clients may add headers of their own, which mean nothing here.
    pub fn preflight_for(methods: &'static str, headers: &HeaderMap) -> Answer {
        let mut answer = Cors::preflight(methods);
        if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        answer
    }

    /// Lets the page read the answer.
    pub fn allow(self, mut answer: Answer) -> Answer {
        let headers = answer.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        answer
    }
}

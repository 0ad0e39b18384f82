//! Which pages may read the answers of HTTP (Fetch, "CORS protocol"): those that may open a WebSocket.
//!
//! To their own server browsers send no origin with a GET, as `EventSource` makes. Where one is required, `Sec-Fetch-Site`
//! (Fetch Metadata, which they send over TLS and to this machine) and else `Referer` say it instead: no page can forge either.
//!
//! Credentials are allowed, since clients that always send them (autobahn's) would else not get to see an
//! answer. Nothing here is decided by a cookie.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HOST, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, REFERER, VARY,
};
use hyper::{StatusCode, Uri};

use tandem_protocols::websocket::origin::{OriginPolicy, OriginRefused};

use crate::front::answer::{Answer, empty};

/// How long a browser need not ask again, in seconds; two hours are the most that Chromium takes.
const PREFLIGHT_AGE_S: &str = "7200";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

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
        let host = host.unwrap_or_default();
        match policy.judge(text, host) {
            Err(OriginRefused::Missing) => judge_unsaid(policy, headers, host)?,
            judged => judged?,
        }
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

/// Judges a request without an origin where there has to be one.
fn judge_unsaid(policy: &OriginPolicy, headers: &HeaderMap, host: &str) -> Result<(), OriginRefused> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    if let Some(site) = text(SEC_FETCH_SITE) {
        if site != "same-origin" {
            return Err(OriginRefused::Missing);
        }
        // Whether there is TLS in front of a proxy is not known; the policy takes the one for the other.
        let secured = policy.judge(Some(&format!("https://{host}")), host);
        return secured.or_else(|_| policy.judge(Some(&format!("http://{host}")), host));
    }
    let referer = text(REFERER).ok_or(OriginRefused::Missing)?;
    let (scheme, rest) = referer.split_once("://").ok_or(OriginRefused::Malformed)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    policy.judge(Some(&format!("{scheme}://{authority}")), host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_origin_is_required_a_page_of_the_same_server_is_known_by_what_its_browser_says_instead() {
        let mut policy = OriginPolicy::default();
        policy.require = true;
        let judged = |lines: &[(HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("a.example:81"));
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            Cors::judge(&policy, &headers, &Uri::from_static("/")).map(drop)
        };
        let (site, own) = (SEC_FETCH_SITE, "http://a.example:81/page?x");
        for lines in [
            &[(ORIGIN, "http://a.example:81")][..],
            &[(site.clone(), "same-origin")],
            &[(site.clone(), "same-origin"), (REFERER, "http://evil.example/")],
            &[(REFERER, own)],
            &[(REFERER, "http://a.example:81")],
        ] {
            assert_eq!(judged(lines), Ok(()), "{lines:?}");
        }
        for (lines, why) in [
            (&[][..], OriginRefused::Missing),
            (&[(site.clone(), "cross-site"), (REFERER, own)], OriginRefused::Missing),
            (&[(site.clone(), "same-site")], OriginRefused::Missing),
            (&[(site.clone(), "none")], OriginRefused::Missing),
            (&[(REFERER, "http://evil.example/http://a.example:81")], OriginRefused::NotAllowed),
            (&[(REFERER, "http://a.example:81@evil.example/")], OriginRefused::Malformed),
            (&[(REFERER, "about:client")], OriginRefused::Malformed),
            (&[(ORIGIN, "http://evil.example"), (site.clone(), "same-origin")], OriginRefused::NotAllowed),
            (&[(ORIGIN, "null"), (REFERER, own)], OriginRefused::Null),
        ] {
            assert_eq!(judged(lines), Err(why), "{lines:?}");
        }
        let mut elsewhere = OriginPolicy::new(&["https://b.example"]).unwrap();
        elsewhere.require = true;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a.example"));
        headers.insert(SEC_FETCH_SITE, HeaderValue::from_static("same-origin"));
        let judged = Cors::judge(&elsewhere, &headers, &Uri::from_static("/")).map(drop);
        assert_eq!(judged, Err(OriginRefused::NotAllowed), "the broker's own pages are not on the list");
    }
}

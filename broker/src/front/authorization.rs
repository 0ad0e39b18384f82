//! What a request of HTTP says of who sends it: the header `Authorization` (RFC 9110, 11.6.2), by `Bearer` (RFC 6750) or
//! `Basic` (RFC 7617).
//!
//! It is taken from the request that opens a session, and judged like what a peer says in its language. Whoever sends
//! one that cannot be read is refused: they meant to be somebody, and are not to get in as nobody. Other schemes are
//! for a proxy on the way, and none of our business. Nothing else of a request says who somebody is: a cookie is sent
//! by any page's request, and what is in an address is written into logs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::core::access::Presented;

/// The header is there, and says nothing that can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header Authorization is malformed, or there twice")]
pub struct Malformed;

/// What the headers of a request present.
pub fn presented(headers: &HeaderMap) -> Result<Option<Presented>, Malformed> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed);
    }
    let value = value.to_str().map_err(|_| Malformed)?.trim_ascii();
    let (scheme, rest) = value.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((value, ""));
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case("bearer") {
        let is_whole = !rest.is_empty() && rest.bytes().all(|octet| octet.is_ascii_graphic());
        return if is_whole {
            Ok(Some(Presented { user: None, secret: rest.into() }))
        } else {
            Err(Malformed)
        };
    }
    if scheme.eq_ignore_ascii_case("basic") {
        return basic(rest).map(Some).ok_or(Malformed);
    }
    Ok(None)
}

fn basic(encoded: &str) -> Option<Presented> {
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, secret) = decoded.split_once(':')?;
    let user = Some(user).filter(|user| !user.is_empty());
    // Without either there is nothing that could be judged.
    if user.is_none() && secret.is_empty() {
        return None;
    }
    Some(Presented { user: user.map(Into::into), secret: secret.into() })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(values: &[&str]) -> Result<Option<(Option<String>, String)>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let told = |presented: Presented| {
            (presented.user.map(|user| user.to_string()), presented.secret.to_string())
        };
        presented(&headers).map(|presented| presented.map(told))
    }

    #[test]
    fn a_token_stands_alone_and_a_password_behind_its_user() {
        assert_eq!(read(&[]), Ok(None));
        for value in ["Bearer a.b.c", "bearer  a.b.c ", "BEARER\ta.b.c"] {
            assert_eq!(read(&[value]), Ok(Some((None, "a.b.c".into()))));
        }
        let basic = format!("Basic {}", STANDARD.encode("alice:se:cret"));
        assert_eq!(read(&[&basic]), Ok(Some((Some("alice".into()), "se:cret".into()))));
        let nameless = format!("Basic {}", STANDARD.encode(":a.b.c"));
        assert_eq!(read(&[&nameless]), Ok(Some((None, "a.b.c".into()))));
    }

    #[test]
    fn other_schemes_are_none_of_our_business_and_what_cannot_be_read_is_refused() {
        assert_eq!(read(&["Negotiate abc"]), Ok(None));
        let nothing = format!("Basic {}", STANDARD.encode(":"));
        for value in ["Bearer", "Bearer ", "Bearer a b", "Basic", "Basic !!", "Basic YWxpY2U=", &nothing] {
            assert_eq!(read(&[value]), Err(Malformed), "{value}");
        }
        assert_eq!(read(&["Bearer a", "Bearer a"]), Err(Malformed));
    }
}

//! What HTTP answers look like here.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Full};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

/// An answer: its body is there whole, or comes piece by piece.
pub type Answer = Response<Either<Full<Bytes>, Pieces>>;

/// A body of which nobody knows yet how long it will be.
pub type Pieces = UnsyncBoxBody<Bytes, Infallible>;

/// A sentence for whoever reads it; `body` ends its line itself.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    content(status, "text/plain; charset=utf-8", body.into())
}

/// Bytes of this type.
pub fn content(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = empty(status);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    *answer.body_mut() = Either::Left(Full::new(body));
    answer
}

/// Pieces of this type, each sent on when it is there.
pub fn pieces(content_type: &'static str, body: Pieces) -> Answer {
    let mut answer = empty(StatusCode::OK);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    *answer.body_mut() = Either::Right(body);
    answer
}

/// No content at all.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::new())));
    *answer.status_mut() = status;
    answer
}

/// It cannot be done now; it may be in a second.
pub fn later(why: &'static str) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// What is there is spoken to otherwise.
pub fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("this takes {allowed}\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// The same, after which the connection closes: what is left of the request is not read.
pub fn last(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The same, which nobody on the way is to keep, hold back or change: some caches know only the older of these
/// words, and nginx's word for the second is its own.
pub fn not_kept(mut answer: Answer) -> Answer {
    let words = "no-store, no-cache, no-transform, must-revalidate, max-age=0";
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(words));
    let buffering = HeaderName::from_static("x-accel-buffering");
    answer.headers_mut().insert(buffering, HeaderValue::from_static("no"));
    answer
}

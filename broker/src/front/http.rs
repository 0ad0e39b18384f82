//! What is HTTP on the port: the opening handshake of WebSocket, long-polling, a health page, and refusals that
//! say why.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};

use tandem_protocols::websocket::handshake::{self, Accept, Rejection, Rules};

use crate::core::access::Peer;
use crate::front::answer::{Answer, last, later, text};
use crate::front::connection::now;
use crate::front::door::Door;
use crate::front::gate::Permit;
use crate::front::longpoll::{self, Attendance};
use crate::front::transport::Transport;
use crate::front::websocket::WebSocket;
use crate::front::wire::Opened;
use crate::metrics;

/// Requests longer than this, head and all, are refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Requests with more headers are refused.
const HEADERS_MAX: usize = 64;

/// Serves HTTP on a connection until it becomes a WebSocket or ends.
pub async fn serve(door: Arc<Door>, stream: Opened, peer: Peer, permit: Permit) {
    let time_max: Duration = door.settings.pump.establish_time_max;
    // The place at the door goes to the session, if the connection becomes one.
    let attendance = Attendance::new(permit);
    let service = {
        let (door, peer, attendance) = (door.clone(), peer.clone(), attendance.clone());
        service_fn(move |request| {
            let (door, peer, attendance) = (door.clone(), peer.clone(), attendance.clone());
            async move { Ok::<_, Infallible>(answer(&door, &peer, &attendance, request).await) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(time_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = attendance.dismissed(&door) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "HTTP connection ended");
    }
}

async fn answer(
    door: &Arc<Door>,
    peer: &Peer,
    attendance: &Attendance,
    request: Request<Incoming>,
) -> Answer {
    if let Some(settings) = &door.settings.longpoll
        && let Some(asked) = settings.asked(request.uri().path())
    {
        // Boxed: other requests are not to carry what this one waits with.
        return Box::pin(longpoll::answer(door, settings, asked, peer, attendance, request)).await;
    }
    if !attendance.become_stranger(door, peer) {
        return last(later("too many wait to be let in\n"));
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/health") => health(door),
        (&Method::GET, "/metrics") if peer.is_loopback() => text(StatusCode::OK, metrics::render()),
        (_, path) => match &door.settings.path {
            Some(wanted) if wanted != path => {
                text(StatusCode::NOT_FOUND, format!("nothing is here; WebSocket is at {wanted}\n"))
            }
            _ => upgrade(door, peer, attendance, request),
        },
    }
}

/// Unwell is also a broker that goes on, but not with all that it is there for.
fn health(door: &Door) -> Answer {
    if let Some(ailment) = door.settings.ailments.iter().find(|ailment| ailment.token.is_cancelled()) {
        return text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", ailment.sentence));
    }
    if door.shutdown.is_cancelled() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    text(StatusCode::OK, "ok\n")
}

fn upgrade(door: &Arc<Door>, peer: &Peer, attendance: &Attendance, mut request: Request<Incoming>) -> Answer {
    let accept = match judge(door, &request) {
        Ok(accept) => accept,
        Err(rejection) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            tracing::info!(%peer, reason = %rejection, "opening handshake refused");
            return response(rejection.response());
        }
    };
    if door.shutdown.is_cancelled() {
        return later("shutting down\n");
    }
    let Accept { subprotocol, compression, response: answer } = accept;
    let chosen = subprotocol.map(|index| door.tokens[index]).or(door.settings.default_token);
    let Some(token) = chosen else { return text(StatusCode::BAD_REQUEST, "no subprotocol\n") };
    let upgraded = hyper::upgrade::on(&mut request);
    let stranger = attendance.take_permit();
    let (door, peer) = (door.clone(), peer.clone());
    door.clone().tasks.spawn(async move {
        let upgraded = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%peer, %error, "the upgrade failed"),
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<Opened>>() else {
            return tracing::error!(%peer, "the upgraded connection is of an unknown type");
        };
        let wire = parts.io.into_inner().with_first(parts.read_buf);
        let transport = WebSocket::new(door.settings.websocket, compression.as_ref());
        // A fresh, small task runs the connection: this one, with all that HTTP needed, ends here.
        door.open(token, Transport::WebSocket(transport), wire, peer, stranger, now());
    });
    response(answer)
}

fn judge(door: &Door, request: &Request<Incoming>) -> Result<Accept, Rejection> {
    let headers: Vec<handshake::Field<'_>> =
        request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let version = match request.version() {
        Version::HTTP_11 => (1, 1),
        Version::HTTP_10 => (1, 0),
        _ => (0, 0),
    };
    let request = handshake::Request {
        method: request.method().as_str(),
        version,
        headers: &headers,
        forwarded_host: None,
    };
    let rules = Rules {
        subprotocols: &door.tokens,
        allow_no_subprotocol: door.settings.default_token.is_some(),
        compression: door.settings.compression,
        origins: &door.settings.origins,
    };
    handshake::check(&request, &rules)
}

fn response(from: handshake::Response) -> Answer {
    let mut answer = text(StatusCode::from_u16(from.status).unwrap_or(StatusCode::BAD_REQUEST), from.body);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().clear();
    }
    for (name, value) in from.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

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

use tandem_protocols::websocket::extensions::Policy;
use tandem_protocols::websocket::handshake::{self, Accept, Rejection, Rules};

use crate::core::access::Peer;
use crate::front::answer::{Answer, last, later, text};
use crate::front::authorization;
use crate::front::compression::Compressor;
use crate::front::connection::now;
use crate::front::door::{Door, Visitor};
use crate::front::gate::Permit;
use crate::front::longpoll::{self, Attendance};
use crate::front::sockjs;
use crate::front::sockjs::asked::Asked;
use crate::front::sockjs::socket::SockJsSocket;
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
    attendance: &Arc<Attendance>,
    request: Request<Incoming>,
) -> Answer {
    if let Some(settings) = &door.settings.longpoll
        && let Some(asked) = settings.asked(request.uri().path())
    {
        // Boxed: other requests are not to carry what this one waits with.
        return Box::pin(longpoll::answer(door, settings, asked, peer, attendance, request)).await;
    }
    let mut socket =
        Socket { tokens: &door.tokens, default: door.settings.default_token, wrap: Transport::WebSocket };
    let sockjs = door.settings.sockjs.as_ref();
    if let Some((settings, asked)) = sockjs.and_then(|s| Some((s, s.asked(request.uri().path())?))) {
        if !settings.opens_socket(&asked, &request) {
            return Box::pin(sockjs::answer(door, settings, asked, peer, attendance, request)).await;
        }
        socket = Socket { default: Some(settings.token), ..socket };
        if asked == Asked::Socket {
            socket = Socket { tokens: door.tokens_beside(settings.token), wrap: sockjs_socket, ..socket };
        }
        if !attendance.become_stranger(door, peer) {
            return last(later("too many wait to be let in\n"));
        }
        return upgrade(door, peer, attendance, request, &socket);
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
            _ => upgrade(door, peer, attendance, request, &socket),
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

fn sockjs_socket(websocket: WebSocket) -> Transport {
    Transport::SockJs(Box::new(SockJsSocket::new(websocket)))
}

/// What is spoken over a WebSocket.
struct Socket<'a> {
    tokens: &'a [&'static str],
    /// The token of those who name none.
    default: Option<&'static str>,
    wrap: fn(WebSocket) -> Transport,
}

fn upgrade(
    door: &Arc<Door>,
    peer: &Peer,
    attendance: &Attendance,
    mut request: Request<Incoming>,
    socket: &Socket<'_>,
) -> Answer {
    let (policy, permit) = door.contexts.policy(&door.settings.compression);
    let accept = match judge(door, &request, socket, policy) {
        Ok(accept) => accept,
        Err(rejection) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            tracing::info!(%peer, reason = %rejection, "opening handshake refused");
            return refusal(door, &rejection);
        }
    };
    let presented = match authorization::presented(request.headers()) {
        Ok(presented) => presented,
        Err(malformed) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            tracing::info!(%peer, reason = %malformed, "opening handshake refused");
            return text(StatusCode::BAD_REQUEST, format!("{malformed}\n"));
        }
    };
    if door.shutdown.is_cancelled() {
        return later("shutting down\n");
    }
    let Accept { subprotocol, compression, is_plain_agent, response: answer } = accept;
    let chosen = subprotocol.map(|index| socket.tokens[index]).or(socket.default);
    let Some(token) = chosen else { return text(StatusCode::BAD_REQUEST, "no subprotocol\n") };
    let upgraded = hyper::upgrade::on(&mut request);
    let (stranger, wrap) = (attendance.take_permit(), socket.wrap);
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
        let mut transport = WebSocket::new(door.settings.websocket, compression.as_ref());
        if let Some(agreement) = &compression {
            let bytes_min = door.settings.compression.bytes_min;
            transport = transport.with_compressor(Compressor::new(agreement, bytes_min, permit));
        }
        if is_plain_agent {
            transport = transport.without_fragments();
        }
        // A fresh, small task runs the connection: this one, with all that HTTP needed, ends here.
        let visitor = Visitor { peer, presented };
        door.open(token, wrap(transport), wire, visitor, stranger, now());
    });
    response(answer)
}

/// What a refused client may do instead, if it could not know: it is told where long-polling is.
fn refusal(door: &Door, rejection: &Rejection) -> Answer {
    let mut refusal = rejection.response();
    if let (Rejection::CompressionRequired | Rejection::PlainAgent, Some(longpoll)) =
        (rejection, &door.settings.longpoll)
    {
        refusal.body.push_str(&format!("without it, there is long-polling: POST {}/open\n", longpoll.path));
    }
    response(refusal)
}

fn judge(
    door: &Door,
    request: &Request<Incoming>,
    socket: &Socket<'_>,
    compression: Policy,
) -> Result<Accept, Rejection> {
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
        subprotocols: socket.tokens,
        allow_no_subprotocol: socket.default.is_some(),
        compression,
        plain_agents: &door.settings.compression.plain_agents,
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

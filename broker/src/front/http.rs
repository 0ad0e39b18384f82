//! What is HTTP on the port: the opening handshake of WebSocket, long-polling, pages that say how the broker is, files,
//! and refusals that say why.
//!
//! A request is first seen as it was before it came through proxies that are believed: whose it is, which host was asked
//! for, and which path below the prefix. What follows knows nothing of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};

use tandem_protocols::websocket::handshake::{self, Accept, Rejection, Rules};

use crate::core::access::Peer;
use crate::front::answer::{Answer, last, later, not_kept, text};
use crate::front::connection::now;
use crate::front::door::{Door, HttpSettings};
use crate::front::gate::Permit;
use crate::front::longpoll::{self, Attendance};
use crate::front::proxies::Asker;
use crate::front::stay::Asked;
use crate::front::transport::Transport;
use crate::front::websocket::WebSocket;
use crate::front::wire::Opened;
use crate::metrics;

/// Serves HTTP on a connection until it becomes a WebSocket or ends.
pub async fn serve(door: Arc<Door>, stream: Opened, peer: Peer, permit: Permit, opened: Instant) {
    let time_max: Duration = door.settings.pump.establish_time_max;
    // The place at the door goes to the session, if the connection becomes one.
    let attendance = Attendance::new(permit, opened);
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
        .max_buf_size(door.settings.http.head_bytes_max)
        .max_headers(door.settings.http.headers_max)
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
        () = attendance.stay().is_over(time_max) => {
            connection.as_mut().graceful_shutdown();
            let pump = &door.settings.pump;
            tokio::select! {
                result = connection => result,
                () = attendance.stay().is_overdone(pump.linger_time_max, pump.message_time_max) => {
                    return tracing::info!(%peer, "its HTTP connection led to no session in time");
                }
            }
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
    mut request: Request<Incoming>,
) -> Answer {
    let asked = request.uri().path().to_owned();
    let (peer, path_is_ours) = see_through(door, peer, &mut request);
    let (peer, settings) = (&peer, &door.settings);
    let path = request.uri().path();
    attendance.stay().ask(Asked::Page);
    if let Some(longpoll) = &settings.longpoll
        && path_is_ours
        && let Some(asked) = longpoll.asked(path)
    {
        if let Some(refusal) = refuse_host(door, peer, &request) {
            return refusal;
        }
        attendance.stay().ask(Asked::Poll);
        // Boxed: other requests are not to carry what this one waits with.
        return Box::pin(longpoll::answer(door, longpoll, asked, peer, attendance, request)).await;
    }
    if !attendance.become_stranger(door, peer) {
        return last(later("too many wait to be let in\n"));
    }
    if !path_is_ours {
        return text(StatusCode::NOT_FOUND, "nothing is here\n");
    }
    match (request.method(), path) {
        // Whoever looks after the broker does not always know its name.
        (&Method::GET | &Method::HEAD, "/health") => return not_kept(text(StatusCode::OK, "ok\n")),
        (&Method::GET | &Method::HEAD, "/ready") => return ready(door),
        _ => {}
    }
    if let Some(refusal) = refuse_host(door, peer, &request) {
        return refusal;
    }
    match (request.method(), path) {
        (&Method::GET, "/metrics") if peer.is_loopback() => text(StatusCode::OK, metrics::render()),
        (method, path) if !is_websockets(door, &request) => match &settings.http.files {
            Some(files) if matches!(*method, Method::GET | Method::HEAD) => {
                attendance.stay().ask(Asked::File);
                Box::pin(files.answer(method, path, &asked, request.headers())).await
            }
            _ => {
                let HttpSettings { prefix, paths, .. } = &settings.http;
                let paths: Vec<String> = paths.iter().map(|path| format!("{prefix}{path}")).collect();
                let sentence = format!("nothing is here; WebSocket is at {}\n", paths.join(", "));
                text(
                    StatusCode::NOT_FOUND,
                    if paths.is_empty() { "nothing is here\n".into() } else { sentence },
                )
            }
        },
        _ => upgrade(door, peer, attendance, request),
    }
}

/// Makes of a request what it was before proxies and the prefix. Whose it is, and false for a path that is not below.
fn see_through(door: &Door, peer: &Peer, request: &mut Request<Incoming>) -> (Peer, bool) {
    let Asker { peer, host } = door.settings.proxies.asker(peer, request.headers());
    if let Some(host) = host {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        request.headers_mut().insert(HOST, host);
    }
    let prefix = &*door.settings.http.prefix;
    if prefix.is_empty() {
        return (peer, true);
    }
    let uri = request.uri();
    let Some(rest) = uri.path().strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    else {
        return (peer, false);
    };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let rest = if rest.is_empty() { "/" } else { rest };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{rest}{query}").parse().ok();
    match Uri::from_parts(parts) {
        Ok(uri) => {
            *request.uri_mut() = uri;
            (peer, true)
        }
        Err(_) => (peer, false),
    }
}

/// What somebody is answered who means another host than this one.
fn refuse_host(door: &Door, peer: &Peer, request: &Request<Incoming>) -> Option<Answer> {
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        // What cannot be read is no name that is right.
        None => request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default()),
    };
    let is_one = request.headers().get_all(HOST).iter().count() <= 1;
    if is_one && door.settings.http.hosts.allows(peer, host) {
        return None;
    }
    metrics::HOSTS_REFUSED.add(1);
    let host = host.unwrap_or_default();
    tracing::warn!(%peer, ?host, "asked for under a name that is not the broker's: see http.hosts in the configuration");
    let sentence = "the broker is not known by this name; its configuration lists names under http.hosts\n";
    Some(last(text(StatusCode::MISDIRECTED_REQUEST, sentence)))
}

/// Whether a request is for WebSocket: where there are files at all paths, those of it that want to be one.
fn is_websockets(door: &Door, request: &Request<Incoming>) -> bool {
    let HttpSettings { paths, files, .. } = &door.settings.http;
    match paths.iter().any(|path| path == request.uri().path()) {
        true => true,
        false => paths.is_empty() && (files.is_none() || request.headers().contains_key(UPGRADE)),
    }
}

/// Whether the broker wants new clients.
fn ready(door: &Door) -> Answer {
    not_kept(match door.readiness.reason() {
        None => text(StatusCode::OK, "ready\n"),
        Some(reason) => later(reason.line()),
    })
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
    if let Some(refusal) = door.refuse_new(peer) {
        return refusal;
    }
    let Accept { subprotocol, compression, response: answer } = accept;
    let chosen = subprotocol.map(|index| door.tokens[index]).or(door.settings.default_token);
    let Some(token) = chosen else { return text(StatusCode::BAD_REQUEST, "no subprotocol\n") };
    let upgraded = hyper::upgrade::on(&mut request);
    let opened = attendance.stay().since().unwrap_or_else(now);
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
        door.open(token, Transport::WebSocket(transport), wire, peer, stranger, opened);
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

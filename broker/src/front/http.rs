//! What is HTTP on the port: the opening handshake of WebSocket, long-polling, pages that say how the broker is, files,
//! and refusals that say why.
//!
//! A request is first seen as it was before it came through proxies that are believed: whose it is, which host was asked
//! for, and which path below the prefix. What follows knows nothing of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue, ORIGIN, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout_at;

use tandem_protocols::websocket::extensions::Policy;
use tandem_protocols::websocket::handshake::{self, Accept, Rejection, Rules};

use crate::core::access::Peer;
use crate::front::answer::{Answer, last, later, not_kept, text, wrong_method};
use crate::front::authorization;
use crate::front::compression::Compressor;
use crate::front::connection::now;
use crate::front::door::{Door, HttpSettings, Visitor};
use crate::front::gate::Permit;
use crate::front::longpoll::{self, Attendance};
use crate::front::proxies::Asker;
use crate::front::sockjs;
use crate::front::sockjs::asked::Asked;
use crate::front::sockjs::socket::SockJsSocket;
use crate::front::stay;
use crate::front::transport::Transport;
use crate::front::unwelcome::Unwelcome;
use crate::front::websocket::WebSocket;
use crate::front::wire::{Opened, Stream};
use crate::metrics;

/// Serves HTTP on a connection until it becomes a WebSocket or ends. Where somebody is not `welcome` they get one answer,
/// that, or a page of those that say how the broker is.
pub async fn serve(
    door: Arc<Door>,
    stream: Opened,
    peer: Peer,
    permit: Permit,
    opened: Instant,
    welcome: Result<(), Unwelcome>,
) {
    let time_max: Duration = door.settings.pump.establish_time_max;
    // The place at the door goes to the session, if the connection becomes one.
    let attendance = Attendance::new(permit, opened);
    let service = {
        let (door, peer, attendance) = (door.clone(), peer.clone(), attendance.clone());
        service_fn(move |request| {
            let (door, peer, attendance) = (door.clone(), peer.clone(), attendance.clone());
            async move {
                Ok::<_, Infallible>(match welcome {
                    Ok(()) => answer(&door, &peer, &attendance, request).await,
                    Err(why) => send_away(&door, &peer, &attendance, request, why),
                })
            }
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

/// Answers a request that came to another HTTP server, and is to become a WebSocket, whatever its path is there.
pub fn answer_elsewhere<B>(door: &Arc<Door>, peer: &Peer, mut request: Request<B>) -> Answer {
    let peer = see_who_asks(door, peer, &mut request);
    let permit = match door.admit_new(&peer) {
        Ok(permit) => permit,
        Err(why) => return why.answer(),
    };
    if let Some(refusal) = refuse_host(door, &peer, &request) {
        return refusal;
    }
    let socket =
        Socket { tokens: &door.tokens, default: door.settings.default_token, wrap: Transport::WebSocket };
    upgrade(door, &peer, &Attendance::new(permit, now()), request, &socket)
}

/// The only answer to somebody who is not taken in.
fn send_away(
    door: &Door,
    peer: &Peer,
    attendance: &Attendance,
    mut request: Request<Incoming>,
    why: Unwelcome,
) -> Answer {
    attendance.stay().ask(stay::Asked::Page);
    let (_, path_is_ours) = see_through(door, peer, &mut request);
    let page = if path_is_ours { page(door, &request) } else { None };
    page.map_or_else(|| why.answer(), last)
}

/// A page for those who look after the broker, who do not always know its name.
fn page(door: &Door, request: &Request<Incoming>) -> Option<Answer> {
    Some(match (request.uri().path(), request.method()) {
        ("/health", &Method::GET | &Method::HEAD) => health(door),
        ("/ready", &Method::GET | &Method::HEAD) => ready(door),
        ("/health" | "/ready", _) => wrong_method("GET, HEAD"),
        _ => return None,
    })
}

async fn answer(
    door: &Arc<Door>,
    peer: &Peer,
    attendance: &Arc<Attendance>,
    mut request: Request<Incoming>,
) -> Answer {
    let asked = request.uri().path().to_owned();
    if door.settings.proxies.trusts(peer) {
        // Each of its requests may be another's, who has done nothing before it.
        attendance.stay().begin_anew(now());
    }
    let (peer, path_is_ours) = see_through(door, peer, &mut request);
    let (peer, settings) = (&peer, &door.settings);
    let path = request.uri().path();
    attendance.stay().ask(stay::Asked::Page);
    if let Some(longpoll) = &settings.longpoll
        && path_is_ours
        && let Some(asked) = longpoll.asked(path)
    {
        if let Some(refusal) = refuse_host(door, peer, &request) {
            return refusal;
        }
        attendance.stay().ask(stay::Asked::Poll);
        // Boxed: other requests are not to carry what this one waits with.
        return Box::pin(longpoll::answer(door, longpoll, asked, peer, attendance, request)).await;
    }
    let mut socket =
        Socket { tokens: &door.tokens, default: settings.default_token, wrap: Transport::WebSocket };
    if let Some(sockjs) = &settings.sockjs
        && path_is_ours
        && let Some(asked) = sockjs.asked(path)
    {
        if let Some(refusal) = refuse_host(door, peer, &request) {
            return refusal;
        }
        if !sockjs.opens_socket(&asked, &request) {
            attendance.stay().ask(stay::Asked::Poll);
            return Box::pin(sockjs::answer(door, sockjs, asked, peer, attendance, request)).await;
        }
        socket = Socket { default: Some(sockjs.token), ..socket };
        if asked == Asked::Socket {
            socket = Socket { tokens: door.tokens_beside(sockjs.token), wrap: sockjs_socket, ..socket };
        }
        if !attendance.become_stranger(door, peer) {
            return door.refuse(peer, Unwelcome::Strangers).answer();
        }
        return upgrade(door, peer, attendance, request, &socket);
    }
    if !attendance.become_stranger(door, peer) {
        return door.refuse(peer, Unwelcome::Strangers).answer();
    }
    if !path_is_ours {
        return text(StatusCode::NOT_FOUND, "nothing is here\n");
    }
    if let Some(page) = page(door, &request) {
        return page;
    }
    if let Some(refusal) = refuse_host(door, peer, &request) {
        return refusal;
    }
    match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/metrics") if peer.is_loopback() => {
            text(StatusCode::OK, metrics::render())
        }
        (_, "/metrics") if peer.is_loopback() => wrong_method("GET, HEAD"),
        (method, path) if !is_websockets(door, &request) => match &settings.http.files {
            Some(files) if matches!(*method, Method::GET | Method::HEAD) => {
                attendance.stay().ask(stay::Asked::File);
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
        _ => upgrade(door, peer, attendance, request, &socket),
    }
}

/// Whether all is well. Unwell is also a broker that goes on, but not with all that it is there for.
fn health(door: &Door) -> Answer {
    let ailment = door.settings.ailments.iter().find(|ailment| ailment.token.is_cancelled());
    not_kept(match ailment {
        None => text(StatusCode::OK, "ok\n"),
        Some(ailment) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", ailment.sentence)),
    })
}

/// Has a request say which host it is for, as it did before proxies. Whose it is.
fn see_who_asks<B>(door: &Door, peer: &Peer, request: &mut Request<B>) -> Peer {
    let Asker { peer, host } = door.settings.proxies.asker(peer, request.headers());
    if let Some(host) = host {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        request.headers_mut().insert(HOST, host);
    } else if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
        && request.headers().get_all(HOST).iter().count() <= 1
    {
        // A request for a whole address means that, whatever it says of its host (RFC 9112, 3.2.2).
        request.headers_mut().insert(HOST, host);
    }
    peer
}

/// Makes of a request what it was before proxies and the prefix. Whose it is, and false for a path that is not below.
fn see_through(door: &Door, peer: &Peer, request: &mut Request<Incoming>) -> (Peer, bool) {
    let peer = see_who_asks(door, peer, request);
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
fn refuse_host<B>(door: &Door, peer: &Peer, request: &Request<B>) -> Option<Answer> {
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

fn upgrade<B>(
    door: &Arc<Door>,
    peer: &Peer,
    attendance: &Attendance,
    mut request: Request<B>,
    socket: &Socket<'_>,
) -> Answer {
    let (policy, permit) = door.contexts.policy(&door.settings.compression);
    let accept = match judge(door, &request, socket, policy) {
        Ok(accept) => accept,
        Err(rejection) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            if let Rejection::Origin(_) = rejection {
                let origin = request.headers().get(ORIGIN);
                tracing::info!(%peer, ?origin, "opening handshake refused: see allowed_origins in [websocket]");
            } else {
                tracing::info!(%peer, reason = %rejection, "opening handshake refused");
            }
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
    if let Err(why) = door.judge_new(peer) {
        return why.answer();
    }
    let Accept { subprotocol, compression, is_plain_agent, response: answer } = accept;
    let chosen = subprotocol.map(|index| socket.tokens[index]).or(socket.default);
    let Some(token) = chosen else { return text(StatusCode::BAD_REQUEST, "no subprotocol\n") };
    let upgraded = hyper::upgrade::on(&mut request);
    let opened = attendance.stay().since().unwrap_or_else(now);
    let (stranger, wrap) = (attendance.take_permit(), socket.wrap);
    let (door, peer) = (door.clone(), peer.clone());
    door.clone().tasks.spawn(async move {
        let time_max = door.settings.pump.establish_time_max;
        let upgraded = match timeout_at((opened + time_max).into(), upgraded).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "the upgrade failed"),
            // Its server keeps the answer, or the peer does not take it.
            Err(_) => {
                return tracing::info!(%peer, "the answer to its opening handshake was not sent in time");
            }
        };
        let wire = match upgraded.downcast::<TokioIo<Opened>>() {
            Ok(parts) => parts.io.into_inner().with_first(parts.read_buf),
            // Of an application's own server.
            Err(upgraded) => Opened::new(Bytes::new(), Stream::Foreign(Box::new(TokioIo::new(upgraded)))),
        };
        let mut transport = WebSocket::new(door.settings.websocket.clone(), compression.as_ref());
        if let Some(agreement) = &compression {
            let bytes_min = door.settings.compression.bytes_min;
            transport = transport.with_compressor(Compressor::new(agreement, bytes_min, permit));
        }
        if is_plain_agent {
            transport = transport.without_fragments();
        }
        // A fresh, small task runs the connection: this one, with all that HTTP needed, ends here.
        let visitor = Visitor { peer, presented };
        door.open(token, wrap(transport), wire, visitor, stranger, opened);
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

fn judge<B>(
    door: &Door,
    request: &Request<B>,
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

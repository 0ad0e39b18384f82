//! SockJS (protocol 0.3.3): a session for pages that have sockjs-client, over a WebSocket or over HTTP requests.
//!
//! Below a base path:
//!
//! - `/` greets, `/info` says what there is, and what the time of a round trip is measured with;
//! - `/websocket` is a WebSocket as any other, `/<server>/<session>/websocket` one with SockJS's frames in it;
//! - `/<server>/<session>/xhr`, `xhr_streaming` and `eventsource` receive, `xhr_send` sends: the client chose the name of
//!   the session, which there is from the first time that it receives;
//! - `/iframe.html`, where the operator wants it.
//!
//! One language is spoken, of those that carry text: a message that is not UTF-8 ends the session, which says why. Of two
//! receivers at a time the newer is sent away with 2010. One that breaks off ends the session; one that was answered may
//! come again within the disconnect delay. What differs from the protocol's tests: pages are let in as over WebSocket, so
//! that no answer is for every origin (`*`); no cookie is set; jsonp and htmlfile are not there, which would let any page
//! in by their nature, nor are the WebSockets before RFC 6455.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
    ORIGIN, UPGRADE,
};
use hyper::{Method, Request, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use crate::core::access::Peer;
use crate::front::answer::{Answer, content, empty, last, later, not_kept, pieces, text};
use crate::front::authorization;
use crate::front::connection::{Connection, now};
use crate::front::cors::Cors;
use crate::front::door::{Door, Visitor};
use crate::front::gate::Permit;
use crate::front::longpoll::lane::{Claim, Lane, LaneWire, Sent};
use crate::front::longpoll::{Attendance, OPEN_BYTES_MAX, converse, read};
use crate::front::sockjs::asked::{Asked, Iframe, SockJsSettings, Verb, has_word};
use crate::front::sockjs::frames::{Malformed, TAKEN, close};
use crate::front::sockjs::receiver::{Manner, Receiver, Said, Stream};
use crate::front::sockjs::sessions::{Found, Listed, Opener};
use crate::front::transport::Transport;
use crate::front::unwelcome::Unwelcome;
use crate::metrics;

pub mod asked;
pub mod frames;
pub mod receiver;
pub mod sessions;
pub mod socket;

/// A request to send may have several messages, and what is escaped in them is longer than it is: its body may be so many
/// times as long as a message.
const SEND_MESSAGES_MAX: usize = 4;

/// How long somebody waits for the answer that there is no session of that name: names are not guessed in a hurry.
const MISS_TIME: Duration = Duration::from_secs(1);

/// Answers a request.
pub async fn answer(
    door: &Arc<Door>,
    settings: &SockJsSettings,
    asked: Asked,
    peer: &Peer,
    attendance: &Arc<Attendance>,
    request: Request<Incoming>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let opener = Opener::new(parts.headers.get(ORIGIN), peer);
    let lane = match &asked {
        Asked::Of(name, _) => door.sockjs.get(name, &opener),
        _ => None,
    };
    match &lane {
        Some(lane) if lane.is_established() => attendance.attend(lane),
        _ if attendance.become_stranger(door, peer) => {}
        _ => return door.refuse(peer, Unwelcome::Strangers).answer(),
    }
    let (name, verb) = match asked {
        Asked::Of(name, verb) => (name, verb),
        other => return page(door, settings, &other, &parts.method, &parts.headers, &parts.uri),
    };
    let cors = match Cors::judge(&door.settings.origins, &parts.headers, &parts.uri) {
        Ok(cors) => cors,
        Err(reason) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            tracing::info!(%peer, %reason, "SockJS request refused");
            return text(StatusCode::FORBIDDEN, format!("{reason}\n"));
        }
    };
    let answer = match (&parts.method, verb) {
        (&Method::OPTIONS, _) => Cors::preflight_for(methods(verb), &parts.headers),
        (&Method::POST, Verb::Send) => {
            let answer = send(door, lane.as_ref(), body).await;
            lane.iter().for_each(|lane| attendance.attend_from_now(lane));
            answer
        }
        (&Method::POST, Verb::Xhr | Verb::XhrStreaming) | (&Method::GET, Verb::EventSource) => {
            let wanted = Wanted { name: &name, opener, verb, headers: &parts.headers };
            receive(door, settings, wanted, peer, attendance, body).await
        }
        _ => not_allowed(methods(verb)),
    };
    cors.allow(not_kept(answer))
}

fn methods(verb: Verb) -> &'static str {
    match verb {
        Verb::EventSource => "OPTIONS, GET",
        Verb::Xhr | Verb::XhrStreaming | Verb::Send => "OPTIONS, POST",
    }
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

// ---- pages -----------------------------------------------------------------------------------------------

/// What is of no session.
fn page(
    door: &Door,
    settings: &SockJsSettings,
    asked: &Asked,
    method: &Method,
    headers: &HeaderMap,
    uri: &hyper::Uri,
) -> Answer {
    match (asked, method) {
        (Asked::Greeting, &Method::GET | &Method::HEAD) => {
            content(StatusCode::OK, "text/plain; charset=UTF-8", "Welcome to SockJS!\n".into())
        }
        (Asked::Info, &Method::GET | &Method::OPTIONS) => {
            // Nothing in it is anybody's: who says no origin, as browsers do to their own, may know.
            let cors = match headers.contains_key(ORIGIN) {
                true => Cors::judge(&door.settings.origins, headers, uri),
                false => Ok(Cors::default()),
            };
            match cors {
                Ok(cors) if method == Method::OPTIONS => {
                    cors.allow(not_kept(Cors::preflight_for("OPTIONS, GET", headers)))
                }
                Ok(cors) => cors.allow(not_kept(info(door, settings))),
                Err(reason) => text(StatusCode::FORBIDDEN, format!("{reason}\n")),
            }
        }
        (Asked::Iframe, &Method::GET) => match &settings.iframe {
            Some(frame) => iframe(frame, headers),
            None => {
                text(StatusCode::NOT_FOUND, "there is no such page here (sockjs.client_url is not set)\n")
            }
        },
        (Asked::Raw | Asked::Socket, &Method::GET) if !settings.websocket => {
            text(StatusCode::NOT_FOUND, "there are no WebSockets here\n")
        }
        (Asked::Raw | Asked::Socket, &Method::GET) if !has_word(headers, &UPGRADE, "websocket") => {
            text(StatusCode::BAD_REQUEST, "Can \"Upgrade\" only to \"WebSocket\".\n")
        }
        (Asked::Raw | Asked::Socket, &Method::GET) => {
            text(StatusCode::BAD_REQUEST, "\"Connection\" must be \"Upgrade\".\n")
        }
        (Asked::Nothing | Asked::Of(..), _) => {
            let sentence =
                "nothing is here; SockJS has websocket, xhr_streaming, eventsource, xhr and xhr_send\n";
            text(StatusCode::NOT_FOUND, sentence)
        }
        (Asked::Info, _) => not_allowed("OPTIONS, GET"),
        (Asked::Greeting | Asked::Iframe | Asked::Raw | Asked::Socket, _) => not_allowed("GET"),
    }
}

fn info(door: &Door, settings: &SockJsSettings) -> Answer {
    let (websocket, entropy) = (settings.websocket, (door.entropy)() >> 32);
    let json = format!(
        "{{\"websocket\":{websocket},\"origins\":[\"*:*\"],\"cookie_needed\":false,\"entropy\":{entropy}}}"
    );
    content(StatusCode::OK, "application/json; charset=UTF-8", json.into())
}

fn iframe(frame: &Iframe, headers: &HeaderMap) -> Answer {
    let Iframe { client_url, ancestors } = frame;
    let page = format!(
        r#"<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script>
    document.domain = document.domain;
    _sockjs_onload = function(){{SockJS.bootstrap_iframe();}};
  </script>
  <script src="{client_url}"></script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>
"#
    );
    // It is the same for as long as the configuration is.
    let digest = Sha256::digest(format!("{page}{ancestors}"));
    let tag =
        format!("\"{:016x}\"", digest.iter().take(8).fold(0, |tag, &octet| tag << 8 | u64::from(octet)));
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = match known {
        true => empty(StatusCode::NOT_MODIFIED),
        false => content(StatusCode::OK, "text/html; charset=UTF-8", page.into()),
    };
    let policy = format!("frame-ancestors {ancestors}");
    for (name, value) in [(ETAG, tag), (CONTENT_SECURITY_POLICY, policy)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000"));
    answer
}

// ---- receiving -------------------------------------------------------------------------------------------

/// What a request wants to receive.
struct Wanted<'a> {
    name: &'a str,
    opener: Opener,
    verb: Verb,
    /// Those of the first say who opens the session.
    headers: &'a HeaderMap,
}

async fn receive(
    door: &Arc<Door>,
    settings: &SockJsSettings,
    wanted: Wanted<'_>,
    peer: &Peer,
    attendance: &Arc<Attendance>,
    body: Incoming,
) -> Answer {
    if let Err(answer) = read(body, OPEN_BYTES_MAX, door.settings.pump.establish_time_max).await {
        return answer;
    }
    let Wanted { name, opener, verb, headers } = wanted;
    let receiver =
        |receive, greets| Receiver::new(receive, settings.heart_beat_interval, attendance.clone(), greets);
    match door.sockjs.get_or_open(name, opener) {
        Found::New(listed, wire, receive) => {
            let presented = match authorization::presented(headers) {
                Ok(presented) => presented,
                Err(malformed) => {
                    metrics::HANDSHAKES_REFUSED.add(1);
                    tracing::info!(%peer, reason = %malformed, "no SockJS session opened");
                    return text(StatusCode::BAD_REQUEST, format!("{malformed}\n"));
                }
            };
            let visitor = Visitor { peer: peer.unbound(), presented };
            match open(door, settings, visitor, listed, wire) {
                Ok(()) => deliver(settings, verb, receiver(receive, true)).await,
                Err(why) => why.answer(),
            }
        }
        Found::Known(lane) => match lane.claim() {
            Claim::Held(receive) => deliver(settings, verb, receiver(receive, false)).await,
            Claim::Taken => say(verb, TAKEN),
            Claim::Spent => say(verb, close(lane.ended())),
        },
        Found::Foreign => {
            sleep(MISS_TIME).await;
            text(StatusCode::NOT_FOUND, "this session is not yours\n")
        }
    }
}

/// Opens a session; or says why it cannot be now.
fn open(
    door: &Arc<Door>,
    settings: &SockJsSettings,
    visitor: Visitor,
    listed: Listed,
    wire: LaneWire,
) -> Result<(), Unwelcome> {
    let peer = visitor.peer.clone();
    let permit = door.admit_new(&peer)?;
    let transport = Transport::LongPoll(wire.text_transport());
    let connection = door.connect(settings.token, transport, wire, visitor, None, now())?;
    tracing::debug!(%peer, "SockJS session opened");
    let run = run(door.clone(), Box::new(connection), listed, permit, settings.disconnect_delay, peer);
    door.tasks.spawn(run);
    Ok(())
}

/// Runs a session to its end, and leaves it there for a while: whoever asks is told that it is over.
async fn run(
    door: Arc<Door>,
    connection: Box<Connection<LaneWire>>,
    listed: Listed,
    permit: Permit,
    disconnect_delay: Duration,
    peer: Peer,
) {
    let lane: &Lane = &listed.lane;
    // A place among strangers is taken until the peer was let in, or its name is free again: not for no longer than it
    // takes to be refused.
    let place = async {
        lane.until_established().await;
        drop(permit);
        std::future::pending::<()>().await;
    };
    let session = async {
        if !converse(&door, connection, lane, disconnect_delay, &peer, &"SockJS").await {
            return;
        }
        let dismissed = async {
            door.shutdown.cancelled().await;
            let _ = timeout(door.settings.pump.close_time_max, lane.until_known()).await;
        };
        tokio::select! {
            () = sleep(disconnect_delay) => {}
            () = lane.until_hung_up() => {}
            () = dismissed => {}
        }
    };
    tokio::select! {
        () = place => {}
        () = session => {}
    }
}

async fn deliver(settings: &SockJsSettings, verb: Verb, mut receiver: Receiver) -> Answer {
    let manner = Manner::of(verb);
    if verb != Verb::Xhr {
        return pieces(
            manner.content_type,
            Stream::new(manner, receiver, settings.stream_bytes_max).into_body(),
        );
    }
    match receiver.next().await {
        Said::Last(frame) => say(verb, frame),
        Said::Frame(frame) => {
            receiver.finish();
            content(StatusCode::OK, manner.content_type, manner.dress(&frame))
        }
    }
}

/// An answer of one frame.
fn say(verb: Verb, frame: &'static str) -> Answer {
    let manner = Manner::of(verb);
    match verb {
        Verb::Xhr | Verb::Send => content(StatusCode::OK, manner.content_type, manner.dress(frame)),
        Verb::XhrStreaming | Verb::EventSource => {
            pieces(manner.content_type, Stream::only(manner, frame).into_body())
        }
    }
}

// ---- sending ---------------------------------------------------------------------------------------------

async fn send(door: &Door, lane: Option<&Arc<Lane>>, body: Incoming) -> Answer {
    let Some(lane) = lane else {
        sleep(MISS_TIME).await;
        return text(StatusCode::NOT_FOUND, "there is no such session, or it has ended\n");
    };
    let limits = &door.settings.websocket;
    let time_max = door.settings.pump.message_time_max;
    let busy = || last(later("the session takes no messages at the moment\n"));
    let Some(_turn) = lane.turn_to_send(time_max).await else { return busy() };
    let (limits, times) =
        if lane.is_established() { (&limits.established, SEND_MESSAGES_MAX) } else { (&limits.stranger, 1) };
    let bytes_max = limits.message_bytes_max;
    let sent = match read(body, bytes_max.saturating_mul(times), time_max).await {
        Ok(sent) => sent,
        Err(answer) => return answer,
    };
    let messages = match frames::read(&sent, bytes_max) {
        Ok(messages) => messages,
        Err(Malformed::Empty) => return text(StatusCode::INTERNAL_SERVER_ERROR, "Payload expected."),
        Err(Malformed::Broken) => return text(StatusCode::INTERNAL_SERVER_ERROR, "Broken JSON encoding."),
        Err(Malformed::TooLong) => {
            let sentence = format!("a message may have {bytes_max} bytes here\n");
            return text(StatusCode::PAYLOAD_TOO_LARGE, sentence);
        }
    };
    drop(sent);
    if messages.is_empty() {
        return taken();
    }
    match lane.send_framed(messages, time_max).await {
        // What the session says of it is received like everything else.
        Sent::Taken | Sent::Broken => taken(),
        Sent::Busy => busy(),
        Sent::Gone => text(StatusCode::NOT_FOUND, "the session has ended\n"),
    }
}

fn taken() -> Answer {
    let mut answer = empty(StatusCode::NO_CONTENT);
    // Some browsers take what has no type for XML, and complain.
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    answer
}

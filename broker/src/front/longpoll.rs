//! Long-polling: a session over HTTP requests, for clients that cannot have a WebSocket.
//!
//! WAMP specifies it ("HTTP Longpoll Transport"); every language is spoken over it, by the tokens of WebSocket.
//! Below a base path, all by POST:
//!
//! - `open` with `{"protocols": ["…", …]}` answers `{"protocol": "…", "transport": "<id>"}`: the first of the
//!   client's list that is spoken here. The id is a secret;
//! - `<id>/receive` is answered with one message, or with 204 and nothing after a while;
//! - `<id>/send` takes one message, and answers 204 once the session has dealt with it;
//! - `<id>/close` ends the session.
//!
//! Where the specification says 202, this says 204, as Crossbar does: autobahn takes nothing else. Of two receives
//! at a time the older is answered with nothing: mostly a proxy holds it whose client has gone. Which kind a
//! message is of is seen by its bytes and not by its content type, which clients get wrong: UTF-8 is text.
//!
//! A receive's message counts as delivered when it is handed to HTTP. Whoever goes away before loses nothing;
//! what is lost on the way after that is lost, as with any other wire.

use std::fmt::Debug;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::{Method, Request, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::core::access::{Peer, Presented};
use crate::core::message::Kind;
use crate::front::answer::{Answer, content, empty, last, later, not_kept, text, wrong_method};
use crate::front::authorization;
use crate::front::connection::{Connection, now};
use crate::front::cors::Cors;
use crate::front::door::{Door, Visitor};
use crate::front::gate::Permit;
use crate::front::longpoll::asked::{Asked, LongPollSettings, Verb};
use crate::front::longpoll::lane::{Lane, LaneWire, Received, Sent};
use crate::front::longpoll::lanes::Listed;
use crate::front::stay::Stay;
use crate::front::transport::Transport;
use crate::front::unwelcome::Unwelcome;
use crate::metrics;

pub mod asked;
pub mod lane;
pub mod lanes;

/// The longest body of a request to open a transport; and of those that need none.
pub const OPEN_BYTES_MAX: usize = 16 * 1024;

const METHODS: &str = "POST, OPTIONS";

/// How an HTTP connection is counted: among strangers, unless its last request was for a transport whose peer was
/// let in.
pub struct Attendance(Mutex<(Option<Permit>, Option<Arc<Lane>>)>, Stay);

impl Attendance {
    /// A stranger's.
    pub fn new(permit: Permit, since: Instant) -> Arc<Attendance> {
        Arc::new(Attendance(Mutex::new((Some(permit), None)), Stay::new(since)))
    }

    /// Makes a stranger of it again. False when there is no room for one.
    pub fn become_stranger(&self, door: &Door, peer: &Peer) -> bool {
        let (permit, lane) = &mut *self.0.lock();
        *lane = None;
        self.1.begin(now());
        match permit {
            Some(permit) => door.gate.account(permit, peer),
            none => {
                *none = door.gate.try_enter(peer);
                none.is_some()
            }
        }
    }

    /// Gives the place to the session that the connection becomes.
    pub fn take_permit(&self) -> Option<Permit> {
        self.0.lock().0.take()
    }

    /// Counts it as part of a session whose peer was let in.
    pub fn attend(&self, served: &Arc<Lane>) {
        let (permit, lane) = &mut *self.0.lock();
        *permit = None;
        *lane = Some(served.clone());
        self.1.end();
    }

    /// The same where its peer was let in by the last request.
    pub fn attend_from_now(&self, served: &Arc<Lane>) {
        if served.is_established() {
            self.attend(served);
        }
    }

    /// How long the connection has been a stranger's.
    pub fn stay(&self) -> &Stay {
        &self.1
    }

    /// Ready when the connection is needed no longer: once the broker shuts down and the session has said goodbye.
    pub async fn dismissed(&self, door: &Door) {
        door.shutdown.cancelled().await;
        loop {
            let lane = self.0.lock().1.clone();
            match lane {
                Some(lane) if !lane.is_over() => lane.until_over().await,
                _ => return,
            }
        }
    }
}

/// Answers a request.
pub async fn answer(
    door: &Arc<Door>,
    settings: &LongPollSettings,
    asked: Asked,
    peer: &Peer,
    attendance: &Attendance,
    request: Request<Incoming>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let lane = match asked {
        Asked::Of(Some(id), _) => door.lanes.get(id),
        _ => None,
    };
    match &lane {
        Some(lane) if lane.is_established() => attendance.attend(lane),
        _ if attendance.become_stranger(door, peer) => {}
        _ => return door.refuse(peer, Unwelcome::Strangers).answer(),
    }
    let cors = match Cors::judge(&door.settings.origins, &parts.headers, &parts.uri) {
        Ok(cors) => cors,
        Err(reason) => {
            metrics::HANDSHAKES_REFUSED.add(1);
            tracing::info!(%peer, %reason, "long-poll request refused");
            return text(StatusCode::FORBIDDEN, format!("{reason}\n"));
        }
    };
    let answer = match (parts.method, asked) {
        (_, Asked::Nothing) => text(StatusCode::NOT_FOUND, "nothing is here; see <path>/open\n"),
        (Method::OPTIONS, _) => Cors::preflight(METHODS),
        (Method::POST, Asked::Open) => match authorization::presented(&parts.headers) {
            Ok(presented) => open(door, settings, peer, presented, body).await,
            Err(malformed) => {
                metrics::HANDSHAKES_REFUSED.add(1);
                tracing::info!(%peer, reason = %malformed, "no long-poll transport opened");
                text(StatusCode::BAD_REQUEST, format!("{malformed}\n"))
            }
        },
        (Method::POST, Asked::Of(_, verb)) => match lane {
            None => text(StatusCode::NOT_FOUND, "there is no such transport, or it has ended\n"),
            Some(lane) => {
                let answer = serve(door, settings, &lane, verb, body).await;
                attendance.attend_from_now(&lane);
                answer
            }
        },
        (_, Asked::Open | Asked::Of(..)) => wrong_method(METHODS),
    };
    cors.allow(not_kept(answer))
}

// ---- opening ---------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Opening {
    protocols: Vec<String>,
}

#[derive(Serialize)]
struct Opened<'a> {
    protocol: &'a str,
    transport: &'a str,
}

async fn open(
    door: &Arc<Door>,
    settings: &LongPollSettings,
    peer: &Peer,
    presented: Option<Presented>,
    body: Incoming,
) -> Answer {
    let refused = |answer: Answer, reason: &str| {
        metrics::HANDSHAKES_REFUSED.add(1);
        tracing::info!(%peer, reason, "no long-poll transport opened");
        answer
    };
    if let Err(why) = door.judge_new(peer) {
        return why.answer();
    }
    let body = match read(body, OPEN_BYTES_MAX, door.settings.pump.establish_time_max).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let Ok(Opening { protocols }) = serde_json::from_slice(&body) else {
        let sentence = "the body must be JSON like {\"protocols\": [\"…\"]}\n";
        return refused(text(StatusCode::BAD_REQUEST, sentence), "malformed");
    };
    let spoken = |asked: &String| door.tokens.iter().find(|token| *token == asked);
    let Some(token) = protocols.iter().find_map(spoken) else {
        let sentence = format!("none of these protocols is spoken here, but {}\n", door.tokens.join(", "));
        return refused(text(StatusCode::BAD_REQUEST, sentence), "no protocol in common");
    };
    // Only now: the body may have taken its time.
    let permit = match door.admit_new(peer) {
        Ok(permit) => permit,
        Err(why) => return why.answer(),
    };
    let Some((listed, wire)) = door.lanes.open() else {
        return refused(later("no transport is to be had\n"), "the entropy repeats itself");
    };
    let transport = Transport::LongPoll(wire.transport());
    let visitor = Visitor { peer: peer.unbound(), presented };
    let connection = match door.connect(token, transport, wire, visitor, Some(permit), now()) {
        Ok(connection) => connection,
        // It was the last place of the address, and another had it.
        Err(why) => return why.answer(),
    };
    tracing::debug!(%peer, transport = ?listed.id, "long-poll transport opened");
    let answer = opened(token, &listed.id.secret());
    // Boxed: the future would else hold it twice.
    let run = run(door.clone(), Box::new(connection), listed, settings.silent_time_max, peer.clone());
    door.tasks.spawn(run);
    answer
}

fn opened(protocol: &str, transport: &str) -> Answer {
    match serde_json::to_vec(&Opened { protocol, transport }) {
        Ok(json) => content(StatusCode::OK, JSON, json.into()),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write JSON\n"),
    }
}

/// Runs a session to its end, and until the client has fetched what was said last and knows that it was the last.
async fn run(
    door: Arc<Door>,
    connection: Box<Connection<LaneWire>>,
    listed: Listed,
    silent_time_max: Duration,
    peer: Peer,
) {
    let close_time_max = door.settings.pump.close_time_max;
    let Listed { id, lane, .. } = &listed;
    if !converse(&door, connection, lane, silent_time_max, &peer, id).await {
        return;
    }
    // Autobahn answers the last message with a close, and hangs if there is nothing to close any more.
    let patience = async {
        let _ = timeout(close_time_max, door.shutdown.cancelled()).await;
        if door.shutdown.is_cancelled() {
            tokio::time::sleep(door.settings.pump.linger_time_max).await;
        }
    };
    tokio::select! {
        () = lane.until_known() => {}
        () = patience => {}
    }
}

/// Runs a session to its end, and until what was said last was fetched. False when nobody is there any more to be
/// told that it was the last.
pub async fn converse(
    door: &Door,
    connection: Box<Connection<LaneWire>>,
    lane: &Lane,
    silent_time_max: Duration,
    peer: &Peer,
    transport: &(dyn Debug + Sync),
) -> bool {
    let close_time_max = door.settings.pump.close_time_max;
    // A pump that does not read has its time to see that the client is done.
    let hung_up = async {
        lane.until_hung_up().await;
        tokio::time::sleep(close_time_max).await;
    };
    // Of the broker's end only those are told that were let in.
    let sent_away = async {
        door.shutdown.cancelled().await;
        if lane.is_established() {
            pending::<()>().await;
        }
    };
    let mut silent = pin!(lane.until_silent(silent_time_max));
    tokio::select! {
        _ = connection => {}
        () = hung_up => return false,
        () = sent_away => return false,
        () = silent.as_mut() => {
            metrics::LONG_POLLS_SILENT.add(1);
            tracing::info!(%peer, ?transport, "no receive for too long: the session ends");
            return false;
        }
    }
    let fetched = timeout(close_time_max, lane.until_fetched()).await.is_ok();
    if !fetched {
        tracing::info!(%peer, ?transport, "what was said last was not fetched in time");
    }
    fetched
}

// ---- a transport -----------------------------------------------------------------------------------------

const JSON: &str = "application/json";

async fn serve(
    door: &Door,
    settings: &LongPollSettings,
    lane: &Arc<Lane>,
    verb: Verb,
    body: Incoming,
) -> Answer {
    let pump = &door.settings.pump;
    if verb == Verb::Send {
        return send(door, lane, body).await;
    }
    if let Err(answer) = read(body, OPEN_BYTES_MAX, pump.establish_time_max).await {
        return answer;
    }
    if verb == Verb::Close {
        lane.hang_up();
        // The session has left, when this is answered.
        let _ = timeout(pump.close_time_max, lane.until_over()).await;
        return empty(StatusCode::NO_CONTENT);
    }
    match lane.receive(settings.receive_time_max).await {
        Received::Message(kind, message) => content(StatusCode::OK, content_type(kind, &message), message),
        Received::Nothing => empty(StatusCode::NO_CONTENT),
        Received::Gone => text(StatusCode::NOT_FOUND, "this transport has ended\n"),
    }
}

/// What a message is called, without knowing its language: text that looks like JSON is called so.
fn content_type(kind: Kind, message: &[u8]) -> &'static str {
    match (kind, message.first()) {
        (Kind::Text, Some(b'[' | b'{')) => JSON,
        (Kind::Text, _) => "text/plain; charset=utf-8",
        (Kind::Binary | Kind::Raw, _) => "application/octet-stream",
    }
}

async fn send(door: &Door, lane: &Arc<Lane>, body: Incoming) -> Answer {
    let limits = &door.settings.websocket;
    let time_max = door.settings.pump.message_time_max;
    let busy = || last(later("the session takes no messages at the moment\n"));
    let Some(_turn) = lane.turn_to_send(time_max).await else { return busy() };
    let limits = if lane.is_established() { &limits.established } else { &limits.stranger };
    let message = match read(body, limits.message_bytes_max, time_max).await {
        Ok(message) => message,
        Err(answer) => return answer,
    };
    let kind = if std::str::from_utf8(&message).is_ok() { Kind::Text } else { Kind::Binary };
    match lane.send(kind, &message, time_max).await {
        Sent::Taken => empty(StatusCode::NO_CONTENT),
        Sent::Busy => busy(),
        Sent::Gone => text(StatusCode::NOT_FOUND, "the session has ended\n"),
        Sent::Broken => {
            let sentence = "the session ended over this message; what it said of that is to be received\n";
            text(StatusCode::BAD_REQUEST, sentence)
        }
    }
}

/// Reads a body whole.
pub async fn read(body: Incoming, bytes_max: usize, time_max: Duration) -> Result<Bytes, Answer> {
    let too_long = || {
        let sentence = format!("a body may have {bytes_max} bytes here\n");
        last(text(StatusCode::PAYLOAD_TOO_LARGE, sentence))
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_long());
    }
    match timeout(time_max, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(_)) => Err(last(text(StatusCode::BAD_REQUEST, "the body broke off\n"))),
        Err(_) => Err(last(text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"))),
    }
}

//! Remote procedure calls: callers with some calls open at a time, callees who answer with what they were given.
//!
//! Over WAMP, or as requests and replies over NATS. Each callee has a procedure of its own, which callers call in
//! turn: caller 0 that of callee 0 and so on, around.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use memchr::memchr;
use tokio::task::JoinSet;

use tandem_client::raw::transport::Kind;
use tandem_client::{Error as ClientError, Wire};
use tandem_protocols::payload::{Arguments, Content, Format};
use tandem_protocols::wamp::codec::{decode, encode};
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::{Call, CallResult, Invocation, Message, Yield};

use crate::course::{measure, shared};
use crate::error::Error;
use crate::language::{Heard, Language};
use crate::options::Calls;
use crate::payload::Stamp;
use crate::peer::{Peer, join};
use crate::report::Report;
use crate::stage::{Shared, Stage, Times, times};
use crate::wire::ended;

/// Runs the workload.
///
/// # Errors
///
/// Where somebody cannot connect or register.
pub async fn run(options: &Calls) -> Result<Report, Error> {
    let common = &options.common;
    let shared = shared(common);
    let unique: u32 = rand::random();
    let procedure = |number: u16| format!("bench.p{unique:08x}.n{number}");
    let (mut callers, mut callees) = (JoinSet::new(), JoinSet::new());
    for number in 0..options.callees {
        let callee = Callee::open(options, &procedure(number)).await?;
        callees.spawn(callee.run(number, shared.clone()));
    }
    for number in 0..options.callers {
        let line = Line::open(options, unique, number).await?;
        let caller = Caller {
            number,
            line,
            procedure: procedure(number % options.callees),
            shared: shared.clone(),
            in_flight: usize::from(options.in_flight),
            called: 0,
            waiting: HashMap::new(),
            times: times(),
        };
        callers.spawn(caller.run());
    }
    let measured = measure(&shared, common).await?;
    let ended = tokio::time::timeout(common.drain, callers.join_all()).await.unwrap_or_default();
    if ended.len() < usize::from(options.callers) {
        let late = usize::from(options.callers) - ended.len();
        shared.faults.note(late as u64, format_args!("{late} callers got not all of their answers in time"));
    }
    let mut answers = times();
    for times in ended {
        let _ = answers.add(times);
    }
    shared.enter(Stage::Over);
    callees.join_all().await;
    let report = Report::new("calls", common.url.to_string(), &measured).with_deliveries(&answers);
    Ok(report.with_faults(shared.counters.now().delivered, &shared.faults))
}

/// Whoever answers.
enum Callee {
    Wamp(Wire, Format),
    Nats(Peer),
}

impl Callee {
    async fn open(options: &Calls, procedure: &str) -> Result<Callee, Error> {
        let common = &options.common;
        if options.language == Language::Nats {
            return Ok(Callee::Nats(Peer::subscribed(common, Language::Nats, procedure).await?));
        }
        let mut client = join(common, options.language).await?;
        let registered = client.register(procedure, Dict::new()).await;
        registered.map_err(|error| Error::connect(&format!("REGISTER at {}", common.url), error))?;
        let format = client.format();
        Ok(Callee::Wamp(client.into_link().into_transport(), format))
    }

    async fn run(self, number: u16, shared: Arc<Shared>) {
        let serving = async {
            match self {
                Callee::Wamp(wire, format) => serve_wamp(wire, format, &shared).await,
                Callee::Nats(peer) => serve_nats(peer, &shared).await,
            }
        };
        tokio::select! {
            biased;
            () = shared.reached(Stage::Over) => {}
            ended = serving => {
                if let Err(error) = ended {
                    shared.faults.note(1, format_args!("callee {number}: {error}"));
                }
            }
        }
    }
}

async fn serve_wamp(mut wire: Wire, format: Format, shared: &Shared) -> Result<(), ClientError> {
    let kind = kind(format);
    loop {
        let mut next = wire.next().await?;
        if next.is_none() {
            return Err(ended(&wire));
        }
        while let Some(message) = next {
            match decode(format, &message.bytes)? {
                Message::Invocation(Invocation { request, payload, .. }) => {
                    let answer = Yield { request, options: Dict::new(), payload };
                    wire.feed(kind, &encode(format, &answer.into())?)?;
                }
                other => shared.faults.note(1, format_args!("a callee got {}", other.message_type().name())),
            }
            next = wire.try_next();
        }
        wire.flush().await?;
    }
}

async fn serve_nats(mut peer: Peer, shared: &Shared) -> Result<(), ClientError> {
    let mut answers = Vec::new();
    loop {
        answers.clear();
        let heard = |heard: Heard| match &heard {
            Heard::Delivery(message) => match request(message) {
                Some((reply, payload)) => {
                    let _ = write!(answers, "PUB {reply} {}\r\n", payload.len());
                    answers.extend_from_slice(payload);
                    answers.extend_from_slice(b"\r\n");
                }
                None => shared.faults.note(1, format_args!("a callee got a request without a reply")),
            },
            _ => shared.faults.note(1, format_args!("a callee got {heard:?}")),
        };
        peer.hear(heard).await?;
        peer.feed(&answers)?;
        peer.flush().await?;
    }
}

/// Where the answer goes, and the payload of `MSG subject sid reply length`.
fn request(message: &[u8]) -> Option<(&str, &[u8])> {
    let line = memchr(b'\n', message)?;
    let words = std::str::from_utf8(&message[..line]).ok()?.split_ascii_whitespace();
    let reply = words.clone().nth(3).filter(|_| words.count() == 5)?;
    Some((reply, message.get(line + 1..message.len() - 2)?))
}

fn kind(format: Format) -> Kind {
    if format == Format::Json { Kind::Text } else { Kind::Binary }
}

/// How a caller calls.
enum Line {
    Wamp(Wire, Format),
    /// With where answers come to.
    Nats(Peer, String),
}

impl Line {
    async fn open(options: &Calls, unique: u32, number: u16) -> Result<Line, Error> {
        let common = &options.common;
        if options.language == Language::Nats {
            let inbox = format!("_INBOX.b{unique:08x}.n{number}");
            let peer = Peer::subscribed(common, Language::Nats, &format!("{inbox}.*")).await?;
            return Ok(Line::Nats(peer, inbox));
        }
        let client = join(common, options.language).await?;
        let format = client.format();
        Ok(Line::Wamp(client.into_link().into_transport(), format))
    }

    /// Takes a call to be written. Of NATS the number is in the subject of the answer.
    fn call(&mut self, procedure: &str, number: u64, payload: &[u8]) -> Result<(), ClientError> {
        match self {
            Line::Wamp(wire, format) => {
                let request = Id::new(number).ok_or(ClientError::OutputFull)?;
                let arguments =
                    Arguments { format: *format, args: list(*format, payload), kwargs: Bytes::new() };
                let procedure = procedure.to_owned();
                let payload = Content::Arguments(arguments);
                let call = Call { request, options: Dict::new(), procedure, payload };
                wire.feed(kind(*format), &encode(*format, &call.into())?)
            }
            Line::Nats(peer, inbox) => {
                let mut message = Vec::with_capacity(payload.len() + 128);
                let _ = write!(message, "PUB {procedure} {inbox}.{number} {}\r\n", payload.len());
                message.extend_from_slice(payload);
                message.extend_from_slice(b"\r\n");
                peer.feed(&message)
            }
        }
    }

    /// Waits for answers, and shows the number of each call and what it came to.
    async fn answers(&mut self, mut answered: impl FnMut(Option<u64>, &[u8])) -> Result<(), ClientError> {
        match self {
            Line::Wamp(wire, format) => {
                wire.flush().await?;
                let mut next = wire.next().await?;
                if next.is_none() {
                    return Err(ended(wire));
                }
                while let Some(message) = next {
                    match decode(*format, &message.bytes)? {
                        Message::CallResult(CallResult { request, .. }) => {
                            answered(Some(request.get()), &message.bytes);
                        }
                        _ => answered(None, &message.bytes),
                    }
                    next = wire.try_next();
                }
                Ok(())
            }
            Line::Nats(peer, _) => {
                peer.flush().await?;
                peer.hear(|heard| match heard {
                    Heard::Delivery(message) => answered(reply_number(&message), &message),
                    Heard::Odd(message) => answered(None, &message),
                    Heard::Ping(_) | Heard::Chatter => {}
                })
                .await
            }
        }
    }
}

/// A list of one text.
fn list(format: Format, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 8);
    let length = (payload.len() as u32).to_be_bytes();
    match format {
        Format::Json => {
            out.extend_from_slice(b"[\"");
            out.extend_from_slice(payload);
            out.extend_from_slice(b"\"]");
            return out.into();
        }
        Format::MsgPack => out.extend_from_slice(&[0x91, 0xdb]),
        Format::Cbor => out.extend_from_slice(&[0x81, 0x7a]),
    }
    out.extend_from_slice(&length);
    out.extend_from_slice(payload);
    out.into()
}

/// The number at the end of the subject of a reply.
fn reply_number(message: &[u8]) -> Option<u64> {
    let subject = message.split(|byte| *byte == b' ').nth(1)?;
    std::str::from_utf8(subject).ok()?.rsplit('.').next()?.parse().ok()
}

/// Whoever calls.
struct Caller {
    number: u16,
    line: Line,
    procedure: String,
    shared: Arc<Shared>,
    in_flight: usize,
    called: u64,
    /// When what has no answer was called.
    waiting: HashMap<u64, u64>,
    times: Times,
}

impl Caller {
    async fn run(mut self) -> Times {
        self.shared.reached(Stage::WarmUp).await;
        if let Err(error) = self.call().await {
            self.shared.faults.note(1, format_args!("caller {}: {error}", self.number));
        }
        self.times
    }

    async fn call(&mut self) -> Result<(), ClientError> {
        let mut payload = Vec::new();
        loop {
            while self.shared.may_send() && self.waiting.len() < self.in_flight {
                self.called += 1;
                let now = self.shared.now_ns();
                self.waiting.insert(self.called, now);
                payload.clear();
                let stamp = Stamp { sender: self.number, number: self.called, due_ns: now };
                self.shared.sealer.seal(stamp, &mut payload);
                self.line.call(&self.procedure, self.called, &payload)?;
                self.shared.counters.sent.fetch_add(1, Ordering::Relaxed);
            }
            if self.waiting.is_empty() {
                return Ok(());
            }
            let Self { line, shared, waiting, times, number, .. } = self;
            line.answers(|call, answer| {
                let whom = *number;
                let (called, stamp) =
                    (call.and_then(|call| waiting.remove(&call)), shared.sealer.open(answer));
                match (called, stamp) {
                    (Some(called), Ok(stamp)) if stamp.sender == whom && Some(stamp.number) == call => {
                        shared.counters.delivered.fetch_add(1, Ordering::Relaxed);
                        if shared.is_measuring() {
                            times.saturating_record(shared.now_ns() - called);
                        }
                    }
                    (_, stamp) => {
                        let said = String::from_utf8_lossy(&answer[..answer.len().min(200)]);
                        let what = format_args!("caller {whom}, call {call:?}: {stamp:?} in {said}");
                        shared.faults.note(1, what);
                    }
                }
            })
            .await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_nats_says_where_the_answer_goes() {
        let message = b"MSG bench.p 1 _INBOX.b.n0.17 5\r\nhello\r\n";
        assert_eq!(request(message), Some(("_INBOX.b.n0.17", &b"hello"[..])));
        assert_eq!(request(b"MSG bench.p 1 5\r\nhello\r\n"), None);
        assert_eq!(reply_number(b"MSG _INBOX.b.n0.17 1 5\r\nhello\r\n"), Some(17));
        assert_eq!(reply_number(b"MSG _INBOX 1 5\r\nhello\r\n"), None);
    }
}

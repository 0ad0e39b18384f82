//! Long-polling: messages of a session over requests of HTTP, for where no WebSocket gets through.
//!
//! WAMP specifies it ("HTTP Longpoll Transport"), autobahn and Crossbar speak it, and Tandem also with STOMP in it. Below a
//! path, all by POST: `open` says which protocols are spoken, and is told one and a name for the session; `<name>/receive`
//! is answered with a message, or with 204 after a while; `<name>/send` takes a message; `<name>/close` ends it.
//!
//! Two requests are under way at a time, one each way, over a connection each. They are driven by whatever is awaited, and
//! one message goes out after the other, for the next to be sent when the server has dealt with the one before. What goes
//! wrong ends the session: nobody knows whether a message that was on its way has arrived.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use crate::error::Error;
use crate::longpoll::http::{Answer, Http, HttpOptions};
use crate::message::{Closed, Kind, Message, message_bytes};
use crate::raw::transport::{CLOSE_TIMEOUT, INBOX_BYTES_MAX, OUTPUT_BYTES_MAX};

pub(crate) mod http;

/// What waits is sent in requests of up to so many bytes, where several messages may go in one.
const JOINED_BYTES_MAX: usize = 64 * 1024;

/// The longest answer to `open`.
const OPENED_BYTES_MAX: usize = 16 * 1024;

/// How long the server may take to answer. One that has nothing to say answers a receive with nothing, which is to be
/// sooner: Tandem does after 10 s.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

const OK: u16 = 200;
const ACCEPTED: u16 = 202;
const NO_CONTENT: u16 = 204;
const BAD_REQUEST: u16 = 400;
const NOT_FOUND: u16 = 404;
const GONE: u16 = 410;

/// A session over requests.
pub(crate) struct LongPoll {
    options: HttpOptions,
    protocol: String,
    /// What its paths begin with.
    base: String,
    content_type: &'static str,
    /// Whether several messages may go in one request, as a stream of bytes may.
    joins: bool,
    /// Fed, and not under way.
    output: VecDeque<Bytes>,
    /// Of those, and of the one that is under way.
    output_bytes: usize,
    sending: Line,
    receiving: Line,
    inbox: VecDeque<Message>,
    inbox_bytes: usize,
    /// The session is over, and the server may yet say why: then this is what is to be said if it does not.
    is_refused: Option<Error>,
    failure: Option<Error>,
    closed: Option<Closed>,
}

/// One of the two directions.
enum Line {
    Idle(Option<Http>),
    Asking { asking: Pin<Box<dyn Future<Output = Asked> + Send>>, bytes: usize },
}

type Asked = (Option<Http>, Result<Answer, Error>);

impl LongPoll {
    /// Opens a session, offering `protocols`, best first.
    pub(crate) async fn open(options: HttpOptions, protocols: &[&str]) -> Result<LongPoll, Error> {
        let body = serde_json::json!({ "protocols": protocols }).to_string();
        let asked = Http::ask(None, options.clone(), "/open".into(), "application/json", body.into());
        let (http, answer) = asked.await;
        let answer = answer?;
        if answer.status != OK || answer.body.len() > OPENED_BYTES_MAX {
            return Err(answer.refusal());
        }
        let opened: serde_json::Value = serde_json::from_slice(&answer.body)
            .map_err(|_| Error::Unsupported("the answer to opening a long-poll is not JSON"))?;
        let (Some(protocol), Some(name)) = (opened["protocol"].as_str(), opened["transport"].as_str()) else {
            return Err(Error::Unsupported("the answer to opening a long-poll names no transport"));
        };
        // It becomes a part of paths.
        let is_name =
            |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
        if !protocols.contains(&protocol) || name.is_empty() || !is_name(name) {
            return Err(Error::Unsupported("the answer to opening a long-poll is not to what was asked"));
        }
        let joins = protocol.ends_with(".stomp");
        let content_type = match protocol {
            "wamp.2.json" => "application/json",
            _ if joins => "text/plain",
            _ => "application/octet-stream",
        };
        Ok(LongPoll {
            options,
            protocol: protocol.to_owned(),
            base: format!("/{name}"),
            content_type,
            joins,
            output: VecDeque::new(),
            output_bytes: 0,
            sending: Line::Idle(http),
            receiving: Line::Idle(None),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            is_refused: None,
            failure: None,
            closed: None,
        })
    }

    /// What is spoken.
    pub(crate) fn protocol(&self) -> &str {
        &self.protocol
    }

    pub(crate) fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref().filter(|_| self.inbox.is_empty() && self.failure.is_none())
    }

    pub(crate) fn output_bytes(&self) -> usize {
        self.output_bytes
    }

    pub(crate) fn feed(&mut self, payload: &[u8]) -> Result<(), Error> {
        if self.output_bytes >= OUTPUT_BYTES_MAX {
            return Err(Error::OutputFull);
        }
        self.output_bytes += payload.len() + size_of::<Bytes>();
        self.output.push_back(Bytes::copy_from_slice(payload));
        Ok(())
    }

    pub(crate) fn try_next(&mut self) -> Option<Message> {
        let message = self.inbox.pop_front()?;
        self.inbox_bytes -= message_bytes(&message);
        Some(message)
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        loop {
            // What goes wrong here is said below, behind what came before.
            let _sent = self.poll_send(cx);
            if let Some(message) = self.try_next() {
                return Poll::Ready(Ok(Some(message)));
            }
            if let Some(failure) = self.failure.take() {
                return Poll::Ready(Err(failure));
            }
            if self.closed.is_some() {
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_receive(cx));
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.poll_send(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            // A server that cannot get rid of its messages may take no more of them.
            if self.inbox_bytes >= INBOX_BYTES_MAX || self.closed.is_some() {
                return Poll::Pending;
            }
            ready!(self.poll_receive(cx));
        }
    }

    /// Sends what waits. Ready when there is nothing left to be sent, or nobody left to send it to.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.closed.is_some() || self.is_refused.is_some() {
                self.output.clear();
                self.output_bytes = 0;
                return Poll::Ready(());
            }
            match &mut self.sending {
                Line::Asking { asking, bytes } => {
                    let (http, answer) = ready!(asking.as_mut().poll(cx));
                    self.output_bytes = self.output_bytes.saturating_sub(*bytes);
                    self.sending = Line::Idle(http);
                    match answer {
                        Ok(answer) => self.note_sent(answer),
                        Err(error) => self.fail(error),
                    }
                }
                Line::Idle(http) => {
                    let http = http.take();
                    let Some((body, bytes)) = self.next_body() else {
                        self.sending = Line::Idle(http);
                        return Poll::Ready(());
                    };
                    let asking = self.ask(http, "send", self.content_type, body);
                    self.sending = Line::Asking { asking, bytes };
                }
            }
        }
    }

    /// What goes in the next request, and what that counted in the output.
    fn next_body(&mut self) -> Option<(Bytes, usize)> {
        let first = self.output.pop_front()?;
        let mut bytes = first.len() + size_of::<Bytes>();
        if !self.joins || self.output.is_empty() {
            return Some((first, bytes));
        }
        let mut body = BytesMut::from(&first[..]);
        while self.output.front().is_some_and(|next| body.len() + next.len() <= JOINED_BYTES_MAX) {
            let Some(next) = self.output.pop_front() else { break };
            bytes += next.len() + size_of::<Bytes>();
            body.extend_from_slice(&next);
        }
        Some((body.freeze(), bytes))
    }

    fn note_sent(&mut self, answer: Answer) {
        match answer.status {
            OK | ACCEPTED | NO_CONTENT => {}
            // What the session said of its end is still to be received.
            BAD_REQUEST | NOT_FOUND | GONE => self.is_refused = Some(answer.refusal()),
            _ => self.fail(answer.refusal()),
        }
    }

    /// Receives once. What comes is in the inbox then, or the session has ended.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Line::Idle(http) = &mut self.receiving {
            let http = http.take();
            let asking = self.ask(http, "receive", self.content_type, Bytes::new());
            self.receiving = Line::Asking { asking, bytes: 0 };
        }
        let Line::Asking { asking, .. } = &mut self.receiving else { return Poll::Ready(()) };
        let (http, answer) = ready!(asking.as_mut().poll(cx));
        self.receiving = Line::Idle(http);
        match answer {
            // Nobody is there any more: other wires just end then.
            Err(Error::LongPoll(error)) if error.is_incomplete_message() => self.end(),
            Err(Error::Io(error)) if error.kind() == ErrorKind::ConnectionRefused => self.end(),
            Err(error) => self.fail(error),
            Ok(Answer { status: OK, body, .. }) if !body.is_empty() => {
                let message = Message { kind: Kind::Binary, bytes: body };
                self.inbox_bytes += message_bytes(&message);
                self.inbox.push_back(message);
            }
            Ok(Answer { status: OK | ACCEPTED | NO_CONTENT, .. }) => {}
            Ok(Answer { status: NOT_FOUND | GONE, .. }) => self.end(),
            Ok(answer) => self.fail(answer.refusal()),
        }
        Poll::Ready(())
    }

    fn ask(
        &self,
        http: Option<Http>,
        verb: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Asked> + Send>> {
        let path = format!("{}/{verb}", self.base);
        Box::pin(Http::ask(http, self.options.clone(), path, content_type, body))
    }

    fn end(&mut self) {
        match self.is_refused.take() {
            Some(error) => self.fail(error),
            None => self.closed = Some(Closed::Eof),
        }
    }

    fn fail(&mut self, error: Error) {
        self.failure = Some(error);
        self.closed = Some(Closed::Failed);
    }

    /// Sends what was fed, and ends the session.
    pub(crate) async fn close(&mut self) -> Result<Closed, Error> {
        let closing = async {
            loop {
                // What arrives now is dropped, and makes no difference to what is sent.
                (self.inbox_bytes, self.inbox) = (0, VecDeque::new());
                let sent = poll_fn(|cx| match self.poll_send(cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending => self.poll_receive(cx).map(|()| false),
                });
                if sent.await {
                    break;
                }
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if let Some(closed) = &self.closed {
                return Ok(closed.clone());
            }
            self.receiving = Line::Idle(None);
            let http = match &mut self.sending {
                Line::Idle(http) => http.take(),
                Line::Asking { .. } => None,
            };
            let (_, answer) = self.ask(http, "close", self.content_type, Bytes::new()).await;
            self.closed = Some(Closed::Eof);
            answer.map(|_ended| Closed::Eof)
        };
        timeout(CLOSE_TIMEOUT, closing).await.map_err(|_| Error::Timeout("end of the connection"))?
    }
}

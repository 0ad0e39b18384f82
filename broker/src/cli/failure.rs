//! How a verb ends that does not end well: an exit code that tells, and words for whoever reads them.
//!
//! | code | what it says |
//! |---|---|
//! | 0 | done |
//! | 1 | the other side said no: an error of a procedure, of a command of `--exec`, of the broker |
//! | 2 | the command makes no sense as it was written |
//! | 3 | no connection could be made |
//! | 4 | the login or the permission was refused |
//! | 5 | not in time |
//! | 6 | the connection was lost, and with it whether it was done |
//! | 130 | interrupted before it was done |

use std::fmt;
use std::process::ExitCode;

use serde_json::{Map, Value};
use tandem_client::{self as client, stomp, wamp};

use crate::cli::carried;

/// What the exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// Whoever reads our output has read enough.
    Quiet = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Refused = 4,
    Timeout = 5,
    Lost = 6,
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code as u8)
    }
}

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    message: String,
    /// What the broker or a callee calls it, and what it says besides.
    uri: Option<String>,
    details: Map<String, Value>,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), uri: None, details: Map::new() }
    }

    pub(super) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Code::Usage, message)
    }

    pub(super) fn interrupted() -> Failure {
        Failure::new(Code::Interrupted, "interrupted")
    }

    /// What could not be connected: whatever took too long or broke off did so before there was a session.
    pub(super) fn while_connecting(mut self, url: &impl fmt::Display) -> Failure {
        if matches!(self.code, Code::Failed | Code::Timeout | Code::Lost) {
            self.code = Code::Unreachable;
        }
        self.message = format!("{url}: {}", self.message);
        self
    }

    /// As a line of JSON.
    pub(super) fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("kind".to_owned(), "error".into());
        object.insert("error".to_owned(), self.uri.clone().into());
        object.insert("message".to_owned(), self.message.clone().into());
        object.extend(self.details.clone());
        object.insert("exit".to_owned(), (self.code as u8).into());
        object.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn code_of_uri(uri: &str) -> Code {
    match uri {
        "wamp.error.not_authorized"
        | "wamp.error.authorization_failed"
        | "wamp.error.authorization_denied"
        | "wamp.error.authorization_required" => Code::Refused,
        "wamp.error.timeout" => Code::Timeout,
        _ => Code::Failed,
    }
}

impl From<wamp::Error> for Failure {
    fn from(error: wamp::Error) -> Failure {
        let message = error.to_string();
        let code = match &error {
            wamp::Error::Application(error) => {
                let (args, kwargs) = carried::arguments(&error.raw().payload);
                let details = [("args", args), ("kwargs", kwargs)];
                return Failure {
                    code: code_of_uri(error.uri()),
                    message,
                    uri: Some(error.uri().to_owned()),
                    details: details.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(),
                };
            }
            wamp::Error::Refused { .. } if error.is_transient() => Code::Lost,
            wamp::Error::Refused { .. } | wamp::Error::Authentication(_) => Code::Refused,
            wamp::Error::ConnectionLost | wamp::Error::Closed => Code::Lost,
            wamp::Error::Address(_) | wamp::Error::Encode(_) => Code::Usage,
            wamp::Error::Timeout(_) => Code::Timeout,
            wamp::Error::Connection(error) => code_of(error),
            _ => Code::Failed,
        };
        Failure { code, message, uri: error.uri().map(str::to_owned), details: Map::new() }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        let mut failure = Failure::new(code_of(&error), error.to_string());
        failure.uri = error.uri().map(str::to_owned);
        if let client::Error::StompError(frame) = &error
            && let body = String::from_utf8_lossy(&frame.body)
            && !body.trim().is_empty()
        {
            failure.message += &format!(": {}", body.trim());
        }
        if let client::Error::StompReply(frame) = &error {
            failure.details.insert("body".to_owned(), carried::body(&frame.headers, &frame.body).1);
        }
        failure
    }
}

fn code_of(error: &client::Error) -> Code {
    use client::Error;
    match error {
        Error::GaveUp(error) => code_of(error),
        Error::Address(_) | Error::Encode(_) | Error::Misuse(_) => Code::Usage,
        Error::Timeout(_) => Code::Timeout,
        Error::ConnectionLost | Error::Disconnected | Error::Closed(_) | Error::Silent => Code::Lost,
        Error::Refused { status: 401 | 403, .. } | Error::Abort(_) => Code::Refused,
        Error::StompError(frame) if is_forbidden(&frame.headers) => Code::Refused,
        Error::StompReply(frame) => code_of_uri(frame.headers.get("error").unwrap_or_default()),
        Error::StompError(_)
        | Error::Reply(_)
        | Error::Decode(_)
        | Error::Settled
        | Error::Goodbye(_)
        | Error::QueueFull
        | Error::OutputFull => Code::Failed,
        _ => Code::Unreachable,
    }
}

/// STOMP has no names for errors: these are the words of Tandem, RabbitMQ and ActiveMQ.
fn is_forbidden(headers: &stomp::Headers) -> bool {
    let message = headers.get("message").unwrap_or_default().to_ascii_lowercase();
    let words =
        ["access_refused", "access refused", "denied", "authoriz", "authenticat", "bad connect", "login"];
    words.iter().any(|word| message.contains(word))
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        let is_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        Failure::new(if is_pipe { Code::Quiet } else { Code::Failed }, error.to_string())
    }
}

//! What goes wrong, and how the peer hears of it: the one place where an error becomes an ERROR frame.
//!
//! Texts that clients match on are those of the language's own list ([`Reason`]); the few that only a
//! broker has are here.

use std::borrow::Cow;

use tandem_protocols::stomp::error::{Reason, Violation};
use tandem_protocols::stomp::frame::{Command, Frame};
use tandem_protocols::stomp::state::SUPPORTED_VERSIONS;

use crate::core::access::Refusal;
use crate::core::access::authorizer::Question;
use crate::core::parcel::Farewell;
use crate::core::protocol::{self, Close};

const LIMIT_REACHED: &str = "Limit reached";
const TOKEN_EXPIRED: &str = "Token expired";
const QUEUE_FULL: &str = "Queue full";
const NOT_STORED: &str = "Not stored";
const OTHER_PROPERTIES: &str = "Other properties";
const NOT_SUPPORTED: &str = "Not supported";
const SHUTTING_DOWN: &str = "broker is shutting down";
const KILLED: &str = "Session killed";
const SLOW_CONSUMER: &str = "Slow consumer";
const CONNECTION_FAILED: &str = "Connection failed";

/// Ends a session: an ERROR, then the end of the wire.
#[derive(Debug)]
pub(super) struct Fault {
    message: &'static str,
    /// For the body. It may quote the peer, hence it stands in no header.
    detail: Cow<'static, str>,
    reason: protocol::Reason,
    lists_versions: bool,
    /// This must be known before it is a fault at all.
    question: Option<Box<Question>>,
}

impl Fault {
    /// The peer broke the language.
    pub(super) fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Fault {
        let close = match reason {
            Reason::FrameTooLarge => protocol::Reason::TooBig,
            Reason::AccessRefused => protocol::Reason::Refused,
            Reason::BadFrame
            | Reason::BadCommand
            | Reason::MissingHeader
            | Reason::InvalidHeader
            | Reason::VersionMismatch
            | Reason::InvalidDestination
            | Reason::NotFound => protocol::Reason::Violation,
        };
        let mut fault = Fault::plain(reason.as_str(), detail, close);
        fault.lists_versions = reason == Reason::VersionMismatch;
        fault
    }

    /// A header asks for something that this broker cannot do.
    pub(super) fn unsupported(name: &str, value: &str) -> Fault {
        let detail = format!("header '{name}' with the value '{value}' is not supported");
        Fault::plain(NOT_SUPPORTED, detail, protocol::Reason::Refused)
    }

    /// The peer wants more of something than it may have.
    pub(super) fn too_many(what: &'static str, limit: usize) -> Fault {
        Refusal::TooMany(what, limit).into()
    }

    /// The wire broke.
    pub(super) fn wire(detail: &str) -> Fault {
        Fault::plain(CONNECTION_FAILED, detail.to_owned(), protocol::Reason::Violation)
    }

    /// A frame did not arrive whole in time.
    pub(super) fn too_slow() -> Fault {
        let detail = "a frame did not arrive whole in time";
        Fault::plain(CONNECTION_FAILED, detail, protocol::Reason::Silent)
    }

    fn plain(message: &'static str, detail: impl Into<Cow<'static, str>>, reason: protocol::Reason) -> Fault {
        Fault { message, detail: detail.into(), reason, lists_versions: false, question: None }
    }

    /// What must be known before it is a fault: then the frame is taken again.
    pub(super) fn take_question(&mut self) -> Option<Box<Question>> {
        self.question.take()
    }

    /// As the peer reads it. `receipt` is what the frame that went wrong had asked for.
    pub(super) fn to_frame(&self, receipt: Option<&str>) -> Frame {
        let mut frame = Frame::new(Command::Error).with("message", self.message);
        if let Some(receipt) = receipt {
            frame = frame.with("receipt-id", receipt);
        }
        if self.lists_versions {
            frame = frame.with("version", SUPPORTED_VERSIONS);
        }
        if self.detail.is_empty() {
            return frame;
        }
        frame.with("content-type", "text/plain").with_body(self.detail.clone().into_owned())
    }

    /// As the operator reads it.
    pub(super) fn into_close(self) -> Close {
        Close::new(self.reason, format!("{}: {}", self.message, self.detail))
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Fault {
        Fault::new(violation.reason, violation.detail)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        let message = match &refusal {
            Refusal::WrongSecret
            | Refusal::NotRenewable(_)
            | Refusal::NotPrivate
            | Refusal::AuthenticationRequired
            | Refusal::AuthenticationFailed
            | Refusal::TooManyFailures(_)
            | Refusal::Reserved(_)
            | Refusal::Forbidden { .. }
            | Refusal::Undecided(_)
            | Refusal::AuthorizationFailed
            | Refusal::DisclosureForbidden
            | Refusal::NotOwner(_)
            | Refusal::InUse(_)
            | Refusal::ProcedureExists(_)
            | Refusal::OtherPolicy(_) => Reason::AccessRefused.as_str(),
            Refusal::NoSuchRealm(_)
            | Refusal::NoSuchProcedure(_)
            | Refusal::Busy(_)
            | Refusal::NotInParts(_)
            | Refusal::Unavailable(_)
            | Refusal::NoSuchSubscription
            | Refusal::HistoryUnavailable
            | Refusal::Revoked
            | Refusal::NoSuchRegistration
            | Refusal::NoSuchQueue(_)
            | Refusal::NoSuchDurable(_)
            | Refusal::NoSuchDelivery => Reason::NotFound.as_str(),
            Refusal::TooMany(..) | Refusal::TooManyPatterns(_) | Refusal::RequestInUse(_) => LIMIT_REACHED,
            Refusal::TokenExpired => TOKEN_EXPIRED,
            Refusal::QueueFull(_) => QUEUE_FULL,
            Refusal::Unstorable(_) => NOT_STORED,
            Refusal::OtherProperties(..) => OTHER_PROPERTIES,
            Refusal::NothingKept(_) => NOT_SUPPORTED,
        };
        let mut fault = Fault::plain(message, refusal.to_string(), protocol::Reason::Refused);
        if let Refusal::Undecided(question) = refusal {
            fault.question = Some(question);
        }
        fault
    }
}

impl From<Farewell> for Fault {
    fn from(farewell: Farewell) -> Fault {
        match farewell {
            Farewell::Shutdown => Fault::plain(SHUTTING_DOWN, "", protocol::Reason::Shutdown),
            Farewell::SlowConsumer => {
                let detail = "messages came faster than they were read";
                Fault::plain(SLOW_CONSUMER, detail, protocol::Reason::SlowConsumer)
            }
            Farewell::Killed(verdict) => {
                let detail = match &verdict.message {
                    Some(message) => format!("{}: {message}", verdict.reason),
                    None => verdict.reason.to_string(),
                };
                Fault::plain(KILLED, detail, protocol::Reason::Refused)
            }
        }
    }
}

//! What can go wrong with a session, a request, or what a stream brings.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use tandem_protocols::payload::{Arguments, Content, Format};
use tandem_protocols::wamp::auth::AuthError;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{self as uri, Misuse};
use tandem_protocols::wamp::message;

use crate::buffer::Gap;
use crate::wamp::value::{self, Raw};

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The router, or the callee behind it, answered with ERROR.
    #[error(transparent)]
    Application(ApplicationError),
    /// The connection was lost before the answer came, or there was none to ask on, nor came one in time. Whether
    /// the request was carried out is not known.
    #[error("the connection was lost")]
    ConnectionLost,
    /// The client was closed, or has given up.
    #[error("the client is closed")]
    Closed,
    /// The router did not let the client in, or ended the session for good.
    #[error("the router refused the session: {uri}{}", in_brackets(.message))]
    Refused {
        /// An error URI.
        uri: String,
        /// For humans; may be empty.
        message: String,
    },
    /// The client and the router could not agree on who the other is.
    #[error("authentication: {0}")]
    Authentication(#[from] AuthError),
    /// What was given is no address.
    #[error("{0}")]
    Address(String),
    /// No connection could be made, or what came over it broke the rules.
    #[error(transparent)]
    Connection(crate::Error),
    /// No answer came in time.
    #[error("no {0} in time")]
    Timeout(&'static str),
    /// A value has no form on the wire, or is no list or dictionary.
    #[error("cannot encode: {0}")]
    Encode(String),
    /// What came is not of the type asked for.
    #[error("cannot decode: {0}")]
    Decode(String),
    /// The router took the subscription or the registration away.
    #[error("the router took it away{}", in_brackets(.0))]
    Revoked(String),
    /// Partial results are missing here, because the stream was full.
    #[error("{} partial results are missing", .0.dropped)]
    Missed(Gap),
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

impl Error {
    /// The URI by which the router or a callee said no.
    pub fn uri(&self) -> Option<&str> {
        match self {
            Self::Application(error) => Some(error.uri()),
            Self::Refused { uri, .. } => Some(uri),
            Self::Authentication(error) => Some(error.uri()),
            _ => None,
        }
    }

    /// What the router or a callee answered.
    pub fn application(&self) -> Option<&ApplicationError> {
        match self {
            Self::Application(error) => Some(error),
            _ => None,
        }
    }

    /// Whether trying again, later and unchanged, may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ConnectionLost | Self::Timeout(_) | Self::Connection(_) => true,
            Self::Refused { uri, .. } => !is_final(uri),
            Self::Application(error) => {
                matches!(error.uri(), uri::UNAVAILABLE | uri::NO_AVAILABLE_CALLEE | uri::TIMEOUT)
            }
            _ => false,
        }
    }

    /// Whether another attempt to connect would come to the same.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Refused { uri, .. } => is_final(uri),
            Self::Connection(crate::Error::Refused { status, .. }) => {
                matches!(status, 400..=499) && *status != 429
            }
            Self::Connection(crate::Error::Unsupported(_)) => true,
            Self::Connection(_) | Self::Timeout(_) | Self::ConnectionLost => false,
            _ => true,
        }
    }

    pub(super) fn reply(error: message::Error) -> Self {
        let raw = Raw { details: error.details, payload: error.payload };
        Self::Application(ApplicationError {
            inner: Box::new(Inner { uri: error.error, raw, failure: None }),
        })
    }

    pub(super) fn refused(reason: String, details: &Dict) -> Self {
        let message = details.str("message").ok().flatten().unwrap_or_default().to_owned();
        Self::Refused { uri: reason, message }
    }
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Encode(why) => Self::Encode(why),
            crate::Error::Decode(why) => Self::Decode(why),
            error => Self::Connection(error),
        }
    }
}

impl From<Misuse> for Error {
    fn from(misuse: Misuse) -> Self {
        Self::Encode(misuse.to_string())
    }
}

impl From<ApplicationError> for Error {
    fn from(error: ApplicationError) -> Self {
        Self::Application(error)
    }
}

/// Whether a session that ended or did not begin for this reason is not to be tried again: who is refused today would
/// be refused tomorrow, and whoever asks again and again is taken for somebody who guesses.
pub(super) fn is_final(reason: &str) -> bool {
    let passing = [uri::UNAVAILABLE, uri::TIMEOUT, uri::NETWORK_FAILURE, uri::CANCELED];
    !(reason.starts_with("wamp.close.")
        || reason == "wamp.error.system_shutdown"
        || passing.contains(&reason))
}

/// An ERROR: a URI, and what goes with it. Callees make them, callers get them.
///
/// ```
/// use tandem_client::wamp::ApplicationError;
///
/// let error = ApplicationError::new("com.example.no_such_account").args(("peter", 5));
/// assert_eq!(error.uri(), "com.example.no_such_account");
/// let (name, number): (String, u8) = error.decode_args()?;
/// assert_eq!((name.as_str(), number), ("peter", 5));
/// # Ok::<(), tandem_client::wamp::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationError {
    // Boxed, since it is in every result of a handler.
    inner: Box<Inner>,
}

#[derive(Clone, Debug, PartialEq)]
struct Inner {
    uri: String,
    raw: Raw,
    /// Why what was given could not be encoded.
    failure: Option<String>,
}

impl ApplicationError {
    /// An error that is called so.
    pub fn new(uri: impl Into<String>) -> Self {
        let none =
            Arguments { format: Format::MsgPack, args: Default::default(), kwargs: Default::default() };
        let raw = Raw { details: Dict::new(), payload: Content::Arguments(none) };
        Self { inner: Box::new(Inner { uri: uri.into(), raw, failure: None }) }
    }

    /// `wamp.error.runtime_error`, with what is wrong in words: for all that has no name of its own.
    pub fn runtime(what: impl fmt::Display) -> Self {
        Self::new(RUNTIME_ERROR).args((what.to_string(),))
    }

    /// `wamp.error.invalid_argument`, with what is wrong in words.
    pub fn invalid_argument(what: impl fmt::Display) -> Self {
        Self::new(uri::INVALID_ARGUMENT).args((what.to_string(),))
    }

    /// With these positional arguments: a tuple or a list.
    #[must_use]
    pub fn args<A: Serialize>(mut self, args: A) -> Self {
        match value::positional(&args) {
            Ok(args) => self.arguments().args = args,
            Err(error) => self.inner.failure = Some(error.to_string()),
        }
        self
    }

    /// With these keyword arguments: a struct or a map.
    #[must_use]
    pub fn kwargs<K: Serialize>(mut self, kwargs: K) -> Self {
        match value::keyword(&kwargs) {
            Ok(kwargs) => self.arguments().kwargs = kwargs,
            Err(error) => self.inner.failure = Some(error.to_string()),
        }
        self
    }

    fn arguments(&mut self) -> &mut Arguments {
        let is_made_here =
            matches!(&self.inner.raw.payload, Content::Arguments(made) if made.format == Format::MsgPack);
        if !is_made_here {
            let none =
                Arguments { format: Format::MsgPack, args: Default::default(), kwargs: Default::default() };
            self.inner.raw.payload = Content::Arguments(none);
        }
        match &mut self.inner.raw.payload {
            Content::Arguments(arguments) => arguments,
            Content::Opaque(_) | Content::Body(_) => unreachable!("it was made arguments just now"),
        }
    }

    /// What it is called.
    pub fn uri(&self) -> &str {
        &self.inner.uri
    }

    /// The positional arguments.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] where they are no `T`.
    pub fn decode_args<T: DeserializeOwned>(&self) -> Result<T, Error> {
        Ok(self.inner.raw.args()?)
    }

    /// The keyword arguments.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] where they are no `T`.
    pub fn decode_kwargs<T: DeserializeOwned>(&self) -> Result<T, Error> {
        Ok(self.inner.raw.kwargs()?)
    }

    /// What it carries, as it came.
    pub fn raw(&self) -> &Raw {
        &self.inner.raw
    }

    /// The first argument where it is a text, which is how most say what is wrong.
    pub fn message(&self) -> Option<String> {
        let args: Vec<serde_json::Value> = self.inner.raw.args().ok()?;
        args.first()?.as_str().map(str::to_owned)
    }

    /// What goes into the ERROR.
    pub(super) fn into_parts(self) -> (String, Content) {
        match self.inner.failure {
            None => (self.inner.uri, self.inner.raw.payload),
            Some(failure) => {
                let failed = Self::runtime(format_args!("{}: its arguments: {failure}", self.inner.uri));
                (failed.inner.uri, failed.inner.raw.payload)
            }
        }
    }
}

impl fmt::Display for ApplicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.uri)?;
        match self.message() {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApplicationError {}

/// So that a handler may end with `?`: what a handler's own requests came to is passed on by its name, and all else is
/// a `wamp.error.runtime_error`.
impl From<Error> for ApplicationError {
    fn from(error: Error) -> Self {
        match error {
            Error::Application(error) => error,
            Error::Decode(why) => Self::invalid_argument(why),
            error => Self::runtime(error),
        }
    }
}

/// Likewise for what a handler reads out of a [`Raw`].
impl From<crate::Error> for ApplicationError {
    fn from(error: crate::Error) -> Self {
        Error::from(error).into()
    }
}

/// What a callee answers that has no better word.
pub(super) const RUNTIME_ERROR: &str = "wamp.error.runtime_error";

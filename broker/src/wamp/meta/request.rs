//! A call of a procedure of the meta API, and its arguments by their meaning.

use std::sync::Arc;

use tandem_protocols::payload::Arguments;
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::INVALID_URI;
use tandem_protocols::wamp::options::MatchPolicy;
use tandem_protocols::wamp::uri::{Rule, is_uri};

use crate::core::access::SessionId;
use crate::core::name::{NAME_BYTES_MAX, Pattern};
use crate::wamp::arguments::{argument, keywords, split};
use crate::wamp::fault::Fault;
use crate::wamp::patterns::pattern;

/// No procedure has more positional arguments.
const ARGUMENTS_MAX: usize = 3;

/// A call.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) caller: SessionId,
    args: Vec<Value>,
    pub(super) kwargs: Dict,
}

impl Request {
    pub(super) fn parse(caller: SessionId, arguments: &Arguments) -> Result<Request, Fault> {
        let args = match arguments.args.is_empty() {
            true => Vec::new(),
            false => split(arguments, ARGUMENTS_MAX)?.0,
        };
        Ok(Request { caller, args, kwargs: keywords(arguments)? })
    }

    /// The argument at this place; null is none.
    pub(super) fn value(&self, place: usize) -> Option<&Value> {
        self.args.get(place).filter(|value| **value != Value::Null)
    }

    /// The number of something.
    pub(super) fn id(&self, place: usize, what: &str) -> Result<u64, Fault> {
        let id = self.value(place).and_then(Value::as_id);
        id.map(|id| id.get()).ok_or_else(|| missing(place, &format!("the number of a {what}")))
    }

    /// The number of a session.
    pub(super) fn session(&self, place: usize) -> Result<SessionId, Fault> {
        self.id(place, "session").map(SessionId)
    }

    pub(super) fn text(&self, place: usize, what: &str) -> Result<&str, Fault> {
        self.value(place).and_then(Value::as_str).ok_or_else(|| missing(place, what))
    }

    /// Texts, if there is such an argument.
    pub(super) fn texts(&self, place: usize, what: &str) -> Result<Option<Vec<&str>>, Fault> {
        let Some(value) = self.value(place) else { return Ok(None) };
        let list = value.as_list().ok_or_else(|| missing(place, what))?;
        let texts = list.iter().map(|text| text.as_str().ok_or_else(|| missing(place, what)));
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// The pattern that the first argument is the spelling of, and the second says the match policy of.
    pub(super) fn pattern(&self) -> Result<Pattern, Fault> {
        let text = self.text(0, "a URI")?;
        let policy = match self.value(1) {
            None => MatchPolicy::Exact,
            Some(Value::Dict(options)) => match options.str("match").map_err(argument)? {
                None => MatchPolicy::Exact,
                Some(word) => MatchPolicy::from_word(word)
                    .ok_or_else(|| Fault::argument("match is exact, prefix or wildcard"))?,
            },
            Some(_) => return Err(missing(1, "a dictionary of options")),
        };
        Ok(pattern(text, policy)?)
    }

    /// Why something is done: the argument at this place, or the keyword, if it was said.
    pub(super) fn reason(&self, place: usize) -> Result<Option<&str>, Fault> {
        let reason = match self.value(place) {
            Some(_) => Some(self.text(place, "a URI")?),
            None => self.kwargs.str("reason").map_err(argument)?,
        };
        let is_good = |reason: &str| reason.len() <= NAME_BYTES_MAX && is_uri(reason, Rule::Loose);
        if reason.is_some_and(|reason| !is_good(reason)) {
            return Err(Fault::Refused(INVALID_URI, "the reason is not a URI".to_owned()));
        }
        Ok(reason)
    }

    /// The same to be passed on, or what stands for it if nothing was said.
    pub(super) fn reason_or(&self, place: usize, default: &str) -> Result<Arc<str>, Fault> {
        Ok(self.reason(place)?.unwrap_or(default).into())
    }
}

fn missing(place: usize, what: &str) -> Fault {
    let place = ["first", "second", "third"].get(place).unwrap_or(&"next");
    Fault::argument(&format!("the {place} argument is {what}"))
}

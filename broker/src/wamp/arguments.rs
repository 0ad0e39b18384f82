//! The arguments of a call of one of the router's own procedures.

use bytes::Bytes;

use tandem_protocols::payload::Arguments;
use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::error::Violation;
use tandem_protocols::wamp::list::{Element, encode_list, split_list};

use crate::wamp::fault::Fault;

/// Inside of a call's arguments, what breaks a rule of the language is an argument that does not suit.
pub(super) fn argument(violation: Violation) -> Fault {
    Fault::argument(violation.message())
}

/// The first arguments, and a list of the others.
pub(super) fn split(arguments: &Arguments, count: usize) -> Result<(Vec<Value>, Bytes), Fault> {
    let split = split_list(arguments.format, &arguments.args, count);
    split.map_err(|violation| Fault::argument(violation.message()))
}

/// The keyword arguments of a call.
pub(super) fn keywords(arguments: &Arguments) -> Result<Dict, Fault> {
    if arguments.kwargs.is_empty() {
        return Ok(Dict::new());
    }
    let alone = encode_list(arguments.format, &[Element::Encoded(&arguments.kwargs)]);
    let first = split_list(arguments.format, &alone, 1);
    let (first, _) = first.map_err(|violation| Fault::argument(violation.message()))?;
    match first.into_iter().next() {
        Some(Value::Dict(keywords)) => Ok(keywords),
        _ => Err(Fault::argument("the keyword arguments are a dictionary")),
    }
}

//! Names that belong to the router and to the house, and which patterns mean them.
//!
//! A pattern reaches into a reserved part of the address space only by saying so: `wamp.` and `wamp..on_join` do,
//! the empty prefix does not. Whoever wants to hear of all that its own kind publishes is not to be told of each
//! session besides; and who registers all that begins with nothing is not to answer in the router's name.

use crate::core::access::{HOUSE_PREFIX, WAMP_PREFIX};
use crate::core::name::Pattern;

/// What a reserved name begins with; `None` for others.
pub fn reserved_prefix(name: &str) -> Option<&'static str> {
    [WAMP_PREFIX, HOUSE_PREFIX].into_iter().find(|prefix| name.starts_with(prefix))
}

/// Whether a name, or all that a pattern spelled so means, is reserved.
pub fn is_reserved(name: &str) -> bool {
    reserved_prefix(name).is_some()
}

/// Whether a pattern that matches a name means it.
pub fn reaches(pattern: &Pattern, name: &str) -> bool {
    reserved_prefix(name).is_none_or(|prefix| pattern.as_str().starts_with(prefix))
}

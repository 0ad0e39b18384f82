//! Lists of what there is, as answers of the meta API.
//!
//! A realm may have a million sessions, and an answer is one message. A list that is longer than [`LIST_MAX`] is
//! refused rather than cut: half of a list looks like all of it.

use tandem_protocols::wamp::dict::{Dict, Value};
use tandem_protocols::wamp::options::MatchPolicy;

use crate::core::name::Pattern;
use crate::wamp::fault::{Fault, LIMIT_REACHED};
use crate::wamp::meta::request::Request;
use crate::wamp::patterns::{TAIL, policy_word};

/// How many numbers one answer may hold. They fit into a message of 1 MiB, and below what a payload may hold that is
/// converted to another encoding.
pub(super) const LIST_MAX: usize = 50_000;

/// How many of the worst one answer tells of.
pub(super) const WORST_MAX: u64 = 1000;

/// How many of the worst are asked for: the first argument.
pub(super) fn worst_wanted(request: &Request) -> Result<usize, Fault> {
    let wanted = match request.value(0) {
        None => WORST_MAX,
        Some(value) => {
            let count = value.as_int().and_then(|count| u64::try_from(count).ok());
            count.ok_or_else(|| Fault::argument("the first argument is how many are wanted"))?
        }
    };
    Ok(usize::try_from(wanted.min(WORST_MAX)).unwrap_or(usize::MAX))
}

/// Refuses a list that is too long, and says what there is instead.
pub(super) fn within_limit<T>(list: Vec<T>, what: &str, instead: &str) -> Result<Vec<T>, Fault> {
    if list.len() <= LIST_MAX { Ok(list) } else { Err(too_many(what, instead)) }
}

/// The refusal of such a list.
pub(super) fn too_many(what: &str, instead: &str) -> Fault {
    let sentence = format!("there are more {what} than the {LIST_MAX} that one answer holds; {instead}");
    Fault::Refused(LIMIT_REACHED, sentence)
}

/// Numbers by the match policy of their patterns. Those that the language has no policy for are under a name of ours,
/// where there are any.
pub(super) fn by_policy(list: impl IntoIterator<Item = (u64, Pattern)>) -> Value {
    let words = [MatchPolicy::Exact, MatchPolicy::Prefix, MatchPolicy::Wildcard].map(MatchPolicy::as_str);
    let mut lists = [words[0], words[1], words[2], TAIL].map(|word| (word, Vec::new()));
    for (id, pattern) in list {
        let word = policy_word(&pattern);
        if let Some((_, ids)) = lists.iter_mut().find(|(known, _)| *known == word) {
            ids.push(Value::from(id));
        }
    }
    let mut dict = Dict::new();
    for (word, ids) in lists {
        if word != TAIL || !ids.is_empty() {
            dict.insert(word, ids);
        }
    }
    dict.into()
}

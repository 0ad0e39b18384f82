//! LIKE: `%` is any number of characters, `_` one, and an escape character makes either itself.
//!
//! Matched in one pass over the text, all places of the pattern at once: bit n of the state says that the first
//! n characters of the pattern are matched.

use std::collections::HashMap;

use crate::stomp::selector::LIKE_LENGTH_MAX;

#[derive(Clone, Debug)]
pub(super) struct Like {
    /// By character of the text, the places that it may stand at.
    places: HashMap<char, u128>,
    /// The places that are `_`.
    anywhere: u128,
    /// The places before which a `%` stands.
    loops: u128,
    length: u32,
}

const _: () = assert!(LIKE_LENGTH_MAX < u128::BITS as usize);

impl Like {
    pub(super) fn parse(pattern: &str, escape: Option<char>) -> Result<Like, String> {
        let mut like = Like { places: HashMap::new(), anywhere: 0, loops: 0, length: 0 };
        let mut rest = pattern.chars();
        while let Some(c) = rest.next() {
            if c == '%' && escape != Some('%') {
                like.loops |= 1 << like.length;
                continue;
            }
            if like.length as usize == LIKE_LENGTH_MAX {
                return Err(format!("a pattern may have no more than {LIKE_LENGTH_MAX} characters beside %"));
            }
            let place = 1 << like.length;
            like.length += 1;
            if escape == Some(c) {
                let literal = rest.next().ok_or("the pattern ends with its escape character")?;
                *like.places.entry(literal).or_default() |= place;
            } else if c == '_' {
                like.anywhere |= place;
            } else {
                *like.places.entry(c).or_default() |= place;
            }
        }
        Ok(like)
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let mut state: u128 = 1;
        for c in text.chars() {
            let allowed = self.anywhere | self.places.get(&c).copied().unwrap_or_default();
            state = ((state & allowed) << 1) | (state & self.loops);
            if state == 0 {
                return false;
            }
        }
        state & (1 << self.length) != 0
    }
}

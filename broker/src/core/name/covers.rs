//! Whether one pattern means everything that another one means.
//!
//! It is asked of permissions: who may subscribe to `a.` and all that begins so may subscribe to `a.b..d`. What
//! the limits of names imply (that nothing follows a 64th component) is not used: then the answer is no, which
//! is the safe one.

use super::{Form, Parts, Pattern};

impl Pattern {
    /// Whether every name that `other` means is one that this pattern means.
    ///
    /// ```
    /// use tandem_broker::core::name::{InvalidName, Pattern};
    ///
    /// let tail = Pattern::components([Some("a"), None], true)?;
    /// assert!(Pattern::prefix("a.")?.covers(&tail));
    /// assert!(!Pattern::prefix("a.b")?.covers(&tail));
    /// assert!(!Pattern::wildcard("a.")?.covers(&tail), "the tail goes deeper");
    /// # Ok::<(), InvalidName>(())
    /// ```
    #[must_use]
    pub fn covers(&self, other: &Pattern) -> bool {
        match (&self.0, &other.0) {
            (_, Form::Exact(name)) => self.matches(name.as_str()),
            // Of the others only components without hole and tail mean a single name.
            (Form::Exact(name), Form::Components(parts)) => {
                parts.holes() == 0 && !parts.has_tail() && name.as_str() == &*parts.0
            }
            (Form::Exact(_), Form::Prefix(_)) => false,
            (Form::Prefix(text), Form::Prefix(longer)) => longer.starts_with(&**text),
            (Form::Prefix(text), Form::Components(parts)) => parts.beginning().starts_with(&**text),
            (Form::Components(parts), Form::Prefix(text)) => parts.cover_prefix(text),
            (Form::Components(parts), Form::Components(others)) => parts.cover(others),
        }
    }

    /// Whether there may be a name that both mean. No is certain; yes is not: two that begin alike are taken to meet.
    #[must_use]
    pub fn may_meet(&self, other: &Pattern) -> bool {
        if let Some(name) = self.name() {
            return other.matches(name.as_str());
        }
        if let Some(name) = other.name() {
            return self.matches(name.as_str());
        }
        let (own, others) = (self.beginning(), other.beginning());
        own.starts_with(&others) || others.starts_with(&own)
    }

    /// What all its names begin with.
    fn beginning(&self) -> String {
        match &self.0 {
            Form::Exact(name) => name.as_str().to_owned(),
            Form::Prefix(text) => text.to_string(),
            Form::Components(parts) => parts.beginning(),
        }
    }
}

impl Parts {
    /// What all names begin with that have these parts.
    fn beginning(&self) -> String {
        let literals: Vec<&str> = self.iter().map_while(|part| part).collect();
        let mut text = literals.join(".");
        if literals.len() < self.iter().count() && !literals.is_empty() {
            // A hole follows: something stands there.
            text.push('.');
        }
        text
    }

    /// Names that begin so may have any number of components, and the last one of `text` may go on.
    fn cover_prefix(&self, text: &str) -> bool {
        let given: Vec<&str> = text.split('.').collect();
        let (_, whole) = given.split_last().unwrap_or((&"", &[]));
        let is_met = |(place, part): (usize, Option<&str>)| match part {
            None => place < given.len(),
            Some(part) => whole.get(place).is_some_and(|component| *component == part),
        };
        self.has_tail() && self.iter().enumerate().all(is_met)
    }

    fn cover(&self, others: &Parts) -> bool {
        let given: Vec<Option<&str>> = others.iter().collect();
        let count = self.iter().count();
        let reaches = match (self.has_tail(), others.has_tail()) {
            // No name has fewer than one component.
            (true, _) => count <= given.len().max(1),
            (false, false) => count == given.len(),
            (false, true) => false,
        };
        let is_met = |(place, part): (usize, Option<&str>)| {
            part.is_none_or(|part| given.get(place).is_some_and(|component| *component == Some(part)))
        };
        reaches && self.iter().enumerate().all(is_met)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::name::Name;

    /// All names of up to three components of up to three letters `a` and `b`.
    fn universe() -> Vec<String> {
        let mut components = vec![String::new()];
        for length in 0..3 {
            let longest: Vec<String> = components.iter().filter(|c| c.len() == length).cloned().collect();
            components.extend(longest.iter().flat_map(|c| [format!("{c}a"), format!("{c}b")]));
        }
        components.remove(0);
        let mut names = components.clone();
        let mut deepest = components.clone();
        for _ in 0..2 {
            deepest =
                deepest.iter().flat_map(|n| components.iter().map(move |c| format!("{n}.{c}"))).collect();
            names.extend(deepest.iter().cloned());
        }
        names
    }

    /// Patterns that are short enough for a name of the universe to tell any two of them apart.
    fn pattern() -> impl Strategy<Value = Pattern> {
        let part = prop_oneof![Just(None), "[ab]{1,2}".prop_map(Some)];
        prop_oneof![
            "[ab]{1,2}(\\.[ab]{1,2}){0,1}".prop_map(|text| Pattern::exact(Name::parse(&text).unwrap())),
            "([ab]{1,2}(\\.[ab]{0,2})?)?".prop_map(|text| Pattern::prefix(&text).unwrap()),
            (prop::collection::vec(part, 0..=2), any::<bool>()).prop_map(|(parts, tail)| {
                let tail = tail || parts.is_empty();
                Pattern::components(parts.iter().map(|part| part.as_deref()), tail).unwrap()
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn a_pattern_covers_another_where_it_means_all_of_its_names(wide in pattern(), narrow in pattern()) {
            thread_local! { static NAMES: Vec<String> = universe(); }
            let all = NAMES.with(|names| {
                names.iter().filter(|name| narrow.matches(name)).all(|name| wide.matches(name))
            });
            prop_assert_eq!(wide.covers(&narrow), all, "{} and {}", wide, narrow);
        }

        #[test]
        fn patterns_that_mean_the_same_name_may_meet(one in pattern(), other in pattern()) {
            thread_local! { static NAMES: Vec<String> = universe(); }
            let meet = NAMES.with(|names| names.iter().any(|name| one.matches(name) && other.matches(name)));
            prop_assert!(one.may_meet(&other) || !meet, "{} and {}", one, other);
        }
    }

    #[test]
    fn patterns_that_begin_otherwise_do_not_meet() {
        let (news, prices) = (Pattern::prefix("news.").unwrap(), Pattern::wildcard("prices.").unwrap());
        assert!(!news.may_meet(&prices) && !prices.may_meet(&news));
        assert!(news.may_meet(&Pattern::prefix("new").unwrap()));
        assert!(!news.may_meet(&Pattern::exact(Name::parse("news").unwrap())));
    }

    #[test]
    fn a_pattern_covers_itself_and_everything_is_covered_by_everything() {
        let all = [
            Pattern::prefix("").unwrap(),
            Pattern::components([], true).unwrap(),
            Pattern::components([None], true).unwrap(),
        ];
        let some = [
            Pattern::exact(Name::parse("a.b").unwrap()),
            Pattern::prefix("a.").unwrap(),
            Pattern::wildcard(".").unwrap(),
            Pattern::wildcard("a.b").unwrap(),
            Pattern::components([Some("a")], true).unwrap(),
        ];
        for pattern in all.iter().chain(&some) {
            assert!(pattern.covers(pattern), "{pattern}");
            assert!(all.iter().all(|wide| wide.covers(pattern)), "{pattern}");
        }
        for wide in &some {
            assert!(all.iter().all(|everything| !wide.covers(everything)), "{wide}");
        }
    }

    #[test]
    fn stars_are_letters_like_others() {
        let star = Pattern::exact(Name::parse("a.*").unwrap());
        assert!(!star.covers(&Pattern::wildcard("a.").unwrap()));
        assert!(!Pattern::wildcard("a.*").unwrap().covers(&Pattern::wildcard("a.").unwrap()));
        assert!(Pattern::wildcard("a.").unwrap().covers(&star));
    }
}

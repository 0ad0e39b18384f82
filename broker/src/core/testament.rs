//! What a session wants to be published when it ends, however it ends.
//!
//! WAMP knows two ends: the session loses its connection, and it ceases to exist. Here both are one moment, as
//! nobody can come back to a session; the two are kept apart all the same, because each can be flushed alone.

use crate::core::access::Refusal;
use crate::core::message::Outgoing;
use crate::core::topics::PublishTerms;

/// How many testaments a session may have.
pub const TESTAMENTS_MAX: usize = 16;

/// How large each of them may be.
pub const TESTAMENT_BYTES_MAX: usize = 64 * 1024;

/// Which end of a session a testament is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It loses its connection. This comes first.
    Detached,
    /// It ceases to exist.
    Destroyed,
}

/// The testaments of a session.
#[derive(Debug, Default)]
pub struct Testaments {
    all: Vec<(Scope, Outgoing, PublishTerms)>,
}

impl Testaments {
    /// Adds one, after all of its scope.
    pub fn add(&mut self, scope: Scope, outgoing: Outgoing, terms: PublishTerms) -> Result<(), Refusal> {
        if self.all.len() >= TESTAMENTS_MAX {
            return Err(Refusal::TooMany("testaments of a session", TESTAMENTS_MAX));
        }
        let Outgoing { name, payload, attributes } = &outgoing;
        let lists = terms.eligibility.as_ref().map_or(0, |eligibility| eligibility.bytes());
        if name.as_str().len() + payload.len() + attributes.bytes() + lists > TESTAMENT_BYTES_MAX {
            return Err(Refusal::TooMany("bytes of a testament", TESTAMENT_BYTES_MAX));
        }
        self.all.push((scope, outgoing, terms));
        Ok(())
    }

    /// Forgets those of a scope.
    pub fn flush(&mut self, scope: Scope) {
        self.all.retain(|(known, ..)| *known != scope);
    }

    /// In the order in which they are to be published.
    pub fn into_order(self) -> impl Iterator<Item = (Outgoing, PublishTerms)> {
        let (detached, destroyed): (Vec<_>, Vec<_>) =
            self.all.into_iter().partition(|(scope, ..)| *scope == Scope::Detached);
        detached.into_iter().chain(destroyed).map(|(_, outgoing, terms)| (outgoing, terms))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use tandem_protocols::payload::{Content, Payload};

    use super::*;
    use crate::core::message::Attributes;
    use crate::core::testing::name;

    fn to(topic: &str, bytes: usize) -> Outgoing {
        let payload = Payload::new(Content::Opaque(Bytes::from(vec![0; bytes])));
        Outgoing { name: name(topic), payload, attributes: Attributes::default() }
    }

    fn add(testaments: &mut Testaments, scope: Scope, topic: &str, bytes: usize) -> Result<(), Refusal> {
        testaments.add(scope, to(topic, bytes), PublishTerms::default())
    }

    #[test]
    fn the_detached_come_first_and_each_scope_in_its_order_and_is_flushed_alone() {
        let filled = || {
            let mut all = Testaments::default();
            for (scope, topic) in [
                (Scope::Destroyed, "a"),
                (Scope::Detached, "b"),
                (Scope::Destroyed, "c"),
                (Scope::Detached, "d"),
            ] {
                add(&mut all, scope, topic, 1).unwrap();
            }
            all
        };
        let order = |all: Testaments| {
            all.into_order().map(|(outgoing, _)| outgoing.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(filled()), "b d a c");
        for (scope, left) in [(Scope::Detached, "a c"), (Scope::Destroyed, "b d")] {
            let mut all = filled();
            all.flush(scope);
            assert_eq!(order(all), left);
        }
    }

    #[test]
    fn they_are_limited_in_number_and_in_bytes() {
        let mut all = Testaments::default();
        let refused = add(&mut all, Scope::Detached, "a", TESTAMENT_BYTES_MAX);
        assert_eq!(refused, Err(Refusal::TooMany("bytes of a testament", TESTAMENT_BYTES_MAX)));
        for scope in [Scope::Detached, Scope::Destroyed].into_iter().cycle().take(TESTAMENTS_MAX) {
            add(&mut all, scope, "a", TESTAMENT_BYTES_MAX - 1).unwrap();
        }
        let refused = add(&mut all, Scope::Detached, "a", 1);
        assert_eq!(refused, Err(Refusal::TooMany("testaments of a session", TESTAMENTS_MAX)));
        all.flush(Scope::Detached);
        add(&mut all, Scope::Detached, "a", 1).unwrap();
    }
}

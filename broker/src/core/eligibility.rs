//! Who may get a publication, of those that subscribed to it: WAMP's black and white lists, and its shards.
//!
//! A publisher that narrows nothing has no [`Eligibility`], and costs the fan-out nothing. The lists are sorted
//! when they are made: what a receiver costs grows with the logarithm of their length.

use serde::{Deserialize, Serialize};

use crate::core::access::{Principal, SessionId};
use crate::core::shard::ShardKey;

/// The lists of a publication. A receiver must pass all six, and be the one of the shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Eligibility {
    /// By session.
    pub sessions: Lists<SessionId>,
    /// By user.
    pub ids: Lists<Box<str>>,
    /// By role.
    pub roles: Lists<Box<str>>,
    /// Of the receivers of a subscription that share its shards, only the one gets it that this belongs to.
    pub shard: Option<ShardKey>,
}

/// Who is kept out and, if not everybody else, who is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lists<T> {
    excluded: Box<[T]>,
    eligible: Option<Box<[T]>>,
}

impl<T> Default for Lists<T> {
    fn default() -> Lists<T> {
        Lists { excluded: Box::default(), eligible: None }
    }
}

impl<T: Ord> Lists<T> {
    /// Keeps out all in `excluded`; with `eligible`, lets in only those, and nobody if it is empty.
    pub fn new(mut excluded: Vec<T>, eligible: Option<Vec<T>>) -> Lists<T> {
        excluded.sort_unstable();
        let sorted = |mut list: Vec<T>| {
            list.sort_unstable();
            list.into_boxed_slice()
        };
        Lists { excluded: excluded.into(), eligible: eligible.map(sorted) }
    }

    /// True when nobody is kept out.
    pub fn is_empty(&self) -> bool {
        self.excluded.is_empty() && self.eligible.is_none()
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.excluded.iter().chain(self.eligible.iter().flatten())
    }

    fn admits(&self, compare: impl Fn(&T) -> std::cmp::Ordering) -> bool {
        let has = |list: &[T]| list.binary_search_by(&compare).is_ok();
        !has(&self.excluded) && self.eligible.as_deref().is_none_or(has)
    }
}

impl Eligibility {
    /// True when nobody is kept out.
    pub fn is_empty(&self) -> bool {
        let Eligibility { sessions, ids, roles, shard } = self;
        sessions.is_empty() && ids.is_empty() && roles.is_empty() && shard.is_none()
    }

    /// Whether a session may get the publication, as far as the lists go.
    pub fn admits(&self, session: SessionId, who: &Principal) -> bool {
        self.sessions.admits(|listed| listed.cmp(&session)) && self.admits_principal(who)
    }

    /// The same by what outlives a session.
    pub fn admits_principal(&self, who: &Principal) -> bool {
        self.ids.admits(|listed| (**listed).cmp(&who.id))
            && self.roles.admits(|listed| (**listed).cmp(&who.role))
    }

    /// The bytes that the lists hold, for accounting.
    pub fn bytes(&self) -> usize {
        let texts = self.ids.all().chain(self.roles.all());
        let sessions = self.sessions.all().count() * size_of::<SessionId>();
        size_of::<Eligibility>()
            + sessions
            + texts.map(|text| text.len() + size_of::<Box<str>>()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(id: &str, role: &str) -> Principal {
        Principal::new(id, role, "test")
    }

    fn texts(list: &[&str]) -> Vec<Box<str>> {
        list.iter().map(|text| Box::from(*text)).collect()
    }

    fn sessions(list: &[u64]) -> Vec<SessionId> {
        list.iter().copied().map(SessionId).collect()
    }

    #[test]
    fn a_receiver_must_pass_all_six_lists() {
        let all = Eligibility {
            sessions: Lists::new(sessions(&[9, 7]), Some(sessions(&[3, 1, 2, 9]))),
            ids: Lists::new(texts(&["eve"]), Some(texts(&["joe", "eve", "ann"]))),
            roles: Lists::new(texts(&["guest"]), Some(texts(&["user", "guest"]))),
            shard: None,
        };
        assert!(
            all.admits(SessionId(1), &who("joe", "user")) && all.admits(SessionId(3), &who("ann", "user"))
        );
        for (session, id, role) in [
            (9, "joe", "user"),
            (4, "joe", "user"),
            (1, "eve", "user"),
            (1, "bob", "user"),
            (1, "joe", "guest"),
            (1, "joe", "admin"),
        ] {
            assert!(!all.admits(SessionId(session), &who(id, role)), "{session} {id} {role}");
        }
    }

    #[test]
    fn an_empty_list_of_the_eligible_is_nobody_and_one_of_the_excluded_nothing() {
        let joe = who("joe", "user");
        let nobody = Eligibility { ids: Lists::new(Vec::new(), Some(Vec::new())), ..Eligibility::default() };
        assert!(!nobody.is_empty() && !nobody.admits(SessionId(1), &joe));
        let everybody = Eligibility { sessions: Lists::new(Vec::new(), None), ..Eligibility::default() };
        assert!(everybody.is_empty() && everybody.admits(SessionId(1), &joe));
    }

    #[test]
    fn names_are_compared_whole_and_as_they_are() {
        let list = Lists::new(texts(&["a*", "a", "a.b"]), None);
        let only = Eligibility { ids: list, ..Eligibility::default() };
        for (id, admitted) in [("a", false), ("a*", false), ("ab", true), ("A", true), ("", true)] {
            assert_eq!(only.admits(SessionId(1), &who(id, "r")), admitted, "{id}");
        }
    }
}

//! What topics keep, as a store has it: how a shelf is marked, and a publication with its topic, its time and whom it
//! is kept from, as bytes.
//!
//! A shelf is a queue of the store whose properties say what it is for. Who may get what lies on it is decided when it
//! is delivered, hence not written; the lists of its publisher are part of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::core::eligibility::Eligibility;
use crate::core::message::Publication;
use crate::core::name::{MatchKind, Name, Pattern};
use crate::core::store::Properties;
use crate::core::store::record;

/// The property that a queue of topics has, and no other.
const SHELF: &str = "shelf";

/// Whether these are the properties of a shelf.
pub fn is_shelf(properties: &[(String, String)]) -> bool {
    properties.iter().any(|(key, _)| key == SHELF)
}

/// The properties of the shelf of retained messages. There is one for a realm.
pub fn retained() -> Properties {
    vec![(SHELF.into(), "retained".into())]
}

/// The properties of the shelf of a history. There is one for a pattern of a realm.
pub fn history(pattern: &Pattern) -> Properties {
    let kind = match pattern.kind() {
        MatchKind::Exact => "exact",
        MatchKind::Prefix => "prefix",
        MatchKind::Components => "components",
    };
    let pairs = [(SHELF, "history"), ("match", kind), ("pattern", pattern.as_str())];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()
}

/// A map, as records of queues are: what a later version adds is passed over.
#[derive(Serialize, Deserialize)]
struct Kept {
    topic: Box<str>,
    #[serde(default)]
    at_ms: u64,
    /// As queues have it.
    record: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eligibility: Option<Eligibility>,
}

/// The publication as bytes, and when it was.
pub fn encode(publication: &Publication, at_ms: u64) -> Bytes {
    let kept = Kept {
        topic: publication.name.as_str().into(),
        at_ms,
        record: record::encode(publication),
        eligibility: publication.eligibility.as_deref().cloned(),
    };
    rmp_serde::to_vec_named(&kept).expect("memory takes what is written, and all parts have a form").into()
}

/// The publication that these bytes were made of, and when it was. `None` if they are none.
pub fn decode(bytes: &[u8]) -> Option<(Publication, u64)> {
    let Kept { topic, at_ms, record, eligibility } = rmp_serde::from_slice(bytes).ok()?;
    let publication = record::decode(&Name::parse(&topic).ok()?, &record)?;
    Some((Publication { eligibility: eligibility.map(Into::into), ..publication }, at_ms))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::access::SessionId;
    use crate::core::eligibility::Lists;
    use crate::core::shard::ShardKey;
    use crate::core::testing::{exact, principal, publication};

    #[test]
    fn a_publication_comes_back_with_its_topic_its_time_and_its_lists() {
        let eligibility = Eligibility {
            sessions: Lists::new(vec![SessionId(9)], Some(vec![SessionId(3), SessionId(1)])),
            ids: Lists::new(vec!["eve".into()], None),
            roles: Lists::new(Vec::new(), Some(vec!["user".into()])),
            shard: Some(ShardKey::of(b"key")),
        };
        let plain = publication("a.b", 7).uncharged();
        let narrow = Publication { eligibility: Some(Arc::new(eligibility)), ..plain.uncharged() };
        let disclosed =
            Publication { disclosed: Some(Arc::new(principal("joe", "user"))), ..plain.uncharged() };
        for before in [plain, narrow, disclosed] {
            let (after, at_ms) = decode(&encode(&before, 1234)).unwrap();
            assert_eq!(
                (after.id, &after.name, after.publisher, at_ms),
                (7, &before.name, before.publisher, 1234)
            );
            assert_eq!(after.eligibility, before.eligibility);
            assert_eq!(
                after.disclosed.map(|who| who.id.clone()),
                before.disclosed.as_ref().map(|who| who.id.clone())
            );
            assert_eq!(after.payload.content(), before.payload.content());
        }
    }

    #[test]
    fn what_is_no_publication_is_none() {
        let whole = encode(&publication("a.b", 7), 1);
        assert!((0..whole.len()).all(|end| decode(&whole[..end]).is_none()));
    }

    #[test]
    fn shelves_are_told_from_queues_and_from_each_other() {
        let shelves = [
            retained(),
            history(&exact("a")),
            history(&exact("b")),
            history(&Pattern::prefix("a").unwrap()),
            history(&Pattern::wildcard("a.").unwrap()),
        ];
        for (number, shelf) in shelves.iter().enumerate() {
            assert!(is_shelf(shelf) && !shelves[..number].contains(shelf));
        }
        assert!(!is_shelf(&[("x".to_owned(), "shelf".to_owned())]));
    }
}

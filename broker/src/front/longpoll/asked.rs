//! The paths of long-polling, and what it is told.

use std::time::Duration;

use crate::front::longpoll::lanes::LaneId;

/// What long-polling is told.
#[derive(Clone, Debug)]
pub struct LongPollSettings {
    /// What the paths begin with, without a slash at the end.
    pub path: String,
    /// How long a receive is held open.
    pub receive_time_max: Duration,
    /// How long a session lives without a receive.
    pub silent_time_max: Duration,
}

/// What is asked of long-polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To open a transport.
    Open,
    /// Something of a transport.
    Of(Option<LaneId>, Verb),
    /// Nothing that there is.
    Nothing,
}

/// What is asked of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The next message.
    Receive,
    /// To take a message.
    Send,
    /// To end.
    Close,
}

impl LongPollSettings {
    /// What a path asks for; none if it is not of long-polling.
    pub fn asked(&self, path: &str) -> Option<Asked> {
        let rest = path.strip_prefix(&*self.path)?.strip_prefix('/')?;
        let verb = |verb| match verb {
            "receive" => Some(Verb::Receive),
            "send" => Some(Verb::Send),
            "close" => Some(Verb::Close),
            _ => None,
        };
        Some(match rest.split_once('/') {
            None if rest == "open" => Asked::Open,
            Some((id, rest)) => verb(rest).map_or(Asked::Nothing, |verb| Asked::Of(LaneId::parse(id), verb)),
            None => Asked::Nothing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_the_base_asks_for_something_and_no_other_does() {
        let settings = LongPollSettings {
            path: "/lp".into(),
            receive_time_max: Duration::ZERO,
            silent_time_max: Duration::ZERO,
        };
        let id = "0".repeat(32);
        let known = LaneId::parse(&id);
        let table = [
            ("/lp/open".to_owned(), Some(Asked::Open)),
            (format!("/lp/{id}/receive"), Some(Asked::Of(known, Verb::Receive))),
            (format!("/lp/{id}/send"), Some(Asked::Of(known, Verb::Send))),
            (format!("/lp/{id}/close"), Some(Asked::Of(known, Verb::Close))),
            ("/lp/x/close".to_owned(), Some(Asked::Of(None, Verb::Close))),
            (format!("/lp/{id}"), Some(Asked::Nothing)),
            (format!("/lp/{id}/send/"), Some(Asked::Nothing)),
            ("/lp/open/".to_owned(), Some(Asked::Nothing)),
            ("/lp/".to_owned(), Some(Asked::Nothing)),
            ("/lp".to_owned(), None),
            ("/lpopen".to_owned(), None),
            ("/open".to_owned(), None),
        ];
        for (path, asked) in table {
            assert_eq!(settings.asked(&path), asked, "{path}");
        }
    }
}

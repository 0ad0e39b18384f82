//! Why somebody new is not taken in, and what they are told.

use crate::front::answer::{Answer, last, later};
use crate::front::readiness::Unready;

/// Why somebody is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwelcome {
    /// The broker wants nobody new.
    Unready(Unready),
    /// There are as many connections as there may be.
    Full,
    /// So there are of their address.
    Address,
    /// Too many wait to be let in, here or at their address.
    Strangers,
    /// Nobody speaks what was agreed on: a mistake of ours.
    NoLanguage,
}

impl Unwelcome {
    /// In a line.
    pub fn line(self) -> &'static str {
        match self {
            Unwelcome::Unready(reason) => reason.line(),
            Unwelcome::Full => "too many connections\n",
            Unwelcome::Address => "too many connections from this address\n",
            Unwelcome::Strangers => "too many wait to be let in\n",
            Unwelcome::NoLanguage => "no language is spoken here\n",
        }
    }

    /// Over HTTP.
    pub fn answer(self) -> Answer {
        last(later(self.line()))
    }
}

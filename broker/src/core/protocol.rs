//! The seam between a language and everything around it.
//!
//! A [`Session`] is told what happens (a message, a parcel, the passing of time) and asked, until it has
//! nothing more to say, what is to be done. It waits for nothing: all awaiting is in the pump, which moves
//! messages between a wire, a session and an inbox.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::core::access::authorizer::Inquiry;
use crate::core::access::{Applicant, Credentials, Peer, Presented};
use crate::core::mailbox::Mailbox;
use crate::core::message::{Frame, Kind, SharedMessages};
use crate::core::parcel::Parcel;
use crate::core::spare::Spare;

/// A language.
pub trait Protocol: Send + Sync {
    /// The subprotocols that it is spoken under over WebSocket.
    fn tokens(&self) -> &'static [&'static str];

    /// Whether a stream that begins so is of this language; the token is then the one to open it with.
    fn recognize(&self, _first: &[u8]) -> Recognition {
        Recognition::No
    }

    /// The token for a serializer of a RawSocket handshake.
    fn rawsocket(&self, _serializer: u8) -> Option<&'static str> {
        None
    }

    /// Whether a token is of this language.
    fn speaks(&self, token: &str) -> bool {
        self.tokens().contains(&token)
    }

    /// A session with a peer that speaks under `token`.
    fn open(&self, token: &'static str, peer: &Peer, mailbox: Mailbox, now: Instant) -> Box<dyn Session>;
}

/// Whether a stream is of a language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// It is not.
    No,
    /// More of it must be seen.
    Maybe,
    /// It is: open it with this token.
    Yes(&'static str),
}

/// A conversation with one peer. After each call but [`Session::deadline`], poll until `None`.
pub trait Session: Send {
    /// The wire takes no longer messages to the peer than of so many bytes. Said first of all, if ever.
    fn limit_messages(&mut self, _bytes_max: usize) {}

    /// The wire's opening handshake said this of who the peer is. Said before anything is received, if ever.
    fn introduce(&mut self, _presented: Presented) {}

    /// The peer sent this.
    fn receive(&mut self, kind: Kind, bytes: Bytes, now: Instant);

    /// The same where the message, if text then UTF-8, lies in what the pump has read. True where it was taken, and nothing
    /// is to be done for it; false where nothing came of it yet, and the session is to receive it as its own.
    fn receive_in_place(&mut self, _kind: Kind, _octets: &[u8], _now: Instant) -> bool {
        false
    }

    /// Takes the next of several messages that were received as one; false when all were taken. They are not
    /// taken at once, so that the pump may stop where the peer is to read first.
    fn proceed(&mut self, _now: Instant) -> bool {
        false
    }

    /// Nothing more comes of what was read together: what the session gathered of it goes on its way. Only said by a pump
    /// that takes in under a [`Batch`](crate::core::mailbox::Batch), without which nothing is gathered.
    fn conclude(&mut self) {}

    /// The house has this for the peer.
    fn deliver(&mut self, parcel: Parcel, now: Instant);

    /// Time passed.
    fn tick(&mut self, now: Instant);

    /// The pump does not read from the peer at the moment: its silence means nothing.
    fn pause(&mut self, now: Instant);

    /// When it wants to hear that time passed.
    fn deadline(&self) -> Option<Instant>;

    /// What is to be done next.
    fn poll(&mut self) -> Option<Output>;

    /// There is nothing to do at the moment: what only work needs is given back. An idle session holds no memory for it.
    fn rest(&mut self) {}

    /// The wire cannot go on: what the peer sent breaks the wire's own rules. A session that has a way to
    /// say so in its language does; the pump closes the wire in any case.
    fn fail(&mut self, reason: &str, now: Instant);

    /// True once the peer is let in: from then on the limits of the configuration hold, and not the
    /// tighter ones for strangers.
    fn is_established(&self) -> bool;

    /// True while the pump should not read from the peer, because the realm has too much on its way.
    /// `waker` is woken when that ends.
    fn is_congested(&self, waker: &Waker) -> bool;

    /// Until when the pump should not read from the peer, because those that it publishes to do not keep up; no longer than
    /// `time_max`. `waker` is woken when that ends before.
    fn paced_until(&self, _waker: &Waker, _now: Instant, _time_max: Duration) -> Option<Instant> {
        None
    }
}

/// What a session wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this to the peer.
    Send(Frame),
    /// Send all of these to the peer.
    SendAll(Arc<SharedMessages>),
    /// Find out whether the peer is who it says; the answer comes as [`Parcel::Authenticated`].
    Authenticate(Box<Credentials>),
    /// Find out what is kept of a user; the answer comes as [`Parcel::LookedUp`].
    LookUp(Box<Applicant>),
    /// Wait for this answer, which comes as [`Parcel::Authorized`]. The peer is not read meanwhile.
    Authorize(Inquiry),
    /// Close the wire, after everything before was sent.
    Close(Close),
}

/// What a session wants done, in order. While nothing is under way it is one word.
#[derive(Debug, Default)]
#[allow(
    clippy::box_collection,
    reason = "a deque itself would be four words, for as long as the session lives"
)]
pub struct Outputs(Option<Box<VecDeque<Output>>>);

thread_local! {
    /// Lists of those who rest.
    #[allow(clippy::box_collection, reason = "as above")]
    static RESTING: RefCell<Spare<Box<VecDeque<Output>>>> = const { RefCell::new(Spare::new()) };
}

/// A list that is larger than this is not kept.
const SPARE_OUTPUTS_MAX: usize = 64;

impl Outputs {
    /// This too, after all else.
    pub fn push(&mut self, output: Output) {
        let spare = || RESTING.with_borrow_mut(Spare::take).unwrap_or_default();
        self.0.get_or_insert_with(spare).push_back(output);
    }

    /// What is next.
    pub fn poll(&mut self) -> Option<Output> {
        self.0.as_mut()?.pop_front()
    }

    /// Gives back the memory, if nothing is to be done.
    pub fn rest(&mut self) {
        if let Some(outputs) = self.0.take_if(|outputs| outputs.is_empty())
            && outputs.capacity() <= SPARE_OUTPUTS_MAX
        {
            RESTING.with_borrow_mut(|resting| resting.give(outputs));
        }
    }

    /// Whether it holds no memory.
    pub fn is_resting(&self) -> bool {
        self.0.is_none()
    }
}

/// Why a wire is closed, and what the log should say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The reason.
    pub reason: Reason,
    /// A sentence for the operator; may be empty.
    pub detail: String,
}

impl Close {
    /// Closes for this reason.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Close {
        Close { reason, detail: detail.into() }
    }
}

/// Why a wire is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The conversation ended as the language foresees.
    Done,
    /// The peer broke the rules of its language.
    Violation,
    /// The peer sent more than is allowed.
    TooBig,
    /// The house said no.
    Refused,
    /// The peer does not read what it asked for.
    SlowConsumer,
    /// The peer was silent for too long.
    Silent,
    /// The broker shuts down.
    Shutdown,
}

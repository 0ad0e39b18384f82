//! All subscriptions of a client, and which of the router's each has a part in.
//!
//! The router knows a topic and a way to match it once for each session, however often it is subscribed to: it answers
//! with the same subscription. What comes of it goes to everybody here who asked, and only the last unsubscribes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::{Context, Poll};

use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message::Event;
use tandem_protocols::wamp::options::MatchPolicy;

use crate::buffer::{self, Gap, Pushed};
use crate::wamp::error::Error;
use crate::wamp::event::RawEvent;
use crate::wamp::handle::{Permit, Reply, SubscribeCommand, Token};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// In the order in which they were made, which is that in which they are made again.
    locals: BTreeMap<Token, Local>,
    /// Of this session.
    shared: HashMap<Id, Shared>,
}

/// One, as somebody here asked for it.
#[derive(Debug)]
struct Local {
    topic: Arc<str>,
    policy: MatchPolicy,
    options: Dict,
    wants_retained: bool,
    events: buffer::Sender<RawEvent>,
    end: Reply<()>,
    /// Whoever waits for the first answer of the router.
    reply: Option<Reply<()>>,
    /// The router's, in this session.
    subscription: Option<Id>,
    /// Nobody wants it any more, but the router has not answered yet.
    is_forsaken: bool,
}

/// One of the router's.
#[derive(Debug)]
struct Shared {
    topic: Arc<str>,
    policy: MatchPolicy,
    members: Vec<Token>,
}

/// An event for which there was no room.
pub(super) type Stuck = (Token, RawEvent);

impl Subscriptions {
    /// Takes one, to be made in this session.
    pub(super) fn add(&mut self, command: SubscribeCommand) -> (Token, Arc<str>, Dict, Permit) {
        let SubscribeCommand { token, topic, policy, options, wants_retained, events, end, reply, permit } =
            command;
        let (topic, reply): (Arc<str>, _) = (topic.into(), Some(reply));
        let made = (token, topic.clone(), options.clone(), permit);
        let (subscription, is_forsaken) = (None, false);
        let local =
            Local { topic, policy, options, wants_retained, events, end, reply, subscription, is_forsaken };
        self.locals.insert(token, local);
        made
    }

    /// The router has made one. Gives it back where nobody wants it any more.
    pub(super) fn subscribed(&mut self, token: Token, subscription: Id) -> Option<Id> {
        let local = self.locals.get_mut(&token)?;
        local.subscription = Some(subscription);
        let (topic, policy, is_forsaken) = (local.topic.clone(), local.policy, local.is_forsaken);
        if let Some(reply) = local.reply.take() {
            let _ = reply.send(Ok(()));
        }
        let shared = self.shared.entry(subscription);
        let shared = shared.or_insert_with(|| Shared { topic, policy, members: Vec::new() });
        if is_forsaken {
            return self.remove(token);
        }
        if !shared.members.contains(&token) {
            shared.members.push(token);
        }
        None
    }

    /// The router does not want one. Gives back what was kept for its sake, and nobody wants now.
    pub(super) fn refused(&mut self, token: Token, error: Error) -> Option<Id> {
        let local = self.locals.remove(&token)?;
        match local.reply {
            Some(reply) => drop(reply.send(Err(error))),
            None => drop(local.end.send(Err(error))),
        }
        let empty = self.shared.iter().find(|(_, shared)| !self.is_wanted(shared));
        empty.map(|(subscription, _)| *subscription).map(|subscription| self.forget(subscription))
    }

    /// Somebody let go of one. Gives the router's where nobody else wants it.
    pub(super) fn remove(&mut self, token: Token) -> Option<Id> {
        let local = self.locals.get_mut(&token)?;
        let Some(subscription) = local.subscription else {
            local.is_forsaken = true;
            return None;
        };
        self.locals.remove(&token);
        let shared = self.shared.get_mut(&subscription)?;
        shared.members.retain(|member| *member != token);
        let is_wanted = self.shared.get(&subscription).is_some_and(|shared| self.is_wanted(shared));
        (!is_wanted).then(|| self.forget(subscription))
    }

    /// Whether somebody has a part in it, or asked for one and is about to be told that it is this one: what unsubscribes
    /// now would take it from them.
    fn is_wanted(&self, shared: &Shared) -> bool {
        let is_same = |local: &Local| {
            local.subscription.is_none() && local.policy == shared.policy && local.topic == shared.topic
        };
        !shared.members.is_empty() || self.locals.values().any(is_same)
    }

    fn forget(&mut self, subscription: Id) -> Id {
        self.shared.remove(&subscription);
        subscription
    }

    /// The router took one away.
    pub(super) fn revoked(&mut self, subscription: Id, reason: &str) {
        let Some(shared) = self.shared.remove(&subscription) else { return };
        for token in shared.members {
            if let Some(local) = self.locals.remove(&token) {
                let _ = local.end.send(Err(Error::Revoked(reason.to_owned())));
            }
        }
    }

    /// Hands an event to everybody whose it is. Gives those back that there is no room for, and that are not to be
    /// dropped.
    pub(super) fn deliver(&mut self, event: Event) -> Vec<Stuck> {
        let Event { subscription, publication, details, payload } = event;
        let Some(shared) = self.shared.get(&subscription) else { return Vec::new() };
        let named: Option<Arc<str>> = details.str("topic").ok().flatten().map(Into::into);
        let topic = named.unwrap_or_else(|| shared.topic.clone());
        let is_retained = details.bool("retained").ok().flatten() == Some(true);
        let event = RawEvent { topic, publication, details, payload };
        // What was kept is sent once for each who asks; who came before has had it.
        let last = shared
            .members
            .iter()
            .rev()
            .find(|token| self.locals.get(token).is_some_and(|local| local.wants_retained));
        let members = shared.members.iter().filter(|token| !is_retained || Some(*token) == last);
        let stuck = members.filter_map(|token| Some((*token, self.push(*token, event.clone())?)));
        stuck.collect()
    }

    /// Hands over an event; gives it back where there is no room.
    pub(super) fn push(&self, token: Token, event: RawEvent) -> Option<RawEvent> {
        match self.locals.get(&token)?.events.push(event) {
            Pushed::Full(event) => Some(event),
            Pushed::Done | Pushed::Closed(_) => None,
        }
    }

    /// Ready when an event of this subscription would not come back.
    pub(super) fn poll_room(&self, token: Token, cx: &mut Context<'_>) -> Poll<()> {
        self.locals.get(&token).map_or(Poll::Ready(()), |local| local.events.poll_room(cx))
    }

    /// Somebody let go of one while there is no session.
    pub(super) fn forget_wish(&mut self, token: Token) {
        self.locals.remove(&token);
    }

    /// The session is gone. Those that were never made are not made now.
    pub(super) fn lost(&mut self) {
        self.shared.clear();
        self.locals.retain(|_, local| {
            local.subscription = None;
            local.events.mark(Gap { dropped: 0, reconnected: true });
            match local.reply.take() {
                Some(reply) => {
                    let _ = reply.send(Err(Error::ConnectionLost));
                    false
                }
                None => !local.is_forsaken,
            }
        });
    }

    /// All that are to be made in a new session.
    pub(super) fn wishes(&self) -> Vec<(Token, Arc<str>, Dict)> {
        let wish = |(token, local): (&Token, &Local)| (*token, local.topic.clone(), local.options.clone());
        self.locals.iter().map(wish).collect()
    }

    /// There will be no more.
    pub(super) fn end(&mut self, why: impl Fn() -> Option<Error>) {
        for local in std::mem::take(&mut self.locals).into_values() {
            let error = why();
            match (local.reply, error) {
                (Some(reply), error) => drop(reply.send(Err(error.unwrap_or(Error::Closed)))),
                (None, Some(error)) => drop(local.end.send(Err(error))),
                (None, None) => {}
            }
        }
    }
}

//! All registrations of a client, and the invocations of each that run or wait for their turn.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};

use tandem_protocols::payload::Content;
use tandem_protocols::wamp::dict::Dict;
use tandem_protocols::wamp::error::{CANCELED, FEATURE_NOT_SUPPORTED, UNAVAILABLE};
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::message;

use crate::buffer::{self, Overflow, Pushed};
use crate::wamp::error::{ApplicationError, Error};
use crate::wamp::handle::{Permit, RegisterCommand, Reply, Token};
use crate::wamp::invocation::{
    self, Arguments, Handler, Interrupt, Invocation, InvocationCtx, InvocationKey, Said,
};
use crate::wamp::value::Raw;

/// How many pieces of one invocation's arguments may wait for its handler. A caller that sends more has its call
/// answered with `wamp.error.unavailable`: nobody else is to wait for it.
const PIECES_MAX: usize = 1024;

/// How many invocations in pieces, which were answered before the last piece came, are remembered.
const ANSWERED_MAX: usize = 64;

/// How much of what handlers say may wait for the session; whoever has more to say waits.
const SAID_MAX: usize = 256;

/// All of them.
pub(super) struct Registrations {
    /// In the order in which they were made, which is that in which they are made again.
    locals: BTreeMap<Token, Local>,
    /// Of this session.
    by_id: HashMap<Id, Token>,
    open: HashMap<InvocationKey, Open>,
    /// One for each handler's future.
    tasks: JoinSet<()>,
    by_task: HashMap<task::Id, InvocationKey>,
    /// Answered, and more pieces are on their way.
    answered: VecDeque<InvocationKey>,
    /// What handlers say, in the order in which they say it.
    said: mpsc::Sender<(InvocationKey, Said)>,
    hears: mpsc::Receiver<(InvocationKey, Said)>,
}

/// One, as somebody here made it.
struct Local {
    procedure: Arc<str>,
    options: Dict,
    takes_pieces: bool,
    handler: Handler,
    concurrency: usize,
    waiting_max: usize,
    grace: Duration,
    end: Reply<()>,
    /// Whoever waits for the first answer of the router.
    reply: Option<Reply<()>>,
    /// The router's, in this session.
    registration: Option<Id>,
    /// Nobody wants it any more, but the router has not answered yet.
    is_forsaken: bool,
    running: usize,
    waiting: VecDeque<Invocation>,
}

/// An invocation that has no answer.
struct Open {
    local: Token,
    is_running: bool,
    interrupt: watch::Sender<Option<Interrupt>>,
    /// Where more pieces of its arguments go, until the last has come. Where one never will it stays, so that to the
    /// handler the pieces do not look whole.
    pieces: Option<buffer::Sender<Raw>>,
    /// One was dropped: none of those that follow is handed over.
    is_overrun: bool,
}

/// What is to be answered at once.
pub(super) type Answer = (InvocationKey, ApplicationError);

impl Registrations {
    pub(super) fn new() -> Self {
        let (said, hears) = mpsc::channel(SAID_MAX);
        Self {
            locals: BTreeMap::new(),
            by_id: HashMap::new(),
            open: HashMap::new(),
            tasks: JoinSet::new(),
            by_task: HashMap::new(),
            answered: VecDeque::new(),
            said,
            hears,
        }
    }

    /// Takes one, to be made in this session.
    pub(super) fn add(&mut self, command: RegisterCommand) -> (Token, Arc<str>, Dict, Permit) {
        let token = command.token;
        let local = Local {
            procedure: command.procedure.into(),
            options: command.options,
            takes_pieces: command.takes_pieces,
            handler: command.handler,
            concurrency: command.concurrency,
            waiting_max: command.waiting_max,
            grace: command.grace,
            end: command.end,
            reply: Some(command.reply),
            registration: None,
            is_forsaken: false,
            running: 0,
            waiting: VecDeque::new(),
        };
        let made = (token, local.procedure.clone(), local.options.clone(), command.permit);
        self.locals.insert(token, local);
        made
    }

    /// The router has made one. Gives it back where nobody wants it any more.
    pub(super) fn registered(&mut self, token: Token, registration: Id) -> Option<Id> {
        let local = self.locals.get_mut(&token)?;
        if local.is_forsaken {
            self.locals.remove(&token);
            return Some(registration);
        }
        local.registration = Some(registration);
        if let Some(reply) = local.reply.take() {
            let _ = reply.send(Ok(()));
        }
        self.by_id.insert(registration, token);
        None
    }

    /// The router does not want one.
    pub(super) fn refused(&mut self, token: Token, error: Error) {
        let Some(local) = self.locals.remove(&token) else { return };
        match local.reply {
            Some(reply) => drop(reply.send(Err(error))),
            None => drop(local.end.send(Err(error))),
        }
    }

    /// Somebody let go of one. Gives the router's, and what is to be answered to those who waited for their turn; what
    /// runs comes to its end.
    pub(super) fn remove(&mut self, token: Token) -> (Option<Id>, Vec<Answer>) {
        let Some(local) = self.locals.get_mut(&token) else { return (None, Vec::new()) };
        if local.registration.is_none() {
            local.is_forsaken = true;
            return (None, Vec::new());
        }
        let Some(local) = self.locals.remove(&token) else { return (None, Vec::new()) };
        if let Some(registration) = local.registration {
            self.by_id.remove(&registration);
        }
        (local.registration, self.unavailable(local.waiting))
    }

    /// The router took one away.
    pub(super) fn revoked(&mut self, registration: Id, reason: &str) -> Vec<Answer> {
        let token = self.by_id.remove(&registration);
        let Some(local) = token.and_then(|token| self.locals.remove(&token)) else { return Vec::new() };
        let _ = local.end.send(Err(Error::Revoked(reason.to_owned())));
        self.unavailable(local.waiting)
    }

    fn unavailable(&mut self, waiting: VecDeque<Invocation>) -> Vec<Answer> {
        let answer = |invocation: Invocation| {
            let key = invocation.ctx.key();
            self.open.remove(&key);
            (key, ApplicationError::new(UNAVAILABLE).args(("the procedure is not offered any more",)))
        };
        waiting.into_iter().map(answer).collect()
    }

    /// Runs an invocation, has it wait for its turn, or gives what is to be answered at once.
    pub(super) fn invoke(&mut self, epoch: u64, invocation: message::Invocation) -> Option<Answer> {
        let message::Invocation { request, registration, details, payload } = invocation;
        let key = InvocationKey { epoch, request };
        let has_more = details.bool("progress").ok().flatten() == Some(true);
        if let Some(at) = self.answered.iter().position(|answered| *answered == key) {
            if !has_more {
                self.answered.remove(at);
            }
            return None;
        }
        if self.open.contains_key(&key) {
            self.piece(key, Raw { details, payload }, has_more);
            return None;
        }
        let refuse = |uri: &str, why: &str| Some((key, ApplicationError::new(uri).args((why,))));
        let local =
            self.by_id.get(&registration).and_then(|token| Some((*token, self.locals.get_mut(token)?)));
        let Some((token, local)) = local else {
            // On its way when the registration was withdrawn.
            return refuse(UNAVAILABLE, "the procedure is not offered any more");
        };
        let is_full = local.running >= local.concurrency && local.waiting.len() >= local.waiting_max;
        let answer = match (is_full, has_more && !local.takes_pieces) {
            (true, _) => refuse(UNAVAILABLE, "too many calls wait for the procedure"),
            (_, true) => refuse(FEATURE_NOT_SUPPORTED, "the procedure takes no arguments in pieces"),
            (false, false) => None,
        };
        if answer.is_some() {
            if has_more {
                self.remember_answered(key);
            }
            return answer;
        }
        let (interrupt, interrupted) = watch::channel(None);
        let procedure = details.str("procedure").ok().flatten().map(Into::into);
        let procedure = procedure.unwrap_or_else(|| local.procedure.clone());
        let ctx =
            InvocationCtx::new(key, procedure, details.clone(), self.said.clone(), interrupted, local.grace);
        let (arguments, pieces) = if local.takes_pieces {
            let (sender, receiver) = buffer::buffer(PIECES_MAX, Overflow::Wait);
            sender.push(Raw { details, payload });
            (Arguments::Pieces(receiver), has_more.then_some(sender))
        } else {
            (Arguments::Whole(payload), None)
        };
        self.open.insert(key, Open { local: token, is_running: false, interrupt, pieces, is_overrun: false });
        local.waiting.push_back(Invocation { arguments, ctx });
        self.start(token);
        None
    }

    fn piece(&mut self, key: InvocationKey, piece: Raw, has_more: bool) {
        let Some(open) = self.open.get_mut(&key) else { return };
        let Some(pieces) = &open.pieces else { return };
        // What ends a call without any arguments is no piece of it.
        let is_mark = !has_more && is_nothing(&piece.payload);
        if !is_mark && !open.is_overrun && matches!(pieces.push(piece), Pushed::Full(_)) {
            open.is_overrun = true;
            open.interrupt.send_replace(Some(Interrupt::Overrun));
        }
        if !has_more && !open.is_overrun {
            open.pieces = None;
        }
    }

    /// Runs as many as may run.
    fn start(&mut self, token: Token) {
        let Some(local) = self.locals.get_mut(&token) else { return };
        while local.running < local.concurrency {
            let Some(invocation) = local.waiting.pop_front() else { return };
            let key = invocation.ctx.key();
            if let Some(open) = self.open.get_mut(&key) {
                open.is_running = true;
            }
            let task = self.tasks.spawn(invocation::run(local.handler.clone(), invocation));
            self.by_task.insert(task.id(), key);
            local.running += 1;
        }
    }

    /// The router wants an invocation stopped. Gives the answer to one that has not had its turn.
    pub(super) fn interrupt(&mut self, epoch: u64, request: Id) -> Option<Answer> {
        let key = InvocationKey { epoch, request };
        self.answered.retain(|answered| *answered != key);
        let open = self.open.get_mut(&key)?;
        if open.is_running {
            open.interrupt.send_if_modified(|interrupt| {
                let is_first = interrupt.is_none();
                interrupt.get_or_insert(Interrupt::Canceled);
                is_first
            });
            return None;
        }
        let token = open.local;
        self.open.remove(&key);
        if let Some(local) = self.locals.get_mut(&token) {
            local.waiting.retain(|invocation| invocation.ctx.key() != key);
        }
        Some((key, ApplicationError::new(CANCELED)))
    }

    /// An invocation has its answer. Says whether it is one to be given.
    pub(super) fn answered(&mut self, key: InvocationKey) -> bool {
        let Some(open) = self.open.remove(&key) else { return false };
        if open.pieces.is_some() {
            self.remember_answered(key);
        }
        if let Some(local) = self.locals.get_mut(&open.local) {
            local.running -= 1;
        }
        self.start(open.local);
        true
    }

    fn remember_answered(&mut self, key: InvocationKey) {
        if self.answered.len() == ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(key);
    }

    /// Whether an invocation is to have an answer still.
    pub(super) fn is_open(&self, key: InvocationKey) -> bool {
        self.open.contains_key(&key)
    }

    /// What handlers say, if there is room for it, or that a handler's future did not come to its end; `None` where one
    /// did. May be cancelled.
    pub(super) async fn next(&mut self, has_room: bool) -> Option<(InvocationKey, Said)> {
        let Self { tasks, hears, .. } = self;
        let has_tasks = !tasks.is_empty();
        let joined = tokio::select! {
            said = hears.recv(), if has_room => return said,
            Some(joined) = tasks.join_next_with_id(), if has_tasks => joined,
            // While there is neither, there is nothing to wait for.
            else => std::future::pending().await,
        };
        let id = joined.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let key = self.by_task.remove(&id)?;
        let failed = joined.err()?;
        if failed.is_panic() {
            tracing::error!(request = key.request.get(), "a handler panicked");
            return Some((key, Said::Answer(Err(ApplicationError::runtime("the handler panicked")))));
        }
        Some((key, Said::Answer(Err(ApplicationError::new(CANCELED)))))
    }

    /// The session is gone. What runs is told so; its answers have nowhere to go. Those that were never made are not
    /// made now.
    pub(super) fn lost(&mut self) {
        self.by_id.clear();
        self.answered.clear();
        self.locals.retain(|_, local| {
            local.registration = None;
            local.waiting.clear();
            match local.reply.take() {
                Some(reply) => {
                    let _ = reply.send(Err(Error::ConnectionLost));
                    false
                }
                None => !local.is_forsaken,
            }
        });
        self.open.retain(|_, open| {
            open.interrupt.send_replace(Some(Interrupt::Canceled));
            open.is_running
        });
    }

    /// Somebody let go of one while there is no session.
    pub(super) fn forget_wish(&mut self, token: Token) {
        self.locals.remove(&token);
    }

    /// All that are to be made in a new session.
    pub(super) fn wishes(&self) -> Vec<(Token, Arc<str>, Dict)> {
        let wish =
            |(token, local): (&Token, &Local)| (*token, local.procedure.clone(), local.options.clone());
        self.locals.iter().map(wish).collect()
    }

    /// Drops all that runs; gives the answers to all that is open.
    pub(super) async fn abandon(&mut self) -> Vec<Answer> {
        self.tasks.shutdown().await;
        self.by_task.clear();
        self.open.drain().map(|(key, _)| (key, ApplicationError::new(CANCELED))).collect()
    }

    /// There will be no more.
    pub(super) fn end(&mut self, why: impl Fn() -> Option<Error>) {
        for local in std::mem::take(&mut self.locals).into_values() {
            let error = why().unwrap_or(Error::Closed);
            match local.reply {
                Some(reply) => drop(reply.send(Err(error))),
                None => drop(local.end.send(Err(error))),
            }
        }
    }
}

fn is_nothing(payload: &Content) -> bool {
    matches!(payload, Content::Arguments(arguments) if arguments.args.is_empty() && arguments.kwargs.is_empty())
}

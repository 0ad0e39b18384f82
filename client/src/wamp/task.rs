//! The one task of a client: it owns the session, and makes another when it is lost.
//!
//! It ends when somebody closes the client, when nobody holds any of its handles, when the router refuses it, or when
//! it has tried often enough. In the order in which it goes: what was asked is done, handlers that still run are
//! dropped and their calls answered, GOODBYE is said and awaited, and then whoever still waits is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use tandem_protocols::payload::Format;

use crate::backoff::Backoff;
use crate::connector::Connector;
use crate::wamp::auth::Auth;
use crate::wamp::desk::{Desk, Ended};
use crate::wamp::error::Error;
use crate::wamp::handle::{Command, ForsakenList};
use crate::wamp::session::Session;
use crate::wamp::status::{ClientEvent, End, SessionInfo, Status, Watchers};

/// A session that lasted for less counts as an attempt that failed, lest a client that is let in and thrown out again
/// comes back as fast as it can.
const LASTING: Duration = Duration::from_secs(5);

/// All that is needed for a session.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) connector: Connector,
    pub(super) realm: String,
    pub(super) formats: Vec<Format>,
    pub(super) ways: Vec<Auth>,
    pub(super) agent: String,
    pub(super) backoff: Backoff,
    pub(super) timeout: Duration,
}

impl Plan {
    /// Connects and logs in, once.
    pub(super) async fn establish(&self, epoch: u64) -> Result<(Session, SessionInfo), Error> {
        let establishing = async {
            let (wire, format) = self.connector.wamp(&self.formats).await?;
            Session::enter(wire, format, epoch, &self.realm, &self.ways, &self.agent).await
        };
        timeout(self.timeout, establishing).await.unwrap_or(Err(Error::Timeout("WELCOME")))
    }
}

/// The task.
pub(super) struct Task {
    pub(super) plan: Arc<Plan>,
    pub(super) inbox: mpsc::Receiver<Command>,
    pub(super) forsaken: Arc<ForsakenList>,
    pub(super) status: watch::Sender<Status>,
    pub(super) watchers: Arc<Watchers>,
    pub(super) desk: Desk,
    /// So many attempts or short sessions in a row.
    pub(super) failed: u32,
}

impl Task {
    /// From the first session to the last.
    pub(super) async fn run(mut self, mut session: Session) {
        loop {
            let began = Instant::now();
            let ended = self.serve(&mut session).await;
            let ended = match ended {
                Ended::Lost(reason) => {
                    session.complain().await;
                    self.lost(&mut session, reason);
                    self.failed = if began.elapsed() < LASTING { self.failed.saturating_add(1) } else { 1 };
                    let epoch = session.epoch + 1;
                    drop(session);
                    match self.reconnect(epoch).await {
                        Ok(next) => {
                            session = next;
                            continue;
                        }
                        Err(ended) => ended,
                    }
                }
                Ended::Closed(reply) => {
                    self.desk.part(&mut session).await;
                    session.leave().await;
                    Ended::Closed(reply)
                }
                Ended::Refused { uri, message } => {
                    self.desk.lost(&mut session);
                    self.watchers.tell(&ClientEvent::Lost { reason: uri.clone() });
                    Ended::Refused { uri, message }
                }
            };
            return self.finish(ended);
        }
    }

    async fn serve(&mut self, session: &mut Session) -> Ended {
        loop {
            if let Err(ended) = self.step(session).await {
                return ended;
            }
            for event in self.desk.take_news() {
                self.watchers.tell(&event);
            }
        }
    }

    async fn step(&mut self, session: &mut Session) -> Result<(), Ended> {
        self.desk.resend(session)?;
        let has_room = session.has_room();
        tokio::select! {
            next = self.desk.next(session) => self.desk.proceed(session, next?).await,
            command = self.inbox.recv(), if has_room => match command {
                Some(command) => {
                    // What was dropped before it was asked is over before it is done.
                    self.desk.settle(session, self.forsaken.take())?;
                    self.desk.obey(session, command)
                }
                None => Err(Ended::Closed(None)),
            },
            () = self.forsaken.grown() => self.desk.settle(session, self.forsaken.take()),
        }
    }

    fn lost(&mut self, session: &mut Session, reason: String) {
        tracing::warn!(reason, "session lost");
        self.status.send_replace(Status::Connecting);
        self.desk.lost(session);
        self.watchers.tell(&ClientEvent::Lost { reason });
    }

    /// Tries until there is a session again, and goes on in it.
    async fn reconnect(&mut self, epoch: u64) -> Result<Session, Ended> {
        loop {
            let Some(delay) = self.plan.backoff.delay(self.failed, rand::random()) else {
                return Err(Ended::Lost(format!("given up after {} attempts", self.failed)));
            };
            self.idle_while(sleep(delay)).await?;
            let plan = self.plan.clone();
            match self.idle_while(plan.establish(epoch)).await? {
                Ok((mut session, info)) => {
                    self.connected(info);
                    match self.desk.restore(&mut session) {
                        Ok(()) => return Ok(session),
                        Err(Ended::Lost(reason)) => self.lost(&mut session, reason),
                        Err(ended) => return Err(ended),
                    }
                }
                Err(Error::Refused { uri, message }) if crate::wamp::error::is_final(&uri) => {
                    return Err(Ended::Refused { uri, message });
                }
                Err(error) if error.is_final() => {
                    let uri = error.uri().unwrap_or_default().to_owned();
                    return Err(Ended::Refused { uri, message: error.to_string() });
                }
                Err(error) => tracing::debug!(%error, attempt = self.failed, "no session"),
            }
            self.failed = self.failed.saturating_add(1);
        }
    }

    fn connected(&mut self, info: SessionInfo) {
        tracing::info!(session = info.id.get(), realm = info.realm, "session established again");
        let info = Arc::new(info);
        self.status.send_replace(Status::Connected(info.clone()));
        self.watchers.tell(&ClientEvent::Connected(info));
    }

    /// Does something while there is no session, and tells those who ask for one.
    async fn idle_while<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                command = self.inbox.recv() => match command {
                    Some(command) => {
                        self.desk.settle_alone(self.forsaken.take());
                        self.desk.decline(command)?;
                    }
                    None => return Err(Ended::Closed(None)),
                },
                () = self.forsaken.grown() => self.desk.settle_alone(self.forsaken.take()),
                () = self.desk.idle() => {}
            }
        }
    }

    /// Tells everybody that there will be no other session.
    fn finish(mut self, ended: Ended) {
        let (end, reason, reply) = match ended {
            Ended::Closed(reply) => (End::Closed, None, reply),
            Ended::Lost(reason) => (End::GaveUp, Some(reason), None),
            Ended::Refused { uri, message } => {
                let reason = format!("{uri} {message}").trim().to_owned();
                (End::Refused { uri, message }, Some(reason), None)
            }
        };
        let end = Arc::new(end);
        // Before anything is let go of, so that whoever waits for it finds out why.
        self.status.send_replace(Status::Ended(end.clone()));
        self.desk.end(|| match &*end {
            End::Closed => None,
            End::GaveUp | End::Refused { .. } => Some(end.to_error()),
        });
        if let Some(reason) = reason {
            tracing::error!(reason, "no other session");
            self.watchers.tell(&ClientEvent::GaveUp { reason });
        }
        self.watchers.end();
        self.inbox.close();
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }
}

//! How long a session may go on by the token that it came in with, and how it gets another.
//!
//! Only sessions that came in by a token have a lease. What they are and may do is settled when they come in: a token
//! that says anything else of them than the first does not renew.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::access::{Applicant, Authenticator, Credentials, Grant, Peer, Refusal};
use crate::core::realm::Member;
use crate::core::throttle::Throttle;

/// What the log calls it.
const RENEWAL: &str = "renewal";

/// The time that a session has.
pub struct Lease {
    until: Instant,
    peer: Peer,
    authenticator: Arc<dyn Authenticator>,
    throttle: Arc<Throttle>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Lease {
    /// For a session of this peer that was let in just now. None where it may stay as long as it likes.
    pub fn new(
        lifetime: Option<Duration>,
        peer: &Peer,
        authenticator: &Arc<dyn Authenticator>,
        throttle: &Arc<Throttle>,
        now: Instant,
    ) -> Option<Box<Lease>> {
        let until = now + lifetime?;
        let (authenticator, throttle) = (authenticator.clone(), throttle.clone());
        Some(Box::new(Lease { until, peer: peer.clone(), authenticator, throttle }))
    }

    /// When it ends.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Goes on by another token: for how long is returned. Who tries too many is refused unheard, as at the door.
    pub fn renew(&mut self, token: &str, member: &Member, now: Instant) -> Result<Duration, Refusal> {
        if now >= self.until {
            // Its end was not noticed yet.
            return Err(Refusal::TokenExpired);
        }
        let principal = member.principal();
        self.throttle.ask(&self.peer, &principal.id, now)?;
        let applicant = Applicant {
            realm: member.realm().name().clone(),
            // The token says it.
            user: "".into(),
            method: principal.method,
            session: Some(member.id()),
            extra: None,
        };
        let judged = self.authenticator.renew(&Credentials { applicant, secret: token.into() }, &self.peer);
        if judged == Err(Refusal::WrongSecret) {
            self.throttle.failed(&self.peer, &principal.id, RENEWAL, now);
        }
        let Grant { principal: named, lifetime, .. } = judged?;
        if named.id != principal.id {
            return Err(Refusal::NotRenewable("the token is another user's"));
        }
        if named.role != principal.role {
            return Err(Refusal::NotRenewable("the token gives another role, for which one logs in again"));
        }
        let lifetime = lifetime.ok_or(Refusal::NotRenewable("it was not by a token"))?;
        self.until = now + lifetime;
        Ok(lifetime)
    }
}

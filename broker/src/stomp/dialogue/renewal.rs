//! A session that came in by a token goes on by another: SEND to `/session/auth`, with the token as its body or in its
//! header `passcode`. A RECEIPT says that it does; else there is an ERROR.

use std::time::Instant;

use tandem_protocols::stomp::error::Reason;
use tandem_protocols::stomp::frame::Frame;

use crate::core::access::Refusal;
use crate::core::lease::Lease;
use crate::stomp::dialogue::{Dialogue, Receipt};
use crate::stomp::fault::Fault;

impl Dialogue {
    /// Ends the session at the end of this lease, if there is one.
    pub(in crate::stomp) fn hold(&mut self, lease: Option<Box<Lease>>) {
        if lease.is_some() {
            self.rare().lease = lease;
        }
    }

    /// Until when the peer may stay without another token.
    pub(in crate::stomp) fn lease_until(&self) -> Option<Instant> {
        self.rare.as_ref()?.lease.as_ref().map(|lease| lease.until())
    }

    pub(super) fn renew(&mut self, frame: &Frame, now: Instant) -> Result<Receipt, Fault> {
        if frame.headers.get("transaction").is_some() {
            return Err(Fault::new(Reason::InvalidHeader, "a session is not renewed in a transaction"));
        }
        let token = match frame.headers.get("passcode") {
            Some(token) => token,
            None => str::from_utf8(&frame.body).map(str::trim_ascii).unwrap_or_default(),
        };
        if token.is_empty() {
            let detail = "a token is the body of the message, or its header 'passcode'";
            return Err(Fault::new(Reason::MissingHeader, detail));
        }
        let lease = self.rare.as_mut().and_then(|rare| rare.lease.as_mut());
        let lease = lease.ok_or(Refusal::NotRenewable("it did not come in by a token"))?;
        lease.renew(token, &self.member, now)?;
        Ok(Receipt::Due)
    }
}

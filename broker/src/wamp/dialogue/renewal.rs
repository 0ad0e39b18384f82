//! A session that came in by a token goes on by another.
//!
//! ```text
//! tandem.session.renew  [token]  -> [seconds that it is good for]
//! ```
//!
//! It takes no permission: nobody gets more by it than they had. One that fails leaves the session the time that it has.

use std::time::Instant;

use tandem_protocols::wamp::dict::Value;
use tandem_protocols::wamp::id::Id;
use tandem_protocols::wamp::list::{Element, encode_list};

use crate::core::access::Refusal;
use crate::core::lease::Lease;
use crate::core::realm::Outgoing;
use crate::wamp::dialogue::Dialogue;
use crate::wamp::dialogue::procedure::{first_arguments, say_list};
use crate::wamp::fault::Fault;
use crate::wamp::voice::Voice;

impl Dialogue {
    /// Ends the session at the end of this lease, if there is one.
    pub(in crate::wamp) fn holding(self, lease: Option<Box<Lease>>) -> Dialogue {
        Dialogue { lease, ..self }
    }

    /// Until when the peer may stay without another token.
    pub(in crate::wamp) fn lease_until(&self) -> Option<Instant> {
        self.lease.as_ref().map(|lease| lease.until())
    }

    pub(super) fn renew(
        &mut self,
        request: Id,
        outgoing: &Outgoing,
        voice: &mut Voice,
        now: Instant,
    ) -> Result<(), Fault> {
        let first = first_arguments(outgoing)?;
        let token = first.first().and_then(Value::as_str);
        let token = token.ok_or_else(|| Fault::argument("the first argument is a token"))?;
        let lease = self.lease.as_mut();
        let lease = lease.ok_or(Refusal::NotRenewable("it did not come in by a token"))?;
        let seconds = Value::from(lease.renew(token, &self.member, now)?.as_secs());
        say_list(request, encode_list(voice.format, &[Element::Value(&seconds)]), voice);
        Ok(())
    }
}

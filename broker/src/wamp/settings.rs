//! What all WAMP sessions have in common.

use std::sync::Arc;

use crate::core::access::Authenticator;
use crate::core::realms::Realms;
use crate::core::throttle::Throttle;
use crate::wamp::credentials::WampCredentials;

/// What they have in common.
#[derive(Clone)]
pub struct WampSettings {
    /// The realms; HELLO names one of them.
    pub realms: Arc<Realms>,
    /// Says who a peer is that says nothing. The pump asks it about those that do.
    pub authenticator: Arc<dyn Authenticator>,
    /// What users prove who they are by, where they do not send a secret.
    pub credentials: Arc<WampCredentials>,
    /// Slows down those who guess.
    pub throttle: Arc<Throttle>,
    /// How the router calls itself in WELCOME.
    pub agent: &'static str,
    /// What it insists on.
    pub strictness: Strictness,
}

/// What the router insists on although clients exist that do otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Strictness {
    /// The requests of a session are numbered 1, 2, 3 and so on. Anything else is a violation.
    pub request_ids: bool,
    /// URIs are of lower-case letters, digits and underscores. Others are invalid.
    pub uris: bool,
}

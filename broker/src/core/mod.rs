//! The house itself. It has no language, opens no socket, reads no clock, spawns and awaits nothing.
//!
//! Follow a publication: [`realm::Member::publish`] asks [`access`], then [`topics`], which walks [`index`]
//! and pushes one shared [`message::Publication`] into each subscriber's [`mailbox`]. The other way in is
//! [`queues`] (one message, one consumer, acknowledged) and [`calls`] (one call, one callee, one answer).
//! [`protocol`] is the seam to the languages.

pub mod access;
pub mod budget;
pub mod bundle;
pub mod calls;
pub mod consumption;
pub mod deadlines;
pub mod durable;
pub mod eligibility;
pub mod flows;
pub mod guests;
pub mod history;
pub mod index;
pub mod lease;
pub mod mailbox;
pub mod message;
pub mod name;
pub mod notice;
pub mod pacing;
pub mod parcel;
pub mod protocol;
pub mod proxied;
pub mod publishing;
pub mod queues;
pub mod realm;
pub mod realms;
pub mod reserved;
pub mod retained;
pub mod secure;
pub mod shard;
pub mod shelf;
pub mod spare;
pub mod store;
pub mod subscriptions;
pub mod table;
pub mod testament;
pub mod throttle;
pub mod topics;
pub mod trust;
pub mod watch;

#[cfg(test)]
pub(crate) mod testing;

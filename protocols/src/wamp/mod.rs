//! WAMP v2: the Web Application Messaging Protocol, basic and advanced profile.
//!
//! [`codec`] turns bytes into a [`message::Message`] and back; [`options`] reads what its dictionaries say.

pub mod auth;
pub mod batched;
pub mod codec;
pub mod dict;
pub mod error;
mod field;
pub mod id;
pub mod list;
pub mod message;
pub mod options;
pub mod rawsocket;
pub mod uri;
mod usual;
mod wire;

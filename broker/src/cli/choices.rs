//! What there is to choose from for a session: flags and contexts say it in the same words.

use serde::{Deserialize, Serialize};
use tandem_client::wamp;

/// A way to log in over WAMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Method {
    /// As nobody.
    Anonymous,
    /// The password, or the token, is shown to the router.
    Ticket,
    /// WAMP-CRA.
    Wampcra,
    /// SCRAM.
    Scram,
    /// An Ed25519 key.
    Cryptosign,
}

/// What WAMP messages are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Serializer {
    /// JSON.
    Json,
    /// MessagePack.
    Msgpack,
    /// CBOR.
    Cbor,
}

impl From<Serializer> for wamp::Format {
    fn from(serializer: Serializer) -> wamp::Format {
        match serializer {
            Serializer::Json => wamp::Format::Json,
            Serializer::Msgpack => wamp::Format::MsgPack,
            Serializer::Cbor => wamp::Format::Cbor,
        }
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    /// WAMP.
    Wamp,
    /// STOMP.
    Stomp,
}

//! A WAMP client: sessions that go on over lost connections, and typed calls, events and procedures.
//!
//! ```no_run
//! use tandem_client::wamp::Client;
//!
//! # async fn run() -> Result<(), tandem_client::wamp::Error> {
//! let client = Client::builder("ws://127.0.0.1:8080/").realm("realm1").connect().await?;
//!
//! let add = client.register("com.example.add").handler(|(a, b): (i64, i64), _| async move { Ok(a + b) }).await?;
//! let sum: i64 = client.call("com.example.add").args((2, 3)).await?;
//!
//! let mut prices = client.subscribe::<f64>("com.example.price").await?;
//! client.publish("com.example.price").args((1.07,)).include_me().await?;
//! while let Some(event) = prices.next().await {
//!     println!("{}", event?.payload);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What happens when a connection is lost:
//!
//! | what | then |
//! |---|---|
//! | a call in flight | [`Error::ConnectionLost`]; made again over the next connection where it is [`idempotent`](Call::idempotent) |
//! | an acknowledged publication in flight | [`Error::ConnectionLost`] |
//! | a publication without acknowledgement | what was not written is lost |
//! | a subscription | made again; the next event tells of the [`Gap`](crate::Gap) |
//! | a registration | made again; handlers that run are told that they are [`cancelled`](InvocationCtx::cancelled) |
//! | a new request | waits for a connection for a [stated time](Builder::wait_for_connection), then [`Error::ConnectionLost`] |
//!
//! A client that is refused, at first or when it comes back, does not try again: streams end with the reason, and
//! [`Client::events`] tells [`GaveUp`](ClientEvent::GaveUp).

mod auth;
mod builder;
mod call;
mod client;
mod desk;
mod error;
mod event;
mod handle;
mod invocation;
mod progress;
mod publication;
mod registration;
mod registrations;
mod running;
mod session;
mod status;
mod subscription;
mod subscriptions;
mod task;
mod value;

pub use self::auth::{Anonymous, Auth, Cryptosign, Scram, Ticket, Wampcra};
pub use self::builder::{Builder, CONNECT_TIMEOUT, REPLY_TIMEOUT, WAIT_FOR_CONNECTION};
pub use self::call::{Call, Is};
pub use self::client::Client;
pub use self::error::{ApplicationError, Error};
pub use self::event::Event;
pub use self::invocation::{Chunks, InvocationCtx};
pub use self::progress::{CallSink, Progress, Progressive};
pub use self::publication::Publication;
pub use self::registration::{CONCURRENCY, GRACE, Register, Registration, WAITING_MAX};
pub use self::status::{ClientEvent, ClientEvents, SessionInfo};
pub use self::subscription::{Subscribe, Subscription};
pub use self::value::{CallOutput, FromPayload, Raw, ToPayload};

pub use tandem_protocols::payload::Format;
pub use tandem_protocols::wamp::auth::cryptosign::{PrivateKey, PublicKey};
pub use tandem_protocols::wamp::auth::scram::Dialect;
pub use tandem_protocols::wamp::dict::{Dict, Value};
pub use tandem_protocols::wamp::id::Id;
pub use tandem_protocols::wamp::options::{InvokePolicy, MatchPolicy};

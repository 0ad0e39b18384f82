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

/// Makes an enum the errors of a procedure: `#[derive(WampError)]`.
///
/// ```
/// use tandem_client::wamp::{ApplicationError, Error, WampError};
///
/// #[derive(Debug, PartialEq, WampError)]
/// enum BankError {
///     #[wamp("com.example.closed")]
///     Closed,
///     /// Unnamed fields are the positional arguments.
///     #[wamp("com.example.overdrawn")]
///     Overdrawn(i64, i64),
///     /// Named fields are the keyword arguments.
///     #[wamp("com.example.no_such_account")]
///     NoSuchAccount { name: String },
/// }
///
/// // What a handler returns by `?`,
/// let sent = ApplicationError::from(BankError::NoSuchAccount { name: "peter".to_owned() });
/// assert_eq!(sent.uri(), "com.example.no_such_account");
/// // its caller gets,
/// let own = BankError::try_from(Error::from(sent))?;
/// assert_eq!(own, BankError::NoSuchAccount { name: "peter".to_owned() });
/// // and what is none of them, as it was.
/// let other = BankError::try_from(Error::from(ApplicationError::new("com.example.other")));
/// assert_eq!(other.unwrap_err().uri(), Some("com.example.other"));
/// # Ok::<(), Error>(())
/// ```
///
/// Each variant has a URI of its own:
///
/// ```compile_fail
/// # use tandem_client::wamp::WampError;
/// #[derive(WampError)]
/// enum BankError {
///     Closed,
/// }
/// ```
pub use tandem_client_derive::WampError;

pub use tandem_protocols::payload::Format;
pub use tandem_protocols::wamp::auth::cryptosign::{PrivateKey, PublicKey};
pub use tandem_protocols::wamp::auth::scram::Dialect;
pub use tandem_protocols::wamp::dict::{Dict, Value};
pub use tandem_protocols::wamp::id::Id;
pub use tandem_protocols::wamp::options::{InvokePolicy, MatchPolicy};

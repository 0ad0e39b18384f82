//! STOMP 1.0 to 1.2, against any broker that speaks it.
//!
//! A [`Client`] is a handle to a session, which a task of its own keeps: it answers and expects heart-beats,
//! connects again when the connection was lost, and subscribes again to what was subscribed to. It ends when the
//! last handle is dropped: a client, a subscription, a delivery or a transaction.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use serde::{Deserialize, Serialize};
//! use tandem_client::stomp::{Client, Mode};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     number: u64,
//! }
//!
//! # async fn run() -> Result<(), tandem_client::Error> {
//! let client = Client::builder("ws://127.0.0.1:8080/").connect().await?;
//! client.send("/queue/orders").json(&Order { number: 1 })?.persistent().receipt().await?;
//! let mut orders =
//!     client.subscribe("/queue/orders").ack(Mode::ClientIndividual).typed::<Order>().await?;
//! while let Some(delivery) = orders.next().await {
//!     let delivery = delivery?;
//!     println!("{}", delivery.payload.number);
//!     delivery.ack().await?;
//! }
//! client.disconnect().await
//! # }
//! ```

mod body;
mod builder;
mod call;
mod client;
mod delivery;
mod dial;
mod link;
mod outbox;
mod receipt;
mod receipts;
mod send;
mod serve;
mod session;
mod settlement;
mod subscribe;
mod subscription;
mod subscriptions;
mod transaction;

pub use builder::{Builder, CONNECT_TIMEOUT, HEART_BEAT, OUTBOX_BYTES};
pub use call::{Answer, Call};
pub use client::{Client, Events};
pub use delivery::Delivery;
pub use dial::{Dial, Dialling};
pub use receipt::Receipt;
pub use send::{Confirmed, Sending, Unconfirmed};
pub use serve::{Failure, Serve, Serving};
pub use subscribe::{BUFFER_MESSAGES, PREFETCH_MESSAGES, Subscribe};
pub use subscription::Subscription;
pub use transaction::Transaction;

pub use crate::event::ClientEvent;
pub use tandem_protocols::stomp::frame::{Headers, Version};
pub use tandem_protocols::stomp::state::AckMode as Mode;

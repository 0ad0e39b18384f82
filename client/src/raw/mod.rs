//! Connections and sessions that their owner drives, for tests, load generators and whoever must have every byte
//! in hand.
//!
//! [`dial`] makes connections; a [`transport::Transport`] moves messages over one; [`wamp`] and [`stomp`] speak
//! a language over a transport, or over a [`Wire`](crate::Wire) that a [`Connector`](crate::Connector) made. Nothing here spawns a task, so pings are answered and heart-beats sent while a
//! method is awaited, and at no other time.
//!
//! Every level is open to the one below it, so that a test can also say what no client should: a
//! [`wamp::Link`] or a [`stomp::Link`] sends any message in any order, a transport any frame or bytes.
//!
//! ```no_run
//! use tandem_client::raw::dial::{WebSocketOptions, connect_websocket};
//! use tandem_client::raw::wamp::{Client, Login, MatchPolicy};
//! use tandem_protocols::payload::Format;
//! use tandem_protocols::wamp::dict::Dict;
//!
//! # async fn run() -> Result<(), tandem_client::Error> {
//! let options = WebSocketOptions::default();
//! let transport = connect_websocket("127.0.0.1:8080", "/", &["wamp.2.cbor"], &options).await?;
//! let mut client = Client::join(transport, Format::Cbor, "realm1", &Login::Anonymous).await?;
//! client.subscribe("com.example.topic", MatchPolicy::Exact).await?;
//! let sum: (u64,) = client.call("com.example.add", client.args(&(1, 2))?).await?.args()?;
//! client.publish("com.example.sum", Dict::new(), client.args(&sum)?).await?;
//! client.flush().await?;
//! # Ok(())
//! # }
//! ```

pub mod carrier;
pub mod dial;
mod rawsocket;
pub mod stomp;
pub mod transport;
pub mod wamp;
mod websocket;

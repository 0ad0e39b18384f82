//! STOMP 1.0, 1.1 and 1.2: frames, their bytes, and the rules that hold for both ends.
//!
//! What a destination means and what becomes of a message is not decided here.

pub mod codec;
pub mod error;
pub mod frame;
pub mod headers;
pub mod selector;
pub mod state;
pub mod usual;

//! The Tandem broker as a library: the house that WAMP and STOMP clients meet in.

#![forbid(unsafe_code)]


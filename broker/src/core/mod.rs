//! The house itself. It has no language, opens no socket, reads no clock, spawns and awaits nothing.

pub mod index;
pub mod name;

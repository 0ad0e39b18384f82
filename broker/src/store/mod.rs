//! The store on a disk: one file, written by one thread, read by another.
//!
//! [`disk`] is the store; `layout` what its file holds; `recovery` finds it again at the start; `writer`
//! makes changes safe, many at a time; `space` knows how full the disk is.

pub mod disk;
mod layout;
mod reader;
mod recovery;
pub mod space;
mod writer;

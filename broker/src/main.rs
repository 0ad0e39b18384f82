//! The daemon `tandem`.

fn main() {}

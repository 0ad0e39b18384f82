//! The daemon `tandem`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Many small things of few sizes live as long as connections do: here they lie closer together.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tandem_broker::cli::run()
}

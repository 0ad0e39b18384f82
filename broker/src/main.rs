//! The daemon `tandem`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tandem_broker::cli::run()
}

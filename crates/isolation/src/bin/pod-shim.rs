//! The shim as a program of its own: what the tests of this crate start.

use std::process::ExitCode;

fn main() -> ExitCode {
    isolation::dispatch(std::env::args_os()).unwrap_or_else(|| {
        eprintln!("pod-shim is started by the container engine, not by hand");
        ExitCode::FAILURE
    })
}

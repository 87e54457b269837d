//! `containerd-shim-nexcage-v1`: one process per container, started by containerd.
//!
//! `start` answers with a socket and leaves the supervisor behind; `delete` cleans up after a
//! supervisor that is gone; `-info` says what the runtime can do. containerd reads standard
//! output and standard error of `start` as one reply, so neither carries anything else.

pub mod args;
pub mod bootstrap;
mod delete;
mod info;
mod log;
pub mod publisher;
mod serve;
mod service;
mod start;
mod wire;

use crate::error::Result;
use args::{Action, Args};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// The program's name, which containerd derives from `io.containerd.nexcage.v1`.
pub const PROGRAM: &str = "containerd-shim-nexcage-v1";

/// Runs the program.
pub fn main() -> ExitCode {
    crate::sys::process::close_inherited_fds();
    match Args::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(reply) => {
            let mut stdout = std::io::stdout();
            if stdout.write_all(&reply).and_then(|()| stdout.flush()).is_err() {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            // containerd puts this into the middle of what it tells the user: no end of line
            // there. There is nowhere to report its loss.
            let end = if std::io::stderr().is_terminal() { "\n" } else { "" };
            drop(write!(std::io::stderr(), "{PROGRAM}: {error}{end}"));
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked; returns what goes to standard output.
fn run(args: Args) -> Result<Vec<u8>> {
    match &args.action {
        Action::Start(target) => start::start(target, &args),
        Action::Delete(target) => delete::delete(target, &args),
        Action::Info => info::info(std::io::stdin()),
        Action::Version => Ok(version().into_bytes()),
        Action::Help => Ok(args::USAGE.as_bytes().to_vec()),
        Action::Serve(_) => Err(crate::error::Error::invalid(
            "containerd starts this program; to try it by hand: ctr run --runtime \
             io.containerd.nexcage.v1 …",
        )),
    }
}

fn version() -> String {
    format!(
        "{PROGRAM}:\n  Version:  {}\n  Revision: {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("NEXCAGE_REVISION")
    )
}

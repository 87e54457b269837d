//! Entry.

pub mod args;
pub mod bootstrap;

/// Entry.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}

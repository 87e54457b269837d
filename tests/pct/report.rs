//! How a command fails: a text for standard error, and an exit code.

use nix::errno::Errno;
use std::io::Write;
use std::process::{Command, ExitStatus, Stdio};

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// The exit code. Only zero or not means anything to the real one, but these are its codes.
    pub code: u8,
    /// What standard error gets.
    pub text: String,
}

/// What a command gives.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with that code and text.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// A failure in the task, the usual one.
pub fn fail<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure::new(255, text))
}

/// A failure before the task.
pub fn early<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure::new(2, text))
}

/// An error of the system in its own words, without Rust's number.
pub fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Says a line. That nobody listens any more, because whoever started the command is gone, ends
/// no task.
pub fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Says a line on standard error.
pub fn warn(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// Runs a program of a task, and says what it said. The program itself would die of a pipe whose
/// reader has gone.
pub fn said(command: &mut Command) -> std::io::Result<ExitStatus> {
    said_with_input(command.stdin(Stdio::null()))
}

/// The same for a program that has been given its input.
pub fn said_with_input(command: &mut Command) -> std::io::Result<ExitStatus> {
    let output = command.output()?;
    for text in [&output.stdout, &output.stderr] {
        String::from_utf8_lossy(text).lines().for_each(say);
    }
    Ok(output.status)
}

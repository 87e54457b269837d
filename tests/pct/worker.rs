//! Commands that are tasks: a process of its own does the work, in a process group of its own,
//! and goes on when whoever called is killed. All it says goes to standard output, and only the
//! error that ends it to standard error.

use crate::report::{Failure, Outcome, fail, reason, say, warn};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// The first argument of a worker.
pub const FLAG: &str = "--worker";

/// What an error begins with on its way to the parent.
const ERROR: char = '\u{1}';

/// Runs `pct` with these arguments as a task.
pub fn run(args: &[String]) -> Outcome {
    // While a task runs, its parent hears neither of them.
    let mut ignored = SigSet::empty();
    ignored.add(Signal::SIGINT);
    ignored.add(Signal::SIGTERM);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ignored), None).or_else(|errno| fail(errno.desc()))?;
    let (mine, theirs) = std::io::pipe().or_else(|error| fail(reason(&error)))?;
    let mut command = Command::new("/proc/self/exe");
    let second = theirs.try_clone().or_else(|error| fail(reason(&error)))?;
    command
        .arg0("pct")
        .arg(FLAG)
        .args(args)
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(theirs))
        .stderr(OwnedFd::from(second))
        .process_group(0);
    let mut child = command.spawn().or_else(|error| fail(reason(&error)))?;
    // It holds the other end of the pipe.
    drop(command);
    let mut error = None;
    for line in BufReader::new(mine).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        match line.strip_prefix(ERROR) {
            Some(text) => error = Some(text.to_owned()),
            None => say(&line),
        }
    }
    let status = child.wait().or_else(|error| fail(reason(&error)))?;
    if let Ok(group) = i32::try_from(child.id()) {
        // Whatever of it is left.
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
    match error {
        Some(text) => fail(text),
        None if status.success() => Ok(()),
        None => fail("worker ended without a result"),
    }
}

/// What a worker ends with.
pub fn end(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            warn(&format!("{ERROR}{}", failure.text.trim().replace('\n', " ")));
            ExitCode::from(255)
        }
    }
}

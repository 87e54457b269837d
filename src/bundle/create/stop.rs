//! Ctrl-C and kill: noticed between two pieces of work, so that whatever was begun is undone.

use crate::error::{Error, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::cell::Cell;

/// The signals that end a piece of work.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Whether to stop. While it lives, SIGINT, SIGTERM and SIGHUP do not end the process.
#[derive(Debug)]
pub struct Stop {
    signals: SignalFd,
    before: SigSet,
    caught: Cell<Option<Signal>>,
}

impl Stop {
    /// Takes the signals over.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn on_signals() -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in ENDING {
            mask.add(signal);
        }
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))?;
        Ok(Self { signals, before, caught: Cell::new(None) })
    }

    /// Goes on, unless a signal has come.
    ///
    /// # Errors
    /// `Unavailable` that names the signal.
    pub fn check(&self) -> Result<()> {
        if self.caught.get().is_none()
            && let Ok(Some(found)) = self.signals.read_signal()
        {
            self.caught.set(i32::try_from(found.ssi_signo).ok().and_then(|n| n.try_into().ok()));
        }
        match self.caught.get() {
            Some(signal) => Err(Error::unavailable(format!("stopped by {signal}"))),
            None => Ok(()),
        }
    }

    /// The signal that has come, if one was noticed.
    pub fn caught(&self) -> Option<Signal> {
        self.caught.get()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Err(errno) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None) {
            log::error!("let signals in again: {errno}");
        }
    }
}

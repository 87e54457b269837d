//! Bars on standard error for work that takes its time, where somebody watches.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Bars, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Shows bars if standard error is a terminal.
    pub fn on_a_terminal() -> Self {
        Self { shown: std::io::stderr().is_terminal() }
    }

    /// A bar for `what`, of `total` bytes. It goes away when it is dropped.
    pub fn bar(self, what: &str, total: u64) -> Bar {
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {eta}";
        self.start(
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()),
            what,
            template,
        )
    }

    /// A count of bytes for `what`, whose end is not known.
    pub fn count(self, what: &str) -> Bar {
        self.start(ProgressBar::no_length(), what, "{msg} {bytes}")
    }

    fn start(self, bar: ProgressBar, what: &str, template: &str) -> Bar {
        if !self.shown {
            return Bar(ProgressBar::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Bar(bar)
    }
}

/// One bar.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// So many bytes more are done.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

//! Lines to containerd, through the FIFO `log` of each bundle.
//!
//! The lines have logrus's logfmt, which containerd copies into its own log. A FIFO that nobody
//! reads fills up: lines are then dropped, and the next one that fits says how many. The
//! supervisor never waits for its log. env_logger is not used here: it can neither drop lines
//! nor write a container's lines to that container's own FIFO.

use crate::id::ContainerId;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

struct Fifo {
    file: File,
    dropped: u64,
}

struct Sinks {
    namespace: String,
    fifos: Mutex<BTreeMap<String, Fifo>>,
}

static SINKS: OnceLock<Sinks> = OnceLock::new();

impl Sinks {
    fn fifos(&self) -> MutexGuard<'_, BTreeMap<String, Fifo>> {
        self.fifos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the `log` macros write to the FIFOs added with [`add`].
pub(super) fn init(namespace: &str, level: LevelFilter) {
    let sinks =
        SINKS.get_or_init(|| Sinks { namespace: namespace.to_owned(), fifos: Mutex::default() });
    // A second call finds the same logger in place.
    drop(log::set_logger(sinks));
    log::set_max_level(level);
}

/// Adds a container's FIFO. Opened for reading as well: without that it could not be opened
/// before containerd reads it, and a write after containerd has gone would fail.
pub(super) fn add(id: &ContainerId, bundle: &Path) {
    let path = bundle.join("log");
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path);
    let Ok(file) = opened else { return };
    if file.metadata().is_ok_and(|found| found.file_type().is_fifo())
        && let Some(sinks) = SINKS.get()
    {
        sinks.fifos().insert(id.as_str().to_owned(), Fifo { file, dropped: 0 });
    }
}

/// Closes a container's FIFO.
pub(super) fn remove(id: &ContainerId) {
    if let Some(sinks) = SINKS.get() {
        sinks.fifos().remove(id.as_str());
    }
}

impl Log for Sinks {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && is_ours(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let container = record.key_values().get("container".into()).map(|value| value.to_string());
        let mut fifos = self.fifos();
        let named = container.as_deref().filter(|id| fifos.contains_key(*id));
        // A line about no container in particular goes to the first: to all, it would stand in
        // containerd's log several times.
        let id = match named.or_else(|| fifos.keys().next().map(String::as_str)) {
            Some(id) => id.to_owned(),
            None => return,
        };
        let Some(fifo) = fifos.get_mut(&id) else { return };
        let line = line(SystemTime::now(), record, &self.namespace, &id, fifo.dropped);
        // FIFO writes up to PIPE_BUF are all or nothing.
        match nix::unistd::write(&fifo.file, line.as_bytes()) {
            Ok(_) => fifo.dropped = 0,
            Err(_) => fifo.dropped += 1,
        }
    }

    fn flush(&self) {}
}

/// The crates below have nothing to say at this level that an operator could act on, and ttrpc
/// reports every closed connection as an error.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("nexcage")
}

fn line(now: SystemTime, record: &Record<'_>, namespace: &str, id: &str, dropped: u64) -> String {
    /// PIPE_BUF, less what stands around the message.
    const MAX_MESSAGE: usize = 3500;
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let mut message = record.args().to_string();
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|&end| message.is_char_boundary(end));
        message.truncate(end.unwrap_or(0));
        message.push('…');
    }
    let time = humantime::format_rfc3339_nanos(now);
    let mut line = format!(
        "time=\"{time}\" level={level} msg={message:?} id={id} namespace={namespace} runtime=nexcage"
    );
    if dropped > 0 {
        line.push_str(&format!(" dropped={dropped}"));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_line_has_containerds_logfmt_and_stays_one_line() {
        let now = UNIX_EPOCH + Duration::from_nanos(1_795_363_200_000_000_001);
        let text = |message: std::fmt::Arguments<'_>| {
            let record =
                Record::builder().level(Level::Warn).target("nexcage").args(message).build();
            line(now, &record, "k8s.io", "web-1", 2)
        };
        assert_eq!(
            text(format_args!("said \"no\"\nand left")),
            "time=\"2026-11-22T16:00:00.000000001Z\" level=warning \
             msg=\"said \\\"no\\\"\\nand left\" id=web-1 namespace=k8s.io runtime=nexcage \
             dropped=2\n"
        );
        assert!(text(format_args!("{}", "ü".repeat(9000))).len() <= 4096);
    }
}

//! What a test has switched on: each fault is a file in one folder, there or not, and may be
//! turned on and off while everything runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder of the switches, and of what the stand-in itself remembers.
pub const FOLDER: &str = "/run/pve-standin";

/// A file of the folder.
pub fn file(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Whether a fault is on.
pub fn is_on(name: &str) -> bool {
    file(name).exists()
}

/// What the switch says, if it is there.
pub fn text(name: &str) -> Option<String> {
    std::fs::read_to_string(file(name)).ok().map(|text| text.trim().to_owned())
}

/// A time in milliseconds, if the switch is there and says one.
pub fn time(name: &str) -> Option<Duration> {
    text(name)?.parse().ok().map(Duration::from_millis)
}

/// Takes as long as `latency-<what>` says.
pub fn linger(what: &str) {
    if let Some(time) = time(&format!("latency-{what}")) {
        std::thread::sleep(time);
    }
}

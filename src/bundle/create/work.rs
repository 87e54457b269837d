//! What every step of the work has at hand.

use super::progress::Progress;
use super::stop::Stop;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// How many files, folders and links a root may be made of: each takes an inode, however small
/// the archive was.
const MOST_ENTRIES: u64 = 4 << 20;

/// The bounds, the bars, the signals, and what is to be said at the end.
#[derive(Debug)]
pub struct Work<'a> {
    /// Whether to stop.
    pub stop: &'a Stop,
    /// Bars.
    pub progress: Progress,
    /// How many bytes archives may still unpack to.
    pub bytes: u64,
    /// The bound itself, for messages.
    pub most_bytes: u64,
    /// Whether devices other than those every container has may be made.
    pub devices: bool,
    entries: u64,
    notes: BTreeMap<String, (u64, String)>,
}

impl<'a> Work<'a> {
    /// Work that unpacks `most_bytes` at most.
    pub fn new(stop: &'a Stop, most_bytes: u64, devices: bool) -> Self {
        Self {
            stop,
            progress: Progress::on_a_terminal(),
            bytes: most_bytes,
            most_bytes,
            devices,
            entries: 0,
            notes: BTreeMap::new(),
        }
    }

    /// One more file, folder or link.
    ///
    /// # Errors
    /// When there are too many, and when a signal has come.
    pub fn one_more(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > MOST_ENTRIES {
            return Err(Error::invalid(format!(
                "there are more than {MOST_ENTRIES} files, folders and links in it"
            )));
        }
        self.stop.check()
    }

    /// What is said when archives unpack to more than the bound.
    pub fn too_many_bytes(&self) -> String {
        format!("it unpacks to more than {} bytes: --max-size sets the bound", self.most_bytes)
    }

    /// Something that was left out and does not make the root useless. Said once, with a count.
    pub fn note(&mut self, what: impl Into<String>, first: &str) {
        self.notes.entry(what.into()).or_insert_with(|| (0, first.to_owned())).0 += 1;
    }

    /// All notes, a line each.
    pub fn notes(self) -> Vec<String> {
        let line = |(what, (count, first)): (String, (u64, String))| match count {
            1 => format!("{what}: {first}"),
            more => format!("{what}: {first} and {} more", more - 1),
        };
        self.notes.into_iter().map(line).collect()
    }
}

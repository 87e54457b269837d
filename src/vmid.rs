//! Which guest of Proxmox VE is which container's: the ledger of vmids.
//!
//! One file per vmid in one folder that outlives a reboot. A file's name is the reservation: it
//! comes into being by link(2), which gives a name to one process only, and it is complete before
//! it has the name, so a reader sees a whole entry or none. On this host an id belongs to whoever
//! has the file. In the cluster the guest's own configuration decides, which pmxcfs lets nobody
//! make twice; the loser frees its entry and takes another id.
//!
//! Removing and replacing happen under a lock of the folder, after a look at the generation that
//! the file holds: of two processes that clean up after the same dead supervisor, the slower one
//! must not take away what has been reserved meanwhile. Reserving needs no lock.

pub mod reconcile;
#[cfg(test)]
mod tests;

use crate::error::{Context, Error, Kind, Result};
use crate::id::{ContainerId, Namespace};
use crate::store::{Folder, ProcessId, create_private};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An entry larger than this was not written by nexcage.
const MAX_ENTRY: u64 = 64 << 10;

/// What tells one life of a container from another one of the same name. The guest carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(String);

impl Generation {
    /// One that nobody has had.
    ///
    /// # Errors
    /// When /proc does not give random numbers.
    pub fn new() -> Result<Self> {
        const SOURCE: &str = "/proc/sys/kernel/random/uuid";
        let text = fs::read_to_string(SOURCE).context(|| format!("read {SOURCE}"))?;
        Self::parse(text.trim())
    }

    /// Takes one that was written down.
    ///
    /// # Errors
    /// `InvalidArgument` for anything but hexadecimal digits and dashes.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if !fits {
            let found = crate::config::input::quoted(text);
            return Err(Error::invalid(format!("{found} is not a generation of nexcage's")));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Whose a vmid is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// containerd's namespace.
    pub namespace: Namespace,
    /// The container.
    pub id: ContainerId,
    /// Which of all containers that ever had this name.
    pub generation: Generation,
}

impl Identity {
    /// Takes one that was written down.
    ///
    /// # Errors
    /// `InvalidArgument` that says what is wrong.
    pub fn parse(namespace: &str, id: &str, generation: &str) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::parse(namespace)?,
            id: ContainerId::parse(id)?,
            generation: Generation::parse(generation)?,
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.id)
    }
}

/// How far a vmid's guest has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// There may be a guest, or not yet.
    Reserved,
    /// The guest has been made.
    Made,
    /// The container has been deleted, and whoever finds this finishes the guest's removal.
    Destroying,
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Reserved => "reserved",
            Self::Made => "made",
            Self::Destroying => "destroying",
        })
    }
}

/// One vmid's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The id.
    pub vmid: u32,
    /// Whose it is.
    pub identity: Identity,
    /// The container's bundle; empty where the entry was rebuilt from the guest.
    pub bundle: PathBuf,
    /// How far the guest has come.
    pub stage: Stage,
    /// The boot in which `owner` lived.
    pub boot_id: String,
    /// The process that is at work on it; none where the entry was rebuilt from the guest.
    pub owner: Option<ProcessId>,
    /// When it was reserved, in seconds since 1970.
    pub created: u64,
}

impl Entry {
    /// Whether the process that is at work on it still lives.
    pub fn has_owner(&self, boot_id: &str) -> bool {
        self.boot_id == boot_id && self.owner.is_some_and(ProcessId::is_alive)
    }
}

/// An entry as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    version: u32,
    vmid: u32,
    namespace: String,
    id: String,
    generation: String,
    bundle: PathBuf,
    boot_id: String,
    supervisor: Option<ProcessId>,
    state: Stage,
    created: u64,
}

impl From<&Entry> for Stored {
    fn from(entry: &Entry) -> Self {
        Self {
            version: 1,
            vmid: entry.vmid,
            namespace: entry.identity.namespace.to_string(),
            id: entry.identity.id.to_string(),
            generation: entry.identity.generation.to_string(),
            bundle: entry.bundle.clone(),
            boot_id: entry.boot_id.clone(),
            supervisor: entry.owner,
            state: entry.stage,
            created: entry.created,
        }
    }
}

/// Reads an entry's text. The number is looked at first: what a newer nexcage writes is not
/// broken, and is left to it.
fn parse(text: &[u8]) -> Result<Entry> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }

    let wrong =
        |error: serde_json::Error| Error::unknown(format!("not an entry of nexcage: {error}"));
    let Version { version } = serde_json::from_slice(text).map_err(wrong)?;
    if version != 1 {
        return Err(Error::precondition(format!(
            "version {version} of the entry is newer than this nexcage: upgrade it"
        )));
    }
    let stored: Stored = serde_json::from_slice(text).map_err(wrong)?;
    Ok(Entry {
        vmid: stored.vmid,
        identity: Identity::parse(&stored.namespace, &stored.id, &stored.generation)?,
        bundle: stored.bundle,
        stage: stored.state,
        boot_id: stored.boot_id,
        owner: stored.supervisor,
        created: stored.created,
    })
}

/// Who wants a vmid.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose it is to be.
    pub identity: Identity,
    /// The container's bundle.
    pub bundle: PathBuf,
}

/// All entries that can be read, and what is wrong with the others.
#[derive(Debug, Default)]
pub struct Listing {
    /// By vmid.
    pub entries: Vec<Entry>,
    /// The ids whose entries cannot be read, and why. Such an id stays taken.
    pub broken: Vec<(u32, Error)>,
}

/// What a temporary file's name begins with; the rest says which process made it.
const TEMPORARY: &str = ".new-";

/// The last id that was reserved, so that the next search begins behind it and an id is not used
/// again before all others have been. Only a hint: two processes may overwrite each other's.
const LAST: &str = ".last";

/// How long the lock of the folder is waited for. It is held for three system calls.
const LOCK: Duration = Duration::from_secs(2);

/// The folder of entries.
#[derive(Clone, Debug)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// The ledger below the folder for what outlives a reboot. Nothing is made until something is
    /// reserved.
    pub fn below(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("vmids") }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reserves an id of the range that neither an entry nor `taken` has.
    ///
    /// # Errors
    /// `Unavailable` when there is none.
    pub fn reserve(
        &self,
        range: RangeInclusive<u32>,
        taken: &BTreeSet<u32>,
        claim: &Claim,
    ) -> Result<Entry> {
        create_private(&self.folder)?;
        self.sweep()?;
        let (low, high) = (*range.start(), *range.end());
        let count = u64::from(high.saturating_sub(low)) + 1;
        let first = match self.last().filter(|last| range.contains(last)) {
            Some(last) => u64::from(last - low) + 1,
            // The nodes of a cluster begin at different places.
            None => scatter(&claim.identity.generation) % count,
        };
        for step in 0..count {
            let Ok(offset) = u32::try_from((first + step) % count) else { break };
            let vmid = low + offset;
            if taken.contains(&vmid) || self.path(vmid).symlink_metadata().is_ok() {
                continue;
            }
            let entry = Entry {
                vmid,
                identity: claim.identity.clone(),
                bundle: claim.bundle.clone(),
                stage: Stage::Reserved,
                boot_id: boot_id()?,
                owner: ProcessId::of(std::process::id().cast_signed()),
                created: now(),
            };
            if self.insert(&entry)? {
                self.note_last(vmid);
                return Ok(entry);
            }
        }
        Err(Error::unavailable(format!(
            "every vmid from {low} to {high} is taken: widen pct.vmid_min and pct.vmid_max, or see \
             what `nexcage vmid reconcile` would free"
        )))
    }

    /// Adds an entry, unless its id has one: then it answers false.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn insert(&self, entry: &Entry) -> Result<bool> {
        create_private(&self.folder)?;
        let path = self.path(entry.vmid);
        let writing = || format!("write {}", path.display());
        let new = Temporary::write(&self.folder, entry).context(writing)?;
        match fs::hard_link(&new.0, &path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            linked => linked.context(writing)?,
        }
        drop(new);
        self.sync()?;
        Ok(true)
    }

    /// Replaces what is written for an id and its generation, and takes it over: from now on this
    /// process is the one at work on it.
    ///
    /// # Errors
    /// `NotFound` when the id has no entry of that generation any more.
    pub fn set_stage(&self, entry: &Entry, stage: Stage) -> Result<Entry> {
        let owner = ProcessId::of(std::process::id().cast_signed());
        self.replace(Entry { stage, boot_id: boot_id()?, owner, ..entry.clone() })
    }

    /// Gives up work on an id and leaves it to whoever looks next, though this process lives on.
    ///
    /// # Errors
    /// As [`Ledger::set_stage`].
    pub fn leave(&self, entry: &Entry) -> Result<Entry> {
        self.replace(Entry { owner: None, ..entry.clone() })
    }

    fn replace(&self, entry: Entry) -> Result<Entry> {
        let path = self.path(entry.vmid);
        let writing = || format!("write {}", path.display());
        let new = Temporary::write(&self.folder, &entry).context(writing)?;
        let lock = self.lock()?;
        if !self.is_of(entry.vmid, &entry.identity.generation)? {
            return Err(Error::not_found(format!(
                "vmid {} is no longer that of {}",
                entry.vmid, entry.identity
            )));
        }
        fs::rename(&new.0, &path).context(writing)?;
        drop(lock);
        self.sync()?;
        Ok(entry)
    }

    /// Frees an id, if its entry is still of that generation; answers whether it was. The caller
    /// knows that there is no guest of that generation any more.
    ///
    /// # Errors
    /// When the entry cannot be read or removed.
    pub fn release(&self, vmid: u32, generation: &Generation) -> Result<bool> {
        let path = self.path(vmid);
        if path.symlink_metadata().is_err() {
            return Ok(false);
        }
        let lock = self.lock()?;
        if !self.is_of(vmid, generation)? {
            return Ok(false);
        }
        fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
        drop(lock);
        self.sync()?;
        Ok(true)
    }

    /// One id's entry.
    ///
    /// # Errors
    /// `NotFound` when it has none; what is wrong with it.
    pub fn read(&self, vmid: u32) -> Result<Entry> {
        let path = self.path(vmid);
        let reading = || format!("read {}", path.display());
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_ENTRY).read_to_end(&mut text))
            .context(reading)?;
        let entry = parse(&text).context(reading)?;
        if entry.vmid != vmid {
            return Err(Error::unknown(format!("it is about vmid {}", entry.vmid)))
                .context(reading);
        }
        Ok(entry)
    }

    /// Every entry. No folder is an empty ledger.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Listing> {
        let mut ids: Vec<u32> = self.names()?.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable();
        let mut listing = Listing::default();
        for vmid in ids {
            match self.read(vmid) {
                Ok(entry) => listing.entries.push(entry),
                // Freed since the names were read.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => listing.broken.push((vmid, error)),
            }
        }
        Ok(listing)
    }

    /// The entries of all generations of one container, by vmid.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn of(&self, namespace: &Namespace, id: &ContainerId) -> Result<Vec<Entry>> {
        let mut entries = self.list()?.entries;
        entries.retain(|entry| entry.identity.namespace == *namespace && entry.identity.id == *id);
        Ok(entries)
    }

    /// Removes the temporary files of processes that are gone.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn sweep(&self) -> Result<()> {
        for name in self.names()? {
            let Some(maker) = name.strip_prefix(TEMPORARY).and_then(Temporary::maker) else {
                continue;
            };
            if !maker.is_alive() {
                // Another process may be sweeping, too.
                drop(fs::remove_file(self.folder.join(name)));
            }
        }
        Ok(())
    }

    /// A place for a file of that suffix, on a disk that outlives a reboot. It goes when this is
    /// dropped, or when the ledger is swept after this process has ended.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn temporary(&self, suffix: &str) -> Result<Temporary> {
        create_private(&self.folder)?;
        Ok(Temporary(Temporary::name(&self.folder, suffix)))
    }

    fn path(&self, vmid: u32) -> PathBuf {
        self.folder.join(vmid.to_string())
    }

    fn names(&self) -> Result<Vec<String>> {
        names_in(&self.folder)
    }

    fn is_of(&self, vmid: u32, generation: &Generation) -> Result<bool> {
        match self.read(vmid) {
            Ok(entry) => Ok(entry.identity.generation == *generation),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The lock of the folder; the kernel takes it from a process that dies.
    fn lock(&self) -> Result<File> {
        const STEP: Duration = Duration::from_millis(1);
        let locking = || format!("lock {}", self.folder.display());
        let folder = File::open(&self.folder).context(locking)?;
        let mut waited = Duration::ZERO;
        loop {
            match folder.try_lock() {
                Ok(()) => return Ok(folder),
                Err(TryLockError::Error(error)) => return Err(error).context(locking),
                Err(TryLockError::WouldBlock) if waited < LOCK => {
                    std::thread::sleep(STEP);
                    waited += STEP;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::deadline(format!(
                        "{}: another nexcage has held it for {} s: see with `fuser` which one \
                         has been stopped in the middle",
                        locking(),
                        LOCK.as_secs()
                    )));
                }
            }
        }
    }

    fn sync(&self) -> Result<()> {
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .context(|| format!("write {}", self.folder.display()))
    }

    fn last(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join(LAST)).ok()?.trim().parse().ok()
    }

    fn note_last(&self, vmid: u32) {
        let noted = Temporary::create(&self.folder, format!("{vmid}\n").as_bytes(), false)
            .and_then(|new| fs::rename(&new.0, self.folder.join(LAST)));
        if let Err(error) = noted {
            log::warn!("note the last vmid in {}: {error}", self.folder.display());
        }
    }
}

/// A file that has no vmid's name yet. It goes when this is dropped, renamed or not.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// Where it is, or may be made.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A name that no other process gives and that this one gives once.
    fn name(folder: &Path, suffix: &str) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let pid = std::process::id();
        let started = crate::sys::process::start_time(pid.cast_signed()).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        folder.join(format!("{TEMPORARY}{pid}-{started}-{count}{suffix}"))
    }

    fn write(folder: &Path, entry: &Entry) -> Result<Self> {
        let text = serde_json::to_vec(&Stored::from(entry))
            .map_err(|error| Error::unknown(error.to_string()))?;
        Ok(Self::create(folder, &text, true)?)
    }

    fn create(folder: &Path, text: &[u8], lasting: bool) -> std::io::Result<Self> {
        let path = Self::name(folder, "");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let new = Self(path);
        file.write_all(text)?;
        if lasting {
            file.sync_all()?;
        }
        Ok(new)
    }

    /// The process that a name, without its beginning, tells of.
    fn maker(name: &str) -> Option<ProcessId> {
        let mut words = name.split('-').map(str::parse::<u64>);
        let pid = i32::try_from(words.next()?.ok()?).ok()?;
        Some(ProcessId { pid, start_time: words.next()?.ok()? })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing of that name.
        drop(fs::remove_file(&self.0));
    }
}

/// The file in a container's folder of state that says which guest it is.
const NOTE: &str = "vmid.json";

/// What a container's folder says about its guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    vmid: u32,
    generation: String,
}

/// Notes in a container's folder of state which guest it is, before there is one: as long as the
/// folder is there, the guest is not stale.
///
/// # Errors
/// Names the file.
pub fn note_in(folder: &Folder, entry: &Entry) -> Result<()> {
    let path = folder.path().join(NOTE);
    let note = Note { vmid: entry.vmid, generation: entry.identity.generation.to_string() };
    let text = serde_json::to_vec(&note).map_err(|error| Error::unknown(error.to_string()))?;
    let new = Temporary::create(folder.path(), &text, true);
    new.and_then(|new| fs::rename(&new.0, &path)).context(|| format!("write {}", path.display()))
}

/// What [`note_in`] has noted.
///
/// # Errors
/// Names the file; none is `None`.
pub fn noted_in(folder: &Folder) -> Result<Option<(u32, Generation)>> {
    let path = folder.path().join(NOTE);
    let text = match fs::read(&path) {
        Err(error) if is_absent(&error) => return Ok(None),
        text => text,
    };
    let reading = || format!("read {}", path.display());
    let note: Note = serde_json::from_slice(&text.context(reading)?)
        .map_err(|error| Error::unknown(error.to_string()))
        .context(reading)?;
    Ok(Some((note.vmid, Generation::parse(&note.generation).context(reading)?)))
}

/// The containers with a folder of state that is about a guest, and the guest's generation.
///
/// # Errors
/// When a folder cannot be read: what is in it might be a guest that must not be touched.
pub fn held(state_dir: &Path) -> Result<BTreeMap<(Namespace, ContainerId), Generation>> {
    let mut held = BTreeMap::new();
    for namespace in names_in(state_dir)? {
        let Ok(namespace) = Namespace::parse(&namespace) else { continue };
        for id in names_in(&state_dir.join(namespace.as_str()))? {
            let Ok(id) = ContainerId::parse(&id) else { continue };
            let folder = Folder::of(state_dir, &namespace, &id);
            if let Some((_, generation)) = noted_in(&folder)? {
                held.insert((namespace.clone(), id), generation);
            }
        }
    }
    Ok(held)
}

/// Whether there is nothing of a path, or what stands in its way is no folder.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The names in a folder, without those that are no text. No folder is an empty one.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let reading = || format!("read {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.context(reading)?,
    };
    let names: std::io::Result<Vec<_>> =
        entries.map(|entry| entry.map(|entry| entry.file_name().into_string())).collect();
    Ok(names.context(reading)?.into_iter().flatten().collect())
}

/// Which boot this is.
///
/// # Errors
/// When /proc does not say.
pub fn boot_id() -> Result<String> {
    const SOURCE: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(SOURCE).context(|| format!("read {SOURCE}"))?;
    Ok(text.trim().to_owned())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A number that says nothing about what it was made of.
fn scatter(generation: &Generation) -> u64 {
    let digest = Sha256::digest(generation.as_str());
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

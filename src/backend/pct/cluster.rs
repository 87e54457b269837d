//! What Proxmox VE's files say, without pct, whose every call costs most of a second: which
//! guests there are, whose they are, and whether one runs.

use super::guest::{self, GENERATION_LINE, ID_LINE, NAMESPACE_LINE, TAG};
use crate::config::input::{self, Links};
use crate::error::{Context, Error, Kind, Result};
use crate::vmid::reconcile::{Guest, Mark};
use crate::vmid::{Generation, Identity};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The largest file of the cluster file system, and more than any list of guests.
const MAX_FILE: usize = 16 << 20;

/// Where a host's parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The cluster file system.
    pub etc: PathBuf,
    /// What LXC keeps of guests.
    pub lxc: PathBuf,
    /// Where pct's locks are.
    pub lock: PathBuf,
    /// The sockets of this network namespace.
    pub sockets: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            etc: "/etc/pve".into(),
            lxc: "/var/lib/lxc".into(),
            lock: "/run/lock/lxc".into(),
            sockets: "/proc/net/unix".into(),
        }
    }
}

/// One guest of the cluster's list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its node.
    pub node: String,
    /// `lxc` or `qemu`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// How long the cluster file system may take to answer while a guest is made: nodes that have lost
/// each other for a moment make it wait.
pub const LONG: Duration = Duration::from_secs(5);

/// The same while one is removed, for which containerd gives 5 s in all.
pub const SHORT: Duration = Duration::from_secs(1);

/// How many questions that were given up may still wait for their answers.
const MOST_WAITING: usize = 4;

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Counts one question that waits.
struct Waiting;

impl Waiting {
    fn new() -> Option<Self> {
        let more = |waiting| (waiting < MOST_WAITING).then_some(waiting + 1);
        WAITING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Host {
    /// Does work that waits for the cluster file system beside this thread, which has others to
    /// serve: a file system whose daemon hangs holds up whoever touches it, without end.
    ///
    /// # Errors
    /// What the work says; `DeadlineExceeded` when there is no answer in time.
    pub async fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.ask_or(limit, work, |_, _| ()).await
    }

    /// As [`Host::ask`]. An answer that comes when nobody waits for it any more goes to `late`.
    async fn ask_or<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
        late: impl FnOnce(&Self, Result<T>) + Send + 'static,
    ) -> Result<T> {
        let silent = |how: String| {
            Error::deadline(format!(
                "the cluster file system {} does not answer{how}: see `systemctl status \
                 pve-cluster corosync`",
                self.etc.display()
            ))
        };
        let Some(waiting) = Waiting::new() else {
            return Err(silent(format!(" {MOST_WAITING} earlier calls")));
        };
        let (answer, answered) = tokio::sync::oneshot::channel();
        let host = self.clone();
        // Not one of the runtime's own: their end is waited for when a program ends.
        std::thread::Builder::new()
            .name("pmxcfs".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                let done = work(&host);
                if let Err(done) = answer.send(done) {
                    late(&host, done);
                }
                drop(waiting);
            })
            .context(|| "start a thread")?;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(Error::unknown("the thread that asked the cluster is gone")),
            Err(_) => Err(silent(format!(" within {} s", limit.as_secs()))),
        }
    }

    /// Waits for a pct, which itself waits without end for a cluster file system that hangs.
    ///
    /// # Errors
    /// What `pct` says; `DeadlineExceeded` when the file system does not answer.
    pub async fn while_it_answers<T>(&self, pct: impl Future<Output = Result<T>>) -> Result<T> {
        let mut pct = std::pin::pin!(pct);
        let look = async {
            loop {
                tokio::time::sleep(LONG).await;
                match self.ask(LONG, Self::list).await {
                    Err(error) if error.kind() == Kind::DeadlineExceeded => return error,
                    // Anything else pct says itself.
                    _ => {}
                }
            }
        };
        tokio::select! {
            biased;
            done = &mut pct => done,
            error = look => Err(error),
        }
    }

    /// [`Host::write_new`], beside this thread. What comes into being after nobody has waited for
    /// it any more goes again.
    ///
    /// # Errors
    /// As [`Host::write_new`] and [`Host::ask`].
    pub async fn make(&self, vmid: u32, text: String) -> Result<()> {
        let undo = move |host: &Self, made: Result<()>| {
            if made.is_ok() {
                // What is still there is found by its marks.
                drop(fs::remove_file(host.config(vmid)));
            }
        };
        self.ask_or(LONG, move |host| host.write_new(vmid, &text), undo).await
    }

    /// The file with a guest's configuration, if the guest is on this node.
    pub fn config(&self, vmid: u32) -> PathBuf {
        self.etc.join("lxc").join(format!("{vmid}.conf"))
    }

    /// What LXC keeps of a guest.
    pub fn leftovers(&self, vmid: u32) -> PathBuf {
        self.lxc.join(vmid.to_string())
    }

    /// Every guest of the cluster, of whatever kind.
    ///
    /// # Errors
    /// `Unavailable` when the cluster file system is not there: that is not "no guests".
    pub fn list(&self) -> Result<BTreeMap<u32, Listed>> {
        #[derive(Deserialize)]
        struct List {
            ids: BTreeMap<String, Listed>,
        }

        let path = self.etc.join(".vmlist");
        let text = input::read(&path, MAX_FILE, Links::Follow)
            .and_then(|text| text.ok_or_else(|| Error::unknown("there is no such file")))
            .map_err(|error| {
                Error::unavailable(format!(
                    "read {}: {error}: is this a host of Proxmox VE, and does `systemctl status \
                     pve-cluster` say that it runs?",
                    path.display()
                ))
            })?;
        let list: List = serde_json::from_slice(&text).map_err(|error| {
            Error::unavailable(format!("read {}: not a list of guests: {error}", path.display()))
        })?;
        let number = |(vmid, guest): (String, Listed)| {
            let vmid = vmid.parse().map_err(|_| {
                Error::unavailable(format!("read {}: {vmid:?} is no vmid", path.display()))
            })?;
            Ok((vmid, guest))
        };
        list.ids.into_iter().map(number).collect()
    }

    /// What the configuration of a guest of this node says about whose it is; `None` when there
    /// is no such guest here.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    pub fn mark(&self, vmid: u32) -> Result<Option<Mark>> {
        let path = self.config(vmid);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(explain).context(|| format!("read {}", path.display()))?,
        };
        Ok(Some(mark(&String::from_utf8_lossy(&text))))
    }

    /// Every guest of the cluster, with what it says about whose it is.
    ///
    /// # Errors
    /// As [`Host::list`].
    pub fn guests(&self) -> Result<BTreeMap<u32, Guest>> {
        let place = |(vmid, listed): (u32, Listed)| {
            let guest = match self.mark(vmid) {
                Ok(Some(mark)) => Guest::Here(mark),
                Ok(None) => {
                    let what = if listed.kind == "qemu" { "a virtual machine" } else { "a guest" };
                    Guest::Elsewhere(format!("{what} on the node {}", listed.node))
                }
                Err(error) => Guest::Here(Mark::Unclear(error.to_string())),
            };
            (vmid, guest)
        };
        Ok(self.list()?.into_iter().map(place).collect())
    }

    /// Whether a guest runs: LXC's monitor then listens on a socket, which is what pct itself
    /// looks at.
    ///
    /// # Errors
    /// When the list of sockets cannot be read.
    pub fn is_running(&self, vmid: u32) -> Result<bool> {
        let wanted = format!("@{}/command", self.leftovers(vmid).display());
        let text = fs::read_to_string(&self.sockets)
            .context(|| format!("read {}", self.sockets.display()))?;
        Ok(text.lines().any(|line| line.split(' ').next_back() == Some(&wanted)))
    }

    /// Makes a guest by writing its configuration. The cluster file system makes no two of one
    /// id, whatever their kind and node, so this reserves the id as well as `pct create` does.
    ///
    /// # Errors
    /// `AlreadyExists` when any guest of the cluster has the id, `Unavailable` without a quorum
    /// or when the cluster file system is full.
    pub fn write_new(&self, vmid: u32, text: &str) -> Result<()> {
        let path = self.config(vmid);
        let making = || format!("write {}", path.display());
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&path)
            .map_err(explain)
            .context(making)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if let Err(error) = written {
            // Half a configuration would be a guest that pct lists.
            drop(file);
            drop(fs::remove_file(&path));
            return Err(explain(error)).context(making);
        }
        Ok(())
    }

    /// Changes a guest's configuration, whole or not at all, under the lock that pct takes.
    /// Nothing is written where `change` changes nothing.
    ///
    /// # Errors
    /// `NotFound` when there is no such guest; what the cluster file system says.
    pub async fn rewrite(
        &self,
        vmid: u32,
        change: impl FnOnce(&str) -> String + Send + 'static,
    ) -> Result<()> {
        let lock = self.lock(vmid).await?;
        let work = move |host: &Self| {
            let done = host.write_changed(vmid, change);
            // Held to the end, also where nobody waits for that.
            drop(lock);
            done
        };
        self.ask(LONG, work).await
    }

    fn write_changed(&self, vmid: u32, change: impl FnOnce(&str) -> String) -> Result<()> {
        let path = self.config(vmid);
        let doing = || format!("write {}", path.display());
        let text = fs::read_to_string(&path).map_err(explain).context(doing)?;
        let changed = change(&text);
        if changed == text {
            return Ok(());
        }
        // As pct names them: a name that ends otherwise is no configuration to anyone.
        let new = self.etc.join("lxc").join(format!("{vmid}.conf.tmp.{}", std::process::id()));
        let written = fs::write(&new, changed).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            drop(fs::remove_file(&new));
        }
        written.map_err(explain).context(doing)
    }

    /// The lock that pct holds while it changes a guest's configuration.
    async fn lock(&self, vmid: u32) -> Result<File> {
        const STEP: Duration = Duration::from_millis(20);
        const STEPS: u32 = 100;
        let path = self.lock.join(format!("pve-config-{vmid}.lock"));
        let locking = || format!("lock {}", path.display());
        fs::create_dir_all(&self.lock).context(locking)?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(&path)
            .context(locking)?;
        for _ in 0..STEPS {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error).context(locking),
                // flock(2) has no way to wait that leaves the thread to others.
                Err(TryLockError::WouldBlock) => tokio::time::sleep(STEP).await,
            }
        }
        Err(Error::unavailable(format!(
            "{}: another pct has been at work on the guest for {} s: try again after it",
            locking(),
            (STEP * STEPS).as_secs()
        )))
    }

    /// Removes the configuration of a guest that has been begun, and says nothing yet.
    ///
    /// # Errors
    /// `FailedPrecondition` when it says something after all.
    pub async fn remove_unfinished(&self, vmid: u32) -> Result<()> {
        // Whoever makes a guest holds it while it writes.
        let lock = self.lock(vmid).await?;
        let remove = move |host: &Self| {
            let path = host.config(vmid);
            let removed = match host.mark(vmid)? {
                None => Ok(()),
                Some(Mark::Unfinished) => fs::remove_file(&path)
                    .map_err(explain)
                    .context(|| format!("remove {}", path.display())),
                Some(_) => Err(Error::precondition(format!(
                    "{}: the guest was finished by somebody in this moment",
                    path.display()
                ))),
            };
            drop(lock);
            removed
        };
        self.ask(SHORT, remove).await
    }

    /// Removes what LXC and pct leave of a guest that is gone.
    ///
    /// # Errors
    /// Names what would not go. Nothing there is success.
    pub fn remove_leftovers(&self, vmid: u32) -> Result<()> {
        let folder = self.leftovers(vmid);
        match remove_flat(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context(|| format!("remove {}", folder.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Removes a folder, the files in it, and empty folders in it, and nothing below those: a root
/// that is still mounted there must not be emptied.
fn remove_flat(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// The cluster file system's errors, with what they mean there.
fn explain(error: std::io::Error) -> Error {
    let (kind, advice) = match error.raw_os_error() {
        Some(libc::EEXIST) => (Kind::AlreadyExists, "another guest of the cluster has that vmid"),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            (Kind::Unavailable, "the cluster has no quorum: see `pvecm status`")
        }
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
            (Kind::Unavailable, "the cluster file system is full: see `df /etc/pve`")
        }
        Some(libc::ENOTCONN | libc::EIO) => (
            Kind::Unavailable,
            "the cluster file system is not there: see `systemctl status pve-cluster`",
        ),
        _ => return error.into(),
    };
    Error::new(kind, format!("{error}: {advice}"))
}

/// Every process, with its command line.
fn processes() -> Result<impl Iterator<Item = (i32, Vec<u8>)>> {
    let entries = fs::read_dir("/proc").context(|| "read /proc")?;
    Ok(entries.filter_map(|process| {
        let process = process.ok()?;
        let pid = process.file_name().to_str()?.parse().ok()?;
        // Ended meanwhile is as good as never seen.
        Some((pid, fs::read(process.path().join("cmdline")).ok()?))
    }))
}

/// The generations on a command line.
fn generations(line: &[u8]) -> impl Iterator<Item = String> {
    line.split(|byte| matches!(byte, 0 | b'\n'))
        .filter_map(|line| line.strip_prefix(GENERATION_LINE.as_bytes()))
        .map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The processes that make guests of nexcage's at this moment, by generation. Each is known by its
/// own command line, which holds the description that the guest will have: no moment is too early
/// or too late for that, as it would be for a note on disk.
///
/// # Errors
/// When /proc cannot be read.
pub fn makers() -> Result<BTreeMap<String, i32>> {
    let of =
        |(pid, line): (i32, Vec<u8>)| generations(&line).map(move |text| (text, pid)).collect();
    Ok(processes()?.flat_map(|process| -> Vec<_> { of(process) }).collect())
}

/// Who makes the guest of that id at this moment: a pct of that generation, or a worker of
/// whosever pct. The latter goes on when the former is killed, and calls itself by its task.
///
/// # Errors
/// When /proc cannot be read.
pub fn maker_of(vmid: u32, generation: &Generation) -> Result<Option<i32>> {
    let is = |line: &[u8]| {
        is_worker_for(line, vmid) || generations(line).any(|text| text == generation.as_str())
    };
    Ok(processes()?.find(|(_, line)| is(line)).map(|(pid, _)| pid))
}

/// Whether a command line is that of a task that creates this guest:
/// `task UPID:node:pid:start:time:vzcreate:vmid:user:`.
fn is_worker_for(line: &[u8], vmid: u32) -> bool {
    let line = String::from_utf8_lossy(line);
    let words: Vec<&str> = line.split(':').collect();
    line.starts_with("task UPID:")
        && words.windows(2).any(|pair| pair == ["vzcreate", &vmid.to_string()])
}

/// What the text of a guest's configuration says about whose it is.
pub fn mark(text: &str) -> Mark {
    // After the first heading come snapshots, which repeat what was once.
    let current = || text.lines().take_while(|line| !line.starts_with('['));
    let mut settings = current().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let said: Vec<String> =
        current().filter_map(|line| line.strip_prefix('#')).map(guest::decode).collect();
    let of = |key: &str| said.iter().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let tagged = current()
        .filter_map(|line| line.strip_prefix("tags:"))
        .any(|tags| tags.split([';', ',', ' ']).any(|tag| tag.trim() == TAG));
    let lines = (of(NAMESPACE_LINE), of(ID_LINE), of(GENERATION_LINE));
    match (tagged, lines) {
        (true, (Some(namespace), Some(id), Some(generation))) => {
            match Identity::parse(namespace, id, generation) {
                Ok(identity) => Mark::Ours(identity),
                Err(error) => Mark::Unclear(format!("its description is not nexcage's: {error}")),
            }
        }
        (true, _) => Mark::Unclear(format!(
            "it has the tag {TAG}, but its description does not say which container it is"
        )),
        (false, (None, None, None)) => {
            // What pct writes first of all, and what a crash between two system calls leaves.
            if settings.all(|line| line.replace(' ', "") == "lock:create") {
                Mark::Unfinished
            } else {
                Mark::Foreign
            }
        }
        (false, _) => Mark::Unclear(format!(
            "its description names a container, but it does not have the tag {TAG}"
        )),
    }
}

/// A configuration with these lines after its last one, unless it has them already. They go
/// before the first snapshot.
pub fn with_lines(text: &str, lines: &str) -> String {
    let end = text.find("\n[").map_or(text.len(), |at| at + 1);
    let (current, snapshots) = text.split_at(end);
    let mut changed = current.to_owned();
    if !changed.is_empty() && !changed.ends_with('\n') {
        changed.push('\n');
    }
    for line in lines.lines() {
        if !current.lines().any(|other| other == line) {
            changed.push_str(line);
            changed.push('\n');
        }
    }
    changed + snapshots
}

/// A configuration with other values for some keys; `None` removes one. A key that is new goes
/// before the raw lines, where pct wants it.
pub fn with_values(text: &str, values: &[(&str, Option<String>)]) -> String {
    let end = text.find("\n[").map_or(text.len(), |at| at + 1);
    let (current, snapshots) = text.split_at(end);
    let key = |line: &str| line.split_once(':').map(|(key, _)| key.to_owned());
    let mut lines: Vec<String> = current.lines().map(str::to_owned).collect();
    for (name, value) in values {
        let at = lines.iter().position(|line| key(line).as_deref() == Some(name));
        let line = value.as_ref().map(|value| format!("{name}: {value}"));
        match (at, line) {
            (Some(at), Some(line)) => lines[at] = line,
            (Some(at), None) => drop(lines.remove(at)),
            (None, Some(line)) => {
                let raw = lines.iter().position(|line| line.starts_with("lxc."));
                lines.insert(raw.unwrap_or(lines.len()), line);
            }
            (None, None) => {}
        }
    }
    let mut changed: String = lines.iter().map(|line| format!("{line}\n")).collect();
    changed.push_str(snapshots);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host in a folder.
    struct Fake {
        _folder: tempfile::TempDir,
        host: Host,
    }

    impl Fake {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let host = Host {
                etc: folder.path().join("etc"),
                lxc: folder.path().join("lib"),
                lock: folder.path().join("lock"),
                sockets: folder.path().join("unix"),
            };
            fs::create_dir_all(host.etc.join("lxc")).unwrap();
            Self { _folder: folder, host }
        }
    }

    const MARKED: &str = "#nexcage-namespace%3A k8s.io\n#nexcage-id%3A web-1\n\
                          #nexcage-generation%3A 1b4e\narch: amd64\ntags: a;nexcage\n\
                          lxc.include: /run/x\n";

    #[test]
    fn a_guest_says_whose_it_is_with_its_tag_and_its_description_together() {
        let ours = Mark::Ours(Identity::parse("k8s.io", "web-1", "1b4e").unwrap());
        assert_eq!(mark(MARKED), ours);
        // As somebody writes it by hand, with words of their own before it.
        assert_eq!(mark(&format!("#my notes\n{}", MARKED.replace("%3A", ":"))), ours);
        for (from, to, expected) in [
            ("nexcage\nlxc", "nexcages\nlxc", "does not have the tag"),
            ("#nexcage-id%3A web-1\n", "", "does not say which container"),
            ("web-1", "../1", "is not nexcage's"),
            ("web-1", "a b", "is not nexcage's"),
            ("1b4e", "x", "is not nexcage's"),
        ] {
            match mark(&MARKED.replace(from, to)) {
                Mark::Unclear(why) => assert!(why.contains(expected), "{why}"),
                other => panic!("{to}: {other:?}"),
            }
        }
        assert_eq!(mark("arch: amd64\ntags: web\n"), Mark::Foreign);
        assert_eq!(mark("lock: create\n"), Mark::Unfinished);
        assert_eq!(mark(""), Mark::Unfinished);
        // A snapshot's tags are not the guest's.
        assert_eq!(mark(&format!("arch: amd64\n[old]\n{MARKED}")), Mark::Foreign);
    }

    #[test]
    fn who_makes_a_guest_is_known_by_its_command_line() {
        let task = b"task UPID:pve:000001CE:000343BE:6B02696B:vzcreate:102:root@pam:\0";
        assert!(is_worker_for(task, 102) && !is_worker_for(task, 10));
        assert!(!is_worker_for(b"vi\0:vzcreate:102:", 102));
        let line = b"pct\0create\0902\0--description\0nexcage-id: a\nnexcage-generation: 1b4e\n\0";
        assert_eq!(generations(line).collect::<Vec<_>>(), ["1b4e"]);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_not_waited_for_and_undone_when_it_comes() {
        let host = Host::default();
        assert_eq!(host.ask(LONG, |_| Ok(7)).await.unwrap(), 7);
        let (go_on, hangs) = std::sync::mpsc::channel::<()>();
        let (came, late) = std::sync::mpsc::channel();
        let work = move |_: &Host| Ok(hangs.recv().is_err());
        let undo = move |_: &Host, done: Result<bool>| came.send(done.is_ok()).unwrap();
        let error = host.ask_or(Duration::from_millis(1), work, undo).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DeadlineExceeded);
        assert!(error.to_string().contains("/etc/pve does not answer"), "{error}");
        drop(go_on);
        assert!(late.recv().unwrap());
    }

    #[tokio::test]
    async fn only_what_says_nothing_is_removed_as_half_made() {
        let fake = Fake::new();
        let host = &fake.host;
        host.remove_unfinished(150).await.unwrap();
        fs::write(host.config(150), "lock: create\n").unwrap();
        host.remove_unfinished(150).await.unwrap();
        assert!(!host.config(150).exists());
        fs::write(host.config(150), MARKED).unwrap();
        let error = host.remove_unfinished(150).await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(host.config(150).exists());
    }

    #[test]
    fn every_guest_of_the_cluster_is_seen() {
        let fake = Fake::new();
        let host = &fake.host;
        assert_eq!(host.list().unwrap_err().kind(), Kind::Unavailable);
        let list = r#"{"version": 7, "ids": {
            "100": {"node": "a", "type": "qemu", "version": 1},
            "101": {"node": "b", "type": "lxc", "version": 2},
            "102": {"node": "a", "type": "lxc", "version": 3}}}"#;
        fs::write(host.etc.join(".vmlist"), list).unwrap();
        fs::write(host.config(102), MARKED).unwrap();
        let guests = host.guests().unwrap();
        assert_eq!(guests[&100], Guest::Elsewhere("a virtual machine on the node a".to_owned()));
        assert_eq!(guests[&101], Guest::Elsewhere("a guest on the node b".to_owned()));
        assert!(matches!(guests[&102], Guest::Here(Mark::Ours(_))));
        assert_eq!(guests.len(), 3);
        for broken in ["", "{}", r#"{"ids": {"x": {"node": "a", "type": "lxc"}}}"#] {
            fs::write(host.etc.join(".vmlist"), broken).unwrap();
            assert_eq!(host.guests().unwrap_err().kind(), Kind::Unavailable, "{broken}");
        }
    }

    #[test]
    fn a_guest_runs_while_its_monitor_listens() {
        let fake = Fake::new();
        let line =
            |path: &str| format!("0000000000000000: 00000002 00000000 00010000 0001 01 1 {path}\n");
        let path = |vmid| format!("@{}/{vmid}/command", fake.host.lxc.display());
        fs::write(&fake.host.sockets, line(&path(1500)) + &line(&path(150))).unwrap();
        assert!(fake.host.is_running(150).unwrap());
        assert!(!fake.host.is_running(50).unwrap());
        assert!(!fake.host.is_running(15).unwrap());
    }

    #[test]
    fn a_configuration_is_made_once() {
        let fake = Fake::new();
        fake.host.write_new(150, "arch: amd64\n").unwrap();
        let error = fake.host.write_new(150, "arch: i386\n").unwrap_err();
        assert_eq!(error.kind(), Kind::AlreadyExists);
        assert_eq!(fs::read_to_string(fake.host.config(150)).unwrap(), "arch: amd64\n");
    }

    #[test]
    fn the_cluster_file_systems_errors_mean_what_they_mean_there() {
        for (errno, kind) in [
            (libc::EEXIST, Kind::AlreadyExists),
            (libc::EACCES, Kind::Unavailable),
            (libc::ENOSPC, Kind::Unavailable),
            (libc::EFBIG, Kind::Unavailable),
            (libc::ENOTCONN, Kind::Unavailable),
            (libc::ENOENT, Kind::NotFound),
        ] {
            assert_eq!(explain(std::io::Error::from_raw_os_error(errno)).kind(), kind);
        }
    }

    #[tokio::test]
    async fn a_configuration_changes_under_pcts_lock_and_whole() {
        let fake = Fake::new();
        let host = &fake.host;
        let add = |text: &str| with_lines(text, "lxc.include: /i\n");
        let error = host.rewrite(150, add).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        host.write_new(150, "arch: amd64\n").unwrap();
        let lock = File::options().append(true).open(host.lock.join("pve-config-150.lock"));
        let lock = lock.unwrap();
        lock.lock().unwrap();
        let (rewritten, ()) = tokio::join!(host.rewrite(150, add), async {
            assert_eq!(fs::read_to_string(host.config(150)).unwrap(), "arch: amd64\n");
            lock.unlock().unwrap();
        });
        rewritten.unwrap();
        let text = fs::read_to_string(host.config(150)).unwrap();
        assert_eq!(text, "arch: amd64\nlxc.include: /i\n");
        host.rewrite(150, add).await.unwrap();
        assert_eq!(fs::read_to_string(host.config(150)).unwrap(), text);
        assert_eq!(fs::read_dir(host.etc.join("lxc")).unwrap().count(), 1);
    }

    #[test]
    fn lines_are_added_once_and_before_snapshots() {
        for (text, expected) in [
            ("a: 1", "a: 1\nl: 1\nl: 2\n"),
            ("a: 1\n", "a: 1\nl: 1\nl: 2\n"),
            ("a: 1\nl: 1\nl: 2\n", "a: 1\nl: 1\nl: 2\n"),
            ("a: 1\n\n[s]\nl: 1\n", "a: 1\n\nl: 1\nl: 2\n[s]\nl: 1\n"),
        ] {
            assert_eq!(with_lines(text, "l: 1\nl: 2\n"), expected);
        }
    }

    #[test]
    fn values_are_changed_added_and_removed_where_they_belong() {
        let text = "#memory: x\nmemory: 16\ncpulimit: 1\nlxc.include: /i\n\n[s]\nmemory: 1\n";
        let values =
            [("memory", Some("32".to_owned())), ("cpulimit", None), ("swap", Some("0".into()))];
        assert_eq!(
            with_values(text, &values),
            "#memory: x\nmemory: 32\nswap: 0\nlxc.include: /i\n\n[s]\nmemory: 1\n"
        );
    }

    #[test]
    fn leftovers_go_and_what_is_mounted_or_full_stays() {
        let fake = Fake::new();
        let folder = fake.host.leftovers(150);
        fake.host.remove_leftovers(150).unwrap();
        fs::create_dir_all(folder.join("passthrough")).unwrap();
        fs::write(folder.join("rules.seccomp"), "").unwrap();
        fake.host.remove_leftovers(150).unwrap();
        assert!(!folder.exists());
        fs::create_dir_all(folder.join("rootfs/etc")).unwrap();
        assert!(fake.host.remove_leftovers(150).is_err());
        assert!(folder.join("rootfs/etc").exists());
    }
}

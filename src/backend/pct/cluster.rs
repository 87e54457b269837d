//! What Proxmox VE's files say, without pct, whose every call costs most of a second: which
//! guests there are, whose they are, and whether one runs.

use super::guest::{self, GENERATION_LINE, ID_LINE, NAMESPACE_LINE, TAG};
use crate::config::input::{self, Links};
use crate::error::{Context, Error, Kind, Result};
use crate::vmid::Identity;
use crate::vmid::reconcile::{Guest, Mark};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
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

impl Host {
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
    pub async fn rewrite(&self, vmid: u32, change: impl FnOnce(&str) -> String) -> Result<()> {
        let path = self.config(vmid);
        let doing = || format!("write {}", path.display());
        let lock = self.lock(vmid).await?;
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
        drop(lock);
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

/// The processes that make guests of nexcage's at this moment, by generation. Each is known by its
/// own command line, which holds the description that the guest will have: no moment is too early
/// or too late for that, as it would be for a note on disk.
///
/// # Errors
/// When /proc cannot be read.
pub fn makers() -> Result<BTreeMap<String, i32>> {
    let mut makers = BTreeMap::new();
    for process in fs::read_dir("/proc").context(|| "read /proc")? {
        let process = process.context(|| "read /proc")?;
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Ended meanwhile is as good as never seen.
        let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
        let lines = line.split(|byte| matches!(byte, 0 | b'\n'));
        let generations = lines.filter_map(|line| line.strip_prefix(GENERATION_LINE.as_bytes()));
        makers.extend(generations.map(|text| (String::from_utf8_lossy(text).into_owned(), pid)));
    }
    Ok(makers)
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

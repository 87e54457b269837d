//! The cgroup of one container: its processes, stopping them, and its removal.
//!
//! A container has one folder in each hierarchy: one on a v2 host, some ten on a v1 host, both on
//! a hybrid one. They are found once, from the container's first process, and are then all that is
//! needed; so they can be written to a state record and used by another process later.
//!
//! What must stay true: no folder that holds this process, or that is a hierarchy's top, is ever
//! taken for a container's. A kill of everything in it would hit the supervisor, or the host.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};

/// A freezer settles within microseconds, unless a process sits in an uninterruptible call: one
/// second in all.
const FREEZE_TRIES: u32 = 500;
const FREEZE_PAUSE: Duration = Duration::from_millis(2);

/// What a kill waits for the freezer: five milliseconds.
const KILL_FREEZE_TRIES: u32 = 50;
const KILL_FREEZE_PAUSE: Duration = Duration::from_micros(100);

/// How often the processes are read again to catch what was forked while they were killed.
const KILL_ROUNDS: u32 = 32;

/// A cgroup stays busy until its last process is out of the kernel's hands. The pauses double from
/// one millisecond: a quarter of a second in all.
const REMOVE_TRIES: u32 = 9;

/// Where one container's processes live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    folders: Vec<Folder>,
}

/// The container's folder in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Folder {
    /// As `/proc/<pid>/cgroup` has them: `cpu,cpuacct`, `name=systemd`, or nothing for v2.
    controllers: String,
    path: PathBuf,
}

impl Folder {
    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }

    fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    fn is_named(&self) -> bool {
        self.controllers.starts_with("name=")
    }
}

impl Cgroup {
    /// The cgroup that `pid` is in, or `None` where it has none of its own.
    ///
    /// To be asked before the workload runs: an init such as systemd moves itself into a cgroup
    /// below the container's.
    pub fn of(pid: i32) -> Result<Option<Self>> {
        let theirs = read_membership(&pid.to_string())?;
        let own = read_membership("self")?;
        let mounts = read_mounts()?;
        Ok(Self::resolve(&theirs, &own, &mounts))
    }

    /// The cgroup of that path, in whichever hierarchies there is one.
    ///
    /// # Errors
    /// `InvalidArgument` for the top of the hierarchies, which is nobody's own.
    pub fn at(path: &str) -> Result<Option<Self>> {
        let plain = Path::new(path).components().all(|part| !matches!(part, Component::ParentDir));
        if !plain || path.trim_matches('/').is_empty() {
            return Err(Error::invalid(format!("{path:?} is no container's cgroup")));
        }
        let mounts = read_mounts()?;
        let own = read_membership("self")?;
        let folders: Vec<Folder> = memberships(&own)
            .filter_map(|(controllers, _)| {
                let path = mounts.iter().find_map(|mount| mount.folder(controllers, path))?;
                path.is_dir().then(|| Folder { controllers: controllers.to_owned(), path })
            })
            .collect();
        Ok((!folders.is_empty()).then_some(Self { folders }))
    }

    /// The folders of a process whose `/proc/<pid>/cgroup` is `theirs`, as seen by one whose is
    /// `own`. A hierarchy that the two share, or that is not mounted, is left out.
    fn resolve(theirs: &str, own: &str, mounts: &[Mount]) -> Option<Self> {
        let folders: Vec<Folder> = memberships(theirs)
            .filter(|(controllers, path)| {
                let own = memberships(own).find(|(others, _)| others == controllers);
                own.is_some_and(|(_, own)| !Path::new(own).starts_with(path))
            })
            .filter_map(|(controllers, path)| {
                let path = mounts.iter().find_map(|mount| mount.folder(controllers, path))?;
                Some(Folder { controllers: controllers.to_owned(), path })
            })
            .collect();
        (!folders.is_empty()).then_some(Self { folders })
    }

    /// The cgroup above this one, where this one is called `name`: LXC may keep a guest's processes
    /// one below the folder with its limits.
    #[must_use]
    pub fn above(&self, name: &str) -> Self {
        self.renamed(|path| match path.parent() {
            Some(parent) if path.file_name().is_some_and(|own| own == name) => parent.to_owned(),
            _ => path.to_owned(),
        })
    }

    /// The cgroup beside this one whose name has `suffix` at the end.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> Self {
        self.renamed(|path| {
            let mut path = path.as_os_str().to_owned();
            path.push(suffix);
            path.into()
        })
    }

    fn renamed(&self, rename: impl Fn(&Path) -> PathBuf) -> Self {
        let folders = self.folders.iter().map(|folder| Folder {
            controllers: folder.controllers.clone(),
            path: rename(&folder.path),
        });
        Self { folders: folders.collect() }
    }

    /// The files that a process joins it by: one in each hierarchy (cgroups(7)).
    pub fn files_to_join(&self) -> Vec<String> {
        let procs = |folder: &Folder| folder.path.join("cgroup.procs");
        self.folders.iter().filter_map(|folder| procs(folder).to_str().map(str::to_owned)).collect()
    }

    /// The folder in the v1 hierarchy of `controller`.
    pub fn legacy(&self, controller: &str) -> Option<&Path> {
        let folder = self.folders.iter().find(|folder| folder.has(controller))?;
        Some(&folder.path)
    }

    /// The folder in the v2 hierarchy.
    pub fn unified(&self) -> Option<&Path> {
        let folder = self.folders.iter().find(|folder| folder.is_unified())?;
        Some(&folder.path)
    }

    /// Whether resources are accounted for by v1 controllers, as on a hybrid host.
    pub fn is_legacy(&self) -> bool {
        self.folders.iter().any(|folder| !folder.is_unified() && !folder.is_named())
    }

    /// Whether anything of it is left.
    pub fn exists(&self) -> bool {
        self.folders.iter().any(|folder| folder.path.is_dir())
    }

    /// Every process in it and below it, in order; none when it is gone.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = BTreeSet::new();
        for folder in &self.folders {
            for path in tree(&folder.path) {
                // What cannot be read is gone, or holds threads of a process that is listed above.
                let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                pids.extend(parse_pids(&text));
            }
        }
        pids.into_iter().collect()
    }

    /// Sends `signal` to every process in it and below it. Answers how many there were.
    ///
    /// SIGKILL leaves none behind, also none that is forked meanwhile, and thaws what was frozen:
    /// on v1 a frozen process does not die.
    pub fn kill_all(&self, signal: i32) -> Result<usize> {
        let mut found = self.pids();
        if found.contains(&(std::process::id() as i32)) {
            return Err(Error::precondition(
                "this process is in the container's cgroup, and would signal itself",
            ));
        }
        let fatal = signal == libc::SIGKILL;
        if fatal {
            // Neither is needed where it fails: the rounds below do the same, only slower.
            // What is frozen cannot fork while the others are killed. One that sits in an
            // uninterruptible call cannot either, and is not waited for.
            if let Some(folder) = self.legacy("freezer") {
                write(&folder.join("freezer.state"), "FROZEN").ok();
                for _ in 0..KILL_FREEZE_TRIES {
                    if self.frozen() {
                        break;
                    }
                    thread::sleep(KILL_FREEZE_PAUSE);
                }
                found = self.pids();
            }
            if let Some(folder) = self.unified() {
                write(&folder.join("cgroup.kill"), "1").ok();
            }
        }
        let mut reached = BTreeSet::new();
        let mut failure = Ok(());
        for _ in 0..if fatal { KILL_ROUNDS } else { 1 } {
            found.retain(|pid| reached.insert(*pid));
            if found.is_empty() {
                break;
            }
            for pid in found {
                failure = failure.and(kill(pid, signal));
            }
            found = self.pids();
        }
        if fatal {
            failure = failure.and(self.let_die());
        }
        failure.map(|()| reached.len())
    }

    /// Stops every process in it where it is, and waits until that is so: microseconds, as a rule,
    /// and no more than a second.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true).inspect_err(|_| {
            // Half a pause would be reported as a failure, and hang as a success. The first error
            // is the one to tell.
            self.set_frozen(false).ok();
        })
    }

    /// Undoes [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    /// Lets what has been sent SIGKILL die: version 1 of the freezer keeps even that waiting until
    /// the thaw. What is only about to be frozen is thawed, too: a pause of crun's may have
    /// returned while it still says FREEZING. So is what is frozen below: the first process of a
    /// pid namespace ends when all others have.
    pub fn let_die(&self) -> Result<()> {
        let folders = self.legacy("freezer").map(tree).unwrap_or_default();
        folders.iter().map(|folder| thaw_dying(folder)).fold(Ok(()), Result::and)
    }

    /// Whether every process in it is frozen.
    pub fn frozen(&self) -> bool {
        match (self.legacy("freezer"), self.unified()) {
            (Some(folder), _) => fs::read_to_string(folder.join("freezer.state"))
                .is_ok_and(|state| state.trim() == "FROZEN"),
            (None, Some(folder)) => fs::read_to_string(folder.join("cgroup.events"))
                .is_ok_and(|events| value(&events, "frozen") == Some(1)),
            (None, None) => false,
        }
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let (file, text) = match (self.legacy("freezer"), self.unified(), frozen) {
            (Some(folder), _, true) => (folder.join("freezer.state"), "FROZEN"),
            (Some(folder), _, false) => (folder.join("freezer.state"), "THAWED"),
            (None, Some(folder), true) => (folder.join("cgroup.freeze"), "1"),
            (None, Some(folder), false) => (folder.join("cgroup.freeze"), "0"),
            (None, None, _) => {
                return Err(Error::unavailable("the container is in no freezer cgroup"));
            }
        };
        for _ in 0..FREEZE_TRIES {
            // Again each time: v1 misses a process that enters while the others are being frozen.
            write(&file, text).context(|| format!("write {text} to {}", file.display()))?;
            if self.frozen() == frozen {
                return Ok(());
            }
            thread::sleep(FREEZE_PAUSE);
        }
        let path = file.display();
        Err(Error::deadline(format!("{path} has not become {text}")))
    }

    /// Removes its folders from every hierarchy, with what the container made below them. All of
    /// them are tried; what is gone already is as good as removed. Waits up to a quarter of a
    /// second for processes that are on their way out.
    pub fn remove(&self) -> Result<()> {
        let mut pause = Duration::from_millis(1);
        for attempt in 1..=REMOVE_TRIES {
            let failures: Vec<_> = self
                .folders
                .iter()
                .filter_map(|folder| Some((&folder.path, remove_tree(&folder.path).err()?)))
                .collect();
            let busy = failures.iter().any(|(_, error)| is_busy(error));
            if attempt == REMOVE_TRIES || !busy {
                let errors = failures.into_iter().map(|(path, error)| {
                    Error::from(error).context(format!("remove {}", path.display()))
                });
                return Error::list(errors.collect()).map_or(Ok(()), Err);
            }
            thread::sleep(pause);
            pause *= 2;
        }
        Ok(())
    }
}

/// Where the hierarchies are mounted.
fn read_mounts() -> Result<Vec<Mount>> {
    let doing = || "/proc/self/mountinfo";
    let file = fs::File::open(doing()).context(doing)?;
    Mount::of_cgroups(BufReader::new(file)).context(doing)
}

/// Moves this process into the cgroup of that path, in every hierarchy where there is one.
///
/// # Errors
/// `NotFound` when no hierarchy has it.
pub fn join(path: &str) -> Result<()> {
    let mounts = read_mounts()?;
    let own = read_membership("self")?;
    let path = format!("/{}", path.trim_matches('/'));
    let mut joined = false;
    for (controllers, _) in memberships(&own) {
        let folder = mounts.iter().find_map(|mount| mount.folder(controllers, &path));
        if let Some(procs) = folder.map(|folder| folder.join("cgroup.procs")).filter(|f| f.exists())
        {
            fs::write(&procs, "0").context(|| format!("write {}", procs.display()))?;
            joined = true;
        }
    }
    if joined { Ok(()) } else { Err(Error::not_found(format!("no hierarchy has a cgroup {path}"))) }
}

/// The number after `key`, in a file whose lines are a key and a number each.
pub fn value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// One mount of a cgroup hierarchy.
#[derive(Debug)]
struct Mount {
    /// `None` is the v2 hierarchy. Else the options, among which are the controllers.
    legacy: Option<String>,
    /// The cgroup that the mount shows as its top: not `/` in a container or under a bind mount.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// The cgroup mounts of a mountinfo file, line by line: with many containers it is long.
    fn of_cgroups(mountinfo: impl BufRead) -> io::Result<Vec<Self>> {
        let mut mounts = Vec::new();
        for line in mountinfo.split(b'\n') {
            // A mount point somewhere else may be named in any bytes.
            mounts.extend(std::str::from_utf8(&line?).ok().and_then(Self::parse));
        }
        Ok(mounts)
    }

    fn parse(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let legacy = match filesystem.next()? {
            "cgroup" => Some(filesystem.nth(1)?.to_owned()),
            "cgroup2" => None,
            _ => return None,
        };
        let mut mount = mount.split(' ').skip(3);
        let root = unescape(mount.next()?)?.into();
        let point = unescape(mount.next()?)?.into();
        Some(Self { legacy, root, point })
    }

    /// Where the cgroup `path` is under this mount, if it is of this hierarchy and below its top.
    fn folder(&self, controllers: &str, path: &str) -> Option<PathBuf> {
        let matches = match &self.legacy {
            None => controllers.is_empty(),
            Some(options) => {
                controllers.split(',').all(|name| options.split(',').any(|option| option == name))
            }
        };
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        // `..` is how a cgroup outside of this process's cgroup namespace is shown: unreachable.
        let outside = below.components().any(|part| part == std::path::Component::ParentDir);
        let top = below.as_os_str().is_empty();
        (matches && !outside && !top).then(|| self.point.join(below))
    }
}

/// Undoes mountinfo's octal escapes of blanks and backslashes.
fn unescape(field: &str) -> Option<String> {
    let mut parts = field.split('\\');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let code = u8::from_str_radix(part.get(..3)?, 8).ok()?;
        out.push(char::from(code));
        out.push_str(part.get(3..)?);
    }
    Some(out)
}

fn read_membership(process: &str) -> Result<String> {
    let path = format!("/proc/{process}/cgroup");
    match fs::read_to_string(&path) {
        // The process ended between open and read.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            Err(Error::new(Kind::NotFound, format!("{path}: {error}")))
        }
        text => text.context(|| path),
    }
}

/// Controllers and path of each line of a `/proc/<pid>/cgroup` file. A path may have colons.
fn memberships(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    })
}

/// The processes of a cgroup.procs file. One of another pid namespace reads as 0, and signal 9 to
/// "process 0" would go to this process's own group.
fn parse_pids(text: &str) -> impl Iterator<Item = i32> {
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0)
}

/// A cgroup's folder and those below it, each after its parent; empty when it is gone.
///
/// A list and no recursion, because the container decides how deep it is.
fn tree(top: &Path) -> Vec<PathBuf> {
    if !top.is_dir() {
        return Vec::new();
    }
    let mut folders = vec![top.to_owned()];
    let mut next = 0;
    while let Some(folder) = folders.get(next) {
        let children = fs::read_dir(folder).into_iter().flatten().flatten();
        let children: Vec<PathBuf> = children
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        folders.extend(children);
        next += 1;
    }
    folders
}

fn remove_tree(top: &Path) -> io::Result<()> {
    for folder in tree(top).iter().rev() {
        match fs::remove_dir(folder) {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Thaws one cgroup of v1's whose processes are dying; those that are gone with it need none.
fn thaw_dying(folder: &Path) -> Result<()> {
    match write(&folder.join("freezer.state"), "THAWED") {
        Err(error) if !is_gone(&error) => {
            Err(error).context(|| format!("thaw {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Removed before the call, or between its open and its write: others, LXC's monitor among them,
/// remove a container's cgroups, too.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Busy with a process on its way out, or with a folder that was made since the tree was read.
fn is_busy(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty)
}

/// Writes without creating: on a cgroup filesystem that would hide "not there" behind "denied".
fn write(file: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

/// One that ended by itself meanwhile is success.
fn kill(pid: i32, signal: i32) -> Result<()> {
    match super::kill(pid, signal) {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A cgroup over made-up hierarchies: `controllers` and where each is "mounted". The container
    /// is at /pod/web in each.
    pub(crate) fn laid_out(hierarchies: &[(&str, &Path)]) -> Cgroup {
        let lines = |path: &str| -> String {
            hierarchies.iter().map(|(controllers, _)| format!("1:{controllers}:{path}\n")).collect()
        };
        let mounts: Vec<Mount> = hierarchies
            .iter()
            .map(|(controllers, point)| Mount {
                legacy: (!controllers.is_empty()).then(|| format!("rw,{controllers}")),
                root: "/".into(),
                point: point.to_path_buf(),
            })
            .collect();
        for (_, point) in hierarchies {
            fs::create_dir_all(point.join("pod/web")).unwrap();
        }
        Cgroup::resolve(&lines("/pod/web"), &lines("/shim"), &mounts).unwrap()
    }

    /// A shell in cgroups of its own, in each of this host's hierarchies that has a controller
    /// asked for. It waits for a line and then runs its script. Needs root.
    pub(crate) struct Contained {
        pub(crate) shell: Child,
        pub(crate) cgroup: Cgroup,
        _no_reaper: crate::sys::reaper::tests::NoReaper,
    }

    impl Contained {
        pub(crate) fn new(name: &str, controllers: &[&str], script: &str) -> Self {
            let mounts = fs::File::open("/proc/self/mountinfo").unwrap();
            let mounts = Mount::of_cgroups(BufReader::new(mounts)).unwrap();
            let no_reaper = crate::sys::reaper::tests::no_reaper();
            let name = format!("nexcage-test-{}-{name}", std::process::id());
            let wanted = |mount: &Mount| match &mount.legacy {
                Some(options) => options.split(',').any(|option| controllers.contains(&option)),
                None => true,
            };
            let folders = mounts.into_iter().filter(wanted).map(|mount| Folder {
                controllers: mount.legacy.unwrap_or_default(),
                path: mount.point.join(&name),
            });
            let cgroup = Cgroup { folders: folders.collect() };
            let shell = Command::new("sh")
                .args(["-c", &format!("read line; {script}")])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // Whole before the first folder is made, so that a failure leaves none behind.
            let mut contained = Self { shell, cgroup, _no_reaper: no_reaper };
            let pid = contained.shell.id();
            for folder in &contained.cgroup.folders {
                fs::create_dir(&folder.path).unwrap();
                write(&folder.path.join("cgroup.procs"), &pid.to_string()).unwrap();
            }
            let found = Cgroup::of(pid as i32).unwrap().unwrap();
            let paths = |cgroup: &Cgroup| -> BTreeSet<PathBuf> {
                cgroup.folders.iter().map(|folder| folder.path.clone()).collect()
            };
            assert_eq!(paths(&found), paths(&contained.cgroup));
            contained.cgroup = found;
            contained
        }

        pub(crate) fn go(&mut self) {
            self.shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        }
    }

    impl Drop for Contained {
        fn drop(&mut self) {
            self.cgroup.kill_all(libc::SIGKILL).ok();
            self.shell.wait().ok();
            self.cgroup.remove().ok();
        }
    }

    const HYBRID: &str = "\
24 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn resolve(theirs: &str, own: &str, mountinfo: &str) -> Option<Vec<(String, String)>> {
        let mounts = Mount::of_cgroups(mountinfo.as_bytes()).unwrap();
        let cgroup = Cgroup::resolve(theirs, own, &mounts)?;
        let folders = cgroup.folders.into_iter();
        Some(folders.map(|f| (f.controllers, f.path.display().to_string())).collect())
    }

    fn pair(controllers: &str, path: &str) -> (String, String) {
        (controllers.to_owned(), path.to_owned())
    }

    #[test]
    fn every_hierarchy_of_a_hybrid_host_is_found() {
        let theirs =
            "4:cpu,cpuacct:/pod/a:b\n3:memory:/pod/a:b\n1:name=systemd:/pod/a:b\n0::/pod/a:b\n";
        let own = "4:cpu,cpuacct:/\n3:memory:/\n1:name=systemd:/\n0::/\n";
        let found = vec![
            pair("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/pod/a:b"),
            pair("memory", "/sys/fs/cgroup/memory/pod/a:b"),
            pair("name=systemd", "/sys/fs/cgroup/systemd/pod/a:b"),
            pair("", "/sys/fs/cgroup/unified/pod/a:b"),
        ];
        assert_eq!(resolve(theirs, own, HYBRID), Some(found));
    }

    #[test]
    fn a_hierarchy_that_is_not_mounted_is_left_out() {
        let mountinfo = HYBRID.replace("cgroup2 cgroup2", "tmpfs tmpfs");
        let found = resolve("3:memory:/c\n0::/c\n", "3:memory:/\n0::/\n", &mountinfo);
        assert_eq!(found, Some(vec![pair("memory", "/sys/fs/cgroup/memory/c")]));
        assert_eq!(resolve("0::/c\n", "0::/\n", &mountinfo), None);
    }

    #[test]
    fn the_top_of_a_hierarchy_is_no_containers() {
        assert_eq!(resolve("3:memory:/\n0::/\n", "3:memory:/shim\n0::/shim\n", HYBRID), None);
    }

    #[test]
    fn a_cgroup_that_holds_this_process_is_no_containers() {
        let own = "3:memory:/shim\n0::/pod/shim\n";
        assert_eq!(resolve("3:memory:/shim\n0::/pod\n", own, HYBRID), None);
        // The name only starts alike; and below one's own is not one's own.
        let found = resolve("3:memory:/shim-2\n0::/pod/shim/web\n", own, HYBRID);
        let memory = pair("memory", "/sys/fs/cgroup/memory/shim-2");
        assert_eq!(found, Some(vec![memory, pair("", "/sys/fs/cgroup/unified/pod/shim/web")]));
    }

    #[test]
    fn a_hierarchy_this_process_is_not_known_to_be_elsewhere_in_is_left_out() {
        assert_eq!(resolve("3:memory:/c\n", "0::/\n", HYBRID), None);
    }

    #[test]
    fn the_root_of_a_mount_is_stripped() {
        let mountinfo = "1 0 0:32 /docker/abc /sys/fs/cgroup\\040x rw - cgroup2 cgroup rw\n";
        let found = resolve("0::/docker/abc/web\n", "0::/docker/abc\n", mountinfo);
        assert_eq!(found, Some(vec![pair("", "/sys/fs/cgroup x/web")]));
        assert_eq!(resolve("0::/docker/abcd\n", "0::/docker/abc\n", mountinfo), None);
        assert_eq!(resolve("0::/docker/abc\n", "0::/\n", mountinfo), None);
    }

    #[test]
    fn a_cgroup_outside_of_the_namespace_is_out_of_reach() {
        assert_eq!(resolve("0::/../other\n", "0::/\n", HYBRID), None);
    }

    #[test]
    fn a_process_of_another_pid_namespace_is_never_signalled() {
        assert_eq!(parse_pids("0\n17\n0\n4\n").collect::<Vec<_>>(), [17, 4]);
    }

    #[test]
    fn a_missing_process_is_not_found() {
        assert_eq!(Cgroup::of(i32::MAX).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn this_process_has_no_cgroup_of_its_own() {
        assert_eq!(Cgroup::of(std::process::id() as i32).unwrap(), None);
    }

    #[test]
    fn a_record_brings_the_same_cgroup_back() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = laid_out(&[("memory", &root.path().join("m")), ("", &root.path().join("u"))]);
        let text = serde_json::to_string(&cgroup).unwrap();
        assert_eq!(serde_json::from_str::<Cgroup>(&text).unwrap(), cgroup);
    }

    #[test]
    fn a_cgroup_that_is_gone_is_empty_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = laid_out(&[("", &root.path().join("u"))]);
        cgroup.remove().unwrap();
        assert!(!cgroup.exists());
        assert!(cgroup.pids().is_empty());
        cgroup.remove().unwrap();
        assert_eq!(cgroup.kill_all(libc::SIGKILL).unwrap(), 0);
    }

    #[test]
    fn what_is_killed_while_it_is_being_frozen_is_thawed() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = laid_out(&[("freezer", root.path())]);
        let state = root.path().join("pod/web/freezer.state");
        fs::write(&state, "FREEZING").unwrap();
        cgroup.let_die().unwrap();
        assert_eq!(fs::read_to_string(&state).unwrap(), "THAWEDNG");
    }

    /// The kernel has another word for it once the file is open.
    #[test]
    fn a_cgroup_removed_between_open_and_write_is_gone_too() {
        let mut web = Contained::new("gone", &["freezer"], "exit");
        let folder = web.cgroup.legacy("freezer").or(web.cgroup.unified()).unwrap().to_owned();
        let mut file = OpenOptions::new().write(true).open(folder.join("cgroup.procs")).unwrap();
        web.go();
        web.shell.wait().unwrap();
        web.cgroup.remove().unwrap();
        assert!(is_gone(&file.write_all(b"0").unwrap_err()));
        thaw_dying(&folder).unwrap();
    }

    #[test]
    fn what_the_container_made_below_is_removed_too() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = laid_out(&[("", root.path())]);
        fs::create_dir_all(root.path().join("pod/web/init.scope/deep")).unwrap();
        cgroup.remove().unwrap();
        assert!(root.path().join("pod").is_dir());
        assert!(!root.path().join("pod/web").exists());
    }

    #[test]
    fn a_container_that_holds_this_process_is_not_killed() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = laid_out(&[("", root.path())]);
        let below = root.path().join("pod/web/below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        let refused = cgroup.kill_all(libc::SIGKILL).unwrap_err();
        assert_eq!(refused.kind(), Kind::FailedPrecondition);
    }

    /// With v1's freezer, and with v2's.
    #[test]
    fn real_processes_are_found_frozen_killed_and_removed() {
        for controllers in [&["freezer", "pids", "name=systemd"][..], &[]] {
            let mut web = Contained::new("kill", controllers, "sleep 100 & sleep 100 & wait");
            web.go();
            let cgroup = web.cgroup.clone();
            while cgroup.pids().len() < 3 {
                thread::sleep(Duration::from_millis(1));
            }
            assert!(cgroup.pids().contains(&(web.shell.id() as i32)));
            cgroup.freeze().unwrap();
            assert!(cgroup.frozen());
            cgroup.thaw().unwrap();
            assert!(!cgroup.frozen());
            cgroup.freeze().unwrap();
            assert_eq!(cgroup.kill_all(libc::SIGKILL).unwrap(), 3);
            assert_eq!(web.shell.wait().unwrap().signal(), Some(libc::SIGKILL));
            cgroup.remove().unwrap();
            assert!(!cgroup.exists());
        }
    }

    #[test]
    fn what_the_container_froze_itself_is_killed_too() {
        let mut web = Contained::new("nested", &["freezer"], "sleep 100");
        let freezer = web.cgroup.legacy("freezer").or(web.cgroup.unified()).unwrap();
        let below = Cgroup {
            folders: vec![Folder {
                controllers: web
                    .cgroup
                    .legacy("freezer")
                    .map(|_| "freezer")
                    .unwrap_or_default()
                    .into(),
                path: freezer.join("below"),
            }],
        };
        fs::create_dir(freezer.join("below")).unwrap();
        write(&freezer.join("below/cgroup.procs"), &web.shell.id().to_string()).unwrap();
        below.freeze().unwrap();
        web.cgroup.kill_all(libc::SIGKILL).unwrap();
        assert_eq!(web.shell.wait().unwrap().signal(), Some(libc::SIGKILL));
        web.cgroup.remove().unwrap();
        assert!(!web.cgroup.exists());
    }

    #[test]
    fn nothing_outlives_a_kill_however_fast_it_forks() {
        let script = "f() { while :; do sleep 100 & done; }; f & f";
        let mut web = Contained::new("fork", &["freezer"], script);
        web.go();
        while web.cgroup.pids().len() < 50 {
            thread::sleep(Duration::from_millis(1));
        }
        web.cgroup.kill_all(libc::SIGKILL).unwrap();
        web.shell.wait().unwrap();
        web.cgroup.remove().unwrap();
    }

    #[test]
    fn a_realtime_signal_arrives() {
        let mut web = Contained::new("signal", &["freezer"], "sleep 100");
        assert_eq!(web.cgroup.kill_all(libc::SIGRTMIN() + 3).unwrap(), 1);
        assert_eq!(web.shell.wait().unwrap().signal(), Some(libc::SIGRTMIN() + 3));
    }
}

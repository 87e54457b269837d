//! What one test has to itself.

use super::start::Address;
use super::{Bundle, Events, Start, Task, bed, proc};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::TempDir;

/// A folder, a namespace and an event endpoint. When it goes, all that it made goes too:
/// supervisors, containers, mounts, cgroups.
pub struct Scene {
    /// The shim's program.
    pub program: PathBuf,
    /// The containerd namespace; every cgroup's name begins with it.
    pub namespace: String,
    /// containerd's end of the events.
    pub events: Events,
    /// PATH of the shim.
    pub path: OsString,
    folder: TempDir,
    starts: Mutex<Vec<Start>>,
    supervisors: Mutex<Vec<u32>>,
}

impl Scene {
    /// A scene for nexcage, on crun.
    pub fn new() -> Self {
        Self::with(&bed::shim())
    }

    /// A scene for this shim.
    pub fn with(program: &Path) -> Self {
        let mut scene = Self::without_events(program);
        scene.events.serve();
        scene
    }

    /// A scene whose event endpoint does not serve yet.
    pub fn without_events(program: &Path) -> Self {
        bed::check();
        let parent = Path::new("/run/tests");
        fs::create_dir_all(parent).unwrap();
        let folder = tempfile::Builder::new().prefix("nx").tempdir_in(parent).unwrap();
        let namespace = folder.path().file_name().unwrap().to_string_lossy().into_owned();
        let mut path = bed::crun().parent().unwrap().to_owned().into_os_string();
        path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        Self {
            program: program.to_owned(),
            namespace,
            events: Events::new(folder.path().join("ttrpc")),
            path,
            folder,
            starts: Mutex::default(),
            supervisors: Mutex::default(),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The name of the cgroup of a container.
    pub fn cgroup(&self, id: &str) -> String {
        format!("{}-{id}", self.namespace)
    }

    /// A bundle for a container that runs `args`.
    pub fn bundle(&self, id: &str, args: &[&str]) -> Bundle {
        let bundle = Bundle::new(&self.folder().join("b"), id, &self.cgroup(id), args);
        // Every container of a scene is cleaned up as containerd does it.
        self.starts.lock().unwrap().push(self.start(&bundle));
        bundle
    }

    /// The call of `start` for a bundle.
    pub fn start(&self, bundle: &Bundle) -> Start {
        let ttrpc = self.events.socket();
        Start::new(&self.program, &self.namespace, bundle, ttrpc, self.path.clone())
    }

    /// Starts a supervisor for a bundle and connects to it.
    pub async fn supervisor(&self, bundle: &Bundle) -> Task {
        let address = self.start(bundle).run().address();
        self.connect(&address).await
    }

    /// Connects to a supervisor, which then ends with the scene.
    pub async fn connect(&self, address: &Address) -> Task {
        let task = Task::connect(address).await;
        self.adopt(task.hello("nobody").await.unwrap().shim_pid);
        task
    }

    /// Makes this supervisor end with the scene.
    pub fn adopt(&self, pid: u32) {
        self.supervisors.lock().unwrap().push(pid);
    }

    /// A supervisor with a container that is running.
    pub async fn running(&self, bundle: &Bundle) -> Task {
        let task = self.supervisor(bundle).await;
        task.create(&bundle.create()).await.unwrap();
        task.start(&bundle.id, "").await.unwrap();
        task
    }

    /// Whatever of its containers is still in a cgroup hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = self.cgroup_folders();
        found.retain(|path| is_cgroup(path));
        found
    }

    /// The same, with the plain folders that crun 1.8 makes where a cgroup v2 hierarchy is missing
    /// from a hybrid set-up, and never removes.
    fn cgroup_folders(&self) -> Vec<PathBuf> {
        let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return Vec::new() };
        let roots = hierarchies.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        let mut found: Vec<_> = roots
            .flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten())
            .chain(fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&self.namespace))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    }

    /// Whatever is still mounted below its folder.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        table
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .map(PathBuf::from)
            .filter(|place| place.starts_with(self.folder()))
            .collect()
    }

    fn clean(&self) {
        for start in self.starts.lock().unwrap().drain(..) {
            // Its folder may be what a test took away.
            if start.bundle.exists() && start.program.exists() {
                start.action("delete").run();
            }
        }
        for pid in self.supervisors.lock().unwrap().drain(..) {
            if proc::is_alive(pid) {
                kill(pid);
            }
        }
        for cgroup in self.cgroup_folders() {
            if !is_cgroup(&cgroup) {
                drop(fs::remove_dir_all(&cgroup));
                continue;
            }
            let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            for pid in procs.lines().filter_map(|line| line.parse().ok()) {
                kill(pid);
            }
            // What is left here was reported by a test that failed, or is about to go.
            drop(fs::remove_dir(&cgroup));
        }
        for mount in self.mounts().iter().rev() {
            nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH).ok();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that panics must still say why, whatever its scene looks like.
        let tidy = std::panic::AssertUnwindSafe(|| self.clean());
        drop(std::panic::catch_unwind(tidy));
    }
}

fn is_cgroup(path: &Path) -> bool {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    statfs(path).is_ok_and(|found| found.filesystem_type() != TMPFS_MAGIC)
}

/// Sends SIGKILL to a process that this scene made.
pub fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
}

//! The command line, called as conmon and people call it.

use super::{bed, bundle, node};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A bundle, and the container that is to be made of it.
pub struct Container {
    /// The backend's name.
    pub backend: &'static str,
    /// The container's id, of which there is no other.
    pub id: String,
    /// A folder of the test's own; the bundle is `bundle` in it.
    pub folder: tempfile::TempDir,
    /// What config.json says.
    pub spec: Value,
}

/// PATH with the bed's crun and runc in front.
fn search_path() -> String {
    let folders = [bed::folder().join("crun-1.28"), bed::folder().join("runc-1.1")];
    let [crun, runc] = folders.map(|folder| folder.to_string_lossy().into_owned());
    format!("{crun}:{runc}:{}:{}", node::PROGRAMS, std::env::var("PATH").unwrap())
}

impl Container {
    /// A container that runs `args`.
    pub fn new(backend: &'static str, args: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        bed::check();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Cgroups are shared with other beds, in which pids repeat.
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let id = format!("oci-{}-{number}-{since:x}", std::process::id());
        let mut spec = bundle::spec(args, &id, &["CAP_KILL", "CAP_SETGID", "CAP_SETUID"]);
        spec["annotations"] = json!({ "org.example.key": "value" });
        let container = Self { backend, id, folder: tempfile::tempdir().unwrap(), spec };
        fs::create_dir(container.bundle()).unwrap();
        container.write();
        container
    }

    /// The bundle's folder.
    pub fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    /// The path of a file beside the bundle.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self) {
        fs::write(self.bundle().join("config.json"), self.spec.to_string()).unwrap();
    }

    /// Changes config.json.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.spec);
        self.write();
    }

    /// The command line with the backend, ready for a verb.
    pub fn nexcage(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexcage"));
        command.args(["--runtime-type", self.backend]).args(args);
        command.env("PATH", search_path()).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// crun or runc itself, with a state of its own.
    pub fn oracle(&self, args: &[&str]) -> Command {
        let program = match self.backend {
            "runc" => "runc-1.1/runc",
            _ => "crun-1.28/crun",
        };
        let mut command = Command::new(bed::folder().join(program));
        command.arg("--root").arg(self.file("oracle")).args(args);
        command.env("PATH", search_path()).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs the command line to its end.
    pub fn run(&self, args: &[&str]) -> Said {
        Said::of(&mut self.nexcage(args))
    }

    /// Creates it, with nobody at its stdio. Its output goes to the file `out`.
    #[track_caller]
    pub fn create(&self) {
        let mut command = self.nexcage(&["create", "-b", "bundle", "--pid-file", "pid", &self.id]);
        let out = fs::File::create(self.file("out")).unwrap();
        let status = command.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
        assert!(status.success(), "{status}: {}", self.output());
    }

    /// Creates and starts it.
    #[track_caller]
    pub fn start(&self) {
        self.create();
        self.run(&["start", &self.id]).good();
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(self.file("out")).unwrap_or_default()
    }

    /// What `state` says.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.run(&["state", &self.id]).good().out).unwrap()
    }

    /// The pid in its pid file.
    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.file("pid")).unwrap().parse().unwrap()
    }

    /// Its folder of state.
    pub fn record_folder(&self) -> PathBuf {
        Path::new("/run/nexcage/local").join(&self.id)
    }

    /// The pid of its watcher.
    pub fn watcher(&self) -> i32 {
        let text = fs::read_to_string(self.record_folder().join("state.json")).unwrap();
        let record: Value = serde_json::from_str(&text).unwrap();
        let pid = record["io.nexcage"]["supervisor"]["pid"].as_i64();
        i32::try_from(pid.expect("no watcher in the record")).unwrap()
    }

    /// Waits until `state` says that.
    #[track_caller]
    pub fn until(&self, status: &str) -> Value {
        eventually(&format!("it is {status}"), || {
            let state = self.state();
            (state["status"] == status).then_some(state)
        })
    }

    /// Waits until its end has been written down.
    #[track_caller]
    pub fn until_recorded(&self) -> Value {
        eventually("its end is recorded", || {
            let state = self.state();
            (!state["exitedAt"].is_null()).then_some(state)
        })
    }

    /// The folders of its cgroup, and of those that LXC puts beside it. A node of Proxmox VE has no
    /// others than its own.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        if let Some(first) = node::first() {
            return node::cgroups(first);
        }
        fn below(folder: &Path, id: &str, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                // The bed has hidden this one, and crun makes folders there all the same.
                if entry.file_name() == "unified" {
                    continue;
                }
                if entry.file_name().to_string_lossy().starts_with(id) {
                    found.push(entry.path());
                }
                below(&entry.path(), id, found);
            }
        }
        let mut found = Vec::new();
        below(Path::new("/sys/fs/cgroup"), &self.id, &mut found);
        found
    }

    /// Processes that have its id or its folder on their command line.
    pub fn processes(&self) -> Vec<String> {
        let own = std::process::id().to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().to_str() != Some(&own))
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(&self.id))
            .collect()
    }

    /// Waits until nothing is left of it.
    #[track_caller]
    pub fn left_nothing(&self) {
        self.left_nothing_but("nothing");
    }

    /// The same, cgroups of that name aside.
    #[track_caller]
    pub fn left_nothing_but(&self, ending: &str) {
        eventually("nothing is left", || {
            let mut cgroups = self.cgroups();
            cgroups.retain(|cgroup| !cgroup.to_string_lossy().ends_with(ending));
            if node::first().is_some() {
                cgroups.extend(node::left());
            }
            let left = (cgroups, self.processes(), self.record_folder().exists());
            (left == (Vec::new(), Vec::new(), false)).then_some(())
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.id), "{mounts}");
        assert!(!Path::new("/run/lxc").join("run/nexcage/local").join(&self.id).exists());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Of a test that has failed.
        drop(self.nexcage(&["delete", "-f", &self.id]).output());
    }
}

/// What a command has said.
#[derive(Debug)]
pub struct Said {
    /// Exit status; 128 and the number for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Runs a command to its end. Its output goes to files: a container has it open for longer.
    pub fn of(command: &mut Command) -> Self {
        use std::io::{Read, Seek};
        let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let status = command
            .stdout(out.try_clone().unwrap())
            .stderr(err.try_clone().unwrap())
            .status()
            .unwrap();
        let read = |file: &mut fs::File| {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        let code = std::os::unix::process::ExitStatusExt::signal(&status);
        let code = code.map_or_else(|| status.code().unwrap_or(-1), |signal| 128 + signal);
        Self { code, out: read(&mut out), err: read(&mut err) }
    }

    /// Fails unless it has succeeded.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Fails unless it has failed, and said that.
    #[track_caller]
    pub fn refused(self, words: &str) -> Self {
        assert_eq!(self.code, 1, "{self:?}");
        assert!(self.err.contains(words), "not {words:?}: {self:?}");
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Waits for `check` to give something, 30 s at most.
#[track_caller]
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

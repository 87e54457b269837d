//! Who is measured: each shim that is found, and crun by hand.

use crate::support::bundle::runc_options;
use crate::support::scene::Scene;
use crate::support::start::Address;
use crate::support::{Bundle, Start, Task, bed, proc};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use protobuf::{Message, MessageField};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// nexcage's name in the tables.
pub const NEXCAGE: &str = "nexcage";

/// A shim to measure.
pub struct Contender {
    /// Its name in the tables.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
}

impl Contender {
    /// nexcage, the bed's Go shims, and what NEXCAGE_BENCH_SHIMS names.
    pub fn all() -> Vec<Self> {
        let new = |name: &str, program: PathBuf| Self { name: name.to_owned(), program };
        let mut all = vec![new(NEXCAGE, bed::shim())];
        for version in ["2.1", "1.6"] {
            all.push(new(&format!("runc-v2 {version}"), bed::runc_shim(version)));
        }
        let more = std::env::var("NEXCAGE_BENCH_SHIMS").unwrap_or_default();
        for program in more.split(':').filter(|path| !path.is_empty()) {
            let name = Path::new(program).file_name().unwrap_or_default();
            all.push(new(&name.to_string_lossy(), program.into()));
        }
        all.retain(|contender| contender.program.exists());
        all
    }

    /// What it says of itself.
    pub fn version(&self) -> String {
        let said = Command::new(&self.program).arg("-v").output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said);
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether it is the one whose targets are looked at.
    pub fn is_nexcage(&self) -> bool {
        self.name == NEXCAGE
    }
}

/// One supervisor with one container, on its way.
pub struct Life {
    /// The bundle.
    pub bundle: Bundle,
    /// The call that started it.
    pub start: Start,
    /// Its API.
    pub task: Task,
    /// Its process.
    pub shim: u32,
}

/// The same runtime for everybody, in the message that all of them understand.
fn options() -> protobuf::well_known_types::any::Any {
    runc_options(&bed::crun())
}

/// The call of `start`, with the runtime chosen.
pub fn start_of(scene: &Scene, bundle: &Bundle) -> Start {
    scene.start(bundle).stdin(options().write_to_bytes().unwrap())
}

/// The Create request, with the runtime chosen.
pub fn create_of(bundle: &Bundle) -> containerd_shim_protos::api::CreateTaskRequest {
    let mut request = bundle.create();
    request.options = MessageField::some(options());
    request
}

impl Life {
    /// Starts a supervisor and a container that runs `args`.
    pub async fn begin(scene: &Scene, id: &str, args: &[&str]) -> Self {
        let bundle = Bundle::new(&scene.folder().join("b"), id, &scene.cgroup(id), args);
        let start = start_of(scene, &bundle);
        let address = Address::parse(&start.run_combined().0);
        let task = Task::connect(&address).await;
        let shim = task.hello(id).await.unwrap().shim_pid;
        task.create(&create_of(&bundle)).await.unwrap();
        task.start(id, "").await.unwrap();
        Self { bundle, start, task, shim }
    }

    /// Ends both, as containerd does.
    pub async fn end(self) {
        let id = self.bundle.id.as_str();
        self.task.kill(id, "", 9).await.unwrap();
        self.task.wait(id, "").await.unwrap();
        self.task.delete(id, "").await.unwrap();
        // It may close the connection before the answer has left.
        drop(self.task.shutdown(id).await);
        gone(self.shim).await;
        self.start.action("delete").run_combined();
    }
}

/// Waits for the end of a supervisor, and takes it off the list of processes.
pub async fn gone(pid: u32) {
    proc::within(Duration::from_secs(15), "a supervisor's end", || !proc::is_alive(pid)).await;
    // Its parent may be another process.
    waitpid(Pid::from_raw(pid as i32), None).ok();
}

/// crun by hand.
pub struct Bare<'a> {
    root: PathBuf,
    /// The bundle.
    pub bundle: &'a Bundle,
}

impl<'a> Bare<'a> {
    /// For this bundle.
    pub fn new(scene: &Scene, bundle: &'a Bundle) -> Self {
        Self { root: scene.folder().join("crun"), bundle }
    }

    fn run(&self, words: &[&str]) {
        let mut command = Command::new(bed::crun());
        command.arg("--root").arg(&self.root).args(words).current_dir(&self.bundle.path);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().unwrap();
        assert!(status.success(), "crun {words:?}: {status}");
    }

    /// `crun create`; returns the pid.
    pub fn create(&self) -> Pid {
        let file = self.bundle.path.join("pid");
        self.run(&["create", "--pid-file", file.to_str().unwrap(), &self.bundle.id]);
        Pid::from_raw(std::fs::read_to_string(file).unwrap().trim().parse().unwrap())
    }

    /// `crun start`
    pub fn start(&self) {
        self.run(&["start", &self.bundle.id]);
    }

    /// Waits for the process and reaps it.
    pub fn wait(&self, pid: Pid) {
        waitpid(pid, None).unwrap();
    }

    /// `crun exec`
    pub fn exec(&self, words: &[&str]) {
        self.run(&[&["exec", &self.bundle.id], words].concat());
    }

    /// `crun kill`
    pub fn kill(&self) {
        self.run(&["kill", &self.bundle.id, "KILL"]);
    }

    /// `crun delete`
    pub fn delete(&self) {
        self.run(&["delete", &self.bundle.id]);
    }
}

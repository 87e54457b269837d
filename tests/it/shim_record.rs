//! state.json: whoever dies while it is written, a reader finds the old record or the new one.

use nexcage::id::{ContainerId, Namespace};
use nexcage::store::{Folder, Own, Record, Status};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the child writes; the name of the variable.
const FOLDER: &str = "NEXCAGE_TEST_RECORD";

/// Where the child says which thread is to be traced.
const TID: &str = "tid";

fn folder(state: &Path) -> Folder {
    let (namespace, id) = (Namespace::parse("test").unwrap(), ContainerId::parse("web").unwrap());
    Folder::of(state, &namespace, &id)
}

/// A record; the new one differs in more than one place, and in its length.
fn record(new: bool) -> Record {
    let annotations = (0..if new { 300 } else { 100 })
        .map(|n| (format!("key-{n}"), "v".repeat(n)))
        .collect::<BTreeMap<_, _>>();
    Record {
        oci_version: "1.0.2".to_owned(),
        id: "web".to_owned(),
        status: if new { Status::Running } else { Status::Created },
        pid: Some(if new { 2 } else { 1 }),
        bundle: "/bundle".into(),
        annotations,
        own: Own {
            version: 1,
            namespace: "test".to_owned(),
            backend: "crun".to_owned(),
            runtime: "/usr/bin/crun".into(),
            runtime_root: "/run/crun".into(),
            systemd_cgroup: false,
            init_path: None,
            supervisor: None,
            by_command: false,
            maker: None,
            created: None,
            init: None,
            monitor: None,
            cgroup: None,
            cgroups_path: None,
            rootfs_mount: None,
            exit: None,
        },
    }
}

#[test]
fn a_supervisor_that_dies_between_any_two_system_calls_leaves_the_old_record_or_the_new() {
    let mut results = Vec::new();
    let mut died = 0;
    loop {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path());
        folder.create().unwrap();
        folder.save(&record(false)).unwrap();
        let finished = kill_at(state.path(), died);
        // Read it as anybody would: by the library, and as plain JSON.
        let found = folder.load().unwrap_or_else(|error| panic!("at stop {died}: {error}"));
        let text = std::fs::read_to_string(folder.path().join("state.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let is_new = found == record(true);
        assert!(is_new || found == record(false), "at stop {died}: a third record");
        results.push(is_new);
        // What a dead one left does not stop the next one.
        folder.save(&record(true)).unwrap();
        assert_eq!(folder.load().unwrap(), record(true));
        if finished {
            break;
        }
        died += 1;
    }
    // It was stopped often enough to matter, first before the change and then after it.
    assert!(died > 10, "only {died} stops");
    assert!(!results[0] && results[results.len() - 1]);
    assert!(results.is_sorted(), "{results:?}");
}

/// Runs the child up to its `number`-th stop at a system call's entry or exit, and kills it there;
/// returns whether it was through before that.
fn kill_at(state: &Path, number: usize) -> bool {
    let mut child = spawn(state);
    let tid = state.join(TID);
    let tid = loop {
        match std::fs::read_to_string(&tid).ok().and_then(|text| text.trim_end().parse().ok()) {
            Some(tid) => break tid,
            None => assert_eq!(child.try_wait().unwrap(), None, "the child ended by itself"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let pid = Pid::from_raw(tid);
    let wait = || waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
    // The stop that the child makes itself when it is ready.
    assert_eq!(wait(), WaitStatus::Stopped(pid, Signal::SIGSTOP));
    ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL).unwrap();
    let mut finished = false;
    let mut seen = 0;
    while seen <= number {
        ptrace::syscall(pid, None).unwrap();
        match wait() {
            WaitStatus::PtraceSyscall(_) => seen += 1,
            // The stop that it makes when it is through.
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {
                finished = true;
                break;
            }
            other => panic!("the child ended by itself: {other:?}"),
        }
    }
    child.kill().unwrap();
    // Its end is told to the tracer first.
    while !matches!(wait(), WaitStatus::Signaled(..)) {}
    child.wait().unwrap();
    finished
}

/// This very program, to run nothing but [`child_that_writes_a_record`].
fn spawn(state: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "shim_record::child_that_writes_a_record"])
        .args(["--nocapture", "--test-threads=1"])
        .env(FOLDER, state)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The other half of the test above, in a process of its own; nothing in any other.
#[test]
fn child_that_writes_a_record() {
    let Some(state) = std::env::var_os(FOLDER) else { return };
    let state = Path::new(&state);
    let (folder, new) = (folder(state), record(true));
    ptrace::traceme().unwrap();
    // The test harness runs this in a thread, which is what is traced.
    let written = state.join("tid.new");
    std::fs::write(&written, format!("{}\n", gettid())).unwrap();
    std::fs::rename(written, state.join(TID)).unwrap();
    raise(Signal::SIGSTOP).unwrap();
    folder.save(&new).unwrap();
    raise(Signal::SIGSTOP).unwrap();
}

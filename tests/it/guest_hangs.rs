//! LXC's monitor, or a guest, that does not go on: nobody waits for ever, the status is known, and
//! nothing is left.

use crate::support::bundle::toml_options;
use crate::support::scene::kill;
use crate::support::{Bundle, Scene, Task, proc};
use containerd_shim_protos::api::CreateTaskRequest;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use protobuf::MessageField;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn bundle(scene: &Scene) -> Bundle {
    scene
        .bundle("c", &["sh", "-c", "sleep 1000 & sleep 1000"])
        .edit(|spec| spec["annotations"] = json!({ "io.nexcage.backend": "lxc" }))
}

/// A Create with a script in lxc-start's place.
fn create_with(scene: &Scene, bundle: &Bundle, script: &str) -> CreateTaskRequest {
    let program = scene.folder().join("lxc-start");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let body = format!("lxc = {{ path = \"{}\" }}", program.display());
    CreateTaskRequest { options: MessageField::some(toml_options(&body)), ..bundle.create() }
}

#[track_caller]
fn nothing_is_left(scene: &Scene, when: &str) {
    let mut left = scene.cgroups();
    left.extend(scene.mounts());
    for place in ["/run/nexcage", "/run/lxc/run/nexcage", "/run/lxc/lock/run/nexcage"] {
        let place = Path::new(place).join(&scene.namespace).join("c");
        left.extend(Some(place).filter(|place| place.exists()));
    }
    assert!(left.is_empty(), "{when}: {left:?}");
}

/// A cgroup that somebody has frozen. It is thawed in the end, or nothing could end this bed.
struct Frozen(PathBuf, &'static str);

impl Frozen {
    fn new(cgroup: &str) -> Self {
        let legacy = Path::new("/sys/fs/cgroup/freezer").join(cgroup).join("freezer.state");
        let (file, text, thawed) = if legacy.exists() {
            (legacy, "FROZEN", "THAWED")
        } else {
            (Path::new("/sys/fs/cgroup").join(cgroup).join("cgroup.freeze"), "1", "0")
        };
        fs::write(&file, text).unwrap();
        Self(file, thawed)
    }

    /// A cgroup in the guest's, with this process.
    fn below(cgroup: &str, pid: u32) -> Self {
        let legacy = Path::new("/sys/fs/cgroup/freezer");
        let (top, cgroup) = if legacy.exists() {
            (legacy, format!("{cgroup}/in"))
        } else {
            (Path::new("/sys/fs/cgroup"), format!("{cgroup}/ns/in"))
        };
        fs::create_dir(top.join(&cgroup)).unwrap();
        fs::write(top.join(&cgroup).join("cgroup.procs"), pid.to_string()).unwrap();
        Self::new(&cgroup)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        fs::write(&self.0, self.1).ok();
    }
}

/// Kills it; its status must be known in time, and its removal leave nothing.
async fn ends(scene: &Scene, task: &Task, when: &str) {
    let began = Instant::now();
    task.kill("c", "", 9).await.unwrap();
    assert_eq!(task.wait("c", "").await.unwrap(), 137, "{when}");
    assert!(began.elapsed() < Duration::from_secs(5), "{when}: {:?}", began.elapsed());
    assert_eq!(task.delete("c", "").await.unwrap().exit_status, 137, "{when}");
    nothing_is_left(scene, when);
}

#[tokio::test]
async fn an_lxc_start_that_ends_without_a_word_is_named_with_its_status() {
    for (script, status) in [("exit 127", 127), ("kill -9 $$", 137)] {
        let scene = Scene::new();
        let bundle = bundle(&scene);
        let task = scene.supervisor(&bundle).await;
        let error = task.create(&create_with(&scene, &bundle, script)).await.unwrap_err();
        let error = error.to_string();
        let program = scene.folder().join("lxc-start");
        let said = format!("{} ended with status {status} before", program.display());
        assert!(error.contains(&said) && error.contains("--version` run"), "{error}");
        nothing_is_left(&scene, script);
    }
}

#[tokio::test]
async fn a_create_in_which_lxc_start_hangs_is_in_the_log_and_ends_by_a_kill_or_a_delete() {
    for how in ["kill", "delete"] {
        let scene = Scene::new();
        let bundle = bundle(&scene);
        let task = scene.supervisor(&bundle).await;
        let shim = task.hello("c").await.unwrap().shim_pid;
        let script = "kill -STOP $$; exec lxc-start \"$@\"";
        let (calling, call) = (task.clone(), create_with(&scene, &bundle, script));
        let creating = tokio::spawn(async move { calling.create(&call).await });
        let stopped = || proc::children(shim).iter().any(|&child| proc::state(child) == Some('T'));
        proc::eventually("it hangs", stopped).await;
        if how == "kill" {
            let said = || bundle.logged().contains("its guest is not there after 10 s");
            proc::within(Duration::from_secs(15), "it is said", said).await;
            task.kill("c", "", 9).await.unwrap();
        } else {
            drop(task.delete("c", "").await);
        }
        creating.await.unwrap().unwrap_err();
        assert!(proc::children(shim).is_empty(), "lxc-start is left");
        nothing_is_left(&scene, how);
    }
}

#[tokio::test]
async fn the_status_of_a_guest_is_known_though_lxc_start_is_stopped_or_frozen() {
    for (when, frozen) in [("created", false), ("running", false), ("running", true)] {
        let scene = Scene::new();
        let bundle = bundle(&scene);
        let task = scene.supervisor(&bundle).await;
        let pid = task.create(&bundle.create()).await.unwrap();
        if when == "running" {
            task.start("c", "").await.unwrap();
        }
        let monitor = proc::number(pid, "status", "PPid:");
        let monitor = Pid::from_raw(i32::try_from(monitor).unwrap());
        let held = frozen.then(|| Frozen::new(&format!("{}.monitor", scene.cgroup("c"))));
        if !frozen {
            signal::kill(monitor, Signal::SIGSTOP).unwrap();
        }
        ends(&scene, &task, &format!("{when}, frozen: {frozen}")).await;
        drop(held);
    }
}

#[tokio::test]
async fn what_somebody_has_frozen_can_be_killed_and_deleted() {
    for when in ["created", "running", "in part"] {
        let scene = Scene::new();
        let bundle = bundle(&scene);
        let task = scene.supervisor(&bundle).await;
        let pid = task.create(&bundle.create()).await.unwrap();
        if when != "created" {
            task.start("c", "").await.unwrap();
        }
        let cgroup = scene.cgroup("c");
        let held = if when == "in part" {
            proc::eventually("it has a child", || !proc::children(pid).is_empty()).await;
            Frozen::below(&cgroup, proc::children(pid)[0])
        } else {
            Frozen::new(&cgroup)
        };
        if when == "created" {
            let deleting = tokio::time::timeout(Duration::from_secs(5), task.delete("c", ""));
            assert_eq!(deleting.await.expect("Delete hangs").unwrap().exit_status, 137);
            nothing_is_left(&scene, when);
        } else {
            ends(&scene, &task, when).await;
        }
        drop(held);
    }
}

#[tokio::test]
async fn a_frozen_lxc_start_whose_supervisor_was_killed_is_cleaned_up() {
    let scene = Scene::new();
    let bundle = bundle(&scene);
    let task = scene.running(&bundle).await;
    let held = Frozen::new(&format!("{}.monitor", scene.cgroup("c")));
    let shim = task.hello("c").await.unwrap().shim_pid;
    kill(shim);
    proc::eventually("the supervisor is dead", || !proc::is_alive(shim)).await;
    assert_eq!(scene.start(&bundle).action("delete").run().deleted().exit_status, 137);
    nothing_is_left(&scene, "deleted");
    drop(held);
}

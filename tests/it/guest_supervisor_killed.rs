//! A supervisor of an LXC guest that is killed, at any moment: `delete` leaves nothing of LXC's.

use crate::node;
use crate::support::scene::kill;
use crate::support::{Bundle, Scene, Task, proc};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SLEEP: [&str; 2] = ["sleep", "1000"];

fn bundle(scene: &Scene, edit: impl FnOnce(&mut Value)) -> Bundle {
    scene.bundle("c", &SLEEP).on_mounts().edit(|spec| {
        spec["annotations"] = json!({ "io.nexcage.backend": "lxc" });
        edit(spec);
    })
}

/// A hook that says that it runs, and does not end.
fn hanging(scene: &Scene) -> Value {
    let script = format!("echo > {}; exec sleep 1000", scene.folder().join("hangs").display());
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
}

/// Kills the supervisor, and waits until it is dead.
async fn kill_supervisor(task: &Task) {
    let shim = task.hello("nobody").await.unwrap().shim_pid;
    kill(shim);
    proc::eventually("the supervisor is dead", || !proc::is_alive(shim)).await;
}

/// Every process of LXC's or of a guest of this scene.
fn processes(scene: &Scene) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let line = read("cmdline");
        let ours = line.contains(&format!("/run/nexcage/{}", scene.namespace));
        // The gate's mount, and the root's.
        let inside = format!("{}/c/gate", scene.namespace);
        if ours || read("mountinfo").contains(&inside) {
            found.push(format!("{}: {line}", entry.file_name().display()));
        }
    }
    found
}

/// `delete`, after which nothing is there; how the container is said to have ended.
#[track_caller]
fn delete(scene: &Scene, bundle: &Bundle, when: &str) -> (u32, u32) {
    let reply = scene.start(bundle).action("delete").run();
    assert!(reply.took < Duration::from_secs(5), "{when}: {:?}", reply.took);
    let deleted = reply.deleted();
    let left = processes(scene);
    assert!(left.is_empty(), "{when}: {left:#?}");
    assert!(scene.mounts().is_empty(), "{when}: {:?}", scene.mounts());
    assert!(scene.cgroups().is_empty(), "{when}: {:?}", scene.cgroups());
    for place in ["/run/nexcage", "/run/lxc/run/nexcage", "/run/lxc/lock/run/nexcage"] {
        let place = Path::new(place).join(&scene.namespace).join("c");
        assert!(!place.exists(), "{when}: {} is there", place.display());
    }
    (deleted.pid, deleted.exit_status)
}

async fn create(task: &Task, bundle: &Bundle) -> u32 {
    let mut create = bundle.create();
    create.rootfs = vec![Bundle::bind_mount()];
    task.create(&create).await.unwrap()
}

#[tokio::test]
async fn once_created_once_running_with_an_exec_and_while_paused() {
    for when in ["created", "running", "paused"] {
        let scene = Scene::new();
        let bundle = bundle(&scene, |_| ());
        let task = scene.supervisor(&bundle).await;
        let pid = create(&task, &bundle).await;
        if when != "created" {
            task.start("c", "").await.unwrap();
            task.exec(&bundle.exec("e", &SLEEP)).await.unwrap();
            task.start("c", "e").await.unwrap();
        }
        if when == "paused" {
            task.pause("c").await.unwrap();
        }
        kill_supervisor(&task).await;
        assert_eq!(delete(&scene, &bundle, when).0, pid, "{when}");
        // Any number of times.
        delete(&scene, &bundle, when);
    }
}

#[tokio::test]
async fn after_the_end_its_status_is_kept() {
    let scene = Scene::new();
    let bundle = bundle(&scene, |spec| spec["process"]["args"] = json!(["sh", "-c", "exit 3"]));
    let task = scene.supervisor(&bundle).await;
    let pid = create(&task, &bundle).await;
    task.start("c", "").await.unwrap();
    assert_eq!(task.wait("c", "").await.unwrap(), 3);
    kill_supervisor(&task).await;
    assert_eq!(delete(&scene, &bundle, "stopped"), (pid, 3));
}

#[tokio::test]
async fn in_a_hook_of_a_create() {
    for kind in ["prestart", "createContainer"] {
        let scene = Scene::new();
        let bundle = bundle(&scene, |spec| spec["hooks"] = json!({ kind: hanging(&scene) }));
        let task = scene.supervisor(&bundle).await;
        let (mut request, other) = (bundle.create(), task.clone());
        request.rootfs = vec![Bundle::bind_mount()];
        let creating = tokio::spawn(async move { other.create(&request).await });
        proc::eventually("the hook runs", || scene.folder().join("hangs").exists()).await;
        kill_supervisor(&task).await;
        creating.await.unwrap().unwrap_err();
        delete(&scene, &bundle, kind);
    }
}

#[tokio::test]
async fn at_any_moment_of_a_create() {
    let scene = Scene::new();
    let bundle = bundle(&scene, |_| ());
    for delay in (0..120).step_by(5) {
        let task = scene.supervisor(&bundle).await;
        let shim = task.hello("c").await.unwrap().shim_pid;
        let mut create = bundle.create();
        create.rootfs = vec![Bundle::bind_mount()];
        let creating = tokio::spawn(async move { task.create(&create).await });
        // Every time at another moment of it.
        tokio::time::sleep(Duration::from_millis(delay)).await;
        kill(shim);
        // Dead in the middle, or just after the answer.
        drop(creating.await.unwrap());
        proc::eventually("the supervisor is dead", || !proc::is_alive(shim)).await;
        delete(&scene, &bundle, &format!("after {delay} ms"));
    }
}

/// As `crun delete --force` does it.
#[tokio::test]
async fn hooks_of_kind_poststop_run_once_for_a_container_that_was_created() {
    for backend in ["crun", "lxc", "pct"] {
        let scene = node::scene(backend);
        let said = scene.folder().join("poststop");
        let script = format!("cat >> {}", said.display());
        let bundle = bundle(&scene, |spec| {
            spec["annotations"]["io.nexcage.backend"] = backend.into();
            spec["hooks"] = json!({ "poststop": [{
                "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"],
            }] });
        });
        let task = scene.supervisor(&bundle).await;
        create(&task, &bundle).await;
        task.start("c", "").await.unwrap();
        kill_supervisor(&task).await;
        for _ in 0..2 {
            scene.start(&bundle).action("delete").run().deleted();
            node::no_guests(&scene).await;
            let state = fs::read_to_string(&said).unwrap_or_default();
            let state: Value = serde_json::from_str(&state).unwrap_or_default();
            assert_eq!(state["status"], "stopped", "{backend}: {state}");
        }
    }
}

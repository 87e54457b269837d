//! How a guest ended, where the kernel does not tell: LXC's monitor does.

use crate::support::{Bundle, Scene, Task, proc};
use nix::sys::signal::Signal;
use protobuf::MessageField;
use serde_json::json;

/// A container on LXC whose monitor is asked.
async fn created(scene: &Scene, id: &str, script: &str) -> (Bundle, Task, u32) {
    let bundle = scene
        .bundle(id, &["sh", "-c", script])
        .edit(|spec| spec["annotations"] = json!({ "io.nexcage.backend": "lxc" }));
    let task = scene.supervisor(&bundle).await;
    let mut request = bundle.create();
    request.options =
        MessageField::some(crate::support::bundle::toml_options("[lxc]\nexit_by_monitor = true"));
    let pid = task.create(&request).await.unwrap();
    let fifo = format!("/run/lxc/run/nexcage/{}/{id}/monitor-fifo", scene.namespace);
    assert!(std::fs::exists(&fifo).unwrap(), "LXC's monitor is not heard");
    (bundle, task, pid)
}

async fn end(task: &Task, id: &str) -> u32 {
    let status = task.wait(id, "").await.unwrap();
    assert_eq!(task.state(id, "").await.unwrap().exit_status, status);
    assert_eq!(task.delete(id, "").await.unwrap().exit_status, status);
    status
}

#[tokio::test]
async fn exit_codes_are_the_processs_own() {
    let scene = Scene::new();
    for code in [0, 1, 7, 127, 255] {
        let id = format!("c{code}");
        let (_, task, _) = created(&scene, &id, &format!("exit {code}")).await;
        task.start(&id, "").await.unwrap();
        assert_eq!(end(&task, &id).await, code);
    }
    assert!(scene.cgroups().is_empty(), "{:?}", scene.cgroups());
    let folder = format!("/run/lxc/run/nexcage/{}", scene.namespace);
    assert!(!std::fs::exists(&folder).unwrap(), "{folder} is there");
}

#[tokio::test]
async fn signals_are_told_as_128_and_the_signal() {
    let scene = Scene::new();
    for (signal, before_start) in [(9, false), (15, false), (9, true)] {
        let id = format!("c{signal}{before_start}");
        let script = "trap 'exit 15' TERM; echo; while :; do sleep 0.02; done";
        let (_, task, _) = created(&scene, &id, script).await;
        if !before_start {
            task.start(&id, "").await.unwrap();
        }
        let expected = if signal == 9 { 137 } else { 15 };
        // pid 1 of a namespace takes no TERM before it has a handler for it.
        let mut ended = std::pin::pin!(task.wait(&id, ""));
        loop {
            drop(task.kill(&id, "", signal).await);
            let soon = std::time::Duration::from_millis(50);
            if let Ok(status) = tokio::time::timeout(soon, &mut ended).await {
                assert_eq!(status.unwrap(), expected, "{id}");
                break;
            }
        }
        assert_eq!(end(&task, &id).await, expected, "{id}");
    }
}

/// Kills lxc-start, the guest's parent; the guest goes on.
async fn without_lxc_start(scene: &Scene, id: &str, script: &str) -> (Bundle, Task, u32) {
    let (bundle, task, pid) = created(scene, id, script).await;
    task.start(id, "").await.unwrap();
    let monitor = proc::number(pid, "status", "PPid:") as u32;
    let supervisor = task.hello(id).await.unwrap().shim_pid;
    assert!(proc::children(supervisor).contains(&monitor), "{monitor} is not lxc-start");
    crate::support::scene::kill(monitor);
    proc::eventually("the supervisor has the guest", || proc::children(supervisor).contains(&pid))
        .await;
    (bundle, task, pid)
}

#[tokio::test]
async fn the_status_of_a_guest_whose_lxc_start_is_gone_is_known() {
    let scene = Scene::new();
    let script = "trap 'exit 7' USR1; echo; while :; do sleep 0.02; done";
    for (id, signal, expected) in [("c7", Signal::SIGUSR1, 7), ("c9", Signal::SIGKILL, 137)] {
        let (bundle, task, pid) = without_lxc_start(&scene, id, script).await;
        // pid 1 of a namespace takes no signal but KILL before it has a handler for it.
        proc::eventually("it ends", || {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).ok();
            !proc::is_alive(pid)
        })
        .await;
        assert_eq!(end(&task, id).await, expected, "{id}");
        let log = bundle.logged();
        assert!(!log.contains("255"), "{log}");
    }
    assert!(scene.cgroups().is_empty(), "{:?}", scene.cgroups());
}

/// With the kernel's word, LXC's monitor is not needed for it.
#[tokio::test]
async fn a_guest_outlives_lxc_start_and_the_kernel_knows_its_end() {
    let scene = Scene::new();
    let bundle = scene
        .bundle("c", &["sleep", "1000"])
        .edit(|spec| spec["annotations"] = json!({ "io.nexcage.backend": "lxc" }));
    let task = scene.running(&bundle).await;
    let pid = task.state("c", "").await.unwrap().pid;
    let monitor = proc::number(pid, "status", "PPid:") as u32;
    crate::support::scene::kill(monitor);
    proc::eventually("lxc-start is gone", || !proc::is_alive(monitor)).await;
    task.exec(&bundle.exec("e", &["sh", "-c", "exit 3"])).await.unwrap();
    task.start("c", "e").await.unwrap();
    assert_eq!(task.wait("c", "e").await.unwrap(), 3);
    task.kill("c", "", 9).await.unwrap();
    assert_eq!(end(&task, "c").await, 137);
    assert!(scene.cgroups().is_empty(), "{:?}", scene.cgroups());
}

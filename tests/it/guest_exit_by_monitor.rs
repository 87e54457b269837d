//! How a guest ended, where the kernel does not tell: LXC's monitor does.

use crate::support::{Bundle, Scene, Task, proc};
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
    assert!(std::fs::exists(&fifo).unwrap(), "the kernel would be asked");
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

#[tokio::test]
async fn a_status_that_nobody_has_seen_is_255_and_the_log_says_so() {
    let scene = Scene::new();
    let (bundle, task, pid) = created(&scene, "c", "sleep 1000").await;
    task.start("c", "").await.unwrap();
    let monitor = proc::number(pid, "status", "PPid:");
    let before = task.hello("c").await.unwrap().shim_pid;
    assert!(proc::children(before).contains(&(monitor as u32)), "{monitor} is not lxc-start");
    crate::support::scene::kill(monitor as u32);
    proc::eventually("lxc-start is gone", || !proc::is_alive(monitor as u32)).await;
    assert!(proc::is_alive(pid), "the guest ended with lxc-start");
    task.kill("c", "", 9).await.unwrap();
    assert_eq!(end(&task, "c").await, 255);
    let log = bundle.logged();
    assert!(log.contains("255") || log.contains("unknown"), "{log}");
    assert!(!proc::is_alive(pid));
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

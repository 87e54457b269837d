//! The `delete` action, after a supervisor that was killed.

use crate::support::scene::kill;
use crate::support::{Bundle, Scene, proc};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// A container whose supervisor was killed; returns the pid of its process.
async fn orphan(scene: &Scene, bundle: &Bundle) -> u32 {
    let task = scene.supervisor(bundle).await;
    let mut create = bundle.create();
    if bundle.spec["root"]["path"] == "rootfs" {
        create.rootfs = vec![Bundle::bind_mount()];
    }
    let pid = task.create(&create).await.unwrap();
    task.start(&bundle.id, "").await.unwrap();
    let shim = task.hello(&bundle.id).await.unwrap().shim_pid;
    kill(shim);
    proc::eventually("the supervisor is dead", || !proc::is_alive(shim)).await;
    pid
}

fn record(scene: &Scene, id: &str) -> PathBuf {
    format!("/run/nexcage/{}/{id}", scene.namespace).into()
}

fn assert_nothing_is_left(scene: &Scene, id: &str, pid: u32) {
    assert!(!proc::is_alive(pid), "its process lives");
    assert!(scene.mounts().is_empty(), "{:?}", scene.mounts());
    assert!(scene.cgroups().is_empty(), "{:?}", scene.cgroups());
    assert!(!record(scene, id).exists(), "its record is there");
    let runtime = format!("/run/nexcage/{}/.crun/{id}", scene.namespace);
    assert!(!fs::exists(&runtime).unwrap(), "the runtime's record is there");
}

#[tokio::test]
async fn it_tells_the_real_pid_and_137_and_leaves_nothing() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP).on_mounts();
    let pid = orphan(&scene, &bundle).await;
    assert!(proc::is_alive(pid));
    let reply = scene.start(&bundle).action("delete").run();
    let deleted = reply.deleted();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert!(deleted.exited_at.is_some());
    assert!(reply.took < Duration::from_secs(5), "{:?}", reply.took);
    assert_nothing_is_left(&scene, "web", pid);
}

#[tokio::test]
async fn it_may_run_any_number_of_times() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP).on_mounts();
    let pid = orphan(&scene, &bundle).await;
    for _ in 0..3 {
        let reply = scene.start(&bundle).action("delete").run();
        reply.deleted();
        assert!(reply.took < Duration::from_secs(5), "{:?}", reply.took);
        assert_nothing_is_left(&scene, "web", pid);
    }
}

#[tokio::test]
async fn it_works_with_the_bundle_half_gone() {
    let scene = Scene::new();
    for (id, gone) in [("config", "config.json"), ("note", "nexcage"), ("address", "address")] {
        let bundle = scene.bundle(id, &SLEEP);
        let pid = orphan(&scene, &bundle).await;
        fs::remove_file(bundle.path.join(gone)).unwrap();
        let deleted = scene.start(&bundle).action("delete").run().deleted();
        assert_eq!((deleted.pid, deleted.exit_status), (pid, 137), "without {gone}");
        assert_nothing_is_left(&scene, id, pid);
    }
}

#[tokio::test]
async fn it_works_with_the_bundle_all_gone() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let pid = orphan(&scene, &bundle).await;
    let mut delete = scene.start(&bundle).action("delete");
    delete.bundle = "/".into();
    fs::remove_dir_all(&bundle.path).unwrap();
    let deleted = delete.run().deleted();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert_nothing_is_left(&scene, "web", pid);
}

#[tokio::test]
async fn it_works_with_no_containerd() {
    let mut scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let pid = orphan(&scene, &bundle).await;
    scene.events.stop();
    let reply = scene.start(&bundle).action("delete").run();
    assert_eq!(reply.deleted().exit_status, 137);
    assert!(reply.took < Duration::from_secs(5), "{:?}", reply.took);
    assert_nothing_is_left(&scene, "web", pid);
}

#[tokio::test]
async fn it_works_for_a_container_that_never_was() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let deleted = scene.start(&bundle).action("delete").run().deleted();
    assert_eq!(deleted.pid, 0);
    assert!(deleted.exited_at.is_some());
}

#[tokio::test]
async fn it_keeps_the_status_of_a_container_that_had_ended_before() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sh", "-c", "exit 3"]);
    let task = scene.running(&bundle).await;
    let pid = task.state("web", "").await.unwrap().pid;
    assert_eq!(task.wait("web", "").await.unwrap(), 3);
    let shim = task.hello("web").await.unwrap().shim_pid;
    kill(shim);
    proc::eventually("the supervisor is dead", || !proc::is_alive(shim)).await;
    let deleted = scene.start(&bundle).action("delete").run().deleted();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));
}

#[tokio::test]
async fn it_kills_a_paused_container() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let hello = task.hello("web").await.unwrap();
    task.pause("web").await.unwrap();
    kill(hello.shim_pid);
    proc::eventually("the supervisor is dead", || !proc::is_alive(hello.shim_pid)).await;
    let reply = scene.start(&bundle).action("delete").run();
    let deleted = reply.deleted();
    assert_eq!((deleted.pid, deleted.exit_status), (hello.task_pid, 137));
    assert!(reply.took < Duration::from_secs(5), "{:?}", reply.took);
    assert_nothing_is_left(&scene, "web", hello.task_pid);
}

#[tokio::test]
async fn it_kills_execs_too() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    task.exec(&bundle.exec("e", &SLEEP)).await.unwrap();
    let exec = task.start("web", "e").await.unwrap();
    let hello = task.hello("web").await.unwrap();
    kill(hello.shim_pid);
    proc::eventually("the supervisor is dead", || !proc::is_alive(hello.shim_pid)).await;
    scene.start(&bundle).action("delete").run().deleted();
    assert_nothing_is_left(&scene, "web", hello.task_pid);
    // It shares the pid namespace, which ends as a whole.
    assert!(!proc::is_alive(exec));
}

#[tokio::test]
async fn after_an_ordinary_end_it_finds_nothing_to_do() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["true"]);
    let task = scene.running(&bundle).await;
    let hello = task.hello("web").await.unwrap();
    task.wait("web", "").await.unwrap();
    task.delete("web", "").await.unwrap();
    task.shutdown("web").await.unwrap();
    proc::eventually("the supervisor ends", || !proc::is_alive(hello.shim_pid)).await;
    scene.start(&bundle).action("delete").run().deleted();
    assert_nothing_is_left(&scene, "web", hello.task_pid);
}

#[tokio::test]
async fn it_cleans_up_a_supervisor_that_was_killed_in_the_middle_of_create() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP).on_mounts();
    for delay in 0..20 {
        let task = scene.supervisor(&bundle).await;
        let shim = task.hello("web").await.unwrap().shim_pid;
        let mut create = bundle.create();
        create.rootfs = vec![Bundle::bind_mount()];
        let creating = tokio::spawn(async move { task.create(&create).await });
        // Every time at another moment of it.
        tokio::time::sleep(Duration::from_millis(delay * 3)).await;
        kill(shim);
        // Dead in the middle, or just after the answer.
        drop(creating.await.unwrap());
        proc::eventually("the supervisor is dead", || !proc::is_alive(shim)).await;
        let deleted = scene.start(&bundle).action("delete").run().deleted();
        assert_nothing_is_left(&scene, "web", deleted.pid.max(1 << 22));
    }
}

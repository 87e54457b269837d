//! Waiting, killing, listing, deleting and shutting down, in every state of a container.

use crate::support::fifo::{Reader, Stdio};
use crate::support::scene::kill;
use crate::support::task::Refused;
use crate::support::{Scene, Task, proc};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::types::task::Status;
use protobuf::Message;
use std::fs;
use std::time::{Duration, Instant};
use ttrpc::Code;

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// pid and exec id of every process.
async fn pids(task: &Task, id: &str) -> Vec<(u32, String)> {
    let processes = task.pids(id).await.unwrap().processes;
    let exec = |info: &protobuf::well_known_types::any::Any| {
        assert_eq!(info.type_url, "containerd.runc.v1.ProcessDetails");
        ProcessDetails::parse_from_bytes(&info.value).unwrap().exec_id
    };
    processes
        .into_iter()
        .map(|process| (process.pid, process.info.as_ref().map(exec).unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn pids_are_never_empty_until_the_delete_and_name_the_execs() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    let pid = task.create(&bundle.create()).await.unwrap();
    assert_eq!(pids(&task, "web").await, [(pid, String::new())]);
    task.start("web", "").await.unwrap();
    assert_eq!(pids(&task, "web").await, [(pid, String::new())]);
    task.exec(&bundle.exec("e", &["sh", "-c", "sleep 1000; true"])).await.unwrap();
    let exec = task.start("web", "e").await.unwrap();
    proc::eventually("the exec has a child", || proc::children(exec).len() == 1).await;
    let found = pids(&task, "web").await;
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.contains(&(pid, String::new())) && found.contains(&(exec, "e".to_owned())));
    task.pause("web").await.unwrap();
    assert_eq!(pids(&task, "web").await.len(), 3);
    task.resume("web").await.unwrap();
    task.kill("web", "", 9).await.unwrap();
    task.wait("web", "").await.unwrap();
    // A containerd that comes back takes a container without pids for a leftover.
    assert!(pids(&task, "web").await.contains(&(pid, String::new())));
}

#[tokio::test]
async fn a_wait_ends_with_the_container_whatever_its_state_was_when_it_began() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    task.create(&bundle.create()).await.unwrap();
    let wait = || {
        let task = task.clone();
        tokio::spawn(async move { task.wait("web", "").await.unwrap() })
    };
    let created = wait();
    // A second answer on the same connection tells that the wait before it was heard.
    task.state("web", "").await.unwrap();
    task.start("web", "").await.unwrap();
    let (running, second) = (wait(), wait());
    task.pause("web").await.unwrap();
    let paused = wait();
    task.state("web", "").await.unwrap();
    assert!([&created, &running, &second, &paused].iter().all(|wait| !wait.is_finished()));
    task.resume("web").await.unwrap();
    task.kill("web", "", 9).await.unwrap();
    for wait in [created, running, second, paused] {
        assert_eq!(wait.await.unwrap(), 137);
    }
    // And at once when it has ended, until it is deleted.
    assert_eq!(task.wait("web", "").await.unwrap(), 137);
    task.delete("web", "").await.unwrap();
    task.wait("web", "").await.refused(Code::NOT_FOUND);
}

#[tokio::test]
async fn a_wait_for_one_that_is_deleted_before_its_start_ends() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    let pid = task.create(&bundle.create()).await.unwrap();
    let waiting = task.clone();
    let wait = tokio::spawn(async move { waiting.wait("web", "").await });
    task.state("web", "").await.unwrap();
    let deleted = task.delete("web", "").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert_eq!(wait.await.unwrap().unwrap(), 137);
    assert!(!proc::is_alive(pid));
    let lines = scene.events.line("delete web 137").await;
    assert_eq!(lines, ["create web", "exit web 137", "delete web 137"]);
}

#[tokio::test]
async fn exit_statuses_are_the_processs_own_and_128_and_the_signal() {
    let scene = Scene::new();
    let first = scene.bundle("c0", &["true"]);
    let task = scene.supervisor(&first).await;
    for status in [0, 1, 7, 126, 255] {
        let id = format!("exit-{status}");
        let script = format!("exit {status}");
        let bundle = scene.bundle(&id, &["sh", "-c", &script]);
        task.create(&bundle.create()).await.unwrap();
        task.start(&id, "").await.unwrap();
        assert_eq!(task.wait(&id, "").await.unwrap(), status);
    }
    for signal in [9, 15] {
        let id = format!("signal-{signal}");
        // Not the first process of its pid namespace, which SIGTERM would not reach.
        let bundle = scene.bundle(&id, &SLEEP);
        task.create(&bundle.create()).await.unwrap();
        task.start(&id, "").await.unwrap();
        task.exec(&bundle.exec("e", &SLEEP)).await.unwrap();
        task.start(&id, "e").await.unwrap();
        task.kill(&id, "e", signal).await.unwrap();
        assert_eq!(task.wait(&id, "e").await.unwrap(), 128 + signal);
    }
}

#[tokio::test]
async fn real_time_signals_arrive() {
    let scene = Scene::new();
    let script = "trap 'exit 9' 40; echo up; while :; do sleep 0.05; done";
    let bundle = scene.bundle("web", &["sh", "-c", script]);
    let stdio = Stdio::new(scene.folder(), "web");
    let output = Reader::open(&stdio.stdout);
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    create.stdout = stdio.stdout;
    task.create(&create).await.unwrap();
    task.start("web", "").await.unwrap();
    output.line("up").await;
    task.kill("web", "", 40).await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 9);
}

#[tokio::test]
async fn a_kill_of_what_has_no_process_is_a_failed_precondition_and_of_what_ended_not_found() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    task.exec(&bundle.exec("e", &["true"])).await.unwrap();
    task.kill("web", "e", 9).await.refused(Code::FAILED_PRECONDITION);
    task.start("web", "e").await.unwrap();
    task.wait("web", "e").await.unwrap();
    task.kill("web", "e", 9).await.refused(Code::NOT_FOUND);
    task.kill("web", "", 9).await.unwrap();
    task.wait("web", "").await.unwrap();
    task.kill("web", "", 9).await.refused(Code::NOT_FOUND);
    task.kill_all("web", 9).await.refused(Code::NOT_FOUND);
}

#[tokio::test]
async fn kill_reaches_the_first_process_only_and_with_all_every_one() {
    let scene = Scene::new();
    let script =
        "trap 'echo caught' USR1; trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";
    let bundle = scene.bundle("web", &["sh", "-c", script]);
    let stdio = Stdio::new(scene.folder(), "web");
    let output = Reader::open(&stdio.stdout);
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    create.stdout = stdio.stdout;
    task.create(&create).await.unwrap();
    task.start("web", "").await.unwrap();
    output.line("up").await;
    task.exec(&bundle.exec("e", &SLEEP)).await.unwrap();
    task.start("web", "e").await.unwrap();
    task.kill("web", "", 10).await.unwrap();
    output.line("caught").await;
    assert_eq!(task.state("web", "e").await.unwrap().status.unwrap(), Status::RUNNING);
    task.kill_all("web", 15).await.unwrap();
    assert_eq!(task.wait("web", "e").await.unwrap(), 143);
    assert_eq!(task.wait("web", "").await.unwrap(), 4);
}

#[tokio::test]
async fn a_created_container_can_be_killed() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    task.create(&bundle.create()).await.unwrap();
    task.kill("web", "", 9).await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 137);
    task.start("web", "").await.refused(Code::FAILED_PRECONDITION);
    assert_eq!(task.delete("web", "").await.unwrap().exit_status, 137);
}

#[tokio::test]
async fn a_paused_container_can_be_killed() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    task.exec(&bundle.exec("e", &SLEEP)).await.unwrap();
    task.start("web", "e").await.unwrap();
    task.pause("web").await.unwrap();
    task.kill("web", "", 9).await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 137);
    assert_eq!(task.delete("web", "").await.unwrap().exit_status, 137);
    assert!(scene.cgroups().is_empty());
}

#[tokio::test]
async fn where_the_pid_namespace_is_shared_the_end_of_the_first_process_ends_the_others() {
    let scene = Scene::new();
    let script = "sleep 1000 & sleep 1000 & read x";
    let bundle = scene.bundle("web", &["sh", "-c", script]).edit(|spec| {
        let kept = spec["linux"]["namespaces"].as_array_mut().unwrap();
        kept.retain(|namespace| namespace["type"] != "pid");
    });
    let stdio = Stdio::new(scene.folder(), "web");
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    create.stdin = stdio.stdin;
    let pid = task.create(&create).await.unwrap();
    task.start("web", "").await.unwrap();
    proc::eventually("two children", || proc::children(pid).len() == 2).await;
    let children = proc::children(pid);
    task.close_stdin("web", "").await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 1);
    proc::eventually("they end", || children.iter().all(|&child| !proc::is_alive(child))).await;
    task.delete("web", "").await.unwrap();
    assert!(scene.cgroups().is_empty());
}

#[tokio::test]
async fn a_repeated_delete_gives_the_same_answer() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sh", "-c", "exit 6"]);
    let task = scene.running(&bundle).await;
    task.wait("web", "").await.unwrap();
    let first = task.delete("web", "").await.unwrap();
    assert_eq!(first.exit_status, 6);
    for _ in 0..3 {
        assert_eq!(task.delete("web", "").await.unwrap(), first);
    }
    let lines = scene.events.line("delete web 6").await;
    assert_eq!(lines.iter().filter(|line| line.starts_with("delete")).count(), 1);
    // The id is free again, and its new owner has a life of its own.
    task.create(&bundle.create()).await.unwrap();
    assert_eq!(task.state("web", "").await.unwrap().status.unwrap(), Status::CREATED);
    task.delete("web", "").await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_deleted_container() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP).on_mounts();
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    create.rootfs = vec![crate::support::Bundle::bind_mount()];
    let pid = task.create(&create).await.unwrap();
    task.start("web", "").await.unwrap();
    assert_eq!(scene.mounts(), [bundle.path.join("rootfs")]);
    assert!(!scene.cgroups().is_empty());
    let state = format!("/run/nexcage/{}/web", scene.namespace);
    assert!(fs::exists(&state).unwrap());
    task.kill("web", "", 9).await.unwrap();
    task.wait("web", "").await.unwrap();
    task.delete("web", "").await.unwrap();
    assert!(!proc::is_alive(pid));
    assert!(scene.mounts().is_empty() && scene.cgroups().is_empty());
    assert!(!fs::exists(&state).unwrap());
}

#[tokio::test]
async fn a_shutdown_with_containers_left_does_nothing_and_without_ends_the_supervisor() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let address = scene.start(&bundle).run().address();
    let task = scene.connect(&address).await;
    task.create(&bundle.create()).await.unwrap();
    task.start("web", "").await.unwrap();
    let shim = task.hello("web").await.unwrap().shim_pid;
    task.shutdown("web").await.unwrap();
    let request = containerd_shim_protos::api::ShutdownRequest { now: true, ..Default::default() };
    task.call::<containerd_shim_protos::api::Empty>("Shutdown", &request).await.unwrap();
    assert_eq!(task.state("web", "").await.unwrap().status.unwrap(), Status::RUNNING);
    task.kill("web", "", 9).await.unwrap();
    task.wait("web", "").await.unwrap();
    task.shutdown("web").await.unwrap();
    assert_eq!(task.state("web", "").await.unwrap().status.unwrap(), Status::STOPPED);
    task.delete("web", "").await.unwrap();
    task.shutdown("web").await.unwrap();
    proc::eventually("the supervisor ends", || !proc::is_alive(shim)).await;
    assert!(!address.socket().exists());
}

#[tokio::test]
async fn one_supervisor_has_any_number_of_containers() {
    let scene = Scene::new();
    let pause = scene.bundle("pause", &SLEEP);
    let task = scene.running(&pause).await;
    let mut apps = Vec::new();
    for id in ["app-1", "app-2"] {
        let bundle = scene.bundle(id, &SLEEP);
        task.create(&bundle.create()).await.unwrap();
        task.start(id, "").await.unwrap();
        apps.push(bundle);
    }
    let mut all = Vec::new();
    for id in ["pause", "app-1", "app-2"] {
        all.push(task.state(id, "").await.unwrap().pid);
    }
    all.dedup();
    assert_eq!(all.len(), 3);
    // The same exec id in two containers is two execs.
    for app in &apps {
        task.exec(&app.exec("e", &SLEEP)).await.unwrap();
        task.start(&app.id, "e").await.unwrap();
    }
    task.kill("app-1", "e", 9).await.unwrap();
    assert_eq!(task.wait("app-1", "e").await.unwrap(), 137);
    assert_eq!(task.state("app-2", "e").await.unwrap().status.unwrap(), Status::RUNNING);
    task.kill("app-1", "", 9).await.unwrap();
    task.wait("app-1", "").await.unwrap();
    task.delete("app-1", "").await.unwrap();
    task.shutdown("app-1").await.unwrap();
    for id in ["pause", "app-2"] {
        assert_eq!(task.state(id, "").await.unwrap().status.unwrap(), Status::RUNNING);
    }
    // The first may go before the others.
    task.kill("pause", "", 9).await.unwrap();
    task.wait("pause", "").await.unwrap();
    task.delete("pause", "").await.unwrap();
    assert_eq!(task.state("app-2", "").await.unwrap().status.unwrap(), Status::RUNNING);
}

#[tokio::test]
async fn fifty_containers_at_once_in_one_supervisor_are_all_accounted_for() {
    const COUNT: usize = 50;
    let scene = Scene::new();
    let bundles: Vec<_> =
        (0..COUNT).map(|n| scene.bundle(&format!("c{n}"), &["sh", "-c", "exit 3"])).collect();
    let task = scene.supervisor(&bundles[0]).await;
    let shim = task.hello("").await.unwrap().shim_pid;
    let lives = bundles.iter().map(|bundle| {
        let (task, id, create) = (task.clone(), bundle.id.clone(), bundle.create());
        tokio::spawn(async move {
            task.create(&create).await.unwrap();
            task.start(&id, "").await.unwrap();
            assert_eq!(task.wait(&id, "").await.unwrap(), 3);
            task.delete(&id, "").await.unwrap();
        })
    });
    for life in lives.collect::<Vec<_>>() {
        life.await.unwrap();
    }
    let of = |events: &[crate::support::events::Event], topic: &str| {
        events.iter().filter(|event| event.topic == topic).count()
    };
    let events = scene.events.until(|events| of(events, "/tasks/delete") == COUNT).await;
    assert_eq!(events.len(), 4 * COUNT);
    assert!(scene.cgroups().is_empty());
    assert!(proc::children(shim).is_empty());
}

#[tokio::test]
async fn a_supervisor_ends_by_itself_when_it_is_told_that_its_container_was_cleaned_up() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let hello = task.hello("web").await.unwrap();
    let began = Instant::now();
    // containerd has lost its connection and runs the clean-up over a supervisor that lives.
    let deleted = scene.start(&bundle).action("delete").run().deleted();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((deleted.pid, deleted.exit_status), (hello.task_pid, 137));
    proc::eventually("the supervisor ends", || !proc::is_alive(hello.shim_pid)).await;
}

#[tokio::test]
async fn the_supervisor_survives_sigterm_and_sigint_while_it_has_containers() {
    use nix::sys::signal::{Signal, kill};
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let shim = task.hello("web").await.unwrap().shim_pid;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE] {
        kill(nix::unistd::Pid::from_raw(shim as i32), signal).unwrap();
    }
    assert_eq!(task.state("web", "").await.unwrap().status.unwrap(), Status::RUNNING);
    assert!(proc::is_alive(shim));
}

#[tokio::test]
async fn the_process_of_a_killed_supervisors_container_is_found_by_the_next_one() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let hello = task.hello("web").await.unwrap();
    kill(hello.shim_pid);
    proc::eventually("the supervisor is dead", || !proc::is_alive(hello.shim_pid)).await;
    // containerd was not there to clean up, and starts the container again.
    let task = scene.running(&bundle).await;
    proc::eventually("the old process is dead", || !proc::is_alive(hello.task_pid)).await;
    assert_ne!(task.hello("web").await.unwrap().task_pid, hello.task_pid);
}

#[tokio::test]
async fn a_cgroup_that_others_are_in_is_not_killed() {
    let scene = Scene::new();
    let shared = format!("/{}", scene.cgroup("shared"));
    let set = |spec: &mut serde_json::Value| spec["linux"]["cgroupsPath"] = shared.clone().into();
    let first = scene.bundle("first", &SLEEP).edit(set);
    let task = scene.running(&first).await;
    let pid = task.state("first", "").await.unwrap().pid;
    // A create that fails, and one that succeeds and is killed with all in it.
    let second = scene.bundle("second", &SLEEP).edit(set);
    let mut create = second.create();
    create.stdout = "/nonexistent".to_owned();
    task.create(&create).await.refused(Code::INVALID_ARGUMENT);
    task.create(&second.create()).await.unwrap();
    task.start("second", "").await.unwrap();
    task.kill_all("second", 9).await.unwrap();
    assert_eq!(task.wait("second", "").await.unwrap(), 137);
    // Before the delete: crun itself kills whatever is in the cgroup it removes.
    assert!(proc::is_alive(pid), "somebody else's process was killed");
    assert_eq!(task.state("first", "").await.unwrap().status.unwrap(), Status::RUNNING);
}

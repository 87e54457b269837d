//! The task API: all of its methods, under both of its names, and the codes of its refusals.

use crate::support::bundle::toml_options;
use crate::support::fifo::{Reader, Stdio};
use crate::support::task::Refused;
use crate::support::{Scene, Task, proc};
use containerd_shim_protos::api::Empty;
use containerd_shim_protos::types::task::Status;
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use std::fs;
use std::time::Duration;
use ttrpc::Code;

/// Ends with 5 on SIGTERM.
const PATIENT: [&str; 3] =
    ["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"];

async fn status(task: &Task, id: &str, exec: &str) -> Status {
    task.state(id, exec).await.unwrap().status.unwrap()
}

async fn one_life(version: u32) {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &PATIENT);
    let stdio = Stdio::new(scene.folder(), "web");
    let task = scene.supervisor(&bundle).await.speaking(version);

    let hello = task.hello("web").await.unwrap();
    assert!(proc::is_alive(hello.shim_pid));
    assert_eq!((hello.task_pid, hello.version.as_str()), (0, env!("CARGO_PKG_VERSION")));

    let mut create = bundle.create();
    (create.stdin, create.stdout) = (stdio.stdin.clone(), stdio.stdout.clone());
    create.stderr = stdio.stderr.clone();
    let output = Reader::open(&stdio.stdout);
    let pid = task.create(&create).await.unwrap();
    assert!(proc::is_alive(pid));
    let state = task.state("web", "").await.unwrap();
    assert_eq!((state.id.as_str(), state.exec_id.as_str(), state.pid), ("web", "", pid));
    assert_eq!(state.bundle, create.bundle);
    assert_eq!(state.status.unwrap(), Status::CREATED);
    assert_eq!(
        [&state.stdin, &state.stdout, &state.stderr],
        [&create.stdin, &create.stdout, &create.stderr]
    );
    assert!(!state.terminal && state.exited_at.is_none());
    assert_eq!(task.hello("web").await.unwrap().task_pid, pid);

    assert_eq!(task.start("web", "").await.unwrap(), pid);
    assert_eq!(status(&task, "web", "").await, Status::RUNNING);
    output.line("up").await;

    let pids = task.pids("web").await.unwrap().processes;
    assert!(pids.iter().any(|process| process.pid == pid), "{pids:?}");

    let stats = task.stats("web").await.unwrap().stats;
    let kinds = ["io.containerd.cgroups.v1.Metrics", "io.containerd.cgroups.v2.Metrics"];
    assert!(kinds.contains(&stats.type_url.as_str()), "{}", stats.type_url);
    assert!(!stats.value.is_empty());

    task.update("web", r#"{"pids":{"limit":50}}"#).await.unwrap();
    let limits: Vec<_> = scene
        .cgroups()
        .iter()
        .filter_map(|cgroup| fs::read_to_string(cgroup.join("pids.max")).ok())
        .collect();
    assert_eq!(limits, ["50\n"]);

    task.pause("web").await.unwrap();
    assert_eq!(status(&task, "web", "").await, Status::PAUSED);
    task.resume("web").await.unwrap();
    assert_eq!(status(&task, "web", "").await, Status::RUNNING);

    // Without criu on the machine a checkpoint fails, and says so; with it, it works.
    if let Err(error) = task.checkpoint("web", scene.folder().join("image").to_str().unwrap()).await
    {
        assert!(error.to_string().contains("checkpoint container web"), "{error}");
    }

    let mut exec = bundle.exec("shell", &["sh", "-c", "stty size; exec sleep 1000"]);
    exec.terminal = true;
    let mut process = bundle.spec["process"].clone();
    process["args"] = serde_json::json!(["sleep", "1000"]);
    process["terminal"] = true.into();
    exec.spec.as_mut().unwrap().value = process.to_string().into_bytes();
    task.exec(&exec).await.unwrap();
    assert_eq!(status(&task, "web", "shell").await, Status::CREATED);
    let shell = task.start("web", "shell").await.unwrap();
    assert_eq!(task.state("web", "shell").await.unwrap().pid, shell);
    task.resize("web", "shell", (100, 40)).await.unwrap();
    task.close_stdin("web", "shell").await.unwrap();
    task.kill("web", "shell", 9).await.unwrap();
    assert_eq!(task.wait("web", "shell").await.unwrap(), 137);
    let state = task.state("web", "shell").await.unwrap();
    assert_eq!((state.status.unwrap(), state.exit_status), (Status::STOPPED, 137));
    assert_eq!(task.delete("web", "shell").await.unwrap().exit_status, 137);

    task.close_stdin("web", "").await.unwrap();
    task.kill("web", "", 15).await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 5);
    let state = task.state("web", "").await.unwrap();
    assert_eq!((state.status.unwrap(), state.exit_status, state.pid), (Status::STOPPED, 5, pid));
    assert!(state.exited_at.is_some());
    let deleted = task.delete("web", "").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 5));
    assert!(deleted.exited_at.is_some());
    task.shutdown("web").await.unwrap();
    proc::eventually("the supervisor ends", || !proc::is_alive(hello.shim_pid)).await;
    assert_eq!(scene.cgroups(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn all_seventeen_methods_work_as_version_2() {
    one_life(2).await;
}

#[tokio::test]
async fn all_seventeen_methods_work_as_version_3() {
    one_life(3).await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_connect_and_shutdown_do_not_mind() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    for version in [2, 3] {
        let task = task.speaking(version);
        // Of an unknown container, and an unknown exec of a known one.
        for (id, exec) in [("nobody", ""), ("web", "nobody")] {
            task.state(id, exec).await.refused(Code::NOT_FOUND);
            task.start(id, exec).await.refused(Code::NOT_FOUND);
            task.delete(id, exec).await.refused(Code::NOT_FOUND);
            task.kill(id, exec, 9).await.refused(Code::NOT_FOUND);
            task.wait(id, exec).await.refused(Code::NOT_FOUND);
            task.resize(id, exec, (80, 24)).await.refused(Code::NOT_FOUND);
            task.close_stdin(id, exec).await.refused(Code::NOT_FOUND);
        }
        task.pids("nobody").await.refused(Code::NOT_FOUND);
        task.pause("nobody").await.refused(Code::NOT_FOUND);
        task.resume("nobody").await.refused(Code::NOT_FOUND);
        task.checkpoint("nobody", "/nowhere").await.refused(Code::NOT_FOUND);
        task.update("nobody", "{}").await.refused(Code::NOT_FOUND);
        task.stats("nobody").await.refused(Code::NOT_FOUND);
        let mut exec = bundle.exec("e", &["true"]);
        exec.id = "nobody".to_owned();
        task.exec(&exec).await.refused(Code::NOT_FOUND);
        let hello = task.hello("nobody").await.unwrap();
        assert_eq!(hello.task_pid, 0);
        task.shutdown("nobody").await.unwrap();
        assert!(proc::is_alive(hello.shim_pid));
    }
}

#[tokio::test]
async fn what_is_there_already_already_exists() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    task.create(&bundle.create()).await.refused(Code::ALREADY_EXISTS);
    task.exec(&bundle.exec("e", &["true"])).await.unwrap();
    task.exec(&bundle.exec("e", &["true"])).await.refused(Code::ALREADY_EXISTS);
    // The refusals have harmed nobody.
    task.start("web", "e").await.unwrap();
    assert_eq!(task.wait("web", "e").await.unwrap(), 0);
    assert_eq!(status(&task, "web", "").await, Status::RUNNING);
}

#[tokio::test]
async fn what_the_state_does_not_allow_is_a_failed_precondition() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &PATIENT);
    let task = scene.supervisor(&bundle).await;
    task.create(&bundle.create()).await.unwrap();
    // Created:
    task.pause("web").await.refused(Code::FAILED_PRECONDITION);
    task.resume("web").await.refused(Code::FAILED_PRECONDITION);
    task.checkpoint("web", "/nowhere").await.refused(Code::FAILED_PRECONDITION);
    task.start("web", "").await.unwrap();
    // Running:
    task.start("web", "").await.refused(Code::FAILED_PRECONDITION);
    task.resume("web").await.refused(Code::FAILED_PRECONDITION);
    let text = task.delete("web", "").await.refused(Code::FAILED_PRECONDITION);
    assert!(text.contains("web") && text.contains("running"), "{text}");
    task.resize("web", "", (80, 24)).await.refused(Code::FAILED_PRECONDITION);
    task.exec(&bundle.exec("once", &["sleep", "1000"])).await.unwrap();
    task.start("web", "once").await.unwrap();
    task.start("web", "once").await.refused(Code::FAILED_PRECONDITION);
    task.delete("web", "once").await.refused(Code::FAILED_PRECONDITION);
    task.exec(&bundle.exec("late", &["true"])).await.unwrap();
    // Paused:
    task.pause("web").await.unwrap();
    task.pause("web").await.refused(Code::FAILED_PRECONDITION);
    task.exec(&bundle.exec("paused", &["true"])).await.refused(Code::FAILED_PRECONDITION);
    task.start("web", "late").await.refused(Code::FAILED_PRECONDITION);
    task.delete("web", "").await.refused(Code::FAILED_PRECONDITION);
    task.resume("web").await.unwrap();
    // Stopped:
    task.kill("web", "", 9).await.unwrap();
    task.wait("web", "").await.unwrap();
    task.start("web", "").await.refused(Code::FAILED_PRECONDITION);
    task.pause("web").await.refused(Code::FAILED_PRECONDITION);
    task.exec(&bundle.exec("dead", &["true"])).await.refused(Code::FAILED_PRECONDITION);
    task.start("web", "late").await.refused(Code::FAILED_PRECONDITION);
}

#[tokio::test]
async fn what_makes_no_sense_is_an_invalid_argument() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    for signal in [0, 65, 1 << 20, u32::MAX] {
        let text = task.kill("web", "", signal).await.refused(Code::INVALID_ARGUMENT);
        assert!(text.contains("signal"), "{text}");
    }
    for garbage in ["", "{", "[]", r#"{"args":7}"#] {
        let mut exec = bundle.exec("e", &["true"]);
        exec.spec.as_mut().unwrap().value = garbage.into();
        task.exec(&exec).await.refused(Code::INVALID_ARGUMENT);
    }
    for garbage in ["", "{", "[]", "7"] {
        task.update("web", garbage).await.refused(Code::INVALID_ARGUMENT);
    }
    task.resize("web", "", (1 << 16, 24)).await.refused(Code::INVALID_ARGUMENT);
    let kata = Any { type_url: "kata.v1.Options".to_owned(), ..Any::default() };
    let unknown_key = toml_options("nonsense = 1");
    for (options, named) in [(kata, "kata.v1.Options"), (unknown_key, "nonsense")] {
        let other = scene.bundle(named.split('.').next().unwrap(), &["true"]);
        let mut create = other.create();
        create.options = MessageField::some(options);
        let text = task.create(&create).await.refused(Code::INVALID_ARGUMENT);
        assert!(text.contains(named), "{text}");
    }
}

#[tokio::test]
async fn a_checkpoint_with_options_of_another_type_is_an_invalid_argument() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    let request = containerd_shim_protos::api::CheckpointTaskRequest {
        id: "web".to_owned(),
        path: "/nowhere".to_owned(),
        options: MessageField::some(Any { type_url: "x.Y".to_owned(), ..Any::default() }),
        ..Default::default()
    };
    let text = task.call::<Empty>("Checkpoint", &request).await.refused(Code::INVALID_ARGUMENT);
    assert!(text.contains("x.Y"), "{text}");
}

#[tokio::test]
async fn close_io_of_something_else_than_stdin_does_nothing() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["cat"]);
    let stdio = Stdio::new(scene.folder(), "web");
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    create.stdin = stdio.stdin;
    task.create(&create).await.unwrap();
    task.start("web", "").await.unwrap();
    let request =
        containerd_shim_protos::api::CloseIORequest { id: "web".to_owned(), ..Default::default() };
    task.call::<Empty>("CloseIO", &request).await.unwrap();
    let wait = tokio::time::timeout(Duration::from_millis(300), task.wait("web", "")).await;
    assert!(wait.is_err(), "the container came to the end of its stdin");
    task.close_stdin("web", "").await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
}

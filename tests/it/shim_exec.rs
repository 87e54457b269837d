//! More processes in a container.

use crate::support::fifo::{Reader, Stdio};
use crate::support::task::Refused;
use crate::support::{Scene, proc};
use containerd_shim_protos::types::task::Status;
use ttrpc::Code;

const SLEEP: [&str; 2] = ["sleep", "1000"];

#[tokio::test]
async fn fifty_execs_at_once_are_all_accounted_for() {
    const COUNT: u32 = 50;
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let execs = (0..COUNT).map(|n| {
        let (task, exec) = (task.clone(), format!("e{n}"));
        let request = bundle.exec(&exec, &["sh", "-c", &format!("exit {}", n + 1)]);
        tokio::spawn(async move {
            task.exec(&request).await.unwrap();
            task.start("web", &exec).await.unwrap();
            assert_eq!(task.wait("web", &exec).await.unwrap(), n + 1);
            assert_eq!(task.delete("web", &exec).await.unwrap().exit_status, n + 1);
        })
    });
    for exec in execs.collect::<Vec<_>>() {
        exec.await.unwrap();
    }
    let exits = |events: &[crate::support::events::Event]| {
        events.iter().filter(|event| event.topic == "/tasks/exit").count()
    };
    let events = scene.events.until(|events| exits(events) == COUNT as usize).await;
    for n in 0..COUNT {
        let line = format!("exit web/e{n} {}", n + 1);
        assert_eq!(events.iter().filter(|event| event.to_string() == line).count(), 1, "{line}");
    }
    assert_eq!(task.pids("web").await.unwrap().processes.len(), 1);
}

#[tokio::test]
async fn two_hundred_execs_leave_no_file_descriptor_open() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let shim = task.hello("web").await.unwrap().shim_pid;
    let mut before = Vec::new();
    for n in 0..200 {
        let exec = format!("e{n}");
        let stdio = Stdio::new(scene.folder(), &exec);
        let (out, err) = (Reader::open(&stdio.stdout), Reader::open(&stdio.stderr));
        let mut request = bundle.exec(&exec, &["echo", "hello"]);
        (request.stdin, request.stdout, request.stderr) = (stdio.stdin, stdio.stdout, stdio.stderr);
        task.exec(&request).await.unwrap();
        task.start("web", &exec).await.unwrap();
        assert_eq!(task.wait("web", &exec).await.unwrap(), 0);
        task.delete("web", &exec).await.unwrap();
        assert_eq!(out.end().await, "hello\n");
        err.end().await;
        if n == 0 {
            before = proc::fd_targets(shim);
        }
    }
    assert_eq!(proc::fd_targets(shim).len(), before.len(), "{:?}", proc::fd_targets(shim));
    assert_eq!(proc::threads(shim), 1);
}

#[tokio::test]
async fn an_exec_has_its_own_state_and_stdio() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let stdio = Stdio::new(scene.folder(), "e");
    let (out, err) = (Reader::open(&stdio.stdout), Reader::open(&stdio.stderr));
    let mut request = bundle.exec("e", &["sh", "-c", "echo out; echo err >&2; exit 4"]);
    (request.stdout, request.stderr) = (stdio.stdout.clone(), stdio.stderr.clone());
    task.exec(&request).await.unwrap();
    let state = task.state("web", "e").await.unwrap();
    assert_eq!((state.id.as_str(), state.exec_id.as_str()), ("web", "e"));
    assert_eq!((state.status.unwrap(), state.pid), (Status::CREATED, 0));
    assert_eq!((state.stdout, state.stderr), (stdio.stdout, stdio.stderr));
    let pid = task.start("web", "e").await.unwrap();
    assert_eq!(task.wait("web", "e").await.unwrap(), 4);
    let state = task.state("web", "e").await.unwrap();
    assert_eq!((state.status.unwrap(), state.pid, state.exit_status), (Status::STOPPED, pid, 4));
    assert_eq!((out.end().await, err.end().await), ("out\n".to_owned(), "err\n".to_owned()));
    let deleted = task.delete("web", "e").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 4));
    task.state("web", "e").await.refused(Code::NOT_FOUND);
    assert_eq!(task.state("web", "").await.unwrap().status.unwrap(), Status::RUNNING);
}

#[tokio::test]
async fn an_exec_that_was_never_started_can_be_deleted_and_its_id_used_again() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    for _ in 0..2 {
        task.exec(&bundle.exec("e", &["true"])).await.unwrap();
        task.delete("web", "e").await.unwrap();
    }
}

#[tokio::test]
async fn an_exec_works_in_a_container_that_is_created_and_not_started() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    task.create(&bundle.create()).await.unwrap();
    task.exec(&bundle.exec("e", &["sh", "-c", "exit 5"])).await.unwrap();
    task.start("web", "e").await.unwrap();
    assert_eq!(task.wait("web", "e").await.unwrap(), 5);
    task.start("web", "").await.unwrap();
}

#[tokio::test]
async fn a_wait_for_an_exec_begins_before_its_start() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    task.exec(&bundle.exec("e", &["sh", "-c", "exit 6"])).await.unwrap();
    let waits: Vec<_> = (0..2)
        .map(|_| {
            let task = task.clone();
            tokio::spawn(async move { task.wait("web", "e").await.unwrap() })
        })
        .collect();
    task.state("web", "e").await.unwrap();
    assert!(waits.iter().all(|wait| !wait.is_finished()));
    task.start("web", "e").await.unwrap();
    for wait in waits {
        assert_eq!(wait.await.unwrap(), 6);
    }
    assert_eq!(task.wait("web", "e").await.unwrap(), 6);
}

#[tokio::test]
async fn a_wait_for_an_exec_that_is_never_started_ends_with_the_container() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    task.exec(&bundle.exec("e", &["true"])).await.unwrap();
    let waiting = task.clone();
    let wait = tokio::spawn(async move { waiting.wait("web", "e").await });
    task.state("web", "e").await.unwrap();
    task.kill("web", "", 9).await.unwrap();
    task.wait("web", "").await.unwrap();
    task.delete("web", "").await.unwrap();
    // With any answer: a client must not hang on what cannot come any more.
    drop(tokio::time::timeout(std::time::Duration::from_secs(5), wait).await.unwrap().unwrap());
}

#[tokio::test]
async fn an_exec_does_not_wait_for_what_it_left_running() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let stdio = Stdio::new(scene.folder(), "e");
    let out = Reader::open(&stdio.stdout);
    let mut request = bundle.exec("e", &["sh", "-c", "sleep 1000 & echo done"]);
    request.stdout = stdio.stdout;
    task.exec(&request).await.unwrap();
    task.start("web", "e").await.unwrap();
    assert_eq!(task.wait("web", "e").await.unwrap(), 0);
    let began = std::time::Instant::now();
    task.delete("web", "e").await.unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(out.end().await, "done\n");
}

#[tokio::test]
async fn stdin_that_is_closed_before_the_start_ends_at_the_start() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let stdio = Stdio::new(scene.folder(), "e");
    let mut request = bundle.exec("e", &["cat"]);
    request.stdin = stdio.stdin;
    task.exec(&request).await.unwrap();
    task.close_stdin("web", "e").await.unwrap();
    task.start("web", "e").await.unwrap();
    assert_eq!(task.wait("web", "e").await.unwrap(), 0);
}

#[tokio::test]
async fn a_terminal_that_only_one_side_wants_is_refused_and_leaves_no_process() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let mut request = bundle.exec("e", &SLEEP);
    request.terminal = true;
    let text = task.exec(&request).await.refused(Code::INVALID_ARGUMENT);
    assert!(text.contains("process.terminal is false"), "{text}");
    let other = scene.bundle("other", &SLEEP).with_terminal();
    let text = task.create(&other.create()).await.refused(Code::INVALID_ARGUMENT);
    assert!(text.contains("process.terminal is true"), "{text}");
    assert_eq!(task.pids("web").await.unwrap().processes.len(), 1);
}

//! Events: each once, in the order in which things happened, and none lost while containerd is
//! away.

use crate::support::events::Event;
use crate::support::{Scene, bed, proc};
use std::collections::BTreeMap;

#[tokio::test]
async fn a_life_is_told_in_order_each_event_once() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sh", "-c", "exit 3"]);
    let task = scene.supervisor(&bundle).await;
    let pid = task.create(&bundle.create()).await.unwrap();
    task.start("web", "").await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 3);
    task.delete("web", "").await.unwrap();
    let lines = scene.events.line("delete web 3").await;
    assert_eq!(lines, ["create web", "start web", "exit web 3", "delete web 3"]);
    for event in scene.events.all() {
        assert_eq!((event.pid, &event.namespace), (pid, &scene.namespace), "{event}");
    }
}

#[tokio::test]
async fn execs_are_told_with_their_own_ids_and_end_before_the_container() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    task.exec(&bundle.exec("short", &["sh", "-c", "exit 7"])).await.unwrap();
    let short = task.start("web", "short").await.unwrap();
    assert_eq!(task.wait("web", "short").await.unwrap(), 7);
    task.delete("web", "short").await.unwrap();
    for exec in ["one", "two", "three"] {
        task.exec(&bundle.exec(exec, &["sleep", "1000"])).await.unwrap();
        task.start("web", exec).await.unwrap();
    }
    task.kill("web", "", 9).await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 137);
    task.delete("web", "").await.unwrap();
    let lines = scene.events.line("delete web 137").await;
    assert_eq!(
        lines[..5],
        [
            "create web",
            "start web",
            "exec-added web/short",
            "exec-started web/short",
            "exit web/short 7"
        ]
    );
    let tail = &lines[lines.len() - 2..];
    assert_eq!(tail, ["exit web 137", "delete web 137"]);
    let mut exits = lines[11..lines.len() - 2].to_vec();
    exits.sort();
    assert_eq!(exits, ["exit web/one 137", "exit web/three 137", "exit web/two 137"]);
    // An exec's Delete is not told.
    assert_eq!(lines.iter().filter(|line| line.starts_with("delete")).count(), 1);
    let of_short = |event: &&Event| event.exec == "short" && event.pid != 0;
    let events = scene.events.all();
    assert!(events.iter().filter(of_short).all(|event| event.pid == short));
}

#[tokio::test]
async fn an_exec_that_could_not_be_started_is_added_and_nothing_more() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    task.exec(&bundle.exec("bad", &["/no/such/program"])).await.unwrap();
    let error = task.start("web", "bad").await.unwrap_err().to_string();
    assert!(error.contains("/no/such/program") && error.contains("bad"), "{error}");
    task.delete("web", "bad").await.unwrap();
    task.kill("web", "", 9).await.unwrap();
    let lines = scene.events.line("exit web 137").await;
    assert_eq!(lines, ["create web", "start web", "exec-added web/bad", "exit web 137"]);
}

#[tokio::test]
async fn a_container_that_could_not_be_made_is_not_told_of() {
    let scene = Scene::new();
    let bundle = scene.bundle("bad", &["/no/such/program"]);
    let other = scene.bundle("good", &["true"]);
    let task = scene.supervisor(&bundle).await;
    let made = task.create(&bundle.create()).await;
    let error = match made {
        Err(error) => error.to_string(),
        // Some runtimes find out only when it starts.
        Ok(_) => task.start("bad", "").await.unwrap_err().to_string(),
    };
    assert!(error.contains("/no/such/program") && error.contains("bad"), "{error}");
    task.create(&other.create()).await.unwrap();
    let lines = scene.events.line("create good").await;
    assert!(!lines.contains(&"start bad".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn pause_and_resume_are_told() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    for _ in 0..2 {
        task.pause("web").await.unwrap();
        task.resume("web").await.unwrap();
    }
    task.kill("web", "", 9).await.unwrap();
    let lines = scene.events.line("exit web 137").await;
    let expected = [
        "create web",
        "start web",
        "paused web",
        "resumed web",
        "paused web",
        "resumed web",
        "exit web 137",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn an_exit_never_comes_before_the_start_in_a_hundred_runs_of_true() {
    const RUNS: usize = 100;
    let scene = Scene::new();
    let first = scene.bundle("run-0", &["true"]);
    let task = scene.supervisor(&first).await;
    for run in 0..RUNS {
        let id = format!("run-{run}");
        let bundle = if run == 0 { &first } else { &scene.bundle(&id, &["true"]) };
        task.create(&bundle.create()).await.unwrap();
        task.start(&id, "").await.unwrap();
    }
    let exits = |events: &[Event]| events.iter().filter(|e| e.topic == "/tasks/exit").count();
    let events = scene.events.until(|events| exits(events) == RUNS).await;
    let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        lives.entry(event.container.clone()).or_default().push(event.topic);
    }
    assert_eq!(lives.len(), RUNS);
    for (id, topics) in lives {
        assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit"], "{id}");
        task.delete(&id, "").await.unwrap();
    }
}

#[tokio::test]
async fn an_execs_exit_never_comes_before_its_start_in_a_hundred_runs_of_true() {
    const RUNS: usize = 100;
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    for run in 0..RUNS {
        let exec = format!("e{run}");
        task.exec(&bundle.exec(&exec, &["true"])).await.unwrap();
        task.start("web", &exec).await.unwrap();
    }
    let exits = |events: &[Event]| events.iter().filter(|e| e.topic == "/tasks/exit").count();
    let events = scene.events.until(|events| exits(events) == RUNS).await;
    let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events.into_iter().filter(|event| !event.exec.is_empty()) {
        lives.entry(event.exec.clone()).or_default().push(event.topic);
    }
    assert_eq!(lives.len(), RUNS);
    for (exec, topics) in lives {
        let expected = ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"];
        assert_eq!(topics, expected, "{exec}");
    }
}

#[tokio::test]
async fn a_supervisor_starts_while_containerd_takes_no_events_and_tells_all_of_them_later() {
    let mut scene = Scene::without_events(&bed::shim());
    let bundle = scene.bundle("web", &["sh", "-c", "exit 1"]);
    let task = scene.running(&bundle).await;
    assert_eq!(task.wait("web", "").await.unwrap(), 1);
    task.delete("web", "").await.unwrap();
    scene.events.serve();
    let lines = scene.events.line("delete web 1").await;
    assert_eq!(lines, ["create web", "start web", "exit web 1", "delete web 1"]);
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_overtakes_while_containerd_restarts() {
    let mut scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    scene.events.line("start web").await;
    let mut expected = vec!["create web".to_owned(), "start web".to_owned()];
    for outage in 0..2 {
        scene.events.stop();
        for exec in 0..5 {
            let exec = format!("e{outage}-{exec}");
            task.exec(&bundle.exec(&exec, &["true"])).await.unwrap();
            task.start("web", &exec).await.unwrap();
            task.wait("web", &exec).await.unwrap();
            expected.push(format!("exec-added web/{exec}"));
            expected.push(format!("exec-started web/{exec}"));
            expected.push(format!("exit web/{exec} 0"));
        }
        scene.events.serve();
        scene.events.line(&format!("exit web/e{outage}-4 0")).await;
    }
    assert_eq!(scene.events.lines(), expected);
}

#[tokio::test]
async fn the_last_events_are_told_before_the_supervisor_ends() {
    let mut scene = Scene::new();
    let bundle = scene.bundle("web", &["true"]);
    let task = scene.running(&bundle).await;
    let shim = task.hello("web").await.unwrap().shim_pid;
    task.wait("web", "").await.unwrap();
    scene.events.line("exit web 0").await;
    scene.events.stop();
    task.delete("web", "").await.unwrap();
    task.shutdown("web").await.unwrap();
    scene.events.serve();
    scene.events.line("delete web 0").await;
    proc::eventually("the supervisor ends", || !proc::is_alive(shim)).await;
}

#[tokio::test]
async fn a_supervisor_ends_soon_even_if_containerd_never_takes_the_last_events() {
    let mut scene = Scene::new();
    let bundle = scene.bundle("web", &["true"]);
    let task = scene.running(&bundle).await;
    let shim = task.hello("web").await.unwrap().shim_pid;
    task.wait("web", "").await.unwrap();
    scene.events.stop();
    task.delete("web", "").await.unwrap();
    task.shutdown("web").await.unwrap();
    proc::eventually("the supervisor ends", || !proc::is_alive(shim)).await;
}

#[tokio::test]
async fn a_container_that_runs_out_of_memory_is_told_of_before_its_exit() {
    let scene = Scene::new();
    let hog = ["sh", "-c", "x=x; while :; do x=$x$x; done"];
    let bundle = scene.bundle("hog", &hog).edit(|spec| {
        spec["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 16 << 20 });
    });
    let task = scene.running(&bundle).await;
    assert_eq!(task.wait("hog", "").await.unwrap(), 137);
    let lines = scene.events.line("exit hog 137").await;
    assert_eq!(lines, ["create hog", "start hog", "oom hog", "exit hog 137"]);
}

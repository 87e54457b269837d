//! A pod whose supervisor, sandbox or containerd goes.

use crate::bed::eventually;
use crate::kubelet::{Node, Pod, seconds};
use serde_json::{Value, json};

on_every_node!(
    pods_go_on_while_containerd_is_away,
    an_end_in_containerds_absence_is_told,
    a_container_whose_supervisor_was_killed_has_exited,
    a_pod_whose_sandbox_lost_its_supervisor_can_be_removed,
    a_container_of_a_dead_sandbox_is_refused,
    a_backend_that_is_not_there_is_refused_in_words,
    a_pod_that_failed_is_made_again,
);

fn pods_go_on_while_containerd_is_away(mut node: Node) {
    let pod = node.pod();
    let c = pod.run("app", "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.05; done");
    let unstarted = pod.create("later", &["sleep", "1000"], |_| {});
    let pid = node.pid(&c);
    let (pod, config) = pod.detach();
    for signal in ["TERM", "KILL"] {
        node.bed.stop_containerd(signal);
        node.start_containerd();
        let pod = Pod::of(&node, pod.clone(), config.clone());
        assert_eq!(pod.status()["state"], "SANDBOX_READY");
        assert_eq!(node.status(&c)["state"], "CONTAINER_RUNNING");
        assert_eq!(node.pid(&c), pid);
        assert_eq!(node.shell(&c, "echo on"), "on\n");
        let lines = pod.log("app").lines().count();
        eventually("the log goes on", || {
            (pod.log("app").lines().count() > lines + 5).then_some(())
        });
    }
    let pod = Pod::of(&node, pod, config);
    node.start(&unstarted);
    let another = pod.run("another", "exec sleep 1000");
    for id in [&c, &unstarted, &another] {
        node.stop(id, 0);
        assert_eq!(node.status(id)["exit_code"], 137);
    }
    pod.remove();
    node.leave_nothing();
}

fn an_end_in_containerds_absence_is_told(mut node: Node) {
    let pod = node.pod();
    let c = pod.run("app", "until [ -e /tmp/go ]; do sleep 0.05; done; exit 8");
    let pid = node.bed.pid(&c);
    let go = format!("{}/rootfs/tmp/go", node.bed.bundle(&c));
    let sandbox = node.bed.pid(&pod.id);
    let (pod, config) = pod.detach();
    node.bed.stop_containerd("KILL");
    node.bed.write(&go, "");
    eventually("the container has ended", || (!node.bed.is_alive(pid)).then_some(()));
    node.bed.signal(sandbox, "KILL");
    eventually("the sandbox has ended", || (!node.bed.is_alive(sandbox)).then_some(()));
    node.start_containerd();
    let pod = Pod::of(&node, pod, config);
    let status = node.until_exited(&c);
    assert_eq!(status["exit_code"], 8, "{status}");
    assert!(seconds(&status["finished_at"]) > 1.0);
    eventually("the pod is not ready", || {
        (pod.status()["state"] == "SANDBOX_NOTREADY").then_some(())
    });
    node.remove(&c);
    pod.remove();
    node.leave_nothing();
}

fn a_container_whose_supervisor_was_killed_has_exited(node: Node) {
    let pod = node.pod();
    let c = pod.run("app", "sleep 2000 & exec sleep 1000");
    let other = pod.run("other", "exec sleep 1000");
    let pid = node.bed.pid(&c);
    node.bed.signal(node.bed.supervisor(&c), "KILL");
    let status = node.until_exited(&c);
    assert_ne!(status["exit_code"], 0, "{status}");
    eventually("its process has ended", || (!node.bed.is_alive(pid)).then_some(()));
    assert_eq!(node.status(&other)["state"], "CONTAINER_RUNNING");
    assert_eq!(pod.status()["state"], "SANDBOX_READY");
    node.remove(&c);
    // As a kubelet does: the next attempt of the same container.
    let again = pod.run_with("app", "exec sleep 1000", |config| {
        config["metadata"]["attempt"] = 1.into();
    });
    assert_eq!(node.status(&again)["state"], "CONTAINER_RUNNING");
    pod.remove();
    node.leave_nothing();
}

fn a_pod_whose_sandbox_lost_its_supervisor_can_be_removed(node: Node) {
    let pod = node.pod();
    let c = pod.run("app", "exec sleep 1000");
    node.bed.signal(node.bed.supervisor(&pod.id), "KILL");
    eventually("the pod is not ready", || {
        (pod.status()["state"] == "SANDBOX_NOTREADY").then_some(())
    });
    let late = pod.try_create("late", &["sleep", "1000"], |_| {});
    if let Ok(late) = late {
        node.ask("StartContainer", &json!({ "container_id": late })).unwrap_err();
    }
    // What it held goes on: whether it is to end is the kubelet's decision.
    assert_eq!(node.status(&c)["state"], "CONTAINER_RUNNING");
    node.stop(&c, 0);
    assert_eq!(node.status(&c)["exit_code"], 137);
    pod.remove();
    node.leave_nothing();
}

fn a_container_of_a_dead_sandbox_is_refused(node: Node) {
    let pod = node.pod();
    let unstarted = pod.create("unstarted", &["sleep", "1000"], |_| {});
    node.bed.signal(node.bed.pid(&pod.id), "KILL");
    let cgroups = node.bed.cgroup_names();
    // Before containerd has heard of it, when the runtime may come to see the sandbox end.
    let request = json!({ "container_id": unstarted });
    let refused = node.ask("StartContainer", &request).unwrap_err();
    assert!(refused.text.contains("sandbox"), "{refused}");
    eventually("the pod is not ready", || {
        (pod.status()["state"] == "SANDBOX_NOTREADY").then_some(())
    });
    if let Ok(late) = pod.try_create("late", &["sleep", "1000"], |_| {}) {
        let request = json!({ "container_id": late });
        let refused = node.ask("StartContainer", &request).unwrap_err();
        assert!(refused.text.contains("sandbox"), "{refused}");
    }
    assert_eq!(node.bed.record(&unstarted), Value::Null);
    assert!(node.bed.cgroup_names().len() <= cgroups.len(), "{:?}", node.bed.cgroup_names());
    pod.remove();
    node.leave_nothing();
}

fn a_backend_that_is_not_there_is_refused_in_words(node: Node) {
    for (backend, problem) in [("lxd", "lxd"), ("pct", "pct")] {
        let pod = node.pod_with(|config| {
            config["annotations"]["io.nexcage.backend"] = backend.into();
        });
        let c = pod.create("app", &["sleep", "1000"], |_| {});
        let refused = node.ask("StartContainer", &json!({ "container_id": c })).unwrap_err();
        assert!(refused.text.contains(problem), "{refused}");
        assert!(refused.text.len() < 600, "{refused}");
        let status = node.status(&c);
        assert_eq!(status["state"], "CONTAINER_EXITED", "{status}");
        assert!(status["message"].as_str().unwrap().contains(problem), "{status}");
        node.remove(&c);
        pod.remove();
    }
    node.leave_nothing();
}

fn a_pod_that_failed_is_made_again(node: Node) {
    let pod = node.pod();
    pod.run("app", "exec sleep 1000");
    let (id, mut config) = pod.detach();
    node.bed.signal(node.bed.pid(&id), "KILL");
    let pod = Pod::of(&node, id, config.clone());
    eventually("the pod is not ready", || {
        (pod.status()["state"] == "SANDBOX_NOTREADY").then_some(())
    });
    pod.stop();
    // The same pod, the same container, in the next attempt.
    config["metadata"]["attempt"] = 1.into();
    let again = node.pod_with(|made| *made = config);
    let c = again.run_with("app", "exec sleep 1000", |config| {
        config["metadata"]["attempt"] = 1.into();
    });
    assert_eq!(node.status(&c)["state"], "CONTAINER_RUNNING");
    pod.remove();
    assert_eq!(node.status(&c)["state"], "CONTAINER_RUNNING");
    again.remove();
    node.leave_nothing();
}

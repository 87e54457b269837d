//! Pods, as a kubelet makes them through containerd's own CRI plugin.

use crate::bed::eventually;
use crate::kubelet::{Node, seconds};
use serde_json::json;

on_every_node!(
    a_pod_runs_from_its_sandbox_to_its_removal,
    how_a_container_ended_is_told_with_the_reason,
    an_exec_that_takes_too_long_is_killed,
    a_container_has_its_grace_period_and_no_more,
    limits_can_be_changed_and_what_is_used_is_told,
    a_pod_is_stopped_with_all_that_runs_in_it,
);

fn a_pod_runs_from_its_sandbox_to_its_removal(node: Node) {
    let events = node.bed.events();
    let pod = node.pod();
    assert_eq!(pod.status()["state"], "SANDBOX_READY");
    let script =
        "trap 'echo bye; exit 5' TERM; echo out; echo err >&2; while :; do sleep 0.1; done";
    let c = pod.create("app", &["sh", "-c", script], |config| {
        config["envs"] = json!([{ "key": "COLOUR", "value": "a b" }]);
        config["working_dir"] = "/made/for/it".into();
    });
    assert_eq!(node.status(&c)["state"], "CONTAINER_CREATED");
    node.start(&c);
    let status = node.status(&c);
    assert_eq!(status["state"], "CONTAINER_RUNNING");
    assert!(seconds(&status["started_at"]) > 1.0);
    let pid = i32::try_from(node.pid(&c)).unwrap();
    assert_eq!(pid, node.bed.pid(&c));
    assert!(node.bed.is_alive(pid));
    // One supervisor for each, which is told apart by its record.
    assert_eq!(node.bed.record(&c)["io.nexcage"]["backend"], node.backend);
    assert_eq!(node.bed.record(&pod.id)["io.nexcage"]["backend"], "crun");
    assert_ne!(node.bed.supervisor(&c), node.bed.supervisor(&pod.id));

    let reply = node.exec(&c, &["sh", "-c", "echo $COLOUR; pwd; echo bad >&2; exit 3"]);
    let expected = json!({ "exit_code": 3, "stdout": "a b\n/made/for/it\n", "stderr": "bad\n" });
    assert_eq!(reply, expected);
    eventually("both streams are in the log", || {
        let log = pod.log("app");
        let has = |line: &str| log.lines().any(|it| it.ends_with(line) && it.contains('T'));
        (has(" stdout F out") && has(" stderr F err")).then_some(())
    });
    node.stop(&c, 30);
    let status = node.status(&c);
    assert_eq!(status["state"], "CONTAINER_EXITED");
    assert_eq!(status["exit_code"], 5);
    assert!(seconds(&status["finished_at"]) >= seconds(&status["started_at"]));
    assert!(pod.log("app").contains(" stdout F bye"), "{}", pod.log("app"));
    node.remove(&c);
    pod.stop();
    assert_eq!(pod.status()["state"], "SANDBOX_NOTREADY");
    let sandbox = pod.id.clone();
    pod.remove();
    let own: Vec<_> = events.brief().into_iter().filter(|event| event.contains(&c)).collect();
    let expected = [format!("create {c}"), format!("start {c}"), format!("exit {c} 5")];
    assert_eq!(own[..2], expected[..2]);
    assert!(own.contains(&expected[2]) && own.contains(&format!("delete {c}")), "{own:?}");
    events.until(&format!("delete {sandbox}"));
    drop(events);
    node.leave_nothing();
}

fn how_a_container_ended_is_told_with_the_reason(node: Node) {
    let pod = node.pod();
    let mut ended = Vec::new();
    for (name, script, code, reason) in [
        ("good", "true", 0, "Completed"),
        ("bad", "exit 7", 7, "Error"),
        ("hungry", "exec dd if=/dev/zero of=/dev/null bs=256M count=1", 137, "OOMKilled"),
    ] {
        let id = pod.run_with(name, script, |config| {
            config["linux"]["resources"]["memory_limit_in_bytes"] = (32 << 20).into();
        });
        let status = node.until_exited(&id);
        assert_eq!(status["exit_code"], code, "{status}");
        assert_eq!(status["reason"], reason, "{status}");
        ended.push(id);
    }
    // A command that is not there.
    let id = pod.create("lost", &["/nowhere/to/be/found"], |_| {});
    let refused = node.ask("StartContainer", &json!({ "container_id": id })).unwrap_err();
    assert!(refused.text.contains("/nowhere/to/be/found"), "{refused}");
    assert!(refused.text.len() < 600, "{refused}");
    let status = node.status(&id);
    assert_eq!(status["state"], "CONTAINER_EXITED", "{status}");
    assert_eq!(status["reason"], "StartError", "{status}");
    node.remove(&id);
    for id in ended {
        node.remove(&id);
    }
    pod.remove();
    node.leave_nothing();
}

fn an_exec_that_takes_too_long_is_killed(node: Node) {
    let pod = node.pod();
    let c = pod.run("app", "exec sleep 1000");
    let request = json!({ "container_id": c, "cmd": ["sleep", "4321"], "timeout": 1 });
    let refused = node.ask("ExecSync", &request).unwrap_err();
    assert!(refused.text.contains("timeout 1s exceeded"), "{refused}");
    let ps = node.shell(&c, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    assert!(!ps.contains("sleep 4321"), "{ps}");
    assert_eq!(node.shell(&c, "echo on"), "on\n");
    node.stop(&c, 0);
    pod.remove();
    node.leave_nothing();
}

fn a_container_has_its_grace_period_and_no_more(node: Node) {
    let pod = node.pod();
    let c = pod.run("deaf", "trap '' TERM; echo ready; while :; do sleep 0.1; done");
    eventually("it is ready", || pod.log("deaf").contains("ready").then_some(()));
    let begun = std::time::Instant::now();
    node.stop(&c, 2);
    assert!(begun.elapsed() >= std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    let status = node.status(&c);
    assert_eq!((&status["exit_code"], &status["reason"]), (&json!(137), &json!("Error")));
    // A second Stop, and a Remove of what is gone, are no errors.
    node.stop(&c, 2);
    node.remove(&c);
    node.remove(&c);
    pod.remove();
    node.leave_nothing();
}

fn limits_can_be_changed_and_what_is_used_is_told(node: Node) {
    let pod = node.pod();
    let c = pod.run_with("app", "while :; do :; done", |config| {
        config["linux"]["resources"] = json!({
            "cpu_period": 100_000, "cpu_quota": 20_000, "cpu_shares": 512,
            "memory_limit_in_bytes": 64 << 20, "oom_score_adj": 321,
        });
    });
    let cgroup = |controller, file| node.bed.cgroup(&c, controller, file);
    assert_eq!(cgroup("cpu", "cpu.cfs_quota_us"), "20000");
    assert_eq!(cgroup("cpu", "cpu.shares"), "512");
    assert_eq!(cgroup("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(node.shell(&c, "cat /proc/1/oom_score_adj"), "321\n");
    let linux = json!({
        "cpu_period": 50_000, "cpu_quota": 25_000, "cpu_shares": 256,
        "memory_limit_in_bytes": 48 << 20, "cpuset_cpus": "0",
    });
    node.call("UpdateContainerResources", &json!({ "container_id": c, "linux": linux }));
    assert_eq!(cgroup("cpu", "cpu.cfs_quota_us"), "25000");
    assert_eq!(cgroup("cpu", "cpu.cfs_period_us"), "50000");
    assert_eq!(cgroup("cpu", "cpu.shares"), "256");
    assert_eq!(cgroup("cpuset", "cpuset.cpus"), "0");
    assert_eq!(cgroup("memory", "memory.limit_in_bytes"), (48 << 20).to_string());

    let one = node.call("ContainerStats", &json!({ "container_id": c }))["stats"].take();
    let all = node.call("ListContainerStats", &json!({}));
    assert_eq!(all["stats"].as_array().unwrap().len(), 1, "{all}");
    for stats in [&one, &all["stats"][0]] {
        assert_eq!(stats["attributes"]["id"], c);
        assert!(seconds(&stats["cpu"]["usage_core_nano_seconds"]["value"]) > 0.0, "{stats}");
        assert_ne!(stats["memory"]["working_set_bytes"]["value"], "0", "{stats}");
    }
    let stats = node.call("PodSandboxStats", &json!({ "pod_sandbox_id": pod.id }));
    let linux = &stats["stats"]["linux"];
    assert_eq!(linux["containers"].as_array().unwrap().len(), 1, "{stats}");
    assert!(seconds(&linux["cpu"]["usage_core_nano_seconds"]["value"]) > 0.0, "{stats}");
    node.stop(&c, 0);
    pod.remove();
    node.leave_nothing();
}

fn a_pod_is_stopped_with_all_that_runs_in_it(node: Node) {
    let pod = node.pod();
    let ids = ["one", "two", "three"].map(|name| pod.run(name, "exec sleep 1000"));
    let pids = ids.each_ref().map(|id| node.bed.pid(id));
    let unstarted = pod.create("four", &["true"], |_| {});
    pod.stop();
    for (id, pid) in ids.iter().zip(pids) {
        assert!(!node.bed.is_alive(pid));
        assert_eq!(node.status(id)["exit_code"], 137);
    }
    // What never ran has no task, and no supervisor of it was ever asked for.
    assert_eq!(node.bed.record(&unstarted), json!(null));
    pod.remove();
    node.leave_nothing();
}

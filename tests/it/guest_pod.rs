//! A pod by hand: a pause container on crun, and guests of LXC in its namespaces.

use crate::bed::{Bed, Pair, eventually};

const LXC: [&str; 2] = ["--annotation", "io.nexcage.backend=lxc"];

#[test]
fn on_containerd_1_6() {
    pod("1.6");
}

#[test]
fn on_containerd_1_7() {
    pod("1.7");
}

#[test]
fn on_containerd_2_1() {
    pod("2.1");
}

fn pod(containerd: &'static str) {
    let bed = Bed::new(Pair { containerd, runtime: "crun-1.28" });
    bed.run_detached(&[], "pause", &["sleep", "1000"]);
    let pause = bed.pid("pause").to_string();
    // Set in the pod's namespaces, seen by all of its containers.
    let set = "hostname pod-1; echo 777 > /proc/sys/kernel/shmmni; ip link set lo up";
    bed.start("nsenter", &["-t", &pause, "-n", "-i", "-u", "--", "sh", "-c", set]).finish().good();
    let shared = ["network:net", "ipc:ipc", "uts:uts"].map(|pair| {
        let (name, file) = pair.split_once(':').unwrap();
        format!("{name}:/proc/{pause}/ns/{file}")
    });
    let mut flags = LXC.to_vec();
    for namespace in &shared {
        flags.extend(["--with-ns", namespace]);
    }
    let pid = format!("pid:/proc/{pause}/ns/pid");
    let with_pid = [&flags[..], &["--with-ns", &pid]].concat();
    let serve = "trap 'exit 5' TERM; while :; do echo from a | nc -l -p 8080 & wait $!; done";
    bed.run_detached(&flags, "a", &["sh", "-c", serve]);
    bed.run_detached(&flags, "b", &["sleep", "1000"]);
    bed.run_detached(&with_pid, "c", &["sleep", "2000"]);
    let report = "hostname; cat /proc/sys/kernel/shmmni; tr '\\0' ' ' < /proc/1/cmdline; echo; \
                  readlink /proc/self/ns/mnt";
    let mut mounts = Vec::new();
    for (id, first) in [("a", "sh -c"), ("b", "sleep 1000"), ("c", "sleep 1000")] {
        let said = bed.exec(id, "report", &["sh", "-c", report]).finish().good().stdout;
        assert!(said.starts_with(&format!("pod-1\n777\n{first}")), "{id}: {said}");
        mounts.push(said.lines().last().unwrap().to_owned());
        assert_eq!(bed.record(id)["io.nexcage"]["backend"], "lxc", "{id}");
    }
    mounts.sort();
    mounts.dedup();
    assert_eq!(mounts.len(), 3, "mount namespaces are each container's own");
    // One host for all of them.
    eventually("b reaches a", || {
        let said = bed.exec("b", "ask", &["nc", "127.0.0.1", "8080"]).finish().stdout;
        (said == "from a\n").then_some(())
    });
    // In the pause container's pid namespace, and nowhere else, processes see each other.
    let all = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '";
    for (id, sees) in [("pause", true), ("b", false)] {
        let said = bed.exec(id, "ps", &["sh", "-c", all]).finish().good().stdout;
        assert_eq!(said.contains("sleep 2000"), sees, "{id}: {said}");
    }
    // Each ends by itself, the others go on.
    bed.kill("a", "TERM").good();
    bed.until_status("a", "STOPPED");
    assert_eq!(bed.remove_stopped("a"), 5);
    assert_eq!(bed.kill_and_remove("c"), 137);
    for id in ["pause", "b"] {
        assert_eq!(bed.status(id).as_deref(), Some("RUNNING"), "{id}");
        bed.exec(id, "still", &["true"]).finish().good();
    }
    assert_eq!(bed.kill_and_remove("pause"), 137);
    bed.exec("b", "last", &["true"]).finish().good();
    assert_eq!(bed.kill_and_remove("b"), 137);
    bed.leave_nothing();
}

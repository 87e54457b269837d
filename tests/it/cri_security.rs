//! What a pod may and may not: its security context and its mounts.

use crate::bed::eventually;
use crate::kubelet::Node;
use serde_json::{Value, json};

on_every_node!(
    a_container_has_the_user_and_the_groups_that_it_was_given,
    a_container_has_no_more_rights_than_it_was_given,
    a_privileged_container_has_all_rights,
    folders_of_the_node_are_mounted_as_it_was_said,
);

/// A container of a pod that may have privileged ones, with this security context.
fn run_with(node: &Node, context: Value, check: impl Fn(&str)) {
    let pod = node.pod_with(|config| {
        config["linux"]["security_context"]["privileged"] = context["privileged"].clone();
    });
    let id = pod.run_with("app", "exec sleep 1000", |config| {
        let security = config["linux"]["security_context"].as_object_mut().unwrap();
        security.extend(context.as_object().unwrap().clone());
    });
    check(&id);
    node.stop(&id, 0);
    pod.remove();
}

/// A line of a process' status.
fn line(node: &Node, id: &str, process: &str, key: &str) -> String {
    let found = node.shell(id, &format!("grep '^{key}:' /proc/{process}/status"));
    found.split_once(':').unwrap().1.trim().to_owned()
}

fn a_container_has_the_user_and_the_groups_that_it_was_given(node: Node) {
    let context = json!({
        "privileged": false,
        "run_as_user": { "value": 1000 }, "run_as_group": { "value": 3000 },
        "supplemental_groups": [2000, 4000],
    });
    run_with(&node, context, |id| {
        // Both the container's own process, and one that joins it.
        for process in ["1", "self"] {
            assert_eq!(line(&node, id, process, "Uid"), "1000\t1000\t1000\t1000", "{process}");
            assert_eq!(line(&node, id, process, "Gid"), "3000\t3000\t3000\t3000", "{process}");
            let groups = line(&node, id, process, "Groups");
            let mut groups: Vec<_> = groups.split_whitespace().collect();
            groups.retain(|group| *group != "3000");
            assert_eq!(groups, ["2000", "4000"], "{process}");
            assert_eq!(line(&node, id, process, "CapEff"), "0000000000000000", "{process}");
        }
    });
    node.leave_nothing();
}

fn a_container_has_no_more_rights_than_it_was_given(node: Node) {
    let context = json!({
        "privileged": false, "readonly_rootfs": true, "no_new_privs": true,
        "capabilities": { "drop_capabilities": ["ALL"], "add_capabilities": ["NET_BIND_SERVICE"] },
        "seccomp": { "profile_type": "RuntimeDefault" },
        "masked_paths": ["/proc/kcore", "/proc/keys"], "readonly_paths": ["/proc/sys"],
    });
    run_with(&node, context, |id| {
        for process in ["1", "self"] {
            for (key, value) in [
                ("CapPrm", "0000000000000400"),
                ("CapEff", "0000000000000400"),
                ("CapBnd", "0000000000000400"),
                ("NoNewPrivs", "1"),
                ("Seccomp", "2"),
            ] {
                assert_eq!(line(&node, id, process, key), value, "{process} {key}");
            }
        }
        for (script, problem) in [
            ("touch /new", "Read-only file system"),
            ("echo x > /proc/sys/kernel/hostname", "Read-only file system"),
            ("mount -t tmpfs tmpfs /tmp", "Operation not permitted"),
        ] {
            let reply = node.exec(id, &["sh", "-c", &format!("LC_ALL=C {script}")]);
            assert_ne!(reply["exit_code"], 0, "{script}: {reply}");
            let said = reply["stderr"].as_str().unwrap().to_lowercase();
            let denied = said.contains(&problem.to_lowercase()) || said.contains("denied");
            assert!(denied, "{script}: {reply}");
        }
        assert_eq!(node.shell(id, "cat /proc/kcore | head -c 1; cat /proc/keys"), "");
        node.shell(id, "echo x > /dev/shm/x; cat /dev/shm/x");
    });
    node.leave_nothing();
}

fn a_privileged_container_has_all_rights(node: Node) {
    let all = node.bed.start("grep", &["^CapEff", "/proc/1/status"]).finish().good().stdout;
    let all = all.split_whitespace().nth(1).unwrap().to_owned();
    run_with(&node, json!({ "privileged": true }), |id| {
        for process in ["1", "self"] {
            assert_eq!(line(&node, id, process, "CapEff"), all, "{process}");
            assert_eq!(line(&node, id, process, "Seccomp"), "0", "{process}");
        }
        // The node's devices, sysctls and cgroups, and mounts.
        node.shell(id, "test -c /dev/kmsg && test -c /dev/loop-control && mkdir /m");
        node.shell(id, "mount -t tmpfs tmpfs /m && echo x > /m/x && umount /m");
        node.shell(id, "echo 1 > /proc/sys/net/ipv4/ip_forward");
        node.shell(id, "mkdir /sys/fs/cgroup/pids/$$ && rmdir /sys/fs/cgroup/pids/$$");
    });
    node.leave_nothing();
}

fn folders_of_the_node_are_mounted_as_it_was_said(node: Node) {
    let host = |script: &str| node.bed.start("sh", &["-ec", script]).finish().good().stdout;
    host(
        "mkdir -p /run/b/vol/sub && mount -t tmpfs tmpfs /run/b/vol && \
          mount --make-shared /run/b/vol && mkdir /run/b/vol/sub /run/b/vol/back && \
          echo one > /run/b/vol/file",
    );
    let pod = node.pod_with(|config| {
        config["linux"]["security_context"]["privileged"] = true.into();
    });
    let mount = |place: &str, source: &str, more: Value| {
        let mut mount = json!({ "container_path": place, "host_path": source });
        mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mount
    };
    let mounts = json!([
        mount("/rw", "/run/b/vol", json!({})),
        mount("/ro", "/run/b/vol", json!({ "readonly": true })),
        mount("/deep/down/one", "/run/b/vol/file", json!({ "readonly": true })),
        mount("/slave", "/run/b/vol", json!({ "propagation": "PROPAGATION_HOST_TO_CONTAINER" })),
    ]);
    let c = pod.run_with("app", "exec sleep 1000", |config| config["mounts"] = mounts);
    let both_ways = json!([mount(
        "/shared",
        "/run/b/vol",
        json!({ "propagation": "PROPAGATION_BIDIRECTIONAL" })
    ),]);
    let driver = pod.create("driver", &["sleep", "1000"], |config| {
        config["mounts"] = both_ways;
        config["linux"]["security_context"]["privileged"] = true.into();
    });
    node.shell(&c, "echo two > /rw/new");
    assert_eq!(host("cat /run/b/vol/new"), "two\n");
    assert_eq!(node.shell(&c, "cat /ro/new /deep/down/one /slave/file"), "two\none\none\n");
    for place in ["/ro/x", "/deep/down/one"] {
        let reply = node.exec(&c, &["sh", "-c", &format!("echo x > {place}")]);
        assert!(reply["stderr"].as_str().unwrap().contains("Read-only"), "{reply}");
    }
    // What the node mounts later, and what a driver does.
    host("mount -t tmpfs later /run/b/vol/sub && echo later > /run/b/vol/sub/x");
    assert_eq!(node.shell(&c, "cat /slave/sub/x; ls /rw/sub"), "later\n");
    node.start(&driver);
    node.shell(&driver, "mount -t tmpfs back /shared/back && echo back > /shared/back/x");
    assert_eq!(host("cat /run/b/vol/back/x"), "back\n");
    assert_eq!(node.shell(&c, "cat /slave/back/x; ls /rw/back"), "back\n");
    // A volume is no business of the container's end.
    pod.remove();
    assert_eq!(host("cat /run/b/vol/back/x /run/b/vol/sub/x"), "back\nlater\n");
    eventually("nobody holds the volume", || {
        let unmount = "umount /run/b/vol/sub /run/b/vol/back /run/b/vol";
        (node.bed.start("sh", &["-c", unmount]).finish().code == 0).then_some(())
    });
    node.leave_nothing();
}

//! What the containers of a pod share, and what not, whichever backends they are on.

use crate::bed::{eventually, fetched};
use crate::kubelet::{Node, Pod};
use serde_json::{Value, json};

on_every_node!(
    containers_share_what_is_the_pods_and_nothing_else,
    containers_share_processes_where_the_pod_says_so,
    a_pod_in_the_nodes_namespaces_is_there,
    a_pod_has_a_network_of_its_own,
);

/// A namespace of a container's, as seen from inside.
fn namespace(node: &Node, id: &str, name: &str) -> String {
    node.shell(id, &format!("readlink /proc/self/ns/{name}"))
}

/// The same of the sandbox.
fn of_sandbox(node: &Node, pod: &Pod<'_>, name: &str) -> String {
    let pid = node.bed.pid(&pod.id).to_string();
    let link = format!("/proc/{pid}/ns/{name}");
    node.bed.start("readlink", &[&link]).finish().good().stdout
}

fn of_node(node: &Node, name: &str) -> String {
    node.bed.start("readlink", &[&format!("/proc/1/ns/{name}")]).finish().good().stdout
}

fn with_pid(config: &mut Value, mode: &str) {
    config["linux"]["security_context"]["namespace_options"]["pid"] = mode.into();
}

fn containers_share_what_is_the_pods_and_nothing_else(node: Node) {
    let pod = node.pod();
    let [a, b] = ["a", "b"].map(|name| pod.run(name, "exec sleep 1000"));
    for name in ["ipc", "net", "uts"] {
        let sandbox = of_sandbox(&node, &pod, name);
        assert_eq!(namespace(&node, &a, name), sandbox, "{name}");
        assert_eq!(namespace(&node, &b, name), sandbox, "{name}");
    }
    for name in ["mnt", "pid"] {
        let all =
            [namespace(&node, &a, name), namespace(&node, &b, name), of_sandbox(&node, &pod, name)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{name}: {all:?}");
    }
    assert_eq!(of_sandbox(&node, &pod, "net"), of_node(&node, "net"));
    assert_ne!(of_sandbox(&node, &pod, "ipc"), of_node(&node, "ipc"));
    node.shell(&a, "echo here > /dev/shm/note");
    assert_eq!(node.shell(&b, "cat /dev/shm/note"), "here\n");
    pod.remove();
    node.leave_nothing();
}

fn containers_share_processes_where_the_pod_says_so(node: Node) {
    let pod = node.pod_with(|config| with_pid(config, "POD"));
    let a = pod.run("a", "exec sleep 1111");
    let b = pod.run("b", "sleep 2222 & exec sleep 3333");
    let all = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '";
    for id in [&a, &b] {
        let seen = node.shell(id, all);
        for command in ["sleep 1111", "sleep 2222", "sleep 3333", "/pause"] {
            assert!(seen.contains(command), "no {command:?} in {seen}");
        }
    }
    // The end of one is no end of the others, and leaves none of its own processes.
    node.stop(&b, 0);
    assert_eq!(node.status(&b)["exit_code"], 137);
    eventually("its processes are gone", || {
        let seen = node.shell(&a, all);
        (!seen.contains("sleep 2222") && !seen.contains("sleep 3333")).then_some(())
    });
    assert_eq!(node.status(&a)["state"], "CONTAINER_RUNNING");
    // In a third, the processes of the first, as a debugger wants it.
    let c = pod.run("c", "exec sleep 4444");
    assert!(node.shell(&c, all).contains("sleep 1111"));
    pod.remove();
    node.leave_nothing();
}

fn a_pod_in_the_nodes_namespaces_is_there(node: Node) {
    let host = json!({ "network": "NODE", "pid": "NODE", "ipc": "NODE" });
    let pod = node.pod_with(|config| {
        config["linux"]["security_context"]["namespace_options"] = host;
    });
    let c = pod.run("agent", "sleep 4444 & exec sleep 3333");
    for name in ["ipc", "net", "pid"] {
        assert_eq!(namespace(&node, &c, name), of_node(&node, name), "{name}");
    }
    let seen = node.shell(&c, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    assert!(seen.contains("containerd --config"), "{seen}");
    let pid = node.bed.pid(&c);
    node.stop(&c, 0);
    assert!(!node.bed.is_alive(pid));
    pod.remove();
    node.leave_nothing();
}

fn a_pod_has_a_network_of_its_own(node: Node) {
    let pod = node.pod_with(|config| {
        config["hostname"] = "shop-1".into();
        config["dns_config"] = json!({ "servers": ["10.0.0.10"], "searches": ["shop.svc"] });
        config["linux"]["security_context"]["namespace_options"]["network"] = "POD".into();
        config["linux"]["sysctls"] = json!({
            "net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1",
        });
    });
    let status = pod.status();
    let ip = status["network"]["ip"].as_str().unwrap();
    assert!(ip.starts_with("10.88.0."), "{status}");
    let serve = "while :; do echo hello | nc -l -p 8080; done";
    let server = pod.run("server", serve);
    let client = pod.run("client", "exec sleep 1000");
    for id in [&server, &client] {
        assert_eq!(node.shell(id, "hostname"), "shop-1\n");
        let addresses = node.shell(id, "ip -4 addr show eth0");
        assert!(addresses.contains(&format!("inet {ip}/24")), "{addresses}");
        let resolv = node.shell(id, "cat /etc/resolv.conf");
        assert_eq!(resolv, "search shop.svc\nnameserver 10.0.0.10\n");
        let sysctls = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start \
                       /proc/sys/kernel/shm_rmid_forced";
        assert_eq!(node.shell(id, sysctls), "80\n1\n");
        assert_eq!(node.shell(id, "ls /sys/class/net | tr '\\n' ' '"), "eth0 lo ");
    }
    eventually("the container reaches its neighbour", || {
        let reply = node.exec(&client, &["nc", "-w", "5", "127.0.0.1", "8080"]);
        (reply["stdout"] == "hello\n").then_some(())
    });
    let busybox = fetched("rootfs/bin/busybox").display().to_string();
    eventually("the node reaches the pod", || {
        let said = node.bed.start(&busybox, &["nc", "-w", "5", ip, "8080"]).finish();
        (said.stdout == "hello\n").then_some(())
    });
    pod.remove();
    node.leave_nothing();
}

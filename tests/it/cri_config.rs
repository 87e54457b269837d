//! What containerd's configuration says of a runtime reaches its pods: as packaging/containerd
//! documents it, with each containerd.

use crate::bed::eventually;
use crate::kubelet::{self, Node};
use serde_json::{Value, json};

/// One more runtime handler, with these options.
fn with_handler(base: &str, version: u32, options: &str) -> String {
    let plugin = match version {
        2 => "io.containerd.grpc.v1.cri",
        _ => "io.containerd.cri.v1.runtime",
    };
    let config = kubelet::config(base, version);
    let handler = format!("plugins.{plugin:?}.containerd.runtimes.other");
    let options = options.replace("@OPTIONS@", &format!("{handler}.options"));
    format!(
        "{config}
[{handler}]
  runtime_type = \"io.containerd.nexcage.v1\"
  pod_annotations = [\"io.nexcage.*\"]
[{handler}.options]
{options}"
    )
}

fn backend(node: &Node, id: &str) -> Value {
    node.bed.record(id)["io.nexcage"]["backend"].clone()
}

fn without_annotation(config: &mut Value) {
    config["annotations"] = json!({});
}

/// Pods with sandbox and containers on LXC, chosen by options.
fn all_on_lxc(node: &Node) {
    for network in ["NODE", "POD"] {
        for pid in ["CONTAINER", "POD"] {
            let pod = node
                .try_pod("other", |config| {
                    without_annotation(config);
                    // A kubelet gives none to a pod in the node's network.
                    if network == "POD" {
                        config["hostname"] = "all-lxc".into();
                    }
                    let options = json!({ "network": network, "pid": pid });
                    config["linux"]["security_context"]["namespace_options"] = options;
                })
                .unwrap_or_else(|error| panic!("RunPodSandbox {network} {pid}: {error}"));
            assert_eq!(backend(node, &pod.id), "lxc");
            let [a, b] = ["a", "db-1"].map(|name| pod.run(name, "exec sleep 1000"));
            assert_eq!([backend(node, &a), backend(node, &b)], ["lxc", "crun"]);
            for name in ["net", "ipc", "uts"] {
                let link = format!("readlink /proc/self/ns/{name}");
                assert_eq!(node.shell(&a, &link), node.shell(&b, &link), "{name}");
            }
            let all = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '";
            assert_eq!(node.shell(&a, all).contains("/pause"), pid == "POD");
            if network == "POD" {
                let ip = pod.status()["network"]["ip"].as_str().unwrap().to_owned();
                assert!(node.shell(&b, "ip addr").contains(&ip));
                assert_eq!(node.shell(&a, "hostname"), "all-lxc\n");
            }
            node.stop(&a, 0);
            assert_eq!(node.status(&b)["state"], "CONTAINER_RUNNING");
            pod.remove();
        }
    }
}

const LXC_BUT_DATABASES: &str = r#"
sandbox_backend = "lxc"
default_container_type = "lxc"
[[routing]]
backend = "crun"
name = ["db-*"]
namespace = "shop"
"#;

fn by_file(containerd: &'static str, version: u32) {
    let files = [("/run/b/rules.toml", LXC_BUT_DATABASES)];
    let node = Node::with_config(containerd, "crun", &files, |base| {
        with_handler(base, version, "ConfigPath = \"/run/b/rules.toml\"\n")
    });
    all_on_lxc(&node);
    node.leave_nothing();
}

fn by_table(containerd: &'static str, version: u32) {
    let rules = LXC_BUT_DATABASES.replace("routing", "@OPTIONS@.routing");
    let node =
        Node::with_config(containerd, "crun", &[], |base| with_handler(base, version, &rules));
    all_on_lxc(&node);
    node.leave_nothing();
}

#[test]
fn a_file_that_is_named_chooses_backends_on_containerd_1_6() {
    by_file("1.6", 2);
}

#[test]
fn a_file_that_is_named_chooses_backends_on_containerd_1_7() {
    by_file("1.7", 2);
}

#[test]
fn a_file_that_is_named_chooses_backends_on_containerd_2_1() {
    by_file("2.1", 3);
}

#[test]
fn a_table_of_options_chooses_backends_on_containerd_1_7() {
    by_table("1.7", 2);
}

#[test]
fn a_table_of_options_chooses_backends_on_containerd_2_1() {
    by_table("2.1", 3);
}

#[test]
fn a_table_of_options_of_version_2_chooses_backends_on_containerd_2_1() {
    by_table("2.1", 2);
}

/// What crun was called with for a pod under systemd's cgroups, with the packaged file as it is.
fn called_for_slice(containerd: &'static str, version: u32) {
    // There is no systemd where tests run: it is enough to see that crun would use it.
    let crun = "#!/bin/sh\necho \"$@\" >>/run/b/crun.calls\nexit 1\n";
    let files = [("/run/b/bin/crun", crun)];
    let node = Node::with_config(containerd, "crun", &files, |base| {
        kubelet::config(base, version).replace("SystemdCgroup = false", "SystemdCgroup = true")
    });
    let refused = node.try_pod("nexcage", |config| {
        config["linux"]["cgroup_parent"] = "/kubepods.slice/kubepods-besteffort.slice".into();
    });
    assert!(refused.is_err());
    let calls = node.bed.read("/run/b/crun.calls");
    let create = calls.lines().find(|line| line.contains(" create ")).expect("crun was called");
    assert!(create.contains("--systemd-cgroup"), "{create}");
    eventually("nothing is left", || node.bed.tasks().is_empty().then_some(()));
}

#[test]
fn cgroups_are_systemds_on_containerd_1_6() {
    called_for_slice("1.6", 2);
}

#[test]
fn cgroups_are_systemds_on_containerd_1_7() {
    called_for_slice("1.7", 2);
}

#[test]
fn cgroups_are_systemds_on_containerd_2_1() {
    called_for_slice("2.1", 3);
}

#[test]
fn a_pod_runs_with_the_file_of_version_2_on_containerd_2_1() {
    let node = Node::with_config("2.1", "lxc", &[], |base| kubelet::config(base, 2));
    let pod = node.pod();
    let c = pod.run("app", "exec sleep 1000");
    assert_eq!(backend(&node, &c), "lxc");
    pod.remove();
    node.leave_nothing();
}

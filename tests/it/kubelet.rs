//! A node of Kubernetes without a kubelet: containerd with its CRI plugin, configured as
//! packaging/containerd says, and the calls that a kubelet makes.

use crate::bed::{Bed, IMAGE, LIMIT, PAUSE, Pair, eventually, fetched};
use crate::cri::{self, Refused};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes a test of each function on every containerd, for pods whose containers go to crun and for
/// such whose containers go to lxc.
macro_rules! on_every_node {
    ($($name:ident),* $(,)?) => {
        on_every_node!(@ containerd_1_6_crun "1.6" "crun" $($name)*);
        on_every_node!(@ containerd_1_6_lxc "1.6" "lxc" $($name)*);
        on_every_node!(@ containerd_1_7_crun "1.7" "crun" $($name)*);
        on_every_node!(@ containerd_1_7_lxc "1.7" "lxc" $($name)*);
        on_every_node!(@ containerd_2_1_crun "2.1" "crun" $($name)*);
        on_every_node!(@ containerd_2_1_lxc "2.1" "lxc" $($name)*);
    };
    (@ $module:ident $containerd:literal $backend:literal $($name:ident)*) => {
        mod $module {
            $(#[test] fn $name() {
                super::$name(crate::kubelet::Node::new($containerd, $backend));
            })*
        }
    };
}

/// The network of pods that are not in the node's.
const NETWORK: &str = r#"{
    "cniVersion": "1.0.0", "name": "pods", "plugins": [{
        "type": "bridge", "bridge": "pods0", "isGateway": true,
        "ipam": { "type": "host-local", "dataDir": "/run/b/ipam", "subnet": "10.88.0.0/24" }
    }]
}"#;

/// A node, and which backend its pods ask for.
pub struct Node {
    /// containerd and all around it.
    pub bed: Bed,
    /// The backend of pods' containers; their sandboxes are crun's.
    pub backend: &'static str,
}

impl Node {
    /// A node with that containerd.
    pub fn new(containerd: &'static str, backend: &'static str) -> Self {
        let version = if containerd.starts_with("1.") { 2 } else { 3 };
        Self::with_config(containerd, backend, &[], |base| config(base, version))
    }

    /// A node with more files, whose containerd is configured differently.
    pub fn with_config(
        containerd: &'static str,
        backend: &'static str,
        files: &[(&str, &str)],
        change: impl FnOnce(&str) -> String,
    ) -> Self {
        assert!(fetched("pause").is_dir() && fetched("cni-1.1").is_dir(), "run tests/bed/fetch");
        let pair = Pair { containerd, runtime: "crun-1.28" };
        let files = [&[("/run/b/cni/10-pods.conflist", NETWORK)], files].concat();
        let bed = Bed::with_cri(pair, &files, change);
        let node = Self { bed, backend };
        node.until_ready();
        for image in [IMAGE, PAUSE] {
            eventually("the CRI plugin has the image", || {
                let known = node.call("ImageStatus", &json!({ "image": { "image": image } }));
                known["image"]["id"].is_string().then_some(())
            });
        }
        node
    }

    /// Starts containerd once more.
    pub fn start_containerd(&mut self) {
        self.bed.start_containerd();
        self.until_ready();
    }

    fn until_ready(&self) {
        eventually("the CRI plugin is ready", || self.ask("Status", &json!({})).ok());
    }

    /// A call that may be refused.
    pub fn ask(&self, method: &str, request: &Value) -> Result<Value, Refused> {
        cri::call(&self.bed.socket(), method, request, LIMIT)
    }

    /// A call that is not refused.
    #[track_caller]
    pub fn call(&self, method: &str, request: &Value) -> Value {
        self.ask(method, request).unwrap_or_else(|error| panic!("{method} {request}: {error}"))
    }

    /// A pod in the node's network, which runs.
    #[track_caller]
    pub fn pod(&self) -> Pod<'_> {
        self.pod_with(|_| {})
    }

    /// A pod whose configuration is edited.
    #[track_caller]
    pub fn pod_with(&self, edit: impl FnOnce(&mut Value)) -> Pod<'_> {
        self.try_pod("nexcage", edit).unwrap_or_else(|error| panic!("RunPodSandbox: {error}"))
    }

    /// The same with that runtime handler, if it can be had.
    pub fn try_pod(
        &self,
        handler: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Result<Pod<'_>, Refused> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut config = json!({
            "metadata": { "name": format!("pod-{number}"), "uid": format!("uid-{number}"),
                          "namespace": "shop", "attempt": 0 },
            "log_directory": format!("/run/b/logs/{number}"),
            "annotations": { "io.nexcage.backend": self.backend },
            "linux": {
                "cgroup_parent": format!("/{}", self.bed.group),
                "security_context": { "namespace_options": { "network": "NODE", "pid": "CONTAINER" } },
            },
        });
        edit(&mut config);
        let request = json!({ "config": config, "runtime_handler": handler });
        let reply = self.ask("RunPodSandbox", &request)?;
        let id = reply["pod_sandbox_id"].as_str().unwrap().to_owned();
        Ok(Pod { node: self, id, config })
    }

    /// What a container's status is.
    #[track_caller]
    pub fn status(&self, id: &str) -> Value {
        self.call("ContainerStatus", &json!({ "container_id": id }))["status"].take()
    }

    /// The pid that the plugin has for a container's process.
    #[track_caller]
    pub fn pid(&self, id: &str) -> i64 {
        let request = json!({ "container_id": id, "verbose": true });
        info(&self.call("ContainerStatus", &request))["pid"].as_i64().unwrap()
    }

    /// Waits for a container's end, and returns its status.
    #[track_caller]
    pub fn until_exited(&self, id: &str) -> Value {
        eventually("the container has exited", || {
            let status = self.status(id);
            (status["state"] == "CONTAINER_EXITED").then_some(status)
        })
    }

    /// Starts a container that was created.
    #[track_caller]
    pub fn start(&self, id: &str) {
        self.call("StartContainer", &json!({ "container_id": id }));
    }

    /// Stops a container, which has that many seconds.
    #[track_caller]
    pub fn stop(&self, id: &str, seconds: u32) {
        self.call("StopContainer", &json!({ "container_id": id, "timeout": seconds }));
    }

    /// Removes a container.
    #[track_caller]
    pub fn remove(&self, id: &str) {
        self.call("RemoveContainer", &json!({ "container_id": id }));
    }

    /// Runs a command in a container.
    #[track_caller]
    pub fn exec(&self, id: &str, command: &[&str]) -> Value {
        let request = json!({ "container_id": id, "cmd": command, "timeout": 30 });
        self.call("ExecSync", &request)
    }

    /// What a shell in a container prints that succeeds.
    #[track_caller]
    pub fn shell(&self, id: &str, script: &str) -> String {
        let reply = self.exec(id, &["sh", "-c", script]);
        assert_eq!(reply["exit_code"], 0, "{script}: {reply}");
        reply["stdout"].as_str().unwrap().to_owned()
    }

    /// Waits until nothing is left of any pod, and ends the node.
    #[track_caller]
    pub fn leave_nothing(self) {
        let pods = self.call("ListPodSandbox", &json!({}));
        assert_eq!(pods["items"], json!([]), "there are pods");
        let containers = self.call("ListContainers", &json!({}));
        assert_eq!(containers["containers"], json!([]), "there are containers");
        self.bed.leave_nothing();
    }
}

/// A pod that runs.
pub struct Pod<'a> {
    node: &'a Node,
    /// The id of its sandbox.
    pub id: String,
    config: Value,
}

impl<'a> Pod<'a> {
    /// A container that was created with this command.
    #[track_caller]
    pub fn create(&self, name: &str, command: &[&str], edit: impl FnOnce(&mut Value)) -> String {
        self.try_create(name, command, edit)
            .unwrap_or_else(|error| panic!("CreateContainer {name}: {error}"))
    }

    /// The same, if it can be had.
    pub fn try_create(
        &self,
        name: &str,
        command: &[&str],
        edit: impl FnOnce(&mut Value),
    ) -> Result<String, Refused> {
        let security = &self.config["linux"]["security_context"];
        let mut config = json!({
            "metadata": { "name": name, "attempt": 0 },
            "image": { "image": IMAGE },
            "command": command,
            "log_path": format!("{name}.log"),
            "linux": {
                "resources": {},
                "security_context": { "namespace_options": security["namespace_options"] },
            },
        });
        edit(&mut config);
        let request = json!({
            "pod_sandbox_id": self.id, "config": config, "sandbox_config": self.config,
        });
        let reply = self.node.ask("CreateContainer", &request)?;
        Ok(reply["container_id"].as_str().unwrap().to_owned())
    }

    /// A container that runs this script.
    #[track_caller]
    pub fn run(&self, name: &str, script: &str) -> String {
        self.run_with(name, script, |_| {})
    }

    /// The same, its configuration edited.
    #[track_caller]
    pub fn run_with(&self, name: &str, script: &str, edit: impl FnOnce(&mut Value)) -> String {
        let id = self.create(name, &["sh", "-c", script], edit);
        self.node.start(&id);
        id
    }

    /// The pod of that sandbox and configuration.
    pub fn of(node: &'a Node, id: String, config: Value) -> Self {
        Self { node, id, config }
    }

    /// Its sandbox's id and its configuration, by which it can be had again after a restart.
    pub fn detach(self) -> (String, Value) {
        (self.id, self.config)
    }

    /// What is in the log of a container of that name.
    pub fn log(&self, name: &str) -> String {
        let folder = self.config["log_directory"].as_str().unwrap();
        self.node.bed.read(&format!("{folder}/{name}.log"))
    }

    /// The pod's status.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.node.call("PodSandboxStatus", &json!({ "pod_sandbox_id": self.id }))["status"].take()
    }

    /// Stops the pod with all of its containers.
    #[track_caller]
    pub fn stop(&self) {
        self.node.call("StopPodSandbox", &json!({ "pod_sandbox_id": self.id }));
    }

    /// Stops it, and removes it with all of its containers.
    #[track_caller]
    pub fn remove(self) {
        self.stop();
        self.node.call("RemovePodSandbox", &json!({ "pod_sandbox_id": self.id }));
    }
}

/// What a verbose reply says beyond the interface.
pub fn info(reply: &Value) -> Value {
    serde_json::from_str(reply["info"]["info"].as_str().expect("not verbose")).unwrap()
}

/// Nanoseconds, as JSON has 64 bits, in seconds.
pub fn seconds(nanoseconds: &Value) -> f64 {
    nanoseconds.as_str().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The configuration of a node, in that version, with packaging/containerd's file appended as its
/// README says for a node without systemd's cgroups.
pub fn config(base: &str, version: u32) -> String {
    let base = base
        .replace("  \"io.containerd.grpc.v1.cri\",\n", "")
        .replace("\nversion = 2\n", &format!("\nversion = {version}\n"));
    let (runtime, sandbox) = match version {
        2 => ("io.containerd.grpc.v1.cri", format!("sandbox_image = {PAUSE:?}")),
        _ => (
            "io.containerd.cri.v1.runtime",
            format!(
                "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = {PAUSE:?}"
            ),
        ),
    };
    let packaged = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("packaging/containerd/nexcage-v{version}.toml"));
    let packaged = fs::read_to_string(packaged)
        .unwrap()
        .replace(&format!("\nversion = {version}\n"), "\n")
        .replace("SystemdCgroup = true", "SystemdCgroup = false");
    let plugins = fetched("cni-1.1").display().to_string();
    // Root may lack CAP_SYS_RESOURCE where tests run.
    format!(
        "{base}
[plugins.{runtime:?}]
  restrict_oom_score_adj = true
  {sandbox}
[plugins.{runtime:?}.cni]
  bin_dir = {plugins:?}
  conf_dir = \"/run/b/cni\"
{packaged}"
    )
}

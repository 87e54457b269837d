use super::super::layout::tests::archive;
use super::super::stop::Stop;
use super::*;
use crate::error::Kind;
use crate::store::{Folder, Own, ProcessId, Record, Status};

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(scene.at("root.tar"), archive("etc/passwd", "app:x:7:8::/:\n")).unwrap();
        scene
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A sandbox in the state, whose process is this one.
    fn sandbox(&self, id: &str, status: Status, annotations: &[(&str, &str)]) {
        let pid = i32::try_from(std::process::id()).unwrap();
        let namespace = Namespace::parse("k8s.io").unwrap();
        let folder = Folder::of(&self.at("state"), &namespace, &ContainerId::parse(id).unwrap());
        folder.create().unwrap();
        let annotations = annotations
            .iter()
            .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), (*value).to_owned()));
        folder
            .save(&Record {
                oci_version: "1.0.2".into(),
                id: id.into(),
                status,
                pid: Some(pid),
                bundle: "/b".into(),
                annotations: annotations.collect(),
                own: Own {
                    version: 1,
                    namespace: "k8s.io".into(),
                    backend: "crun".into(),
                    runtime: "crun".into(),
                    runtime_root: "/r".into(),
                    systemd_cgroup: false,
                    supervisor: None,
                    init: ProcessId::of(pid),
                    monitor: None,
                    cgroup: None,
                    cgroups_path: None,
                    rootfs_mount: None,
                    exit: None,
                    by_command: false,
                    created: None,
                    init_path: None,
                },
            })
            .unwrap();
    }

    fn make(&self, container: &Value, pod: &Value, sandbox: Option<&str>) -> Result<Made> {
        fs::write(self.at("container.json"), container.to_string()).unwrap();
        fs::write(self.at("pod.json"), pod.to_string()).unwrap();
        let cri = CriRequest {
            container: self.at("container.json"),
            pod: self.at("pod.json"),
            sandbox_id: sandbox.map(str::to_owned),
            container_id: Some("c1".to_owned()),
            namespace: Namespace::parse("k8s.io").unwrap(),
            root: self.at("state"),
        };
        let request = Request { rootfs: Some(self.at("root.tar")), ..Request::new(PathBuf::new()) };
        create(&cri, &Config::default(), request, &Stop::on_signals().unwrap())
    }
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "uid": "u1", "namespace": "default", "attempt": 1},
        "hostname": "web", "log_directory": "/tmp",
        "dns_config": {"servers": ["10.0.0.1"], "searches": ["a", "b"]},
        "labels": {"app": "web"},
        "linux": {"cgroup_parent": "/kubepods/pod1"},
    })
}

const SANDBOX: &[(&str, &str)] = &[("container-type", "sandbox"), ("sandbox-uid", "u1")];

#[test]
fn a_request_becomes_a_bundle_below_its_sandbox() {
    let scene = Scene::new();
    scene.sandbox("s1", Status::Running, SANDBOX);
    let container = json!({
        "metadata": {"name": "nginx"}, "image": {"image": "nginx:1"},
        "command": ["nginx"], "args": ["-g", "x"], "working_dir": "/srv",
        "envs": [{"key": "A", "value": "1"}, {"key": "B"}],
        "mounts": [
            {"container_path": "/a/b", "host_path": "/etc", "readonly": true},
            {"container_path": "/a", "host_path": "/etc", "propagation": 2},
        ],
        "devices": [{"container_path": "/dev/x", "host_path": "/dev/null", "permissions": "rw"}],
        "annotations": {"io.nexcage.backend": "runc"}, "labels": {"app": "nginx"},
        "log_path": "0.log",
        "linux": {
            "resources": {"cpu_shares": 2, "cpu_quota": 500, "memory_limit_in_bytes": 4096, "oom_score_adj": -5},
            "security_context": {
                "capabilities": {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["ALL"]},
                "namespace_options": {"pid": 1},
                "run_as_username": "app", "run_as_group": {"value": 9},
                "supplemental_groups": [11], "readonly_rootfs": true,
                "masked_paths": ["/proc/kcore"], "seccomp": {"profile_type": 1},
            },
        },
    });
    let made = scene.make(&container, &pod(), None).unwrap();
    assert_eq!(made.path, scene.at("state/s1/c1").canonicalize().unwrap());
    let config = fs::read(made.path.join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let process = &config["process"];
    assert_eq!(process["args"], json!(["nginx", "-g", "x"]));
    assert_eq!(process["user"], json!({"uid": 7, "gid": 9, "additionalGids": [11]}));
    assert_eq!((&process["cwd"], &process["oomScoreAdj"]), (&json!("/srv"), &json!(-5)));
    assert_eq!(process["capabilities"]["effective"], json!(["CAP_NET_ADMIN"]));
    assert_eq!(process["noNewPrivileges"], false);
    assert!(process["env"].as_array().unwrap().contains(&json!("B=")));
    let mounts: Vec<&Value> = config["mounts"].as_array().unwrap().iter().skip(7).collect();
    let places: Vec<&str> = mounts.iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(places, ["/a", "/a/b", "/etc/hostname", "/etc/resolv.conf"]);
    assert_eq!(mounts[0]["options"], json!(["rbind", "rshared", "rw"]));
    let resolv = fs::read_to_string(mounts[3]["source"].as_str().unwrap()).unwrap();
    assert_eq!(resolv, "search a b\nnameserver 10.0.0.1\n");
    let linux = &config["linux"];
    assert_eq!(linux["cgroupsPath"], "/kubepods/pod1/c1");
    assert_eq!(linux["maskedPaths"], json!(["/proc/kcore"]));
    assert_eq!(linux["devices"][0]["minor"], 3);
    assert_eq!(linux["resources"]["devices"][1]["access"], "rw");
    assert_eq!(linux["resources"]["cpu"], json!({"shares": 2, "quota": 500}));
    let pid = std::process::id();
    assert_eq!(linux["namespaces"][0]["path"], format!("/proc/{pid}/ns/net"));
    assert_eq!(linux["namespaces"][3], json!({"type": "pid"}));
    assert_eq!(config.get("hostname"), None);
    let annotations = &config["annotations"];
    assert_eq!(
        (&annotations["io.nexcage.backend"], &annotations["app"]),
        (&json!("runc"), &json!("nginx"))
    );
    assert_eq!(annotations["io.kubernetes.cri.sandbox-id"], "s1");
    assert_eq!(annotations["io.kubernetes.cri.container-type"], "container");
}

#[test]
fn every_wrong_field_is_named() {
    let scene = Scene::new();
    let container = json!({
        "metadata": {}, "image": {}, "working_dir": "srv", "colour": 1,
        "envs": [{"key": "A=B"}], "command": "sh",
        "mounts": [{"container_path": "x", "host_path": "/etc"}, {"container_path": "/x", "host_path": "/missing"}],
        "devices": [{"container_path": "/dev/x", "host_path": "/etc", "permissions": "rw"}],
        "linux": {
            "resources": {"cpu_period": "many"},
            "security_context": {
                "privileged": true, "run_as_group": {"value": 1}, "seccomp": {"profile_type": 0},
                "capabilities": {"add_capabilities": ["NOT"]}, "namespace_options": {"pid": 3},
            },
        },
    });
    let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "hostname": "a_b"});
    let error = scene.make(&container, &pod, Some("s1")).unwrap_err().to_string();
    for field in [
        "/config/metadata/name:",
        "/config/image/image:",
        "/config/working_dir:",
        "/config/colour:",
        "/config/envs/0/key:",
        "/config/command:",
        "/config/mounts/0/container_path:",
        "/config/mounts/1/host_path: there is no /missing",
        "/config/devices/0/host_path: /etc is not a device",
        "/config/linux/resources/cpu_period:",
        "/config/linux/security_context/privileged:",
        "/config/linux/security_context/run_as_group:",
        "/config/linux/security_context/seccomp/profile_type:",
        "/config/linux/security_context/capabilities/add_capabilities/0:",
        "/config/linux/security_context/namespace_options/pid:",
        "/sandbox_config/metadata/uid:",
        "/sandbox_config/hostname:",
    ] {
        assert!(error.contains(field), "no {field} in {error}");
    }
}

#[test]
fn a_sandbox_that_is_not_ready_is_named() {
    let scene = Scene::new();
    scene.sandbox("stopped", Status::Stopped, SANDBOX);
    scene.sandbox("plain", Status::Running, &[]);
    scene.sandbox(
        "other",
        Status::Running,
        &[("container-type", "sandbox"), ("sandbox-uid", "u2")],
    );
    let container = json!({"metadata": {"name": "c"}, "image": {"image": "i"}});
    let refused = |sandbox: Option<&str>, says: &str| {
        let error = scene.make(&container, &pod(), sandbox).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains(says), "{error}");
        assert!(!scene.at("state/stopped").exists());
    };
    refused(Some("missing"), "sandbox missing is unknown");
    refused(Some("stopped"), "sandbox stopped in namespace k8s.io is not ready: it has stopped");
    refused(Some("plain"), "no pod's sandbox");
    refused(Some("other"), "another pod's");
    refused(None, "stopped");
    let mut unknown = pod();
    unknown["metadata"]["uid"] = "u9".into();
    let error = scene.make(&container, &unknown, None).unwrap_err().to_string();
    assert!(error.contains("uid \"u9\" has no sandbox"), "{error}");
}

use super::super::layout::tests::archive;
use super::super::stop::Stop;
use super::*;
use crate::error::Kind;
use crate::store::{self, Folder, Record, Status};

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
        let namespace = Namespace::parse("k8s.io").unwrap();
        let folder = Folder::of(&self.at("state"), &namespace, &ContainerId::parse(id).unwrap());
        folder.create().unwrap();
        let annotations = annotations
            .iter()
            .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), (*value).to_owned()));
        let annotations = annotations.collect();
        let record = store::tests::sandbox(&namespace, id);
        folder.save(&Record { status, annotations, ..record }).unwrap();
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
            "resources": {"cpu_shares": 2, "cpu_quota": 5000, "memory_limit_in_bytes": 4096, "oom_score_adj": -5},
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
    assert_eq!(linux["resources"]["cpu"], json!({"shares": 2, "quota": 5000}));
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
                "privileged": true, "run_as_group": {"value": 1}, "seccomp": {"profile_type": 3},
                "capabilities": {"add_capabilities": ["NOT"]},
                "namespace_options": {"pid": 3, "ipc": 1, "userns_options": {"mode": 0, "uids": [{}]}},
                "selinux_options": {"type": "t"}, "apparmor": {"profile_type": 2},
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
        "/config/linux/security_context/namespace_options/ipc:",
        "/config/linux/security_context/namespace_options/target_id: is missing",
        "/config/linux/security_context/namespace_options/userns_options/mode:",
        "/config/linux/security_context/selinux_options/level:",
        "/config/linux/security_context/apparmor/localhost_ref: is missing",
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

fn context(more: Value) -> Value {
    json!({
        "metadata": {"name": "c"}, "image": {"image": "i"}, "command": ["sh"],
        "linux": {"security_context": more},
    })
}

fn config(made: &Made) -> Value {
    serde_json::from_slice(&fs::read(made.path.join("config.json")).unwrap()).unwrap()
}

#[test]
fn a_privileged_container_of_a_privileged_pod_has_all_there_is() {
    let scene = Scene::new();
    scene.sandbox("s1", Status::Running, SANDBOX);
    let mut pod = pod();
    pod["linux"]["security_context"] = json!({"privileged": true});
    let container = context(json!({
        "privileged": true, "capabilities": {"drop_capabilities": ["ALL"]},
        "seccomp": {"profile_type": 0}, "apparmor": {"profile_type": 0},
    }));
    let config = config(&scene.make(&container, &pod, None).unwrap());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let own = u64::from_str_radix(own.trim(), 16).unwrap();
    let capabilities = config["process"]["capabilities"]["bounding"].as_array().unwrap();
    assert_eq!(capabilities.len(), usize::try_from(own.count_ones()).unwrap());
    assert_eq!(config["process"].get("apparmorProfile"), None);
    let linux = &config["linux"];
    assert_eq!((&linux["maskedPaths"], &linux["readonlyPaths"]), (&json!([]), &json!([])));
    assert_eq!(linux.get("seccomp"), None);
    assert_eq!(linux["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    let devices = linux["devices"].as_array().unwrap();
    let null = devices.iter().find(|device| device["path"] == "/dev/null").unwrap();
    assert_eq!((&null["major"], &null["minor"]), (&json!(1), &json!(3)));
    let mounts = config["mounts"].as_array().unwrap();
    for place in ["/sys", "/sys/fs/cgroup"] {
        let mount = mounts.iter().find(|mount| mount["destination"] == place).unwrap();
        let options = mount["options"].as_array().unwrap();
        assert!(options.contains(&json!("rw")) && !options.contains(&json!("ro")), "{mount}");
    }
}

#[test]
fn a_profile_goes_with_the_capabilities() {
    let scene = Scene::new();
    scene.sandbox("s1", Status::Running, SANDBOX);
    let seccomp = |more: Value| {
        let mut context = context(more);
        context["linux"]["security_context"]["seccomp"] = json!({"profile_type": 0});
        let made = scene.make(&context, &pod(), None).unwrap();
        let config = config(&made);
        fs::remove_dir_all(&made.path).unwrap();
        config["linux"]["seccomp"].to_string()
    };
    let plain = seccomp(json!({}));
    assert!(plain.contains("\"SCMP_ACT_ERRNO\"") && !plain.contains("\"mount\""), "{plain}");
    let more = json!({"capabilities": {"add_capabilities": ["SYS_ADMIN"]}});
    assert!(seccomp(more).contains("\"mount\""));
}

#[test]
fn the_pid_namespace_of_another_container_of_the_pod_is_joined() {
    let scene = Scene::new();
    scene.sandbox("s1", Status::Running, SANDBOX);
    scene.sandbox("c7", Status::Running, &[("sandbox-id", "s1")]);
    scene.sandbox("c8", Status::Stopped, &[("sandbox-id", "s1")]);
    scene.sandbox("c9", Status::Running, &[("sandbox-id", "s2")]);
    let make = |target: &str| {
        let options = json!({"namespace_options": {"pid": 3, "target_id": target}});
        scene.make(&context(options), &pod(), Some("s1"))
    };
    for (target, says) in [
        ("none", "container none in namespace k8s.io is unknown"),
        ("c8", "container c8 in namespace k8s.io has stopped"),
        ("c9", "container c9 in namespace k8s.io is not of sandbox s1"),
    ] {
        let error = make(target).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        let wanted = format!("/config/linux/security_context/namespace_options/target_id: {says}");
        assert_eq!(error.to_string(), wanted);
    }
    let config = config(&make("c7").unwrap());
    let path = format!("/proc/{}/ns/pid", std::process::id());
    assert_eq!(config["linux"]["namespaces"][3], json!({"type": "pid", "path": path}));
}

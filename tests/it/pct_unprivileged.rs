//! Guests of Proxmox VE whose root is not the host's: what works, and what is said where it does
//! not.

use crate::node::{self, create_with};
use crate::support::fifo::{Reader, Stdio};
use crate::support::{Bundle, Scene, bed};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};

const UNPRIVILEGED: &str = "unprivileged = true";

/// A root file system whose owners are those of an unprivileged guest.
fn shifted_root(scene: &Scene) -> PathBuf {
    let root = scene.folder().join("shifted");
    let script = "cp -a \"$0\" \"$1\" && chown -R 100000:100000 \"$1\"";
    let copied = Command::new("sh").args(["-c", script]).arg(bed::rootfs()).arg(&root).status();
    assert!(copied.unwrap().success());
    root
}

fn bundle(scene: &Scene, script: &str, edit: impl FnOnce(&mut Value)) -> Bundle {
    scene.bundle("c", &["sh", "-c", script]).edit(|spec| {
        spec["annotations"] = json!({ "io.nexcage.backend": "pct" });
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        }));
        mounts.push(json!({
            "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        }));
        edit(spec);
    })
}

/// What its process prints, and how it ends.
async fn run(scene: &Scene, bundle: &Bundle, settings: &str) -> (String, u32) {
    let stdio = Stdio::new(scene.folder(), "c");
    let reader = Reader::open(&stdio.stdout);
    let task = scene.supervisor(bundle).await;
    let mut request = create_with(bundle, settings);
    request.stdout.clone_from(&stdio.stdout);
    request.stderr.clone_from(&stdio.stdout);
    task.create(&request).await.unwrap();
    task.start("c", "").await.unwrap();
    let status = task.wait("c", "").await.unwrap();
    task.delete("c", "").await.unwrap();
    node::no_guests(scene).await;
    assert!(scene.mounts().is_empty() && scene.cgroups().is_empty());
    (reader.end().await, status)
}

/// What a Create is refused with.
async fn refused(scene: &Scene, bundle: &Bundle, settings: &str) -> String {
    let task = scene.supervisor(bundle).await;
    let error = task.create(&create_with(bundle, settings)).await.unwrap_err();
    node::no_guests(scene).await;
    format!("{error:?}")
}

/// A pause container's namespaces, which the host's root owns.
struct Pod(Child);

impl Pod {
    fn new() -> Self {
        let script = "ip link set lo up; hostname pod-1; exec sleep 1000";
        let pause = ["--net", "--ipc", "--uts", "--pid", "--kill-child", "sh", "-c", script];
        let pod = Self(Command::new("unshare").args(pause).spawn().unwrap());
        crate::bed::eventually("the pod is there", || {
            let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pod.pid()?)).ok()?;
            line.starts_with("sleep").then_some(())
        });
        pod
    }

    fn pid(&self) -> Option<i32> {
        crate::bed::child_of(self.0.id())
    }

    fn join(&self, spec: &mut Value, kinds: &[(&str, &str)]) {
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap();
            if let Some((_, file)) = kinds.iter().find(|(name, _)| *name == kind) {
                namespace["path"] = json!(format!("/proc/{}/ns/{file}", self.pid().unwrap()));
            }
        }
        spec.as_object_mut().unwrap().remove("hostname");
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

const REPORT: &str = "exec 2>&1; id -u; cat /proc/self/uid_map | tr -s ' '; hostname; \
    cat /sys/class/net/lo/flags; ls /sys/class/net | tr '\\n' ' '; echo; \
    echo 1 > /sys/kernel/mm/ksm/run || echo cannot be written; stat -c %u /bin; echo > /dev/null; \
    ls /dev";

#[tokio::test]
async fn a_guest_whose_root_fits_runs_with_ids_of_its_own() {
    let scene = node::scene("pct");
    let root = shifted_root(&scene);
    let bundle = bundle(&scene, REPORT, |spec| spec["root"]["path"] = json!(root));
    let (said, status) = run(&scene, &bundle, UNPRIVILEGED).await;
    assert_eq!(status, 0, "{said}");
    let expected = "0\n 0 100000 65536\nnexcage\n0x9\nlo \n";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("cannot be written\n0\n") && said.contains("mqueue"), "{said}");
}

#[tokio::test]
async fn its_hooks_run_as_those_of_any_guest() {
    let scene = node::scene("pct");
    let (root, notes) = (shifted_root(&scene), scene.folder().join("order"));
    let bundle = bundle(&scene, "cat /proc/self/uid_map | tr -s ' '", |spec| {
        spec["root"]["path"] = json!(root);
        let hook = |script: String| {
            json!([{
                "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"],
            }])
        };
        for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
            spec["hooks"][kind] = hook(format!("echo {kind} >> {}", notes.display()));
        }
        // In the guest's namespaces its root is root.
        spec["hooks"]["createContainer"] = hook("test $(id -u) = 0".to_owned());
    });
    let (said, status) = run(&scene, &bundle, UNPRIVILEGED).await;
    assert_eq!((said.as_str(), status), (" 0 100000 65536\n", 0));
    let order = std::fs::read_to_string(notes).unwrap();
    assert_eq!(order, "prestart\ncreateRuntime\npoststart\npoststop\n");
}

/// A pod's network namespace belongs to the host's root, and the kernel lets nobody else mount a
/// sysfs of it.
#[tokio::test]
async fn one_in_a_pods_network_sees_the_hosts_sys_and_cannot_write_it() {
    let scene = node::scene("pct");
    let (pod, root) = (Pod::new(), shifted_root(&scene));
    let bundle = bundle(&scene, REPORT, |spec| {
        pod.join(spec, &[("network", "net"), ("ipc", "ipc"), ("uts", "uts")]);
        spec["root"]["path"] = json!(root);
    });
    let (said, status) = run(&scene, &bundle, UNPRIVILEGED).await;
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("0\n 0 100000 65536\npod-1\n0x9\n"), "{said}");
    assert!(said.contains("cannot be written\n0\n") && !said.contains("mqueue"), "{said}");
    // What it goes without is said.
    let logged = bundle.logged();
    assert!(logged.contains("/dev/mqueue") && logged.contains("ipc namespace"), "{logged}");
}

#[tokio::test]
async fn a_pods_pid_namespace_is_refused_and_it_is_said_why() {
    let scene = node::scene("pct");
    let (pod, root) = (Pod::new(), shifted_root(&scene));
    let bundle = bundle(&scene, "true", |spec| {
        pod.join(spec, &[("pid", "pid"), ("network", "net")]);
        spec["root"]["path"] = json!(root);
    });
    let error = refused(&scene, &bundle, UNPRIVILEGED).await;
    for word in ["/mounts/0/type", "/proc", "pid namespace", "pct.unprivileged"] {
        assert!(error.contains(word), "no {word} in {error}");
    }
}

#[tokio::test]
async fn a_root_that_does_not_fit_is_refused_unless_it_is_copied() {
    let scene = node::scene("pct");
    let bundle = bundle(&scene, REPORT, |spec| spec["root"]["readonly"] = false.into());
    let error = refused(&scene, &bundle, UNPRIVILEGED).await;
    for word in ["belongs to 0:0", "user namespace", "pct.storage", "pct.unprivileged to false"] {
        assert!(error.contains(word), "no {word} in {error}");
    }
    let copied = format!("{UNPRIVILEGED}, storage = \"local\", disk_size = 1");
    let scene = node::scene("pct");
    let bundle = self::bundle(&scene, REPORT, |spec| spec["root"]["readonly"] = false.into());
    let (said, status) = run(&scene, &bundle, &copied).await;
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("0\n 0 100000 65536\nnexcage\n"), "{said}");
}

/// The supervisor's mounts, not LXC's.
#[tokio::test]
async fn mounts_in_volumes_are_there() {
    let scene = node::scene("pct");
    let volumes = tempfile::Builder::new().prefix("volumes").tempdir_in("/run").unwrap();
    let at = |path: &str| volumes.path().join(path);
    for folder in ["", "outer", "inner"] {
        std::fs::create_dir_all(at(folder)).unwrap();
        std::fs::set_permissions(at(folder), PermissionsExt::from_mode(0o777)).unwrap();
    }
    let root = shifted_root(&scene);
    let script = "exec 2>&1; echo > /tmp/v/w && echo one; echo > /tmp/v/in/w || echo two; \
                  echo > /tmp/v/in/deep/w && echo three";
    let bundle = bundle(&scene, script, |spec| {
        spec["root"]["path"] = json!(root);
        let places = [
            ("outer", "/tmp/v", "rw"),
            ("inner", "/tmp/v/in", "ro"),
            ("outer", "/tmp/v/in/deep", "rw"),
        ];
        std::fs::create_dir(at("inner/deep")).unwrap();
        for (source, destination, option) in places {
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": destination, "type": "bind", "source": at(source),
                "options": ["bind", option],
            }));
        }
    });
    let (said, status) = run(&scene, &bundle, UNPRIVILEGED).await;
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("one\n") && said.ends_with("two\nthree\n"), "{said}");
    assert!(at("outer/w").exists() && !at("inner/w").exists());
}

fn mapped(spec: &mut Value, first: u32) {
    let mappings = json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    spec["linux"]["uidMappings"] = mappings.clone();
    spec["linux"]["gidMappings"] = mappings;
}

#[tokio::test]
async fn ids_that_root_may_not_give_away_are_refused_with_the_files_that_say_so() {
    let scene = node::scene("pct");
    let bundle = bundle(&scene, "true", |spec| mapped(spec, 300_000));
    let error = refused(&scene, &bundle, "").await;
    for word in ["/etc/subuid", "root:FIRST:COUNT", "300000"] {
        assert!(error.contains(word), "no {word} in {error}");
    }
}

#[tokio::test]
async fn a_root_outside_of_the_bundles_own_ids_is_told_in_the_log() {
    let scene = node::scene("pct");
    let bundle = bundle(&scene, "id -u; touch /tmp/x && echo written", |spec| {
        mapped(spec, 100_000);
    });
    let (said, status) = run(&scene, &bundle, "").await;
    assert_eq!((said.as_str(), status), ("0\nwritten\n", 0));
    let logged = bundle.logged();
    assert!(logged.contains("belongs to 0:0") && logged.contains("uidMappings"), "{logged}");
}

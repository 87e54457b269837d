//! What must not go wrong with a guest of LXC, and has: each test is one fault.

use crate::bed::eventually;
use crate::node;
use crate::support::Scene;
use crate::support::bundle::Bundle;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// A bundle for LXC.
fn bundle(scene: &Scene, script: &str, edit: impl Fn(&mut Value)) -> Bundle {
    scene.bundle("c", &["sh", "-c", script]).edit(|spec| {
        spec["annotations"] = json!({ "io.nexcage.backend": "lxc" });
        edit(spec);
    })
}

/// The folders of that name, one in each hierarchy.
fn folders(cgroup: &str) -> Vec<PathBuf> {
    let tops = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let tops = tops.chain([PathBuf::from("/sys/fs/cgroup")]);
    tops.filter(|top| top.join("cgroup.procs").exists()).map(|top| top.join(cgroup)).collect()
}

/// Somebody who is in a cgroup of that name before the container.
struct Neighbour(Child, Vec<PathBuf>);

impl Neighbour {
    fn in_cgroup(cgroup: &str) -> Self {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let folders: Vec<_> =
            folders(cgroup).into_iter().filter(|folder| fs::create_dir(folder).is_ok()).collect();
        // Where a hierarchy is missing there is a plain folder, and none of the kernel's files.
        let (folders, plain): (Vec<_>, Vec<_>) =
            folders.into_iter().partition(|folder| folder.join("cgroup.procs").exists());
        plain.iter().for_each(|folder| fs::remove_dir(folder).unwrap());
        for folder in &folders {
            let top = folder.parent().unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = fs::read(top.join(file)) {
                    fs::write(folder.join(file), all).ok();
                }
            }
            fs::write(folder.join("cgroup.procs"), child.id().to_string()).ok();
        }
        Self(child, folders)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        for folder in &self.1 {
            eventually(&format!("{} is gone", folder.display()), || {
                fs::remove_dir(folder).ok();
                (!folder.exists()).then_some(())
            });
        }
    }
}

#[tokio::test]
async fn a_cgroup_with_somebody_in_it_is_refused_and_nobody_is_killed() {
    let scene = Scene::new();
    let cgroup = scene.cgroup("c");
    let mut neighbour = Neighbour::in_cgroup(&cgroup);
    let bundle = bundle(&scene, "true", |_| ());
    let task = scene.supervisor(&bundle).await;
    let refused = task.create(&bundle.create()).await.unwrap_err();
    assert!(format!("{refused:?}").contains("/linux/cgroupsPath"), "{refused:?}");
    assert!(neighbour.0.try_wait().unwrap().is_none(), "the neighbour was killed");
}

#[tokio::test]
async fn hooks_run_at_their_moments_with_the_state() {
    for backend in ["lxc", "pct"] {
        hooks_of(backend).await;
    }
}

async fn hooks_of(backend: &str) {
    let scene = node::scene(backend);
    let said = scene.folder().join("said");
    let hook = |kind: &str| {
        let said = said.display();
        let script = format!("read -r state; echo {kind} \"$state\" >> '{said}'");
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    let kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let bundle = bundle(&scene, "exit 3", |spec| {
        spec["annotations"]["io.nexcage.backend"] = backend.into();
        for kind in kinds {
            spec["hooks"][kind] = hook(kind);
        }
    });
    fs::write(&said, "").unwrap();
    let task = scene.supervisor(&bundle).await;
    task.create(&bundle.create()).await.unwrap();
    task.start("c", "").await.unwrap();
    assert_eq!(task.wait("c", "").await.unwrap(), 3);
    task.delete("c", "").await.unwrap();
    let said = fs::read_to_string(&said).unwrap();
    let found: Vec<(&str, Value)> = said
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(kind, state)| (kind, serde_json::from_str(state).unwrap()))
        .map(|(kind, state): (&str, Value)| (kind, state["status"].clone()))
        .collect();
    let expected = ["creating", "creating", "creating", "running", "stopped"];
    let expected: Vec<_> = kinds.into_iter().zip(expected.map(Value::from)).collect();
    assert_eq!(found, expected, "{said}");
}

#[tokio::test]
async fn device_rules_of_an_update_are_put_in_force() {
    let scene = Scene::new();
    let cgroup = scene.cgroup("c");
    let rules = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw" },
    ]);
    let bundle = bundle(&scene, "sleep 1000", |spec| {
        spec["linux"]["resources"]["devices"] = rules.clone();
    });
    let task = scene.supervisor(&bundle).await;
    task.create(&bundle.create()).await.unwrap();
    task.start("c", "").await.unwrap();
    let list = Path::new("/sys/fs/cgroup/devices").join(&cgroup).join("devices.list");
    let before = fs::read_to_string(&list).unwrap();
    // As containerd does: all that config.json says, and one limit that is new.
    let same = json!({ "devices": rules, "pids": { "limit": 77 } });
    task.update("c", &same.to_string()).await.unwrap();
    assert_eq!(fs::read_to_string(&list).unwrap(), before);
    let other = json!({ "devices": [
        { "allow": false, "type": "c", "major": 10, "minor": 200, "access": "rw" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
    ] });
    task.update("c", &other.to_string()).await.unwrap();
    let after = fs::read_to_string(&list).unwrap();
    assert!(before.contains("c 10:200 rw") && !after.contains("c 10:200"), "{before}{after}");
    assert!(after.contains("c 10:229 rw") && after.contains("c 1:3 rwm"), "{after}");
    task.kill("c", "", 9).await.unwrap();
    task.wait("c", "").await.unwrap();
    task.delete("c", "").await.unwrap();
}

#[tokio::test]
async fn a_guest_that_could_not_be_made_leaves_no_cgroup() {
    let scene = Scene::new();
    let cgroup = scene.cgroup("c");
    let bundle = bundle(&scene, "true", |spec| {
        let mount = json!({ "destination": "/mnt", "type": "nosuchfs", "source": "none" });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let task = scene.supervisor(&bundle).await;
    task.create(&bundle.create()).await.unwrap_err();
    let left: Vec<_> = ["", ".monitor", ".pivot"]
        .into_iter()
        .flat_map(|suffix| folders(&format!("{cgroup}{suffix}")))
        .filter(|folder| folder.exists())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// LXC's monitor obeys whoever finds its socket and is root, which every container in the host's
/// network may be.
#[tokio::test]
async fn nobody_in_the_hosts_network_finds_lxcs_socket() {
    for mapped in [false, true] {
        let scene = node::scene("lxc");
        let script = "cat /proc/net/unix > /tmp/v/seen; ip link show lo > /tmp/v/links; sleep 1000";
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let seen = scene.folder().join("v");
        fs::create_dir(&seen).unwrap();
        fs::set_permissions(&seen, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let bundle = bundle(&scene, script, |spec| {
            if mapped {
                crate::guest_images::mapped(spec);
            }
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/tmp/v", "type": "bind", "source": seen, "options": ["bind"],
            }));
        });
        let task = scene.supervisor(&bundle).await;
        let pid = task.create(&bundle.create()).await.unwrap();
        assert_eq!(fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(), own);
        task.start("c", "").await.unwrap();
        eventually("it has looked", || seen.join("links").metadata().ok().map(|_| ()));
        let from_inside = fs::read_to_string(seen.join("seen")).unwrap();
        assert!(from_inside.contains("Num"), "{from_inside}");
        for text in [from_inside, fs::read_to_string("/proc/net/unix").unwrap()] {
            let sockets: Vec<_> =
                text.lines().filter(|line| line.contains(&scene.namespace)).collect();
            assert!(!sockets.iter().any(|line| line.ends_with("command")), "{sockets:?}");
        }
        task.kill("c", "", 9).await.unwrap();
        task.wait("c", "").await.unwrap();
        task.delete("c", "").await.unwrap();
    }
}
#[tokio::test]
async fn a_full_folder_of_state_is_named_and_nothing_is_left() {
    let scene = Scene::new();
    let bundle = bundle(&scene, "sleep 1000", |_| ());
    let task = scene.supervisor(&bundle).await;
    let folder = Path::new("/run/nexcage").join(&scene.namespace);
    fs::create_dir_all(&folder).unwrap();
    let mut failed = 0;
    // One file more each time, until there is room for all.
    for files in 1.. {
        let options = format!("nr_inodes={files}");
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        let created = task.create(&bundle.create()).await;
        if created.is_ok() {
            task.kill("c", "", 9).await.unwrap();
            task.wait("c", "").await.unwrap();
            task.delete("c", "").await.unwrap();
        }
        let left = (scene.cgroups(), fs::read_dir(&folder).unwrap().count());
        umount2(&folder, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(left, (Vec::new(), 0), "{files} files");
        match created {
            Ok(_) => break,
            Err(error) => {
                let (said, place) = (error.to_string(), folder.join("c").display().to_string());
                // LXC's log is one of them, and LXC can say nothing without it.
                let full = said.contains("No space left") || said.contains("(`df`, `df -i`)");
                assert!(full && said.contains(&place), "{files} files: {said}");
                failed += 1;
            }
        }
    }
    assert!(failed > 5, "{failed}");
}

#[tokio::test]
async fn a_limit_can_be_changed_though_the_bundle_is_gone() {
    let scene = Scene::new();
    let bundle = bundle(&scene, "sleep 1000", |_| ());
    let task = scene.running(&bundle).await;
    fs::remove_file(bundle.path.join("config.json")).unwrap();
    task.update("c", &json!({ "pids": { "limit": 77 } }).to_string()).await.unwrap();
    task.kill("c", "", 9).await.unwrap();
    task.wait("c", "").await.unwrap();
    task.delete("c", "").await.unwrap();
    assert!(scene.cgroups().is_empty(), "{:?}", scene.cgroups());
}

#[tokio::test]
async fn an_exec_into_a_guest_that_ends_says_that_it_has_ended() {
    let scene = Scene::new();
    let bundle = bundle(&scene, "sleep 1000", |_| ());
    let task = scene.supervisor(&bundle).await;
    for moment in 0..20 {
        task.create(&bundle.create()).await.unwrap();
        task.start("c", "").await.unwrap();
        task.exec(&bundle.exec("e", &["sleep", "1000"])).await.unwrap();
        let other = task.clone();
        let starting = tokio::spawn(async move { other.start("c", "e").await });
        // Every time at another moment of it.
        tokio::time::sleep(Duration::from_micros(500 * moment)).await;
        task.kill("c", "", 9).await.unwrap();
        if let Err(error) = starting.await.unwrap() {
            let error = error.to_string();
            assert!(error.contains("NOT_FOUND") && error.contains("has ended"), "{error}");
        }
        assert_eq!(task.wait("c", "").await.unwrap(), 137);
        task.delete("c", "").await.unwrap();
        assert!(scene.cgroups().is_empty(), "{:?}", scene.cgroups());
    }
}

#[tokio::test]
async fn a_start_whose_init_is_killed_says_so() {
    let scene = Scene::new();
    let bundle = bundle(&scene, "sleep 1000", |_| ());
    let task = scene.supervisor(&bundle).await;
    let pid = task.create(&bundle.create()).await.unwrap();
    signal::kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).unwrap();
    let other = task.clone();
    let starting = tokio::spawn(async move { other.start("c", "").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    task.kill("c", "", 9).await.unwrap();
    let error = starting.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("its init was killed before it became the process"), "{error}");
    assert_eq!(task.wait("c", "").await.unwrap(), 137);
    task.delete("c", "").await.unwrap();
}

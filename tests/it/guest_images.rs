//! Images of different kinds on LXC: with nothing in them but one program, for a user who is not
//! root, with a root file system that cannot be written, with ids of their own.

use crate::bed::{Bed, Pair};
use crate::same_as_crun::{run, same};
use crate::support::{Scene, bed};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use tempfile::TempDir;

/// A root file system of one static program.
fn scratch() -> TempDir {
    let root = tempfile::Builder::new().prefix("scratch").tempdir_in("/run").unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(bed::rootfs().join("bin/busybox"), root.path().join("busybox")).unwrap();
    root
}

fn one(spec: &mut Value, root: &TempDir, script: &str) {
    spec["root"]["path"] = json!(root.path());
    spec["process"]["args"] = json!(["/busybox", "sh", "-c", script]);
    spec["process"]["env"] = json!([]);
}

#[tokio::test]
async fn one_static_program_and_nothing_else() {
    for readonly in [false, true] {
        // Of each backend its own: both make the folders that mounts go on.
        let script = "exec 2>&1; /busybox ls / /tmp; /busybox id; /busybox touch /new && echo written; \
                      /busybox tr '\\0' ' ' < /proc/1/cmdline; echo > /dev/null; true";
        let said = same("", |spec| {
            let root = scratch();
            one(spec, &root, script);
            spec["root"]["readonly"] = readonly.into();
            // It is not in the way of anybody below the bed's own /run.
            drop(root.keep());
        })
        .await;
        assert!(said.contains("/busybox sh -c"), "{said}");
        assert_eq!(said.contains("\nwritten\n"), !readonly, "{said}");
    }
}

#[tokio::test]
async fn a_user_who_is_not_root_and_is_in_no_file() {
    let said = same("", |spec| {
        let root = scratch();
        one(
            spec,
            &root,
            "exec 2>&1; /busybox id; /busybox pwd; /busybox touch /tmp/x; /busybox mkdir /y; true",
        );
        spec["process"]["user"] = json!({ "uid": 12345, "gid": 23456 });
        drop(root.keep());
    })
    .await;
    assert!(said.contains("uid=12345 gid=23456"), "{said}");
}

/// Its ids begin here on the host.
const FIRST: u32 = 100_000;

/// Gives the guest a user namespace, in which [`FIRST`] is root.
pub fn mapped(spec: &mut Value) {
    let mappings = json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    spec["linux"]["uidMappings"] = mappings.clone();
    spec["linux"]["gidMappings"] = mappings;
}

#[tokio::test]
async fn root_inside_is_not_root_outside() {
    let folder = tempfile::Builder::new().prefix("files").tempdir_in("/run").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for (name, owner) in [("hosts", 0), ("roots", FIRST), ("users", FIRST + 1000)] {
        let path = folder.path().join(name);
        fs::write(&path, name).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    // Not beside crun 1.8, which gives the host's /dev/null away where that is its stdio.
    let (said, status) = run(
        "lxc",
        "exec 2>&1; id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; cd /var; rm -f new; \
         stat -c '%n %u %g' *; cat hosts roots; touch new; chown 0:0 roots; hostname other; hostname; \
         mknod /tmp/sda b 8 0; ls -ln /dev/null | cut -c1-10",
        &|spec: &mut Value| {
            mapped(spec);
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/var", "type": "bind", "source": folder.path(),
                "options": ["bind", "rw"],
            }));
        },
    )
    .await;
    assert_eq!(status, "0", "{said}");
    assert!(said.starts_with("0\n 0 100000 65536\n 0 100000 65536\n"), "{said}");
    assert!(said.contains("roots") && said.contains("can't open 'hosts'"), "{said}");
    assert!(said.contains("hosts 65534 65534\n") && said.contains("roots 0 0\n"), "{said}");
    assert_eq!(fs::metadata(folder.path().join("new")).unwrap().uid(), FIRST);
}

#[tokio::test]
async fn an_exec_has_the_same_ids() {
    let scene = Scene::new();
    let bundle = scene.bundle("c", &["sleep", "1000"]).edit(|spec| {
        mapped(spec);
        spec["annotations"] = json!({ "io.nexcage.backend": "lxc" });
    });
    let task = scene.running(&bundle).await;
    task.exec(&bundle.exec("e", &["sleep", "1000"])).await.unwrap();
    let exec = task.start("c", "e").await.unwrap();
    let init = task.state("c", "").await.unwrap().pid;
    for pid in [init, exec] {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let status = read("status");
        let ids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        assert_eq!(ids, "Uid:\t100000\t100000\t100000\t100000");
        let map: Vec<_> = read("uid_map").split_whitespace().map(str::to_owned).collect();
        assert_eq!(map, ["0", "100000", "65536"]);
    }
    task.kill("c", "", 9).await.unwrap();
    assert_eq!(task.wait("c", "e").await.unwrap(), 137);
    assert_eq!(task.wait("c", "").await.unwrap(), 137);
    task.delete("c", "").await.unwrap();
    assert!(scene.cgroups().is_empty(), "{:?}", scene.cgroups());
}

/// As ctr asks for it: the image's files are given to the namespace's root, and so are the pipes.
#[test]
fn a_user_namespace_of_ctrs() {
    for containerd in ["1.6", "1.7", "2.1"] {
        let bed = Bed::new(Pair { containerd, runtime: "lxc" });
        let ids = "0:100000:65536";
        let script = "id -u; stat -c %u /etc/passwd; xargs < /proc/self/gid_map; exit 6";
        let flags = ["--rm", "--uidmap", ids, "--gidmap", ids];
        let ended = bed.run(&flags, "c", &["sh", "-c", script]).finish();
        let said = (ended.code, ended.stdout.as_str());
        assert_eq!(said, (6, "0\n0\n0 100000 65536\n"), "{containerd}: {ended:?}");
        bed.leave_nothing();
    }
}

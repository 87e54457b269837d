//! Bind mounts that are the host's, too, and those that show other ids than the files have: the
//! same on LXC as on crun.

use crate::same_as_crun::run;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A volume of the host's: a mount of its own, which is shared, with another in it.
struct Volume(TempDir);

impl Volume {
    fn new() -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        host("mount -t tmpfs volume $V && mount --make-shared $V", volume.path());
        host("mkdir $V/deep && mount -t tmpfs deep $V/deep", volume.path());
        for file in ["own", "app", "deep/app"] {
            fs::write(volume.at(file), "").unwrap();
        }
        for file in ["app", "deep/app"] {
            chown(volume.at(file), Some(5), Some(7)).unwrap();
        }
        volume
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// Where something is mounted in it, on the host.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let places = table.lines().filter_map(|line| line.split(' ').nth(4));
        let inside = places.filter_map(|place| Path::new(place).strip_prefix(self.path()).ok());
        inside.map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    fn mount(&self, destination: &str, options: &[&str]) -> Value {
        json!({
            "destination": destination, "type": "bind", "source": self.path(), "options": options,
        })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        host("umount --lazy $V", self.path());
    }
}

/// Runs a command of the host's, for which `$V` is `volume`.
fn host(script: &str, volume: &Path) {
    let status = Command::new("sh").args(["-ec", script]).env("V", volume).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

fn add(spec: &mut Value, mounts: &[Value]) {
    spec["mounts"].as_array_mut().unwrap().extend_from_slice(mounts);
}

/// `mount` with root of the host seen as files of user 100, and users and groups 0 to 9 of the
/// files as 1000 to 1009 and 2000 to 2009.
fn mapped(mut mount: Value) -> Value {
    let ranges = |first: u32| {
        json!([
            { "containerID": 0, "hostID": first, "size": 10 },
            { "containerID": 100, "hostID": 0, "size": 1 },
        ])
    };
    mount["uidMappings"] = ranges(1000);
    mount["gidMappings"] = ranges(2000);
    mount
}

/// runtime-spec, `mounts[].uidMappings`.
#[tokio::test]
async fn a_mount_shows_the_ids_it_is_given() {
    let volume = Volume::new();
    let script = "exec 2>&1; cd /tmp/v; stat -c '%n %u:%g' own app; rm -f new; touch new; \
                  stat -c '%u:%g' new; touch /tmp/ro/new; stat -c '%n %u:%g' deep/app";
    let edit = |spec: &mut Value, word| {
        let mut file = mapped(volume.mount("/tmp/file", &["bind", word]));
        file["source"] = volume.at("app").to_str().unwrap().into();
        let whole = mapped(volume.mount("/tmp/v", &["rbind", word, "rprivate"]));
        let read_only = mapped(volume.mount("/tmp/ro", &["rbind", word, "ro"]));
        add(spec, &[whole, file, read_only]);
    };
    for (word, deep) in [("idmap", "5:7"), ("ridmap", "1005:2007")] {
        let [(crun, _), (lxc, status)] = [
            run("crun", script, &|spec| edit(spec, word)).await,
            run("lxc", script, &|spec| edit(spec, word)).await,
        ];
        // crun leaves out what is mounted below, which rbind asks for; runc has it.
        let both = "own 1000:2000\napp 1005:2007\n0:0\ntouch: /tmp/ro/new: Read-only file system\n";
        assert!(crun.starts_with(both), "{crun}");
        assert_eq!(lxc, format!("{both}deep/app {deep}\n"));
        assert_eq!(status, "0");
        let made = fs::metadata(volume.at("new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (100, 100));
    }
}

/// Other ids than the guest's user namespace gives its own files.
#[tokio::test]
async fn a_guest_with_mapped_ids_gets_a_mount_with_others() {
    let volume = Volume::new();
    let (said, status) = run("lxc", "exec 2>&1; cd /tmp/v; stat -c '%n %u:%g' own app", &|spec| {
        crate::guest_images::mapped(spec);
        let mut mount = volume.mount("/tmp/v", &["bind", "idmap"]);
        for (key, first) in [("uidMappings", 100_010), ("gidMappings", 100_020)] {
            mount[key] = json!([{ "containerID": 0, "hostID": first, "size": 10 }]);
        }
        add(spec, &[mount]);
    })
    .await;
    assert_eq!((said.as_str(), status.as_str()), ("own 10:20\napp 15:27\n", "0"));
}

/// What a driver of volumes does in a pod: mountPropagation Bidirectional.
#[tokio::test]
async fn what_is_mounted_in_a_shared_mount_is_on_the_host() {
    let script = "exec 2>&1; mount -t tmpfs made /tmp/v/made; umount /tmp/v/deep; \
                  mount -t tmpfs mine /tmp/own/mine; \
                  awk '$5 ~ \"^/tmp/\" { print $5, $7 ~ /^shared/ ? \"shared\" : \"own\" }' \
                  /proc/self/mountinfo | sort";
    let mut mounts = Vec::new();
    for backend in ["crun", "lxc"] {
        let volume = Volume::new();
        for folder in ["made", "mine"] {
            fs::create_dir(volume.at(folder)).unwrap();
        }
        let (said, status) = run(backend, script, &|spec: &mut Value| {
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
            }
            spec["linux"]["rootfsPropagation"] = "rshared".into();
            let shared = volume.mount("/tmp/v", &["rbind", "rshared"]);
            let own = volume.mount("/tmp/own", &["rbind", "rprivate"]);
            let mut inside = volume.mount("/tmp/v/made/in", &["bind"]);
            inside["source"] = volume.at("app").to_str().unwrap().into();
            add(spec, &[shared, own, inside]);
        })
        .await;
        assert_eq!(status, "0", "{said}");
        if backend == "lxc" {
            let own = "/tmp/own own\n/tmp/own/deep own\n/tmp/own/mine own\n/tmp/v shared\n\
                       /tmp/v/made shared\n/tmp/v/made/in shared\n";
            assert_eq!(said, own);
        }
        mounts.push(volume.mounts());
    }
    // crun, too, leaves what the bundle has mounted in the volume.
    assert_eq!(mounts, [["", "made/in", "made"]; 2]);
}

/// Whoever else has a volume may put links into it at any moment: here between LXC's mounts and what
/// the init does with them. A mount that may be written must not make another one so.
#[tokio::test]
async fn a_link_put_into_a_volume_meanwhile_opens_no_other_mount() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    for path in ["protected", "writable", "volume/way/mount"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    let swap = format!("cd {} && mv way gone && ln -s /tmp way", at("volume").display());
    let bind = |source: &str, destination: &str, options: &[&str]| {
        json!({
            "destination": destination, "type": "bind", "source": at(source), "options": options,
        })
    };
    let script = "touch /tmp/mount/new; cat /proc/self/mountinfo";
    let (said, status) = run("lxc", script, &|spec: &mut Value| {
        spec["hooks"]["createContainer"] = json!([{
            "path": "/bin/sh", "args": ["sh", "-c", swap], "env": ["PATH=/usr/bin:/bin"],
        }]);
        let mounts = [
            bind("protected", "/tmp/mount", &["bind", "ro"]),
            bind("volume", "/tmp/volume", &["bind"]),
            bind("writable", "/tmp/volume/way/mount", &["bind", "rw"]),
        ];
        add(spec, &mounts);
    })
    .await;
    assert!(at("volume/gone").exists(), "the hook has not run: {said} {status}");
    assert!(!at("protected/new").exists(), "what is read-only was written: {said}");
    let line = said.lines().find(|line| line.contains("/protected /tmp/mount "));
    assert!(line.is_some_and(|line| line.contains(" /tmp/mount ro,")), "{said}");
}

/// Mounts in volumes, and in what is mounted there, have their own options.
#[tokio::test]
async fn mounts_in_volumes_are_as_they_say() {
    let volume = Volume::new();
    fs::create_dir(volume.at("in")).unwrap();
    fs::create_dir(volume.at("empty")).unwrap();
    let script = "exec 2>&1; cd /tmp/v; touch new deep/new; touch in/side && echo side; \
                  touch empty/f/x && echo x; cat in/app; ls -a empty empty/f";
    let [crun, lxc] = [run_in(&volume, "crun", script).await, run_in(&volume, "lxc", script).await];
    assert_eq!(crun, lxc);
    assert!(lxc.0.contains("side\nx\n"), "{lxc:?}");
}

async fn run_in(volume: &Volume, backend: &str, script: &str) -> (String, String) {
    run(backend, script, &|spec| {
        let of = |path: &str, destination: &str, options: &[&str]| {
            let mut mount = volume.mount(destination, options);
            mount["source"] = volume.at(path).to_str().unwrap().into();
            mount
        };
        let tmpfs = json!({ "destination": "/tmp/v/empty", "type": "tmpfs", "source": "tmpfs" });
        let mounts = [
            of("", "/tmp/v", &["rbind", "rro"]),
            of("deep", "/tmp/v/in", &["bind", "rw"]),
            tmpfs,
            of("deep", "/tmp/v/empty/f", &["bind", "rw"]),
        ];
        add(spec, &mounts);
    })
    .await
}

//! `nexcage bundle create`: what it makes runs under crun and runc, whatever it was made of, and
//! nothing is left of what could not be made.

use crate::support::{Scene, bed, proc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A folder of a test's own, below which bundles are made.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        bed::check();
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.at(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexcage"));
        command.args(["bundle", "create"]).args(words).current_dir(self.0.path());
        command
    }

    fn create(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Makes the bundle `b`; what was noted.
    #[track_caller]
    fn made(&self, words: &[&str]) -> String {
        let output = self.create(&[&["b"], words].concat());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout).trim(), self.at("b").to_str().unwrap());
        text(&output.stderr)
    }

    /// Makes nothing; why.
    #[track_caller]
    fn refused(&self, words: &[&str]) -> String {
        let before = self.names("");
        let output = self.create(&[&["b"], words].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(self.names(""), before);
        text(&output.stderr)
    }

    /// Runs a shell here, for its side effects.
    #[track_caller]
    fn sh(&self, script: &str) {
        let output = Command::new("sh")
            .args(["-euc", script])
            .env("BED", bed::folder())
            .current_dir(self.0.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// What the bundle's process prints under that runtime.
    #[track_caller]
    fn run(&self, runtime: &Path, bundle: &str) -> String {
        let id = format!("bc-{}", std::process::id());
        let id = format!("{id}-{}", self.0.path().file_name().unwrap().to_str().unwrap());
        let output = Command::new(runtime)
            .args(["--root", self.at("state").to_str().unwrap(), "run", "-b", bundle])
            .arg(id.replace(".tmp", "t"))
            .current_dir(self.0.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    }

    /// What it prints under crun, and the same under runc.
    #[track_caller]
    fn said(&self) -> String {
        let (crun, runc) = (self.run(&bed::crun(), "b"), self.run(&bed::runc(), "b"));
        assert_eq!(crun, runc);
        crun
    }

    fn again(&self) {
        fs::remove_dir_all(self.at("b")).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A root with everything that gets lost easily; `old` of it is in lower layers alone.
const ROOT: &str = r#"
cp -a "$BED/rootfs" root
mkdir -p root/srv/app
echo hello > root/srv/app/file
ln root/srv/app/file root/srv/app/second
chown -R 1000:1000 root/srv/app
cp root/bin/busybox root/srv/app/suid
chmod 4755 root/srv/app/suid
chmod 1770 root/srv/app
ln -s /srv/app/file root/link
"#;

/// What is looked at from inside.
const LOOK: &str = "cd /; stat -c '%n %a %u:%g %h %F' srv/app srv/app/* link; cat link; id; \
     ls srv srv/opaque 2>&1; echo done";

const SEEN: &str = "\
srv/app 1770 1000:1000 2 directory
srv/app/file 644 1000:1000 2 regular file
srv/app/second 644 1000:1000 2 regular file
srv/app/suid 4755 0:0 1 regular file
link 777 0:0 1 symbolic link
hello
";

#[test]
fn a_bundle_from_a_folder_or_an_archive_runs() {
    let place = Place::new();
    place.sh(ROOT);
    place.sh("tar -C root -czf root.tar.gz .; tar -C root --zstd -cf root.tar.zst .");
    place.sh("mkdir root/srv/opaque root/srv/old; tar -C root -cf root.tar .");
    for source in ["root", "root.tar", "root.tar.gz", "root.tar.zst"] {
        place.made(&["--rootfs", source, "--", "/bin/sh", "-c", LOOK]);
        let said = place.said();
        assert!(said.starts_with(SEEN), "{source}: {said}");
        assert!(said.contains("uid=0(root) gid=0(root)"), "{source}: {said}");
        place.again();
    }
}

#[test]
fn a_bundle_from_an_image_of_umoci_or_skopeo_runs() {
    let place = Place::new();
    place.sh(ROOT);
    place.sh(
        r#"
        mkdir lower lower/old lower/opaque upper; echo x | tee lower/old/f lower/opaque/f > upper/new
        umoci init --layout img; umoci new --image img:1
        umoci insert --image img:1 "$BED/rootfs" /
        umoci insert --image img:1 lower /srv
        umoci insert --image img:1 --whiteout /srv/old
        umoci insert --image img:1 --opaque upper /srv/opaque
        umoci insert --image img:1 root/srv/app /srv/app
        umoci insert --image img:1 root/link /link
        umoci config --image img:1 --clear=config.cmd --config.entrypoint /bin/sh \
            --config.entrypoint -c --config.cmd false --config.user app --config.workingdir /tmp \
            --config.env FROM=image --config.stopsignal SIGQUIT --config.label l=v \
            --architecture "$(dpkg --print-architecture)" --os linux
        umoci tag --image img:1 other; umoci config --image img:other --config.user root
        skopeo --insecure-policy copy -q oci:img:1 oci:zstd:1 --dest-compress-format zstd \
            --dest-compress
        skopeo --insecure-policy copy -q oci:img:1 oci-archive:packed.tar:1
        grep -q zstd zstd/blobs/sha256/* || exit 3
        "#,
    );
    for (source, reference) in [("img", Some("1")), ("zstd", None), ("packed.tar", None)] {
        let script = format!("{LOOK}; pwd; echo $FROM");
        let mut words = vec!["--rootfs", source];
        words.extend(reference.into_iter().flat_map(|name| ["--ref", name]));
        place.made(&[&words[..], &["--", &script]].concat());
        let said = place.said();
        assert!(said.starts_with(SEEN), "{source}: {said}");
        let end = "uid=1000(app) gid=1000(app)\n\
             srv:\napp\nopaque\n\nsrv/opaque:\nnew\ndone\n/\nimage\n";
        assert!(said.replace(" groups=1000(app)", "").ends_with(end), "{source}: {said}");
        let config = fs::read_to_string(place.at("b/config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["process"]["cwd"], "/tmp");
        assert_eq!(config["annotations"]["org.opencontainers.image.stopSignal"], "SIGQUIT");
        assert_eq!(config["annotations"]["l"], "v");
        assert_eq!(place.names("b"), ["config.json", "rootfs"]);
        place.again();
    }
    let error = place.refused(&["--rootfs", "img"]);
    assert!(error.contains("--ref") && error.contains("1, other"), "{error}");
    place.sh(
        "f=$(ls -S img/blobs/sha256/* | head -n1); printf x | dd of=$f bs=1 seek=5000 conv=notrunc",
    );
    let error = place.refused(&["--rootfs", "img", "--tag", "1"]);
    assert!(error.contains("layer ") && error.lines().count() == 1, "{error}");
}

#[test]
fn an_overlay_copies_nothing_and_is_undone_by_an_unmount() {
    let place = Place::new();
    place.sh(ROOT);
    let script = "echo new > /srv/app/file; cat /link; rm /srv/app/suid";
    let note = place.made(&["--rootfs", "root", "--overlay", "--", "/bin/sh", "-c", script]);
    assert!(note.contains(&format!("umount {}/rootfs", place.at("b").display())), "{note}");
    assert_eq!(place.run(&bed::crun(), "b"), "new\n");
    assert_eq!(fs::read_to_string(place.at("root/srv/app/file")).unwrap(), "hello\n");
    assert_eq!(place.names("b/overlay/upper/srv/app"), ["file", "suid"]);
    place.sh("umount b/rootfs");
    assert!(place.names("b/rootfs").is_empty());
    place.again();
    place.sh("mv root a,b");
    let error = place.refused(&["--rootfs", "a,b", "--overlay"]);
    assert!(error.contains("comma"), "{error}");
}

#[test]
fn flags_are_what_the_process_finds() {
    let place = Place::new();
    let root = bed::rootfs();
    let root = root.to_str().unwrap();
    place.sh("mkdir data; echo data > data/f");
    let script = "id; pwd; hostname; echo $A; cat /data/f; touch /x /data/x; grep CapBnd /proc/self/status; exit 0";
    let volume = format!("{}:/data:ro", place.at("data").display());
    place.made(&[
        "--rootfs",
        root,
        "--user",
        "app",
        "--cwd",
        "/home/app",
        "--hostname",
        "web",
        "-e",
        "A=1 2",
        "-v",
        &volume,
        "--mount",
        "type=tmpfs,destination=/t,options=size=1m",
        "--read-only",
        "--cap-drop",
        "all",
        "--cap-add",
        "net_raw",
        "--memory",
        "64m",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
        "--",
        "/bin/sh",
        "-c",
        script,
    ]);
    assert_eq!(
        place.said().replace(" groups=1000(app)", ""),
        "uid=1000(app) gid=1000(app)\n/home/app\nweb\n1 2\ndata\nCapBnd:\t0000000000002000\n"
    );
    let about = fs::metadata(place.at("b")).unwrap();
    assert_eq!((about.mode() & 0o7777, about.uid()), (0o700, 0));
    assert!(place.refused(&["--rootfs", root]).contains("not empty"));
    place.again();
    place.made(&[]);
    assert!(place.names("b/rootfs").is_empty());
}

/// One entry of an archive, its names as they stand, however bad.
fn entry(kind: tar::EntryType, path: &str, link: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header
}

#[test]
fn hostile_archives_leave_nothing_outside_and_nothing_half_made() {
    use tar::EntryType::{Block, Link, Regular, Symlink, XHeader};
    let place = Place::new();
    place.sh("mkdir outside; echo kept > outside/file");
    let outside = place.at("outside");
    let outside = outside.to_str().unwrap();
    let before = fs::metadata(place.at("outside/file")).unwrap();
    let cases: [(&[tar::Header], &str); 8] = [
        (&[entry(Regular, "../outside/x", "", 0)], ".."),
        (&[entry(Link, "x", "../outside/file", 0)], ".."),
        (&[entry(Link, "x", &format!("{outside}/file"), 0)], "find "),
        (&[entry(Symlink, "l", outside, 0), entry(Link, "x", "l/file", 0)], "find l/file"),
        (&[entry(Block, "sda", "", 0)], "block device 0:0"),
        (&[entry(tar::EntryType::new(b'Q'), "x", "", 0)], "unknown type"),
        (&[entry(XHeader, "x", "", 1 << 40)], "1 MiB"),
        (&[entry(Regular, "x", "", 1 << 40)], "middle"),
    ];
    for (headers, says) in cases {
        let mut file = File::create(place.at("bad.tar")).unwrap();
        file.write_all(entry(Regular, "first", "", 0).as_bytes()).unwrap();
        for header in headers {
            file.write_all(header.as_bytes()).unwrap();
        }
        let error = place.refused(&["--rootfs", "bad.tar"]);
        assert!(error.contains(says) && error.lines().count() == 1, "{error}");
    }
    // What is contained instead: links that lead out, and what is put through them.
    let mut file = File::create(place.at("bad.tar")).unwrap();
    for header in [
        entry(Symlink, "l", outside, 0),
        entry(Regular, "l/x", "", 0),
        entry(Regular, "/etc/x", "", 0),
        entry(Symlink, "f", &format!("{outside}/file"), 0),
        entry(Regular, "f", "", 0),
    ] {
        file.write_all(header.as_bytes()).unwrap();
    }
    // A umask of the caller's does not close the folders that are made on the way.
    place.sh(&format!(
        "umask 077; {} bundle create b --rootfs bad.tar",
        env!("CARGO_BIN_EXE_nexcage")
    ));
    assert_eq!(fs::metadata(place.at("b/rootfs/etc")).unwrap().mode() & 0o7777, 0o755);
    assert!(place.at("b/rootfs").join(&outside[1..]).join("x").is_file());
    assert_eq!(place.names("outside"), ["file"]);
    let after = fs::metadata(place.at("outside/file")).unwrap();
    assert_eq!((after.nlink(), after.ctime_nsec()), (1, before.ctime_nsec()));
}

#[tokio::test]
async fn a_signal_in_the_middle_leaves_nothing() {
    let place = Place::new();
    // A file of 16 GiB in some MiB of gzip, member after member.
    let gzip = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    };
    let zeros = gzip(&vec![0; 16 << 20]);
    let header = entry(tar::EntryType::Regular, "zeros", "", 1024 * (16 << 20));
    let mut file = File::create(place.at("bomb.tar.gz")).unwrap();
    file.write_all(&gzip(header.as_bytes())).unwrap();
    for _ in 0..1024 {
        file.write_all(&zeros).unwrap();
    }
    let error = place.refused(&["--rootfs", "bomb.tar.gz", "--max-size", "20m"]);
    assert!(error.contains("more than 20971520 bytes"), "{error}");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let child = place
            .command(&["b", "--rootfs", "bomb.tar.gz"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        proc::within(Duration::from_secs(30), "it writes", || {
            place.names("").iter().any(|name| {
                let zeros = place.at(name).join("rootfs/zeros");
                fs::metadata(zeros).is_ok_and(|found| found.len() > 1 << 20)
            })
        })
        .await;
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.into_raw() >> 8, 128 + signal as i32);
        assert!(text(&output.stderr).contains(&format!("stopped by {signal}")), "{output:?}");
        assert_eq!(place.names(""), ["bomb.tar.gz"]);
    }
}

#[tokio::test]
async fn a_container_of_crictls_files_joins_a_sandbox_that_runs() {
    let scene = Scene::new();
    let cri = |key: &str| format!("io.kubernetes.cri.{key}");
    let sandbox = scene.bundle("s1", &["sleep", "1000"]).edit(|spec| {
        spec["hostname"] = "pod-1".into();
        spec["annotations"] = json!({
            cri("container-type"): "sandbox", cri("sandbox-uid"): "u1",
        });
    });
    let place = Place::new();
    let write = |name: &str, value: &Value| {
        fs::write(place.at(name), value.to_string()).unwrap();
    };
    write(
        "pod.json",
        &json!({
            "metadata": {"name": "web", "uid": "u1", "namespace": "default"},
            "dns_config": {"servers": ["10.0.0.1"]},
        }),
    );
    let script = "hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/pid; cat /etc/resolv.conf; id -u";
    write(
        "container.json",
        &json!({
            "metadata": {"name": "c"}, "image": {"image": "busybox"},
            "command": ["/bin/sh", "-c"], "args": [script],
            "linux": {"security_context": {
                "namespace_options": {"pid": 1}, "run_as_username": "app",
                "seccomp": {"profile_type": 1},
            }},
        }),
    );
    let root = bed::rootfs();
    let create = |more: &[&str]| {
        let words = [
            "--cri-container",
            "container.json",
            "--cri-sandbox",
            "pod.json",
            "--container-id",
            "c1",
            "--rootfs",
            root.to_str().unwrap(),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexcage"));
        command.args(["--namespace", &scene.namespace, "bundle", "create"]).args(words);
        command.args(more).current_dir(place.0.path()).output().unwrap()
    };
    let refused = create(&["--sandbox-id", "s1"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("sandbox s1 is unknown"), "{refused:?}");
    let task = scene.running(&sandbox).await;
    let pid = task.state("s1", "").await.unwrap().pid;
    let made = create(&[]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(text(&made.stdout), "/run/nexcage/s1/c1\n");
    let net = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let pids = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    for runtime in [bed::crun(), bed::runc()] {
        let said = place.run(&runtime, "/run/nexcage/s1/c1");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["pod-1", net.to_str().unwrap()], "{said}");
        assert_ne!(lines[2], pids.to_str().unwrap(), "{said}");
        assert_eq!(lines[3..], ["nameserver 10.0.0.1", "1000"], "{said}");
    }
    let again = create(&["--sandbox-id", "s1"]);
    assert!(text(&again.stderr).contains("not empty"), "{again:?}");

    let other = scene.bundle("c2", &["sleep", "1000"]).edit(|spec| {
        spec["annotations"] = json!({ cri("sandbox-id"): "s1" });
    });
    let other = scene.running(&other).await.state("c2", "").await.unwrap().pid;
    let seen = |script: &str, security: Value| {
        fs::remove_dir_all("/run/nexcage/s1/c1").unwrap();
        write(
            "container.json",
            &json!({
                "metadata": {"name": "c"}, "image": {"image": "busybox"},
                "command": ["/bin/sh", "-c"], "args": [script],
                "linux": {"security_context": security},
            }),
        );
        let made = create(&[]);
        assert!(made.status.success(), "{made:?}");
        let mut validate = Command::new(env!("CARGO_BIN_EXE_nexcage"));
        let valid = validate.args(["bundle", "validate", "/run/nexcage/s1/c1"]).output().unwrap();
        assert!(valid.status.success(), "{}", text(&valid.stdout));
        place.run(&bed::crun(), "/run/nexcage/s1/c1")
    };
    let link = fs::read_link(format!("/proc/{other}/ns/pid")).unwrap();
    let target = json!({"namespace_options": {"pid": 3, "target_id": "c2"}});
    assert_eq!(seen("readlink /proc/self/ns/pid", target).trim(), link.to_str().unwrap());

    let script = "grep Seccomp: /proc/self/status; unshare -U true 2>&1; echo $?";
    let profile = |kind: u8| json!({"seccomp": {"profile_type": kind}});
    assert_eq!(seen(script, profile(1)), "Seccomp:\t0\n0\n");
    let filtered = seen(script, profile(0));
    assert!(filtered.starts_with("Seccomp:\t2\n") && filtered.ends_with("\n1\n"), "{filtered}");
    assert!(filtered.contains("Operation not permitted"), "{filtered}");
    let deny = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    });
    write("deny.json", &deny);
    let profile = json!({"profile_type": 2, "localhost_ref": place.at("deny.json")});
    let filtered = seen("mkdir /tmp/x 2>&1 || true", json!({ "seccomp": profile }));
    assert!(filtered.contains("No space left on device"), "{filtered}");

    let mut pod: Value = serde_json::from_slice(&fs::read(place.at("pod.json")).unwrap()).unwrap();
    pod["linux"] = json!({"security_context": {"privileged": true}});
    write("pod.json", &pod);
    let script = "grep CapEff /proc/self/status; mount -t tmpfs none /tmp && echo mounted; \
                  test -w /dev/null && grep -c ' /sys sysfs rw' /proc/mounts";
    let all = fs::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let privileged = seen(script, json!({"privileged": true}));
    assert_eq!(privileged, format!("CapEff:{all}\nmounted\n1\n"));
    fs::remove_dir_all("/run/nexcage/s1").unwrap();
}

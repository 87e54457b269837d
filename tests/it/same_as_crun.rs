//! A bundle means the same on LXC as on crun: what its process finds inside, down to the last
//! limit, is compared word by word.

use crate::support::Scene;
use crate::support::fifo::{Reader, Stdio};
use containerd_shim_protos::api::CreateTaskRequest;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// What a process can tell of itself.
const REPORT: &str = r"
grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|Seccomp:)' /proc/self/status
cat /proc/self/limits /proc/self/oom_score_adj
env | sort
pwd
hostname
ls /dev | sort
ls /proc/self/fd | wc -l
tr '\0' '\n' < /proc/self/cmdline | tail -n +4
";

/// Runs the bundle, with `edit` applied to its config.json, on that backend: what it printed to
/// both outputs, and how it ended; what it was refused with, where it was.
pub async fn run(backend: &str, script: &str, edit: &impl Fn(&mut Value)) -> (String, String) {
    let scene = Scene::new();
    let bundle = scene.bundle("c", &["sh", "-c", script, "name", "last"]).edit(|spec| {
        spec["annotations"] = json!({ "io.nexcage.backend": backend });
        edit(spec);
    });
    let stdio = Stdio::new(scene.folder(), "c");
    let reader = Reader::open(&stdio.stdout);
    let task = scene.supervisor(&bundle).await;
    let request = CreateTaskRequest {
        stdout: stdio.stdout.clone(),
        stderr: stdio.stdout.clone(),
        ..bundle.create()
    };
    if let Err(refused) = task.create(&request).await {
        return (format!("{refused:?}"), "not created".to_owned());
    }
    if let Err(refused) = task.start("c", "").await {
        task.delete("c", "").await.unwrap();
        return (format!("{refused:?}"), "not started".to_owned());
    }
    let status = task.wait("c", "").await.unwrap();
    task.delete("c", "").await.unwrap();
    (reader.end().await, status.to_string())
}

/// Both say the same and succeed.
pub async fn same(script: &str, edit: impl Fn(&mut Value)) -> String {
    let script = format!("exec 2>&1\n{script}");
    let crun = run("crun", &script, &edit).await;
    let lxc = run("lxc", &script, &edit).await;
    assert_eq!(crun.0, lxc.0, "crun first, then lxc");
    assert_eq!((crun.1.as_str(), lxc.1.as_str()), ("0", "0"), "{}", crun.0);
    crun.0
}

/// Both refuse, at the same moment; what lxc says of it holds each of `words`.
async fn both_refuse(words: &[&str], edit: impl Fn(&mut Value)) {
    let crun = run("crun", "true", &edit).await;
    let lxc = run("lxc", "true", &edit).await;
    assert_eq!(crun.1, lxc.1, "{} {}", crun.0, lxc.0);
    for word in words {
        assert!(lxc.0.contains(word), "no {word:?} in {}", lxc.0);
    }
}

#[tokio::test]
async fn a_plain_process() {
    same(REPORT, |_| ()).await;
}

#[tokio::test]
async fn a_user_with_groups_and_a_mask() {
    let said = same(REPORT, |spec| {
        spec["process"]["user"] =
            json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 4000], "umask": 63 });
    })
    .await;
    assert!(said.contains("HOME=/home/app"), "{said}");
}

#[tokio::test]
async fn capabilities_and_privileges() {
    for user in [0, 1000] {
        for nnp in [false, true] {
            let edit = |spec: &mut Value| {
                spec["process"]["user"]["uid"] = user.into();
                spec["process"]["noNewPrivileges"] = nnp.into();
            };
            same(REPORT, |spec| {
                edit(spec);
                let all = json!(["CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_TIME"]);
                spec["process"]["capabilities"] = json!({
                    "bounding": all, "effective": all, "permitted": all, "inheritable": all,
                    "ambient": ["CAP_NET_RAW"],
                });
            })
            .await;
            same(REPORT, |spec| {
                edit(spec);
                spec["process"]["capabilities"] = json!({});
            })
            .await;
        }
    }
}

#[tokio::test]
async fn limits_and_scores() {
    let said = same(REPORT, |spec| {
        spec["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 333, "hard": 444 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        ]);
        spec["process"]["oomScoreAdj"] = 777.into();
    })
    .await;
    assert!(said.contains("777") && said.contains("333"), "{said}");
}

#[tokio::test]
async fn words_and_variables_of_any_content() {
    let said =
        same("tr '\\0' '\\n' < /proc/$$/environ; tr '\\0' '\\n' < /proc/$$/cmdline", |spec| {
            let odd = "tab\t newline\n quotes '\" back\\slash $HOME `x` \u{1} ü 漢 \u{1f980}";
            spec["process"]["env"] = json!([
                "PATH=/bin",
                "EMPTY=",
                "A.B-C=dots",
                format!("ODD={odd}"),
                format!("ü={odd}"),
                "  blanks  =  both sides  ",
            ]);
            spec["process"]["args"].as_array_mut().unwrap().extend([
                json!(odd),
                json!(""),
                json!("last"),
            ]);
        })
        .await;
    assert!(said.contains("🦀") && said.contains("A.B-C=dots"), "{said}");
}

#[tokio::test]
async fn hidden_and_protected_paths() {
    same(
        "cat /proc/kcore | wc -c; ls /proc/acpi 2>/dev/null | wc -l; \
         cat /etc/passwd 2>/dev/null | wc -c; cat /proc/keys 2>/dev/null | wc -c; \
         echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger; \
         touch /tmp/x /home/app/x; ls /home | wc -l; echo 0 > /proc/self/oom_score_adj; echo $?",
        |spec| {
            spec["linux"]["maskedPaths"] = json!([
                "/proc/kcore",
                "/proc/keys",
                "/proc/acpi",
                "/home",
                "/etc/passwd",
                "/no/such"
            ]);
            spec["linux"]["readonlyPaths"] =
                json!(["/proc/sys", "/proc/sysrq-trigger", "/no/such", "/proc/bus"]);
        },
    )
    .await;
}

#[tokio::test]
async fn mounts_and_their_options() {
    same(
        "grep -E ' (/mnt|/run|/tmp|/dev/shm|/dev/mqueue|/var|/proc|/sys|/) ' /proc/self/mounts | \
            cut -d' ' -f2-4 | sed -E 's/,(lowerdir|upperdir|workdir)=[^, ]*//g; s/ro,relatime,.*/ro,relatime/' | sort; \
         cat /etc/hosts; cat /var/passwd | wc -l; touch /etc/hosts; touch /var/passwd && echo writable; true",
        |spec| {
            let hosts = format!("{}/etc/group", crate::support::bed::rootfs().display());
            let etc = format!("{}/etc", crate::support::bed::rootfs().display());
            spec["mounts"].as_array_mut().unwrap().extend([
                json!({ "destination": "/run", "type": "tmpfs", "source": "tmpfs",
                        "options": ["nosuid", "nodev", "noexec", "mode=700", "size=64k"] }),
                json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] }),
                json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                        "options": ["nosuid", "noexec", "nodev"] }),
                json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                        "options": ["nosuid", "noexec", "nodev", "ro"] }),
                json!({ "destination": "/etc/hosts", "type": "bind", "source": hosts,
                        "options": ["rbind", "rprivate", "ro"] }),
                json!({ "destination": "/var", "type": "bind", "source": etc,
                        "options": ["bind", "ro", "nosuid", "nodev", "noexec"] }),
            ]);
        },
    )
    .await;
}

#[tokio::test]
async fn devices_with_their_owners_and_modes() {
    same("stat -c '%n %t %T %a %u %g' /dev/null /dev/zero /dev/tty /dev/fused /dev/deep/pipe; \
          for l in fd stdin; do readlink /dev/$l; done; ls -d /dev/core 2>/dev/null; cat /dev/deep/zero | head -c 3 | wc -c",
        |spec| {
            spec["linux"]["devices"] = json!([
                { "path": "/dev/fused", "type": "c", "major": 10, "minor": 229,
                  "fileMode": 432, "uid": 7, "gid": 8 },
                { "path": "/dev/deep/pipe", "type": "p", "fileMode": 420 },
                { "path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 438 },
            ]);
            spec["linux"]["resources"]["devices"] = json!([
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw" },
            ]);
        })
    .await;
}

#[tokio::test]
async fn names_and_parameters_of_the_kernel() {
    let said = same(
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward \
         /proc/sys/kernel/shmmni",
        |spec| {
            spec["hostname"] = "web-1.example".into();
            spec["domainname"] = "example.org".into();
            spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "512" });
        },
    )
    .await;
    assert_eq!(said, "web-1.example\nexample.org\n1\n512\n");
}

#[tokio::test]
async fn a_filter_of_system_calls() {
    for nnp in [false, true] {
        let said = same(
            "mkdir /tmp/a; mkdir /tmp/b; chmod 0700 /tmp; chmod 0 /tmp; echo $?; \
             grep -E '^Seccomp:' /proc/self/status; id -u",
            |spec| {
                spec["process"]["noNewPrivileges"] = nnp.into();
                spec["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                    "syscalls": [
                        { "names": ["mkdir", "mkdirat", "no_such_call"],
                          "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
                        { "names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                          "args": [{ "index": 1, "value": 448, "op": "SCMP_CMP_EQ" }] },
                    ],
                });
            },
        )
        .await;
        assert!(said.contains("No space left") && said.contains("Seccomp:\t2"), "{said}");
    }
}

#[tokio::test]
async fn a_folder_to_work_in_that_is_missing() {
    let said = same("pwd; ls -ld . | cut -c1-10", |spec| {
        spec["process"]["cwd"] = "/tmp/made/for/me".into();
    })
    .await;
    assert!(said.starts_with("/tmp/made/for/me\n"), "{said}");
}

/// CVE-2024-21626: a folder that is not the container's.
#[tokio::test]
async fn a_folder_of_the_host_is_refused() {
    both_refuse(&["/proc/self/fd/0"], |spec| {
        spec["process"]["cwd"] = "/proc/self/fd/0".into();
    })
    .await;
    for number in 3..12 {
        let edit = |spec: &mut Value| {
            spec["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
        };
        let lxc = run("lxc", "pwd", &edit).await;
        assert!(lxc.1.starts_with("not "), "{lxc:?}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_or_may_not_be_run() {
    both_refuse(&["nosuchprogram", "No such file"], |spec| {
        spec["process"]["args"] = json!(["nosuchprogram"]);
    })
    .await;
    both_refuse(&["/etc/passwd", "ermission denied"], |spec| {
        spec["process"]["args"] = json!(["/etc/passwd"]);
    })
    .await;
}

#[tokio::test]
async fn namespaces_shared_and_absent() {
    // By the shell alone: how many there are of a pipe's programs is a matter of time.
    let links = "for n in ipc net uts; do readlink /proc/self/ns/$n; done; hostname; \
                 cd /proc; echo [0-9]*";
    let said = same(links, |spec| {
        spec["linux"]["namespaces"] = json!([
            { "type": "pid" }, { "type": "mount" }, { "type": "ipc", "path": "/proc/self/ns/ipc" },
            { "type": "uts", "path": format!("/proc/{}/ns/uts", std::process::id()) },
        ]);
        spec.as_object_mut().unwrap().remove("hostname");
    })
    .await;
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(said.contains(own.to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn mounts_in_what_is_read_only_and_from_the_bundle() {
    let said = same(
        "touch /run/x || echo ro; touch /run/deep/x && echo rw; grep -c root /var/from",
        |spec| {
            spec["mounts"].as_array_mut().unwrap().extend([
                json!({ "destination": "/run", "type": "tmpfs", "source": "run",
                        "options": ["ro", "mode=755"] }),
                json!({ "destination": "/run/deep", "type": "tmpfs", "source": "deep" }),
                json!({ "destination": "/var", "type": "tmpfs", "source": "var" }),
                json!({ "destination": "/var/from", "type": "bind", "source": "config.json",
                        "options": ["bind", "ro"] }),
            ]);
        },
    )
    .await;
    assert!(said.contains("ro\nrw\n"), "{said}");
}

#[tokio::test]
async fn mounts_that_are_not_shared() {
    for word in ["private", "slave", "rprivate"] {
        let said = same("cut -d' ' -f5,7 /proc/self/mountinfo | grep -E '^/(tmp|run)? '", |spec| {
            spec["linux"]["rootfsPropagation"] = word.into();
            spec["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "destination": "/run", "type": "bind", "source": "/etc",
                        "options": ["rbind"] }));
        })
        .await;
        assert_eq!(said, "/ -\n/tmp -\n/run -\n", "{word}");
    }
}

#[tokio::test]
async fn capabilities_that_nobody_knows_are_passed_over() {
    same(REPORT, |spec| {
        let some = json!(["CAP_CHOWN", "CAP_OF_TOMORROW"]);
        spec["process"]["capabilities"] =
            json!({ "bounding": some, "effective": some, "permitted": some });
    })
    .await;
}

#[tokio::test]
async fn hooks_begin_in_the_bundle() {
    let said = same("cat /var/*", |spec| {
        let folder = tempfile::Builder::new().prefix("hooks").tempdir_in("/run").unwrap().keep();
        let hook = |kind: &str| {
            let file = folder.join(kind);
            let script = format!("grep -c ociVersion config.json > {}", file.display());
            json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }])
        };
        let kinds = ["prestart", "createRuntime", "createContainer"];
        spec["hooks"] = kinds.into_iter().map(|kind| (kind.to_owned(), hook(kind))).collect();
        spec["mounts"].as_array_mut().unwrap().push(
            json!({ "destination": "/var", "type": "bind", "source": folder, "options": ["bind"] }),
        );
    })
    .await;
    assert_eq!(said, "1\n1\n1\n");
}

/// Not beside crun 1.8, which fails at nanoseconds.
#[tokio::test]
async fn clocks_have_the_offsets_that_are_asked_for() {
    let with = async |boottime: Value| {
        run("lxc", "cat /proc/self/timens_offsets | tr -s ' '", &|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
            spec["linux"]["timeOffsets"] =
                json!({ "boottime": boottime, "monotonic": { "nanosecs": 7 } });
        })
        .await
    };
    let (said, status) = with(json!({ "secs": 86400 })).await;
    assert_eq!((said.as_str(), status.as_str()), ("monotonic 0 7\nboottime 86400 0\n", "0"));
    let (said, status) = with(json!({ "secs": 86400, "nanosecs": 5 })).await;
    assert_eq!(status, "not created", "{said}");
    assert!(said.contains("/linux/timeOffsets/boottime/nanosecs"), "{said}");
}

#[tokio::test]
async fn a_program_whose_interpreter_is_not_there() {
    let folder = tempfile::Builder::new().prefix("programs").tempdir_in("/run").unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/no/such/shell\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    for program in ["script", "/var/script"] {
        let (said, status) = run("lxc", "", &|spec| {
            spec["process"]["args"] = json!([program]);
            spec["process"]["env"] = json!(["PATH=/bin:/var"]);
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/var", "type": "bind", "source": folder.path(),
                "options": ["bind"],
            }));
        })
        .await;
        assert_eq!(status, "not started", "{said}");
        assert!(said.contains("exec `/var/script`, which is there: its interpreter"), "{said}");
    }
}

#[tokio::test]
async fn the_score_for_the_oom_killer_is_there_before_the_start() {
    for backend in ["crun", "lxc"] {
        let scene = Scene::new();
        let bundle = scene.bundle("c", &["sleep", "1000"]).edit(|spec| {
            spec["annotations"] = json!({ "io.nexcage.backend": backend });
            spec["process"]["oomScoreAdj"] = 777.into();
        });
        let task = scene.supervisor(&bundle).await;
        let pid = task.create(&bundle.create()).await.unwrap();
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_eq!(score, "777\n", "{backend}");
        task.kill("c", "", 9).await.unwrap();
        task.wait("c", "").await.unwrap();
        task.delete("c", "").await.unwrap();
    }
}

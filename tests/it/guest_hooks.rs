//! Hooks of all six kinds on LXC and on Proxmox VE, as on crun: when each runs, where, with what on its standard
//! input, and what becomes of a container one of whose hooks fails.

use crate::node;
use crate::support::{Bundle, Scene, proc};
use containerd_shim_protos::api::CreateTaskRequest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Writes down the state, where it runs, and whether the container's process has begun.
const NOTE: &str = r#"
cat > "$OUT/$KIND.state"
for name in mnt uts net ipc; do readlink /proc/self/ns/$name; done > "$OUT/$KIND.ns"
{ echo "$0 $1"; if [ -e "$OUT/begun" ]; then echo begun; else echo not yet; fi; } > "$OUT/$KIND.said"
echo "$KIND" >> "$OUT/order"
"#;

/// The folder that hooks write to, at /var inside the container.
fn notes(scene: &Scene) -> PathBuf {
    scene.folder().join("notes")
}

fn hook(scene: &Scene, kind: &str, script: &str) -> Value {
    let out = match kind {
        "startContainer" => PathBuf::from("/var"),
        _ => notes(scene),
    };
    json!({
        "path": "/bin/sh",
        "args": ["sh", "-c", script, "zero", "one two"],
        "env": ["PATH=/usr/bin:/bin", format!("OUT={}", out.display()), format!("KIND={kind}")],
    })
}

/// A bundle on that backend whose process writes down that it has begun, with these hooks.
fn bundle(scene: &Scene, backend: &str, process: &str, hooks: &[(&str, Vec<Value>)]) -> Bundle {
    let notes = notes(scene);
    fs::create_dir_all(&notes).unwrap();
    let hooks: BTreeMap<_, _> = hooks.iter().cloned().collect();
    scene.bundle("c", &["sh", "-c", process]).edit(|spec| {
        spec["annotations"] = json!({ "io.nexcage.backend": backend, "of": "the test" });
        spec["hooks"] = json!(hooks);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/var", "type": "bind", "source": notes, "options": ["bind", "rw"],
        }));
    })
}

fn read(scene: &Scene, name: &str) -> String {
    fs::read_to_string(notes(scene).join(name)).unwrap_or_default()
}

/// Nothing of the container is there any more.
async fn assert_nothing_is_left(scene: &Scene, when: &str) {
    node::no_guests(scene).await;
    assert!(scene.mounts().is_empty(), "{when}: {:?}", scene.mounts());
    assert!(scene.cgroups().is_empty(), "{when}: {:?}", scene.cgroups());
    for place in ["/run/nexcage", "/run/lxc/run/nexcage", "/run/lxc/lock/run/nexcage"] {
        let place = Path::new(place).join(&scene.namespace).join("c");
        assert!(!place.exists(), "{when}: {} is there", place.display());
    }
}

/// What the hooks of one whole life noted: each kind's state and the rest, without what differs
/// from container to container.
async fn life(backend: &str) -> Vec<String> {
    let scene = node::scene(backend);
    let hooks: Vec<_> = KINDS.map(|kind| (kind, vec![hook(&scene, kind, NOTE)])).into();
    let process = "echo > /var/begun; while [ ! -e /var/end ]; do sleep 0.02; done";
    let bundle = bundle(&scene, backend, process, &hooks);
    let task = scene.supervisor(&bundle).await;
    let pid = task.create(&bundle.create()).await.unwrap();
    assert_eq!(read(&scene, "order"), "prestart\ncreateRuntime\ncreateContainer\n", "{backend}");
    let guest = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let namespaces = ["mnt", "uts", "net", "ipc"].map(|name| {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        [(own, "the host's"), (guest(name), "the guest's")]
    });
    task.start("c", "").await.unwrap();
    proc::eventually("the process has begun", || notes(&scene).join("begun").exists()).await;
    let started = "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npoststart\n";
    let order = |wanted: &str, when: &str| {
        // crun does not wait for the one that runs inside before it runs those of poststart.
        let early = "poststart\nstartContainer\n";
        let order = read(&scene, "order");
        let order = if backend == "crun" {
            order.replace(early, "startContainer\npoststart\n")
        } else {
            order
        };
        assert_eq!(order, wanted, "{backend}{when}");
    };
    order(started, "");
    fs::write(notes(&scene).join("end"), "").unwrap();
    assert_eq!(task.wait("c", "").await.unwrap(), 0);
    order(started, ": before the delete");
    task.delete("c", "").await.unwrap();
    order(&format!("{started}poststop\n"), "");
    assert_nothing_is_left(&scene, backend).await;
    let namespaces: Vec<_> = namespaces.iter().flatten().collect();
    let bundle = bundle.path.to_string_lossy().into_owned();
    KINDS
        .map(|kind| {
            let state = read(&scene, &format!("{kind}.state"));
            let state: Value = serde_json::from_str(&state).unwrap();
            // crun 1.8 does not tell all of it in the container.
            if backend != "crun" {
                assert_eq!(state["id"], "c", "{kind}");
                assert_eq!(state["bundle"], *bundle, "{kind}");
                assert_eq!(state["annotations"]["of"], "the test", "{kind}");
                assert!(state["ociVersion"].is_string(), "{kind}");
                let known = if kind == "poststop" { Value::Null } else { pid.into() };
                assert_eq!(state["pid"], known, "{kind}");
            }
            let links = read(&scene, &format!("{kind}.ns"));
            let mut whose: Vec<_> = links
                .lines()
                .map(|link| {
                    let of = namespaces.iter().find(|(known, _)| known.as_os_str() == link);
                    of.map_or("unknown", |(_, whose)| *whose)
                })
                .collect();
            whose.dedup();
            let said = read(&scene, &format!("{kind}.said"));
            assert!(said.starts_with("zero one two\n"), "{backend} {kind}: {said}");
            let early = !kind.starts_with("post");
            assert!(!early || said.ends_with("not yet\n"), "{backend} {kind}: {said}");
            format!("{kind}: {} in {}", state["status"].as_str().unwrap(), whose.join(" and "))
        })
        .into()
}

#[tokio::test]
async fn each_runs_at_its_moment_and_place_with_the_state_on_standard_input() {
    // Once for the moments, which are the same.
    life("crun").await;
    let expected = [
        "prestart: creating in the host's",
        "createRuntime: creating in the host's",
        "createContainer: creating in the guest's",
        "startContainer: created in the guest's",
        "poststart: running in the host's",
        "poststop: stopped in the host's",
    ];
    assert_eq!(life("lxc").await, expected);
    assert_eq!(life("pct").await, expected);
}

/// What a container one of whose hooks does `script` comes to: which call fails and with what
/// words, the hooks that ran, and whether the process began.
async fn failing(backend: &str, kind: &str, script: &str, timeout: u32) -> (String, String) {
    let scene = node::scene(backend);
    let mut hooks: BTreeMap<_, _> = KINDS.map(|kind| (kind, vec![hook(&scene, kind, NOTE)])).into();
    let mut first = hook(&scene, kind, &format!("echo {kind}-fails >> $OUT/order; {script}"));
    if timeout != 0 {
        first["timeout"] = timeout.into();
    }
    hooks.get_mut(kind).unwrap().insert(0, first);
    let hooks: Vec<_> = hooks.into_iter().collect();
    let bundle = bundle(&scene, backend, "echo > /var/begun; exec sleep 1000", &hooks);
    let task = scene.supervisor(&bundle).await;
    let created = task.create(&bundle.create()).await;
    let (call, error) = match created {
        Err(error) => {
            assert_nothing_is_left(&scene, &format!("{backend} {kind}")).await;
            ("create", format!("{error:?}"))
        }
        Ok(pid) => {
            let started = task.start("c", "").await;
            let (call, error) = match started {
                Err(error) => ("start", format!("{error:?}")),
                Ok(_) => {
                    proc::eventually("begun", || notes(&scene).join("begun").exists()).await;
                    task.kill("c", "", 9).await.unwrap();
                    ("neither", String::new())
                }
            };
            task.wait("c", "").await.unwrap();
            task.delete("c", "").await.unwrap();
            assert!(!proc::is_alive(pid), "{backend} {kind}");
            assert_nothing_is_left(&scene, &format!("{backend} {kind}")).await;
            (call, error)
        }
    };
    // By the time of a poststart hook it may have.
    let begun = kind != "poststart" && notes(&scene).join("begun").exists();
    let begun = if begun { ", begun" } else { "" };
    (format!("{call}: {}{begun}", read(&scene, "order").trim().replace('\n', " ")), error)
}

#[tokio::test]
async fn one_that_fails_undoes_the_container_and_says_why() {
    let mut before = String::new();
    for kind in KINDS {
        let script = "echo no such bridge >&2; exit 3";
        let [lxc, pct] =
            [failing("lxc", kind, script, 0).await, failing("pct", kind, script, 0).await];
        assert_eq!(lxc.0, pct.0);
        let errors = [lxc.1, pct.1];
        let lxc = lxc.0;
        let (call, after) = match kind {
            "startContainer" | "poststart" => ("start", " poststop"),
            "poststop" => ("neither", " poststop, begun"),
            _ => ("create", ""),
        };
        assert_eq!(lxc, format!("{call}: {before}{kind}-fails{after}"));
        if call != "neither" {
            for (word, error) in [kind, "/bin/sh", "status 3", "no such bridge"]
                .iter()
                .flat_map(|word| errors.iter().map(move |error| (word, error)))
            {
                assert!(error.contains(word), "{kind}: no {word:?} in {error}");
            }
        }
        // crun 1.8 keeps to itself what a hook of the start said; crun 1.28 does not.
        if call == "create" {
            assert_eq!(failing("crun", kind, "exit 3", 0).await.0, lxc);
        }
        before += &format!("{kind} ");
    }
}

#[tokio::test]
async fn one_that_hangs_is_killed_at_its_timeout() {
    for (kind, backend) in KINDS.map(|kind| [(kind, "lxc"), (kind, "pct")]).as_flattened() {
        let (kind, backend) = (*kind, *backend);
        let began = Instant::now();
        let (lxc, error) = failing(backend, kind, "sleep 1000", 1).await;
        let took = began.elapsed();
        assert!((1..5).contains(&took.as_secs()), "{kind} took {took:?}");
        if kind != "poststop" {
            assert!(error.contains(kind) && error.contains("1 s"), "{kind}: {error}");
            assert!(!lxc.contains("begun"), "{lxc}");
        }
    }
}

/// One that was told no limit ends with the Create that it holds up.
#[tokio::test]
async fn a_kill_ends_a_create_whose_hook_hangs() {
    for (kind, backend) in [
        ("prestart", "lxc"),
        ("createContainer", "lxc"),
        ("prestart", "pct"),
        ("createContainer", "pct"),
    ] {
        let scene = node::scene(backend);
        let slow = hook(&scene, kind, "echo > $OUT/hangs; exec sleep 1000");
        let bundle = bundle(&scene, backend, "true", &[(kind, vec![slow])]);
        let task = scene.supervisor(&bundle).await;
        let (other, request) = (task.clone(), bundle.create());
        let creating =
            tokio::spawn(async move { other.create(&CreateTaskRequest { ..request }).await });
        proc::eventually("the hook runs", || {
            assert!(!creating.is_finished(), "{kind}: the create does not wait for the hook");
            notes(&scene).join("hangs").exists()
        })
        .await;
        task.kill("c", "", 9).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), creating).await;
        let error = ended.expect("it hangs on").unwrap().unwrap_err();
        assert!(format!("{error:?}").contains("killed"), "{kind}: {error:?}");
        assert_nothing_is_left(&scene, kind).await;
    }
}

//! The `start` action: what it takes, what it answers, what it leaves behind and what not.

use crate::support::bundle::{field, runc_options, toml_options};
use crate::support::scene::kill;
use crate::support::start::Address;
use crate::support::{Bundle, Scene, Task, bed, proc};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, Extension};
use protobuf::{Message, MessageField};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const SLEEP: [&str; 2] = ["sleep", "1000"];

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

async fn shim_pid(task: &Task) -> u32 {
    task.hello("nobody").await.unwrap().shim_pid
}

/// The backend that a container got.
async fn backend(scene: &Scene, task: &Task, bundle: &Bundle) -> String {
    task.create(&bundle.create()).await.unwrap();
    let record = format!("/run/nexcage/{}/{}/state.json", scene.namespace, bundle.id);
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    record["io.nexcage"]["backend"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_reply_is_a_plain_address_and_the_socket_answers_at_once() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let reply = scene.start(&bundle).run();
    let address = reply.address();
    assert_eq!(String::from_utf8_lossy(&reply.stdout), address.address);
    let task = scene.connect(&address).await;
    assert!(proc::is_alive(shim_pid(&task).await));
    assert_eq!(fs::read_to_string(bundle.path.join("address")).unwrap(), address.address);
}

#[tokio::test]
async fn the_socket_is_for_root_alone() {
    let scene = Scene::new();
    let address = scene.start(&scene.bundle("web", &SLEEP)).run().address();
    scene.connect(&address).await;
    let socket = address.socket();
    assert_eq!(mode(socket), 0o600);
    assert_eq!(mode(socket.parent().unwrap()), 0o700);
    assert_eq!(socket.parent().unwrap(), Path::new("/run/containerd/s"));
    assert!(socket.as_os_str().len() <= 106);
}

#[tokio::test]
async fn a_second_start_of_the_same_id_finds_the_first_supervisor() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let first = scene.start(&bundle).run().address();
    let task = scene.connect(&first).await;
    assert_eq!(scene.start(&bundle).run().address(), first);
    let again = scene.connect(&first).await;
    assert_eq!(shim_pid(&again).await, shim_pid(&task).await);
    let other = scene.start(&scene.bundle("other", &SLEEP)).run().address();
    scene.connect(&other).await;
    assert_ne!(other, first);
}

#[tokio::test]
async fn the_socket_of_a_dead_supervisor_is_replaced() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let address = scene.start(&bundle).run().address();
    let dead = shim_pid(&scene.connect(&address).await).await;
    kill(dead);
    proc::eventually("it is dead", || !proc::is_alive(dead)).await;
    assert!(address.socket().exists());
    assert_eq!(scene.start(&bundle).run().address(), address);
    assert_ne!(shim_pid(&scene.connect(&address).await).await, dead);
}

#[tokio::test]
async fn starts_at_the_same_moment_leave_one_supervisor() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let start = scene.start(&bundle);
            tokio::task::spawn_blocking(move || start.run().address())
        })
        .collect();
    let mut pids = Vec::new();
    for start in starts {
        pids.push(shim_pid(&scene.connect(&start.await.unwrap()).await).await);
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "{pids:?}");
}

#[tokio::test]
async fn the_supervisor_keeps_nothing_of_its_callers() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.running(&bundle).await;
    let shim = shim_pid(&task).await;
    // That `run` has returned tells already that nobody holds its stdout and stderr.
    for (fd, target) in [0, 1, 2].map(|fd| (fd, fs::read_link(format!("/proc/{shim}/fd/{fd}")))) {
        assert_eq!(target.unwrap(), Path::new("/dev/null"), "fd {fd}");
    }
    let pipes: Vec<_> = proc::fd_targets(shim)
        .into_iter()
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .collect();
    assert!(pipes.is_empty(), "{pipes:?}");
    // A working folder in the bundle would keep its file system busy.
    assert_eq!(fs::read_link(format!("/proc/{shim}/cwd")).unwrap(), Path::new("/"));
    let stat = fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
    let session: u32 =
        stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
    assert_ne!(session, std::process::id());
    let group: u32 = stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap().parse().unwrap();
    assert_eq!(group, session);
}

#[tokio::test]
async fn when_memory_is_short_the_supervisor_goes_before_containerd() {
    let scene = Scene::new();
    let task = scene.supervisor(&scene.bundle("web", &SLEEP)).await;
    let score = |pid: u32| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    assert_eq!(score(shim_pid(&task).await), score(std::process::id()) + 1);
}

#[tokio::test]
async fn containers_do_not_inherit_the_supervisors_oom_score() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP).edit(|spec| {
        spec["process"]["oomScoreAdj"] = 500.into();
    });
    let task = scene.running(&bundle).await;
    let pid = task.hello("web").await.unwrap().task_pid;
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score, "500\n");
}

#[tokio::test]
async fn empty_stdin_means_no_options() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    assert_eq!(backend(&scene, &task, &bundle).await, "crun");
}

#[tokio::test]
async fn a_toml_body_in_a_bare_any_chooses_the_runtime() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let body = format!(
        "default_container_type = \"runc\"\nrunc = {{ path = \"{}\" }}\n",
        bed::runc().display()
    );
    let any = toml_options(&body).write_to_bytes().unwrap();
    let address = scene.start(&bundle).stdin(any).run().address();
    let task = scene.connect(&address).await;
    assert_eq!(backend(&scene, &task, &bundle).await, "runc");
}

#[tokio::test]
async fn a_config_path_in_a_bare_any_is_read() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let file = scene.folder().join("config.json");
    let text = serde_json::json!({
        "default_container_type": "runc", "runc": { "path": bed::runc() },
    });
    fs::write(&file, text.to_string()).unwrap();
    let mut any = toml_options("");
    any.value = field(2, file.to_str().unwrap().as_bytes());
    let address = scene.start(&bundle).stdin(any.write_to_bytes().unwrap()).run().address();
    let task = scene.connect(&address).await;
    assert_eq!(backend(&scene, &task, &bundle).await, "runc");
    fs::remove_file(&file).unwrap();
    let other = scene.bundle("other", &SLEEP);
    let reply = scene.start(&other).stdin(any.write_to_bytes().unwrap()).run();
    assert!(reply.refusal().contains("config.json"), "{reply:?}");
}

#[tokio::test]
async fn runc_options_in_a_bare_any_choose_the_runtime() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let any = runc_options(&bed::runc()).write_to_bytes().unwrap();
    let address = scene.start(&bundle).stdin(any).run().address();
    let task = scene.connect(&address).await;
    assert_eq!(backend(&scene, &task, &bundle).await, "runc");
}

#[tokio::test]
async fn options_of_a_create_win_over_those_of_the_start() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let any = runc_options(&bed::runc()).write_to_bytes().unwrap();
    let address = scene.start(&bundle).stdin(any).run().address();
    let task = scene.connect(&address).await;
    let mut create = bundle.create();
    create.options = MessageField::some(runc_options(&bed::crun()));
    task.create(&create).await.unwrap();
    let record = format!("/run/nexcage/{}/web/state.json", scene.namespace);
    assert!(fs::read_to_string(record).unwrap().contains("\"crun\""));
}

#[tokio::test]
async fn bootstrap_parameters_carry_options_addresses_and_the_folder_of_the_socket() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["true"]);
    let dir = scene.folder().join("s");
    let params = BootstrapParams {
        instance_id: "web".to_owned(),
        namespace: scene.namespace.clone(),
        containerd_version: "2.4.0".to_owned(),
        containerd_ttrpc_address: scene.events.socket().to_string_lossy().into_owned(),
        containerd_grpc_address: "/run/containerd/other.sock".to_owned(),
        containerd_binary: "/usr/bin/containerd".to_owned(),
        extensions: vec![
            Extension {
                value: MessageField::some(protobuf::well_known_types::any::Any {
                    type_url: "something.Else".to_owned(),
                    ..Default::default()
                }),
                ..Extension::default()
            },
            Extension {
                value: MessageField::some(runc_options(&bed::runc())),
                ..Extension::default()
            },
        ],
        socket_dir: Some(dir.to_string_lossy().into_owned()),
        ..BootstrapParams::default()
    };
    let mut start = scene.start(&bundle).params(&params);
    // containerd 2.3 says it on stdin and nowhere else.
    start.env.retain(|(name, _)| name != "TTRPC_ADDRESS");
    let address = start.run().address();
    let task = scene.connect(&address).await;
    assert_eq!(address.socket().parent().unwrap(), dir);
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(backend(&scene, &task, &bundle).await, "runc");
    task.start("web", "").await.unwrap();
    scene.events.line("exit web 0").await;
}

#[tokio::test]
async fn a_socket_folder_that_makes_the_path_too_long_is_refused() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let params = BootstrapParams {
        instance_id: "web".to_owned(),
        namespace: scene.namespace.clone(),
        socket_dir: Some(scene.folder().join("s".repeat(60)).to_string_lossy().into_owned()),
        ..BootstrapParams::default()
    };
    let reply = scene.start(&bundle).params(&params).run();
    assert!(reply.refusal().contains("socket_dir"), "{reply:?}");
}

#[tokio::test]
async fn parameters_of_another_container_are_refused() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let params = BootstrapParams {
        instance_id: "db".to_owned(),
        namespace: scene.namespace.clone(),
        containerd_version: "2.4.0".to_owned(),
        ..BootstrapParams::default()
    };
    let reply = scene.start(&bundle).params(&params).run();
    assert!(reply.refusal().contains("db"), "{reply:?}");
}

#[tokio::test]
async fn garbage_on_stdin_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let text = b"this is no message".to_vec();
    let wrong_type = field(1, b"kata.v1.Options");
    let bad_toml = toml_options("= = =").write_to_bytes().unwrap();
    let unknown_key = toml_options("nonsense = 1").write_to_bytes().unwrap();
    for stdin in [vec![0xff; 100], text, wrong_type, bad_toml, unknown_key] {
        let reply = scene.start(&bundle).stdin(stdin).run();
        let line = reply.refusal();
        assert!(line.starts_with("containerd-shim-nexcage-v1: "), "{line}");
    }
    assert!(!bundle.path.join("address").exists());
}

#[tokio::test]
async fn eleven_megabytes_on_stdin_are_refused() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let reply = scene.start(&bundle).stdin(vec![b'x'; 11 << 20]).run();
    assert!(reply.refusal().contains("10 MiB"), "{reply:?}");
}

#[tokio::test]
async fn hostile_ids_and_namespaces_are_refused_before_anything_is_made() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let long = "a".repeat(4096);
    for id in ["..", "../x", "a/b", ".hidden", "a b", "a\nb", "ü", &long] {
        for flag in ["-id", "-namespace"] {
            let mut start = scene.start(&bundle);
            let at = start.words.iter().position(|word| word == flag).unwrap();
            start.words[at + 1] = id.into();
            let reply = start.run();
            reply.refusal();
        }
    }
    assert!(!bundle.path.join("address").exists());
}

#[tokio::test]
async fn flags_that_are_missing_or_unknown_are_named() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let mut start = scene.start(&bundle);
    start.words = vec!["-namespace".into(), "x".into(), "start".into()];
    assert!(start.run().refusal().contains("-id"));
    let start = scene.start(&bundle).flag("-nonsense");
    assert!(start.run().refusal().contains("\"nonsense\""));
    let start = scene.start(&bundle).action("restart");
    assert!(start.run().refusal().contains("restart"));
}

#[tokio::test]
async fn a_bundle_that_cannot_be_written_fails_the_start_and_leaves_no_supervisor() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    // A folder where the file has to go.
    fs::create_dir(bundle.path.join("address")).unwrap();
    let reply = scene.start(&bundle).run();
    assert!(reply.refusal().contains("address"), "{reply:?}");
    fs::remove_dir(bundle.path.join("address")).unwrap();
    let sockets = fs::read_dir("/run/containerd/s").map_or(0, Iterator::count);
    let address = scene.start(&bundle).run().address();
    scene.connect(&address).await;
    // The one of this start, and no second from the one that failed.
    let now = fs::read_dir("/run/containerd/s").map_or(0, Iterator::count);
    assert!(now <= sockets + 1);
}

#[tokio::test]
async fn the_address_is_read_as_every_containerd_reads_it() {
    // What the client of these tests takes for granted.
    let plain = Address::parse(b"unix:///run/containerd/s/x\n");
    assert_eq!((plain.address.as_str(), plain.version), ("unix:///run/containerd/s/x", 2));
    let json = Address::parse(br#"{"version":3,"address":"unix:///x","protocol":"ttrpc"}"#);
    assert_eq!((json.address.as_str(), json.version), ("unix:///x", 3));
}

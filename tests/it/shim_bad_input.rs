//! Bad input: each a clear error with the right code, nothing left of it, and the supervisor lives.

use crate::support::fifo::{self, Stdio};
use crate::support::task::Refused;
use crate::support::{Bundle, Scene, Task, proc};
use containerd_shim_protos::api::CreateTaskRequest;
use std::fs;
use std::os::unix::fs::symlink;
use ttrpc::Code;

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// A supervisor that has to live through it.
struct Survivor {
    scene: Scene,
    task: Task,
    shim: u32,
}

impl Survivor {
    async fn new() -> Self {
        let scene = Scene::new();
        let bundle = scene.bundle("good", &SLEEP);
        let task = scene.running(&bundle).await;
        let shim = task.hello("good").await.unwrap().shim_pid;
        Self { scene, task, shim }
    }

    /// A Create that must be refused, with this code; returns the text.
    async fn refuses(&self, create: &CreateTaskRequest, code: Code) -> String {
        let cgroups = self.scene.cgroups();
        let text = self.task.create(create).await.refused(code);
        assert!(text.len() < 4096, "{} bytes of text", text.len());
        assert!(proc::is_alive(self.shim));
        self.task.state("good", "").await.unwrap();
        assert!(self.scene.mounts().is_empty(), "{:?}", self.scene.mounts());
        assert_eq!(self.scene.cgroups(), cgroups);
        let left: Vec<_> = fs::read_dir(format!("/run/nexcage/{}", self.scene.namespace))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.') && name != "good")
            .collect();
        assert!(left.is_empty(), "{left:?}");
        text
    }
}

#[tokio::test]
async fn hostile_ids() {
    let survivor = Survivor::new().await;
    let (scene, task) = (&survivor.scene, &survivor.task);
    let bundle = scene.bundle("bad", &SLEEP);
    let long = "a".repeat(1 << 20);
    for id in
        ["", ".", "..", "../x", "/etc", "a/b", "-f", "--help", "a b", "a\nb", "a\0b", "ü", &long]
    {
        let mut create = bundle.create();
        create.id = id.to_owned();
        survivor.refuses(&create, Code::INVALID_ARGUMENT).await;
        task.state(id, "").await.refused(Code::INVALID_ARGUMENT);
        task.delete(id, "").await.refused(Code::INVALID_ARGUMENT);
        if !id.is_empty() {
            task.state("good", id).await.refused(Code::INVALID_ARGUMENT);
            task.start("good", id).await.refused(Code::INVALID_ARGUMENT);
        }
        let mut exec = bundle.exec(id, &["true"]);
        exec.id = "good".to_owned();
        task.exec(&exec).await.refused(Code::INVALID_ARGUMENT);
    }
}

#[tokio::test]
async fn bundles_that_are_not_there_or_not_absolute() {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP);
    for path in ["", "relative", "../b"] {
        let mut create = bundle.create();
        create.bundle = path.to_owned();
        survivor.refuses(&create, Code::INVALID_ARGUMENT).await;
    }
    for path in ["/no/such/bundle", "/dev/null", "/proc/self/environ"] {
        let mut create = bundle.create();
        create.bundle = path.to_owned();
        assert!(survivor.task.create(&create).await.is_err());
        survivor.task.state("bad", "").await.refused(Code::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_bundle_without_config_json() {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP);
    fs::remove_file(bundle.path.join("config.json")).unwrap();
    let error = survivor.task.create(&bundle.create()).await.unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
    survivor.task.state("bad", "").await.refused(Code::NOT_FOUND);
}

async fn refuses_config(config: &[u8]) -> String {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP);
    fs::write(bundle.path.join("config.json"), config).unwrap();
    let text = survivor.refuses(&bundle.create(), Code::INVALID_ARGUMENT).await;
    assert!(text.contains("config.json"), "{text}");
    text
}

#[tokio::test]
async fn a_config_json_that_is_truncated_anywhere() {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP);
    let whole = bundle.spec.to_string();
    for part in 0..20 {
        let cut = &whole[..whole.len() * part / 20];
        fs::write(bundle.path.join("config.json"), cut).unwrap();
        survivor.refuses(&bundle.create(), Code::INVALID_ARGUMENT).await;
    }
}

#[tokio::test]
async fn a_config_json_of_a_hundred_megabytes() {
    let spaces = " ".repeat(100 << 20);
    let config = format!("{{\"ociVersion\":\"1.0.2\",{spaces}\"root\":{{\"path\":\"rootfs\"}}}}");
    refuses_config(config.as_bytes()).await;
}

#[tokio::test]
async fn a_config_json_of_a_hundred_megabytes_does_not_grow_the_supervisor() {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP);
    fs::write(bundle.path.join("config.json"), vec![b' '; 100 << 20]).unwrap();
    survivor.refuses(&bundle.create(), Code::INVALID_ARGUMENT).await;
    let peak = proc::number(survivor.shim, "status", "VmHWM:");
    assert!(peak < 20 << 10, "{peak} kB");
}

#[tokio::test]
async fn a_config_json_nested_ten_thousand_deep() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    refuses_config(format!("{{\"ociVersion\":\"1.0.2\",\"annotations\":{deep}}}").as_bytes()).await;
}

#[tokio::test]
async fn a_config_json_that_is_no_text() {
    refuses_config(&[0xff; 1000]).await;
}

#[tokio::test]
async fn a_config_json_with_wrong_types() {
    let survivor = Survivor::new().await;
    for (pointer, value) in [
        ("/ociVersion", serde_json::json!(7)),
        ("/root", serde_json::json!([])),
        ("/root/path", serde_json::json!(7)),
        ("/linux", serde_json::json!("x")),
        ("/linux/namespaces", serde_json::json!({})),
        ("/linux/cgroupsPath", serde_json::json!(7)),
        ("/process", serde_json::json!([])),
    ] {
        let bundle = survivor
            .scene
            .bundle("bad", &SLEEP)
            .edit(|spec| *spec.pointer_mut(pointer).unwrap() = value);
        let error = survivor.task.create(&bundle.create()).await.unwrap_err();
        assert!(!error.to_string().contains('\n'), "{pointer}: {error}");
        survivor.task.state("bad", "").await.refused(Code::NOT_FOUND);
        assert!(proc::is_alive(survivor.shim));
        fs::remove_dir_all(&bundle.path).unwrap();
    }
}

#[tokio::test]
async fn an_oci_version_that_nobody_knows() {
    let survivor = Survivor::new().await;
    for version in ["", "0.9.0", "2.0.0", "garbage", "1", "1.x", "1.0.2\n"] {
        let bundle =
            survivor.scene.bundle("bad", &SLEEP).edit(|spec| spec["ociVersion"] = version.into());
        let error = survivor.task.create(&bundle.create()).await.unwrap_err();
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains("ersion"), "{version:?}: {text}");
        survivor.task.state("bad", "").await.refused(Code::NOT_FOUND);
        fs::remove_dir_all(&bundle.path).unwrap();
    }
}

#[tokio::test]
async fn an_oci_version_that_this_crun_is_too_old_for_says_what_to_do() {
    let survivor = Survivor::new().await;
    let bundle =
        survivor.scene.bundle("bad", &SLEEP).edit(|spec| spec["ociVersion"] = "1.2.1".into());
    let text = survivor.task.create(&bundle.create()).await.unwrap_err().to_string();
    for word in ["1.2.1", "1.8.1", "crun", "runc"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[tokio::test]
async fn fifos_that_are_missing_or_something_else() {
    let survivor = Survivor::new().await;
    let scene = &survivor.scene;
    let bundle = scene.bundle("bad", &SLEEP);
    let file = scene.folder().join("file");
    fs::write(&file, "kept").unwrap();
    let folder = scene.folder().join("folder");
    fs::create_dir(&folder).unwrap();
    let link = scene.folder().join("loop");
    symlink(&link, &link).unwrap();
    let missing = fifo::missing(scene.folder(), "missing");
    for path in [file.clone(), folder, link, missing, "/dev/null".into(), "/dev/zero".into()] {
        let path = path.to_string_lossy().into_owned();
        let streams: [fn(&mut CreateTaskRequest) -> &mut String; 3] =
            [|create| &mut create.stdin, |create| &mut create.stdout, |create| &mut create.stderr];
        for stream in streams {
            let mut create = bundle.create();
            *stream(&mut create) = path.clone();
            let text = survivor.refuses(&create, Code::INVALID_ARGUMENT).await;
            assert!(text.contains(&path), "{text}");
        }
        let mut exec = bundle.exec("e", &["true"]);
        (exec.id, exec.stdout) = ("good".to_owned(), path);
        survivor.task.exec(&exec).await.unwrap();
        survivor.task.start("good", "e").await.refused(Code::INVALID_ARGUMENT);
        survivor.task.delete("good", "e").await.unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

#[tokio::test]
async fn uris_that_nobody_knows() {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP);
    for uri in ["http://x", "binary://", "binary:///no/such/logger", "file://relative", "x://"] {
        let mut create = bundle.create();
        create.stdout = uri.to_owned();
        let error = survivor.task.create(&create).await.unwrap_err().to_string();
        assert!(!error.contains('\n'), "{uri}: {error}");
        survivor.task.state("bad", "").await.refused(Code::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_rootfs_that_is_missing_or_a_link() {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP).on_mounts();
    let rootfs = bundle.path.join("rootfs");
    fs::remove_dir(&rootfs).unwrap();
    // Without mounts nobody makes it.
    let text = survivor.refuses(&bundle.create(), Code::INVALID_ARGUMENT).await;
    assert!(text.contains("rootfs"), "{text}");
    // A mount must not go where a link leads.
    let elsewhere = survivor.scene.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &rootfs).unwrap();
    let mut create = bundle.create();
    create.rootfs = vec![Bundle::bind_mount()];
    let text = survivor.refuses(&create, Code::INVALID_ARGUMENT).await;
    assert!(text.contains("rootfs"), "{text}");
    fs::remove_file(&rootfs).unwrap();
    fs::write(&rootfs, "").unwrap();
    survivor.refuses(&create, Code::INVALID_ARGUMENT).await;
}

#[tokio::test]
async fn mounts_that_cannot_be_made_are_undone() {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP).on_mounts();
    let mut broken = Bundle::bind_mount();
    broken.source = "/no/such/source".to_owned();
    let mut strange = Bundle::bind_mount();
    strange.type_ = "no-such-type".to_owned();
    strange.options = Vec::new();
    let mut outside = Bundle::bind_mount();
    outside.target = "../../outside".to_owned();
    for bad in [broken, strange, outside] {
        let mut create = bundle.create();
        create.rootfs = vec![Bundle::bind_mount(), bad.clone()];
        assert!(survivor.task.create(&create).await.is_err(), "made: {bad:?}");
        assert!(survivor.scene.mounts().is_empty(), "{:?}", survivor.scene.mounts());
        survivor.task.state("bad", "").await.refused(Code::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_message_that_is_garbage_or_huge_does_not_end_the_supervisor() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let survivor = Survivor::new().await;
    let socket = fs::read_to_string(survivor.scene.folder().join("b/good/address")).unwrap();
    let socket = socket.trim_start_matches("unix://").to_owned();
    let header = |length: u32, stream: u32, kind: u8| {
        [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0]].concat()
    };
    for bytes in [
        vec![0xff; 4096],
        header(u32::MAX, 1, 1),
        header(100, 1, 1),
        [header(3, 1, 1), vec![0xff; 3]].concat(),
        [header(0, 0, 9), header(0, 2, 1)].concat(),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        drop(stream.read(&mut [0; 4096]));
    }
    survivor.task.state("good", "").await.unwrap();
    assert!(proc::number(survivor.shim, "status", "VmHWM:") < 20 << 10);
}

#[tokio::test]
async fn stdio_of_a_terminal_that_is_refused_leaves_nothing_open() {
    let survivor = Survivor::new().await;
    let bundle = survivor.scene.bundle("bad", &SLEEP).with_terminal();
    let stdio = Stdio::new(survivor.scene.folder(), "bad");
    let before = proc::fds(survivor.shim);
    for _ in 0..10 {
        let mut create = bundle.create();
        create.terminal = true;
        (create.stdin, create.stdout) = (stdio.stdin.clone(), "/no/such/fifo".to_owned());
        survivor.refuses(&create, Code::INVALID_ARGUMENT).await;
    }
    assert_eq!(proc::fds(survivor.shim), before);
}

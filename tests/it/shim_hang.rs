//! A runtime that hangs: what only reads answers all the same, and SIGKILL ends it.

use crate::support::bundle::toml_options;
use crate::support::task::Refused;
use crate::support::{Bundle, Scene, Task, bed, proc};
use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::types::task::Status;
use protobuf::MessageField;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use ttrpc::Code;

const SLEEP: [&str; 2] = ["sleep", "1000"];

/// crun, except that a command hangs, or does something else, when it was told to.
struct Fake {
    folder: PathBuf,
}

impl Fake {
    fn new(scene: &Scene) -> Self {
        let folder = scene.folder().join("fake");
        fs::create_dir(&folder).unwrap();
        let script = format!(
            "#!/bin/sh\n\
             for word; do\n\
             if [ -e '{0}/'\"do-$word\" ]; then touch '{0}/done'; . '{0}/'\"do-$word\"; fi\n\
             done\n\
             exec '{1}' \"$@\"\n",
            folder.display(),
            bed::crun().display()
        );
        let program = folder.join("crun");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// Makes a command do this instead.
    fn make(&self, command: &str, script: &str) {
        drop(fs::remove_file(self.folder.join("done")));
        fs::write(self.folder.join(format!("do-{command}")), script).unwrap();
    }

    fn hang(&self, command: &str) {
        self.make(command, "exec sleep 1000");
    }

    fn mend(&self, command: &str) {
        fs::remove_file(self.folder.join(format!("do-{command}"))).unwrap();
    }

    async fn hangs(&self) {
        proc::eventually("the runtime hangs", || self.folder.join("done").exists()).await;
    }

    fn create(&self, bundle: &Bundle) -> CreateTaskRequest {
        let program = self.folder.join("crun");
        let mut create = bundle.create();
        let body = format!("crun = {{ path = \"{}\" }}", program.display());
        create.options = MessageField::some(toml_options(&body));
        create
    }
}

/// What only reads must answer within containerd's 2 s; here it has to be at once.
async fn reads_answer(task: &Task, shim: u32) {
    let began = Instant::now();
    task.state("web", "").await.unwrap();
    task.pids("web").await.unwrap();
    assert_eq!(task.hello("web").await.unwrap().shim_pid, shim);
    task.state("nobody", "").await.refused(Code::NOT_FOUND);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

async fn no_children(shim: u32) {
    proc::eventually("the runtime is gone", || proc::children(shim).is_empty()).await;
}

#[tokio::test]
async fn while_create_hangs_reads_answer_and_sigkill_ends_it() {
    let scene = Scene::new();
    let fake = Fake::new(&scene);
    let bundle = scene.bundle("web", &SLEEP).on_mounts();
    let task = scene.supervisor(&bundle).await;
    let shim = task.hello("web").await.unwrap().shim_pid;
    fake.hang("create");
    let mut request = fake.create(&bundle);
    request.rootfs = vec![Bundle::bind_mount()];
    let (calling, call) = (task.clone(), request.clone());
    let creating = tokio::spawn(async move { calling.create(&call).await });
    fake.hangs().await;
    reads_answer(&task, shim).await;
    assert_eq!(task.state("web", "").await.unwrap().status.unwrap(), Status::CREATED);
    // Others are not held up.
    let other = scene.bundle("other", &["sh", "-c", "exit 2"]);
    task.create(&other.create()).await.unwrap();
    task.start("other", "").await.unwrap();
    assert_eq!(task.wait("other", "").await.unwrap(), 2);
    task.delete("other", "").await.unwrap();
    task.create(&request).await.refused(Code::ALREADY_EXISTS);
    task.kill("web", "", 15).await.refused(Code::FAILED_PRECONDITION);

    let began = Instant::now();
    task.kill("web", "", 9).await.unwrap();
    creating.await.unwrap().unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    no_children(shim).await;
    assert!(scene.mounts().is_empty() && scene.cgroups().is_empty());
    task.state("web", "").await.refused(Code::NOT_FOUND);
    fake.mend("create");
    task.create(&request).await.unwrap();
}

#[tokio::test]
async fn a_delete_ends_a_create_that_hangs() {
    let scene = Scene::new();
    let fake = Fake::new(&scene);
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    fake.hang("create");
    let (calling, call) = (task.clone(), fake.create(&bundle));
    let creating = tokio::spawn(async move { calling.create(&call).await });
    fake.hangs().await;
    // Whatever it answers: the container is gone afterwards.
    drop(task.delete("web", "").await);
    creating.await.unwrap().unwrap_err();
    task.state("web", "").await.refused(Code::NOT_FOUND);
    assert!(scene.cgroups().is_empty());
}

#[tokio::test]
async fn while_start_hangs_reads_answer_and_sigkill_ends_it() {
    let scene = Scene::new();
    let fake = Fake::new(&scene);
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    let shim = task.hello("web").await.unwrap().shim_pid;
    let pid = task.create(&fake.create(&bundle)).await.unwrap();
    fake.hang("start");
    let calling = task.clone();
    let starting = tokio::spawn(async move { calling.start("web", "").await });
    fake.hangs().await;
    reads_answer(&task, shim).await;
    assert_eq!(task.pids("web").await.unwrap().processes[0].pid, pid);
    let began = Instant::now();
    task.kill("web", "", 9).await.unwrap();
    starting.await.unwrap().unwrap_err();
    assert_eq!(task.wait("web", "").await.unwrap(), 137);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    fake.mend("start");
    assert_eq!(task.delete("web", "").await.unwrap().exit_status, 137);
    no_children(shim).await;
    assert!(scene.cgroups().is_empty());
}

#[tokio::test]
async fn while_exec_hangs_reads_answer_and_sigkill_ends_it() {
    let scene = Scene::new();
    let fake = Fake::new(&scene);
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    let shim = task.hello("web").await.unwrap().shim_pid;
    task.create(&fake.create(&bundle)).await.unwrap();
    task.start("web", "").await.unwrap();
    fake.hang("exec");
    task.exec(&bundle.exec("e", &["true"])).await.unwrap();
    let calling = task.clone();
    let starting = tokio::spawn(async move { calling.start("web", "e").await });
    fake.hangs().await;
    reads_answer(&task, shim).await;
    task.state("web", "e").await.unwrap();
    // The container itself is not held up.
    task.pause("web").await.unwrap();
    task.resume("web").await.unwrap();
    let began = Instant::now();
    task.kill("web", "e", 9).await.unwrap();
    starting.await.unwrap().unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    task.wait("web", "e").await.unwrap();
    task.delete("web", "e").await.unwrap();
    fake.mend("exec");
    task.exec(&bundle.exec("e", &["sh", "-c", "exit 3"])).await.unwrap();
    task.start("web", "e").await.unwrap();
    assert_eq!(task.wait("web", "e").await.unwrap(), 3);
}

#[tokio::test]
async fn a_container_that_is_killed_ends_the_exec_that_hangs_in_it() {
    let scene = Scene::new();
    let fake = Fake::new(&scene);
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    task.create(&fake.create(&bundle)).await.unwrap();
    task.start("web", "").await.unwrap();
    fake.hang("exec");
    task.exec(&bundle.exec("e", &["true"])).await.unwrap();
    let calling = task.clone();
    let starting = tokio::spawn(async move { calling.start("web", "e").await });
    fake.hangs().await;
    task.kill("web", "", 9).await.unwrap();
    starting.await.unwrap().unwrap_err();
    assert_eq!(task.wait("web", "").await.unwrap(), 137);
    task.delete("web", "").await.unwrap();
    assert!(scene.cgroups().is_empty());
}

#[tokio::test]
async fn while_delete_hangs_reads_answer_and_it_is_given_up_and_can_be_asked_again() {
    let scene = Scene::new();
    let fake = Fake::new(&scene);
    let bundle = scene.bundle("web", &["sh", "-c", "exit 1"]);
    let task = scene.supervisor(&bundle).await;
    let shim = task.hello("web").await.unwrap().shim_pid;
    task.create(&fake.create(&bundle)).await.unwrap();
    task.start("web", "").await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 1);
    fake.hang("delete");
    let calling = task.clone();
    let began = Instant::now();
    let deleting = tokio::spawn(async move { calling.delete("web", "").await });
    fake.hangs().await;
    reads_answer(&task, shim).await;
    let text = deleting.await.unwrap().refused(Code::DEADLINE_EXCEEDED);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(text.contains("delete"), "{text}");
    no_children(shim).await;
    fake.mend("delete");
    assert_eq!(task.delete("web", "").await.unwrap().exit_status, 1);
    assert!(scene.cgroups().is_empty());
}

#[tokio::test]
async fn a_runtime_that_fails_is_quoted() {
    let scene = Scene::new();
    let fake = Fake::new(&scene);
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    for (script, expected) in [
        (r#"echo '{"msg":"no luck today","level":"error"}' > "$4"; exit 3"#, "no luck today"),
        (r#"echo '{"msg":"no luck' > "$4"; exit 3"#, "create"),
        (r#"head -c 1000000 /dev/zero > "$4"; exit 3"#, "create"),
        ("echo 'no luck today' >&2; exit 3", "create"),
        ("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1", "create"),
        ("printf '\\377\\376\\n' >&2; exit 1", "create"),
        ("exit 1", "create"),
        ("kill -9 $$", "create"),
        ("exit 0", "create"),
    ] {
        fake.make("create", script);
        let error = task.create(&fake.create(&bundle)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{script}: {error}");
        assert!(!error.contains('\n') && error.len() < 8192, "{script}: {} bytes", error.len());
        task.state("web", "").await.refused(Code::NOT_FOUND);
    }
    fake.mend("create");
    task.create(&fake.create(&bundle)).await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_named() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    create.options = MessageField::some(toml_options("crun = { path = \"/no/such/crun\" }"));
    let error = task.create(&create).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/crun"), "{error}");
    task.create(&bundle.create()).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_that_hangs_does_not_swallow_the_containers_end() {
    let scene = Scene::new();
    let fake = Fake::new(&scene);
    let bundle = scene.bundle("web", &SLEEP);
    let task = scene.supervisor(&bundle).await;
    task.create(&fake.create(&bundle)).await.unwrap();
    task.start("web", "").await.unwrap();
    // containerd's client pauses before it asks.
    task.pause("web").await.unwrap();
    fake.hang("checkpoint");
    let calling = task.clone();
    let image = scene.folder().join("image").to_string_lossy().into_owned();
    let writing = tokio::spawn(async move { calling.checkpoint("web", &image).await });
    fake.hangs().await;
    task.kill("web", "", 9).await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 137);
    writing.await.unwrap().refused(Code::FAILED_PRECONDITION);
    assert_eq!(task.delete("web", "").await.unwrap().exit_status, 137);
}

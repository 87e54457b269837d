//! Standard streams, through everything that containerd can ask for.

use crate::support::fifo::{self, Reader, Stdio, write_line, writer};
use crate::support::task::Refused;
use crate::support::{Bundle, Scene, Task, proc};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use ttrpc::Code;

/// Makes and starts a container with these streams.
async fn running(scene: &Scene, bundle: &Bundle, streams: [&str; 3]) -> Task {
    let task = scene.supervisor(bundle).await;
    let mut create = bundle.create();
    [create.stdin, create.stdout, create.stderr] = streams.map(str::to_owned);
    create.terminal = bundle.spec["process"]["terminal"] == true;
    task.create(&create).await.unwrap();
    task.start(&bundle.id, "").await.unwrap();
    task
}

#[tokio::test]
async fn stdout_and_stderr_arrive_whole_and_apart_and_end() {
    let scene = Scene::new();
    let script =
        "echo out; echo err >&2; head -c 300000 /dev/zero | tr '\\0' x; echo; echo end >&2";
    let bundle = scene.bundle("web", &["sh", "-c", script]);
    let stdio = Stdio::new(scene.folder(), "web");
    let (out, err) = (Reader::open(&stdio.stdout), Reader::open(&stdio.stderr));
    let task = running(&scene, &bundle, [&stdio.stdin, &stdio.stdout, &stdio.stderr]).await;
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
    task.delete("web", "").await.unwrap();
    assert_eq!(out.end().await, format!("out\n{}\n", "x".repeat(300_000)));
    assert_eq!(err.end().await, "err\nend\n");
}

#[tokio::test]
async fn stdin_ends_at_close_io_and_not_before() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["cat"]);
    let stdio = Stdio::new(scene.folder(), "web");
    let out = Reader::open(&stdio.stdout);
    let task = running(&scene, &bundle, [&stdio.stdin, &stdio.stdout, &stdio.stderr]).await;
    let mut stdin = writer(&stdio.stdin);
    write_line(&mut stdin, "first");
    out.line("first\n").await;
    // One client goes and another comes.
    drop(stdin);
    let mut stdin = writer(&stdio.stdin);
    write_line(&mut stdin, "second");
    out.line("first\nsecond\n").await;
    write_line(&mut stdin, "last");
    drop(stdin);
    task.close_stdin("web", "").await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
    task.delete("web", "").await.unwrap();
    assert_eq!(out.end().await, "first\nsecond\nlast\n");
}

#[tokio::test]
async fn close_io_before_the_start_is_not_forgotten() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["cat"]);
    let stdio = Stdio::new(scene.folder(), "web");
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    create.stdin = stdio.stdin.clone();
    task.create(&create).await.unwrap();
    task.close_stdin("web", "").await.unwrap();
    task.start("web", "").await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
}

#[tokio::test]
async fn without_streams_a_process_reads_an_end_and_writes_into_nothing() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sh", "-c", "cat && echo out && echo err >&2"]);
    let task = running(&scene, &bundle, ["", "", ""]).await;
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
}

#[tokio::test]
async fn a_terminal_is_one_and_has_the_size_it_was_given() {
    let scene = Scene::new();
    let script = "tty; read x; stty size; read x; stty size; exit 3";
    let bundle = scene.bundle("web", &["sh", "-c", script]).with_terminal();
    let stdio = Stdio::new(scene.folder(), "web");
    let out = Reader::open(&stdio.stdout);
    let task = running(&scene, &bundle, [&stdio.stdin, &stdio.stdout, ""]).await;
    out.line("/dev/").await;
    let mut stdin = writer(&stdio.stdin);
    task.resize("web", "", (100, 40)).await.unwrap();
    write_line(&mut stdin, "");
    out.line("40 100").await;
    task.resize("web", "", (211, 53)).await.unwrap();
    write_line(&mut stdin, "");
    out.line("53 211").await;
    assert_eq!(task.wait("web", "").await.unwrap(), 3);
    task.delete("web", "").await.unwrap();
    out.end().await;
}

#[tokio::test]
async fn an_exec_with_a_terminal_is_one() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let task = scene.running(&bundle).await;
    let stdio = Stdio::new(scene.folder(), "e");
    let out = Reader::open(&stdio.stdout);
    let mut request = bundle.exec("e", &[]);
    let mut process = bundle.spec["process"].clone();
    process["args"] = serde_json::json!(["sh", "-c", "tty; read x; stty size; exit 4"]);
    process["terminal"] = true.into();
    request.spec.as_mut().unwrap().value = process.to_string().into_bytes();
    request.terminal = true;
    (request.stdin, request.stdout) = (stdio.stdin.clone(), stdio.stdout.clone());
    task.exec(&request).await.unwrap();
    task.start("web", "e").await.unwrap();
    out.line("/dev/").await;
    task.resize("web", "e", (120, 30)).await.unwrap();
    write_line(&mut writer(&stdio.stdin), "");
    out.line("30 120").await;
    assert_eq!(task.wait("web", "e").await.unwrap(), 4);
}

#[tokio::test]
async fn a_reader_that_went_away_does_not_hold_up_the_writer_and_one_that_comes_back_reads_on() {
    let scene = Scene::new();
    let script = "read x; head -c 1000000 /dev/zero; echo written >&2; read x; echo again; read x";
    let bundle = scene.bundle("web", &["sh", "-c", script]);
    let stdio = Stdio::new(scene.folder(), "web");
    let err = Reader::open(&stdio.stderr);
    let out = Reader::open(&stdio.stdout);
    let task = running(&scene, &bundle, [&stdio.stdin, &stdio.stdout, &stdio.stderr]).await;
    let mut stdin = writer(&stdio.stdin);
    drop(out);
    write_line(&mut stdin, "");
    err.line("written").await;
    // containerd is back.
    let out = Reader::open(&stdio.stdout);
    proc::eventually("what was left is read", || !out.text().is_empty()).await;
    write_line(&mut stdin, "");
    out.line("again\n").await;
    write_line(&mut stdin, "");
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
    task.delete("web", "").await.unwrap();
    out.end().await;
}

#[tokio::test]
async fn output_that_nobody_has_read_yet_is_there_when_the_reader_comes() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sh", "-c", "echo early; exit 2"]);
    let stdio = Stdio::new(scene.folder(), "web");
    let task = running(&scene, &bundle, ["", &stdio.stdout, &stdio.stderr]).await;
    assert_eq!(task.wait("web", "").await.unwrap(), 2);
    let out = Reader::open(&stdio.stdout);
    assert_eq!(out.end().await, "early\n");
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let scene = Scene::new();
    let script = "i=0; while [ $i -lt 2000 ]; do echo \"line $i of the output, which is long\"; \
                  i=$((i + 1)); done";
    let bundle = scene.bundle("web", &["sh", "-c", script]);
    let stdio = Stdio::new(scene.folder(), "web");
    // Open, and read only a while later.
    let held = fs::OpenOptions::new().read(true).write(true).open(&stdio.stdout).unwrap();
    let task = running(&scene, &bundle, ["", &stdio.stdout, ""]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let out = Reader::open(&stdio.stdout);
    out.line("line 1999 ").await;
    drop(held);
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
    task.delete("web", "").await.unwrap();
    let text = out.end().await;
    assert_eq!(text.lines().count(), 2000);
}

#[tokio::test]
async fn file_uris_are_appended_to_and_shared_by_both_streams() {
    let scene = Scene::new();
    let file = scene.folder().join("logs/deep/web.log");
    let uri = format!("file://{}", file.display());
    for round in 1..=2 {
        let id = format!("web-{round}");
        let script = format!("echo out {round}; echo err {round} >&2");
        let bundle = scene.bundle(&id, &["sh", "-c", &script]);
        let task = running(&scene, &bundle, ["", &uri, &uri]).await;
        assert_eq!(task.wait(&id, "").await.unwrap(), 0);
        task.delete(&id, "").await.unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "out 1\nerr 1\nout 2\nerr 2\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
}

/// A logger in shell, as nerdctl's behaves: streams at 3 and 4, ready at 5.
fn logger(scene: &Scene, ready: &str) -> PathBuf {
    let program = scene.folder().join("logger");
    let folder = scene.folder().display().to_string();
    let script = format!(
        "#!/bin/sh\n\
         env > {folder}/env\n\
         echo \"$@\" > {folder}/args\n\
         {ready}\n\
         cat <&3 > {folder}/out &\n\
         cat <&4 > {folder}/err &\n\
         wait\n\
         touch {folder}/logger-ended\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

async fn logs(scheme: &str, ready: &str) {
    let scene = Scene::new();
    let program = logger(&scene, ready);
    let uri = format!("{scheme}://{}?_INTERNAL=/x&b=2", program.display());
    let bundle = scene.bundle("web", &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    let task = running(&scene, &bundle, ["", &uri, &uri]).await;
    assert_eq!(task.wait("web", "").await.unwrap(), 3);
    task.delete("web", "").await.unwrap();
    let read = |name: &str| fs::read_to_string(scene.folder().join(name)).unwrap_or_default();
    proc::eventually("the logger ends", || scene.folder().join("logger-ended").exists()).await;
    assert_eq!((read("out").as_str(), read("err").as_str()), ("out\n", "err\n"));
    let env = read("env");
    assert!(env.contains("CONTAINER_ID=web\n"), "{env}");
    assert!(env.contains(&format!("CONTAINER_NAMESPACE={}\n", scene.namespace)), "{env}");
    let args = read("args");
    assert!(args.contains("_INTERNAL /x") && args.contains("b 2"), "{args}");
}

#[tokio::test]
async fn a_binary_logger_that_closes_its_ready_pipe_gets_both_streams() {
    logs("binary", "exec 5>&-").await;
}

#[tokio::test]
async fn a_binary_logger_that_writes_to_its_ready_pipe_gets_both_streams() {
    logs("binary", "echo >&5; exec 5>&-").await;
}

#[tokio::test]
async fn a_binary_v2_logger_that_writes_to_its_ready_pipe_gets_both_streams() {
    logs("binary-v2", "echo >&5; exec 5>&-").await;
}

#[tokio::test]
async fn a_binary_v2_logger_that_ends_without_a_word_fails_the_create() {
    let scene = Scene::new();
    let program = logger(&scene, "exit 1");
    let uri = format!("binary-v2://{}", program.display());
    let bundle = scene.bundle("web", &["true"]);
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    (create.stdout, create.stderr) = (uri.clone(), uri);
    let error = task.create(&create).await.unwrap_err().to_string();
    assert!(error.contains("logger"), "{error}");
    let shim = task.hello("web").await.unwrap().shim_pid;
    proc::eventually("nothing is left", || proc::children(shim).is_empty()).await;
    assert!(scene.cgroups().is_empty());
}

#[tokio::test]
async fn the_logger_goes_when_the_create_fails() {
    let scene = Scene::new();
    let program = logger(&scene, "echo >&5; exec 5>&-");
    let uri = format!("binary://{}", program.display());
    let bundle = scene.bundle("web", &["/no/such/program"]);
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    (create.stdout, create.stderr) = (uri.clone(), uri);
    if task.create(&create).await.is_ok() {
        task.start("web", "").await.unwrap_err();
        task.kill("web", "", 9).await.ok();
        task.delete("web", "").await.unwrap();
    }
    let shim = task.hello("web").await.unwrap().shim_pid;
    proc::eventually("the logger is gone", || proc::children(shim).is_empty()).await;
}

#[tokio::test]
async fn io_uid_and_io_gid_own_the_containers_streams() {
    let scene = Scene::new();
    let bundle = scene
        .bundle("web", &["stat", "-L", "-c", "%u:%g", "/proc/self/fd/1"])
        .edit(|spec| spec["process"]["user"] = serde_json::json!({ "uid": 1000, "gid": 1000 }));
    let stdio = Stdio::new(scene.folder(), "web");
    let out = Reader::open(&stdio.stdout);
    let task = scene.supervisor(&bundle).await;
    let mut create = bundle.create();
    create.stdout = stdio.stdout.clone();
    let options = crate::support::bundle::toml_options("IoUid = 1000\nIoGid = 1000");
    create.options = protobuf::MessageField::some(options);
    task.create(&create).await.unwrap();
    task.start("web", "").await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
    task.delete("web", "").await.unwrap();
    assert_eq!(out.end().await, "1000:1000\n");
}

#[tokio::test]
async fn a_delete_does_not_wait_for_ever_for_what_holds_the_output() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sh", "-c", "sleep 1000 & echo done"]).edit(|spec| {
        let kept = spec["linux"]["namespaces"].as_array_mut().unwrap();
        kept.retain(|namespace| namespace["type"] != "pid");
    });
    let stdio = Stdio::new(scene.folder(), "web");
    let out = Reader::open(&stdio.stdout);
    let task = running(&scene, &bundle, ["", &stdio.stdout, ""]).await;
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
    let began = std::time::Instant::now();
    task.delete("web", "").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(out.end().await, "done\n");
}

#[tokio::test]
async fn ten_megabytes_through_stdin_arrive_whole() {
    use std::io::Write;
    const SIZE: usize = 10 << 20;
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["wc", "-c"]);
    let stdio = Stdio::new(scene.folder(), "web");
    let out = Reader::open(&stdio.stdout);
    let task = running(&scene, &bundle, [&stdio.stdin, &stdio.stdout, ""]).await;
    let mut stdin = fs::OpenOptions::new().write(true).open(&stdio.stdin).unwrap();
    let writing = tokio::task::spawn_blocking(move || stdin.write_all(&vec![b'x'; SIZE]));
    writing.await.unwrap().unwrap();
    task.close_stdin("web", "").await.unwrap();
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
    task.delete("web", "").await.unwrap();
    assert_eq!(out.end().await.trim(), SIZE.to_string());
}

#[tokio::test]
async fn a_fifo_may_be_for_stdout_alone() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sh", "-c", "echo out; echo err >&2"]);
    let path = fifo::make(scene.folder(), "only");
    let out = Reader::open(&path);
    let task = running(&scene, &bundle, ["", &path, ""]).await;
    assert_eq!(task.wait("web", "").await.unwrap(), 0);
    assert_eq!(out.end().await, "out\n");
}

#[tokio::test]
async fn a_log_below_a_file_is_refused_and_leaves_nothing_mounted() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["true"]).on_mounts();
    let task = scene.supervisor(&bundle).await;
    let mut request = bundle.create();
    request.rootfs = vec![Bundle::bind_mount()];
    request.stdout = format!("file://{}/config.json/log", bundle.path.display());
    task.create(&request).await.refused(Code::INVALID_ARGUMENT);
    assert!(scene.mounts().is_empty(), "{:?}", scene.mounts());
    // The id is free again.
    request.stdout = String::new();
    task.create(&request).await.unwrap();
}

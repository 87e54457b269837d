//! The supervisor's log: containerd's format, and never a reason to wait.

use crate::support::scene::Scene;
use crate::support::{Task, proc};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Fills a FIFO to the last byte.
fn fill(path: &Path) {
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let mut file: File = OpenOptions::new().write(true).custom_flags(flags).open(path).unwrap();
    while file.write(&[b'\n'; 4096]).is_ok() {}
    while file.write(b"\n").is_ok() {}
}

async fn one_life(task: &Task, id: &str) {
    task.start(id, "").await.unwrap();
    task.kill(id, "", 9).await.unwrap();
    task.wait(id, "").await.unwrap();
    task.delete(id, "").await.unwrap();
}

/// The value of a key of a line of logfmt.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let at = line.find(&format!("{key}=")).unwrap_or_else(|| panic!("no {key} in {line}"));
    let rest = &line[at + key.len() + 1..];
    match rest.strip_prefix('"') {
        Some(rest) => rest.split('"').next().unwrap(),
        None => rest.split(' ').next().unwrap(),
    }
}

#[tokio::test]
async fn lines_have_containerds_format_and_debug_ones_need_the_flag() {
    let scene = Scene::new();
    for (id, flag, wanted) in [("quiet", "-debug=false", false), ("loud", "-debug", true)] {
        let bundle = scene.bundle(id, &["sleep", "1000"]);
        let address = scene.start(&bundle).flag(flag).run().address();
        let task = scene.connect(&address).await;
        task.create(&bundle.create()).await.unwrap();
        one_life(&task, id).await;
        let text = bundle.logged();
        assert_eq!(text.lines().any(|line| value(line, "level") == "debug"), wanted, "{text}");
        for line in text.lines() {
            assert!(line.starts_with("time=\""), "{line}");
            assert!(value(line, "time").ends_with('Z'), "{line}");
            assert!(
                ["debug", "info", "warning", "error"].contains(&value(line, "level")),
                "{line}"
            );
            assert!(!value(line, "msg").is_empty(), "{line}");
            assert_eq!(value(line, "namespace"), scene.namespace);
            assert_eq!(value(line, "id"), id);
        }
    }
}

#[tokio::test]
async fn a_log_that_is_full_and_unread_holds_up_nothing_and_the_loss_is_counted() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    let address = scene.start(&bundle).flag("-debug").run().address();
    let task = scene.connect(&address).await;
    fill(&bundle.path.join("log"));
    task.create(&bundle.create()).await.unwrap();
    one_life(&task, "web").await;
    // containerd reads again.
    bundle.logged();
    task.create(&bundle.create()).await.unwrap();
    proc::eventually("a line says how many were lost", || {
        bundle.logged().lines().any(|line| line.contains(" dropped="))
    })
    .await;
}

#[tokio::test]
async fn a_bundle_without_a_log_is_no_reason_to_fail() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["sleep", "1000"]);
    std::fs::remove_file(bundle.path.join("log")).unwrap();
    let task = scene.supervisor(&bundle).await;
    task.create(&bundle.create()).await.unwrap();
    one_life(&task, "web").await;
}

#[tokio::test]
async fn a_log_that_is_a_plain_file_or_a_link_is_not_written() {
    let scene = Scene::new();
    let target = scene.folder().join("target");
    std::fs::write(&target, "").unwrap();
    for id in ["file", "link"] {
        let bundle = scene.bundle(id, &["sleep", "1000"]);
        let log = bundle.path.join("log");
        std::fs::remove_file(&log).unwrap();
        match id {
            "file" => std::fs::write(&log, "").unwrap(),
            _ => std::os::unix::fs::symlink(&target, &log).unwrap(),
        }
        let address = scene.start(&bundle).flag("-debug").run().address();
        let task = scene.connect(&address).await;
        task.create(&bundle.create()).await.unwrap();
        one_life(&task, id).await;
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
    }
}

#[tokio::test]
async fn each_container_has_its_own_lines_in_its_own_bundle() {
    let scene = Scene::new();
    let first = scene.bundle("first", &["sleep", "1000"]);
    let second = scene.bundle("second", &["sleep", "1000"]);
    let address = scene.start(&first).flag("-debug").run().address();
    let task = scene.connect(&address).await;
    task.create(&first.create()).await.unwrap();
    first.logged();
    task.create(&second.create()).await.unwrap();
    one_life(&task, "second").await;
    // What is about the second is for its readers to see.
    let text = second.logged();
    assert!(text.lines().any(|line| line.contains("second")), "{text:?}");
    one_life(&task, "first").await;
}

//! The layers of the source: who may use what. src/ARCHITECTURE.md says why.

use std::fs;
use std::path::{Path, PathBuf};

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The lines of code (not of comments) outside `allowed` for which `forbidden` is true.
fn lines_outside(allowed: &[&str], forbidden: impl Fn(&str) -> bool) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for file in files_below(&source) {
        let name = file.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        if allowed.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if !line.trim_start().starts_with("//") && forbidden(line) {
                found.push(format!("src/{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !char.is_alphanumeric() && char != '_')
}

#[track_caller]
fn only_in(allowed: &[&str], what: &[&str]) {
    let found = lines_outside(allowed, |line| words(line).any(|word| what.contains(&word)));
    assert!(found.is_empty(), "{what:?} outside {allowed:?}:\n{}", found.join("\n"));
}

#[test]
fn unsafe_code_is_only_in_sys() {
    // A test there installs a filter, to see what the kernel makes of it.
    let allowed =
        ["sys/", "sys.rs", "init/program/sys/", "init/program/sys.rs", "guest/seccomp/tests.rs"];
    only_in(&allowed, &["unsafe"]);
}

#[test]
fn only_sys_waits_for_processes() {
    // Tables of system calls name them all.
    let tables = ["guest/seccomp/", "bundle/create/cri/seccomp.rs"];
    let allowed = [&["sys/", "sys.rs", "init/program/sys/"][..], &tables].concat();
    only_in(&allowed, &["waitpid", "waitid", "wait4"]);
}

#[test]
fn only_the_shim_its_figures_and_its_options_know_ttrpc_and_protobuf() {
    let allowed =
        ["shim/", "shim.rs", "stats/", "stats.rs", "config/options.rs", "config/tests.rs"];
    let found = lines_outside(&allowed, |line| {
        ["ttrpc::", "protobuf::", "containerd_shim_protos"].iter().any(|name| line.contains(name))
    });
    assert!(found.is_empty(), "outside {allowed:?}:\n{}", found.join("\n"));
}

#[test]
fn backends_know_neither_containers_nor_containerd() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let outside: Vec<_> = files_below(&source)
        .iter()
        .map(|file| file.strip_prefix(&source).unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "backend.rs" && !name.starts_with("backend/"))
        .collect();
    let outside: Vec<_> = outside.iter().map(String::as_str).collect();
    let found = lines_outside(&outside, |line| {
        line.contains("crate::container") || line.contains("crate::shim")
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_test_file_is_forgotten() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = fs::read_to_string(tests.join("main.rs")).unwrap();
    for file in files_below(&tests) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let known = file.parent() != Some(&tests)
            || name == "main"
            || main.lines().any(|line| line.trim_end() == format!("mod {name};"));
        assert!(known, "tests/it/main.rs does not have `mod {name};`");
    }
}

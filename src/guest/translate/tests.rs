//! Golden tests: folders of tests/golden with a config.json and what becomes of it.
//! `NEXCAGE_GOLDEN=write cargo test golden` writes the latter anew.

use super::*;
use std::fs;

fn exists(path: &Path) -> Option<FileKind> {
    // Of no particular host.
    let path = path.to_str()?;
    Some(match path {
        _ if path.contains("missing") => return None,
        "/dev/fuse" => FileKind::Char { major: 10, minor: 229 },
        "/dev/null" => FileKind::Char { major: 1, minor: 3 },
        "/dev/sda" => FileKind::Block { major: 8, minor: 0 },
        _ if path.ends_with(".sock") => FileKind::Socket,
        _ if path.ends_with(".fifo") => FileKind::Fifo,
        _ if path.rsplit('/').next()?.contains('.') => FileKind::File,
        _ => match path {
            "/etc/hosts" | "/etc/hostname" | "/w/hosts" | "/w/hostname" => FileKind::File,
            _ => FileKind::Dir,
        },
    })
}

/// The links that Debian has.
fn resolve(path: &str) -> Result<String> {
    let path = path.trim_start_matches('/');
    Ok(match path.strip_prefix("var/run") {
        Some(rest) => format!("run{rest}"),
        None => path.to_owned(),
    })
}

pub(super) fn host(console: bool) -> Host<'static> {
    Host {
        driver: Driver::Lxc,
        cgroup2: false,
        bundle: Path::new("/bundle"),
        rootfs: Path::new("/bundle/rootfs"),
        gate: Path::new("/run/nexcage/default/web-1/gate"),
        program: Path::new("/run/nexcage/.init/1/nexcage-init"),
        cgroup: "default/web-1",
        network: "/proc/17/ns/net",
        console,
        resolve: &resolve,
        exists: &exists,
    }
}

fn show(translation: &Translation) -> String {
    let Translation { config: _, process, first, hooks, resources, idmap, targets, binds, .. } =
        translation;
    let resources: Vec<_> = resources
        .iter()
        .map(|setting| format!("{}: {} = {}", setting.controller, setting.file, setting.value))
        .collect();
    let mut process = process.clone();
    // seccomp has tests of its own, and the numbers of calls differ between machines.
    let filtered = process.seccomp.take().is_some();
    format!(
        "{process:#?}\nseccomp: {filtered}\n{first:#?}\n{hooks:#?}\n{resources:#?}\n{idmap:#?}\n\
         {targets:#?}\n{binds:#?}\nhost_root: {:?}\n",
        translation.host_root()
    )
}

/// Lines that differ, with what was expected behind a minus.
fn diff(expected: &str, found: &str) -> String {
    let (mut left, mut right) = (expected.lines().peekable(), found.lines().peekable());
    let mut out = String::new();
    while left.peek().is_some() || right.peek().is_some() {
        if left.peek() == right.peek() {
            left.next();
            right.next();
            continue;
        }
        let ahead = |line: Option<&&str>, lines: &str| {
            line.is_some_and(|line| lines.lines().any(|other| other == *line))
        };
        if left.peek().is_some() && !ahead(left.peek(), found) || right.peek().is_none() {
            out.push_str(&format!("-{}\n", left.next().unwrap_or_default()));
        } else {
            out.push_str(&format!("+{}\n", right.next().unwrap_or_default()));
        }
    }
    out
}

fn compare(path: &Path, found: &str) -> String {
    if std::env::var_os("NEXCAGE_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(path, found).unwrap();
        return String::new();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == found {
        return String::new();
    }
    format!("{}\n{}", path.display(), diff(&expected, found))
}

#[test]
fn golden_specs_become_what_they_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut problems = String::new();
    let mut cases: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 12, "{cases:?}");
    for case in cases {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read(case.join("config.json")).unwrap();
        let spec: Value = serde_json::from_slice(&text).unwrap();
        let mut host = host(spec["process"]["terminal"] == true);
        host.cgroup2 = name.ends_with("-v2");
        if name.starts_with("pct") {
            host.driver = Driver::Pct;
        }
        let translation = translate(&spec, &host).unwrap_or_else(|error| panic!("{name}: {error}"));
        problems += &compare(&case.join("expected.lxc.conf"), &translation.config);
        problems += &compare(&case.join("expected.init.txt"), &show(&translation));
    }
    assert!(problems.is_empty(), "{problems}");
}

//! A node of Proxmox VE for the command line: the stand-in of tests/pct, in namespaces of a test's
//! own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The stand-in's programs, on a node.
pub const PROGRAMS: &str = "/run/pve-programs";

/// Says, in a test that runs on a node, which its first vmid is.
const FIRST: &str = "NEXCAGE_TEST_NODE";

/// How many vmids a node has.
const COUNT: u32 = 100;

/// Whether this is a process of the running test's own that is on a node: pids, mounts and
/// cgroups are there as anybody on one sees them. In any other process the test is run in one that
/// is, and this is false.
pub fn is_here() -> bool {
    if let Some(first) = first() {
        // A test may run itself once more, on the same node.
        if !Path::new(PROGRAMS).exists() {
            make(first);
        }
        return true;
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let test = std::thread::current();
    // Cgroups are shared with other beds: each node has numbers of its own.
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let first = 300_000_000 + u32::try_from(since.as_millis() % 6_000_000).unwrap() * COUNT;
    let run = Command::new(manifest.join("tests/bed/enter"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test.name().unwrap()])
        .env(FIRST, first.to_string())
        .output()
        .unwrap();
    // Of a test that has failed.
    for cgroup in cgroups(first) {
        drop(fs::remove_dir(cgroup));
    }
    let said = [&run.stdout, &run.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(run.status.success(), "{}{}", said[0], said[1]);
    false
}

/// The first vmid of the node that this process is on.
pub fn first() -> Option<u32> {
    std::env::var(FIRST).ok()?.parse().ok()
}

fn make(first: u32) {
    let built = Path::new(env!("CARGO_BIN_EXE_nexcage"));
    let pct = built.with_file_name("examples").join("pct");
    let made = Command::new(&pct).args(["--setup", PROGRAMS]).output();
    let made = made.unwrap_or_else(|_| panic!("{}: cargo build --example pct", pct.display()));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let config = serde_json::json!({
        "pct": { "vmid_min": first, "vmid_max": first + COUNT - 1 },
    });
    fs::create_dir_all("/etc/nexcage").unwrap();
    fs::write("/etc/nexcage/config.json", config.to_string()).unwrap();
}

/// Switches on what the node is to suffer from; see tests/pct/fault.rs.
pub fn suffer(fault: &str, text: &str) {
    fs::write(Path::new("/run/pve-standin").join(fault), text).unwrap();
}

/// Switches it off.
pub fn recover(fault: &str) {
    fs::remove_file(Path::new("/run/pve-standin").join(fault)).unwrap();
}

/// The cgroups of a node's guests.
pub fn cgroups(first: u32) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let tops = fs::read_dir(top).unwrap().flatten().map(|entry| entry.path()).chain([top.into()]);
    let parents = tops.flat_map(|top| ["lxc", "lxc.monitor"].map(|name| top.join(name)));
    let guests = parents.flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
    let own = |path: &PathBuf| {
        let vmid = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        vmid.is_some_and(|vmid: u32| (first..first + COUNT).contains(&vmid))
    };
    guests.map(|entry| entry.path()).filter(|path| path.is_dir()).filter(own).collect()
}

/// Whatever a node still has of its guests.
pub fn left() -> Vec<PathBuf> {
    let folders = ["/etc/pve/lxc", "/var/lib/lxc", "/var/lib/nexcage/vmids"];
    let entries = folders.map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let paths = entries.into_iter().flatten().map(|entry| entry.path());
    // The hint at the id that is used next.
    paths.filter(|path| !path.ends_with("vmids/.last")).collect()
}

//! What /proc tells of a process, waits for conditions, and a process of a test's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits until `condition` is true, at most 10 s.
pub async fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, condition).await;
}

/// Waits until `condition` is true, at most `bound`.
pub async fn within(bound: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !condition() {
        assert!(Instant::now() < deadline, "not in {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether this is a process of the running test's own, which adopts orphans as a
/// supervisor and conmon do: they would otherwise become children of a process that other tests run in, too, and that
/// does not know of them. In that process the test is run in one of its own, and is false.
pub fn adopts_orphans() -> bool {
    const ALONE: &str = "NEXCAGE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        return true;
    }
    let test = std::thread::current();
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test.name().unwrap()])
        .env(ALONE, "1")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    false
}

fn read(pid: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// Whether there is such a process, and it is no zombie.
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// The letter of its state.
pub fn state(pid: u32) -> Option<char> {
    let stat = read(pid, "stat")?;
    stat.rsplit(") ").next()?.chars().next()
}

/// How many file descriptors it has open.
pub fn fds(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Where its file descriptors lead, sorted.
pub fn fd_targets(pid: u32) -> Vec<PathBuf> {
    let Ok(dir) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut targets: Vec<_> =
        dir.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    targets.sort();
    targets
}

/// How many threads it has.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// A number after a word of /proc/PID/FILE, such as `Pss:` of smaps_rollup, in its own unit.
pub fn number(pid: u32, file: &str, word: &str) -> u64 {
    let text = read(pid, file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The CPU time of all its threads.
pub fn cpu(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanos = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// The pids of its children.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

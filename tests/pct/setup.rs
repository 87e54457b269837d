//! Making a Proxmox VE node of a private set of namespaces.

use crate::cluster;
use crate::fault;
use crate::monitor::Monitor;
use crate::report::{Outcome, fail, reason, warn};
use crate::storage::{LOCAL, SHIFT};
use nix::mount::{MsFlags, mount};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Error, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The names under which the program answers.
const NAMES: [&str; 4] = ["pct", "pvesh", "pveversion", "systemctl"];

const MONITOR: &str = "/usr/libexec/lxc/lxc-monitord";

/// Makes the node, and puts its programs into a folder for PATH. When it returns, the cluster
/// file system is mounted and LXC's monitor daemon listens.
pub fn run(programs: &str) -> Outcome {
    // Only tests/bed/enter mounts anything there: elsewhere all of this would hit the machine.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/var/lib/nexcage")) {
        return fail("not inside tests/bed/enter: nothing was done");
    }
    for program in ["lxc-start", "lxc-attach", "lxc-usernsexec", MONITOR] {
        let known = Command::new("sh").args(["-c", "command -v -- \"$1\"", "sh", program]).output();
        if !known.is_ok_and(|known| known.status.success()) {
            return fail(format!("{program} is missing: install Debian's package lxc"));
        }
    }
    make(programs).or_else(|error| fail(reason(&error)))
}

fn make(programs: &str) -> std::io::Result<()> {
    for folder in [
        Path::new("/run/pve"),
        Path::new(&format!("{LOCAL}/template/cache")),
        Path::new(&format!("{LOCAL}/images")),
        Path::new(programs),
    ] {
        fs::create_dir_all(folder)?;
    }
    // The whole of /etc, so that not even the mount point stays on the machine.
    for (number, folder) in ["/etc", "/usr/share/perl5"].into_iter().enumerate() {
        let [upper, work] = ["changed", "work"].map(|of| fault::file(&format!("{number}/{of}")));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let layers =
            format!("lowerdir={folder},upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), folder, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))?;
    }
    fs::create_dir_all(cluster::ROOT)?;
    crate::tool::write_module()?;
    for file in ["/etc/subuid", "/etc/subgid"] {
        let mut file = OpenOptions::new().append(true).create(true).open(file)?;
        writeln!(file, "root:{SHIFT}:65536")?;
    }
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some("tmpfs"), crate::lxc::GUESTS, Some("tmpfs"), flags, Some("mode=0755"))?;
    // LXC puts its cgroups below those of pid 1, which on a real node is at the top.
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        fs::write(hierarchy.path().join("cgroup.procs"), "1").ok();
    }
    // A kernel without bridges makes a node without one.
    for args in [["add", "vmbr0", "type", "bridge"].as_slice(), &["set", "vmbr0", "up"]] {
        let quiet = Stdio::null;
        Command::new("ip").arg("link").args(args).stderr(quiet()).status().ok();
    }
    let program = std::env::current_exe()?;
    for name in NAMES {
        let at = Path::new(programs).join(name);
        fs::remove_file(&at).ok();
        symlink(&program, at)?;
    }
    let mut daemon = Command::new(&program)
        .arg0("pct")
        .arg("--cluster")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(fault::file("log"))?)
        .spawn()?;
    let mut line = String::new();
    if let Some(out) = daemon.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.is_empty() {
        let log = fs::read_to_string(fault::file("log")).unwrap_or_default();
        return Err(Error::other(format!("no cluster file system: {}", log.trim())));
    }
    let end = Instant::now() + Duration::from_secs(10);
    while !fault::is_on("no-monitord") && Monitor::connect().is_err() {
        if Instant::now() > end {
            return Err(Error::other("LXC's monitor daemon does not listen"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The node's daemons: the cluster file system, and LXC's monitor, which is started and killed
/// as the switch says.
pub fn daemons() -> ExitCode {
    let run = || {
        nix::unistd::setsid()?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CLOSE_WRITE;
        inotify.add_watch(fault::FOLDER, events)?;
        std::thread::spawn(move || {
            let mut monitor = None;
            loop {
                if let Err(error) = crate::tool::write_module() {
                    warn(&format!("the version: {}", reason(&error)));
                }
                if let Err(error) = tend(&mut monitor) {
                    warn(&format!("{MONITOR}: {}", reason(&error)));
                }
                if inotify.read_events().is_err() {
                    return;
                }
            }
        });
        cluster::serve()
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(&reason(&error));
            ExitCode::FAILURE
        }
    }
}

fn tend(monitor: &mut Option<Child>) -> std::io::Result<()> {
    match (monitor.take(), fault::is_on("no-monitord")) {
        (Some(mut child), true) => {
            child.kill()?;
            child.wait()?;
        }
        (None, false) => {
            let child = Command::new(MONITOR)
                .arg("--daemon")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            *monitor = Some(child);
        }
        (same, _) => *monitor = same,
    }
    Ok(())
}

//! Starting and ending guests: the tasks, the unit that systemd would run, and its hooks.

use crate::conf::{self, Guest};
use crate::fault;
use crate::lxc;
use crate::monitor::{Monitor, State};
use crate::report::{Outcome, fail, reason, said, say, warn};
use crate::storage::{Volume, make_mount_point};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Whether a guest runs: whether its monitor takes commands, which is how pct itself knows.
pub fn is_running(vmid: u32) -> bool {
    let socket = format!("@/var/lib/lxc/{vmid}/command");
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| line.split_whitespace().next_back() == Some(socket.as_str()))
}

/// Refuses without quorum what would change something.
pub fn quorum(code: u8) -> Outcome {
    if fault::is_on("no-quorum") {
        return Err(crate::report::Failure::new(code, "cluster not ready - no quorum?"));
    }
    Ok(())
}

/// `pct start`.
pub fn start(vmid: u32) -> Outcome {
    quorum(255)?;
    Guest::exists(vmid, 255)?;
    let _lock = conf::lock(vmid, 255, say)?;
    let guest = Guest::load(vmid, 255)?;
    guest.unlocked()?;
    if is_running(vmid) {
        return fail(format!("CT {vmid} already running"));
    }
    lxc::write(vmid, &guest)?;
    let monitor = Monitor::connect();
    if let Err(error) = &monitor {
        say(&format!("failed to connect to monitor socket: {}", reason(error)));
    }
    let hold = start_unit(vmid)?;
    let hold = match monitor {
        Ok(monitor) => {
            drop(hold);
            wait_until_running(vmid, monitor)?;
            None
        }
        // Nothing is waited for, so that the question below comes too early.
        Err(_) => hold,
    };
    fault::linger("start-pid");
    let command = format!("lxc-info -n {vmid} -p");
    let info = Command::new("lxc-info").args(["-n", &vmid.to_string(), "-p"]).output();
    drop(hold);
    let info = info.or_else(|error| fail(format!("{command}: {}", reason(&error))))?;
    for line in String::from_utf8_lossy(&info.stderr).lines() {
        say(line);
    }
    if !info.status.success() {
        let code = info.status.code().unwrap_or(255);
        return fail(format!("command '{command}' failed: exit code {code}"));
    }
    if !String::from_utf8_lossy(&info.stdout).contains("PID:") {
        return fail(format!("unable to get PID for CT {vmid} (not running?)"));
    }
    Ok(())
}

fn wait_until_running(vmid: u32, mut monitor: Monitor) -> Outcome {
    monitor.give_up_after(Some(fault::time("monitor-timeout").unwrap_or(Duration::from_secs(10))));
    loop {
        match monitor.next(vmid) {
            Ok(State::Starting) => monitor.give_up_after(None),
            Ok(State::Running) => return Ok(()),
            Ok(State::Aborting | State::Stopped) => {
                let said = fs::read_to_string(stderr_of(vmid)).unwrap_or_default();
                // LXC 6 does not tell here what could not be run, or why.
                for line in said.lines().filter(|line| !line.contains("Failed to exec")) {
                    say(&without_origin(vmid, line));
                }
                return fail(format!("startup for container '{vmid}' failed"));
            }
            Ok(State::Other) => {}
            Err(failure) => {
                say(&format!(
                    "problem with monitor socket, but continuing anyway: {}",
                    failure.text
                ));
                return Ok(());
            }
        }
    }
}

/// Where LXC's own messages of a guest go.
fn stderr_of(vmid: u32) -> String {
    format!("/run/pve/ct-{vmid}.stderr")
}

/// A message without the program, the guest and the source file that it begins with.
fn without_origin(vmid: u32, line: &str) -> String {
    let rest = line.strip_prefix(&format!("lxc-start: {vmid}: ")).unwrap_or(line);
    match rest.split_once(".c: ") {
        Some((file, rest)) if !file.contains(' ') => rest.to_owned(),
        _ => rest.to_owned(),
    }
}

/// `pct stop`.
pub fn stop(vmid: u32) -> Outcome {
    if !is_running(vmid) {
        return fail(format!("CT {vmid} not running"));
    }
    let _lock = conf::lock(vmid, 255, say)?;
    Guest::load(vmid, 255)?.unlocked()?;
    kill(vmid);
    Ok(())
}

/// Kills a guest and waits until nothing of it is left.
pub fn kill(vmid: u32) {
    // A freezer of cgroup v1 keeps even the killed; that of v2, which the real one has, does not.
    let state = format!("/sys/fs/cgroup/freezer/lxc/{vmid}/freezer.state");
    if fs::read_to_string(state).is_ok_and(|state| state.trim() != "THAWED") {
        said(Command::new("lxc-unfreeze").args(["-n", &vmid.to_string()])).ok();
    }
    said(Command::new("lxc-stop").args(["-n", &vmid.to_string(), "--kill"])).ok();
    wait_until_gone(vmid);
}

fn wait_until_gone(vmid: u32) {
    while is_running(vmid) || Unit::of(vmid).is_active() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `pct shutdown`.
pub fn shutdown(vmid: u32, timeout: Option<&str>, force: bool) -> Outcome {
    if !is_running(vmid) {
        return fail(format!("CT {vmid} not running"));
    }
    let _lock = conf::lock(vmid, 255, say)?;
    Guest::load(vmid, 255)?.unlocked()?;
    let timeout = timeout.unwrap_or("60");
    let name = vmid.to_string();
    let status =
        said(Command::new("lxc-stop").args(["-n", &name, "--nokill", "--timeout", timeout]));
    if !status.is_ok_and(|status| status.success()) {
        if !force {
            say(&format!(
                "command 'lxc-stop -n {vmid} --nokill --timeout {timeout}' failed: exit code 1"
            ));
            return fail("container did not stop");
        }
        kill(vmid);
    }
    wait_until_gone(vmid);
    Ok(())
}

/// `pct reboot`.
pub fn reboot(vmid: u32, timeout: Option<&str>) -> Outcome {
    if !is_running(vmid) {
        return fail(format!("VM {vmid} not running"));
    }
    shutdown(vmid, timeout, false)?;
    start(vmid)
}

/// `pct suspend`, which is CRIU: it fails, and the guest is dead.
pub fn suspend(vmid: u32) -> Outcome {
    if !is_running(vmid) {
        return fail(format!("CT {vmid} not running"));
    }
    Guest::load(vmid, 255)?.unlocked()?;
    kill(vmid);
    fail(format!("command 'lxc-checkpoint -n {vmid} -s -D /var/lib/vz/dump' failed: exit code 1"))
}

/// `pct resume`, which fails and leaves a mount on the host.
pub fn resume(vmid: u32) -> Outcome {
    Guest::load(vmid, 255)?;
    let at = lxc::folder(vmid).join("passthrough");
    fs::create_dir_all(&at).ok();
    mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .or_else(|errno| fail(errno.desc()))?;
    fail(format!(
        "command 'lxc-checkpoint -n {vmid} -r --foreground -D /var/lib/vz/dump' failed: \
         exit code 1"
    ))
}

/// What systemd knows of `pve-container@<vmid>`: its properties by name.
pub struct Unit(BTreeMap<String, String>);

impl Unit {
    /// That of a guest; of one that was never started, what systemd says of any unit.
    pub fn of(vmid: u32) -> Self {
        let text = fault::text(&format!("unit-{vmid}")).unwrap_or_default();
        let mut properties = BTreeMap::from(
            [
                ("ActiveState", "inactive"),
                ("SubState", "dead"),
                ("Result", "success"),
                ("MainPID", "0"),
                ("ExecMainStatus", "0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let said = text.lines().filter_map(|line| line.split_once('='));
        properties.extend(said.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Self(properties)
    }

    /// Whether it runs.
    pub fn is_active(&self) -> bool {
        self.get("ActiveState") == "active"
    }

    /// A property.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

fn set_unit(vmid: u32, state: &str, sub: &str, result: &str, pid: u32, status: i32) {
    let text = format!(
        "ActiveState={state}\nSubState={sub}\nResult={result}\nMainPID={pid}\n\
         ExecMainStatus={status}\n"
    );
    let path = fault::file(&format!("unit-{vmid}"));
    let temporary = path.with_extension("new");
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        warn(&format!("unit of {vmid}: {}", reason(&error)));
    }
}

/// Starts the unit and returns when it is on its own. It runs lxc-start once what is returned has
/// been dropped.
fn start_unit(vmid: u32) -> Outcome<Option<ChildStdin>> {
    let mut unit = Command::new("/proc/self/exe");
    unit.arg0("pct")
        .args(["--unit", &vmid.to_string()])
        // systemd gives it an environment of its own.
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = unit.spawn().or_else(|error| fail(reason(&error)))?;
    let mut line = String::new();
    let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    match read {
        Some(Ok(1..)) => Ok(child.stdin.take()),
        _ => fail(format!("command 'systemctl start pve-container@{vmid}' failed: exit code 1")),
    }
}

/// The unit of a guest: lxc-start in the foreground, and a record of how it ended.
pub fn unit(vmid: u32) -> ExitCode {
    match run_unit(vmid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(&reason(&error));
            ExitCode::FAILURE
        }
    }
}

fn run_unit(vmid: u32) -> std::io::Result<()> {
    // Away from the task, whose process group is killed at its end.
    nix::unistd::setsid()?;
    // Held as long as this runs: a unit is started once its predecessor is gone.
    let lock = OpenOptions::new()
        .append(true)
        .create(true)
        .open(fault::file(&format!("unit-{vmid}.lock")))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    // Active from here on, as to systemd: whoever waits for its end waits for it.
    set_unit(vmid, "active", "running", "success", std::process::id(), 0);
    say("started");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    remove_cgroups(vmid);
    fs::create_dir_all("/run/pve")?;
    let mut child = Command::new("lxc-start")
        .args(["-F", "-n", &vmid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(stderr_of(vmid))?)
        .spawn()?;
    set_unit(vmid, "active", "running", "success", child.id(), 0);
    let status = child.wait()?;
    match (status.code(), status.signal()) {
        (Some(0), _) => set_unit(vmid, "inactive", "dead", "success", 0, 0),
        (Some(code), _) => set_unit(vmid, "failed", "failed", "exit-code", 0, code),
        (None, signal) => set_unit(vmid, "failed", "failed", "signal", 0, signal.unwrap_or(0)),
    }
    Ok(())
}

/// Removes the cgroups that a killed monitor has left.
fn remove_cgroups(vmid: u32) {
    let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let roots = roots.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
    for root in roots {
        for folder in ["lxc", "lxc.monitor"] {
            remove_cgroup(&root.join(folder).join(vmid.to_string()));
        }
    }
}

fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    // What was killed may need a moment to be gone from it.
    let end = Instant::now() + Duration::from_secs(1);
    while path.exists() && fs::remove_dir(path).is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A hook that LXC runs on the host: in the monitor's own mount namespace.
pub fn hook(args: &[String]) -> ExitCode {
    let [what, vmid, ..] = args else { return ExitCode::FAILURE };
    fault::linger(what);
    if what != "pre-start" {
        return ExitCode::SUCCESS;
    }
    let done = vmid.parse().or_else(|_| fail("not a vmid")).and_then(pre_start);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            warn(&failure.text);
            ExitCode::from(22)
        }
    }
}

fn pre_start(vmid: u32) -> Outcome {
    let guest = Guest::load(vmid, 22)?;
    let root = lxc::folder(vmid).join("rootfs");
    for (key, value) in &guest.keys {
        let volume = Volume::parse(value);
        if key == "rootfs" {
            if guest.flag("unprivileged") && volume.get("idmap").is_some() {
                return fail("mount_setattr: Invalid argument");
            }
            volume.mount(&root)?;
        }
    }
    for (key, value) in guest.keys.iter().filter(|(key, _)| key.starts_with("mp")) {
        let volume = Volume::parse(value);
        let Some(at) = volume.get("mp") else {
            return fail(format!("{key}: property is missing and it is not optional: mp"));
        };
        make_mount_point(&root, at)?;
        volume.mount(&root.join(at.trim_start_matches('/')))?;
    }
    Ok(())
}

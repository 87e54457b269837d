//! LXC: the bundle runs as a guest of lxc-start, which is a child of the supervisor and the
//! parent of the container's process.
//!
//! The lxcpath of a guest is the container's own folder and its name the container's id. LXC's own
//! tools find it from its monitor's network namespace only:
//! `nsenter --net --target PID lxc-info -P /run/nexcage/default/web-1 -n web-1`, where PID is that
//! of lxc-start.

use super::{Backend, Place, ProcessIo, oci};
use crate::config::{BackendName, Config};
use crate::error::{Context, Error, Result};
use crate::exit::Exit;
use crate::guest::gate::Gate;
use crate::guest::translate::Driver;
use crate::guest::{self, Begun, Guest, told};
use crate::id::ExecId;
use crate::store::{Own, ProcessId, create_private};
use crate::sys::cgroup::Cgroup;
use crate::sys::command::Command;
use crate::sys::handle::Process;
use crate::sys::pidfd::{self, ExitSource};
use crate::sys::process;
use crate::sys::reaper::{self, Child};
use async_trait::async_trait;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long LXC may take to put its own things away after a guest's end, before it is killed.
const CLEANUP: Duration = Duration::from_secs(1);

/// How long a guest may take to be created before the log says so.
const SLOW: Duration = Duration::from_secs(10);

/// PATH of lxc-start, which needs no program for what it is told to do. Where it finds newuidmap,
/// it has that write the ids of a user namespace, which root may do itself; newuidmap allows root
/// only what /etc/subuid says.
const NO_PROGRAMS: &str = "/dev/null";

/// The lines of LXC's log that are looked at when a guest did not start, in bytes.
const LOG: u64 = 64 << 10;

/// How LXC is called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// lxc-start, an absolute path.
    start: PathBuf,
    init: Option<PathBuf>,
    state_dir: PathBuf,
    /// The kernel may be asked how a guest ended, where LXC does not tell.
    kernel_tells: bool,
}

impl Settings {
    /// As the configuration has it.
    ///
    /// # Errors
    /// `Unavailable` when lxc-start is not there.
    pub fn of(config: &Config) -> Result<Self> {
        Ok(Self {
            start: oci::find_program(BackendName::Lxc, &config.lxc.program)?,
            init: config.init_path.clone(),
            state_dir: config.state_dir.clone(),
            kernel_tells: !config.lxc.exit_by_monitor && pidfd::kernel_tells(),
        })
    }

    /// As a container was made with.
    pub fn recorded(own: &Own, place: &Place) -> Self {
        Self {
            start: own.runtime.clone(),
            init: own.init_path.clone(),
            state_dir: place.folder.path().ancestors().nth(2).unwrap_or(Path::new("/")).to_owned(),
            kernel_tells: pidfd::kernel_tells(),
        }
    }
}

/// One container's LXC guest.
pub struct Lxc {
    place: Place,
    settings: Settings,
    guest: Guest,
    /// lxc-start, while this process is its parent.
    monitor: Mutex<Option<Child>>,
    /// lxc-start, as the record of an earlier process has it.
    recorded: Option<ProcessId>,
    /// Whatever is in the guest's cgroup is the guest's: it may be killed.
    owns_cgroup: AtomicBool,
}

impl Lxc {
    /// Touches nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument` when config.json cannot be a guest's.
    pub fn new(place: Place, settings: Settings, cgroups_path: Option<&str>) -> Result<Self> {
        Self::with(place, settings, cgroups_path, None)
    }

    fn with(
        place: Place,
        settings: Settings,
        cgroups_path: Option<&str>,
        limits: Option<Cgroup>,
    ) -> Result<Self> {
        let cgroup = guest::cgroup_path(&place, cgroups_path)?;
        let guest = Guest::new(place.clone(), cgroup, limits);
        Ok(Self {
            place,
            settings,
            guest,
            monitor: Mutex::new(None),
            recorded: None,
            owns_cgroup: AtomicBool::new(false),
        })
    }

    /// As [`Lxc::new`], for a container that another process made.
    ///
    /// # Errors
    /// As [`Lxc::new`].
    pub fn reopen(place: Place, own: &Own) -> Result<Self> {
        let settings = Settings::recorded(own, &place);
        let path = own.cgroups_path.as_deref();
        let mut lxc = Self::with(place, settings, path, own.cgroup.clone())?;
        lxc.recorded = own.monitor;
        // The record of one whose cgroup is somebody else's names none.
        lxc.owns_cgroup = AtomicBool::new(own.cgroup.is_some() || own.cgroups_path.is_some());
        if let Some(init) = own.init {
            lxc.guest.recall(init);
        }
        Ok(lxc)
    }

    fn monitor(&self) -> MutexGuard<'_, Option<Child>> {
        // Nothing in a critical section here can panic half way.
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> &str {
        self.place.id.as_str()
    }

    fn lxcpath(&self) -> &Path {
        self.place.folder.path()
    }

    fn log(&self) -> PathBuf {
        self.lxcpath().join("lxc.log")
    }

    fn config(&self) -> PathBuf {
        self.lxcpath().join(self.name()).join("config")
    }

    fn write_config(&self, text: &str) -> Result<()> {
        let path = self.config();
        create_private(&self.lxcpath().join(self.name()))?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .context(|| format!("write {}", path.display()))
    }

    /// It gets a network of its own: its command socket has no file, and LXC obeys whoever is root
    /// and finds it. In the host's network that is also root of every container that shares it,
    /// however few capabilities it has.
    fn spawn(&self) -> Result<Child> {
        Command::new(&self.settings.start)
            .without_network()
            .args(["--foreground", "--quiet", "--name", self.name(), "--lxcpath"])
            .arg(self.lxcpath())
            .arg("--logfile")
            .arg(self.log())
            .args(["--logpriority", "ERROR"])
            .env_clear()
            .env("PATH", NO_PROGRAMS)
            .spawn()
    }

    /// Why lxc-start ended: the first error in its log, which later ones only follow from.
    fn why_it_ended(&self, exit: Exit) -> Error {
        let mut text = Vec::new();
        let read = fs::File::open(self.log()).and_then(|log| log.take(LOG).read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let said = match &read {
            Ok(_) => first_error(&text),
            Err(_) => None,
        };
        Error::unknown(match said {
            Some(said) => said,
            None => {
                let (program, log) = (self.settings.start.display(), self.log());
                let log = log.display();
                format!(
                    "{program} ended with status {} before the guest's init came to the gate, and \
                     said nothing in {log}: is there no room for that (`df`, `df -i`), does \
                     `{program} --version` run, or was it killed (`dmesg`)?",
                    exit.status
                )
            }
        })
    }

    /// Waits for the end of lxc-start, which is to come after the guest's creation, and says in the
    /// log that the guest is a long time coming: whoever asked for it may not wait for an answer.
    async fn ended_early(&self, monitor: &Child) -> Error {
        let exit = match tokio::time::timeout(SLOW, monitor.exited()).await {
            Ok(exit) => exit,
            Err(_) => {
                log::warn!(container = self.name();
                    "its guest is not there after {} s: {} (pid {}) has not brought its init to \
                     the gate, or the init is not ready; what LXC says is in {}",
                    SLOW.as_secs(), self.settings.start.display(), monitor.pid(),
                    self.log().display());
                monitor.exited().await
            }
        };
        self.why_it_ended(exit)
    }

    async fn make(&self, io: ProcessIo) -> Result<Process> {
        let settings = &self.settings;
        let init = settings.init.as_deref();
        let spec = self.guest.spec()?;
        let mut prepared = self.guest.prepare(spec, Driver::Lxc, init, &settings.state_dir)?;
        self.guest.admit(&prepared)?;
        let gate = Gate::open(&self.guest.gate_folder(), prepared.translation.host_root())?;
        let hook_gate = self.guest.hook_gate(&mut prepared)?;
        self.write_config(&prepared.translation.config)?;
        self.guest.clear_cgroup()?;
        self.owns_cgroup.store(true, Ordering::Relaxed);
        let told = told::listen(self.lxcpath(), self.name())?;
        let monitor = self.spawn()?;
        *self.monitor() = Some(monitor.clone());
        let parent = monitor.pid();
        let (stuck, cgroup) = (monitor.clone(), self.path(guest::MONITOR_SUFFIX));
        let end_parent = move || {
            // Ended meanwhile is what the signal wanted.
            drop(stuck.signal(libc::SIGKILL));
            let_die(Cgroup::at(&cgroup));
        };
        let source = ExitSource {
            told,
            kernel: settings.kernel_tells,
            end_parent: Some(Box::new(end_parent)),
        };
        let ended = self.ended_early(&monitor);
        let arrived = gate.accept(|pid| guest::check_parent(pid, parent));
        let begun = Begun { hook_gate, monitor: || Some(parent), arrived, ended, source };
        let init = self.guest.create(prepared, begun, io).await?;
        if reaper::leaves_to_others() {
            // The init outlives it, and is then a child of whoever called this program: the only
            // one who learns how it ended. lxc-start would keep that to itself.
            monitor.signal(libc::SIGKILL)?;
            monitor.exited().await;
        }
        Ok(init)
    }

    /// lxc-start of a supervisor that is gone. One that died in the middle of a create has not
    /// written it down.
    fn left(&self) -> Option<ProcessId> {
        if self.monitor().is_some() || self.recorded.is_some() {
            return self.recorded;
        }
        // One that has not read it yet ends by itself.
        drop(fs::remove_file(self.config()));
        let path = self.lxcpath().as_os_str().as_encoded_bytes();
        let words: [&[u8]; 4] = [b"--name", self.name().as_bytes(), b"--lxcpath", path];
        process::with_arguments(&words).into_iter().find_map(ProcessId::of)
    }

    /// Waits for lxc-start, which puts its cgroups away once its guest has ended.
    async fn until_monitor_ended(&self, left: Option<ProcessId>) -> Result<()> {
        let own = self.monitor().clone();
        if let Some(child) = own {
            child.exited().await;
            return Ok(());
        }
        match left {
            Some(left) => left.ended().await,
            None => Ok(()),
        }
    }

    /// One of LXC's own cgroups, beside the guest's.
    fn beside(&self, suffix: &str) -> Result<Option<Cgroup>> {
        match self.guest.limits() {
            Ok(cgroup) => Ok(Some(cgroup.beside(suffix))),
            // LXC has removed the guest's, or has not made it yet.
            Err(_) => self.by_path(suffix),
        }
    }

    /// The same, of what is there at this moment.
    fn by_path(&self, suffix: &str) -> Result<Option<Cgroup>> {
        Cgroup::at(&self.path(suffix))
    }

    /// The path of the cgroup beside the guest's.
    fn path(&self, suffix: &str) -> String {
        format!("/{}{suffix}", self.guest.cgroup())
    }

    fn kill_monitor(&self, left: Option<ProcessId>) {
        if let Some(child) = self.monitor().clone() {
            // Ended meanwhile is what the signal wanted.
            drop(child.signal(libc::SIGKILL));
        } else if let Some(left) = left {
            left.signal(libc::SIGKILL);
        }
        let_die(self.beside(guest::MONITOR_SUFFIX));
    }

    /// Removes the guest's cgroup, of which LXC may leave the one with the limits, and those that
    /// LXC makes beside it.
    fn remove_cgroups(&self) -> Vec<Error> {
        let remove = |suffix| {
            if let Some(cgroup) = self.beside(suffix)? {
                cgroup.remove()?;
            }
            // What is known of the cgroup of an init that died while it came may be a part of it.
            self.by_path(suffix)?.map_or(Ok(()), |rest| rest.remove())
        };
        let suffixes = ["", guest::MONITOR_SUFFIX, guest::PIVOT_SUFFIX];
        suffixes.into_iter().filter_map(|suffix| remove(suffix).err()).collect()
    }
}

#[async_trait]
impl Backend for Lxc {
    fn name(&self) -> &'static str {
        BackendName::Lxc.as_str()
    }

    fn record(&self, own: &mut Own) {
        own.runtime.clone_from(&self.settings.start);
        own.runtime_root = self.lxcpath().to_owned();
        own.init_path.clone_from(&self.settings.init);
        // A cgroup that is somebody else's has been taken out of the record by now.
        if own.init.is_none() {
            own.cgroups_path = Some(format!("/{}", self.guest.cgroup()));
        }
        own.monitor =
            self.monitor().as_ref().map_or(self.recorded, |child| ProcessId::of(child.pid()));
    }

    async fn create(&self, io: ProcessIo) -> Result<Process> {
        self.make(io).await.context(|| "lxc")
    }

    async fn start(&self) -> Result<()> {
        self.guest.start().await.context(|| "lxc")
    }

    async fn delete(&self, force: bool) -> Result<()> {
        if !self.owns_cgroup.load(Ordering::Relaxed) {
            // lxc-start was never started.
            return Ok(());
        }
        let left = self.left();
        if force {
            self.guest.kill()?;
            if self.monitor().is_none() && left.is_none() {
                // A supervisor that died early did not write down what it had started.
                if let Some(cgroup) = self.beside(guest::MONITOR_SUFFIX)? {
                    cgroup.kill_all(libc::SIGKILL)?;
                }
            }
        }
        let ended = tokio::time::timeout(CLEANUP, self.until_monitor_ended(left)).await;
        if ended.is_err() {
            self.kill_monitor(left);
            self.until_monitor_ended(left).await?;
        }
        let mut errors = self.remove_cgroups();
        told::forget(self.lxcpath());
        errors.extend(self.guest.run_poststop().await.err());
        Error::list(errors).map_or(Ok(()), Err)
    }

    async fn exec(&self, _: &ExecId, process: &[u8], io: ProcessIo) -> Result<Process> {
        let settings = &self.settings;
        let init = settings.init.as_deref();
        self.guest.exec(process, init, &settings.state_dir, io).await.context(|| "lxc")
    }

    fn cgroup(&self) -> Option<Cgroup> {
        self.guest.limits().ok()
    }

    fn hand_over(&self) -> Option<OwnedFd> {
        self.guest.hand_over()
    }

    fn take_over(&self, kept: OwnedFd) -> Result<()> {
        self.guest.take_over(kept)
    }

    async fn pause(&self) -> Result<()> {
        self.guest.limits()?.freeze()
    }

    async fn resume(&self) -> Result<()> {
        self.guest.limits()?.thaw()
    }

    async fn update(&self, resources: &[u8]) -> Result<()> {
        self.guest.update(resources)
    }
}

/// Lets the monitor die that has been sent SIGKILL, if somebody has frozen its cgroup.
fn let_die(cgroup: Result<Option<Cgroup>>) {
    let thawed = cgroup.and_then(|cgroup| cgroup.map_or(Ok(()), |cgroup| cgroup.let_die()));
    if let Err(error) = thawed {
        log::warn!("let lxc-start die: {error}");
    }
}

/// The first error in LXC's log, without what only a developer of LXC would look for.
fn first_error(log: &str) -> Option<String> {
    log.lines().find_map(|line| {
        let (head, message) = line.split_once(" - ")?;
        if !head.split_whitespace().any(|word| word == "ERROR") {
            return None;
        }
        // "../src/lxc/conf.c:mount_entry:2459 - No such file or directory - Failed to mount …"
        let (_, said) = message.split_once(" - ")?;
        Some(said.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_of_a_log_is_told_in_lxcs_words() {
        let log = "lxc-start c 20261122200647.953 WARN     start - ../src/lxc/start.c:lxc_check_inherited:329 - Inherited fd 5\n\
            lxc-start c 20261122200647.953 ERROR    conf - ../src/lxc/conf.c:mount_entry:2459 - No such file or directory - Failed to mount \"/x\" on \"/y\"\n\
            lxc-start c 20261122200647.953 ERROR    start - ../src/lxc/start.c:do_start:1272 - Failed to setup container \"c\"\n";
        assert_eq!(
            first_error(log).unwrap(),
            "No such file or directory - Failed to mount \"/x\" on \"/y\""
        );
        assert_eq!(first_error(""), None);
    }
}

//! crun and runc: OCI runtimes driven through their command lines, which agree in all that is
//! used here. What a command has to say comes out of its JSON log.

mod log;
mod version;

use super::{Backend, Checkpoint, More, Place, ProcessIo};
use crate::config::{BackendName, Config, OciRuntime};
use crate::error::{Context, Error, Result};
use crate::exit::Exit;
use crate::id::ExecId;
use crate::spec::systemd_cgroup;
use crate::store::{Own, create_private};
use crate::sys::command::Command;
use crate::sys::handle::Process;
use crate::sys::reaper::{self, Child, Hold};
use async_trait::async_trait;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// How a runtime is called.
#[derive(Clone, Debug)]
pub struct Settings {
    program: PathBuf,
    root: PathBuf,
    systemd_cgroup: bool,
    no_pivot_root: bool,
    no_new_keyring: bool,
    criu_image_path: Option<PathBuf>,
    criu_work_path: Option<PathBuf>,
}

impl Settings {
    /// As the configuration has it.
    ///
    /// # Errors
    /// `Unavailable` when the program is not there.
    pub fn of(name: BackendName, config: &Config, place: &Place) -> Result<Self> {
        let chosen = settings(name, config)?;
        let program = find_program(name, &chosen.program)?;
        // Beside the containers' folders: no id begins with a dot.
        let root = match &chosen.root {
            Some(root) => root.join(place.namespace.as_str()),
            None => config.state_dir.join(place.namespace.as_str()).join(format!(".{name}")),
        };
        Ok(Self {
            program,
            root,
            systemd_cgroup: config.systemd_cgroup,
            no_pivot_root: config.no_pivot_root,
            no_new_keyring: config.no_new_keyring,
            criu_image_path: config.criu_image_path.clone(),
            criu_work_path: config.criu_work_path.clone(),
        })
    }

    /// The same, with cgroups through systemd where the container's cgroup is one of systemd's:
    /// containerd 1.6 tells SystemdCgroup to no shim but runc's.
    pub fn for_cgroup(mut self, path: Option<&str>) -> Self {
        self.systemd_cgroup |= path.and_then(systemd_cgroup).is_some();
        self
    }

    /// As a container was made with.
    pub fn recorded(own: &Own) -> Self {
        Self {
            program: own.runtime.clone(),
            root: own.runtime_root.clone(),
            systemd_cgroup: own.systemd_cgroup,
            no_pivot_root: false,
            no_new_keyring: false,
            criu_image_path: None,
            criu_work_path: None,
        }
    }
}

/// The part of the configuration that is about one of the two.
///
/// # Errors
/// `Unimplemented` for a backend that is no OCI runtime.
pub fn settings(name: BackendName, config: &Config) -> Result<&OciRuntime> {
    match name {
        BackendName::Crun => Ok(&config.crun),
        BackendName::Runc => Ok(&config.runc),
        BackendName::Lxc | BackendName::Pct => {
            Err(Error::unimplemented(format!("the backend {name} is no OCI runtime")))
        }
    }
}

/// The absolute path of a runtime's program: one that is absolute already, else the first of that
/// name in PATH, else in the folders a daemon without PATH would want.
///
/// # Errors
/// `Unavailable`, with what to do.
pub fn find_program(name: BackendName, wanted: &Path) -> Result<PathBuf> {
    let is_program =
        |path: &Path| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    if wanted.is_absolute() {
        if is_program(wanted) {
            return Ok(wanted.to_owned());
        }
        return Err(Error::unavailable(format!(
            "the runtime {} is not there or not executable: install {name}, or set {name}.path",
            wanted.display()
        )));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fallback = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    std::env::split_paths(&path)
        .chain(fallback.into_iter().map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(wanted))
        .find(|candidate| is_program(candidate))
        .ok_or_else(|| {
            Error::unavailable(format!(
                "{} is not in PATH: install {name}, or set {name}.path to its absolute path",
                wanted.display()
            ))
        })
}

/// One container's runtime.
pub struct Oci {
    name: BackendName,
    settings: Settings,
    place: Place,
    oci_version: String,
}

impl Oci {
    /// Touches nothing yet.
    pub fn new(name: BackendName, settings: Settings, place: Place, oci_version: &str) -> Self {
        Self { name, settings, place, oci_version: oci_version.to_owned() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.folder.path().join(name)
    }

    /// A command of the runtime with its global flags, and a log of its own so that commands
    /// that run side by side do not mix theirs.
    fn command(&self, log: &Path, verb: &str) -> Command {
        let command = Command::new(&self.settings.program);
        self.global_flags(command, log).die_with_parent().arg(verb)
    }

    /// The command of a creation. runc takes the sockets of systemd's only if they are meant for
    /// its pid, which nobody knows before it runs.
    fn create_command(&self, log: &Path, more: &More) -> Command {
        if more.listen == 0 || self.name != BackendName::Runc {
            return self.command(log, "create");
        }
        let command = Command::new("/bin/sh")
            .args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\""])
            .arg(&self.settings.program);
        self.global_flags(command, log).die_with_parent().arg("create")
    }

    fn global_flags(&self, command: Command, log: &Path) -> Command {
        let command = command
            .arg("--root")
            .arg(&self.settings.root)
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json"]);
        if self.settings.systemd_cgroup { command.arg("--systemd-cgroup") } else { command }
    }

    /// Runs a command that takes no stdio of the container, to its end.
    async fn run(&self, verb: &str, args: &[&str]) -> Result<()> {
        let log = self.file(&format!("{verb}.log"));
        let command = self.command(&log, verb).args(args).arg(self.place.id.as_str());
        let (reader, writer) = pipe()?;
        let result = self.finish(command.stderr(writer), &log, Some(reader)).await;
        drop(fs::remove_file(&log));
        result
    }

    /// Waits for a command; what it failed with is the last error in its log, else the last line
    /// it printed.
    async fn finish(&self, command: Command, log: &Path, stderr: Option<OwnedFd>) -> Result<()> {
        let running = Running::spawn(command)?;
        let said = match stderr {
            Some(fd) => read_tail_until(fd, running.child.exited()).await?,
            None => String::new(),
        };
        let exit = running.child.exited().await;
        if exit.status == 0 {
            return Ok(());
        }
        Err(self.failure(exit, log, &said))
    }

    fn failure(&self, exit: Exit, log: &Path, said: &str) -> Error {
        let logged = read_bounded(log, log::MAX).ok();
        let reason = logged
            .as_deref()
            .and_then(log::last_error)
            .or_else(|| log::last_line(said))
            .unwrap_or_else(|| {
                format!(
                    "{} ended with status {} and said nothing",
                    self.settings.program.display(),
                    exit.status
                )
            });
        Error::unknown(format!("{}: {reason}", self.name))
    }

    /// Runs a command that leaves a process behind and writes its pid to `pid_file`.
    async fn make_process(
        &self,
        command: Command,
        io: ProcessIo,
        log: &Path,
        pid_file: &Path,
    ) -> Result<Process> {
        let hold = reaper::hold();
        let command = command.stdin(io.child.stdin).stdout(io.child.stdout).stderr(io.child.stderr);
        let fds = (3..).zip(io.more.fds);
        let command = fds.fold(command, |command, (at, fd)| command.fd(at, fd));
        self.finish(command, log, None).await?;
        claim(&hold, pid_file)
    }

    /// The flags of a command that makes a process.
    fn process_flags(command: Command, pid_file: &Path, io: &ProcessIo) -> Command {
        let mut command = command.arg("--pid-file").arg(pid_file).args(&io.more.flags);
        let More { fds, listen, .. } = &io.more;
        if *listen > 0 {
            // It adds these to the others by itself.
            command = command.env("LISTEN_FDS", listen.to_string());
        }
        if fds.len() > *listen {
            command = command.arg("--preserve-fds").arg((fds.len() - listen).to_string());
        }
        match &io.console_socket {
            Some(socket) => command.arg("--console-socket").arg(socket),
            None => command,
        }
    }

    fn bundle_flags(&self, command: Command) -> Command {
        let mut command = command.arg("--bundle").arg(&self.place.bundle);
        if self.settings.no_pivot_root {
            command = command.arg("--no-pivot");
        }
        if self.settings.no_new_keyring {
            command = command.arg("--no-new-keyring");
        }
        command
    }
}

#[async_trait]
impl Backend for Oci {
    fn name(&self) -> &'static str {
        self.name.as_str()
    }

    fn record(&self, own: &mut Own) {
        own.runtime.clone_from(&self.settings.program);
        own.runtime_root.clone_from(&self.settings.root);
        own.systemd_cgroup = self.settings.systemd_cgroup;
    }

    async fn create(&self, io: ProcessIo) -> Result<Process> {
        create_private(&self.settings.root)?;
        let (log, pid_file) = (self.file("create.log"), self.file("init.pid"));
        let command = self.bundle_flags(self.create_command(&log, &io.more));
        let command = Self::process_flags(command, &pid_file, &io).arg(self.place.id.as_str());
        let result = self.make_process(command, io, &log, &pid_file).await;
        drop(fs::remove_file(&log));
        match result {
            Err(error) => Err(self.explain_version(error).await),
            made => made,
        }
    }

    async fn start(&self) -> Result<()> {
        self.run("start", &[]).await
    }

    async fn delete(&self, force: bool) -> Result<()> {
        // Both keep a folder of this name for each container they know.
        if !self.settings.root.join(self.place.id.as_str()).exists() {
            return Ok(());
        }
        self.run("delete", if force { &["--force"] } else { &[] }).await
    }

    async fn exec(&self, exec: &ExecId, process: &[u8], io: ProcessIo) -> Result<Process> {
        let [log, pid_file, description] =
            ["log", "pid", "json"].map(|suffix| self.file(&format!("exec-{exec}.{suffix}")));
        // The description has the process's environment, which may hold secrets.
        let _files = Temporary([log.clone(), pid_file.clone(), description.clone()]);
        fs::write(&description, process).context(|| format!("write {}", description.display()))?;
        let command = self.command(&log, "exec").arg("--detach");
        let command = Self::process_flags(command, &pid_file, &io)
            .arg("--process")
            .arg(&description)
            .arg(self.place.id.as_str());
        self.make_process(command, io, &log, &pid_file).await
    }

    async fn pause(&self) -> Result<()> {
        self.run("pause", &[]).await
    }

    async fn resume(&self) -> Result<()> {
        self.run("resume", &[]).await
    }

    async fn update(&self, resources: &[u8]) -> Result<()> {
        let file = self.file("resources.json");
        fs::write(&file, resources).context(|| format!("write {}", file.display()))?;
        let result = self.run("update", &["--resources", &file.to_string_lossy()]).await;
        drop(fs::remove_file(&file));
        result
    }

    async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let image = match (&self.settings.criu_image_path, checkpoint.image.as_os_str()) {
            (Some(configured), asked) if asked.is_empty() => configured,
            _ => &checkpoint.image,
        };
        let work = match (&self.settings.criu_work_path, checkpoint.work.as_os_str()) {
            (Some(configured), asked) if asked.is_empty() => configured,
            _ => &checkpoint.work,
        };
        let (image, work) = (image.to_string_lossy(), work.to_string_lossy());
        let mut args = vec!["--image-path", &image];
        if !work.is_empty() {
            args.extend(["--work-path", &work]);
        }
        let switches = [
            (!checkpoint.exit, "--leave-running"),
            (checkpoint.open_tcp, "--tcp-established"),
            (checkpoint.external_unix_sockets, "--ext-unix-sk"),
            (checkpoint.terminal, "--shell-job"),
            (checkpoint.file_locks, "--file-locks"),
        ];
        args.extend(switches.into_iter().filter_map(|(on, flag)| on.then_some(flag)));
        if !checkpoint.cgroups_mode.is_empty() {
            args.extend(["--manage-cgroups-mode", &checkpoint.cgroups_mode]);
        }
        for namespace in &checkpoint.empty_namespaces {
            args.extend(["--empty-ns", namespace]);
        }
        args.extend(checkpoint.flags.iter().map(String::as_str));
        self.run("checkpoint", &args).await
    }

    async fn restore(&self, image: &Path, io: ProcessIo) -> Result<Process> {
        create_private(&self.settings.root)?;
        let (log, pid_file) = (self.file("restore.log"), self.file("init.pid"));
        let command = self.bundle_flags(self.command(&log, "restore").arg("--detach"));
        let command = Self::process_flags(command, &pid_file, &io)
            .arg("--image-path")
            .arg(image)
            .arg(self.place.id.as_str());
        let result = self.make_process(command, io, &log, &pid_file).await;
        drop(fs::remove_file(&log));
        result
    }
}

impl Oci {
    /// A runtime that is too old for the bundle's ociVersion says so in words that help nobody.
    /// Its version is asked for only now, so that no container pays for the question.
    async fn explain_version(&self, error: Error) -> Error {
        let Some(needed) = version::needed(self.name, &self.oci_version) else { return error };
        match self.version().await {
            Ok(found) if found < needed => Error::precondition(format!(
                "the bundle's ociVersion is {}, which needs {} {needed} or newer, and {} is {found}: \
                 upgrade it, set {}.path to a newer one, or set default_container_type to runc \
                 ({error})",
                self.oci_version,
                self.name,
                self.settings.program.display(),
                self.name,
            )),
            _ => error,
        }
    }

    async fn version(&self) -> Result<version::Version> {
        let (reader, writer) = pipe()?;
        let command =
            Command::new(&self.settings.program).arg("--version").stdout(writer).die_with_parent();
        let running = Running::spawn(command)?;
        let text = read_tail_until(reader, running.child.exited()).await?;
        version::parse(&text).ok_or_else(|| Error::unknown("no version in what it printed"))
    }
}

/// Files that go when this is dropped, also when the command that needs them is given up.
struct Temporary([PathBuf; 3]);

impl Drop for Temporary {
    fn drop(&mut self) {
        for file in &self.0 {
            // One that was never written is not there.
            drop(fs::remove_file(file));
        }
    }
}

/// A command under way. Dropped before its end, it is killed with all that it started.
struct Running {
    child: Child,
}

impl Running {
    fn spawn(command: Command) -> Result<Self> {
        Ok(Self { child: command.spawn()? })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.exit().is_none() {
            // It may end by itself in this very moment.
            drop(self.child.signal_group(libc::SIGKILL));
        }
    }
}

/// Reads the pid that a runtime wrote, and takes that process as this supervisor's own.
fn claim(hold: &Hold, pid_file: &Path) -> Result<Process> {
    let text = read_bounded(pid_file, 64)
        .context(|| format!("read the pid file {}", pid_file.display()))?;
    let pid = text.trim().parse().ok().filter(|&pid: &i32| pid > 0).ok_or_else(|| {
        Error::unknown(format!("the runtime wrote {text:?} to {}", pid_file.display()))
    })?;
    hold.claim(pid)
}

fn read_bounded(path: &Path, limit: u64) -> Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// Reads what a command prints until it ends, and keeps the last of it. A grandchild that holds
/// the pipe open does not keep this waiting.
async fn read_tail_until(fd: OwnedFd, ended: impl Future<Output = Exit>) -> Result<String> {
    use tokio::io::AsyncReadExt;
    const KEPT: usize = 4096;
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(fd)?;
    let mut kept = Vec::new();
    let mut ended = std::pin::pin!(ended);
    let mut keep = |bytes: &[u8]| {
        kept.extend_from_slice(bytes);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
    };
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            biased;
            count = pipe.read(&mut buffer) => match count? {
                0 => break,
                count => keep(&buffer[..count]),
            },
            _ = &mut ended => {
                // What was written before the end is in the pipe by now.
                while let Ok(count @ 1..) = pipe.try_read(&mut buffer) {
                    keep(&buffer[..count]);
                }
                break;
            }
        }
    }
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

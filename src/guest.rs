//! What the backends lxc and pct share: an OCI bundle as an LXC guest.
//!
//! A guest begins with `nexcage-init`, which waits at its [`gate`] while the supervisor does what
//! has to be done between OCI's "created" and "running"; LXC does not know the difference.
//! What config.json asks for is divided by [`translate`] into LXC's configuration, what the init
//! does, what the supervisor does with cgroups and hooks, and what is refused.

mod binds;
pub mod exec;
pub mod fields;
pub mod gate;
pub mod hooks;
pub mod limits;
pub mod program;
pub mod resources;
pub mod seccomp;
pub mod terminal;
pub mod told;
pub mod translate;

use crate::backend::{Place, ProcessIo};
use crate::config::input::{self, Links};
use crate::error::{Context, Error, Kind, Result};
use crate::init::{self, Description};
use crate::spec::{self, systemd_cgroup};
use crate::stdio::ChildIo;
use crate::store::ProcessId;
use crate::sys::cgroup::Cgroup;
use crate::sys::handle::Process;
use crate::sys::inroot::Root;
use crate::sys::pidfd::{ExitSource, Foreign};
use crate::sys::{namespace, process, tty};
use gate::{AtGate, Gate};
use resources::DeviceRule;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use translate::{Driver, FileKind, Hooks, Host, Target, Translation};

/// One container's guest, as this process knows it.
pub struct Guest {
    place: Place,
    cgroup: String,
    live: Mutex<Live>,
    program: OnceLock<PathBuf>,
}

/// What there is of a guest that this process has made.
#[derive(Default)]
struct Live {
    waiting: Option<AtGate>,
    hooks: Hooks,
    init: Option<ProcessId>,
    limits: Option<Cgroup>,
    /// The device rules of the last update.
    devices: Option<Vec<DeviceRule>>,
    /// The hooks of kind poststop are owed: the guest was created.
    created: bool,
}

/// A guest that has not been started yet.
pub struct Prepared {
    /// What was made of config.json.
    pub translation: Translation,
    /// config.json, whole, as the guest gets it.
    pub spec: Value,
    terminal: bool,
    program: PathBuf,
    mounts: Vec<OwnedFd>,
}

/// A guest that LXC has been told to start.
pub struct Begun<Monitor, Arrived, Ended> {
    /// The gate for hooks that come before the guest's root is entered.
    pub hook_gate: Option<Gate>,
    /// LXC's monitor of the guest, once that runs.
    pub monitor: Monitor,
    /// The init's coming to the gate.
    pub arrived: Arrived,
    /// The guest's end before that, with the reason.
    pub ended: Ended,
    /// Who knows how the init will have ended.
    pub source: ExitSource,
}

impl Guest {
    /// A guest whose cgroup is `cgroup`, relative to each hierarchy's top; see [`cgroup_path`].
    /// `limits` is where it was found to be, if another process has made it.
    pub fn new(place: Place, cgroup: String, limits: Option<Cgroup>) -> Self {
        let live = Mutex::new(Live { limits, ..Live::default() });
        Self { place, cgroup, live, program: OnceLock::new() }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // Nothing in a critical section here can panic half way.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its cgroup, relative to each hierarchy's top, without a slash in front.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The folder of its gate, on the host.
    pub fn gate_folder(&self) -> PathBuf {
        self.place.folder.path().join("gate")
    }

    /// The folder of the gate that LXC's hook comes to, on the host.
    fn hook_folder(&self) -> PathBuf {
        self.place.folder.path().join("hooks")
    }

    /// Lets a root of the guest's that is not the host's come as far as its gate and the init's
    /// program: LXC looks at them as that user. Nobody can list the folders on the way.
    ///
    /// # Errors
    /// Names the folder.
    pub fn admit(&self, prepared: &Prepared) -> Result<()> {
        let (user, group) = prepared.translation.host_root();
        if (user, group) == (0, 0) {
            return Ok(());
        }
        let own = self.place.folder.path();
        // The namespace's and that of all state; the one with all copies of the init.
        let way = own.ancestors().skip(1).take(2).chain(prepared.program.ancestors().nth(2));
        for folder in way {
            let mode = fs::metadata(folder).context(|| folder.display())?.mode();
            fs::set_permissions(folder, Permissions::from_mode(mode | 0o011))
                .context(|| format!("let others through {}", folder.display()))?;
        }
        std::os::unix::fs::chown(own, None, Some(group))
            .and_then(|()| fs::set_permissions(own, Permissions::from_mode(0o710)))
            .context(|| format!("let the guest's root into {}", own.display()))
    }

    /// A second gate, for the moment before the guest's root is entered, and the line of LXC's
    /// configuration that leads there: where config.json has hooks for that moment.
    ///
    /// # Errors
    /// `InvalidArgument` for a folder whose path a shell would misread.
    pub fn hook_gate(&self, prepared: &mut Prepared) -> Result<Option<Gate>> {
        let Hooks { prestart, create_runtime, create_container, .. } = &prepared.translation.hooks;
        if prestart.is_empty() && create_runtime.is_empty() && create_container.is_empty() {
            return Ok(None);
        }
        let folder = self.hook_folder();
        let gate = Gate::open(&folder, prepared.translation.host_root())?;
        let socket = folder.join(init::protocol::SOCKET);
        // LXC takes the outer quotes off, and hands the rest to a shell.
        let words = [&prepared.program, Path::new("hook"), &socket].map(Path::to_string_lossy);
        if words.iter().any(|word| word.contains(['\'', '\n', '\\'])) {
            return Err(Error::invalid(format!(
                "state_dir has a quote or a line's end in it, so hooks cannot be run from {}",
                folder.display()
            )));
        }
        let [program, verb, socket] = words;
        let line = format!("lxc.hook.mount = \"'{program}' {verb} '{socket}'\"\n");
        prepared.translation.config.push_str(&line);
        Ok(Some(gate))
    }

    /// Runs the hooks that come before the guest's root is entered.
    async fn run_early_hooks(
        &self,
        gate: Gate,
        monitor: impl Fn() -> Option<i32>,
        hooks: &Hooks,
        spec: &Value,
    ) -> Result<()> {
        let above = |pid| init_above(pid, monitor()?);
        let check = |pid| match above(pid) {
            Some(_) => Ok(()),
            None => Err(Error::precondition(format!("process {pid} is no hook of this guest's"))),
        };
        let mut hook = gate.accept(check).await?;
        let init = above(hook.pid).unwrap_or_default();
        let state = self.state(spec, "creating", init);
        let bundle = &self.place.bundle;
        hooks::run("prestart", &hooks.prestart, bundle, &state).await?;
        hooks::run("createRuntime", &hooks.create_runtime, bundle, &state).await?;
        let first = init::First {
            start_hooks: hooks.create_container.clone(),
            state,
            ..init::First::default()
        };
        let bundle = bundle.to_string_lossy().into_owned();
        let process = init::Process { cwd: bundle, ..init::Process::default() };
        let description = Description { process, first: Some(first), exec: None };
        let null = || fs::File::options().read(true).write(true).open("/dev/null").map(Into::into);
        let io = ChildIo { stdin: null()?, stdout: null()?, stderr: null()? };
        hook.describe(&description, &io, &[]).await.context(|| "hook createContainer")
    }

    /// The cgroup with its limits, which may be above the one that its first process is in. LXC
    /// begins where pid 1 is, so it is found by the process, and by its path only before there is
    /// one.
    ///
    /// # Errors
    /// `NotFound` where it has none.
    pub fn limits(&self) -> Result<Cgroup> {
        let known = self.live().limits.clone();
        let found = match known {
            Some(known) => Some(known),
            None => Cgroup::at(&format!("/{}", self.cgroup))?,
        };
        found.ok_or_else(|| Error::not_found(format!("there is no cgroup {}", self.cgroup)))
    }

    fn program(&self, configured: Option<&Path>, state_dir: &Path) -> Result<&Path> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        let copy = program::private_copy(configured, state_dir)?;
        Ok(self.program.get_or_init(|| copy))
    }

    /// config.json, whole.
    ///
    /// # Errors
    /// `InvalidArgument` when it is not there or is no JSON.
    pub fn spec(&self) -> Result<Value> {
        let path = self.place.bundle.join("config.json");
        let text = input::read(&path, spec::MAX_SIZE, Links::Refuse)?
            .ok_or_else(|| Error::invalid(format!("{}: no such file", path.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))
    }

    /// Translates `spec`, a whole config.json, and makes the places in the root file system that
    /// mounts will go on.
    ///
    /// # Errors
    /// `InvalidArgument` with the JSON pointer of what is wrong, `Unimplemented` with that of what
    /// cannot be had.
    pub fn prepare(
        &self,
        spec: Value,
        driver: Driver,
        program: Option<&Path>,
        state_dir: &Path,
    ) -> Result<Prepared> {
        let rootfs = self.place.bundle.join(spec["root"]["path"].as_str().unwrap_or_default());
        let rootfs = rootfs.canonicalize().context(|| format!("look at {}", rootfs.display()))?;
        let root = Root::open(&rootfs)?;
        let program = self.program(program, state_dir)?.to_owned();
        let gate = self.gate_folder();
        let terminal = spec["process"]["terminal"].as_bool().unwrap_or_default();
        let translation = translate::translate(
            &spec,
            &Host {
                driver,
                cgroup2: is_unified(),
                bundle: &self.place.bundle,
                rootfs: &rootfs,
                gate: &gate,
                program: &program,
                cgroup: &self.cgroup,
                network: &format!("/proc/{}/ns/net", std::process::id()),
                console: terminal,
                resolve: &|path| root.resolve(path),
                exists: &kind_of,
            },
        )?;
        for note in &translation.notes {
            log::warn!(container = self.place.id.as_str(); "{note}");
        }
        for Target { base, path, kind } in &translation.targets {
            match base {
                Some(folder) => Root::open(folder)?.make(path, *kind)?,
                None => root.make(path, *kind)?,
            }
        }
        let mounts = binds::open(&translation.binds)?;
        Ok(Prepared { translation, spec, terminal, program, mounts })
    }

    /// Removes a cgroup of the guest's name that nobody is in: LXC would refuse to use it.
    ///
    /// # Errors
    /// `FailedPrecondition` when there are processes in it; when it cannot be removed.
    pub fn clear_cgroup(&self) -> Result<()> {
        if Cgroup::at(&format!("/{}", self.cgroup))?.is_some_and(|found| !found.pids().is_empty()) {
            return Err(Error::precondition(format!(
                "/linux/cgroupsPath: there are processes in the cgroup {} that are not this \
                 container's, and a guest of LXC needs one of its own",
                self.cgroup
            )));
        }
        for path in [self.cgroup.clone(), monitor_cgroup(&self.cgroup), pivot_cgroup(&self.cgroup)]
        {
            if let Some(found) = Cgroup::at(&format!("/{path}"))?
                && found.pids().is_empty()
            {
                found.remove()?;
            }
        }
        Ok(())
    }

    /// Waits for the init to come to the gate, and does everything up to OCI's "created".
    ///
    /// # Errors
    /// What went wrong; the guest is then to be deleted by force.
    pub async fn create(
        &self,
        prepared: Prepared,
        begun: Begun<
            impl Fn() -> Option<i32>,
            impl Future<Output = Result<AtGate>>,
            impl Future<Output = Error>,
        >,
        io: ProcessIo,
    ) -> Result<Process> {
        let Begun { hook_gate, monitor, arrived, ended, source } = begun;
        let Prepared { translation, spec, terminal, mounts, .. } = prepared;
        let mut ended = std::pin::pin!(ended);
        if let Some(gate) = hook_gate {
            tokio::select! {
                biased;
                done = self.run_early_hooks(gate, monitor, &translation.hooks, &spec) => done?,
                error = &mut ended => return Err(error),
            }
        }
        let mut at_gate = tokio::select! {
            biased;
            arrived = arrived => arrived?,
            error = &mut ended => return Err(error),
        };
        let pid = at_gate.pid;
        let limits = Cgroup::of(pid)?.map(|cgroup| cgroup.above(INNER_CGROUP));
        {
            let mut live = self.live();
            live.init = ProcessId::of(pid);
            live.limits = limits;
        }
        let init = Foreign::watch(pid, at_gate.pidfd()?, source)?;
        limits::apply(&self.limits()?, &translation.resources)?;
        let mut first = translation.first;
        first.state = self.state(&spec, "created", pid);
        let mut process = translation.process;
        if let Some(score) = process.oom_score_adj.take() {
            self.set_oom_score(pid, score)?;
        }
        (process.passed_fds, process.listen_fds) = io.more.counts()?;
        let description = Description { process, first: Some(first), exec: None };
        let (master, child) = terminal_or(terminal, &spec["process"], pid, io.child)?;
        // Mounts first: the process does not get them.
        let more: Vec<OwnedFd> = mounts.into_iter().chain(io.more.fds).collect();
        let described = tokio::select! {
            biased;
            described = at_gate.describe(&description, &child, &more) => described,
            error = &mut ended => Err(error),
        };
        described?;
        hand_over(master.as_ref(), io.console_socket.as_deref()).await?;
        let mut live = self.live();
        live.hooks = translation.hooks;
        live.waiting = Some(at_gate);
        live.created = true;
        Ok(Process::Foreign(init))
    }

    /// Sets the init's oom_score_adj (proc_pid_oom_score_adj(5)), which only the host's root may
    /// lower, and not a root of the guest's own.
    fn set_oom_score(&self, pid: i32, score: i32) -> Result<()> {
        let path = format!("/proc/{pid}/oom_score_adj");
        let init = self.live().init;
        let written = fs::File::options().write(true).open(&path).and_then(|mut file| {
            // Now, for what is open stays this process's.
            match init.is_some_and(|init| init.is_alive()) {
                true => file.write_all(score.to_string().as_bytes()),
                false => Err(ErrorKind::NotFound.into()),
            }
        });
        match written {
            // Without CAP_SYS_RESOURCE; that alone stops no container.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                log::warn!(container = self.place.id.as_str();
                    "/process/oomScoreAdj: write {score} to {path}: {error}; it stays as it is");
                Ok(())
            }
            other => other.context(|| format!("/process/oomScoreAdj: write {score} to {path}")),
        }
    }

    /// Lets the guest's init become the container's process.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn start(&self) -> Result<()> {
        let waiting = self.live().waiting.take();
        let waiting = waiting.ok_or_else(|| {
            Error::precondition("its init does not wait for this process: delete it")
        })?;
        let pid = waiting.pid;
        waiting.go().await?;
        let hooks = std::mem::take(&mut self.live().hooks.poststart);
        if !hooks.is_empty() {
            let state = self.state(&self.spec().unwrap_or_default(), "running", pid);
            if let Err(error) = hooks::run("poststart", &hooks, &self.place.bundle, &state).await {
                // The process runs already, and must not where the start is said to have failed.
                self.kill()?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Kills everything in the guest.
    ///
    /// # Errors
    /// When its cgroup cannot be read.
    pub fn kill(&self) -> Result<()> {
        match self.limits() {
            Ok(cgroup) => cgroup.kill_all(libc::SIGKILL).map(drop),
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The connection to the init that waits for the start.
    pub fn hand_over(&self) -> Option<OwnedFd> {
        self.live().waiting.take().and_then(|waiting| waiting.into_fd().ok())
    }

    /// Takes that connection in another process.
    ///
    /// # Errors
    /// When the guest's init has ended.
    pub fn take_over(&self, connection: OwnedFd) -> Result<()> {
        let init = self.live().init;
        let init = init.ok_or_else(|| Error::precondition("the guest has no init"))?;
        let at_gate = AtGate::from_fd(connection, init.pid)?;
        self.live().waiting = Some(at_gate);
        Ok(())
    }

    /// Takes what there is to know of a guest that another process has created: its init, and its
    /// hooks from config.json.
    pub fn recall(&self, init: ProcessId) {
        self.live().init = Some(init);
        match self.spec().and_then(|spec| translate::hooks_of(&spec)) {
            Ok(hooks) => {
                let mut live = self.live();
                live.hooks = hooks;
                live.created = true;
            }
            Err(error) => log::warn!(container = self.place.id.as_str();
                "its hooks of kind poststop do not run: {error}"),
        }
    }

    /// Runs the hooks of kind poststop, once; a failure is the log's.
    ///
    /// # Errors
    /// None: all of them run, whatever becomes of the one before (runtime-spec, "Poststop").
    pub async fn run_poststop(&self) -> Result<()> {
        let hooks = {
            let mut live = self.live();
            if !std::mem::take(&mut live.created) {
                return Ok(());
            }
            std::mem::take(&mut live.hooks.poststop)
        };
        if hooks.is_empty() {
            return Ok(());
        }
        let state = self.state(&self.spec().unwrap_or_default(), "stopped", 0);
        for hook in hooks {
            if let Err(error) = hooks::run("poststop", &[hook], &self.place.bundle, &state).await {
                log::warn!(container = self.place.id.as_str(); "{error}");
            }
        }
        Ok(())
    }

    /// Runs one more process in the guest, described by runtime-spec's `process` in JSON.
    ///
    /// # Errors
    /// What is wrong with it, or why it could not be run.
    pub async fn exec(
        &self,
        process: &[u8],
        program: Option<&Path>,
        state_dir: &Path,
        io: ProcessIo,
    ) -> Result<Process> {
        io.more.refuse_flags()?;
        let process: Value = serde_json::from_slice(process)
            .map_err(|error| Error::invalid(format!("the process of an exec: {error}")))?;
        let init = self.live().init.ok_or_else(|| {
            Error::precondition("this process did not make the guest and cannot exec in it")
        })?;
        let gone = || Error::not_found("the container's process has ended");
        // Whoever has its number now, if not it, is looked at in vain: nobody is joined.
        if !init.is_alive() {
            return Err(gone());
        }
        let joined = self.join(init, &process, program, state_dir, io).await;
        // Whatever it failed of then, in the middle of a guest that goes away, this is why.
        joined.map_err(|error| match process::is_exiting(init.pid) {
            true => gone().context(error),
            false => error,
        })
    }

    async fn join(
        &self,
        init: ProcessId,
        process: &Value,
        program: Option<&Path>,
        state_dir: &Path,
        io: ProcessIo,
    ) -> Result<Process> {
        let ProcessId { pid: init, start_time: init_started } = init;
        let cgroup = Cgroup::of(init)?;
        let (mut described, notes) = translate::exec_process(process, &self.spec()?)?;
        for note in notes {
            log::warn!(container = self.place.id.as_str(); "exec: {note}");
        }
        // It is not the one that systemd's sockets are for; crun passes them on without a word, too.
        (described.passed_fds, _) = io.more.counts()?;
        let description = Description {
            process: described,
            first: None,
            exec: Some(init::Exec {
                init,
                init_started,
                namespaces: namespace::apart(init).context(|| "look at the guest's namespaces")?,
                cgroups: cgroup.as_ref().map(Cgroup::files_to_join).unwrap_or_default(),
            }),
        };
        let terminal = process["terminal"].as_bool().unwrap_or_default();
        let (master, child) = terminal_or(terminal, process, init, io.child)?;
        let program = self.program(program, state_dir)?;
        let process = exec::exec(program, &description, &child, &io.more.fds).await?;
        hand_over(master.as_ref(), io.console_socket.as_deref()).await?;
        Ok(process)
    }

    /// Changes the guest's limits to runtime-spec's `linux.resources` in JSON.
    ///
    /// # Errors
    /// Names the value that the kernel does not take.
    pub fn update(&self, resources: &[u8]) -> Result<()> {
        let resources: Value = serde_json::from_slice(resources)
            .map_err(|error| Error::invalid(format!("the resources of an update: {error}")))?;
        let settings = resources::settings(&resources, is_unified())?;
        let limits = self.limits()?;
        self.update_devices(&resources, &limits)?;
        limits::apply(&limits, &settings)
    }

    /// Puts device rules in force, if they are not. Whoever wants to change a limit may send along
    /// all that config.json says, as containerd does.
    fn update_devices(&self, resources: &Value, limits: &Cgroup) -> Result<()> {
        let wanted = resources::devices(resources)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let last = self.live().devices.clone();
        let in_force = match last {
            Some(rules) => rules,
            None => resources::devices(&self.spec()?["linux"]["resources"])?,
        };
        if wanted == in_force {
            return Ok(());
        }
        limits::apply_devices(limits, &wanted)?;
        self.live().devices = Some(wanted);
        Ok(())
    }

    /// The OCI state, for hooks.
    fn state(&self, spec: &Value, status: &str, pid: i32) -> String {
        let mut state = json!({
            "ociVersion": spec["ociVersion"],
            "id": self.place.id.as_str(),
            "status": status,
            "bundle": self.place.bundle,
        });
        if pid != 0 {
            state["pid"] = pid.into();
        }
        if !spec["annotations"].is_null() {
            state["annotations"] = spec["annotations"].clone();
        }
        state.to_string()
    }
}

/// A terminal of the guest's, or the stdio there is.
fn terminal_or(
    terminal: bool,
    process: &Value,
    init: i32,
    child: ChildIo,
) -> Result<(Option<std::os::fd::OwnedFd>, ChildIo)> {
    if !terminal {
        return Ok((None, child));
    }
    let (master, io) = terminal::open(init)?;
    if let Some((width, height)) = translate::console_size(process)? {
        tty::resize(&master, width, height)?;
    }
    Ok((Some(master), io))
}

async fn hand_over(master: Option<&std::os::fd::OwnedFd>, socket: Option<&Path>) -> Result<()> {
    match (master, socket) {
        (Some(master), Some(socket)) => terminal::hand_over(master, socket).await,
        _ => Ok(()),
    }
}

/// Where the guest's cgroup is, relative to each hierarchy's top: as linux.cgroupsPath has it. One
/// for systemd (`slice:prefix:name`) becomes the folder that systemd would make.
///
/// # Errors
/// `InvalidArgument` for a path that leads out of the hierarchy.
pub fn cgroup_path(place: &Place, cgroups_path: Option<&str>) -> Result<String> {
    let Some(path) = cgroups_path else {
        return Ok(format!("nexcage/{}/{}", place.namespace.as_str(), place.id.as_str()));
    };
    let wrong = |problem: &str| {
        Error::invalid(format!(
            "/linux/cgroupsPath: {:?} {problem}",
            path.escape_debug().to_string()
        ))
    };
    if path.chars().any(char::is_control) {
        return Err(wrong("has a control character"));
    }
    let path = match systemd_cgroup(path) {
        Some([slice, prefix, name]) => format!("{}/{prefix}-{name}.scope", expand_slice(slice)),
        None => path.trim_matches('/').to_owned(),
    };
    if path.is_empty() || path.split('/').any(|word| matches!(word, "" | "." | "..")) {
        return Err(wrong("is no path of a cgroup"));
    }
    Ok(path)
}

/// systemd's folders of a slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn expand_slice(slice: &str) -> String {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    if name.is_empty() {
        return "system.slice".to_owned();
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    let folders: Vec<String> =
        ends.filter_map(|end| Some(format!("{}.slice", name.get(..end)?))).collect();
    folders.join("/")
}

/// Where LXC keeps a guest's processes, below the cgroup with the guest's limits; the name is
/// Proxmox VE's.
const INNER_CGROUP: &str = "ns";

/// The cgroup that LXC makes for the processes of a guest in `cgroup`, and removes when the first
/// of them has ended.
///
/// On cgroup v2 it is not the one with the limits: what the kernel has counted there, kills for
/// lack of memory among it, must outlast the guest until the supervisor has read it. Version 1
/// counts a kill where the process was, so a cgroup above that one would keep nothing.
pub fn processes_cgroup(cgroup: &str, cgroup2: bool) -> String {
    if cgroup2 { format!("{cgroup}/{INNER_CGROUP}") } else { cgroup.to_owned() }
}

/// What is put after a guest's cgroup for that of LXC's monitor.
pub const MONITOR_SUFFIX: &str = ".monitor";

/// The cgroup of LXC's monitor for a guest in `cgroup`.
pub fn monitor_cgroup(cgroup: &str) -> String {
    format!("{cgroup}{MONITOR_SUFFIX}")
}

/// What follows the guest's cgroup in the name of the one that LXC's monitor moves to once its
/// guest has ended, to remove the one it was in. LXC leaves it, and its own default is one for all
/// guests at the top.
pub const PIVOT_SUFFIX: &str = ".pivot";

/// See [`PIVOT_SUFFIX`].
pub fn pivot_cgroup(cgroup: &str) -> String {
    format!("{cgroup}{PIVOT_SUFFIX}")
}

/// Whether all controllers are those of cgroup v2 on this host.
pub fn is_unified() -> bool {
    use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
    statfs("/sys/fs/cgroup").is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Checks that whoever came to the gate is a child of `parent`, LXC's monitor.
///
/// # Errors
/// `FailedPrecondition` for anybody else.
pub fn check_parent(pid: i32, parent: i32) -> Result<()> {
    if process::parent(pid) == Some(parent) {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "process {pid} came to the gate, which is no child of LXC's monitor {parent}"
    )))
}

/// The guest's first process, which a hook of LXC's is a child or grandchild of: the child of the
/// monitor among its ancestors.
fn init_above(pid: i32, monitor: i32) -> Option<i32> {
    const DEEPEST: usize = 4;
    let parents = std::iter::successors(Some(pid), |&pid| process::parent(pid)).take(DEEPEST);
    let pairs: Vec<i32> = parents.collect();
    pairs.windows(2).find_map(|pair| match pair {
        [init, parent] if *parent == monitor && *init != pid => Some(*init),
        _ => None,
    })
}

/// What a path of the host is, links followed.
pub(crate) fn kind_of(path: &Path) -> Option<FileKind> {
    let found = fs::metadata(path).ok()?;
    let (major, minor) = (nix::sys::stat::major(found.rdev()), nix::sys::stat::minor(found.rdev()));
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let (major, minor) = (number(major), number(minor));
    let kind = found.file_type();
    Some(if kind.is_dir() {
        FileKind::Dir
    } else if kind.is_char_device() {
        FileKind::Char { major, minor }
    } else if kind.is_block_device() {
        FileKind::Block { major, minor }
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else {
        FileKind::File
    })
}

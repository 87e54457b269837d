//! Proxmox VE: containers as guests that `pct list` and the web interface show.
//!
//! The guest is the one that the backend lxc makes, with another driver: pct creates, starts and
//! destroys it, and everything between goes to the guest's init and its cgroup directly, because
//! each pct costs most of a second. What pct cannot express is in one file of LXC's configuration
//! that the guest's own includes. `pct suspend` is never used: it is CRIU, and kills what it
//! cannot save.
//!
//! A pct cannot be given up: killing it leaves a worker that goes on. So whoever has no more time
//! stops waiting, and the guest's removal waits for the one that is at work. The ledger
//! ([`crate::vmid`]) says what is left to be done if this process ends before that.

pub mod cluster;
pub mod failure;
pub mod guest;
pub mod monitord;
pub mod remove;
pub mod run;
pub mod template;
pub mod version;

use super::{Backend, Place, ProcessIo, background, oci};
use crate::config::{self, BackendName, Config};
use crate::error::{Context, Error, Kind, Result};
use crate::guest::gate::Gate;
use crate::guest::translate::Driver;
use crate::guest::{Begun, Guest as Shared, Prepared};
use crate::id::ExecId;
use crate::store::{Own, ProcessId};
use crate::sys::cgroup::Cgroup;
use crate::sys::command::Command;
use crate::sys::handle::Process;
use crate::sys::pidfd::{self, ExitSource};
use crate::sys::reaper::{self, Child};
use crate::vmid::reconcile::{self, Action, Mark, Options, apply, decide};
use crate::vmid::{self, Claim, Entry, Generation, Identity, Ledger, Stage};
use async_trait::async_trait;
use cluster::{Host, Listed};
use guest::{Guest, HostMemory, Limits, Root};
use monitord::Heard;
use remove::Remover;
use run::{Call, Tool};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use version::Version;

/// The annotation that gives a guest a network of Proxmox's: the value of `net0`.
pub const NETWORK_ANNOTATION: &str = "io.nexcage.pct.net0";

/// How long a Delete waits for the guest's destruction, which then goes on behind its back.
/// containerd gives a clean-up 5 s in all.
const ANSWER: Duration = Duration::from_secs(2);

/// The first id of the host that unprivileged guests of Proxmox VE have, and how many they have.
const SHIFT: u32 = 100_000;
const SHIFTED: u32 = 65_536;

/// How pct is called, and where things are.
#[derive(Clone, Debug)]
pub struct Settings {
    remover: Remover,
    pct: config::Pct,
    init: Option<PathBuf>,
    state_dir: PathBuf,
    data_dir: PathBuf,
    /// The kernel may be asked how a guest ended, where LXC's monitor daemon does not tell.
    kernel_tells: bool,
}

impl Settings {
    /// As the configuration has it.
    ///
    /// # Errors
    /// `Unavailable` when pct is not there.
    pub fn of(config: &Config) -> Result<Self> {
        let program = oci::find_program(BackendName::Pct, &config.pct.program)?;
        Ok(Self {
            remover: Remover { tool: Tool { program }, host: Host::default() },
            pct: config.pct.clone(),
            init: config.init_path.clone(),
            state_dir: config.state_dir.clone(),
            data_dir: config.data_dir.clone(),
            kernel_tells: pidfd::kernel_tells(),
        })
    }

    /// As a container was made with.
    pub fn recorded(own: &Own, place: &Place) -> Self {
        let tool = Tool { program: own.runtime.clone() };
        Self {
            remover: Remover { tool, host: Host::default() },
            pct: config::Pct::default(),
            init: own.init_path.clone(),
            state_dir: place.folder.path().ancestors().nth(2).unwrap_or(Path::new("/")).to_owned(),
            data_dir: own.runtime_root.clone(),
            kernel_tells: pidfd::kernel_tells(),
        }
    }

    fn ledger(&self) -> Ledger {
        Ledger::below(&self.data_dir)
    }

    fn host(&self) -> &Host {
        &self.remover.host
    }

    async fn list(&self) -> Result<BTreeMap<u32, Listed>> {
        self.host().ask(cluster::LONG, Host::list).await
    }

    /// Finishes what others left unfinished: guests whose containers were deleted, and ids whose
    /// guests never came to be. What somebody has to decide is left to `nexcage vmid reconcile`.
    async fn finish_leftovers(&self) -> Result<()> {
        let ledger = self.ledger();
        let boot_id = vmid::boot_id()?;
        if ledger.list()?.entries.iter().all(|entry| entry.has_owner(&boot_id)) {
            return Ok(());
        }
        let seen = self.remover.look(&ledger, &self.state_dir).await?;
        let mut actions = decide(&seen);
        actions.retain(|action| matches!(action, Action::Free(..) | Action::Finish(_)));
        for outcome in apply(actions, &ledger, Options::default(), &self.remover).await {
            match outcome.error {
                Some(error) => log::warn!("{}: {error}", outcome.action),
                None => log::info!("{}", outcome.action),
            }
        }
        Ok(())
    }
}

/// One container's guest.
pub struct Pct {
    place: Place,
    settings: Settings,
    /// Another process made the container and is gone.
    reopened: bool,
    made: Mutex<Made>,
}

/// What there is of the guest so far.
#[derive(Default)]
struct Made {
    entry: Option<Entry>,
    shared: Option<Arc<Shared>>,
    /// The last pct that was started and may still be at work.
    call: Option<Child>,
    /// Where a watcher will hear how the guest ended, if one takes over from this process.
    teller: Option<OwnedFd>,
    /// The init of a guest that another process has created; its hooks of kind poststop are owed.
    recorded: Option<ProcessId>,
}

impl Pct {
    /// Touches nothing yet.
    pub fn new(place: Place, settings: Settings) -> Self {
        Self { place, settings, reopened: false, made: Mutex::default() }
    }

    /// As [`Pct::new`], for a container that another process made.
    pub fn reopen(place: Place, own: &Own) -> Self {
        let settings = Settings::recorded(own, &place);
        let pct = Self { reopened: true, ..Self::new(place, settings) };
        pct.made().recorded = own.init;
        pct
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        // Nothing in a critical section here can panic half way.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest of this container's generation, as the ledger has it; `None` when there is none.
    fn entry(&self) -> Result<Option<Entry>> {
        if let Some(entry) = &self.made().entry {
            return Ok(Some(entry.clone()));
        }
        let Some((vmid, generation)) = vmid::noted_in(&self.place.folder)? else {
            return Ok(None);
        };
        match self.settings.ledger().read(vmid) {
            Ok(entry) => Ok(Some(entry).filter(|entry| entry.identity.generation == generation)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn shared(&self) -> Result<Arc<Shared>> {
        if let Some(shared) = &self.made().shared {
            return Ok(shared.clone());
        }
        let noted = vmid::noted_in(&self.place.folder)?;
        let (vmid, _) = noted.ok_or_else(|| Error::not_found("it has no guest"))?;
        let shared = Arc::new(Shared::new(self.place.clone(), cgroup(vmid), None));
        let mut made = self.made();
        if let Some(init) = made.recorded {
            shared.recall(init);
        }
        Ok(made.shared.insert(shared).clone())
    }

    /// The file of LXC's configuration that the guest's own includes.
    fn include(&self) -> PathBuf {
        self.place.folder.path().join("guest.conf")
    }

    fn start_call(
        &self,
        verb: &'static str,
        vmid: u32,
        args: impl IntoIterator<Item = String>,
    ) -> Result<Call> {
        let call = self.settings.remover.tool.start(verb, vmid, args)?;
        self.made().call = Some(call.child());
        Ok(call)
    }

    /// Reserves ids until a guest of one of them has been made.
    async fn make(&self) -> Result<Ready> {
        let settings = &self.settings;
        if let Some(version) = Version::of_host() {
            version.check()?;
        }
        check_mounts(Path::new("/proc/self/ns/mnt"), Path::new("/proc/1/ns/mnt"))?;
        let identity = Identity {
            namespace: self.place.namespace.clone(),
            id: self.place.id.clone(),
            generation: Generation::new()?,
        };
        let claim = Claim { identity, bundle: self.place.bundle.clone() };
        let (ledger, range) = (settings.ledger(), settings.pct.vmid_min..=settings.pct.vmid_max);
        let mut taken: BTreeSet<u32> = settings.list().await?.into_keys().collect();
        loop {
            let entry = ledger.reserve(range.clone(), &taken, &claim)?;
            self.made().entry = Some(entry.clone());
            match self.make_one(&entry).await {
                // Whoever else has the id, it is not this container: another one is tried. Any
                // other failure may have left something, which the undoing removes.
                Err(error)
                    if error.kind() == Kind::AlreadyExists && !self.is_ours(&entry).await? =>
                {
                    log::info!(container = self.place.id.as_str(); "{error}; the next id is tried");
                    taken.insert(entry.vmid);
                    self.made().entry = None;
                    ledger.release(entry.vmid, &entry.identity.generation)?;
                }
                made => return made,
            }
        }
    }

    async fn is_ours(&self, entry: &Entry) -> Result<bool> {
        let vmid = entry.vmid;
        let mark = self.settings.host().ask(cluster::SHORT, move |host| host.mark(vmid)).await?;
        Ok(matches!(mark, Some(Mark::Ours(identity)) if identity == entry.identity))
    }

    /// Whether everything in the guest's cgroup is this container's. Where the cluster cannot be
    /// asked, who has made the guest knows.
    async fn may_kill(&self, entry: &Entry) -> bool {
        self.is_ours(entry).await.unwrap_or_else(|_| self.made().entry.is_some())
    }

    /// Makes the guest of an id: after this there is one, and it has not been started.
    async fn make_one(&self, entry: &Entry) -> Result<Ready> {
        let (settings, vmid) = (&self.settings, entry.vmid);
        // From here on the folder says which guest must not be taken for a stale one.
        vmid::note_in(&self.place.folder, entry)?;
        let shared = Arc::new(Shared::new(self.place.clone(), cgroup(vmid), None));
        self.made().shared = Some(shared.clone());
        let spec = shared.spec()?;
        let rootfs = self.rootfs(&spec)?;
        let privilege =
            privilege(settings.pct.unprivileged, settings.pct.storage.is_some(), &spec, &rootfs)?;
        let init = settings.init.as_deref();
        let spec = with_users(spec, &privilege);
        let mut prepared = shared.prepare(spec, Driver::Pct, init, &settings.state_dir)?;
        shared.admit(&prepared)?;
        self.warn_of_strangers(&prepared, &rootfs)?;
        // An earlier id's, which somebody else had.
        remove_folder(&shared.gate_folder())?;
        let hook_gate = shared.hook_gate(&mut prepared)?;
        let gate = Gate::open(&shared.gate_folder(), privilege.root)?;
        write_private(&self.include(), &prepared.translation.config)?;
        let guest = self.guest(entry, &prepared.spec, &rootfs, &privilege)?;
        match (&guest.root, settings.pct.direct_config) {
            (Root::Bind(_), true) => settings.host().make(vmid, guest.text()).await?,
            (Root::Bind(_), false) => {
                let template = template::ensure(&settings.data_dir)?;
                self.create_by_pct(&guest, &template).await?;
            }
            (Root::Volume { storage, .. }, _) => {
                if privilege.is_mapped {
                    return Err(Error::unimplemented(
                        "/linux/uidMappings: with pct.storage the root is copied, and one whose \
                         owners are shifted already would be shifted twice: set \
                         pct.unprivileged instead of a user namespace, or unset pct.storage",
                    ));
                }
                let archive = settings.ledger().temporary(".tar")?;
                self.pack(&rootfs, archive.path()).await?;
                log::info!(container = self.place.id.as_str();
                    "copy its root to the storage {storage} as that of guest {vmid}");
                self.create_by_pct(&guest, archive.path()).await?;
            }
        }
        let entry = settings.ledger().set_stage(entry, Stage::Made)?;
        self.made().entry = Some(entry);
        Ok(Ready { vmid, shared, prepared, gate, hook_gate })
    }

    /// Says so when nothing in the root belongs to the guest: crun and runc run such a container.
    fn warn_of_strangers(&self, prepared: &Prepared, rootfs: &Path) -> Result<()> {
        let idmap = &prepared.translation.idmap;
        let owner = fs::metadata(rootfs).context(|| format!("look at {}", rootfs.display()))?;
        let has = |groups: bool, id: u32| {
            idmap.iter().any(|range| {
                let inside = id.checked_sub(range.host).is_some_and(|id| id < range.size);
                range.groups == groups && inside
            })
        };
        let fits = has(false, owner.uid()) && has(true, owner.gid());
        if !(fits || idmap.is_empty() || self.settings.pct.storage.is_some()) {
            log::warn!(container = self.place.id.as_str();
                "root.path: {} belongs to {}:{}, which linux.uidMappings and linux.gidMappings \
                 give to nobody in the guest: it can only read there what everybody can; have \
                 the root's owners shifted to the mapping",
                rootfs.display(), owner.uid(), owner.gid());
        }
        Ok(())
    }

    fn rootfs(&self, spec: &Value) -> Result<PathBuf> {
        let path = self.place.bundle.join(spec["root"]["path"].as_str().unwrap_or_default());
        // pct takes no symbolic link in it.
        path.canonicalize().context(|| format!("look at {}", path.display()))
    }

    fn guest(
        &self,
        entry: &Entry,
        spec: &Value,
        rootfs: &Path,
        privilege: &Privilege,
    ) -> Result<Guest> {
        let pct = &self.settings.pct;
        let root = match &pct.storage {
            Some(storage) => guest::volume(storage, pct.disk_size)?,
            None => guest::bind_root(rootfs)?,
        };
        let limits = limits(&spec["linux"]["resources"])?;
        Ok(Guest {
            vmid: entry.vmid,
            identity: entry.identity.clone(),
            root,
            hostname: guest::hostname(spec["hostname"].as_str(), &self.place.id),
            unprivileged: privilege.unprivileged,
            limits: limits.shown(host_memory()?),
            idmap: privilege.idmap.clone(),
            network: network(spec, Version::of_host())?,
            include: self.include(),
        })
    }

    async fn create_by_pct(&self, guest: &Guest, archive: &Path) -> Result<()> {
        let call = self.start_call("create", guest.vmid, guest.arguments(archive))?;
        self.settings.host().while_it_answers(call.finish()).await?;
        let lines = guest.raw_lines();
        let change = move |text: &str| cluster::with_lines(text, &lines);
        self.settings.host().rewrite(guest.vmid, change).await
    }

    /// Packs the root for pct to unpack on a storage.
    async fn pack(&self, rootfs: &Path, archive: &Path) -> Result<()> {
        let id = self.place.id.as_str();
        log::info!(container = id; "pack its root {} for a storage", rootfs.display());
        let child = Command::new("tar")
            .args(["--create", "--numeric-owner", "--xattrs", "--acls", "--sparse", "--file"])
            .arg(archive)
            .arg("--directory")
            .arg(rootfs)
            .arg(".")
            .die_with_parent()
            .spawn()?;
        let exit = child.exited().await;
        if exit.status != 0 {
            return Err(Error::unknown(format!(
                "tar of {} to {} ended with status {}: is there room for a copy of the root?",
                rootfs.display(),
                archive.display(),
                exit.status
            )));
        }
        let size = fs::metadata(archive)?.len() >> 20;
        log::info!(container = id; "packed {size} MiB");
        Ok(())
    }

    /// Ends, with the reason, when the guest does.
    async fn ended(
        &self,
        vmid: u32,
        call: Call,
        stopped: tokio::sync::oneshot::Receiver<()>,
    ) -> Error {
        let failed = self.settings.host().while_it_answers(call.finish()).await.err();
        if let Some(error) = &failed {
            // It also says that of a guest which it lost sight of, or which is about to stop.
            match self.settings.host().is_running(vmid) {
                Ok(true) => log::warn!(container = self.place.id.as_str(); "{error}"),
                _ => return error.clone(),
            }
        }
        let silent = || Error::unknown(format!("the guest {vmid} stopped before it was ready"));
        match stopped.await {
            Ok(()) => failed.unwrap_or_else(silent),
            // Without the daemon nobody tells; the init's socket does, a moment later.
            Err(_) => std::future::pending().await,
        }
    }

    /// Has the guest destroyed, and waits for that as long as a Delete may.
    async fn remove(&self, entry: &Entry, force: bool) -> Result<()> {
        let until = tokio::time::Instant::now() + ANSWER;
        let (settings, vmid) = (self.settings.clone(), entry.vmid);
        let ledger = settings.ledger();
        // First of all: whatever stands in the way from here on, it is known what is to be done.
        let entry = match ledger.set_stage(entry, Stage::Destroying) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            entry => entry?,
        };
        if force && self.may_kill(&entry).await {
            self.shared()?.kill()?;
        }
        let call = self.made().call.clone();
        let (answered, is_answered) = tokio::sync::oneshot::channel();
        background::spawn(async move {
            if let Some(call) = call {
                call.exited().await;
            }
            let done = match reconcile::remove(&ledger, &entry, &settings.remover).await {
                // Somebody else was faster.
                Err(error) if error.kind() == Kind::NotFound => Ok(()),
                done => done.map(drop),
            };
            if let Err(Err(error)) = answered.send(done) {
                log::error!(container = entry.identity.id.as_str();
                    "{error}; `nexcage vmid reconcile` tries again");
            }
        });
        match tokio::time::timeout_at(until, is_answered).await {
            // Nobody would ask again, and the rest of the container need not stay for it.
            Ok(Ok(Err(error))) if self.reopened => {
                log::warn!(container = self.place.id.as_str();
                    "{error}; the next nexcage or `nexcage vmid reconcile` tries again");
                Ok(())
            }
            Ok(done) => done.map_err(|_| Error::unknown("the guest's removal was given up"))?,
            Err(_) => {
                log::info!(container = self.place.id.as_str();
                    "the guest {vmid} is still being destroyed; if this process ends before \
                     that, the next one or `nexcage vmid reconcile` finishes it");
                Ok(())
            }
        }
    }

    /// Everything up to OCI's "created".
    async fn run(&self, io: ProcessIo) -> Result<Process> {
        let Ready { vmid, shared, prepared, gate, hook_gate } = self.make().await?;
        // Also where the kernel tells how it ends: without the daemon pct does not see a guest
        // start, and says so in words that help nobody.
        let Heard { exit, stopped } = monitord::listen(monitord::connect()?, vmid)?;
        if reaper::leaves_to_others() {
            self.made().teller = Some(monitord::connect()?);
        }
        let kernel = self.settings.kernel_tells;
        let source = ExitSource { told: exit, kernel, end_parent: None };
        let call = self.start_call("start", vmid, ["start".to_owned(), vmid.to_string()])?;
        let arrived = gate.accept(|pid| check_member(pid, vmid));
        let ended = self.ended(vmid, call, stopped);
        let monitor = || monitor_of(vmid);
        let begun = Begun { hook_gate, monitor, arrived, ended, source };
        let process = shared.create(prepared, begun, io).await?;
        let settings = self.settings.clone();
        background::spawn(async move {
            if let Err(error) = settings.finish_leftovers().await {
                log::warn!("look for guests that were left behind: {error}");
            }
        });
        Ok(process)
    }
}

/// A guest that can be started.
struct Ready {
    vmid: u32,
    shared: Arc<Shared>,
    prepared: Prepared,
    gate: Gate,
    hook_gate: Option<Gate>,
}

#[async_trait]
impl Backend for Pct {
    fn name(&self) -> &'static str {
        BackendName::Pct.as_str()
    }

    fn record(&self, own: &mut Own) {
        own.runtime.clone_from(&self.settings.remover.tool.program);
        own.runtime_root.clone_from(&self.settings.data_dir);
        own.init_path.clone_from(&self.settings.init);
        // Guests lie below Proxmox's own cgroup, whatever config.json wants.
        own.cgroups_path = None;
    }

    async fn create(&self, io: ProcessIo) -> Result<Process> {
        self.run(io).await.context(called)
    }

    async fn start(&self) -> Result<()> {
        self.shared()?.start().await.context(called)
    }

    async fn delete(&self, force: bool) -> Result<()> {
        if let Some(entry) = self.entry()? {
            self.remove(&entry, force).await?;
        }
        // Also of a guest that somebody else has removed.
        match self.shared() {
            Ok(shared) => shared.run_poststop().await,
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn exec(&self, _: &ExecId, process: &[u8], io: ProcessIo) -> Result<Process> {
        let settings = &self.settings;
        let init = settings.init.as_deref();
        self.shared()?.exec(process, init, &settings.state_dir, io).await.context(called)
    }

    fn cgroup(&self) -> Option<Cgroup> {
        self.shared().and_then(|shared| shared.limits()).ok()
    }

    fn hand_over(&self) -> Option<OwnedFd> {
        self.shared().ok()?.hand_over()
    }

    fn take_over(&self, kept: OwnedFd) -> Result<()> {
        self.shared()?.take_over(kept)
    }

    fn teller(&self) -> Option<OwnedFd> {
        self.made().teller.take()
    }

    fn watch(&self, told: Option<OwnedFd>) -> Result<ExitSource> {
        if let Some(entry) = self.entry()? {
            // As long as the guest runs, the id is in the hands of a process that lives.
            self.settings.ledger().set_stage(&entry, entry.stage)?;
        }
        let noted = vmid::noted_in(&self.place.folder)?;
        let Some((told, (vmid, _))) = told.zip(noted) else { return Ok(ExitSource::at_hand()) };
        let Heard { exit, .. } = monitord::listen(told, vmid)?;
        let kernel = self.settings.kernel_tells;
        Ok(ExitSource { told: exit, kernel, end_parent: None })
    }

    async fn pause(&self) -> Result<()> {
        self.shared()?.limits()?.freeze()
    }

    async fn resume(&self) -> Result<()> {
        self.shared()?.limits()?.thaw()
    }

    async fn update(&self, resources: &[u8]) -> Result<()> {
        self.shared()?.update(resources)?;
        let Some(entry) = self.entry()? else { return Ok(()) };
        let resources = serde_json::from_slice(resources).unwrap_or_default();
        let values = limits(&resources)?.changed(host_memory()?);
        // What counts is done; this is for people to see.
        let change = move |text: &str| cluster::with_values(text, &values);
        let shown = self.settings.host().rewrite(entry.vmid, change);
        if let Err(error) = shown.await {
            log::warn!(container = self.place.id.as_str(); "show the new limits: {error}");
        }
        Ok(())
    }
}

/// What errors begin with.
fn called() -> String {
    Version::of_host()
        .map_or_else(|| "pct".to_owned(), |version| format!("pct of Proxmox VE {version}"))
}

/// Checks that what is mounted for this process is mounted for systemd, too, under which guests
/// are started: they would find an empty folder for their root.
fn check_mounts(own: &Path, first: &Path) -> Result<()> {
    match (fs::read_link(own), fs::read_link(first)) {
        (Ok(own), Ok(first)) if own != first => Err(Error::precondition(
            "containerd has mounts of its own, which the guests of Proxmox VE do not see: remove \
             PrivateMounts, MountFlags, ProtectSystem and the like from its unit",
        )),
        // Whoever may not look is not told.
        _ => Ok(()),
    }
}

/// Where Proxmox VE puts a guest's limits; its processes are below that.
fn cgroup(vmid: u32) -> String {
    format!("lxc/{vmid}")
}

/// Checks that whoever came to the gate is in the guest.
fn check_member(pid: i32, vmid: u32) -> Result<()> {
    let members = Cgroup::at(&format!("/{}", cgroup(vmid)))?.map(|found| found.pids());
    if members.is_some_and(|members| members.contains(&pid)) {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "process {pid} came to the gate, which is not in the guest {vmid}"
    )))
}

/// LXC's monitor of a guest that runs.
fn monitor_of(vmid: u32) -> Option<i32> {
    Cgroup::at(&format!("/lxc.monitor/{vmid}")).ok()??.pids().first().copied()
}

/// How a guest's users are the host's.
#[derive(Debug, PartialEq, Eq)]
struct Privilege {
    unprivileged: bool,
    /// The bundle says how.
    is_mapped: bool,
    /// Lines of `lxc.idmap`, where pct's own are others.
    idmap: Vec<String>,
    /// Who is root in the guest, as the host sees it.
    root: (u32, u32),
}

/// Whether the guest is unprivileged, and that its root fits to that. A root that is copied to a
/// storage is shifted on the way.
fn privilege(
    wanted: Option<bool>,
    is_copied: bool,
    spec: &Value,
    rootfs: &Path,
) -> Result<Privilege> {
    let namespaces = spec["linux"]["namespaces"].as_array().map_or(&[][..], Vec::as_slice);
    let is_mapped = namespaces.iter().any(|namespace| namespace["type"] == "user");
    let own = |kind| (format!("{kind} 0 {SHIFT} {SHIFTED}"), (SHIFT, SHIFT));
    match (wanted, is_mapped) {
        (Some(false), true) => Err(Error::invalid(
            "/linux/namespaces: the bundle has a user namespace, and pct.unprivileged is false: \
             unset one of them",
        )),
        (Some(false) | None, false) => {
            Ok(Privilege { unprivileged: false, is_mapped, idmap: Vec::new(), root: (0, 0) })
        }
        (Some(true), false) => {
            let owner = fs::metadata(rootfs).context(|| format!("look at {}", rootfs.display()))?;
            let shifted = SHIFT..SHIFT + SHIFTED;
            let fits = shifted.contains(&owner.uid()) && shifted.contains(&owner.gid());
            if !fits && !is_copied {
                return Err(Error::precondition(format!(
                    "root.path: {} belongs to {}:{}, and pct.unprivileged makes the ids of a guest \
                     {SHIFT} and above on the host, so that nothing in it would belong to the \
                     guest: let containerd shift the root by giving the container a user \
                     namespace, set pct.storage to have it copied, or set pct.unprivileged to \
                     false",
                    rootfs.display(),
                    owner.uid(),
                    owner.gid()
                )));
            }
            let (_, root) = own("u");
            Ok(Privilege { unprivileged: true, is_mapped, idmap: Vec::new(), root })
        }
        (Some(true) | None, true) => {
            let linux = &spec["linux"];
            let (users, user) = mapping("u", &linux["uidMappings"], "/linux/uidMappings")?;
            let (groups, group) = mapping("g", &linux["gidMappings"], "/linux/gidMappings")?;
            let mut idmap = users;
            idmap.extend(groups);
            if idmap == [own("u").0, own("g").0] {
                idmap.clear();
            }
            Ok(Privilege { unprivileged: true, is_mapped, idmap, root: (user, group) })
        }
    }
}

/// config.json with the user namespace that an unprivileged guest has, whoever asked for it: what
/// such a guest can have depends on that.
fn with_users(mut spec: Value, privilege: &Privilege) -> Value {
    if !privilege.unprivileged || privilege.is_mapped {
        return spec;
    }
    let linux = &mut spec["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "user" }));
    }
    let mappings = json!([{ "containerID": 0, "hostID": SHIFT, "size": SHIFTED }]);
    linux["uidMappings"] = mappings.clone();
    linux["gidMappings"] = mappings;
    spec
}

/// The lines of `lxc.idmap` for runtime-spec's mappings, and who on the host is 0 in the guest.
fn mapping(kind: &str, mappings: &Value, pointer: &str) -> Result<(Vec<String>, u32)> {
    let wrong = || Error::invalid(format!("{pointer}: 0 must be mapped, with all three numbers"));
    let (mut lines, mut root) = (Vec::new(), None);
    for mapping in mappings.as_array().ok_or_else(wrong)? {
        let number = |key: &str| {
            mapping[key].as_u64().and_then(|number| u32::try_from(number).ok()).ok_or_else(wrong)
        };
        let (inside, outside, size) = (number("containerID")?, number("hostID")?, number("size")?);
        if inside == 0 {
            root = Some(outside);
        }
        lines.push(format!("{kind} {inside} {outside} {size}"));
    }
    Ok((lines, root.ok_or_else(wrong)?))
}

/// The network that an annotation asks for.
fn network(spec: &Value, version: Option<Version>) -> Result<Option<String>> {
    let Some(network) = spec["annotations"][NETWORK_ANNOTATION].as_str() else { return Ok(None) };
    let wrong = |problem: &str| {
        Err(Error::invalid(format!(
            "annotation {NETWORK_ANNOTATION}: {} {problem}",
            config::input::quoted(network)
        )))
    };
    if !network.is_ascii() || network.bytes().any(|byte| byte.is_ascii_control()) {
        return wrong("has a character that pct garbles");
    }
    if !network.split(',').any(|part| part.starts_with("name=")) {
        return wrong("has no name=: wanted is what `pct set --net0` takes");
    }
    let managed = network.split(',').any(|part| part.starts_with("host-managed="));
    if let Some(version) = version.filter(|version| managed && *version < version::HOST_MANAGED) {
        return wrong(&format!(
            "has host-managed, which Proxmox VE {version} does not know: leave it out and \
             configure the network in the container, or upgrade to {} or newer",
            version::HOST_MANAGED
        ));
    }
    let namespaces = spec["linux"]["namespaces"].as_array().map_or(&[][..], Vec::as_slice);
    let own = |namespace: &Value| {
        namespace["type"] == "network" && namespace["path"].as_str().unwrap_or_default().is_empty()
    };
    if !namespaces.iter().any(own) {
        return wrong("is for a container with a network namespace of its own, and it has none");
    }
    Ok(Some(network.to_owned()))
}

/// runtime-spec's `linux.resources`, as far as Proxmox shows it.
fn limits(resources: &Value) -> Result<Limits> {
    if resources.is_null() {
        return Ok(Limits::default());
    }
    serde_json::from_value(resources.clone())
        .map_err(|error| Error::invalid(format!("/linux/resources: {error}")))
}

fn host_memory() -> Result<HostMemory> {
    const SOURCE: &str = "/proc/meminfo";
    let text = fs::read_to_string(SOURCE).context(|| format!("read {SOURCE}"))?;
    Ok(HostMemory::parse(&text))
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .context(|| format!("write {}", path.display()))
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_namespace(host: u32) -> Value {
        let map = json!([{"containerID": 0, "hostID": host, "size": 65536}]);
        json!({"linux": {"namespaces": [{"type": "user"}], "uidMappings": map, "gidMappings": map}})
    }

    #[test]
    fn a_guest_is_unprivileged_where_its_root_allows_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let of = |wanted, spec: &Value| privilege(wanted, false, spec, root);
        let plain =
            Privilege { unprivileged: false, is_mapped: false, idmap: vec![], root: (0, 0) };
        assert_eq!(of(None, &json!({})).unwrap(), plain);
        assert_eq!(of(Some(false), &json!({})).unwrap(), plain);
        let error = of(Some(true), &json!({})).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains("belongs to 0:0"), "{error}");
        let copied = privilege(Some(true), true, &json!({}), root).unwrap();
        assert!(copied.unprivileged, "{copied:?}");
        std::os::unix::fs::chown(root, Some(SHIFT), Some(SHIFT)).unwrap();
        let shifted = Privilege { unprivileged: true, root: (SHIFT, SHIFT), ..plain };
        assert_eq!(of(Some(true), &json!({})).unwrap(), shifted);
        let mapped = Privilege { is_mapped: true, ..shifted };
        assert_eq!(of(None, &user_namespace(SHIFT)).unwrap(), mapped);
        let idmap = ["u 0 200000 65536", "g 0 200000 65536"].map(str::to_owned).to_vec();
        let other = Privilege { idmap, root: (200_000, 200_000), ..mapped };
        assert_eq!(of(Some(true), &user_namespace(200_000)).unwrap(), other);
        assert!(of(Some(false), &user_namespace(SHIFT)).is_err());
        let mut broken = user_namespace(SHIFT);
        broken["linux"]["gidMappings"][0]["containerID"] = json!(1);
        let error = of(None, &broken).unwrap_err().to_string();
        assert!(error.starts_with("/linux/gidMappings: "), "{error}");
    }

    #[test]
    fn a_containerd_with_mounts_of_its_own_is_told_so_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let [own, first] = ["own", "first"].map(|name| folder.path().join(name));
        check_mounts(&own, &first).unwrap();
        std::os::unix::fs::symlink("mnt:[1]", &own).unwrap();
        std::os::unix::fs::symlink("mnt:[2]", &first).unwrap();
        check_mounts(&own, &own).unwrap();
        assert_eq!(check_mounts(&own, &first).unwrap_err().kind(), Kind::FailedPrecondition);
    }

    #[test]
    fn a_network_of_proxmoxs_is_for_a_network_namespace_of_ones_own() {
        let spec = |value: &str, namespace: Value| {
            json!({"annotations": {NETWORK_ANNOTATION: value},
                   "linux": {"namespaces": [namespace]}})
        };
        let own = json!({"type": "network"});
        let network = |spec: &Value| super::network(spec, None);
        assert_eq!(network(&json!({})).unwrap(), None);
        let good = "name=eth0,bridge=vmbr0,ip=10.9.9.2/24";
        assert_eq!(network(&spec(good, own.clone())).unwrap().unwrap(), good);
        let shared = json!({"type": "network", "path": "/run/netns/pod"});
        for spec in [
            spec("name=eth0\nlxc.hook.start: /x", own.clone()),
            spec("bridge=vmbr0", own),
            spec(good, shared),
            spec(good, json!({"type": "pid"})),
        ] {
            let error = network(&spec).unwrap_err().to_string();
            assert!(error.contains(NETWORK_ANNOTATION) && !error.contains('\n'), "{error}");
        }
    }
}

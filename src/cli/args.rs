//! What can be typed: one definition, from which the parser, the help, the completions and the
//! man pages are made.
//!
//! The OCI verbs and their flags are those that runc 1.1 and crun 1.x share, and what podman,
//! CRI-O, conmon and containerd's stock shim call them with.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Runs OCI containers on crun, runc, LXC and Proxmox VE.
#[derive(Debug, Parser)]
#[command(name = "nexcage", version, disable_version_flag = true, propagate_version = false)]
#[command(max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that stand before the verb.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Folder of the containers' state
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File to write errors and warnings to, instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How log lines are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The least severe level that is logged (error, warning, info, debug)
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Log what is done, too
    #[arg(long)]
    pub debug: bool,
    /// Have systemd make the cgroups (cgroupsPath is slice:prefix:name)
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Who makes the cgroups
    #[arg(long, value_name = "MANAGER", value_enum, hide = true)]
    pub cgroup_manager: Option<CgroupManager>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The backend to use, before any rule: crun, runc, lxc or pct
    #[arg(long, value_name = "BACKEND")]
    pub runtime_type: Option<String>,
    /// The namespace the container is in
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Ignored, as runc does: criu is found in PATH
    #[arg(long, value_name = "FILE", hide = true)]
    pub criu: Option<PathBuf>,
    /// Print the version
    #[arg(short = 'v', long)]
    pub version: bool,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One object per line, with level, msg and time
    Json,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum CgroupManager {
    /// The runtime itself
    Cgroupfs,
    /// systemd
    Systemd,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a container, up to the point where its process waits for the start
    Create(Create),
    /// Let a created container's process run
    Start {
        /// The container's id
        id: String,
    },
    /// Make and start a container, and wait for its end
    Run(Run),
    /// Print a container's state as JSON
    State {
        /// The container's id
        id: String,
    },
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Remove a container that has stopped
    Delete {
        /// The container's id
        id: String,
        /// Kill it first; one that does not exist is no error
        #[arg(short, long)]
        force: bool,
    },
    /// Run one more process in a container
    Exec(Exec),
    /// List containers
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        format: Format,
        /// Print ids alone
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the processes of a container
    Ps {
        /// The container's id
        id: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        format: Format,
        /// Arguments of ps(1), `-ef` unless given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Write a config.json to start from
    Spec {
        /// Folder to write it to
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        bundle: PathBuf,
        /// For a user who is not root
        #[arg(long)]
        rootless: bool,
    },
    /// Freeze every process of a container
    Pause {
        /// The container's id
        id: String,
    },
    /// Thaw every process of a container
    Resume {
        /// The container's id
        id: String,
    },
    /// Change a container's limits
    Update(Box<Update>),
    /// Print a container's statistics and the kills for lack of memory
    Events {
        /// The container's id
        id: String,
        /// Time between two statistics: 5s, 500ms, 1m
        #[arg(long, value_name = "TIME", default_value = "5s")]
        interval: String,
        /// Print the statistics once, and end
        #[arg(long)]
        stats: bool,
    },
    /// Print what this runtime can do as JSON
    Features,
    /// Write a container's processes to an image
    Checkpoint(Box<CheckpointArgs>),
    /// Make and start a container from such an image
    Restore(Box<Restore>),
    /// Make and check bundles
    #[command(subcommand)]
    Bundle(Bundle),
    /// Say which backend would be chosen, and why
    #[command(subcommand)]
    Route(Route),
    /// Check this host, and say what to do about what is missing
    Doctor {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: ReportFormat,
    },
    /// Which guest of Proxmox VE is which container's
    #[command(subcommand)]
    Vmid(Vmid),
    /// Describe and check configurations
    #[command(subcommand)]
    Config(Config),
    /// Print the version, the revision and the backends
    Version {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: ReportFormat,
    },
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    Man {
        /// The folder, which must exist
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// What `create`, `run` and `restore` share.
#[derive(Args, Clone, Debug)]
pub struct Make {
    /// Folder of the bundle; the working directory unless given
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Unix socket that gets the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File to write the pid of the container's first process to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that gets a pidfd of the container's first process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Change the root by MS_MOVE, for a root on a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Leave the caller's session keyring to the container
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many file descriptors beyond standard error the process gets (those of LISTEN_FDS are
    /// added)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

/// `nexcage create`
#[derive(Args, Debug)]
pub struct Create {
    /// The new container's id
    pub id: String,
    /// Folder of the bundle, instead of --bundle
    #[arg(value_name = "BUNDLE", conflicts_with = "bundle")]
    pub folder: Option<PathBuf>,
    #[command(flatten)]
    pub make: Make,
}

/// `nexcage run`
#[derive(Args, Debug)]
pub struct Run {
    /// The new container's id
    pub id: String,
    /// Folder of the bundle, instead of --bundle
    #[arg(value_name = "BUNDLE", conflicts_with = "bundle")]
    pub folder: Option<PathBuf>,
    #[command(flatten)]
    pub make: Make,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the container once its process has ended
    #[arg(long)]
    pub keep: bool,
    /// Do not adopt what the container's processes leave behind
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `nexcage kill`
#[derive(Args, Debug)]
pub struct Kill {
    /// The container's id
    pub id: String,
    /// The signal, by name or number
    #[arg(default_value = "TERM")]
    pub signal: String,
    /// Send it to every process in the container
    #[arg(short, long)]
    pub all: bool,
}

/// `nexcage exec`
#[derive(Args, Debug)]
pub struct Exec {
    /// The container's id
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub args: Vec<String>,
    /// JSON of runtime-spec's `process`, instead of the flags
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Environment variable; may stand several times
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// uid or uid:gid
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Additional group; may stand several times
    #[arg(short = 'g', long, value_name = "GID", value_delimiter = ',')]
    pub additional_gids: Vec<u32>,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// File to write the pid to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that gets a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Unix socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Neither the process nor its children gain privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Capability to add; may stand several times
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// How many file descriptors beyond standard error the process gets
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Cgroup below the container's, for this process
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Also in a container that is paused
    #[arg(long)]
    pub ignore_paused: bool,
}

/// `nexcage update`
#[derive(Args, Debug)]
pub struct Update {
    /// The container's id
    pub id: String,
    /// JSON of runtime-spec's `linux.resources`; - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Block I/O weight, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// CPU time's period in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_period: Option<u64>,
    /// CPU time within a period in microseconds
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_burst: Option<u64>,
    /// CPU shares
    #[arg(long, visible_alias = "cpu-shares", value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Real-time period in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_rt_period: Option<u64>,
    /// Real-time runtime in microseconds
    #[arg(long, value_name = "USEC", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs, as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as 0-1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Run only when nothing else would: 1, or 0
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Memory in bytes, or with k, m, g; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory reservation, as --memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together, as --memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Number of processes; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Intel RDT's schema of the third cache
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT's schema of memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
}

/// What `checkpoint` and `restore` share.
#[derive(Args, Clone, Debug)]
pub struct Criu {
    /// Folder of the image
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub image_path: PathBuf,
    /// Folder for criu's own files
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Folder of the image before this one
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Keep open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Do not wait for connections that are being made
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Keep files that were unlinked
    #[arg(long)]
    pub link_remap: bool,
    /// Keep Unix sockets whose peer is outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Keep jobs of a shell
    #[arg(long)]
    pub shell_job: bool,
    /// Fetch memory when it is used
    #[arg(long)]
    pub lazy_pages: bool,
    /// File descriptor that is told when lazy pages can be served
    #[arg(long, value_name = "FD")]
    pub status_fd: Option<i32>,
    /// Address of criu's page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Keep file locks
    #[arg(long)]
    pub file_locks: bool,
    /// What becomes of cgroups: soft, full, strict, ignore
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<String>,
    /// Namespace that is made, and not filled
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<String>,
    /// Drop pages that a later image has
    #[arg(long)]
    pub auto_dedup: bool,
}

/// `nexcage checkpoint`
#[derive(Args, Debug)]
pub struct CheckpointArgs {
    /// The container's id
    pub id: String,
    #[command(flatten)]
    pub criu: Criu,
    /// Let the container go on
    #[arg(long)]
    pub leave_running: bool,
    /// Write memory only, and let the container go on
    #[arg(long)]
    pub pre_dump: bool,
}

/// `nexcage restore`
#[derive(Args, Debug)]
pub struct Restore {
    /// The container's id
    pub id: String,
    #[command(flatten)]
    pub make: Make,
    #[command(flatten)]
    pub criu: Criu,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// Do not adopt what the container's processes leave behind
    #[arg(long)]
    pub no_subreaper: bool,
    /// AppArmor profile or SELinux label of the restored processes
    #[arg(long, value_name = "PROFILE")]
    pub lsm_profile: Option<String>,
    /// SELinux context of the mounts
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
}

/// `nexcage vmid`
#[derive(Debug, Subcommand)]
pub enum Vmid {
    /// List them
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Put right what does not fit together; guests whose container is gone are destroyed only
    /// with --destroy
    Reconcile {
        /// Say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Destroy guests whose container is gone
        #[arg(long)]
        destroy: bool,
    },
}

/// `nexcage config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print the JSON Schema of /etc/nexcage/config.json
    Schema,
    /// Say whether a configuration is right
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// `nexcage bundle`
#[derive(Debug, Subcommand)]
pub enum Bundle {
    /// Make a bundle
    Create(Box<BundleCreate>),
    /// Say everything that is wrong with a bundle
    Validate {
        /// The bundle's folder
        #[arg(value_name = "BUNDLE")]
        path: PathBuf,
        /// Add what that backend refuses or translates: crun, runc, lxc or pct
        #[arg(long, value_name = "BACKEND")]
        backend: Option<String>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: ReportFormat,
    },
}

/// `nexcage bundle create`
#[derive(Args, Debug)]
#[command(after_help = "\
config.json is made of the default, what the image's configuration says (image-spec, \
conversion.md), --config, and the other flags, each over the one before.

Nothing is at BUNDLE before all of it is: it is made in .BUNDLE.nexcage-XXXXXX beside it, which a \
failure and Ctrl-C remove.

--overlay mounts the root until the next boot. To undo it: umount BUNDLE/rootfs; then BUNDLE can \
be removed.

Examples:
  nexcage bundle create b --rootfs alpine.tar.gz -- /bin/date
  skopeo copy docker://debian oci:debian:12 && nexcage bundle create b --rootfs debian --ref 12
  nexcage bundle create b --rootfs /srv/root --overlay --memory 64m --user app -v /srv/data:/data:ro")]
pub struct BundleCreate {
    /// The new bundle's folder, which may exist only if it is empty
    #[arg(value_name = "BUNDLE", required_unless_present = "cri_container")]
    pub path: Option<PathBuf>,
    /// The program's arguments, instead of the image's Cmd; without an Entrypoint, the program
    #[arg(last = true, value_name = "ARGUMENT")]
    pub args: Vec<String>,
    /// Where the root's files come from: a folder, a tar archive (also with gzip or zstd), or an
    /// OCI image layout (a folder or an archive); without it the root is empty
    #[arg(long, value_name = "PATH")]
    pub rootfs: Option<PathBuf>,
    /// Mount the folder under a layer for what is written, instead of copying it
    #[arg(long)]
    pub overlay: bool,
    /// The image of the layout, by name or digest, where there are several
    #[arg(long = "ref", visible_alias = "tag", value_name = "NAME")]
    pub reference: Option<String>,
    /// What the image is to be for, as linux/arm64; this host unless given
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// How much archives may unpack to, in bytes or with k, m, g, t
    #[arg(long, value_name = "BYTES", default_value = "64g")]
    pub max_size: String,
    /// Make device nodes other than those that every container has
    #[arg(long)]
    pub devices: bool,
    /// JSON to merge into the default config.json (RFC 7396: objects are merged, null removes,
    /// all else replaces)
    #[arg(long = "config", id = "template", value_name = "FILE")]
    pub template: Option<PathBuf>,
    /// The program, instead of the image's Entrypoint and Cmd; empty for no Entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Environment variable; may stand several times
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Working directory in the container
    #[arg(long, visible_alias = "workdir", value_name = "DIR")]
    pub cwd: Option<String>,
    /// User and group, by number or by the root's own names
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// The host's name in the container
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// A mount: type=bind,source=…,destination=…,options=ro:nosuid; may stand several times
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,
    /// A bind mount; may stand several times
    #[arg(short, long, value_name = "SOURCE:DESTINATION[:ro]")]
    pub volume: Vec<String>,
    /// Memory in bytes, or with k, m, g; -1 for no limit
    #[arg(short, long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory and swap together, as --memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// How many CPUs' time, as 1.5
    #[arg(long, value_name = "N")]
    pub cpus: Option<f64>,
    /// CPU time relative to other containers; 1024 is the usual
    #[arg(long, value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// CPUs, as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Number of processes; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Capability to add, or ALL; may stand several times
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    pub cap_add: Vec<String>,
    /// Capability to drop, or ALL, before any is added; may stand several times
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    pub cap_drop: Vec<String>,
    /// The root cannot be written
    #[arg(long)]
    pub read_only: bool,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Annotation; may stand several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// A container's configuration, as crictl takes it: makes ROOT/SANDBOX-ID/CONTAINER-ID, where
    /// ROOT is the folder of state, for a container of a sandbox that runs
    #[arg(long, value_name = "FILE", requires = "cri_sandbox", conflicts_with_all = CRI_CONFLICTS)]
    pub cri_container: Option<PathBuf>,
    /// The configuration of its pod
    #[arg(long, value_name = "FILE", requires = "cri_container")]
    pub cri_sandbox: Option<PathBuf>,
    /// The pod's sandbox; looked for by the pod's uid unless given
    #[arg(long, value_name = "ID", requires = "cri_container")]
    pub sandbox_id: Option<String>,
    /// The container's id; a new one unless given
    #[arg(long, value_name = "ID", requires = "cri_container")]
    pub container_id: Option<String>,
    /// The folder of state, as before the verb
    #[arg(long = "root", id = "cri_root", value_name = "DIR", requires = "cri_container")]
    pub root: Option<PathBuf>,
}

/// What a container's configuration says itself.
const CRI_CONFLICTS: [&str; 21] = [
    "path",
    "args",
    "overlay",
    "entrypoint",
    "env",
    "cwd",
    "user",
    "hostname",
    "mount",
    "volume",
    "memory",
    "memory_swap",
    "cpus",
    "cpu_shares",
    "cpuset_cpus",
    "pids_limit",
    "cap_add",
    "cap_drop",
    "read_only",
    "tty",
    "annotation",
];

/// `nexcage route`
#[derive(Debug, Subcommand)]
pub enum Route {
    /// Say which rule decides, and why
    Explain(Explain),
}

/// `nexcage route explain`
#[derive(Args, Debug)]
pub struct Explain {
    /// The container's id, which is its name where it has no other
    pub id: Option<String>,
    /// The container's name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The image reference
    #[arg(long, value_name = "REFERENCE")]
    pub image: Option<String>,
    /// Annotation of the container; may stand several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Label of the pod; may stand several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// A bundle to take the annotations from
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: ReportFormat,
}

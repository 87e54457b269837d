//! What the init is told to do, and how that is written on the wire.

use alloc::string::String;
use alloc::vec::Vec;

macro_rules! wire {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Wire::take(from)?,)* })
            }
        }
    };
}

wire! {
    /// All that an init is told.
    pub struct Description {
        /// The process to become.
        pub process: Process,
        /// Set for the container's first process, which finds a guest that LXC has just made.
        pub first: Option<First>,
        /// Set for an exec, which finds itself on the host.
        pub exec: Option<Exec>,
    }
}

wire! {
    /// runtime-spec's `process`, with names looked up: what to apply and to run, in the order in
    /// which the fields stand here unless a field says otherwise.
    pub struct Process {
        /// Command line; the first word is looked up in the PATH of `env`.
        pub args: Vec<String>,
        /// `NAME=value`, whole; nothing else gets into the environment, except HOME, which is
        /// looked up in the guest's /etc/passwd where it is missing, as runc does.
        pub env: Vec<String>,
        /// Working folder, absolute. The first process's is made if it is missing, an exec's is not,
        /// as runc and crun have it.
        pub cwd: String,
        /// Standard input is a terminal, to be made the controlling one.
        pub terminal: bool,
        /// User id in the guest.
        pub uid: u32,
        /// Group id in the guest.
        pub gid: u32,
        /// Additional groups.
        pub groups: Vec<u32>,
        /// File mode mask; `None` for the caller's 0o022.
        pub umask: Option<u32>,
        /// prctl(2) PR_SET_NO_NEW_PRIVS.
        pub no_new_privileges: bool,
        /// The capability sets; `None` keeps none at all.
        pub capabilities: Option<Capabilities>,
        /// Limits, set last but before the user is changed.
        pub rlimits: Vec<Rlimit>,
        /// An exec's oom_score_adj (proc_pid_oom_score_adj(5)); a first process has it from the
        /// supervisor. Refusal (EPERM, EACCES) is passed over.
        pub oom_score_adj: Option<i32>,
        /// ioprio_set(2): class << 13 | priority.
        pub io_priority: Option<u32>,
        /// sched_setattr(2).
        pub scheduler: Option<Scheduler>,
        /// set_mempolicy(2).
        pub memory_policy: Option<MemoryPolicy>,
        /// CPUs for the time before the exec, and from then on (runtime-spec
        /// `process.execCPUAffinity`); lists of numbers, empty for unset.
        pub cpus_initial: Vec<u32>,
        /// See `cpus_initial`.
        pub cpus_final: Vec<u32>,
        /// personality(2).
        pub personality: Option<u32>,
        /// Written to attr/apparmor/exec as `exec <profile>`.
        pub apparmor: Option<String>,
        /// Written to attr/exec.
        pub selinux: Option<String>,
        /// Installed at the last moment that still may.
        pub seccomp: Option<Seccomp>,
        /// How many descriptors have come beside its stdio; it has them as 3 and on.
        pub passed_fds: u32,
        /// How many of these, from the first, are sockets that it is told of by LISTEN_FDS and
        /// LISTEN_PID (sd_listen_fds(3)).
        pub listen_fds: u32,
    }
}

wire! {
    /// Bit n is capability n of linux/capability.h.
    pub struct Capabilities {
        /// What exec can ever give.
        pub bounding: u64,
        /// What is in force.
        pub effective: u64,
        /// What an exec of a file with inheritable ones passes on.
        pub inheritable: u64,
        /// What may be put in force.
        pub permitted: u64,
        /// What an exec of any file passes on.
        pub ambient: u64,
    }
}

/// Each at its number, without the RLIMIT_ in front (getrlimit(2)).
pub const RLIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

wire! {
    /// One limit (setrlimit(2)).
    pub struct Rlimit {
        /// RLIMIT_NOFILE and the like, as a number.
        pub resource: u32,
        /// The limit in force.
        pub soft: u64,
        /// As far as it may be raised.
        pub hard: u64,
    }
}

wire! {
    /// struct sched_attr of sched_setattr(2).
    pub struct Scheduler {
        /// SCHED_OTHER and the like.
        pub policy: u32,
        /// SCHED_FLAG_….
        pub flags: u64,
        /// For SCHED_OTHER and SCHED_BATCH.
        pub nice: i32,
        /// For SCHED_FIFO and SCHED_RR.
        pub priority: u32,
        /// For SCHED_DEADLINE, nanoseconds.
        pub runtime: u64,
        /// For SCHED_DEADLINE, nanoseconds.
        pub deadline: u64,
        /// For SCHED_DEADLINE, nanoseconds.
        pub period: u64,
    }
}

wire! {
    /// Where a process's memory comes from (set_mempolicy(2)).
    pub struct MemoryPolicy {
        /// MPOL_BIND and the like, with MPOL_F_….
        pub mode: u32,
        /// Numbers of memory nodes; none for a policy without.
        pub nodes: Vec<u32>,
    }
}

wire! {
    /// A filter (seccomp(2), SECCOMP_SET_MODE_FILTER).
    pub struct Seccomp {
        /// SECCOMP_FILTER_FLAG_….
        pub flags: u32,
        /// struct sock_filter, each as code | jt << 16 | jf << 24 | k << 32.
        pub program: Vec<u64>,
    }
}

wire! {
    /// What only the first process does, before it says that it is ready, in this order.
    pub struct First {
        /// sethostname(2) is LXC's work, setdomainname(2) is not.
        pub domainname: Option<String>,
        /// How mounts that LXC has made propagate; and, once `links` are there, their other
        /// attributes (mount_setattr(2)). By destination.
        pub attributes: Vec<Attributes>,
        /// Places of the mounts that have come as descriptors, in the same order.
        pub mounts: Vec<MountPoint>,
        /// Device nodes to make, with their folders.
        pub devices: Vec<Node>,
        /// Symbolic links below /dev that are to be there: (target, path).
        pub links: Vec<(String, String)>,
        /// Paths that read as nothing; what is not there is passed over.
        pub masked: Vec<String>,
        /// Paths that cannot be written; what is not there is passed over.
        pub readonly: Vec<String>,
        /// The root is made read-only, without what is mounted in it.
        pub readonly_root: bool,
        /// The terminal becomes /dev/console.
        pub console: bool,
        /// Hooks of the kind startContainer, run after GO and before anything of the process.
        pub start_hooks: Vec<Hook>,
        /// What they get on standard input: the OCI state, status "created".
        pub state: String,
    }
}

wire! {
    /// What only an exec does.
    pub struct Exec {
        /// The guest's first process, on the host.
        pub init: i32,
        /// Its start (proc_pid_stat(5), field 22): another process of that number is refused.
        pub init_started: u64,
        /// CLONE_NEW… of the namespaces to enter; those that are the caller's own already are not
        /// among them.
        pub namespaces: u64,
        /// Files to write "0" to before anything else (cgroup.procs).
        pub cgroups: Vec<String>,
    }
}

wire! {
    /// Where a mount goes.
    pub struct MountPoint {
        /// Absolute.
        pub path: String,
        /// A folder is made if nothing is there, and not a file.
        pub folder: bool,
        /// What to set of it; the path is this one.
        pub attributes: Vec<Attributes>,
    }
}

wire! {
    /// mount_setattr(2) on one mount.
    pub struct Attributes {
        /// Where it is mounted.
        pub path: String,
        /// MOUNT_ATTR_… to set.
        pub set: u64,
        /// MOUNT_ATTR_… to clear.
        pub clear: u64,
        /// MS_SHARED and the like; 0 to leave.
        pub propagation: u64,
        /// With all that is mounted below.
        pub recursive: bool,
    }
}

impl Attributes {
    /// It sets or clears flags.
    pub fn has_flags(&self) -> bool {
        self.set | self.clear != 0
    }
}

wire! {
    /// A device node (mknod(2)).
    pub struct Node {
        /// Absolute.
        pub path: String,
        /// What it is.
        pub kind: NodeKind,
        /// Major number.
        pub major: u32,
        /// Minor number.
        pub minor: u32,
        /// Permissions.
        pub mode: u32,
        /// Owner in the guest.
        pub uid: u32,
        /// Group in the guest.
        pub gid: u32,
    }
}

wire! {
    /// A program to run with the state on standard input (runtime-spec, "POSIX-platform Hooks").
    pub struct Hook {
        /// Absolute.
        pub path: String,
        /// With the name of the program first; empty for the path alone.
        pub args: Vec<String>,
        /// `NAME=value`.
        pub env: Vec<String>,
        /// Seconds after which it is killed, and has failed; 0 for none.
        pub timeout: u32,
    }
}

/// What a [`Node`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeKind {
    /// A character device (`c` and `u`).
    #[default]
    Char,
    /// A block device (`b`).
    Block,
    /// A named pipe (`p`).
    Fifo,
}

/// Something that can be written on the wire.
trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! number {
    ($($type:ty)*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let (head, tail) = from.split_first_chunk()?;
                *from = tail;
                Some(Self::from_le_bytes(*head))
            }
        }
    )*};
}

number!(u8 u32 i32 u64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Wire for NodeKind {
    fn put(&self, out: &mut Vec<u8>) {
        let number: u8 = match self {
            Self::Char => 0,
            Self::Block => 1,
            Self::Fifo => 2,
        };
        number.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(match u8::take(from)? {
            0 => Self::Char,
            1 => Self::Block,
            2 => Self::Fifo,
            _ => return None,
        })
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(u32::take(from)?).ok()?;
        let (head, tail) = from.split_at_checked(length)?;
        *from = tail;
        Self::from_utf8(head.to_vec()).ok()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        for item in self {
            item.put(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        // Nothing is reserved by a length that has not been read yet: it may be made up.
        let length = u32::take(from)?;
        (0..length).map(|_| T::take(from)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

/// A list of four thousand million entries cannot come from a config.json of 16 MiB.
fn put_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).unwrap_or(u32::MAX).put(out);
}

/// Writes a description, without the length in front.
pub fn encode(description: &Description) -> Vec<u8> {
    let mut out = Vec::new();
    description.put(&mut out);
    out
}

/// Reads what [`encode`] has written; `None` for anything else.
pub fn decode(mut bytes: &[u8]) -> Option<Description> {
    let description = Description::take(&mut bytes)?;
    bytes.is_empty().then_some(description)
}

//! The ways in which a process can call the kernel, and the numbers of the calls in each.

use std::str::FromStr;
use syscalls::{aarch64, arm, x86, x86_64};

/// A calling convention, with a table of numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// 64-bit programs on x86.
    X86_64,
    /// The same with pointers of 32 bits.
    X32,
    /// 32-bit programs on x86.
    X86,
    /// 64-bit programs on ARM.
    Aarch64,
    /// 32-bit programs on ARM.
    Arm,
}

/// All conventions of one kind of kernel, its own one first.
pub type Machine = &'static [Abi];

/// Kernels for x86.
#[cfg(any(test, target_arch = "x86_64"))]
pub const X86: Machine = &[Abi::X86_64, Abi::X32, Abi::X86];
/// Kernels for ARM.
#[cfg(any(test, target_arch = "aarch64"))]
pub const ARM: Machine = &[Abi::Aarch64, Abi::Arm];

/// The kernel that this program is for.
#[cfg(target_arch = "x86_64")]
pub const NATIVE: Machine = X86;
/// The kernel that this program is for.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: Machine = ARM;

/// Names that runtime-spec has for conventions of kernels that this program does not run on. No
/// process can use them here, so nothing has to be filtered.
const FOREIGN: &[&str] = &[
    "LOONGARCH64",
    "M68K",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "PPC",
    "PPC64",
    "PPC64LE",
    "RISCV64",
    "S390",
    "S390X",
    "SH",
    "SHEB",
];

/// Set in the number of each call of x32, which the kernel otherwise takes for x86-64's.
pub const X32_BIT: u32 = 0x4000_0000;

/// The first of the numbers that a kernel for ARM has to itself (`__ARM_NR_BASE`).
pub const ARM_PRIVATE: u32 = 0xf_0000;

const ARM_PRIVATE_CALLS: &[(&str, u32)] = &[
    ("breakpoint", 1),
    ("cacheflush", 2),
    ("usr26", 3),
    ("usr32", 4),
    ("set_tls", 5),
    ("get_tls", 6),
];

/// Calls that have other numbers in x32 than in x86-64.
const X32_CALLS: &[(&str, u32)] = &[
    ("rt_sigaction", 512),
    ("rt_sigreturn", 513),
    ("ioctl", 514),
    ("readv", 515),
    ("writev", 516),
    ("recvfrom", 517),
    ("sendmsg", 518),
    ("recvmsg", 519),
    ("execve", 520),
    ("ptrace", 521),
    ("rt_sigpending", 522),
    ("rt_sigtimedwait", 523),
    ("rt_sigqueueinfo", 524),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("mq_notify", 527),
    ("kexec_load", 528),
    ("waitid", 529),
    ("set_robust_list", 530),
    ("get_robust_list", 531),
    ("vmsplice", 532),
    ("move_pages", 533),
    ("preadv", 534),
    ("pwritev", 535),
    ("rt_tgsigqueueinfo", 536),
    ("recvmmsg", 537),
    ("sendmmsg", 538),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("setsockopt", 541),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("execveat", 545),
    ("preadv2", 546),
    ("pwritev2", 547),
];

/// The calls that 32-bit x86 also has as `socketcall(call, …)` (linux/net.h).
const SOCKET_CALLS: &[(&str, u32)] = &[
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// The calls that 32-bit x86 also has as `ipc(call, …)` (linux/ipc.h).
const IPC_CALLS: &[(&str, u32)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// One way of making a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What the kernel gets.
    pub number: u32,
    /// Which of the calls it is that have that number in common, in the first argument's lower
    /// half. The arguments are then elsewhere, perhaps in memory, where a filter cannot look.
    pub inner: Option<u32>,
}

impl Abi {
    /// AUDIT_ARCH_… of linux/audit.h, in `seccomp_data.arch`.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 bits. The upper halves mean nothing where they have 32: x32 has
    /// some longer ones, but most are as short as on 32-bit x86.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// Its name in runtime-spec, without `SCMP_ARCH_`.
    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "X86_64",
            Self::X32 => "X32",
            Self::X86 => "X86",
            Self::Aarch64 => "AARCH64",
            Self::Arm => "ARM",
        }
    }

    /// All ways of making the call `name`; none where there is no such call.
    pub fn calls(self, name: &str) -> Vec<Call> {
        let direct = |number| Call { number, inner: None };
        let own = |table: &[(&str, u32)]| {
            table.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
        };
        match self {
            Self::X86_64 => number::<x86_64::Sysno>(name).map(direct).into_iter().collect(),
            // Kernels up to 5.3 take x86-64's numbers too, and run x86-64's call.
            Self::X32 => [own(X32_CALLS), number::<x86_64::Sysno>(name)]
                .into_iter()
                .flatten()
                .map(|number| direct(number | X32_BIT))
                .collect(),
            Self::X86 => {
                let inside = |outer, inner: Option<u32>| {
                    let number = number::<x86::Sysno>(outer)?;
                    inner.map(|inner| Call { number, inner: Some(inner) })
                };
                number::<x86::Sysno>(name)
                    .map(direct)
                    .into_iter()
                    .chain(inside("socketcall", own(SOCKET_CALLS)))
                    .chain(inside("ipc", own(IPC_CALLS)))
                    .collect()
            }
            Self::Aarch64 => {
                // The table has one call under the kernel's name alone, not under that which C
                // libraries and profiles use.
                let name = if name == "newfstatat" { "fstatat" } else { name };
                number::<aarch64::Sysno>(name).map(direct).into_iter().collect()
            }
            Self::Arm => number::<arm::Sysno>(name)
                .or_else(|| own(ARM_PRIVATE_CALLS).map(|number| number | ARM_PRIVATE))
                .map(direct)
                .into_iter()
                .collect(),
        }
    }
}

/// Which of `machine`'s conventions runtime-spec calls `name`: `Some(None)` for one of another
/// kind of kernel, `None` for a name that runtime-spec does not have.
pub fn find(machine: Machine, name: &str) -> Option<Option<Abi>> {
    let name = name.strip_prefix("SCMP_ARCH_")?;
    let all = [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64, Abi::Arm];
    if let Some(abi) = all.into_iter().find(|abi| abi.name() == name) {
        return Some(machine.contains(&abi).then_some(abi));
    }
    FOREIGN.contains(&name).then_some(None)
}

/// A call's number in one of the tables.
fn number<T: FromStr + Numbered>(name: &str) -> Option<u32> {
    T::from_str(name).ok().map(Numbered::number)
}

trait Numbered {
    fn number(self) -> u32;
}

macro_rules! numbered {
    ($($table:ident),*) => {
        $(impl Numbered for $table::Sysno {
            fn number(self) -> u32 {
                self.id().unsigned_abs()
            }
        })*
    };
}

numbered!(x86_64, x86, aarch64, arm);

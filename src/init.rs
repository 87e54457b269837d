//! The first process inside an LXC guest, and the one that begins an exec there: what the
//! supervisor and `nexcage-init` say to each other, and what the init does.
//!
//! LXC starts it as PID 1 and it waits at the gate: the socket of [`protocol`], over which it
//! gets its stdio and a [`Description`] of what is to be set up and run. At the supervisor's word
//! it applies what LXC cannot, and becomes the container's process by exec. An exec is begun by
//! the same program on the host, which enters the guest's namespaces before it does the same.
//!
//! The files of this folder are compiled twice: into the library, where the supervisor encodes
//! descriptions and the unit tests are, and into the program (`init/main.rs`), which has no std:
//! with it the program would have over a megabyte, half of it never run. So they use nothing but
//! `core` and `alloc`. The program's own part is in `init/program`.

mod description;
#[cfg(test)]
mod description_tests;
pub mod protocol;
#[cfg(test)]
mod text;

pub use description::{
    Attributes, Capabilities, Description, Exec, First, Hook, MemoryPolicy, MountPoint, Node,
    NodeKind, Process, RLIMITS, Rlimit, Scheduler, Seccomp, decode, encode,
};

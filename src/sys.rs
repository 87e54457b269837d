//! System calls.

pub mod cgroup;
pub mod oom;

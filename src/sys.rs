//! System calls.

pub mod cgroup;

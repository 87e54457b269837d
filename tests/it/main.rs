//! nexcage against the real things: containerd 1.6, 1.7 and 2.1, crun and runc, real containers.
//!
//! Each file is one promise. The tests need what `tests/bed/fetch` brings, and root.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends by panicking, and clippy's own exemption stops at helpers"
)]

#[macro_use]
mod bed;

#[allow(dead_code, unused_imports, reason = "the benchmark uses the rest")]
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod broken_runtime;
mod events;
mod exec;
mod limits;
mod logs;
mod many;
mod pause;
mod restart;
mod run;
mod shim_api;
mod shim_bad_input;
mod shim_delete;
mod shim_events;
mod shim_exec;
mod shim_hang;
mod shim_info;
mod shim_life;
mod shim_log;
mod shim_record;
mod shim_start;
mod shim_stdio;
mod signals;
mod stdio;
mod supervisor_killed;
mod terminal;
mod tidy;
mod versions;

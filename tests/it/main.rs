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
#[macro_use]
mod kubelet;

/// Makes a test of each function with each backend that the command line makes containers of.
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        on_every_backend!(@ crun "crun" $($name)*);
        on_every_backend!(@ runc "runc" $($name)*);
        on_every_backend!(@ lxc "lxc" $($name)*);
        on_every_backend!(@ pct $($name)*);
    };
    (@ pct $($name:ident)*) => {
        mod pct {
            $(#[test] fn $name() {
                if crate::support::node::is_here() {
                    super::$name("pct");
                }
            })*
        }
    };
    (@ $module:ident $backend:literal $($name:ident)*) => {
        mod $module {
            $(#[test] fn $name() { super::$name($backend); })*
        }
    };
}

#[allow(dead_code, unused_imports, reason = "the benchmark uses the rest")]
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod broken_runtime;
mod bundle_create;
mod bundle_validate;
mod cli;
mod cli_errors;
mod cri;
mod cri_config;
mod cri_faults;
mod cri_plugin;
mod cri_pods;
mod cri_security;
mod criu;
mod events;
mod exec;
mod guest_exit_by_monitor;
mod guest_faults;
mod guest_hangs;
mod guest_hooks;
mod guest_images;
mod guest_many;
mod guest_pod;
mod guest_supervisor_killed;
mod guest_systemd;
mod init_exec;
mod init_first;
mod init_gate;
mod init_process;
mod limits;
mod logs;
mod loopback;
mod many;
mod mounts;
mod node;
mod oci_callers;
mod oci_life;
mod oci_made;
mod oci_pct;
mod oci_refused;
mod oci_same;
mod oci_shown;
mod package;
mod pause;
mod pct_by_hand;
mod pct_faults;
mod pct_hangs;
mod pct_killed;
mod pct_shown;
mod pct_slow;
mod pct_standin;
mod pct_unprivileged;
mod restart;
mod route;
mod run;
mod same_as_crun;
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
mod vmid;

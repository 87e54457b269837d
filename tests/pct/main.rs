//! A stand-in for Proxmox VE's `pct`, for tests, over real LXC containers.
//!
//! It does what the real one was seen to do: options, outputs, exit codes, texts of errors, which
//! keys a guest's file keeps and which it loses, locks, a cluster file system that refuses. It is
//! written from those observations and from nothing else.
//!
//! `pct --setup FOLDER`, inside tests/bed/enter, makes a node of the private namespaces: /etc/pve
//! (see [`cluster`]), an empty /var/lib/lxc, LXC's monitor daemon, pve-manager's version below
//! /usr/share/perl5, a bridge where the kernel has them; FOLDER, for PATH, gets `pct`, `pvesh`, `pveversion` and `systemctl`, which are all this
//! program. The cgroups lxc/<vmid> are the machine's: two nodes at once need different vmids.
//!
//! # Faults
//!
//! Files in /run/pve-standin, which may come and go while everything runs:
//!
//! | file | while it is there |
//! |---|---|
//! | `no-quorum` | the cluster can be read only: EACCES, as from the real one, not EROFS |
//! | `pmxcfs-down` | every command fails, and every call on /etc/pve with ENOTCONN |
//! | `pmxcfs-hangs` | no call on /etc/pve comes back, and so no command that needs it |
//! | `full` | the cluster file system takes nothing more: ENOSPC |
//! | `no-monitord` | LXC's monitor daemon is killed; it is started again when this goes |
//! | `fail-<command>` | that command does nothing and fails with the text in the file |
//! | `latency-<command>` | that command takes as many milliseconds longer |
//! | `latency-pre-start`, `latency-post-stop` | those hooks do; a guest stays half stopped |
//! | `latency-start-pid` | what passes between RUNNING and the question for the pid |
//! | `latency-create-locked`, `latency-destroy-locked` | a guest stays half made, half removed |
//! | `monitor-timeout` | how long a start waits for STARTING, instead of 10000 ms |
//! | `lock-timeout` | how long a command waits for a guest's lock, instead of 10000 ms |
//! | `version` | this is that one, not 9.2.11; 9.0 lacks `entrypoint`, `env`, `host-managed` |
//!
//! A lock, protection, another node's guest, a foreign VM are no faults: write them into /etc/pve
//! (`nodes/other/lxc/172.conf`, `nodes/pve/qemu-server/171.conf`).
//!
//! # What differs from the real one
//!
//! - It takes no time unless told to; the real one takes 0.6 to 2 s for everything.
//! - LXC is Debian's. 5.0.2 lacks `lxc.environment.runtime`: in a guest's file it is translated,
//!   in an included file LXC refuses it. It takes quoted words of an entrypoint apart. Lines in
//!   its messages have other numbers.
//! - A frozen guest is thawed before it is killed where the freezer is that of cgroup v1.
//! - Limits become keys of cgroup v1 where the machine has that, and are left out where it has no
//!   controller. No AppArmor. `idmap=` of a volume fails as it does on overlayfs.
//! - The storage `local` is below /run/pve-standin. Images of OCI, snapshots, backups, migration,
//!   `df`, the console commands, HA and the firewall are not there.
//! - Changes of a running guest are written at once; nothing becomes pending.
//! - `shutdown` gives up after its timeout and not after twice that.
//! - An `ostype` other than unmanaged edits two files in the root at create, and none at start.
//! - With no quorum, `set` says what destroy says; with a full file system the texts are guesses.

mod args;
mod cluster;
mod conf;
mod create;
mod fault;
mod life;
mod lxc;
mod monitor;
mod report;
mod setup;
mod show;
mod storage;
mod tool;
mod worker;

use report::{Failure, Outcome, early, fail, warn};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let args: Vec<_> = args.collect();
    let name = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or("pct");
    let flag = args.first().map_or("", String::as_str);
    let rest = args.get(1..).unwrap_or_default();
    let outcome = match (name, flag) {
        ("pct", "--cluster") => return setup::daemons(),
        ("pct", "--unit") => {
            return rest
                .first()
                .and_then(|vmid| vmid.parse().ok())
                .map_or(ExitCode::FAILURE, life::unit);
        }
        ("pct", "--hook") => return life::hook(rest),
        ("pct", worker::FLAG) => return worker::end(task(rest)),
        ("pct", "--setup") => match rest {
            [folder] => setup::run(folder),
            _ => early("pct --setup FOLDER"),
        },
        ("pct", _) => access().and_then(|()| pct(&args)),
        ("pvesh", _) => access().and_then(|()| tool::pvesh(&args)),
        ("systemctl", _) => tool::systemctl(&args),
        ("pveversion", _) => {
            tool::pveversion();
            Ok(())
        }
        _ => fail(format!("there is nothing called {name} here")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            if !text.is_empty() {
                warn(&text);
            }
            ExitCode::from(code)
        }
    }
}

/// Everything begins by asking pmxcfs who may do what.
fn access() -> Outcome {
    let (code, why) = if !nix::unistd::geteuid().is_root() {
        (255, "Unknown error -1")
    } else if fault::is_on("pmxcfs-down") {
        (111, "Connection refused")
    } else {
        return Ok(());
    };
    let tries = (1..=3).map(|number| format!("ipcc_send_rec[{number}] failed: {why}\n"));
    let text = tries.collect::<String>() + "Unable to load access control list: " + why;
    Err(Failure::new(code, text))
}

fn pct(args: &[String]) -> Outcome {
    let Some((command, rest)) = args.split_first() else {
        return fail("ERROR: no command specified\nUSAGE: pct <COMMAND> [ARGS] [OPTIONS]");
    };
    let command = command.as_str();
    let wanted = match command {
        "create" => 2,
        "list" => 0,
        "start" | "stop" | "shutdown" | "destroy" | "reboot" | "suspend" | "resume" | "status"
        | "config" | "pending" | "set" | "exec" | "unlock" => 1,
        _ => {
            return fail(format!(
                "ERROR: unknown command 'pct {command}'\n\
                 USAGE: pct <COMMAND> [ARGS] [OPTIONS]\n       pct create <vmid> <ostemplate> [OPTIONS]"
            ));
        }
    };
    let words = args::parse(command, wanted, rest)?;
    fault::linger(command);
    if let Some(text) = fault::text(&format!("fail-{command}")) {
        return fail(text);
    }
    match command {
        "create" => {
            create::check(&words)?;
            worker::run(args)
        }
        "destroy" => {
            conf::Guest::exists(words.vmid, 2)?;
            worker::run(args)
        }
        "start" | "stop" | "shutdown" | "reboot" | "suspend" | "resume" => worker::run(args),
        "list" => {
            show::list();
            Ok(())
        }
        "status" => show::show_status(&words),
        "config" => show::show_config(words.vmid, ""),
        "pending" => show::show_config(words.vmid, "cur "),
        "exec" => show::exec(&words),
        "unlock" => create::unlock(words.vmid),
        _ => create::set(&words),
    }
}

/// A command's work, in a process of its own.
fn task(args: &[String]) -> Outcome {
    let Some((command, rest)) = args.split_first() else { return fail("no task") };
    let wanted = if command == "create" { 2 } else { 1 };
    let words = args::parse(command, wanted, rest)?;
    let vmid = words.vmid;
    match command.as_str() {
        "create" => create::create(&words),
        "destroy" => create::destroy(vmid, words.flag("force")),
        "start" => life::start(vmid),
        "stop" => life::stop(vmid),
        "shutdown" => life::shutdown(vmid, words.get("timeout"), words.flag("forceStop")),
        "reboot" => life::reboot(vmid, words.get("timeout")),
        "suspend" => life::suspend(vmid),
        "resume" => life::resume(vmid),
        _ => fail("no task"),
    }
}

//! The ways to begin: as the first process, as an exec, and as a hook of LXC's.

mod become_process;
mod enter;
mod failure;
mod first;
mod gate;
mod hooks;
mod mounts;
mod paths;
mod sys;

use crate::protocol;
use alloc::format;
use failure::{Context, Failure};
use gate::Gate;
use sys::Errno;

/// Whole and by exec, or with a status if it cannot be.
pub fn run(words: &[&[u8]]) -> i32 {
    let result = match words {
        [_] => first_process(),
        [_, word] if *word == b"exec" => enter::run(),
        // LXC adds words of its own: the guest's name, "lxc", and the hook's kind.
        [_, word, socket, ..] if *word == b"hook" => hook(socket),
        _ => Err(Failure::new(
            "usage: nexcage-init [exec | hook SOCKET]; nexcage runs it, with a socket to be told by"
                .into(),
        )),
    };
    let Err(failure) = result;
    // Before there is a socket, standard error is that of whoever started the program.
    sys::write_to_stderr(format!("nexcage-init: {}\n", failure.text).as_bytes()).ok();
    failure.status
}

/// Never `Ok`: it ends by exec or by exit. `Err` as long as there is nobody else to tell.
fn first_process() -> Result<core::convert::Infallible, Failure> {
    // Of whatever LXC has left open nothing stays.
    sys::close_from(3).context(|| "close what was left open".into())?;
    // Until the exec nobody in the guest may look into this process, or at its socket.
    sys::set_dumpable(false).context(|| "hide this process from tracers".into())?;
    // LXC lets its child die with lxc-start, unless the child changes its user. A container
    // outlives whoever watches it, whoever its user is.
    sys::outlive_parent().context(|| "outlive lxc-start".into())?;
    let path = format!("/{}/{}", protocol::FOLDER, protocol::SOCKET);
    let socket = sys::connect(&path).context(|| format!("connect to {path}"))?;
    Gate::new(socket).follow(follow)
}

fn follow(gate: &mut Gate) -> Result<core::convert::Infallible, Failure> {
    let (description, given) = gate.receive()?;
    let Some(first) = &description.first else {
        return Err(Failure::new("the description is not one of a first process".into()));
    };
    first::set_up(first, given, &description.process)?;
    become_process::look_for_program(&description.process)?;
    gate.ready()?;
    if !gate.wait() {
        sys::exit(1);
    }
    first::leave_nothing_of_the_host()?;
    hooks::run("startContainer", &first.start_hooks, &first.state)?;
    let process = &description.process;
    become_process::limit_cpus(&process.cpus_initial)?;
    Err(become_process::run(process, None))
}

/// In the guest's mount namespace, before LXC enters the root: the hooks of the description, which
/// come with it as if they were of the kind startContainer, in its process's folder. Never `Ok`, as
/// above.
fn hook(socket: &[u8]) -> Result<core::convert::Infallible, Failure> {
    sys::close_from(3).context(|| "close what was left open".into())?;
    let path = core::str::from_utf8(socket)
        .map_err(|_| Failure::new("the socket's path is not UTF-8".into()))?;
    let socket = sys::connect(path).context(|| format!("connect to {path}"))?;
    Gate::new(socket).follow(|gate| {
        let (description, _) = gate.receive()?;
        let folder = &description.process.cwd;
        match sys::change_folder(folder) {
            // A guest's root that is not the host's need not be let in.
            Ok(()) | Err(Errno(libc::EACCES | libc::EPERM)) => {}
            other => other.context(|| format!("change to the bundle {folder}"))?,
        }
        let first = description.first.unwrap_or_default();
        hooks::run("createContainer", &first.start_hooks, &first.state)?;
        gate.ready()?;
        sys::exit(0)
    })
}

//! `nexcage-init exec`, on the host: a further process in a guest.

use super::become_process;
use super::failure::{Context, Failure};
use super::gate::Gate;
use super::paths::{self, Proc};
use super::sys::{self, Errno, Fd};
use crate::description::{Exec, Process};
use crate::text;
use alloc::format;

/// The socket's number, as the supervisor leaves it open.
const SOCKET: i32 = 3;

/// Never `Ok`: it ends by exec or by exit. `Err` as long as there is nobody else to tell.
pub fn run() -> Result<core::convert::Infallible, Failure> {
    sys::close_from(4).context(|| "close what was left open".into())?;
    let socket = Fd::inherited(SOCKET);
    sys::close_at_exec(&socket)
        .context(|| "find the supervisor's socket at descriptor 3".into())?;
    // From here to the exec nobody in the guest may trace this process or open its descriptors:
    // it comes from the host.
    sys::set_dumpable(false).context(|| "hide this process from tracers".into())?;
    Gate::new(socket).follow(follow)
}

fn follow(gate: &mut Gate) -> Result<core::convert::Infallible, Failure> {
    let (description, _) = gate.receive()?;
    let Some(exec) = &description.exec else {
        return Err(Failure::new("the description is not one of an exec".into()));
    };
    let process = &description.process;
    let proc = Proc::open().context(|| "open the host's /proc".into())?;
    let init = find_init(exec, &proc)?;
    become_process::limit_cpus(&process.cpus_initial)?;
    for file in &exec.cgroups {
        paths::write_on_host(file, "0")?;
    }
    // While the host's /proc is the one that is seen, and the user one who may.
    become_process::set_oom_score(process.oom_score_adj)?;
    enter(&init, exec)?;
    drop(init);
    fork_into(gate)?;
    // The host's death signals end with the fork; the guest sees no parent of its own.
    Err(become_process::run(process, labels_need(process).then_some(proc)))
}

/// Labels are written below the host's /proc, which no guest can have arranged; without any there
/// is no reason to keep it open.
fn labels_need(process: &Process) -> bool {
    process.apparmor.is_some() || process.selinux.is_some()
}

/// The guest's first process. Its number alone could be another's by now.
fn find_init(exec: &Exec, proc: &Proc) -> Result<Fd, Failure> {
    let pid = exec.init;
    let what = || format!("find the container's first process, {pid}");
    // First the descriptor, then the look: what it shows began before the descriptor was made.
    let init = sys::open_process(pid).context(what)?;
    let stat = proc.read(&format!("{pid}/stat")).context(what)?;
    if text::start_of(&stat) == Some(exec.init_started) {
        Ok(init)
    } else {
        Err(Failure {
            errno: libc::ESRCH,
            ..Failure::new(format!(
                "the container's first process, {pid}, is gone: another one has its number"
            ))
        })
    }
}

fn enter(init: &Fd, exec: &Exec) -> Result<(), Failure> {
    let namespaces = i32::try_from(exec.namespaces)
        .map_err(|_| Failure::new(format!("{:#x} are no namespaces", exec.namespaces)))?;
    let user = namespaces & libc::CLONE_NEWUSER;
    let others = namespaces & !libc::CLONE_NEWUSER;
    let what = |which| move || format!("enter the container's namespaces ({which:#x})");
    // The user namespace last: inside it there is no right to enter what belongs to the host,
    // such as a pod's network.
    if others != 0 {
        sys::enter(init, others).context(what(others))?;
    }
    if user != 0 {
        sys::enter(init, user).context(what(user))?;
        let what = || "become the user namespace's root".into();
        match sys::set_groups(&[]) {
            // A namespace may forbid it for ever (user_namespaces(7)).
            Ok(()) | Err(Errno(libc::EPERM)) => {}
            Err(error) => return Err(Failure::of("drop the host's groups", error)),
        }
        sys::set_gid(0).context(what)?;
        sys::set_uid(0).context(what)?;
    }
    Ok(())
}

/// Goes on in a child, which alone is in a pid namespace that was entered. The parent tells its
/// pid and is gone; the supervisor is a subreaper, and so becomes the child's parent.
fn fork_into(gate: &Gate) -> Result<(), Failure> {
    if let Some(pid) = sys::fork().context(|| "make the process".into())? {
        sys::exit(i32::from(gate.tell_pid(pid).is_err()));
    }
    // A supervisor that has given up says no more, and then nothing may run that nobody knows of.
    if !gate.wait() {
        sys::exit(1);
    }
    sys::set_dumpable(false).context(|| "hide the process from tracers".into())
}

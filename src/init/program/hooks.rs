//! Hooks that run inside a guest: those of the kinds createContainer and startContainer.

use super::failure::{Context, Failure};
use super::sys::{self, End, Errno, Fd, Strings};
use crate::description::Hook;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Of a hook's output this much is kept, its end, for the message if it fails.
const KEPT: usize = 1024;

/// Runs them one after the other. The first that fails ends it.
pub fn run(kind: &str, hooks: &[Hook], state: &str) -> Result<(), Failure> {
    // A hook need not read its state.
    sys::survive_broken_pipes();
    hooks.iter().try_for_each(|hook| run_one(kind, hook, state))
}

fn run_one(kind: &str, hook: &Hook, state: &str) -> Result<(), Failure> {
    let path = &hook.path;
    let what = || format!("run the {kind} hook {path}");
    let args = match hook.args.as_slice() {
        [] => Strings::new(core::slice::from_ref(path)),
        args => Strings::new(args),
    };
    let (args, env) = (args.context(what)?, Strings::new(&hook.env).context(what)?);
    let (input, state_end) = sys::pipe().context(what)?;
    let (output_end, output) = sys::pipe().context(what)?;
    let Some(pid) = sys::fork().context(what)? else {
        let ready = sys::duplicate_over(&input, 0)
            .and_then(|()| sys::duplicate_over(&output, 1))
            .and_then(|()| sys::duplicate_over(&output, 2));
        sys::reset_signals();
        sys::set_umask(0o022);
        let error = ready.err().unwrap_or_else(|| sys::execute(path, &args, &env));
        sys::write_to_stderr(format!("exec: {}", error.text()).as_bytes()).ok();
        sys::exit(127)
    };
    drop((input, output));
    let process = sys::open_process(pid).context(what)?;
    let deadline = (hook.timeout > 0).then(|| sys::clock() + u64::from(hook.timeout) * 1000);
    let said = talk(&process, state_end, &output_end, state.as_bytes(), deadline);
    let in_time = said.is_ok();
    if !in_time {
        sys::kill(&process).ok();
    }
    let end = sys::wait(pid).context(what)?;
    let said = match said {
        Ok(said) => said,
        Err(Errno(libc::ETIMEDOUT)) => {
            return Err(Failure::new(format!(
                "the {kind} hook {path} did not end within {} s",
                hook.timeout
            )));
        }
        Err(error) => return Err(Failure::of(&what(), error)),
    };
    let how = match end {
        End::Exited(0) => return Ok(()),
        End::Exited(status) => format!("exited with status {status}"),
        End::Killed(signal) => format!("was killed by signal {signal}"),
    };
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    let colon = if said.is_empty() { "" } else { ": " };
    Err(Failure::new(format!("the {kind} hook {path} {how}{colon}{said}")))
}

/// Gives it the state and takes what it says, until it ends: not until its pipes do, which
/// something that it leaves behind may hold open.
fn talk(
    process: &Fd,
    state_end: Fd,
    output_end: &Fd,
    mut state: &[u8],
    deadline: Option<u64>,
) -> sys::Result<Vec<u8>> {
    sys::never_wait(&state_end)?;
    sys::never_wait(output_end)?;
    let mut state_end = Some(state_end);
    let mut output_open = true;
    let mut said = Vec::new();
    loop {
        let left = match deadline {
            None => -1,
            Some(deadline) => match deadline.saturating_sub(sys::clock()) {
                0 => return Err(Errno(libc::ETIMEDOUT)),
                left => i32::try_from(left).unwrap_or(i32::MAX),
            },
        };
        // poll(2) passes over a negative number.
        let input = state_end.as_ref().map_or(-1, Fd::number);
        let output = if output_open { output_end.number() } else { -1 };
        let [ended, readable, writable] = sys::poll(
            [(process.number(), libc::POLLIN), (output, libc::POLLIN), (input, libc::POLLOUT)],
            left,
        )?;
        if writable != 0 {
            match sys::write_some(input, state) {
                Ok(length) => state = state.get(length..).unwrap_or_default(),
                Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
                // It does not read its state, which is its own affair.
                Err(_) => state = &[],
            }
        }
        if state.is_empty() {
            state_end = None;
        }
        if readable != 0 || ended != 0 {
            output_open = hear(output_end, &mut said);
        }
        if ended != 0 {
            return Ok(said);
        }
    }
}

/// Takes what is there; whether more may come.
fn hear(output: &Fd, said: &mut Vec<u8>) -> bool {
    let mut part = [0; 1024];
    // A hook that never stops talking is heard again at the next poll.
    for _ in 0..64 {
        match sys::read(output, &mut part) {
            Ok(0) => return false,
            Ok(length) => {
                said.extend_from_slice(part.get(..length).unwrap_or_default());
                let past = said.len().saturating_sub(KEPT);
                said.drain(..past);
            }
            Err(error) => return error.0 == libc::EAGAIN,
        }
    }
    true
}

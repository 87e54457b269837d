//! OCI hooks that run on the host (runtime-spec, "POSIX-platform Hooks").

use crate::error::{Context, Error, Result};
use crate::init::Hook;
use crate::sys::command::Command;
use crate::sys::reaper::Child;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

/// What is shown of what a hook has printed, in bytes.
const SHOWN: u64 = 400;

/// Runs hooks one after the other, each in the bundle and with the container's state on standard
/// input.
///
/// # Errors
/// The first that fails, with what it printed to standard error; those after it do not run.
pub async fn run(kind: &str, hooks: &[Hook], bundle: &Path, state: &str) -> Result<()> {
    for hook in hooks {
        one(hook, bundle, state).await.context(|| format!("hook {kind} {}", hook.path))?;
    }
    Ok(())
}

async fn one(hook: &Hook, bundle: &Path, state: &str) -> Result<()> {
    // Files in memory, which neither end can wait for the other with, as with pipes.
    let mut input = File::from(memfd_create(c"state", MFdFlags::MFD_CLOEXEC)?);
    input.write_all(state.as_bytes())?;
    input.rewind()?;
    let mut said = File::from(memfd_create(c"stderr", MFdFlags::MFD_CLOEXEC)?);
    // One of kind poststop may come when the bundle is gone.
    let folder = if bundle.is_dir() { bundle } else { Path::new("/") };
    let mut command = Command::new(&hook.path)
        .env_clear()
        .folder(folder)
        .stdin(input.into())
        .stderr(said.try_clone()?.into())
        .die_with_parent();
    if let Some((name, args)) = hook.args.split_first() {
        command = command.arg0(name).args(args);
    }
    for variable in &hook.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        command = command.env(name, value);
    }
    let running = Running(command.spawn()?);
    let exit = match hook.timeout {
        0 => running.0.exited().await,
        seconds => {
            let limit = Duration::from_secs(seconds.into());
            tokio::time::timeout(limit, running.0.exited()).await.map_err(|_| {
                Error::deadline(format!("did not end within its timeout of {seconds} s"))
            })?
        }
    };
    if exit.status == 0 {
        return Ok(());
    }
    let mut text = Vec::new();
    said.rewind()?;
    (&said).take(SHOWN).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let text: String =
        text.trim().chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let colon = if text.is_empty() { "" } else { ": " };
    Err(Error::unknown(format!("ended with status {}{colon}{text}", exit.status)))
}

/// A hook under way; killed with all that it started when it is dropped before its end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.exit().is_none() {
            // It may end by itself in this very moment.
            drop(self.0.signal_group(libc::SIGKILL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::reaper::tests::start_alone;

    fn hook(script: &str, timeout: u32) -> Hook {
        Hook {
            path: "/bin/sh".to_owned(),
            args: ["name", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["A=b=c".to_owned()],
            timeout,
        }
    }

    fn run_all(hooks: &[Hook]) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _alone = start_alone();
            run("poststop", hooks, Path::new("/tmp"), "{\"id\":\"c\"}").await
        })
    }

    #[test]
    fn hooks_get_the_state_their_arguments_and_only_their_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let script = format!("{{ cat; echo; echo $A; pwd; env; }} > {}", file.display());
        run_all(&[hook(&script, 0)]).unwrap();
        let said = std::fs::read_to_string(file).unwrap();
        // sh itself adds PWD, and some shells two more.
        assert!(said.starts_with("{\"id\":\"c\"}\nb=c\n/tmp\n"), "{said}");
        assert!(!said.contains("PATH"), "{said}");
    }

    #[test]
    fn the_first_hook_that_fails_is_named_with_what_it_said_and_ends_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ran");
        let second = hook(&format!("> {}", file.display()), 0);
        let error = run_all(&[hook("echo no such bridge >&2; exit 3", 0), second]).unwrap_err();
        assert_eq!(error.to_string(), "hook poststop /bin/sh: ended with status 3: no such bridge");
        assert!(!file.exists());
        let error = run_all(&[hook("exit 3", 0)]).unwrap_err();
        assert_eq!(error.to_string(), "hook poststop /bin/sh: ended with status 3");
    }

    #[test]
    fn a_hook_that_hangs_is_killed_at_its_timeout() {
        let error = run_all(&[hook("sleep 1000", 1)]).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::DeadlineExceeded);
        assert!(error.to_string().contains("timeout of 1 s"), "{error}");
    }
}

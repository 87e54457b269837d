//! Calling pct.

use super::failure::classify;
use crate::error::{Context, Result};
use crate::sys::command::Command;
use crate::sys::reaper::Child;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How much of what pct says is looked at, in bytes, from its end.
const KEPT: u64 = 16 << 10;

/// How pct is called.
#[derive(Clone, Debug)]
pub struct Tool {
    /// An absolute path.
    pub program: PathBuf,
}

impl Tool {
    /// `pct <verb> <vmid> <args>`, to its end.
    ///
    /// # Errors
    /// What pct says, with its kind and what to do.
    pub async fn run(&self, verb: &'static str, vmid: u32, args: &[&str]) -> Result<()> {
        let words = [verb, &vmid.to_string()];
        self.start(verb, vmid, words.iter().chain(args))?.finish().await
    }

    /// Starts a pct with exactly these arguments, of which `verb` and `vmid` are for messages.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        &self,
        verb: &'static str,
        vmid: u32,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Call> {
        // Not a pipe: it would have to be read to its end, which a worker may hold open, and a
        // pct that outlives this process would die of a broken one.
        let said = said()?;
        let child = Command::new(&self.program)
            .args(args)
            // Its errors are told by their words.
            .env("LC_ALL", "C")
            .stdout(said.try_clone()?)
            .stderr(said.try_clone()?)
            .spawn()?;
        Ok(Call { child, said, verb, vmid })
    }
}

/// A pct at work. Whoever drops this only stops waiting: a pct that is killed leaves a worker that
/// goes on, so nothing is won by it, and half of the work may be done.
#[derive(Debug)]
pub struct Call {
    child: Child,
    said: OwnedFd,
    verb: &'static str,
    vmid: u32,
}

impl Call {
    /// The process, to wait for its end beside [`Call::finish`].
    pub fn child(&self) -> Child {
        self.child.clone()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Tool::run`].
    pub async fn finish(self) -> Result<()> {
        let exit = self.child.exited().await;
        if exit.status == 0 {
            return Ok(());
        }
        Err(classify(self.verb, self.vmid, &tail(&File::from(self.said))?, exit.status))
    }
}

/// A place for what pct says.
fn said() -> Result<OwnedFd> {
    memfd_create("pct", MFdFlags::MFD_CLOEXEC).context(|| "make a file for what pct says")
}

fn tail(said: &File) -> Result<String> {
    let length = said.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(length.min(KEPT)).unwrap_or_default()];
    said.read_exact_at(&mut bytes, length.saturating_sub(KEPT))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::sys::reaper::tests::start_alone;
    use std::os::unix::fs::PermissionsExt;

    async fn run(script: &str) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("pct");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        Tool { program }.run("destroy", 150, &["--force", "1"]).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_pct_says_on_either_side_becomes_the_error() {
        let _alone = start_alone();
        run(r#"test "$*" = "destroy 150 --force 1" && test "$LC_ALL" = C"#).await.unwrap();
        let error = run("echo first; echo 'CT is locked (backup)' >&2; exit 4").await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        let text = error.to_string();
        assert!(text.starts_with("pct destroy 150: first; CT is locked (backup): "), "{text}");
        let error = run("yes | head -c 100000; echo; echo last >&2; exit 1").await.unwrap_err();
        assert_eq!(error.to_string(), "pct destroy 150: y; last");
        // A worker that holds the output open does not hold this up.
        let error = run("sleep 100 & echo gone; exit 1").await.unwrap_err();
        assert_eq!(error.to_string(), "pct destroy 150: gone");
    }
}

//! A program that is run for what it says, and that may hang.

use crate::error::{Context, Result};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often one that has closed its output is looked at for its end.
const PAUSE: Duration = Duration::from_millis(5);

/// What a program prints on its standard output, `most` bytes of it, when it is called with one
/// argument; empty when it fails. One that has not ended within `patience` is killed, and has
/// failed.
///
/// # Errors
/// When it cannot be run.
pub fn ask(program: &Path, argument: &str, patience: Duration, most: u64) -> Result<Vec<u8>> {
    let doing = || format!("run {} {argument}", program.display());
    let end = Instant::now() + patience;
    let mut child = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context(doing)?;
    let (send, said) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What cannot be read was not said, and nobody listens once the time is up.
            drop(stdout.take(most).read_to_end(&mut bytes));
            drop(send.send(bytes));
        });
    }
    let said = said.recv_timeout(patience).unwrap_or_default();
    let mut status = child.try_wait().context(doing)?;
    while status.is_none() && Instant::now() < end {
        std::thread::sleep(PAUSE);
        status = child.try_wait().context(doing)?;
    }
    if status.is_none() {
        // It may have ended in this very moment.
        drop(child.kill());
        status = Some(child.wait().context(doing)?);
    }
    Ok(if status.is_some_and(|status| status.success()) { said } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn answer(script: &str, patience: Duration) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        ask(&program, "word", patience, 6).unwrap()
    }

    #[test]
    fn what_it_says_is_read_and_no_more_than_asked_for() {
        assert_eq!(answer("echo $1", Duration::from_secs(60)), b"word\n");
        assert_eq!(answer("echo $1 $1", Duration::from_secs(60)), b"word w");
    }

    #[test]
    fn one_that_fails_or_hangs_has_said_nothing() {
        assert_eq!(answer("echo $1; exit 1", Duration::from_secs(60)), b"");
        assert_eq!(answer("echo $1; exec sleep 1000", Duration::from_millis(100)), b"");
        assert_eq!(answer("echo $1; exec >&-; exec sleep 1000", Duration::from_millis(100)), b"");
    }

    #[test]
    fn one_that_is_not_there_is_an_error() {
        let error = ask(Path::new("/none"), "word", Duration::from_secs(1), 6).unwrap_err();
        assert!(error.to_string().starts_with("run /none word: "), "{error}");
    }
}

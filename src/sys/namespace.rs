//! Which namespaces a process is in.

use crate::error::{Context, Result};
use std::fs;
use std::io::ErrorKind;

/// The names below `/proc/<pid>/ns`, and the flag of clone(2) for each.
const NAMESPACES: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", libc::CLONE_NEWTIME),
];

/// The namespaces of `pid` that are not this process's, as flags of clone(2).
///
/// # Errors
/// `NotFound` when it has ended.
pub fn apart(pid: i32) -> Result<u64> {
    let mut flags = 0;
    for (name, flag) in NAMESPACES {
        let own = match fs::read_link(format!("/proc/self/ns/{name}")) {
            // A kernel without that kind.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            own => own?,
        };
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}"))
            .context(|| format!("look at the {name} namespace of process {pid}"))?;
        if own != theirs {
            flags |= u64::from(flag.cast_unsigned());
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_shares_all_with_itself_and_not_all_with_one_that_unshared() {
        assert_eq!(apart(std::process::id().cast_signed()).unwrap(), 0);
        let _no_reaper = crate::sys::reaper::tests::no_reaper();
        let mut child = std::process::Command::new("unshare")
            .args(["--uts", "--ipc", "cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It answers once it has them.
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let expected = libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
        let found = apart(child.id().cast_signed());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.unwrap(), u64::from(expected.cast_unsigned()));
    }
}

//! What people and other programs hand over: read within a limit, quoted on one line.

use crate::error::{Error, Result};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether a path may end in a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// Administrators (and ConfigMap mounts) put links in /etc.
    Follow,
    /// A link in a bundle would let whoever writes there choose what is read as root.
    Refuse,
}

/// Reads a regular file of at most `limit` bytes; `None` when there is none at that path.
///
/// The size is looked at before anything is read, so that a file of 100 MB costs nothing, and
/// again while reading, because files grow. A FIFO or a device would hang or never end: it is
/// opened without waiting and refused.
pub(crate) fn read(path: &Path, limit: usize, links: Links) -> Result<Option<Vec<u8>>> {
    let refuse = |problem: &str| Error::invalid(format!("{}: {problem}", shown(path)));
    let too_large =
        |size: &str| refuse(&format!("{size} bytes, more than the limit of {}", mib(limit)));
    let no_link = if links == Links::Refuse { libc::O_NOFOLLOW } else { 0 };
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | no_link).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if links == Links::Refuse && error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(refuse("is a symbolic link, a regular file is wanted"));
        }
        Err(error) => return Err(refuse(&error.to_string())),
    };
    let about = file.metadata().map_err(|error| refuse(&error.to_string()))?;
    if !about.is_file() {
        return Err(refuse("is not a regular file"));
    }
    let size = usize::try_from(about.len()).unwrap_or(usize::MAX);
    if size > limit {
        return Err(too_large(&size.to_string()));
    }
    let mut bytes = Vec::with_capacity(size);
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(&error.to_string()))?;
    if bytes.len() > limit {
        return Err(too_large(&format!("more than {limit}")));
    }
    Ok(Some(bytes))
}

/// A limit as people write it.
pub(crate) fn mib(limit: usize) -> String {
    format!("{} MiB", limit >> 20)
}

/// A path for the front of a message, without what could break its line.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().take(4096).flat_map(char::escape_debug).collect()
}

/// Foreign text on one line as it is, but for what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let escaped = char.is_control().then(|| char.escape_debug());
            let kept = escaped.is_none().then_some(char);
            escaped.into_iter().flatten().chain(kept)
        })
        .collect()
}

/// Foreign text for a message: in quotes, on one line, and not megabytes of it.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 100;
    let head: String = text.chars().take(MOST).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("{head:?}{more}")
}

/// Names for a message: "a, b and c".
pub(crate) fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_one_short_line() {
        assert_eq!(quoted("a\nb\u{7f}"), r#""a\nb\u{7f}""#);
        assert_eq!(quoted(&"x".repeat(1 << 20)), format!("\"{}\"…", "x".repeat(100)));
        assert_eq!(shown(Path::new("/a\nb")), "/a\\nb");
    }

    #[test]
    fn a_file_is_read_up_to_the_limit_and_refused_beyond_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(read(&path, 4, Links::Follow).unwrap(), None);
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4, Links::Follow).unwrap().unwrap(), b"1234");
        std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
        assert_eq!(
            read(&path, 1 << 20, Links::Follow).unwrap_err().to_string(),
            format!("{}: 1048577 bytes, more than the limit of 1 MiB", path.display())
        );
    }

    #[test]
    fn a_fifo_is_refused_without_waiting_for_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read(&path, 4, Links::Follow).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: is not a regular file", path.display()));
        assert!(read(folder.path(), 4, Links::Follow).is_err());
    }

    #[test]
    fn a_link_is_followed_only_where_links_are_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::fs::write(folder.path().join("file"), "1").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        assert_eq!(read(&link, 4, Links::Follow).unwrap().unwrap(), b"1");
        assert_eq!(
            read(&link, 4, Links::Refuse).unwrap_err().to_string(),
            format!("{}: is a symbolic link, a regular file is wanted", link.display())
        );
    }
}

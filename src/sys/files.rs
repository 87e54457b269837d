//! What files have beyond their bytes: extents that are shared instead of copied, and extended
//! attributes.

use nix::errno::Errno;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// FICLONE: `_IOW(0x94, 9, int)`.
const FICLONE: libc::Ioctl = 0x4004_9409;

/// Makes `to`, an empty file, share all of `from`'s extents (ioctl_ficlone(2)).
///
/// # Errors
/// `EOPNOTSUPP`, `EINVAL` or `ENOTTY` where the file system cannot, `EXDEV` between two of them.
pub fn reflink(from: impl AsFd, to: impl AsFd) -> nix::Result<()> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    #[expect(unsafe_code, reason = "an ioctl that nix does not have")]
    // SAFETY: both are open for the time of the call, and the ioctl takes a number.
    let result = unsafe { libc::ioctl(to, FICLONE, from) };
    Errno::result(result).map(drop)
}

/// The path of an open file that xattr(7)'s calls take; those for fds refuse O_PATH.
fn path_of(fd: impl AsFd) -> nix::Result<CString> {
    CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).map_err(|_| Errno::EINVAL)
}

fn c_name(name: &OsStr) -> nix::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Sets an extended attribute of what is open, which may be a link that was opened with O_PATH.
///
/// # Errors
/// What setxattr(2) says.
pub fn set_xattr(fd: impl AsFd, name: &OsStr, value: &[u8]) -> nix::Result<()> {
    let (path, name) = (path_of(fd)?, c_name(name)?);
    #[expect(unsafe_code, reason = "nix has no extended attributes")]
    // SAFETY: two strings that end in NUL, and as many bytes as are said.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(result).map(drop)
}

/// The extended attributes of what is open, with their values.
///
/// # Errors
/// What listxattr(2) and getxattr(2) say; a file system without any is an empty list.
pub fn xattrs(fd: impl AsFd) -> nix::Result<Vec<(OsString, Vec<u8>)>> {
    let path = path_of(fd)?;
    let names = match grown(|bytes| list(&path, bytes)) {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = c_name(OsStr::from_bytes(name))?;
        match grown(|bytes| get(&path, &name, bytes)) {
            // Gone since it was listed, or not to be read.
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
            value => found.push((OsString::from_vec(name.into_bytes()), value?)),
        }
    }
    Ok(found)
}

fn list(path: &CStr, bytes: &mut [u8]) -> nix::Result<usize> {
    #[expect(unsafe_code, reason = "nix has no extended attributes")]
    // SAFETY: a string that ends in NUL, and a buffer of the length that is said.
    let size = unsafe { libc::listxattr(path.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) };
    Errno::result(size).map(isize::cast_unsigned)
}

fn get(path: &CStr, name: &CStr, bytes: &mut [u8]) -> nix::Result<usize> {
    #[expect(unsafe_code, reason = "nix has no extended attributes")]
    // SAFETY: two strings that end in NUL, and a buffer of the length that is said.
    let size = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len())
    };
    Errno::result(size).map(isize::cast_unsigned)
}

/// Calls with a larger buffer until it holds everything; 64 KiB is what the kernel gives at most.
fn grown(call: impl Fn(&mut [u8]) -> nix::Result<usize>) -> nix::Result<Vec<u8>> {
    for size in [1 << 10, 1 << 16] {
        let mut bytes = vec![0; size];
        match call(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Err(Errno::ERANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::ERANGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;

    #[test]
    fn attributes_of_a_file_that_is_only_located_are_set_and_read() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let fd = open(&path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()).unwrap();
        let value = vec![b'\n'; 2000];
        for (name, value) in [("user.a", b"1".as_slice()), ("user.b", &value)] {
            set_xattr(&fd, OsStr::new(name), value).unwrap();
        }
        let mut found = xattrs(&fd).unwrap();
        found.retain(|(name, _)| name.as_bytes().starts_with(b"user."));
        found.sort();
        assert_eq!(found, [("user.a".into(), b"1".to_vec()), ("user.b".into(), value)]);
    }
}

//! Files, folders and sockets.

use super::{Errno, Fd, Result, c_string, check, check_int};
use crate::protocol::MOST_FDS;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_int, c_uint};
use core::mem::{size_of, zeroed};

/// Closes every descriptor from this one on.
pub fn close_from(first: c_uint) -> Result<()> {
    #[expect(unsafe_code, reason = "close_range(2)")]
    // SAFETY: the program has opened nothing yet; the callers own none in the range.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) };
    check(result).map(drop)
}

/// dup2(2): `to` becomes a copy that stays open at an exec.
pub fn duplicate_over(fd: &Fd, to: c_int) -> Result<()> {
    #[expect(unsafe_code, reason = "dup2(2)")]
    // SAFETY: both are numbers; `to` is one of 0, 1 and 2, which nothing here owns.
    let result = unsafe { libc::dup2(fd.number(), to) };
    check_int(result).map(drop)
}

/// Marks a descriptor to be closed by the exec.
pub fn close_at_exec(fd: &Fd) -> Result<()> {
    set_flags(fd.number(), libc::FD_CLOEXEC)
}

/// Lets the exec leave a descriptor open.
pub fn keep_at_exec(number: c_int) -> Result<()> {
    set_flags(number, 0)
}

fn set_flags(number: c_int, flags: c_int) -> Result<()> {
    #[expect(unsafe_code, reason = "fcntl(2)")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, flags) };
    check_int(result).map(drop)
}

/// A duplicate, close-on-exec, at `least` or beyond.
pub fn duplicate_beyond(fd: &Fd, least: c_int) -> Result<Fd> {
    #[expect(unsafe_code, reason = "fcntl(2)")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::fcntl(fd.number(), libc::F_DUPFD_CLOEXEC, least) };
    Fd::new(result.into())
}

/// dup3(2): `number`, which nothing has, becomes a copy that is closed by the exec.
pub fn duplicate_at(fd: &Fd, number: c_int) -> Result<()> {
    #[expect(unsafe_code, reason = "dup3(2)")]
    // SAFETY: both are numbers; the callers own nothing at `number`.
    let result = unsafe { libc::dup3(fd.number(), number, libc::O_CLOEXEC) };
    check_int(result).map(drop)
}

/// read(2), again after EINTR.
pub fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        #[expect(unsafe_code, reason = "read(2)")]
        // SAFETY: at most the buffer's length is written into it.
        let result = unsafe { libc::read(fd.number(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(result) {
            Ok(length) => return Ok(length),
            Err(_) if Errno::last().0 == libc::EINTR => {}
            Err(_) => return Err(Errno::last()),
        }
    }
}

/// write(2) of all of it.
pub fn write(fd: &Fd, bytes: &[u8]) -> Result<()> {
    write_number(fd.number(), bytes)
}

/// All of it to standard error.
pub fn write_to_stderr(bytes: &[u8]) -> Result<()> {
    write_number(libc::STDERR_FILENO, bytes)
}

fn write_number(fd: c_int, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write_some(fd, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// write(2), once.
pub fn write_some(fd: c_int, bytes: &[u8]) -> Result<usize> {
    #[expect(unsafe_code, reason = "write(2)")]
    // SAFETY: only the bytes are read.
    let result = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(result).map_err(|_| Errno::last())
}

/// Connects a stream to a unix socket.
pub fn connect(path: &str) -> Result<Fd> {
    #[expect(unsafe_code, reason = "socket(2)")]
    // SAFETY: it takes numbers.
    let raw = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    let socket = Fd::new(raw.into())?;
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from.cast_signed();
    }
    #[expect(unsafe_code, reason = "connect(2)")]
    // SAFETY: the address is whole and outlives the call.
    let result = unsafe {
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        libc::connect(socket.number(), (&raw const address).cast(), length)
    };
    check_int(result)?;
    Ok(socket)
}

/// recvmsg(2): bytes into `buffer`, descriptors into `fds`, all close-on-exec. 0 at the end of the
/// stream. Descriptors for which there is no room are closed by the kernel, and are an error.
pub fn receive(socket: &Fd, buffer: &mut [u8], fds: &mut Vec<Fd>) -> Result<usize> {
    const SIZE: usize = MOST_FDS * size_of::<c_int>();
    // Aligned as a cmsghdr must be, and with room for one.
    let mut control = [0_u64; SIZE.div_ceil(8) + 3];
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid msghdr.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    #[expect(unsafe_code, reason = "a macro of C")]
    // SAFETY: it computes.
    let space = unsafe { libc::CMSG_LEN(SIZE as c_uint) };
    message.msg_controllen = space as _;
    let length = loop {
        #[expect(unsafe_code, reason = "recvmsg(2)")]
        // SAFETY: buffer and control outlive the call, with their lengths in the message.
        let result =
            unsafe { libc::recvmsg(socket.number(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(result) {
            Ok(length) => break length,
            Err(_) if Errno::last().0 == libc::EINTR => {}
            Err(_) => return Err(Errno::last()),
        }
    };
    #[expect(unsafe_code, reason = "macros of C over what the kernel wrote")]
    // SAFETY: the macros stay within the length that the kernel has set; the numbers behind an
    // SCM_RIGHTS are descriptors that are ours alone from here on.
    unsafe {
        let mut part = libc::CMSG_FIRSTHDR(&raw const message);
        while !part.is_null() {
            if (*part).cmsg_level == libc::SOL_SOCKET && (*part).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*part).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let numbers = libc::CMSG_DATA(part).cast::<c_int>();
                for at in 0..bytes / size_of::<c_int>() {
                    fds.push(Fd(numbers.add(at).read_unaligned()));
                }
            }
            part = libc::CMSG_NXTHDR(&raw const message, part);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(Errno(libc::EMSGSIZE));
    }
    Ok(length)
}

/// Where a relative path begins.
#[derive(Clone, Copy)]
pub enum At<'a> {
    /// At the working folder; for absolute paths.
    Here,
    /// At a folder.
    Folder(&'a Fd),
}

impl At<'_> {
    fn number(self) -> c_int {
        match self {
            At::Here => libc::AT_FDCWD,
            At::Folder(fd) => fd.number(),
        }
    }
}

/// openat2(2), close-on-exec. `resolve` is of RESOLVE_….
pub fn open(at: At<'_>, path: &str, flags: c_int, mode: u32, resolve: u64) -> Result<Fd> {
    let path = c_string(path)?;
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid open_how.
    let mut how: libc::open_how = unsafe { zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.mode = mode.into();
    how.resolve = resolve;
    loop {
        #[expect(unsafe_code, reason = "openat2(2)")]
        // SAFETY: path and struct outlive the call, and the struct's length is given.
        let result = unsafe {
            let size = size_of::<libc::open_how>();
            libc::syscall(libc::SYS_openat2, at.number(), path.as_ptr(), &raw const how, size)
        };
        match Fd::new(result) {
            // Somebody renamed a folder meanwhile: openat2(2) says to try again.
            Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
            other => return other,
        }
    }
}

/// What is known of a file.
#[derive(Clone, Copy)]
pub struct Facts {
    /// Type and permissions.
    pub mode: u32,
    /// Which device a device node is.
    pub device: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number in its file system.
    pub inode: u64,
}

impl Facts {
    /// Whether it is of a type, S_IF….
    pub fn is(&self, kind: u32) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}

/// fstat(2).
pub fn facts(fd: &Fd) -> Result<Facts> {
    facts_of_number(fd.number())
}

/// fstat(2) of standard input, output or error.
pub fn facts_of_number(fd: c_int) -> Result<Facts> {
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid stat.
    let mut stat: libc::stat = unsafe { zeroed() };
    #[expect(unsafe_code, reason = "fstat(2)")]
    // SAFETY: one struct is written, which outlives the call.
    let result = unsafe { libc::fstat(fd, &raw mut stat) };
    check_int(result)?;
    Ok(Facts {
        mode: stat.st_mode,
        device: stat.st_rdev,
        uid: stat.st_uid,
        gid: stat.st_gid,
        inode: stat.st_ino,
    })
}

/// The number of a device.
pub fn device(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// Which file system it is on (statfs(2), `f_type`).
pub fn file_system(fd: &Fd) -> Result<i64> {
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid statfs.
    let mut stat: libc::statfs = unsafe { zeroed() };
    #[expect(unsafe_code, reason = "fstatfs(2)")]
    // SAFETY: one struct is written, which outlives the call.
    let result = unsafe { libc::fstatfs(fd.number(), &raw mut stat) };
    check_int(result)?;
    Ok(stat.f_type)
}

/// Whether something is mounted right there (statx(2), kernel 5.8).
pub fn is_mount(fd: &Fd) -> Result<bool> {
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid statx.
    let mut stat: libc::statx = unsafe { zeroed() };
    #[expect(unsafe_code, reason = "statx(2)")]
    // SAFETY: one struct is written, which outlives the call.
    let result =
        unsafe { libc::statx(fd.number(), c"".as_ptr(), libc::AT_EMPTY_PATH, 0, &raw mut stat) };
    check_int(result)?;
    Ok(stat.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0)
}

/// mkdirat(2).
pub fn make_folder(at: At<'_>, name: &str, mode: u32) -> Result<()> {
    let name = c_string(name)?;
    #[expect(unsafe_code, reason = "mkdirat(2)")]
    // SAFETY: the name outlives the call.
    let result = unsafe { libc::mkdirat(at.number(), name.as_ptr(), mode) };
    check_int(result).map(drop)
}

/// mknodat(2).
pub fn make_node(folder: &Fd, name: &str, mode: u32, device: u64) -> Result<()> {
    let name = c_string(name)?;
    #[expect(unsafe_code, reason = "mknodat(2)")]
    // SAFETY: the name outlives the call.
    let result = unsafe { libc::mknodat(folder.number(), name.as_ptr(), mode, device) };
    check_int(result).map(drop)
}

/// symlinkat(2).
pub fn make_link(target: &str, folder: &Fd, name: &str) -> Result<()> {
    let (target, name) = (c_string(target)?, c_string(name)?);
    #[expect(unsafe_code, reason = "symlinkat(2)")]
    // SAFETY: both strings outlive the call.
    let result = unsafe { libc::symlinkat(target.as_ptr(), folder.number(), name.as_ptr()) };
    check_int(result).map(drop)
}

/// unlinkat(2) of what is no folder.
pub fn remove(folder: &Fd, name: &str) -> Result<()> {
    let name = c_string(name)?;
    #[expect(unsafe_code, reason = "unlinkat(2)")]
    // SAFETY: the name outlives the call.
    let result = unsafe { libc::unlinkat(folder.number(), name.as_ptr(), 0) };
    check_int(result).map(drop)
}

/// rmdir(2).
pub fn remove_folder(path: &CStr) -> Result<()> {
    #[expect(unsafe_code, reason = "rmdir(2)")]
    // SAFETY: the path outlives the call.
    let result = unsafe { libc::rmdir(path.as_ptr()) };
    check_int(result).map(drop)
}

/// fchownat(2), of a link itself.
pub fn own(folder: &Fd, name: &str, uid: u32, gid: u32) -> Result<()> {
    let name = c_string(name)?;
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    #[expect(unsafe_code, reason = "fchownat(2)")]
    // SAFETY: the name outlives the call.
    let result = unsafe { libc::fchownat(folder.number(), name.as_ptr(), uid, gid, flags) };
    check_int(result).map(drop)
}

/// fchown(2) of standard input, output or error; the group stays.
pub fn own_number(fd: c_int, uid: u32) -> Result<()> {
    #[expect(unsafe_code, reason = "fchown(2)")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::fchown(fd, uid, libc::gid_t::MAX) };
    check_int(result).map(drop)
}

/// chdir(2).
pub fn change_folder(path: &str) -> Result<()> {
    let path = c_string(path)?;
    #[expect(unsafe_code, reason = "chdir(2)")]
    // SAFETY: the path outlives the call.
    let result = unsafe { libc::chdir(path.as_ptr()) };
    check_int(result).map(drop)
}

/// getcwd(2), as the kernel says it: `(unreachable)…` for a folder outside of the root.
pub fn current_folder() -> Result<String> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    #[expect(unsafe_code, reason = "getcwd(2); the C library's version hides what it must show")]
    // SAFETY: at most the buffer's length is written.
    let result = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    check(result)?;
    let path = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno(libc::ENAMETOOLONG))?;
    Ok(path.to_string_lossy().into_owned())
}

/// pipe2(2): the reading and the writing end, close-on-exec.
pub fn pipe() -> Result<(Fd, Fd)> {
    let mut ends = [0; 2];
    #[expect(unsafe_code, reason = "pipe2(2)")]
    // SAFETY: two numbers are written.
    let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    check_int(result)?;
    Ok((Fd(ends[0]), Fd(ends[1])))
}

/// Lets reads and writes of a descriptor fail rather than wait.
pub fn never_wait(fd: &Fd) -> Result<()> {
    #[expect(unsafe_code, reason = "fcntl(2)")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::fcntl(fd.number(), libc::F_SETFL, libc::O_NONBLOCK) };
    check_int(result).map(drop)
}

/// poll(2), again after EINTR: what is ready of each. -1 waits without an end.
pub fn poll<const N: usize>(fds: [(c_int, i16); N], milliseconds: c_int) -> Result<[i16; N]> {
    let mut list = fds.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    #[expect(unsafe_code, reason = "poll(2)")]
    // SAFETY: the list outlives the call, and its length is given.
    let result = unsafe { libc::poll(list.as_mut_ptr(), N as libc::nfds_t, milliseconds) };
    match check_int(result) {
        // As if the time had passed: who has a deadline looks at the clock.
        Err(Errno(libc::EINTR)) => Ok([0; N]),
        other => other.map(|_| list.map(|entry| entry.revents)),
    }
}

/// Milliseconds of a clock that nobody sets.
pub fn clock() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "clock_gettime(2)")]
    // SAFETY: one struct is written, which outlives the call.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time)
    };
    time.tv_sec.cast_unsigned() * 1000 + time.tv_nsec.cast_unsigned() / 1_000_000
}

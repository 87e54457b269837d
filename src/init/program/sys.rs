//! System calls: the only `unsafe` code of the init. Each returns the kernel's error number.

mod files;
mod mounts;
mod process;
mod start;

use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use alloc::string::String;
use core::ffi::{CStr, c_int, c_long};

pub use files::*;
pub use mounts::*;
pub use process::*;

/// An error number (errno(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What a system call answers.
pub type Result<T> = core::result::Result<T, Errno>;

impl Errno {
    fn last() -> Self {
        #[expect(unsafe_code, reason = "errno is a place in memory")]
        // SAFETY: the C library has an errno for the only thread.
        Self(unsafe { *libc::__errno_location() })
    }

    /// Its text, such as "No such file or directory".
    pub fn text(self) -> String {
        let mut buffer = [0; 128];
        #[expect(unsafe_code, reason = "C's text of an error number")]
        // SAFETY: at most the buffer's length is written, with a NUL.
        let result = unsafe { libc::strerror_r(self.0, buffer.as_mut_ptr(), buffer.len()) };
        #[expect(unsafe_code, reason = "C's text of an error number")]
        // SAFETY: strerror_r(3) ended it with a NUL, or left the zeros that were there.
        let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
        if result == 0 { text.to_string_lossy().into_owned() } else { "unknown error".to_owned() }
    }
}

/// Turns C's -1 into the error.
fn check(result: c_long) -> Result<c_long> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}

/// As [`check`], for what returns an int.
fn check_int(result: c_int) -> Result<c_int> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}

/// As C wants it. A NUL inside is an error: what came after it would be lost.
pub fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Errno(libc::EINVAL))
}

/// A file descriptor, closed when dropped.
#[derive(Debug)]
pub struct Fd(c_int);

impl Fd {
    /// The number, good as long as this is there.
    pub fn number(&self) -> c_int {
        self.0
    }

    /// Owns a descriptor that the program was started with.
    pub fn inherited(number: c_int) -> Self {
        Self(number)
    }

    fn new(result: c_long) -> Result<Self> {
        let number = check(result)?;
        c_int::try_from(number).map(Self).map_err(|_| Errno(libc::EBADF))
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the end of a descriptor")]
        // SAFETY: it is ours and nothing uses it any more.
        unsafe {
            libc::close(self.0)
        };
    }
}

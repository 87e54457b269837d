//! The shell's patterns.

use std::ffi::CString;

/// fnmatch(3) without flags: `*` matches slashes, too. A text with a NUL in it fits nothing.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (Ok(pattern), Ok(text)) = (CString::new(pattern), CString::new(text)) else {
        return false;
    };
    #[expect(unsafe_code, reason = "fnmatch(3) has no wrapper")]
    // SAFETY: both are strings that end in a NUL and live until the call returns.
    unsafe {
        libc::fnmatch(pattern.as_ptr(), text.as_ptr(), 0) == 0
    }
}

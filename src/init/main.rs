//! `nexcage-init`: the first process inside an LXC guest, which becomes the container's process,
//! and, as `nexcage-init exec` on the host, what begins a further process in it. The library's
//! `init` says more.
//!
//! What has unit tests is tested in the library, so the program's own harness is empty: it would
//! bring std, and with it a second heap and a second end for panics.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), no_main)]

#[cfg(not(test))]
extern crate alloc;

#[cfg(not(test))]
#[expect(dead_code, reason = "the supervisor's half is here, too")]
mod description;
#[cfg(not(test))]
mod program;
#[cfg(not(test))]
#[expect(dead_code, reason = "the supervisor's half is here, too")]
mod protocol;
#[cfg(not(test))]
mod text;

//! Loop devices, for snapshots that are files with a file system in them (blockfile, erofs).
//!
//! A device is bound with the flag that frees it after its last use (loop(4), LO_FLAGS_AUTOCLEAR):
//! the mount is that use, so unmounting is all the undoing there is.

use crate::error::{Context, Error, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Somebody else may take the device that was free a moment ago.
const TRIES: u32 = 64;

/// struct loop_info64 of linux/loop.h
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// struct loop_config of linux/loop.h
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A bound device. It is freed when this is dropped, unless it has been mounted by then.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: PathBuf,
    /// Keeps the device from being freed before it is mounted.
    _open: File,
}

impl LoopDevice {
    /// Binds `file` to a free device.
    ///
    /// # Errors
    /// When there is no such file, or the host gives no loop devices.
    pub(super) fn bind(file: &Path, read_only: bool) -> Result<Self> {
        let backing = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(file)
            .context(|| format!("open {}", file.display()))?;
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .context(|| "open /dev/loop-control")?;
        for _ in 0..TRIES {
            #[expect(unsafe_code, reason = "ioctl_list(2)")]
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(Errno::last()).context(|| "find a free loop device");
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let open = OpenOptions::new()
                .read(true)
                .write(!read_only)
                .custom_flags(libc::O_CLOEXEC)
                .open(&path)
                .context(|| format!("open {}", path.display()))?;
            match configure(&open, &backing, read_only) {
                Ok(()) => return Ok(Self { path, _open: open }),
                Err(Errno::EBUSY) => {}
                Err(errno) => {
                    return Err(errno)
                        .context(|| format!("bind {} to {}", file.display(), path.display()));
                }
            }
        }
        Err(Error::unavailable("every free loop device was taken by somebody else"))
    }

    /// What to mount.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn configure(device: &File, backing: &File, read_only: bool) -> std::result::Result<(), Errno> {
    let read_only = if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let config = LoopConfig {
        fd: backing.as_raw_fd().cast_unsigned(),
        block_size: 0,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR | read_only,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    #[expect(unsafe_code, reason = "ioctl_list(2)")]
    // SAFETY: LOOP_CONFIGURE reads a struct loop_config, of which `config` has the layout, and
    // keeps no pointer to it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    Errno::result(result).map(drop)
}

//! Where `tests/bed/fetch` has put the real components.

use std::path::{Path, PathBuf};

/// The bed's folder.
pub fn folder() -> PathBuf {
    std::env::var_os("NEXCAGE_BED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bed"), PathBuf::from)
}

/// The root file system of every container.
pub fn rootfs() -> PathBuf {
    folder().join("rootfs")
}

/// crun of Debian 12, which takes specs of version 1.0.
pub fn crun() -> PathBuf {
    folder().join("crun-1.8/crun")
}

/// runc of Debian 12.
pub fn runc() -> PathBuf {
    folder().join("runc-1.1/runc")
}

/// The Go shim of one of the bed's containerds: "1.6", "1.7" or "2.1".
pub fn runc_shim(containerd: &str) -> PathBuf {
    folder().join(format!("containerd-{containerd}/bin/containerd-shim-runc-v2"))
}

/// The shim that is tested. NEXCAGE_SHIM names another build of it.
pub fn shim() -> PathBuf {
    std::env::var_os("NEXCAGE_SHIM")
        .map_or_else(|| env!("CARGO_BIN_EXE_containerd-shim-nexcage-v1").into(), PathBuf::from)
}

/// Whether this process runs inside `tests/bed/enter`.
pub fn is_inside() -> bool {
    std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "tini")
}

/// Fails with advice where the tests could not work.
pub fn check() {
    assert!(is_inside(), "run the test program through tests/bed/enter");
    let (folder, crun) = (folder(), crun());
    assert!(
        crun.exists(),
        "{} has no crun: run tests/bed/fetch, or set NEXCAGE_BED to its folder",
        folder.display()
    );
}

//! The archive that `pct create` wants, with nothing in it: the root is the bundle's.

use crate::error::{Context, Result};
use crate::store::create_private;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A tar archive without members, as tar itself writes one: blocks of zeros. One of no bytes at
/// all is no archive to pct.
const SIZE: usize = 10_240;

/// The archive below the folder for what outlives a reboot, made unless it is there.
///
/// # Errors
/// Names the file.
pub fn ensure(data_dir: &Path) -> Result<PathBuf> {
    let path = data_dir.join("empty.tar");
    if fs::read(&path).is_ok_and(|bytes| is_empty_archive(&bytes)) {
        return Ok(path);
    }
    create_private(data_dir)?;
    let new = data_dir.join(format!(".empty.tar-{}", std::process::id()));
    let writing = || format!("write {}", path.display());
    fs::write(&new, [0; SIZE]).context(writing)?;
    File::open(&new).and_then(|file| file.sync_all()).context(writing)?;
    fs::rename(&new, &path).context(writing)?;
    Ok(path)
}

fn is_empty_archive(bytes: &[u8]) -> bool {
    bytes.len() == SIZE && bytes.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_made_once_and_mended_if_it_is_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = ensure(&folder.path().join("nexcage")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [0; 10_240]);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        ensure(&folder.path().join("nexcage")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        fs::write(&path, "x").unwrap();
        ensure(&folder.path().join("nexcage")).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 10_240);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn tar_takes_it_for_an_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = ensure(folder.path()).unwrap();
        let _children = crate::sys::reaper::tests::no_reaper();
        let listed = std::process::Command::new("tar").arg("-tf").arg(path).output().unwrap();
        assert!(listed.status.success() && listed.stdout.is_empty(), "{listed:?}");
    }
}

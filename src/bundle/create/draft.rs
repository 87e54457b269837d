//! A folder that is made beside its place and moved there when it is whole.

use crate::error::{Context, Error, Result};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How much of the target's name is in the draft's: a name has 255 bytes at most.
const NAME: usize = 200;

/// `.<name>.nexcage-XXXXXX` beside its target, mode 0700. Dropped, it goes with all that is in it.
#[derive(Debug)]
pub struct Draft {
    folder: PathBuf,
    target: PathBuf,
    there: bool,
}

impl Draft {
    /// Begins one for `target`, which may exist only as an empty folder.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for a target without a name; `NotFound` without a
    /// folder to make it in.
    pub fn begin(target: &Path) -> Result<Self> {
        let shown = target.display();
        let (Some(name), Some(parent)) = (target.file_name(), target.parent()) else {
            return Err(Error::invalid(format!(
                "{shown}: give the new folder by a name of its own"
            )));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let parent = parent
            .canonicalize()
            .context(|| format!("{shown}: look at {}, which must be there", parent.display()))?;
        let target = parent.join(name);
        check_free(&target)?;
        let cut: String = name.to_string_lossy().chars().take(NAME / 4).collect();
        let mut template = OsString::from(".");
        template.push(cut);
        template.push(".nexcage-XXXXXX");
        let folder = nix::unistd::mkdtemp(&parent.join(template))
            .context(|| format!("make a folder in {}", parent.display()))?;
        Ok(Self { folder, target, there: true })
    }

    /// Where it is for now.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it will be: absolute, and its folder without links.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Puts it where it belongs, in one step.
    ///
    /// # Errors
    /// `AlreadyExists` when something has come to be there meanwhile.
    pub fn finish(mut self) -> Result<()> {
        match fs::rename(&self.folder, &self.target) {
            Ok(()) => {
                self.there = false;
                Ok(())
            }
            Err(error) => {
                check_free(&self.target)?;
                Err(error).context(|| format!("rename to {}", self.target.display()))
            }
        }
    }

    /// Removes it.
    ///
    /// # Errors
    /// Names what is left.
    pub fn discard(mut self) -> Result<()> {
        self.there = false;
        remove(&self.folder)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.there
            && let Err(error) = remove(&self.folder)
        {
            log::error!("{error}");
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Nothing, or an empty folder, which a rename replaces.
fn check_free(target: &Path) -> Result<()> {
    let taken = |what: &str| {
        Err(Error::already_exists(format!("{} {what}: choose another", target.display())))
    };
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(|| format!("look at {}", target.display())),
        Ok(found) if !found.is_dir() => taken("is there, and no folder"),
        Ok(_) => {
            let mut inside =
                fs::read_dir(target).context(|| format!("look into {}", target.display()))?;
            if inside.next().is_some() { taken("is there, and not empty") } else { Ok(()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_nowhere_until_it_is_whole_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("b");
        let count = || fs::read_dir(folder.path()).unwrap().count();
        let draft = Draft::begin(&target).unwrap();
        fs::write(draft.folder().join("x"), "").unwrap();
        assert!(!target.exists() && count() == 1);
        draft.discard().unwrap();
        drop(Draft::begin(&target).unwrap());
        assert_eq!(count(), 0);
        // An empty folder is as good as none.
        fs::create_dir(&target).unwrap();
        let draft = Draft::begin(&target).unwrap();
        fs::write(draft.folder().join("x"), "").unwrap();
        draft.finish().unwrap();
        assert!(target.join("x").exists() && count() == 1);
        assert!(Draft::begin(&target).unwrap_err().to_string().contains("not empty"));
        assert!(Draft::begin(&target.join("x")).unwrap_err().to_string().contains("no folder"));
        assert!(
            Draft::begin(&folder.path().join("no/b"))
                .unwrap_err()
                .to_string()
                .contains("must be there")
        );
        assert!(Draft::begin(Path::new("..")).is_err());
    }

    #[test]
    fn what_has_come_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("b");
        let draft = Draft::begin(&target).unwrap();
        fs::create_dir_all(target.join("other")).unwrap();
        assert!(draft.finish().unwrap_err().to_string().contains("not empty"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

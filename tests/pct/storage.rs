//! Volumes: folders of the host, and images on the one storage there is.

use crate::report::{Outcome, fail, reason, said};
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// The folder of the storage `local`. On a real node it is below /var/lib, which is not private
/// to a test.
pub const LOCAL: &str = "/run/pve-standin/vz";

/// The first id of an unprivileged guest on the host.
pub const SHIFT: u32 = 100_000;

/// The value of `rootfs` or `mpN`.
#[derive(Clone, Debug)]
pub struct Volume {
    /// A path, `storage:name`, or `storage:size` for one that is to be made.
    pub name: String,
    /// The rest, in order.
    pub options: Vec<(String, String)>,
}

impl Volume {
    /// Reads a property string, which has been checked.
    pub fn parse(value: &str) -> Self {
        let mut volume = Self { name: String::new(), options: Vec::new() };
        for part in value.split(',') {
            match part.split_once('=') {
                None => part.clone_into(&mut volume.name),
                Some(("volume", name)) => name.clone_into(&mut volume.name),
                Some((key, value)) => volume.options.push((key.to_owned(), value.to_owned())),
            }
        }
        volume
    }

    /// The property string as it is stored.
    pub fn text(&self) -> String {
        let options = self.options.iter().map(|(key, value)| format!(",{key}={value}"));
        self.name.clone() + &options.collect::<String>()
    }

    /// One of its options.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|option| option.0 == key).map(|option| option.1.as_str())
    }

    /// Whether it is a folder of the host, which is only ever lent to a guest.
    pub fn is_bind(&self) -> bool {
        self.name.starts_with('/')
    }

    /// Refuses, before anything is done, a name that can be no volume, and a storage that is not
    /// there.
    pub fn check(&self) -> Outcome {
        if self.is_bind() {
            return Ok(());
        }
        match self.name.split_once(':') {
            None => fail(format!("unable to parse volume ID '{}'", self.name)),
            Some(("local", _)) => Ok(()),
            Some((storage, _)) => {
                crate::report::early(format!("storage '{storage}' does not exist"))
            }
        }
    }

    /// Makes an image, where the name asks for one of that many GiB.
    pub fn allocate(&mut self, vmid: u32, unprivileged: bool) -> Outcome {
        let size = self.name.strip_prefix("local:").and_then(|size| size.parse::<f64>().ok());
        let Some(gib) = size else { return Ok(()) };
        let folder = format!("{LOCAL}/images/{vmid}");
        let free = |number: &u32| !Path::new(&image(&folder, vmid, *number)).exists();
        let number = (0..256).find(free).unwrap_or(0);
        let path = image(&folder, vmid, number);
        let bytes = size_in_bytes(gib);
        let make = || {
            fs::create_dir_all(&folder)?;
            File::create_new(&path)?.set_len(bytes)
        };
        if let Err(error) = make() {
            return fail(format!("unable to create image: {}", reason(&error)));
        }
        crate::report::say(&format!("Formatting '{path}', fmt=raw size={bytes}"));
        let owner = if unprivileged { SHIFT } else { 0 };
        let owner = format!("root_owner={owner}:{owner}");
        let status = said(Command::new("mkfs.ext4").args(["-q", "-E", &owner, &path]));
        if !status.is_ok_and(|status| status.success()) {
            return fail(format!("command 'mkfs.ext4 {path}' failed: exit code 1"));
        }
        self.name = format!("local:{vmid}/vm-{vmid}-disk-{number}.raw");
        self.options.push(("size".to_owned(), format!("{gib}G")));
        Ok(())
    }

    /// Removes an image; a folder of the host is left alone.
    pub fn free(&self) {
        if let Some(name) = self.name.strip_prefix("local:") {
            let path = format!("{LOCAL}/images/{name}");
            fs::remove_file(&path).ok();
            if let Some(folder) = Path::new(&path).parent() {
                fs::remove_dir(folder).ok();
            }
        }
    }

    /// Mounts it. A folder of the host comes without what is mounted below it.
    pub fn mount(&self, at: &Path) -> Outcome {
        let read_only = self.get("ro") == Some("1");
        let mounted = match self.name.strip_prefix("local:") {
            None => {
                // Each part as the real one names it in its message.
                without_links(&self.name)?;
                if !Path::new(&self.name).is_dir() {
                    return fail(format!("directory '{}' does not exist", self.name));
                }
                let bound = mount(
                    Some(self.name.as_str()),
                    at,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                );
                let only_read = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                match bound {
                    Ok(()) if read_only => {
                        mount(None::<&str>, at, None::<&str>, only_read, None::<&str>)
                    }
                    other => other,
                }
                .map_err(std::io::Error::from)
            }
            Some(name) => {
                let path = format!("{LOCAL}/images/{name}");
                if !Path::new(&path).exists() {
                    return fail(format!("volume '{}' does not exist", self.name));
                }
                let options = if read_only { "loop,ro" } else { "loop" };
                match said(Command::new("mount").args(["-o", options, &path]).arg(at)) {
                    Ok(status) if status.success() => Ok(()),
                    Ok(_) => Err(std::io::Error::other("mount failed")),
                    Err(error) => Err(error),
                }
            }
        };
        mounted.or_else(|error| fail(format!("mount {}: {}", self.name, reason(&error))))
    }
}

fn image(folder: &str, vmid: u32, number: u32) -> String {
    format!("{folder}/vm-{vmid}-disk-{number}.raw")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size of a test's disk"
)]
fn size_in_bytes(gib: f64) -> u64 {
    (gib * 1024.0 * 1024.0 * 1024.0) as u64
}

fn without_links(path: &str) -> Outcome {
    let mut so_far = String::from("/");
    for part in path.split('/').filter(|part| !part.is_empty()) {
        so_far = format!("{so_far}/{part}");
        if Path::new(&so_far).is_symlink() {
            return fail(format!("symlink encountered at: {so_far}"));
        }
    }
    Ok(())
}

/// Makes the folder of a mount point in a guest's root, where there is none.
pub fn make_mount_point(root: &Path, mount_point: &str) -> Outcome {
    let at = root.join(mount_point.trim_start_matches('/'));
    if at.metadata().is_ok_and(|meta| meta.mode() & 0o170_000 == 0o040_000) {
        return Ok(());
    }
    fs::create_dir_all(&at)
        .or_else(|error| fail(format!("unable to create '{mount_point}': {}", reason(&error))))
}

//! Bind mounts that LXC cannot make: the supervisor makes a copy of what is on the host, and the
//! init gives it its place.

use super::translate::{Bind, IdMap};
use crate::error::{Context, Result};
use crate::sys::detached;
use std::os::fd::OwnedFd;

/// One mount without a place for each of `binds`.
///
/// # Errors
/// Names the place in config.json, the source, and what the kernel said.
pub(super) fn open(binds: &[Bind]) -> Result<Vec<OwnedFd>> {
    binds.iter().map(|bind| one(bind).context(|| bind.pointer.as_str())).collect()
}

fn one(bind: &Bind) -> Result<OwnedFd> {
    let source = bind.source.display();
    let mount = detached::copy(&bind.source, bind.below).context(|| format!("mount {source}"))?;
    if !bind.ids.is_empty() {
        let [users, groups] = [false, true].map(|groups| lines(&bind.ids, groups));
        let namespace = detached::user_namespace(&users, &groups)?;
        detached::map_ids(&mount, &namespace, bind.ids_below).context(|| {
            format!("map the ids of {source}, which not every file system can have mapped")
        })?;
    }
    Ok(mount)
}

/// The ranges of users or groups as user_namespaces(7) has them.
fn lines(ids: &[IdMap], groups: bool) -> String {
    let ranges = ids.iter().filter(|range| range.groups == groups);
    ranges.map(|range| format!("{} {} {}\n", range.guest, range.host, range.size)).collect()
}

//! Users by name, as the root file system's own /etc/passwd and /etc/group have them.

use crate::config::input::quoted;
use crate::error::{Context, Error, Result};
use crate::sys::inroot::Root;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::fs::File;
use std::io::Read;

/// The largest passwd or group that is read, in bytes.
const MOST: u64 = 16 << 20;

/// A process's user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Its uid.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

/// Finds `user[:group]`, each a number or a name. Without a group it is the user's own of
/// /etc/passwd, else 0, and those of /etc/group that name the user come with it (image-spec,
/// conversion.md, "Config.User").
///
/// # Errors
/// `InvalidArgument` for a name that is not there.
pub fn find(root: &Root, text: &str) -> Result<User> {
    let doing = || format!("user {}", quoted(text));
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() || group == Some("") {
        return Err(Error::invalid("wanted USER or USER:GROUP")).context(doing);
    }
    let passwd = read(root, "etc/passwd").context(doing)?;
    let number: Option<u32> = user.parse().ok();
    let known = fields(&passwd).find(|fields| {
        fields.first() == Some(&user)
            || (number.is_some() && fields.get(2).and_then(|uid| uid.parse().ok()) == number)
    });
    let id = |fields: &[&str], at: usize| fields.get(at).and_then(|id| id.parse::<u32>().ok());
    let own = known.as_deref().and_then(|fields| Some((id(fields, 2)?, id(fields, 3)?)));
    let missing = |file: &str, name: &str| {
        Err(Error::invalid(format!(
            "{} is not in the root's {file}: give a number, or a name that is there",
            quoted(name)
        )))
        .context(doing)
    };
    // A number is itself, even where somebody has it as a name.
    let (uid, own_gid) = match (number, own) {
        (Some(number), Some((uid, gid))) if uid == number => (number, gid),
        (Some(number), _) => (number, 0),
        (None, Some(found)) => found,
        (None, None) => return missing("/etc/passwd", user),
    };
    let groups = read(root, "etc/group").context(doing)?;
    if let Some(group) = group {
        let found = fields(&groups)
            .find(|fields| fields.first() == Some(&group))
            .and_then(|fields| id(&fields, 2));
        return match group.parse().ok().or(found) {
            Some(gid) => Ok(User { uid, gid, groups: Vec::new() }),
            None => missing("/etc/group", group),
        };
    }
    let name = known.as_deref().and_then(|fields| fields.first().copied());
    let mut more: Vec<u32> = fields(&groups)
        .filter(|fields| {
            let members = fields.get(3).copied().unwrap_or_default();
            name.is_some_and(|name| members.split(',').any(|member| member == name))
        })
        .filter_map(|fields| id(&fields, 2))
        .filter(|gid| *gid != own_gid)
        .collect();
    more.sort_unstable();
    more.dedup();
    Ok(User { uid, gid: own_gid, groups: more })
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// A file of the root's, as a process in it would read it; empty where there is none.
fn read(root: &Root, path: &str) -> Result<String> {
    let fd = match root.open_at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        other => other.context(|| format!("read /{path} of the root"))?,
    };
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(Error::invalid(format!("/{path} of the root is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).context(|| format!("read /{path} of the root"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_root_and_of_no_file_outside() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir(at("etc")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        let user = |uid, gid, groups: &[u32]| User { uid, gid, groups: groups.to_vec() };
        // Numbers do without files.
        assert_eq!(find(&root, "7").unwrap(), user(7, 0, &[]));
        assert_eq!(find(&root, "7:8").unwrap(), user(7, 8, &[]));
        std::fs::write(at("etc/real"), "root:x:0:0::/:\napp:x:10:20::/:\nodd line\n").unwrap();
        std::os::unix::fs::symlink("/etc/real", at("etc/passwd")).unwrap();
        std::fs::write(at("etc/group"), "a:x:30:root,app\nb:x:20:app\nc:x:29:apple,app\n").unwrap();
        assert_eq!(find(&root, "app").unwrap(), user(10, 20, &[29, 30]));
        assert_eq!(find(&root, "10").unwrap(), user(10, 20, &[29, 30]));
        assert_eq!(find(&root, "app:c").unwrap(), user(10, 29, &[]));
        assert_eq!(find(&root, "app:5").unwrap(), user(10, 5, &[]));
        for (wrong, says) in [
            ("daemon", "/etc/passwd"),
            ("app:daemon", "/etc/group"),
            ("", "wanted"),
            (":1", "wanted"),
        ] {
            let error = find(&root, wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        // The host's own has a root, but this link leads back into the root, where there is none.
        std::fs::remove_file(at("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../../../../../../../etc/shadow", at("etc/passwd")).unwrap();
        assert!(find(&root, "root").unwrap_err().to_string().contains("/etc/passwd"));
    }
}

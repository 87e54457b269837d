//! What stands at the top of config.json: the root, names, hooks, annotations.

use super::at::At;
use super::{Host, namespaces::Namespaces};
use crate::config::input::quoted;
use crate::guest::translate::FileKind;
use std::path::{Component, Path, PathBuf};

/// `ociVersion`: 1.0.0 and every later 1.x. Answers minor version and patch.
pub(super) fn version(at: &At<'_>) -> Option<(u64, u64)> {
    let text = at.text()?;
    if crate::spec::check_version(text).is_err() {
        at.error(
            format!("{} is not supported: 1.0.0 and every later 1.x is", quoted(text)),
            format!("give the version the config is written for, such as {}", crate::spec::NEWEST),
        );
        return None;
    }
    let mut numbers = text.split(['.', '-', '+']).skip(1).map(|word| word.parse().ok());
    numbers.next().flatten().zip(numbers.next().flatten())
}

/// A path without `.` and `..`, which climbs no higher than its beginning. The second is how often
/// it would.
pub(super) fn clean(path: &Path) -> (PathBuf, usize) {
    let (mut done, mut out) = (PathBuf::new(), 0);
    for part in path.components() {
        match part {
            Component::Normal(word) => done.push(word),
            Component::ParentDir if done.file_name().is_some() => {
                done.pop();
            }
            Component::ParentDir => out += 1,
            Component::RootDir => done.push("/"),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    (done, out)
}

/// `root.path`
pub(super) fn root(at: &At<'_>, host: &Host<'_>) {
    let at = at.at("path");
    let Some(text) = at.text() else { return };
    let path = Path::new(text);
    if text.contains('\0') {
        return at.error("has a NUL in it", "take it out");
    }
    let (cleaned, out) = clean(path);
    if path.is_relative() && out > 0 {
        return at.error(
            format!("{} leads out of the bundle", quoted(text)),
            "put the root into the bundle, or give its absolute path",
        );
    }
    let whole = host.bundle.join(&cleaned);
    match host.files.kind(&whole) {
        Some(FileKind::Dir) => {}
        Some(_) => {
            return at.error(
                format!("{} is no folder", whole.display()),
                "name the folder that is to be the container's /",
            );
        }
        None => {
            return at.error(
                format!("{} is not there", whole.display()),
                "make it, and put the container's files into it",
            );
        }
    }
    if whole == Path::new("/") {
        return at.error(
            "is the host's own root, which no runtime can change to",
            "name another folder",
        );
    }
    let Some(real) = host.files.real(&whole) else { return };
    let bundle = host.files.real(host.bundle).unwrap_or_else(|| host.bundle.to_owned());
    if real == bundle.join(&cleaned) {
        return;
    }
    if path.is_relative() && !real.starts_with(&bundle) {
        at.error(
            format!("a link leads out of the bundle, to {}", real.display()),
            "put the root into the bundle, or give its absolute path",
        );
    } else {
        at.warning(
            format!("there is a link on the way to {}, and runc refuses links", real.display()),
            format!("give {}", real.display()),
        );
    }
}

/// `hostname` and `domainname`. The kernel takes any 64 bytes (sethostname(2)), and so crun and
/// runc do; RFC 1123 is what other machines and most programs take.
pub(super) fn names(top: &At<'_>, namespaces: &Namespaces) {
    for key in ["hostname", "domainname"] {
        let at = top.at(key);
        let Some(name) = at.text() else { continue };
        if !namespaces.has("uts") {
            at.error(
                "there is no UTS namespace: the name would be the host's, too, and runtimes refuse",
                "add {\"type\": \"uts\"} to /linux/namespaces, or remove the name",
            );
        }
        if name.len() > 64 {
            at.error(format!("has {} bytes, and the kernel takes 64", name.len()), "shorten it");
        }
        let fits = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // "(none)" is what the kernel itself says for no domain.
        if let Some(label) = name.split('.').find(|label| !fits(label))
            && !(key == "domainname" && name == "(none)")
        {
            at.warning(
                format!(
                    "{} is no label of RFC 1123; crun and runc take it, for the kernel does, but \
                     other programs need not",
                    quoted(label)
                ),
                "use letters, digits and hyphens, 1 to 63 of them between two dots, no hyphen first \
                 or last",
            );
        }
    }
}

/// `hooks`
pub(super) fn hooks(at: &At<'_>, host: &Host<'_>) {
    for (kind, list) in at.entries() {
        for hook in list.items() {
            let path = hook.at("path");
            if let Some(text) = path.text() {
                if !text.starts_with('/') {
                    path.error(
                        format!("found {}, wanted an absolute path", quoted(text)),
                        "give the whole path of the program",
                    );
                } else if kind != "startContainer" && host.files.kind(Path::new(text)).is_none() {
                    path.warning(
                        format!("{} is not there: the hook will fail", quoted(text)),
                        "install the program before the container is made",
                    );
                }
            }
            for variable in hook.at("env").items() {
                if variable.text().is_some_and(|text| !text.contains('=')) {
                    variable.warning("is no NAME=VALUE", "write the name, =, and the value");
                }
            }
        }
    }
}

/// `annotations`
pub(super) fn annotations(at: &At<'_>) {
    if at.value.get("").is_some() {
        at.at("").tolerated("has an empty key", "give the annotation a name");
    }
}

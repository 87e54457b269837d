//! Versions of runtimes, and which one a bundle needs.

use crate::config::BackendName;
use std::fmt;

/// major.minor.patch
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(major, minor, 0) => write!(out, "{major}.{minor}"),
            Self(major, minor, patch) => write!(out, "{major}.{minor}.{patch}"),
        }
    }
}

/// The version in what `--version` prints: the first word that begins with digits and a dot.
pub(super) fn parse(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let digits = word.split(|char: char| !char.is_ascii_digit() && char != '.').next()?;
        let mut parts = digits.split('.').map(str::parse);
        let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
        Some(Version(major, minor, parts.next().and_then(Result::ok).unwrap_or(0)))
    })
}

/// The oldest runtime that takes a bundle of that ociVersion, where one is known that does not:
/// crun compared the version with 1.0 until 1.14.3 dropped the check.
pub(super) fn needed(name: BackendName, oci_version: &str) -> Option<Version> {
    (name == BackendName::Crun && !oci_version.starts_with("1.0.")).then_some(Version(1, 14, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_crun_and_runc_print() {
        let crun = "crun version 1.8.1\ncommit: f8a096be\nspec: 1.0.0\n+SYSTEMD";
        assert_eq!(parse(crun), Some(Version(1, 8, 1)));
        assert_eq!(parse("runc version 1.1.5+ds1\nspec: 1.0.2-dev"), Some(Version(1, 1, 5)));
        assert_eq!(parse("crun version 1.28\n"), Some(Version(1, 28, 0)));
        assert_eq!(parse("garbage . .. 7"), None);
    }

    #[test]
    fn only_an_old_crun_with_a_new_bundle_is_in_question() {
        assert!(needed(BackendName::Crun, "1.2.1") > parse("1.8.1"));
        assert!(needed(BackendName::Crun, "1.2.1") < parse("1.28"));
        assert_eq!(needed(BackendName::Crun, "1.0.2-dev"), None);
        assert_eq!(needed(BackendName::Runc, "1.2.1"), None);
    }
}

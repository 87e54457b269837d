//! Which Proxmox VE this is, asked once: what a guest can have depends on it.

use crate::error::{Context, Error, Result};
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Where pve-manager writes its version down; `pveversion` prints it, after most of a second.
pub const FILE: &str = "/usr/share/perl5/PVE/pvecfg.pm";

/// The oldest that nexcage knows.
const OLDEST: Version = Version(8, 0, 0);

/// The first that configures a guest's network from outside (`host-managed` of `net0`):
/// pve-container 6.0.15.
pub const HOST_MANAGED: Version = Version(9, 1, 0);

/// major.minor.patch of pve-manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(out, "{major}.{minor}.{patch}")
    }
}

impl Version {
    /// This host's, as this process has first seen it; `None` where nothing says.
    pub fn of_host() -> Option<Self> {
        static FOUND: OnceLock<Option<Version>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let found = read(Path::new(FILE));
            match &found {
                Ok(version) => log::debug!("this is Proxmox VE {version}"),
                Err(error) => log::warn!("which Proxmox VE this is: {error}"),
            }
            found.ok()
        })
    }

    /// Refuses one that is too old to be driven.
    ///
    /// # Errors
    /// `FailedPrecondition` with both versions.
    pub fn check(self) -> Result<()> {
        if self < OLDEST {
            return Err(Error::precondition(format!(
                "this is Proxmox VE {self}, and nexcage needs {} or newer: upgrade the host",
                OLDEST.0
            )));
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Version> {
    let reading = || format!("read {}", path.display());
    let text = fs::read_to_string(path).context(reading)?;
    parse(&text).ok_or_else(|| Error::unknown("no version is in it")).context(reading)
}

/// The string that the Perl function `version` returns.
fn parse(text: &str) -> Option<Version> {
    let after = text.split("sub version").find(|part| part.trim_start().starts_with('{'))?;
    let said = after.split(['\'', '"']).nth(1)?;
    // "8.4.1", and "7.4-3" of old.
    let mut numbers = said.split(['.', '-', '~']).map(str::parse);
    let major = numbers.next()?.ok()?;
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    Some(Version(major, next(), next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn module(version: &str) -> String {
        format!(
            "package PVE::pvecfg;\n\nsub package {{\n    return 'pve-manager';\n}}\n\n\
             sub version_text {{\n    return 'x/y';\n}}\n\nsub version {{\n    \
             return '{version}';\n}}\n"
        )
    }

    #[test]
    fn the_version_is_what_the_function_of_that_name_returns() {
        for (said, version) in [
            ("9.2.11", Version(9, 2, 11)),
            ("8.4.1", Version(8, 4, 1)),
            ("8.0.0~9", Version(8, 0, 0)),
            ("7.4-3", Version(7, 4, 3)),
            ("9", Version(9, 0, 0)),
        ] {
            assert_eq!(parse(&module(said)), Some(version), "{said}");
        }
        for text in ["", "sub version {", "sub version { return 'x'; }", "sub version_text { '9' }"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(Version(9, 2, 11).to_string(), "9.2.11");
        assert!(read(Path::new("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
    }

    #[test]
    fn what_is_older_than_eight_is_refused() {
        Version(8, 0, 0).check().unwrap();
        let error = Version(7, 4, 3).check().unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains("Proxmox VE 7.4.3"), "{error}");
    }
}

//! Names that come from outside, checked once at the edge and trusted from there on.
//!
//! containerd allows `[A-Za-z0-9][A-Za-z0-9_.-]*` up to 76 characters; runc and crun allow `+` as
//! well. An id becomes a folder's name and a word on a command line, so a leading dash, a slash,
//! a dot in front, white space and control characters are refused here and nowhere else.

use crate::error::{Error, Result};
use std::fmt;

/// The longest id, in bytes.
pub const MAX_LEN: usize = 128;

fn check(what: &str, text: &str) -> Result<()> {
    let problem = if text.is_empty() {
        "is empty"
    } else if text.len() > MAX_LEN {
        "is longer than 128 characters"
    } else if !text.as_bytes()[0].is_ascii_alphanumeric() {
        "does not begin with a letter or a digit"
    } else if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte)) {
        "has a character other than letters, digits and _ . + -"
    } else {
        return Ok(());
    };
    // `{:?}` escapes what could break a log line, and a hostile id may be megabytes long.
    let shown: String = text.chars().take(MAX_LEN).collect();
    Err(Error::invalid(format!("{what} {shown:?} {problem}")))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes a name from outside.
            ///
            /// # Errors
            /// `InvalidArgument` that says what is wrong with it.
            pub fn parse(text: &str) -> Result<Self> {
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A container's id, unique in its namespace.
    ContainerId,
    "container id"
);
name!(
    /// An exec's id, unique in its container.
    ExecId,
    "exec id"
);
name!(
    /// A containerd namespace.
    Namespace,
    "namespace"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_containerd_nerdctl_and_the_kubelet_are_taken() {
        for id in ["a", "web-1", "nerdctl.lxc_2+x", &"f".repeat(64), &"9".repeat(MAX_LEN)] {
            assert_eq!(ContainerId::parse(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn ids_that_could_become_a_flag_a_path_or_a_line_are_refused() {
        let long = "a".repeat(MAX_LEN + 1);
        for id in ["", ".", "..", "-f", ".crun", "a/b", "../a", "a b", "a\n", "a\0b", "ü", &long] {
            let error = ContainerId::parse(id).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::InvalidArgument, "{id:?}");
            assert!(!error.to_string().contains('\n'));
        }
    }
}

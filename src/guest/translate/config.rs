//! LXC's configuration file, line by line.
//!
//! LXC reads it so: a line ends at `\n` or `\r`; blanks around the key and around the value are
//! dropped; then one pair of quotes around the value, single or double, is dropped; what is left
//! is the value, byte for byte. An empty value resets the key. So a pair of quotes of our own
//! around it keeps every value whole that has no control character in it.

use crate::error::{Error, Result};

/// A configuration under way.
#[derive(Debug, Default)]
pub(super) struct Config {
    text: String,
}

impl Config {
    /// Adds a line; `pointer` is where the value comes from.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot stand in a line.
    pub(super) fn line(&mut self, key: &str, value: &str, pointer: &str) -> Result<()> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !key.starts_with("lxc.") || !key.bytes().all(word) {
            return Err(wrong(pointer, "cannot be part of a key of LXC's", key));
        }
        if value.chars().any(char::is_control) {
            return Err(wrong(pointer, "has a control character", value));
        }
        let ends = [value.chars().next(), value.chars().next_back()];
        let quotes = ends.into_iter().flatten().any(|end| "'\" ".contains(end));
        let quote = if quotes { "\"" } else { "" };
        let blank = if value.is_empty() { "" } else { " " };
        self.text.push_str(&format!("{key} ={blank}{quote}{value}{quote}\n"));
        Ok(())
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

fn wrong(pointer: &str, problem: &str, text: &str) -> Error {
    Error::invalid(format!("{pointer}: {} {problem}", crate::config::input::quoted(text)))
}

/// A word of a line of fstab(5), which LXC reads with getmntent(3).
pub(super) fn fstab_word(word: &str) -> String {
    // glibc knows these and no others; a `#` in front would make the line a comment.
    word.replace('\\', "\\134").replace(' ', "\\040")
}

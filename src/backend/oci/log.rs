//! The JSON log of crun and runc: objects with `level` and `msg`, one a line from most versions,
//! over several lines from crun 1.28.

use serde::Deserialize;

/// More of a log than this is not read.
pub(super) const MAX: u64 = 1 << 20;

/// More of a message than this helps nobody, and containerd cuts replies at 4 MiB.
const MAX_MESSAGE: usize = 2048;

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    level: String,
    msg: String,
}

/// The last error in a log; the last message of any level where none is an error.
pub(super) fn last_error(log: &str) -> Option<String> {
    let entries = entries(log);
    let errors = entries.iter().rev().find(|entry| entry.level == "error");
    errors
        .or(entries.last())
        .map(|entry| one_line(&entry.msg))
        .filter(|message| !message.is_empty())
}

/// What can be read of a log. What cannot is skipped up to the next brace.
fn entries(log: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut rest = log;
    while let Some(start) = rest.find('{') {
        rest = &rest[start..];
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Entry>();
        entries.extend(stream.by_ref().map_while(Result::ok));
        // The stream stands before what it could not read; one more brace cannot begin an object
        // that it could.
        let read = stream.byte_offset();
        rest = rest.get(read + 1..).unwrap_or_default();
    }
    entries
}

/// The last line of what a program printed.
pub(super) fn last_line(said: &str) -> Option<String> {
    said.lines().rev().map(one_line).find(|line| !line.is_empty())
}

/// Garbage is shown as such, and never breaks a line of a log.
fn one_line(text: &str) -> String {
    text.trim()
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(MAX_MESSAGE)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told_from_warnings_and_garbage() {
        let log = "\
{\"msg\":\"first\",\"level\":\"error\",\"time\":\"2026-01-01T00:00:00Z\"}
{\"level\":\"error\",\"msg\":\"exec: \\\"nope\\\": executable file not found in $PATH\"}
{\"level\":\"warning\",\"msg\":\"later\"}
{\"level\":\"err";
        let expected = "exec: \"nope\": executable file not found in $PATH";
        assert_eq!(last_error(log).as_deref(), Some(expected));
        assert_eq!(last_error("{\"level\":\"warning\",\"msg\":\"a\\nb\"}").as_deref(), Some("a b"));
        assert_eq!(last_error("\u{0}\u{1}garbage"), None);
        let spread = "{\n  \"msg\": \"no such file\",\n  \"level\": \"error\"\n}\n";
        assert_eq!(last_error(spread).as_deref(), Some("no such file"));
        assert_eq!(last_error(&format!("junk {{ {spread}")).as_deref(), Some("no such file"));
        assert_eq!(last_line("one\ntwo\n \n").as_deref(), Some("two"));
        assert_eq!(last_line(""), None);
    }
}

//! Reading of small texts: /proc and /etc/passwd. No I/O.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

/// The start of a process in proc_pid_stat(5), field 22. The name in field 2 may have blanks and
/// parentheses of its own, so the fields are counted from its end.
pub fn start_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The home of a user in passwd(5).
pub fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        let home = fields.nth(2)?;
        let found = !name.is_empty() && number.parse() == Ok(uid) && !home.is_empty();
        found.then(|| home.to_owned())
    })
}

/// The value of a variable; the last one counts, as it does for a shell.
pub fn value_of<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// Where to look for a program, in order. An empty part of PATH is the working folder.
pub fn candidates(program: &str, path: &str) -> impl Iterator<Item = String> {
    path.split(':').map(move |folder| match folder {
        "" => format!("./{program}"),
        folder if folder.ends_with('/') => format!("{folder}{program}"),
        folder => format!("{folder}/{program}"),
    })
}

/// Whether a path, as getcwd(2) says it, may be a container's working folder: one outside of its
/// root reads `(unreachable)…`, and below /proc are ways out of it.
pub fn is_inside(path: &str) -> bool {
    path.starts_with('/') && path != "/proc" && !path.starts_with("/proc/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        for name in ["sh", "a b", ") S 7 (", "))"] {
            assert_eq!(start_of(&format!("7 ({name}) {fields}")), Some(4242), "{name}");
        }
        for broken in ["", "7 (sh", "7 (sh) S 1", "7 (sh) S 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 x"]
        {
            assert_eq!(start_of(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_own_start_is_read() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(start_of(&stat).is_some_and(|start| start > 0), "{stat}");
    }

    #[test]
    fn a_home_is_that_of_the_number_and_not_of_a_neighbour() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# 1000\nbroken:x:1000\n\
                      a:x:1000:1000::/home/a:/bin/sh\nb:x:1000:1000::/home/b:/bin/sh\nc:x:1::::\n";
        assert_eq!(home_in(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, 1000).as_deref(), Some("/home/a"));
        assert_eq!(home_in(passwd, 100), None);
        assert_eq!(home_in(passwd, 1), None, "an empty home is none");
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let env = ["PATHS=1", "PATH=/a", "A=b=c", "PATH=/b"].map(str::to_owned);
        assert_eq!(value_of(&env, "PATH"), Some("/b"));
        assert_eq!(value_of(&env, "A"), Some("b=c"));
        assert_eq!(value_of(&env, "PAT"), None);
    }

    #[test]
    fn a_program_is_looked_for_in_the_order_of_the_path() {
        let found: Vec<_> = candidates("x", "/a:/b/::c").collect();
        assert_eq!(found, ["/a/x", "/b/x", "./x", "c/x"]);
    }

    #[test]
    fn a_working_folder_outside_of_the_root_or_below_proc_is_seen() {
        for good in ["/", "/process", "/srv/proc"] {
            assert!(is_inside(good), "{good}");
        }
        for bad in ["", "(unreachable)/", "(unreachable)/etc", "/proc", "/proc/1/cwd"] {
            assert!(!is_inside(bad), "{bad}");
        }
    }
}

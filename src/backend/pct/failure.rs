//! What pct says when it fails, and what that means.
//!
//! Its exit status says nothing but "failed": errors before the fork of its worker end with
//! whatever errno was left over, those after it with 255. What went wrong is in its text alone,
//! so this is the one place that looks for words, and only for those that are known by heart.

use crate::error::{Error, Kind};

/// Words of pct's, the kind of error that they mean, and what to do; `{}` in any is the vmid.
struct Known {
    words: &'static [&'static str],
    kind: Kind,
    advice: &'static str,
}

const fn known(words: &'static [&'static str], kind: Kind, advice: &'static str) -> Known {
    Known { words, kind, advice }
}

const NO_CLUSTER: &str = "the cluster file system is not there: see `systemctl status pve-cluster`";
const NO_QUORUM: &str = "the cluster has no quorum and /etc/pve is read-only: see `pvecm status`";
const FULL: &str = "the cluster file system is full or has a file that is too large: see `df \
                    /etc/pve` and remove what is not needed there";

const TAKEN: &str = "another guest of the cluster has that vmid";

/// In this order: the first of which every word is there counts.
const TABLE: &[Known] = &[
    known(
        &["Unable to load access control list: Unknown error"],
        Kind::FailedPrecondition,
        "pct works for root only: run containerd and nexcage as root",
    ),
    known(&["Unable to load access control list"], Kind::Unavailable, NO_CLUSTER),
    known(&["ipcc_send_rec", "Connection refused"], Kind::Unavailable, NO_CLUSTER),
    known(&["no quorum"], Kind::Unavailable, NO_QUORUM),
    known(&["'/etc/pve/", "Permission denied"], Kind::Unavailable, NO_QUORUM),
    known(&["/etc/pve", "No space left on device"], Kind::Unavailable, FULL),
    known(&["/etc/pve", "Disk quota exceeded"], Kind::Unavailable, FULL),
    known(&["/etc/pve", "File too large"], Kind::Unavailable, FULL),
    known(&["Transport endpoint is not connected"], Kind::Unavailable, NO_CLUSTER),
    known(
        &["failed to connect to monitor socket"],
        Kind::Unavailable,
        "LXC's monitor daemon does not run, and without it pct does not see that a guest has \
         started: `systemctl start lxc-monitord`",
    ),
    known(
        &["CT is locked ("],
        Kind::FailedPrecondition,
        "something else is at work on the guest, such as a backup: try again after it, or `pct \
         unlock {}` if it died",
    ),
    known(
        &["can't lock file", "got timeout"],
        Kind::Unavailable,
        "another pct has been at work on the guest for more than 10 s: try again after it",
    ),
    known(
        &["protection mode enabled"],
        Kind::FailedPrecondition,
        "somebody protected the guest: `pct set {} --protection 0`",
    ),
    known(
        &["unable to get PID for CT {}"],
        Kind::Unknown,
        "the guest's first process ended before pct saw it",
    ),
    known(&["VM {} already exists"], Kind::AlreadyExists, TAKEN),
    known(&["CT {} already exists"], Kind::AlreadyExists, TAKEN),
    known(
        &["storage '", "' does not exist"],
        Kind::FailedPrecondition,
        "set pct.storage to a storage of this node (`pvesm status`)",
    ),
    known(
        &["storage '", "is not available"],
        Kind::Unavailable,
        "the storage is not mounted or not active: see `pvesm status`",
    ),
    known(
        &["storage '", "is disabled"],
        Kind::FailedPrecondition,
        "enable it, or set pct.storage to another one",
    ),
    known(
        &["Configuration file '", "' does not exist"],
        Kind::NotFound,
        "there is no guest of that vmid on this node; if it was destroyed by hand, delete its \
         container",
    ),
    known(&["not running"], Kind::FailedPrecondition, "the guest does not run"),
    known(&["already running"], Kind::FailedPrecondition, "the guest runs already"),
    known(&["container is running"], Kind::FailedPrecondition, "it has to be stopped first"),
    known(
        &["symlink encountered"],
        Kind::InvalidArgument,
        "pct takes no path with a symbolic link in it",
    ),
    known(
        &["does not look like a template archive"],
        Kind::FailedPrecondition,
        "remove it from pct's arguments or from data_dir: nexcage makes its own",
    ),
    known(
        &["can't find file"],
        Kind::FailedPrecondition,
        "the archive that nexcage makes in data_dir was removed: try again",
    ),
    known(
        &["directory '", "' does not exist"],
        Kind::InvalidArgument,
        "the bundle's root must be a folder that this host sees",
    ),
    known(
        &["Unknown option"],
        Kind::Unimplemented,
        "this pct is too old: Proxmox VE 8.0 or newer is needed",
    ),
    known(&["400 Parameter verification failed"], Kind::InvalidArgument, "pct refused a value"),
    known(
        &["subuid"],
        Kind::FailedPrecondition,
        "/etc/subuid and /etc/subgid must give root the ids of unprivileged guests: add the line \
         root:100000:65536 to both",
    ),
    known(
        &["failed to write mapping", "not allowed"],
        Kind::FailedPrecondition,
        "/etc/subuid and /etc/subgid must give root the host's ids of linux.uidMappings and \
         linux.gidMappings: add a line root:FIRST:COUNT to both",
    ),
    known(
        &["got timeout", "monitor socket"],
        Kind::FailedPrecondition,
        "LXC could not read the guest's configuration, or a file that it includes is gone",
    ),
];

/// The error of a pct that failed: `verb` is what it was to do, `said` what it wrote to standard
/// output and error.
pub fn classify(verb: &str, vmid: u32, said: &str, status: u32) -> Error {
    let reason = reason(said);
    let number = vmid.to_string();
    let is_there = |words: &&str| said.contains(&words.replace("{}", &number));
    let known = TABLE.iter().find(|known| known.words.iter().all(is_there));
    match (known, reason) {
        (Some(known), reason) => {
            let advice = known.advice.replace("{}", &number);
            Error::new(known.kind, format!("pct {verb} {vmid}: {reason}: {advice}"))
        }
        (None, reason) if reason.is_empty() => Error::unknown(format!(
            "pct {verb} {vmid}: it ended with status {status} and said nothing: see the task's \
             log in the web interface"
        )),
        (None, reason) => Error::unknown(format!("pct {verb} {vmid}: {reason}")),
    }
}

/// What counts of what pct said, on one line: not its progress, not its usage, nothing twice.
fn reason(said: &str) -> String {
    const MOST: usize = 600;
    let mut lines: Vec<&str> = Vec::new();
    for line in said.lines().map(str::trim) {
        let noise = line.is_empty()
            || line == "OK"
            || line.starts_with("trying to acquire lock")
            || line.starts_with("extracting archive")
            || line.starts_with("Total bytes read:")
            || line.starts_with("400 Parameter verification failed")
            || (line.starts_with("pct ") && line.contains("[OPTIONS]"));
        if !noise && !lines.contains(&line) {
            lines.push(line);
        }
    }
    // The last words are the error, those before it may say why.
    let mut text = String::new();
    for line in lines.iter().rev() {
        let more: String = line.chars().flat_map(on_one_line).collect();
        if text.len() + more.len() > MOST {
            break;
        }
        text = if text.is_empty() { more } else { format!("{more}; {text}") };
    }
    text
}

/// A character, escaped if it would break a line.
fn on_one_line(letter: char) -> impl Iterator<Item = char> {
    let escaped = letter.is_control().then(|| letter.escape_debug());
    let plain = escaped.is_none().then_some(letter);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(verb: &str, said: &str) -> (Kind, String) {
        let error = classify(verb, 150, said, 255);
        let text = error.to_string();
        assert!(!text.contains('\n') && text.starts_with(&format!("pct {verb} 150: ")), "{text}");
        (error.kind(), text)
    }

    /// As pct wrote them, and what each must come to.
    #[test]
    fn every_known_failure_has_its_kind_and_says_what_to_do() {
        let refused = "ipcc_send_rec[1] failed: Connection refused\n\
                       ipcc_send_rec[2] failed: Connection refused\n\
                       ipcc_send_rec[3] failed: Connection refused\n\
                       Unable to load access control list: Connection refused\n";
        let no_root = "ipcc_send_rec[1] failed: Unknown error -1\n\
                       Unable to load access control list: Unknown error -1\n";
        let bad_value = "400 Parameter verification failed.\n\
                         memory: value must have a minimum value of 16\n\n\
                         pct set <vmid> [OPTIONS]\n";
        let no_monitor = "failed to connect to monitor socket: Connection refused\n\
                          unable to get PID for CT 150 (not running?)\n";
        for (verb, said, kind, advice) in [
            ("create", "CT 150 already exists on node 'pve'", Kind::AlreadyExists, "cluster"),
            ("create", "VM 150 already exists on node 'pve'", Kind::AlreadyExists, "cluster"),
            (
                "create",
                "trying to acquire lock...\n OK\n\
                 unable to create CT 150 - CT 150 already exists on node 'pve'",
                Kind::AlreadyExists,
                "cluster",
            ),
            ("create", "vmid: VM 150 already exists", Kind::AlreadyExists, "cluster"),
            (
                "create",
                "unable to create CT 150 - can't find file '/srv/t/nonexist.tar'",
                Kind::FailedPrecondition,
                "data_dir",
            ),
            ("create", "storage 'nostore' does not exist", Kind::FailedPrecondition, "pct.storage"),
            (
                "start",
                "lxc_map_ids: 3708 newuidmap failed to write mapping \"newuidmap: uid range \
                 [0-65536) -> [300000-365536) not allowed\": newuidmap 183 0 300000 65536",
                Kind::FailedPrecondition,
                "/etc/subuid",
            ),
            (
                "create",
                "unable to create CT 150 - file does not look like a template archive: /t/e.img",
                Kind::FailedPrecondition,
                "its own",
            ),
            (
                "create",
                "mounting container failed\n\
                 unable to create CT 150 - symlink encountered at: //srv/blink",
                Kind::InvalidArgument,
                "symbolic link",
            ),
            (
                "create",
                "unable to create CT 150 - directory '/srv/b' does not exist",
                Kind::InvalidArgument,
                "folder",
            ),
            (
                "start",
                "Configuration file 'nodes/pve/lxc/150.conf' does not exist",
                Kind::NotFound,
                "by hand",
            ),
            ("stop", "CT 150 not running", Kind::FailedPrecondition, "does not run"),
            ("start", "CT 150 already running", Kind::FailedPrecondition, "runs already"),
            (
                "destroy",
                "unable to destroy CT 150 - container is running",
                Kind::FailedPrecondition,
                "stopped first",
            ),
            ("destroy", "CT is locked (backup)", Kind::FailedPrecondition, "`pct unlock 150`"),
            (
                "destroy",
                "can't remove CT 150 - protection mode enabled",
                Kind::FailedPrecondition,
                "`pct set 150 --protection 0`",
            ),
            (
                "create",
                "Unknown option: nosuchopt\n400 unable to parse option\npct create <vmid> [OPTIONS]",
                Kind::Unimplemented,
                "too old",
            ),
            ("set", bad_value, Kind::InvalidArgument, "minimum value of 16"),
            (
                "start",
                "can't lock file '/run/lock/lxc/pve-config-150.lock' - got timeout",
                Kind::Unavailable,
                "another pct",
            ),
            ("create", "cluster not ready - no quorum?", Kind::Unavailable, "pvecm status"),
            (
                "destroy",
                "unable to open file '/etc/pve/nodes/pve/lxc/150.conf.tmp.7880' - Permission denied",
                Kind::Unavailable,
                "pvecm status",
            ),
            ("list", refused, Kind::Unavailable, "pve-cluster"),
            ("list", no_root, Kind::FailedPrecondition, "as root"),
            ("start", no_monitor, Kind::Unavailable, "lxc-monitord"),
            (
                "create",
                "unable to write '/etc/pve/nodes/pve/lxc/150.conf.tmp.1' - No space left on device",
                Kind::Unavailable,
                "df /etc/pve",
            ),
            (
                "create",
                "closing file '/etc/pve/nodes/pve/lxc/150.conf.tmp.1' failed - File too large",
                Kind::Unavailable,
                "df /etc/pve",
            ),
        ] {
            let (found, text) = told(verb, said);
            assert_eq!(found, kind, "{said}");
            assert!(text.contains(advice), "{text}");
        }
    }

    #[test]
    fn what_nobody_knows_is_passed_on_on_one_line() {
        let said = "sync_wait: 34 An error occurred in another process\n\
                    startup for container '150' failed\nstartup for container '150' failed\n";
        let (kind, text) = told("start", said);
        assert_eq!(kind, Kind::Unknown);
        assert_eq!(
            text,
            "pct start 150: sync_wait: 34 An error occurred in another process; startup for \
             container '150' failed"
        );
        let (kind, _) =
            told("create", "zfs error: cannot create 'rpool/data': dataset already exists");
        assert_eq!(kind, Kind::Unknown, "only a guest's vmid is worth another try");
        let (kind, text) = told("start", "unable to get PID for CT 150 (not running?)");
        assert!(kind == Kind::Unknown && text.contains("ended before pct saw it"), "{text}");
        assert!(told("start", "").1.contains("status 255"));
        let (_, text) = told("start", &format!("{}\nlast \u{7} words", "x\u{1b}".repeat(9999)));
        assert_eq!(text, "pct start 150: last \\u{7} words");
    }
}

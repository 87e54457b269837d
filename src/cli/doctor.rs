//! `nexcage doctor`: what of this host nexcage needs, whether it is there, and what to do.
//!
//! Looks only, and changes nothing. A backend that the configuration can choose has to work; one
//! that it cannot is looked at for the day when somebody wants it.

use super::Said;
use super::args::{Global, ReportFormat};
use crate::backend::oci::find_program;
use crate::backend::pct::cluster::Host;
use crate::config::{self, BackendName, Config, Options};
use crate::error::Kind;
use crate::guest::program;
use crate::store::Folder;
use crate::sys::ask::ask;
use crate::sys::pidfd;
use serde_json::json;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SHIM: &str = "containerd-shim-nexcage-v1";
const RUNTIME: &str = "io.containerd.nexcage.v1";
const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
const CONTAINERD_DROP_INS: &str = "/etc/containerd/conf.d";
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// How long a program may take to print its version.
const ANSWER: Duration = Duration::from_secs(5);

/// How much of what it prints is read.
const MOST: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    /// Works, or is not needed now.
    Note,
    /// Something that is set up cannot work.
    Problem,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    level: Level,
    found: String,
    /// Empty where there is nothing to do.
    advice: String,
}

impl Finding {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, level: Level::Ok, found: found.into(), advice: String::new() }
    }

    fn advise(self, level: Level, advice: impl Into<String>) -> Self {
        Self { level, advice: advice.into(), ..self }
    }
}

/// Exit status: 0, or 1 when there is a problem.
pub(super) fn doctor(global: &Global, format: ReportFormat) -> Said {
    let findings = look(global.config.as_deref().unwrap_or(Path::new(config::FILE)));
    let healthy = findings.iter().all(|finding| finding.level != Level::Problem);
    let out = match format {
        ReportFormat::Text => findings.iter().map(as_text).collect(),
        ReportFormat::Json => as_json(&findings, healthy),
    };
    Said { status: u8::from(!healthy), out, ..Said::default() }
}

fn as_text(finding: &Finding) -> String {
    let Finding { what, level, found, advice } = finding;
    let first = format!("{:<8} {what:<12} {found}\n", level.word());
    if advice.is_empty() { first } else { format!("{first}{:22}{advice}\n", "") }
}

fn as_json(findings: &[Finding], healthy: bool) -> String {
    let each = |finding: &Finding| {
        let Finding { what, level, found, advice } = finding;
        json!({"what": what, "level": level.word(), "found": found, "advice": advice})
    };
    let findings: Vec<_> = findings.iter().map(each).collect();
    format!("{:#}\n", json!({"healthy": healthy, "findings": findings}))
}

fn look(file: &Path) -> Vec<Finding> {
    let mut findings = vec![kernel(), cgroups()];
    let config = match Config::load(file, &Options::default()) {
        Ok(config) => {
            let found = if file.exists() { "is right" } else { "is not there: what is built in" };
            findings.push(Finding::ok("config", format!("{} {found}", file.display())));
            config
        }
        Err(error) => {
            let finding = Finding::ok("config", error.to_string());
            let advice = "mend it: nexcage config schema says what may be in it";
            findings.push(finding.advise(Level::Problem, advice));
            Config::default()
        }
    };
    let wanted = wanted(&config);
    findings.extend(containerd());
    findings.extend(
        BackendName::ALL.map(|name| backend(name, &config, wanted.contains(name.as_str()))),
    );
    findings.push(init(&config, &wanted));
    findings.push(apparmor(&wanted));
    findings.push(folder("state", &config.state_dir));
    findings.extend(orphans(&config.state_dir));
    findings
}

/// The backends that the configuration may choose.
fn wanted(config: &Config) -> BTreeSet<&'static str> {
    let rules = config.routing.iter().map(|rule| rule.backend);
    let patterns = (!config.crun_name_patterns.is_empty()).then_some(BackendName::Crun);
    let plain = [config.default_container_type, config.sandbox_backend];
    plain.into_iter().chain(rules).chain(patterns).map(BackendName::as_str).collect()
}

fn kernel() -> Finding {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let finding = Finding::ok("kernel", &release);
    let own = nix::unistd::getpid().as_raw();
    if pidfd::open(own).is_err() {
        return finding.advise(Level::Problem, "has no pidfd_open: Linux 5.3 or newer is needed");
    }
    if !pidfd::kernel_tells() {
        return Finding::ok(
            "kernel",
            format!("{release}, which does not tell how a guest of LXC ended: LXC's monitor does"),
        );
    }
    finding
}

fn cgroups() -> Finding {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
    if let Ok(controllers) = fs::read_to_string(unified) {
        let has = |name: &str| controllers.split_whitespace().any(|found| found == name);
        let missing: Vec<&str> =
            ["cpu", "memory", "pids"].into_iter().filter(|name| !has(name)).collect();
        let finding = Finding::ok("cgroups", "version 2");
        return if missing.is_empty() {
            finding
        } else {
            let advice = format!(
                "{} cannot be limited: enable it for the root cgroup, or boot with it",
                missing.join(", ")
            );
            finding.advise(Level::Note, advice)
        };
    }
    let legacy: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| Path::new("/sys/fs/cgroup").join(name).is_dir())
        .collect();
    if legacy.is_empty() {
        return Finding::ok("cgroups", "none at /sys/fs/cgroup")
            .advise(Level::Problem, "mount cgroup2 there");
    }
    Finding::ok("cgroups", format!("version 1: {}", legacy.join(" ")))
}

fn containerd() -> Vec<Finding> {
    let mut findings = Vec::new();
    match (on_path("containerd"), running_containerd()) {
        (None, None) => {
            let advice = "install containerd 1.6 or newer, unless nexcage is called as a runtime";
            findings.push(Finding::ok("containerd", "is not there").advise(Level::Note, advice));
            return findings;
        }
        (Some(program), None) => {
            let said = first_line(&program, "--version").unwrap_or_default();
            let finding = Finding::ok("containerd", format!("{said} does not run"));
            findings.push(finding.advise(
                Level::Note,
                format!("start it; {CONTAINERD_SOCKET} is where clients look for it"),
            ));
        }
        (_, Some((pid, program))) => {
            let said = first_line(&program, "--version").unwrap_or_default();
            findings.push(Finding::ok("containerd", format!("{said}, pid {pid}")));
            findings.push(shim(pid));
        }
    }
    findings.push(containerd_config());
    findings
}

/// Whether the containerd that runs would find the shim: it looks in its own PATH.
fn shim(containerd: i32) -> Finding {
    let environment = fs::read(format!("/proc/{containerd}/environ")).unwrap_or_default();
    let path = environment
        .split(|&byte| byte == 0)
        .find_map(|pair| pair.strip_prefix(b"PATH="))
        .unwrap_or_default();
    let found = std::env::split_paths(OsStr::from_bytes(path))
        .map(|folder| folder.join(SHIM))
        .find(|candidate| candidate.is_file());
    match found {
        Some(found) => Finding::ok("shim", found.display().to_string()),
        None => Finding::ok("shim", format!("{SHIM} is not in containerd's PATH")).advise(
            Level::Problem,
            format!(
                "put it into one of {}, or give the runtime in {CONTAINERD_CONFIG} its \
                 runtime_path",
                String::from_utf8_lossy(path)
            ),
        ),
    }
}

/// CRI needs the runtime in containerd's configuration; ctr and nerdctl do not.
fn containerd_config() -> Finding {
    let drop_ins = fs::read_dir(CONTAINERD_DROP_INS).into_iter().flatten().flatten();
    let mut files = drop_ins.map(|entry| entry.path()).chain([PathBuf::from(CONTAINERD_CONFIG)]);
    let named =
        files.find(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(RUNTIME)));
    match named {
        Some(file) => Finding::ok("runtime", format!("{RUNTIME} stands in {}", file.display())),
        None => Finding::ok("runtime", format!("{RUNTIME} is not in {CONTAINERD_CONFIG}")).advise(
            Level::Note,
            "Kubernetes needs it there, and a RuntimeClass (/usr/share/nexcage/containerd/README.md); \
             ctr and nerdctl take --runtime",
        ),
    }
}

fn backend(name: BackendName, config: &Config, wanted: bool) -> Finding {
    let program = match name {
        BackendName::Crun => &config.crun.program,
        BackendName::Runc => &config.runc.program,
        BackendName::Lxc => &config.lxc.program,
        BackendName::Pct => &config.pct.program,
    };
    let what = name.as_str();
    let path = match find_program(name, program) {
        Ok(path) => path,
        Err(error) => {
            let finding = Finding::ok(what, error.to_string());
            return if wanted {
                finding.advise(Level::Problem, "the configuration can choose it")
            } else {
                finding.advise(Level::Note, "nothing in the configuration chooses it")
            };
        }
    };
    let shown = path.display();
    if name == BackendName::Pct {
        return match Host::default().guests() {
            Ok(guests) => Finding::ok(what, format!("{shown}, {} guests", guests.len())),
            Err(error) => Finding::ok(what, format!("{shown}: {error}")).advise(
                if wanted { Level::Problem } else { Level::Note },
                "the cluster file system has to be there: systemctl status pve-cluster",
            ),
        };
    }
    match first_line(&path, "--version") {
        Some(version) => Finding::ok(what, format!("{shown}: {version}")),
        None => Finding::ok(what, format!("{shown} does not say its version")).advise(
            if wanted { Level::Problem } else { Level::Note },
            format!("run {shown} --version, and install {what} anew"),
        ),
    }
}

fn init(config: &Config, wanted: &BTreeSet<&str>) -> Finding {
    match program::find(config.init_path.as_deref()) {
        Ok(path) => Finding::ok("init", path.display().to_string()),
        Err(error) => {
            let needed = wanted.contains("lxc") || wanted.contains("pct");
            Finding::ok("init", error.to_string()).advise(
                if needed { Level::Problem } else { Level::Note },
                "lxc and pct begin every guest with it",
            )
        }
    }
}

fn apparmor(wanted: &BTreeSet<&str>) -> Finding {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.trim() == "Y") {
        return Finding::ok("apparmor", "is off: profiles that a bundle names are refused");
    }
    let profiles = fs::read_to_string("/sys/kernel/security/apparmor/profiles");
    let lxc = profiles.is_ok_and(|text| text.contains("lxc-container-default"));
    let finding = Finding::ok("apparmor", "is on");
    if wanted.contains("lxc") && !lxc {
        return finding.advise(
            Level::Note,
            "LXC's profiles are not loaded: guests without a profile of their own are unconfined",
        );
    }
    finding
}

fn folder(what: &'static str, path: &Path) -> Finding {
    use nix::unistd::{AccessFlags, access};
    // The nearest that is there: it is made with the first container.
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let finding = Finding::ok(what, path.display().to_string());
    match access(there, AccessFlags::W_OK) {
        Ok(()) => finding,
        Err(error) => finding.advise(
            Level::Problem,
            format!("{} cannot be written: {error}; run as root", there.display()),
        ),
    }
}

/// Containers whose supervisor is gone, and which nobody cleans up.
fn orphans(state_dir: &Path) -> Vec<Finding> {
    let folders = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let records = folders(state_dir).into_iter().flat_map(|namespace| folders(&namespace));
    let mut findings = Vec::new();
    for path in records {
        let record = match Folder::at(path.clone()).load() {
            Ok(record) => record,
            // No container's folder, or one on its way in or out.
            Err(error) if error.kind() == Kind::NotFound || !path.is_dir() => continue,
            Err(error) => {
                let advice = "nexcage neither shows nor removes it: end what runs in it, unmount its \
                              root, and remove that folder";
                findings.push(
                    Finding::ok("container", error.to_string()).advise(Level::Problem, advice),
                );
                continue;
            }
        };
        let watched = record.own.supervisor.is_some_and(|supervisor| supervisor.is_alive());
        if watched || record.own.exit.is_some() {
            continue;
        }
        let (namespace, id) = (&record.own.namespace, &record.id);
        let lives = record.own.init.is_some_and(|init| init.is_alive());
        let state = if lives { "and runs on" } else { "and has ended" };
        let advice = if record.own.by_command {
            format!("nexcage --namespace {namespace} delete --force {id} removes it")
        } else {
            format!(
                "containerd cleans it up when it starts; by hand: {SHIM} -namespace {namespace} \
                 -id {id} -bundle {} delete",
                record.bundle.display()
            )
        };
        findings.push(
            Finding::ok("container", format!("{namespace}/{id} has no supervisor {state}"))
                .advise(Level::Problem, advice),
        );
    }
    findings
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|it| it.is_file())
}

/// The first process called containerd, and its program.
fn running_containerd() -> Option<(i32, PathBuf)> {
    let entries = fs::read_dir("/proc").ok()?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let called = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|comm| comm.trim_end() == "containerd")
    };
    let pid = pids.filter(called).min()?;
    Some((pid, fs::read_link(format!("/proc/{pid}/exe")).ok()?))
}

/// The first line that a program prints when it is called with one flag; `None` when it fails or
/// does not answer in time.
fn first_line(program: &Path, flag: &str) -> Option<String> {
    let said = ask(program, flag, ANSWER, MOST).ok()?;
    let line = String::from_utf8_lossy(&said).lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

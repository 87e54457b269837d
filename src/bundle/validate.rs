//! What is wrong with a bundle: all of it at once, each with its place and its cure.
//!
//! A config.json is held against runtime-spec 1.0.0 to 1.3.0 ([`schema`] and the rules beside it),
//! against this host as far as it names files of the host, and, if a backend is named, against
//! what that one can do. Nothing is made or changed.
//!
//! Levels mean:
//!
//! - error: runtime-spec forbids it, or neither crun nor runc can make such a container here.
//! - warning: most likely a mistake, or one of the runtimes refuses it or does something else.
//! - note: good to know; no runtime minds.
//!
//! An error is also a reason to refuse the bundle ([`admit`]), unless crun or runc makes of it what
//! was most likely meant ([`Finding::refused`]): such a container has run so far, and goes on to.
//! src/ARCHITECTURE.md says who asks, and why a supervisor does not.

mod at;
mod backend;
mod linux;
mod mounts;
mod namespaces;
mod place;
mod process;
mod resources;
pub mod schema;
#[cfg(test)]
mod tests;
mod top;

use crate::config::BackendName;
use crate::config::input::{self, Links, plain, shown};
use crate::error::{Error, Kind, Result};
use crate::guest::translate::FileKind;
use crate::guest::{is_unified, kind_of};
use crate::spec;
use at::{At, Findings, Found};
use namespaces::Namespaces;
use place::{Lines, Places, Twice, ancestors};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The container cannot be made, or would not be what was asked for.
    Error,
    /// Most likely a mistake, or not for all runtimes.
    Warning,
    /// Good to know.
    Note,
}

impl Level {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Whether it keeps a container from being made of the bundle; of errors alone.
    pub refused: bool,
    /// The JSON pointer (RFC 6901) of the value, or of the one that is missing; empty for the whole
    /// document.
    pub pointer: String,
    /// The line of config.json in which the value begins, from 1 on; for a missing value, that of
    /// what it is missing in.
    pub line: usize,
    /// The character of that line, from 1 on.
    pub column: usize,
    /// What is wrong: one line.
    pub problem: String,
    /// What to do: one line.
    pub mend: String,
}

impl Finding {
    /// The finding in one line, without level and line. It may quote anything from the bundle.
    fn sentence(&self) -> String {
        let Self { pointer, problem, mend, .. } = self;
        let end = if pointer.is_empty() { "" } else { ": " };
        plain(&format!("{pointer}{end}{problem}: {mend}"))
    }
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The config.json.
    pub config: PathBuf,
    /// The backend it was also held against.
    pub backend: Option<BackendName>,
    /// In the order of the text.
    pub findings: Vec<Finding>,
    /// How many more there are of a level of which there are very many.
    pub more: usize,
}

impl Report {
    /// Whether there is no error.
    pub fn is_valid(&self) -> bool {
        self.count(Level::Error) == 0
    }

    /// How many findings there are of a level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

/// Refuses a bundle of which no container should be made, with a line for each reason. What else
/// is wrong is logged.
///
/// # Errors
/// `InvalidArgument`; and as [`check`].
pub fn admit(bundle: &Path, backend: Option<BackendName>) -> Result<()> {
    let report = check(bundle, backend.filter(says_all))?;
    let config = shown(&report.config);
    let place = |finding: &Finding| format!("{config}:{}:{}", finding.line, finding.column);
    judged(&report.findings, report.more, place)
}

/// The same for a bundle that is still in the folder `draft`, and will be in `bundle`. Nobody can
/// look at the lines of its config.json, so they are not named.
///
/// # Errors
/// As [`admit`].
pub fn admit_draft(
    text: &[u8],
    bundle: &Path,
    draft: &Path,
    backend: Option<BackendName>,
) -> Result<()> {
    let files = Drafted { bundle, draft, host: ThisHost::new() };
    let host = Host { bundle, cgroup2: is_unified(), files: &files };
    let (findings, more) = check_text(text, &host, backend.filter(says_all));
    judged(&findings, more, |_| "config.json".to_owned())
}

/// Whether config.json says all that makes a backend refuse it. crun and runc judge themselves what
/// is theirs alone, and of Proxmox VE's guests the configuration decides, too (`pct.storage`).
fn says_all(backend: &BackendName) -> bool {
    *backend == BackendName::Lxc
}

fn judged(findings: &[Finding], more: usize, place: impl Fn(&Finding) -> String) -> Result<()> {
    let mut reasons = Vec::new();
    for finding in findings {
        let said = format!("{}: {}", place(finding), finding.sentence());
        match finding.level {
            _ if finding.refused => reasons.push(said),
            Level::Error | Level::Warning => log::warn!("{said}"),
            Level::Note => log::debug!("{said}"),
        }
    }
    if !reasons.is_empty() && more > 0 {
        reasons.push(format!("config.json: {more} more findings are not listed"));
    }
    Error::each(Kind::InvalidArgument, reasons).map_or(Ok(()), Err)
}

/// What the rules ask this host.
pub trait Files {
    /// What a path is, links followed; `None` where nothing is, or nothing that can be seen.
    fn kind(&self, path: &Path) -> Option<FileKind>;
    /// The path with all links followed.
    fn real(&self, path: &Path) -> Option<PathBuf>;
    /// Whether the kernel has a file system of that name now.
    fn has_filesystem(&self, name: &str) -> bool;
}

/// This host.
#[derive(Debug)]
struct ThisHost {
    filesystems: String,
}

impl ThisHost {
    fn new() -> Self {
        // Without /proc every file system is one of which nothing is known: a warning.
        Self { filesystems: std::fs::read_to_string("/proc/filesystems").unwrap_or_default() }
    }
}

impl Files for ThisHost {
    fn kind(&self, path: &Path) -> Option<FileKind> {
        kind_of(path)
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }

    fn has_filesystem(&self, name: &str) -> bool {
        // Those of cgroups are the runtime's word, and FUSE's have a name after a dot.
        let name = name.split('.').next().unwrap_or(name);
        name == "cgroup" || self.filesystems.split_whitespace().any(|known| known == name)
    }
}

/// This host, with a bundle in it that is elsewhere for now.
struct Drafted<'a> {
    bundle: &'a Path,
    draft: &'a Path,
    host: ThisHost,
}

impl Drafted<'_> {
    fn now(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.bundle).map_or(path.to_owned(), |rest| self.draft.join(rest))
    }
}

impl Files for Drafted<'_> {
    fn kind(&self, path: &Path) -> Option<FileKind> {
        self.host.kind(&self.now(path))
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        let real = self.host.real(&self.now(path))?;
        Some(real.strip_prefix(self.draft).map_or(real.clone(), |rest| self.bundle.join(rest)))
    }

    fn has_filesystem(&self, name: &str) -> bool {
        self.host.has_filesystem(name)
    }
}

/// The bundle's surroundings.
pub struct Host<'a> {
    /// The bundle's folder, absolute.
    pub bundle: &'a Path,
    /// All controllers are those of cgroup v2.
    pub cgroup2: bool,
    /// The host's files.
    pub files: &'a dyn Files,
}

/// Checks the bundle in a folder.
///
/// # Errors
/// `NotFound` for a folder without config.json, `InvalidArgument` for one that cannot be read: a
/// link, no regular file, more than [`spec::MAX_SIZE`] bytes. What is wrong in it is no error but a
/// finding, even where it is no JSON.
pub fn check(bundle: &Path, backend: Option<BackendName>) -> Result<Report> {
    let bundle = bundle.canonicalize().map_err(|error| {
        Error::from(error)
            .context(format!("{}: a bundle is a folder with a config.json in it", shown(bundle)))
    })?;
    let config = bundle.join("config.json");
    let text = input::read(&config, spec::MAX_SIZE, Links::Refuse)?.ok_or_else(|| {
        Error::not_found(format!(
            "{}: no such file; a bundle is a folder with an OCI config.json in it, which `nexcage \
             spec` or `runc spec` writes",
            shown(&config)
        ))
    })?;
    let host = Host { bundle: &bundle, cgroup2: is_unified(), files: &ThisHost::new() };
    let (findings, more) = check_text(&text, &host, backend);
    Ok(Report { config, backend, findings, more })
}

/// Checks the text of a config.json. The number is of findings that are not in the list, because
/// there are so many of their level.
pub fn check_text(
    text: &[u8],
    host: &Host<'_>,
    backend: Option<BackendName>,
) -> (Vec<Finding>, usize) {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let good = text.get(..error.valid_up_to()).unwrap_or_default();
            let good = std::str::from_utf8(good).unwrap_or_default();
            return (vec![broken(good, good.len(), "there is a byte that is not UTF-8")], 0);
        }
    };
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let offset = Lines::of(text).offset(error.line(), error.column());
            let whole = error.to_string();
            let problem = whole.rsplit_once(" at line ").map_or(&*whole, |(problem, _)| problem);
            return (vec![broken(text, offset, &format!("this is no JSON: {problem}"))], 0);
        }
    };
    let findings = Findings::default();
    rules(&At::top(&value, &findings), host);
    if let Some(backend) = backend {
        backend::check(&value, backend, host, &findings);
    }
    let (found, more) = findings.finish();
    placed(text, found, more)
}

/// Every rule that is for all backends.
fn rules(top: &At<'_>, host: &Host<'_>) {
    let version = top::version(&top.at("ociVersion"));
    schema::check(top, &schema::TOP, version);
    if !top.value.is_object() {
        return;
    }
    process::check(&top.at("process"));
    top::root(&top.at("root"), host);
    top::hooks(&top.at("hooks"), host);
    top::annotations(&top.at("annotations"));
    let linux = top.at("linux");
    if linux.value.is_null() {
        linux.warning(
            "is missing: crun refuses that, and runc would share every namespace of the host",
            "say at least which namespaces the container has",
        );
    }
    let namespaces = Namespaces::check(&linux.at("namespaces"), host);
    namespaces.rest(&linux);
    top::names(top, &namespaces);
    mounts::check(&top.at("mounts"), &namespaces, host);
    linux::check(&linux, host);
    for key in ["solaris", "windows", "vm", "zos", "freebsd"] {
        if top.at(key).is_set() {
            top.at(key).note("is another system's: crun and runc pass it over", "remove it");
        }
    }
}

/// The one finding of a text that is no JSON.
fn broken(text: &str, offset: usize, problem: &str) -> Finding {
    let (line, column) = Lines::of(text).at(offset);
    Finding {
        level: Level::Error,
        refused: true,
        pointer: String::new(),
        line,
        column,
        problem: problem.to_owned(),
        mend:
            "correct it there or just before; JSON has no comments and no comma before a closing \
               bracket"
                .to_owned(),
    }
}

/// Gives each finding its line, and adds the keys that are there twice.
fn placed(text: &str, found: Vec<Found>, more: usize) -> (Vec<Finding>, usize) {
    let wanted: BTreeSet<&str> = found.iter().flat_map(|found| ancestors(&found.pointer)).collect();
    let (places, lines) = (Places::find(text, &wanted), Lines::of(text));
    let mut findings: Vec<Finding> = Vec::new();
    for found in &found {
        let offset = ancestors(&found.pointer).find_map(|pointer| places.of(pointer));
        let (line, column) = lines.at(offset.unwrap_or(0));
        let Found { level, refused, pointer, problem, mend } = found.clone();
        findings.push(Finding { level, refused, pointer, line, column, problem, mend });
    }
    // As many as of any level: the same mistake again says nothing new.
    const MOST: usize = 500;
    for Twice { pointer, first, later } in places.twice.iter().take(MOST) {
        let (line, column) = lines.at(*later);
        let (first, _) = lines.at(*first);
        // What nexcage itself reads is refused (`spec`).
        let level = match spec::reads(pointer) {
            true => Level::Error,
            false => Level::Warning,
        };
        findings.push(Finding {
            level,
            refused: level == Level::Error,
            pointer: pointer.clone(),
            line,
            column,
            problem: format!(
                "is there twice, first in line {first}: crun 1.8 takes the first, crun 1.28 and runc \
                 the last"
            ),
            mend: "remove one of them".to_owned(),
        });
    }
    findings.sort_by_key(|finding| (finding.line, finding.column, finding.level));
    (findings, more + places.twice.len().saturating_sub(MOST))
}

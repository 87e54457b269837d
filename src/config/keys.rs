//! Every key there is, and how a source's keys become settings.
//!
//! [`KEYS`] is the only list: the parser, its messages and the test of schema.json read it. A
//! key's field says which type it takes.

use super::input::{list, quoted};
use super::value::{Table, Value};
use super::{BackendName, Config, OciRuntime};
use crate::error::{Error, Result};
use crate::route::{Patterns, Rule};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a key's value goes, and with that which values it takes.
pub(super) enum Field {
    Backend(fn(&mut Config) -> &mut BackendName),
    /// An absolute path.
    Path(fn(&mut Config) -> &mut PathBuf),
    /// An absolute path that is unset until someone sets it.
    MaybePath(fn(&mut Config) -> &mut Option<PathBuf>),
    /// A string that is unset until someone sets it.
    MaybeText(fn(&mut Config) -> &mut Option<String>),
    Flag(fn(&mut Config) -> &mut bool),
    /// A flag that is unset until someone sets it.
    MaybeFlag(fn(&mut Config) -> &mut Option<bool>),
    /// A number between these two.
    Number(u32, u32, fn(&mut Config) -> &mut u32),
    /// One pattern, or a list of them.
    Patterns(fn(&mut Config) -> &mut Patterns),
    /// A list of rules.
    Rules(fn(&mut Config) -> &mut Vec<Rule>),
}

/// The keys of our own. A dot leads into an object.
pub(super) const KEYS: &[(&str, Field)] = &[
    (DEFAULT, Field::Backend(|config| &mut config.default_container_type)),
    (SANDBOX, Field::Backend(|config| &mut config.sandbox_backend)),
    (ROUTING, Field::Rules(|config| &mut config.routing)),
    (OLD_PATTERNS, Field::Patterns(|config| &mut config.crun_name_patterns)),
    (OLD_DEFAULT, Field::Backend(|config| &mut config.default_container_type)),
    ("state_dir", Field::Path(|config| &mut config.state_dir)),
    ("crun.path", Field::Path(|config| &mut config.crun.program)),
    ("crun.root", Field::MaybePath(|config| &mut config.crun.root)),
    ("runc.path", Field::Path(|config| &mut config.runc.program)),
    ("runc.root", Field::MaybePath(|config| &mut config.runc.root)),
    ("data_dir", Field::Path(|config| &mut config.data_dir)),
    ("init_path", Field::MaybePath(|config| &mut config.init_path)),
    ("lxc.path", Field::Path(|config| &mut config.lxc.program)),
    ("lxc.exit_by_monitor", Field::Flag(|config| &mut config.lxc.exit_by_monitor)),
    ("pct.path", Field::Path(|config| &mut config.pct.program)),
    (VMID_MIN, Field::Number(LOWEST_VMID, HIGHEST_VMID, |config| &mut config.pct.vmid_min)),
    (VMID_MAX, Field::Number(LOWEST_VMID, HIGHEST_VMID, |config| &mut config.pct.vmid_max)),
    ("pct.direct_config", Field::Flag(|config| &mut config.pct.direct_config)),
    ("pct.storage", Field::MaybeText(|config| &mut config.pct.storage)),
    ("pct.disk_size", Field::Number(1, 1 << 20, |config| &mut config.pct.disk_size)),
    ("pct.unprivileged", Field::MaybeFlag(|config| &mut config.pct.unprivileged)),
    ("systemd_cgroup", Field::Flag(|config| &mut config.systemd_cgroup)),
    ("no_pivot_root", Field::Flag(|config| &mut config.no_pivot_root)),
    ("no_new_keyring", Field::Flag(|config| &mut config.no_new_keyring)),
    ("shim_cgroup", Field::MaybeText(|config| &mut config.shim_cgroup)),
    ("io_uid", Field::Number(0, u32::MAX, |config| &mut config.io_uid)),
    ("io_gid", Field::Number(0, u32::MAX, |config| &mut config.io_gid)),
    ("criu_image_path", Field::MaybePath(|config| &mut config.criu_image_path)),
    ("criu_work_path", Field::MaybePath(|config| &mut config.criu_work_path)),
];
/// Tells editors where the schema is. It sets nothing.
pub(super) const SCHEMA_KEY: &str = "$schema";
const DEFAULT: &str = "default_container_type";
const SANDBOX: &str = "sandbox_backend";
const ROUTING: &str = "routing";
const OLD_PATTERNS: &str = "container_config.crun_name_patterns";
/// Another spelling of [`DEFAULT`].
const OLD_DEFAULT: &str = "container_config.default_container_type";
const VMID_MIN: &str = "pct.vmid_min";
const VMID_MAX: &str = "pct.vmid_max";
/// What Proxmox VE takes: three to nine digits, the first no zero.
const LOWEST_VMID: u32 = 100;
const HIGHEST_VMID: u32 = 999_999_999;

/// The keys of a runc `options` table, which users copy into ours, and the key each one stands
/// for, where there is one.
const RUNC_KEYS: &[(&str, Option<&str>)] = &[
    ("BinaryName", None),
    ("Root", None),
    ("SystemdCgroup", Some("systemd_cgroup")),
    ("NoPivotRoot", Some("no_pivot_root")),
    ("NoNewKeyring", Some("no_new_keyring")),
    ("ShimCgroup", Some("shim_cgroup")),
    ("IoUid", Some("io_uid")),
    ("IoGid", Some("io_gid")),
    ("CriuImagePath", Some("criu_image_path")),
    ("CriuWorkPath", Some("criu_work_path")),
    ("CriuPath", None),
    ("TypeUrl", None),
    ("ConfigPath", None),
];

/// Whose keys a source may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// A file for nexcage: its keys only.
    Own,
    /// An `options` table of containerd: those of runc as well.
    Containerd,
}

/// Settings while sources are laid over one another.
#[derive(Debug, Default)]
pub(super) struct Merge {
    pub(super) config: Config,
    /// Whether any source so far named the sandbox's backend; until then BinaryName does.
    sandbox_named: bool,
}

/// One source's keys on their way in.
struct Source<'a> {
    merge: &'a mut Merge,
    dialect: Dialect,
    /// The keys this source has set, each with the way it was written, to see that two spellings
    /// do not contradict each other.
    given: Vec<(&'static str, String)>,
    binary: Option<String>,
    root: Option<PathBuf>,
    /// BinaryName has chosen the backend.
    implied: bool,
}

impl Merge {
    /// Lays one source over those before it. Messages name the key but not the source: the caller
    /// knows that.
    pub(super) fn apply(&mut self, table: Table, dialect: Dialect) -> Result<()> {
        let mut source = Source {
            merge: self,
            dialect,
            given: Vec::new(),
            binary: None,
            root: None,
            implied: false,
        };
        source.walk("", table)?;
        // These two depend on the backend, so every other key comes first.
        source.choose_binary()?;
        source.choose_root()?;
        source.put_rules_aside();
        Ok(())
    }

    /// Every source has been read: what none of them can say alone.
    pub(super) fn finish(self) -> Result<Config> {
        let (low, high) = (self.config.pct.vmid_min, self.config.pct.vmid_max);
        if low > high {
            return Err(Error::invalid(format!(
                "{VMID_MIN} is {low} and {VMID_MAX} is {high}: there is no vmid between them"
            )));
        }
        Ok(self.config)
    }
}

impl Source<'_> {
    fn walk(&mut self, prefix: &str, table: Table) -> Result<()> {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            if name.contains('.') {
                return Err(Error::invalid(format!(
                    "unknown key {}: a dot is no part of a key, use an object",
                    quoted(&key)
                )));
            }
            if key == SCHEMA_KEY {
                text(&key, value, "a string")?;
            } else if let Some((known, field)) = KEYS.iter().find(|(known, _)| *known == key) {
                self.set(&key, known, field, value)?;
            } else if is_object(&key) {
                let Value::Table(inner) = value else {
                    return Err(wrong(&key, &value, "an object"));
                };
                self.walk(&format!("{key}."), inner)?;
            } else if self.dialect == Dialect::Containerd
                && let Some((known, own)) = RUNC_KEYS.iter().find(|(known, _)| *known == key)
            {
                self.set_of_runc(known, *own, value)?;
            } else {
                return Err(unknown(&key, self.dialect));
            }
        }
        Ok(())
    }

    /// Sets one key; `spelling` is how the source wrote it.
    fn set(
        &mut self,
        spelling: &str,
        known: &'static str,
        field: &Field,
        value: Value,
    ) -> Result<()> {
        self.once(spelling, if known == OLD_DEFAULT { DEFAULT } else { known })?;
        let config = &mut self.merge.config;
        match field {
            Field::Backend(at) => {
                let text = text(spelling, value, "the name of a backend")?;
                *at(config) = BackendName::parse(&text).map_err(|error| error.context(spelling))?;
                self.merge.sandbox_named |= known == SANDBOX;
            }
            Field::Path(at) => *at(config) = path(spelling, value)?,
            Field::MaybePath(at) => *at(config) = Some(path(spelling, value)?),
            Field::MaybeText(at) => *at(config) = Some(text(spelling, value, "a string")?),
            Field::Flag(at) => match value {
                Value::Flag(flag) => *at(config) = flag,
                other => return Err(wrong(spelling, &other, "true or false")),
            },
            Field::MaybeFlag(at) => match value {
                Value::Flag(flag) => *at(config) = Some(flag),
                other => return Err(wrong(spelling, &other, "true or false")),
            },
            Field::Number(least, most, at) => {
                let number = match &value {
                    Value::Number(number) => u32::try_from(*number).ok(),
                    _ => None,
                };
                let Some(number) = number.filter(|number| (least..=most).contains(&number)) else {
                    let wanted = format!("a number from {least} to {most}");
                    return Err(wrong(spelling, &value, &wanted));
                };
                *at(config) = number;
            }
            Field::Patterns(at) => *at(config) = patterns(spelling, value)?,
            Field::Rules(at) => *at(config) = rules(spelling, value)?,
        }
        Ok(())
    }

    /// The rule is [`Config::load`]'s.
    fn put_rules_aside(&mut self) {
        let given = |known: &str| self.given.iter().any(|(key, _)| *key == known);
        if self.dialect != Dialect::Containerd || !(given(DEFAULT) || self.implied) {
            return;
        }
        let (rules, patterns) = (given(ROUTING), given(OLD_PATTERNS));
        let config = &mut self.merge.config;
        config.default_by_options = true;
        if !rules {
            config.routing.clear();
        }
        if !patterns {
            config.crun_name_patterns.clear();
        }
    }

    /// `containerd config default` writes every key with an empty string: that is not set.
    fn set_of_runc(
        &mut self,
        known: &'static str,
        own: Option<&'static str>,
        value: Value,
    ) -> Result<()> {
        if value == Value::Text(String::new()) {
            return Ok(());
        }
        if let Some((own, field)) = own.and_then(|own| KEYS.iter().find(|(key, _)| *key == own)) {
            return self.set(known, own, field, value);
        }
        match known {
            "BinaryName" => {
                self.binary = Some(text(known, value, "a path or the name of a program")?);
            }
            "Root" => self.root = Some(path(known, value)?),
            "CriuPath" => {
                return Err(Error::invalid(
                    "CriuPath is obsolete: runc and crun look for criu in PATH; remove it",
                ));
            }
            // TypeUrl told containerd which message to send; ConfigPath has been followed already.
            _ => {
                text(known, value, "a string")?;
            }
        }
        Ok(())
    }

    /// Notes that `known` is set, which one source may do once.
    fn once(&mut self, spelling: &str, known: &'static str) -> Result<()> {
        if let Some((_, earlier)) = self.given.iter().find(|(key, _)| *key == known) {
            return Err(Error::invalid(format!(
                "{earlier} and {spelling} both set {known}: keep one of them"
            )));
        }
        self.given.push((known, spelling.to_owned()));
        Ok(())
    }

    /// The rule is [`Config::load`]'s.
    fn choose_binary(&mut self) -> Result<()> {
        let Some(binary) = self.binary.take() else { return Ok(()) };
        let program = Path::new(&binary);
        if binary.contains('/') && !program.is_absolute() {
            return Err(Error::invalid(format!(
                "BinaryName: found {}, wanted an absolute path or a name to look up in PATH",
                quoted(&binary)
            )));
        }
        let name = program.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.is_empty() {
            return Err(Error::invalid(format!(
                "BinaryName: {} does not end in the name of a program",
                quoted(&binary)
            )));
        }
        let default = self.merge.config.default_container_type;
        let implied = [BackendName::Runc, BackendName::Crun]
            .into_iter()
            .find(|backend| name.starts_with(backend.as_str()));
        let backend = implied.unwrap_or(default);
        if backend != default && self.given.iter().any(|(key, _)| *key == DEFAULT) {
            return Err(Error::invalid(format!(
                "BinaryName {} chooses the backend {backend}, {DEFAULT} says {default}: \
                 keep one of them",
                quoted(&binary)
            )));
        }
        self.once("BinaryName", of_runtime(backend, "BinaryName", "crun.path", "runc.path")?)?;
        let program = program.to_owned();
        if let Some(runtime) = self.merge.config.runtime_mut(backend) {
            runtime.program = program;
        }
        if implied.is_some() {
            self.implied = true;
            self.merge.config.default_container_type = backend;
            if !self.merge.sandbox_named {
                self.merge.config.sandbox_backend = backend;
            }
        }
        Ok(())
    }

    fn choose_root(&mut self) -> Result<()> {
        let Some(root) = self.root.take() else { return Ok(()) };
        let backend = self.merge.config.default_container_type;
        self.once("Root", of_runtime(backend, "Root", "crun.root", "runc.root")?)?;
        if let Some(runtime) = self.merge.config.runtime_mut(backend) {
            runtime.root = Some(root);
        }
        Ok(())
    }
}

impl Config {
    fn runtime_mut(&mut self, backend: BackendName) -> Option<&mut OciRuntime> {
        match backend {
            BackendName::Crun => Some(&mut self.crun),
            BackendName::Runc => Some(&mut self.runc),
            BackendName::Lxc | BackendName::Pct => None,
        }
    }
}

/// The key of ours that `key` stands for with this backend.
fn of_runtime(
    backend: BackendName,
    key: &str,
    crun: &'static str,
    runc: &'static str,
) -> Result<&'static str> {
    match backend {
        BackendName::Crun => Ok(crun),
        BackendName::Runc => Ok(runc),
        BackendName::Lxc | BackendName::Pct => Err(Error::invalid(format!(
            "{key} is for an OCI runtime, but {DEFAULT} is {backend}: set {crun} or {runc}"
        ))),
    }
}

/// Whether `key` holds other keys.
fn is_object(key: &str) -> bool {
    KEYS.iter().any(|(known, _)| known.split_once('.').is_some_and(|(object, _)| object == key))
}

fn text(key: &str, value: Value, wanted: &str) -> Result<String> {
    match value {
        // Such a value would break a path, a command line or the line of a generated file.
        Value::Text(text) if text.is_empty() || text.chars().any(char::is_control) => {
            let problem = if text.is_empty() { "is empty" } else { "has a control character" };
            Err(Error::invalid(format!("{key}: {} {problem}, wanted {wanted}", quoted(&text))))
        }
        Value::Text(text) => Ok(text),
        other => Err(wrong(key, &other, wanted)),
    }
}

/// The rules of `routing`.
fn rules(key: &str, value: Value) -> Result<Vec<Rule>> {
    let Value::List(list) = value else { return Err(wrong(key, &value, "a list of rules")) };
    let numbered = |(number, value)| rule(&format!("{key}[{number}]"), value);
    list.into_iter().enumerate().map(numbered).collect()
}

fn rule(key: &str, value: Value) -> Result<Rule> {
    let Value::Table(table) = value else { return Err(wrong(key, &value, "a rule, an object")) };
    let mut backend = None;
    let mut rule = Rule::of(BackendName::Crun);
    for (name, value) in table {
        let key = format!("{key}.{name}");
        match name.as_str() {
            "backend" => {
                let text = text(&key, value, "the name of a backend")?;
                backend = Some(BackendName::parse(&text).map_err(|error| error.context(&key))?);
            }
            "name" => rule.name = patterns(&key, value)?,
            "image" => rule.image = patterns(&key, value)?,
            "namespace" => rule.namespace = patterns(&key, value)?,
            "annotations" => rule.annotations = named_patterns(&key, value)?,
            "labels" => rule.labels = named_patterns(&key, value)?,
            _ => {
                return Err(Error::invalid(format!(
                    "unknown key {}; a rule has backend, name, image, namespace, annotations and \
                     labels",
                    quoted(&key)
                )));
            }
        }
    }
    rule.backend = backend.ok_or_else(|| {
        Error::invalid(format!("{key}: backend is missing: a rule says which it chooses"))
    })?;
    Ok(rule)
}

fn patterns(key: &str, value: Value) -> Result<Patterns> {
    const WANTED: &str = "a pattern or a list of patterns";
    match value {
        // It would be a condition that nothing meets, or one that everything does.
        Value::List(list) if list.is_empty() => Err(Error::invalid(format!(
            "{key}: the list is empty, wanted {WANTED}: leave the key out for no condition"
        ))),
        Value::List(list) => list.into_iter().map(|value| text(key, value, WANTED)).collect(),
        one => Ok(vec![text(key, one, WANTED)?]),
    }
}

fn named_patterns(key: &str, value: Value) -> Result<BTreeMap<String, Patterns>> {
    let Value::Table(table) = value else {
        return Err(wrong(key, &value, "an object of patterns"));
    };
    let each = |(name, value)| {
        let patterns = patterns(&format!("{key}.{name}"), value)?;
        Ok((name, patterns))
    };
    table.into_iter().map(each).collect()
}

fn path(key: &str, value: Value) -> Result<PathBuf> {
    const WANTED: &str = "an absolute path";
    let text = text(key, value, WANTED)?;
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        Err(wrong(key, &Value::Text(text), WANTED))
    }
}

fn wrong(key: &str, found: &Value, wanted: &str) -> Error {
    Error::invalid(format!("{key}: found {}, wanted {wanted}", found.found()))
}

/// Names the nearest key where one is near, and every key where none is.
fn unknown(key: &str, dialect: Dialect) -> Error {
    // Distances cost the product of the lengths, and nobody mistypes a key of a kilobyte.
    const LONGEST: usize = 64;
    let plain = |key: &str| key.replace('_', "").to_lowercase();
    let ours = KEYS.iter().map(|(key, _)| *key);
    let of_runc = RUNC_KEYS.iter().map(|(key, _)| *key).filter(|_| dialect == Dialect::Containerd);
    let known: Vec<&str> = ours.chain(of_runc).collect();
    let near = known
        .iter()
        .filter(|_| key.len() <= LONGEST)
        .map(|known| (strsim::osa_distance(&plain(key), &plain(known)), known))
        .filter(|(distance, known)| *distance <= known.len().min(key.len()) / 3)
        .min_by_key(|(distance, _)| *distance);
    let shown: String = key.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    Error::invalid(match near {
        Some((_, near)) => format!("unknown key {shown}; the nearest is {near}"),
        None => format!("unknown key {shown}; the keys are {}", list(&known)),
    })
}

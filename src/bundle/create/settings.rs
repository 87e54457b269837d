//! What is asked for by flags, and how it changes config.json: last, over the image and the
//! template.

use super::image::{Image, set_env};
use super::users;
use crate::config::input::quoted;
use crate::error::{Context, Error, Result};
use crate::guest::translate::CAPABILITIES;
use crate::sys::inroot::Root;
use serde_json::{Value, json};
use std::path::Path;

/// The period in which CPU time is given, in microseconds: the kernel's default.
const CPU_PERIOD: u32 = 100_000;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// bind, tmpfs, …
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Where, in the container.
    pub destination: String,
    /// Its options.
    pub options: Vec<String>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The program with its first arguments, instead of the image's Entrypoint and Cmd; empty for
    /// none.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments, instead of the image's Cmd.
    pub args: Vec<String>,
    /// NAME=VALUE
    pub env: Vec<String>,
    /// The working folder.
    pub cwd: Option<String>,
    /// `user[:group]`, by number or name.
    pub user: Option<String>,
    /// The host's name in the container.
    pub hostname: Option<String>,
    /// Mounts, after those that are there.
    pub mounts: Vec<Mount>,
    /// Memory, in bytes; -1 for no limit.
    pub memory: Option<i64>,
    /// Memory and swap together, in bytes; -1 for no limit.
    pub memory_swap: Option<i64>,
    /// How many CPUs' time.
    pub cpus: Option<f64>,
    /// CPU time relative to others.
    pub cpu_shares: Option<u64>,
    /// On which CPUs, as 0-2,4.
    pub cpuset_cpus: Option<String>,
    /// How many processes; -1 for no limit.
    pub pids: Option<i64>,
    /// Capabilities to add; ALL for all.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, first; ALL for all.
    pub cap_drop: Vec<String>,
    /// Whether the root cannot be written.
    pub read_only: bool,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// Annotations.
    pub annotations: Vec<(String, String)>,
}

impl Mount {
    /// Takes `type=bind,source=/a,destination=/b,options=ro:nosuid`; the type is bind unless it is
    /// said, and a relative source of a bind mount is below the working folder.
    ///
    /// # Errors
    /// `InvalidArgument` that names the word.
    pub fn parse(text: &str) -> Result<Self> {
        let doing = || format!("--mount {}", quoted(text));
        let wrong = |problem: String| Err(Error::invalid(problem)).context(doing);
        let (mut kind, mut source, mut destination) = (None, None, None);
        let mut options = Vec::new();
        for word in text.split(',') {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (word, None),
            };
            match (key, value) {
                ("type", Some(value)) => kind = Some(value),
                ("source" | "src", Some(value)) => source = Some(value),
                ("destination" | "dst" | "target", Some(value)) => destination = Some(value),
                ("options", Some(value)) => options.extend(value.split(':').map(str::to_owned)),
                ("ro" | "readonly", None) => options.push("ro".to_owned()),
                _ => {
                    return wrong(format!(
                        "{} is none of type=, source=, destination=, options= and ro",
                        quoted(word)
                    ));
                }
            }
        }
        let Some(destination) = destination else {
            return wrong("destination= is missing".to_owned());
        };
        let kind = kind.unwrap_or_else(|| "bind".to_owned());
        let source = match source {
            Some(source) => source,
            None if kind == "bind" => return wrong("source= is missing".to_owned()),
            None => kind.clone(),
        };
        Self { kind, source, destination, options }.checked().context(doing)
    }

    /// Takes `source:destination[:options]`, a bind mount.
    ///
    /// # Errors
    /// `InvalidArgument`
    pub fn parse_volume(text: &str) -> Result<Self> {
        let doing = || format!("--volume {}", quoted(text));
        let words: Vec<&str> = text.split(':').collect();
        let (source, destination, options) = match words[..] {
            [source, destination] => (source, destination, ""),
            [source, destination, options] => (source, destination, options),
            _ => {
                return Err(Error::invalid("wanted SOURCE:DESTINATION[:OPTIONS]")).context(doing);
            }
        };
        let options = options.split(',').filter(|word| !word.is_empty()).map(str::to_owned);
        Self {
            kind: "bind".to_owned(),
            source: source.to_owned(),
            destination: destination.to_owned(),
            options: options.collect(),
        }
        .checked()
        .context(doing)
    }

    fn checked(mut self) -> Result<Self> {
        if !self.destination.starts_with('/') {
            let found = quoted(&self.destination);
            return Err(Error::invalid(format!("destination {found} is not an absolute path")));
        }
        if self.kind == "bind" {
            let source = std::path::absolute(&self.source)?;
            if !source.exists() {
                return Err(Error::not_found(format!("there is no {}", source.display())));
            }
            self.source = source.to_string_lossy().into_owned();
            if !self.options.iter().any(|word| word == "bind" || word == "rbind") {
                self.options.insert(0, "rbind".to_owned());
            }
        }
        Ok(self)
    }

    /// As it stands in config.json.
    pub fn json(&self) -> Value {
        json!({
            "destination": self.destination, "type": self.kind, "source": self.source,
            "options": self.options,
        })
    }
}

/// Sets what is at a path of config.json; objects on the way are made where there are none.
pub fn set(config: &mut Value, path: &[&str], value: impl Into<Value>) {
    let mut at = config;
    for key in path {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*key];
    }
    *at = value.into();
}

/// A list of texts in config.json; what is no text stays out.
fn texts(config: &Value, pointer: &str) -> Vec<String> {
    let list = config.pointer(pointer).and_then(Value::as_array);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    list.map(|list| list.iter().filter_map(text).collect()).unwrap_or_default()
}

/// Sets the user of the process.
///
/// # Errors
/// As [`users::find`].
pub fn set_user(config: &mut Value, root: &Root, user: &str) -> Result<()> {
    let user = users::find(root, user)?;
    let mut json = json!({ "uid": user.uid, "gid": user.gid });
    if !user.groups.is_empty() {
        json["additionalGids"] = user.groups.into();
    }
    set(config, &["process", "user"], json);
    Ok(())
}

/// Appends mounts.
pub fn add_mounts<'a>(config: &mut Value, mounts: impl IntoIterator<Item = &'a Mount>) {
    let more: Vec<Value> = mounts.into_iter().map(Mount::json).collect();
    let all = &mut config["mounts"];
    match all {
        Value::Array(all) => all.extend(more),
        _ => *all = more.into(),
    }
}

impl Settings {
    /// Checks what can be checked without a root.
    ///
    /// # Errors
    /// `InvalidArgument` that names the flag.
    pub fn check(&self) -> Result<()> {
        for line in &self.env {
            if !line.contains('=') || line.starts_with('=') || line.contains('\0') {
                return Err(Error::invalid(format!("--env {}: wanted NAME=VALUE", quoted(line))));
            }
        }
        if let Some(cwd) = self.cwd.as_ref().filter(|cwd| !cwd.starts_with('/')) {
            return Err(Error::invalid(format!("--cwd {}: not an absolute path", quoted(cwd))));
        }
        if let Some(name) = &self.hostname {
            check_hostname(name)?;
        }
        if let Some(cpus) = self.cpus.filter(|cpus| !(0.01..=10_000.0).contains(cpus)) {
            return Err(Error::invalid(format!("--cpus {cpus}: wanted 0.01 to 10000")));
        }
        if let Some(pids) = self.pids.filter(|pids| *pids < -1 || *pids == 0) {
            return Err(Error::invalid(format!("--pids-limit {pids}: wanted 1 or more, or -1")));
        }
        for name in self.cap_add.iter().chain(&self.cap_drop) {
            capabilities(name)?;
        }
        Ok(())
    }

    /// The command of an image: its own, unless flags say otherwise.
    pub fn command(&self, image: Option<&Image>) -> Vec<String> {
        let (mut entrypoint, mut cmd) = image.map(Image::command).unwrap_or_default();
        if let Some(program) = &self.entrypoint {
            entrypoint.clone_from(program);
            cmd = Vec::new();
        }
        if !self.args.is_empty() {
            cmd.clone_from(&self.args);
        }
        entrypoint.append(&mut cmd);
        entrypoint
    }

    /// Changes config.json. The command is not among it.
    ///
    /// # Errors
    /// `InvalidArgument`
    pub fn apply(&self, config: &mut Value, root: &Root) -> Result<()> {
        if !self.env.is_empty() {
            let mut env = texts(config, "/process/env");
            set_env(&mut env, self.env.clone());
            set(config, &["process", "env"], env);
        }
        if let Some(user) = &self.user {
            set_user(config, root, user).context(|| "--user")?;
        }
        if let Some(cwd) = &self.cwd {
            set(config, &["process", "cwd"], cwd.clone());
        }
        if self.terminal {
            set(config, &["process", "terminal"], true);
        }
        if let Some(name) = &self.hostname {
            set(config, &["hostname"], name.clone());
        }
        if self.read_only {
            set(config, &["root", "readonly"], true);
        }
        if !self.mounts.is_empty() {
            add_mounts(config, &self.mounts);
        }
        for (key, value) in &self.annotations {
            set(config, &["annotations", key], value.clone());
        }
        self.apply_resources(config);
        self.apply_capabilities(config)
    }

    fn apply_resources(&self, config: &mut Value) {
        let quota = self.cpus.map(|cpus| (cpus * f64::from(CPU_PERIOD)).round());
        // A bounded number, without a fraction.
        #[expect(clippy::cast_possible_truncation, reason = "between 1000 and 1000000000")]
        let quota = quota.map(|quota| quota as i64);
        let values: [(&str, &str, Option<Value>); 7] = [
            ("memory", "limit", self.memory.map(Value::from)),
            ("memory", "swap", self.memory_swap.map(Value::from)),
            ("cpu", "quota", quota.map(Value::from)),
            ("cpu", "period", quota.map(|_| CPU_PERIOD.into())),
            ("cpu", "shares", self.cpu_shares.map(Value::from)),
            ("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from)),
            ("pids", "limit", self.pids.map(Value::from)),
        ];
        for (group, key, value) in values {
            if let Some(value) = value {
                set(config, &["linux", "resources", group, key], value);
            }
        }
    }

    fn apply_capabilities(&self, config: &mut Value) -> Result<()> {
        change_capabilities(config, &self.cap_add, &self.cap_drop)
    }
}

/// Drops capabilities from every set, and adds some to those that a process begins with.
///
/// # Errors
/// `InvalidArgument` for one that nobody has heard of.
pub fn change_capabilities(config: &mut Value, add: &[String], drop: &[String]) -> Result<()> {
    if add.is_empty() && drop.is_empty() {
        return Ok(());
    }
    let names = |given: &[String]| -> Result<Vec<String>> {
        Ok(given.iter().map(|name| capabilities(name)).collect::<Result<Vec<_>>>()?.concat())
    };
    let (add, drop) = (names(add)?, names(drop)?);
    for name in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        let mut all = texts(config, &format!("/process/capabilities/{name}"));
        all.retain(|name| !drop.contains(name));
        if matches!(name, "bounding" | "effective" | "permitted") {
            all.extend(add.clone());
            all.sort_unstable();
            all.dedup();
        }
        let path = ["process", "capabilities", name];
        if !all.is_empty() || config.pointer(&format!("/{}", path.join("/"))).is_some() {
            set(config, &path, all);
        }
    }
    Ok(())
}

/// A capability by its name, with or without `CAP_`, in any case; all of them for ALL.
///
/// # Errors
/// `InvalidArgument` for one that nobody has heard of.
pub fn capabilities(name: &str) -> Result<Vec<String>> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect());
    }
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if CAPABILITIES.contains(&bare) {
        return Ok(vec![format!("CAP_{bare}")]);
    }
    Err(Error::invalid(format!("capability {}: there is none of that name", quoted(name))))
}

/// RFC 1123: words of letters, digits and dashes, with dots between, 64 bytes as Linux takes them.
///
/// # Errors
/// `InvalidArgument`
pub fn check_hostname(name: &str) -> Result<()> {
    let word = |word: &str| {
        (1..=63).contains(&word.len())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !word.starts_with('-')
            && !word.ends_with('-')
    };
    if name.len() <= 64 && name.split('.').all(word) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "hostname {}: wanted letters, digits and dashes, 63 at most between two dots and 64 in all",
        quoted(name)
    )))
}

/// Takes a size in bytes, or with k, m, g or t, which are powers of 1024; -1 for no limit.
///
/// # Errors
/// `InvalidArgument`
pub fn parse_size(text: &str) -> Result<i64> {
    let wrong =
        || Error::invalid(format!("{}: wanted a size as 1048576, 512k, 64m or 2g", quoted(text)));
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last() {
        Some(b'k') => (lower.strip_suffix('k'), 10),
        Some(b'm') => (lower.strip_suffix('m'), 20),
        Some(b'g') => (lower.strip_suffix('g'), 30),
        Some(b't') => (lower.strip_suffix('t'), 40),
        _ => (Some(lower), 0),
    };
    let number: i64 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    if number < 0 {
        return Err(wrong());
    }
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Takes `key=value`.
///
/// # Errors
/// `InvalidArgument`
pub fn parse_annotation(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::invalid(format!("--annotation {}: wanted KEY=VALUE", quoted(text)))),
    }
}

/// Whether a mount goes there already.
pub fn has_mount(config: &Value, destination: &str) -> bool {
    let all = config.get("mounts").and_then(Value::as_array);
    let same = |mount: &Value| {
        let its = mount.get("destination").and_then(Value::as_str);
        its.is_some_and(|its| Path::new(its) == Path::new(destination))
    };
    all.is_some_and(|all| all.iter().any(same))
}

#[cfg(test)]
mod tests {
    use super::super::default;
    use super::*;

    #[test]
    fn mounts_are_taken_in_both_forms() {
        let mount = |kind: &str, source: &str, destination: &str, options: &[&str]| Mount {
            kind: kind.into(),
            source: source.into(),
            destination: destination.into(),
            options: options.iter().map(|&word| word.into()).collect(),
        };
        let parsed =
            Mount::parse("type=bind,source=/etc,destination=/e,options=ro:nosuid").unwrap();
        assert_eq!(parsed, mount("bind", "/etc", "/e", &["rbind", "ro", "nosuid"]));
        let parsed = Mount::parse("type=tmpfs,dst=/t,options=size=1m").unwrap();
        assert_eq!(parsed, mount("tmpfs", "tmpfs", "/t", &["size=1m"]));
        let parsed = Mount::parse_volume("/etc:/e:ro").unwrap();
        assert_eq!(parsed, mount("bind", "/etc", "/e", &["rbind", "ro"]));
        for (text, says) in [
            ("type=bind,source=/etc", "destination= is missing"),
            ("destination=/x", "source= is missing"),
            ("source=/etc,destination=x", "not an absolute"),
            ("source=/nowhere,destination=/x", "there is no /nowhere"),
            ("bind,destination=/x", "\"bind\" is none of"),
        ] {
            let error = Mount::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Mount::parse_volume("/etc").is_err());
        assert!(Mount::parse_volume("/a:/b:ro:x").is_err());
    }

    #[test]
    fn sizes_and_names_are_checked() {
        let size = |text: &str| parse_size(text).ok();
        assert_eq!(size("1048576"), Some(1 << 20));
        assert_eq!(
            (size("64m"), size("2G"), size("1KiB")),
            (Some(64 << 20), Some(2 << 30), Some(1024))
        );
        assert_eq!(size("-1"), Some(-1));
        for wrong in ["", "m", "-5", "1.5g", "9999999999t", "1x"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        for good in ["a", "web-1.example", &"a".repeat(63)] {
            check_hostname(good).unwrap();
        }
        for wrong in ["", "-a", "a-", "a..b", "a_b", "ü", &"a".repeat(64)] {
            assert!(check_hostname(wrong).is_err(), "{wrong}");
        }
        let check = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(check(|s| s.env = vec!["A".into()]).contains("--env"));
        assert!(check(|s| s.cwd = Some("x".into())).contains("--cwd"));
        assert!(check(|s| s.cpus = Some(0.0)).contains("--cpus"));
        assert!(check(|s| s.cpus = Some(f64::NAN)).contains("--cpus"));
        assert!(check(|s| s.pids = Some(0)).contains("--pids-limit"));
        assert!(check(|s| s.cap_add = vec!["CAP_X".into()]).contains("CAP_X"));
    }

    #[test]
    fn flags_change_what_they_name_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let mut config = default::default();
        Settings::default().apply(&mut config, &root).unwrap();
        assert_eq!(config, default::default());
        let settings = Settings {
            env: vec!["A=1".into(), "PATH=/x".into()],
            cwd: Some("/srv".into()),
            user: Some("5:6".into()),
            hostname: Some("web".into()),
            memory: Some(1 << 20),
            cpus: Some(1.5),
            pids: Some(7),
            cap_add: vec!["sys_admin".into()],
            cap_drop: vec!["ALL".into()],
            read_only: true,
            terminal: true,
            annotations: vec![("a".into(), "b".into())],
            ..Settings::default()
        };
        settings.apply(&mut config, &root).unwrap();
        assert_eq!(config["process"]["env"], json!(["PATH=/x", "A=1"]));
        assert_eq!(config["process"]["user"], json!({"uid": 5, "gid": 6}));
        assert_eq!(config["process"]["capabilities"]["bounding"], json!(["CAP_SYS_ADMIN"]));
        assert_eq!(config["process"]["capabilities"].as_object().unwrap().len(), 3);
        assert_eq!(
            config["linux"]["resources"]["cpu"],
            json!({"quota": 150_000, "period": 100_000})
        );
        assert_eq!(config["linux"]["resources"]["memory"], json!({"limit": 1 << 20}));
        assert_eq!(config["linux"]["resources"]["pids"], json!({"limit": 7}));
        assert_eq!(
            config["linux"]["resources"]["devices"],
            default::default()["linux"]["resources"]["devices"]
        );
        assert_eq!(config["root"], json!({"path": "rootfs", "readonly": true}));
        assert_eq!(
            (&config["hostname"], &config["annotations"]["a"]),
            (&json!("web"), &json!("b"))
        );
        assert_eq!(config["process"]["terminal"], json!(true));
    }

    #[test]
    fn arguments_take_the_place_of_cmd_and_an_entrypoint_that_of_both() {
        let image = json!({"config": {"Entrypoint": ["/e", "1"], "Cmd": ["c"]}});
        let image: Image = serde_json::from_value(image).unwrap();
        let command = |entrypoint: Option<&str>, args: &[&str]| {
            let args = args.iter().map(|&arg| arg.into()).collect();
            let words = |text: &str| text.split_whitespace().map(Into::into).collect();
            let entrypoint = entrypoint.map(words);
            Settings { entrypoint, args, ..Settings::default() }.command(Some(&image)).join(" ")
        };
        assert_eq!(command(None, &[]), "/e 1 c");
        assert_eq!(command(None, &["x", "y"]), "/e 1 x y");
        assert_eq!(command(Some("/n"), &[]), "/n");
        assert_eq!(command(Some("/n"), &["x"]), "/n x");
        assert_eq!(command(Some(""), &["x"]), "x");
    }
}

//! The guest that a bundle becomes, as pct's arguments and as the text of its configuration.
//!
//! Pure: values in, words out. What pct cannot express is in the file that the configuration
//! includes. Both ways give the same configuration, so which of them made a guest does not matter
//! afterwards.

use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::vmid::Identity;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The tag of every guest that nexcage makes.
pub const TAG: &str = "nexcage";

/// What the lines of the description begin with that say whose a guest is.
pub const NAMESPACE_LINE: &str = "nexcage-namespace: ";
/// See [`NAMESPACE_LINE`].
pub const ID_LINE: &str = "nexcage-id: ";
/// See [`NAMESPACE_LINE`].
pub const GENERATION_LINE: &str = "nexcage-generation: ";

/// What the guest's root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A folder of this host ([`bind_root`]).
    Bind(String),
    /// A new volume.
    Volume {
        /// Where.
        storage: String,
        /// How large, in GiB.
        size: u32,
    },
}

/// A guest to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its id.
    pub vmid: u32,
    /// Whose it is.
    pub identity: Identity,
    /// Its root.
    pub root: Root,
    /// What the web interface calls it: a valid DNS name ([`hostname`]).
    pub hostname: String,
    /// Its user namespace is not the host's.
    pub unprivileged: bool,
    /// Its limits, as far as pct shows them.
    pub limits: Shown,
    /// Lines of `lxc.idmap` where pct's own mapping is not the bundle's.
    pub idmap: Vec<String>,
    /// A network of Proxmox's (`net0`), if an annotation asks for one.
    pub network: Option<String>,
    /// The file with everything else; it must be there whenever the guest is started.
    pub include: PathBuf,
}

impl Guest {
    /// The arguments of `pct create`, with the archive to unpack, which has nothing in it.
    pub fn arguments(&self, template: &Path) -> Vec<String> {
        let mut words =
            vec!["create".to_owned(), self.vmid.to_string(), template.display().to_string()];
        words.extend(["--description".to_owned(), self.description()]);
        let privilege = ("unprivileged", u8::from(self.unprivileged).to_string());
        for (key, value) in self.options().into_iter().chain([privilege]) {
            words.extend([format!("--{key}"), value]);
        }
        words
    }

    /// The guest's configuration, as pct would write it after [`Guest::arguments`], and with the
    /// lines of [`Guest::raw_lines`].
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.description().lines() {
            text.push('#');
            text.push_str(&encode(line));
            text.push('\n');
        }
        let privilege = self.unprivileged.then(|| ("unprivileged", "1".to_owned()));
        for (key, value) in self.options().into_iter().chain(privilege) {
            text.push_str(&format!("{key}: {value}\n"));
        }
        text + &self.raw_lines()
    }

    /// The lines that no option of pct's makes.
    pub fn raw_lines(&self) -> String {
        let mut lines: String =
            self.idmap.iter().map(|line| format!("lxc.idmap: {line}\n")).collect();
        lines.push_str(&format!("lxc.include: {}\n", self.include.display()));
        lines
    }

    fn description(&self) -> String {
        let Identity { namespace, id, generation } = &self.identity;
        format!("{NAMESPACE_LINE}{namespace}\n{ID_LINE}{id}\n{GENERATION_LINE}{generation}\n")
    }

    /// By name, as pct sorts them. Whether the guest is unprivileged comes last: pct must be told
    /// in both cases, for its own default is yes, and writes it down only if so.
    fn options(&self) -> Vec<(&'static str, String)> {
        let root = match &self.root {
            Root::Bind(path) => path.clone(),
            Root::Volume { storage, size } => format!("{storage}:{size}"),
        };
        let mut options = vec![("arch", arch().to_owned()), ("console", "0".to_owned())];
        options.extend(self.limits.cpulimit.clone().map(|limit| ("cpulimit", limit)));
        options.extend(self.limits.cpuunits.map(|units| ("cpuunits", units.to_string())));
        options.push(("hostname", self.hostname.clone()));
        options.push(("memory", self.limits.memory.to_string()));
        options.extend(self.network.clone().map(|network| ("net0", network)));
        options.push(("ostype", "unmanaged".to_owned()));
        options.push(("rootfs", root));
        options.push(("swap", self.limits.swap.to_string()));
        options.push(("tags", TAG.to_owned()));
        options.push(("tty", "0".to_owned()));
        options
    }
}

/// This machine, in Proxmox's words.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "i386",
        "aarch64" => "arm64",
        "arm" => "armhf",
        other => other,
    }
}

/// Escapes a line of the description as Proxmox does in its files.
fn encode(line: &str) -> String {
    let mut text = String::new();
    for byte in line.bytes() {
        match byte {
            b'%' | b':' | ..=0x1f | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
            byte => text.push(char::from(byte)),
        }
    }
    text
}

/// Undoes the escaping of the description's lines. What is no escape stays as it is.
pub fn decode(line: &str) -> String {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                digit(*high)
                    .zip(digit(*low))
                    .and_then(|(high, low)| u8::try_from(high << 4 | low).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A DNS name for the guest: the one of the bundle as far as DNS allows it, else the container's
/// id. Inside, the hostname is the bundle's own, whatever it is.
pub fn hostname(wanted: Option<&str>, id: &ContainerId) -> String {
    const LABEL: usize = 63;
    const NAME: usize = 253;
    let dashed = |text: &str| {
        let mut name = String::new();
        for label in text.split('.') {
            let plain: String = label
                .chars()
                .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
                .collect();
            let plain = plain.trim_matches('-');
            let plain = plain.get(..LABEL).unwrap_or(plain).trim_end_matches('-');
            if plain.is_empty() || name.len() + 1 + plain.len() > NAME {
                continue;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(plain);
        }
        name
    };
    let wanted = wanted.map(dashed).unwrap_or_default();
    // An id has a letter or a digit in it.
    if wanted.is_empty() { dashed(id.as_str()) } else { wanted }
}

/// Checks that pct can bind a folder as a guest's root: its path becomes a word of a property
/// string and a line of a file, and pct's command line garbles what is not ASCII.
///
/// # Errors
/// `InvalidArgument` with the reason.
pub fn bind_root(path: &Path) -> Result<Root> {
    let shown = crate::config::input::shown(path);
    let refuse = |why: &str| {
        Err(Error::invalid(format!(
            "root.path: {shown} cannot be the root of a guest of Proxmox VE: {why}; move the \
             bundle, or set pct.storage to have the root copied to a storage"
        )))
    };
    let Some(text) = path.to_str() else { return refuse("it is not UTF-8") };
    let text = if text == "/" { text } else { text.trim_end_matches('/') };
    if !text.starts_with('/') {
        return refuse("it is not absolute");
    }
    if !text.is_ascii() || text.bytes().any(|byte| byte.is_ascii_control()) {
        return refuse("it has a character that pct garbles, only ASCII ones pass");
    }
    if text.contains([',', '=']) {
        return refuse("it has a comma or an equals sign, which pct takes for its own");
    }
    if text.split('/').skip(1).any(|part| part == "." || part == "..") {
        return refuse("pct takes no . and .. in a path");
    }
    if text == "/" || text.starts_with("/dev/") {
        return refuse("pct would take it for a device or for the host's own root");
    }
    if text.ends_with(' ') {
        return refuse("it ends in a blank, which pct loses");
    }
    Ok(Root::Bind(text.to_owned()))
}

/// The volume that `pct.storage` and `pct.disk_size` ask for.
///
/// # Errors
/// `InvalidArgument` for a name that no storage can have.
pub fn volume(storage: &str, size: u32) -> Result<Root> {
    let mut bytes = storage.bytes();
    let fits = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        let found = crate::config::input::quoted(storage);
        return Err(Error::invalid(format!(
            "pct.storage: found {found}, wanted the name of a storage, as `pvesm status` lists it"
        )));
    }
    Ok(Root::Volume { storage: storage.to_owned(), size })
}

/// linux.resources, as far as Proxmox shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Limits {
    /// linux.resources.memory
    pub memory: Option<Memory>,
    /// linux.resources.cpu
    pub cpu: Option<Cpu>,
}

/// linux.resources.memory; bytes, and -1 for no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Memory {
    /// Of memory.
    pub limit: Option<i64>,
    /// Of memory and swap together.
    pub swap: Option<i64>,
}

/// linux.resources.cpu
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Cpu {
    /// Relative to others.
    pub shares: Option<u64>,
    /// Microseconds of each period; not positive for no limit.
    pub quota: Option<i64>,
    /// Microseconds.
    pub period: Option<u64>,
}

/// Limits in the units of a guest's configuration, for people to see. What counts is what the
/// supervisor writes to the guest's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// In MiB.
    pub memory: u64,
    /// In MiB, without memory.
    pub swap: u64,
    /// In CPUs.
    pub cpulimit: Option<String>,
    /// A weight from 1 to 10000.
    pub cpuunits: Option<u64>,
}

/// The host's memory and swap in bytes: what a guest without limits may have, since pct knows no
/// guest without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// MemTotal
    pub memory: u64,
    /// SwapTotal
    pub swap: u64,
}

impl HostMemory {
    /// From the text of /proc/meminfo. What is not there counts as nothing.
    pub fn parse(meminfo: &str) -> Self {
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        let of = |key| bytes(key).unwrap_or_default().saturating_mul(1024);
        Self { memory: of("MemTotal:"), swap: of("SwapTotal:") }
    }
}

impl Limits {
    /// In the units of a guest's configuration, on a host with so much memory.
    pub fn shown(&self, host: HostMemory) -> Shown {
        /// The least that pct takes, in MiB.
        const LEAST: u64 = 16;
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let memory = self.memory.clone().unwrap_or_default();
        // Both zero and less than that are "no limit" in what containerd and the kubelet send.
        let limit = memory.limit.and_then(|limit| u64::try_from(limit).ok()).filter(|&l| l > 0);
        let both = memory.swap.and_then(|swap| u64::try_from(swap).ok()).filter(|&s| s > 0);
        let swap = match (limit, both) {
            (Some(limit), Some(both)) => both.saturating_sub(limit).min(host.swap),
            _ => host.swap,
        };
        let cpu = self.cpu.clone().unwrap_or_default();
        Shown {
            memory: mib(limit.unwrap_or(u64::MAX).min(host.memory)).max(LEAST),
            swap: mib(swap),
            cpulimit: cpulimit(&cpu),
            cpuunits: cpu.shares.filter(|&shares| shares > 0).map(weight),
        }
    }
}

impl Limits {
    /// The keys of a guest's configuration that an update with these limits changes: it leaves
    /// alone what it does not name.
    pub fn changed(&self, host: HostMemory) -> Vec<(&'static str, Option<String>)> {
        let shown = self.shown(host);
        let memory = self.memory.clone().unwrap_or_default();
        let cpu = self.cpu.clone().unwrap_or_default();
        let mut values = Vec::new();
        if memory.limit.is_some() {
            values.push(("memory", Some(shown.memory.to_string())));
            if memory.swap.is_some() {
                values.push(("swap", Some(shown.swap.to_string())));
            }
        }
        if cpu.quota.is_some() {
            values.push(("cpulimit", shown.cpulimit));
        }
        if let Some(units) = shown.cpuunits {
            values.push(("cpuunits", Some(units.to_string())));
        }
        values
    }
}

/// The quota in CPUs, to five places.
fn cpulimit(cpu: &Cpu) -> Option<String> {
    const PERIOD: u64 = 100_000;
    /// The most that pct takes.
    const MOST: u128 = 8192;
    let quota = u128::try_from(cpu.quota?).ok().filter(|&quota| quota > 0)?;
    let period = u128::from(cpu.period.filter(|&period| period > 0).unwrap_or(PERIOD));
    let parts = (quota * 100_000 / period).clamp(1, MOST * 100_000);
    let text = format!("{}.{:05}", parts / 100_000, parts % 100_000);
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// The weight of cgroup v2 for cgroup v1's shares, as every runtime computes it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: HostMemory = HostMemory { memory: 8 << 30, swap: 1 << 30 };

    fn guest() -> Guest {
        Guest {
            vmid: 900_001,
            identity: Identity::parse("default", "web-1", "1b4e28ba-2fa1").unwrap(),
            root: bind_root(Path::new("/run/containerd/b/web-1/rootfs")).unwrap(),
            hostname: "web1".to_owned(),
            unprivileged: false,
            limits: Shown { memory: 64, swap: 0, ..Shown::default() },
            idmap: Vec::new(),
            network: None,
            include: "/run/nexcage/default/web-1/guest.conf".into(),
        }
    }

    #[test]
    fn the_arguments_of_pct_create_are_those_that_were_tried() {
        let words = guest().arguments(Path::new("/var/lib/nexcage/empty.tar"));
        assert_eq!(
            words,
            [
                "create",
                "900001",
                "/var/lib/nexcage/empty.tar",
                "--description",
                "nexcage-namespace: default\nnexcage-id: web-1\nnexcage-generation: 1b4e28ba-2fa1\n",
                "--arch",
                arch(),
                "--console",
                "0",
                "--hostname",
                "web1",
                "--memory",
                "64",
                "--ostype",
                "unmanaged",
                "--rootfs",
                "/run/containerd/b/web-1/rootfs",
                "--swap",
                "0",
                "--tags",
                "nexcage",
                "--tty",
                "0",
                "--unprivileged",
                "0",
            ]
        );
    }

    #[test]
    fn the_configuration_is_written_as_pct_sorts_it() {
        let full = Guest {
            unprivileged: true,
            limits: Shown {
                memory: 64,
                swap: 1,
                cpulimit: Some("0.5".to_owned()),
                cpuunits: Some(200),
            },
            idmap: vec!["u 0 200000 65536".to_owned(), "g 0 200000 65536".to_owned()],
            network: Some("name=eth0,bridge=vmbr0".to_owned()),
            ..guest()
        };
        assert_eq!(
            full.text(),
            format!(
                "#nexcage-namespace%3A default\n#nexcage-id%3A web-1\n\
                 #nexcage-generation%3A 1b4e28ba-2fa1\n\
                 arch: {}\nconsole: 0\ncpulimit: 0.5\ncpuunits: 200\nhostname: web1\nmemory: 64\n\
                 net0: name=eth0,bridge=vmbr0\nostype: unmanaged\n\
                 rootfs: /run/containerd/b/web-1/rootfs\nswap: 1\ntags: nexcage\ntty: 0\nunprivileged: 1\n\
                 lxc.idmap: u 0 200000 65536\nlxc.idmap: g 0 200000 65536\n\
                 lxc.include: /run/nexcage/default/web-1/guest.conf\n",
                arch()
            )
        );
    }

    #[test]
    fn a_hostname_becomes_a_dns_name() {
        let id = ContainerId::parse("c_1").unwrap();
        let long = "a".repeat(62) + "-bc";
        for (wanted, name) in [
            (Some("web1"), "web1"),
            (Some("my_host.example.com"), "my-host.example.com"),
            (Some("-a-.-.b."), "a.b"),
            (Some("büro"), "b-ro"),
            (Some("a\nb: c"), "a-b--c"),
            (Some(&long), &"a".repeat(62)),
            (Some("ü"), "c-1"),
            (Some(""), "c-1"),
            (None, "c-1"),
        ] {
            assert_eq!(hostname(wanted, &id), name, "{wanted:?}");
        }
    }

    #[test]
    fn a_root_that_pct_cannot_bind_is_refused_with_the_reason() {
        for (path, reason) in [
            ("rootfs", "not absolute"),
            ("/b/a,b/rootfs", "comma"),
            ("/b/a=b/rootfs", "equals"),
            ("/b/./rootfs", ". and .."),
            ("/b/../rootfs", ". and .."),
            ("/b/..", ". and .."),
            ("/b/ü", "ASCII"),
            ("/b\nlxc.hook.start: /x", "ASCII"),
            ("/dev/sda", "device"),
            ("/", "host's own root"),
            ("/b/rootfs ", "blank"),
        ] {
            let error = bind_root(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with("root.path: ") && error.contains(reason), "{error}");
            assert!(!error.contains('\n'));
        }
        let path = "/srv/a b/.x/root..fs";
        assert_eq!(bind_root(Path::new(path)).unwrap(), Root::Bind(path.to_owned()));
    }

    #[test]
    fn a_storage_is_named_as_proxmox_names_them() {
        let on_storage = Guest { root: volume("local-zfs", 8).unwrap(), ..guest() };
        let words = on_storage.arguments(Path::new("/t.tar"));
        assert!(words.windows(2).any(|words| words == ["--rootfs", "local-zfs:8"]), "{words:?}");
        for name in ["", "1a", "a,b", "a:b", "a b", "ä"] {
            assert!(volume(name, 8).unwrap_err().to_string().starts_with("pct.storage: "));
        }
        volume("local-lvm_2.x", 8).unwrap();
    }

    #[test]
    fn limits_are_rounded_up_and_what_has_none_gets_the_hosts() {
        let shown = |json: &str| serde_json::from_str::<Limits>(json).unwrap().shown(HOST);
        let all = Shown { memory: 8192, swap: 1024, cpulimit: None, cpuunits: None };
        assert_eq!(shown("{}"), all);
        assert_eq!(shown(r#"{"memory": {"limit": -1, "swap": -1}, "cpu": {}}"#), all);
        let huge = r#"{"memory": {"limit": 9223372036854771712, "swap": 9223372036854771712}}"#;
        assert_eq!(shown(huge), Shown { swap: 0, ..all.clone() });
        for (limit, swap, memory, swapped) in [
            (67_108_864, "67108864", 64, 0),
            (67_108_865, "134217729", 65, 64),
            (1, "1", 16, 0),
            (67_108_864, "-1", 64, 1024),
            (67_108_864, "1", 64, 0),
        ] {
            let text = format!(r#"{{"memory": {{"limit": {limit}, "swap": {swap}}}}}"#);
            let found = shown(&text);
            assert_eq!((found.memory, found.swap), (memory, swapped), "{text}");
        }
        for (cpu, limit, units) in [
            (r#"{"quota": 50000, "period": 100000}"#, Some("0.5"), None),
            (r#"{"quota": 150000}"#, Some("1.5"), None),
            (r#"{"quota": 200000, "period": 100000}"#, Some("2"), None),
            (r#"{"quota": 1, "period": 1000000}"#, Some("0.00001"), None),
            (r#"{"quota": -1, "shares": 1024}"#, None, Some(39)),
            (r#"{"quota": 0, "shares": 2}"#, None, Some(1)),
            (r#"{"shares": 262144}"#, None, Some(10_000)),
            (r#"{"shares": 0}"#, None, None),
            (r#"{"quota": 9223372036854775807, "period": 1}"#, Some("8192"), None),
        ] {
            let found = shown(&format!(r#"{{"cpu": {cpu}}}"#));
            assert_eq!((found.cpulimit.as_deref(), found.cpuunits), (limit, units), "{cpu}");
        }
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let changed = |json: &str| serde_json::from_str::<Limits>(json).unwrap().changed(HOST);
        assert_eq!(changed("{}"), []);
        let text = r#"{"memory": {"limit": 33554432}, "cpu": {"quota": -1, "shares": 1024}}"#;
        let some = |value: &str| Some(value.to_owned());
        let expected = [("memory", some("32")), ("cpulimit", None), ("cpuunits", some("39"))];
        assert_eq!(changed(text), expected);
        let text = r#"{"memory": {"limit": 33554432, "swap": 34603008}, "cpu": {"quota": 50000}}"#;
        let expected = [("memory", some("32")), ("swap", some("1")), ("cpulimit", some("0.5"))];
        assert_eq!(changed(text), expected);
    }

    #[test]
    fn the_hosts_memory_is_read() {
        let text = "MemTotal:        8388608 kB\nMemFree: 1 kB\nSwapTotal:       1048576 kB\n";
        assert_eq!(HostMemory::parse(text), HOST);
        assert_eq!(HostMemory::parse(""), HostMemory { memory: 0, swap: 0 });
    }

    proptest! {
        #[test]
        fn any_hostname_comes_out_as_a_dns_name(wanted in prop::option::of("\\PC{0,300}"),
                                                id in "[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}") {
            let name = hostname(wanted.as_deref(), &ContainerId::parse(&id).unwrap());
            prop_assert!(!name.is_empty() && name.len() <= 253);
            for label in name.split('.') {
                prop_assert!((1..=63).contains(&label.len()), "{name}");
                prop_assert!(label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
                prop_assert!(!label.starts_with('-') && !label.ends_with('-'), "{name}");
            }
        }

        #[test]
        fn no_path_adds_a_line_or_a_property(path in "(/|[a-z,=\n ./ü]){0,40}") {
            if let Ok(Root::Bind(path)) = bind_root(Path::new(&path)) {
                prop_assert!(!path.contains([',', '\n', '=']));
            }
        }

        #[test]
        fn a_line_of_a_description_comes_back(line in "\\PC{0,60}") {
            prop_assert_eq!(decode(&encode(&line)), line);
        }
    }
}

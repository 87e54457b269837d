//! A container's configuration (CRI's ContainerConfig).

use super::security::Security;
use super::{keep, only, refuse, texts};
use crate::bundle::create::image::STOP_SIGNAL;
use crate::bundle::create::settings::{self, Mount};
use crate::error::{Error, Result};
use crate::guest::translate::cursor::At;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// What is read of it.
#[derive(Debug, Default)]
pub struct Container {
    /// metadata.name
    pub name: String,
    /// image.image
    pub image: String,
    /// command
    pub command: Vec<String>,
    /// args
    pub args: Vec<String>,
    /// envs, as NAME=VALUE
    pub env: Vec<String>,
    /// working_dir
    pub cwd: Option<String>,
    /// tty
    pub tty: bool,
    /// mounts
    pub mounts: Vec<Mount>,
    /// labels
    pub labels: BTreeMap<String, String>,
    /// annotations
    pub annotations: BTreeMap<String, String>,
    /// linux.resources.memory_limit_in_bytes
    pub memory: Option<i64>,
    /// linux.resources.memory_swap_limit_in_bytes
    pub memory_swap: Option<i64>,
    /// linux.resources.cpu_shares
    pub cpu_shares: Option<u64>,
    /// linux.resources.cpuset_cpus
    pub cpuset_cpus: Option<String>,
    /// linux.security_context.capabilities.add_capabilities
    pub cap_add: Vec<String>,
    /// linux.security_context.capabilities.drop_capabilities
    pub cap_drop: Vec<String>,
    /// linux.security_context.readonly_rootfs
    pub read_only: bool,
    /// Which pid namespace it is in.
    pub pids: Pids,
    /// Its user, by number or name.
    pub user: Option<String>,
    group: Option<u32>,
    more_groups: Vec<u32>,
    /// Groups of /etc/group are left out.
    strict_groups: bool,
    no_new_privileges: bool,
    /// What it may, and what it must not.
    pub security: Security,
    /// Values for config.json, by the way to them.
    values: Vec<(Vec<&'static str>, Value)>,
    devices: Vec<Device>,
    stop_signal: Option<String>,
}

/// A pid namespace.
#[derive(Debug, Default, PartialEq)]
pub enum Pids {
    /// The sandbox's.
    #[default]
    Pod,
    /// One of its own.
    Own,
    /// That of another container of the pod, by its id.
    Target(String),
}

#[derive(Debug)]
struct Device {
    node: Value,
    rule: Value,
}

impl Container {
    /// Reads it; what is wrong is added to `errors`.
    pub fn read(at: &At<'_>, errors: &mut Vec<Error>) -> Self {
        let known = [
            "metadata",
            "image",
            "command",
            "args",
            "working_dir",
            "envs",
            "mounts",
            "devices",
            "labels",
            "annotations",
            "log_path",
            "stdin",
            "stdin_once",
            "tty",
            "linux",
            "windows",
            "CDI_devices",
            "stop_signal",
        ];
        only(at, &known, errors);
        refuse(at, "windows", "containers are Linux's here", errors);
        refuse(
            at,
            "CDI_devices",
            "no CDI specifications are read here, which say what a name stands for: give devices, \
             mounts and envs",
            errors,
        );
        let mut read = Self::default();
        let metadata = at.at("metadata");
        only(&metadata, &["name", "attempt"], errors);
        keep(metadata.at("attempt").number::<u32>(), errors);
        let name = metadata.at("name");
        read.name = keep(name.some_text().and_then(|text| name.plain(text)), errors).to_owned();
        let image = at.at("image");
        let known = ["image", "annotations", "user_specified_image", "runtime_handler"];
        only(&image, &known, errors);
        read.image = keep(image.at("image").some_text(), errors).to_owned();
        read.command = keep(at.at("command").texts(), errors);
        read.args = keep(at.at("args").texts(), errors);
        let cwd = at.at("working_dir");
        if cwd.is_set() {
            read.cwd = Some(keep(cwd.absolute(), errors).to_owned());
        }
        for env in keep(at.at("envs").items(), errors) {
            read.env.push(keep(read_env(&env, errors), errors));
        }
        for mount in keep(at.at("mounts").items(), errors) {
            match read_mount(&mount, errors) {
                Ok(mount) => read.mounts.push(mount),
                Err(error) => errors.push(error),
            }
        }
        for device in keep(at.at("devices").items(), errors) {
            match read_device(&device, errors) {
                Ok(device) => read.devices.push(device),
                Err(error) => errors.push(error),
            }
        }
        read.labels = texts(&at.at("labels"), errors);
        read.annotations = texts(&at.at("annotations"), errors);
        keep(at.at("log_path").text(), errors);
        keep(at.at("stdin").flag(), errors);
        keep(at.at("stdin_once").flag(), errors);
        read.tty = keep(at.at("tty").flag(), errors);
        read.stop_signal = keep(at.at("stop_signal").text(), errors).map(str::to_owned);
        let linux = at.at("linux");
        only(&linux, &["resources", "security_context"], errors);
        read.resources(&linux.at("resources"), errors);
        read.security(&linux.at("security_context"), errors);
        read
    }

    fn resources(&mut self, at: &At<'_>, errors: &mut Vec<Error>) {
        let known = [
            "cpu_period",
            "cpu_quota",
            "cpu_shares",
            "memory_limit_in_bytes",
            "oom_score_adj",
            "cpuset_cpus",
            "cpuset_mems",
            "hugepage_limits",
            "unified",
            "memory_swap_limit_in_bytes",
        ];
        only(at, &known, errors);
        // 0 is what CRI means by nothing.
        let mut number =
            |key: &str| keep(at.at(key).number::<i64>(), errors).filter(|number| *number != 0);
        self.memory = number("memory_limit_in_bytes");
        self.memory_swap = number("memory_swap_limit_in_bytes");
        let values = [
            (vec!["linux", "resources", "cpu", "period"], number("cpu_period")),
            (vec!["linux", "resources", "cpu", "quota"], number("cpu_quota")),
            (vec!["process", "oomScoreAdj"], number("oom_score_adj")),
        ];
        self.values
            .extend(values.into_iter().filter_map(|(way, value)| Some((way, value?.into()))));
        self.cpu_shares =
            keep(at.at("cpu_shares").number::<u64>(), errors).filter(|shares| *shares != 0);
        self.cpuset_cpus = keep(at.at("cpuset_cpus").text(), errors).map(str::to_owned);
        if let Some(mems) = keep(at.at("cpuset_mems").text(), errors) {
            self.values.push((vec!["linux", "resources", "cpu", "mems"], mems.into()));
        }
        let mut pages = Vec::new();
        for limit in keep(at.at("hugepage_limits").items(), errors) {
            only(&limit, &["page_size", "limit"], errors);
            let size = keep(limit.at("page_size").some_text(), errors);
            let most = keep(limit.at("limit").number::<u64>(), errors).unwrap_or_default();
            pages.push(json!({ "pageSize": size, "limit": most }));
        }
        if !pages.is_empty() {
            self.values.push((vec!["linux", "resources", "hugepageLimits"], pages.into()));
        }
        let unified = texts(&at.at("unified"), errors);
        if !unified.is_empty() {
            self.values.push((vec!["linux", "resources", "unified"], json!(unified)));
        }
    }

    fn security(&mut self, at: &At<'_>, errors: &mut Vec<Error>) {
        let known = [
            "capabilities",
            "privileged",
            "namespace_options",
            "selinux_options",
            "run_as_user",
            "run_as_group",
            "run_as_username",
            "readonly_rootfs",
            "supplemental_groups",
            "supplemental_groups_policy",
            "no_new_privs",
            "masked_paths",
            "readonly_paths",
            "seccomp",
            "apparmor",
            "apparmor_profile",
            "seccomp_profile_path",
        ];
        only(at, &known, errors);
        for (key, instead) in
            [("apparmor_profile", "apparmor"), ("seccomp_profile_path", "seccomp")]
        {
            refuse(at, key, &format!("CRI has replaced it: use {instead}"), errors);
        }
        let capabilities = at.at("capabilities");
        let known = ["add_capabilities", "drop_capabilities", "add_ambient_capabilities"];
        only(&capabilities, &known, errors);
        refuse(&capabilities, "add_ambient_capabilities", "it is not supported", errors);
        self.cap_add = capability_names(&capabilities.at("add_capabilities"), errors);
        self.cap_drop = capability_names(&capabilities.at("drop_capabilities"), errors);
        self.namespaces(&at.at("namespace_options"), errors);
        self.read_user(at, errors);
        self.read_only = keep(at.at("readonly_rootfs").flag(), errors);
        self.no_new_privileges = keep(at.at("no_new_privs").flag(), errors);
        for (key, name) in [("masked_paths", "maskedPaths"), ("readonly_paths", "readonlyPaths")] {
            if at.at(key).value().is_array() {
                let paths = keep(at.at(key).items(), errors);
                let paths: Vec<&str> =
                    paths.iter().map(|path| keep(path.absolute(), errors)).collect();
                self.values.push((vec!["linux", name], paths.into()));
            }
        }
        self.security = Security::read(at, errors);
    }

    fn namespaces(&mut self, at: &At<'_>, errors: &mut Vec<Error>) {
        only(at, &["network", "pid", "ipc", "target_id", "userns_options"], errors);
        let modes: [(&str, &[u8]); 3] =
            [("network", &[0, 2]), ("ipc", &[0, 2]), ("pid", &[0, 1, 2, 3])];
        for (key, known) in modes {
            let mode = keep(at.at(key).number::<u8>(), errors).unwrap_or_default();
            if !known.contains(&mode) {
                errors.push(at.at(key).refused(format!("mode {mode} cannot be had here")));
            }
            // What the sandbox shares with the host comes with the sandbox's namespaces.
            match (key, mode) {
                ("pid", 1) => self.pids = Pids::Own,
                ("pid", 3) => {
                    let target = keep(at.at("target_id").some_text(), errors);
                    self.pids = Pids::Target(target.to_owned());
                }
                _ => {}
            }
        }
        let user = at.at("userns_options");
        only(&user, &["mode", "uids", "gids"], errors);
        let mode = keep(user.at("mode").number::<u8>(), errors).unwrap_or_default();
        if user.is_set() && mode != 2 {
            errors.push(user.at("mode").refused(
                "the files of the root would have to belong to the pod's ids, and they are not \
                 changed here: 2 (NODE), or containerd",
            ));
        }
    }

    fn read_user(&mut self, at: &At<'_>, errors: &mut Vec<Error>) {
        // Go's Int64Value.
        let mut id = |key: &str| {
            let at = at.at(key);
            only(&at, &["value"], errors);
            let id = keep(at.at("value").number::<u32>(), errors);
            if at.value().is_null() { None } else { id.or(Some(0)) }
        };
        let (user, group) = (id("run_as_user"), id("run_as_group"));
        let name = keep(at.at("run_as_username").text(), errors);
        if user.is_some() && name.is_some() {
            errors.push(at.at("run_as_username").wrong("run_as_user is there, too: one of both"));
        }
        if group.is_some() && user.is_none() && name.is_none() {
            errors.push(
                at.at("run_as_group").wrong("it needs run_as_user or run_as_username beside it"),
            );
        }
        self.user = user.map(|uid| uid.to_string()).or_else(|| name.map(str::to_owned));
        self.group = group;
        for gid in keep(at.at("supplemental_groups").items(), errors) {
            match keep(gid.number::<u32>(), errors) {
                Some(gid) => self.more_groups.push(gid),
                None => errors.push(gid.wrong("is missing")),
            }
        }
        let policy = at.at("supplemental_groups_policy");
        let number = keep(policy.number::<u8>(), errors).unwrap_or_default();
        if number > 1 {
            errors.push(policy.wrong("wanted 0 (Merge) or 1 (Strict)"));
        }
        self.strict_groups = number == 1;
    }

    /// The last changes of config.json.
    ///
    /// # Errors
    /// As [`Security::apply`].
    pub fn finish(self, config: &mut Value) -> Result<()> {
        self.security.apply(config)?;
        for (way, value) in self.values {
            settings::set(config, &way, value);
        }
        if let Some(group) = self.group {
            settings::set(config, &["process", "user", "gid"], group);
        }
        let there = config.pointer("/process/user/additionalGids").and_then(Value::as_array);
        let mut groups: Vec<Value> =
            there.filter(|_| !self.strict_groups).cloned().unwrap_or_default();
        groups.extend(self.more_groups.into_iter().map(Value::from));
        if !groups.is_empty() || self.strict_groups {
            settings::set(config, &["process", "user", "additionalGids"], groups);
        }
        settings::set(config, &["process", "noNewPrivileges"], self.no_new_privileges);
        if let Some(signal) = self.stop_signal {
            settings::set(config, &["annotations", STOP_SIGNAL], signal);
        }
        for device in self.devices {
            // The host's own of that name, where the container is privileged.
            let all = config.pointer_mut("/linux/devices").and_then(Value::as_array_mut);
            if let Some(all) = all {
                all.retain(|other| other["path"] != device.node["path"]);
            }
            append(config, &["linux", "devices"], device.node);
            append(config, &["linux", "resources", "devices"], device.rule);
        }
        Ok(())
    }
}

fn append(config: &mut Value, way: &[&str], item: Value) {
    let there = config.pointer(&format!("/{}", way.join("/"))).and_then(Value::as_array);
    let mut all = there.cloned().unwrap_or_default();
    all.push(item);
    settings::set(config, way, all);
}

fn capability_names(at: &At<'_>, errors: &mut Vec<Error>) -> Vec<String> {
    let mut names = Vec::new();
    for item in keep(at.items(), errors) {
        let name = keep(item.some_text(), errors);
        match settings::capabilities(name) {
            Ok(_) => names.push(name.to_owned()),
            Err(error) => errors.push(item.wrong(error)),
        }
    }
    names
}

fn read_env(at: &At<'_>, errors: &mut Vec<Error>) -> Result<String> {
    only(at, &["key", "value"], errors);
    let key = at.at("key").some_text()?;
    if key.contains(['=', '\0']) {
        return Err(at.at("key").wrong("a name has no = in it"));
    }
    let value = at.at("value").text()?.unwrap_or_default();
    if value.contains('\0') {
        return Err(at.at("value").wrong("a value has no NUL in it"));
    }
    Ok(format!("{key}={value}"))
}

fn read_mount(at: &At<'_>, errors: &mut Vec<Error>) -> Result<Mount> {
    let known = [
        "container_path",
        "host_path",
        "readonly",
        "selinux_relabel",
        "propagation",
        "uidMappings",
        "gidMappings",
        "recursive_read_only",
        "image",
        "image_sub_path",
    ];
    only(at, &known, errors);
    for key in ["uidMappings", "gidMappings", "image", "image_sub_path"] {
        refuse(at, key, "it is not supported: mount a folder of the host", errors);
    }
    refuse(at, "selinux_relabel", "files of the host are not relabelled: use chcon(1)", errors);
    let destination = at.at("container_path").absolute()?.to_owned();
    let source = at.at("host_path").absolute()?;
    if !std::path::Path::new(source).exists() {
        return Err(at.at("host_path").wrong(format!("there is no {source}")));
    }
    let read_only = at.at("readonly").flag()?;
    let recursively = at.at("recursive_read_only").flag()?;
    if recursively && !read_only {
        return Err(at.at("recursive_read_only").wrong("it needs readonly beside it"));
    }
    let propagation = match at.at("propagation").number::<u8>()?.unwrap_or_default() {
        0 => "rprivate",
        1 => "rslave",
        2 if recursively => {
            return Err(at.at("propagation").wrong("recursive_read_only is for 0 (PRIVATE) only"));
        }
        2 => "rshared",
        other => {
            return Err(at.at("propagation").wrong(format!("found {other}, wanted 0, 1 or 2")));
        }
    };
    let access = match (recursively, read_only) {
        (true, _) => "rro",
        (false, true) => "ro",
        (false, false) => "rw",
    };
    Ok(Mount {
        kind: "bind".to_owned(),
        source: source.to_owned(),
        destination,
        options: ["rbind", propagation, access].map(str::to_owned).to_vec(),
    })
}

fn read_device(at: &At<'_>, errors: &mut Vec<Error>) -> Result<Device> {
    only(at, &["container_path", "host_path", "permissions"], errors);
    let source = at.at("host_path").absolute()?;
    let path = at.at("container_path").absolute()?;
    let access = at.at("permissions").some_text()?;
    if !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(at.at("permissions").wrong("wanted letters of rwm"));
    }
    let found = std::fs::metadata(source)
        .map_err(|error| at.at("host_path").wrong(format!("{source}: {error}")))?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return Err(at.at("host_path").wrong(format!("{source} is not a device"))),
    };
    let (major, minor) = (libc::major(found.rdev()), libc::minor(found.rdev()));
    Ok(Device {
        node: json!({
            "path": path, "type": kind, "major": major, "minor": minor,
            "fileMode": found.mode() & 0o777, "uid": found.uid(), "gid": found.gid(),
        }),
        rule: json!({
            "allow": true, "type": kind, "major": major, "minor": minor, "access": access,
        }),
    })
}

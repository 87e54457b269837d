//! Making, changing and removing guests.

use crate::args::Words;
use crate::conf::{self, Guest};
use crate::fault;
use crate::life;
use crate::lxc;
use crate::report::{Failure, Outcome, early, fail, reason, said_with_input, say};
use crate::storage::{LOCAL, SHIFT, Volume, make_mount_point};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Command;

/// Where in the cluster a guest of that number is, in the words of an error.
fn taken(vmid: u32) -> Option<String> {
    let list = fs::read_to_string(format!("{}/.vmlist", crate::cluster::ROOT)).ok()?;
    let list: serde_json::Value = serde_json::from_str(&list).ok()?;
    let guest = list.get("ids")?.get(vmid.to_string())?;
    let kind = if guest.get("type")?.as_str()? == "lxc" { "CT" } else { "VM" };
    Some(format!("{kind} {vmid} already exists on node '{}'", guest.get("node")?.as_str()?))
}

/// What `pct create` refuses before it begins.
pub fn check(words: &Words) -> Outcome {
    life::quorum(2)?;
    if let Some(taken) = taken(words.vmid) {
        return early(taken);
    }
    for (name, value) in &words.options {
        if name == "rootfs" || name.starts_with("mp") {
            Volume::parse(value).check()?;
        }
    }
    if let Some(storage) = words.get("storage").filter(|name| *name != "local") {
        return early(format!("storage '{storage}' does not exist"));
    }
    match words.more.first().and_then(|template| template.split_once(":vztmpl/")) {
        Some((storage, _)) if storage != "local" => {
            early(format!("storage '{storage}' does not exist"))
        }
        _ => Ok(()),
    }
}

/// `pct create`.
pub fn create(words: &Words) -> Outcome {
    let vmid = words.vmid;
    let prefixed = |failure: Failure| {
        Failure::new(255, format!("unable to create CT {vmid} - {}", failure.text))
    };
    let _lock = conf::lock(vmid, 255, say)?;
    let mut reserved = Guest::default();
    reserved.keys.insert("lock".to_owned(), "create".to_owned());
    if let Err(error) = reserved.store_new(vmid) {
        let why = match error.kind() {
            ErrorKind::AlreadyExists => {
                taken(vmid).unwrap_or_else(|| format!("CT {vmid} already exists"))
            }
            _ => format!("unable to open file '{}' - {}", conf::path(vmid), reason(&error)),
        };
        return Err(prefixed(Failure::new(255, why)));
    }
    fault::linger("create-locked");
    let made = make(words).and_then(|guest| guest.store(vmid));
    if let Err(failure) = made {
        fs::remove_file(conf::path(vmid)).ok();
        return Err(prefixed(failure));
    }
    if words.flag("start") {
        // Its failure is none of the command.
        say("CT is locked (create)");
    }
    Ok(())
}

fn make(words: &Words) -> Outcome<Guest> {
    let vmid = words.vmid;
    let template = template(words.more.first().map_or("", String::as_str))?;
    let mut guest = Guest::default();
    for (key, value) in [
        ("arch", "amd64".to_owned()),
        ("hostname", format!("CT{vmid}")),
        ("memory", "512".to_owned()),
        ("swap", "512".to_owned()),
        ("ostype", "debian".to_owned()),
        ("rootfs", format!("{}:4", words.get("storage").unwrap_or("local"))),
        ("unprivileged", "1".to_owned()),
    ] {
        guest.keys.insert(key.to_owned(), value);
    }
    for (name, value) in &words.options {
        if crate::args::is_setting(name) {
            apply(&mut guest, name, value);
        }
    }
    if !guest.flag("unprivileged") {
        guest.keys.remove("unprivileged");
    }
    let unprivileged = guest.flag("unprivileged");
    let mut volumes = Vec::new();
    for (key, value) in &mut guest.keys {
        if key == "rootfs" || key.starts_with("mp") {
            let mut volume = Volume::parse(value);
            volume.allocate(vmid, unprivileged)?;
            *value = volume.text();
            volumes.push((key.clone(), volume));
        }
    }
    let filled = fill(&guest, &volumes, &template, vmid);
    if filled.is_err() {
        for (_, volume) in &volumes {
            volume.free();
        }
        filled?;
    }
    if words.get("arch").is_none() {
        say("Falling back to amd64.");
        say("Use `pct set VMID --arch ARCH` to change.");
    }
    Ok(guest)
}

/// Puts the template into the guest's root, in mounts that only this process sees.
fn fill(guest: &Guest, volumes: &[(String, Volume)], template: &str, vmid: u32) -> Outcome {
    let root = lxc::folder(vmid).join("rootfs");
    fs::create_dir_all(&root).or_else(|error| fail(reason(&error)))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
        .or_else(|errno| fail(errno.desc()))?;
    let Some((_, volume)) = volumes.iter().find(|(key, _)| key == "rootfs") else {
        return fail("no rootfs");
    };
    // What a guest may only read is still filled once.
    let mut writable = volume.clone();
    writable.options.retain(|(key, _)| key != "ro");
    writable.mount(&root).inspect_err(|_| say("mounting container failed"))?;
    let filled = extract(guest, template, &root).and_then(|()| {
        for (_, volume) in volumes.iter().filter(|(key, _)| key.starts_with("mp")) {
            make_mount_point(&root, volume.get("mp").unwrap_or("/"))?;
        }
        if guest.get("ostype") != Some("unmanaged") {
            // The real one edits more than these, and so do its hooks at each start.
            let name = guest.get("hostname").unwrap_or_default();
            let edit = || {
                fs::create_dir_all(root.join("etc"))?;
                fs::write(root.join("etc/hostname"), format!("{name}\n"))?;
                fs::write(root.join("etc/hosts"), format!("127.0.1.1 {name}\n"))
            };
            edit().or_else(|error| fail(reason(&error)))?;
        }
        Ok(())
    });
    umount2(&root, MntFlags::MNT_DETACH).ok();
    filled
}

fn extract(guest: &Guest, template: &str, root: &Path) -> Outcome {
    say(&format!("extracting archive '{template}'"));
    let mut command = if guest.flag("unprivileged") {
        let mut command = Command::new("lxc-usernsexec");
        for kind in ["u", "g"] {
            command.args(["-m", &format!("{kind}:0:{SHIFT}:65536")]);
        }
        command.args(["--", "tar"]);
        command
    } else {
        Command::new("tar")
    };
    // pct opens the archive itself: who unpacks it need not be allowed to.
    let archive = fs::File::open(template).or_else(|error| fail(reason(&error)))?;
    // What tar sees by itself only in a file that it opens.
    let packers = [
        (".gz", "--gzip"),
        (".bz2", "--bzip2"),
        (".xz", "--xz"),
        (".lzo", "--lzop"),
        (".zst", "--zstd"),
    ];
    command.args(packers.iter().filter(|(end, _)| template.ends_with(end)).map(|(_, flag)| flag));
    command.stdin(archive).args([
        "--extract",
        "--file",
        "-",
        "--totals",
        "--numeric-owner",
        "--same-permissions",
        "--skip-old-files",
        "--anchored",
        "--exclude",
        "./dev/*",
        "--directory",
    ]);
    match said_with_input(command.arg(root)) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => fail(format!(
            "command 'tar xpf {template}' failed: exit code {}",
            status.code().unwrap_or(255)
        )),
        Err(error) => fail(reason(&error)),
    }
}

/// The path of a template that may be one.
fn template(name: &str) -> Outcome<String> {
    let path = match name.strip_prefix("local:vztmpl/") {
        Some(file) => {
            let path = format!("{LOCAL}/template/cache/{file}");
            if !Path::new(&path).exists() {
                return fail(format!("volume '{name}' does not exist"));
            }
            path
        }
        None => std::path::absolute(name)
            .map(|path| path.display().to_string())
            .or_else(|error| fail(reason(&error)))?,
    };
    let Ok(meta) = fs::metadata(&path) else {
        let text = format!("can't find file '{path}'");
        say(&text);
        return fail(text);
    };
    let known = [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.lzo", ".tar.zst"];
    if !known.iter().any(|end| path.ends_with(end)) || !meta.is_file() {
        return fail(format!("file does not look like a template archive: {path}"));
    }
    if path.ends_with(".tar") {
        // To see whether it is an OCI image.
        let listed = Command::new("tar").args(["-tf", &path]).output();
        let listed = listed.or_else(|error| fail(reason(&error)))?;
        if !listed.status.success() || meta.len() == 0 {
            return fail(format!("command 'tar -tf {path}' failed: exit code 2"));
        }
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let has = |name: &str| names.lines().any(|line| line.trim_start_matches("./") == name);
        if has("oci-layout") && has("index.json") {
            say("Detected OCI archive");
            return fail("the stand-in has no OCI images");
        }
    }
    Ok(path)
}

/// Sets one setting, in the form in which it is kept.
fn apply(guest: &mut Guest, name: &str, value: &str) {
    match name {
        "description" => {
            value.clone_into(&mut guest.description);
            if !value.is_empty() && !value.ends_with('\n') {
                guest.description.push('\n');
            }
        }
        "env" => guest.env = value.split('\0').map(str::to_owned).collect(),
        _ => {
            let value = match name {
                "tags" => tags(value),
                _ if name.starts_with("net") && name != "net" => network(value),
                _ if name == "rootfs" || name.starts_with("mp") => Volume::parse(value).text(),
                _ => value.to_owned(),
            };
            guest.keys.insert(name.to_owned(), value);
        }
    }
}

fn tags(value: &str) -> String {
    let mut tags: Vec<_> =
        value.split([';', ',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_lowercase).collect();
    tags.sort();
    tags.dedup();
    tags.join(";")
}

/// A network device with all that it gets by itself: an address, a type.
fn network(value: &str) -> String {
    let mut name = "eth0".to_owned();
    let mut options = std::collections::BTreeMap::from([("type", "veth".to_owned())]);
    options.insert("hwaddr", address());
    for (key, value) in value.split(',').filter_map(|part| part.split_once('=')) {
        if key == "name" {
            value.clone_into(&mut name);
        } else {
            options.insert(key, value.to_owned());
        }
    }
    let options = options.iter().map(|(key, value)| format!(",{key}={value}"));
    format!("name={name}{}", options.collect::<String>())
}

/// A new hardware address of Proxmox's own range.
fn address() -> String {
    let mut bytes = [0; 3];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).ok();
    let [first, second, third] = bytes;
    format!("BC:24:11:{first:02X}:{second:02X}:{third:02X}")
}

/// `pct set`.
pub fn set(words: &Words) -> Outcome {
    let vmid = words.vmid;
    Guest::exists(vmid, 2)?;
    if words.get("unprivileged").is_some() {
        return fail("unable to modify read-only option: 'unprivileged'");
    }
    let _lock = conf::lock(vmid, 4, crate::report::warn)?;
    let mut guest = Guest::load(vmid, 2)?;
    guest.unlocked()?;
    for name in words.get("delete").unwrap_or_default().split([',', ' ', ';']) {
        match name {
            "description" => guest.description.clear(),
            "env" => guest.env.clear(),
            _ => drop(guest.keys.remove(name)),
        }
    }
    for (name, value) in &words.options {
        if name == "rootfs" || name.starts_with("mp") {
            Volume::parse(value).check()?;
        }
        if crate::args::is_setting(name) {
            apply(&mut guest, name, value);
        }
    }
    guest.store(vmid)?;
    let limits = ["memory", "swap", "cpulimit", "cpuunits"];
    if life::is_running(vmid) && limits.iter().any(|name| words.get(name).is_some()) {
        lxc::apply_limits(vmid, &guest);
    }
    Ok(())
}

/// `pct unlock`.
pub fn unlock(vmid: u32) -> Outcome {
    let _lock = conf::lock(vmid, 4, crate::report::warn)?;
    let mut guest = Guest::load(vmid, 2)?;
    if guest.keys.remove("lock").is_none() {
        return fail("no lock found trying to remove any lock");
    }
    guest.store(vmid)
}

/// `pct destroy`.
pub fn destroy(vmid: u32, force: bool) -> Outcome {
    let _lock = conf::lock(vmid, 255, say)?;
    let mut guest = Guest::load(vmid, 255)?;
    if guest.flag("protection") {
        return fail(format!("can't remove CT {vmid} - protection mode enabled"));
    }
    guest.unlocked()?;
    if life::is_running(vmid) {
        if !force {
            return fail(format!("unable to destroy CT {vmid} - container is running"));
        }
        say(&format!("forced to stop CT {vmid} before destroying!"));
        life::kill(vmid);
    }
    guest.keys.insert("lock".to_owned(), "destroyed".to_owned());
    guest.store(vmid)?;
    for (key, value) in &guest.keys {
        if key == "rootfs" || key.starts_with("mp") {
            Volume::parse(value).free();
        }
    }
    fault::linger("destroy-locked");
    // What a start has left beside these keeps the folder there, and nobody is told.
    fs::remove_file(lxc::folder(vmid).join("config")).ok();
    fs::remove_dir(lxc::folder(vmid).join("rootfs")).ok();
    fs::remove_dir(lxc::folder(vmid)).ok();
    fs::remove_file(conf::path(vmid)).or_else(|error| {
        fail(format!("unable to remove '{}' - {}", conf::path(vmid), reason(&error)))
    })
}

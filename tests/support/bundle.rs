//! Bundles, as containerd makes them.

use super::{bed, fifo};
use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest, Mount};
use nix::fcntl::OFlag;
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A config.json that runs `args` in namespaces and a cgroup of its own, on the bed's root file
/// system, which it cannot write.
pub fn spec(args: &[&str], cgroup: &str, capabilities: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": true,
        },
        "root": { "path": bed::rootfs(), "readonly": true },
        "hostname": "nexcage",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" },
        ],
        "linux": {
            "cgroupsPath": format!("/{cgroup}"),
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network" },
            ],
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
        },
    })
}

/// A bundle whose config.json is on disk and can be changed.
pub struct Bundle {
    /// The container's id.
    pub id: String,
    /// The bundle's folder.
    pub path: PathBuf,
    /// What config.json says; [`Bundle::edit`] changes it.
    pub spec: Value,
    /// containerd's end of the shim's log.
    log: File,
}

impl Bundle {
    /// Makes a bundle in `parent` for a container that runs `args` in namespaces and a cgroup of
    /// its own, on the bed's root file system, which it cannot write.
    pub fn new(parent: &Path, id: &str, cgroup: &str, args: &[&str]) -> Self {
        let path = parent.join(id);
        fs::create_dir_all(path.join("rootfs")).unwrap();
        let spec = spec(args, cgroup, &["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]);
        fifo::make(&path, "log");
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path.join("log"))
            .unwrap();
        let bundle = Self { id: id.to_owned(), path, spec, log };
        bundle.write();
        bundle
    }

    fn write(&self) {
        fs::write(self.path.join("config.json"), self.spec.to_string()).unwrap();
    }

    /// Changes config.json.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self.write();
        self
    }

    /// The lines that the shim has logged since this was last called.
    pub fn logged(&self) -> String {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(size @ 1..) = (&self.log).read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..size]);
        }
        String::from_utf8(bytes).unwrap()
    }

    /// Gives its process a terminal.
    #[must_use]
    pub fn with_terminal(self) -> Self {
        self.edit(|spec| spec["process"]["terminal"] = true.into())
    }

    /// Takes the root file system from mounts in the Create request instead of a ready folder.
    #[must_use]
    pub fn on_mounts(self) -> Self {
        self.edit(|spec| spec["root"] = json!({ "path": "rootfs", "readonly": true }))
    }

    /// A bind mount of the bed's root file system, as a snapshotter would give it.
    pub fn bind_mount() -> Mount {
        Mount {
            type_: "bind".to_owned(),
            source: bed::rootfs().to_string_lossy().into_owned(),
            options: vec!["rbind".to_owned(), "ro".to_owned()],
            ..Mount::default()
        }
    }

    /// The Create request: no stdio, no mounts.
    pub fn create(&self) -> CreateTaskRequest {
        CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.path.to_string_lossy().into_owned(),
            ..CreateTaskRequest::default()
        }
    }

    /// An Exec request of one more process: no stdio.
    pub fn exec(&self, exec: &str, args: &[&str]) -> ExecProcessRequest {
        let mut process = self.spec["process"].clone();
        process["args"] = json!(args);
        process["terminal"] = false.into();
        ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            spec: MessageField::some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
                value: process.to_string().into_bytes(),
                ..Any::default()
            }),
            ..ExecProcessRequest::default()
        }
    }
}

/// `runtimeoptions.v1.Options` with a TOML body, as CRI sends the `options` table.
pub fn toml_options(body: &str) -> Any {
    Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value: field(3, body.as_bytes()),
        ..Any::default()
    }
}

/// `containerd.runc.v1.Options` that name the runtime.
pub fn runc_options(binary: &Path) -> Any {
    use containerd_shim_protos::shim::oci::Options;
    let options =
        Options { binary_name: binary.to_string_lossy().into_owned(), ..Options::default() };
    Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: protobuf::Message::write_to_bytes(&options).unwrap(),
        ..Any::default()
    }
}

/// One length-delimited field, for messages that no crate carries.
pub fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(value);
    bytes
}

//! What a backend can do, as runtime-spec's features.md has it.

use super::oci;
use crate::config::{BackendName, Config};
use crate::error::Result;
use crate::guest::translate;
use crate::spec;
use crate::sys::ask::ask;
use oci_spec::runtime::Features;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a runtime may take to tell its features, and how much it may say.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX: u64 = 1 << 20;

/// What `linux.seccomp` may name; a test has each of them translated.
const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];
#[cfg(not(target_arch = "x86_64"))]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];

/// The features of a backend. crun and runc give their own account, in which only the annotations
/// that nexcage acts on are added; crun before 1.8.6 gives none, and then only what every runtime
/// has is said.
///
/// # Errors
/// `Unavailable` when the runtime is not there.
pub fn of(name: BackendName, config: &Config) -> Result<Value> {
    let mut features = match name {
        BackendName::Crun | BackendName::Runc => {
            let program = oci::find_program(name, &oci::settings(name, config)?.program)?;
            // containerd waits for the answer while it starts.
            let said = ask(&program, "features", PATIENCE, MAX)?;
            let account = serde_json::from_slice::<Features>(&said)
                .and_then(|_| serde_json::from_slice::<Value>(&said));
            let least = json!({ "ociVersionMin": "1.0.0", "ociVersionMax": "1.0.2" });
            account.unwrap_or(least)
        }
        BackendName::Lxc | BackendName::Pct => of_guests(),
    };
    features["annotations"]["io.nexcage.version"] = env!("CARGO_PKG_VERSION").into();
    features["annotations"]["io.nexcage.backend"] = name.as_str().into();
    Ok(features)
}

/// What is translated for LXC's guests.
fn of_guests() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec::NEWEST,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        ],
        "mountOptions": translate::mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": translate::capabilities(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": ARCHITECTURES,
                "knownFlags": FLAGS,
                "supportedFlags": FLAGS,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::seccomp;

    #[test]
    fn what_guests_can_do_is_said_in_runtime_specs_words_and_done() {
        let said = of_guests();
        serde_json::from_value::<Features>(said.clone()).unwrap();
        for action in ACTIONS {
            for operator in OPERATORS {
                let seccomp = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "architectures": ARCHITECTURES,
                    "flags": FLAGS,
                    "syscalls": [{
                        "names": ["mkdir"], "action": action,
                        "args": [{ "index": 0, "value": 1, "op": operator }],
                    }],
                });
                assert!(seccomp::compile(&seccomp).unwrap().is_some(), "{action} {operator}");
            }
        }
        let options = said["linux"]["capabilities"].as_array().unwrap();
        assert!(options.contains(&json!("CAP_NET_RAW")));
        let options = said["mountOptions"].as_array().unwrap();
        assert!(options.contains(&json!("rbind")) && options.contains(&json!("rro")));
    }
}
